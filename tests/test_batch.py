"""Pooled capacity: exact enumeration of the rivals, the single sample, and the planted rivals against other routes."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.rules import Rates, resonance, token_choice
from resonance_theory.rules.pooling import Pooled
from resonance_theory.tokens import rivals


def pooled(samples, tokens, capacity, tail, rival):
    many = samples * (tokens - 1)
    total = Fraction(0)
    for i in range(samples):
        for j in range(many + 1):
            if i + j < samples * capacity:
                total += (
                    comb(samples - 1, i) * rival**i * (1 - rival) ** (samples - 1 - i)
                    * comb(many, j) * tail**j * (1 - tail) ** (many - j)
                )  # fmt: skip
    return total


@pytest.mark.parametrize("rival", [Fraction(0), Fraction(1, 8), Fraction(1)])
@pytest.mark.parametrize("tail", [Fraction(0), Fraction(1, 16), Fraction(3, 4), Fraction(1)])
def test_resonance_against_enumeration(tail, rival):
    for samples, tokens in ((1, 1), (1, 9), (2, 1), (3, 4), (5, 8)):
        for capacity in range(1, tokens + 1):
            exact = pooled(samples, tokens, capacity, tail, rival)
            given = {"hit": 1.0, "candidate_tail": float(tail), "rival": float(rival)}
            success = Pooled(resonance, samples).success(tokens, capacity, Rates(**given))
            failure = Pooled(resonance, samples).failure(tokens, capacity, Rates(**given))
            assert success == pytest.approx(float(exact), rel=1e-12, abs=0)
            assert failure == pytest.approx(float(1 - exact), rel=1e-12, abs=0)


def test_one_sample_is_the_rule_itself():
    law = rt.tokens.planted.planted(2.5, 64, 8)
    given = {"hit": law.hit, "candidate_tail": law.candidate_tail, "weight": law.weight}
    capacity = np.array([1, 12, 40, 256])
    alone = rt.resonance.success(256, capacity, Rates(**given))
    np.testing.assert_allclose(
        Pooled(resonance, 1).success(256, capacity, Rates(rival=0.3, **given)), alone, rtol=1e-12
    )
    np.testing.assert_array_equal(
        Pooled(token_choice, 1).success(256, capacity, Rates(experts=8)),
        rt.token_choice.success(256, capacity, Rates(experts=8)),
    )
    np.testing.assert_array_equal(
        Pooled(token_choice, [1, 4]).failure(256, 40, Rates(experts=8)),
        rt.token_choice.failure([256, 1024], [40, 160], Rates(experts=8)),
    )


def test_least_capacities_are_least():
    law = rt.tokens.planted.planted(2.5, 64, 8)
    given = {"hit": law.hit, "candidate_tail": law.candidate_tail, "weight": law.weight, "rival": law.candidate_tail}
    target, samples = 0.7, np.array([1, 2, 8, 64])
    first = Pooled(token_choice, samples).least_capacity([[target], [0.95]], 128, Rates(experts=8))
    assert first.shape == (2, 4)
    assert np.all(np.diff(first) <= 0)  # pooling never hurts
    assert np.all(first[1] >= 16)  # ⌈τπs⌉, the lower bound of N9
    best = Pooled(resonance, samples).least_capacity(target, 128, Rates(**given))
    for c, rate in (
        (first[0], lambda c: Pooled(token_choice, samples).success(128, c, Rates(experts=8))),
        (best, lambda c: Pooled(resonance, samples).success(128, c, Rates(**given))),
    ):
        assert np.all(rate(c) >= target)
        assert np.all(rate(np.maximum(c - 1, 1))[c > 1] < target)
    with pytest.raises(ValueError, match=r"target = 0\.99 cannot be reached"):
        Pooled(resonance, 2).least_capacity(0.99, 8, Rates(hit=0.5, candidate_tail=0.1, rival=0.1))


def test_large_batches_reach_the_limit():
    """Hoeffding's exponent 2B(C-m)²/s leaves nothing of the failure, or of the success."""
    rates = Pooled(resonance, 10**6).success(
        64, [1, 4, 5, 9], Rates(hit=0.8, candidate_tail=1 / 16, rival=[[0.0], [0.5]])
    )
    m = 63 / 16 + np.array([[0.0], [0.5]])
    np.testing.assert_allclose(rates, np.where(np.array([1, 4, 5, 9]) > m, 0.8, 0.0), atol=1e-12)


def test_rival_of_isotropic_tokens_is_the_candidate_tail():
    a = np.array([-0.2, 0.0, 0.05, 0.2, 0.5, 0.9])
    for dim, experts in ((16, 4), (64, 8), (8, 8)):
        np.testing.assert_allclose(
            rivals.rival(a, 0.0, dim, experts), rt.tokens.candidate_tail(a, dim, experts), atol=1e-6, rtol=0
        )


def test_rival_against_the_planted_law_and_sampled_tokens():
    """The part of the own class from `sphere.planted`, all of it from two million planted tokens."""
    dim, experts, signal = 16, 4, 1.5
    law = rt.tokens.planted.planted(signal, dim, experts)
    for a in (0.1, 0.3, 0.6):
        own = float(law.weight @ (law.hit * (law.affinity >= a)))
        rest = experts * float(rivals.rival(a, signal, dim, experts)) - own
        assert 0 < rest < (experts - 1) * float(rt.tokens.candidate_tail(a, dim, experts))
    rng = np.random.Generator(np.random.Philox(11))
    x = rng.standard_normal((2_000_000, experts))
    x[np.arange(len(x)), rng.integers(experts, size=len(x))] += signal
    norm = np.sqrt(np.square(x).sum(axis=1) + rng.chisquare(dim - experts, len(x)))
    wins = x.argmax(axis=1) == 0
    for a in (-0.1, 0.05, 0.3, 0.6):
        exact = float(rivals.rival(a, signal, dim, experts))
        seen = np.count_nonzero(wins & (x[:, 0] >= a * norm)) / len(x)
        assert abs(seen - exact) < 5 * np.sqrt(exact / len(x))


@pytest.mark.parametrize(("dim", "experts", "signal", "top"), [(64, 8, 2.5, 2), (64, 8, 1.0, 3), (32, 4, 2.0, 4)])
def test_rival_of_the_best_few_against_the_law_of_tokens_with_means(dim, experts, signal, top):
    """The two routes, Laplace inversions in different variables: one serves below dim 32, the other from there on."""
    a = [-0.3, 0.0, 1e-9, 0.05, 0.2, 0.6]

    def below(value):
        own, other = (rivals._wins(value, mine, one, dim, experts, top) for mine, one in ((signal, 0.0), (0.0, signal)))
        return (own + (experts - 1) * other) / experts

    wanted = [below(value) for value in a]
    np.testing.assert_allclose(rivals.rival(a, signal, dim, experts, top=top), wanted, atol=1e-7, rtol=0)


def test_rival_of_tokens_that_stand_out():
    """Strong signals: own tokens are candidates for certain; of the others, at top 2, one competes for the second place."""
    dim, experts, signal, draws = 64, 8, 30.0, 400_000
    a = np.array([-0.1, 0.0, 0.02, 0.05, 0.5, 0.95])
    own = np.asarray(rt.tokens.affinity_tail(a, signal, dim))
    np.testing.assert_allclose(rivals.rival(a, signal, dim, experts), own / experts, atol=1e-12)
    rng = np.random.Generator(np.random.Philox(4))
    x = rng.standard_normal((draws, experts)) + signal * np.eye(experts)[0]
    norm = np.sqrt(np.square(x).sum(axis=1) + rng.chisquare(dim - experts, draws))
    second = x[:, 1:].argmax(axis=1) == 0
    seen = np.array([np.mean(second & (x[:, 1] >= v * norm)) for v in a])
    other = (experts * rivals.rival(a, signal, dim, experts, top=2) - own) / (experts - 1)
    assert np.all(np.abs(seen - other) < 6 * np.sqrt(0.12 / draws))
    assert seen[0] > 0.12


def ahead(samples, tokens, capacity, load, rival):
    """Success of token choice, place by place: samples one after another, with own tokens of another load."""

    def law(trials, chance, count):
        return comb(trials, count) * chance**count * (1 - chance) ** (trials - count)

    total = Fraction(0)
    for m in range(samples):
        for k in range(tokens):
            more = m * (tokens - 1) + k
            total += sum(
                law(m, rival, i) * law(more, load, j)
                for i in range(m + 1)
                for j in range(min(more, samples * capacity - 1 - i) + 1)
            )
    return total / (samples * tokens)


@pytest.mark.parametrize("rival", [Fraction(0), Fraction(3, 4), Fraction(1)])
@pytest.mark.parametrize("load", [Fraction(0), Fraction(1, 1024), Fraction(3, 8), Fraction(1)])
def test_token_choice_with_own_tokens_of_another_load(load, rival):
    for samples, tokens in ((1, 1), (1, 5), (2, 1), (3, 4), (5, 4)):
        capacity = np.arange(1, tokens + 1)
        exact = [ahead(samples, tokens, int(c), load, rival) for c in capacity]
        given = {"load": float(load), "rival": float(rival)}
        success = Pooled(token_choice, samples).success(tokens, capacity, Rates(experts=2, **given))
        failure = Pooled(token_choice, samples).failure(tokens, capacity, Rates(experts=2, **given))
        np.testing.assert_allclose(success, [float(v) for v in exact], rtol=1e-12)
        np.testing.assert_allclose(failure, [float(1 - v) for v in exact], rtol=1e-12)


def test_own_tokens_that_load_like_the_others_change_nothing():
    """Far into both tails, a law over the experts among the arguments."""
    load, weight = np.array([0.05, 0.125, 0.4]), np.array([0.5, 0.25, 0.25])
    samples, capacity = np.array([[1], [9], [64]]), np.array([400, 560, 2000])
    pooled = Pooled(token_choice, samples)
    for rates in (Rates(hit=[0.4, 0.8, 0.9], load=load, weight=weight), Rates(load=0.125)):
        for verb in (pooled.success, pooled.failure):
            own = rates.replace(rival=rates.load)
            np.testing.assert_allclose(verb(4096, capacity, own), verb(4096, capacity, rates), rtol=1e-11)
    least = Pooled(token_choice, 5).least_capacity(0.9, 64, Rates(experts=8, load=0.25, rival=[0.0, 1.0]))
    for c, rival in zip(least, (0.0, 1.0)):
        rates = Pooled(token_choice, 5).success(64, [c - 1, c], Rates(experts=8, load=0.25, rival=rival))
        assert rates[0] < 0.9 <= rates[1]


def test_own_tokens_of_the_evolving_model():
    """κ at one time against tokens drawn from the flow."""
    flow = rt.tokens.evolving.Evolving(32, 3, 2.5, background=[[1.0, 0.5, 0.0, 2.0]])
    drawn = flow.affinity(np.random.Generator(np.random.Philox(3)), 200_000, 1, 1.0).values[:, 0]
    for top, expert in ((1, 0), (2, 2)):  # a = -1: the load that class tokens bring
        chosen = np.sort(drawn, axis=1)[:, -top] <= drawn[:, expert]
        for a in (-1.0, 0.2, 0.4):
            exact = float(flow.rival(1.0, a, expert, top=top))
            assert abs(np.mean(chosen & (drawn[:, expert] >= a)) - exact) < 5 * np.sqrt(exact / len(drawn))
    with pytest.raises(ValueError, match="must be positive where the start is deterministic"):
        rt.tokens.evolving.Evolving(32, 3, 2.5, start=0.0).rival(0.0, 0.1)


def test_pooled_slots_on_evolving_tokens_with_unequal_loads():
    """Both laws, class by class, against batches of three samples through the routers; loads .52, .31 and .17."""
    flow = rt.tokens.evolving.Evolving(32, 3, 2.5, background=[[1.0, 0.5, 0.0, 2.0]])
    samples, tokens, trials = 3, 4, 60_000
    drawn = flow.affinity(np.random.Generator(np.random.Philox(4)), samples * trials, tokens, 1.0)
    scores = drawn.values.reshape(trials, samples * tokens, 3)
    asked = np.random.Generator(np.random.Philox(5)).integers(samples, size=trials)  # a random sample of each batch
    row = np.arange(trials) * samples + asked
    law, load = flow.rates(1.0), flow.load(1.0)
    token, expert = asked * tokens + drawn.position[row], drawn.expert[row]
    done = [rule.route(scores, samples).contains(token, expert) for rule in (rt.token_choice, rt.resonance)]
    for i, (mine, a) in enumerate(zip(np.split(np.arange(law.weight.size), 3), np.split(law.affinity, 3))):
        weight = 3 * law.weight[mine]
        nodes = Rates(hit=law.hit[mine], candidate_tail=law.candidate_tail[mine], weight=weight)
        own = Rates(hit=weight @ law.hit[mine], load=load[i], rival=flow.rival(1.0, -1.0, i))
        first = Pooled(token_choice, samples).success(tokens, 1, own)
        best = Pooled(resonance, samples).success(tokens, 1, nodes.replace(rival=flow.rival(1.0, a, i)))
        for rate, seen in zip((first, best), done):
            of_class = seen[expert == i]
            assert abs(of_class.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / of_class.size)


def test_rival_of_many_affinities_is_interpolated():
    a = np.linspace(-0.5, 0.95, 130).reshape(2, 65)
    whole = rivals.rival(a, 2.5, 24, 8)
    some = [rivals.rival(v, 2.5, 24, 8) for v in a[:, ::30].ravel()]
    np.testing.assert_allclose(whole[:, ::30].ravel(), some, atol=1e-5, rtol=0)
    assert np.all(np.diff(whole.ravel()) < 1e-8)


@pytest.mark.parametrize(
    ("kind", "pattern", "call"),
    [
        (ValueError, "samples = 0 must be", lambda: Pooled(token_choice, 0).success(8, 3, Rates(experts=2))),
        (ValueError, "capacity = 9 must be", lambda: Pooled(token_choice, 2).success(8, 9, Rates(experts=2))),
        (
            ValueError,
            "rival = 1.5 must be",
            lambda: Pooled(resonance, 2).success(8, 2, Rates(hit=1, candidate_tail=0, rival=1.5)),
        ),
        (
            TypeError,
            "samples = 1.5 must be",
            lambda: Pooled(resonance, 1.5).success(8, 2, Rates(hit=1, candidate_tail=0, rival=0)),
        ),
        (
            ValueError,
            "rival = -0.5 must be",
            lambda: Pooled(token_choice, 2).success(8, 3, Rates(experts=2, rival=-0.5)),
        ),
        (
            ValueError,
            "samples = 1025 must be",
            lambda: Pooled(token_choice, 1025).success(8, 3, Rates(experts=2, rival=0.5)),
        ),
        (ValueError, "top = 5 must be", lambda: rivals.rival(0.5, 1.0, 8, 4, top=5)),
        (ValueError, "dim = 4 must be", lambda: rivals.rival(0.5, 1.0, 4, 2)),
        (ValueError, "experts = 9 must be", lambda: rivals.rival(0.5, 1.0, 8, 9)),
        (ValueError, "affinity = 1.0 must be", lambda: rivals.rival(1.0, 1.0, 8, 4)),
        (ValueError, r"signal = 7.0 must be a finite number in \[0, 6\]", lambda: rivals.rival(0.5, 7.0, 16, 4)),
    ],
)
def test_bad_arguments(kind, pattern, call):
    with pytest.raises(kind, match=pattern):
        call()
