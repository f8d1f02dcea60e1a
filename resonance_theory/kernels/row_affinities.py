"""The highest affinities of single rows, for the CPU kernels: block sums and squared norm in one read, then the choice.

Sums run in float64 over fixed lanes, written as vector instructions: the order of every addition is fixed by the code,
not by the compiler, the number of threads, the batch or the position of a token. For float32 tokens the products are
exact in float64, so fused and separate multiply-add give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.kernels.jit import njit
from resonance_theory.kernels.vectors import LANES, STEP, block_sums, block_sums_by_eight, highest

__all__ = ["choose_rows", "highest_entries", "measure", "room"]

_LOW = float(np.finfo(np.float64).smallest_normal / np.finfo(np.float64).eps ** 2)  # as in gates.affinity


@njit()
def room(experts: int) -> Any:
    """Space for block sums, filled up to whole vectors with what is no expert's."""
    return np.full(-(-experts // LANES) * LANES, -np.inf)


@njit(inline="always")
def _block_sums(x: Any, row: int, experts: int, block: int, sums: Any) -> float:
    """Block sums of a row in `sums`; its sum of squares. block: dim / experts, since a division takes its time."""
    dim = x.shape[1]
    if block % STEP == 0 and experts % LANES == 0:
        return block_sums_by_eight(x, row, dim, block, sums)
    return block_sums(x, row, dim, block, sums)


@njit()
def measure(x: Any, row: int, experts: int, block: int, sums: Any) -> tuple[float, float]:
    """Block sums of a row in `sums`; its length, and the number by which both are divided (1 unless out of range).

    The length is NaN where the row holds NaN or infinite values.
    """
    dim = x.shape[1]
    square = _block_sums(x, row, experts, block, sums)
    if _LOW < square < np.inf:
        return np.sqrt(square), 1.0
    largest = 0.0
    for j in range(dim):
        if not abs(x[row, j]) < np.inf:
            return np.nan, 1.0
        largest = max(largest, abs(np.float64(x[row, j])))
    if largest == 0.0:
        return 0.0, 1.0
    spare = np.empty((1, dim), np.float64)
    for j in range(dim):
        spare[0, j] = x[row, j] / largest
    return np.sqrt(block_sums(spare, 0, dim, block, sums)), largest


@njit(inline="always")
def _choose(
    x: Any,
    row: int,
    experts: int,
    block: int,
    scale: float,
    tiny: float,
    sums: Any,
    weight: Any,
    expert: Any,
    lengths: Any,
) -> bool:
    """Write the highest affinities of a row and their experts; false, having written nothing of use, where that fails.

    The choice is made by the sums themselves, without a division for each expert. It fails where rounding could make a
    tie and where squares leave the range. tiny: more than the spacing of denormal numbers, over scale.
    """
    square = _block_sums(x, row, experts, block, sums)
    top = weight.shape[1]
    fits, length = _LOW < square < np.inf, np.sqrt(square)
    if lengths.shape[0] > 0:
        lengths[row] = length if fits else np.nan
    if not fits or top > 4:
        return False
    bound, clear = np.inf, True
    for k in range(top):
        best, bound, place = highest(sums, bound, length * tiny)
        clear = clear and place >= 0
        # Rounding can push a cosine beyond 1; only one expert's, so the order stands.
        weight[row, k], expert[row, k] = min(max(best * scale / length, -1.0), 1.0), place
    return clear


@njit()
def _choose_carefully(
    x: Any, row: int, experts: int, block: int, scale: float, sums: Any, weight: Any, expert: Any
) -> bool:
    """The same for any row; false where it holds NaN or infinite values. Apart, since it would slow the other down."""
    length, _ = measure(x, row, experts, block, sums)
    if np.isnan(length):
        return False
    if length == 0.0:
        length = 1.0
    cosine = np.empty(experts, weight.dtype)
    for i in range(experts):
        cosine[i] = sums[i] * scale / length
    highest_entries(cosine, weight[row], expert[row])
    for k in range(weight.shape[1]):
        weight[row, k] = min(max(weight[row, k], -1.0), 1.0)
    return True


@njit()
def choose_rows(first: int, stop: int, x: Any, experts: int, sums: Any, weight: Any, expert: Any, lengths: Any) -> int:
    """Do so for rows first..stop; the first that holds NaN or infinite values, or -1."""
    block, scale = x.shape[1] // experts, np.sqrt(experts / x.shape[1])
    tiny = 2.0**-147 / scale
    for row in range(first, stop):
        if not (
            _choose(x, row, experts, block, scale, tiny, sums, weight, expert, lengths)
            or _choose_carefully(x, row, experts, block, scale, sums, weight, expert)
        ):
            return row
    return -1


@njit()
def highest_entries(cosine: Any, weight: Any, expert: Any) -> None:
    """The highest entries of `cosine` in falling order, ties by index: insertion into a short sorted list."""
    top = weight.shape[0]
    for i in range(cosine.shape[0]):
        value = cosine[i]
        if i >= top and not value > weight[top - 1]:
            continue
        place = min(i, top - 1)
        while place > 0 and value > weight[place - 1]:
            weight[place] = weight[place - 1]
            expert[place] = expert[place - 1]
            place -= 1
        weight[place] = value
        expert[place] = i
