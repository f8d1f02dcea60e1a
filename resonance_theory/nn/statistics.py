"""What a router does, counted on the device: loads, drops, entropy, percentiles, q, h and Calinski-Harabasz."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory.nn import select
from resonance_theory.nn.capacity import measure

if TYPE_CHECKING:
    from resonance_theory.nn.router import Routing

__all__ = ["RoutingStatistics"]

BINS = 400  # of scores in [-1, 1]
LEVELS = 100  # of percentiles in [0, 1]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class RoutingStatistics(nn.Module):
    """Sums over all batches since the last `reset`, kept in buffers (not in the state_dict); nothing waits for the device.

    discriminative: the affinity a at which q and h are counted. Only `summary` reads the sums, and waits.
    """

    def __init__(self, dim: int, experts: int, *, discriminative: float = 0.25) -> None:
        super().__init__()
        self.dim, self.experts = int(arguments.integer("dim", dim, 1)), int(arguments.integer("experts", experts, 1))
        self.discriminative = float(arguments.real("discriminative", discriminative, -1.0, 1.0))
        shapes = {
            "tokens": (), "dropped": (), "candidates": (experts,), "kept": (experts,), "above": (experts,),
            "above_candidates": (experts,), "scores": (BINS,), "percentiles": (LEVELS,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64), persistent=False)
        for name, wide in {"percentile": (), "square": (), "sums": (experts, dim), "origin": (dim,)}.items():
            self.register_buffer(name, torch.zeros(wide, dtype=torch.float64), persistent=False)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all batches."""
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def observe(self, x: Tensor, routing: Routing, rule: str) -> None:
        """Count a batch; x: (samples, tokens, dim), the tokens that were routed; rule: its name."""
        sums: Any = self
        score, filled = routing.score.detach(), routing.filled
        if score.shape[:2].numel() == 0:
            return
        counts = measure(score, routing.expert, routing.real, self.discriminative)
        sums.tokens += counts.tokens
        sums.candidates += routing.load.sum(0)
        sums.kept += routing.kept.sum(0)
        sums.above += counts.above
        sums.above_candidates += counts.above_candidates
        sums.dropped += routing.dropped.sum()

        column = torch.arange(self.experts, device=score.device)[:, None]
        pair = (routing.token * self.experts + column).flatten(1)
        affinity = score.flatten(1).gather(1, pair).reshape(filled.shape)
        _tally(sums.scores, (affinity + 1) / 2, filled)
        percentile = self._percentile(routing, rule)
        _tally(sums.percentiles, percentile, filled)
        sums.percentile += torch.where(filled, percentile, 0.0).sum()

        # Scatter about the first token that was kept: sums of squares about 0 would lose digits to a common mean.
        copies = routing.copies.flatten()
        flat = x.float().reshape(-1, self.dim)
        first = flat.index_select(0, (copies > 0).long().argmax()[None])[0]
        sums.origin.copy_(torch.where((sums.kept == routing.kept.sum(0)).all(), first.double(), sums.origin))
        about = (flat - sums.origin.float()).reshape(x.shape)
        member = torch.zeros(filled.shape[0], self.experts, x.shape[1], device=x.device)
        member = member.scatter_add(2, routing.token, filled.float())
        sums.sums += torch.bmm(member, about).sum(0)
        square = torch.linalg.vector_norm(about, dim=-1).square().flatten()
        sums.square += torch.where(copies > 0, copies * square, 0.0).sum()

    def _percentile(self, routing: Routing, rule: str) -> Tensor:
        """(rank + 1/2)/load of each slot's token among its expert's candidates by falling score: 0 is best (ρ)."""
        slots = torch.arange(routing.filled.shape[-1], device=routing.filled.device)
        if rule == "token_choice":
            # Slots are in order of position; a second sort finds the ranks by score.
            line = select.line_up(routing.score.detach(), routing.expert, routing.real, by_score=True)
            by_place = select.line_up(routing.score.detach(), routing.expert, routing.real, by_score=False)
            place = (by_place.start[:, :-1, None] + slots).clamp(max=line.order.shape[1] - 1)
            pair = by_place.order.gather(1, place.flatten(1))
            rank = line.order.sort(dim=1).indices.gather(1, pair).reshape(place.shape) - line.start[:, :-1, None]
        else:
            rank = slots.expand(routing.filled.shape)
        return (rank + 0.5) / routing.load[..., None].clamp(min=1)

    def summary(self) -> dict[str, Any]:
        """The statistics as plain numbers and lists; NaN where nothing was seen. Waits for the device.

        tokens: real tokens seen; drop_rate: share of them that no expert processed; pair_drop_rate: share of candidate
            pairs not kept.
        load, load_kept: (experts,) shares of the candidates before, and of the kept after capacity; entropy,
            entropy_kept: of these shares, nats, at most ln n; dead_experts: those that processed no token.
        kept_affinity: quantiles of kept scores, to 1/400; percentile: mean ρ of kept tokens among their expert's
            candidates, 0 best, and percentile_quantiles, to 1/100.
        q, h, p: (experts,) shares of tokens with affinity >= a, of candidates with it, and h/q.
        between, within, calinski_harabasz: scatter of the kept tokens about their experts' centroids, and the index
            (between/(k-1)) / (within/(N-k)) over the k experts in use.
        """
        value = {name: buffer.cpu() for name, buffer in self.named_buffers()}
        tokens, pairs, kept = float(value["tokens"]), float(value["candidates"].sum()), float(value["kept"].sum())
        size = value["kept"].double()
        used = int((size > 0).sum())
        square_of_sums = float((value["sums"].square().sum(1)[size > 0] / size[size > 0]).sum())
        total_sum = float(value["sums"].sum(0).square().sum()) / kept if kept else math.nan
        between, within = square_of_sums - total_sum, max(float(value["square"]) - square_of_sums, 0.0)
        index = math.nan
        if used > 1 and kept > used:
            index = (between / (used - 1)) / (within / (kept - used)) if within > 0 else math.inf
        return {
            "tokens": int(tokens),
            "drop_rate": _ratio(float(value["dropped"]), tokens),
            "pair_drop_rate": _ratio(pairs - kept, pairs),
            "load": (value["candidates"].double() / pairs).tolist() if pairs else [math.nan] * self.experts,
            "load_kept": (size / kept).tolist() if kept else [math.nan] * self.experts,
            "entropy": _entropy(value["candidates"]),
            "entropy_kept": _entropy(value["kept"]),
            "dead_experts": int((value["kept"] == 0).sum()),
            "kept_affinity": {a: 2 * q - 1 for a, q in _quantiles(value["scores"]).items()},
            "percentile": _ratio(float(value["percentile"]), kept),
            "percentile_quantiles": _quantiles(value["percentiles"]),
            "q": [_ratio(v, tokens) for v in value["above"].tolist()],
            "h": [_ratio(v, tokens) for v in value["above_candidates"].tolist()],
            "p": [_ratio(h, q) for h, q in zip(value["above_candidates"].tolist(), value["above"].tolist())],
            "between": between if kept else math.nan,
            "within": within if kept else math.nan,
            "calinski_harabasz": index,
        }

    def extra_repr(self) -> str:
        return f"dim={self.dim}, experts={self.experts}, discriminative={self.discriminative:g}"


def _tally(histogram: Tensor, share: Tensor, filled: Tensor) -> None:
    """Count the filled entries of `share`, in [0, 1], into the bins."""
    bins = histogram.shape[0]
    place = (share * bins).long().clamp(0, bins - 1)
    histogram.scatter_add_(0, place.flatten(), filled.flatten().long())


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan


def _entropy(count: Tensor) -> float:
    total = float(count.sum())
    share = count[count > 0].double() / total if total else count
    return float(-(share * share.log()).sum()) if total else math.nan


def _quantiles(histogram: Tensor) -> dict[float, float]:
    """Upper edges, as shares of [0, 1], of the bins in which the quantiles fall."""
    reached = histogram.cumsum(0).double()
    total = float(reached[-1])
    if not total:
        return dict.fromkeys(QUANTILES, math.nan)
    return {a: (int((reached < a * total).sum()) + 1) / len(histogram) for a in QUANTILES}
