"""Time of a training step against capacity: the sensitivity table, as CSV."""

from __future__ import annotations

import argparse
import csv
import io

from resonance_theory import _output
from resonance_theory.cli._files import Output
from resonance_theory.cli._terminal import show

EXAMPLES = """
resonance step-time -                                     on standard output
resonance step-time simulations/results/step_time.csv     the stored one
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Output, metavar="FILE", help="the table, or - for standard output")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.step_time import sensitivity

    rows = [{k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in sensitivity()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if options.file == "-":
        show(text.getvalue().rstrip("\n"))
    else:
        _output.write(options.file, text.getvalue())
    return 0
