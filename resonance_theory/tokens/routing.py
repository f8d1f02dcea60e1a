"""Choices of routers for simulators of serving: k distinct experts a token, with given rates and given correlation.

Each token's set has the conditional Poisson law of its layer's rates (`rt.loads.choice_weights`): expert e is chosen with
exactly rates[e]. Tokens of one document share choices as in Pólya's urn: token j of it (j = 0, 1, ...) takes the set of one of
the j tokens before it with probability j κ/(1 - κ + j κ), else a set of its own. Then any two tokens of the document take expert
e with correlation κ, and the document's count of e is exactly beta-binomial: `BetaBinomial(κ)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.loads.subsets import choice_weights, symmetric, whole_rates
from resonance_theory.typing import ArrayLike, Floats, NDArray, Whole

__all__ = ["routing", "skewed_rates"]


def skewed_rates(experts: int, top: int, max_over_mean: float) -> Floats:
    """Rates of Zipf's form e^-a, e = 1..n, that sum to k, the largest of them max_over_mean times the mean k/n.

    Args:
        experts: experts n.
        top: experts k of each token.
        max_over_mean: in [1, n/k]; n/k is allowed where the largest rate may be 1.

    Example:
        >>> import resonance_theory as rt
        >>> rates = rt.tokens.skewed_rates(8, 2, 2.0)
        >>> rates.round(3), float(rates.sum().round(12))
        (array([0.5  , 0.334, 0.263, 0.223, 0.195, 0.176, 0.161, 0.149]), 2.0)
    """
    n = arguments.whole("experts", experts, 1, 2**15)
    k = arguments.whole("top", top, 1, n, "experts")
    ratio = arguments.number("max_over_mean", max_over_mean, 1.0, n / k)
    order = np.arange(1.0, n + 1)

    def shares(power: float) -> Floats:
        value = order**-power
        return value / value.sum()

    if ratio == 1.0 or n == 1:
        return np.full(n, k / n)
    high = 1.0
    while shares(high)[0] * n < ratio and high < 60:
        high *= 2
    from scipy import optimize  # slow to import

    power = optimize.brentq(lambda a: shares(a)[0] * n - ratio, 0.0, high, xtol=1e-14)
    return np.minimum(k * shares(float(power)), 1.0)


def routing(
    rng: np.random.Generator,
    tokens: int,
    rates: ArrayLike,
    *,
    layers: int | None = None,
    lengths: ArrayLike | None = None,
    correlation: float = 0.0,
    dtype: Any = np.int32,
) -> NDArray[Any]:
    """Experts that every token chooses in every layer: exact rates, distinct choices, documents that share routes.

    The form of vLLM's and SGLang's expert records: `choices[:, layer]` are `topk_ids` (tokens, k). Layers are independent.
    Tokens of one document may take the very same set, the price of exact rates and pair correlations.

    Args:
        rng: source of randomness.
        tokens: number of tokens, at least 1.
        rates: probability that a token chooses each expert, (experts,), or (layers, experts), each row summing to the same
            whole number k; see `skewed_rates`.
        layers: number of layers that share one row of rates; 1 unless given.
        lengths: tokens of each document, summing to tokens; one document unless given.
        correlation: in [0, 1], of two tokens of one document in taking an expert; 0 is independence.
        dtype: np.int16, np.int32 or np.int64.

    Returns:
        Whole numbers (tokens, layers, k), ascending within a token.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> rates = rt.tokens.skewed_rates(64, 6, 3.0)
        >>> choices = rt.tokens.routing(np.random.default_rng(0), 4096, rates, layers=2, lengths=[512] * 8, correlation=0.03)
        >>> choices.shape, choices.dtype.name, bool((np.diff(choices, axis=-1) > 0).all())
        ((4096, 2, 6), 'int32', True)
    """
    rng, s = arguments.generator("rng", rng), arguments.whole("tokens", tokens, 1, 2**40)
    kind = np.dtype(dtype)
    if kind not in (np.int16, np.int32, np.int64):
        raise ValueError(f"dtype = {kind.name} must be int16, int32 or int64")
    pi = arguments.probability("rates", rates)
    if pi.ndim not in (1, 2) or pi.size == 0:
        raise ValueError(f"rates has shape {pi.shape} but must be (experts,) or (layers, experts)")
    if layers is not None and pi.ndim == 2:
        raise ValueError(f"layers = {layers} must not be given with rates of {pi.shape[0]} layers")
    rows = (
        np.broadcast_to(pi, (arguments.whole("layers", 1 if layers is None else layers, 1), pi.size))
        if pi.ndim == 1
        else pi
    )
    if rows.shape[1] - 1 > np.iinfo(kind).max:
        raise ValueError(f"dtype = {kind.name} must hold {rows.shape[1]} experts")
    tops = {whole_rates(row)[1] for row in rows}
    if len(tops) > 1:
        raise ValueError(
            f"rates of the layers sum to {sorted(tops)} but must sum to one number, the choices of a token"
        )
    kappa, first = arguments.number("correlation", correlation, 0.0, 1.0), _documents(lengths, s)
    known: dict[bytes, Floats] = {}
    out = np.empty((s, rows.shape[0], tops.pop()), kind)
    for layer, row in enumerate(rows):
        key = row.tobytes()
        if key not in known:
            known[key] = _chances(row)
        source = _sources(rng, first, kappa)
        own = source == np.arange(s)
        fresh = _subsets(rng, int(own.sum()), known[key], kind)
        out[:, layer] = fresh[(np.cumsum(own) - 1)[source]]
    return out


def _documents(lengths: ArrayLike | None, tokens: int) -> Whole:
    """First token of each token's document."""
    size = np.array([tokens]) if lengths is None else arguments.integer("lengths", lengths, 0)
    if size.ndim != 1 or int(size.sum()) != tokens:
        raise ValueError(
            f"lengths sum to {int(size.sum())} over shape {size.shape} but must sum to tokens = {tokens} over one axis"
        )
    return np.repeat(np.cumsum(size) - size, size)


def _sources(rng: np.random.Generator, first: Whole, kappa: float) -> Whole:
    """The token whose set each token takes: itself, or in the end that of one before it in its document."""
    at = np.arange(first.size)
    if kappa <= 0:
        return at
    j = at - first
    copies = rng.random(first.size) * (1 - kappa + j * kappa) < j * kappa
    source = np.where(copies, first + rng.integers(0, np.maximum(j, 1)), at)
    while True:  # a copy of a copy: each step halves the way to the first
        further = source[source]
        if np.array_equal(further, source):
            return source
        source = further


def _chances(rates: Floats) -> Floats:
    """P(expert e is taken | r choices are left for experts e, e+1, ...), (experts, k + 1)."""
    weight = choice_weights(rates)
    top, sure = round(float(rates.sum())), np.isinf(weight)
    free = np.where(sure, 0.0, weight)
    rest = np.zeros((rates.size + 1, top + 1))  # symmetric polynomials of what comes after
    for e in range(rates.size + 1):
        rest[e] = symmetric(free[e:], top)
    left = np.append(np.cumsum(sure[::-1])[::-1], 0)  # sure ones still to come
    chance = np.zeros((rates.size, top + 1))
    for e in range(rates.size):
        if sure[e]:
            chance[e] = 1.0
            continue
        for r in range(1, top + 1):
            need = r - left[e]  # free choices left
            if need >= 1 and rest[e][need] > 0:
                chance[e, r] = free[e] * rest[e + 1][need - 1] / rest[e][need]
    return chance


def _subsets(rng: np.random.Generator, count: int, chance: Floats, kind: np.dtype[Any]) -> NDArray[Any]:
    """Sets of k experts: one pass over the experts, each taken or not given what is left to choose."""
    experts, top = chance.shape[0], chance.shape[1] - 1
    out = np.empty((count, top), kind)
    left = np.full(count, top)
    for e in range(experts):
        taken = np.flatnonzero(rng.random(count) < chance[e, left])
        out[taken, top - left[taken]] = e
        left[taken] -= 1
    return out
