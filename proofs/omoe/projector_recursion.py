"""The recursion P <- P - (Px)(Px)ᵀ/(a + xᵀPx) from P = I gives exactly a (aI + XᵀX)^-1, a regularised projector.

Induction: let P M = aI, M = aI + XᵀX symmetric, and x a new input, s = xᵀPx. Then (P - Pxxᵀ P/(a+s)) (M + xxᵀ) = aI +
Pxxᵀ - Pxxᵀ (a + s)/(a + s) = aI, since PM = aI and xᵀP x = s. So the next P is a (M + xxᵀ)^-1; the order of the inputs
does not matter, and neither does the route: the package gathers XᵀX and inverts once a phase.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import flint
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.orthogonal_projectors import input_projector, update_projector


def side(ridge: Any) -> SimpleNamespace:
    """`denominator(a, s)`: what (Px)(Px)ᵀ is divided by."""
    return SimpleNamespace(denominator=ridge)


claim = Claim(
    title="The recursion of orthogonal weight modification is a ridge-regularised projector",
    statement=r"$P\leftarrow P-\frac{Px(Px)^T}{a+x^TPx}$ over the rows of $X$ from $P=I$ gives $a(aI+X^TX)^{-1}$",
    hypotheses=(r"$a>0$",),
    source="OMoE abstract: orthogonal to the subspace spanned by other experts, by OWM (arXiv 2310.09762; text not available)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda a, s: a + s),
    mutant=side(lambda a, s: 1 + s),
    mutation="1 + xᵀPx in the denominator, whatever a",
)


@claim.derivation("one step: coefficient of P x xᵀ, and a general matrix of two features")
def one_step(s: SimpleNamespace) -> Outcome:
    a, t = sp.symbols("a s", positive=True)
    coefficient = identity((a + t) / s.denominator(a, t), 1, name="coefficient of P x xᵀ")
    u, v, w, x, y = sp.symbols("u v w x y", real=True)
    gram = sp.Matrix([[u, v], [v, w]])  # any symmetric matrix with an inverse, so any aI + XᵀX of two features
    p, new = a * gram.inv(), sp.Matrix([x, y])
    px = p * new
    after = p - px * px.T / s.denominator(a, (new.T * px)[0])
    found, told = after * (gram + new * new.T), a * sp.eye(2)
    return every([coefficient, *(identity(*sides, name="P M - aI") for sides in zip(found, told))])


@claim.certificate("three rows of whole numbers, in exact rationals")
def rows(s: SimpleNamespace) -> Outcome:
    a = flint.fmpq(2, 3)
    x = [[1, 2, -1, 0], [3, 0, 1, 1], [2, 2, 0, -5]]
    p = flint.fmpq_mat(4, 4, [flint.fmpq(int(i == j)) for i in range(4) for j in range(4)])
    m = flint.fmpq_mat(4, 4, [a * int(i == j) for i in range(4) for j in range(4)])
    for row in x:
        column = flint.fmpq_mat(4, 1, row)
        px = p * column
        p = p - px * px.transpose() * (1 / s.denominator(a, (column.transpose() * px)[0, 0]))
        m = m + column * column.transpose()
    rest = p * m - flint.fmpq_mat(4, 4, [a * int(i == j) for i in range(4) for j in range(4)])
    worst = max(abs(rest[i, j]) for i in range(4) for j in range(4))
    return (
        holds("P M = aI exactly")
        if worst == 0
        else fails(f"P M differs from aI by up to {float(worst.p) / float(worst.q):.3g}")
    )


@claim.reference("the package: recursion against the singular values")
def package(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    worst = 0.0
    for a in (1e-3, 1.0, 30.0):
        x = rng.normal(size=(40, 7))
        p, told = np.eye(7), np.eye(7)
        for row in x:
            p = update_projector(p, row, a)
            told = told - np.outer(told @ row, told @ row) / s.denominator(a, row @ told @ row)
        worst = max(
            worst, float(np.abs(p - input_projector(x, a)).max()), float(np.abs(told - input_projector(x, a)).max())
        )
    text = f"largest difference {worst:.2g}"
    return holds(text) if worst < 1e-10 else fails(text)
