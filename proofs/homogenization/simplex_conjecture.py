"""H4, the open part. No four or five unit gates have been found that win more than the simplex's.

That the regular simplex has the largest mean width, E max <w_i,x>, of all sets of n unit vectors is the simplex mean width
conjecture. n = 2, 3: proved in simplex_gates. n = 4: proved in print, as the four-dimensional Gaussian random vector maximum
conjecture (arXiv 2008.04827). Every n: claimed by a preprint (Goldsmith, arXiv 2112.03393), on which nothing here relies. This
claim proves nothing; it is a test that could have failed.

For n <= 5 the mean width is exact, Σ_{i<j} |w_i-w_j| φ(0) P(F_ij) with facets of orthants in at most three dimensions
(gate_facets), so a search needs no sampling: gates at random in all directions and in the simplex's own dimension, neighbours of
the simplex at all scales, and ascents from random sets.
"""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.homogenization import cells


def side(factor) -> SimpleNamespace:
    """The claimed largest mean width of n gates, as a multiple of e_n."""
    return SimpleNamespace(best=lambda n: factor(n) * float(homogenization.expected_max(n)))


claim = Claim(
    title="Simplex gates win the most among any four or five unit gates, as far as a search can tell",
    statement=r"$E\max_{i\leq n}\langle w_i,x\rangle\leq e_n\sqrt{\frac{n}{n-1}}$ for $n=4,5$ unit gates; a test of a conjecture "
    r"that is a theorem in print for $n=4$",
    hypotheses=(r"$x\sim N(0,I_d)$, $|w_i|=1$, $n=4,5$",),
    source="simplex mean width conjecture (n = 4: arXiv 2008.04827); new",
    tag="H4",
    kind="empirical",
    expected=Verdict.SUPPORTED,
    truth=side(lambda n: math.sqrt(n / (n - 1))),
    mutant=side(lambda n: 1.0),
    mutation="e_n, the value of orthogonal gates, is the most",
)


def unit(gates: np.ndarray) -> np.ndarray:
    return gates / np.linalg.norm(gates, axis=-1, keepdims=True)


def width(gates: np.ndarray) -> np.ndarray:
    """E max of up to five gates (..., n, d), exactly."""
    n = gates.shape[-2]
    total = np.zeros(gates.shape[:-2])
    for i, j in itertools.combinations(range(n), 2):
        edge = gates[..., i, :] - gates[..., j, :]
        length = np.linalg.norm(edge, axis=-1)
        normal = edge / length[..., None]
        walls = np.stack([gates[..., i, :] - gates[..., k, :] for k in range(n) if k not in (i, j)], axis=-2)
        walls = walls - (walls @ normal[..., None]) * normal[..., None, :]
        total += length * cells.orthant(walls) / math.sqrt(2 * math.pi)
    return total


def simplex(n: int) -> np.ndarray:
    return unit(np.eye(n) - 1 / n)


def judged(side: SimpleNamespace, gates: np.ndarray, what: str) -> Outcome:
    n = gates.shape[-2]
    most, best = float(width(gates).max()), side.best(n)
    text = f"n={n}, {what}: at most {most:.9f} against {best:.9f}"
    return holds(text) if most <= best * (1 + 1e-12) else fails(text)


SIZES = {4: 24_000, 5: 8_000}


@claim.reference("random sets of four and five unit gates, in n - 1 and n dimensions")
def random_sets_four_five_unit(side: SimpleNamespace) -> Outcome:
    rng, outcomes = np.random.default_rng(41), []
    for n, count in SIZES.items():
        flat = np.pad(unit(rng.standard_normal((count, n, n - 1))), ((0, 0), (0, 0), (0, 1)))
        gates = np.concatenate([flat, unit(rng.standard_normal((count, n, n)))])
        outcomes.append(judged(side, gates, f"{2 * count} sets"))
    return every(outcomes)


@claim.reference("neighbours of the simplex, at distances from 1e-5 to 1; the simplex attains the value")
def neighbours_simplex_distances_1e_simplex(side: SimpleNamespace) -> Outcome:
    rng, outcomes = np.random.default_rng(42), []
    for n, count in SIZES.items():
        scale = 10 ** rng.uniform(-5, 0, (count, 1, 1))
        value, best = float(width(simplex(n))), side.best(n)
        if abs(value / best - 1) > 1e-12:
            return fails(f"the simplex of {n} has {value:.9f}, not {best:.9f}")
        outcomes.append(
            judged(side, unit(simplex(n) + scale * rng.standard_normal((count, n, n))), f"{count} neighbours")
        )
    return every(outcomes)


@claim.reference("random ascents end at the claimed value")
def random_ascents_end_claimed_value(side: SimpleNamespace) -> Outcome:
    outcomes = []
    for n, starts, steps in ((4, 12, 350), (5, 8, 400)):
        rng = np.random.default_rng(43)
        gates = unit(rng.standard_normal((starts, n, n)))
        value = width(gates)
        for step in np.geomspace(0.3, 1e-3, steps):
            tried = unit(gates + step * rng.standard_normal(gates.shape))
            new = width(tried)
            better = new > value
            gates[better], value[better] = tried[better], new[better]
        low, high, best = float(value.min()), float(value.max()), side.best(n)
        text = f"n={n}: ascents end between {low:.9f} and {high:.9f}; {best:.9f} is claimed"
        outcomes.append(holds(text) if best * (1 - 1e-3) <= low and high <= best * (1 + 1e-12) else fails(text))
    return every(outcomes)
