"""ETR Remark 7 and LocMoE appendix A.3: is the least capacity equal to exp(dδ²/(2-δ²))/n?

ETR prints C_min = exp(dδ_max²/(2-δ_max²))/n, LocMoE's appendix 1/p_i = 1/(n p_δ), where Theorem 1 has an inequality: p_i is
at most n p_δ. In neither place is it an equality. Counting tokens until one reaches δ, E T = 1/(n h(δ)) >= 1/(n q(δ)) = 2/(n
p_δ) (one side, each useful token counted once: locmoe_waiting_time), and p_δ < exp(-dδ²/(2-δ²)) for d >= 3
(locmoe_capacity_bound): E T is always above twice the printed value, and the ratio has no bound: as δ -> 1 at fixed d the
printed value stops at e^d/n and E T grows like (1-δ²)^{-(d-1)/2}. d = 64, n = 8: 6.8 times at δ = .1, 9.6 times at .5, 22
times at .7.
"""

from __future__ import annotations

from dataclasses import dataclass

import flint
import numpy as np
import sympy as sp

from proofs.capacity import locmoe_capacity_bound as published
from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import candidates

arb = flint.arb


@dataclass(frozen=True)
class Side:
    """E T is claimed to be at least `least` times the printed value, and at most `most` times it."""

    least: int
    most: float

    def value(self, delta: float, dim: int, experts: int) -> float:
        return float(np.exp(dim * delta**2 / (2 - delta**2)) / experts)


claim = Claim(
    title="LocMoE's least capacity is a bound and never attained: the waiting time is above twice it",
    statement=r"$E\,T=\frac{1}{n\,h(\delta)}\geq\frac{2}{n\,p_\delta}>\frac2n e^{d\delta^2/(2-\delta^2)}$ for every "
    r"$d\geq 3$ and $0<\delta<1$, with no constant above",
    hypotheses=(r"independent isotropic tokens, orthonormal gates, $2\leq n\leq d$",),
    source="ETR Remark 7, printed as an equality (arXiv 2406.00023); LocMoE Theorem 1, appendix A.3 (arXiv 2401.13920)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=Side(2, float("inf")),
    mutant=Side(4, 50.0),
    mutation="four times, and at most fifty times",
    printed=Side(1, 1.0),
    correction=r"Printed as $C_{min}=\frac1n e^{d\delta_{max}^2/(2-\delta_{max}^2)}$ in ETR and as $1/p_i=1/(np_\delta)$ in "
    r"LocMoE's appendix; it is a strict lower bound, 6.8 times too small at $d=64$, $n=8$, $\delta=.1$, 9.6 times at $.5$.",
    lemmas=("locmoe_capacity_bound", "locmoe_waiting_time"),
)


@claim.certificate("p_δ < exp(-dδ²/(2-δ²)) for all d >= 3, and 1/q = 2/p_δ; above any factor near δ = 1")
def above_twice_for_all_dimensions(side: Side) -> Outcome:
    outcomes = [
        check.run(published.claim.truth)
        for check in published.claim.checks
        if check.kind == "certificate" and "d = 2" not in check.name
    ]
    cap, count = sp.symbols("q n", positive=True)
    outcomes.append(identity(1 / (count * cap), side.least / (count * 2 * cap), name="1/(n q) - least/(n p), p = 2q"))
    # d = 3: E T = 1/(n q), q = (1-δ)/2, above most times the printed value at δ = 1 - 1/(4 most) or nearer to 1
    apart = arb(1) / 10**6
    ratio = 2 / apart / (3 * (1 - apart) ** 2 / (2 - (1 - apart) ** 2)).exp()
    text = f"d = 3, δ = 1 - 1e-6: E T is {float(ratio.mid()):.5g} times the printed value"
    outcomes.append(holds(text) if ratio < arb(side.most) else fails(text))
    return every(outcomes)


@claim.counterexample("d = 64, n = 8, δ = .1, .3, .5: the exact waiting time")
def exact_time_is_larger(side: Side) -> Outcome:
    shown = []
    for delta in (0.1, 0.3, 0.5):
        ratio = float(candidates.waiting_tokens(delta, 64, 8)) / side.value(delta, 64, 8)
        if not side.least <= ratio <= side.most:
            return fails(f"δ={delta}: {ratio:.4f} times the printed value")
        shown.append(f"{ratio:.1f}")
    return holds("E T is " + ", ".join(shown) + " times the printed value")


@claim.reference(
    "the package's waiting times, d = 3 to 4096: all above twice the printed value, with no constant above"
)
def waiting_times_over_printed(side: Side) -> Outcome:
    ratios = []
    for dim, experts in ((3, 2), (8, 8), (64, 8), (4096, 16)):
        for delta in (0.001, 0.02, 0.3 / dim**0.5, 1 / dim**0.5, 2 / (dim + 4) ** 0.5):
            ratios.append(float(candidates.waiting_tokens(delta, dim, experts)) / side.value(delta, dim, experts))
    near = float(candidates.waiting_tokens(0.999, 16, 2)) / side.value(0.999, 16, 2)
    for delta, printed in ((0.1, 6.8), (0.5, 9.6), (0.7, 22)):
        ratio = float(candidates.waiting_tokens(delta, 64, 8)) / side.value(delta, 64, 8)
        if abs(ratio - printed) > (0.5 if printed == 22 else 0.05):
            return fails(f"d=64, n=8, δ={delta}: {ratio:.3f} times the printed value")
    text = f"{min(ratios):.4f} to {max(ratios):.1f} times the printed value, {near:.3g} at δ=.999, d=16; "
    text += f"claimed between {side.least} and {side.most}"
    return holds(text) if side.least < min(ratios) and max(*ratios, near) < side.most else fails(text)


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int, delta: float) -> dict[str, int]:
    best = affinity(rng.standard_normal((trials, dim)), experts).max(axis=1)
    return {"useful": int(np.count_nonzero(best >= delta))}


claim.simulate(
    sample,
    cases=[{"dim": 4, "experts": 2, "delta": 0.05}, {"dim": 32, "experts": 2, "delta": 0.3}],
    law=lambda side, *, dim, experts, delta: {"useful": min(1.0, 1 / (side.least * side.value(delta, dim, experts)))},
    relation="at_most",
    trials=200_000,
)
