"""N6. Exact crossovers: the percentile and the false-positive rate at which resonance and expert choice overtake token choice.

F(h) = P(Bin(s-1,h) <= C-1) = 1 - I_h(C, s-C) falls strictly from 1 to 0 (its slope is minus the density of Beta(C, s-C),
expert_choice_exact). So F(πρ) > P_TCR/p exactly if I_{πρ}(C, s-C) < 1 - P_TCR/p, i.e. if ρ is below the (1 - P_TCR/p)-quantile
of Beta(C, s-C) over π; likewise F(q) > P_TCR exactly if q is below the (1 - P_TCR)-quantile.
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp
from scipy import special

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.rules import Rates, expert_choice, resonance, token_choice


def side(extra: int) -> SimpleNamespace:
    """The quantile is that of Beta(C, s - C + `extra`)."""

    def crossing(tokens: int, capacity: int, rate: float) -> float:
        return float(special.betaincinv(capacity, tokens - capacity + extra, 1 - rate))

    return SimpleNamespace(extra=extra, crossing=crossing)


claim = Claim(
    title="Exact crossovers of resonance and expert choice with token choice",
    statement=r"at a fixed percentile, $P_{RES}>P_{TCR}$ iff $\rho<\pi^{-1}\mathrm{BetaInv}(1-P_{TCR}/p;\,C,s-C)$; at a fixed "
    r"affinity, $P_{ECR}>P_{TCR}$ iff $q<\mathrm{BetaInv}(1-P_{TCR};\,C,s-C)$",
    hypotheses=(r"$1\leq C<s$",),
    source="new; replaces the regimes of ETR Corollary 6",
    tag="N6",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(0),
    mutant=side(1),
    mutation="Beta(C, s-C+1) instead of Beta(C, s-C)",
)


@claim.derivation("F is the upper tail of Beta(C, s-C): equal slopes, equal value at 0")
def f_upper_tail_beta_c(side: SimpleNamespace) -> Outcome:
    s, c = sp.symbols("s C", integer=True, positive=True)
    h = sp.symbols("h", positive=True)
    # slope of F: the telescoped sum of expert_choice_exact
    slope = -(s - 1) * sp.binomial(s - 2, c - 1) * h ** (c - 1) * (1 - h) ** (s - c - 1)
    b = s - c + side.extra
    density = sp.gamma(c + b) / (sp.gamma(c) * sp.gamma(b)) * h ** (c - 1) * (1 - h) ** (b - 1)
    return identity(
        slope, -(density), points=[{s: 9, c: 4, h: sp.Rational(2, 7)}], unit=density, name="F' + Beta density"
    )


@claim.reference(
    "the package's rates on both sides of crossovers, a millionth apart, any load; the crossing by 40-digit tails"
)
def package_s_rates_sides_crossovers(side: SimpleNamespace) -> Outcome:
    rng, used = np.random.default_rng(22), 0
    for _ in range(500):
        experts, tokens = int(rng.integers(2, 64)), int(10 ** rng.uniform(0.7, 5))
        capacity = int(np.clip(tokens / experts * 10 ** rng.uniform(-1, 0.3), 1, tokens - 1))
        load = None if rng.random() < 0.5 else float(rng.uniform(0.01, 0.9))  # of equal experts, or one of its own
        tcr = float(token_choice.success(tokens, capacity, Rates(experts=experts, load=load)))
        if 1 - tcr < 1e-6:  # no room: the quantile of 1 - P loses its digits
            continue
        used += 1
        at = side.crossing(tokens, capacity, tcr)
        for sign in (-1, 1):
            h = at * (1 + sign * 1e-6)
            res = float(resonance.success(tokens, capacity, Rates(hit=1.0, candidate_tail=h)))
            ecr = float(expert_choice.success(tokens, capacity, Rates(false_positive=h)))
            if (res > tcr) != (sign < 0) or (ecr > tcr) != (sign < 0):
                return fails(f"s={tokens}, n={experts}, C={capacity}: at {h:.8g} RES {res:.8f}, TCR {tcr:.8f}")
        saved, flint.ctx.dps = flint.ctx.dps, 40
        try:
            exact = 1 - flint.arb(at).beta_lower(capacity, tokens - capacity, regularized=True)
        finally:
            flint.ctx.dps = saved
        if abs(float(exact.mid()) / tcr - 1) > 1e-8:
            return fails(f"s={tokens}, C={capacity}: F at the crossing is {float(exact.mid()):.10f}, TCR {tcr:.10f}")
    return holds(f"the order changes exactly at {used} crossovers")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, candidate_tail: float
) -> dict[str, int]:
    """Better candidates counted among the others, at the claimed crossing."""
    return {
        "resonance": int(np.count_nonzero((rng.random((trials, tokens - 1)) < candidate_tail).sum(axis=1) < capacity))
    }


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int, candidate_tail: float) -> dict[str, float]:
    """At h = `candidate_tail` the side says that resonance has the rate whose crossing this is."""
    return {"resonance": 1 - float(special.betainc(capacity, tokens - capacity + side.extra, candidate_tail))}


CASES = []
for _total, _experts, _capacity in ((12, 3, 3), (30, 5, 4)):
    _rate = float(token_choice.success(_total, _capacity, Rates(experts=_experts)))
    _tail = claim.truth.crossing(_total, _capacity, _rate)
    CASES.append({"tokens": _total, "experts": _experts, "capacity": _capacity, "candidate_tail": _tail})

claim.simulate(sample, cases=CASES, law=law)
