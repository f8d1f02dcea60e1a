"""LocMoE's times: its two ways of stating them agree, and its all-to-all explains at most a small part of them.

A step shorter by r is 1/(1-r) times faster: 12.68 % and 22.24 % are 1.145 and 1.286, printed as 1.15 and 1.29. All-to-all
takes 18.10 % of the time at 128 devices and 28.74 % at 256, and LocMoE shortens it by 5.13 %: by step_time_bound at most
.0513 · 28.74 % = 1.47 % of a step, or 5.13 % if percentage points of the step are meant. Both are below 12.68 %; even
without any all-to-all a step of 128 devices is shorter by at most 18.10 %, less than 22.24 %. The larger part comes from
computation.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import sympy as sp

from proofs import _printed as printed
from resonance_theory import step_time
from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


def side(faster: Callable[..., Fraction]) -> SimpleNamespace:
    """`faster(r)`: the speed-up of a step that is shorter by r."""
    return SimpleNamespace(faster=faster)


claim = Claim(
    title="LocMoE's savings of time and its speed-ups are the same numbers; all-to-all explains at most 1.5 % of a "
    "step",
    statement=r"$\frac{1}{1-r}$ at $r=12.68$ %, $22.24$ % is $1.15$, $1.29$ as printed; an all-to-all of share "
    r"$28.74$ % that is "
    r"shorter by $5.13$ % saves at most $1.48$ % of a step; and without it 128 devices save at most $18.10$ %",
    hypotheses=("nothing but the all-to-all changes, for its part of the saving",),
    source="LocMoE abstract, introduction and figure 7: -12.68 % to -22.24 %, 1.15x to 1.29x, all-to-all 18.10 %, "
    "28.74 %, "
    "-5.13 % (arXiv 2401.13920)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda r: 1 / (1 - r)),
    mutant=side(lambda r: 1 + r),
    mutation="1 + r as the speed-up of a step shorter by r",
)


@claim.derivation("speed-up of a shorter step; the printed pairs agree to their last digit")
def speed_up_shorter_step_printed(side: SimpleNamespace) -> Outcome:
    old, new = sp.symbols("T T1", positive=True)
    outcomes = [identity(old / new, side.faster(1 - new / old), name="T/T' - speed-up")]
    for saved, speedup in zip(printed.LOCMOE_TIME, printed.LOCMOE_SPEEDUP):
        value = side.faster(printed.exact(saved))
        text = f"{saved} saved is {float(value):.4f} times, printed {speedup}"
        outcomes.append(
            holds(text) if abs(value - printed.exact(speedup)) <= printed.rounding(speedup) else fails(text)
        )
    return every(outcomes)


@claim.reference("the part of all-to-all by the package's limit, as a speed-up below the least printed one")
def part_package_s_limit_speed(side: SimpleNamespace) -> Outcome:
    share = printed.exact(printed.ALL_TO_ALL[256])
    cut = printed.exact(printed.ALL_TO_ALL_CUT)
    part = float(step_time.largest_reduction(float(share), float(cut)))
    free = printed.exact(printed.ALL_TO_ALL[128])
    least, most = (printed.exact(saved) for saved in printed.LOCMOE_TIME)
    # the speed-up of a step without its all-to-all, from times: 100 against 100 - 18.10
    without = Fraction(100) / (100 - 100 * free)
    text = (
        f"all-to-all saves at most {100 * part:.2f} %; a step of 128 devices without it is {float(without):.4f} times "
        f"faster, claimed {float(side.faster(free)):.4f}"
    )
    small = part < 0.0148 and cut < least and free < most
    return holds(text) if small and side.faster(free) == without else fails(text)
