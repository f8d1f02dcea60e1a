"""Every GPU path against the NumPy reference, then its speed: one command, within ten minutes.

    resonance gpu --out DIR

writes DIR/checks.json, DIR/<study>.json and DIR/benchmarks.json with device, versions and commit. Exit status: 0 all
checks and studies passed, 1 one failed (what follows it is not run), 2 there is no CUDA device (nothing was checked;
77 as `python -m simulations.gpu_suite`).
`--device cpu --tokens 64` takes the same steps on the CPU, Triton under its interpreter: a rehearsal, not evidence.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import resonance_theory as rt
from resonance_theory import _extras, _output, kernels
from resonance_theory.evidence.studies.study import run_study
from resonance_theory.kernels import naive
from simulations.router_benchmark import contenders, provenance

__all__ = ["CHECKS", "main"]

NO_DEVICE = 77  # the customary exit status of a skipped test
SHAPES = {"A": (2**20, 4096, 64), "B": (2**18, 2048, 8)}  # tokens, dim, experts
STUDIES = ("router_scale", "capacity_scale", "homogenization_scale")
_FIELDS = ("expert", "token", "slot", "sample", "load")


def _tokens(shape: tuple[int, ...], device: str, dtype: str = "float32") -> Any:
    """Standard normal tokens of the named type; among them a zero token, two equal ones and two opposite ones."""
    import torch

    x = np.random.default_rng(20240615).standard_normal(shape, dtype=np.float32)
    x[..., 1, :] = 0
    x[..., 3, :] = x[..., 2, :]
    x[..., 5, :] = -x[..., 4, :]
    return torch.from_numpy(x).to(device=device, dtype=getattr(torch, dtype))


def _host(x: Any) -> np.ndarray:
    x = x.detach().cpu()
    return (x.float() if x.dtype.itemsize < 4 else x).numpy()


def check_array_functions(device: str, tokens: int) -> dict[str, Any]:
    """The array-agnostic affinity and rules on the device, in float64: same affinities, same assignments."""
    import torch

    x = _tokens((2, tokens, 96), device, "float64")
    affinity = rt.affinity(x, 8)
    error = float(np.abs(_host(affinity) - rt.affinity(_host(x), 8)).max())
    shared = torch.from_numpy(rt.affinity(_host(x), 8)).to(device)
    wrong = []
    for rule in ("token_choice", "expert_choice", "resonance"):
        route = getattr(rt, rule).route
        got, wanted = route(shared, max(1, tokens // 9)), route(shared.cpu().numpy(), max(1, tokens // 9))
        wrong += [f"{rule} {f}" for f in _FIELDS if not np.array_equal(_host(getattr(got, f)), getattr(wanted, f))]
    return {"passed": error < 1e-14 and not wrong, "largest_error": error, "wrong": wrong}


def check_affinities(device: str, tokens: int) -> dict[str, Any]:
    """The Triton kernel: same experts, and affinities that differ by one rounding in at most one token of 10^5."""
    from resonance_theory.kernels import gpu

    result: dict[str, Any] = {"passed": True}
    for dtype in ("float32", "bfloat16", "float16"):
        for dim, experts, top in ((96, 6, 2), (1024, 8, 1), (1024, 64, 1), (165, 5, 5)):
            x = _tokens((tokens, dim), device, dtype)
            (weight, expert), (wanted, best) = (
                gpu.top_affinity(x, experts, top),
                naive.top_affinity(_host(x), experts, top),
            )
            differ = int(np.count_nonzero((_host(weight) != wanted) | (_host(expert) != best)))
            error = float(np.abs(_host(weight) - wanted).max())
            result[f"{dtype} {dim}/{experts} top-{top}"] = {"differ": differ, "of": wanted.size, "largest_error": error}
            result["passed"] &= differ <= 1e-5 * wanted.size and error < 1e-7
    return result


def check_gradients(device: str, tokens: int) -> dict[str, Any]:
    """The gradient with respect to the tokens, through autograd on the device and by Triton where it serves."""
    import torch

    from resonance_theory.kernels import gpu

    result: dict[str, Any] = {"passed": True}
    for dtype in ("float32", "bfloat16"):
        x = _tokens((tokens, 160), device, dtype).requires_grad_()
        weight, expert = kernels.top_affinity(x, 5, top=2)
        pull = torch.linspace(-1, 1, weight.numel(), device=device).reshape(weight.shape)
        (weight * pull).sum().backward()
        wanted = naive.top_affinity_backward(_host(x).astype(np.float64), _host(expert), _host(pull), 5)
        errors = {
            "autograd": float(np.abs(_host(x.grad) - wanted).max()),
            "triton": float(np.abs(_host(gpu.top_affinity_backward(x.detach(), expert, pull, 5)) - wanted).max()),
        }
        result[dtype] = errors | {"largest_gradient": float(np.abs(wanted).max())}
        result["passed"] &= max(errors.values()) < float(torch.finfo(x.dtype).eps) * float(np.abs(wanted).max())
    return result


def check_assignments(device: str, tokens: int) -> dict[str, Any]:
    """Tokens to assignment on the device: the kept sets of the NumPy reference. Whole numbers, so no sum is rounded."""
    import torch

    wrong = []
    rng = np.random.default_rng(7)
    for top, experts in ((1, 8), (2, 8), (1, 1), (3, 64)):
        x = rng.integers(-3, 4, (2, tokens, experts * 16)).astype(np.float32)
        capacity = max(1, tokens * top // experts)
        got = kernels.route(torch.from_numpy(x).to(device), experts, capacity, top=top)
        wanted = naive.keep_heaviest(*naive.top_affinity(x, experts, top), experts, capacity)
        wrong += [
            f"{top}/{experts} {f}" for f in _FIELDS if not np.array_equal(_host(getattr(got, f)), getattr(wanted, f))
        ]
    return {"passed": not wrong, "wrong": wrong}


def check_bad_values(device: str, tokens: int) -> dict[str, Any]:
    """NaN and infinite tokens are refused, wherever they stand."""
    silent = []
    for value in (float("nan"), float("inf"), -float("inf")):
        for place in (0, tokens - 1):
            x = _tokens((tokens, 24), device)
            x[place, 23] = value
            try:
                kernels.route(x, 4, 1)
                silent.append(f"{value} in token {place}")
            except ValueError:
                pass
    return {"passed": not silent, "silent": silent}


def check_cupy(device: str, tokens: int) -> dict[str, Any]:
    """CuPy arrays, where CuPy is installed: they share torch's memory, and are routed alike."""
    if device != "cuda" or importlib.util.find_spec("cupy") is None:
        return {"passed": True, "note": "not run: needs a CUDA device and CuPy"}
    import torch

    cupy = importlib.import_module("cupy")
    x = _tokens((2, tokens, 96), device)
    lent = cupy.from_dlpack(x)
    wrong = [] if lent.data.ptr == x.data_ptr() == torch.from_dlpack(lent).data_ptr() else ["the memory is not shared"]
    capacity = max(1, tokens // 9)
    for name, got, wanted in (
        ("kernels", kernels.route(lent, 8, capacity), kernels.route(x, 8, capacity)),
        ("rules", rt.resonance.route(rt.affinity(lent, 8), capacity), rt.resonance.route(rt.affinity(x, 8), capacity)),
    ):
        if not isinstance(got.token, cupy.ndarray):
            wrong.append(f"{name} returned a {type(got.token).__name__}")
        if name == "kernels":  # sums of the rules are in single precision, in each library's own order
            fields = {f: (cupy.asnumpy(getattr(got, f)), _host(getattr(wanted, f))) for f in _FIELDS}
            wrong += [f"{name} {f}" for f, (one, other) in fields.items() if not np.array_equal(one, other)]
    return {"passed": not wrong, "wrong": wrong}


CHECKS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    name.removeprefix("check_"): value for name, value in list(globals().items()) if name.startswith("check_")
}


def benchmark(device: str, shape: tuple[int, int, int], dtype: str, repeats: int) -> dict[str, Any]:
    """Milliseconds from tokens to assignment, device time included by waiting for it.

    "copy" reads and writes x once; half of its time is the floor, one read of x at the bandwidth measured here. The
    dense gate is what learned routers do: a matrix product, softmax and top-1, without a capacity.
    """
    import torch

    tokens, dim, experts = shape
    x = torch.randn(shape[:2], device=device).to(getattr(torch, dtype))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    spare = torch.empty_like(x)
    gate = torch.randn(experts, dim, device=device).to(x.dtype)
    calls: dict[str, Callable[[Any], Any]] = {
        "copy": spare.copy_,
        "dense gate": lambda x: torch.softmax((x @ gate.T).float(), -1).max(-1),
    }
    chosen = contenders(experts, -(-tokens // experts))
    for name in ("kernel, torch tensor", "kernel, affinities only", "kernel, with gradient", "eager torch"):
        if dtype == "float32" or name.startswith("kernel"):
            calls[name] = chosen[name]
    result: dict[str, dict[str, Any]] = {}
    for name, call in calls.items():
        times = []
        for repeat in range(repeats + 3):
            wait()
            start = time.perf_counter()
            call(x)
            wait()
            if repeat >= 3:
                times.append(1e3 * (time.perf_counter() - start))
        low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
        result[name] = {"median_ms": float(f"{middle:.4g}"), "quartiles_ms": [float(f"{q:.4g}") for q in (low, high)]}
    floor = result["copy"]["median_ms"] / 2
    for row in result.values():
        row["over_floor"] = float(f"{row['median_ms'] / floor:.3g}")
    return {"tokens": tokens, "dim": dim, "experts": experts, "dtype": dtype, "calls": result}


def _device(name: str) -> str | None:
    """What stands in the way of running on the device, or None."""
    for module in ("torch", "triton"):
        if importlib.util.find_spec(module) is None:
            return _extras.hint(module)
    if name == "cuda" and not importlib.import_module("torch").cuda.is_available():
        return "this machine has no CUDA device"
    return None


def _write(folder: Path, name: str, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _output.write(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """`python -m simulations.gpu_suite`, for harnesses that know the exit status of a skipped test."""
    from resonance_theory.cli import gpu

    parser = argparse.ArgumentParser(prog="python -m simulations.gpu_suite", description="GPU checks and benchmarks.")
    gpu.options(parser)
    return run(parser.parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Check, simulate and time with the options of `resonance gpu`; returns the exit status."""
    if options.tokens < 8:
        raise ValueError(f"tokens = {options.tokens} must be a whole number of at least 8")
    begin = time.monotonic()
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported
    obstacle = _device(options.device)
    if obstacle:
        print(f"gpu_suite: nothing was checked: {obstacle}", file=sys.stderr)
        _write(Path(options.out), "checks", {"status": "not run", "reason": obstacle})
        return NO_DEVICE
    torch = importlib.import_module("torch")
    made = provenance(f"resonance gpu --out DIR --device {options.device} --tokens {options.tokens}")
    made["device"] = torch.cuda.get_device_name() if options.device == "cuda" else "cpu (Triton interpreted)"

    checks = {}
    for name, check in CHECKS.items():
        start = time.monotonic()
        checks[name] = check(options.device, options.tokens) | {"seconds": round(time.monotonic() - start, 2)}
        print(f"{'passed' if checks[name]['passed'] else 'FAILED'}  {name}", flush=True)
    passed = all(check["passed"] for check in checks.values())
    _write(
        Path(options.out), "checks", {"status": "passed" if passed else "failed", "provenance": made, "checks": checks}
    )
    if not passed:
        return 1

    libraries = ["torch"]
    if options.device == "cuda" and importlib.util.find_spec("cupy") is not None:
        libraries.append("cupy")
    for library in libraries:
        for name in STUDIES:
            # the large settings once, in torch
            large = options.device == "cuda" and library == "torch"
            study = run_study(name, full=large, backend=library, device=options.device)
            _write(
                Path(options.out), name if library == "torch" else f"{name}_{library}", study.to_json() | {"made": made}
            )
            print(f"{'passed' if study.passed else 'FAILED'}  {name} on {library}", flush=True)
            if not study.passed:
                return 1

    results, skipped = [], []
    shapes = SHAPES if options.device == "cuda" else {"tiny": (options.tokens, 64, 4)}
    for name, shape in shapes.items():
        for dtype in ("float32", "bfloat16"):
            if time.monotonic() - begin > 60 * options.minutes:
                skipped.append(f"{name} {dtype}")
                continue
            results.append(benchmark(options.device, shape, dtype, options.repeats))
            for call, row in results[-1]["calls"].items():
                print(f"{name} {dtype:<9} {call:<26} {row['median_ms']:>9} ms", flush=True)
    _write(Path(options.out), "benchmarks", {"provenance": made, "skipped": skipped, "benchmarks": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
