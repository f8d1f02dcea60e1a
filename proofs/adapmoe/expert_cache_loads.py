"""Loads on demand fall with the slots of a layer's cache, by less for each slot more: the law, and that it is convex.

A token chooses one expert with probability r, else two, every pair alike; the cache holds t of n experts; with probability a
one of those that are missing was prefetched. Two chosen experts are both missing with probability P₂ = (n-t)(n-t-1)/(n(n-1)),
and on average 2(1-t/n) are. A right guess saves one load: what is left then is one load where both are missing. So the loads
are (1-a)(r + 2(1-r))(1-t/n) + a(1-r)P₂. The first part is linear. The second has the second difference 2a(1-r)/(n(n-1)), which
is not negative, and the first differences are -(1-a)(2-r)/n - 2a(1-r)(n-t-1)/(n(n-1)), which are not positive.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.expert_cache import expected_loads


def side(loads: Callable[[Any, Any, Any, Any], Any]) -> SimpleNamespace:
    """`loads(n, t, r, a)`."""
    return SimpleNamespace(loads=loads)


claim = Claim(
    title="Expected loads on demand fall and are convex in the slots of a layer's cache",
    statement=r"$f(t)=(1-a)(2-r)(1-\frac tn)+a(1-r)\frac{(n-t)(n-t-1)}{n(n-1)}$ is falling and convex in $t=0,\dots,n$",
    hypotheses=(
        "all experts, and all pairs of them, are chosen alike, and independently of what the cache holds",
        "a right guess prefetches one of the chosen experts that are missing",
    ),
    source="AdapMoE released code: cost of a layer in the allocation (PKU-SEC-Lab/AdapMoE at 2cfe8df)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(
        lambda n, t, r, a: (1 - a) * (2 - r) * (1 - t / n) + a * (1 - r) * (n - t) * (n - t - 1) / (n * (n - 1))
    ),
    mutant=side(lambda n, t, r, a: (1 - a) * (2 - r) * (1 - t / n) + a * (1 - r) * (1 - t / n) ** 2),
    mutation="two missing experts taken as independent",
)


@claim.derivation("first and second differences")
def differences(s: SimpleNamespace) -> Outcome:
    n, t, r, a = sp.symbols("n t r a", positive=True)
    first = s.loads(n, t + 1, r, a) - s.loads(n, t, r, a)
    second = first - (s.loads(n, t, r, a) - s.loads(n, t - 1, r, a))
    return every(
        [
            identity(second, 2 * a * (1 - r) / (n * (n - 1)), name="second"),
            identity(first, -(1 - a) * (2 - r) / n - 2 * a * (1 - r) * (n - t - 1) / (n * (n - 1)), name="first"),
        ]
    )


@claim.certificate("all choices, cached sets and guesses of small layers, counted; the package's table")
def counted(s: SimpleNamespace) -> Outcome:
    r, a = Fraction(1, 3), Fraction(3, 4)
    for n, t in ((2, 1), (4, 1), (5, 2), (8, 3), (8, 7)):
        cached = set(range(t))
        one = Fraction(sum(i not in cached for i in range(n)), n)
        pairs = [sum(i not in cached for i in pair) for pair in itertools.combinations(range(n), 2)]
        two, guessed = Fraction(sum(pairs), len(pairs)), Fraction(sum(max(m - 1, 0) for m in pairs), len(pairs))
        exact = r * one * (1 - a) + (1 - r) * ((1 - a) * two + a * guessed)
        if s.loads(n, Fraction(t), r, a) != exact:
            return fails(f"n={n}, t={t}: counted {exact}, claimed {s.loads(n, Fraction(t), r, a)}")
        if abs(expected_loads(n, float(r), float(a))[t] - exact) > 1e-14:
            return fails(f"n={n}, t={t}: the package gives another number")
    return holds("five layers as claimed")


def sample(
    rng: np.random.Generator, trials: int, *, experts: int, slots: int, single: float, accuracy: float
) -> dict[str, int]:
    """Half of the loads of a token: 0, 1 or 2 loads count 0, one in two, or 1."""
    order = rng.random((trials, experts)).argsort(axis=1)[:, :2]
    missing = order >= slots
    missing[:, 1] &= rng.random(trials) >= single
    loads = missing.sum(axis=1)
    loads -= (loads > 0) & (rng.random(trials) < accuracy)
    return {"half the loads": int(np.count_nonzero(rng.random(trials) * 2 < loads))}


claim.simulate(
    sample,
    cases=[{"experts": 8, "slots": 3, "single": 0.25, "accuracy": 0.8}],
    law=lambda s, *, experts, slots, single, accuracy: {
        "half the loads": s.loads(experts, slots, single, accuracy) / 2
    },
    trials=400_000,
)
