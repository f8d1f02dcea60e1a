"""ETR after Remark 7: does token choice's success stay bounded by C/s?

No: P_TCR/p = E min(N, C) n/s, N ~ Bin(s, 1/n) (N1), lies between (1 - 1/e) min(1, nC/s) (token_choice_published) and, by Jensen's
inequality, min(1, nC/s). So C/s holds for a hit rate of p = 1/n, an untrained router's, and is n p times too small else: the sum
over experts, C Σ p_i/s in eq. 11, has p_i, not their mean. s = 128, n = 8, C = 16, p = 1: .907, where C/s = .125.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice
from resonance_theory.tokens import samplers, signals


@dataclass(frozen=True)
class Side:
    """Token choice is claimed to stay below factor min(hit, (n hit)^power C/s)."""

    power: int
    factor: Fraction = Fraction(1)

    def ceiling(self, tokens: int, experts: int, capacity: int, hit: Fraction) -> Fraction:
        return self.factor * min(hit, (experts * hit) ** self.power * Fraction(capacity, tokens))


claim = Claim(
    title="Token choice is bounded by n p C/s and by p, not by C/s",
    statement=r"$P_{TCR}\leq p\min\{1,\frac{nC}{s}\}$, and at least $1-\frac1e$ of it; it is above $\frac Cs$ whenever "
    r"$(1-\frac1e)\,p\min\{1,\frac{nC}{s}\}>\frac Cs$, so as $np$ exceeds $1.582$ and $C\leq s/n$",
    hypotheses=(r"Top-1, loads $\frac1n$, hit rate $p$, $1\leq C\leq s$",),
    source="ETR after Remark 7: success rates of C/s (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=Side(1),
    mutant=Side(1, Fraction(3, 4)),
    mutation="three quarters of the bound",
    printed=Side(0),
    correction=r"Printed: token choice remains bounded by $C/s$. The bound is $n$ times the hit rate larger: at $s=128$, $n=8$, "
    r"$C=16$ token choice succeeds with $.907\,p$, and $C/s$ is $.125$.",
    lemmas=("N1 (token_choice_exact)", "token_choice_published"),
)


@claim.certificate("min(N, C) below both of its lines, for every count, in expectation p min(1, nC/s)")
def counts_below_both_lines(side: Side) -> Outcome:
    # P_TCR = p n/s E min(N, C): N = C - short or C + over, against ceiling factor * p n C/s, and EN = s/n against p
    count, short, over = sp.symbols("C short over", nonnegative=True)
    factor = sp.Rational(side.factor.numerator, side.factor.denominator)
    corner = {count: 0, short: 0, over: 0}
    return every(
        [
            nonnegative_polynomial(factor * (count + short) - count, corner, name="C slots, N = C - short"),
            nonnegative_polynomial(factor * (count + over) - count, corner, name="C slots, N = C + over, against N"),
        ]
    )


def exact(tokens: int, experts: int, capacity: int) -> Fraction:
    """P_TCR/p."""
    p = Fraction(1, experts)
    kept = (min(j, capacity) * comb(tokens, j) * p**j * (1 - p) ** (tokens - j) for j in range(tokens + 1))
    return sum(kept, Fraction(0)) * experts / tokens


@claim.counterexample("s = 128, n = 8, C = 16, p = 1/2")
def above_slots_per_token(side: Side) -> Outcome:
    value, bound = exact(128, 8, 16) / 2, side.ceiling(128, 8, 16, Fraction(1, 2))
    text = f"{float(value):.4f}, bound {float(bound):.4f}"
    return holds(text) if value <= bound else fails(text)


@claim.reference("exact rationals and the package, s to 60, from one expert to more than tokens; the bound is reached")
def exact_rationals_below(side: Side) -> Outcome:
    best = Fraction(0)
    for experts in (1, 2, 3, 8, 100):
        for tokens in (1, 2, 7, 20, 60):
            for capacity in range(1, tokens + 1):
                value = exact(tokens, experts, capacity) * Fraction(3, 4)
                bound = side.ceiling(tokens, experts, capacity, Fraction(3, 4))
                ours = float(token_choice.success(tokens, capacity, Rates(experts=experts, hit=0.75)))
                if value > bound or abs(ours - float(value)) > 1e-13:
                    return fails(f"s={tokens}, n={experts}, C={capacity}: {float(value):.6f}, bound {float(bound):.6f}")
                best = max(best, value / bound)
    return holds(f"no violation; up to {float(best):.6f} of the bound")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, capacity: int) -> dict[str, int]:
    drawn = samplers.planted_affinity(rng, trials, tokens, 8, 4, 3.0)
    kept = token_choice.route(drawn.values, capacity).contains(drawn.position, drawn.expert)
    return {"success": int(np.count_nonzero(kept))}


def law(side: Side, *, tokens: int, capacity: int) -> dict[str, float]:
    hit = Fraction(float(signals.hit_rate(3.0, 4)))
    return {"success": float(side.ceiling(tokens, 4, capacity, hit))}


claim.simulate(
    sample,
    cases=[{"tokens": 16, "capacity": 4}, {"tokens": 32, "capacity": 8}],
    law=law,
    relation="at_most",
    trials=50_000,
)
