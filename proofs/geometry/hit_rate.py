"""G2. The hit rate of planted tokens, for any number of choices; it does not depend on the dimension.

The token is θ w_i + σ z with orthonormal gates, so its n inner products over σ are independent normals of variance 1, the
own one of mean θ/σ; dividing by the token's length leaves their order. Given the own value u each of the n-1 others is
larger independently with probability 1 - Φ(u), and the own gate is among the ℓ best iff fewer than ℓ are.

At θ = 0 the rate is ℓ/n: with t = 1 - Φ(u) the j-th term is C(n-1,j) B(j+1, n-j) = 1/n. In θ it rises, as the binomial
distribution function falls in its probability; so ETR's assumption p_i >= 1/n always holds here, and p -> 1.
"""

from __future__ import annotations

from math import comb
from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import samplers, signals

n, j = sp.symbols("n j", positive=True, integer=True)
t = sp.symbols("t", positive=True)


def side(more: int) -> SimpleNamespace:
    """The number of rivals is n - 1 + more."""
    return SimpleNamespace(rivals=lambda m: m - 1 + more)


claim = Claim(
    title="Hit rate of planted tokens",
    statement=r"$p=\int\varphi(u-\theta/\sigma)\,P(\mathrm{Bin}(n-1,1-\Phi(u))\leq\ell-1)\,du$, for $\ell=1$ "
    r"$\int\varphi(u-\theta/\sigma)\Phi(u)^{n-1}du$; it rises from $\ell/n$ at $\theta=0$ to 1",
    hypotheses=(r"token $\theta w_i+\sigma z$, $z\sim N(0,I_d)$, orthonormal gates, $1\leq\ell\leq n\leq d$",),
    source="new; gives the p_i of ETR Assumption 3, eq. 8 (arXiv 2406.00023), in the planted model",
    tag="G2",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(0),
    mutant=side(1),
    mutation="n rivals in place of n - 1",
)


def mass(m: sp.Expr, k: sp.Expr) -> sp.Expr:
    return sp.binomial(m, k) * t**k * (1 - t) ** (m - k)


@claim.derivation("two experts in closed form, and ℓ/n without signal for every n and ℓ")
def two_experts_closed_form_n(side: SimpleNamespace) -> Outcome:
    m = side.rivals(n)
    # ∫ of the j-th mass over t = 1 - Φ(u) in (0, 1): a beta integral
    term = sp.binomial(m, j) * sp.gamma(j + 1) * sp.gamma(m - j + 1) / sp.gamma(m + 2)
    # n = 2, ℓ = 1: p = Φ(θ/√2), so dp/dθ = ∫ φ(u-θ) φ(u) m Φ(u)^{m-1} du = φ(θ/√2)/√2, tested at θ = 0
    u = sp.symbols("u", real=True)
    normal = sp.exp(-(u**2) / 2) / sp.sqrt(2 * sp.pi)
    rivals = side.rivals(2)
    cdf = (1 + sp.erf(u / sp.sqrt(2))) / 2
    slope = sp.integrate(sp.expand(normal**2 * rivals * cdf ** (rivals - 1)), (u, -sp.oo, sp.oo))
    return every(
        [
            identity(sp.gammasimp(term.rewrite(sp.gamma)), 1 / n, points=[{n: 5, j: 2}], name="j-th integral - 1/n"),
            identity(sp.simplify(slope * 2 * sp.sqrt(sp.pi)), 1 / sp.Integer(rivals), name="2√π p'(0), n = 2"),
        ]
    )


@claim.certificate("the rate rises in θ: the binomial distribution function falls, for all n, ℓ")
def rate_rises_binomial_distribution_function(side: SimpleNamespace) -> Outcome:
    # d/dt b(n-1, j) = (n-1) (b(n-2, j-1) - b(n-2, j)), which telescopes over j < ℓ to -(n-1) b(n-2, ℓ-1) <= 0
    m = side.rivals(n)
    unit = t**j * (1 - t) ** (n - 1 - j) * sp.binomial(n - 2, j)
    slope, telescoping = sp.diff(mass(m, j), t), (n - 1) * (mass(n - 2, j - 1) - mass(n - 2, j))
    return identity(
        slope,
        telescoping,
        unit=unit,
        points=[{n: 6, j: 2, t: sp.Rational(1, 3)}],
        name="slope of a mass - telescoping form",
    )


@claim.reference("30 digits: given the own value, given the ℓ-th best rival, and the package")
def digits_given_own_value_given(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(30):
        nodes = mpmath.calculus.quadrature.GaussLegendre(mpmath.mp).calc_nodes(4, mpmath.mp.prec)
        points = [(6 * (i + y / 2 + 0.5) / 5 - 12, 3 * w / 5) for i in range(28) for y, w in nodes]
        table = [(u, w, mpmath.ncdf(-u), mpmath.ncdf(u)) for u, w in points]
        for m, top, signal in ((8, 1, 1), (8, 1, 2), (8, 1, 4), (5, 3, 0.5), (64, 6, 3)):
            rivals = side.rivals(m)
            own = mpmath.fsum(
                w * mpmath.npdf(u - signal) * sum(comb(rivals, k) * q**k * f ** (rivals - k) for k in range(top))
                for u, w, q, f in table
            )
            # the ℓ-th largest of the n-1 rivals has density (n-1) C(n-2, ℓ-1) (1-Φ)^{ℓ-1} Φ^{n-1-ℓ} φ
            constant = (m - 1) * comb(m - 2, top - 1)
            other = mpmath.fsum(
                w * constant * q ** (top - 1) * f ** (m - 1 - top) * mpmath.npdf(u) * mpmath.ncdf(signal - u)
                for u, w, q, f in table
            )
            if abs(own / other - 1) > 1e-18:
                return fails(f"n={m}, ℓ={top}, θ/σ={signal}: {mpmath.nstr(own, 12)}, by ranks {mpmath.nstr(other, 12)}")
            hit, miss = signals.hit_rate(signal, m, top=top), signals.miss_rate(signal, m, top=top)
            worst = max(worst, abs(hit / float(other) - 1), abs(miss / float(1 - other) - 1))
    known = signals.hit_rate([1, 2, 4], 8)
    error = np.abs(known - [0.385480977732, 0.710998282278, 0.986350830749]).max()
    if worst > 1e-12 or error > 6e-13:
        return fails(f"the package differs by {max(worst, error):.1e}")
    return holds(f"five rates agree to 18 digits, the package to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int, top: int, signal: float) -> dict[str, int]:
    drawn = samplers.planted(rng, trials, 1, dim, experts, signal)
    scores = affinity(drawn.values[:, 0], experts)
    own = np.take_along_axis(scores, drawn.expert[:, None], 1)
    return {"hits": int(np.count_nonzero((scores > own).sum(axis=1) < top))}


def law(side: SimpleNamespace, *, dim: int, experts: int, top: int, signal: float) -> dict[str, float]:
    u, step = np.linspace(-12, 16, 2801, retstep=True)
    place = stats.binom.cdf(top - 1, side.rivals(experts), stats.norm.sf(u))
    return {"hits": float((stats.norm.pdf(u - signal) * place).sum() * step)}


claim.simulate(
    sample,
    cases=[
        {"dim": 8, "experts": 4, "top": 1, "signal": 1.0},
        {"dim": 16, "experts": 8, "top": 3, "signal": 1.5},
        {"dim": 3, "experts": 3, "top": 2, "signal": 0.0},
    ],
    law=law,
)
