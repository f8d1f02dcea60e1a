"""Time of routing on the CPU, from tokens to assignment: the kernels, eager torch and other routers, beside the floor.

    resonance bench --out simulations/results/router_benchmark.json

The floor is one read of x at the memory bandwidth that the fastest of two plain readers reaches in the same run. The
contenders alternate. A timed call follows 5 ms of others by the same contender, so that no other's threads still spin
beside it, and takes tokens that have left the caches: other tokens of at least 256 MB were read since.
Times are medians with quartiles; run it on a quiet machine. The other routers come from transformers, where installed
(`pip install 'resonance-theory[peers]'`): Mixtral's has no capacity, Switch's drops by position.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import kernels
from resonance_theory.cli._terminal import emit
from resonance_theory.kernels import gradient_memory

__all__ = ["SHAPES", "contenders", "measure", "run"]

SHAPES = {"A": (4096, 1024, 8), "B": (16384, 2048, 16), "C": (65536, 1024, 64)}  # tokens, dim, experts
# contender -> ratio to the floor that it is meant to stay below, by shape
GOALS = {
    "kernel": {"A": 1.25, "B": 1.15, "C": 1.25},
    "kernel, top-2": dict.fromkeys("ABC", 1.5),
    "kernel, with gradient": dict.fromkeys("ABC", 4.0),
}
FACTOR = 1.25  # capacity factor of the learned gates
_ALONE = 0.005  # seconds: threads of OpenMP spin for a millisecond or more after their work
_COLD = 256 * 2**20  # bytes: eight times the last-level cache of the machines we know


def contenders(experts: int, capacity: int) -> dict[str, Callable[[Any], Any]]:
    """Functions of one float32 tensor (tokens, dim) on the CPU; only what is installed."""
    import torch

    def with_gradient(x: Any) -> Any:
        x = x.detach().requires_grad_()
        weight, expert = kernels.top_affinity(x, experts)
        kernels.slots(weight, expert, experts, capacity)
        weight.backward(torch.ones_like(weight))
        return x.grad

    def fresh(x: Any) -> Any:
        """The same where no gradient was dropped before, whose memory could be used again."""
        gradient_memory.release()
        return with_gradient(x)

    def eager(x: Any) -> Any:
        """The same rule as one would write it: group means, norm, two sorts."""
        affinity = (
            x.reshape(x.shape[0], experts, -1).mean(-1) * math.sqrt(x.shape[1] / experts) / x.norm(dim=-1)[:, None]
        )
        weight, expert = affinity.max(dim=-1)
        best = torch.argsort(weight, descending=True, stable=True)
        order = best[torch.argsort(expert[best], stable=True)]
        load = torch.bincount(expert, minlength=experts)
        slot = torch.arange(x.shape[0], device=x.device) - (load.cumsum(0) - load)[expert[order]]
        fits = slot < capacity
        return order[fits], expert[order][fits], slot[fits], load

    made: dict[tuple[int, bool, bool], Any] = {}

    @torch.no_grad()
    def module(x: Any, statistics: bool, **options: Any) -> Any:
        """The module that users write, in inference: `ResonanceRouter(dim, experts)`."""
        from resonance_theory.nn import ResonanceRouter

        key = x.shape[1], statistics, bool(options)
        if key not in made:
            made[key] = ResonanceRouter(x.shape[1], experts, statistics=statistics, **options).eval()
        return made[key](x)

    learned = {"gates": "linear", "top": 2, "capacity_factor": FACTOR}
    result: dict[str, Callable[[Any], Any]] = {
        "ResonanceRouter": lambda x: module(x, True),
        "ResonanceRouter, no statistics": lambda x: module(x, False),
        "learned gate, top-2": lambda x: module(x, True, **learned),
        "learned gate, top-2, no statistics": lambda x: module(x, False, **learned),
        "kernel": lambda x: kernels.route(x.numpy(), experts, capacity),
        "kernel, torch tensor": lambda x: kernels.route(x, experts, capacity),
        "kernel, affinities only": lambda x: kernels.top_affinity(x, experts),
        "kernel, top-2": lambda x: kernels.route(x, experts, min(2 * capacity, x.shape[0]), top=2),
        "kernel, with gradient": with_gradient,
        "kernel, fresh gradient": fresh,
        "eager torch": eager,
    }
    return result | _megatron(experts) | _peers(experts, capacity)


def _megatron(experts: int) -> dict[str, Callable[[Any], Any]]:
    """Megatron-Core's router of the same learned gate: one product, softmax, top-2, and its drop policy `probs`."""
    if importlib.util.find_spec("megatron") is None:
        return {}
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the accelerators that are absent
        moe = importlib.import_module("megatron.core.transformer.moe.moe_utils")
    weights: dict[int, Any] = {}

    @torch.no_grad()
    def router(x: Any) -> Any:
        if x.shape[1] not in weights:
            weights[x.shape[1]] = torch.randn(experts, x.shape[1]) * x.shape[1] ** -0.5
        probability, chosen = moe.topk_routing_with_score_function(x @ weights[x.shape[1]].T, 2, use_pre_softmax=True)
        return moe.apply_router_token_dropping(probability, chosen, 2, FACTOR, drop_policy="probs")

    return {"Megatron-Core, probs, top-2": router}


def _peers(experts: int, capacity: int) -> dict[str, Callable[[Any], Any]]:
    if importlib.util.find_spec("transformers") is None:
        return {}
    import torch

    models = "transformers.models"
    mixtral = importlib.import_module(f"{models}.mixtral.modeling_mixtral")
    switch = importlib.import_module(f"{models}.switch_transformers.modeling_switch_transformers")
    made: dict[int, tuple[Any, Any]] = {}

    def routers(dim: int) -> tuple[Any, Any]:
        if dim not in made:
            settings: dict[str, Any] = {"hidden_size": dim, "num_local_experts": experts, "num_experts_per_tok": 1}
            one = mixtral.MixtralTopKRouter(mixtral.MixtralConfig(**settings))
            settings = {"d_model": dim, "num_experts": experts, "expert_capacity": capacity}
            two = switch.SwitchTransformersTop1Router(switch.SwitchTransformersConfig(**settings))
            for parameter in (*one.parameters(), *two.parameters()):
                torch.nn.init.normal_(parameter, std=dim**-0.5)
            made[dim] = one.eval(), two.eval()
        return made[dim]

    @torch.no_grad()
    def mixtral_router(x: Any) -> Any:
        return routers(x.shape[1])[0](x)

    @torch.no_grad()
    def switch_router(x: Any) -> Any:
        return routers(x.shape[1])[1](x[None])

    return {"Mixtral router (transformers)": mixtral_router, "Switch router (transformers)": switch_router}


def _readers() -> dict[str, Callable[[Any], Any]]:
    """Ways of reading x once and doing next to nothing: torch's sum, and the kernel with one expert."""
    return {"torch": lambda x: x.sum(), "kernel": lambda x: kernels.top_affinity(x.numpy(), 1)}


def measure(shape: tuple[int, int, int], repeats: int, cold: int = _COLD) -> dict[str, Any]:
    """Floor, and median, quartiles and ratio of every contender at one shape (tokens, dim, experts); milliseconds."""
    import torch

    tokens, dim, experts = shape
    capacity = min(tokens, math.ceil(1.1 * tokens / experts))
    size = tokens * dim * 4
    rng = np.random.default_rng(0)
    buffers = [
        torch.from_numpy(rng.standard_normal((tokens, dim), dtype=np.float32)) for _ in range(1 + -(-cold // size))
    ]
    calls = {("read", k): f for k, f in _readers().items()}
    calls |= {("route", k): f for k, f in contenders(experts, capacity).items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    others = itertools.cycle(buffers)
    for repeat in range(repeats + 1):  # the first compiles and touches memory
        for key, call in calls.items():
            begin = time.perf_counter()
            while True:
                call(next(others))
                if time.perf_counter() - begin > _ALONE:
                    break
            x = next(others)
            start = time.perf_counter()
            call(x)
            if repeat >= 1:
                times[key].append(1e3 * (time.perf_counter() - start))
    readers = {k: float(np.median(v)) for (kind, k), v in times.items() if kind == "read"}
    floor = min(readers.values())
    rows = {
        name: {
            "median_ms": _short(np.median(v)),
            "quartiles_ms": [_short(q) for q in np.quantile(v, (0.25, 0.75))],
            "ratio": _short(np.median(v) / floor),
        }
        for (kind, name), v in times.items()
        if kind == "route"
    }
    return {
        "tokens": tokens,
        "dim": dim,
        "experts": experts,
        "capacity": capacity,
        "repeats": repeats,
        "floor_ms": _short(floor),
        "bandwidth_gb_s": _short(size / floor / 1e6),
        "routers": rows,
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def memory(shapes: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, float]] | None:
    """Peak memory of one call beyond x and what it returns, as a share of x, by shape and router; None outside Linux.

    Counted in pages by a process of its own, in which every block of 64 kB goes back to the system when it is freed.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "NUMPY_MADVISE_HUGEPAGE": "0"}
    code = f"import json; from simulations import router_benchmark as b; print(json.dumps(b._memory_here({shapes!r})))"
    root, command = Path(__file__).parents[1], [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=os.environ | settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _memory_here(shapes: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, float]]:
    import torch

    result: dict[str, dict[str, float]] = {}
    for name, (tokens, dim, experts) in shapes.items():
        x = torch.randn(tokens, dim)
        result[name] = {}
        capacity = min(tokens, math.ceil(1.1 * tokens / experts))
        for router, call in contenders(experts, capacity).items():
            call(x[:capacity])  # compiles, and makes what does not grow with the tokens
            gradient_memory.release()
            growth: list[int] = []

            def once(call: Callable[[Any], Any] = call, x: Any = x, growth: list[int] = growth) -> None:
                Path("/proc/self/clear_refs").write_text("5")  # resets the peak
                before = _resident("VmRSS")
                returned = call(x)
                growth.append(_resident("VmHWM") - before - _bytes(returned))

            thread = threading.Thread(target=once)  # the kernels keep scratch for each thread
            thread.start()
            thread.join()
            result[name][router] = _short(max(0, growth[0]) / x.nbytes)
    return result


def _bytes(returned: Any) -> int:
    """Bytes of all arrays in a result."""
    if hasattr(returned, "nbytes"):
        return int(returned.nbytes)
    parts = returned if isinstance(returned, (list, tuple)) else getattr(returned, "__dict__", {}).values()
    return sum(_bytes(part) for part in parts)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def provenance(command: str) -> dict[str, Any]:
    """Machine, versions and commit: what a reader needs to run the same again."""
    packages = ("resonance-theory", "numpy", "numba", "torch", "triton", "transformers", "megatron-core")
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "command": command,
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": _short(os.getloadavg()[0]) if hasattr(os, "getloadavg") else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "commit": git.stdout.strip() or None,
    }


def summary(record: dict[str, Any], shape: str) -> dict[str, dict[str, float]]:
    """Each router at one shape, over all runs: median time, and median, least and largest ratio to the run's floor."""
    runs = [run[shape] for run in record["runs"]]
    result = {}
    for router in runs[0]["routers"]:
        rows = [run["routers"][router] for run in runs]
        ratios = [row["ratio"] for row in rows]
        result[router] = {
            "median_ms": _short(np.median([row["median_ms"] for row in rows])),
            "ratio": _short(np.median(ratios)),
            "least": min(ratios),
            "largest": max(ratios),
        }
    return result


def lead(record: dict[str, Any], shape: str) -> tuple[float, float, float]:
    """Time of the best other router over that of the kernel: median, least and largest over the runs."""
    factors = [
        min(row["median_ms"] for name, row in run[shape]["routers"].items() if "transformers" in name)
        / run[shape]["routers"]["kernel"]["median_ms"]
        for run in record["runs"]
    ]
    return _short(np.median(factors)), _short(min(factors)), _short(max(factors))


def table(record: dict[str, Any]) -> str:
    lines = []
    for name, shape in record["runs"][0].items():
        floors = [run[name]["floor_ms"] for run in record["runs"]]
        lines += [
            f"{name}: {shape['tokens']} tokens of {shape['dim']}, {shape['experts']} experts, capacity {shape['capacity']}; "
            f"floor {min(floors)} to {max(floors)} ms in {len(floors)} runs",
            f"  {'router':<32}{'median ms':>10}{'x floor':>9}{'in the runs':>16}{'goal':>6}{'memory':>8}",
        ]
        for router, row in summary(record, name).items():
            goal, extra = (
                GOALS.get(router, {}).get(name, ""),
                (record.get("extra_memory") or {}).get(name, {}).get(router),
            )
            memory, spread = "" if extra is None else f"{extra:.1%}", f"{row['least']:.3g}-{row['largest']:.3g}"
            lines.append(f"  {router:<32}{row['median_ms']:>10}{row['ratio']:>9.3g}{spread:>16}{goal:>6}{memory:>8}")
        if any("transformers" in router for router in shape["routers"]):
            middle, least, largest = lead(record, name)
            lines.append(f"  best of the other routers / kernel: {middle:.3g} ({least:.3g}-{largest:.3g})")
    made = record["provenance"]
    lines.append(f"{made['cpu']}, {made['cores']} cores, load {made['load_before']} before the run")
    return "\n".join(lines)


def run(shapes: Sequence[str], repeats: int, runs: int, out: str | None = None) -> None:
    """Measure the named shapes, print the table and, where `out` is given, write the record there."""
    command = f"resonance bench --repeats {repeats} --runs {runs}"
    record: dict[str, Any] = {"benchmark": "router", "provenance": provenance(command)}
    # The memory's bandwidth, and with it every ratio, moves from minute to minute: all runs are kept.
    record["runs"] = [{name: measure(SHAPES[name], repeats) for name in shapes} for _ in range(runs)]
    record["extra_memory"] = memory({name: SHAPES[name] for name in shapes})
    emit(record, out, table(record))
