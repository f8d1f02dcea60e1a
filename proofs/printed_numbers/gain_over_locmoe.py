"""ETR's savings against the baseline and against LocMoE: most of the largest one is LocMoE's.

If a step takes T_0 in the baseline, T_1 with LocMoE and T_2 with ETR, then T_2/T_0 = (T_2/T_1)(T_1/T_0): savings do not
subtract, their complements multiply. LocMoE's own saving is 1 - (1-r)/(1-b), with r against the baseline and b against
LocMoE, rising in r and falling in b. In the setting where ETR saves 46.6 % it saves at most 13.3 % against LocMoE, so
LocMoE alone saves at least 1 - .534/.867 = 38.4 % there; where it saves 5.4 %, at least 2.9 % against LocMoE leaves LocMoE
at most 2.6 %. Memory: at least 6.4 % and at most 1.8 %. FFN MatMul 17 and 2.6 times faster make LocMoE's 6.5 times faster
than the baseline's.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import sympy as sp

from proofs import _printed as printed
from resonance_theory.evidence.claims.certify import identity, nonnegative_polynomial
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


def side(rest: Callable[..., Any]) -> SimpleNamespace:
    """`rest(total, part)`: LocMoE's saving, from ETR's against the baseline and against LocMoE."""
    return SimpleNamespace(rest=rest)


claim = Claim(
    title="At least 38.4 of the 46.6 % of time that ETR saves are LocMoE's",
    statement=r"$1-\frac{T_1}{T_0}=1-\frac{1-r}{1-b}$ with $r=1-\frac{T_2}{T_0}$, $b=1-\frac{T_2}{T_1}$: LocMoE "
    r"saves at least 38.4 % "
    r"where ETR saves 46.6 %, at most 2.6 % where it saves 5.4 %; memory at least 6.4 % and at most 1.8 %",
    hypotheses=(r"the three are compared in the same setting; $b$ lies in its printed range there",),
    source="ETR introduction and figure 4: time -2.9 % to -13.3 % against LocMoE; ETR figure 8: memory -2.86 % to "
    "-10.5 % against "
    "LocMoE (arXiv 2406.00023 v4)",
    kind="bound",
    expected=Verdict.PROVED,
    truth=side(lambda total, part: 1 - (1 - total) / (1 - part)),
    mutant=side(lambda total, part: total - part),
    mutation="savings subtracted",
)


@claim.derivation("complements multiply; LocMoE's saving rises with r and falls with b")
def complements_multiply_locmoe_s_saving(side: SimpleNamespace) -> Outcome:
    before, between, after, more, gap = sp.symbols("T0 T1 T2 x y", positive=True)
    total, part = sp.symbols("r b")
    rest = side.rest(total, part)
    # 1-r = x and 1-b = x + y with x, y > 0: both savings below 1, r >= b
    inside = {total: 1 - more, part: 1 - more - gap}
    slopes = [sp.cancel(s.subs(inside)) for s in (sp.diff(rest, total), -sp.diff(rest, part))]
    return every(
        [
            identity(1 - between / before, side.rest(1 - after / before, 1 - after / between), name="1 - T1/T0"),
            *(nonnegative_polynomial(sp.fraction(s)[0], {more: 0, gap: 0}, name="slope, numerator") for s in slopes),
        ]
    )


@claim.certificate("the printed ranges, in exact rationals")
def printed_ranges_exact_rationals(side: SimpleNamespace) -> Outcome:
    words = []
    for against, locmoe, stated in (
        (printed.TIME[1], printed.TIME_LOCMOE[1], "0.384"),
        (printed.TIME[0], printed.TIME_LOCMOE[0], "0.026"),
        (printed.MEMORY[1], printed.MEMORY_LOCMOE[1], "0.064"),
        (printed.MEMORY[0], printed.MEMORY_LOCMOE[0], "0.018"),
    ):
        value = side.rest(printed.exact(against), printed.exact(locmoe))
        words.append(f"{against} and {locmoe}: {float(value):.4f}")
        if abs(value - printed.exact(stated)) > printed.rounding(stated):
            return fails(f"{words[-1]}, stated {stated}")
    ratio = Fraction(printed.FFN_SPEEDUP) / Fraction(printed.FFN_SPEEDUP_LOCMOE)
    return holds("; ".join(words) + f"; FFN of LocMoE {float(ratio):.2f} times faster than the baseline's")
