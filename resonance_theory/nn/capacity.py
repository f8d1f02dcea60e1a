"""Capacity that follows what the router measures: running p, q and h, and the least capacity for a target by the laws."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from resonance_theory import _arguments as arguments
from resonance_theory.nn import fast
from resonance_theory.nn.accumulate import Accumulators, average
from resonance_theory.rules import Rates, expert_choice, resonance, token_choice

__all__ = ["Measured", "MeasuredCapacity", "measure"]


class MeasuredCapacity(Accumulators):
    """Least slots with which every expert keeps a token of affinity `discriminative`, given that it is a candidate.

    target: probability in (0, 1) with which it is kept; discriminative: the affinity a that makes a token worth keeping.
    Running estimates, per expert, over the batches seen in training: load share π, false-positive rate
    q(a) = P(affinity >= a), candidate tail h(a) = P(candidate, affinity >= a), hit rate p(a) = h(a)/q(a).
    The capacity is the largest over the experts of `least_capacity` of the rule: of h for resonance , of q for expert
    choice, of π for token choice. Before the first batch it is token choice's at equal loads, which needs no
    measurement. Estimates count every batch `1 - momentum` times as much as the next.

    Reading the estimates synchronises with the host, so the capacity moves only when `refresh` is called. Estimates are part
    of the state_dict, and the capacity is found anew after loading one.
    """

    sums: Tensor
    tokens: Tensor

    def __init__(self, experts: int, *, target: float, discriminative: float, momentum: float = 0.05) -> None:
        super().__init__()
        self.experts = arguments.whole("experts", experts, 1)
        self.target = arguments.number("target", target, 0.0, 1.0, open_low=True, open_high=True)
        self.discriminative = arguments.number("discriminative", discriminative, -1.0, 1.0)
        self.momentum = arguments.number("momentum", momentum, 0.0, 1.0, open_low=True)
        self.accumulate(True, sums=((3, self.experts), torch.float64), tokens=((), torch.float64))
        self._slots: dict[tuple[str, int, int, int], int] = {}
        self._moved = 0  # how often, so that a compiled graph is made anew
        untyped: Any = self
        untyped.register_load_state_dict_post_hook(_loaded)

    @torch.no_grad()
    def observe(self, score: Tensor, expert: Tensor, real: Tensor | None) -> None:
        """Count a batch: score (samples, tokens, experts), expert (samples, tokens, top), real (samples, tokens)."""
        self.settle(score.device)
        *counts, tokens = measure(score, expert, real, self.discriminative)
        self.sums.mul_(1 - self.momentum).add_(torch.stack(counts).to(self.sums.dtype))
        self.tokens.mul_(1 - self.momentum).add_(tokens.to(self.tokens.dtype))

    def estimates(self) -> dict[str, Any]:
        """load, false_positive, candidate_tail, hit: (experts,) arrays; NaN where nothing was seen; synchronises."""
        load, q, h = (self.sums / self.tokens).cpu()
        return {
            "load": load.numpy(),
            "false_positive": q.numpy(),
            "candidate_tail": h.numpy(),
            "hit": (h / q).numpy(),
        }

    def reduce(self, group: Any = None) -> None:
        """Give every rank of torch.distributed the mean of all ranks' estimates; call it on all of them."""
        average(self, group)

    def refresh(self) -> None:
        """Let the next `slots` follow the estimates as they are now."""
        self._slots = {}
        self._moved += 1

    def slots(self, rule: str, tokens: int, top: int) -> int:
        """Slots per expert for samples of that many tokens, 1..tokens (0 for no tokens)."""
        if torch.compiler.is_exporting():
            raise ValueError("a capacity with target follows measurements and cannot be exported: use capacity_factor")
        if tokens == 0:
            return 0
        # torch.compile may hold a symbol for `tokens`: the length of a range is the number itself, and guards it.
        key = (rule, len(range(tokens)), top, self._moved)
        if torch.compiler.is_compiling():
            return self._least(*key)
        if key not in self._slots:
            self._slots[key] = self._least(*key)
        return self._slots[key]

    def _least(self, rule: str, tokens: int, top: int, moved: int) -> int:
        if not float(self.tokens) > 0:
            return int(token_choice.least_capacity(self.target, tokens, Rates(experts=self.experts, top=top)))
        measured = {name: value.clip(0.0, 1.0) for name, value in self.estimates().items()}
        if rule == "resonance":
            least = resonance.least_capacity(self.target, tokens, Rates(candidate_tail=measured["candidate_tail"]))
        elif rule == "expert_choice":
            least = expert_choice.least_capacity(self.target, tokens, Rates(false_positive=measured["false_positive"]))
        else:
            used = measured["load"][measured["load"] > 0]
            least = token_choice.least_capacity(self.target, tokens, Rates(load=used))
        return int(least.max())

    # torch.compile calls it once for each set of arguments and takes the result as a constant.
    _least._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _loaded(module: MeasuredCapacity, _: Any) -> None:
    module.refresh()


class Measured(NamedTuple):
    """Counts of one batch: of each expert's candidates, tokens of affinity >= a, and both, (experts,); real tokens, ()."""

    candidates: Tensor
    above: Tensor
    above_candidates: Tensor
    tokens: Tensor


def measure(score: Tensor, expert: Tensor, real: Tensor | None, level: float) -> Measured:
    """Count what π, q and h are the shares of; `level` is the affinity a."""
    found = fast.tallies(score, expert, real, level)
    if found is not None:
        count = real.sum() if real is not None else torch.tensor(score.shape[:-1].numel())
        return Measured(found[0], found[1], found[2], count)
    column = torch.arange(score.shape[-1], device=score.device)
    chosen, above = (expert[..., None] == column).any(-2), score >= level
    if real is not None:
        chosen, above = chosen & real[..., None], above & real[..., None]
        count = real.sum()
    else:
        count = torch.full((), score.shape[0] * score.shape[1], dtype=torch.int64, device=score.device)
    return Measured(chosen.sum((0, 1)), above.sum((0, 1)), (chosen & above).sum((0, 1)), count)
