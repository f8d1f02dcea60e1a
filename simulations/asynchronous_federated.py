"""Training: asynchronous federated learning on scikit-learn's digits, with weights for staleness and quality, under poisoning.

Clients hold unequal shares of the ten digits (Dirichlet). A client trains a network of one hidden layer for local
epochs from the model that it last fetched and sends the difference. Synchronous rounds average the differences of a few
clients (FedAvg; FedProx adds a pull towards the fetched model). Asynchronously clients of unequal speed send one by
one; the server weighs each by `systems.asynchronous_aggregation`: not at all, by staleness, or by staleness and trust,
the cosine with what a small sample of the server's asks for. "honest" leaves poisoned clients out, as an ideal access
control would. Poisoned clients train on labels turned by one and send the difference enlarged. All arms spend the same
number of client updates.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory.evidence.studies.training import Arm
from resonance_theory.systems.asynchronous_aggregation import admission_weight, trust
from simulations._digits import digits
from simulations._training import Counts, counts, parameters, takes

PACKAGES = ("scikit-learn",)
CLASSES = 10
Floats = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Training:
    """method: "fedavg", "fedprox", "honest", "asynchronous", "staleness" or "trust"; poisoned: number of such clients."""

    method: str
    poisoned: int
    clients: int
    concentration: float
    hidden: int
    updates: int
    cohort: int
    epochs: int
    batch: int
    rate: float
    proximal: float
    mixing: float
    power: float
    least: float
    enlarged: float
    trusted: int
    test_share: float


def unpack(w: Floats, hidden: int) -> tuple[Floats, Floats, Floats, Floats]:
    pixels = digits()[0].shape[1]
    sizes = np.cumsum([pixels * hidden, hidden, hidden * CLASSES])
    a, b, c, d = np.split(w, sizes)
    return a.reshape(pixels, hidden), b, c.reshape(hidden, CLASSES), d


def scores(w: Floats, x: Floats, hidden: int) -> tuple[Floats, Floats]:
    """(hidden layer, logits)."""
    a, b, c, d = unpack(w, hidden)
    h = np.maximum(x @ a + b, 0)
    return h, h @ c + d


def gradient(w: Floats, x: Floats, y: np.ndarray, hidden: int) -> Floats:
    """Of the mean cross-entropy."""
    h, logits = scores(w, x, hidden)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    back = (p @ unpack(w, hidden)[2].T) * (h > 0)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (h.T @ p).ravel(), p.sum(0)])


def local(rng: np.random.Generator, w: Floats, x: Floats, y: np.ndarray, s: Training) -> Floats:
    """Difference after local epochs of SGD from w."""
    start, pull = w, s.proximal if s.method == "fedprox" else 0.0
    for _ in range(s.epochs):
        order = rng.permutation(len(y))
        for first in range(0, len(y), s.batch):
            rows = order[first : first + s.batch]
            w = w - s.rate * (gradient(w, x[rows], y[rows], s.hidden) + pull * (w - start))
    return w - start


class Federation:
    """One run's clients, server sample and test images; the same for every arm."""

    def __init__(self, rng: np.random.Generator, s: Training) -> None:
        images, label = digits()
        order = rng.permutation(len(label))
        test, trusted, rest = np.split(
            order, [round(s.test_share * len(order)), round(s.test_share * len(order)) + s.trusted]
        )
        shares = rng.dirichlet(np.full(s.clients, s.concentration), CLASSES)
        owner = np.array([rng.choice(s.clients, p=shares[c]) for c in label[rest]])
        self.settings = s
        self.test, self.trusted = ((images[rows].astype(np.float64), label[rows]) for rows in (test, trusted))
        self.data = [(images[rest[owner == i]].astype(np.float64), label[rest[owner == i]]) for i in range(s.clients)]
        self.speed = np.exp(rng.normal(0, 1, s.clients))
        self.bad = set(rng.permutation(s.clients)[: s.poisoned].tolist())
        scale = np.repeat([1 / 8, 0, s.hidden**-0.5, 0], [64 * s.hidden, s.hidden, s.hidden * CLASSES, CLASSES])
        self.start = rng.standard_normal(len(scale)) * scale

    def members(self) -> list[int]:
        """Clients that may take part: those with images; without the poisoned ones for "honest"."""
        out = self.bad if self.settings.method == "honest" else set()
        return [i for i, (_, y) in enumerate(self.data) if len(y) and i not in out]

    def update(self, rng: np.random.Generator, w: Floats, client: int) -> Floats:
        x, y = self.data[client]
        if client in self.bad:
            return self.settings.enlarged * local(rng, w, x, (y + 1) % CLASSES, self.settings)
        return local(rng, w, x, y, self.settings)

    def accuracy(self, w: Floats) -> float:
        x, y = self.test
        return float(np.mean(scores(w, x, self.settings.hidden)[1].argmax(axis=1) == y))


def synchronous(rng: np.random.Generator, f: Federation) -> Floats:
    """Rounds of a cohort each, averaged by the clients' numbers of images."""
    s, w, members = f.settings, f.start, f.members()
    for _ in range(s.updates // s.cohort):
        chosen = rng.choice(members, min(s.cohort, len(members)), replace=False)
        sizes = np.array([len(f.data[i][1]) for i in chosen])
        w = w + (sizes / sizes.sum()) @ np.array([f.update(rng, w, i) for i in chosen])
    return w


def asynchronous(rng: np.random.Generator, f: Federation) -> Floats:
    """Clients finish in the order of their speeds; each update is taken in as it comes, then the client fetches anew."""
    s, w, members = f.settings, f.start, f.members()
    running = [(rng.exponential() * f.speed[i], i, 0, w) for i in members]
    heapq.heapify(running)
    for version in range(s.updates):
        now, i, fetched, base = heapq.heappop(running)
        change = f.update(rng, base, i)
        quality = trust(change, local(rng, base, *f.trusted, s)) if s.method == "trust" else 1.0
        power = 0.0 if s.method == "asynchronous" else s.power
        least = s.least if s.method == "trust" else 0.0
        w = w + float(admission_weight(version - fetched, quality, rate=s.mixing, power=power, least=least)) * change
        heapq.heappush(running, (now + rng.exponential() * f.speed[i], i, version + 1, w))
    return w


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Share of the test images that each run's last model classifies."""
    found = []
    for stream in rng.spawn(runs):
        world, work = stream.spawn(2)
        federation = Federation(world, s)
        rule = synchronous if s.method in ("fedavg", "fedprox", "honest") else asynchronous
        found.append({"accuracy": federation.accuracy(rule(work, federation))})
    return counts(found, 1_000_000)


def arms(settings: dict[str, Any]) -> list[Arm]:
    methods = ("fedavg", "fedprox", "asynchronous", "staleness", "trust")
    result = [
        Arm(f"{m}, {p} poisoned", train, parameters(Training, settings, method=m, poisoned=p), 1_000_000)
        for p in (0, settings["attackers"])
        for m in methods
    ]
    p = settings["attackers"]
    return [
        *result,
        Arm(f"honest, {p} poisoned", train, parameters(Training, settings, method="honest", poisoned=p), 1_000_000),
    ]
