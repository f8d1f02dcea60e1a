"""A new gate before a model's own experts: another router chooses and weighs, and the model's own decision goes unused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.accumulate import counts
from resonance_theory.nn.families import Block
from resonance_theory.nn.families._layout import Hook, Layout, PerThread, batch, home
from resonance_theory.nn.families.standard import Call, Standard
from resonance_theory.nn.padding import Padding
from resonance_theory.nn.router import ResonanceRouter
from resonance_theory.nn.routing import Routing
from resonance_theory.nn.selection import EXPERTS_CHOOSE, Kept, Selection, hooks_of, misfit, shared

__all__ = ["Regated", "regate"]

NAME = "resonance_router"  # of the new router among the experts' parts


class Regated(Selection):
    """A router of one's own before one block's experts, in place of the block's own decision.

    It reads the tokens that the experts read. Unless `normalize` was given, the weights of a token sum to what the block's
    own router gave it, before the cut: its scaling factor and normalisation stay, whatever they are.

    Attributes:
        router: the `ResonanceRouter`, a part of the experts' module, so that the optimizer and `model.to` find it.
        own_sums: whether the weights of a token have the sum that the block's own router gave it.
        name, layout, experts, kept, tokens, pairs, cut, dropped: as of a `Selection`.
    """

    def __init__(self, block: Block, padding: Padding, router: ResonanceRouter, own_sums: bool) -> None:
        if not router._rule.tokens_choose:
            raise ValueError(f"rule = {router.rule!r} {EXPERTS_CHOOSE}")
        self.rule, self.router, self.own_sums = router._rule, router, own_sums
        self.name, self.layout, self.experts = block.name, block.layout.name, block.experts
        self.capacity, self.capacity_factor = router.capacity, router.capacity_factor
        self._padding, self._state = padding, PerThread()
        self.__setstate__({})
        self.reset()

    @property
    def routing(self) -> Routing:
        """The `Routing` of this thread's last forward, whose `load_balance` and others are the auxiliary losses."""
        last: Routing | None = getattr(self._last, "routing", None)
        if last is None:
            raise ValueError("routing is not there before the first forward: call the model, then take its losses")
        return last

    def install(self, block: Block, model: nn.Module) -> None:
        """Hook the experts, which get the router as a part, and the stage whose input has samples and tokens."""
        self.watch(block, model)
        experts: Any = block.module.experts
        experts.add_module(NAME, self.router)
        experts.register_forward_pre_hook(Hook(_reroute, self), with_kwargs=True)

    def reroute(self, router: ResonanceRouter, call: Call) -> tuple[Tensor, Tensor]:
        """Indices and weights of the tokens' experts, (N, top) each, by the new router; the weight of cut pairs is 0."""
        samples, tokens, real = self._sample(len(call.index))
        routing = router(call.hidden.reshape(samples, tokens, -1), None if real is None else ~real)
        kept, weight = by_token(routing)
        if counts() and not torch.compiler.is_compiling():
            self._last.routing = routing
            there = routing.expert if real is None else torch.where(real[..., None], routing.expert, -1)
            self._count(Kept(there, weight.detach(), kept, real, self.experts))
        weight = weight.flatten(0, 1)
        if self.own_sums:
            weight = weight * call.weight.detach().sum(-1, keepdim=True)
        return routing.expert.flatten(0, 1), weight


def by_token(routing: Routing) -> tuple[Tensor, Tensor]:
    """A routing in which tokens choose, as (B, s, top): which pairs have a slot, and their weights, 0 without one."""
    samples, tokens, _ = routing.expert.shape
    experts = routing.token.shape[1]
    column = torch.arange(experts, device=routing.token.device)[:, None]
    pair = torch.where(routing.filled, routing.token * experts + column, tokens * experts).flatten(1)
    weight = routing.weight.new_zeros(samples, tokens * experts + 1).scatter(1, pair, routing.weight.flatten(1))
    there = torch.zeros_like(weight, dtype=torch.bool).scatter(1, pair, routing.filled.flatten(1))
    mine = (torch.arange(tokens, device=pair.device)[:, None] * experts + routing.expert).flatten(1)
    shape = routing.expert.shape
    return there.gather(1, mine).reshape(shape), weight.gather(1, mine).reshape(shape)


def _reroute(selection: Regated, module: nn.Module, args: Any, kwargs: Any) -> Any:
    selection._state.put("called", True)
    call = Call(module, args, kwargs)
    router: Any = module.get_submodule(NAME)  # a replica of DataParallel has its own
    index, weight = selection.reroute(router, call)
    return call.with_pairs(index.to(call.index.dtype), weight.to(call.weight.dtype))


def regate(model: nn.Module, blocks: Sequence[Block], gates: str | nn.Module, **options: Any) -> list[Regated]:
    """Put a router before the experts of every block, or of none.

    Args:
        model: the model of the blocks.
        blocks: of `find_blocks(model)`.
        gates: as in `ResonanceRouter`.
        options: all others of `ResonanceRouter`; `top` and the sums of weights are the model's unless given.

    Raises:
        ValueError: a block whose experts are not called with indices and weights, with the reason; or a wrong option.
    """
    padding, made = Padding(), []
    if problem := shared(blocks):
        raise ValueError(f"model takes no new gate: {problem}")
    for block in blocks:
        reason = _reason(block)
        if reason:
            raise ValueError(f"{block.name} ({type(block.module).__name__}) takes no new gate: {reason}")
        made.append(Regated(block, padding, _router(block, gates, **options), "normalize" not in options))
    padding.watch(model, list(dict.fromkeys(block.stage for block in blocks)))
    for block, new in zip(blocks, made):
        new.install(block, model)
    return made


def _reason(block: Block) -> str | None:
    if not isinstance(block.layout, Standard):
        return (
            f"its router hands over {block.layout.name}, not indices and weights; take gates = 'own' to change the "
            "selection alone"
        )
    with torch.random.fork_rng(devices=[]):  # the draws of the trial are none of the user's
        return misfit(block)


def _router(block: Block, gates: str | nn.Module, **options: Any) -> ResonanceRouter:
    layout: Any = block.layout
    dim, _ = layout.called(block)
    own: dict[str, Any] = {"normalize": True}
    if "top" not in options:
        own["top"] = _top(block)
    router = ResonanceRouter(dim, block.experts, gates=gates, **own | options)
    experts: Any = block.module.experts
    router.to(home(experts)[0])
    _try(router, batch(experts, block.experts, dim))
    return router


@torch.no_grad()
def _try(router: ResonanceRouter, x: Tensor) -> None:
    """A gate of the user's that does not take the experts' tokens is refused before anything is changed."""
    training = router.training
    try:
        router.eval()._scores(x[None], None)
    except (RuntimeError, TypeError) as problem:
        raise ValueError(
            f"gates is a {type(router.gate).__name__} but must take tokens of {router.dim} features, in {x.dtype}, to "
            f"{router.experts} logits ({problem})"
        ) from None
    finally:
        router.train(training)


def _top(block: Block) -> int:
    """Experts that a token takes, by what the block, its router or its configuration says, or by a random batch."""
    places = [block.router, block.module]
    places += [getattr(place, "config", None) for place in places]
    for place in places:
        for name in ("top_k", "num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts"):
            if isinstance(value := getattr(place, name, None), int):
                return value
    seen: list[int] = []
    handles = block.intercept(lambda expert, weight: seen.append(expert.shape[-1]))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            Layout.trial(block.layout, block)()
    except Exception:  # the block wants more than tokens
        seen.clear()
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ValueError(f"top must be given: {block.name} does not say how many experts a token takes")
    return seen[0]


def ungate(model: nn.Module) -> None:
    """Take the new routers out of the experts' parts."""
    for module in model.modules():
        for hook in hooks_of(module):
            if hook.function is _reroute:
                delattr(module, NAME)
