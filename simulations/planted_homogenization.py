"""Training: do rules, gates and the balance loss keep experts apart where one token in many bears the class?

Samples and networks are those of `_planted`, measured before training, at checkpoints and at the end. An expert is one
linear detector; "copies" start as near copies of one. The balance loss acts on softmax(scale * cosine). Groups of tokens,
for the information: the classes, and the background.

At the start and at the end some arms also route samples that are all background, isotropic and Gaussian: there closed
forms hold for the gates as they are, learned or not. As length and direction are independent, kept tokens have
E|x|² = d under any rule that looks at cosines; with their centroids m_i and shares π_i, between = Σ π_i |m_i|² - |Σ π_i m_i|²
and within = d - Σ π_i |m_i|². The centroids:

    token choice, random keep   those of the gates' cells, for any gates
    expert choice               w_i times the mean projection of the best C of s tokens, for any unit gates
    resonance                   orthonormal gates only. A candidate that the share f of its expert's candidates exceeds is
                                kept with φ(f) = P(Bin(s-1, f/n) < C), so the kept are a mixture of the top fractions f,
                                with density f (-φ'(f)) and the mass φ(1) at f = 1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import entr, gammaln
from scipy.stats import binom

from resonance_theory import homogenization, losses
from resonance_theory.evidence.studies.training import Arm
from resonance_theory.homogenization import cells
from resonance_theory.rules import expert_choice, token_choice
from resonance_theory.tokens import Rates
from simulations._metrics import SAME_TOKENS, balance, distances, information, mean_of_pairs, means, routing, spread
from simulations._planted import Gated, background_of, draw, start, weigh
from simulations._rules import dispatch
from simulations._training import Counts, at, descend, each_run, parameters, takes

PACKAGES = ("torch",)
PER = 100_000  # every measurement is stored as a whole number of these parts
PAIRS = 200  # samples whose pairs of tokens are looked at
NODES = 24  # of the mixture


def likeness(outputs: np.ndarray) -> dict[str, float]:
    """Mean linear CKA of two experts, each with one output (tokens, experts) per token, and what chance gives of it."""
    found = {"cka": homogenization.linear_cka, "cka chance": homogenization.linear_cka_chance}
    return {name: mean_of_pairs(measure, outputs.T[..., None]) for name, measure in found.items()}


def apart(x: np.ndarray, token: np.ndarray, used: np.ndarray) -> dict[str, float]:
    """Mean of 1 - cosine over pairs of tokens of a sample, and over those that some expert keeps both of; 0 for none."""
    return means(distances(x[:PAIRS], token[:PAIRS], used[:PAIRS]))


def class_information(label: np.ndarray, place: np.ndarray, token: np.ndarray, used: np.ndarray, experts: int) -> float:
    """Mutual information in nats of the class and the expert that keeps the planted token, over those kept; 0 for none."""
    sample, expert, _ = np.nonzero(used & (token == place[:, None, None]))
    return information(label[sample], experts, expert, experts)


@cache
def resonance_means(tokens: int, dim: int, experts: int, capacity: int) -> tuple[float, float]:
    """Mean cosines of a kept token with its own gate and with another (orthonormal) one, in samples of s tokens."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    fraction = np.append((nodes + 1) / 2, 1.0)
    fall = (tokens - 1) / experts * binom.pmf(capacity - 1, tokens - 2, fraction / experts)  # -φ'
    mass = weights / 2 * fraction[:-1] * fall[:-1]
    mass = np.append(mass, binom.cdf(capacity - 1, tokens - 1, 1 / experts))
    own, other = homogenization.kept_means(dim, experts, fraction, select="cosine")
    return float(mass @ own / mass.sum()), float(mass @ other / mass.sum())


def mean_length(dim: int) -> float:
    """E|x| of x ~ N(0, I)."""
    return float(np.sqrt(2) * np.exp(gammaln((dim + 1) / 2) - gammaln(dim / 2)))


def centroids(gates: np.ndarray, rule: str, tokens: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(centroids (experts, dim), shares) of the tokens that unit gates (experts, dim) keep of isotropic Gaussian ones."""
    experts, dim = gates.shape
    even = np.full(experts, 1 / experts)
    if rule == "expert_choice":
        token = Rates.planted(0.0, dim, experts)  # a background token's affinity with one gate
        kept = token.rate("weight") * expert_choice.success(tokens, capacity, token.replace(weight=None))
        return mean_length(dim) * float(kept @ token.rate("affinity") / kept.sum()) * gates, even
    if rule == "resonance":
        own, other = resonance_means(tokens, dim, experts, capacity)
        return mean_length(dim) * ((own - other) * gates + other * gates.sum(axis=0)), even
    cell = cells.cells(gates)
    kept = cell.share * token_choice.success(tokens, capacity, Rates(load=cell.share))
    return cell.mean / cell.share[:, None], kept / kept.sum()


def laws(gates: np.ndarray, rule: str, tokens: int, capacity: int) -> dict[str, float]:
    """What samples of background alone tend to, for unit gates (experts, dim); orthonormal ones in the case of resonance."""
    experts, dim = gates.shape
    centre, share = centroids(gates, rule, tokens, capacity)
    square, grand = float(share @ (centre**2).sum(axis=1)), share @ centre
    unit = (centre - grand) / np.linalg.norm(centre - grand, axis=1, keepdims=True)
    load = cells.cells(gates).share  # before the capacity
    found = {
        "calinski-harabasz law": (square - float(grand @ grand)) / (dim - square),
        "centroid distance law": 1 - float((unit @ unit.T)[~np.eye(experts, dtype=bool)].mean()),
        "heaviest share law": float(load.max()),
        "entropy law": float(entr(load).sum()),
    }
    if rule in ("token_choice", "random_keep"):  # whom the others have kept does not tell which tokens these are
        number = np.minimum(np.arange(tokens + 1), capacity)
        pairs = binom.pmf(np.arange(tokens + 1), tokens, load[:, None]) @ (number * (number - 1))
        near = (centre**2).sum(axis=1) / mean_length(dim) ** 2
        found["token distance at one expert law"] = 1 - float(pairs @ near / pairs.sum())
    return found


def on_background(
    x: np.ndarray,
    affinity: np.ndarray,
    gates: np.ndarray,
    detectors: np.ndarray,
    rule: str,
    capacity: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Measurements of samples that are all background, and where there are laws, what these say.

    gates, detectors: unit vectors (experts, dim).
    """
    experts = len(gates)
    token, used = dispatch(affinity, rule, capacity, rng)
    sample, expert, slot = np.nonzero(used)
    load = np.bincount(affinity.argmax(axis=-1).ravel(), minlength=experts)
    found = {
        **spread(x[sample, token[sample, expert, slot]], expert),
        **{name: value for name, value in balance(load).items() if name != "load cv"},
        "token distance at one expert": apart(x, token, used)["token distance at one expert"],
        "cka": likeness(x.reshape(-1, x.shape[-1]) @ detectors.T)["cka"],
        "cka law": float(((detectors @ detectors.T)[np.triu_indices(experts, 1)] ** 2).mean()),
    }
    del found["calinski-harabasz, standard"]
    orthonormal = np.allclose(gates @ gates.T, np.eye(experts), atol=1e-4)
    if orthonormal:
        one = homogenization.resonance_scatter(x.shape[-1], experts, capacity * experts / x.shape[1], select="cosine")
        found |= {"calinski-harabasz, one threshold": float(one)} if rule == "resonance" else {}
    if orthonormal or rule != "resonance":
        found |= laws(gates, rule, x.shape[1], capacity)
    return {f"background {name}": value for name, value in found.items()}


@dataclass(frozen=True, kw_only=True)
class Training(Gated):
    """copies: experts start as the first one's weights and the share `jitter` of their own; balance: weight of the loss;
    blank: number of samples of background alone, 0 for none."""

    copies: bool
    jitter: float
    balance: float
    blank: int


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks, one after the other, and measure them at the checkpoints, of which the last is the end."""
    import torch

    def one(stream: np.random.Generator) -> dict[str, float]:
        weight_rng, data_rng, test_rng, keep_rng = stream.spawn(4)
        push, net = start(weight_rng, s)
        if s.copies:
            with torch.no_grad():
                net.detectors.copy_(net.detectors[:, :1] + s.jitter * net.detectors)

        def route(x: np.ndarray) -> tuple[Any, Any, Any, np.ndarray, np.ndarray]:
            """Detections, affinities, logits, and who is kept."""
            seen, affinity = net.gate(torch.from_numpy(x))
            detected = seen @ net.detectors
            summed, token, used = weigh(affinity, detected, s.rule, s.capacity, net.scale, keep_rng)
            return detected, affinity, summed + net.offset, token, used

        def loss() -> Any:
            x, _, label = draw(data_rng, s.batch, *s.shape, push)
            _, affinity, logits, *_ = route(x)
            total = torch.nn.functional.cross_entropy(logits, torch.from_numpy(label))
            if s.balance:
                probability = torch.softmax(net.scale * affinity, dim=-1).flatten(0, 1)
                total = total + losses.load_balance(probability, probability.argmax(dim=-1), alpha=s.balance)
            return total

        x, place, label = draw(test_rng, s.samples, *s.shape, push)
        alone = draw(test_rng, s.blank, s.tokens, s.dim, s.experts, 0.0, 0.0)[0]
        group = np.full(x.shape[:2], s.experts)
        group[np.arange(s.samples), place] = label

        def measure(edge: bool) -> dict[str, float]:
            with torch.no_grad():
                detected, affinity, logits, token, used = route(x)
                gates = net.gate(torch.eye(s.dim)[None])[1][0].T.double().numpy()  # cosines of the unit vectors
                scores = net.gate(torch.from_numpy(alone))[1].numpy() if s.blank and edge else None
            found = routing(x, group, s.experts + 1, affinity.argmax(dim=-1).numpy(), token, used)
            if scores is not None:
                detectors = net.detectors.detach().T.double().numpy()
                detectors /= np.linalg.norm(detectors, axis=1, keepdims=True)
                found |= on_background(alone, scores, gates, detectors, s.rule, s.capacity, keep_rng)
            return {
                "accuracy": float((logits.argmax(dim=-1).numpy() == label).mean()),
                "label processed": float((used & (token == place[:, None, None])).any(axis=(1, 2)).mean()),
                **found,
                "class information": class_information(label, place, token, used, s.experts),
                **likeness(detected.flatten(0, 1)[:SAME_TOKENS].numpy()),
                "gate distance": 1 - float((gates @ gates.T)[~np.eye(s.experts, dtype=bool)].mean()),
                **apart(x, token, used),
            }

        values: dict[str, float] = {}
        for step in descend(net.trained, loss, s.checkpoints[-1], s.rate, fall=False):
            if step in s.checkpoints:
                values |= at(step, s.checkpoints, measure(step in (0, s.checkpoints[-1])))
        return values

    return each_run(rng, runs, PER, one)


def arms(settings: dict[str, Any]) -> list[Arm]:
    backgrounds = background_of(settings)
    result: list[Arm] = []
    for gate, background, rule, change in settings["arms"]:
        own = {
            "gate": gate,
            "rule": rule,
            "copies": change == "copies",
            "balance": settings["balance"] if change == "balance" else 0.0,
            "blank": settings["blank"] if background == "independent" and not change else 0,
        }
        label = f"{gate}, {background}, {rule}" + (f", {change}" if change else "")
        result.append(Arm(label, train, parameters(Training, settings, **backgrounds[background], **own), PER))
    return result
