"""What private types cost: every type but the best works less, and clients keep Σ P_{>k} ψ E_k (1/θ_k - 1/θ_{k+1}).

Type k's rent is what the type below would keep with k's cost: U_k = U_{k-1} + ψE_{k-1}(1/θ_{k-1} - 1/θ_k), U_1 = 0. Its
mean, summed by parts, counts each term for all better types. The virtual cost exceeds ψ/θ_k by that rent per unit of
effort, and is ψ/θ_K for the best type: no distortion at the top, and too little effort below.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.screening_contract import best_contract, full_information_effort, virtual_cost


def side(first: int) -> SimpleNamespace:
    """`rent(θ, p, E)` at ψ = 1: each term counts for the types from `first` places above k on."""

    def rent(types: Any, shares: Any, effort: Any) -> Any:
        steps = [effort[k] * (1 / types[k] - 1 / types[k + 1]) for k in range(len(types) - 1)]
        return sum(sum(shares[k + first :]) * step for k, step in enumerate(steps))

    return SimpleNamespace(rent=rent)


claim = Claim(
    title="Information rent: the sum over types of what all better ones keep",
    statement=r"$\sum_k p_k\left(R_k-\frac{\psi E_k}{\theta_k}\right)=\sum_{k<K}P_{>k}\,\psi E_k"
    r"\left(\frac{1}{\theta_k}-\frac{1}{\theta_{k+1}}\right)$; $v_k\geq\frac{\psi}{\theta_k}$, equal at $k=K$, so that efforts "
    r"are at most those of full information",
    hypotheses=(r"$0<\theta_1<\dots<\theta_K$", "the least rewards of contract_binding"),
    source="screening contracts of federated learning (Kang et al. 2019); async FL text: not available (arXiv 2310.06448)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="each term counted for the type itself as well",
)


@claim.derivation("mean rent of four types, summed by parts")
def by_parts(s: SimpleNamespace) -> Outcome:
    theta, p, e = (list(sp.symbols(f"{name}1:5", positive=True)) for name in ("theta", "p", "E"))
    steps = [(e[k] - (e[k - 1] if k else 0)) / theta[k] for k in range(4)]
    kept = [sum(steps[: k + 1]) - e[k] / theta[k] for k in range(4)]
    return identity(sum(p[k] * kept[k] for k in range(4)), s.rent(theta, p, e), name="mean rent")


@claim.certificate("virtual cost above the cost: its numerator has no negative coefficient")
def above(s: SimpleNamespace) -> Outcome:
    t, gap, p, better = sp.symbols("t gap p better", nonnegative=True)
    # per unit of effort of type k alone: rent over its share, for types t < t + gap with shares p, better
    excess = s.rent([t, t + gap], [p, better], [1, 0]) / p
    excess_claimed = better / p * (1 / t - 1 / (t + gap))
    same = identity(excess, excess_claimed, name="excess - (P_{>k}/p_k)(1/θ_k - 1/θ_{k+1})")
    part = sp.fraction(sp.cancel(sp.together(excess_claimed)))[0]
    return every([same, nonnegative_polynomial(sp.expand(part), {better: 0, gap: 0})])


@claim.reference("menus of the package")
def menus(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(5)
    worst = above = 0.0
    for _ in range(50):
        size = int(rng.integers(2, 9))
        types, shares = np.cumsum(rng.exponential(size=size) + 0.05), rng.dirichlet(np.ones(size))
        shares = shares / shares.sum()
        menu = best_contract(types, shares, worth=4.0)
        worst = max(worst, abs(menu.rent() - s.rent(types, shares, menu.effort)))
        best = full_information_effort(types, worth=4.0)
        top = abs(virtual_cost(types, shares)[-1] * types[-1] - 1)
        above = max(above, float((menu.effort - best).max()), top)
    text = f"rents differ by at most {worst:.2g}; effort above full information by at most {above:.2g}"
    return holds(text) if worst < 1e-9 and above < 1e-9 else fails(text)
