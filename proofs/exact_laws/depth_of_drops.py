"""Over many layers position dropping loses the same late tokens again, so more tokens stay whole than K^L says.

Given that m tokens are before it, a token is kept in one layer with probability F(m) = P(Bin(m,π) <= C-1). Its place is the same
in every layer and the routes are independent, so it is kept in all L layers with probability F(m)^L: over a uniform place

    P_L = (1/s) Σ_{m<s} F(m)^L.

A rule that draws its priorities anew in each layer (random keep) has K^L with K = P_1. P_L >= K^L: with
T_L(x) = x^L - K^L - L K^{L-1} (x - K), T_1 = 0 and T_{L+1} = x T_L + L K^{L-1} (x - K)², so T_L >= 0 on x >= 0 by induction;
averaged over x = F(m), the linear term is 0. The first C places have F = 1, and F falls:
1 - F(m) >= 1 - F(C) = π^C > 0 from m = C on: C/s <= P_L <= C/s + (1 - C/s)(1 - π^C)^L. So a share of C/s of the tokens is never
dropped, however deep the network, and every other one is at last.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, random_keep, token_choice


@dataclass(frozen=True)
class Side:
    """`more` is added to the number of layers, `free` to the C places that are never dropped (both 0 for the theorem)."""

    more: int
    free: int

    def in_all(self, at_places: list[Fraction], layers: int) -> Fraction:
        return sum((f ** (layers + self.more) for f in at_places), Fraction(0)) / len(at_places)


claim = Claim(
    title="Position dropping in L layers hits the same late tokens: more stay whole than if layers dropped independently",
    statement=r"$P(\text{kept in all }L)=\frac1s\sum_{m=0}^{s-1}P(\mathrm{Bin}(m,\pi)\leq C-1)^L\geq K^L$, "
    r"$K=\frac1s\sum_mP(\mathrm{Bin}(m,\pi)\leq C-1)$; it falls to $\frac Cs$ as $L\to\infty$; "
    r"priorities drawn anew in each layer have $K^L$",
    hypotheses=(
        r"$1\leq C\leq s$, $L\geq 1$, $0<\pi\leq 1$; position uniform, and the same in every layer",
        r"routes independent over tokens and layers; in each layer another token is a candidate of the token's expert "
        r"with probability $\pi$; a dropped token goes on to the next layer",
    ),
    source="token choice in a network of many layers; new",
    kind="equality",
    expected=Verdict.PROVED,
    truth=Side(0, 0),
    mutant=Side(1, 1),
    mutation="one layer more, and one more place that is never dropped",
    lemmas=("N1 (token_choice_exact)",),
)


@claim.certificate("P_L >= K^L for every L: above its tangent at K, by induction in L")
def above_independent_layers(side: Side) -> Outcome:
    x, mean, layers = sp.symbols("x K L", positive=True)

    def above_tangent(power: sp.Expr | int) -> sp.Expr:
        """What one place has above the tangent at K of K^power."""
        return x ** (power + side.more) - mean**power - power * mean ** (power - 1) * (x - mean)

    first = (x ** (1 + side.more), mean + (x - mean))
    step = (above_tangent(layers + 1) - x * above_tangent(layers), layers * mean ** (layers - 1) * (x - mean) ** 2)
    return every(
        [
            identity(*first, name="one layer: the tangent itself"),
            identity(*step, name="T_{L+1} - x T_L - L K^(L-1) (x-K)²"),
        ]
    )


@claim.derivation("one token more before it: F falls by π b(m,C-1), for the first time at m = C - 1, and then by π^C")
def first_place_at_risk(side: Side) -> Outcome:
    m, k, capacity = sp.symbols("m k C", integer=True, positive=True)
    share = sp.symbols("pi", positive=True)

    def mass(trials: sp.Expr, count: sp.Expr) -> sp.Expr:
        return sp.binomial(trials, count) * share**count * (1 - share) ** (trials - count)

    # Pascal's rule, summed over k >= C, telescopes to π b(m, C-1)
    pascal = (mass(m + 1, k) - mass(m, k), share * (mass(m, k - 1) - mass(m, k)))
    points = [{m: 9, k: 3, share: sp.Rational(2, 7)}, {m: 6, k: 2, share: sp.Rational(1, 3)}]
    first = (share * mass(capacity - 1 + side.free, capacity - 1), share**capacity)
    return every(
        [
            identity(*pascal, points=points, unit=mass(m, k), name="b(m+1,k) - b(m,k) - π {b(m,k-1) - b(m,k)}"),
            identity(*first, name="first fall - π^C"),
        ]
    )


def at_places(tokens: int, share: Fraction, capacity: int) -> list[Fraction]:
    """F(m), m = 0..tokens-1, by the loss of mass at m: F(m+1) = F(m) - π b(m, C-1)."""
    out = [Fraction(1)]
    for m in range(tokens - 1):
        mass = comb(m, capacity - 1) * share**capacity * (1 - share) ** max(m - capacity + 1, 0)
        out.append(out[-1] - mass)
    return out


@claim.reference("every route of every token through every layer, exactly")
def every_route(side: Side) -> Outcome:
    count = 0
    for tokens, experts, layers in ((4, 2, 1), (4, 2, 3), (3, 3, 2), (5, 2, 2), (3, 2, 4), (2, 5, 3)):
        routes = list(product(range(experts), repeat=tokens))
        for capacity in range(1, tokens + 1):
            kept = [[route[:t].count(route[t]) < capacity for t in range(tokens)] for route in routes]
            whole = sum(sum(map(all, zip(*chosen))) for chosen in product(kept, repeat=layers))
            exact = Fraction(whole, tokens * len(routes) ** layers)
            claimed = side.in_all(at_places(tokens, Fraction(1, experts), capacity), layers)
            if exact != claimed:
                return fails(
                    f"s={tokens}, n={experts}, C={capacity}, L={layers}: {exact} of the routes, {claimed} claimed"
                )
            count += 1
    return holds(f"{count} enumerations agree exactly")


@claim.reference("s = 128, n = 8, C = 16, L = 32 in exact rationals: .5861, against K^L = .0443; K of the package")
def thirty_two_layers(side: Side) -> Outcome:
    tokens, share, capacity, layers = 128, Fraction(1, 8), 16, 32
    places = at_places(tokens, share, capacity)
    mean = sum(places, Fraction(0)) / tokens
    ours = float(token_choice.success(tokens, capacity, Rates(experts=8)))
    whole, alone = side.in_all(places, layers), mean**layers
    if abs(ours - float(mean)) > 1e-14 or abs(alone - Fraction("0.0443")) > Fraction("0.00005"):
        return fails(f"K is {float(mean)}, the package's {ours}, K^L {float(alone):.6f}")
    if abs(whole - Fraction("0.5861")) > Fraction("0.00005"):
        return fails(f"kept in all: {float(whole):.6f}, not .5861")
    return holds(f"{float(whole):.6f} and K^L = {float(alone):.6f}")


@claim.reference(
    "between C/s and C/s + (1 - C/s)(1 - π^C)^L in exact rationals, up to 300 layers, where they meet to 1e-4"
)
def bounds_meet(side: Side) -> Outcome:
    gap = Fraction(1)
    for tokens, share, capacity in (
        (8, Fraction(1, 2), 2),
        (9, Fraction(2, 3), 5),
        (6, Fraction(1), 3),
        (4, Fraction(1, 9), 1),
    ):
        places, free = at_places(tokens, share, capacity), Fraction(capacity + side.free, tokens)
        for layers in (1, 2, 10, 300):
            value, gap = side.in_all(places, layers), (1 - free) * (1 - share**capacity) ** layers
            if not free <= value <= free + gap:
                return fails(
                    f"s={tokens}, π={share}, C={capacity}, L={layers}: {float(value):.6f}, bound {float(free + gap):.6f}"
                )
        if gap > Fraction(1, 10**4):
            return fails(f"s={tokens}, π={share}, C={capacity}: the bounds are {float(gap):.1e} apart")
    return holds("16 settings")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, layers: int
) -> dict[str, int]:
    """The routers themselves: new scores in every layer, one token followed through all of them under both rules."""
    done, step = {"position": 0, "priorities anew": 0}, max(1, 2_000_000 // (tokens * experts))
    for start in range(0, trials, step):
        n = min(step, trials - start)
        place, row = rng.integers(tokens, size=n), np.arange(n)
        whole = {name: np.ones(n, dtype=bool) for name in done}
        for _ in range(layers):
            scores = rng.standard_normal((n, tokens, experts))
            expert = scores[row, place].argmax(axis=-1)
            whole["position"] &= token_choice.route(scores, capacity).contains(place, expert)
            whole["priorities anew"] &= random_keep.route(scores, capacity, rng=rng).contains(place, expert)
        for name, kept in whole.items():
            done[name] += int(np.count_nonzero(kept))
    return done


def law(side: Side, *, tokens: int, experts: int, capacity: int, layers: int) -> dict[str, float]:
    places = at_places(tokens, Fraction(1, experts), capacity)
    mean = float(sum(places, Fraction(0))) / tokens
    return {"position": float(side.in_all(places, layers)), "priorities anew": mean ** (layers + side.more)}


claim.simulate(
    sample,
    cases=[
        {"tokens": 8, "experts": 2, "capacity": 3, "layers": 3},
        {"tokens": 16, "experts": 4, "capacity": 4, "layers": 4},
    ],
    law=law,
    trials=50_000,
    full=1_000_000,
)
