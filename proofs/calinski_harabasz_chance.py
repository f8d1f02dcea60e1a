"""Calinski-Harabasz by chance: a router that ignores the tokens has the standard index 1, and 1 - C/N under expert choice.

Both hold for the ratio of the mean scatters, for any tokens. A random sample of m of N tokens, without replacement, of scatter
T = Σ|x_t - x̄|² has the mean scatter (m - 1) T/(N - 1) about its own mean c, and E|c - x̄|² = T (N - m)/(N (N - 1) m): the terms of
|Σ x|² have the means T/N (one token) and -T/(N (N - 1)) (two, as all N sum to 0 about x̄).
Every expert's tokens are such a sample. Within, E W = Σ (m_i - 1) T/(N - 1). If K kept tokens are parted among n experts,
between and within add up to their scatter, of mean (K - 1) T/(N - 1), so E B = (n - 1) T/(N - 1): the standard ratio is 1,
whatever the loads. Under expert choice n samples of C are drawn independently of each other, and a token may be in several:
E B = C (n - 1) E|c - x̄|² = (n - 1)(1 - C/N) T/(N - 1). Overlapping experts look less apart than parted ones, by that factor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from proofs._isotropic import coin
from resonance_theory import homogenization
from resonance_theory.rules import expert_choice, resonance
from resonance_theory.verification.certify import identity
from resonance_theory.verification.claim import Claim, Verdict
from resonance_theory.verification.outcome import Outcome, every, fails, holds

tokens, experts, capacity, kept, size, scatter = sp.symbols("N n C K m T", positive=True)


def side(overlap: Callable[[Any], Any]) -> SimpleNamespace:
    """`overlap(C/N)`: standard ratio under expert choice."""
    return SimpleNamespace(overlap=overlap)


claim = Claim(
    title="Calinski-Harabasz by chance: 1, and 1 - C/N under expert choice",
    statement=r"$\frac{E[B]/(n-1)}{E[W]/(K-n)}=1$ for $K$ tokens parted among $n$ experts at random; $=1-\frac{C}{N}$ for $K=nC$ "
    r"pairs of expert choice; $B$, $W$ the between and within scatter",
    hypotheses=(
        r"any $N\geq 2$ tokens, not all equal; affinities that do not depend on the tokens; no tie",
        "no expert is idle (else: $n$ those in use)",
    ),
    source="ETR eq. 13 for a router that knows nothing (arXiv 2406.00023); new",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("chen_homogenization",),
    truth=side(lambda share: 1 - share),
    mutant=side(lambda share: 1 + 0 * share),
    mutation="1 under expert choice as well, as if a token had one expert",
)


@claim.derivation("sampling without replacement, its means within and between")
def _(side: SimpleNamespace) -> Outcome:
    one, two = scatter / tokens, -scatter / (tokens * (tokens - 1))  # E|x|² and E<x, x'> about the mean of all
    centre = (size * one + size * (size - 1) * two) / size**2
    within = size * one - size * centre
    unit = scatter / (tokens - 1)
    whole = within.subs(size, kept)
    parted = whole - (kept - experts) * unit  # between = total - within, and within is Σ (m_i - 1) T/(N - 1)
    apart = capacity * (experts - 1) * centre.subs(size, capacity)  # n independent means about their mean
    overlapping = experts * within.subs(size, capacity)
    pairs = experts * capacity
    standard = (apart / (experts - 1)) / (overlapping / (pairs - experts))
    points = [{tokens: 7, experts: 3, capacity: 2, kept: 5, size: 4, scatter: 11}]
    return every(
        [
            identity(within - (size - 1) * unit, points=points, name="within a sample - (m-1) T/(N-1)"),
            identity(parted - (experts - 1) * unit, points=points, name="parted: between - (n-1) T/(N-1)"),
            identity(standard - side.overlap(capacity / tokens), points=points, name="expert choice: ratio - claim"),
        ]
    )


def ratio(x: np.ndarray, dispatches: list[tuple[Any, Any]]) -> float:
    """Standard ratio of the mean scatters over equally likely dispatches (tokens, experts)."""
    found = []
    for token, expert in dispatches:
        between, within = homogenization.scatter(x[list(token)], np.array(expert))
        groups = len(set(expert))
        found.append((between / (groups - 1), within / (len(expert) - groups)))
    mean = np.mean(found, axis=0)
    return float(mean[0] / mean[1])


@claim.reference("all dispatches of five and six tokens, through the package's scatter")
def _(side: SimpleNamespace) -> Outcome:
    x = np.random.default_rng(3).standard_normal((6, 3)) ** 3
    count = 0
    for choose in (6, 5):  # which tokens a capacity leaves, and who takes them
        every_way = itertools.product(
            itertools.combinations(range(6), choose), itertools.product(range(2), repeat=choose)
        )
        ways = [(token, expert) for token, expert in every_way if len(set(expert)) == 2]
        count += len(ways)
        if abs(ratio(x, ways) - 1) > 1e-12:
            return fails(f"{choose} of 6 tokens parted: {ratio(x, ways)}")
    for slots in (2, 3, 4):
        sets = list(itertools.combinations(range(6), slots))
        ways = [((*a, *b), (0,) * slots + (1,) * slots) for a in sets for b in sets]
        count += len(ways)
        if abs(ratio(x, ways) - side.overlap(slots / 6)) > 1e-12:
            return fails(
                f"C = {slots} of 6: all dispatches give {ratio(x, ways):.6f}, not {side.overlap(slots / 6):.6f}"
            )
    return holds(f"{count} dispatches agree to 12 digits")


TOKENS = np.arange(24.0).reshape(8, 3) ** 2 % 11  # any that are not all equal


def sample(rng: np.random.Generator, trials: int, *, rule: str, slots: int, n: int) -> dict[str, int]:
    """Coins of (between scatter)/(n T), at most 1, of the package's routers on affinities that ignore the tokens."""
    x = TOKENS - TOKENS.mean(axis=0)
    route = expert_choice.route if rule == "expert_choice" else resonance.route
    found = route(rng.random((trials, len(x), n)), slots)
    place = np.asarray(found.sample), np.asarray(found.expert)
    sums, load = np.zeros((trials, n, x.shape[1])), np.zeros((trials, n, 1))
    np.add.at(sums, place, x[found.token])
    np.add.at(load, place, 1.0)
    between = (sums**2 / np.maximum(load, 1)).sum(axis=(1, 2)) - (sums.sum(axis=1) ** 2 / load.sum(axis=1)).sum(axis=1)
    return {"between": coin(rng, between / (n * (x**2).sum()))}


def law(side: SimpleNamespace, *, rule: str, slots: int, n: int) -> dict[str, float]:
    count = len(TOKENS)
    used = n if rule == "expert_choice" else n * (1 - (1 - 1 / n) ** count)  # experts that some token chooses
    between = (used - 1) / (count - 1) * (side.overlap(slots / count) if rule == "expert_choice" else 1)
    return {"between": (1 + between / n) / 2}


claim.simulate(
    sample,
    cases=[
        {"rule": "expert_choice", "slots": 4, "n": 3},
        {"rule": "resonance", "slots": 2, "n": 3},
        {"rule": "resonance", "slots": 8, "n": 3},
    ],
    law=law,
)
