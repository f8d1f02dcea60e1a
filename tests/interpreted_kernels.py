"""The Triton kernels on the CPU, under Triton's interpreter: test_kernels_gpu.py starts this with TRITON_INTERPRET=1.

CPU tensors are sent down the path of CUDA tensors; everything between the public functions and the kernels is real.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resonance_theory import kernels
from resonance_theory.kernels import gpu, naive
from tests.test_kernels import by_definition, cases, entries


@pytest.fixture(autouse=True)
def _as_cuda(monkeypatch):
    monkeypatch.setattr("resonance_theory.kernels.dispatch.backend", lambda x: "triton")


def test_routes_as_defined():
    for x, experts, capacity, top in cases(24, seed=2):
        routed = kernels.route(torch.asarray(x), experts, capacity, top=top)
        weight, expert = kernels.top_affinity(torch.asarray(x), experts, top=top)
        slot, _ = kernels.slots(weight, expert, experts, capacity)
        for b, sample in enumerate(x.tolist()):
            kept, load, choice = by_definition(sample, experts, capacity, top)
            assert entries(routed, b) == kept
            assert routed.load[b].tolist() == load
            got = torch.stack([weight[b].double(), expert[b].double(), slot[b].double()], dim=-1)
            assert got.tolist() == [[list(map(float, one)) for one in own] for own in choice]


# several tiles to a block, blocks that fill no tile, more experts than columns, one expert
SHAPES = [(37, 8, 16, 1), (18, 6, 33, 2), (3, 1, 4100, 1), (5, 64, 16, 3), (2, 300, 40, 2)]


@pytest.mark.parametrize(("tokens", "experts", "block", "top"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_like_the_reference(tokens, experts, block, top, dtype):
    torch.manual_seed(tokens)
    x = torch.randn(2, tokens, experts * block).to(dtype)
    x[0, 1] = 0
    x.requires_grad_()
    weight, expert = kernels.top_affinity(x, experts, top=top)
    wanted = naive.top_affinity(x.detach().numpy() if dtype == torch.float32 else x.detach(), experts, top)
    assert np.array_equal(weight.detach(), wanted[0])
    assert np.array_equal(expert, wanted[1])
    pull = torch.randn(weight.shape)
    (weight * pull).sum().backward()
    gradient = naive.top_affinity_backward(x.detach(), expert, pull, experts).double()
    torch.testing.assert_close(x.grad.double(), gradient, rtol=torch.finfo(dtype).eps, atol=1e-7)
    assert not x.grad[0, 1].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, in the interpreter
def test_values_that_are_not_finite(value):
    x = torch.ones(20, 24)
    x[13, 7] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        kernels.route(x, 4, 3)


def test_strided_tokens():
    x = torch.randn(24, 50).T
    assert torch.equal(kernels.route(x, 4, 9).token, kernels.route(x.contiguous(), 4, 9).token)


def test_a_program_holds_a_bounded_tile():
    for dim, experts in ((1024, 8), (2048, 16), (1024, 64), (8192, 1), (8192, 4096), (12, 4)):
        sizes = gpu.constants(dim, experts, 1)
        assert sizes["EXPERTS"] * sizes["TOKENS"] * sizes["COLUMNS"] <= 4096
