"""Audit of what a router logs: choices or counts in; drops, capacities, their cause and what would help out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.audit import log_table
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.audit.log_measure import Question, layers
from resonance_theory.audit.log_result import LogLayer
from resonance_theory.logs import RoutingLog
from resonance_theory.results import Result

__all__ = ["LogReport", "audit_log", "chosen_layers", "read_log"]


@dataclass(frozen=True, repr=False)
class LogReport(Result):
    """The audit of a routing log.

    Attributes:
        source: name of the file or "arrays"; kind: "choices" or "counts".
        experts, top: number of experts, and experts per token.
        block: tokens of a block of choices, or of the largest step.
        factors, loss, confidence: what was asked; factor: the capacity factor of the conclusion.
        documents: how many the log names, None where it does not.
        layers: one `LogLayer` for each.
        notes: what was left out, one sentence each.
    """

    source: str
    kind: str
    experts: int
    top: int
    block: int
    factors: tuple[float, ...]
    factor: float
    loss: float
    confidence: float
    documents: int | None
    layers: tuple[LogLayer, ...]
    notes: tuple[str, ...] = ()
    details: bool = False

    def summary(self) -> str:
        return (
            f"{self.source}, {len(self.layers)} layers, {self.experts} experts, top-{self.top}, blocks of {self.block}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers with version, commit and time; what is not available is None."""
        fields = {name: value for name, value in asdict(self).items() if name != "details"}
        return self.record("resonance-theory log audit 1", fields)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each layer: what the first table says."""
        return [log_table.row(layer, self.factor) for layer in self.layers]

    def table(self, details: bool | None = None) -> str:
        """Lines for a terminal, at most 100 columns: the conclusion, a row for each layer, and with details the laws."""
        return log_table.text(self, self.details if details is None else details)

    def plot(self, ax: Any = None) -> Any:
        """Draw measured drops and laws against the capacity factor, and return the Matplotlib Axes.

        Args:
            ax: axes to draw on; a new figure's unless given.
        """
        from resonance_theory.audit import log_figure

        return log_figure.plot(self, ax)

    def figure(self, target: Any) -> None:
        """Draw drops, shares, Lorenz curves and the slowest device. target: a path (.png, .svg, .pdf), or a binary
        stream, which gets SVG."""
        from resonance_theory.audit import log_figure

        log_figure.draw(self, target)


def audit_log(
    source: RoutingLog | str | Path,
    *,
    factors: Sequence[float] = (1.0, 1.1, 1.25, 1.5, 2.0),
    loss: float = 0.01,
    block: int | None = None,
    layers: Sequence[int | str] | None = None,
    confidence: float = 0.95,
    experts: int | None = None,
) -> LogReport:
    """Audit what a router logged, layer by layer.

    Every block of tokens shares its experts' slots: `block` consecutive tokens of a log of choices, or one step of a log
    of counts. Laws are fitted on one half of the log and judged on the other. Deterministic.

    Args:
        source: a `RoutingLog`, or a file that `rt.logs.recognise` reads.
        factors: capacity factors, positive; the slots of an expert are ceil(factor * top * tokens / experts).
        loss: in (0, 1), share of the choices that the capacities may drop.
        block: tokens of a block of choices; unless given a power of two that leaves 20 blocks, at most 4,096.
        layers: names or places of the layers to audit, all unless given.
        confidence: in (0, 1), of the capacity for the next block.
        experts: number of experts, for files that do not say it.

    Returns:
        The report: `table()`, `rows()`, `figure(path)`, `to_json()`.

    Raises:
        ValueError, TypeError, OSError: one sentence with the argument or file and what is allowed.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> rng = np.random.default_rng(0)
        >>> counts = rng.multinomial(1024, [0.4, 0.2, 0.2, 0.2], size=(64, 1))
        >>> log = rt.logs.RoutingLog(experts=4, counts=counts, tokens=np.full(64, 1024))
        >>> layer = rt.audit.audit_log(log).layers[0]
        >>> print(layer.cause, layer.capacity_uniform, layer.capacity, layer.capacity_new)
        skew 264 406 406
    """
    wanted = arguments.real("factors", factors, 0.0, open_low=True)
    if wanted.ndim != 1 or wanted.size == 0:
        raise ValueError(f"factors has shape {wanted.shape} but must be a list of at least one number")
    question = Question(
        factors=tuple(dict.fromkeys(wanted.tolist())),
        loss=arguments.number("loss", loss, 0.0, 1.0, open_low=True, open_high=True),
        confidence=arguments.number("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True),
    )
    log = read_log(source, experts, None)
    which = chosen_layers(log.source, log.layers, layers)
    blocks = LogBlocks.of(log, block)
    notes = list(log.notes)
    if blocks.padding:
        notes.append(f"{blocks.padding} tokens without a choice in any layer (padding) are left out")
    rest = 0 if log.choices is None else np.shape(blocks.log.choices)[0] - len(blocks.load) * blocks.block
    if rest:
        notes.append(f"{rest} tokens after the last whole block are left out")
    if len(blocks.load) < 4:
        notes.append(f"{len(blocks.load)} blocks are too few to judge laws on data that they have not seen")
    return LogReport(
        source=Path(log.source).name,
        kind="counts" if log.choices is None else "choices",
        experts=int(blocks.load.shape[2]),
        top=blocks.top,
        block=blocks.block,
        factors=question.factors,
        factor=question.factor,
        loss=question.loss,
        confidence=question.confidence,
        documents=None if blocks.log.documents is None else int(np.unique(np.asarray(blocks.log.documents)).size),
        layers=_measured(blocks, which, question),
        notes=tuple(notes),
    )


_measured = layers


def read_log(source: Any, experts: int | None, top: int | None) -> RoutingLog:
    """The log itself, or that of a file."""
    if isinstance(source, RoutingLog):
        for name, value, known in (("experts", experts, source.experts), ("top", top, source.top)):
            if value is not None and value != known:
                raise ValueError(f"{name} = {value!r} must be left out or be {known}, as the log says")
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"source is a {type(source).__name__} but must be a RoutingLog or the path of a file")
    from resonance_theory import logs

    return logs.read(source, experts=experts, top=top)


def chosen_layers(where: str, names: Sequence[str], layers: Sequence[int | str] | None) -> list[int]:
    """Places of the layers asked for by name or place, in order; ValueError where there is none such."""
    if layers is None:
        return list(range(len(names)))
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not len(layers):
        raise ValueError(f"layers = {layers!r} must be a list of at least one name or place")
    found = set()
    for wanted in layers:
        if isinstance(wanted, str) and wanted in names:
            found.add(list(names).index(wanted))
        elif isinstance(wanted, int | np.integer) and not isinstance(wanted, bool) and 0 <= wanted < len(names):
            found.add(int(wanted))
        else:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            last = len(names) - 1
            raise ValueError(f"layers: {wanted!r} of {where} must be a name ({some}) or a place between 0 and {last}")
    return sorted(found)
