"""Distinct experts of a batch: how many experts' weights a decoding step reads from memory.

With rates π_e (the probability that a token chooses expert e) and B independent tokens

    E D = Σ_e {1 - (1 - π_e)^B},   Var D = Σ_{e,f} {(1 - π_e - π_f + π_ef)^B - (1 - π_e)^B (1 - π_f)^B},

π_ef the probability that a token chooses both. The rates alone fix the mean; the variance needs π_ef. Where the rates vary from
batch to batch with an intra-batch correlation, (1 - π)^B becomes Π_{j<B} (1 - π + κ' j)/(1 + κ' j), κ' = κ/(1-κ): fewer experts.
Claim: distinct_experts.
"""

from __future__ import annotations

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.loads.subsets import joint_rates, whole_rates
from resonance_theory.typing import ArrayLike, Floats

__all__ = ["distinct_experts", "distinct_variance"]


def distinct_experts(batch: ArrayLike, rates: ArrayLike, correlation: ArrayLike = 0.0) -> Floats:
    """Expected number of distinct experts that a batch of tokens chooses.

    Holds for any law of the choices of one token with these rates. Accuracy: 1e-12 relative.

    Args:
        batch: tokens B, whole numbers 0..2^20; broadcasts with correlation.
        rates: probability that a token chooses each expert, (experts,); they sum to the choices of a token.
        correlation: of two tokens' choosing the same expert, in [0, 1] (beta-binomial); 0 is independence.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> rt.loads.distinct_experts([1, 16, 64], np.full(64, 6 / 64)).round(2)
        array([ 6.  , 50.75, 63.88])
        >>> rt.loads.distinct_experts(16, np.full(64, 6 / 64), correlation=0.1).round(2)
        np.float64(38.53)
    """
    b = arguments.integer("batch", batch, 0, 2**20)
    pi, kappa = _rates(rates), arguments.probability("correlation", correlation)
    shape = arguments.same_shapes(batch=b.shape, correlation=kappa.shape)
    pairs = zip(np.broadcast_to(b, shape).ravel(), np.broadcast_to(kappa, shape).ravel())
    result = [float(_chosen(int(n), pi, float(k)).sum()) for n, k in pairs]
    return np.reshape(result, shape)[()]


def distinct_variance(batch: ArrayLike, rates: ArrayLike, joint: ArrayLike | None = None) -> Floats:
    """Variance of that number for independent tokens.

    Args:
        batch: tokens B, whole numbers 0..2^20, any shape.
        rates: as for `distinct_experts`, summing to a whole number k.
        joint: probability that a token chooses both of two experts, (experts, experts), rates on the diagonal; that of
            conditional Poisson sampling (`joint_rates`) unless given, which is exact for uniform k-subsets.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> rt.loads.distinct_variance([1, 16], np.full(64, 6 / 64)).round(4) + 0.0
        array([0.    , 6.0221])
    """
    b = arguments.integer("batch", batch, 0, 2**20)
    pi, _ = whole_rates(rates)
    both = joint_rates(pi) if joint is None else arguments.probability("joint", joint)
    if both.shape != (pi.size, pi.size) or np.abs(np.diag(both) - pi).max() > 1e-9:
        raise ValueError(f"joint has shape {both.shape} but must be {(pi.size, pi.size)} with rates on its diagonal")
    # q^B - (q_e q_f)^B without cancellation, q the probability of neither
    product = np.outer(1 - pi, 1 - pi)
    change = both - np.outer(pi, pi)  # P(neither) - product
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log1p(np.maximum(np.where(product > 0, change / product, 0.0), -1.0))
        log_product = np.where(product > 0, np.log(product), -np.inf)
    result = []
    for n in map(int, b.ravel()):
        # from the larger of the two, so that neither overflows; a batch of none has no variance
        larger = np.exp(max(n, 1) * (log_product + np.maximum(log_ratio, 0.0)))
        terms = np.sign(log_ratio) * larger * -np.expm1(-max(n, 1) * np.abs(log_ratio))
        result.append(max(float(terms.sum()), 0.0) if n else 0.0)
    return np.reshape(result, b.shape)[()]


def _chosen(batch: int, pi: Floats, kappa: float) -> Floats:
    """Probability that at least one of the batch chooses each expert."""
    if batch == 0:
        return 0 * pi
    with np.errstate(divide="ignore"):
        if kappa <= 0 or kappa >= 1:
            return -np.expm1((1 if kappa >= 1 else batch) * np.log1p(-pi))
        j = np.arange(batch)
        kept = 1 + kappa * (j - 1)  # (1-κ) + κ j
        logs = np.array([np.log1p(-p * (1 - kappa) / kept).sum() for p in pi])
        return -np.expm1(logs)


def _rates(rates: ArrayLike) -> Floats:
    pi = arguments.probability("rates", rates)
    if pi.ndim != 1 or pi.size == 0:
        raise ValueError(f"rates has shape {pi.shape} but must be (experts,)")
    return pi
