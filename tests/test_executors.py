"""Executors and shards: the totals are the same bits on any of them, and parts add up or are refused."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from resonance_theory.cli import main
from resonance_theory.evidence.claims import ledger
from resonance_theory.evidence.sampling import SamplerError, Store, Tally, Task, engine, run
from resonance_theory.evidence.sampling.executors import named
from resonance_theory.evidence.sampling.task import versions

ROOT = Path(__file__).resolve().parents[1]
HERE = "tests.test_executors"
BLOCKS = 7


def coins(rng, trials, *, p):
    time.sleep(0.002 * rng.random())  # so that blocks end in any order
    return {"heads": int(np.count_nonzero(rng.random(trials) < p))}


def failing(rng, trials):
    raise OSError("the table is gone")


def dying(rng, trials):
    os._exit(3)


TASKS = [Task(f"coin {p}", f"{HERE}:coins", {"p": p}, 100, seed=5) for p in (0.1, 0.5, 0.8)]


@pytest.fixture(scope="module")
def alone():
    return run(TASKS, BLOCKS)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_executor_of_concurrent_futures(alone, pool, workers):
    options = {"mp_context": get_context("spawn")} if pool is ProcessPoolExecutor else {}
    with pool(workers, **options) as executor:
        assert run(TASKS, BLOCKS, workers=workers, executor=executor) == alone
        assert executor.submit(abs, -1).result() == 1  # left open


def test_a_failure_in_an_executor_is_told_and_ends_the_run(tmp_path):
    bad = Task("bad", f"{HERE}:failing", {}, 10)
    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(SamplerError, match="bad, block 0: OSError: the table is gone"),
    ):
        run([bad], 3, executor=executor)
    killed = Task("killed", f"{HERE}:dying", {}, 10)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(SamplerError, match="a worker process died"),
    ):
        run([killed], 3, executor=executor)


def test_a_worker_with_other_code_or_versions_is_refused():
    task = TASKS[0]
    assert engine._sample_elsewhere(task, 0, task.id, versions()) == task.sample(0)
    for id, made in ((TASKS[1].id, versions()), (task.id, versions() | {"numpy": "1.0"})):
        with pytest.raises(ValueError, match="has other code or versions"):
            engine._sample_elsewhere(task, 0, id, made)


def test_dask(alone):
    distributed = pytest.importorskip("distributed")
    for processes in (True, False):
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1 + (not processes), processes=processes, dashboard_address=None
        ) as cluster:
            address = cluster.scheduler_address.removeprefix("tcp://") if processes else None
            if address is None:
                with distributed.Client(cluster) as client:
                    assert run(TASKS, BLOCKS, workers=2, executor=client.get_executor()) == alone
                continue
            with named(f"dask://{address}") as executor:
                assert run(TASKS, BLOCKS, workers=2, executor=executor) == alone
                book = ledger.verify(["cap_law"], workers=2, executor=executor)
    (here,) = ledger.verify(["cap_law"]).results
    (there,) = book.results
    assert [check["rows"] for check in there["checks"]] == [check["rows"] for check in here["checks"]]
    assert there["verdict"] == here["verdict"] == "PROVED"


MPI = f"""
import json
from resonance_theory.evidence.sampling import run
from resonance_theory.evidence.sampling.executors import named
from {HERE} import TASKS, BLOCKS
if __name__ == "__main__":
    with named("mpi") as executor:
        totals = run(TASKS, BLOCKS, workers=2, executor=executor)
    print(json.dumps([totals[task.id].to_json() for task in TASKS]))
"""


def test_two_processes_of_mpi(alone, tmp_path):
    pytest.importorskip("mpi4py")
    launcher = shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("mpiexec is not installed")
    (tmp_path / "totals.py").write_text(MPI)
    command = [launcher, "-n", "2", sys.executable, "-m", "mpi4py.futures", str(tmp_path / "totals.py")]
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env={**os.environ, **allowed}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [alone[task.id].to_json() for task in TASKS]


SRUN = """#!/bin/sh
# a node of one machine: `srun` without its options
echo called >> "$SRUN_LOG"
while [ "${1#-}" != "$1" ]; do [ "$1" = -n ] && shift; shift; done
exec "$@"
"""


def test_tasks_of_a_slurm_job(alone, tmp_path, monkeypatch):
    pytest.importorskip("executorlib")
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SRUN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with named("slurm") as executor:
        assert run(TASKS, BLOCKS, workers=2, executor=executor) == alone
    assert (tmp_path / "log").read_text().split() == ["called"] * 2  # a Python for each task, not for each block


def test_slurm_without_a_job(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(ValueError, match="executor = 'slurm' needs a job of Slurm"), named("slurm"):
        pass


@pytest.mark.parametrize("name", ["threads", "dask://", "dask://host", "dask://a b:1", ""])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=r"must be processes, dask://HOST:PORT, mpi or slurm"), named(name):
        pass


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 3, 10, 50])
def test_shards_have_every_block_once(alone, shards, tmp_path):
    files, sizes = [], []
    for i in range(1, shards + 1):
        files.append(tmp_path / f"{i}.jsonl")
        with Store(files[-1], resume=False) as store:
            run(TASKS, BLOCKS, store=store, shard=(i, shards))
            sizes.append(sum(map(len, store.blocks.values())))
    assert sum(sizes) == len(TASKS) * BLOCKS
    assert max(sizes) - min(sizes) <= 1
    random.Random(shards).shuffle(files)
    assert main(["merge", str(tmp_path / "all.jsonl"), *map(str, files)]) == 0
    with Store(tmp_path / "all.jsonl", resume=True) as store:
        before = (tmp_path / "all.jsonl").read_bytes()
        assert run(TASKS, BLOCKS, store=store) == alone
    assert (tmp_path / "all.jsonl").read_bytes() == before  # nothing was left to draw


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err


def test_stores_that_overlap_or_leave_gaps_are_refused(capsys, tmp_path):
    def part(i, n):
        path = tmp_path / f"{i}of{n}.jsonl"
        with Store(path, resume=False) as store:
            run(TASKS, BLOCKS, store=store, shard=(i, n))
        return path

    out = tmp_path / "all.jsonl"
    one, two, three, half = part(1, 3), part(2, 3), part(3, 3), part(1, 2)
    assert "which" in (said := refused(capsys, "merge", out, one, two, three, half))
    assert "has too" in said
    assert "has too" in refused(capsys, "merge", out, one, one)
    assert "lack block" in refused(capsys, "merge", out, part(1, 5), part(5, 5))
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text(one.read_text().replace("heads", "tails", 1))
    assert "damaged or no store" in refused(capsys, "merge", out, damaged, two, three)
    assert "must be a store" in refused(capsys, "merge", out, tmp_path / "none.jsonl")
    assert not out.exists()
    torn = one.read_bytes() + b'{"crc": 1'
    one.write_bytes(torn)
    assert main(["merge", str(out), *map(str, (one, two, three))]) == 0
    assert one.read_bytes() == torn  # a part is left as it is
    assert "must be a new file" in refused(capsys, "merge", out, one, two, three)


def test_a_study_in_shards_is_the_study(capsys, tmp_path):
    (tmp_path / "die.py").write_text((ROOT / "simulations" / "_template.py").read_text())
    (tmp_path / "die.toml").write_text("[quick]\nblocks = 5\nblock_size = 8000\nsides = [6, 8]\n")
    study = str(tmp_path / "die.py")
    assert main(["simulate", study, "--json", str(tmp_path / "whole.json")]) == 0
    stores = [str(tmp_path / f"{i}.jsonl") for i in range(1, 15)]
    for i, file in enumerate(stores, start=1):  # more shards than blocks
        assert main(["simulate", study, "--shard", f"{i}/14", "--store", file]) == 0
    assert main(["merge", str(tmp_path / "all.jsonl"), *stores]) == 0
    resumed = ["--store", str(tmp_path / "all.jsonl"), "--resume", "--json", str(tmp_path / "merged.json")]
    assert main(["simulate", study, *resumed]) == 0
    whole, merged = (json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in ("whole", "merged"))
    assert whole == merged
    assert "give --store" in refused(capsys, "simulate", study, "--shard", "1/2")


def test_a_ledger_in_shards_is_the_ledger(capsys, tmp_path):
    words = ["verify", "cap_law", "exchangeability_identity", "locmoe_angle"]
    parts = [str(tmp_path / f"{i}.json") for i in (1, 2)]
    for i, part in enumerate(parts, start=1):
        assert main([*words, "--shard", f"{i}/2", "--json", part]) == 0
    assert main([*words, "--json", str(tmp_path / "whole.json")]) == 0
    assert main(["merge", str(tmp_path / "all.json"), *parts]) == 0
    assert main(["compare", str(tmp_path / "whole.json"), str(tmp_path / "all.json")]) == 0
    whole, merged = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "all"))
    assert whole.keys() == merged.keys()

    def timeless(record):
        if isinstance(record, dict):
            return {key: timeless(value) for key, value in record.items() if key not in ("seconds", "time")}
        return list(map(timeless, record)) if isinstance(record, list) else record

    assert timeless(whole) == timeless(merged)
    assert "lack 1 claims" in refused(capsys, "merge", tmp_path / "x.json", parts[0])
    assert "has too" in refused(capsys, "merge", tmp_path / "x.json", parts[0], parts[0])
    assert "must be of `resonance verify --shard`" in refused(
        capsys, "merge", tmp_path / "x.json", tmp_path / "all.json"
    )
    other = json.loads(Path(parts[1]).read_text()) | {"seed": 9}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "has seed = 9" in refused(capsys, "merge", tmp_path / "x.json", parts[0], tmp_path / "other.json")
    assert "holds none of 3 claims" in refused(capsys, *words, "--shard", "4/4")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "+1/2", "1/2/3"])
def test_a_shard_that_is_none(capsys, text):
    assert "must be I/N" in refused(capsys, "simulate", "success_rate", "--shard", text)


def test_tallies_add_up_in_any_order():
    parts = [Tally(3, {"a": 1}), Tally(2, {"b": 2}), Tally(1, {"a": 0, "b": 1})]
    assert sum(parts, Tally()) == sum(reversed(parts), Tally())
