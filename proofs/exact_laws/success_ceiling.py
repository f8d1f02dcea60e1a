"""N8. A ceiling for every routing rule: the chance rate C/s plus the distance of the discriminative law from the background.

A rule's success is (1/s) E_r Σ_k φ_k Λ(x_k) with 0 <= φ_k <= 1 and Σ φ_k <= C (neyman_pearson). Token by token
φΛ <= φ + (Λ-1)_+, as the slack is (1-φ)(Λ-1) for Λ >= 1 and φ(1-Λ) below; and E_r(Λ-1)_+ = TV(P_o, P_r) (a part of P_o where P_r
has no mass adds its whole weight to both). So success <= C/s + TV, averaged over the experts. For planted unit tokens
TV <= 2Φ(θ/2σ) - 1, the distance of N(θw, σ²I) from N(0, σ²I): forgetting the norm cannot raise it. The ceiling is sharp: if Λ
takes the values 0 and L only, TV = 1 - 1/L, and at C/s slightly above 1/L the best rule succeeds with a rate that tends to 1.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp
from scipy import optimize, special, stats

from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice
from resonance_theory.tokens import Rates, caps, samplers, signals


def side(factor: str) -> SimpleNamespace:
    """Success at most C/s + `factor` * TV."""
    return SimpleNamespace(factor=sp.Rational(factor), number=float(sp.Rational(factor)))


claim = Claim(
    title="No rule exceeds the chance rate by more than the total variation distance",
    statement=r"every rule that keeps at most $C$ of $s$ tokens per expert has success "
    r"$\leq\frac{C}{s}+\frac1n\sum_iTV(P_{o,i},P_r)$; for planted tokens $\leq\frac{C}{s}+2\Phi(\frac{\theta}{2\sigma})-1$",
    hypotheses=(
        "background tokens i.i.d. and independent of the discriminative one; its position uniform",
        r"planted: $o=normalize(\theta w_i+\sigma z)$ and isotropic background",
    ),
    source="new",
    tag="N8",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side("1"),
    mutant=side("1/2"),
    mutation="half the distance",
    lemmas=("Neyman-Pearson form of a rule's success (neyman_pearson)", "data processing for total variation"),
)


@claim.derivation("each token's slack is a product of non-negative factors; the distance of two Gaussians")
def token_s_slack_product_non(side: SimpleNamespace) -> Outcome:
    ratio, phi, excess, rest = sp.symbols("Lambda phi excess rest", nonnegative=True)
    above = phi + side.factor * (ratio - 1) - phi * ratio  # Λ >= 1: Λ = 1 + excess, φ = 1 - rest
    shifted = sp.expand(above.subs({ratio: 1 + excess, phi: 1 - rest}))
    below = phi - phi * ratio  # Λ <= 1: Λ = 1 - rest
    theta, x = sp.symbols("theta x", positive=True)
    density = sp.exp(-((x - theta) ** 2) / 2), sp.exp(-(x**2) / 2)
    normal = (1 + sp.erf(theta / (2 * sp.sqrt(2)))) / 2
    primitive = (sp.erf((x - theta) / sp.sqrt(2)) - sp.erf(x / sp.sqrt(2))) / 2
    slope = (sp.diff(primitive, x), (density[0] - density[1]) / sp.sqrt(2 * sp.pi))
    distance = sp.limit(primitive, x, sp.oo) - primitive.subs(x, theta / 2)
    return every(
        [
            nonnegative_polynomial(shifted, {excess: 0, rest: 0}, name="φ + (Λ-1) - φΛ"),
            identity(below.subs(ratio, 1 - rest), phi * rest, name="φ - φΛ - φ(1-Λ)"),
            identity((density[0] / density[1]).subs(x, theta / 2), 1, name="the ratio at θ/2, minus 1"),
            identity(*slope, name="primitive' - (f_o - f_r)"),
            identity(distance, 2 * normal - 1, name="∫(f_o - f_r)_+ - (2Φ(θ/2) - 1)"),
        ]
    )


def distance(signal: float, dim: int) -> float:
    """TV of the directions: they differ in the affinity alone, whose ratio crosses 1 once (planted_optimality)."""

    def log_ratio(a: float) -> float:
        return float(np.log(signals.affinity_density(a, signal, dim) / signals.affinity_density(a, 0.0, dim)))

    at = optimize.brentq(log_ratio, -0.5, 0.99)
    return float(signals.affinity_tail(at, signal, dim) - caps.cap(at, dim))


@claim.reference("expert choice, the optimal rule, under both ceilings at 8 models; the two-valued ratio reaches it")
def expert_choice_optimal_rule_under(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(45)
    closest = 1.0
    for _ in range(8):
        dim, signal = int(10 ** rng.uniform(0.6, 2.3)), float(rng.uniform(0.2, 5))
        law = Rates.planted(signal, dim, 2)
        tv = distance(signal, dim)
        if tv > 2 * special.ndtr(signal / 2) - 1 + 1e-12:
            return fails(f"d={dim}, θ={signal:.3f}: TV {tv:.6f} exceeds 2Φ(θ/2) - 1")
        for tokens in (3, 200):
            capacity = np.arange(1, tokens, max(1, tokens // 30))
            best = expert_choice.success(tokens, capacity, law)
            room = capacity / tokens + side.number * tv - best
            closest = min(closest, float(room.min()))
            if room.min() < -1e-11:
                c = int(capacity[np.argmin(room)])
                return fails(f"d={dim}, θ={signal:.3f}, s={tokens}, C={c}: exceeds the ceiling by {-room.min():.4f}")
    # Λ in {0, L}: the token survives if fewer than C of the others share its value
    tokens, ratio = 10**6, 4
    slots = int(tokens / ratio * 1.01)
    reached = float(stats.binom.cdf(slots - 1, tokens - 1, 1 / ratio))
    ceiling = slots / tokens + side.number * (1 - 1 / ratio)
    if reached > ceiling or ceiling - reached > 0.01:
        return fails(f"two values: success {reached:.4f}, ceiling {ceiling:.4f}")
    return holds(f"least room {closest:.4f}; two-valued ratio: {reached:.4f} under {ceiling:.4f}")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, dim: int, experts: int, signal: float, capacity: int
) -> dict[str, int]:
    drawn = samplers.planted_affinity(rng, trials, tokens, dim, experts, signal)
    kept = expert_choice.route(drawn.values, capacity).contains(drawn.position, drawn.expert)
    return {"success": int(np.count_nonzero(kept))}


def law(
    side: SimpleNamespace, *, tokens: int, dim: int, experts: int, signal: float, capacity: int
) -> dict[str, float]:
    return {"success": min(1.0, capacity / tokens + side.number * distance(signal, dim))}


claim.simulate(
    sample,
    cases=[{"tokens": 40, "dim": 12, "experts": 2, "signal": 1.5, "capacity": 10}],
    law=law,
    relation="at_most",
    trials=50_000,
)
