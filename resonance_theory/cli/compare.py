"""Compare two ledgers of verify --json: what was lost, changed and gained; exit 1 on a loss."""

from __future__ import annotations

import argparse

from resonance_theory import _output
from resonance_theory.cli._files import Input, Output
from resonance_theory.cli._options import json_option
from resonance_theory.cli._terminal import emit, visible

EXAMPLES = """
resonance compare old.json new.json
resonance compare old.json new.json --markdown comment.md    a table for a pull request
resonance compare old.json new.json --json -
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Input, metavar="OLD.json", help="record of `resonance verify --json`")
    parser.add_argument("new", type=Input, metavar="NEW.json", help="a later one")
    parser.add_argument("--markdown", type=Output, metavar="FILE", help="write a Markdown table there")
    json_option(parser)


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims.compare import compare
    from resonance_theory.evidence.claims.record import read

    comparison = visible(compare(read(options.old), read(options.new)))
    emit(comparison.to_json(), options.json, comparison.table())
    if options.markdown is not None:
        _output.write(options.markdown, comparison.markdown())
    return 1 if comparison.lost else 0
