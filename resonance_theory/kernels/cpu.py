"""The CPU kernels (numba): block sums and squared norm in one read of x, and selection by radix sort.

Nothing here checks its arguments; `resonance_theory.kernels` does. The references are in `naive.py`.

Sums run in float64 over fixed lanes, written as vector instructions: the order of every addition is fixed by the code,
not by the compiler, the number of threads, the batch or the position of a token. For float32 tokens the products are
exact in float64, so fused and separate multiply-add give the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types

__all__ = ["project", "project_backward", "select"]

# numba types its decorators for plain calls only
njit: Any = functools.partial(numba.njit, cache=True, nogil=True)
intrinsic: Any = extending.intrinsic

_LANES = 8  # of float64: one AVX-512 register, two of AVX2, four of NEON
_STEP = 2 * _LANES
_CHUNKS = 64  # units of parallel work; results do not depend on it
_SHORT = 32  # rows up to here are sorted by insertion
_LOW = float(np.finfo(np.float64).smallest_normal / np.finfo(np.float64).eps ** 2)  # see extractor._scaled


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _total(builder: Any, vector: Any) -> Any:
    """Sum of the lanes as a fixed tree: halves are added until one lane is left."""
    size = vector.type.count
    while size > 1:
        size //= 2
        low = _shuffle(builder, vector, vector, list(range(size)))
        high = _shuffle(builder, vector, vector, list(range(size, 2 * size)))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


@intrinsic
def _block_sums(typingctx: Any, x: Any, row: Any, dim: Any, block: Any, sums: Any) -> Any:
    """Write the sum of each block of x[row, :] to `sums`; return the sum of squares of the row."""
    wide = isinstance(x.dtype, types.Float) and x.dtype.bitwidth == 64

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, dim, block, sums = arguments
        size, double = ir.IntType(64), ir.DoubleType()
        narrow = double if wide else ir.FloatType()
        pack, half = ir.VectorType(narrow, _STEP), ir.VectorType(double, _LANES)
        zero, one, step = ir.Constant(size, 0), ir.Constant(size, 1), ir.Constant(size, _STEP)
        x_data = builder.gep(_data(context, builder, signature.args[0], array), [builder.mul(row, dim)])
        sum_data = _data(context, builder, signature.args[4], sums)
        empty = ir.Constant(half, [0.0] * _LANES)
        nothing = ir.Constant(double, 0.0)
        whole = builder.sub(block, builder.srem(block, step))  # entries of a block that fill the lanes

        entry = builder.block
        function = builder.function
        head = function.append_basic_block("block.head")
        body = function.append_basic_block("block.body")
        lanes_head = function.append_basic_block("lanes.head")
        lanes_body = function.append_basic_block("lanes.body")
        rest = function.append_basic_block("rest")
        rest_head = function.append_basic_block("rest.head")
        rest_body = function.append_basic_block("rest.body")
        write = function.append_basic_block("write")
        done = function.append_basic_block("done")
        builder.branch(head)

        builder.position_at_end(head)  # for start in range(0, dim, block)
        start, index = builder.phi(size), builder.phi(size)
        squares = [builder.phi(half), builder.phi(half)]
        square = builder.phi(double)
        for phi, value in ((start, zero), (index, zero), (squares[0], empty), (squares[1], empty), (square, nothing)):
            phi.add_incoming(value, entry)
        builder.cbranch(builder.icmp_signed("<", start, dim), body, done)

        builder.position_at_end(body)
        end = builder.add(start, block)
        full = builder.add(start, whole)
        builder.branch(lanes_head)

        builder.position_at_end(lanes_head)  # for at in range(start, full, 16)
        at = builder.phi(size)
        sum_lanes = [builder.phi(half), builder.phi(half)]
        square_lanes = [builder.phi(half), builder.phi(half)]
        at.add_incoming(start, body)
        for k in range(2):
            sum_lanes[k].add_incoming(empty, body)
            square_lanes[k].add_incoming(squares[k], body)
        builder.cbranch(builder.icmp_signed("<", at, full), lanes_body, rest)

        builder.position_at_end(lanes_body)
        place = builder.bitcast(builder.gep(x_data, [at]), pack.as_pointer())
        values = builder.load(place, align=8 if wide else 4)
        for k in range(2):
            part = _shuffle(builder, values, values, list(range(k * _LANES, (k + 1) * _LANES)))
            part = part if wide else builder.fpext(part, half)
            sum_lanes[k].add_incoming(builder.fadd(sum_lanes[k], part), lanes_body)
            # A float32 product is exact in float64, so that fusing cannot change a bit; a float64 product is not.
            flags = () if wide else ("contract",)
            product = builder.fmul(part, part, flags=flags)
            square_lanes[k].add_incoming(builder.fadd(square_lanes[k], product, flags=flags), lanes_body)
        at.add_incoming(builder.add(at, step), lanes_body)
        builder.branch(lanes_head)

        builder.position_at_end(rest)
        lane_sum = _total(builder, builder.fadd(sum_lanes[0], sum_lanes[1]))
        builder.branch(rest_head)

        builder.position_at_end(rest_head)  # for at in range(full, end)
        single, total, extra = builder.phi(size), builder.phi(double), builder.phi(double)
        for phi, value in ((single, full), (total, lane_sum), (extra, square)):
            phi.add_incoming(value, rest)
        builder.cbranch(builder.icmp_signed("<", single, end), rest_body, write)

        builder.position_at_end(rest_body)
        value = builder.load(builder.gep(x_data, [single]))
        value = value if wide else builder.fpext(value, double)
        total.add_incoming(builder.fadd(total, value), rest_body)
        extra.add_incoming(builder.fadd(extra, builder.fmul(value, value)), rest_body)
        single.add_incoming(builder.add(single, one), rest_body)
        builder.branch(rest_head)

        builder.position_at_end(write)
        builder.store(total, builder.gep(sum_data, [index]))
        start.add_incoming(end, write)
        index.add_incoming(builder.add(index, one), write)
        square.add_incoming(extra, write)
        for k in range(2):
            squares[k].add_incoming(square_lanes[k], write)
        builder.branch(head)

        builder.position_at_end(done)
        return builder.fadd(_total(builder, builder.fadd(squares[0], squares[1])), square)

    return types.float64(x, types.intp, types.intp, types.intp, sums), codegen


@intrinsic
def _write_gradient(
    typingctx: Any, x: Any, row: Any, dim: Any, block: Any, pull: Any, along: Any, result: Any, stream: Any
) -> Any:
    """result[row, j] = pull[j // block] - along * x[row, j], for rows whose blocks are multiples of 16.

    `stream` true writes past the cache, which saves reading the result first; it needs result aligned to 64 bytes.
    """
    wide = x.dtype.bitwidth == 64

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, dim, block, pull, along, result, stream = arguments
        size, double = ir.IntType(64), ir.DoubleType()
        narrow = double if wide else ir.FloatType()
        pack, half = ir.VectorType(narrow, _STEP), ir.VectorType(double, _STEP)
        offset = builder.mul(row, dim)
        source = builder.gep(_data(context, builder, signature.args[0], array), [offset])
        target = builder.gep(_data(context, builder, signature.args[6], result), [offset])
        pull_data = _data(context, builder, signature.args[4], pull)
        zero, one, step = ir.Constant(size, 0), ir.Constant(size, 1), ir.Constant(size, _STEP)

        def spread(value: Any) -> Any:
            first = builder.insert_element(ir.Constant(half, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return _shuffle(builder, first, first, [0] * _STEP)

        factor = spread(along)
        entry, function = builder.block, builder.function
        head = function.append_basic_block("block.head")
        body = function.append_basic_block("block.body")
        lanes_head = function.append_basic_block("lanes.head")
        lanes_body = function.append_basic_block("lanes.body")
        past, through = function.append_basic_block("past"), function.append_basic_block("through")
        following = function.append_basic_block("following")
        after, done = function.append_basic_block("after"), function.append_basic_block("done")
        builder.branch(head)

        builder.position_at_end(head)  # for start in range(0, dim, block)
        start, index = builder.phi(size), builder.phi(size)
        start.add_incoming(zero, entry)
        index.add_incoming(zero, entry)
        builder.cbranch(builder.icmp_signed("<", start, dim), body, done)

        builder.position_at_end(body)
        base = spread(builder.load(builder.gep(pull_data, [index])))
        end = builder.add(start, block)
        builder.branch(lanes_head)

        builder.position_at_end(lanes_head)  # for at in range(start, end, 16)
        at = builder.phi(size)
        at.add_incoming(start, body)
        builder.cbranch(builder.icmp_signed("<", at, end), lanes_body, after)

        builder.position_at_end(lanes_body)
        values = builder.load(builder.bitcast(builder.gep(source, [at]), pack.as_pointer()), align=8 if wide else 4)
        values = values if wide else builder.fpext(values, half)
        values = builder.fsub(base, builder.fmul(factor, values))
        values = values if wide else builder.fptrunc(values, pack)
        place = builder.bitcast(builder.gep(target, [at]), pack.as_pointer())
        builder.cbranch(stream, past, through)

        builder.position_at_end(past)
        store = builder.store(values, place, align=64)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        builder.branch(following)
        builder.position_at_end(through)
        builder.store(values, place, align=8 if wide else 4)
        builder.branch(following)

        builder.position_at_end(following)
        at.add_incoming(builder.add(at, step), following)
        builder.branch(lanes_head)

        builder.position_at_end(after)
        start.add_incoming(end, after)
        index.add_incoming(builder.add(index, one), after)
        builder.branch(head)

        builder.position_at_end(done)
        return context.get_dummy_value()

    signature = types.void(x, types.intp, types.intp, types.intp, pull, types.float64, result, types.boolean)
    return signature, codegen


@njit
def _measure(x: Any, row: int, block: int, sums: Any, spare: Any) -> tuple[float, float]:
    """Block sums of a row in `sums`; its length, and the number by which both are divided (1 unless out of range).

    The length is NaN where the row holds NaN or infinite values.
    """
    dim = x.shape[1]
    square = _block_sums(x, row, dim, block, sums)
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
    return np.sqrt(_block_sums(spare, 0, dim, block, sums)), largest


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
            for i in range(experts):
                cosine[i] = sums[i] * scale / length
            if top == 1:
                best = 0
                for i in range(1, experts):
                    if cosine[i] > cosine[best]:
                        best = i
                weight[row, 0] = cosine[best]
                expert[row, 0] = best
            else:
                _highest(cosine, weight[row], expert[row])
            for k in range(top):  # rounding can push a cosine beyond 1; only one expert's, so the order stands
                weight[row, k] = min(max(weight[row, k], -1.0), 1.0)
    for chunk in range(_CHUNKS):
        if bad[chunk] >= 0:
            return bad[chunk]
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
def project_backward(x: Any, expert: Any, gradient: Any, experts: int, result: Any, stream: bool) -> None:
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
            if divisor == 1.0 and block % _STEP == 0:
                _write_gradient(x, row, dim, block, sums, along, result, stream)
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
    swapped = False
    count = np.empty(256, np.int64)
    for shift in range(0, 8 * key.itemsize, 8):
        count[:] = 0
        for i in range(size):
            count[(key[i] >> shift) & 255] += 1
        if count[(key[0] >> shift) & 255] == size:
            continue  # all share this digit
        place = 0
        for digit in range(256):
            place, count[digit] = place + count[digit], place
        for i in range(size):
            digit = (key[i] >> shift) & 255
            spare_key[count[digit]] = key[i]
            spare_pair[count[digit]] = pair[i]
            count[digit] += 1
        key, spare_key = spare_key, key
        pair, spare_pair = spare_pair, pair
        swapped = not swapped
    return swapped


@njit(parallel=True)
def select(weight: Any, bits: Any, expert: Any, top: int, experts: int, capacity: int, compact: bool) -> Any:
    """Keep the `capacity` candidates of highest weight of every expert; see naive.select.

    weight, expert: (samples, tokens * top); bits: weight as unsigned integers. Returns (bad, load, sample, expert,
    token, slot, table): `bad` is the first flat index whose weight is not finite or whose expert is out of range, or
    -1; sample to slot are the compact result, and `table`, of the shape of `weight`, holds each candidate's slot, -1
    where it is dropped; only the one asked for.
    """
    samples, pairs = weight.shape
    load = np.zeros((samples, experts), np.int64)
    bad = np.full(samples, -1, np.int64)
    for sample in numba.prange(samples):
        for p in range(pairs):
            e = expert[sample, p]
            if not (0 <= e < experts and abs(weight[sample, p]) < np.inf):
                bad[sample] = sample * pairs + p
                break
            load[sample, e] += 1
    rows = samples * experts
    start, first = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    wrong = -1
    for sample in range(samples):
        if bad[sample] >= 0:
            wrong = bad[sample]
            break
        for e in range(experts):
            row = sample * experts + e
            start[row + 1] = start[row] + load[sample, e]
            first[row + 1] = first[row] + min(load[sample, e], capacity)
    kept = first[rows] if compact and wrong < 0 else 0
    out_sample, out_expert = np.empty(kept, np.int64), np.empty(kept, np.int64)
    out_token, out_slot = np.empty(kept, np.int64), np.empty(kept, np.int64)
    table = np.empty((0, 0) if compact else (samples, pairs), np.int64)
    if wrong >= 0:
        return wrong, load, out_sample, out_expert, out_token, out_slot, table

    # Bucket by expert, in position order; keys rise as weights fall, so that stable sorting keeps ties in that order.
    sign = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    key, pair = np.empty(samples * pairs, bits.dtype), np.empty(samples * pairs, np.uint32)
    spare_key, spare_pair = np.empty_like(key), np.empty_like(pair)
    for sample in numba.prange(samples):
        place = start[sample * experts : (sample + 1) * experts].copy()
        for p in range(pairs):
            e = expert[sample, p]
            key[place[e]] = _falling(np.uint64(bits[sample, p]), sign)
            pair[place[e]] = p
            place[e] += 1
    for row in numba.prange(rows):
        low, high = start[row], start[row + 1]
        swapped = _sort_row(key[low:high], pair[low:high], spare_key[low:high], spare_pair[low:high])
        ordered = spare_pair[low:high] if swapped else pair[low:high]
        keep = min(high - low, capacity)
        sample, e = row // experts, row % experts
        if compact:
            for slot in range(keep):
                k = first[row] + slot
                out_sample[k], out_expert[k] = sample, e
                out_token[k], out_slot[k] = ordered[slot] // top, slot
        else:
            for slot in range(high - low):
                table[sample, ordered[slot]] = slot if slot < keep else -1
    return wrong, load, out_sample, out_expert, out_token, out_slot, table


@functools.cache
def serial(name: str) -> Any:
    """The kernel without threads: same arithmetic, same result."""
    return numba.njit(globals()[name].py_func, nogil=True)
