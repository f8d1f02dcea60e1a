"""Evolving tokens: least capacities along a flow from isotropy to clusters, and the rules' success on two flows.

Planted flow: isotropic background, class means on the gates. Flow off the gates: class means mostly outside their span.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import Rates, expert_choice, resonance, token_choice
from resonance_theory.tokens.evolving import Evolving

RULES = (token_choice, expert_choice, resonance)
TARGET, LONG, TOKENS, CAPACITY = 0.95, 4096, 256, 16
PLANTED = Evolving(64, 8, signal=4.0, rate=0.5, noise=1.0, start=2.0)
OFF = Evolving(64, 8, signal=3.0, rate=0.5, noise=1.0, start=1.0, off=20.0)
TIMES = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.5, 7.5, 10.0])


def compute() -> dict[str, Any]:
    planted = [PLANTED.rates(float(time), nodes=1600) for time in TIMES]
    least = [int(resonance.least_capacity(TARGET * rates.hit_rate, LONG, rates)) for rates in planted]
    other = int(token_choice.least_capacity(TARGET, LONG, Rates(experts=PLANTED.experts)))  # at any hit rate
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
        "planted": _success(planted),
        "off": _success([OFF.rates(float(time)) for time in TIMES]),
    }


def _success(flow: list[Rates]) -> dict[str, list[float]]:
    found = {rule.name: [float(rule.success(TOKENS, CAPACITY, rates)) for rates in flow] for rule in RULES}
    return found | {"hit": [float(rates.hit_rate) for rates in flow]}
