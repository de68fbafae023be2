"""The four codes of FineGAN and MixNMatch as one small type."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NAMES = {"pose": "z", "background": "b", "shape": "p", "texture": "c"}


def one_hot(z: Tensor, indices: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Class indices (B,) of each code as (B, n), of z's type. Not checked to be in range: a GPU would have to wait for that."""
    return [F.one_hot(index, n).to(z.dtype) for index, n in zip(indices, sizes, strict=True)]


@dataclass
class Codes:
    """Codes of B pictures: z (B, z_dim) is continuous; b, p and c (B, N) are one-hot or soft (rows sum to 1).

    b controls the background, p (the parent) the shape, c (the child) the texture, z the pose and everything else.
    """

    z: Tensor
    b: Tensor
    p: Tensor
    c: Tensor

    def __post_init__(self):
        if any(getattr(self, name).ndim != 2 for name in "zbpc"):
            raise ValueError("every code has shape (B, n); use Codes.from_indices for indices")
        lengths = {name: len(getattr(self, name)) for name in "zbpc"}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"codes of different batch sizes: {lengths}")

    @classmethod
    def from_indices(cls, z: Tensor, b: Tensor, p: Tensor, c: Tensor, sizes: tuple[int, int, int]) -> "Codes":
        """Codes from class indices (B,); sizes are (N_b, N_p, N_c)."""
        for name, index, n in zip("bpc", (b, p, c), sizes, strict=True):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < n:
                raise ValueError(f"{name} must lie in 0 … {n - 1}, got {int(index.min())} … {int(index.max())}")
        return cls(z, *one_hot(z, (b, p, c), sizes))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows) -> "Codes":
        return Codes(self.z[rows], self.b[rows], self.p[rows], self.c[rows])

    def to(self, device) -> "Codes":
        return Codes(*(getattr(self, name).to(device) for name in "zbpc"))

    def repeat(self, n: int) -> "Codes":
        """Each row n times in a row."""
        return Codes(*(getattr(self, name).repeat_interleave(n, 0) for name in "zbpc"))

    def mix(self, **donors: "Codes") -> "Codes":
        """These codes with some factors from donors: `codes.mix(background=a, texture=b)`.

        Factors are background, shape, texture and pose.
        """
        if unknown := set(donors) - set(NAMES):
            raise ValueError(f"unknown factors {sorted(unknown)}; there are {sorted(NAMES)}")
        changed = {NAMES[factor]: getattr(donor, NAMES[factor]) for factor, donor in donors.items()}
        return Codes(**{name: changed.get(name, getattr(self, name)) for name in "zbpc"})

    @staticmethod
    def cat(codes: "list[Codes]") -> "Codes":
        """Several batches of codes as one."""
        return Codes(*(torch.cat([getattr(part, name) for part in codes]) for name in "zbpc"))

    def index(self, name: str) -> Tensor:
        """The most probable class (B,) of b, p or c."""
        return getattr(self, name).argmax(1)
