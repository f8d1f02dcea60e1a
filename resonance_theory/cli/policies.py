"""Measure what drop policies keep of a router's own choices, beside the law fitted on the other half of the log."""

from __future__ import annotations

import argparse

import numpy as np

from resonance_theory.cli._files import Input
from resonance_theory.cli._options import json_option, numbers
from resonance_theory.cli._terminal import emit, visible

EXAMPLES = """
resonance policies example-log
resonance policies choices.npz --factors 1,1.25 --block 1024 --shuffle-documents
"""


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file", type=_log, metavar="FILE", help="a log of choices with gate weights; 'example-log' for the embedded one"
    )
    add("--experts", type=int, metavar="N", help="number of experts, if the file does not say")
    add("--factors", type=numbers, default=[1.0, 1.25, 1.5, 2.0], metavar="F,F", help="capacity factors (1,1.25,1.5,2)")
    add("--block", type=int, metavar="S", help="tokens that share the slots")
    add("--shuffle-documents", action="store_true", help="put the documents in random order first, as in training")
    json_option(parser)


def _log(text: str) -> Input:
    if text != "example-log":
        return Input(text)
    from resonance_theory import logs

    return Input(logs.example())


def run(options: argparse.Namespace) -> int:
    from resonance_theory import audit, logs

    log = logs.read(options.file, **({} if options.experts is None else {"experts": options.experts}))
    if options.shuffle_documents:
        log = audit.mixed_documents(log, np.random.Generator(np.random.Philox(0)))
    answer = audit.judge_policies(log, factors=options.factors, block=options.block)
    emit(answer.to_json(), options.json, visible(answer).table())
    return 0
