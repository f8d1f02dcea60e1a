"""P differs from the projector off the span of X by exactly a/(a+σ²), σ the least positive singular value of X.

In X's right singular vectors aI + XᵀX is diagonal, a + σ_i² along them and a across. So P has the eigenvalues
a/(a+σ_i²) and 1, the projector 0 and 1: the norm of the difference is a/(a+σ_min²). Hence an update ΔW P changes the
output at an input of X, of unit length, by at most that part of |ΔW|, and by nothing in the limit a -> 0. A large ridge
leaves most of the interference: at a = σ² one half.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.orthogonal_projectors import input_projector


def side(left: Callable[[Any, Any], Any]) -> SimpleNamespace:
    """`left(a, σ)`: what P leaves of a right singular vector."""
    return SimpleNamespace(left=left)


claim = Claim(
    title="What a ridge leaves of the inputs that it should keep away from: a/(a+σ²)",
    statement=r"$\|a(aI+X^TX)^{-1}-\Pi\|=\frac{a}{a+\sigma_{\min}^2}$, $\Pi$ the projector off the rows of $X$, "
    r"$\sigma_{\min}$ the least positive singular value; it tends to 0 with $a$",
    hypotheses=(r"$a>0$, $X\neq0$",),
    source="OMoE abstract: orthogonal to the subspace spanned by other experts, by OWM (arXiv 2310.09762; text not available)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda a, sigma: a / (a + sigma**2)),
    mutant=side(lambda a, sigma: a / (a + sigma)),
    mutation="σ in place of its square",
)


@claim.derivation("a matrix of two features in its singular vectors; the limit")
def singular(s: SimpleNamespace) -> Outcome:
    a, first, second, t = sp.symbols("a sigma1 sigma2 t", positive=True)
    c, d = (1 - t**2) / (1 + t**2), 2 * t / (1 + t**2)  # a rotation
    v = sp.Matrix([[c, -d], [d, c]])
    p = a * (a * sp.eye(2) + v * sp.diag(first**2, second**2) * v.T).inv()
    inside = v.T * p * v
    told = sp.diag(s.left(a, first), s.left(a, second))
    outcomes = [identity(*sides, name="VᵀPV - diag") for sides in zip(inside, told)]
    outcomes.append(value(s.left(a, first), {a: 0}, 0))
    return every(outcomes)


@claim.reference("the package's eigenvalues against 50 digits")
def eigenvalues(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(2)
    worst = 0.0
    for a in (1e-6, 0.1, 10.0):
        sigma = np.array([3.0, 1.0, 0.05])
        left, right = np.linalg.qr(rng.normal(size=(9, 3)))[0], np.linalg.qr(rng.normal(size=(6, 3)))[0]
        p = input_projector(left * sigma @ right.T, a)
        off = np.eye(6) - right @ right.T
        with mpmath.workdps(50):
            told = [float(s.left(mpmath.mpf(a), mpmath.mpf(x))) for x in sigma]
        worst = max(worst, float(np.abs(np.linalg.norm(p @ right, axis=0) - told).max()))
        worst = max(worst, abs(float(np.linalg.norm(p - off, 2)) - told[-1]))
    text = f"largest difference {worst:.2g}"
    return holds(text) if worst < 1e-10 else fails(text)
