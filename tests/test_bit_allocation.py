"""Bit allocation against a linear integer programme of SciPy, and against greedy, which is not exact."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from resonance_theory.systems.bit_allocation import allocate_bits

BITS = np.array([1, 2, 3])


def least_cost(cost: np.ndarray, budget: int) -> float:
    experts = len(cost)
    one_each = LinearConstraint(np.kron(np.eye(experts), np.ones(3)), 1, 1)
    spent = LinearConstraint(np.tile(BITS, experts), budget, budget)
    return milp(cost.ravel(), integrality=np.ones(cost.size), bounds=(0, 1), constraints=[one_each, spent]).fun


def paid(cost: np.ndarray, bits: np.ndarray) -> float:
    return float(cost[np.arange(len(cost)), bits - 1].sum())


def greedy(cost: np.ndarray, budget: int) -> np.ndarray:
    bits = np.ones(len(cost), dtype=int)
    for _ in range(budget - len(cost)):
        gain = [cost[i, b - 1] - cost[i, b] if b < 3 else -np.inf for i, b in enumerate(bits)]
        bits[np.argmax(gain)] += 1
    return bits


@pytest.mark.parametrize("budget", range(8, 25, 2))
def test_cost_is_that_of_the_integer_programme(budget):
    for seed in range(4):
        cost = np.random.default_rng(seed).random((8, 3))
        bits = allocate_bits(cost, budget)
        assert bits.sum() == budget
        assert paid(cost, bits) == pytest.approx(least_cost(cost, budget), rel=1e-9)


def test_greedy_is_not_exact():
    cost = np.array([[9.0, 9, 0], [5, 3, 2]])
    assert paid(cost, allocate_bits(cost, 4)) == 5 < paid(cost, greedy(cost, 4))


@pytest.mark.parametrize("budget", [7, 25])
def test_a_budget_out_of_range_is_one_sentence(budget):
    with pytest.raises(ValueError, match=rf"budget must be in \[8, 24\] .* got {budget}"):
        allocate_bits(np.ones((8, 3)), budget)


def test_a_budget_that_no_widths_reach_is_one_sentence():
    with pytest.raises(ValueError, match="budget must be a sum of 2 widths"):
        allocate_bits(np.ones((2, 2)), 5, bits=(2, 4))


@pytest.mark.parametrize("cost", [np.ones(3), np.ones((2, 2)), np.ones((0, 3))])
def test_shapes_are_checked(cost):
    with pytest.raises(ValueError, match="cost must have shape"):
        allocate_bits(cost, 4)
