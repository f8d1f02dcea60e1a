"""Least capacity for a target success rate, and what it costs."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from resonance_theory.cli._files import Drawing, Input
from resonance_theory.cli._options import json_option, layers
from resonance_theory.cli._terminal import emit, visible

EXAMPLES = """
resonance plan --load counts.npz --target 0.99                    what your router logs, or AUDIT.json
resonance plan --load example-log --devices 8 --replicas 8        how long the slowest device works
resonance plan --drop 0.0968 --at 1.0                             from one reported drop rate
resonance plan --rule token-choice --tokens 4096 --experts 8 --target 0.95    uniform, independent loads
resonance plan --rule resonance --tokens 4096 --experts 8 --target 0.95 --percentile 0.4 --plot plan.svg
resonance plan --rule expert-choice --tokens 256 --experts 8 --target 0.6 --signal 2.5 --dim 64
"""


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--load",
        type=_log,
        metavar="FILE",
        help="a router's log, or the record of an audit, whose loads are planned for",
    )
    add("--layers", type=layers, metavar="K,K-K", help="layers of --load (default all)")
    add("--devices", type=int, metavar="D", help="with --load: place the experts on D devices")
    add("--replicas", type=int, metavar="R", help="with --devices: spare copies of the heaviest experts")
    add("--drop", type=float, metavar="X", help="a reported drop rate, explained by log-normal loads")
    add("--at", type=float, metavar="F", help="the capacity factor of that report")
    add("--rule", type=lambda text: text.replace("-", "_"), metavar="R",
        help="token-choice, expert-choice, resonance or adaptive (a share of the affinity)")  # fmt: skip
    add("--tokens", type=int, metavar="S", help="tokens per sample")
    add("--experts", type=int, metavar="N", help="number of experts")
    add("--target", type=float, metavar="T", help="success rate in (0, 1) (0.99 with --load or --drop)")
    add("--top", type=int, metavar="L", help="experts per token (default 1)")
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


def _log(text: str) -> Input:
    if text != "example-log":
        return Input(text)
    from resonance_theory import logs

    return Input(logs.example())


# options that ask about a law without a log, and those of each other kind of question
_LAW = ("hit", "percentile", "candidate_tail", "false_positive", "signal", "dim", "block_length")
_QUESTIONS = {
    "load": (
        "layers",
        "devices",
        "replicas",
        "rule",
        "tokens",
        "experts",
        "target",
        "top",
        "percentile",
        "correlation",
    ),
    "drop": ("at", "tokens", "experts", "target", "top"),
    "rule": ("tokens", "experts", "target", "top", "correlation", *_LAW),
}


def run(options: argparse.Namespace) -> int:
    kind = (
        "load" if options.load is not None else "drop" if options.drop is not None or options.at is not None else "rule"
    )
    given = {name: value for name in {n for q in _QUESTIONS.values() for n in (*q, "rule", "drop")}
             if (value := getattr(options, name)) is not None}  # fmt: skip
    for name, value in given.items():
        if name not in (kind, *_QUESTIONS[kind]):
            other = ", ".join(f"--{q}" for q, names in _QUESTIONS.items() if q != kind and name in (q, *names))
            own = "is a question of its own" if name in _QUESTIONS else f"goes with {other}"
            raise ValueError(f"--{name.replace('_', '-')} = {value!r} must be left out here: it {own}")
    answer = {"load": _load, "drop": _drop, "rule": _rule}[kind](options, given)
    emit(answer.to_json(), options.json, visible(answer).table())
    if options.plot is not None:  # last: the answer is there whatever becomes of the picture
        visible(answer).figure(options.plot)
    return 0


def _rule(options: argparse.Namespace, given: dict[str, Any]) -> Any:
    from resonance_theory.planning import plan, setting

    missing = [f"--{name}" for name in ("rule", "tokens", "experts", "target") if name not in given]
    if missing:
        raise ValueError(f"{', '.join(missing)} required; or give a log by --load FILE, or a report by --drop X --at F")
    known = inspect.signature(setting).parameters
    rates = setting(**{name: value for name, value in given.items() if name in known})
    return plan(options.rule, options.tokens, options.target, rates)


def _load(options: argparse.Namespace, given: dict[str, Any]) -> Any:
    placed = {name: given.pop(name) for name in ("devices", "replicas") if name in given}
    if placed:
        from resonance_theory.device_planning import plan_devices

        if "devices" not in placed:
            raise ValueError(f"--replicas = {placed['replicas']!r} goes with --devices D")
        for name in ("rule", "target", "percentile"):
            if name in given:
                raise ValueError(f"--{name} = {given[name]!r} must be left out with --devices, which has no capacity")
        return plan_devices(options.load, **placed, **given)
    from resonance_theory.load_planning import plan_load

    return plan_load(options.load, **given)


def _drop(options: argparse.Namespace, given: dict[str, Any]) -> Any:
    from resonance_theory.heavy_planning import plan_drop

    if options.drop is None or options.at is None:
        raise ValueError("--drop X and --at F, the capacity factor at which it was reported, must be given together")
    return plan_drop(**given)
