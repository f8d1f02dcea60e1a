"""H2. Calinski-Harabasz of Top-1 token choice in closed form: between/within = B/(d-B).

Between: every expert gets the share 1/n of the tokens, the mean token is 0, and each centroid has squared norm
B = e_n² n/(n-1) (H1), so the between scatter per token is B. Total: E|x|² = d per token. Within = total - between.
On the unit sphere the total is 1 and the centroid shrinks by E R: between B/(E R)². The denominators are positive:
a centroid's squared norm is less than the mean squared norm of its tokens (Jensen), as these are not all equal.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from proofs._isotropic import STUDIES, chunks, coin, unit_tokens
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, e, d, r = sp.symbols("n e d r", positive=True)


def side(experts_factor: sp.Expr) -> SimpleNamespace:
    return SimpleNamespace(b=e**2 * experts_factor)


claim = Claim(
    title="Calinski-Harabasz of token choice in closed form",
    statement=r"$\frac{\mathrm{between}}{\mathrm{within}}=\frac{B}{d-B}$ with $B=e_n^2\frac{n}{n-1}$; for tokens on "
    r"the unit sphere $B$ is replaced by $Bd/(ER)^2$, $ER=\sqrt2\,\Gamma(\frac{d+1}{2})/\Gamma(\frac d2)$",
    hypotheses=(r"$x\sim N(0,I_d)$, orthonormal gates, Top-1, $2\leq n\leq d$, many tokens",),
    source="ETR eq. 13 evaluated; new",
    tag="H2",
    kind="equality",
    expected=Verdict.PROVED,
    studies=STUDIES,
    truth=side(n / (n - 1)),
    mutant=side(sp.Integer(1)),
    mutation="B = e_n², the centroid without its components along the losing gates",
    lemmas=("H1 (simplex_centroids)", "radius and direction of a normal vector are independent"),
)


@claim.derivation("between and within from the centroids of H1")
def between_within_centroids_h1(side: SimpleNamespace) -> Outcome:
    other = -e / (n - 1)
    between = e**2 + (n - 1) * other**2  # the mean token is 0, every share 1/n
    claimed = side.b / (d - side.b)
    on_sphere = (between / r**2) / (1 - between / r**2)
    replaced = side.b * d / r**2
    return every(
        [
            identity(between / (d - between), claimed, name="between/within - B/(d-B)"),
            identity(on_sphere, replaced / (d - replaced), name="on the sphere, B replaced by B d/(ER)²"),
        ]
    )


@claim.reference("the package's ratio against 40-digit arithmetic, d up to 10^4")
def package_s_ratio_digit_arithmetic(side: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(40):
        for dim, m in ((2, 2), (64, 8), (4096, 16), (10_000, 1000)):
            upper = [0, 2, 4, 8, 16]
            top = mpmath.quad(lambda t, m=m: 1 - mpmath.ncdf(t) ** m, upper)
            top -= mpmath.quad(lambda t, m=m: mpmath.ncdf(-t) ** m, upper)
            factor = mpmath.mpf(str(sp.Float(sp.sympify(side.b / e**2).subs(n, m), 30)))
            b = top**2 * factor
            shrink = dim / (mpmath.sqrt(2) * mpmath.gammaprod([mpmath.mpf(dim + 1) / 2], [mpmath.mpf(dim) / 2])) ** 2
            for on_sphere, value in ((False, b), (True, b * shrink)):
                ours = float(homogenization.token_choice_scatter(dim, m, sphere=on_sphere))
                error = abs(ours / float(value / (dim - value)) - 1)
                worst = max(worst, error)
                if error > 1e-12:
                    return fails(f"d={dim}, n={m}, sphere={on_sphere}: package {ours:.10g}, formula off by {error:.1e}")
    return holds(f"8 ratios agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int) -> dict[str, int]:
    """Coins of <x, y> 1{x and y at the same expert}: over all pairs its mean is the centroid's squared norm over n."""
    heads = 0
    for count in chunks(trials):
        x, y = unit_tokens(rng, count, dim), unit_tokens(rng, count, dim)
        same = x[:, :experts].argmax(axis=1) == y[:, :experts].argmax(axis=1)
        heads += coin(rng, np.where(same, (x * y).sum(axis=1), 0.0))
    return {"same expert": heads}


def law(side: SimpleNamespace, *, dim: int, experts: int) -> dict[str, float]:
    radius = float(mpmath.sqrt(2) * mpmath.gamma((dim + 1) / 2) / mpmath.gamma(dim / 2))
    b = float(side.b.subs({n: experts, e: float(homogenization.expected_max(experts))}))
    return {"same expert": (1 + b / radius**2 / experts) / 2}


claim.simulate(sample, cases=[{"dim": 2, "experts": 2}, {"dim": 3, "experts": 3}], law=law)
