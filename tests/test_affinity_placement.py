"""Placement by inter-layer affinity: counts, exact and searched placements, the bound, and what is refused."""

import itertools

import numpy as np
import pytest

from resonance_theory import logs
from resonance_theory.logs.log import RoutingLog
from resonance_theory.systems import _affinity_bounds
from resonance_theory.systems import _affinity_search as search
from resonance_theory.systems._affinity_bounds import assignment_bound, least_cost, spectral_bound
from resonance_theory.systems.affinity_placement import (
    coherence_ratio,
    place_by_affinity,
    placement_cost,
    transitions,
)


def cost_by_hand(weight, device, devices, nodes, price):
    """The cost with loops over entries, apart from the package's."""
    total, per_node, found = weight.sum(), devices // nodes, 0.0
    for layer, step in enumerate(weight):
        for i, j in itertools.product(range(len(step)), repeat=2):
            a, b = device[layer][i], device[layer + 1][j]
            found += step[i, j] / total * (int(a != b) + (int(a // per_node != b // per_node) if nodes > 1 else 0))
    tokens = [*weight.sum(axis=2), weight[-1].sum(axis=0)]
    uneven = 0.0
    for load, place in zip(tokens, device):
        loads = [sum(load[i] for i in range(len(place)) if place[i] == d) for d in range(devices)]
        uneven += max(loads) * devices / sum(loads) - 1
    return found + price * uneven / len(device)


def every_placement(experts, devices, layers):
    one = sorted(set(itertools.permutations([d for d in range(devices) for _ in range(experts // devices)])))
    return itertools.product(one, repeat=layers)


CASES = [(3, 3, 1, 0.0), (3, 3, 3, 0.0), (4, 2, 1, 0.0), (4, 2, 1, 0.4), (4, 2, 2, 0.0), (4, 1, 1, 0.3), (4, 2, 2, 0.4)]


@pytest.mark.parametrize(("experts", "devices", "nodes", "price"), CASES)
def test_the_exact_placement_is_the_best_of_all(experts, devices, nodes, price):
    rng = np.random.default_rng(experts + devices)
    for _ in range(3):
        weight = rng.integers(0, 20, (2, experts, experts)).astype(float)
        found = place_by_affinity(weight, devices, nodes=nodes, load_weight=price)
        best = min(
            cost_by_hand(weight, x, devices, nodes, price) for x in every_placement(experts, devices, len(weight) + 1)
        )
        assert found.gap == 0
        assert found.cost == pytest.approx(best, abs=1e-12)
        assert cost_by_hand(weight, found.device, devices, nodes, price) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("models", [3, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.parametrize(("nodes", "price"), [(1, 0.0), (2, 0.0), (1, 0.3), (2, 0.3)])
def test_the_search_lies_between_the_bound_and_random_and_often_meets_the_optimum(nodes, price, models):
    rng, met = np.random.default_rng(1), 0
    for _ in range(models):
        weight = rng.integers(0, 20, (4, 8, 8)) ** 3.0
        problem = search.Problem(weight / weight.sum(), 4, nodes, price)
        best = problem.value(search.by_partitions(problem))
        found = [search.local_search(problem, start) for start in search._starts(problem, 16, rng)]
        device = max(found, key=problem.value)
        assert (np.sort(device, axis=1) == np.arange(8) // 2).all()  # equal groups stay
        assert problem.value(device) <= best + 1e-12
        met += problem.value(device) > best - 1e-12
        cost = cost_by_hand(weight, search.by_partitions(problem), 4, nodes, price)
        assert least_cost(problem) <= cost + 1e-12
        assert cost_by_hand(weight, device, 4, nodes, price) <= 2 - 1 / 4 - (nodes == 2) / 2 + price
    assert met >= models // 2


@pytest.mark.parametrize(("nodes", "price"), [(1, 0.0), (2, 0.0), (2, 0.3)])
def test_a_swap_is_the_best_of_all_sets_of_swaps(nodes, price):
    rng = np.random.default_rng(2)
    weight = rng.random((2, 6, 6)) ** 3
    problem = search.Problem(weight / weight.sum(), 2 if nodes == 1 else 6, nodes, price)
    each = 6 // problem.devices
    for one, other in itertools.combinations(range(problem.devices), 2):
        device = rng.permuted(np.tile(np.arange(6) // each, (3, 1)), axis=1)
        options = []
        for layer in device:
            swaps = [layer]
            for i, j in itertools.product(np.flatnonzero(layer == one), np.flatnonzero(layer == other)):
                swaps.append(layer.copy())
                swaps[-1][[i, j]] = layer[[j, i]]
            options.append(swaps)
        best = max(problem.value(np.array(x)) for x in itertools.product(*options))
        before = problem.value(device)
        helped = search.swap(problem, device, one, other)
        assert problem.value(device) == pytest.approx(best, abs=1e-12)
        assert helped == (best > before + 1e-12)


@pytest.mark.parametrize("layers", [6, pytest.param(32, marks=pytest.mark.long)])
def test_planted_groups_are_found_at_the_papers_size(layers):
    """Experts in hidden groups of eight that never mix: nothing need cross, and the bound says so."""
    rng = np.random.default_rng(3)
    group = [rng.permutation(np.arange(64) // 8) for _ in range(layers)]
    weight = np.array([(a[:, None] == b) * rng.random((64, 64)) for a, b in itertools.pairwise(group)])
    found = place_by_affinity(weight, 8, starts=1)
    assert found.crossing == pytest.approx(0, abs=1e-12)
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert place_by_affinity(weight, 8, nodes=2, starts=1).cost == pytest.approx(0, abs=1e-12)


def test_bounds_without_structure_are_those_of_random_placement():
    flat = np.full((6, 6), 1 / 36)
    for groups in (1, 2, 3, 6):
        assert assignment_bound(flat, groups) == pytest.approx(1 / groups, abs=1e-9)
        assert spectral_bound(flat, groups) == pytest.approx(1 / groups, abs=1e-9)


def test_the_bound_of_many_experts_is_looser_and_holds(monkeypatch):
    weight = np.random.default_rng(5).random((8, 8)) ** 6
    sharp = assignment_bound(weight, 4)
    monkeypatch.setattr(_affinity_bounds, "_MOST_BY_PROGRAMME", 4)
    loose = assignment_bound(weight, 4)
    assert sharp <= loose + 1e-9
    assert loose == pytest.approx(min(sum(np.sort(row)[-2:].sum() for row in w) for w in (weight, weight.T)))
    assert (1 - place_by_affinity(weight[None], 4).crossing) * weight.sum() <= sharp + 1e-9


def test_huge_numbers_of_layers_and_devices_do_not_overflow():
    assert coherence_ratio(2**62, 2**62, 0.5, 0.5) == pytest.approx(1.5)


def test_steps_are_counted_over_pairs_and_padding_is_left_out():
    rng = np.random.default_rng(4)
    choices = np.array([rng.permuted(np.tile(np.arange(5), (3, 1)), axis=1)[:, :2] for _ in range(40)])
    choices[::7, 1, 0] = -1
    choices[::11, 2] = -1
    wanted = np.zeros((2, 5, 5))
    for token in choices:
        for step in range(2):
            pairs = [(i, j) for i in token[step] for j in token[step + 1] if i >= 0 and j >= 0]
            for i, j in pairs:
                wanted[step, i, j] += 1 / len(pairs)
    assert transitions(choices, 5) == pytest.approx(wanted, abs=1e-12)
    log = RoutingLog(experts=5, choices=choices, weights=rng.random(choices.shape))
    heaviest = transitions(log, heaviest=True)
    for step in range(2):
        by_hand = np.zeros((5, 5))
        for token, weight in zip(choices, log.weights):
            tops = [
                max((w, e) for w, e in zip(weight[k], token[k]) if e >= 0)[1] if (token[k] >= 0).any() else -1
                for k in (step, step + 1)
            ]
            if min(tops) >= 0:
                by_hand[tops[0], tops[1]] += 1
        assert heaviest[step] == pytest.approx(by_hand, abs=1e-12)


def test_the_embedded_log_and_its_first_choices():
    log = logs.read(logs.example())
    profile = transitions(log, heaviest=True)
    assert profile.shape == (3, 16, 16)
    assert profile.sum(axis=(1, 2)).tolist() == [len(log)] * 3
    assert transitions(log).sum(axis=(1, 2)) == pytest.approx([len(log)] * 3)
    found = place_by_affinity(profile, 16)
    assert found.crossing < 1 - 1 / 16
    assert placement_cost(profile, found.device) == pytest.approx(found[1:4])
    scaled = place_by_affinity(profile * 1e300, 16)
    assert (scaled.device == found.device).all()
    assert scaled.cost == pytest.approx(found.cost, abs=1e-12)


EYE = np.eye(4)[None]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: place_by_affinity(EYE, 8), "devices = 8 must be a whole number between 1 and experts = 4"),
        (lambda: place_by_affinity(EYE, 3), "devices = 3 must divide the 4 experts of a layer into equal groups"),
        (lambda: place_by_affinity(EYE, 4, nodes=3), "nodes = 3 must divide devices = 4 into equal groups"),
        (lambda: place_by_affinity(EYE, 2, nodes=4), "nodes = 4 must be .* between 1 and devices = 2"),
        (lambda: place_by_affinity(EYE, 0), "devices = 0"),
        (lambda: place_by_affinity(EYE, 2, load_weight=-1), "load_weight = -1"),
        (lambda: place_by_affinity(EYE, 2, load_weight=np.inf), "load_weight = inf"),
        (lambda: place_by_affinity(EYE, 2, starts=0), "starts = 0"),
        (lambda: place_by_affinity(EYE, 2, seed=-1), "seed = -1"),
        (lambda: place_by_affinity(-EYE, 2), r"transitions\[0, 0, 0\] = -1.0"),
        (lambda: place_by_affinity(EYE * np.nan, 2), r"transitions\[0, 0, 0\] = nan"),
        (lambda: place_by_affinity(EYE * 0, 2), "transitions is 0 throughout"),
        (lambda: place_by_affinity(np.stack([EYE[0], 0 * EYE[0]]), 2), r"transitions\[1\] is 0 throughout"),
        (lambda: place_by_affinity(np.eye(4), 2), r"transitions has shape \(4, 4\)"),
        (lambda: place_by_affinity(np.ones((1, 2, 3)), 1), r"transitions has shape \(1, 2, 3\)"),
        (lambda: place_by_affinity(np.ones((0, 2, 2)), 1), r"transitions has shape \(0, 2, 2\)"),
        (lambda: placement_cost(EYE, [[0, 1, 0, 1]]), r"device has shape \(1, 4\) but must have shape \(2, 4\)"),
        (lambda: placement_cost(EYE, np.full((2, 4), -1)), r"device\[0, 0\] = -1"),
        (lambda: placement_cost(EYE, np.full((2, 4), 3), 2), r"device\[0, 0\] = 3 must be .* between 0 and 1"),
        (lambda: placement_cost(EYE, np.tile(np.arange(3 + 1), (2, 1)), nodes=3), "nodes = 3 must divide devices = 4"),
        (lambda: transitions([[0, 1]]), "experts = None must be given"),
        (lambda: transitions([0, 1], 2), r"choices has shape \(2,\)"),
        (lambda: transitions([[0], [1]], 2), "choices has 1 layer but must have at least 2"),
        (lambda: transitions([[0, 2]], 2), "must be -1 to 1"),
        (lambda: transitions([[[0, 1], [1, 0]], [[0, 1], [1, 0]]], 2, heaviest=True), "heaviest needs gate weights"),
        (lambda: transitions(logs.read(logs.example()), 8), "experts = 8 must be the log's, 16"),
        (lambda: coherence_ratio(0, 8, 0.5, 0.5), "layers = 0"),
        (lambda: coherence_ratio(2, 8, 0.5, 0.0), "crossing = 0.0"),
        (lambda: coherence_ratio(2, 8, 1.5, 0.5), "placed = 1.5"),
        (lambda: coherence_ratio([2, 3], [8, 8, 8], 0.5, 0.5), "must broadcast together"),
    ],
)
def test_wrong_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: place_by_affinity("x", 2),
        lambda: place_by_affinity(EYE, 2.0),
        lambda: place_by_affinity(EYE, True),
        lambda: transitions([[0.5, 1]], 2),
        lambda: placement_cost(EYE, np.zeros((2, 4))),
    ],
)
def test_wrong_types_are_named(call):
    with pytest.raises(TypeError, match="must be a"):
        call()


def test_counts_without_choices_are_refused():
    log = RoutingLog(experts=2, counts=np.ones((1, 2, 2), int), tokens=[2])
    with pytest.raises(ValueError, match="a log of counts has no single tokens"):
        transitions(log)
