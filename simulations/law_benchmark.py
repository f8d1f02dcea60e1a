"""Speed of the exact laws on one core: success rates and least capacities, beside SciPy's incomplete beta function.

    resonance bench --laws --out simulations/results/law_benchmark.json

"SciPy, betainc" is one call of `scipy.special.betainc` on the same numbers: what a success rate of resonance costs
there, without its accuracy in the tails. The contenders alternate; times are medians of the process's own CPU seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

import resonance_theory as rt
from resonance_theory.cli._terminal import emit
from simulations.router_benchmark import provenance

__all__ = ["contenders", "measure", "run"]


def contenders(count: int) -> dict[str, Callable[[], Any]]:
    """Calls that each make `count` numbers: samples of 64 to 8,192 tokens, 2 to 127 experts, targets from 1/2 on."""
    rng = np.random.default_rng(0)
    tokens, experts = rng.integers(64, 8192, count), rng.integers(2, 128, count)
    capacity = np.maximum(1, (tokens * rng.uniform(0.02, 0.6, count)).astype(np.int64))
    tail, target = rng.uniform(0.01, 0.5, count), rng.uniform(0.5, 0.99, count)
    rates = rt.Rates(experts=experts, candidate_tail=tail)
    return {
        "token_choice.success": lambda: rt.token_choice.success(tokens, capacity, rates),
        "resonance.success": lambda: rt.resonance.success(tokens, capacity, rates),
        "SciPy, betainc": lambda: special.betainc(capacity, tokens - capacity, tail),
        "token_choice.least_capacity": lambda: rt.token_choice.least_capacity(target, tokens, rates),
        "resonance.least_capacity": lambda: rt.resonance.least_capacity(target, tokens, rates),
    }


def measure(count: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median and least seconds of every contender, and numbers a second."""
    calls = contenders(count)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            seconds[name].append(time.process_time() - begin)
    return {
        name: {
            "median_s": float(f"{statistics.median(times):.4g}"),
            "least_s": float(f"{min(times):.4g}"),
            "per_s": float(f"{count / max(statistics.median(times), 1e-9):.4g}"),
        }
        for name, times in seconds.items()
    }


def table(record: dict[str, Any]) -> str:
    """One line a contender."""
    lines = [f"{name:<30}{row['per_s'] / 1e6:>8.2f} million/s" for name, row in record["ways"].items()]
    made = record["provenance"]
    return "\n".join([*lines, f"{made['cpu']}, load {made['load_before']} before the run"])


def run(repeats: int, out: str | None = None, count: int = 100_000) -> None:
    """Measure, print the table and, where `out` is given, write the record there."""
    record: dict[str, Any] = {
        "benchmark": "laws",
        "provenance": provenance(f"resonance bench --laws --repeats {repeats}"),
        "count": count,
    }
    record["ways"] = measure(count, repeats)
    emit(record, out, table(record))
