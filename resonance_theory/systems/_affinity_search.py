"""Search for placements by affinity: a chain of assignments, a dynamic programme over partitions, and a local search.

All maximise the same value: the reward of every step, 1 for the same device and (with nodes) 1 more for the same node,
less the price of unequal loads. The cost is a constant less the value.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from resonance_theory.typing import Floats, Whole

_MOST_PARTITIONS = 3000
_TINY = 1e-12  # shares below which an improvement is rounding


@dataclass(frozen=True)
class Problem:
    """weight: share of each step (layers - 1, experts, experts), summing to 1; price: of the imbalance."""

    weight: Floats
    devices: int
    nodes: int
    price: float

    @property
    def layers(self) -> int:
        return len(self.weight) + 1

    @property
    def experts(self) -> int:
        return self.weight.shape[1]

    @property
    def each(self) -> int:
        """Experts of a layer on a device."""
        return self.experts // self.devices

    @cached_property
    def load(self) -> Floats:
        """Share of each expert in its layer's tokens, (layers, experts)."""
        tokens = np.concatenate([self.weight.sum(axis=2), self.weight[-1:].sum(axis=1)])
        return np.asarray(tokens / tokens.sum(axis=1, keepdims=True))

    @cached_property
    def reward(self) -> Floats:
        """Reward of a step from one device to another, (devices, devices)."""
        node = np.arange(self.devices) // (self.devices // self.nodes)
        same = np.eye(self.devices)
        return same if self.nodes == 1 else same + (node[:, None] == node)

    def loads(self, device: Whole) -> Floats:
        """Share of each device in each layer's tokens, (layers, devices)."""
        found = [np.bincount(place, share, self.devices) for place, share in zip(device, self.load)]
        return np.array(found, np.float64)

    def penalty(self, loads: Floats) -> Floats:
        """Price of a layer's device loads, (..., devices)."""
        return np.asarray(self.price * (self.devices * loads.max(axis=-1) - 1) / self.layers)

    def value(self, device: Whole) -> float:
        gain = sum(float((w * self.reward[a[:, None], b]).sum()) for w, a, b in zip(self.weight, device, device[1:]))
        if not self.price:
            return gain
        return gain - float(self.penalty(self.loads(device)).sum())


def best_placement(problem: Problem, starts: int, rng: np.random.Generator) -> tuple[Whole, bool]:
    """The best placement found, and whether it is optimal for certain."""
    if problem.devices == 1:
        return np.zeros((problem.layers, problem.experts), np.int64), True
    if problem.each == 1 and problem.nodes in (1, problem.devices):
        return chain(problem.weight), True
    if factorial(problem.experts) // factorial(problem.each) ** problem.devices <= _MOST_PARTITIONS:
        return by_partitions(problem), True
    found = [local_search(problem, start) for start in _starts(problem, starts, rng)]
    return max(found, key=problem.value), False


def chain(weight: Floats) -> Whole:
    """One expert a device: each layer's best assignment to the one before; exact, as the permutations are free."""
    device = [np.arange(weight.shape[1])]
    for step in weight:
        _, follower = linear_sum_assignment(step, maximize=True)
        placed = np.empty_like(device[-1])
        placed[follower] = device[-1]
        device.append(placed)
    return np.array(device)


def partitions(experts: int, devices: int) -> Whole:
    """All balanced placements of a layer, (number, experts)."""
    found = [np.full(experts, -1)]
    for device in range(devices):
        found = [
            _put(place, free, device)
            for place in found
            for free in itertools.combinations(np.flatnonzero(place < 0), experts // devices)
        ]
    return np.array(found)


def _put(place: Whole, experts: Sequence[Any], device: int) -> Whole:
    result = place.copy()
    result[list(experts)] = device
    return result


def by_partitions(problem: Problem) -> Whole:
    """Exact: the best path through the balanced placements of the layers, from the last to the first."""
    states = partitions(problem.experts, problem.devices)
    on = np.eye(problem.devices)[states]  # (states, experts, devices)
    flat = on.reshape(len(states), -1)
    own = (
        -problem.penalty(np.einsum("le,sed->lsd", problem.load, on)) if problem.price else np.zeros((problem.layers, 1))
    )
    ahead, steps = own[-1] + np.zeros(len(states)), []
    for layer in range(problem.layers - 2, -1, -1):
        reached = np.einsum("ij,sjq,pq->sip", problem.weight[layer], on, problem.reward).reshape(len(states), -1)
        total = flat @ reached.T + ahead
        steps.append(total.argmax(axis=1))
        ahead = own[layer] + total.max(axis=1)
    path = [int(ahead.argmax())]
    for step in reversed(steps):
        path.append(int(step[path[-1]]))
    return states[path]


def _starts(problem: Problem, count: int, rng: np.random.Generator) -> list[Whole]:
    """The lines of the chain dealt to devices by affinity, then at random."""
    line = chain(problem.weight)
    first = _grouped(problem, line)
    others = [rng.permutation(np.repeat(np.arange(problem.devices), problem.each))[line] for _ in range(count - 1)]
    return [first, *others]


def _grouped(problem: Problem, line: Whole) -> Whole:
    """Lines of experts onto devices: each device takes a free line, then those most tied to what it has."""
    rows = np.arange(problem.experts)
    order = np.argsort(line, axis=1)  # expert of each line
    tie = sum(w[np.ix_(a, b)] for w, a, b in zip(problem.weight, order, order[1:]))
    tie = np.asarray(tie + np.transpose(tie))
    device = np.full(problem.experts, -1)
    for place in range(problem.devices):
        free = rows[device < 0]
        taken = [int(free[tie[np.ix_(free, free)].sum(axis=1).argmax()])]
        while len(taken) < problem.each:
            left = np.setdiff1d(free, taken)
            taken.append(int(left[tie[left][:, taken].sum(axis=1).argmax()]))
        device[taken] = place
    return device[line]


def local_search(problem: Problem, device: Whole) -> Whole:
    """Improve until neither a layer anew nor swaps between two devices in all layers help."""
    device, value = device.copy(), problem.value(device)
    pairs = list(itertools.combinations(range(problem.devices), 2))
    scope = {pair: _scope(problem, *pair) for pair in pairs}
    changed, seen, now = np.zeros(problem.devices, np.int64), dict.fromkeys(pairs, -1), 0
    while True:
        before = device.copy()
        _layers_anew(problem, device)
        now += 1
        moved = before != device
        changed[before[moved]] = changed[device[moved]] = now
        for pair in pairs:
            if changed[scope[pair]].max() <= seen[pair]:
                continue  # nothing that its swaps depend on has changed since they did not help
            now += 1
            if swap(problem, device, *pair):
                changed[list(pair)] = now
            else:
                seen[pair] = now
        reached = problem.value(device)
        if reached <= value + _TINY:
            return device
        value = reached


def _scope(problem: Problem, one: int, other: int) -> Whole:
    """The devices on which the gain of a swap between two devices depends."""
    everywhere = np.arange(problem.devices)
    if problem.price:
        return everywhere
    return everywhere[(problem.reward[:, one] != problem.reward[:, other]) | (everywhere == one)]


def _layers_anew(problem: Problem, device: Whole) -> None:
    """Each layer's best assignment against its neighbours, if it is better with the loads as well."""
    value = problem.value(device)
    for layer in range(problem.layers):
        gain = np.zeros((problem.experts, problem.devices))
        if layer:
            gain += problem.weight[layer - 1].T @ problem.reward[device[layer - 1]]
        if layer < problem.layers - 1:
            gain += problem.weight[layer] @ problem.reward[device[layer + 1]]
        _, slot = linear_sum_assignment(np.repeat(gain, problem.each, axis=1), maximize=True)
        before = device[layer].copy()
        device[layer] = slot // problem.each
        reached = problem.value(device) if problem.price else value
        if reached < value - _TINY:
            device[layer] = before
        value = max(value, reached)


def swap(problem: Problem, device: Whole, one: int, other: int) -> bool:
    """The best set of at most one swap in each layer between two devices, by dynamic programming; whether one helps."""
    out, back = _pairs(device, one, other)
    toward = problem.reward[:, other] - problem.reward[:, one]
    twice = toward[other] - toward[one]
    own = np.zeros(device.shape)  # what each expert gains on the other device against the neighbours as they are
    own[:-1] += np.einsum("lij,lj->li", problem.weight, toward[device[1:]])
    own[1:] += np.einsum("lij,li->lj", problem.weight, toward[device[:-1]])
    gain = np.take_along_axis(own, out, 1) - np.take_along_axis(own, back, 1)
    if problem.price:
        gain -= _price_of_swaps(problem, device, out, back, one, other)
    step = np.arange(problem.layers - 1)[:, None]
    rows = twice * (problem.weight[step, out[:-1]] - problem.weight[step, back[:-1]])  # (layers - 1, swaps, experts)
    ahead, steps = gain[-1], []
    for layer in range(problem.layers - 2, -1, -1):
        total = rows[layer][:, out[layer + 1]] - rows[layer][:, back[layer + 1]] + ahead
        steps.append(total.argmax(axis=1))
        ahead = gain[layer] + total.max(axis=1)
    if ahead.max() <= _TINY:
        return False
    at = int(ahead.argmax())
    for layer in range(problem.layers):
        if layer:
            at = int(steps[-layer][at])
        i, j = out[layer, at], back[layer, at]
        device[layer, [i, j]] = device[layer, [j, i]]
    return True


def _pairs(device: Whole, one: int, other: int) -> tuple[Whole, Whole]:
    """Expert on the one device and on the other, of every swap in every layer; the first column swaps nothing."""
    here, there = (np.nonzero(device == d)[1].reshape(len(device), -1) for d in (one, other))
    each, none = here.shape[1], np.zeros((len(device), 1), np.int64)
    return np.hstack([none, here.repeat(each, axis=1)]), np.hstack([none, np.tile(there, (1, each))])


def _price_of_swaps(problem: Problem, device: Whole, out: Whole, back: Whole, one: int, other: int) -> Floats:
    """What the loads cost after each swap, less what they cost now, (layers, swaps)."""
    shift = np.take_along_axis(problem.load, out, 1) - np.take_along_axis(problem.load, back, 1)
    loads = problem.loads(device)
    rest = np.delete(loads, [one, other], axis=1).max(axis=1, initial=0.0)[:, None]
    largest = np.maximum(rest, np.maximum(loads[:, [one]] - shift, loads[:, [other]] + shift))
    return problem.price * problem.devices / problem.layers * (largest - largest[:, :1])
