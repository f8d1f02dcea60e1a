"""Least capacity for a target success rate, and what it costs."""

from __future__ import annotations

import argparse
import inspect

from resonance_theory.cli._files import Drawing
from resonance_theory.cli._options import json_option
from resonance_theory.cli._terminal import emit

EXAMPLES = """
resonance plan --rule token-choice --tokens 4096 --experts 8 --target 0.95
resonance plan --rule resonance --tokens 4096 --experts 8 --target 0.95 --percentile 0.4 --plot plan.svg
resonance plan --rule expert-choice --tokens 256 --experts 8 --target 0.6 --signal 2.5 --dim 64
"""


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rule", required=True, type=lambda text: text.replace("-", "_"), metavar="R",
        help="token-choice, expert-choice, resonance or adaptive (a share of the affinity)")  # fmt: skip
    add("--tokens", required=True, type=int, metavar="S", help="tokens per sample")
    add("--experts", required=True, type=int, metavar="N", help="number of experts")
    add("--target", required=True, type=float, metavar="T", help="success rate in (0, 1)")
    add("--top", type=int, default=1, metavar="L", help="experts per token (default 1)")
    add("--hit", type=float, metavar="P", help="hit rate (default 1)")
    add("--percentile", type=float, metavar="RHO", help="affinity percentile among candidates (resonance)")
    add("--candidate-tail", type=float, metavar="H", help="instead of the percentile (resonance)")
    add("--false-positive", type=float, metavar="Q", help="false-positive rate (expert choice)")
    add("--signal", type=float, metavar="THETA", help="planted isotropic model: signal over noise")
    add("--dim", type=int, metavar="D", help="planted isotropic model: dimension")
    add("--block-length", type=int, metavar="M", help="tokens take routes in runs of M")
    add("--correlation", type=float, metavar="K", help="loads vary: the audit's intra-sequence correlation")
    add("--plot", type=Drawing, metavar="FILE", help="success against capacity (.png, .svg or .pdf)")
    json_option(parser)


def run(options: argparse.Namespace) -> int:
    from resonance_theory.planning import plan, setting

    known = inspect.signature(setting).parameters
    rates = setting(**{name: value for name, value in vars(options).items() if name in known})
    answer = plan(options.rule, options.tokens, options.target, rates)
    emit(answer.to_json(), options.json, answer.table())
    if options.plot is not None:  # last: the answer is there whatever becomes of the picture
        answer.figure(options.plot)
    return 0
