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

from functools import cache
from typing import Any

import numpy as np

from resonance_theory.montecarlo.training import Arm
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


def keep(affinity: np.ndarray, rule: str, capacity: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(token, used), both (samples, experts, capacity): who sits in each expert's slots, and whether anyone does."""
    samples, _, experts = affinity.shape
    if rule == "random_keep":
        best = affinity.argmax(axis=-1)[..., None] == np.arange(experts)
        affinity = rng.random(affinity.shape, dtype=np.float32) + 2 * best  # the same candidates, in random order
    route = {"token_choice": token_choice.route, "expert_choice": expert_choice.route}.get(rule, resonance.route)
    kept = route(affinity, capacity)
    token = np.zeros((samples, experts, capacity), dtype=np.int64)
    used = np.zeros(token.shape, dtype=bool)
    token[kept.sample, kept.expert, kept.slot] = kept.token
    used[kept.sample, kept.expert, kept.slot] = True
    return token, used


def forward(
    network: list[Any], x: Any, rule: str, capacity: int, scale: float, rng: np.random.Generator
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Logits (runs, samples, classes) of the tokens x (runs, samples, patches, pixels), and (token, used) of `keep`.

    network, one of each for every run: gates (runs, pixels, experts), first layer (runs, experts, pixels, hidden), its
    bias (runs, experts, 1, hidden), second layer (runs, experts, hidden, classes), offset (runs, 1, classes).
    """
    import torch

    gates, first, bias, second, offset = network
    runs, count, patches, _ = x.shape
    experts = gates.shape[-1]
    flat = x.flatten(1, 2)
    cosine = torch.bmm(flat, gates / gates.norm(dim=1, keepdim=True)) / flat.norm(dim=-1, keepdim=True)
    affinity = cosine.reshape(runs * count, patches, experts)
    token, used = keep(affinity.detach().numpy(), rule, capacity, rng)
    index = torch.from_numpy(token)
    gate = torch.sigmoid(scale * affinity.transpose(1, 2).gather(2, index)) * torch.from_numpy(used)
    slots = x.flatten(0, 1)[torch.arange(runs * count)[:, None, None], index]  # only kept tokens reach the experts

    def by_expert(values: Any) -> Any:
        """(runs * samples, experts, capacity, ...) as (runs, experts, samples * capacity, ...)."""
        return values.unflatten(0, (runs, count)).transpose(1, 2).flatten(2, 3)

    out = torch.matmul(torch.relu(torch.matmul(by_expert(slots), first) + bias), second)
    out = (out * by_expert(gate[..., None])).unflatten(2, (count, capacity))
    return out.sum(dim=(1, 3)) + offset, token, used


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
) -> dict[str, int]:
    """Train `trials` networks side by side; of each, over its test mosaics: how many are classified, how many tokens are
    processed (once for each expert), and how often the class-bearing one is. Every arm sees the same mosaics."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data_rng, weight_rng, keep_rng = rng.spawn(3)
    images, labels = digits()
    pools = [split(data_rng, test_share) for _ in range(trials)]
    means = np.stack([images[np.concatenate(training)].mean(axis=0) for training, _ in pools])

    def draw(kind: int, count: int) -> tuple[Any, np.ndarray, np.ndarray]:
        drawn = [mosaics(data_rng, both[kind], count, patches) for both in pools]
        number, place = np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])
        label = labels[np.take_along_axis(number, place[..., None], axis=-1)[..., 0]]
        return torch.from_numpy(images[number] - means[:, None, None]), place, label

    def weights(*shape: int) -> Any:
        drawn = weight_rng.standard_normal((trials, *shape), dtype=np.float32) / np.sqrt(shape[-2], dtype=np.float32)
        return torch.from_numpy(drawn).requires_grad_()

    gates = weights(images.shape[1], experts)
    first, second = weights(experts, images.shape[1], hidden), weights(experts, hidden, CLASSES)
    bias, offset = torch.zeros(trials, experts, 1, hidden), torch.zeros(trials, 1, CLASSES)
    network = [gates, first, bias.requires_grad_(), second, offset.requires_grad_()]

    optimizer = torch.optim.Adam(network, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x, _, label = draw(0, batch)
        logits = forward(network, x, rule, capacity, scale, keep_rng)[0]
        # A sum over runs: each one's gradient is its own, and Adam treats every weight by itself.
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(label).flatten()) * trials
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    x, place, label = draw(1, test_mosaics)
    with torch.no_grad():
        logits, token, used = forward(network, x, rule, capacity, scale, keep_rng)
    torch.set_num_threads(threads)
    right = (logits.argmax(dim=-1).numpy() == label).sum(axis=1)
    here = (token == place.reshape(-1, 1, 1)) & used
    counts = {
        "accuracy": right,
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
