"""Nearly all families: `experts` is called with hidden states, the indices of the chosen experts, and their weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resonance_theory.nn.families._layout import Act, Block, Hook, Layout, batch, home

__all__ = ["Call", "Standard", "layout"]


class Standard(Layout):
    """Decisions are read where the experts are called: whatever scoring, bias, groups and scaling made them is done."""

    name = "index and weight"

    def find(self, name: str, module: nn.Module) -> Block | None:
        experts = getattr(module, "experts", None)
        if not isinstance(experts, nn.Module) or isinstance(experts, (nn.ModuleList, nn.ModuleDict)):
            return None
        if len(inspect.signature(experts.forward).parameters) < 3 or count(experts) < 2:
            return None
        names = ("gate", "router")
        router = next((part for n in names if isinstance(part := getattr(module, n, None), nn.Module)), None)
        return Block(name, module, self, self.experts(experts), router, 0, name)

    def experts(self, experts: nn.Module) -> int:
        return count(experts)

    def intercept(self, block: Block, act: Act) -> list[Any]:
        experts: Any = block.module.experts
        return [experts.register_forward_pre_hook(Hook(before, self, block.experts, act), with_kwargs=True)]

    def expert(self, index: Tensor, weight: Tensor, experts: int) -> Tensor:
        """The index with -1 where the place is empty: `experts` and above are places that other devices serve."""
        return torch.where(index < experts, index, -1)

    def trial(self, block: Block) -> Callable[[], Tensor]:
        return self.called(block)[1]

    def called(self, block: Block) -> tuple[int, Callable[[], Tensor]]:
        """Features of the tokens that the experts read, and the trial."""
        experts: Any = block.module.experts
        dims = [int(experts.hidden_size)] if hasattr(experts, "hidden_size") else []
        stored = (*experts.parameters(), *experts.buffers())
        dims += sorted({size for p in stored for size in p.shape[-2:]}, reverse=True)
        if block.router is not None:  # of packed weights the shapes say little
            dims += [p.shape[-1] for p in block.router.parameters() if p.ndim == 2]
        (device, dtype), tokens = home(experts), max(16, block.experts)
        generator = torch.Generator().manual_seed(0)
        index = torch.rand(tokens, block.experts, generator=generator).argsort(-1)[:, : min(2, block.experts)]
        weight = (torch.rand(index.shape, generator=generator) + 0.5).to(device, dtype)
        index = index.to(device)
        problem: Exception | None = None
        for dim in dict.fromkeys(dims):  # one of these sizes is that of a token
            x = batch(experts, tokens, dim)
            try:
                experts(x, index, weight)
            except (RuntimeError, ValueError, IndexError) as found:
                problem = problem or found
            else:
                return dim, partial(experts, x, index, weight)
        raise ValueError(f"its experts cannot be called on a random batch ({problem})")


class Call:
    """One call of the experts: its arguments, and the places of hidden states, indices and weights among them."""

    def __init__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._args, self._names = len(args), list(kwargs)
        self.given: dict[Any, Any] = dict(enumerate(args)) | dict(kwargs)
        tensors = {key: value for key, value in self.given.items() if isinstance(value, Tensor)}
        index = next((key for key, v in tensors.items() if not v.is_floating_point() and v.ndim == 2), None)
        shape = None if index is None else tensors[index].shape
        places = list(tensors)[1:]  # the first are the hidden states
        weight = next((k for k in places if tensors[k].is_floating_point() and tensors[k].shape == shape), None)
        if index is None or weight is None:
            raise ValueError(f"{type(module).__name__} was called without indices and weights of the chosen experts")
        self._hidden, self._index, self._weight = next(iter(tensors)), index, weight

    @property
    def hidden(self) -> Tensor:
        """The tokens that the experts read, (N, dim)."""
        found: Tensor = self.given[self._hidden]
        return found

    @property
    def index(self) -> Tensor:
        found: Tensor = self.given[self._index]
        return found

    @property
    def weight(self) -> Tensor:
        found: Tensor = self.given[self._weight]
        return found

    def with_pairs(self, index: Tensor, weight: Tensor) -> Any:
        """The arguments of the same call with other indices and weights."""
        given = {**self.given, self._index: index, self._weight: weight}
        return tuple(given[k] for k in range(self._args)), {name: given[name] for name in self._names}


def before(layout: Standard, experts: int, act: Act, module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Read index and weight, wherever they stand among the arguments, and set the weight of cut pairs to 0."""
    call = Call(module, args, kwargs)
    keep = act(layout.expert(call.index, call.weight, experts), call.weight)
    if keep is None:
        return None
    return call.with_pairs(call.index, torch.where(keep.reshape(call.weight.shape), call.weight, 0.0))


def count(experts: Any) -> int:
    """Number of experts by their own word, or by their weights; 0 where neither says."""
    for name in ("num_experts", "num_local_experts", "num_routed_experts", "n_routed_experts"):
        value = getattr(experts, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return next((p.shape[0] for p in (*experts.parameters(), *experts.buffers()) if p.ndim == 3), 0)


layout = Standard()
