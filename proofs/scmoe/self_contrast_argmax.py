"""Self-contrast changes the most likely token at β = gap / (difference of gains), and only inside a gap of log(1/α).

Token j passes the strong argmax i if (1+β) z_s,j - β z_w,j > (1+β) z_s,i - β z_w,i, that is β (d_j - d_i) > z_s,i -
z_s,j, d = z_s - z_w. The right side is not negative, so d_j > d_i is needed. A token of larger gap than log(1/α) is
masked: at α = .1 of more than 2.303. The published β of .1 to .9 therefore need d_j - d_i above gap/.9.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, fails, holds
from resonance_theory.systems.self_contrast import contrast_logits, switching_strength


def side(needed: Callable[[Any, Any, Any], Any]) -> SimpleNamespace:
    """`needed(gap, d_i, d_j)`: what β must exceed, if d_j - d_i > 0."""
    return SimpleNamespace(needed=needed)


claim = Claim(
    title="Another token wins exactly above a strength of its gap over the difference of gains",
    statement=r"$j$ replaces $i=\arg\max z_s$ iff $\beta>\frac{z_{s,i}-z_{s,j}}{d_j-d_i}$, $d=z_s-z_w$, $d_j>d_i$ and "
    r"$z_{s,i}-z_{s,j}\leq\ln\frac1\alpha$",
    hypotheses=(r"finite logits, $0<\alpha\leq1$; at equality the two tie",),
    source="SCMoE eq. 5: contrasted logits; SCMoE section 3.2: alpha 0.1 and beta (arXiv 2405.14507)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda gap, d_i, d_j: gap / (d_j - d_i)),
    mutant=side(lambda gap, d_i, d_j: gap / d_j),
    mutation="the gain of the strong routing's own token left out",
)


@claim.derivation("where the contrasted logits of two tokens are equal")
def equal(s: SimpleNamespace) -> Outcome:
    a, b, c, d = sp.symbols("a b c d", real=True)  # strong a >= b, weak c, d of i, j
    beta = s.needed(a - b, a - c, b - d)
    sides = (1 + beta) * a - beta * c, (1 + beta) * b - beta * d
    return identity(*sides, name="lead of i at the claimed strength")


def switch(s: SimpleNamespace, strong: list[Fraction], weak: list[Fraction], limit: Fraction) -> Fraction | None:
    """The least strength at which an allowed token passes the first, in exact rationals."""
    i = max(range(len(strong)), key=lambda k: strong[k])
    found = []
    for j in range(len(strong)):
        gap, d_i, d_j = strong[i] - strong[j], strong[i] - weak[i], strong[j] - weak[j]
        if j != i and gap <= limit and d_j > d_i and d_j != 0:
            found.append(s.needed(gap, d_i, d_j))
    return min(found, default=None)


@claim.reference("the package's argmax on both sides of the strength, at exact rationals")
def both_sides(s: SimpleNamespace) -> Outcome:
    rng = np.random.default_rng(2)
    switches = 0
    for _ in range(300):
        strong, weak = rng.permutation(200)[:10] / 64.0, rng.integers(-200, 200, 10) / 64.0
        limit = Fraction(2302585, 10**6)  # no gap of whole 64ths lies between it and log 10
        first_row, second_row = ([Fraction(float(z)) for z in row] for row in (strong, weak))
        wanted = switch(s, first_row, second_row, limit)
        value = float(switching_strength(strong, weak))
        if (wanted is None) != np.isinf(value) or (wanted is not None and abs(value / float(wanted) - 1) > 1e-12):
            return fails(f"the package switches at {value:.6g}, claimed {wanted and float(wanted):.6g}")
        if wanted is None:
            continue
        switches += 1
        first = int(strong.argmax())
        below, above = (int(contrast_logits(strong, weak, float(wanted) * f).argmax()) for f in (1 - 1e-9, 1 + 1e-9))
        if below != first or above == first:
            return fails(f"argmax {first}, {below} below and {above} above {float(wanted):.6g}")
    return holds(f"300 pairs of logits, {switches} with a switch")
