"""The CPU kernels (numba), each one parallel loop over tokens or experts; the references are in `naive.py`.

Nothing here checks its arguments; `checks.py` does.
"""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np

from resonance_theory.kernels.candidate_order import bucket, list_kept, ordered, starts
from resonance_theory.kernels.jit import njit
from resonance_theory.kernels.row_affinities import choose_rows, highest_entries, measure, room
from resonance_theory.kernels.vectors import STEP, block_sums, write_gradient

__all__ = [
    "affinities",
    "highest_scores",
    "route",
    "scatter",
    "scratch",
    "slots",
    "tallies",
    "top_affinity",
    "top_affinity_backward",
]

_CHUNKS = 64  # units of parallel work; results do not depend on it
_KEEP = 2**25  # bytes of scratch that a thread may hold on to
_kept = threading.local()


@njit(parallel=True)
def top_affinity(x: Any, experts: int, weight: Any, expert: Any, lengths: Any) -> int:
    """Write the highest affinities of each row of x (tokens, dim) and their experts; see naive.top_affinity.

    weight, expert: (tokens, top); lengths: empty, or (tokens,), for `top_affinity_backward`: of each row, NaN where its squares
    leave the range. Returns the first row that holds NaN or infinite values, or -1.
    """
    tokens, bad = x.shape[0], np.full(_CHUNKS, -1, np.int64)
    for chunk in numba.prange(_CHUNKS):
        begin, stop = chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS
        bad[chunk] = choose_rows(begin, stop, x, experts, room(experts), weight, expert, lengths)
    return _first(bad)


@njit(parallel=True)
def affinities(x: Any, experts: int, result: Any, lengths: Any) -> None:
    """Write the affinity of each row of x (tokens, dim) to every expert, (tokens, experts); NaN where a row is not finite.

    lengths: (tokens,), receives those of the rows, NaN where squares leave the range or a row is not finite.
    """
    tokens, dim = x.shape
    block, scale = dim // experts, np.sqrt(experts / dim)
    for chunk in numba.prange(_CHUNKS):
        sums = room(experts)
        for row in range(chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS):
            length, divisor = measure(x, row, experts, block, sums)
            lengths[row] = length if divisor == 1.0 else np.nan
            if length == 0.0:
                length = 1.0
            for i in range(experts):
                value = sums[i] * scale / length  # the operations of top_affinity, for the same bits
                result[row, i] = value if value != value else min(max(value, -1.0), 1.0)


@njit(parallel=True)
def highest_scores(score: Any, expert: Any) -> None:
    """Write the experts of highest score of each row of score (rows, experts), falling, ties by index; (rows, top)."""
    rows, experts = score.shape
    top = expert.shape[1]
    for chunk in numba.prange(_CHUNKS):
        best = np.empty(top, score.dtype)
        for row in range(chunk * rows // _CHUNKS, (chunk + 1) * rows // _CHUNKS):
            if top > 1:
                highest_entries(score[row], best, expert[row])
                continue
            value, place = score[row, 0], 0
            for i in range(1, experts):
                if score[row, i] > value:
                    value, place = score[row, i], i
            expert[row, 0] = place


@njit(parallel=True)
def tallies(score: Any, expert: Any, real: Any, level: float) -> Any:
    """Of each expert: candidates, scores of at least `level`, and candidates with such a score; (3, experts).

    score: (rows, experts); expert: (rows, top); real: (rows,) booleans, or empty.
    """
    rows, experts = score.shape
    count = np.zeros((_CHUNKS, 3, experts), np.int64)
    for chunk in numba.prange(_CHUNKS):
        own = count[chunk]
        for row in range(chunk * rows // _CHUNKS, (chunk + 1) * rows // _CHUNKS):
            if real.shape[0] > 0 and not real[row]:
                continue
            for i in range(experts):
                own[1, i] += score[row, i] >= level
            for k in range(expert.shape[1]):
                i = expert[row, k]
                own[0, i] += 1
                own[2, i] += score[row, i] >= level
    return count.sum(axis=0)


@njit(parallel=True)
def scatter(x: Any, token: Any, filled: Any, origin: Any) -> tuple[Any, Any]:
    """Sums about `origin` of the tokens in the slots of each expert, (experts, dim), and the sum of their squares.

    x: (samples, tokens, dim); token, filled: (samples, experts, slots); origin: (dim,), float64.
    """
    samples, experts, slots = token.shape
    dim, parts = x.shape[2], max(1, _CHUNKS // experts)
    sums, squares = np.zeros((experts * parts, dim)), np.zeros(experts * parts)
    for task in numba.prange(experts * parts):
        expert, part = task // parts, task % parts
        total, square = sums[task], 0.0
        for sample in range(samples):
            for slot in range(part * slots // parts, (part + 1) * slots // parts):
                if filled[sample, expert, slot]:
                    square += _add(x[sample, token[sample, expert, slot]], origin, total)
        squares[task] = square
    whole = np.zeros((experts, dim))
    for task in range(experts * parts):
        whole[task // parts] += sums[task]
    return whole, squares.sum()


@njit(fastmath={"reassoc", "contract"})
def _add(row: Any, origin: Any, total: Any) -> float:
    """Add row - origin to total; its sum of squares, in the order that the vector instructions like."""
    square = 0.0
    for j in range(row.shape[0]):
        value = np.float64(row[j]) - origin[j]
        total[j] += value
        square += value * value
    return square


@njit()
def _first(bad: Any) -> int:
    for wrong in bad:
        if wrong >= 0:
            return wrong
    return -1


@njit(parallel=True)
def top_affinity_backward(x: Any, expert: Any, gradient: Any, experts: int, lengths: Any, result: Any) -> None:
    """Write the gradient with respect to x (tokens, dim); see naive.top_affinity_backward.

    With the lengths of `top_affinity` each row is read once, beside the write of its gradient, and only the chosen blocks are
    summed before; otherwise it is read twice, the second time from the cache.
    """
    tokens, dim = x.shape
    top, block = expert.shape[1], dim // experts
    scale, blocks = np.sqrt(experts / dim), x.reshape(tokens * experts, block)
    for chunk in numba.prange(_CHUNKS):
        sums, one = room(experts), np.empty(1)
        pull = np.zeros(experts)
        for row in range(chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS):
            length, divisor = np.nan, 1.0
            if lengths.shape[0] > 0:
                length = lengths[row]
            known = length == length
            if not known:
                length, divisor = measure(x, row, experts, block, sums)
            inverse = 0.0 if length == 0.0 else 1.0 / length
            along = 0.0
            for k in range(top):
                chosen = expert[row, k]
                if known:
                    block_sums(blocks, row * experts + chosen, block, block, one)
                along += gradient[row, k] * (one[0] if known else sums[chosen])
                pull[chosen] += gradient[row, k] * scale * inverse / divisor
            along *= scale * inverse  # first, since the cube of a short row's inverse would leave the range
            along *= inverse * inverse / divisor
            if divisor == 1.0 and block % STEP == 0:
                write_gradient(x, row, dim, block, pull, along, result)
            else:
                for i in range(experts):
                    for j in range(i * block, (i + 1) * block):
                        result[row, j] = pull[i] - along * (x[row, j] / divisor)
            for k in range(top):
                pull[expert[row, k]] = 0.0


@njit(parallel=True)
def route(
    x: Any, samples: int, experts: int, capacity: int, weight: Any, bits: Any, expert: Any, keys: Any, places: Any
) -> Any:
    """Find the affinities and keep, see naive.top_affinity and naive.keep_heaviest: (bad, load, sample, expert, token, slot).

    x: (samples * tokens, dim); scratch as `scratch` gives it: weight, expert (samples * tokens, top); bits: weight as
    unsigned integers; keys, places. bad: the first row that holds NaN or infinite values, or -1; sample: empty for one.
    """
    top, tokens, parts = weight.shape[1], x.shape[0] // samples, max(1, _CHUNKS // samples)
    place = np.zeros((samples * parts, experts), np.int64)
    bad = np.full(samples * parts, -1, np.int64)
    for part in numba.prange(samples * parts):
        start_row, share = part // parts * tokens, part % parts
        begin, stop = start_row + share * tokens // parts, start_row + (share + 1) * tokens // parts
        bad[part] = choose_rows(begin, stop, x, experts, room(experts), weight, expert, np.empty(0))
        if bad[part] < 0:
            for row in range(begin, stop):
                for k in range(top):
                    place[part, expert[row, k]] += 1
    wrong = _first(bad)
    load, start, first = starts(place, samples, experts, capacity)
    kept = first[-1] if wrong < 0 else 0
    # Fresh memory costs more than filling it: the samples are left out where there is one.
    out_sample, out_expert = np.empty(kept if samples > 1 else 0, np.int64), np.empty(kept, np.int64)
    out_token, out_slot = np.empty(kept, np.int64), np.empty(kept, np.int64)
    if wrong < 0:
        out = out_expert, out_token, out_slot, experts
        flat_bits, flat_expert = bits.reshape(samples, -1), expert.reshape(samples, -1)
        for part in numba.prange(samples * parts):
            bucket(part, parts, top, flat_bits, flat_expert, place, keys[0], places[0])
        for row in numba.prange(samples * experts):
            list_kept(row, top, start, first, keys, places, out)
            if samples > 1:
                out_sample[first[row] : first[row + 1]] = row // experts
    return wrong, load, out_sample, out_expert, out_token, out_slot


@njit(parallel=True)
def slots(weight: Any, bits: Any, expert: Any, top: int, experts: int, capacity: int, keys: Any, places: Any) -> Any:
    """Slots of the candidates, see naive.slots: (bad, load, slot).

    weight, expert: (samples, tokens * top); bits: weight as unsigned integers; keys, places: scratch, as `scratch`
    gives it. bad: the first flat index whose weight is not finite or whose expert is out of range, or -1.
    """
    samples, size = weight.shape
    parts, tokens = max(1, _CHUNKS // (4 * samples)), size // top
    place = np.zeros((samples * parts, experts), np.int64)
    bad = np.full(samples * parts, -1, np.int64)
    for part in numba.prange(samples * parts):
        sample, share = part // parts, part % parts
        for p in range(share * tokens // parts * top, (share + 1) * tokens // parts * top):
            e = expert[sample, p]
            if not (0 <= e < experts and abs(weight[sample, p]) < np.inf):
                bad[part] = sample * size + p
                break
            place[part, e] += 1
    wrong = _first(bad)
    load, start, _ = starts(place, samples, experts, capacity)
    slot = np.empty((samples, size if wrong < 0 else 0), np.int64)
    if wrong < 0:
        for part in numba.prange(samples * parts):
            bucket(part, parts, top, bits, expert, place, keys[0], places[0])
        for row in numba.prange(samples * experts):
            pairs = ordered(row, start, keys, places)
            for rank in range(pairs.shape[0]):
                slot[row // experts, pairs[rank]] = rank if rank < capacity else -1
    return wrong, load, slot


def scratch(rows: int, top: int, kind: Any) -> tuple[Any, Any, Any, Any, Any]:
    """weight, bits, expert, keys and places for `route` of that many tokens, and for `slots`.

    Each thread keeps its own, since fresh memory is slow.
    """
    kept = getattr(_kept, "views", None)
    if kept is not None and kept[0] == (rows, top, kind):
        return kept[1]
    pairs, unsigned = rows * top, np.uint32 if kind.itemsize == 4 else np.uint64
    size = (3 * kind.itemsize + 12) * pairs
    memory = getattr(_kept, "memory", None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
    keys = memory[: 2 * pairs * kind.itemsize].view(unsigned).reshape(2, pairs)
    rest = memory[keys.nbytes : size]
    bits, rest = rest[: keys.nbytes // 2].view(unsigned).reshape(rows, top), rest[keys.nbytes // 2 :].view(np.uint32)
    views = bits.view(kind), bits, rest[:pairs].reshape(rows, top), keys, rest[pairs:].reshape(2, pairs)
    if memory.size <= _KEEP:
        _kept.memory, _kept.views = memory, ((rows, top, kind), views)
    return views
