"""The record of a verification run: what every claim earned, and on what it ran."""

from __future__ import annotations

from typing import Any

from resonance_theory.evidence.claims.ledger import Ledger
from resonance_theory.provenance import provenance

__all__ = ["FORMAT", "record_of"]

FORMAT = "resonance-theory ledger 1"


def record_of(book: Ledger, seconds: float) -> dict[str, Any]:
    """The JSON record of a verification run, with its provenance.

    Args:
        book: what `ledger.verify` returned.
        seconds: how long it took.

    Returns:
        A JSON-able dictionary of the format that `evidence.pages.report.read` takes.
    """
    return {
        "format": FORMAT,
        "provenance": provenance(),
        "full": book.full,
        "seed": book.seed,
        "false_alarm_budget": book.budget,
        "seconds": round(seconds, 1),
        "passed": book.passed,
        "claims": list(book.results),
    }
