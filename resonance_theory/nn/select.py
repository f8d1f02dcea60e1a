"""Dispatch by the three rules as tables of slots: every shape follows from the sizes, so no host synchronisation.

`rules` holds the same rules with results of the size of what is kept; the tests hold the two to equal sets.
Padding has score -inf and belongs to no expert. Ties go to the lower expert, then to the earlier token.
"""

from __future__ import annotations

from typing import NamedTuple

import array_api_compat.torch as compat
import torch
from torch import Tensor

from resonance_theory.nn import fast
from resonance_theory.rules import Rule, select

__all__ = ["Candidates", "Table", "best_candidates", "best_tokens", "candidates", "top_experts"]


class Candidates(NamedTuple):
    """Candidate pairs of a batch, sorted by expert and then by priority.

    order: (samples, tokens * top), the pair at each place; start: (samples, experts + 1), where each expert's run starts.
    value: (samples, tokens * top), scores in the order of the pairs, -inf for padding; top: choices of each token.
    """

    order: Tensor
    start: Tensor
    value: Tensor
    top: int

    @property
    def load(self) -> Tensor:
        """Candidates of each expert, (samples, experts)."""
        return self.start[:, 1:] - self.start[:, :-1]


class Table(NamedTuple):
    """What each expert keeps: token, filled (samples, experts, slots), load (samples, experts)."""

    token: Tensor
    filled: Tensor
    load: Tensor


def top_experts(score: Tensor, top: int) -> Tensor:
    """Each token's `top` experts of highest score, (samples, tokens, top)."""
    found = fast.top_experts(score, top)
    if found is not None:
        return found
    if top == 1:
        return score.argmax(-1, keepdim=True)
    return score.sort(dim=-1, descending=True, stable=True).indices[..., :top]


def candidates(score: Tensor, expert: Tensor, real: Tensor | None, rule: Rule) -> Candidates:
    """Sort the pairs (token, one of its experts) by expert, then by the rule's priority (falling) or by position."""
    samples, tokens, top = expert.shape
    experts = score.shape[-1]
    value, chosen = score.gather(-1, expert), expert  # (samples, tokens, top)
    priority = rule.priority(value)
    if real is not None:
        value = value.masked_fill(~real[..., None], -torch.inf)
        chosen = chosen.masked_fill(~real[..., None], experts)
    value, chosen = value.reshape(samples, tokens * top), chosen.reshape(samples, tokens * top)
    if priority is not None:
        # Two stable sorts, the lesser key first; padding comes last, as it belongs to no expert.
        order = priority.reshape(value.shape).sort(dim=-1, descending=True, stable=True).indices
        order = order.gather(1, chosen.gather(1, order).sort(dim=-1, stable=True).indices)  # (samples, tokens * top)
    else:
        order = chosen.sort(dim=-1, stable=True).indices
    bounds = torch.arange(experts + 1, device=score.device).expand(samples, experts + 1).contiguous()
    start = torch.searchsorted(chosen.gather(1, order), bounds)
    return Candidates(order, start, value, top)


def by_priority(
    score: Tensor, expert: Tensor, real: Tensor | None, rule: Rule, slots: int, limit: Tensor | None
) -> Table | None:
    """The table of `best_candidates` without a mass, by the CPU kernels; None where they do not serve."""
    priority = rule.priority(score.gather(-1, expert))
    order = torch.zeros(expert.shape) if priority is None else priority
    found = fast.table(order, expert, real, score.shape[-1], slots, limit)
    return None if found is None else Table(*found)


def best_candidates(line: Candidates, slots: int, limit: Tensor | None, mass: float | None) -> Table:
    """Each expert keeps its candidates of highest priority and drops the rest; limit: (samples,) slots in use, of `slots`.

    mass: keep only the fewest candidates whose scores sum to this share of the expert's total (rules.adaptive).
    """
    slot = torch.arange(slots, device=line.order.device)
    place = line.start[:, :-1, None] + slot  # (samples, experts, slots)
    filled = slot < line.load[..., None]
    if limit is not None:
        filled = filled & (slot < limit[:, None, None])
    place = place.clamp(max=max(line.order.shape[1] - 1, 0))
    flat = place.flatten(1)
    token = torch.where(filled, line.order.gather(1, flat).reshape(place.shape) // line.top, 0)
    if mass is not None:
        ranked = line.value.gather(1, line.order).double()
        ranked = torch.where(ranked == -torch.inf, 0.0, ranked)
        running = ranked.cumsum(1) if select._in_order(ranked.device) else select.running_sums(compat, ranked)
        sums = torch.nn.functional.pad(running, (1, 0))
        edge = sums.gather(1, line.start)
        base, total = edge[:, :-1, None], (edge[:, 1:] - edge[:, :-1])[..., None]
        before = sums.gather(1, flat).reshape(place.shape) - base
        short = filled & (before < mass * total) & (total > 0)
        filled = slot < short.sum(-1, keepdim=True)  # rounding of the sums must leave no gap
        token = torch.where(filled, token, 0)
    return Table(token, filled, line.load)


def best_tokens(score: Tensor, real: Tensor | None, slots: int, limit: Tensor | None) -> Table:
    """Each expert keeps its `slots` tokens of highest score among all of them (expert choice)."""
    samples, tokens, experts = score.shape
    by_expert = score.transpose(1, 2)  # (samples, experts, tokens)
    count = torch.full((samples,), tokens, dtype=torch.int64, device=score.device)
    if real is not None:
        by_expert, count = by_expert.masked_fill(~real[:, None, :], -torch.inf), real.sum(-1)
    token = by_expert.sort(dim=-1, descending=True, stable=True).indices[..., :slots]
    filled = (
        torch.arange(slots, device=score.device) < (count if limit is None else torch.minimum(count, limit))[:, None]
    )
    filled = filled[:, None, :].expand(token.shape)
    return Table(torch.where(filled, token, 0), filled, count[:, None].expand(samples, experts))
