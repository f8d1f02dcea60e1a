"""Each expert's candidates, best first, for the CPU kernels: by counting to the experts, then by radix sort."""

from __future__ import annotations

from typing import Any

import numpy as np

from resonance_theory.kernels.jit import njit

__all__ = ["bucket", "list_kept", "ordered", "starts"]

_SHORT = 32  # rows up to here are sorted by insertion


@njit()
def _falling(bits: Any, sign: Any) -> Any:
    """An integer that rises as the float with these bits falls; both zeros give the same. sign: the top bit."""
    # Positive: larger magnitudes come earlier. Negative, above all of these: larger magnitudes come later.
    return bits if bits > sign else (sign - np.uint64(1)) - (bits & (sign - np.uint64(1)))


@njit()
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


@njit()
def starts(place: Any, samples: int, experts: int, capacity: int) -> Any:
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


@njit()
def bucket(part: int, parts: int, top: int, bits: Any, expert: Any, place: Any, key: Any, pair: Any) -> None:
    """Put a part's candidates to their expert, in position order: stable sorting then keeps ties in that order."""
    sample, share, tokens = part // parts, part % parts, bits.shape[1] // top
    sign = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    for p in range(share * tokens // parts * top, (share + 1) * tokens // parts * top):
        at = place[part, expert[sample, p]]
        key[at], pair[at] = _falling(np.uint64(bits[sample, p]), sign), p
        place[part, expert[sample, p]] = at + 1


@njit()
def ordered(row: int, start: Any, keys: Any, places: Any) -> Any:
    """The candidates of an expert, best first."""
    low, high = start[row], start[row + 1]
    swapped = _sort_row(keys[0, low:high], places[0, low:high], keys[1, low:high], places[1, low:high])
    return places[1 if swapped else 0, low:high]


@njit()
def list_kept(row: int, top: int, start: Any, first: Any, keys: Any, places: Any, out: Any) -> None:
    """Write what an expert keeps; out: expert, token and slot."""
    experts, pairs = out[3], ordered(row, start, keys, places)
    for slot in range(first[row + 1] - first[row]):
        k = first[row] + slot
        out[0][k], out[2][k] = row % experts, slot
        out[1][k] = pairs[slot] if top == 1 else pairs[slot] // top
