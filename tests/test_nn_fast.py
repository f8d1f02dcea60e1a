"""The CPU kernels behind the torch router agree with torch's own operations, and give way where they may not run."""

import pytest

torch = pytest.importorskip("torch")

from resonance_theory import kernels  # noqa: E402
from resonance_theory.nn import ResonanceRouter, fast  # noqa: E402
from resonance_theory.nn.cosines import cosines  # noqa: E402
from resonance_theory.nn.gates import GroupedAveragePooling, SimplexGate  # noqa: E402

pytestmark = pytest.mark.skipif(not kernels.dispatch.usable("numba"), reason="numba cannot compile here")


def tokens(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def plain(monkeypatch):
    """Run a function without the kernels."""

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(fast, "_usable", lambda *_: False)
            return function()

    return run


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gate", [GroupedAveragePooling, SimplexGate])
def test_affinities_and_their_gradient(plain, dtype, gate):
    x, pull = tokens(3, 50, 48, dtype=torch.float64).to(dtype), tokens(3, 50, 6, seed=1, dtype=torch.float64)
    x[0, 7] = 0

    def both():
        leaf = x.clone().requires_grad_()
        score = gate(48, 6)(leaf)
        score.backward(pull.to(score.dtype))
        return score.detach(), leaf.grad

    (score, grad), (wanted, wanted_grad) = both(), plain(both)
    exact = plain(lambda: gate(48, 6)(x.double()))
    eps = 1e-15 if dtype == torch.float64 else 2e-7
    assert score.dtype == wanted.dtype
    assert (score - exact).abs().max() < eps  # one rounding of the exact value
    assert grad.dtype == dtype
    loose = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(grad, wanted_grad, rtol=loose, atol=loose)
    assert not grad[0, 7].any()


def test_bits_of_the_kernels():
    x = tokens(400, 96)
    score = fast.affinities(x, 12)
    best, expert = kernels.top_affinity(x, 12)
    assert torch.equal(score.max(-1).values, best[:, 0])
    assert torch.equal(score.argmax(-1), expert[:, 0])
    alone = torch.stack([fast.affinities(row[None], 12)[0] for row in x[:20]])
    assert torch.equal(alone, score[:20])  # whatever stands beside a token


def test_rows_that_are_not_finite_or_leave_the_range():
    x = tokens(6, 32)
    x[1, 3], x[2, 0], x[3], x[4] = torch.nan, torch.inf, x[3] * 1e-30, x[4] * 1e30
    x.requires_grad_()
    score = fast.affinities(x, 4)
    assert score.isnan().any(-1).tolist() == [False, True, True, False, False, False]
    score[[0, 3, 4, 5]].square().sum().backward()
    double = x.detach().double()[[0, 3, 4, 5]].requires_grad_()
    cosines(double, 4).square().sum().backward()
    torch.testing.assert_close(x.grad[[0, 3, 4, 5]].double(), double.grad, rtol=1e-5, atol=0)


def test_second_derivatives_and_forward_mode():
    gate, x = GroupedAveragePooling(12, 3), tokens(4, 12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gate, (x,))
    assert torch.autograd.gradgradcheck(gate, (x,))
    _, tangent = torch.func.jvp(gate, (x.detach(),), (torch.ones_like(x),))
    step = 1e-6
    moved = (gate(x.detach() + step) - gate(x.detach() - step)) / (2 * step)
    torch.testing.assert_close(tangent, moved, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rule", ["resonance", "token_choice"])
@pytest.mark.parametrize("gates", ["grap", "linear", "grap-centred"])
@pytest.mark.parametrize(("top", "factor"), [(1, 1.1), (2, 0.5), (3, 4.0)])
def test_the_same_routing_and_statistics(plain, rule, gates, top, factor):
    x, real = (
        tokens(3, 64, 24, dtype=torch.float64),
        torch.rand(3, 64, generator=torch.Generator().manual_seed(2)) > 0.3,
    )
    x[0, 10] = x[0, 3]  # equal tokens: ties
    torch.manual_seed(4)
    router = ResonanceRouter(24, 6, rule=rule, gates=gates, top=top, capacity_factor=factor).double()
    for mask in (None, ~real):
        found, wanted = router(x, mask), plain(lambda mask=mask: router(x, mask))
        for name in ("filled", "load", "expert"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        assert torch.equal(found.token * found.filled, wanted.token * wanted.filled)
        torch.testing.assert_close(found.weight, wanted.weight, rtol=1e-13, atol=1e-15)
    sums = {}
    for way, run in (("kernels", lambda f: f()), ("torch", plain)):
        router.statistics.reset()
        run(lambda: [router(x), router(x, ~real), router(x.float())])
        sums[way] = router.statistics.summary()
    for name, value in sums["torch"].items():
        assert sums["kernels"][name] == pytest.approx(value, rel=1e-6), name


def test_empty_and_degenerate_calls(plain):
    router = ResonanceRouter(8, 4)
    for shape in ((0, 8), (2, 0, 8), (1, 8)):
        found, wanted = router(torch.ones(shape)), plain(lambda shape=shape: router(torch.ones(shape)))
        assert torch.equal(found.filled, wanted.filled)
    everything = torch.ones(5, dtype=torch.bool)
    assert not router(tokens(5, 8), everything).filled.any()
