"""Guarantees from finite logs: a capacity that holds the drop of the next steps, whatever the law of the loads.

Each logged step has a least capacity C_i, with which it would have dropped no more than the target. If the m logged steps
and the next r are exchangeable, the k-th smallest C_i holds all r with probability at least

    C(k+r-1, r) / C(m+r, r),    which is k/(m+1) for one step:

only the ranks count, ties help. Beside it stands the parametric answer: log C_i normal, Student's prediction.
Claim: finite_log_guarantee.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb, exp, inf, sqrt
from typing import Any

import numpy as np
from scipy import special

from resonance_theory import _arguments as arguments
from resonance_theory.logs.log import RoutingLog
from resonance_theory.typing import ArrayLike, Whole

__all__ = ["Guarantee", "guarantee", "held", "least_capacities"]


@dataclass(frozen=True)
class Guarantee:
    """A capacity that holds the drop of the next steps, and what it rests on.

    Attributes:
        target: largest drop rate that is allowed.
        confidence: probability asked for that all the next steps stay within it.
        ahead: how many next steps.
        steps: how many steps were logged.
        needed: how many are needed for that confidence.
        factor: capacity factor, slots of an expert over its mean load, distribution-free; None where steps < needed.
        capacity: slots for steps as large as the logged ones; None where steps < needed or the steps are of unequal size.
        attained: the confidence that `factor` really has, at least `confidence`; None where steps < needed.
        parametric_factor: the same if the logarithm of the factor that a step needs is normal; None for a single step.
        parametric_capacity: its slots, or None.
    """

    target: float
    confidence: float
    ahead: int
    steps: int
    needed: int
    factor: float | None
    capacity: int | None
    attained: float | None
    parametric_factor: float | None
    parametric_capacity: int | None

    def __str__(self) -> str:
        coming = "the next step" if self.ahead == 1 else f"all of the next {self.ahead} steps"
        if self.factor is None:
            return (
                f"the log has {self.steps} step{'s' * (self.steps != 1)} but {self.needed} are needed to hold {coming} at "
                f"confidence {self.confidence:g} whatever the loads' law"
            )
        slots = "" if self.capacity is None else f" ({self.capacity} slots)"
        return (
            f"capacity factor {self.factor:.4g}{slots} keeps the drop of {coming} within {self.target:.4g} "
            f"with probability {self.attained:.4g} or more"
        )


def held(rank: int, steps: int, ahead: int = 1) -> Fraction:
    """Least probability that the rank-th smallest of the logged steps' capacities holds all the next steps.

    Exact for exchangeable steps without ties. Claim: finite_log_guarantee.

    Args:
        rank: 1..steps.
        steps: logged steps.
        ahead: next steps, at least 1.

    >>> from resonance_theory.logs import held
    >>> held(19, 19), held(19, 19, ahead=5)
    (Fraction(19, 20), Fraction(19, 24))
    """
    m = arguments.whole("steps", steps, 1)
    k = arguments.whole("rank", rank, 1, m, "steps")
    r = arguments.whole("ahead", ahead, 1)
    # C(k+r-1, r)/C(m+r, r) = Π_{j=k..m} j/(j+r)
    return Fraction(comb(k + r - 1, r), comb(m + r, r))


def least_capacities(loads: ArrayLike, target: float) -> Whole:
    """Least capacity with which each step drops no more than the target; exact, in whole numbers.

    The dropped tokens at capacity C are max_j (S_j - j C) over the j heaviest experts, S_j their load.

    Args:
        loads: tokens per expert, whole numbers (steps, experts), at most 2^40 a step.
        target: largest drop rate, in [0, 1), taken as the decimal that was typed.

    Returns:
        Whole numbers (steps,), at least 1.

    >>> from resonance_theory.logs import least_capacities
    >>> least_capacities([[7, 2, 1], [4, 3, 3]], 0.1)
    array([6, 3])
    """
    load = arguments.integer("loads", loads, 0, 2**40)
    if load.ndim != 2 or 0 in load.shape:
        raise ValueError(f"loads has shape {load.shape} but must have the axes (steps, experts), none of length 0")
    goal = Fraction(repr(arguments.number("target", target, 0.0, 1.0, open_high=True)))
    total = load.sum(axis=1)
    if not total.all():
        raise ValueError(f"loads[{int(np.flatnonzero(total == 0)[0])}] must have at least one token")
    spare = np.array([int(t) * goal.numerator // goal.denominator for t in total])
    heaviest = np.cumsum(-np.sort(-load, axis=1), axis=1)
    return np.maximum(-((spare[:, None] - heaviest) // np.arange(1, load.shape[1] + 1)), 1).max(axis=1)


def guarantee(
    loads: Any, target: float, confidence: float = 0.95, *, ahead: int = 1, layer: int = 0, block: int | None = None
) -> Guarantee:
    """Capacity that holds the drop of the next steps at or below a target with the given confidence.

    It rests on one assumption: logged and next steps are exchangeable, as independent steps of one law are, or blocks
    that begin with a fresh document each. Nothing is assumed of the loads. The probability is over log and next steps
    together. Claim: finite_log_guarantee.

    Args:
        loads: tokens per expert, whole numbers (steps, experts), or a `RoutingLog`.
        target: largest drop rate, in [0, 1).
        confidence: in (0, 1).
        ahead: how many next steps are to be held, all of them, 1..10,000.
        layer: layer of a `RoutingLog`.
        block: tokens of a step, for a log of choices.

    Returns:
        A `Guarantee`; its text says how many steps are needed where the log is too short.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    >>> import numpy as np
    >>> from resonance_theory.logs import guarantee
    >>> loads = np.random.default_rng(0).multinomial(1024, [0.4, 0.3, 0.2, 0.1], size=30)
    >>> print(guarantee(loads, 0.01))
    capacity factor 1.703 (436 slots) keeps the drop of the next step within 0.01 with probability 0.9677 or more
    >>> print(guarantee(loads[:10], 0.01))
    the log has 10 steps but 19 are needed to hold the next step at confidence 0.95 whatever the loads' law
    """
    if isinstance(loads, RoutingLog):
        loads = _of_log(loads, layer, block)
    level = arguments.number("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    r = arguments.whole("ahead", ahead, 1, 10_000)
    needs = least_capacities(loads, target)
    load = np.asarray(loads)
    total, experts, m = load.sum(axis=1), load.shape[1], len(load)
    factor = sorted((Fraction(int(c) * experts, int(t)) for c, t in zip(needs, total)))
    goal = Fraction(repr(level))
    found = bisect_left(range(1, m + 1), goal, key=lambda k: held(k, m, r))
    rank = found + 1 if found < m else None
    equal = bool((total == total[0]).all())

    def slots(value: float | Fraction) -> int | None:
        return min(ceil(value * int(total[0]) / experts), int(total[0])) if equal else None

    free = None if rank is None else factor[rank - 1]
    normal = _parametric([float(f) for f in factor], level, r)
    return Guarantee(
        target=float(target),
        confidence=level,
        ahead=r,
        steps=m,
        needed=_needed(goal, r),
        factor=None if free is None else float(free),
        capacity=None if free is None else slots(free),
        attained=None if rank is None else float(held(rank, m, r)),
        parametric_factor=normal,
        parametric_capacity=None if normal is None else slots(normal),
    )


def _of_log(log: RoutingLog, layer: int, block: int | None) -> Whole:
    if log.counts is not None:
        at = arguments.whole("layer", layer, 0, np.shape(log.counts)[1] - 1)
        return np.asarray(log.counts)[:, at]
    at = arguments.whole("layer", layer, 0, np.shape(log.choices)[1] - 1)
    if block is None:
        raise ValueError("block must be given for a log of choices: the tokens of a step")
    found = log.loads(block, at)
    if not len(found):
        raise ValueError(f"block = {block} must be at most the log's {len(np.asarray(log.choices))} tokens")
    return found


def _needed(goal: Fraction, ahead: int) -> int:
    """Fewest steps m whose largest capacity holds: m/(m+r) >= confidence."""
    return max(1, ceil(goal * ahead / (1 - goal)))


def _parametric(factor: list[float], level: float, ahead: int) -> float | None:
    """Student's prediction of log-normal factors; for several steps Bonferroni's share of the miss each."""
    m = len(factor)
    if m < 2:
        return None
    log = np.log(factor)
    quantile = float(special.stdtrit(m - 1, 1 - (1 - level) / ahead))
    value = float(log.mean() + quantile * log.std(ddof=1) * sqrt(1 + 1 / m))
    return exp(value) if value < 700 else inf
