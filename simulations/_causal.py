"""Selection while training, and the per-token rule that stands for it where a later token must not matter.

Which tokens of a sequence an expert keeps depends, for resonance, expert choice and a random choice, on tokens that come
later: a model so evaluated sees a little of the future. Here the same share is kept by a threshold of each expert on the
token's own score (a coin, for the random choice), set on calibration text layer after layer so that every expert keeps as
many tokens as selection lets it keep there. Token choice keeps by position and needs no threshold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn import ResonanceRouter, Routing

__all__ = ["CausalRouter", "PositionTable", "RandomOrder", "calibrate"]


class PositionTable(nn.Module):
    """Fixed random routing: the expert is drawn once for each position, equally many for each expert; it sees no content.

    forward(x (..., tokens, dim)) -> logits (..., tokens, experts), 1 at the position's expert, 0 elsewhere.
    """

    table: Tensor

    def __init__(self, tokens: int, experts: int) -> None:
        super().__init__()
        expert = torch.randperm(tokens) % experts
        self.register_buffer("table", nn.functional.one_hot(expert, experts).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.table[: x.shape[-2]].expand(*x.shape[:-1], -1)


class RandomOrder(nn.Module):
    """Random keep: token choice by the wrapped router, on each sample's tokens in random order."""

    def __init__(self, router: ResonanceRouter) -> None:
        super().__init__()
        self.router = router

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Routing:
        order = torch.rand(x.shape[:2], device=x.device).argsort(dim=1)
        mask = None if padding_mask is None else padding_mask.gather(1, order)
        routing = self.router(x.gather(1, order[..., None].expand_as(x)), mask)
        back = order.argsort(dim=1)

        def restore(values: Tensor) -> Tensor:
            return values.gather(1, back[..., None].expand_as(values))

        token = order.gather(1, routing.token.flatten(1)).reshape(routing.token.shape)
        return routing._replace(
            token=torch.where(routing.filled, token, 0),
            expert=restore(routing.expert),
            score=restore(routing.score),
            probability=restore(routing.probability),
            logits=None if routing.logits is None else restore(routing.logits),
            real=None if padding_mask is None else ~padding_mask,
        )


class CausalRouter(nn.Module):
    """A router that selects as `router` does, or keeps by thresholds, or keeps every candidate.

    router: as trained. keep: by what a token's place is decided: "affinity", "chance" or "position".
    mode: "select"; "threshold" (keep = "position": as select, which then sees no later token); or "all".
    """

    threshold: Tensor

    def __init__(self, router: ResonanceRouter, keep: str) -> None:
        super().__init__()
        self.inner, self.keep, self.mode = router, keep, "select"
        self.select: nn.Module = RandomOrder(router) if keep == "chance" else router
        # The same gate, and slots for whoever comes.
        self.everyone = ResonanceRouter(
            router.dim,
            router.experts,
            rule=router.rule,
            gates=router.gate,
            capacity_factor=float(router.experts),
            temperature=router.temperature,
            statistics=False,
        )
        self.register_buffer("threshold", torch.full((router.experts,), -torch.inf))
        self.seen: list[tuple[Tensor, Routing]] | None = None

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Routing:
        if self.mode == "select" or (self.mode == "threshold" and self.keep == "position"):
            routing = self.select(x, padding_mask)
        else:
            routing = self.everyone(x, padding_mask)
            if self.mode == "threshold":
                routing = trim(routing, self.priority(routing) >= self.threshold[:, None])
        if self.seen is not None:
            self.seen.append((x, routing))
        return routing

    def priority(self, routing: Routing) -> Tensor:
        """What each slot's token is kept by, (samples, experts, slots)."""
        if self.keep == "chance":
            return torch.rand(routing.token.shape, device=routing.token.device)
        column = torch.arange(routing.score.shape[-1], device=routing.token.device)[:, None]
        pair = routing.token * routing.score.shape[-1] + column
        return routing.score.detach().flatten(1).gather(1, pair.flatten(1)).reshape(routing.token.shape)


def trim(routing: Routing, keep: Tensor) -> Routing:
    """The routing without the slots outside `keep`."""
    filled = routing.filled & keep
    return routing._replace(
        token=torch.where(filled, routing.token, 0), filled=filled, weight=torch.where(filled, routing.weight, 0.0)
    )


@torch.no_grad()
def calibrate(model: Any, routers: list[CausalRouter], batches: list[Tensor]) -> None:
    """Set the thresholds of all routers, in the order of the layers; model(batch) must pass through all of them.

    Those before a layer already keep by threshold when its own is set, as they will when it is used.
    """
    for router in routers:
        router.mode = "select"
    for router in routers:
        if router.keep != "position":
            router.seen = []
            for batch in batches:
                model(batch)
            kept = torch.stack([routing.kept.sum(0) for _, routing in router.seen]).sum(0)
            everyone = [router.everyone(x) for x, _ in router.seen]
            value = torch.cat([router.priority(r).masked_fill(~r.filled, -torch.inf) for r in everyone])
            ranked = value.transpose(0, 1).flatten(1).sort(dim=1, descending=True).values
            count = torch.stack([r.filled.sum((0, 2)) for r in everyone]).sum(0)
            last = ranked.gather(1, (kept - 1).clamp(min=0)[:, None])[:, 0]
            last = torch.where(kept == 0, torch.inf, last)
            router.threshold.copy_(torch.where(kept == count, -torch.inf, last))
            router.seen = None
        router.mode = "threshold"
