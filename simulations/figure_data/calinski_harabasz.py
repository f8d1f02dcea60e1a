"""Between over within scatter against the fraction of candidates kept: closed forms (H2, H3) and simulated tokens.

Kept by simulation: every expert's best fraction of its Top-1 candidates, by inner product or by cosine, out of independent
sets of isotropic tokens; the mean over sets and its standard error. A ratio r of N kept tokens counts centroids that are
themselves estimated; by their degrees of freedom r (N-n)/N - (n-1)/N is that of the population.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.tokens import samplers

EXPERTS, SETS, TOKENS = 8, 6, 12_000
SIMULATED = (0.1, 0.25, 0.5, 1.0)


def compute() -> dict[str, Any]:
    kept = np.linspace(0.05, 1.0, 58)
    panels = []
    for dim in (16, 64):
        curves = {
            select: homogenization.resonance_scatter(dim, EXPERTS, kept, select=select)
            for select in ("inner", "cosine")
        }
        panels.append({"dim": dim, **curves, "simulated": _simulated(dim)})
    return {"experts": EXPERTS, "kept": kept, "sets": SETS, "tokens": TOKENS, "panels": panels}


def _ratio(x: np.ndarray, label: np.ndarray) -> float:
    observed = float(homogenization.calinski_harabasz(x, label, normalized=False))
    return observed * (1 - EXPERTS / len(x)) - (EXPERTS - 1) / len(x)


def _simulated(dim: int) -> dict[str, Any]:
    values: dict[str, list[list[float]]] = {"inner": [], "cosine": []}
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=0, spawn_key=(dim,))))
    for _ in range(SETS):
        x = samplers.isotropic(rng, 1, TOKENS, dim)[0]
        label, winning = x[:, :EXPERTS].argmax(axis=1), x[:, :EXPERTS].max(axis=1)  # gates along the first axes
        for select, score in (("inner", winning), ("cosine", winning / np.linalg.norm(x, axis=1))):
            rank = np.empty(TOKENS)  # among the candidates of the token's expert, 0 for the best, below 1
            for i in range(EXPERTS):
                mine = np.flatnonzero(label == i)
                rank[mine[np.argsort(-score[mine])]] = np.arange(mine.size) / mine.size
            values[select].append([_ratio(x[rank < f], label[rank < f]) for f in SIMULATED])
    record: dict[str, Any] = {"kept": list(SIMULATED)}
    for select, table in values.items():
        record[select] = np.mean(table, axis=0)
        record[f"{select}_error"] = np.std(table, axis=0, ddof=1) / np.sqrt(SETS)
    return record
