"""Caches of experts: exact allocation and hit rates against enumeration, and refusals."""

import itertools

import numpy as np
import pytest

from resonance_theory import systems


def brute(loads, slots, least):
    layers, n = loads.shape[0], loads.shape[1] - 1
    splits = (t for t in itertools.product(range(least, n + 1), repeat=layers) if sum(t) == slots)
    return min(sum(loads[i, t] for i, t in enumerate(split)) for split in splits)


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("least", [0, 1])
def test_allocation_is_the_best_of_all_splits(convex, least):
    rng = np.random.default_rng(3)
    for _ in range(30):
        layers, n = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        steps = rng.random((layers, n))
        steps = -np.sort(-steps, axis=1) if convex else steps
        loads = np.concatenate([np.zeros((layers, 1)), -steps.cumsum(axis=1)], axis=1) + 9
        for slots in range(layers * least, layers * n + 1):
            taken = systems.allocate_slots(loads, slots, least)
            assert taken.sum() == slots
            assert (taken >= least).all()
            assert loads[np.arange(layers), taken].sum() == pytest.approx(brute(loads, slots, least))


def test_many_layers_by_both_ways():
    """Greedy and the dynamic programme agree on the paper's size; a bend of 1e-9 sends the second one."""
    rng = np.random.default_rng(0)
    loads = systems.expected_loads(8, rng.random(32), rng.random(32))
    bent = loads.copy()
    bent[0, 4] -= 1e-9
    for slots in (0, 1, 32, 64, 128, 255, 256):
        one, two = systems.allocate_slots(loads, slots), systems.allocate_slots(bent, slots)
        rows = np.arange(32)
        assert loads[rows, one].sum() == pytest.approx(loads[rows, two].sum(), abs=1e-8)


def test_expected_loads_broadcast():
    r, a = np.array([[0.0], [0.5], [1.0]]), np.array([0.0, 0.9])
    table = systems.expected_loads(8, r, a)
    assert table.shape == (3, 2, 9)
    np.testing.assert_allclose(table[..., 8], 0, atol=1e-15)
    np.testing.assert_allclose(table[0, 0], 2 * (1 - np.arange(9) / 8))
    np.testing.assert_allclose(table[2, 1], 0.1 * (1 - np.arange(9) / 8), atol=1e-15)


def lru_by_hand(requests, slots, experts):
    held, hits = list(range(experts)), 0
    for expert in requests:
        place = held.index(expert)
        hits += place < slots
        held.insert(0, held.pop(place))
    return hits / len(requests)


def test_lru_against_a_cache_kept_by_hand():
    """Ten settings; a long run is off by five standard errors at most, correlation of hits included by the batch means."""
    rng = np.random.default_rng(0)
    for seed in range(10):
        p = np.random.default_rng(seed).dirichlet(np.full(7, 0.7))
        slots = 1 + seed % 6
        batches = [lru_by_hand(rng.choice(7, 3000, p=p).tolist(), slots, 7) for _ in range(12)]
        error = np.std(batches, ddof=1) / len(batches) ** 0.5
        assert abs(np.mean(batches) - systems.lru_hit_rate(p, slots)) < 5 * error + 5 / 3000


def test_rates_at_their_ends():
    p = [0.5, 0.3, 0.2, 0.0]
    for rate in (systems.static_hit_rate, systems.lru_hit_rate, systems.che_hit_rate):
        assert rate(p, 0) == 0
        assert rate(p, 4) == pytest.approx(1)
        assert rate(p, 3) == pytest.approx(1)
        values = [rate(p, c) for c in range(5)]
        assert values == sorted(values)
    tiny = np.array([1 - 3e-300, 1e-300, 1e-300, 1e-300])
    assert systems.lru_hit_rate(tiny / tiny.sum(), 2) == pytest.approx(1)
    assert systems.che_hit_rate(np.full(1000, 1e-3), 100) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: systems.keeps_one(0.2, 0, 0.1), "sensitivity = 0"),
        (lambda: systems.keeps_one(0.2, 1, -1), "threshold = -1"),
        (lambda: systems.expected_loads(1), "experts = 1"),
        (lambda: systems.expected_loads(8, 1.5), "single"),
        (lambda: systems.expected_loads(8, 0.5, np.nan), "accuracy"),
        (lambda: systems.allocate_slots([1, 2], 1), "loads has shape"),
        (lambda: systems.allocate_slots([[2, 1, 0]], 3), "slots = 3"),
        (lambda: systems.allocate_slots([[2, 1, 0]], 1, least=3), "least = 3"),
        (lambda: systems.allocate_slots([[2, 1, 0]] * 2, 1, least=1), "slots = 1"),
        (lambda: systems.static_hit_rate([0.5, 0.6], 1), "shares sums to"),
        (lambda: systems.lru_hit_rate([0.5, 0.5], 3), "slots = 3"),
        (lambda: systems.lru_hit_rate(np.full(17, 1 / 17), 3), "take che_hit_rate"),
        (lambda: systems.che_hit_rate([[1.0]], 1), "shares has shape"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
