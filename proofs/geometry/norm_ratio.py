"""Norms of planted and background tokens: cosine affinity does not see their ratio, inner products do.

Multiply each token by its own positive number, random or not: every cosine stays, so p, π, q, h, and with them the success rates
of all rules routed by cosine, are those of the ratio κ = 1. Routing by inner products keeps each token's Top-ℓ (its order of the
experts), hence p, π and token choice as well; but an expert that ranks tokens compares their lengths. With κ = length of the
discriminative over the background noise, the token κ(θw_i + z) against a background token z' has

    E q = P(<z',w_i> >= κ(θ + <z,w_i>)) = Φ(-κθ/sqrt(1+κ²)),

from 1/2 at κ = 0 to Φ(-θ): short discriminative tokens are lost among long background ones at any signal, while by cosine E q is
that of affinity_law for every κ.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import special

from resonance_theory import affinity
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice
from resonance_theory.tokens import signals

k, theta = sp.symbols("kappa theta", positive=True)


def side(seen) -> SimpleNamespace:
    """`seen`: the ratio of norms that an inner product sees."""
    return SimpleNamespace(seen=seen)


claim = Claim(
    title="Cosine affinity is free of the tokens' norms; ranking by inner products is not",
    statement=r"tokens scaled by positive numbers of their own leave $p$, $\pi$, $q$, $h$ and all success rates by cosine "
    r"unchanged; ranked by inner products, discriminative tokens $\kappa(\theta w_i+z)$ against background $z'$ have "
    r"$E\,q=\Phi(-\frac{\kappa\theta}{\sqrt{1+\kappa^2}})$, falling in $\kappa$ from $\frac12$ to $\Phi(-\theta)$",
    hypotheses=(r"$z,z'\sim N(0,I_d)$ independent, $|w_i|=1$, $\theta>0$, $\kappa>0$",),
    source="new: the cosine affinity of ETR (arXiv 2406.00023) against inner products",
    tag="G3",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda ratio: ratio),
    mutant=side(lambda ratio: ratio / ratio),
    mutation="inner products are free of the norms, too",
)


@claim.derivation("cosine of a scaled token; mean and deviation of the difference of inner products")
def cosine_scaled_token_mean_deviation(side: SimpleNamespace) -> Outcome:
    x, y = sp.symbols("x y", real=True)  # along and across the gate
    scaled = (k * x / sp.sqrt((k * x) ** 2 + (k * y) ** 2), x / sp.sqrt(x**2 + y**2))
    # <z',w> - κ(θ + <z,w>): mean -κθ, variance 1 + κ²
    seen = side.seen(k)
    standard = ((seen * theta) ** 2 / (1 + seen**2), (k * theta) ** 2 / (1 + k**2))
    point = [{k: sp.Rational(1, 3), theta: 2}]
    slope = (sp.diff(k / sp.sqrt(1 + k**2), k), (1 + k**2) ** sp.Rational(-3, 2))
    return every(
        [
            identity(*scaled, name="cosine of the scaled token - cosine"),
            identity(*standard, points=point, name="(mean/deviation)²"),
            identity(*slope, name="κ/sqrt(1+κ²) rises at the rate (1+κ²)^{-3/2}"),
        ]
    )


def mean_rate(side: SimpleNamespace, ratio: float, signal: float) -> float:
    seen = side.seen(ratio)
    return float(special.ndtr(-seen * signal / np.sqrt(1 + seen * seen)))


@claim.reference("E q by integrating the tail over the discriminative token's projection")
def e_q_integrating_tail_discriminative(side: SimpleNamespace) -> Outcome:
    node, mass = np.polynomial.hermite_e.hermegauss(120)
    worst = 0.0
    for ratio in (0.1, 0.5, 1.0, 1.7):
        for signal in (0.5, 2.0):
            direct = float(mass @ special.ndtr(-ratio * (signal + node)) / mass.sum())
            worst = max(worst, abs(mean_rate(side, ratio, signal) - direct))
            if worst > 1e-10:
                return fails(
                    f"κ={ratio}, θ={signal}: {mean_rate(side, ratio, signal):.8f}, by integration {direct:.8f}"
                )
    return holds(f"8 rates agree to {worst:.0e}")


def sample(rng: np.random.Generator, trials: int, *, dim: int, signal: float, ratio: float) -> dict[str, int]:
    """Expert choice with one slot between two tokens, by the router, on cosines and on inner products with the GrAP gates."""
    x = rng.standard_normal((trials, 2, dim))
    x[:, 0, : dim // 2] += signal / np.sqrt(dim // 2)
    x[:, 0] *= ratio
    x *= rng.gamma(2.0, size=(trials, 2, 1)) if ratio == 1 else 1.0  # random lengths, which cosines do not see
    first = np.zeros(trials, int)
    by_cosine = expert_choice.route(affinity(x, 2), 1).contains(first, first)
    tallies = {"cosine": int(np.count_nonzero(by_cosine))}
    if ratio != 1:
        inner = x.reshape(trials, 2, 2, dim // 2).sum(axis=-1)
        tallies["inner"] = int(np.count_nonzero(expert_choice.route(inner, 1).contains(first, first)))
    return tallies


def law(side: SimpleNamespace, *, dim: int, signal: float, ratio: float) -> dict[str, float]:
    rates = {"cosine": 1 - float(signals.false_positive(signal, dim))}
    if ratio != 1:
        rates["inner"] = 1 - mean_rate(side, ratio, signal)
    return rates


claim.simulate(
    sample,
    cases=[
        {"dim": 4, "signal": 1.5, "ratio": 0.4},
        {"dim": 16, "signal": 2.0, "ratio": 3.0},
        {"dim": 8, "signal": 1.0, "ratio": 1.0},
    ],
    law=law,
)
