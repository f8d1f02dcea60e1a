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

from resonance_theory.kernels._vectors import LANES, STEP, block_sums, block_sums_by_eight, write_gradient

__all__ = ["project", "project_backward", "run", "scratch", "select", "serial"]

# numba types its decorators for plain calls only
njit: Any = functools.partial(numba.njit, cache=True, nogil=True)

_CHUNKS = 64  # units of parallel work; results do not depend on it
_WORTH = 2**16  # entries of x that are worth a thread of their own
_KEEP = 2**25  # bytes of scratch that a thread may hold on to
_SHORT = 32  # rows up to here are sorted by insertion
_LOW = float(np.finfo(np.float64).smallest_normal / np.finfo(np.float64).eps ** 2)  # see extractor._scaled


@njit
def _measure(x: Any, row: int, block: int, sums: Any, spare: Any) -> tuple[float, float]:
    """Block sums of a row in `sums`; its length, and the number by which both are divided (1 unless out of range).

    The length is NaN where the row holds NaN or infinite values.
    """
    dim = x.shape[1]
    if block % STEP == 0 and sums.shape[0] % LANES == 0:
        square = block_sums_by_eight(x, row, dim, block, sums)
    else:
        square = block_sums(x, row, dim, block, sums)
    if _LOW < square < np.inf:
        return np.sqrt(square), 1.0
    largest = 0.0
    for j in range(dim):
        if not abs(x[row, j]) < np.inf:
            return np.nan, 1.0
        largest = max(largest, abs(np.float64(x[row, j])))
    if largest == 0.0:
        return 0.0, 1.0
    for j in range(dim):
        spare[0, j] = x[row, j] / largest
    return np.sqrt(block_sums(spare, 0, dim, block, sums)), largest


@njit(parallel=True)
def project(x: Any, experts: int, top: int, weight: Any, expert: Any) -> int:
    """Write the `top` highest affinities of each row of x (tokens, dim) and their experts; see naive.project.

    Returns the first row that holds NaN or infinite values, or -1.
    """
    tokens, dim = x.shape
    block = dim // experts
    scale = np.sqrt(experts / dim)
    bad = np.full(_CHUNKS, -1, np.int64)
    for chunk in numba.prange(_CHUNKS):
        sums = np.empty(experts, np.float64)
        spare = np.empty((1, dim), np.float64)
        cosine = np.empty(experts, weight.dtype)
        for row in range(chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS):
            length, _ = _measure(x, row, block, sums, spare)
            if np.isnan(length):
                bad[chunk] = row
                break
            if length == 0.0:
                length = 1.0
            if not _clear_winners(sums, scale, length, weight[row], expert[row]):
                _measure(x, row, block, sums, spare)
                for i in range(experts):
                    cosine[i] = sums[i] * scale / length
                _highest(cosine, weight[row], expert[row])
            for k in range(top):  # rounding can push a cosine beyond 1; only one expert's, so the order stands
                weight[row, k] = min(max(weight[row, k], -1.0), 1.0)
    for chunk in range(_CHUNKS):
        if bad[chunk] >= 0:
            return bad[chunk]
    return -1


@njit(fastmath={"nnan", "nsz"})
def _largest(sums: Any) -> float:
    best = sums[0]
    for i in range(1, sums.shape[0]):
        best = max(best, sums[i])
    return best


@njit
def _clear_winners(sums: Any, scale: float, length: float, weight: Any, expert: Any) -> bool:
    """Choose by the sums themselves where rounding cannot make a tie; false where it could. Overwrites `sums`.

    Two searches of the sums for each choice, which the compiler vectorises, instead of a division for each expert.
    """
    top = weight.shape[0]
    if top > 4:
        return False
    for k in range(top):
        best = _largest(sums)
        # More than the spacing of float32, of normal and of denormal numbers, at the best sum.
        limit = best - (abs(best) * 2.0**-22 + length / scale * 2.0**-147)
        near, place = 0, 0
        for i in range(sums.shape[0]):
            close = sums[i] >= limit
            near += close
            place += i * close
        if near > 1:
            return False
        weight[k], expert[k] = best * scale / length, place
        sums[place] = -np.inf
    return True


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
def project_backward(x: Any, expert: Any, gradient: Any, experts: int, result: Any) -> None:
    """Write the gradient with respect to x (tokens, dim); see naive.project_backward.

    The row is read a second time while it is in the cache, so that memory sees one read and one write.
    """
    tokens, dim = x.shape
    top, block = expert.shape[1], dim // experts
    scale = np.sqrt(experts / dim)
    for chunk in numba.prange(_CHUNKS):
        sums = np.empty(experts, np.float64)
        spare = np.empty((1, dim), np.float64)
        for row in range(chunk * tokens // _CHUNKS, (chunk + 1) * tokens // _CHUNKS):
            length, divisor = _measure(x, row, block, sums, spare)
            inverse = 0.0 if length == 0.0 else 1.0 / length
            along = 0.0
            for k in range(top):
                along += gradient[row, k] * sums[expert[row, k]]
            sums[:] = 0.0
            for k in range(top):
                sums[expert[row, k]] += gradient[row, k] * scale * inverse / divisor
            along *= scale * inverse * inverse * inverse / divisor
            if divisor == 1.0 and block % STEP == 0:
                write_gradient(x, row, dim, block, sums, along, result)
            else:
                for i in range(experts):
                    for j in range(i * block, (i + 1) * block):
                        result[row, j] = sums[i] - along * (x[row, j] / divisor)


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
    # The digits of all keys are counted at once: one sweep, and repeated digits do not wait for each other.
    count = np.zeros((key.itemsize, 256), np.int64)
    for i in range(size):
        rest: Any = np.uint64(key[i])
        for digit in range(key.itemsize):
            count[digit, rest & np.uint64(255)] += 1
            rest >>= np.uint64(8)
    swapped = False
    for digit in range(key.itemsize):
        shift, place = np.uint64(8 * digit), count[digit]
        if place[(np.uint64(key[0]) >> shift) & np.uint64(255)] == size:
            continue  # all share this digit
        total = 0
        for value in range(256):
            total, place[value] = total + place[value], total
        for i in range(size):
            k = key[i]
            bucket = (np.uint64(k) >> shift) & np.uint64(255)
            at = place[bucket]
            spare_key[at], spare_pair[at] = k, pair[i]
            place[bucket] = at + 1
        key, spare_key = spare_key, key
        pair, spare_pair = spare_pair, pair
        swapped = not swapped
    return swapped


@njit(parallel=True)
def select(
    weight: Any, bits: Any, expert: Any, top: int, experts: int, capacity: int, compact: bool, keys: Any, places: Any
) -> Any:
    """Keep the `capacity` candidates of highest weight of every expert; see naive.select.

    weight, expert: (samples, tokens * top); bits: weight as unsigned integers; keys, places:
    scratch, as `scratch` gives it. Returns (bad, load, sample, expert,
    token, slot, table): `bad` is the first flat index whose weight is not finite or whose expert is out of range, or
    -1; sample to slot are the compact result, and `table`, of the shape of `weight`, holds each candidate's slot, -1
    where it is dropped; only the one asked for.
    """
    samples, pairs = weight.shape
    rows = samples * experts
    parts = max(1, _CHUNKS // (4 * samples))  # of a sample, counted and bucketed side by side
    place = np.zeros((samples * parts, experts), np.int64)
    bad = np.full(samples * parts, -1, np.int64)
    for part in numba.prange(samples * parts):
        sample, part_of_sample = part // parts, part % parts
        for p in range(part_of_sample * pairs // parts, (part_of_sample + 1) * pairs // parts):
            e = expert[sample, p]
            if not (0 <= e < experts and abs(weight[sample, p]) < np.inf):
                bad[part] = sample * pairs + p
                break
            place[part, e] += 1
    load = np.zeros((samples, experts), np.int64)
    start, first = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    wrong = -1
    for sample in range(samples):
        for e in range(experts):
            row = sample * experts + e
            at = start[row]
            for part in range(sample * parts, (sample + 1) * parts):
                at, place[part, e] = at + place[part, e], at
            load[sample, e] = at - start[row]
            start[row + 1] = at
            first[row + 1] = first[row] + min(load[sample, e], capacity)
    for part in range(samples * parts):
        if bad[part] >= 0:
            wrong = bad[part]
            break
    kept = first[rows] if compact and wrong < 0 else 0
    # Fresh memory costs more than filling it: the samples are left out where there is one.
    out_sample, out_expert = np.empty(kept if samples > 1 else 0, np.int64), np.empty(kept, np.int64)
    out_token, out_slot = np.empty(kept, np.int64), np.empty(kept, np.int64)
    table = np.empty((0, 0) if compact else (samples, pairs), np.int64)
    if wrong >= 0:
        return wrong, load, out_sample, out_expert, out_token, out_slot, table

    # Bucket by expert, in position order; keys rise as weights fall, so that stable sorting keeps ties in that order.
    sign = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    key, spare_key, pair, spare_pair = keys[0], keys[1], places[0], places[1]
    for part in numba.prange(samples * parts):
        sample, part_of_sample = part // parts, part % parts
        for p in range(part_of_sample * pairs // parts, (part_of_sample + 1) * pairs // parts):
            e = expert[sample, p]
            key[place[part, e]] = _falling(np.uint64(bits[sample, p]), sign)
            pair[place[part, e]] = p
            place[part, e] += 1
    for row in numba.prange(rows):
        low, high = start[row], start[row + 1]
        swapped = _sort_row(key[low:high], pair[low:high], spare_key[low:high], spare_pair[low:high])
        ordered = spare_pair[low:high] if swapped else pair[low:high]
        keep = min(high - low, capacity)
        sample, e = row // experts, row % experts
        if compact:
            for slot in range(keep):
                k = first[row] + slot
                out_expert[k], out_slot[k] = e, slot
                out_token[k] = ordered[slot] if top == 1 else ordered[slot] // top
            if samples > 1:
                out_sample[first[row] : first[row] + keep] = sample
        else:
            for slot in range(high - low):
                table[sample, ordered[slot]] = slot if slot < keep else -1
    return wrong, load, out_sample, out_expert, out_token, out_slot, table


_kept = threading.local()


def scratch(pairs: int, bits: Any) -> tuple[Any, Any]:
    """Two rows of keys and two of indices for `select`; each thread keeps its own, since fresh memory is slow."""
    size = 2 * pairs * bits.itemsize
    memory = getattr(_kept, "memory", None)
    if memory is None or memory.size < size + 8 * pairs:
        memory = np.empty(size + 8 * pairs, np.uint8)
        _kept.memory = memory if memory.size <= _KEEP else None
    return memory[:size].view(bits).reshape(2, pairs), memory[size : size + 8 * pairs].view(np.uint32).reshape(2, pairs)


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
