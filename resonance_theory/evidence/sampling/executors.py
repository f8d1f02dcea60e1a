"""Executors by name: processes of this machine, a Dask cluster, MPI, or the tasks of a Slurm job.

Anything else with the interface of `concurrent.futures` can be given to `sampling.run`, `run_study` and `ledger.verify` as it is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

__all__ = ["NAMES", "named"]

NAMES = "processes, dask://HOST:PORT, mpi or slurm"


@contextlib.contextmanager
def named(name: str) -> Iterator[Executor | None]:
    """The executor of that name, open within; None for processes, which the pool starts itself.

    Args:
        name: "processes"; "dask://HOST:PORT", the scheduler of a Dask cluster (dask.distributed); "mpi", for a run under
            `mpiexec -n K python -m mpi4py.futures -m resonance_theory ...`; or "slurm", for a run under `sbatch` or
            `salloc`, each of whose tasks becomes a worker (executorlib).

    Raises:
        ValueError: The name is none of these, the cluster does not answer, or there is no Slurm job.
        ModuleNotFoundError: Its package is not installed.
    """
    if name == "processes":
        yield None
    elif found := re.fullmatch(r"dask://([^\s/]+:\d+)", name):
        with _dask(f"tcp://{found[1]}", name) as client:
            yield client.get_executor()
    elif name == "mpi":
        futures: Any = importlib.import_module("mpi4py.futures")
        with futures.MPIPoolExecutor() as executor:
            yield executor
    elif name == "slurm":
        with _slurm() as executor:
            yield executor
    else:
        raise ValueError(f"executor = {name!r} must be {NAMES}")


def _slurm() -> Any:
    tasks = os.environ.get("SLURM_NTASKS", "")
    if not tasks.isdecimal() or shutil.which("srun") is None:
        raise ValueError("executor = 'slurm' needs a job of Slurm with --ntasks: run it under sbatch or salloc")
    executorlib: Any = importlib.import_module("executorlib")
    # block_allocation keeps a task's Python for all blocks; there are no dependencies between blocks
    return executorlib.SlurmJobExecutor(max_workers=int(tasks), block_allocation=True, disable_dependencies=True)


@contextlib.contextmanager
def _dask(address: str, name: str) -> Iterator[Any]:
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=10, set_as_default=False)
    except (OSError, TimeoutError) as problem:
        raise ValueError(f"executor = {name!r} does not answer ({problem})") from None
    with client:
        yield client
