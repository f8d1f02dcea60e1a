"""Laws of dependent counts against exact enumeration, 50-digit sums and the independent case; their sampler."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.rules import random_keep, resonance, token_choice
from resonance_theory.rules.dependence import BetaBinomial, Blocks
from resonance_theory.tokens import Dependent, Rates

RNG = np.random.default_rng


def relative(got, exact):
    return float(abs(mpmath.mpf(float(got)) / exact - 1)) if exact else abs(float(got))


def block_laws(total, length, capacity, share, rho):
    """Token choice by position, resonance, kept tokens and drop, from their definitions."""

    def counts(others):
        """Law of the candidates among `others` consecutive tokens."""
        runs, rest = divmod(others, length)
        for j in range(runs + 1):
            chance = comb(runs, j) * share**j * (1 - share) ** (runs - j)
            yield length * j, chance * (1 - share)
            yield length * j + rest, chance * share

    first = sum(p for k in range(total) for n, p in counts(k) if n < capacity) / total
    best = sum(
        p * sum(comb(n, i) * rho**i * (1 - rho) ** (n - i) for i in range(min(capacity, n + 1)))
        for n, p in counts(total - 1)
    )
    drawn = sum(p * min(Fraction(1), Fraction(capacity, n + 1)) for n, p in counts(total - 1))
    keep = sum(p * min(n, capacity) for n, p in counts(total))
    return first, best, drawn, keep, sum(p * max(n - capacity, 0) for n, p in counts(total)) / (total * share)


@pytest.mark.parametrize("length", [1, 3, 8, 50])
@pytest.mark.parametrize("share", [Fraction(1, 4), Fraction(1, 2), Fraction(1)])
def test_blocks_against_enumeration(length, share):
    model = Blocks(length)
    for total in (1, 2, 7, 20):
        for capacity in sorted({1, min(2, total), max(1, total // 3), total}):
            for rho in (Fraction(0), Fraction(3, 8), Fraction(1)):
                first, best, drawn, keep, drop = block_laws(total, length, capacity, share, rho)
                at = (total, capacity, Rates(load=float(share), percentile=float(rho), counts=model))
                pairs = [
                    (token_choice.success(*at), first),
                    (token_choice.failure(*at), 1 - first),
                    (resonance.success(*at), best),
                    (resonance.failure(*at), 1 - best),
                    (random_keep.success(*at), drawn),
                    (random_keep.failure(*at), 1 - drawn),
                    (token_choice.kept(*at), keep),
                    (resonance.drop_rate(*at), drop),
                ]
                for k, (got, exact) in enumerate(pairs):
                    exact = mpmath.mpf(exact.numerator) / exact.denominator if exact else 0
                    assert relative(got, exact) < 1e-12, (total, capacity, rho, k)


@pytest.mark.parametrize(
    ("total", "load", "correlation"),
    [(5, 0.25, 0.3), (40, 0.125, 0.01), (128, 0.125, 1e-6), (128, 0.125, 0.05), (200, 0.03, 0.999), (200, 0.9, 0.6)],
)
def test_beta_binomial_against_50_digits(total, load, correlation):
    with mpmath.workdps(50):
        scale = (1 - mpmath.mpf(correlation)) / mpmath.mpf(correlation)
        a, b = mpmath.mpf(load) * scale, (1 - mpmath.mpf(load)) * scale

        def law(trials):
            return [
                mpmath.binomial(trials, j) * mpmath.beta(j + a, trials - j + b) / mpmath.beta(a, b)
                for j in range(trials + 1)
            ]

        others, everyone, model = law(total - 1), law(total), BetaBinomial(correlation)
        for capacity in sorted({1, max(1, total // 8), total // 2, total}):
            at = (total, capacity, Rates(load=load, percentile=0.7, counts=model))
            first = sum(v * min(mpmath.mpf(1), mpmath.mpf(capacity) / (j + 1)) for j, v in enumerate(others))
            lost = sum(v * mpmath.mpf(max(j + 1 - capacity, 0)) / (j + 1) for j, v in enumerate(others))
            keep = sum(v * min(j, capacity) for j, v in enumerate(everyone))
            drop = sum(v * max(j - capacity, 0) for j, v in enumerate(everyone)) / (total * mpmath.mpf(load))
            rho = mpmath.mpf(0.7)
            # P(Bin(j, ρ) <= C-1) as an incomplete beta function
            place = [
                mpmath.mpf(1)
                if j < capacity
                else 1 - mpmath.betainc(capacity, j - capacity + 1, 0, rho, regularized=True)
                for j in range(total)
            ]
            pairs = [
                (token_choice.success(*at), first),
                (random_keep.failure(*at), lost),
                (token_choice.kept(*at), keep),
                (token_choice.drop_rate(*at), drop),
                (resonance.success(*at), sum(v * w for v, w in zip(others, place))),
                (resonance.failure(*at), sum(v * (1 - w) for v, w in zip(others, place))),
            ]
            for k, (got, exact) in enumerate(pairs):
                assert relative(got, exact) < 1e-12, (capacity, k)


@pytest.mark.parametrize("model", [Blocks(1), BetaBinomial(0.0)])
def test_without_dependence_the_laws_are_the_old_ones(model):
    capacity = np.array([1, 9, 20, 40, 128])
    for rates in (Rates(experts=8, hit=0.9, percentile=0.4), Rates.planted(2.5, 64, 8)):
        alone = rates.replace(counts=model)
        for rule in (token_choice, random_keep, resonance):
            for verb in ("success", "failure", "kept", "drop_rate"):
                got, wanted = (getattr(rule, verb)(128, capacity, r) for r in (alone, rates))
                np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_extremes_and_broadcasting():
    assert token_choice.success(10, 3, Rates(experts=8, counts=BetaBinomial(1.0))) == pytest.approx(
        7 / 8 + 3 / 80, rel=1e-15
    )  # all tokens or none
    assert token_choice.success(10, 3, Rates(experts=8, counts=Blocks(9))) == pytest.approx(7 / 8 + 3 / 80, rel=1e-15)
    np.testing.assert_array_equal(
        token_choice.drop_rate(10, 3, Rates(load=[0.0, 1.0], counts=BetaBinomial(0.3))), [0.0, 0.7]
    )
    assert token_choice.success(128, [[9], [20]], Rates(experts=8, counts=Blocks([1, 4, 8]))).shape == (2, 3)
    assert np.all(np.diff(token_choice.least_capacity(0.9, 128, Rates(experts=8, counts=Blocks([1, 4, 8])))) > 0)
    big = resonance.success(10**9, 130_000_000, Rates(experts=8, percentile=[0.3, 0.99999, 1.0], counts=Blocks(100)))
    np.testing.assert_allclose(big, 1.0)
    # over-dispersion only raises the drop: a concave function of a load spread wider
    drops = token_choice.drop_rate(128, 20, Rates(experts=8, counts=BetaBinomial([0.0, 0.01, 0.1, 0.5])))
    assert np.all(np.diff(drops) > 0)


@pytest.mark.parametrize(
    ("kind", "pattern", "call"),
    [
        (ValueError, "length = 0 must be a whole number between 1 and", lambda: Blocks(0)),
        (TypeError, "length = 1.5 must be a whole number", lambda: Blocks(1.5)),
        (ValueError, r"correlation = 1.5 must be a finite number in \[0, 1\]", lambda: BetaBinomial(1.5)),
        (
            ValueError,
            "capacity = 9 must be a whole number between 1 and tokens = 8",
            lambda: token_choice.success(8, 9, Rates(experts=2, counts=Blocks(2))),
        ),
        (
            ValueError,
            r"percentile = 2.0 must",
            lambda: resonance.success(8, 3, Rates(experts=2, percentile=2, counts=Blocks(2))),
        ),
        (
            ValueError,
            r"target = 0.9 cannot be reached",
            lambda: token_choice.least_capacity(0.9, 8, Rates(experts=2, hit=0.5, counts=Blocks(2))),
        ),
        (ValueError, r"load has shape \(2,\) but must be \(4,\)", lambda: Dependent(1.0, 8, 4, load=[0.5, 0.5])),
        (ValueError, "length = 0 must be", lambda: Dependent(1.0, 8, 4, length=0)),
        (ValueError, "correlation = 1.0 must be", lambda: Dependent(1.0, 8, 4, correlation=1.0)),
        (ValueError, "for a law", lambda: Dependent(1.0, 8, 4, length=2, correlation=0.1).counts()),
    ],
)
def test_bad_arguments(kind, pattern, call):
    with pytest.raises(kind, match=pattern):
        call()


def test_sampler_has_the_counts_of_its_law():
    """Variance of the loads, runs, and skewed shares; vectors and affinities alike."""
    load = np.array([0.5, 0.25, 0.125, 0.125])
    model = Dependent(0.0, 8, 4, length=4, load=load)
    routes = model.routes(RNG(0), 20_000, 32)
    assert np.all(routes.reshape(20_000, 8, 4) == routes[:, ::4, None])
    share = (routes[..., None] == np.arange(4)).mean(axis=(0, 1))
    np.testing.assert_allclose(share, load, atol=5 * np.sqrt(0.25 / 160_000))
    scores = model.background(RNG(0), 50, 32)
    assert scores.shape == (50, 32, 4)
    urn = Dependent(0.0, 8, 4, correlation=0.2)
    number = (urn.routes(RNG(1), 40_000, 32) == 0).sum(axis=1)
    assert number.var() / (32 * 0.25 * 0.75) == pytest.approx(float(urn.counts().variance_ratio(32)), rel=0.05)
    drawn = Dependent(4.0, 32, 4, length=5).sample(RNG(2), 200, 16)
    best = rt.affinity(drawn.values, 4).argmax(axis=-1)
    rest = best[np.arange(16) != drawn.position[:, None]].reshape(200, 15)
    assert np.all(rest.reshape(200, 3, 5) == rest[:, ::5, None])
    hits = best[np.arange(200), drawn.position] == drawn.expert
    assert hits.mean() > 0.95  # .9957 expected


def test_background_percentiles_do_not_depend_on_the_route():
    """The winning affinity of a rerouted token is that of isotropic tokens (G4), for every expert."""
    scores = Dependent(0.0, 32, 4, length=3, load=[0.7, 0.1, 0.1, 0.1]).background(RNG(3), 4000, 12)
    best, winner = scores.argmax(axis=-1), scores.max(axis=-1)
    for expert in range(4):
        mine = winner[best == expert]
        level = rt.tokens.percentile(np.array([0.2]), 32, 4)
        # runs share the route only, so tokens count as independent here: six standard errors
        assert abs((mine >= 0.2).mean() - level) < 6 * 0.5 / np.sqrt(mine.size)
