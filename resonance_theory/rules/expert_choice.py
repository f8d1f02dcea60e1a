"""Expert choice (ECR): each expert takes the C tokens of highest affinity among all s tokens.

At a fixed, tie-free affinity a of the discriminative token its success rate is F(q) = P(Bin(s-1, q) <= C-1) with the
false-positive rate q(a) = P(another token's affinity >= a). With a random affinity average F(q(a)), never q: that is
what `weight` is for (a law over the last axis of `false_positive`; tokens and capacity broadcast with the other axes).

Accuracy: 1e-12 relative against 50-digit references for s up to 10^9, down to 1e-300; logarithms beyond.
`false_positive` is taken as an exact double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.select import Assignment, best_tokens, read

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


def route(affinity: Any, capacity: int) -> Assignment:
    """Route by expert choice (Zhou et al. 2022): every expert keeps its C tokens of highest affinity.

    affinity: (tokens, experts) or (samples, tokens, experts), finite floats of any array-API library; capacity: tokens
    an expert may keep per sample, 1..tokens. Ties go to the earlier position. Returns an `Assignment` of that library.
    """
    return best_tokens(read(affinity, capacity))


def _logs(tokens: ArrayLike, capacity: ArrayLike, false_positive: ArrayLike, weight: ArrayLike | None) -> _law.Logs:
    s, c = _law.sizes(tokens, capacity)
    q = arguments.probability("false_positive", false_positive)
    return _law.average(_law.has_place(_law.expand(s, weight), _law.expand(c, weight), Threshold.of(q)), weight)


@arguments.broadcasting
def log_success(
    tokens: ArrayLike, capacity: ArrayLike, *, false_positive: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """Natural logarithm of `success`; no underflow."""
    return _logs(tokens, capacity, false_positive, weight).success


@arguments.broadcasting
def success(
    tokens: ArrayLike, capacity: ArrayLike, *, false_positive: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """Training success rate P(Bin(s-1, q) <= C-1), averaged over `weight` if given (ETR section 4, exact form).

    tokens s, capacity C <= s: whole numbers; false_positive q in [0, 1]. Returns probabilities in [0, 1].
    Raises ValueError or TypeError naming the argument.
    """
    return np.exp(log_success(tokens, capacity, false_positive=false_positive, weight=weight))


@arguments.broadcasting
def log_failure(
    tokens: ArrayLike, capacity: ArrayLike, *, false_positive: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """Natural logarithm of `failure`; no underflow, no cancellation."""
    return _logs(tokens, capacity, false_positive, weight).failure


@arguments.broadcasting
def failure(
    tokens: ArrayLike, capacity: ArrayLike, *, false_positive: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """P(Bin(s-1, q) >= C), the complement of `success` without cancellation."""
    return np.exp(log_failure(tokens, capacity, false_positive=false_positive, weight=weight))


@arguments.broadcasting
def kept(tokens: ArrayLike, capacity: ArrayLike) -> Floats:
    """Tokens that one expert keeps: exactly C, always."""
    s, c = _law.sizes(tokens, capacity)
    return np.broadcast_arrays(c, s)[0].astype(np.float64)


@arguments.broadcasting
def bounds(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    false_positive: ArrayLike,
    weight: ArrayLike | None = None,
    kind: str = "sharp",
) -> tuple[Floats, Floats]:
    """Bounds (lower, upper) of `success`; 0 and 1 where a bound says nothing.

    kind "sharp": Zubkov and Serov's normal bounds, for every capacity. "chernoff": KL rates, one side of the mean each.
    "published": 1 - exp(-3C/16) if C >= 2(s-1)q, and exp(-(s-1)q/8) if C <= (s-1)q/2 (ETR Theorem 5, eq. 12).
    """
    arguments.choice("kind", kind, ("sharp", "chernoff", "published"))
    s, c = _law.sizes(tokens, capacity)
    s, c = _law.expand(s, weight), _law.expand(c, weight)
    q = arguments.probability("false_positive", false_positive)
    if kind == "sharp":
        low, high = _law.zubkov_serov(s, c, q)
    elif kind == "chernoff":
        low, high = _law.chernoff(s, c, q)
    else:
        mean = (s - 1) * q
        low = np.where(c >= 2 * mean, -np.expm1(-3 * c / 16), 0.0)
        high = np.where(c <= mean / 2, np.exp(-mean / 8), 1.0)
    if weight is None:
        return low, high
    w = arguments.distribution("weight", weight)
    return (w * low).sum(axis=-1), (w * high).sum(axis=-1)


@arguments.broadcasting
def least_capacity(
    target: ArrayLike, tokens: ArrayLike, *, false_positive: ArrayLike, weight: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Least capacity with success >= target in (0, 1]; exact and minimal. Parameters as in `success`."""
    s = arguments.integer("tokens", tokens, 1, 2**52)

    def logs(c: NDArray[np.int64]) -> _law.Logs:
        return _logs(tokens, c, false_positive, weight)

    shape = logs(np.ones((), dtype=np.int64)).success.shape
    return _law.least_capacity(logs, s, shape, target)
