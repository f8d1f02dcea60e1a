"""The mixture of experts of Chen, Deng, Wu, Gu, Li, "Towards Understanding the Mixture-of-Experts Layer in Deep Learning"
(arXiv 2208.02813), setting 1 of its synthetic data: data, network and training.

An example is four patches in random order: label * alpha v_k (the feature of its cluster k), beta c_k (the cluster's
centre), +-gamma v_j of another cluster j, and noise. The router sees the sum of the patches, and sends the whole example to
one expert, f(x) = sum over filters and patches of +-activation(w.x + b); all are trained by full-batch descent, the experts'
steps normalised. The published code and the published text differ in six details (`DETAILS`).

The "tokens" of a routing rule are the examples of the whole set (one sample), the affinity is the router's noisy logit, and
each expert keeps at most `capacity` of them. An example that no expert keeps has output 0: it teaches nothing, and counts as
a wrong answer. Without a capacity, token choice and resonance are the published router.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from resonance_theory.evidence.sampling import generator
from resonance_theory.rules.select import Assignment
from simulations import _rules

PACKAGES = ("torch",)
PER = 1_000_000  # every measurement is stored as a whole number of these parts

# What the authors' notebook (github.com/uclaml/MoE, setting 1) does, against what the paper says.
DETAILS: dict[str, dict[str, Any]] = {
    "code": {
        "scale": 10.0,  # of the inputs
        "two_outputs": True,  # half of an expert's filters add to the output of each class, else all to one
        "softmaxed": True,  # the cross-entropy's logits are probabilities already, so the loss ends at log(1+1/e) = .313
        "bias": True,
        "logit_gate": True,  # an expert's output is multiplied by its noisy logit, else by the softmax of the logits
        "early_stop": True,
    },
    "text": {
        "scale": 1.0,
        "two_outputs": False,
        "softmaxed": False,
        "bias": False,
        "logit_gate": False,
        "early_stop": False,
    },
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """examples: for training, and as many for the test; dim: of a patch."""

    data_seed: int
    examples: int
    clusters: int
    dim: int

    def draw(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return data(self.data_seed, self.examples, self.clusters, self.dim)


@dataclass(frozen=True, kw_only=True)
class Mixture(Data):
    """filters: of each expert; size: of the initial weights, in units of 1/sqrt(dim)."""

    rule: str
    capacity: int
    experts: int
    filters: int
    expert_rate: float
    router_rate: float
    size: float


def directions(rng: np.random.Generator, clusters: int, dim: int) -> np.ndarray:
    """Orthonormal features and centres, (2, clusters, dim)."""
    return np.linalg.qr(rng.standard_normal((dim, 2 * clusters)))[0].T.reshape(2, clusters, dim)


def draw(rng: np.random.Generator, axes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x (count, 4, dim), label -1 or 1, cluster) of independent examples; the noise has variance 1/dim in each entry."""
    _, clusters, dim = axes.shape
    label, sign = 2 * rng.integers(0, 2, (2, count)) - 1
    cluster = rng.integers(0, clusters, count)
    other = (cluster + rng.integers(1, clusters, count)) % clusters
    alpha, beta, gamma = rng.uniform([[0.5], [1.0], [0.5]], [[2.0], [2.0], [3.0]], (3, count))
    patches = [
        (label * alpha)[:, None] * axes[0, cluster],
        beta[:, None] * axes[1, cluster],
        (sign * gamma)[:, None] * axes[0, other],
        rng.standard_normal((count, dim)) / np.sqrt(dim),
    ]
    order = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    x = np.take_along_axis(np.stack(patches, axis=1), order[..., None], axis=1)
    return x.astype(np.float32), label.astype(np.float32), cluster


@cache
def data(seed: int, examples: int, clusters: int, dim: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(training, test): one data set for all runs and arms, as published."""
    rng = generator(seed, "chen_mixture/data", 0)
    axes = directions(rng, clusters, dim)
    return [draw(rng, axes, examples) for _ in range(2)]


def entropy(cluster: np.ndarray, expert: np.ndarray, clusters: int) -> float:
    """Mean over dispatches, given their clusters and experts, of the entropy (nats) of what the same expert receives."""
    count = np.zeros((expert.max() + 1, clusters))
    np.add.at(count, (expert, cluster), 1.0)
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1.0)
    return float(-(count * np.log(np.where(share > 0, share, 1.0))).sum() / len(cluster))


def route(affinity: np.ndarray, priority: np.ndarray, rule: str, capacity: int) -> Assignment:
    """By the named rule; "random_keep" is token choice in the order of `priority` (runs, tokens, 1) in place of position."""
    if rule != "random_keep":
        return _rules.route(rule, affinity, capacity)
    order = priority[..., 0].argsort(axis=1)
    kept = _rules.route("token_choice", np.take_along_axis(affinity, order[..., None], axis=1), capacity)
    return replace(kept, token=order[kept.sample, kept.token])


def outputs(
    network: list[Any], x: Any, noise: Any, rule: str, capacity: int, cubic: bool, details: Mapping[str, Any]
) -> tuple[Any, Assignment]:
    """z (runs, examples), the label's log odds before any softmax of outputs, and who processed whom (sample: the run).

    network: router (runs, dim, experts) and filters (runs, experts, dim + 1, width), the last entry of each the bias;
    x (examples, patches, dim + 1), the last entry the bias's 1 or 0; noise (runs, examples, experts), added to the
    logits for the choice of experts; for "random_keep" one column more, the priority of the examples.
    """
    import torch

    router, filters = network
    runs, experts, _, width = filters.shape
    count, patches, size = x.shape
    logits = (x[..., :-1].sum(dim=1) @ router.transpose(0, 1).flatten(1)).unflatten(1, (runs, experts)).transpose(0, 1)
    noisy = logits + noise[..., :experts]
    kept = route(noisy.detach().numpy(), noise[..., experts:].numpy(), rule, capacity)
    run, token, expert = (torch.from_numpy(index) for index in (kept.sample, kept.token, kept.expert))
    gate = (noisy if details["logit_gate"] else torch.softmax(logits, dim=-1))[run, token, expert]
    seen = x.flatten(1).index_select(0, token).reshape(-1, size)  # only kept examples reach the experts
    parts = seen.split((patches * kept.kept.ravel()).tolist())  # kept pairs are sorted by run and expert
    response = torch.cat([part @ each for part, each in zip(parts, filters.flatten(0, 1))])
    if cubic:
        response = response * response * response
    sign = torch.ones(width)
    if details["two_outputs"]:
        sign[: width // 2] = -1.0
    value = (response @ sign).reshape(-1, patches).sum(dim=-1) * gate
    return torch.zeros(runs * count).index_add(0, run * count + token, value).reshape(runs, count), kept


def losses(z: Any, label: Any, softmaxed: bool) -> Any:
    """Mean loss of each run. The softmax of outputs (0, z) differs by tanh(z/2) between the classes."""
    import torch

    margin = label * (torch.tanh(z / 2) if softmaxed else z)
    return torch.nn.functional.softplus(-margin).mean(dim=-1)


def start(rng: np.random.Generator, runs: int, experts: int, dim: int, width: int, size: float) -> list[Any]:
    """The router 0, the filters and their biases uniform in +-size/sqrt(dim)."""
    import torch

    limit = size / np.sqrt(dim)
    filters = rng.uniform(-limit, limit, (runs, experts, dim + 1, width)).astype(np.float32)
    return [torch.zeros(runs, dim, experts), torch.from_numpy(filters)]


def descend(network: list[Any], gradient: list[Any], expert_rate: float, router_rate: float) -> list[Any]:
    """One step: plain for the router; of one length for each expert, whose norm is that of its filters plus that of its
    biases (which is 0 where there are none)."""
    router, filters = gradient
    norm = filters[:, :, :-1].flatten(2).norm(dim=-1) + filters[:, :, -1].norm(dim=-1)
    norm = norm + (norm == 0)  # an expert that received nothing stays
    return [network[0] - router_rate * router, network[1] - expert_rate * filters / norm[..., None, None]]


@dataclass
class Training:
    """Networks of several runs while they train.

    network: as of `outputs`; step: those made so far; active: runs that have not ended; noise_rngs: one for each run;
    ended: "training entropy", "loss" and "steps" (share of all) of each run that has.
    """

    network: list[Any]
    noise_rngs: list[np.random.Generator]
    active: list[int]
    ended: dict[str, np.ndarray]
    step: int = 0

    def noise(self, examples: int, rule: str) -> Any:
        """The router's, uniform, of the active runs, as `outputs` takes it."""
        import torch

        shape = (examples, self.network[0].shape[-1] + (rule == "random_keep"))
        drawn = [self.noise_rngs[run].random(shape, dtype=np.float32) for run in self.active]
        return torch.from_numpy(np.stack(drawn))


def read(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], cubic: bool, details: Mapping[str, Any]) -> tuple[Any, Any]:
    """x, as the network reads it, and label of `draw`'s examples, as tensors."""
    import torch

    one = np.full((*drawn[0].shape[:2], 1), details["bias"], dtype=np.float32)
    x = np.concatenate([drawn[0] * np.float32(details["scale"]), one], axis=2)
    x = x if cubic else x.sum(axis=1, keepdims=True)  # what a linear expert sees of the patches
    return torch.from_numpy(x), torch.from_numpy(drawn[1])


def learn(
    network: list[Any],
    noise_rngs: list[np.random.Generator],
    training: tuple[np.ndarray, np.ndarray, np.ndarray],
    s: Mixture,
    *,
    cubic: bool,
    steps: int,
    details: Mapping[str, Any],
) -> Iterator[Training]:
    """Train the runs of `network` side by side: yields before each step, and once when all runs have ended. A run that
    ends early keeps its network."""
    import torch

    trials = len(noise_rngs)
    x, label = read(training, cubic, details)
    least = np.full(trials, np.inf)
    ended = {key: np.zeros(trials) for key in ("training entropy", "loss", "steps")}
    state = Training(network, noise_rngs, list(range(trials)), ended)
    for step in range(steps):
        state.step = step
        yield state
        active = state.active
        now = [part[active].requires_grad_() for part in network]
        z, kept = outputs(now, x, state.noise(len(x), s.rule), s.rule, s.capacity, cubic, details)
        each = losses(z, label, details["softmaxed"])
        value = each.detach().numpy()
        # As published: a new minimum never ends a run, however low.
        over = (value > least[active] + 0.02) | ((value <= 0.314) & (value > least[active]))
        over &= details["early_stop"]
        least[active] = np.minimum(least[active], value)
        for i in np.flatnonzero(over | (step == steps - 1)):
            ended["training entropy"][active[i]] = dispatched(kept, int(i), training[2], s.clusters)
            ended["loss"][active[i]], ended["steps"][active[i]] = value[i], (step + 1) / steps
        go = np.flatnonzero(~over)
        # A sum over runs: each one's gradient is its own.
        gradient = torch.autograd.grad(each.sum(), now, materialize_grads=True)
        moved = descend([p.detach() for p in now], list(gradient), s.expert_rate, s.router_rate)
        state.active = [active[i] for i in go]
        for part, new in zip(network, moved):
            part[state.active] = new[go]
        if not state.active:
            break
    state.step, state.active = steps, list(range(trials))
    yield state


def dispatched(kept: Assignment, run: int, cluster: np.ndarray, clusters: int) -> float:
    """`entropy` of one run's kept examples."""
    mine = kept.sample == run
    return entropy(cluster[kept.token[mine]], kept.expert[mine], clusters)
