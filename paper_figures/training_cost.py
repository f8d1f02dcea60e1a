"""Step time and memory of training, by router of the small language model."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_figures._training import EDGE
from resonance_theory._style import LOOK, canvas

DATA = ("training_cost.json",)
CAPTION = """What a step of training costs by router, on one thread of a CPU: time (left; median of five runs, bars from the least
to the largest) and growth of the resident peak over the built model (right; gradients and the optimizer's moments are part of it,
counted once). 40 % fewer slots (resonance against LocMoE) save about a tenth of the step here: attention, embeddings and the
optimizer do not depend on the slots. The dashed line is the dense network of equal active parameters. Measured:
training_cost, at the sizes of the language model's recorded study."""


def draw(record: dict[str, Any]) -> Figure:
    arms = record["arms"]
    places = np.arange(len(arms))
    middle = np.array([statistics.median(row["step_ms"]) for row in arms.values()])
    low, high = (np.array([end(row["step_ms"]) for row in arms.values()]) for end in (min, max))
    figure, (time, memory) = canvas(10, 0.9 + 0.3 * len(arms), columns=2, sharey=True)
    time.errorbar(middle, places, xerr=[middle - low, high - middle], fmt="o", **{**EDGE, "color": "#0B3C6F"})
    time.set_xlabel("a training step, ms")
    known = [i for i, row in enumerate(arms.values()) if row["memory"] is not None]
    megabytes = np.array([row["memory"] for row in arms.values() if row["memory"] is not None]) / 1e6
    memory.plot(megabytes, known, "s", color="#4AA3D8", markeredgecolor="black", markeredgewidth=0.6)
    memory.set_xlabel("memory of a step, MB")
    for panel, values in ((time, middle), (memory, megabytes)):
        if len(values) and "dense" in arms:
            panel.axvline(values[list(arms).index("dense")], **LOOK["guide"])
        panel.margins(x=0.08)
    time.set_title("time")
    memory.set_title("memory")
    time.set_yticks(places, list(arms))
    time.set_ylim(len(arms) - 0.5, -0.5)
    return figure
