"""Freed memory is kept for the next step."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # names of mallopt(3)
KEPT = 1 << 30  # bytes that are free and not handed back: twice what a step of the sound CNN takes


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free instead of handing it back to the kernel; whether this system's allocator does
    so now.

    A training step on a CPU frees and takes the same large blocks again, and the kernel then zeroes each page anew: a
    sixth of a step of the sound CNN, and stalls that the other processes of a run wait for.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
        libc.malloc_trim(0)  # what came before, such as reading a manifest, is no part of a step
    except (OSError, AttributeError):  # musl has none
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, KEPT), mallopt(TOP_PAD, 64 << 20)])
