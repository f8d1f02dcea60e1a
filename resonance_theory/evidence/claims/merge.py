"""The ledger of a run from those of its parts: refused where two have the same claim, or one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resonance_theory.evidence.claims import record

__all__ = ["ledgers"]


def ledgers(parts: Sequence[str | Path]) -> dict[str, Any]:
    """The record of a run from those of all its parts, files of `resonance verify --shard --json`.

    Raises:
        ValueError: They overlap, lack a claim, or are of different runs.
    """
    books = [record.read(part) for part in parts]
    for book, part in zip(books, parts):
        if "shard" not in book:
            raise ValueError(f"part = {str(part)!r} must be of `resonance verify --shard`")
    first = books[0]
    for book, part in zip(books, parts):
        for name in ("full", "seed", "false_alarm_budget", "project"):
            if book.get(name) != first.get(name):
                raise ValueError(
                    f"part = {str(part)!r} has {name} = {book.get(name)!r} where {first.get(name)!r} is needed"
                )
        made, its = (
            {k: b.get("provenance", {}).get(k) for k in ("version", "commit", "packages")} for b in (first, book)
        )
        if made != its or (book["shard"]["of"], book["shard"]["claims"]) != (
            first["shard"]["of"],
            first["shard"]["claims"],
        ):
            raise ValueError(
                f"part = {str(part)!r} is of another run than {str(parts[0])!r}: code, packages or claims differ"
            )
    owner: dict[str, str] = {}
    for book, part in zip(books, parts):
        for claim in book["claims"]:
            if claim["id"] in owner:
                raise ValueError(
                    f"part = {str(part)!r} has the claim {claim['id']}, which {owner[claim['id']]!r} has too"
                )
            owner[claim["id"]] = str(part)
    if missing := [claim for claim in first["shard"]["claims"] if claim not in owner]:
        raise ValueError(f"parts = {len(parts)} files lack {len(missing)} claims, the first of them {missing[0]}")
    whole = {key: value for key, value in first.items() if key != "shard"}
    claims = sorted((claim for book in books for claim in book["claims"]), key=lambda claim: str(claim["id"]))
    passed, seconds = all(book["passed"] for book in books), round(sum(book["seconds"] for book in books), 1)
    return whole | {"claims": claims, "passed": passed, "seconds": seconds}
