"""Every GPU path against the NumPy reference, then its speed, within ten minutes."""

from __future__ import annotations

import argparse
import importlib

from resonance_theory.cli._files import Folder
from resonance_theory.cli._options import times

EXAMPLES = """
resonance gpu --out out/gpu
resonance gpu --out out/gpu --device cpu --tokens 64    a rehearsal under Triton's interpreter, not evidence
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Folder, required=True, metavar="DIR", help="folder of the records")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to run (default cuda)")
    parser.add_argument("--tokens", type=times, default=20000, metavar="S", help="tokens of each check (20000)")
    parser.add_argument("--repeats", type=times, default=50, metavar="K", help="timed calls of each benchmark (50)")
    parser.add_argument("--minutes", type=float, default=9.0, metavar="M", help="start no further benchmark later (9)")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.claims.ledger import folder

    folder("simulations")
    suite = importlib.import_module("simulations.gpu_suite")
    status = suite.run(options)
    return 2 if status == suite.NO_DEVICE else int(status)  # 77 is for harnesses that know a skipped test
