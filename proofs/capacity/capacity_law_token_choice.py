"""N9, token choice. The least capacity for a success rate of τ times the hit rate, enclosed in closed form.

Write x = C/(πs) and w = (1-π)/(πs). Jensen's bound P/p <= x makes x >= τ necessary. The sharp lower bound (N2) reads
P/p >= ½ (x + 1 - sqrt(xw + (x-1)²)); it reaches τ exactly if x + 1 - 2τ >= sqrt(xw + (x-1)²), and squaring (the left side is at
least 1-τ > 0 as x >= τ) leaves 4(1-τ)(x-τ) >= xw, that is x >= τ/(1 - w/(4(1-τ))).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity, value
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.rules import Rates, token_choice

x, w, tau = sp.symbols("x w tau", positive=True)


def side(factor: int) -> SimpleNamespace:
    """`factor` stands for the 4 of the upper end."""

    def interval(tokens: int, experts: float, goal: float) -> tuple[int, int]:
        load, spread = tokens / experts, (1 - 1 / experts) * experts / tokens
        upper = goal * load / (1 - spread / (factor * (1 - goal)))
        # a hair inside, so that rounding never turns an exact integer into the next one
        return int(np.ceil(goal * load * (1 - 1e-12))), int(np.ceil(upper * (1 + 1e-12)))

    return SimpleNamespace(factor=factor, interval=interval)


claim = Claim(
    title="Capacity law of token choice, enclosed",
    statement=r"$\lceil\tau\pi s\rceil\leq C^*_{TCR}(\tau)\leq\lceil\tau\pi s/(1-\frac{w}{4(1-\tau)})\rceil$, "
    r"$w=\frac{1-\pi}{\pi s}$",
    hypotheses=(r"$0<\tau<1$, $w<4(1-\tau)$", r"$C^*(\tau)$: least capacity with success at least $\tau p$"),
    source="new",
    tag="N9",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(4),
    mutant=side(8),
    mutation="8(1-τ) for 4(1-τ) in the upper end",
    lemmas=("N2 (token_choice_sharp)", "Jensen's inequality"),
)


@claim.derivation("squaring the sharp bound leaves 4(1-τ)(x-τ) >= xw")
def squaring_sharp_bound_leaves_x(side: SimpleNamespace) -> Outcome:
    squared = (x + 1 - 2 * tau) ** 2 - (x - 1) ** 2 - x * w
    edge = tau / (1 - w / (side.factor * (1 - tau)))
    return every(
        [
            identity(squared, 4 * (1 - tau) * (x - tau) - x * w, name="square - [4(1-τ)(x-τ) - xw]"),
            value(
                squared,
                {x: edge},
                0,
                points=[{tau: sp.Rational(3, 4), w: sp.Rational(1, 9)}],
                name="square at the upper end",
            ),
            # the factor that is squared: x + 1 - 2τ = (x - τ) + (1 - τ) > 0 for x >= τ
            identity(x + 1 - 2 * tau, (x - tau) + (1 - tau), name="positive factor"),
        ]
    )


@claim.reference("the package's least capacities, 3000 settings with s up to 10^9")
def package_s_least_capacities_settings(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(23)
    experts = (10 ** rng.uniform(0, 3, 3000)).astype(np.int64) + 1
    tokens = (10 ** rng.uniform(1, 9, 3000)).astype(np.int64)
    spread = (experts - 1) / tokens
    near = 1 - np.sqrt(spread) * 10 ** rng.uniform(-0.6, 1, 3000)  # where the upper end is tight
    goal = np.where(rng.random(3000) < 0.7, near, rng.uniform(0.05, 0.99, 3000))
    used = (goal > 0) & (goal < 1) & (spread < 3.9 * (1 - goal))
    experts, tokens, goal = experts[used], tokens[used], goal[used]
    least = token_choice.least_capacity(goal, tokens, Rates(experts=experts))
    for i in range(len(goal)):
        low, high = side.interval(int(tokens[i]), int(experts[i]), float(goal[i]))
        if not low <= least[i] <= high:
            return fails(f"s={tokens[i]}, n={experts[i]}, τ={goal[i]:.6f}: C* = {least[i]}, claimed {low}..{high}")
    if np.any(token_choice.success(tokens, least, Rates(experts=experts)) < goal * (1 - 1e-13)):
        return fails("one of the package's least capacities misses τ")
    # several experts per token, and loads of their own: the law knows π only
    top = 1 + (experts * rng.random(len(goal)) ** 3).astype(np.int64)
    load = rng.uniform(0.01, 0.6, len(goal))
    for share, ours in (
        (top / experts, token_choice.least_capacity(goal, tokens, Rates(experts=experts, top=top))),
        (load, token_choice.least_capacity(goal, tokens, Rates(experts=experts, load=load))),
    ):
        for i in np.flatnonzero((1 - share) / (share * tokens) < 3.9 * (1 - goal)).tolist():
            low, high = side.interval(int(tokens[i]), 1 / float(share[i]), float(goal[i]))
            if not low <= ours[i] <= high:
                return fails(f"s={tokens[i]}, π={share[i]:.4f}, τ={goal[i]:.6f}: C* = {ours[i]}, claimed {low}..{high}")
    low, high = side.interval(4096, 8, 0.95)
    exact = int(token_choice.least_capacity(0.95, 4096, Rates(experts=8)))
    if exact != 488 or not low <= exact <= high:
        return fails(f"s=4096, n=8, τ=.95: C* = {exact}, claimed {low}..{high}")
    return holds(f"{len(goal)} settings inside; s=4096, n=8, τ=.95: {low}..{high}, exactly {exact}")


def sample(
    rng: np.random.Generator, trials: int, *, tokens: int, experts: int, goal: float, factor: int
) -> dict[str, int]:
    """Position order at the capacity that an upper end with this factor promises to be enough."""
    capacity = side(factor).interval(tokens, experts, goal)[1]
    rivals = rng.binomial(rng.integers(tokens, size=trials), 1 / experts)
    return {"kept": int(np.count_nonzero(rivals < capacity))}


claim.simulate(
    sample,
    cases=[
        {"tokens": 512, "experts": 8, "goal": 0.95, "factor": 4},
        {"tokens": 512, "experts": 8, "goal": 0.95, "factor": 8},
    ],
    # a side promises τ at its own capacity and at every larger one; of smaller ones it says nothing
    law=lambda side, *, tokens, experts, goal, factor: {"kept": goal if factor <= side.factor else 0.0},
    relation="at_least",
    trials=1_000_000,
    full=8_000_000,
)
