"""The exact laws from the inside: each numerical step and each bound against its definition, at every edge.

The references are rationals, ball arithmetic, and formulas written out afresh; with `test_laws.py` these tests are what
the mutants of the formulas (`make mutants`) are up against.
"""

import math
from fractions import Fraction
from math import comb

import flint
import mpmath as mp
import numpy as np
import pytest
from scipy import special

from resonance_theory.rules import (
    BetaBinomial,
    Rates,
    Rule,
    _beta,
    _law,
    _ties,
    bounds,
    expert_choice,
    random_keep,
    resonance,
    token_choice,
)

LARGEST = 2**52


@pytest.fixture(autouse=True)
def precision():
    saved = flint.ctx.dps
    flint.ctx.dps = 60
    with mp.workdps(40):
        yield
    flint.ctx.dps = saved


def close(ours, reference, tolerance):
    """Relative agreement of floats with a list of exact or multi-precision numbers."""
    for value, exact in zip(np.ravel(ours), reference, strict=True):
        scale = abs(exact) if exact else 1
        error = float(abs(mp.mpf(float(value)) - exact) / scale)
        assert error <= tolerance, f"{float(value)!r} against {mp.nstr(exact, 20)}: {error:.1e}"


def exact(x):
    return Fraction(float(x))


def rational(x):
    return mp.mpf(x.numerator) / x.denominator


# -- thresholds and products ---------------------------------------------------------------------------------------------


def test_difference_is_rounded_once():
    rng = np.random.default_rng(1)
    m = np.floor(2 ** rng.uniform(1, 52, 400))
    p = rng.random(400)
    p_low = p * 2**-54 * rng.uniform(-1, 1, 400)
    k = np.round(m * p) + rng.integers(-2, 3, 400)  # where the leading digits cancel
    ours = _beta.difference(k, m, p, p_low)
    wanted = [exact(a) - exact(b) * (exact(x) + exact(y)) for a, b, x, y in zip(k, m, p, p_low)]
    # two units of the result, or the rounding of m p_low, which is itself only half a unit of p
    for value, true, scale in zip(ours, wanted, np.abs(m * p) * 2.0**-104):
        assert abs(exact(value) - true) <= max(4e-16 * abs(true), exact(scale) * 4)


def test_thresholds_carry_the_quotient_and_its_complement():
    for a, b in [(1, 3), (2, 3), (1, 7), (6, 7), (1, 10**6), (355, 452), (LARGEST - 1, LARGEST), (0, 5), (5, 5)]:
        at = _beta.Threshold.ratio(np.int64(a), np.int64(b))
        for high, low, true in ((at.p, at.p_low, Fraction(a, b)), (at.q, at.q_low, 1 - Fraction(a, b))):
            assert float(high) == float(true)
            assert abs(exact(high) + exact(low) - true) <= true * Fraction(1, 2**104)
    for value in (0.1, 1 / 3, 1e-20, 0.75, 1.0, 0.0, 0.9999999):
        at = _beta.Threshold.of(value)
        assert (float(at.p), float(at.p_low)) == (value, 0.0)
        assert exact(at.q) + exact(at.q_low) == 1 - exact(value)
        assert float(at.q) == 1 - value


# -- elementary functions ------------------------------------------------------------------------------------------------


def test_stirling_remainder():
    def remainder(n):
        return mp.log(mp.factorial(n)) - mp.log(mp.sqrt(2 * mp.pi * n)) - n * mp.log(n) + n

    n = [*range(1, 60), 1000, 10**6, 10**9]
    close(_beta._stirling(np.array(n, dtype=np.float64)), [remainder(v) for v in n], 7e-16)
    assert _beta._stirling(np.zeros(1)) == 0
    # the whole table is exact to the last bit, also its entry beyond the last one in use
    assert _beta._STIRLING_TABLE.tolist() == [0.0, *(float(remainder(v)) for v in range(1, 17))]


def test_log1p_minus():
    t = np.concatenate([10.0 ** np.arange(-12, 0), [0.15, 0.1999, 0.2, 0.2001, 0.5, 1.0, 9.0, 1e6]])
    t = np.concatenate([t, -t[t < 1], [-0.75, -0.99]])
    for part, tolerance in ((t[np.abs(t) < 0.2], 5e-16), (t[np.abs(t) >= 0.2], 1.5e-15)):  # series, logarithm
        close(_beta._log1p_minus(part), [mp.log1p(mp.mpf(v)) - mp.mpf(v) for v in part], tolerance)


def test_log1mexp():
    x = -np.array([1e-300, 1e-17, 1e-5, 0.1, 0.5, 0.69, 0.6931471805599453, 0.7, 1, 5, 40, 700])
    close(_law._log1mexp(x), [mp.log(-mp.expm1(mp.mpf(v))) for v in x], 5e-16)
    assert _law._log1mexp(np.zeros(1)) == -np.inf


def test_deviance():
    x, shift = map(
        np.ravel, np.meshgrid([1.0, 3.0, 1e4, 3e8], [-0.999, -0.6, -0.5, -0.4, -1e-3, 1e-7, 0.01, 0.3, 4.0, 1e3])
    )
    shift = x * shift
    mean = x + shift
    shift = mean - x
    wanted = [mp.mpf(a) * mp.log(mp.mpf(a) / mp.mpf(m)) + mp.mpf(m) - mp.mpf(a) for a, m in zip(x, mean)]
    close(_beta.deviance(x, mean, shift), wanted, 4e-15)
    x, mean = np.array([3.0, 1e4, 3e8]), np.array([1e-320, 1e-307, 1e-301])  # the quotient overflows
    wanted = [mp.mpf(a) * (mp.log(mp.mpf(a)) - mp.log(mp.mpf(m))) + mp.mpf(m) - mp.mpf(a) for a, m in zip(x, mean)]
    close(_beta.deviance(x, mean, mean - x), wanted, 1e-15)


def test_power_series():
    for t in (-0.09, -0.04, -1e-3, 1e-6, 0.05, 0.09):
        true = mp.log1p(mp.mpf(t)) - mp.mpf(t)
        close(_beta._power(np.array([2e4]), np.array([t]), True), [20000 * true], 2e-15)
    for t in (-0.9, -0.3, 0.2, 3.0):
        close(_beta._power(np.array([7.0]), np.array([t]), False), [7 * (mp.log1p(mp.mpf(t)) - mp.mpf(t))], 1e-14)


def test_binomial_masses():
    m, k, p = [], [], []
    for trials, share in [
        (1, 0.3),
        (2, 0.5),
        (9, 0.25),
        (9, 0.9),
        (5, 0.498),  # beside the middle, where the route of log p and log q changes
        (5, 0.502),
        (30, 1e-3),
        (30, 0.999),
        (10**4, 0.37),
        (10**9, 1e-3),
    ]:
        counts = range(trials + 1) if trials < 40 else [0, 1, trials // 3, int(trials * share), trials - 1, trials]
        for count in counts:
            m.append(trials), k.append(count), p.append(share)
    m, k, p = (np.array(v, dtype=np.float64) for v in (m, k, p))
    at = _beta.Threshold.of(p)
    ours = _beta.log_mass(m, k, at, -_beta.difference(k, m, p, 0.0))
    wanted = [
        mp.log(mp.binomial(a, b)) + b * mp.log(mp.mpf(x)) + (a - b) * mp.log1p(-mp.mpf(x))
        for a, b, x in zip(map(int, m), map(int, k), p)
    ]
    for value, true in zip(ours, wanted):
        assert abs(float(mp.mpf(float(value)) - true)) <= 4e-15 * max(1.0, abs(float(true)))
    assert float(_beta.log_mass(*(np.zeros(1),) * 2, _beta.Threshold.of(np.array([0.3])), np.zeros(1))[0]) == 0
    # thresholds of two doubles: p = 1/3 exactly, q = 1/3 exactly
    third = _beta.Threshold.ratio(np.int64([1, 2, 1, 2]), np.int64([3, 3, 3, 3]))
    m, k = np.full(4, 1e15), np.array([0.0, 0.0, 1e15, 1e15])
    ours = _beta.log_mass(m, k, third, np.zeros(4))
    log = [mp.log(mp.mpf(2) / 3), mp.log(mp.mpf(1) / 3)]
    close(ours, [10**15 * log[i] for i in (0, 1, 1, 0)], 3e-16)


@pytest.mark.parametrize(
    ("s", "c", "p"),
    [
        (2449, 140, 0.05673341209030888),
        (1596, 131, 0.08190263144312342),
        (9989, 138, 0.013612048009756248),
        (93477, 133, 0.0014016658983918736),
        (3689, 3558, 0.9654613006008432),
    ],
)
def test_tails_beside_the_mean(s, c, p):
    # the widest ranges of integration, in units of the distance to the density's zero
    ours = _beta.tail(np.array([s]), np.array([c]), _beta.Threshold.of(np.array([p])))
    with mp.workdps(60):
        mean, at = mp.mpf(c) / s, mp.mpf(p)
        assert bool(ours.lower[0]) == (p <= mean)
        sides = [(0, at), (at, 1)]
        low, high = sides[0] if p <= mean else sides[1]
        mass = mp.betainc(c, s - c, low, high, regularized=True)
        first = mean * mp.betainc(c + 1, s - c, low, high, regularized=True)
        close(np.exp(ours.log_mass), [mass], 1e-12)
        close(np.exp(ours.log_mean), [abs(at * mass - first)], 1e-12)


# -- edges of the laws ---------------------------------------------------------------------------------------------------


def place(s, c, h):
    if c >= s or h == 0:
        return 1.0
    return float(special.bdtr(c - 1, s - 1, h))


def test_place_and_share_at_the_edges():
    at = _beta.Threshold.of
    for s in (1, 2, 3, 5):
        for c in range(1, s + 1):
            for h in (0.0, 1e-300, 0.25, 0.5, 1.0):
                got = _law.has_place(np.array(s), np.array(c), at(h))
                assert np.exp(got.success) == pytest.approx(place(s, c, h), rel=1e-14)
                assert np.exp(got.failure) == pytest.approx(1 - place(s, c, h), rel=1e-13, abs=1e-16)
                pmf = special.binom(s - 1, np.arange(s)) * h ** np.arange(s) * (1 - h) ** np.arange(s - 1, -1, -1)
                lost = np.maximum(1 - c / np.arange(1, s + 1), 0) @ pmf
                got = _law.kept_fraction(np.array(s), np.array(c), at(h))
                assert np.exp(got.success) == pytest.approx(1 - lost, rel=1e-14)
                assert np.exp(got.failure) == pytest.approx(lost, rel=1e-12)
                if c == s or h == 0:
                    assert (float(got.success), float(got.failure)) == (0.0, -np.inf)
    sure = _law.has_place(np.array([4, 4]), np.array([4, 2]), at([1.0, 1.0]))
    assert sure.success.tolist() == [0, -np.inf]
    assert sure.failure.tolist() == [-np.inf, 0]


def test_logarithms_are_never_positive():
    s = np.arange(2, 4000)
    for pi in (1e-9, 1e-3, 0.1, 0.5, 0.999):
        for c in (np.ones_like(s), s // 2 + (s < 2), s - 1):
            for law in (_law.kept_fraction, _law.has_place):
                got = law(s, c, _beta.Threshold.of(np.array(pi)))
                assert got.success.max() <= 0
                assert got.failure.max() <= 0


def test_largest_sizes_are_accepted_and_larger_ones_are_not():
    for rule, alone, rare in (
        (token_choice, Rates(experts=1), Rates(experts=LARGEST)),
        (expert_choice, Rates(false_positive=0.5), Rates(false_positive=1e-20)),
        (resonance, Rates(candidate_tail=0.5), Rates(candidate_tail=1e-20)),
    ):
        assert rule.success(1, 1, alone) == 1
        assert rule.success(LARGEST, 1, Rates(experts=4) if rule is token_choice else alone) >= 0
        with pytest.raises(ValueError, match="tokens"):
            rule.success(LARGEST + 1, 1, alone)
        for tokens in (LARGEST + 1, 0):
            with pytest.raises(ValueError, match="tokens"):
                rule.least_capacity(0.5, tokens, alone)
        assert rule.least_capacity(0.5, 1, alone) == 1
        assert rule.least_capacity(1e-9, LARGEST, rare) == 1
    assert token_choice.success(4, 1, Rates(experts=LARGEST)) == pytest.approx(1)
    with pytest.raises(ValueError, match="experts"):
        token_choice.success(4, 1, Rates(experts=LARGEST + 1))
    with pytest.raises(ValueError, match="top"):
        token_choice.success(4, 1, Rates(experts=4, top=0))
    with pytest.raises(ValueError, match="target"):
        token_choice.least_capacity(1.005, 8, Rates(experts=2))


def test_defaults_are_one_choice_and_a_sure_hit():
    default, explicit = Rates(experts=6), Rates(experts=6, hit=1.0, top=1)
    for verb in ("success", "failure", "log_success", "log_failure", "kept", "drop_rate", "bounds"):
        assert getattr(token_choice, verb)(50, 7, default) == getattr(token_choice, verb)(50, 7, explicit)
    assert token_choice.least_capacity(0.9, 50, Rates(experts=6)) == token_choice.least_capacity(
        0.9, 50, Rates(experts=6, hit=1.0, top=1)
    )
    assert token_choice.least_capacity(0.9, 500, Rates(experts=6)) < token_choice.least_capacity(
        0.9, 500, Rates(experts=6, top=2)
    )


def by_bisection(rule, goal, s, rates):
    low, high = np.zeros_like(s), s.copy()
    while (high - low > 1).any():
        middle = (low + high + 1) // 2
        met = np.where(goal >= 0.5, rule.failure(s, middle, rates) <= 1 - goal, rule.success(s, middle, rates) >= goal)
        high, low = np.where(met, middle, high), np.where(met, low, np.minimum(middle, high - 1))
    return high


@pytest.mark.parametrize("rule", [token_choice, resonance, expert_choice], ids=str)
@pytest.mark.parametrize("sizes", [(2, 60), (64, 8192), (10**8, 10**9)])
def test_the_search_finds_what_bisection_finds(rule, sizes, monkeypatch):
    """And with less than a third of its evaluations; a guess from afar costs time, never the answer."""
    rng = np.random.default_rng(sizes[0])
    s, n, tail = rng.integers(*sizes, 300), rng.integers(2, 128, 300), rng.uniform(0.001, 0.999, 300)
    rates = Rates(experts=n, candidate_tail=tail, false_positive=tail)
    evaluations, law = [], _ties.search

    def counted(reached, tokens, first):
        def one(i, c):
            evaluations.append(len(i))
            return reached(i, c)

        return law(one, tokens, first)

    for goal in (rng.uniform(0.5, 0.99, 300), 1 - 10.0 ** -rng.uniform(1, 15, 300), 10.0 ** -rng.uniform(0, 200, 300)):
        wanted = by_bisection(rule, goal, s, rates)
        monkeypatch.setattr(_ties, "search", counted)
        assert np.array_equal(rule.least_capacity(goal, s, rates), wanted)
        for first in (np.nan, 0.0, 1e18, 7.0):
            monkeypatch.setattr(
                _ties, "search", lambda reached, tokens, _, f=first: law(reached, tokens, 0 * tokens + f)
            )
            assert np.array_equal(rule.least_capacity(goal, s, rates), wanted)
    assert sum(evaluations) < 3 * 300 * np.log2(sizes[1]) / 3


@pytest.mark.parametrize("top", [1, 2, 3])
def test_least_capacity_by_search(top):
    s, n, hit = 41, 5, 0.9
    every = np.arange(1, s + 1)
    tail = 0.17
    laws = [
        (
            lambda t: token_choice.least_capacity(t, s, Rates(experts=n, hit=hit, top=top)),
            token_choice.success(s, every, Rates(experts=n, hit=hit, top=top)),
        ),
        (
            lambda t: resonance.least_capacity(t, s, Rates(hit=hit, candidate_tail=tail)),
            resonance.success(s, every, Rates(hit=hit, candidate_tail=tail)),
        ),
        (
            lambda t: expert_choice.least_capacity(t, s, Rates(false_positive=tail)),
            expert_choice.success(s, every, Rates(false_positive=tail)),
        ),
    ]
    for least, rates in laws:
        targets = np.array([0.01, 0.2, 0.35, 0.4999, 0.5, 0.5001, 0.7, 0.85, 0.8999])
        wanted = [int(every[np.argmax(rates >= t)]) for t in targets]
        assert least(targets).tolist() == wanted
        assert [int(least(t)) for t in targets] == wanted
        assert least(targets[:, None]).shape == (9, 1)
    # the double nearest to a rate is met by it or not: the exact rational number decides
    rates, h = Rates(hit=hit, candidate_tail=tail), Fraction(tail)
    for c in (3, 7):
        place = sum(comb(s - 1, j) * h**j * (1 - h) ** (s - 1 - j) for j in range(c))
        rate = float(resonance.success(s, c, rates))
        assert resonance.least_capacity(rate, s, rates) == (c if Fraction(hit) * place >= Fraction(rate) else c + 1)
        assert resonance.least_capacity(rate * (1 - 1e-13), s, rates) == c
        assert resonance.least_capacity(rate * (1 + 1e-13), s, rates) == c + 1


def test_exactly_attained_targets_are_met_and_missed_ones_are_not():
    """Every rate that is a double, for small sizes, against exact rationals; and rates that round to their bound."""
    attained = 0
    for s in range(2, 13):
        for n in (1, 2, 4):
            load = Fraction(1, n)
            mass = [comb(s - 1, j) * load**j * (1 - load) ** (s - 1 - j) for j in range(s)]
            first = [sum(m * min(Fraction(1), Fraction(c, j + 1)) for j, m in enumerate(mass)) for c in range(1, s + 1)]
            for rule, exact in ((token_choice, first), (resonance, [sum(mass[:c]) for c in range(1, s + 1)])):
                goals = sorted({rate for rate in exact if rate > 0 and Fraction(float(rate)) == rate})
                attained += len(goals)
                found = rule.least_capacity([float(goal) for goal in goals], s, Rates(experts=n, percentile=1.0))
                assert found.tolist() == [1 + next(i for i, rate in enumerate(exact) if rate >= goal) for goal in goals]
    assert attained > 200
    assert token_choice.least_capacity(0.75, 2, Rates(experts=2)) == 1
    # 0.5 - 1e-37, and below: Jensen's bound is never attained
    assert token_choice.least_capacity(0.5, [4096, 65536, 2**30], Rates(experts=8)).tolist() == [257, 4097, 2**26 + 1]
    assert resonance.least_capacity(0.5, [4096, 2**30], Rates(candidate_tail=0.5)).tolist() == [2048, 2**29]
    p = np.random.default_rng(3).random(200)
    assert token_choice.least_capacity(p, 10, Rates(experts=8, hit=p)).max() <= 10


def test_unreachable_target_is_located():
    with pytest.raises(
        ValueError, match=r"target\[0, 1\] = 0.95 cannot be reached.*tokens = 30, the success rate is 0.9$"
    ):
        resonance.least_capacity([[0.5, 0.95]], 30, Rates(hit=0.9, candidate_tail=0.1))
    with pytest.raises(ValueError, match=r"target = 0.4 cannot be reached"):
        resonance.least_capacity(0.4, 30, Rates(hit=0.3, candidate_tail=0.1))
    assert resonance.least_capacity(1.0, 30, Rates(hit=1.0, candidate_tail=1.0)) == 30


# -- averages ------------------------------------------------------------------------------------------------------------


def test_averages_over_the_last_axis():
    rng = np.random.default_rng(8)
    weight = rng.dirichlet(np.ones(3), size=2)
    q, hit = rng.random((2, 3)) / 3, rng.random((2, 3))
    s, c = np.array([20, 31]), np.array([4, 6])
    by_hand = [
        [sum(w * f(int(a), int(b), i, j) for j, w in enumerate(row)) for i, (a, b, row) in enumerate(zip(s, c, weight))]
        for f in (
            lambda a, b, i, j: place(a, b, q[i, j]),
            lambda a, b, i, j: hit[i, j] * place(a, b, q[i, j]),
            lambda a, b, i, j: hit[i, j] * float(token_choice.success(a, b, Rates(experts=4, top=2))),
            lambda a, b, i, j: hit[i, j] * float(token_choice.success(a, b, Rates(experts=4, load=q[i, j]))),
        )
    ]
    ours = [
        expert_choice.success(s, c, Rates(false_positive=q, weight=weight)),
        resonance.success(s, c, Rates(hit=hit, candidate_tail=q, weight=weight)),
        token_choice.success(s, c, Rates(experts=4, hit=hit, top=2, weight=weight)),
        token_choice.success(s, c, Rates(experts=4, hit=hit, load=q, weight=weight)),
    ]
    for value, wanted in zip(ours, by_hand):
        np.testing.assert_allclose(value, wanted, rtol=1e-13)
    np.testing.assert_allclose(
        expert_choice.failure(s, c, Rates(false_positive=q, weight=weight)), 1 - ours[0], rtol=1e-12
    )
    for rule, rates in (
        (expert_choice, Rates(false_positive=q)),
        (resonance, Rates(hit=hit, candidate_tail=q)),
    ):
        for kind in ("sharp", "chernoff"):
            single = rule.bounds(s[:, None], c[:, None], rates, kind=kind)
            for got, wanted in zip(rule.bounds(s, c, rates.replace(weight=weight), kind=kind), single):
                np.testing.assert_allclose(got, np.sum(weight * wanted, axis=1), rtol=1e-14)
    for kind in ("sharp", "poisson", "published"):
        for load in ({}, {"load": q}):
            single = token_choice.bounds(s[:, None], c[:, None], Rates(experts=4, hit=hit, **load), kind=kind)
            for got, wanted in zip(
                token_choice.bounds(s, c, Rates(experts=4, hit=hit, weight=weight, **load), kind=kind), single
            ):
                np.testing.assert_allclose(got, np.sum(weight * wanted, axis=1), rtol=1e-14)
    experts = np.array([4, 6])
    mixed = token_choice.success(s, c, Rates(experts=experts, hit=hit, weight=weight))
    wanted = [
        float(token_choice.success(a, b, Rates(experts=n)) * (w * p).sum())
        for a, n, b, w, p in zip(s, experts, c, weight, hit)
    ]
    np.testing.assert_allclose(mixed, wanted, rtol=1e-13)
    low, _ = token_choice.bounds(s, c, Rates(experts=experts, hit=hit, weight=weight))
    wanted = [
        float(token_choice.bounds(a, b, Rates(experts=n))[0] * (w * p).sum())
        for a, n, b, w, p in zip(s, experts, c, weight, hit)
    ]
    np.testing.assert_allclose(low, wanted, rtol=1e-13)


# -- bounds, written out afresh ------------------------------------------------------------------------------------------


def divergence(x, p):
    x, p = mp.mpf(x), mp.mpf(p)
    return (x * mp.log(x / p) if x else 0) + ((1 - x) * mp.log((1 - x) / (1 - p)) if x != 1 else 0)


PLACES = [
    (s, c, h) for s in (1, 2, 3, 12, 100) for c in (1, 2, 5, 11, 12, 30, 99) for h in (0.0625, 0.25, 0.5, 0.9) if c <= s
]


def test_chernoff_bounds():
    for s, c, h in PLACES:
        m = s - 1
        low, high = 1, 1
        if c < s:
            over, under = mp.mpf(c) / m, mp.mpf(c - 1) / m
            low = 1 - mp.exp(-m * divergence(over, h)) if over >= h else 0
            high = mp.exp(-m * divergence(under, h)) if under <= h else 1
        close(expert_choice.bounds(s, c, Rates(false_positive=h), kind="chernoff"), [low, high], 1e-13)
        close(resonance.bounds(s, c, Rates(hit=0.5, candidate_tail=h), kind="chernoff"), [low / 2, high / 2], 1e-13)


def test_zubkov_serov_bounds():
    for s, c, h in PLACES:
        m = s - 1

        def normal(k, m=m, h=h):
            return mp.ncdf(mp.sign(mp.mpf(k) / m - mp.mpf(h)) * mp.sqrt(2 * m * divergence(mp.mpf(k) / m, h)))

        if c == s:
            low = high = 1
        elif c == 1:
            low = high = (1 - mp.mpf(h)) ** m
        else:
            low, high = normal(c - 1), normal(c) if c < m else 1 - mp.mpf(h) ** m
        close(expert_choice.bounds(s, c, Rates(false_positive=h)), [low, high], 1e-12)
        close(resonance.bounds(s, c, Rates(hit=0.5, candidate_tail=h)), [low / 2, high / 2], 1e-12)
    assert [float(v) for v in expert_choice.bounds(6, 2, Rates(false_positive=0.0))] == [1, 1]
    assert [float(v) for v in expert_choice.bounds(6, 1, Rates(false_positive=0.0))] == [1, 1]
    assert [float(v) for v in expert_choice.bounds(6, 1, Rates(false_positive=1.0))] == [0, 0]


def test_published_bounds_of_expert_choice():
    for s, c, q in [
        (101, 40, 0.2),
        (101, 41, 0.2),
        (101, 39, 0.2),
        (101, 10, 0.2),
        (101, 9, 0.2),
        (101, 11, 0.2),
        (65, 32, 0.25),
        (65, 8, 0.25),
        (65, 31, 0.25),
        (65, 33, 0.25),
        (65, 7, 0.25),
    ]:
        mean = (s - 1) * q
        low = 1 - mp.exp(-mp.mpf(3 * c) / 16) if c >= 2 * mean else 0
        high = mp.exp(-mp.mpf(mean) / 8) if c <= mean / 2 else 1
        close(expert_choice.bounds(s, c, Rates(false_positive=q), kind="published"), [low, high], 1e-14)


def test_bounds_of_token_choice():
    for s, n, c, top in [
        (1, 1, 1, 1),
        (64, 8, 5, 1),
        (64, 8, 8, 1),
        (64, 8, 40, 1),
        (64, 8, 10, 2),
        (7, 3, 6, 3),
        (9, 100, 1, 1),
        (10**6, 8, 125_500, 1),
    ]:
        pi = mp.mpf(top) / n
        share = c / (pi * s)
        root = mp.sqrt(c * (1 - pi) / pi**2 + (c / pi - s) ** 2)
        mean = pi * s
        below = mp.gammainc(c, mean, regularized=True)  # P(Poi <= C-1)
        above = mp.gammainc(c + 1, 0, mean, regularized=True)  # P(Poi >= C+1)
        hit = 0.75
        for kind, low, high in (
            ("sharp", max((c / pi + s - root) / (2 * s), mp.mpf(0)), min(share, mp.mpf(1))),
            ("poisson", below + share * above, min(share, mp.mpf(1))),
            ("published", share / 5, share * 10),
        ):
            ours = token_choice.bounds(s, c, Rates(experts=n, hit=hit, top=top), kind=kind)
            close(ours, [hit * low, hit * high], 1e-12)
    with np.errstate(all="raise"):
        low, high = token_choice.bounds(8, 1, Rates(experts=2, load=0.0))
    assert (low, high) == (0, 1)  # the sharp bound says nothing of so small a load
    assert [v.shape for v in token_choice.bounds(8, 1, Rates(experts=2, hit=np.ones(3)), kind="published")] == [
        (3,),
        (3,),
    ]


def test_kept_counts():
    assert expert_choice.kept([5, 9], [[2], [3]], Rates()).tolist() == [[2, 2], [3, 3]]
    assert token_choice.kept(9, 9, Rates(experts=3)) == pytest.approx(3)
    assert token_choice.kept(9, 9, Rates(experts=4, load=0.25)) == pytest.approx(2.25)
    assert token_choice.kept(9, 2, Rates(experts=4, load=1.0)) == pytest.approx(2)


def test_averages_run_over_the_last_axis_of_any_number():
    """For one axis, and for three of different lengths, the last is no other."""
    rng = np.random.default_rng(9)
    for shape in ((3,), (2, 4, 3)):
        weight = rng.dirichlet(np.ones(3), size=shape[:-1])
        q = rng.random(shape) / 3
        calls = [
            (expert_choice, Rates(false_positive=q)),
            (resonance, Rates(hit=0.9, candidate_tail=q)),
            (token_choice, Rates(load=q)),
        ]
        for rule, rates in calls:
            averaged = rates.replace(weight=weight)
            for verb in (rule.success, rule.failure):
                np.testing.assert_allclose(
                    verb(20, 4, averaged), np.sum(weight * verb(20, 4, rates), axis=-1), rtol=1e-13
                )
            for got, every in zip(rule.bounds(20, 4, averaged), rule.bounds(20, 4, rates)):
                np.testing.assert_allclose(got, np.sum(weight * every, axis=-1), rtol=1e-14)


def test_one_expert_per_token_is_the_default_of_routing():
    affinity = np.random.default_rng(3).random((12, 5))
    for module in (token_choice, resonance):
        default, explicit = module.route(affinity, 4), module.route(affinity, 4, top=1)
        assert np.array_equal(default.load, explicit.load)
        assert default.load.sum() == 12


def test_targets_outside_their_range_are_named():
    for target in (0.0, 1.0000001, 1.005):
        with pytest.raises(ValueError, match=f"target = {target} must"):
            token_choice.least_capacity(target, 8, Rates(experts=2))


# -- the tail ------------------------------------------------------------------------------------------------------------


def beta_tail(s, c, p):
    """(lower, mass, E|π - V|, C - sπ) on the shorter side of the exact rational π, V ~ Beta(C, s-C), in balls."""
    x = flint.arb(p.numerator) / p.denominator
    lower = c >= s * p

    def below(a, b):
        return x.beta_lower(flint.arb(a), flint.arb(b), regularized=True)

    mass, mean = below(c, s - c), flint.arb(c) / s * below(c + 1, s - c)
    if not lower:
        mass, mean = 1 - mass, flint.arb(c) / s - mean
    return lower, mass, (x * mass - mean) if lower else (mean - x * mass), c - s * p


CASES = [
    (2, 1, Fraction(1, 3)),
    (2, 1, Fraction(1, 2)),
    (3, 1, Fraction(9, 10)),
    (3, 2, Fraction(1, 10)),
    (9, 8, Fraction(1, 4)),
    (9, 8, Fraction(99, 100)),
    (9, 1, Fraction(1, 1000)),
    (64, 9, Fraction(1, 8)),
    (64, 20, Fraction(1, 8)),
    (64, 3, Fraction(1, 8)),
    (64, 60, Fraction(1, 2)),
    (64, 32, Fraction(1, 2)),
    (64, 40, Fraction(1, 5)),
    (64, 40, Fraction(64, 65)),
    (1000, 500, Fraction(1, 2)),
    (1000, 1, Fraction(1, 1001)),
    (1000, 999, Fraction(1, 5)),
    (10**5, 9_000, Fraction(1, 11)),
    (10**5, 10_001, Fraction(1, 10)),
    (10**5, 10_002, Fraction(1, 10)),
    (10**5, 10_003, Fraction(1, 10)),
    (10**5, 8_500, Fraction(1, 10)),
    (10**5, 50, Fraction(1, 1000)),
    (10**5, 50_000, Fraction(1, 2)),
    (10**6, 333_000, Fraction(1, 3)),
    (10**9, 333_333_333, Fraction(1, 3)),
    (10**9, 10, Fraction(1, 10**9)),
]


def test_tails_against_ball_arithmetic():
    flint.ctx.dps = 110
    s, c = np.array([v[0] for v in CASES]), np.array([v[1] for v in CASES])
    at = _beta.Threshold.ratio(np.array([v[2].numerator for v in CASES]), np.array([v[2].denominator for v in CASES]))
    ours = _beta.tail(s, c, at)
    for i, case in enumerate(CASES):
        lower, mass, mean, excess = beta_tail(*case)
        assert bool(ours.lower[i]) == lower, case
        for value, reference in ((ours.log_mass[i], mass), (ours.log_mean[i], mean)):
            true = float(reference.log().mid())
            assert abs(value - true) <= 4e-13 * max(1.0, abs(true) / 300), (case, value, true)
        assert abs(exact(ours.excess[i]) - excess) <= max(abs(excess), Fraction(1, 10**9)) * Fraction(1, 2**50), case
    # one element at a time, and more elements than are worked at once
    many = _beta.tail(np.tile(s, 200), np.tile(c, 200), _beta.Threshold(*(np.tile(v, 200) for v in at)))
    np.testing.assert_allclose(many.log_mean, np.tile(ours.log_mean, 200), rtol=1e-13)
    one = _beta.tail(s[7:8].reshape(1, 1), c[7:8], _beta.Threshold(*(v[7:8] for v in at)))
    assert one.log_mass.shape == one.log_mean.shape == one.lower.shape == one.excess.shape == (1, 1)
    assert one.log_mass[0, 0] == pytest.approx(ours.log_mass[7], rel=1e-14)


def test_quadrature_range_and_nodes_reach_full_accuracy():
    """The integrand's cut (a factor 1e-14) and the node count leave nothing visible, over exponents of all sizes."""
    flint.ctx.dps = 150
    rng = np.random.default_rng(4)
    worst = 0.0
    for _ in range(60):
        s = int(10 ** rng.uniform(0.4, 4.3))
        c = int(np.clip(round(10 ** rng.uniform(0, math.log10(s))), 1, s - 1))
        if rng.random() < 0.5:
            c = s - c
        p = Fraction(
            int(np.clip(round(2**30 * c / s * math.exp(rng.normal() / math.sqrt(c + 1))), 1, 2**30 - 2**20)), 2**30
        )
        lower, mass, mean, _ = beta_tail(s, c, p)
        t = _beta.tail(np.array(s), np.array(c), _beta.Threshold.of(float(p)))
        assert bool(t.lower) == lower
        for value, reference in ((t.log_mass, mass), (t.log_mean, mean)):
            worst = max(worst, abs(float((reference.log() - flint.arb(float(value))).mid())))
    assert worst < 4e-13


# --- rates and bounds -------------------------------------------------------------------------------------------------


def kullback_leibler(m, k, p):
    """m KL(k/m || p) in 60 digits."""
    with mp.workdps(60):
        m, k, p = mp.mpf(int(m)), mp.mpf(int(k)), mp.mpf(float(p))
        parts = [(k, p), (m - k, 1 - p)]
        return sum((a * mp.log(a / m / b) if b else mp.inf) for a, b in parts if a)


@pytest.mark.parametrize("m", [1, 2, 3, 17, 100, 10**6, 10**9, 10**12, 2**52])
def test_rates_against_60_digits(m):
    """Near the mean, where the two terms of the divergence nearly cancel, and at the ends."""
    rng = np.random.default_rng(m % 1000)
    for p in (0.0, 1.0, 0.5, 0.21 / 3, 1 / 27, 1e-9, 1 - 2**-53, *rng.random(4)):
        spread = max(1.0, (m * p * (1 - p)) ** 0.5)
        near = {int(min(max(m * p + z * spread, 0), m)) for z in (-9, -1, -0.01, 0, 0.01, 1, 9)}
        for k in sorted(near | {0, 1, m // 2, m - 1, m}):
            value, shift = bounds.rate(m, k, p)
            wanted = kullback_leibler(m, k, p)
            with mp.workdps(60):
                side = mp.mpf(m) * mp.mpf(float(p)) - k
            assert float(shift) == pytest.approx(float(side), rel=1e-12, abs=1e-300)
            if wanted == mp.inf:
                assert value == np.inf
            else:
                # relative to (shift)²/m, the size of the rate, whatever cancels in it
                assert float(value) == pytest.approx(float(wanted), rel=1e-11, abs=1e-300), (m, k, p)


def test_sharp_bounds_hold_at_every_size():
    """The value lies between, from a few tokens to 2^52; no NaN near the mean (101 tokens, h = 0.07, 7 slots was one)."""
    assert resonance.bounds(101, 7, Rates(candidate_tail=0.21 / 3)).upper == pytest.approx(0.5, abs=1e-15)
    rng = np.random.default_rng(8)
    s = np.floor(10 ** rng.uniform(0.4, 15, 4000)).astype(np.int64)
    h = np.where(rng.random(4000) < 0.5, np.round(rng.random(4000), 2), rng.random(4000))
    c = np.clip(np.rint((s - 1) * h + rng.normal(size=4000) * 2 * np.sqrt(s * h * (1 - h))), 1, s).astype(np.int64)
    for kind in ("sharp", "chernoff"):
        rates = Rates(false_positive=h, candidate_tail=h)
        value = expert_choice.success(s, c, rates)
        for rule in (expert_choice, resonance):
            low, high = rule.bounds(s, c, rates, kind=kind)
            assert np.all(low <= value * (1 + 1e-11))
            assert np.all(value <= high * (1 + 1e-11))
        assert np.all((low >= 0) & (high <= 1))
    # Chernoff speaks on its side of the mean only, and meets the exact ends
    assert expert_choice.bounds(101, 51, Rates(false_positive=0.5), kind="chernoff").upper == 1
    below = expert_choice.bounds(101, 50, Rates(false_positive=0.5), kind="chernoff")
    assert below.lower == 0
    assert below.upper == pytest.approx(float(mp.exp(-kullback_leibler(100, 49, 0.5))), rel=1e-14)
    one = expert_choice.bounds(11, 1, Rates(false_positive=[0.0, 1.0]), kind="chernoff")
    np.testing.assert_allclose(one.lower, [1.0, 0.0])
    np.testing.assert_allclose(one.upper, [1.0, 0.0])


def test_ties_at_loads_of_none_and_all():
    """A target equal to the rate, where an expert gets every token or none; weights and dependence are left to floats."""
    assert token_choice.least_capacity(3 / 7, 7, Rates(load=1.0)) == 3
    assert token_choice.least_capacity(np.nextafter(3 / 7, 1), 7, Rates(load=1.0)) == 4
    assert token_choice.least_capacity(0.3, 7, Rates(load=0.0, hit=0.3)) == 1
    assert token_choice.least_capacity(0.375, 2, Rates(experts=2, hit=0.5)) == 1
    assert token_choice.least_capacity(0.75, 2, Rates(experts=2, top=1, counts=BetaBinomial(0.0))) == 1
    assert expert_choice.least_capacity(0.75, 3, Rates(false_positive=0.5)) == 2
    assert resonance.least_capacity(0.375, 3, Rates(candidate_tail=0.5, hit=0.5)) == 2
    # averages and dependent tokens are not taken for one independent token's
    for rule, rates in (
        (token_choice, Rates(load=[0.5, 0.5], weight=[0.5, 0.5])),
        (expert_choice, Rates(false_positive=[0.25, 0.25], weight=[0.5, 0.5])),
        (resonance, Rates(candidate_tail=[0.25, 0.25], weight=[0.5, 0.5])),
    ):
        assert rule.least_capacity(0.75, 2, rates) in (1, 2)
    together = Rates(experts=2, percentile=1.0, counts=BetaBinomial(1.0))
    for rule in (token_choice, resonance):
        rate = float(rule.success(3, 1, together))
        assert rule.least_capacity(rate * (1 - 1e-12), 3, together) == 1
    both = Rates(load=[0.5, 1.0], weight=[0.5, 0.5])
    assert token_choice.least_capacity(float(token_choice.success(9, 4, both)) - 1e-9, 9, both) == 4
    with pytest.raises(ValueError, match=r"tokens = 9007199254740992 must be"):
        token_choice.least_capacity(0.5, 2**53, Rates(experts=2))
    assert token_choice.least_capacity(0.5, 2**52, Rates(experts=2)) > 0


def exact_rates(s, c, load, hit):
    """(first, best): hit E min(1, C/(N+1)) and hit P(N < C), N ~ Bin(s-1, load), as rational numbers."""
    mass = [comb(s - 1, j) * load**j * (1 - load) ** (s - 1 - j) for j in range(s)]
    first = sum(m * min(Fraction(1), Fraction(c, j + 1)) for j, m in enumerate(mass))
    return hit * first, hit * sum(mass[:c])


def test_ties_are_decided_exactly():
    """At, just above and just below the rational rate, by sums and by what is left of the target."""
    rng = np.random.default_rng(4)
    tiny = Fraction(1, 10**40)
    for _ in range(60):
        s = int(rng.integers(3, 14))
        c, load = int(rng.integers(1, s)), Fraction(int(rng.integers(1, 8)), 8)
        hit = Fraction(int(rng.integers(1, 5)), 4)
        first, best = exact_rates(s, c, load, hit)
        for goal, wanted in ((0, True), (-tiny, True), (tiny, False)):
            assert _ties.share(s, c, load, hit, first + goal, None) is wanted
            assert _ties.place(s, c, load, hit, best + goal) is wanted


@pytest.mark.parametrize("load", [Fraction(1, 8), Fraction(1, 3), Fraction(7, 8)])
def test_ties_beyond_exact_sums(monkeypatch, load):
    """What is left of the target against the small term, on both sides of the mean; a tie of the two is left open."""
    hit = Fraction(3, 4)
    at = _beta.Threshold.ratio(np.array(load.numerator), np.array(load.denominator))
    monkeypatch.setattr(_ties, "MOST", 0)
    for s, c in ((12, 2), (40, 4), (40, 14), (40, 30), (40, 37), (200, 20), (200, 80)):
        first, best = exact_rates(s, c, load, hit)
        tail = _beta.tail(np.array(s), np.array(c), at)

        def log_mean(tail=tail):
            return bool(tail.lower), float(tail.log_mean)

        lost = (hit if tail.lower else hit * c / (load * s)) - first
        assert lost > 0
        for step, wanted in ((-lost / 10**9, True), (lost / 10**9, False), (-lost / 2, True), (lost * 2, False)):
            assert _ties.share(s, c, load, hit, first + step, log_mean) is wanted
        assert _ties.share(s, c, load, hit, first + lost, log_mean) is False  # the bound itself is never attained
        assert _ties.share(s, c, load, hit, first, log_mean) is None
        assert _ties.place(s, c, load, hit, best) is None
    assert _ties.place(10**6, 5 * 10**5, Fraction(1, 2), hit, hit / 2) is True
    assert _ties.place(10**6, 5 * 10**5, Fraction(1, 2), hit, hit / 2 + Fraction(1, 10**30)) is False
    assert _ties.place(10**6 + 1, 5 * 10**5, Fraction(1, 2), hit, hit / 2) is None


def test_fields_of_one_element():
    """Broadcasting, entry by entry."""
    field = np.arange(6).reshape(3, 1, 2)
    whole = np.broadcast_to(field, (4, 3, 5, 2))
    for at in np.ndindex(whole.shape):
        assert _ties.element(field, at) == whole[at]
    assert _ties.element(7, (1, 2)) == 7
    # rates 1/4, 3/4, 1 times the hit rate of the row, each attained
    found = resonance.least_capacity([[0.125, 0.375], [0.25, 0.75]], 3, Rates(candidate_tail=0.5, hit=[[0.5], [1.0]]))
    assert found.tolist() == [[1, 2], [1, 2]]


def test_random_keep_draws():
    affinity = np.random.default_rng(1).standard_normal((50, 4))
    one, same = (random_keep.route(affinity, 5, rng=np.random.default_rng(2)) for _ in range(2))
    other = random_keep.route(affinity, 5, rng=np.random.default_rng(3))
    assert one.token.tolist() == same.token.tolist() != other.token.tolist()
    assert one.kept.tolist() == token_choice.route(affinity, 5).kept.tolist()
    with pytest.raises(TypeError, match=r"rng is a NoneType but must be a numpy.random.Generator"):
        random_keep.route(affinity, 5)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    assert random_keep.route(torch.tensor(affinity), 5).kept.tolist() == one.kept.tolist()
    with pytest.raises(TypeError, match="rng is a int"):
        random_keep.route(torch.tensor(affinity), 5, rng=3)


def test_drop_rates_of_no_candidates_and_of_a_mean():
    assert token_choice.drop_rate(9, 3, Rates(load=0.0)) == 0
    loads = np.array([0.0, 0.5, 1.0])
    each = token_choice.drop_rate(9, 3, Rates(load=loads))
    whole = token_choice.drop_rate(9, 3, Rates(load=loads, weight=[0.25, 0.5, 0.25]))
    assert whole == pytest.approx((0.5 * 0.5 * each[1] + 0.25 * each[2]) / 0.5, rel=1e-14)


def test_rules_without_a_formula_or_bounds_say_so():
    with pytest.raises(ValueError, match="random keep has no bounds"):
        random_keep.bounds(9, 3, Rates(experts=2))

    class Titled(Rule):
        name, title = "plain", "plain rule"

    class Untitled(Rule):
        name = "plain"

    with pytest.raises(ValueError, match="plain rule has no exact law"):
        Titled().success(9, 3, Rates(experts=2))
    with pytest.raises(ValueError, match=r"^plain has no exact law"):
        Untitled().success(9, 3, Rates(experts=2))
    with pytest.raises(ValueError, match=r"^plain has no bounds"):
        Untitled().bounds(9, 3, Rates(experts=2))


def test_the_benchmark_counts_what_it_times():
    from simulations import law_benchmark as benchmark

    made = {name: call() for name, call in benchmark.contenders(50).items()}
    assert all(len(value) == 50 for value in made.values())
    # SciPy's contender is the complement of resonance's rate: both time the same question
    assert made["resonance.success"] == pytest.approx(1 - made["SciPy, betainc"], abs=1e-12)
    ways = benchmark.measure(50, 3)
    assert set(ways) == set(made)
    assert all(0 <= row["least_s"] <= row["median_s"] and row["per_s"] > 0 for row in ways.values())
