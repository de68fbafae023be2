"""What the rendered data sets have in common: pictures are made a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors


class Factors:
    """For a dataclass of tensors that all have a row a picture: the factors of B pictures."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, rows) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device) -> Self:
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def replace(self, **factors: Tensor) -> Self:
        """The same pictures with some factors exchanged: `a.replace(texture=b.texture)`."""
        return replace(self, **factors)


class BatchedDataset(Dataset):
    """A map-style data set made of `batch(indices)`, which gives a dict of tensors with a leading axis B, and `__len__`.

    An item is a dict of the same names without that axis. A DataLoader fetches whole batches with `collate_fn=collate`.
    """

    stream_size = 32  # of the batches of `stream`: small ones stay in the processor's cache and render fastest

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The items `indices` together."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What takes long before the first batch, if anything does."""

    def stream(self, batch_size: int | None = None, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Batches of the items start … stop - 1 in order, `stream_size` each unless told."""
        size, stop = batch_size or self.stream_size, len(self) if stop is None else stop
        for first in range(start, stop, size):
            yield self.batch(range(first, min(first + size, stop)))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: typed(value[0], value) for name, value in self.batch([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """What a DataLoader calls to fetch a whole batch."""
        return self.batch(indices)

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch as it is: it was made together."""
        return batch


class InMemory(BatchedDataset):
    """All items of another data set, made once: for runs so small that rendering would take most of their time."""

    def __init__(self, data: BatchedDataset):
        parts = list(data.stream(200))
        self.source = data
        self.items = {name: typed(torch.cat([part[name] for part in parts]), value) for name, value in parts[0].items()}
        self.length = len(data)

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(indices), dtype=torch.int64)
        if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"item {int(rows.min())} … {int(rows.max())} of a set of {len(self)}")
        return {name: typed(values[rows], values) for name, values in self.items.items()}


def typed(value: Tensor, like: Tensor) -> Tensor:
    """The tv_tensor that it was taken from: indexing and concatenation give plain ones."""
    return tv_tensors.wrap(value, like=like) if isinstance(like, tv_tensors.TVTensor) else value
