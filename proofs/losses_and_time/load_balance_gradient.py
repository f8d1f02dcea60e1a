"""Load-balance loss: its gradient in the logits of a softmax gate, and all of its stationary points.

Let e = e^{z_k}, R the sum of the other exponentials and S that of f_j e^{z_j} over them. One token's Σ_j f_j p_j is
(f_k e + S)/(e + R), with derivative e (f_k R - S)/(e+R)² = p_k (f_k - Σ_j f_j p_j) in z_k, whatever n is. Divide by the number
of tokens N and multiply by α n. With finite logits every p_k > 0, so it vanishes for all k exactly if f_k equals the mean
Σ_j f_j p_j for every k: if f is uniform, and then for any P. One-hot rows are stationary as limits only, balanced or not.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp

from resonance_theory import losses
from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

e, R, S, f, n = sp.symbols("e R S f n", positive=True)


def side(level: Callable[..., object]) -> SimpleNamespace:
    """`level(mean, n)`: what a token's share f_k is compared with."""
    return SimpleNamespace(level=level)


claim = Claim(
    title="Gradient of the load-balance loss: shares above a token's own mean are pushed down",
    statement=r"$\frac{\partial L}{\partial z_{tk}}=\frac{\alpha n}{N}P_{tk}(f_k-\sum_j f_jP_{tj})$; with finite logits it "
    r"vanishes exactly if $f_i=\frac{1}{n}$ for all $i$",
    hypotheses=(r"$P_t=\mathrm{softmax}(z_t)$, $N$ tokens; $f$ carries no gradient (it is piecewise constant)",),
    source="LocMoE eq. 5 (arXiv 2401.13920), differentiated; the load-balance loss of ETR",
    kind="equality",
    expected=Verdict.PROVED,
    studies=("homogenization_training",),
    truth=side(lambda mean, experts: mean),
    mutant=side(lambda mean, experts: 1 / experts),
    mutation="1/n in place of the token's mean share",
)


@claim.derivation("the softmax derivative with the other experts summed, for every n; uniform shares are stationary")
def softmax_derivative_other_experts_summed(side: SimpleNamespace) -> Outcome:
    mean = (f * e + S) / (e + R)
    gradient = e / (e + R) * (f - side.level(mean, n))
    return every(
        [
            identity(e * sp.diff(mean, e), gradient, name="e d/de Σ f p - p_k (f_k - level)"),
            # uniform shares: S = R/n
            value(gradient, {f: 1 / n, S: R / n}, 0, name="gradient at uniform shares"),
        ]
    )


@claim.reference("the package's gradient against 40-digit derivatives of the definition, and a collapsed router")
def package_s_gradient_digit_derivatives(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(17)
    tokens, experts = 7, 5
    logits = np.round(rng.normal(size=(tokens, experts)), 3)
    expert = np.array([0, 0, 0, 1, 2, 2, 0])
    share = np.bincount(expert, minlength=experts) / tokens
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ours = losses.load_balance_gradient(probability, expert, alpha=0.01)
    worst = 0.0
    with mpmath.workdps(40):
        for t in range(tokens):
            for k in range(experts):

                def value(z: mpmath.mpf, t: int = t, k: int = k) -> mpmath.mpf:
                    row = [mpmath.exp(z if j == k else mpmath.mpf(float(logits[t, j]))) for j in range(experts)]
                    weights = [mpmath.mpf(round(s * tokens)) / tokens for s in share]
                    return mpmath.mpf(0.01) * experts / tokens * mpmath.fdot(weights, row) / mpmath.fsum(row)

                worst = max(worst, abs(float(mpmath.diff(value, float(logits[t, k]))) - ours[t, k]))
    mean = probability @ share
    claimed = (
        0.01 * experts / tokens * probability * (share - np.array([side.level(m, experts) for m in mean])[:, None])
    )
    gap = float(np.abs(claimed - ours).max())
    one_hot = np.eye(experts)[np.zeros(tokens, dtype=int)]
    saturated = float(np.abs(losses.load_balance_gradient(one_hot, np.zeros(tokens, dtype=int))).max())
    text = f"package against 40 digits {worst:.1e}, formula against package {gap:.1e}, at collapse {saturated}"
    return holds(text) if worst < 1e-16 and gap < 1e-16 and saturated == 0 else fails(text)
