"""Cosines with GrAP gates by torch's own operations: for tracers, transforms and devices that the kernels do not serve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["cosines", "scaled", "wide", "within"]


def wide(x: Tensor) -> Tensor:
    """float64 as it is, every other floating type as float32."""
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype} but must hold floating-point numbers")
    return x if x.dtype == torch.float64 else x.float()


def scaled(x: Tensor) -> Tensor:
    """x, its tokens divided by their largest entry where their squares leave the range."""
    size, limits = torch.linalg.vector_norm(x.detach(), dim=-1), torch.finfo(x.dtype)
    # Below this, squares of the smaller features underflow and eat into the precision of the sum.
    safe = (size > math.sqrt(limits.tiny) / limits.eps) & (size < math.sqrt(limits.max))
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and bool(safe.all()):
        return x
    largest = x.detach().abs().amax(-1)
    # Tokens in range keep their bits, so that a token's affinity never depends on its neighbours.
    return x / torch.where(safe | (largest == 0), torch.ones_like(largest), largest)[..., None]


def cosines(x: Tensor, experts: int) -> Tensor:
    """The affinities of `fast.affinities` by torch's own operations: for tracers, transforms and other devices."""
    x = scaled(x)
    block = x.reshape(*x.shape[:-1], experts, x.shape[-1] // experts)
    return cosine(block.sum(-1) * math.sqrt(experts / x.shape[-1]), torch.linalg.vector_norm(x, dim=-1))


def cosine(projection: Tensor, length: Tensor) -> Tensor:
    """projection / length within [-1, 1], and 0 for zero tokens."""
    zero = length == 0
    inverse = torch.where(zero, torch.zeros_like(length), 1 / torch.where(zero, torch.ones_like(length), length))
    return within(projection * inverse[..., None])


def within(result: Tensor) -> Tensor:
    """Clamped to [-1, 1]."""
    # Rounding can push the cosine of parallel vectors beyond 1 by an ulp; the gradient passes as if it had not.
    return result + (result.clamp(-1.0, 1.0) - result).detach()
