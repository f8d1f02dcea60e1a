"""Time of routing on the CPU, from tokens to assignment, beside one read of the tokens; or of counting a routing log."""

from __future__ import annotations

import argparse
import importlib

from resonance_theory.cli._files import Json
from resonance_theory.cli._options import one_of, times

EXAMPLES = """
resonance bench                              minutes, on a quiet machine
resonance bench --shapes A --runs 1          4,096 tokens of 1,024 features, 8 experts
resonance bench --out simulations/results/router_benchmark.json
resonance bench --counting                   choices of a log counted in a second, beside NumPy and pandas
resonance bench --laws                       success rates and least capacities in a second, beside SciPy
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", nargs="+", metavar="NAME", help="of A, B and C (default: all)")
    parser.add_argument("--repeats", type=times, default=21, metavar="K", help="timed calls of each contender (21)")
    parser.add_argument("--runs", type=times, default=5, metavar="K", help="how often all of it is measured (5)")
    parser.add_argument("--counting", action="store_true", help="time the counting of routing logs instead")
    parser.add_argument("--laws", action="store_true", help="time the exact laws beside SciPy instead")
    parser.add_argument("--out", type=Json, metavar="FILE", help="write the record there")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims.ledger import folder

    folder("simulations")
    if options.counting:
        importlib.import_module("simulations.counting_benchmark").run(options.repeats, options.out)
        return 0
    if options.laws:
        importlib.import_module("simulations.law_benchmark").run(options.repeats, options.out)
        return 0
    benchmark = importlib.import_module("simulations.router_benchmark")
    shapes = options.shapes or list(benchmark.SHAPES)
    for shape in shapes:
        one_of("shapes", shape, benchmark.SHAPES)
    importlib.import_module("torch")
    benchmark.run(shapes, options.repeats, options.runs, options.out)
    return 0
