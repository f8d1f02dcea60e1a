"""Compiled kernels where the cache is missing, full or damaged, numba cannot compile, or threads meet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"), os.devnull + "/none")
TINY = """
from resonance_theory.kernels.jit import njit

@njit()
def once(x):
    return x + 1

@njit()
def twice(x):
    return once(x) + x
"""
TINY_CALL = "import tiny; print(tiny.twice(20) + tiny.once(0))"  # 42
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
PARALLEL = """
import threading
import numba, numpy as np
from resonance_theory.kernels.jit import njit, run

@njit(parallel=True)
def total(x):
    sums = np.zeros(64)
    for k in numba.prange(64):
        for j in range(k, x.size, 64):
            sums[k] += x[j]
    return sums.sum()

def work():
    for _ in range(300):
        results.add(run(total, 2**30, x))

x, results = np.arange(3000.0), set()

def main():
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(results, numba.threading_layer())
"""
ROUTES = """
import numpy as np
from resonance_theory import kernels
x = np.array([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 3, 4]])
kept = kernels.route(x, experts=2, capacity=1)
print(kernels.backend(x), kept.expert.tolist(), kept.token.tolist(), kept.load.tolist())
"""


@pytest.fixture
def child(tmp_path):
    """Runs code in a fresh process beside `tiny.py` and the cache of its functions: (output, lines of stderr)."""
    (tmp_path / "tiny.py").write_text(TINY)

    def run(code, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        env |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"} | environment
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    return run


def said(stderr):
    """What was said, each as often as it was said."""
    phrases = ("compiling the routing kernels", "cannot be kept", "cannot be read", "numba cannot compile")
    lines = [line for line in stderr.splitlines() if not line.startswith(" ")]  # a warning also shows its source
    return {phrase: count for phrase in phrases if (count := sum(phrase in line for line in lines))}


COMPILES = {"compiling the routing kernels": 1}


def test_compiles_once_and_says_so(child):
    assert [(out, said(err)) for out, err in (child(TINY_CALL), child(TINY_CALL))] == [("42", COMPILES), ("42", {})]


@pytest.mark.parametrize("place", [{}, {"NUMBA_CACHE_DIR": os.devnull + "/none"}])
def test_a_cache_without_a_place(child, tmp_path, place):
    (tmp_path / "__pycache__").touch()  # no folder can be made, not even by root
    out, err = child(TINY_CALL, **NOWHERE, **place)
    assert out == "42"
    assert said(err) == COMPILES | {"cannot be kept": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk(child):
    for _ in range(2):
        out, err = child(FULL_DISK + TINY_CALL)
        assert out == "42"
        assert said(err) == COMPILES | {"cannot be kept": 1}


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\x93" * 200])
def test_a_damaged_cache_is_written_anew(child, tmp_path, ending, damage):
    child(TINY_CALL)
    files = list((tmp_path / "__pycache__").glob(f"*.{ending}"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    out, err = child(TINY_CALL)
    assert out == "42"
    assert said(err) == COMPILES | {"cannot be read": 1}
    assert child(TINY_CALL) == ("42", "")


def test_a_cache_of_other_sources_is_not_used(child, tmp_path):
    """The file of a function may be the same while one of those that it calls has changed."""
    package = tmp_path / "resonance_theory"
    shutil.copytree(ROOT / "resonance_theory", package, ignore=shutil.ignore_patterns("__pycache__"))
    child(TINY_CALL)
    assert child(TINY_CALL) == ("42", "")
    with (package / "kernels" / "vectors.py").open("a") as file:
        file.write("# changed\n")
    out, err = child(TINY_CALL)
    assert (out, said(err)) == ("42", COMPILES)


def test_where_numba_cannot_compile_the_reference_serves(child, tmp_path):
    wanted = "naive [0, 1] [0, 2] [2, 1]"
    out, err = child(ROUTES, NUMBA_DISABLE_JIT="1")
    assert (out, said(err)) == (wanted, {"numba cannot compile": 1})
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
    out, err = child(ROUTES)
    assert (out, said(err)) == (wanted, {"numba cannot compile": 1})
    assert "Numba needs NumPy 1.0 or less" in err


@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_threads_that_meet(child, layer, tmp_path):
    """numba's own threads abort the process where two calls meet."""
    (tmp_path / "together.py").write_text(PARALLEL)
    out, _ = child("import together; together.main()", NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert out.startswith("{4498500.0} ")
    assert layer == "default" or out.endswith(" workqueue")


KEEPS = """
import torch
torch.set_num_threads(1)
import numpy as np
from resonance_theory import kernels
kernels.route(np.ones((3, 4)), experts=2, capacity=1)
print(torch.get_num_threads())
"""


def test_torch_keeps_its_threads(child):
    """numba's first kernel sets those of OpenMP, by which torch's sums would end in other digits."""
    pytest.importorskip("torch")
    assert child(KEEPS, NUMBA_NUM_THREADS="2")[0] == "1"
