"""Byte n-gram models with Witten-Bell interpolation: the lines below which a language model has learned something.

    p(b | context) = (c(context b) + T(context) p(b | shorter context)) / (c(context) + T(context)),

T(context) different bytes having followed the context; below the unigram stands the uniform law, 1/256. A context reaches
no farther than the start of its window, as for the networks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Table", "fit", "loss", "probability"]

Windows = NDArray[np.uint8]


class Table(NamedTuple):
    """Grams of one length, sorted, with counts; their contexts, sorted, with counts and numbers of different next bytes."""

    gram: NDArray[np.int64]
    seen: NDArray[np.int64]
    context: NDArray[np.int64]
    total: NDArray[np.int64]
    different: NDArray[np.int64]


def codes(windows: Windows, length: int) -> NDArray[np.int64]:
    """Each gram of `length` <= 7 bytes as a whole number, (windows, width - length + 1)."""
    width = windows.shape[1] - length + 1
    code = np.zeros((len(windows), width), dtype=np.int64)
    for k in range(length):
        code = code * 256 + windows[:, k : k + width]
    return code


def fit(windows: Windows, order: int) -> list[Table]:
    """Tables of the grams of 1, ..., order bytes in windows (any number, width > order); order 2 is the bigram."""
    tables = []
    for length in range(1, order + 1):
        gram, count = np.unique(codes(windows, length), return_counts=True)
        context, first, different = np.unique(gram >> 8, return_index=True, return_counts=True)
        tables.append(Table(gram, count, context, np.add.reduceat(count, first), different))
    return tables


def probability(tables: list[Table], windows: Windows) -> NDArray[np.float64]:
    """Probability of each byte of the windows but the first, given those before it; (windows, width - 1)."""
    value = np.full((len(windows), windows.shape[1] - 1), 1 / 256)
    for length, table in enumerate(tables, start=1):
        skip = max(length - 2, 0)  # bytes too near the start of their window for a context of this length
        gram = codes(windows, length)[:, 1 if length == 1 else 0 :]
        count = _look_up(table.gram, table.seen, gram)
        total, different = (_look_up(table.context, v, gram >> 8) for v in (table.total, table.different))
        known = np.maximum(total + different, 1)
        value[:, skip:] = np.where(total > 0, (count + different * value[:, skip:]) / known, value[:, skip:])
    return value


def loss(tables: list[Table], windows: Windows) -> float:
    """Mean loss in nats per byte."""
    return float(-np.log(probability(tables, windows)).mean())


def _look_up(keys: NDArray[np.int64], values: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
