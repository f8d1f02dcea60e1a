"""G3 beyond isotropy: the affinity of a token with any mean is a doubly non-central t in disguise.

Let x ~ N(μ, I_d) (noise is the unit of length), w a unit gate, m = <μ,w> and λ = |μ|² - m². Along w the token is
X ~ N(m, 1), across it an independent vector of length R with R² ~ χ'²_{d-1}(λ): so δ = X/sqrt(X²+R²), which rises in X/R, and
δ >= a is X/R >= a/sqrt(1-a²). Nothing else of μ or of other gates enters.

χ'² is a Poisson mixture of central χ²: E exp(-p (g+c)²) = (1+2p)^{-1/2} exp(-c² p/(1+2p)), so R² has the transform
(1+2p)^{-(d-1)/2} exp(-λp/(1+2p)), which is that of χ²_{d-1+2K}, K ~ Poisson(λ/2). Hence

    P(δ >= a) = Σ_k Poi(k; λ/2) P(t'_{d-1+2k}(m) >= a sqrt(d-1+2k)/sqrt(1-a²)),

for a > 0 rising in m and falling in λ: χ²_{ν+2} is stochastically larger than χ²_ν.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special, stats

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens.gaussian import Gaussian

p, lam, d, t = sp.symbols("p lambda d t", positive=True)
u, c, a = sp.symbols("u c a", real=True)


def side(kept: int) -> SimpleNamespace:
    """λ as it is (1) or forgotten (0)."""
    return SimpleNamespace(kept=kept)


claim = Claim(
    title="Affinity law of a token with any mean: a doubly non-central t",
    statement=r"$P(\delta\geq a)=P(t''_{d-1}(m,\lambda)\geq a\sqrt{d-1}/\sqrt{1-a^2})$ with "
    r"$t''_\nu(m,\lambda)=\frac{N(m,1)}{\sqrt{\chi'^2_\nu(\lambda)/\nu}}$, $m=\langle\mu,w\rangle$, $\lambda=|\mu|^2-m^2$; "
    r"for $a>0$ it rises in $m$ and falls in $\lambda$",
    hypotheses=(r"token $N(\mu,\sigma^2I_d)$ with $\mu$ in units of $\sigma$, $|w|=1$, $d\geq 2$",),
    source="new",
    tag="G3, V1",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="a singly non-central t, which forgets the mean orthogonal to the gate",
    lemmas=("a law on the half-line is determined by its Laplace transform",),
)


@claim.derivation("transform of a shifted normal's square; Poisson mixture; the cosine's odds")
def transform_shifted_normal_s_square(side: SimpleNamespace) -> Outcome:
    square = 1 + 2 * p
    # completing the square: p u² + (u-c)²/2 = (1+2p)(u - c/(1+2p))²/2 + c² p/(1+2p), for every coordinate across the gate
    exponent = (p * u**2 + (u - c) ** 2 / 2 - square * (u - c / square) ** 2 / 2, c**2 * p / square)
    across = square ** (-(d - 1) / 2) * sp.exp(-side.kept * lam * p / square)
    # Σ_k Poi(k; λ/2) z^k = exp(λ(z-1)/2) at z = 1/(1+2p), times that of d-1 degrees of freedom
    mixture = square ** (-(d - 1) / 2) * sp.exp(lam * (1 / square - 1) / 2)
    # d/dλ of the mixture is half of the step from ν to ν + 2 degrees of freedom
    step = (sp.diff(mixture, lam), mixture * (1 / square - 1) / 2)
    x, r = sp.symbols("x r", positive=True)
    cosine = x / sp.sqrt(x**2 + r**2)
    odds = (cosine / sp.sqrt(1 - cosine**2), x / r)
    return every(
        [
            identity(*exponent, name="completed square"),
            identity(sp.simplify(across / mixture), 1, points=[{p: 1, lam: 2, d: 5}], name="transform/mixture - 1"),
            identity(*step, name="derivative in λ - half a step of two degrees"),
            identity(*odds, name="δ/sqrt(1-δ²) - X/R"),
        ]
    )


def by_double_series(bound: float, m: float, off: float, dim: int) -> float:
    """Poisson mixture over k of Lenth's series over j (Algorithm AS 243); bound, m > 0."""
    k, j = np.arange(120.0)[:, None], np.arange(120.0)
    weight = stats.poisson.pmf(k, off * off / 2)
    even = stats.poisson.pmf(j, m * m / 2)
    odd = m / np.sqrt(2) * np.exp(j * np.log(m * m / 2) - m * m / 2 - special.gammaln(j + 1.5))
    half, odds = (dim - 1) / 2 + k, 1 - bound * bound
    terms = even * special.betainc(half, j + 0.5, odds) + odd * special.betainc(half, j + 1, odds)
    return float((weight * terms).sum()) / 2


def by_quadrature(bound: float, m: float, off: float, dim: int) -> float:
    """∫ density of R × P(X >= odds R) dr, the density by a Bessel function."""
    node, mass = special.roots_legendre(300)
    middle = np.sqrt(dim - 1 + off * off)
    r = np.maximum(middle - 9, 0) + (min(middle, 9) + 9) * (node + 1) / 2
    nu = (dim - 1) / 2 - 1
    log = (nu + 1) * np.log(r) - 0.5 * (r - off) ** 2
    if off > 0:
        log = log - nu * np.log(off) + np.log(special.ive(nu, off * r))
    else:
        log = log + nu * np.log(r / 2) - special.gammaln(nu + 1)
    tail = special.ndtr(m - bound / np.sqrt(1 - bound * bound) * r)
    return float(mass * np.exp(log) @ tail * (min(middle, 9) + 9) / 2)


@claim.reference("double series, quadrature over R and the package, m and λ up to strong means")
def double_series_quadrature_r_package(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    for dim, m, off in ((32, 1.0, 1.5), (64, 2.5, 2.0), (64, 0.5, 8.0), (256, 4.0, 10.0)):
        centre = m / np.sqrt(dim + m * m + off * off)
        for bound in (0.6 * centre, 1.4 * centre, 2.5 * centre):
            series = by_double_series(bound, m, side.kept * off, dim)
            single = by_quadrature(bound, m, side.kept * off, dim)
            package = float(Gaussian((m,), off, dim).false_positive(bound))
            for other in (single, package):
                worst = max(worst, abs(other - series))
                if worst > 1e-11:
                    return fails(f"d={dim}, m={m}, |off|={off}, a={bound:.3f}: series {series:.10g}, {other:.10g}")
    return holds(f"12 tails by three routes agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, m: float, off: float, bound: float) -> dict[str, int]:
    """Affinity with one of two GrAP gates; the mean across it lies partly on the other gate, partly off both."""
    mean = np.zeros(dim)
    half = dim // 2
    mean[:half] = m / np.sqrt(half)
    mean[half:] = 0.6 * off / np.sqrt(half)
    mean[:2] += np.array([0.8, -0.8]) * off / np.sqrt(2)
    return {"tail": int(np.count_nonzero(affinity(rng.standard_normal((trials, dim)) + mean, 2)[:, 0] >= bound))}


def law(side: SimpleNamespace, *, dim: int, m: float, off: float, bound: float) -> dict[str, float]:
    r = stats.ncx2 if side.kept else stats.chi2
    shape = (dim - 1, off * off) if side.kept else (dim - 1,)
    # P(R² <= X²(1-a²)/a², X > 0), by X
    node, mass = special.roots_legendre(200)
    x = (m + 9) * (node + 1) / 2
    density = np.exp(-0.5 * (x - m) ** 2) / np.sqrt(2 * np.pi)
    return {"tail": float((mass * density) @ r.cdf(x * x * (1 - bound**2) / bound**2, *shape) * (m + 9) / 2)}


claim.simulate(
    sample,
    cases=[
        {"dim": 4, "m": 1.0, "off": 2.0, "bound": 0.5},
        {"dim": 32, "m": 2.0, "off": 3.0, "bound": 0.3},
    ],
    law=law,
)
