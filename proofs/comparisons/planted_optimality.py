"""N8. Planted tokens on isotropic backgrounds: the likelihood ratio rises with the affinity alone, so the rules are ordered.

For o = normalize(θ w + σ z) (σ = 1) and uniform r, on the unit sphere, in polar coordinates |Ru - θw|² = R² - 2Rθa + θ² with
a = <u, w>, so Λ(u) = e^{-θ²/2} E exp(θ a R), R ~ chi_d: a function of a, whose derivative θ e^{-θ²/2} E[R exp(θ a R)] is
positive for θ > 0; at θ = 0 all tokens are alike and all rules that keep as many of the same kind too.
Ranking by affinity is ranking by Λ. By neyman_pearson expert choice is then optimal over all rules, and resonance over all rules
that keep only Top-l candidates, of which token choice is one: P_TCR <= P_RES <= P_ECR. Nothing is asked of the other gates
or of l: the chain holds for every set of gates. With p = 1 resonance loses nothing (resonance_against_expert_choice).

It is the *unit* token's law that cosine ranks: a rule that also sees the norm of θw + z ranks by <x, w>, as there
Λ = exp(θ<x,w> - θ²/2), and does better: Φ(θ/√2) against 1 - E q(δ_o) at s = 2, C = 1.
"""

from __future__ import annotations

from types import SimpleNamespace

import mpmath
import numpy as np
import sympy as sp
from scipy import special

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import expert_choice, resonance, token_choice
from resonance_theory.tokens import Rates, samplers, signals


def side(direction: int) -> SimpleNamespace:
    """The token is planted towards its gate (1) or away from it (-1); the chain of rates turns with it."""
    return SimpleNamespace(direction=direction)


claim = Claim(
    title="Planted tokens: token choice <= resonance <= expert choice, which is optimal over all rules",
    statement=r"for $o=normalize(\theta w_i+\sigma z)$ and isotropic background, $\Lambda_i=e^{-\theta^2/2\sigma^2}"
    r"E\exp(\frac{\theta}{\sigma}\delta_iR)$, $R\sim\chi_d$, rises with $\delta_i$ alone; so "
    r"$P_{TCR}\leq P_{RES}\leq P_{ECR}$ for all $s,n,C,d,l$ and any gates, ECR is optimal over all "
    r"rules and RES over those that keep only Top-$l$ candidates",
    hypotheses=(
        r"$\theta\geq 0$, unit tokens, independent uniform background directions",
        "rules see unit tokens (if norms are visible, the inner product is the optimal score and cosine is not)",
    ),
    source="new; excludes the early regime of ETR Corollary 6 in this model",
    tag="N8",
    kind="bound",
    expected=Verdict.PROVED,
    studies=("digits_scaling",),
    truth=side(1),
    mutant=side(-1),
    mutation="the token planted away from its gate (θ < 0): the ratio would fall and the chain turn round",
    lemmas=("Neyman-Pearson optimality (neyman_pearson)",),
)


@claim.derivation("the exponent in polar coordinates, and the sign of the ratio's derivative under the integral")
def exponent_polar_coordinates_sign_ratio(side: SimpleNamespace) -> Outcome:
    radius, theta = sp.symbols("R theta", positive=True)
    a = sp.symbols("a", real=True)
    signal = side.direction * theta
    u = sp.Matrix([a, sp.sqrt(1 - a**2)])
    square = sum(v**2 for v in radius * u - sp.Matrix([signal, 0]))
    integrand = sp.exp(signal * a * radius - theta**2 / 2)
    slope = sp.simplify(sp.diff(integrand, a) / integrand)
    text = f"d/da of the ratio is E of a positive exponential times {slope}"
    return every(
        [
            identity(square, radius**2 - 2 * radius * signal * a + theta**2, name="|Ru - θw|² - polar form"),
            holds(text) if slope.is_positive else fails(text),
        ]
    )


@claim.reference("density ratio of the package against 90-digit series, rising; d = 2 to 200")
def density_ratio_package_digit_series(side: SimpleNamespace) -> Outcome:
    saved, mpmath.mp.dps = mpmath.mp.dps, 90
    worst = 0.0
    try:
        for dim, theta in ((2, 1.0), (3, 0.3), (8, 2.0), (64, 2.5), (200, 6.0)):
            points = np.linspace(-0.9, 0.9, 13)
            ratio = signals.affinity_density(points, theta, dim) / signals.affinity_density(points, 0.0, dim)
            if np.any(np.diff(ratio) * side.direction <= 0):
                return fails(f"d={dim}, θ={theta}: the ratio at rising affinities is {ratio[:3]}...")
            for a, ours in list(zip(points, ratio))[::6]:
                # E exp(θaR) of R ~ chi_d by its power series: moments 2^{k/2} Γ((d+k)/2)/Γ(d/2)
                x = side.direction * theta * mpmath.mpf(float(a))
                exact = mpmath.exp(-(mpmath.mpf(theta) ** 2) / 2) * (
                    mpmath.hyp1f1(mpmath.mpf(dim) / 2, 0.5, x**2 / 2)
                    + x
                    * mpmath.sqrt(2)
                    * mpmath.gamma((dim + 1) / mpmath.mpf(2))
                    / mpmath.gamma(dim / mpmath.mpf(2))
                    * mpmath.hyp1f1(mpmath.mpf(dim + 1) / 2, 1.5, x**2 / 2)
                )
                worst = max(worst, abs(float(ours / exact) - 1))
    finally:
        mpmath.mp.dps = saved
    return holds(f"relative difference {worst:.0e}") if worst < 1e-10 else fails(f"relative difference {worst:.0e}")


@claim.reference(
    "the chain at 24 models and up to 5 capacities each, one or several experts per token; and visible norms"
)
def chain_models_up_capacities_one(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(44)
    for _ in range(24):
        dim = int(10 ** rng.uniform(0.5, 2.3))
        experts = int(rng.integers(2, min(dim, 24) + 1))
        top, signal = int(rng.integers(1, experts)), float(10 ** rng.uniform(-1.5, 1))
        law = Rates.planted(signal, dim, experts, top=top)
        hit = float(signals.hit_rate(signal, experts, top=top))
        tokens = int(10 ** rng.uniform(0.5, 4)) + 1
        capacity = np.unique(np.clip(tokens * 10 ** rng.uniform(-2, 0, 5), 1, min(tokens, 500)).astype(np.int64))
        tcr = token_choice.success(tokens, capacity, Rates(experts=experts, hit=hit, top=top))
        joint = {"hit": law.hit, "candidate_tail": law.candidate_tail, "weight": law.weight}
        res = resonance.success(tokens, capacity, Rates(**joint))
        ecr = expert_choice.success(tokens, capacity, law)
        gaps = side.direction * np.stack([res - tcr, ecr - res])
        if gaps.min() < -1e-11:
            return fails(
                f"d={dim}, n={experts}, l={top}, θ={signal:.3f}, s={tokens}, C={capacity}: {tcr}, {res}, {ecr}"
            )
    blind = 1 - float(signals.false_positive(2.0, 2))
    seeing = float(special.ndtr(2.0 / np.sqrt(2)))
    if not seeing > blind + 0.01:
        return fails("visible norms would not help")
    return holds(f"no exception; with visible norms, at d = 2, θ = 2, s = 2: {seeing:.4f} against {blind:.4f}")


def sample(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    capacity: int,
    top: int,
) -> dict[str, int]:
    drawn = samplers.planted_affinity(rng, trials, tokens, dim, experts, signal)
    routed = {
        "RES": resonance.route(drawn.values, capacity, top=top),
        "ECR": expert_choice.route(drawn.values, capacity),
    }
    return {name: int(np.count_nonzero(r.contains(drawn.position, drawn.expert))) for name, r in routed.items()}


def law(
    side: SimpleNamespace, *, tokens: int, dim: int, experts: int, signal: float, capacity: int, top: int
) -> dict[str, float]:
    """RES has at least TCR's exact rate and ECR at least RES's; the reverse chain would give RES at least ECR's."""
    nodes = Rates.planted(signal, dim, experts, top=top)
    hit = float(signals.hit_rate(signal, experts, top=top))
    tcr = float(token_choice.success(tokens, capacity, Rates(experts=experts, hit=hit, top=top)))
    ecr = float(expert_choice.success(tokens, capacity, nodes))
    res = float(resonance.success(tokens, capacity, nodes))
    return {"RES": tcr, "ECR": res} if side.direction > 0 else {"RES": ecr, "ECR": 0.0}


claim.simulate(
    sample,
    cases=[
        {"tokens": 16, "dim": 8, "experts": 4, "signal": 1.5, "capacity": 4, "top": 1},
        {"tokens": 16, "dim": 16, "experts": 8, "signal": 1.5, "capacity": 3, "top": 2},
    ],
    law=law,
    relation="at_least",
    trials=60_000,
    full=200_000,
)
