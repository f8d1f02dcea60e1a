"""Caps of the sphere: how likely a uniform direction is to be near a gate.

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. Every function takes scalars or arrays, broadcasts them like a
NumPy ufunc and returns float64 (a scalar for scalars).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.tokens._integration import affinity_value, dimension, stirling

__all__ = ["cap", "cap_bound", "cap_quantile", "log_cap"]

Floats = NDArray[np.float64]


def upper_cap(a: Floats, d: Floats, square: Floats | None = None) -> Floats:
    """q(a) for a >= 0; `square` is 1 - a^2 where it is known better than a."""
    square = (1 - a) * (1 + a) if square is None else square
    far = a * a > 0.5
    # From the side whose argument is small: 1 - a^2 near the pole, a^2 near the equator.
    near_pole = special.betainc(0.5 * (d - 1), 0.5, np.where(far, square, 0.0))
    near_equator = special.betaincc(0.5, 0.5 * (d - 1), np.where(far, 0.0, a * a))
    # For d = 2 that complement loses digits near a = 0, where q is arccos(a) / pi.
    return np.where(far, 0.5 * near_pole, np.where(d == 2, np.arccos(a) / np.pi, 0.5 * near_equator))


@arguments.broadcasting
def cap(affinity: ArrayLike, dim: ArrayLike) -> Any:
    """False-positive rate q(a) = P(cosine >= a) of a uniform direction in R^dim.

    affinity in [-1, 1], dim >= 2; broadcasts. `q = I_{1-a^2}((dim-1)/2, 1/2) / 2` for a >= 0, `1 - q(-a)` below.
    Relative error below 1e-12 up to dim 10^4, where the affinity's own rounding enters times dim a^2 / (1 - a^2).
    Raises TypeError or ValueError for anything else.

    Claim: cap_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.cap(0.25, dim=64)):.6g}")
    0.0222966
    """
    a, d = np.broadcast_arrays(affinity_value(affinity), dimension(dim))
    upper = upper_cap(np.abs(a), d.astype(np.float64))
    return np.where(a >= 0, upper, 1 - upper)[()]


@arguments.broadcasting
def log_cap(affinity: ArrayLike, dim: ArrayLike) -> Any:
    """Natural logarithm of `cap`; finite where the cap itself underflows, -inf at affinity 1.

    Claim: cap_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.log_cap(0.99, dim=4096)):.6g}")
    -8025.2
    """
    a, d = np.broadcast_arrays(affinity_value(affinity), dimension(dim).astype(np.float64))
    size = np.abs(a)
    upper = upper_cap(size, d)
    with np.errstate(divide="ignore"):
        result = np.where(a >= 0, np.log(upper), np.log1p(-upper))
    tiny = (a > 0) & (a < 1) & (upper < 1e-290)
    if np.any(tiny):
        result[tiny] = _log_cap_far(a[tiny], d[tiny])
    return result[()]


def log_half_step(k: ArrayLike) -> Floats:
    """log Gamma(k + 1/2) - log Gamma(k)."""
    k = np.asarray(k, dtype=np.float64)
    # Stirling on both sides; the large parts cancel in k log1p(1/2k) - 1/2.
    return k * np.log1p(0.5 / k) - 0.5 + 0.5 * np.log(k) + stirling(k + 0.5) - stirling(k)


def _log_cap_far(a: Floats, d: Floats) -> Floats:
    """log q(a) far in the tail: I_x(k, 1/2) = x^k sqrt(1-x) F(k + 1/2, 1; k + 1; x) / (k B(k, 1/2)).

    F is Gauss's continued fraction, which there needs a few dozen terms.
    """
    k = 0.5 * (d - 1)
    x = (1 - a) * (1 + a)
    fraction = np.ones_like(a)
    for m in range(200, 0, -1):
        half = m // 2
        if m % 2:
            step = -(k + half) * (k + 0.5 + half) / ((k + 2 * half) * (k + 2 * half + 1))
        else:
            step = half * (0.5 - half) / ((k + 2 * half - 1) * (k + 2 * half))
        fraction = 1 + step * x / fraction
    log_x = np.log1p(-a) + np.log1p(a)
    log_beta = 0.5 * np.log(np.pi) - log_half_step(k)  # log B(k, 1/2)
    return k * log_x + np.log(a) - np.log(2 * k) - log_beta - np.log(fraction)


@arguments.broadcasting
def cap_bound(affinity: ArrayLike, dim: ArrayLike, *, kind: str = "power") -> Any:
    """Upper bounds on `cap` for affinity in [0, 1].

    kind "power": (1 - a^2)^((dim-1)/2) / 2, since Beta(k, 1/2) is stochastically larger than Beta(k, 1).
    kind "exponential": exp(-m a^2 / (2 - a^2)) / 2 with m = dim for dim >= 3 and m = dim - 1 = 1 for dim = 2, the
    form of LocMoE Theorem 1, from -log(1-x) >= 2x / (2-x) for m = dim - 1. Neither is the smaller one everywhere.

    Claim: cap_bounds.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.cap_bound(0.25, dim=64)):.6g}")
    0.0654734
    """
    arguments.choice("kind", kind, ("power", "exponential"))
    a, d = np.broadcast_arrays(arguments.real("affinity", affinity, 0.0, 1.0), dimension(dim))
    if kind == "power":
        with np.errstate(divide="ignore"):
            log_square = np.where(a < 0.7, np.log1p(-a * a), np.log((1 - a) * (1 + a)))
        return (0.5 * np.exp(0.5 * (d - 1) * log_square))[()]
    return (0.5 * np.exp(-np.where(d >= 3, d, d - 1) * a * a / (2 - a * a)))[()]


@arguments.broadcasting
def cap_quantile(probability: ArrayLike, dim: ArrayLike) -> Any:
    """The affinity whose cap has the given probability: the inverse of `cap` in its first argument.

    probability in [0, 1]; 0 gives affinity 1 and 1 gives -1.

    Claim: cap_law.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.cap_quantile(0.01, dim=64)):.6g}")
    0.287993
    """
    p, d = np.broadcast_arrays(arguments.probability("probability", probability), dimension(dim).astype(np.float64))
    upper = np.minimum(p, 1 - p)
    k = 0.5 * (d - 1)
    near = upper > 0.25
    a_near = np.sqrt(special.betainccinv(0.5, k, np.where(near, 2 * upper, 1.0)))
    a_far = np.sqrt(1 - special.betaincinv(k, 0.5, np.where(near, 1.0, 2 * upper)))
    a = np.where(near, a_near, a_far)
    return np.where(p <= 0.5, a, -a)[()]
