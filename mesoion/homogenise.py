"""Effective conductivity of a representative cell: resolved boundary layers here, collapsed and reduced ones beside.

The cell problem div(sigma (e_j + grad u_j)) = 0 with periodic u_j gives the effective tensor
sigma_ij = <e_i . sigma (e_j + grad u_j)> (Bensoussan, Lions, Papanicolaou, Asymptotic Analysis for Periodic
Structures, 1978). Two-point fluxes on Voronoi cells; conductivities may be complex admittivities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.collapsed import CollapsedPolycrystal
from mesoion.errors import InputError
from mesoion.mesh import CellMesh
from mesoion.network import network_solver, scatter
from mesoion.reduced import BoundaryRange, ReducedPolycrystal

__all__ = ["BoundaryRange", "CollapsedPolycrystal", "ReducedPolycrystal", "effective_conductivity"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[Any]

DIRECT_LIMIT_3D = 20_000


def effective_conductivity(
    mesh: CellMesh, sigma_across: ArrayLike, sigma_along: ArrayLike | None = None, method: str = "auto"
) -> Numbers:
    """Effective conductivity tensor (d, d) [S/m] of a mesh whose boundary layers are resolved.

    sigma_across (n,), sigma_along (n,) [S/m]: normal to and in the plane of a boundary layer
    (M = along (I - n n^T) + across n n^T); along = across where it is not given. Cells without a layer normal, the
    grains, conduct by `sigma_across` in every direction. Real or complex. Along a periodic axis the macroscopic field
    passes through the periodic faces; along an axis with walls these are electrodes while the others insulate.
    method: "direct" (SuperLU with nested dissection), "multigrid" (conjugate gradients with algebraic multigrid, real
    values only) or "auto".
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
        if solve is None or len(outer):
            diagonal = scatter(n, (mesh.outer_cells[fixed], outer[fixed]))
            solve = network_solver(n, k, m, link, diagonal, method)
        source = link * step[:, j]
        electrode = outer[fixed] * outer_step[fixed, j]
        b = scatter(n, (k, source), (m, -source), (mesh.outer_cells[fixed], electrode))
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
