"""Blocks of a routing log: their loads, halves of the log to fit and to judge, and the same tokens shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.audit.load_laws import BlockLoads
from resonance_theory.logs import RoutingLog

__all__ = ["LogBlocks", "mixed_documents"]

Whole = NDArray[np.int64]

_ENOUGH = 20  # blocks that a default size leaves: with 19 or more an order statistic covers 95 %
_LARGEST = 4096
_MOST = 2 * 10**8  # choices that may be copied, to be shuffled or split by documents
SEED = 0


@dataclass(frozen=True)
class LogBlocks:
    """A log cut into blocks: the loads of all layers and, for choices, where its tokens are.

    Attributes:
        log: the log, without tokens that are padding in every layer.
        load: (blocks, layers, experts).
        tokens: (blocks,) of a log of counts; None for choices, whose blocks have `block` tokens.
        block: tokens of a block, or of the largest step.
        padding: tokens left out because every layer says so.
    """

    log: RoutingLog
    load: Whole
    tokens: Whole | None
    block: int
    padding: int = 0

    @classmethod
    def of(cls, log: RoutingLog, block: int | None) -> LogBlocks:
        """Cut a log; `block` tokens each for choices (None: a power of two that leaves 20 blocks, at most 4,096)."""
        if log.choices is None:
            return cls._of_counts(log, block)
        choices = np.asarray(log.choices) if isinstance(log.choices, list) else log.choices
        real = np.concatenate(
            [(np.asarray(choices[k : k + 65536]) >= 0).any(axis=(1, 2)) for k in range(0, len(choices), 65536)]
            or [np.zeros(0, bool)]
        )
        padding = int(real.size - real.sum())
        if padding:
            kept = {name: _of(getattr(log, name), real) for name in ("choices", "weights", "documents")}
            log = replace(log, **kept)
        tokens = int(real.sum())
        if block is None:
            block = min(_LARGEST, 1 << max(tokens // _ENOUGH, 1).bit_length() - 1)
        size = arguments.whole("block", block, 1)
        if size > tokens:
            raise ValueError(
                f"block = {size} must be at most {tokens}, the tokens of {log.source} that are not padding"
            )
        return cls(log, log.loads(size), None, size, padding)

    @classmethod
    def _of_counts(cls, log: RoutingLog, block: int | None) -> LogBlocks:
        if block is not None:
            raise ValueError(f"block = {block!r} must be left out for a log of counts, whose blocks are its steps")
        load = np.asarray(log.counts)
        used = load.sum(axis=(1, 2)) > 0
        if not used.any():
            raise ValueError(f"{log.source} counts no choice at all but must hold at least one step with tokens")
        tokens = np.asarray(log.tokens, np.int64)[used] if log.tokens is not None else None
        load = load[used].astype(np.int64)
        if tokens is None:
            tokens = load.sum(axis=2).max(axis=1)
        return cls(log, load, tokens, int(tokens.max()), 0)

    @property
    def top(self) -> int:
        """Experts per token; 1 for counts whose tokens are not known."""
        return 1 if self.log.choices is None and self.log.tokens is None else self.log.top

    def layer(self, at: int) -> BlockLoads:
        """The blocks of a layer that took a token."""
        mine = self.load[:, at]
        # padding of this layer alone counts nowhere
        tokens = -(-mine.sum(axis=1) // self.top) if self.tokens is None else self.tokens
        used = mine.sum(axis=1) > 0
        if not used.any():
            raise ValueError(f"layer {self.log.layers[at]!r} of {self.log.source} has no choice at all")
        return BlockLoads(mine[used], tokens[used], self.top)

    @property
    def whole(self) -> bool:
        """Whether single tokens are known and few enough to be moved."""
        return self.log.choices is not None and int(np.prod(np.shape(self.log.choices))) <= _MOST

    def shuffled(self) -> LogBlocks | None:
        """The same tokens in random order; None where single tokens are not known."""
        if not self.whole:
            return None
        rng = np.random.Generator(np.random.Philox(SEED))
        return self._taken(rng.permutation(len(self.log.choices)))

    def halves(self, splits: int) -> Iterator[tuple[LogBlocks, LogBlocks]]:
        """Random halves, to fit on one and judge on the other: of the documents where they are known, else of the blocks."""
        rng = np.random.Generator(np.random.Philox(SEED + 1))
        for _ in range(splits):
            mine = self._documents(rng) if self.whole else None
            if mine is not None:
                yield self._taken(np.flatnonzero(mine)), self._taken(np.flatnonzero(~mine))
                continue
            first = np.zeros(len(self.load), bool)
            first[rng.permutation(len(self.load))[: len(self.load) // 2]] = True
            yield self._some(first), self._some(~first)

    def two_logs(self) -> tuple[RoutingLog, RoutingLog]:
        """The tokens of a random half of the documents, or of the blocks, and of the others, in their order."""
        if len(self.load) < 4:
            raise ValueError(
                f"{self.log.source} has {len(self.load)} blocks of {self.block} tokens but must have 4 or more"
            )
        rng = np.random.Generator(np.random.Philox(SEED + 1))
        mine = self._documents(rng)
        if mine is None:
            mine = np.repeat(rng.permutation(len(self.load)) % 2 == 0, self.block)
        rows = (np.flatnonzero(mine), np.flatnonzero(~mine))
        names = ("choices", "weights", "documents")
        first, second = ({name: _of(getattr(self.log, name), part) for name in names} for part in rows)
        return replace(self.log, **first), replace(self.log, **second)

    def _documents(self, rng: np.random.Generator) -> NDArray[np.bool_] | None:
        """The tokens (tokens,) of a random half of the documents, each half with two blocks at least; None without such."""
        if self.log.documents is None:
            return None
        documents = np.asarray(self.log.documents)
        starts = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
        mine = np.repeat(rng.permutation(len(starts)) % 2 == 0, np.diff(np.r_[starts, len(documents)]))
        return mine if min(mine.sum(), (~mine).sum()) >= 2 * self.block else None

    def _some(self, blocks: NDArray[np.bool_]) -> LogBlocks:
        return replace(self, load=self.load[blocks], tokens=None if self.tokens is None else self.tokens[blocks])

    def _taken(self, rows: Whole) -> LogBlocks:
        log = _rows(self.log, rows)
        return replace(self, log=log, load=log.loads(self.block))


def mixed_documents(log: RoutingLog, rng: np.random.Generator) -> RoutingLog:
    """A log of choices with its documents in random order, as training data have them.

    Example:
        >>> import numpy as np
        >>> from resonance_theory.audit import mixed_documents
        >>> from resonance_theory.logs import RoutingLog
        >>> log = RoutingLog(experts=4, choices=np.array([[[0]], [[1]], [[2]], [[3]]]), documents=np.array([0, 0, 1, 2]))
        >>> mixed_documents(log, np.random.default_rng(0)).documents
        array([2, 0, 0, 1])
    """
    arguments.generator("rng", rng)
    if log.documents is None:
        raise ValueError(f"{log.source} names no documents but must, for them to be put in random order")
    name = np.asarray(log.documents)
    starts = np.flatnonzero(np.r_[True, name[1:] != name[:-1]])
    ends = np.r_[starts[1:], len(name)]
    rows = np.concatenate([np.arange(starts[d], ends[d]) for d in rng.permutation(len(starts))])
    return replace(log, **{field: _of(getattr(log, field), rows) for field in ("choices", "weights", "documents")})


def _of(value: Any, rows: NDArray[Any]) -> Any:
    return None if value is None else np.asarray(value)[rows]


def _rows(log: RoutingLog, rows: Whole) -> RoutingLog:
    """The choices of some tokens in that order, without the rest."""
    return RoutingLog(
        experts=log.experts,
        choices=np.asarray(log.choices)[rows],
        layers=log.layers,
        source=log.source,
        notes=log.notes,
    )
