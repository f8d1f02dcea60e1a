"""Expert choice inside groups of experts, one group for each modality of tokens (MoMa, arXiv 2407.21770, eq. 1).

Text tokens meet text experts only, image tokens image experts only. Inside a group every expert takes the k tokens of
highest score among the group's tokens. All experts of a group are then loaded alike and none drops a token; but a token
may be taken by several experts or by none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlog1py, xlogy

from resonance_theory import _arguments as arguments
from resonance_theory.rules.expert_choice import expert_choice
from resonance_theory.typing import ArrayLike

__all__ = ["choose_in_groups", "experts_per_token", "net_speedup", "untouched_range", "untouched_share"]

Floats = NDArray[np.float64]


def _groups(token_group: ArrayLike, expert_group: ArrayLike, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    found = []
    for name, value, size in zip(("token_group", "expert_group"), (token_group, expert_group), shape):
        group = arguments.integer(name, value, 0)
        if group.shape != (size,):
            raise ValueError(f"{name} has shape {group.shape} but must have shape ({size},), one group for each")
        found.append(group)
    return tuple(found)


def choose_in_groups(
    scores: ArrayLike, token_group: ArrayLike, expert_group: ArrayLike, capacity_factor: float = 1.0
) -> NDArray[np.bool_]:
    """Which tokens each expert takes: the k of highest score among the tokens of its group.

    k = capacity_factor * (tokens of the group) / (experts of the group), which must be a whole number from 1 to the
    group's tokens: a rounded one would unbalance the groups unseen. A group of experts whose tokens do not occur takes
    none. Equal scores fall to the earlier token.

    Args:
        scores: Affinities (tokens, experts); those between groups are not read.
        token_group: Group of each token, whole numbers of at least 0, shape (tokens,).
        expert_group: Group of each expert, shape (experts,).
        capacity_factor: At least 0; 1 makes the work that of one expert a token.

    Returns:
        Booleans (tokens, experts), True where the expert takes the token.

    Raises:
        ValueError: A group of tokens has no expert, k is not a whole number in range, or shapes do not match.

    Example:
        >>> scores = [[0.9, 0.2, 0.5], [0.8, 0.1, 0.5], [0.3, 0.7, 0.1], [0.2, 0.6, 0.9]]
        >>> choose_in_groups(scores, [0, 0, 1, 1], [0, 0, 1]).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    """
    score = arguments.real("scores", scores)
    if score.ndim != 2:
        raise ValueError(f"scores has shape {score.shape} but must have shape (tokens, experts)")
    tokens, experts = _groups(token_group, expert_group, score.shape)
    factor = arguments.number("capacity_factor", capacity_factor, 0.0, open_low=True)
    taken = np.zeros(score.shape, dtype=bool)
    for group in np.unique(tokens):
        rows, columns = np.flatnonzero(tokens == group), np.flatnonzero(experts == group)
        if not columns.size:
            raise ValueError(f"token_group holds the group {group} but expert_group gives it no expert")
        k = factor * len(rows) / len(columns)
        if abs(k - round(k)) > 1e-9 * k or not 1 <= round(k) <= len(rows):
            raise ValueError(
                f"group {group} has {len(rows)} tokens for {len(columns)} experts at capacity_factor = {factor:g}: "
                f"{k:g} tokens an expert, which must be a whole number between 1 and {len(rows)}"
            )
        found = expert_choice.route(score[np.ix_(rows, columns)], round(k))
        taken[rows[found.token], columns[found.expert]] = True
    return taken


def untouched_share(experts: ArrayLike, share: ArrayLike | None = None) -> Floats:
    """Share of a group's tokens that no expert takes, where the experts' scores are independent: (1-c)^E.

    c is the share of the group's tokens that an expert takes, 1/E unless given. Exact at every number of tokens, if
    scores are tie-free and exchangeable over tokens. Relative error below 1e-14. Claim: modality_untouched_tokens.

    Args:
        experts: E, whole numbers of at least 1, any shape.
        share: c in [0, 1], broadcast with experts.

    Returns:
        The broadcast shape; between 0 and 1.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> [round(float(x), 4) for x in untouched_share([1, 4, 8])]
        [0.0, 0.3164, 0.3436]
    """
    e = arguments.integer("experts", experts, 1)
    c = 1.0 / e if share is None else arguments.probability("share", share)
    return np.exp(xlog1py(e, -c))


def untouched_range(experts: ArrayLike, share: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Least and largest share of untouched tokens over all dependences between the experts' scores.

    max(0, 1-Ec), where experts take disjoint tokens, and 1-c, where all take the same. Claim: modality_untouched_range.

    Args:
        experts: E, whole numbers of at least 1, any shape.
        share: c in [0, 1] as for `untouched_share`, 1/E unless given.

    Returns:
        (least, largest), each of the broadcast shape.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> [float(x) for x in untouched_range(4)]
        [0.0, 0.75]
    """
    e = arguments.integer("experts", experts, 1)
    c = 1.0 / e if share is None else arguments.probability("share", share)
    low, high = np.broadcast_arrays(np.maximum(0.0, 1.0 - e * c), 1.0 - c + 0.0 * e)
    return low.copy(), high.copy()


def experts_per_token(experts: int, share: float | None = None) -> Floats:
    """Distribution of the number of experts that take a token, for independent scores: Bin(E, c).

    Args:
        experts: E, at least 1.
        share: c in [0, 1] as for `untouched_share`, 1/E unless given.

    Returns:
        Probabilities of 0, 1, ..., E, shape (E+1,).

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> [round(float(x), 4) for x in experts_per_token(4)]
        [0.3164, 0.4219, 0.2109, 0.0469, 0.0039]
    """
    e = arguments.whole("experts", experts, 1)
    c = 1.0 / e if share is None else float(arguments.probability("share", share))
    j = np.arange(e + 1)
    return np.exp(gammaln(e + 1) - gammaln(j + 1) - gammaln(e - j + 1) + xlogy(j, c) + xlog1py(e - j, -c))


def net_speedup(speedup: ArrayLike, throughput: ArrayLike, baseline: ArrayLike) -> Floats:
    """Speed-up in time from one in operations: a model that runs slower gains less.

    Args:
        speedup: Operations of the baseline over those of the model at the same loss, at least 0.
        throughput: Tokens a second of the model, above 0.
        baseline: Tokens a second of the baseline of the same operations a token, above 0.

    Returns:
        speedup * throughput / baseline, the broadcast shape.

    Raises:
        ValueError: An argument is outside its range.

    Example:
        >>> round(float(net_speedup(3.7, 26424, 31970)), 3)     # MoMa 4t4i, as printed
        3.058
    """
    gain = arguments.real("speedup", speedup, 0.0)
    return (
        gain
        * arguments.real("throughput", throughput, 0.0, open_low=True)
        / arguments.real("baseline", baseline, 0.0, open_low=True)
    )
