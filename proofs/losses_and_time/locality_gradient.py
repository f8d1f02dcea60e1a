"""Locality loss: its gradient in the logits of D_c, and its only stationary point.

With e = e^{z_k} and, over the other experts, R = Σ e_j, T = Σ e_j ln e_j, U = Σ e_j ln l_j, the divergence is
    KL = [e ln e + T - (e ln l + U)]/(e+R) - ln(e+R),  and  e dKL/de = p_k (ln(p_k/l_k) - KL), whatever the number of experts.
With finite logits every p_k > 0: stationary exactly if ln(p_k/l_k) is the same for all k, so p = l as both sum to 1. KL is
convex in D_c, so that point is the minimum, 0.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from resonance_theory import losses
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds

e, R, T, U, target = sp.symbols("e R T U l", positive=True)


def side(centred: int) -> SimpleNamespace:
    """`centred`: whether the divergence is subtracted from the log-ratio."""
    return SimpleNamespace(centred=centred)


claim = Claim(
    title="Gradient of the locality loss; the corrected local distribution is its only stationary point",
    statement=r"$\frac{\partial}{\partial z_k}\mu KL(D_c\Vert D_l)=\mu D_{c,k}(\ln\frac{D_{c,k}}{D_{l,k}}-KL(D_c\Vert D_l))$; "
    r"it vanishes for all $k$ only at $D_c=D_l$",
    hypotheses=(r"$D_c=\mathrm{softmax}(z)$ with finite $z$; $D_{l,k}>0$ (the corrected local distribution)",),
    source="LocMoE eq. 6 (arXiv 2401.13920), differentiated; ETR locality loss (arXiv 2406.00023)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(1),
    mutant=side(0),
    mutation="without the divergence: D_c ln(D_c/D_l)",
)


@claim.derivation("the derivative with the other experts summed, for any number of experts")
def derivative_other_experts_summed_any(side: SimpleNamespace) -> Outcome:
    total = e + R
    kl = (e * sp.log(e) + T - e * sp.log(target) - U) / total - sp.log(total)
    gradient = e / total * (sp.log(e) - sp.log(total) - sp.log(target) - side.centred * kl)
    return identity(e * sp.diff(kl, e), gradient, name="e dKL/de - D_c (ln(D_c/D_l) - KL)")


@claim.reference("the package against 40-digit derivatives; gradient descent ends at D_l")
def package_digit_derivatives_gradient_descent(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(5)
    target = losses.local_distribution(np.array([True, True, False, False, False]), epsilon=0.1)
    worst = gap = 0.0
    for _ in range(10):
        logits = np.round(rng.normal(size=5), 3)
        current = np.exp(logits) / np.exp(logits).sum()
        ours = losses.locality_gradient(current, target, mu=0.7)
        with mpmath.workdps(40):
            for k in range(5):

                def value(z: mpmath.mpf, k: int = k, logits: np.ndarray = logits) -> mpmath.mpf:
                    row = [mpmath.exp(z if j == k else mpmath.mpf(float(logits[j]))) for j in range(5)]
                    total = mpmath.fsum(row)
                    return mpmath.fsum(x / total * mpmath.log(x / total / float(q)) for x, q in zip(row, target))

                worst = max(worst, abs(0.7 * float(mpmath.diff(value, float(logits[k]))) - ours[k]))
        log_ratio = np.log(current / target)
        claimed = 0.7 * current * (log_ratio - side.centred * float(current @ log_ratio))
        gap = max(gap, float(np.abs(claimed - ours).max()))
        z = logits.copy()
        for _ in range(600):
            current = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            z -= 4 * losses.locality_gradient(current, target)
        if np.abs(current - target).max() > 1e-6:
            return fails(f"descent from {logits} ends at {current}")
    text = f"package against 40 digits {worst:.1e}; formula against package {gap:.1e}; descents end at D_l"
    return holds(text) if worst < 1e-14 and gap < 1e-14 else fails(text)
