"""Who processes which token: the steps that the three routing rules share, and their compact result.

Nothing here loops over tokens or experts, and nothing has the size tokens x experts x capacity: candidates are sorted
by (sample, expert, priority), and those whose rank within their expert is below the capacity are kept.
Sorts are stable, so a tie goes to the earlier position (and, among a token's own experts, to the lower index).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import array_api_compat

from resonance_theory import _arguments as arguments

__all__ = ["Assignment", "best_tokens", "chosen", "keep", "keep_mass", "read", "top_experts"]

Array = Any  # any array that follows the array API standard


@dataclass(frozen=True, eq=False)
class Assignment:
    """The (token, expert) pairs that a routing rule keeps; array type, device and result size follow the affinity's.

    One entry for each of the K kept pairs, sorted by sample, expert and slot; all arrays hold int64.

    expert, token: shape (K,): expert `expert[k]` processes token `token[k]`.
    slot: shape (K,): the pair's place in its expert's buffer, from 0: position order (token choice) or falling
        affinity (expert choice, resonance). An expert's slots have no gaps and stay below the capacity.
    sample: shape (K,), or None where the affinity had no axis of samples.
    load: shape (experts,) or (samples, experts): candidates of each expert before the capacity applies.
    tokens, experts, capacity: the sizes s, n and C, per sample.
    """

    expert: Array
    token: Array
    slot: Array
    sample: Array | None
    load: Array
    tokens: int
    experts: int
    capacity: int

    @property
    def kept(self) -> Array:
        """Tokens that each expert processes; the shape of `load`. Under a fixed capacity, min(load, capacity)."""
        xp = _namespace(self.load)
        row = self.expert if self.sample is None else self.sample * self.experts + self.expert
        bounds = xp.arange(self._samples * self.experts + 1, dtype=xp.int64, device=array_api_compat.device(row))
        start = xp.astype(xp.searchsorted(row, bounds), xp.int64)
        return xp.reshape(start[1:] - start[:-1], self.load.shape)

    @cached_property
    def _dropped(self) -> Array:
        """Sorted flat indices, sample * tokens + token, of the tokens without an expert."""
        xp = _namespace(self.token)
        flat = self.token if self.sample is None else self.sample * self.tokens + self.token
        everyone = xp.arange(self._samples * self.tokens, dtype=xp.int64, device=array_api_compat.device(flat))
        return everyone[~_member(xp, xp.sort(flat), everyone)]

    @property
    def dropped(self) -> Array:
        """Positions of the tokens that no expert processes, in increasing order (within each sample)."""
        return self._dropped % self.tokens

    @property
    def dropped_sample(self) -> Array | None:
        """The sample of each entry of `dropped`, or None where the affinity had no axis of samples."""
        return None if self.sample is None else self._dropped // self.tokens

    def contains(self, token: Array, expert: Array, sample: Array | None = None) -> Array:
        """Whether each queried pair is kept: a boolean array, from integers or integer arrays that broadcast.

        Without `sample`, a batch takes axis 0 of the queries as its samples: shape (samples, ...) or broadcastable.
        Raises ValueError for an index out of range, TypeError for indices that are not whole numbers.
        """
        xp = _namespace(self.token)
        device = array_api_compat.device(self.token)
        t = _index(xp, device, "token", token, self.tokens)
        e = _index(xp, device, "expert", expert, self.experts)
        if sample is not None:
            b = _index(xp, device, "sample", sample, self._samples)
        elif self.sample is None:
            b = xp.asarray(0, dtype=xp.int64, device=device)
        else:
            b = xp.arange(self._samples, dtype=xp.int64, device=device)
            b = xp.reshape(b, (-1,) + (1,) * (max(t.ndim, e.ndim, 1) - 1))
        query = (b * self.experts + e) * self.tokens + t
        return xp.reshape(_member(xp, self._pairs, xp.reshape(query, (-1,))), query.shape)

    @property
    def _samples(self) -> int:
        return 1 if self.sample is None else int(self.load.shape[0])

    @cached_property
    def _pairs(self) -> Array:
        """Sorted codes (sample * experts + expert) * tokens + token of the kept pairs."""
        xp = _namespace(self.token)
        row = self.expert if self.sample is None else self.sample * self.experts + self.expert
        return xp.sort(row * self.tokens + self.token)


class Scores(NamedTuple):
    """Checked arguments of a routing rule; `affinity` has shape (samples, tokens, experts)."""

    affinity: Array
    capacity: int
    top: int
    batched: bool


def read(affinity: Array, capacity: int, top: int = 1) -> Scores:
    """Check a rule's arguments; the errors name the argument, its value and what is allowed."""
    if not array_api_compat.is_array_api_obj(affinity):
        raise TypeError(f"affinity is a {type(affinity).__name__} but must be an array of floating-point numbers")
    xp = _namespace(affinity)
    if not xp.isdtype(affinity.dtype, "real floating"):
        raise TypeError(f"affinity has dtype {affinity.dtype} but must hold floating-point numbers")
    if affinity.ndim not in (2, 3) or 0 in affinity.shape:
        raise ValueError(
            f"affinity has shape {tuple(affinity.shape)} but must be (tokens, experts) or (samples, tokens, experts), "
            "each at least 1"
        )
    if not bool(xp.all(xp.isfinite(affinity))):
        raise ValueError("affinity holds NaN or infinite values but must be finite")
    tokens, experts = affinity.shape[-2:]
    capacity = _whole("capacity", capacity, tokens, "tokens")
    top = _whole("top", top, experts, "experts")
    batched = affinity.ndim == 3
    return Scores(affinity if batched else affinity[None, ...], capacity, top, batched)


def top_experts(scores: Scores) -> Array:
    """The `top` experts of highest affinity of every token, shape (samples, tokens, top)."""
    xp = _namespace(scores.affinity)
    if scores.top == 1:
        return xp.argmax(scores.affinity, axis=-1, keepdims=True)
    return xp.argsort(-scores.affinity, axis=-1, stable=True)[..., : scores.top]


def chosen(scores: Scores, expert: Array) -> Array:
    """Affinities of the pairs (token, chosen expert), (samples, tokens, top)."""
    return _namespace(expert).take_along_axis(scores.affinity, expert, axis=-1)


def keep(scores: Scores, expert: Array, priority: Array | None) -> Assignment:
    """Each expert keeps its `capacity` candidates of highest priority, (samples, tokens, top); None: in position order."""
    if priority is None:
        pairs = _namespace(expert).reshape(expert, (expert.shape[0], -1))
        return _fill(scores, pairs, _argsort_experts(pairs, scores))
    pairs, order, _ = _by_priority(scores, expert, priority)
    return _fill(scores, pairs, order)


def keep_mass(scores: Scores, expert: Array, mass: float) -> Assignment:
    """Each expert keeps, up to `capacity`, the fewest best candidates whose affinities sum to `mass` of their total."""
    xp = _namespace(expert)
    pairs, order, value = _by_priority(scores, expert, chosen(scores, expert))
    row, start = _rows(scores, pairs, order)
    ranked = xp.astype(xp.take_along_axis(value, order, axis=-1), xp.float64)
    if float(xp.max(xp.abs(ranked))) > 1e290:
        raise ValueError("affinity holds values beyond 1e290 in size but must have finite sums")
    sums = _running(xp, ranked)
    samples, width = pairs.shape
    sample = xp.arange(samples, dtype=xp.int64, device=array_api_compat.device(pairs))[:, None]
    first = xp.reshape(start[:-1], (samples, -1)) - sample * width
    last = xp.reshape(start[1:], (samples, -1)) - sample * width
    base = xp.take_along_axis(sums, first, axis=-1)
    total = xp.take_along_axis(sums, last, axis=-1) - base
    goal = mass * xp.clip(total, min=0.0)  # nothing is below 0 at an expert's first place: such an expert keeps none
    mine = xp.reshape(row, (samples, width)) - sample * scores.affinity.shape[-1]
    before = sums[:, :-1] - xp.take_along_axis(base, mine, axis=-1)
    # Partial sums rise and then fall to the total, so those below a share of a positive total belong to the first places.
    short = (before < xp.take_along_axis(goal, mine, axis=-1)) & (xp.take_along_axis(total, mine, axis=-1) > 0)
    count = _running(xp, xp.astype(short, xp.int64))
    limit = xp.take_along_axis(count, last, axis=-1) - xp.take_along_axis(count, first, axis=-1)
    return _fill(scores, pairs, order, xp.reshape(limit, (-1,)))


def _running(xp: Any, values: Array) -> Array:
    """Sums of each row's first 0, 1, ... entries."""
    device = array_api_compat.device(values)
    zero = xp.zeros((values.shape[0], 1), dtype=values.dtype, device=device)
    exact = xp.isdtype(values.dtype, "integral")
    sums = xp.cumulative_sum(values, axis=-1) if exact or _in_order(device) else running_sums(xp, values)
    return xp.concat([zero, sums], axis=-1)


def _in_order(device: Any) -> bool:
    """Whether cumulative sums on the device are added in a fixed order."""
    return "cpu" in str(device).lower()


def running_sums(xp: Any, values: Array) -> Array:
    """Cumulative sums of each row, in an order of additions that the width alone decides.

    The cumulative sums of GPU libraries leave that order to chance, and with it which token is the last to be kept.
    """
    step = 1
    while step < values.shape[-1]:
        values = xp.concat([values[:, :step], values[:, step:] + values[:, :-step]], axis=-1)
        step *= 2
    return values


def _by_priority(scores: Scores, expert: Array, priority: Array) -> tuple[Array, Array, Array]:
    """(pairs, order, value), each (samples, tokens * top): order sorts by (expert, falling priority, position)."""
    xp = _namespace(expert)
    pairs = xp.reshape(expert, (expert.shape[0], -1))
    value = xp.reshape(priority, pairs.shape)
    # Two stable sorts, the lesser key first.
    best = xp.argsort(-value, axis=-1, stable=True)
    order = _argsort_experts(xp.take_along_axis(pairs, best, axis=-1), scores)
    return pairs, xp.take_along_axis(best, order, axis=-1), value


def best_tokens(scores: Scores) -> Assignment:
    """Each expert keeps the `capacity` tokens of highest affinity among all tokens."""
    xp, device = _namespace(scores.affinity), array_api_compat.device(scores.affinity)
    samples, tokens, experts = scores.affinity.shape
    # Experts before tokens, so that a sort runs along contiguous memory.
    by_expert = xp.reshape(xp.permute_dims(scores.affinity, (0, 2, 1)), (samples * experts, tokens))
    token = xp.argsort(-by_expert, axis=-1, stable=True)[:, : scores.capacity]
    shape = token.shape
    row = xp.broadcast_to(xp.arange(shape[0], dtype=xp.int64, device=device)[:, None], shape)
    slot = xp.broadcast_to(xp.arange(shape[1], dtype=xp.int64, device=device)[None, :], shape)
    load = xp.full((samples, experts), tokens, dtype=xp.int64, device=device)
    return _assignment(scores, xp.reshape(row, (-1,)), xp.reshape(token, (-1,)), xp.reshape(slot, (-1,)), load)


def _argsort_experts(chosen: Array, scores: Scores) -> Array:
    # NumPy sorts 16-bit integers by radix, five times faster than 64-bit ones.
    xp = _namespace(chosen)
    return xp.argsort(
        xp.astype(chosen, xp.int16) if scores.affinity.shape[-1] < 2**15 else chosen, axis=-1, stable=True
    )


def _rows(scores: Scores, chosen: Array, order: Array) -> tuple[Array, Array]:
    """(row, start): sample * experts + expert of every candidate in that order, flat; and where each such row starts."""
    xp, device = _namespace(chosen), array_api_compat.device(chosen)
    samples, _, experts = scores.affinity.shape
    sample = xp.arange(samples, dtype=xp.int64, device=device)[:, None]
    row = xp.reshape(sample * experts + xp.astype(xp.take_along_axis(chosen, order, axis=-1), xp.int64), (-1,))
    start = xp.searchsorted(row, xp.arange(samples * experts + 1, dtype=xp.int64, device=device))
    return row, xp.astype(start, xp.int64)


def _fill(scores: Scores, chosen: Array, order: Array, limit: Array | None = None) -> Assignment:
    """Give out slots: chosen (samples, tokens * top) names the experts, order sorts each row by expert and priority.

    limit: tokens that each expert wants, (samples * experts,), where that may be less than the capacity.
    """
    xp, device = _namespace(chosen), array_api_compat.device(chosen)
    samples, _, experts = scores.affinity.shape
    row, start = _rows(scores, chosen, order)
    token = xp.reshape(xp.astype(order, xp.int64) // scores.top, (-1,))  # the columns are (token, choice), token first
    slot = xp.arange(row.shape[0], dtype=xp.int64, device=device) - xp.take(start, row)
    load = xp.reshape(start[1:] - start[:-1], (samples, experts))
    fits = slot < scores.capacity
    if limit is not None:
        fits = fits & (slot < xp.take(limit, row))
    return _assignment(scores, row[fits], token[fits], slot[fits], load)


def _assignment(scores: Scores, row: Array, token: Array, slot: Array, load: Array) -> Assignment:
    tokens, experts = scores.affinity.shape[1:]
    return Assignment(
        expert=row % experts,
        token=token,
        slot=slot,
        sample=row // experts if scores.batched else None,
        load=load if scores.batched else load[0, ...],
        tokens=tokens,
        experts=experts,
        capacity=scores.capacity,
    )


def _namespace(array: Array) -> Any:
    return array_api_compat.array_namespace(array)


def _whole(name: str, value: Any, high: int, high_name: str) -> int:
    array = arguments.integer(name, value, 1, high, high_name)
    if array.ndim:
        raise ValueError(f"{name} has shape {array.shape} but must be one whole number between 1 and {high_name}")
    return int(array)


def _index(xp: Any, device: Any, name: str, value: Any, size: int) -> Array:
    array = xp.asarray(value, device=device)
    if not xp.isdtype(array.dtype, "integral"):
        raise TypeError(f"{name} has dtype {array.dtype} but must hold whole numbers")
    if 0 not in array.shape and (int(xp.min(array)) < 0 or int(xp.max(array)) >= size):
        raise ValueError(f"{name} spans {int(xp.min(array))} to {int(xp.max(array))} but must lie in 0 to {size - 1}")
    return xp.astype(array, xp.int64)


def _member(xp: Any, ordered: Array, query: Array) -> Array:
    """Whether each entry of `query` (1-D) occurs in the sorted, non-empty `ordered`."""
    place = xp.clip(xp.astype(xp.searchsorted(ordered, query), xp.int64), max=ordered.shape[0] - 1)
    return xp.take(ordered, place) == query
