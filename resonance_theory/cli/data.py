"""Compute anew and store the numbers behind the figures of theory."""

from __future__ import annotations

import argparse
import importlib

from resonance_theory.cli._options import one_of
from resonance_theory.cli._terminal import show

EXAMPLES = """
resonance data            every data set of simulations/figure_data/
resonance data cap_law    one
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all)")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.project import recorded

    recorded("simulations")
    data = importlib.import_module("simulations.figure_data")
    for name in options.names:
        one_of("data set", name, data.names())
    for name in options.names or data.names():
        show(str(data.write(name)))
    return 0
