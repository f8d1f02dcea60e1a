"""Step time and memory of training the language model, arm by arm."""

from __future__ import annotations

import argparse
import importlib

from resonance_theory.cli._files import Json
from resonance_theory.cli._options import times

EXAMPLES = """
resonance cost --size quick --runs 1
resonance cost --out simulations/results/training_cost.json
"""


def options(parser: argparse.ArgumentParser) -> None:
    sizes = ("quick", "full")
    parser.add_argument("--size", choices=sizes, default="full", help="table of language_model.toml (default full)")
    parser.add_argument("--steps", type=times, default=20, metavar="K", help="timed steps of each arm and run (20)")
    parser.add_argument("--runs", type=times, default=5, metavar="K", help="how often all of it is measured (5)")
    parser.add_argument("--out", type=Json, metavar="FILE", help="write the record there")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims.ledger import folder

    folder("simulations")
    importlib.import_module("torch")
    importlib.import_module("simulations.training_cost").run(options.size, options.steps, options.runs, options.out)
    return 0
