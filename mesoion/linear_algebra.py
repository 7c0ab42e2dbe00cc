"""Sparse systems of one fixed pattern: elimination order, assembly, and factorisation without dynamic pivoting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

if TYPE_CHECKING:
    from mesoion.fronts import Fronts

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Ints = NDArray[np.int64]

# Wider bands are left to nested dissection.
_WIDEST_BAND = 24
# Below this many unknowns compiling the multifrontal kernels is not worth it.
_FEW = 5_000
# Fill of three-dimensional meshes makes multigrid the better choice from about here.
_DIRECT_IN_3D = 8_000
_MULTIGRID_TOLERANCE, _MULTIGRID_ITERATIONS = 1e-11, 300


def elimination_order(n_points: int, k: Ints, l: Ints, coordinates: Floats) -> Ints:  # noqa: E741
    """Position (n_points,) of each point in the elimination: along the line in 1D, nested dissection else.

    `k`, `l` are the edges of the graph, `coordinates` (n_points, d) where its points lie.
    """
    position = np.empty(n_points, dtype=np.int64)
    if coordinates.shape[1] == 1:
        position[np.argsort(coordinates[:, 0], kind="stable")] = np.arange(n_points)
        # Periodic lines wrap around and have no band.
        if np.abs(position[k] - position[l]).max(initial=0) <= 2:
            return position
    import pymetis

    graph = sp.csr_matrix(
        (np.ones(2 * len(k), dtype=np.int8), (np.r_[k, l], np.r_[l, k])), shape=(n_points, n_points)
    )
    graph.setdiag(0)
    graph.eliminate_zeros()
    adjacency = pymetis.CSRAdjacency(graph.indptr, graph.indices)
    order = np.asarray(pymetis.nested_dissection(adjacency=adjacency)[0])
    position[order] = np.arange(n_points)
    return position


def sums(where: Ints, values: Floats, size: int) -> Floats:
    """Values added up by index, (size,) floats."""
    total: Floats = np.bincount(where, values, size).astype(float, copy=False)
    return total


class SparsePattern:
    """The positions (row, column) of a square matrix of n unknowns, numbered in elimination order.

    Values arrive in the order of `rows`, `columns`; those at the same position add up, those with a row or column
    outside 0..n-1 are dropped. `kinds` (n,) says which kind of field each unknown is a value of and `points` (n,)
    where: given for three-dimensional meshes, which are solved by multigrid on each field once they are large.
    """

    def __init__(
        self, rows: Ints, columns: Ints, n: int, kinds: Ints | None = None, points: Ints | None = None
    ) -> None:
        self.n = n
        self.kinds, self.points = kinds, points
        self.multigrid = kinds is not None and points is not None and n > _DIRECT_IN_3D
        self.kept = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < n)
        key = columns[self.kept] * n + rows[self.kept]
        unique, where = np.unique(key, return_inverse=True)
        self.size = len(unique)
        # Dropped values land in one extra bin, which saves copying the others out.
        self._where = np.full(len(rows), self.size, dtype=np.int64)
        self._where[self.kept] = where
        self.columns = unique // n
        self.rows = unique - self.columns * n
        self.indices = self.rows.astype(np.int32)
        self.indptr = np.searchsorted(self.columns, np.arange(n + 1)).astype(np.int32)
        self._row_order = np.argsort(self.rows, kind="stable")
        self._row_starts = np.searchsorted(self.rows[self._row_order], np.arange(n))
        offset = self.rows - self.columns
        self._lower, self._upper = int(offset.max(initial=0)), int(-offset.min(initial=0))
        self.banded = max(self._lower, self._upper) <= _WIDEST_BAND
        if self.banded:
            height = 2 * self._lower + self._upper + 1
            self._band_height = height
            self._band_position = self.columns * height + self._lower + self._upper + offset

    def assemble(self, values: Floats, where: slice | None = None) -> Floats:
        """Matrix data (size,) from values in the order of the constructor, or of a slice of it."""
        index = self._where if where is None else self._where[where]
        return sums(index, values, self.size + 1)[:-1]

    def matrix(self, data: NDArray[Any]) -> sp.csc_matrix:
        """The matrix as scipy CSC."""
        return sp.csc_matrix((data, self.indices, self.indptr), shape=(self.n, self.n))

    def compact(self, data: NDArray[Any]) -> sp.csc_matrix:
        """The matrix as scipy CSC without its zeros."""
        kept = data != 0.0
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.indptr].astype(np.int32)
        return sp.csc_matrix((data[kept], self.indices[kept], indptr), shape=(self.n, self.n))

    def multiply(self, data: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        """Matrix times x, (n,) or (n, c)."""
        product: NDArray[Any] = self.matrix(data) @ x
        return product

    def solve_pencil(self, a: Floats, b: Floats, omega: Floats, rhs: Floats, first: int) -> Complexes:
        """Solutions of (A + sB) x = rhs[0] + s rhs[1], s = i omega, at each omega (k,), for banded patterns.

        rhs (2, n) is zero before the unknown `first`, and only x (k, n - first) from there on is returned: the
        elimination of all before it needs no right-hand side. A and B are symmetric and positive semidefinite:
        elimination needs no scaling of the rows. Raises ZeroDivisionError where a matrix is singular.
        """
        # What has no counterpart across the diagonal is zero by symmetry.
        width = min(self._lower, self._upper)
        offset = self.rows - self.columns
        inside = np.abs(offset) <= width
        shape = (self.n, 3 * width + 1)
        bands = np.zeros((2, self.n * shape[1]))
        bands[:, (self.columns * shape[1] + 2 * width + offset)[inside]] = a[inside], b[inside]
        # Rows are exchanged with others at most `width` further on.
        start = max(0, first - width)
        x: Complexes = rhs[0, start:] + 1j * omega[:, np.newaxis] * rhs[1, start:]
        band = np.empty(bands.shape[1], dtype=complex)
        real, imaginary, table = band.real, band.imag, band.reshape(shape).T
        for i, w in enumerate(omega):
            real[:] = bands[0]
            np.multiply(bands[1], w, out=imaginary)
            lu, pivots, info = lapack.zgbtrf(table, width, width, overwrite_ab=True)
            if info > 0:
                raise ZeroDivisionError("singular matrix")
            x[i], _ = lapack.zgbtrs(lu[:, start:], width, width, x[i], pivots[start:] - start)
        return x[:, first - start :]

    def factor(
        self,
        data: NDArray[Any],
        coupling: Literal["one-way", "both-ways"] = "one-way",
        *,
        definite: bool = False,
    ) -> Factor:
        """Factors of a real or complex matrix, row-scaled; raises ZeroDivisionError where it is singular.

        Large three-dimensional ones get a multigrid solver instead. `coupling` then says how kind 0 (the
        potential) and the others depend on each other: steady states "one-way" (nearly), storage "both-ways".
        `definite` says that the matrix is symmetric with a positive definite real part: Cholesky's factors of
        large real ones, and no scaling.
        """
        direct = _BandFactor if self.banded else _SparseFactor
        fronts = not self.banded and self.n > _FEW and not np.iscomplexobj(data)
        if definite and not self.multigrid:
            return _FrontFactor(self, data, None) if fronts else direct(self, data, np.ones(self.n))
        largest = np.maximum.reduceat(np.abs(data)[self._row_order], self._row_starts)
        if not np.all(largest > 0.0) or not np.all(np.isfinite(largest)):
            raise ZeroDivisionError("singular matrix")
        scale = 1.0 / largest
        if self.multigrid:
            return _MultigridSolver(self, data, scale, coupling)
        if fronts:
            return _FrontFactor(self, data, scale)
        return direct(self, data * scale[self.rows], scale)

    @cached_property
    def fronts(self) -> Fronts:
        """The pattern's fronts, found once for all its factorisations."""
        from mesoion.fronts import analyse

        return analyse(self.indptr, self.indices)


class Factor(ABC):
    """What solves systems of one matrix A; right-hand sides are (n,) or (n, c), real or complex."""

    @abstractmethod
    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A x = b."""

    @abstractmethod
    def solve_transposed(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A^T x = b."""


class _LU(Factor):
    """Direct factors of the row-scaled matrix."""

    def __init__(self, scale: Floats | None, complex_: bool) -> None:
        self._scale, self._complex = scale, complex_

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        return self._solve(b, False)

    def solve_transposed(self, b: NDArray[Any]) -> NDArray[Any]:
        return self._solve(b, True)

    def _solve(self, b: NDArray[Any], transposed: bool) -> NDArray[Any]:
        if np.iscomplexobj(b) and not self._complex:
            both = self._solve(
                np.concatenate([np.atleast_2d(b.T).real, np.atleast_2d(b.T).imag]).T, transposed
            )
            half = both.shape[1] // 2
            return np.asarray(both[:, :half] + 1j * both[:, half:]).reshape(b.shape)
        if self._scale is None:
            return self._apply(b, transposed)
        rhs = b if transposed else (b.T * self._scale).T
        rhs = np.asfortranarray(rhs, dtype=complex if self._complex else float)
        x = self._apply(rhs, transposed)
        return (x.T * self._scale).T if transposed else x

    @abstractmethod
    def _apply(self, rhs: NDArray[Any], transposed: bool) -> NDArray[Any]:
        """The same for the scaled matrix."""


class _BandFactor(_LU):
    def __init__(self, pattern: SparsePattern, scaled: NDArray[Any], scale: Floats) -> None:
        self._kl, self._ku = pattern._lower, pattern._upper
        complex_ = np.iscomplexobj(scaled)
        super().__init__(scale, complex_)
        band = np.zeros(pattern.n * pattern._band_height, dtype=complex if complex_ else float)
        band[pattern._band_position] = scaled
        ab = band.reshape(pattern.n, pattern._band_height).T
        trf, self._trs = (lapack.zgbtrf, lapack.zgbtrs) if complex_ else (lapack.dgbtrf, lapack.dgbtrs)
        self._lu, self._pivots, info = trf(ab, self._kl, self._ku, overwrite_ab=True)
        if info > 0:
            raise ZeroDivisionError("singular matrix")

    def _apply(self, rhs: NDArray[Any], transposed: bool) -> NDArray[Any]:
        x, _ = self._trs(self._lu, self._kl, self._ku, rhs, self._pivots, trans=int(transposed))
        return np.asarray(x).reshape(rhs.shape)


class _SparseFactor(_LU):
    def __init__(self, pattern: SparsePattern, scaled: NDArray[Any], scale: Floats) -> None:
        super().__init__(scale, np.iscomplexobj(scaled))
        try:
            self._lu = splu(
                pattern.matrix(scaled),
                permc_spec="NATURAL",
                diag_pivot_thresh=0.0,
                panel_size=1,
                options={"SymmetricMode": True},
            )
        except RuntimeError as error:
            raise ZeroDivisionError("singular matrix") from error

    def _apply(self, rhs: NDArray[Any], transposed: bool) -> NDArray[Any]:
        return np.asarray(self._lu.solve(rhs, "T" if transposed else "N"))


class _FrontFactor(_LU):
    """Of a large real matrix: Cholesky's factors without `scale`, which a positive definite one does not need."""

    def __init__(self, pattern: SparsePattern, data: Floats, scale: Floats | None) -> None:
        from mesoion.multifrontal import Elimination

        super().__init__(scale, False)
        scaled = data if scale is None else data * scale[pattern.rows]
        self._factors = Elimination(pattern.fronts, scaled, definite=scale is None)

    def _apply(self, rhs: NDArray[Any], transposed: bool) -> NDArray[Any]:
        return self._factors.solve(rhs, transposed=transposed)


class _MultigridSolver(Factor):
    """Flexible GMRES with algebraic multigrid on each kind of field, and on all of them moving together.

    One-way coupling: the fields of higher kind first, then the potential they make. Both ways (storage): additive
    spaces phi, eta and phi = eta, which stay effective over the whole range from slow to fast. A complex matrix
    G + i omega C is preconditioned by its real neighbour G + omega C.
    """

    def __init__(self, pattern: SparsePattern, data: NDArray[Any], scale: Floats, coupling: str) -> None:
        import pyamg

        self._scale, self._complex = scale, np.iscomplexobj(data)
        self._matrix = pattern.matrix(data).tocsr()
        near = pattern.matrix(data.real + data.imag).tocsr() if self._complex else self._matrix
        assert pattern.kinds is not None
        assert pattern.points is not None
        self._members = [np.flatnonzero(pattern.kinds == kind) for kind in np.unique(pattern.kinds)]
        self._joint = coupling == "both-ways"

        def grids(matrix: sp.csr_matrix) -> Any:
            return pyamg.ruge_stuben_solver(matrix, max_coarse=300).aspreconditioner()

        self._grids = [grids(near[i][:, i].tocsr()) for i in self._members]
        self._transposed = self._matrix.T.tocsr()
        if self._joint:
            count = int(pattern.points.max()) + 1
            self._together = sp.csr_matrix(
                (np.ones(pattern.n), (np.arange(pattern.n), pattern.points)), shape=(pattern.n, count)
            )
            self._joint_grids = grids((self._together.T @ near @ self._together).tocsr())
        else:
            first = self._members[0]
            self._feeds = [near[first][:, i].tocsr() for i in self._members[1:]]

    def _precondition(self, r: NDArray[Any]) -> NDArray[Any]:
        if np.iscomplexobj(r):
            return np.asarray(self._precondition(r.real.copy()) + 1j * self._precondition(r.imag.copy()))
        z = np.zeros_like(r)
        if self._joint:
            for members, grids in zip(self._members, self._grids, strict=True):
                z[members] = grids @ r[members]
            return np.asarray(z + self._together @ (self._joint_grids @ (self._together.T @ r)))
        rest = r[self._members[0]]
        for members, grids, feed in zip(self._members[1:], self._grids[1:], self._feeds, strict=True):
            z[members] = grids @ r[members]
            rest = rest - feed @ z[members]
        z[self._members[0]] = self._grids[0] @ rest
        return z

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A x = b; raises ZeroDivisionError where the iteration does not get there."""
        return self._iterate(self._matrix, b)

    def solve_transposed(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A^T x = b."""
        return self._iterate(self._transposed, b)

    def _iterate(self, matrix: sp.csr_matrix, b: NDArray[Any]) -> NDArray[Any]:
        if b.ndim == 2:
            return np.stack([self._iterate(matrix, column) for column in b.T], axis=1)
        if np.iscomplexobj(b) and not self._complex:
            return np.asarray(self._iterate(matrix, b.real) + 1j * self._iterate(matrix, b.imag))
        if not np.any(b):
            return np.zeros(b.shape, dtype=matrix.dtype)
        from pyamg.krylov import fgmres

        rows = self._scale
        operator = sp.linalg.LinearOperator(matrix.shape, lambda x: rows * (matrix @ x), dtype=matrix.dtype)
        inverse = sp.linalg.LinearOperator(
            matrix.shape, lambda r: self._precondition(r / rows), dtype=matrix.dtype
        )
        x, info = fgmres(
            operator,
            (rows * b).astype(matrix.dtype),
            tol=_MULTIGRID_TOLERANCE,
            M=inverse,
            restart=60,
            maxiter=_MULTIGRID_ITERATIONS // 60,
        )
        if info < 0 or not np.all(np.isfinite(x)):
            raise ZeroDivisionError("the multigrid iteration broke down")
        residual = np.linalg.norm(rows * (b - matrix @ x)) / np.linalg.norm(rows * b)
        if residual > 1e-6:
            raise ZeroDivisionError(f"the multigrid iteration stopped at a residual of {residual:.1g}")
        return np.asarray(x)
