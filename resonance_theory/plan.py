"""Capacity planning: the least capacity that reaches a success rate, and what it costs.

One routing rule, one setting, one answer; the arithmetic is that of the exact laws. The adaptive rule has no capacity: its
answer is the least share of the affinity, and the number of tokens that it keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import adaptive, dependence, expert_choice, resonance, token_choice

__all__ = ["RULES", "AdaptivePlan", "Plan", "plan"]

# the rates that each rule's law depends on, hit for the comparison with token choice at least
_GIVEN: dict[str, tuple[str, ...]] = {
    "token_choice": ("hit",),
    "expert_choice": ("hit", "false_positive"),
    "resonance": ("hit", "percentile", "candidate_tail"),
    "adaptive": (),
}
RULES = tuple(_GIVEN)


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
    block_length, correlation   what was said of the dependence between tokens
    independent      capacity that the rule would need if tokens were independent, None if nothing was said
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
    block_length: int | None = None
    correlation: float | None = None
    independent: int | None = None

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
            *_dependence(self.block_length, self.correlation),
            ("target success", f"{self.target:.6g}  (hit rate {self.hit:.6g})"),
            ("least capacity", f"{self.capacity}  tokens per expert"),
            ("capacity factor", f"{self.capacity_factor:.4g}"),
            ("success", f"{self.success:.10g}  (one token less: {self.success_below:.10g})"),
            ("tokens kept", f"{self.kept:.6g}  expected per expert"),
        ]
        if self.drop is not None:
            rows.append(("candidates dropped", f"{100 * self.drop:.4g} %"))
        if self.block_length is not None or self.correlation is not None:
            value = "cannot reach the target" if self.independent is None else str(self.independent)
            rows.append(("if independent", value))
        if self.rule != "token_choice":
            value = "cannot reach the target" if self.token_choice is None else str(self.token_choice)
            rows.append(("token choice needs", value))
            if self.saving is not None:
                rows.append(("capacity saved", f"{100 * self.saving:.4g} %"))
        return _aligned(rows)

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
            coarse = len(capacities) < min(capacities[-1], 40)  # points of a slow law, with capacities between them
            label = f"{_style.NAMES[self.rule]}, exact law{' (points)' if coarse else ''}"
            axes.plot(capacities, successes, label=label, **look, **(_POINTS if coarse else {}))
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


@dataclass(frozen=True)
class AdaptivePlan:
    """The answer for resonance with adaptive capacity: the least share of the affinity, and what it keeps.

    mass            least share τ of an expert's summed affinity with success >= target, to 1e-6
    success         success rate at that share, at this number of tokens (error 1e-5 for a share up to .9, 1e-3 beyond)
    kept            expected tokens per expert and sample; kept_fraction: of its candidates; drop: the rest of them
    resonance       least fixed capacity of resonance for the same target, and resonance_kept: the tokens it keeps
    token_choice    capacity that token choice needs, None where it cannot reach the target
    """

    tokens: int
    experts: int
    top: int
    target: float
    hit: float
    signal: float
    dim: int
    mass: float
    success: float
    kept: float
    kept_fraction: float
    resonance: int | None
    resonance_kept: float | None
    token_choice: int | None
    rule: str = "adaptive"

    @property
    def drop(self) -> float:
        return 1.0 - self.kept_fraction

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "drop": self.drop}

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
                ("candidates dropped", f"{100 * self.drop:.2f} %"),
                ("a fixed capacity needs", fixed),
                ("token choice needs", missed if self.token_choice is None else str(self.token_choice)),
            ]
        )

    def figure(self, target: Any) -> None:
        """Success against the share, with the target and the answer marked; `target` as in `Plan.figure`."""
        from resonance_theory import _style

        _style.file_kind(target)
        shares = (np.arange(1, 17) / 16) ** 1.5  # closer where the curve bends
        rates = adaptive.success(shares, self.signal, self.dim, self.experts, top=self.top, tokens=self.tokens)
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
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
            _style.save(figure, target)


# where a curve is known at few points only, the line between them is thin
_POINTS = {"linewidth": 0.6, "marker": ".", "markersize": 6}


def _dependence(length: int | None, correlation: float | None) -> list[tuple[str, str]]:
    if length is not None:
        return [("tokens take routes", f"in runs of {length}")]
    return [] if correlation is None else [("loads vary", f"with correlation {correlation:.6g} within a sample")]


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


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
    block_length: int | None = None,
    correlation: float | None = None,
) -> Plan | AdaptivePlan:
    """Least capacity of a rule for a target success rate; for the adaptive rule, the least share of the affinity.

    rule            token_choice, expert_choice, resonance or adaptive (resonance that keeps a share of the affinity)
    tokens, experts, top   s, n and l of one sample; whole numbers
    target          success rate in (0, 1)
    hit             p in [0, 1], 1 unless given
    percentile      rho in [0, 1] (resonance): affinity percentile of the discriminative token among candidates
    candidate_tail  h in [0, top/experts] (resonance), in place of the percentile
    false_positive  q in [0, 1] (expert choice)
    signal, dim     the planted isotropic model in place of all of these: theta/sigma >= 0 and dim >= experts; needed by
                    the adaptive rule, for up to 10^5 tokens
    block_length    tokens that take routes in runs of that length, whole and at least 1 (token choice, resonance)
    correlation     or loads that vary from sample to sample with this intra-sample correlation in [0, 1], as an audit
                    measures it (token choice, resonance); at most 10^7 tokens

    Raises ValueError with the best reachable rate if no capacity up to `tokens` reaches the target.
    Source: N1 (token choice), section 3 (expert choice), N4 (resonance), N11 (dependence), N12 (adaptive).
    """
    arguments.choice("rule", rule, RULES)
    s = int(arguments.integer("tokens", tokens, 1, {"adaptive": 10**5}.get(rule)))
    n = int(arguments.integer("experts", experts, 1))
    k = int(arguments.integer("top", top, 1, n, "experts"))
    goal = float(arguments.real("target", target, 0, 1, open_low=True, open_high=True))
    if (signal is None) != (dim is None):
        raise ValueError("signal and dim describe the planted model together: give both or neither")
    dependent = _counts(rule, block_length, correlation)
    if rule == "adaptive" and signal is None:
        raise ValueError("adaptive needs signal with dim: how much affinity a share holds depends on its whole law")
    given = {
        "hit": hit,
        "percentile": percentile,
        "candidate_tail": candidate_tail,
        "false_positive": false_positive,
    }
    for name, value in given.items():
        if value is None:
            continue
        if signal is not None:
            raise ValueError(f"{name} = {value!r} must not be given together with signal and dim, which determine it")
        if name not in _GIVEN[rule]:
            raise ValueError(f"{name} = {value!r} must not be given for {rule}, whose law does not depend on it")
    if correlation is not None:
        arguments.integer("tokens", s, 1, 10**7)  # its law takes time and memory in proportion
    weight: Any = None
    p: Any
    q: Any
    h: Any
    if signal is not None and dim is not None:
        from resonance_theory.tokens import planted
        from resonance_theory.tokens.samplers import Planted

        if rule == "adaptive":
            return _adaptive(s, n, k, goal, signal, dim)
        if correlation is None:
            law = Planted(signal, dim, n).law(top=k, capacity=s)
        else:  # varying loads take nodes * tokens tails for each capacity
            law = planted.planted(signal, dim, n, top=k, nodes=int(np.clip(2**19 // s, 256, 1024)))
        p, q, h, weight = law.hit, law.false_positive, law.candidate_tail, law.weight
        mean_hit = float(np.sum(weight * p))
    else:
        p = float(arguments.probability("hit", 1.0 if hit is None else hit))
        mean_hit = p
        q, h = false_positive, candidate_tail
        if rule == "resonance":
            if (percentile is None) == (h is None):
                raise ValueError("resonance needs exactly one of percentile, candidate_tail, or signal with dim")
            if h is not None:
                h = float(arguments.probability("candidate_tail", h))
                if h > k / n * (1 + 1e-12):
                    raise ValueError(f"candidate_tail = {h!r} must be at most top/experts = {k / n:.6g}")
            elif percentile is not None:
                h = float(arguments.probability("percentile", percentile)) * k / n
        if rule == "expert_choice" and q is None:
            raise ValueError("expert_choice needs false_positive, or signal with dim")

    by_token: dict[str, Any] = {"tokens": s, "experts": n, "top": k}
    model: Any = token_choice if dependent is None else dependent
    module: Any
    setting: dict[str, Any]
    if rule == "token_choice":
        module, setting = model, {**by_token, "hit": mean_hit}
    elif rule == "expert_choice":
        module, setting = expert_choice, {"tokens": s, "false_positive": q, "weight": weight}
    elif dependent is None:
        module, setting = resonance, {"tokens": s, "hit": p, "candidate_tail": h, "weight": weight}
    else:
        rho = np.minimum(arguments.probability("candidate_tail", h) * n / k, 1.0)
        module, setting = model, {**by_token, "hit": p, "percentile": rho, "weight": weight}

    capacity = int(module.least_capacity(goal, **setting))

    def success(c: Any) -> Any:
        return module.success(capacity=np.asarray(c), **setting)

    def least(other: Any, **given: Any) -> int | None:
        try:
            return int(other.least_capacity(goal, **given))
        except ValueError:
            return None

    independent = None
    if dependent is not None:
        alone = (token_choice, {**by_token, "hit": mean_hit})
        if rule == "resonance":
            alone = (resonance, {"tokens": s, "hit": p, "candidate_tail": h, "weight": weight})
        independent = least(alone[0], **alone[1])
    kept = float(model.kept(s, n, capacity, top=k)) if rule != "expert_choice" else float(capacity)
    # a dependent law is slower: fewer points for its curve
    grid = np.unique(np.linspace(1, min(s, max(2 * capacity, 8)), 160 if dependent is None else 12).astype(np.int64))
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
        token_choice=least(model, **by_token, hit=mean_hit),
        curve=tuple((int(c), float(v)) for c, v in zip(grid, [float(success(c)) for c in grid])),
        block_length=block_length,
        correlation=correlation,
        independent=independent,
    )


def _counts(rule: str, block_length: int | None, correlation: float | None) -> Any:
    """The model of dependent tokens, None where nothing is said of them."""
    given = {"block_length": block_length, "correlation": correlation}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return None
    if rule not in ("token_choice", "resonance"):
        raise ValueError(f"{named[0]} = {given[named[0]]!r} must not be given for {rule}: no law of it is known")
    if len(named) == 2:
        raise ValueError("block_length and correlation are two models of dependent tokens: give one of them")
    if block_length is not None:
        length = arguments.integer("block_length", block_length, 1, 2**52)
        if length.ndim:
            raise TypeError(f"block_length has shape {length.shape} but must be one whole number")
        return dependence.Blocks(int(length))
    kappa = arguments.probability("correlation", correlation if correlation is not None else 0.0)
    if kappa.ndim:
        raise TypeError(f"correlation has shape {kappa.shape} but must be one number")
    return dependence.BetaBinomial(float(kappa))


def _adaptive(s: int, n: int, k: int, goal: float, signal: float, dim: int) -> AdaptivePlan:
    from scipy.optimize import brentq

    from resonance_theory.tokens.samplers import Planted

    def success(mass: float) -> float:
        return float(adaptive.success(mass, signal, dim, n, top=k, tokens=s))

    best = success(1.0)
    if best < goal:
        raise ValueError(
            f"target = {goal!r} cannot be reached: with all of the affinity the success rate is {best:.6g}"
        )
    low = 1e-6
    # keeping more of the affinity never loses a token, so the rate rises with the share
    mass = low if success(low) >= goal else float(brentq(lambda x: success(x) - goal, low, 1.0, xtol=1e-7))
    if success(mass) < goal:
        mass = min(mass + 1e-6, 1.0)
    law = Planted(signal, dim, n).law(top=k, capacity=s)
    hit = float(np.sum(law.weight * law.hit))
    try:
        fixed = int(
            resonance.least_capacity(goal, s, hit=law.hit, candidate_tail=law.candidate_tail, weight=law.weight)
        )
        fixed_kept = float(token_choice.kept(s, n, fixed, top=k))
    except ValueError:
        fixed, fixed_kept = None, None
    try:
        by_token = int(token_choice.least_capacity(goal, s, n, hit=hit, top=k))
    except ValueError:
        by_token = None
    fraction = float(adaptive.kept_fraction(mass, dim, n, top=k, tokens=s))
    return AdaptivePlan(
        tokens=s,
        experts=n,
        top=k,
        target=goal,
        hit=hit,
        signal=float(signal),
        dim=int(dim),
        mass=mass,
        success=success(mass),
        kept=fraction * k * s / n,
        kept_fraction=fraction,
        resonance=fixed,
        resonance_kept=fixed_kept,
        token_choice=by_token,
    )
