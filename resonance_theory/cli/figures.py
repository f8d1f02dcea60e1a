"""Draw the figures of paper_figures/ from the stored results."""

from __future__ import annotations

import argparse
from dataclasses import replace

from resonance_theory.cli._files import Folder
from resonance_theory.cli._options import one_of
from resonance_theory.cli._terminal import show

EXAMPLES = """
resonance figures                        all of them, in out/figures
resonance figures overview --out pics    one
resonance figures --check                redraw and compare with the stored reference
resonance figures my/figure.py           anybody's
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="one figure, or a file or folder of yours (default: all)"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--out", type=Folder, metavar="DIR", default="out/figures", help="where to write (out/figures)")
    action.add_argument("--check", action="store_true", help="redraw and compare with the stored reference")
    action.add_argument("--record", action="store_true", help="replace the stored reference and the README's picture")


def run(options: argparse.Namespace) -> int:
    from resonance_theory.evidence.pages import gallery
    from resonance_theory.evidence.project import find

    project, places, _ = find([options.name or ""], "figures")
    if places and not project.own:
        project = replace(project, figures=tuple(places))
    name = places[0].stem if places and places[0].is_file() else None if places else options.name
    if name is not None:
        one_of("figure", name, gallery.choose(None, project))
    chosen = gallery.choose(name, project)
    if not chosen:
        raise ValueError(f"figure = {options.name!r} holds no figure: a file with CAPTION, DATA and draw")
    if not project.own and (options.record or options.check):
        raise ValueError("--check and --record compare this package's own figures: leave them out")
    if options.record:
        if options.name is not None:
            raise ValueError("--record stores all figures: leave NAME out")
        show("\n".join(map(str, gallery.record())))
        return 0
    if not options.check:
        show("\n".join(map(str, gallery.write(chosen, options.out, project))))
        return 0
    result = gallery.check(chosen)
    for name, problems in result.items():
        show("\n".join([f"{'✗' if problems else '✓'} {name}", *(f"    {problem}" for problem in problems)]))
    return 1 if any(result.values()) else 0
