"""The benchmark and the GPU suite at tiny sizes: that they run, record and refuse; never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]


def start(module, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"simulations.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_rehearsal_on_the_cpu(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed: pip install 'resonance-theory[triton]' (Linux)")
    done = start("gpu_suite", "--device", "cpu", "--tokens", 40, "--repeats", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert checks["status"] == "passed"
    assert checks["provenance"]["device"].startswith("cpu")
    assert len(checks["checks"]) == 6
    from simulations.gpu_suite import STUDIES

    assert all(json.loads((tmp_path / f"{name}.json").read_text())["passed"] for name in STUDIES)
    assert "homogenization_scale" in STUDIES
    benchmarks = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {b["dtype"] for b in benchmarks["benchmarks"]} == {"float32", "bfloat16"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_says_that_there_is_no_device(tmp_path):
    done = start("gpu_suite", "--out", tmp_path)
    assert done.returncode == 77
    assert "nothing was checked" in done.stderr
    assert json.loads((tmp_path / "checks.json").read_text())["status"] == "not run"
    assert not (tmp_path / "benchmarks.json").exists()


def test_a_wrong_path_fails_the_suite(tmp_path, monkeypatch):
    from simulations import gpu_suite

    monkeypatch.setattr(gpu_suite, "_device", lambda name: None)
    real = gpu_suite.kernels.route

    def late_ties(x, experts, capacity, *, top=1):  # keeps the later of two equal tokens
        kept = real(x.flip(-2), experts, capacity, top=top)
        return type(kept)(**{**vars(kept), "token": x.shape[-2] - 1 - kept.token})

    for check, wrong in (("assignments", late_ties), ("bad_values", lambda *a, **k: None)):
        assert gpu_suite.CHECKS[check]("cpu", 40)["passed"]
        with monkeypatch.context() as patch:
            patch.setattr(gpu_suite.kernels, "route", wrong)
            assert not gpu_suite.CHECKS[check]("cpu", 40)["passed"]


def test_benchmark_measures_every_contender():
    pytest.importorskip("numba")
    from simulations import router_benchmark as benchmark

    shape = benchmark.measure((96, 32, 4), 2, cold=1)
    assert shape["capacity"] == 27
    assert set(shape["routers"]) >= {*benchmark.GOALS, "eager torch"}
    assert all(row["median_ms"] > 0 for row in shape["routers"].values())
    made = benchmark.provenance("test")
    slow = {**shape, "routers": {n: {**row, "ratio": 3 * row["ratio"]} for n, row in shape["routers"].items()}}
    record = {"runs": [{"A": shape}, {"A": slow}], "provenance": made}
    ratio = shape["routers"]["kernel"]["ratio"]
    row = benchmark.summary(record, "A")["kernel"]
    assert (row["least"], row["ratio"], row["largest"]) == pytest.approx((ratio, 2 * ratio, 3 * ratio), rel=1e-3)
    text = benchmark.table(record)
    assert made["cpu"] in text
    assert all(name in text for name in shape["routers"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
def test_memory_beyond_the_outputs_is_seen(monkeypatch):
    from simulations import router_benchmark as benchmark

    made = {
        "output only": lambda x: [(x + 1, "no array"), None],
        "one copy": lambda x: (x + 1).sum(),
        "three copies": lambda x: torch.cat([x, x, x])[:1].clone(),
    }
    monkeypatch.setattr(benchmark, "contenders", lambda experts, capacity: made)
    share = benchmark._memory_here({"A": (2**15, 512, 4)})["A"]  # 67 MB, which no allocator keeps
    assert share["output only"] < 0.02
    assert share["one copy"] == pytest.approx(1, abs=0.02)
    assert share["three copies"] == pytest.approx(3, abs=0.02)


def test_eager_torch_is_the_same_rule():
    from resonance_theory import kernels
    from simulations.router_benchmark import contenders

    x = torch.randn(300, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    token, expert, slot, load = contenders(4, 50)["eager torch"](x)
    kept = kernels.route(x, 4, 50)
    for got, wanted in ((token, kept.token), (expert, kept.expert), (slot, kept.slot), (load, kept.load)):
        assert torch.equal(got, wanted)
