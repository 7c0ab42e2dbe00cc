"""Effective conductivity of a representative cell with resolved boundary layers.

The cell problem div(sigma (e_j + grad u_j)) = 0 with periodic u_j gives the effective tensor
sigma_ij = <e_i . sigma (e_j + grad u_j)> (Bensoussan, Lions, Papanicolaou, Asymptotic Analysis for Periodic
Structures, 1978). Two-point fluxes on Voronoi cells; conductivities may be complex admittivities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import splu

from mesoion.errors import ConvergenceError, InputError
from mesoion.mesh import CellMesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[Any]

DIRECT_LIMIT_3D = 20_000


def effective_conductivity(
    mesh: CellMesh, sigma_across: ArrayLike, sigma_along: ArrayLike | None = None, method: str = "auto"
) -> Numbers:
    """Effective conductivity tensor (d, d) [S/m] of a mesh whose boundary layers are resolved.

    sigma_across (n,), sigma_along (n,) [S/m]: normal to and in the plane of a boundary layer
    (M = along (I - n n^T) + across n n^T); along = across where it is not given; grains use `sigma_across`... of
    equal values. Real or complex. Along a periodic axis the macroscopic field passes through the periodic faces;
    along an axis with walls these are electrodes and the others insulate. method: "direct" (SuperLU with nested
    dissection), "multigrid" (conjugate gradients with algebraic multigrid, real values only) or "auto".
    Raises InputError for shapes or values that are no conductivities.
    """
    across = _conductivity(mesh, "sigma_across", sigma_across)
    along = across if sigma_along is None else _conductivity(mesh, "sigma_along", sigma_along)
    d, n = mesh.dimension, mesh.n_cells
    k, m = mesh.face_cells.T
    link = mesh.face_areas / (
        mesh.face_distances[:, 0] / _projected(mesh, across, along, k, mesh.face_normals)
        + mesh.face_distances[:, 1] / _projected(mesh, across, along, m, mesh.face_normals)
    )
    step = mesh.face_normals * mesh.face_lengths[:, None]
    outer = mesh.outer_areas * _projected(mesh, across, along, mesh.outer_cells, mesh.outer_normals)
    outer = outer / mesh.outer_distances
    outer_step = mesh.outer_normals * mesh.outer_distances[:, None]
    axis_of_wall = np.abs(mesh.outer_normals).argmax(axis=1) if len(outer) else np.empty(0, dtype=int)
    if method == "auto":
        many = d == 3 and n > DIRECT_LIMIT_3D and not np.iscomplexobj(link)
        method = "multigrid" if many else "direct"
    if method not in ("direct", "multigrid"):
        raise InputError("method", method, 'use "direct", "multigrid" or "auto"')
    solve: Any = None
    tensor = np.zeros((d, d), dtype=np.result_type(link, float))
    for j in range(d):
        # u is the deviation from the uniform field; electrodes hold it at zero.
        fixed = axis_of_wall == j
        diagonal = np.bincount(mesh.outer_cells[fixed], _parts(outer[fixed]).real, n).astype(link.dtype)
        if np.iscomplexobj(link):
            diagonal += 1j * np.bincount(mesh.outer_cells[fixed], outer[fixed].imag, n)
        if solve is None or fixed.any() or len(outer):
            solve = _solver(n, k, m, link, diagonal, method)
        source = link * step[:, j]
        electrode = outer[fixed] * outer_step[fixed, j]
        b = _scatter(n, (k, source), (m, -source), (mesh.outer_cells[fixed], electrode))
        u = solve(b)
        flux = link * (step[:, j] + u[m] - u[k])
        current = flux @ step
        wall = outer[fixed] * (outer_step[fixed, j] - u[mesh.outer_cells[fixed]])
        tensor[:, j] = (current + wall @ outer_step[fixed]) / mesh.volumes.sum()
    return tensor


def _conductivity(mesh: CellMesh, name: str, value: ArrayLike) -> Numbers:
    sigma = np.asarray(value)
    if sigma.shape != (mesh.n_cells,):
        raise InputError(name, sigma.shape, f"give one value for each of the {mesh.n_cells} cells")
    if not (np.all(np.isfinite(sigma)) and np.all(np.abs(sigma) > 0) and np.all(sigma.real >= 0)):
        raise InputError(name, "values", "conductivities must be finite, not zero and not negative")
    return sigma if np.iscomplexobj(sigma) else sigma.astype(float)


def _projected(mesh: CellMesh, across: Numbers, along: Numbers, cells: Ints, normals: Floats) -> Numbers:
    """Conductivity of the cells along the face normals, n_f . M n_f."""
    share = (mesh.layer_normals[cells] * normals).sum(axis=1) ** 2
    layer = np.abs(mesh.layer_normals[cells]).sum(axis=1) > 0
    share = np.where(layer, share, 1.0)
    return np.asarray(across[cells] * share + along[cells] * (1.0 - share))


def _parts(x: Numbers) -> Numbers:
    return np.asarray(x)


def _scatter(n: int, *terms: tuple[Ints, Numbers]) -> Numbers:
    """Sum of values at indices, real or complex."""
    index = np.concatenate([t[0] for t in terms])
    value = np.concatenate([t[1] for t in terms])
    total = np.bincount(index, value.real, n)
    return np.asarray(total + 1j * np.bincount(index, value.imag, n) if np.iscomplexobj(value) else total)


def _solver(n: int, k: Ints, m: Ints, link: Numbers, diagonal: Numbers, method: str) -> Any:
    """Function that solves the network's Laplacian plus `diagonal`; a floating network is grounded at node 0."""
    floating = not np.any(diagonal)
    data = np.r_[link, link, -link, -link, diagonal]
    row, col = np.r_[k, m, k, m, np.arange(n)], np.r_[k, m, m, k, np.arange(n)]
    matrix = csc_array(coo_array((data, (row, col)), shape=(n, n)))
    if method == "multigrid":
        return _multigrid(matrix, floating)
    order = nested_dissection(n, k, m)
    kept = order[order != 0] if floating else order
    factor = splu(
        matrix[kept][:, kept].tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )

    def direct(b: Numbers) -> Numbers:
        u = np.zeros(n, dtype=np.result_type(b, link))
        u[kept] = factor.solve(np.asarray(b[kept], dtype=u.dtype))
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
    from scipy.sparse import csr_matrix

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
            raise ConvergenceError("conjugate gradients stopped early; use method='direct'", at=f"residual {error:.1e}")
        return np.r_[0.0, x] if floating else x

    return iterate
