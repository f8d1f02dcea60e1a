"""The expected reward is Σ p_k v_k E_k: the owner maximises value less virtual cost, and a generic solver agrees.

By contract_binding the least rewards are sums of ψ(E_j - E_{j-1})/θ_j. Their mean is, summed by parts, Σ_j ψ(E_j -
E_{j-1}) P_{>=j}/θ_j = Σ_k E_k ψ [P_{>=k}/θ_k - P_{>=k+1}/θ_{k+1}] = Σ_k p_k v_k E_k. So the owner's problem is to
maximise Σ p_k [V(E_k) - v_k E_k] over efforts that rise (contract_pooling solves it). The generic solver knows nothing
of this: it gets all K² constraints on efforts and rewards.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import LinearConstraint, isotonic_regression, minimize

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.screening_contract import best_contract, virtual_cost


def side(rent: Any) -> SimpleNamespace:
    """`cost(θ, p)`: virtual costs at ψ = 1, with the share `rent` of the rent that they should hold."""

    def cost(types: list[Any], shares: list[Any]) -> list[Any]:
        found = []
        for k, theta in enumerate(types):
            better = sum(shares[k + 1 :])
            step = 1 / theta - 1 / types[k + 1] if k + 1 < len(types) else 0
            found.append(1 / theta + rent * better * step / shares[k])
        return found

    return SimpleNamespace(cost=cost)


claim = Claim(
    title="The best menu asks each type for the effort that its virtual cost is worth",
    statement=r"$\sum_k p_kR_k=\sum_k p_kv_kE_k$ with $v_k=\psi\left[\frac{1}{\theta_k}+\frac{P_{>k}}{p_k}"
    r"\left(\frac{1}{\theta_k}-\frac{1}{\theta_{k+1}}\right)\right]$; the best efforts have $V'(E_k)=v_k$ after pooling",
    hypotheses=(
        r"$0<\theta_1<\dots<\theta_K$, shares $p_k>0$",
        r"$V$ concave; for the solver $V(E)=\omega\ln(1+E)$",
    ),
    source="screening contracts of federated learning (Kang et al. 2019); async FL text: not available (arXiv 2310.06448)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="the cost of effort alone, without the rent left to better types",
)


@claim.derivation("mean reward, summed by parts, for four types")
def by_parts(s: SimpleNamespace) -> Outcome:
    theta, p, e = (list(sp.symbols(f"{name}1:5", positive=True)) for name in ("theta", "p", "E"))
    steps = [(e[k] - (e[k - 1] if k else 0)) / theta[k] for k in range(4)]
    rewards = [sum(steps[: k + 1]) for k in range(4)]
    cost = s.cost(theta, p)
    return identity(
        sum(p[k] * rewards[k] for k in range(4)),
        sum(p[k] * cost[k] * e[k] for k in range(4)),
        name="mean reward less virtual cost",
    )


def solved(types: np.ndarray, shares: np.ndarray, worth: float) -> tuple[np.ndarray, float]:
    """Efforts and profit of a generic solver that gets every constraint."""
    size = len(types)
    rows = []
    for k in range(size):
        stay = np.zeros(2 * size)
        stay[k], stay[size + k] = -1 / types[k], 1.0
        rows.append(stay)
        for j in range(size):
            if j != k:
                other = stay.copy()
                other[j] += 1 / types[k]
                other[size + j] -= 1.0
                rows.append(other)
    limits = LinearConstraint(np.array(rows), 0.0, np.inf)

    def loss(z: np.ndarray) -> float:
        return -float(shares @ (worth * np.log1p(np.maximum(z[:size], -0.99)) - z[size:]))

    def slope(z: np.ndarray) -> np.ndarray:
        return np.concatenate([-shares * worth / (1 + np.maximum(z[:size], -0.99)), shares])

    start = np.concatenate([np.ones(size), np.full(size, 2 / types[0])])
    bounds = [(0, None)] * (2 * size)
    settings = {"maxiter": 2000, "ftol": 1e-15}
    found = minimize(loss, start, jac=slope, method="SLSQP", bounds=bounds, constraints=[limits], options=settings)
    return found.x[:size], -float(found.fun)


@claim.reference("a generic solver with all constraints, on random menus")
def generic(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(7)
    worst = pooled = 0.0
    for _ in range(20):
        size = int(rng.integers(2, 6))
        types, shares = 0.5 + np.cumsum(rng.uniform(0.2, 1.0, size)), rng.dirichlet(np.full(size, 2.0))
        worth = float(rng.uniform(3, 10))
        cost = np.array(s.cost(list(types), list(shares)))
        flat = isotonic_regression(cost, weights=shares, increasing=False).x
        effort = np.maximum(worth / flat - 1, 0)
        pooled += float(np.any(flat != cost))
        worst = max(worst, float(np.max(np.abs(effort - solved(types, shares, worth)[0]))))
    text = f"20 menus, {pooled:.0f} of them pooled: efforts differ by at most {worst:.2g}"
    return holds(text) if worst < 1e-4 else fails(text)


@claim.reference("the package against the formula in 50 digits")
def package(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(8)
    worst = 0.0
    for _ in range(20):
        size = int(rng.integers(2, 9))
        types = np.cumsum(rng.exponential(size=size) + 1e-3)
        shares = rng.dirichlet(np.ones(size))
        wanted = s.cost([sp.Rational(float(t)) for t in types], [sp.Rational(float(p)) for p in shares])
        found = virtual_cost(types, shares / shares.sum())
        worst = max(worst, max(abs(float(sp.N(w, 50)) / f - 1) for w, f in zip(wanted, found)))
        best_contract(types, shares / shares.sum())
    text = f"largest relative error {worst:.2g}"
    return holds(text) if worst < 1e-12 else fails(text)
