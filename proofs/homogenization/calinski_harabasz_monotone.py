"""H3. The fewer candidates an expert keeps, the larger Calinski-Harabasz: between/within falls in f for n >= 2, d >= n.

Let U be the winning projection, of hazard h = nφΦ^{n-1}/(1-Φ^n), kept when U > t. Given U = u another projection has
mean -y, y = φ/Φ, and variance v = 1 - yD, where D = u + y. So (calinski_harabasz_resonance)

    (1-1/n) within/between = [(d-n) + Var U + (n-1)(E v + Var y)] / (E D)²   given U > t,

and each summand falls as t rises:
1. y' = -yD, so D' = v > 0 and v' = y(D² - v). v' >= 0: u - g given g < u is a residual life of the normal law, whose
   hazard increases, so its variance v is at most its squared mean D² (step 3). E D rises: (d-n)/(E D)² falls.
2. h/v increases: h'/h = -u + (n-1)y + h >= φ/(1-Φ) - u = D(-u), because n/(1-p^n) >= 1/(1-p); and D(-u) v >= v'.
3. If G is increasing and h/G' increases then Var(G(U) | U > t) falls. Let g = G(t), m = E[G|U>t] - g. Since
   G' <= h G'(t)/h(t) beyond t, m = ∫ G' S / S(t) <= G'(t)/h(t), and m' = h m - G' <= 0. E[(G-g)²|U>t] = 2 ∫ m G' S/S(t)
   <= 2m², hence Var <= m², and the derivative of Var is h (Var - m²) <= 0.
4. Step 3 for G = D (h/v increases), G = U (h = v · h/v increases), G = -y (G' = yD = 1-v falls): Var D, Var U, Var y fall.
5. E v/(E D)² = (E v/E D²)(1 + Var D/(E D)²). The second factor falls. The first is the mean of v/D² with the weight
   D², and v/D² falls: (v/D²)' <= 0 is 2v² >= v'D.

The two inequalities of one variable, D(-u) v >= v' and 2v² >= v'D, are proved by balls on [-8, 8] (with y, D, v enclosed
by their values at the ends, as they are monotone), by convergents of Mills' ratio below -8, by y <= 384/u^8 above 8.
"""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import flint
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial, positive
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every

u, y, x, t = sp.symbols("u y x t", positive=True)
p, n, h, m = sp.symbols("p n h m", positive=True)


def side(rate: Fraction, power: Fraction) -> SimpleNamespace:
    """rate: hazard against (log v)'; power: of the E D that outweighs E v (1 and 2 for the theorem)."""
    return SimpleNamespace(rate=rate, power=power)


claim = Claim(
    title="Resonance sharpens the experts: Calinski-Harabasz rises as less is kept",
    statement=r"between/within of the tokens kept by resonance (top fraction $f$ of each expert's candidates by inner "
    r"product) is strictly decreasing in $f\in(0,1]$, for all $2\leq n\leq d$",
    hypotheses=(r"$x\sim N(0,I_d)$, orthonormal gates, Top-1, $2\leq n\leq d$, many tokens",),
    source="new",
    tag="H3",
    kind="bound",
    expected=Verdict.PROVED,
    studies=("homogenization_training", "planted_homogenization"),
    truth=side(Fraction(1), Fraction(2)),
    mutant=side(Fraction(6, 5), Fraction(9, 5)),
    mutation="a hazard of 6/5 v'/v for any n, and v/D^(9/5) falling in place of v/D²",
    lemmas=("convergents of the continued fraction of Mills' ratio alternate around it (Laplace)",),
)


@claim.derivation("derivatives of y, D, v, of truncated means and variances; the hazard of the largest of n")
def derivatives_y_d_v_truncated(side: SimpleNamespace) -> Outcome:
    big_d = u + y
    v = 1 - y * big_d

    def slope(f: sp.Expr) -> sp.Expr:
        return sp.diff(f, u) - y * big_d * sp.diff(f, y)

    g, mean, square = sp.symbols("g mean square", real=True)
    # (E[X | U > t])' = h (E[X | U > t] - X(t))
    variance_slope = h * (square - g**2) - 2 * mean * h * (mean - g)
    # in p = Φ(u), over φ: (n-1)/p + n p^{n-1}/(1-p^n) - rate/(1-p) = [n/(1-p^n) - rate'/(1-p)]/p at rate = 1
    rate = sp.Rational(str(side.rate))
    hazard = (n - 1) / p + n * p ** (n - 1) / (1 - p**n)
    points = [{p: sp.Rational(1, 3), n: 4}, {p: sp.Rational(4, 5), n: 2}]
    outcomes = [
        identity(slope(big_d), v, name="D' - v"),
        identity(slope(v), y * (big_d**2 - v), name="v' - y(D² - v)"),
        identity(variance_slope, h * (square - mean**2 - (mean - g) ** 2), name="Var' - h(Var - m²)"),
        identity((hazard - rate / (1 - p)) * p - n / (1 - p**n), -(1 / (1 - p)), points=points, name="hazard step"),
    ]
    return every(outcomes)


def enclosed(side: SimpleNamespace, which: int, ball: flint.arb) -> flint.arb:
    """The slack over the ball by the ends of y (falling), D and v (rising)."""

    def at(z: flint.arb) -> tuple[flint.arb, flint.arb, flint.arb]:
        root2 = flint.arb(2).sqrt()
        mills = 2 * (-z * z / 2).exp() / ((-z / root2).erfc() * (2 * flint.arb.pi()).sqrt())
        return mills, z + mills, 1 - mills * (z + mills)

    a, b = ball.lower(), ball.upper()
    (y0, d0, v0), (y1, d1, _) = at(a), at(b)
    rate, power = (flint.arb(flint.fmpq(q.numerator, q.denominator)) for q in (side.rate, side.power))
    if which == 0:
        return at(-b)[1] * v0 - rate * (y0 * d1 * d1 - y1 * v0)
    # yD = 1 - v: power v² - (1-v)(D² - v) = (power-1) v² + v + v D² - D²
    return (power - 1) * v0 * v0 + v0 + v0 * d0 * d0 - d1 * d1


@claim.certificate("D(-u) v > v' and 2v² > v'D on [-8, 8]")
def d_u_v_v_2v(side: SimpleNamespace) -> Outcome:
    box = [("-8", "8")]
    return every(
        [
            positive(lambda ball: enclosed(side, 0, ball), box, name="D(-u) v - v'", digits=25),
            positive(lambda ball: enclosed(side, 1, ball), box, name="2v² - v'D", digits=25),
        ]
    )


X, T = sp.Poly(x + 8, x, t), sp.Poly(t, x, t)  # u = -(8 + x), x >= 0


def convergent(depth: int) -> tuple[sp.Poly, sp.Poly]:
    """Numerator and denominator of 1/(X + 2/(X + 3/(... + depth/X))); two in a row bracket D(-X) = φ/Φ(-X) - X."""
    top, bottom = X, sp.Poly(1, x, t)  # the innermost X, as a fraction
    for j in range(depth, 1, -1):
        top, bottom = X * top + j * bottom, top
    return bottom, top


@claim.certificate("D(-u) v > v' and 2v² > v'D for u <= -8, through two convergents of Mills' ratio")
def certificate_d_u_v_v_2v(side: SimpleNamespace) -> Outcome:
    (a, b), (c, e) = convergent(4), convergent(5)
    # D lies between a/b and c/e: D = N/M for a t >= 0; there y = X + D and D(-u) >= X
    top, bottom = a * e + T * c * b, b * e * (1 + T)
    rate, power = sp.Rational(str(side.rate)), sp.Rational(str(side.power))
    square = bottom**2
    v = square - (X * bottom + top) * top  # times M²
    first = X * v * bottom - rate * (X * bottom + top) * (top**2 - v)  # times M³
    second = (power - 1) * v**2 + v * square + v * top**2 - top**2 * square  # times M⁴
    return every(
        [
            nonnegative_polynomial(second.as_expr(), {x: 0, t: 0}, strict=True, name="2v² - v'D"),
            nonnegative_polynomial(first.as_expr(), {x: 0, t: 0}, strict=True, name="X v - v'"),
        ]
    )


@claim.certificate("the same for u >= 8, where y <= 384/u^8; Bernoulli's inequality for the hazard")
def same_u_y_u_bernoulli(side: SimpleNamespace) -> Outcome:
    # y <= 2φ <= exp(-u²/2) <= 4! (2/u²)^4 = 384/u^8 and D <= u + 1, so yD <= 1/2 <= v <= 1, and with D(-u) >= u/(u²+2):
    rate, power = sp.Rational(str(side.rate)), sp.Rational(str(side.power))
    k = sp.symbols("k", positive=True)
    return every(
        [
            nonnegative_polynomial(u**8 - 768 * (u + 1), {u: 8}, name="1/2 - yD"),
            nonnegative_polynomial((power - 1) * u**8 / 4 + u**8 / 2 - 384 * (u + 1) ** 3, {u: 8}, name="v² + v - yD³"),
            nonnegative_polynomial(u**9 - rate * 768 * (u + 1) ** 2 * (u**2 + 2), {u: 8}, name="D(-u) v - yD²"),
            # n/(1-p^n) >= rate/(1-p), that is n >= rate Σ_{k<n} p^k, whose terms go up to 1
            nonnegative_polynomial(sp.expand(k - rate * k), {k: 1}, name="n - rate n"),
        ]
    )
