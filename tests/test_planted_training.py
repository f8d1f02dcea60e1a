"""A planted token in training: samples, single-token measurements and routers by hand, and the laws they must meet."""

import numpy as np
import pytest

from resonance_theory.evidence.studies.study import settings_of
from resonance_theory.tokens import Rates
from simulations import _planted, planted_training
from simulations._rules import success
from tests.trainings import train


def test_planted_samples_have_the_moments_they_should():
    x, place, label = _planted.draw(np.random.default_rng(0), 4000, 6, 5, 3, 2.0, 0.4)
    assert x.dtype == np.float32
    rows, columns = np.arange(4000), np.arange(5)
    token = x[rows, place]
    assert token.mean(axis=0) == pytest.approx(2.0 * np.bincount(label, minlength=5) / 4000, abs=0.12)
    assert token[rows, label].mean() == pytest.approx(2.0, abs=0.1)
    one, two = x[rows, (place + 1) % 6], x[rows, (place + 3) % 6]
    assert (one * two).mean(axis=0) == pytest.approx([0.4] * 5, abs=0.1)  # within a sample
    assert (one**2).mean(axis=0) == pytest.approx([1.0] * 5, abs=0.12)
    noise = token - 2.0 * (columns == label[:, None])
    assert (noise * one).mean(axis=0) == pytest.approx([0.0] * 5, abs=0.1)  # the planted token shares nothing


def test_single_token_measurements_by_hand():
    rng = np.random.default_rng(1)
    samples, tokens, experts, capacity = 12, 5, 2, 2
    affinity, place = rng.normal(size=(samples, tokens, experts)), rng.integers(0, tokens, samples)
    label = np.arange(samples) % experts
    found = planted_training.predict(affinity, place, label, capacity)
    background = [affinity[b, t] for b in range(samples) for t in range(tokens) if t != place[b]]
    rate = {"hit": [], "q": [], "h": [], "expert_choice law": [], "resonance law": []}
    for b in range(samples):
        i, a = label[b], affinity[b, place[b], label[b]]
        hit = a == affinity[b, place[b]].max()
        q = sum(r[i] >= a for r in background) / len(background)
        h = sum(r[i] >= a and r[i] == r.max() for r in background) / len(background)
        few = [(1 - u) ** 4 + 4 * u * (1 - u) ** 3 for u in (q, h)]  # at most one of four other tokens is ahead
        for key, value in zip(rate, (hit, q, h, few[0], hit * few[1])):
            rate[key].append(value)
    assert {key: found[key] for key in rate} == pytest.approx({key: np.mean(v) for key, v in rate.items()}, rel=1e-9)


def test_routers_by_hand():
    rng = np.random.default_rng(2)
    affinity, place, label = rng.normal(size=(200, 6, 2)), rng.integers(0, 6, 200), rng.integers(0, 2, 200)
    found = planted_training.routed(affinity, place, label, 2)
    kept = dict.fromkeys(found, 0)
    for a, k, i in zip(affinity, place, label):
        mine = [t for t in range(6) if a[t].argmax() == i]
        kept["token_choice"] += k in mine[:2]
        kept["expert_choice"] += sum(a[:, i] > a[k, i]) < 2
        kept["resonance"] += k in mine and sum(a[t, i] > a[k, i] for t in mine) < 2
    assert found == pytest.approx({rule: n / 200 for rule, n in kept.items()})
    assert len(set(kept.values())) == 3


def test_true_gates_give_the_planted_laws():
    """With the class directions as gates, this is the planted isotropic model, whose laws are known without samples."""
    s, d, n, c, signal, samples = 24, 16, 4, 3, 2.5, 6000
    exact = success(s, c, Rates.planted(signal, d, n))
    gates, rng, five_sigma = np.eye(d, n, dtype=np.float32), np.random.default_rng(3), 2.5 / np.sqrt(samples)

    def measured(function, shared):
        x, place, label = _planted.draw(rng, samples, s, d, n, signal, shared)
        return function(_planted.cosine(x, gates), place, label, c)

    laws = measured(planted_training.predict, 0.0)
    rates = measured(planted_training.routed, 0.0)
    dependent = measured(planted_training.routed, 0.5)
    for rule, rate in exact.items():
        assert laws[f"{rule} law"] == pytest.approx(rate, abs=five_sigma)
        assert rates[rule] == pytest.approx(rate, abs=five_sigma)
    assert abs(laws["expert_choice scalar"] - exact["expert_choice"]) > five_sigma
    assert dependent["token_choice"] > exact["token_choice"] + five_sigma  # counts beyond binomial (N11)


def test_counts_of_a_short_planted_training():
    pytest.importorskip("torch", reason="networks are trained with PyTorch: pip install 'resonance-theory[training]'")
    change = {"steps": [2], "samples": 60, "tokens": 8, "capacity": 2, "batch": 4}
    for arm in planted_training.arms(settings_of("planted_training", full=False) | change):
        counts = train(arm)
        assert counts == train(arm)
        assert all(0 <= count <= arm.per for count in counts.values())
        untrained = train(arm, steps=0)
        assert untrained.keys() == counts.keys()
        assert untrained != counts
        for run in range(2):
            assert counts[f"h/{run}"] <= counts[f"q/{run}"]
