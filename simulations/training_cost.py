"""Step time and memory of training, by arm of the language model: what its capacity and its slots cost on this machine.

    resonance cost [--size full] [--steps 20] [--runs 5] [--out FILE]

A step is the study's own (`_language.fit`): forward, backward, clipping and AdamW, on windows of random bytes. The arms
take turns within a run, each after steps of its own that are not counted. Memory is the growth of the resident peak over
those steps beyond the built model, in a process of its own for each arm, in which freed blocks go back to the system;
gradients and the optimizer's moments, three times the weights, are part of it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.cli._terminal import emit
from resonance_theory.evidence.studies.study import settings_of
from simulations import _language, router_benchmark


def steps_of(settings: dict[str, Any], arm: dict[str, Any], steps: int) -> tuple[Any, Any]:
    """(model, windows (steps, batch, tokens + 1)) of one arm."""
    data = np.random.default_rng(0).integers(0, 256, (steps, settings["batch"], settings["tokens"] + 1), dtype=np.uint8)
    return _language.build(arm, {key: settings[key] for key in _language.SIZES}, seed=0), data


def times(settings: dict[str, Any], steps: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of a step, by arm: one mean for each run."""
    arms = _language.routed(settings)
    built = {label: steps_of(settings, arm, steps) for label, arm in arms.items()}
    found: dict[str, list[float]] = {label: [] for label in arms}
    for _ in range(runs):
        for label, (model, data) in built.items():
            _language.fit(model, data[:2], settings["rate"], settings["alpha"], "cpu")
            start = time.perf_counter()
            _language.fit(model, data, settings["rate"], settings["alpha"], "cpu")
            found[label].append(round(1e3 * (time.perf_counter() - start) / steps, 3))
    return found


def peak(settings: dict[str, Any], label: str) -> int | None:
    """Bytes by which three steps of one arm raise the resident peak, in a process of its own; None outside Linux."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    code = f"from simulations import training_cost as t; print(t._peak_here({settings!r}, {label!r}))"
    returned = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=returned, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def _peak_here(settings: dict[str, Any], label: str) -> int:
    arm = _language.routed(settings)[label]
    # another model takes the libraries' first steps
    _language.fit(*steps_of(settings, arm, 1), settings["rate"], settings["alpha"], "cpu")
    model, data = steps_of(settings, arm, 3)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = router_benchmark._resident("VmRSS")
    _language.fit(model, data, settings["rate"], settings["alpha"], "cpu")
    return router_benchmark._resident("VmHWM") - before


def run(size: str, steps: int, runs: int, out: str | None = None) -> None:
    """Measure every arm, print the table and, where `out` is given, write the record there."""
    import torch

    torch.set_num_threads(1)  # as in the study
    settings = settings_of("language_model", full=size == "full")
    made = router_benchmark.provenance(f"resonance cost --size {size} --steps {steps} --runs {runs}")
    found = times(settings, steps, runs)
    peaks = {label: peak(settings, label) for label in found}
    arms = {label: {"step_ms": found[label], "memory": peaks[label]} for label in found}
    record = {"benchmark": "training", "provenance": made, "size": size, "steps": steps, "arms": arms}
    lines = [f"{'arm':<22}{'ms a step':>10}{'in the runs':>18}{'memory, MB':>12}"]
    for label, ms in found.items():
        memory = peaks[label]
        spread, used = f"{min(ms):.1f} to {max(ms):.1f}", "-" if memory is None else f"{memory / 1e6:.1f}"
        lines.append(f"{label:<22}{statistics.median(ms):>10.1f}{spread:>18}{used:>12}")
    emit(record, out, "\n".join(lines))
