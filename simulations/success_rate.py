"""Success rates of the three routing rules: planted tokens through the real router, against the exact laws.

Each trial is one sample: s tokens, one of them discriminative, routed by `rules.*.route` at several capacities. The
tokens are drawn in two ways that must agree: as d-dimensional vectors through the extractor ("vectors"), and as gate
projections with a chi-square residual ("projections"), whose cost does not depend on d. Laws: N1, section 3, N4, G5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import sphere, tokens
from resonance_theory.extractor import affinity
from resonance_theory.montecarlo.study import Case
from resonance_theory.rules import expert_choice, resonance, token_choice

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
) -> dict[str, int]:
    """Successes by rule and capacity: the discriminative token is processed by the expert of its class."""
    width = dim if sampler == "vectors" else experts
    step = max(1, _CHUNK // (tokens_per_sample * width))
    counts: dict[str, int] = {}
    for start in range(0, trials, step):
        size = (min(step, trials - start), tokens_per_sample, dim, experts, signal)
        if sampler == "vectors":
            drawn = tokens.planted(rng, *size)
            scores = affinity(drawn.values, experts)
        else:
            drawn = tokens.planted_affinity(rng, *size)
            scores = drawn.values
        for capacity in capacities:
            for rule in (token_choice, expert_choice, resonance):
                kept = rule.route(scores, capacity).contains(drawn.position, drawn.expert)
                key = f"{rule.__name__.rpartition('.')[2]} C={capacity}"
                counts[key] = counts.get(key, 0) + int(np.count_nonzero(kept))
    return counts


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for sampler, s, d, n, signal, capacities in settings["grid"]:
        law = sphere.planted(signal, d, n)
        hit = float(law.weight @ law.hit)
        laws: dict[str, float] = {}
        wrong: dict[str, dict[str, float]] = {
            "token choice without misses": {},
            "expert choice at the mean false-positive rate": {},
            "resonance with hit and affinity independent": {},
        }
        ignored, averaged, independent = wrong.values()
        for c in capacities:
            tcr, ecr, res = (f"{rule} C={c}" for rule in ("token_choice", "expert_choice", "resonance"))
            laws[tcr] = float(token_choice.success(s, n, c, hit=hit))
            laws[ecr] = float(expert_choice.success(s, c, false_positive=law.false_positive, weight=law.weight))
            laws[res] = float(
                resonance.success(s, c, hit=law.hit, candidate_tail=law.candidate_tail, weight=law.weight)
            )
            ignored[tcr] = float(token_choice.success(s, n, c))
            averaged[ecr] = float(expert_choice.success(s, c, false_positive=float(law.weight @ law.false_positive)))
            place = resonance.success(s, c, hit=1.0, candidate_tail=law.candidate_tail, weight=law.weight)
            independent[res] = hit * float(place)
        parameters = {
            "sampler": sampler,
            "tokens_per_sample": s,
            "dim": d,
            "experts": n,
            "signal": signal,
            "capacities": capacities,
        }
        label = f"s={s} n={n} d={d} θ={signal:g} {sampler}"
        result.append(Case(label, sample, parameters, laws, wrong))
    return result
