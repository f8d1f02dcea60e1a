"""LocMoE Theorem 1, repeated as ETR Remark 7: the capacity bound (1/n) exp(d δ²/(2-δ²)), step by step.

The printed argument. A token is useful to an expert if its affinity passes a threshold δ in absolute value, which an
isotropic token does with p_δ = P(|cos| >= δ) = 1 - I_{δ²}(1/2, (d-1)/2). Some one of n experts finds it useful with
probability at most n p_δ, so the expected number of tokens until a useful one is at least 1/(n p_δ). The paper then
replaces the incomplete beta function by its large-d limit, an incomplete gamma function, and bounds erfc by an
exponential. The replacement is an approximation and not a bound, so the conclusion does not follow as argued.

The conclusion p_δ < exp(-d δ²/(2-δ²)) is nevertheless true for every d >= 3, and false for d = 2 on one interval.
Proof for d >= 7. With x = δ², F(x) the exponential and G(x) = p_δ, both fall from 1 at x = 0. The logarithm L of the
ratio of slopes G'/F' has the slope R(x) / (2x(1-x)(2-x)²), R(x) = (2-x)(5x-2) - d x³, negative on (0,1), so G'/F' falls
from infinity: F - G first rises, then possibly falls, and it ends at exp(-d) > 0. Hence it is positive on (0,1].
Dimensions 3 to 6: with δ = sin t the cap is elementary in t; an endpoint estimate near 0, ball arithmetic elsewhere.
"""

from __future__ import annotations

from types import SimpleNamespace

import flint
import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, positive, roots_outside
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps

x, d = sp.symbols("x d", positive=True)
arb = flint.arb


def side(factor: str, least_dim: int = 3) -> SimpleNamespace:
    """`factor` multiplies the exponent; the inequality is claimed for every dimension from `least_dim` on."""
    return SimpleNamespace(factor=sp.Rational(factor), arb=arb(flint.fmpq(*map(int, (factor + "/1").split("/")[:2]))),
                           least_dim=least_dim)  # fmt: skip


claim = Claim(
    title="LocMoE's capacity bound: true from dimension 3 on, false in dimension 2, and no bound on capacity itself",
    statement=r"$P(|\cos|\geq\delta)<\exp\{-d\delta^2/(2-\delta^2)\}$, so the expected number of tokens until one "
    r"passes the threshold of some expert exceeds $\frac1n\exp\{d\delta^2/(2-\delta^2)\}$; for $d=2$ this fails "
    r"exactly on $.7421469<\delta<.9596816$",
    hypotheses=(r"isotropic tokens in $R^d$, $d\geq 3$", r"$0<\delta\leq 1$"),
    source="LocMoE Theorem 1 (arXiv 2401.13920), ETR Remark 7 (arXiv 2406.00023)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side("1"),
    printed=side("1", least_dim=2),
    mutant=side("6/5"),
    mutation="exponent 6/5 times as large",
    correction=r"Printed for every dimension, from an approximation of the incomplete beta function that is no bound. "
    r"The inequality holds for every $d\geq 3$ and fails for $d=2$: at $\delta=.85$ the cap is .3532 and the bound "
    r".3228. It bounds an expected waiting time, not a capacity; it exceeds 1 only where "
    r"$d\delta^2/(2-\delta^2)>\ln n$; it rises with $\delta$; and the exact waiting time is "
    r"$1/P(\max_i\delta_i\geq\delta)$, at least twice as large already because one-sided affinity halves the cap.",
    lemmas=("union bound over experts",),
    formal=("scalar_lemmas.v: slope_ratio_negative",),
)


@claim.derivation("the slope of log(G'/F') is R(x)/(2x(1-x)(2-x)²)")
def slope_log_g_f_r(side: SimpleNamespace) -> Outcome:
    exponent = -side.factor * d * x / (2 - x)
    # |G'| up to its constant 1/B(1/2, (d-1)/2); |F'|
    log_ratio = -sp.log(x) / 2 + (d - 3) / 2 * sp.log(1 - x) - sp.log(-sp.diff(exponent, x)) - exponent
    slope = sp.diff(log_ratio, x)
    claimed = ((2 - x) * (5 * x - 2) - d * x**3) / (2 * x * (1 - x) * (2 - x) ** 2)
    return identity(slope, claimed, points=[{x: sp.Rational(1, 3), d: 9}], name="slope - R/(...)")


@claim.certificate("d >= 7: R < 0 on [0,1], so the difference rises, then falls to exp(-d) > 0")
def d_r_so_difference_rises(side: SimpleNamespace) -> Outcome:
    # R with the exponent's factor m: R = (2-x)(5x-2) - d x³ + 4(m-1) d x(1-x), falling in d if m = 1
    in_d = -(x**2) + 4 * (side.factor - 1) * (1 - x)  # dR/dd divided by x
    at_seven = (2 - x) * (5 * x - 2) + 7 * x * in_d
    tenth = in_d.subs(x, sp.Rational(1, 10))
    falling = holds("dR/dd = -x³ <= 0") if in_d == -(x**2) else fails(f"dR/dd is {tenth}/10 at x = 1/10, not negative")
    return every([falling, roots_outside(sp.expand(-at_seven), x, 0, 1, name="-R at d = 7")])


def cap(dim: int, t: flint.arb) -> flint.arb:
    """P(|cos| >= sin t) in closed form for dim 2..6: 1 - ∫_0^t cos^{dim-2} / ∫_0^{π/2} cos^{dim-2}."""
    s, c = t.sin(), t.cos()
    if dim == 2:
        return 1 - 2 * t / arb.pi()
    if dim == 3:
        return 1 - s
    if dim == 4:
        return 1 - 2 * (t + s * c) / arb.pi()
    if dim == 5:
        return 1 - (3 * s - s**3) / 2
    return 1 - 2 * (t + s * c + 2 * s * c**3 / 3) / arb.pi()


def slack(side: SimpleNamespace, dim: int, t: flint.arb) -> flint.arb:
    square = t.sin() ** 2
    return (-side.arb * dim * square / (2 - square)).exp() - cap(dim, t)


@claim.certificate("d = 3, 4, 5, 6: endpoint estimate on (0, 1/10], ball arithmetic on [1/10, pi/2]")
def d_endpoint_estimate_ball_arithmetic(side: SimpleNamespace) -> Outcome:
    outcomes = []
    for dim in range(3, 7):
        # Near 0, F >= 1 - exponent and 1 - G = ∫_0^t cos^{dim-2} / I >= t cos^{dim-2}(1/10) / I, while exponent <=
        # m dim t²/(2 - t²): it is enough that cos^{dim-2}(1/10) / I > m dim t/(2 - t²) at the largest t = 1/10.
        total = {3: arb(1), 4: arb.pi() / 4, 5: arb(2) / 3, 6: 3 * arb.pi() / 16}[dim]
        tenth = arb(1) / 10
        near = tenth.cos() ** (dim - 2) / total - side.arb * dim * tenth / (2 - tenth**2)
        outcomes.append(
            holds(f"d={dim}: endpoint slack {float(near.mid()):.3g}") if near > 0 else fails(f"d={dim}: near 0")
        )
        # 1.5708 > pi/2: the closed forms stay enclosures past the end, where the slack is still positive
        outcomes.append(
            positive(lambda t, dim=dim: slack(side, dim, t), [("1/10", "15708/10000")], name=f"F - G, d={dim}")
        )
    return every(outcomes)


@claim.certificate("d = 2: negative exactly between two roots, each crossed once")
def d_negative_exactly_between_two(side: SimpleNamespace) -> Outcome:
    first, second = ("7421468/10000000", "7421469/10000000"), ("9596815/10000000", "9596816/10000000")

    def angle(text: str) -> flint.arb:
        top, bottom = map(int, text.split("/"))
        return (arb(top) / bottom).asin()

    signs = [slack(side, 2, angle(v)) for v in (*first, *second)]
    wanted = (1, -1, -1, 1)
    for value, sign, delta in zip(signs, wanted, (*first, *second)):
        if not value * sign > 0:
            return fails(f"the slack at δ = {delta} is {float(value.mid()):.3g}, of the other sign")

    def turn(t: flint.arb) -> flint.arb:
        """Slope of the slack in t; with x = sin² t, x' = sin 2t, and the cap falls at the rate 2/π."""
        square = t.sin() ** 2
        exponent = -side.arb * 2 * square / (2 - square)
        return 2 / arb.pi() - exponent.exp() * side.arb * 4 / (2 - square) ** 2 * (2 * t).sin()

    # The slack rises from 0 near 0, falls through the first root, turns, rises through the second one. Positive before
    # and after, negative between, strictly monotone across each root: these are its only sign changes on (0, pi/2].
    near = 2 / arb.pi() - side.arb * 2 * (arb(1) / 10) / (2 - arb(1) / 100)  # as in the certificate above
    return every(
        [
            holds("positive on (0, 1/10]") if near > 0 else fails("not positive near 0"),
            positive(lambda t: slack(side, 2, t), [("1/10", "8/10")], name="F - G before"),
            positive(lambda t: -turn(t), [("8/10", "85/100")], name="falling through the first root"),
            positive(lambda t: -slack(side, 2, t), [("85/100", "125/100")], name="G - F between"),
            positive(lambda t: turn(t), [("125/100", "135/100")], name="rising through the second root"),
            positive(lambda t: slack(side, 2, t), [("135/100", "15708/10000")], name="F - G after"),
        ]
    )


@claim.counterexample("dimension 2, threshold .85")
def dimension_threshold(side: SimpleNamespace) -> Outcome:
    for dim in range(side.least_dim, 7):
        for hundredth in range(5, 101, 5):
            value = slack(side, dim, (arb(hundredth) / 100).asin() if hundredth < 100 else arb.pi() / 2)
            if value < 0:
                cap_value = cap(dim, (arb(hundredth) / 100).asin())
                return fails(f"d={dim}, δ={hundredth / 100}: the cap {float(cap_value.mid()):.4f} exceeds the bound")
    return holds(f"no violation for d={side.least_dim}..6 at δ=.05, .10, ..., 1")


@claim.reference("the package's caps against the bound and against 30-digit integrals, d up to 5120")
def package_s_caps_bound_digit(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(30):
        for dim in (3, 4, 5, 6, 8, 64, 4096, 5120):
            for u in (0.05, 0.5, 1.0, 2.0, 0.9 * min(dim, 8)):
                # thresholds at which the exponent is about u: the bound is neither trivial nor astronomically small
                delta = float(np.sqrt(2 * u / (dim + u)))
                square = mpmath.mpf(delta) ** 2
                exact = mpmath.betainc(mpmath.mpf(1) / 2, mpmath.mpf(dim - 1) / 2, square, 1, regularized=True)
                ours = 2 * float(caps.cap(delta, dim))
                worst = max(worst, abs(ours / float(exact) - 1))
                bound = mpmath.exp(-mpmath.mpf(str(side.factor.p)) / side.factor.q * dim * square / (2 - square))
                if exact >= bound:
                    return fails(f"d={dim}, δ={delta:.6g}: {mpmath.nstr(exact, 8)} >= {mpmath.nstr(bound, 8)}")
    if worst > 1e-12:
        return fails(f"two-sided cap differs from the integral by {worst:.1e}")
    return holds(f"40 thresholds below the bound; caps agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, threshold: float) -> dict[str, int]:
    passed = 0
    for start in range(0, trials, 100_000):
        z = rng.standard_normal((min(100_000, trials - start), dim))
        passed += int(np.count_nonzero(z[:, 0] ** 2 >= threshold**2 * (z**2).sum(axis=1)))
    return {"passes": passed}


def law(side: SimpleNamespace, *, dim: int, threshold: float) -> dict[str, float]:
    return {"passes": float(np.exp(-float(side.factor) * dim * threshold**2 / (2 - threshold**2)))}


claim.simulate(
    sample,
    cases=[{"dim": 3, "threshold": 0.85}, {"dim": 4, "threshold": 0.75}, {"dim": 16, "threshold": 0.2}],
    law=law,
    relation="at_most",
)
