"""Cell meshes as plain data: orthogonal (Voronoi) cells with named regions and named outer faces.

Every interior face is orthogonal to the line between the generators of its two cells, so two-point fluxes are
consistent. Lengths are in metres; in one dimension face areas are 1 and volumes are lengths, in two they are
lengths and areas per metre of depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import MeshError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CellMesh:
    """A mesh of n cells, f interior faces and b outer faces in `dimension` d.

    centers (n, d): generators [m]. volumes (n,): [m^d].
    face_cells (f, 2): cells k, l of each interior face, periodic faces included.
    face_areas (f,), face_distances (f, 2): normal distance of generator k and of generator l to the face.
    face_normals (f, d): unit vector from k to l (through the periodic wall where the face is one).
    outer_cells (b,), outer_areas (b,), outer_distances (b,), outer_normals (b, d): faces on the box.
    outer_region (b,): index into `outer_names` ("left", "right", "bottom", "top", "back", "front").
    region (n,): index into `region_names`; region 0 is "grain", the others are boundary types.
    grain (n,): grain number, -1 inside a boundary layer. facet (n,): boundary facet number, -1 in a grain.
    layer_normals (n, d): unit normal of the boundary layer that holds the cell, zero in grains.
    period (d,): period of the box along each axis, 0 where it is not periodic.
    vertices (v, d) and polygons (one index array a cell, counter-clockwise; 2D only): for figures and files.
    """

    centers: Floats
    volumes: Floats
    face_cells: Ints
    face_areas: Floats
    face_distances: Floats
    face_normals: Floats
    outer_cells: Ints
    outer_areas: Floats
    outer_distances: Floats
    outer_normals: Floats
    outer_region: Ints
    outer_names: tuple[str, ...]
    region: Ints
    region_names: tuple[str, ...]
    grain: Ints
    facet: Ints
    layer_normals: Floats
    period: Floats
    vertices: Floats | None = None
    polygons: tuple[Ints, ...] | None = field(default=None, repr=False)

    @property
    def dimension(self) -> int:
        """Number of space dimensions, 1 to 3."""
        return int(self.centers.shape[1])

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.volumes)

    @cached_property
    def face_lengths(self) -> Floats:
        """Distance between the generators across each interior face [m]."""
        return np.asarray(self.face_distances.sum(axis=1))

    def outer_faces(self, name: str) -> Ints:
        """Indices of the outer faces called `name`; raises MeshError for an unknown name."""
        if name not in self.outer_names:
            raise MeshError(
                f"no outer faces are called {name!r}; this mesh has {', '.join(self.outer_names)}"
            )
        return np.flatnonzero(self.outer_region == self.outer_names.index(name))

    def with_regions(self, region: Ints, names: Sequence[str]) -> CellMesh:
        """A copy with other regions; `region` (n,) indexes `names`."""
        region = np.asarray(region, dtype=np.int64)
        if region.shape != (self.n_cells,) or region.min() < 0 or region.max() >= len(names):
            raise MeshError(f"regions must be {self.n_cells} integers from 0 to {len(names) - 1}")
        return replace(self, region=region, region_names=tuple(names))

    def scaled(self, factor: float) -> CellMesh:
        """A copy with every length multiplied by `factor`."""
        d = self.dimension
        return replace(
            self,
            centers=self.centers * factor,
            volumes=self.volumes * factor**d,
            face_areas=self.face_areas * factor ** (d - 1),
            face_distances=self.face_distances * factor,
            outer_areas=self.outer_areas * factor ** (d - 1),
            outer_distances=self.outer_distances * factor,
            period=self.period * factor,
            vertices=None if self.vertices is None else self.vertices * factor,
        )


_SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))


def tensor_mesh(edges: Sequence[Floats], periodic: Sequence[bool] | None = None) -> CellMesh:
    """Rectangular cells between the given edges, one ascending array [m] an axis; one region, "grain".

    Generators sit in the middle of the cells. `periodic` axes get faces through the wall instead of outer faces.
    Raises MeshError for edges that do not ascend.
    """
    d = len(edges)
    if not 1 <= d <= 3:
        raise MeshError("a tensor mesh has one to three axes")
    periodic = tuple(periodic or (False,) * d)
    edges = [np.asarray(e, dtype=float) for e in edges]
    for a, e in enumerate(edges):
        if e.ndim != 1 or len(e) < 2 or not np.all(np.diff(e) > 0):
            raise MeshError(f"the edges of axis {a} must ascend and be at least two")
    widths = [np.diff(e) for e in edges]
    mids = [0.5 * (e[1:] + e[:-1]) for e in edges]
    shape = tuple(len(w) for w in widths)
    n = int(np.prod(shape))
    index = np.arange(n).reshape(shape)
    centers = np.stack([g.ravel() for g in np.meshgrid(*mids, indexing="ij")], axis=1)
    width = np.stack([g.ravel() for g in np.meshgrid(*widths, indexing="ij")], axis=1)
    volumes = width.prod(axis=1)
    cells, areas, distances, normals = [], [], [], []
    o_cells, o_areas, o_distances, o_normals, o_region = [], [], [], [], []
    names: list[str] = []
    for a in range(d):
        lo, hi = np.take(index, 0, axis=a).ravel(), np.take(index, -1, axis=a).ravel()
        k = np.take(index, range(shape[a] - 1), axis=a).ravel()
        m = np.take(index, range(1, shape[a]), axis=a).ravel()
        if periodic[a]:
            k, m = np.r_[k, hi], np.r_[m, lo]
        unit = np.eye(d)[a]
        cells.append(np.stack([k, m], axis=1))
        areas.append(volumes[k] / width[k, a])
        distances.append(0.5 * np.stack([width[k, a], width[m, a]], axis=1))
        normals.append(np.tile(unit, (len(k), 1)))
        if not periodic[a]:
            for side, c, sign in ((0, lo, -1.0), (1, hi, 1.0)):
                o_cells.append(c)
                o_areas.append(volumes[c] / width[c, a])
                o_distances.append(0.5 * width[c, a])
                o_normals.append(np.tile(sign * unit, (len(c), 1)))
                o_region.append(np.full(len(c), len(names)))
                names.append(_SIDES[a][side])

    def floats(parts: list[Floats], *width: int) -> Floats:
        return np.concatenate(parts) if parts else np.empty((0, *width))

    def ints(parts: list[Ints]) -> Ints:
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)

    vertices: Floats | None = None
    polygons: tuple[Ints, ...] | None = None
    if d == 2:
        nodes = np.arange((shape[0] + 1) * (shape[1] + 1)).reshape(shape[0] + 1, shape[1] + 1)
        vertices = np.stack([g.ravel() for g in np.meshgrid(*edges, indexing="ij")], axis=1)
        corners = np.stack([nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]], axis=-1)
        polygons = tuple(corners.reshape(-1, 4))
    return CellMesh(
        centers=centers,
        volumes=volumes,
        face_cells=np.concatenate(cells),
        face_areas=np.concatenate(areas),
        face_distances=np.concatenate(distances),
        face_normals=np.concatenate(normals),
        outer_cells=ints(o_cells),
        outer_areas=floats(o_areas),
        outer_distances=floats(o_distances),
        outer_normals=floats(o_normals, d),
        outer_region=ints(o_region),
        outer_names=tuple(names),
        region=np.zeros(n, dtype=np.int64),
        region_names=("grain",),
        grain=np.zeros(n, dtype=np.int64),
        facet=np.full(n, -1, dtype=np.int64),
        layer_normals=np.zeros((n, d)),
        period=np.array([e[-1] - e[0] if p else 0.0 for e, p in zip(edges, periodic, strict=True)]),
        vertices=vertices,
        polygons=polygons,
    )
