"""The kernels as torch operators: gradients, compilation, types and devices."""

from __future__ import annotations

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import kernels
from resonance_theory.kernels import dispatch, naive

torch = pytest.importorskip("torch")


def tokens(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=["numba", "naive"])
def backend(request, monkeypatch):
    if request.param == "naive":
        monkeypatch.setattr("resonance_theory.kernels.dispatch.usable", lambda _: False)
    else:
        pytest.importorskip("numba")


@pytest.mark.parametrize(
    ("shape", "experts", "top"), [((9, 12), 3, 1), ((2, 5, 32), 2, 2), ((3, 33), 3, 3), ((4, 7), 1, 1)]
)
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_gradient_is_that_of_the_cosine(backend, shape, experts, top, scale):
    x = (tokens(*shape) * scale).requires_grad_()
    weight, expert = kernels.top_affinity(x, experts, top=top)
    pull = tokens(*weight.shape, seed=1)
    (weight * pull).sum().backward()
    other = (x.detach() / scale).requires_grad_()  # the array-agnostic affinity, differentiated by torch itself
    cosine = rt.affinity(other, experts)
    (torch.gather(cosine, -1, expert) * pull).sum().backward()
    torch.testing.assert_close(x.grad * scale, other.grad, rtol=1e-12, atol=1e-14)
    # the length of a token does not matter: the gradient is orthogonal to it
    assert (x.grad * x).sum(-1).abs().max() < 1e-13
    assert (x.grad * scale).abs().max() > 1e-2


def test_gradient_by_finite_differences(backend):
    x = tokens(6, 32).requires_grad_()
    expert = kernels.top_affinity(x, 2, top=2)[1]
    margin = kernels.top_affinity(x, 2, top=2)[0].diff(dim=-1).abs().min()
    assert margin > 1e-3  # no expert changes within the difference
    assert torch.autograd.gradcheck(lambda x: kernels.top_affinity(x, 2, top=2)[0], x, eps=1e-6, atol=1e-8)
    assert not expert.requires_grad


def test_second_derivative_by_finite_differences(backend):
    x = tokens(3, 32).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: kernels.top_affinity(x, 2, top=2)[0], x, eps=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(kernels.top_affinity(x, 2)[0].sum(), x, create_graph=True)
    (plain,) = torch.autograd.grad(kernels.top_affinity(x, 2)[0].sum(), x)
    torch.testing.assert_close(gradient, plain, rtol=1e-13, atol=1e-15)


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, at its first forward mode
def test_transforms_of_torch_func(backend):
    x = tokens(3, 6, 32)

    def kept(x):
        weight, expert = kernels.top_affinity(x, 4, top=2)
        slot, _ = kernels.slots(weight, expert, 4, 2)
        return (weight.square() * (slot >= 0)).sum()

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(kept(x), x)[0]

    wanted = torch.stack([gradient(sample) for sample in x])
    torch.testing.assert_close(torch.func.grad(kept)(x[0]), wanted[0], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(kept))(x), wanted, rtol=1e-13, atol=1e-15)
    moved = torch.func.vmap(torch.func.grad(kept), in_dims=1, out_dims=1)(x.movedim(0, 1).contiguous())
    torch.testing.assert_close(moved, wanted.movedim(0, 1), rtol=1e-13, atol=1e-15)
    one = x[0, :2]
    hessian = torch.func.jacrev(torch.func.grad(kept))(one).reshape(64, 64)
    step = 1e-6 * torch.eye(64, dtype=torch.float64).reshape(64, 2, 32)
    finite = torch.stack([gradient(one + s) - gradient(one - s) for s in step]).reshape(64, 64) / 2e-6
    torch.testing.assert_close(hessian, finite, rtol=1e-5, atol=1e-7)
    for bad in (lambda: torch.func.jvp(kept, (one,), (one,)), lambda: torch.func.hessian(kept)(one)):
        with pytest.raises(NotImplementedError, match="top_affinity has no forward-mode derivative"):
            bad()


def test_mapped_slots_where_only_one_input_is_mapped():
    weight, expert = kernels.top_affinity(tokens(3, 6, 32), 4, top=2)
    one, other = weight[1], expert[0]
    slot, load = torch.func.vmap(lambda e: kernels.slots(one, e, 4, 2))(expert)
    wanted = [kernels.slots(one, e, 4, 2) for e in expert]
    assert torch.equal(slot, torch.stack([s for s, _ in wanted]))
    assert torch.equal(load, torch.stack([n for _, n in wanted]))
    slot, _ = torch.func.vmap(lambda w: kernels.slots(w, other, 4, 2))(weight)
    assert torch.equal(slot, torch.stack([kernels.slots(w, other, 4, 2)[0] for w in weight]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradient_in_lower_precision(backend, dtype):
    x = tokens(40, 64, dtype=torch.float32).to(dtype)
    x[3] = 0
    x = torch.stack([x, x], dim=1)[:, 0].requires_grad_()  # not contiguous
    weight, expert = kernels.top_affinity(x, 4)
    assert weight.dtype == torch.float32
    weight.sum().backward()
    assert x.grad.dtype == dtype
    assert not x.grad[3].any()
    wanted = naive.top_affinity_backward(x.detach().double(), expert, torch.ones_like(weight), 4)
    bits = torch.finfo(dtype).eps
    torch.testing.assert_close(x.grad.double(), wanted, rtol=bits, atol=bits * 1e-2)


def test_operators_obey_the_rules_of_torch(backend):
    for x in (tokens(8, 12), tokens(2, 8, 32, dtype=torch.float32)):
        torch.library.opcheck(torch.ops.resonance_theory.top_affinity.default, (x.clone().requires_grad_(), 4, 2))
        weight, expert = kernels.top_affinity(x, 4, top=2)
        torch.library.opcheck(torch.ops.resonance_theory.slots.default, (weight, expert, 4, 3))
        torch.library.opcheck(torch.ops.resonance_theory.route.default, (x, 4, 3, 2))


@pytest.mark.parametrize("shape", [(30, 16), (2, 30, 16)])
def test_compiles_without_a_break(backend, shape):
    def step(x):
        weight, expert = kernels.top_affinity(x, 4, top=2)
        slot, load = kernels.slots(weight, expert, 4, 6)
        return torch.where(slot >= 0, weight, 0).sum(), slot, load, kernels.route(x, 4, 6, top=2).token

    x = tokens(*shape, dtype=torch.float32).requires_grad_()
    torch._dynamo.reset()
    got, wanted = torch.compile(step, backend="aot_eager", fullgraph=True)(x), step(x)
    for one, other in zip(got, wanted):
        assert torch.equal(one, other)
    one, other = (torch.autograd.grad(result[0], x)[0] for result in (got, wanted))
    assert torch.equal(one, other)
    assert one.any()


def test_shapes_without_data():
    x = torch.empty(3, 10, 16, device="meta", dtype=torch.bfloat16)
    weight, expert = kernels.top_affinity(x, 4, top=2)
    slot, load = kernels.slots(weight, expert, 4, 3)
    assert [(*v.shape,) for v in (weight, expert, slot, load)] == [(3, 10, 2)] * 3 + [(3, 4)]
    assert weight.dtype == torch.float32
    assert expert.dtype == slot.dtype == load.dtype == torch.int64


def test_torch_and_numpy_agree():
    pytest.importorskip("numba")
    x = tokens(500, 48, dtype=torch.float32)
    for view, plain in (
        (x, x),
        (x.T.contiguous().T, x),
        (x[None].expand(2, -1, -1), torch.stack([x, x])),
        (x.half(), x.half().float()),
    ):
        got, wanted = kernels.route(view, 6, 80), kernels.route(np.asarray(plain), 6, 80)
        for field in ("expert", "token", "slot", "load"):
            assert np.array_equal(getattr(got, field).numpy(), getattr(wanted, field))


def test_bad_tensors(backend):
    x = tokens(10, 12, dtype=torch.float32)
    for bad, error, message in (
        (x.int(), TypeError, "x has dtype torch.int32"),
        (torch.where(x > 1, torch.nan, x).requires_grad_(), ValueError, "NaN or infinite"),
        (x[:, :10].clone().requires_grad_(), ValueError, "not divisible by experts = 3"),
    ):
        with pytest.raises(error, match=message):
            kernels.top_affinity(bad, 3)
    weight, expert = kernels.top_affinity(x, 3)
    with pytest.raises((TypeError, ValueError), match="device"):
        kernels.slots(weight, expert.to("meta"), 3, 4)
    with pytest.raises(TypeError, match="use one library"):
        kernels.slots(weight, expert.numpy(), 3, 4)


def test_lengths_of_the_forward_pass_change_nothing(monkeypatch):
    """The backward kernel measures rows itself where it is given no lengths, and where squares leave the range."""
    pytest.importorskip("numba")
    x = tokens(40, 96) * 10.0 ** torch.linspace(-200, 200, 40, dtype=torch.float64)[:, None]
    x[7] = 0
    x[8:12] = tokens(4, 96)
    for experts, top in ((6, 2), (3, 1), (8, 6)):  # blocks of a multiple of 16 and others; more than four choices
        weight, expert = kernels.top_affinity(x, experts, top=top)
        lengths = torch.empty(40, dtype=torch.float64).numpy()
        dispatch.top_affinity(x, experts, top, lengths)
        assert 4 <= np.isfinite(lengths).sum() < 40
        pull = tokens(*weight.shape, seed=3)
        one, other = (dispatch.top_affinity_backward(pull, x, expert, experts, *given) for given in ((), (lengths,)))
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
        torch.testing.assert_close(other, naive.top_affinity_backward(x, expert, pull, experts), rtol=1e-9, atol=1e-15)


def test_memory_of_a_dropped_gradient_is_used_again(monkeypatch):
    pytest.importorskip("numba")
    from resonance_theory.kernels import gradient_memory

    monkeypatch.setattr(gradient_memory, "_LARGE", 4096)
    gradient_memory.release()

    def gradient(x):
        x = x.clone().requires_grad_()
        kernels.top_affinity(x, 4)[0].sum().backward()
        return x.grad

    x = tokens(100, 32, dtype=torch.float32)
    first = gradient(x)
    place, wanted = first.data_ptr(), first.clone()
    assert place % 64 == 0
    second = gradient(-x)  # while the first is alive, it stays what it is
    assert second.data_ptr() != place
    assert torch.equal(first, wanted)
    row = first[1:2]
    del first
    assert gradient_memory.held() == 0  # a view is enough to keep it
    assert torch.equal(row, wanted[1:2])
    del row
    assert gradient_memory.held() == x.nbytes + 64
    again = gradient(x)
    assert again.data_ptr() == place
    assert torch.equal(again, wanted)
    assert gradient_memory.held() == 0
    del second
    assert gradient_memory.held() == x.nbytes + 64
    gradient(tokens(50, 32, dtype=torch.float32))  # another size: the old block goes, and this one is held back
    assert gradient_memory.held() == 50 * 32 * 4 + 64
    gradient_memory.release()
    assert gradient_memory.held() == 0
