"""Auxiliary losses of LocMoE and ETR: load balance and locality, with their gradients.

Array-agnostic: NumPy, torch (differentiable) or any array-API library in, the same out. Values are checked on the CPU
only: elsewhere, and under `torch.compile`, looking at them would wait for the device or break the graph.

A fixed GrAP gate has no parameters; these losses then act through the representation, or through a learned
orthogonal map before the gate.
"""

from __future__ import annotations

import sys
from typing import Any

import array_api_compat

from resonance_theory import _arguments as arguments

__all__ = ["load_balance", "load_balance_gradient", "local_distribution", "locality", "locality_gradient"]


def _namespace(*arrays: Any) -> Any:
    """Their array_namespace; of torch tensors without its look-ups, about each of which torch.compile would warn."""
    torch = sys.modules.get("torch")
    if torch is not None and all(isinstance(array, torch.Tensor) for array in arrays):
        import array_api_compat.torch as library

        return library
    return array_api_compat.array_namespace(*arrays)


def _at_hand(value: Any) -> bool:
    """Whether values can be looked at without waiting for a device or breaking a compiled graph."""
    torch = sys.modules.get("torch")
    return "cpu" in str(value.device).lower() and not (torch is not None and torch.compiler.is_compiling())


def _weight(name: str, value: Any) -> float:
    if type(value) in (int, float) and 0 <= value < float("inf"):  # a plain number, without a graph break
        return float(value)
    return float(arguments.real(name, value, 0.0))


def _matrix(name: str, value: Any) -> Any:
    xp = _namespace(value)
    if value.ndim != 2 or value.shape[0] == 0 or value.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} but must have shape (tokens, experts), neither of them 0"
        )
    if not xp.isdtype(value.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {value.dtype} but must hold real floating-point numbers")
    return value


def _shares(probability: Any, expert: Any, mask: Any) -> tuple[Any, Any]:
    """f_i, the fraction of routed (token, expert) pairs at expert i, and the mask as weights of the tokens."""
    xp = _namespace(probability)
    tokens, experts = probability.shape
    expert = xp.asarray(expert)
    if expert.ndim not in (1, 2) or expert.shape[0] != tokens or not xp.isdtype(expert.dtype, "integral"):
        raise ValueError(
            f"expert has shape {tuple(expert.shape)} and dtype {expert.dtype} but must hold the whole-numbered "
            f"experts of {tokens} tokens, shape ({tokens},) or ({tokens}, top)"
        )
    expert = expert if expert.ndim == 2 else expert[:, None]
    here = _at_hand(probability)
    if here and bool(xp.any((expert < 0) | (expert >= experts))):
        raise ValueError(f"expert holds a value outside 0..{experts - 1}")
    weight = xp.ones_like(probability[:, 0]) if mask is None else xp.astype(mask, probability.dtype)
    if tuple(weight.shape) != (tokens,):
        raise ValueError(f"mask has shape {tuple(weight.shape)} but must have shape ({tokens},)")
    if here and not float(xp.sum(weight)) > 0:
        raise ValueError("mask excludes every token but must leave at least one")
    columns = xp.arange(experts, device=expert.device)
    chosen = xp.sum(xp.astype(expert[:, :, None] == columns[None, None, :], probability.dtype), axis=1)
    routed = xp.sum(weight[:, None] * chosen, axis=0)
    return routed / xp.sum(routed), weight


def load_balance(probability: Any, expert: Any, *, alpha: float = 0.01, mask: Any = None) -> Any:
    """Load-balance loss α n Σ_i f_i P_i (LocMoE, α = .01; ETR section 8); a scalar of `probability`'s kind.

    probability: (tokens, experts) gate probabilities, rows summing to 1; expert: (tokens,) or (tokens, top) chosen
    experts; mask: (tokens,) true for real tokens, so that padding counts nowhere. f_i is the fraction of tokens sent to
    expert i and carries no gradient; P_i is the mean probability of expert i. It is α if either is uniform, and it is
    not bounded below by α: with f and P anti-aligned it is smaller, down to 0.
    """
    probability = _matrix("probability", probability)
    xp = _namespace(probability)
    scale = _weight("alpha", alpha)
    share, weight = _shares(probability, expert, mask)
    mean = xp.sum(weight[:, None] * probability, axis=0) / xp.sum(weight)
    return scale * probability.shape[1] * xp.sum(share * mean)


def load_balance_gradient(probability: Any, expert: Any, *, alpha: float = 0.01, mask: Any = None) -> Any:
    """Gradient of `load_balance` with respect to the logits of a softmax gate, (tokens, experts).

    α n/N · P_ti (f_i - Σ_j f_j P_tj): it moves every token away from the overloaded experts, in proportion to its own
    probabilities. Zero exactly where each token's f-weighted excess vanishes: at uniform shares f (for any P), and at
    one-hot rows of P, balanced or not: collapse with saturated gates is a stationary point too.
    """
    probability = _matrix("probability", probability)
    xp = _namespace(probability)
    scale = _weight("alpha", alpha)
    share, weight = _shares(probability, expert, mask)
    excess = share[None, :] - xp.sum(share[None, :] * probability, axis=1, keepdims=True)
    return scale * probability.shape[1] / xp.sum(weight) * weight[:, None] * probability * excess


def local_distribution(local: Any, *, epsilon: float) -> Any:
    """D_l with the correction: (1-ε) spread evenly over the local experts and ε over the others; (experts,) floats.

    local: (experts,) booleans, true for experts on the token's own node. ε in (0, 1); printed with ε = 0, where the
    divergence is infinite as soon as one token leaves its node. All experts local: uniform, whatever ε.
    """
    xp = _namespace(local)
    if local.ndim != 1 or not xp.isdtype(local.dtype, "bool"):
        raise TypeError(f"local has shape {tuple(local.shape)} and dtype {local.dtype} but must be (experts,) booleans")
    plain = type(epsilon) is float and 0 < epsilon < 1
    e = epsilon if plain else float(arguments.real("epsilon", epsilon, 0, 1, open_low=True, open_high=True))
    flags = xp.astype(local, xp.float64)
    near = xp.sum(flags)
    far = local.shape[0] - near
    if _at_hand(local) and not float(near) > 0:
        raise ValueError("local names no expert but must name at least one")
    some = xp.astype(far > 0, xp.float64)  # 1, or 0 where all are local
    return flags * ((1 - e * some) / near) + (1 - flags) * (e * some / (far + (1 - some)))


def _divergence_inputs(current: Any, target: Any) -> Any:
    xp = _namespace(current, target)
    if current.ndim != 1 or tuple(current.shape) != tuple(target.shape):
        raise ValueError(
            f"current and target have shapes {tuple(current.shape)} and {tuple(target.shape)} "
            "but must both be (experts,)"
        )
    if not (_at_hand(current) and _at_hand(target)):
        return xp
    for name, value in (("current", current), ("target", target)):
        total = xp.sum(value)
        if bool(xp.any(value < 0)) or bool(xp.abs(total - 1) > 1e-5):
            raise ValueError(f"{name} must be a distribution over the experts: non-negative, summing to 1")
    if bool(xp.any((target == 0) & (current > 0))):
        raise ValueError("target is 0 where current is positive, so the divergence is infinite: spread ε over the rest")
    return xp


def locality(current: Any, target: Any, *, mu: float = 1.0) -> Any:
    """Locality loss μ KL(D_c ‖ D_l) in nats (LocMoE; current distribution first); a scalar of `current`'s kind.

    current: (experts,) distribution of tokens over experts; target: `local_distribution(...)`. Raises ValueError where
    the printed form is infinite (on the CPU; infinite or NaN elsewhere). Its only stationary point on the simplex is
    D_c = D_l, where it is 0.
    """
    xp = _divergence_inputs(current, target)
    scale = _weight("mu", mu)
    used = current > 0
    one = xp.ones_like(current)
    ratio = xp.where(used, current, one) / xp.where(used, xp.astype(target, current.dtype), one)
    return scale * xp.sum(current * xp.log(ratio))


def locality_gradient(current: Any, target: Any, *, mu: float = 1.0) -> Any:
    """Gradient of `locality` with respect to the logits of D_c = softmax(logits), (experts,).

    μ D_ci (ln(D_ci/D_li) - KL(D_c ‖ D_l)).
    """
    xp = _divergence_inputs(current, target)
    scale = _weight("mu", mu)
    used = current > 0
    one = xp.ones_like(current)
    log_ratio = xp.log(xp.where(used, current, one) / xp.where(used, xp.astype(target, current.dtype), one))
    return scale * current * (log_ratio - xp.sum(current * log_ratio))
