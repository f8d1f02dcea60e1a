"""Choices for simulators: exact rates, distinct experts, documents; and where it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import resonance_theory as rt

RNG = np.random.default_rng
ALPHA = 1e-6  # false alarms of each test, divided by its comparisons


def binomial_limits(trials, rate, tests):
    """Counts that a true rate leaves with probability at most ALPHA / tests."""
    return stats.binom.ppf(ALPHA / tests / 2, trials, rate), stats.binom.isf(ALPHA / tests / 2, trials, rate)


@pytest.mark.parametrize("rates", [[0.9, 0.6, 0.3, 0.15, 0.05], [1.0, 0.5, 0.25, 0.25, 0.0], [0.4] * 5])
def test_rates_and_pairs(rates):
    """Of 200,000 tokens: rates off by 0.006 or more would show with probability 1/2 at least."""
    choices = rt.tokens.routing(RNG(1), 200_000, rates)[:, 0]
    hot = np.zeros((len(choices), 5), bool)
    np.put_along_axis(hot, choices, True, axis=1)
    joint = rt.loads.joint_rates(rates)
    for i in range(5):
        for j in range(i, 5):
            low, high = binomial_limits(len(hot), joint[i, j], 15)
            assert low <= np.count_nonzero(hot[:, i] & hot[:, j]) <= high, (i, j)
    wrong = binomial_limits(len(hot), joint[2, 2] + 0.012, 15)
    assert not wrong[0] <= np.count_nonzero(hot[:, 2]) <= wrong[1]  # so an error of 0.012 is seen


@pytest.mark.parametrize("correlation", [0.0, 0.25, 1.0])
def test_documents_counts_are_beta_binomial(correlation):
    """50,000 documents of 6 tokens: the whole law of one expert's count."""
    choices = rt.tokens.routing(RNG(2), 300_000, [0.7, 0.6, 0.4, 0.3], lengths=[6] * 50_000, correlation=correlation)
    count = (choices[:, 0] == 2).any(axis=1).reshape(-1, 6).sum(axis=1)
    if correlation == 0:
        mass = stats.binom.pmf(range(7), 6, 0.4)
    elif correlation == 1:
        mass = np.array([0.6, 0, 0, 0, 0, 0, 0.4])
    else:
        mass = stats.betabinom.pmf(range(7), 6, 0.4 * 3, 0.6 * 3)
    for n, p in enumerate(mass):
        low, high = binomial_limits(50_000, p, 7)
        assert low <= np.count_nonzero(count == n) <= high, n


def test_shapes_kinds_and_seeds():
    rates = np.array([rt.tokens.skewed_rates(8, 2, r) for r in (1.0, 2.5, 4.0)])
    once = rt.tokens.routing(RNG(3), 100, rates, lengths=[30, 0, 70], correlation=0.5, dtype=np.int16)
    again = rt.tokens.routing(RNG(3), 100, rates, lengths=[30, 0, 70], correlation=0.5, dtype=np.int16)
    assert once.shape == (100, 3, 2)
    assert once.dtype == np.int16
    assert np.array_equal(once, again)
    assert (once[:, 2, 0] == 0).all()  # a rate of 1
    assert not np.array_equal(once, rt.tokens.routing(RNG(4), 100, rates, lengths=[30, 0, 70], correlation=0.5))
    whole = rt.tokens.routing(RNG(5), 50, rates[1], layers=2, correlation=1.0)
    assert (whole == whole[0]).all()  # all tokens alike


@pytest.mark.parametrize(
    ("n", "k", "ratio"), [(64, 6, 1.0), (64, 6, 3.5), (64, 8, 8.0), (256, 8, 31.9), (4, 4, 1.0), (1, 1, 1)]
)
def test_skewed_rates(n, k, ratio):
    rates = rt.tokens.skewed_rates(n, k, ratio)
    assert rates.sum() == pytest.approx(k, rel=1e-12)
    assert rates.max() / rates.mean() == pytest.approx(ratio, rel=1e-12)
    assert (np.diff(rates) <= 0).all()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"rng": 1}, TypeError, "rng is a int"),
        ({"tokens": 0}, ValueError, "tokens = 0"),
        ({"rates": [0.5, 0.6]}, ValueError, "rates sum to 1.1 but must sum to a whole number"),
        ({"rates": [1.5, 0.5]}, ValueError, r"rates\[0\] = 1.5"),
        ({"rates": [[1.0, 0.0], [1.0, 1.0]]}, ValueError, r"sum to \[1, 2\] but must sum to one number"),
        ({"rates": [[1.0, 0.0]], "layers": 2}, ValueError, "layers = 2 must not be given"),
        ({"lengths": [3, 4]}, ValueError, "lengths sum to 7 over"),
        ({"lengths": [-1, 11]}, ValueError, r"lengths\[0\] = -1"),
        ({"correlation": 1.5}, ValueError, "correlation = 1.5"),
        ({"dtype": np.uint8}, ValueError, "dtype = uint8 must be int16"),
        ({"rates": np.full(40_000, 1 / 40_000), "dtype": np.int16}, ValueError, "must hold 40000 experts"),
    ],
)
def test_bad_input_is_one_sentence(change, kind, words):
    arguments = {"rng": RNG(0), "tokens": 10, "rates": [0.5, 0.5]} | change
    with pytest.raises(kind, match=words):
        rt.tokens.routing(arguments.pop("rng"), arguments.pop("tokens"), arguments.pop("rates"), **arguments)


def test_ratio_beyond_what_distinct_choices_allow():
    with pytest.raises(ValueError, match="max_over_mean = 5"):
        rt.tokens.skewed_rates(8, 2, 5)
