"""The CPU kernels where eager torch can use them; None where a tracer, a transform or another device needs torch's own.

Sums run in float64, in an order that the code fixes: the results do not depend on threads, batch or position.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resonance_theory.kernels import arrays, dispatch
from resonance_theory.nn.cosines import cosines, wide

__all__ = ["affinities", "scatter", "table", "tallies", "top_experts"]


def _usable(x: Tensor, *others: Tensor | None) -> bool:
    given = [x, *(other for other in others if other is not None)]
    plain = all(type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" for t in given) and x.numel() > 0
    return plain and not torch.compiler.is_compiling() and not arrays.transformed() and dispatch.usable("numba")


def affinities(x: Tensor, experts: int) -> Tensor | None:
    """The cosine of each token (..., dim) with each of the GrAP gates, (..., experts), in one read of x; differentiable.

    NaN for tokens that hold NaN or infinite values. The affinities have the bits of `rt.kernels.top_affinity`.
    """
    return _Affinities.apply(x, experts) if _usable(x) else None


class _Affinities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, experts: int) -> Tensor:
        kind = np.float64 if x.dtype == torch.float64 else np.float32
        flat = x.detach().reshape(-1, x.shape[-1])
        result, lengths = np.empty((len(flat), experts), kind), np.empty(len(flat))
        row = 0
        for piece in arrays.pieces(flat):
            rows = slice(row, row + len(piece))
            dispatch._run("affinities", piece.size, piece, experts, result[rows], lengths[rows])
            row += len(piece)
        score = torch.from_numpy(result).reshape(*x.shape[:-1], experts)
        ctx.experts, ctx.lengths = experts, torch.from_numpy(lengths)
        ctx.save_for_backward(x, score)
        return score

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, score = ctx.saved_tensors
        odd = ctx.lengths.isnan() | ((ctx.lengths > 0) & (ctx.lengths < 1e-12))  # powers of 1/length leave the range
        if torch.is_grad_enabled() or bool(odd.any()):  # the first: to be differentiated again
            return _by_torch(x, gradient, ctx.experts), None
        length = ctx.lengths.reshape(x.shape[:-1])[..., None]
        inverse = torch.where(length == 0, 0.0, 1 / length).to(score.dtype)
        along = (gradient * score).sum(-1, keepdim=True) * inverse  # over the length, the part along x falls out
        pull = gradient * (math.sqrt(ctx.experts / x.shape[-1]) * inverse)
        result = x * (-along * inverse)
        result.unflatten(-1, (ctx.experts, -1)).add_(pull[..., None])
        return result.to(x.dtype), None


def _by_torch(x: Tensor, gradient: Tensor, experts: int) -> Tensor:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if again else x.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(cosines(wide(leaf), experts), leaf, gradient, create_graph=again)
    return pulled


def scatter(x: Tensor, token: Tensor, filled: Tensor, origin: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sums about `origin` of the tokens in each expert's slots, (experts, dim) float64, and the sum of their squares.

    x: (samples, tokens, dim); token, filled: (samples, experts, slots); origin: (dim,), float64.
    """
    if not (_usable(x, token, filled, origin) and arrays.readable(x) and token.numel()):
        return None
    given = [arrays.host(x), token.contiguous().numpy(), filled.contiguous().numpy(), origin.contiguous().numpy()]
    sums, squares = dispatch._run("scatter", token.numel() * x.shape[-1], *given)
    return torch.from_numpy(sums), torch.tensor(squares, dtype=torch.float64)


def top_experts(score: Tensor, top: int) -> Tensor | None:
    """Each token's `top` experts of highest score, falling, ties by index: (..., experts) -> (..., top)."""
    if not _usable(score):
        return None
    values = arrays.host(score).reshape(-1, score.shape[-1])
    expert = np.empty((len(values), top), np.int64)
    dispatch._run("highest_scores", 16 * values.size, values, expert)
    return torch.from_numpy(expert).reshape(*score.shape[:-1], top)


def tallies(score: Tensor, expert: Tensor, real: Tensor | None, level: float) -> Tensor | None:
    """Of each expert: candidates, tokens of score >= level, and candidates with it, (3, experts).

    score: (samples, tokens, experts); expert: (samples, tokens, top); real: (samples, tokens) booleans or None.
    """
    if not _usable(score, expert, real):
        return None
    values, chosen = arrays.host(score), arrays.host(expert)
    flags = np.empty(0, np.bool_) if real is None else real.contiguous().numpy().reshape(-1)
    rows = values.reshape(-1, values.shape[-1]), chosen.reshape(-1, chosen.shape[-1])
    return torch.from_numpy(dispatch._run("tallies", 4 * values.size, *rows, flags, level))


def table(
    priority: Tensor, expert: Tensor, real: Tensor | None, experts: int, slots: int, limit: Tensor | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """What each expert keeps of its candidates by falling priority: token, filled (samples, experts, slots), and load.

    priority, expert: (samples, tokens, top); padding (real False) takes no slot; limit: (samples,) slots in use.
    """
    if not _usable(priority, expert, real, limit) or slots == 0:
        return None
    samples, tokens, _ = expert.shape
    chosen = expert
    if real is not None:  # padding queues at an expert of its own, who keeps nothing
        chosen = chosen.masked_fill(~real[..., None], experts)
        priority = priority.masked_fill(~real[..., None], 0.0)
    slot, load = dispatch.slots(priority.contiguous(), chosen.contiguous(), experts + (real is not None), slots)
    kept = slot >= 0
    if limit is not None:
        kept = kept & (slot < limit[:, None, None])
    end = experts * slots  # one place more, for those that found none
    place = torch.where(kept & (chosen < experts), chosen * slots + slot, end).flatten(1)
    position = torch.arange(tokens)[:, None].expand(expert.shape).reshape(1, -1).expand(samples, -1)
    token = torch.zeros(samples, end + 1, dtype=torch.int64).scatter_(1, place, position)
    filled = torch.zeros(samples, end + 1, dtype=torch.bool).scatter_(1, place, True)
    shape = samples, experts, slots
    return token[:, :end].reshape(shape), filled[:, :end].reshape(shape), load[:, :experts]
