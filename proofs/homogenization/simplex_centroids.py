"""H1. Under Top-1 routing of isotropic tokens by orthonormal gates the experts' centroids form a regular simplex.

Let g_1, ..., g_n be a token's projections on the gates and let expert i win if g_i is the largest. By symmetry
E[g_1 + ... + g_n | i wins] does not depend on i, and its average over i is E[g_1 + ... + g_n] = 0, so it is 0. The
winner's mean is e_n = E max; each other mean is therefore -e_n/(n-1); directions off the gates average to 0. So the
centroid is e_n (w_i - sum of the others/(n-1)) = (e_n n/(n-1)) (w_i - mean gate), of squared norm B = e_n² n/(n-1),
and two centroids have the cosine -1/(n-1). On the unit sphere divide by E R, as radius and direction are independent.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin, unit_tokens
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

n, e = sp.symbols("n e", positive=True)


def side(other: sp.Expr) -> SimpleNamespace:
    """`other`: mean projection on a losing gate over the winner's mean; cosine and norm² follow from it."""
    return SimpleNamespace(other=other)


claim = Claim(
    title="Expert centroids of isotropic tokens form a simplex equiangular tight frame",
    statement=r"centroid of expert $i$: $\frac{e_n n}{n-1}(w_i-\bar w)$; squared norm $B=e_n^2\frac{n}{n-1}$; "
    r"pairwise cosine $-\frac{1}{n-1}$, with $e_n=E\max(g_1,\ldots,g_n)$ of standard normals",
    hypotheses=(r"$x\sim N(0,I_d)$, orthonormal gates, Top-1, $2\leq n\leq d$",),
    source="new",
    tag="H1",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(-1 / (n - 1)),
    mutant=side(-1 / n),
    mutation="losing gates at -e/n instead of -e/(n-1)",
    lemmas=("exchangeability of the projections",),
)


@claim.derivation("centroid, norm and cosine from E[sum of projections | i wins] = 0")
def centroid_norm_cosine_e_sum(side: SimpleNamespace) -> Outcome:
    b = side.other * e
    return every(
        [
            identity(e, -((n - 1) * b), name="e_n + (n-1) b, the conditional mean of the sum"),
            # coefficients of w_i and of another gate in (e n/(n-1)) (w_i - mean gate)
            identity(e * n / (n - 1) * (1 - 1 / n), e, name="coefficient of the own gate"),
            identity(e * n / (n - 1) * (-1 / n), b, name="coefficient of another gate"),
            identity(e**2 + (n - 1) * b**2, e**2 * n / (n - 1), name="norm² - B"),
            identity(2 * e * b + (n - 2) * b**2, -((e**2 + (n - 1) * b**2) / (n - 1)), name="cosine + 1/(n-1)"),
        ]
    )


@claim.reference("E[g_j | i wins] by integrating the joint density, 25 digits, n = 2, 3, 8")
def e_g_j_i_wins(side: SimpleNamespace) -> Outcome:
    with mpmath.workdps(25):
        for m in (2, 3, 8):
            cuts = [-12, -4, 0, 4, 12]
            # E[g_j; g_i max] = ∫ φ(u) E[g; g < u] Φ(u)^{n-2} du with E[g; g < u] = -φ(u), times n for the condition
            other = mpmath.quad(lambda u, m=m: -m * mpmath.npdf(u) ** 2 * mpmath.ncdf(u) ** (m - 2), cuts)
            winner = mpmath.quad(lambda u, m=m: m * u * mpmath.npdf(u) * mpmath.ncdf(u) ** (m - 1), cuts)
            ours = float(homogenization.expected_max(m))
            if abs(ours / winner - 1) > 1e-12:
                return fails(f"n={m}: e_n = {ours!r} in the package, {mpmath.nstr(winner, 15)} by the integral")
            claimed = sp.Float(sp.Rational(side.other.subs(n, m)), 20)
            if abs(other / winner - mpmath.mpf(str(claimed))) > 1e-15:
                return fails(f"n={m}: losing over winning mean is {mpmath.nstr(other / winner, 8)}, not {claimed}")
    return holds("e_n and the losing mean agree")


def sample(rng: np.random.Generator, trials: int, *, dim: int, experts: int) -> dict[str, int]:
    """Coins of the winner's and of one loser's cosine, and of the inner product of two tokens of different experts."""
    counts = {"winning": 0, "losing": 0}
    for count in chunks(trials):
        gates = unit_tokens(rng, count, dim)[:, :experts]
        rows = np.arange(count)
        winner = gates.argmax(axis=1)
        loser = (winner + rng.integers(1, experts, count)) % experts
        counts["winning"] += coin(rng, gates[rows, winner])
        counts["losing"] += coin(rng, gates[rows, loser])
    return counts


def law(side: SimpleNamespace, *, dim: int, experts: int) -> dict[str, float]:
    radius = float(mpmath.sqrt(2) * mpmath.gamma((dim + 1) / 2) / mpmath.gamma(dim / 2))
    winner = float(homogenization.expected_max(experts)) / radius
    return {"winning": (1 + winner) / 2, "losing": (1 + winner * float(side.other.subs(n, experts))) / 2}


claim.simulate(sample, cases=[{"dim": 3, "experts": 3}, {"dim": 4, "experts": 2}, {"dim": 6, "experts": 4}], law=law)
