"""Memory for gradients as large as the tokens: the last one that was dropped is used again.

A system zeroes fresh pages, which takes longer than the gradient itself: at 268 MB, 16 ms of 28. One block is held back,
and only until another size is asked for.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

__all__ = ["array", "held", "release"]

_LARGE = 2**22  # bytes; below, the C library reuses memory by itself
_ALIGN = 64  # bytes of a cache line
_lock = threading.Lock()
_idle: list[np.ndarray] = []


class _Loan:
    """Owner of a block that arrays are views of; the block goes back when the last of them is gone."""

    def __init__(self, block: np.ndarray, shape: tuple[int, ...], kind: np.dtype) -> None:
        self._block = block
        start = block.__array_interface__["data"][0]
        place = (start + (-start) % _ALIGN, False)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": kind.str, "data": place}

    def __del__(self, idle: list[np.ndarray] = _idle) -> None:
        idle[:] = [self._block]  # one assignment, hence safe from any thread


def array(shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """An array of that shape with arbitrary values, as numpy.empty gives it."""
    kind = np.dtype(kind)
    size = math.prod(shape) * kind.itemsize
    if size < _LARGE:
        return np.empty(shape, kind)
    with _lock:
        block = _idle.pop() if _idle else None
    if block is None or block.size != size + _ALIGN:
        del block
        # NumPy's large arrays come in huge pages where the system has them: fresh memory in half the time.
        block = np.empty(size + _ALIGN, np.uint8)
    return np.asarray(_Loan(block, shape, kind))


def held() -> int:
    """Bytes held back."""
    return sum(block.nbytes for block in _idle)


def release() -> None:
    """Return what is held back to the system."""
    _idle.clear()
