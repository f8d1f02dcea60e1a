"""MoE++'s heterogeneous loss balances loads as f_i ~ 1/η_i, so that FFN experts get τF/(τF+Z) of the choices.

With S = Σ 1/η_i and f*_i = K/(η_i S), completing the square gives η f² - η (f - f*)² = 2Kf/S - K²/(η S²) for every expert. The
right side sums to K²/S wherever Σ f_i = K. So Σ η f² = K²/S + Σ η (f - f*)², which is least at f* and nowhere else. With F
experts of η = 1 and Z of η = τ the share of the first is F f*/K = τF/(τF+Z): the ratio of complexity that the paper prints. A
token has K times as many FFN experts on average; the paper's default, 16 + 4 experts at τ = 0.75 and K = 2, has 1.5.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.zero_computation import balanced_shares, ffn_share


def side(load: Callable[[Any, Any, Any], Any]) -> SimpleNamespace:
    """`load(η_i, S, K)`: tokens of an expert over all tokens, S = Σ 1/η."""
    return SimpleNamespace(load=load)


claim = Claim(
    title="Loads in proportion to 1/η make MoE++'s balance loss least: FFN experts get τF/(τF+Z) of the choices",
    statement=r"$\sum_i\eta_i f_i^2$ at $\sum_i f_i=K$ is least exactly at $f_i=K\eta_i^{-1}/\sum_j\eta_j^{-1}$; the share of "
    r"$F$ experts of weight 1 beside $Z$ of weight $\tau$ is $\tau F/(\tau F+Z)$",
    hypotheses=(
        r"the probabilities follow the loads, $P_i=f_i/K$, which turns the printed $\sum\eta_if_iP_i$ into $\sum\eta_if_i^2/K$",
        r"no load exceeds 1: $K\eta_i^{-1}\leq\sum_j\eta_j^{-1}$",
    ),
    source="MoE++ eq. 7; MoE++ section 3.4: complexity (arXiv 2410.07348)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda eta, total, top: top / (eta * total)),
    mutant=side(lambda eta, total, top: top / (sp.sqrt(eta) * total)),
    mutation="loads in proportion to the root of 1/η",
)


@claim.derivation("the square completed for one expert")
def square(s: SimpleNamespace) -> Outcome:
    eta, f, total, top = sp.symbols("eta f S K", positive=True)
    best = s.load(eta, total, top)
    return identity(
        eta * f**2 - eta * (f - best) ** 2, 2 * top * f / total - top**2 / (eta * total**2), name="per expert"
    )


@claim.derivation("the share of FFN experts")
def share(s: SimpleNamespace) -> Outcome:
    tau, ffn, zero, top = sp.symbols("tau F Z K", positive=True)
    total = ffn + zero / tau
    return every(
        [
            identity(ffn * s.load(sp.Integer(1), total, top) / top, tau * ffn / (tau * ffn + zero), name="FFN experts"),
            identity(zero * s.load(tau, total, top) / top, zero / (tau * ffn + zero), name="the others"),
        ]
    )


@claim.reference("no other load is cheaper, and the package's functions")
def no_other(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(0)
    for ffn, zero, tau, top in ((8, 4, 0.1, 2), (16, 4, 0.75, 2), (32, 8, 0.5, 1), (8, 4, 1.0, 3)):
        eta = np.array([1.0] * ffn + [tau] * zero)
        best = np.array([float(s.load(sp.Float(v), float((1 / eta).sum()), top)) for v in eta])
        if abs(best.sum() - top) > 1e-9:
            return fails(f"F={ffn}, Z={zero}, τ={tau}: the loads sum to {best.sum():.4f}, not {top}")
        moved = rng.standard_normal((1000, eta.size)) * 0.01
        others = best + moved - moved.mean(axis=1, keepdims=True)
        if ((eta * others**2).sum(axis=1) < (eta * best**2).sum()).any():
            return fails(f"F={ffn}, Z={zero}, τ={tau}: another load is cheaper")
        if not np.allclose(balanced_shares(eta, top), best, rtol=1e-12):
            return fails(f"F={ffn}, Z={zero}, τ={tau}: the package gives other loads")
        if abs(ffn_share(tau, ffn, zero) - best[:ffn].sum() / top) > 1e-12:
            return fails(f"F={ffn}, Z={zero}, τ={tau}: the package gives another share")
    return holds("four settings: 1,000 loads nearby cost more, loads and shares as the package gives them")
