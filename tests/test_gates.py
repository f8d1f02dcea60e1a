"""GrAP gates and affinity against their definition, on every supported array library."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import resonance_theory as rt


def library(name):
    return np if name == "numpy" else pytest.importorskip(name)


LIBRARIES = ["numpy", "torch", "array_api_strict"]


def moderate(x):
    """The vector times the power of two that brings its largest entry into [1/2, 1): exact unless entries vanish."""
    exponent = math.frexp(max(abs(float(v)) for v in x))[1]
    return [math.ldexp(float(v), -exponent) for v in x]


def cosine(x, w):
    """Definition, one pair at a time, with exactly rounded sums."""
    x, w = moderate(x), moderate(w)
    lengths = math.hypot(*x) * math.hypot(*w)
    return math.fsum(a * b for a, b in zip(x, w)) / lengths if lengths else 0.0


def by_definition(x, gates):
    x = np.asarray(x)
    flat = [[cosine(token, gate) for gate in gates] for token in x.reshape(-1, x.shape[-1])]
    return np.array(flat).reshape(*x.shape[:-1], len(gates))


def grap_by_definition(dim, experts):
    """ETR eq. 2-3, entry by entry."""
    return [
        [experts / dim if i * dim / experts <= j < (i + 1) * dim / experts else 0.0 for j in range(dim)]
        for i in range(experts)
    ]


@pytest.mark.parametrize(("dim", "experts"), [(8, 8), (12, 3), (64, 8), (6, 1), (1, 1)])
@pytest.mark.parametrize("name", LIBRARIES)
def test_gates_follow_the_definition(name, dim, experts):
    xp = library(name)
    gates = rt.grap_gates(dim, experts, xp=xp)
    assert type(gates) is type(xp.asarray([0.0]))
    assert gates.dtype == xp.float64
    gates = np.asarray(gates)
    np.testing.assert_array_equal(gates, grap_by_definition(dim, experts))
    np.testing.assert_allclose(gates @ gates.T, np.eye(experts) * experts / dim, rtol=1e-15)


def test_gates_average_their_block_in_the_dtype_asked_for():
    gates = rt.grap_gates(6, 2, dtype=np.float32)
    assert gates.dtype == np.float32
    np.testing.assert_allclose(gates @ np.arange(6, dtype=np.float32), [1.0, 4.0], rtol=1e-6)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12), (2, 1, 3, 12)])
@pytest.mark.parametrize("experts", [1, 3, 12])
def test_affinity_is_the_cosine(name, shape, experts):
    xp = library(name)
    x = np.random.default_rng(0).standard_normal(shape) + 0.3
    wanted = by_definition(x, grap_by_definition(12, experts))
    grap = rt.affinity(xp.asarray(x), experts)
    assert type(grap) is type(xp.asarray([0.0]))
    assert grap.dtype == xp.float64
    np.testing.assert_allclose(np.asarray(grap), wanted, rtol=1e-13, atol=1e-15)
    given_gates = rt.affinity(xp.asarray(x), gates=rt.grap_gates(12, experts, xp=xp))
    np.testing.assert_allclose(np.asarray(given_gates), wanted, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", LIBRARIES)
def test_any_gates(name):
    xp = library(name)
    rng = np.random.default_rng(1)
    x, gates = rng.standard_normal((7, 5)), rng.standard_normal((3, 5)) * [[1e-200], [1.0], [1e200]]
    got = rt.affinity(xp.asarray(x), gates=xp.asarray(gates))
    np.testing.assert_allclose(np.asarray(got), by_definition(x, gates), rtol=1e-13, atol=1e-15)
    # Gates in another precision follow the tokens.
    half = rt.affinity(xp.asarray(x, dtype=xp.float32), gates=xp.asarray(gates[1:2]))
    assert half.dtype == xp.float32


@pytest.mark.parametrize("name", LIBRARIES)
def test_centring_subtracts_the_mean_token(name):
    xp = library(name)
    x = np.random.default_rng(2).standard_normal((4, 9, 6)) + 5.0
    mean = x.reshape(-1, 6).mean(axis=0)
    wanted = by_definition(x - mean, grap_by_definition(6, 3))
    for center in (True, xp.asarray(mean)):
        got = np.asarray(rt.affinity(xp.asarray(x), 3, center=center))
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-13)
    assert np.max(np.abs(np.asarray(rt.affinity(xp.asarray(x), 3)) - wanted)) > 0.5


@pytest.mark.parametrize("name", LIBRARIES)
def test_zero_tokens_have_zero_affinity_and_leave_the_others_alone(name):
    xp = library(name)
    x = np.random.default_rng(3).standard_normal((4, 8))
    alone = np.asarray(rt.affinity(xp.asarray(x), 4))
    mixed = np.asarray(rt.affinity(xp.asarray(np.vstack([x, np.zeros(8), 1e-250 * x, 1e250 * x])), 4))
    np.testing.assert_array_equal(mixed[:4], alone)
    np.testing.assert_array_equal(mixed[4], np.zeros(4))
    np.testing.assert_allclose(mixed[5:9], alone, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(mixed[9:], alone, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-170, 1e-155, 1e150, 1e160, 1e305])
def test_extreme_lengths(scale):
    x = np.array([[3.0, 4.0, 12.0, 84.0]]) * scale
    np.testing.assert_allclose(rt.affinity(x, 4), [[3 / 85, 4 / 85, 12 / 85, 84 / 85]], rtol=1e-13)
    small = np.array([[3.0, 4.0, 12.0, 84.0]], dtype=np.float32) * np.float32(1e-30 if scale < 1 else 1e30)
    np.testing.assert_allclose(rt.affinity(small, 4), [[3 / 85, 4 / 85, 12 / 85, 84 / 85]], rtol=1e-6)


def test_a_cosine_never_exceeds_one():
    x = np.repeat(np.random.default_rng(4).standard_normal((2000, 1)), 49, axis=1)
    for values in (x, x.astype(np.float32)):
        assert np.max(np.abs(rt.affinity(values, 1))) <= 1.0
        assert np.min(np.abs(rt.affinity(values, 1))) > 1.0 - 1e-6


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_half_precision_is_computed_in_single(name):
    xp = library(name)
    x = np.random.default_rng(5).standard_normal((50, 64)).astype(np.float16)
    x[0] *= np.float16(300)  # squares beyond the largest half-precision number
    got = rt.affinity(xp.asarray(x), 8)
    assert got.dtype == xp.float32
    np.testing.assert_allclose(np.asarray(got), by_definition(x, grap_by_definition(64, 8)), rtol=0, atol=1e-6)
    if name == "torch":
        assert rt.affinity(xp.asarray(x).to(xp.bfloat16), 8).dtype == xp.float32


def test_non_contiguous_and_read_only_tokens():
    x = np.random.default_rng(6).standard_normal((24, 10, 3))
    view = x[::-2].transpose(2, 1, 0)
    view.flags.writeable = False
    before = view.copy()
    np.testing.assert_array_equal(rt.affinity(view, 4), rt.affinity(np.ascontiguousarray(view), 4))
    np.testing.assert_array_equal(view, before)
    torch = pytest.importorskip("torch")
    turned = torch.asarray(x).permute(2, 1, 0)
    np.testing.assert_allclose(
        rt.affinity(turned, 4).numpy(), rt.affinity(np.ascontiguousarray(x.transpose(2, 1, 0)), 4), rtol=1e-13
    )


def test_gradients_reach_the_tokens():
    torch = pytest.importorskip("torch")
    x = torch.asarray(np.random.default_rng(7).standard_normal((3, 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: rt.affinity(t, 3), (x,))
    assert torch.autograd.gradcheck(lambda t: rt.affinity(t, 3, center=True), (x,))


def test_tokens_are_read_without_a_copy():
    x = np.random.default_rng(8).standard_normal((4096, 1024))
    rt.affinity(x[:2], 8)
    tracemalloc.start()
    rt.affinity(x, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 16


@settings(max_examples=200, deadline=None)
@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4).map(lambda s: (*s, 6)),
        elements=st.floats(-1e300, 1e300),
    ),
    experts=st.sampled_from([1, 2, 3, 6]),
)
def test_affinity_of_arbitrary_finite_tokens(x, experts):
    got = rt.affinity(x, experts)
    # Sums of terms of opposite sign cancel: the error is relative to the token's length, not to the cosine.
    np.testing.assert_allclose(got, by_definition(x, grap_by_definition(6, experts)), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(rt.affinity(-x, experts), -got)


NAN, INF = float("nan"), float("inf")
BAD = {
    "not an array": (([[1.0, 2.0]], 2), {}, TypeError, "x is a list"),
    "integers": ((np.ones((2, 4), dtype=int), 2), {}, TypeError, "x has dtype int64"),
    "booleans": ((np.ones((2, 4), dtype=bool), 2), {}, TypeError, "x has dtype bool"),
    "complex": ((np.ones((2, 4), dtype=complex), 2), {}, TypeError, "x has dtype complex128"),
    "objects": ((np.ones((2, 4), dtype=object), 2), {}, TypeError, "x has dtype object"),
    "text": ((np.array([["a", "b"]]), 2), {}, TypeError, "x has dtype <U1"),
    "nan": ((np.array([[1.0, NAN]]), 2), {}, ValueError, "x holds NaN or infinite"),
    "infinite": ((np.array([[1.0, -INF]]), 2), {}, ValueError, "x holds NaN or infinite"),
    "cancelling infinities": ((np.array([[INF, -INF]]), 1), {}, ValueError, "x holds NaN or infinite"),
    "no feature": ((np.ones((2, 0)), 1), {}, ValueError, "x has shape (2, 0)"),
    "no token": ((np.ones((0, 4)), 2), {}, ValueError, "x has shape (0, 4)"),
    "a number": ((np.asarray(1.0), 1), {}, ValueError, "x has shape ()"),
    "indivisible": ((np.ones((2, 100)), 8), {}, ValueError, "use 5 or 10 experts, a dimension of 96 or 104, or gates"),
    "too many experts": ((np.ones((2, 4)), 8), {}, ValueError, "use 4 experts, a dimension of 8, or gates"),
    "no expert": ((np.ones((2, 4)), 0), {}, ValueError, "experts = 0 must be a whole number of at least 1"),
    "half an expert": ((np.ones((2, 4)), 0.5), {}, TypeError, "experts = 0.5 must be a whole number"),
    "true experts": ((np.ones((2, 4)), True), {}, TypeError, "experts = True must be a whole number"),
    "several experts": ((np.ones((2, 4)), [2, 4]), {}, ValueError, "experts = [2, 4] must be one whole number"),
    "neither": ((np.ones((2, 4)),), {}, TypeError, "either experts (for GrAP gates) or gates="),
    "both": ((np.ones((2, 4)), 2), {"gates": np.ones((2, 4))}, TypeError, "either experts (for GrAP gates) or gates="),
    "gates' dim": ((np.ones((2, 4)),), {"gates": np.ones((2, 3))}, ValueError, "gates has shape (2, 3)"),
    "gates' axes": ((np.ones((2, 4)),), {"gates": np.ones(4)}, ValueError, "gates has shape (4,)"),
    "no gate": ((np.ones((2, 4)),), {"gates": np.ones((0, 4))}, ValueError, "gates has shape (0, 4)"),
    "zero gate": ((np.ones((2, 4)),), {"gates": np.eye(4) * [[1], [1], [0], [1]]}, ValueError, "gates[2] is zero"),
    "nan gate": ((np.ones((2, 4)),), {"gates": np.full((1, 4), NAN)}, ValueError, "gates holds NaN"),
    "integer gates": ((np.ones((2, 4)),), {"gates": np.eye(4, dtype=int)}, TypeError, "gates has dtype int64"),
    "center shape": ((np.ones((2, 4)), 2), {"center": np.ones(3)}, ValueError, "center has shape (3,)"),
    "center kind": ((np.ones((2, 4)), 2), {"center": "mean"}, TypeError, "center is a str"),
    "center nan": ((np.ones((2, 4)), 2), {"center": np.full(4, NAN)}, ValueError, "center holds NaN"),
    "center of one": ((np.ones(4), 2), {"center": True}, ValueError, "one token is its own mean"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    args, kwargs, error, words = BAD[case]
    with pytest.raises(error) as caught:
        rt.affinity(*args, **kwargs)
    assert words in str(caught.value)


def test_bad_gates_and_mixed_libraries():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="use one array library"):
        rt.affinity(torch.ones(2, 4), gates=np.ones((2, 4)))
    with pytest.raises(TypeError, match="dtype"):
        rt.grap_gates(4, 2, dtype=np.int64)
    with pytest.raises(ValueError, match="dim = 10 is not divisible by experts = 4"):
        rt.grap_gates(10, 4)
    with pytest.raises(ValueError, match="dim = 0"):
        rt.grap_gates(0, 1)


def test_torch_is_not_imported_for_numpy_tokens():
    code = (
        "import sys, numpy as np, resonance_theory as rt\n"
        "a = rt.affinity(np.ones((4, 8)), 4); rt.grap_gates(8, 4)\n"
        "from resonance_theory.rules import select\n"
        "scores = select.read(a, 2); select.keep(scores, select.top_experts(scores), None)\n"
        "print(sorted({'torch', 'cupy', 'jax'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
