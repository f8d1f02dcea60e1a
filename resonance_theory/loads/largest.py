"""The largest load: how many tokens the busiest expert, or the slowest device, has to work through.

Loads N_1..N_n of s tokens; an expert-parallel layer waits for max N. Two kinds of law:

    exact       one choice a token, independent or with shares that vary (`BetaBinomial`): the loads are independent
                Poisson, or negative binomial, counts given their total. Devices add their experts' shares.
    two-sided   k distinct choices a token, `Blocks`, `Documents`: the loads are negatively associated, so
                1 - Σ P(N_e > m) <= P(max N <= m) <= Π P(N_e <= m), with exact P(N_e <= m).

Exact laws come from products of power series with positive coefficients. T_e holds an expert's masses up to m, D_e those above:
(T, D)(T', D') = (T T', D (T' + D') + T D'), and at x^s their sum is the mass of the total. No normal
approximation is used.
Claims: largest_load, negative_association.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import fft, special

from resonance_theory import _arguments as arguments
from resonance_theory.loads import _series
from resonance_theory.loads._series import NONE, Series
from resonance_theory.loads.marginals import Marginals, of_counts, of_devices
from resonance_theory.rules import INDEPENDENT, BetaBinomial, Counts
from resonance_theory.rules.dependence import Independent
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["LargestLoad"]

_MOST_TOKENS = 2**20
_SURE = 1e-13  # below it the union bound is the law, to a relative S_1/2


class Bounds(NamedTuple):
    """Lower and upper bound: numbers or arrays."""

    lower: Any
    upper: Any


@dataclass(frozen=True, eq=False)
class LargestLoad:
    """Law of the largest load among experts, or among devices, of s tokens.

    Where `exact` is true every verb is exact: 1e-12 relative for `cdf`, `sf` and their logarithms while the smaller of the
    two is above 1e-20 (beyond, the logarithm of a deep lower tail has an error of 1e-15 times tokens), 1e-10 for the mean.
    Otherwise the verbs without "bounds" give the cautious end: never a smaller load than the true one.

    Attributes:
        tokens: tokens s, a whole number in 1..2^20.
        shares: share of all choices that goes to each expert, (experts,), summing to 1.
        top: experts k that each token chooses, all distinct, by conditional Poisson sampling (`choice_weights`) with
            rates k times shares, each at most 1. Pareto or pivotal sampling have the same bounds for experts.
        placement: device 0..d-1 of each expert, (experts,); every expert for itself unless given.
        counts: how tokens depend on each other: INDEPENDENT, `BetaBinomial` (shares of a sample are Dirichlet), `Blocks`,
            `Documents`; parameters are single numbers.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> law = rt.loads.LargestLoad(4096, [1 / 64] * 64)
        >>> print(f"{law.mean():.2f} of 64 on average, at most {law.quantile(0.99)} in 99 % of the steps")
        83.50 of 64 on average, at most 94 in 99 % of the steps
        >>> print(f"the slowest of 8 devices: {rt.loads.LargestLoad(4096, [1 / 8] * 8).mean() / 512:.3f} of the mean")
        the slowest of 8 devices: 1.063 of the mean
    """

    tokens: int
    shares: Any
    top: int = 1
    placement: Any = None
    counts: Counts = INDEPENDENT

    def __post_init__(self) -> None:
        shares = arguments.distribution("shares", self.shares)
        if shares.ndim != 1:
            raise ValueError(f"shares has shape {shares.shape} but must be (experts,)")
        tokens = arguments.whole("tokens", self.tokens, 1, _MOST_TOKENS)
        top = arguments.whole("top", self.top, 1, shares.size, "experts")
        if (high := float(shares.max()) * top) > 1 + 1e-9:
            raise ValueError(
                f"the largest of shares times top is {high:.6g} but must be at most 1: choices are distinct"
            )
        if not isinstance(self.counts, Counts):
            raise TypeError(
                f"counts is a {type(self.counts).__name__} but must be INDEPENDENT, BetaBinomial, Blocks ..."
            )
        if wide := {name: shape for name, shape in self.counts.shapes().items() if math.prod(shape) != 1}:
            name, shape = next(iter(wide.items()))
            raise ValueError(f"counts.{name} has shape {shape} but must be one number here")
        values: dict[str, Any] = {"tokens": tokens, "shares": shares / shares.sum(), "top": top}
        if self.placement is not None:
            values["placement"] = device_of("placement", self.placement, shares.size)
            if top > 1 and not isinstance(self.counts, Independent):
                raise ValueError(
                    f"top = {top} with a placement has a law for independent tokens only, not for {self.counts}: "
                    "simulate it with rt.tokens.routing"
                )
        if isinstance(self.counts, BetaBinomial) and float(np.asarray(self.counts.correlation).item()) == 0:
            values["counts"] = INDEPENDENT
        for name, value in values.items():
            object.__setattr__(self, name, value)

    # --- what is known -----------------------------------------------------------------------------------------------

    @cached_property
    def load_shares(self) -> Floats:
        """Share of the choices of each load: of each device where there is a placement, else of each expert."""
        if self.placement is None:
            return np.asarray(self.shares)
        return np.bincount(self.placement, self.shares).astype(np.float64)

    @property
    def mean_load(self) -> float:
        """Choices per expert or device, tokens x top / their number."""
        return self.tokens * self.top / self.load_shares.size

    @property
    def exact(self) -> bool:
        """Whether the law is exact, else two-sided."""
        if self.load_shares.size == 1:
            return True
        return self.top == 1 and (isinstance(self.counts, Independent) or self._correlation is not None)

    @property
    def associated(self) -> bool:
        """Whether the loads are known to be negatively associated, on which the upper bound of the cdf rests."""
        return self.top == 1 or isinstance(self.counts, Independent)

    @property
    def _correlation(self) -> float | None:
        """The correlation of shares that vary, strictly between 0 and 1."""
        if not isinstance(self.counts, BetaBinomial):
            return None
        value = float(np.asarray(self.counts.correlation).item())
        return value if 0 < value < 1 else None

    @cached_property
    def _marginals(self) -> Marginals:
        if self.placement is not None and self.top > 1:
            return of_devices(self.tokens, self.shares * self.top, self.placement)
        return of_counts(self.tokens, np.minimum(self.load_shares * self.top, 1.0), self.counts)

    @property
    def _range(self) -> tuple[int, int]:
        """Least and greatest value of the largest load."""
        used = int(np.count_nonzero(self.load_shares))
        total = self.tokens * self.top
        high = total if self.placement is not None else self.tokens
        return -(-total // used), high

    # --- verbs -------------------------------------------------------------------------------------------------------

    def cdf_bounds(self, load: ArrayLike) -> Bounds:
        """Lower and upper bound of P(largest load <= load); equal where the law is exact. `load`: whole numbers >= 0."""
        return Bounds(*(np.exp(part) for part in self._logs(load)[0]))

    def sf_bounds(self, load: ArrayLike) -> Bounds:
        """Lower and upper bound of P(largest load > load), each without cancellation."""
        return Bounds(*(np.exp(part) for part in self._logs(load)[1]))

    def cdf(self, load: ArrayLike) -> Floats:
        """P(largest load <= load), or its lower bound: the chance that no expert overflows a capacity of `load`."""
        return self.cdf_bounds(load).lower

    def sf(self, load: ArrayLike) -> Floats:
        """P(largest load > load), or its upper bound: the chance that some expert overflows."""
        return self.sf_bounds(load).upper

    def logcdf(self, load: ArrayLike) -> Floats:
        """Logarithm of `cdf`."""
        return self._logs(load)[0].lower

    def logsf(self, load: ArrayLike) -> Floats:
        """Logarithm of `sf`, for tails below the least double."""
        return self._logs(load)[1].upper

    def quantile_bounds(self, probability: ArrayLike) -> Bounds:
        """Lower and upper bound of the least load m with P(largest load <= m) >= probability, for 0 < probability < 1."""
        q = arguments.real("probability", probability, 0.0, 1.0, open_low=True, open_high=True)
        found = [[self._least(float(p), end) for p in q.ravel()] for end in ("upper", "lower")]
        return Bounds(*(np.reshape(np.array(part, np.int64), q.shape)[()] for part in found))

    def quantile(self, probability: ArrayLike) -> Whole:
        """The least load m with P(largest load <= m) >= probability (or its upper bound): a capacity that no expert exceeds."""
        return self.quantile_bounds(probability).upper

    def mean_bounds(self) -> Bounds:
        """Lower and upper bound of the expected largest load; equal where the law is exact."""
        if self.exact:
            value = self._sum(self._absolute_sf)
            return Bounds(value, value)
        least, most = self._range
        low = self._sum(lambda m: float(self.sf_bounds(m).lower))
        # E max <= m + Σ E(N_e - m)_+ for every m, least where Σ P(N_e > m) passes 1
        middle = self._search(lambda m: float(np.exp(self._marginals.logs(m)[1]).sum()) <= 1.0, 0, most)
        excess = min(m + self._marginals.excess(m) for m in {max(middle - 1, 0), middle})
        return Bounds(low, min(max(excess, float(least)), float(most)))

    def mean(self) -> float:
        """Expected largest load, or its upper bound."""
        return float(self.mean_bounds().upper)

    def slowdown(self) -> float:
        """Expected largest load over the mean load (or its upper bound): how much longer a step takes than a balanced one."""
        return self.mean() / self.mean_load

    # --- how ---------------------------------------------------------------------------------------------------------

    def _logs(self, load: ArrayLike) -> tuple[Bounds, Bounds]:
        m = arguments.integer("load", load, 0)
        values = [self._log_bounds(int(v)) for v in m.ravel()]
        parts = np.array(values, np.float64).reshape(*m.shape, 4)
        return Bounds(parts[..., 0][()], parts[..., 1][()]), Bounds(parts[..., 2][()], parts[..., 3][()])

    def _log_bounds(self, m: int) -> tuple[float, float, float, float]:
        """Logarithms of the bounds of cdf and of sf."""
        least, most = self._range
        if m >= most:
            return 0.0, 0.0, -np.inf, -np.inf
        if m < least:
            return -np.inf, -np.inf, 0.0, 0.0
        within, above = self._marginals.logs(m)
        union = float(np.logaddexp.reduce(above))  # log Σ P(N_e > m)
        if self.load_shares.size == 1:
            return float(within[0]), float(within[0]), float(above[0]), float(above[0])
        if self.exact:
            sf = union if union < math.log(_SURE) else None
            cdf, sf = (math.log1p(-math.exp(sf)), sf) if sf is not None else self._exact(m)
            return cdf, cdf, sf, sf
        one = -math.expm1(min(union, 0.0))
        lower = math.log(one) if one > 0 else -np.inf
        upper = float(within.sum()) if self.associated else float(within.min())
        return lower, upper, _complement(upper), min(union, 0.0)

    def _exact(self, m: int) -> tuple[float, float]:
        """log P(max <= m) and log P(max > m) by the products of series."""
        inside, total = self._at_total([pair[0] for pair in self._pairs(m)]), self._total
        if inside <= 1e-20 * total:
            cdf = self._deep(m)
            return cdf, _complement(cdf)
        cdf = min(inside / total, 1.0)
        if cdf < 0.99:
            return math.log(cdf), math.log1p(-cdf)
        above = self._above(m)
        return math.log1p(-above), math.log(above)

    def _absolute_sf(self, m: int) -> float:
        """P(max > m) to about 1e-12 absolute, which means need: one coefficient of the product at the roots of unity."""
        least, most = self._range
        if not least <= m < most:
            return float(m < least)
        size = self._roots
        wave = np.ones(size // 2 + 1, np.complex128)
        for repeat, mass in self._masses:
            wave *= fft.rfft(mass[: m + 1], size) ** repeat
        weight = np.full(wave.size, 2.0)
        weight[0] = 1.0
        if size % 2 == 0:
            weight[-1] = 1.0
        turn = np.exp(2j * np.pi * (np.arange(wave.size) * self.tokens % size) / size)
        inside = float((weight * (wave * turn).real).sum()) / size
        return 1.0 - min(max(inside / self._total, 0.0), 1.0)

    @cached_property
    def _roots(self) -> int:
        """So many roots of unity that totals which fold onto s have less than 1e-14 of its mass."""
        s, kappa, size = self.tokens, self._correlation, 2 * self.tokens + 64
        a = 0.0 if kappa is None else (1 - kappa) / kappa
        largest = self.load_shares.size * s + 1

        def beyond(total: int) -> float:
            if kappa is None:
                return float(special.gammainc(total, s))
            return float(special.betainc(total, a, s / (s + a)))

        while size < largest and beyond(s + size) > 1e-14 * self._total:
            size *= 2
        return int(fft.next_fast_len(min(size, largest), real=True))

    def _above(self, m: int) -> float:
        *rest, last = self._reduced(self._pairs(m), lambda a, b: _joined(a, b, self.tokens), 2)
        if not rest:
            above = last[1].at(self.tokens)
        else:
            full = _series.add(*last)
            above = self._at_total([rest[0][1], full]) + self._at_total([rest[0][0], last[1]])
        return min(above / self._total, 1.0)

    @cached_property
    def _total(self) -> float:
        """Mass of the independent counts' total at the number of tokens."""
        return float(self._count(1.0)[self.tokens])

    @staticmethod
    def _reduced(items: list[Any], join: Callable[[Any, Any], Any], least: int) -> list[Any]:
        while len(items) > least:
            items = [join(*items[i : i + 2]) if i + 1 < len(items) else items[i] for i in range(0, len(items), 2)]
        return items

    def _at_total(self, items: list[Series]) -> float:
        """Coefficient of x^s of the product: the last multiplication is one sum."""
        *rest, last = self._reduced(items, lambda a, b: _series.product(a, b, self.tokens), 2)
        return _series.coefficient(rest[0], last, self.tokens) if rest else last.at(self.tokens)

    @cached_property
    def _masses(self) -> list[tuple[int, Floats]]:
        """Masses 0.. of the independent counts whose law given the total is ours, largest share first; equal ones once."""
        shares, repeats = np.unique(self.load_shares[self.load_shares > 0], return_counts=True)
        return [(int(r), self._count(float(p))) for p, r in zip(shares[::-1], repeats[::-1])]

    @property
    def _factor(self) -> float:
        """Factor of each count's ratio at which the mean total is the number of tokens."""
        kappa, s = self._correlation, self.tokens
        return s if kappa is None else s / (s + (1 - kappa) / kappa)

    def _ratio(self, share: float, factor: float, most: int) -> Floats:
        """P(j+1)/P(j), j < most, of a Poisson or a negative binomial count."""
        j, kappa = np.arange(most, dtype=np.float64), self._correlation
        return factor * (share if kappa is None else share * (1 - kappa) / kappa + j) / (j + 1)

    def _count(self, share: float) -> Floats:
        """Masses 0..s of the count."""
        s, kappa, factor = self.tokens, self._correlation, self._factor
        if kappa is None:
            inside = special.gammaincc(s + 1.0, factor * share)
        else:
            a = (1 - kappa) / kappa
            inside = special.betainc(share * a, s + 1.0, a / (s + a))
        return inside * _series.masses(self._ratio(share, factor, s))

    def _pairs(self, m: int) -> list[tuple[Series, Series]]:
        """Masses within and above m of each load, equal ones multiplied by squaring where they are many."""
        s = self.tokens
        pairs = []
        for repeat, mass in self._masses:
            pair = Series(0, mass[: m + 1]).trimmed(s), Series(m + 1, mass[m + 1 :]).trimmed(s)
            pairs.extend(
                [pair] * repeat if repeat < 3 else [_repeated(pair, repeat // 2, s)] * 2 + [pair] * (repeat % 2)
            )
        return pairs

    def _deep(self, m: int) -> float:
        """log P(max <= m) far below the centre: counts cut at m, tilted so that their mean total is the tokens."""
        shares, repeats = np.unique(self.load_shares[self.load_shares > 0], return_counts=True)
        j = np.arange(m + 1.0)

        def cut(share: float, tilt: float) -> Floats:
            return _series.masses(self._ratio(share, math.exp(tilt), m))

        def mean(tilt: float) -> float:
            return sum(r * float(cut(float(p), tilt) @ j) for p, r in zip(shares, repeats)) - self.tokens

        low = math.log(self._factor)
        high = low + 1.0
        while mean(high) < 0 and high < 600:
            high += 2 * (high - low)
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if mean(middle) < 0 else (low, middle)
        tilt, total, joint = (low + high) / 2, 0.0, Series(0, np.ones(1))
        for share, repeat in zip(shares, repeats):
            mass = cut(float(share), tilt)
            total -= int(repeat) * math.log(mass[0])  # the series itself has P(0) = 1
            each = _series.power(Series(0, mass).trimmed(self.tokens), int(repeat), self.tokens)
            joint = _series.product(joint, each, self.tokens)
        s, kappa = self.tokens, self._correlation
        log_full = -math.lgamma(s + 1)
        if kappa is not None:
            a = (1 - kappa) / kappa
            log_full += math.lgamma(s + a) - math.lgamma(a)
        return min(total + math.log(joint.at(s)) - s * tilt - log_full, 0.0)

    def _search(self, true: Callable[[int], bool], low: int, high: int) -> int:
        """Least whole number in low..high from which on `true`, which it is at high."""
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if true(middle) else (middle + 1, high)
        return low

    def _least(self, probability: float, end: str) -> int:
        least, most = self._range

        def enough(m: int) -> bool:
            if probability > 0.5:  # by the complement, which does not round to 1
                other = {"lower": "upper", "upper": "lower"}[end]
                return float(getattr(self.sf_bounds(m), other)) <= 1 - probability
            return float(getattr(self.cdf_bounds(m), end)) >= probability

        return self._search(enough, least, most)

    def _sum(self, sf: Callable[[int], float]) -> float:
        """Σ_{m >= 0} sf(m), which is flat at both ends.

        With steps of h the trapezoid's error is that of Euler and Maclaurin, exp(-2 (π sd/h)²): h is halved until two
        sums agree, and at h = 1 nothing is left out.
        """
        least, most = self._range
        end = self._search(lambda m: float(np.exp(self._marginals.logs(m)[1]).sum()) < 1e-16, least - 1, most)
        start = self._search(lambda m: sf(m) < 1 - 1e-14, least - 1, end)
        if end <= start:
            return float(start)
        start = max(start - 1, 0)
        known: dict[int, float] = {}

        def total(step: int) -> float:
            count = -(-(end - start) // step)
            for i in range(count + 1):
                m = start + i * step
                if m not in known:
                    known[m] = sf(m)
            values = [known[start + i * step] for i in range(count + 1)]
            # Σ_{m >= start} sf(m) from every h-th: both are the integral and half of the first value times the step
            return start + step * (sum(values) - values[0] / 2) + values[0] / 2

        step = 1 << max(0, int(math.log2(max((end - start) / 12, 1))))
        last = total(step)
        while step > 1:
            step //= 2
            last, before = total(step), last
            if abs(last - before) < 1e-11 * last:
                break
        return last


def device_of(name: str, placement: ArrayLike, experts: int) -> Whole:
    """A device for each expert, numbered from 0 without gaps."""
    device = arguments.integer(name, placement, 0, 2**31)
    if device.shape != (experts,):
        raise ValueError(f"{name} has shape {device.shape} but must be ({experts},), one device for each expert")
    missing = np.setdiff1d(np.arange(min(int(device.max()) + 1, experts + 1)), device)
    if missing.size:
        raise ValueError(f"{name} puts no expert on device {missing[0]} but must number the devices without gaps")
    return device


def _complement(log: float) -> float:
    """log(1 - exp(log))."""
    if log >= 0:
        return -np.inf
    return math.log(-math.expm1(log)) if log > -0.7 else math.log1p(-math.exp(log))


def _joined(a: tuple[Series, Series], b: tuple[Series, Series], most: int) -> tuple[Series, Series]:
    """All of both within m; some of them above."""
    above = _series.add(_series.product(a[1], _series.add(*b), most), _series.product(a[0], b[1], most))
    return _series.product(a[0], b[0], most), above


def _repeated(pair: tuple[Series, Series], times: int, most: int) -> tuple[Series, Series]:
    result: tuple[Series, Series] = (Series(0, np.ones(1)), NONE)
    while times:
        if times & 1:
            result = _joined(result, pair, most)
        times >>= 1
        if times:
            pair = _joined(pair, pair, most)
    return result
