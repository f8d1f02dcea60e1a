"""H4, the open part. No four unit gates have been found that win more than the simplex's.

That the regular simplex has the largest mean width, E max <w_i,x>, of all sets of n unit vectors is the simplex mean
width conjecture, open for n >= 4 (n = 2, 3: simplex_gates). Nothing is proved here. For n = 4 the mean width is exact,
Σ_{i<j} |w_i-w_j| φ(0) P(F_ij) with facets of two-dimensional orthants (gate_facets), so a search needs no sampling: sets
of gates at random in R^3 and R^4, neighbours of the simplex at all scales, and ascents from random sets.
"""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np

from resonance_theory import facets, homogenization
from resonance_theory.verification.claim import Claim, Verdict
from resonance_theory.verification.outcome import Outcome, fails, holds


def side(factor: float) -> SimpleNamespace:
    """The claimed largest mean width, as a multiple of e_4."""
    return SimpleNamespace(best=factor * float(homogenization.expected_max(4)))


claim = Claim(
    title="Simplex gates win the most among any four unit gates, as far as a search can tell",
    statement=r"$E\max_{i\leq 4}\langle w_i,x\rangle\leq e_4\sqrt{4/3}$ for unit gates; a test of an open conjecture",
    hypotheses=(r"$x\sim N(0,I_d)$, $|w_i|=1$, $n=4$",),
    source="simplex mean width conjecture; new (H4)",
    kind="empirical",
    expected=Verdict.SUPPORTED,
    truth=side(math.sqrt(4 / 3)),
    mutant=side(1.0),
    mutation="e_4, the value of orthogonal gates, is the most",
)


def unit(gates: np.ndarray) -> np.ndarray:
    return gates / np.linalg.norm(gates, axis=-1, keepdims=True)


def width(gates: np.ndarray) -> np.ndarray:
    """E max of four gates (..., 4, d), exactly."""
    total = np.zeros(gates.shape[:-2])
    for i, j in itertools.combinations(range(4), 2):
        edge = gates[..., i, :] - gates[..., j, :]
        length = np.linalg.norm(edge, axis=-1)
        normal = edge / length[..., None]
        walls = np.stack([gates[..., i, :] - gates[..., k, :] for k in range(4) if k not in (i, j)], axis=-2)
        walls = walls - (walls @ normal[..., None]) * normal[..., None, :]
        total += length * facets.orthant(walls) / math.sqrt(2 * math.pi)
    return total


SIMPLEX = unit(np.eye(4) - 0.25)


def judged(side: SimpleNamespace, gates: np.ndarray, what: str) -> Outcome:
    most = float(width(gates).max())
    text = f"{what}: at most {most:.9f} against {side.best:.9f}"
    return holds(text) if most <= side.best * (1 + 1e-12) else fails(text)


@claim.reference("60000 random sets of four unit gates in three and four dimensions")
def _(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(41)
    flat = np.pad(unit(rng.standard_normal((30_000, 4, 3))), ((0, 0), (0, 0), (0, 1)))
    return judged(side, np.concatenate([flat, unit(rng.standard_normal((30_000, 4, 4)))]), "60000 sets")


@claim.reference("40000 neighbours of the simplex, at distances from 1e-5 to 1; the simplex attains the value")
def _(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(42)
    scale = 10 ** rng.uniform(-5, 0, (40_000, 1, 1))
    if abs(float(width(SIMPLEX)) / side.best - 1) > 1e-12:
        return fails(f"the simplex has {float(width(SIMPLEX)):.9f}, not {side.best:.9f}")
    return judged(side, unit(SIMPLEX + scale * rng.standard_normal((40_000, 4, 4))), "40000 neighbours")


@claim.reference("24 random ascents end at the claimed value")
def _(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(43)
    gates = unit(rng.standard_normal((24, 4, 4)))
    value = width(gates)
    for step in np.geomspace(0.3, 1e-5, 800):
        tried = unit(gates + step * rng.standard_normal(gates.shape))
        new = width(tried)
        better = new > value
        gates[better], value[better] = tried[better], new[better]
    low, high = float(value.min()), float(value.max())
    text = f"ascents end between {low:.9f} and {high:.9f}; {side.best:.9f} is claimed"
    return holds(text) if side.best * (1 - 1e-4) <= low and high <= side.best * (1 + 1e-12) else fails(text)
