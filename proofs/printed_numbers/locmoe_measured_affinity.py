"""LocMoE Theorem 1 at LocMoE's own measured affinity: with δ = .03 and 16 experts the bound is below one token unless d >= 6159.

(1/n) exp(dδ²/(2-δ²)) exceeds 1 exactly if d > (2-δ²) ln n/δ² = 6158.4 at δ = .03, n = 16. An expert that is used at all
keeps one token, so below that dimension the theorem says nothing about the capacity. (LocMoE prints no dimension.)
"""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import flint
import sympy as sp

from resonance_theory.evidence.claims.certify import exact, identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds


def side(numerator: int) -> SimpleNamespace:
    """The bound binds from the dimension (`numerator` - δ²) ln n/δ² on."""
    return SimpleNamespace(numerator=numerator)


claim = Claim(
    title="LocMoE's bound at its measured affinity .03 is below one token up to dimension 6158",
    statement=r"$\frac{1}{n}\exp\frac{d\delta^2}{2-\delta^2}>1$ iff $d>\frac{2-\delta^2}{\delta^2}\ln n$; for "
    r"$\delta=.03$, $n=16$ iff "
    r"$d\geq 6159$",
    hypotheses=(r"$0<\delta\leq 1$, $n\geq 2$",),
    source="LocMoE Theorem 1, eq. 9, with the measured affinity of section 4.1 (arXiv 2401.13920); ETR Remark 7",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(2),
    mutant=side(1),
    mutation="1 - δ² in place of 2 - δ²",
)


@claim.derivation("the dimension at which the bound is 1")
def dimension_bound(side: SimpleNamespace) -> Outcome:
    square, n, d = sp.symbols("x n d", positive=True)
    dim = (side.numerator - square) / square * sp.log(n)
    return every(
        [
            identity(sp.exp(sp.cancel(dim * square / (2 - square))) / n, 1, name="bound - 1 there"),
            # linear in d with a positive slope, so the crossing is the only one
            identity(sp.diff(d * square / (2 - square), d), square / (2 - square), name="slope in d"),
        ]
    )


@claim.certificate("δ = .03, n = 16: ball arithmetic on both sides of the crossing")
def n_ball_arithmetic_sides_crossing(side: SimpleNamespace) -> Outcome:
    square = Fraction(3, 100) ** 2
    first = math.floor((side.numerator - float(square)) / float(square) * math.log(16)) + 1

    def bound(dim: int) -> flint.arb:
        return (flint.arb(exact(dim * square / (2 - square)))).exp() / 16

    text = (
        f"first dimension {first}: bound {float(bound(first).mid()):.6f}, before it {float(bound(first - 1).mid()):.6f}"
    )
    return holds(text) if bound(first) > 1 and bound(first - 1) < 1 and first == 6159 else fails(text)
