"""The text of an audit: first its conclusion, then, if asked for, every number behind it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from resonance_theory.audit.result import MODELS, Drop, Estimate, HeldOut, LayerAudit, LayerRouting, Need

__all__ = ["Report", "text", "verdict"]

FACTOR = 1.25  # the capacity factor of the conclusion, or the audited one nearest to it

REPEATED = 0.02  # share of tokens equal to the one before from which the text says so
CONCLUSION = (
    "C: least slots of an expert for the target, and as a factor; new data: with the error of the shares. Cause: of C "
    "beyond that of uniform, independent tokens, if a tenth or more; each cause has a quarter of it or more. To centre: "
    "subtract the mean token. To pool slots: one capacity for the tokens of several sequences."
)


class Report(Protocol):
    """What the text and the figures read of a report."""

    @property
    def source(self) -> str: ...
    @property
    def gates(self) -> str: ...
    @property
    def experts(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def layers(self) -> tuple[LayerAudit, ...]: ...
    @property
    def ignored(self) -> tuple[tuple[str, str], ...]: ...


def text(report: Report, details: bool) -> str:
    """The lines, at most 100 columns."""
    kind = {"GrAP": "GrAP gates", "given": "given gates", "logits": "experts of a linear router"}[report.gates]
    gates = f"{report.experts} {kind}, top-{report.top}"
    lines = [f"{report.source}: {gates}, loss target {_percent(report.loss)} %"]
    if report.ignored:
        lines.append("not hidden states: " + "; ".join(f"{name!r} {why}" for name, why in report.ignored[:5]))
    lines += ["", *_conclusion(report), ""]
    if details:
        for layer in report.layers:
            lines += [*_layer_lines(layer, report), ""]
    lines += _notes(report) if details else (CONCLUSION, *_warnings(report))
    return "\n".join(line for row in lines for line in (textwrap.wrap(row, 100) if len(row) > 100 else [row]))


# --- the conclusion ---------------------------------------------------------------------------------------------------


def verdict(layer: LayerAudit, routing: LayerRouting) -> dict[str, Any]:
    """A layer's routing in one row: its drop, the capacities that it needs, why, and what helps."""
    drop = min(routing.drops, key=lambda d: abs(d.factor - FACTOR))
    need, cause = routing.token_choice, _cause(routing.token_choice)
    return {
        "layer": layer.name,
        "tokens": routing.name,
        "factor": drop.factor,
        "drop": drop.measured.value,
        "capacity": need.capacity,
        "capacity_factor": need.factor,
        "capacity_new": need.advised,
        "cause": cause,
        "helps": _helps(layer, routing, cause),
    }


def _cause(need: Need) -> str:
    """What the models say of the capacity above that of uniform loads: a cause counts with a quarter of the excess."""
    uniform, loaded = need.uniform, need.measured_load
    assert uniform is not None
    assert loaded is not None
    whole = need.capacity if need.beta_binomial is None else need.beta_binomial
    if 10 * (whole - uniform) < uniform:
        return "none"
    skew, dependence = loaded - uniform, whole - loaded
    if need.beta_binomial is None:  # one sequence cannot tell how dependent its tokens are
        return "skew" if 2 * skew >= whole - uniform else "unknown"
    return "both" if min(skew, dependence) * 4 >= skew + dependence else "skew" if skew > dependence else "dependence"


def _helps(layer: LayerAudit, routing: LayerRouting, cause: str) -> str:
    centred = next((r.token_choice.capacity for r in layer.routings if r.centred and not routing.centred), None)
    advice = []
    if cause in ("skew", "both"):
        better = centred is not None and centred < routing.token_choice.capacity
        advice.append("centre" if better else "balance loads")
    if cause in ("dependence", "both"):
        advice.append("pool slots")
    return ", ".join(advice) or ("more sequences" if cause == "unknown" else "-")


def _conclusion(report: Report) -> Iterator[str]:
    verdicts = [verdict(layer, routing) for layer in report.layers for routing in layer.routings]
    rows = [("layer", "tokens", f"drop at {verdicts[0]['factor']:g}", "C", "new data", "cause", "what helps")]
    for v in verdicts:
        name = v["layer"] if len(v["layer"]) <= 32 else "..." + v["layer"][-29:]
        new = "-" if v["capacity_new"] is None else str(v["capacity_new"])
        capacity = f"{v['capacity']} ({v['capacity_factor']:.2f})"
        rows.append((name, v["tokens"], f"{_percent(v['drop'])} %", capacity, new, v["cause"], v["helps"]))
    yield from _columns(rows, gap=2)


# --- every number -----------------------------------------------------------------------------------------------------


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    percent = 100 * value
    if 0 < percent < 0.005:
        return "<.01"
    return f"{percent:.2f}" if percent < 9.995 else f"{percent:.1f}"


def _with_error(estimate: Estimate | None, style: str = "{:.3f}") -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return "-"
    error = "" if estimate.error is None else f" ± {style.format(estimate.error)}"
    return style.format(estimate.value) + error


def _percent_error(estimate: Estimate) -> str:
    if estimate.value == 0:
        return "0"
    return _percent(estimate.value) + ("" if estimate.error is None else f" ± {_percent(estimate.error)}")


def _columns(rows: Sequence[tuple[str, ...]], gap: int = 3) -> Iterator[str]:
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    for row in rows:
        first, *rest = (cell.ljust(widths[k]) if k == 0 else cell.rjust(widths[k]) for k, cell in enumerate(row))
        yield ("  " + (" " * gap).join([first, *rest])).rstrip()


def _loads(routing: LayerRouting) -> str:
    shares = [100 * load.value for load in routing.load]
    if len(shares) <= 8:
        return " ".join(f"{v:.0f}" for v in shares)
    ordered = sorted(shares)  # too many for a line: least, quartiles, most
    return " ".join(f"{ordered[round(k * (len(ordered) - 1) / 4)]:.2f}" for k in range(5))


def _layer_lines(layer: LayerAudit, report: Report) -> Iterator[str]:
    yield f"{layer.name}: {layer.sequences} x {layer.tokens} tokens of {layer.dim} features ({layer.dtype})"
    rows = [(label, [value(r) for r in layer.routings]) for label, value in _values(layer, report)]
    yield from _columns([("", *(r.name for r in layer.routings)), *((label, *cells) for label, cells in rows)])
    for r in layer.routings:
        yield from _routing_lines(r, layer, report)
    if len(layer.routings) == 2:
        before, after = (r.token_choice.capacity for r in layer.routings)
        held_out = layer.routings[1].held_out_capacity
        rest = "" if held_out is None else f"; to {held_out} with the mean of other sequences"
        yield ""
        yield f"  centring takes C from {before} to {after} ({100 * (after / before - 1):+.0f} %){rest}"


def _number(value: float | None, style: str = "{:.3f}") -> str:
    return "-" if value is None else style.format(value)


def _three(values: Sequence[float]) -> str:
    return " ".join(f"{v:.3f}" for v in (values[0], values[2], values[-1]))


def _p_value(r: LayerRouting) -> str:
    if r.p_uniform is None or r.relabellings is None:
        return "- (one sequence)"
    return f"{'<= ' if r.p_uniform <= 1 / (1 + r.relabellings) else ''}{r.p_uniform:.4f}"


def _values(layer: LayerAudit, report: Report) -> list[tuple[str, Callable[[LayerRouting], str]]]:
    """What each row is called, and its text for a routing."""
    first = layer.routings[0]
    law, scatter = first.affinity.isotropic, layer.between_within_isotropic
    rows: list[tuple[str, Callable[[LayerRouting], str]]] = [
        ("load per expert, %" if report.experts <= 8 else "load, %: least, quartiles, most", _loads),
        (f"heaviest share (1/n = {1 / report.experts:.3f})", lambda r: _with_error(r.heaviest)),
        ("total variation to uniform", lambda r: _with_error(r.total_variation)),
        ("  if no expert were favoured", lambda r: _number(r.total_variation_chance)),
        ("coefficient of variation", lambda r: _number(r.variation)),
        ("p, uniform load", _p_value),
        ("mean cosine", lambda r: _with_error(r.cosine)),
        ("  of neighbours", lambda r: _with_error(r.cosine_neighbours)),
        ("neighbours on one expert", lambda r: _with_error(r.same_expert)),
        ("  if independent", lambda r: _number(r.same_expert_independent)),
        (
            f"winning {'logit' if report.gates == 'logits' else 'affinity'} 5, 50, 95 %",
            lambda r: _three(r.affinity.measured),
        ),
    ]
    if law is not None:
        rows += [
            ("  isotropic tokens", lambda r: _three(law)),
            ("  Kolmogorov distance", lambda r: _number(r.affinity.kolmogorov)),
        ]
    if any(r.dispersion is not None for r in layer.routings):
        rows += [
            ("load variance / binomial", lambda r: _with_error(r.dispersion, "{:.2f}")),
            ("intra-sequence correlation", lambda r: _with_error(r.correlation, "{:.4f}")),
        ]
    isotropic = "" if scatter is None else f" (isotropic {scatter:.4f})"
    return [
        *rows,
        (f"between/within scatter{isotropic}", lambda r: _number(r.between_within, "{:.4f}")),
        ("Calinski-Harabasz index", lambda r: _number(r.calinski_harabasz, "{:.1f}")),
    ]


def _routing_lines(r: LayerRouting, layer: LayerAudit, report: Report) -> Iterator[str]:
    yield ""
    yield f"  {r.name}: drop in %, and the least capacity C for at most {_percent(report.loss)} %"
    yield from _columns(list(_drop_rows(r)), gap=2)
    t = r.token_choice
    if t.uniform is not None and t.measured_load is not None and t.beta_binomial is not None:
        yield (
            f"    of C: {t.uniform} uniform and independent, {t.measured_load - t.uniform:+d} skewed load, "
            f"{t.beta_binomial - t.measured_load:+d} dependent tokens, {t.capacity - t.beta_binomial:+d} unexplained"
        )
    if t.advised is not None:
        yield f"    for new sequences: C = {t.advised} (beta-binomial, shares known from {layer.sequences} sequences)"
    if r.held_out is not None:
        yield f"  {r.name}: the same models on sequences they have not seen (half fitted, half judged, {_splits(r.splits)})"
        yield from _columns(list(_held_out_rows(r.held_out)))


def _splits(count: int) -> str:
    return "1 split" if count == 1 else f"{count} splits"


def _drop_rows(r: LayerRouting) -> Iterator[tuple[str, ...]]:
    yield ("  factor (C)", "measured", *MODELS.values(), "expert choice", "isotropic")

    def prediction(d: Drop, model: str) -> str:
        return _percent(getattr(d, model)) + ("*" if d.covers(model) is False else " ")

    for d in r.drops:
        yield (
            f"  {d.factor:g} ({d.capacity})",
            _percent_error(d.measured),
            *(prediction(d, model) for model in MODELS),
            _percent_error(d.expert_choice),
            _percent(d.expert_choice_isotropic),
        )
    t, e = r.token_choice, r.expert_choice
    asked = ("-" if value is None else f"{value} " for value in (getattr(t, model) for model in MODELS))
    yield ("  least C", _range(t), *asked, _range(e), "")
    yield ("  as a factor", f"{t.factor:.2f}", "", "", "", "", f"{e.factor:.2f}", "")


def _held_out_rows(held_out: tuple[HeldOut, ...]) -> Iterator[tuple[str, ...]]:
    yield ("  model", "error of the drop", "less meas. load's", "bias", "its C", "drop there", "worst")
    for h in held_out:
        yield (
            f"  {MODELS[h.model]}",
            _points(h.error, ""),
            "" if h.against is None else _points(h.against, "+"),
            f"{100 * h.bias:+.2f}",
            f"{h.capacity:.1f}",
            _percent(h.loss),
            _percent(h.worst),
        )


def _points(estimate: Estimate, sign: str) -> str:
    error = "" if estimate.error is None else f" ± {100 * estimate.error:.2f}"
    return f"{100 * estimate.value:{sign}.2f}{error}"


def _range(need: Need) -> str:
    return str(need.capacity) + ("" if need.low is None else f" ({need.low}-{need.high})")


def _notes(report: Report) -> Iterator[str]:
    fewest = min(layer.sequences for layer in report.layers)
    yield (
        "measured: candidates turned away by token choice and by resonance (identical loads). Models of the load: "
        "uniform, meas. load: binomial with uniform and with the measured shares; beta-bin., blocks: these shares and the "
        "measured variance between sequences, spread over the whole sequence or over runs of neighbours. "
        "*: beyond three standard errors of the difference, the model fitted anew without each sequence. "
        "expert choice: tokens that no expert takes. Errors and biases are in % points."
    )
    if fewest > 1:
        few = f"; with {fewest} of them the errors themselves are rough" if fewest < 30 else ""
        yield (
            f"±: jackknife over sequences; (low-high): each sequence left out in turn. p: the experts of every sequence "
            f"relabelled at random, valid whatever depends on what inside a sequence, conservative for centred tokens. "
            f"Sequences count as independent{few}."
        )
    yield from _warnings(report)


def _warnings(report: Report) -> Iterator[str]:
    if min(layer.sequences for layer in report.layers) == 1:
        yield "One sequence: no standard errors, no test of the load and no over-dispersion."
    for layer in report.layers:
        share = layer.repeated / (layer.sequences * layer.tokens)
        if share >= REPEATED:
            yield (
                f"{layer.name}: {100 * share:.0f} % of its tokens equal the one before them. If that is padding, audit "
                "without it: equal tokens take one expert, and the capacities here are theirs."
            )
    zero = sum(r.zero_tokens for layer in report.layers for r in layer.routings)
    if zero:
        yield f"{zero} tokens are zero: without a direction, they go to the first experts."
