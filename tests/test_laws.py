"""The exact laws to 1e-12 against arbitrary-precision references that share no code with them."""

import math
import random
from fractions import Fraction
from math import comb

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resonance_theory as rt
from resonance_theory.rules import Rates, _ties

TOLERANCE = 1e-12


@pytest.fixture(autouse=True)
def precision():
    saved = flint.ctx.dps
    flint.ctx.dps = 50
    yield
    flint.ctx.dps = saved


def tails(m, j, p):
    """P(Bin(m, p) < j) and its complement in ball arithmetic: the tail away from the mean, summed term by term."""
    if j <= 0 or (p == 1 and j <= m):
        return flint.arb(0), flint.arb(1)
    if j > m:
        return flint.arb(1), flint.arb(0)
    down = j < m * p
    k, q = (j - 1 if down else j), 1 - p
    term = (flint.arb(m + 1).lgamma() - flint.arb(k + 1).lgamma() - flint.arb(m - k + 1).lgamma()).exp() * (
        p**k * q ** (m - k)
    )
    odds, total = (q / p if down else p / q), term
    # beyond the mode each ratio is below the one before, so that the rest is at most a geometric series
    while (down and k > 0) or (not down and k < m):
        ratio = odds * k / (m - k + 1) if down else odds * (m - k) / (k + 1)
        term = term * ratio
        total = total + term
        k += -1 if down else 1
        if ratio < 1 and term < total * (1 - ratio) * flint.arb("1e-40"):
            break
    return (total, 1 - total) if down else (1 - total, total)


def token_choice(s, n, c):
    """N1's closed form, in balls: success and failure given a hit."""
    p = flint.arb(1) / n
    share, (below, above), (_, more) = flint.arb(c) / (p * s), tails(s, c, p), tails(s + 1, c + 1, p)
    return below + share * more, above - share * more


def place(s, c, h):
    """P(fewer than c of s - 1 rivals) and its complement."""
    return tails(s - 1, c, flint.arb(h))


def error(ours_log, reference):
    """Relative error of exp(ours_log); of the logarithm itself beyond 1e-300."""
    log = reference.log()
    difference = abs(float((log - flint.arb(float(ours_log))).mid()))
    return difference / max(1.0, abs(float(log.mid())) / 690)


def sweep(count, seed):
    """Log-uniform sizes; capacities anywhere, around the mean load, and in far tails."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        s = int(10 ** rng.uniform(0, 9))
        n = int(10 ** rng.uniform(0, 6))
        kind = rng.integers(4)
        mean, spread = s / n, math.sqrt(max(s / n, 1e-9))
        if kind == 0:
            c = 10 ** rng.uniform(0, math.log10(s) if s > 1 else 0)
        else:
            c = mean + (0.3, 6, 30)[kind - 1] * spread * rng.uniform(-1, 1)
        yield s, n, int(np.clip(round(c), 1, s))


def test_token_choice_over_the_whole_domain():
    worst = 0.0
    for s, n, c in sweep(220, 1):
        if c == s:
            assert rt.token_choice.success(s, c, Rates(experts=n)) == 1
            continue
        log_failure = float(rt.token_choice.log_failure(s, c, Rates(experts=n)))
        if log_failure < -650:  # logarithms beyond are tested below
            continue
        success, failure = token_choice(s, n, c)
        worst = max(worst, error(rt.token_choice.log_success(s, c, Rates(experts=n)), success))
        if failure > 0:
            worst = max(worst, error(log_failure, failure))
    assert worst < TOLERANCE


@pytest.mark.parametrize("rule", ["expert_choice", "resonance"])
def test_place_over_the_whole_domain(rule):
    worst, rng = 0.0, np.random.default_rng(2)
    for s, n, c in sweep(160, 3):
        if c == s:
            continue
        h = float(rng.uniform(0.5, 1.5) / n)
        if h >= 1:
            continue
        if rule == "expert_choice":
            logs = (
                rt.expert_choice.log_success(s, c, Rates(false_positive=h)),
                rt.expert_choice.log_failure(s, c, Rates(false_positive=h)),
            )
        else:
            parts = {"hit": 1.0, "candidate_tail": h}
            logs = rt.resonance.log_success(s, c, Rates(**parts)), rt.resonance.log_failure(s, c, Rates(**parts))
        for log, reference in zip(logs, place(s, c, h)):
            if -650 < log < 0 and reference > 0:
                worst = max(worst, error(log, reference))
    assert worst < TOLERANCE


@pytest.mark.parametrize(
    ("s", "n", "c"),
    [
        (10**9, 3, 333_333_334),
        (10**9, 3, 334_000_000),
        (10**9, 10**6, 1400),
        (10**6, 7, 152_000),
        (4096, 8, 800),
        (10**9, 2, 1),
    ],
)
def test_deep_failures(s, n, c):
    _, failure = token_choice(s, n, c)
    assert error(rt.token_choice.log_failure(s, c, Rates(experts=n)), failure) < TOLERANCE


@pytest.mark.parametrize(
    ("s", "c", "h"), [(10**9, 3, 7.05e-7), (10**6, 45_000, 0.05), (1000, 1, 0.4985), (10**9, 10**5, 1.1e-4)]
)
def test_successes_down_to_1e_minus_300(s, c, h):
    success, _ = place(s, c, h)
    log = float(rt.expert_choice.log_success(s, c, Rates(false_positive=h)))
    assert -700 < log < -100
    assert error(log, success) < TOLERANCE


def test_logarithms_go_on_where_numbers_end():
    log = float(rt.token_choice.log_failure(10**9, 600_000_000, Rates(experts=2)))
    assert rt.token_choice.failure(10**9, 600_000_000, Rates(experts=2)) == 0
    # E (N - C)_+ lies between its first term and that term's geometric continuation
    s, c = 10**9, 600_000_000
    first = (flint.arb(s + 1).lgamma() - flint.arb(c + 2).lgamma() - flint.arb(s - c).lgamma()) - s * flint.arb(2).log()
    ratio = flint.arb(s - c) / (c + 1)
    low = float((first - (flint.arb(s) / 2).log()).mid())
    assert low <= log <= low - 2 * math.log(1 - float(ratio.mid()))
    assert log < -2e7


def test_small_cases_exactly():
    for s in range(1, 9):
        for n in (1, 2, 3, 7):
            p = Fraction(1, n)
            for c in range(1, s + 1):
                pmf = [comb(s, k) * p**k * (1 - p) ** (s - k) for k in range(s + 1)]
                kept = sum(min(k, c) * v for k, v in enumerate(pmf))
                assert rt.token_choice.success(s, c, Rates(experts=n, hit=0.75)) == pytest.approx(
                    0.75 * float(kept * n / s), rel=1e-14
                )
                assert rt.token_choice.failure(s, c, Rates(experts=n)) == pytest.approx(
                    1 - float(kept * n / s), rel=1e-13, abs=1e-16
                )
                assert rt.token_choice.kept(s, c, Rates(experts=n)) == pytest.approx(float(kept), rel=1e-14)


def test_published_values():
    assert rt.token_choice.success(128, 20, Rates(experts=8)) == pytest.approx(0.98141791864102, abs=1e-14)
    assert rt.token_choice.success(256, 9, Rates(experts=8)) == pytest.approx(0.281, abs=5e-4)
    assert rt.resonance.success(256, 9, Rates(hit=1, candidate_tail=0.4 / 8)) == pytest.approx(0.106, abs=5e-4)
    assert rt.token_choice.least_capacity(0.95, 4096, Rates(experts=8)) == 488
    tails = np.array([0.6, 0.4, 0.1]) / 8
    assert rt.resonance.least_capacity(0.95, 4096, Rates(hit=1, candidate_tail=tails)).tolist() == [336, 229, 64]


def test_edges():
    first, best, expert = rt.token_choice.success, rt.resonance.success, rt.expert_choice.success
    assert first(1, 1, Rates(experts=5)) == 1  # nobody else
    assert first(7, 3, Rates(experts=1)) == pytest.approx(3 / 7)  # one expert takes the first three of seven
    assert first(7, 7, Rates(experts=4)) == 1
    assert first(7, 3, Rates(experts=4, load=0.0)) == 1
    assert first(7, 3, Rates(experts=4, load=1.0)) == pytest.approx(3 / 7)
    assert rt.token_choice.failure(7, 3, Rates(experts=4, load=1.0)) == pytest.approx(4 / 7)
    assert first(7, 3, Rates(experts=4, hit=0.0)) == 0
    assert rt.token_choice.failure(7, 3, Rates(experts=4, hit=0.0)) == 1
    assert rt.token_choice.log_success(7, 3, Rates(experts=4, hit=0.0)) == -np.inf
    assert first(7, 3, Rates(experts=4, top=4)) == pytest.approx(3 / 7)
    assert expert(7, 3, Rates(false_positive=[0.0, 1.0])).tolist() == [1, 0]
    assert expert(7, 7, Rates(false_positive=1.0)) == 1
    assert rt.expert_choice.log_failure(7, 3, Rates(false_positive=0.0)) == -np.inf
    assert best(7, 3, Rates(hit=0.5, candidate_tail=0.0)) == 0.5
    assert best(1, 1, Rates(hit=0.5, candidate_tail=1.0)) == 0.5
    assert first(10**9, 1, Rates(load=1e-300)) == 1


def test_broadcasting_and_laws():
    s, c = np.array([64, 128])[:, None], np.array([4, 8, 16])
    assert rt.token_choice.success(s, c, Rates(experts=8)).shape == (2, 3)
    weight, hit, tail = np.array([0.25, 0.75]), np.array([0.9, 0.4]), np.array([0.01, 0.1])
    value = rt.resonance.success(s, c, Rates(hit=hit, candidate_tail=tail, weight=weight))
    assert value.shape == (2, 3)
    apart = [rt.resonance.success(s, c, Rates(hit=p, candidate_tail=h)) for p, h in zip(hit, tail)]
    assert value == pytest.approx(0.25 * apart[0] + 0.75 * apart[1], rel=1e-14)
    experts = rt.token_choice.success(64, 8, Rates(experts=2, hit=hit, load=tail, weight=weight))
    single = [rt.token_choice.success(64, 8, Rates(experts=2, hit=p, load=h)) for p, h in zip(hit, tail)]
    assert experts == pytest.approx(0.25 * single[0] + 0.75 * single[1], rel=1e-14)
    parts = {"hit": hit, "candidate_tail": tail, "weight": weight}
    assert rt.resonance.success(64, 8, Rates(**parts)) + rt.resonance.failure(64, 8, Rates(**parts)) == pytest.approx(
        1, rel=1e-14
    )


def test_uniform_percentile_is_token_choice():
    """N5 in numbers: Gauss-Legendre over the percentile, exact for these polynomial degrees."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    u, w = (nodes + 1) / 2, weights / 2
    for s, n, c in ((40, 4, 7), (128, 8, 20), (100, 3, 50)):
        value = rt.resonance.success(s, c, Rates(hit=1.0, candidate_tail=u / n, weight=w / w.sum()))
        assert value == pytest.approx(float(rt.token_choice.success(s, c, Rates(experts=n))), rel=1e-12)


sizes = st.tuples(st.integers(1, 400), st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(sizes, st.floats(0.01, 1), st.data())
def test_least_capacity_is_minimal(size, target, data):
    s, n = size
    c = int(rt.token_choice.least_capacity(target, s, Rates(experts=n)))
    assert rt.token_choice.success(s, c, Rates(experts=n)) >= target * (1 - 1e-15)
    if c > 1:
        assert misses(rt.token_choice, target, s, c - 1, Rates(experts=n))
    h = data.draw(st.floats(0, 1))
    c = int(rt.expert_choice.least_capacity(target, s, Rates(false_positive=h)))
    if c > 1:
        assert misses(rt.expert_choice, target, s, c - 1, Rates(false_positive=h))


def test_sums_of_first_terms_are_those_of_the_binomial_theorem():
    """The exact sums behind ties, each term from the one before, against binomials and powers."""
    rng = random.Random(0)
    for _ in range(300):
        n, count = rng.randint(0, 30), rng.randint(0, 33)
        a, b = (rng.choice([0, 1, rng.randint(2, 10**18)]) for _ in range(2))
        wanted = sum(math.comb(n, j) * a**j * b ** (n - j) for j in range(min(count, n + 1)))
        assert _ties._first_terms(n, a, b, count) == wanted


def misses(rule, target, *at):
    """Whether the target is missed, by whichever keeps its digits there; a failure may be too small for a double.

    A success within a rounding of the target may miss it: 5 of 50 tokens are 1/10, and the double 0.1 is more than that.
    """
    with np.errstate(divide="ignore"):
        return rule.success(*at) <= target * (1 + 4e-16) or rule.log_failure(*at) > np.log(1 - target)


@settings(max_examples=150, deadline=None)
@given(sizes, st.data())
def test_order_and_bounds(size, data):
    s, n = size
    c = data.draw(st.integers(1, s))
    h = data.draw(st.floats(0, 1))
    value = float(rt.token_choice.success(s, c, Rates(experts=n)))
    for kind in ("sharp", "poisson"):
        low, high = rt.token_choice.bounds(s, c, Rates(experts=n), kind=kind)
        assert low <= value * (1 + 1e-12)
        assert value <= high * (1 + 1e-12)
    place_value = float(rt.expert_choice.success(s, c, Rates(false_positive=h)))
    for kind in ("sharp", "chernoff", "published"):
        low, high = rt.expert_choice.bounds(s, c, Rates(false_positive=h), kind=kind)
        assert low <= place_value * (1 + 1e-9) + 1e-15
        assert place_value <= high * (1 + 1e-9) + 1e-15
    if c < s:
        assert value <= rt.token_choice.success(s, c + 1, Rates(experts=n))
        assert place_value <= rt.expert_choice.success(s, c + 1, Rates(false_positive=h))
    assert float(rt.expert_choice.failure(s, c, Rates(false_positive=h))) + place_value == pytest.approx(1, abs=1e-13)


def test_targets_close_to_one_are_met_to_the_last_digit():
    target = 1 - 1e-13
    c = int(rt.token_choice.least_capacity(target, 10**6, Rates(experts=8)))
    assert (
        rt.token_choice.failure(10**6, c, Rates(experts=8))
        <= 1 - target
        < rt.token_choice.failure(10**6, c - 1, Rates(experts=8))
    )


def test_least_capacity_names_the_best_rate():
    with pytest.raises(ValueError, match=r"target\[1\] = 0.9 cannot be reached.*tokens = 100, the success rate is 0.7"):
        rt.token_choice.least_capacity([0.5, 0.9], 100, Rates(experts=8, hit=0.7))
    with pytest.raises(ValueError, match="cannot be reached"):
        rt.resonance.least_capacity(0.5, 100, Rates(hit=0.4, candidate_tail=0.1))


@pytest.mark.parametrize(
    ("call", "error_type", "words"),
    [
        (lambda: rt.token_choice.success(0, 1, Rates(experts=8)), ValueError, "tokens = 0"),
        (lambda: rt.token_choice.success(8, 1, Rates(experts=0)), ValueError, "experts = 0"),
        (
            lambda: rt.token_choice.success(8, 9, Rates(experts=2)),
            ValueError,
            "capacity = 9 must be a whole number between 1 and tokens = 8",
        ),
        (lambda: rt.token_choice.success(8, 0, Rates(experts=2)), ValueError, "capacity = 0"),
        (lambda: rt.token_choice.success(8, 1.5, Rates(experts=2)), TypeError, "capacity = 1.5"),
        (
            lambda: rt.token_choice.success(8, 1, Rates(experts=2, top=3)),
            ValueError,
            "top = 3 must be a whole number between 1 and experts",
        ),
        (lambda: rt.token_choice.success(8, 1, Rates(experts=2, hit=1.1)), ValueError, "hit = 1.1"),
        (lambda: rt.token_choice.success(8, 1, Rates(experts=2, load=-0.1)), ValueError, "load = -0.1"),
        (lambda: rt.token_choice.success("8", 1, Rates(experts=2)), TypeError, "tokens = '8'"),
        (lambda: rt.token_choice.success(8, 1, Rates(experts=2, hit=np.nan)), ValueError, "hit = nan"),
        (lambda: rt.token_choice.bounds(8, 1, Rates(experts=2), kind="tight"), ValueError, "kind = 'tight'"),
        (lambda: rt.expert_choice.success(8, 1, Rates(false_positive=2)), ValueError, "false_positive = 2"),
        (lambda: rt.resonance.success(8, 1, Rates(hit=1, candidate_tail=-1)), ValueError, "candidate_tail = -1"),
        (
            lambda: rt.resonance.success(8, 1, Rates(hit=1, candidate_tail=[0.1, 0.2], weight=[0.5, 0.6])),
            ValueError,
            "weight sums",
        ),
        (
            lambda: rt.resonance.success(8, 1, Rates(hit=1, candidate_tail=[0.1, 0.2], weight=[0.2] * 5)),
            ValueError,
            "the shapes of candidate_tail (2,), weight (5,) must broadcast together",
        ),
        (lambda: rt.token_choice.least_capacity(0, 8, Rates(experts=2)), ValueError, "target = 0"),
        (lambda: rt.token_choice.least_capacity(1.2, 8, Rates(experts=2)), ValueError, "target = 1.2"),
    ],
)
def test_bad_input(call, error_type, words):
    with pytest.raises(error_type) as caught:
        call()
    assert words in str(caught.value)


def test_expert_choice_needs_no_hit_of_the_token():
    """Experts choose among all tokens: the token's own choice does not enter, in rates, bounds or capacities."""
    plain, missed = Rates(false_positive=0.1), Rates(false_positive=0.1, hit=0.25)
    assert rt.expert_choice.success(20, 3, missed) == rt.expert_choice.success(20, 3, plain)
    assert rt.expert_choice.bounds(20, 3, missed) == rt.expert_choice.bounds(20, 3, plain)
    assert rt.expert_choice.least_capacity(0.9, 20, missed) == rt.expert_choice.least_capacity(0.9, 20, plain)
    half = Rates(false_positive=0.5)
    assert rt.expert_choice.least_capacity([0.75, np.nextafter(0.75, 1)], 3, half).tolist() == [2, 3]


def test_ties_without_rivals_and_with_rivals_alone():
    half, tiny = Fraction(1, 2), Fraction(1, 10**30)
    assert _ties.place(9, 3, Fraction(0), half, half) is True
    assert _ties.place(9, 3, Fraction(0), half, half + tiny) is False
    assert _ties.place(9, 3, Fraction(1), half, tiny) is False


def test_logarithms_of_probabilities_are_not_positive():
    """Hit and miss, and weights, sum to 1 up to rounding only."""
    assert rt.resonance.log_failure(5, 1, Rates(hit=1 - 2**-53, candidate_tail=1.0)) <= 0
    weight = np.full(49, 1 / 49) + 2**-53
    for hit in (0.0, 1.0):
        rates = Rates(hit=hit, candidate_tail=np.ones(49), weight=weight)
        assert rt.resonance.log_failure(5, 5, rates) <= 0
        assert rt.resonance.log_success(5, 5, rates) <= 0
