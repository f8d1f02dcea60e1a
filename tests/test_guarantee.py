"""Guarantees from finite logs: ranks, least capacities, coverage, and what is said of a log that is too short."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from resonance_theory.logs import RoutingLog, guarantee, held, least_capacities

RNG = np.random.default_rng


def test_least_capacities_are_least():
    rng = RNG(0)
    for target in (0.0, 0.01, 0.1, 0.5, 0.9):
        loads = rng.integers(0, 40, size=(60, 7)) * rng.integers(0, 2, size=(60, 7))
        loads[:, 0] += 1
        for row, found in zip(loads, least_capacities(loads, target)):
            goal = Fraction(str(target)) * int(row.sum())

            def lost(c, row=row):
                return int(np.maximum(row - c, 0).sum())

            assert lost(found) <= goal
            assert found == 1 or lost(found - 1) > goal


def test_targets_are_the_decimals_that_were_typed():
    # a tenth of 30 tokens is 3, which 0.1 as a double would exceed
    assert least_capacities([[13, 10, 7]], 0.1).tolist() == [10]
    assert least_capacities([[2**39, 1]], 0.0).tolist() == [2**39]


def test_ranks_and_how_many_steps_are_needed():
    assert held(19, 19) == Fraction(19, 20)
    assert held(19, 19, ahead=2) == Fraction(19, 21)
    for confidence, ahead, needed in ((0.95, 1, 19), (0.9, 1, 9), (0.99, 1, 99), (0.95, 4, 76), (0.5, 1, 1)):
        loads = RNG(1).multinomial(500, [0.4, 0.3, 0.3], size=needed)
        enough = guarantee(loads, 0.02, confidence, ahead=ahead)
        assert enough.needed == needed
        assert enough.capacity == least_capacities(loads, 0.02).max()
        assert enough.attained >= confidence
        if needed > 1:
            short = guarantee(loads[1:], 0.02, confidence, ahead=ahead)
            assert (short.capacity, short.factor, short.attained) == (None, None, None)
            assert f"has {needed - 1} step" in str(short)
            assert f"but {needed} are needed" in str(short)
            assert "\n" not in str(short)


def test_more_steps_ask_for_less_than_the_largest():
    loads = RNG(2).multinomial(500, [0.4, 0.3, 0.3], size=200)
    found = guarantee(loads, 0.02, 0.9)
    assert found.capacity == np.sort(least_capacities(loads, 0.02))[180]  # rank 181 of 200: 181/201 = 0.9005
    assert found.attained == pytest.approx(181 / 201)
    assert found.parametric_capacity == pytest.approx(found.capacity, abs=3)
    assert found.factor == pytest.approx(found.capacity * 3 / 500)


def test_steps_of_unequal_size_get_a_factor():
    rng = RNG(3)
    loads = np.array([rng.multinomial(n, [0.4, 0.3, 0.3]) for n in rng.integers(300, 900, size=40)])
    found = guarantee(loads, 0.02)
    assert found.capacity is None
    assert found.parametric_capacity is None
    factors = np.sort(least_capacities(loads, 0.02) * 3 / loads.sum(axis=1))
    assert found.factor == pytest.approx(factors[38])


def test_logs_of_counts_and_of_choices_give_the_same():
    rng = RNG(4)
    choices = rng.choice(5, size=(2000, 2, 1), p=[0.4, 0.2, 0.2, 0.1, 0.1])
    log = RoutingLog(experts=5, choices=choices)
    counts = RoutingLog(experts=5, counts=log.loads(50), tokens=np.full(40, 50))
    for layer in (0, 1):
        assert guarantee(log, 0.05, layer=layer, block=50) == guarantee(counts, 0.05, layer=layer)


def coverage(draw, steps, trials, level, parametric=False):
    kept = 0
    for _ in range(trials):
        loads = draw(steps + 1)
        found = guarantee(loads[:steps], 0.03, level)
        capacity = found.parametric_capacity if parametric else found.capacity
        kept += np.maximum(loads[-1] - capacity, 0).sum() <= 0.03 * loads[-1].sum()
    return kept / trials


def test_coverage_whatever_the_law():
    """Steps of heavy and light kinds: the distribution-free capacity covers; the log-normal one does not."""
    rng = RNG(6)

    def draw(count):
        # one step in ten has a wholly different router
        heavy = rng.random(count) < 0.1
        return np.array([rng.multinomial(400, [0.8, 0.1, 0.1] if h else [0.34, 0.33, 0.33]) for h in heavy])

    free = coverage(draw, 39, 1500, 0.95)
    assert free > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 1500)
    normal = coverage(draw, 39, 1500, 0.95, parametric=True)
    assert normal < 0.95 - 4 * np.sqrt(0.95 * 0.05 / 1500)


def test_parametric_covers_where_its_law_holds():
    rng = RNG(7)

    def draw(count):
        factor = np.exp(0.2 * rng.standard_normal(count)) * 0.2 + 0.25
        heavy = np.rint(1e6 * np.minimum(factor, 0.95)).astype(int)
        return np.stack([heavy, (10**6 - heavy) // 2, 10**6 - heavy - (10**6 - heavy) // 2], axis=1)

    rate = coverage(draw, 12, 1500, 0.9, parametric=True)
    assert rate == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(
    ("kind", "pattern", "call"),
    [
        (ValueError, r"loads has shape \(3,\) but must have the axes", lambda: guarantee([1, 2, 3], 0.1)),
        (ValueError, r"loads has shape \(0, 3\)", lambda: guarantee(np.zeros((0, 3), int), 0.1)),
        (ValueError, r"loads\[1, 0\] = -1 must be a whole number", lambda: guarantee([[1, 2], [-1, 2]], 0.1)),
        (TypeError, "loads = .* must be a whole number", lambda: guarantee([[0.5, 2.0]], 0.1)),
        (ValueError, r"loads\[1\] must have at least one token", lambda: guarantee([[1, 2], [0, 0]], 0.1)),
        (ValueError, r"target = 1.0 must be a finite number in \[0, 1\)", lambda: guarantee([[1, 2]], 1.0)),
        (ValueError, r"confidence = 1.0 must be a finite number in \(0, 1\)", lambda: guarantee([[1, 2]], 0.1, 1.0)),
        (ValueError, "ahead = 0 must be a whole number", lambda: guarantee([[1, 2]], 0.1, ahead=0)),
        (ValueError, "rank = 4 must be a whole number between 1 and steps = 3", lambda: held(4, 3)),
        (
            ValueError,
            "block must be given for a log of choices",
            lambda: guarantee(RoutingLog(experts=2, choices=np.zeros((4, 1, 1), int)), 0.1),
        ),
        (
            ValueError,
            "block = 9 must be at most the log's 4 tokens",
            lambda: guarantee(RoutingLog(experts=2, choices=np.zeros((4, 1, 1), int)), 0.1, block=9),
        ),
        (
            ValueError,
            "layer = 1 must be",
            lambda: guarantee(RoutingLog(experts=2, choices=np.zeros((4, 1, 1), int)), 0.1, block=2, layer=1),
        ),
    ],
)
def test_bad_input_is_one_sentence(kind, pattern, call):
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)
