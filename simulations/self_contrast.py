"""Training: does contrasting a small language model's Top-2 routing with its weak routing improve the next byte?

A byte model (`_transformer`) on the text of `_corpus` has mixtures of four experts, routed Top-2 without capacity. After training
each test byte is predicted under Top-2, under rank-k routing (one expert, the k-th best, weight 1) and by
`systems.self_contrast` of the two. "accuracy" counts bytes whose most likely value is right. The strength is chosen in two ways:
on other windows ("chosen"), or as the best of five on the test windows themselves ("best of five"), as SCMoE reports. "changed"
is the share of bytes whose prediction moves; "copies" makes all experts equal at the end, where nothing may move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from resonance_theory import homogenization
from resonance_theory.evidence.studies.training import Arm
from simulations import _language
from simulations._metrics import mean_of_pairs
from simulations._training import Counts, counts, one_thread, parameters, takes

PACKAGES = _language.PACKAGES
PER = 1_000_000
STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
RANKS = (2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Training:
    """copies: whether experts are made equal after training; text, size: as for `_language`."""

    copies: bool
    text: dict[str, Any]
    size: dict[str, Any]
    rate: float


def build(size: dict[str, Any], seed: int) -> tuple[Any, list[Any]]:
    """The transformer, and its layers of experts, whose `rank` says how they route: 0 Top-2, k the k-th best alone."""
    import torch
    from torch import nn

    from resonance_theory.nn import FeedForwardExperts
    from simulations._transformer import Transformer

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = FeedForwardExperts(size["dim"], size["hidden"], size["experts"])
            self.gate = nn.Linear(size["dim"], size["experts"], bias=False)
            self.rank = 0
            self.seen: Any = None

        def forward(self, x: Any) -> Any:
            flat = x.reshape(-1, x.shape[-1])
            each = self.experts(flat.expand(size["experts"], *flat.shape))
            probability = self.gate(flat).softmax(-1)
            value, index = probability.sort(-1, descending=True)
            weight = torch.zeros_like(probability)
            if self.rank:
                weight = weight.scatter(1, index[:, self.rank - 1 : self.rank], 1.0)
            else:
                weight = weight.scatter(1, index[:, :2], value[:, :2] / value[:, :2].sum(-1, keepdim=True))
            self.seen = each.detach()
            return torch.einsum("ne,end->nd", weight, each).reshape(x.shape)

    layers: list[Any] = []

    def feed(_: int) -> Any:
        layers.append(Mixture())
        return layers[-1]

    shape = {key: size[key] for key in ("dim", "layers", "heads", "tokens", "grams", "table")}
    return Transformer(feed, **shape, seed=seed), layers


def predictions(model: Any, layers: list[Any], windows: np.ndarray, batch: int) -> dict[int, np.ndarray]:
    """Logits (bytes, 256) under Top-2 (0) and under every rank."""
    import torch

    found: dict[int, list[np.ndarray]] = {rank: [] for rank in (0, *RANKS)}
    with torch.no_grad():
        for x in _language.batches(windows, batch, "cpu"):
            for rank, parts in found.items():
                for layer in layers:
                    layer.rank = rank
                parts.append(model(x[:, :-1]).flatten(0, 1).numpy())
    for layer in layers:
        layer.rank = 0
    return {rank: np.concatenate(parts) for rank, parts in found.items()}


def scores(logits: dict[int, np.ndarray], target: np.ndarray) -> dict[str, float]:
    """Accuracy under each routing and each contrast, and the share of predictions that the contrast moves."""
    from resonance_theory.systems.self_contrast import contrast_logits

    strong = logits[0].argmax(axis=1)
    found = {"accuracy": float(np.mean(strong == target))}
    for rank in RANKS:
        found[f"accuracy, rank {rank} alone"] = float(np.mean(logits[rank].argmax(axis=1) == target))
        for beta in STRENGTHS:
            told = contrast_logits(logits[0], logits[rank], beta).argmax(axis=1)
            found[f"rank {rank}, {beta}"] = float(np.mean(told == target))
            found[f"changed, rank {rank}, {beta}"] = float(np.mean(told != strong))
    return found


@takes(Training)
def train(rng: np.random.Generator, runs: int, s: Training) -> Counts:
    """Train models one after the other and predict."""
    import torch

    every = []
    with torch.random.fork_rng(), one_thread():
        for _ in range(runs):
            data_rng, weight_rng = rng.spawn(2)
            data, calibration, test = _language.draw(data_rng, **s.text)
            model, layers = build(s.size, int(weight_rng.integers(2**31)))
            _language.fit(model, data, s.rate, 0.0, "cpu")
            model.eval()
            if s.copies:
                with torch.no_grad():
                    for layer in layers:
                        for weight in layer.experts.parameters():
                            weight.copy_(weight[:1].expand_as(weight))
            other, here = (
                scores(predictions(model, layers, w, s.text["batch"]), w[:, 1:].ravel().astype(np.int64))
                for w in (calibration, test)
            )
            pairs = [layer.seen.double().numpy() for layer in layers]
            found = {
                "accuracy": here["accuracy"],
                "cka": float(np.mean([mean_of_pairs(homogenization.linear_cka, p) for p in pairs])),
            }
            for rank in RANKS:
                found[f"rank {rank} alone"] = here[f"accuracy, rank {rank} alone"]
                best = max(STRENGTHS, key=lambda b, r=rank: other[f"rank {r}, {b}"])  # type: ignore[misc]
                found[f"chosen, rank {rank}"] = here[f"rank {rank}, {best}"]
                found[f"changed, rank {rank}"] = here[f"changed, rank {rank}, 0.5"]
                found[f"best of five, rank {rank}"] = max(here[f"rank {rank}, {b}"] for b in STRENGTHS)
            every.append(found)
    return counts(every, PER)


def arms(settings: dict[str, Any]) -> list[Arm]:
    settings = settings | _language.shared(settings, settings["steps"])
    return [
        Arm(label, train, parameters(Training, settings, copies=copies), PER)
        for label, copies in (("Top-2", False), ("copies", True))
    ]
