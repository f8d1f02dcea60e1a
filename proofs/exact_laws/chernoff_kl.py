"""Chernoff's bound in its sharp, KL form, as the expert-choice rates use it.

For t >= 1 every term of (q + pt)^m - t^k P(X >= k) = Σ_j C(m,j) p^j q^(m-j) (t^j - t^k 1{j >= k}) is non-negative: in powers
of y = t - 1 the coefficients of t^j - t^k, j >= k, are C(j,i) - C(k,i) >= 0. So P(X >= k) <= t^-k (q + pt)^m, and
t = k q/((m-k) p), which is >= 1 exactly when k >= mp, makes the right side exp(-m KL(k/m ‖ p))
(at k = m let t grow: p^m, with equality; at k = 0 both sides are 1 or the range is empty). The lower tail is the
upper tail of the complement, m - X.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import bounds

m, k = sp.symbols("m k", positive=True)
p = sp.symbols("p", positive=True)


def side(reach: str) -> SimpleNamespace:
    """The bound is claimed for k >= reach * m p."""
    return SimpleNamespace(reach=sp.Rational(reach), least=float(sp.Rational(reach)))


claim = Claim(
    title="Chernoff's bound with the KL rate",
    statement=r"$P(X\geq k)\leq e^{-m\,KL(k/m\Vert p)}$ for $k\geq mp$, and "
    r"$P(X\leq k)\leq e^{-m\,KL(k/m\Vert p)}$ for $k\leq mp$",
    hypotheses=(r"$X\sim\mathrm{Bin}(m,p)$, $0<p<1$, $0\leq k\leq m$",),
    source="Chernoff (1952), Hoeffding (1963); used by ETR section 4 in weaker forms",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("1"),
    mutant=side("1/2"),
    mutation="the upper tail's condition relaxed to k >= mp/2",
)


@claim.derivation("the exponent at t = kq/((m-k)p) is -m KL(k/m ‖ p)")
def exponent_t_kq_m_k(side: SimpleNamespace) -> Outcome:
    t = k * (1 - p) / ((m - k) * p)
    exponent = m * sp.log(1 - p + p * t) - k * sp.log(t)
    rate = k * sp.log(k / (m * p)) + (m - k) * sp.log((m - k) / (m * (1 - p)))
    point = {m: sp.Integer(7), k: sp.Integer(5), p: sp.Rational(1, 3)}
    # logs are compared by their derivatives in p (rational functions) and one value: at p = k/m both are 0
    slope = (sp.diff(exponent, p), -sp.diff(rate, p))
    return every(
        [
            identity(*slope, points=[point], name="d/dp of the difference"),
            value(exponent + rate, {p: k / m}, 0, points=[point], name="the difference at p = k/m"),
            # and t = 1 exactly at the edge of the claimed range, k = reach m p
            identity(t.subs(k, side.reach * m * p), 1, points=[point], name="t - 1 at the edge of the range"),
        ]
    )


@claim.certificate("non-negative coefficients: (1+y)^j - (1+y)^k for j >= k, and t >= 1 on the claimed range")
def non_negative_coefficients_y_j(side: SimpleNamespace) -> Outcome:
    # C(j+1,i) - C(j,i) = C(j,i-1) >= 0, so coefficients grow with j: Pascal's rule
    i, j = sp.symbols("i j", integer=True, positive=True)
    pascal = (sp.binomial(j + 1, i) - sp.binomial(j, i), sp.binomial(j, i - 1))
    # t >= 1 iff k q >= (m-k) p iff k >= mp: with k = reach mp + e the slack k - mp is e + (reach-1) mp
    e, mean = sp.symbols("e mean", nonnegative=True)
    return every(
        [
            identity(*pascal, points=[{j: 6, i: 3}], name="C(j+1,i) - C(j,i) - C(j,i-1)"),
            nonnegative_polynomial(sp.expand(e + (side.reach - 1) * mean), {e: 0, mean: 0}, name="k - mp"),
        ]
    )


@claim.reference("both tails of 3000 binomials, and the package's rates")
def tails_binomials_package_s_rates(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(14)
    trials = np.floor(10 ** rng.uniform(0, 3, 3000)).astype(np.int64)
    chance = rng.uniform(0.001, 0.999, 3000)
    count = np.floor(rng.uniform(0, 1, 3000) * (trials + 1)).astype(np.int64)
    rate = np.exp(-bounds.rate(trials, count, chance)[0]) * (1 + 1e-9) + 1e-300
    upper = (count >= side.least * trials * chance) & (stats.binom.sf(count - 1, trials, chance) > rate)
    lower = (count <= trials * chance) & (stats.binom.cdf(count, trials, chance) > rate)
    for bad, tail in ((upper, ">="), (lower, "<=")):
        if bad.any():
            n = int(np.argmax(bad))
            return fails(f"P(Bin({trials[n]}, {chance[n]:.4f}) {tail} {count[n]}) exceeds {rate[n]:.6g}")
    return holds("no violation on either side")


def sample(rng: np.random.Generator, trials: int, *, m: int, p: float, k: int) -> dict[str, int]:
    return {"at least k": int(np.count_nonzero(rng.binomial(m, p, trials) >= k))}


def law(side: SimpleNamespace, *, m: int, p: float, k: int) -> dict[str, float]:
    """What the side claims: its bound inside its range, nothing (1) outside."""
    claimed = k >= side.least * m * p
    return {"at least k": float(np.exp(-bounds.rate(m, k, p)[0])) if claimed else 1.0}


claim.simulate(
    sample,
    cases=[{"m": 20, "p": 0.3, "k": 9}, {"m": 20, "p": 0.3, "k": 4}, {"m": 5, "p": 0.6, "k": 4}],
    law=law,
    relation="at_most",
)
