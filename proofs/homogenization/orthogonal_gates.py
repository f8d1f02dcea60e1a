"""H4. Among unit gates with pairwise non-negative inner products, orthogonal ones catch the most of isotropic tokens.

E max_i <w_i,x> for x ~ N(0, I): the increments E(<w_i,x> - <w_j,x>)² = |w_i - w_j|² = 2 - 2<w_i,w_j> are at most the 2 of
orthogonal gates, so by the Sudakov-Fernique inequality the expected winning projection is at most e_n. The condition is
needed: gates at a simplex's corners have negative inner products and a larger one (simplex_gates).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory import homogenization
from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds


def side(least: float) -> SimpleNamespace:
    """`least`: the smallest inner product of two gates that is allowed."""
    return SimpleNamespace(least=least)


claim = Claim(
    title="Orthogonal gates win the most among gates with non-negative inner products",
    statement=r"$E\max_i\langle w_i,x\rangle\leq e_n=E\max(g_1,\ldots,g_n)$, with equality for orthogonal gates",
    hypotheses=(r"$x\sim N(0,I_d)$; $|w_i|=1$ and $\langle w_i,w_j\rangle\geq 0$ for $i\neq j$",),
    source="new",
    tag="H4",
    kind="bound",
    expected=Verdict.PROVED,
    studies=("homogenization_training", "planted_homogenization"),
    truth=side(0.0),
    mutant=side(-0.5),
    mutation="inner products down to -1/2 allowed",
    lemmas=("Sudakov-Fernique inequality (Fernique 1975; Vershynin, High-Dimensional Probability, Theorem 7.2.11)",),
)


@claim.certificate("the increments are at most those of orthogonal gates")
def increments_most_those_orthogonal_gates(side: SimpleNamespace) -> Outcome:
    c, r, s = sp.symbols("c r s")  # r = |w_i|² = s = |w_j|² = 1
    increment = (r + s - 2 * c).subs({r: 1, s: 1})
    return nonnegative_polynomial(2 - increment, {c: sp.Rational(str(side.least))}, name="2 - |w_i - w_j|²")


def three(gram: np.ndarray) -> np.ndarray:
    """E max of three centred normals: half the mean range, which is half the sum of the three |differences|."""
    total = np.zeros(gram.shape[:-2])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        total = total + np.sqrt(np.maximum(gram[..., i, i] + gram[..., j, j] - 2 * gram[..., i, j], 0.0))
    return total * math.sqrt(2 / math.pi) / 4


@claim.reference("E max of three gates by its closed form, over 40000 random sets")
def e_max_three_gates_closed(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(31)
    gates = rng.standard_normal((40_000, 3, 3))
    gates /= np.linalg.norm(gates, axis=-1, keepdims=True)
    gram = gates @ np.swapaxes(gates, -1, -2)
    least = np.minimum(np.minimum(gram[:, 0, 1], gram[:, 0, 2]), gram[:, 1, 2])
    value = three(gram[least >= side.least])
    limit = float(homogenization.expected_max(3))
    if value.max() > limit * (1 + 1e-13):
        return fails(f"three gates with E max = {value.max():.6f} > e_3 = {limit:.6f}")
    orthogonal = float(three(np.eye(3)))
    if abs(orthogonal / limit - 1) > 1e-13:
        return fails(f"orthogonal gates give {orthogonal!r}, not {limit!r}")
    return holds(f"{len(value)} sets of three gates, at most {value.max() / limit:.4f} e_3; orthogonal ones attain it")


def sample(rng: np.random.Generator, trials: int, *, gram: list[list[float]]) -> dict[str, int]:
    """Coins of the winning projection, over 8 and clipped (P(a normal beyond 8) < 1.3e-15)."""
    from proofs._isotropic import chunks, coin

    root = np.linalg.cholesky(np.asarray(gram))
    heads = 0
    for count in chunks(trials):
        heads += coin(rng, np.clip((rng.standard_normal((count, len(gram))) @ root.T).max(axis=1) / 8, -1, 1))
    return {"winning": heads}


def law(side: SimpleNamespace, *, gram: list[list[float]]) -> dict[str, float]:
    """The bound on the winning projection where the gates are allowed; for the mutant, gates beyond c = 0 as well."""
    allowed = min(min(row) for row in gram) >= side.least
    return {"winning": (1 + float(homogenization.expected_max(len(gram))) / 8) / 2 if allowed else 1.0}


def equicorrelated(n: int, c: float) -> list[list[float]]:
    return ((1 - c) * np.eye(n) + c).tolist()


claim.simulate(
    sample,
    cases=[
        {"gram": equicorrelated(4, 0.3)},
        {"gram": equicorrelated(8, 0.2)},
        {"gram": [[1, 0.6, 0.0, 0.0], [0.6, 1, 0.0, 0.0], [0.0, 0.0, 1, 0.6], [0.0, 0.0, 0.6, 1]]},
        {"gram": equicorrelated(3, -0.45)},  # not allowed: above e_n, which only the mutant claims to be impossible
    ],
    law=law,
    relation="at_most",
    trials=400_000,
)
