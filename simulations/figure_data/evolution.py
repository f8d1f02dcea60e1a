"""Evolving tokens: least capacities along a flow from isotropy to clusters, and the rules' success on two flows (V1).

Planted flow: isotropic background, class means on the gates. Flow off the gates: class means mostly outside their span.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens.evolving import Evolving
from resonance_theory.tokens.gaussian import Law

TARGET, LONG, TOKENS, CAPACITY = 0.95, 4096, 256, 16
PLANTED = Evolving(64, 8, signal=4.0, rate=0.5, noise=1.0, start=2.0)
OFF = Evolving(64, 8, signal=3.0, rate=0.5, noise=1.0, start=1.0, off=20.0)
TIMES = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.5, 7.5, 10.0])


def compute() -> dict[str, Any]:
    planted = [PLANTED.law(float(time), nodes=1600) for time in TIMES]
    least = []
    for law in planted:
        joint = {"hit": law.hit, "candidate_tail": law.candidate_tail, "weight": law.weight}
        least.append(int(resonance.least_capacity(TARGET * float(law.weight @ law.hit), LONG, **joint)))
    other = int(token_choice.least_capacity(TARGET, LONG, PLANTED.experts))  # at any hit rate
    return {
        "target": TARGET,
        "dim": PLANTED.dim,
        "experts": PLANTED.experts,
        "time": TIMES,
        "least_tokens": LONG,
        "least_resonance": least,
        "least_token_choice": other,
        "saving": 1 - np.array(least) / other,
        "tokens": TOKENS,
        "capacity": CAPACITY,
        "planted": _rates(planted, PLANTED.experts),
        "off": _rates([OFF.law(float(time)) for time in TIMES], OFF.experts),
    }


def _rates(laws: list[Law], experts: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"token_choice": [], "expert_choice": [], "resonance": [], "hit": []}
    for law in laws:
        hit, tail = {"hit": law.hit, "weight": law.weight}, law.candidate_tail
        q = law.false_positive
        rates["token_choice"].append(float(token_choice.success(TOKENS, experts, CAPACITY, **hit)))
        rates["expert_choice"].append(
            float(expert_choice.success(TOKENS, CAPACITY, false_positive=q, weight=law.weight))
        )
        rates["resonance"].append(float(resonance.success(TOKENS, CAPACITY, candidate_tail=tail, **hit)))
        rates["hit"].append(float(law.weight @ law.hit))
    return rates
