"""The text of a log's audit: the conclusion in sentences, a row for each layer, then the laws and their errors."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from resonance_theory.audit.load_laws import LAWS
from resonance_theory.audit.log_result import LoadDrop, LogLayer, Remedy

__all__ = ["Report", "row", "text"]

CAUSES = {
    "none": "uniform, independent loads explain the drop",
    "skew": "some experts are chosen more than others",
    "dependence": "tokens of a block choose alike",
    "both": "some experts are chosen more than others, and tokens of a block choose alike",
    "unknown": "no law here explains the drop",
}
HELPS = {
    "shuffle": "tokens shuffled across the log",
    "balance": "equal shares (by a bias, an auxiliary loss or centring)",
    "replicas": "one spare copy for every eight experts, at the same number of slots",
}


class Report(Protocol):
    """What the text and the figures read of a report."""

    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def experts(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def factors(self) -> tuple[float, ...]: ...
    @property
    def factor(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def documents(self) -> int | None: ...
    @property
    def layers(self) -> tuple[LogLayer, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def text(report: Report, details: bool) -> str:
    """The lines, at most 100 columns."""
    lines = [_head(report), "", *_conclusion(report), "", *_layers(report)]
    if details:
        for layer in report.layers:
            lines += ["", *_details(layer, report)]
    lines += ["", *(_explained(details)), *(f"Note: {note.rstrip('.')}." for note in report.notes)]
    return "\n".join(part for line in lines for part in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    if len(line) <= 100 or line.startswith("  "):  # a sentence; not a row of a table
        return [line]
    return textwrap.wrap(line, 100, subsequent_indent="  " if line.startswith("- ") else "")


def row(layer: LogLayer, factor: float) -> dict[str, Any]:
    """A layer in one row: its drop, capacities, cause and what would help."""
    drop = next(d for d in layer.drops if d.factor == factor)
    error = layer.held_out.get(layer.best)
    return {
        "layer": layer.name,
        "factor": factor,
        "drop": drop.measured,
        "capacity": layer.capacity,
        "capacity_factor": layer.capacity_factor,
        "capacity_uniform": layer.capacity_uniform,
        "capacity_new": layer.capacity_new,
        "capacity_sure": layer.capacity_sure,
        "cause": layer.cause,
        "law": layer.best,
        "law_error": None if error is None else error.error,
        **{remedy.name: remedy.expected if remedy.drop is None else remedy.drop for remedy in layer.remedies},
    }


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    percent = 100 * value
    if 0 < percent < 0.005:
        return "<0.01"
    return f"{percent:.2f}" if percent < 9.995 else f"{percent:.1f}"


def _span(values: Sequence[float]) -> str:
    """The mean, and in brackets the range over layers."""
    mean = f"{_percent(float(np.mean(values)))} %"
    return mean if len(values) == 1 else f"{mean} ({_percent(min(values))} to {_percent(max(values))})"


# --- the conclusion ---------------------------------------------------------------------------------------------------


def _head(report: Report) -> str:
    blocks = report.layers[0].blocks
    cut = f"{blocks} blocks of" if report.kind == "choices" else f"{blocks} steps of up to"
    named = "" if report.documents is None else f", {report.documents} documents"
    count = len(report.layers)
    layers = "1 layer" if count == 1 else f"{count} layers"
    kind = f"{report.kind} of {layers}, {report.experts} experts, top-{report.top}"
    return f"{report.source}: {kind}; {cut} {report.block:,} tokens{named}"


def _conclusion(report: Report) -> Iterator[str]:
    layers = report.layers
    drops = [next(d for d in layer.drops if d.factor == report.factor) for layer in layers]
    yield (
        f"At capacity factor {report.factor:g}, {_span([d.measured for d in drops])} of the choices find no slot. "
        f"Uniform, independent loads would lose {_percent(_mean(drops, 'uniform'))} %{_parts(drops)}."
    )
    worst = max(layers, key=lambda layer: layer.capacity)
    top = max(layers, key=lambda layer: layer.capacity_new)
    yield (
        f"To lose at most {100 * report.loss:g} %, {worst.capacity} slots of an expert serve every layer (capacity factor "
        f"{worst.capacity_factor:.2f}, set by {worst.name}). Uniform loads would ask for {worst.capacity_uniform}. New data "
        f"of the same kind need {top.capacity_new} by the law. {_sure(report)}"
    )
    yield from _cause(report)
    yield from _help(report)


def _mean(drops: Sequence[LoadDrop], law: str) -> float:
    return float(np.mean([d.laws[law] for d in drops]))


def _parts(drops: Sequence[LoadDrop]) -> str:
    """What the skew of the shares adds to the uniform law, and what the dependence of the tokens adds to that."""
    skew = f"; unequal shares add {100 * (_mean(drops, 'shares') - _mean(drops, 'uniform')):.2f} points"
    if not all("over_dispersed" in d.laws for d in drops):
        return skew
    return f"{skew}, dependent tokens {100 * (_mean(drops, 'over_dispersed') - _mean(drops, 'shares')):.2f}"


def _sure(report: Report) -> str:
    sure = [layer.capacity_sure for layer in report.layers]
    known = [value for value in sure if value is not None]
    if len(known) < len(sure):
        need = int(np.ceil(report.confidence / (1 - report.confidence) * (1 - 1e-12)))
        return f"A guarantee for the next block at {100 * report.confidence:g} % confidence takes {need} blocks."
    return f"The next block needs at most {max(known)} in any one layer with {100 * report.confidence:g} % confidence."


def _cause(report: Report) -> Iterator[str]:
    counted = Counter(layer.cause for layer in report.layers)
    every = len(report.layers)
    said = [CAUSES[cause] + ("" if n == every else f" ({n} of {every} layers)") for cause, n in counted.most_common()]
    yield f"Cause: {'; '.join(said)}."
    errors = [layer.held_out for layer in report.layers if layer.held_out]
    if errors:
        names = [name for name in LAWS if all(name in found for found in errors)]
        parts = [f"{LAWS[name]} {_points(float(np.mean([e[name].error for e in errors])))}" for name in names]
        yield f"Errors of the laws' drop on data that they were not fitted to, in points: {'; '.join(parts)}."


def _points(value: float) -> str:
    return f"{100 * value:.2f}"


def _help(report: Report) -> Iterator[str]:
    if all(layer.cause == "none" for layer in report.layers):
        return
    now = float(np.mean([d.measured for layer in report.layers for d in layer.drops if d.factor == report.factor]))
    found = sorted((_remedy(report, name) for name in HELPS), key=lambda pair: pair[0])
    helps = [said for value, said in found if value < 0.9 * now]
    if helps:
        yield f"What would help, and the drop it leaves at capacity factor {report.factor:g}:"
        yield from (f"- {said}" for said in helps)
    rest = [said for value, said in found if value >= 0.9 * now]
    if rest:
        yield f"Of little help: {'; '.join(rest)}."


def _remedy(report: Report, name: str) -> tuple[float, str]:
    """The drop that a remedy leaves, a mean over layers, and how that is known."""
    found: list[Remedy] = [r for layer in report.layers for r in layer.remedies if r.name == name]
    measured = [r.drop for r in found if r.drop is not None]
    known = len(measured) == len(found)
    value = float(np.mean(measured if known else [r.expected for r in found]))
    errors = [r.error for r in found if r.error is not None]
    judged = f", {_points(float(np.mean(errors)))} points off on held-out data" if errors else ""
    how = "measured on the log" if known else "expected"
    return value, f"{HELPS[name]}: {_percent(value)} % ({how}; law: {found[0].law}{judged})"


# --- the layers -------------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for cells in rows:
        first, *rest = (c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths)))
        yield ("  " + "  ".join([first, *rest])).rstrip()


def _layers(report: Report) -> Iterator[str]:
    sure = f"{100 * report.confidence:g} % sure"
    rows: list[tuple[str, ...]] = [
        ("layer", *(f"at {f:g}" for f in report.factors[:5]), "C", "factor", "new", sure, "cause")
    ]
    for layer in report.layers:
        name = layer.name if len(layer.name) <= 20 else "..." + layer.name[-17:]
        certain = "-" if layer.capacity_sure is None else str(layer.capacity_sure)
        rows.append(
            (
                name,
                *(_percent(d.measured) for d in layer.drops[:5]),
                str(layer.capacity),
                f"{layer.capacity_factor:.2f}",
                str(layer.capacity_new),
                certain,
                layer.cause,
            )
        )
    yield from _columns(rows)


def _details(layer: LogLayer, report: Report) -> Iterator[str]:
    correlation = "unknown" if layer.correlation is None else f"{layer.correlation:.4f}"
    yield (
        f"{layer.name}: heaviest expert {layer.heaviest:.2f} times the mean, {layer.dead} never chosen; correlation "
        f"{correlation}; slowest expert of a block {layer.slowest:.2f} times the mean"
    )
    laws = [name for name in LAWS if name in layer.drops[0].laws]
    helps = [name for name in HELPS if name in layer.drops[0].remedies]
    rows: list[tuple[str, ...]] = [("  factor (C)", "measured, %", *(_short(n) for n in laws), *helps)]
    for d in layer.drops:
        error = "" if d.error is None else f" ± {_percent(d.error)}"
        values = (*(d.laws[name] for name in laws), *(d.remedies[name] for name in helps))
        rows.append((f"  {d.factor:g} ({d.capacity})", _percent(d.measured) + error, *(_percent(v) for v in values)))
    yield from _columns(rows)
    if layer.held_out:
        rows = [("  law, held out", "error", "bias", "worst", "its C", "drop there, %")]
        for name, found in layer.held_out.items():
            capacity = "-" if found.capacity is None else f"{found.capacity:.0f}"
            off = (_points(found.error), f"{100 * found.bias:+.2f}", _points(found.worst))
            rows.append((f"  {_short(name)}", *off, capacity, _percent(found.loss)))
        yield from _columns(rows)


def _short(law: str) -> str:
    return {"over_dispersed": "dependent", "shares": "shares"}.get(law, law)


def _explained(details: bool) -> Iterator[str]:
    yield (
        "at 1.25: % of the choices without a slot at that capacity factor. C: least slots of an expert for the loss asked "
        "for, and as a factor; new: for new data, by the law with measured shares and dependent tokens; sure: for the next "
        "block, whatever its law (an order statistic)."
    )
    if details:
        yield (
            "Laws: uniform; shares: independent tokens with the measured shares; dependent: beta-binomial with the "
            "measured shares and correlation. ±: standard error, blocks as independent. Held out: fitted on one half, "
            "judged on the other, in points of the drop."
        )
