"""Placement by inter-layer affinity: how much of its gain is left on tokens that it was not fitted to, at what loads?

`systems.affinity_placement` places the experts by a profile of routed tokens. Two sources of tokens:

"trace": the package's embedded log of a small language model (4 layers of 16 experts, the heaviest of two choices). Each
run deals its 24 documents into halves; the placement is fitted to one and judged on the other. Runs share the one trace,
so that the intervals speak of the dealing alone.
"world": each layer's expert follows the one before with probabilities drawn anew in each run, from a Dirichlet law. The
placement is fitted to a number of tokens and judged by the probabilities themselves, and so is the one fitted to them.

"fitted" and "fresh" are crossings on the profile and on what was not seen, "best" is the crossing of a placement
fitted to the latter, "kept" the share of the gain over a random placement that is left, "imbalance" that of the loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from resonance_theory import logs
from resonance_theory.evidence.studies.training import Arm
from resonance_theory.logs.log import RoutingLog
from resonance_theory.systems.affinity_placement import place_by_affinity, placement_cost, transitions
from simulations._training import Counts, counts, parameters, takes

PER = 1_000_000
Pair = tuple[np.ndarray, np.ndarray]  # profile, and what was not seen


@dataclass(frozen=True, kw_only=True)
class Placing:
    """source: trace or world; load_weight: price of the imbalance; tokens, layers, experts, concentration: of the world."""

    source: str
    devices: int
    load_weight: float
    tokens: int
    layers: int
    experts: int
    concentration: float


@cache
def trace() -> RoutingLog:
    return logs.read(logs.example())


def halves(rng: np.random.Generator, s: Placing) -> Pair:
    """Profiles of two halves of the documents."""
    log = trace()
    ids = np.asarray(log.documents)
    first = np.isin(ids, rng.permutation(np.unique(ids))[::2])
    parts = (
        RoutingLog(experts=log.experts, choices=log.choices[part], weights=log.weights[part])
        for part in (first, ~first)
    )
    one, other = (transitions(part, heaviest=True) for part in parts)
    return one, other


def drawn(rng: np.random.Generator, s: Placing) -> Pair:
    """Tokens counted, and the probabilities from which they are drawn."""
    start = rng.dirichlet(np.full(s.experts, 3.0))
    law = rng.dirichlet(np.full(s.experts, s.concentration), size=(s.layers - 1, s.experts))
    chosen = [rng.choice(s.experts, s.tokens, p=start)]
    truth, share = np.empty_like(law), start
    for layer, rows in enumerate(law):
        below = rows.cumsum(axis=1)[chosen[-1]] < rng.random((s.tokens, 1))
        chosen.append(np.minimum(below.sum(axis=1), s.experts - 1))
        truth[layer] = share[:, None] * rows
        share = truth[layer].sum(axis=0)
    return transitions(np.stack(chosen, axis=1), s.experts), truth


SOURCES = {"trace": halves, "world": drawn}


@takes(Placing)
def train(rng: np.random.Generator, runs: int, s: Placing) -> Counts:
    """Fit and judge placements, run by run; every arm of a source sees the same tokens."""

    def one(stream: np.random.Generator) -> dict[str, float]:
        profile, unseen = SOURCES[s.source](stream, s)
        found = place_by_affinity(profile, s.devices, load_weight=s.load_weight, starts=1)
        fresh, _, imbalance = placement_cost(unseen, found.device, s.devices)
        best = place_by_affinity(unseen, s.devices, load_weight=s.load_weight, starts=1)
        at_random = 1 - 1 / s.devices
        return {
            "fitted": found.crossing,
            "gap": found.gap,
            "fresh": fresh,
            "best": best.crossing,
            "kept": (at_random - fresh) / (at_random - found.crossing),
            "imbalance": imbalance,
        }

    return counts((one(stream) for stream in rng.spawn(runs)), PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    table = [(f"trace, {d} devices", "trace", d, 0.0, 1) for d in settings["trace_devices"]]
    table += [("trace, 4 devices, loads priced", "trace", 4, settings["price"], 1)]
    table += [(f"world, {t} tokens", "world", settings["experts"], 0.0, t) for t in settings["profile_tokens"]]
    return [
        Arm(
            label,
            train,
            parameters(Placing, settings, source=source, devices=devices, load_weight=price, tokens=tokens),
            PER,
        )
        for label, source, devices, price, tokens in table
    ]
