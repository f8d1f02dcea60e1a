"""Vector instructions for the CPU kernels: loops that numba does not vectorise, written as LLVM code.

Every lane and the order of every addition are fixed here, so the result does not depend on the compiler's choices or
the machine. For float32 tokens products are exact in float64, so that fused multiply-add gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types

__all__ = ["LANES", "STEP", "block_sums", "block_sums_by_eight", "highest", "write_gradient"]

intrinsic: Any = extending.intrinsic  # numba types its decorators for plain calls only

LANES = 8  # of float64: one AVX-512 register, two of AVX2, four of NEON
STEP = 2 * LANES
_SIZE, _DOUBLE = ir.IntType(64), ir.DoubleType()
_PACK = ir.VectorType(_DOUBLE, LANES)
_ZERO, _ZEROS = ir.Constant(_DOUBLE, 0.0), ir.Constant(_PACK, [0.0] * LANES)
_LOWEST = ir.Constant(_PACK, [-float("inf")] * LANES)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_SIZE, value)


def _shuffle(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _spread(builder: Any, value: Any, lanes: int) -> Any:
    empty = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, first, first, [0] * lanes)


def _loop(
    builder: Any,
    start: Any,
    stop: Any,
    step: int,
    initial: Sequence[Any],
    body: Callable[[Any, list[Any]], Sequence[Any]],
) -> list[Any]:
    """for at in range(start, stop, step): values = body(at, values); the last values."""
    entry, function = builder.block, builder.function
    head, inside, done = (function.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    at, values = builder.phi(_SIZE), [builder.phi(value.type) for value in initial]
    for phi, value in zip([at, *values], [start, *initial]):
        phi.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<", at, stop), inside, done)
    builder.position_at_end(inside)
    after = [builder.add(at, step if isinstance(step, ir.Value) else _whole(step)), *body(at, values)]
    for phi, value in zip([at, *values], after):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return values


class _Row:
    """One row of the array x, read as float64."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, row: Any, dim: Any) -> None:
        self.builder, self.wide = builder, kind.dtype.bitwidth == 64
        self.item = _DOUBLE if self.wide else ir.FloatType()
        self.align = 8 if self.wide else 4
        self.data = builder.gep(_data(context, builder, kind, array), [builder.mul(row, dim)])

    def load(self, at: Any, lanes: int = 0) -> Any:
        place, builder = self.builder.gep(self.data, [at]), self.builder
        if not lanes:
            value = builder.load(place, align=self.align)
            return value if self.wide else builder.fpext(value, _DOUBLE)
        pack = ir.VectorType(self.item, lanes)
        value = builder.load(builder.bitcast(place, pack.as_pointer()), align=self.align)
        return value if self.wide else builder.fpext(value, ir.VectorType(_DOUBLE, lanes))

    def _add(self, at: Any, values: Sequence[Any]) -> list[Any]:
        """values, (sum, squares) of two packs, plus the sixteen entries from `at`; a sum may be None: nothing yet."""
        builder, result = self.builder, []
        for k in range(2):
            part = self.load(builder.add(at, _whole(k * LANES)), LANES)
            flags = () if self.wide else ("contract",)
            product = builder.fmul(part, part, flags=flags)
            total = part if values[2 * k] is None else builder.fadd(values[2 * k], part)
            result += [total, builder.fadd(values[2 * k + 1], product, flags=flags)]
        return result

    def add_lanes(self, start: Any, stop: Any, squares: Sequence[Any], some: bool = False) -> tuple[Any, list[Any]]:
        """Lane sums of the entries start..stop, a multiple of 16, and `squares`, two packs, plus their squares.

        some: there are entries, so that the first need not be added to 0, which only the sign of a zero shows.
        """
        values = [None if some else _ZEROS, squares[0], None if some else _ZEROS, squares[1]]
        if some:
            values, start = self._add(start, values), self.builder.add(start, _whole(STEP))
        sums = _loop(self.builder, start, stop, STEP, values, self._add)
        return self.builder.fadd(sums[0], sums[2]), [sums[1], sums[3]]


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _total(builder: Any, vector: Any) -> Any:
    """Sum of the lanes as a fixed tree: halves are added until one lane is left."""
    size = vector.type.count
    while size > 1:
        size //= 2
        low = _shuffle(builder, vector, vector, range(size))
        vector = builder.fadd(low, _shuffle(builder, vector, vector, range(size, 2 * size)))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _totals(builder: Any, vectors: list[Any]) -> Any:
    """The totals of 8 vectors as one vector: the same tree for all at once, each step halving two vectors into one."""
    size = LANES
    while size > 1:
        low = [at for at in range(2 * LANES) if at % size < size // 2]
        high = [at + size // 2 for at in low]
        vectors = [
            builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))
            for a, b in zip(vectors[::2], vectors[1::2])
        ]
        size //= 2
    return vectors[0]


@intrinsic
def block_sums(typingctx: Any, x: Any, row: Any, dim: Any, block: Any, sums: Any) -> Any:
    """Write the sum of each block of x[row, :] to `sums`; return the sum of squares of the row."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, dim, block, sums = arguments
        tokens = _Row(context, builder, signature.args[0], array, row, dim)
        data = _data(context, builder, signature.args[4], sums)
        lanes = builder.sub(block, builder.srem(block, _whole(STEP)))

        def one_block(start: Any, values: list[Any]) -> list[Any]:
            full = builder.add(start, lanes)
            lane_sum, squares = tokens.add_lanes(start, full, values[:2])

            def one(at: Any, values: list[Any]) -> list[Any]:
                value = tokens.load(at)
                return [builder.fadd(values[0], value), builder.fadd(values[1], builder.fmul(value, value))]

            total, square = _loop(
                builder, full, builder.add(start, block), 1, [_total(builder, lane_sum), values[2]], one
            )
            builder.store(total, builder.gep(data, [builder.sdiv(start, block)]))
            return [*squares, square]

        values = _loop(builder, _whole(0), dim, block, [_ZEROS, _ZEROS, _ZERO], one_block)
        return builder.fadd(_total(builder, builder.fadd(values[0], values[1])), values[2])

    return types.float64(x, types.intp, types.intp, types.intp, sums), codegen


@intrinsic
def block_sums_by_eight(typingctx: Any, x: Any, row: Any, dim: Any, block: Any, sums: Any) -> Any:
    """The same bits as `block_sums`, eight blocks at a time: for blocks of a multiple of 16, a multiple of 8 of them."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, dim, block, sums = arguments
        tokens = _Row(context, builder, signature.args[0], array, row, dim)
        data = _data(context, builder, signature.args[4], sums)

        def eight_blocks(start: Any, values: list[Any]) -> list[Any]:
            lane_sums, at = [], start
            for _ in range(LANES):
                stop = builder.add(at, block)
                lane_sum, values = tokens.add_lanes(at, stop, values, some=True)
                lane_sums.append(lane_sum)
                at = stop
            place = builder.gep(data, [builder.sdiv(start, block)])
            totals = builder.fadd(_totals(builder, lane_sums), _ZEROS)  # no negative zeros
            builder.store(totals, builder.bitcast(place, _PACK.as_pointer()), align=8)
            return values

        step = builder.mul(block, _whole(LANES))
        values = _loop(builder, _whole(0), dim, step, [_ZEROS, _ZEROS], eight_blocks)
        return builder.fadd(_total(builder, builder.fadd(values[0], values[1])), _ZERO)

    return types.float64(x, types.intp, types.intp, types.intp, sums), codegen


@intrinsic
def highest(typingctx: Any, sums: Any, bound: Any, slack: Any) -> Any:
    """(best, limit, place): the largest of the sums below `bound`, best - |best|/2^22 - slack, and the place of best.

    place is -1 where several lie between limit and bound. sums: a multiple of 8, none of them NaN.
    """
    result = types.Tuple((types.float64, types.float64, types.intp))

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, bound, slack = arguments
        array = context.make_array(signature.args[0])(context, builder, sums)
        size, below = builder.extract_value(array.shape, 0), _spread(builder, bound, LANES)

        def load(at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(array.data, [at]), _PACK.as_pointer()), align=8)

        def larger(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def largest(at: Any, values: list[Any]) -> list[Any]:
            pack = load(at)
            return [larger(builder.select(builder.fcmp_ordered("<", pack, below), pack, _LOWEST), values[0])]

        (vector,) = _loop(builder, _whole(0), size, LANES, [_LOWEST], largest)
        for half in (LANES // 2, LANES // 4, LANES // 8):
            low, high = range(half), range(half, 2 * half)
            vector = larger(_shuffle(builder, vector, vector, low), _shuffle(builder, vector, vector, high))
        best = builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
        magnitude = builder.call(builder.module.declare_intrinsic("llvm.fabs", [_DOUBLE]), [best])
        margin = builder.fadd(builder.fmul(magnitude, ir.Constant(_DOUBLE, 2.0**-22)), slack)
        limit = builder.fsub(best, margin)
        above = _spread(builder, limit, LANES)

        def find(at: Any, values: list[Any]) -> list[Any]:
            pack = load(at)
            hit = builder.and_(builder.fcmp_ordered(">=", pack, above), builder.fcmp_ordered("<", pack, below))
            bits = builder.zext(builder.bitcast(hit, ir.IntType(LANES)), _SIZE)
            here = builder.add(at, builder.cttz(bits, ir.Constant(ir.IntType(1), 0)))
            place = builder.select(builder.icmp_signed("!=", bits, _whole(0)), here, values[1])
            return [builder.add(values[0], builder.ctpop(bits)), place]

        near, place = _loop(builder, _whole(0), size, LANES, [_whole(0), _whole(0)], find)
        place = builder.select(builder.icmp_signed("==", near, _whole(1)), place, _whole(-1))
        return context.make_tuple(builder, result, [best, limit, place])

    return result(sums, types.float64, types.float64), codegen


@intrinsic
def write_gradient(typingctx: Any, x: Any, row: Any, dim: Any, block: Any, pull: Any, along: Any, result: Any) -> Any:
    """result[row, j] = pull[j // block] - along * x[row, j], for rows whose blocks are multiples of 16."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, dim, block, pull, along, result = arguments
        tokens = _Row(context, builder, signature.args[0], array, row, dim)
        target = builder.gep(_data(context, builder, signature.args[6], result), [builder.mul(row, dim)])
        pull_data = _data(context, builder, signature.args[4], pull)
        pack = ir.VectorType(tokens.item, STEP)

        factor = _spread(builder, along, STEP)

        def one_block(start: Any, _: list[Any]) -> list[Any]:
            base = _spread(builder, builder.load(builder.gep(pull_data, [builder.sdiv(start, block)])), STEP)

            def step(at: Any, _: list[Any]) -> list[Any]:
                values = builder.fsub(base, builder.fmul(factor, tokens.load(at, STEP)))
                values = values if tokens.wide else builder.fptrunc(values, pack)
                place = builder.bitcast(builder.gep(target, [at]), pack.as_pointer())
                builder.store(values, place, align=tokens.align)
                return []

            _loop(builder, start, builder.add(start, block), STEP, [], step)
            return []

        _loop(builder, _whole(0), dim, block, [], one_block)
        return context.get_dummy_value()

    signature = types.void(x, types.intp, types.intp, types.intp, pull, types.float64, result)
    return signature, codegen
