"""Statistics against exact enumeration: every count, every probability, no sampling."""

import numpy as np
import pytest
from scipy import stats as reference

from resonance_theory.evidence import statistics


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 17), (500, 1000), (1, 10**6)])
def test_clopper_pearson_inverts_the_binomial_tails(k, n):
    alpha = 1e-4
    low, high = statistics.clopper_pearson(k, n, alpha)
    if k > 0:
        assert reference.binom.sf(k - 1, n, low) == pytest.approx(alpha / 2, rel=1e-8)
    else:
        assert low == 0
    if k < n:
        assert reference.binom.cdf(k, n, high) == pytest.approx(alpha / 2, rel=1e-8)
    else:
        assert high == 1


@pytest.mark.parametrize("p", [0.001, 0.1, 0.37, 0.5, 0.99])
def test_coverage_is_at_least_nominal_and_not_trivial(p):
    n, alpha = 400, 0.01
    k = np.arange(n + 1)
    low, high = statistics.clopper_pearson(k, n, alpha)
    missed = reference.binom.pmf(k, n, p)[(p < low) | (p > high)].sum()
    assert missed <= alpha
    assert (high - low).max() < 0.15  # a procedure that returned [0, 1] would cover too


@pytest.mark.parametrize(("p0", "n"), [(0.3, 200), (0.02, 900), (0.5, 50)])
def test_detectable_is_exactly_the_power_limit(p0, n):
    alpha, beta = 1e-3, 1e-2
    d = float(statistics.detectable(p0, n, alpha, beta))
    k = np.arange(n + 1)
    low, high = statistics.clopper_pearson(k, n, alpha)
    rejected = (p0 < low) | (p0 > high)

    def power(p):
        return reference.binom.pmf(k, n, p)[rejected].sum()

    sides = [p for p in (p0 + d, p0 - d) if 0 <= p <= 1]
    assert all(power(p) >= 1 - beta - 1e-9 for p in sides)
    # a slightly smaller difference is missed more often than beta on at least one side
    assert min(power(p0 + 0.98 * d), power(max(p0 - 0.98 * d, 0))) < 1 - beta


def test_detectable_says_when_nothing_can_be_detected():
    assert np.isinf(statistics.detectable(0.5, 3, 1e-6))


def test_sample_size_inverts_detectable():
    n = statistics.sample_size(0.3, 0.01, 1e-7)
    assert statistics.detectable(0.3, n, 1e-7) <= 0.01 < statistics.detectable(0.3, int(n * 0.97), 1e-7)


def test_three_values_of_every_test():
    alpha = 1e-4
    assert statistics.equal(500, 1000, 0.5, alpha).holds
    assert statistics.equal(700, 1000, 0.5, alpha).fails
    assert statistics.equal(1000, 1000, 1.2, alpha).fails
    assert not statistics.equal(1, 2, 0.5, alpha).holds  # two trials decide nothing
    assert not statistics.equal(1, 2, 0.5, alpha).fails
    assert statistics.at_most(100, 1000, 0.5, alpha).holds
    assert statistics.at_most(900, 1000, 0.5, alpha).fails
    assert not statistics.at_most(500, 1000, 0.5, alpha).holds
    assert statistics.at_least(900, 1000, 0.5, alpha).holds
    assert statistics.at_least(100, 1000, 0.5, alpha).fails
    assert not statistics.at_least(500, 1000, 0.5, alpha).fails


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_empirical_bernstein_covers(p):
    n, alpha = 300, 0.02
    k = np.arange(n + 1)
    low, high = statistics.empirical_bernstein(3.0 * k, 9.0 * k, n, 3.0, alpha)  # k values of 3 among n
    missed = reference.binom.pmf(k, n, p)[(3 * p < low) | (3 * p > high)].sum()
    assert missed <= alpha
    assert (high - low)[5] < 0.6  # small variance, narrow interval


@pytest.mark.parametrize("p0", [0.03, 0.5])
def test_e_value_has_mean_one_under_the_hypothesis(p0):
    for n in (0, 1, 7, 60):
        k = np.arange(n + 1)
        mean = (reference.binom.pmf(k, n, p0) * np.exp(statistics.log_e_value(k, n, p0))).sum()
        assert mean == pytest.approx(1, rel=1e-10)
    assert statistics.log_e_value(300, 1000, 0.5) > np.log(1e6)  # and it grows under an alternative
    assert statistics.log_e_value(500, 1000, 0.5) < 0


def test_dkw_solves_massarts_inequality():
    assert 2 * np.exp(-2 * 1000 * statistics.dkw(1000, 1e-6) ** 2) == pytest.approx(1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="successes = 5 must be a whole number between 0 and trials = 4"):
        statistics.clopper_pearson(5, 4, 0.1)
    with pytest.raises(ValueError, match="alpha"):
        statistics.clopper_pearson(1, 4, 0)
    with pytest.raises(ValueError, match="difference"):
        statistics.sample_size(0.5, 0.0, 1e-3)
