"""A token's update Bᵀ Rᵀ A has rank at most min(r1, r2), whatever its weights; the r1 r2 experts b_j a_iᵀ span r1 r2 dimensions.

Σ_ij R_ij b_j a_iᵀ = Bᵀ Rᵀ A is a product through r1 and through r2 dimensions. That holds for each token, and for the
sum over all experts. A and B of full rank and generic R attain it. Over all R these matrices are a linear space of
dimension rank(A) rank(B) = r1 r2, since b_j a_iᵀ is the Kronecker product of b_j and a_i: the "quadratic" part of the
method is the choice of R, not the rank. With a constant R the layer is LoRA of rank min(r1, r2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import flint
import numpy as np
import sympy as sp
from sympy.combinatorics import Permutation

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


def side(rank: Callable[[int, int], int], span: Callable[[int, int], int]) -> SimpleNamespace:
    return SimpleNamespace(rank=rank, span=span)


claim = Claim(
    title="Rank-one experts: a token's update has rank min(r1, r2), all experts span r1 r2 dimensions",
    statement=r"$\sum_{ij}R_{ij}b_ja_i^T=B^TR^TA$ has rank at most $\min(r_1,r_2)$, attained; "
    r"$\dim\mathrm{span}\{b_ja_i^T\}=r_1r_2$ for independent $a_i$ and independent $b_j$",
    hypotheses=(r"$A$: $r_1\times d$, $B$: $r_2\times d'$, $r_1\leq d$, $r_2\leq d'$",),
    source="T-REX abstract: quadratically expand; T-REX code: einsum of A x and R into B (arXiv 2404.08985 v2)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(min, lambda a, b: a * b),
    mutant=side(lambda a, b: max(a, b), lambda a, b: a + b - 1),
    mutation="rank max(r1, r2), and a span of r1 + r2 - 1 dimensions",
)


def rank(rows: list[list[int]]) -> int:
    return int(flint.fmpz_mat(rows).rank())


@claim.certificate("generic matrices of whole numbers: ranks in exact arithmetic")
def exact_ranks(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    for r1, r2, d, e in ((1, 3, 5, 4), (2, 3, 6, 5), (4, 8, 12, 10), (5, 2, 7, 9)):
        a, b, r = (rng.integers(-9, 10, shape) for shape in ((r1, d), (r2, e), (r1, r2)))
        update = b.T @ r.T @ a
        ranks = rank(update.tolist()), rank(np.array([np.outer(y, x).ravel() for x in a for y in b]).tolist())
        told = s.rank(r1, r2), s.span(r1, r2)
        if ranks != told:
            return fails(f"r1={r1}, r2={r2}: rank and span {ranks}, claimed {told}")
    return holds("four sizes: rank and span as claimed")


def leibniz(matrix: sp.Matrix, size: int) -> tuple[sp.Expr, sp.Expr]:
    """The even and the odd permutations' parts of a leading minor, whose difference it is."""
    parts = [sp.Integer(0), sp.Integer(0)]
    for order in itertools.permutations(range(size)):
        parts[Permutation(list(order)).parity()] += sp.prod(matrix[i, j] for i, j in enumerate(order))
    return parts[0], parts[1]


@claim.derivation("minors above the rank vanish identically; the update is the sum over experts")
def minors(s: SimpleNamespace) -> Outcome:
    r1, r2, d = 1, 2, 3
    a, b, r = (
        sp.Matrix(*shape, lambda i, j, n=n: sp.Symbol(f"{n}{i}{j}"))
        for n, *shape in (("a", r1, d), ("b", r2, d), ("r", r1, r2))
    )
    update = b.T * r.T * a
    summed = sum((r[i, j] * b[j, :].T * a[i, :] for i in range(r1) for j in range(r2)), sp.zeros(d, d))
    size = s.rank(r1, r2) + 1  # all minors of this size vanish, one smaller does not
    outcomes = [identity(*sides, name="sum over experts") for sides in zip(update, summed)]
    outcomes.append(identity(*leibniz(update, size), name=f"minor of size {size}"))
    plus, minus = leibniz(update, size - 1)
    lower = sp.expand(plus - minus)
    outcomes.append(
        (fails if lower == 0 else holds)(f"the minor of size {size - 1} is {'0' if lower == 0 else 'not 0'}")
    )
    return every(outcomes)
