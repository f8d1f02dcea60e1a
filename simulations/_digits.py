"""Digits hidden among other digits: the mosaics, one layer of experts that classifies them, and its training.

A mosaic is images of handwritten digits (8x8, scikit-learn's bundled set). One of them, at a random place, is a 0-4 and is
the label; the others are 5-9. Gate i sees a token x by its cosine with w_i, expert i (two layers) processes the tokens that
the rule keeps for it, and the logits are the sum of the outputs, each weighted by sigmoid(scale * cosine). Gates and experts
are trained together from random ones, several runs side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from resonance_theory.gates import grap_gates
from simulations._rules import dispatch
from simulations._training import Counts, counts, cross_entropy, descend, one_thread, takes

PACKAGES = ("torch", "scikit-learn")
CLASSES = 5  # digits 0-4 bear the class, 5-9 are irrelevant


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Mosaics of so many patches, the layer of experts and its rule, Adam's batch and rate, and the test."""

    rule: str
    experts: int
    capacity: int
    hidden: int
    patches: int
    batch: int
    rate: float
    scale: float
    test_share: float
    test_mosaics: int


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) in [0, 1] and their digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


def split(rng: np.random.Generator, test_share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Image numbers for (training, test), each a pair (class-bearing, irrelevant); no image is in both."""
    bearing = digits()[1] < CLASSES
    pools = [rng.permutation(np.flatnonzero(bearing)), rng.permutation(np.flatnonzero(~bearing))]
    cuts = [round(test_share * len(pool)) for pool in pools]
    return [pool[cut:] for pool, cut in zip(pools, cuts)], [pool[:cut] for pool, cut in zip(pools, cuts)]


def mosaics(
    rng: np.random.Generator, pools: list[np.ndarray], count: int, patches: int
) -> tuple[np.ndarray, np.ndarray]:
    """(image numbers (count, patches), places (count,) of the class-bearing image)."""
    images = rng.choice(pools[1], (count, patches))
    place = rng.integers(0, patches, count)
    images[np.arange(count), place] = rng.choice(pools[0], count)
    return images, place


class Mosaics:
    """Mosaics of several runs side by side, each with its own split of the images, of which it may train on some only."""

    def __init__(
        self, rng: np.random.Generator, runs: int, patches: int, test_share: float, train_share: float = 1.0
    ) -> None:
        self.rng, self.patches = rng, patches
        splits = [split(rng, test_share) for _ in range(runs)]
        training = [[pool[: round(train_share * len(pool))] for pool in pools] for pools, _ in splits]
        self.pools = {"training": training, "test": [test for _, test in splits]}
        self.images, self.digit = digits()
        self.mean = np.stack([self.images[np.concatenate(pools)].mean(axis=0) for pools in training])

    def draw(self, kind: str, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """(tokens (runs, count, patches, pixels) about the training images' mean, digit of each, place and digit of the
        class-bearing one (runs, count)); kind: "training" or "test"."""
        import torch

        drawn = [mosaics(self.rng, pools, count, self.patches) for pools in self.pools[kind]]
        number, place = np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])
        digit = self.digit[number]
        label = np.take_along_axis(digit, place[..., None], axis=-1)[..., 0]
        return torch.from_numpy(self.images[number] - self.mean[:, None, None]), digit, place, label


def start(rng: np.random.Generator, runs: int, experts: int, hidden: int) -> list[Any]:
    """A random network for every run: gates (runs, pixels, experts), first layer (runs, experts, pixels, hidden), its
    bias (runs, experts, 1, hidden), second layer (runs, experts, hidden, classes), offset (runs, 1, classes)."""
    import torch

    def weights(*shape: int) -> Any:
        drawn = rng.standard_normal((runs, *shape), dtype=np.float32) / np.sqrt(shape[-2], dtype=np.float32)
        return torch.from_numpy(drawn).requires_grad_()

    def zeros(*shape: int) -> Any:
        return torch.zeros(runs, *shape).requires_grad_()

    pixels = digits()[0].shape[1]
    gates = weights(pixels, experts)
    first, second = weights(experts, pixels, hidden), weights(experts, hidden, CLASSES)
    return [gates, first, zeros(experts, 1, hidden), second, zeros(1, CLASSES)]


def gates_of(weights: Any, kind: str) -> Any:
    """Gates (runs, pixels, experts): "free" weights as they are; "grap", which are fixed; or "orthogonal" ones, which are
    what GrAP gates become behind a learned orthogonal map: any orthonormal frame, here that of the weights."""
    import torch

    if kind == "free":
        return weights
    runs, pixels, experts = weights.shape
    if kind == "grap":
        return grap_gates(pixels, experts, dtype=weights.dtype, xp=torch).T.repeat(runs, 1, 1)
    frame, triangle = torch.linalg.qr(weights)
    return frame * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # so that it follows the weights continuously


def affinities(gates: Any, x: Any) -> Any:
    """Cosines (runs, samples, patches, experts) of the tokens x (runs, samples, patches, pixels) with their run's gates."""
    import torch

    flat = x.flatten(1, 2)
    cosine = torch.bmm(flat, gates / gates.norm(dim=1, keepdim=True)) / flat.norm(dim=-1, keepdim=True)
    return cosine.unflatten(1, x.shape[1:3])


def forward(
    network: list[Any], x: Any, rule: str, capacity: int, scale: float, rng: np.random.Generator, top: int = 1
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Logits (runs, samples, classes) of x by a network as of `start`, and (token, used) of `dispatch`, samples of all runs
    after one another."""
    import torch

    gates, first, bias, second, offset = network
    runs, count = x.shape[:2]
    affinity = affinities(gates, x).flatten(0, 1)
    token, used = dispatch(affinity.detach().numpy(), rule, capacity, rng, top)
    index = torch.from_numpy(token)
    gate = torch.sigmoid(scale * affinity.transpose(1, 2).gather(2, index)) * torch.from_numpy(used)
    slots = x.flatten(0, 1)[torch.arange(runs * count)[:, None, None], index]  # only kept tokens reach the experts

    def by_expert(values: Any) -> Any:
        """(runs * samples, experts, capacity, ...) as (runs, experts, samples * capacity, ...)."""
        return values.unflatten(0, (runs, count)).transpose(1, 2).flatten(2, 3)

    out = torch.matmul(torch.relu(torch.matmul(by_expert(slots), first) + bias), second)
    out = (out * by_expert(gate[..., None])).unflatten(2, (count, capacity))
    return out.sum(dim=(1, 3)) + offset, token, used


@dataclass(frozen=True, kw_only=True)
class Training(Sizes):
    """gates: as for `gates_of`; top: experts that a token chooses; train_share: share of the training images that are used."""

    steps: int
    top: int = 1
    gates: str = "free"
    train_share: float = 1.0


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks side by side; of each, over its test mosaics: how many are classified, how many tokens are
    processed (once for each expert), and how often the class-bearing one is. Every arm sees the same mosaics."""
    import torch

    data_rng, weight_rng, keep_rng = rng.spawn(3)
    source = Mosaics(data_rng, runs, s.patches, s.test_share, s.train_share)
    network = start(weight_rng, runs, s.experts, s.hidden)

    def classify(kind: str, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        x, _, place, label = source.draw(kind, count)
        layers = [gates_of(network[0], s.gates), *network[1:]]
        return *forward(layers, x, s.rule, s.capacity, s.scale, keep_rng, s.top), place, label

    def loss() -> Any:
        logits, *_, label = classify("training", s.batch)
        return cross_entropy(logits, label)

    with one_thread():
        for _ in descend(network, loss, s.steps, s.rate):
            pass
        with torch.no_grad():
            logits, token, used, place, label = classify("test", s.test_mosaics)
    here = (token == place.reshape(-1, 1, 1)) & used
    found = zip(
        (logits.argmax(dim=-1).numpy() == label).sum(axis=1),
        used.reshape(runs, -1).sum(axis=1),
        here.any(axis=(1, 2)).reshape(runs, -1).sum(axis=1),
    )
    return counts((dict(zip(("accuracy", "processed", "label processed"), run)) for run in found), 1)
