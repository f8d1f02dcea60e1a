"""Several experts a device: layer by layer, each the best given the one before, keeps 1/P of the best at least, no more.

Given a layer's placement the next layer's best one is a transportation problem, solved exactly. It keeps at least the
mean over all placements of the next layer, 1/P of the steps; so layer by layer keeps at least 1/P of all steps, which
is at least 1/P of what the best placement keeps. Nothing better is true for E >= P^2: let E = P^2, experts (a, b). In
the first step (a, b) goes to (a, b) or another (a', b) with the same b, a weight of epsilon in all, so that the
second layer is grouped by b. In the second step (a, b) goes to every (a, b'), so that a second layer grouped by a
loses nothing of it. But grouped by b, each device holds one expert of every a, and keeps exactly 1/P whatever the
third layer's placement. The ratio tends to 1/P as epsilon falls to 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
from scipy.optimize import linear_sum_assignment

from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.affinity_placement import place_by_affinity


def side(ratio: Callable[[int], Fraction]) -> SimpleNamespace:
    """`ratio(P)`: the least kept share against the best placement's."""
    return SimpleNamespace(ratio=ratio)


claim = Claim(
    title="Layer by layer keeps at least 1/P of what the best placement keeps, and for several experts a device no more",
    statement=r"kept by layers $\geq\frac1P$ kept by the best; $\inf=\frac1P$ for $E=P^2$: the chain is not exact for $E>P$",
    hypotheses=("each next layer is placed at best given the one before, from any first layer",),
    source="new; ExFlow integer program (arXiv 2401.08383)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda p: Fraction(1, p)),
    mutant=side(lambda p: Fraction(1, p) + Fraction(1, p * p)),
    mutation="1/P + 1/P^2 in place of 1/P",
)


def by_layers(weight: np.ndarray, devices: int) -> int:
    """Kept by layers, the first grouped as in `trap`: the transportation problem of each next layer."""
    experts = weight.shape[1]
    place, kept = np.arange(experts) % devices, 0
    for step in weight:
        gain = step.T @ np.eye(devices, dtype=np.int64)[place]
        expert, slot = linear_sum_assignment(np.repeat(gain, experts // devices, axis=1), maximize=True)
        kept += int(np.repeat(gain, experts // devices, axis=1)[expert, slot].sum())
        place = slot // (experts // devices)
    return kept


def trap(devices: int, heavy: int) -> np.ndarray:
    """The two steps of the docstring; expert (a, b) is number a P + b."""
    a, b = np.divmod(np.arange(devices**2), devices)
    return np.array([(b[:, None] == b).astype(int), heavy * (a[:, None] == a)])


@claim.certificate("the family E = P^2: the best keeps its second step whole, by layers 1/P of it")
def family(s: SimpleNamespace) -> Outcome:
    for devices in (2, 3, 4, 5):
        heavy = 10_000
        weight = trap(devices, heavy)
        a = np.arange(devices**2) // devices
        best = sum(int((step * (a[:, None] == a)).sum()) for step in weight)
        ratio = Fraction(by_layers(weight, devices), best)
        if not s.ratio(devices) <= ratio <= s.ratio(devices) + Fraction(devices, heavy):
            return fails(f"P={devices}: {float(ratio):.6f}, claimed at least {s.ratio(devices)} and near it")
    return holds("P = 2 to 5: within P/10,000 of 1/P, and not below")


@claim.certificate("exhaustive: whatever the third layer, devices with one expert of every a keep exactly 1/P")
def third_layer(s: SimpleNamespace) -> Outcome:
    step, b = trap(2, 1)[1], np.arange(4) % 2
    for chosen in itertools.combinations(range(4), 2):
        place = np.isin(np.arange(4), chosen).astype(int)
        kept = Fraction(int((step * (b[:, None] == place)).sum()), int(step.sum()))
        if kept != s.ratio(2):
            return fails(f"third layer {chosen}: kept {kept}, claimed {s.ratio(2)}")
    return holds("P = 2: all six placements keep 1/2")


@claim.reference("random profiles against the package's exact placement: never below, and below 1 on the trap")
def at_random(s: SimpleNamespace) -> Outcome:
    rng, least = np.random.default_rng(0), 1.0
    for weight in [trap(2, 10_000), *(rng.integers(0, 50, (3, 4, 4)) ** 3 for _ in range(50))]:
        best = (1 - place_by_affinity(weight, 2).crossing) * weight.sum()
        least = min(least, by_layers(weight, 2) / best)
    text = f"least ratio {least:.5f}, claimed at least {float(s.ratio(2))}"
    return holds(text) if least >= s.ratio(2) - 1e-9 else fails(text)
