"""Experts of unequal loads, exactly: Plackett-Luce scores for the claims whose laws take a load π_i per expert.

A background token scores log w_i + Gumbel with expert i, Σw = 1; so its best expert is i with probability w_i, and its best score
is Gumbel, independent of which. The discriminative token of expert i scores log(w_i e^boost) + Gumbel there; v = e^{-score} is
exponential with rate b = w_i e^boost, and given v

    hit: e^{-(1-w_i) v},   false positive: 1 - e^{-w_i v},   candidate tail: w_i (1 - e^{-v}).

At boost 0 the percentile 1 - e^{-v} given a hit is uniform; at a higher boost it is stochastically smaller.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from resonance_theory.rules import Rates

LOAD = (0.5, 0.3, 0.15, 0.05)
STUDIES = ("success_rate", "router_scale", "planted_training")  # which confront the exact laws of the three rules


def rates(boost: float) -> Rates:
    """Rates on quadrature nodes, flat over (expert, affinity)."""
    node, mass = special.roots_legendre(400)
    t, m = (1 + node) / 2, 10.0  # e^{-bv} is uniform, and t^10: the power smooths the end at 0
    weight = mass / 2 * m * t ** (m - 1)
    w = np.array(LOAD)[:, None]
    v = -m * np.log(t) / (w * np.exp(boost))
    parts = (np.broadcast_to(weight, v.shape) / len(LOAD), np.exp(-(1 - w) * v), -np.expm1(-w * v), -w * np.expm1(-v))
    weight, hit, false_positive, candidate_tail = (part.reshape(-1) for part in parts)
    load = np.broadcast_to(w, v.shape).reshape(-1)
    return Rates(
        weight=weight / weight.sum(), hit=hit, false_positive=false_positive, candidate_tail=candidate_tail, load=load
    )


def hit_rates(boost: float) -> np.ndarray:
    """b/(b + 1 - w_i), each expert's."""
    w = np.array(LOAD)
    return w * np.exp(boost) / (w * np.exp(boost) + 1 - w)


def pair_loads() -> np.ndarray:
    """P(a token has expert i among its best two): the first is i, or j and then i among the rest."""
    w = np.array(LOAD)
    second = w[:, None] * w[None, :] / (1 - w[:, None])
    np.fill_diagonal(second, 0.0)
    return w + second.sum(axis=0)


def sample(
    rng: np.random.Generator, trials: int, tokens: int, boost: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (trials, tokens, experts), and position and expert of the discriminative token."""
    scores = rng.gumbel(size=(trials, tokens, len(LOAD))) + np.log(LOAD)
    position, expert = rng.integers(tokens, size=trials), rng.integers(len(LOAD), size=trials)
    scores[np.arange(trials), position, expert] += boost
    return scores, position, expert
