"""Token choice (TCR): each token goes to its Top-l experts; an expert keeps its first C candidates in position order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from resonance_theory.rules import _law, _ties
from resonance_theory.rules._beta import Threshold, tail
from resonance_theory.rules._search import near_lost
from resonance_theory.rules.dependence import Independent
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import OneTail, Rule
from resonance_theory.typing import Array, Floats, Whole

__all__ = ["TokenChoice", "token_choice"]


class TokenChoice(Rule):
    """Token choice: experts keep their first C candidates in position order (ETR eq. 5).

    Megatron-Core's drop policy `position` means this rule. With independent tokens, load π and N ~ Bin(s-1, π)

        success = hit x E min(1, C/(N+1)).

    Kinds of bounds: "sharp" (below by the second moment, clipped at 0; above by Jensen, hit min(1, C/(πs))), "poisson"
    (the Poisson bound below, Jensen above) and "published": C hit/(5πs) and 10 C hit/(πs) as ETR Theorem 5 (eq. 11) prints
    them, unclipped; the lower one is false where it exceeds the sharp upper one, always so if C > 5πs.
    Claims: token_choice_exact, token_choice_sharp, token_choice_poisson, token_choice_published.

    >>> import resonance_theory as rt
    >>> print(f"{rt.token_choice.success(128, 20, rt.Rates(experts=8)):.11f}")
    0.98141791864
    >>> print(f"{rt.token_choice.log_failure(10**9, 520_000_000, rt.Rates(experts=2)):.4f}")
    -800239.0369
    """

    name, title, kinds = "token_choice", "token choice", ("sharp", "poisson", "published")

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        return None

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        return rates.counts.position(tokens, capacity, rates.share)

    def _bounds(self, s: Whole, c: Whole, rates: Rates, kind: str) -> tuple[Floats, Floats]:
        at = rates.share
        pi = np.maximum(at.p, np.finfo(np.float64).tiny)
        share = c / (pi * s)
        if kind == "published":
            return share / 5, share * 10
        high = np.minimum(1.0, share)
        if kind == "sharp":
            # (C/π + s - sqrt(v + (C/π - s)²))/(2s), v = C(1-π)/π², multiplied out so that nothing cancels:
            # the numerator's product with its conjugate is 4sC/π - v
            spread = np.sqrt(c * at.q + (c - pi * s) ** 2)
            low = np.maximum((4 * s * c * pi - c * at.q) / (2 * pi * s * (c + pi * s + spread)), 0.0)
        else:
            from scipy.special import gammainc, gammaincc

            # P(Poi(λ) <= C-1) = Q(C, λ), P(Poi(λ) >= C+1) = P(C+1, λ)
            low = gammaincc(c, pi * s) + share * gammainc(c + 1.0, pi * s)
        # the two sides are computed apart, and may cross by a rounding where they meet
        return np.minimum(low, high), high

    def _tail_of(self, rates: Rates) -> OneTail | None:
        plain = rates.weight is None and isinstance(rates.counts, Independent)
        return OneTail(_law.kept_fraction, rates.share, near_lost) if plain else None

    def _tie(self, rates: Rates) -> _ties.Exact | None:
        if rates.weight is not None or not isinstance(rates.counts, Independent):
            return None
        given = rates.load is not None

        def exact(at: tuple[int, ...], s: int, c: int, goal: Fraction) -> bool | None:
            if given:
                load = Fraction(float(_ties.element(rates.load, at)))
                threshold = Threshold.of(float(load))
            else:
                top, experts = int(_ties.element(rates.top, at)), int(_ties.element(rates.experts, at))
                load, threshold = Fraction(top, experts), Threshold.ratio(np.array(top), np.array(experts))
            hit = Fraction(float(_ties.element(rates.hit, at)))
            if load in (0, 1):
                return hit * (Fraction(min(c, s), s) if load else 1) >= goal

            def log_mean() -> tuple[bool, float]:
                found = tail(np.array(s), np.array(c), threshold)
                return bool(found.lower), float(found.log_mean)

            return _ties.share(s, c, load, hit, goal, log_mean)

        return exact


token_choice = TokenChoice()
