"""One thread for everything that is sampled, so that sums of floating-point numbers are grouped alike everywhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

__all__ = ["one_thread"]

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it, linear algebra (BLAS, OpenMP, PyTorch) runs on one thread; afterwards as before.

    Libraries already loaded are told; one that is loaded within, and a process started within, reads the environment.
    """
    before = {name: os.environ.get(name) for name in _VARIABLES}
    loaded = sys.modules.get("torch")
    threads = loaded.get_num_threads() if loaded else int(before["OMP_NUM_THREADS"] or os.cpu_count() or 1)
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        with threadpool_limits(limits=1):
            if loaded:
                loaded.set_num_threads(1)  # its MKL is linked statically, out of threadpoolctl's sight
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
