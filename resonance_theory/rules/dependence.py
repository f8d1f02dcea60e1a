"""Dependent tokens: how the candidates of an expert come in more than binomial spread.

Real neighbours share routes. Two models of the N candidates of an expert among the other tokens, besides independence:

    Blocks(length)             runs of `length` tokens take the same experts; runs are independent
    BetaBinomial(correlation)  the load of a sample is random, Beta with mean π; tokens are independent given it

The discriminative token is itself independent of the others. By its position k token choice keeps it with probability
(1/s) Σ_{k<s} P(N_k <= C-1), N_k candidates among the first k others, for every dependence; a rule that is blind to position
with E min(1, C/(N+1)). The two agree where the token's rank among the candidates is uniform given their number, as in the
beta-binomial model and not in blocks. Resonance, with percentiles independent given N: E P(Bin(N, ρ) <= C-1).
Claims: dependent_counts, dependent_counts_resonance.

Accuracy: 1e-12 relative against 50-digit references. Blocks take O(1) for position order and for drop rates, the square
root of the number of blocks otherwise; the beta-binomial takes O(tokens).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules._sums import log_binomial, log_concave_sum
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["INDEPENDENT", "BetaBinomial", "Blocks", "Counts", "Independent"]


class Counts:
    """How the candidates of an expert depend on each other: a place in each order of priority, and the loads' moments.

    `at` is the load π; everything broadcasts. Each method gives logarithms of a probability and of its complement.
    """

    def position(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        """A place where candidates are taken in position order: P(N_k <= C-1), N_k among the k others ahead, k uniform."""
        raise NotImplementedError

    def shuffled(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        """A place where they are taken in random order: E min(1, C/(N+1))."""
        raise NotImplementedError

    def ranked(self, s: Whole, c: Whole, at: Threshold, percentile: Floats) -> _law.Logs:
        """A place where each candidate goes ahead with probability `percentile`: E P(Bin(N, percentile) <= C-1)."""
        raise NotImplementedError

    def shares(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        """Kept and dropped share of the candidates among s tokens, E min(N, C)/(πs) and E (N-C)_+/(πs)."""
        keep, lose = self._moments(s, c, at)
        mean = np.where(at.p > 0, s * at.p, 1.0)
        with np.errstate(divide="ignore"):
            return _law.Logs(
                np.minimum(np.log(np.where(at.p > 0, keep / mean, 1.0)), 0.0),
                np.log(np.where(at.p > 0, lose / mean, 0.0)),
            )

    def _moments(self, s: Whole, c: Whole, at: Threshold) -> tuple[Floats, Floats]:
        """E min(N, C) and E (N - C)_+ of the load of s tokens."""
        raise NotImplementedError

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the model's own parameters, which broadcast with all else."""
        return {}

    def cost(self, tokens: int, rule: str) -> float:
        """About how many binomial tails one rate takes."""
        return 1.0


class Independent(Counts):
    """Tokens choose independently of each other."""

    def position(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        return _law.kept_fraction(s, c, at)

    shuffled = shares = position

    def ranked(self, s: Whole, c: Whole, at: Threshold, percentile: Floats) -> _law.Logs:
        return _law.has_place(s, c, Threshold.of(percentile * at.p))

    def __repr__(self) -> str:
        return "INDEPENDENT"


INDEPENDENT = Independent()


@dataclass(frozen=True)
class Blocks(Counts):
    """Runs of `length` tokens (whole numbers >= 1; broadcasts) take the same experts, the last run what is left.

    The discriminative token falls between any two of the others. Length 1 is the independent case.
    """

    length: ArrayLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", arguments.integer("length", self.length, 1, 2**52))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"length": np.shape(self.length)}

    def variance_ratio(self, tokens: ArrayLike) -> Floats:
        """Variance of the load over the binomial one: (Q length² + R²)/s with s = Q length + R."""
        s = arguments.integer("tokens", tokens, 1, 2**52)
        arguments.same_shapes(tokens=s.shape, **self.shapes())
        runs, rest = np.divmod(s, self.length)
        return (runs * np.square(np.asarray(self.length, np.float64)) + np.square(rest)) / s

    def cost(self, tokens: int, rule: str) -> float:
        runs = tokens / float(np.min(self.length))
        return 4.0 if rule == "token_choice" else 4.0 * min(runs, 20.0 * math.sqrt(runs)) + 4.0

    def __str__(self) -> str:
        return f"tokens that choose in runs of {np.asarray(self.length).item()}"

    def position(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        s, c, m, *parts = np.broadcast_arrays(s, c, self.length, *at)
        at = Threshold(*parts)
        runs, rest = np.divmod(s - 1, m)
        # C - 1 = m whole + spare: r tokens of an open run fit beside `whole` full runs if r <= spare
        whole, spare = np.divmod(c - 1, m)
        fits = np.minimum(rest, spare)
        # Σ over positions: q < runs full runs and an open one of r < m tokens, then all runs and r <= rest
        weights = [
            runs * (m * at.q + (spare + 1) * at.p),
            runs * (m - 1 - spare) * at.p,
            (rest + 1) * at.q + (fits + 1) * at.p,
            (rest - fits) * at.p,
        ]
        places = [
            _mean_place(runs, whole + 1, at),
            _mean_place(runs, whole, at),
            _place(runs, whole + 1, at),
            _place(runs, whole, at),
        ]
        with np.errstate(divide="ignore"):
            logs = [(np.log(w / s), p) for w, p in zip(weights, places)]
        return _law.Logs(
            np.minimum(np.logaddexp.reduce([w + p.success for w, p in logs]), 0.0),
            np.minimum(np.logaddexp.reduce([w + p.failure for w, p in logs]), 0.0),
        )

    def ranked(self, s: Whole, c: Whole, at: Threshold, percentile: Floats) -> _law.Logs:
        arrays = np.broadcast_arrays(s, c, self.length, *at, percentile)
        shape = arrays[0].shape
        s, c, m, *parts, rho = (value.ravel() for value in arrays)
        at, rival = Threshold(*parts), Threshold.of(rho)
        runs, rest = np.divmod(s - 1, m)
        _bounded(runs, _MOST_RUNS, "time and memory grow with the square root of the runs")

        def mixed(part: int) -> Floats:
            def term(extra: Whole, i: Whole, j: Whole) -> Floats:
                """log P(j of the runs) P(a place among m j + extra candidates), or its complement."""
                n = m[i] * j + extra[i]
                place = _place(n, c[i], Threshold(*(v[i] for v in rival)))[part]
                return log_binomial(runs[i], j, Threshold(*(v[i] for v in at))) + place

            def branch(extra: Whole) -> Floats:
                # only where the probability is positive: fewer than C candidates cannot fill the expert, C or more leave
                # no place where all outrank (ρ = 1) and always one where none does, a load of 0 or 1 fixes the runs
                low = np.where(part == 1, np.maximum(-((extra - c) // m), 0), 0)
                high = np.where((part == 0) & (rho >= 1), np.minimum((c - 1 - extra) // m, runs), runs)
                high = np.where((part == 1) & (rho <= 0), -1, high)
                low, high = (
                    np.where(at.q <= 0, np.maximum(low, runs), low),
                    np.where(at.p <= 0, np.minimum(high, 0), high),
                )
                return log_concave_sum(lambda i, j: term(extra, i, j), low, high)

            with np.errstate(divide="ignore"):
                return np.logaddexp(np.log(at.q) + branch(0 * rest), np.log(at.p) + branch(rest))

        return _law.Logs(*(np.minimum(mixed(part), 0.0).reshape(shape) for part in (0, 1)))

    def shuffled(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        arrays = np.broadcast_arrays(s, c, self.length, *at)
        shape = arrays[0].shape
        s, c, m, *parts = (value.ravel() for value in arrays)
        at = Threshold(*parts)
        runs, rest = np.divmod(s - 1, m)
        _bounded(runs, _MOST_RUNS, "time and memory grow with the square root of the runs")

        def beyond(extra: Whole, part: int) -> Floats:
            """log Σ P(j of the runs) C/(N+1), or (N+1-C)/(N+1), over N = m j + extra >= C."""

            def term(i: Whole, j: Whole) -> Floats:
                n = m[i] * j + extra[i] + 1.0
                share = c[i] / n if part == 0 else (n - c[i]) / n
                with np.errstate(divide="ignore"):
                    return log_binomial(runs[i], j, Threshold(*(v[i] for v in at))) + np.log(np.maximum(share, 0.0))

            low = np.maximum(-((extra - c) // m), 0)
            high = np.where(at.p <= 0, 0, runs)
            # the terms are log-concave from j = 1 on
            none = log_concave_sum(term, np.maximum(np.where(at.q <= 0, np.maximum(low, runs), low), 1), high)
            first = np.arange(s.size)
            zero = np.where((low == 0) & ((at.q > 0) | (runs == 0)), term(first, 0 * runs), -np.inf)
            return np.logaddexp(none, zero)

        def mixed(part: int) -> Floats:
            def branch(extra: Whole) -> Floats:
                if part:
                    return beyond(extra, 1)
                # fewer than C candidates: a place for certain
                sure = _place(runs, -((extra - c) // m), at).success
                return np.logaddexp(np.where(extra >= c, -np.inf, sure), beyond(extra, 0))

            with np.errstate(divide="ignore"):
                return np.logaddexp(np.log(at.q) + branch(0 * rest), np.log(at.p) + branch(rest))

        return _law.Logs(*(np.minimum(mixed(part), 0.0).reshape(shape) for part in (0, 1)))

    def _moments(self, s: Whole, c: Whole, at: Threshold) -> tuple[Floats, Floats]:
        s, c, m, *parts = np.broadcast_arrays(s, c, self.length, *at)
        at = Threshold(*parts)
        runs, rest = np.divmod(s, m)

        def runs_against(room: Whole) -> tuple[Floats, Floats]:
            """E min(m X, room) and E (m X - room)_+, X ~ Bin(runs, π): linear in room between multiples of m."""
            whole, part = np.divmod(np.maximum(room, 0), m)
            near, far = _mean_place(runs, whole, at), _mean_place(runs, whole + 1, at)
            mean, f = runs * at.p, part / m
            keep, lose = (m * mean * ((1 - f) * np.exp(near[k]) + f * np.exp(far[k])) for k in (0, 1))
            return keep, lose

        keep, lose = runs_against(c)
        keep_beside, lose_beside = runs_against(c - rest)  # the last run, of `rest` tokens, chose the expert as well
        short = np.maximum(rest - c, 0)
        return (
            at.q * keep + at.p * (np.minimum(rest, c) + np.where(c > rest, keep_beside, 0.0)),
            at.q * lose + at.p * (lose_beside + short),
        )


@dataclass(frozen=True)
class BetaBinomial(Counts):
    """Loads that vary from sample to sample: N ~ Beta-binomial of mean π s and the given intra-sample correlation.

    correlation in [0, 1] (broadcasts): that of two tokens' being candidates; the load is Beta(π(1-κ)/κ, (1-π)(1-κ)/κ).
    The variance is 1 + (s-1) κ times the binomial one. 0 is the independent case, 1 sends all tokens or none.
    """

    correlation: ArrayLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "correlation", arguments.probability("correlation", self.correlation))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"correlation": np.shape(self.correlation)}

    def variance_ratio(self, tokens: ArrayLike) -> Floats:
        """Variance of the load over the binomial one, 1 + (s-1) correlation."""
        s = arguments.integer("tokens", tokens, 1, 2**52)
        arguments.same_shapes(tokens=s.shape, **self.shapes())
        return 1.0 + (s - 1) * np.asarray(self.correlation)

    def cost(self, tokens: int, rule: str) -> float:
        return float(tokens) * (0.1 if rule in ("token_choice", "random_keep") else 1.0)

    def __str__(self) -> str:
        return f"loads that vary with correlation {np.asarray(self.correlation).item():.6g} within a sample"

    def position(self, s: Whole, c: Whole, at: Threshold) -> _law.Logs:
        def sums(mass: Floats, n: Floats, c: Floats, extra: None) -> tuple[Floats, Floats]:
            keep = np.minimum(1.0, c / (n + 1))
            return (mass * keep).sum(axis=1), (mass * np.maximum(n + 1 - c, 0) / (n + 1)).sum(axis=1)

        success, failure = self._sums(s - 1, c, at, None, sums)
        with np.errstate(divide="ignore"):
            return _law.Logs(np.minimum(np.log(success), 0.0), np.minimum(np.log(failure), 0.0))

    shuffled = position

    def ranked(self, s: Whole, c: Whole, at: Threshold, percentile: Floats) -> _law.Logs:
        def sums(mass: Floats, n: Floats, c: Floats, rho: Floats) -> tuple[Floats, Floats]:
            place = _place(n.astype(np.int64), c.astype(np.int64), Threshold.of(rho))
            return (mass * np.exp(place.success)).sum(axis=1), (mass * np.exp(place.failure)).sum(axis=1)

        success, failure = self._sums(s - 1, c, at, percentile, sums)
        with np.errstate(divide="ignore"):
            return _law.Logs(np.minimum(np.log(success), 0.0), np.minimum(np.log(failure), 0.0))

    def _moments(self, s: Whole, c: Whole, at: Threshold) -> tuple[Floats, Floats]:
        def sums(mass: Floats, n: Floats, c: Floats, extra: None) -> tuple[Floats, Floats]:
            return (mass * np.minimum(n, c)).sum(axis=1), (mass * np.maximum(n - c, 0)).sum(axis=1)

        return self._sums(s, c, at, None, sums)

    def _sums(
        self, trials: Whole, c: Whole, at: Threshold, extra: Floats | None, sums: Callable[..., Any]
    ) -> tuple[Floats, Floats]:
        """Two sums over the law of the count, elements in chunks of bounded memory."""
        arrays = np.broadcast_arrays(trials, c, at.p, at.q, self.correlation, 0.0 if extra is None else extra)
        shape = arrays[0].shape
        trials, c, p, q, kappa, rho = (value.ravel() for value in arrays)
        _bounded(trials, _MOST_TOKENS, "time and memory grow with them")
        result = np.empty((2, trials.size))
        longest = int(trials.max(initial=0))
        step = max(1, (1 << 20) // (longest + 1))
        for start in range(0, trials.size, step):
            part = slice(start, start + step)
            n = np.arange(int(trials[part].max()) + 1, dtype=np.float64)[None]
            mass = _beta_binomial(
                trials[part, None].astype(np.float64), n, p[part, None], q[part, None], kappa[part, None]
            )
            more = None if extra is None else rho[part, None]
            result[:, part] = sums(mass, n, c[part, None].astype(np.float64), more)
        return result[0].reshape(shape), result[1].reshape(shape)


_MOST_TOKENS = 10**7  # of a beta-binomial count, whose masses are summed one by one
_MOST_RUNS = 2**40  # of a mixture over runs, which sums about ten times their square root


def _bounded(count: Whole, most: int, why: str) -> None:
    largest = int(count.max(initial=0))
    if largest > most:
        raise ValueError(f"tokens are too many for dependent loads ({largest} terms, at most {most}): {why}")


def _beta_binomial(trials: Floats, n: Floats, p: Floats, q: Floats, kappa: Floats) -> Floats:
    """Beta-binomial masses (elements, counts), 0 beyond an element's trials.

    From the ratios P(k+1)/P(k), multiplied through by κ so that every correlation below 1 is regular, outwards from the
    mode: P(k+1) - P(k) changes sign at most once in k, so the masses only fall on the way (or rise to the far end of a
    U-shaped law), and products of ratios keep relative accuracy.
    """
    k = n[:, :-1]
    inside = k < trials
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (trials - k) / (k + 1) * (p * (1 - kappa) + k * kappa) / (q * (1 - kappa) + (trials - k - 1) * kappa)
        ratio = np.where(inside, ratio, 0.0)
        mode = np.where(ratio[:, :1] >= 1, (ratio >= 1).sum(axis=1, keepdims=True), 0) if k.shape[1] else 0 * trials
        up = np.cumprod(np.where(k >= mode, ratio, 1.0), axis=1)
        inverse = np.divide(1.0, ratio, out=np.ones_like(ratio), where=k < mode)
        down = np.cumprod(inverse[:, ::-1], axis=1)[:, ::-1]
    mass = np.ones(np.broadcast_shapes(n.shape, trials.shape))
    mass[:, 1:] *= up
    mass[:, :-1] *= down
    # all tokens or none: κ = 1, or a load of 0 or 1
    ends = (n == 0) * q + (n == trials) * p
    certain = (kappa >= 1) | (p <= 0) | (q <= 0)
    mass = np.where(certain, np.where(trials == 0, 1.0 * (n == 0), ends), mass)
    return mass / mass.sum(axis=1, keepdims=True)


def _place(others: Whole, c: Whole, at: Threshold) -> _law.Logs:
    """P(Bin(others, p) <= c - 1) and its complement, for any c >= 0."""
    others, c, *parts = np.broadcast_arrays(others, c, *at)
    inner = _law.has_place(others + 1, np.clip(c, 1, others + 1), Threshold(*parts))
    none = c < 1
    return _law.Logs(np.where(none, -np.inf, inner.success), np.where(none, 0.0, inner.failure))


def _mean_place(s: Whole, c: Whole, at: Threshold) -> _law.Logs:
    """The same, averaged over 0..s-1 others: E min(Bin(s, p), c)/(ps), for any c >= 0 and s >= 0."""
    size = np.maximum(s, 1)
    inner = _law.kept_fraction(size, np.clip(c, 1, size), at)
    none = c < 1
    return _law.Logs(np.where(none, -np.inf, inner.success), np.where(none, 0.0, inner.failure))
