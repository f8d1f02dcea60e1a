"""Training: do rules and gates keep the experts of the language model apart while it is trained?

Network, text and training are those of `_language`; here a copy of the network is
measured on test windows at the start, at checkpoints and at the end. Tokens are routed as in training: each rule selects
among all tokens of a window, and centred gates take the mean of the batch. A layer's tokens are those in front of its
router. Measurements are means over the layers.

"all tokens" ones give every token to its best expert, without capacity, so that what gates and tokens do is told apart from
what keeping does. For them there are closed forms: tokens uniform on the sphere (behind the normalisation they lie in
the hyperplane across the vector of ones), and Gaussian tokens with the covariance measured. "Gaussian" draws such
tokens: they meet the hypotheses, and text does not.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import grap_gates, homogenization
from resonance_theory.evidence.studies.training import Arm
from simulations import _language
from simulations._metrics import balance, distances, information, laws, means, spread
from simulations._training import Counts, at, counts, one_thread, parameters, takes

PACKAGES = _language.PACKAGES
PER = 10_000  # every measurement is stored as a whole number of these parts
CLASSES = (b"\n", b" ", b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # and the rest


@cache
def byte_class() -> NDArray[np.int64]:
    """Class (256,) of every byte: its place in CLASSES, or the one after them."""
    found = np.full(256, len(CLASSES))
    for number, members in enumerate(CLASSES):
        found[list(members)] = number
    return found


def gates_of(gate: Any, dim: int, experts: int) -> NDArray[np.float64]:
    """Unit vectors (experts, dim) with whose cosine a GrAP gate compares, behind its map if it has one."""
    rows = grap_gates(dim, experts)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ gate.map.weight.detach().double().numpy() if hasattr(gate, "map") else rows


def routed(x: NDArray[np.float64], text: NDArray[np.uint8], routing: Any) -> dict[str, float]:
    """What one layer's router does. x: (windows, tokens, dim); text: the tokens' bytes (windows, tokens)."""
    token, filled = routing.token.numpy(), routing.filled.numpy()
    sample, expert, slot = np.nonzero(filled)
    place = token[sample, expert, slot]
    best, experts = routing.expert[..., 0].numpy().ravel(), filled.shape[1]
    load = np.bincount(best, minlength=experts)
    kept, every = spread(x[sample, place], expert), spread(x.reshape(-1, x.shape[-1]), best)
    byte = text[sample, place]
    return {
        "kept": len(place) / text.size,
        **kept,
        **{f"{name}, all tokens": every[name] for name in ("calinski-harabasz", "centroid distance")},
        "byte information": information(byte, 256, expert, experts),
        "class information": information(byte_class()[byte], len(CLASSES) + 1, expert, experts),
        **balance(load),
        **means(distances(x, token, filled)),
    }


def predicted(
    rng: np.random.Generator, x: NDArray[np.float64], gates: NDArray[np.float64], count: int
) -> dict[str, float]:
    """Closed forms for tokens of the mean 0 and the covariance of x (tokens, dim), and `count` such Gaussian tokens."""
    covariance = np.cov(x.T, bias=True)
    drawn = rng.multivariate_normal(np.zeros(len(covariance)), covariance, count, method="eigh")
    found = laws(gates, covariance)
    return {
        "isotropic law": float(homogenization.token_choice_scatter(len(covariance) - 1, len(gates), sphere=True)),
        "calinski-harabasz, Gaussian": spread(drawn, (drawn @ gates.T).argmax(axis=1))["calinski-harabasz"],
        **{
            f"{name} law": found[f"{name} law"] for name in ("calinski-harabasz", "centroid distance", "heaviest share")
        },
    }


def measure(model: Any, test: NDArray[np.uint8], rng: np.random.Generator, drawn: int) -> dict[str, float]:
    """All measurements of a network on test windows; neither it nor torch's generators are changed. drawn: Gaussian
    tokens for the closed forms, 0 to leave these out."""
    import torch

    model = copy.deepcopy(model).train()
    routers = _language.routers_of(model)
    for router in routers:
        router.seen = []
    with torch.random.fork_rng(), torch.no_grad():
        loss = float(_language.loss_of(model, torch.from_numpy(test.astype(np.int64))))
    each = []
    for router in routers:
        x = router.seen[0][0].double().numpy()
        one = routed(x, test[:, :-1], router.seen[0][1]) | _language.alignment(model, router)
        if drawn:
            flat = x.reshape(-1, x.shape[-1])
            one |= predicted(rng, flat, gates_of(router.inner.gate, x.shape[-1], router.inner.experts), drawn)
        each.append(one)
    return {"loss selected": loss} | {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def copied(model: Any, jitter: float) -> None:
    """Make every layer's experts near copies: the first one's weights, and the share `jitter` of their own."""
    import torch

    with torch.no_grad():
        for router in _language.routers_of(model):
            for weight in _language.experts_of(model, router).parameters():
                weight.copy_(weight[:1] + jitter * weight)


@dataclass(frozen=True, kw_only=True)
class Training(_language.Sizes):
    """jitter: share of their own weights in which experts differ at the start, 0 for independent ones."""

    jitter: float
    checkpoints: list[int]
    drawn: int


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train networks one after the other and measure them at the checkpoints, of which the last ends the training."""
    import torch

    every = []
    with torch.random.fork_rng(), one_thread():
        for _ in range(runs):
            data_rng, weight_rng, keep_rng = rng.spawn(3)  # as in language_model.train
            law_rng = keep_rng.spawn(1)[0]
            data, calibration, test = _language.draw(data_rng, **s.text)
            model = _language.build(s.arm, s.size, int(weight_rng.integers(2**31)))
            if s.jitter:
                copied(model, s.jitter)
            torch.manual_seed(int(keep_rng.integers(2**31)))
            found: dict[str, float] = {}

            def watch(step: int) -> None:
                if step in s.checkpoints:
                    ends = step in (0, s.checkpoints[-1])
                    found.update(at(step, s.checkpoints, measure(model, test, law_rng, s.drawn if ends else 0)))  # noqa: B023

            seen = _language.fit(model, data, s.rate, s.alpha, "cpu", watch)
            found["processed"] = _language.processed(seen, model, data)["processed"]
            found["loss"] = _language.measure(model, calibration, test, s.text["batch"], "cpu")["loss"]
            every.append(found)
    return counts(every, PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    settings = settings | _language.shared(settings, settings["checkpoints"][-1])
    routed = _language.routed(settings)

    def arm(label: str, of: str, **own: Any) -> Arm:
        return Arm(label, train, parameters(Training, settings, **{"arm": routed[of], "jitter": 0.0} | own), PER)

    same = ("LocMoE", "expert choice", "resonance", "random keep", "centred", "orthogonal map")
    result = [arm(label, label) for label in same]
    result.append(arm("resonance, no balance loss", "resonance", alpha=0.0))
    return [*result, arm("resonance, copies", "resonance", jitter=settings["jitter"])]
