"""ETR Lemma 8: tails of a sum of independent indicators with unequal probabilities, for every deviation.

E t^X = Π(1 + p_i(t-1)) <= exp(μ(t-1)), so P(X >= μ(1+u)) <= exp(-μ h(u)) with h(u) = (1+u)ln(1+u) - u, and P(X <= μ(1-v))
<= exp(-μ g(v)) with g(v) = (1-v)ln(1-v) + v. The lemma's exponents are lower: with λ = μu it needs h(u) >= u²/(2(1+u/3)).
The difference and its slope are 0 at u = 0, its curvature is 1/(1+u) - 27/(3+u)³ = (u³+9u²)/((1+u)(3+u)³) >= 0. With λ = μv
it needs g(v) >= v²/2: the difference and its slope are 0 at v = 0, its curvature is v/(1-v) >= 0. The 3 cannot be larger:
h(u) = u²/2 - u³/6 + O(u⁴).
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

u, v, w = sp.symbols("u v w", nonnegative=True)


def side(third: int, extra: sp.Rational) -> SimpleNamespace:
    """Exponents per μ: u²/(2(1 + u/third)) above the mean, v²/2 + extra v³ below it."""
    return SimpleNamespace(up=u**2 / (2 * (1 + u / third)), down=v**2 / 2 + extra * v**3)


claim = Claim(
    title="Tails of a sum of independent indicators, as ETR's Lemma 8 states them",
    statement=r"$P(X\leq\mu-\lambda)\leq e^{-\lambda^2/(2\mu)}$ and $P(X\geq\mu+\lambda)\leq "
    r"e^{-\lambda^2/(2(\mu+\lambda/3))}$",
    hypotheses=(
        r"$X=\sum_i X_i$ independent indicators with probabilities $p_i$, $\mu=\sum_i p_i>0$, $\lambda\geq 0$",
    ),
    source="ETR Lemma 8, eq. 15 (arXiv 2406.00023 v4)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(3, sp.Integer(0)),
    mutant=side(4, sp.Rational(1, 5)),
    mutation="λ/4 in place of λ/3, and an exponent larger by μ(λ/μ)³/5 below the mean",
    lemmas=("Markov's inequality", "1 + x <= exp(x)"),
)
ABOVE = (1 + u) * sp.log(1 + u) - u
BELOW = (1 - v) * sp.log(1 - v) + v


@claim.derivation("least exponents over t, and value and slope of both differences at 0")
def least_exponents_t_value_slope(side: SimpleNamespace) -> Outcome:
    t = sp.symbols("t", positive=True)
    exponent = (1 + u) * sp.log(t) - (t - 1)  # per μ, of t^{-μ(1+u)} exp(μ(t-1)), greatest at t = 1 + u
    curvature = sp.diff(ABOVE - side.up, u, 2)
    return every(
        [
            value(sp.diff(exponent, t), {t: 1 + u}, 0, name="slope in t at t = 1 + u"),
            identity(exponent.subs(t, 1 + u), ABOVE, name="exponent at t = 1 + u"),
            *(value((ABOVE - side.up).diff(u, k), {u: 0}, 0, name=f"derivative {k} above, at 0") for k in (0, 1)),
            *(value((BELOW - side.down).diff(v, k), {v: 0}, 0, name=f"derivative {k} below, at 0") for k in (0, 1)),
            identity(curvature, (u**3 + 9 * u**2) / ((1 + u) * (3 + u) ** 3), name="curvature above"),
        ]
    )


@claim.certificate("curvatures of both differences have no negative coefficient")
def curvatures_differences_have_no_negative(side: SimpleNamespace) -> Outcome:
    above = sp.fraction(sp.cancel(sp.together(sp.diff(ABOVE - side.up, u, 2))))[0]
    below = sp.diff(BELOW - side.down, v, 2).subs(v, w / (1 + w))  # v in [0, 1)
    return every(
        [
            nonnegative_polynomial(sp.expand(above), {u: 0}, name="curvature above, numerator"),
            nonnegative_polynomial(sp.fraction(sp.cancel(sp.together(below)))[0], {w: 0}, name="curvature below"),
        ]
    )


@claim.reference("exponents at 30 digits on a grid; exact tails of 40 unequal indicators under the bounds")
def exponents_digits_grid_exact_tails(side: SimpleNamespace) -> Outcome:
    with mpmath.workdps(30):
        for name, gap, symbol, top in (("above", ABOVE - side.up, u, 8), ("below", BELOW - side.down, v, 0.99)):
            value = sp.lambdify(symbol, gap, "mpmath")
            for k in range(1, 200):
                at = mpmath.mpf(top) * k / 200
                if value(at) < 0:
                    return fails(f"{name} the mean: exponent short by {float(-value(at)):.3g} at {float(at):.3f}")
        law = [mpmath.mpf(1)]
        chances = [mpmath.mpf(i) / 60 for i in range(1, 41)]
        for p in chances:  # the law of the sum, one indicator at a time
            law = [a * (1 - p) + b * p for a, b in zip([*law, mpmath.mpf(0)], [mpmath.mpf(0), *law])]
        mean = mpmath.fsum(chances)
        up, down = sp.lambdify(u, side.up, "mpmath"), sp.lambdify(v, side.down, "mpmath")
        for k in range(41):
            if k > mean and mpmath.fsum(law[k:]) > mpmath.exp(-mean * up(k / mean - 1)):
                return fails(f"upper tail at {k}")
            if k < mean and mpmath.fsum(law[: k + 1]) > mpmath.exp(-mean * down(1 - k / mean)):
                return fails(f"lower tail at {k}")
    return holds("398 exponents and 41 exact tails in order")
