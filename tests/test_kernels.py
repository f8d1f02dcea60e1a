"""The fused kernels against routing written out in plain Python, one token and one expert at a time."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory import kernels
from resonance_theory.kernels import dispatch

FIELDS = ("expert", "token", "slot", "load")


@pytest.fixture(params=["numba", "numba-serial", "naive", "torch", "torch-naive", "array_api_strict", "lent"])
def library(request, monkeypatch):
    """A function from NumPy arrays to the library under test, with the backend that it names."""
    name = request.param
    if "naive" in name:
        monkeypatch.setattr("resonance_theory.kernels.dispatch.usable", lambda _: False)
    elif name != "array_api_strict":
        pytest.importorskip("numba")
    if name == "numba-serial":
        monkeypatch.setattr("resonance_theory.kernels.jit.forked", True)
    if name == "lent":  # the way of CuPy's arrays, with arrays of another library on the CPU
        strict = pytest.importorskip("array_api_strict")
        pytest.importorskip("torch")
        monkeypatch.setattr("resonance_theory.kernels.arrays.lent", lambda x: isinstance(x, type(strict.asarray(0))))
        return strict.asarray
    if name.startswith("torch"):
        return pytest.importorskip("torch").asarray
    return pytest.importorskip("array_api_strict").asarray if name == "array_api_strict" else np.asarray


def by_definition(sample, experts, capacity, top, *, late_ties=False):
    """Entries (expert, slot, token), load, and per choice (weight, expert, slot) of one sample; lists of numbers."""
    dim = len(sample[0])
    block, choice = dim // experts, []
    for x in sample:
        length = math.sqrt(sum(v * v for v in x)) or 1.0
        cosine = [
            float(np.float32(sum(x[i * block : (i + 1) * block]) * math.sqrt(experts / dim) / length))
            for i in range(experts)
        ]
        cosine = [min(max(c, -1.0), 1.0) for c in cosine]
        choice.append([(cosine[i], i) for i in sorted(range(experts), key=lambda i, c=cosine: (-c[i], i))[:top]])
    entries, load, slots = [], [], {}
    for i in range(experts):
        candidates = [(a, t) for t, own in enumerate(choice) for a, e in own if e == i]
        candidates.sort(key=lambda pair: (-pair[0], -pair[1] if late_ties else pair[1]))
        load.append(len(candidates))
        slots |= {(t, i): slot if slot < capacity else -1 for slot, (_, t) in enumerate(candidates)}
        entries += [(i, slot, t) for slot, (_, t) in enumerate(candidates[:capacity])]
    return entries, load, [[(a, e, slots[t, e]) for a, e in own] for t, own in enumerate(choice)]


def cases(count, seed=0):
    """Small integers, whose sums and squares are exact, so that ties are real: equal, opposite, zero and scaled tokens."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        experts, block, tokens = (
            rng.choice([1, 2, 3, 4, 5, 8]),
            rng.choice([*range(1, 40), 16, 32]),
            rng.integers(1, 90),
        )
        if k % 4 == 0:
            experts, block = 8, 16  # the path of eight blocks at a time
        x = rng.integers(-1 - k % 3, 2 + k % 3, (rng.integers(1, 4), tokens, experts * block)).astype(np.float32)
        kind = k % 6
        if kind == 0:
            x[:] = x[:1, :1]
        elif kind == 1:
            x = np.abs(x) * -1.0
        elif kind == 2:
            x[rng.random(x.shape[:2]) < 0.5] = 0.0
        elif kind == 3:
            x *= 2.0 ** rng.integers(-30, 30, (*x.shape[:2], 1))  # same direction, other length: the same affinity
        elif kind == 4:
            x = x[:, rng.integers(0, min(tokens, 3), tokens)]
        else:
            x[..., ::block] = 2.0**-30 * np.arange(experts, dtype=np.float32)  # sums that differ, affinities that tie
        yield x.astype(np.float32), int(experts), int(rng.integers(1, tokens + 1)), int(rng.integers(1, experts + 1))


def entries(assignment, sample=None):
    columns = [np.asarray(c) for c in (assignment.expert, assignment.slot, assignment.token)]
    mine = slice(None) if sample is None else np.asarray(assignment.sample) == sample
    return [tuple(row) for row in np.stack(columns, axis=1)[mine].tolist()]


def test_routes_as_defined(library):
    for x, experts, capacity, top in cases(60):
        weight, expert = kernels.top_affinity(library(x), experts, top=top)
        slot, load = kernels.slots(weight, expert, experts, capacity)
        routed = kernels.route(library(x), experts, capacity, top=top)
        assert type(routed.token) is type(library(x))
        for b, sample in enumerate(x.tolist()):
            kept, wanted_load, choice = by_definition(sample, experts, capacity, top)
            assert entries(routed, b) == kept
            assert np.asarray(routed.load)[b].tolist() == np.asarray(load)[b].tolist() == wanted_load
            got = np.stack([np.asarray(a)[b].astype(float) for a in (weight, expert, slot)], axis=-1)
            assert got.tolist() == [[list(map(float, one)) for one in own] for own in choice]
        alone = kernels.route(library(x[-1]), experts, capacity, top=top)
        assert alone.sample is None
        assert entries(alone) == entries(routed, len(x) - 1)


def test_lent_arrays_are_not_copied(monkeypatch):
    strict, torch = pytest.importorskip("array_api_strict"), pytest.importorskip("torch")
    monkeypatch.setattr("resonance_theory.kernels.arrays.lent", lambda x: isinstance(x, type(strict.asarray(0))))
    seen, real = [], dispatch.route
    monkeypatch.setattr(
        dispatch, "route", lambda *arguments: seen.append((arguments[0], real(*arguments))) or seen[-1][1]
    )
    x = strict.asarray(np.random.default_rng(1).standard_normal((3, 50, 24)).astype(np.float32))
    kept = kernels.route(x, 4, 9)
    ((lent, result),) = seen
    assert isinstance(lent, torch.Tensor)
    assert lent.data_ptr() == np.from_dlpack(x).ctypes.data
    for name in (*FIELDS, "sample"):
        assert getattr(kept, name).__array_namespace__() is strict
        assert np.from_dlpack(getattr(kept, name)).ctypes.data == getattr(result, name).data_ptr()


def test_the_cases_tell_the_tie_rules_apart():
    differ = [
        by_definition(x[0].tolist(), n, c, top)[0] != by_definition(x[0].tolist(), n, c, top, late_ties=True)[0]
        for x, n, c, top in cases(60)
    ]
    assert sum(differ) > 20


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_sets_as_the_rule_on_general_tokens(dtype):
    pytest.importorskip("numba")
    rng = np.random.default_rng(7)
    for tokens, dim, experts, top in ((3000, 96, 6, 1), (1500, 160, 8, 2), (700, 33, 3, 3), (600, 1024, 64, 1)):
        x = rng.standard_normal((tokens, dim)).astype(dtype)
        capacity = tokens * top // experts
        affinity = rt.affinity(x.astype(np.float64), experts).astype(dtype)
        wanted = rt.resonance.route(affinity, capacity, top=top)
        routed = kernels.route(x, experts, capacity, top=top)
        if dtype is np.float32:
            assert all(np.array_equal(getattr(routed, f), getattr(wanted, f)) for f in FIELDS)
        else:
            assert np.array_equal(routed.load, wanted.load)
            assert set(zip(routed.expert, routed.token)) == set(zip(wanted.expert, wanted.token))
            weight, _ = kernels.top_affinity(x, experts)
            assert np.abs(weight[:, 0] - affinity.max(axis=-1)).max() < 1e-15


def test_eight_blocks_at_a_time_have_the_bits_of_one():
    numba = pytest.importorskip("numba")
    from resonance_theory.kernels.vectors import block_sums, block_sums_by_eight

    @numba.njit
    def both(x, block, one, eight):
        return block_sums(x, 0, x.shape[1], block, one), block_sums_by_eight(x, 0, x.shape[1], block, eight)

    x = np.random.default_rng(2).standard_normal((1, 16 * 48))
    one, eight = np.empty(16), np.empty(16)
    squares = both(x, 48, one, eight)
    assert np.array_equal(one, eight)
    assert squares[0] == squares[1] == pytest.approx((x * x).sum(), rel=1e-14)
    assert one == pytest.approx(x.reshape(16, 48).sum(-1), rel=1e-12)


def test_bits_do_not_depend_on_threads_batch_or_position():
    pytest.importorskip("numba")
    code = (
        "import numpy as np, hashlib; from resonance_theory import kernels as k\n"
        "x = np.random.default_rng(3).standard_normal((3, 1000, 72)).astype(np.float32)\n"
        "w, e = k.top_affinity(x, 6, top=2); a = k.route(x, 6, 200, top=2)\n"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in (w, e, a.expert, a.token, a.slot, a.load))).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NUMBA_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "5")
    }
    assert len(digests) == 1
    x = np.random.default_rng(3).standard_normal((3, 1000, 72)).astype(np.float32)
    weight, expert = kernels.top_affinity(x, 6, top=2)
    order = np.random.default_rng(4).permutation(1000)
    for other, back in (
        (x[:, order], lambda w: w[:, np.argsort(order)]),
        (x.reshape(-1, 72), lambda w: w.reshape(3, 1000, 2)),
    ):
        w, e = kernels.top_affinity(other, 6, top=2)
        assert np.array_equal(back(w), weight)
        assert np.array_equal(back(e), expert)
    assert np.array_equal(kernels.top_affinity(x[1, 5:6], 6, top=2)[0], weight[1, 5:6])


def layouts():
    rng = np.random.default_rng(11)
    x = rng.standard_normal((2, 50, 24)).astype(np.float32)
    yield "column-major", np.asfortranarray(x), x
    yield "strided", np.repeat(x, 2, axis=2)[:, :, ::2], x
    yield "reversed", x[:, ::-1], np.ascontiguousarray(x[:, ::-1])
    yield (
        "expanded",
        np.broadcast_to(x[:1, :1], (3, 40, 24)),
        np.ascontiguousarray(np.broadcast_to(x[:1, :1], (3, 40, 24))),
    )
    yield "big-endian", x.astype(">f4"), x
    yield "half", x.astype(np.float16), x.astype(np.float16).astype(np.float32)
    yield "unaligned", np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape), x


@pytest.mark.parametrize(("name", "x", "plain"), [pytest.param(*case, id=case[0]) for case in layouts()])
def test_layouts(name, x, plain, monkeypatch):
    monkeypatch.setattr("resonance_theory.kernels.arrays._PIECE", 24 * 7)  # so that copies come in several pieces
    for top in (1, 2):
        got, wanted = kernels.route(x, 4, 9, top=top), kernels.route(plain, 4, 9, top=top)
        assert all(np.array_equal(getattr(got, f), getattr(wanted, f)) for f in (*FIELDS, "sample"))


def test_range_of_floats(library):
    """Zeros of both signs, denormal and huge numbers, signed zeros of affinity."""
    x = np.zeros((6, 4), np.float64)
    x[0], x[1], x[2] = [1e-310, 0, 0, 0], [0, 0, 1e300, 1e300], [-1e200, -1e200, 0, 0]
    x[3], x[4] = [-0.0, -0.0, -0.0, -0.0], [1, -1, 0, 0]
    weight, expert = kernels.top_affinity(library(x), 2)
    weight, expert = np.asarray(weight), np.asarray(expert)
    np.testing.assert_allclose(weight[:, 0], [math.sqrt(0.5), 1, 0, 0, 0, 0], rtol=1e-15)
    assert expert[:, 0].tolist() == [0, 1, 1, 0, 0, 0]
    # all zeros tie, whatever their sign
    slot, _ = kernels.slots(
        library(np.array([[-0.0], [0.0], [-0.0], [1.0], [-1.0]])), library(np.zeros((5, 1), np.int64)), 1, 4
    )
    assert np.asarray(slot)[:, 0].tolist() == [1, 2, 3, 0, -1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_rows_sort_by_every_digit(dtype):
    pytest.importorskip("numba")
    rng = np.random.default_rng(5)
    weight = rng.choice([-1, 1], 4000) * 10.0 ** rng.uniform(-30, 30, 4000)
    weight[::7] = weight[3]
    weight = weight.astype(dtype)[:, None]
    slot, load = kernels.slots(weight, np.zeros((4000, 1), np.int64), 1, 4000)
    assert np.argsort(slot[:, 0]).tolist() == sorted(range(4000), key=lambda t: (-weight[t, 0], t))
    assert load.tolist() == [4000]


BAD = [
    (lambda x: kernels.route(x, 5, 3), ValueError, "dim = 24 is not divisible by experts = 5"),
    (lambda x: kernels.route(x, 4, 0), ValueError, "capacity = 0 must be a whole number between 1 and tokens = 10"),
    (lambda x: kernels.route(x, 4, 11), ValueError, "capacity = 11 must be"),
    (lambda x: kernels.route(x, 4, 2.5), TypeError, "capacity = 2.5 must be"),
    (lambda x: kernels.route(x, 4, 3, top=5), ValueError, "top = 5 must be a whole number between 1 and experts = 4"),
    (lambda x: kernels.route(x, 0, 3), ValueError, "experts = 0 must be"),
    (lambda x: kernels.route(x[0, ...], 4, 3), ValueError, r"x has shape \(24,\) but must be"),
    (lambda x: kernels.route(x[:0, ...], 4, 3), ValueError, r"x has shape \(0, 24\)"),
    (lambda x: kernels.slots(x[:, :1], x[:, :1], 4, 3), TypeError, "expert has dtype"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_arguments(library, call, error, message):
    with pytest.raises(error, match=message):
        call(library(np.ones((10, 24), np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(library, value):
    for dtype in (np.float32, np.float64):
        x = np.ones((200, 24), dtype)
        x[150, 7] = value
        with pytest.raises(ValueError, match="x holds NaN or infinite values"):
            kernels.route(library(x), 4, 3)


def test_tokens_of_the_wrong_kind():
    for x, name in (([[1.0]], "list"), (np.ones((2, 4), int), "int64"), (np.ones((2, 4), complex), "complex128")):
        with pytest.raises(TypeError, match=name):
            kernels.route(x, 2, 1)


@pytest.mark.parametrize("usable", [True, False])
def test_every_type_of_numbers(usable, monkeypatch):
    """The right result for what is allowed, in either order of bytes and any layout; otherwise one sentence."""
    if not usable:
        monkeypatch.setattr("resonance_theory.kernels.dispatch.usable", lambda _: False)
    x = np.random.default_rng(0).integers(-2, 3, (2, 12, 8)).astype(np.float32)
    weight, expert = kernels.top_affinity(x, 2, top=2)
    weight = weight.astype(np.float16).astype(np.float32)
    given, calls = {"x": x, "weight": weight, "expert": expert}, {
        "x": lambda v: [getattr(kernels.route(v, 2, 4, top=2), field) for field in FIELDS],
        "weight": lambda v: kernels.slots(weight=v, expert=expert, experts=2, capacity=4),
        "expert": lambda v: kernels.slots(weight=weight, expert=v, experts=2, capacity=4),
    }  # fmt: skip
    floats = ["f2", ">f2", "f4", ">f4", "f8", ">f8"]
    if find_spec("ml_dtypes"):
        floats.append(importlib.import_module("ml_dtypes").bfloat16)
        calls["weight"](weight.astype(floats[-1]))  # its values are rounded
    integers = ["i1", "i2", ">i2", "i4", ">i4", "i8", ">i8", "u1", "u2", "u4", ">u4", "u8", ">u8"]
    for name, kinds in (("x", floats), ("weight", floats[:6]), ("expert", integers)):
        for kind in kinds:
            value = np.asfortranarray(given[name].astype(kind))
            value.flags.writeable = False
            assert all(map(np.array_equal, calls[name](value), calls[name](given[name])))
        for kind in ["F", "?", "O", "S3", "M8[s]", "V4", *(floats if name == "expert" else integers)]:
            with pytest.raises(TypeError, match=f"^{name} has dtype .* but must be one of"):
                calls[name](given[name].astype(kind))
    with pytest.raises(TypeError, match="x is a masked array"):
        calls["x"](np.ma.masked_array(x))


def test_read_only_arrays_need_no_compilation_of_their_own():
    pytest.importorskip("numba")
    from resonance_theory.kernels import cpu

    x = np.ones((6, 8), np.float32)
    kernels.route(x, 2, 2)
    before = list(cpu.route.signatures)
    x.flags.writeable = False
    assert kernels.route(x, 2, 2).load.tolist() == [6, 0]
    assert cpu.route.signatures == before


def test_indices_beyond_32_bits_are_refused():
    with pytest.raises(ValueError, match=r"4294967296 .* pairs in a sample but must have at most 4294967295"):
        kernels.route(np.broadcast_to(np.zeros((1, 4), np.float32), (2**32, 4)), 2, 1)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="8.6 GB of zeros that take no memory")
def test_more_than_2_to_the_31_features():
    pytest.importorskip("numba")
    x = np.zeros((2**21 + 3, 1024), np.float32)
    x[-1, 128 * 5 : 128 * 6], x[-2, 3] = 1, 1
    kept = kernels.route(x, 8, 5)
    assert kept.token.tolist() == [2**21 + 1, 0, 1, 2, 3, 2**21 + 2]
    assert kept.expert.tolist() == [0, 0, 0, 0, 0, 5]
    assert kept.load.tolist() == [2**21 + 2, 0, 0, 0, 0, 1, 0, 0]


def test_candidates_that_would_leave_the_buffers(library):
    weight = np.ones((50, 1), np.float32)
    for wrong in (-1, 4, 2**40):
        expert = np.zeros((50, 1), np.int64)
        expert[30] = wrong
        with pytest.raises(ValueError, match=f"expert holds {wrong} but must lie in 0 to 3"):
            kernels.slots(library(weight), library(expert), 4, 3)
    for wrong in (np.nan, np.inf, -np.inf):
        weight[3] = wrong
        with pytest.raises(ValueError, match="weight holds NaN"):
            kernels.slots(library(weight), library(np.zeros((50, 1), np.int64)), 4, 3)
    with pytest.raises(ValueError, match="have shapes"):
        kernels.slots(library(weight), library(np.zeros((50, 2), np.int64)), 4, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_routes():
    pytest.importorskip("numba")
    x = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32)
    kernels.route(x, 4, 50)  # starts the threads, which a child does not inherit
    code = (
        "import os, numpy as np; from resonance_theory import kernels as k\n"
        "x = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32)\n"
        "first = k.route(x, 4, 50).token; child = os.fork()\n"
        "if child == 0: os._exit(0 if (k.route(x, 4, 50).token == first).all() else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_extra_memory_is_small():
    pytest.importorskip("numba")
    x = np.ones((8192, 1024), np.float32)
    x += np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    kernels.route(x, 8, 1024)
    tracemalloc.start()
    kernels.route(x, 8, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * x.nbytes  # as NumPy counts it; the kernels' own scratch is 16 bytes a pair
