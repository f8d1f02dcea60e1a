"""The step of LocMoE's argument (Theorem 1; ETR Remark 7) that is no bound, for every dimension.

The argument, with x = δ² and u = dx/(2-x):
    1. the expected number of tokens until one reaches the threshold with one of n experts is 1/P(some expert) >= 1/(n p_δ);
    2. p_δ = 1 - I_x(1/2, (d-1)/2): exact for two-sided affinity (claim cap_law);
    3. for large d, I_x(1/2, (d-1)/2) is near the incomplete gamma function P(1/2, u) = erf(√u): so "p_δ = erfc(√u)";
    4. erfc(√u) < e^{-u}: a bound, for every u > 0.
Step 3 approximates, and where it matters it errs to the wrong side: p_δ > erfc(√u) for all thresholds below a single δ_d.

Proof. D(x) = erfc(√u) - p_δ has D(0) = 0, D(1) = erfc(√d) > 0 and the slope -|slope of erfc(√u)| (1 - ρ(x)), where the
ratio ρ of both slopes has d log ρ/dx = (6 - 3x - dx²)/(2(1-x)(2-x)²): it rises, then may fall. At 0 it is
Γ(d/2)/(Γ((d-1)/2) sqrt(d/2)) < 1, as its square grows with d in steps of 2 and tends to 1. So D falls at first; it must rise
to reach D(1) > 0, and once ρ falls below 1 again D falls only towards D(1): exactly one sign change.
The sharper argument (d - 3/2) x/(2-x), Wise's, starts above 1 instead.
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import mpmath
import numpy as np
import sympy as sp
from scipy import special

from proofs._isotropic import chunks, unit_tokens
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps

x, d, z = sp.symbols("x d z", positive=True)
arb = flint.arb


def side(less: str, *, above: bool) -> SimpleNamespace:
    """u = (d - less) x/(2-x); `above`: p_δ is claimed to start above erfc(√u) and to cross it once, else never to exceed."""
    return SimpleNamespace(less=sp.Rational(less), above=above)


claim = Claim(
    title="The gamma approximation in LocMoE's argument is no bound in any dimension",
    statement=r"$p_\delta=P(|\cos|\geq\delta)>\mathrm{erfc}\sqrt{d\delta^2/(2-\delta^2)}$ for $0<\delta<\delta_d$ and $<$ for "
    r"$\delta_d<\delta\leq 1$, with a single $\delta_d$ for every $d\geq 2$ ($\delta_{64}=.6430$, $\delta_{4096}=.2532$)",
    hypotheses=(r"isotropic tokens in $R^d$, $d\geq 2$",),
    source="LocMoE Theorem 1, proof (arXiv 2401.13920), ETR Remark 7 (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.REFUTED,
    truth=side("0", above=True),
    mutant=side("3/2", above=True),
    mutation="d - 3/2 in place of d",
    printed=side("0", above=False),
    correction=r"The argument needs $p_\delta\leq\mathrm{erfc}\sqrt u$; the opposite holds below $\delta_d$, in every "
    r"dimension, and $\delta_d$ lies where tokens hardly ever get ($p_\delta<10^{-59}$ at $d=4096$). The conclusion "
    r"$p_\delta<e^{-u}$ is true for $d\geq 3$ for another reason (claim locmoe_capacity_bound).",
    lemmas=(r"Stirling: $\Gamma(y+\frac12)/(\Gamma(y)\sqrt y)\to 1$",),
)


@claim.derivation("slope of the log ratio of slopes; erfc(z) < exp(-z²)")
def slope_log_ratio_slopes_erfc(side: SimpleNamespace) -> Outcome:
    u = (d - side.less) * x / (2 - x)
    # |slope of p_δ| and |slope of erfc(√u)| up to constants
    log_ratio = -sp.log(x) / 2 + (d - 3) / 2 * sp.log(1 - x) - (-u - sp.log(u) / 2 + sp.log(sp.diff(u, x)))
    claimed = (6 - 3 * x - d * x**2) / (2 * (1 - x) * (2 - x) ** 2)
    gap = sp.exp(-(z**2)) - sp.erfc(z)  # 0 at both ends; slope e^{-z²} (2/√π - 2z) first rises, then falls
    return every(
        [
            identity(sp.expand(sp.diff(gap, z) * sp.exp(z**2)) - 2 / sp.sqrt(sp.pi), -(2 * z), name="slope of step 4"),
            value(gap, {z: 0}, 0, name="step 4 at 0"),
            identity(
                sp.diff(log_ratio, x),
                claimed,
                points=[{x: sp.Rational(1, 3), d: 9}],
                name="slope of log ρ - (6 - 3x - dx²)/(...)",
            ),
        ]
    )


@claim.certificate("ρ(0) < 1 in every dimension, ρ rises then falls, D(1) > 0")
def dimension_rises_then_falls_d(side: SimpleNamespace) -> Outcome:
    # ρ(0)² = Γ(y+1/2)² / (Γ(y)² (y + 1/2 - less/2)), y = (d-1)/2; from y to y+1 it is multiplied by top/bottom below
    y = sp.symbols("y", positive=True)
    u = (2 * y + 1 - side.less) * x / (2 - x)
    start = sp.limit(x * (sp.exp(-u) * sp.diff(u, x)) ** 2 / u, x, 0)  # π times (√x slope of erfc(√u))² at 0
    shift = sp.Rational(1, 2) - side.less / 2
    top, bottom = (y + sp.Rational(1, 2)) ** 2 * (y + shift), y**2 * (y + 1 + shift)
    growing = nonnegative_polynomial(
        sp.expand(top - bottom),
        {y: sp.Rational(1, 2)},
        strict=True,
        name="growth of ρ(0)² from d to d+2, to its limit 1",
    )
    numerator = 6 - 3 * x - d * x**2
    falls = sp.diff(numerator, x)
    return every(
        [
            growing,
            identity(start - y, shift, name="(slope of erfc)² - (y + 1/2 - less/2)"),
            holds("6 - 3x - dx² is 6 at 0 and falls")
            if numerator.subs(x, 0) == 6 and falls.is_negative
            else fails("the numerator has no such signs"),
        ]
    )


def sign(side: SimpleNamespace, dim: int, delta: float) -> int:
    """Certified sign of p_δ - erfc(√u) at a threshold taken as an exact double; 0 if undecided."""
    saved, flint.ctx.dps = flint.ctx.dps, 60
    try:
        square = arb(delta) ** 2
        u = (dim - arb(int(side.less.p)) / int(side.less.q)) * square / (2 - square)
        # 1 - I_x(1/2, (d-1)/2) = I_{1-x}((d-1)/2, 1/2)
        gap = (1 - square).beta_lower(arb(dim - 1) / 2, arb(1) / 2, regularized=True) - u.sqrt().erfc()
        return 1 if gap > 0 else -1 if gap < 0 else 0
    finally:
        flint.ctx.dps = saved


@claim.counterexample("thresholds .02, .05 and .2, d = 2 to 5120")
def thresholds_d(side: SimpleNamespace) -> Outcome:
    for dim in (2, 3, 64, 4096, 5120):
        for delta in (0.02, 0.05, 0.2):
            if sign(side, dim, delta) != (1 if side.above else -1):
                cap, bound = 2 * float(caps.cap(delta, dim)), special.erfc(np.sqrt(dim * delta**2 / (2 - delta**2)))
                return fails(f"d={dim}, δ={delta}: p_δ = {cap:.6g} > erfc(√u) = {bound:.6g}")
    return holds("p_δ > erfc(√u) at all 15")


@claim.reference("the crossings by certified signs, and the package's caps on both sides of them")
def crossings_certified_signs_package_s(side: SimpleNamespace) -> Outcome:
    for dim, delta in ((2, 0.9973143), (3, 0.9818732), (64, 0.6429891), (4096, 0.2531751), (5120, 0.2398593)):
        around = [sign(side, dim, delta - 1e-6), sign(side, dim, delta + 1e-6)]
        if around != [1, -1]:
            return fails(f"d={dim}: signs of p_δ - erfc(√u) around δ={delta} are {around}")
        for point in (delta / 2, delta - 1e-3, delta + 1e-3):
            u = (dim - float(side.less)) * point**2 / (2 - point**2)
            gap = np.log(2) + float(caps.log_cap(point, dim)) - float(mpmath.log(mpmath.erfc(mpmath.sqrt(u))))
            if (gap > 0) != (point < delta):
                return fails(f"d={dim}, δ={point:.6f}: log p_δ - log erfc(√u) is {gap:.3g}")
    return holds("δ_d = .9973143, .9818732, .6429891, .2531751, .2398593 for d = 2, 3, 64, 4096, 5120")


def sample(rng: np.random.Generator, trials: int, *, dim: int, threshold: float) -> dict[str, int]:
    return {"passes": sum(int((np.abs(unit_tokens(rng, n, dim)[:, 0]) >= threshold).sum()) for n in chunks(trials))}


def law(side: SimpleNamespace, *, dim: int, threshold: float) -> dict[str, float]:
    return {"passes": float(special.erfc(np.sqrt((dim - float(side.less)) * threshold**2 / (2 - threshold**2))))}


claim.simulate(
    sample,
    cases=[{"dim": 2, "threshold": 0.5}, {"dim": 3, "threshold": 0.5}, {"dim": 8, "threshold": 0.25}],
    law=law,
    relation="at_least",
)
