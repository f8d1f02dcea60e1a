"""Cosines of kept tokens with gates, as coins: heads with probability (1 + cosine/scale)/2, so that a mean is a rate.

The scale spreads cosines with so many standard deviations, 1/sqrt(dim) each, over [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat
from scipy.optimize import brentq

from resonance_theory import homogenization
from resonance_theory.rules.select import Assignment
from resonance_theory.tokens import candidates


def scale(dim: int, deviations: float) -> float:
    return min(1.0, deviations / math.sqrt(dim))


def heads(cosine: float, dim: int, deviations: float) -> float:
    """Probability of heads for cosines of this mean."""
    return (1 + cosine / scale(dim, deviations)) / 2


def laws(
    dim: int, experts: int, fractions: list[float], deviations: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Thresholds h(a) = f/n that keep the fractions f of isotropic candidates, and the rates of `winning_and_losing`."""
    thresholds, rates = dict[str, float](), dict[str, float]()
    for f in fractions:
        name, least = f"f={f:g}", -1.0  # which no affinity is below
        if f < 1:
            least = brentq(
                lambda a, f=f: float(candidates.candidate_tail(a, dim, experts)) * experts - f, -0.99, 0.9999
            )
        thresholds[name] = float(least)
        winner, loser = homogenization.kept_means(dim, experts, f, select="cosine")
        rates[f"winning {name}"] = heads(f * float(winner), dim, deviations)
        rates[f"losing {name}"] = heads(f * float(loser) * math.sqrt(experts - 1), dim, deviations)
    return thresholds, rates


def winning_and_losing(
    scores: Any, routed: Assignment, thresholds: Mapping[str, float], toss: Callable[[Any], int]
) -> dict[str, int]:
    """Heads of each token's cosine with its expert's gate, and with all others together; 0 below each threshold."""
    xp = array_api_compat.array_namespace(scores)
    top = scores[routed.token, routed.expert]
    # one losing gate's mean is lost in its noise when there are many: all of them together, at their own size
    rest = (xp.sum(scores[routed.token, :], axis=1) - top) / math.sqrt(scores.shape[1] - 1)
    return {
        f"{key} {name}": toss(xp.where(top >= least, cosine, xp.zeros_like(top)))
        for name, least in thresholds.items()
        for key, cosine in (("winning", top), ("losing", rest))
    }
