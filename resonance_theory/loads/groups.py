"""Group-limited and biased routing: a token chooses its experts within its best groups alone.

Scores (softmax or sigmoid of the logits) plus a bias decide; the gate weights come from the scores without it. A group's
score is the sum of its two best (DeepSeek-V3) or its best (DeepSeek-V2). Sources: DeepSeek-V2 2405.04434 section 2.1.2;
DeepSeek-V3 2412.19437 section 2.1.2; `DeepseekV3TopkRouter` of transformers.

For exchangeable scores every expert is chosen with k/n. Two experts of one group are chosen together more often than two
of different groups: with m experts a group, G groups, g kept and within = E K(K-1), K the choices in one group,

    P(both | same group) = within / (m (m-1)),   P(both | different groups) = {k(k-1) - G within} / (G (G-1) m²).

Claim: group_limited.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.typing import ArrayLike, Floats, Whole

__all__ = ["Pairs", "group_limited", "pair_rates", "top_of_groups"]


class Pairs(NamedTuple):
    """Rates of one expert, of two of one group, of two of different groups; variance of a group's choices by one token."""

    one: float
    same: float
    different: float
    variance: float


def group_limited(
    scores: ArrayLike, top: int, groups: int, kept_groups: int, *, bias: ArrayLike | None = None, score: str = "top2"
) -> tuple[Whole, Floats]:
    """The experts that each token chooses, best first, and their scores without the bias.

    Args:
        scores: scores after softmax or sigmoid, (..., experts), finite.
        top: experts k that a token chooses.
        groups: groups G of equally many consecutive experts.
        kept_groups: groups g that a token may choose from.
        bias: added to the scores for the choice alone, (experts,).
        score: of a group, "top2" (DeepSeek-V3: sum of its two best) or "max" (its best, V2).

    Returns:
        Experts (..., k) as int64 and their scores. Equal scores: the lower index first.

    Raises:
        ValueError, TypeError: one sentence that names the argument, its value and what is allowed.

    Example:
        >>> import resonance_theory as rt
        >>> experts, weights = rt.loads.group_limited([0.9, 0.1, 0.6, 0.5], top=2, groups=2, kept_groups=1)
        >>> experts, weights
        (array([2, 3]), array([0.6, 0.5]))
    """
    x = arguments.real("scores", scores)
    if x.ndim == 0:
        raise ValueError("scores must have at least one axis, of experts")
    n = x.shape[-1]
    m = _sizes(n, top, groups, kept_groups)
    arguments.choice("score", score, ("top2", "max"))
    choose = x
    if bias is not None:
        b = arguments.real("bias", bias)
        if b.shape != (n,):
            raise ValueError(f"bias has shape {b.shape} but must be ({n},)")
        choose = x + b
    grouped = choose.reshape(*x.shape[:-1], groups, m)
    if score == "max" or m == 1:
        value = grouped.max(axis=-1)
    else:
        value = np.partition(grouped, m - 2, axis=-1)[..., -2:].sum(axis=-1)
    best = np.argsort(-value, axis=-1, kind="stable")[..., :kept_groups]
    allowed = np.zeros(value.shape, bool)
    np.put_along_axis(allowed, best, True, axis=-1)
    masked = np.where(allowed[..., None], grouped, -np.inf).reshape(x.shape)
    experts = np.argsort(-masked, axis=-1, kind="stable")[..., :top]
    return experts, np.take_along_axis(x, experts, axis=-1)


def _sizes(experts: int, top: int, groups: int, kept: int) -> int:
    arguments.whole("groups", groups, 1, experts, "experts")
    if experts % groups:
        raise ValueError(f"groups = {groups} must divide the {experts} experts")
    arguments.whole("kept_groups", kept, 1, groups, "groups")
    m = experts // groups
    arguments.whole("top", top, 1, kept * m, "experts of the kept groups")
    return m


def top_of_groups(experts: int, top: int, groups: int, kept_groups: int) -> Floats:
    """Law of the choices K in one group, for scores that are continuous, independent and alike; groups by best score.

    Exact: down the order of all scores the next allowed expert is uniform among those left in the open groups and, while
    fewer than g groups are open, in the closed ones. Claim: group_limited.

    Returns:
        P(K = j), j = 0..min(k, m), exact up to rounding.

    Example:
        >>> from resonance_theory.loads.groups import top_of_groups
        >>> top_of_groups(4, 2, 2, 1)
        array([0.5, 0. , 0.5])
    """
    m = _sizes(experts, top, groups, kept_groups)
    # walk down the order of scores; state: (groups open, choices made, choices in our group, whether ours is open)
    state: dict[tuple[int, int, int, int], float] = {(0, 0, 0, 0): 1.0}
    law = np.zeros(min(top, m) + 1)
    while state:
        after: dict[tuple[int, int, int, int], float] = {}
        for (opened, made, ours, mine), chance in state.items():
            if made == top:
                law[ours] += chance
                continue
            # the next allowed expert is uniform among the allowed ones that are left
            left_ours = (m - ours) if mine or opened < kept_groups else 0
            others_open = opened - mine
            left_open = others_open * m - (made - ours)
            left_new = (groups - opened - (0 if mine else 1)) * m if opened < kept_groups else 0
            total = left_ours + left_open + left_new
            for count, nxt in (
                (left_ours, (opened + (0 if mine else 1), made + 1, ours + 1, 1)),
                (left_open, (opened, made + 1, ours, mine)),
                (left_new, (opened + 1, made + 1, ours, mine)),
            ):
                if count:
                    after[nxt] = after.get(nxt, 0.0) + chance * count / total
        state = after
    return law


def pair_rates(experts: int, top: int, groups: int, kept_groups: int, *, law: ArrayLike | None = None) -> Pairs:
    """Rates of one expert and of two for exchangeable scores, and the variance of what a token sends to a group.

    A device that holds one group gets the sum of s independent such numbers: its load has s times this variance. Without
    groups it is that of k draws without replacement.

    Args:
        experts, top, groups, kept_groups: as in `group_limited`.
        law: P(K = j), j = 0.., of the choices in one group; that of groups chosen by their best score (DeepSeek-V2) unless given.
            For the sum of two best it depends on the scores' distribution: give a measured one.

    Example:
        >>> import resonance_theory as rt
        >>> free, limited = (rt.loads.pair_rates(64, 6, 8, kept) for kept in (8, 3))
        >>> print(f"{free.same:.5f} {free.different:.5f} {limited.same:.5f} {limited.different:.5f}")
        0.00744 0.00744 0.01754 0.00618
        >>> print(f"{limited.variance / free.variance:.2f} times the variance of a device's load")
        1.94 times the variance of a device's load
    """
    m = _sizes(experts, top, groups, kept_groups)
    mass = top_of_groups(experts, top, groups, kept_groups) if law is None else arguments.distribution("law", law)
    if mass.ndim != 1 or mass.size > min(top, m) + 1:
        raise ValueError(f"law has shape {mass.shape} but must be (choices,) of at most {min(top, m) + 1} masses")
    j = np.arange(mass.size)
    mean = top / groups
    if abs(mass @ j - mean) > 1e-6 * max(mean, 1.0):
        raise ValueError(f"law has the mean {mass @ j:.6g} but must have top / groups = {mean:.6g}")
    within = float(mass @ (j * (j - 1)))
    return Pairs(
        top / experts,
        within / (m * (m - 1)) if m > 1 else 0.0,
        (top * (top - 1) - groups * within) / (groups * (groups - 1) * m * m) if groups > 1 else 0.0,
        float(mass @ (j - mean) ** 2),
    )
