"""Rewards that add ψ(E_k - E_{k-1})/θ_k from type to type satisfy all K² constraints, if efforts rise with the type.

Write D_i = ψ(E_i - E_{i-1}) >= 0, E_0 = 0, R_k = Σ_{i<=k} D_i/θ_i. Type k prefers its item to a lower item j by
Σ_{j<i<=k} D_i (1/θ_i - 1/θ_k) >= 0, and to a higher one by Σ_{k<i<=j} D_i (1/θ_k - 1/θ_i) >= 0; nobody is below 0 since
j = 0 is to stay away. Each term has its sign because θ rises. Conversely both constraints between adjacent types imply
E_k >= E_{k-1}, and no smaller reward satisfies the downward ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.screening_contract import best_contract

Rewards = Callable[[Sequence[Any], Sequence[Any]], list[Any]]


def added(types: Sequence[Any], effort: Sequence[Any]) -> list[Any]:
    """R_k = Σ_{i<=k} (E_i - E_{i-1})/θ_i, at ψ = 1."""
    total, last, found = Fraction(0), Fraction(0), []
    for theta, e in zip(types, effort):
        total, last = total + (e - last) / theta, e
        found.append(total)
    return found


claim = Claim(
    title="Only the least type's participation and each type's envy of the one below bind",
    statement=r"with $R_k=\sum_{i\leq k}\frac{\psi(E_i-E_{i-1})}{\theta_i}$ and $E_1\leq\dots\leq E_K$ every type "
    r"weakly prefers its item to all others and to none: $R_k-\frac{\psi E_k}{\theta_k}\geq "
    r"\max(0,R_j-\frac{\psi E_j}{\theta_k})$",
    hypotheses=(r"$0<\theta_1<\dots<\theta_K$", r"$0\leq E_1\leq\dots\leq E_K$"),
    source="screening contracts of federated learning (Kang et al. 2019); async FL text: not available (arXiv 2310.06448)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=SimpleNamespace(rewards=added),
    mutant=SimpleNamespace(rewards=lambda types, effort: [e / theta for theta, e in zip(types, effort)]),
    mutation="rewards that cover each type's own cost, without rent",
)


@claim.certificate("all constraints of four types: numerators without a negative coefficient")
def four_types(s: SimpleNamespace) -> Outcome:
    t, d = sp.symbols("t1:5", nonnegative=True), sp.symbols("d1:5", nonnegative=True)
    types, effort = [sum(t[: k + 1]) for k in range(4)], [sum(d[: k + 1]) for k in range(4)]
    rewards = s.rewards(types, effort)
    corner = dict.fromkeys((*t, *d), 0)
    outcomes = []
    for k in range(4):
        outside = rewards[k] - effort[k] / types[k]
        others = [outside - (rewards[j] - effort[j] / types[k]) for j in range(4) if j != k]
        for slack in (outside, *others):
            numerator, denominator = sp.fraction(sp.cancel(sp.together(slack)))
            both = [nonnegative_polynomial(sp.expand(part), corner) for part in (numerator, denominator)]
            outcomes.append(every(both))
    checked = every(outcomes)
    return holds("16 constraints, every coefficient non-negative") if checked.holds else checked


@claim.reference("menus of the package: rewards by exact rationals, utilities of all pairs")
def menus(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(20231006)
    worst = least = 0.0
    for _ in range(50):
        size = int(rng.integers(1, 9))
        types, shares = np.cumsum(rng.exponential(size=size) + 0.05), rng.dirichlet(np.ones(size))
        menu = best_contract(types, shares / shares.sum(), worth=float(rng.uniform(1, 20)))
        told = s.rewards(*([Fraction(float(x)) for x in row] for row in (types, menu.effort)))
        worst = max(worst, float(np.max(np.abs(menu.reward - [float(r) for r in told]))))
        utility = menu.utility()
        scale = 1 + menu.reward.max()
        least = min(
            least, float((np.diagonal(utility)[:, None] - utility).min() / scale), float(np.diagonal(utility).min())
        )
    text = f"rewards differ by at most {worst:.2g}, the smallest advantage is {least:.2g}"
    return holds(text) if worst < 1e-9 and least > -1e-12 else fails(text)
