"""The multiplicative Chernoff tails that ETR's Theorem 5 uses, with the best constants of their kind.

From E t^X = (1 + p(t-1))^m <= exp(μ(t-1)), t > 0: for C >= μ, P(X >= C) <= exp(-(C ln(C/μ) - C + μ)), and for C <= μ the same
bounds P(X <= C). With r = C/μ the exponent per C is ln r - 1 + 1/r, rising for r >= 1: for r >= 2 it is at least
ln 2 - 1/2 = .1931..., more than the printed 3/16 = .1875 (Bernstein's form 3δ²/(6+2δ) of the exponent at δ = 1). Below, the
exponent per μ is r ln r - r + 1, falling for r <= 1: for r <= 1/2 at least 1/2 - (ln 2)/2 = .1534..., more than the
printed 1/8 (the form δ²/2 at δ = 1/2).
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory.evidence.claims.certify import identity, ladder, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

r, x = sp.symbols("r x", positive=True)


def side(up: str, down: str) -> SimpleNamespace:
    """The bounds are claimed for C >= up μ and C <= down μ."""
    return SimpleNamespace(
        up=sp.Rational(up), down=sp.Rational(down), above=float(sp.Rational(up)), below=float(sp.Rational(down))
    )


claim = Claim(
    title="Multiplicative Chernoff tails, with the constants ETR uses and better ones",
    statement=r"$P(X\geq C)\leq e^{-(\ln 2-\frac{1}{2})C}\leq e^{-3C/16}$ for $C\geq 2\mu$; "
    r"$P(X\leq C)\leq e^{-\frac{1}{2}(1-\ln 2)\mu}\leq e^{-\mu/8}$ for $C\leq\mu/2$",
    hypotheses=(r"$X\sim\mathrm{Bin}(m,p)$, $\mu=mp>0$",),
    source="used in ETR Theorem 5, eq. 12; constants improved here",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("2", "1/2"),
    mutant=side("3/2", "3/4"),
    mutation="conditions relaxed to C >= 3μ/2 and C <= 3μ/4",
    lemmas=("1 + x <= exp(x)",),
    formal=(
        "scalar_lemmas.v: bernstein",
        "scalar_lemmas.v: lower_tail_quadratic",
        "numeric_lemmas.v: printed_constants",
    ),
)


@claim.derivation("exponents at the edges of the claimed ranges, and their monotonicity")
def exponents_edges_claimed_ranges_their(side: SimpleNamespace) -> Outcome:
    above = sp.log(r) - 1 + 1 / r  # per C
    below = r * sp.log(r) - r + 1  # per μ
    return every(
        [
            identity(sp.diff(above, r), (r - 1) / r**2, name="slope of ln r - 1 + 1/r"),
            identity(sp.diff(below, r), sp.log(r), name="slope of r ln r - r + 1"),
            identity(
                sp.expand_log(above.subs(r, side.up)),
                sp.log(2) - sp.Rational(1, 2),
                name="exponent at the upper edge",
            ),
            identity(
                sp.expand_log(below.subs(r, side.down)),
                (1 - sp.log(2)) / 2,
                name="exponent at the lower edge",
            ),
        ]
    )


@claim.certificate("the printed constants 3/16 and 1/8 are not larger than the exponents on the claimed ranges")
def printed_constants_not_larger_than(side: SimpleNamespace) -> Outcome:
    def edge(value: flint.arb, bound: str, name: str) -> Outcome:
        text = f"{name}: exponent {float(value.mid()):.6f} against {bound}"
        top, bottom = map(int, bound.split("/"))
        return holds(text) if value > flint.arb(top) / bottom else fails(text)

    up, down = (flint.arb(int(v.p)) / int(v.q) for v in (side.up, side.down))
    bernstein = (1 + x) * sp.log(1 + x) - x - 3 * x**2 / (6 + 2 * x)
    quadratic = (1 - x) * sp.log(1 - x) + x - x**2 / 2

    def rest(second: sp.Expr) -> Outcome:
        return quotient(sp.cancel(sp.together(second)))

    def rest_below_one(second: sp.Expr) -> Outcome:
        w = sp.symbols("w", positive=True)  # x = w/(1+w) runs through (0, 1)
        return quotient(sp.cancel(sp.together(second.subs(x, w / (1 + w)))))

    def quotient(ratio: sp.Expr) -> Outcome:
        top, bottom = sp.fraction(ratio)
        return every(
            nonnegative_polynomial(sp.expand(part), dict.fromkeys(ratio.free_symbols, 0), name=name)
            for part, name in ((top, "numerator of the second derivative"), (bottom, "its denominator"))
        )

    return every(
        [
            edge(up.log() - 1 + 1 / up, "3/16", "upper tail"),
            edge(down * down.log() - down + 1, "1/8", "lower tail"),
            ladder(bernstein, x, rest, steps=2, name="(1+δ)ln(1+δ) - δ - 3δ²/(6+2δ)"),
            ladder(quadratic, x, rest_below_one, steps=2, name="(1-δ)ln(1-δ) + δ - δ²/2"),
        ]
    )


@claim.reference("both tails of 3000 binomials inside the claimed ranges")
def tails_binomials_inside_claimed_ranges(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(15)
    trials = np.floor(10 ** rng.uniform(0, 3.5, 3000)).astype(np.int64)
    chance = 10 ** rng.uniform(-3, 0, 3000)
    mean = trials * chance
    upper = np.ceil(side.above * mean * (1 + rng.exponential(0.1, 3000)))
    lower = np.floor(side.below * mean * rng.uniform(0.8, 1, 3000))
    high = stats.binom.sf(upper - 1, trials, chance) > np.exp(-(np.log(2) - 0.5) * upper) * (1 + 1e-9)
    low = stats.binom.cdf(lower, trials, chance) > np.exp(-(1 - np.log(2)) / 2 * mean) * (1 + 1e-9)
    for bad, what in ((high, "upper"), (low, "lower")):
        if bad.any():
            n = int(np.argmax(bad))
            return fails(f"{what} tail violated at m={trials[n]}, p={chance[n]:.5f}")
    return holds("no violation in either tail")


def sample(rng: np.random.Generator, trials: int, *, m: int, p: float, high: int, low: int) -> dict[str, int]:
    x = rng.binomial(m, p, trials)
    return {"high": int(np.count_nonzero(x >= high)), "low": int(np.count_nonzero(x <= low))}


def law(side: SimpleNamespace, *, m: int, p: float, high: int, low: int) -> dict[str, float]:
    """What the side claims: its bounds inside their ranges, nothing (1) outside."""
    mean = m * p
    above = float(np.exp(-(np.log(2) - 0.5) * high)) if high >= side.above * mean else 1.0
    below = float(np.exp(-(1 - np.log(2)) / 2 * mean)) if low <= side.below * mean else 1.0
    return {"high": above, "low": below}


claim.simulate(
    sample,
    cases=[{"m": 400, "p": 0.1, "high": 60, "low": 30}, {"m": 40, "p": 0.05, "high": 4, "low": 1}],
    law=law,
    relation="at_most",
)
