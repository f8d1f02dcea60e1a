"""Capacity that resonance saves against token choice at the same success rate, over the affinity percentile.

At a fixed percentile, for several lengths and in the limit; and for planted tokens, whose percentile is random, with the
limits that its τ-quantile and its mean would give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import resonance, token_choice
from resonance_theory.tokens import Rates

TARGET, EXPERTS = 0.95, 8


def compute() -> dict[str, Any]:
    percentile = np.linspace(0.0, 1.0, 101)
    lengths = np.array([256, 4096, 65536])
    others = token_choice.least_capacity(TARGET, lengths, Rates(experts=EXPERTS))
    least = resonance.least_capacity(TARGET, lengths[:, None], Rates(candidate_tail=percentile / EXPERTS))
    return {
        "target": TARGET,
        "experts": EXPERTS,
        "percentile": percentile,
        "limit": 1 - percentile / TARGET,
        "tokens": lengths,
        "saving": 1 - least / others[:, None],
        "planted": [_planted(signal) for signal in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)],
    }


def _planted(signal: float) -> dict[str, float]:
    """Planted tokens, d = 64, s = 4096: exact saving, and what the quantile and the mean of the percentile promise."""
    s, dim = 4096, 64
    rates = Rates.planted(signal, dim, EXPERTS, nodes=4096)
    hit = float(rates.hit_rate)
    least = int(resonance.least_capacity(TARGET * hit, s, rates))
    given, rho = rates.rate("weight") * rates.rate("hit") / hit, rates.tail * EXPERTS
    order = np.argsort(rho)
    quantile = float(np.interp(TARGET, np.cumsum(given[order]), rho[order]))
    return {
        "signal": signal,
        "mean": float(given @ rho),
        "quantile": quantile,
        "saving": 1 - least / int(token_choice.least_capacity(TARGET, s, Rates(experts=EXPERTS))),
    }
