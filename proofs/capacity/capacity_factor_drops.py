"""ETR's baseline: a capacity factor of 1.1 prevents drops only where loads are balanced to 10 %.

With N ~ Bin(s, π) candidates and C slots an expert drops the fraction E(N-C)_+/(sπ). As x_+ = (x + |x|)/2, Jensen's inequality
and E|N-C| <= |sπ-C| + E|N-sπ| <= |sπ-C| + sd(N) give, for all s, π, C,
    0 <= E(N-C)_+/(sπ) - max(0, 1 - C/(sπ)) <= ½ sqrt((1-π)/(sπ)).
At s = 32768, n = 8, C = ⌈1.1 s/n⌉ = 4506: at most .0073 for balanced loads (in fact 1.5e-14: prevented), and at least
14.5 % for an expert that attracts 16.1 % of the tokens, 71.9 % for one that attracts 49 %: loads that raw and centred gates
have on a real encoder's hidden states.
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
from resonance_theory.rules import Rates, token_choice


def side(fluid: Callable[..., Any]) -> SimpleNamespace:
    """`fluid(C/(sπ))`: the dropped fraction without fluctuation, where the load is above the capacity."""
    return SimpleNamespace(fluid=fluid)


claim = Claim(
    title="A capacity factor of 1.1 prevents drops only where no expert attracts more than 1.1 shares",
    statement=r"$0\leq\frac{E(N-C)_+}{s\pi}-\max\{0,1-\frac{C}{s\pi}\}\leq\frac{1}{2}\sqrt{\frac{1-\pi}{s\pi}}$; so at "
    r"$C=1.1\frac{s}{n}$ drops vanish for $n\pi\leq 1.1$ and tend to $1-\frac{1.1}{n\pi}$ above",
    hypotheses=(r"$N\sim\mathrm{Bin}(s,\pi)$ candidates of an expert, top-1, any $s\geq 1$, $0<\pi\leq 1$, $C\geq 0$",),
    source="ETR experiments: baseline with capacity factor 1.1 preventing token dropout (arXiv 2406.00023 v4)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side(lambda ratio: 1 - ratio),
    mutant=side(lambda ratio: 1 - sp.Rational(11, 10) * ratio),
    mutation="1.1 C in place of C",
    printed=side(lambda ratio: 0 * ratio),
    correction=r"Printed without a condition on the loads. It needs $n\pi_i\leq 1.1$ for every expert: at "
    r"$s=32768$, $n=8$ an "
    r"expert that attracts 16.1 % of the tokens drops at least 14.5 % of them, one that attracts 49 % drops 71.9 %.",
    lemmas=("Jensen's inequality", "Cauchy-Schwarz: E|N - EN| <= sd(N)"),
)


@claim.derivation("positive parts by absolute values, and the two bounds")
def positive_parts_absolute_values_two(side: SimpleNamespace) -> Outcome:
    s, pi, capacity, up = sp.symbols("s pi C u", positive=True)
    load = s * pi
    deviation = sp.sqrt(load * (1 - pi))
    return every(
        [
            identity(up, (up + sp.Abs(up)) / 2, name="x_+ at x > 0"),
            identity(up, sp.Abs(-up), name="x_+ at x < 0"),
            identity((load - capacity) / load, side.fluid(capacity / load), name="drops without fluctuation"),
            identity(
                (deviation / 2 / load) ** 2,
                (1 - pi) / (4 * load),
                name="sd(N)/(2sπ) squared - (1-π)/(4sπ)",
            ),
        ]
    )


def bracket(side: SimpleNamespace, tokens: int, load: float, capacity: int) -> tuple[float, float, float]:
    """Dropped fraction by the package, and the claimed lower and upper limits."""
    dropped = float(token_choice.failure(tokens, capacity, Rates(experts=8, load=load)))
    low = max(0.0, float(side.fluid(capacity / (tokens * load))))
    return dropped, low, low + 0.5 * float(np.sqrt((1 - load) / (tokens * load)))


@claim.reference("the package's exact drops inside the limits, 600 settings and ETR's")
def package_s_exact_drops_inside(side: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(11)
    settings = [(32768, load, 4506) for load in (0.125, 0.161, 0.49)]
    for _ in range(600):
        tokens = int(10 ** rng.uniform(0.5, 6))
        load = float(10 ** rng.uniform(-2, -0.05))
        settings.append((tokens, load, int(np.clip(round(tokens * load * rng.uniform(0.3, 1.7)), 1, tokens))))
    for tokens, load, capacity in settings:
        dropped, low, high = bracket(side, tokens, load, capacity)
        if not low - 1e-12 <= dropped <= high:
            return fails(f"s={tokens}, π={load:.3f}, C={capacity}: drops {dropped:.6f} outside [{low:.6f}, {high:.6f}]")
    shown = [f"{bracket(side, *setting)[0]:.3g}" for setting in settings[:3]]
    return holds(f"603 settings inside; at s=32768, C=4506 drops {', '.join(shown)} for π = .125, .161, .49")


@claim.counterexample("s = 32768, n = 8, an expert that attracts 49 % of the tokens")
def s_n_expert_attracts_tokens(side: SimpleNamespace) -> Outcome:
    dropped, low, high = bracket(side, 32768, 0.49, 4506)
    text = f"it drops {dropped:.4f}, claimed [{low:.4f}, {high:.4f}]"
    return holds(text) if low <= dropped <= high else fails(text)
