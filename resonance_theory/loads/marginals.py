"""Laws of single loads: of an expert for any dependence of tokens, of a device whose experts share k choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from resonance_theory.loads import _series
from resonance_theory.loads._series import Series
from resonance_theory.loads.subsets import choice_weights, symmetric
from resonance_theory.rules import BetaBinomial, Counts
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.dependence import Independent, _beta_binomial, _place
from resonance_theory.typing import Floats, Whole

__all__ = ["Marginals", "of_counts", "of_devices"]


class Marginals(Protocol):
    def logs(self, m: int) -> tuple[Floats, Floats]:
        """log P(N <= m) and log P(N > m) of every load."""

    def excess(self, m: int) -> float:
        """Σ E (N - m)_+ over the loads."""


@dataclass(frozen=True)
class _Tables:
    """Laws given by their masses, with tails summed from either end; equal laws once, `index` says which is whose."""

    laws: tuple[Series, ...]
    index: Whole

    def logs(self, m: int) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore"):
            within = np.log([min(law.part(0, m).value.sum(), 1.0) for law in self.laws])
            above = np.log([min(law.part(m + 1, 2**60).value[::-1].sum(), 1.0) for law in self.laws])
        near = within > -0.5  # the larger side from the smaller one
        within = np.where(near, np.log1p(-np.minimum(np.exp(above), 0.5)), within)
        return within[self.index], above[self.index]

    def excess(self, m: int) -> float:
        def one(law: Series) -> float:
            part = law.part(m + 1, 2**60)
            return float(part.value @ (np.arange(part.value.size) + (part.start - m)))

        return float(np.array([one(law) for law in self.laws])[self.index].sum())


@dataclass(frozen=True)
class _Laws:
    """Laws through the moments that every dependence of tokens knows."""

    tokens: int
    at: Threshold
    counts: Counts

    def logs(self, m: int) -> tuple[Floats, Floats]:
        s, c = np.int64(self.tokens), np.int64(m)
        if isinstance(self.counts, Independent):
            place = _place(np.full(self.at.p.shape, s), np.full(self.at.p.shape, c + 1), self.at)
            return place.success, place.failure
        # P(N > m) = E(N - m)_+ - E(N - m - 1)_+, and P(N <= m) from E min(N, m + 1) in the same way
        here = self._moments(m)
        above = np.clip(here[1] - self._moments(m + 1)[1], 0.0, 1.0)
        with np.errstate(divide="ignore"):
            return np.log1p(-above), np.log(above)

    def excess(self, m: int) -> float:
        if m == 0:
            return float(self.tokens * self.at.p.sum())
        return float(self._moments(m)[1].sum())

    def _moments(self, m: int) -> tuple[Floats, Floats]:
        s = np.full(self.at.p.shape, self.tokens, np.int64)
        if m == 0:
            return 0 * self.at.p, s * self.at.p
        if m >= self.tokens:
            return s * self.at.p, 0 * self.at.p
        if isinstance(self.counts, Independent):
            shares = self.counts.shares(s, np.full_like(s, m), self.at)
            return s * self.at.p * np.exp(shares.success), s * self.at.p * np.exp(shares.failure)
        return self.counts._moments(s, np.full_like(s, m), self.at)


def of_counts(tokens: int, rates: Floats, counts: Counts) -> Marginals:
    """Loads of s tokens of which each takes the expert with the given rate, dependent as `counts` says."""
    if isinstance(counts, BetaBinomial):
        value, index = np.unique(rates, return_inverse=True)
        n = np.arange(tokens + 1, dtype=np.float64)[None]
        kappa = np.full((1, 1), float(np.asarray(counts.correlation).item()))
        laws = [
            Series(
                0,
                _beta_binomial(np.full((1, 1), float(tokens)), n, np.full((1, 1), p), np.full((1, 1), 1 - p), kappa)[0],
            )
            for p in value
        ]
        return _Tables(tuple(laws), index)
    return _Laws(tokens, Threshold.of(rates), counts)


def of_devices(tokens: int, rates: Floats, placement: Whole) -> Marginals:
    """Loads of devices whose experts are among each token's k distinct choices: the s-fold sum of one token's choices."""
    weight = choice_weights(np.minimum(rates, 1.0))
    top = round(float(rates.sum()))
    sure = np.isinf(weight)
    free, k = np.where(sure, 0.0, weight), top - int(sure.sum())
    laws = []
    for device in range(int(placement.max()) + 1):
        here = placement == device
        inner, outer = symmetric(free[here], k), symmetric(free[~here], k)
        mass = inner * outer[::-1]
        one = Series(int(sure[here].sum()), mass / mass.sum()).trimmed(top)
        laws.append(_series.power(one, tokens, tokens * top))
    return _Tables(tuple(laws), np.arange(len(laws)))
