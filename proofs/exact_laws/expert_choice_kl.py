"""Section 3. KL rates of expert choice: bounds for every capacity, one side of the mean each, with exact conditions.

Success is {X <= C-1}, failure {X >= C}, X ~ Bin(s-1, q). Chernoff's bound (chernoff_kl) with m = s-1 and k = C-1, k = C gives
the two rates; exactly at k = m p both say 1. So for every C one of the two bounds is in force, and the printed gap closes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, expert_choice


def rate(x: float, p: float) -> float:
    """KL(Bernoulli(x) ‖ Bernoulli(p)), written out: the package's version is not used here."""
    total = 0.0
    for a, b in ((x, p), (1 - x, 1 - p)):
        total += a * np.log(a / b) if a > 0 else 0.0
    return float(total)


@dataclass(frozen=True)
class Side:
    """Success uses the count C - 1 - shift, failure C + shift; `rate` is KL of two Bernoulli laws, for symbols."""

    shift: int

    def rate(self, x: sp.Expr, p: sp.Expr) -> sp.Expr:
        return x * sp.log(x / p) + (1 - x) * sp.log((1 - x) / (1 - p))

    def bounds(self, tokens: int, capacity: int, q: float) -> tuple[float, float]:
        m = tokens - 1
        few, many = capacity - 1 - self.shift, capacity + self.shift
        upper = float(np.exp(-m * rate(few / m, q))) if 0 <= few <= m * q else 1.0
        lower = 1 - float(np.exp(-m * rate(many / m, q))) if m * q <= many <= m else 0.0
        return lower, upper


claim = Claim(
    title="KL rates of expert choice for every capacity",
    statement=r"$F(q)\leq e^{-(s-1)KL(\frac{C-1}{s-1}\Vert q)}$ if $\frac{C-1}{s-1}\leq q$; "
    r"$1-F(q)\leq e^{-(s-1)KL(\frac{C}{s-1}\Vert q)}$ if $\frac{C}{s-1}\geq q$",
    hypotheses=(r"$F(q)=P(\mathrm{Bin}(s-1,q)\leq C-1)$, $1\leq C\leq s-1$, $0<q<1$",),
    source="new; fills the gap of ETR Theorem 5, eq. 12",
    kind="bound",
    expected=Verdict.PROVED,
    truth=Side(0),
    mutant=Side(1),
    mutation="counts C - 2 and C + 1 in the rates",
    lemmas=("Chernoff's bound with the KL rate (chernoff_kl)",),
)


@claim.derivation("Chernoff's bound at the two events, with its best tilt, is the claimed rate; the side of the tilt")
def tilted_moment_is_the_rate(side: Side) -> Outcome:
    m, q, C, gap, rest = sp.symbols("m q C gap rest", positive=True)
    outcomes = []
    # P(X <= k) and P(X >= k) are at most y^-k (1 - q + q y)^m for 0 < y <= 1 and for y >= 1; least at y = k(1-q)/((m-k)q)
    for k, claimed, name in ((C - 1, C - 1 - side.shift, "success"), (C, C + side.shift, "failure")):
        tilt = k * (1 - q) / ((m - k) * q)
        # C = 1 + gap and m = 2 + gap + rest make every logarithm's argument positive
        inside = {m: 2 + gap + rest, C: 1 + gap, q: 1 / (1 + q)}
        moment = -k * sp.log(tilt) + m * sp.log(1 - q + q * tilt)
        difference = (moment + m * side.rate(claimed / m, q)).subs(inside, simultaneous=True)
        logs = {term: sp.expand_log(sp.log(sp.factor(term.args[0])), force=True) for term in difference.atoms(sp.log)}
        outcomes.append(
            identity(sp.expand(difference.subs(logs)), name=f"{name}: logarithm of Chernoff's bound + m KL")
        )
        # y - 1 = (k - m q)/((m-k) q): at most 1 exactly for k <= m q
        outcomes.append(identity(tilt - 1, (k - m * q) / ((m - k) * q), name=f"{name}: tilt - 1"))
    return every(outcomes)


@claim.reference("3000 settings against binomial tails; every capacity has a bound in force; the package agrees")
def settings_binomial_tails_capacity_has(side: Side) -> Outcome:
    rng = np.random.default_rng(17)
    for _ in range(3000):
        tokens = int(10 ** rng.uniform(0.4, 3.5)) + 1
        capacity, q = int(rng.integers(1, tokens)), float(rng.uniform(0.001, 0.999))
        lower, upper = side.bounds(tokens, capacity, q)
        exact = float(stats.binom.cdf(capacity - 1, tokens - 1, q))
        if not lower - 1e-12 <= exact <= upper + 1e-12:
            return fails(f"s={tokens}, C={capacity}, q={q:.4f}: {exact:.6g} not in [{lower:.6g}, {upper:.6g}]")
        ours = expert_choice.bounds(tokens, capacity, Rates(false_positive=q), kind="chernoff")
        if max(abs(float(ours[0]) - lower), abs(float(ours[1]) - upper)) > 1e-9:
            return fails(
                f"s={tokens}, C={capacity}, q={q:.4f}: the package says {float(ours[0]):.6g}, {float(ours[1]):.6g}"
            )
    return holds("no violation")


def sample(rng: np.random.Generator, trials: int, *, tokens: int, capacity: int, q: float) -> dict[str, int]:
    return {"success": int(np.count_nonzero(rng.binomial(tokens - 1, q, trials) < capacity))}


claim.simulate(
    sample,
    cases=[{"tokens": 6, "capacity": 2, "q": 0.6}, {"tokens": 31, "capacity": 6, "q": 0.3}],
    law=lambda side, *, tokens, capacity, q: {"success": side.bounds(tokens, capacity, q)[1]},
    relation="at_most",
)
