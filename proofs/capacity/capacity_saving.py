"""N9. What "40 % fewer tokens per expert" means: a condition on the affinity percentile, on its quantile and not its mean.

At capacity C = cs (fluid limit, s large) a token with percentile ρ is kept exactly if c > ρπ: by Hoeffding, with M = s-1,
    1{h <= C/M - ε} (1 - e^{-2Mε²}) <= F(h) <= 1{h < (C-1)/M + ε} + e^{-2Mε²}   for every ε > 0,
so with G the distribution function of ρ given a hit, G(x-ε') (1 - e^{-2Mε²}) <= P_RES/p <= G(x+ε') + e^{-2Mε²}, x = c/π, ε' = ε/π
up to the step 1/(πM) of C. Success τ p then needs x -> Q_ρ(τ|hit), the τ-quantile, while token choice needs x -> τ (N9): the
capacity saved tends to 1 - Q_ρ(τ|hit)/τ. At a constant percentile that is 1 - ρ/τ: 40 % is ρ <= .6τ and 60 % is ρ <= .4τ, and
ρ > τ needs more capacity than token choice. Planted d = 64, n = 8, θ = 2.5, τ = .95: 48.6 %, where the mean promises 89 %.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import resonance, token_choice
from resonance_theory.tokens import Rates


def quantile(values: np.ndarray, weights: np.ndarray, goal: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), goal)])


def side(level) -> SimpleNamespace:
    """`level(values, weights, τ)`: the percentile that decides about the capacity."""
    return SimpleNamespace(level=level)


claim = Claim(
    title="The capacity that resonance saves: 1 - Q/τ, with the τ-quantile of the percentile",
    statement=r"$1-\frac{C^*_{RES}(\tau)}{C^*_{TCR}(\tau)}\to 1-\frac{Q_\rho(\tau|hit)}{\tau}$ as $s\to\infty$; "
    r"at a constant percentile a saving of 40 % is $\rho\leq .6\tau$, of 60 % $\rho\leq .4\tau$",
    hypotheses=(
        r"$\rho=h(\delta_o)/\pi$, with a distribution function continuous and rising at its $\tau$-quantile",
        r"one load $\pi$: experts of unequal loads one by one",
    ),
    source="ETR abstract: 40 % fewer tokens per expert (v2, v3), 60 % (v1); condition new",
    tag="N9",
    kind="asymptotic",
    expected=Verdict.PROVED,
    studies=("capacity_scale", "planted_phases"),
    truth=side(quantile),
    mutant=side(lambda values, weights, goal: float(weights @ values)),
    mutation="the mean percentile in place of its τ-quantile",
    lemmas=("Hoeffding's inequality", "N9 for token choice (capacity_law_token_choice)"),
)


@claim.derivation("fluid limit on a two-point percentile: kept fractions, the level that reaches τ, and 40 %")
def fluid_limit_two_point_percentile(side: SimpleNamespace) -> Outcome:
    tau, epsilon, m = sp.symbols("tau epsilon m", positive=True)
    outcomes = [
        # the saving 1 - ρ/τ at the two printed numbers
        identity(1 - (sp.Rational(3, 5) * tau) / tau - sp.Rational(2, 5), name="saving at ρ = .6τ minus 40 %"),
        identity(1 - (sp.Rational(2, 5) * tau) / tau - sp.Rational(3, 5), name="saving at ρ = .4τ minus 60 %"),
        # Hoeffding's exponent at deviation ε, and its limit
        identity(sp.limit(sp.exp(-2 * m * epsilon**2), m, sp.oo), name="lim e^{-2Mε²}"),
    ]
    values, weights = np.array([0.1, 0.7]), np.array([0.8, 0.2])
    for goal, needed in ((0.7, 0.1), (0.9, 0.7)):
        # kept mass at x just above a percentile is the weight of all percentiles up to it
        level = side.level(values, weights, goal)
        reached = float(weights[values <= level + 1e-12].sum())
        text = f"τ = {goal}: level {level:.3f} keeps {reached:.2f}"
        outcomes.append(holds(text) if reached >= goal and level <= needed + 1e-12 else fails(text))
    return every(outcomes)


def bracket(tokens: int, share: float, values: np.ndarray, weights: np.ndarray, goal: float) -> tuple[float, float]:
    """Capacities between which C* of resonance must lie, from the Hoeffding sandwich with the best ε of a grid."""
    others = tokens - 1
    low, high = 1.0, float(tokens)
    for epsilon in 10 ** np.linspace(-5, -0.5, 400):
        slip = np.exp(-2 * others * epsilon**2)
        if goal / (1 - slip) <= 1 - 1e-12 and slip < 1:
            high = min(high, others * (share * quantile(values, weights, goal / (1 - slip)) + epsilon) + 1)
        if goal - slip > 0:
            low = max(low, others * (share * quantile(values, weights, goal - slip) - epsilon))
    return low, high


@claim.certificate("finite-s sandwich: C* of the package inside, and the sandwich closes on the level as s grows")
def finite_s_sandwich_c_package(side: SimpleNamespace) -> Outcome:
    values, goal, share = np.linspace(0.0005, 0.9995, 1000) ** 2, 0.9005, 1 / 8  # τ inside an atom: one quantile
    weights = np.full(1000, 1e-3)
    level = side.level(values, weights, goal)
    widths = []
    # one of 8 experts, two of 8, and an expert with half the load: the saving does not depend on π
    for share, tokens in ((1 / 8, 10**3), (1 / 4, 10**5), (0.49, 10**5), (1 / 8, 10**7), (1 / 4, 10**9), (0.49, 10**9)):
        low, high = bracket(tokens, share, values, weights, goal)
        least = int(
            resonance.least_capacity(
                goal, tokens, Rates(hit=np.ones(1000), candidate_tail=values * share, weight=weights)
            )
        )
        if not low <= least <= high:
            return fails(f"s={tokens}, π={share}: C* = {least} outside [{low:.1f}, {high:.1f}]")
        inside = low <= share * level * tokens <= high
        if not inside:
            return fails(
                f"s={tokens}: the level {level:.4f} means C = {share * level * tokens:.0f}, C* is in [{low:.0f}, {high:.0f}]"
            )
        widths.append((high - low) / (share * tokens))
    if sorted(widths, reverse=True) != widths:
        return fails(f"the sandwich does not close: widths {widths}")
    return holds(f"C* and level inside at s = 10^3..10^9, relative width {widths[0]:.3f} down to {widths[-1]:.5f}")


@claim.reference("planted d=64, n=8, θ=2.5, τ=.95: 48.6 % in the limit, and C* = 252 against 488 at s = 4096")
def planted_d_n_limit_c(side: SimpleNamespace) -> Outcome:
    law = Rates.planted(2.5, 64, 8)
    hit = float(law.weight @ law.hit)
    given = law.weight * law.hit / hit
    saving = 1 - side.level(law.candidate_tail * 8, given, 0.95) / 0.95
    least = int(resonance.least_capacity(0.95 * hit, 4096, law))
    other = int(token_choice.least_capacity(0.95, 4096, Rates(experts=8)))
    text = f"limit {100 * saving:.1f} %; at s = 4096 resonance needs {least}, token choice {other}"
    return holds(text) if abs(saving - (1 - least / other)) < 0.01 and (least, other) == (252, 488) else fails(text)


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, capacity: int, power: int
) -> dict[str, int]:
    """ρ = U^power given a hit; better candidates counted among the others."""
    rho = rng.random(trials) ** power
    return {"kept": int(np.count_nonzero(rng.binomial(tokens - 1, rho / experts) < capacity))}


def law(side: SimpleNamespace, *, tokens: int, experts: int, capacity: int, power: int) -> dict[str, float]:
    """The τ whose level the capacity is, in the fluid limit: the side's claim for the rate."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    values, weights = grid**power, np.full(20_000, 1 / 20_000)
    goals = np.linspace(0.01, 0.99, 197)
    levels = np.array([side.level(values, weights, goal) for goal in goals])
    return {"kept": float(goals[np.argmin(np.abs(levels - capacity * experts / tokens))])}


claim.simulate(
    sample,
    cases=[{"tokens": 10**8, "experts": 8, "capacity": 10**8 // 32, "power": 2}],
    law=law,
    trials=200_000,
    full=200_000,
)
