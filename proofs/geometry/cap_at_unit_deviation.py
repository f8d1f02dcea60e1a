"""LocMoE Lemma 3: p_δ at δ = 1/√d is exactly P(|t| >= 1), t of Student's law with d-1 degrees of freedom: .3173 in the limit.

For an isotropic token T = cos·sqrt(d-1)/sqrt(1-cos²) has Student's law with d-1 degrees of freedom, so cos² = T²/(T² + d -
1), and cos² >= 1/d is |T| >= 1, whatever d. As d grows the law tends to the normal one: p_δ -> 2(1 - Φ(1)) = 1 - erf(√2/2)
= .31731 (printed: about .3, from erf(√2/2) of about .68). It is between that and ½ for every d >= 2.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import stats

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.tokens import caps


def side(loss: int) -> SimpleNamespace:
    """Degrees of freedom d - `loss`."""
    return SimpleNamespace(loss=loss)


claim = Claim(
    title="Two-sided cap at one standard deviation: Student's law exactly, .3173 in the limit",
    statement=r"$p_\delta=1-I_{\delta^2}(\frac{1}{2},\frac{d-1}{2})=P(|t_{d-1}|\geq 1)$ at $\delta=\frac{1}{\sqrt d}$, "
    r"$\to 2(1-\Phi(1))=.3173$ as $d\to\infty$",
    hypotheses=(r"$r$ isotropic in $R^d$, $d\geq 2$",),
    source="LocMoE Lemma 3, eq. 8 (arXiv 2401.13920)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(2),
    mutation="d - 2 degrees of freedom",
    lemmas=("a normalised normal vector is isotropic; the definition of Student's law",),
)


@claim.derivation("cos² as a function of t, its value at t = 1, and the limit")
def cos_function_t_value_t(side: SimpleNamespace) -> Outcome:
    t, d, c = sp.symbols("t d c", positive=True)
    freedom = d - side.loss
    square = t**2 / (t**2 + freedom)
    limit = 1 - sp.erf(sp.sqrt(2) / 2)
    normal = 1 - 2 * sp.integrate(sp.exp(-(c**2) / 2) / sp.sqrt(2 * sp.pi), (c, 0, 1))
    value = float(limit)
    return every(
        [
            identity(square.subs(t, 1), 1 / d, name="cos² at t = 1, less 1/d"),
            identity(normal, limit, name="2(1 - Φ(1)) - (1 - erf(√2/2))"),
            holds(f"limit {value:.6f}") if round(value, 4) == 0.3173 else fails(f"limit {value}"),
        ]
    )


@claim.reference("the package's caps, SciPy's Student law and 40-digit incomplete beta functions, d = 2..10^6")
def package_s_caps_scipy_s(side: SimpleNamespace) -> Outcome:
    dims = np.unique(np.concatenate([np.arange(2, 40), (10 ** np.linspace(1.7, 6, 30)).astype(int)]))
    ours = np.array([2 * float(caps.cap(1 / np.sqrt(d), int(d))) for d in dims])
    student = 2 * stats.t.sf(1.0, dims - side.loss)
    worst = float(np.abs(ours / student - 1).max())
    with mpmath.workdps(40):
        for d, value in zip(dims[:40:8], ours[:40:8]):
            x = 1 / mpmath.mpf(int(d))
            beta = mpmath.betainc(mpmath.mpf(1) / 2, mpmath.mpf(int(d) - 1) / 2, 0, x, regularized=True)
            worst = max(worst, abs(float(1 - beta) / value - 1))
    text = f"largest relative difference {worst:.1e}; values from {ours[0]:.4f} down to {ours[-1]:.5f}"
    return holds(text) if worst < 1e-11 and np.all((ours > 0.3173) & (ours <= 0.5 * (1 + 1e-12))) else fails(text)
