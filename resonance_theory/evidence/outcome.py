"""What a single check says: the assertion holds, fails, or stays undecided; and the evidence for that."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Outcome", "Status", "every", "fails", "holds", "undecided"]


class Status(enum.Enum):
    """Three values: a failure to decide is neither a success nor a refutation."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Outcome:
    """Status of one assertion, one sentence of evidence, and JSON-able data behind it."""

    status: Status
    evidence: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.status is Status.HOLDS

    @property
    def fails(self) -> bool:
        return self.status is Status.FAILS


def holds(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.HOLDS, evidence, data)


def fails(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.FAILS, evidence, data)


def undecided(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.UNDECIDED, evidence, data)


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """All hold: holds. One fails: that failure. Otherwise the first undecided one."""
    seen = list(outcomes)
    if not seen:
        return undecided("nothing was checked")
    for status in (Status.FAILS, Status.UNDECIDED):
        for outcome in seen:
            if outcome.status is status:
                return outcome
    data: dict[str, Any] = {}
    for outcome in seen:
        data.update(outcome.data)
    return Outcome(Status.HOLDS, "; ".join(outcome.evidence for outcome in seen), data)
