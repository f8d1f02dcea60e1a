"""Speed of counting a routing log on one core: the package's one pass beside NumPy's and pandas' plain ways.

    resonance bench --counting --out simulations/results/counting_benchmark.json

Every contender makes the tokens per expert of each layer and each block of 8,192 tokens from choices that lie in memory.
"package" is `RoutingLog.loads`; "package, whole log" reads the same file from disk's cache, looks for padding and
repeated rows, and counts. The plain ways count one layer of one block after the other with `numpy.bincount` or
`value_counts`, or all rows at once with `groupby`. The contenders alternate; times are medians of the
process's own CPU seconds, so that other work on the machine counts less. More choices a second are better.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import logs
from resonance_theory.cli._terminal import emit
from simulations.router_benchmark import provenance

__all__ = ["SHAPES", "contenders", "measure", "run"]

# tokens, layers, k, experts: a mid-sized model's and a large one's; about 25 million choices each
SHAPES = {"64 experts, top-6": (165_000, 26, 6, 64), "256 experts, top-8": (54_000, 58, 8, 256)}
BLOCK = 8192
GOAL = 100e6  # choices a second on one core


def draw(tokens: int, layers: int, k: int, experts: int) -> Any:
    """Choices of skewed loads, the k ids of a token different: starting points and steps that are coprime to n."""
    rng = np.random.default_rng(0)
    start = np.minimum(rng.zipf(1.5, (tokens, layers, 1)) - 1, experts - 1)
    step = 2 * rng.integers(0, experts // 2, (tokens, layers, 1)) + 1
    return ((start + step * np.arange(k)) % experts).astype(np.int16)


def contenders(choices: Any, experts: int, file: Path) -> dict[str, Callable[[], Any]]:
    """Functions that return the counts (blocks, layers, experts); only what is installed."""
    log = logs.RoutingLog(experts=experts, choices=choices)
    blocks, layers = len(choices) // BLOCK, choices.shape[1]

    def plain() -> Any:
        found = np.empty((blocks, layers, experts), np.int64)
        for b in range(blocks):
            for layer in range(layers):
                found[b, layer] = np.bincount(choices[b * BLOCK : (b + 1) * BLOCK, layer].ravel(), minlength=experts)
        return found

    result = {
        "package": lambda: log.loads(BLOCK),
        "package, whole log": lambda: logs.read(file, experts=experts).loads(BLOCK),
        "NumPy, bincount by block and layer": plain,
    }
    if importlib.util.find_spec("pandas") is not None:
        pandas: Any = importlib.import_module("pandas")

        def series() -> Any:
            found = np.zeros((blocks, layers, experts), np.int64)
            for b in range(blocks):
                for layer in range(layers):
                    count = pandas.Series(choices[b * BLOCK : (b + 1) * BLOCK, layer].ravel()).value_counts()
                    found[b, layer, count.index] = count.to_numpy()
            return found

        def groups() -> Any:
            block, layer, _ = (part.ravel() for part in np.indices((blocks * BLOCK, *choices.shape[1:]), np.int32))
            frame = pandas.DataFrame(
                {"block": block // BLOCK, "layer": layer, "expert": choices[: blocks * BLOCK].ravel()}
            )
            count = frame.groupby(["block", "layer", "expert"]).size()
            found = np.zeros((blocks, layers, experts), np.int64)
            found[tuple(count.index.get_level_values(k) for k in range(3))] = count.to_numpy()
            return found

        result |= {"pandas, value_counts by block and layer": series, "pandas, groupby of all rows": groups}
    return result


def measure(shape: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    """Median seconds and choices a second of every contender, all of which must count the same."""
    choices = draw(*shape)
    number = len(choices) // BLOCK * BLOCK * choices.shape[1] * choices.shape[2]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "choices.npy"
        np.save(file, choices)
        calls = contenders(choices, shape[3], file)
        first = {name: call() for name, call in calls.items()}  # compiles, too
        wrong = [name for name, found in first.items() if not np.array_equal(found, first["package"])]
        if wrong:
            raise ValueError(f"{wrong[0]} counts otherwise than the package")
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                begin = time.process_time()
                call()
                seconds[name].append(time.process_time() - begin)
    ways = {
        name: {
            "median_s": float(f"{statistics.median(times):.4g}"),
            "least_s": float(f"{min(times):.4g}"),
            "choices_per_s": float(f"{number / statistics.median(times):.4g}"),
        }
        for name, times in seconds.items()
    }
    return {"choices": number, "shape": list(shape), "block": BLOCK, "ways": ways}


def table(record: dict[str, Any]) -> str:
    """One line a contender."""
    lines = []
    for name, shape in record["shapes"].items():
        lines.append(f"{name}, {shape['shape'][1]} layers: {shape['choices'] / 1e6:.0f} million choices")
        for way, row in shape["ways"].items():
            lines.append(f"  {way:<42}{row['choices_per_s'] / 1e6:>8.0f} million/s{row['median_s'] * 1e3:>9.0f} ms")
    lines.append(f"goal of the package: {GOAL / 1e6:.0f} million/s of CPU time")
    made = record["provenance"]
    return "\n".join([*lines, f"{made['cpu']}, load {made['load_before']} before the run"])


def run(repeats: int, out: str | None = None) -> None:
    """Measure both shapes, print the table and, where `out` is given, write the record there."""
    record: dict[str, Any] = {
        "benchmark": "counting",
        "provenance": provenance(f"resonance bench --counting --repeats {repeats}"),
    }
    record["shapes"] = {name: measure(shape, repeats) for name, shape in SHAPES.items()}
    emit(record, out, table(record))
