"""Scanned digits: the 1,797 handwritten digits that come with scikit-learn, 8 x 8 pixels in 17 greys.

Real data, small enough to ship with a dependency. Each scan is enlarged to the size of the networks and repeated in three
channels, so that what is built for 32 x 32 photographs takes it as it is.

    train, held_out = Digits("train"), Digits("held_out")
    batch = train.batch(range(16))   # image (16, 3, 32, 32) in [-1, 1], label (16,)
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.batched import BatchedDataset

N_CLASSES = 10
SMALLEST = 8  # pixels a side of the scans
HELD_OUT = 0.2
Split = Literal["train", "held_out"]


class Digits(BatchedDataset):
    """One side of a fixed split: a fifth of the scans is held out, the same share of every digit. `seed` chooses the split.

    An item is a dict, a batch has the same names with a leading axis B: image (3, size, size) float in [-1, 1], ink is 1; label
    int64, 0 … 9. Raises ValueError for another split or a size below 8.
    """

    stream_size = 128

    def __init__(self, split: Split = "train", seed: int = 0, size: int = 32):
        if split not in get_args(Split):
            raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}")
        if size < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST}, got {size}")
        self.split, self.seed, self.size = split, seed, size
        scans, labels = _scans()
        rows = _split(seed)[split]
        self.scans, self.labels = scans[rows], labels[rows]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The scans `indices` together."""
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"digit {int(rows.min())} … {int(rows.max())} of a set of {len(self)}")
        image = F.interpolate(self.scans[rows], (self.size, self.size), mode="bilinear", align_corners=False)
        return {"image": image.repeat(1, 3, 1, 1), "label": self.labels[rows]}


@cache
def _scans() -> tuple[Tensor, Tensor]:
    """All scans (1797, 1, 8, 8) in [-1, 1] and their labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images).float()[:, None] / 8 - 1, torch.from_numpy(digits.target).long()


@cache
def _split(seed: int) -> dict[str, Tensor]:
    """The rows of each side of the split, in ascending order."""
    from sklearn.model_selection import train_test_split

    labels = _scans()[1]
    sides = train_test_split(range(len(labels)), test_size=HELD_OUT, random_state=seed, stratify=labels)
    return {name: torch.tensor(sorted(rows)) for name, rows in zip(get_args(Split), sides, strict=True)}
