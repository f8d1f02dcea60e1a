"""G1. The false-positive rate of an isotropic token is the area of a spherical cap.

A uniform direction is z/|z| with z standard normal. Its squared first coordinate is X/(X+Y) with independent
X ~ chi²_1 and Y ~ chi²_{d-1}, so it is Beta(1/2, (d-1)/2), independent of the squared radius X+Y, and the sign is a fair
coin independent of both: P(cos >= a) = P(Beta >= a²)/2 for a >= 0. The law of every dimension follows from those of
d = 2, arccos(a)/π, and d = 3, (1-a)/2 (Archimedes), by q_{d+2}(a) = q_d(a) - a (1-a²)^{(d-1)/2} / ((d-1) B(1/2, (d-1)/2)).
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import special

from proofs._isotropic import chunks, unit_tokens
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps

a, d, b, t = sp.symbols("a d b t", positive=True)


def side(shift: int) -> SimpleNamespace:
    """q(a) = I_{1-a²}((d-1+shift)/2, 1/2) / 2."""
    return SimpleNamespace(shift=shift, alpha=(d - 1 + shift) / 2)


claim = Claim(
    title="Exact law of spherical caps",
    statement=r"$q(a)=P(\cos(r,w)\geq a)=\frac12 I_{1-a^2}(\frac{d-1}{2},\frac12)$ for $a\geq 0$, and $1-q(-a)$ below",
    hypotheses=(r"$r$ has a uniform direction in $R^d$, $d\geq 2$; $w\neq 0$ is any gate",),
    source="ETR eq. 10 (arXiv 2406.00023) for isotropic tokens, new; the cap of LocMoE Theorem 1 (arXiv "
    "2401.13920) is twice this one",
    tag="G1",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(0),
    mutant=side(1),
    mutation="one dimension too many: d/2 in place of (d-1)/2",
    lemmas=("rotation invariance of the standard normal law",),
)


def gamma_density(shape: sp.Expr, value: sp.Expr) -> sp.Expr:
    """Density of half a chi-square with 2 shape degrees of freedom."""
    return value ** (shape - 1) * sp.exp(-value) / sp.gamma(shape)


@claim.derivation("the squared cosine is Beta, independent of the radius, in every dimension")
def squared_cosine_beta_independent_radius(side: SimpleNamespace) -> Outcome:
    # X = b t and Y = (1-b) t have the Jacobian t; halved chi-squares throughout.
    joint = gamma_density(sp.Rational(1, 2), b * t) * gamma_density((d - 1) / 2, (1 - b) * t) * t
    beta = b ** sp.Rational(-1, 2) * (1 - b) ** (side.alpha - 1)
    beta = beta * sp.gamma(side.alpha + sp.Rational(1, 2)) / sp.gamma(sp.Rational(1, 2)) / sp.gamma(side.alpha)
    ratio = sp.powsimp(sp.expand_power_base(joint / (beta * gamma_density(d / 2, t)), force=True), force=True)
    return identity(
        sp.gammasimp(ratio), 1, points=[{b: sp.Rational(1, 3), t: 2, d: 5}], name="joint density / product - 1"
    )


def slope(alpha: sp.Expr) -> sp.Expr:
    """Derivative in a of I_{1-a²}(alpha, 1/2) / 2."""
    integrand = (1 - a**2) ** (alpha - 1) / a  # x^{alpha-1} (1-x)^{-1/2} at x = 1-a²
    constant = sp.gamma(alpha + sp.Rational(1, 2)) / sp.gamma(alpha) / sp.sqrt(sp.pi)
    return -a * integrand * constant


@claim.certificate("all dimensions from 2 and 3: the recurrence d to d+2, and both first laws")
def dimensions_recurrence_d_d_first(side: SimpleNamespace) -> Outcome:
    # Both sides of the recurrence and the two laws vanish at a = 1, so equal slopes are enough.
    constant = sp.gamma(d / 2) / sp.gamma((d - 1) / 2) / sp.sqrt(sp.pi)
    step = a * (1 - a**2) ** ((d - 1) / 2) * constant / (d - 1)
    gap = slope(side.alpha.subs(d, d + 2)) - slope(side.alpha) + sp.diff(step, a)
    # divided by (1-a²)^{(d-3)/2} = b^{(d-3)/2}
    gap = sp.expand(gap.subs(a, sp.sqrt(1 - b))) / b ** ((d - 3) / 2)
    gap = sp.gammasimp(sp.powsimp(sp.expand(gap), force=True))
    point = [{b: sp.Rational(1, 3), d: 6}]
    return every(
        [
            identity(slope(side.alpha).subs(d, 3), -(sp.Rational(1, 2)), points=[{a: sp.Rational(1, 3)}], name="d=3"),
            identity(
                slope(side.alpha).subs(d, 2),
                -(1 / (sp.pi * sp.sqrt(1 - a**2))),
                points=[{a: sp.Rational(1, 3)}],
                name="d=2",
            ),
            identity(sp.simplify(gap), points=point, name="slope of the recurrence"),
        ]
    )


@claim.reference("the package against areas of slices, 40 digits, d = 2 to 10^4")
def package_areas_slices_digits_d(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(40):
        nodes = mpmath.calculus.quadrature.GaussLegendre(mpmath.mp).calc_nodes(4, mpmath.mp.prec)
        for dim in (2, 3, 4, 17, 256, 10_000):
            for x in (1e-3, 0.05, 0.3, 0.7, 0.95):
                # area beyond a: ∫ cos^{d-2} over latitudes, log-concave, cut where it has fallen to e^-70
                low = mpmath.asin(mpmath.mpf(x))
                width = mpmath.pi / 2 - low
                if dim > 4:
                    width = min(width, 70 / ((dim - 2) * mpmath.tan(low)), mpmath.sqrt(mpmath.mpf(140) / (dim - 2)))
                half = width / 24
                log_scale = (dim - 2) * mpmath.log(mpmath.cos(low))
                area = half * mpmath.fsum(
                    w * mpmath.exp((dim - 2) * mpmath.log(mpmath.cos(low + half * (2 * i + 1 + y))) - log_scale)
                    for i in range(12)
                    for y, w in nodes
                )
                log_total = mpmath.log(mpmath.beta(mpmath.mpf(dim - 1) / 2, mpmath.mpf(1) / 2))
                exact = log_scale + mpmath.log(area) - log_total
                claimed = mpmath.log(
                    mpmath.betainc(
                        mpmath.mpf(dim - 1 + side.shift) / 2, 0.5, 0, 1 - mpmath.mpf(x) ** 2, regularized=True
                    )
                    / 2
                )
                if abs(claimed - exact) > mpmath.mpf("1e-18") * (1 + abs(exact)):
                    return fails(f"d={dim}, a={x}: log q is {mpmath.nstr(exact, 12)}, not {mpmath.nstr(claimed, 12)}")
                error = abs(float(caps.log_cap(x, dim) - exact))
                if exact > -650:
                    error = max(error, abs(float(mpmath.mpf(float(caps.cap(x, dim))) / mpmath.exp(exact) - 1)))
                worst = max(worst, error / max(1.0, abs(float(exact)) / 10))
    if worst > 1e-12:
        return fails(f"the package differs by {worst:.1e}")
    return holds(f"30 caps agree, the package to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, affinity: float) -> dict[str, int]:
    gate = np.sqrt(np.arange(1, dim + 1))  # any direction
    gate /= np.linalg.norm(gate)
    return {"false positive": sum(int((unit_tokens(rng, n, dim) @ gate >= affinity).sum()) for n in chunks(trials))}


def law(side: SimpleNamespace, *, dim: int, affinity: float) -> dict[str, float]:
    upper = 0.5 * float(special.betainc((dim - 1 + side.shift) / 2, 0.5, 1 - affinity**2))
    return {"false positive": upper if affinity >= 0 else 1 - upper}


claim.simulate(
    sample,
    cases=[{"dim": 2, "affinity": 0.6}, {"dim": 5, "affinity": -0.3}, {"dim": 64, "affinity": 0.2}],
    law=law,
)
