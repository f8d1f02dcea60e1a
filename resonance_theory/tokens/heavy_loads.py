"""Heavy loads: experts whose shares of the tokens are log-normal, and what one reported drop rate says of another.

An expert's load over the mean load is X = exp(σ Z - σ²/2), Z standard normal. With capacity factor c and so many tokens
that counts do not fluctuate, the dropped share of the tokens is a call-option price,

    E (X - c)_+ = Φ((σ²/2 - ln c)/σ) - c Φ((-σ²/2 - ln c)/σ).

It grows with σ, so one reported drop rate fixes σ. Claim: heavy_loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.rules.rates import Rates
from resonance_theory.typing import ArrayLike, Floats

__all__ = ["LogNormalLoads"]

_WIDE = 1.0  # scale from which the two terms of the price do not cancel where the call is in the money
# t = exp(x - exp(-x)) on equal steps: the double-exponential rule for integrands that decay on the half line
_X = np.arange(-4.6, 5.3, 1 / 16)
_T, _W = np.exp(_X - np.exp(-_X)), np.exp(_X - np.exp(-_X)) * (1 + np.exp(-_X)) / 16


@dataclass(frozen=True)
class LogNormalLoads:
    """Experts' loads that are log-normal about their mean.

    Attributes:
        sigma: scale of the logarithm of an expert's load, in [0, 30]; broadcasts. 0 is a uniform load.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> loads = rt.tokens.LogNormalLoads.from_drop(0.0968, 1.0)
        >>> print(f"sigma {loads.sigma:.4f}; {loads.drop(1.0625):.2%} at 1.0625, {loads.drop(1.25):.2%} at 1.25")
        sigma 0.2432; 7.16% at 1.0625, 2.63% at 1.25
    """

    sigma: Any  # an array or a number once made

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", arguments.real("sigma", self.sigma, 0.0, 30.0)[()])

    def drop(self, factor: ArrayLike) -> Floats:
        """Dropped share of the tokens in the limit of large counts, accurate to 1e-12 relative. Claim: heavy_loads.

        Args:
            factor: capacity factor c > 0: slots of an expert over its mean load; broadcasts with sigma.

        Returns:
            A share in [0, 1].

        >>> import resonance_theory as rt
        >>> print(rt.tokens.LogNormalLoads(0.25).drop([1.0, 1.5, 4.0]))
        [9.94764497e-02 6.71862576e-03 1.24001445e-09]
        """
        return np.exp(self.log_drop(factor))

    def log_drop(self, factor: ArrayLike) -> Floats:
        """Natural logarithm of `drop`; no underflow, no cancellation.

        >>> import resonance_theory as rt
        >>> print(f"{rt.tokens.LogNormalLoads(0.25).log_drop(1e6):.6f}")
        -1530.377095
        """
        c = arguments.real("factor", factor, 0.0, open_low=True)
        arguments.same_shapes(factor=c.shape, sigma=np.shape(self.sigma))
        c, s = np.broadcast_arrays(c, np.asarray(self.sigma))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            log = np.abs(np.log(c))
            call = _log_call(log, s)  # at max(c, 1/c)
            # E (X-c)_+ = 1 - c + c E (X - 1/c)_+ under the law weighted by X, which is the same law of 1/X
            inside = np.log(-np.expm1(-log) + np.exp(call - log))
        return np.minimum(np.where(c >= 1, call, inside), 0.0)[()]

    @classmethod
    def from_drop(cls, drop: ArrayLike, factor: ArrayLike) -> LogNormalLoads:
        """The scale at which a reported share of the tokens is dropped at a capacity factor. Claim: heavy_loads.

        Args:
            drop: reported drop rate, above max(0, 1 - factor), which uniform loads drop, and below 1; broadcasts.
            factor: capacity factor > 0 of that report.

        Raises:
            ValueError: where no scale up to 30 gives that drop.
        """
        c = arguments.real("factor", factor, 0.0, open_low=True)
        d = arguments.real("drop", drop, 0.0, 1.0, open_low=True, open_high=True)
        arguments.same_shapes(drop=d.shape, factor=c.shape)
        d, c = np.broadcast_arrays(d, c)
        bad = d <= 1 - c
        if bad.any():
            at = np.flatnonzero(bad)[0]
            raise ValueError(
                f"drop = {d.flat[at]:g} must be above {1 - c.flat[at]:g} at factor {c.flat[at]:g}, "
                "which uniform loads drop"
            )
        if (d > cls(30.0).drop(c)).any():
            at = np.flatnonzero(d > cls(30.0).drop(c))[0]
            raise ValueError(f"drop = {d.flat[at]:g} at factor {c.flat[at]:g} must be one that sigma up to 30 gives")
        return cls(_solve(d, c)[()])

    def rates(self, experts: int, top: int = 1, tokens: int | None = None) -> Rates:
        """Rates for finite counts: an expert's tokens are binomial given its share. Claim: heavy_loads.

        A share is X l/n on condition that it is at most 1, its scale kept and its mean moved so that it is l/n exactly: the
        shares of n experts then sum to l on average. Shares of different experts are independent.

        Args:
            experts: number of experts n >= 2.
            top: experts per token l, 1..n-1.
            tokens: largest sample for which averages over the nodes are to be exact. The law of a count is a step in the
                load of relative width sqrt(n/(l tokens)). The nodes, at most 16,384, resolve it to 1e-12 relative up
                to mean loads of 1e5 tokens at sigma 0.25 and of 1e3 tokens at sigma 2; beyond to 1e-7 absolute.
                4,096 unless given.

        Returns:
            `Rates` with nodes of the load, for `drop_rate` and all else that reads loads.

        >>> import resonance_theory as rt
        >>> rates = rt.tokens.LogNormalLoads(0.2432).rates(experts=64, top=6, tokens=1024)
        >>> print(f"{rt.token_choice.drop_rate(1024, 96, rates):.2%}")
        10.42%
        """
        n = arguments.whole("experts", experts, 2)
        k = arguments.whole("top", top, 1, n - 1, "experts")
        s = arguments.whole("tokens", 4096 if tokens is None else tokens, 1)
        sigma = arguments.number("sigma", self.sigma, 0.0)
        if sigma == 0:
            return Rates(experts=n, top=k)
        z, weight, most = _nodes(sigma, n / k, s * k / n)
        load = np.exp(sigma * (z - most))
        load *= (k / n) / (weight @ load)  # by a rounding
        return Rates(experts=n, top=k, load=np.minimum(load, 1.0), weight=weight)


def _log_call(log: Floats, sigma: Floats) -> Floats:
    """log E (X - c)_+ for c = exp(log) >= 1.

    With a = log/σ - σ/2 and Mills' ratio R it is φ(a) {R(a) - R(a + σ)}, and the difference is the integral of
    exp(-a t - t²/2) (1 - exp(-σ t)) over t > 0, all of it positive.
    """
    s = np.maximum(sigma, 1e-300)
    a = log / s - s / 2
    wide = (a < 0) & (s > _WIDE)
    low = np.where(wide, 0.0, np.maximum(a, -0.5 * _WIDE))
    scale = 1 / np.maximum(low, 1.0)
    t = _T * scale[..., None]
    integral = (np.exp(-low[..., None] * t - t * t / 2) * -np.expm1(-s[..., None] * t)) @ _W * scale
    value = -a * a / 2 - 0.5 * np.log(2 * np.pi) + np.log(integral)
    both = np.log(special.ndtr(-a) - np.exp(log + special.log_ndtr(-a - s)))
    return np.where(sigma <= 0, -np.inf, np.where(wide, both, value))


def _solve(drop: Floats, factor: Floats) -> Floats:
    """Scale at which the drop is met, by bisection of the logarithm between the ends that bracket it."""
    low, high = np.full(drop.shape, -700.0), np.full(drop.shape, np.log(30.0))
    for _ in range(70):
        middle = (low + high) / 2
        short = LogNormalLoads(np.exp(middle)).drop(factor) < drop
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.exp(high)


def _nodes(sigma: float, most: float, mean: float) -> tuple[Floats, Floats, float]:
    """Nodes z and weights of the normal law below its greatest value, and that value.

    There X reaches n/l = `most`: ln `most` = σ z + μ, with the location μ such that E (X | X <= most) = 1.
    """

    def log_mean(top: float) -> float:
        ratio = special.log_ndtr(top - sigma) - special.log_ndtr(top)
        return float(np.log(most) - sigma * top + sigma**2 / 2 + ratio)

    span = (np.log(most) + sigma**2) / sigma + 10.0
    from scipy import optimize  # slow to import

    top = float(optimize.brentq(log_mean, -1e8 if sigma < 1 else -1e4 * sigma, span, xtol=1e-14, rtol=1e-15))
    low, high = -float(np.hypot(min(top, 0.0), 9.2)), min(top, 9.2 + sigma)
    width = min(1.0, 1.5 / (sigma * np.sqrt(mean)))
    panels = int(np.clip(np.ceil((high - low) / width), 16, 1024))
    x, w = special.roots_legendre(16)
    edges = np.linspace(low, high, panels + 1)
    z = (edges[:-1, None] + np.diff(edges)[:, None] * (1 + x) / 2).ravel()
    weight = np.tile(w, panels) * np.exp((low**2 if top < 0 else 0.0) / 2 - z * z / 2)
    return z, weight / weight.sum(), top
