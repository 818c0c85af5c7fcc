"""What a process gives back of the memory that it no longer needs."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# The C library's number of an option of its allocator, and from how many bytes on a tensor is a mapping of its own.
M_MMAP_THRESHOLD, LARGE_TENSOR = -3, 1 << 22


def give_back_what_is_freed() -> None:
    """Has the C library map every large tensor by itself from here on.

    Left alone it keeps what is freed for the next tensor, which is of another size: half as much again as the weights.
    A runtime that folds a layout and packs the result frees every weight twice over while it loads.
    """
    with suppress(OSError, AttributeError):  # another C library has its own ways
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_TENSOR)
