"""Which claims a command means: names, patterns, files, folders or modules; of this package or of anybody's project."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resonance_theory.evidence.project import Project

__all__ = ["chosen", "targets_option"]


def targets_option(parser: argparse.ArgumentParser) -> None:
    """The words that `chosen` reads."""
    said = "part of an id, a shell pattern, a file, a folder or a module (default: all of this project)"
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=said)


def chosen(words: Sequence[str]) -> tuple[Project, list[str], bool]:
    """The project that the words mean, the ids of its claims that they choose, and whether those are all.

    Raises:
        FileNotFoundError, ValueError: They name nothing that is there.
    """
    from resonance_theory.evidence.claims import ledger
    from resonance_theory.evidence.project import find

    project, places, patterns = find(words, "claims")
    ids = {i for pattern in patterns or [""] for i in ledger.select(pattern, project, places)}
    return project, sorted(ids), ids == set(ledger.claim_ids(project))
