"""Laws of the experts' loads in blocks of tokens: what each drops, fitted to some blocks and judged on others.

A block is what shares the slots: a micro-batch, a step, a sequence. Blocks may differ in size; a capacity is stated for
the largest, and is a capacity factor for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from resonance_theory.audit import counts

__all__ = ["LAWS", "BlockLoads", "FittedLoads"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

LAWS = {
    "uniform": "uniform, independent",
    "shares": "measured shares, independent",
    "over_dispersed": "measured shares, dependent",
    "balanced": "uniform shares, dependent",
}
"""The laws by name, and what each assumes. The last one is for advice: what balanced shares would leave."""

_EXACT = 2**15  # tokens up to which a beta-binomial law is summed term by term
_SIZES = 8  # block sizes that a law is evaluated at, where blocks differ


@dataclass(frozen=True)
class BlockLoads:
    """Loads of one layer, (blocks, experts); tokens (blocks,) of each block; top: experts per token."""

    load: Whole
    tokens: Whole
    top: int

    @property
    def experts(self) -> int:
        return int(self.load.shape[1])

    @property
    def largest(self) -> int:
        """Tokens of the largest block, for which capacities are stated."""
        return int(self.tokens.max())

    def capacity(self, factor: float) -> int:
        """Slots of an expert in the largest block at a capacity factor, at least 1 and at most its tokens."""
        slots = int(np.ceil(factor * self.top * self.largest / self.experts * (1 - 1e-12)))
        return min(max(slots, 1), self.largest)

    def factor(self, capacity: int) -> float:
        """The same back: capacity * experts / (top * tokens)."""
        return capacity * self.experts / (self.top * self.largest)

    def slots(self, capacity: int) -> Whole:
        """Slots in every block (blocks,), in proportion to its tokens and rounded up."""
        size, at = np.unique(self.tokens, return_inverse=True)
        return np.array([-(-capacity * s // self.largest) for s in size.tolist()], np.int64)[at]  # no overflow

    def drop(self, capacity: int) -> float:
        """Share of the choices that find no slot."""
        return float(self.excess(capacity).sum() / self.load.sum())

    def excess(self, capacity: int) -> Whole:
        """Choices that find no slot, in every block (blocks,)."""
        return np.maximum(self.load - self.slots(capacity)[:, None], 0).sum(axis=1)

    def replicated(self, copies: Whole, capacity: int) -> float:
        """The drop where expert i has copies[i] copies, each with its own slots."""
        return float(np.maximum(self.load - self.slots(capacity)[:, None] * copies, 0).sum() / self.load.sum())

    def least(self, loss: float) -> int:
        """Least capacity of the largest block whose drop is at most `loss`."""
        return _least(self.drop, loss, self.largest)


def _least(drop: Callable[[int], float], loss: float, most: int) -> int:
    """Least whole number in 1..most at which a falling function is at most `loss`, by bisection."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        # sums of fractions: a drop equal to the loss must not be lost to rounding
        if drop(middle) <= loss * (1 + 1e-12):
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True)
class FittedLoads:
    """The laws of the loads, fitted to some blocks.

    Attributes:
        share: (experts,) probability that a token chooses the expert.
        correlation: of two tokens' choices within a block, 0 where there is none; None with one block, which hides it.
        blocks: how many were fitted.
        top: experts per token.
    """

    share: Floats
    correlation: float | None
    blocks: int
    top: int
    _curves: dict[tuple[str, int], Floats] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def to(cls, loads: BlockLoads) -> FittedLoads:
        """Shares from the sums, the correlation from the squares: E (N - s π)² = s π (1-π) (1 + (s-1) ρ).

        With blocks of one size this is `counts.dispersion`. π(1-π) is estimated without bias.
        """
        s, blocks = loads.tokens.astype(np.float64), len(loads.load)
        share = loads.load.sum(axis=0) / s.sum()
        if blocks < 2 or loads.largest < 2:
            return cls(share, None, blocks, loads.top)
        mean = s[:, None] * share
        squares = np.square(loads.load - mean).sum() * blocks / (blocks - 1)
        own = (share * (1 - share)).sum() + squares / np.square(s.sum())
        correlation = (squares - own * s.sum()) / (own * (s * (s - 1)).sum()) if own > 0 else 0.0
        return cls(share, float(np.clip(correlation, 0.0, 1.0)), blocks, loads.top)

    @property
    def laws(self) -> tuple[str, ...]:
        """Names of the laws that can be evaluated, from the poorest."""
        return ("uniform", "shares") if self.correlation is None else tuple(LAWS)[:3]

    def for_new(self, tokens: int) -> FittedLoads:
        """For blocks that were not fitted: a share is known to 1/B of a load's variance only, which adds to it."""
        if self.correlation is None:
            return self
        ratio = (1 + (tokens - 1) * self.correlation) * (1 + 1 / self.blocks)
        return FittedLoads(self.share, min((ratio - 1) / max(tokens - 1, 1), 1.0), self.blocks, self.top)

    def drop(self, law: str, capacity: int, tokens: Whole) -> float:
        """Expected share of the choices that find no slot.

        Args:
            law: a name in `LAWS`.
            capacity: slots of an expert in the largest block.
            tokens: (blocks,) tokens of the blocks that are asked about.
        """
        largest = int(tokens.max())
        total = lost = 0.0
        for size, weight in _sizes(tokens):
            slots = min(-(-capacity * size // largest), size)
            lost += weight * size * self._drop(law, slots, size)
            total += weight * size
        return lost / total

    def _drop(self, law: str, slots: int, size: int) -> float:
        even = np.full(self.share.shape, min(self.top / self.share.size, 1.0))
        share = np.minimum(self.share if law in ("shares", "over_dispersed") else even, 1.0)
        if law in ("uniform", "shares"):
            alike = even[:1] if law == "uniform" else share  # one expert stands for all
            return float(counts.binomial_drop(size, alike, np.array([slots]))[0])
        assert self.correlation is not None
        alike = even[:1] if law == "balanced" else share
        if size > _EXACT:
            return _beta_drop(size, alike, self.correlation, slots)
        key = (law, size)
        if key not in self._curves:  # a curve costs as much as one of its points
            self._curves[key] = counts.beta_binomial_drop(size, alike, self.correlation)
        return float(self._curves[key][slots])

    def replicated(self, copies: Whole, capacity: int, tokens: Whole) -> float:
        """`drop` by the dependent law (the independent one with one block) where expert i has copies[i] copies."""
        law, total = "shares" if self.correlation is None else "over_dispersed", self.share.sum()
        alike = ((k, self.share[copies == k]) for k in np.unique(copies))
        groups = [
            (int(k), FittedLoads(share, self.correlation, self.blocks, self.top)) for k, share in alike if share.any()
        ]
        largest = int(tokens.max())
        return float(sum(g.drop(law, min(k * capacity, largest), tokens) * g.share.sum() / total for k, g in groups))

    def least(self, law: str, loss: float, tokens: Whole) -> int:
        """Least capacity of the largest block with an expected drop of at most `loss`."""
        return _least(lambda c: self.drop(law, c, tokens), loss, int(tokens.max()))


def _beta_drop(tokens: int, share: Floats, correlation: float, slots: int) -> float:
    """The beta-binomial drop of many tokens: the share of an expert's tokens as a Beta variable of the same variance.

    From 32,768 tokens on within 1e-4 of the choices of the exact sum, for loads of 30 tokens or more and any correlation.
    """
    from scipy.special import betainc

    p = share[(share > 0) & (share < 1)]
    kappa = correlation + (1 - correlation) / tokens
    a, b, c = p * (1 - kappa) / kappa, (1 - p) * (1 - kappa) / kappa, min(slots / tokens, 1.0)
    if kappa >= 1:
        lost = p * (1 - c)
    else:
        lost = p * betainc(b, a + 1, 1 - c) - c * betainc(b, a, 1 - c)
    return float((lost.sum() + (share >= 1).sum() * (1 - c)) / share.sum())


def _sizes(tokens: Whole) -> list[tuple[int, float]]:
    """Sizes of blocks and how many have them; many sizes by the means of eight groups of them."""
    size, count = np.unique(tokens, return_counts=True)
    if size.size <= _SIZES:
        return [(int(s), float(c)) for s, c in zip(size, count)]
    groups = np.array_split(np.sort(tokens), _SIZES)
    return [(max(round(float(group.mean())), 1), float(group.size)) for group in groups]
