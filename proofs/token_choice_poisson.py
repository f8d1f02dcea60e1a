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

from resonance_theory.rules import token_choice
from resonance_theory.verification.certify import identity, nonnegative_polynomial
from resonance_theory.verification.claim import Claim, Verdict
from resonance_theory.verification.outcome import Outcome, every, fails, holds

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
    statement=r"$\frac{P_{TCR}}{p}\geq P(\mathrm{Poi}(\lambda)\leq C-1)+\frac C\lambda P(\mathrm{Poi}(\lambda)\geq C+1)$, "
    r"$\lambda=\pi s$",
    hypotheses=(r"$1\leq C\leq s$, $0<\pi\leq 1$",),
    source="new (N2')",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="P(Poi >= C) instead of P(Poi >= C+1) in the second term",
    lemmas=("convex order: Bernoulli below Poisson of the same mean",),
)


@claim.derivation("the bound is E min(Poi(λ), C)/λ")
def _(side: SimpleNamespace) -> Outcome:
    def mass(j: sp.Expr) -> sp.Expr:
        return lam**j * sp.exp(-lam) / sp.factorial(j)

    # Σ_{j<=C} j b(j)/λ = Σ_{j<=C-1} b(j), and the values above C count C: those with j >= C+1
    c = sp.Integer(3)
    closed = sum(mass(sp.Integer(j)) for j in range(3)) + c / lam * (
        1 - sum(mass(sp.Integer(j)) for j in range(3 + side.start))
    )
    direct = sum(sp.Integer(j) * mass(sp.Integer(j)) for j in range(4)) / lam + c / lam * (
        1 - sum(mass(sp.Integer(j)) for j in range(4))
    )
    return every(
        [
            identity(k * mass(k) - lam * mass(k - 1), unit=mass(k), name="k b(k) - λ b(k-1)"),
            identity(sp.expand((closed - direct) * sp.exp(lam)), name="closed form - E min(Poi,3)/λ"),
        ]
    )


@claim.certificate("concavity of min(m+k, C) at 0, by cases, and equality of the Bernoulli mean")
def _(side: SimpleNamespace) -> Outcome:
    gap, j = sp.symbols("gap j", nonnegative=True)
    # m + 1 <= C = m + 1 + gap: f(1) - f(0) = 1. If m + k <= C equality; otherwise k = 1 + gap + 1 + j and
    # k (f(1)-f(0)) - (C - m) = (2 + gap + j) - (1 + gap) >= 0. If m >= C all terms are equal.
    # The tail of the bound must start where min(k, C) stops growing: C b(C) is in the first sum once, not twice.
    twice = 1 - side.start
    return every(
        [
            nonnegative_polynomial(sp.expand((2 + gap + j) - (1 + gap)), {gap: 0, j: 0}, strict=True, name="concavity"),
            holds("no mass is counted twice")
            if twice == 0
            else fails(f"the mass at k = C is counted {1 + twice} times"),
        ]
    )


@claim.reference("below the exact law for 600 settings, and the package's Poisson bound against 40-digit sums")
def _(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(13)
    worst = 0.0
    for _ in range(600):
        experts, capacity = int(10 ** rng.uniform(0, 4)), int(10 ** rng.uniform(0, 2))
        tokens = max(capacity, int(experts * capacity * 10 ** rng.uniform(-1, 0.7)))
        bound = side.value(tokens / experts, capacity)
        exact = float(token_choice.success(tokens, experts, capacity))
        if bound > exact * (1 + 1e-12):
            return fails(f"s={tokens}, n={experts}, C={capacity}: bound {bound:.8f} above the law {exact:.8f}")
        ours = float(token_choice.bounds(tokens, experts, capacity, kind="poisson")[0])
        worst = max(worst, abs(ours / bound - 1))
    return (
        holds(f"no violation; package agrees to {worst:.0e}")
        if worst < 1e-11
        else fails(f"package differs by {worst:.1e}")
    )


def sample(rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int) -> dict[str, int]:
    """Position order: the token at a uniform position has Bin(position, 1/n) rivals before it."""
    rivals = rng.binomial(rng.integers(tokens, size=trials), 1 / experts)
    return {"kept": int(np.count_nonzero(rivals < capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 8, "experts": 4, "capacity": 2}, {"tokens": 24, "experts": 4, "capacity": 5}],
    law=lambda side, *, tokens, experts, capacity: {"kept": side.value(tokens / experts, capacity)},
    relation="at_least",
)
