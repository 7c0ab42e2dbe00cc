"""Cell meshes and fields handed out as FiPy objects, and values taken back.

    from mesoion.fipy_bridge import to_fipy
    cells = to_fipy(mesh, {"potential": state.potential})
    cells.mesh, cells.fields["potential"], cells.regions["grain"], cells.faces["left"]

FiPy is imported at the first call, never with this module. What FiPy gets wrong on thin cells, and what is done
about it, stands with the classes in `mesoion.fipy_objects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import MeshError
from mesoion.fipy_loading import load_fipy
from mesoion.mesh import CellMesh

if TYPE_CHECKING:
    from mesoion.fipy_objects import CellMesh2FiPy

__all__ = ["FiPyCells", "cell_gradient", "from_fipy", "joule_heat", "load_fipy", "to_fipy"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FiPyCells:
    """A cell mesh on FiPy's side.

    mesh: the FiPy mesh, whose method `coefficient` gives face coefficients of layered cells. fields: a CellVariable
    for each field handed over. regions: a boolean CellVariable for each region of the mesh. faces: a boolean
    FaceVariable for each named outer face, fit for `variable.constrain(value, where=...)`.
    """

    mesh: CellMesh2FiPy
    fields: dict[str, Any]
    regions: dict[str, Any]
    faces: dict[str, Any]


def to_fipy(
    mesh: CellMesh, fields: Mapping[str, ArrayLike] | None = None, *, length_unit: float = 1.0
) -> FiPyCells:
    """`mesh` as a FiPy mesh of the same cells in the same order, with `fields` as FiPy variables.

    mesh: of any dimension, with periodic faces or without. fields: names and values (n,), or vectors (d, n).
    length_unit [m]: what FiPy's lengths are counted in (1e-9 for nanometres); equations on nanometre cells are
    easier to scale there. Raises MeshError for a field whose length is not the number of cells.
    """
    fipy = load_fipy()
    from mesoion.fipy_objects import CellMesh2FiPy

    cells = CellMesh2FiPy(mesh, length_unit)
    variables = {}
    for name, values in (fields or {}).items():
        array = np.asarray(values)
        if array.ndim == 0 or array.shape[-1] != mesh.n_cells:
            raise MeshError(
                f"field {name!r} has shape {array.shape}; the mesh has {mesh.n_cells} cells, give (..., {mesh.n_cells})"
            )
        if np.iscomplexobj(array):
            raise MeshError(f"field {name!r} is complex; FiPy solves real equations, give two real fields")
        variables[name] = fipy.CellVariable(
            mesh=cells, value=array.astype(float), name=name, rank=array.ndim - 1
        )
    regions = {
        name: fipy.CellVariable(mesh=cells, value=mesh.region == index, name=name)
        for index, name in enumerate(mesh.region_names)
    }
    return FiPyCells(cells, variables, regions, {name: cells.outer(name) for name in mesh.outer_names})


def from_fipy(variable: Any) -> Floats:
    """Values of a FiPy cell variable in the order of the cell mesh: (n,), or (d, n) for vectors."""
    return np.array(variable.value, dtype=float)


def cell_gradient(variable: Any) -> Floats:
    """Gradient (d, n) of a cell variable by least squares over its faces, exact for linear fields on every mesh.

    FiPy's own `variable.grad` sums face values over the cell, which on cells whose faces are not centred on the line
    between generators is off by several per cent. Outer faces count with their face value where it is constrained.
    """
    mesh: CellMesh2FiPy = variable.mesh
    values, walls = variable.value, np.asarray(variable.faceValue.value)
    d, n = mesh.dim, mesh.numberOfCells
    first, second = mesh._adjacentCellIDs
    outer = np.asarray(mesh.exteriorFaces.value)
    held = np.broadcast_to(np.asarray(variable.faceValue.constraintMask), outer.shape)
    step = np.where(outer, walls - values[first], values[second] - values[first])
    length, normals = mesh._cellDistances, mesh.faceNormals
    weight = np.where(outer & ~held, 0.0, mesh._faceAreas / length)
    moment = weight * length**2 * normals[:, None] * normals[None, :]
    right = weight * length * step * normals
    inner = ~outer

    def gather(faces: Floats, sign: float) -> Floats:
        return np.asarray(
            np.bincount(first, faces, n) + sign * np.bincount(second[inner], faces[inner], n), dtype=float
        )

    # Both cells of a face see the same outer product and the same (step x normal).
    matrix = np.array([[gather(moment[i, j], 1.0) for j in range(d)] for i in range(d)])
    vector = np.array([gather(right[i], 1.0) for i in range(d)])
    return np.asarray(np.linalg.pinv(matrix.transpose(2, 0, 1), hermitian=True) @ vector.T[:, :, None])[
        :, :, 0
    ].T


def joule_heat(conductivity: Any, potential: Any) -> Floats:
    """Heat sigma (grad potential)² made in each cell (n,) [W/m³], conservative: its sum is voltage times current.

    conductivity: FaceVariable [S/m], as from `mesh.coefficient`. potential: CellVariable [V], for ions their
    electrochemical potential over e, constrained at the electrodes. The heat of a face is shared by its two cells as
    the line between their generators is.
    """
    mesh: CellMesh2FiPy = potential.mesh
    first, second = mesh._adjacentCellIDs
    outer = np.asarray(mesh.exteriorFaces.value)
    ends = np.where(outer, np.asarray(potential.faceValue.value), potential.value[second])
    length = mesh._cellDistances
    per_length = conductivity.value * mesh._faceAreas * ((ends - potential.value[first]) / length) ** 2
    near, far = mesh._halves * per_length
    n = mesh.numberOfCells
    total = np.bincount(first, near, n) + np.bincount(second, far, n)
    return np.asarray(total / (mesh.cellVolumes * mesh.length_unit**2))
