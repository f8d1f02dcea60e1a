"""Auxiliary losses of routers: load balance and locality (LocMoE, ETR) and the z-loss (ST-MoE), with gradients.

Array-agnostic: NumPy, torch (differentiable) or any array-API library in, the same out. Values are checked on the CPU
only: elsewhere, and under `torch.compile`, looking at them would synchronise with the host or break the graph. Sums over
tokens are taken in float32 at least.

A fixed GrAP gate has no parameters; these losses then act through the representation, or through a learned
orthogonal map before the gate.
"""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat

from resonance_theory import _arguments as arguments

__all__ = [
    "load_balance",
    "load_balance_gradient",
    "local_distribution",
    "locality",
    "locality_gradient",
    "router_z",
]


def _torch(*arrays: Any) -> Any:
    """The torch module, where all of the arrays are its tensors; else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and all(isinstance(array, torch.Tensor) for array in arrays) else None


def _namespace(**arrays: Any) -> Any:
    """Their array_namespace; of torch tensors without its look-ups, about each of which torch.compile would warn."""
    if _torch(*arrays.values()):
        import array_api_compat.torch as library

        return library
    for name, array in arrays.items():
        if not array_api_compat.is_array_api_obj(array):
            raise TypeError(f"{name} is a {type(array).__name__} but must be an array")
    try:
        return array_api_compat.array_namespace(*arrays.values())
    except TypeError:
        kinds = " and ".join(f"{name} is a {type(array).__name__}" for name, array in arrays.items())
        raise TypeError(f"{kinds}: use one array library") from None


def _at_hand(value: Any) -> bool:
    """Whether values can be looked at without waiting for a device or breaking a compiled graph."""
    torch = sys.modules.get("torch")
    return "cpu" in str(value.device).lower() and not (torch is not None and torch.compiler.is_compiling())


def _weight(name: str, value: Any) -> float:
    if type(value) in (int, float) and 0 <= value < float("inf"):  # a plain number, without a graph break
        return float(value)
    return arguments.number(name, value, 0.0)


def _floats(name: str, value: Any) -> Any:
    """The array namespace of real floating-point numbers, (tokens, experts)."""
    xp = _namespace(**{name: value})
    if value.ndim != 2 or value.shape[0] == 0 or value.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} but must have shape (tokens, experts), neither of them 0"
        )
    if not xp.isdtype(value.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {value.dtype} but must hold real floating-point numbers")
    return xp


def _wide(xp: Any, value: Any) -> Any:
    """The dtype in which to sum: half precision would lose counts above 2048 (float16) or 256 (bfloat16)."""
    return xp.float32 if xp.finfo(value.dtype).bits < 32 else value.dtype


def _real_tokens(xp: Any, mask: Any, tokens: int) -> Any:
    """The mask as booleans, (tokens,)."""
    _namespace(mask=mask)
    if tuple(mask.shape) != (tokens,):
        raise ValueError(f"mask has shape {tuple(mask.shape)} but must have shape ({tokens},)")
    real = mask != 0
    if _at_hand(mask):
        if not bool(xp.all((mask == 1) | ~real)):
            raise ValueError("mask must hold booleans (or 0 and 1), true for real tokens")
        if not bool(xp.any(real)):
            raise ValueError("mask excludes every token but must leave at least one")
    return real


def _sum(xp: Any, value: Any, real: Any) -> Any:
    """Sum over the real tokens, the first axis."""
    if real is not None:
        value = xp.where(xp.reshape(real, (-1, *[1] * (value.ndim - 1))), value, xp.zeros_like(value))
    return xp.sum(value, axis=0, dtype=_wide(xp, value))


def _shares(probability: Any, expert: Any, mask: Any) -> tuple[Any, Any, Any]:
    """f_i, the fraction of routed (token, expert) pairs at expert i; the real tokens as booleans and their number."""
    xp = _floats("probability", probability)
    tokens, experts = probability.shape
    if not _torch(expert) and not array_api_compat.is_array_api_obj(expert):
        expert = xp.asarray(expert)
    if expert.ndim not in (1, 2) or expert.shape[0] != tokens or not xp.isdtype(expert.dtype, "integral"):
        raise ValueError(
            f"expert has shape {tuple(expert.shape)} and dtype {expert.dtype} but must hold the whole-numbered "
            f"experts of {tokens} tokens, shape ({tokens},) or ({tokens}, top)"
        )
    expert = xp.astype(expert if expert.ndim == 2 else expert[:, None], xp.int64)  # (tokens, top)
    real = None if mask is None else _real_tokens(xp, mask, tokens)
    if _at_hand(probability):
        if not bool(xp.all((expert >= 0) & (expert < experts))):
            raise ValueError(f"expert holds a value outside 0..{experts - 1}")
        if not bool(xp.min(probability) >= 0):  # NaN too
            raise ValueError("probability holds a negative number or NaN but must hold probabilities")
    pairs = xp.reshape(expert if real is None else xp.where(real[:, None], expert, experts), (-1,))
    torch = _torch(pairs)
    if torch:
        routed = torch.zeros(experts + 1, dtype=torch.int64, device=pairs.device)
        routed = routed.scatter_add(0, pairs, torch.ones_like(pairs))[:experts]
    else:
        routed = xp.searchsorted(xp.sort(pairs), xp.arange(experts + 1, dtype=pairs.dtype, device=pairs.device))
        routed = routed[1:] - routed[:-1]
    wide = _wide(xp, probability)
    count = tokens if real is None else xp.astype(xp.sum(xp.astype(real, xp.int64)), wide)
    return xp.astype(routed, wide) / xp.astype(xp.sum(routed), wide), real, count


def load_balance(probability: Any, expert: Any, *, alpha: float = 0.01, mask: Any = None) -> Any:
    """Load-balance loss α n Σ_i f_i P_i (LocMoE, α = 0.01; ETR section 8).

    f_i is the fraction of tokens sent to expert i and carries no gradient; P_i is the mean probability of expert i. The
    loss is α if either is uniform, and it is not bounded below by α: with f and P anti-aligned it is smaller, down to 0.

    Args:
        probability: (tokens, experts) gate probabilities, rows summing to 1.
        expert: (tokens,) or (tokens, top) chosen experts, 0..experts-1.
        alpha: weight of the loss, at least 0.
        mask: (tokens,) true for real tokens, so that padding counts nowhere.

    Returns:
        A scalar of `probability`'s library, float32 at least.

    Raises:
        ValueError: wrong shapes, or values out of range (on the CPU).
        TypeError: arrays of the wrong kind.

    >>> import numpy as np
    >>> float(load_balance(np.full((8, 4), 0.25), np.arange(8) % 4))
    0.01
    """
    scale = _weight("alpha", alpha)
    share, real, count = _shares(probability, expert, mask)
    xp = _floats("probability", probability)
    return scale * probability.shape[1] * xp.sum(share * (_sum(xp, probability, real) / count))


def load_balance_gradient(probability: Any, expert: Any, *, alpha: float = 0.01, mask: Any = None) -> Any:
    """Gradient of `load_balance` with respect to the logits of a softmax gate, (tokens, experts).

    α n/N · P_ti (f_i - Σ_j f_j P_tj): it moves every token away from the overloaded experts, in proportion to its own
    probabilities. Zero exactly where each token's f-weighted excess vanishes: at uniform shares f (for any P), and at
    one-hot rows of P, balanced or not: collapse with saturated gates is a stationary point too.

    Args, Raises: as for `load_balance`.
    """
    scale = _weight("alpha", alpha)
    share, real, count = _shares(probability, expert, mask)
    xp = _floats("probability", probability)
    excess = share[None, :] - xp.sum(share[None, :] * probability, axis=1, keepdims=True)
    gradient = scale * probability.shape[1] / count * probability * excess
    return gradient if real is None else xp.where(real[:, None], gradient, xp.zeros_like(gradient))


def router_z(logits: Any, *, alpha: float = 0.001, mask: Any = None) -> Any:
    """Router z-loss α/N Σ_t (ln Σ_i exp logit_ti)², which keeps logits small (ST-MoE, eq. 5, α = 0.001).

    Args:
        logits: (tokens, experts) floats.
        alpha: weight of the loss, at least 0.
        mask: (tokens,) true for real tokens.

    Returns:
        A scalar of `logits`'s library, float32 at least.

    Raises:
        ValueError: wrong shapes, or NaN (on the CPU).
        TypeError: arrays of the wrong kind.

    >>> import numpy as np
    >>> round(float(router_z(np.zeros((3, 4)), alpha=1.0)), 4)  # (ln 4)²
    1.9218
    """
    scale = _weight("alpha", alpha)
    xp = _floats("logits", logits)
    real = None if mask is None else _real_tokens(xp, mask, logits.shape[0])
    if _at_hand(logits) and bool(xp.any(xp.isnan(logits) if real is None else xp.isnan(logits) & real[:, None])):
        raise ValueError("logits hold NaN but must be numbers")
    logits = xp.astype(logits, _wide(xp, logits))
    if real is not None:
        logits = xp.where(real[:, None], logits, xp.zeros_like(logits))
    torch = _torch(logits)
    if torch:
        log_sum = torch.logsumexp(logits, -1)
    else:
        largest = xp.max(logits, axis=1)
        log_sum = largest + xp.log(xp.sum(xp.exp(logits - largest[:, None]), axis=1))
    count = logits.shape[0] if real is None else xp.sum(xp.astype(real, logits.dtype))
    return scale * _sum(xp, log_sum * log_sum, real) / count


def local_distribution(local: Any, *, epsilon: float) -> Any:
    """Target D_l of the locality loss with the correction: (1-ε) spread over the local experts and ε over the others.

    Printed with ε = 0, where the divergence is infinite as soon as one token leaves its node. All experts local:
    uniform, whatever ε.

    Args:
        local: (experts,) booleans, true for experts on the token's own node, at least one of them.
        epsilon: share of the others, in (0, 1).

    Returns:
        (experts,) float64.

    Raises:
        ValueError: no local expert, or epsilon out of range.
        TypeError: local does not hold booleans.

    >>> import numpy as np
    >>> local_distribution(np.array([True, False, False]), epsilon=0.1).tolist()
    [0.9, 0.05, 0.05]
    """
    xp = _namespace(local=local)
    if local.ndim != 1 or not xp.isdtype(local.dtype, "bool"):
        raise TypeError(f"local has shape {tuple(local.shape)} and dtype {local.dtype} but must be (experts,) booleans")
    plain = type(epsilon) is float and 0 < epsilon < 1
    e = epsilon if plain else arguments.number("epsilon", epsilon, 0, 1, open_low=True, open_high=True)
    flags = xp.astype(local, xp.float64)
    near = xp.sum(flags)
    far = local.shape[0] - near
    if _at_hand(local) and not float(near) > 0:
        raise ValueError("local names no expert but must name at least one")
    some = xp.astype(far > 0, xp.float64)  # 1, or 0 where all are local
    return flags * ((1 - e * some) / near) + (1 - flags) * (e * some / (far + (1 - some)))


def _divergence(current: Any, target: Any) -> tuple[Any, Any]:
    """The array namespace, and ln(current/target), 0 where current is."""
    xp = _namespace(current=current, target=target)
    for name, value in (("current", current), ("target", target)):
        if not xp.isdtype(value.dtype, "real floating"):
            raise TypeError(f"{name} has dtype {value.dtype} but must hold real floating-point numbers")
    if current.ndim != 1 or tuple(current.shape) != tuple(target.shape):
        raise ValueError(
            f"current and target have shapes {tuple(current.shape)} and {tuple(target.shape)} "
            "but must both be (experts,)"
        )
    if _at_hand(current) and _at_hand(target):
        for name, value in (("current", current), ("target", target)):
            # Written so that NaN fails as well. Probabilities of half precision sum to 1 only to their rounding.
            allowed = max(1e-5, 8 * float(xp.finfo(value.dtype).eps))
            if not (bool(xp.all(value >= 0)) and bool(xp.abs(xp.sum(value) - 1) <= allowed)):
                raise ValueError(f"{name} must be a distribution over the experts: non-negative, summing to 1")
        if bool(xp.any((target == 0) & (current > 0))):
            raise ValueError(
                "target is 0 where current is positive, so the divergence is infinite: spread ε over the rest"
            )
    used, one = current > 0, xp.ones_like(current)
    ratio = xp.where(used, current, one) / xp.where(used, xp.astype(target, current.dtype), one)
    return xp, xp.log(ratio)


def locality(current: Any, target: Any, *, mu: float = 1.0) -> Any:
    """Locality loss μ KL(D_c ‖ D_l) in nats (LocMoE; current distribution first).

    Its only stationary point on the simplex is D_c = D_l, where it is 0.

    Args:
        current: (experts,) distribution of tokens over experts.
        target: `local_distribution(...)`.
        mu: weight of the loss, at least 0.

    Returns:
        A scalar of `current`'s library.

    Raises:
        ValueError: no distributions, or the divergence is infinite (on the CPU; infinite or NaN elsewhere).
        TypeError: arrays of the wrong kind.
    """
    xp, log_ratio = _divergence(current, target)
    return _weight("mu", mu) * xp.sum(current * log_ratio)


def locality_gradient(current: Any, target: Any, *, mu: float = 1.0) -> Any:
    """Gradient of `locality` with respect to the logits of D_c = softmax(logits): μ D_ci (ln(D_ci/D_li) - KL(D_c ‖ D_l)).

    Args, Raises: as for `locality`. Returns (experts,).
    """
    xp, log_ratio = _divergence(current, target)
    return _weight("mu", mu) * current * (log_ratio - xp.sum(current * log_ratio))
