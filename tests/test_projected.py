"""Gaussian tokens with a mean: against the isotropic laws, a nested quadrature without transforms, and samples."""

import numpy as np
import pytest
from scipy import integrate, special, stats

import resonance_theory as rt
from resonance_theory.evidence.statistics import equal
from resonance_theory.rules import Rates
from resonance_theory.tokens import candidates, caps
from resonance_theory.tokens.gaussian import Gaussian, sampled_rates
from resonance_theory.tokens.gaussian import rates as rates_of


def test_without_a_mean_the_isotropic_laws():
    for dim, experts in ((32, 4), (64, 8), (1000, 5)):
        token = Gaussian((0.0,) * experts, 0.0, dim)
        a = np.linspace(-6, 7, 27) / np.sqrt(dim)
        a = np.clip(a, -0.99, 0.99)
        np.testing.assert_allclose(token.false_positive(a), caps.cap(a, dim), rtol=0, atol=1e-12)
        for top in (1, 3):
            want = candidates.candidate_tail(a, dim, experts, top=top)
            np.testing.assert_allclose(token.candidate_tail(a, top=top), want, rtol=0, atol=1e-12)
        np.testing.assert_allclose(token.load(top=2), 2 / experts, rtol=1e-14)


def nested(a, gate, off, dim, nodes=300):
    """h of expert 0 of two, a > 0: both projections by Gauss-Legendre, the rest by the chi-square function."""
    x, w = special.roots_legendre(nodes)
    ratio = a / np.sqrt((1 - a) * (1 + a))
    low, high = max(0.0, gate[0] - 9.5), gate[0] + 9.5
    u = (low + (high - low) * (x + 1) / 2)[:, None]
    left = np.maximum(-u / ratio, gate[1] - 9.5)
    right = np.minimum(np.minimum(u / ratio, u), gate[1] + 9.5)
    width = np.maximum(right - left, 0.0)
    v = left + width * (x + 1) / 2
    room = np.maximum((u / ratio) ** 2 - v * v, 0.0)
    inside = stats.norm.pdf(v - gate[1]) * special.chndtr(room, dim - 2, off**2)
    return float((high - low) / 4 * (w * stats.norm.pdf(u[:, 0] - gate[0])) @ ((width * inside) @ w))


@pytest.mark.parametrize(
    ("gate", "off", "dim"),
    [
        ((1.0, 2.0), 3.0, 32),
        ((3.0, 2.5), 8.0, 64),
        ((0.5, 1.0), 20.0, 64),
        ((-1.0, -2.0), 1.0, 40),
        ((9.0, 9.5), 30.0, 256),
    ],
)
def test_candidates_against_a_nested_quadrature(gate, off, dim):
    token = Gaussian(gate, off, dim)
    centre = gate[0] / np.sqrt(dim + off**2 + np.dot(gate, gate))
    for a in (max(centre - 0.08, 0.02), max(centre + 0.08, 0.1), max(centre + 0.15, 0.2)):
        assert token.candidate_tail(a) == pytest.approx(nested(a, gate, off, dim), abs=1e-11)
    # the reference sees a mean off the gates that is 10 % longer
    assert nested(a, gate, 1.1 * off, dim) != pytest.approx(token.candidate_tail(a), rel=1e-4)


def test_false_positives_and_loads_by_single_integrals():
    gate, off, dim = (1.5, -0.5, 2.0), 4.0, 48
    token = Gaussian(gate, off, dim)

    def integral(f, low, high):
        return pytest.approx(integrate.quad(f, low, high, epsabs=1e-13, limit=400)[0], abs=1e-10)

    def false_positive(i, ratio, square):
        return integral(
            lambda r: stats.ncx2.pdf(r, dim - 1, square) * special.ndtr(gate[i] - ratio * np.sqrt(r)), 0, 400
        )

    def load(i, others):
        return integral(lambda u: stats.norm.pdf(u - gate[i]) * np.prod(special.ndtr(u - others)), -12, 14)

    for i in range(3):
        others = np.delete(gate, i)
        for a in (-0.1, 0.1, 0.3):
            want = false_positive(i, a / np.sqrt(1 - a * a), float(others @ others + off**2))
            assert token.false_positive(a, i) == want
        assert token.load()[i] == load(i, others)
        assert token.candidate_tail(-1.0, i) == load(i, others)
    assert token.load(top=2).sum() == pytest.approx(2, abs=1e-13)


def test_tails_are_ordered():
    token = Gaussian((2.0, 0.5, 1.0, 1.0), 3.0, 64)
    a = np.linspace(-1, 1, 201)
    q, h, h2 = token.false_positive(a, 1), token.candidate_tail(a, 1), token.candidate_tail(a, 1, top=2)
    for tail in (q, h, h2):
        assert np.all(np.diff(tail) <= 1e-13)
        assert tail[-1] == 0
    assert q[0] == 1
    assert np.all((h <= h2 + 1e-13) & (h2 <= q + 1e-13))
    np.testing.assert_allclose(token.candidate_tail(a, 1, top=4), q, atol=1e-13)


def test_the_joint_law_of_planted_tokens():
    joint = rates_of([Gaussian((2.5, *(0.0,) * 7), 0.0, 64)], [Gaussian((0.0,) * 8, 0.0, 64)])
    assert joint.weight.sum() == pytest.approx(1, abs=1e-14)
    rates = (
        rt.token_choice.success(256, 12, Rates(experts=8, hit=joint.hit, load=joint.load, weight=joint.weight)),
        rt.resonance.success(256, 12, joint),
        rt.expert_choice.success(256, 12, joint),
    )
    assert rates == pytest.approx((0.3131985257630, 0.7581593753703, 0.7800494397366), abs=1e-12)


def test_any_gates_without_bias():
    """Orthonormal gates in a rotated basis, against the exact law; then gates that are not orthogonal, against samples."""
    rng = np.random.default_rng(3)
    dim, a = 40, np.array([-0.05, 0.1, 0.3])
    mean = rng.standard_normal(dim) * 0.5
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:4]
    token = Gaussian(tuple(rotation @ mean), float(np.linalg.norm(mean - rotation.T @ (rotation @ mean))), dim)
    got = sampled_rates(a, mean, rotation * 3.0, rng, draws=20_000)
    exact = np.stack([token.candidate_tail(a, i) for i in range(4)], axis=-1)
    # 6.5 standard errors: an accident of 1e-10
    assert np.all(np.abs(got.candidate_tail - exact) <= 6.5 * got.candidate_tail_error + 1e-12)
    assert np.all(np.abs(got.load - token.load()) <= 6.5 * got.load_error)
    np.testing.assert_allclose(
        got.false_positive, np.stack([token.false_positive(a, i) for i in range(4)], -1), atol=1e-11
    )
    assert np.all(got.candidate_tail_error < 0.004)

    gates = rotation + 0.6 * rotation[0]
    got = sampled_rates(a, mean, gates, rng, draws=40_000, top=2)
    count = 100_000
    delta = rt.affinity(rng.standard_normal((count, dim)) + mean, gates=gates)
    rank = (delta[:, None, :] > delta[:, :, None]).sum(axis=-1)
    for i in range(4):
        for k, value in enumerate(a):
            rate = np.mean((rank[:, i] < 2) & (delta[:, i] >= value))
            error = np.hypot(got.candidate_tail_error[k, i], np.sqrt(rate * (1 - rate) / count))
            assert abs(rate - got.candidate_tail[k, i]) <= 6.5 * error
            hits = int(np.count_nonzero(delta[:, i] >= value))
            assert equal(hits, count, float(got.false_positive[k, i]), 1e-9).holds
    assert got.load.sum() == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Gaussian((), 0.0, 64), ValueError, "gate has shape"),
        (lambda: Gaussian((1.0, np.nan), 0.0, 64), ValueError, "gate\\[1\\]"),
        (lambda: Gaussian((1.0,), -1.0, 64), ValueError, "off = -1.0"),
        (lambda: Gaussian((1.0,), 0.0, 8), ValueError, "dim = 8"),
        (lambda: Gaussian((1.0,) * 33, 0.0, 32), ValueError, "33 coordinates"),
        (lambda: Gaussian((1.0,) * 32, 1.0, 32), ValueError, "off = 1.0 must be 0"),
        (lambda: Gaussian((1.0,), 0.0, 64).candidate_tail(2.0), ValueError, "affinity = 2.0"),
        (lambda: Gaussian((1.0,), 0.0, 64).false_positive(0.0, 1), ValueError, "expert = 1"),
        (lambda: Gaussian((1.0,), 0.0, 64).load(top=2), ValueError, "top = 2"),
        (lambda: rates_of([], [Gaussian((1.0,), 0.0, 64)]), TypeError, "discriminative and background"),
        (lambda: rates_of([Gaussian((1.0,), 0.0, 64)] * 2, [Gaussian((1.0,), 0.0, 64)]), ValueError, "1 gates"),
        (
            lambda: sampled_rates(0.1, np.zeros(40), np.zeros((2, 40)), np.random.default_rng(0)),
            ValueError,
            "gates\\[0\\] is zero",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
