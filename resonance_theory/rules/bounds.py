"""Bounds of binomial tails in closed form: Kullback-Leibler rates, and the normal bounds that they give.

The rates m KL(k/m ‖ p) are taken as a sum of two deviances, both of one sign, with mp - k to full accuracy: nothing cancels
near the mean, however large m (up to 2^52).
"""

from __future__ import annotations

import numpy as np

from resonance_theory.rules._beta import deviance, difference
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["chernoff", "rate", "zubkov_serov"]


def rate(trials: ArrayLike, count: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """m KL(k/m ‖ p) in nats, at least 0, and mp - k, whose sign says on which side of the mean the count lies.

    Args:
        trials: whole numbers m >= 1.
        count: whole numbers k, 0..m.
        p: probabilities, taken as exact doubles; the rate is infinite where p is 0 or 1 and excludes the count.
    """
    from scipy.special import xlog1py, xlogy

    m, k, p = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (trials, count, p)))
    rest, q = m - k, 1.0 - p
    shift = -difference(k, m, p, 0.0)
    inner = (k > 0) & (rest > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = deviance(np.where(inner, k, 1.0), m * p, shift) + deviance(np.where(inner, rest, 1.0), m * q, -shift)
    ends = np.where(k > 0, -xlogy(m, p), -xlog1py(m, -p))
    return np.where(inner, np.maximum(value, 0.0), ends), shift


def chernoff(s: Whole, c: Whole, h: Floats) -> tuple[Floats, Floats]:
    """KL bounds (lower, upper) of P(Bin(s-1, h) <= C-1); 0 or 1 on the side of the mean where Chernoff is silent."""
    m = np.maximum(s - 1, 1)
    over, above = rate(m, np.minimum(c, m), h)
    under, below = rate(m, np.minimum(c, m) - 1, h)
    lower = np.where(above <= 0, -np.expm1(-over), 0.0)
    upper = np.where(below >= 0, np.exp(-under), 1.0)
    certain = c >= s
    return np.where(certain, 1.0, lower), np.where(certain, 1.0, upper)


def zubkov_serov(s: Whole, c: Whole, h: Floats) -> tuple[Floats, Floats]:
    """Normal bounds (lower, upper) of P(Bin(M, h) <= k), M = s-1, k = C-1 < M: Φ(H(k)) and Φ(H(k+1)) with
    H(k) = sgn(k/M - h) sqrt(2 M KL(k/M ‖ h)); exact at the ends. Source: Zubkov and Serov (2013), Theorem 1."""
    from scipy.special import ndtr, xlog1py

    m = np.maximum(s - 1, 1)

    def normal(k: Whole) -> Floats:
        value, shift = rate(m, np.minimum(k, m), h)
        return np.asarray(ndtr(-np.sign(shift) * np.sqrt(2 * value)))

    none = np.exp(xlog1py(m, -h))  # P(no rival)
    lower = np.where(c == 1, none, normal(c - 1))
    upper = np.where(c == 1, np.minimum(none, 1.0), normal(c))
    with np.errstate(divide="ignore"):
        upper = np.where((c == s - 1) & (c > 1), -np.expm1(m * np.log(h)), upper)
    certain = c >= s
    return np.where(certain, 1.0, lower), np.where(certain, 1.0, upper)
