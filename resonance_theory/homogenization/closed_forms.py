"""Scatter between and within experts in closed form, for isotropic tokens and orthonormal gates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments

__all__ = [
    "expected_max",
    "kept_means",
    "resonance_scatter",
    "simplex_norm",
    "skewed_scatter",
    "token_choice_scatter",
]

Floats = NDArray[np.float64]

# Trapezoid rule over the line: for the analytic, rapidly decaying integrands below it converges geometrically.
_LINE, _STEP = np.linspace(-14.0, 14.0, 1401, retstep=True)


def _gauss() -> tuple[Floats, Floats, Floats]:
    """Density, log of the distribution function, and the ratio density/distribution on the line's nodes."""
    from scipy.special import log_ndtr

    density = np.exp(-_LINE * _LINE / 2) / math.sqrt(2 * math.pi)
    log_cdf = log_ndtr(_LINE)
    return density, log_cdf, np.exp(-_LINE * _LINE / 2 - math.log(math.sqrt(2 * math.pi)) - log_cdf)


def expected_max(experts: ArrayLike) -> Floats:
    """e_n, the mean of the largest of n independent standard normals; n whole numbers in [1, 10^9]. Broadcasts.

    e_8 = 1.42360030604528. Relative error below 1e-13 (e_1 = 0 to 1e-16).

    Claim: simplex_centroids.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.expected_max(8)):.6g}")
    1.4236
    """
    n = arguments.integer("experts", experts, 1, 10**9).astype(np.float64)[..., None]
    density, log_cdf, _ = _gauss()
    # E max = ∫ x nφΦ^{n-1} dx = n(n-1) ∫ φ² Φ^{n-2} dx by parts, whose integrand has one sign
    return ((n - 1) * n * density * density * np.exp((n - 2) * log_cdf)).sum(axis=-1) * _STEP


def _shape(dim: ArrayLike, experts: ArrayLike) -> tuple[Floats, Floats]:
    d = arguments.integer("dim", dim, 2)
    n = arguments.integer("experts", experts, 2, d, "dim")
    return d.astype(np.float64), n.astype(np.float64)


def simplex_norm(experts: ArrayLike) -> Floats:
    """B = e_n² n/(n-1), the squared norm of an expert's centroid for Gaussian isotropic tokens.

    Claim: simplex_centroids.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.simplex_norm(8)):.6g}")
    2.31616
    """
    n = arguments.integer("experts", experts, 2)
    return expected_max(n) ** 2 * n / (n - 1)


def _mean_radius(d: Floats) -> Floats:
    """E R = √2 Γ((d+1)/2)/Γ(d/2), the mean norm of a standard normal vector; relative error below 1e-15.

    Differences of log Γ lose digits as d grows; from d = 60 on the ratio's expansion in 2/d does not.
    """
    from scipy.special import gamma

    d = np.asarray(d, dtype=np.float64)
    small, y = np.minimum(d, 60.0) / 2, 2.0 / np.maximum(d, 60.0)
    last = -399 / 262144 + y * (869 / 4194304 + y * 39325 / 33554432)
    series = 1 + y * (-1 / 8 + y * (1 / 128 + y * (5 / 1024 + y * (-21 / 32768 + y * last))))
    return math.sqrt(2) * np.where(d < 60, gamma(small + 0.5) / gamma(small), np.sqrt(1 / y) * series)


@arguments.broadcasting
def token_choice_scatter(dim: ArrayLike, experts: ArrayLike, *, sphere: bool = False) -> Floats:
    """Between/within scatter of Top-1 token choice for isotropic tokens and orthonormal gates (ETR eq. 13).

    B/(d-B) for Gaussian tokens; for tokens on the unit sphere B is replaced by B d/(E R)². dim, experts: whole numbers,
    2 <= experts <= dim. Broadcasts.

    Claim: calinski_harabasz_token_choice.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.token_choice_scatter(64, 8)):.6g}")
    0.0375489
    """
    d, n = _shape(dim, experts)
    b = simplex_norm(n.astype(np.int64))
    if sphere:
        b = b * d * _mean_radius(d) ** -2
    return b / (d - b)


@arguments.broadcasting
def resonance_scatter(
    dim: ArrayLike, experts: ArrayLike, kept: ArrayLike, *, select: str = "inner", sphere: bool = False
) -> Floats:
    """Between/within scatter when every expert keeps the top fraction of its Top-1 candidates.

    kept: fraction f in (0, 1]; select: candidates ranked by "inner" product with the gate or by "cosine" affinity;
    sphere=True puts the tokens on the unit sphere, where both rankings are the cosine. Population limit (many tokens):
    the kept ones are those above a fixed threshold. dim, experts: 2 <= experts <= dim. Broadcasts. Raises ValueError where
    so few are kept by cosine that their cosines are within 1e-7 of 1 (only in few dimensions).

    Claims: calinski_harabasz_resonance, calinski_harabasz_cosine.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.resonance_scatter(64, 8, 0.3)):.6g}")
    0.0677467
    """
    d, n, f = _kept(dim, experts, kept, select)
    if sphere or select == "cosine":
        winner, other = _cosine_means(d, n, f)
        scale = 1.0 if sphere else _mean_radius(d)
        total = 1.0 if sphere else d
        winner, other = winner * scale, other * scale
    else:
        winner, other, total = _inner_means(d, n, f)
    between = (winner - other) ** 2 * (1 - 1 / n)
    return between / (total - winner**2 - (n - 1) * other**2)


@arguments.broadcasting
def kept_means(dim: ArrayLike, experts: ArrayLike, kept: ArrayLike, *, select: str = "inner") -> tuple[Floats, Floats]:
    """Means, over the tokens an expert keeps, of their affinity with its gate and with another gate.

    select="inner": projections, of the tokens with the largest ones; "cosine": cosines, likewise. The other arguments
    are those of `resonance_scatter`. Broadcasts.

    Claim: calinski_harabasz_resonance.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.kept_means(64, 8, 0.3)[0]):.6g}")
    2.14946
    """
    d, n, f = _kept(dim, experts, kept, select)
    return _cosine_means(d, n, f) if select == "cosine" else _inner_means(d, n, f)[:2]


def skewed_scatter(gate: ArrayLike, dim: int, *, kept: ArrayLike = 1.0) -> float:
    """Between/within scatter of what experts of unequal loads keep: tokens N(μ, I), selection by inner product.

    gate: coordinates <μ, w_j> of the common mean along the n >= 2 orthonormal gates, in [-10, 10]; only their differences
    matter. dim >= n. kept: fraction of its Top-1 candidates that each expert keeps, one number or (n,), in (0, 1]: a fixed
    capacity c in units of the tokens keeps min(1, c/π_i). Many tokens. Error 1e-12 relative, where the rarest expert has 1e-6
    of the tokens or more. Source: claim calinski_harabasz_skewed.

    >>> import resonance_theory as rt
    >>> print(f"{float(rt.homogenization.skewed_scatter([1.0, 0.0, 0.0], 64)):.6g}")
    0.014493
    """
    m = arguments.real("gate", gate, -10.0, 10.0)
    if m.ndim != 1 or m.size < 2:
        raise ValueError(f"gate has shape {m.shape} but must be one axis of at least two coordinates")
    d = arguments.whole("dim", dim, m.size)
    f = arguments.real("kept", kept, 0.0, 1.0, open_low=True)
    if f.shape not in ((), m.shape):
        raise ValueError(f"kept has shape {f.shape} but must be one number or ({m.size},)")
    share, mean, square = _skewed_means(m, np.broadcast_to(f, m.shape))
    share = share / share.sum()
    centre = share @ mean
    between = float(share @ np.square(mean - centre).sum(axis=1))
    return between / (float(share @ square) - float(centre @ centre) + d - m.size - between)


def _skewed_means(m: Floats, f: Floats) -> tuple[Floats, Floats, Floats]:
    """Of the tokens that expert i keeps: their share of all, means (i, j) and mean square of the projections."""
    from scipy.special import log_ndtr

    n = m.size
    nodes, weights = np.polynomial.legendre.leggauss(320)
    others = np.where(np.eye(n, dtype=bool), -np.inf, m)  # row i: the gates that must stay below

    def on(low: Floats) -> tuple[Floats, Floats]:
        """Projections u on the own gate above `low`, and log of their density there times the weight."""
        high = np.maximum(low + 9.0, m.max() + 9.0)
        u = low[:, None] + (high - low)[:, None] * (nodes + 1) / 2
        log_mass = -0.5 * np.square(u - m[:, None]) - 0.5 * math.log(2 * math.pi)
        log_mass = log_mass + log_ndtr(u[:, :, None] - others[:, None, :]).sum(axis=-1)
        return u, log_mass + np.log(weights * (high - low)[:, None] / 2)

    least = (m + m.max()) / 2 - 11.0
    load = np.exp(on(least)[1]).sum(axis=1)
    low, high = least.copy(), np.full(n, m.max() + 11.0)
    for _ in range(60):
        middle = (low + high) / 2
        more = np.exp(on(middle)[1]).sum(axis=1) > f * load
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    u, log_mass = on(np.where(f == 1, least, low))
    mass = np.exp(log_mass)
    share = mass.sum(axis=1)
    mass = mass / share[:, None]
    z = u[:, :, None] - m
    mills = np.exp(-0.5 * z * z - 0.5 * math.log(2 * math.pi) - log_ndtr(z))
    own = np.eye(n, dtype=bool)[:, None, :]
    first = np.where(own, u[:, :, None], m - mills)
    second = np.where(own, np.square(u)[:, :, None], 1 + m * m - mills * (u[:, :, None] + m))
    return share, np.einsum("iu,iuj->ij", mass, first), np.einsum("iu,iuj->i", mass, second)


def _kept(dim: ArrayLike, experts: ArrayLike, kept: ArrayLike, select: str) -> tuple[Floats, Floats, Floats]:
    arguments.choice("select", select, ("inner", "cosine"))
    d, n = _shape(dim, experts)
    d, n, f = np.broadcast_arrays(d, n, arguments.real("kept", kept, 0.0, 1.0, open_low=True))
    return d, n, f


def _inner_means(d: Floats, n: Floats, f: Floats) -> tuple[Floats, Floats, Floats]:
    """Means of the winning and of another projection among the kept, and the mean squared norm."""
    from scipy.special import log_ndtr, ndtri_exp

    # integrate over u > u_f with Gauss-Legendre after u = u_f + range * node; the tail beyond u_f + 12 is < 1e-30
    nodes, weights = np.polynomial.legendre.leggauss(160)
    log_below = np.minimum(np.log1p(-np.minimum(f, 1 - 1e-16)) / n, -5e-324)  # below 0 for the smallest f as well
    low = np.maximum(ndtri_exp(log_below), -14.0)
    low = np.where(f == 1, -14.0, low)
    high = np.maximum(low + 8.0, 13.0)
    u = low[..., None] + (high - low)[..., None] * (nodes + 1) / 2
    log_cdf = log_ndtr(u)
    log_density = -u * u / 2 - 0.5 * math.log(2 * math.pi)
    mills = np.exp(log_density - log_cdf)  # φ/Φ
    log_mass = log_density + (n[..., None] - 1) * log_cdf
    mass = np.exp(log_mass - log_mass.max(axis=-1, keepdims=True)) * weights
    mass = mass / mass.sum(axis=-1, keepdims=True)
    winner = (mass * u).sum(axis=-1)
    other = -(mass * mills).sum(axis=-1)
    squares = (mass * (u * u + (n[..., None] - 1) * (1 - u * mills))).sum(axis=-1)
    return winner, other, squares + d - n


def _cosine_means(d: Floats, n: Floats, f: Floats) -> tuple[Floats, Floats]:
    """Mean cosine with the winning gate and with another gate among the kept, for each (d, n, f)."""
    results = [_cosine_means_one(int(a), int(b), float(c)) for a, b, c in zip(d.flat, n.flat, f.flat)]
    pairs = np.array(results).reshape((*d.shape, 2))
    return pairs[..., 0], pairs[..., 1]


_NEAREST = 1 - 1e-7


def _cosine_means_one(d: int, n: int, f: float) -> tuple[float, float]:
    from scipy.optimize import brentq

    from resonance_theory.tokens import candidates

    if f == 1.0:
        winner = float(expected_max(n) / _mean_radius(np.asarray(d, np.float64)))
        return winner, -winner / (n - 1)
    # the threshold: h(a) = f/n; the largest of n >= 2 cosines lies between -1/sqrt(n) and 1
    least = float(candidates.candidate_tail(_NEAREST, d, n)) * n
    if f < least:
        raise ValueError(
            f"kept = {f:g} must be at least {least:.3g} for dim = {d} and experts = {n}, as cosines nearer to 1 than "
            f"{1 - _NEAREST:.0e} lose their digits"
        )
    threshold = float(
        brentq(lambda a: float(candidates.candidate_tail(a, d, n)) * n / f - 1, -_NEAREST, _NEAREST, xtol=1e-15)
    )
    # E[δ; δ >= a, winner] = a h(a) + ∫_a^1 h, over the angle, split where h is not smooth (affinities ±1/√k)
    widest = math.acos(threshold)
    roots = 1 / np.sqrt(np.arange(2, min(n, 40) + 1))
    even = np.linspace(0, widest, 9)
    angle, width = _composite(np.concatenate([even, np.arccos(roots), np.arccos(-roots)]), 0.0, widest)
    integral = float((width * np.sin(angle) * candidates.candidate_tail(np.cos(angle), d, n)).sum())
    winner = threshold + integral * n / f
    # Summed over all gates: E[Σ_k δ_k; some δ >= a] = -n E[δ_1; all δ < a], since E Σ δ_k = 0.
    return winner, (_mean_below(threshold, d, n) * -n / f - winner) / (n - 1)


def _composite(cuts: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss-Legendre rules between consecutive cuts within [low, high]."""
    edges = np.unique(np.clip([low, *cuts, high], low, high))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    length = np.diff(edges)[:, None]
    return (edges[:-1, None] + length * (nodes + 1) / 2).ravel(), (length * weights / 2).ravel()


def _mean_below(a: float, d: int, n: int) -> float:
    """E[δ_1; every δ_k < a] on the sphere.

    Given δ_1 = y the other cosines depend on |y| alone, so values y and -y below a cancel and only y < -|a| remains.
    With w² = 1 - y², of density proportional to w^(d-3) dy = w^(d-2) dw/|y|, this is -c ∫ w^(d-2) P(the n-1 other
    coordinates of a uniform direction in R^(d-1) stay below a/w) dw over 0 < w < W = sqrt(1-a²), c = Γ(d/2)/(√π
    Γ((d-1)/2)). In w = W exp(-y) it is split where a/w = 1/√k, the only places where the probability is not smooth.
    """
    from resonance_theory.tokens import candidates

    top = math.sqrt((1 - a) * (1 + a))
    last = min(40.0 / (d - 1), math.log(top / abs(a)) if a else math.inf)
    kinks = [math.log(top / (abs(a) * math.sqrt(k))) for k in range(2, min(n, 40)) if a and abs(a) * math.sqrt(k) < top]
    cuts = np.array([*kinks, *np.linspace(0, max(last, 0.0), 5)])
    if d < 8:  # where few dimensions are left the kinks are roots: panels shrink towards them
        near = max(last, 0.0) * 0.25 ** np.arange(1, 15)
        cuts = np.concatenate([cuts, *(cut + sign * near for cut in (*kinks, last) for sign in (-1, 1))])
    y, width = _composite(cuts, 0.0, max(last, 0.0))
    below = candidates.hit_given_affinity(a / np.sqrt(a * a + (top * np.exp(-y)) ** 2), d, n)
    inner = float((width * np.exp(-(d - 1) * y) * below).sum())
    rest = math.exp(-(d - 1) * max(last, 0.0)) / (d - 1) if a > 0 else 0.0  # a/w > 1: all coordinates are below
    normal = float(_mean_radius(np.asarray(d - 1.0))) / math.sqrt(2 * math.pi)
    return -normal * top ** (d - 1) * (inner + rest)
