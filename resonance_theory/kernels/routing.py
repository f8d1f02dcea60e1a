"""The public functions: arguments are checked, tracers and gradients see torch operators, all else runs at once."""

from __future__ import annotations

from typing import Any

from resonance_theory.kernels import arrays, checks, dispatch
from resonance_theory.rules.select import Assignment

__all__ = ["route", "slots", "top_affinity"]

Array = Any  # any array that follows the array API standard


@arrays.by_torch
def top_affinity(x: Array, experts: int, *, top: int = 1) -> tuple[Array, Array]:
    """The highest GrAP affinities of every token, and whose they are. Source: ETR eq. 2-3.

    A zero token has affinity 0 with every expert, so experts 0..top-1, and gradient 0. For torch it is differentiable
    with respect to x, in reverse mode and to any order, also by torch.func.

    Args:
        x: Tokens, (tokens, dim) or (samples, tokens, dim), finite, of float16, bfloat16, float32 or float64.
        experts: Number of experts n; divides dim.
        top: Affinities for each token, 1..experts.

    Returns:
        (weight, expert), each (tokens, top) or (samples, tokens, top): affinities in [-1, 1] in falling order, float64
        for float64 tokens and float32 otherwise, and their experts, int64, ties by rising expert.

    Raises:
        TypeError: x is no dense array of these types, or experts or top is no whole number.
        ValueError: A shape, number or value out of its range.
        NotImplementedError: In forward mode.

    >>> import numpy as np
    >>> weight, expert = top_affinity(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 4.0]]), 2)
    >>> weight[:, 0].round(3).tolist(), expert[:, 0].tolist()
    ([1.0, 0.99], [0, 1])
    """
    if arrays.is_torch(x) and ((traced := not _plain(x)) or _needs_gradient(x)):
        from resonance_theory.kernels import operators

        return (operators.top_affinity if traced else operators.eager_top_affinity)(x, experts, top)
    return dispatch.top_affinity(*checks.tokens(x, experts, top))


@arrays.by_torch
def slots(weight: Array, expert: Array, experts: int, capacity: int) -> tuple[Array, Array]:
    """Each candidate's slot in its expert's buffer, by falling weight, ties to the earlier token. Source: ETR eq. 5-6.

    All shapes are known in advance, so nothing waits for the data.

    Args:
        weight: Priorities, (tokens, top) or (samples, tokens, top), finite, float16, bfloat16, float32 or float64.
        expert: The experts that the tokens choose, whole numbers in 0..experts-1, of the shape of weight.
        experts: Number of experts n.
        capacity: Slots of each expert in each sample, 1..tokens.

    Returns:
        (slot, load), int64: slot of the shape of weight, 0..capacity-1 or -1 where the candidate is dropped; load
        (experts,) or (samples, experts), the candidates of each expert.

    Raises:
        TypeError: weight or expert is no dense array of these types, or both are of different libraries.
        ValueError: A shape, number, device or value out of its range.

    >>> import numpy as np
    >>> slot, load = slots(np.array([[0.2], [0.9], [0.5]]), np.array([[0], [0], [0]]), experts=2, capacity=2)
    >>> slot[:, 0].tolist(), load.tolist()
    ([-1, 0, 1], [3, 0])
    """
    if arrays.is_torch(weight):
        if not _plain(weight):
            from resonance_theory.kernels import operators

            return operators.slots(weight, expert, experts, capacity)
        weight = weight.detach()
    return dispatch.slots(*checks.candidates(weight, expert, experts, capacity))


@arrays.by_torch
def route(x: Array, experts: int, capacity: int, *, top: int = 1) -> Assignment:
    """Resonance routing: `rules.resonance.route(affinity(x, experts), capacity, top=top)` in one read of x.

    Args:
        x: Tokens, as in `top_affinity`.
        experts: Number of experts n; divides dim.
        capacity: Tokens that each expert keeps in each sample, 1..tokens.
        top: Experts that each token chooses, 1..experts.

    Returns:
        The kept pairs as an `Assignment` of the array library and device of x. Affinities are summed in float64.

    Raises:
        TypeError: As `top_affinity`.
        ValueError: As `top_affinity`, and where capacity is out of its range.

    >>> import numpy as np
    >>> kept = route(np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 4.0]]), 2, 1)
    >>> kept.expert.tolist(), kept.token.tolist(), kept.load.tolist()
    ([0, 1], [0, 2], [2, 1])
    """
    if arrays.is_torch(x):
        if not _plain(x):
            from resonance_theory.kernels import operators

            return operators.route(x, experts, capacity, top)
        x = x.detach()
    x, experts, top = checks.tokens(x, experts, top)
    return dispatch.route(x, experts, checks.whole("capacity", capacity, x.shape[-2], "tokens"), top)


def _plain(x: Any) -> bool:
    """A tensor with values, which no compiler, transform or fake device traces: those have to see a torch operator."""
    import torch

    if arrays.transformed() or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return type(x) in (torch.Tensor, torch.nn.Parameter) and x.device.type != "meta"


def _needs_gradient(x: Any) -> bool:
    import torch

    return bool(x.requires_grad) and torch.is_grad_enabled()
