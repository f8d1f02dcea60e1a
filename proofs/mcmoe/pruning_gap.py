"""With a softmax gate the share of pruned second experts is the law of the gap of the two largest logits, beyond ln(1/μ).

Softmax weights have the ratio w₁/w₀ = exp(z₁ - z₀), whatever the other logits and whether or not the two are normalised to 1.
So w₁/w₀ < μ is z₀ - z₁ > ln(1/μ). For two experts with logits N(0, 1) the gap is |N(0, 2)| and the share 2Φ(-ln(1/μ)/√2).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from scipy.special import ndtr

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.expert_pruning import prune_second


def side(ratio: Callable[[Any, Any], Any], level: Callable[[float], float]) -> SimpleNamespace:
    """`ratio(gap, lib)`: w₁/w₀; `level(μ)`: gap beyond which it is pruned."""
    return SimpleNamespace(ratio=ratio, level=level)


claim = Claim(
    title="The pruned share of second experts is the law of the logits' gap beyond ln(1/μ)",
    statement=r"$w_1/w_0<\mu$ exactly if $z_0-z_1>\ln(1/\mu)$; for two Gaussian logits the share is $2\Phi(-\ln(1/\mu)/\sqrt2)$",
    hypotheses=("weights are a softmax of the logits",),
    source="new; the rule is MC-MoE eq. 5: ratio (arXiv 2410.06270)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda gap, lib: lib.exp(-gap), lambda mu: -float(np.log(mu))),
    mutant=side(lambda gap, lib: 1 / (1 + lib.exp(gap)), lambda mu: float(np.log((1 - mu) / mu))),
    mutation="the second weight itself in place of the ratio",
)


@claim.derivation("the ratio of two softmax weights, among others")
def softmax(s: SimpleNamespace) -> Outcome:
    first, second, third = sp.symbols("z0 z1 z2", real=True)
    total = sp.exp(first) + sp.exp(second) + sp.exp(third)
    return identity(s.ratio(first - second, sp), (sp.exp(second) / total) / (sp.exp(first) / total), name="w1/w0")


@claim.reference("the package's rule against 30 digits")
def rule(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(0)
    logits = -np.sort(-rng.normal(size=(500, 4)), axis=1)
    weight = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for mu in (0.2, 0.4, 0.7):
        found = prune_second(weight[:, 0], weight[:, 1], mu)
        with mpmath.workdps(30):
            wanted = [mpmath.mpf(a) - mpmath.mpf(b) > s.level(mu) for a, b in logits[:, :2].tolist()]
        if found.tolist() != wanted:
            return fails(f"μ = {mu}: {int(found.sum())} pruned, claimed {sum(wanted)}")
    return holds("three thresholds, 500 tokens: the same tokens")


def sample(rng: np.random.Generator, trials: int, *, mu: float) -> dict[str, int]:
    z = rng.normal(size=(trials, 2))
    w = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return {"pruned": int((w.min(axis=1) < mu * w.max(axis=1)).sum())}


claim.simulate(
    sample,
    cases=[{"mu": 0.4}],
    law=lambda s, *, mu: {"pruned": float(2 * ndtr(-s.level(mu) / np.sqrt(2)))},
    trials=200_000,
)
