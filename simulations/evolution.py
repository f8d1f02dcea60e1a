"""Evolving tokens through the extractor and the routers at several times, against the exact laws.

Each trial is one sample that flows from its start by exact Ornstein-Uhlenbeck transitions and is routed at one time: as
vectors through GrAP gates ("vectors", the time reached in three steps), or as gate projections ("projections"). Scenes:
isotropic background; a common mean that skews the loads; clusters at the gates; class tokens that start off the gates.

Wrong laws that the same numbers must reject: the law at the end of the flow, the law of a background without its mean,
and token choice with uniform loads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import token_choice
from resonance_theory.tokens.evolving import Evolving
from simulations._rules import RULES, route, success
from simulations._sampling import chunks

_CHUNK = 1 << 21  # numbers drawn at a time


def sample(
    rng: np.random.Generator, trials: int, *, sampler: str, tokens: int, time: float, capacity: int, **model: Any
) -> dict[str, int]:
    """Successes by rule, and background tokens whose best expert is the first one (one token per sample)."""
    flow = Evolving(**model)
    counts = dict.fromkeys((*RULES, "first expert"), 0)
    for size in chunks(trials, tokens * flow.dim, _CHUNK):
        if sampler == "vectors":
            drawn = flow.sample(rng, size, tokens, [time / 3, time / 2, time])
            scores = affinity(drawn.values[-1], flow.experts)
        else:
            drawn = flow.affinity(rng, size, tokens, time)
            scores = drawn.values
        for rule in RULES:
            kept = route(rule, scores, capacity).contains(drawn.position, drawn.expert)
            counts[rule] += int(np.count_nonzero(kept))
        other = scores[np.arange(size), (drawn.position + 1) % tokens]
        counts["first expert"] += int(np.count_nonzero(other.argmax(axis=-1) == 0))
    return counts


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for scene in settings["scenes"]:
        model = dict(scene["model"])
        flow = Evolving(**model)
        s, capacity, n = scene["tokens"], scene["capacity"], flow.experts
        end = success(s, capacity, flow.rates(50.0 / flow.rate))
        plain = replace(flow, background=np.zeros((1, n + 1)), share=np.ones(1), start_mean=np.zeros(n + 1))
        for time in scene["times"]:
            rates = flow.rates(time)
            exact = {**success(s, capacity, rates), "first expert": float(flow.load(time)[0])}
            uniform = token_choice.success(s, capacity, rates.replace(load=None))
            mutants = {
                "the law at the end of the flow": end,
                "a background without its mean": {**success(s, capacity, plain.rates(time)), "first expert": 1 / n},
                "token choice with uniform loads": {"token_choice": uniform},
            }
            for sampler in scene["samplers"]:
                parameters = {"sampler": sampler, "tokens": s, "time": time, "capacity": capacity, **model}
                result.append(Case(f"{scene['name']} t={time:g} {sampler}", sample, parameters, exact, mutants))
    return result
