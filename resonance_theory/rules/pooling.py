"""Pooled slots: B samples share their slots, B C for each expert, with one discriminative token in each sample.

Token choice takes the first B C candidates in position order over the whole batch: pooling never hurts, and in the limit
hit x min(1, C/(πs)) remains. Resonance takes the B C best, so a discriminative token of affinity a meets Bin(B(s-1), h(a))
irrelevant rivals and Bin(B-1, κ(a)) discriminative ones of the other samples:

    success = E[hit P(Bin(B(s-1), h) + Bin(B-1, κ) <= BC - 1)].

Pooling in the end helps at affinities with (s-1) h + κ < C and in the end hurts where (s-1) h + κ > C; on the way it need not
be monotone. Claims: batch_token_choice, batch_resonance, batch_unequal_loads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law, select
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules._sums import log_binomial, log_concave_sum
from resonance_theory.rules.dependence import Independent
from resonance_theory.rules.rates import Rates
from resonance_theory.rules.rule import Rule
from resonance_theory.typing import Array, ArrayLike, Floats, Whole

__all__ = ["Pooled"]

_MOST = 1 << 10  # samples, where the other samples' own tokens have a load of their own: pairs of samples are summed


class Pooled(Rule):
    """Token choice or resonance over samples that pool their slots; capacity stays slots per expert and sample.

    `rates.rival` is the chance that another sample's discriminative token chooses the expert and goes ahead: κ on the nodes
    for resonance, which needs it; for token choice its load, π unless given (experts of unequal loads need it, for at
    most 1024 samples). Accurate to 1e-12 relative; with a rival load to samples x 1e-13.

    Args:
        rule: `rt.token_choice` or `rt.resonance`.
        samples: number of samples B, 1..2^26; broadcasts with tokens and capacity, which are then at most 2^26 too.

    >>> import resonance_theory as rt
    >>> pooled = rt.Pooled(rt.token_choice, samples=[1, 4, 16])
    >>> print(pooled.success(128, 16, rt.Rates(experts=8)).round(6))
    [0.907199 0.953415 0.976684]
    """

    def __init__(self, rule: Rule, samples: ArrayLike) -> None:
        if getattr(rule, "name", None) not in ("token_choice", "resonance"):
            raise ValueError(f"rule = {rule!r} must be token_choice or resonance: no other rule's pooled law is known")
        self.rule = rule
        self.samples = arguments.integer("samples", samples, 1, 2**26)
        self.name, self.title = f"pooled_{rule.name}", f"pooled {rule.title}"

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        return self.rule.priority(affinity, rng)

    def _sizes(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> tuple[Whole, Whole]:
        s, c = super()._sizes(tokens, capacity, rates)
        samples = rates.expand(self.samples).shape
        arguments.same_shapes(samples=samples, tokens=s.shape, capacity=c.shape, **rates.shapes())
        return s, c

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        if not isinstance(rates.counts, Independent):
            raise ValueError(f"rates.counts = {rates.counts!r} must not be given: pooled slots have no law for it")
        b = rates.expand(self.samples)
        s, c = (arguments.integer(name, v, 1, 2**26) for name, v in (("tokens", tokens), ("capacity", capacity)))
        if self.rule.name == "resonance":
            return _ranked(b, s, c, rates.tail, rates.rate("rival"))
        if rates.rival is None:
            return _law.kept_fraction(b * s, b * c, rates.share)
        return _position(arguments.integer("samples", b, 1, _MOST), s, c, np.asarray(rates.rival), rates.share)

    def _shares(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> tuple[Whole, _law.Logs, Floats]:
        s, c = self._sizes(tokens, capacity, rates)
        b, at = rates.expand(self.samples), rates.share
        return s, rates.counts.shares(b * s, b * c, at), at.p

    def route(self, affinity: Array, capacity: int, *, top: int = 1, rng: Any = None) -> select.Assignment:
        """Run the rule on the tokens of a batch as one sample: affinity (samples, tokens, experts), slots samples x capacity."""
        scores = select.read(affinity, capacity, top)
        if not scores.batched:
            raise ValueError(f"affinity has shape {tuple(affinity.shape)} but must be (samples, tokens, experts)")
        samples, tokens, experts = affinity.shape
        flat = affinity.reshape((samples * tokens, experts))
        return self.rule.route(flat, samples * scores.capacity, top=top, rng=rng)


def _position(samples: Whole, tokens: Whole, capacity: Whole, rival: Floats, at: Threshold) -> _law.Logs:
    """A place in position order over the batch, where the other samples' own tokens have the load r."""
    shape = np.broadcast_shapes(samples.shape, tokens.shape, capacity.shape, rival.shape, at.p.shape)
    b, s, c = (np.broadcast_to(value, shape).ravel() for value in (samples, tokens, capacity))
    r, *parts = (np.broadcast_to(value, shape).ravel() for value in (rival, *at))
    place = np.empty((2, b.size))
    group = np.cumsum(b * (b + 1) // 2) // (_MOST * _MOST)
    for g in np.unique(group):
        i = np.flatnonzero(group == g)
        place[:, i] = _ahead(b[i], s[i], c[i], r[i], Threshold(*(part[i] for part in parts)))
    return _law.Logs(*place.reshape(2, *shape))


def _ahead(b: Whole, s: Whole, c: Whole, r: Floats, at: Threshold) -> Floats:
    """log P(place), log P(no place): averages over the m earlier samples and the j of their own tokens that are rivals.

    Given both, Bin(m(s-1) + k, π) irrelevant candidates are ahead, k uniform below s: with K the kept fraction at
    BC - j slots, sample by sample (M + s) K(M + s) - M K(M), M = m(s-1), is s P(place).
    """
    pairs = b * (b + 1) // 2
    begin = np.cumsum(pairs) - pairs
    i = np.repeat(np.arange(b.size), pairs)
    t = np.arange(i.size) - begin[i]
    m = ((np.sqrt(8.0 * t + 1) - 1) / 2).astype(np.int64)
    j = t - m * (m + 1) // 2
    chance = np.exp(log_binomial(m, j, Threshold.of(r[i]))) / b[i]
    before, slots = m * (s[i] - 1), b[i] * c[i] - j
    found = []
    with_it, without = (
        _law.kept_fraction(np.maximum(count, 1), slots, Threshold(*(part[i] for part in at)))
        for count in (before + s[i], before)
    )
    for more, fewer in zip(with_it, without):
        share = before / s[i]
        value = np.maximum((1 + share) * np.exp(more) - share * np.exp(fewer), 0.0)
        with np.errstate(divide="ignore"):
            found.append(np.log(np.minimum(np.add.reduceat(chance * value, begin), 1.0)))
    return np.stack(found)


def _ranked(b: Whole, s: Whole, c: Whole, h: Floats, kappa: Floats) -> _law.Logs:
    """A place among the b C best of the batch."""
    arrays = np.broadcast_arrays(b, s, c, h, kappa)
    shape = arrays[0].shape
    b, s, c, h, kappa = (value.ravel() for value in arrays)
    slots, others = b * c, b * (s - 1)
    few, many = Threshold.of(kappa), Threshold.of(h)

    def part(which: int) -> Floats:
        def term(i: Whole, j: Whole) -> Floats:
            """log P(j rivals among the other samples' own tokens) P(a place beside them), or its complement."""
            left = np.clip(slots[i] - j, 1, others[i] + 1)
            place = _law.has_place(others[i] + 1, left, Threshold(*(v[i] for v in many)))
            full = slots[i] <= j
            value = np.where(full, 0.0 if which else -np.inf, place[which])
            return log_binomial(b[i] - 1, j, Threshold(*(v[i] for v in few))) + value

        # the j of positive probability: a certain κ or h fixes the counts
        low = np.where(kappa >= 1, b - 1, 0)
        high = np.where(kappa <= 0, 0, b - 1)
        most = np.where(h <= 0, 0, others)  # rivals among the irrelevant tokens, at most; and at least
        least = np.where(h >= 1, others, 0)
        if which:
            low = np.maximum(low, slots - most)
        else:
            high = np.minimum(high, slots - 1 - least)
        return log_concave_sum(term, low, high)

    return _law.Logs(*(np.minimum(part(which), 0.0).reshape(shape) for which in (0, 1)))
