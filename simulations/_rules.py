"""The routing rules by name, for studies that run several of them: a study names a rule, and calls nothing of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.rules.select import Assignment

RULES: dict[str, Any] = {"token_choice": token_choice, "expert_choice": expert_choice, "resonance": resonance}
WITH_RANDOM = ("token_choice", "random_keep", "expert_choice", "resonance")


def route(
    rule: str, affinity: Any, capacity: int, rng: np.random.Generator | None = None, *, top: int = 1
) -> Assignment:
    """Who is kept of affinities (samples, tokens, experts), any array type; top: experts that a token chooses.

    "random_keep" is resonance with priorities drawn from rng among an expert's candidates; the others draw nothing.
    """
    if rule == "random_keep":
        assert rng is not None
        best = affinity >= np.sort(affinity, axis=-1)[..., -top, None]
        affinity, rule = rng.random(affinity.shape, dtype=np.float32) + 2 * best, "resonance"
    return RULES[rule].route(affinity, capacity, **({} if rule == "expert_choice" else {"top": top}))


def dispatch(
    affinity: np.ndarray, rule: str, capacity: int, rng: np.random.Generator | None = None, top: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(token, used), both (samples, experts, capacity): the token in each slot of each expert, and whether there is one."""
    samples, _, experts = affinity.shape
    kept = route(rule, affinity, capacity, rng, top=top)
    token = np.zeros((samples, experts, capacity), dtype=np.int64)
    used = np.zeros(token.shape, dtype=bool)
    token[kept.sample, kept.expert, kept.slot] = kept.token
    used[kept.sample, kept.expert, kept.slot] = True
    return token, used
