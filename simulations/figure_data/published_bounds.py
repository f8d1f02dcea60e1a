"""Token choice against capacity: exact law, sharp and Poisson bounds, bounds as printed (ETR Theorem 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.rules import Rates, token_choice


def compute() -> dict[str, Any]:
    record: dict[str, Any] = {}
    grids = {"small": (100, 8, np.arange(1, 101)), "large": (4096, 8, np.unique(np.geomspace(1, 4096, 90).astype(int)))}
    for name, (s, n, capacity) in grids.items():
        rates = Rates(experts=n)
        entry = {"tokens": s, "experts": n, "capacity": capacity, "exact": token_choice.success(s, capacity, rates)}
        for kind in ("sharp", "poisson", "published"):
            entry[f"{kind}_low"], entry[f"{kind}_high"] = token_choice.bounds(s, capacity, rates, kind=kind)
        record[name] = entry
    return record
