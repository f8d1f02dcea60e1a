"""The record of a verification run: what every claim earned, and on what it ran."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from resonance_theory import __version__
from resonance_theory.evidence.claims.ledger import Ledger

__all__ = ["FORMAT", "record_of"]

FORMAT = "resonance-theory ledger 1"
_PACKAGES = ("numpy", "scipy", "sympy", "python-flint", "mpmath", "numba")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


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
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "full": book.full,
        "seed": book.seed,
        "false_alarm_budget": book.budget,
        "seconds": round(seconds, 1),
        "passed": book.passed,
        "claims": list(book.results),
    }
