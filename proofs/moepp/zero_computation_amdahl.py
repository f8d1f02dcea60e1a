"""A layer whose time is a + (1-a) share of that without zero-computation experts gets at most 1/a times as fast (Amdahl).

The speed-up 1/(a + (1-a)s) is the inverse of the ratio of complexity, 1/s, only at a = 0. It equals 1/(1 - (1-a)(1-s)): what is
saved is the share 1-s of the part 1-a. As s falls it rises to 1/a. MoE++'s table 3 has a = 0.22 to 0.46
(zero_computation_speed), so no τ makes those layers more than 2.2 to 4.5 times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mpmath
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.zero_computation import layer_speedup


def side(speedup: Callable[[Any, Any], Any]) -> SimpleNamespace:
    """`speedup(share, fixed part)`."""
    return SimpleNamespace(speedup=speedup)


claim = Claim(
    title="Fewer FFN experts make a layer at most 1/a times as fast, a its fixed part",
    statement=r"speed-up $=1/(a+(1-a)s)\leq1/a$ at a share $s=\tau F/(\tau F+Z)$ of FFN experts",
    hypotheses=("the time is a fixed part a and one that grows with the choices of FFN experts",),
    source="new; MoE++ table 1: complexity, taken for time (arXiv 2410.07348)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda s, a: 1 / (a + (1 - a) * s)),
    mutant=side(lambda s, a: (1 - a) / s + a),
    mutation="the speed-up of the parts averaged in place of their times",
)


@claim.derivation("what is saved, and the end of the scale")
def saved(one: SimpleNamespace) -> Outcome:
    s, a = sp.symbols("s a", positive=True)
    return every(
        [
            identity(1 - 1 / one.speedup(s, a), (1 - a) * (1 - s), name="the saved part of the time"),
            identity(sp.limit(one.speedup(s, sp.Rational(1, 4)), s, 0, "+"), sp.Integer(4), name="share 0 at a = 1/4"),
        ]
    )


@claim.reference("the package against 50 digits")
def digits(one: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(50):
        for s in ("1e-9", "0.1667", "0.5", "0.999", "1"):
            for a in ("0", "1e-12", "0.22", "0.9", "1"):
                wanted = one.speedup(mpmath.mpf(float(s)), mpmath.mpf(float(a)))
                worst = max(worst, float(abs(mpmath.mpf(float(layer_speedup(float(s), float(a)))) / wanted - 1)))
    text = f"largest relative error {worst:.2g}"
    return holds(text) if worst < 1e-12 else fails(text)
