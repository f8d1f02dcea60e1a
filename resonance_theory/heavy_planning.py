"""Capacity planning from one reported drop rate: the log-normal loads that explain it, and what they drop elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.results import Result
from resonance_theory.rules import token_choice
from resonance_theory.tokens import LogNormalLoads

__all__ = ["HeavyPlan", "plan_drop"]

_FACTORS = (1.0, 1.0625, 1.125, 1.25, 1.5, 2.0)


@dataclass(frozen=True, repr=False)
class HeavyPlan(Result):
    """What one reported drop rate says of others.

    Attributes:
        drop, at: the report; target: success rate of a choice that is asked for.
        tokens, experts, top: of a sample, if counts are finite; None in the limit of large ones.
        sigma: scale of the logarithm of an expert's load.
        capacity_factor: least for the target; capacity: the same in slots, with finite counts.
        drops: (factor, drop) at other capacity factors.
    """

    drop: float
    at: float
    target: float
    tokens: int | None
    experts: int | None
    top: int
    sigma: float
    capacity_factor: float
    capacity: int | None
    drops: tuple[tuple[float, float], ...]

    def summary(self) -> str:
        return f"log-normal loads of scale {self.sigma:.4f}, capacity factor {self.capacity_factor:.3f}"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each capacity factor."""
        return [{"capacity_factor": factor, "drop": drop} for factor, drop in self.drops]

    def to_json(self) -> dict[str, Any]:
        """The record, as its JSON Schema says."""
        return self.record("resonance-theory drop plan 1", asdict(self))

    def table(self) -> str:
        """Lines for a terminal."""
        counts = (
            "in the limit of large counts"
            if self.tokens is None
            else f"with {self.tokens} tokens, {self.experts} experts, top-{self.top}"
        )
        slots = "" if self.capacity is None else f", {self.capacity} slots"
        lines = [
            f"A drop of {100 * self.drop:g} % at capacity factor {self.at:g} is that of log-normal loads with scale "
            f"{self.sigma:.4f}, {counts}.",
            f"They need capacity factor {self.capacity_factor:.4f}{slots} to keep {100 * self.target:g} %.",
            "One number cannot test the law: compare a second report with this table.",
            "",
            "  capacity factor  drop, %",
            *(f"  {factor:<15g}  {100 * drop:7.3f}" for factor, drop in self.drops),
        ]
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the law through the reported drop; the Matplotlib Axes."""
        from resonance_theory import _style

        with _style.styled():
            ax = _style.canvas(6, 3.7)[1] if ax is None else ax
            factor, drop = np.array(self.drops).T
            ax.plot(factor, 100 * drop, marker="s", markersize=4, label="law", **_style.LOOK["resonance"])
            ax.plot([self.at], [100 * self.drop], "o", color="black", label="reported")
            ax.axhline(100 * (1 - self.target), label=f"target {100 * (1 - self.target):g} %", **_style.LOOK["guide"])
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ticks = [10.0**k for k in range(-12, 3) if low <= 10.0**k <= high]
            ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.set_xlabel("capacity factor")
            ax.set_ylabel("choices without a slot, %")
            ax.set_title(f"Log-normal loads, scale {self.sigma:.4f}")
            ax.legend(loc="upper right")
        return ax

    def figure(self, target: Any) -> None:
        """Draw the answer into a path ending in .png, .svg or .pdf, or a binary stream, which receives SVG."""
        from resonance_theory import _style

        _style.file_kind(target)  # a bad ending is refused before the work
        with _style.styled():
            figure, axes = _style.canvas(6, 3.7)
            self.plot(axes)
            _style.save(figure, target)


def plan_drop(
    drop: float,
    at: float,
    *,
    target: float = 0.99,
    tokens: int | None = None,
    experts: int | None = None,
    top: int = 1,
) -> HeavyPlan:
    """What one reported drop rate says of other capacity factors, if loads are log-normal.

    Args:
        drop: reported share of the choices without a slot, above max(0, 1 - at) and below 1.
        at: capacity factor of the report, positive.
        target: success rate in (0, 1) of a choice.
        tokens, experts: of a sample, whole numbers, both or neither; then binomial noise is counted in.
        top: experts per token, below their number.

    Raises:
        ValueError, TypeError: one sentence with the argument and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> answer = rt.plan_drop(0.0968, 1.0)
        >>> print(f"{answer.sigma:.4f} {answer.drops[1][1]:.4f} {answer.capacity_factor:.3f}")
        0.2432 0.0716 1.414
    """
    rate = arguments.number("drop", drop, 0.0, 1.0, open_low=True, open_high=True)
    factor = arguments.number("at", at, 0.0, open_low=True)
    goal = arguments.number("target", target, 0.0, 1.0, open_low=True, open_high=True)
    if (tokens is None) != (experts is None):
        raise ValueError("tokens and experts must be given together, or neither")
    limit = LogNormalLoads.from_drop(rate, factor)
    if tokens is None or experts is None:
        loads = limit
        found = {c: float(loads.drop(c)) for c in _FACTORS}
        least, slots = _least_factor(loads, 1 - goal), None
    else:
        s, n = arguments.whole("tokens", tokens, 1, 10**6), arguments.whole("experts", experts, 2, 10**5)
        k = arguments.whole("top", top, 1, n - 1, "experts - 1")
        loads = _finite(rate, _slots(factor, s, n, k), s, n, k)
        rates = loads.rates(n, k, s)
        found = {c: float(token_choice.drop_rate(s, _slots(c, s, n, k), rates)) for c in _FACTORS}
        slots = _least_slots(rates, 1 - goal, s)
        least = slots * n / (k * s)
    return HeavyPlan(
        rate, factor, goal, tokens, experts, top, float(np.asarray(loads.sigma)), least, slots, tuple(found.items())
    )


def _slots(factor: float, s: int, n: int, k: int) -> int:
    return min(max(int(np.ceil(factor * k * s / n * (1 - 1e-12))), 1), s)


def _least_factor(loads: LogNormalLoads, loss: float) -> float:
    from scipy.optimize import brentq

    high = 1.0
    while loads.drop(high) > loss:
        high *= 2
    low = min(1.0, (1 - loss) / 2)  # at a factor below 1 - loss even uniform loads drop more
    return (
        float(brentq(lambda c: float(loads.drop(c)) - loss, low, high, xtol=1e-12)) if loads.drop(low) > loss else low
    )


def _least_slots(rates: Any, loss: float, s: int) -> int:
    low, high = 0, s
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if token_choice.drop_rate(s, middle, rates) <= loss else (middle, high)
    return high


def _finite(drop: float, slots: int, s: int, n: int, k: int) -> LogNormalLoads:
    """The scale at which finite counts drop as much."""
    from scipy.optimize import brentq

    def gap(sigma: float) -> float:
        return float(token_choice.drop_rate(s, slots, LogNormalLoads(sigma).rates(n, k, s))) - drop

    least = gap(0.0)
    if least >= 0:
        raise ValueError(
            f"drop = {drop:g} must be above {least + drop:.4g}: uniform, independent loads drop that much with {slots} "
            f"slots for {s} tokens"
        )
    high = 0.5
    while gap(high) < 0:
        high *= 2
        if high > 8:
            raise ValueError(
                f"drop = {drop:g} must be one that log-normal loads of scale up to 8 give with {slots} slots"
            )
    return LogNormalLoads(brentq(gap, 0.0, high, xtol=1e-8))
