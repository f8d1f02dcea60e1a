"""Prove, compute and simulate claims; exit 0 only if each earns its verdict."""

from __future__ import annotations

import argparse
import textwrap
import time
import warnings
from collections import Counter
from typing import Any

from resonance_theory.cli._files import Folder, Input
from resonance_theory.cli._options import json_option, speed_options
from resonance_theory.cli._perturb import perturbed
from resonance_theory.cli._targets import chosen, targets_option
from resonance_theory.cli._terminal import colour, complain, emit, lost, room, show, visible

EXAMPLES = """
resonance verify cap_law                           one claim
resonance verify 'resonance_*' --workers auto      those that match, on every core
resonance verify --report out/report               all of them, with a page to read
resonance verify --baseline ledger.json            what was lost since that record
resonance verify cap_law --json -                  the record on standard output
resonance verify cap_law --perturb                 which of its numbers could be slightly wrong unnoticed
resonance verify my_claim.py                       anybody's: a file, a folder, or a module
"""


def options(parser: argparse.ArgumentParser) -> None:
    targets_option(parser)
    speed_options(parser)
    parser.add_argument(
        "--perturb", action="store_true", help="instead: does a check notice each number slightly wrong"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="seconds for a check (default 600, or 6000 with --full; 0: no limit)",
    )
    parser.add_argument(
        "--report", type=Folder, metavar="DIR", help="write an HTML page, Markdown, JUnit and JSON there"
    )
    parser.add_argument(
        "--baseline",
        type=Input,
        metavar="FILE",
        help="compare with a record of `resonance verify --json`; exit 1 on a loss",
    )
    json_option(parser)


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims import coverage, ledger
    from resonance_theory.evidence.claims.compare import compare
    from resonance_theory.evidence.claims.record import read, record_of
    from resonance_theory.evidence.pages import report
    from resonance_theory.evidence.sampling.executors import named

    project, ids, whole = chosen(options.targets)
    every, (shard, shards) = ids, options.shard
    if shards > 1:
        if options.report is not None or options.baseline is not None:
            raise ValueError("--shard runs a part: leave --report and --baseline for the merged ledger")
        ids, whole = ids[shard - 1 :: shards], False
        if not ids:
            raise ValueError(f"shard = {shard}/{shards} holds none of {len(every)} claims: take fewer shards")
    if options.perturb:
        if not project.own:
            raise ValueError("--perturb changes this package's own claims: leave it out for those of another project")
        return perturbed(ids, options.workers, options.json)
    timeout = (6000.0 if options.full else 600.0) if options.timeout is None else options.timeout or None
    baseline = None if options.baseline is None else read(options.baseline)
    if options.report is not None:
        report.prepare(options.report)
    quiet, start, columns, done = options.json == "-", time.perf_counter(), room(), Counter[str]()

    def say(text: str) -> None:
        if not quiet:
            show(text)

    def each(result: dict[str, Any]) -> None:
        done["claims"] += 1
        say(_line(result, f"[{done['claims']:>{len(str(len(ids)))}}/{len(ids)}]", max(map(len, ids)), columns))
        if not result["passed"]:
            say(f"        {result['problem']}")
        if lost() and options.json is None and options.report is None:
            raise SystemExit(1)  # nobody reads on, and nothing is to be written

    mode = "full" if options.full else "quick"
    say(f"{len(ids)} claim{'s' * (len(ids) > 1)}, {mode}, seed {options.seed}; suite-wide false-alarm budget 1e-06")
    if left := ledger.strays(project):
        complain(f"left out, as they define no claim = Claim(...): {', '.join(left)}")
    with warnings.catch_warnings(), named(options.executor) as executor:
        warnings.simplefilter("ignore", UserWarning)  # said above
        book = ledger.verify(
            ids,
            project=project,
            full=options.full,
            seed=options.seed,
            workers=options.workers,
            timeout=timeout,
            apart=options.timeout is not None,
            executor=executor,
            on_result=each,
        )
    record = record_of(book, time.perf_counter() - start, project="" if project.own else project.root.name)
    say("\n".join(["", *_corrections(book.results, columns), _tally(book)]))
    if shards > 1:
        record["shard"] = {"index": shard, "of": shards, "claims": every}
    comparison = None
    if baseline is not None:
        if not whole:  # of a part, nothing but that part can be missed
            baseline["claims"] = [claim for claim in baseline["claims"] if claim["id"] in ids]
        comparison = visible(compare(baseline, record))
        record["baseline"] = comparison.to_json()
        say(f"\nsince the baseline {options.baseline}\n{comparison.table()}")
    audit_report, table = None, ""
    if whole and project.own:
        from resonance_theory import audit

        record["published"] = coverage.records()
        audit_report = audit.audit(audit.example())
        table = audit_report.table()
        record |= {"audit": audit_report.to_json(), "audit_table": table}
        table = f"\nAudit of real encoder hidden states (the embedded example)\n{table}"
    if table or options.json is not None:
        emit(record, options.json, table)
    if options.report is not None:
        complain("drawing the report ...")
        say(f"\nreport: {report.write(record, options.report, audit_report=audit_report)}")
    return 1 if not book.passed or (comparison is not None and comparison.lost) else 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds of at least 0")
    return value


def _line(result: dict[str, Any], place: str, width: int, columns: int | None) -> str:
    """One claim: what must be there, then what fits, each column whole or not at all."""
    verdict = f"{result['verdict']:<12}"
    line = f"{place} {'✓' if result['passed'] else '✗'} {verdict} {result['seconds']:6.1f} s  {result['id']:<{width}}"
    for column in (f"  {_rate(result):<28}", f"  {_proof(result)}"):
        if columns is None or len((line + column).rstrip()) <= columns:
            line += column
    return line.rstrip().replace(verdict.rstrip(), colour(verdict.rstrip(), result["verdict"]), 1)


def _proof(result: dict[str, Any]) -> str:
    """What stands behind a verdict, shortest form: the kinds of its checks, and how many rates were simulated."""
    kinds = [check["kind"] for check in result["checks"]]
    names = (("derivation", "derived"), ("certificate", "certified"), ("counterexample", "counterexample"))
    words = [word for kind, word in names if kind in kinds]
    counts = {"reference": kinds.count("reference"), "rate": sum(len(check["rows"]) for check in result["checks"])}
    return ", ".join(words + [f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n])


def _rate(result: dict[str, Any]) -> str:
    """The most informative simulated rate: the one with the smallest detectable difference.

    A bound that no rate can break, at least 0 or at most 1, says nothing and is not shown; an exact 0 or 1 says little,
    and is shown only where there is nothing else.
    """
    rows = [row for check in result["checks"] for row in check["rows"]]
    rows = [r for r in rows if (r["relation"], r["law"]) not in (("at_least", 0.0), ("at_most", 1.0))]
    rows = [r for r in rows if 0 < r["law"] < 1] or rows
    if not rows:
        return ""
    row = min(rows, key=lambda r: r["detectable"])
    sign = {"equal": "=", "at_most": "≤", "at_least": "≥"}[row["relation"]]
    return f"{row['estimate']:.5f} {sign} {row['law']:.5f} ± {(row['high'] - row['low']) / 2:.1g}"


def _corrections(results: Any, columns: int | None) -> list[str]:
    lines = []
    for result in results:
        if result["correction"] and result["passed"]:
            text = f"{result['id']} [{result['source']}]: {result['correction']}"
            wrapped = textwrap.fill(text, columns or 100, initial_indent=" " * 11, subsequent_indent=" " * 11)
            verdict = f"{result['verdict']:<9}"
            lines.append(f"{colour(verdict, result['verdict'])}  {wrapped.lstrip()}")
    return [*lines, ""] if lines else []


def _tally(book: Any) -> str:
    counts = Counter(result["verdict"] for result in book.results)
    tally = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return f"{tally}; {'all as the ledger states' if book.passed else 'NOT as the ledger states'}"
