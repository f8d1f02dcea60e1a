"""Scatter under any mean, loads and gates: centroids are gradients of the loads, between scatter is a Fisher information.

For x ~ N(μ, I_d) and any assignment of tokens to experts, P(A_i) = π_i(μ) = ∫_{A_i} φ(x - μ) dx, and ∂φ(x-μ)/∂μ = (x-μ) φ(x-μ):

    E[(x - μ) 1_{A_i}] = ∇π_i(μ),    between = Σ_i |E[(x-μ) 1_{A_i}]|²/π_i = Σ_i |∇π_i|²/π_i,

as Σ_i ∇π_i = 0: the trace of the Fisher information that a token's expert has about its mean. So the scatter of any router is
what its routes reveal; splitting a cell never lowers it, and merging two of gradients a, b and loads p, q costs
|a|²/p + |b|²/q - |a+b|²/(p+q) = |qa - pb|²/(pq(p+q)): nothing exactly if their centroids agree.

Orthonormal gates, m_j = <μ,w_j>: π_i = ∫ φ(v-m_i) Π_{k≠i} Φ(v-m_k) dv, hence

    E[(x - μ) 1_{A_i}] = Σ_{j≠i} (w_i - w_j) G_ij,   G_ij = ∫ φ(v-m_i) φ(v-m_j) Π_{k≠i,j} Φ(v-m_k) dv,

which is H1 where all m_j are equal: G = e_n/(n(n-1)) by e_n = n(n-1) ∫ φ² Φ^{n-2}. A mean off the gates, or along Σ w_j, does
nothing.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special

from proofs._isotropic import chunks, coin
from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.homogenization import cells
from resonance_theory.tokens.gaussian import Gaussian

v, m, p, q = sp.symbols("v m p q", positive=True)


def facet_weights(mean: np.ndarray) -> np.ndarray:
    """G_ij by the trapezoid rule, 0 on the diagonal."""
    x, step = np.linspace(mean.min() - 10, mean.max() + 10, 1501, retstep=True)
    density = np.exp(-((x - mean[:, None]) ** 2) / 2) / np.sqrt(2 * np.pi)
    below = special.ndtr(x - mean[:, None])
    n = mean.size
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            rest = np.prod(np.delete(below, [i, j], axis=0), axis=0)
            result[i, j] = result[j, i] = step * (density[i] * density[j] * rest).sum()
    return result


def side(moves: int) -> SimpleNamespace:
    """Whether the cells' moments follow the mean (1), or stay those of equal loads (0)."""

    def moments(mean: np.ndarray) -> np.ndarray:
        """E[(g_j - m_j) 1_{A_i}], row i, column j."""
        g = facet_weights(mean * moves)
        return np.diag(g.sum(axis=1)) - g

    return SimpleNamespace(moves=moves, moments=moments)


claim = Claim(
    title="Between scatter is the Fisher information of the routes; centroids are gradients of the loads",
    statement=r"$E[(x-\mu)1_{A_i}]=\nabla\pi_i(\mu)$ and $\mathrm{between}=\sum_i\frac{|\nabla\pi_i|^2}{\pi_i}$, never lower "
    r"after a cell is split; orthonormal gates: $\nabla\pi_i=\sum_{j\neq i}(w_i-w_j)\int\varphi(v-m_i)\varphi(v-m_j)"
    r"\prod_{k\neq i,j}\Phi(v-m_k)\,dv$, $m_j=\langle\mu,w_j\rangle$",
    hypotheses=(
        r"$x\sim N(\mu,I_d)$, many tokens",
        r"any assignment $A_1,\ldots,A_n$ of tokens; Top-1 in the last formula",
    ),
    source="ETR eq. 13 under any mean and loads; new",
    tag="H1, H5",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="the moments of equal loads whatever the mean",
    lemmas=("differentiation under the integral (normal densities)",),
)


@claim.derivation("the normal density's gradient; a split cell; the facet integrals; H1 at equal means")
def normal_density_s_gradient_split(side: SimpleNamespace) -> Outcome:
    z, a, b = sp.symbols("z a b", real=True)
    density = sp.exp(-((z - side.moves * m) ** 2) / 2) / sp.sqrt(2 * sp.pi)
    mass = (1 + sp.erf((z - m) / sp.sqrt(2))) / 2
    n, e = sp.symbols("n e", positive=True)
    # coefficients of H1's centroid on the own gate and on another: π = 1/n, G = e/(n(n-1))
    g = e / (n * (n - 1))
    point = [{z: 2, m: 1}]
    return every(
        [
            identity(sp.diff(density, m), (z - m) * density, points=point, name="∂φ(z-m)/∂m - (z-m)φ"),
            identity(sp.diff(mass, m), -(sp.exp(-((z - m) ** 2) / 2) / sp.sqrt(2 * sp.pi)), name="∂Φ(z-m)/∂m + φ(z-m)"),
            identity(
                a**2 / p + b**2 / q - (a + b) ** 2 / (p + q),
                (q * a - p * b) ** 2 / (p * q * (p + q)),
                name="merging's loss, per direction",
            ),
            identity(n * (n - 1) * g, e, name="H1: own gate"),
            identity(-n * g, -(e / (n - 1)), name="H1: another gate"),
        ]
    )


@claim.reference("loads' slopes by differences; three facets in closed form; H2's ratio")
def loads_slopes_differences_three_facets(side: SimpleNamespace) -> Outcome:
    worst, step = 0.0, 1e-3
    for mean in (np.array([1.0, 0.5, -0.3]), np.array([2.0, 1.5, 0.0, 1.0, -1.0])):
        moments = side.moments(mean)

        def loads(x: np.ndarray) -> np.ndarray:
            return Gaussian(tuple(x.tolist()), 0.0, 32).load()

        for j, axis in enumerate(np.eye(mean.size)):
            near, far = ((loads(mean + h * axis) - loads(mean - h * axis)) / (2 * h) for h in (step, 2 * step))
            error = float(np.abs((4 * near - far) / 3 - moments[:, j]).max())
            worst = max(worst, error)
            if error > 1e-9:
                return fails(f"means {mean.tolist()}: dπ/dm_{j} differs by {error:.2g}")
    for n in (3, 4, 8):
        moments = side.moments(np.zeros(n))
        between = n * (moments**2).sum()
        ratio = float(homogenization.token_choice_scatter(n, n))
        if abs(between / (n - between) / ratio - 1) > 1e-12:
            return fails(f"n={n}: between {between:.10g} is not H2's")
        if n <= 4 and np.abs(cells.cells(np.eye(n)).mean - moments).max() > 1e-12:
            return fails(f"n={n}: the facets' closed form differs")
    return holds(f"slopes of 8 loads agree to {worst:.0e}; H2 and the closed facets at equal means")


SCALE = 8.0


def sample(rng: np.random.Generator, trials: int, *, mean: list[float]) -> dict[str, int]:
    """Coins of (g_j - m_j) 1{expert 0 wins}, over 8 and clipped: its own gate and the next."""
    counts = {"own": 0, "next": 0}
    for count in chunks(trials):
        noise = rng.standard_normal((count, len(mean)))
        mine = (noise + mean).argmax(axis=1) == 0
        for key, j in (("own", 0), ("next", 1)):
            counts[key] += coin(rng, np.clip(np.where(mine, noise[:, j], 0.0) / SCALE, -1, 1))
    return counts


def law(side: SimpleNamespace, *, mean: list[float]) -> dict[str, float]:
    row = side.moments(np.array(mean))[0]
    return {"own": (1 + float(row[0]) / SCALE) / 2, "next": (1 + float(row[1]) / SCALE) / 2}


claim.simulate(sample, cases=[{"mean": [1.5, -0.5, 0.0]}, {"mean": [-2.0, 1.0, 0.0, 0.5]}], law=law, trials=600_000)
