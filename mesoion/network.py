"""Direct and multigrid solution of networks of links: graph Laplacians with real or complex weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_matrix
from scipy.sparse.linalg import splu

from mesoion.errors import ConvergenceError, InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[Any]


def scatter(n: int, *terms: tuple[Ints, Numbers]) -> Numbers:
    """Sum of values at indices, real or complex."""
    index = np.concatenate([t[0] for t in terms])
    value = np.concatenate([t[1] for t in terms])
    total = np.bincount(index, value.real, n)
    return np.asarray(total + 1j * np.bincount(index, value.imag, n) if np.iscomplexobj(value) else total)


def network_solver(n: int, k: Ints, m: Ints, link: Numbers, diagonal: Numbers, method: str) -> Any:
    """Function that solves the network's Laplacian plus `diagonal`; a floating network is grounded at node 0."""
    floating = not np.any(diagonal)
    data = np.r_[link, link, -link, -link, diagonal]
    row, col = np.r_[k, m, k, m, np.arange(n)], np.r_[k, m, m, k, np.arange(n)]
    matrix = csc_array(coo_array((data, (row, col)), shape=(n, n)))
    if method == "multigrid":
        return _multigrid(matrix, floating)
    order = nested_dissection(n, k, m)
    kept = order[order != 0] if floating else order
    inner = matrix[kept][:, kept].tocsc()
    factor = splu(inner, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def direct(b: Numbers) -> Numbers:
        u = np.zeros(n, dtype=np.result_type(b, link))
        right = np.asarray(b[kept], dtype=u.dtype)
        x = factor.solve(right)
        u[kept] = x + factor.solve(right - inner @ x)
        return u

    return direct


def nested_dissection(n: int, k: Ints, m: Ints) -> Ints:
    """Fill-reducing order of n unknowns coupled by the pairs (k, m), by METIS."""
    import pymetis

    once = np.flatnonzero(k != m)
    graph = coo_array(
        (np.ones(2 * len(once)), (np.r_[k[once], m[once]], np.r_[m[once], k[once]])), shape=(n, n)
    ).tocsr()
    order, _ = pymetis.nested_dissection(adjacency=pymetis.CSRAdjacency(graph.indptr, graph.indices))
    return np.asarray(order, dtype=np.int64)


def _multigrid(matrix: Any, floating: bool) -> Any:
    import pyamg

    if np.iscomplexobj(matrix.data):
        raise InputError("method", "multigrid", 'complex conductivities need method="direct"')
    rows = matrix.tocsr()
    if floating:
        rows = rows[1:][:, 1:].tocsr()
    hierarchy = pyamg.ruge_stuben_solver(csr_matrix(rows), max_coarse=300)

    def iterate(b: Numbers) -> Numbers:
        right = b[1:] if floating else b
        scale = float(np.linalg.norm(right))
        if scale == 0:
            return np.zeros(len(b))
        residuals: list[float] = []
        x = hierarchy.solve(right, tol=1e-11, accel="cg", maxiter=300, residuals=residuals)
        error = float(np.linalg.norm(right - rows @ x)) / scale
        if error > 1e-8:
            raise ConvergenceError(
                "conjugate gradients stopped early; use method='direct'", at=f"residual {error:.1e}"
            )
        return np.asarray(np.r_[0.0, x] if floating else x)

    return iterate
