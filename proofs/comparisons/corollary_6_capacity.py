"""ETR Corollary 6, second item: with s q <= C*, are 2 C* slots enough for a high success of expert choice?

At q = C*/s the rivals of the discriminative token are Bin(s-1, C*/s), in the limit Poi(C*), so C slots succeed with
P(Poi(C*) <= C-1); by Le Cam the error is at most (s-1) q² + q. At C = 2 C* that is e^{-1/2} = .607 for C* = 1/2, 2/e = .736 for
C* = 1, .857 for 2 and .968 for 5: high for large C* alone, where the rivals spread little about their mean. The paper's own bound
1 - e^{-3C/16} gives .31 at C* = 1. For 95 % one needs 6, 4, 3 and 2 times C*.

Nor is expert choice "much better" there than token choice wherever the latter has places: at s = 100, n = 8, C = 50, q = 1/4,
p = .99 token choice has .99 and no rule can have more than 1/.99 of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, expert_choice, token_choice

MEANS = (Fraction(1, 2), Fraction(1), Fraction(2), Fraction(5))


@dataclass(frozen=True)
class Side:
    """Success at C slots is P(Poi(C*) <= C - short); `needed`: the multiple of C* that 95 % takes; `gain` over token choice."""

    short: int
    needed: Mapping[Fraction, int]
    gain: float

    def success(self, mean: Fraction, slots: Fraction) -> flint.arb:
        x = flint.arb(mean.numerator) / mean.denominator
        terms = (x**k / flint.arb(k).gamma() / max(k, 1) for k in range(1, int(slots) - self.short + 1))
        return (-x).exp() * sum(terms, flint.arb(1) if slots >= self.short else flint.arb(0))


claim = Claim(
    title="Twice the false positives is no capacity for a high success, unless they are many",
    statement=r"at $q=C^*/s$, $s\to\infty$: $P_{ECR}\to P(\mathrm{Poi}(C^*)\leq C-1)$; at $C=2C^*$ that is $.6065$, $.7358$, "
    r"$.8571$, $.9682$ for $C^*=\frac12,1,2,5$, and 95 % takes $C=6C^*,4C^*,3C^*,2C^*$",
    hypotheses=(r"every expert's false-positive rate is $q$; fixed $C^*$",),
    source="ETR Corollary 6, second item (arXiv 2406.00023)",
    kind="asymptotic",
    expected=Verdict.CORRECTED,
    truth=Side(1, dict(zip(MEANS, (6, 4, 3, 2))), 1.0),
    mutant=Side(0, dict(zip(MEANS, (4, 3, 2, 1))), 1.0),
    mutation="one rival more may be ahead, and one multiple of C* less is needed",
    printed=Side(1, dict.fromkeys(MEANS, 2), 1.5),
    correction=r"Printed: if $sq_i\leq C^*$, expert choice is much better than token choice, and only $C\geq 2C^*$ is needed for "
    r"a high success. At $C=2C^*$ it is .607, .736 and .857 for $C^*=\frac12,1,2$. And where token choice has "
    r"places the gain is at most $\frac1p$: 1.01 at $s=100$, $n=8$, $C=50$, $q=\frac14$, $p=.99$.",
    lemmas=("Le Cam (1960): total variation of Bin(m,q) and Poi(mq) at most m q²",),
)


@claim.derivation("one rival's generating function in the limit; success at 2 C* for C* = 1/2 and 1 in closed form")
def limit_of_the_rivals(side: Side) -> Outcome:
    s, mean, z = sp.symbols("s mu z", positive=True)
    limit = sp.limit((1 + mean * (z - 1) / s) ** (s - 1), s, sp.oo)
    poisson = sp.exp(-mean) * sum(mean**k / sp.factorial(k) * z**k for k in range(9))
    series = sp.series(limit, z, 0, 9).removeO()
    k = range(2 * 1 - side.short + 1)
    at_one = sum(sp.exp(-1) / sp.factorial(j) for j in k)
    return every(
        [
            identity(series, poisson, name="generating function of the rivals - Poisson's, to order 8"),
            identity(at_one, 2 * sp.exp(-1), name="success at C* = 1, C = 2 minus 2/e"),
        ]
    )


@claim.certificate("balls: success at 2 C* to the printed digits; the least C for 95 % is the claimed multiple of C*")
def enclosed_success_and_need(side: Side) -> Outcome:
    goal = flint.arb(95) / 100
    for mean, printed in zip(MEANS, (6065, 7358, 8571, 9682)):
        value = side.success(mean, 2 * mean)
        if not abs(value * 10**4 - printed) < flint.arb("0.5"):
            return fails(f"C* = {mean}: success at 2 C* is {float(value):.6f}, not .{printed}")
        slots = side.needed[mean] * mean
        if not side.success(mean, slots) > goal > side.success(mean, Fraction(int(slots) - 1)):
            return fails(f"C* = {mean}: {slots} slots are not the least for 95 %")
    return holds(".6065, .7358, .8571, .9682; 95 % from 6, 4, 3, 2 times C* on")


@claim.counterexample("C* = 1/2, 1, 2 at s = 10^6: success at the multiple said to be enough; and s=100, n=8, C=50")
def claimed_slots_are_short(side: Side) -> Outcome:
    for mean, multiple in side.needed.items():
        rate = float(expert_choice.success(10**6, int(multiple * mean), Rates(false_positive=float(mean) / 10**6)))
        if rate < 0.95:
            return fails(f"C* = {mean}: {multiple} C* slots succeed with {rate:.4f}")
    ecr = float(expert_choice.success(100, 50, Rates(false_positive=0.25)))
    tcr = float(token_choice.success(100, 50, Rates(experts=8, hit=0.99)))
    text = f"expert choice {ecr:.4f} is {ecr / tcr:.4f} of token choice's {tcr:.4f}"
    return holds(text) if ecr / tcr >= side.gain else fails(text)


@claim.reference("the package and SciPy's binomials at s = 10^3 to 10^7 within Le Cam's error of the Poisson value")
def package_within_le_cam(side: Side) -> Outcome:
    worst = 0.0
    for tokens in (10**3, 10**5, 10**7):
        for mean in MEANS:
            q = float(mean) / tokens
            for slots in {max(1, int(mean)), int(2 * mean), int(2 * mean) + 3}:
                limit = float(side.success(mean, Fraction(slots)))
                ours = float(expert_choice.success(tokens, slots, Rates(false_positive=q)))
                apart = abs(ours - limit)
                if apart > tokens * q * q + q or abs(ours - stats.binom.cdf(slots - 1, tokens - 1, q)) > 1e-12:
                    return fails(f"s={tokens}, C*={mean}, C={slots}: {ours:.6f}, limit {limit:.6f}")
                worst = max(worst, apart / (tokens * q * q + q))
    return holds(f"36 rates, at most {worst:.2f} of the error allowed")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, capacity: int) -> dict[str, int]:
    """C* = capacity/2."""
    return {"success": int(np.count_nonzero(rng.binomial(tokens - 1, capacity / 2 / tokens, trials) < capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 10**6, "capacity": c} for c in (1, 2, 4)],
    law=lambda side, *, tokens, capacity: {"success": float(side.success(Fraction(capacity, 2), Fraction(capacity)))},
)
