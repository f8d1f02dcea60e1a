"""Nodes first, then devices, as ExFlow stages it, is not the best placement of both; nor is the chain exact for nodes.

A step costs 1 between devices of a node and 2 between nodes, as in the released solver. Four experts, one on each of four
devices of two nodes, three layers: the best placement costs less than the best of those that cross nodes least, and than
the chain of assignments with the best names of devices. Both are counted over all placements.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.affinity_placement import place_by_affinity

PROFILE = np.array(
    [
        [[3, 0, 0, 4], [2, 0, 2, 4], [4, 5, 2, 0], [5, 5, 2, 3]],
        [[5, 5, 3, 0], [0, 0, 0, 5], [0, 0, 5, 5], [4, 1, 5, 4]],
    ]
)


def costs(weight: np.ndarray) -> list[tuple[int, int]]:
    """(steps between nodes, steps between devices) of all placements."""
    perms = [np.array(x) for x in itertools.permutations(range(4))]
    table = {}
    for level, step in enumerate(weight):
        for (i, x), (j, y) in itertools.product(enumerate(perms), repeat=2):
            between = int((step * (x[:, None] // 2 != y // 2)).sum())
            table[level, i, j] = between, int((step * (x[:, None] != y)).sum())
    found = []
    for path in itertools.product(range(24), repeat=len(weight) + 1):
        steps = [table[level, i, j] for level, (i, j) in enumerate(itertools.pairwise(path))]
        found.append((sum(s[0] for s in steps), sum(s[1] for s in steps)))
    return found


def side(least: int) -> SimpleNamespace:
    """least: cost of the best placement of PROFILE."""
    return SimpleNamespace(least=least)


STAGED, CHAIN, BEST = 77, 77, 76

claim = Claim(
    title="Nodes first, then devices, misses the best placement; so does the chain of assignments",
    statement=f"on a profile of three layers of four experts on two nodes of two devices the least cost is {BEST}; "
    f"staged it is {STAGED}, by the chain {CHAIN}",
    hypotheses=("a step costs 1 between devices of a node, 2 between nodes",),
    source="ExFlow two stages: nodes, then devices; ExFlow released solver (arXiv 2401.08383)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(BEST),
    mutant=side(STAGED),
    mutation="the staged placement as the best",
)


@claim.certificate("all placements counted")
def counted(s: SimpleNamespace) -> Outcome:
    found = costs(PROFILE)
    staged = sum(min(found))  # least between nodes, then least between devices
    fewest = min(devices for _, devices in found)
    chain = min(nodes + devices for nodes, devices in found if devices == fewest)
    least = min(nodes + devices for nodes, devices in found)
    text = f"least {least}, staged {staged}, chain {chain}; claimed {s.least}"
    return (
        holds(text)
        if least == s.least and (staged, chain) == (STAGED, CHAIN) and least < min(staged, chain)
        else fails(text)
    )


@claim.reference("the package's exact placement")
def by_package(s: SimpleNamespace) -> Outcome:
    found = place_by_affinity(PROFILE, 4, nodes=2)
    cost = found.cost * PROFILE.sum()
    text = f"cost {cost:.6f}, gap {found.gap}, claimed {s.least}"
    return holds(text) if abs(cost - s.least) < 1e-9 and found.gap == 0 else fails(text)
