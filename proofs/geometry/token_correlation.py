"""V1. Token correlation from near 0 to over .8: what mean a cluster needs.

Two tokens of a cluster are independent N(μ, σ²I) in R^d; m = |μ|/σ. By symmetry E x/|x| = c μ/|μ|, so E cos(x,y) = c². As
E[x h(|x|²)] = μ E h(S), S non-central chi-square with d+2 degrees of freedom and the same m (σ = 1), c = m E S^{-1/2}. Then
    c² >= m²/E S = m²/(m² + d + 2)                             (Jensen),
    c² <= m² E S^{-1} = (m²/2) E[1/(K + d/2)], K ~ Poi(m²/2)    (Cauchy-Schwarz; S is a Poisson mixture of χ²_{d+2+2K}).
Stein-Chen: with λ = m²/2, a = d/2: λ E[1/(K+a)] = E[K/(K+a-1)] = 1 - (a-1) E[1/(K+a-1)] <= 1 - (a-1) E[1/(K+a)], so c² is at
most m²/(m² + d - 2). Hence the mean cosine exceeds .8 once |μ|² >= 4(d+2)σ² and does not if |μ|² <= 4(d-2)σ²: |μ|² = 4dσ² up to
two dimensions. It is 0 without a mean. Along an Ornstein-Uhlenbeck flow from isotropy it passes .8 when
(1 - e^{-λt})² |μ|²/v(t) passes that mark, and never where |μ|² <= 4(d-2)σ² at the end.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens.evolving import Evolving

m, d, a, k, lam = sp.symbols("m d a k lambda", positive=True)


def side(offset: int) -> SimpleNamespace:
    """The lower bound is claimed to be m²/(m² + d + offset)."""
    return SimpleNamespace(offset=offset, lower=lambda mean, dim: mean**2 / (mean**2 + dim + offset))


claim = Claim(
    title="Mean cosine between tokens of a cluster: over .8 from |μ|² = 4(d±2)σ² on",
    statement=r"$\frac{m^2}{m^2+d+2}\leq E\cos(x,y)\leq\frac{m^2}{m^2+d-2}$ with $m=|\mu|/\sigma$; so it exceeds .8 if "
    r"$|\mu|^2>4(d+2)\sigma^2$, not if $|\mu|^2\leq 4(d-2)\sigma^2$, and is 0 at $\mu=0$",
    hypotheses=(r"$x,y\sim N(\mu,\sigma^2I_d)$ independent, $d\geq 2$, $m>0$ for the upper bound at $d=2$",),
    source="ETR figure 13 (arXiv 2406.00023): token correlation near 0 before and over .8 after training; new",
    tag="V1",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(2),
    mutant=side(0),
    mutation="m²/(m² + d) as the lower bound: exact ratio of the means of <x,y> and |x|², but no bound",
    lemmas=("Jensen's inequality", "Cauchy-Schwarz", "non-central chi-square as a Poisson mixture"),
)


@claim.derivation("mean of S, the Poisson identity, and both thresholds")
def mean_s_poisson_identity_thresholds(side: SimpleNamespace) -> Outcome:
    mass = lam**k * sp.exp(-lam) / sp.gamma(k + 1)
    lower = m**2 / (m**2 + d + side.offset)
    # E χ²_{d+2+2K} = d + 2 + 2λ
    mean = (d + 2 + 2 * lam).subs(lam, m**2 / 2)
    # density of the x_1 coordinate times x_1 - m is minus its derivative: E[(x_1-m) h] = E[∂_1 h], Stein
    x = sp.symbols("x", real=True)
    normal = sp.exp(-((x - m) ** 2) / 2)
    upper, slack = sp.symbols("upper slack", nonnegative=True)
    # (λ + a - 1) E <= 1: with E[1/(K+a-1)] = E + slack
    bound = lam * upper - (1 - (a - 1) * (upper + slack))
    solved = sp.solve(bound, upper)[0]
    return every(
        [
            identity(sp.diff(normal, x), -((x - m) * normal), name="Stein's identity for the normal density"),
            identity(k * mass, lam * mass.subs(k, k - 1), unit=lam * mass, name="k Poi(k) - λ Poi(k-1)"),
            identity(m**2 / mean, lower, points=[{m: 1, d: 3}], name="m²/E S - lower bound"),
            identity(solved, (1 - (a - 1) * slack) / (lam + a - 1), name="E[1/(K+a)] - (1-(a-1) slack)/(λ+a-1)"),
            identity(
                (m**2 / 2 / (lam + a - 1)).subs({lam: m**2 / 2, a: d / 2}),
                m**2 / (m**2 + d - 2),
                name="upper bound",
            ),
            identity((m**2 / (m**2 + d + 2)).subs(m, 2 * sp.sqrt(d + 2)), sp.Rational(4, 5), name="mark 4(d+2)"),
        ]
    )


def cosine(mean: float, dim: int) -> mpmath.mpf:
    """E cos by Kummer's function, 50 digits."""
    with mpmath.workdps(50):
        scale = mean / mpmath.sqrt(2) * mpmath.gamma(mpmath.mpf(dim + 1) / 2) / mpmath.gamma(mpmath.mpf(dim) / 2 + 1)
        return (scale * mpmath.hyp1f1(0.5, mpmath.mpf(dim) / 2 + 1, -(mpmath.mpf(mean) ** 2) / 2)) ** 2


@claim.reference("closed form by Kummer's function between the bounds; the package's ratio too")
def closed_form_kummer_s_function(side: SimpleNamespace) -> Outcome:
    for dim in (2, 3, 8, 64, 768):
        for mean in (0.1, 1.0, 4.0, 2 * dim**0.5, 5 * dim**0.5):
            exact, low = float(cosine(mean, dim)), side.lower(mean, dim)
            if not low <= exact <= mean**2 / (mean**2 + dim - 2) * (1 + 1e-12):
                return fails(f"d={dim}, m={mean:.3g}: {exact:.8f} is not above {low:.8f}")
    flow = Evolving(64, 8, signal=1.0, noise=2**0.5, background=[[0.0] * 8 + [20.0]])
    for time in (0.0, 0.5, 1.0, 5.0):
        exact = float(cosine(20 * (1 - np.exp(-time)), 64))
        if abs(float(flow.correlation(time)[0]) - exact) > 2 / 64:
            return fails(f"t={time}: the package says {float(flow.correlation(time)[0])}, exactly {exact}")
    return holds("25 pairs (d, m) within the bounds; a flow from 0 to .86")


def sample(rng: np.random.Generator, trials: int, *, mean: float, dim: int) -> dict[str, int]:
    """A coin of probability (1 + cos)/2 for each pair of tokens."""
    x = rng.standard_normal((2, trials, dim))
    x[..., 0] += mean
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return {"coin": int(np.count_nonzero(2 * rng.random(trials) - 1 < np.vecdot(x[0], x[1])))}


claim.simulate(
    sample,
    cases=[{"mean": 1.0, "dim": 3}, {"mean": 0.5, "dim": 2}],
    law=lambda side, *, mean, dim: {"coin": (1 + side.lower(mean, dim)) / 2},
    relation="at_least",
    trials=1_000_000,
)
