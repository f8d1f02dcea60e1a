"""Write the start of a claim, a study, a rule or a figure of yours, which works as it is."""

from __future__ import annotations

import argparse
import keyword

from resonance_theory.cli._files import Folder
from resonance_theory.cli._terminal import show

EXAMPLES = """
resonance new claim my_theorem            proofs/my_theorem.py; then: resonance verify my_theorem.py
resonance new study my_study              simulations/my_study.py and .toml
resonance new figure my_figure            figures/my_figure.py and its data in results/
resonance new rule my_rule --to src       src/my_rule.py
"""


def options(parser: argparse.ArgumentParser) -> None:
    from resonance_theory.evidence.starts import STARTS

    parser.add_argument("kind", choices=list(STARTS), help="of what")
    parser.add_argument("name", metavar="NAME", help="of the file, without .py")
    parser.add_argument("--to", type=Folder, metavar="DIR", help="where to write (default: as the project says)")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.starts import write

    if not options.name.isidentifier() or options.name.startswith("_") or keyword.iskeyword(options.name):
        raise ValueError(f"name = {options.name!r} must be a Python name without a leading underscore")
    paths, then = write(options.kind, options.name, options.to)
    show("\n".join([*map(str, paths), f"next: {then}"]))
    return 0
