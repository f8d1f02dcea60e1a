"""Which implementation runs: numba on the CPU, Triton on CUDA, the naive reference elsewhere. Arguments are checked."""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from resonance_theory.kernels import arrays, checks, gradient_memory, naive
from resonance_theory.rules.select import Assignment

__all__ = ["backend", "route", "slots", "top_affinity", "top_affinity_backward", "usable"]

Array = Any  # any array that follows the array API standard
_NONE = np.empty(0)


def backend(x: Array) -> str:
    """Which implementation serves x.

    Args:
        x: Any array.

    Returns:
        "numba" (CPU), "triton" (CUDA) or "naive" (any array library).
    """
    if isinstance(x, np.ndarray) or (arrays.is_torch(x) and x.device.type == "cpu"):
        return "numba" if usable("numba") else "naive"
    # Squares of float64 tokens may leave the range, which the Triton kernel does not look after.
    cuda = arrays.is_torch(x) and x.device.type == "cuda" and arrays.dtype_name(x.dtype) != "float64"
    return "triton" if cuda and usable("triton") else "naive"


@functools.cache
def usable(name: str) -> bool:
    """Whether "numba" or "triton" is installed, and numba able to compile; where it is not, one warning says so."""
    if name != "numba" or not arrays.installed(name):
        return arrays.installed(name)
    try:
        import numba

        _cpu()
        problem = "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else None  # type: ignore[attr-defined]
    except Exception as error:  # numba refuses versions of NumPy and settings of its environment in many ways
        problem = " ".join(str(error).split())
    if problem is not None:
        message = f"numba cannot compile ({problem}): the routing kernels run as their slow references"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return problem is None


def top_affinity(x: Array, experts: int, top: int, lengths: np.ndarray = _NONE) -> tuple[Array, Array]:
    """See `routing.top_affinity`.

    Args:
        x: (tokens, dim) or (samples, tokens, dim).
        experts: Number of experts n.
        top: Affinities for each token.
        lengths: Empty, or on the CPU (rows of x,), float64, which receives what `top_affinity_backward` can use.
    """
    kind = backend(x)
    if kind == "triton" and experts <= _gpu().LARGEST:
        weight, expert = _gpu().top_affinity(x, experts, top)
        if not bool((weight == weight).all()):
            raise ValueError("x holds NaN or infinite values but must be finite")
        return weight, expert
    if kind != "numba":
        return naive.top_affinity(arrays.native(x), experts, top)
    result = np.float64 if arrays.dtype_name(x.dtype) == "float64" else np.float32
    shape = (*x.shape[:-1], top)
    weight, expert = np.empty(shape, result), np.empty(shape, np.int64)
    row = 0
    flat_weight, flat_expert = weight.reshape(-1, top), expert.reshape(-1, top)  # (rows, top)
    for piece in arrays.pieces(x):
        rows = slice(row, row + piece.shape[0])
        found = flat_weight[rows], flat_expert[rows], lengths[rows]
        _finite(_run("top_affinity", piece.size, piece, experts, *found), row, x)
        row += piece.shape[0]
    return arrays.like(x, weight), arrays.like(x, expert)


def top_affinity_backward(gradient: Array, x: Array, expert: Array, experts: int, lengths: np.ndarray = _NONE) -> Array:
    """The gradient with respect to x, of its shape, from that with respect to the weights, (..., top); torch only."""
    kind = backend(x)
    if kind == "triton" and experts <= _gpu().LARGEST:
        return _gpu().top_affinity_backward(x, expert, gradient, experts)
    if kind != "numba":
        return naive.top_affinity_backward(x, expert, gradient, experts)
    import torch

    direct = x.dtype in (torch.float32, torch.float64)
    if direct:
        result = torch.from_numpy(gradient_memory.array(tuple(x.shape), arrays.dtype_name(x.dtype)))
    else:
        result = torch.empty(x.shape, dtype=x.dtype)
    row = 0
    flat, top = result.view(-1, x.shape[-1]), expert.shape[-1]  # (rows, dim)
    flat_expert, flat_gradient = expert.reshape(-1, top).numpy(), gradient.contiguous().reshape(-1, top).numpy()
    for piece in arrays.pieces(x):
        rows = slice(row, row + piece.shape[0])
        target = flat[rows].numpy() if direct else np.empty_like(piece)
        pull = flat_expert[rows], flat_gradient[rows]
        _run("top_affinity_backward", piece.size, piece, *pull, experts, lengths[rows], target)
        if not direct:
            flat[rows] = torch.from_numpy(target).to(x.dtype)
        row += piece.shape[0]
    return result


def slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[Array, Array]:
    """See `routing.slots`; weight of float32 or float64, expert of int64."""
    if backend(weight) != "numba":
        checks.candidate_values(weight, expert, experts)
        return naive.slots(weight, expert, experts, capacity)
    slot, load = _numba_slots(weight, expert, experts, capacity)
    load = load if weight.ndim == 3 else load[0]
    return arrays.like(weight, slot.reshape(tuple(weight.shape))), arrays.like(weight, load)


def route(x: Array, experts: int, capacity: int, top: int) -> Assignment:
    """See `routing.route`."""
    if backend(x) != "numba" or not arrays.readable(x):
        return _keep(*top_affinity(x, experts, top), experts, capacity)
    host = arrays.host(x)
    rows, samples = host.reshape(-1, host.shape[-1]), x.shape[0] if x.ndim == 3 else 1
    scratch = _cpu().scratch(rows.shape[0], top, rows.dtype)
    bad, *kept = _run("route", rows.size, rows, samples, experts, capacity, *scratch)
    _finite(bad, 0, x)
    return _assignment(x, experts, capacity, *kept)


def _keep(weight: Array, expert: Array, experts: int, capacity: int) -> Assignment:
    """The assignment of the candidates, weight and expert (..., tokens, top)."""
    if backend(weight) != "numba":
        return naive.keep_heaviest(weight, expert, experts, capacity)
    tokens, top = weight.shape[-2:]
    slot, load = _numba_slots(weight, expert, experts, capacity)
    kept = np.minimum(load, capacity).reshape(-1)  # (samples * experts,)
    filled = np.nonzero(slot.reshape(-1) >= 0)[0]
    slot, chosen = slot.reshape(-1)[filled], arrays.host(expert).reshape(-1)[filled]  # (kept pairs,), by token
    sample, pair = np.divmod(filled, tokens * top)
    order = np.empty_like(filled)
    order[(np.cumsum(kept) - kept)[sample * experts + chosen] + slot] = np.arange(filled.size)
    columns = (array[order] for array in (sample, chosen, pair // top, slot))
    return _assignment(weight, experts, capacity, load, *columns)


def _assignment(
    x: Array,
    experts: int,
    capacity: int,
    load: np.ndarray,
    sample: np.ndarray,
    expert: np.ndarray,
    token: np.ndarray,
    slot: np.ndarray,
) -> Assignment:
    """From NumPy arrays to the library of x; load: (samples, experts); `sample` may be empty where there is one."""
    batched = x.ndim == 3
    if batched and sample.size < token.size:
        sample = np.zeros_like(token)
    return Assignment(
        expert=arrays.like(x, expert),
        token=arrays.like(x, token),
        slot=arrays.like(x, slot),
        sample=arrays.like(x, sample) if batched else None,
        load=arrays.like(x, load if batched else load[0]),
        tokens=x.shape[-2],
        experts=experts,
        capacity=capacity,
    )


def _numba_slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(slot, load): (samples, tokens * top) and (samples, experts)."""
    top = weight.shape[-1]
    samples = weight.shape[0] if weight.ndim == 3 else 1
    value, chosen = (arrays.host(array).reshape(samples, -1) for array in (weight, expert))  # (samples, tokens * top)
    bits = value.view(np.uint32 if value.itemsize == 4 else np.uint64)
    *_, keys, places = _cpu().scratch(bits.size, 1, value.dtype)
    bad, load, slot = _run("slots", 64 * bits.size, value, bits, chosen, top, experts, capacity, keys, places)
    if bad >= 0:
        checks.candidate_values(value.reshape(-1)[bad : bad + 1], chosen.reshape(-1)[bad : bad + 1], experts)
    return slot, load


def _finite(bad: int, row: int, x: Array) -> None:
    """Raise ValueError where a kernel found a row, counted from `row`, that is not finite."""
    if bad >= 0:
        raise ValueError(f"x holds NaN or infinite values (in token {(row + bad) % x.shape[-2]}) but must be finite")


def _run(kernel: str, work: int, *arguments: Any) -> Any:
    from resonance_theory.kernels import jit

    return jit.run(getattr(_cpu(), kernel), work, *arguments)


def _gpu() -> ModuleType:
    from resonance_theory.kernels import gpu

    return gpu


@functools.cache
def _cpu() -> ModuleType:
    from resonance_theory.kernels import cpu

    return cpu
