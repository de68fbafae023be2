"""What the numbers of every config must satisfy, whatever its method."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

# A field is a size, or a number of things of which one is needed, if its name begins with n_ or ends with one of these.
_SIZES = {"cells", "critic", "dim", "every", "head", "hidden", "same", "size", "start", "down", "up", "width", "widths"}


def numbers(config: Any) -> None:
    """No number of a config (a dataclass), nor in its tuples, is negative or not finite, and no size is 0; ValueError names
    the field."""
    for name in (f.name for f in fields(config)):
        at_least(1 if name.startswith("n_") or name.rpartition("_")[2] in _SIZES else 0, config, name)


def at_least(low: int, config: Any, *names: str) -> None:
    """The numbers in these fields are finite and at least `low`; None is no number. ValueError names the field."""
    for name in names:
        value = getattr(config, name)
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {value}")
            if number < low:
                raise ValueError(f"{name} must {f'be at least {low}' if low else 'not be negative'}, got {value}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value
