"""Token distributions: a sampler and the exact law of each.

The generator is always the caller's (`numpy.random.Generator`), so streams stay addressable; tokens have unit noise
(sigma = 1) in every feature, so `signal` is the theory's theta/sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.gates import _sizes
from resonance_theory.rules import BetaBinomial, Blocks, Counts, Rates
from resonance_theory.tokens.planted import planted as planted_rates

__all__ = [
    "Dependent",
    "Planted",
    "PlantedSample",
    "isotropic",
    "isotropic_affinity",
    "planted",
    "planted_affinity",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class PlantedSample(NamedTuple):
    """A batch with one class-discriminative token in each sample.

    values: token vectors (samples, tokens, dim), or affinities (samples, tokens, experts).
    position, expert: shape (samples,), the discriminative token's position and the expert it belongs to.
    """

    values: Floats
    position: Integers
    expert: Integers


@dataclass(frozen=True)
class Planted:
    """Planted isotropic model: signal theta >= 0 along the gate of the token's class, unit Gaussian noise."""

    signal: float
    dim: int
    experts: int

    def __post_init__(self) -> None:
        arguments.keep_whole(self, 1, "dim", "experts")

    def sample(self, rng: np.random.Generator, samples: int, tokens: int) -> PlantedSample:
        """Token vectors, see `planted`."""
        return planted(rng, samples, tokens, self.dim, self.experts, self.signal)

    def affinity(self, rng: np.random.Generator, samples: int, tokens: int) -> PlantedSample:
        """Affinities alone, see `planted_affinity`."""
        return planted_affinity(rng, samples, tokens, self.dim, self.experts, self.signal)

    def rates(self, *, top: int = 1, capacity: int = 64) -> Rates:
        """The exact rates of these tokens, `Rates.planted` with as many nodes as capacities up to the given one need."""
        return planted_rates(self.signal, self.dim, self.experts, top=top, capacity=capacity)


@dataclass(frozen=True)
class Dependent:
    """Tokens that share routes, with one independent planted token in each sample; top-1 routing.

    Every other token is isotropic given its best expert, so its affinity percentile is uniform and independent of all
    routes. Runs of `length` consecutive ones take one expert, drawn with the shares `load` ((experts,), uniform unless
    given: skewed otherwise); with correlation > 0 (below 1) each sample first draws its own shares around these, from
    the Dirichlet law of that intra-sample correlation. With the defaults this is `Planted`.
    """

    signal: float
    dim: int
    experts: int
    length: int = 1
    correlation: float = 0.0
    load: Any = None

    def __post_init__(self) -> None:
        _signal(self.signal)
        arguments.keep_whole(self, 1, "dim", "experts", "length")
        arguments.number("correlation", self.correlation, 0.0, 1.0, open_high=True)
        if self.load is not None and arguments.distribution("load", self.load).shape != (self.experts,):
            raise ValueError(
                f"load has shape {np.shape(self.load)} but must be ({self.experts},), one share for each expert"
            )

    def counts(self) -> Counts:
        """How candidates depend on each other, `Blocks` or `BetaBinomial`; with both kinds at once there is no law."""
        if self.length > 1 and self.correlation > 0:
            raise ValueError(f"length = {self.length} must be 1, or correlation = {self.correlation} be 0, for a law")
        return BetaBinomial(self.correlation) if self.correlation > 0 else Blocks(self.length)

    def rates(self) -> Rates:
        """The exact rates of the planted token among these."""
        return planted_rates(self.signal, self.dim, self.experts).replace(counts=self.counts())

    def routes(self, rng: np.random.Generator, samples: int, tokens: int) -> Integers:
        """Experts of background tokens, (samples, tokens)."""
        rng, (samples, tokens) = arguments.generator("rng", rng), _shape(samples=samples, tokens=tokens)
        share = np.full(self.experts, 1 / self.experts) if self.load is None else np.asarray(self.load, np.float64)
        if self.correlation > 0:
            # a Dirichlet draw from gammas; an expert of share 0 stays without tokens
            gamma = rng.standard_gamma(share * (1 - self.correlation) / self.correlation, (samples, self.experts))
            share = gamma / np.maximum(gamma.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        runs = -(-tokens // self.length)
        edge = np.cumsum(np.broadcast_to(share, (samples, self.experts)), axis=-1)
        draw = rng.random((samples, runs)) * edge[:, -1:]  # the shares sum to 1 up to rounding
        expert = (draw[..., None] >= edge[:, None, :-1]).sum(axis=-1)
        return np.repeat(expert, self.length, axis=1)[:, :tokens]

    def background(self, rng: np.random.Generator, samples: int, tokens: int) -> Floats:
        """Affinities (samples, tokens, experts) of background tokens alone."""
        affinity = isotropic_affinity(rng, samples, tokens, self.dim, self.experts)
        return self._swap(affinity, affinity.argmax(axis=-1), self.routes(rng, samples, tokens))

    def affinity(self, rng: np.random.Generator, samples: int, tokens: int) -> PlantedSample:
        """Affinities (samples, tokens, experts) with the planted token at a uniform position among the others."""
        drawn = planted_affinity(rng, samples, tokens, self.dim, self.experts, self.signal)
        return self._reroute(rng, drawn, drawn.values.argmax(axis=-1), 1)

    def sample(self, rng: np.random.Generator, samples: int, tokens: int) -> PlantedSample:
        """The same as token vectors (samples, tokens, dim), for GrAP gates: experts must divide dim."""
        drawn = planted(rng, samples, tokens, self.dim, self.experts, self.signal)
        width = self.dim // self.experts
        sums = drawn.values.reshape(samples, tokens, self.experts, width).sum(axis=-1)
        return self._reroute(rng, drawn, sums.argmax(axis=-1), width)

    def _reroute(self, rng: np.random.Generator, drawn: PlantedSample, best: Integers, width: int) -> PlantedSample:
        samples, tokens = best.shape
        order = np.arange(tokens)
        route = best.copy()
        if tokens > 1:
            others = self.routes(rng, samples, tokens - 1)
            index = np.minimum(order - (order > drawn.position[:, None]), tokens - 2)
            route = np.where(order == drawn.position[:, None], best, np.take_along_axis(others, index, axis=1))
        values = self._swap(drawn.values.reshape(samples, tokens, self.experts, width), best, route)
        return drawn._replace(values=values.reshape(drawn.values.shape))

    @staticmethod
    def _swap(values: Floats, best: Integers, route: Integers) -> Floats:
        """Exchange each token's best expert with the one it is to take: isotropy makes all experts alike."""
        at = np.ogrid[: best.shape[0], : best.shape[1]]
        winner, other = values[at[0], at[1], best], values[at[0], at[1], route]
        values[at[0], at[1], best], values[at[0], at[1], route] = other, winner
        return values


def isotropic(rng: np.random.Generator, samples: int, tokens: int, dim: int) -> Floats:
    """Isotropic tokens: independent standard normal features, shape (samples, tokens, dim)."""
    return arguments.generator("rng", rng).standard_normal(_shape(samples=samples, tokens=tokens, dim=dim))


def isotropic_affinity(rng: np.random.Generator, samples: int, tokens: int, dim: int, experts: int) -> Floats:
    """Affinities (samples, tokens, experts) of isotropic tokens with any orthonormal gates, at a cost free of dim.

    The projections on the gates are standard normals, and the squared norm of what is left is an independent
    chi-square with dim - experts degrees of freedom. Needs experts <= dim (ValueError); GrAP's divisibility plays
    no part in the law.
    """
    projection, residual = _projections(rng, samples, tokens, dim, experts)
    return _cosine(projection, residual)


def planted(
    rng: np.random.Generator, samples: int, tokens: int, dim: int, experts: int, signal: float
) -> PlantedSample:
    """Planted tokens as vectors (samples, tokens, dim), for GrAP gates.

    In each sample one token, at a uniform position k, is discriminative: its class i is uniform and its vector is
    signal * w_i/|w_i| + z; every other token is z, with z standard normal. Source: ETR (setting of Definition 2).
    signal: theta >= 0. Raises ValueError where experts does not divide dim.
    """
    theta, (dim, experts) = _signal(signal), _sizes(dim, experts)
    x = isotropic(rng, samples, tokens, dim)
    position, expert = _plant(rng, samples, tokens, experts)
    width = dim // experts
    # The unit gate is sqrt(n/d) on block i.
    block = expert[:, None] * width + np.arange(width)
    x[np.arange(samples)[:, None], position[:, None], block] += theta / math.sqrt(width)
    return PlantedSample(x, position, expert)


def planted_affinity(
    rng: np.random.Generator, samples: int, tokens: int, dim: int, experts: int, signal: float
) -> PlantedSample:
    """Planted tokens as affinities (samples, tokens, experts): the law of `planted` at a cost free of dim.

    The signal adds to one gate projection and leaves the residual as it is; see `isotropic_affinity`. Exact for any
    orthonormal gates, experts <= dim.
    """
    theta = _signal(signal)
    projection, residual = _projections(rng, samples, tokens, dim, experts)
    position, expert = _plant(rng, samples, tokens, experts)
    projection[np.arange(samples), position, expert] += theta
    return PlantedSample(_cosine(projection, residual), position, expert)


def _projections(rng: np.random.Generator, samples: int, tokens: int, dim: int, experts: int) -> tuple[Floats, Floats]:
    """Projections on orthonormal gates (samples, tokens, experts), squared norm of the rest (samples, tokens)."""
    rng, shape = arguments.generator("rng", rng), _shape(samples=samples, tokens=tokens, dim=dim, experts=experts)
    if shape[3] > shape[2]:
        raise ValueError(f"experts = {experts} must be at most dim = {dim}: more gates cannot be orthogonal")
    projection = rng.standard_normal((*shape[:2], shape[3]))
    free = shape[2] - shape[3]
    return projection, rng.chisquare(free, shape[:2]) if free else np.zeros(shape[:2])


def _cosine(projection: Floats, residual: Floats) -> Floats:
    norm = np.sqrt(np.vecdot(projection, projection) + residual)
    projection /= norm[..., None]
    # As in the extractor: rounding must not push a cosine beyond 1.
    return np.clip(projection, -1.0, 1.0, out=projection)


def _plant(rng: np.random.Generator, samples: int, tokens: int, experts: int) -> tuple[Integers, Integers]:
    return rng.integers(tokens, size=samples), rng.integers(experts, size=samples)


def _signal(signal: Any) -> float:
    value = arguments.real("signal", signal, 0.0)
    if value.ndim:
        raise ValueError(f"signal has shape {value.shape} but must be one finite number of at least 0")
    return float(value)


def _shape(**sizes: Any) -> tuple[int, ...]:
    shape = tuple(arguments.whole(name, value, 1) for name, value in sizes.items())
    if math.prod(shape) > 2**40:
        listed = ", ".join(f"{name} = {value}" for name, value in zip(sizes, shape))
        raise ValueError(f"{listed} ask for {math.prod(shape)} numbers but must ask for at most 2^40")
    return shape
