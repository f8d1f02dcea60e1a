"""The audit against plain definitions, exact enumeration, known models, and every bad file we could think of."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import subprocess
import sys
import tracemalloc

import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file
from scipy import stats

import resonance_theory as rt
from resonance_theory import audit
from resonance_theory.audit import counts, files, measure, table
from resonance_theory.rules import Rates, dependence

RNG = np.random.default_rng


def correlated(sequences=6, tokens=40, dim=16, seed=0, mean=0.6):
    """Tokens with a common mean and a topic for each sequence: skewed loads, dependent routes."""
    rng = RNG(seed)
    topic = rng.standard_normal((sequences, 1, dim)) * 0.7
    return rng.standard_normal((sequences, tokens, dim)) + topic + mean * rng.standard_normal(dim)


def isotropic(sequences=40, tokens=128, dim=32, seed=1):
    return RNG(seed).standard_normal((sequences, tokens, dim))


# --- the definitions, token by token ----------------------------------------------------------------------------------


def unit(v):
    length = math.sqrt(math.fsum(a * a for a in v))
    return [a / length for a in v]


def dot(a, b):
    return math.fsum(p * q for p, q in zip(a, b))


def by_definition(x, gates, top, capacities, loss, centred):
    """Every key number by loops over tokens, pairs and capacities."""
    sequences, tokens, dim = x.shape
    mean = [math.fsum(x[:, :, j].ravel()) / (sequences * tokens) for j in range(dim)]
    experts = len(gates)
    gates = [unit(w) for w in gates]
    directions, chosen = [], []
    for sample in x.tolist():
        directions.append([unit([a - m * centred for a, m in zip(v, mean)]) for v in sample])
    affinity = [[[dot(v, w) for w in gates] for v in sample] for sample in directions]
    for sample in affinity:
        chosen.append([sorted(range(experts), key=lambda i, a=a: -a[i])[:top] for a in sample])
    load = [[sum(i in c for c in sample) for i in range(experts)] for sample in chosen]
    total = sequences * tokens * top
    share = [sum(row[i] for row in load) / total for i in range(experts)]

    def token_choice(capacity):
        dropped = 0
        for sample in chosen:
            room = [capacity] * experts
            for choice in sample:
                for i in choice:
                    dropped += room[i] == 0
                    room[i] -= room[i] > 0
        return dropped / total

    def expert_choice(capacity):
        left = 0
        for sample in affinity:
            taken = set()
            for i in range(experts):
                taken |= set(sorted(range(tokens), key=lambda t, i=i: -sample[t][i])[:capacity])
            left += tokens - len(taken)
        return left / (sequences * tokens)

    def least(rule):
        return next(c for c in range(1, tokens + 1) if rule(c) <= loss)

    flat = [v for sample in directions for v in sample]
    label = [c[0] for sample in chosen for c in sample]
    raw = x.reshape(-1, dim)
    centre = {i: raw[[k for k, j in enumerate(label) if j == i]].mean(axis=0) for i in set(label)}
    between = sum(label.count(i) * np.square(c - raw.mean(axis=0)).sum() for i, c in centre.items())
    within = sum(np.square(v - centre[i]).sum() for v, i in zip(raw, label))
    variance = [np.var([row[i] for row in load], ddof=1) for i in range(experts)]
    # s π(1-π) without bias: E of π̂² exceeds π² by var/(B s²)
    binomial = [
        tokens * (p * (1 - p) + v / (sequences * tokens**2)) for p, v in zip((q * top for q in share), variance)
    ]
    return {
        "load": share,
        "heaviest": max(share),
        "total_variation": sum(abs(p - 1 / experts) for p in share) / 2,
        "variation": math.sqrt(sum((p * experts - 1) ** 2 for p in share) / experts),
        "cosine": np.mean([dot(a, b) for a, b in itertools.combinations(flat, 2)]),
        "cosine_within": np.mean([dot(a, b) for s in directions for a, b in itertools.combinations(s, 2)]),
        "cosine_neighbours": np.mean([dot(a, b) for s in directions for a, b in itertools.pairwise(s)]),
        "same_expert": np.mean([a[0] == b[0] for s in chosen for a, b in itertools.pairwise(s)]),
        "same_expert_independent": sum((label.count(i) / len(label)) ** 2 for i in range(experts)),
        "median_affinity": np.median([max(a) for sample in affinity for a in sample]),
        "dispersion": sum(variance) / sum(binomial),
        "between_within": between / within,
        "calinski_harabasz": between / within * (len(label) - len(centre)) / (len(centre) - 1),
        "drops": [token_choice(c) for c in capacities],
        "left": [expert_choice(c) for c in capacities],
        "least_token_choice": least(token_choice),
        "least_expert_choice": least(expert_choice),
    }


@pytest.mark.parametrize(
    ("centred", "top", "own_gates"), [(False, 1, False), (True, 1, False), (True, 2, False), (False, 2, True)]
)
def test_every_number_against_its_definition(centred, top, own_gates):
    x = correlated(sequences=4, tokens=24, dim=12)
    gates = RNG(5).standard_normal((5, 12)) if own_gates else np.kron(np.eye(4), np.ones(3))
    n, factors = len(gates), (0.5, 1.0, 1.3, 2.0)
    report = audit.audit(
        x,
        experts=None if own_gates else 4,
        gates=gates if own_gates else None,
        center=centred,
        top=top,
        capacity_factors=factors,
        target_loss=0.05,
    )
    (layer,) = report.layers
    (r,) = layer.routings
    capacities = [math.ceil(f * top * 24 / n) for f in factors]
    want = by_definition(x, gates.tolist(), top, capacities, 0.05, centred)
    got = {
        "load": [e.value for e in r.load],
        "median_affinity": r.affinity.measured[2],
        "drops": [d.measured.value for d in r.drops],
        "left": [d.expert_choice.value for d in r.drops],
        "least_token_choice": r.token_choice.capacity,
        "least_expert_choice": r.expert_choice.capacity,
        "variation": r.variation,
        "same_expert_independent": r.same_expert_independent,
        "between_within": r.between_within,
        "calinski_harabasz": r.calinski_harabasz,
    }
    for name in want:
        value = got[name] if name in got else getattr(r, name).value
        np.testing.assert_allclose(value, want[name], rtol=1e-11, atol=1e-13, err_msg=name)
    assert [d.capacity for d in r.drops] == capacities
    assert r.correlation.value == pytest.approx((r.dispersion.value - 1) / 23, rel=1e-12)
    assert (r.affinity.isotropic is None) == own_gates
    assert r.resonance == r.token_choice


@pytest.mark.parametrize("top", [1, 3])
def test_losses_are_those_of_the_routers(top):
    x = correlated(sequences=5, tokens=64, dim=24)
    r = audit.audit(x, experts=6, top=top, center=False).layers[0].routings[0]
    scores = rt.affinity(x, 6)
    for drop in r.drops:
        for rule in (rt.token_choice, rt.resonance):
            sent = rule.route(scores, drop.capacity, top=top)
            assert drop.measured.value == pytest.approx(1 - sent.kept.sum() / (5 * 64 * top), abs=1e-14)
        left = rt.expert_choice.route(scores, drop.capacity).dropped.size / (5 * 64)
        assert drop.expert_choice.value == pytest.approx(left, abs=1e-14)


@pytest.mark.parametrize("sequences", [2, 5])
def test_errors_are_those_of_leaving_each_sequence_out(sequences):
    x = correlated(sequences=sequences, tokens=48)
    full = audit.audit(x, experts=4, center=False).layers[0].routings[0]
    parts = [
        audit.audit(np.delete(x, b, axis=0), experts=4, center=False).layers[0].routings[0] for b in range(sequences)
    ]
    names = {
        "heaviest": lambda r: r.heaviest,
        "total_variation": lambda r: r.total_variation,
        "cosine": lambda r: r.cosine,
        "cosine_within": lambda r: r.cosine_within,
        "cosine_neighbours": lambda r: r.cosine_neighbours,
        "same_expert": lambda r: r.same_expert,
        "load": lambda r: r.load[1],
        "drop": lambda r: r.drops[0].measured,
        "left": lambda r: r.drops[1].expert_choice,
        "dispersion": lambda r: r.dispersion,
    }
    for name, pick in names.items():
        if name == "dispersion" and sequences == 2:
            assert full.dispersion.error is None  # one sequence has no variance
            continue
        values = np.array([pick(r).value for r in parts])
        error = math.sqrt((sequences - 1) / sequences * np.square(values - values.mean()).sum())
        assert pick(full).error == pytest.approx(error, rel=1e-9, abs=1e-12), name
    for pick in (lambda r: r.token_choice, lambda r: r.expert_choice):
        capacities = [pick(r).capacity for r in parts]
        assert (pick(full).low, pick(full).high) == (min(capacities), max(capacities))


def test_held_out_centring_uses_the_other_sequences():
    x = correlated(sequences=5, tokens=40)
    r = audit.audit(x, experts=4, center=True).layers[0].routings[0]
    load = []
    for b in range(5):
        mean = np.delete(x, b, axis=0).mean(axis=(0, 1))
        load.append(rt.token_choice.route(rt.affinity(x[b], 4, center=mean), 40).load)
    load = np.array(load)
    assert r.held_out_heaviest == load.sum(axis=0).max() / load.sum()
    lost = [np.maximum(load - c, 0).sum() / load.sum() for c in range(41)]
    assert r.held_out_capacity == next(c for c in range(41) if lost[c] <= 0.01)
    raw = audit.audit(x, experts=4, center=False).layers[0].routings[0]
    assert raw.held_out_capacity is None


# --- the laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [1e-9, 1e-3, 0.05, 0.4, 0.99])
def test_beta_binomial_drop_is_that_of_the_beta_binomial(correlation):
    share, s = np.array([0.5, 0.3, 0.15, 0.05, 0.0]), 40
    mpmath.mp.dps = 50
    want = [mpmath.mpf(0)] * (s + 1)
    for p in map(mpmath.mpf, share[share > 0].tolist()):
        scale = 1 / mpmath.mpf(correlation) - 1
        a, b = p * scale, (1 - p) * scale
        mass = [mpmath.binomial(s, k) * mpmath.beta(k + a, s - k + b) / mpmath.beta(a, b) for k in range(s + 1)]
        want = [want[c] + sum((k - c) * mass[k] for k in range(c + 1, s + 1)) / s for c in range(s + 1)]
    got = counts.beta_binomial_drop(s, share, correlation)
    np.testing.assert_allclose(got, [float(v) for v in want], rtol=1e-12)


def test_beta_binomial_drop_at_its_ends():
    share, s = np.array([0.45, 0.35, 0.2]), 50
    capacity = np.arange(1, s + 1)
    np.testing.assert_allclose(
        counts.beta_binomial_drop(s, share, 0.0)[1:], counts.binomial_drop(s, share, capacity), rtol=1e-11, atol=1e-300
    )
    # all tokens of a sequence together: an expert gets s or 0
    np.testing.assert_allclose(counts.beta_binomial_drop(s, share, 1.0)[1:], 1 - capacity / s, atol=1e-14)
    # one expert takes all
    np.testing.assert_allclose(
        counts.beta_binomial_drop(s, np.array([1.0, 0.0]), 0.3)[1:], 1 - capacity / s, atol=1e-14
    )


@pytest.mark.parametrize("tokens", [40, 41])
def test_blocks_drop_is_that_of_runs_of_the_given_variance(tokens):
    share, capacity = np.array([0.5, 0.3, 0.2, 0.0]), np.arange(1, tokens + 1)
    length = np.arange(1, tokens + 1)
    ratio = [(tokens // m * m**2 + (tokens % m) ** 2) / tokens for m in length]
    drops = []
    for m in length:
        runs = [m] * (tokens // m) + [tokens % m] * int(tokens % m > 0)
        want = np.zeros(tokens)
        for p in share[share > 0]:
            law = np.ones(1)  # of the load: one run after the other
            for run in runs:
                law = np.convolve(law, np.concatenate([[1 - p], np.zeros(run - 1), [p]]))
            want += [(law * np.maximum(np.arange(tokens + 1) - c, 0)).sum() / tokens for c in capacity]
        drops.append(want)
        np.testing.assert_allclose(
            counts.blocks_drop(tokens, share, ratio[m - 1], capacity), want, rtol=1e-10, atol=1e-14
        )
    between = counts.blocks_drop(tokens, share, 0.25 * ratio[4] + 0.75 * ratio[5], capacity)
    np.testing.assert_allclose(between, 0.25 * drops[4] + 0.75 * drops[5], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(
        counts.blocks_drop(tokens, share, 10.0 * tokens, capacity), drops[-1], rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(
        counts.blocks_drop(tokens, share, 1.0, capacity),
        counts.binomial_drop(tokens, share, capacity),
        rtol=1e-10,
        atol=1e-14,
    )


def test_a_fit_predicts_and_asks_for_the_least_capacity():
    load = RNG(3).multinomial(60, [0.4, 0.3, 0.2, 0.1], size=9) + RNG(4).integers(0, 9, (9, 4))
    tokens = 96
    fitted = counts.fit(load, tokens, 1)
    capacity = np.arange(1, tokens + 1)
    variance = load.var(axis=0, ddof=1)
    share = load.mean(axis=0) / tokens
    binomial = tokens * (share * (1 - share) + variance / (9 * tokens**2))
    assert fitted.ratio == pytest.approx(max(1.0, variance.sum() / binomial.sum()), rel=1e-12)
    for model in fitted.models:
        drop = fitted.drop(model, capacity)
        assert np.all(np.diff(drop) <= 1e-15)
        least = fitted.least(model, 0.01)
        assert drop[least - 1] <= 0.01 * (1 + 1e-12)
        assert least == 1 or drop[least - 2] > 0.01
    assert fitted.for_new().ratio == pytest.approx(fitted.ratio * 10 / 9, rel=1e-14)
    assert fitted.for_new().least("beta_binomial", 0.01) >= fitted.least("beta_binomial", 0.01)
    assert counts.fit(load[:1], tokens, 1).models == ("uniform", "measured_load")


def test_a_new_load_varies_about_the_estimated_share_as_the_fit_for_new_says():
    model = rt.tokens.samplers.Dependent(0.0, 8, 4, correlation=0.05)
    load = (model.routes(RNG(1), 40_000, 64)[..., None] == np.arange(4)).sum(axis=1).reshape(8000, 5, 4)
    fitted, new = load[:, :4], load[:, 4]
    square = np.square(new - fitted.mean(axis=1)).mean() / (64 * 0.25 * 0.75)
    assert square == pytest.approx(float(model.counts().variance_ratio(64)) * 5 / 4, rel=0.04)


def test_held_out_judgement_against_its_definition():
    """Fit on a half, centre by its mean, judge on the rest: the same numbers from library calls alone."""
    x = correlated(sequences=6, tokens=40)
    report = audit.audit(x, experts=4, capacity_factors=(1.0, 1.5), target_loss=0.05)
    halves = measure._halves(measure.Layer("x", "x", x.shape, "float64", x), np.arange(6))
    assert len(halves) == 16
    assert np.all(halves[::2] == ~halves[1::2])
    assert np.all(halves.sum(axis=1) == 3)
    assert len({h.tobytes() for h in halves}) == 16
    for r in report.layers[0].routings:
        found = {}
        for half in halves:
            mean = x[half].mean(axis=(0, 1)) if r.centred else np.zeros(16)
            load = rt.token_choice.route(rt.affinity(x - mean, 4), 40).load
            fitted, other = load[half], load[~half]
            share = fitted.mean(axis=0) / 40
            ratio = counts.fit(fitted, 40, 1).ratio * (1 + 1 / 3)  # a new load, and the error of the shares
            lost = np.array([np.maximum(other - c, 0).sum() / other.sum() for c in range(41)])
            laws = {
                "uniform": rt.token_choice.failure(40, np.arange(1, 41), Rates(experts=4)),
                "measured_load": rt.token_choice.failure(40, np.arange(1, 41)[:, None], Rates(experts=4, load=share))
                @ share,
                "beta_binomial": rt.token_choice.drop_rate(
                    40,
                    np.arange(1, 41)[:, None],
                    Rates(experts=4, load=share, counts=dependence.BetaBinomial((ratio - 1) / 39)),
                )
                @ share,
            }
            for model, law in laws.items():
                least = int(np.argmax(law <= 0.05)) + 1
                gap = law[[9, 14]] - lost[[10, 15]]
                found.setdefault(model, []).append((np.abs(gap).mean(), gap.mean(), least, lost[least]))
        assert r.splits == 8
        assert [h.model for h in r.held_out] == ["uniform", "measured_load", "beta_binomial", "blocks"]
        for h in r.held_out[:3]:
            want = np.mean(found[h.model], axis=0)
            np.testing.assert_allclose((h.error.value, h.bias, h.capacity, h.loss), want, rtol=1e-9, atol=1e-12)
            assert h.worst == max(row[-1] for row in found[h.model])


def jackknife(without):
    without = np.asarray(without)
    return np.sqrt((len(without) - 1) * np.square(without - without.mean(axis=0)).mean(axis=0))


def test_errors_of_the_predictions_against_their_definition():
    """Every law fitted anew without each sequence: its gap to the measured drop, and its error on the other half."""
    x = correlated(sequences=7, tokens=40)
    report = audit.audit(x, experts=4, center=False, capacity_factors=(1.0, 1.5), target_loss=0.05)
    load = rt.token_choice.route(rt.affinity(x, 4), 40).load
    capacity = np.array([10, 15])
    r = report.layers[0].routings[0]

    def gap(model, fitted, judged, new):
        share = fitted.mean(axis=0) / 40
        lost = np.array([np.maximum(judged - c, 0).sum() / judged.sum() for c in capacity])
        if model == "measured_load":
            return rt.token_choice.failure(40, capacity[:, None], Rates(experts=4, load=share)) @ share - lost
        ratio = counts.fit(fitted, 40, 1).ratio * (1 + 1 / len(fitted) if new else 1)
        law = dependence.BetaBinomial((ratio - 1) / 39)
        at = Rates(experts=4, load=share, counts=law)
        return rt.token_choice.drop_rate(40, capacity[:, None], at) @ share - lost

    halves = measure._halves(measure.Layer("x", "x", x.shape, "float64", x), np.arange(7))
    errors = {}
    for model in ("measured_load", "beta_binomial"):
        value = gap(model, load, load, False)
        without = [gap(model, np.delete(load, k, 0), np.delete(load, k, 0), False) for k in range(7)]
        for k, drop in enumerate(r.drops):
            found = drop.gaps[model]
            assert found.value == pytest.approx(value[k], abs=1e-12)
            assert found.error == pytest.approx(jackknife(without)[k], rel=1e-9)
            assert drop.covers(model) == (abs(value[k]) <= 3 * jackknife(without)[k])
        errors[model] = [
            np.mean([np.abs(gap(model, load[h & (k != keep)], load[~h & (k != keep)], True)).mean() for h in halves])
            for k in range(-1, 7)
            for keep in [np.arange(7)]
        ]
    by_model = {h.model: h for h in r.held_out}
    for model, rows in errors.items():
        assert by_model[model].error.value == pytest.approx(rows[0], rel=1e-9)
        assert by_model[model].error.error == pytest.approx(jackknife(rows[1:]), rel=1e-9)
    difference = np.subtract(errors["beta_binomial"], errors["measured_load"])
    assert by_model["beta_binomial"].against.value == pytest.approx(difference[0], abs=1e-12)
    assert by_model["beta_binomial"].against.error == pytest.approx(jackknife(difference[1:]), rel=1e-9)
    assert by_model["measured_load"].against is None


def test_few_sequences_give_no_error_of_the_held_out_judgement():
    r = audit.audit(correlated(sequences=5, tokens=40), experts=4, center=False).layers[0].routings[0]
    assert all(h.error.error is None for h in r.held_out)
    assert (
        " ± "
        not in audit.audit(correlated(sequences=5, tokens=40), experts=4)
        .table()
        .split("error of the drop")[-1]
        .split("\n\n")[0]
    )


@pytest.mark.parametrize(
    ("model", "best"), [({"length": 8}, "blocks"), ({"correlation": 0.06}, "beta_binomial"), ({}, "measured_load")]
)
def test_held_out_errors_tell_the_true_model(model, best):
    """Tokens of a known dependence: the over-dispersed laws cover the measured drop, and where tokens are dependent the
    binomial law does not; capacities fitted on half of the sequences hold on the others."""
    load = [0.4, 0.3, 0.2, 0.1]
    drawn = rt.tokens.samplers.Dependent(0.0, 8, 4, load=load, **model)
    route = drawn.routes(RNG(5), 60, 128)
    x = rt.tokens.samplers.isotropic(RNG(6), 60, 128, 8) * 0.01
    x.reshape(60, 128, 4, 2)[np.arange(60)[:, None], np.arange(128), route] += 1.0  # GrAP sends it there
    report = audit.audit(x, experts=4, center=False, capacity_factors=(1.0, 1.5, 2.0), target_loss=0.02)
    r = report.layers[0].routings[0]
    right = ["beta_binomial", "blocks"] + ["measured_load"] * (not model)
    gaps = [d.gaps[name] for d in r.drops if d.measured.error for name in right]
    assert all(abs(gap.value) < 6 * gap.error for gap in gaps)
    held_out = {h.model: h for h in r.held_out}
    assert held_out[best].error.value < 0.02
    assert held_out[best].loss < 0.03
    if model:
        assert any(d.covers("measured_load") is False for d in r.drops)
        assert held_out["measured_load"].error.value > 2 * held_out[best].error.value
        assert held_out["measured_load"].loss > 0.03
        assert held_out["uniform"].loss > held_out["measured_load"].loss


def test_least_capacity_at_the_loss_itself():
    assert counts.least(0.01, np.array([1, 0.0101, 0.01, 0])) == 2
    assert counts.least(0.01, np.array([[1, 0.010001, 0.0], [1, 0.0, 0.0]])).tolist() == [2, 1]
    assert counts.least(0.3, np.array([1, 0.1 + 0.2, 0])) == 1  # 0.30000000000000004


def test_binomial_drop_against_enumeration():
    share, s = np.array([0.5, 0.3, 0.2]), 5
    for c in range(1, s + 1):
        lost = 0.0
        for route in itertools.product(range(3), repeat=s):
            lost += math.prod(share[list(route)]) * sum(max(route.count(i) - c, 0) for i in range(3)) / s
        assert counts.binomial_drop(s, share, np.array([c]))[0] == pytest.approx(lost, abs=1e-15)


def test_dispersion_is_unbiased_on_either_side():
    """Over all outcomes of two independent multinomial sequences: expected variance = expected binomial variance."""
    share, s = (0.6, 0.3, 0.1), 3
    outcomes: dict[tuple[int, ...], float] = {}
    for route in itertools.product(range(3), repeat=s):
        key = tuple(route.count(i) for i in range(3))
        outcomes[key] = outcomes.get(key, 0) + math.prod(share[i] for i in route)
    above = below = 0.0
    for (a, p), (b, q) in itertools.product(outcomes.items(), repeat=2):
        pair = np.array([a, b], dtype=float)
        ratio, _ = counts.dispersion(s, np.array(2.0), pair.sum(axis=0), np.square(pair).sum(axis=0))
        variance = pair.var(axis=0, ddof=1).sum()
        above += p * q * variance
        mean = pair.mean(axis=0) / s
        below += p * q * (variance / ratio if variance else s * (mean * (1 - mean)).sum())
    truth = s * sum(p * (1 - p) for p in share)
    assert above == pytest.approx(truth, rel=1e-12)
    assert below == pytest.approx(truth, rel=1e-12)


def test_dispersion_recovers_the_correlation():
    rng, rho = RNG(3), 0.08
    share = np.array([0.4, 0.3, 0.2, 0.1])
    load = np.array([rng.multinomial(100, rng.dirichlet(share * (1 / rho - 1))) for _ in range(4000)])
    square = np.square(load).sum(axis=0).astype(float)
    _, found = counts.dispersion(100, np.array(4000.0), load.sum(axis=0).astype(float), square)
    assert found == pytest.approx(rho, rel=0.08)  # standard error about 2 %


def test_blocks_of_equal_tokens_multiply_the_variance_by_their_size():
    """m copies of each token: N = m Bin(s/m, π), so D = m (N11's correlated blocks)."""
    m = 8
    x = np.repeat(isotropic(sequences=200, tokens=16, dim=16, seed=4), m, axis=1)
    r = audit.audit(x, experts=4, center=False).layers[0].routings[0]
    assert abs(r.dispersion.value - m) < 5 * r.dispersion.error
    assert r.dispersion.error < 0.1 * m
    assert r.correlation.value == pytest.approx((r.dispersion.value - 1) / 127)
    assert r.cosine_neighbours.value > 0.85
    assert r.same_expert.value > 0.85
    exact_at_one = sum(max(m * k - 32, 0) * stats.binom.pmf(k, 16, 0.25) for k in range(17)) / 32
    for drop in r.drops:
        exact = sum(max(m * k - drop.capacity, 0) * stats.binom.pmf(k, 16, 0.25) for k in range(17)) / 32
        assert abs(drop.measured.value - exact) < 5 * drop.measured.error
        # the beta-binomial has the blocks' variance, not their law: close, where the binomial is far off
        assert abs(drop.beta_binomial - exact) < 0.02
    assert r.drops[0].measured_load < exact_at_one / 2
    assert r.token_choice.beta_binomial > r.token_choice.measured_load


def test_isotropic_tokens_obey_the_theory():
    x = isotropic(sequences=300, tokens=64, dim=32)
    r = audit.audit(x, experts=8, center=False).layers[0].routings[0]
    assert r.p_uniform > 1e-3
    assert abs(r.dispersion.value - 1) < 5 * r.dispersion.error
    assert abs(r.cosine.value) < 5 * r.cosine.error
    for drop in r.drops:
        assert abs(drop.measured.value - drop.uniform) < 5 * (drop.measured.error or 0) + 1e-4
    # Kolmogorov: P(distance > sqrt(ln(2/α)/2N)) <= α
    assert r.affinity.kolmogorov < math.sqrt(math.log(2e6) / (2 * 300 * 64))
    np.testing.assert_allclose(r.affinity.measured, r.affinity.isotropic, atol=0.01)
    assert r.same_expert.value == pytest.approx(r.same_expert_independent, abs=5 * r.same_expert.error)


def test_isotropic_limits_of_expert_choice_and_scatter():
    report = audit.audit(isotropic(sequences=4, tokens=4096, dim=64), experts=8, center=False)
    (layer,) = report.layers
    (r,) = layer.routings
    for drop in r.drops[:3]:
        assert drop.expert_choice.value == pytest.approx(drop.expert_choice_isotropic, abs=0.012)
    assert r.drops[0].expert_choice_isotropic == pytest.approx(0.338, abs=5e-4)  # N3: n = 8, d = 64
    assert r.between_within == pytest.approx(layer.between_within_isotropic, rel=0.06)


def test_kolmogorov_distance_sees_what_is_not_isotropic():
    x = correlated(sequences=20, tokens=64, dim=16)
    r = audit.audit(x, experts=4, center=False).layers[0].routings[0]
    assert r.affinity.kolmogorov > 0.1


# --- the test of the uniform load -------------------------------------------------------------------------------------


def test_relabelling_against_all_relabellings():
    load = np.array([[6, 1, 2], [5, 0, 4], [4, 4, 1]])
    spread, distance = [], []
    for relabel in itertools.product(itertools.permutations(range(3)), repeat=3):
        total = sum(row[list(p)] for row, p in zip(load, relabel))
        spread.append(np.square(total - 9).sum())
        distance.append(np.abs(total / 27 - 1 / 3).sum() / 2)
    observed = np.square(load.sum(axis=0) - 9).sum()
    p, by_chance, draws = counts.relabelled(load)
    exact = np.mean(np.array(spread) >= observed)
    assert abs(p - exact) < 5 * math.sqrt(exact * (1 - exact) / draws) + 1 / draws
    assert by_chance == pytest.approx(np.mean(distance), rel=0.03)


def test_relabelling_keeps_its_level_where_chi_square_does_not():
    """Dependent tokens, no favoured expert: p <= .05 at most 5 % of the time; a chi-square test over tokens cries wolf."""
    rng, trials = RNG(9), 300
    ours = naive = 0
    for _ in range(trials):
        load = 16 * rng.multinomial(16, np.full(6, 1 / 6), size=8)  # blocks of 16 tokens share a route
        total = load.sum(axis=0)
        naive += stats.chisquare(total).pvalue <= 0.05
        shuffled = rng.permuted(np.broadcast_to(load, (199, 8, 6)), axis=-1).sum(axis=1)
        assert shuffled.shape == (199, 6)
        ours += counts.relabelled(load, seed=int(rng.integers(2**31)))[0] <= 0.05
    assert stats.binom.sf(ours - 1, trials, 0.05) > 1e-6
    assert naive > 0.8 * trials


def test_relabelling_finds_a_favoured_expert():
    load = RNG(2).multinomial(256, [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], size=8)
    p, by_chance, draws = counts.relabelled(load)
    assert p == 1 / (1 + draws)
    assert by_chance < 0.1


def test_one_sequence_admits_no_test():
    assert counts.relabelled(np.array([[9, 1, 0]])) is None
    report = audit.audit(isotropic(sequences=1, tokens=64)[0], experts=4)
    for r in report.layers[0].routings:
        assert r.p_uniform is None
        assert r.dispersion is None
        assert r.heaviest.error is None
        assert r.token_choice.low is None
        assert all(d.beta_binomial is None and d.blocks is None for d in r.drops)
        assert r.held_out is None
        assert r.splits == 0
    assert "One sequence" in report.table()
    report.figure(io.BytesIO())
    json.dumps(report.to_json(), allow_nan=False)


# --- reading ----------------------------------------------------------------------------------------------------------


def numbers(report):
    """The report without what depends on the file."""
    record = report.to_json()
    del record["source"], record["ignored"], record["metadata"], record["provenance"]
    for layer in record["layers"]:
        del layer["name"], layer["dtype"]
    return record


def bfloat16(x):
    return (np.ascontiguousarray(x, dtype="<f4").view("<u4") >> 16).astype("<u2")


def raw_safetensors(path, tensors):
    """A safetensors file by hand: {name: (dtype, array)}."""
    header, body = {}, b""
    for name, (dtype, array) in tensors.items():
        part = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(body), len(body) + len(part)]}
        body += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_all_types_and_layouts_give_the_same_audit(tmp_path):
    x = correlated(sequences=3, tokens=20, dim=8)
    x = (bfloat16(x).astype(np.uint32) << 16).view(np.float32)  # exact in all but float16
    want = numbers(audit.audit(x, experts=4))
    written = {
        "single": x,
        "double": x.astype(np.float64),
        "big": x.astype(">f4"),
        "fortran": np.asfortranarray(x.astype(np.float64)),
    }
    for name, array in written.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert numbers(audit.audit(tmp_path / f"{name}.npy", experts=4)) == want, name
    save_file({"h": x}, tmp_path / "single.safetensors")
    assert numbers(audit.audit(str(tmp_path / "single.safetensors"), experts=4)) == want
    raw_safetensors(tmp_path / "brain.safetensors", {"h": ("BF16", bfloat16(x))})
    brain = audit.audit(tmp_path / "brain.safetensors", experts=4)
    assert numbers(brain) == want
    assert brain.layers[0].dtype == "bfloat16"
    half = x.astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    assert numbers(audit.audit(tmp_path / "half.npy", experts=4)) == numbers(audit.audit(half.astype(float), experts=4))


def test_bfloat16_as_torch_writes_it(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    x = torch.tensor(correlated(sequences=2, tokens=16, dim=8)).to(torch.bfloat16)
    save_torch({"h": x}, tmp_path / "t.safetensors")
    assert numbers(audit.audit(tmp_path / "t.safetensors", experts=4)) == numbers(
        audit.audit(x.double().numpy(), experts=4)
    )


def test_layers_in_natural_order_and_the_rest_named(tmp_path):
    x = correlated(sequences=2, tokens=16, dim=8).astype(np.float32)
    save_file(
        {
            "layer.10": x,
            "layer.9": np.concatenate([x, x], axis=2),
            "layer.2": x[0],
            "ids": np.ones((2, 16), dtype=np.int64),
            "mask": np.ones((2, 16), dtype=bool),
            "bias": x[0, 0],
            "scale": np.array(2, dtype=np.float32),
            "images": np.ones((2, 2, 2, 2), dtype=np.float32),
        },
        tmp_path / "m.safetensors",
        metadata={"model": "toy"},
    )
    report = audit.audit(tmp_path / "m.safetensors", experts=4)
    assert [layer.name for layer in report.layers] == ["layer.2", "layer.9", "layer.10"]
    assert [(layer.sequences, layer.tokens, layer.dim) for layer in report.layers] == [
        (1, 16, 8),
        (2, 16, 16),
        (2, 16, 8),
    ]
    assert {name for name, _ in report.ignored} == {"ids", "mask", "bias", "scale", "images"}
    assert report.metadata == {"model": "toy"}
    assert report.source == "m.safetensors"
    assert all(name in report.table() for name in ("'ids'", "'mask'", "'bias'", "'scale'", "'images'"))


def test_any_layer_name_is_sorted(tmp_path):
    x = correlated().astype(np.float32)
    names = ["l.²", "l.⑤", "l." + "9" * 5000, "l.10", "l.2"]
    save_file(dict.fromkeys(names, x), tmp_path / "h.safetensors")
    assert [layer.name for layer in files.read(tmp_path / "h.safetensors").layers][:3] == ["l.2", "l.10", names[2]]


@pytest.mark.parametrize("block", [2**21, 200])  # whole sequences at once, and a few tokens
def test_repeated_tokens_are_counted_and_told(monkeypatch, block):
    monkeypatch.setattr(measure, "BLOCK", block)
    x = isotropic(sequences=4, tokens=20)
    assert audit.audit(x).layers[0].repeated == 0
    assert "equal the one before" not in str(audit.audit(x))
    padding = np.broadcast_to(RNG(3).normal(size=32), (4, 60, 32))
    report = audit.audit(np.concatenate([x, padding], axis=1))
    assert report.layers[0].repeated == 4 * 59
    assert "74 % of its tokens equal the one before" in " ".join(str(report).split())
    last, before = x.copy(), x[:, -1:]
    assert audit.audit(np.concatenate([last, before], axis=1)).layers[0].repeated == 4


def test_a_list_of_layers_is_not_one_of_sequences():
    x = correlated()
    named = audit.audit({"layer.0": x, "layer.1": x[:3]}, experts=4)
    assert audit.audit((x, x[:3]), experts=4).layers == named.layers
    refuse(ValueError, "a list of 2 arrays may hold layers or sequences", [x[0], x[1]])


def test_bfloat16_arrays():
    torch = pytest.importorskip("torch")
    x = torch.tensor(correlated(), requires_grad=True)
    half = x.bfloat16()
    given = audit.audit(half, experts=4).layers[0]
    assert given.dtype == "bfloat16"
    assert given.routings == audit.audit(half.float().detach().numpy(), experts=4).layers[0].routings
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert audit.audit(half.float().detach().numpy().astype(ml_dtypes.bfloat16), experts=4).layers[0] == given


def test_capacities_are_those_of_the_decimal_factor():
    x = isotropic(sequences=2, tokens=200, dim=60)
    drops = audit.audit(x, experts=60, top=2, capacity_factors=(1.05,)).layers[0].routings[0].drops
    assert [d.capacity for d in drops] == [7]  # 1.05 * 2 * 200 / 60 = 7 exactly


def test_a_mapping_of_arrays():
    x = correlated(sequences=2, tokens=16, dim=8)
    report = audit.audit({"a": x, "b": 2 * x}, experts=4)
    assert [layer.name for layer in report.layers] == ["a", "b"]
    assert report.layers[0].routings == report.layers[1].routings  # cosines do not see a power of two


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**1000])
def test_extreme_scales_change_nothing(scale):
    x = correlated(sequences=3, tokens=20, dim=8)
    assert numbers(audit.audit(x * scale, experts=4)) == numbers(audit.audit(x, experts=4))


def assert_close(a, b, where=""):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b)
        for k, (u, v) in enumerate(zip(a, b)):
            assert_close(u, v, f"{where}[{k}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12), where
    else:
        assert a == b, where


@pytest.mark.parametrize("block", [8, 100, 900])
@pytest.mark.parametrize("sequences", [3, 70])  # 70: more than the jackknife's groups
def test_blocks_of_any_size_give_the_same_numbers(monkeypatch, block, sequences):
    x = correlated(sequences=sequences, tokens=12, dim=8)
    x[0, 3] = 0  # no direction
    x[1, 0] = 0
    want = numbers(audit.audit(x, experts=4, top=2))
    monkeypatch.setattr(measure, "BLOCK", block)
    assert_close(numbers(audit.audit(x, experts=4, top=2)), want)


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "BLOCK", 2**15)
    size, peak = [], []
    for copies in (1, 16, 128):  # the first only warms up what is lazy
        x = np.repeat(correlated(sequences=2, tokens=512, dim=64).astype(np.float32), copies, axis=0)
        np.save(tmp_path / "big.npy", x)
        size.append(x.nbytes)
        del x
        tracemalloc.start()
        audit.audit(tmp_path / "big.npy", experts=4, center=False)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # what must grow is the winning affinity of each token: here 1 number kept, and sorted, for 64 features
    assert peak[2] - peak[1] < (size[2] - size[1]) / 8


def test_zero_tokens_are_counted():
    x = correlated(sequences=3, tokens=20, dim=8)
    x[:, ::2] = 0
    report = audit.audit(x, experts=4, center=False)
    (r,) = report.layers[0].routings
    assert r.zero_tokens == 30
    assert math.isnan(r.cosine_neighbours.value)  # no two neighbours have a direction
    assert "30 tokens are zero" in report.table()
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = correlated(sequences=3, tokens=20, dim=8)


def refuse(kind, pattern, *args, **kwargs):
    with pytest.raises(kind, match=pattern) as caught:
        audit.audit(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "pattern", "options"),
    [
        (ValueError, "8 is not divisible by experts = 3.*use 2 or 4 experts", {"experts": 3}),
        (ValueError, "experts = 1 ", {"experts": 1}),
        (ValueError, "experts = -4 ", {"experts": -4}),
        (TypeError, "experts = 2.5", {"experts": 2.5}),
        (TypeError, "experts = 'four'", {"experts": "four"}),
        (ValueError, "top = 4 .*experts - 1", {"experts": 4, "top": 4}),
        (ValueError, "top = 0", {"experts": 4, "top": 0}),
        (ValueError, "target_loss = 0", {"target_loss": 0}),
        (ValueError, "target_loss = 1", {"target_loss": 1.0}),
        (ValueError, "target_loss = nan", {"target_loss": math.nan}),
        (ValueError, "target_loss has shape", {"target_loss": [0.1]}),
        (ValueError, "capacity_factors", {"capacity_factors": ()}),
        (ValueError, r"capacity_factors\[1\] = -1", {"capacity_factors": (1, -1)}),
        (ValueError, r"capacity_factors\[0\] = inf", {"capacity_factors": (math.inf,)}),
        (TypeError, "capacity_factors", {"capacity_factors": "12"}),
        (TypeError, "center = 1", {"center": 1}),
        (TypeError, "center = 'yes'", {"center": "yes"}),
        (ValueError, "gates have 5 features.*has 8", {"gates": np.ones((2, 5))}),
        (ValueError, "experts = 4 .*be 2", {"gates": np.eye(2, 8), "experts": 4}),
        (ValueError, "non-finite", {"gates": np.full((2, 8), np.nan)}),
        (ValueError, "gate 1 is zero", {"gates": np.eye(3, 8) * [[1], [0], [1]]}),
        (ValueError, "exactly one", {"gates": np.ones((2, 2, 8))}),
        (ValueError, "exactly one", {"gates": np.ones((1, 8))}),
        (ValueError, "exactly one", {"gates": np.ones((2, 8), dtype=int)}),
        (FileNotFoundError, "missing.npy", {"gates": "missing.npy"}),
    ],
)
def test_bad_arguments(kind, pattern, options):
    refuse(kind, pattern, GOOD, **{"experts": None if "gates" in options else 4, **options})


@pytest.mark.parametrize(
    ("kind", "pattern", "source"),
    [
        (TypeError, "int64", np.ones((3, 20, 8), dtype=int)),
        (TypeError, "complex", np.ones((3, 20, 8), dtype=complex)),
        (TypeError, "object", np.array([{}, []], dtype=object)),
        (TypeError, "hidden states", [[1.0, 2.0], [3.0]]),
        (TypeError, "<U1", np.array(["a", "b"])),
        (ValueError, r"\(20,\)", np.ones(20)),
        (ValueError, r"\(3, 20, 1\)", np.ones((3, 20, 1))),
        (ValueError, r"\(3, 1, 8\)", np.ones((3, 1, 8))),
        (ValueError, r"\(0, 20, 8\)", np.ones((0, 20, 8))),
        (ValueError, r"\(1, 2, 3, 8\)", np.ones((1, 2, 3, 8))),
        (ValueError, "no tensor at all", {}),
        (ValueError, "equal tokens", np.ones((3, 20, 8))),
        (ValueError, "equal tokens", np.zeros((3, 20, 8))),
        (ValueError, "equal tokens", np.full((3, 20, 8), 0.1)),
        (ValueError, r"'b' of .*2 non-finite.*sequence 1, position 2, feature 3", {"a": GOOD, "b": None}),
        (ValueError, r"non-finite.*first at position 2, feature 3", None),
    ],
)
def test_bad_arrays(kind, pattern, source):
    broken = GOOD.copy()
    broken[1, 2, 3], broken[2, 0, 0] = np.nan, -np.inf
    if isinstance(source, dict) and "b" in source:
        source = {**source, "b": broken}
    refuse(kind, pattern, broken[1] if source is None else source, experts=4)


def test_bad_files(tmp_path):
    np.save(tmp_path / "good.npy", GOOD)
    save_file({"h": GOOD}, tmp_path / "good.safetensors")
    for ending in ("npy", "safetensors"):
        whole = (tmp_path / f"good.{ending}").read_bytes()
        for name, content in {
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "head": whole[:5],
            "noise": bytes(range(256)),
            "zeros": bytes(1000),
        }.items():
            path = tmp_path / f"{name}.{ending}"
            path.write_bytes(content)
            refuse(ValueError, f"{name}.{ending}", path, experts=4)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    refuse(TypeError, "objects.npy.*never loaded", tmp_path / "objects.npy", experts=4)
    np.savez(tmp_path / "zip.npz", GOOD)
    refuse(ValueError, r"zip.npz' must be a file ending in .safetensors or .npy", tmp_path / "zip.npz", experts=4)
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    refuse(ValueError, "zip.npy", tmp_path / "zip.npy", experts=4)
    refuse(FileNotFoundError, "none.npy' does not exist", tmp_path / "none.npy", experts=4)
    (tmp_path / "folder.npy").mkdir()
    refuse(ValueError, "folder.npy' is a folder", tmp_path / "folder.npy", experts=4)
    refuse(ValueError, "must be a file ending in", tmp_path, experts=4)
    np.save(tmp_path / "long.npy", GOOD.astype(np.complex64))
    refuse(TypeError, "long.npy.*complex64", tmp_path / "long.npy", experts=4)
    raw_safetensors(tmp_path / "tiny.safetensors", {"h": ("F8_E4M3", np.ones((4, 4), dtype=np.int8))})
    refuse(TypeError, "F8_E4M3", tmp_path / "tiny.safetensors", experts=4)
    broken = GOOD.copy()
    broken[0, 0, 0] = np.inf
    save_file({"a": GOOD, "b": broken}, tmp_path / "inf.safetensors")
    refuse(ValueError, r"'b' of .*inf.safetensors' holds 1 non-finite", tmp_path / "inf.safetensors", experts=4)


NPY = io.BytesIO()
np.save(NPY, GOOD.astype(np.float16))
CONTENT = {".npy": NPY.getvalue(), ".safetensors": save({"h": GOOD.astype(np.float16), "ids": np.arange(6)})}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_damaged_files_never_crash(tmp_path, ending, data):
    """Bytes changed, removed or added anywhere: a sentence, or an audit of what is still a valid file."""
    content = bytearray(CONTENT[ending])
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "header"]))
    limit = 140 if kind == "header" else len(content)
    place = data.draw(st.integers(0, limit - 1))
    if kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(bytes(content))
    try:
        report = audit.audit(path, experts=2)
    except (ValueError, TypeError) as problem:
        message = str(problem)
    else:
        message = "damaged " + json.dumps(report.to_json(), allow_nan=False)
    assert "damaged" in message
    assert "\n" not in message


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(2, 12),
    st.integers(1, 3),
    st.integers(2, 5),
    st.data(),
)
def test_small_audits_are_sane(sequences, tokens, per_expert, experts, data):
    """Tiny integers as features: ties, zero tokens and equal sequences abound."""
    dim = per_expert * experts
    seed = data.draw(st.integers(0, 10**6))
    top = data.draw(st.integers(1, experts - 1))
    x = RNG(seed).integers(-1, 2, size=(sequences, tokens, dim)).astype(np.float32)
    if dim < 2 or np.ptp(x, axis=(0, 1)).max() == 0:
        return
    report = audit.audit(x, experts=experts, top=top)
    json.dumps(report.to_json(), allow_nan=False)
    assert max(map(len, report.table().splitlines())) <= 100
    for r in report.layers[0].routings:
        assert math.fsum(e.value for e in r.load) == pytest.approx(1)
        for values in ([d.measured.value for d in r.drops], [d.expert_choice.value for d in r.drops]):
            assert all(0 <= b <= a <= 1 for a, b in itertools.pairwise(values))
        for d in r.drops:
            assert 0 <= d.measured_load <= 1
            if d.beta_binomial is not None:
                assert d.beta_binomial >= d.measured_load - 1e-9  # a convex function of a more variable load
        assert 1 <= r.token_choice.capacity <= tokens
        assert 1 <= r.expert_choice.capacity <= tokens


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    return audit.audit(audit.example())


def test_the_example_breaks_the_assumptions_and_the_laws_repair_them(example):
    assert [layer.name for layer in example.layers] == ["layer.0", "layer.3", "layer.6"]
    assert [name for name, _ in example.ignored] == ["token_ids"]
    for layer in example.layers:
        raw, centred = layer.routings
        assert raw.p_uniform < 0.01 < centred.p_uniform
        assert raw.heaviest.value > centred.heaviest.value
        assert centred.token_choice.capacity < raw.token_choice.capacity
        assert abs(centred.cosine.value) < 0.02
        assert raw.same_expert.value > raw.same_expert_independent
        for r in layer.routings:
            assert r.dispersion.value > 1
            for drop in r.drops[:3]:
                gaps = [abs(v - drop.measured.value) for v in (drop.beta_binomial, drop.measured_load, drop.uniform)]
                assert gaps[1] < gaps[2]
                assert gaps[0] < 0.05
            assert r.token_choice.uniform < r.token_choice.measured_load <= r.token_choice.beta_binomial


def test_the_over_dispersed_laws_cover_the_example_where_the_binomial_ones_fail(example):
    """Three standard errors about every measured drop; then sequences that the fit has not seen."""
    for layer in example.layers:
        for r in layer.routings:
            some = [d for d in r.drops if d.measured.error is not None]
            assert len(some) >= 3
            assert all(d.covers("beta_binomial") and d.covers("blocks") for d in some)
            assert not any(d.covers("uniform") for d in some)
            held_out = {h.model: h for h in r.held_out}
            assert held_out["uniform"].loss > held_out["measured_load"].loss > held_out["beta_binomial"].loss
            assert abs(held_out["beta_binomial"].bias) < abs(held_out["uniform"].bias)
            # the target is .01; fitted on four sequences, the capacity holds to within a factor of two on four others
            assert held_out["beta_binomial"].loss < 0.02
            assert r.token_choice.advised >= r.token_choice.beta_binomial
    # the deepest layer, and the middle one once centred: skewed binomial loads fail, seen and unseen
    for r in (*example.layers[2].routings, example.layers[1].routings[1]):
        gaps = [d.gaps["measured_load"] for d in r.drops if d.measured.error is not None]
        assert all(gap.value < -2 * gap.error for gap in gaps)
        held_out = {h.model: h for h in r.held_out}
        for model in ("beta_binomial", "blocks"):
            assert held_out[model].error.value < 0.8 * held_out["measured_load"].error.value
        assert held_out["measured_load"].loss > 0.04


def test_the_conclusion_comes_first(example):
    rows = example.rows()
    assert [(row["layer"], row["tokens"], row["capacity"], row["cause"], row["helps"]) for row in rows] == [
        ("layer.0", "raw", 87, "skew", "centre"),
        ("layer.0", "centred", 48, "dependence", "pool slots"),
        ("layer.3", "raw", 106, "skew", "centre"),
        ("layer.3", "centred", 48, "dependence", "pool slots"),
        ("layer.6", "raw", 128, "both", "centre, pool slots"),
        ("layer.6", "centred", 100, "dependence", "pool slots"),
    ]
    short, long = str(example), example.table(details=True)
    assert len(short.splitlines()) < 20 < 100 < len(long.splitlines())
    assert short.splitlines()[:9] == long.splitlines()[:9]


@pytest.mark.parametrize(
    ("uniform", "loaded", "over", "capacity", "cause"),
    [
        (40, 40, 43, 43, "none"),
        (40, 60, 60, 61, "skew"),
        (40, 40, 60, 61, "dependence"),
        (40, 45, 60, 61, "both"),
        (40, 44, 60, 61, "dependence"),
        (40, 60, None, 61, "skew"),
        (40, 41, None, 61, "unknown"),
    ],
)
def test_causes(uniform, loaded, over, capacity, cause):
    assert table._cause(audit.Need(capacity, 1.0, None, None, uniform, loaded, over)) == cause


def test_what_every_result_can_do(example, monkeypatch):
    assert repr(example) == "<AuditReport: hidden_states.safetensors, 3 layers, 8 experts, top-1>"
    assert max(len(repr(example.layers[0])), len(repr(example.layers[0].routings[0]))) < 100
    record = example.to_json()
    assert record["format"] == "resonance-theory audit 1"
    assert {"version", "commit", "dirty", "time"} <= set(record["provenance"])
    shown = dataclasses.replace(example, source="<b>")
    assert "&lt;b&gt;" in shown._repr_html_()
    assert "<b>" not in shown._repr_html_()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas: pip install pandas"):
        example.to_frame()


def test_plot_returns_its_axes(example):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    assert example.plot(axes) is axes
    drop = example.layers[0].routings[0].curve
    line = axes.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), np.array(drop["capacity"]) * 8 / 256)
    assert axes.get_legend().get_texts()[1].get_text() == "layer.0, centred"


def test_reports_are_deterministic_and_printable(example):
    again = audit.audit(audit.example())
    assert again == example
    text = json.dumps(example.to_json(), allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(again.to_json()))
    assert max(map(len, example.table().splitlines())) <= 100
    assert "/" not in example.source


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_figure_files(example, tmp_path, ending):
    for name in ("a", "b"):
        example.figure(tmp_path / (name + ending))
    content = (tmp_path / ("a" + ending)).read_bytes()
    assert len(content) > 10_000
    assert content == (tmp_path / ("b" + ending)).read_bytes()


def test_figure_to_a_stream_and_to_a_bad_name(example, tmp_path):
    stream = io.BytesIO()
    example.figure(stream)
    assert b"<svg" in stream.getvalue()
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf"):
        example.figure(tmp_path / "a.jpeg")


def test_figure_of_many_experts_and_layers():
    x = RNG(0).standard_normal((2, 40, 32))
    report = audit.audit({f"layer.{k}": x + k / 10 for k in range(9)}, experts=32, top=3, center=True)
    stream = io.BytesIO()
    report.figure(stream)
    text = stream.getvalue().decode()
    assert "<!-- layer.0 -->" in text
    assert "<!-- layer.8 -->" in text
    assert "<!-- layer.1 -->" not in text  # six of nine are shown
    assert max(map(len, report.table().splitlines())) <= 100


def test_drawing_alone_needs_matplotlib():
    code = (
        "import sys; from resonance_theory import audit, logs; audit.audit(audit.example()).table(); "
        "audit.audit_log(logs.read(logs.example())).table(); "
        "print([m for m in ('matplotlib', 'torch', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
