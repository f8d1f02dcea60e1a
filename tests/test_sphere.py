"""Geometry of orthonormal gates (G1 to G5) against mpmath, closed forms, and routes that share no code with the module.

The references are direct integrals of definitions: the module's Laplace inversion, mode finding and changes of variable
are not used on the other side.
"""

import functools
import math
import subprocess
import sys
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from scipy import special, stats

from resonance_theory.tokens import _integration, candidates, caps, planted, signals

DPS = 40


def relative(value, reference):
    return abs(float(mp.mpf(float(value)) / reference - 1))


@functools.cache
def gauss_nodes(prec):
    return mp.calculus.quadrature.GaussLegendre(mp.mp).calc_nodes(4, prec)  # 24 of them


def panels(f, low, high, count):
    """Gauss-Legendre on equal panels: mpmath's own subdivision misjudges narrow peaks and tiny integrands."""
    half = (mp.mpf(high) - low) / (2 * count)
    middles = (low + (2 * i + 1) * half for i in range(count))
    return half * mp.fsum(w * f(middle + half * x) for middle in middles for x, w in gauss_nodes(mp.mp.prec))


def cap_reference(a, d):
    return mp.betainc(mp.mpf(d - 1) / 2, mp.mpf(1) / 2, 0, 1 - mp.mpf(a) ** 2, regularized=True) / 2


def density_reference(a, d):
    return (1 - a * a) ** (mp.mpf(d - 3) / 2) / mp.beta(mp.mpf(1) / 2, mp.mpf(d - 1) / 2)


# -- G1 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3, 4, 7, 16, 64, 200, 1000, 3333, 10_000])
def test_cap_and_its_logarithm(d):
    rng = np.random.default_rng(d)
    for a in [1e-12, 1e-9, 1e-6, 1e-3, 0.01, 0.1, 0.25, 0.5, 0.7071, 0.72, 0.99, 0.999999, *rng.random(6)]:
        with mp.workdps(DPS):
            q = cap_reference(a, d)
            log_q = mp.log(q)
            if q > 1e-290:
                assert relative(caps.cap(a, d), q) < 1e-12
                assert relative(caps.cap(-a, d), 1 - q) < 1e-15
            assert abs(float(caps.log_cap(a, d) - log_q)) < 1e-12 * max(1.0, abs(float(log_q)))
            # log_cap of -a is log(1 - q), to relative accuracy
            assert abs(float(caps.log_cap(-a, d) - mp.log1p(-q))) <= 1e-12 * float(-mp.log1p(-q))


def test_cap_at_the_ends_and_in_the_plane():
    assert caps.cap([-1, 0, 1], 5).tolist() == [1, 0.5, 0]
    assert caps.log_cap(1.0, 100) == -np.inf
    a = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(caps.cap(a, 2), np.arccos(a) / np.pi, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(caps.cap(a, 3), (1 - a) / 2, rtol=1e-14, atol=1e-16)


def test_log_cap_is_continuous_where_its_method_changes():
    a = np.linspace(0.3, 0.6, 20_001)  # dim 5000: the cap falls from 1e-104 to below the smallest double
    log_q = caps.log_cap(a, 5000)
    # third differences of a smooth function on this grid are below 1e-6; a seam of 1e-9 relative would show
    assert np.abs(np.diff(log_q, 4)).max() < 1e-8


def test_stirling_remainder():
    k = np.array([0.5, 1, 3, 11.5, 12, 12.5, 13, 20, 100, 1e4])
    with mp.workdps(DPS):
        for value, x in zip(_integration.stirling(k), map(mp.mpf, k)):
            true = mp.loggamma(x) - (x - 0.5) * mp.log(x) + x - mp.log(2 * mp.pi) / 2
            # below 12 by subtraction, at 12 and above by the series, whose last term there is 5e-17
            assert abs(float(value - true)) < (
                2e-15 * float(max(1, x * mp.log(x) if x > 1 else 1)) if x < 12 else 2e-17
            )


@pytest.mark.parametrize("d", [3, 8, 24, 25, 200, 3000])
def test_the_far_tail_of_a_cap_holds_near_as_well(d):
    a = np.array([0.3, 0.5, 0.8, 0.95, 0.999])
    with mp.workdps(DPS):
        for value, x in zip(caps._log_cap_far(a, np.full(5, float(d))), a):
            true = mp.log(cap_reference(x, d))
            assert abs(float(value - true)) < 2e-15 * max(10, d, float(-true))


def test_cap_bounds_hold_and_nearly_meet():
    a = np.linspace(0, 1, 2001)
    for d in (2, 3, 4, 10, 100, 1000):
        q = caps.cap(a, d)
        assert np.all(q <= caps.cap_bound(a, d) * (1 + 1e-12))
        if d >= 3:  # in the plane the exponential form has exponent dim - 1
            weaker = caps.cap_bound(a, d, kind="exponential")
            assert np.all(q <= weaker * (1 + 1e-12))
    # the exponent dim instead of dim - 1 is false in the plane: the bound must not use it there
    assert caps.cap(0.85, 2) > 0.5 * np.exp(-2 * 0.85**2 / (2 - 0.85**2))
    assert caps.cap(0.85, 2) < caps.cap_bound(0.85, 2, kind="exponential")
    # and (1 - a^2)^(dim/2) is no bound: the power form's exponent cannot be improved
    assert caps.cap(0.999, 5) > 0.5 * (1 - 0.999**2) ** 2.5


@pytest.mark.parametrize("d", [2, 3, 64, 10_000])
def test_cap_quantile_inverts(d):
    p = np.concatenate([np.logspace(-250, -2, 40), np.linspace(0.02, 0.98, 30)])
    a = caps.cap_quantile(p, d)
    slope = np.array([float(density_reference(mp.mpf(min(abs(x), 1 - 1e-16)), d)) for x in a])
    # the affinity is right to rounding: its error moves the cap by no more than slope * ulp
    assert np.all(np.abs(caps.cap(a, d) - p) <= 4e-16 * slope * np.abs(a) + 2e-12 * p)
    assert caps.cap_quantile([0, 0.5, 1], d).tolist() == [1, 0, -1]


# -- G2 ----------------------------------------------------------------------------------------------------------------


def hit_reference(theta, n, top, miss):
    def others(u):
        q = mp.erfc(u / mp.sqrt(2)) / 2
        if top == 1:
            log_all = (n - 1) * mp.log1p(-q)
            return -mp.expm1(log_all) if miss else mp.exp(log_all)
        counts = range(top, n) if miss else range(top)
        return mp.fsum(math.comb(n - 1, j) * q**j * (1 - q) ** (n - 1 - j) for j in counts)

    low, high = (min(theta / 2, 0) - 13 if miss else theta - 13), max(theta, mp.sqrt(2 * mp.log(n))) + 13
    return panels(lambda u: mp.npdf(u - theta) * others(u), low, high, 60 if top > 20 else 30)


@pytest.mark.parametrize("n", [2, 8, 1000, 1_000_000])
@pytest.mark.parametrize("theta", [0.0, 0.7, 2.5, 6.0, 25.0])
def test_hit_and_miss_rates(n, theta):
    with mp.workdps(30):
        assert relative(signals.hit_rate(theta, n), hit_reference(theta, n, 1, False)) < 1e-12
        assert relative(signals.miss_rate(theta, n), hit_reference(theta, n, 1, True)) < 1e-12


@pytest.mark.parametrize(("n", "top"), [(3, 2), (8, 2), (8, 7), (20, 5)])
def test_hit_rate_of_several_choices(n, top):
    with mp.workdps(30):
        for theta in (0.0, 1.3, 5.0):
            assert relative(signals.hit_rate(theta, n, top=top), hit_reference(theta, n, top, False)) < 1e-12
            assert relative(signals.miss_rate(theta, n, top=top), hit_reference(theta, n, top, True)) < 1e-12


@pytest.mark.parametrize(("theta", "n", "top"), [(30, 60, 50), (35, 200, 180), (45, 5, 2), (40, 8, 4)])
def test_miss_rates_to_the_edge_of_underflow(theta, n, top):
    # with several choices the own score falls far below theta / 2 before the expert is missed
    with mp.workdps(30):
        assert relative(signals.miss_rate(theta, n, top=top), hit_reference(theta, n, top, True)) < 2e-12


def test_hit_rate_known_values():
    np.testing.assert_allclose(
        signals.hit_rate([1, 2, 4], 8), [0.385480977732, 0.710998282278, 0.986350830749], rtol=0, atol=6e-13
    )
    n = np.array([1, 2, 10, 10**3, 10**6])
    np.testing.assert_allclose(signals.hit_rate(0, n), 1 / n, rtol=1e-12)
    np.testing.assert_allclose(signals.hit_rate(0, 12, top=np.arange(1, 13)), np.arange(1, 13) / 12, rtol=1e-12)
    theta = np.linspace(0, 52, 53)  # two experts: the difference of two normals
    np.testing.assert_allclose(signals.miss_rate(theta, 2), special.ndtr(-theta / np.sqrt(2)), rtol=1e-12)
    assert signals.hit_rate(3, 5, top=5) == 1
    assert signals.miss_rate(3, 5, top=5) == 0
    assert signals.hit_rate(1e150, 8) == 1
    assert signals.miss_rate([83, 1e150], 3, top=[[1], [2]]).tolist() == [[0, 0], [0, 0]]


# -- G3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [3, 10, 64, 1000])
@pytest.mark.parametrize("theta", [0, 2, 10, 40])
def test_affinity_tail(d, theta):
    nu = d - 1
    with mp.workdps(30):
        for a in (0.01, 0.3, 0.8):
            slope = mp.mpf(a) / mp.sqrt(1 - mp.mpf(a) ** 2)

            def joint(
                r, slope=slope, theta=theta
            ):  # chi density of the radius across the gate times P(gate coordinate >= slope r)
                log_chi = (
                    (nu - 1) * mp.log(r) - r * r / 2 + (1 - mp.mpf(nu) / 2) * mp.log(2) - mp.loggamma(mp.mpf(nu) / 2)
                )
                return mp.exp(log_chi) * mp.erfc((slope * r - theta) / mp.sqrt(2)) / 2

            middle = min(mp.sqrt(nu), (mp.mpf(theta) + 1) / slope)
            low, high = max(mp.mpf(0), middle - 25), mp.sqrt(nu) + 14
            tail = panels(joint, low, high, 26)
            if tail > 1e-280:
                assert relative(signals.affinity_tail(a, theta, d), tail) < 1e-12
            below = panels(lambda r, slope=slope: joint(r, -slope), max(mp.mpf(0), mp.sqrt(nu) - 14), high, 14)
            assert abs(float(signals.affinity_tail(-a, theta, d) - below)) < 1e-13


def test_affinity_tail_without_signal_is_the_cap():
    a = np.linspace(-1, 1, 51)
    for d in (2, 3, 64, 10_000):
        np.testing.assert_allclose(signals.affinity_tail(a, 0, d), caps.cap(a, d), rtol=1e-12, atol=1e-300)


def test_affinity_tail_at_zero_is_a_normal_probability():
    theta = np.array([0, 0.5, 3, 8])
    np.testing.assert_allclose(signals.affinity_tail(0.0, theta, 64), special.ndtr(theta), rtol=1e-13)


@pytest.mark.parametrize(("theta", "d"), [(0.0, 3), (1.5, 4), (2.5, 64), (30, 64), (5, 2000)])
def test_affinity_density_is_the_derivative(theta, d):
    x, w = leggauss(40)
    edges = np.linspace(-0.999, 0.999, 200 if d < 1000 else 800)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    mass = (half * w * signals.affinity_density(middle + half * x, theta, d)).sum(axis=1)
    tail = signals.affinity_tail(edges, theta, d)
    np.testing.assert_allclose(mass, tail[:-1] - tail[1:], rtol=1e-11, atol=1e-14)


def test_affinity_density_in_relative_terms():
    # Gamma(d) D_{-d}(-m), the parabolic cylinder function, is the integral of r^(d-1) exp(m r - (r^2)/2 - m^2/4)
    with mp.workdps(DPS):
        for d in (2, 3, 5, 20, 100):
            for theta in (0.5, 6, 40):
                for a in (-0.9, -0.2, 0.1, 0.6, 0.98):
                    m = mp.mpf(theta) * mp.mpf(a)
                    k = mp.mpf(d) / 2
                    tilt = mp.gamma(d) * mp.exp(m * m / 4) * mp.pcfd(-d, -m) / (2 ** (k - 1) * mp.gamma(k))
                    exact = density_reference(mp.mpf(a), d) * tilt * mp.exp(-(mp.mpf(theta) ** 2) / 2)
                    if exact > 1e-290:
                        assert relative(signals.affinity_density(a, theta, d), exact) < 3e-13


@pytest.mark.parametrize("d", [3, 10, 64, 300])
def test_false_positive(d):
    with mp.workdps(30):
        nu = mp.mpf(d - 1)
        for theta in (0, 0.5, 6, 60):
            # the angle between (S, R), two independent chi radii, has density proportional to (sin cos)^(nu - 1)
            mean = panels(
                lambda x, theta=theta: (mp.sin(x) * mp.cos(x)) ** (nu - 1) * mp.erfc(theta * mp.sin(x) / mp.sqrt(2)),
                mp.mpf(0),
                mp.pi / 2,
                40,
            ) / mp.beta(nu / 2, nu / 2)
            assert relative(signals.false_positive(theta, d), mean) < 1e-12


def test_false_positive_known_values():
    assert abs(signals.false_positive(2, 64) - 0.0798868238225) < 6e-14
    np.testing.assert_allclose(signals.false_positive(0, [2, 3, 64, 10_000]), 0.5, rtol=1e-12)
    # dim 3: B is uniform, E Q(theta sqrt U) in closed form
    theta = np.array([0.3, 2.0, 30.0])
    exact = special.ndtr(-theta) + (
        0.5 - special.ndtr(-theta) - theta * np.exp(-(theta**2) / 2) / np.sqrt(2 * np.pi)
    ) / (theta**2)
    np.testing.assert_allclose(signals.false_positive(theta, 3), exact, rtol=2e-12)


# -- G4 ----------------------------------------------------------------------------------------------------------------


def pair_reference(a, d):
    """P(two given affinities are both >= a): the first is x, the second a cap in one dimension less."""
    a = mp.mpf(a)
    if 2 * a * a >= 1:
        return mp.mpf(0)

    def inner(x):
        return density_reference(x, d) * cap_reference(a / mp.sqrt(1 - x * x), d - 1)

    # where the inner cap closes, sqrt(1 - x^2) = a cosh v makes its square root analytic
    cut = (a + mp.sqrt(1 - a * a)) / 2

    def closing(v):
        root = a * mp.cosh(v)
        x = mp.sqrt(1 - root * root)
        return inner(x) * root * a * mp.sinh(v) / x

    last = mp.acosh(mp.sqrt(1 - cut * cut) / a)
    return panels(inner, a, cut, 3) + panels(closing, 0, last, 2 + int(last / 0.8))


def triple_reference(a, d):
    """P(three given affinities are all >= a), by one more such step in double precision nodes."""
    top = np.sqrt(1 - 2 * a * a)
    t, w = leggauss(24)
    t, w = (t + 1) / 2, w / 2
    total = mp.mpf(0)
    for ti, wi in zip(t, w):
        x = a + (top - a) * ti * ti * (3 - 2 * ti)
        inner = pair_reference(mp.mpf(a) / mp.sqrt(1 - mp.mpf(x) ** 2), d - 1)
        total += mp.mpf(wi * 6 * ti * (1 - ti) * (top - a)) * density_reference(mp.mpf(x), d) * inner
    return total


@pytest.mark.parametrize("d", [3, 5, 12, 13, 49, 50, 64, 500])
def test_candidate_tail_from_pairs(d):
    # Of all affinities >= a at most 1/a^2 - 1: for a >= 1/sqrt(3) two terms suffice, for two experts always.
    with mp.workdps(25):
        for a in (0.001, 0.08, 0.3, 0.58, 0.65, 0.7):
            q, both = cap_reference(a, d), pair_reference(a, d)
            assert relative(candidates.candidate_tail(a, d, 2), q - both / 2) < 1e-12
            assert relative(candidates.candidate_tail(-a, d, 2), (1 - both) / 2) < 1e-12
            assert (
                abs(
                    float(
                        candidates.hit_given_affinity(a, d, 2)
                        - 1
                        + cap_reference(a / mp.sqrt(1 - mp.mpf(a) ** 2), d - 1)
                    )
                )
                < 1e-13
            )
            if a > 0.5774:
                n = min(d, 40)
                assert relative(candidates.candidate_tail(a, d, n), q - (n - 1) * both / 2) < 1e-12


@pytest.mark.parametrize(("d", "n"), [(4, 4), (9, 7), (20, 20), (49, 30), (50, 50), (80, 8)])
def test_candidate_tail_from_triples(d, n):
    with mp.workdps(20):
        a = 0.53
        q, two, three = cap_reference(a, d), pair_reference(a, d), triple_reference(a, d)
        pairs, triples = special.comb(n, 2), special.comb(n, 3)
        assert relative(candidates.candidate_tail(a, d, n), q - pairs / n * two + triples / n * three) < 1e-12
        assert relative(candidates.candidate_tail(a, d, n, top=2), q - triples / n * three) < 1e-12


def test_candidate_tail_in_the_plane():
    a = np.linspace(-1, 1, 401)
    angle = np.arccos(np.abs(a))
    both = np.maximum(0, 2 * angle - np.pi / 2) / (2 * np.pi)  # arc where both affinities are >= |a|
    exact = np.where(a >= 0, angle / np.pi - both / 2, (1 - both) / 2)
    np.testing.assert_allclose(candidates.candidate_tail(a, 2, 2), exact, rtol=1e-13, atol=1e-15)


def test_candidate_tail_known_value():
    assert abs(8 * candidates.candidate_tail(0.25, 64, 8) - 0.16725251085899525) < 2e-16


@pytest.mark.parametrize("d", [64, 1000, 10_000])
def test_candidate_tail_by_another_contour(d):
    # the inverse Laplace transform as it stands, on the vertical line, in 50 digits
    with mp.workdps(50):
        for n in (2, 8, d):
            for z in (0.5, 2.5, 5.5):
                a = z / np.sqrt(d)
                c = mp.mpf(d) / (2 * (1 - mp.mpf(a) ** 2))
                total, step = mp.mpf(0), mp.mpf(1) / 25
                for i in range(120 if d > 100 else 180):
                    x = i * step
                    p = mp.mpc(c, c / mp.sqrt(mp.mpf(d) / 2) * mp.sinh(x))
                    q = mp.erfc(a * mp.sqrt(p)) / 2
                    value = mp.exp(p - c - mp.mpf(d) / 2 * mp.log(p / c)) * (1 - (1 - q) ** n) * mp.cosh(x)
                    total += value.real * (1 if i else mp.mpf(1) / 2)
                scale = mp.exp(mp.loggamma(mp.mpf(d) / 2) + c - (mp.mpf(d) / 2 - 1) * mp.log(c)) / mp.sqrt(
                    mp.mpf(d) / 2
                )
                assert relative(candidates.candidate_tail(a, d, n), scale * total * step / mp.pi / n) < 1e-12


@pytest.mark.parametrize(
    ("d", "n", "top"),
    [
        (3, 3, 1),
        (6, 5, 2),
        (12, 12, 1),
        (13, 13, 3),
        (30, 30, 1),
        (49, 20, 19),
        (50, 50, 2),
        (300, 300, 8),
        (2000, 64, 32),
        (10_000, 10_000, 1),
        (10_000, 5000, 3),
    ],
)
def test_candidate_tail_is_the_integral_of_the_hits(d, n, top):
    # By definition h(a) is the integral over affinities x >= a of their density times P(candidate | x); the right side
    # lives in one dimension and one expert less, so agreement for all (d, n) is an induction down to caps.
    x, w = leggauss(40)
    kinks = np.arctanh(1 / np.sqrt(np.arange(2, min(n, 30) + 1)))
    for z in (-3.0, -1.0, 0.0, 0.7, 2.0, 5.0):
        a = z / np.sqrt(d)
        if abs(a) > 0.95:
            continue
        edges = np.arctanh(a) + 0.5 / np.sqrt(d) * np.arange(60)
        if d < 60:
            edges = np.unique(np.concatenate([edges, *[k[k > edges[0]] for k in (kinks, -kinks)]]))
        half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
        t = (x + 1) / 2  # the cubic map makes square roots at the kinks analytic
        at = np.tanh(middle - half + 2 * half * t * t * (3 - 2 * t))
        log_density = 0.5 * (d - 1) * np.log1p(-at * at) - special.betaln(0.5, 0.5 * (d - 1))
        hits = candidates.hit_given_affinity(at, d, n, top=top)
        integral = (half * w * 6 * t * (1 - t) * np.exp(log_density) * hits).sum()
        assert abs(candidates.candidate_tail(a, d, n, top=top) / integral - 1) < 1e-11


@pytest.mark.parametrize(
    ("d", "n", "top"), [(8, 8, 1), (20, 14, 3), (64, 64, 1), (64, 64, 20), (5000, 5000, 1), (5000, 100, 4)]
)
def test_candidate_tail_mixed_over_the_radius_is_binomial(d, n, top):
    # A standard normal vector has independent coordinates and an independent radius: E h(t / chi_d) n = E min(Bin, top).
    x, w = leggauss(400)
    low, high = stats.chi(d).ppf([1e-18, 0.5])[0], stats.chi(d).isf(1e-18)
    r = (low + high) / 2 + (high - low) / 2 * x
    weight = w * (high - low) / 2 * stats.chi(d).pdf(r)
    for t in (-0.6, 0.0, 0.4, 1.5, 3.0):
        inside = np.abs(t) < r
        a = np.where(inside, t / r, np.sign(t))
        mixture = n * (weight * candidates.candidate_tail(a, d, n, top=top)).sum()
        counts = np.arange(n + 1)
        binomial = (stats.binom.pmf(counts, n, special.ndtr(-t)) * np.minimum(counts, top)).sum()
        # for |t| beyond the smallest radii the integrand has a kink there: only absolute accuracy in low dimension
        assert abs(mixture / binomial - 1) < (1e-6 if d < 30 else 1e-10)


def test_candidate_tail_limits_and_order():
    a = np.linspace(-1, 1, 201)
    for d, n in ((2, 2), (5, 4), (13, 13), (40, 40), (64, 8), (300, 300)):
        tails = np.array([candidates.candidate_tail(a, d, n, top=top) for top in range(1, min(n, 6) + 1)])
        q = caps.cap(a, d)
        assert np.all(np.diff(tails, axis=0) >= -1e-15)  # more choices, more candidates
        assert np.all(np.diff(tails, axis=1) <= 1e-15)  # falls with the affinity
        assert np.all(tails <= q * (1 + 1e-13) + 1e-16)
        np.testing.assert_allclose(tails[:, 0], np.arange(1, len(tails) + 1) / n, rtol=1e-15)
        np.testing.assert_array_equal(candidates.candidate_tail(a, d, n, top=n), q)
        rare = a * a >= 0.5
        np.testing.assert_array_equal(tails[0][rare & (a > 0)], q[rare & (a > 0)])
        np.testing.assert_allclose(candidates.percentile(a, d, n), n * tails[0], rtol=1e-14)
    assert candidates.candidate_tail(0.3, 5, 1) == caps.cap(0.3, 5)


def test_candidate_tail_does_not_jump_where_the_method_changes():
    # n a^2 = 1 separates two ways of summing in low dimension
    for d, n, top in ((13, 13, 1), (30, 20, 4), (49, 49, 1), (49, 30, 25)):
        a = (1 + np.array([-1e-13, 1e-13])) / np.sqrt(n)
        h = candidates.candidate_tail(a, d, n, top=top)
        assert abs(h[1] / h[0] - 1) < 2e-12
        other = candidates.hit_given_affinity(a / np.sqrt(1 + a * a), d, n, top=top)
        assert abs(other[1] - other[0]) < 2e-12


def test_log_candidate_tail():
    a = np.array([-0.7, 0.0, 0.1, 0.3, 0.55, 0.8])
    np.testing.assert_allclose(
        candidates.log_candidate_tail(a, 64, 8, top=2), np.log(candidates.candidate_tail(a, 64, 8, top=2)), rtol=1e-12
    )
    assert candidates.log_candidate_tail(1.0, 64, 8) == -np.inf
    # dim 10^4, affinity .6: 1e-970, and h = q up to a relative 1e-1000
    assert candidates.log_candidate_tail(0.6, 10_000, 10_000) == pytest.approx(caps.log_cap(0.6, 10_000), rel=1e-13)
    assert caps.log_cap(0.6, 10_000) < -2200


def test_candidate_tail_agrees_with_simulated_directions():
    d, n, top, samples = 12, 6, 2, 400_000
    rng = np.random.default_rng(20240601)
    x = rng.standard_normal((samples, d))
    affinity = x[:, :n] / np.linalg.norm(x, axis=1, keepdims=True)
    rank = (affinity > affinity[:, :1]).sum(axis=1)
    for a in (-0.3, 0.0, 0.25, 0.5):
        count = int(((rank < top) & (affinity[:, 0] >= a)).sum())
        p = candidates.candidate_tail(a, d, n, top=top)
        # two-sided exact test; 4 tests at 2.5e-7 each
        assert min(stats.binom.cdf(count, samples, p), stats.binom.sf(count - 1, samples, p)) > 1.25e-7


def test_candidate_tail_is_fast():
    a = np.linspace(-0.5, 0.7, 4000)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        candidates.candidate_tail(a, 64, 8)
        best = min(best, time.perf_counter() - start)
    assert 4000 / best > 1e4


def test_waiting_tokens():
    a, d, n = np.array([-0.1, 0.05, 0.3, 0.8]), 64, 8
    reach = n * candidates.candidate_tail(a, d, n)
    np.testing.assert_allclose(candidates.waiting_tokens(a, d, n), 1 / reach, rtol=1e-12)
    for target in (0.1, 0.5, 0.99):
        count = candidates.waiting_tokens(a, d, n, target=target)
        assert np.all(1 - (1 - reach[:3]) ** count[:3] >= target)
        assert np.all((1 - (1 - reach[:3]) ** (count[:3] - 1) < target) | (count[:3] == 1))
        assert count[3] == pytest.approx(-np.log1p(-target) / reach[3], rel=1e-12)
    assert candidates.waiting_tokens([-1, -1, 1], 3, 2, target=[0, 0.9, 0.5]).tolist() == [1, 1, np.inf]
    assert candidates.waiting_tokens(0.6, 10_000, 8) == np.inf  # about 1e970
    # in the plane two affinities of at least .6 span an arc: P(max >= .6) = (2 arccos(.6) + pi/2) / (2 pi)
    exact = 2 * np.pi / (2 * np.arccos(0.6) + np.pi / 2)
    assert candidates.waiting_tokens(0.6, 2, 2) == pytest.approx(exact, rel=1e-14)
    # twice LocMoE's bound lies below
    assert np.all(candidates.waiting_tokens(a[1:], d, n) > 2 / n * np.exp(d * a[1:] ** 2 / (2 - a[1:] ** 2)))


# -- G5 ----------------------------------------------------------------------------------------------------------------


def within(s, c, h):
    """P(Bin(s - 1, h) <= c - 1)."""
    return special.bdtr(c - 1, s - 1, h)


def test_planted_rates_known_values():
    law = planted.planted(2.5, 64, 8)
    s, c, pi = 256, 12, 1 / 8
    token = (
        signals.hit_rate(2.5, 8) * np.minimum(1, c / (np.arange(s) + 1.0)) @ stats.binom.pmf(np.arange(s), s - 1, pi)
    )
    resonance = (law.weight * law.hit * within(s, c, law.candidate_tail)).sum()
    expert = (law.weight * within(s, c, law.false_positive)).sum()
    np.testing.assert_allclose(
        [token, resonance, expert], [0.3131985257630, 0.7581593753703, 0.7800494397366], atol=1e-12
    )


@pytest.mark.parametrize(
    ("d", "n"),
    [
        (2, 1),
        (2, 2),
        (3, 3),
        (4, 2),
        (6, 6),
        (13, 13),
        (26, 26),
        (27, 5),
        (49, 49),
        (64, 8),
        (1000, 1000),
        (10_000, 50),
    ],
)
@pytest.mark.parametrize("theta", [0.0, 0.5, 3.0, 20.0])
def test_planted_averages_are_the_marginal_rates(d, n, theta):
    for top in sorted({1, max(1, n // 3)}):
        law = planted.planted(theta, d, n, top=top)
        assert abs(law.weight.sum() - 1) < 1e-15 * 10
        assert law.weight.min() >= 0
        assert np.all(np.diff(law.affinity) >= 0)
        # hit and miss rates come from one-dimensional normal integrals, E q from a Beta law
        assert abs((law.weight * law.hit).sum() / signals.hit_rate(theta, n, top=top) - 1) < 2e-12
        assert abs((law.weight * law.false_positive).sum() / signals.false_positive(theta, d) - 1) < 2e-12
        assert np.all(law.candidate_tail <= np.minimum(law.false_positive, top / n) * (1 + 1e-12))


def test_percentile_is_uniform_given_a_hit_without_signal():
    # without signal the discriminative token is one more candidate: its percentile, given a hit, is uniform
    for d, n, top in ((3, 3, 1), (12, 5, 2), (64, 8, 1), (200, 200, 3)):
        law = planted.planted(0.0, d, n, top=top)
        rho = law.candidate_tail * n / top
        moments = [(law.weight * law.hit * rho**k).sum() * n / top for k in range(1, 5)]
        np.testing.assert_allclose(moments, 1 / np.arange(2, 6), rtol=1e-11)


def test_planted_nodes_match_an_independent_quadrature():
    theta, d, n, s, c = 1.7, 24, 6, 300, 40
    law = planted.planted(theta, d, n)
    x, w = leggauss(60)
    cuts = np.array([-1.0, *(-1 / np.sqrt(np.arange(2, 7))), 0, *(1 / np.sqrt(np.arange(6, 1, -1))), 1.0])
    half, middle = np.diff(cuts)[:, None] / 2, (cuts[1:] + cuts[:-1])[:, None] / 2
    a = middle + half * x
    f = half * w * signals.affinity_density(a, theta, d)
    direct = (f * candidates.hit_given_affinity(a, d, n) * within(s, c, candidates.candidate_tail(a, d, n))).sum()
    assert (law.weight * law.hit * within(s, c, law.candidate_tail)).sum() == pytest.approx(direct, rel=1e-11)


@pytest.mark.parametrize(("d", "n"), [(2, 2), (3, 3), (7, 7), (64, 8), (64, 64)])
@pytest.mark.parametrize(("s", "c", "nodes"), [(256, 12, 1024), (4096, 488, 1024), (10**6, 1000, 4096)])
def test_planted_error_is_as_stated(d, n, s, c, nodes):
    def success(count):
        law = planted.planted(2.5, d, n, nodes=count)
        return (law.weight * law.hit * within(s, c, law.candidate_tail)).sum()

    assert abs(success(nodes) - success(4 * nodes)) < (1e-12 if c <= 500 else 1e-9)


def test_planted_broadcasts():
    law = planted.planted([[0.5, 2.0]], 16, [[4], [8], [16]], top=2, nodes=128)
    assert {v.shape for v in (law.affinity, law.weight, law.hit, law.false_positive, law.candidate_tail)} == {
        (3, 2, 128)
    }
    single = planted.planted(2.0, 16, 8, top=2, nodes=128)
    np.testing.assert_array_equal(law.candidate_tail[1, 1], single.candidate_tail)
    np.testing.assert_array_equal(law.weight[1, 1], single.weight)
    assert planted.planted([], 16, 4).weight.shape == (0, 1024)


def test_planted_agrees_with_simulated_tokens():
    theta, d, n, s, c, samples = 2.0, 16, 4, 12, 2, 40_000
    rng = np.random.default_rng(7)
    own = rng.standard_normal((samples, d))
    own[:, 0] += theta
    own = own[:, :n] / np.linalg.norm(own, axis=1, keepdims=True)
    others = rng.standard_normal((samples, s - 1, d))
    others = others[:, :, :n] / np.linalg.norm(others, axis=2, keepdims=True)
    hit = own[:, 0] == own.max(axis=1)
    ahead = (others[:, :, 0] == others.max(axis=2)) & (others[:, :, 0] > own[:, :1])
    count = int((hit & (ahead.sum(axis=1) <= c - 1)).sum())
    law = planted.planted(theta, d, n)
    p = (law.weight * law.hit * within(s, c, law.candidate_tail)).sum()
    assert min(stats.binom.cdf(count, samples, p), stats.binom.sf(count - 1, samples, p)) > 5e-7  # false alarm 1e-6


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: caps.cap(1.1, 3), ValueError, "affinity = 1.1"),
        (lambda: caps.cap([0.1, np.nan], 3), ValueError, r"affinity\[1\] = nan"),
        (lambda: caps.cap("0.1", 3), TypeError, "affinity = '0.1'"),
        (lambda: caps.cap(0.1, 1), ValueError, "dim = 1"),
        (lambda: caps.cap(0.1, 3.0), TypeError, "dim = 3.0"),
        (lambda: caps.cap_bound(-0.1, 3), ValueError, "affinity = -0.1"),
        (lambda: caps.cap_bound(0.1, 3, kind="sharp"), ValueError, "kind = 'sharp'"),
        (lambda: caps.cap_quantile(1.5, 3), ValueError, "probability = 1.5"),
        (lambda: signals.hit_rate(-1, 8), ValueError, "signal = -1.0"),
        (lambda: signals.hit_rate(np.inf, 8), ValueError, "signal = inf"),
        (lambda: signals.hit_rate(1, 0), ValueError, "experts = 0"),
        (lambda: signals.miss_rate(1, 4, top=5), ValueError, "top = 5.*experts = 4"),
        (lambda: signals.false_positive(True, 4), TypeError, "signal = True"),
        (lambda: candidates.candidate_tail(0.1, 4, 5), ValueError, "experts = 5.*dim = 4"),
        (lambda: candidates.candidate_tail(0.1, 4, 3, top=0), ValueError, "top = 0"),
        (lambda: candidates.percentile(0.1, 4, 3, top="1"), TypeError, "top = '1'"),
        (lambda: candidates.hit_given_affinity(None, 4, 3), TypeError, "affinity = None"),
        (lambda: candidates.waiting_tokens(0.1, 4, 5), ValueError, "experts = 5.*dim = 4"),
        (lambda: candidates.waiting_tokens(0.1, 4, 3, target=1.0), ValueError, "target = 1.0"),
        (lambda: planted.planted(1, 4, 3, nodes=10), ValueError, "nodes = 10"),
        (
            lambda: planted.planted(1, 4, 3, nodes=[100, 200]),
            ValueError,
            r"nodes = \[100, 200\] must be one whole number",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1, 1),
    st.integers(2, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.floats(0, 60), st.floats(0, 1e150)),
)
def test_any_valid_arguments_give_probabilities(a, d, share, top_share, theta):
    n = max(1, int(share * min(d, 64)))
    top = 1 + int(top_share * n)
    tail = candidates.candidate_tail(a, d, n, top=top)
    assert 0 <= tail <= min(top / n, caps.cap(a, d)) + 1e-13
    for value in (
        candidates.hit_given_affinity(a, d, n, top=top),
        signals.hit_rate(theta, n, top=top),
        signals.miss_rate(theta, n, top=top),
        signals.false_positive(theta, d),
        signals.affinity_tail(a, theta, d),
    ):
        assert 0 <= value <= 1 + 1e-12


def test_scalars_and_arrays():
    assert isinstance(candidates.candidate_tail(0.1, 8, 4), float)
    assert candidates.candidate_tail([[0.1], [0.2]], [8, 16, 32], 4).shape == (2, 3)
    assert signals.hit_rate([1, 2], 8, top=[[1], [2]]).shape == (2, 2)
    assert caps.cap([], 3).shape == (0,)
    assert candidates.candidate_tail([], 8, 3).shape == (0,)


def test_import_is_light():
    code = "import sys, resonance_theory.tokens; heavy = ('torch', 'scipy.stats', 'matplotlib')"
    code += "; sys.exit(any(m in sys.modules for m in heavy))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
