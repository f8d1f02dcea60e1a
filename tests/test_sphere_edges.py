"""Geometry at the edges: the ends of the ranges, many parameters in one call, rounding above 1, and memory.

What `test_sphere.py` measures against references inside the ranges is not repeated here.
"""

import math
import tracemalloc

import mpmath as mp
import numpy as np
import pytest
from scipy import special, stats

from resonance_theory.tokens import _integration, candidates, caps, planted, signals

ABOVE = float(np.nextafter(1.0, 2.0))
LARGEST = float(np.nextafter(1e150, np.inf))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: caps.cap(-ABOVE, 3), r"affinity = -1.0000000000000002 must be a finite number in \[-1, 1\]"),
        (lambda: caps.cap(ABOVE, 3), "affinity = 1.0000000000000002"),
        (lambda: caps.cap_bound(ABOVE, 3), r"affinity = 1.0000000000000002 must be a finite number in \[0, 1\]"),
        (lambda: signals.hit_rate(LARGEST, 8), r"signal = 1.000000000000000.e\+150"),
        (lambda: candidates.waiting_tokens(0.1, 4, 3, target=ABOVE), r"target = .* in \[0, 1\)"),
        (lambda: planted.planted(1, 4, 3, nodes=63), "nodes = 63 must be a whole number of at least 64"),
    ],
)
def test_just_outside_a_range(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_ends_of_the_ranges():
    assert planted.planted(1.0, 4, 3, nodes=64).weight.shape == (64,)
    assert planted.planted(1.0, 2, 1).weight.shape == (1024,)


@pytest.mark.parametrize(
    "function", [candidates.candidate_tail, candidates.log_candidate_tail, candidates.hit_given_affinity]
)
def test_many_parameters_at_once_are_each_alone(function):
    dim, experts, top = np.array([(64, 8, 1), (5, 4, 2), (64, 8, 2), (49, 20, 3), (5, 5, 5), (64, 8, 1), (7, 7, 6)]).T
    affinity = np.array([0.1, 0.2, -0.3, 0.15, 0.4, 0.3, -0.2])
    alone = [function(*each[:3], top=each[3]) for each in zip(affinity, dim, experts, top)]
    assert function(affinity, dim, experts, top=top).tolist() == alone


def test_densities_of_many_dims_at_once():
    affinity, signal, dim = np.array([0.1, 0.2, -0.3, 0.5]), np.array([1.0, 0.0, 3.0, 2.0]), np.array([64, 3, 2, 7])
    alone = [signals.affinity_density(*each) for each in zip(affinity, signal, dim)]
    np.testing.assert_allclose(signals.affinity_density(affinity, signal, dim), alone, rtol=1e-15)


def test_cap_bounds_are_as_stated():
    with mp.workdps(40):
        for d in (2, 3, 4, 20, 5000):
            for a in (0.0, 1e-9, 0.3, 0.69, 0.7, 0.705, 0.9, 1 - 1e-12):
                square = mp.mpf(a) ** 2
                power = (1 - square) ** (mp.mpf(d - 1) / 2) / 2
                exponential = mp.exp(-(d if d >= 3 else 1) * square / (2 - square)) / 2
                for kind, bound in (("power", power), ("exponential", exponential)):
                    if bound > 1e-300:
                        # the exponent's own rounding
                        tolerance = 4e-16 * max(1, float(-mp.log(bound)))
                        assert abs(caps.cap_bound(a, d, kind=kind) / bound - 1) < tolerance
    assert caps.cap_bound(1.0, 3) == 0


def test_quantiles_next_to_one_half_have_the_right_sign():
    probability = np.array([0.4999, 0.49, 0.51, 0.5001])
    for d in (2, 3, 64):
        affinity = caps.cap_quantile(probability, d)
        assert np.sign(affinity).tolist() == [1, 1, -1, -1]
        np.testing.assert_allclose(caps.cap(affinity, d), probability, rtol=1e-14)


@pytest.mark.parametrize("signal", [1e8, 1e50, 1e150])
def test_false_positives_of_the_strongest_signals(signal):
    # with B ~ Beta((dim-1)/2, (dim-1)/2) near 0, E Q(signal sqrt B) to a relative 1 / signal^2
    assert signals.false_positive(signal, 2) * signal * np.pi**1.5 / np.sqrt(2) == pytest.approx(1, rel=1e-12)
    assert signals.false_positive(signal, 3) * signal * 2 * signal == pytest.approx(1, rel=1e-12)


def test_false_positives_below_the_smallest_double_are_zero():
    assert signals.false_positive([[1e100], [1e150]], [24, 64, 1000, 10_000]).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize(("experts", "top"), [(4000, 2010), (4000, 1990), (1000, 501), (300, 140)])
def test_at_affinity_zero_counts_are_binomial(experts, top):
    # the signs of a uniform direction's coordinates are independent
    signs = stats.binom(experts, 0.5)
    counts = np.arange(experts + 1)
    kept = (signs.pmf(counts) * np.minimum(counts, top)).sum() / experts
    assert candidates.candidate_tail(0.0, experts, experts, top=top) == pytest.approx(kept, rel=experts * 1e-15)
    hit = stats.binom(experts - 1, 0.5).cdf(top - 1)
    assert candidates.hit_given_affinity(0.0, experts, experts, top=top) == pytest.approx(hit, abs=experts * 1e-15)


def at_most(a, d, n, level):
    """P(at most `level` of n affinities in R^d are >= a): the inverse Laplace transform on a vertical line, 40 digits."""
    c, step = mp.mpf(d) / 2, mp.mpf(1) / 40
    width, total = mp.sqrt(c), mp.mpf(0)
    for i in range(200):
        p = c + 1j * width * mp.sinh(i * step)
        q = mp.erfc(a * mp.sqrt(p)) / 2
        count = mp.fsum(math.comb(n, j) * q**j * (1 - q) ** (n - j) for j in range(level + 1))
        value = mp.exp(p - c - c * mp.log(p / c)) * count * mp.cosh(i * step)
        total += value.real * (1 if i else mp.mpf(1) / 2)
    return total * step / mp.pi * width * mp.exp(mp.loggamma(c) + c - c * mp.log(c))


@pytest.mark.parametrize(("d", "n", "top"), [(51, 51, 2), (51, 51, 1), (52, 30, 1)])
def test_hits_by_another_contour(d, n, top):
    with mp.workdps(40):
        for a in (0.05, 0.14002800840280097, 0.2):
            b = mp.mpf(a) / mp.sqrt(1 - mp.mpf(a) ** 2)
            exact = at_most(b, d - 1, n - 1, top - 1)
            assert abs(float(candidates.hit_given_affinity(a, d, n, top=top) - exact)) < 1e-14


def test_candidate_tails_by_another_contour():
    with mp.workdps(40):
        for a, d, n in ((0.5334636788737467, 51, 40), (0.2, 51, 51), (1 / np.sqrt(50), 50, 50)):
            exact = (1 - at_most(mp.mpf(a), d, n, 0)) / n
            assert abs(float(candidates.candidate_tail(a, d, n) / exact - 1)) < 2e-14


def test_percentiles_of_several_choices():
    tail = candidates.candidate_tail(0.1, 64, 8, top=[1, 2, 4])
    np.testing.assert_allclose(candidates.percentile(0.1, 64, 8, top=[1, 2, 4]), tail * [8, 4, 2], rtol=1e-15)


@pytest.mark.parametrize("dim", [2, 3, 29, 1000])
def test_affinity_tails_next_to_the_pole_without_signal_are_caps(dim):
    affinity = 1 - np.array([1e-3, 1e-6, 1e-10, 1e-13])
    cap = caps.cap(affinity, dim)
    np.testing.assert_allclose(signals.affinity_tail(affinity, 0.0, dim), cap, rtol=1e-12, atol=1e-290)
    assert np.all(signals.affinity_tail(affinity, 10.0, dim) >= cap)


def test_log_tails_of_several_choices_far_out_are_log_caps():
    # where hardly ever two affinities are this large
    affinity = np.array([0.41, 0.5, 0.6])
    log_cap = caps.log_cap(affinity, 10_000)
    np.testing.assert_allclose(candidates.log_candidate_tail(affinity, 10_000, 10_000, top=2), log_cap, rtol=1e-13)


def test_waiting_for_an_affinity_that_every_token_reaches():
    affinity = np.linspace(-1, -0.19, 82)  # so low that 28 affinities cannot all lie below, and 22 hardly ever do
    assert candidates.waiting_tokens(affinity, 28, 28, target=0.9).tolist() == [1] * 82
    assert candidates.waiting_tokens(affinity, 28, 22, target=0.5).tolist() == [1] * 82
    assert candidates.waiting_tokens(affinity, 28, 28).tolist() == [1] * 82


@pytest.mark.parametrize("experts", [10, 1000, 10**6])
def test_misses_without_signal(experts):
    for top in (1, 2, 5):
        # what SciPy's incomplete beta function loses among many experts is 6e-18 of their number
        miss = signals.miss_rate(0.0, experts, top=top)
        assert miss == pytest.approx(1 - top / experts, rel=max(1e-13, experts * 6e-18))


def test_an_integral_takes_few_values_of_its_integrand():
    count = 0

    def log_f(y):
        nonlocal count
        count += y.size
        return -0.5 * y * y

    value = _integration.log_integral(log_f, np.array([[-40.0]]), np.array([[50.0]]))
    assert value[0] == pytest.approx(0.5 * np.log(2 * np.pi), rel=1e-14)
    assert count < 600  # of them 232 to find the peak and 80 for the ends


def test_no_probability_exceeds_one():
    signal = np.linspace(14, 17, 41)
    assert signals.hit_rate(signal[:, None], [2, 8, 1000]).max() == 1
    assert signals.miss_rate(0.0, 10 ** np.arange(19)).max() <= 1
    assert signals.affinity_tail(np.linspace(-1, 0.5, 40), 20.0, 64).max() == 1
    assert candidates.hit_given_affinity(1 / np.sqrt(2), [5, 6, 7], 5).max() == 1
    experts = np.arange(1, 30)
    top = np.minimum(experts[:, None], experts)
    assert candidates.percentile(-1.0, 64, experts[:, None], top=top).max() == 1


@pytest.mark.parametrize(("capacity", "nodes"), [(64, 1024), (250, 2024)])
@pytest.mark.parametrize(("signal", "dim", "experts"), [(1.0, 26, 3), (0.5, 25, 25), (1.0, 27, 3)])
def test_nodes_resolve_a_rules_step(signal, dim, experts, capacity, nodes):
    # P(Bin(8 capacity, q) < capacity) falls from 1 to 0 as q passes 1/8
    def success(count):
        law = planted.planted(signal, dim, experts, nodes=count)
        return (law.weight * special.bdtr(capacity - 1, 8 * capacity, law.false_positive)).sum()

    assert abs(success(nodes) - success(2 * nodes)) < 1e-12


@pytest.mark.parametrize(
    ("function", "low", "high", "count", "megabytes"),
    [
        (lambda signal: signals.false_positive(signal, 64), 0, 10, 4000, 4),
        (lambda a: signals.affinity_density(a, 2.0, 64), -1, 1, 20_000, 18),
        (lambda a: candidates.candidate_tail(a, 64, 8), -0.3, 0.5, 12_000, 18),
    ],
)
def test_long_arrays_are_worked_in_pieces(function, low, high, count, megabytes):
    x = np.linspace(low, high, count)
    tracemalloc.start()
    try:
        values = function(x)
        # all integrands at once would take 12, 106 and 30 MB
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()
    some = np.r_[:count:97, count - 1]
    np.testing.assert_allclose(values[some], function(x[some]), rtol=1e-13)
