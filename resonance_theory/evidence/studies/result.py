"""What a study found: rows, a verdict on them, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonance_theory import _output

__all__ = ["StudyResult", "aligned", "head"]


def head(name: str, passed: bool) -> dict[str, Any]:
    """First fields of every record of a study."""
    return {"format": "resonance-theory study 1", "study": name, "passed": passed}


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)).rstrip() for line in table]


@dataclass(frozen=True)
class StudyResult:
    """Rows of estimates against laws, which mutants were rejected, and where it all comes from.

    Attributes:
        name: The study's.
        rows: One JSON-able record for each rate.
        mutants: Whether each wrong law was rejected somewhere.
        provenance: How it was run, and under what: command, seed, seconds, version, commit, time, packages.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    mutants: Mapping[str, bool]
    provenance: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        """Every rate agrees with its law at a level that could tell, and every mutant is rejected somewhere.

        A study without rates or without mutants has shown nothing and does not pass.
        """
        agree = all(row["verdict"] == "SUPPORTED" for row in self.rows)
        return bool(self.rows) and bool(self.mutants) and agree and all(self.mutants.values())

    def to_json(self) -> dict[str, Any]:
        return {
            **head(self.name, self.passed),
            "mutants_rejected": dict(self.mutants),
            # JSON knows no infinity: null where so few trials detect no difference at all
            "rows": [{k: None if v == float("inf") else v for k, v in row.items()} for row in self.rows],
            "provenance": dict(self.provenance),
        }

    def table(self) -> str:
        """Lines for a terminal."""
        titles = ("case", "rate of", "trials", "estimate", "interval", "exact", "detects", "verdict")
        body = [
            (
                row["case"],
                row["key"],
                f"{row['trials']:,}",
                f"{row['estimate']:.6f}",
                f"[{row['low']:.5f}, {row['high']:.5f}]",
                f"{row['law']:.6f}",
                f"{row['detectable']:.2g}",
                row["verdict"],
            )
            for row in self.rows
        ]
        lines = [*aligned([titles, *body]), ""]
        for name, rejected in self.mutants.items():
            lines.append(f"mutant law: {name}: {'rejected' if rejected else 'NOT REJECTED'}")
        agree = sum(row["verdict"] == "SUPPORTED" for row in self.rows)
        lines.append(f"{agree} of {len(self.rows)} rates agree with their law; {'passed' if self.passed else 'FAILED'}")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """JSON lines: provenance and summary first, then one row a line. An earlier file stays until this one is whole."""
        record = self.to_json()
        rows = record.pop("rows")
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in [record, *rows])
        _output.write(path, text)
