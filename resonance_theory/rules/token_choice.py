"""Token choice (TCR): each token goes to its Top-l experts; an expert keeps its first C candidates in position order.

The exact law takes O(1) per evaluation (N1): with π = top/experts and N ~ Bin(s-1, π),

    P = p E min(1, C/(N+1)):  success = hit x kept fraction.

Broadcasting. All parameters broadcast as in a NumPy ufunc. With `weight`, a law over the last axis (of experts, of
discriminative affinities, or of both flattened), `hit` and `load` carry that axis and results are averages over it;
tokens, experts, capacity and top then broadcast with the remaining axes.

Accuracy. 1e-12 relative against 50-digit references for 1 <= s <= 10^9, 1 <= n <= 10^6, 1 <= C <= s, down to 1e-300;
logarithms beyond. `load` and `hit` are taken as exact doubles; top/experts is carried as an exact quotient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.select import Assignment, keep_first, read, top_experts

__all__ = [
    "bounds",
    "failure",
    "kept",
    "least_capacity",
    "log_failure",
    "log_success",
    "route",
    "success",
]

Floats = NDArray[np.float64]


def route(affinity: Any, capacity: int, *, top: int = 1) -> Assignment:
    """Route by token choice (ETR eq. 5 and section 2: the first C candidates of each expert are kept).

    affinity: (tokens, experts) or (samples, tokens, experts), finite floats of any array-API library; capacity: tokens
    an expert may keep per sample, 1..tokens; top: experts per token, 1..experts. Ties go to the lower expert index.
    Returns an `Assignment` of the same library. Raises ValueError or TypeError naming the argument.
    """
    scores = read(affinity, capacity, top)
    return keep_first(scores, top_experts(scores))


def load_threshold(experts: ArrayLike, top: ArrayLike, load: ArrayLike | None) -> Threshold:
    """π as an exact quotient top/experts, or the given load as an exact double."""
    n = arguments.integer("experts", experts, 1, 2**52)
    k = arguments.integer("top", top, 1, n, "experts")
    if load is None:
        return Threshold.ratio(k, n)
    return Threshold.of(arguments.probability("load", load))


def _logs(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    hit: ArrayLike,
    top: ArrayLike,
    load: ArrayLike | None,
    weight: ArrayLike | None,
) -> _law.Logs:
    s, c = _law.sizes(tokens, capacity)
    p = arguments.probability("hit", hit)
    at = load_threshold(experts, top, load)
    if weight is not None:
        s, c = _law.expand(s, weight), _law.expand(c, weight)
        if load is None:
            at = Threshold(*(_law.expand(part, weight) for part in at))
    return _law.average(_law.with_hit(p, _law.kept_fraction(s, c, at)), weight)


@arguments.broadcasting
def log_success(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """Natural logarithm of `success`; no underflow."""
    return _logs(tokens, experts, capacity, hit, top, load, weight).success


@arguments.broadcasting
def success(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """Training success rate: the probability that the discriminative token is processed by its expert (N1).

    tokens s, experts n, capacity C <= s, top l <= n: whole numbers; hit p: probability that the token's expert is among
    its Top-l; load π: probability that another token is a candidate of the expert, top/experts unless given; weight:
    a law over the last axis. Returns probabilities in [0, 1]. Raises ValueError or TypeError naming the argument.
    """
    return np.exp(log_success(tokens, experts, capacity, hit=hit, top=top, load=load, weight=weight))


@arguments.broadcasting
def log_failure(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """Natural logarithm of `failure`; no underflow, no cancellation."""
    return _logs(tokens, experts, capacity, hit, top, load, weight).failure


@arguments.broadcasting
def failure(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Floats:
    """1 - success without cancellation: (1 - hit) + hit E(N_s - C)_+/(πs). Parameters as in `success`."""
    return np.exp(log_failure(tokens, experts, capacity, hit=hit, top=top, load=load, weight=weight))


@arguments.broadcasting
def kept(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
) -> Floats:
    """Expected tokens that one expert keeps, E min(N_s, C), N_s ~ Bin(s, π) (N3); in [0, min(C, πs)]. The same for
    resonance, whose loads are identical."""
    s, c = _law.sizes(tokens, capacity)
    at = load_threshold(experts, top, load)
    return s * at.p * np.exp(_law.kept_fraction(s, c, at).success)


@arguments.broadcasting
def bounds(
    tokens: ArrayLike,
    experts: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    kind: str = "sharp",
) -> tuple[Floats, Floats]:
    """Bounds (lower, upper) of `success`.

    kind "sharp": N2 below (clipped at 0), Jensen's hit x min(1, C/(πs)) above. "poisson": the Poisson bound below
    (N2'), Jensen above. "published": C hit/(5πs) and 10 C hit/(πs), as ETR Theorem 5 (eq. 11) prints them, unclipped;
    the lower one is false where it exceeds the sharp upper one, always so if C > 5πs.
    """
    arguments.choice("kind", kind, ("sharp", "poisson", "published"))
    s, c = _law.sizes(tokens, capacity)
    p = arguments.probability("hit", hit)
    at = load_threshold(experts, top, load)
    if weight is not None:
        s, c = _law.expand(s, weight), _law.expand(c, weight)
        if load is None:
            at = Threshold(*(_law.expand(part, weight) for part in at))
    pi = np.maximum(at.p, np.finfo(np.float64).tiny)
    share = c / (pi * s)
    if kind == "published":
        low, high = share / 5, share * 10
    else:
        high = np.minimum(1.0, share)
        if kind == "sharp":
            # (C/π + s - sqrt(v + (C/π - s)²))/(2s), v = C(1-π)/π², multiplied out so that nothing cancels:
            # the numerator's product with its conjugate is 4sC/π - v
            spread = np.sqrt(c * at.q + (c - pi * s) ** 2)
            low = np.maximum((4 * s * c * pi - c * at.q) / (2 * pi * s * (c + pi * s + spread)), 0.0)
        else:
            from scipy.special import gammainc, gammaincc

            # P(Poi(λ) <= C-1) = Q(C, λ), P(Poi(λ) >= C+1) = P(C+1, λ)
            low = gammaincc(c, pi * s) + share * gammainc(c + 1.0, pi * s)
    low, high = np.broadcast_arrays(p * low, p * high)
    if weight is None:
        return low, high
    w = arguments.distribution("weight", weight)
    return (w * low).sum(axis=-1), (w * high).sum(axis=-1)


@arguments.broadcasting
def least_capacity(
    target: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    *,
    hit: ArrayLike = 1.0,
    top: ArrayLike = 1,
    load: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Least capacity with success >= target in (0, 1]; exact and minimal (N9). Parameters as in `success`.

    Raises ValueError, naming the best rate, where no capacity up to `tokens` reaches the target.
    """
    s = arguments.integer("tokens", tokens, 1, 2**52)

    def logs(c: NDArray[np.int64]) -> _law.Logs:
        return _logs(tokens, experts, c, hit, top, load, weight)

    shape = logs(np.ones((), dtype=np.int64)).success.shape
    return _law.least_capacity(logs, s, shape, target)
