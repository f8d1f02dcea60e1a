"""The references that the fused kernels are checked against: the definitions, for any array library.

They take float64 copies of the tokens and sort all candidates. `cpu.py` and `gpu.py` must return the same sets.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

from resonance_theory.gates import affinity
from resonance_theory.rules import select as steps
from resonance_theory.rules.select import Assignment

__all__ = ["keep_heaviest", "slots", "top_affinity", "top_affinity_backward"]

Array = Any  # any array that follows the array API standard


def top_affinity(x: Array, experts: int, top: int) -> tuple[Array, Array]:
    """(weight, expert), each (..., top): the highest GrAP affinities of each token, and whose they are (ETR eq. 2-3).

    Affinities are computed in float64 and rounded to the result's type before they are compared.
    """
    xp = array_api_compat.array_namespace(x)
    result = xp.float64 if x.dtype == xp.float64 else xp.float32
    cosine = xp.astype(affinity(xp.astype(x, xp.float64), experts), result)
    shape = cosine.shape[:-1]
    cosine = xp.reshape(cosine, (1, -1, experts))
    expert = steps.top_experts(steps.Scores(cosine, 1, top, True))
    weight = xp.take_along_axis(cosine, expert, axis=-1)
    return xp.reshape(weight, (*shape, top)), xp.reshape(xp.astype(expert, xp.int64), (*shape, top))


def top_affinity_backward(x: Array, expert: Array, gradient: Array, experts: int) -> Array:
    """Gradient with respect to x of sum(gradient * weight): d cos_i = (w_i/|w_i| - cos_i x/|x|)/|x|; 0 where x is 0."""
    xp = array_api_compat.array_namespace(x)
    wide, dim = xp.astype(x, xp.float64), x.shape[-1]
    largest = xp.max(xp.abs(wide), axis=-1, keepdims=True)
    largest = xp.where(largest == 0, xp.ones_like(largest), largest)
    unit = wide / largest
    length = xp.sqrt(xp.sum(unit * unit, axis=-1, keepdims=True))
    zero = length == 0
    length = xp.where(zero, xp.ones_like(length), length)
    unit = unit / length
    chosen = xp.astype(expert[..., None] == xp.arange(experts, device=array_api_compat.device(x)), xp.float64)
    pull = xp.sum(chosen * xp.astype(gradient, xp.float64)[..., None], axis=-2) * math.sqrt(experts / dim)
    pull = xp.repeat(pull, dim // experts, axis=-1)  # sum over the choices of gradient * w_i/|w_i|
    along = xp.sum(pull * unit, axis=-1, keepdims=True)
    result = (pull - along * unit) / length / largest
    return xp.astype(xp.where(zero, xp.zeros_like(result), result), x.dtype)


def keep_heaviest(weight: Array, expert: Array, experts: int, capacity: int) -> Assignment:
    """Each expert keeps its `capacity` candidates of highest weight; ties go to the earlier token (ETR eq. 5-6).

    weight, expert: shape (tokens, top) or (samples, tokens, top).
    """
    xp = array_api_compat.array_namespace(weight)
    batched, top = weight.ndim == 3, weight.shape[-1]
    weight, expert = (weight, expert) if batched else (weight[None, ...], expert[None, ...])
    chosen = expert[..., None] == xp.arange(experts, dtype=expert.dtype, device=array_api_compat.device(expert))
    affinity = xp.sum(xp.where(chosen, weight[..., None], xp.zeros_like(weight)[..., None]), axis=-2)
    scores, expert = steps.Scores(affinity, capacity, top, batched), xp.astype(expert, xp.int64)
    return steps.keep(scores, expert, steps.chosen(scores, expert))


def slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[Array, Array]:
    """(slot, load): each candidate's slot in its expert's buffer, -1 where it is dropped; candidates of each expert."""
    xp = array_api_compat.array_namespace(weight)
    device = array_api_compat.device(weight)
    shape, rows = weight.shape, (-1, weight.shape[-2] * weight.shape[-1])
    value, chosen = xp.reshape(weight, rows), xp.astype(xp.reshape(expert, rows), xp.int64)
    best = xp.argsort(-value, axis=-1, stable=True)
    order = xp.argsort(xp.take_along_axis(chosen, best, axis=-1), axis=-1, stable=True)
    rank = xp.argsort(xp.take_along_axis(best, order, axis=-1), axis=-1)  # the inverse permutation: place in the order
    candidates = xp.astype(chosen[..., None] == xp.arange(experts, dtype=xp.int64, device=device), xp.int64)
    load = xp.sum(candidates, axis=1)
    before = xp.cumulative_sum(load, axis=-1) - load
    slot = xp.astype(rank, xp.int64) - xp.take_along_axis(before, chosen, axis=-1)
    slot = xp.where(slot < capacity, slot, -xp.ones_like(slot))
    return xp.reshape(slot, shape), load if len(shape) == 3 else load[0, ...]
