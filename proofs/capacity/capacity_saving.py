"""N9. What "40 % fewer tokens per expert" means: a condition on the affinity percentile, on its quantile and not its mean.

At capacity C = cs (fluid limit, s large) a token with percentile ρ is kept exactly if c > ρπ: by Hoeffding, with M = s-1,
    1{h <= C/M - ε} (1 - e^{-2Mε²}) <= F(h) <= 1{h < (C-1)/M + ε} + e^{-2Mε²}   for every ε > 0,
so with G the distribution function of ρ given a hit, G(x-ε') (1 - e^{-2Mε²}) <= P_RES/p <= G(x+ε') + e^{-2Mε²}, x = c/π, ε' = ε/π
up to the step 1/(πM) of C. Success τ p then needs x -> Q_ρ(τ|hit), the τ-quantile, while token choice needs x -> τ (N9): the
capacity saved tends to 1 - Q_ρ(τ|hit)/τ wherever the quantile function Q_ρ is continuous at τ, with atoms or without. At a
constant percentile that is 1 - ρ/τ: 40 % is ρ <= .6τ and 60 % is ρ <= .4τ, and ρ > τ needs more capacity than token choice.
Planted d = 64, n = 8, θ = 2.5, τ = .95: 48.6 %, where the mean promises 89 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import resonance, token_choice
from resonance_theory.tokens import Rates


def quantile(values: np.ndarray, weights: np.ndarray, goal: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), goal)])


@dataclass(frozen=True)
class Side:
    """`level(values, weights, τ)`: the percentile that decides about the capacity; `saved(ρ, τ)` at a constant percentile."""

    level: Callable[[np.ndarray, np.ndarray, float], float]
    saved: Callable[[sp.Expr, sp.Expr], sp.Expr]


claim = Claim(
    title="The capacity that resonance saves: 1 - Q/τ, with the τ-quantile of the percentile",
    statement=r"$1-\frac{C^*_{RES}(\tau)}{C^*_{TCR}(\tau)}\to 1-\frac{Q_\rho(\tau|hit)}{\tau}$ as $s\to\infty$; "
    r"at a constant percentile a saving of 40 % is $\rho\leq .6\tau$, of 60 % $\rho\leq .4\tau$",
    hypotheses=(
        r"$\rho=h(\delta_o)/\pi$, whose quantile function is continuous at $\tau$ (as that of a constant is, for every $\tau<1$)",
        r"one load $\pi$: experts of unequal loads one by one",
    ),
    source="ETR abstract: 40 % fewer tokens per expert (v2, v3), 60 % (v1); condition new",
    tag="N9",
    kind="asymptotic",
    expected=Verdict.PROVED,
    studies=("capacity_scale", "planted_phases"),
    truth=Side(quantile, lambda rho, tau: 1 - rho / tau),
    mutant=Side(lambda values, weights, goal: float(weights @ values), lambda rho, tau: 1 - rho),
    mutation="the mean percentile in place of its τ-quantile, and 1 - ρ for 1 - ρ/τ",
    lemmas=("Hoeffding's inequality", "N9 for token choice (capacity_law_token_choice)"),
)


@claim.derivation("the slots that the two rules need in the limit, at a constant percentile, and the ρ of 40 and 60 %")
def saving_at_constant_percentile(side: Side) -> Outcome:
    tau, rho, x, m, gap = sp.symbols("tau rho x m gap", positive=True)
    # token choice keeps min(1, x) at x = C/(πs): τ at x = τ; resonance e^{-2M(x-ρ)²π²} short of 1{x > ρ}: τ from x = ρ on
    slots_token = sp.solve(sp.Eq(x, tau), x)[0]
    (slots_resonance,) = {sp.simplify(z) for z in sp.solve(sp.diff(sp.exp(-2 * m * (x - rho) ** 2), x), x)}
    outcomes = [
        value(sp.exp(-2 * m * gap**2), {m: sp.oo}, 0, name="Hoeffding's error away from x = ρ, in the limit"),
        identity(side.saved(rho, tau), (slots_token - slots_resonance) / slots_token, name="saving - slots saved"),
    ]
    for saving, part in ((sp.Rational(2, 5), sp.Rational(3, 5)), (sp.Rational(3, 5), sp.Rational(2, 5))):
        (needed,) = sp.solve(sp.Eq(side.saved(rho, tau), saving), rho)
        outcomes.append(identity(needed, part * tau, name=f"ρ that saves {saving} - {part} τ"))
    return every(outcomes)


@claim.reference("the level of random discrete laws is the least percentile that keeps τ, no more and no less")
def level_is_least_that_keeps(side: Side) -> Outcome:
    rng = np.random.default_rng(93)
    for size in range(1, 40):
        values, parts = np.sort(rng.random(size)), rng.integers(1, 9, size)
        weights, goal = parts / parts.sum(), float(rng.integers(1, 2 * parts.sum()) / (2 * parts.sum()) - 1e-9)
        level = side.level(values, weights, goal)
        upto, before = weights[values <= level].sum(), weights[values < level].sum()
        if not before < goal <= upto or level not in values:
            return fails(f"{size} values, τ = {goal:.4f}: level {level:.4f} keeps {upto:.4f}, {before:.4f} below it")
    constant = side.level(np.array([0.3]), np.ones(1), 0.9)
    return holds("39 laws, and a constant") if constant == 0.3 else fails(f"a constant of .3 has level {constant}")


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


@claim.reference("finite-s sandwich: C* of the package inside, and the sandwich closes on the level as s grows")
def finite_s_sandwich_c_package(side: Side) -> Outcome:
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
def planted_d_n_limit_c(side: Side) -> Outcome:
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


def law(side: Side, *, tokens: int, experts: int, capacity: int, power: int) -> dict[str, float]:
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
