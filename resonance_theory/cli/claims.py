"""List the ledger: statement, source and expected verdict of every claim."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from resonance_theory.cli._options import json_option
from resonance_theory.cli._targets import chosen, targets_option
from resonance_theory.cli._terminal import colour, emit

EXAMPLES = """
resonance claims                     id, verdict, source and title of each
resonance claims resonance --long    those with resonance in their id, with statements
resonance claims --published         every statement of the papers and the claims on it
resonance claims my_proofs           those in a folder of yours
"""
_FIELDS = (
    "id",
    "title",
    "statement",
    "hypotheses",
    "source",
    "kind",
    "grade",
    "correction",
    "mutation",
    "lemmas",
    "reason",
)


def options(parser: argparse.ArgumentParser) -> None:
    targets_option(parser)
    parser.add_argument("--long", action="store_true", help="with statements and hypotheses")
    parser.add_argument("--published", action="store_true", help="by statement of the papers, in their order")
    json_option(parser)


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims import ledger

    project, ids, whole = chosen(options.targets)
    claims = [ledger.load(i, project) for i in ids]
    if options.published:
        if not project.own:
            raise ValueError(
                "--published lists the papers of this package's own claims: run it outside another project"
            )
        return _published(claims, whole, options)
    record = [{**{f: getattr(c, f) for f in _FIELDS}, "expected": c.expected.value} for c in claims]
    lines = []
    for claim in claims:
        lines.append(f"{_verdict(claim)} {claim.grade:<9} {claim.id}  [{claim.source}]")
        lines.append(f"           {claim.title}")
        if options.long:
            lines.append(f"           {claim.statement}")
            lines.extend(f"           where {hypothesis}" for hypothesis in claim.hypotheses)
    lines.append(_counted(claims))
    emit(record, options.json, "\n".join(lines))
    return 0


def _counted(claims: Sequence[Any]) -> str:
    grades = Counter(claim.grade for claim in claims)
    graded = ", ".join(
        f"{grades[name]} {name}" for name in ("formal", "certified", "argued", "numerical") if grades[name]
    )
    return f"\n{len(claims)} claims, {graded}; `resonance verify` earns each verdict, `resonance verify ID` one of them"


def _verdict(claim: Any) -> str:
    return colour(f"{claim.expected.value:<10}", claim.expected.value)


def _published(claims: Sequence[Any], whole: bool, options: argparse.Namespace) -> int:
    """Every published statement with the claims that speak of it, in the order of the papers."""
    from resonance_theory.evidence.claims import coverage

    record = coverage.records(claims)
    by_id = {claim.id: claim for claim in claims}
    lines = []
    for row in record:
        if row["claims"] or whole:
            lines.append(f"{row['paper']} {row['place']}: {row['text']}")
            lines.extend(f"    {_verdict(by_id[i])} {i}" for i in row["claims"])
    covered = sum(bool(row["claims"]) for row in record)
    lines.append(f"\n{covered} of {len(record)} published statements; `resonance verify ID` earns a verdict")
    emit(record, options.json, "\n".join(lines))
    return 0
