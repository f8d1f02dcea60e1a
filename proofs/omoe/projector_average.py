"""Averaged projectors are no projector: along an input that one of m others has seen, the update keeps 1 - 1/m of its length.

Let P_j project off the inputs of expert j and let P be their mean. |P v| = |v| only if all P_j v = v (a mean of vectors
of length at most |v| is that long only if all are equal and so long), and P v = 0 iff all P_j v = 0 (vᵀP_j v = |P_j v|²
>= 0). For an x seen by expert 1 alone and orthogonal to what the other m-1 have seen, P x = (1 - 1/m) x. So "orthogonal
to the subspace spanned by the others" holds of the projector off all inputs together, not of the mean: with seven
others the mean still lets 86 % of an update through.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.orthogonal_projectors import averaged_projector, input_projector

claim = Claim(
    title="The mean of m projectors lets through 1 - 1/m of what disturbs one of the others",
    statement=r"$\bar Px=\left(1-\frac1m\right)x$ for an input $x$ of one of $m$ experts that is orthogonal "
    r"to the inputs of the rest; $\bar Pv=v$ iff all keep $v$, $\bar Pv=0$ iff none keeps any of it",
    hypotheses=(r"$P_j$ orthogonal projectors off the inputs of expert $j$",),
    source="OMoE abstract: alternating training; OMoE summary: averaged projectors (arXiv 2310.09762; text not available)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=lambda m: 1 - Fraction(1, 1) / m,
    mutant=lambda m: Fraction(0) * m,
    mutation="an update that is orthogonal to the inputs of every other expert",
)


@claim.derivation("m experts with an input each, two of them at any angle")
def symbolic(kept: Callable[[Any], Any]) -> Outcome:
    m = sp.Symbol("m", positive=True)
    lone = (m - 1) / m  # m - 1 of the projectors keep x, that of its own expert removes it
    t = sp.Symbol("t", real=True)
    c, d = (1 - t**2) / (1 + t**2), 2 * t / (1 + t**2)
    x, y = sp.Matrix([1, 0]), sp.Matrix([c, d])
    mean = ((sp.eye(2) - x * x.T) + (sp.eye(2) - y * y.T)) / 2
    square = sum(((sp.eye(2) - z * z.T) * y).dot((sp.eye(2) - z * z.T) * y) for z in (x, y)) / 2
    told = sp.nsimplify(kept(2))
    return every(
        [
            identity(lone, kept(m), name="share kept"),
            identity(y.dot(mean * y), square, name="vᵀPv - mean |P_j v|²"),
            identity(y.subs(t, 1).dot(mean.subs(t, 1) * y.subs(t, 1)), told, name="orthogonal inputs of two experts"),
        ]
    )


@claim.reference("the package's projectors, single inputs and joint ones")
def package(kept: Callable[[Any], Any]) -> Outcome:
    rng = np.random.default_rng(3)
    worst = 0.0
    for m in (2, 3, 7):
        frame = np.linalg.qr(rng.normal(size=(20, 2 * m)))[0].T
        inputs = [frame[2 * j : 2 * j + 2] for j in range(m)]
        mean = averaged_projector([input_projector(x, 1e-12) for x in inputs])
        for x in inputs:
            worst = max(worst, float(np.abs(mean @ x.T - float(kept(m)) * x.T).max()))
        joint = input_projector(frame, 1e-12)
        worst = max(worst, float(np.abs(joint @ frame.T).max()))
    text = f"largest difference from the claimed share {worst:.2g}"
    return holds(text) if worst < 1e-9 else fails(text)
