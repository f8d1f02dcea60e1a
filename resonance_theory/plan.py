"""Capacity planning: the least capacity that reaches a success rate, and what it costs.

One routing rule, one setting, one answer; the arithmetic is that of the exact laws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import expert_choice, resonance, token_choice

__all__ = ["RULES", "Plan", "plan"]

RULES = ("token_choice", "expert_choice", "resonance")


@dataclass(frozen=True)
class Plan:
    """The answer to one planning question.

    capacity         least tokens per expert and sample with success >= target
    capacity_factor  capacity * experts / (top * tokens); 1 is a perfectly balanced full load
    success          success rate at that capacity; success_below: at one token less
    drop             expected fraction of (token, expert) candidates that capacity turns away (token choice and
                     resonance; expert choice has no candidates, so there it is None)
    token_choice     capacity that token choice needs for the same target, None where it cannot reach it
    curve            capacities and success rates around the answer, for a plot
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

    @property
    def saving(self) -> float | None:
        """Fraction of token choice's capacity that this rule saves (negative: it needs more)."""
        return None if self.token_choice is None else 1.0 - self.capacity / self.token_choice

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "curve": [list(point) for point in self.curve], "saving": self.saving}

    def table(self) -> str:
        """Lines for a terminal."""
        rows = [
            ("rule", self.rule.replace("_", " ")),
            ("tokens, experts, top", f"{self.tokens}, {self.experts}, {self.top}"),
            ("target success", f"{self.target:.6g}  (hit rate {self.hit:.6g})"),
            ("least capacity", f"{self.capacity}  tokens per expert"),
            ("capacity factor", f"{self.capacity_factor:.4g}"),
            ("success", f"{self.success:.10g}  (one token less: {self.success_below:.10g})"),
            ("tokens kept", f"{self.kept:.6g}  expected per expert"),
        ]
        if self.drop is not None:
            rows.append(("candidates dropped", f"{100 * self.drop:.4g} %"))
        if self.rule != "token_choice":
            value = "cannot reach the target" if self.token_choice is None else str(self.token_choice)
            rows.append(("token choice needs", value))
            if self.saving is not None:
                rows.append(("capacity saved", f"{100 * self.saving:.4g} %"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def figure(self, target: Any) -> None:
        """Success against capacity, with the target and the answer marked.

        target: a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG.
        """
        from resonance_theory import _style

        _style.file_kind(target)  # a bad ending is refused before the work
        capacities, successes = zip(*self.curve)
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
            look = _style.LOOK[self.rule]
            axes.plot(capacities, successes, label=f"{_style.NAMES[self.rule]}, exact law", **look)
            axes.axhline(self.target, label=f"target {self.target:g}", **_style.LOOK["guide"])
            edge = {"markeredgecolor": "black", "markeredgewidth": 0.7, "linestyle": "", "markersize": 7, "zorder": 3}
            mark = {**edge, "color": look["color"], "marker": _style.MARKERS[self.rule], "clip_on": False}
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
            _style.save(figure, target)


def plan(
    *,
    rule: str,
    tokens: int,
    experts: int,
    target: float,
    top: int = 1,
    hit: float | None = None,
    percentile: float | None = None,
    candidate_tail: float | None = None,
    false_positive: float | None = None,
    signal: float | None = None,
    dim: int | None = None,
) -> Plan:
    """Least capacity of a rule for a target success rate.

    rule            token_choice, expert_choice or resonance
    tokens, experts, top   s, n and l of one sample; whole numbers
    target          success rate in (0, 1)
    hit             p in [0, 1], 1 unless given
    percentile      rho in [0, 1] (resonance): affinity percentile of the discriminative token among candidates
    candidate_tail  h in [0, top/experts] (resonance), in place of the percentile
    false_positive  q in [0, 1] (expert choice)
    signal, dim     the planted isotropic model in place of all of these: theta/sigma >= 0 and dim >= experts

    Raises ValueError with the best reachable rate if no capacity up to `tokens` reaches the target.
    Source: N1 (token choice), section 3 (expert choice), N4 (resonance).
    """
    arguments.choice("rule", rule, RULES)
    s = int(arguments.integer("tokens", tokens, 1))
    n = int(arguments.integer("experts", experts, 1))
    k = int(arguments.integer("top", top, 1, n, "experts"))
    goal = float(arguments.real("target", target, 0, 1, open_low=True, open_high=True))
    if (signal is None) != (dim is None):
        raise ValueError("signal and dim describe the planted model together: give both or neither")
    weight: Any = None
    p: Any
    q: Any
    h: Any
    if signal is not None and dim is not None:
        given = {
            "hit": hit,
            "percentile": percentile,
            "candidate_tail": candidate_tail,
            "false_positive": false_positive,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name} = {value!r} must not be given together with signal and dim, which determine it"
                )
        from resonance_theory import sphere

        law = sphere.planted(signal, dim, n, top=k)
        p, q, h, weight = law.hit, law.false_positive, law.candidate_tail, law.weight
        mean_hit = float(np.sum(weight * p))
    else:
        p = float(arguments.probability("hit", 1.0 if hit is None else hit))
        mean_hit = p
        q, h = false_positive, candidate_tail
        if rule == "resonance":
            if (percentile is None) == (h is None):
                raise ValueError("resonance needs exactly one of percentile, candidate_tail, or signal with dim")
            if percentile is not None:
                h = float(arguments.probability("percentile", percentile)) * k / n
        if rule == "expert_choice" and q is None:
            raise ValueError("expert_choice needs false_positive, or signal with dim")

    by_token = {"tokens": s, "experts": n, "hit": mean_hit, "top": k}
    if rule == "token_choice":
        module: Any = token_choice
        setting: dict[str, Any] = by_token
    elif rule == "expert_choice":
        module, setting = expert_choice, {"tokens": s, "false_positive": q, "weight": weight}
    else:
        module, setting = resonance, {"tokens": s, "hit": p, "candidate_tail": h, "weight": weight}

    capacity = int(module.least_capacity(goal, **setting))

    def success(c: Any) -> Any:
        return module.success(capacity=np.asarray(c), **setting)

    try:
        other = int(token_choice.least_capacity(goal, **by_token))
    except ValueError:
        other = None
    kept = float(token_choice.kept(s, n, capacity, top=k)) if rule != "expert_choice" else float(capacity)
    grid = np.unique(np.linspace(1, min(s, max(2 * capacity, 8)), 160).astype(np.int64))
    return Plan(
        rule=rule,
        tokens=s,
        experts=n,
        top=k,
        target=goal,
        hit=mean_hit,
        capacity=capacity,
        capacity_factor=capacity * n / (k * s),
        success=float(success(capacity)),
        success_below=float(success(capacity - 1)) if capacity > 1 else 0.0,
        drop=None if rule == "expert_choice" else 1.0 - kept * n / (k * s),
        kept=kept,
        token_choice=other,
        curve=tuple((int(c), float(v)) for c, v in zip(grid, success(grid))),
    )
