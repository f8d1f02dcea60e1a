"""Runs that are killed at random times, on every engine at hand: what is resumed ends with the same totals."""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resonance_theory.evidence.sampling import run
from tests.test_executors import SRUN, TASKS

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = 400
KILLS = 100  # over all engines
PROGRAM = """
import contextlib, json, os, sys
from concurrent.futures import ThreadPoolExecutor
from resonance_theory.evidence.sampling import Store, run
from resonance_theory.evidence.sampling.executors import named
from tests.test_executors import TASKS
from tests.test_kills import BLOCKS


@contextlib.contextmanager
def engine(name):
    if name == "threads":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    elif name == "dask":
        from distributed import LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            with named("dask://" + cluster.scheduler_address.removeprefix("tcp://")) as executor:
                yield executor
    else:
        with named(name) as executor:
            yield executor


def main():
    name, file = sys.argv[1:]
    with Store(file, resume=os.path.exists(file)) as store, engine(name) as executor:
        print("drawing", flush=True)
        totals = run(TASKS, BLOCKS, workers=2, executor=executor, store=store)
    print(json.dumps([totals[task.id].to_json() for task in TASKS]), flush=True)


if __name__ == "__main__":
    main()
"""
NEEDS = {"processes": None, "threads": None, "dask": "distributed", "mpi": "mpi4py", "slurm": "executorlib"}


def engines():
    found = [name for name, module in NEEDS.items() if module is None or importlib.util.find_spec(module)]
    return [name for name in found if name != "mpi" or shutil.which("mpiexec")]


def start(name, folder):
    (folder / "program.py").write_text(PROGRAM)
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    before = ["mpiexec", "-n", "2"] if name == "mpi" else []
    module = ["-m", "mpi4py.futures"] if name == "mpi" else []
    here = {"PYTHONPATH": str(ROOT), "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_NTASKS": "2"}
    here |= {"SRUN_LOG": str(folder / "log"), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.Popen(
        [*before, sys.executable, *module, str(folder / "program.py"), name, str(folder / "store.jsonl")],
        env=os.environ | here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed(name, folder, rng, among):
    """Kill a run, with its workers, at a random time after it began to draw, among blocks or not; whether it was still at it."""
    process = start(name, folder)
    assert process.stdout.readline() == "drawing\n", process.communicate()[1]
    if among:  # the others meet workers that still start
        before, patience = stored(folder), time.monotonic() + 60
        while process.poll() is None and stored(folder) == before and time.monotonic() < patience:
            time.sleep(0.005)
    time.sleep(rng.uniform(0.0, 0.3))
    late = process.poll() is not None
    signals = [signal.SIGKILL, signal.SIGTERM]  # a crash; a preemption, of the whole group as of the parent alone
    sent, whole = rng.choice(signals), rng.random() < 0.7
    try:
        os.killpg(process.pid, sent) if whole else process.send_signal(sent)
    except ProcessLookupError:
        late = True
    time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # no one is left who could write
    process.communicate()
    return not late


def stored(folder):
    file = folder / "store.jsonl"
    return file.read_text().count('"block"') if file.exists() else 0


def survives(name, folder, kills, rng):
    """The totals after that many kills, a fresh store whenever a run came to its end."""
    done, most = 0, 0
    while done < kills:
        if killed(name, folder, rng, among=done == 0 or rng.random() < 0.7):
            done += 1
            most = max(most, stored(folder))
        else:
            (folder / "store.jsonl").unlink()
    assert most > 0  # some had drawn blocks
    process = start(name, folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="ends process groups")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_random_kills_lose_nothing(tmp_path, seed):
    alone = run(TASKS, BLOCKS)
    wanted = [alone[task.id].to_json() for task in TASKS]
    names = engines() if seed else ["processes"]
    rng = random.Random(seed)
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        assert survives(name, folder, -(-KILLS // len(names)) if seed else 3, rng) == wanted
