"""Experts onto devices so that tokens stay where they are from layer to layer: placement by inter-layer affinity.

ExFlow (arXiv 2401.08383) profiles which expert of the next layer follows which, and places the experts, equally many of
each layer on each device, so that few steps from a layer to the next change device. With one expert of each layer on a
device this is a chain of assignment problems, solved exactly. With few balanced partitions of a layer a dynamic
programme is exact. Beyond, a local search is given with a bound that no placement can beat.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from resonance_theory import _arguments as arguments
from resonance_theory.logs.log import RoutingLog
from resonance_theory.systems._affinity_bounds import least_cost
from resonance_theory.systems._affinity_search import Problem, best_placement
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["AffinityPlacement", "coherence_ratio", "place_by_affinity", "placement_cost", "transitions"]


class AffinityPlacement(NamedTuple):
    """A placement, what it costs, and what no placement can go below.

    Attributes:
        device: Device of each expert, (layers, experts).
        crossing: Share of the steps from a layer to the next that change device.
        between_nodes: Share of the steps that change node.
        imbalance: Load of the heaviest device over the mean load, less 1, on average over the layers.
        cost: crossing + between_nodes (a step inside a node costs 1, between nodes 2) + load_weight · imbalance.
        bound: No placement of this problem costs less; equal to the cost where the method is exact.
    """

    device: Whole
    crossing: float
    between_nodes: float
    imbalance: float
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """How far the cost may be above the least; 0 for a proved optimum."""
        return self.cost - self.bound


def transitions(choices: RoutingLog | ArrayLike, experts: int | None = None, *, heaviest: bool = False) -> Floats:
    """How often each expert of a layer is followed by each of the next, over tokens.

    A token with several experts in a layer counts 1 for each step, spread evenly over its pairs of experts. Padding
    (-1) counts nowhere.

    Args:
        choices: A log with choices, or whole numbers (tokens, layers) or (tokens, layers, k), -1 for padding.
        experts: Experts of a layer. Needed with arrays, not with a log.
        heaviest: Count only the expert of the largest gate weight, as ExFlow does. Needs a log with weights if k > 1.

    Returns:
        Numbers of tokens, (layers - 1, experts, experts).

    Raises:
        ValueError, TypeError: One sentence that names the argument, its value and what is allowed.

    Example:
        >>> transitions([[0, 1], [0, 1], [1, 0]], 2).tolist()
        [[[0.0, 2.0], [1.0, 0.0]]]
    """
    log = choices if isinstance(choices, RoutingLog) else _log(choices, experts)
    if isinstance(choices, RoutingLog) and experts not in (None, log.experts):
        raise ValueError(f"experts = {experts} must be the log's, {log.experts}")
    layers = len(log.layers)
    if layers < 2:
        raise ValueError("choices has 1 layer but must have at least 2")
    if heaviest and log.top > 1 and log.weights is None:
        raise ValueError(f"heaviest needs gate weights, which {log.source} lacks")
    found = np.zeros((layers - 1, log.experts, log.experts))
    for start, part in log.blocks():
        if heaviest and log.top > 1:
            weight = np.where(part < 0, -1.0, np.asarray(log.weights[start : start + len(part)], np.float64))
            part = np.take_along_axis(part, weight.argmax(axis=2)[..., None], axis=2)
        chosen = [_shares(part[:, layer], log.experts) for layer in range(layers)]
        for step, (now, then) in enumerate(pairwise(chosen)):
            found[step] += (now.T @ then).toarray()
    return found


def place_by_affinity(
    transitions: ArrayLike, devices: int, *, nodes: int = 1, load_weight: float = 0.0, starts: int = 4, seed: int = 0
) -> AffinityPlacement:
    """Place the experts, equally many of each layer on each device, at the least cost that is found.

    Exact (gap 0) with one expert of a layer on each device of one node, by assignment; exact with at most 3,000
    balanced partitions of a layer (8 experts on up to 4 devices), by dynamic programming. Otherwise a local search:
    whole layers anew against their neighbours, and swaps between two devices in all layers at once.

    Args:
        transitions: Number of tokens, or share, of each step, (layers - 1, experts, experts), at least 0, as
            `transitions` counts them.
        devices: Number of devices, which divides the experts.
        nodes: Number of nodes of equally many devices, which divides the devices. Devices d, d + 1, ... share a node.
        load_weight: What the imbalance of the device loads costs against the crossing; 0 ignores it, as ExFlow does.
        starts: Starting points of the local search, the best of which is taken; the time grows with them.
        seed: Of the starting points.

    Returns:
        The placement with its cost and its bound.

    Raises:
        ValueError, TypeError: One sentence that names the argument, its value and what is allowed.

    Example:
        >>> found = place_by_affinity([[[0, 9, 1], [8, 0, 1], [1, 0, 9]]], devices=3)
        >>> found.device.tolist(), round(found.crossing, 3), found.gap
        ([[0, 1, 2], [1, 0, 2]], 0.103, 0.0)
    """
    weight = _steps(transitions)
    count, groups = _groups(weight.shape[1], devices, nodes)
    price = arguments.number("load_weight", load_weight, 0.0, 1e6)
    tries, start = arguments.whole("starts", starts, 1, 10_000), arguments.whole("seed", seed, 0)
    problem = Problem(weight, count, groups, price)
    device, exact = best_placement(problem, tries, np.random.default_rng(start))
    parts = _parts(weight, device, count, groups)
    cost = parts[0] + parts[1] + price * parts[2]
    return AffinityPlacement(device, *parts, cost, cost if exact else min(cost, least_cost(problem)))


def placement_cost(
    transitions: ArrayLike, device: ArrayLike, devices: int | None = None, *, nodes: int = 1
) -> tuple[float, float, float]:
    """Crossing, share of steps between nodes, and imbalance of any placement, on any trace.

    Judge a placement on tokens that it was not fitted to: on its own profile every placement looks better than it is.

    Args:
        transitions: As for `place_by_affinity`.
        device: Device of each expert, (layers, experts), not necessarily equally many on each.
        devices: Number of devices, one more than the last device that is used unless given.
        nodes: Number of nodes of equally many devices.

    Returns:
        As the attributes of the same names in `AffinityPlacement`.

    Example:
        >>> placement_cost([[[3, 1], [0, 4]]], [[0, 1], [0, 1]])
        (0.125, 0.0, 0.125)
    """
    weight = _steps(transitions)
    place = arguments.integer("device", device, 0)
    if place.shape != (len(weight) + 1, weight.shape[1]):
        raise ValueError(f"device has shape {place.shape} but must have shape {(len(weight) + 1, weight.shape[1])}")
    count = int(place.max()) + 1 if devices is None else arguments.whole("devices", devices, 1, 2**20)
    arguments.integer("device", place, 0, count - 1)
    groups = arguments.whole("nodes", nodes, 1, count, "devices")
    if count % groups:
        raise ValueError(f"nodes = {groups} must divide devices = {count}")
    return _parts(weight, place, count, groups)


@arguments.broadcasting
def coherence_ratio(layers: ArrayLike, devices: ArrayLike, placed: ArrayLike, crossing: ArrayLike) -> Floats:
    """Tokens sent with context coherence over tokens sent with two all-to-alls a layer: (L p' + G) / (2 L p).

    Context coherence drops the second all-to-all, and gathers every token on every device once. It pays where the
    ratio is below 1; without affinity (p' = p) just where L > G / p.

    Args:
        layers: Mixture-of-Experts layers L, at least 1.
        devices: Devices G, at least 1.
        placed: Crossing p' with the placement, in [0, 1].
        crossing: Crossing p without, in (0, 1]; 1 - 1/G for a random one.

    Example:
        >>> coherence_ratio(24, [8, 64], [7 / 8, 63 / 64], [7 / 8, 63 / 64]).round(3).tolist()
        [0.69, 1.854]
    """
    depth, many = (arguments.integer(n, v, 1).astype(np.float64) for n, v in (("layers", layers), ("devices", devices)))
    after = arguments.probability("placed", placed)
    before = arguments.real("crossing", crossing, 0.0, 1.0, open_low=True)
    return np.asarray((depth * after + many) / (2 * depth * before))


def _log(choices: ArrayLike, experts: int | None) -> RoutingLog:
    if experts is None:
        raise ValueError("experts = None must be given with arrays of choices")
    array = arguments.integer("choices", choices, -1)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"choices has shape {array.shape} but must have shape (tokens, layers) or (tokens, layers, k)")
    return RoutingLog(experts=experts, choices=array if array.ndim == 3 else array[:, :, None])


def _shares(chosen: Whole, experts: int) -> sparse.csr_array:
    """Share of each expert in each token's choices, (tokens, experts)."""
    there = chosen >= 0
    token, _ = np.nonzero(there)
    share = 1.0 / there.sum(axis=1)[token]
    return sparse.csr_array((share, (token, chosen[there])), shape=(len(chosen), experts))


def _steps(transitions: ArrayLike) -> Floats:
    weight = arguments.real("transitions", transitions, 0.0)
    if weight.ndim != 3 or not weight.size or weight.shape[1] != weight.shape[2]:
        raise ValueError(
            f"transitions has shape {weight.shape} but must have shape (layers - 1, experts, experts), each at least 1"
        )
    top = weight.max()
    if not top > 0:
        raise ValueError("transitions is 0 throughout but must count some steps")
    scaled = weight / top  # so that no sum overflows
    if (empty := ~scaled.any(axis=(1, 2))).any():
        raise ValueError(
            f"transitions[{int(empty.argmax())}] is 0 throughout but each step must be taken by some token"
        )
    return np.asarray(scaled / scaled.sum())


def _groups(experts: int, devices: int, nodes: int) -> tuple[int, int]:
    count = arguments.whole("devices", devices, 1, experts, "experts")
    if experts % count:
        raise ValueError(f"devices = {count} must divide the {experts} experts of a layer into equal groups")
    groups = arguments.whole("nodes", nodes, 1, count, "devices")
    if count % groups:
        raise ValueError(f"nodes = {groups} must divide devices = {count} into equal groups")
    return count, groups


def _parts(weight: Floats, device: Whole, devices: int, nodes: int) -> tuple[float, float, float]:
    """Crossing, share between nodes, imbalance."""
    node = device // (devices // nodes)
    apart = [(place[:-1, :, None] != place[1:, None, :]) for place in (device, node)]
    crossing, between = (float((weight * one).sum()) for one in apart)
    largest = Problem(weight, devices, nodes, 0.0).loads(device).max(axis=1)
    return crossing, between, float(devices * largest.mean() - 1)
