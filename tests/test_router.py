"""The three routing rules against their definition, one token and one expert at a time in plain Python."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import resonance_theory as rt

LIBRARIES = ["numpy", "torch", "array_api_strict"]
RULES = ["token_choice", "expert_choice", "resonance"]


def library(name):
    return np if name == "numpy" else pytest.importorskip(name)


def route(rule, affinity, capacity, top=1):
    if rule == "expert_choice":
        return rt.expert_choice.route(affinity, capacity)
    return getattr(rt, rule).route(affinity, capacity, top=top)


def by_definition(rule, affinity, capacity, top):
    """One sample, lists of floats: entries (expert, slot, token), load, and dropped tokens."""
    tokens, experts = range(len(affinity)), range(len(affinity[0]))
    choice = {t: sorted(experts, key=lambda i, t=t: (-affinity[t][i], i))[:top] for t in tokens}
    entries, load = [], []
    for i in experts:
        candidates = [t for t in tokens if rule == "expert_choice" or i in choice[t]]
        if rule != "token_choice":
            candidates.sort(key=lambda t, i=i: (-affinity[t][i], t))
        load.append(len(candidates))
        entries += [(i, slot, t) for slot, t in enumerate(candidates[:capacity])]
    processed = {t for _, _, t in entries}
    return entries, load, [t for t in tokens if t not in processed]


def entries(assignment):
    columns = (assignment.expert, assignment.slot, assignment.token)
    return [tuple(row) for row in np.stack([np.asarray(c) for c in columns], axis=1).tolist()]


def assert_follows_definition(rule, affinity, capacity, top, assignment):
    """`affinity` as nested lists, (samples, tokens, experts) or (tokens, experts)."""
    if assignment.sample is None:
        kept, load, dropped = by_definition(rule, affinity, capacity, top)
        assert entries(assignment) == kept
        assert np.asarray(assignment.load).tolist() == load
        assert np.asarray(assignment.kept).tolist() == [min(v, capacity) for v in load]
        assert np.asarray(assignment.dropped).tolist() == dropped
        assert assignment.dropped_sample is None
        return
    wanted = [by_definition(rule, sample, capacity, top) for sample in affinity]
    got = [(b, *rest) for b, rest in zip(np.asarray(assignment.sample).tolist(), entries(assignment))]
    assert got == [(b, *entry) for b, (kept, _, _) in enumerate(wanted) for entry in kept]
    assert np.asarray(assignment.load).tolist() == [load for _, load, _ in wanted]
    assert np.asarray(assignment.kept).tolist() == [[min(v, capacity) for v in load] for _, load, _ in wanted]
    dropped = zip(np.asarray(assignment.dropped_sample).tolist(), np.asarray(assignment.dropped).tolist())
    assert list(dropped) == [(b, t) for b, (_, _, tokens) in enumerate(wanted) for t in tokens]


def example(kind, shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "plain": lambda: rng.uniform(-1, 1, shape),
        "ties": lambda: rng.integers(-2, 3, shape) / 2.0,
        "negative": lambda: -rng.uniform(0.5, 1, shape),
        "signed zeros": lambda: rng.choice([-0.0, 0.0], shape),
        "all equal": lambda: np.full(shape, -0.25),
        "zero": lambda: np.zeros(shape),
        "huge": lambda: rng.choice([-1.7e308, 1.7e308, 5e-324, 0.0], shape),
    }[kind]()


KINDS = ["plain", "ties", "negative", "signed zeros", "all equal", "zero", "huge"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LIBRARIES)
def test_follows_the_definition(name, rule, kind):
    xp = library(name)
    for shape in [(1, 1), (7, 1), (1, 5), (13, 4), (1, 6, 3), (5, 11, 4)]:
        values = example(kind, shape)
        tokens, experts = shape[-2:]
        for capacity in sorted({1, 2, tokens // 2 + 1, tokens} & set(range(1, tokens + 1))):
            for top in sorted({1, min(2, experts), experts}):
                got = route(rule, xp.asarray(values), capacity, top)
                assert_follows_definition(rule, values.tolist(), capacity, top, got)
                for array in (got.expert, got.token, got.slot, got.load, got.kept, got.dropped):
                    assert type(array) is type(xp.asarray([0]))
                    assert array.dtype == xp.int64
                assert (got.tokens, got.experts, got.capacity) == (tokens, experts, capacity)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("numpy", "float16"),
        ("numpy", "float32"),
        ("numpy", "longdouble"),
        ("torch", "float16"),
        ("torch", "bfloat16"),
        ("torch", "float32"),
        ("array_api_strict", "float32"),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_every_floating_type(name, dtype, rule):
    xp = library(name)
    values = xp.asarray(example("plain", (4, 30, 5)), dtype=getattr(xp, dtype))
    exact = [[[float(values[b, t, i]) for i in range(5)] for t in range(30)] for b in range(4)]
    for top in (1, 2):
        assert_follows_definition(rule, exact, 4, top, route(rule, values, 4, top))


@pytest.mark.parametrize("rule", RULES)
def test_many_experts_and_tokens(rule):
    # More experts than 16-bit integers can count, more tokens than 8-bit ones can.
    for kind in ("plain", "ties"):
        wide = example(kind, (3, 40_000))
        got = route(rule, wide, 2, 3)
        kept, load, dropped = by_definition(rule, wide.tolist(), 2, 3)
        assert (entries(got), got.load.tolist(), got.dropped.tolist()) == (kept, load, dropped)
    for kind in ("plain", "ties"):
        long = example(kind, (3000, 3))
        assert_follows_definition(rule, long.tolist(), 700, 2, route(rule, long, 700, 2))


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_is_routed_sample_by_sample(rule):
    values = example("ties", (6, 20, 4))
    batch = route(rule, values, 3, 2)
    for b, sample in enumerate(values):
        alone = route(rule, sample, 3, 2)
        assert alone.sample is None
        mine = batch.sample == b
        for field in ("expert", "token", "slot"):
            np.testing.assert_array_equal(getattr(batch, field)[mine], getattr(alone, field))
        np.testing.assert_array_equal(batch.load[b], alone.load)
        np.testing.assert_array_equal(batch.dropped[batch.dropped_sample == b], alone.dropped)


@pytest.mark.parametrize("rule", RULES)
def test_non_contiguous_and_read_only(rule):
    values = example("plain", (4, 12, 8))
    view = values[:, ::-2, :].transpose(2, 1, 0)
    view.flags.writeable = False
    before = view.copy()
    want = route(rule, np.ascontiguousarray(view), 2, 2)
    got = route(rule, view, 2, 2)
    for field in ("sample", "expert", "token", "slot", "load", "dropped"):
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
    np.testing.assert_array_equal(view, before)
    torch = pytest.importorskip("torch")
    turned = torch.asarray(values)[:, 1::2, :].permute(2, 1, 0)
    assert_follows_definition(rule, turned.tolist(), 2, 2, route(rule, turned, 2, 2))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LIBRARIES)
def test_contains_answers_membership(name, rule):
    xp = library(name)
    values = example("plain", (5, 9, 4))
    batch = route(rule, xp.asarray(values), 2, 2)
    kept = set(zip(*(np.asarray(a).tolist() for a in (batch.sample, batch.token, batch.expert))))
    b, t, i = (xp.reshape(a, (-1,)) for a in xp.meshgrid(xp.arange(5), xp.arange(9), xp.arange(4), indexing="ij"))
    wanted = [
        pair in kept
        for pair in zip(
            b.tolist() if name != "array_api_strict" else np.asarray(b).tolist(),
            np.asarray(t).tolist(),
            np.asarray(i).tolist(),
        )
    ]
    assert any(wanted)
    assert not all(wanted)
    got = batch.contains(t, i, b)
    assert type(got) is type(t)
    assert np.asarray(got).tolist() == wanted
    # Axis 0 of the queries runs over the samples; further axes and scalars broadcast.
    by_sample = np.asarray(wanted).reshape(5, 9, 4)
    grid = batch.contains(xp.reshape(xp.arange(9), (1, 9, 1)), xp.reshape(xp.arange(4), (1, 1, 4)))
    np.testing.assert_array_equal(np.asarray(grid), by_sample)
    per_sample = batch.contains(xp.asarray([0, 3, 8, 8, 1]), xp.asarray([0, 1, 2, 3, 3]))
    np.testing.assert_array_equal(np.asarray(per_sample), by_sample[range(5), [0, 3, 8, 8, 1], [0, 1, 2, 3, 3]])
    np.testing.assert_array_equal(np.asarray(batch.contains(3, 2)), by_sample[:, 3, 2])
    np.testing.assert_array_equal(np.asarray(batch.contains(3, 2, 4)), by_sample[4, 3, 2])
    one = route(rule, xp.asarray(values[2]), 2, 2)
    grid = one.contains(xp.arange(9)[:, None], xp.arange(4)[None, :])
    np.testing.assert_array_equal(np.asarray(grid), by_sample[2])
    assert np.asarray(one.contains(3, 2)) == by_sample[2, 3, 2]


def test_contains_rejects_indices_out_of_range():
    batch = rt.resonance.route(example("plain", (5, 9, 4)), 2)
    for arguments, error, words in [
        ((9, 0), ValueError, "token spans 9 to 9 but must lie in 0 to 8"),
        ((-1, 0), ValueError, "token spans -1 to -1"),
        ((0, 4), ValueError, "expert spans 4 to 4 but must lie in 0 to 3"),
        ((0, 0, 5), ValueError, "sample spans 5 to 5 but must lie in 0 to 4"),
        ((0.5, 0), TypeError, "token has dtype float64 but must hold whole numbers"),
        ((0, True), TypeError, "expert has dtype bool"),
    ]:
        with pytest.raises(error, match=words):
            batch.contains(*arguments)


# What must hold for every input, beyond agreement with the definition.

affinities = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 5)),
    elements=st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0])),
)


@settings(max_examples=300, deadline=None)
@given(affinities, st.data())
def test_properties(values, data):
    _, tokens, experts = values.shape
    capacity = data.draw(st.integers(1, tokens), label="capacity")
    top = data.draw(st.integers(1, experts), label="top")
    got = {rule: route(rule, values, capacity, top) for rule in RULES}
    for rule, a in got.items():
        assert_follows_definition(rule, values.tolist(), capacity, top, a)
        # Slots of each expert are 0, 1, ..., kept - 1, in this order.
        want = np.concatenate([np.arange(k) for k in a.kept.ravel()])
        np.testing.assert_array_equal(a.slot, want)
        # A larger capacity keeps all that a smaller one keeps.
        if capacity < tokens:
            assert route(rule, values, capacity + 1, top).contains(a.token, a.expert, a.sample).all()
    # N3: token choice and resonance differ in whom they keep, not in how many.
    np.testing.assert_array_equal(got["token_choice"].load, got["resonance"].load)
    assert (got["resonance"].load.sum(axis=-1) == tokens * top).all()
    # With every token a candidate of every expert, resonance is expert choice.
    everyone = route("resonance", values, capacity, experts)
    for field in ("sample", "expert", "token", "slot", "load", "dropped"):
        np.testing.assert_array_equal(getattr(everyone, field), getattr(got["expert_choice"], field))
    # N7: a candidate that expert choice keeps is kept by resonance.
    ecr, res, chosen = got["expert_choice"], got["resonance"], route("resonance", values, tokens, top)
    candidate = chosen.contains(ecr.token, ecr.expert, ecr.sample)
    assert res.contains(ecr.token, ecr.expert, ecr.sample)[candidate].all()
    # At full capacity nothing that chose an expert is dropped.
    assert chosen.dropped.size == 0


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 12).flatmap(lambda tokens: st.tuples(st.just(tokens), st.integers(1, tokens))),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_affinity_rules_do_not_see_positions(size, experts, seed):
    tokens, capacity = size
    rng = np.random.default_rng(seed)
    values, shuffle = rng.uniform(-1, 1, (tokens, experts)), rng.permutation(tokens)
    for rule in ("expert_choice", "resonance"):
        plain, moved = route(rule, values, capacity), route(rule, values[shuffle], capacity)
        assert entries(plain) == [(i, slot, shuffle[t]) for i, slot, t in entries(moved)]


def test_no_array_of_tokens_by_experts_by_capacity():
    tokens, experts, capacity = 2048, 32, 512
    values = np.random.default_rng(0).standard_normal((tokens, experts))
    for rule in RULES:
        route(rule, values, capacity)
        tracemalloc.start()
        route(rule, values, capacity)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * values.nbytes
        assert peak < tokens * experts * capacity / 5  # a fifth of a mask of single bytes


FINE = np.zeros((6, 3))
BAD = {
    "list": ([[1.0, 2.0]], 1, 1, TypeError, "affinity is a list"),
    "text": ("affinity", 1, 1, TypeError, "affinity is a str"),
    "integers": (np.zeros((6, 3), dtype=int), 1, 1, TypeError, "affinity has dtype int64"),
    "booleans": (np.zeros((6, 3), dtype=bool), 1, 1, TypeError, "affinity has dtype bool"),
    "complex": (np.zeros((6, 3), dtype=complex), 1, 1, TypeError, "affinity has dtype complex128"),
    "objects": (np.zeros((6, 3), dtype=object), 1, 1, TypeError, "affinity has dtype object"),
    "nan": (np.where(np.eye(6, 3) > 0, np.nan, 0.0), 1, 1, ValueError, "affinity holds NaN or infinite"),
    "infinite": (np.where(np.eye(6, 3) > 0, -np.inf, 0.0), 1, 1, ValueError, "affinity holds NaN or infinite"),
    "one axis": (np.zeros(6), 1, 1, ValueError, "affinity has shape (6,) but must be (tokens, experts) or"),
    "four axes": (np.zeros((1, 2, 3, 4)), 1, 1, ValueError, "affinity has shape (1, 2, 3, 4)"),
    "no sample": (np.zeros((0, 6, 3)), 1, 1, ValueError, "affinity has shape (0, 6, 3)"),
    "no token": (np.zeros((0, 3)), 1, 1, ValueError, "affinity has shape (0, 3)"),
    "no expert": (np.zeros((6, 0)), 1, 1, ValueError, "affinity has shape (6, 0)"),
    "no capacity": (FINE, 0, 1, ValueError, "capacity = 0 must be a whole number between 1 and tokens = 6"),
    "capacity > s": (FINE, 7, 1, ValueError, "capacity = 7 must be a whole number between 1 and tokens = 6"),
    "negative capacity": (FINE, -1, 1, ValueError, "capacity = -1 must be"),
    "fractional capacity": (FINE, 2.0, 1, TypeError, "capacity = 2.0 must be a whole number"),
    "capacity true": (FINE, True, 1, TypeError, "capacity = True must be a whole number"),
    "capacity text": (FINE, "2", 1, TypeError, "capacity = '2' must be a whole number"),
    "capacity none": (FINE, None, 1, TypeError, "capacity = None must be a whole number"),
    "capacities": (FINE, [1, 2, 3], 1, ValueError, "capacity has shape (3,) but must be one whole number"),
    "no top": (FINE, 1, 0, ValueError, "top = 0 must be a whole number between 1 and experts = 3"),
    "top > n": (FINE, 1, 4, ValueError, "top = 4 must be a whole number between 1 and experts = 3"),
    "fractional top": (FINE, 1, 1.5, TypeError, "top = 1.5 must be a whole number"),
}


# Expert choice has no `top`.
@pytest.mark.parametrize(
    ("rule", "case"), [(r, c) for r in RULES for c, (_, _, top, *_) in BAD.items() if r != "expert_choice" or top == 1]
)
def test_bad_input(rule, case):
    affinity, capacity, top, error, words = BAD[case]
    with pytest.raises(error) as caught:
        route(rule, affinity, capacity, top)
    assert words in str(caught.value)
