"""Numbers behind the figures of theory, computed once from the exact laws and stored for `paper_figures/`.

A new data set is one new file `simulations/figure_data/<name>.py` with `compute() -> dict` of JSON-able entries or arrays.
`resonance data [NAME ...]` writes `simulations/results/figures/<name>.json`, all of them by default.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import _output
from resonance_theory.evidence.sampling.task import versions

__all__ = ["RESULTS", "compute", "names", "write"]

RESULTS = Path(__file__).resolve().parents[1] / "results" / "figures"


def names() -> list[str]:
    """Data sets found beside this file, sorted."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def _plain(value: Any) -> Any:
    """Arrays as lists and floats to 12 digits: more would store the last bits of one machine's libraries."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return float(f"{value:.12g}") if isinstance(value, float) else value


def compute(name: str) -> dict[str, Any]:
    """The entries of one data set as they are stored, without provenance."""
    return _plain(importlib.import_module(f"simulations.figure_data.{name}").compute())


def write(name: str) -> Path:
    """Compute one data set and store it, one entry a line; an earlier file stays until the new one is whole."""
    record = {"provenance": {"command": f"resonance data {name}", **versions()}, **compute(name)}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items()]
    target = RESULTS / f"{name}.json"
    _output.write(target, "{\n" + ",\n".join(lines) + "\n}\n")
    return target
