"""The kernels as operators of torch.library: autograd and torch.compile see them whole, with shapes and a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from resonance_theory.kernels import arrays, checks, dispatch, naive
from resonance_theory.rules.select import Assignment

__all__ = ["eager_top_affinity", "route", "slots", "top_affinity"]


@torch.library.custom_op("resonance_theory::top_affinity", mutates_args=())
def _top_affinity(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
    return dispatch.top_affinity(*checks.tokens(x, experts, top))


@_top_affinity.register_fake
def _(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:-1], top)
    result = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(shape, dtype=result), x.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("resonance_theory::top_affinity_backward", mutates_args=())
def _top_affinity_backward(gradient: Tensor, x: Tensor, expert: Tensor, experts: int) -> Tensor:
    return dispatch.top_affinity_backward(gradient, x, expert, experts)


@_top_affinity_backward.register_fake
def _(gradient: Tensor, x: Tensor, expert: Tensor, experts: int) -> Tensor:
    return x.new_empty(x.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, int, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.experts = inputs[1]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    x, expert = ctx.saved_tensors
    return _top_affinity_backward(gradient, x, expert, ctx.experts), None, None


_top_affinity.register_autograd(_backward, setup_context=_setup)


def _by_sample(size: int, axis: int | None, x: Tensor) -> Tensor:
    """The values of x along the axis that torch.func.vmap maps, as further samples: (samples, tokens, last)."""
    x = x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.reshape(-1, *x.shape[-2:])


@_top_affinity.register_vmap
def _(info: Any, axes: Any, x: Tensor, experts: int, top: int) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    shape = x.movedim(axes[0], 0).shape[:-1]
    weight, expert = _top_affinity(_by_sample(info.batch_size, axes[0], x), experts, top)
    return (weight.reshape(*shape, top), expert.reshape(*shape, top)), (0, 0)


class _Transformed(torch.autograd.Function):
    """The same under the transforms of torch.func, which may be nested: the gradient is made of torch's own operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
        return _top_affinity(x, experts, top)

    setup_context = staticmethod(_setup)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, expert = ctx.saved_tensors
        return naive.top_affinity_backward(x, expert, gradient, ctx.experts), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(
            "top_affinity has no forward-mode derivative: use reverse mode, such as torch.func.grad or jacrev"
        )


class _Eager(torch.autograd.Function):
    """The same outside of tracers: an operator written in Python costs 0.2 ms a call, which small batches notice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
        x, experts, top = checks.tokens(x, experts, top)
        # No tensor, which would be one more output to wrap.
        ctx.lengths = np.empty(x.shape[:-1].numel() if dispatch.backend(x) == "numba" else 0)
        weight, expert = dispatch.top_affinity(x, experts, top, ctx.lengths)
        ctx.save_for_backward(x, expert)
        ctx.experts = experts
        ctx.mark_non_differentiable(expert)
        ctx.set_materialize_grads(False)
        return weight, expert

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        x, expert = ctx.saved_tensors
        if gradient is None:
            return None, None, None
        if torch.is_grad_enabled():  # create_graph: the gradient is to be differentiated again
            return naive.top_affinity_backward(x, expert, gradient, ctx.experts), None, None
        return dispatch.top_affinity_backward(gradient, x, expert, ctx.experts, ctx.lengths), None, None


@torch.library.custom_op("resonance_theory::slots", mutates_args=())
def _slots(weight: Tensor, expert: Tensor, experts: int, capacity: int) -> tuple[Tensor, Tensor]:
    return dispatch.slots(*checks.candidates(weight, expert, experts, capacity))


@_slots.register_fake
def _(weight: Tensor, expert: Tensor, experts: int, capacity: int) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape, dtype=torch.int64), weight.new_empty(
        (*weight.shape[:-2], experts), dtype=torch.int64
    )


@_slots.register_vmap
def _(
    info: Any, axes: Any, weight: Tensor, expert: Tensor, experts: int, capacity: int
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    some, axis = (weight, axes[0]) if axes[0] is not None else (expert, axes[1])
    shape = some.movedim(axis, 0).shape
    parts = (_by_sample(info.batch_size, axis, part) for axis, part in zip(axes, (weight, expert)))
    slot, load = _slots(*parts, experts, capacity)
    return (slot.reshape(shape), load.reshape(*shape[:-2], experts)), (0, 0)


@torch.library.custom_op("resonance_theory::route", mutates_args=())
def _route(x: Tensor, experts: int, capacity: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, experts, top = checks.tokens(x, experts, top)
    capacity = checks.whole("capacity", capacity, x.shape[-2], "tokens")
    kept = dispatch.route(x, experts, capacity, top)
    sample = torch.empty(0, dtype=torch.int64, device=x.device) if kept.sample is None else kept.sample
    return sample, kept.expert, kept.token, kept.slot, kept.load


@_route.register_fake
def _(x: Tensor, experts: int, capacity: int, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    size = [kept if x.ndim == 3 else 0, kept, kept, kept]
    sample, expert, token, slot = (x.new_empty(k, dtype=torch.int64) for k in size)
    return sample, expert, token, slot, x.new_empty((*x.shape[:-2], experts), dtype=torch.int64)


def top_affinity(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
    if arrays.transformed() and not torch.compiler.is_compiling():
        return _Transformed.apply(x, experts, top)
    return _top_affinity(x, experts, top)


def eager_top_affinity(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
    return _Eager.apply(x, experts, top)


def slots(weight: Tensor, expert: Tensor, experts: int, capacity: int) -> tuple[Tensor, Tensor]:
    return _slots(weight.detach(), expert, experts, capacity)


def route(x: Tensor, experts: int, capacity: int, top: int) -> Assignment:
    sample, expert, token, slot, load = _route(x.detach(), experts, capacity, top)
    return Assignment(expert, token, slot, sample if x.ndim == 3 else None, load, x.shape[-2], experts, capacity)
