"""The report of an audit: its layers, and how they are shown and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resonance_theory.audit import figure
from resonance_theory.audit.result import LayerAudit
from resonance_theory.audit.table import text, verdict
from resonance_theory.results import Result

__all__ = ["AuditReport"]


@dataclass(frozen=True, repr=False)
class AuditReport(Result):
    """The audit of a source. gates: "GrAP", "given", or "logits" (inner products with given gates);
    loss: the target of the capacities; ignored: (tensor, why); details: whether
    its text has every number."""

    source: str
    gates: str
    experts: int
    top: int
    loss: float
    layers: tuple[LayerAudit, ...]
    ignored: tuple[tuple[str, str], ...]
    metadata: Mapping[str, str]
    details: bool = False

    def summary(self) -> str:
        return f"{self.source}, {len(self.layers)} layers, {self.experts} experts, top-{self.top}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers with version, commit and time; what is not available is None."""
        return self.record("resonance-theory audit 1", {k: v for k, v in asdict(self).items() if k != "details"})

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each layer and routing: what the first table says."""
        return [verdict(layer, routing) for layer in self.layers for routing in layer.routings]

    def table(self, details: bool | None = None) -> str:
        """Lines for a terminal, at most 100 columns: the conclusion, and with details every number behind it."""
        return text(self, self.details if details is None else details)

    def plot(self, ax: Any = None) -> Any:
        """Draw the measured drops against the capacity factor, and return the Matplotlib Axes.

        Args:
            ax: axes to draw on; a new figure's unless given.
        """
        return figure.plot(self, ax)

    def figure(self, target: Any) -> None:
        """Draw the loads and the drop curves. target: a path (.png, .svg, .pdf) or a binary stream, which gets SVG."""
        figure.draw(self, target)
