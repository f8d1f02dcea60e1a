"""What each drop policy keeps of a router's own choices: gate weight, whole tokens, and tokens through all layers.

The log's choices are taken as they are: a token that loses its experts in one layer still chooses as logged in the next.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resonance_theory import _arguments as arguments
from resonance_theory.logs.log import RoutingLog
from resonance_theory.results import Result

__all__ = ["POLICIES", "Kept", "PolicyReport", "kept", "policies"]

POLICIES = {
    "probs": "highest gate weight (resonance)",
    "position": "first in the block (token choice)",
    "random": "at random",
}
"""Megatron-Core calls the first two by these names (`moe_token_drop_policy`)."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """What a policy keeps at one capacity factor, measured.

    Attributes:
        policy: a name in `POLICIES`, or "expert_choice".
        weight: share of the gate weight that is kept, over all layers.
        choices: share of the choices that are kept.
        lost: share of tokens that lose every expert, a mean over layers.
        lost_anywhere: share of tokens that lose every expert in one layer or more.
        lost_layers: layers in which such a token loses every expert, on average; 0 without one.
        depth: the first such layer, from 0, on average; None without one.
        whole: share of tokens that keep every expert in every layer.
        low: for expert choice the least share of the weight that it can keep; else None.
    """

    policy: str
    weight: float
    choices: float
    lost: float | None
    lost_anywhere: float | None
    lost_layers: float | None
    depth: float | None
    whole: float | None
    low: float | None = None


@dataclass(frozen=True, repr=False)
class PolicyReport(Result):
    """The policies on one log at one capacity factor.

    Attributes:
        source: of the log; capacity_factor, capacity: slots of an expert in a block; block: tokens; tokens, layers: seen.
        kept: one `Kept` for each policy.
    """

    source: str
    capacity_factor: float
    capacity: int
    block: int
    tokens: int
    layers: int
    kept: tuple[Kept, ...] = field(default=())

    def summary(self) -> str:
        return f"{self.source}, capacity factor {self.capacity_factor:g}, blocks of {self.block}"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each policy."""
        return [{"capacity_factor": self.capacity_factor, **asdict(kept)} for kept in self.kept]

    def to_json(self) -> dict[str, Any]:
        """The fields with version, commit and time."""
        return self.record("resonance-theory kept 1", asdict(self))

    def table(self) -> str:
        """Lines for a terminal."""
        lines = [
            f"{self.source}: {self.tokens} tokens, {self.layers} layers, blocks of {self.block}; "
            f"capacity factor {self.capacity_factor:g} ({self.capacity} slots)",
            "",
            f"  {'policy':14}  gate weight  choices  lose every  lose every expert  layers in which  keep every expert",
            f"  {'':14}    kept, %    kept, %   expert, %   in some layer, %   those lose it    in every layer, %",
        ]
        for k in self.kept:
            weight = _percent(k.weight) if k.low is None else f"{_percent(k.low)} to {_percent(k.weight)}"
            cells = (_percent(k.choices), _percent(k.lost), _percent(k.lost_anywhere), _count(k.lost_layers))
            lines.append(
                f"  {k.policy.replace('_', ' '):14}  {weight:>11}  {cells[0]:>7}  {cells[1]:>10}  {cells[2]:>17}  "
                f"{cells[3]:>15}  {_percent(k.whole):>17}"
            )
        return "\n".join(line.rstrip() for line in lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def slots(log: RoutingLog, capacity_factor: float, block: int) -> int:
    """Slots of an expert in a block, ceil(factor * top * block / experts), at most the block."""
    return min(max(int(np.ceil(capacity_factor * log.top * block / log.experts * (1 - 1e-12))), 1), block)


def kept(log: RoutingLog, policy: str, capacity_factor: float, block: int, *, seed: int = 0) -> Bits:
    """Which choices a drop policy keeps.

    Every expert has ceil(capacity_factor * top * block / experts) slots in each block of `block` tokens. Among equal
    weights the earlier token comes first. With `probs` and softmax scores these are Megatron-Core's kept sets.

    Args:
        log: a log of choices; with gate weights for "probs".
        policy: a name in `POLICIES`.
        capacity_factor: positive.
        block: tokens of a block, at most those of the log; the rest after the last whole block is left out.
        seed: of the random policy.

    Returns:
        Booleans (blocks * block, layers, top); False for padding.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> log = rt.logs.RoutingLog(experts=2, choices=np.array([[[0]], [[0]], [[0]], [[1]]]),
        ...                          weights=np.array([[[0.6]], [[0.9]], [[0.7]], [[0.8]]]))
        >>> print(rt.logs.kept(log, "probs", 1.0, 4)[:, 0, 0], rt.logs.kept(log, "position", 1.0, 4)[:, 0, 0])
        [False  True  True  True] [ True  True False  True]
    """
    choices, size, capacity = _asked(log, capacity_factor, block)
    arguments.choice("policy", policy, tuple(POLICIES))
    if policy == "probs" and log.weights is None:
        raise ValueError("policy = 'probs' needs the gate weights of the choices, which this log does not have")
    rng = np.random.Generator(np.random.Philox(seed))
    result = np.zeros(choices.shape, bool)
    for start in range(0, len(choices), size):
        for layer in range(choices.shape[1]):
            part = np.asarray(choices[start : start + size, layer], np.int64)
            if policy == "probs":
                order = np.argsort(-np.asarray(log.weights[start : start + size, layer], np.float64), None, "stable")
            else:
                order = np.arange(part.size) if policy == "position" else rng.permutation(part.size)
            result[start : start + size, layer] = _first(part, order, log.experts, capacity)
    return result


def _asked(log: RoutingLog, capacity_factor: float, block: int) -> tuple[Any, int, int]:
    """The whole blocks of the choices, their size and the slots of an expert."""
    if not isinstance(log, RoutingLog):
        raise TypeError(f"log is a {type(log).__name__} but must be a RoutingLog")
    if log.choices is None:
        raise ValueError("log counts tokens but must hold each token's choices: a policy chooses among them")
    factor = arguments.number("capacity_factor", capacity_factor, 0.0, open_low=True)
    size = arguments.whole("block", block, 1, len(log.choices), "the tokens of the log")
    return log.choices[: len(log.choices) // size * size], size, slots(log, factor, size)


def _first(chosen: NDArray[np.int64], order: NDArray[np.int64], experts: int, capacity: int) -> Bits:
    """The first `capacity` of every expert's choices in that order, as booleans of the shape of `chosen`."""
    line = chosen.ravel()[order]
    by_expert = np.argsort(line, kind="stable")
    sorted_line = line[by_expert]
    start = np.searchsorted(sorted_line, np.arange(experts))
    rank = np.arange(line.size) - start[np.maximum(sorted_line, 0)]
    result = np.zeros(line.size, bool)
    result[order[by_expert]] = (rank < capacity) & (sorted_line >= 0)
    return result.reshape(chosen.shape)


def policies(log: RoutingLog, capacity_factor: float, block: int, *, seed: int = 0) -> PolicyReport:
    """What each drop policy keeps of a router's own choices.

    Expert choice chooses among all tokens, by scores that a log of choices holds for the chosen experts alone. Only bounds
    of the weight that it keeps can be computed, and only where weights are not normalised to sum to 1. At most it keeps
    what `probs` does. At least it keeps a choice whose weight fewer than C tokens can exceed: an expert's score of a token
    that did not choose it is at most the least weight that the token chose.

    Args:
        log: a log of choices; without gate weights every choice weighs the same, and `probs` is left out.
        capacity_factor: positive.
        block: tokens of a block.
        seed: of the random policy.

    Returns:
        A `PolicyReport`: `table()`, `rows()`, `to_json()`.

    Example:
        >>> import numpy as np
        >>> import resonance_theory as rt
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.dirichlet(np.full(8, 0.5), size=(256, 1))
        >>> chosen = np.argsort(-scores, axis=-1)[..., :2]
        >>> log = rt.logs.RoutingLog(experts=8, choices=chosen, weights=np.take_along_axis(scores, chosen, -1))
        >>> for kept in rt.logs.policies(log, 0.8, 128).kept[:3]:
        ...     print(f"{kept.policy:8} {kept.weight:.3f} {kept.lost:.3f}")
        probs    0.881 0.008
        position 0.782 0.145
        random   0.799 0.047
    """
    choices, size, capacity = _asked(log, capacity_factor, block)
    known = log.weights is not None
    weights = np.asarray(log.weights[: len(choices)], np.float64) if known else np.ones(choices.shape)
    real = np.asarray(choices) >= 0
    weights = np.where(real, weights, 0.0)
    if not weights.any():
        raise ValueError(f"{log.source}: the gate weights of the choices are all 0 but must sum to more")
    found = [
        _measured(name, kept(log, name, capacity_factor, block, seed=seed), weights, real)
        for name in POLICIES
        if known or name != "probs"
    ]
    if known and not _normalised(weights, real):
        found.append(
            _expert_choice(np.asarray(choices, np.int64), weights, real, size, capacity, log.experts, found[0])
        )
    return PolicyReport(
        log.source, float(capacity_factor), capacity, size, len(choices), choices.shape[1], tuple(found)
    )


def _measured(policy: str, keep: Bits, weights: NDArray[np.float64], real: Bits) -> Kept:
    lost = np.asarray(~keep.any(axis=2) & real.any(axis=2))  # (tokens, layers)
    hit = lost.any(axis=1)
    count = int(hit.sum())
    return Kept(
        policy=policy,
        weight=float((weights * keep).sum() / weights.sum()),
        choices=float(keep.sum() / real.sum()),
        lost=float(lost.sum() / real.any(axis=2).sum()),
        lost_anywhere=float(hit.mean()),
        lost_layers=float(lost[hit].sum() / count) if count else 0.0,
        depth=float(lost[hit].argmax(axis=1).mean()) if count else None,
        whole=float((keep | ~real).all(axis=(1, 2)).mean()),
    )


def _normalised(weights: NDArray[np.float64], real: Bits) -> bool:
    """Whether every token's weights sum to 1, so that those of different tokens no longer compare as scores."""
    total = weights.sum(axis=2)[real.any(axis=2)]
    return (weights.shape[2] == 1 and bool(np.ptp(total) == 0)) or bool(np.abs(total - 1).max(initial=0) < 1e-2)


def _expert_choice(
    choices: NDArray[np.int64],
    weights: NDArray[np.float64],
    real: Bits,
    size: int,
    capacity: int,
    experts: int,
    most: Kept,
) -> Kept:
    """Bounds of what expert choice keeps of the chosen pairs' weight."""
    sure_weight, sure = 0.0, 0
    for start in range(0, len(choices), size):
        for layer in range(choices.shape[1]):
            part = slice(start, start + size)
            chosen, weight, here = choices[part, layer], weights[part, layer], real[part, layer]
            least = np.where(here, weight, np.inf).min(axis=1)
            reach = np.repeat(np.where(np.isfinite(least), least, 0.0)[:, None], experts, axis=1)
            token = np.broadcast_to(np.arange(size)[:, None], chosen.shape)
            reach[token[here], chosen[here]] = weight[here]
            ordered = np.sort(reach, axis=0)
            for expert in range(experts):
                mine = weight[here & (chosen == expert)]
                above = size - np.searchsorted(ordered[:, expert], mine, side="left")  # itself included
                sure += int((above <= capacity).sum())
                sure_weight += float(mine[above <= capacity].sum())
    return Kept(
        policy="expert_choice",
        weight=most.weight,
        choices=sure / int(real.sum()),
        lost=None,
        lost_anywhere=None,
        lost_layers=None,
        depth=None,
        whole=None,
        low=sure_weight / float(weights.sum()),
    )
