"""ETR Corollary 6: does a false-positive rate of order 1 make token choice much better than expert choice?

Printed: for q = Θ(1) the success of expert choice collapses and token choice is much better; for q = o(1) expert choice wins.
The regimes are right only at capacities below the crossing. In the fluid limit s -> ∞ with c = C/s:
    TCR -> p min(1, c/π),   ECR -> 1{c > q},   RES -> p 1{c > ρπ},
by Hoeffding's inequality: |F(q) - 1{c > q}| <= exp(-2(s-1)(c' - q)²) with c' the nearer of C/(s-1), (C-1)/(s-1). So at any fixed
q of order 1 expert choice succeeds almost surely as soon as c > q: with q = .3, C = .4 s, n = 8, p = .9 it has .9996 at s = 256
where token choice has .9. Exact crossings at finite s: crossovers.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, expert_choice, resonance, token_choice


def side(edge: float) -> SimpleNamespace:
    """Expert choice succeeds in the limit exactly if c > `edge` * q; infinity: never at a fixed q (as printed)."""
    return SimpleNamespace(edge=edge)


claim = Claim(
    title="When token choice beats expert choice: not whenever the false-positive rate is of order 1",
    statement=r"with $C=cs$, $s\to\infty$: $P_{TCR}\to p\min\{1,c/\pi\}$, $P_{ECR}\to 1\{c>q\}$, $P_{RES}\to p\,1\{c>\rho\pi\}$; "
    r"so for $c>q$ expert choice beats token choice however large the fixed $q<1$ is",
    hypotheses=(r"fixed $q,\rho,p,\pi,c\in(0,1)$, $c\neq q$, $c\neq\rho\pi$",),
    source="ETR Corollary 6 (arXiv 2406.00023)",
    kind="asymptotic",
    expected=Verdict.CORRECTED,
    truth=side(1.0),
    mutant=side(1.25),
    mutation="the edge of expert choice at c = 5q/4",
    printed=side(float("inf")),
    correction=r"Printed: $q=\Theta(1)$ implies that token choice is much better. False once $C/s>q$: with $q=.3$, $C=.4s$, "
    r"$n=8$, $p=.9$, $s=256$ expert choice succeeds with .9996 and token choice with .9. The crossing is at $C/s=q$ in the "
    r"limit, and at a quantile of $\mathrm{Beta}(C,s-C)$ exactly.",
    lemmas=("Hoeffding's inequality", "N1 (token_choice_exact)", "N2 (token_choice_sharp)"),
)


@claim.derivation("limits of the three rates from two-sided bounds that close")
def limits_three_rates_two_sided(side: SimpleNamespace) -> Outcome:
    c, q, pi, s = sp.symbols("c q pi s", positive=True)
    # token choice between N2 and Jensen: with C = cs the variance term C(1-π)/π² over s² vanishes
    y = sp.symbols("y", positive=True)
    root = sp.sqrt(c * (1 - pi) / (pi**2 * s) + (c / pi - 1) ** 2)
    lower = (c / pi + 1 - root) / 2
    outcomes = [
        identity(sp.limit(lower.subs(c, pi * (1 + y)), s, sp.oo), 1, name="limit of N2 above the load - 1"),
        identity(sp.limit(lower.subs(c, pi / (1 + y)), s, sp.oo), 1 / (1 + y), name="limit of N2 below the load - c/π"),
    ]
    # expert choice: the exponent 2 (s-1)(c-q)² vanishes only at c = q, where the side must have its edge
    exponent = 2 * (c - q) ** 2
    edge = sp.nsimplify(side.edge) if np.isfinite(side.edge) else sp.oo
    at_edge = exponent.subs(c, edge * q)
    text = f"Hoeffding's exponent at the claimed edge c = {edge} q is {at_edge}"
    outcomes.append(holds(text) if at_edge == 0 else fails(text + ", not 0: the limit is already decided there"))
    return every(outcomes)


@claim.counterexample("q = .3 of order 1, C/s = .4, n = 8, p = .9")
def q_order_c_s_n(side: SimpleNamespace) -> Outcome:
    for s in (256, 4096, 65536):
        capacity = int(0.4 * s)
        ecr = float(expert_choice.success(s, capacity, Rates(false_positive=0.3)))
        tcr = float(token_choice.success(s, capacity, Rates(experts=8, hit=0.9)))
        if ecr > tcr and not capacity / s > side.edge * 0.3:
            return fails(f"s={s}: token choice {tcr:.4f} is said to win, expert choice has {ecr:.4f}")
    return holds("the order of the rules is as claimed")


@claim.reference("rates of the three rules at s = 10^8 against the fluid limit")
def rates_three_rules_s_fluid(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(25)
    s = 10**8
    cases = [(0.3, 0.35, 0.5, 0.9, 8)]
    used = 0
    cases += [(*rng.uniform(0.02, 0.9, 3), rng.uniform(0.2, 1), int(rng.integers(2, 40))) for _ in range(200)]
    for q, c, rho, p, n in cases:
        if min(abs(c - q), abs(c - rho / n), abs(c - 1 / n)) < 0.002:
            continue
        used += 1
        capacity = int(c * s)
        limits = (p * min(1, c * n), float(c > side.edge * q), p * float(c > rho / n))
        values = (
            float(token_choice.success(s, capacity, Rates(experts=n, hit=p))),
            float(expert_choice.success(s, capacity, Rates(false_positive=q))),
            float(resonance.success(s, capacity, Rates(hit=p, candidate_tail=rho / n))),
        )
        for name, value, limit in zip(("TCR", "ECR", "RES"), values, limits):
            if abs(value - limit) > 1e-3:
                return fails(f"{name} at q={q:.3f}, c={c:.3f}, ρ={rho:.3f}, n={n}: {value:.5f}, limit {limit:.5f}")
    return holds(f"{used} settings within 1e-3 of the limit")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, capacity: int, q: float) -> dict[str, int]:
    return {"expert choice": int(np.count_nonzero(rng.binomial(tokens - 1, q, trials) < capacity))}


claim.simulate(
    sample,
    # at this size the limit is reached to 1e-30 on both sides of c = q
    cases=[{"tokens": 10**6, "capacity": 310_000, "q": 0.3}, {"tokens": 10**6, "capacity": 290_000, "q": 0.3}],
    law=lambda side, *, tokens, capacity, q: {"expert choice": float(capacity / tokens > side.edge * q)},
)
