"""torch.compile with its code generator: the router and a training step without a graph break, with the same results."""

from __future__ import annotations

import os
import shutil

import pytest

import resonance_theory as rt

torch = pytest.importorskip("torch")
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="torch.compile generates C++ and this machine has no C++ compiler"),
    # The generator's and torch's own warnings, about its internals and about array_api_compat's cached functions.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch._dynamo.reset()


def batch():
    x = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(20) >= torch.tensor([20, 13, 0])[:, None]


def router(fused, **options):
    return rt.nn.ResonanceRouter(24, 4, top=2, statistics=False, normalize=True, fused=fused, **options)


def compiled(function):
    try:
        return torch.compile(function, fullgraph=True, backend="inductor")
    except RuntimeError as error:
        pytest.skip(f"torch.compile does not work here: {error}")


@pytest.mark.parametrize("fused", [True, pytest.param(False, marks=pytest.mark.long)])
def test_router(fused):
    r = router(fused)
    x, mask = batch()
    wanted, got = r(x, mask), compiled(r)(x, mask)
    for name in ("token", "filled", "load", "expert"):
        assert torch.equal(getattr(got, name), getattr(wanted, name))
    torch.testing.assert_close(got.weight, wanted.weight)


@pytest.mark.long
@pytest.mark.parametrize("fused", [True, False])
def test_training_step(fused):
    layer = rt.nn.ResonanceMoE(router(fused, capacity_factor=0.8), rt.nn.FeedForwardExperts(24, 8, 4))
    local = torch.arange(4) < 2

    def step(x, mask):
        y, routing = layer(x, mask, return_routing=True)
        loss = (y * y).sum()
        return loss if fused else loss + routing.load_balance() + routing.locality(local, epsilon=0.1)

    gradients = []
    for function in (step, compiled(step)):
        x, mask = batch()
        x.requires_grad_()
        layer.zero_grad()
        loss = function(x, mask)
        loss.backward()
        gradients.append([loss.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for got, wanted in zip(*gradients):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
