"""Zero-computation experts beside feed-forward ones: shares, capacities and drops of unlike experts (MoE++, arXiv 2410.07348).

A layer has F feed-forward (FFN) experts and Z experts that cost nothing: zero, copy and constant ones. A weight τ in the
load-balance loss, sum of η_i f_i P_i with η = 1 for FFN experts and τ for the others, sends them unequal loads, and each kind
has its own capacity. The layer itself is `zero_experts.ZeroComputationMoE`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import Rates, token_choice
from resonance_theory.typing import ArrayLike

__all__ = ["UnlikeCapacities", "balanced_shares", "ffn_share", "layer_speedup", "unlike_capacities", "unlike_drop_rate"]

Floats = NDArray[np.float64]


def balanced_shares(weights: ArrayLike, top: int = 1) -> Floats:
    """Loads f_i that make sum of η_i f_i² least, at a sum of `top`: f_i = top (1/η_i) / sum of 1/η.

    They are the rest point of the loss Σ η_i f_i P_i where the probabilities P follow the loads. Claim: zero_computation_share.

    Args:
        weights: η_i > 0, shape (experts,).
        top: Experts that a token chooses.

    Returns:
        Tokens of each expert over all tokens, (experts,).

    Raises:
        ValueError: An argument is outside its range, or an expert would get more than all tokens.

    Example:
        >>> balanced_shares([1, 1, 0.5, 0.5], top=2).round(4).tolist()
        [0.3333, 0.3333, 0.6667, 0.6667]
    """
    eta = arguments.real("weights", weights, 0.0, open_low=True)
    if eta.ndim != 1:
        raise ValueError(f"weights has shape {eta.shape} but must have shape (experts,)")
    load = arguments.whole("top", top, 1, eta.size, "experts") / eta / (1 / eta).sum()
    if load.max() > 1:
        raise ValueError(
            f"weights give an expert {load.max():.4g} times all tokens at top = {top} but at most once is possible"
        )
    return load


def ffn_share(tau: ArrayLike, ffn: ArrayLike, zero: ArrayLike) -> Floats:
    """Share of the choices that FFN experts get under balanced loads, τF / (τF + Z): the layer's cost over that without Z.

    Args:
        tau: τ > 0. ffn: F, at least 1. zero: Z, at least 0. They broadcast.

    Returns:
        The broadcast shape, in (0, 1]; a token has top times as many FFN experts on average.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> ffn_share([0.1, 0.75, 1.0], 8, 4).round(4).tolist()
        [0.1667, 0.6, 0.6667]
    """
    t = arguments.real("tau", tau, 0.0, open_low=True)
    f, z = arguments.integer("ffn", ffn, 1), arguments.integer("zero", zero, 0)
    return t * f / (t * f + z)


class UnlikeCapacities(NamedTuple):
    """Slots of an FFN expert, and of a zero-computation expert."""

    ffn: int
    zero: int


def unlike_capacities(
    tokens: int, ffn: int, zero: int, *, tau: float = 0.75, top: int = 2, capacity_factor: float = 1.1
) -> UnlikeCapacities:
    """Slots in proportion to the balanced loads: γ K τT/(τF+Z) of an FFN expert, γ K T/(τF+Z) of the others, rounded up.

    MoE++ eq. 8 has them without K, so that all slots together are γT where K T choices are made: that is `top=1`. Claim:
    zero_computation_capacity. The factor and τ are taken as the decimals that were typed.

    Args:
        tokens: T, at least 1. ffn: F, at least 1. zero: Z, at least 0.
        tau: τ > 0. top: K, experts that a token chooses. capacity_factor: γ > 0.

    Returns:
        Slots of each kind, at least 1 and at most T.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> unlike_capacities(4096, 8, 4)
        UnlikeCapacities(ffn=676, zero=902)
        >>> unlike_capacities(4096, 8, 4, top=1)                  # eq. 8 as printed
        UnlikeCapacities(ffn=338, zero=451)
    """
    t = arguments.whole("tokens", tokens, 1)
    f, z = arguments.whole("ffn", ffn, 1), arguments.whole("zero", zero, 0)
    weight = Fraction(repr(arguments.number("tau", tau, 0.0, open_low=True)))
    factor = Fraction(repr(arguments.number("capacity_factor", capacity_factor, 0.0, open_low=True)))
    each = factor * arguments.whole("top", top, 1, f + z, "experts") * t / (weight * f + z)
    return UnlikeCapacities(
        *(min(max(-(-slots.numerator // slots.denominator), 1), t) for slots in (weight * each, each))
    )


def unlike_drop_rate(tokens: int, load: ArrayLike, capacity: ArrayLike) -> float:
    """Expected share of the choices that find no slot, where experts have unequal loads and capacities.

    Σ E(N_i - C_i)₊ / (T Σ load_i) with N_i ~ Bin(T, load_i): the counts of independent tokens. That each token's experts are
    distinct changes joint laws, not this mean. Claim: zero_computation_drop.

    Args:
        tokens: T, at least 1.
        load: Probability that a token chooses the expert, (experts,), their sum above 0.
        capacity: Slots of each expert, (experts,), at least 1.

    Returns:
        In [0, 1].

    Raises:
        ValueError: An argument is outside its range, or shapes differ.

    Example:
        >>> load = balanced_shares([1] * 8 + [0.75] * 4, top=2)
        >>> for top in (1, 2):                                    # eq. 8 as printed, and with its K
        ...     slots = unlike_capacities(4096, 8, 4, top=top)
        ...     print(f"{unlike_drop_rate(4096, load, [slots.ffn] * 8 + [slots.zero] * 4):.4f}")
        0.4497
        0.0000
    """
    s = arguments.whole("tokens", tokens, 1)
    p, slots = arguments.probability("load", load), arguments.integer("capacity", capacity, 1)
    if p.ndim != 1 or p.shape != slots.shape:
        raise ValueError(f"load and capacity have the shapes {p.shape} and {slots.shape} but must both have (experts,)")
    if not p.sum() > 0:
        raise ValueError("load is 0 throughout but must be above 0 somewhere")
    chosen = p > 0
    lost = token_choice.failure(s, np.minimum(slots[chosen], s), Rates(load=p[chosen]))
    return float((lost * p[chosen]).sum() / p.sum())


def layer_speedup(share: ArrayLike, fixed: ArrayLike) -> Floats:
    """Times that a layer gets faster where FFN experts get that share of the choices and a part of its time is fixed.

    1 / (fixed + (1 - fixed) share), Amdahl's law: at most 1/fixed. Claim: zero_computation_speed.

    Args:
        share: Of FFN experts, in [0, 1], as by `ffn_share`.
        fixed: Part of the time of the layer without zero-computation experts that its experts do not cause, in [0, 1].

    Returns:
        The broadcast shape, at least 1.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> layer_speedup(ffn_share([0.25, 0.75], 8, 4), 0.2).round(3).tolist()
        [2.143, 1.471]
    """
    s, f = arguments.probability("share", share), arguments.probability("fixed", fixed)
    with np.errstate(divide="ignore"):
        return 1 / (f + (1 - f) * s)
