"""Geometry at the edges: the ends of the ranges, many parameters in one call, rounding above 1, and memory.

What `test_sphere.py` measures against references inside the ranges is not repeated here.
"""

import tracemalloc

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from resonance_theory import sphere

ABOVE = float(np.nextafter(1.0, 2.0))
LARGEST = float(np.nextafter(1e150, np.inf))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sphere.cap(-ABOVE, 3), r"affinity = -1.0000000000000002 must be a finite number in \[-1, 1\]"),
        (lambda: sphere.cap(ABOVE, 3), "affinity = 1.0000000000000002"),
        (lambda: sphere.cap_bound(ABOVE, 3), r"affinity = 1.0000000000000002 must be a finite number in \[0, 1\]"),
        (lambda: sphere.hit_rate(LARGEST, 8), r"signal = 1.000000000000000.e\+150"),
        (lambda: sphere.waiting_tokens(0.1, 4, 3, target=ABOVE), r"target = .* in \[0, 1\)"),
        (lambda: sphere.planted(1, 4, 3, nodes=63), "nodes = 63 must be a whole number of at least 64"),
    ],
)
def test_just_outside_a_range(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_ends_of_the_ranges():
    assert sphere.planted(1.0, 4, 3, nodes=64).weight.shape == (64,)
    assert sphere.planted(1.0, 2, 1).weight.shape == (1024,)


@pytest.mark.parametrize("function", [sphere.candidate_tail, sphere.log_candidate_tail, sphere.hit_given_affinity])
def test_many_parameters_at_once_are_each_alone(function):
    dim, experts, top = np.array([(64, 8, 1), (5, 4, 2), (64, 8, 2), (49, 20, 3), (5, 5, 5), (64, 8, 1), (7, 7, 6)]).T
    affinity = np.array([0.1, 0.2, -0.3, 0.15, 0.4, 0.3, -0.2])
    alone = [function(*each[:3], top=each[3]) for each in zip(affinity, dim, experts, top)]
    assert function(affinity, dim, experts, top=top).tolist() == alone


def test_densities_of_many_dims_at_once():
    affinity, signal, dim = np.array([0.1, 0.2, -0.3, 0.5]), np.array([1.0, 0.0, 3.0, 2.0]), np.array([64, 3, 2, 7])
    alone = [sphere.affinity_density(*each) for each in zip(affinity, signal, dim)]
    np.testing.assert_allclose(sphere.affinity_density(affinity, signal, dim), alone, rtol=1e-15)


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
                        assert abs(sphere.cap_bound(a, d, kind=kind) / bound - 1) < tolerance
    assert sphere.cap_bound(1.0, 3) == 0


def test_quantiles_next_to_one_half_have_the_right_sign():
    probability = np.array([0.4999, 0.49, 0.51, 0.5001])
    for d in (2, 3, 64):
        affinity = sphere.cap_quantile(probability, d)
        assert np.sign(affinity).tolist() == [1, 1, -1, -1]
        np.testing.assert_allclose(sphere.cap(affinity, d), probability, rtol=1e-14)


@pytest.mark.parametrize("signal", [1e8, 1e50, 1e150])
def test_false_positives_of_the_strongest_signals(signal):
    # with B ~ Beta((dim-1)/2, (dim-1)/2) near 0, E Q(signal sqrt B) to a relative 1 / signal^2
    assert sphere.false_positive(signal, 2) * signal * np.pi**1.5 / np.sqrt(2) == pytest.approx(1, rel=1e-12)
    assert sphere.false_positive(signal, 3) * signal * 2 * signal == pytest.approx(1, rel=1e-12)


def test_false_positives_below_the_smallest_double_are_zero():
    assert sphere.false_positive([[1e100], [1e150]], [24, 64, 1000, 10_000]).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize(("experts", "top"), [(4000, 2010), (4000, 1990), (1000, 501), (300, 140)])
def test_at_affinity_zero_counts_are_binomial(experts, top):
    # the signs of a uniform direction's coordinates are independent
    signs = stats.binom(experts, 0.5)
    counts = np.arange(experts + 1)
    kept = (signs.pmf(counts) * np.minimum(counts, top)).sum() / experts
    assert sphere.candidate_tail(0.0, experts, experts, top=top) == pytest.approx(kept, rel=experts * 1e-15)
    hit = stats.binom(experts - 1, 0.5).cdf(top - 1)
    assert sphere.hit_given_affinity(0.0, experts, experts, top=top) == pytest.approx(hit, abs=experts * 1e-15)


def test_percentiles_of_several_choices():
    tail = sphere.candidate_tail(0.1, 64, 8, top=[1, 2, 4])
    np.testing.assert_allclose(sphere.percentile(0.1, 64, 8, top=[1, 2, 4]), tail * [8, 4, 2], rtol=1e-15)


def test_an_integral_takes_few_values_of_its_integrand():
    count = 0

    def log_f(y):
        nonlocal count
        count += y.size
        return -0.5 * y * y

    value = sphere._log_integral(log_f, np.array([[-40.0]]), np.array([[50.0]]))
    assert value[0] == pytest.approx(0.5 * np.log(2 * np.pi), rel=1e-14)
    assert count < 600  # of them 232 to find the peak and 80 for the ends


def test_no_probability_exceeds_one():
    signal = np.linspace(14, 17, 41)
    assert sphere.hit_rate(signal[:, None], [2, 8, 1000]).max() == 1
    assert sphere.miss_rate(0.0, 10 ** np.arange(19)).max() <= 1
    assert sphere.affinity_tail(np.linspace(-1, 0.5, 40), 20.0, 64).max() == 1
    experts = np.arange(1, 30)
    top = np.minimum(experts[:, None], experts)
    assert sphere.percentile(-1.0, 64, experts[:, None], top=top).max() == 1


@pytest.mark.parametrize(
    ("function", "low", "high", "count", "megabytes"),
    [
        (lambda signal: sphere.false_positive(signal, 64), 0, 10, 4000, 4),
        (lambda a: sphere.affinity_density(a, 2.0, 64), -1, 1, 20_000, 18),
        (lambda a: sphere.candidate_tail(a, 64, 8), -0.3, 0.5, 12_000, 18),
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
