"""Time, throughput and memory of routing on a CPU: the kernels, eager torch and other routers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from resonance_theory._style import LOOK, canvas

DATA = ("router_benchmark.json",)
CAPTION = """From tokens to assignment on a CPU: time over the floor, one read of the tokens at the bandwidth measured
in the same run (left); tokens per second (middle); peak memory of one call beyond its outputs, as a share of the
tokens' own (right). float32, cold input. Points: median of the recorded runs, each itself a median; bars: from the
least to the largest run, as the machine's bandwidth moved from run to run. Measured, not modelled: router_benchmark.
The routers of transformers also compute a matrix product and a softmax; Mixtral's has no capacity."""

# name in the record -> name on the axis; others appear under their own
NAMES = {
    "kernel": "resonance, top-1",
    "kernel, torch tensor": "same, torch tensor",
    "kernel, affinities only": "affinities only",
    "kernel, top-2": "resonance, top-2",
    "kernel, with gradient": "top-1 with gradient",
    "kernel, fresh gradient": "gradient, fresh memory",
    "eager torch": "top-1, eager torch",
    "Mixtral router (transformers)": "Mixtral's router",
    "Switch router (transformers)": "Switch's router",
}
_SIZES = (("#F5C04A", "o"), ("#4AA3D8", "s"), ("#0B3C6F", "D"), ("#0B7A5C", "^"), ("0.85", "v"))


def memory(record: dict[str, Any], size: str, router: str) -> list[float]:
    """Extra memory of a router, as a share of the tokens' own; nothing where the machine could not count it."""
    found = (record["extra_memory"] or {}).get(size, {}).get(router)
    return [] if found is None else [found]


def draw(record: dict[str, Any]) -> Figure:
    runs = record["runs"]
    names = list(next(iter(runs[0].values()))["routers"])
    times, throughputs, memories = {}, {}, {}
    for size in runs[0]:
        for name in names:
            at = [(run[size], run[size]["routers"][name]["median_ms"]) for run in runs]
            times[size, name] = [ms / shape["floor_ms"] for shape, ms in at]
            throughputs[size, name] = [shape["tokens"] / ms / 1e3 for shape, ms in at]
            memories[size, name] = [100 * share for share in memory(record, size, name)]
    figure, axes = canvas(11.5, 1.4 + 0.4 * len(names), columns=3, sharey=True, width_ratios=(1.2, 1.2, 1))

    def row(panel: Any, values: dict[tuple[str, str], list[float]]) -> None:
        """Median and range over the runs of each router, one mark a size."""
        for k, (size, (colour, marker)) in enumerate(zip(runs[0], _SIZES)):
            shape = runs[0][size]
            label = f"{shape['tokens']} x {shape['dim']}, {shape['experts']}"
            known = [i for i, name in enumerate(names) if values[size, name]]
            if not known:
                continue
            table = np.array([values[size, names[i]] for i in known])
            middle, low, high = np.median(table, axis=1), table.min(axis=1), table.max(axis=1)
            panel.errorbar(
                middle,
                np.array(known) + 0.22 * (k - (len(runs[0]) - 1) / 2),
                xerr=[middle - low, high - middle],
                fmt=marker,
                label=label,
                color=colour,
                markersize=5,
                markeredgecolor="black",
                markeredgewidth=0.6,
                ecolor="0.3",
                elinewidth=1.1,
                capsize=2,
            )

    time, throughput, extra = axes
    row(time, times)
    time.axvline(1, **LOOK["guide"])
    time.set_xlabel("time / floor (1 = one read of the tokens)")
    time.set_xscale("log")
    time.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    time.set_xlim(left=0.9)
    time.set_yticks(range(len(names)), [NAMES.get(name, name) for name in names])
    time.set_ylim(len(names) - 0.5, -0.5)
    row(throughput, throughputs)
    throughput.set_xlabel("million tokens per second")
    throughput.set_xscale("log")
    throughput.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    row(extra, memories)
    extra.set_xlabel("memory beyond the outputs, %")
    extra.set_xlim(left=-4)
    handles, labels = time.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        handlelength=1.2,
        title="tokens x features, experts",
    )
    for panel in axes:
        panel.minorticks_off()
        panel.grid(axis="y", alpha=0)
        for edge in range(1, len(names)):
            panel.axhline(edge - 0.5, color="0.85", linewidth=0.6)
    return figure
