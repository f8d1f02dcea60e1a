"""G1, bounds: the cap below a power, the power below an exponential, and one dimension gained from d = 3 on.

Power. With x = 1-a², α = (d-1)/2 let D(x) = x^α - I_x(α, 1/2), so D(0) = D(1) = 0. Its slope is x^{α-1} (1-x)^{-1/2}
times α sqrt(1-x) - 1/B, B = B(α, 1/2), which falls, and starts positive as αB = ∫ α x^{α-1} (1-x)^{-1/2} dx > 1. So D
rises, then falls to 0: it is never negative. The exponent is the best one: I_x(α, 1/2)/x^α tends to 1/(αB) > 0 as x -> 0.

Exponential. -log(1-u) >= 2u/(2-u), equal at u = 0 with a larger slope; take u = a². For d >= 3 the exponent may have d in
place of d-1: that is LocMoE's inequality (claim locmoe_capacity_bound), whose certificates run here again.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from proofs._isotropic import chunks, unit_tokens
from proofs.capacity import locmoe_capacity_bound as locmoe
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps

x, u, alpha, big = sp.symbols("x u alpha B", positive=True)


def side(extra: str, factor: str) -> SimpleNamespace:
    """`extra` is added to the power's exponent, `factor` multiplies those of the exponentials."""
    return SimpleNamespace(extra=sp.Rational(extra), factor=sp.Rational(factor), published=locmoe.side(factor))


claim = Claim(
    title="Upper bounds on spherical caps",
    statement=r"$q(a)\leq\frac12(1-a^2)^{(d-1)/2}\leq\frac12\exp\{-\frac{(d-1)a^2}{2-a^2}\}$, and for $d\geq 3$ also "
    r"$q(a)\leq\frac12\exp\{-\frac{d\,a^2}{2-a^2}\}$",
    hypotheses=(r"$0\leq a\leq 1$, $d\geq 2$ a whole number",),
    source="new; the last bound is LocMoE Theorem 1 (arXiv 2401.13920), ETR Remark 7, for one side",
    tag="G1",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("0", "1"),
    mutant=side("1/2", "6/5"),
    mutation="power d/2 in place of (d-1)/2, exponents 6/5 times as large",
    formal=("scalar_lemmas.v: logarithm_above_quotient",),
)


@claim.derivation("slope of x^p - I_x(α, 1/2), and of -log(1-u) - 2u/(2-u)")
def slope_x_p_i_x(side: SimpleNamespace) -> Outcome:
    p = alpha + side.extra
    slope = p * x ** (p - 1) - x ** (alpha - 1) / sp.sqrt(1 - x) / big
    bracket = alpha * sp.sqrt(1 - x) - 1 / big
    log_slope = sp.diff(-sp.log(1 - u) - side.factor * 2 * u / (2 - u), u)
    return every(
        [
            identity(
                sp.powsimp(sp.expand(slope / x ** (alpha - 1)), force=True),
                bracket / sp.sqrt(1 - x),
                points=[{x: sp.Rational(1, 3), alpha: 2, big: 3}],
                name="slope/x^{α-1} - (α sqrt(1-x) - 1/B)/sqrt(1-x)",
            ),
            identity(log_slope, u**2 / ((1 - u) * (2 - u) ** 2), name="slope - u²/((1-u)(2-u)²)"),
        ]
    )


@claim.certificate("power: the bracket falls and starts positive, for every dimension")
def power_bracket_falls_starts_positive(side: SimpleNamespace) -> Outcome:
    # (slope of x^p - I) / (x^{α-1} (1-x)^{-1/2}) at x -> 0; αB > 1 as (1-x)^{-1/2} > 1 under ∫ α x^{α-1}
    start = sp.limit((alpha + side.extra) * x**side.extra * sp.sqrt(1 - x), x, 0) - 1 / big
    excess = sp.symbols("excess", positive=True)  # αB = 1 + excess
    value = sp.cancel(sp.together(start.subs(big, (1 + excess) / alpha)))
    falling = sp.diff(alpha * sp.sqrt(1 - x), x) * sp.sqrt(1 - x)
    text = f"slope's bracket starts at {value}, αB = 1 + excess"
    return every(
        [
            holds(text) if value.is_positive else fails(text),
            holds("and falls") if sp.simplify(falling).is_negative else fails("the bracket does not fall"),
        ]
    )


@claim.certificate("exponential with d-1: non-negative slope for every u in [0, 1)")
def exponential_d_non_negative_slope(side: SimpleNamespace) -> Outcome:
    numerator = (2 - u) ** 2 - side.factor * 4 * (1 - u)  # of 1/(1-u) - factor 4/(2-u)²
    return nonnegative_polynomial(sp.expand(numerator), {u: 0}, name="(2-u)² - 4(1-u)")


@claim.certificate("exponential with d: LocMoE's certificates for d >= 7 and d = 3 to 6")
def exponential_d_locmoe_s_certificates(side: SimpleNamespace) -> Outcome:
    checks = [c for c in locmoe.claim.checks if c.kind == "certificate" and "d = 2" not in c.name]
    return every(check.run(side.published) for check in checks)


@claim.reference("the package's cap and bounds, 30 digits, d = 2 to 10^4")
def package_s_cap_bounds_digits(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(30):
        for dim in (2, 3, 4, 9, 64, 10_000):
            for a in (0.0, 0.01, 0.2, 0.5, 0.9, 0.999):
                square = mpmath.mpf(a) ** 2
                cap = mpmath.betainc(mpmath.mpf(dim - 1) / 2, 0.5, 0, 1 - square, regularized=True) / 2
                power = (1 - square) ** (mpmath.mpf(dim - 1) / 2 + mpmath.mpf(str(float(side.extra)))) / 2
                exponent = mpmath.mpf(side.factor.p) / side.factor.q * square / (2 - square)
                weak, strong = mpmath.exp(-(dim - 1) * exponent) / 2, mpmath.exp(-dim * exponent) / 2
                if not (cap <= power <= weak and (dim == 2 or cap <= strong)):
                    return fails(f"d={dim}, a={a}: cap {mpmath.nstr(cap, 6)}, power bound {mpmath.nstr(power, 6)}")
                for kind, exact in (("power", power), ("exponential", weak if dim == 2 else strong)):
                    if exact > 1e-300:
                        ours = float(caps.cap_bound(a, dim, kind=kind))
                        scale = 1 + abs(float(mpmath.log(exact)))  # rounding of 1 - a² enters times the exponent
                        worst = max(worst, abs(ours / float(exact) - 1) / scale)
    if worst > 1e-14:
        return fails(f"the package's bounds differ by {worst:.1e} of their logarithm")
    return holds(f"36 caps in order; the package's bounds agree to {worst:.0e} of their logarithm")


def sample(rng: np.random.Generator, trials: int, *, dim: int, affinity: float) -> dict[str, int]:
    count = sum(int((unit_tokens(rng, n, dim)[:, 0] >= affinity).sum()) for n in chunks(trials))
    return {"power": count, "exponential": count}


def law(side: SimpleNamespace, *, dim: int, affinity: float) -> dict[str, float]:
    square = affinity**2
    return {
        "power": 0.5 * (1 - square) ** ((dim - 1) / 2 + float(side.extra)),
        "exponential": 0.5 * float(np.exp(-float(side.factor) * dim * square / (2 - square))),
    }


claim.simulate(sample, cases=[{"dim": 3, "affinity": 0.9}, {"dim": 64, "affinity": 0.1}], law=law, relation="at_most")
