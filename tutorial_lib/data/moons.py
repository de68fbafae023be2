"""Three moons: points in the plane, where one coordinate tells the class and the other does not.

Three half circles of radius 1 stand beside each other, 2.2 apart, each open to the left; Gaussian noise of 0.15 is added
(Zheng & Sun, CVPR 2019, Fig. 2). x decides the class; y is distributed the same in all three.

    moons = ThreeMoons(length=6000, seed=0)
    batch = moons.batch(range(100))   # image (100, 2): x and y; label (100,)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tutorial_lib.data.batched import BatchedDataset
from tutorial_lib.data.papercut import uniform

N_CLASSES = 3
RADIUS, DISTANCE, NOISE = 1.0, 2.2, 0.15


class ThreeMoons(BatchedDataset):
    """Point i depends on (seed, i) and on nothing else.

    An item is a dict, a batch has the same names with a leading axis B: image (2,) float, x and y (called as what a method is
    trained on is called in every data set); label int64, 0 … 2 from left to right.
    """

    stream_size = 1000

    def __init__(self, length: int = 6000, seed: int = 0):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The points `indices` together."""
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < self.length):
            raise IndexError(f"point {int(rows.min())} … {int(rows.max())} of a set of {self.length}")
        which, along, far, turn = uniform(self.seed, rows, 4).unbind(1)
        label = (which * N_CLASSES).long()
        angle = math.pi * (along - 0.5)
        moon = RADIUS * torch.stack([angle.cos() - 0.5, angle.sin()], 1)
        moon[:, 0] += DISTANCE * (label - (N_CLASSES - 1) / 2)
        # Box and Muller: two Gaussian numbers from two uniform ones.
        length = NOISE * (-2 * torch.log1p(-far)).sqrt()
        noise = torch.stack([(2 * math.pi * turn).cos(), (2 * math.pi * turn).sin()], 1) * length[:, None]
        return {"image": moon + noise, "label": label}
