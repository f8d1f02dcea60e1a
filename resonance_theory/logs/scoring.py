"""From a router's logits to its choices: the scores that models use, and what they choose by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resonance_theory import _arguments as arguments

__all__ = ["SCORINGS", "choose"]

SCORINGS = ("softmax", "sigmoid", "sigmoid+bias", "group-limited")

Floats = NDArray[Any]


def choose(
    logits: ArrayLike,
    top: int,
    scoring: str = "softmax",
    *,
    bias: ArrayLike | None = None,
    n_group: int | None = None,
    topk_group: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k experts that a router takes, best first, and their gate weights.

    Scores are the softmax of the logits over the experts or the sigmoid of each. The k experts of the largest score
    are taken; a bias is added for this choice alone, never to the weights. With groups, experts outside the best
    groups are not candidates: a group's score is the sum of its two best (its best, for the softmax). Of equal scores
    the lower id wins. DeepSeek-V3 (arXiv:2412.19437) is group-limited with a bias; DeepSeek-V2 the softmax with groups.

    Args:
        logits: (tokens, experts), no NaN and no +inf; -inf stands for an expert that cannot be chosen.
        top: experts per token k, 1 to the number of candidates.
        scoring: softmax, sigmoid, sigmoid+bias, or group-limited (sigmoid, bias and groups).
        bias: added to the scores for the choice, (experts,); needed by sigmoid+bias, allowed by group-limited.
        n_group: number of groups of equal size, consecutive experts.
        topk_group: groups that stay candidates.

    Returns:
        Ids (tokens, k) and the scores of those ids (tokens, k), as they are: not made to sum to 1 over the k.

    Raises:
        ValueError, TypeError: one sentence with the argument and what is allowed.

    Example:
        >>> import numpy as np
        >>> ids, weight = choose([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], 2)
        >>> ids.tolist(), weight.round(3).tolist()
        ([[1, 2], [0, 1]], [[0.665, 0.245], [0.909, 0.045]])
        >>> choose([[0.0, 2.0, 1.0]], 1, "sigmoid+bias", bias=[1.0, 0.0, 0.0])[0].tolist()
        [[0]]
    """
    arguments.choice("scoring", scoring, SCORINGS)
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"logits has shape {values.shape} but must have the axes (tokens, experts), none empty")
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        token, expert = (int(k) for k in np.argwhere(bad)[0])
        raise ValueError(f"logits[{token}, {expert}] = {values[token, expert]} must be a finite number or -inf")
    experts = values.shape[1]
    score = _softmax(values) if scoring == "softmax" else _sigmoid(values)
    # a bias, or a sum over a group, is of scores; else the logits say the order without rounding to equal scores
    by_score = scoring in ("sigmoid+bias", "group-limited") or (scoring == "sigmoid" and n_group is not None)
    key = np.where(values == -np.inf, -np.inf, (score if by_score else values) + _bias(bias, scoring, experts))
    candidates = experts
    if n_group is not None or topk_group is not None or scoring == "group-limited":
        if n_group is None or topk_group is None:
            raise ValueError("n_group and topk_group must be given, both, for routing limited to groups")
        groups = arguments.whole("n_group", n_group, 1, experts)
        if experts % groups:
            raise ValueError(f"n_group = {groups} must divide the number of experts, {experts}")
        stay = arguments.whole("topk_group", topk_group, 1, groups, "n_group")
        candidates = stay * (experts // groups)
        key = _limited(key, groups, stay, 1 if scoring == "softmax" else 2)
    top = arguments.whole("top", top, 1, candidates)
    if top > int((key > -np.inf).sum(axis=1).min()):
        raise ValueError(f"top = {top} is more than some token has experts whose logit is not -inf")
    ids = best(key, top)
    return ids, np.take_along_axis(score, ids, axis=1)


def best(key: Floats, top: int) -> NDArray[np.int64]:
    """Places of the k largest of each row, largest first; of equal ones the lower place."""
    left, rows = key.copy(), np.arange(len(key))
    ids = np.empty((len(key), top), np.int64)
    for slot in range(top):
        ids[:, slot] = left.argmax(axis=1)
        left[rows, ids[:, slot]] = -np.inf
    return ids


def _softmax(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        power = np.exp(values - values.max(axis=1, keepdims=True))
    if np.isnan(power).any():
        raise ValueError("logits of a token are -inf throughout but at least one must be finite")
    return power / power.sum(axis=1, keepdims=True)


def _sigmoid(values: Floats) -> Floats:
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def _bias(bias: ArrayLike | None, scoring: str, experts: int) -> Floats:
    if bias is None:
        if scoring == "sigmoid+bias":
            raise ValueError("bias must be given with scoring = 'sigmoid+bias', one number an expert")
        return np.zeros(experts)
    if scoring not in ("sigmoid+bias", "group-limited"):
        raise ValueError(f"bias goes with scoring = 'sigmoid+bias' or 'group-limited', not {scoring!r}")
    found = arguments.real("bias", bias)
    if found.shape != (experts,):
        raise ValueError(f"bias has shape {found.shape} but must have one number for each of the {experts} experts")
    return found


def _limited(key: Floats, groups: int, stay: int, of: int) -> Floats:
    """The keys of the best groups, by the sum of their `of` largest; -inf elsewhere."""
    parts = key.reshape(len(key), groups, -1)
    of = min(of, parts.shape[2])
    group_score = np.partition(parts, parts.shape[2] - of, axis=2)[:, :, -of:].sum(axis=2)
    stays = np.zeros(group_score.shape, bool)
    np.put_along_axis(stays, best(group_score, stay), True, axis=1)
    return np.where(stays[:, :, None], parts, -np.inf).reshape(key.shape)
