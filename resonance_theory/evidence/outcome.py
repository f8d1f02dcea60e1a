"""What a single check says: the assertion holds, fails, or stays undecided, or the check broke off; and the evidence."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "Status", "error", "every", "fails", "holds", "undecided"]


class Status(enum.Enum):
    """A failure to decide is neither a success nor a refutation, and an exception says nothing of the assertion."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"
    ERROR = "error"


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

    @property
    def broke(self) -> bool:
        return self.status is Status.ERROR


def holds(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.HOLDS, evidence, data)


def fails(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.FAILS, evidence, data)


def undecided(evidence: str, **data: Any) -> Outcome:
    return Outcome(Status.UNDECIDED, evidence, data)


def error(problem: BaseException) -> Outcome:
    """What an exception leaves of a check: its kind, its words, and the last frame of what first raised it."""
    while problem.__cause__ is not None and problem.__cause__.__traceback__ is not None:
        problem = problem.__cause__
    frames = getattr(problem, "stack", None) or traceback.extract_tb(
        problem.__traceback__
    )  # an alarm's own is not meant
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return Outcome(Status.ERROR, f"{type(problem).__name__}: {' '.join(str(problem).split())}{where}")


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """All hold: holds. Otherwise the first that broke off, or else failed, or else is undecided."""
    seen = list(outcomes)
    if not seen:
        return undecided("nothing was checked")
    for status in (Status.ERROR, Status.FAILS, Status.UNDECIDED):
        for outcome in seen:
            if outcome.status is status:
                return outcome
    data: dict[str, Any] = {}
    for outcome in seen:
        data.update(outcome.data)
    return Outcome(Status.HOLDS, "; ".join(outcome.evidence for outcome in seen), data)
