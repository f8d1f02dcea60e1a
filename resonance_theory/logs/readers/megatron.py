"""Megatron's tokens per expert: JSON lines of --save-tokens-per-expert-interval, or the routers' counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.logs.files.content import Content
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import counts_log
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "megatron"
ABOUT = (
    'JSON lines {"iter", "block", "layer", "tpe": [[tokens of each expert] of each micro-batch]} (Megatron-LM #3842)'
)
RANK = 0


def fits(content: Content, options: Options) -> bool:
    """Whether the first line has a layer and tokens per expert."""
    rows = _rows(content)
    return bool(rows) and {"layer", "tpe"} <= rows[0].keys()


def _rows(content: Content) -> list[dict[str, Any]]:
    value = content.value
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return value
    return []


def read(content: Content, options: Options) -> RoutingLog:
    """Each micro-batch of each iteration is a step; its layers must all have it."""
    where = content.where
    found: dict[str, dict[tuple[int, int], list[Any]]] = {}
    for number_, row in enumerate(_rows(content), 1):
        try:
            layer, step = int(row["layer"]), int(row.get("iter", row.get("iteration", 0)))
            batches = row["tpe"]
            name = (
                f"layer.{layer}" if row.get("block", "decoder") == "decoder" else f"mtp.{int(row['mtp_idx'])}.{layer}"
            )
            steps = found.setdefault(name, {})
            for batch, tokens in enumerate(batches):
                if not isinstance(tokens, list) or not all(type(t) in (int, float) for t in tokens):
                    raise ValueError
                if (step, batch) in steps:
                    raise ValueError(
                        f"{where}, line {number_}: {name!r} has iteration {step} twice: read one rank's file of one run"
                    )
                steps[step, batch] = tokens
        except (KeyError, TypeError, ValueError) as problem:
            if where in str(problem):
                raise
            raise ValueError(
                f"{where}, line {number_}, must have iter, layer and tpe, a list of tokens per expert for each micro-batch"
            ) from None
    every = sorted(set().union(*(steps.keys() for steps in found.values())))
    if not every:
        raise ValueError(f"{where} has no step at all but must have at least one")
    width = len(next(iter(next(iter(found.values())).values())))
    for name, steps in found.items():
        missing = [step for step in every if step not in steps]
        if missing:
            raise ValueError(
                f"{where}: layer {name!r} lacks iteration {missing[0][0]}, micro-batch {missing[0][1]}, which others have: "
                "all layers must have the same steps"
            )
        odd = [len(tokens) for tokens in steps.values() if len(tokens) != width]
        if odd:
            raise ValueError(f"{where}: layer {name!r} has {odd[0]} experts in a step but the first has {width}")
    counts = np.array([[steps[step] for steps in found.values()] for step in every])
    notes = ["Megatron writes one file for each rank: under expert parallelism it holds that rank's experts alone."]
    return counts_log(
        where,
        content.name,
        options,
        counts,
        top=number("top", options),
        layers=list(found),
        notes=notes,
    )
