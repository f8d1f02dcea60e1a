"""Adaptive capacity: the router against its definition in exact fractions, and its law against the router."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate

import resonance_theory as rt
from resonance_theory.rules import select
from resonance_theory.tokens import affinity_mass


def library(name):
    return np if name == "numpy" else pytest.importorskip(name)


def by_definition(affinity, mass, top, capacity):
    """One sample, lists of floats: entries (expert, slot, token) and loads, one token and one expert at a time."""
    tokens, experts = range(len(affinity)), range(len(affinity[0]))
    choice = {t: sorted(experts, key=lambda i, t=t: (-affinity[t][i], i))[:top] for t in tokens}
    entries, load = [], []
    for i in experts:
        candidates = sorted((t for t in tokens if i in choice[t]), key=lambda t, i=i: (-affinity[t][i], t))
        load.append(len(candidates))
        total = sum((Fraction(affinity[t][i]) for t in candidates), Fraction(0))
        so_far = Fraction(0)
        for slot, t in enumerate(candidates):
            if total <= 0 or so_far >= Fraction(mass) * total or slot == capacity:
                break
            entries.append((i, slot, t))
            so_far += Fraction(affinity[t][i])
    return entries, load


def check(affinity, mass, top, capacity, got):
    values = np.asarray(affinity)
    batch = values if values.ndim == 3 else values[None]
    wanted = [by_definition(v.tolist(), mass, top, capacity or len(v)) for v in batch]
    sample = np.zeros(len(np.asarray(got.expert)), int) if got.sample is None else np.asarray(got.sample)
    columns = [sample, *(np.asarray(c) for c in (got.expert, got.slot, got.token))]
    entries = [tuple(row) for row in np.stack(columns, axis=1).tolist()]
    assert entries == [(b, *entry) for b, (kept, _) in enumerate(wanted) for entry in kept]
    assert np.asarray(got.load).reshape(len(batch), -1).tolist() == [load for _, load in wanted]
    counts = [[sum(e == i for e, _, _ in kept) for i in range(batch.shape[2])] for kept, _ in wanted]
    assert np.asarray(got.kept).reshape(len(batch), -1).tolist() == counts


@pytest.mark.parametrize("name", ["numpy", "torch", "array_api_strict"])
@pytest.mark.parametrize("top", [1, 2, 3])
def test_router_follows_its_definition_in_every_library(name, top):
    xp = library(name)
    rng = np.random.default_rng(top)
    for low in (-4, -16, 0):  # sixteenths: all sums are exact, with many ties and totals that are zero or negative
        values = rng.integers(low, 5, (40, 11, 4)) / 16.0
        for mass in (0.25, 0.5, 0.875, 1.0):
            for capacity in (None, 2):
                got = rt.adaptive.route(xp.asarray(values), mass, top=top, capacity=capacity)
                assert type(got.token) is type(xp.asarray(values))
                check(values, mass, top, capacity, got)
    single = rt.adaptive.route(xp.asarray(values[0]), 0.5, top=top)
    assert single.sample is None
    check(values[0], 0.5, top, None, single)


def test_sums_whose_order_the_width_decides(monkeypatch):
    """What replaces cumulative sums on devices that add in any order: the same sets, in the rule and in the router."""
    rng = np.random.default_rng(5)
    for width in (1, 2, 3, 7, 8, 33):
        values = rng.integers(-9, 10, (3, width)) / 8
        assert np.array_equal(select.running_sums(np, values), values.cumsum(-1))
    assert select.running_sums(np, np.ones((2, 0))).shape == (2, 0)
    used, real = [], select.running_sums
    monkeypatch.setattr(select, "_in_order", lambda device: False)
    monkeypatch.setattr(select, "running_sums", lambda xp, values: used.append(xp) or real(xp, values))
    values = rng.integers(-4, 5, (40, 11, 4)) / 16.0
    for mass in (0.25, 0.875, 1.0):
        check(values, mass, 2, None, rt.adaptive.route(values, mass, top=2))
    assert len(used) == 3
    torch = pytest.importorskip("torch")
    x = torch.asarray(rng.standard_normal((3, 40, 24)))
    router = rt.nn.ResonanceRouter(24, 4, mass=0.7)
    wanted, got = rt.adaptive.route(router(x).score.numpy(), 0.7), router(x).assignment()
    assert np.array_equal(got.token, wanted.token)
    assert np.array_equal(got.expert, wanted.expert)
    assert len(used) > 4


@settings(max_examples=150, deadline=None)
@given(
    values=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(-64, 64)),
    mass=st.integers(1, 64).map(lambda k: k / 64),
    data=st.data(),
)
def test_router_follows_its_definition(values, mass, data):
    values = values / 64
    top = data.draw(st.integers(1, values.shape[-1]))
    capacity = data.draw(st.none() | st.integers(1, values.shape[-2]))
    check(values, mass, top, capacity, rt.adaptive.route(values, mass, top=top, capacity=capacity))


def test_single_precision_is_summed_in_double_precision():
    values = np.full((100_000, 1), 0.1, dtype=np.float32)
    assert int(rt.adaptive.route(values, 0.5).kept[0]) == 50_000


def test_keeping_more_mass_keeps_more_and_never_other_tokens():
    scores = rt.tokens.samplers.isotropic_affinity(np.random.default_rng(3), 20, 200, 16, 4)
    kept = [rt.adaptive.route(scores, mass) for mass in (0.1, 0.4, 0.7, 1.0)]
    everything = rt.resonance.route(scores, 200)
    for less, more in zip(kept, [*kept[1:], everything]):
        assert np.all(more.contains(less.token, less.expert, less.sample))
        assert less.token.size < more.token.size


def test_no_expert_keeps_a_candidate_of_negative_affinity():
    scores = rt.tokens.samplers.isotropic_affinity(np.random.default_rng(4), 300, 20, 3, 2)
    routed = rt.adaptive.route(scores, 1.0)
    assert routed.token.size
    assert scores[routed.sample, routed.token, routed.expert].min() > 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mass": 0.0}, ValueError, "mass = 0.0 must be"),
        ({"mass": 1.5}, ValueError, "mass = 1.5 must be"),
        ({"mass": float("nan")}, ValueError, "mass = nan must be"),
        ({"mass": "half"}, TypeError, "mass = 'half' must be"),
        ({"mass": [0.5, 0.6]}, ValueError, "must be one number"),
        ({"capacity": 6}, ValueError, "capacity = 6 must be"),
        ({"top": 4}, ValueError, "top = 4 must be"),
        ({"affinity": np.full((5, 3), 1.7e308)}, ValueError, "affinity holds values beyond 1e290"),
        ({"affinity": [[0.5]]}, TypeError, "affinity is a list"),
    ],
)
def test_bad_input_to_the_router(change, error, words):
    arguments = {"affinity": np.full((5, 3), 0.5), "mass": 0.5, "top": 1, "capacity": 5, **change}
    with pytest.raises(error, match=words):
        rt.adaptive.route(arguments.pop("affinity"), arguments.pop("mass"), **arguments)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dim": 1}, ValueError, "dim = 1 must be"),
        ({"dim": 8.5}, TypeError, "dim = 8.5 must be"),
        ({"dim": float("nan")}, TypeError, "dim = nan must be"),
        ({"dim": 1e19}, TypeError, "dim = 1e\\+19 must be"),
        ({"experts": 9}, ValueError, "experts = 9 must be"),
        ({"top": 4}, ValueError, "top = 4 must be"),
        ({"mass": 0.0}, ValueError, "mass = 0.0 must be"),
    ],
)
def test_bad_input_to_the_law(change, error, words):
    arguments = {"mass": 0.5, "dim": 8, "experts": 4, "top": 1, **change}
    for function in (rt.tokens.affinity_mass.kept_fraction, rt.tokens.affinity_mass.threshold):
        with pytest.raises(error, match=words):
            function(**arguments)


@pytest.mark.parametrize("mass", [1e-12, 1e-18, 1e-25, 5e-324])
def test_tiny_shares(mass):
    """The cut tends to the largest affinity, and what lies above it to nothing."""
    for dim in (4, 64, np.inf):
        kept = rt.tokens.affinity_mass.kept_fraction(mass, dim, 2)
        assert 0 <= kept <= 10 * mass + 1e-18
        assert rt.tokens.affinity_mass.threshold(mass, dim, 2) >= rt.tokens.affinity_mass.threshold(1e-9, dim, 2)
    flow = rt.tokens.evolving.Evolving(dim=64, experts=2, signal=1.0)
    assert flow.adaptive(1.0, mass).threshold[0] > 0.6


def test_all_of_the_affinity_of_many_experts():
    """No candidate is left out to 14 digits, though the place of the cut is lost in rounding."""
    assert rt.tokens.affinity_mass.kept_fraction(1.0, [10**5, 10**7], [1000, 64]) == pytest.approx([1, 1], abs=1e-14)
    assert rt.tokens.affinity_mass.success(1.0, 1e5, 64, 8, tokens=3) <= 1


def test_law_broadcasts_and_tends_to_gaussian_scores():
    mass = np.array([[0.3], [0.9]])
    got = rt.tokens.affinity_mass.kept_fraction(mass, [16, 10_000], 4)
    assert got.shape == (2, 2)
    assert got[1, 0] == rt.tokens.affinity_mass.kept_fraction(0.9, 16, 4)
    np.testing.assert_allclose(got[:, 1], rt.tokens.affinity_mass.kept_fraction([0.3, 0.9], np.inf, 4), atol=2e-4)
    assert np.shape(rt.tokens.affinity_mass.success(0.5, [1.0, 2.0], 8, 2)) == (2,)


@pytest.mark.parametrize(("mass", "dim", "experts", "top"), [(0.5, 16, 4, 1), (0.8, 8, 4, 2), (1.0, 6, 3, 1)])
def test_law_against_the_router_at_many_tokens(mass, dim, experts, top):
    scores = rt.tokens.samplers.isotropic_affinity(np.random.default_rng(5), 8, 60_000, dim, experts)
    routed = rt.adaptive.route(scores, mass, top=top)
    measured = routed.kept.sum() / routed.load.sum()
    # the cut's noise: about sqrt(1/(480000 top)) in the fraction; a wrong top or dim moves it by .01 or more
    assert measured == pytest.approx(rt.tokens.affinity_mass.kept_fraction(mass, dim, experts, top=top), abs=0.004)
    worst = scores[routed.sample, routed.token, routed.expert].reshape(-1)[routed.slot == routed.slot.max()]
    assert worst.max() == pytest.approx(rt.tokens.affinity_mass.threshold(mass, dim, experts, top=top), abs=0.02)


def test_success_is_the_hit_rate_above_the_cut():
    # two experts in the plane: P(hit, affinity >= a) for a > 1/sqrt(2) is the affinity's own tail
    a = rt.tokens.affinity_mass.threshold(0.3, 2, 2)
    assert a > 0.75
    assert rt.tokens.affinity_mass.success(0.3, 1.5, 2, 2) == pytest.approx(
        rt.tokens.affinity_tail(a, 1.5, 2), abs=1e-10
    )
    a = rt.tokens.affinity_mass.threshold(0.6, 64, 8)
    law = rt.tokens.planted.planted(2.5, 64, 8, nodes=16384)
    expected = law.weight @ (law.hit * (law.affinity >= a))
    assert rt.tokens.affinity_mass.success(0.6, 2.5, 64, 8) == pytest.approx(expected, abs=2e-4)


# --- finite numbers of tokens -----------------------------------------------------------------------------------------


def sums_by_convolution(mass, dim, experts, tokens, signal):
    """(success, fraction kept) by another route: A < mass S with sums of affinities on a lattice, no Fourier inversion.

    Given that the token has affinity a, the affinities above and below it are convolved number by number of candidates.
    """
    step = 1 / 400
    grid = (np.arange(800) + 0.5) * step - 1
    chosen = rt.tokens.hit_given_affinity(grid, dim, experts) * step
    background = chosen * rt.tokens.affinity_density(grid, 0.0, dim)
    hit = chosen * rt.tokens.affinity_density(grid, signal, dim)
    load, others = 1 / experts, tokens - 1
    index = np.arange(grid.size)
    kept = np.zeros(grid.size)
    # at a > 0: kept iff (1 - mass) above - mass below < mass a, each candidate on one side; own bin: half on each
    fine = 4000
    values = (np.arange(-2 * fine, 2 * fine + 1)) / fine  # of the sum, in steps of 1/4000
    for i in index[(grid > 0) & (background + hit > 1e-7)]:
        above = background * ((index > i) + 0.5 * (index == i))
        below = background * ((index < i) + 0.5 * (index == i))
        single = np.bincount(
            np.concatenate([np.rint((1 - mass) * grid * fine), np.rint(-mass * grid * fine)]).astype(int) + 2 * fine,
            weights=np.concatenate([above, below]),
            minlength=values.size,
        )
        single[2 * fine] += 1 - load
        total = np.zeros(values.size)
        total[2 * fine] = 1.0
        for _ in range(others):
            total = scipy.signal.fftconvolve(total, single)[2 * fine : -2 * fine]
        kept[i] = total[values < mass * grid[i]].sum()
    return kept @ hit, kept @ background * experts


@pytest.mark.parametrize(("mass", "dim", "experts", "tokens"), [(0.7, 16, 4, 5), (0.4, 24, 3, 3)])
def test_finite_law_against_convolutions(mass, dim, experts, tokens):
    success, kept = sums_by_convolution(mass, dim, experts, tokens, 1.5)
    assert rt.tokens.affinity_mass.success(mass, 1.5, dim, experts, tokens=tokens) == pytest.approx(success, abs=1e-3)
    assert rt.tokens.affinity_mass.kept_fraction(mass, dim, experts, tokens=tokens) == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize(
    ("mass", "dim", "experts", "top", "tokens"), [(0.8, 16, 4, 1, 16), (0.5, 6, 3, 2, 20), (1.0, 8, 2, 1, 12)]
)
def test_finite_law_against_the_router(mass, dim, experts, top, tokens):
    rng, samples = np.random.default_rng(8), 40_000
    drawn = rt.tokens.samplers.planted_affinity(rng, samples, tokens, dim, experts, 1.5)
    rate = rt.adaptive.route(drawn.values, mass, top=top).contains(drawn.position, drawn.expert).mean()
    assert (
        abs(rate - rt.tokens.affinity_mass.success(mass, 1.5, dim, experts, top=top, tokens=tokens))
        < 6 * 0.5 / samples**0.5
    )
    routed = rt.adaptive.route(rt.tokens.samplers.isotropic_affinity(rng, samples, tokens, dim, experts), mass, top=top)
    part = routed.kept.sum(axis=-1) / (tokens * top)  # of one sample
    error = part.std() / samples**0.5
    assert (
        abs(part.mean() - rt.tokens.affinity_mass.kept_fraction(mass, dim, experts, top=top, tokens=tokens)) < 6 * error
    )


def test_finite_law_tends_to_the_limit_and_broadcasts():
    got = rt.tokens.affinity_mass.kept_fraction(0.8, 64, 8, tokens=[16, 256, 4096, 65536])
    limit = rt.tokens.affinity_mass.kept_fraction(0.8, 64, 8)
    gaps = got - limit
    assert np.all(gaps > 0)  # the last candidate is kept whole
    np.testing.assert_allclose(gaps[2:] * [4096, 65536], gaps[2] * 4096, rtol=0.1)  # of order 1/tokens
    assert rt.tokens.affinity_mass.success(0.8, 2.5, 64, 8, tokens=65536) == pytest.approx(
        rt.tokens.affinity_mass.success(0.8, 2.5, 64, 8), abs=1e-4
    )
    # alone, a candidate is kept iff its affinity is positive
    law = rt.tokens.planted.planted(1.5, 16, 4, nodes=16384)
    positive = law.weight @ (law.hit * (law.affinity > 0))
    assert rt.tokens.affinity_mass.success(0.3, 1.5, 16, 4, tokens=1) == pytest.approx(positive, abs=2e-4)


def test_unequal_loads_against_the_router():
    """A heavy and a light expert: numbers kept, and the planted token's success, at five tokens."""
    loads = [0.6, 0.3, 0.1]
    model = rt.tokens.samplers.Dependent(1.5, 12, 3, load=loads)
    rng = np.random.Generator(np.random.Philox(8))
    routed = rt.adaptive.route(model.background(rng, 100_000, 5), 0.5)
    kept = rt.tokens.affinity_mass.kept_fraction(0.5, 12, 3, tokens=5, load=loads)
    mean, error = routed.kept.mean(axis=0), routed.kept.std(axis=0) / np.sqrt(100_000)
    np.testing.assert_array_less(abs(mean - 5 * np.array(loads) * kept), 5 * error + 1e-4)
    drawn = model.affinity(rng, 100_000, 5)
    done = rt.adaptive.route(drawn.values, 0.5).contains(drawn.position, drawn.expert)
    rates = rt.tokens.affinity_mass.success(0.5, 1.5, 12, 3, tokens=5, load=loads)
    for i, rate in enumerate(rates):
        mine = drawn.expert == i
        assert abs(done[mine].mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / mine.sum())


def test_loads_matter_at_few_tokens_only():
    equal = rt.tokens.affinity_mass.kept_fraction(0.8, 16, 4, top=2, tokens=9)
    assert rt.tokens.affinity_mass.kept_fraction(0.8, 16, 4, top=2, tokens=9, load=0.5) == pytest.approx(
        equal, abs=1e-12
    )
    assert abs(rt.tokens.affinity_mass.kept_fraction(0.8, 16, 4, top=2, tokens=9, load=0.2) - equal) > 0.01
    for rate in (
        lambda **load: rt.tokens.affinity_mass.kept_fraction(0.8, 16, 4, **load),
        lambda **load: rt.tokens.affinity_mass.success(0.8, 1.5, 16, 4, **load),
    ):
        np.testing.assert_array_equal(rate(load=[0.1, 0.9]), np.full(2, rate()))
    for load, words in ((0.0, "load = 0.0 must be"), (1.5, "load = 1.5 must be")):
        for tokens in (None, 9):
            with pytest.raises(ValueError, match=words):
                rt.tokens.affinity_mass.kept_fraction(0.8, 16, 4, tokens=tokens, load=load)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tokens": 0}, ValueError, "tokens = 0 must be a whole number between 1 and 100000"),
        ({"tokens": 10**6}, ValueError, "tokens = 1000000 must be"),
        ({"tokens": 1.5}, TypeError, "tokens = 1.5 must be"),
        ({"dim": np.inf}, TypeError, "dim = inf must be"),
        ({"mass": 0.0}, ValueError, "mass = 0.0 must be"),
        ({"experts": 9}, ValueError, "experts = 9 must be"),
        ({"top": 4}, ValueError, "top = 4 must be"),
    ],
)
def test_bad_input_to_the_finite_law(change, error, words):
    arguments = {"mass": 0.5, "dim": 8, "experts": 4, "top": 1, "tokens": 10, **change}
    with pytest.raises(error, match=words):
        rt.tokens.affinity_mass.kept_fraction(**arguments)


@pytest.mark.parametrize(
    ("shape", "mass", "exact"),
    [
        # two tokens: one integral over the other token's affinity; more: 10^7 routed samples, error 1e-4
        ((3, 2, 2), 0.8, 0.700812),
        ((3, 2, 3), 0.8, 0.652114),
        ((16, 4, 5), 0.9, 0.903656),
        ((2, 2, 4), 0.8, 0.634017),
    ],
)
def test_few_tokens_in_few_dimensions(shape, mass, exact):
    dim, experts, tokens = shape
    assert float(affinity_mass.kept_fraction(mass, dim, experts, tokens=tokens)) == pytest.approx(exact, abs=3e-5)
    if tokens == 2:
        law = affinity_mass.affinities(0.0, dim, experts, 1)

        def kept(y):
            a = np.tanh(y)
            tail = law.tail(np.array([a, -a, max(a, min(mass * a / (1 - mass), 1.0))]))
            return float(law.density(np.array([y]))[0]) * (0.5 + tail[1] - tail[2])

        points = [np.arctanh((1 - mass) / mass)]
        assert integrate.quad(kept, 0, 18, points=points, limit=300)[0] / 0.5 == pytest.approx(exact, abs=1e-6)
