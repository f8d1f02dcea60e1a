"""Log-normal loads against 50-digit arithmetic, the reported pair of drop rates, and drawn experts."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

import resonance_theory as rt
from resonance_theory.rules import Rates, token_choice
from resonance_theory.tokens import LogNormalLoads

RNG = np.random.default_rng


def price(factor, sigma):
    """E (X - c)_+ in as many digits as its own cancellation asks for."""
    place = abs(np.log(factor)) / sigma + sigma
    with mpmath.workdps(int(60 + place**2 / 2)):
        c, s = mpmath.mpf(factor), mpmath.mpf(sigma)
        return mpmath.ncdf((s * s / 2 - mpmath.log(c)) / s) - c * mpmath.ncdf((-s * s / 2 - mpmath.log(c)) / s)


def test_drop_to_1e_12_everywhere():
    rng = RNG(7)
    sigma = 10 ** rng.uniform(-6, np.log10(30), size=400)
    place = rng.choice([-1, 1], size=400) * 10 ** rng.uniform(-6, 1.5, size=400)
    factor = np.exp(place * np.minimum(sigma, 2.0))
    found, logs = LogNormalLoads(sigma).drop(factor), LogNormalLoads(sigma).log_drop(factor)
    for k in range(400):
        exact = price(float(factor[k]), float(sigma[k]))
        assert abs(mpmath.mpf(float(logs[k])) - mpmath.log(exact)) < 1e-12 * max(1, abs(mpmath.log(exact))), (
            sigma[k],
            factor[k],
        )
        if exact > 1e-250:
            assert abs(mpmath.mpf(float(found[k])) / exact - 1) < 1e-12, (sigma[k], factor[k], float(exact))


def test_the_edges():
    np.testing.assert_array_equal(LogNormalLoads(0.0).drop([0.25, 1.0, 3.0]), [0.75, 0.0, 0.0])
    assert LogNormalLoads(1e-310).drop(0.5) == 0.5
    assert LogNormalLoads(30.0).drop(1.0) == 1.0
    assert LogNormalLoads(0.3).drop(1e-300) == 1.0
    assert LogNormalLoads([0.1, 0.2]).drop([[1.0], [1.25], [2.0]]).shape == (3, 2)
    factor, sigma = np.linspace(0.2, 6, 300), np.array([[0.05], [0.5], [2.0]])
    drops = LogNormalLoads(sigma).log_drop(factor)
    assert np.all(np.diff(drops, axis=1) < 0)
    assert np.all(np.diff(drops, axis=0) >= 0)
    # continuous where the two ways of evaluation meet
    for s in (0.999999, 1.000001):
        a, b = (LogNormalLoads(s).log_drop(np.exp(s * s / 2 + e)) for e in (-1e-12, 1e-12))
        assert a == pytest.approx(b, abs=1e-11)


def test_one_reported_drop_gives_another():
    """marin-community/marin issue 7279: 9.6786 % at capacity factor 1.0 and 7.2507 % at 1.0625."""
    loads = LogNormalLoads.from_drop(0.096786, 1.0)
    assert float(loads.sigma) == pytest.approx(0.2432, abs=5e-5)
    assert float(loads.drop(1.0625)) == pytest.approx(0.0716, abs=5e-5)
    assert abs(float(loads.drop(1.0625)) - 0.072507) < 0.001


def test_scale_from_drop_inverts():
    from scipy.special import erfinv

    drop = np.array([1e-300, 1e-12, 0.0968, 0.5, 0.999])
    np.testing.assert_allclose(LogNormalLoads.from_drop(drop, 1.0).sigma, 2 * np.sqrt(2) * erfinv(drop), rtol=1e-12)
    factor, sigma = np.array([0.3, 0.9, 1.1, 4.0]), np.array([[0.2], [1.0], [5.0]])
    again = LogNormalLoads.from_drop(LogNormalLoads(sigma).drop(factor), factor).sigma
    # a drop that is 1 - c to rounding says little of the scale
    sharp = LogNormalLoads(sigma).drop(factor) - np.maximum(1 - factor, 0) > 1e-4
    assert sharp.sum() > 8
    np.testing.assert_allclose(np.where(sharp, again / sigma, 1.0), 1.0, rtol=1e-11)


@pytest.mark.parametrize(
    ("sigma", "experts", "top", "tokens"),
    [(0.2432, 64, 6, 1024), (1.5, 64, 6, 512), (3.0, 4, 3, 200), (0.01, 8, 1, 90)],
)
def test_finite_counts_are_an_average_over_shares(sigma, experts, top, tokens):
    """Against Simpson's rule over the conditional log-normal law, with SciPy's binomial tails."""
    rates = LogNormalLoads(sigma).rates(experts, top, tokens)
    assert float(rates.weight @ rates.load) == pytest.approx(top / experts, rel=1e-14)
    assert rates.load.max() <= 1
    capacity = int(np.ceil(1.25 * tokens * top / experts))
    most = mpmath.log(mpmath.mpf(experts) / top)
    s = mpmath.mpf(sigma)
    with mpmath.workdps(30):
        # the location at which E (X | X <= n/l) = 1, by bisection
        low, high = mpmath.mpf(-60), mpmath.mpf(60)
        for _ in range(110):
            mu = (low + high) / 2
            top_z = (most - mu) / s
            mean = mu + s * s / 2 + mpmath.log(mpmath.ncdf(top_z - s)) - mpmath.log(mpmath.ncdf(top_z))
            low, high = (mu, high) if mean < 0 else (low, mu)
        top_z = (most - mu) / s
    z = np.linspace(-float(np.hypot(min(float(top_z), 0.0), 12)), min(float(top_z), 12.0 + sigma), 40_001)
    share = np.minimum(np.exp(float(mu) + sigma * z) * top / experts, 1.0)
    density = np.exp(-z * z / 2 + min(0.0, float(top_z)) ** 2 / 2)
    at_least = stats.binom.sf(capacity - 1, tokens - 1, share)  # E (N - C)_+ = s p P(N' >= C) - C P(N >= C+1)
    lost = tokens * share * at_least - capacity * stats.binom.sf(capacity, tokens, share)
    wanted = integrate.simpson(lost * density, x=z) / integrate.simpson(tokens * share * density, x=z)
    assert float(token_choice.drop_rate(tokens, capacity, rates)) == pytest.approx(wanted, rel=1e-9)


def test_finite_counts_meet_drawn_experts():
    rng, sigma, tokens = RNG(11), 0.6, 256
    share = np.exp(sigma * rng.standard_normal(400_000) - sigma**2 / 2) * 4 / 64
    share = share[share <= 1]
    lost = np.maximum(rng.binomial(tokens, share) - 20, 0) / (tokens * 4 / 64)
    law = float(token_choice.drop_rate(tokens, 20, LogNormalLoads(sigma).rates(64, 4, tokens)))
    assert abs(lost.mean() - law) < 5 * lost.std() / np.sqrt(lost.size)
    limit = float(LogNormalLoads(sigma).drop(1.25))
    assert lost.mean() - limit > 15 * lost.std() / np.sqrt(lost.size)  # the limit alone is rejected


def test_uniform_loads_are_the_uniform_rates():
    rates = LogNormalLoads(0.0).rates(8, 2)
    assert rates.load is None
    assert token_choice.drop_rate(64, 20, rates) == token_choice.drop_rate(64, 20, Rates(experts=8, top=2))


@pytest.mark.parametrize(
    ("kind", "pattern", "call"),
    [
        (ValueError, r"sigma = -1.0 must be a finite number in \[0, 30\]", lambda: LogNormalLoads(-1.0)),
        (TypeError, "sigma = 'x' must be", lambda: LogNormalLoads("x")),
        (ValueError, r"factor = 0.0 must be a finite number in \(0, inf\)", lambda: LogNormalLoads(1.0).drop(0.0)),
        (ValueError, "drop = 0.3 must be above 0.5 at factor 0.5", lambda: LogNormalLoads.from_drop(0.3, 0.5)),
        (ValueError, r"drop = 1.0 must be a finite number in \(0, 1\)", lambda: LogNormalLoads.from_drop(1.0, 1.0)),
        (ValueError, "must be one that sigma up to 30 gives", lambda: LogNormalLoads.from_drop(1 - 1e-16, 1e200)),
        (ValueError, "shapes of", lambda: LogNormalLoads([0.1, 0.2]).drop([1.0, 2.0, 3.0])),
        (
            ValueError,
            "top = 8 must be a whole number between 1 and experts = 7",
            lambda: LogNormalLoads(1.0).rates(8, 8),
        ),
        (ValueError, "sigma = .* must be one number", lambda: LogNormalLoads([0.1, 0.2]).rates(8)),
    ],
)
def test_bad_input_is_one_sentence(kind, pattern, call):
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_public_name():
    assert rt.tokens.LogNormalLoads is LogNormalLoads
