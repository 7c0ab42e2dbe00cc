"""One vector instruction that numba's own vectoriser does not find: short dot products for eight columns at once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic

cgutils: Any = untyped_cgutils
EIGHT = ir.VectorType(ir.DoubleType(), 8)


def _contract_eight(_context: Any, c: Any, t: Any, f: Any, row: Any, column: Any) -> Any:
    """f[row, column : column + 8] = c @ t[:, column : column + 8] inside compiled functions.

    c: (n,), t: (n, m), f: (r, m), C-contiguous doubles. Neighbours of one type are too few for the vector loops LLVM
    makes by itself (32 at a time); here the register's width is written down. Rows and columns are not checked.
    """
    signature = types.void(c, t, f, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(sig.args[:3], arguments[:3], strict=True)
        ]
        weights, columns, out = arrays
        count, width = cgutils.unpack_tuple(builder, columns.shape, 2)
        out_width = cgutils.unpack_tuple(builder, out.shape, 2)[1]
        total = cgutils.alloca_once_value(builder, ir.Constant(EIGHT, [0.0] * 8))
        position = cgutils.alloca_once_value(builder, arguments[4])
        undefined = ir.Constant(EIGHT, ir.Undefined)
        with cgutils.for_range(builder, count) as loop:
            address = builder.gep(columns.data, [builder.load(position)])
            values = builder.load(builder.bitcast(address, EIGHT.as_pointer()))
            values.align = 8
            weight = builder.load(builder.gep(weights.data, [loop.index]))
            first = builder.insert_element(undefined, weight, ir.Constant(ir.IntType(32), 0))
            all_eight = builder.shuffle_vector(
                first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
            )
            product = builder.fmul(all_eight, values, flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            builder.store(builder.add(builder.load(position), width), position)
        begin = builder.add(builder.mul(arguments[3], out_width), arguments[4])
        target = builder.bitcast(builder.gep(out.data, [begin]), EIGHT.as_pointer())
        builder.store(builder.load(total), target).align = 8
        return context.get_dummy_value()

    return signature, generate


contract_eight: Any = intrinsic(_contract_eight)
