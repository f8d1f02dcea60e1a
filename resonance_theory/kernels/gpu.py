"""The CUDA kernels (Triton): block sums, squared norm and the highest affinities in one read of x, and their gradient.

Nothing here checks its arguments; `checks.py` does. The references are in `naive.py`.

A program holds all block sums of a few tokens in registers, in float64 as on the CPU; float64 tokens, whose squares
may leave the range, are left to the reference. TRITON_INTERPRET=1, set before the import, runs this on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["LARGEST", "backward_kernel", "constants", "forward_kernel", "top_affinity", "top_affinity_backward"]

LARGEST = 4096  # experts whose sums one program can hold
_TILE = 4096  # entries of x in registers at a time


@triton.jit
def _measure(
    x, row, live,
    DIM: tl.constexpr, BLOCK: tl.constexpr, EXPERTS: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Cosines (TOKENS, EXPERTS) and lengths (TOKENS,) in float64; a zero token has cosines 0, a non-finite one NaN."""
    expert = tl.arange(0, EXPERTS)
    # From whole numbers, since a Python float would arrive as float32.
    scale = tl.sqrt(tl.full([1], DIM // BLOCK, tl.float64) / tl.full([1], DIM, tl.float64))[:, None]
    sums = tl.zeros([TOKENS, EXPERTS], tl.float64)
    squares = tl.zeros([TOKENS, EXPERTS], tl.float64)
    for start in range(0, BLOCK, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = (expert[:, None] * BLOCK < DIM) & (column[None, :] < BLOCK)
        place = row[:, None, None] * DIM + expert[None, :, None] * BLOCK + column[None, None, :]
        values = tl.load(x + place, mask=live[:, None, None] & inside[None, :, :], other=0.0).to(tl.float64)
        sums += tl.sum(values, axis=2)
        squares += tl.sum(values * values, axis=2)
    length = tl.sqrt(tl.sum(squares, axis=1))
    cosine = sums * scale / tl.where(length == 0, 1.0, length)[:, None]
    # Infinite tokens have infinite length and cosines 0 or NaN: make them all NaN, which the caller looks for.
    return tl.where((length < float("inf"))[:, None], cosine, float("nan")), length


@triton.jit
def forward_kernel(
    x, weight, chosen, tokens, TOP: tl.constexpr,
    DIM: tl.constexpr, BLOCK: tl.constexpr, EXPERTS: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the `top` highest affinities of each row of x (tokens, dim) and their experts; see naive.top_affinity."""
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    live = row < tokens
    cosine, length = _measure(x, row, live, DIM, BLOCK, EXPERTS, TOKENS, COLUMNS)
    expert = tl.arange(0, EXPERTS)[None, :]
    # Rounded once, then compared, as the reference does; below -1 lies what is no expert or has been taken.
    affinity = tl.minimum(tl.maximum(cosine.to(tl.float32), -1.0), 1.0)
    affinity = tl.where(expert * BLOCK < DIM, affinity, -2.0)
    for k in range(TOP):
        best = tl.max(affinity, axis=1)
        first = tl.min(tl.where(affinity == best[:, None], expert, EXPERTS), axis=1)
        best = tl.where(length < float("inf"), best, float("nan"))
        tl.store(weight + row * TOP + k, best, mask=live)
        tl.store(chosen + row * TOP + k, first.to(tl.int64), mask=live)
        affinity = tl.where(expert == first[:, None], -2.0, affinity)


@triton.jit
def backward_kernel(
    x, chosen, gradient, result, tokens, TOP: tl.constexpr,
    DIM: tl.constexpr, BLOCK: tl.constexpr, EXPERTS: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradient with respect to x (tokens, dim); see naive.top_affinity_backward."""
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    live = row < tokens
    cosine, length = _measure(x, row, live, DIM, BLOCK, EXPERTS, TOKENS, COLUMNS)
    expert = tl.arange(0, EXPERTS)
    pull = tl.zeros([TOKENS, EXPERTS], tl.float64)
    for k in range(TOP):
        which = tl.load(chosen + row * TOP + k, mask=live, other=0)
        weight = tl.load(gradient + row * TOP + k, mask=live, other=0.0).to(tl.float64)
        pull += tl.where(expert[None, :] == which[:, None], weight[:, None], 0.0)
    inverse = tl.where(length == 0, 0.0, 1.0 / tl.where(length == 0, 1.0, length))
    along = tl.sum(pull * cosine, axis=1) * inverse * inverse
    scale = tl.sqrt(tl.full([1], DIM // BLOCK, tl.float64) / tl.full([1], DIM, tl.float64))[:, None]
    pull = pull * scale * inverse[:, None]
    for start in range(0, BLOCK, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = (expert[:, None] * BLOCK < DIM) & (column[None, :] < BLOCK)
        mask = live[:, None, None] & inside[None, :, :]
        place = row[:, None, None] * DIM + expert[None, :, None] * BLOCK + column[None, None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float64)
        values = pull[:, :, None] - along[:, None, None] * values
        tl.store(result + place, values.to(tl.float32).to(result.dtype.element_ty), mask=mask)


def constants(dim: int, experts: int, top: int) -> dict[str, int]:
    """The sizes that a kernel is compiled for: EXPERTS x COLUMNS covers as much of each token as fits in a tile."""
    wide = triton.next_power_of_2(experts)
    columns = max(1, min(triton.next_power_of_2(dim // experts), _TILE // wide))
    rows = max(1, min(16, _TILE // (wide * columns)))
    return {"TOP": top, "DIM": dim, "BLOCK": dim // experts, "EXPERTS": wide, "TOKENS": rows, "COLUMNS": columns}


def _launch(kernel: Any, x: Tensor, experts: int, top: int, *tensors: Tensor) -> None:
    sizes = constants(x.shape[1], experts, top)
    kernel[(triton.cdiv(x.shape[0], sizes["TOKENS"]),)](x, *tensors, x.shape[0], **sizes)


def top_affinity(x: Tensor, experts: int, top: int) -> tuple[Tensor, Tensor]:
    """See naive.top_affinity; a token that is not finite has weight NaN."""
    shape = (*x.shape[:-1], top)
    weight = torch.empty(shape, dtype=torch.float32, device=x.device)
    expert = torch.empty(shape, dtype=torch.int64, device=x.device)
    _launch(forward_kernel, x.reshape(-1, x.shape[-1]).contiguous(), experts, top, weight, expert)
    return weight, expert


def top_affinity_backward(x: Tensor, expert: Tensor, gradient: Tensor, experts: int) -> Tensor:
    """See naive.top_affinity_backward."""
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    _launch(backward_kernel, flat, experts, expert.shape[-1], expert.contiguous(), gradient.contiguous(), result)
    return result
