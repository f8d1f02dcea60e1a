"""Resonance with adaptive capacity: an expert keeps the fewest best candidates that hold a share of their affinity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _mass, select
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import Rule
from resonance_theory.typing import Array, ArrayLike, Floats

__all__ = ["Adaptive", "AffinityLaw", "Kept", "adaptive"]


class Kept(NamedTuple):
    """What a share of the affinity does at one expert.

    Attributes:
        threshold: affinity down to which candidates are kept in the limit of many tokens; 1 where none are.
        kept: expected fraction of its candidates that the expert keeps.
        success: success rate of the expert's discriminative token.
    """

    threshold: float
    kept: float
    success: float


@dataclass(frozen=True, eq=False)
class AffinityLaw:
    """Affinities of one expert's candidates, in y = artanh(affinity); token models make it, `rt.adaptive` reads it.

    Attributes:
        density: density of a background token's being a candidate at y; its mass is the load.
        tail: mass above an affinity.
        hits: density of the discriminative token's being a candidate at y; its mass is the hit rate.
        hit_tail: its mass above an affinity.
        low, high: ends of the density; far: upper end of `hits`.
        kinks: y at which a density is not smooth.
        load: mass of the density.
    """

    density: Callable[[Floats], Floats]
    tail: Callable[[ArrayLike], Floats]
    hits: Callable[[Floats], Floats]
    hit_tail: Callable[[float], Any]
    low: float
    high: float
    far: float
    kinks: ArrayLike
    load: float

    def at(self, mass: float, tokens: int | None) -> Kept:
        """What the share `mass` keeps of so many tokens; None: in the limit of many."""
        few = _mass.Candidates.of(
            self.density, self.tail, self.low, self.high, tokens=tokens or 10**3, mass=mass, kinks=self.kinks
        )
        cut = _mass.cut(few, mass)
        if tokens is None:
            return Kept(cut, float(self.tail(cut)) / self.load, float(self.hit_tail(cut)))
        chance = _mass.chance(few, mass, tokens - 1)
        kept = _mass.average(self.density, chance, few.edges) / self.load
        return Kept(cut, min(kept, 1.0), min(_mass.average(self.hits, chance, few.edges, beyond=self.far), 1.0))


class Adaptive(Rule):
    """Resonance with adaptive capacity.

    ETR lets "a threshold of the sum of affinity scores" set how many tokens an expert keeps, without value or rule. This is
    our reading: tokens choose Top-l experts as in resonance, and an expert keeps the fewest candidates of highest
    affinity whose affinities sum to at least the share `mass` of its candidates' total. Where that total is not
    positive it keeps none; negative affinities lower the total, so even mass = 1 drops candidates if there are any of them.

    In every verb the share, a number in (0, 1], takes the place of the capacity, and rates need `candidates`, as
    `Rates.planted` and `Evolving.rates` make them. tokens: 1 to 10^5 (error 1e-4 for mass up to 0.9, 1e-3 beyond), or
    `math.inf` for the limit of many tokens (error 1e-10). Claims: adaptive_capacity, adaptive_exact, adaptive_loads.
    """

    name, title = "adaptive", "resonance with adaptive capacity"

    def _found(self, tokens: Any, mass: Any, rates: Rates) -> list[Kept]:
        share = arguments.number("mass", mass, 0.0, 1.0, open_low=True)
        count = None if tokens == math.inf else arguments.whole("tokens", tokens, 1, 10**5)
        laws = rates.candidates
        if laws is None:
            raise ValueError(
                "rates.candidates is not known but must be given: how much affinity a share holds depends on it"
            )
        return [law.at(share, count) for law in (laws if isinstance(laws, tuple) else (laws,))]

    def success(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Probability that the token is processed, averaged over the experts; `capacity` is the share of the affinity."""
        return np.asarray(np.mean([one.success for one in self._found(tokens, capacity, rates)]))[()]

    def failure(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """1 - success, to the same absolute error."""
        return 1.0 - self.success(tokens, capacity, rates)

    def drop_rate(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Share of routed tokens that find no place."""
        laws = rates.candidates if isinstance(rates.candidates, tuple) else (rates.candidates,)
        found = self._found(tokens, capacity, rates)
        load = [law.load for law in laws]
        return np.asarray(1.0 - np.dot(load, [one.kept for one in found]) / sum(load))[()]

    def kept(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Expected tokens that one expert keeps, averaged over the experts."""
        laws = rates.candidates if isinstance(rates.candidates, tuple) else (rates.candidates,)
        found = self._found(tokens, capacity, rates)
        return np.asarray(np.mean([float(np.asarray(tokens)) * law.load * one.kept for law, one in zip(laws, found)]))[
            ()
        ]

    def least_capacity(self, target: ArrayLike, tokens: ArrayLike, rates: Rates) -> Any:
        """Least share of the affinity with success >= target in (0, 1), to 1e-6.

        Raises:
            ValueError: naming the best rate, where all of the affinity does not reach the target.
        """
        from scipy.optimize import brentq

        goal = arguments.number("target", target, 0.0, 1.0, open_low=True, open_high=True)
        best = float(self.success(tokens, 1.0, rates))
        if best < goal:
            raise ValueError(
                f"target = {goal!r} cannot be reached: with all of the affinity the success rate is {best:.6g}"
            )
        low = 1e-6
        if self.success(tokens, low, rates) >= goal:
            return low
        # keeping more of the affinity never loses a token, so the rate rises with the share
        mass = float(brentq(lambda share: float(self.success(tokens, share, rates)) - goal, low, 1.0, xtol=1e-7))
        return mass if self.success(tokens, mass, rates) >= goal else min(mass + 1e-6, 1.0)

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        return affinity

    def route(  # type: ignore[override]
        self, affinity: Array, mass: float, *, top: int = 1, capacity: int | None = None
    ) -> select.Assignment:
        """Run the rule on affinities.

        Args:
            affinity: (tokens, experts) or (samples, tokens, experts), finite floats of any array-API library.
            mass: share of the candidates' affinity to keep, in (0, 1].
            top: experts that each token chooses, 1..experts.
            capacity: most tokens that an expert may keep, 1..tokens; all of them unless given.

        Returns:
            The kept pairs, in the same library; `kept` says how many tokens each expert took. Sums are taken in float64, in
            the order of falling affinity. Ties go to the earlier position.
        """
        share = arguments.number("mass", mass, 0.0, 1.0, open_low=True)
        scores = select.read(affinity, 1 if capacity is None else capacity, top)
        if capacity is None:
            scores = scores._replace(capacity=scores.affinity.shape[1])
        return select.keep_mass(scores, select.top_experts(scores), share)


adaptive = Adaptive()
