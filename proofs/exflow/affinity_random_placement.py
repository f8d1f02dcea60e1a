"""A random balanced placement crosses with 1 - 1/P whatever the affinities, and the best one crosses no more.

Layers are placed independently, each uniformly among its balanced placements. A fixed expert of the next layer is then on
each of the P devices with probability 1/P, wherever the expert before it is: the kept share is 1/P of every entry of the
profile, hence of their sum. The mean over all placements is 1 - 1/P, so the least crossing is at most that. Within one
layer two experts share a device with probability (E/P - 1)/(E - 1) only, which is another question.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.affinity_placement import place_by_affinity, placement_cost


def side(crossing: Callable[[int, int], Fraction]) -> SimpleNamespace:
    """`crossing(E, P)`: mean crossing of random balanced placements."""
    return SimpleNamespace(crossing=crossing)


claim = Claim(
    title="Random balanced placements cross devices with 1 - 1/P, whatever the affinities",
    statement=r"$E[\text{crossing}]=1-1/P$ for every profile, so that the best placement crosses at most $1-1/P$",
    hypotheses=(
        r"$E/P$ experts of each layer on each of $P$ devices",
        "each layer's placement is uniform among the balanced ones and independent of the other layers'",
    ),
    source="new; the baseline of ExFlow integer program (arXiv 2401.08383)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda e, p: 1 - Fraction(1, p)),
    mutant=side(lambda e, p: 1 - Fraction(e // p - 1, e - 1)),
    mutation="two experts of one layer in place of experts of two layers",
)

SIZES = ((2, 2), (3, 3), (4, 2), (4, 4), (6, 2), (6, 3))


@claim.certificate("an expert's place among all balanced placements, counted for every E and P up to 6")
def counted(s: SimpleNamespace) -> Outcome:
    for experts, devices in SIZES:
        every = sorted(set(itertools.permutations([d for d in range(devices) for _ in range(experts // devices)])))
        for expert, device in itertools.product(range(experts), range(devices)):
            share = Fraction(sum(place[expert] == device for place in every), len(every))
            if 1 - share != s.crossing(experts, devices):
                return fails(f"E={experts}, P={devices}: {1 - share}, claimed {s.crossing(experts, devices)}")
    return holds(f"{len(SIZES)} sizes: every expert on every device in 1/P of the placements")


@claim.reference("mean over all placements of two layers, on uneven profiles, in the package's cost")
def averaged(s: SimpleNamespace) -> Outcome:
    rng, worst = np.random.default_rng(0), 0.0
    for experts, devices in ((3, 3), (4, 2), (6, 2)):
        weight = rng.random((1, experts, experts)) ** 4
        every = set(itertools.permutations([d for d in range(devices) for _ in range(experts // devices)]))
        found = [placement_cost(weight, pair, devices)[0] for pair in itertools.product(every, repeat=2)]
        worst = max(worst, abs(float(np.mean(found)) - float(s.crossing(experts, devices))))
        if place_by_affinity(weight, devices).crossing > float(s.crossing(experts, devices)) + 1e-12:
            return fails(f"E={experts}, P={devices}: the best placement crosses more")
    text = f"largest difference {worst:.2g}"
    return holds(text) if worst < 1e-12 else fails(text)


def sample(rng: np.random.Generator, trials: int, *, experts: int, devices: int) -> dict[str, int]:
    """Both layers placed anew for each step; the step is drawn from a geometric profile."""
    place = np.repeat(np.arange(devices), experts // devices)
    share = 0.5 ** np.arange(experts)
    now, then = rng.choice(experts, (2, trials), p=share / share.sum())
    placed = rng.permuted(np.broadcast_to(place, (2, trials, experts)), axis=2)
    row = np.arange(trials)
    return {"crossing": int((placed[0, row, now] != placed[1, row, then]).sum())}


claim.simulate(
    sample,
    cases=[{"experts": 8, "devices": 4}],
    law=lambda s, *, experts, devices: {"crossing": float(s.crossing(experts, devices))},
    trials=100_000,
)
