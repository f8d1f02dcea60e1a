"""Success rates of the three routing rules: planted tokens through the real router, against the exact laws.

Each trial is one sample: s tokens, one of them discriminative, routed by `rules.*.route`. The tokens are drawn in two
ways that must agree: as d-dimensional vectors through the extractor ("vectors"), and as gate projections with a
chi-square residual ("projections"), whose cost does not depend on d. Laws: N1, section 3, N4, G5.

Wrong laws that the same numbers must reject: one slot more, or no misses (token choice); the mean false-positive rate
in place of its law (expert choice); the mean candidate tail, or hit and affinity taken as independent (resonance).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import samplers

_CHUNK = 1 << 21  # numbers drawn at a time


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    sampler: str,
    tokens_per_sample: int,
    dim: int,
    experts: int,
    signal: float,
    capacities: list[int],
    top: int = 1,
) -> dict[str, int]:
    """Successes by rule and capacity: the discriminative token is processed by the expert of its class."""
    width = dim if sampler == "vectors" else experts
    step = max(1, _CHUNK // (tokens_per_sample * width))
    counts: dict[str, int] = {}
    for start in range(0, trials, step):
        size = (min(step, trials - start), tokens_per_sample, dim, experts, signal)
        if sampler == "vectors":
            drawn = samplers.planted(rng, *size)
            scores = affinity(drawn.values, experts)
        else:
            drawn = samplers.planted_affinity(rng, *size)
            scores = drawn.values
        largest = max(capacities)
        for rule, routed in (
            ("token_choice", token_choice.route(scores, largest, top=top)),
            ("expert_choice", expert_choice.route(scores, largest)),
            ("resonance", resonance.route(scores, largest, top=top)),
        ):
            at = routed.sample
            mine = (routed.token == drawn.position[at]) & (routed.expert == drawn.expert[at])
            # An expert's slots run in its order of preference: a smaller capacity keeps the slots below it.
            slot = routed.slot[mine]
            for capacity in capacities:
                key = f"{rule} C={capacity}"
                counts[key] = counts.get(key, 0) + int(np.count_nonzero(slot < capacity))
    return counts


def laws(
    s: int, d: int, n: int, signal: float, top: int, capacities: list[int]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Success rate of each rule over the capacities, {rule: array}, and the wrong laws, {name: {rule: array}}."""
    law = samplers.Planted(signal, d, n).law(top=top, capacity=max(capacities))
    hit = float(law.weight @ law.hit)
    q, h = float(law.weight @ law.false_positive), float(law.weight @ law.candidate_tail)
    c = np.asarray(capacities)
    joint = {"candidate_tail": law.candidate_tail, "weight": law.weight}
    exact = {
        "token_choice": token_choice.success(s, n, c, hit=hit, top=top),
        "expert_choice": expert_choice.success(s, c, false_positive=law.false_positive, weight=law.weight),
        "resonance": resonance.success(s, c, hit=law.hit, **joint),
    }
    wrong = {
        "token choice with one slot more": {
            "token_choice": token_choice.success(s, n, np.minimum(c + 1, s), hit=hit, top=top)
        },
        "token choice without misses": {"token_choice": token_choice.success(s, n, c, top=top)},
        "expert choice at the mean false-positive rate": {
            "expert_choice": expert_choice.success(s, c, false_positive=q)
        },
        "resonance at the mean candidate tail": {"resonance": resonance.success(s, c, hit=hit, candidate_tail=h)},
        "resonance with hit and affinity independent": {"resonance": hit * resonance.success(s, c, hit=1.0, **joint)},
    }
    return exact, wrong


def by_key(rates: dict[str, Any], capacities: list[int]) -> dict[str, float]:
    """Rates of arrays over the capacities, one key each as the samplers count them."""
    return {f"{rule} C={c}": float(rate) for rule, array in rates.items() for c, rate in zip(capacities, array)}


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for row in settings["grid"]:
        s, d, n, signal, top = row["tokens"], row["dim"], row["experts"], row["signal"], row.get("top", 1)
        capacities = row["capacities"]
        right, mutants = laws(s, d, n, signal, top, capacities)
        exact = by_key(right, capacities)
        wrong = {name: by_key(rates, capacities) for name, rates in mutants.items()}
        for sampler in row["samplers"]:
            parameters = {
                "sampler": sampler,
                "tokens_per_sample": s,
                "dim": d,
                "experts": n,
                "signal": signal,
                "capacities": capacities,
                "top": top,
            }
            label = f"s={s} n={n} d={d} θ={signal:g}{f' ℓ={top}' if top > 1 else ''} {sampler}"
            result.append(Case(label, sample, parameters, exact, wrong))
    return result
