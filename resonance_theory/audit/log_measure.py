"""Measuring one log, layer by layer: drops, capacities, the cause, and what would help."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resonance_theory.audit.load_laws import BlockLoads, FittedLoads
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.audit.log_result import LawError, LoadDrop, LogLayer, Remedy
from resonance_theory.loads import replicate
from resonance_theory.logs.guarantee import guarantee

__all__ = ["FACTOR", "Question", "layers"]

FACTOR = 1.25  # the capacity factor of the conclusion, or the audited one nearest to it
SPLITS = 4
_SMALL = 0.002  # an error of a law, in shares of the choices, below which nothing needs a cause
_REPLICAS = 8  # one spare slot of an expert for every eight experts, as DeepSeek's load balancer has 32 for 256
_CELLS = 3 * 10**8  # tokens times experts over which laws are summed for the held-out errors

LAW_OF = {
    "shuffle": "measured shares, independent",
    "balance": "uniform shares, dependent",
    "replicas": "measured shares, dependent",
}


@dataclass(frozen=True)
class Question:
    """What is asked of every layer."""

    factors: tuple[float, ...]
    loss: float
    confidence: float

    @property
    def factor(self) -> float:
        """The factor of the conclusion."""
        return min(self.factors, key=lambda f: abs(f - FACTOR))


def layers(blocks: LogBlocks, which: Sequence[int], question: Question) -> tuple[LogLayer, ...]:
    """Every layer asked for."""
    shuffled = blocks.shuffled()
    cost = len(which) * blocks.block * blocks.load.shape[2] * 4
    splits = int(np.clip(_CELLS // cost, 1, SPLITS)) if len(blocks.load) >= 4 else 0
    tallies: dict[int, _Tally] = {at: _Tally() for at in which}
    for one, other in blocks.halves(splits):
        mixed = {id(half): half.shuffled() for half in (one, other)}
        for fitted, judged in ((one, other), (other, one)):
            for at in which:
                half = mixed[id(judged)]
                tallies[at].add(fitted.layer(at), judged.layer(at), None if half is None else half.layer(at), question)
    return tuple(_layer(blocks, shuffled, at, question, tallies[at]) for at in which)


def copies(share: NDArray[np.float64], spare: int) -> NDArray[np.int64]:
    """Copies of each expert, (experts,), with that many more than experts."""
    return replicate(share / share.sum(), share.size + spare).slots


def _spare(loads: BlockLoads) -> int:
    return max(1, loads.experts // _REPLICAS)


def _thinner(loads: BlockLoads, capacity: int) -> int:
    """Slots of a copy, so that experts with spare copies have no more slots together than without."""
    return max(1, capacity * loads.experts // (loads.experts + _spare(loads)))


def _balanced(loads: BlockLoads, share: NDArray[np.float64], capacity: int) -> float:
    """The drop with the loads scaled to equal shares, by shares that may come from other blocks.

    An expert that the shares never saw keeps its load.
    """
    even = loads.top / loads.experts
    scaled = loads.load * np.divide(even, share, out=np.ones_like(share), where=share > 0)
    return float(np.maximum(scaled - loads.slots(capacity)[:, None], 0).sum() / max(scaled.sum(), 1e-300))


class _Tally:
    """Expected and measured drops of the laws and remedies on halves that they were not fitted to."""

    def __init__(self) -> None:
        self.pairs: dict[str, list[tuple[float, float]]] = {}
        self.asked: dict[str, list[tuple[int, float]]] = {}

    def add(self, fitted: BlockLoads, judged: BlockLoads, mixed: BlockLoads | None, question: Question) -> None:
        law = FittedLoads.to(fitted)
        new = law.for_new(judged.largest)
        for factor in question.factors:
            c = judged.capacity(factor)
            for name in law.laws:
                self._pair(name, new.drop(name, c, judged.tokens), judged.drop(c))
            if law.correlation is not None:
                expected = new.drop("balanced", c, judged.tokens)
                self._pair("balance", expected, _balanced(judged, law.share, c))
            if mixed is not None:
                self._pair("shuffle", law.drop("shares", c, mixed.tokens), mixed.drop(c))
            plan, thin = copies(law.share, _spare(judged)), _thinner(judged, c)
            self._pair("replicas", new.replicated(plan, thin, judged.tokens), judged.replicated(plan, thin))
        for name in law.laws:
            c = new.least(name, question.loss, judged.tokens)
            self.asked.setdefault(name, []).append((c, judged.drop(c)))

    def _pair(self, name: str, expected: float, measured: float) -> None:
        self.pairs.setdefault(name, []).append((expected, measured))

    def error(self, name: str) -> LawError | None:
        if name not in self.pairs:
            return None
        gap = np.array([expected - measured for expected, measured in self.pairs[name]])
        asked = np.array(self.asked[name]) if name in self.asked else None
        return LawError(
            error=float(np.abs(gap).mean()),
            bias=float(gap.mean()),
            worst=float(np.abs(gap).max()),
            loss=None if asked is None else float(asked[:, 1].mean()),
            capacity=None if asked is None else float(asked[:, 0].mean()),
        )


def _layer(blocks: LogBlocks, shuffled: LogBlocks | None, at: int, question: Question, tally: _Tally) -> LogLayer:
    loads = blocks.layer(at)
    law = FittedLoads.to(loads)
    mixed = None if shuffled is None else shuffled.layer(at)
    plan = copies(law.share, _spare(loads))
    drops = tuple(_drop(loads, law, mixed, plan, factor, question) for factor in question.factors)
    held_out = {name: found for name in law.laws if (found := tally.error(name)) is not None}
    total = loads.load.sum(axis=0)
    share = total / total.sum()
    least = loads.least(question.loss)
    richest = law.laws[-1]
    mean = loads.load.sum(axis=1) / loads.experts
    return LogLayer(
        name=blocks.log.layers[at],
        blocks=len(loads.load),
        tokens=loads.largest,
        share=tuple(share.tolist()),
        heaviest=float(share.max() * loads.experts),
        dead=int((total == 0).sum()),
        correlation=law.correlation,
        variance_ratio=None if law.correlation is None else 1 + (loads.largest - 1) * law.correlation,
        slowest=float((loads.load.max(axis=1) / mean).mean()),
        drops=drops,
        capacity=least,
        capacity_factor=loads.factor(least),
        capacity_uniform=law.least("uniform", question.loss, loads.tokens),
        capacity_new=law.for_new(loads.largest).least(richest, question.loss, loads.tokens),
        capacity_sure=_sure(loads, question),
        cause=_cause(law, held_out, drops),
        held_out=held_out,
        remedies=tuple(_remedies(drops, question, law, loads, plan, tally)),
    )


def _drop(
    loads: BlockLoads, law: FittedLoads, mixed: BlockLoads | None, plan: NDArray[np.int64], factor: float, q: Question
) -> LoadDrop:
    c = loads.capacity(factor)
    remedies = {"balance": _balanced(loads, law.share, c), "replicas": loads.replicated(plan, _thinner(loads, c))}
    return LoadDrop(
        factor=factor,
        capacity=c,
        measured=loads.drop(c),
        error=_standard_error(loads, c),
        laws={name: law.drop(name, c, loads.tokens) for name in law.laws},
        remedies=remedies if mixed is None else {"shuffle": mixed.drop(c), **remedies},
    )


def _standard_error(loads: BlockLoads, capacity: int) -> float | None:
    """Of the ratio of two sums over the blocks, to first order."""
    blocks = len(loads.load)
    if blocks < 2:
        return None
    rest = loads.excess(capacity) - loads.drop(capacity) * loads.load.sum(axis=1)
    return math.sqrt(blocks / (blocks - 1) * float(np.square(rest).sum())) / float(loads.load.sum())


def _sure(loads: BlockLoads, question: Question) -> int | None:
    """Slots of the largest block that hold the next block, whatever the law of the blocks."""
    factor = guarantee(loads.load, question.loss, question.confidence).factor
    return None if factor is None else loads.capacity(factor)


def _cause(law: FittedLoads, held_out: Mapping[str, LawError], drops: Sequence[LoadDrop]) -> str:
    """Which assumption fails, by how much each law gains on blocks that it has not seen; a cause has a quarter of it."""
    if held_out:
        error = {name: found.error for name, found in held_out.items()}
    else:  # too few blocks to hold any out: the laws where they were fitted
        error = {name: float(np.mean([abs(d.laws[name] - d.measured) for d in drops])) for name in law.laws}
    uniform, shares, dependent = error["uniform"], error["shares"], error.get("over_dispersed")
    gain = uniform - min(error.values())
    if uniform <= _SMALL:
        return "none"
    if gain < uniform / 4:
        return "unknown"
    skew = uniform - shares >= gain / 4
    dependence = dependent is not None and shares - dependent >= gain / 4
    return {(True, True): "both", (True, False): "skew", (False, True): "dependence"}.get((skew, dependence), "unknown")


def _remedies(
    drops: Sequence[LoadDrop],
    question: Question,
    law: FittedLoads,
    loads: BlockLoads,
    plan: NDArray[np.int64],
    tally: _Tally,
) -> list[Remedy]:
    drop = next(d for d in drops if d.factor == question.factor)
    expected = {
        "shuffle": law.drop("shares", drop.capacity, loads.tokens),
        "balance": law.drop("uniform" if law.correlation is None else "balanced", drop.capacity, loads.tokens),
        "replicas": law.replicated(plan, _thinner(loads, drop.capacity), loads.tokens),
    }
    errors = {name: tally.error(name) for name in expected}
    return [
        Remedy(name, drop.remedies.get(name), value, LAW_OF[name], found.error if (found := errors[name]) else None)
        for name, value in expected.items()
    ]
