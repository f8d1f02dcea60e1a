"""H5. The first moment of any router's cell is a sum over its facets, and what follows from it.

A_i = {x : <w_i - w_j, x> >= 0 for all j} is a cone. For a fixed c the field cφ has divergence -<x,c>φ, so by the divergence
theorem E[<x,c> 1_{A_i}] is the integral of φ <c, inward normal> over the boundary: facet ij has the inward normal
u = (w_i-w_j)/|w_i-w_j|, and on the hyperplane <u,x> = 0 the density of R^d is φ(0) times that of the hyperplane. Hence

    E[x 1_{A_i}] = Σ_{j≠i} (w_i-w_j)/|w_i-w_j| φ(0) P(facet ij),   P(facet ij) = P(<w_i-w_k, y> >= 0 for k ≠ i, j)

with y standard normal in the hyperplane: an orthant probability of dimension n-2. For orthogonal gates the projected
edges have correlation 1/3 and the winning projection follows, e_n = n(n-1)/sqrt 2 · φ(0) P: e_2, e_3, e_4 below. Between
is Σ |E[x 1_{A_i}]|²/P(A_i) of a total d. Merging two of three gates does not merge their cells: between falls from
27/(8π) to 3/π, and only 2/π belongs to two experts.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import sympy as sp

from proofs._isotropic import chunks, coin
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.homogenization import cells


def side(general: bool) -> SimpleNamespace:
    """Length that divides w_i - w_j: its own in general, or the sqrt 2 of orthonormal gates."""
    return SimpleNamespace(length=lambda edge: np.linalg.norm(edge) if general else math.sqrt(2), general=general)


claim = Claim(
    title="Any router's centroids from the facets of its cells",
    statement=r"$E[x1_{A_i}]=\sum_{j\neq i}\frac{w_i-w_j}{|w_i-w_j|}\varphi(0)P(F_{ij})$ and "
    r"$\frac{\mathrm{between}}{\mathrm{within}}=\frac{b}{d-b}$, $b=\sum_i\frac{|E[x1_{A_i}]|^2}{P(A_i)}$, "
    r"$F_{ij}$ the facet between the cells $A_i=\{\langle w_i,x\rangle\text{ largest}\}$ and $A_j$",
    hypotheses=(r"$x\sim N(0,I_d)$; any gates, no three on a line",),
    source="ETR eq. 13 evaluated for any gates; new",
    tag="H5",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("planted_homogenization", "language_homogenization"),
    truth=side(True),
    mutant=side(False),
    mutation="w_i - w_j over sqrt 2, the distance of orthonormal gates",
    lemmas=("divergence theorem on a polyhedral cone", "orthant probabilities up to dimension 3 (Sheppard 1899)"),
)


@claim.derivation("the divergence, the density on a hyperplane, a half-space, and e_2, e_3, e_4")
def divergence_density_hyperplane_half_space(side: SimpleNamespace) -> Outcome:
    x, y, z, a, b, c = sp.symbols("x y z a b c", real=True)
    edge = sp.symbols("D", positive=True)
    density = sp.exp(-(x**2 + y**2 + z**2) / 2) / (2 * sp.pi) ** sp.Rational(3, 2)
    divergence = a * sp.diff(density, x) + b * sp.diff(density, y) + c * sp.diff(density, z)
    zero = 1 / sp.sqrt(2 * sp.pi)
    plane = sp.exp(-(y**2 + z**2) / 2) / (2 * sp.pi)
    half_space = sp.integrate(x * sp.exp(-(x**2) / 2) * zero, (x, 0, sp.oo))
    # two gates D apart: E[<x, u> 1_{<u,x> > 0}] by the formula, u the unit vector along the edge
    formula = edge / (edge if side.general else sp.sqrt(2)) * zero
    # correlation of the projected edges (w_i+w_j)/2 - w_k of orthogonal gates, then Sheppard
    third = sp.Rational(1, 2) / (1 + sp.Rational(1, 2))
    known = {
        2: 1 / sp.sqrt(sp.pi),
        3: 3 / (2 * sp.sqrt(sp.pi)),
        4: (3 + 6 / sp.pi * sp.asin(third)) / (2 * sp.sqrt(sp.pi)),
    }
    facet = {2: sp.Integer(1), 3: sp.Rational(1, 2), 4: sp.Rational(1, 4) + sp.asin(third) / (2 * sp.pi)}
    outcomes = [
        identity(divergence, -((a * x + b * y + c * z) * density), name="div(cφ) + <x,c>φ"),
        identity(density.subs(x, 0), zero * plane, name="density on the hyperplane - φ(0) × its own"),
        identity(half_space, formula, name="E[<x,u>; half-space] - formula"),
    ]
    outcomes += [
        identity(sp.Rational(m * (m - 1)) / sp.sqrt(2) * zero * facet[m], known[m], name=f"e_{m}") for m in known
    ]
    return every(outcomes)


def sector_moment(gates: np.ndarray, i: int) -> np.ndarray:
    """E[x 1_{A_i}] in the plane by the angles that bound the cell: sqrt(π/2)/(2π) ∫ (cos θ, sin θ) dθ."""
    low, high = -math.pi / 2, math.pi / 2
    edges = [gates[i] - w for j, w in enumerate(gates) if j != i]
    start = math.atan2(edges[0][1], edges[0][0])
    for edge in edges[1:]:
        turn = (math.atan2(edge[1], edge[0]) - start + math.pi) % (2 * math.pi) - math.pi
        low, high = max(low, turn - math.pi / 2), min(high, turn + math.pi / 2)
    if high <= low:
        return np.zeros(2)
    low, high = low + start, high + start
    arc = np.array([math.sin(high) - math.sin(low), math.cos(low) - math.cos(high)])
    return arc * math.sqrt(math.pi / 2) / (2 * math.pi)


@claim.reference("200 planar routers of three and four gates by angles, against formula and package; merging gates")
def planar_routers_three_four_gates(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(77)
    worst = 0.0
    for trial in range(200):
        gates = rng.standard_normal((3 + trial % 2, 2))
        package = cells.cells(gates).mean
        exact = np.stack([sector_moment(gates, i) for i in range(len(gates))])
        error = np.abs(package - exact).max()
        if error > 1e-12:
            return fails(f"package off by {error:.1e}")
        if len(gates) == 3:  # the formula itself: a facet is a half-line, in or out of the plane's ray
            total = np.zeros((3, 2))
            for i in range(3):
                for j in range(3):
                    if i != j:
                        total[i] += (
                            (gates[i] - gates[j]) / side.length(gates[i] - gates[j]) / math.sqrt(2 * math.pi) / 2
                        )
            if np.abs(total - exact).max() > 1e-12:
                return fails(f"three gates: the formula is off by {np.abs(total - exact).max():.2g}")
        worst = max(worst, error)
    near = np.array([[1.0, 0, 0], [1, 1e-8, 0], [0, 0, 1]])
    for gates, between in ((np.eye(3), 27 / (8 * math.pi)), (near, 3 / math.pi)):
        ratio = cells.scatter(gates).ratio
        if abs(3 * ratio / (1 + ratio) / between - 1) > 1e-7:
            return fails(f"between {3 * ratio / (1 + ratio):.6f}, not {between:.6f}")
    return holds(f"200 routers agree to {worst:.0e}; between 27/(8π) for three gates, 3/π as two of them merge")


GATES = [[1.0, 0.2, 0.0], [-0.4, 1.1, 0.3], [0.3, -0.8, 0.5], [0.1, 0.4, -1.5]]


def sample(rng: np.random.Generator, trials: int, *, gates: list[list[float]]) -> dict[str, int]:
    """Tokens of expert 0, and coins of <x, its gate> in its cell, over 16 and clipped (never reached in doubles)."""
    w = np.asarray(gates)
    counts = {"share": 0, "moment": 0}
    for count in chunks(trials):
        x = rng.standard_normal((count, w.shape[1]))
        mine = (x @ w.T).argmax(axis=1) == 0
        counts["share"] += int(np.count_nonzero(mine))
        counts["moment"] += coin(rng, np.clip(np.where(mine, x @ w[0], 0.0) / 16, -1, 1))
    return counts


def law(side: SimpleNamespace, *, gates: list[list[float]]) -> dict[str, float]:
    w = np.asarray(gates)
    parts = cells.cells(w)
    mean = parts.mean[0]
    if not side.general:
        # the mutant's moment: each facet's term times its distance over sqrt 2; solve the terms out of the true sum
        edges = w[0] - w[1:]
        lengths = np.linalg.norm(edges, axis=1)
        terms = np.linalg.lstsq((edges / lengths[:, None]).T, mean, rcond=None)[0]
        mean = (edges / math.sqrt(2)).T @ terms
    return {"share": float(parts.share[0]), "moment": (1 + float(mean @ w[0]) / 16) / 2}


claim.simulate(
    sample, cases=[{"gates": GATES}, {"gates": [[3.0, 0.5], [0.0, 1.0], [-2.0, -1.0]]}], law=law, trials=600_000
)
