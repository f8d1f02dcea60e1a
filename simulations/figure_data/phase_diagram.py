"""Success of the three rules over the false-positive rate and the capacity, and where the order of two rules changes.

A discriminative token of one fixed affinity a, among isotropic tokens and orthonormal gates: q = q(a) and h = h(a), so
one coordinate stands for both; it hits its expert with one probability. Crossovers with token choice are quantiles of
Beta(C, s - C); that of resonance with expert choice, p F(h) = F(q), is found numerically.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, special

from resonance_theory.rules import Rates, expert_choice, resonance, token_choice
from resonance_theory.tokens import candidates, caps, signals

TOKENS, EXPERTS, DIM, SIGNAL = 256, 8, 64, 2.0


def tail(false_positive: Any) -> Any:
    return candidates.candidate_tail(caps.cap_quantile(false_positive, DIM), DIM, EXPERTS)


def compute() -> dict[str, Any]:
    hit = float(signals.hit_rate(SIGNAL, EXPERTS))
    q = np.geomspace(1e-3, 0.5, 49)
    capacity = np.unique(np.geomspace(1, TOKENS // 2, 56).round().astype(int))
    at = Rates(hit=hit, false_positive=q, candidate_tail=tail(q))
    others = token_choice.success(TOKENS, capacity, Rates(experts=EXPERTS, hit=hit))
    lost = {p: token_choice.failure(TOKENS, capacity, Rates(experts=EXPERTS, hit=p)) for p in (1.0, hit)}
    with_expert_choice = special.betaincinv(capacity, TOKENS - capacity, lost[hit])
    quantile = special.betaincinv(capacity, TOKENS - capacity, lost[1.0])  # of h
    return {
        "tokens": TOKENS,
        "experts": EXPERTS,
        "dim": DIM,
        "hit": hit,
        "false_positive": q,
        "capacity": capacity,
        "token_choice": others,
        "expert_choice": expert_choice.success(TOKENS, capacity[:, None], at),
        "resonance": resonance.success(TOKENS, capacity[:, None], at),
        "expert_choice_over_token_choice": with_expert_choice,
        "resonance_over_token_choice": [_invert(h) for h in quantile],
        "resonance_over_expert_choice": [_level(int(c), hit) for c in capacity],
    }


def _invert(h: float) -> float | None:
    """The q <= 1/2 at which h(q) is that; None if none is."""
    if tail(0.5) <= h:
        return None
    return float(np.exp(optimize.brentq(lambda x: float(tail(np.exp(x))) - h, np.log(1e-6), np.log(0.5), xtol=1e-14)))


def _level(capacity: int, hit: float) -> float | None:
    """The q at which resonance, whose misses cost it, overtakes expert choice, whose rivals are more."""

    def lead(x: float) -> float:
        q = float(np.exp(x))
        at = Rates(hit=hit, false_positive=q, candidate_tail=tail(q))
        return float(resonance.success(TOKENS, capacity, at) - expert_choice.success(TOKENS, capacity, at))

    low, high = np.log(1e-6), np.log(0.5)
    return float(np.exp(optimize.brentq(lead, low, high, xtol=1e-14))) if lead(low) < 0 < lead(high) else None
