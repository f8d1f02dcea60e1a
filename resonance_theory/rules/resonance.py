"""Resonance (RES = TCR + ECR): tokens choose their Top-l experts, an expert keeps its C candidates of highest affinity.

Given the discriminative affinity a, the number of better candidates among the s-1 others is Bin(s-1, h(a)) with the
candidate tail h(a) = P(another token is a candidate and its affinity is >= a), so (N4)

    P = E[1_hit F(h(a))],  F(h) = P(Bin(s-1, h) <= C-1).

Hit and affinity are dependent and F is not linear: averages of p, q or h give wrong answers. `weight` is the law of the
affinity over the last axis, `hit` and `candidate_tail` are then functions on its nodes (`rt.tokens.planted.planted` makes all
three); scalars mean a fixed affinity. tokens and capacity broadcast with the other axes.

Accuracy: 1e-12 relative against 50-digit references for s up to 10^9, down to 1e-300; logarithms beyond.
`hit` and `candidate_tail` are taken as exact doubles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law, token_choice
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.select import Assignment, keep_best, read, top_experts

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

kept = token_choice.kept  # identical loads, identical numbers kept (N3); only which tokens differs


def route(affinity: Any, capacity: int, *, top: int = 1) -> Assignment:
    """Route by resonance (ETR eq. 5-6, keeping the highest affinities; eq. 6 prints "Bottom-C").

    affinity: (tokens, experts) or (samples, tokens, experts), finite floats of any array-API library; capacity: tokens
    an expert may keep per sample, 1..tokens; top: experts per token, 1..experts. Ties go to the earlier position, among
    a token's experts to the lower index. Returns an `Assignment` of the same library.
    """
    scores = read(affinity, capacity, top)
    return keep_best(scores, top_experts(scores))


def _logs(
    tokens: ArrayLike, capacity: ArrayLike, hit: ArrayLike, candidate_tail: ArrayLike, weight: ArrayLike | None
) -> _law.Logs:
    s, c = _law.sizes(tokens, capacity)
    p = arguments.probability("hit", hit)
    h = arguments.probability("candidate_tail", candidate_tail)
    place = _law.has_place(_law.expand(s, weight), _law.expand(c, weight), Threshold.of(h))
    return _law.average(_law.with_hit(p, place), weight)


@arguments.broadcasting
def log_success(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """Natural logarithm of `success`; no underflow."""
    return _logs(tokens, capacity, hit, candidate_tail, weight).success


@arguments.broadcasting
def success(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """Training success rate E[1_hit P(Bin(s-1, h) <= C-1)] (N4).

    tokens s, capacity C <= s: whole numbers; hit p and candidate_tail h in [0, 1], on the nodes of the affinity's
    law if `weight` is given. Returns probabilities in [0, 1]. Raises ValueError or TypeError naming the argument.
    """
    return np.exp(log_success(tokens, capacity, hit=hit, candidate_tail=candidate_tail, weight=weight))


@arguments.broadcasting
def log_failure(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """Natural logarithm of `failure`; no underflow, no cancellation."""
    return _logs(tokens, capacity, hit, candidate_tail, weight).failure


@arguments.broadcasting
def failure(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
) -> Floats:
    """1 - success without cancellation: E[(1 - hit) + hit P(Bin(s-1, h) >= C)]."""
    return np.exp(log_failure(tokens, capacity, hit=hit, candidate_tail=candidate_tail, weight=weight))


@arguments.broadcasting
def bounds(
    tokens: ArrayLike,
    capacity: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
    kind: str = "sharp",
) -> tuple[Floats, Floats]:
    """Bounds (lower, upper) of `success`: kind "sharp" (Zubkov and Serov) or "chernoff" (KL rates), times the hit rate.

    None is published for this rule.
    """
    arguments.choice("kind", kind, ("sharp", "chernoff"))
    s, c = _law.sizes(tokens, capacity)
    p = arguments.probability("hit", hit)
    h = arguments.probability("candidate_tail", candidate_tail)
    method = _law.zubkov_serov if kind == "sharp" else _law.chernoff
    low, high = method(_law.expand(s, weight), _law.expand(c, weight), h)
    low, high = np.broadcast_arrays(p * low, p * high)
    if weight is None:
        return low, high
    w = arguments.distribution("weight", weight)
    return (w * low).sum(axis=-1), (w * high).sum(axis=-1)


@arguments.broadcasting
def least_capacity(
    target: ArrayLike,
    tokens: ArrayLike,
    *,
    hit: ArrayLike,
    candidate_tail: ArrayLike,
    weight: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Least capacity with success >= target in (0, 1]; exact and minimal (N9). Parameters as in `success`.

    Raises ValueError, naming the best rate, where no capacity up to `tokens` reaches the target.
    """
    s = arguments.integer("tokens", tokens, 1, 2**52)

    def logs(c: NDArray[np.int64]) -> _law.Logs:
        return _logs(tokens, c, hit, candidate_tail, weight)

    shape = logs(np.ones((), dtype=np.int64)).success.shape
    return _law.least_capacity(logs, s, shape, target)
