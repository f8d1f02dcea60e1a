"""Replicas of heavy experts, and experts onto devices, so that the largest load falls.

The setting of EPLB (deepseek-ai/EPLB): r slots for n experts, each expert in one slot or more, its tokens spread evenly
over its slots; every device holds equally many slots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["Replicas", "least_largest", "place", "replicate"]

_MOST_EXACT = 24  # loads that are placed by integer programming


class Replicas(NamedTuple):
    """Slots, the expert of each and its share, and how many slots each expert has."""

    expert: Whole
    shares: Floats
    slots: Whole


def replicate(shares: ArrayLike, replicas: int) -> Replicas:
    """Give experts more slots, one by one to the one with the largest share per slot, as EPLB does.

    This makes the largest share per slot as small as it can be: a slot given elsewhere leaves the largest as it is.

    Args:
        shares: share of the choices of each expert, (experts,), summing to 1.
        replicas: slots in all, at least one for each expert.

    Example:
        >>> import resonance_theory as rt
        >>> given = rt.loads.replicate([0.5, 0.25, 0.125, 0.125], 6)
        >>> given.slots, float(given.shares.max())
        (array([3, 1, 1, 1]), 0.25)
    """
    p = _shares(shares)
    r = arguments.whole("replicas", replicas, p.size, 2**20)
    count = np.ones(p.size, np.int64)
    for _ in range(r - p.size):
        count[np.argmax(p / count)] += 1
    expert = np.repeat(np.arange(p.size), count)
    return Replicas(expert, (p / count)[expert], count)


def place(shares: ArrayLike, devices: int) -> Whole:
    """A device for each slot, equally many on each: the heaviest first, onto the lightest device with room, as EPLB packs.

    Greedy: at most 4/3 of the least largest share without the limit on slots; with it no such bound is claimed. Compare
    with `least_largest` where there are few slots.

    Args:
        shares: share of each slot, (slots,), summing to 1.
        devices: number of devices, which divides the slots.

    Example:
        >>> import resonance_theory as rt
        >>> rt.loads.place([0.4, 0.3, 0.2, 0.1], 2)
        array([0, 1, 1, 0])
    """
    p = _shares(shares)
    d = _devices(devices, p.size)
    device, load, room = np.empty(p.size, np.int64), np.zeros(d), np.full(d, p.size // d)
    for slot in np.argsort(-p, kind="stable"):
        at = int(np.argmin(np.where(room > 0, load, np.inf)))
        device[slot] = at
        load[at] += p[slot]
        room[at] -= 1
    return device


def least_largest(shares: ArrayLike, devices: int) -> float:
    """The least largest device share of all placements with equally many slots on each, by integer programming.

    At most 24 slots; `scipy.optimize.milp` to a relative gap of 1e-9.

    Example:
        >>> import resonance_theory as rt
        >>> round(rt.loads.least_largest([0.3, 0.3, 0.2, 0.2], 2), 9)
        0.5
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    p = _shares(shares)
    d = _devices(devices, p.size)
    if p.size > _MOST_EXACT:
        raise ValueError(f"shares has {p.size} slots but must have at most {_MOST_EXACT}: use place")
    if d == 1:
        return 1.0
    # x[slot, device] in {0, 1} and the largest share y, which is minimised
    once = np.hstack([np.kron(np.eye(p.size), np.ones(d)), np.zeros((p.size, 1))])
    many = np.hstack([np.tile(np.eye(d), p.size), np.zeros((d, 1))])
    load = np.hstack([np.kron(p, np.eye(d)), -np.ones((d, 1))])
    found = milp(
        np.append(np.zeros(p.size * d), 1.0),
        integrality=np.append(np.ones(p.size * d), 0),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(many, p.size // d, p.size // d),
            LinearConstraint(load, -np.inf, 0),
        ],
        options={"mip_rel_gap": 1e-9},
    )
    if not found.success:
        raise ValueError(f"shares were not placed: {found.message}")
    return float(found.fun)


def _shares(shares: ArrayLike) -> Floats:
    p = arguments.distribution("shares", shares)
    if p.ndim != 1:
        raise ValueError(f"shares has shape {p.shape} but must be (slots,)")
    return p


def _devices(devices: int, slots: int) -> int:
    d = arguments.whole("devices", devices, 1, slots, "slots")
    if slots % d:
        raise ValueError(f"devices = {d} must divide the {slots} slots")
    return d
