"""What a Mixture-of-Experts block is to this package: a place where the router's decisions can be read and cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Act", "Block", "Hook", "Layout", "PerThread"]

# Decisions in, pairs to keep out: expert (N, k), -1 in empty places, and weight (N, k) -> (N, k) booleans or None.
Act = Callable[[Tensor, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Block:
    """One Mixture-of-Experts block of a model.

    Attributes:
        name: its dotted name in the model; module: the module itself.
        layout: how its router hands decisions to its experts.
        experts: number of experts n that have weights.
        router: the module that chooses, or None where none is known.
        logits: where the router's logits or probabilities stand in what it returns; None: it returns them alone.
        stage: dotted name of the module whose input is (samples, tokens, features).
    """

    name: str
    module: nn.Module
    layout: Layout
    experts: int
    router: nn.Module | None = None
    logits: int | None = None
    stage: str = field(default="")

    def intercept(self, act: Act) -> list[Any]:
        """Call `act` with every decision of the router; returns the handles that end it."""
        return self.layout.intercept(self, act)


class Layout:
    """How one kind of block hands its router's decisions to its experts. One file of this folder makes one `layout`."""

    name = ""

    def find(self, name: str, module: nn.Module) -> Block | None:
        """The block, if the module is one of this layout."""
        raise NotImplementedError

    def intercept(self, block: Block, act: Act) -> list[Any]:
        """Hooks by which `act` reads every decision, and cuts the pairs for which it gives False."""
        raise NotImplementedError

    def trial(self, block: Block) -> Callable[[], Tensor]:
        """A function without arguments that sends one random batch through router or experts, the same each time.

        Its result must be a sum over the pairs (token, expert) that are kept, and what depends on no pair.
        """
        experts = getattr(block.module, "experts", block.module)  # a router may compute in another dtype
        x = batch(experts, block.experts, width(block.module if block.router is None else block.router))
        return lambda: first(block.module(x[None]))


class Hook:
    """A hook that belongs to this package: found again by its type, and copied with the model."""

    def __init__(self, function: Callable[..., Any], *values: Any) -> None:
        self.function, self.values = function, values

    def __call__(self, *call: Any) -> Any:
        return self.function(*self.values, *call)


def first(result: Any) -> Tensor:
    """The tensor of hidden states that a block returns, alone or before others."""
    found: Tensor = result if isinstance(result, Tensor) else result[0]
    return found


def width(module: nn.Module) -> int:
    """Features that a router reads: the columns of its first matrix."""
    return next(p.shape[-1] for p in module.parameters() if p.ndim == 2)


def home(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a module computes, and in what: weights that accelerate keeps elsewhere are brought there for the forward.

    Experts may be stored in types in which nothing is computed; then their scales, or float32, say what goes in.
    """
    stored = [*module.parameters(), *module.buffers()]
    p = next((p for p in stored if p.is_floating_point() and p.itemsize > 1), None)
    if p is None:
        p = torch.empty(0, device=stored[0].device if stored else "cpu")
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    device = next((device for device in devices if device is not None), p.device)
    return torch.device(device), p.dtype


def batch(module: nn.Module, experts: int, dim: int) -> Tensor:
    """Random tokens (tokens, dim), at least as many as experts, for a module's trial."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(max(16, experts), dim, generator=generator).to(*home(module))


class PerThread:
    """What the hooks of one forward hand to one another: each thread has its own, and a copy of a model none yet."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.traced: dict[str, Any] = {}  # under torch.compile

    def put(self, name: str, value: Any) -> None:
        if torch.compiler.is_compiling():
            self.traced[name] = value
        else:
            setattr(self.local, name, value)

    def take(self, name: str) -> Any:
        """The value, once; None where there is none."""
        if torch.compiler.is_compiling():
            return self.traced.pop(name, None)
        value = getattr(self.local, name, None)
        setattr(self.local, name, None)
        return value

    def peek(self, name: str) -> Any:
        """The value, which stays."""
        return self.traced.get(name) if torch.compiler.is_compiling() else getattr(self.local, name, None)

    def __reduce__(self) -> Any:
        return PerThread, ()
