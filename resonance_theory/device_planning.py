"""Experts on devices: a placement with spare copies, and how long the slowest device works on a router's own log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.audit.load_laws import BlockLoads
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.audit.logs import chosen_layers, read_log
from resonance_theory.loads import LargestLoad, place, replicate
from resonance_theory.logs import RoutingLog
from resonance_theory.results import Result

__all__ = ["DevicePlan", "LayerDevices", "plan_devices"]

_MOST = 2**16  # choices of a block for which the law of the largest load is summed

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class LayerDevices:
    """One layer: times of the slowest device over the mean device, means over blocks (1 is perfect balance).

    Attributes:
        name: of the layer.
        in_order: experts in order, without copies, on every log block.
        placed: with this placement, on the blocks that made it.
        independent: what `LargestLoad` expects of independent choices with these shares; None above 65,536 choices.
        held_out: on one half of the blocks, placed by the other, both ways; None with fewer than four blocks.
        worst: 95 % quantile over the blocks of `placed`.
        copies: (experts,) of each expert; slots: the experts of each device, as many on every one.
    """

    name: str
    in_order: float
    placed: float
    independent: float | None
    held_out: float | None
    worst: float
    copies: tuple[int, ...]
    slots: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, repr=False)
class DevicePlan(Result):
    """A placement for each layer. source: the log; devices, replicas: asked for; tokens: of a block; layers: the answers."""

    source: str
    devices: int
    replicas: int
    experts: int
    top: int
    tokens: int
    layers: tuple[LayerDevices, ...]

    def summary(self) -> str:
        return f"{self.source}, {self.devices} devices, {self.replicas} replicas"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each layer, without the placement."""
        return [{k: v for k, v in asdict(layer).items() if k not in ("copies", "slots")} for layer in self.layers]

    def to_json(self) -> dict[str, Any]:
        """The record with every placement."""
        return self.record("resonance-theory device plan 1", asdict(self))

    def table(self) -> str:
        """Lines for a terminal: the answer in a sentence, then each layer."""
        held = [layer.held_out for layer in self.layers]
        known = [value for value in held if value is not None]
        now = float(np.mean([layer.in_order for layer in self.layers]))
        then = float(np.mean(known if len(known) == len(held) else [layer.placed for layer in self.layers]))
        how = "on blocks that did not make the placement" if len(known) == len(held) else "on the blocks that made it"
        lines = [
            f"The slowest of {self.devices} devices works {then:.2f} times as long as the mean one with {self.replicas} "
            f"replicas, {how};",
            f"with experts in order and no replica {now:.2f} times.",
            f"{self.source}: {self.experts} experts, top-{self.top}, blocks of {self.tokens} tokens; "
            f"{(self.experts + self.replicas) // self.devices} slots on each device.",
            "",
            f"  {'layer':20}  in order  placed  held out  95 % of blocks  if independent  copied experts",
        ]
        for layer in self.layers:
            name = layer.name if len(layer.name) <= 20 else "..." + layer.name[-17:]
            extra = ", ".join(f"{e} x{c}" for e, c in enumerate(layer.copies) if c > 1) or "none"
            alone = "-" if layer.independent is None else f"{layer.independent:.2f}"
            kept = "-" if layer.held_out is None else f"{layer.held_out:.2f}"
            extra = extra if len(extra) <= 40 else extra[:37] + "..."
            lines.append(
                f"  {name:20}  {layer.in_order:8.2f}  {layer.placed:6.2f}  {kept:>8}  {layer.worst:14.2f}  "
                f"{alone:>14}  {extra}"
            )
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the slowest device of every layer; the Matplotlib Axes."""
        from resonance_theory import _style

        with _style.styled():
            ax = _style.canvas(6, 3.7)[1] if ax is None else ax
            at = np.arange(len(self.layers))
            values = {
                "in order, no replica": ([v.in_order for v in self.layers], _style.LOOK["token_choice"], "^"),
                "placed": ([v.placed for v in self.layers], _style.LOOK["resonance"], "s"),
                "placed, held out": (
                    [np.nan if v.held_out is None else v.held_out for v in self.layers], _style.LOOK["other"], "o",
                ),
            }  # fmt: skip
            for label, (value, look, marker) in values.items():
                ax.plot(at, value, label=label, marker=marker, markersize=4, **look)
            ax.axhline(1, **_style.LOOK["guide"])
            ax.set_ylim(0.95, 1.1 * max(max(v.in_order, v.placed) for v in self.layers))
            ax.set_xticks(np.unique(np.linspace(0, len(at) - 1, min(len(at), 9)).round()))
            ax.set_xlabel("layer")
            ax.set_ylabel("slowest device over the mean one")
            ax.set_title(f"{self.devices} devices, {self.replicas} replicas")
            ax.legend(loc="upper right", ncols=3)
        return ax

    def figure(self, target: Any) -> None:
        """Draw the answer into a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
        from resonance_theory import _style

        _style.file_kind(target)  # a bad ending is refused before the work
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
            self.plot(axes)
            _style.save(figure, target)


def _placed(load: Whole, devices: int, replicas: int) -> tuple[Whole, list[list[int]], Floats, Whole]:
    """Copies of each expert and the experts of each device; the slots' shares and devices, for the law."""
    slots = replicate(load / load.sum(), load.size + replicas)
    device = place(slots.shares, devices)
    return slots.slots, [slots.expert[device == d].tolist() for d in range(devices)], slots.shares, device


def _slowest(load: Whole, found: Whole, slots: Sequence[Sequence[int]]) -> Floats:
    """Time of the slowest device over the mean one, in each block; a copy takes an equal part of its expert's tokens."""
    each = load / found
    device = np.stack([each[:, list(experts)].sum(axis=1) for experts in slots], axis=1)
    return np.asarray(device.max(axis=1) / device.mean(axis=1))


def plan_devices(
    source: RoutingLog | str | Path,
    devices: int,
    replicas: int = 0,
    *,
    tokens: int | None = None,
    layers: Sequence[int | str] | None = None,
    experts: int | None = None,
    top: int | None = None,
) -> DevicePlan:
    """Place the experts of every layer on devices by a log's loads, and measure the slowest device on that log.

    Time counts as tokens: an expert's copies share them equally, and a step waits for the slowest device.

    Args:
        source: a `RoutingLog` or a file of one.
        devices: ranks of expert parallelism, a divisor of experts + replicas.
        replicas: spare copies of the experts that carry most.
        tokens: of a block of a log of choices; chosen as `audit_log` does unless given.
        layers: names or places, all unless given.
        experts, top: only if the file does not say them.

    Raises:
        ValueError, TypeError, OSError: one sentence with the argument or file and what is allowed.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> counts = np.random.default_rng(0).multinomial(1024, [0.4, 0.2, 0.2, 0.2], size=(64, 1))
        >>> log = rt.logs.RoutingLog(experts=4, counts=counts, tokens=np.full(64, 1024))
        >>> for replicas in (0, 2):
        ...     layer = rt.plan_devices(log, 2, replicas).layers[0]
        ...     print(f"{layer.in_order:.2f} {layer.placed:.2f} {layer.held_out:.2f} {layer.copies}")
        1.20 1.20 1.21 (1, 1, 1, 1)
        1.20 1.06 1.04 (3, 1, 1, 1)
    """
    log = read_log(source, experts, top)
    blocks = LogBlocks.of(log, tokens if log.choices is not None else None)
    if tokens is not None and log.choices is None:
        raise ValueError(f"tokens = {tokens!r} must be left out for a log of counts, whose blocks are its steps")
    n = blocks.load.shape[2]
    arguments.whole("devices", devices, 1, n, "experts")
    arguments.whole("replicas", replicas, 0, 10**4)
    if (n + replicas) % devices:
        raise ValueError(
            f"devices = {devices} must divide the {n} experts and {replicas} replicas: every device has as many slots"
        )
    which = chosen_layers(log.source, log.layers, layers)
    return DevicePlan(
        source=Path(log.source).name,
        devices=devices,
        replicas=replicas,
        experts=int(blocks.load.shape[2]),
        top=blocks.top,
        tokens=blocks.block,
        layers=tuple(_layer(blocks.layer(at), log.layers[at], devices, replicas) for at in which),
    )


def _layer(loads: BlockLoads, name: str, devices: int, replicas: int) -> LayerDevices:
    load = loads.load
    found, slots, shares, device = _placed(load.sum(axis=0), devices, replicas)
    order = np.array_split(np.arange(loads.experts), devices)
    time = _slowest(load, found, slots)
    judged = []
    if len(load) >= 4:
        for first in (np.arange(len(load)) % 2 == 0, np.arange(len(load)) % 2 == 1):
            judged.append(_slowest(load[~first], *_placed(load[first].sum(axis=0), devices, replicas)[:2]).mean())
    choices = loads.largest * loads.top
    law = LargestLoad(choices, shares, placement=device).slowdown() if choices <= _MOST else None
    return LayerDevices(
        name=name,
        in_order=float(_slowest(load, np.ones(loads.experts, np.int64), [part.tolist() for part in order]).mean()),
        placed=float(time.mean()),
        independent=law,
        held_out=float(np.mean(judged)) if judged else None,
        worst=float(np.quantile(time, 0.95)),
        copies=tuple(found.tolist()),
        slots=tuple(map(tuple, slots)),
    )
