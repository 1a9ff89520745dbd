"""What a process is told before it computes for long: about its memory, and about numbers near zero."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What a user may have told the C library about memory; then nothing else is told.
MALLOC_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
# Parameters of mallopt(3), as malloc.h numbers them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_INT = 2**31 - 1
# Bytes from which on a block is the kernel's; older versions of glibc refuse more than the second.
_MMAP_THRESHOLDS = (2**30, 2**25)


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for what comes next; every training step asks for the same once more.

    It would hand large blocks back to the kernel, which gives them again page by page, each filled with zeros:
    tens of thousands of page faults a step (docs/ssr_stf.md, "Speed"). Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(setting in os.environ for setting in MALLOC_SETTINGS):
        return
    # The second alone would make it worse: it ends glibc's own adaptation of the first.
    if any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _MMAP_THRESHOLDS):
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


@contextmanager
def subnormal_numbers_as_zero() -> Iterator[None]:
    """Lets the CPU take numbers below 1e-38 for zero.

    Softmax makes such numbers once a model's attention is sharp, and they take some processors many times as
    long: a training step of DSTformer came to take five times its time. Set before the first parallel work, so
    that all threads inherit it.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
