"""A router for torch: gates, one of the three rules, a capacity, and the weights with which experts' outputs combine."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory import _arguments as arguments
from resonance_theory import capacity_factor as factors
from resonance_theory import kernels
from resonance_theory.nn import select
from resonance_theory.nn.accumulate import counts
from resonance_theory.nn.capacity import MeasuredCapacity
from resonance_theory.nn.gates import GroupedAveragePooling, build, full_precision
from resonance_theory.nn.routing import Routing
from resonance_theory.nn.statistics import RoutingStatistics
from resonance_theory.rules import Rule
from resonance_theory.rules import rule as rule_named
from resonance_theory.rules.adaptive import Adaptive

__all__ = ["ResonanceRouter"]


class ResonanceRouter(nn.Module):
    """Route tokens by token choice, expert choice, resonance (ETR eq. 2-6) or any other `Rule`.

    rule: a rule or its name, also one made known by `rt.register_rule`; tokens are ranked by its `priority`.

    dim, experts: features d and experts n. top: experts per token, 1..n (expert choice: only sets the default capacity).
    gates: "grap" (cosines with the means of n blocks of features; needs d divisible by n), "grap-centred" (the same about
        the mean token), "simplex" (GrAP gates about their own mean), "orthogonal" (GrAP after a learned orthogonal map),
        "linear" (a learned softmax gate), or a module (..., d) -> (..., n) of logits.
    Slots of each expert, per sample, by at most one of
        capacity: a whole number of at least 1, of which samples of fewer tokens use as many as they have;
        capacity_factor: f > 0, ceil(f · top · real tokens / n), at most all of them, f the decimal
            that was typed; default 1.25;
        target: with `discriminative`: follows measured p, q, h (see `MeasuredCapacity`; call `router.refresh()` to move).
    mass: for resonance, keep the fewest best candidates that hold this share in (0, 1] of the candidates' affinity
        (`rules.adaptive`), at most the slots above; without one of those, as many as there are.
    temperature: probabilities are the softmax of cosines or logits divided by it. normalize: combine weights are
        probabilities divided by their sum over the token's top experts (not for expert choice).
    discriminative: affinity a from which a token counts as discriminative in p, q and h. statistics: keep
        `router.statistics` (see `RoutingStatistics`).
    fused: find each token's top experts and their slots with `rt.kernels`, in one read of x and without the scores of the
        other experts: for gates "grap", token choice and resonance, `normalize`, and neither mass, target nor
        statistics. Affinities are then sums in float64: kept sets differ from the others' only where two scores agree
        to rounding. The losses, which need all probabilities, are not available. On a GPU the kernels check values, and
        so synchronise with the host.
    nonfinite: "raise" (ValueError; on other devices than the CPU, and compiled, an assertion of the device) or "drop":
        tokens with NaN or infinite features are treated as padding.

    forward(x, padding_mask=None) -> Routing. x: (tokens, dim) or (samples, tokens, dim), floats; padding_mask: booleans of
    x's leading shape, True for padding, which no expert takes and which counts in no capacity, loss or statistic.
    Scores are computed in float32 (float64 for float64 tokens), whatever the autocast. Ties go to the lower expert, then
    to the earlier token: equal tokens are kept in order of position, zero tokens go to experts 0..top-1. No tokens, or
    none that is real, give tables without filled slots.
    """

    def __init__(
        self,
        dim: int,
        experts: int,
        *,
        rule: str | Rule = "resonance",
        top: int = 1,
        capacity: int | None = None,
        capacity_factor: float | None = None,
        target: float | None = None,
        mass: float | None = None,
        gates: str | nn.Module = "grap",
        temperature: float = 1.0,
        normalize: bool = False,
        discriminative: float = 0.25,
        statistics: bool = True,
        nonfinite: str = "raise",
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.experts = arguments.whole("dim", dim, 1), arguments.whole("experts", experts, 1)
        self._rule = rule_named(rule)
        if isinstance(self._rule, Adaptive):
            raise ValueError(
                f"rule = {self._rule.name!r} must be resonance with mass, the share of the affinity to keep"
            )
        self.rule = self._rule.name
        self.top = arguments.whole("top", top, 1, self.experts, "experts")
        options = {"capacity": capacity, "capacity_factor": capacity_factor, "target": target}
        given = [name for name, value in options.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given together but must be given one at a time")
        if mass is not None and rule != "resonance":
            raise ValueError(f"mass = {mass} needs rule = 'resonance' but rule = {rule!r}")
        self.mass = None if mass is None else arguments.number("mass", mass, 0.0, 1.0, open_low=True)
        self.capacity = None if capacity is None else arguments.whole("capacity", capacity, 1)
        if self.capacity is None and target is None and capacity_factor is None and mass is None:
            capacity_factor = 1.25
        self.capacity_factor = capacity_factor
        self.gate = build(gates, self.dim, self.experts)
        self.temperature = arguments.number("temperature", temperature, 0.0, math.inf, open_low=True)
        self.normalize = bool(normalize)
        self.nonfinite = arguments.choice("nonfinite", nonfinite, ("raise", "drop"))
        level = arguments.number("discriminative", discriminative, -1.0, 1.0)
        self.measured = None if target is None else MeasuredCapacity(self.experts, target=target, discriminative=level)
        self.statistics = RoutingStatistics(self.dim, self.experts, discriminative=level) if statistics else None
        self.fused = bool(fused)
        if self.fused:
            plain = type(self.gate) is GroupedAveragePooling and not self.gate.center
            needs = {
                "gates = 'grap'": plain, "rule = 'resonance' or 'token_choice'": rule != "expert_choice",
                "normalize = True": self.normalize, "mass = None": mass is None, "target = None": target is None,
                "statistics = False": not statistics,
            }  # fmt: skip
            missing = [need for need, given in needs.items() if not given]
            if missing:
                raise ValueError(f"fused = True needs {' and '.join(missing)}")

    @property
    def capacity_factor(self) -> float | None:
        """The factor f of the capacity, where it follows one; it can be set."""
        return self._factor

    @capacity_factor.setter
    def capacity_factor(self, value: float | None) -> None:
        self._factor, self._share = value, None
        if value is not None:
            self._factor = arguments.number("capacity_factor", value, 0.0, open_low=True)
            self._share = factors.share(self._factor, self.top, self.experts)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Routing:
        if torch.onnx.is_in_onnx_export():
            raise ValueError("the router breaks ties by stable sorts, which ONNX lacks: use torch.export instead")
        x, real, batched = self._read(x, padding_mask)
        if self.nonfinite == "drop":
            finite = torch.isfinite(x).all(-1)
            x, real = x.masked_fill(~finite[..., None], 0.0), finite if real is None else finite & real
        if self.fused and x.shape[0] * x.shape[1]:
            with full_precision(x):
                return self._fused(x, real, batched)
        with full_precision(x):
            score, probability, logits = self._scores(x, real)
            compared = score.detach()
            if self.nonfinite == "raise":
                _check_finite(compared)
            expert = select.top_experts(compared, self.top)
            slots, limit = self._slots(x.shape[1], real)
            if not self._rule.tokens_choose:
                table = select.best_tokens(compared, real, slots, limit)
            else:
                quick = None
                if self.mass is None:
                    quick = select.by_priority(compared, expert, real, self._rule, slots, limit)
                table = quick or select.best_candidates(
                    select.candidates(compared, expert, real, self._rule), slots, limit, self.mass
                )
            weight = self._weights(probability, expert, table)
        frozen = self.training and not torch.is_grad_enabled() and self._trains(x)
        routing = Routing(
            table.token, table.filled, weight, table.load, expert, score, probability, real, batched, logits, frozen
        )
        if counts():
            if self.measured is not None and self.training:
                self.measured.observe(compared, expert, real)
            if self.statistics is not None:
                self.statistics.observe(x, routing, self.rule)
        return routing

    def _trains(self, x: Tensor) -> bool:
        return x.requires_grad or any(p.requires_grad for p in self.gate.parameters())

    def _fused(self, x: Tensor, real: Tensor | None, batched: bool) -> Routing:
        samples, tokens, _ = x.shape
        affinity, expert = kernels.top_affinity(x, self.experts, top=self.top)
        slots, limit = self._slots(tokens, real)
        # Equal priorities leave the order of position. Padding lies below all affinities, and behind all tokens.
        priority = affinity.detach() if self.rule == "resonance" else torch.zeros_like(affinity)
        if real is not None:
            priority = priority.masked_fill(~real[..., None], -2.0)
        slot, load = kernels.slots(priority, expert, self.experts, slots)
        kept = slot >= 0
        if limit is not None:
            kept = kept & (slot < limit[:, None, None])
        if real is not None:
            kept = kept & real[..., None]
            padded = (~real)[..., None].expand(expert.shape).flatten(1).to(load.dtype)
            load = load - torch.zeros_like(load).scatter_add(1, expert.flatten(1), padded)
        end = self.experts * slots  # one place more, for those that found none
        place = torch.where(kept, expert * slots + slot, end).flatten(1)

        def table(value: Tensor) -> Tensor:
            empty = torch.zeros(samples, end + 1, dtype=value.dtype, device=x.device)
            return empty.scatter(1, place, value.flatten(1))[:, :end].reshape(samples, self.experts, slots)

        position = torch.arange(tokens, device=x.device)[:, None].expand(expert.shape)
        weight = table(torch.softmax(affinity / self.temperature, dim=-1))
        none = affinity.new_zeros(samples, tokens, 0)
        return Routing(table(position), table(kept), weight, load, expert, none, none, real, batched)

    def reduce(self, group: Any = None) -> None:
        """Give every rank of torch.distributed the mean of all ranks' running estimates; call it on all of them.

        It moves the measured p, q and h and the mean token, which each rank else finds from its own batches alone.
        """
        for part in (self.measured, self.gate):
            if isinstance(part, (MeasuredCapacity, GroupedAveragePooling)):
                part.reduce(group)

    def refresh(self) -> None:
        """Let a capacity with `target` follow the estimates as they are now; synchronises with the host."""
        if self.measured is not None:
            self.measured.refresh()

    def _read(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None, bool]:
        if not isinstance(x, Tensor):
            raise TypeError(f"x is a {type(x).__name__} but must be a torch tensor")
        if not x.is_floating_point():
            raise TypeError(f"x has dtype {x.dtype} but must hold floating-point numbers")
        if x.ndim not in (2, 3) or x.shape[-1] != self.dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)} but must be (tokens, {self.dim}) or (samples, tokens, {self.dim})"
            )
        sums = () if self.statistics is None else self.statistics.accumulators().values()
        here = (value for value in sums if not value.is_meta)  # those on meta are to follow
        home = next(itertools.chain(self.gate.parameters(), self.gate.buffers(), here), x).device
        if x.device != home:
            raise ValueError(f"x is on device {x.device} but the router is on {home}: move one of them")
        batched = x.ndim == 3
        if padding_mask is None:
            return (x if batched else x[None]), None, batched
        if not isinstance(padding_mask, Tensor) or padding_mask.dtype != torch.bool:
            kind = padding_mask.dtype if isinstance(padding_mask, Tensor) else type(padding_mask).__name__
            raise TypeError(f"padding_mask is of {kind} but must be a tensor of booleans, True for padding")
        if padding_mask.shape != x.shape[:-1]:
            raise ValueError(
                f"padding_mask has shape {tuple(padding_mask.shape)} but must be {tuple(x.shape[:-1])} to match x"
            )
        if padding_mask.device != x.device:
            raise ValueError(
                f"padding_mask is on device {padding_mask.device} but x is on {x.device}: move one of them"
            )
        # What stands in padding must not matter, not even NaN.
        x = x.masked_fill(padding_mask[..., None], 0.0)
        return (x, ~padding_mask, True) if batched else (x[None], ~padding_mask[None], False)

    def _scores(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the rule compares, the probabilities, and the logits of these: (samples, tokens, experts) each."""
        if isinstance(self.gate, GroupedAveragePooling):
            score = self.gate(x, real)
            logits = score / self.temperature
            return score, torch.softmax(logits, dim=-1), logits
        logits = self.gate(x)
        if logits.shape != (*x.shape[:-1], self.experts):
            raise ValueError(
                f"gates returned shape {tuple(logits.shape)} but must return {(*x.shape[:-1], self.experts)}"
            )
        logits = (logits if logits.dtype == torch.float64 else logits.float()) / self.temperature
        probability = torch.softmax(logits, dim=-1)
        return probability, probability, logits

    def _slots(self, tokens: int, real: Tensor | None) -> tuple[int, Tensor | None]:
        """Slots of the table, and those in use in each sample where padding makes them fewer."""
        if self.capacity is not None:
            return min(self.capacity, tokens), None
        if self._share is not None:
            above, below = self._share
            return -(-above * tokens // below), None if real is None else -(-above * real.sum(-1) // below)
        if self.measured is not None:
            slots = self.measured.slots(self.rule, tokens, self.top)
            return slots, None if real is None else -(-real.sum(-1) * slots // max(tokens, 1))
        return tokens, None

    def _weights(self, probability: Tensor, expert: Tensor, table: select.Table) -> Tensor:
        if self.normalize and self._rule.tokens_choose:
            probability = probability / probability.gather(-1, expert).sum(-1, keepdim=True)
        column = torch.arange(self.experts, device=expert.device)[:, None]
        pair = (table.token * self.experts + column).flatten(1)
        weight = probability.flatten(1).gather(1, pair).reshape(table.token.shape)
        return torch.where(table.filled, weight, 0.0)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, experts={self.experts}, rule={self.rule!r}, top={self.top}"


def _check_finite(score: Tensor) -> None:
    message = "x holds NaN or infinite values, or gives such scores, but must be finite"
    finite = torch.isfinite(score.sum())  # padding was set to 0 before; scores are at most 1, so their sum is finite
    if score.device.type == "cpu" and not torch.compiler.is_compiling():
        if not bool(finite):
            raise ValueError(message)
    else:
        torch._assert_async(finite, message)
