"""Samplers against the exact laws and against each other.

Every statistical test here rejects a correct sampler with probability at most 1e-9 (Dvoretzky-Kiefer-Wolfowitz-Massart
for distributions, Clopper-Pearson for rates), and, with the same error, detects what its comment states. The
wrong samplers below must be rejected by the very same tests.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

import resonance_theory as rt
from resonance_theory.evidence.statistics import clopper_pearson
from resonance_theory.rules import resonance
from resonance_theory.tokens import planted, samplers

FALSE_ALARM = 1e-9
N = 100_000
DIM, EXPERTS, SIGNAL = 24, 4, 2.0


def band(n, alpha):
    """DKW-Massart: P(sup |F_n - F| > band) <= alpha."""
    return math.sqrt(math.log(2 / alpha) / (2 * n))


def distance_to_law(values, cdf):
    """sup |F_n - F| for a continuous F."""
    values = np.sort(values)
    f, n = cdf(values), values.size
    return max(np.max(np.arange(1, n + 1) / n - f), np.max(f - np.arange(n) / n))


def distance(a, b):
    return stats.ks_2samp(a, b, method="asymp").statistic


def follows(values, cdf):
    """Detects any law at a Kolmogorov distance of 2 band(n) = .0207 at n = 100,000."""
    return distance_to_law(values, cdf) <= band(values.size, FALSE_ALARM)


def agree(a, b):
    """Two-sample: detects any two laws at a Kolmogorov distance of 4 band(n) = .0421 at n = 100,000."""
    return distance(a, b) <= band(a.size, FALSE_ALARM / 2) + band(b.size, FALSE_ALARM / 2)


def rate_is(hits, p):
    low, high = clopper_pearson(int(np.sum(hits)), int(np.size(hits)), FALSE_ALARM)
    return bool(low <= p <= high)


# The laws, each by scipy alone.


def cap_cdf(a, dim):
    """P(cos <= a) for a uniform direction on the sphere of R^dim (G1)."""
    tail = special.betainc((dim - 1) / 2, 0.5, 1 - a**2) / 2
    return np.where(a < 0, tail, 1 - tail)


def discriminative_cdf(a, dim, signal):
    """P(cos(theta w + z, w) <= a): a non-central t in disguise (G3)."""
    return stats.nct.cdf(a * math.sqrt(dim - 1) / np.sqrt(1 - a**2), dim - 1, signal)


def hit_rate(signal, experts):
    """P(own gate has the highest projection) (G2)."""
    return integrate.quad(lambda u: stats.norm.pdf(u - signal) * stats.norm.cdf(u) ** (experts - 1), -10, 12)[0]


def full(rng, samples, size, dim=DIM, experts=EXPERTS, signal=SIGNAL):
    x, position, expert = samplers.planted(rng, samples, size, dim, experts, signal)
    return rt.affinity(x, experts), position, expert


def reduced(rng, samples, size, dim=DIM, experts=EXPERTS, signal=SIGNAL):
    return samplers.planted_affinity(rng, samples, size, dim, experts, signal)


def wrong_degrees_of_freedom(rng, samples, size, dim=DIM, experts=EXPERTS, signal=SIGNAL):
    """The residual counts all features, not those outside the gates' span."""
    return reduced(rng, samples, size, dim + experts, experts, signal)


def wrong_signal(rng, samples, size, dim=DIM, experts=EXPERTS, signal=SIGNAL):
    return reduced(rng, samples, size, dim, experts, signal * 1.15)


def wrong_noise(rng, samples, size, dim=DIM, experts=EXPERTS, signal=SIGNAL):
    """Independent affinities of the right marginal law: the joint law over the experts is lost."""
    delta, position, expert = reduced(rng, samples, size, dim, experts, signal)
    for i in range(experts):
        delta[..., i] = reduced(rng, samples, size, dim, experts, 0.0)[0][..., i]
    own = reduced(rng, samples, size, dim, experts, signal)
    delta[np.arange(samples), position, expert] = own[0][np.arange(samples), own[1], own[2]]
    return delta, position, expert


def features(sampler, seed, **sizes):
    """Scalars that together see the marginal laws, the joint law over experts, and the routing."""
    rng = np.random.default_rng(seed)
    delta, position, expert = sampler(rng, N, 2, **sizes)
    rows = np.arange(N)
    own, other = delta[rows, position], delta[rows, 1 - position]
    mine = own[rows, expert]
    rest = np.where(np.arange(own.shape[1]) == expert[:, None], -2.0, own).max(axis=1)
    return {
        "discriminative affinity": mine,
        "margin over the other experts": mine - rest,
        "squared affinities of the discriminative token": np.sum(own**2, axis=1),
        "largest affinity of an irrelevant token": other.max(axis=1),
        "squared affinities of an irrelevant token": np.sum(other**2, axis=1),
        "product of two affinities": other[:, 0] * other[:, 1],
        "affinity ahead of an irrelevant token": mine - other[rows, expert],
    }


def disagreements(first, second):
    return [name for name in first if not agree(first[name], second[name])]


@pytest.mark.parametrize(("dim", "experts"), [(DIM, EXPERTS), (64, 8), (6, 2)])
def test_the_two_planted_samplers_agree_in_law(dim, experts):
    sizes = {"dim": dim, "experts": experts}
    assert disagreements(features(full, 1, **sizes), features(reduced, 2, **sizes)) == []


@pytest.mark.parametrize("wrong", [wrong_degrees_of_freedom, wrong_signal, wrong_noise])
def test_the_agreement_test_rejects_wrong_samplers(wrong):
    assert disagreements(features(full, 1), features(wrong, 2)) != []


@pytest.mark.parametrize("sampler", [full, reduced])
def test_planted_samplers_follow_the_exact_laws(sampler):
    got = features(sampler, 3)
    rng = np.random.default_rng(4)
    delta, position, expert = sampler(rng, N, 3)
    rows = np.arange(N)
    assert follows(got["discriminative affinity"], lambda a: discriminative_cdf(a, DIM, SIGNAL))
    assert not follows(got["discriminative affinity"], lambda a: discriminative_cdf(a, DIM, SIGNAL * 1.05))
    assert not follows(got["discriminative affinity"], lambda a: discriminative_cdf(a, DIM + 8, SIGNAL))
    for i in range(EXPERTS):
        irrelevant = delta[rows, (position + 1) % 3, i]
        assert follows(irrelevant, lambda a: cap_cdf(a, DIM))
        assert not follows(irrelevant, lambda a: cap_cdf(a, DIM + 8))
    squared = got["squared affinities of an irrelevant token"]
    assert follows(squared, stats.beta(EXPERTS / 2, (DIM - EXPERTS) / 2).cdf)
    assert not follows(squared, stats.beta(EXPERTS / 2, DIM / 2).cdf)
    hits = got["margin over the other experts"] > 0
    assert rate_is(hits, hit_rate(SIGNAL, EXPERTS))
    assert not rate_is(hits, hit_rate(SIGNAL * 1.05, EXPERTS))
    # Position and class are uniform and independent of one another.
    for k in range(3):
        for i in range(EXPERTS):
            assert rate_is((position == k) & (expert == i), 1 / (3 * EXPERTS))


def test_isotropic_samplers_follow_the_cap_law():
    rng = np.random.default_rng(5)
    vectors = rt.affinity(samplers.isotropic(rng, 1000, 100, DIM), EXPERTS)
    direct = samplers.isotropic_affinity(rng, 1000, 100, DIM, EXPERTS)
    for delta in (vectors, direct):
        assert delta.shape == (1000, 100, EXPERTS)
        assert follows(delta[..., 0].ravel(), lambda a: cap_cdf(a, DIM))
        # Exchangeable gates: every expert is each token's first choice equally often.
        first = delta.argmax(axis=-1)
        assert all(rate_is(first == i, 1 / EXPERTS) for i in range(EXPERTS))


def test_as_many_experts_as_features_leaves_no_residual():
    rng = np.random.default_rng(6)
    for delta in (reduced(rng, 50, 20, dim=5, experts=5)[0], full(rng, 50, 20, dim=5, experts=5)[0]):
        np.testing.assert_allclose(np.sum(delta**2, axis=-1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(np.abs(samplers.isotropic_affinity(rng, 3, 4, 1, 1)), 1.0, rtol=1e-15)


def test_no_signal_means_isotropic_tokens():
    _, position, expert = samplers.planted(np.random.default_rng(7), 5, 4, 6, 3, 0.0)
    x = samplers.planted(np.random.default_rng(7), 5, 4, 6, 3, 0.0).values
    np.testing.assert_array_equal(x, samplers.isotropic(np.random.default_rng(7), 5, 4, 6))
    # The signal moves one token of each sample, along its own gate, by its own length.
    moved = samplers.planted(np.random.default_rng(7), 5, 4, 6, 3, 1.5).values - x
    gates = rt.grap_gates(6, 3)
    want = np.zeros_like(x)
    want[np.arange(5), position] = 1.5 * gates[expert] / np.linalg.norm(gates[expert], axis=1, keepdims=True)
    np.testing.assert_allclose(moved, want, atol=1e-14)


@pytest.mark.parametrize("sampler", [full, reduced])
def test_success_rates_through_the_router(sampler):
    """Planted d = 64, n = 8, theta = 2.5, s = 256, C = 12 (G5); 10,000 samples detect a difference of .058."""
    rng = np.random.default_rng(8)
    batches = [sampler(rng, 1000, 256, dim=64, experts=8, signal=2.5) for _ in range(10)]
    # The exact rate, then what averaging hit, q or h before the law (N4) or forgetting the misses would promise.
    for rule, exact, wrong in [
        (rt.token_choice, 0.3131985257630, [0.375]),
        (rt.resonance, 0.7581593753703, [0.673, 0.820]),
        (rt.expert_choice, 0.7800494397366, [0.683]),
    ]:
        hits = np.concatenate([rule.route(delta, 12).contains(at, own) for delta, at, own in batches])
        assert rate_is(hits, exact)
        assert not any(rate_is(hits, p) for p in wrong)


def test_streams_are_addressable():
    for draw in (
        lambda rng: samplers.isotropic(rng, 3, 4, 6),
        lambda rng: samplers.planted(rng, 3, 4, 6, 3, 1.0).values,
        lambda rng: samplers.planted_affinity(rng, 3, 4, 6, 3, 1.0).values,
    ):
        np.testing.assert_array_equal(draw(np.random.default_rng(9)), draw(np.random.default_rng(9)))
        assert np.any(draw(np.random.default_rng(9)) != draw(np.random.default_rng(10)))


def test_the_distribution_as_one_object():
    model = samplers.Planted(signal=1.5, dim=6, experts=3)
    for method, function in ((model.sample, samplers.planted), (model.affinity, samplers.planted_affinity)):
        got = method(np.random.default_rng(11), 5, 4)
        want = function(np.random.default_rng(11), 5, 4, 6, 3, 1.5)
        for a, b in zip(got, want):
            np.testing.assert_array_equal(a, b)
    assert model.sample(np.random.default_rng(0), 5, 4).values.shape == (5, 4, 6)
    assert model.affinity(np.random.default_rng(0), 5, 4).values.shape == (5, 4, 3)


def test_the_law_belongs_to_the_sampler():
    law = samplers.Planted(SIGNAL, DIM, EXPERTS).rates()
    weight = np.asarray(law.weight)
    hits = features(reduced, 12)["margin over the other experts"] > 0
    assert rate_is(hits, float(np.sum(weight * law.hit)))
    np.testing.assert_allclose(np.sum(weight * law.hit), hit_rate(SIGNAL, EXPERTS), rtol=1e-9)


RNG = np.random.default_rng(0)
BAD = {
    "legacy generator": (samplers.isotropic, (np.random.RandomState(0), 1, 1, 1), TypeError, "rng is a RandomState"),
    "a seed": (samplers.planted_affinity, (0, 1, 1, 2, 1, 0.0), TypeError, "rng is a int"),
    "no sample": (samplers.isotropic, (RNG, 0, 1, 1), ValueError, "samples = 0 must be"),
    "half a token": (samplers.isotropic, (RNG, 1, 0.5, 1), TypeError, "tokens = 0.5 must be"),
    "negative dim": (samplers.isotropic_affinity, (RNG, 1, 1, -2, 1), ValueError, "dim = -2 must be"),
    "several": (samplers.isotropic, (RNG, [1, 2], 1, 1), ValueError, "samples = [1, 2] must be one whole number"),
    "indivisible": (samplers.planted, (RNG, 1, 1, 10, 4, 1.0), ValueError, "dim = 10 is not divisible by experts = 4"),
    "too many": (samplers.planted_affinity, (RNG, 1, 1, 4, 5, 1.0), ValueError, "experts = 5 must be at most dim = 4"),
    "negative signal": (samplers.planted, (RNG, 1, 1, 4, 2, -1.0), ValueError, "signal = -1.0 must be"),
    "nan signal": (samplers.planted_affinity, (RNG, 1, 1, 4, 2, math.nan), ValueError, "signal = nan must be"),
    "signals": (samplers.planted_affinity, (RNG, 1, 1, 4, 2, [1.0]), ValueError, "signal has shape (1,)"),
    "text": (samplers.planted, (RNG, 1, 1, 4, 2, "strong"), TypeError, "signal = 'strong' must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    function, arguments, error, words = BAD[case]
    with pytest.raises(error) as caught:
        function(*arguments)
    assert words in str(caught.value)


def test_the_law_resolves_the_step_of_a_rule_at_its_capacity():
    """Mutant: the nodes that do for small capacities."""

    def success(law):
        return resonance.success(4096, 488, law)

    model = samplers.Planted(1.0, 26, 3)
    want = success(planted.planted(1.0, 26, 3, nodes=9001))
    assert success(model.rates(capacity=488)) == pytest.approx(want, rel=1e-12)
    assert abs(success(model.rates()) - want) > 1e-6
    assert samplers.Planted(1.0, 64, 3).rates(capacity=10**9).weight.size == 2**14
    with pytest.raises(ValueError, match="capacity"):
        model.rates(capacity=0)
