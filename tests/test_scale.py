"""Studies at scale on every array library here, and the same totals for any number of ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resonance_theory.evidence import statistics
from resonance_theory.evidence.sampling import Task, ranks, run
from resonance_theory.evidence.studies.study import run_study
from resonance_theory.tokens import signals
from simulations import capacity_scale, homogenization_scale, router_scale

ROOT = Path(__file__).resolve().parents[1]
CASE = {"tokens": 32, "dim": 16, "experts": 4, "signal": 1.5, "capacities": [3, 8]}
GRID = {"grid": [{"tokens": 32, "dim": 16, "experts": 4, "signal": 1.5, "capacities": [3, 8]}]}


def rejected(case, counts, trials):
    """Wrong laws that some rate of the case refutes; every rate agrees with its own law."""
    assert counts.keys() == case.laws.keys()
    for key, law in case.laws.items():
        assert statistics.equal(counts[key], trials, law, 1e-8).holds, (key, counts[key] / trials, law)
    return {
        name
        for name, wrong in case.mutants.items()
        if any(statistics.equal(counts[key], trials, rate, 1e-8).fails for key, rate in wrong.items() if key in counts)
    }


@pytest.mark.parametrize("backend", ["numpy", "torch", "cupy"])
def test_every_library_follows_the_laws(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed here")
    device = "cuda" if backend == "cupy" else "cpu"
    trials = 4000
    counts = router_scale.sample(np.random.default_rng(3), trials, **CASE, backend=backend, device=device)
    (case,) = router_scale.cases(GRID)
    assert rejected(case, counts, trials) == case.mutants.keys()


@pytest.mark.parametrize("backend", ["numpy", "torch", "cupy"])
def test_homogenization_of_token_vectors_on_every_library(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed here")
    device = "cuda" if backend == "cupy" else "cpu"
    grid = [{"dim": 2, "experts": 2, "kept": [1.0, 0.5]}, {"dim": 32, "experts": 8, "kept": [1.0, 0.25]}]
    trials, failed, named = 100_000, set(), set()
    for case in homogenization_scale.cases({"grid": grid, "pairs_per_sample": 500}):
        counts = case.sampler(np.random.default_rng(5), trials, **case.parameters, backend=backend, device=device)
        named |= case.mutants.keys()
        failed |= rejected(case, counts, trials)
    assert failed == named
    assert len(named) == 4


def test_pairs_that_two_experts_share():
    count, n, samples = 60, 5, 40_000
    loads = np.random.default_rng(2).multinomial(count, [1 / n] * n, size=samples)
    expert = np.repeat(np.tile(np.arange(n), samples), loads.ravel()).reshape(samples, count)
    split = (expert[:, 0::2] != expert[:, 1::2]).mean()
    assert homogenization_scale._split(count, n) == pytest.approx(split, abs=5 * 0.5 / np.sqrt(samples * count / 2))
    with pytest.raises(ValueError, match="70 pairs in a block must be a multiple of pairs_per_sample = 50"):
        homogenization_scale.pairs(np.random.default_rng(0), 70, dim=8, experts=2, pairs_per_sample=50)


@pytest.mark.parametrize("study", ["router_scale", "capacity_scale"])
def test_the_studies_pass(study):
    result = run_study(study, progress=None)
    assert result.passed, result.table()
    assert result.provenance["command"].endswith("--backend numpy --device cpu --seed 0 --record")


def test_measured_capacities_are_the_least():
    (case,) = capacity_scale.cases({"grid": [{"tokens": 64, "dim": 16, "experts": 4, "signal": 2.0, "targets": [0.8]}]})
    goal = 0.8 * float(signals.hit_rate(2.0, 4))
    for rule, c in capacity_scale.least(64, 16, 4, 2.0, 0.8).items():
        assert case.laws[f"{rule} C={c}"] >= goal
        assert all(law < goal for key, law in case.laws.items() if key.startswith(rule) and int(key.split("=")[1]) < c)


def test_a_device_needs_its_library():
    with pytest.raises(ValueError, match="device = 'cuda' must be 'cpu' for backend = 'numpy'"):
        run_study("router_scale", device="cuda")
    with pytest.raises(ValueError, match="backend = 'torch' must be numpy for the study success_rate"):
        run_study("success_rate", backend="torch")


SCRIPT = """
import json, sys
from pathlib import Path
from resonance_theory.tokens import signals
from resonance_theory.evidence.sampling import Task, ranks, run
case = json.loads(sys.argv[2])
tasks = [Task("a", "simulations._success:sample", case, 40), Task("b", "simulations._success:sample", case, 30)]
blocks = {tasks[0].id: 5, tasks[1].id: 1}  # the second rank meets no block of the second task
totals = run(tasks, blocks)
Path(sys.argv[1], f"{ranks.rank()}.json").write_text(json.dumps([totals[t.id].to_json() for t in tasks]))
"""


def test_two_ranks_give_the_totals_of_one(tmp_path):
    pytest.importorskip("torch", reason="torchrun needs torch")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(tmp_path), json.dumps(CASE)]
    done = subprocess.run([sys.executable, *command, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tasks = [Task("a", "simulations._success:sample", CASE, 40), Task("b", "simulations._success:sample", CASE, 30)]
    alone = run(tasks, {tasks[0].id: 5, tasks[1].id: 1})
    expected = [alone[task.id].to_json() for task in tasks]
    assert expected[0]["trials"] == 200
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected


def test_without_torchrun_there_is_one_rank():
    assert (ranks.rank(), ranks.world()) == (0, 1)
