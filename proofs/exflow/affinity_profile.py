"""A profile of few tokens flatters its placement, on average: fitted crossing <= least crossing <= crossing on new tokens.

Let V(x, W) be the crossing of placement x under profile W, linear in W. The counts of T independent tokens have the
mean E[W] = Q, the true probabilities. Then E[min_x V(x, W)] <= min_x E[V(x, W)] = min_x V(x, Q) <= V(x(W), Q) for the
fitted x(W), whatever T is. A placement judged on its own profile is too good to be true by the sum of both gaps; how
much that is, and whether 5,000 tokens are enough, depends on the model: the study affinity_placement measures it. A
new kind of text changes Q itself, which no number of tokens cures.
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


def side(order: Callable[[Fraction, Fraction, Fraction], bool]) -> SimpleNamespace:
    """`order(fitted, least, fresh)`: what is claimed of the mean crossings."""
    return SimpleNamespace(order=order)


claim = Claim(
    title="A placement judged on its own profile looks better than the best there is, and does worse on new tokens",
    statement=r"$E[\min_xV(x,W)]\leq\min_xV(x,Q)\leq E[V(\hat x(W),Q)]$ for profiles with mean $Q$",
    hypotheses=("the profile is the mean of the counts of tokens from the law that the new tokens follow",),
    source="new; ExFlow profile: 5000 tokens; the released solver judges on the profile (arXiv 2401.08383)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda fitted, least, fresh: fitted <= least <= fresh),
    mutant=side(lambda fitted, least, fresh: fitted == least == fresh),
    mutation="the profile's crossing as that of new tokens",
    studies=("affinity_placement",),
)


@claim.certificate("all profiles of up to four tokens, two layers of two and of three experts, in exact rationals")
def every_profile(s: SimpleNamespace) -> Outcome:
    for experts, tokens in ((2, 1), (2, 2), (2, 4), (3, 1), (3, 3)):
        law = {(i, j): Fraction(1 + (i == j) + i * j, 1) for i, j in itertools.product(range(experts), repeat=2)}
        total = sum(law.values())
        law = {step: share / total for step, share in law.items()}
        placements = list(itertools.permutations(range(experts)))

        def crossing(x: tuple[int, ...], share: dict[tuple[int, int], Fraction]) -> Fraction:
            return 1 - sum((share.get((i, j), Fraction(0)) for i, j in enumerate(x)), Fraction(0))

        fitted = fresh = Fraction(0)
        for drawn in itertools.product(law, repeat=tokens):
            chance = Fraction(1)
            for step in drawn:
                chance *= law[step]
            share = {step: Fraction(drawn.count(step), tokens) for step in set(drawn)}
            best = min(placements, key=lambda x: crossing(x, share))
            fitted += chance * crossing(best, share)
            fresh += chance * crossing(best, law)
        least = min(crossing(x, law) for x in placements)
        if not s.order(fitted, least, fresh):
            return fails(f"E={experts}, {tokens} tokens: {float(fitted):.4f}, {float(least):.4f}, {float(fresh):.4f}")
    return holds("five sizes: fitted at most least at most fresh")


@claim.reference("the package's placements of 200 profiles of 50 tokens, eight experts")
def at_random(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(64, 0.3)).reshape(1, 8, 8)
    found = []
    for _ in range(200):
        profile = rng.multinomial(50, law.ravel()).reshape(1, 8, 8)
        placed = place_by_affinity(profile, 8)
        found.append((placed.crossing, placement_cost(law, placed.device, 8)[0]))
    fitted, fresh = (Fraction(x) for x in np.mean(found, axis=0))
    least = Fraction(place_by_affinity(law, 8).crossing)
    text = f"fitted {float(fitted):.4f}, least {float(least):.4f}, fresh {float(fresh):.4f}"
    return holds(f"{text}, as claimed") if s.order(fitted, least, fresh) else fails(f"{text}, not as claimed")
