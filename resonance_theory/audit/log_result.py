"""The numbers that an audit of a routing log reports, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LawError", "LoadDrop", "LogLayer", "Remedy"]


@dataclass(frozen=True)
class LoadDrop:
    """Drops at one capacity factor, as shares of the choices.

    Attributes:
        factor, capacity: the capacity factor and the slots of an expert in the largest block.
        measured, error: of the log, and its standard error with blocks as independent; None with one block.
        laws: what each law of `load_laws.LAWS` expects, fitted to all blocks.
        remedies: what each remedy leaves, measured on the log itself, by the names of `Remedy`.
    """

    factor: float
    capacity: int
    measured: float
    error: float | None
    laws: Mapping[str, float]
    remedies: Mapping[str, float]


@dataclass(frozen=True)
class LawError:
    """A law fitted on one half and judged on the other, over the capacity factors, splits and both directions.

    Attributes:
        error, bias: mean of |expected - measured| and of expected - measured.
        worst: the largest |expected - measured|.
        loss: mean drop at the least capacity that the fitted law asked for; capacity: that capacity, on average.
    """

    error: float
    bias: float
    worst: float
    loss: float | None = None
    capacity: float | None = None


@dataclass(frozen=True)
class Remedy:
    """What would help, at the capacity factor of the conclusion.

    Attributes:
        name: "shuffle" tokens across documents, "balance" the shares (by a bias, an auxiliary loss, or centring), or
            "replicas" of the heaviest experts.
        drop: measured on the log with that change; None where single tokens are not known, so that it cannot be made.
        expected: what its law says.
        law: which law, in words.
        error: of this law, held out; None with too few blocks.
    """

    name: str
    drop: float | None
    expected: float
    law: str
    error: float | None


@dataclass(frozen=True)
class LogLayer:
    """One layer of the log.

    Attributes:
        name: its name; blocks: how many; tokens: of the largest block.
        share: (experts,) share of the choices that each expert receives, summing to 1.
        heaviest: the largest of them times the number of experts; dead: experts that nobody chose.
        correlation: of two tokens of a block, by the variance between blocks; None with one block.
        variance_ratio: variance of the loads over that of independent tokens.
        slowest: mean over blocks of the largest load over the mean load: how long the slowest expert works.
        drops: at each capacity factor.
        capacity, capacity_factor: least for the loss on this log.
        capacity_uniform: what uniform, independent loads would need.
        capacity_new: expected drop of new data at most the loss, by the law that held out best of those with measured shares.
        capacity_sure: no more than the loss in the next block, with the report's confidence, whatever the law of the blocks:
            an order statistic of what each block needs alone; None with too few blocks.
        cause: "none", "skew", "dependence", "both" or "unknown".
        held_out: errors of the laws on blocks that they were not fitted to; empty with fewer than four blocks.
        remedies: what would help.
    """

    name: str
    blocks: int
    tokens: int
    share: tuple[float, ...]
    heaviest: float
    dead: int
    correlation: float | None
    variance_ratio: float | None
    slowest: float
    drops: tuple[LoadDrop, ...]
    capacity: int
    capacity_factor: float
    capacity_uniform: int
    capacity_new: int
    capacity_sure: int | None
    cause: str
    held_out: Mapping[str, LawError]
    remedies: tuple[Remedy, ...]

    @property
    def best(self) -> str:
        """The law with the least held-out error; without such errors the richest that could be fitted."""
        if not self.held_out:
            return "shares" if self.correlation is None else "over_dispersed"
        return min(self.held_out, key=lambda law: self.held_out[law].error)
