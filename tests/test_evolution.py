"""Evolving tokens: exact transitions, the two samplers, the laws, and the stored record of the study."""

import numpy as np
import pytest
from scipy import integrate

import resonance_theory as rt
from resonance_theory.evidence.studies.study import settings_of
from resonance_theory.tokens import planted
from resonance_theory.tokens.evolving import Evolving, moments, transition
from simulations import evolution as study
from tests import records


def test_moments_solve_the_equations_of_the_flow():
    """dm/dt = -rate m and dv/dt = -2 rate v + noise², integrated numerically."""
    for rate, noise, start in ((0.7, 1.3, 0.4), (0.0, 2.0, 1.0), (3.0, 0.0, 2.0)):
        slope = lambda _, y, k=rate, s=noise: [-k * y[0], -2 * k * y[1] + s * s]  # noqa: E731
        solved = integrate.solve_ivp(slope, (0, 1.7), [1.0, start**2], rtol=1e-10, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(moments(1.7, rate, noise, start), solved, rtol=1e-8)
    assert moments(2.0, 1e-12, 1.0, 0.0)[1] == pytest.approx(2.0, rel=1e-10)
    assert np.shape(moments(np.zeros((3, 1)), np.ones(2), 1.0)[1]) == (3, 2)
    assert moments(1e308, 1e308, 1.0, 1e150) == (0.0, pytest.approx(0.5e-300, rel=1e-7))


def test_transitions_compose():
    """Two steps have the law of one: mean and variance within 6.5 standard errors, and not those of another rate."""
    count, mean = 400_000, np.array(2.0)
    x = np.full(count, -1.0)
    rng = np.random.default_rng(5)
    for step in (0.3, 0.5):
        x = transition(rng, x, mean, step, rate=0.9, noise=1.1)
    for rate, agree in ((0.9, True), (0.92, False)):
        memory, variance = moments(0.8, rate, 1.1, 0.0)
        error = np.sqrt(variance / count)
        assert bool(abs(x.mean() - (2 - 3 * memory)) < 6.5 * error) == agree
    variance = float(moments(0.8, 0.9, 1.1, 0.0)[1])
    assert abs(x.var() - variance) < 6.5 * variance * np.sqrt(2 / count)


def test_paths_have_the_flow_s_covariance():
    flow = Evolving(
        dim=32, experts=4, signal=3.0, rate=0.8, noise=1.2, start=0.7, background=[[0.0, 1.0, 0.0, 0.0, 2.0]]
    )
    x = flow.sample(np.random.default_rng(6), 4000, 8, [0.2, 1.0]).values
    assert x.shape == (2, 4000, 8, 32)
    first, second = (v.reshape(-1, 32)[:, 20:] for v in x)  # features without a mean
    early = float(moments(0.2, 0.8, 1.2, 0.7)[1])
    late = float(moments(1.0, 0.8, 1.2, 0.7)[1])
    error = 6.5 / np.sqrt(first.size)
    assert abs(np.mean(first * first) / early - 1) < error * np.sqrt(2)
    assert abs(np.mean(second * second) / late - 1) < error * np.sqrt(2)
    # cov(x(t), x(t+u)) = v(t) exp(-rate u)
    assert abs(np.mean(first * second) - early * np.exp(-0.64)) < error * np.sqrt(2 * early * late)
    assert flow.sample(np.random.default_rng(6), 5, 3, 0.4).values.shape == (5, 3, 32)


def test_planted_tokens_are_the_end_of_the_flow():
    flow = Evolving(dim=64, experts=8, signal=2.5, noise=np.sqrt(2))
    got, want = flow.rates(60.0), planted.planted(2.5, 64, 8)
    for name in ("hit", "false_positive", "candidate_tail"):
        assert got.weight @ getattr(got, name) == pytest.approx(want.weight @ getattr(want, name), abs=1e-12)
    at_start = flow.rates(0.0)
    assert at_start.weight @ at_start.hit == pytest.approx(1 / 8, abs=1e-12)
    np.testing.assert_allclose(flow.load(0.7), 1 / 8, atol=1e-14)


def test_a_mixture_averages_its_components():
    parts = [[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    share = np.array([0.3, 0.7])
    model = {"dim": 64, "experts": 2, "signal": 2.0}
    both = Evolving(**model, background=parts, share=share).rates(1.2)
    alone = [Evolving(**model, background=[part]).rates(1.2) for part in parts]
    for name in ("load", "false_positive", "candidate_tail"):
        mixed = sum(w * getattr(law, name) for w, law in zip(share, alone))
        np.testing.assert_allclose(getattr(both, name), mixed, atol=1e-13)


def test_classes_that_look_alike_are_computed_once():
    """A background that treats all gates alike: one class, the same averages as all of them."""
    model = {"dim": 64, "experts": 2, "signal": 2.0, "off": 1.5}
    one = Evolving(**model, background=[[0.4, 0.4, 2.0]]).rates(1.0)
    all_ = Evolving(**model, background=[[0.4, 0.4 + 1e-13, 2.0]]).rates(1.0)
    assert (one.weight.size, all_.weight.size) == (512, 2 * 512)
    for law in (one, all_):
        assert law.weight.sum() == pytest.approx(1)
    for name in ("hit", "candidate_tail", "load"):
        assert one.weight @ getattr(one, name) == pytest.approx(all_.weight @ getattr(all_, name), abs=1e-10)


def test_the_stored_record_agrees_with_the_laws_of_today():
    records.judged("evolution", study.cases(settings_of("evolution", full=True)))


def test_affinity_mass_on_an_isotropic_background_is_that_of_planted_tokens():
    flow = Evolving(dim=64, experts=8, signal=2.5, noise=np.sqrt(2))
    for tokens, error in ((None, 1e-9), (50, 2e-5)):
        got = flow.adaptive(60.0, 0.7, tokens=tokens)
        assert got.kept == pytest.approx(rt.tokens.affinity_mass.kept_fraction(0.7, 64, 8, tokens=tokens), abs=error)
        assert got.success == pytest.approx(rt.tokens.affinity_mass.success(0.7, 2.5, 64, 8, tokens=tokens), abs=error)
    assert got.threshold == pytest.approx(rt.tokens.affinity_mass.threshold(0.7, 64, 8), abs=1e-9)
    np.testing.assert_allclose(got.load, 1 / 8, atol=1e-12)


def test_affinity_mass_of_a_mixture_against_the_router():
    """Each expert's fraction kept and the success rate, on a background with one expert shunned and one favoured."""
    background = [[2.0, 0.0, -2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    flow = Evolving(dim=32, experts=3, signal=3.0, background=background, share=[0.6, 0.4])
    law = flow.adaptive(1.5, 0.6, tokens=12)
    assert np.ptp(law.kept) > 0.05
    rng, samples = np.random.default_rng(7), 40_000
    drawn = flow.affinity(rng, samples, 12, 1.5)
    rate = rt.adaptive.route(drawn.values, 0.6).contains(drawn.position, drawn.expert).mean()
    assert abs(rate - law.success) < 6 * 0.5 / samples**0.5
    drawn = flow.affinity(rng, samples, 13, 1.5)
    others = drawn.values[np.arange(13) != drawn.position[:, None]].reshape(samples, 12, 3)
    part = rt.adaptive.route(others, 0.6).kept / (12 * law.load)
    assert np.all(np.abs(part.mean(axis=0) - law.kept) < 6 * part.std(axis=0) / samples**0.5)


def test_an_expert_whose_candidates_have_no_affinity_keeps_none():
    """All tokens far from both gates, on the other side: every affinity is negative."""
    flow = Evolving(dim=32, experts=2, signal=-20.0, background=[[-20.0, -20.0, 0.0]])
    for tokens in (None, 10):
        law = flow.adaptive(5.0, 0.5, tokens=tokens)
        np.testing.assert_allclose([*law.kept, law.success], 0.0, atol=1e-9)
    np.testing.assert_array_equal(law.threshold, 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mass": 0.0}, ValueError, r"mass = 0.0 must be a finite number in \(0, 1\]"),
        ({"mass": [0.5, 0.6]}, ValueError, "mass = .* must be one number"),
        ({"mass": "half"}, TypeError, "mass = 'half'"),
        ({"tokens": 0}, ValueError, "tokens = 0 must be"),
        ({"tokens": 2.5}, TypeError, "tokens = 2.5 must be"),
        ({"top": 4}, ValueError, "top = 4 must be"),
        ({"time": -1.0}, ValueError, "time = -1.0"),
        ({"time": [0.0, 1.0]}, ValueError, "time has shape"),
    ],
)
def test_bad_input_to_the_law_of_affinity_mass(arguments, error, words):
    with pytest.raises(error, match=words):
        Evolving(dim=64, experts=4, signal=1.0).adaptive(**{"time": 1.0, "mass": 0.5, **arguments})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 16}, "dim = 16"),
        ({"experts": 64}, "experts = 64"),
        ({"rate": -1.0}, "rate = -1.0"),
        ({"signal": np.inf}, "signal = inf"),
        ({"background": [0.0] * 5}, "background has shape"),
        ({"start_mean": [0.0]}, "start_mean has shape"),
        ({"share": [0.5, 0.5]}, "share has shape"),
    ],
)
def test_bad_models(change, words):
    with pytest.raises(ValueError, match=words):
        Evolving(**{"dim": 64, "experts": 4, "signal": 1.0, **change})


def test_bad_calls():
    flow = Evolving(dim=64, experts=4, signal=1.0, start=0.0)
    with pytest.raises(ValueError, match="must be positive where the start is deterministic"):
        flow.rates(0.0)
    with pytest.raises(ValueError, match="times must be"):
        flow.sample(np.random.default_rng(0), 1, 1, [1.0, 0.5])
    with pytest.raises(ValueError, match="time = -1"):
        flow.load(-1.0)
    with pytest.raises(TypeError, match="rng is a int"):
        flow.affinity(0, 1, 1, 1.0)
    assert rt.tokens.evolving.Evolving is Evolving
