"""Homogenization metrics against their definitions, and closed forms against 40-digit integrals."""

import itertools
import math

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch
from scipy import stats as reference

from resonance_theory import homogenization as hm

RNG = np.random.default_rng(5)
X = RNG.standard_normal((200, 7)) + 3.0
LABELS = RNG.integers(0, 4, 200)


def brute_scatter(x, labels):
    """Straight from the definition, one token at a time."""
    mean = x.mean(axis=0)
    between = within = 0.0
    for i in set(labels.tolist()):
        group = x[labels == i]
        centre = group.mean(axis=0)
        between += len(group) * float(((centre - mean) ** 2).sum())
        within += sum(float(((t - centre) ** 2).sum()) for t in group)
    return between, within


def test_calinski_harabasz():
    between, within = brute_scatter(X, LABELS)
    assert hm.calinski_harabasz(X, LABELS, normalized=False) == pytest.approx(between / within, rel=1e-13)
    assert hm.calinski_harabasz(X, LABELS) == pytest.approx(between / 3 / (within / 196), rel=1e-13)
    gaps = np.where(LABELS == 2, 9, LABELS)  # labels need not be contiguous
    assert hm.calinski_harabasz(X, gaps) == pytest.approx(hm.calinski_harabasz(X, LABELS), rel=1e-13)


def test_calinski_harabasz_keeps_its_digits_beside_a_large_mean():
    shifted = X + 1e6
    assert hm.calinski_harabasz(shifted, LABELS) == pytest.approx(hm.calinski_harabasz(X, LABELS), rel=1e-6)


@pytest.mark.parametrize("convert", [torch.tensor, array_api_strict.asarray])
def test_other_libraries_agree(convert):
    x, labels = convert(X), convert(LABELS)
    value = hm.calinski_harabasz(x, labels)
    assert type(value) is type(x)
    assert float(value) == pytest.approx(float(hm.calinski_harabasz(X, LABELS)), rel=1e-12)
    assert np.allclose(np.asarray(hm.centroid_cosines(x, labels)), hm.centroid_cosines(X, LABELS), atol=1e-12)
    assert float(hm.linear_cka(x, x[:, :3])) == pytest.approx(float(hm.linear_cka(X, X[:, :3])), rel=1e-12)


def test_degenerate_groups():
    with pytest.raises(ValueError, match="must name at least 2"):
        hm.calinski_harabasz(X, np.zeros(200, dtype=int))
    with pytest.raises(ValueError, match="more than the 4 experts"):
        hm.calinski_harabasz(X[:4], np.arange(4))
    assert math.isinf(hm.calinski_harabasz(np.repeat(np.eye(2), 3, axis=0), np.repeat([0, 1], 3)))
    assert math.isnan(hm.calinski_harabasz(np.ones((6, 2)), np.repeat([0, 1], 3)))
    with pytest.raises(ValueError, match="non-finite"):
        hm.calinski_harabasz(np.where(X > 5, np.nan, X), LABELS)
    with pytest.raises(TypeError, match="labels has dtype float64"):
        hm.calinski_harabasz(X, LABELS.astype(float))
    with pytest.raises(ValueError, match=r"must have shape \(200,\)"):
        hm.calinski_harabasz(X, LABELS[:-1])
    with pytest.raises(TypeError, match="x has dtype int64"):
        hm.calinski_harabasz(X.astype(int), LABELS)


def test_centroid_cosines_of_a_simplex():
    # equal groups at the corners of a simplex, whatever the common mean
    corners = np.repeat(np.eye(5), 3, axis=0) + 7.0
    cosines = hm.centroid_cosines(corners, np.repeat(np.arange(5), 3))
    assert np.allclose(cosines, np.where(np.eye(5) == 1, 1, -0.25), atol=1e-12)


def test_linear_cka():
    q, _ = np.linalg.qr(RNG.standard_normal((7, 7)))
    assert hm.linear_cka(X, 3 * X @ q - 5) == pytest.approx(1, rel=1e-12)  # rotation, scale and shift change nothing
    y = RNG.standard_normal((200, 5))
    # the definition by Gram matrices (HSIC), an independent route
    centre = np.eye(200) - 1 / 200
    k, m = centre @ X @ X.T @ centre, centre @ y @ y.T @ centre
    assert hm.linear_cka(X, y) == pytest.approx((k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum()), rel=1e-12)
    assert math.isnan(hm.linear_cka(X, np.ones((200, 2))))
    with pytest.raises(ValueError, match="the same ones"):
        hm.linear_cka(X, y[:9])


def test_linear_cka_chance():
    a, b = RNG.standard_normal((5, 3)), RNG.standard_normal((5, 4)) ** 3
    orders = list(itertools.permutations(range(5)))
    assert np.mean([hm.linear_cka(a, b[list(order)]) for order in orders]) == pytest.approx(
        float(hm.linear_cka_chance(a, b)), rel=1e-12
    )
    chance = [(hm.linear_cka(u, v), hm.linear_cka_chance(u, v)) for u, v in RNG.standard_normal((3000, 2, 12, 3))]
    gap = np.array([x - y for x, y in chance])
    assert abs(gap.mean()) < 6 * gap.std() / math.sqrt(len(gap))
    assert np.mean(chance) > 0.2  # far from 0 for so few tokens
    wide = RNG.standard_normal((6, 40))  # more features than tokens: the other Gram matrix
    gram = (np.eye(6) - 1 / 6) @ wide @ wide.T @ (np.eye(6) - 1 / 6)
    expected = np.trace(gram) ** 2 / 5 / (gram * gram).sum()
    assert hm.linear_cka_chance(wide, wide) == pytest.approx(expected, rel=1e-12)
    assert hm.linear_cka(wide, wide) == pytest.approx(1, rel=1e-12)
    assert float(hm.linear_cka_chance(torch.tensor(a), torch.tensor(b))) == pytest.approx(hm.linear_cka_chance(a, b))
    with pytest.raises(ValueError, match="at least 2"):
        hm.linear_cka_chance(a[:1], b[:1])
    assert math.isnan(hm.linear_cka_chance(a, np.ones((5, 2))))


def test_load_cv_rms():
    share, count = np.array([0.5, 0.3, 0.2]), 6
    square = 0.0  # over every outcome
    for outcome in itertools.product(range(count + 1), repeat=3):
        if sum(outcome) == count:
            square += reference.multinomial.pmf(outcome, count, share) * float(hm.load_cv(outcome)) ** 2
    assert hm.load_cv_rms(count, share) == pytest.approx(math.sqrt(square), rel=1e-12)
    assert hm.load_cv_rms(10**9, np.full(8, 0.125)) == pytest.approx(math.sqrt(7e-9), rel=1e-12)
    assert hm.load_cv_rms([4, 5, 6], share).shape == (3,)
    assert hm.load_cv_rms(5, [1.0]) == 0
    with pytest.raises(ValueError, match="share sums to"):
        hm.load_cv_rms(5, [0.5, 0.4])
    with pytest.raises(ValueError, match="tokens = 0"):
        hm.load_cv_rms(0, [1.0])


def test_load_metrics():
    load = np.array([[5, 0, 3, 2], [4, 4, 4, 4]])
    assert hm.dispatch_entropy(load) == pytest.approx([reference.entropy(row) for row in load], rel=1e-13)
    assert hm.load_cv(load) == pytest.approx([reference.variation(row) for row in load], abs=1e-15)
    pairs = np.abs(load[0][:, None] - load[0][None, :]).sum() / (2 * 16 * load[0].mean())
    assert hm.load_gini(load) == pytest.approx([pairs, 0], abs=1e-15)
    assert hm.load_gini([0, 0, 0, 9]) == pytest.approx(0.75)
    table = np.array([[3, 1, 0], [2, 2, 5]])
    joint = table / table.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    assert hm.dispatch_information(table) == pytest.approx(
        reference.entropy(joint.ravel(), independent.ravel()), rel=1e-12
    )
    assert hm.dispatch_information(np.outer([1, 2], [3, 4])) == pytest.approx(0, abs=1e-15)
    for bad in ([0, 0], [-1, 2], [np.nan, 1], 3.0):
        with pytest.raises(ValueError, match="load"):
            hm.load_cv(bad)


# --- closed forms -----------------------------------------------------------------------------------------------------


def mp_expected_max(n):
    """By its tail: E max = ∫_0^∞ (1 - Φ^n) - ∫_{-∞}^0 Φ^n, not the form the package integrates."""
    with mpmath.workdps(40):
        top = mpmath.quad(lambda t: 1 - mpmath.ncdf(t) ** n, [0, 1, 2, 4, 8, 16])
        return top - mpmath.quad(lambda t: mpmath.ncdf(-t) ** n, [0, 1, 2, 4, 8, 16])


@pytest.mark.parametrize("n", [2, 3, 8, 64, 1000, 10**6])
def test_expected_max(n):
    assert hm.expected_max(n) == pytest.approx(float(mp_expected_max(n)), rel=1e-12)


def test_mean_radius():
    """Where the ratio of gamma functions hands over to its expansion, and far from there."""
    with mpmath.workdps(40):
        for d in (1, 2, 59, 60, 61, 64, 80, 10**4, 10**9):
            ratio = mpmath.exp(mpmath.loggamma((d + mpmath.mpf(1)) / 2) - mpmath.loggamma(mpmath.mpf(d) / 2))
            assert float(hm.closed_forms._mean_radius(float(d))) == pytest.approx(
                float(mpmath.sqrt(2) * ratio), rel=1e-15, abs=0
            )


def test_published_values():
    assert hm.expected_max(8) == pytest.approx(1.42360030604528, rel=1e-14)
    assert hm.token_choice_scatter(64, 8) == pytest.approx(0.03754885280, rel=1e-9)
    assert hm.token_choice_scatter(64, 8, sphere=True) == pytest.approx(0.03785448774, rel=1e-9)
    assert hm.resonance_scatter(64, 8, [1, 0.5, 0.25]) == pytest.approx([0.0375489, 0.0556500, 0.0720643], rel=2e-6)
    assert hm.resonance_scatter(16, 8, 0.25) == pytest.approx(0.3102, abs=5e-5)
    assert hm.resonance_scatter(16, 8, 0.25, select="cosine") == pytest.approx(0.3474, abs=5e-5)


@pytest.mark.parametrize(("d", "n", "f"), [(8, 2, 0.5), (64, 8, 0.25), (100, 100, 0.01), (16, 3, 1e-6), (16, 3, 0.999)])
def test_inner_product_selection(d, n, f):
    with mpmath.workdps(30):
        u0 = mpmath.findroot(
            lambda u: mpmath.ncdf(u) ** n - (1 - mpmath.mpf(f)), float(reference.norm.ppf((1 - f) ** (1 / n)))
        )
        cuts = [u0, u0 + 1, u0 + 3, u0 + 6, u0 + 16]

        def mean(value):
            return mpmath.quad(lambda u: value(u) * n * mpmath.npdf(u) * mpmath.ncdf(u) ** (n - 1), cuts) / f

        e = mean(lambda u: u)
        b = mean(lambda u: -mpmath.npdf(u) / mpmath.ncdf(u))
        total = mean(lambda u: u * u + (n - 1) * (1 - u * mpmath.npdf(u) / mpmath.ncdf(u))) + d - n
        expected = (e - b) ** 2 * (1 - mpmath.mpf(1) / n) / (total - e * e - (n - 1) * b * b)
    assert hm.resonance_scatter(d, n, f) == pytest.approx(float(expected), rel=1e-11)


@pytest.mark.parametrize("shift", [0.0, -3.0])
@pytest.mark.parametrize(("d", "n"), [(2, 2), (64, 8), (20, 20)])
def test_skewed_scatter_without_a_mean(d, n, shift):
    for f in (1.0, 0.9, 0.3, 1e-3):
        expected = float(hm.resonance_scatter(d, n, f))
        assert hm.skewed_scatter(np.full(n, shift), d, kept=f) == pytest.approx(expected, rel=1e-12)


def test_skewed_scatter_on_sampled_tokens():
    """Every expert keeps a fraction of its own, of 400,000 tokens; what a wrong share or moment would change is 5 % and more."""
    gate, dim = np.array([1.0, 0.3, -0.5]), 4
    x = np.random.default_rng(5).standard_normal((400_000, dim))
    x[:, :3] += gate
    best = x[:, :3].argmax(axis=1)
    kept = np.array([0.2, 0.7, 1.0])
    chosen = np.zeros(len(x), dtype=bool)
    for i, f in enumerate(kept):
        mine = best == i
        chosen |= mine & (x[:, i] > np.quantile(x[mine, i], 1 - f) - 1e-12)
    between, within = hm.scatter(x[chosen], best[chosen])
    assert float(between / within) == pytest.approx(hm.skewed_scatter(gate, dim, kept=kept), rel=0.01)
    with pytest.raises(ValueError, match="gate has shape"):
        hm.skewed_scatter([1.0], dim)
    with pytest.raises(ValueError, match=r"gate\[0\] = 11.0 must be"):
        hm.skewed_scatter([11.0, 0.0], dim)
    with pytest.raises(ValueError, match="dim = 2 must be"):
        hm.skewed_scatter(gate, 2)
    with pytest.raises(ValueError, match=r"kept has shape \(2,\)"):
        hm.skewed_scatter(gate, dim, kept=[0.5, 0.5])


def test_keeping_everything_is_token_choice():
    for d, n in [(2, 2), (16, 8), (256, 16)]:
        for sphere in (False, True):
            expected = hm.token_choice_scatter(d, n, sphere=sphere)
            assert hm.resonance_scatter(d, n, 1.0, select="cosine", sphere=sphere) == pytest.approx(expected, rel=1e-12)
        # the limit f -> 1 of the Laplace route, which shares nothing with the closed form
        near = hm.resonance_scatter(d, n, 1 - 1e-9, select="cosine")
        assert near == pytest.approx(hm.token_choice_scatter(d, n), rel=1e-7)


def test_cosine_selection_on_the_circle():
    """d = n = 2 in closed form: the winner's angle is uniform on (-3π/4, π/4) about its bisector."""
    f = 0.4
    # candidates of gate e1: angles in (-3π/4, π/4); the cosine is largest at 0; the kept ones |angle| < half where
    # the measure of {cos >= a} among candidates is f, with a > 1/√2 for f <= 1/2
    half = f * math.pi / 2
    e = math.sin(half) / half
    # symmetric about the gate, so the other cosine averages to 0
    expected = e**2 / 2 / (1 - e**2)
    assert hm.resonance_scatter(2, 2, f, sphere=True) == pytest.approx(expected, rel=1e-9)
    half = 1e-3 * math.pi / 2  # few kept: 1 - cos² by its expansion in the angle
    expected = 1 / 2 / (half**2 / 3 - 2 * half**4 / 45) - 1 / 2
    assert hm.resonance_scatter(2, 2, 1e-3, sphere=True) == pytest.approx(expected, rel=1e-8)


def test_scatter_rises_as_less_is_kept():
    f = np.array([1, 0.9, 0.5, 0.2, 0.05, 0.001])
    for select in ("inner", "cosine"):
        assert np.all(np.diff(hm.resonance_scatter(64, 8, f, select=select)) > 0)


@pytest.mark.parametrize("select", ["inner", "cosine"])
def test_kept_means_against_the_tokens_themselves(select):
    d, n, f, count = 6, 3, 0.3, 200_000
    x = RNG.standard_normal((count, d))
    score = x[:, :n] if select == "inner" else x[:, :n] / np.linalg.norm(x, axis=1, keepdims=True)
    best = score.max(axis=1)
    kept = score[best > np.quantile(best, 1 - f)]
    top, total = kept.max(axis=1), kept.sum(axis=1)
    winner, other = hm.kept_means(d, n, f, select=select)
    error = np.std(top) / math.sqrt(len(kept))
    assert winner == pytest.approx(top.mean(), abs=8 * error)
    assert other == pytest.approx((total - top).mean() / (n - 1), abs=8 * np.std(total - top) / math.sqrt(len(kept)))
    assert hm.kept_means(d, n, [1.0], select=select)[1] == pytest.approx(
        -hm.kept_means(d, n, 1.0, select=select)[0] / (n - 1), rel=1e-12
    )
    assert hm.kept_means([8, 16], 4, [[0.5], [0.1]], select=select)[0].shape == (2, 2)


def test_bad_input():
    with pytest.raises(ValueError, match="experts = 9 must be a whole number between 2 and dim = 8"):
        hm.token_choice_scatter(8, 9)
    with pytest.raises(ValueError, match="kept = 0"):
        hm.resonance_scatter(8, 4, 0)
    with pytest.raises(ValueError, match=r"kept = 1e-06 must be at least 0\.0002.* for dim = 2 and experts = 2"):
        hm.resonance_scatter(2, 2, 1e-6, select="cosine")
    with pytest.raises(ValueError, match="select = 'best' must be one of inner, cosine"):
        hm.resonance_scatter(8, 4, 0.5, select="best")
