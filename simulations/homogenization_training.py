"""Training: do rules, gates and losses keep experts apart while they are trained?

The mosaics and the network of `digits_mosaics`, by rule and by gates: free weights, fixed GrAP gates, or GrAP behind a
learned orthogonal map. Losses (`losses`): load balance, locality or both, on softmax(scale * cosine). Initial experts:
independent, or near copies of one. Test mosaics are measured before training, at checkpoints and at the end.

For locality, half of the experts and half of a mosaic's places stand on each of two nodes. A gate that sees only a token's
content cannot know its node, so arms with losses have "placed" tokens: a vector of the run is added to the tokens of one
node and subtracted from the others. Two arms are without it.

`untrained` sets gates at the start against the closed forms: tokens that meet the hypotheses (isotropic: H1-H4; Gaussian
with the digits' covariance: H5 in coordinates that make them isotropic), and digits, which do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import homogenization, losses
from resonance_theory.evidence.studies.training import Arm
from resonance_theory.homogenization import cells
from simulations import digits_mosaics
from simulations.digits_mosaics import affinities, cross_entropy, descend, forward, gates_of, one_thread

PACKAGES = ("torch", "scikit-learn")
PER = 100_000  # every measurement is stored as a whole number of these parts
NODES = 2
SAME_TOKENS = 1000  # on which the experts' outputs are compared


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


def spread(tokens: np.ndarray, expert: np.ndarray) -> dict[str, float]:
    """Calinski-Harabasz as printed and standard, and 1 - mean cosine of the experts' centroids; 0 if one expert has all."""
    used = np.unique(expert)
    if len(used) < 2:
        return dict.fromkeys(("calinski-harabasz", "calinski-harabasz, standard", "centroid distance"), 0.0)
    cosines = homogenization.centroid_cosines(tokens, expert)
    return {
        "calinski-harabasz": float(homogenization.calinski_harabasz(tokens, expert, normalized=False)),
        "calinski-harabasz, standard": float(homogenization.calinski_harabasz(tokens, expert)),
        "centroid distance": 1 - float(cosines[~np.eye(len(used), dtype=bool)].mean()),
    }


def routing(
    x: np.ndarray, digit: np.ndarray, choice: np.ndarray, token: np.ndarray, used: np.ndarray
) -> dict[str, float]:
    """Of one run. x: (samples, patches, pixels); digit and choice (samples, patches): a token's digit and best expert;
    token, used: as of `keep`."""
    samples, patches, _ = x.shape
    experts = token.shape[1]
    sample, expert, slot = np.nonzero(used)
    kept = token[sample, expert, slot]
    table = np.zeros((10, experts))
    np.add.at(table, (digit[sample, kept], expert), 1)
    load = np.bincount(choice.ravel(), minlength=experts)
    return {
        "processed": len(kept) / samples,
        **spread(x[sample, kept], expert),
        "information": homogenization.dispatch_information(table),
        "entropy": float(homogenization.dispatch_entropy(load)),
        "load cv": float(homogenization.load_cv(load)),
        "load gini": float(homogenization.load_gini(load)),
        "heaviest share": load.max() / load.sum(),
        "off node": float((node(experts)[expert] != node(patches)[kept]).mean()),
    }


def distances(x: np.ndarray, token: np.ndarray, used: np.ndarray) -> dict[str, np.ndarray]:
    """1 - cosine of every pair of tokens of a mosaic, and of the pairs that some expert keeps both of."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosine = unit @ unit.swapaxes(1, 2)
    member = np.zeros((len(x), token.shape[1], x.shape[1]), dtype=np.float32)
    sample, expert, slot = np.nonzero(used)
    member[sample, expert, token[sample, expert, slot]] = 1
    first, second = np.triu_indices(x.shape[1], 1)
    together = (member.swapaxes(1, 2) @ member)[:, first, second] > 0
    pair = 1 - cosine[:, first, second]
    return {"token distance": pair.ravel(), "token distance at one expert": pair[together]}


def expert_similarity(network: list[Any], x: Any, run: int) -> float:
    """Mean linear CKA of two experts' outputs on the same tokens (tokens, pixels)."""
    import torch

    _, first, bias, second, _ = (weights[run] for weights in network)
    out = torch.matmul(torch.relu(torch.matmul(x, first) + bias), second)
    pairs = zip(*np.triu_indices(len(out), 1))
    return float(np.mean([float(homogenization.linear_cka(out[i], out[j])) for i, j in pairs]))


def distributions(choice: np.ndarray, experts: int, far: dict[str, np.ndarray]) -> dict[str, float]:
    """Loads of the experts in rising order, the distribution function of an expert's load in one mosaic, deciles of pairs."""
    load = (choice[..., None] == np.arange(experts)).sum(axis=1)
    shares = np.sort(load.sum(axis=0)) / choice.size
    found = {f"load share {i}": share for i, share in enumerate(shares, start=1)}
    found |= {f"load at most {k}": (load <= k).mean() for k in range(choice.shape[1])}
    for name, values in far.items():
        found |= {f"{name}, decile {k}": np.quantile(values, k / 10) if len(values) else 0.0 for k in range(1, 10)}
    return found


def train(
    rng: np.random.Generator,
    trials: int,
    *,
    rule: str,
    gates: str,
    copies: bool,
    placed: float,
    balance: float,
    locality: float,
    epsilon: float,
    jitter: float,
    experts: int,
    capacity: int,
    hidden: int,
    patches: int,
    checkpoints: list[int],
    batch: int,
    rate: float,
    scale: float,
    test_share: float,
    test_mosaics: int,
) -> dict[str, int]:
    """Train `trials` networks side by side and measure them at the checkpoints, of which the last ends the training."""
    import torch

    data_rng, weight_rng, keep_rng, place_rng = rng.spawn(4)
    source = digits_mosaics.Mosaics(data_rng, trials, patches, test_share)
    network = digits_mosaics.start(weight_rng, trials, experts, hidden)
    if copies:
        with torch.no_grad():
            for layer in (network[1], network[3]):
                layer.copy_(layer[:, :1] + jitter * layer)
    mark = place_rng.standard_normal((trials, 1, 1, source.images.shape[1]), dtype=np.float32)
    mark *= placed / np.linalg.norm(mark, axis=-1, keepdims=True)
    position = torch.from_numpy(mark * (2 * node(patches).astype(np.float32) - 1)[:, None])

    def draw(kind: str, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        x, *rest = source.draw(kind, count)
        return x + position, *rest

    def route(x: Any) -> tuple[Any, np.ndarray, np.ndarray, Any]:
        """Logits, who is kept, and the affinities."""
        layers = [gates_of(network[0], gates), *network[1:]]
        return *forward(layers, x, rule, capacity, scale, keep_rng), affinities(layers[0], x)

    def loss() -> Any:
        x, _, _, label = draw("training", batch)
        logits, _, _, affinity = route(x)
        total = cross_entropy(logits, label)
        if balance or locality:
            total = total + auxiliary(affinity, scale, balance, locality, epsilon)
        return total

    test = draw("test", test_mosaics)

    def measure(run: int, routed: tuple[Any, np.ndarray, np.ndarray, Any], last: bool) -> dict[str, float]:
        x, digit, place, label = (values[run] for values in test)
        token, used = (part.reshape(trials, test_mosaics, experts, capacity)[run] for part in routed[1:3])
        choice = routed[3][run].argmax(dim=-1).numpy()
        far = distances(x.numpy(), token, used)
        found = {
            "accuracy": float((routed[0][run].argmax(dim=-1).numpy() == label).mean()),
            "label processed": float(((token == place[:, None, None]) & used).any(axis=(1, 2)).mean()),
            **routing(x.numpy(), digit, choice, token, used),
            "cka": expert_similarity(network, x.flatten(0, 1)[:SAME_TOKENS], run),
            **{name: float(values.mean()) if len(values) else 0.0 for name, values in far.items()},
        }
        return found | (distributions(choice, experts, far) if last else {})

    counts: dict[str, int] = {}
    with one_thread():
        for step in descend(network, loss, checkpoints[-1], rate):
            if step not in checkpoints:
                continue
            last = step == checkpoints[-1]
            with torch.no_grad():
                routed = route(test[0])
                measured = [measure(run, routed, last) for run in range(trials)]
            for name in measured[0]:
                key = f"{name} @{'end' if last else step}"
                counts |= {f"{key}/{run}": round(found[name] * PER) for run, found in enumerate(measured)}
    return counts


def laws(gates: np.ndarray, covariance: np.ndarray) -> dict[str, float]:
    """Exact values for tokens x = S z, z isotropic Gaussian, S S = covariance, and unit gates (experts, dim) (H5).

    <w, S z> = <S w, z>, so the cells of the gates S w in z give the shares, and S their first moments those of x.
    """
    value, vector = np.linalg.eigh(covariance)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    found = cells.cells(gates @ root)
    moment = found.mean @ root
    between = float(((moment**2).sum(axis=1) / found.share).sum())
    unit = moment / np.linalg.norm(moment, axis=1, keepdims=True)
    cosine = (unit @ unit.T)[~np.eye(len(gates), dtype=bool)].mean()
    return {
        "calinski-harabasz law": between / (np.trace(covariance) - between),
        "centroid distance law": 1 - cosine,
        "heaviest share law": found.share.max(),
        "winning projection law": float((gates * moment).sum()),
    }


def untrained(
    rng: np.random.Generator,
    trials: int,
    *,
    tokens: str,
    gates: str,
    kept: float,
    experts: int,
    count: int,
    alike: float,
) -> dict[str, int]:
    """The same without training: `count` tokens of one kind, of each expert's candidates the share `kept` of highest
    affinity. gates "alike": free ones with a common vector, so that no two point apart (H4)."""
    import torch

    counts: dict[str, int] = {}
    token_rng, weight_rng = rng.spawn(2)
    free = digits_mosaics.start(weight_rng, trials, experts, 1)[0].detach().double()
    common = torch.from_numpy(weight_rng.standard_normal((trials, free.shape[1], 1))) / free.shape[1] ** 0.5
    weights = gates_of(free + alike * common, "free") if gates == "alike" else gates_of(free, gates)
    weights = (weights / weights.norm(dim=1, keepdim=True)).numpy().swapaxes(1, 2)
    images, digit = digits_mosaics.digits()
    irrelevant = images[digit >= digits_mosaics.CLASSES].astype(np.float64)
    covariance = np.eye(images.shape[1]) if tokens == "isotropic" else np.cov(irrelevant.T, bias=True)
    for run, w in enumerate(weights):
        if "digits" in tokens:
            x = token_rng.choice(irrelevant, count)
            x = x - (x.mean(axis=0) if tokens == "centred digits" else images.mean(axis=0))
        else:
            x = token_rng.multivariate_normal(np.zeros(len(covariance)), covariance, count, method="eigh")
        projection = x @ w.T
        expert = projection.argmax(axis=1)
        best = projection.max(axis=1) / np.linalg.norm(x, axis=1)
        chosen = np.concatenate([_best(np.flatnonzero(expert == i), best, kept) for i in range(experts)])
        found = {
            **spread(x[chosen], expert[chosen]),
            "heaviest share": np.bincount(expert).max() / count,
            "winning projection": projection.max(axis=1).mean(),
            "isotropic law": float(homogenization.resonance_scatter(len(w[0]), experts, kept, select="cosine")),
            **(laws(w, covariance) if kept == 1 else {}),
        }
        counts |= {f"{name}/{run}": round(value * PER) for name, value in found.items()}
    return counts


def _best(candidates: np.ndarray, affinity: np.ndarray, kept: float) -> np.ndarray:
    return candidates[np.argsort(-affinity[candidates])][: round(kept * len(candidates))]


LOSSES = {"none": (0, 0), "balance": (1, 0), "locality": (0, 1), "both": (1, 1), "balance/10": (0.1, 0)}  # weights


def arms(settings: dict[str, Any]) -> list[Arm]:
    common = ("epsilon", "jitter", "experts", "capacity", "hidden", "patches", "checkpoints", "batch", "rate", "scale")
    shared = {key: settings[key] for key in (*common, "test_share", "test_mosaics")}
    result: list[Arm] = []

    def add(rule: str, gates: str, *, copies: bool = False, placed: bool = False, loss: str = "none") -> None:
        label = f"{rule}, {gates}" + (", copies" if copies else "") + (", placed" if placed else "")
        label += f", {loss}" if placed or loss != "none" else ""
        balance, locality = LOSSES[loss]
        change = {"balance": balance * settings["balance"], "locality": locality * settings["locality"]}
        change |= {"rule": rule, "gates": gates, "copies": copies, "placed": settings["placed"] * placed}
        result.append(Arm(label, train, shared | change, PER))

    for gates in ("free", "grap", "orthogonal"):
        for rule in ("token_choice", "random_keep", "expert_choice", "resonance"):
            add(rule, gates)
    for rule in ("token_choice", "random_keep", "expert_choice", "resonance"):
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
        change = {
            "tokens": tokens,
            "gates": gates,
            "kept": kept,
            "count": settings["count"],
            "alike": settings["alike"],
        }
        label = f"untrained {tokens}, {gates}" + (f", best {kept:g}" if kept < 1 else "")
        result.append(Arm(label, untrained, change | {"experts": settings["experts"]}, PER))
    return result
