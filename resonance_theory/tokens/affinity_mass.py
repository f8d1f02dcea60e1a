"""Adaptive capacity for isotropic tokens: what a share of the candidates' affinity keeps, and how often the planted token.

With h(a) = P(candidate with affinity >= a) and m(a) = E[affinity; candidate, affinity >= a] = a h(a) + the integral of h over
[a, 1], the cut of many tokens tends to the root a > 0 of m(a) = mass m(-1), and the kept fraction to f = h(a)/h(-1): a point
of the Lorenz curve of the candidates' affinities. At any number of tokens a candidate is kept iff a sum of independent terms
stays below a mark (`tokens`). Few tokens keep more than the limit: the last candidate is kept whole.
Claims: adaptive_capacity, adaptive_exact, adaptive_loads. For tokens with means: `rt.adaptive` with `Evolving.rates`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.rules.adaptive import AffinityLaw
from resonance_theory.tokens import candidates as candidates_
from resonance_theory.tokens import caps, signals

__all__ = ["affinities", "kept_fraction", "success", "threshold"]

Floats = NDArray[np.float64]

_X, _W = np.polynomial.legendre.leggauss(24)
_PANELS = 48


@arguments.broadcasting
def threshold(mass: ArrayLike, dim: ArrayLike, experts: ArrayLike, *, top: ArrayLike = 1) -> Any:
    """The affinity down to which an expert keeps its candidates, for isotropic tokens in the limit of many tokens.

    mass in (0, 1], dim >= 2 (inf: scores that are independent standard normals), 1 <= experts <= dim orthonormal gates,
    1 <= top < experts; broadcasts. Candidates of negative affinity are never kept: the result is at least 0. Error, against
    integrals of the joint density: 1e-14 for dim >= 6, 1e-11 for dim 3 to 5, 1e-7 for dim 2, whose law is not smooth; for
    mass = 1 that of the kept fraction only: of many experts' candidates too few lie near 0 to tell where the cut is.
    Raises TypeError or ValueError outside the ranges above (top = experts leaves a total that vanishes).

    Claim: adaptive_capacity.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.affinity_mass.threshold(0.8, dim=64, experts=8)):.6g}")
    0.147378
    """
    return _solve(mass, dim, experts, top)[0]


@arguments.broadcasting
def kept_fraction(
    mass: ArrayLike,
    dim: ArrayLike,
    experts: ArrayLike,
    *,
    top: ArrayLike = 1,
    tokens: ArrayLike | None = None,
    load: ArrayLike | None = None,
) -> Any:
    """The fraction of its candidates that an expert keeps, in the limit of many tokens. Parameters as in `threshold`.

    Gaussian scores (dim = inf), 8 experts: mass .5, .8, .9 keep .339996, .645395, .779761.
    tokens: 1 to 10^5; expected number kept of so many isotropic tokens over the expected number of candidates, for
    finite dim. Error 1e-4 for mass up to .9, 1e-3 beyond.
    load: π in (0, 1], the expert's share of the tokens where it is not top/experts, their affinities being those of
    other candidates; it matters at finite `tokens` only (claim adaptive_loads).

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.affinity_mass.kept_fraction(0.8, dim=64, experts=8)):.6g}")
    0.648438
    """
    if tokens is None:
        return np.broadcast_arrays(_solve(mass, dim, experts, top)[1], _share(load))[0][()]
    return _each(tokens, mass, 0.0, dim, experts, top, load)[1]


@arguments.broadcasting
def success(
    mass: ArrayLike,
    signal: ArrayLike,
    dim: ArrayLike,
    experts: ArrayLike,
    *,
    top: ArrayLike = 1,
    tokens: ArrayLike | None = None,
    load: ArrayLike | None = None,
) -> Any:
    """Training success rate of planted tokens in the limit of many tokens: P(hit, affinity >= threshold).

    signal = theta / sigma >= 0, dim >= 2 finite; the other parameters as in `threshold`; broadcasts.
    tokens: 1 to 10^5; the rate at so many tokens, error as in `kept_fraction`. load: as there.

    Claims: adaptive_capacity, adaptive_exact.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.tokens.affinity_mass.success(0.8, signal=2.5, dim=64, experts=8)):.6g}")
    0.81698
    """
    if tokens is not None:
        return _each(tokens, mass, signal, dim, experts, top, load)[0]
    a = threshold(mass, arguments.integer("dim", dim, 2), experts, top=top)
    a = np.broadcast_arrays(a, _share(load))[0]
    a, theta, d, n, k = np.broadcast_arrays(a, arguments.real("signal", signal, 0.0, 1e150), dim, experts, top)
    result = np.empty(a.shape)
    for at in np.ndindex(a.shape):
        result[at] = _hit_tail(float(a[at]), float(theta[at]), int(d[at]), int(n[at]), int(k[at]))
    return np.clip(result, 0.0, 1.0)[()]


def _hit_tail(a: float, theta: float, d: int, n: int, k: int) -> float:
    """P(hit, affinity >= a), a >= 0: from 1/sqrt(2) on, where no other gate can be as near, the token hits for certain."""
    near = float(np.sqrt(0.5))
    value = float(signals.affinity_tail(max(a, near), theta, d))
    if a < near:
        x, w = _nodes(_edges(a, near, _kinks(d, n)))
        value += float(
            np.sum(w * signals.affinity_density(x, theta, d) * candidates_.hit_given_affinity(x, d, n, top=k))
        )
    return value


def _share(load: ArrayLike | None) -> Floats:
    """The load, nan where it is not given."""
    return np.array(np.nan) if load is None else arguments.real("load", load, 0.0, 1.0, open_low=True)


def _each(
    tokens: ArrayLike,
    mass: ArrayLike,
    signal: ArrayLike,
    dim: ArrayLike,
    experts: ArrayLike,
    top: ArrayLike,
    load: ArrayLike | None,
) -> tuple[Any, Any]:
    """Success of a planted token and fraction of the background kept, at finite numbers of tokens."""
    d = arguments.integer("dim", dim, 2)
    values = np.broadcast_arrays(
        arguments.integer("tokens", tokens, 1, 10**5),
        arguments.real("mass", mass, 0.0, 1.0, open_low=True),
        arguments.real("signal", signal, 0.0, 1e150),
        d,
        arguments.integer("experts", experts, 2, d, "dim"),
        arguments.integer("top", top, 1, np.asarray(experts) - 1, "experts - 1"),
        _share(load),
    )
    result = np.empty((2, *values[0].shape))
    for at in np.ndindex(values[0].shape):
        one = [value[at].item() for value in values]
        result[(slice(None), *at)] = _finite(*one[:-1], None if np.isnan(one[-1]) else one[-1])
    return result[0][()], result[1][()]


def affinities(theta: float, d: int, n: int, k: int, load: float | None = None) -> AffinityLaw:
    """Distribution of the affinities of an expert's candidates and of the planted token that hits, for `rt.adaptive`."""
    more = 1.0 if load is None else load * n / k  # the background's candidates, over those of equal loads

    def density(y: Floats, signal: float = 0.0) -> Floats:
        a = np.tanh(y)
        chosen = candidates_.hit_given_affinity(a, d, n, top=k)
        return np.asarray(signals.affinity_density(a, signal, d) * chosen / np.cosh(y) ** 2)

    high = float(np.arctanh(min(float(caps.cap_quantile(1e-18, d)), 1 - 1e-15)))
    return AffinityLaw(
        density=lambda y: more * density(y),
        tail=lambda a: np.asarray(more * candidates_.candidate_tail(a, d, n, top=k)),
        hits=lambda y: density(y, theta),
        hit_tail=lambda a: _hit_tail(a, theta, d, n, k),
        low=-high,
        high=high,
        far=min(float(np.arcsinh(theta / np.sqrt(d - 1))) + high, 18.0),
        kinks=np.arctanh(_kinks(d, n)),
        load=more * k / n,
    )


@functools.lru_cache(maxsize=256)
def _finite(s: int, share: float, theta: float, d: int, n: int, k: int, load: float | None) -> tuple[float, float]:
    found = affinities(theta, d, n, k, load).at(share, s)
    return found.success, found.kept


def _solve(mass: ArrayLike, dim: ArrayLike, experts: ArrayLike, top: ArrayLike) -> tuple[Any, Any]:
    share = arguments.real("mass", mass, 0.0, 1.0, open_low=True)
    size = np.asarray(dim)
    finite = np.where(np.isinf(size), 2**52, size) if size.dtype.kind == "f" else size
    whole = finite
    if finite.dtype.kind == "f" and np.all((np.abs(finite) <= 2**52) & (finite == np.rint(finite))):
        whole = finite.astype(np.int64)
    d = arguments.integer("dim", whole, 2)
    n = arguments.integer("experts", experts, 2, d, "dim")
    k = arguments.integer("top", top, 1, n - 1, "experts - 1")
    share, d, n, k = np.broadcast_arrays(share, d, n, k)
    cut, fraction = np.empty(share.shape), np.empty(share.shape)
    for index in np.ndindex(share.shape):
        cut[index], fraction[index] = _root(float(share[index]), int(d[index]), int(n[index]), int(k[index]))
    return cut[()], fraction[()]


def _kinks(d: int, n: int) -> Floats:
    """Affinities at which k gates can just be equal: there the laws of candidates are not smooth (felt up to dim 28)."""
    k = np.arange(2, min(n, 28 - d) + 2)
    return np.concatenate([-1 / np.sqrt(k), 1 / np.sqrt(k)])


def _edges(low: float, high: float, kinks: Floats) -> Floats:
    inside = kinks[(kinks > low) & (kinks < high)]
    return np.unique(np.concatenate([np.linspace(low, high, _PANELS + 1), inside]))


def _nodes(edges: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on every panel."""
    half = 0.5 * np.diff(edges)[:, None]
    return (edges[:-1, None] + half * (1 + _X)).reshape(-1), (half * _W).reshape(-1)


def _root(share: float, d: int, n: int, k: int) -> tuple[float, float]:
    """(a, h(a)/h(-1)) with m(a) = share * m(-1)."""
    if d == 2**52:  # independent standard normals: N_a ~ Bin(n, Q(a))
        high, kinks = 9.5, np.empty(0)

        def tail(x: Floats) -> Floats:
            m = np.arange(1, k + 1)
            return special.betainc(m, n - m + 1, special.ndtr(-np.asarray(x))[..., None]).sum(axis=-1) / n
    else:
        high, kinks = float(caps.cap_quantile(1e-20, d)), _kinks(d, n)

        def tail(x: Floats) -> Floats:
            return np.asarray(candidates_.candidate_tail(x, d, n, top=k))

    total = _mass(tail, -high, high, kinks)
    edges = _edges(0.0, high, kinks)
    x, w = _nodes(edges)
    panels = (w * tail(x)).reshape(-1, _X.size).sum(axis=1)
    beyond = np.append(np.cumsum(panels[::-1])[::-1], 0.0)  # integral of h from each edge on
    at_edges = edges * tail(edges) + beyond
    # m falls for a > 0, from m(0) >= m(-1)
    i = int(np.clip(np.searchsorted(-at_edges, -share * total) - 1, 0, edges.size - 2))

    def excess(a: float) -> float:
        half = 0.5 * (edges[i + 1] - a)
        rest = half * float(_W @ tail(a + half * (1 + _X)))
        return a * float(tail(np.asarray(a))) + rest + float(beyond[i + 1]) - share * total

    if excess(edges[i + 1]) >= 0:  # a share beyond the last affinity that is resolved, where h is 1e-20
        a = float(edges[i + 1])
    elif excess(edges[i]) <= 0:  # by rounding: mass = 1 where hardly a candidate has an affinity near 0
        a = float(edges[i])
    else:
        from scipy import optimize

        a = float(optimize.brentq(excess, edges[i], edges[i + 1], xtol=1e-15, rtol=1e-14))
    return a, float(tail(np.asarray(a))) * n / k


def _mass(tail: Callable[[Floats], Floats], low: float, high: float, kinks: Floats) -> float:
    """m(low) = low h(low) + the integral of h from there on."""
    x, w = _nodes(_edges(low, high, kinks))
    return low * float(tail(np.asarray(low))) + float(w @ tail(x))
