"""Time of a training step as a function of expert capacity: an explicit α-β model, and what a published saving needs.

A collective takes latency α plus bytes over bandwidth β; matrix products take operations over sustained speed; copies take
bytes over memory bandwidth. Nothing overlaps unless `Hardware.overlap` says so. Times are in seconds, sizes in bytes.

Published values that this is for (ETR, arXiv 2406.00023): steps shorter by 5.4 % to 46.6 % on 32, 64 and 256 devices, against
top-1 routing with capacity factor 1.1. Values that the paper does not print are marked *assumed* below; `sensitivity` varies
them. Shares of a step and relative savings depend on few of them; absolute seconds are an estimate.

`resonance step-time FILE` writes the sensitivity table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.rules import Rates, token_choice

__all__ = [
    "SHAPES",
    "Hardware",
    "Model",
    "Shape",
    "StepTime",
    "largest_reduction",
    "required_cut",
    "required_share",
    "sensitivity",
    "step_time",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """Mixtral 8x7B (arXiv 2401.04088, table 1) with ETR's top-1 routing, sequence length and global batch."""

    dim: int = 4096
    hidden: int = 14336
    key_value_dim: int = 1024
    matrices: int = 3  # of an expert: gate, up, down
    experts: int = 8
    layers: int = 32
    top: int = 1
    tokens: int = 32768
    batch: int = 128  # sequences per step

    def __post_init__(self) -> None:
        arguments.keep_whole(self, 1, *vars(self))
        arguments.whole("top", self.top, 1, self.experts, "experts")


@dataclass(frozen=True)
class Shape:
    """Degrees of parallelism; expert parallelism lies inside data parallelism, so devices = tensor·pipeline·data."""

    tensor: int
    pipeline: int
    data: int
    expert: int = 2

    def __post_init__(self) -> None:
        arguments.keep_whole(self, 1, *vars(self))
        arguments.whole("expert", self.expert, 1, self.data, "data")

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data


# ETR, experimental setup (v4)
SHAPES: Mapping[int, Shape] = {32: Shape(4, 4, 2), 64: Shape(8, 4, 2), 256: Shape(8, 8, 4)}


@dataclass(frozen=True)
class Hardware:
    """One accelerator and its links. ETR (appendix) prints the first two and `node`; the rest is assumed."""

    flops: float = 313e12
    memory_bandwidth: float = 1.6e12
    efficiency: float = 0.4  # sustained fraction of `flops`
    node: int = 8  # devices of a server
    inside: float = 56e9  # bytes/s between two devices of a server
    between: float = 25e9  # bytes/s of a device to another server
    latency: float = 20e-6  # α of one collective
    width: int = 2  # bytes of a number
    overlap: float = 0.0  # fraction of all-to-all hidden behind computation
    fixed: float = 0.0  # seconds of a step that depend on nothing here (optimiser, input)

    def __post_init__(self) -> None:
        arguments.keep_whole(self, 1, "node", "width")
        for name in ("flops", "memory_bandwidth", "inside", "between"):
            arguments.number(name, getattr(self, name), 0.0, open_low=True)
        arguments.number("efficiency", self.efficiency, 0.0, 1.0, open_low=True)
        arguments.number("latency", self.latency, 0.0)
        arguments.number("overlap", self.overlap, 0.0, 1.0)
        arguments.number("fixed", self.fixed, 0.0)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by component, arrays of the capacity factor's shape; `padding` is the part of `expert` and
    `all_to_all` spent on empty slots (it is contained in them), `other` is attention and what is fixed."""

    affinity: Array
    selection: Array
    all_to_all: Array
    expert: Array
    other: Array
    padding: Array = field(repr=False)

    @property
    def total(self) -> Array:
        return self.affinity + self.selection + self.all_to_all + self.expert + self.other

    @property
    def capacity_share(self) -> Array:
        """Share of the step whose time follows the capacity: selection, all-to-all and expert networks."""
        return (self.selection + self.all_to_all + self.expert) / self.total


def step_time(
    capacity_factor: ArrayLike, shape: Shape, *, model: Model | None = None, hardware: Hardware | None = None
) -> StepTime:
    """Seconds of one training step at a capacity factor (any shape, > 0): every expert computes ⌈factor·top·s/n⌉ slots.

    Forward and backward: matrix products count three times, collectives and copies twice. The pipeline fills and drains:
    batch/data + pipeline - 1 micro-batches of one sequence. Slots beyond the kept tokens (claim loads) are padding.
    """
    factor = arguments.real("capacity_factor", capacity_factor, 0.0, open_low=True)
    m, h = model or Model(), hardware or Hardware()
    capacity = np.minimum(np.ceil(factor * m.top * m.tokens / m.experts), m.tokens)
    slots = capacity * m.experts
    speed = h.flops * h.efficiency * shape.tensor
    copies = h.memory_bandwidth * shape.tensor
    link = h.inside if shape.tensor * shape.expert <= h.node else h.between
    away = (shape.expert - 1) / shape.expert
    repeats = m.layers / shape.pipeline * (m.batch / shape.data + shape.pipeline - 1)

    one = np.ones_like(capacity)
    affinity = one * 2 * m.tokens * m.dim * h.width / copies  # GrAP reads each token once
    selection = 2 * 2 * slots * m.dim * h.width / copies  # kept tokens are gathered and put back
    exchange = 2 * 2 * (h.latency * (shape.expert > 1) + slots * m.dim * h.width / shape.tensor * away / link)
    exchange = exchange * (1 - h.overlap)
    expert = 3 * 2 * m.matrices * m.dim * m.hidden * slots / speed
    projections = 2 * m.dim * (2 * m.dim + 2 * m.key_value_dim) * m.tokens
    scores = 2 * m.tokens**2 * m.dim  # causal: half of 4 s² d
    other = one * 3 * (projections + scores) / speed + h.fixed / repeats
    kept = token_choice.kept(m.tokens, capacity.astype(np.int64), Rates(experts=m.experts, top=m.top))
    padding = np.maximum(1 - kept / capacity, 0.0) * (exchange + expert)
    parts = (affinity, selection, exchange, expert, other, padding)
    return StepTime(*(repeats * np.asarray(part, dtype=np.float64) for part in parts))


@arguments.broadcasting
def largest_reduction(share: ArrayLike, cut: ArrayLike) -> Array:
    """Most a step can shorten if a component of this share of it handles a fraction `cut` fewer slots: share·cut.

    It is reached by a component proportional to its slots; one with a fixed part saves less (Amdahl).
    """
    return arguments.probability("share", share) * arguments.probability("cut", cut)


@arguments.broadcasting
def required_share(reduction: ArrayLike, cut: ArrayLike) -> Array:
    """Least share of the step that the component must have; above 1 means that no share is enough."""
    with np.errstate(over="ignore"):  # infinite: no share is enough
        return arguments.probability("reduction", reduction) / arguments.real("cut", cut, 0.0, 1.0, open_low=True)


@arguments.broadcasting
def required_cut(reduction: ArrayLike, share: ArrayLike) -> Array:
    """Least fraction of slots that must go; above 1 means that even an empty component is not enough."""
    with np.errstate(over="ignore"):
        return arguments.probability("reduction", reduction) / arguments.real("share", share, 0.0, 1.0, open_low=True)


def sensitivity(
    factors: Sequence[float] = (1.1, 0.66, 0.44, 0.2, 0.065),
    *,
    efficiency: Sequence[float] = (0.2, 0.4, 0.6),
    slower_links: Sequence[float] = (1.0, 10.0),
    hardware: Hardware | None = None,
) -> list[dict[str, Any]]:
    """Rows: devices, efficiency, slower_links, capacity_factor, seconds, capacity_share, all_to_all_share, padding_share,
    reduction. Reductions are against the first capacity factor; links are `slower_links` times slower than assumed."""
    base, rows = hardware or Hardware(), []
    for devices, shape in SHAPES.items():
        for sustained in efficiency:
            for slower in slower_links:
                machine = replace(
                    base, efficiency=sustained, inside=base.inside / slower, between=base.between / slower
                )
                time = step_time(np.asarray(factors), shape, hardware=machine)
                for i, factor in enumerate(factors):
                    rows.append(
                        {
                            "devices": devices,
                            "efficiency": sustained,
                            "slower_links": slower,
                            "capacity_factor": factor,
                            "seconds": float(time.total[i]),
                            "capacity_share": float(time.capacity_share[i]),
                            "all_to_all_share": float(time.all_to_all[i] / time.total[i]),
                            "padding_share": float(time.padding[i] / time.total[i]),
                            "reduction": float(1 - time.total[i] / time.total[0]),
                        }
                    )
    return rows
