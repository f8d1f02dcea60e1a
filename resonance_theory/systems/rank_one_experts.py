"""Rank-one experts beside frozen linear layers, mixed by a router and a prior over clusters (MoR1E, T-REX; arXiv 2404.08985).

Expert (i, j) is the rank-one matrix b_j a_iᵀ, so r1 + r2 vectors make r1 r2 experts. A token's update is g Bᵀ(R ᵀ(A
x)): A (r1, in), B (r2, out), and R (r1, r2) the token's weights, a mixture of its router's softmax and of the prior of
its cluster. As the released code has it: R = ω n softmax(W x) + (1-ω) n s, with ω = σ(100 o), g = σ(100 b), both 1/2 at
the start. There n is 32 at the softmax and 4 at the similarities s; here n = r1 r2 at both, as s must sum to 1. Needs
torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments

__all__ = ["RankOneExperts", "add_rank_one_experts", "cluster_prior", "priors"]


class RankOneExperts(nn.Module):
    """A frozen linear layer with r1 x r2 rank-one experts beside it: y = base(x) + update(x), 0 at the start.

    The prior is set by `prior`: (r1 r2,) for all tokens, (samples, r1 r2), or one a token; None leaves the router alone.

    Args:
        base: A linear layer; its parameters are frozen.
        inputs: r1, vectors on the side of the input, at least 1.
        outputs: r2, vectors on the side of the output, at least 1.
        router: Whether tokens weigh the experts; without it R is the prior alone, or uniform.

    Raises:
        TypeError: base is no nn.Linear.
        ValueError: A number is outside its range, or a prior does not sum to 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = RankOneExperts(nn.Linear(6, 5), inputs=2, outputs=3)
        >>> layer.prior = torch.full((6,), 1 / 6)
        >>> bool((layer(torch.ones(4, 6)) == layer.base(torch.ones(4, 6))).all())
        True
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)      # 2*6 + 3*5 + 6*6 (router) + 2
        65
    """

    def __init__(self, base: nn.Linear, inputs: int = 4, outputs: int = 8, *, router: bool = True) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base is a {type(base).__name__} but must be an nn.Linear")
        r1, r2 = arguments.whole("inputs", inputs, 1), arguments.whole("outputs", outputs, 1)
        self.base = base.requires_grad_(False)
        like: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.a = nn.Parameter(torch.empty(r1, base.in_features, **like))
        self.b = nn.Parameter(torch.zeros(r2, base.out_features, **like))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.router = nn.Linear(base.in_features, r1 * r2, bias=False, **like) if router else None
        if self.router is not None:
            nn.init.zeros_(self.router.weight)
        self.balance = nn.Parameter(torch.zeros(1, **like))
        self.gate = nn.Parameter(torch.zeros(1, **like))
        self._prior: Tensor | None = None

    @property
    def prior(self) -> Tensor | None:
        return self._prior

    @prior.setter
    def prior(self, value: Tensor | None) -> None:
        if value is not None:
            n = self.a.shape[0] * self.b.shape[0]
            if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[-1] != n:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"prior has shape {shape} but must be a tensor (..., {n}), one weight an expert")
            total = value.sum(-1)
            if not bool((value >= 0).all()) or not bool(torch.isclose(total, torch.ones_like(total), atol=1e-4).all()):
                raise ValueError(
                    f"prior sums to {float(total.flatten()[(total.flatten() - 1).abs().argmax()]):.6g}, its least weight "
                    f"is {float(value.min()):.6g}, but weights must be at least 0 and sum to 1"
                )
        self._prior = value

    def weights(self, x: Tensor) -> Tensor:
        """R (..., r1, r2) of tokens x (..., in): weights of the experts, of mean 1."""
        r1, r2 = self.a.shape[0], self.b.shape[0]
        omega = (100 * self.balance).sigmoid()
        prior = None if self._prior is None else self._placed(x)
        if self.router is None:
            mixed = torch.full((r1 * r2,), 1 / (r1 * r2)).to(x) if prior is None else prior
        else:
            mixed = self.router(x).softmax(-1)
            if prior is not None:
                mixed = omega * mixed + (1 - omega) * prior
        return (r1 * r2 * mixed).unflatten(-1, (r1, r2))

    def _placed(self, x: Tensor) -> Tensor:
        """The prior beside tokens x: one for all, one a token, or one a sample of several tokens."""
        assert self._prior is not None
        prior = self._prior.to(x)
        if 1 < prior.ndim == x.ndim - 1:
            prior = prior.unsqueeze(-2)  # a sample's tokens share it
        for have, want in zip(reversed(prior.shape[:-1]), reversed(x.shape[:-1])):
            if have not in (1, want):
                raise ValueError(
                    f"prior has shape {tuple(self._prior.shape)} but must fit tokens of shape {tuple(x.shape)}: "
                    "one for all, one a sample or one a token"
                )
        return prior

    def forward(self, x: Tensor) -> Tensor:
        hidden = x @ self.a.T
        mixed = (hidden[..., None, :] @ self.weights(x)).squeeze(-2)
        return self.base(x) + (100 * self.gate).sigmoid() * (mixed @ self.b)


def add_rank_one_experts(
    model: nn.Module, names: Iterable[str], inputs: int = 4, outputs: int = 8, *, router: bool = True
) -> nn.Module:
    """Freeze a model and put rank-one experts beside its linear layers whose names end in one of `names`.

    Args:
        model: Any module; it is changed in place.
        names: Last parts of names, such as "q_proj" and "v_proj".
        inputs, outputs, router: As for `RankOneExperts`.

    Returns:
        The model.

    Raises:
        ValueError: A name matches no linear layer; the model is then unchanged.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> _ = add_rank_one_experts(model, ["2"], inputs=2, outputs=2)
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['2.a', '2.b', '2.balance', '2.gate', '2.router.weight']
    """
    wanted = tuple(names) if not isinstance(names, str) else (names,)
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    chosen = {end: [name for name in linear if name.split(".")[-1] == end] for end in wanted}
    if missing := [end for end, found in chosen.items() if not found]:
        ends = sorted({name.split(".")[-1] for name in linear})
        raise ValueError(f"names holds {missing[0]!r} but must hold last parts of linear layers: {', '.join(ends)}")
    layers = {name: RankOneExperts(linear[name], inputs, outputs, router=router) for f in chosen.values() for name in f}
    model.requires_grad_(False)
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
        for part in (layer.a, layer.b, layer.balance, layer.gate, *(layer.router.parameters() if layer.router else ())):
            part.requires_grad_(True)
    return model


def priors(model: nn.Module, prior: Tensor | None) -> Iterator[RankOneExperts]:
    """Set the prior of every layer of rank-one experts in a model, for the batch at hand; yields the layers.

    Raises:
        ValueError: It does not sum to 1 or has no weight for each expert.

    Example:
        >>> model = add_rank_one_experts(nn.Sequential(nn.Linear(4, 4)), ["0"], inputs=1, outputs=2)
        >>> [tuple(layer.prior.shape) for layer in priors(model, torch.tensor([[0.25, 0.75]]))]
        [(1, 2)]
    """
    for layer in model.modules():
        if isinstance(layer, RankOneExperts):
            layer.prior = prior
            yield layer


def cluster_prior(x: Tensor, centroids: Tensor, temperature: float = 0.1) -> Tensor:
    """Weights of clusters for embeddings: softmax of cosine similarities over the temperature.

    Args:
        x: Embeddings (..., features).
        centroids: (clusters, features); as many clusters as experts make it a prior of `RankOneExperts`.
        temperature: Above 0.

    Returns:
        (..., clusters), summing to 1.

    Raises:
        ValueError: Shapes do not match, or the temperature is outside its range.

    Example:
        >>> cluster_prior(torch.tensor([[1.0, 0.0]]), torch.eye(2), temperature=0.5).round(decimals=3).tolist()
        [[0.8809999823570251, 0.11900000274181366]]
    """
    t = arguments.number("temperature", temperature, 0.0, open_low=True)
    if centroids.ndim != 2 or x.ndim == 0 or x.shape[-1] != centroids.shape[-1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and centroids {tuple(centroids.shape)} "
            "but they must have shapes (..., features) and (clusters, features)"
        )
    unit = nn.functional.normalize
    return (unit(x, dim=-1) @ unit(centroids, dim=-1).T / t).softmax(-1)
