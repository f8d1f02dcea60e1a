"""Bit widths of quantised experts under a budget: a multiple-choice knapsack, solved exactly.

MC-MoE (arXiv 2410.06270) gives each expert of a layer one of a few bit widths so that the sum of the costs is least and
the widths sum to the budget. Taking the best step again and again is not exact where the costs are not convex in the
bits. The dynamic programme below is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["allocate_bits"]


def allocate_bits(cost: ArrayLike, budget: int, bits: ArrayLike = (1, 2, 3)) -> NDArray[np.int64]:
    """Bits of each expert that sum to the budget exactly, at the least total cost.

    Args:
        cost: Cost of each expert at each width, shape (experts, widths), finite.
        budget: Sum of the bits over the experts.
        bits: The widths, whole numbers of at least 0, shape (widths,).

    Returns:
        Bits of each expert, shape (experts,). Time and memory grow as experts · budget · widths.

    Raises:
        ValueError: If shapes do not agree or no choice of widths sums to the budget.

    Example:
        Expert 0 gains nothing from its second bit and much from its third:

        >>> allocate_bits([[9, 9, 0], [5, 3, 2]], budget=4).tolist()
        [3, 1]
    """
    table, widths = arguments.real("cost", cost), arguments.integer("bits", bits, 0)
    total = arguments.whole("budget", budget, 0)
    if widths.ndim != 1 or table.ndim != 2 or not table.size or table.shape[1] != len(widths):
        raise ValueError(f"cost must have shape (experts, {widths.size}), one column a width, got {table.shape}")
    least, most = len(table) * int(widths.min()), len(table) * int(widths.max())
    if not least <= total <= most:
        raise ValueError(f"budget must be in [{least}, {most}] for {len(table)} experts of {widths} bits, got {total}")
    best = np.full(total + 1, np.inf)  # least cost of the experts so far whose bits sum to each number
    best[0] = 0
    taken = []
    for row in table:
        options = np.full((len(widths), total + 1), np.inf)
        for option, width, price in zip(options, widths, row, strict=True):
            if width <= total:
                option[width:] = best[: total + 1 - width] + price
        taken.append(options.argmin(axis=0))
        best = options.min(axis=0)
    if not np.isfinite(best[total]):
        raise ValueError(f"budget must be a sum of {len(table)} widths out of {widths}, got {total}")
    chosen = []
    for choice in reversed(taken):
        chosen.append(widths[choice[total]])
        total -= int(chosen[-1])
    return np.array(chosen[::-1], dtype=np.int64)
