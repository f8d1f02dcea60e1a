"""Measure a router's assumptions on real hidden states, and the capacity they need."""

from __future__ import annotations

import argparse
from typing import Any

from resonance_theory.cli._files import Drawing, Input
from resonance_theory.cli._options import json_option
from resonance_theory.cli._terminal import emit, visible

EXAMPLES = """
resonance audit example                                          the embedded file
resonance audit hidden.safetensors --experts 8 --plot audit.png
resonance audit hidden.npy --gates router.npy --json audit.json
resonance audit hidden.npy --details                             every number
resonance audit --model ./mixtral --text sample.txt
"""


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file",
        nargs="?",
        type=_hidden_states,
        metavar="FILE",
        help=".safetensors or .npy; 'example' for the embedded file",
    )
    add("--model", type=Input, metavar="DIR", help="instead: a local Mixtral-type model, its routers beside GrAP gates")
    add("--text", type=Input, metavar="FILE", help="UTF-8 text that the model reads")
    add("--experts", type=int, metavar="N", help="GrAP gates (default 8, or as many as the model's experts)")
    add("--top", type=int, metavar="L", help="experts per token (default 1, or the model's)")
    add("--center", action="store_true", help="only the centred gates (default: raw and centred)")
    add("--gates", type=Input, metavar="FILE", help="your own gates, (experts, features), .npy or .safetensors")
    add("--details", action="store_true", help="every number behind the conclusion")
    add("--plot", type=Drawing, metavar="FILE", help="the figure (.png, .svg or .pdf)")
    json_option(parser)


def _hidden_states(text: str) -> Input:
    if text != "example":
        return Input(text)
    from resonance_theory import audit

    return Input(audit.example())


def run(options: argparse.Namespace) -> int:
    from resonance_theory import audit

    center = True if options.center else None
    result: Any
    if options.model is not None or options.text is not None:
        if options.file is not None or options.gates is not None:
            raise ValueError("--model DIR --text FILE replace FILE and --gates: leave those out")
        if options.model is None or options.text is None:
            raise ValueError("--model DIR and --text FILE must be given together")
        from resonance_theory.audit.model import audit_model

        result = audit_model(options.model, options.text, experts=options.experts, top=options.top, center=center)
    elif options.file is None:
        raise ValueError("give FILE (or 'example'), or a model by --model DIR --text FILE")
    else:
        top = 1 if options.top is None else options.top
        result = audit.audit(options.file, experts=options.experts, top=top, center=center, gates=options.gates)
    shown = visible(result)  # names of files and layers are anyone's
    emit(result.to_json(), options.json, shown.table(details=options.details))
    if options.plot is not None:  # last: the answer is there whatever becomes of the picture
        shown.figure(options.plot)
    return 0
