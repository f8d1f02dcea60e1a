"""The routing rules by name, for studies that run several of them: a study names a rule, and calls nothing of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import Rates, Rule, expert_choice, resonance, token_choice
from resonance_theory.rules.select import Assignment

RULES: dict[str, Rule] = {rule.name: rule for rule in (token_choice, expert_choice, resonance)}
WITH_RANDOM = ("token_choice", "random_keep", "expert_choice", "resonance")


def success(tokens: Any, capacity: Any, rates: Rates) -> dict[str, Any]:
    """Exact success rate of each of `RULES`."""
    return {name: rule.success(tokens, capacity, rates) for name, rule in RULES.items()}


def route(
    rule: str, affinity: Any, capacity: int, rng: np.random.Generator | None = None, *, top: int = 1
) -> Assignment:
    """Who is kept of affinities (samples, tokens, experts), any array type; top: experts that a token chooses.

    "random_keep" draws as the stored records did, a number for every expert in single precision; `rules.random_keep`
    has the same law and another stream.
    """
    if rule == "random_keep":
        assert rng is not None
        best = affinity >= np.sort(affinity, axis=-1)[..., -top, None]
        affinity, rule = rng.random(affinity.shape, dtype=np.float32) + 2 * best, "resonance"
    return RULES[rule].route(affinity, capacity, top=top)


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
