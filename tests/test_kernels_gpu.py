"""The Triton kernels without a GPU: interpreted on the CPU, and compiled for an H100 (sm_90)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed: pip install 'resonance-theory[triton]' (Linux)")

ROOT = Path(__file__).resolve().parents[1]

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from resonance_theory.kernels import gpu

outputs = {"forward_kernel": {"weight": "*fp32", "chosen": "*i64"},
           "backward_kernel": {"chosen": "*i64", "gradient": "*fp32", "result": "*%s"}}
for dtype in ("fp32", "bf16"):
    for dim, experts, top in ((1024, 8, 1), (2048, 16, 2), (1024, 64, 1)):
        sizes = gpu.constants(dim, experts, top)
        for name, pointers in outputs.items():
            signature = {"x": f"*{dtype}", **{k: v.replace("%s", dtype) for k, v in pointers.items()}, "tokens": "i64"}
            aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(pointers) + 1)}
            source = ASTSource(getattr(gpu, name), signature | dict.fromkeys(sizes, "constexpr"), sizes, aligned)
            built = triton.compile(source, target=GPUTarget("cuda", 90, 32))
            wide = "ld.global.v4.b32" in built.asm["ptx"]
            print(name, dtype, dim, experts, len(built.asm["cubin"]) > 0, ".target sm_90" in built.asm["ptx"], wide)
"""


def run(arguments, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_interpreted():
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interpreted_kernels.py"]
    assert " failed" not in run(arguments, TRITON_INTERPRET="1")


def test_compiles_for_an_h100(tmp_path):
    lines = run(["-W", "ignore", "-c", COMPILE], TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0").splitlines()
    assert len(lines) == 12
    for line in lines:
        assert line.endswith("True True True"), line  # a cubin, for sm_90, with 16-byte reads
