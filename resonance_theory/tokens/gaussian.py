"""Cosines of Gaussian tokens with a mean: the geometry of orthonormal gates beyond isotropy .

A token is N(mean, I) in R^dim (noise is the unit of length). Seen from n orthonormal gates only the mean's gate
coordinates m_1..m_n and its norm `off` outside the gates' span matter: projections g_j ~ N(m_j, 1) are independent, and
so is the squared rest, non-central chi-square. With T = |token across gate i| and u = g_i the affinity is u/sqrt(u² + T²),
so i is a candidate with affinity tanh y, u = T sinh y, with density

    f(y) = cosh y ∫ t φ(t sinh y - m_i) f_T(t; fewer than `top` of the g_j, j ≠ i, exceed t sinh y) dt,

and f_T is a Laplace inversion in p, with s² = 1 + 2p and z = s u - m_j/s:

    E[exp(-p g_j²); g_j < u] = exp(-m_j² (1 - 1/s²)/2) Φ(z)/s,   off-span factor s^{-(dim-n)} exp(-off² (1 - 1/s²)/2).

Trapezoid rules in t and along Re p = saddle; f is interpolated by a Chebyshev series, whose integrals are q and h.

Error, measured against nested quadratures and `sphere`: 1e-12 absolute in q, h and hit x weight, for gate coordinates
up to sqrt(dim) and any `off`. Beyond, the kinks of h at affinity 1/sqrt(k) turn sharp: 1e-5 at (30, 5, 29, 0) in dim 64.
Tiny tails carry no relative accuracy (`sphere` has it, for isotropic tokens), and dim must be at least 32.
For gates that are not orthogonal
`sampled_rates` gives unbiased estimates with standard errors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.rules.rates import Rates
from resonance_theory.tokens._integration import support

__all__ = ["Gaussian", "Sampled", "rates", "sampled_rates"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_LARGEST = 1e4  # of a mean
_SERIES = 160  # Chebyshev nodes
_PER_SD = 12.5  # period of the inversion, in standard deviations of the tilted T²
_CHUNK = 1 << 19


@dataclass(frozen=True)
class Gaussian:
    """Law of the affinities of a token N(mean, I) with n orthonormal gates.

    gate: the mean's coordinates along the gates, n finite numbers of size at most 1e4, in units of the noise.
    off: norm of the mean outside the gates' span, >= 0 (0 if dim = n). dim: at least 32 and at least n.
    """

    gate: tuple[float, ...]
    off: float
    dim: int

    def __post_init__(self) -> None:
        gate = arguments.real("gate", self.gate, -_LARGEST, _LARGEST)
        if gate.ndim != 1 or gate.size == 0:
            raise ValueError(f"gate has shape {gate.shape} but must be one axis of at least one coordinate")
        off, dim = arguments.real("off", self.off, 0.0, _LARGEST), arguments.integer("dim", self.dim, 32)
        if off.ndim or dim.ndim:
            raise ValueError("off and dim must be single numbers")
        if gate.size > dim:
            raise ValueError(f"gate has {gate.size} coordinates but must have at most dim = {int(dim)}")
        if gate.size == dim and off > 0:
            raise ValueError(f"off = {float(off)} must be 0 where the gates span all {int(dim)} dimensions")
        object.__setattr__(self, "gate", tuple(float(v) for v in gate))
        object.__setattr__(self, "off", float(off))
        object.__setattr__(self, "dim", int(dim))

    @property
    def experts(self) -> int:
        return len(self.gate)

    def load(self, *, top: int = 1) -> Floats:
        """π_i = P(expert i is among the token's `top` best), shape (experts,); sums to top. Free of off and dim."""
        top = self._top(top)
        return np.array([_load(*self._split(i), top) for i in range(self.experts)])

    def false_positive(self, affinity: ArrayLike, expert: int = 0) -> Any:
        """q_i(a) = P(affinity to expert i >= a), a in [-1, 1] of any shape: a doubly non-central t tail."""
        return _series(*self._split(self._expert(expert)), self.off, self.dim, None).tail(affinity)

    def candidate_tail(self, affinity: ArrayLike, expert: int = 0, *, top: int = 1) -> Any:
        """h_i(a) = P(expert i is among the `top` best and affinity to it >= a), a in [-1, 1] of any shape."""
        top = self._top(top)
        return _series(*self._split(self._expert(expert)), self.off, self.dim, top).tail(affinity)

    def _chosen(self, expert: int, top: int | None) -> _Series:
        """Density in artanh(affinity) of the tokens that have this expert among their `top` best (None: of all)."""
        return _series(*self._split(expert), self.off, self.dim, top)

    def _split(self, expert: int) -> tuple[float, tuple[float, ...]]:
        """Own coordinate, the others sorted: what the law of one expert depends on."""
        return self.gate[expert], tuple(sorted(self.gate[:expert] + self.gate[expert + 1 :]))

    def _expert(self, expert: Any) -> int:
        return arguments.whole("expert", expert, 0, self.experts - 1)

    def _top(self, top: Any) -> int:
        return arguments.whole("top", top, 1, self.experts, "experts")


def rates(
    discriminative: Sequence[Gaussian],
    background: Sequence[Gaussian],
    *,
    share: ArrayLike | None = None,
    top: int = 1,
    nodes: int = 512,
) -> Rates:
    """Rates of tokens with means, classes uniform, on one last axis of classes x nodes.

    discriminative: the token of class i = 0..experts-1 (or of the first classes, where the rest look alike by symmetry).
    background: components of the irrelevant tokens, drawn independently with probabilities `share` (default: equal).
    Each class gets `nodes` (at least 64) equally spaced in artanh(affinity), where the trapezoid rule converges
    geometrically; 512 resolve capacities up to some hundreds, above take nodes >= 64 sqrt(capacity).
    Raises TypeError or ValueError naming the argument.
    """
    sequences = isinstance(discriminative, Sequence) and isinstance(background, Sequence)
    parts: list[Any] = [*discriminative, *background] if sequences else [None]
    if not discriminative or not background or not all(isinstance(part, Gaussian) for part in parts):
        raise TypeError("discriminative and background must be sequences of at least one Gaussian each")
    experts = background[0].experts
    if any(part.experts != experts for part in parts) or len(discriminative) > experts:
        raise ValueError(f"all components must have {experts} gates and there can be no more classes than that")
    count = arguments.whole("nodes", nodes, 64)
    top = background[0]._top(top)
    mix = np.full(len(background), 1 / len(background)) if share is None else arguments.distribution("share", share)
    if mix.shape != (len(background),):
        raise ValueError(f"share has shape {mix.shape} but must give one probability to each background component")
    rows = []
    for i, token in enumerate(discriminative):
        own, others = token._split(i)
        own_law = _series(own, others, token.off, token.dim, None)
        y = own_law.low + (own_law.high - own_law.low) * (np.arange(count) + 0.5) / count
        whole = own_law.density_at(y)
        hits = _series(own, others, token.off, token.dim, top).density_at(y)
        a = np.tanh(y)
        hit = np.clip(hits / np.maximum(whole, 1e-300), 0.0, 1.0)
        weight = np.maximum(whole, 0.0)
        load = sum(w * _load(*b._split(i), top) for w, b in zip(mix, background))
        q = sum(w * b.false_positive(a, i) for w, b in zip(mix, background))
        h = sum(w * b.candidate_tail(a, i, top=top) for w, b in zip(mix, background))
        classes = len(discriminative)
        rows.append((a, weight / weight.sum() / classes, hit, np.full(count, load), np.clip(q, 0, 1), np.clip(h, 0, 1)))
    names = ("affinity", "weight", "hit", "load", "false_positive", "candidate_tail")
    columns: dict[str, Any] = dict(zip(names, (np.concatenate(column) for column in zip(*rows))))
    columns["weight"] = columns["weight"] / columns["weight"].sum()
    return Rates(experts=experts, top=top, **columns)


# ---------------------------------------------------------------------------------------------------------------------
# Quadratures
# ---------------------------------------------------------------------------------------------------------------------


def _within(below: Any, above: Any, counts: NDArray[Any], top: int) -> Any:
    """Sum over fewer than `top` above of the product of factors: groups of `counts` alike, each below or above."""
    total: list[Any] = [1.0]
    for low, high, count in zip(below, above, counts):
        group = [special.comb(count, k) * low ** (count - k) * high**k for k in range(min(count, top - 1) + 1)]
        total = [
            sum(total[j] * group[k - j] for j in range(k + 1) if j < len(total) and k - j < len(group))
            for k in range(min(len(total) + len(group) - 1, top))
        ]
    return sum(total)


@functools.lru_cache(maxsize=4096)
def _load(own: float, others: tuple[float, ...], top: int) -> float:
    """P(fewer than top of the others exceed N(own, 1))."""
    if top > len(others):
        return 1.0
    v = np.arange(-200, 201) * 0.05  # the integrand is entire and normal at both ends: the trapezoid rule is exact
    values, counts = np.unique(others, return_counts=True)
    z = own + v - values[:, None]
    inside = _within(special.ndtr(z), special.ndtr(-z), counts, top)
    return float(np.exp(-0.5 * v * v) @ inside * 0.05 / np.sqrt(2 * np.pi))


def _saddle(t: Floats, free: float, square: float) -> tuple[Floats, Floats]:
    """x = 1 + 2p at the saddle of exp(p t²) E exp(-p T²) without truncation, and the exponent there."""
    x = (free + np.sqrt(free * free + 4 * square * t * t)) / (2 * t * t)
    return x, 0.5 * (x - 1) * t * t - 0.5 * free * np.log(x) - 0.5 * square * (1 - 1 / x)


def _log_joint(t: Floats, slope: Floats, own: float, free: float, square: float) -> Floats:
    """Log of density of (u = slope t, T = t) over its saddle-point constant: what locates the integrand."""
    x, exponent = _saddle(t, free, square)
    spread = 0.5 * np.log(2 * free / x**2 + 4 * square / x**3)
    return 2 * np.log(t) - 0.5 * (slope * t - own) ** 2 + exponent - spread


def _reach(own: float, others: tuple[float, ...], off: float, dim: int) -> tuple[float, float]:
    """The y = artanh(affinity) between which the density is within 42 nats of its peak."""
    free, square = dim - 1.0, float(np.dot(others, others)) + off * off
    far = np.sqrt(free + square) + 12.0
    t = far * np.exp(np.linspace(-6.0, 0.0, 400))

    def log_f(y: Floats) -> Floats:
        joint = _log_joint(t, np.sinh(y)[..., None], own, free, square) + np.log(t)
        return special.logsumexp(joint, axis=-1) + np.log(np.cosh(y))

    side = 5.0 + 60.0 / free + np.arcsinh(abs(own))
    low, high, _ = support(log_f, np.array([[-side]]), np.array([[side]]))
    return float(low[0, 0]), float(high[0, 0])


def _density(y: Floats, own: float, others: tuple[float, ...], off: float, dim: int, top: int | None) -> Floats:
    """Density in y = artanh(affinity) of a candidate (top None: of any token), flat y."""
    free, square = dim - 1.0, float(np.dot(others, others)) + off * off
    values, counts = np.unique(others, return_counts=True) if others else (np.empty(0), np.empty(0, dtype=int))
    if top is None or top > len(others):
        values, counts, top = values[:0], counts[:0], None
        rest, rest_square = free, square
    else:
        rest, rest_square = dim - 1.0 - len(others), off * off
    slope = np.sinh(y)[:, None]
    far = np.sqrt(free + square) + 12.0
    low, high, _ = support(
        lambda r: _log_joint(np.exp(r), slope, own, free, square) + r,
        np.full_like(slope, np.log(far) - 8.0),
        np.full_like(slope, np.log(far)),
    )
    r = low + (high - low) * (np.arange(44) + 0.5) / 44
    t = np.exp(r)
    x, exponent = _saddle(t, free, square)
    sd = np.sqrt(2 * free / x**2 + 4 * square / x**3)
    step = 4 * np.pi / (_PER_SD * sd * x)  # of v, s² = x (1 + i v)
    count = int(np.ceil(np.max(_width(x, free, square) / step)))
    v = step[..., None] * np.arange(count + 1)
    outer = np.exp(2 * r - 0.5 * (slope * t - own) ** 2 + exponent) / np.sqrt(2 * np.pi) * 2 * t  # t dt = t² dr
    outer *= x * step / (2 * np.pi) * (high - low) / 44
    result = np.empty(y.shape)
    rows = max(1, _CHUNK // (44 * (count + 1)))
    for start in range(0, y.size, rows):
        part = slice(start, start + rows)
        inner = _inverse(v[part], x[part], t[part], slope[part] * t[part], values, counts, top, rest, rest_square)
        result[part] = np.sum(outer[part] * inner, axis=1)
    return result * np.cosh(y)


def _width(x: Floats, free: float, square: float) -> Floats:
    """v at which the integrand along Re p = saddle has fallen by exp(-38)."""
    low, high = np.zeros_like(x), np.full_like(x, np.sqrt(np.expm1(4 * 38.0 / free)))
    for _ in range(30):
        v = 0.5 * (low + high)
        fallen = 0.25 * free * np.log1p(v * v) + 0.5 * square / x * v * v / (1 + v * v) > 38.0
        low, high = np.where(fallen, low, v), np.where(fallen, v, high)
    return high


def _inverse(
    v: Floats,
    x: Floats,
    t: Floats,
    u: Floats,
    values: Floats,
    counts: NDArray[Any],
    top: int | None,
    rest: float,
    rest_square: float,
) -> Floats:
    """Re of the sum over v of exp(i x v t²/2) E[exp(-p T²); few above u] relative to the untruncated value at v = 0."""
    x, t, u = x[..., None], t[..., None], u[..., None]
    log_line = 0.5 * np.log1p(v * v) + 1j * np.arctan(v)  # log(1 + i v)
    inverse = -1j * v / (1 + 1j * v) / x  # 1/s² - 1/x
    total = np.exp(0.5j * x * v * t * t - 0.5 * rest * log_line + 0.5 * rest_square * inverse)
    if top is not None:
        s = np.sqrt(x) * np.exp(0.5 * log_line)
        below, above = [], []
        for m in values:
            # both parts are at most 1 in size: at Re p they are a split of the whole
            log_whole = -0.5 * log_line + 0.5 * m * m * inverse
            z = s * u - m / s
            small = 0.5 * np.exp(log_whole - 0.5 * z * z) * special.wofz(1j * np.where(z.real < 0, -z, z) / np.sqrt(2))
            large = np.exp(log_whole) - small
            below.append(np.where(z.real < 0, small, large))
            above.append(np.where(z.real < 0, large, small))
        total = total * _within(below, above, counts, top)
    real: Floats = total.real
    return real.sum(axis=-1) - 0.5 * real[..., 0]


class _Series(NamedTuple):
    """Chebyshev series of a density in y on [low, high] and of its tail: `total` to the left, 0 to the right."""

    low: float
    high: float
    density: Floats
    integral: Floats  # from the right
    total: float

    def _scaled(self, y: Floats) -> Floats:
        return (2 * np.clip(y, self.low, self.high) - self.low - self.high) / (self.high - self.low)

    def density_at(self, y: Floats) -> Floats:
        """Density in y within [low, high]."""
        return np.asarray(chebyshev.chebval(self._scaled(y), self.density))

    def tail(self, affinity: ArrayLike) -> Any:
        a = arguments.real("affinity", affinity, -1.0, 1.0)
        with np.errstate(divide="ignore"):
            y = np.arctanh(a)
        value = np.clip(chebyshev.chebval(self._scaled(y), self.integral), 0.0, self.total)
        return np.where(y <= self.low, self.total, np.where(y >= self.high, 0.0, value))[()]


@functools.lru_cache(maxsize=1024)
def _series(own: float, others: tuple[float, ...], off: float, dim: int, top: int | None) -> _Series:
    low, high = _reach(own, others, off, dim)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    density: Any = chebyshev.chebinterpolate(
        lambda x: _density(middle + half * x, own, others, off, dim, top), _SERIES - 1
    )
    integral = chebyshev.chebint(density, lbnd=1.0) * -half
    total = 1.0 if top is None or top > len(others) else _load(own, others, top)
    return _Series(low, high, density, integral, total)


# ---------------------------------------------------------------------------------------------------------------------
# Gates that are not orthogonal
# ---------------------------------------------------------------------------------------------------------------------


class Sampled(NamedTuple):
    """Estimates with standard errors; affinity's shape plus a last axis of experts, loads of shape (experts,)."""

    load: Floats
    load_error: Floats
    false_positive: Floats  #: exact up to 1e-12, for any gates
    candidate_tail: Floats
    candidate_tail_error: Floats


def sampled_rates(
    affinity: ArrayLike,
    mean: ArrayLike,
    gates: ArrayLike,
    rng: np.random.Generator,
    *,
    draws: int = 100_000,
    top: int = 1,
) -> Sampled:
    """π, q and h of a token N(mean, I) for any gates, learned or not: unbiased, with standard errors.

    affinity: values in [-1, 1], shape (...). mean: (dim,), dim >= 32. gates: (experts, dim), none zero. Projections on
    the gates' span are drawn; the chi-square rest is integrated exactly (Rao-Blackwell), which leaves
    errors of about sqrt(h/draws) at most. q needs one gate only, so it is exact. Candidates are the `top` cosines.
    """
    a = arguments.real("affinity", affinity, -1.0, 1.0)
    m, w = arguments.real("mean", mean, -_LARGEST, _LARGEST), arguments.real("gates", gates)
    if m.ndim != 1 or w.ndim != 2 or w.shape[1] != m.size:
        raise ValueError(f"gates has shape {w.shape} and mean {m.shape} but must be (experts, dim) and (dim,)")
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    if np.any(norm == 0):
        raise ValueError(f"gates[{int(norm.argmin())}] is zero but every gate must have a direction")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a {type(rng).__name__} but must be a numpy.random.Generator")
    w = w / norm
    n, count = w.shape[0], arguments.whole("draws", draws, 2)
    most = arguments.whole("top", top, 1, n, "experts")
    basis, length, _ = np.linalg.svd(w.T, full_matrices=False)
    basis = basis[:, length > 1e-12 * length[0]]
    inside = basis.T @ m
    off = float(np.linalg.norm(m - basis @ inside))
    free = m.size - basis.shape[1]
    flat = a.reshape(-1)
    sums, squares, loads = np.zeros((2, flat.size, n)), np.zeros((flat.size, n)), np.zeros(n)
    step = max(1, (1 << 22) // (max(flat.size, 1) * n))
    for start in range(0, count, step):
        g = rng.standard_normal((min(step, count - start), inside.size)) + inside
        u = g @ (basis.T @ w.T)
        cut = np.partition(u, n - most, axis=1)[:, n - most, None]
        candidate = u >= cut
        loads += candidate.sum(axis=0)
        given = _given(flat[:, None, None], u, np.vecdot(g, g)[:, None], free, off) * candidate
        sums[0] += given.sum(axis=1)
        squares += (given * given).sum(axis=1)
    p, h = loads / count, sums[0] / count
    error = np.sqrt(np.maximum(squares / count - h * h, 0.0) / (count - 1))
    single = [Gaussian((float(v @ m),), float(np.linalg.norm(m - (v @ m) * v)), m.size) for v in w]
    q = np.stack([np.asarray(g.false_positive(flat)) for g in single], axis=-1)
    shape = (*a.shape, n)
    return Sampled(p, np.sqrt(p * (1 - p) / (count - 1)), *(v.reshape(shape) for v in (q, h, error)))


def _given(a: Floats, u: Floats, square: Floats, free: int, off: float) -> Floats:
    """P(u / sqrt(square + S) >= a), S non-central chi-square."""
    with np.errstate(divide="ignore"):
        room = np.maximum(np.where(a == 0, np.inf, u * u / np.where(a == 0, 1.0, a * a)) - square, 0.0)
    room = np.minimum(room, 1e300)
    inside = special.chndtr(room, free, off * off) if free else np.ones_like(room) * (room > 0)
    return np.where(a >= 0, np.where(u >= 0, inside, 0.0), np.where(u >= 0, 1.0, 1 - inside))
