"""What the numbers of every config, and the labels of every batch, must satisfy, whatever the method."""

import math
from collections.abc import Iterator
from dataclasses import fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor

# A field is a size, or a number of things of which one is needed, if its name begins with n_ or ends with one of these.
_SIZES = {
    "batch", "cells", "critic", "decoder", "dim", "discriminator", "down", "encoder", "every", "head", "hidden", "same", "size",
    "start", "up", "width", "widths",
}  # fmt: skip


def numbers(config: Any) -> None:
    """What is a number by default, in a config (a dataclass), is one; no number, nor any in a tuple, is negative or not finite,
    and no size is 0. ValueError names the field."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(field.default, Real) and not isinstance(value, Real):
            raise ValueError(f"{field.name} must be a number, got {value!r}")
        is_size = field.name.startswith("n_") or field.name.rpartition("_")[2] in _SIZES
        at_least(1 if is_size else 0, config, field.name)


def at_least(low: int, config: Any, *names: str) -> None:
    """The numbers in these fields are finite and at least `low`; None is no number. ValueError names the field."""
    for name in names:
        value = getattr(config, name)
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {value}")
            if number < low:
                raise ValueError(f"{name} must {f'be at least {low}' if low else 'not be negative'}, got {value}")


def class_labels(name: str, label: Tensor, n_classes: int, lowest: int = 0) -> Tensor:
    """The labels (B,), of any integer type, as int64. Raises ValueError if they do not lie in `lowest` … n_classes − 1."""
    integers = not (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool)
    whole = label.long() if integers else label
    if label.ndim != 1 or not integers or (whole.numel() and not lowest <= int(whole.min()) <= int(whole.max()) < n_classes):
        found = f"{label.dtype} {tuple(label.shape)}, {label.flatten()[:8].tolist()}"
        raise ValueError(f"{name} must be integers (B,) in {lowest} … {n_classes - 1}, got {found}")
    return whole


def _numbers(value: Any) -> Iterator[Real]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, Real):
        yield value
