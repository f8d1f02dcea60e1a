"""A small decoder-only transformer over bytes, whose blocks take any feed-forward layer: dense, or a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from resonance_theory.nn import FeedForwardExperts

__all__ = ["Dense", "Transformer"]

BYTES = 256


class Dense(nn.Module):
    """One expert that every token passes, unweighted."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expert = FeedForwardExperts(dim, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.expert(x.reshape(1, -1, x.shape[-1])).reshape(x.shape)


class Block(nn.Module):
    """Causal attention, then the feed-forward layer; each on normalised tokens, each added to what came in."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.feed: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mix(self.before(x)).chunk(3, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.feed(self.after(x))


class Transformer(nn.Module):
    """forward(bytes (samples, tokens)) -> logits of the next byte (samples, tokens, 256).

    feed: layer number -> the feed-forward layer of that block. grams, table: besides its own byte, a token's embedding
    takes in that of the last k bytes, for each k of grams, hashed into a table of so many rows.
    seed: every part draws its weights from a stream of its own, so that models that differ in `feed` share the rest.
    """

    def __init__(
        self,
        feed: Callable[[int], nn.Module],
        *,
        dim: int,
        layers: int,
        heads: int,
        tokens: int,
        grams: Sequence[int],
        table: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.grams, self.rows = tuple(grams), table
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.byte, self.place = nn.Embedding(BYTES, dim), nn.Embedding(tokens, dim)
            self.gram = nn.ModuleList(nn.Embedding(table, dim) for _ in self.grams)
            self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, BYTES)
            for embedding in (self.byte, self.place, *self.gram):
                nn.init.normal_(embedding.weight, std=0.5 if embedding is self.byte else 0.02)
            for layer, block in enumerate(self.blocks):
                torch.manual_seed(seed + 1 + layer)
                block.feed = feed(layer)

    def forward(self, x: Tensor) -> Tensor:
        y = self.byte(x) + self.place.weight[: x.shape[1]]
        for length, embedding in zip(self.grams, self.gram):
            code = x
            for back in range(1, length):
                earlier = nn.functional.pad(x, (back, 0))[:, : x.shape[1]]
                code = code * 257 + earlier + 1
            y = y + embedding((code * 2654435761 >> 7) % self.rows)
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y))
