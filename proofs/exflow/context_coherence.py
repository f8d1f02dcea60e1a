"""Context coherence sends fewer tokens than two all-to-alls just where L(2p - p') > G; without affinity, where L > G/p.

G devices hold N tokens each, L layers send a share p of them to another device. Two all-to-alls a layer send 2 G N L
p tokens. With the context on every device one is left, which sends G N L p', and all devices gather all tokens once,
G N G (a device's own included, as the paper counts). The ratio is (L p' + G)/(2 L p). Half the all-to-alls is not
half the tokens: at 64 devices and 24 layers, random experts (p = 63/64), it is 1.85; if no token ever changed device,
1.35. A token counts the same in both, which holds for hidden states; gathered as token numbers it would be nearly
free.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.affinity_placement import coherence_ratio


def side(ratio: Callable[[Any, Any, Any, Any], Any], least: Callable[[Any, Any], Any]) -> SimpleNamespace:
    """`ratio(L, G, p', p)`; `least(G, p)`: the layers above which it pays without affinity."""
    return SimpleNamespace(ratio=ratio, least=least)


claim = Claim(
    title="Context coherence alone pays just where the layers are more than G/p",
    statement=r"$\frac{GN(Lp'+G)}{2GNLp}=\frac{Lp'+G}{2Lp}<1\iff L(2p-p')>G$; for $p'=p$ just where $L>G/p$",
    hypotheses=(
        r"$G$ devices of $N$ tokens, $L$ layers; a share $p$, with the placement $p'$, of the tokens changes device",
        "a token gathered is as large as a token sent; volumes, not times",
    ),
    source="ExFlow context coherence: one all-to-all (arXiv 2401.08383)",
    kind="equality",
    expected=Verdict.PROVED,
    truth=side(lambda layers, g, placed, p: (layers * placed + g) / (2 * layers * p), lambda g, p: g / p),
    mutant=side(lambda layers, g, placed, p: placed / (2 * p), lambda g, p: 0 * g),
    mutation="one all-to-all of two as half the volume, the gathering left out",
)


@claim.derivation("volumes of both, and their difference at equality")
def volumes(s: SimpleNamespace) -> Outcome:
    g, n, layers, p, q = sp.symbols("G N L p q", positive=True)
    two, one = 2 * g * n * layers * p, g * n * layers * q + g * n * g
    least = s.least(g, p)
    saved = (two - one) / (g * n)
    return every(
        [
            identity(sp.cancel(one / two), s.ratio(layers, g, q, p), name="ratio"),
            identity(sp.expand(saved), layers * (2 * p - q) - g, name="saving"),
            identity(saved.subs({q: p, layers: least}) + g, g, name="at the least layers"),
        ]
    )


@claim.certificate("the sign on every side of G/p, in exact rationals")
def sign(s: SimpleNamespace) -> Outcome:
    for g in (2, 4, 8, 16, 32, 64, 128):
        p = 1 - Fraction(1, g)
        for layers in range(1, 200):
            pays = 2 * g * layers * p > g * (layers * p + g)
            told = layers > s.least(g, p), s.ratio(layers, g, p, p) < 1
            if told != (pays, pays):
                return fails(f"G={g}, L={layers}: pays {pays}, claimed {told}")
    text = [s.ratio(24, 64, placed, Fraction(63, 64)) for placed in (Fraction(63, 64), 0)]
    return holds(f"1,393 sizes; G=64, L=24: {float(text[0]):.3f} at random, {float(text[1]):.3f} without a crossing")


@claim.reference("the package against 50 digits")
def digits(s: SimpleNamespace) -> Outcome:
    worst = 0.0
    with mpmath.workdps(50):
        for layers in (1, 24, 10**6):
            for g in (1, 64, 10**6):
                for placed, p in ((0.0, 1.0), (0.3, 0.875), (1.0, 1e-9)):
                    wanted = s.ratio(mpmath.mpf(layers), g, mpmath.mpf(placed), mpmath.mpf(p))
                    found = float(coherence_ratio(layers, np.array([g]), placed, p)[0])
                    worst = max(worst, float(abs(found - wanted) / found))
    text = f"largest relative error {worst:.2g}"
    return holds(text) if worst < 1e-12 else fails(text)
