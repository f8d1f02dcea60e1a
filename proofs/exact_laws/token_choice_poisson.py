"""N2'. A Poisson lower bound of token choice's success rate that depends on s and n only through the mean load λ = πs.

P/p = E min(N_s, C)/λ with N_s a sum of s Bernoulli(π) variables (N1). Replace them one at a time by Poisson(π) variables:
given the others' sum m, f(k) = min(m + k, C) is concave on the whole numbers, so f(k) <= f(0) + k (f(1) - f(0)) and
E f(Poi(π)) <= f(0) + π (f(1) - f(0)) = E f(Bernoulli(π)). After s steps the count is Poi(λ), so E min(N_s,C) >=
E min(Poi(λ), C). With k b(k) = λ b(k-1) the right side over λ is P(Poi(λ) <= C-1) + (C/λ) P(Poi(λ) >= C+1).
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, ladder, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice

lam = sp.symbols("lambda", positive=True)
k = sp.symbols("k", integer=True, positive=True)


def side(start: int) -> SimpleNamespace:
    """The second tail starts at C + `start`."""

    def value(mean: float, capacity: int) -> float:
        saved, flint.ctx.dps = flint.ctx.dps, 40
        try:
            rate, term, below, c = flint.arb(mean), (-flint.arb(mean)).exp(), flint.arb(0), flint.arb(capacity)
            masses = []
            for j in range(capacity + start):
                masses.append(term)
                term = term * rate / (j + 1)
            below = sum(masses[:capacity], flint.arb(0))
            return float((below + c / rate * (1 - sum(masses, flint.arb(0)))).mid())
        finally:
            flint.ctx.dps = saved

    return SimpleNamespace(start=start, value=value)


claim = Claim(
    title="Poisson lower bound of token choice's success rate",
    statement=r"$\frac{P_{TCR}}{p}\geq P(\mathrm{Poi}(\lambda)\leq C-1)+\frac{C}{\lambda} P(\mathrm{Poi}(\lambda)\geq C+1)$, "
    r"$\lambda=\pi s$",
    hypotheses=(r"$1\leq C\leq s$, $0<\pi\leq 1$",),
    source="new",
    tag="N2'",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="P(Poi >= C) instead of P(Poi >= C+1) in the second term",
    lemmas=("convex order: Bernoulli below Poisson of the same mean",),
    formal=("scalar_lemmas.v: poisson_bound_at_one",),
)


@claim.derivation("the bound is E min(Poi(λ), C)/λ, by recurrence in C")
def bound_e_min_poi_c(side: SimpleNamespace) -> Outcome:
    # B(C) = Q(C-1) + (C/λ)(1 - Q(C-1+start)), Q(j) = P(Poi <= j). Both B(0) and E min(Poi, 0) are 0, and
    # E min(Poi,C+1) - E min(Poi,C) = P(Poi >= C+1) = 1 - Q(C). Write Q = Q(C); k stands for C.
    q = sp.Symbol("Q", positive=True)

    def mass(j: sp.Expr) -> sp.Expr:
        return lam**j * sp.exp(-lam) / sp.factorial(j)

    tail = {-1: 1 - q + mass(k), 0: 1 - q, 1: 1 - q - mass(k + 1)}  # 1 - Q(C + shift)
    growth = mass(k) + ((k + 1) * tail[side.start] - k * tail[side.start - 1]) / lam
    return every(
        [
            identity(k * mass(k), lam * mass(k - 1), unit=mass(k), name="k b(k) - λ b(k-1)"),
            identity(growth, (1 - q) / lam, unit=mass(k), name="B(C+1) - B(C) - P(Poi >= C+1)/λ"),
        ]
    )


@claim.certificate("one Bernoulli variable replaced by a Poisson one lowers E min(m + k, C); the bound at s = C = 1")
def one_bernoulli_variable_replaced_poisson(side: SimpleNamespace) -> Outcome:
    gap, j, x = sp.symbols("gap j x", nonnegative=True)
    # f(k) <= f(0) + k (f(1) - f(0)) for f(k) = min(m+k, C), k >= 1. If m >= C, all are equal to C. Otherwise write
    # C = m + 1 + gap: f(1) - f(0) = 1; up to k = 1 + gap equality, beyond it, k = 2 + gap + j, the slack is
    # m + k - C = 1 + j. In the mean, P(k=1) = π and E k = π agree with the Bernoulli variable's own mean.
    slack = (2 + gap + j) - (1 + gap)

    # s = C = 1, where the law is 1: λ (1 - B) >= 0 for λ >= 0, from its value and slope at 0 and its curvature exp(-λ)
    below, tail = sp.exp(-x), 1 - sum(x**i * sp.exp(-x) / sp.factorial(i) for i in range(1 + side.start))
    worst = x - x * below - tail
    return every(
        [
            nonnegative_polynomial(sp.expand(slack), {gap: 0, j: 0}, strict=True, name="concavity"),
            ladder(
                worst,
                x,
                lambda second: nonnegative_polynomial(sp.expand(sp.simplify(second * sp.exp(x))), {x: 0}),
                steps=2,
                name="λ (1 - bound) at s = C = 1",
            ),
        ]
    )


@claim.reference("below the exact law for 600 settings, and the package's Poisson bound against 40-digit sums")
def below_exact_law_settings_package(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(13)
    worst = 0.0
    for _ in range(600):
        experts, capacity = int(10 ** rng.uniform(0, 4)), int(10 ** rng.uniform(0, 2))
        tokens = max(capacity, int(experts * capacity * 10 ** rng.uniform(-1, 0.7)))
        bound = side.value(tokens / experts, capacity)
        exact = float(token_choice.success(tokens, capacity, Rates(experts=experts)))
        if bound > exact * (1 + 1e-12):
            return fails(f"s={tokens}, n={experts}, C={capacity}: bound {bound:.8f} above the law {exact:.8f}")
        ours = float(token_choice.bounds(tokens, capacity, Rates(experts=experts), kind="poisson")[0])
        worst = max(worst, abs(ours / bound - 1))
    return (
        holds(f"no violation; package agrees to {worst:.0e}")
        if worst < 1e-11
        else fails(f"package differs by {worst:.1e}")
    )


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: float, capacity: int) -> dict[str, int]:
    """Position order: the token at a uniform position has Bin(position, π) rivals before it, π = 1/experts."""
    rivals = rng.binomial(rng.integers(tokens, size=trials), 1 / experts)
    return {"kept": int(np.count_nonzero(rivals < capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 8, "experts": 4, "capacity": 2}, {"tokens": 24, "experts": 8 / 3, "capacity": 8}],
    law=lambda side, *, tokens, experts, capacity: {"kept": side.value(tokens / experts, capacity)},
    relation="at_least",
)
