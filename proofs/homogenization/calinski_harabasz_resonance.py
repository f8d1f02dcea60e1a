"""H3. Calinski-Harabasz of resonance in closed form, at any kept fraction f, selection by inner product.

The winning projection U of a candidate has density nφΦ^{n-1}; keeping the top fraction f keeps U > u_f with
Φ(u_f)^n = 1 - f. Given U = u the other projections on the gates are independent normals below u, of mean -y and second
moment 1 - uy, y = φ(u)/Φ(u); the d-n directions off the gates are untouched. So, with e = E U and b = -E y over the kept,
expert i's centroid is e w_i + b (sum of the other gates), between is (e-b)²(1-1/n), and the total about the mean is
E|x|² minus the squared norm n ((e + (n-1)b)/n)² of the mean token. f = 1 gives H2.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from proofs._isotropic import STUDIES, chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

u, n, e, b, d, q = sp.symbols("u n e b d q", positive=True)
PHI = sp.exp(-(u**2) / 2) / sp.sqrt(2 * sp.pi)
BELOW = (1 + sp.erf(u / sp.sqrt(2))) / 2


def side(loser: sp.Expr) -> SimpleNamespace:
    """`loser`: mean of a losing projection given that the winning one is u."""
    return SimpleNamespace(loser=loser)


claim = Claim(
    title="Calinski-Harabasz of resonance in closed form, at any kept fraction",
    statement=r"$\frac{\mathrm{between}}{\mathrm{within}}=\frac{(e-b)^2(1-1/n)}{d-n+q-e^2-(n-1)b^2}$ with $e=E[U]$, "
    r"$b=-E[\frac{\varphi(U)}{\Phi(U)}]$, $q=E[U^2+(n-1)(1-U\frac{\varphi(U)}{\Phi(U)})]$, $U$ of density "
    r"$n\varphi\Phi^{n-1}/f$ on $\Phi(u)^n>1-f$",
    hypotheses=(
        r"$x\sim N(0,I_d)$, orthonormal gates, Top-1, $2\leq n\leq d$, many tokens",
        r"each expert keeps the fraction $0<f\leq 1$ of its candidates with the largest inner products",
    ),
    source="ETR eq. 13 evaluated for resonance; new",
    tag="H3",
    kind="equality",
    expected=Verdict.PROVED,
    studies=STUDIES,
    truth=side(-PHI / BELOW),
    mutant=side(-u / (n - 1)),
    mutation="losing gates at -u/(n-1), as if the projections of a kept token still summed to 0",
)


@claim.derivation("truncated moments, and between + within = total")
def truncated_moments_between_within_total(side: SimpleNamespace) -> Outcome:
    second = 1 + u * side.loser
    points = [{u: sp.Rational(1, 2), n: 5}, {u: 2, n: 3}]
    # scatter with e, b, q symbols: centroid coefficients e and b on the gates, q the mean square on the gates
    mean = (e + (n - 1) * b) / n
    between = (e - mean) ** 2 + (n - 1) * (b - mean) ** 2
    within = q + d - n - e**2 - (n - 1) * b**2
    return every(
        [
            identity(sp.diff(BELOW * side.loser, u), u * PHI, points=points, name="(Φ E[g|g<u])' - uφ"),
            identity(sp.diff(BELOW * second, u), u**2 * PHI, points=points, name="(Φ E[g²|g<u])' - u²φ"),
            identity(between, (e - b) ** 2 * (1 - 1 / n), name="between - (e-b)²(1-1/n)"),
            identity(between + within, q + d - n - n * mean**2, name="between + within - total"),
        ]
    )


def swapped(side: SimpleNamespace, m: int, f: float) -> tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf]:
    """(e, b, q) by integrating over the losing projection last; b by the side's own formula unless it is the truth."""
    low = mpmath.findroot(lambda z: mpmath.ncdf(z) ** m - (1 - mpmath.mpf(f)), 1.0) if f < 1 else mpmath.mpf(-12)
    cuts = [low, low + 2, low + 5, low + 12, low + 24]
    e = mpmath.quad(lambda z: z * m * mpmath.npdf(z) * mpmath.ncdf(z) ** (m - 1), cuts) / f
    square = mpmath.quad(lambda z: z * z * m * mpmath.npdf(z) * mpmath.ncdf(z) ** (m - 1), cuts) / f

    def rest(power: int) -> mpmath.mpf:
        # P(winner above x and above u_f, and the other m-2 below it), for a loser at x
        def weight(z: mpmath.mpf) -> mpmath.mpf:
            return z**power * mpmath.npdf(z) * (1 - mpmath.ncdf(max(z, low)) ** (m - 1)) / (m - 1)

        return m * mpmath.quad(weight, sorted([-12, -4, 0, low, 4, 12])) / f

    b, b2 = rest(1), rest(2)
    if side.loser.has(n):
        b = -e / (m - 1)
    return e, b, square + (m - 1) * b2


@claim.reference("the package against integrals in the other order; .0375489, .0556500, .0720643 at d=64, n=8")
def package_integrals_other_order_d(side: SimpleNamespace) -> Outcome:
    printed = {(64, 8, 1.0): 0.0375489, (64, 8, 0.5): 0.0556500, (64, 8, 0.25): 0.0720643}
    worst = 0.0
    with mpmath.workdps(15):
        for (dim, m, f), value in printed.items():
            if abs(float(homogenization.resonance_scatter(dim, m, f)) - value) > 5.1e-8:
                return fails(f"d={dim}, n={m}, f={f} is not {value}")
        for dim, m, f in ((64, 8, 0.25), (5, 3, 0.5), (4096, 16, 0.0625)):
            ours = float(homogenization.resonance_scatter(dim, m, f))
            first, other, square = swapped(side, m, f)
            within = dim - m + square - first**2 - (m - 1) * other**2
            value = (first - other) ** 2 * (1 - mpmath.mpf(1) / m) / within
            error = abs(float(value / ours) - 1)
            worst = max(worst, error)
            if error > 1e-11:
                return fails(f"d={dim}, n={m}, f={f}: package {ours:.10g}, formula {float(value):.10g}")
    return holds(f"3 ratios agree to {worst:.0e}")


SCALE = 8.0  # coins of projections over 8, clipped: P(a normal beyond 8) < 1.3e-15, far below what a count could show


def sample(rng: np.random.Generator, trials: int, *, experts: int, kept: float) -> dict[str, int]:
    """Coins of the winning and of one losing projection, 0 where the winner is not among the kept."""
    counts = {"winning": 0, "losing": 0}
    threshold = float(mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(1 - kept) ** (mpmath.mpf(1) / experts) - 1))
    for count in chunks(trials):
        g = rng.standard_normal((count, experts))
        rows = np.arange(count)
        winner = g.argmax(axis=1)
        loser = (winner + rng.integers(1, experts, count)) % experts
        top = g[rows, winner]
        for key, value in (("winning", top), ("losing", g[rows, loser])):
            counts[key] += coin(rng, np.clip(np.where(top > threshold, value, 0.0) / SCALE, -1, 1))
    return counts


def law(side: SimpleNamespace, *, experts: int, kept: float) -> dict[str, float]:
    with mpmath.workdps(15):
        winner, other, _ = swapped(side, experts, kept)
    return {"winning": float(1 + winner * kept / SCALE) / 2, "losing": float(1 + other * kept / SCALE) / 2}


claim.simulate(
    sample,
    cases=[{"experts": 2, "kept": 0.5}, {"experts": 3, "kept": 0.5}, {"experts": 8, "kept": 0.25}],
    law=law,
    trials=600_000,
)
