"""Rates: what a routing rule's success depends on, as one frozen value.

Token models make rates (`Rates.planted`, `rt.tokens.Evolving.rates`, an audit, a router's measurements, or plain numbers);
rules read them and know no token model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.dependence import INDEPENDENT, Counts
from resonance_theory.typing import ArrayLike, Floats

__all__ = ["Rates"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rates:
    """Rates of one token, the discriminative one, and of the tokens that compete with it for an expert's slots.

    All fields broadcast like NumPy arguments. With `weight`, the last axis of `hit`, `load`, `false_positive`,
    `candidate_tail`, `percentile` and `rival` runs over the nodes of a distribution (of the token's affinity, of its expert,
    or of both), and every rule averages over it; tokens, capacity, experts and top broadcast with the other axes.
    Floats are taken as exact doubles, the load top / experts as an exact quotient.

    Attributes:
        experts: number of experts n >= 1.
        top: experts that each token chooses, 1..n.
        load: probability in [0, 1] that another token chooses the expert; top / experts unless given.
        hit: probability that the token chooses its expert; 1 unless given.
        false_positive: probability that another token has a higher affinity to the expert.
        candidate_tail: probability that another token chooses the expert and has a higher affinity, at most the load.
        percentile: candidate_tail / load, in place of candidate_tail: the share of the candidates that score higher.
        rival: the candidate tail of another sample's discriminative token, for samples that pool their slots.
        weight: probabilities of the nodes, summing to 1.
        affinity: the nodes' affinities, for information.
        counts: how candidates depend on each other: independent, `Documents`, `Blocks` or `BetaBinomial`.
        candidates: distribution of the candidates' affinities (`AffinityLaw`), which adaptive capacity needs.

    Raises:
        ValueError, TypeError: one sentence that names the field, its value and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> rates = rt.Rates(experts=8, percentile=0.4)
        >>> print(rt.resonance.least_capacity(0.95, 4096, rates), rt.token_choice.least_capacity(0.95, 4096, rates))
        229 488
    """

    # arrays or None once made; anything array-like goes in
    experts: Any = None
    top: Any = 1
    load: Any = None
    hit: Any = 1.0
    false_positive: Any = None
    candidate_tail: Any = None
    percentile: Any = None
    rival: Any = None
    weight: Any = None
    affinity: Any = None
    counts: Counts = INDEPENDENT
    candidates: Any = None

    # filled in by the token models, so that rules know none of them
    planted: ClassVar[Callable[..., Rates]]

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if self.experts is not None:
            put("experts", arguments.integer("experts", self.experts, 1, 2**52))
            put("top", arguments.integer("top", self.top, 1, self.experts, "experts"))
        else:
            put("top", arguments.integer("top", self.top, 1, 2**52))
        for name in ("load", "hit", "false_positive", "candidate_tail", "percentile", "rival"):
            if name == "hit" or getattr(self, name) is not None:
                put(name, arguments.probability(name, getattr(self, name)))
        if self.weight is not None:
            put("weight", arguments.distribution("weight", self.weight))
        if self.candidate_tail is not None and self.percentile is not None:
            raise ValueError("candidate_tail and percentile say the same thing: give one of them")
        if not isinstance(self.counts, Counts):
            raise TypeError(
                f"counts is a {type(self.counts).__name__} but must be Blocks, BetaBinomial, Documents or INDEPENDENT"
            )
        arguments.same_shapes(**self.shapes())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the fields as they broadcast with tokens and capacity, an axis of nodes last where there is `weight`."""
        fields = ("load", "hit", "false_positive", "candidate_tail", "percentile", "rival", "weight")
        shapes = {name: np.shape(value) for name in fields if (value := getattr(self, name)) is not None}
        for name in ("experts", "top"):
            if getattr(self, name) is not None:
                shapes[name] = np.shape(self.expand(getattr(self, name)))
        shapes.update(self.counts.shapes())
        return shapes

    def rate(self, name: str) -> Floats:
        """A rate by its name; one sentence where it is not known."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"rates.{name} is not known but must be given: this rule's success depends on it")
        return np.asarray(value)

    def expand(self, value: ArrayLike) -> Any:
        """Give an argument an axis of length 1 for the nodes, where there are any."""
        return np.asarray(value) if self.weight is None else np.asarray(value)[..., None]

    def average(self, logs: _law.Logs) -> _law.Logs:
        """Average over the nodes, where there are any."""
        return _law.average(logs, None if self.weight is None else np.asarray(self.weight))

    def mean(self, value: ArrayLike) -> Any:
        """Average of a function on the nodes, where there are any."""
        return np.asarray(value) if self.weight is None else np.sum(self.weight * np.asarray(value), axis=-1)

    @property
    def share(self) -> Threshold:
        """The load π as an exact quotient top / experts or an exact double, on the nodes where there are any."""
        if self.load is not None:
            return Threshold.of(self.load)
        if self.experts is None:
            raise ValueError("rates.experts or rates.load must be given: this rule's success depends on the load")
        at = Threshold.ratio(np.asarray(self.top), np.asarray(self.experts))
        return Threshold(*(self.expand(part) for part in at))

    @property
    def tail(self) -> Floats:
        """candidate_tail, from the percentile where that is given."""
        if self.percentile is not None:
            return np.asarray(self.percentile) * self.share.p
        return self.rate("candidate_tail")

    @property
    def rank(self) -> Floats:
        """The percentile, from candidate_tail where that is given; at most 1."""
        if self.percentile is not None:
            return np.asarray(self.percentile)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.minimum(np.nan_to_num(self.rate("candidate_tail") / self.share.p, nan=1.0), 1.0)

    @property
    def hit_rate(self) -> Floats:
        """Average probability that the token chooses its expert."""
        return np.asarray(self.mean(self.hit))

    def replace(self, **changes: Any) -> Rates:
        """The same rates with some fields changed.

        >>> import resonance_theory as rt
        >>> rates = rt.Rates(experts=8).replace(counts=rt.BetaBinomial(0.03))
        >>> print(f"{rt.token_choice.success(256, 40, rates):.4f}")
        0.9400
        """
        return dataclasses.replace(self, **changes)
