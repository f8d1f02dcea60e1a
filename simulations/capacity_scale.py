"""The capacity law at scale: at the least capacity C*(τ) that each rule's exact law names, the measured success.

The sampler is that of `_success`. For every setting and every target τ of the hit rate, the capacities C* of the
three rules are computed from the exact laws, all tokens are routed at each of them, and every rate is compared with the
law. The wrong laws to reject are those of `_success.laws`, save that of one slot more: it differs by less than 1/C*.
"""

from __future__ import annotations

from typing import Any

from resonance_theory.evidence.studies.study import Case
from resonance_theory.tokens.samplers import Planted
from simulations import _success
from simulations._rules import RULES
from simulations._sampling import BACKENDS
from simulations._success import sample

__all__ = ["BACKENDS", "cases", "least"]


def least(s: int, d: int, n: int, signal: float, target: float) -> dict[str, int]:
    """C* of each rule for a success rate of target times the hit rate."""
    rates = Planted(signal, d, n).rates(capacity=s)
    return {name: int(rule.least_capacity(target * rates.hit_rate, s, rates)) for name, rule in RULES.items()}


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for row in settings["grid"]:
        s, d, n, signal = row["tokens"], row["dim"], row["experts"], row["signal"]
        capacities = sorted({c for target in row["targets"] for c in least(s, d, n, signal, target).values()})
        right, mutants = _success.laws(s, d, n, signal, 1, capacities)
        wrong = {name: _success.by_key(rates, capacities) for name, rates in mutants.items() if "slot" not in name}
        size = {"tokens": s, "dim": d, "experts": n, "signal": signal, "capacities": capacities}
        label = _success.label(s, d, n, signal)
        result.append(Case(label, sample, size, _success.by_key(right, capacities), wrong))
    return result
