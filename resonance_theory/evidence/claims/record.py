"""The record of a verification run: what every claim earned, and on what it ran."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resonance_theory.evidence.claims.ledger import Ledger
from resonance_theory.provenance import provenance

__all__ = ["DATA", "FORMAT", "UNPRINTABLE", "read", "record_of", "schema"]

FORMAT = "resonance-theory ledger 1"
DATA = Path(__file__).parents[2] / "data"
DEPTH = 32  # far more than any record is nested
# what neither XML nor a terminal takes: control characters but newline, return and tab; halves of pairs; non-characters
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def record_of(
    book: Ledger, seconds: float, *, project: str = "", baseline: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON record of a verification run, with its provenance.

    Args:
        book: what `ledger.verify` returned.
        seconds: how long it took.
        project: name of the project whose claims these are, if it is not this package.
        baseline: a comparison with an earlier record, as `Comparison.to_json` gives it.

    Returns:
        A JSON-able dictionary of the format that `read` takes.
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
        **({"project": project} if project else {}),
        **({"baseline": dict(baseline)} if baseline is not None else {}),
    }


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a kind of record: ledger, audit, plan, study, benchmark or gpu."""
    loaded: dict[str, Any] = json.loads((DATA / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def read(path: str | Path) -> dict[str, Any]:
    """A stored record of `resonance verify --json`.

    Args:
        path: a regular file, from anywhere: nothing in it is trusted.

    Raises:
        ValueError: the file cannot be read or is no such record; one sentence says where.
    """
    name = f"record = {str(path)!r}"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{name} must be a file, not a folder, pipe or device")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as problem:
        raise ValueError(f"{name} cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError as problem:
        raise ValueError(f"{name} must be the JSON of `resonance verify --json` ({problem})") from None
    try:
        record = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_number)
        _printable(record)
    except RecursionError:
        raise ValueError(f"{name} must be nested at most {DEPTH} deep") from None
    except ValueError as problem:
        raise ValueError(f"{name} must be the JSON of `resonance verify --json` ({problem})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{name} must be the JSON of `resonance verify --json` (format {FORMAT!r})")
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    wrong = best_match(Draft202012Validator(schema("ledger")).iter_errors(record))
    if wrong is not None:
        reason = wrong.message if len(wrong.message) <= 120 else f"{wrong.message[:60]} ... {wrong.message[-50:]}"
        raise ValueError(f"{name} is no complete record of `resonance verify`: {wrong.json_path}: {reason}")
    return record


def _number(text: str) -> float | int:
    """A number of JSON; NaN, Infinity and 1e999 are refused, and an integer of more than 64 bits becomes a float."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return int(text) if text.lstrip("-").isdigit() and abs(value) < 2**63 else value


def _printable(record: Any) -> None:
    """Raise ValueError for a text that no page can show, or for a record that is nested too deeply."""
    waiting = [(record, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")
        if isinstance(value, dict):
            waiting += [(v, depth + 1) for pair in value.items() for v in pair]
        elif isinstance(value, list):
            waiting += [(v, depth + 1) for v in value]
        elif isinstance(value, str) and (found := UNPRINTABLE.search(value)):
            raise ValueError(f"a text holds the character U+{ord(found[0]):04X}")
