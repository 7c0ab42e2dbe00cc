"""FiPy classes that are exact on orthogonal cells: a mesh, a solver and a source term. Importing this loads FiPy.

FiPy 4.0 puts cell centres at the mean of the face centres and measures outer faces from there in any direction;
its LU solver stops without a word when it has not converged; its implicit source moves coefficients of the wrong
sign to the right-hand side, which breaks coupled equations. The classes below mend these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import splu

from mesoion.errors import ConvergenceError, MeshError
from mesoion.fipy_loading import load_fipy
from mesoion.linear_algebra import elimination_order
from mesoion.mesh import CellMesh

fipy: Any = load_fipy()

from fipy.meshes.mesh import Mesh  # noqa: E402
from fipy.meshes.topologies.meshTopology import (  # noqa: E402
    _Mesh1DTopology,
    _Mesh2DTopology,
    _MeshTopology,
)
from fipy.solvers.scipy import LinearLUSolver  # noqa: E402
from fipy.tools.numerix import MA  # noqa: E402

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Orthogonal1D(_Mesh1DTopology):  # type: ignore[misc]
    _isOrthogonal = True


class _Orthogonal2D(_Mesh2DTopology):  # type: ignore[misc]
    _isOrthogonal = True


class _Orthogonal3D(_MeshTopology):  # type: ignore[misc]
    _isOrthogonal = True


class CellMesh2FiPy(Mesh):  # type: ignore[misc]
    """A `mesoion.mesh.CellMesh` as a FiPy mesh: the same cells, faces, areas, volumes and normal distances.

    cell_mesh: the mesh. length_unit [m]: what FiPy's lengths are counted in. Cells keep their order. Faces are the
    interior faces of the cell mesh (`interior`: their numbers there; a face between a cell and itself, through a
    periodic wall, carries no flux and is left out), then its outer faces in order. `cellCenters` are the generators;
    `faceCenters` are the points where the line between two generators meets the face, where a linear interpolation
    of cell values is exact. In two dimensions the polygons serve FiPy's viewers.
    """

    def __init__(self, cell_mesh: CellMesh, length_unit: float = 1.0) -> None:
        if not length_unit > 0.0:
            raise MeshError(f"a length unit of {length_unit!r} m is not allowed; give a length above zero")
        self.cell_mesh, self.length_unit = cell_mesh, length_unit
        mesh = cell_mesh.scaled(1.0 / length_unit)
        self._source_mesh = mesh
        d, n, b = mesh.dimension, mesh.n_cells, len(mesh.outer_cells)
        k, m = mesh.face_cells.T
        self.interior: Ints = np.flatnonzero(k != m)
        k, m = k[self.interior], m[self.interior]
        f = len(k)
        self._pairs = np.stack([np.r_[k, mesh.outer_cells], np.r_[m, np.full(b, -1)]])
        self._areas = np.r_[mesh.face_areas[self.interior], mesh.outer_areas]
        self._normals = np.concatenate([mesh.face_normals[self.interior], mesh.outer_normals]).T.copy()
        near = np.r_[mesh.face_distances[self.interior, 0], mesh.outer_distances]
        far = np.r_[mesh.face_distances[self.interior, 1], np.zeros(b)]
        self._halves = np.stack([near, far])
        self._feet = mesh.centers[self._pairs[0]].T + near * self._normals
        cell = np.r_[k, mesh.outer_cells, m]
        face = np.r_[np.arange(f + b), np.arange(f)]
        order = np.argsort(cell, kind="stable")
        counts = np.bincount(cell, minlength=n)
        start = np.r_[0, np.cumsum(counts)[:-1]]
        slots = np.full((int(counts.max(initial=0)), n), -1)
        slots[np.arange(len(cell)) - np.repeat(start, counts), cell[order]] = face[order]
        corners = np.empty((d, 0)) if mesh.vertices is None or d != 2 else mesh.vertices.T
        super().__init__(
            vertexCoords=np.concatenate([corners, self._feet], axis=1),
            faceVertexIDs=corners.shape[1] + np.arange(f + b)[np.newaxis],
            cellFaceIDs=slots,
            _TopologyClass=(_Orthogonal1D, _Orthogonal2D, _Orthogonal3D)[d - 1],
        )

    # What FiPy would compute from vertices ---------------------------------------------------------------------

    def _calcFaceCellIDs(self) -> Any:
        return MA.masked_values(self._pairs, -1)

    def _calcFaceAreas(self) -> Floats:
        return np.asarray(self._areas)

    def _calcFaceCenters(self) -> Floats:
        return np.asarray(self._feet)

    def _calcCellCenters(self) -> Floats:
        return self._source_mesh.centers.T.copy()

    def _calcCellVolumes(self) -> Floats:
        return np.array(self._source_mesh.volumes)

    def _calcFaceToCellDistAndVec(self) -> tuple[Any, Any]:
        mask = np.zeros_like(self._halves, dtype=bool)
        mask[1] = self._pairs[1] < 0
        vectors = np.stack([self._halves[0] * self._normals, -self._halves[1] * self._normals], axis=1)
        return MA.array(self._halves, mask=mask), MA.array(vectors, mask=np.broadcast_to(mask, vectors.shape))

    def _calcCellDistAndVec(self) -> tuple[Floats, Floats]:
        length = self._halves.sum(axis=0)
        return length, length * self._normals

    def _calcFaceNormals(self) -> Floats:
        return self._normals

    def _calcFaceCellToCellNormals(self) -> Floats:
        return self._normals

    def _calcFaceTangents(self) -> tuple[Floats, Floats]:
        normals, d = self._normals, self.dim
        first, second = np.zeros_like(normals), np.zeros_like(normals)
        if d == 2:
            first[0], first[1] = -normals[1], normals[0]
        elif d == 3:
            axis = np.eye(3)[np.abs(normals).argmin(axis=0)].T
            first = np.cross(axis, normals, axis=0)
            first /= np.linalg.norm(first, axis=0)
            second = np.cross(first, normals, axis=0)
        return first, second

    @property
    def _cellVertexIDs(self) -> Any:
        polygons = self._source_mesh.polygons
        if polygons is None or self.dim != 2:
            return self.faceVertexIDs[0][self.cellFaceIDs]
        width = max(len(p) for p in polygons)
        ids = np.full((width, len(polygons)), -1)
        for cell, polygon in enumerate(polygons):
            ids[: len(polygon), cell] = polygon
        return MA.masked_values(ids, -1)

    # Named faces and layered coefficients ----------------------------------------------------------------------

    def outer(self, name: str) -> Any:
        """Mask of the outer faces called `name`; raises MeshError for an unknown name."""
        mask = np.zeros(self.numberOfFaces, dtype=bool)
        mask[len(self.interior) + self.cell_mesh.outer_faces(name)] = True
        return fipy.FaceVariable(mesh=self, value=mask)

    def between(self, first: str, second: str) -> Any:
        """Mask of the interior faces between cells of two regions; raises MeshError for an unknown region."""
        names, region = self.cell_mesh.region_names, self.cell_mesh.region
        for name in (first, second):
            if name not in names:
                raise MeshError(f"no region is called {name!r}; this mesh has {', '.join(names)}")
        a, b = names.index(first), names.index(second)
        k, m = (region[side] for side in self._pairs)
        inner = self._pairs[1] >= 0
        return fipy.FaceVariable(mesh=self, value=inner & (((k == a) & (m == b)) | ((k == b) & (m == a))))

    def _named(self, name: str) -> Any:
        if name in self.cell_mesh.outer_names:
            return self.outer(name)
        return fipy.FaceVariable(mesh=self, value=np.zeros(self.numberOfFaces, dtype=bool))

    facesLeft = property(lambda self: self._named("left"))
    facesRight = property(lambda self: self._named("right"))
    facesBottom = property(lambda self: self._named("bottom"))
    facesTop = property(lambda self: self._named("top"))
    facesBack = property(lambda self: self._named("back"))
    facesFront = property(lambda self: self._named("front"))

    def sides(self, across: ArrayLike, along: ArrayLike | None = None) -> Floats:
        """Cell coefficients as each face sees them from its two sides, (2, faces); inf behind an outer face.

        across, along (n,): the coefficient of each cell normal to its layer and in the layer's plane, in any unit;
        without `along` every cell is isotropic. In a cell of layer normal m a face of normal n sees
        along + (across − along)(m·n)²; grains see `across`.
        """
        across = np.broadcast_to(np.asarray(across, dtype=float), self.numberOfCells)
        along = (
            across if along is None else np.broadcast_to(np.asarray(along, dtype=float), self.numberOfCells)
        )
        values = np.full((2, self.numberOfFaces), np.inf)
        for side, cells in enumerate(self._pairs):
            inside = cells >= 0
            cell, normals = cells[inside], self._normals.T[inside]
            layer = self.cell_mesh.layer_normals[cell]
            cosine = np.einsum("ij,ij->i", layer, normals)
            tensor = along[cell] + (across[cell] - along[cell]) * cosine**2
            values[side, inside] = np.where(layer.any(axis=1), tensor, across[cell])
        return values

    def in_series(self, sides: Floats) -> Any:
        """Face coefficient for `DiffusionTerm` of two half coefficients (2, faces): d/(d_k/p_k + d_l/p_l)."""
        with np.errstate(divide="ignore"):
            resistance = np.where(self._halves > 0.0, self._halves / sides, 0.0).sum(axis=0)
            return fipy.FaceVariable(mesh=self, value=self._halves.sum(axis=0) / resistance)

    def coefficient(self, across: ArrayLike, along: ArrayLike | None = None) -> Any:
        """Face coefficient for `DiffusionTerm` of cell coefficients (see `sides`), both halves of a face in series.

        A zero on one side closes the face.
        """
        return self.in_series(self.sides(across, along))


class RowScaledLU(LinearLUSolver):  # type: ignore[misc]
    """Direct solver for single and coupled equations on one mesh: rows scaled, cells in nested-dissection order.

    mesh: a FiPy mesh. tolerance: largest residual, relative to the right-hand side of the scaled system, after one step
    of refinement; factors without pivoting that miss it are replaced by pivoted ones. Raises ConvergenceError where
    the matrix is singular or the residual stays above the tolerance.
    """

    def __init__(self, mesh: Any, tolerance: float = 1e-8) -> None:
        super().__init__(tolerance=tolerance, criterion="RHS")
        first, second = mesh._adjacentCellIDs
        inner = first != second
        position = elimination_order(
            mesh.numberOfCells,
            np.asarray(first)[inner].astype(np.int64),
            np.asarray(second)[inner].astype(np.int64),
            np.asarray(mesh._cellCenters.T),
        )
        self._order = np.argsort(position)

    def _solve_(self, L: Any, x: Floats, b: Floats) -> Floats:
        matrix = sp.csr_matrix(L)
        n = len(self._order)
        blocks = matrix.shape[0] // n
        order = (self._order[:, np.newaxis] + n * np.arange(blocks)).ravel()
        largest = np.asarray(abs(matrix).max(axis=1).todense()).ravel()
        if not np.all(largest > 0.0):
            raise ConvergenceError("a row of FiPy's matrix is empty or not finite", at="linear solve")
        scaled = (sp.diags(1.0 / largest) @ matrix).tocsr()[order][:, order].tocsc()
        right = (b / largest)[order]
        residual, reference = np.inf, float(np.linalg.norm(right))
        # Without pivoting the order keeps the factors sparse; equations with an empty diagonal need it.
        for options in (
            {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}},
            {"permc_spec": "COLAMD", "diag_pivot_thresh": 1.0},
        ):
            try:
                factors = splu(scaled, **options)
            except RuntimeError:
                continue
            y = factors.solve(right)
            y += factors.solve(right - scaled @ y)
            residual = float(np.linalg.norm(right - scaled @ y))
            if residual <= self.tolerance * reference:
                break
        else:
            raise ConvergenceError(
                "FiPy's equations have no accurate solution: the matrix is singular or nearly so "
                f"(relative residual {residual / max(reference, 1e-300):.1e})",
                at="linear solve",
            )
        x[order] = y
        self._setConvergence(suite="scipy", code=0, iterations=1, residual=residual)
        return x


class SignedImplicitSource(fipy.ImplicitSourceTerm):  # type: ignore[misc]
    """`ImplicitSourceTerm` that always stays on the left-hand side, whatever its coefficient's sign.

    Needed wherever one variable is a source in another one's equation.
    """

    def _getWeight(self, var: Any, transientGeomCoeff: Any = None, diffusionGeomCoeff: Any = None) -> Any:
        one = np.ones(var.shape)
        zero = np.zeros(var.shape)
        return {"diagonal": one, "old value": zero, "b vector": zero, "new value": zero}
