"""Fused routing kernels: from tokens to the assignment of resonance routing in one read of the tokens.

    weight, expert = top_affinity(x, experts, top=1)       # per token: highest GrAP affinities, and whose they are
    slot, load = slots(weight, expert, experts, capacity)  # per choice: its place in the expert's buffer, -1 if dropped
    assignment = route(x, experts, capacity, top=1)        # the compact `Assignment` of rules.resonance.route

NumPy arrays and torch tensors on the CPU run on numba kernels; CUDA tensors find affinities with Triton and sort with
torch, and CuPy arrays go the same way where torch and Triton are installed, without a copy in or out; all others (and
any machine without these) take the array-agnostic references in `naive.py`. For torch, `top_affinity` is differentiable
and all three are operators of `torch.library`, so that `torch.compile` takes them whole. On the CPU a gradient takes the
memory of the last one that was dropped, if it has its size; until then that memory, as much as the tokens', is held back.

What is guaranteed. Affinities are sums in float64, rounded once to the type of the result (float64 for float64
tokens, float32 for all others), and only then compared; ties go to the lower expert, then to the earlier token.
On the CPU the order of all additions is fixed, so that a token's affinity has the same bits, and each expert keeps the
same set, for every number of threads, position and layout of the batch. Between backends the order differs:
results agree unless two float64 sums that differ in their last digits round to different floats, at most about one
float32 affinity in 10^6, and always where sums are exact (integers of moderate size).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar, cast

import array_api_compat
import numpy as np

from resonance_theory import gates
from resonance_theory.kernels import _memory, naive
from resonance_theory.rules import select
from resonance_theory.rules.select import Assignment

__all__ = ["backend", "route", "slots", "top_affinity"]

Array = Any  # any array that follows the array API standard
F = TypeVar("F", bound=Callable[..., Any])

_PIECE = 2**21  # entries of x that are converted at a time where its layout or type needs a copy: 8 MB of float32
_LARGEST = 2**32 - 1  # pairs of one sample that the 32-bit indices of the kernels can name
_NONE = np.empty(0)
_forked = False  # GNU OpenMP, numba's threads, dies in a forked child


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _by_torch(function: F) -> F:
    """CuPy arrays as torch tensors of the same memory, and the result back in the same way."""

    @functools.wraps(function)
    def call(x: Array, *arguments: Any, **options: Any) -> Any:
        if not _lent(x):
            return function(x, *arguments, **options)
        import torch

        library = array_api_compat.array_namespace(x)
        taken = [torch.from_dlpack(value) if _lent(value) else value for value in arguments]
        result = function(torch.from_dlpack(x), *taken, **options)
        if isinstance(result, tuple):
            return tuple(library.from_dlpack(part) for part in result)
        back = {name: library.from_dlpack(part) for name, part in vars(result).items() if _is_torch(part)}
        return dataclasses.replace(result, **back)

    return cast(F, call)


@_by_torch
def top_affinity(x: Array, experts: int, *, top: int = 1) -> tuple[Array, Array]:
    """(weight, expert), each (..., top): the highest GrAP affinities of every token, falling, and whose they are.

    x: (tokens, dim) or (samples, tokens, dim), finite, of float16, bfloat16, float32 or float64; `experts` divides dim;
    top: 1..experts. weight is float64 for float64 tokens, float32 otherwise; expert is int64. A zero token has affinity
    0 with every expert, so experts 0..top-1, and gradient 0. Torch: differentiable with respect to x, in reverse mode and
    to any order, also by torch.func; forward mode raises NotImplementedError.
    Raises TypeError and ValueError as `affinity` does. Source: ETR eq. 2-3.
    """
    if _is_torch(x):
        if not _plain(x):
            return _operators().top_affinity(x, experts, top)
        if _needs_gradient(x):
            return _operators().eager_top_affinity(x, experts, top)
    x, experts, top = _tokens(x, experts, top)
    return _top_affinity(x, experts, top)


@_by_torch
def slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[Array, Array]:
    """(slot, load): each candidate's slot in its expert's buffer, -1 where dropped, and the candidates of each expert.

    weight, expert: (tokens, top) or (samples, tokens, top), as `top_affinity` gives them. An expert's slots 0, 1, ...
    go to its candidates of highest weight, ties to the earlier token. slot has the shape of weight, load
    (experts,) or (samples, experts); both int64. All shapes are known in advance. Source: ETR eq. 5-6.
    """
    if _is_torch(weight):
        if not _plain(weight):
            return _operators().slots(weight, expert, experts, capacity)
        weight = weight.detach()
    return _slots(*_candidates(weight, expert, experts, capacity))


@_by_torch
def route(x: Array, experts: int, capacity: int, *, top: int = 1) -> Assignment:
    """Resonance routing of tokens: `rules.resonance.route(affinity(x, experts), capacity, top=top)` in one read of x.

    Arguments as in `top_affinity`; capacity: 1..tokens. Affinities are summed in float64 (see the module).
    Returns an `Assignment` of the array library and device of x.
    """
    if _is_torch(x):
        if not _plain(x):
            return _operators().route(x, experts, capacity, top)
        x = x.detach()
    x, experts, top = _tokens(x, experts, top)
    return _route(x, experts, _whole("capacity", capacity, x.shape[-2], "tokens"), top)


def backend(x: Array) -> str:
    """Which implementation serves x: "numba" (CPU), "triton" (CUDA) or "naive" (any array library)."""
    if isinstance(x, np.ndarray) or (_is_torch(x) and x.device.type == "cpu"):
        return "numba" if _found("numba") else "naive"
    # Squares of float64 tokens may leave the range, which the Triton kernel does not look after.
    cuda = _is_torch(x) and x.device.type == "cuda" and _name(x.dtype) != "float64"
    return "triton" if cuda and _found("triton") else "naive"


# From here on arguments have been checked.


def _top_affinity(x: Array, experts: int, top: int, lengths: np.ndarray = _NONE) -> tuple[Array, Array]:
    """lengths: on the CPU, receives what the gradient can use; empty where there is none to be."""
    kind = backend(x)
    if kind == "triton" and experts <= _gpu().LARGEST:
        weight, expert = _gpu().project(x, experts, top)
        if not bool((weight == weight).all()):
            raise ValueError("x holds NaN or infinite values but must be finite")
        return weight, expert
    if kind != "numba":
        return naive.project(x, experts, top)
    result = np.float64 if _name(x.dtype) == "float64" else np.float32
    shape = (*x.shape[:-1], top)
    weight, expert = np.empty(shape, result), np.empty(shape, np.int64)
    row = 0
    flat_weight, flat_expert = weight.reshape(-1, top), expert.reshape(-1, top)
    for piece in _pieces(x):
        rows = slice(row, row + piece.shape[0])
        bad = _run("project", piece.size, piece, experts, flat_weight[rows], flat_expert[rows], lengths[rows])
        if bad >= 0:
            raise ValueError(_not_finite((row + bad) % x.shape[-2]))
        row += piece.shape[0]
    return _like(x, weight), _like(x, expert)


def _top_affinity_backward(
    gradient: Array, x: Array, expert: Array, experts: int, lengths: np.ndarray = _NONE
) -> Array:
    kind = backend(x)
    if kind == "triton" and experts <= _gpu().LARGEST:
        return _gpu().project_backward(x, expert, gradient, experts)
    if kind != "numba":
        return naive.project_backward(x, expert, gradient, experts)
    import torch

    direct = x.dtype in (torch.float32, torch.float64)
    if direct:
        result = torch.from_numpy(_memory.array(tuple(x.shape), _name(x.dtype)))
    else:
        result = torch.empty(x.shape, dtype=x.dtype)
    row = 0
    flat, top = result.view(-1, x.shape[-1]), expert.shape[-1]
    flat_expert, flat_gradient = expert.reshape(-1, top).numpy(), gradient.contiguous().reshape(-1, top).numpy()
    for piece in _pieces(x):
        rows = slice(row, row + piece.shape[0])
        target = flat[rows].numpy() if direct else np.empty_like(piece)
        chosen, pull = flat_expert[rows], flat_gradient[rows]
        _run("project_backward", piece.size, piece, chosen, pull, experts, lengths[rows], target)
        if not direct:
            flat[rows] = torch.from_numpy(target).to(x.dtype)
        row += piece.shape[0]
    return result


def _route(x: Array, experts: int, capacity: int, top: int) -> Assignment:
    if backend(x) != "numba" or not _ready(x):
        return _keep(*_top_affinity(x, experts, top), experts, capacity)
    batched, host = x.ndim == 3, _host(x)
    rows, samples = host.reshape(-1, host.shape[-1]), x.shape[0] if batched else 1
    bad, *kept = _run(
        "route", rows.size, rows, samples, experts, capacity, *_cpu().scratch(rows.shape[0], top, rows.dtype)
    )
    if bad >= 0:
        raise ValueError(_not_finite(bad % x.shape[-2]))
    return _assignment(x, batched, experts, capacity, *kept)


def _keep(weight: Array, expert: Array, experts: int, capacity: int) -> Assignment:
    if backend(weight) != "numba":
        return naive.select(weight, expert, experts, capacity)
    batched, shape = weight.ndim == 3, weight.shape if weight.ndim == 3 else (1, *weight.shape)
    load, slot = _selected(weight, expert, experts, capacity)
    kept = np.minimum(load, capacity).reshape(-1)
    filled = np.nonzero(slot.reshape(-1) >= 0)[0]
    slot, chosen = slot.reshape(-1)[filled], _host(expert).reshape(-1)[filled]
    sample, pair = np.divmod(filled, shape[1] * shape[2])
    order = np.empty_like(filled)
    order[(np.cumsum(kept) - kept)[sample * experts + chosen] + slot] = np.arange(filled.size)
    token = pair // shape[2]
    columns = (array[order] for array in (sample, chosen.astype(np.int64, copy=False), token, slot))
    return _assignment(weight, batched, experts, capacity, load, *columns)


def _assignment(
    x: Array,
    batched: bool,
    experts: int,
    capacity: int,
    load: np.ndarray,
    sample: np.ndarray,
    expert: np.ndarray,
    token: np.ndarray,
    slot: np.ndarray,
) -> Assignment:
    """From NumPy arrays to the library of x; `sample` may be empty where there is one."""
    if batched and sample.size < token.size:
        sample = np.zeros_like(token)
    return Assignment(
        expert=_like(x, expert),
        token=_like(x, token),
        slot=_like(x, slot),
        sample=_like(x, sample) if batched else None,
        load=_like(x, load if batched else load[0]),
        tokens=x.shape[-2],
        experts=experts,
        capacity=capacity,
    )


def _slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[Array, Array]:
    if backend(weight) != "numba":
        _check_values(weight, expert, experts)
        return naive.slots(weight, expert, experts, capacity)
    load, slot = _selected(weight, expert, experts, capacity)
    load = load if weight.ndim == 3 else load[0]
    return _like(weight, slot.reshape(tuple(weight.shape))), _like(weight, load)


def _selected(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(load, slot), each a row for each sample."""
    top = weight.shape[-1]
    samples = weight.shape[0] if weight.ndim == 3 else 1
    flat = [_host(array).reshape(samples, -1) for array in (weight, expert)]
    bits = flat[0].view(np.uint32 if flat[0].itemsize == 4 else np.uint64)
    *_, keys, places = _cpu().scratch(bits.size, 1, flat[0].dtype)
    bad, load, slot = _run("select", 64 * bits.size, flat[0], bits, flat[1], top, experts, capacity, keys, places)
    if bad >= 0:
        wrong = slice(bad, bad + 1)
        _check_values(flat[0].reshape(-1)[wrong], flat[1].reshape(-1)[wrong], experts)
    return load, slot


def _check_values(weight: Array, expert: Array, experts: int) -> None:
    xp = array_api_compat.array_namespace(weight)
    outside = (expert < 0) | (expert >= experts)
    if not bool(xp.any(outside | ~xp.isfinite(weight))):
        return
    if bool(xp.any(outside)):
        raise ValueError(f"expert holds {int(expert[outside][0])} but must lie in 0 to {experts - 1}")
    raise ValueError("weight holds NaN or infinite values but must be finite")


def _tokens(x: Array, experts: Any, top: Any) -> tuple[Array, int, int]:
    """Check the tokens; the errors name the argument, its value and what is allowed."""
    if not (isinstance(x, np.ndarray) or array_api_compat.is_array_api_obj(x)):
        raise TypeError(f"x is a {type(x).__name__} but must be an array of floating-point numbers")
    if _name(x.dtype) not in _TYPES:
        raise TypeError(f"x has dtype {x.dtype} but must be one of {', '.join(_TYPES)}")
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)} but must be (tokens, dim) or (samples, tokens, dim), each at least 1"
        )
    if type(experts) is not int or experts < 1 or x.shape[-1] % experts:  # plain numbers in range need no arrays
        experts = gates._sizes(x.shape[-1], experts)[1]
    top = _whole("top", top, experts, "experts")
    _small_enough("x", x.shape[-2], top)
    return x, experts, top


def _whole(name: str, value: Any, high: int, high_name: str) -> int:
    return value if type(value) is int and 1 <= value <= high else select._whole(name, value, high, high_name)


def _candidates(weight: Array, expert: Array, experts: Any, capacity: Any) -> tuple[Array, Array, int, int]:
    if not (_is_torch(weight) and _is_torch(expert) and _alike(weight, expert)):
        weight = _checked(weight, expert)
    experts = _whole("experts", experts, _LARGEST, "the largest index")
    capacity = _whole("capacity", capacity, weight.shape[-2], "tokens")
    _small_enough("weight", *weight.shape[-2:])
    return weight, expert, experts, capacity


def _alike(weight: Any, expert: Any) -> bool:
    """Whether these tensors are what `top_affinity` gives, which needs no closer look."""
    return (
        _name(weight.dtype) in ("float32", "float64")
        and _name(expert.dtype) == "int64"
        and weight.shape == expert.shape
        and weight.ndim in (2, 3)
        and 0 not in weight.shape
        and weight.device == expert.device
    )


def _checked(weight: Array, expert: Array) -> Array:
    """weight in float32 at least."""
    for name, array, kind in (("weight", weight, "real floating"), ("expert", expert, "integral")):
        if not array_api_compat.is_array_api_obj(array):
            raise TypeError(f"{name} is a {type(array).__name__} but must be an array")
        if not array_api_compat.array_namespace(array).isdtype(array.dtype, kind):
            raise TypeError(f"{name} has dtype {array.dtype} but must be of {kind} type")
    xp = array_api_compat.array_namespace(weight)
    if xp is not array_api_compat.array_namespace(expert):
        raise TypeError(f"expert is a {type(expert).__name__} but weight is a {type(weight).__name__}: use one library")
    if weight.ndim not in (2, 3) or 0 in weight.shape or weight.shape != expert.shape:
        raise ValueError(
            f"weight and expert have shapes {tuple(weight.shape)} and {tuple(expert.shape)} but must both be "
            "(tokens, top) or (samples, tokens, top), each at least 1"
        )
    devices = [array_api_compat.device(array) for array in (weight, expert)]
    if devices[0] != devices[1]:
        raise ValueError(f"weight is on device {devices[0]} and expert on {devices[1]}: move them to one device")
    return xp.astype(weight, xp.float32) if xp.finfo(weight.dtype).bits < 32 else weight


_TYPES = ("float16", "bfloat16", "float32", "float64")


def _small_enough(name: str, tokens: int, top: int) -> None:
    if tokens * top > _LARGEST:
        raise ValueError(
            f"{name} has tokens * top = {tokens} * {top} pairs in a sample but must have at most {_LARGEST}"
        )


def _not_finite(token: int) -> str:
    return f"x holds NaN or infinite values (in token {token}) but must be finite"


def _ready(x: Array) -> bool:
    """Whether the kernels can read x where it lies: contiguous rows of native floats."""
    if isinstance(x, np.ndarray):
        return x.dtype in (np.float32, np.float64) and x.dtype.isnative and x.flags.aligned and x.flags.c_contiguous
    return _name(x.dtype) in ("float32", "float64") and x.is_contiguous() and not x.is_neg()


def _pieces(x: Array) -> Iterator[np.ndarray]:
    """x as contiguous rows of native floats: x itself where possible, otherwise copies of bounded size."""
    dim = x.shape[-1]
    if not isinstance(x, np.ndarray):
        x = x.detach().resolve_neg()
    if _ready(x):
        yield _host(x).reshape(-1, dim)
        return
    x = x if x.ndim == 3 else x[None]
    samples, tokens, _ = x.shape
    rows = max(1, _PIECE // dim)
    group = max(1, rows // tokens)
    for sample in range(0, samples, group):
        for token in range(0, tokens, rows):
            yield _host(x[sample : sample + group, token : token + rows]).reshape(-1, dim)


def _host(x: Array) -> np.ndarray:
    """A contiguous NumPy array of native numbers, without a copy where x is one; half precision becomes float32."""
    if not isinstance(x, np.ndarray):
        x = x.detach()
        x = (x.float() if x.dtype.is_floating_point and x.dtype.itemsize < 4 else x).contiguous().numpy()
    if x.dtype.isnative and x.itemsize >= 4 and x.flags.aligned and x.flags.c_contiguous:
        return x
    kind = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype.newbyteorder("=")
    return np.require(x, kind, ["C", "A"])


def _like(x: Array, array: np.ndarray) -> Array:
    if isinstance(x, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array)


def _name(dtype: Any) -> str:
    """The name that all libraries share: float32 for torch.float32 as for big-endian float32."""
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def _lent(x: Any) -> bool:
    """Whether x is a CuPy array that torch and Triton can serve."""
    return type(x).__module__.partition(".")[0] == "cupy" and _found("torch") and _found("triton")


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "requires_grad")


def _needs_gradient(x: Any) -> bool:
    import torch

    return x.requires_grad and torch.is_grad_enabled()


def _plain(x: Any) -> bool:
    """A tensor with values, which no compiler, transform or fake device traces: those have to see a torch operator."""
    import torch

    if _transformed():
        return False
    if torch.compiler.is_compiling() or type(x) not in (torch.Tensor, torch.nn.Parameter) or x.device.type == "meta":
        return False
    return not torch._C._len_torch_dispatch_stack()


def _transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, whose tensors look like any other."""
    import torch

    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


@functools.cache
def _found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _operators() -> ModuleType:
    from resonance_theory.kernels import operators

    return operators


def _gpu() -> ModuleType:
    from resonance_theory.kernels import gpu

    return gpu


@functools.cache
def _cpu() -> ModuleType:
    from resonance_theory.kernels import cpu

    return cpu


def _run(kernel: str, work: int, *arguments: Any) -> Any:
    return _cpu().serial(kernel)(*arguments) if _forked else _cpu().run(kernel, work, *arguments)
