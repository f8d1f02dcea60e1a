"""Cells of any router: closed forms against angles, orthant integrals and sampled tokens."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from resonance_theory import homogenization as hm
from resonance_theory.homogenization import cells

RNG = np.random.default_rng(12)


def sectors(gates):
    """Two-dimensional cells by integrating over the angle: ∫ r e^{-r²/2} dr = 1 and ∫ r² e^{-r²/2} dr = sqrt(π/2)."""
    angle = (np.arange(400_000) + 0.5) * 2 * math.pi / 400_000
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    winner = (direction @ gates.T).argmax(axis=1)
    share = np.bincount(winner, minlength=len(gates)) / len(angle)
    mean = np.stack([direction[winner == i].sum(axis=0) for i in range(len(gates))]) / len(angle)
    return share, mean * math.sqrt(math.pi / 2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_plane_sectors(n):
    for _ in range(5):
        gates = RNG.standard_normal((n, 2))
        share, mean = sectors(gates)
        ours = cells.cells(gates)
        assert ours.share == pytest.approx(share, abs=2e-5)
        assert ours.mean == pytest.approx(mean, abs=2e-5)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (3, 3), (3, 7), (4, 4), (4, 50)])
def test_orthonormal_gates_give_the_known_law(n, d):
    gates = np.linalg.qr(RNG.standard_normal((d, d)))[0][:n]
    assert cells.scatter(gates) == pytest.approx((float(hm.token_choice_scatter(d, n)), 0.0), rel=1e-12)
    ours = cells.cells(gates)
    assert (gates * ours.mean).sum() == pytest.approx(float(hm.expected_max(n)), rel=1e-12)


@given(seed=st.integers(0, 2**32), n=st.integers(2, 4), d=st.integers(3, 6), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_invariances(seed, n, d, scale):
    rng = np.random.default_rng(seed)
    gates = rng.standard_normal((n, d))
    ours = cells.cells(gates)
    assert ours.share.sum() == pytest.approx(1, abs=1e-9)
    assert ours.mean.sum(axis=0) == pytest.approx(np.zeros(d), abs=1e-9)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    moved = cells.cells(scale * (gates @ turn + rng.standard_normal(d)))
    assert moved.share == pytest.approx(ours.share, abs=1e-6)
    assert moved.mean == pytest.approx(ours.mean @ turn, abs=1e-6)
    order = rng.permutation(n)
    assert cells.cells(gates[order]).mean == pytest.approx(ours.mean[order], abs=1e-9)


def test_orthant_by_integrals():
    rho = 0.35
    common = math.sqrt(rho / (1 - rho))  # equicorrelated: independent given one shared factor
    for k in (1, 2, 3):
        vectors = np.linalg.cholesky((1 - rho) * np.eye(k) + rho)
        by_factor = integrate.quad(lambda z, k=k: stats.norm.pdf(z) * stats.norm.cdf(common * z) ** k, -12, 12)[0]
        assert cells.orthant(7 * vectors) == pytest.approx(by_factor, rel=1e-9)
    assert cells.orthant(np.zeros((0, 4))) == 1
    assert cells.orthant(np.broadcast_to(np.eye(2), (5, 2, 2))) == pytest.approx(np.full(5, 0.25), rel=1e-14)
    # a wedge of angle ε, and all of a half-space but a wedge
    for turn, expected in ((math.pi - 1e-7, 1e-7 / (2 * math.pi)), (1e-7, 0.5 - 1e-7 / (2 * math.pi))):
        vectors = [[1, 0], [math.cos(turn), math.sin(turn)]]
        assert cells.orthant(vectors) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("n", "d"), [(5, 3), (8, 64)])
def test_many_gates_by_sampling(n, d):
    """Against tokens drawn in all d dimensions and the metric on data; and for orthonormal gates against the law."""
    gates = RNG.standard_normal((n, d))
    ours = cells.scatter(gates, rng=np.random.default_rng(1), draws=400_000)
    x = RNG.standard_normal((100_000, d))
    measured = hm.calinski_harabasz(x, (x @ gates.T).argmax(axis=1), normalized=False)
    assert 0 < ours.error < 0.01 * ours.ratio
    assert measured == pytest.approx(ours.ratio, rel=0.03)
    one = cells.cells(gates, rng=np.random.default_rng(2), draws=400_000)
    assert one.share.sum() == pytest.approx(1)
    shares = np.bincount((x @ gates.T).argmax(axis=1), minlength=n) / len(x)
    assert np.abs(one.share - shares).max() < 8 * np.sqrt(one.share_error**2 + 0.25 / len(x)).max()


@pytest.mark.parametrize("n", [6, 32])
def test_sampled_errors_are_honest(n):
    exact = float(hm.token_choice_scatter(40, n))
    z = [
        (s.ratio - exact) / s.error
        for seed in range(20)
        for s in [cells.scatter(np.eye(n, 40), rng=np.random.default_rng(seed), draws=20_000)]
    ]
    assert abs(np.mean(z)) < 6 / math.sqrt(20)
    assert 0.4 < np.std(z) < 2.2


def test_merging_two_of_three_gates():
    """Two gates at angle ε still split their half-space: between falls from 27/(8π) to 3/π, not to the 2/π of one split."""
    gates = np.eye(3)
    gates[1] = gates[0] + 1e-7 * gates[1]
    between = cells.scatter(gates).ratio
    assert between / (1 + between) * 3 == pytest.approx(3 / math.pi, rel=1e-6)
    best = cells.scatter(np.eye(3)).ratio
    assert best / (1 + best) * 3 == pytest.approx(27 / (8 * math.pi), rel=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="gates 0 and 2 are equal"):
        cells.cells([[1, 0], [0, 1], [1, 0]])
    with pytest.raises(ValueError, match="on a line with a third"):
        cells.cells([[0, 0], [1, 1], [2, 2]])
    with pytest.raises(ValueError, match=r"gates has shape \(3,\)"):
        cells.scatter([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="gates"):
        cells.scatter([[1.0, np.nan], [0, 1]])
    with pytest.raises(TypeError, match="rng is a NoneType"):
        cells.scatter(np.eye(5))
    with pytest.raises(ValueError, match="draws = 3"):
        cells.scatter(np.eye(5), rng=RNG, draws=3)
    with pytest.raises(ValueError, match=r"vectors has shape \(4, 4\)"):
        cells.orthant(np.eye(4))
    with pytest.raises(ValueError, match="zero vector"):
        cells.orthant([[0.0, 0.0]])
