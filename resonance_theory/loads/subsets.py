"""k distinct experts of n with given rates: conditional Poisson sampling, the law of greatest entropy.

A set S of k experts has probability Π_{e in S} w_e / E_k(w), E_k the elementary symmetric polynomial. It is the law of
independent coins given that k of them fall on heads, and the only one of given rates with that form. Its choices are
strongly Rayleigh, hence negatively associated. Source: Chen, Dempster and Liu 1994, "Weighted finite population sampling
to maximize entropy", Biometrika 81; Brändén and Jonasson 2012, "Negative dependence in sampling".
"""

from __future__ import annotations

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike, Floats

__all__ = ["choice_weights", "joint_rates", "symmetric"]

_MOST_STEPS = 500


def symmetric(weight: Floats, top: int) -> Floats:
    """Elementary symmetric polynomials E_0..E_top of the weights (..., n), as (..., top + 1); sums of positive terms."""
    value = np.zeros((*weight.shape[:-1], top + 1))
    value[..., 0] = 1.0
    for e in range(weight.shape[-1]):
        value[..., 1:] += weight[..., e, None] * value[..., :-1]
    return value


def _without(weight: Floats, top: int) -> Floats:
    """E_0..E_top of all weights but one, for each (n, top + 1): products of what is before and behind, nothing cancels."""
    n = weight.size
    before, behind = np.zeros((n + 1, top + 1)), np.zeros((n + 1, top + 1))
    before[0, 0] = behind[n, 0] = 1.0
    for e in range(n):
        before[e + 1] = before[e]
        before[e + 1, 1:] += weight[e] * before[e, :-1]
        back = n - 1 - e
        behind[back] = behind[back + 1]
        behind[back, 1:] += weight[back] * behind[back + 1, :-1]
    out = np.zeros((n, top + 1))
    for j in range(top + 1):
        for i in range(j + 1):
            out[:, j] += before[:-1, i] * behind[1:, j - i]
    return out


def choice_weights(rates: ArrayLike) -> Floats:
    """Weights w of the conditional Poisson law in which expert e is one of the k chosen with probability rates[e].

    Rates of 0 and 1 have weights 0 and infinity. Accuracy: the rates are met to 1e-13.

    Args:
        rates: probabilities in [0, 1] that sum to a whole number k of at least 1, (experts,).

    Returns:
        Weights, (experts,), with the geometric mean of the free ones 1.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    Example:
        >>> from resonance_theory.loads import choice_weights
        >>> choice_weights([0.75, 0.5, 0.5, 0.25]).round(4)
        array([2.3028, 1.    , 1.    , 0.4343])
    """
    pi, top = whole_rates(rates)
    weight = np.where(pi >= 1, np.inf, 0.0)
    free = (pi > 0) & (pi < 1)
    k = top - int((pi >= 1).sum())
    if not free.any():
        return weight
    target = pi[free]
    aim = np.log(target) - np.log1p(-target)
    log_w = aim - aim.mean()
    for step in range(_MOST_STEPS):
        log_odds = _log_odds(log_w, k)
        error = float(np.abs(log_odds - aim).max())
        if error < 1e-14 * k:
            break
        change = aim - log_odds
        if step >= 30:  # Newton's step, where rates near 0 or 1 tie others together
            value = 1 / (1 + np.exp(-log_odds))
            covariance = _pairs(np.exp(log_w), value, k) - np.outer(value, value)
            np.fill_diagonal(covariance, value * (1 - value))
            newton = np.linalg.lstsq(covariance, target - value, rcond=1e-15)[0]
            change = np.clip(newton, -2.0, 2.0)
        log_w = log_w + change
        log_w = log_w - log_w.mean()
    if error > 1e-12:
        value = 1 / (1 + np.exp(-log_odds))
        if (far := float(np.abs(value - target).max())) > 1e-12:
            raise ValueError(f"rates are met to {far:.1e} only but must be to 1e-12: some come too close to 0 or 1")
    weight[free] = np.exp(log_w)
    return weight


def _log_odds(log_w: Floats, k: int) -> Floats:
    """log(π/(1-π)) of each under the weights."""
    w = np.exp(log_w)
    less = _without(w, k)
    return log_w + np.log(less[:, k - 1]) - np.log(less[:, k])


def _pairs(w: Floats, rates: Floats, k: int) -> Floats:
    """Probability of both, off the diagonal, for finite weights: given that i is chosen, k - 1 of the others are."""
    joint = np.zeros((w.size, w.size))
    if k >= 2:
        for i in range(w.size):
            others = np.delete(w, i)
            less = _without(others, k - 1)
            share = others * less[:, k - 2] / (less[:, k - 1] + others * less[:, k - 2])
            joint[i, np.delete(np.arange(w.size), i)] = rates[i] * share
    return joint


def whole_rates(rates: ArrayLike) -> tuple[Floats, int]:
    """Rates, and the whole number to which they sum."""
    pi = arguments.probability("rates", rates)
    if pi.ndim != 1 or pi.size == 0:
        raise ValueError(f"rates has shape {pi.shape} but must be (experts,)")
    total = float(pi.sum())
    top = round(total)
    if top < 1 or abs(total - top) > 1e-9 * pi.size:
        raise ValueError(
            f"rates sum to {total:.12g} but must sum to a whole number of at least 1, the choices of a token"
        )
    return pi, top


def joint_rates(rates: ArrayLike) -> Floats:
    """Probability that experts i and j are both among a token's choices, (experts, experts), rates on the diagonal.

    Source: w_i w_j E_{k-2}(all but i, j) / E_k; from π_i and w alone, π_ij = (w_i π_j - w_j π_i)/(w_i - w_j) where the
    weights differ, which cancels; the sums used here do not.

    Example:
        >>> from resonance_theory.loads import joint_rates
        >>> joint_rates([0.5, 0.5, 0.5, 0.5])[0].round(4)
        array([0.5   , 0.1667, 0.1667, 0.1667])
    """
    pi, top = whole_rates(rates)
    weight = choice_weights(pi)
    joint = np.outer(pi, pi) * ((pi >= 1)[:, None] | (pi >= 1) | (pi <= 0)[:, None] | (pi <= 0))
    free = np.flatnonzero((pi > 0) & (pi < 1))
    k, w = top - int((pi >= 1).sum()), weight[free]
    if free.size:
        joint[np.ix_(free, free)] = _pairs(w, pi[free], k)
    joint = (joint + joint.T) / 2
    np.fill_diagonal(joint, pi)
    return joint
