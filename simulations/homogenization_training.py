"""Training: do rules, gates and losses keep experts apart while they are trained?

The mosaics and the network of `_digits`, by rule and by gates: free weights, fixed GrAP gates, or GrAP behind a
learned orthogonal map. Losses (`losses`): load balance, locality or both, on softmax(scale * cosine). Initial experts:
independent, or near copies of one. Test mosaics are measured before training, at checkpoints and at the end.

For locality, half of the experts and half of a mosaic's places stand on each of two nodes. A gate that sees only a token's
content cannot know its node, so arms with losses have "placed" tokens: a vector of the run is added to the tokens of one
node and subtracted from the others. Two arms are without it.

`untrained` sets gates at the start against the closed forms: tokens that meet the hypotheses (isotropic ones; Gaussian
ones with the digits' covariance, in coordinates that make them isotropic), and digits, which do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import homogenization, losses
from resonance_theory.evidence.studies.training import Arm
from simulations import _digits
from simulations._metrics import SAME_TOKENS, distances, laws, mean_of_pairs, means, routing, spread
from simulations._rules import WITH_RANDOM
from simulations._training import Counts, at, counts, cross_entropy, descend, one_thread, parameters, takes

PACKAGES = _digits.PACKAGES
PER = 100_000  # every measurement is stored as a whole number of these parts
NODES = 2


def node(count: int) -> np.ndarray:
    """Node of each of `count` places or experts, in blocks."""
    return np.arange(count) * NODES // count


def auxiliary(affinity: Any, scale: float, balance: float, locality: float, epsilon: float) -> Any:
    """Load-balance loss with weight `balance` plus the mean over nodes of the locality loss with weight `locality`, summed
    over runs; affinity: (runs, samples, patches, experts)."""
    import torch

    total = torch.zeros(())
    patches, experts = affinity.shape[2:]
    home, place = torch.from_numpy(node(experts)), torch.from_numpy(node(patches))
    targets = [losses.local_distribution(home == k, epsilon=epsilon) for k in range(NODES)]
    for probability in torch.softmax(scale * affinity, dim=-1):
        if balance:
            flat = probability.flatten(0, 1)
            total = total + losses.load_balance(flat, flat.argmax(dim=-1), alpha=balance)
        if locality:
            for k, target in enumerate(targets):
                current = probability[:, place == k].mean(dim=(0, 1))
                total = total + losses.locality(current, target, mu=locality) / NODES
    return total


def off_node(token: np.ndarray, used: np.ndarray, patches: int) -> float:
    """Share of the kept pairs whose expert and place stand on different nodes; token, used: as of `dispatch`."""
    sample, expert, slot = np.nonzero(used)
    return float((node(token.shape[1])[expert] != node(patches)[token[sample, expert, slot]]).mean())


def expert_similarity(network: list[Any], x: Any, run: int) -> float:
    """Mean linear CKA of two experts' outputs on the same tokens (tokens, pixels)."""
    import torch

    _, first, bias, second, _ = (weights[run] for weights in network)
    out = torch.matmul(torch.relu(torch.matmul(x, first) + bias), second)
    return mean_of_pairs(homogenization.linear_cka, out)


def distributions(choice: np.ndarray, experts: int, far: dict[str, np.ndarray]) -> dict[str, float]:
    """Loads of the experts in rising order, the distribution function of an expert's load in one mosaic, deciles of pairs."""
    load = (choice[..., None] == np.arange(experts)).sum(axis=1)
    shares = np.sort(load.sum(axis=0)) / choice.size
    found = {f"load share {i}": share for i, share in enumerate(shares, start=1)}
    found |= {f"load at most {k}": (load <= k).mean() for k in range(choice.shape[1])}
    for name, values in far.items():
        found |= {f"{name}, decile {k}": np.quantile(values, k / 10) if len(values) else 0.0 for k in range(1, 10)}
    return found


@dataclass(frozen=True, kw_only=True)
class Training(_digits.Sizes):
    """gates: as for `_digits.gates_of`. copies: experts start as the first one's weights and the share `jitter` of their
    own. placed: length of the vector that tells a token's node, 0 for none. balance, locality: weights of the losses;
    epsilon: share that a fully local distribution leaves to the other node."""

    gates: str
    copies: bool
    jitter: float
    placed: float
    balance: float
    locality: float
    epsilon: float
    checkpoints: list[int]


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks side by side and measure them at the checkpoints, of which the last ends the training."""
    import torch

    data_rng, weight_rng, keep_rng, place_rng = rng.spawn(4)
    source = _digits.Mosaics(data_rng, runs, s.patches, s.test_share)
    network = _digits.start(weight_rng, runs, s.experts, s.hidden)
    if s.copies:
        with torch.no_grad():
            for layer in (network[1], network[3]):
                layer.copy_(layer[:, :1] + s.jitter * layer)
    mark = place_rng.standard_normal((runs, 1, 1, source.images.shape[1]), dtype=np.float32)
    mark *= s.placed / np.linalg.norm(mark, axis=-1, keepdims=True)
    position = torch.from_numpy(mark * (2 * node(s.patches).astype(np.float32) - 1)[:, None])

    def draw(kind: str, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        x, *rest = source.draw(kind, count)
        return x + position, *rest

    def route(x: Any) -> tuple[Any, np.ndarray, np.ndarray, Any]:
        """Logits, who is kept, and the affinities."""
        layers = [_digits.gates_of(network[0], s.gates), *network[1:]]
        routed = _digits.forward(layers, x, s.rule, s.capacity, s.scale, keep_rng)
        return *routed, _digits.affinities(layers[0], x)

    def loss() -> Any:
        x, _, _, label = draw("training", s.batch)
        logits, _, _, affinity = route(x)
        total = cross_entropy(logits, label)
        if s.balance or s.locality:
            total = total + auxiliary(affinity, s.scale, s.balance, s.locality, s.epsilon)
        return total

    test = draw("test", s.test_mosaics)

    def measure(run: int, routed: tuple[Any, np.ndarray, np.ndarray, Any], last: bool) -> dict[str, float]:
        x, digit, place, label = (values[run] for values in test)
        token, used = (part.reshape(runs, s.test_mosaics, s.experts, s.capacity)[run] for part in routed[1:3])
        choice = routed[3][run].argmax(dim=-1).numpy()
        far = distances(x.numpy(), token, used)
        found = {
            "accuracy": float((routed[0][run].argmax(dim=-1).numpy() == label).mean()),
            "label processed": float(((token == place[:, None, None]) & used).any(axis=(1, 2)).mean()),
            **routing(x.numpy(), digit, 10, choice, token, used),
            "off node": off_node(token, used, s.patches),
            "cka": expert_similarity(network, x.flatten(0, 1)[:SAME_TOKENS], run),
            **means(far),
        }
        return found | (distributions(choice, s.experts, far) if last else {})

    found: list[dict[str, float]] = [{} for _ in range(runs)]
    with one_thread():
        for step in descend(network, loss, s.checkpoints[-1], s.rate):
            if step in s.checkpoints:
                with torch.no_grad():
                    routed = route(test[0])
                    for run, values in enumerate(found):
                        values |= at(step, s.checkpoints, measure(run, routed, step == s.checkpoints[-1]))
    return counts(found, PER)


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """`count` tokens of one kind, of each expert's candidates the share `kept` of highest affinity. gates "alike": free
    ones with a common vector of weight `alike`, so that no two point apart."""

    tokens: str
    gates: str
    kept: float
    experts: int
    count: int
    alike: float


@takes(Untrained)
def untrained(rng: np.random.Generator, runs: int, s: Untrained) -> Counts:
    """The same without training."""
    import torch

    measured = []
    token_rng, weight_rng = rng.spawn(2)
    free = _digits.start(weight_rng, runs, s.experts, 1)[0].detach().double()
    common = torch.from_numpy(weight_rng.standard_normal((runs, free.shape[1], 1))) / free.shape[1] ** 0.5
    alike = s.gates == "alike"
    weights = _digits.gates_of(free + s.alike * common if alike else free, "free" if alike else s.gates)
    weights = (weights / weights.norm(dim=1, keepdim=True)).numpy().swapaxes(1, 2)
    images, digit = _digits.digits()
    irrelevant = images[digit >= _digits.CLASSES].astype(np.float64)
    covariance = np.eye(images.shape[1]) if s.tokens == "isotropic" else np.cov(irrelevant.T, bias=True)
    for w in weights:
        if "digits" in s.tokens:
            x = token_rng.choice(irrelevant, s.count)
            x = x - (x.mean(axis=0) if s.tokens == "centred digits" else images.mean(axis=0))
        else:
            x = token_rng.multivariate_normal(np.zeros(len(covariance)), covariance, s.count, method="eigh")
        projection = x @ w.T
        expert = projection.argmax(axis=1)
        best = projection.max(axis=1) / np.linalg.norm(x, axis=1)
        chosen = np.concatenate([_best(np.flatnonzero(expert == i), best, s.kept) for i in range(s.experts)])
        measured.append(
            {
                **spread(x[chosen], expert[chosen]),
                "heaviest share": np.bincount(expert).max() / s.count,
                "winning projection": projection.max(axis=1).mean(),
                "isotropic law": homogenization.resonance_scatter(len(w[0]), s.experts, s.kept, select="cosine"),
                **(laws(w, covariance) if s.kept == 1 else {}),
            }
        )
    return counts(measured, PER)


def _best(candidates: np.ndarray, affinity: np.ndarray, kept: float) -> np.ndarray:
    return candidates[np.argsort(-affinity[candidates])][: round(kept * len(candidates))]


LOSSES = {"none": (0, 0), "balance": (1, 0), "locality": (0, 1), "both": (1, 1), "balance/10": (0.1, 0)}  # weights


def arms(settings: dict[str, Any]) -> list[Arm]:
    result: list[Arm] = []

    def add(rule: str, gates: str, *, copies: bool = False, placed: bool = False, loss: str = "none") -> None:
        label = f"{rule}, {gates}" + (", copies" if copies else "") + (", placed" if placed else "")
        label += f", {loss}" if placed or loss != "none" else ""
        scaled = {key: settings[key] * weight for key, weight in zip(("balance", "locality"), LOSSES[loss])}
        own = {"rule": rule, "gates": gates, "copies": copies, "placed": settings["placed"] * placed, **scaled}
        result.append(Arm(label, train, parameters(Training, settings, **own), PER))

    for gates in ("free", "grap", "orthogonal"):
        for rule in WITH_RANDOM:
            add(rule, gates)
    for rule in WITH_RANDOM:
        add(rule, "free", copies=True)
    for rule, gates in (
        ("token_choice", "free"), ("resonance", "free"), ("expert_choice", "free"), ("token_choice", "orthogonal"),
        ("resonance", "orthogonal"),
    ):  # fmt: skip
        for loss in ("none", "balance", "locality", "both"):
            add(rule, gates, placed=True, loss=loss)
    for rule in ("token_choice", "resonance"):
        add(rule, "free", placed=True, loss="balance/10")
        add(rule, "free", loss="locality")
    for tokens, gates, kept in settings["untrained"]:
        label = f"untrained {tokens}, {gates}" + (f", best {kept:g}" if kept < 1 else "")
        own = parameters(Untrained, settings, tokens=tokens, gates=gates, kept=kept)
        result.append(Arm(label, untrained, own, PER))
    return result
