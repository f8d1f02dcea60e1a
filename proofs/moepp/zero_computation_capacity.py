"""MoE++'s printed capacities hold γT choices where K T are made: with K = 2 and γ = 1.1 at least 45 % find no slot.

Eq. 8 gives an FFN expert γτT/(τF+Z) slots and each other expert γT/(τF+Z): γT together. Every token makes K choices. Whatever
the loads, at most γT of KT choices find a slot, so that at least 1 - γ/K are turned away. With the factor K the slots sum to
γKT, and every expert has γ times its balanced load, which is what a capacity factor means. Whether the authors' training code
has that factor is not known: what they released is for inference and has no capacity.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import sympy as sp

from resonance_theory.evidence.claims.certify import identity
from resonance_theory.evidence.claims.claim import Claim, Verdict
from resonance_theory.evidence.outcome import Outcome, every, fails, holds
from resonance_theory.systems.zero_computation import unlike_capacities

GAMMA, TOP = Fraction(11, 10), 2  # the paper's γ and K


def side(slots: Callable[..., tuple[Any, Any]]) -> SimpleNamespace:
    """`slots(γ, τ, F, Z, K, T)`: of an FFN expert, and of each other one."""
    return SimpleNamespace(slots=slots)


claim = Claim(
    title="Capacities of unlike experts need the factor K; as printed at least 1 - γ/K of the choices are turned away",
    statement=r"$C_i=\gamma K\tau T/(\tau F+Z)$ and $\gamma KT/(\tau F+Z)$ are $\gamma$ "
    r"times the balanced loads and sum to $\gamma KT$",
    hypotheses=("every token chooses K experts", "loads are balanced as by the claim zero_computation_share"),
    source="MoE++ eq. 8; MoE++ section 4.1: K = 2 (arXiv 2410.07348)",
    kind="equality",
    expected=Verdict.CORRECTED,
    truth=side(lambda g, tau, f, z, k, t: (g * k * tau * t / (tau * f + z), g * k * t / (tau * f + z))),
    mutant=side(lambda g, tau, f, z, k, t: (g * k * tau * t / (tau * f + z), g * t / (tau * f + z))),
    mutation="the factor K for FFN experts alone",
    printed=side(lambda g, tau, f, z, k, t: (g * tau * t / (tau * f + z), g * t / (tau * f + z))),
    correction="Printed without the factor K: the slots of all experts are γT for KT choices, so that with K = 2 and γ = 1.1 at "
    "least 45 % of the choices find none.",
)
SYMBOLS = sp.symbols("gamma tau F Z K T", positive=True)


@claim.derivation("all slots together")
def together(s: SimpleNamespace) -> Outcome:
    gamma, _, ffn, zero, top, tokens = SYMBOLS
    one, other = s.slots(*SYMBOLS)
    return identity(ffn * one + zero * other, gamma * top * tokens, name="sum of the slots")


@claim.derivation("γ times the balanced load, for either kind")
def balanced(s: SimpleNamespace) -> Outcome:
    gamma, tau, ffn, zero, top, tokens = SYMBOLS
    one, other = s.slots(*SYMBOLS)
    total = ffn + zero / tau
    return every(
        [
            identity(one, gamma * top * tokens / total, name="FFN experts"),
            identity(other, gamma * top * tokens / (tau * total), name="the others"),
        ]
    )


@claim.counterexample("slots for the choices at the paper's own K and γ")
def enough(s: SimpleNamespace) -> Outcome:
    found = []
    for ffn, zero, tau in ((8, 4, "0.75"), (16, 4, "0.75"), (32, 8, "0.75")):
        one, other = s.slots(GAMMA, Fraction(tau), ffn, zero, TOP, Fraction(1))
        found.append(ffn * one + zero * other)
    text = f"slots for {TOP} choices a token: {', '.join(f'{float(v):.2f}' for v in found)}"
    return holds(text) if min(found) >= TOP else fails(text)


@claim.reference("the package's function")
def by_package(s: SimpleNamespace) -> Outcome:
    for tokens, ffn, zero, tau, top in ((4096, 8, 4, "0.75", 2), (1000, 16, 4, "0.1", 2), (257, 32, 8, "0.25", 3)):
        exact = s.slots(GAMMA, Fraction(tau), ffn, zero, top, Fraction(tokens))
        wanted = tuple(min(max(-(-v.numerator // v.denominator), 1), tokens) for v in exact)
        found = unlike_capacities(tokens, ffn, zero, tau=float(tau), top=top)
        if tuple(found) != wanted:
            return fails(f"T={tokens}, F={ffn}, Z={zero}: {tuple(found)}, claimed {wanted}")
    return holds("three settings: the same whole numbers")
