"""Which claims speak of a published statement: `proofs/published.toml` against the `source` of every claim.

The file lists the quantitative statements of the papers in their order, each with names under which a claim's source may cite
it. Nothing lists claims: a new claim that cites a statement is found by its source.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.claims.claim import Claim

__all__ = ["Statement", "coverage", "published", "records"]


@dataclass(frozen=True)
class Statement:
    """A published statement: its paper, where it stands, what it says, and the names that cite it."""

    paper: str
    place: str
    text: str
    names: Sequence[str]

    def cited(self, source: str) -> bool:
        """Whether a source names it; `eq. 1` does not name `eq. 11`."""
        return any(re.search(re.escape(name) + r"(?!\d)", source) for name in self.names)


def published() -> list[Statement]:
    """The statements of `proofs/published.toml`, in the order of the papers."""
    with (ledger.folder("proofs") / "published.toml").open("rb") as file:
        papers = tomllib.load(file)
    return [
        Statement(paper, entry["place"], entry["text"], tuple(entry["names"]))
        for paper, entries in papers.items()
        for entry in entries
    ]


def coverage(claims: Iterable[Claim] | None = None) -> list[tuple[Statement, list[Claim]]]:
    """Every published statement with the claims whose source names it; the whole ledger's by default."""
    known = [ledger.load(i) for i in ledger.claim_ids()] if claims is None else list(claims)
    return [(statement, [claim for claim in known if statement.cited(claim.source)]) for statement in published()]


def records(claims: Iterable[Claim] | None = None) -> list[dict[str, Any]]:
    """The coverage as plain records: paper, place, text and the ids of the claims."""
    return [
        {"paper": s.paper, "place": s.place, "text": s.text, "claims": [claim.id for claim in named]}
        for s, named in coverage(claims)
    ]
