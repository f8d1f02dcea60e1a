"""Capacity planning from measured loads: the slots that a router's own log, or its audit, calls for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.audit.load_laws import FittedLoads
from resonance_theory.audit.log_blocks import LogBlocks
from resonance_theory.audit.logs import chosen_layers, read_log
from resonance_theory.logs import RoutingLog
from resonance_theory.planning import affordable
from resonance_theory.results import Result
from resonance_theory.rules import BetaBinomial, Rates, Rule, resonance
from resonance_theory.rules import rule as rule_named
from resonance_theory.rules.dependence import INDEPENDENT

__all__ = ["LayerPlan", "LoadPlan", "plan_load"]


@dataclass(frozen=True)
class LayerPlan:
    """The answer for one layer.

    Attributes:
        name: of the layer; heaviest: its heaviest expert's share of the choices, times experts.
        correlation: of two tokens of a sample; 0 for independent ones.
        capacity, capacity_factor: least slots of an expert and sample for the target.
        drop: share of the choices that it loses.
        uniform_capacity: what uniform, independent loads would ask for; uniform_drop: what these slots would really lose.
    """

    name: str
    heaviest: float
    correlation: float
    capacity: int
    capacity_factor: float
    drop: float
    uniform_capacity: int
    uniform_drop: float


@dataclass(frozen=True, repr=False)
class LoadPlan(Result):
    """Capacities for measured loads.

    Attributes:
        source: the log or audit; rule, tokens, experts, top, target, percentile: the question.
        given: whether the correlation was given, not measured.
        measured_at: tokens of the samples in which the loads were measured.
        layers: one `LayerPlan` each; capacity, capacity_factor: enough for all of them.
    """

    source: str
    rule: str
    tokens: int
    experts: int
    top: int
    target: float
    percentile: float | None
    given: bool
    measured_at: int
    layers: tuple[LayerPlan, ...]

    @property
    def worst(self) -> LayerPlan:
        """The layer that needs most."""
        return max(self.layers, key=lambda layer: layer.capacity)

    @property
    def capacity(self) -> int:
        return self.worst.capacity

    @property
    def capacity_factor(self) -> float:
        return self.worst.capacity_factor

    def summary(self) -> str:
        return f"{self.source}, capacity {self.capacity} for a success rate of {self.target:g}"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each layer."""
        return [asdict(layer) for layer in self.layers]

    def to_json(self) -> dict[str, Any]:
        """The record, as its JSON Schema says."""
        answer = {"capacity": self.capacity, "capacity_factor": self.capacity_factor}
        return self.record("resonance-theory load plan 1", {**asdict(self), **answer})

    def table(self) -> str:
        """Lines for a terminal: the answer in a sentence, then each layer."""
        worst = self.worst
        what = "of the choices" if self.percentile is None else f"of the choices at percentile {self.percentile:g}"
        lines = [
            f"{worst.capacity} slots per expert (capacity factor {worst.capacity_factor:.3f}) keep "
            f"{100 * self.target:g} % {what}, by the loads of {self.source}.",
            f"Uniform, independent loads would ask for {worst.uniform_capacity}, which here lose "
            f"{100 * worst.uniform_drop:.2f} %.",
            f"Samples of {self.tokens} tokens, {self.experts} experts, top-{self.top}; {self._dependence()}.",
            "",
            f"  {'layer':20}  heaviest  correlation  slots  factor  lost, %  uniform asks  and loses, %",
        ]
        for p in self.layers:
            name = p.name if len(p.name) <= 20 else "..." + p.name[-17:]
            lines.append(
                f"  {name:20}  {p.heaviest:8.2f}  {p.correlation:11.4f}  {p.capacity:5}  {p.capacity_factor:6.3f}  "
                f"{100 * p.drop:7.2f}  {p.uniform_capacity:12}  {100 * p.uniform_drop:12.2f}"
            )
        return "\n".join(lines)

    def _dependence(self) -> str:
        if self.given:
            return "the correlation of tokens is the one given"
        if self.measured_at == self.tokens:
            return "shares and correlation of tokens are measured"
        return f"the correlation is that of samples of {self.measured_at} tokens, and differs in others"

    def plot(self, ax: Any = None) -> Any:
        """Draw the slots that each layer needs, beside what uniform loads would ask for; the Matplotlib Axes."""
        from resonance_theory import _style

        with _style.styled():
            ax = _style.canvas(6, 3.7)[1] if ax is None else ax
            place = np.arange(len(self.layers))
            look = {"color": _style.LOOK["expert_choice"]["color"], "edgecolor": "black", "linewidth": 0.5}
            ax.bar(
                place, [p.capacity for p in self.layers], label=f"for {100 * self.target:g} %, measured loads", **look
            )
            ax.axhline(self.worst.uniform_capacity, label="uniform, independent loads", **_style.LOOK["token_choice"])
            at = np.unique(np.linspace(0, len(place) - 1, min(len(place), 8)).round().astype(int))
            ax.set_xticks(at, [self.layers[k].name[-12:] for k in at], rotation=45, ha="right")
            ax.grid(False, axis="x")
            ax.set_ylim(0, 1.3 * self.capacity)
            ax.set_ylabel("slots per expert and sample")
            ax.set_title(f"s = {self.tokens} tokens, n = {self.experts} experts, top-{self.top}")
            ax.legend(loc="upper left")
        return ax

    def figure(self, target: Any) -> None:
        """Draw the answer into a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
        from resonance_theory import _style

        _style.file_kind(target)  # a bad ending is refused before the work
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
            self.plot(axes)
            _style.save(figure, target)


@dataclass(frozen=True)
class _Loads:
    """Fitted loads of one layer, in samples of so many tokens."""

    name: str
    law: FittedLoads
    tokens: int


def plan_load(
    source: RoutingLog | str | Path,
    *,
    rule: str | Rule = "token_choice",
    target: float = 0.99,
    tokens: int | None = None,
    correlation: float | None = None,
    percentile: float | None = None,
    layers: Sequence[int | str] | None = None,
    experts: int | None = None,
    top: int | None = None,
) -> LoadPlan:
    """Least capacity for the loads that a router logged.

    Loads are beta-binomial with the measured shares and correlation, allowing for the error of the shares: the law of new
    samples like the logged ones.

    Args:
        source: a `RoutingLog`, a file of one, or the record of an audit (`resonance audit FILE --json AUDIT.json`).
        rule: a rule in which tokens choose; what it drops is the same for all of them.
        target: success rate in (0, 1) of a choice, 1 less the drop.
        tokens: of a sample; those of the log's steps, or of the blocks that an audit would cut, unless given.
        correlation: of the tokens of a sample, in [0, 1], in place of the measured one.
        percentile: for resonance, the success rate of choices at this place among their expert's candidates, 0 best.
        layers: names or places of the layers, all unless given.
        experts, top: only if the file does not say them.

    Raises:
        ValueError, TypeError, OSError: one sentence with the argument or file and what is allowed.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> counts = np.random.default_rng(0).multinomial(1024, [0.4, 0.2, 0.2, 0.2], size=(64, 1))
        >>> log = rt.logs.RoutingLog(experts=4, counts=counts, tokens=np.full(64, 1024))
        >>> answer = rt.plan_load(log)
        >>> print(answer.capacity, answer.worst.uniform_capacity, f"{answer.worst.uniform_drop:.3f}")
        406 264 0.144
    """
    rule = rule_named(rule)
    if not rule.tokens_choose or rule.name == "adaptive":
        raise ValueError(
            f"rule = {rule.name!r} has no drop by load: its experts choose, or its capacity follows the load"
        )
    goal = arguments.number("target", target, 0.0, 1.0, open_low=True, open_high=True)
    if percentile is not None:
        arguments.number("percentile", percentile, 0.0, 1.0)
        if rule is not resonance:
            raise ValueError(
                f"percentile = {percentile!r} must not be given for {rule.name}, whose law does not depend on it"
            )
    size = None if tokens is None else arguments.whole("tokens", tokens, 1, 10**7)
    kappa = None if correlation is None else arguments.number("correlation", correlation, 0.0, 1.0)
    name, found = _loads(source, size, layers, experts, top)
    first = found[0]
    number = size or first.tokens
    answers = tuple(_layer(loads, rule, goal, number, kappa, percentile) for loads in found)
    return LoadPlan(
        source=name,
        rule=rule.name,
        tokens=number,
        experts=first.law.share.size,
        top=first.law.top,
        target=goal,
        percentile=percentile,
        given=kappa is not None,
        measured_at=first.tokens,
        layers=answers,
    )


def _layer(
    loads: _Loads, rule: Rule, goal: float, tokens: int, kappa: float | None, percentile: float | None
) -> LayerPlan:
    law, s = loads.law, np.array([tokens])
    if kappa is not None:
        law = FittedLoads(law.share, kappa, law.blocks, law.top)
    name = "shares" if not law.correlation else "over_dispersed"
    uniform = law.least("uniform", 1 - goal, s)
    if percentile is None:
        capacity = law.least(name, 1 - goal, s)
    else:
        kappa = law.correlation or 0.0
        spread = kappa * (tokens - 1) > 0.01  # else the variance is the binomial one to a hundredth
        rates = Rates(
            experts=law.share.size,
            top=law.top,
            load=np.minimum(law.share, 1.0),
            weight=law.share / law.share.sum(),
            percentile=percentile,
            counts=BetaBinomial(kappa) if spread else INDEPENDENT,
        )
        affordable(rule, tokens, rates, 1)
        capacity = int(rule.least_capacity(goal, tokens, rates))
    return LayerPlan(
        name=loads.name,
        heaviest=float(law.share.max() / law.share.mean()),
        correlation=law.correlation or 0.0,
        capacity=capacity,
        capacity_factor=capacity * law.share.size / (law.top * tokens),
        drop=law.drop(name, capacity, s),
        uniform_capacity=uniform,
        uniform_drop=law.drop(name, uniform, s),
    )


# --- where loads come from --------------------------------------------------------------------------------------------


def _loads(
    source: Any, tokens: int | None, layers: Sequence[int | str] | None, experts: int | None, top: int | None
) -> tuple[str, list[_Loads]]:
    record = _record(source)
    if record is not None:
        name = Path(source).name
        found = list(_of_record(record, name))
        for option, value, known in (("experts", experts, found[0].law.share.size), ("top", top, found[0].law.top)):
            if value is not None and value != known:
                raise ValueError(f"{option} = {value!r} must be left out or be {known}, as {name} says")
        return name, [found[k] for k in chosen_layers(name, [loads.name for loads in found], layers)]
    log = read_log(source, experts, top)
    blocks = LogBlocks.of(log, tokens if log.choices is not None else None)
    which = chosen_layers(log.source, log.layers, layers)
    found = []
    for at in which:
        loads = blocks.layer(at)
        found.append(_Loads(log.layers[at], FittedLoads.to(loads).for_new(loads.largest), loads.largest))
    return Path(log.source).name, found


def _record(source: Any) -> Mapping[str, Any] | None:
    """The record of an audit, if the file is one."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".json" or not Path(source).is_file():
        return None
    with open(source, encoding="utf-8", errors="replace") as file:
        if '"resonance-theory' not in file.read(200):  # `format` is the first field
            return None
        file.seek(0)
        try:
            record = json.load(file)
        except (ValueError, RecursionError):
            raise ValueError(f"{str(source)!r} is not complete JSON but must be the record of an audit") from None
    kind = str(record.get("format", "")) if isinstance(record, dict) else ""
    if not kind.startswith(("resonance-theory log audit", "resonance-theory audit")):
        raise ValueError(f"{str(source)!r} has the format {kind!r} but must be the record of an audit")
    return record


def _of_record(record: Mapping[str, Any], name: str) -> Iterator[_Loads]:
    try:
        top = int(record["top"])
        for layer in record["layers"]:
            if "routings" not in layer:
                yield _fitted(
                    layer["name"], layer["share"], layer["correlation"], layer["blocks"], layer["tokens"], top
                )
                continue
            for routing in layer["routings"]:
                called = f"{layer['name']} {'centred' if routing['centred'] else 'raw'}"
                kappa = routing["correlation"] and routing["correlation"]["value"]
                share = [part["value"] for part in routing["load"]]
                yield _fitted(called, share, kappa, layer["sequences"], layer["tokens"], top)
    except (KeyError, TypeError, IndexError) as problem:
        raise ValueError(
            f"{name!r} is no complete record of an audit: {problem!s} is missing or of another kind"
        ) from None


def _fitted(name: str, share: Any, kappa: float | None, blocks: int, tokens: int, top: int) -> _Loads:
    part = arguments.distribution("share", share)
    kappa = None if kappa is None else float(np.clip(arguments.number("correlation", kappa), 0.0, 1.0))
    size = arguments.whole("tokens", tokens, 1)
    law = FittedLoads(np.minimum(part * top, 1.0), kappa, arguments.whole("blocks", blocks, 1), top)
    return _Loads(str(name), law.for_new(size), size)
