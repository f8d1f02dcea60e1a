"""Render a stored ledger, of verify --json, as a report."""

from __future__ import annotations

import argparse
import sys

from resonance_theory.cli._files import Folder, Input
from resonance_theory.cli._terminal import complain, show

EXAMPLES = """
resonance verify --json ledger.json
resonance report ledger.json out/report
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Input, metavar="LEDGER.json", help="record of `resonance verify --json`")
    parser.add_argument("directory", type=Folder, metavar="DIR", help="where the pages go; made where it is missing")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.pages import report

    name = f"record = {str(options.record)!r}"
    try:
        record = report.read(options.record)
        report.prepare(options.directory)
        if sys.stderr.isatty():
            complain("drawing the report ...")
        page = report.write(record, options.directory)
    except (OSError, ValueError, ModuleNotFoundError, MemoryError):
        raise
    except Exception as problem:  # the record is anyone's, and a renderer may stumble over it in any way
        reason = f"{type(problem).__name__}: {problem}"
        raise ValueError(f"{name} is not a complete record of `resonance verify` ({reason})") from None
    show(f"report: {page}")
    return 0
