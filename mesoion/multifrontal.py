"""Multifrontal elimination of sparse matrices of symmetric pattern: dense BLAS on the fronts of `mesoion.fronts`.

Cholesky's factors of positive definite matrices, LU of others with rows exchanged inside a front's own pivots only.
Sources: Duff and Reid 1983; Liu 1992.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic
from numpy.typing import NDArray

from mesoion.fronts import Fronts, compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Addresses of the BLAS and LAPACK routines of scipy, in the order in which the kernels take them.
_ROUTINES = np.array(
    [
        get_cython_function_address(f"scipy.linalg.cython_{library}", name)
        for library, name in (
            ("lapack", "dpotrf"),
            ("blas", "dtrsm"),
            ("blas", "dsyrk"),
            ("blas", "dgemm"),
            ("lapack", "dgetrf"),
            ("lapack", "dlaswp"),
        )
    ],
    dtype=np.int64,
)
_POTRF, _TRSM, _SYRK, _GEMM, _GETRF, _LASWP = range(6)
_N, _T, _L, _R, _U = (np.int8(ord(letter)) for letter in "NTLRU")
_ONE = np.int32(1)
# Panels with fewer entries than this are cheaper in plain loops than through BLAS.
_BY_HAND = 2_000


def _call_fortran(context: Any, address: Any, arguments: Any) -> Any:
    """Call a Fortran routine at an address: int64 arguments are pointers, others are passed by reference."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        passed = []
        for i, kind in enumerate(signature.args[1]):
            value = builder.extract_value(values[1], i)
            if kind == types.int64:
                passed.append(builder.inttoptr(value, pointer))
            else:
                slot: Any = cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]
                passed.append(builder.bitcast(slot, pointer))
        kind = ir.FunctionType(ir.VoidType(), [pointer] * len(passed))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), passed)
        return context.get_dummy_value()

    return types.void(address, arguments), generate


_fortran: Any = intrinsic(_call_fortran)


@compiled
def _gather(
    fronts: Any,
    s: int,
    low: int,
    pending: Any,
    top: int,
    stack: Any,
    factor: Any,
    p0: int,
    side: Any,
    q0: int,
    c0: int,
) -> Any:
    """Add the updates of a front's children, which end at `top` of the pending ones, to its parts."""
    first, start, place = fronts.first, fronts.start, fronts.place
    w, m = first[s + 1] - first[s], start[s + 1] - start[s]
    whole = len(side) > 0
    for _ in range(fronts.children[s]):
        top -= 1
        child = pending[top]
        r0 = start[child]
        size = start[child + 1] - r0
        low -= size * size
        inside = 0
        while inside < size and place[r0 + inside] < w:
            inside += 1
        for jc in range(size):
            column = low + jc * size
            j = place[r0 + jc]
            if j < w:
                to = p0 + j * (w + m)
                for ic in range(0 if whole else jc, size):
                    factor[to + place[r0 + ic]] += stack[column + ic]
            else:
                if whole:
                    to = q0 + (j - w) * w
                    for ic in range(inside):
                        side[to + place[r0 + ic]] += stack[column + ic]
                to = c0 + (j - w) * m - w
                for ic in range(inside if whole else jc, size):
                    stack[to + place[r0 + ic]] += stack[column + ic]
    return low, top


@compiled
def _cholesky(call: Any, fronts: Any, data: Any) -> Any:
    """L by fronts; empty where a pivot is not positive."""
    first, start = fronts.first, fronts.start
    f = len(first) - 1
    factor = np.zeros(fronts.panel[f])
    side = np.empty(0)
    stack = np.empty(fronts.stack[0])
    at, stack_at = np.int64(factor.ctypes.data), np.int64(stack.ctypes.data)
    info = np.zeros(1, np.int32)
    pending = np.empty(f + 1, np.int64)
    top, used = 0, 0
    for s in range(f):
        w, m = first[s + 1] - first[s], start[s + 1] - start[s]
        w32, m32, f32 = np.int32(w), np.int32(m), np.int32(w + m)
        p0, c0 = fronts.panel[s], used
        for e in range(fronts.entry[s], fronts.entry[s + 1]):
            t = fronts.target[e]
            if t >= 0:
                factor[p0 + t] = data[fronts.source[e]]
        stack[c0 : c0 + m * m] = 0.0
        used, top = _gather(fronts, s, used, pending, top, stack, factor, p0, side, 0, c0)
        panel, c = at + 8 * p0, stack_at + 8 * c0
        _fortran(call[_POTRF], (_L, w32, panel, f32, np.int64(info.ctypes.data)))
        if info[0] != 0:
            return np.empty(0)
        if m > 0:
            below = panel + 8 * w
            _fortran(call[_TRSM], (_R, _L, _T, _N, m32, w32, 1.0, panel, f32, below, f32))
            _fortran(call[_SYRK], (_L, _N, m32, w32, -1.0, below, f32, 1.0, c, m32))
            if used < c0:
                for q in range(m * m):
                    stack[used + q] = stack[c0 + q]
            pending[top] = s
            top += 1
            used += m * m
    return factor


@compiled
def _lu(call: Any, fronts: Any, data: Any) -> Any:
    """L, U beside it and the exchanged pivots by fronts; empty where a pivot is zero."""
    first, start = fronts.first, fronts.start
    f = len(first) - 1
    factor, side = np.zeros(fronts.panel[f]), np.zeros(fronts.side[f])
    pivots = np.empty(first[f], np.int32)
    stack = np.empty(fronts.stack[0])
    at, side_at = np.int64(factor.ctypes.data), np.int64(side.ctypes.data)
    stack_at, pivots_at = np.int64(stack.ctypes.data), np.int64(pivots.ctypes.data)
    info = np.zeros(1, np.int32)
    pending = np.empty(f + 1, np.int64)
    top, used = 0, 0
    for s in range(f):
        w, m = first[s + 1] - first[s], start[s + 1] - start[s]
        w32, m32, f32 = np.int32(w), np.int32(m), np.int32(w + m)
        p0, q0, c0 = fronts.panel[s], fronts.side[s], used
        for e in range(fronts.entry[s], fronts.entry[s + 1]):
            t = fronts.target[e]
            if t >= 0:
                factor[p0 + t] = data[fronts.source[e]]
            else:
                side[q0 - 1 - t] = data[fronts.source[e]]
        stack[c0 : c0 + m * m] = 0.0
        used, top = _gather(fronts, s, used, pending, top, stack, factor, p0, side, q0, c0)
        panel, right, c = at + 8 * p0, side_at + 8 * q0, stack_at + 8 * c0
        exchanged = pivots_at + 4 * first[s]
        _fortran(call[_GETRF], (w32, w32, panel, f32, exchanged, np.int64(info.ctypes.data)))
        if info[0] != 0:
            return np.empty(0), side, pivots
        if m > 0:
            below = panel + 8 * w
            _fortran(call[_LASWP], (m32, right, w32, _ONE, w32, exchanged, _ONE))
            _fortran(call[_TRSM], (_L, _L, _N, _U, w32, m32, 1.0, panel, f32, right, w32))
            _fortran(call[_TRSM], (_R, _U, _N, _N, m32, w32, 1.0, panel, f32, below, f32))
            _fortran(call[_GEMM], (_N, _N, m32, m32, w32, -1.0, below, f32, right, w32, 1.0, c, m32))
            if used < c0:
                for q in range(m * m):
                    stack[used + q] = stack[c0 + q]
            pending[top] = s
            top += 1
            used += m * m
    return factor, side, pivots


@compiled
def _solve(call: Any, fronts: Any, factor: Any, side: Any, pivots: Any, x: Any, transposed: bool) -> None:
    """Overwrite x (k, n), in steps of the elimination, by the solutions; without `pivots` the factor is Cholesky's."""
    first, start, rows = fronts.first, fronts.start, fronts.rows
    f = len(first) - 1
    k, n = x.shape
    cholesky = len(pivots) == 0
    k32, n32 = np.int32(k), np.int32(n)
    widest = 1
    for s in range(f):
        widest = max(widest, start[s + 1] - start[s])
    part = np.empty((k, widest))
    at, side_at = np.int64(factor.ctypes.data), np.int64(side.ctypes.data)
    x_at, part_at = np.int64(x.ctypes.data), np.int64(part.ctypes.data)
    one = cholesky or not transposed
    # Forward: L, or U^T.
    for s in range(f):
        a, w, m = first[s], first[s + 1] - first[s], start[s + 1] - start[s]
        height = w + m
        w32, m32, f32 = np.int32(w), np.int32(m), np.int32(height)
        p0, r0 = fronts.panel[s], start[s]
        if not cholesky and not transposed:
            for j in range(w):
                other = pivots[a + j] - 1
                if other != j:
                    for i in range(k):
                        x[i, a + j], x[i, a + other] = x[i, a + other], x[i, a + j]
        if cholesky and k == 1 and w * height < _BY_HAND:
            for j in range(w):
                column = p0 + j * height
                value = x[0, a + j] / factor[column + j]
                x[0, a + j] = value
                for i in range(j + 1, w):
                    x[0, a + i] -= value * factor[column + i]
            if m > 0:
                part[0, :m] = 0.0
                for j in range(w):
                    column = p0 + j * height + w
                    value = x[0, a + j]
                    for i in range(m):
                        part[0, i] += value * factor[column + i]
                for i in range(m):
                    x[0, rows[r0 + i]] -= part[0, i]
            continue
        panel, head = at + 8 * p0, x_at + 8 * a
        if cholesky:
            _fortran(call[_TRSM], (_L, _L, _N, _N, w32, k32, 1.0, panel, f32, head, n32))
        elif one:
            _fortran(call[_TRSM], (_L, _L, _N, _U, w32, k32, 1.0, panel, f32, head, n32))
        else:
            _fortran(call[_TRSM], (_L, _U, _T, _N, w32, k32, 1.0, panel, f32, head, n32))
        if m > 0:
            size = np.int32(widest)
            if one:
                _fortran(
                    call[_GEMM],
                    (_N, _N, m32, k32, w32, 1.0, panel + 8 * w, f32, head, n32, 0.0, part_at, size),
                )
            else:
                right = side_at + 8 * fronts.side[s]
                _fortran(call[_GEMM], (_T, _N, m32, k32, w32, 1.0, right, w32, head, n32, 0.0, part_at, size))
            for j in range(k):
                for i in range(m):
                    x[j, rows[r0 + i]] -= part[j, i]
    # Backward: L^T, or U, or L^T of a transposed system.
    for s in range(f - 1, -1, -1):
        a, w, m = first[s], first[s + 1] - first[s], start[s + 1] - start[s]
        height = w + m
        w32, m32, f32 = np.int32(w), np.int32(m), np.int32(height)
        p0, r0 = fronts.panel[s], start[s]
        for j in range(k):
            for i in range(m):
                part[j, i] = x[j, rows[r0 + i]]
        if cholesky and k == 1 and w * height < _BY_HAND:
            for j in range(w - 1, -1, -1):
                column = p0 + j * height
                value = x[0, a + j]
                for i in range(j + 1, w):
                    value -= factor[column + i] * x[0, a + i]
                for i in range(m):
                    value -= factor[column + w + i] * part[0, i]
                x[0, a + j] = value / factor[column + j]
            continue
        panel, head = at + 8 * p0, x_at + 8 * a
        if m > 0:
            size = np.int32(widest)
            if cholesky or transposed:
                _fortran(
                    call[_GEMM],
                    (_T, _N, w32, k32, m32, -1.0, panel + 8 * w, f32, part_at, size, 1.0, head, n32),
                )
            else:
                right = side_at + 8 * fronts.side[s]
                _fortran(
                    call[_GEMM], (_N, _N, w32, k32, m32, -1.0, right, w32, part_at, size, 1.0, head, n32)
                )
        if cholesky:
            _fortran(call[_TRSM], (_L, _L, _T, _N, w32, k32, 1.0, panel, f32, head, n32))
        elif transposed:
            _fortran(call[_TRSM], (_L, _L, _T, _U, w32, k32, 1.0, panel, f32, head, n32))
            for j in range(w - 1, -1, -1):
                other = pivots[a + j] - 1
                if other != j:
                    for i in range(k):
                        x[i, a + j], x[i, a + other] = x[i, a + other], x[i, a + j]
        else:
            _fortran(call[_TRSM], (_L, _U, _N, _N, w32, k32, 1.0, panel, f32, head, n32))


class Elimination:
    """Factors of a real matrix on the fronts of its pattern: Cholesky's where `definite`, else LU.

    Raises ZeroDivisionError where a pivot vanishes, or is not positive where it should be.
    """

    def __init__(self, fronts: Fronts, data: Floats, *, definite: bool) -> None:
        self._fronts = fronts
        self._side, self._pivots = np.empty(0), np.empty(0, dtype=np.int32)
        if definite:
            self._factor = _cholesky(_ROUTINES, fronts, data)
        else:
            self._factor, self._side, self._pivots = _lu(_ROUTINES, fronts, data)
        if not len(self._factor):
            raise ZeroDivisionError("singular matrix")

    def solve(self, b: Floats, *, transposed: bool = False) -> Floats:
        """x with A x = b or A^T x = b, for b (n,) or (n, k)."""
        order = self._fronts.order
        x = np.ascontiguousarray(np.atleast_2d(b.T)[:, order])
        _solve(_ROUTINES, self._fronts, self._factor, self._side, self._pivots, x, transposed)
        out = np.empty_like(x)
        out[:, order] = x
        return out.T.reshape(b.shape) if b.ndim > 1 else out[0]
