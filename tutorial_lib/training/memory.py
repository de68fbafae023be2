"""Memory of a CPU's training steps: what one gives back, the next needs again."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# Of glibc's malloc.h: what to set, its usual value, and the value with which nothing goes back to the system.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 2**26}  # the latter has grown to about this by the time that a step was made
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """In here the process keeps the memory that it frees, and gives it back to the system in the end.

    glibc returns large blocks at once and has them again, page by page and filled with zeros, for the next tensor: up to a
    tenth of the time of a training step at published size. What the process takes at most is the same. Does nothing for a
    GPU, nor where the C library is another one. Not to be nested: the end of the inner block is that of the outer one too.
    """
    set_option, trim = _glibc("mallopt"), _glibc("malloc_trim")
    if device.type != "cpu" or set_option is None or trim is None:
        yield
        return
    for option, value in _KEEPING.items():
        set_option(option, value)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            set_option(option, value)
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library that this process runs with, if it has it."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # not glibc; TypeError on Windows
        return None
