"""Capacity planning: the least capacity that reaches a success rate, and what it costs.

One routing rule, one setting, one answer; the arithmetic is that of the exact laws. The adaptive rule has no capacity: its
answer is the least share of the affinity, and the number of tokens that it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.results import Result
from resonance_theory.rules import BetaBinomial, Blocks, Counts, Rule, adaptive, resonance, token_choice
from resonance_theory.rules import rule as rule_named
from resonance_theory.rules.dependence import INDEPENDENT
from resonance_theory.tokens import Rates

__all__ = ["AdaptivePlan", "Plan", "affordable", "plan", "setting"]

FORMAT = "plan 1"
# binomial tails that an answer may take: some seconds of one core
_TAILS = 1 << 23


class _Answer(Result):
    """What both kinds of plan share: their picture, and their rows."""

    def _draw(self, axes: Any) -> None:
        raise NotImplementedError

    def plot(self, ax: Any = None) -> Any:
        """Draw the answer and return the Matplotlib Axes; `ax`: where, a new figure's unless given."""
        from resonance_theory import _style

        with _style.styled():
            ax = _style.canvas(6, 3.7)[1] if ax is None else ax
            self._draw(ax)
        return ax

    def figure(self, target: Any) -> None:
        """Draw the answer into a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
        from resonance_theory import _style

        _style.file_kind(target)  # a bad ending is refused before the work
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
            self._draw(axes)
            _style.save(figure, target)

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of the answer, in one row."""
        return [{name: value for name, value in self.fields().items() if name != "curve"}]

    def fields(self) -> dict[str, Any]:
        """Names and values of the answer."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The record, as its JSON Schema says."""
        return self.record(FORMAT, self.fields())


@dataclass(frozen=True, repr=False)
class Plan(_Answer):
    """The answer to one planning question.

    Attributes:
        capacity: least tokens per expert and sample with success >= target.
        capacity_factor: capacity * experts / (top * tokens); 1 is a perfectly balanced full load.
        success: success rate at that capacity; success_below: at one token less.
        drop: share of routed tokens that find no place; None for expert choice, where experts choose.
        token_choice: capacity that token choice needs for the same target, None where it cannot reach it.
        curve: capacities and success rates around the answer, for a plot.
        counts: how tokens depend on each other, in words.
        independent: capacity that the rule would need if tokens were independent, None if they are.
    """

    rule: str
    tokens: int
    experts: int
    top: int
    target: float
    hit: float
    capacity: int
    capacity_factor: float
    success: float
    success_below: float
    drop: float | None
    kept: float
    token_choice: int | None
    curve: tuple[tuple[int, float], ...]
    counts: str | None = None
    independent: int | None = None

    @property
    def saving(self) -> float | None:
        """Fraction of token choice's capacity that this rule saves (negative: it needs more)."""
        return None if self.token_choice is None else 1.0 - self.capacity / self.token_choice

    def fields(self) -> dict[str, Any]:
        return {**asdict(self), "saving": self.saving}

    def summary(self) -> str:
        return f"{self.rule}, capacity {self.capacity} for a success rate of {self.target:g}"

    def table(self) -> str:
        """Lines for a terminal."""
        rows = [
            ("rule", rule_named(self.rule).title),
            ("tokens, experts, top", f"{self.tokens}, {self.experts}, {self.top}"),
            ("dependence", "none: uniform loads, independent tokens (assumed)" if self.counts is None else self.counts),
            ("target success", f"{self.target:.6g}  (hit rate {self.hit:.6g})"),
            ("least capacity", f"{self.capacity}  tokens per expert"),
            ("capacity factor", f"{self.capacity_factor:.4g}"),
            ("success", f"{self.success:.10g}  (one token less: {self.success_below:.10g})"),
            ("tokens kept", f"{self.kept:.6g}  expected per expert"),
        ]
        if self.drop is not None:
            rows.append(("drop rate", f"{100 * self.drop:.4g} %"))
        if self.counts is not None:
            value = "cannot reach the target" if self.independent is None else str(self.independent)
            rows.append(("if independent", value))
        if self.rule != "token_choice":
            value = "cannot reach the target" if self.token_choice is None else str(self.token_choice)
            rows.append(("token choice needs", value))
            if self.saving is not None:
                rows.append(("capacity saved", f"{100 * self.saving:.4g} %"))
        return _aligned(rows)

    def _draw(self, axes: Any) -> None:
        """Success against capacity, with the target and the answer marked."""
        from resonance_theory import _style

        capacities, successes = zip(*self.curve)
        look = _style.look(self.rule)
        coarse = len(capacities) < min(capacities[-1], 40)  # points of a slow law, with capacities between them
        label = f"{_style.name(self.rule)}, exact law{' (points)' if coarse else ''}"
        axes.plot(capacities, successes, label=label, **look, **(_POINTS if coarse else {}))
        axes.axhline(self.target, label=f"target {self.target:g}", **_style.LOOK["guide"])
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.7, "linestyle": "", "markersize": 7, "zorder": 3}
        mark = {**edge, "color": look["color"], "marker": _style.marker(self.rule), "clip_on": False}
        axes.plot([self.capacity], [self.success], label=f"least capacity {self.capacity}", **mark)
        end = capacities[-1]
        if self.rule != "token_choice" and self.token_choice is not None:
            mark |= {"color": _style.LOOK["token_choice"]["color"], "marker": _style.MARKERS["token_choice"]}
            axes.plot([self.token_choice], [self.target], label=f"token choice: {self.token_choice}", **mark)
            end = max(end, 1.05 * self.token_choice)
        axes.set_xlim(0, end)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("capacity C (tokens per expert and sample)")
        axes.set_ylabel("success rate")
        axes.set_title(f"s = {self.tokens} tokens, n = {self.experts} experts, top-{self.top}")
        axes.legend(loc="lower right")


@dataclass(frozen=True, repr=False)
class AdaptivePlan(_Answer):
    """The answer for resonance with adaptive capacity: the least share of the affinity, and what it keeps.

    Attributes:
        mass: least share of an expert's summed affinity with success >= target, to 1e-6.
        success: success rate at that share, at this number of tokens.
        kept: expected tokens per expert and sample; kept_fraction: of its candidates; drop: the rest of them.
        resonance: least fixed capacity of resonance for the same target; resonance_kept: the tokens it keeps.
        token_choice: capacity that token choice needs, None where it cannot reach the target.
        rates: what was asked about.
    """

    tokens: int
    experts: int
    top: int
    target: float
    hit: float
    mass: float
    success: float
    kept: float
    kept_fraction: float
    resonance: int | None
    resonance_kept: float | None
    token_choice: int | None
    rates: Rates = field(repr=False, compare=False)
    rule: str = "adaptive"

    @property
    def drop(self) -> float:
        return 1.0 - self.kept_fraction

    def fields(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rates"} | {"drop": self.drop}

    def summary(self) -> str:
        return f"adaptive capacity, share {self.mass:.4f} for a success rate of {self.target:g}"

    def table(self) -> str:
        """Lines for a terminal."""
        missed = "cannot reach the target"
        fixed = missed if self.resonance is None else f"{self.resonance} slots, fills {self.resonance_kept:.6g}"
        return _aligned(
            [
                ("rule", "resonance with adaptive capacity"),
                ("tokens, experts, top", f"{self.tokens}, {self.experts}, {self.top}"),
                ("target success", f"{self.target:.6g}  (hit rate {self.hit:.6g})"),
                ("least affinity mass", f"{self.mass:.5f}  of an expert's candidates"),
                ("success", f"{self.success:.5f}"),
                ("tokens kept", f"{self.kept:.2f}  expected per expert"),
                ("drop rate", f"{100 * self.drop:.2f} %"),
                ("a fixed capacity needs", fixed),
                ("token choice needs", missed if self.token_choice is None else str(self.token_choice)),
            ]
        )

    def _draw(self, axes: Any) -> None:
        """Success against the share, with the target and the answer marked."""
        from resonance_theory import _style

        shares = (np.arange(1, 17) / 16) ** 1.5  # closer where the curve bends
        rates = [float(adaptive.success(self.tokens, share, self.rates)) for share in shares]
        look = _style.LOOK["resonance"]
        axes.plot(shares, rates, label="adaptive capacity, exact law (points)", **look, **_POINTS)
        axes.axhline(self.target, label=f"target {self.target:g}", **_style.LOOK["guide"])
        edge = {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 7, "zorder": 3}
        mark = {**edge, "color": look["color"], "marker": _style.MARKERS["resonance"], "linestyle": ""}
        axes.plot([self.mass], [self.success], label=f"least share {self.mass:.4f}", **mark)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("share of the affinity that an expert keeps")
        axes.set_ylabel("success rate")
        axes.set_title(f"s = {self.tokens} tokens, n = {self.experts} experts, top-{self.top}")
        axes.legend(loc="lower right")


# where a curve is known at few points only, the line between them is thin
_POINTS = {"linewidth": 0.6, "marker": ".", "markersize": 6}


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def plan(rule: str | Rule, tokens: int, target: float, rates: Rates) -> Plan | AdaptivePlan:
    """Least capacity of a rule for a target success rate; for the adaptive rule, the least share of the affinity.

    Args:
        rule: a `Rule` or its name.
        tokens: tokens of one sample, a whole number.
        target: success rate in (0, 1).
        rates: single rates, or nodes; `experts` must be known.

    Raises:
        ValueError: with the best reachable rate if no capacity up to `tokens` reaches the target; or where dependent
            tokens are so many that the answer would take minutes.

    >>> import resonance_theory as rt
    >>> answer = rt.plan("resonance", 4096, 0.95, rt.Rates(experts=8, percentile=0.4))
    >>> print(answer.capacity, answer.token_choice)
    229 488
    """
    rule = rule_named(rule)
    if not isinstance(rates, Rates):
        raise TypeError(f"rates is a {type(rates).__name__} but must be Rates")
    s, n = arguments.whole("tokens", tokens, 1), arguments.whole("experts", rates.rate("experts"), 1)
    k = arguments.whole("top", rates.top, 1, n, "experts")
    goal = arguments.number("target", target, 0.0, 1.0, open_low=True, open_high=True)
    if rule is adaptive:
        return _adaptive(s, n, k, goal, rates)
    dependent = rates.counts is not INDEPENDENT
    # dependent laws and averages over nodes are slower: fewer points for the curve
    points = 12 if dependent else 160 if rates.weight is None else 40
    affordable(rule, s, rates, points)
    capacity = int(rule.least_capacity(goal, s, rates))
    grid = np.unique(np.linspace(1, min(s, max(2 * capacity, 8)), points).astype(np.int64))
    wanted = np.array([*grid, capacity, max(capacity - 1, 1)])
    # at once where single rates make it cheap; the nodes of a distribution, one capacity after the other
    together = rates.weight is None and not dependent
    curve = rule.success(s, wanted, rates).tolist() if together else [float(rule.success(s, c, rates)) for c in wanted]
    return Plan(
        rule=rule.name,
        tokens=s,
        experts=n,
        top=k,
        target=goal,
        hit=float(rates.hit_rate),
        capacity=capacity,
        capacity_factor=capacity * n / (k * s),
        success=curve[-2],
        success_below=curve[-1] if capacity > 1 else 0.0,
        drop=float(rule.drop_rate(s, capacity, rates)) if rule.tokens_choose else None,
        kept=float(rule.kept(s, capacity, rates)),
        token_choice=_least(token_choice, goal, s, rates),
        curve=tuple(zip(grid.tolist(), curve)),
        counts=str(rates.counts) if dependent else None,
        independent=_least(rule, goal, s, rates.replace(counts=INDEPENDENT)) if dependent else None,
    )


def _least(rule: Rule, goal: float, s: int, rates: Rates) -> int | None:
    """Least capacity, None where the target cannot be reached."""
    try:
        return int(rule.least_capacity(goal, s, rates))
    except ValueError:
        return None


def affordable(rule: Rule, s: int, rates: Rates, points: int) -> None:
    """Refuse what would take minutes, with the number of tokens that would not."""
    nodes = 1 if rates.weight is None else np.shape(rates.weight)[-1]

    def tails(tokens: int) -> float:
        return rates.counts.cost(tokens, rule.name) * nodes * (np.log2(tokens) + points + 4)

    if tails(s) > _TAILS:
        fewer = 1 << int(np.searchsorted([tails(1 << k) > _TAILS for k in range(53)], True))
        raise ValueError(
            f"tokens = {s} is too many for {rates.counts}{' on the nodes of an affinity' if nodes > 1 else ''}: "
            f"the answer would take minutes; give at most about {fewer // 2}"
        )


def setting(
    rule: str | Rule,
    *,
    tokens: int,
    experts: int,
    top: int = 1,
    hit: float | None = None,
    percentile: float | None = None,
    candidate_tail: float | None = None,
    false_positive: float | None = None,
    signal: float | None = None,
    dim: int | None = None,
    block_length: int | None = None,
    correlation: float | None = None,
) -> Rates:
    """The rates that the options of `resonance plan` describe, with what does not belong together refused.

    Args:
        rule: a `Rule` or its name.
        tokens, experts, top: s, n and l of one sample; whole numbers.
        hit: p in [0, 1], 1 unless given.
        percentile: ρ in [0, 1] (resonance), the share of the candidates that score higher than the token.
        candidate_tail: h in [0, top/experts] (resonance), in place of the percentile.
        false_positive: q in [0, 1] (expert choice).
        signal, dim: the planted isotropic model in place of all of these, theta/sigma >= 0 and dim >= experts; needed by the
            adaptive rule, for up to 10^5 tokens.
        block_length: tokens choose in runs of that length, at least 1.
        correlation: or loads vary from sample to sample with this intra-sample correlation in [0, 1], as an audit measures.
    """
    rule = rule_named(rule)
    s = arguments.whole("tokens", tokens, 1, 10**5 if rule is adaptive else None)
    n = arguments.whole("experts", experts, 1)
    k = arguments.whole("top", top, 1, n, "experts")
    if (signal is None) != (dim is None):
        raise ValueError("signal and dim describe the planted model together: give both or neither")
    counts = _counts(rule, block_length, correlation)
    options = {"hit": hit, "percentile": percentile, "candidate_tail": candidate_tail, "false_positive": false_positive}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if signal is not None:
            raise ValueError(f"{name} = {value!r} must not be given together with signal and dim, which determine it")
        if name not in _GIVEN.get(rule.name, ("hit", "percentile", "candidate_tail", "false_positive")):
            raise ValueError(f"{name} = {value!r} must not be given for {rule.name}, whose law does not depend on it")
    if signal is not None and dim is not None:
        nodes = None if counts is INDEPENDENT else 256
        return Rates.planted(signal, dim, n, top=k, nodes=nodes, capacity=s).replace(counts=counts)
    if rule is adaptive:
        raise ValueError("adaptive needs signal with dim: how much affinity a share holds depends on its distribution")
    if rule is resonance and ("percentile" in given) == ("candidate_tail" in given):
        raise ValueError("resonance needs exactly one of percentile, candidate_tail, or signal with dim")
    if rule.name == "expert_choice" and false_positive is None:
        raise ValueError("expert_choice needs false_positive, or signal with dim")
    if candidate_tail is not None and arguments.number("candidate_tail", candidate_tail) > k / n * (1 + 1e-12):
        raise ValueError(f"candidate_tail = {candidate_tail!r} must be at most top/experts = {k / n:.6g}")
    for name, value in given.items():
        arguments.number(name, value, 0.0, 1.0)
    return Rates(experts=n, top=k, counts=counts, **given)


# the rates that each rule's law depends on, hit for the comparison with token choice at least; of other rules, any
_GIVEN: dict[str, tuple[str, ...]] = {
    "token_choice": ("hit",),
    "random_keep": ("hit",),
    "expert_choice": ("hit", "false_positive"),
    "resonance": ("hit", "percentile", "candidate_tail"),
    "adaptive": (),
}


def _counts(rule: Rule, block_length: int | None, correlation: float | None) -> Counts:
    given = {"block_length": block_length, "correlation": correlation}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return INDEPENDENT
    if rule.name in ("expert_choice", "adaptive"):
        raise ValueError(f"{named[0]} = {given[named[0]]!r} must not be given for {rule.name}: no law of it is known")
    if len(named) == 2:
        raise ValueError("block_length and correlation are two models of dependent tokens: give one of them")
    if block_length is not None:
        return Blocks(arguments.whole("block_length", block_length, 1, 2**52))
    return BetaBinomial(arguments.number("correlation", correlation, 0.0, 1.0))


def _adaptive(s: int, n: int, k: int, goal: float, rates: Rates) -> AdaptivePlan:
    mass = float(adaptive.least_capacity(goal, s, rates))
    fixed = _least(resonance, goal, s, rates)
    return AdaptivePlan(
        tokens=s,
        experts=n,
        top=k,
        target=goal,
        hit=float(rates.hit_rate),
        mass=mass,
        success=float(adaptive.success(s, mass, rates)),
        kept=float(adaptive.kept(s, mass, rates)),
        kept_fraction=1.0 - float(adaptive.drop_rate(s, mass, rates)),
        resonance=fixed,
        resonance_kept=None if fixed is None else float(resonance.kept(s, fixed, rates)),
        token_choice=_least(token_choice, goal, s, rates),
        rates=rates,
    )
