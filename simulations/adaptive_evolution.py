"""Adaptive capacity by affinity mass as tokens evolve: what it keeps and what succeeds, against the exact law.

Each trial is one sample of the flow at one time, routed by affinity mass: as vectors through GrAP gates ("vectors") or as gate
projections ("projections"). Counted are the class token's success, and whether the best expert of one background token keeps
it, in a sample of background tokens alone. Scenes: an isotropic background, where the law of what is kept stands still; a
common mean, which skews the loads and moves it; clusters at the gates.

Wrong laws that the same numbers must reject: the limit of many tokens; the fraction τ of candidates, whatever their
affinities; and the law at the first of the times.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.gates import affinity
from resonance_theory.rules import adaptive
from resonance_theory.tokens.evolving import Evolving
from simulations._sampling import chunks

_CHUNK = 1 << 21  # numbers drawn at a time


def sample(
    rng: np.random.Generator, trials: int, *, sampler: str, tokens: int, time: float, mass: float, **model: Any
) -> dict[str, int]:
    """Class tokens that succeed; background tokens (one a sample) that the best of their experts keeps."""
    flow, s = Evolving(**model), tokens
    counts = {"success": 0, "background kept": 0}
    for size in chunks(trials, (s + 1) * flow.dim, _CHUNK):
        row = np.arange(size)
        if sampler == "vectors":
            drawn = flow.sample(rng, size, s + 1, [time / 2, time])
            scores = affinity(drawn.values[-1], flow.experts)
        else:
            drawn = flow.affinity(rng, size, s + 1, time)
            scores = drawn.values
        # of s + 1 tokens leave out the class token, or a neighbour of it
        others = np.arange(s + 1) != drawn.position[:, None]
        with_it = np.arange(s + 1) != np.where(drawn.position > 0, 0, 1)[:, None]
        background, planted = (scores[keep].reshape(size, s, flow.experts) for keep in (others, with_it))
        place = np.maximum(drawn.position - 1, 0)
        kept = adaptive.route(planted, mass).contains(place, drawn.expert, row)
        counts["success"] += int(np.count_nonzero(kept))
        kept = adaptive.route(background, mass).contains(0, background[:, 0].argmax(axis=-1), row)
        counts["background kept"] += int(np.count_nonzero(kept))
    return counts


def rates(flow: Evolving, time: float, mass: float, tokens: int | None) -> dict[str, float]:
    """Exact: success, and the fraction of all background tokens that is kept."""
    law = flow.adaptive(time, mass, tokens=tokens)
    return {"success": law.success, "background kept": float(law.load @ law.kept)}


def cases(settings: dict[str, Any]) -> list[Case]:
    result = []
    for scene in settings["scenes"]:
        model, s, mass = dict(scene["model"]), scene["tokens"], scene["mass"]
        flow = Evolving(**model)
        first = rates(flow, scene["times"][0], mass, s)
        for time in scene["times"]:
            mutants = {
                "the limit of many tokens": rates(flow, time, mass, None),
                "the fraction τ of the candidates": {"background kept": mass},
                "the law at the first time": first,
            }
            parameters = {"sampler": scene["sampler"], "tokens": s, "time": time, "mass": mass, **model}
            exact = first if time == scene["times"][0] else rates(flow, time, mass, s)
            result.append(Case(f"{scene['name']} t={time:g} {scene['sampler']}", sample, parameters, exact, mutants))
    return result
