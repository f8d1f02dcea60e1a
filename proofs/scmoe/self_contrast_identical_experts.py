"""Experts whose outputs are within D change a last layer's decision only where gap < β D max|w_i - w_j|: none if they are equal.

Strong and weak routing mix the same experts' outputs o_e with weights a and b, each summing to 1. Σ a_e o_e - Σ b_f o_f
= Σ a_e b_f (o_e - o_f) has at most the length D = max|o_e - o_f|. With logits W o, d_j - d_i = (w_j - w_i)·(difference)
<= |w_j - w_i| D. By self_contrast_argmax the token stays if the gap is at least β times that. Two experts, one on each
side, aligned with w_j - w_i, attain it. So self-contrast measures how far apart experts are: homogenized experts make
it idle.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.self_contrast import switching_strength

claim = Claim(
    title="Self-contrast cannot change a token whose gap exceeds β times the diameter of the experts' outputs",
    statement=r"$|(d_j-d_i)|\leq\|w_j-w_i\|\,D$, $D=\max_{e,f}\|o_e-o_f\|$, $d=W(\sum_ea_eo_e-\sum_fb_fo_f)$; attained; and with "
    r"$D=0$ nothing changes",
    hypotheses=("one layer of experts in front of the logits", r"weights $a,b\geq0$ that sum to 1"),
    source="new; SCMoE section 2.1: outputs are weighted sums of experts (arXiv 2405.14507)",
    kind="bound",
    expected=Verdict.PROVED,
    lemmas=("triangle inequality", "Cauchy-Schwarz inequality"),
    truth=Fraction(1),
    mutant=Fraction(1, 2),
    mutation="half the diameter",
)


@claim.derivation("the difference of two mixtures is a mixture of differences")
def mixtures(factor: Fraction) -> Outcome:
    o = sp.symbols("o1:4", real=True)
    a, b = (list(sp.symbols(f"{n}1:3", nonnegative=True)) for n in "ab")
    a, b = [*a, 1 - sum(a)], [*b, 1 - sum(b)]
    mixed = sum(a[e] * b[f] * (o[e] - o[f]) for e in range(3) for f in range(3))
    same = sum(x * y for x, y in zip(a, o)) - sum(x * y for x, y in zip(b, o))
    return identity(same, sp.Rational(factor) * mixed, name="difference of mixtures")


@claim.reference("random experts, and two aligned ones, through the package")
def experts(factor: Fraction) -> Outcome:
    rng = np.random.default_rng(3)
    worst = 0.0
    for trial in range(300):
        dim, n, words = 4, 5, 6
        outputs, matrix = rng.normal(size=(n, dim)), rng.normal(size=(words, dim))
        a, b = rng.dirichlet(np.ones(n), 2)
        if trial == 0:  # the case that attains the bound: first expert alone against second alone
            outputs[:] = outputs[0]
            strong, weak = a @ outputs @ matrix.T, 0
            first, second = np.argsort(-strong)[:2]
            outputs[0] = outputs[0] + 1e-3 * (matrix[second] - matrix[first])
            a, b = np.eye(n)[:2]
        strong, weak = a @ outputs @ matrix.T, b @ outputs @ matrix.T
        diameter = max(np.linalg.norm(x - y) for x in outputs for y in outputs)
        first = int(strong.argmax())
        lengths = np.linalg.norm(matrix - matrix[first], axis=1)
        gap = strong[first] - strong
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.nanmin(np.where(lengths > 0, gap / (float(factor) * diameter * lengths), np.inf))
        worst = max(worst, least / float(switching_strength(strong, weak, alpha=1e-30)))
    text = f"claimed least strength over the true one: at most {worst:.6f}"
    return holds(text) if worst <= 1 + 1e-9 and worst > 0.99 else fails(text)


@claim.reference("equal experts change nothing")
def equal_experts(factor: Fraction) -> Outcome:
    strong = np.random.default_rng(4).normal(size=(50, 12))
    idle = bool(np.isinf(switching_strength(strong, strong)).all())
    one = switching_strength(np.array([1.0, 0.0]), np.array([0.0, 0.0]) + np.array([1.0, -1.0]), alpha=1e-9)
    # gap 1, d = (0, 1): strength 1; the bound with |w_j - w_i| D = 1 claims 1/factor
    text = f"equal experts idle: {idle}; switch at {float(one):g}, bound {float(1 / factor):g}"
    return holds(text) if idle and float(one) >= float(1 / factor) else fails(text)
