"""Skewed loads (ETR Assumption 4 dropped). With the same slots for every expert, a uniform load keeps the most candidates.

φ(π) = E min(Bin(s,π), C) has φ' = s P(Bin(s-1,π) <= C-1) and φ'' = -s(s-1) b(s-2,C-1) <= 0: since d/dπ b(m,j) =
m (b(m-1,j-1) - b(m-1,j)), both sums telescope. So the kept fraction Σ_i φ(π_i)/(s Σ_i π_i) is at most that of the mean load
(Jensen), and more skew in the sense of majorization keeps no more (Schur: a transfer from a heavy to a light expert keeps
more). To second order the loss is (s-1) b(s-2,C-1) n Var(π)/(2 ℓ).

What does not follow: a class-discriminative token of a uniform class succeeds with (1/n) Σ p K(π_i), K(π) = φ(π)/(sπ), and K is
convex at loads above θ* (over_dispersion): where slots are short, skew raises that average.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice
from resonance_theory.tokens.samplers import Dependent

m, j, s, C = sp.symbols("m j s C", integer=True, positive=True)
pi = sp.symbols("pi", positive=True)
POINTS = [{m: 7, j: 3, s: 9, C: 4, pi: sp.Rational(2, 7)}, {m: 5, j: 1, s: 6, C: 2, pi: sp.Rational(1, 3)}]


def mass(trials: sp.Expr, count: sp.Expr) -> sp.Expr:
    return sp.binomial(trials, count) * pi**count * (1 - pi) ** (trials - count)


def kept(tokens: int, share: Fraction, capacity: int) -> Fraction:
    """E min(Bin(s, π), C)."""
    mass = (comb(tokens, k) * share**k * (1 - share) ** (tokens - k) for k in range(tokens + 1))
    return sum((min(k, capacity) * value for k, value in enumerate(mass)), Fraction(0))


def of_candidates(tokens: int, shares: list[Fraction], capacity: int) -> Fraction:
    return sum((kept(tokens, p, capacity) for p in shares), Fraction(0)) / (tokens * sum(shares))


def of_classes(tokens: int, shares: list[Fraction], capacity: int) -> Fraction:
    return sum((kept(tokens, p, capacity) / (tokens * p) for p in shares), Fraction(0)) / len(shares)


claim = Claim(
    title="Skewed loads: the mean kept fraction is largest at the uniform load",
    statement=r"$\frac{\sum_iE\min(N_i,C)}{\sum_iEN_i}\leq\frac{E\min(\mathrm{Bin}(s,\bar\pi),C)}{s\bar\pi}$, Schur-concave "
    r"in the loads; $\frac{d^2}{d\pi^2}E\min(\mathrm{Bin}(s,\pi),C)=-s(s-1)P(\mathrm{Bin}(s-2,\pi)=C-1)$",
    hypotheses=(
        r"$N_i\sim\mathrm{Bin}(s,\pi_i)$, jointly in any way, $\bar\pi=\frac1n\sum_i\pi_i$",
        r"the same capacity $C$ for every expert",
    ),
    source="ETR Assumption 4 (arXiv 2406.00023) dropped; new",
    tag="N1, N3",
    kind="bound",
    expected=Verdict.PROVED,
    truth=SimpleNamespace(average=of_candidates, weight=sp.Integer(1)),
    mutant=SimpleNamespace(average=of_classes, weight=1 / pi),
    mutation="the success rate averaged over classes instead of over candidates",
    lemmas=("Jensen's inequality", "Schur-Ostrowski: a sum of concave functions is Schur-concave"),
)


@claim.derivation("the averaged function is concave: φ' and φ'' in closed form, term by term")
def averaged_function_concave_closed_form(side: SimpleNamespace) -> Outcome:
    # φ = Σ_{c<C} P(N > c). d/dπ P(Bin(m,π) <= c) = -m b(m-1,c): sum over j <= c of m (b(m-1,j-1) - b(m-1,j)) telescopes.
    step = (sp.diff(mass(m, j), pi), m * (mass(m - 1, j - 1) - mass(m - 1, j)))
    first = (sp.diff(mass(m, sp.Integer(0)), pi), -(m * mass(m - 1, sp.Integer(0))))
    outcomes = [
        identity(*step, points=POINTS, unit=mass(m, j), name="d/dπ b(m,j) - m (b(m-1,j-1) - b(m-1,j))"),
        identity(*first, points=POINTS, unit=mass(m, sp.Integer(0)), name="the same at j = 0"),
    ]
    # hence φ' = Σ_{c<C} s b(s-1,c) = s P(Bin(s-1,π) <= C-1), and φ'' = -s(s-1) b(s-2,C-1) <= 0. The side averages weight·φ/s:
    phi, f = sp.Function("phi")(pi), sp.Symbol("F", positive=True)
    second = sp.diff(side.weight * phi, pi, 2).doit()
    b = sp.Symbol("b", nonnegative=True)
    second = second.subs(sp.Derivative(phi, (pi, 2)), -s * (s - 1) * b).subs(sp.Derivative(phi, pi), s * f)
    extra = (second, -(side.weight * s * (s - 1) * b))
    outcomes.append(
        identity(
            *extra,
            points=[{s: 9, f: sp.Rational(1, 9), pi: sp.Rational(4, 5), phi: 4}],
            name="second derivative of the averaged function + weight s(s-1) b(s-2,C-1)",
        )
    )
    return every(outcomes)


@claim.reference("exact rationals: random loads and transfers between two experts; the package with `load`")
def exact_rationals_random_loads_transfers(side: SimpleNamespace) -> Outcome:
    rng, compared = np.random.default_rng(31), 0
    for tokens, capacity in ((8, 1), (8, 3), (20, 2), (20, 6), (20, 15)):
        for _ in range(12):
            parts = [int(v) for v in rng.multinomial(60, rng.dirichlet(np.ones(4))) + 1]
            shares = [Fraction(v, sum(parts)) for v in parts]
            value = side.average(tokens, shares, capacity)
            uniform = side.average(tokens, [Fraction(1, 4)] * 4, capacity)
            if value > uniform:
                return fails(f"s={tokens}, C={capacity}, loads {shares}: {float(value):.6f} beats {float(uniform):.6f}")
            heavy, light = max(range(4), key=parts.__getitem__), min(range(4), key=parts.__getitem__)
            nearer = list(shares)
            nearer[heavy], nearer[light] = (
                (3 * shares[heavy] + shares[light]) / 4,
                (shares[heavy] + 3 * shares[light]) / 4,
            )
            if side.average(tokens, nearer, capacity) < value:
                return fails(f"s={tokens}, C={capacity}: a transfer from heavy to light loses, loads {shares}")
            load = np.array([float(p) for p in shares])
            ours = float(load @ token_choice.success(tokens, capacity, Rates(experts=4, load=load)))
            if abs(ours / float(value) - 1) > 1e-13:
                return fails(f"package {ours}, exactly {float(value)}")
            compared += 2
    return holds(f"{compared} comparisons in exact rationals")


def sample(rng: np.random.Generator, trials: int, *, load: list[float], capacity: int) -> dict[str, int]:
    """Is a random token kept? Skewed routes through the router."""
    model, done = Dependent(0.0, len(load), len(load), load=load), 0
    for start in range(0, trials, 20_000):
        count = min(20_000, trials - start)
        routed = token_choice.route(model.background(rng, count, 24), capacity)
        done += int(np.count_nonzero(routed.token == rng.integers(24, size=count)[routed.sample]))
    return {"kept": done}


def law(side: SimpleNamespace, *, load: list[float], capacity: int) -> dict[str, float]:
    return {"kept": float(side.average(24, [Fraction(str(p)) for p in load], capacity))}


claim.simulate(
    sample,
    cases=[
        {"load": [0.25, 0.25, 0.25, 0.25], "capacity": 6},
        {"load": [0.49, 0.3, 0.11, 0.1], "capacity": 6},
    ],
    law=law,
    trials=60_000,
)
