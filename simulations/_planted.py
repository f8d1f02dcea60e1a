"""Planted tokens in training: samples of which one token bears a class, the routers, and what they train.

A sample has s tokens; one, at a random place, is theta u_i + z for the class i (orthonormal directions u), the others are
background: independent; or with a mean, the same for all samples (skewed loads, still binomial); or with a component that
a sample's tokens share (loads beyond binomial). Expert i has one linear detector, of class i. Routers:

    free        gates trained freely, by cosine
    dense       gates trained freely, by inner product
    orthogonal  fixed GrAP gates after a trained orthogonal map
    embedding   fixed GrAP gates on trained embeddings of the tokens, which the detectors see as well
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simulations._rules import dispatch


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """signal: theta, in standard deviations of a token's entry; shared: share of a background token's variance that is
    common to its sample; samples: number of those that are measured; the rest sizes the router and its training."""

    tokens: int
    dim: int
    experts: int
    signal: float
    shared: float
    capacity: int
    batch: int
    rate: float
    scale: float
    samples: int

    @property
    def shape(self) -> tuple[int, int, int, float, float]:
        """What `draw` needs."""
        return self.tokens, self.dim, self.experts, self.signal, self.shared


@dataclass(frozen=True, kw_only=True)
class Gated(Sizes):
    """gate: one of the routers above; mean: length of the background's mean; the last checkpoint ends the training."""

    gate: str
    rule: str
    mean: float
    checkpoints: list[int]


def draw(
    rng: np.random.Generator,
    samples: int,
    tokens: int,
    dim: int,
    experts: int,
    signal: float,
    shared: float,
    push: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x (samples, tokens, dim), place, class); push (dim,): the background's mean."""
    x = np.sqrt(1 - shared) * rng.standard_normal((samples, tokens, dim), dtype=np.float32)
    x += np.sqrt(shared) * rng.standard_normal((samples, 1, dim), dtype=np.float32)
    place, label = rng.integers(0, tokens, samples), rng.integers(0, experts, samples)
    x[np.arange(samples), place] = rng.standard_normal((samples, dim), dtype=np.float32)
    x[np.arange(samples), place, label] += signal  # u_i is the i-th unit vector
    x = x.astype(np.float32)
    if push is not None:
        x += push
        x[np.arange(samples), place] -= push
    return x, place, label


def cosine(x: np.ndarray, gates: np.ndarray) -> np.ndarray:
    return (x @ (gates / np.linalg.norm(gates, axis=0))) / np.linalg.norm(x, axis=-1, keepdims=True)


def weigh(
    affinity: Any, detected: Any, rule: str, capacity: int, scale: float, rng: np.random.Generator
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Logits up to the offset (samples, experts), and (token, used) of `dispatch`; affinity, detected: (samples, s, experts)."""
    import torch

    token, used = dispatch(affinity.detach().numpy(), rule, capacity, rng)
    value = torch.sigmoid(scale * affinity) * detected
    kept = value.transpose(1, 2).gather(2, torch.from_numpy(token)) * torch.from_numpy(used)
    return kept.sum(dim=-1), token, used


class Network(NamedTuple):
    """gate: tokens (samples, s, d) -> (what the detectors see, affinities (samples, s, n)); with all that is trained."""

    gate: Any
    detectors: Any
    offset: Any
    trained: list[Any]
    scale: float


def network(kind: str, dim: int, experts: int, scale: float, seed: int) -> Network:
    """One of the routers above, with one linear detector for each expert."""
    import torch

    from resonance_theory.nn import gates

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detectors = (torch.randn(dim, experts) / dim**0.5).requires_grad_()
        offset = torch.zeros(experts, requires_grad=True)
        router: Any
        if kind == "embedding":
            embedding = torch.nn.Linear(dim, dim, bias=False)
            torch.nn.init.orthogonal_(embedding.weight)
            router = torch.nn.Sequential(embedding, gates.build("grap", dim, experts))
        else:
            router = gates.build("orthogonal" if kind == "orthogonal" else "linear", dim, experts)

    def gate(x: Any) -> tuple[Any, Any]:
        if kind == "embedding":
            seen = router[0](x)
            return seen, router[1](seen)
        if kind == "free":
            return x, router(x) / router.weight.norm(dim=1) / x.norm(dim=-1, keepdim=True)
        return x, router(x)

    trained = [*router.parameters(), detectors, offset]
    return Network(gate, detectors, offset, trained, 1.0 if kind == "dense" else scale)


def start(rng: np.random.Generator, s: Gated) -> tuple[np.ndarray, Network]:
    """The background's mean, in a random direction, and the network before it is trained."""
    direction = rng.standard_normal(s.dim, dtype=np.float32)
    push = s.mean * direction / np.linalg.norm(direction)
    return push, network(s.gate, s.dim, s.experts, s.scale, int(rng.integers(2**62)))


def background_of(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Arguments `shared` and `mean` of each kind of background."""
    return {
        "independent": {"shared": 0.0, "mean": 0.0},
        "skewed": {"shared": 0.0, "mean": settings["mean"]},
        "correlated": {"shared": settings["shared"], "mean": 0.0},
    }
