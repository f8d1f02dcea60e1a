"""Largest loads, replicas, distinct experts and group-limited routing against enumeration and 50-digit sums."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations, combinations_with_replacement, permutations
from math import comb, prod

import mpmath
import numpy as np
import pytest

import resonance_theory as rt
from resonance_theory.rules import INDEPENDENT

LargestLoad = rt.loads.LargestLoad
RNG = np.random.default_rng


def largest_law(tokens, shares, correlation, m):
    """P(max <= m) and P(max > m), its complement, in 110 digits: all series up to m, and the whole."""
    mpmath.mp.dps = 110

    def series(share, most):
        value = [mpmath.mpf(1)]
        for j in range(most):
            rise = share if correlation is None else share * (1 - correlation) / correlation + j
            value.append(value[-1] * rise / (j + 1))
        return value

    inside = [mpmath.mpf(1)]
    for share in shares:
        cut = series(mpmath.mpf(float(share)), min(m, tokens))
        inside = [
            mpmath.fsum(inside[i] * cut[t - i] for i in range(max(0, t - len(cut) + 1), min(t, len(inside) - 1) + 1))
            for t in range(min(tokens, len(inside) + len(cut) - 2) + 1)
        ]
    total = series(mpmath.fsum(mpmath.mpf(float(p)) for p in shares), tokens)[tokens]
    cdf = (inside[tokens] if len(inside) > tokens else mpmath.mpf(0)) / total
    return cdf, 1 - cdf


def close(got, exact, bound=1e-12):
    return abs(mpmath.mpf(float(got)) - exact) <= bound * abs(exact)


SKEWED = np.array([8, 1, 5, 1, 2, 3, 1, 11]) / 32  # doubles that sum to 1 exactly


@pytest.mark.parametrize("correlation", [None, 0.03125, 0.5])
@pytest.mark.parametrize("shares", [SKEWED, np.full(8, 0.125), np.array([0.5, 0.5]), np.array([0.75, 0.0, 0.25])])
@pytest.mark.parametrize("tokens", [1, 7, 60])
def test_exact_law_against_50_digits(tokens, shares, correlation):
    counts = INDEPENDENT if correlation is None else rt.BetaBinomial(correlation)
    law = LargestLoad(tokens, shares, counts=counts)
    assert law.exact
    mean = mpmath.mpf(0)
    for m in range(tokens + 1):
        cdf, sf = largest_law(tokens, shares, correlation, m)
        sf = sf if abs(sf) > 1e-90 else mpmath.mpf(0)
        assert close(law.cdf(m), cdf), m
        assert close(law.sf(m), sf), m
        if cdf > 0:
            assert abs(law.logcdf(m) - mpmath.log(cdf)) < 1e-12 * max(1, abs(mpmath.log(cdf)))
        mean += sf
    assert close(law.mean(), mean, 1e-11)
    for q in (0.01, 0.37, 0.5, 0.99, 1 - 1e-9):
        least = next(m for m in range(tokens + 1) if largest_law(tokens, shares, correlation, m)[0] >= q)
        assert law.quantile(q) == least


def test_far_tails_and_large_sizes():
    shares = np.arange(1, 17) / 136
    law = LargestLoad(400, shares)
    for m in (30, 36, 45, 70, 90, 120, 200, 399):
        cdf, sf = largest_law(400, law.shares, None, m)
        assert abs(law.logcdf(m) - mpmath.log(cdf)) < 1e-12 * max(1, abs(mpmath.log(cdf))), m
        if sf > 1e-35:
            assert close(law.sf(m), sf, 3e-12), m
    assert law.logsf(398) == pytest.approx(399 * np.log(16 / 136) + np.log(400 * 120 / 136 + 16 / 136), rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.05])
def test_devices_add_their_experts(correlation):
    counts = rt.BetaBinomial(correlation)
    device = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    ours = LargestLoad(50, SKEWED, placement=device, counts=counts)
    summed = LargestLoad(50, np.bincount(device, SKEWED), counts=counts)
    m = np.arange(51)
    assert np.allclose(ours.cdf(m), summed.cdf(m), rtol=1e-13, atol=0)
    assert ours.mean_load == pytest.approx(50 / 3)


def top_law(tokens, rates, placement=None):
    """Exact law of the largest load for k distinct choices, by all sets of every token."""
    weight, k, n = rt.loads.choice_weights(rates), round(sum(rates)), len(rates)
    sets = list(combinations(range(n), k))
    chance = np.array([prod(weight[e] for e in s) for s in sets])
    chance = chance / chance.sum()
    place = np.arange(n) if placement is None else np.asarray(placement)
    state = Counter({(0,) * (place.max() + 1): 1.0})
    for _ in range(tokens):
        after = Counter()
        for loads, p in state.items():
            for s, q in zip(sets, chance):
                after[tuple(np.add(loads, np.bincount(place[list(s)], minlength=len(loads))))] += p * q
        state = after
    top = max(max(loads) for loads in state)
    return np.array([sum(p for loads, p in state.items() if max(loads) <= m) for m in range(top + 1)]), state


@pytest.mark.parametrize("placement", [None, [0, 1, 0, 1], [0, 0, 1, 2]])
@pytest.mark.parametrize("rates", [[0.5] * 4, [0.9, 0.6, 0.3, 0.2]])
def test_distinct_choices_lie_between_the_bounds(rates, placement):
    exact, state = top_law(5, rates, placement)
    law = LargestLoad(5, np.array(rates) / 2, top=2, placement=placement)
    assert not law.exact
    bounds = law.cdf_bounds(np.arange(exact.size))
    assert (bounds.lower <= exact + 1e-13).all()
    assert (exact <= bounds.upper + 1e-13).all()
    assert law.cdf_bounds(law._range[1]).lower == 1
    low, high = law.mean_bounds()
    mean = sum(p * max(loads) for loads, p in state.items())
    assert low * (1 - 1e-13) <= mean <= high * (1 + 1e-13)  # two devices: equal up to rounding
    single = [sum(p for loads, p in state.items() if loads[0] <= m) for m in range(exact.size - 1)]
    assert np.allclose([np.exp(law._marginals.logs(m)[0][0]) for m in range(exact.size - 1)], single, rtol=1e-12)
    assert law._marginals.excess(2) == pytest.approx(
        sum(p * sum(max(x - 2, 0) for x in loads) for loads, p in state.items()), rel=1e-12
    )


def test_blocks_lie_between_the_bounds_and_reduce():
    law, plain = LargestLoad(64, SKEWED, counts=rt.Blocks(1)), LargestLoad(64, SKEWED)
    m = np.arange(10, 40)
    assert (law.cdf_bounds(m).lower <= plain.cdf(m) + 1e-12).all()
    assert (plain.cdf(m) <= law.cdf_bounds(m).upper + 1e-12).all()
    runs = LargestLoad(64, SKEWED, counts=rt.Blocks(4))  # 16 runs, so that loads are 4 times those of 16 tokens
    exact = LargestLoad(16, SKEWED).cdf(m // 4)
    assert (runs.cdf_bounds(m).lower <= exact + 1e-12).all()
    assert (exact <= runs.cdf_bounds(m).upper + 1e-12).all()
    assert runs.mean_bounds().lower <= 4 * LargestLoad(16, SKEWED).mean() <= runs.mean_bounds().upper


def test_weights_and_pairs_against_all_sets():
    for rates in ([0.9, 0.6, 0.3, 0.15, 0.05], [1.0, 0.5, 0.5, 0.0, 1.0], [0.999999, 0.5, 0.500001], [1.0, 1.0]):
        w, k = rt.loads.choice_weights(rates), round(sum(rates))
        sure = np.flatnonzero(np.isinf(w))
        sets = [s for s in combinations(range(len(rates)), k) if set(sure) <= set(s)]
        chance = np.array([prod(w[e] for e in s if e not in sure) for s in sets], float)
        chance /= chance.sum()
        joint = np.zeros((len(rates),) * 2)
        for s, p in zip(sets, chance):
            joint[np.ix_(s, s)] += p
        assert np.allclose(np.diag(joint), rates, atol=1e-13)
        assert np.allclose(rt.loads.joint_rates(rates), joint, atol=1e-13)


def test_replicas_are_the_best_and_packing_is_near():
    rng = RNG(1)
    for _ in range(20):
        p = rng.dirichlet(np.full(4, 0.7))
        for slots in (4, 6, 9):
            best = min(
                (p / (1 + np.bincount(extra, minlength=4))).max()
                for extra in (np.array(c, int) for c in combinations_with_replacement(range(4), slots - 4))
            )
            ours = rt.loads.replicate(p, slots)
            assert ours.shares.max() == pytest.approx(best, rel=1e-12)
            assert np.allclose(np.bincount(ours.expert, ours.shares), p)
        q = rng.dirichlet(np.ones(6))
        brute = min(max(q[list(o[i : i + 2])].sum() for i in (0, 2, 4)) for o in permutations(range(6)))
        assert rt.loads.least_largest(q, 3) == pytest.approx(brute, rel=1e-8)
        placed = rt.loads.place(q, 3)
        assert (np.bincount(placed) == 2).all()
        assert brute - 1e-12 <= np.bincount(placed, q).max() <= 1.5 * brute


@pytest.mark.parametrize("rates", [[0.5] * 4, [0.9, 0.6, 0.3, 0.2], [1.0, 0.5, 0.5, 0.0]])
def test_distinct_experts_against_all_sets(rates):
    for batch in (1, 2, 4):
        _, state = top_law(batch, rates) if 1.0 not in rates else (None, sure_state(batch))
        count = {loads: sum(x > 0 for x in loads) for loads in state}
        mean = sum(p * count[x] for x, p in state.items())
        square = sum(p * count[x] ** 2 for x, p in state.items())
        assert rt.loads.distinct_experts(batch, rates) == pytest.approx(mean, rel=1e-12)
        assert rt.loads.distinct_variance(batch, rates) == pytest.approx(square - mean**2, abs=1e-12)


def sure_state(batch):
    """Expert 0 always, one of experts 1 and 2."""
    return {(batch, j, batch - j, 0): comb(batch, j) / 2**batch for j in range(batch + 1)}


def test_distinct_experts_in_50_digits_and_its_edges():
    mpmath.mp.dps = 50
    rates = np.array([1e-9, 0.3, 0.7, 1 - 2**-30])
    for batch, kappa in ((1, 0.0), (1000, 0.0), (16, 0.03125), (500, 0.5), (9, 1.0)):
        k = mpmath.mpf(kappa)
        exact = mpmath.mpf(0)
        for p in (mpmath.mpf(float(v)) for v in rates):
            none = mpmath.mpf(1)
            for j in range(batch):
                none *= 1 - p * (1 - k) / (1 + k * (j - 1)) if j or kappa < 1 else 1 - p
            exact += 1 - none
        assert close(rt.loads.distinct_experts(batch, rates, kappa), exact), (batch, kappa)
    assert rt.loads.distinct_experts([0, 1], [0.5] * 4).tolist() == [0, 2]
    assert round(float(rt.loads.distinct_experts(16, np.full(64, 6 / 64))), 1) == 50.8  # the uniform formula
    assert rt.loads.distinct_variance([0, 1, 10**6], np.full(64, 6 / 64)) == pytest.approx(0, abs=1e-11)


def plain_route(scores, bias, top, groups, kept, score):
    """One token, by loops."""
    n, chosen = len(scores), []
    size = n // groups
    value = [s + b for s, b in zip(scores, bias)]
    rank = []
    for g in range(groups):
        best = sorted(value[g * size : (g + 1) * size], reverse=True)
        rank.append((-(best[0] if score == "max" else sum(best[:2])), g))
    allowed = {g for _, g in sorted(rank)[:kept]}
    for _ in range(top):
        e = min((e for e in range(n) if e // size in allowed and e not in chosen), key=lambda e: (-value[e], e))
        chosen.append(e)
    return chosen


@pytest.mark.parametrize("score", ["top2", "max"])
@pytest.mark.parametrize(
    ("experts", "top", "groups", "kept"), [(16, 4, 4, 2), (12, 3, 6, 6), (8, 2, 8, 3), (9, 9, 1, 1)]
)
def test_group_limited_against_loops(experts, top, groups, kept, score):
    rng = RNG(2)
    for scores in (rng.random((200, experts)), rng.integers(0, 3, (200, experts)) / 4):  # the second has ties
        bias = rng.integers(-2, 3, experts) / 8
        got, weights = rt.loads.group_limited(scores, top, groups, kept, bias=bias, score=score)
        assert got.tolist() == [plain_route(list(row), list(bias), top, groups, kept, score) for row in scores]
        assert np.array_equal(weights, np.take_along_axis(scores, got, 1))


def test_group_limited_against_transformers():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    from transformers import DeepseekV3Config

    config = DeepseekV3Config(
        hidden_size=16, n_routed_experts=32, num_experts_per_tok=4, n_group=8, topk_group=3, norm_topk_prob=False
    )
    router = models.DeepseekV3TopkRouter(config)
    torch.manual_seed(0)
    torch.nn.init.normal_(router.weight)
    router.e_score_correction_bias.copy_(torch.randn(32) / 4)
    logits, weights, theirs = router(torch.randn(300, 16))
    scores = logits.sigmoid().detach().numpy().astype(float)
    ours, kept = rt.loads.group_limited(scores, 4, 8, 3, bias=router.e_score_correction_bias.numpy().astype(float))
    assert np.array_equal(np.sort(theirs.numpy(), axis=1), np.sort(ours, axis=1))
    weights = weights.detach().numpy() / config.routed_scaling_factor
    assert np.allclose(np.sort(weights), np.sort(kept), rtol=1e-5)


@pytest.mark.parametrize(("experts", "top", "groups", "kept"), [(6, 2, 3, 2), (6, 3, 2, 2), (6, 2, 3, 1), (7, 3, 7, 4)])
def test_choices_of_groups_against_all_orders(experts, top, groups, kept):
    size, law, same, other, orders = experts // groups, Counter(), Fraction(0), Fraction(0), 0
    for order in permutations(range(experts)):
        chosen = plain_route(list(order), [0] * experts, top, groups, kept, "max")
        law[sum(e < size for e in chosen)] += 1
        same += size > 1 and {0, 1} <= set(chosen)
        other += {0, experts - 1} <= set(chosen)
        orders += 1
    exact = [law[j] / orders for j in range(min(top, size) + 1)]
    assert np.allclose(rt.loads.top_of_groups(experts, top, groups, kept), exact, atol=1e-14)
    pairs = rt.loads.pair_rates(experts, top, groups, kept)
    assert pairs.one == top / experts
    assert pairs.same == pytest.approx(same / orders, abs=1e-14)
    if groups > 1:
        assert pairs.different == pytest.approx(other / orders, abs=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LargestLoad(0, [1.0]), "tokens = 0 must be a whole number between 1 and 1048576"),
        (lambda: LargestLoad(8, [0.5, 0.6]), "shares sums to 1.1"),
        (lambda: LargestLoad(8, [[1.0]]), r"shares has shape \(1, 1\) but must be \(experts,\)"),
        (lambda: LargestLoad(8, [0.9, 0.1], top=2), "times top is 1.8 but must be at most 1"),
        (lambda: LargestLoad(8, [0.5, 0.5], top=3), "top = 3 must be a whole number between 1 and experts = 2"),
        (lambda: LargestLoad(8, [0.5, 0.5], placement=[0, 2]), "puts no expert on device 1"),
        (lambda: LargestLoad(8, [0.5, 0.5], placement=[0]), r"placement has shape \(1,\)"),
        (lambda: LargestLoad(8, [0.5, 0.5], counts=rt.BetaBinomial([0.1, 0.2])), "counts.correlation has shape"),
        (
            lambda: LargestLoad(8, [0.25] * 4, 2, [0, 0, 1, 1], rt.BetaBinomial(0.1)),
            "simulate it with rt.tokens.routing",
        ),
        (lambda: LargestLoad(8, [0.5, 0.5]).cdf(-1), "load = -1 must be"),
        (lambda: LargestLoad(8, [0.5, 0.5]).quantile(1.0), r"probability = 1.0 must be a finite number in \(0, 1\)"),
        (lambda: rt.loads.replicate([0.5, 0.5], 1), "replicas = 1 must be a whole number between 2"),
        (lambda: rt.loads.place([0.5, 0.25, 0.25], 2), "devices = 2 must divide the 3 slots"),
        (lambda: rt.loads.least_largest(np.full(25, 0.04), 5), "at most 24"),
        (lambda: rt.loads.choice_weights([0.5, 0.7]), "rates sum to 1.2"),
        (lambda: rt.loads.distinct_experts(-1, [0.5]), "batch = -1"),
        (lambda: rt.loads.distinct_variance(2, [0.5, 0.5], joint=[[0.5]]), "joint has shape"),
        (lambda: rt.loads.group_limited([0.5] * 8, 5, 4, 2), "top = 5 must be a whole number between 1 and"),
        (lambda: rt.loads.group_limited([0.5] * 8, 2, 3, 2), "groups = 3 must divide the 8 experts"),
        (lambda: rt.loads.group_limited([np.nan] * 8, 2, 4, 2), "scores"),
        (lambda: rt.loads.group_limited([0.5] * 8, 2, 4, 2, bias=[0.0]), "bias has shape"),
        (lambda: rt.loads.pair_rates(8, 2, 4, 2, law=[1.0, 0.0]), "law has the mean 0"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
