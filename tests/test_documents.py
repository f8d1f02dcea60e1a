"""The law of documents against enumerated cuts in 50-digit arithmetic, its limits, and the fits from logs."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.logs import RoutingLog, fit_documents, fit_two_blocks
from resonance_theory.rules import BetaBinomial, Blocks, Documents, Rates, random_keep, resonance, token_choice

RNG = np.random.default_rng
RULES = (token_choice, random_keep, resonance)


def cut_laws(load, kappa, lengths, weight, aligned):
    """Masses of the first m tokens, by enumeration of the first document's rest and of all that follow."""
    load, kappa = mpmath.mpf(load), mpmath.mpf(kappa)
    a, b = load * (1 - kappa) / kappa, (1 - load) * (1 - kappa) / kappa

    @cache
    def piece(m):
        return [mpmath.binomial(m, j) * mpmath.beta(j + a, m - j + b) / mpmath.beta(a, b) for j in range(m + 1)]

    def add(x, y):
        total = [mpmath.mpf(0)] * (len(x) + len(y) - 1)
        for i, v in enumerate(x):
            for j, w in enumerate(y):
                total[i + j] += v * w
        return total

    @cache
    def begun(m):
        total = [mpmath.mpf(0)] * (m + 1)
        for length, chance in zip(lengths, weight):
            inside = min(length, m)
            part = add(piece(inside), begun(m - inside)) if inside < m else piece(m)
            total = [x + chance * y for x, y in zip(total, part)]
        return total

    @cache
    def stretch(m):
        if aligned or m == 0:
            return begun(m)
        total = [mpmath.mpf(0)] * (m + 1)
        mean = sum(mpmath.mpf(w) * n for n, w in zip(lengths, weight))
        for length, chance in zip(lengths, weight):
            for left in range(1, min(length, m) + 1):
                many = max(length - m + 1, 1) if left == m else 1  # every rest of m tokens or more
                part = add(piece(left), begun(m - left)) if left < m else piece(m)
                total = [x + many * chance / mean * y for x, y in zip(total, part)]
        return total

    return stretch


def references(stretch, total, capacity, load, rho):
    others, everyone = stretch(total - 1), stretch(total)
    place = [
        mpmath.mpf(1)
        if j < capacity
        else 1 - mpmath.betainc(capacity, j - capacity + 1, 0, mpmath.mpf(rho), regularized=True)
        for j in range(total)
    ]
    late = [
        mpmath.mpf(0)
        if j < capacity
        else mpmath.betainc(capacity, j - capacity + 1, 0, mpmath.mpf(rho), regularized=True)
        for j in range(total)
    ]
    full = [sum(stretch(k)[capacity:], mpmath.mpf(0)) for k in range(total)]
    return {
        "drop": sum(v * max(j - capacity, 0) for j, v in enumerate(everyone)) / (total * mpmath.mpf(load)),
        "kept": sum(v * min(j, capacity) for j, v in enumerate(everyone)),
        "first": 1 - sum(full) / total,
        "late": sum(full) / total,
        "drawn": sum(v * min(mpmath.mpf(1), mpmath.mpf(capacity) / (j + 1)) for j, v in enumerate(others)),
        "undrawn": sum(v * mpmath.mpf(max(j + 1 - capacity, 0)) / (j + 1) for j, v in enumerate(others)),
        "best": sum(v * w for v, w in zip(others, place)),
        "outranked": sum(v * w for v, w in zip(others, late)),
    }


def ours(total, capacity, rates):
    return {
        "drop": token_choice.drop_rate(total, capacity, rates),
        "kept": token_choice.kept(total, capacity, rates),
        "first": token_choice.success(total, capacity, rates),
        "late": token_choice.failure(total, capacity, rates),
        "drawn": random_keep.success(total, capacity, rates),
        "undrawn": random_keep.failure(total, capacity, rates),
        "best": resonance.success(total, capacity, rates),
        "outranked": resonance.failure(total, capacity, rates),
    }


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("total", "length", "load", "kappa"),
    [
        (1, 4, 0.3, 0.2),
        (9, 4, 0.3, 0.2),
        (24, 7, 0.125, 0.05),
        (24, 100, 0.01, 0.5),
        (40, 6, 0.02, 1e-6),
        (21, 20, 0.9, 0.999),
    ],
)
def test_one_length_to_1e_12_both_tails(total, length, load, kappa, aligned):
    with mpmath.workdps(50):
        stretch = cut_laws(load, kappa, (length,), (1,), aligned)
        rates = Rates(load=load, percentile=0.7, counts=Documents(kappa, length, aligned=aligned))
        for capacity in sorted({1, max(1, total // 8), max(1, total // 2), total}):
            exact, found = references(stretch, total, capacity, load, 0.7), ours(total, capacity, rates)
            for name, value in exact.items():
                error = abs(mpmath.mpf(float(found[name])) - value)
                assert error <= mpmath.mpf(1e-12) * value, (capacity, name, float(value))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("total", "lengths", "weight"),
    [(1, (2, 9), (0.5, 0.5)), (13, (1, 4, 30), (0.25, 0.5, 0.25)), (18, (3, 8), (0.75, 0.25))],
)
def test_random_lengths_to_1e_12_absolute(total, lengths, weight, aligned):
    with mpmath.workdps(30):
        stretch = cut_laws(0.2, 0.25, lengths, weight, aligned)
        model = Documents(0.25, lengths, weight=weight, aligned=aligned)
        rates = Rates(load=0.2, percentile=0.7, counts=model)
        for capacity in {1, max(1, total // 3), total}:
            exact, found = references(stretch, total, capacity, 0.2, 0.7), ours(total, capacity, rates)
            for name, value in exact.items():
                assert abs(float(found[name]) - float(value)) < 1e-12, (capacity, name)
        law = [float(v) for v in stretch(total)]
        n = np.arange(total + 1)
        variance = law @ np.square(n) - (law @ n) ** 2
        assert model.variance_ratio(total) == pytest.approx(variance / (total * 0.16), rel=1e-12)


def test_large_documents_take_the_other_way_with_the_same_result(monkeypatch):
    """Above a length the cuts are not enumerated; both ways agree."""
    from resonance_theory.rules import documents

    rates = Rates(experts=8, percentile=0.4, counts=Documents(0.1, [60, 90]))
    wanted = [ours(80, 12, rates)]
    monkeypatch.setattr(documents, "_MOST_CUT", 10)
    for name, value in ours(80, 12, rates).items():
        np.testing.assert_allclose(value, wanted[0][name], rtol=1e-11, err_msg=name)


def test_reduces_to_the_laws_it_contains():
    capacity = np.array([1, 9, 20, 40, 96])
    rates = Rates(experts=8, hit=0.9, percentile=0.4)
    for model, same in [
        (Documents(0.1, 200, aligned=True), BetaBinomial(0.1)),
        (Documents(0.1, 2**52), BetaBinomial(0.1)),
        (Documents(1.0, 7, aligned=True), Blocks(7)),
        (Documents(0.0, 7), BetaBinomial(0.0)),
        (Documents(0.3, 1), Blocks(1)),
        (Documents(0.3, [1, 1], weight=[0.5, 0.5]), Blocks(1)),
    ]:
        for rule in RULES:
            for verb in ("success", "failure", "kept", "drop_rate"):
                got, wanted = (getattr(rule, verb)(96, capacity, rates.replace(counts=m)) for m in (model, same))
                np.testing.assert_allclose(got, wanted, rtol=1e-12, err_msg=f"{model} {rule} {verb}")
        assert model.variance_ratio(96) == pytest.approx(float(same.variance_ratio(96)), rel=1e-12)
    # independent tokens at sizes that no sum over masses reaches
    far = token_choice.drop_rate(10**9, 130_000_000, Rates(experts=8, counts=Documents(0.0, 50)))
    assert far == token_choice.drop_rate(10**9, 130_000_000, Rates(experts=8))


def test_one_length_given_as_random_is_the_same():
    a, b = Documents(0.2, 12), Documents(0.2, [12, 40], weight=[1.0, 0.0])
    for s in (1, 11, 12, 13, 50):
        assert a.variance_ratio(s) == pytest.approx(float(b.variance_ratio(s)), rel=1e-13)
        drops = [token_choice.drop_rate(s, max(1, s // 6), Rates(experts=8, counts=m)) for m in (a, b)]
        assert drops[0] == pytest.approx(float(drops[1]), abs=1e-13)


def test_broadcasts_and_finds_capacities():
    rates = Rates(experts=8, counts=Documents([0.0, 0.1, 0.5], [[5], [40]]))
    drops = token_choice.drop_rate(64, 10, rates)
    assert drops.shape == (2, 3)
    for i, length in enumerate((5, 40)):
        for j, kappa in enumerate((0.0, 0.1, 0.5)):
            alone = token_choice.drop_rate(64, 10, Rates(experts=8, counts=Documents(kappa, length)))
            assert drops[i, j] == pytest.approx(float(alone), rel=1e-13)
    assert np.all(np.diff(drops, axis=1) > 0)
    capacity = int(token_choice.least_capacity(0.95, 64, Rates(experts=8, counts=Documents(0.1, 40))))
    kept = token_choice.success(64, [capacity - 1, capacity], Rates(experts=8, counts=Documents(0.1, 40)))
    assert kept[0] < 0.95 <= kept[1]
    shares = np.array([0.5, 0.3, 0.2])
    nodes = Rates(load=shares, weight=np.full(3, 1 / 3), counts=Documents(0.1, 20))
    each = token_choice.drop_rate(30, 12, Rates(load=shares, counts=Documents(0.1, 20)))
    assert token_choice.drop_rate(30, 12, nodes) == pytest.approx(float(each @ shares / shares.sum()), rel=1e-13)


@pytest.mark.parametrize(
    ("kind", "pattern", "call"),
    [
        (ValueError, r"correlation = 1.5 must be a finite number in \[0, 1\]", lambda: Documents(1.5, 3)),
        (ValueError, "length = 0 must be a whole number between 1 and", lambda: Documents(0.1, 0)),
        (TypeError, "length = 2.5 must be a whole number", lambda: Documents(0.1, 2.5)),
        (ValueError, "weight sums to 0.9", lambda: Documents(0.1, [2, 3], weight=[0.5, 0.4])),
        (ValueError, "must have the same single axis", lambda: Documents(0.1, [2, 3, 4], weight=[0.5, 0.5])),
        (TypeError, "aligned = 'yes' must be True or False", lambda: Documents(0.1, 3, aligned="yes")),
        (
            ValueError,
            "tokens = 1000000 must be at most 131072 with documents",
            lambda: token_choice.drop_rate(10**6, 5, Rates(experts=2, counts=Documents(0.1, 5))),
        ),
        (
            ValueError,
            "inside a sample is 100000000 but must be at most 33554432: memory",
            lambda: token_choice.drop_rate(10**4, 5, Rates(experts=2, counts=Documents(0.1, 10**6))),
        ),
        (
            ValueError,
            "tokens squared times the lengths of documents is 5000000000 but",
            lambda: token_choice.drop_rate(
                50000, 5, Rates(experts=2, counts=Documents(0.1, [5, 6], weight=[0.5, 0.5]))
            ),
        ),
        (ValueError, "shapes of", lambda: Documents([0.1, 0.2], [3, 4, 5]).variance_ratio(5)),
    ],
)
def test_bad_input_is_one_sentence(kind, pattern, call):
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)


def stream(rng, lengths, kappa, experts):
    likes = rng.dirichlet(np.full(experts, (1 - kappa) / kappa / experts), size=len(lengths))
    likes = np.repeat(likes, lengths, axis=0)
    chosen = (likes.cumsum(axis=1) < rng.random((len(likes), 1))).sum(axis=1)
    return np.minimum(chosen, experts - 1), np.repeat(np.arange(len(lengths)), lengths)


def test_fit_from_document_ids_finds_the_model_and_predicts():
    rng = RNG(3)
    lengths = rng.choice([20, 60, 300], size=1500, p=[0.5, 0.3, 0.2])
    chosen, ids = stream(rng, lengths, 0.1, 8)
    fit = fit_documents(RoutingLog(experts=8, choices=chosen[:, None, None], documents=ids))
    assert float(fit.counts.correlation) == pytest.approx(0.1, abs=0.01)  # 1,500 documents: 3 standard errors
    assert fit.share.sum() == pytest.approx(1.0)
    mean = fit.counts.length @ fit.counts.weight
    assert mean == pytest.approx(lengths.mean(), rel=1e-9)
    assert (fit.counts.length**2 @ fit.counts.weight) / mean == pytest.approx(
        (lengths**2).sum() / lengths.sum(), rel=1e-9
    )
    # the prediction against fresh documents of the same model, in blocks that cut them anywhere
    chosen, _ = stream(rng, rng.choice([20, 60, 300], size=40_000, p=[0.5, 0.3, 0.2]), 0.1, 8)
    for block in (64, 512):
        loads = np.array(
            [np.bincount(p, minlength=8) for p in chosen[: chosen.size // block * block].reshape(-1, block)]
        )
        for factor in (1.0, 1.5):
            dropped = np.maximum(loads - int(np.ceil(factor * block / 8)), 0).sum(axis=1) / block
            law = fit.drop(block, factor, new=False)
            slack = 6 * dropped.std() / np.sqrt(len(dropped)) + 0.1 * law  # the correlation is known to about 8 %
            assert abs(law - dropped.mean()) < slack
            single = token_choice.drop_rate(
                block, int(np.ceil(factor * block / 8)), fit.rates.replace(counts=BetaBinomial(0.0))
            )
            assert abs(float(single) - dropped.mean()) > slack  # independence is rejected


def test_fit_ignores_padding_and_groups_lengths():
    rng = RNG(4)
    lengths = rng.integers(5, 400, size=200)
    chosen, ids = stream(rng, lengths, 0.1, 8)
    log = RoutingLog(experts=8, choices=chosen[:, None, None], documents=ids)
    wide = np.insert(chosen, [100, 100, 900], -1)
    padded = RoutingLog(
        experts=8, choices=wide[:, None, None], documents=np.insert(ids, [100, 100, 900], ids[[99, 99, 899]])
    )
    a, b = fit_documents(log), fit_documents(padded)
    np.testing.assert_array_equal(a.share, b.share)
    assert float(a.counts.correlation) == float(b.counts.correlation)
    assert a.counts.length.size <= 12
    tokens = np.array([64, 512, 4096])
    sizes, times = np.unique(lengths, return_counts=True)
    exact = Documents(a.counts.correlation, sizes, weight=times / 200)
    np.testing.assert_allclose(a.counts.variance_ratio(tokens), exact.variance_ratio(tokens), rtol=5e-3)


def test_two_block_sizes_give_length_and_correlation_and_predict_a_third():
    rng = RNG(8)
    chosen, _ = stream(rng, np.full(20_000, 150), 0.06, 8)

    def loads(block):
        return np.array(
            [np.bincount(p, minlength=8) for p in chosen[: chosen.size // block * block].reshape(-1, block)]
        )

    fit = fit_two_blocks(loads(64), 64, loads(1024), 1024)
    assert float(np.asarray(fit.counts.correlation)) == pytest.approx(0.06, rel=0.1)
    assert int(fit.counts.length) == pytest.approx(150, rel=0.2)
    third = loads(256)
    ratio = third.var(axis=0, ddof=1).sum() / (256 * fit.share * (1 - fit.share)).sum()
    assert float(fit.counts.variance_ratio(256)) == pytest.approx(ratio, rel=0.05)
    # one beta-binomial fitted at 64 misses it by far
    assert 1 + 255 * (float(fit.counts.variance_ratio(64)) - 1) / 63 > 1.3 * ratio


def test_two_block_sizes_at_their_ends():
    rng = RNG(2)
    alone = rng.multinomial(64, [0.25] * 4, size=200), rng.multinomial(256, [0.25] * 4, size=200)
    near = fit_two_blocks(alone[0], 64, alone[1], 256).counts
    assert float(near.variance_ratio(256)) < 1.3
    likes = rng.dirichlet([5.0] * 4, size=400)
    whole = fit_two_blocks(
        np.array([rng.multinomial(64, p) for p in likes]), 64, np.array([rng.multinomial(256, p) for p in likes]), 256
    ).counts
    assert int(whole.length) > 512  # as of documents longer than the blocks


def test_new_samples_vary_more_about_shares_of_a_short_log():
    chosen, ids = stream(RNG(1), np.full(40, 50), 0.1, 8)
    fit = fit_documents(RoutingLog(experts=8, choices=chosen[:, None, None], documents=ids))
    known, new = fit.counts.variance_ratio(256), fit.for_new(256).counts.variance_ratio(256)
    assert new == pytest.approx(known + 256 * fit.counts.variance_ratio(2000) / 2000, rel=1e-9)
    assert fit.drop(256, 1.25) > fit.drop(256, 1.25, new=False)


def one_expert(tokens=4, **fields):
    return RoutingLog(experts=4, choices=np.zeros((tokens, 1, 1), int), **fields)


def padded_layer():
    """Choices of a layer with tokens and of one without."""
    return np.stack([np.zeros((4, 1), int), np.full((4, 1), -1)], axis=1)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("must be given", lambda: fit_documents(one_expert())),
        (
            "holds 1 document of at most 4 tokens but must hold two",
            lambda: fit_documents(one_expert(documents=np.zeros(4, int))),
        ),
        (
            "holds 0 documents",
            lambda: fit_documents(RoutingLog(experts=4, choices=padded_layer(), documents=np.arange(4)), 1),
        ),
        (
            "documents has 3 entries but must have one for each of the 4 tokens",
            lambda: fit_documents(one_expert(documents=np.arange(3))),
        ),
        (
            "layer = 1 must be",
            lambda: fit_documents(one_expert(documents=np.arange(4)), 1),
        ),
        ("small has shape", lambda: fit_two_blocks([[1, 1]], 2, [[2, 2], [3, 1]], 4)),
        ("large_tokens = 2 must be", lambda: fit_two_blocks([[1, 1], [2, 0]], 2, [[2, 2], [3, 1]], 2)),
        ("have 2 and 3 experts", lambda: fit_two_blocks([[1, 1], [2, 0]], 2, [[2, 2, 0], [3, 1, 0]], 4)),
    ],
)
def test_fits_refuse_in_one_sentence(pattern, call):
    with pytest.raises((ValueError, TypeError), match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_public_name():
    assert rt.Documents is Documents
    assert str(Documents(0.04, 300)) == (
        "documents of 300 tokens, correlated by 0.04 inside, in samples that cut documents anywhere"
    )
