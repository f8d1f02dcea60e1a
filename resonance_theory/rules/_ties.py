"""The least capacity that reaches a target, with ties decided exactly.

A success rate is a rational number where the rates are doubles or quotients, and targets such as 3/4 are attained exactly
(2 tokens, 2 experts, 1 slot). Floating point cannot tell "attained" from "missed by 1e-16", so where the two agree to 1e-12
the comparison is made in exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from resonance_theory.rules._law import Logs
from resonance_theory.rules._search import score, search
from resonance_theory.typing import Booleans, Floats, Whole

__all__ = ["Exact", "element", "least", "place", "share"]

MOST = 2048  # tokens up to which a tie is decided by the exact rational number
_CLOSE = 4e-12

# (index of the element, tokens, capacity, target) -> whether the target is reached; None: not to be decided exactly
Exact = Callable[[tuple[int, ...], int, int, Fraction], bool | None]


def least(
    logs: Callable[[Whole, Whole], Logs],
    exact: Exact | None,
    ceiling: Floats,
    tokens: Whole,
    shape: tuple[int, ...],
    goal: Floats,
    first: Floats,
) -> Whole:
    """Least C in 1..tokens with success >= goal, for all elements at once.

    `logs(i, C)` gives the law of the elements i of the flattened result at capacities C, `ceiling` is the rate at C = tokens,
    `first` a guess of C. Targets from 1/2 on are
    compared by the failure probability, 1 - target being exact there, so that a target of 1 - 1e-12 is met to the last digit.
    """
    goal = np.broadcast_to(goal, shape)
    s = np.broadcast_to(tokens, shape)
    best = np.broadcast_to(ceiling, shape)
    short = goal > best * (1 + 4e-16)
    if np.any(short):
        index = tuple(int(i) for i in np.argwhere(short)[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"target{where} = {float(goal[index])!r} cannot be reached: "
            f"at the largest capacity, tokens = {int(s[index])}, the success rate is {float(best[index]):.12g}"
        )

    flat_s, flat_goal = s.reshape(-1).astype(np.int64), goal.reshape(-1)
    with np.errstate(divide="ignore"):
        aim = score(np.log(flat_goal), np.log1p(-flat_goal))

    def reached(i: Whole, c: Whole) -> tuple[Booleans, Floats]:
        value, goal = logs(i, c), flat_goal[i]
        # from 1/2 on by the failure, whose complement is exact there
        gain, wanted = np.exp(value.success), goal
        gain, wanted = np.where(goal >= 0.5, 1.0 - goal, gain), np.where(goal >= 0.5, np.exp(value.failure), wanted)
        met = np.asarray(gain >= wanted)
        if exact is not None:
            for at in np.flatnonzero(np.abs(gain - wanted) <= _CLOSE * wanted):
                index = tuple(int(k) for k in np.unravel_index(i[at], shape))
                decided = exact(index, int(flat_s[i[at]]), int(c[at]), Fraction(float(goal[at])))
                met[at] = met[at] if decided is None else decided
        return met, score(value.success, value.failure) - aim[i]

    return search(reached, flat_s, np.broadcast_to(first, shape).reshape(-1)).reshape(shape)


def place(s: int, c: int, h: Fraction, hit: Fraction, goal: Fraction) -> bool | None:
    """Whether hit x P(Bin(s-1, h) <= C-1) >= goal."""
    if h in (0, 1):  # no rival, or only rivals
        return hit * (1 - h) >= goal
    if h == Fraction(1, 2) and 2 * c == s:  # the median of an odd number of fair coins
        return hit / 2 >= goal
    if s > MOST:
        return None
    a, b = h.numerator, h.denominator - h.numerator
    count = _first_terms(s - 1, a, b, c)
    return hit * count >= goal * h.denominator ** (s - 1)


def share(s: int, c: int, load: Fraction, hit: Fraction, goal: Fraction, log_mean: Callable[[], Any]) -> bool | None:
    """Whether hit x E min(1, C/(N+1)) >= goal, N ~ Bin(s-1, load).

    The rate is min(hit, hit C/(load s)) less a term known to 1e-12 relative: what is left of the target is exact, and only
    where the two still agree must the sum be taken exactly. `log_mean()` gives (lower, log E|load - V|) of `_beta.tail`.
    """
    if s > MOST:
        lower, log_mean_value = log_mean()
        missing = hit - goal if lower else hit * c / (load * s) - goal
        lost = float(hit / load) * float(np.exp(log_mean_value))
        if missing <= 0 or abs(lost - float(missing)) > _CLOSE * lost:
            return missing > 0 and lost < float(missing)
        return None
    a, b = load.numerator, load.denominator - load.numerator
    whole = load.denominator ** (s - 1)
    sure = _first_terms(s - 1, a, b, c)
    # Σ_{j >= C} binom(s-1, j) π^j (1-π)^{s-1-j} C/(j+1) = C/(sπ) P(Bin(s, π) >= C+1)
    part = load.denominator**s - _first_terms(s, a, b, c + 1)
    return hit * (Fraction(sure, whole) + Fraction(c * part, s * a * whole)) >= goal


def _first_terms(n: int, a: int, b: int, count: int) -> int:
    """The first terms of (b + a)^n, Σ_{j < count} binom(n, j) a^j b^(n-j), each from the one before by an exact division."""
    if b == 0:
        return a**n if count > n else 0
    total, term = 0, b**n
    for j in range(min(count, n + 1)):
        total += term
        term = term * (a * (n - j)) // (b * (j + 1))
    return total


def element(field: Any, at: tuple[int, ...]) -> Any:
    """The entry of a field that belongs to one element of the result, by the rules of broadcasting."""
    array = np.asarray(field)
    tail = at[len(at) - array.ndim :] if array.ndim else ()
    return array[tuple(0 if size == 1 else i for i, size in zip(tail, array.shape))]
