"""Success rates of the three routing rules: planted tokens through the real router, against the exact laws.

Each trial is one sample: s tokens, one of them discriminative, routed by `rules.*.route`. The tokens are drawn in two
ways that must agree: as d-dimensional vectors through the extractor ("vectors"), and as gate projections with a
chi-square residual ("projections"), whose cost does not depend on d. Claims: token_choice_exact,
expert_choice_exact, resonance_exact.

Wrong laws that the same numbers must reject: one slot more, or no misses (token choice); the mean false-positive rate
in place of its law (expert choice); the mean candidate tail, or hit and affinity taken as independent (resonance).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.tokens import samplers
from simulations import _success
from simulations._rules import RULES, route
from simulations._sampling import chunks

_CHUNK = 1 << 21  # numbers drawn at a time


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    sampler: str,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacities: list[int],
    top: int = 1,
) -> dict[str, int]:
    """Successes by rule and capacity: the discriminative token is processed by the expert of its class."""
    width = dim if sampler == "vectors" else experts
    counts: dict[str, int] = {}
    for samples in chunks(trials, tokens * width, _CHUNK):
        size = (samples, tokens, dim, experts, signal)
        if sampler == "vectors":
            drawn = samplers.planted(rng, *size)
            scores = affinity(drawn.values, experts)
        else:
            drawn = samplers.planted_affinity(rng, *size)
            scores = drawn.values
        for rule in RULES:
            routed = route(rule, scores, max(capacities), top=top)
            at = routed.sample
            mine = (routed.token == drawn.position[at]) & (routed.expert == drawn.expert[at])
            # An expert's slots run in its order of preference: a smaller capacity keeps the slots below it.
            slot = routed.slot[mine]
            for capacity in capacities:
                key = f"{rule} C={capacity}"
                counts[key] = counts.get(key, 0) + int(np.count_nonzero(slot < capacity))
    return counts


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for row in settings["grid"]:
        s, d, n, signal, top = row["tokens"], row["dim"], row["experts"], row["signal"], row.get("top", 1)
        capacities = row["capacities"]
        right, mutants = _success.laws(s, d, n, signal, top, capacities)
        exact = _success.by_key(right, capacities)
        wrong = {name: _success.by_key(rates, capacities) for name, rates in mutants.items()}
        size = {"tokens": s, "dim": d, "experts": n, "signal": signal, "capacities": capacities, "top": top}
        for sampler in row["samplers"]:
            label = f"{_success.label(s, d, n, signal, top)} {sampler}"
            result.append(Case(label, sample, {"sampler": sampler, **size}, exact, wrong))
    return result
