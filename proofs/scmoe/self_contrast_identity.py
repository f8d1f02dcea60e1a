"""Contrasted logits (1+β) z_s - β z_w are the probabilities p ∝ p_s (p_s/p_w)^β on the allowed tokens.

Log odds of two tokens are differences of logits, whatever the normalisers. Those of (1+β) z_s - β z_w are (1+β) times
those of p_s less β times those of p_w. So self-contrast is a product of experts with a negative power, and β = 0 leaves
p_s.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.self_contrast import contrast_logits


def side(weight: Callable[[Any, Any, Any], Any]) -> SimpleNamespace:
    """`weight(p_s, p_w, β)`: unnormalised probability."""
    return SimpleNamespace(weight=weight)


claim = Claim(
    title="Self-contrast multiplies the strong probabilities by a power of their ratio to the weak ones",
    statement=r"$p_{sc}\propto p_s\left(\frac{p_s}{p_w}\right)^\beta$ on $\{i:z_{s,i}\geq\log\alpha+\max_jz_{s,j}\}$",
    hypotheses=(r"$\beta\geq0$, $0<\alpha\leq1$, finite logits",),
    source="SCMoE eq. 5: contrasted logits; SCMoE eq. 6: valid tokens (arXiv 2405.14507)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda s, w, beta: s * (s / w) ** beta),
    mutant=side(lambda s, w, beta: (s / w) ** beta),
    mutation="the ratio alone, without the strong probability",
)


@claim.derivation("log odds of two tokens")
def odds(s: SimpleNamespace) -> Outcome:
    a, b, c, d = sp.symbols("a b c d", real=True)  # strong logits a, b and weak ones c, d of two tokens
    beta, n, m = sp.symbols("beta n m", positive=True)  # the normalisers of strong and weak
    first = s.weight(sp.exp(a) / n, sp.exp(c) / m, beta)
    second = s.weight(sp.exp(b) / n, sp.exp(d) / m, beta)
    told = sp.expand_log(sp.log(first) - sp.log(second), force=True)
    return identity((1 + beta) * (a - b) - beta * (c - d), told, name="log odds")


@claim.reference("the package against 50 digits")
def digits(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(1)
    worst = 0.0
    with mpmath.workdps(50):
        for beta, alpha, spread in ((0.1, 0.1, 1.0), (0.5, 0.1, 2.0), (0.9, 1e-3, 3.0), (3.0, 1e-9, 5.0)):
            strong, weak = rng.normal(scale=spread, size=(2, 30))
            logits = contrast_logits(strong, weak, beta, alpha)
            log_limit = mpmath.log(alpha) + max(map(mpmath.mpf, strong))
            allowed = [mpmath.mpf(z) >= log_limit for z in strong]
            if allowed != [bool(x) for x in np.isfinite(logits)]:
                return fails("another set of tokens is allowed")
            p_s, p_w = (soft([mpmath.mpf(float(z)) for z in row]) for row in (strong, weak))
            weights = [s.weight(x, y, mpmath.mpf(beta)) if ok else 0 for x, y, ok in zip(p_s, p_w, allowed)]
            found = soft([mpmath.mpf(float(z)) if ok else -mpmath.inf for z, ok in zip(logits, allowed)])
            total = sum(weights)
            worst = max(worst, max(float(abs(f - w / total)) for f, w in zip(found, weights)))
    text = f"probabilities differ by at most {worst:.2g}"
    return holds(text) if worst < 1e-13 else fails(text)


def soft(logits: list[Any]) -> list[Any]:
    powers = [mpmath.exp(z) for z in logits]
    total = sum(powers)
    return [p / total for p in powers]
