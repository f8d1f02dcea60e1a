"""Tokens per expert of blocks of choices: one pass, at a speed that the memory sets."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "count", "native", "worth_compiling"]

BLOCK = 2**22  # choices that are in memory at once, beside the result: at most 32 MB as 8-byte numbers
_COMPILE = 2**22  # fewer choices are counted before a kernel is compiled


def native(part: Any) -> NDArray[Any]:
    """A part of a log's choices in this machine's byte order, one token after the other in memory."""
    array = np.asarray(part)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def count(part: NDArray[Any], start: int, size: int, into: NDArray[np.int64], many: bool = True) -> None:
    """Add choices (tokens, layers, k) to the counts (blocks, layers, experts). Ids outside [0, experts) count nowhere.

    part: as `native` gives it, of the log's tokens from `start` on. size: tokens of a block. many: whether there will
    be so many choices that compiling pays.
    """
    kernel = _kernel() if many else None
    if kernel is not None:
        kernel(part, start, size, into)
        return
    layers, experts = into.shape[1:]
    first, last = start // size, (start + len(part) - 1) // size + 1
    block = np.arange(start, start + len(part))[:, None, None] // size - first
    place = part.astype(np.int64)
    place[(place < 0) | (place >= experts)] = experts
    place += (block * layers + np.arange(layers)[:, None]) * (experts + 1)
    counts = np.bincount(place.ravel(), minlength=(last - first) * layers * (experts + 1))
    into[first:last] += counts.reshape(-1, layers, experts + 1)[..., :experts]


@functools.cache
def _kernel() -> Any:
    """The compiled loop, or None without numba."""
    if importlib.util.find_spec("numba") is None:
        return None
    from resonance_theory.kernels.jit import njit

    return njit()(_loop)


def _loop(part: NDArray[Any], start: int, size: int, into: NDArray[np.int64]) -> None:
    experts = np.uint64(into.shape[2])
    block, first = start // size, 0
    while first < part.shape[0]:
        last = min(part.shape[0], (block + 1) * size - start)
        row = into[block]
        for token in range(first, last):
            for layer in range(part.shape[1]):
                for slot in range(part.shape[2]):
                    expert = np.uint64(np.int64(part[token, layer, slot]))  # -1 becomes the largest of all
                    if expert < experts:
                        row[layer, expert] += 1
        block, first = block + 1, last


def worth_compiling(choices: int) -> bool:
    """Whether so many choices are counted sooner with a kernel that may have to be compiled first."""
    return choices >= _COMPILE
