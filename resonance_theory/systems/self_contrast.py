"""Contrast a model's output under strong routing with its output under weak routing (SCMoE, arXiv 2405.14507, eq. 5-6).

Strong routing is the trained one (top-2, say), weak routing gives each token to another expert (that of rank 2). Where
both agree the next token is as before; a token that gains from strong routing gains more. Logits may be NumPy, torch or
other array-API arrays; the last axis is the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from resonance_theory import _arguments as arguments

__all__ = ["SelfContrast", "contrast_logits", "switching_strength"]


def _pair(strong: Any, weak: Any) -> Any:
    for name, value in (("strong", strong), ("weak", weak)):
        if not is_array_api_obj(value):
            raise TypeError(f"{name} is a {type(value).__name__} but must be an array of logits")
    xp = array_namespace(strong, weak)
    if strong.shape != weak.shape or strong.ndim == 0 or strong.shape[-1] == 0:
        raise ValueError(
            f"strong has shape {tuple(strong.shape)} and weak {tuple(weak.shape)} "
            "but both must have one shape (..., vocabulary)"
        )
    for name, value in (("strong", strong), ("weak", weak)):
        if not xp.isdtype(value.dtype, "real floating"):
            raise TypeError(f"{name} has dtype {value.dtype} but must hold real floating-point logits")
        if bool(xp.any(xp.isnan(value) | (value == xp.inf))):
            raise ValueError(f"{name} holds NaN or +inf but logits must be finite or -inf")
    return xp


def _allowed(xp: Any, strong: Any, weak: Any, alpha: float) -> Any:
    """Tokens whose probability is at least alpha times the largest; never one of logit -inf."""
    top = xp.max(strong, axis=-1, keepdims=True)
    allowed = (strong >= top + math.log(alpha)) & (strong > -xp.inf)
    if bool(xp.any(allowed & (weak == -xp.inf))):
        raise ValueError("weak holds -inf for a token that strong allows but must be finite there")
    return allowed


def contrast_logits(strong: Any, weak: Any, beta: float = 0.5, alpha: float = 0.1) -> Any:
    """Logits (1+β) z_s - β z_w where z_s >= log α + max z_s, -inf elsewhere.

    On the allowed tokens the probabilities are p ∝ p_s (p_s/p_w)^β. Claims: self_contrast_identity,
    self_contrast_argmax.

    Args:
        strong: Logits (..., vocabulary) under the trained routing; finite, or -inf for a token that is ruled out.
        weak: Logits of the same shape under the weak routing; finite where strong allows the token.
        beta: Strength, at least 0; 0 keeps the probabilities of the allowed tokens.
        alpha: In (0, 1]: the least probability, relative to the largest, of a token that may be chosen.

    Returns:
        Logits of that shape and type.

    Raises:
        TypeError: Logits are no arrays of floats.
        ValueError: An argument is outside its range, or shapes differ.

    Example:
        >>> import numpy as np
        >>> contrast_logits(np.array([2.0, 1.5, -1.0]), np.array([2.0, 0.5, -1.0])).tolist()
        [2.0, 2.0, -inf]
    """
    xp = _pair(strong, weak)
    b = arguments.number("beta", beta, 0.0)
    a = arguments.number("alpha", alpha, 0.0, 1.0, open_low=True)
    allowed = _allowed(xp, strong, weak, a)
    inside = xp.where(allowed, strong, xp.zeros_like(strong))
    other = xp.where(allowed, weak, xp.zeros_like(weak))
    return xp.where(allowed, inside + b * (inside - other), xp.full_like(strong, -xp.inf))


def switching_strength(strong: Any, weak: Any, alpha: float = 0.1) -> Any:
    """The β above which another token than the strong routing's is the most likely one; infinite if there is none.

    Token j overtakes the strong argmax i at β = (z_i - z_j)/(d_j - d_i), d = z_s - z_w, if d_j > d_i and the gap z_i -
    z_j is at most log(1/α). The least such β is returned. Equal logits everywhere give infinity: identical experts
    change nothing. Claims: self_contrast_argmax, self_contrast_identical_experts.

    Args:
        strong, weak, alpha: As for `contrast_logits`; weak finite.

    Returns:
        Strengths (...), the shape without the vocabulary.

    Raises:
        TypeError, ValueError: As for `contrast_logits`.

    Example:
        >>> import numpy as np
        >>> switching_strength(np.array([2.0, 1.5, -1.0]), np.array([2.0, 0.5, -1.0])).item()
        0.5
    """
    xp = _pair(strong, weak)
    a = arguments.number("alpha", alpha, 0.0, 1.0, open_low=True)
    allowed = _allowed(xp, strong, weak, a)
    zero = xp.zeros_like(strong)
    inside, other = xp.where(allowed, strong, zero), xp.where(allowed, weak, zero)
    gain = inside - other
    first = xp.argmax(strong, axis=-1, keepdims=True)
    at_first = xp.reshape(xp.arange(strong.shape[-1], device=strong.device), (-1,)) == first
    lead = xp.sum(xp.where(at_first, gain, zero), axis=-1, keepdims=True)
    gap = xp.max(strong, axis=-1, keepdims=True) - inside
    overtakes = allowed & (gain > lead)
    ratio = gap / xp.where(overtakes, gain - lead, xp.ones_like(gain))
    return xp.min(xp.where(overtakes, ratio, xp.full_like(ratio, xp.inf)), axis=-1)


class SelfContrast:
    """A logits processor: called with (input_ids, scores) at each step of generation, it returns contrasted scores.

    Transformers' `generate(logits_processor=[...])` takes it as it is.

    Args:
        weak: weak(input_ids) -> logits (batch, vocabulary) of the next token under weak routing.
        beta, alpha: As for `contrast_logits`.

    Raises:
        TypeError: weak cannot be called.
        ValueError: A number is outside its range.

    Example:
        >>> import numpy as np
        >>> processor = SelfContrast(lambda ids: np.array([[2.0, 0.5, -1.0]]), beta=1.0)
        >>> processor(np.array([[7]]), np.array([[2.0, 1.5, -1.0]])).argmax(-1).tolist()
        [1]
    """

    def __init__(self, weak: Callable[[Any], Any], beta: float = 0.5, alpha: float = 0.1) -> None:
        if not callable(weak):
            raise TypeError(f"weak is a {type(weak).__name__} but must be callable: weak(input_ids) -> logits")
        self.weak = weak
        self.beta = arguments.number("beta", beta, 0.0)
        self.alpha = arguments.number("alpha", alpha, 0.0, 1.0, open_low=True)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return contrast_logits(scores, self.weak(input_ids), self.beta, self.alpha)
