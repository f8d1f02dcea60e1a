"""The CPU kernels (numba): block sums and squared norm in one read of x, and selection by radix sort.

Nothing here checks its arguments; `resonance_theory.kernels` does. The references are in `naive.py`.

Sums run in float64 over fixed lanes, written as vector instructions: the order of every addition is fixed by the code,
not by the compiler, the number of threads, the batch or the position of a token. For float32 tokens the products are
exact in float64, so fused and separate multiply-add give the same bits.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numba
import numpy as np

from resonance_theory.kernels._vectors import LANES, STEP, block_sums, block_sums_by_eight, highest, write_gradient

__all__ = ["project", "project_backward", "route", "run", "scratch", "select", "serial"]

# numba types its decorators for plain calls only
njit: Any = functools.partial(numba.njit, cache=True, nogil=True)

_CHUNKS = 64  # units of parallel work; results do not depend on it
_WORTH = 2**16  # entries of x that are worth a thread of their own
_KEEP = 2**25  # bytes of scratch that a thread may hold on to
_SHORT = 32  # rows up to here are sorted by insertion
_LOW = float(np.finfo(np.float64).smallest_normal / np.finfo(np.float64).eps ** 2)  # see extractor._scaled


@njit
def _room(experts: int) -> Any:
    """Space for block sums, filled up to whole vectors with what is no expert's."""
    return np.full(-(-experts // LANES) * LANES, -np.inf)


@njit(inline="always")
def _block_sums(x: Any, row: int, experts: int, block: int, sums: Any) -> float:
    """Block sums of a row in `sums`; its sum of squares. block: dim / experts, since a division takes its time."""
    dim = x.shape[1]
    if block % STEP == 0 and experts % LANES == 0:
        return block_sums_by_eight(x, row, dim, block, sums)
    return block_sums(x, row, dim, block, sums)


@njit
def _measure(x: Any, row: int, experts: int, block: int, sums: Any) -> tuple[float, float]:
    """Block sums of a row in `sums`; its length, and the number by which both are divided (1 unless out of range).

    The length is NaN where the row holds NaN or infinite values.
    """
    dim = x.shape[1]
    square = _block_sums(x, row, experts, block, sums)
    if _LOW < square < np.inf:
        return np.sqrt(square), 1.0
    largest = 0.0
    for j in range(dim):
        if not abs(x[row, j]) < np.inf:
            return np.nan, 1.0
        largest = max(largest, abs(np.float64(x[row, j])))
    if largest == 0.0:
        return 0.0, 1.0
    spare = np.empty((1, dim), np.float64)
    for j in range(dim):
        spare[0, j] = x[row, j] / largest
    return np.sqrt(block_sums(spare, 0, dim, block, sums)), largest


@njit(inline="always")
def _choose(
    x: Any,
    row: int,
    experts: int,
    block: int,
    scale: float,
    tiny: float,
    sums: Any,
    weight: Any,
    expert: Any,
    lengths: Any,
) -> bool:
    """Write the highest affinities of a row and their experts; false, having written nothing of use, where that fails.

    The choice is made by the sums themselves, without a division for each expert. It fails where rounding could make a
    tie and where squares leave the range. tiny: more than the spacing of denormal numbers, over scale.
    """
    square = _block_sums(x, row, experts, block, sums)
    top = weight.shape[1]
    fits, length = _LOW < square < np.inf, np.sqrt(square)
    if lengths.shape[0] > 0:
        lengths[row] = length if fits else np.nan
    if not fits or top > 4:
        return False
    bound, clear = np.inf, True
    for k in range(top):
        best, bound, place = highest(sums, bound, length * tiny)
        clear = clear and place >= 0
        # Rounding can push a cosine beyond 1; only one expert's, so the order stands.
        weight[row, k], expert[row, k] = min(max(best * scale / length, -1.0), 1.0), place
    return clear


@njit
def _choose_carefully(
    x: Any, row: int, experts: int, block: int, scale: float, sums: Any, weight: Any, expert: Any
) -> bool:
    """The same for any row; false where it holds NaN or infinite values. Apart, since it would slow the other down."""
    length, _ = _measure(x, row, experts, block, sums)
    if np.isnan(length):
        return False
    if length == 0.0:
        length = 1.0
    cosine = np.empty(experts, weight.dtype)
    for i in range(experts):
        cosine[i] = sums[i] * scale / length
    _highest(cosine, weight[row], expert[row])
    for k in range(weight.shape[1]):
        weight[row, k] = min(max(weight[row, k], -1.0), 1.0)
    return True


@njit
def _choose_rows(first: int, stop: int, x: Any, experts: int, sums: Any, weight: Any, expert: Any, lengths: Any) -> int:
    """Do so for rows first..stop; the first that holds NaN or infinite values, or -1."""
    block, scale = x.shape[1] // experts, np.sqrt(experts / x.shape[1])
    tiny = 2.0**-147 / scale
    for row in range(first, stop):
        if not (
            _choose(x, row, experts, block, scale, tiny, sums, weight, expert, lengths)
            or _choose_carefully(x, row, experts, block, scale, sums, weight, expert)
        ):
            return row
    return -1


@njit
def _highest(cosine: Any, weight: Any, expert: Any) -> None:
    """The highest entries of `cosine` in falling order, ties by index: insertion into a short sorted list."""
    top = weight.shape[0]
    for i in range(cosine.shape[0]):
        value = cosine[i]
        if i >= top and not value > weight[top - 1]:
            continue
        place = min(i, top - 1)
        while place > 0 and value > weight[place - 1]:
            weight[place] = weight[place - 1]
            expert[place] = expert[place - 1]
            place -= 1
        weight[place] = value
        expert[place] = i


@njit(parallel=True)
def project(x: Any, experts: int, weight: Any, expert: Any, lengths: Any) -> int:
    """Write the highest affinities of each row of x (tokens, dim) and their experts; see naive.project.

    weight, expert: (tokens, top); lengths: empty, or (tokens,), for `project_backward`: of each row, NaN where its squares
    leave the range. Returns the first row that holds NaN or infinite values, or -1.
    """
    tokens, bad = x.shape[0], np.full(_CHUNKS, -1, np.int64)
    for chunk in numba.prange(_CHUNKS):
        begin, stop = chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS
        bad[chunk] = _choose_rows(begin, stop, x, experts, _room(experts), weight, expert, lengths)
    return _first(bad)


@njit
def _first(bad: Any) -> int:
    for wrong in bad:
        if wrong >= 0:
            return wrong
    return -1


@njit(parallel=True)
def project_backward(x: Any, expert: Any, gradient: Any, experts: int, lengths: Any, result: Any) -> None:
    """Write the gradient with respect to x (tokens, dim); see naive.project_backward.

    With the lengths of `project` each row is read once, beside the write of its gradient, and only the chosen blocks are
    summed before; otherwise it is read twice, the second time from the cache.
    """
    tokens, dim = x.shape
    top, block = expert.shape[1], dim // experts
    scale, blocks = np.sqrt(experts / dim), x.reshape(tokens * experts, block)
    for chunk in numba.prange(_CHUNKS):
        sums, one = _room(experts), np.empty(1)
        pull = np.zeros(experts)
        for row in range(chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS):
            length, divisor = np.nan, 1.0
            if lengths.shape[0] > 0:
                length = lengths[row]
            known = length == length
            if not known:
                length, divisor = _measure(x, row, experts, block, sums)
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


@njit
def _falling(bits: Any, sign: Any) -> Any:
    """An integer that rises as the float with these bits falls; both zeros give the same. sign: the top bit."""
    # Positive: larger magnitudes come earlier. Negative, above all of these: larger magnitudes come later.
    return bits if bits > sign else (sign - np.uint64(1)) - (bits & (sign - np.uint64(1)))


@njit
def _sort_row(key: Any, pair: Any, spare_key: Any, spare_pair: Any) -> bool:
    """Sort (key, pair) by rising key, stably; true where the result lies in the spare arrays."""
    size = key.shape[0]
    if size <= _SHORT:
        for i in range(1, size):
            k, p = key[i], pair[i]
            j = i
            while j > 0 and key[j - 1] > k:
                key[j], pair[j] = key[j - 1], pair[j - 1]
                j -= 1
            key[j], pair[j] = k, p
        return False
    # Only digits in which the keys can differ, counted at once: one sweep, and repeated digits do not wait.
    low = high = key[0]
    for i in range(size):
        low, high = min(low, key[i]), max(high, key[i])
    bits = 0
    while bits < 64 and np.uint64(high - low) >> np.uint64(bits):
        bits += 1
    digits = max(1, -(-bits // 8))
    width = -(-bits // digits)
    wide, mask = np.uint64(width), np.uint64((1 << width) - 1)
    count = np.zeros((digits, 1 << width), np.uint32)
    for i in range(size):
        rest: Any = np.uint64(key[i] - low)
        for digit in range(digits):
            count[digit, rest & mask] += np.uint32(1)
            rest >>= wide
    swapped = False
    for digit in range(digits):
        shift, place, total = np.uint64(digit * width), count[digit], np.uint32(0)
        for value in range(1 << width):
            total, place[value] = total + place[value], total
        for i in range(size):
            k = key[i]
            bucket = (np.uint64(k - low) >> shift) & mask
            at = place[bucket]
            spare_key[at], spare_pair[at] = k, pair[i]
            place[bucket] = at + np.uint32(1)
        key, spare_key = spare_key, key
        pair, spare_pair = spare_pair, pair
        swapped = not swapped
    return swapped


@njit
def _starts(place: Any, samples: int, experts: int, capacity: int) -> Any:
    """Where each expert's candidates start in the order by expert, and its kept ones among all kept; loads.

    place: (samples * parts, experts), candidates counted in each part of a sample; becomes where the part puts its own.
    """
    parts, rows = place.shape[0] // samples, samples * experts
    load = np.zeros((samples, experts), np.int64)
    start, first = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    for sample in range(samples):
        for e in range(experts):
            row = sample * experts + e
            at = start[row]
            for part in range(sample * parts, (sample + 1) * parts):
                at, place[part, e] = at + place[part, e], at
            load[sample, e] = at - start[row]
            start[row + 1] = at
            first[row + 1] = first[row] + min(load[sample, e], capacity)
    return load, start, first


@njit
def _bucket(part: int, parts: int, top: int, bits: Any, expert: Any, place: Any, key: Any, pair: Any) -> None:
    """Put a part's candidates to their expert, in position order: stable sorting then keeps ties in that order."""
    sample, share, tokens = part // parts, part % parts, bits.shape[1] // top
    sign = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    for p in range(share * tokens // parts * top, (share + 1) * tokens // parts * top):
        at = place[part, expert[sample, p]]
        key[at], pair[at] = _falling(np.uint64(bits[sample, p]), sign), p
        place[part, expert[sample, p]] = at + 1


@njit
def _ordered(row: int, start: Any, keys: Any, places: Any) -> Any:
    """The candidates of an expert, best first."""
    low, high = start[row], start[row + 1]
    swapped = _sort_row(keys[0, low:high], places[0, low:high], keys[1, low:high], places[1, low:high])
    return places[1 if swapped else 0, low:high]


@njit
def _list_kept(row: int, top: int, start: Any, first: Any, keys: Any, places: Any, out: Any) -> None:
    """Write what an expert keeps; out: expert, token and slot."""
    experts, ordered = out[3], _ordered(row, start, keys, places)
    for slot in range(first[row + 1] - first[row]):
        k = first[row] + slot
        out[0][k], out[2][k] = row % experts, slot
        out[1][k] = ordered[slot] if top == 1 else ordered[slot] // top


@njit(parallel=True)
def route(
    x: Any, samples: int, experts: int, capacity: int, weight: Any, bits: Any, expert: Any, keys: Any, places: Any
) -> Any:
    """Project and keep, see naive.project and naive.select: (bad, load, sample, expert, token, slot).

    x: (samples * tokens, dim); scratch as `scratch` gives it: weight, expert (samples * tokens, top); bits: weight as
    unsigned integers; keys, places. bad: the first row that holds NaN or infinite values, or -1; sample: empty for one.
    """
    top, tokens, parts = weight.shape[1], x.shape[0] // samples, max(1, _CHUNKS // samples)
    place = np.zeros((samples * parts, experts), np.int64)
    bad = np.full(samples * parts, -1, np.int64)
    for part in numba.prange(samples * parts):
        start_row, share = part // parts * tokens, part % parts
        begin, stop = start_row + share * tokens // parts, start_row + (share + 1) * tokens // parts
        bad[part] = _choose_rows(begin, stop, x, experts, _room(experts), weight, expert, np.empty(0))
        if bad[part] < 0:
            for row in range(begin, stop):
                for k in range(top):
                    place[part, expert[row, k]] += 1
    wrong = _first(bad)
    load, start, first = _starts(place, samples, experts, capacity)
    kept = first[-1] if wrong < 0 else 0
    # Fresh memory costs more than filling it: the samples are left out where there is one.
    out_sample, out_expert = np.empty(kept if samples > 1 else 0, np.int64), np.empty(kept, np.int64)
    out_token, out_slot = np.empty(kept, np.int64), np.empty(kept, np.int64)
    if wrong < 0:
        out = out_expert, out_token, out_slot, experts
        flat_bits, flat_expert = bits.reshape(samples, -1), expert.reshape(samples, -1)
        for part in numba.prange(samples * parts):
            _bucket(part, parts, top, flat_bits, flat_expert, place, keys[0], places[0])
        for row in numba.prange(samples * experts):
            _list_kept(row, top, start, first, keys, places, out)
            if samples > 1:
                out_sample[first[row] : first[row + 1]] = row // experts
    return wrong, load, out_sample, out_expert, out_token, out_slot


@njit(parallel=True)
def select(weight: Any, bits: Any, expert: Any, top: int, experts: int, capacity: int, keys: Any, places: Any) -> Any:
    """Slots of the candidates, see naive.slots: (bad, load, slot).

    weight, expert: (samples, tokens * top); bits: weight as unsigned integers; keys, places: scratch, as `scratch`
    gives it. bad: the first flat index whose weight is not finite or whose expert is out of range, or -1.
    """
    samples, pairs = weight.shape
    parts, tokens = max(1, _CHUNKS // (4 * samples)), pairs // top
    place = np.zeros((samples * parts, experts), np.int64)
    bad = np.full(samples * parts, -1, np.int64)
    for part in numba.prange(samples * parts):
        sample, share = part // parts, part % parts
        for p in range(share * tokens // parts * top, (share + 1) * tokens // parts * top):
            e = expert[sample, p]
            if not (0 <= e < experts and abs(weight[sample, p]) < np.inf):
                bad[part] = sample * pairs + p
                break
            place[part, e] += 1
    wrong = _first(bad)
    load, start, _ = _starts(place, samples, experts, capacity)
    slot = np.empty((samples, pairs if wrong < 0 else 0), np.int64)
    if wrong < 0:
        for part in numba.prange(samples * parts):
            _bucket(part, parts, top, bits, expert, place, keys[0], places[0])
        for row in numba.prange(samples * experts):
            ordered = _ordered(row, start, keys, places)
            for rank in range(ordered.shape[0]):
                slot[row // experts, ordered[rank]] = rank if rank < capacity else -1
    return wrong, load, slot


_kept = threading.local()


def scratch(rows: int, top: int, kind: Any) -> tuple[Any, Any, Any, Any, Any]:
    """weight, bits, expert, keys and places for `route` of that many tokens, and for `select`.

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


def run(name: str, work: int, *arguments: Any) -> Any:
    """Call a kernel on as many threads as its work, in reads of x, keeps busy: waking one costs more than 100 kB."""
    kernel, threads = globals()[name], numba.get_num_threads()
    few = max(1, min(threads, work // _WORTH))
    if few == threads:
        return kernel(*arguments)
    numba.set_num_threads(few)
    try:
        return kernel(*arguments)
    finally:
        numba.set_num_threads(threads)


@functools.cache
def serial(name: str) -> Any:
    """The kernel without threads: same arithmetic, same result."""
    return numba.njit(globals()[name].py_func, nogil=True)
