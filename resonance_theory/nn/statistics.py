"""What a router does, counted on the device: loads, drops, entropy, percentiles, q, h and Calinski-Harabasz."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from resonance_theory import _arguments as arguments
from resonance_theory.nn import fast, select
from resonance_theory.nn.accumulate import Accumulators, over_ranks
from resonance_theory.nn.capacity import measure
from resonance_theory.nn.routing import Routing
from resonance_theory.rules import resonance, token_choice

__all__ = ["RoutingStatistics"]

BINS = 400  # of scores in [-1, 1]
LEVELS = 100  # of percentiles in [0, 1]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class RoutingStatistics(Accumulators):
    """Sums over all batches since the last `reset` (not in the state_dict); no host synchronisation.

    discriminative: the affinity a at which q and h are counted. Only `summary` and `flat` read the sums, and wait.
    Each rank of torch.distributed counts its own batches; `reduce` gives the counts of all.
    """

    def __init__(self, dim: int, experts: int, *, discriminative: float = 0.25) -> None:
        super().__init__()
        self.dim, self.experts = arguments.whole("dim", dim, 1), arguments.whole("experts", experts, 1)
        self.discriminative = arguments.number("discriminative", discriminative, -1.0, 1.0)
        each, whole, real = (self.experts,), torch.int64, torch.float64
        self.accumulate(
            False,
            tokens=((), whole), dropped=((), whole), candidates=(each, whole), kept=(each, whole), above=(each, whole),
            above_candidates=(each, whole), scores=((BINS,), whole), percentiles=((LEVELS,), whole),
            percentile=((), real), square=((), real), sums=((self.experts, self.dim), real), origin=((self.dim,), real),
        )  # fmt: skip

    @torch.no_grad()
    def reduce(self, group: Any = None) -> RoutingStatistics:
        """The statistics of all ranks of torch.distributed together; call it on all of them. Its own stay as they are."""
        mine = self.accumulators()
        total = RoutingStatistics(self.dim, self.experts, discriminative=self.discriminative)
        kept = mine["kept"].sum()
        whole, _ = over_ranks(kept, group)
        # Scatter is summed about each rank's own origin: move all to their mean first.
        origin, _ = over_ranks(mine["origin"] * kept, group)
        origin = origin / whole.clamp(min=1)
        shift = mine["origin"] - origin  # (dim,)
        square = mine["square"] + 2 * (mine["sums"].sum(0) @ shift) + kept * shift.square().sum()
        sums = mine["sums"] + mine["kept"][:, None] * shift
        for name, value in (mine | {"square": square, "sums": sums}).items():
            setattr(total, name, over_ranks(value.clone(), group)[0])
        total.origin = origin
        return total

    def flat(self) -> dict[str, float]:
        """`summary` as one level of numbers, "load/0" for the load of expert 0, for loggers. Synchronises with the host."""
        found: dict[str, float] = {}
        for name, value in self.summary().items():
            pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
            found |= {f"{name}/{key}": part for key, part in pairs} or {name: value}
        return found

    @torch.no_grad()
    def observe(self, x: Tensor, routing: Routing, rule: str) -> None:
        """Count a batch; x: (samples, tokens, dim), the tokens that were routed; rule: its name."""
        sums: Any = self
        self.settle(x.device)
        score, filled = routing.score.detach(), routing.filled
        if score.shape[:2].numel() == 0:
            return
        counts = measure(score, routing.expert, routing.real, self.discriminative)
        sums.tokens.add_(counts.tokens)
        sums.candidates.add_(routing.load.sum(0))
        sums.kept.add_(routing.kept.sum(0))
        sums.above.add_(counts.above)
        sums.above_candidates.add_(counts.above_candidates)
        sums.dropped.add_(routing.dropped.sum())

        column = torch.arange(self.experts, device=score.device)[:, None]
        pair = (routing.token * self.experts + column).flatten(1)
        affinity = score.flatten(1).gather(1, pair).reshape(filled.shape)
        _tally(sums.scores, (affinity + 1) / 2, filled)
        percentile = self._percentile(routing, rule)
        _tally(sums.percentiles, percentile, filled)
        sums.percentile.add_(torch.where(filled, percentile, 0.0).sum())

        # Scatter about the first token that was kept: sums of squares about 0 would lose digits to a common mean.
        copies = routing.copies.flatten()
        flat = x.reshape(-1, self.dim)
        first = flat.index_select(0, (copies > 0).long().argmax()[None])[0].float()
        sums.origin.copy_(torch.where((sums.kept == routing.kept.sum(0)).all(), first.double(), sums.origin))
        found = fast.scatter(x, routing.token, filled, sums.origin)
        if found is not None:  # in one read of the tokens that were kept
            sums.sums.add_(found[0])
            sums.square.add_(found[1])
            return
        flat = flat.float()
        about = (flat - sums.origin.float()).reshape(x.shape)
        member = torch.zeros(filled.shape[0], self.experts, x.shape[1], dtype=flat.dtype, device=x.device)
        member = member.scatter_add(2, routing.token, filled.float())
        sums.sums.add_(torch.bmm(member, about).sum(0))
        square = torch.linalg.vector_norm(about, dim=-1).square().flatten()
        sums.square.add_(torch.where(copies > 0, copies * square, 0.0).sum())

    def _percentile(self, routing: Routing, rule: str) -> Tensor:
        """(rank + 1/2)/load of each slot's token among its expert's candidates by falling score: 0 is best (ρ)."""
        slots = torch.arange(routing.filled.shape[-1], device=routing.filled.device)
        if rule == "token_choice":
            # Slots are in order of position; a second sort finds the ranks by score.
            line = select.candidates(routing.score.detach(), routing.expert, routing.real, resonance)
            by_place = select.candidates(routing.score.detach(), routing.expert, routing.real, token_choice)
            place = (by_place.start[:, :-1, None] + slots).clamp(max=line.order.shape[1] - 1)
            pair = by_place.order.gather(1, place.flatten(1))
            rank = line.order.sort(dim=1).indices.gather(1, pair).reshape(place.shape) - line.start[:, :-1, None]
        else:
            rank = slots.expand(routing.filled.shape)
        return (rank.float() + 0.5) / routing.load[..., None].clamp(min=1)

    def summary(self) -> dict[str, Any]:
        """The statistics as plain numbers and lists; NaN where nothing was seen. Synchronises with the host.

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
        value = {name: buffer.cpu() for name, buffer in self.accumulators().items()}
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
