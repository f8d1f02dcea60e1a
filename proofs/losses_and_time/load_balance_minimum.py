"""LocMoE, after eq. 5: is the load-balance loss least at a uniform distribution? No; it is only constant there.

L/α = n Σ f_i P_i is 1 as soon as f or P is uniform. Below 1 it goes when tokens sent to busy experts spread their remaining
probability over idle ones, and that respects top-1 choice (a token's own expert has its largest probability):
  n = 2. Let x >= 1/2 be the share of the busier expert. Its tokens give it at least 1/2, so P_1 >= x/2, and
    Σ f P = (1-x) + (2x-1) P_1 >= (1-x) + (2x-1) x/2 = (x - 3/4)² + 7/16: L >= 7α/8, attained at x = 3/4.
  n >= 3. Leave k experts without a token, use n-k equally, and let every token spread evenly over its own expert and the k
    idle ones: Σ f P = 1/((n-k)(k+1)), so L = α n/((n-k)(k+1)), least at k = ⌊n/2⌋ or ⌊(n-1)/2⌋: α n/⌊(n+1)²/4⌋, below α.
For n = 8 a router that never uses three of its experts has loss .4α, less than the balanced router. What is true: with
soft shares f = P the loss is α(1 + n Σ (P_i - 1/n)²) >= α, and collapse on one expert has the greatest value, α n.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory import losses
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds

x = sp.symbols("x", real=True)
half = sp.Rational(1, 2)


def side(least: sp.Rational, idle: Callable[..., Any]) -> SimpleNamespace:
    """`least`: the infimum of L/α for n = 2; `idle(n, k)`: L/α with k idle experts."""
    return SimpleNamespace(least=least, idle=idle)


claim = Claim(
    title="The load-balance loss is not least at a uniform distribution",
    statement=r"$L=\alpha n\sum_i f_iP_i$ over top-1 routers: $L=\alpha$ if $f$ or $P$ is uniform, $\min L=\frac{7}{8}\alpha$ "
    r"for $n=2$, and $\inf L\leq \frac{\alpha n}{\lfloor (n+1)^2/4\rfloor}<\alpha$ for $n\geq 3$",
    hypotheses=(
        r"$f_i$: fraction of tokens sent to expert $i$, the expert of their largest probability (ties allowed)",
        r"$P_i$: mean probability of expert $i$",
    ),
    source="LocMoE eq. 5 and the sentence after it (arXiv 2401.13920); the load-balance loss of ETR",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side(sp.Rational(7, 8), lambda n, k: n / ((n - k) * (k + 1))),
    # a token could then give its own expert less than the others
    mutant=side(sp.Rational(2, 3), lambda n, k: n / ((n - k) * (k + 2))),
    mutation="a token's own expert may have 1/(k+2) in place of its largest probability, 1/(k+1)",
    printed=side(sp.Integer(1), lambda n, k: 1),
    correction=r"Printed: the loss achieves its minimum under a uniform distribution. It equals $\alpha$ there, and less where "
    r"busy experts' tokens lend probability to idle ones: $.4\alpha$ for $n=8$ with three experts that get no token. "
    r"With soft shares $f=P$ the minimum is at the uniform distribution.",
)


@claim.certificate("n = 2: exact least value, by completing the square, and where it is attained")
def n_exact_least_value_completing(side: SimpleNamespace) -> Outcome:
    bound = (1 - x) + (2 * x - 1) * x / 2
    where = sp.solve(sp.diff(bound, x), x)[0]
    value = 2 * bound.subs(x, where)
    text = f"least L/α = {value} at x = {where}, claimed {side.least}"
    return every(
        [
            identity(bound - (x - where) ** 2, value / 2, name="bound - (x - 3/4)² - 7/16"),
            holds(text) if value == side.least and half <= where <= 1 else fails(text),
        ]
    )


@claim.derivation("n >= 3: the value with idle experts, for all n and k; soft shares; uniform shares")
def n_value_idle_experts_n(side: SimpleNamespace) -> Outcome:
    n, k, square = sp.symbols("n k Q", positive=True)
    # a token: its own expert, share 1/(n-k), with probability 1/(k+1), and idle experts, share 0
    per_token = 1 / (n - k) / (k + 1)
    best = all(max((a - b) * (b + 1) for b in range(a)) == (a + 1) ** 2 // 4 for a in range(2, 200))
    return every(
        [
            identity(n * per_token, side.idle(n, k), name="value with k idle experts"),
            # (n-k)(k+1) = (n+1)²/4 - (k - (n-1)/2)²: the integer maximum is the floor
            identity((n - k) * (k + 1) - (n + 1) ** 2 / 4, -((k - (n - 1) / 2) ** 2), name="completed square in k"),
            holds("integer maximum is ⌊(n+1)²/4⌋") if best else fails("integer maximum differs"),
            # (n+1)² / 4 - n = (n-1)²/4: the floor exceeds n for n >= 3
            identity((n + 1) ** 2 / 4 - n, (n - 1) ** 2 / 4, name="(n+1)²/4 - n"),
            # with Q = Σ P² and Σ P = 1: n Q - 1 = n Σ (P - 1/n)²
            identity(n * square - 1, n * (square - 2 / n + n / n**2), name="soft shares"),
        ]
    )


def idle_router(experts: int, idle: int) -> tuple[np.ndarray, np.ndarray]:
    """One token per used expert, spread evenly over its own expert and the idle ones; each own entry is a row maximum."""
    used = experts - idle
    probability = np.zeros((used, experts))
    probability[:, used:] = 1 / (idle + 1)
    probability[np.arange(used), np.arange(used)] = 1 / (idle + 1)
    expert = np.arange(used)
    assert np.all(probability[expert, expert] == probability.max(axis=1))
    return probability, expert


@claim.reference(
    "the package's loss of such routers, n = 2..16; no random two-expert router goes below the least value"
)
def package_s_loss_such_routers(side: SimpleNamespace) -> Outcome:
    for n in range(2, 17):
        for k in range(n):
            ours = losses.load_balance(*idle_router(n, k), alpha=1.0)
            if abs(ours - float(side.idle(n, k))) > 1e-12:
                return fails(f"n={n}, {k} idle: L/α = {ours:.6f}, claimed {float(side.idle(n, k)):.6f}")
    rng = np.random.default_rng(8)
    flat, expert = np.full((30, 5), 0.2), rng.integers(0, 5, 30)
    steered = rng.dirichlet(np.ones(5), 30)
    for value in (
        losses.load_balance(flat, expert, alpha=1.0),
        losses.load_balance(steered, np.arange(30) % 5, alpha=1.0),
    ):
        if abs(value - 1) > 1e-12:
            return fails(f"P or f uniform: L/α = {value}")
    lowest = 2.0
    for _ in range(3000):
        first = np.where(rng.random(8) < rng.random(), rng.uniform(0.5, 0.7, 8), rng.uniform(0, 0.5, 8))
        probability = np.stack([first, 1 - first], axis=1)
        lowest = min(lowest, losses.load_balance(probability, probability.argmax(axis=1), alpha=1.0))
    exact = np.array([[0.5, 0.5]] * 3 + [[0.0, 1.0]])
    attained = losses.load_balance(exact, np.array([0, 0, 0, 1]), alpha=1.0)
    text = f"least of 3000 random routers {lowest:.4f}, at x = 3/4 exactly {attained}, claimed {float(side.least):.4f}"
    return holds(text) if lowest >= float(side.least) and attained == float(side.least) else fails(text)


@claim.counterexample("n = 8, three experts without a token")
def n_three_experts_without_token(side: SimpleNamespace) -> Outcome:
    value = losses.load_balance(*idle_router(8, 3), alpha=1.0)
    text = f"L/α = {value:.3f}, the claimed value is {float(side.idle(8, 3)):.3f}; balanced: 1"
    return holds(text) if value >= float(side.idle(8, 3)) - 1e-12 else fails(text)
