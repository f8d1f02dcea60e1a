"""G3. The affinity of the discriminative token is a non-central t in disguise, and its mean false-positive rate.

Along the gate the planted token (σ = 1) is X ~ N(θ, 1), across it an independent vector of length R ~ chi_{d-1}. So
δ = X/sqrt(X²+R²), and δ/sqrt(1-δ²) = X/R, which is t'_{d-1}(θ)/sqrt(d-1). In polar coordinates X = ra, R = r sqrt(1-a²)
the joint density splits: density of δ = that of a uniform direction times exp(-θ²/2) E exp(θ a chi_d).

An irrelevant token (U, S), U ~ N(0,1), S ~ chi_{d-1}, has the larger affinity iff U/S >= X/R, iff UR - XS >= 0; given R and
S that is N(-θS, R²+S²). So E q(δ) = E Q(θ sqrt B), B = S²/(R²+S²) ~ Beta((d-1)/2, (d-1)/2).
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps, samplers, signals

d, r, b, t, theta = sp.symbols("d r b t theta", positive=True)
a = sp.symbols("a", real=True)
y = sp.symbols("y", positive=True)  # 1 - a²


def side(lost: int) -> SimpleNamespace:
    """Degrees of freedom across the gate: d - lost."""
    return SimpleNamespace(lost=lost, freedom=d - lost)


claim = Claim(
    title="Affinity law of planted tokens",
    statement=r"$P(\delta_o\geq a)=P(t'_{d-1}(\theta/\sigma)\geq a\sqrt{d-1}/\sqrt{1-a^2})$, "
    r"$E\,q(\delta_o)=E[1-\Phi(\frac{\theta}{\sigma}\sqrt B)]$, $B\sim\mathrm{Beta}(\frac{d-1}{2},\frac{d-1}{2})$",
    hypotheses=(r"token $\theta w_i+\sigma z$, $|w_i|=1$, $z\sim N(0,I_d)$, $d\geq 2$",),
    source="new",
    tag="G3",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="d degrees of freedom in place of d - 1",
)


def chi(freedom: sp.Expr, value: sp.Expr, square: sp.Expr) -> sp.Expr:
    """Density of a chi variable; `value` and its square."""
    constant = 2 ** (1 - freedom / 2) / sp.gamma(freedom / 2)
    return constant * value ** (freedom - 1) * sp.exp(-square / 2)


def normal(value: sp.Expr) -> sp.Expr:
    return sp.exp(-(value**2) / 2) / sp.sqrt(2 * sp.pi)


def ratio(left: sp.Expr, right: sp.Expr) -> sp.Expr:
    return sp.simplify(sp.gammasimp(sp.powsimp(sp.expand_power_base(left / right, force=True), force=True)))


@claim.derivation("polar coordinates split the joint density, and the cosine's odds are the t statistic")
def polar_coordinates_split_joint_density(side: SimpleNamespace) -> Outcome:
    nu = side.freedom
    # (X, R) = (ra, r sqrt(1-a²)) has the Jacobian r / sqrt(1-a²)
    left = normal(r * a - theta) * chi(nu, r * sp.sqrt(y), r**2 * (1 - a**2)) * r / sp.sqrt(y)
    uniform = y ** ((d - 3) / 2) * sp.gamma(d / 2) / sp.gamma((d - 1) / 2) / sp.sqrt(sp.pi)
    right = uniform * chi(d, r, r**2) * sp.exp(theta * r * a - theta**2 / 2)
    statistic = (r * a) / (r * sp.sqrt(1 - a**2) / sp.sqrt(nu))
    threshold = a * sp.sqrt(d - 1) / sp.sqrt(1 - a**2)
    points = [{r: 2, a: sp.Rational(1, 3), y: sp.Rational(8, 9), theta: 1, d: 5}]
    return every(
        [
            identity(ratio(left, right), 1, points=points, name="joint density / product - 1"),
            identity(statistic, threshold, points=points, name="t statistic - threshold"),
        ]
    )


@claim.certificate("E q in every dimension: the standardised difference, and the beta law of S²/(R²+S²)")
def e_q_dimension_standardised_difference(side: SimpleNamespace) -> Outcome:
    s, x = sp.symbols("s x", positive=True)
    half = side.freedom / 2
    # mean over deviation of UR - XS given R = x, S = s, against -θ sqrt(B)
    standard = ((0 * x - theta * s) / sp.sqrt(x**2 + s**2), -(theta * sp.sqrt(s**2 / (x**2 + s**2))))
    # halved chi-squares: S²/2 = bt, R²/2 = (1-b)t, Jacobian t
    left = (b * t) ** (half - 1) * ((1 - b) * t) ** (half - 1) * sp.exp(-t) * t / sp.gamma(half) ** 2
    beta = (b * (1 - b)) ** ((d - 1) / 2 - 1) * sp.gamma(d - 1) / sp.gamma((d - 1) / 2) ** 2
    right = beta * t ** (d - 2) * sp.exp(-t) / sp.gamma(d - 1)
    return every(
        [
            identity(*standard, name="standardised mean + θ sqrt(B)"),
            identity(ratio(left, right), 1, points=[{b: sp.Rational(1, 3), t: 2, d: 5}], name="density / product - 1"),
        ]
    )


def tail_by_series(bound: float, signal: float, freedom: int) -> mpmath.mpf:
    """P(t' >= x), x > 0, x² = freedom bound²/(1 - bound²), by Lenth's Poisson mixture of incomplete betas (AS 243)."""
    odds = mpmath.mpf(bound) ** 2  # x²/(x² + freedom)
    half, shift = mpmath.mpf(freedom) / 2, mpmath.mpf(signal) ** 2 / 2
    even = mpmath.exp(-shift)
    odd = mpmath.mpf(signal) / mpmath.sqrt(2) * mpmath.exp(-shift) / mpmath.gamma(mpmath.mpf(3) / 2)
    total = mpmath.mpf(0)
    for k in range(120 + int(4 * shift)):
        # complements, so that the sum is the upper tail itself
        total += even * mpmath.betainc(half, k + mpmath.mpf(1) / 2, 0, 1 - odds, regularized=True)
        total += odd * mpmath.betainc(half, k + 1, 0, 1 - odds, regularized=True)
        even *= shift / (k + 1)
        odd *= shift / (k + mpmath.mpf(3) / 2)
    return total / 2


@claim.reference("the package against Lenth's series, and against mean caps, 30 digits")
def package_lenth_s_series_mean(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(30):
        for dim, signal in ((2, 1.5), (3, 0.5), (64, 2.5), (1000, 3.0)):
            for bound in (0.05, 0.2, 0.4):
                exact = tail_by_series(bound, signal, dim - side.lost)
                ours = float(signals.affinity_tail(bound, signal, dim))
                if abs(ours / float(exact) - 1) > 1e-11:
                    return fails(f"d={dim}, θ={signal}, a={bound}: {ours:.12g} in the package, {float(exact):.12g}")
                worst = max(worst, abs(ours / float(exact) - 1))
        for dim, signal in ((3, 1.0), (64, 2.0), (500, 6.0)):
            # E q by the arc sine law's angle: B = sin² x, density proportional to (sin x cos x)^{freedom - 1}
            nodes, weights = np.polynomial.legendre.leggauss(400)
            x = (nodes + 1) * np.pi / 4
            density = weights * np.exp((dim - side.lost - 1) * np.log(2 * np.sin(x) * np.cos(x)))
            mean = float(density @ special.ndtr(-signal * np.sin(x)) / density.sum())
            cosines, at = np.polynomial.legendre.leggauss(400)
            cosines, at = np.sin(cosines * np.pi / 2), at * np.pi / 2 * np.cos(cosines * np.pi / 2)
            average = float(at @ (signals.affinity_density(cosines, signal, dim) * caps.cap(cosines, dim)))
            ours = float(signals.false_positive(signal, dim))
            worst = max(worst, abs(ours / mean - 1), abs(average / mean - 1))
    if worst > 1e-11:
        return fails(f"E q: the package and its mean cap differ from the beta law by {worst:.1e}")
    known = float(signals.false_positive(2, 64))
    if abs(known - 0.0798868238225) > 6e-14:
        return fails(f"E q at θ=2, d=64 is {known:.13f}")
    return holds(f"12 tails and 3 means agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, signal: float, bound: float) -> dict[str, int]:
    drawn = samplers.planted(rng, trials, 2, dim, 2, signal)
    rows = np.arange(trials)
    scores = affinity(drawn.values, 2)[rows, :, drawn.expert]
    own, other = scores[rows, drawn.position], scores[rows, 1 - drawn.position]
    return {"tail": int(np.count_nonzero(own >= bound)), "false positive": int(np.count_nonzero(other >= own))}


def law(side: SimpleNamespace, *, dim: int, signal: float, bound: float) -> dict[str, float]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    x = (nodes + 1) * np.pi / 4
    density = weights * (2 * np.sin(x) * np.cos(x)) ** (dim - side.lost - 1)
    tail = float(special.nctdtr(dim - side.lost, signal, bound * np.sqrt(dim - side.lost) / np.sqrt(1 - bound**2)))
    return {"tail": 1 - tail, "false positive": float(density @ special.ndtr(-signal * np.sin(x)) / density.sum())}


claim.simulate(
    sample,
    cases=[{"dim": 2, "signal": 1.0, "bound": 0.6}, {"dim": 6, "signal": 1.5, "bound": 0.5}],
    law=law,
)
