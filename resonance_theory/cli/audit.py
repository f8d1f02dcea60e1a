"""Measure what a router's log, or hidden states, say of the laws' assumptions, and the capacity they need."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from resonance_theory.cli._files import Drawing, Input
from resonance_theory.cli._options import json_option, layers, numbers
from resonance_theory.cli._terminal import emit, visible

EXAMPLES = """
resonance audit example-log                                      the embedded log of a router
resonance audit choices.npz --factors 1,1.25,2 --loss 0.01        each token's experts, or counts of each step
resonance audit example                                          the embedded hidden states
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
        type=_source,
        metavar="FILE",
        help="a router's log or hidden states, recognised by what they hold; 'example' and 'example-log' are embedded",
    )
    add(
        "--model",
        type=Input,
        metavar="DIR",
        help="instead: a local model of any family; Mixtral's kind beside GrAP gates",
    )
    add("--text", type=Input, metavar="FILE", help="UTF-8 text that the model reads")
    add("--device-map", metavar="MAP", help="of the weights: 'auto' spreads them over devices, memory and disk")
    add("--experts", type=int, metavar="N", help="of a log that does not say; GrAP gates (default 8, or the model's)")
    add("--top", type=int, metavar="L", help="experts per token (default 1, or the log's or model's)")
    add("--factors", type=numbers, metavar="F,F", help="capacity factors to report")
    add("--loss", type=float, metavar="X", help="share of the choices that the capacities may drop (default 0.01)")
    add("--layers", type=layers, metavar="K,K-K", help="a log's layers, by name or place from 0 (default all)")
    add("--block", type=int, metavar="S", help="tokens of a log of choices that share the slots")
    add(
        "--layout",
        metavar="NAME",
        help="of a log that does not tell by itself: choices, counts or another of docs/logs.md",
    )
    add(
        "--scoring",
        metavar="NAME",
        help="the file holds logits: softmax, sigmoid or another of docs/logs.md; with --top",
    )
    add("--center", action="store_true", help="only the centred gates (default: raw and centred)")
    add("--gates", type=Input, metavar="FILE", help="your own gates, (experts, features), .npy or .safetensors")
    add("--details", action="store_true", help="every number behind the conclusion")
    add("--plot", type=Drawing, metavar="FILE", help="the figure (.png, .svg or .pdf)")
    add("--shuffle-documents", action="store_true", help="put a log's documents in random order first, as in training")
    json_option(parser)


def _source(text: str) -> Input:
    if text == "example":
        from resonance_theory import audit

        return Input(audit.example())
    if text == "example-log":
        from resonance_theory import logs

        return Input(logs.example())
    return Input(text)


def run(options: argparse.Namespace) -> int:
    result = _audited(options)
    shown = visible(result)  # names of files and layers are anyone's
    emit(result.to_json(), options.json, shown.table(details=options.details))
    if options.plot is not None:  # last: the answer is there whatever becomes of the picture
        shown.figure(options.plot)
    return 0


def _audited(options: argparse.Namespace) -> Any:
    """The audit of the log, the hidden states or the model that is given."""
    if options.model is not None or options.text is not None:
        if options.file is not None or options.gates is not None:
            raise ValueError("--model DIR --text FILE replace FILE and --gates: leave those out")
        if options.model is None or options.text is None:
            raise ValueError("--model DIR and --text FILE must be given together")
        from resonance_theory.audit.model import UnlikeMixtral, audit_model

        try:
            result = audit_model(
                options.model,
                options.text,
                experts=options.experts,
                top=options.top,
                center=True if options.center else None,
                device_map=options.device_map,
                **_given(capacity_factors=options.factors, target_loss=options.loss),
            )
        except UnlikeMixtral:
            return _other_family(options)
        _refuse(options, "a model of Mixtral's kind", "layers", "block")
        return result
    if options.device_map is not None:
        raise ValueError(f"--device-map = {options.device_map!r} must be left out without --model: it is for weights")
    if options.file is None:
        raise ValueError("give FILE (or 'example', 'example-log'), or a model by --model DIR --text FILE")
    from resonance_theory import audit, logs

    asked = {"factors": options.factors, "loss": options.loss}
    if _is_log(options):
        named = _given(layout=options.layout, scoring=options.scoring, experts=options.experts, top=options.top)
        log = logs.read(options.file, **named)
        if options.shuffle_documents:
            log = audit.mixed_documents(log, np.random.Generator(np.random.Philox(0)))
        return audit.audit_log(log, **_given(**asked, layers=options.layers, block=options.block))
    _refuse(options, "hidden states", "layers", "block")
    if options.shuffle_documents:
        raise ValueError("--shuffle-documents must be left out for hidden states: it is for routing logs")
    return audit.audit(
        options.file,
        experts=options.experts,
        top=1 if options.top is None else options.top,
        center=True if options.center else None,
        gates=options.gates,
        **_given(capacity_factors=options.factors, target_loss=options.loss),
    )


def _is_log(options: argparse.Namespace) -> bool:
    """Whether the file is to be read as a log: it is said to be one, is recognised, or can be no hidden states."""
    from resonance_theory import logs

    if options.layout is not None or options.scoring is not None:
        for name in ("gates", "center"):
            if getattr(options, name):
                raise ValueError(f"--{name} must be left out for a routing log: it is for hidden states")
        return True
    if options.gates is not None or options.center:
        return False
    return logs.recognise(options.file) is not None or logs.whole_numbers(options.file)


def _other_family(options: argparse.Namespace) -> Any:
    """The audit of the choices that a model's routers make, whatever makes them."""
    from resonance_theory import audit
    from resonance_theory.audit.model_log import log_model

    for name in ("experts", "top"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} = {getattr(options, name)} must be left out: the model's own choices are audited"
            )
    log = log_model(options.model, options.text, device_map=options.device_map)
    given = _given(factors=options.factors, loss=options.loss, layers=options.layers, block=options.block)
    return audit.audit_log(log, **given)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: argparse.Namespace, what: str, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} = {getattr(options, name)!r} must be left out for {what}: it is for routing logs"
            )
