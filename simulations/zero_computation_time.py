"""Forward time of a layer with zero-computation experts against the share of the choices that its FFN experts have.

    python -m simulations.zero_computation_time --out simulations/results/zero_computation_time.json

The layer is `rt.systems.ZeroComputationMoE` on one thread, 8 FFN experts beside 4 others, for several τ, and the one with 8 FFN
experts alone; all of them take their turns. Times are medians with quartiles over that layer's median. Gates and slots are those
of training: every FFN expert works on all its slots, as many as eq. 8 with the factor K gives it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory.provenance import provenance
from resonance_theory.systems.zero_computation import ffn_share

TOKENS, DIM, HIDDEN, FFN, OTHER = 4096, 256, 1024, 8, (1, 1, 2)
TAUS = (0.1, 0.25, 0.5, 0.75, 1.0)


def measure(repeats: int) -> list[dict[str, Any]]:
    """Rows of τ, the share, and the relative time; the last row is the layer of FFN experts alone."""
    import torch

    from resonance_theory.systems.zero_experts import ZeroComputationMoE

    torch.manual_seed(0)
    torch.set_num_threads(1)
    names: dict[str, Any] = dict(zip(("zero", "copy", "constant"), OTHER))
    layers = [ZeroComputationMoE(DIM, HIDDEN, FFN, tau=tau, **names) for tau in TAUS]
    layers += [ZeroComputationMoE(DIM, HIDDEN, FFN, zero=0, copy=0, constant=0)]
    x = torch.randn(TOKENS, DIM)
    times: list[list[float]] = [[] for _ in layers]
    with torch.no_grad():
        for repeat in range(repeats + 2):  # the first two touch memory
            for layer, found in zip(layers, times):
                start = time.perf_counter()
                layer(x)
                if repeat >= 2:
                    found.append(time.perf_counter() - start)
    whole = float(np.median(times[-1]))
    shares = [*(float(ffn_share(tau, FFN, sum(OTHER))) for tau in TAUS), 1.0]
    rows = []
    for tau, share, found in zip((*TAUS, None), shares, times):
        low, middle, high = (float(f"{v / whole:.4g}") for v in np.quantile(found, (0.25, 0.5, 0.75)))
        rows.append(
            {"tau": tau, "share": share, "time": middle, "low": low, "high": high, "ms": 1e3 * float(np.median(found))}
        )
    return rows


def record(repeats: int) -> dict[str, Any]:
    """Rows and the least-squares line, time = fixed + slope share."""
    rows = measure(repeats)
    slope, fixed = np.polyfit([row["share"] for row in rows], [row["time"] for row in rows], 1)
    command = f"python -m simulations.zero_computation_time --repeats {repeats}"
    sizes = {"tokens": TOKENS, "dim": DIM, "hidden": HIDDEN, "ffn": FFN, "other": list(OTHER)}
    made = {
        "format": "resonance-theory benchmark 1",
        "benchmark": "zero_computation_time",
        "provenance": provenance() | {"command": command},
        "sizes": sizes,
    }
    return made | {"rows": rows, "fixed": float(f"{fixed:.4g}"), "slope": float(f"{slope:.4g}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--out", type=Path, help="where to write the record; standard output without it")
    options = parser.parse_args()
    text = json.dumps(record(options.repeats), indent=1)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
