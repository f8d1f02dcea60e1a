"""GrAP gates and affinities: from token vectors to the cosines by which experts are chosen.

Source: LocMoE and ETR eq. 2-3.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

from resonance_theory import _arguments as arguments

__all__ = ["affinity", "grap_gates"]

Array = Any  # any array that follows the array API standard


def grap_gates(dim: int, experts: int, *, dtype: Any = None, xp: Any = np) -> Array:
    """Grouped-average-pooling gates W, shape (experts, dim): W x is the mean of each of the n blocks of x.

    Row i is n/d on its own block of d/n features, i d/n <= j < (i+1) d/n, and 0 elsewhere: orthogonal rows of equal
    norm sqrt(n/d), without any parameter to train. Source: ETR eq. 2-3.

    dtype: real floating type, default float64. xp: the array library to build with (numpy, torch, ...).
    Raises ValueError where experts does not divide dim, TypeError for other kinds of numbers.
    """
    dim, experts = _sizes(dim, experts)
    if not hasattr(xp, "asarray"):
        raise TypeError(f"xp is a {type(xp).__name__} but must be an array library such as numpy or torch")
    xp = array_api_compat.array_namespace(xp.asarray(0.0))
    dtype = xp.float64 if dtype is None else dtype
    if not xp.isdtype(xp.zeros(0, dtype=dtype).dtype, "real floating"):
        raise TypeError(f"dtype = {dtype} must be a floating-point type")
    block = xp.arange(dim) // (dim // experts)
    return xp.astype(block[None, :] == xp.arange(experts)[:, None], dtype) * (experts / dim)


def affinity(x: Array, experts: int | None = None, *, gates: Array | None = None, center: Any = False) -> Array:
    """Cosine of every token with every gate, in [-1, 1]. Shape (..., dim) in, (..., experts) out.

    experts: use this many GrAP gates; reads x once (block sums and squared norm) and never forms the gates.
    gates: use these gates instead, shape (experts, dim), none of them zero; exactly one of the two is needed.
    center: True subtracts the mean token (over all leading axes) first, which removes the skew of the load that a
        common mean causes; or give the mean token itself, shape (dim,).

    A zero token has no direction: its affinities are defined as 0. Half precision is computed and returned as float32,
    every other floating type as itself. Squared norms that would overflow or underflow are rescaled, not lost.
    Raises TypeError for arrays that are not of floating-point numbers, ValueError for NaN or infinite values, for
    wrong shapes, and where `experts` does not divide dim. Source: ETR eq. 2-3.
    """
    xp, x = _floating("x", x)
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} but must be (..., dim), each axis at least 1")
    if (experts is None) == (gates is None):
        raise TypeError("affinity needs either experts (for GrAP gates) or gates=, and not both")
    dim = x.shape[-1]
    if gates is not None:
        gates = _like(x, "gates", gates)
        if gates.ndim != 2 or gates.shape[0] == 0 or gates.shape[1] != dim:
            raise ValueError(f"gates has shape {tuple(gates.shape)} but must be (experts, {dim}) to match x")
        gates, norm = _unit(xp, "gates", gates)
        if bool(xp.any(norm == 0)):
            raise ValueError(f"gates[{int(xp.argmin(norm))}] is zero but every gate must have a direction")
    else:
        assert experts is not None
        dim, experts = _sizes(dim, experts)
    if center is not False:
        x = _centred(xp, x, center)
    x = _contiguous(x)

    x, length = _scaled(xp, "x", x)
    if gates is None:
        assert experts is not None
        blocks = xp.reshape(x, (*x.shape[:-1], experts, dim // experts))
        projection = xp.sum(blocks, axis=-1) * math.sqrt(experts / dim)
    else:
        projection = x @ xp.matrix_transpose(gates)
    zero = length == 0
    length = xp.where(zero, xp.ones_like(length), length)
    # Rounding can push the cosine of parallel vectors beyond 1 by an ulp or two.
    return xp.clip(projection / length[..., None], -1.0, 1.0)


def _contiguous(x: Array) -> Array:
    """The same tokens in row order: sums over strided memory may round differently, and equal tokens must tie."""
    if array_api_compat.is_numpy_array(x):
        return np.ascontiguousarray(x)
    return x.contiguous() if array_api_compat.is_torch_array(x) else x


def _scaled(xp: Any, name: str, x: Array) -> tuple[Array, Array]:
    """x and its lengths over the last axis; both divided by its largest entry where squares leave the range."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = xp.vecdot(x, x)
    limits = xp.finfo(square.dtype)
    # Below this, squares of the smaller features underflow and eat into the precision of the sum.
    low = limits.smallest_normal / limits.eps**2
    safe = (square > low) & (square < limits.max)
    if bool(xp.all(safe)):
        return x, xp.sqrt(square)
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(f"{name} holds NaN or infinite values but must be finite")
    largest = xp.max(xp.abs(x), axis=-1, keepdims=True)
    # Vectors in range keep their bits, so that a token's affinity never depends on its neighbours.
    x = x / xp.where(safe[..., None] | (largest == 0), xp.ones_like(largest), largest)
    return x, xp.sqrt(xp.vecdot(x, x))


def _unit(xp: Any, name: str, x: Array) -> tuple[Array, Array]:
    x, norm = _scaled(xp, name, x)
    return x / xp.where(norm == 0, xp.ones_like(norm), norm)[..., None], norm


def _centred(xp: Any, x: Array, center: Any) -> Array:
    if center is True:
        if x.ndim < 2:
            raise ValueError("center = True needs x of shape (tokens, dim) or more axes: one token is its own mean")
        mean = xp.mean(x, axis=tuple(range(x.ndim - 1)))
    else:
        mean = _like(x, "center", center)
        if mean.shape != x.shape[-1:]:
            raise ValueError(
                f"center has shape {tuple(mean.shape)} but must be True, False or of shape {(x.shape[-1],)}"
            )
        if not bool(xp.all(xp.isfinite(mean))):
            raise ValueError("center holds NaN or infinite values but must be finite")
    return x - mean


def _floating(name: str, x: Array) -> tuple[Any, Array]:
    if not array_api_compat.is_array_api_obj(x):
        raise TypeError(f"{name} is a {type(x).__name__} but must be an array of floating-point numbers")
    xp = array_api_compat.array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {x.dtype} but must hold floating-point numbers")
    return xp, xp.astype(x, xp.float32) if xp.finfo(x.dtype).bits < 32 else x


def _like(x: Array, name: str, other: Any) -> Array:
    """The companion array `other`, of the same library, in the precision and on the device of x."""
    xp, other = _floating(name, other)
    if xp is not array_api_compat.array_namespace(x):
        raise TypeError(f"{name} is a {type(other).__name__} but x is a {type(x).__name__}: use one array library")
    return array_api_compat.to_device(xp.astype(other, x.dtype), array_api_compat.device(x))


def _sizes(dim: Any, experts: Any) -> tuple[int, int]:
    for name, value in (("dim", dim), ("experts", experts)):
        if arguments.integer(name, value, 1).ndim:
            raise ValueError(f"{name} = {value!r} must be one whole number of at least 1")
    dim, experts = int(dim), int(experts)
    if dim % experts:
        divisors = {k for i in range(1, min(math.isqrt(dim), 10**6) + 1) if dim % i == 0 for k in (i, dim // i)}
        below, above = (
            max(k for k in divisors if k < experts or k == 1),
            min((k for k in divisors if k > experts), default=dim),
        )
        counts = " or ".join(map(str, sorted({below, above})))
        sizes = " or ".join(str(k) for k in (dim // experts * experts, -(-dim // experts) * experts) if k)
        raise ValueError(
            f"dim = {dim} is not divisible by experts = {experts}, as GrAP gates need: use {counts} experts, "
            f"a dimension of {sizes}, or gates of your own with affinity(x, gates=...)"
        )
    return dim, experts
