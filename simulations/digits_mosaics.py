"""Training: digits hidden among other digits; accuracy against the tokens actually processed, by routing rule.

A mosaic is 16 images of handwritten digits (8x8, scikit-learn's bundled set). One of them, at a random place, is a 0-4
and is the label; the others are 5-9. The network is one layer of experts: gate i sees a token x by its cosine with
w_i, expert i (two layers) processes the tokens that the rule keeps for it, and the logits are the sum of the outputs,
each weighted by sigmoid(scale * cosine). Gates and experts are trained together from random ones, without any loss for
balance. The dense baselines are the same network with a single expert that processes every token: as wide as all
experts together (their parameters), or as narrow as the kept tokens' operations allow.

"random_keep" is resonance with random priorities among an expert's candidates. As the label's place is random, token
choice's priority by position is random too, so these two must come out equal (N5): a check of the whole chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from resonance_theory.gates import grap_gates
from resonance_theory.rules import expert_choice, resonance, token_choice

PACKAGES = ("torch", "scikit-learn")
CLASSES = 5  # digits 0-4 bear the class, 5-9 are irrelevant


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


def keep(
    affinity: np.ndarray, rule: str, capacity: int, rng: np.random.Generator, top: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(token, used), both (samples, experts, capacity): who sits in each expert's slots, and whether anyone does."""
    samples, _, experts = affinity.shape
    if rule == "random_keep":
        best = affinity >= np.sort(affinity, axis=-1)[..., -top, None]
        affinity = rng.random(affinity.shape, dtype=np.float32) + 2 * best  # the same candidates, in random order
    if rule == "expert_choice":
        kept = expert_choice.route(affinity, capacity)
    else:
        kept = (token_choice if rule == "token_choice" else resonance).route(affinity, capacity, top=top)
    token = np.zeros((samples, experts, capacity), dtype=np.int64)
    used = np.zeros(token.shape, dtype=bool)
    token[kept.sample, kept.expert, kept.slot] = kept.token
    used[kept.sample, kept.expert, kept.slot] = True
    return token, used


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
    """Logits (runs, samples, classes) of x by a network as of `start`, and (token, used) of `keep`, samples of all runs
    after one another."""
    import torch

    gates, first, bias, second, offset = network
    runs, count = x.shape[:2]
    affinity = affinities(gates, x).flatten(0, 1)
    token, used = keep(affinity.detach().numpy(), rule, capacity, rng, top)
    index = torch.from_numpy(token)
    gate = torch.sigmoid(scale * affinity.transpose(1, 2).gather(2, index)) * torch.from_numpy(used)
    slots = x.flatten(0, 1)[torch.arange(runs * count)[:, None, None], index]  # only kept tokens reach the experts

    def by_expert(values: Any) -> Any:
        """(runs * samples, experts, capacity, ...) as (runs, experts, samples * capacity, ...)."""
        return values.unflatten(0, (runs, count)).transpose(1, 2).flatten(2, 3)

    out = torch.matmul(torch.relu(torch.matmul(by_expert(slots), first) + bias), second)
    out = (out * by_expert(gate[..., None])).unflatten(2, (count, capacity))
    return out.sum(dim=(1, 3)) + offset, token, used


def cross_entropy(logits: Any, label: np.ndarray) -> Any:
    """Sum over runs of their means: each run's gradient is its own, and Adam treats every weight by itself."""
    import torch

    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(label).flatten()) * len(logits)


def descend(
    weights: list[Any], loss: Callable[[], Any], steps: int, rate: float, *, fall: bool = True
) -> Iterator[int]:
    """Train by Adam, its rate falling to 0 by a cosine unless fall = False; yields the number of steps taken, from 0."""
    import torch

    optimizer = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if fall else None
    yield 0
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if schedule:
            schedule.step()
        yield step


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(
    rng: np.random.Generator,
    trials: int,
    *,
    rule: str,
    experts: int,
    capacity: int,
    hidden: int,
    patches: int,
    steps: int,
    batch: int,
    rate: float,
    scale: float,
    test_share: float,
    test_mosaics: int,
    top: int = 1,
    gates: str = "free",
    train_share: float = 1.0,
) -> dict[str, int]:
    """Train `trials` networks side by side; of each, over its test mosaics: how many are classified, how many tokens are
    processed (once for each expert), and how often the class-bearing one is. Every arm sees the same mosaics.

    gates: as for `gates_of`. train_share: share of the training images that are used.
    """
    import torch

    data_rng, weight_rng, keep_rng = rng.spawn(3)
    source = Mosaics(data_rng, trials, patches, test_share, train_share)
    network = start(weight_rng, trials, experts, hidden)

    def classify(kind: str, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        x, _, place, label = source.draw(kind, count)
        layers = [gates_of(network[0], gates), *network[1:]]
        return *forward(layers, x, rule, capacity, scale, keep_rng, top), place, label

    def loss() -> Any:
        logits, *_, label = classify("training", batch)
        return cross_entropy(logits, label)

    with one_thread():
        for _ in descend(network, loss, steps, rate):
            pass
        with torch.no_grad():
            logits, token, used, place, label = classify("test", test_mosaics)
    here = (token == place.reshape(-1, 1, 1)) & used
    counts = {
        "accuracy": (logits.argmax(dim=-1).numpy() == label).sum(axis=1),
        "processed": used.reshape(trials, -1).sum(axis=1),
        "label processed": here.any(axis=(1, 2)).reshape(trials, -1).sum(axis=1),
    }
    return {f"{name}/{run}": int(value) for name, values in counts.items() for run, value in enumerate(values)}


def arms(settings: dict[str, Any]) -> list[Arm]:
    common = ("patches", "steps", "batch", "rate", "scale", "test_share", "test_mosaics")
    shared = {key: settings[key] for key in common}
    n, hidden, patches = settings["experts"], settings["hidden"], settings["patches"]
    dense = shared | {"rule": "token_choice", "experts": 1, "capacity": patches}  # one expert that sees every token
    result = []
    for c in settings["capacities"]:
        for rule in ("token_choice", "random_keep", "expert_choice", "resonance"):
            parameters = shared | {"rule": rule, "experts": n, "capacity": c, "hidden": hidden}
            result.append(Arm(f"{rule} C={c}", train, parameters, settings["test_mosaics"]))
        narrow = dense | {"hidden": n * c * hidden // patches}
        result.append(Arm(f"dense, operations of C={c}", train, narrow, settings["test_mosaics"]))
    wide = dense | {"hidden": n * hidden}
    return [*result, Arm("dense, all parameters", train, wide, settings["test_mosaics"])]
