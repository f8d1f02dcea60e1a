"""The planted model: the joint law of (affinity, hit, false positives, candidate tail) as quadrature nodes.

Setting. `experts` gates are orthonormal in R^`dim` and the affinity of a token to a gate is the cosine between them.
A class-irrelevant token has a uniform direction. The class-discriminative token of expert i is `theta w_i + sigma z`
with z standard normal; only `signal = theta / sigma` matters. Every function takes scalars or arrays, broadcasts them like a
NumPy ufunc and returns float64 (a scalar for scalars).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.rules.rates import Rates
from resonance_theory.tokens._integration import dimension, log_cosh, signal_value, support
from resonance_theory.tokens.affinity_mass import affinities
from resonance_theory.tokens.candidates import candidate_tail_at, hit_given_affinity
from resonance_theory.tokens.caps import upper_cap
from resonance_theory.tokens.signals import log_tilt
from resonance_theory.typing import ArrayLike, Floats

__all__ = ["planted"]


def _kinks(d: int, n: int) -> Floats:
    """Affinities (as artanh) where hit or h is not smooth to order 12: plus and minus 1/sqrt(k), 2 <= k <= n.

    There k affinities can just be equal, and hit behaves like |1 - k a^2|^((d + k - 4)/2) on one side.
    """
    k = np.arange(2, min(n, 28 - d) + 1)
    y = np.arctanh(1 / np.sqrt(k))
    return np.sort(np.concatenate([-y, y]))


@functools.lru_cache(maxsize=256)
def _gauss(count: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [0, 1]; SciPy's take count^2 operations, NumPy's count^3."""
    x, w = special.roots_legendre(count)
    return 0.5 * (1 + x), 0.5 * w


def _nodes(theta: float, d: int, n: int, nodes: int) -> tuple[Floats, Floats, Floats]:
    """y = artanh(affinity), log of its unnormalised density, and quadrature weight without the density."""
    nu = d - 1

    def log_f(y: Floats) -> Floats:
        decay = theta * np.exp(-log_cosh(np.maximum(y, 0.0)))
        return -nu * log_cosh(y) - 0.5 * decay**2 + log_tilt(theta * np.tanh(y), float(d))

    def log_fq(y: Floats) -> Floats:
        q = upper_cap(np.tanh(np.abs(y)), np.array(float(d)), np.exp(-2 * log_cosh(y)))
        return log_f(y) + np.log(np.maximum(np.where(y >= 0, q, 1 - q), 1e-300))

    far = 46.0 / nu + 2.0
    ends = np.array([[-far]]), np.array([[far + np.log1p(theta)]])
    # Failures come from low affinities: keep what matters to E q (hence to P(miss) <= (experts - 1) E q) as well.
    # As q falls with the affinity, this end lies below the one for the density alone.
    left = float(support(log_fq, *ends)[0][0, 0])
    right = float(support(log_f, *ends)[1][0, 0])
    cuts = _kinks(d, n)
    cuts = np.concatenate([[left], cuts[(cuts > left) & (cuts < right)], [right]])
    if cuts.size == 2:
        # Analytic and negligible at both ends: equal steps converge geometrically.
        y = left + (right - left) * (np.arange(nodes) + 0.5) / nodes
        return y, log_f(y), np.ones(nodes)
    # Between two kinks the map 3t^2 - 2t^3 turns half-integer powers at the ends into analytic functions of t.
    pieces = cuts.size - 1
    share = np.diff(cuts) / (right - left) * 0.5 + 0.5 / pieces
    bounds = np.rint(nodes * np.concatenate([[0.0], np.cumsum(share)])).astype(int)
    bounds[-1] = nodes
    y, weight = np.empty(nodes), np.empty(nodes)
    for i in range(pieces):
        part = slice(bounds[i], bounds[i + 1])
        t, w = _gauss(int(bounds[i + 1] - bounds[i]))
        y[part] = cuts[i] + (cuts[i + 1] - cuts[i]) * t * t * (3 - 2 * t)
        weight[part] = w * t * (1 - t) * (cuts[i + 1] - cuts[i])
    return y, log_f(y), weight


def planted(
    signal: ArrayLike,
    dim: ArrayLike,
    experts: ArrayLike,
    *,
    top: ArrayLike = 1,
    nodes: int | None = None,
    capacity: int | None = None,
) -> Rates:
    """Rates of planted tokens: joint nodes of affinity, hit, false-positive rate and candidate tail. Claim: planted_law.

    Args:
        signal: theta / sigma >= 0.
        dim: dimension of the tokens, at least 2.
        experts: orthonormal gates, 1..dim.
        top: experts that each token chooses, 1..experts; all four broadcast to a shape.
        nodes: nodes on the last axis of every field, at least 64; 1024 unless given, or as `capacity` asks.
        capacity: largest capacity at which rates are to be exact; takes at least 128 sqrt(capacity) nodes, up to 16,384.

    Returns:
        `Rates` whose weight sums to 1 over the nodes. Their averages agree with `hit_rate` and `false_positive` within 1e-12.
        A rule's P(Bin(tokens - 1, h) < capacity) is a step in h of relative width 1/sqrt(capacity), which the nodes must
        resolve: 1024 give 1e-12 for capacities up to 64 (at 500 up to 1e-10, in dim <= 26 up to 1e-4); with `capacity`
        1e-12 up to 16,384 and 1e-10 near 2^20 (in dim <= 26: 1e-4).

    Raises:
        TypeError, ValueError: outside the ranges above.

    >>> import resonance_theory as rt
    >>> rates = rt.Rates.planted(signal=2.5, dim=64, experts=8)
    >>> for rule in (rt.token_choice, rt.resonance, rt.expert_choice):
    ...     print(f"{rule.success(256, 12, rates):.6f}")
    0.313199
    0.758159
    0.780049
    """
    if nodes is None:
        most = arguments.whole("capacity", 64 if capacity is None else capacity, 1)
        count = min(max(2 ** math.ceil(math.log2(128 * math.sqrt(most))), 1024), 2**14)
    else:
        count = arguments.whole("nodes", nodes, 64)
    d_ = dimension(dim)
    n_ = arguments.integer("experts", experts, 1, d_, "dim")
    k_ = arguments.integer("top", top, 1, n_, "experts")
    theta_ = signal_value(signal)
    arguments.same_shapes(signal=theta_.shape, dim=d_.shape, experts=n_.shape, top=k_.shape)
    theta, d, n, k = np.broadcast_arrays(theta_, d_, n_, k_)
    shape = (*theta.shape, count)
    affinity, square, weight = np.empty(shape), np.empty(shape), np.empty(shape)
    for index in np.ndindex(theta.shape):
        y, log_f, w = _nodes(float(theta[index]), int(d[index]), int(n[index]), count)
        mass = w * np.exp(log_f - log_f.max())
        affinity[index] = np.tanh(y)
        square[index] = np.cosh(y) ** -2.0  # 1 - affinity^2, which rounding of the affinity would lose near 1
        weight[index] = mass / mass.sum()
    d, n, k = (np.broadcast_to(v[..., None], shape) for v in (d, n, k))
    q = upper_cap(np.abs(affinity), d.astype(np.float64), square)
    q = np.where(affinity >= 0, q, 1 - q)
    tail = candidate_tail_at(*(np.ravel(v) for v in (affinity, d, n, k, q)))
    one = theta_.ndim == d_.ndim == n_.ndim == k_.ndim == 0
    return Rates(
        experts=n_,
        top=top,
        affinity=affinity,
        weight=weight,
        hit=hit_given_affinity(affinity, d, n, top=k),
        false_positive=q,
        candidate_tail=tail.reshape(shape),
        candidates=affinities(float(theta_), int(d_), int(n_), int(k_)) if one and k_ < n_ else None,
    )
