"""Caches of experts with independent requests: hit rates of the last used and of the most used experts against their laws.

A cache of one layer is kept by hand, request by request. One request in `gap` counts, so that counted ones are nearly
independent. The laws are those of `systems.expert_cache`. Wrong laws to reject: the static cache's rate for LRU, and slots over
experts, which holds for equal shares alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.study import Case
from resonance_theory.systems.expert_cache import lru_hit_rate, static_hit_rate


def sample(rng: np.random.Generator, trials: int, *, shares: Sequence[float], slots: int, gap: int) -> dict[str, int]:
    """Counted requests that find their expert in either cache."""
    p = np.asarray(shares)
    most = set(np.argsort(-p, kind="stable")[:slots].tolist())
    held = list(range(p.size))
    found = {"lru": 0, "static": 0}
    for i, expert in enumerate(rng.choice(p.size, size=gap * trials, p=p).tolist()):
        place = held.index(expert)
        if i % gap == gap - 1:
            found["lru"] += place < slots
            found["static"] += expert in most
        held.insert(0, held.pop(place))
    return found


def cases(settings: dict[str, Any]) -> list[Case]:
    made = []
    for name, weights in settings["shares"].items():
        shares = (np.array(weights) / sum(weights)).tolist()
        for slots in settings["slots"]:
            lru, static = lru_hit_rate(shares, slots), static_hit_rate(shares, slots)
            wrong = {
                "the static rate for LRU": {"lru": static, "static": static},
                "slots over experts": {"lru": slots / len(shares), "static": slots / len(shares)},
            }
            size = {"shares": shares, "slots": slots, "gap": settings["gap"]}
            made.append(Case(f"{name}, {slots} slots", sample, size, {"lru": lru, "static": static}, wrong))
    return made
