"""Expert choice (ECR): each expert takes the C tokens of highest affinity among all s tokens."""

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
from resonance_theory.typing import Array, ArrayLike, Floats, Whole

__all__ = ["ExpertChoice", "expert_choice"]


class ExpertChoice(Rule):
    """Expert choice (Zhou et al. 2022): every expert keeps its C tokens of highest affinity.

    At a fixed, tie-free affinity of the token success is F(q) = P(Bin(s-1, q) <= C-1), q the false-positive rate. With a
    random affinity average F(q), never q. No law for dependent tokens is known.

    Kinds of bounds: "sharp" (Zubkov and Serov), "chernoff" (KL rates, one side of the mean each), both for up to 2^52
    tokens, and "published": 1 - exp(-3C/16) if C >= 2(s-1)q, and exp(-(s-1)q/8) if C <= (s-1)q/2 (ETR Theorem 5, eq. 12).
    Claims: expert_choice_exact, expert_choice_kl, expert_choice_published.

    >>> import resonance_theory as rt
    >>> print(f"{rt.expert_choice.success(256, 12, rt.Rates(false_positive=0.03)):.6f}")
    0.914867
    """

    name, title, kinds = "expert_choice", "expert choice", ("sharp", "chernoff", "published")
    tokens_choose = False

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        if not isinstance(rates.counts, Independent):
            raise ValueError(f"rates.counts = {rates.counts!r} must not be given: expert choice has no law for it")
        return _law.has_place(tokens, capacity, Threshold.of(rates.rate("false_positive")))

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        return affinity

    def kept(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Tokens that one expert keeps: exactly C, always."""
        s, c = _law.sizes(tokens, capacity)
        return np.broadcast_arrays(c, s)[0].astype(np.float64)

    def drop_rate(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Refused: no token is routed before an expert takes it, so none is dropped. Claim: expert_choice_unprocessed."""
        raise ValueError(
            "expert choice has no drop rate: experts choose, so no routed token is dropped (see expert_choice_unprocessed)"
        )

    def _bounds(self, s: Whole, c: Whole, rates: Rates, kind: str) -> tuple[Floats, Floats]:
        q = rates.rate("false_positive")
        if kind == "published":
            mean = (s - 1) * q
            low = np.where(c >= 2 * mean, -np.expm1(-3 * c / 16), 0.0)
            return low, np.where(c <= mean / 2, np.exp(-mean / 8), 1.0)
        return (bounds.zubkov_serov if kind == "sharp" else bounds.chernoff)(s, c, q)

    def _tail_of(self, rates: Rates) -> OneTail | None:
        if rates.weight is not None or not isinstance(rates.counts, Independent):
            return None
        return OneTail(_law.has_place, Threshold.of(rates.rate("false_positive")), near_quantile)

    def _tie(self, rates: Rates) -> _ties.Exact | None:
        if rates.weight is not None:
            return None

        def exact(at: tuple[int, ...], s: int, c: int, goal: Fraction) -> bool | None:
            return _ties.place(s, c, Fraction(float(_ties.element(rates.false_positive, at))), Fraction(1), goal)

        return exact


expert_choice = ExpertChoice()
