"""What a router decides: which token sits in which slot of which expert, its combine weights and the losses of both."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from resonance_theory import losses
from resonance_theory.rules.select import Assignment

__all__ = ["Routing"]


class Routing(NamedTuple):
    """Which token sits in which slot of which expert, and with what weight it comes back; B samples, s tokens, n experts.

    token: (B, n, slots) positions in the sample, 0 in empty slots. filled: (B, n, slots), False in empty slots.
    weight: (B, n, slots), the combine weights, 0 in empty slots; differentiable. Slots without gaps, in the order of the
        rule (falling affinity; token choice: position).
    load: (B, n) candidates of each expert before the capacity. expert: (B, s, top), each token's own best experts.
    score: (B, s, n), what the rule compares: cosines, or probabilities for learned gates. probability: (B, s, n),
        rows summing to 1; differentiable. Both (B, s, 0) of a fused router, which has none for experts not chosen.
    real: (B, s), False for padding, or None where there is none. batched: whether x had an axis of samples.
    logits: (B, s, n), of which probability is the softmax. frozen: whether it was made in training without a graph, as
        reentrant checkpointing does, so that a loss of it would have no gradient.
    """

    token: Tensor
    filled: Tensor
    weight: Tensor
    load: Tensor
    expert: Tensor
    score: Tensor
    probability: Tensor
    real: Tensor | None
    batched: bool
    logits: Tensor | None = None
    frozen: bool = False

    @property
    def kept(self) -> Tensor:
        """Tokens that each expert processes, (B, n)."""
        return self.filled.sum(-1)

    @property
    def copies(self) -> Tensor:
        """Experts that process each token, (B, s); 0 for dropped tokens and for padding."""
        zero = torch.zeros(self.score.shape[:2], dtype=torch.int64, device=self.score.device)
        return zero.scatter_add(1, self.token.flatten(1), self.filled.flatten(1).long())

    @property
    def dropped(self) -> Tensor:
        """Real tokens that no expert processes, (B, s) booleans."""
        without = self.copies == 0
        return without if self.real is None else without & self.real

    def assignment(self) -> Assignment:
        """The same pairs as the compact `Assignment` of `rules`; its size depends on the data: this synchronises."""
        sample, expert, slot = self.filled.nonzero(as_tuple=True)
        tokens, experts = self.score.shape[1], self.token.shape[1]
        return Assignment(
            expert=expert,
            token=self.token[sample, expert, slot],
            slot=slot,
            sample=sample if self.batched else None,
            load=self.load if self.batched else self.load[0],
            tokens=tokens,
            experts=experts,
            capacity=self.token.shape[-1],
        )

    def load_balance(self, *, alpha: float = 0.01) -> Tensor:
        """Load-balance loss α n Σ f_i P_i over all real tokens of the batch (`rt.losses.load_balance`); 0 without any."""
        probability = self._probabilities()
        if probability.shape[0] == 0:
            return probability.sum() * 0
        mask, some = self._mask()
        loss: Tensor = losses.load_balance(probability, self.expert.flatten(0, 1), alpha=alpha, mask=mask) * some
        return loss

    def router_z(self, *, alpha: float = 0.001) -> Tensor:
        """Router z-loss α mean (ln Σ_i exp logit_i)² over all real tokens (`rt.losses.router_z`); 0 without any."""
        if self._probabilities().shape[0] == 0 or self.logits is None:
            return self.probability.sum() * 0
        mask, some = self._mask()
        loss: Tensor = losses.router_z(self.logits.flatten(0, 1), alpha=alpha, mask=mask) * some
        return loss

    def locality(self, local: Tensor, *, epsilon: float, mu: float = 1.0) -> Tensor:
        """Locality loss μ KL(D_c ‖ D_l) (`rt.losses.locality`); D_c: mean gate probabilities of the real tokens.

        local: (experts,) booleans, True for experts on the tokens' own node; epsilon: share spread over the others.
        """
        probability = self._probabilities()
        if tuple(local.shape) != (self.score.shape[-1],):
            raise ValueError(f"local has shape {tuple(local.shape)} but must have shape ({self.score.shape[-1]},)")
        if probability.shape[0] == 0:
            return probability.sum() * 0
        mask, some = self._mask()
        weight = torch.ones_like(probability[:, 0]) if mask is None else mask.to(probability)  # (B s,)
        current = (weight[:, None] * probability).sum(0) / weight.sum()
        target = losses.local_distribution(local, epsilon=epsilon).to(current.device)
        loss: Tensor = losses.locality(current, target, mu=mu) * some
        return loss

    def _probabilities(self) -> Tensor:
        """(B s, n), where a loss of them can be had."""
        if self.probability.shape[-1] == 0:
            raise ValueError("this loss needs the probabilities of all experts, which a router with fused = True lacks")
        if self.frozen and torch.is_grad_enabled():
            raise ValueError(
                "this loss would have no gradient: the forward ran in training mode without a graph, as checkpointing "
                "with use_reentrant=True does; use use_reentrant=False, or torch.no_grad() to read its value"
            )
        return self.probability.flatten(0, 1)

    def _mask(self) -> tuple[Tensor | None, Any]:
        """Real tokens, (B s,), and whether there are any: without, all are taken, for a finite loss to multiply by 0."""
        if self.real is None:
            return None, 1
        some = self.real.any()  # no host synchronisation
        return self.real.reshape(-1) | ~some, some
