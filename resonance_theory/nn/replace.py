"""Put these routers into a Hugging Face model with Mixtral's kind of Mixture-of-Experts blocks, by one call."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.gates import LinearGate
from resonance_theory.nn.moe import ResonanceMoE
from resonance_theory.nn.router import ResonanceRouter, Routing

__all__ = ["GatedExperts", "ReplacedMoE", "replace_router"]


class GatedExperts(nn.Module):
    """Experts of Mixtral's kind, all in one batched product: down(act(gate x) * up x), (n, rows, dim) -> (n, rows, dim).

    gate_up_proj: (n, 2 hidden, dim), gate before up; down_proj: (n, dim, hidden); shared with the model, not copied.
    """

    def __init__(self, gate_up_proj: nn.Parameter, down_proj: nn.Parameter, activation: Any) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj, self.act_fn = gate_up_proj, down_proj, activation

    def forward(self, x: Tensor) -> Tensor:
        gate, up = torch.bmm(x, self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        return torch.bmm(self.act_fn(gate) * up, self.down_proj.transpose(1, 2))


class _Padding:
    """The attention mask of the model's forward that is under way, for blocks which are given hidden states alone."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.signature = signature
        self.mask: Tensor | None = None

    def read(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        mask = self.signature.bind_partial(*args, **kwargs).arguments.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None

    def of(self, x: Tensor) -> Tensor | None:
        """(samples, tokens) booleans, True for padding; with a cache, x is the end of what the mask speaks of."""
        if self.mask is None:
            return None
        return self.mask[:, -x.shape[1] :].to(x.device) == 0


class ReplacedMoE(ResonanceMoE):
    """A `ResonanceMoE` in the place of a model's block: hidden states (samples, tokens, dim) in and out.

    routing: the `Routing` of the last forward, whose `load_balance` and `locality` are the auxiliary losses.
    """

    routing: Routing | None = None

    def __init__(self, router: nn.Module, experts: nn.Module, padding: _Padding, dropped: str) -> None:
        super().__init__(router, experts, dropped=dropped)
        self._padding = padding

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        y, self.routing = super().forward(hidden_states, self._padding.of(hidden_states), return_routing=True)
        return y.to(hidden_states.dtype)

    def __getstate__(self) -> dict[str, Any]:
        # Results inside a graph can be neither copied nor stored.
        return {name: value for name, value in self.__dict__.items() if name != "routing"}


def replace_router(
    model: nn.Module, *, gates: str | nn.Module = "grap", dropped: str = "zero", **options: Any
) -> list[ReplacedMoE]:
    """Replace the router of every Mixture-of-Experts block of `model`, in place; the new blocks, in the model's order.

    model: a Hugging Face model whose blocks have `gate` (with `weight` (n, d)) and `experts` (`gate_up_proj`,
        `down_proj`) and nothing else, as Mixtral's. The experts' weights stay, and keep their names in the state_dict.
    gates: as in `ResonanceRouter`, or "own" for the model's learned gate. options: all others of `ResonanceRouter`;
        `top` and `normalize` are the model's unless given. dropped: as in `ResonanceMoE`.

    Padding is read from the two-dimensional `attention_mask` of the model's forward. The model no longer records router
    logits, so its own auxiliary loss is switched off: add up `block.routing.load_balance()` instead. Expert choice and
    capacities below the number of tokens let a token's output depend on later tokens of its sample.
    Raises ValueError where no block of that kind is found.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__} but must be a torch module")
    found: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child) for parent in model.modules() for name, child in parent.named_children() if _fits(child)
    ]
    if not found:
        raise ValueError(
            f"model is a {type(model).__name__} without blocks of a gate and experts with gate_up_proj and down_proj"
        )
    base: nn.Module = getattr(model, "base_model", model)
    padding = _Padding(inspect.signature(base.forward))
    blocks = []
    for _, _, block in found:  # all of them first: an error leaves the model as it was
        experts, dim = block.gate.weight.shape
        own = {"top": block.gate.top_k, "normalize": getattr(block.gate, "norm_topk_prob", True), **options}
        gate: Any = _own(block.gate.weight) if gates == "own" else gates
        router = ResonanceRouter(dim, experts, gates=gate, **own).to(block.gate.weight.device)
        gated = GatedExperts(block.experts.gate_up_proj, block.experts.down_proj, block.experts.act_fn)
        blocks.append(ReplacedMoE(router, gated, padding, dropped).train(block.training))
    for (parent, name, _), new in zip(found, blocks):
        setattr(parent, name, new)
    base.register_forward_pre_hook(padding.read, with_kwargs=True)
    config: Any = getattr(model, "config", None)
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False
    return blocks


def _own(weight: nn.Parameter) -> LinearGate:
    gate = LinearGate(weight.shape[1], weight.shape[0])
    gate.weight = weight
    return gate


def _fits(block: Any) -> bool:
    if {name for name, _ in block.named_children()} != {"gate", "experts"}:
        return False
    gate = {name: tuple(p.shape) for name, p in block.gate.named_parameters()}
    experts = {name: tuple(p.shape) for name, p in block.experts.named_parameters()}
    if set(gate) != {"weight"} or set(experts) != {"gate_up_proj", "down_proj"} or len(gate["weight"]) != 2:
        return False
    n, d = gate["weight"]
    hidden = experts["down_proj"][-1]
    shapes = experts["gate_up_proj"] == (n, 2 * hidden, d) and experts["down_proj"] == (n, d, hidden)
    return shapes and hasattr(block.experts, "act_fn") and not getattr(block, "jitter_noise", 0)
