"""What an audit reports: frozen numbers, their JSON, and a table for the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MODELS", "Affinity", "AuditReport", "Drop", "Estimate", "HeldOut", "LayerAudit", "Need", "Routing"]

MODELS = {
    "uniform": "uniform",
    "measured_load": "meas. load",
    "beta_binomial": "beta-bin.",
    "blocks": "blocks",
}
"""The models of an expert's load, from the poorest, and what the table calls them."""


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error, by the jackknife over sequences.

    The error is None with a single sequence, and for a loss of 0, which says nothing about it; the value is NaN (None
    in the JSON) where nothing defines it: a mean over pairs of which there are none.
    """

    value: float
    error: float | None


@dataclass(frozen=True)
class Affinity:
    """Quantiles of the winning affinity; those of isotropic tokens and the Kolmogorov distance to them are None where
    the gates are not orthogonal, as their law needs."""

    levels: tuple[float, ...]
    measured: tuple[float, ...]
    isotropic: tuple[float, ...] | None
    kolmogorov: float | None


@dataclass(frozen=True)
class Drop:
    """Losses at one capacity factor: capacity C = ceil(factor * top * s / n) per expert and sequence.

    measured        fraction of (token, expert) candidates dropped, the same for token choice and resonance
    uniform         its prediction by binomial loads with every share top/n
    measured_load   by binomial loads with the measured shares
    beta_binomial   by beta-binomial loads with the measured shares and correlation; None with one sequence
    blocks          by runs of neighbours on one expert, of the measured variance; None with one sequence
    gaps            predicted less measured by model, with the jackknife error of that difference: the model is fitted
                    anew without each sequence, so that its own error counts, and what it shares with the measured cancels
    expert_choice   fraction of tokens that expert choice leaves to no expert at all
    expert_choice_isotropic  its limit for long isotropic sequences; None unless the gates are orthogonal
    """

    factor: float
    capacity: int
    measured: Estimate
    uniform: float
    measured_load: float
    beta_binomial: float | None
    blocks: float | None
    expert_choice: Estimate
    expert_choice_isotropic: float | None
    gaps: Mapping[str, Estimate]

    def covers(self, model: str) -> bool | None:
        """Whether a model's prediction is within three standard errors of the measured drop, the errors being those of
        their difference; None where it or the error is unknown."""
        gap = self.gaps.get(model)
        if gap is None or gap.error is None or self.measured.error is None:
            return None
        return bool(abs(gap.value) <= 3 * gap.error)


@dataclass(frozen=True)
class HeldOut:
    """A model fitted on one half of the sequences and judged on the other, averaged over splits and both directions.

    The over-dispersed ones allow for the error of the fitted shares, as `Need.advised` does. Standard errors are the
    jackknife's: each sequence is left out of all halves, fitted or judged (where tokens are centred, not of the half's mean).

    error, bias     mean of |predicted - measured| and of predicted - measured, over the capacity factors; error has its own
                    standard error, None with fewer than six sequences
    against         error less that of the binomial law with measured shares, and the standard error of this difference;
                    None for that law itself
    capacity, loss  the least capacity that the fitted model asks for, and the drop it has on the other half
    worst           the largest such drop
    """

    model: str
    error: Estimate
    bias: float
    against: Estimate | None
    capacity: float
    loss: float
    worst: float


@dataclass(frozen=True)
class Need:
    """Least capacity (tokens per expert and sequence) for the target loss.

    capacity, factor  measured; the same as a capacity factor, capacity * n / (top * s)
    low, high         range of the measured capacity when each sequence is left out in turn; None with one sequence
    uniform, measured_load, beta_binomial, blocks   what the laws of `Drop` ask for; None for expert choice
    advised   what the beta-binomial law asks for on new sequences, whose loads also differ from the estimated shares
    """

    capacity: int
    factor: float
    low: int | None
    high: int | None
    uniform: int | None = None
    measured_load: int | None = None
    beta_binomial: int | None = None
    blocks: int | None = None
    advised: int | None = None


@dataclass(frozen=True)
class Routing:
    """One layer routed by one set of gates, raw or centred (the mean token subtracted).

    load                    share of the candidates that each expert receives
    p_uniform, relabellings p value of the uniform load (`counts.relabelled`); None with one sequence
    total_variation         distance of the shares to uniform; `_chance`: expected if no expert were favoured
    heaviest, variation     largest share; coefficient of variation of the shares
    held_out_heaviest, held_out_capacity   the largest share and token choice's capacity when every sequence is centred
                            by the mean of the others, as in use; None for raw tokens and for one sequence
    cosine                  mean cosine of two tokens; within one sequence; of neighbours
    same_expert             neighbours with the same best expert; and if tokens were independent
    zero_tokens             tokens without a direction (affinity 0 with every gate)
    affinity                the winning affinities
    dispersion, correlation variance of the loads over the binomial one; intra-sequence correlation
    drops                   one for each capacity factor
    token_choice, resonance, expert_choice   the capacity each rule needs
    held_out, splits        the models on sequences they have not seen (centred tokens: with the mean of the fitted half),
                            and the number of splits; None and 0 with fewer than four sequences
    between_within          scatter of the best experts' tokens, between over within (ETR eq. 13)
    calinski_harabasz       the same with the usual (N-k)/(k-1); experts_used: k
    curve                   drop against capacity, for the figure
    """

    centred: bool
    load: tuple[Estimate, ...]
    p_uniform: float | None
    relabellings: int | None
    total_variation: Estimate
    total_variation_chance: float | None
    heaviest: Estimate
    variation: float
    held_out_heaviest: float | None
    held_out_capacity: int | None
    cosine: Estimate
    cosine_within: Estimate
    cosine_neighbours: Estimate
    same_expert: Estimate
    same_expert_independent: float
    zero_tokens: int
    affinity: Affinity
    dispersion: Estimate | None
    correlation: Estimate | None
    drops: tuple[Drop, ...]
    token_choice: Need
    resonance: Need
    expert_choice: Need
    held_out: tuple[HeldOut, ...] | None
    splits: int
    between_within: float | None
    calinski_harabasz: float | None
    experts_used: int
    curve: Mapping[str, Any]

    @property
    def name(self) -> str:
        return "centred" if self.centred else "raw"


@dataclass(frozen=True)
class LayerAudit:
    """One tensor: its shape, and its routings. between_within_isotropic: closed form for isotropic tokens."""

    name: str
    sequences: int
    tokens: int
    dim: int
    dtype: str
    between_within_isotropic: float | None
    routings: tuple[Routing, ...]


@dataclass(frozen=True)
class AuditReport:
    """The audit of a source. gates: "GrAP", "given", or "logits" (inner products with given gates);
    loss: the target of the capacities; ignored: (tensor, why)."""

    source: str
    gates: str
    experts: int
    top: int
    loss: float
    layers: tuple[LayerAudit, ...]
    ignored: tuple[tuple[str, str], ...]
    metadata: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; what is not available is None."""
        return {"format": "resonance-theory audit 1", **_plain(asdict(self))}

    def figure(self, target: Any) -> None:
        """Draw the loads and the drop curves. target: a path (.png, .svg, .pdf) or a binary stream, which gets SVG."""
        from resonance_theory.audit.figure import draw

        draw(self, target)

    def table(self) -> str:
        """Lines for a terminal, at most 100 columns."""
        kind = {"GrAP": "GrAP gates", "given": "given gates", "logits": "experts of a linear router"}[self.gates]
        gates = f"{self.experts} {kind}, top-{self.top}"
        lines = [f"{self.source}: {gates}, loss target {_percent(self.loss)} %"]
        if self.ignored:
            lines.append("not hidden states: " + "; ".join(f"{name!r} {why}" for name, why in self.ignored[:5]))
        for layer in self.layers:
            lines += ["", *_layer_lines(layer, self)]
        lines += ["", *_notes(self)]
        return "\n".join(line for text in lines for line in (textwrap.wrap(text, 100) if len(text) > 100 else [text]))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the table --------------------------------------------------------------------------------------------------------


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


def _loads(routing: Routing) -> str:
    shares = [100 * load.value for load in routing.load]
    if len(shares) <= 8:
        return " ".join(f"{v:.0f}" for v in shares)
    ordered = sorted(shares)  # too many for a line: least, quartiles, most
    return " ".join(f"{ordered[round(k * (len(ordered) - 1) / 4)]:.2f}" for k in range(5))


def _layer_lines(layer: LayerAudit, report: AuditReport) -> Iterator[str]:
    yield f"{layer.name}: {layer.sequences} x {layer.tokens} tokens of {layer.dim} features ({layer.dtype})"
    routings = layer.routings

    def row(name: str, *cells: str) -> tuple[str, ...]:
        return (name, *cells)

    def p_value(r: Routing) -> str:
        if r.p_uniform is None or r.relabellings is None:
            return "- (one sequence)"
        floor = 1 / (1 + r.relabellings)
        return f"{'<= ' if r.p_uniform <= floor else ''}{r.p_uniform:.4f}"

    def quantiles(r: Routing) -> str:
        return " ".join(f"{v:.3f}" for v in (r.affinity.measured[0], r.affinity.measured[2], r.affinity.measured[-1]))

    rows = [
        row("", *(r.name for r in routings)),
        row(
            "load per expert, %" if report.experts <= 8 else "load, %: least, quartiles, most",
            *(_loads(r) for r in routings),
        ),
        row(f"heaviest share (1/n = {1 / report.experts:.3f})", *(_with_error(r.heaviest) for r in routings)),
        row("total variation to uniform", *(_with_error(r.total_variation) for r in routings)),
        row(
            "  if no expert were favoured",
            *("-" if r.total_variation_chance is None else f"{r.total_variation_chance:.3f}" for r in routings),
        ),
        row("coefficient of variation", *(f"{r.variation:.3f}" for r in routings)),
        row("p, uniform load", *(p_value(r) for r in routings)),
        row("mean cosine", *(_with_error(r.cosine) for r in routings)),
        row("  of neighbours", *(_with_error(r.cosine_neighbours) for r in routings)),
        row("neighbours on one expert", *(_with_error(r.same_expert) for r in routings)),
        row("  if independent", *(f"{r.same_expert_independent:.3f}" for r in routings)),
        row(
            f"winning {'logit' if report.gates == 'logits' else 'affinity'} 5, 50, 95 %",
            *(quantiles(r) for r in routings),
        ),
    ]
    law = routings[0].affinity.isotropic
    if law is not None:
        text = " ".join(f"{v:.3f}" for v in (law[0], law[2], law[-1]))
        rows.append(row("  isotropic tokens", *(text for _ in routings)))
        rows.append(row("  Kolmogorov distance", *(f"{r.affinity.kolmogorov:.3f}" for r in routings)))
    if routings[0].dispersion is not None or routings[-1].dispersion is not None:
        rows.append(row("load variance / binomial", *(_with_error(r.dispersion, "{:.2f}") for r in routings)))
        rows.append(row("intra-sequence correlation", *(_with_error(r.correlation, "{:.4f}") for r in routings)))
    isotropic = layer.between_within_isotropic
    rows.append(
        row(
            "between/within scatter" + (f" (isotropic {isotropic:.4f})" if isotropic is not None else ""),
            *("-" if r.between_within is None else f"{r.between_within:.4f}" for r in routings),
        )
    )
    rows.append(
        row(
            "Calinski-Harabasz index",
            *("-" if r.calinski_harabasz is None else f"{r.calinski_harabasz:.1f}" for r in routings),
        )
    )
    yield from _columns(rows)
    for r in routings:
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
            yield from _columns(list(_held_out_rows(r.held_out, report)))
    if len(routings) == 2:
        before, after = (r.token_choice.capacity for r in routings)
        held_out = routings[1].held_out_capacity
        rest = "" if held_out is None else f"; to {held_out} with the mean of other sequences"
        yield ""
        yield f"  centring takes C from {before} to {after} ({100 * (after / before - 1):+.0f} %){rest}"


def _splits(count: int) -> str:
    return "1 split" if count == 1 else f"{count} splits"


def _drop_rows(r: Routing) -> Iterator[tuple[str, ...]]:
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


def _held_out_rows(held_out: tuple[HeldOut, ...], report: AuditReport) -> Iterator[tuple[str, ...]]:
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


def _notes(report: AuditReport) -> Iterator[str]:
    fewest = min(layer.sequences for layer in report.layers)
    yield (
        "measured: candidates turned away by token choice and by resonance (identical loads). Models of the load: "
        "uniform, meas. load: binomial with uniform and with the measured shares; beta-bin., blocks: these shares and the "
        "measured variance between sequences, spread over the whole sequence or over runs of neighbours. "
        "*: beyond three standard errors of the difference, the model fitted anew without each sequence. "
        "expert choice: tokens that no expert takes. Errors and biases are in % points."
    )
    if fewest == 1:
        yield "One sequence: no standard errors, no test of the load and no over-dispersion."
    else:
        few = f"; with {fewest} of them the errors themselves are rough" if fewest < 30 else ""
        yield (
            f"±: jackknife over sequences; (low-high): each sequence left out in turn. p: the experts of every sequence "
            f"relabelled at random, valid whatever depends on what inside a sequence, conservative for centred tokens. "
            f"Sequences count as independent{few}."
        )
    zero = sum(r.zero_tokens for layer in report.layers for r in layer.routings)
    if zero:
        yield f"{zero} tokens are zero: without a direction, they go to the first experts."
