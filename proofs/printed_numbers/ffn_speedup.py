"""ETR's text of figure 7: an FFN MatMul 17 times faster cannot come from 40 % fewer tokens per expert.

If the time t(C) of the expert network has t(C)/C non-increasing (fixed cost plus a price per slot), then t(C_0)/t(C_1) <=
C_0/C_1. A cut by 40 % allows 5/3, by 60 % 5/2. A factor of 17 needs a cut by 16/17 = 94.1 %, and 2.6 against LocMoE needs
61.5 % fewer tokens than LocMoE's. If all matrix products together became 2.8 times faster only through these, they were at
least (1 - 1/2.8)/(1 - 1/17) = 68.3 % of that time. A further reason may lie in the operator itself (other tile shapes,
other kernels); then 17 is not a consequence of the routing.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from proofs import _printed as printed
from resonance_theory import step_time
from resonance_theory.evidence.claims.certify import nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds


def side(speedup: Callable[..., Any]) -> SimpleNamespace:
    """`speedup(cut)`: the greatest speed-up of the expert network when a fraction `cut` of its slots goes."""
    return SimpleNamespace(speedup=speedup)


claim = Claim(
    title="Fewer tokens make an expert network at most C0/C1 times faster: 17 times needs 94 % fewer, not 40 %",
    statement=r"$\frac{t(C_0)}{t(C_1)}\leq\frac{C_0}{C_1}=\frac{1}{1-x}$: at most $\frac{5}{3}$ for $x=40$ %, "
    r"$\frac{5}{2}$ for 60 %; 17 needs $x\geq\frac{16}{17}$, 2.6 against LocMoE needs $C_1\leq .385\,C_{LocMoE}$, "
    r"and 2.8 over all matrix products needs "
    r"the expert networks to be at least 68.3 % of them",
    hypotheses=(
        r"$t(C)/C$ does not rise with $C$ (a fixed cost plus a price per slot)",
        r"the same kernels before and after",
    ),
    source="ETR figure 7 and its text: FFN MatMul 17x and 2.6x, MatMul 2.8x (arXiv 2406.00023 v4); "
    "ETR abstract: 40 % (v2 to v4), 60 % (v1)",
    kind="bound",
    expected=Verdict.CORRECTED,
    truth=side(lambda cut: 1 / (1 - cut)),
    mutant=side(lambda cut: (1 - cut / 20) / (1 - cut)),
    mutation="a limit lower by up to a twentieth, (1 - x/20)/(1-x)",
    printed=side(lambda cut: Fraction(17)),
    correction=r"Printed side by side: 40 % fewer tokens per expert and an FFN MatMul 17 times faster. With 40 % fewer "
    r"tokens the same kernels are at most $\frac{5}{3}$ times faster, and 17 needs at least 94.1 % fewer: the two "
    r"numbers do "
    r"not describe one cut.",
)


@claim.certificate("fixed cost plus price per slot: no negative coefficient")
def fixed_cost_plus_price_per(side: SimpleNamespace) -> Outcome:
    fixed, price, low, less = sp.symbols("a b C1 delta", nonnegative=True)
    high = low + less
    slack = side.speedup(less / high) * (fixed + price * low) - (fixed + price * high)
    return nonnegative_polynomial(
        sp.cancel(sp.together(slack * low * high)), dict.fromkeys((fixed, price, low, less), 0), name="slack"
    )


@claim.certificate("cuts that the printed speed-ups need, in exact rationals")
def cuts_printed_speed_ups_need(side: SimpleNamespace) -> Outcome:
    x = sp.symbols("x")

    def least_cut(speedup: str) -> Fraction:
        root = sp.solve(sp.Eq(side.speedup(x), sp.Rational(speedup)), x)[0]
        return Fraction(int(root.p), int(root.q))

    ffn, against_locmoe = least_cut(printed.FFN_SPEEDUP), least_cut(printed.FFN_SPEEDUP_LOCMOE)
    share = (1 - 1 / printed.exact(printed.MATMUL_SPEEDUP)) / (1 - 1 / printed.exact(printed.FFN_SPEEDUP))
    text = (
        f"17 needs a cut by {float(ffn):.4f}, 2.6 leaves {float(1 - against_locmoe):.4f} of LocMoE's tokens, "
        f"a 40 % cut allows {float(side.speedup(Fraction(2, 5))):.4f}, 2.8 overall needs a share of {float(share):.4f}"
    )
    right = (
        ffn == Fraction(16, 17) and against_locmoe == Fraction(8, 13) and side.speedup(Fraction(2, 5)) == Fraction(5, 3)
    )
    return holds(text) if right and round(float(share), 3) == 0.683 else fails(text)


@claim.reference("the expert networks of the α-β model reach the limit")
def expert_networks_model_reach_limit(side: SimpleNamespace) -> Outcome:
    factors = np.array([1.1, 0.66, 0.44, 0.11])
    time = step_time.step_time(factors, step_time.SHAPES[32])
    capacity = np.ceil(factors * 32768 / 8)
    ours = time.expert[0] / time.expert
    limit = side.speedup(1 - capacity / capacity[0])
    text = f"speed-ups {ours.round(4).tolist()}, limits {np.round(limit, 4).tolist()}"
    return holds(text) if np.allclose(ours, limit, rtol=1e-12) else fails(text)


@claim.counterexample("expert networks proportional to their tokens, 40 % fewer")
def expert_networks_proportional_their_tokens(side: SimpleNamespace) -> Outcome:
    reached, claimed = Fraction(100, 60), side.speedup(printed.exact(printed.CUT))
    text = f"100 tokens against 60 at the same price: {float(reached):.3f} times faster, claimed {float(claimed):.3f}"
    return holds(text) if claimed == reached else fails(text)
