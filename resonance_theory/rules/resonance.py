"""Resonance (RES = TCR + ECR): tokens choose their Top-l experts, an expert keeps its C candidates of highest affinity."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from resonance_theory.rules import _law, _ties, bounds
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules._search import near_quantile
from resonance_theory.rules.dependence import Independent
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import OneTail, Rule
from resonance_theory.typing import Array, Floats, Whole

__all__ = ["Resonance", "resonance"]


class Resonance(Rule):
    """Resonance: experts keep their C candidates of highest affinity (ETR eq. 5-6; eq. 6 prints "Bottom-C").

    For top-1 this is what Megatron-Core's drop policy `probs` and V-MoE's batch prioritized routing do. Given the token's
    affinity a, the number of better candidates among the s-1 others is Bin(s-1, h(a)), h the candidate tail, so

        success = E[hit F(h)],  F(h) = P(Bin(s-1, h) <= C-1).

    Hit and affinity are dependent and F is not linear: averages of p, q or h give wrong answers, which is why rates carry
    nodes. Kinds of bounds: "sharp" (Zubkov and Serov) and "chernoff" (KL rates), for up to 2^52 tokens; none is published.
    Claims: resonance_exact, resonance_beats_token_choice, capacity_law_resonance.

    >>> import resonance_theory as rt
    >>> rates = rt.Rates.planted(signal=2.5, dim=64, experts=8)
    >>> print(f"{rt.resonance.success(256, 12, rates):.10f}")
    0.7581593754
    """

    name, title, kinds = "resonance", "resonance", ("sharp", "chernoff")

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        return affinity

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        if isinstance(rates.counts, Independent):
            return _law.has_place(tokens, capacity, Threshold.of(rates.tail))
        return rates.counts.ranked(tokens, capacity, rates.share, rates.rank)

    def _bounds(self, s: Whole, c: Whole, rates: Rates, kind: str) -> tuple[Floats, Floats]:
        return (bounds.zubkov_serov if kind == "sharp" else bounds.chernoff)(s, c, rates.tail)

    def _tail_of(self, rates: Rates) -> OneTail | None:
        plain = rates.weight is None and isinstance(rates.counts, Independent)
        return OneTail(_law.has_place, Threshold.of(rates.tail), near_quantile) if plain else None

    def _tie(self, rates: Rates) -> _ties.Exact | None:
        if rates.weight is not None or not isinstance(rates.counts, Independent):
            return None

        def exact(at: tuple[int, ...], s: int, c: int, goal: Fraction) -> bool | None:
            tail, hit = (Fraction(float(_ties.element(field, at))) for field in (rates.tail, np.asarray(rates.hit)))
            return _ties.place(s, c, tail, hit, goal)

        return exact


resonance = Resonance()
