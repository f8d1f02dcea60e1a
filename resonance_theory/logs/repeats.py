"""Rows of a log that repeat: padding, dummy batches and stuck buffers, which no router fed with text would write."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAGS", "Repeats", "bits", "find", "row_codes"]

LAGS = 64  # distances between equal rows that are looked at
_SAMPLE = 2**16  # rows among which copies at any distance are looked for


@dataclass(frozen=True)
class Repeats:
    """How much of a log repeats.

    share: of the tokens whose row equals the one `lag` tokens before; chance: what independent tokens would show;
    longest: tokens in a row that repeat; copies: share of the first 65,536 tokens whose row has been seen before;
    tokens: number of the log's tokens.
    """

    share: float
    lag: int
    chance: float
    longest: int
    copies: float
    tokens: int

    @property
    def excess(self) -> float:
        """Share that repeats beyond chance and four of its standard errors, of what could."""
        beyond = self.share - self.chance - 4 * math.sqrt(self.chance * (1 - self.chance) / self.tokens)
        return max(0.0, beyond / (1 - self.chance)) if self.chance < 1 else 0.0


def row_codes(part: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit code of each token's choices (tokens, layers, k): equal for equal rows, else equal by rare accident.

    part: as `counting.native` gives it.
    """
    rows = part.reshape(len(part), -1)
    factors = np.random.Generator(np.random.Philox(7)).integers(0, 2**64, rows.shape[1], np.uint64) | np.uint64(1)
    codes = np.zeros(len(rows), np.uint64)
    step = max(1, 2**18 // rows.shape[1])  # rows that stay in the cache while their columns are added one by one
    for start in range(0, len(rows), step):
        some, into = rows[start : start + step], codes[start : start + step]
        for column, factor in zip(some.T, factors):
            into += column.astype(np.uint64) * factor  # -1 becomes 2^64 - 1
    return codes


def find(codes: Iterable[NDArray[np.uint64]]) -> Repeats | None:
    """Repeats among the codes of a log's rows, given by blocks in their order; None for fewer than two rows."""
    equal, longest, run = np.zeros(LAGS, np.int64), np.zeros(LAGS, np.int64), np.zeros(LAGS, np.int64)
    before, total = np.zeros(0, np.uint64), 0
    sample: list[NDArray[np.uint64]] = []
    for block in codes:
        if total < _SAMPLE:
            sample.append(block[: _SAMPLE - total].copy())
        line = np.concatenate([before, block])
        for lag in range(1, LAGS + 1):
            start = max(lag, len(before))
            if start >= len(line):
                continue
            same = line[start:] == line[start - lag : len(line) - lag]
            equal[lag - 1] += np.count_nonzero(same)
            longest[lag - 1], run[lag - 1] = _runs(same, int(longest[lag - 1]), int(run[lag - 1]))
        total += len(block)
        before = line[-LAGS:]
    if total < 2:
        return None
    share = equal / np.maximum(total - np.arange(1, LAGS + 1), 1)
    lag = 1 + int(np.flatnonzero(share >= 0.98 * share.max())[0])
    first = np.concatenate(sample)
    seen = len(first) - len(np.unique(first))
    fresh = np.concatenate([first[:lag], first[lag:][first[lag:] != first[:-lag]]])
    return Repeats(float(share[lag - 1]), lag, _matches(fresh), int(longest[lag - 1]), seen / len(first), total)


def _matches(codes: NDArray[np.uint64]) -> float:
    """Chance that two different rows have equal codes, without bias."""
    if len(codes) < 2:
        return 0.0
    number = np.unique(codes, return_counts=True)[1].astype(np.float64)
    return float((number * (number - 1)).sum() / (len(codes) * (len(codes) - 1.0)))


def _runs(same: NDArray[np.bool_], longest: int, run: int) -> tuple[int, int]:
    """(longest run of True so far, length of the run at the end), going on from a run that is open."""
    at = np.flatnonzero(same)
    if not at.size:
        return longest, 0
    gaps = np.flatnonzero(np.diff(at) > 1)
    length = np.diff(np.concatenate([[-1], gaps, [at.size - 1]]))
    if at[0] == 0:
        length[0] += run
    return max(longest, int(length.max())), int(length[-1]) if at[-1] == len(same) - 1 else 0


def bits(layers: int, top: int, experts: int) -> float:
    """Base-2 logarithm of the number of rows that are possible."""
    return layers * math.log2(math.comb(experts, top))
