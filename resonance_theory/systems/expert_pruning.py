"""Dropping a token's second expert where its weight is small, tokens that matter apart (MC-MoE, arXiv 2410.06270, eq. 5-6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike

__all__ = ["protected_tokens", "prune_second", "pruning_threshold", "token_importance"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def prune_second(first: ArrayLike, second: ArrayLike, threshold: float, protected: ArrayLike | None = None) -> Flags:
    """Which tokens keep their first expert alone: w₁/w₀ < μ, unless they are protected.

    As w₁/w₀ = exp(-gap of the two logits), the pruned share is the law of the gap beyond ln(1/μ). Claim: pruning_gap. Eq. 5 sets
    w₀ = 0 and w₁ = 1, which would keep the lesser expert; the text and this function keep the larger.

    Args:
        first: Weights w₀ of the first experts, above 0, any shape.
        second: Weights w₁ of the second ones, at least 0 and at most w₀, the same shape.
        threshold: μ, at least 0.
        protected: Booleans of that shape, tokens that keep both.

    Returns:
        Booleans of that shape.

    Raises:
        ValueError: An argument is outside its range, or shapes differ.

    Example:
        >>> prune_second([0.6, 0.9, 0.9], [0.4, 0.1, 0.1], threshold=0.5, protected=[False, False, True]).tolist()
        [False, True, False]
    """
    w0, w1 = arguments.real("first", first, 0.0, open_low=True), arguments.real("second", second, 0.0)
    if w0.shape != w1.shape:
        raise ValueError(f"first and second have the shapes {w0.shape} and {w1.shape} but must have one")
    if (w1 > w0).any():
        raise ValueError("second exceeds first somewhere but must be the lesser weight")
    pruned = w1 < arguments.number("threshold", threshold, 0.0) * w0
    return pruned if protected is None else pruned & ~_flags("protected", protected, w0.shape)


def _flags(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Flags:
    flags = np.asarray(value)
    if flags.dtype != np.bool_ or flags.shape != shape:
        raise ValueError(f"{name} is of {flags.dtype} and shape {flags.shape} but must be booleans of shape {shape}")
    return flags


def pruning_threshold(first: ArrayLike, second: ArrayLike, share: float = 0.5) -> float:
    """Threshold that prunes that share of the second experts of calibration tokens: a quantile of w₁/w₀.

    At the median half of the second experts go, a quarter of all expert evaluations. Claim: pruning_median.

    Args:
        first: Weights w₀, above 0, (tokens,).
        second: Weights w₁, (tokens,).
        share: In [0, 1].

    Returns:
        μ with which at most that share, rounded down to tokens, is pruned; exactly that many without ties.

    Raises:
        ValueError: An argument is outside its range, or shapes differ.

    Example:
        >>> pruning_threshold([0.6, 0.8, 0.9, 0.5], [0.3, 0.2, 0.1, 0.4])
        0.5
    """
    w0, w1 = arguments.real("first", first, 0.0, open_low=True), arguments.real("second", second, 0.0)
    if w0.shape != w1.shape or w0.ndim != 1 or not w0.size:
        raise ValueError(f"first and second have the shapes {w0.shape} and {w1.shape} but must both have (tokens,)")
    ratio = np.sort(w1 / w0)
    at = int(arguments.number("share", share, 0.0, 1.0) * ratio.size)
    return float(ratio[at]) if at < ratio.size else float(np.nextafter(ratio[-1], np.inf))


def token_importance(norms: ArrayLike, attention: ArrayLike) -> Floats:
    """‖t_j‖₁ times the mean attention that later tokens and itself pay to token j (eq. 6).

    Args:
        norms: ‖t_j‖₁ of each token, (tokens,), at least 0.
        attention: Share of its attention that token i (row) pays to token j (column), (tokens, tokens), at least 0.

    Returns:
        (tokens,); the mean is over the L - j tokens from j on, j counted from 0.

    Raises:
        ValueError: An argument is outside its range, or shapes do not match.

    Example:
        >>> token_importance([1.0, 2.0], [[1.0, 0.0], [0.25, 0.75]]).tolist()
        [0.625, 1.5]
    """
    size, paid = arguments.real("norms", norms, 0.0), arguments.real("attention", attention, 0.0)
    if size.ndim != 1 or paid.shape != (size.size, size.size):
        raise ValueError(
            f"norms and attention have the shapes {size.shape} and {paid.shape} but must have (L,) and (L, L)"
        )
    return size * np.tril(paid).sum(axis=0) / np.arange(size.size, 0, -1)


def protected_tokens(importance: ArrayLike, share: float = 0.02) -> Flags:
    """The share of the tokens, rounded up, that matter most; equal ones by position.

    Args:
        importance: (tokens,).
        share: In [0, 1].

    Returns:
        Booleans (tokens,).

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> protected_tokens([0.1, 3.0, 0.2, 0.4], share=0.25).tolist()
        [False, True, False, False]
    """
    value = arguments.real("importance", importance)
    if value.ndim != 1:
        raise ValueError(f"importance has shape {value.shape} but must have shape (tokens,)")
    count = int(np.ceil(arguments.number("share", share, 0.0, 1.0) * value.size - 1e-9))
    chosen = np.zeros(value.size, np.bool_)
    chosen[np.argsort(-value, kind="stable")[:count]] = True
    return chosen
