"""The load statistics that DeepSeek's EPLB balances by: one number for each layer and expert."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory.logs.files.content import Coded, Content, decode
from resonance_theory.logs.log import RoutingLog
from resonance_theory.logs.readers._build import counts_log
from resonance_theory.logs.readers._options import Options, number

__all__ = ["ABOUT", "NAME", "RANK", "fits", "read"]

NAME = "eplb"
ABOUT = "`weight` (layers, experts), tokens or shares (github.com/deepseek-ai/EPLB, rebalance_experts)"
RANK = 1

_NAMES = ("weight", "eplb_weight", "eplb", "expert_load_weight")
_SHARES = 10**6  # tokens a step that shares are taken for


def fits(content: Content, options: Options) -> bool:
    """Whether the only array with two axes is called `weight`."""
    return _found(content) is not None and options.scoring is None


def _found(content: Content) -> Any:
    value = content.value
    if not content.arrays and isinstance(value, dict) and list(value) == ["weight"]:
        try:
            array = np.asarray(value["weight"])
        except ValueError:
            return None
        return array if array.ndim == 2 and array.dtype.kind in "iuf" else None
    fit = [a for name, a in content.arrays.items() if name.lower() in _NAMES and a.ndim == 2 and a.shape[1] >= 2]
    return fit[0] if len(fit) == 1 and len(content.arrays) == 1 else None


def read(content: Content, options: Options) -> RoutingLog:
    """One step. Shares that are no whole numbers become a million tokens for the heaviest layer."""
    array = _found(content)
    if array is None:
        plain = [a for a in content.arrays.values() if a.ndim == 2]
        if len(plain) != 1:
            raise ValueError(f"{content.where} must hold one array (layers, experts) of loads")
        array = plain[0]
    load = decode(array) if isinstance(array, Coded) else np.asarray(array)
    notes = ["EPLB's loads are sums over a window: one step, which says nothing about the spread from step to step."]
    if load.dtype.kind == "f":
        if not np.isfinite(load).all() or (load < 0).any():
            raise ValueError(f"{content.where}: weight must hold finite numbers of at least 0")
        if (load != np.rint(load)).any():
            load = _whole(load.astype(np.float64))
            notes.append(f"The loads are shares: {_SHARES} choices are taken for the heaviest layer's sum.")
    top = number("top", options, content.metadata)
    return counts_log(content.where, content.name, options, load[None], top=top, notes=notes)


def _whole(load: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers in the same proportions, each layer's sum kept by the largest remainders."""
    exact = load / load.sum(axis=1).max() * _SHARES
    down = np.floor(exact).astype(np.int64)
    for row, wanted in zip(range(len(down)), np.rint(exact.sum(axis=1)).astype(np.int64)):
        missing = int(wanted - down[row].sum())
        down[row, np.argsort(down[row] - exact[row], kind="stable")[:missing]] += 1
    return down
