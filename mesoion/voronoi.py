"""Cell meshes from generators in the plane: the Voronoi diagram as the circumcentre dual of a Delaunay triangulation.

Periodic axes use shifted images of the generators and are folded back, walls use mirrored ones and so lie on cell
faces exactly. The cells close and their faces are orthogonal to the lines between generators by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from mesoion.errors import MeshError
from mesoion.mesh import CellMesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Dual faces shorter than this, in units of the grain size, are round-off.
_FLIP = 1e-11

_OUTER = (("left", "right"), ("bottom", "top"))


@dataclass(frozen=True)
class CellLabels:
    """What each generator's cell is: region, grain, facet and layer normal, as in `CellMesh`."""

    region: Ints
    region_names: tuple[str, ...]
    grain: Ints
    facet: Ints
    layer_normals: Floats


def voronoi_mesh(
    generators: Floats,
    labels: CellLabels,
    box: Floats,
    periodic: tuple[bool, bool],
    reach: float,
    unit: float = 1.0,
) -> CellMesh:
    """The Voronoi cells of `generators` (n, 2) inside [0, box[0]] x [0, box[1]].

    `reach` is the depth of images kept beyond each side; it must exceed the diameter of the largest empty circle.
    Lengths given are in units of `unit` [m], so that the triangulation works near 1; the mesh is in metres.
    Raises MeshError where cells do not fill the box.
    """
    n = len(generators)
    points, base, shift, outer = _with_images(generators, box, periodic, reach)
    tri, neighbours = _delaunay(points, n)
    centres = _circumcentres(points, tri)

    cell, other, area = [], [], []
    order = np.arange(len(tri))
    for corner in range(3):
        p, q = tri[:, (corner + 1) % 3], tri[:, (corner + 2) % 3]
        once = (neighbours[:, corner] > order) & ((p < n) | (q < n))
        t, r, p, q = order[once], neighbours[once, corner], p[once], q[once]
        step = points[q] - points[p]
        cell.append(np.where(p < n, p, q))
        other.append(np.where(p < n, q, p))
        area.append(_cross(step, centres[t] - centres[r]) / np.hypot(*step.T))
    k, m, face = np.concatenate(cell), np.concatenate(other), np.concatenate(area)
    if face.size and face.min() < -1e-8:
        raise MeshError(
            "the triangulation of the generators is not Delaunay; use a wider grain-boundary layer"
        )
    # A face through a periodic wall appears twice, once from each side; keep the one towards positive shifts.
    s = shift[m]
    positive = (s[:, 0] > 0) | ((s[:, 0] == 0) & (s[:, 1] > 0))
    inner = (outer[m] < 0) & ((m < n) | positive) & (face > 1e-15)
    wall = (outer[m] >= 0) & (base[m] == k) & (face > 1e-15)
    step = points[m] - points[k]
    length = np.hypot(*step.T)
    normal = step / length[:, None]
    names = tuple(_OUTER[axis][side] for axis in (0, 1) if not periodic[axis] for side in (0, 1))
    volumes = 0.25 * (
        np.bincount(k[inner], (face * length)[inner], n)
        + np.bincount(base[m[inner]], (face * length)[inner], n)
        + np.bincount(k[wall], (face * length)[wall], n)
    )
    if abs(volumes.sum() / np.prod(box) - 1.0) > 1e-9:
        raise MeshError(
            f"the cells cover {volumes.sum() / np.prod(box):.9f} of the box; use a smaller max_cell or more grains"
        )
    vertices, polygons = _polygons(points, tri, centres, n)
    return CellMesh(
        centers=generators * unit,
        volumes=np.asarray(volumes * unit**2, dtype=float),
        face_cells=np.stack([k[inner], base[m[inner]]], axis=1),
        face_areas=face[inner] * unit,
        face_distances=np.repeat(0.5 * length[inner, None], 2, axis=1) * unit,
        face_normals=normal[inner],
        outer_cells=k[wall],
        outer_areas=face[wall] * unit,
        outer_distances=0.5 * length[wall] * unit,
        outer_normals=normal[wall],
        outer_region=_renumber(outer[m[wall]], periodic),
        outer_names=names,
        region=labels.region,
        region_names=labels.region_names,
        grain=labels.grain,
        facet=labels.facet,
        layer_normals=labels.layer_normals,
        period=np.where(periodic, box, 0.0) * unit,
        vertices=vertices * unit,
        polygons=polygons,
    )


def _delaunay(points: Floats, n: int) -> tuple[Ints, Ints]:
    """Corners (t, 3), counter-clockwise, and the neighbours opposite to them, of a Delaunay triangulation.

    Qhull decides on lifted coordinates and errs where cells are thinner than about 1e-5 of the box; edges whose dual
    face has a negative length, computed from differences, are flipped (Lawson). Only the first n points matter.
    """
    # Images make the hull convex and wide, centring keeps the lifted coordinate small.
    triangulation = Delaunay(points - points.mean(axis=0))
    if len(triangulation.coplanar):
        raise MeshError("two generators cannot be told apart; use a wider grain-boundary layer")
    tri = triangulation.simplices.astype(np.int64)
    neighbours = triangulation.neighbors.astype(np.int64)
    a, b, c = (points[tri[:, k]] for k in range(3))
    turned = _cross(b - a, c - a) < 0
    tri[turned] = tri[turned][:, [0, 2, 1]]
    neighbours[turned] = neighbours[turned][:, [0, 2, 1]]
    stack = _inverted(points, tri, neighbours, n)
    for _ in range(50 * len(stack) + 1000):
        if not stack:
            return tri, neighbours
        t = stack.pop()
        for k in range(3):
            r = int(neighbours[t, k])
            real = min(tri[t, (k + 1) % 3], tri[t, (k + 2) % 3]) < n
            if (
                r >= 0
                and real
                and _dual_length(points, tri, t, r, k) < -_FLIP
                and _flip(points, tri, neighbours, t, k)
            ):
                stack += [t, r]
                break
    raise MeshError("the triangulation of the generators is not Delaunay; use a wider grain-boundary layer")


def _inverted(points: Floats, tri: Ints, neighbours: Ints, n: int) -> list[int]:
    """Triangles with an edge at one of the first n points whose dual face has a negative length."""
    centres = _circumcentres(points, tri)
    found: set[int] = set()
    for k in range(3):
        near = (tri[:, (k + 1) % 3] < n) | (tri[:, (k + 2) % 3] < n)
        t = np.flatnonzero(near & (neighbours[:, k] > np.arange(len(tri))))
        step = points[tri[t, (k + 2) % 3]] - points[tri[t, (k + 1) % 3]]
        length = _cross(step, centres[t] - centres[neighbours[t, k]]) / np.hypot(*step.T)
        found.update(t[length < -_FLIP].tolist())
    return sorted(found)


def _dual_length(points: Floats, tri: Ints, t: int, r: int, k: int) -> float:
    centres = _circumcentres(points, tri[[t, r]])
    step = points[tri[t, (k + 2) % 3]] - points[tri[t, (k + 1) % 3]]
    gap = centres[0] - centres[1]
    return float((step[0] * gap[1] - step[1] * gap[0]) / np.hypot(*step))


def _flip(points: Floats, tri: Ints, neighbours: Ints, t: int, k: int) -> bool:
    """Flip the edge opposite to corner k of triangle t; False where the two triangles are not convex together."""
    r = int(neighbours[t, k])
    m = int(np.flatnonzero(neighbours[r] == t)[0])
    top, left, right = (int(tri[t, (k + i) % 3]) for i in range(3))
    bottom = int(tri[r, m])
    quad = points[[top, left, bottom, right]]
    side = np.roll(quad, -1, axis=0) - quad
    if np.any(_cross(side, np.roll(side, -1, axis=0)) <= 0):
        return False
    # Outer neighbours: across left-top and top-right in t, right-bottom and bottom-left in r.
    at_left, at_right = int(neighbours[t, (k + 2) % 3]), int(neighbours[t, (k + 1) % 3])
    low_left, low_right = int(neighbours[r, (m + 1) % 3]), int(neighbours[r, (m + 2) % 3])
    tri[t], neighbours[t] = (top, left, bottom), (low_left, r, at_left)
    tri[r], neighbours[r] = (top, bottom, right), (low_right, at_right, t)
    if low_left >= 0:
        neighbours[low_left][neighbours[low_left] == r] = t
    if at_right >= 0:
        neighbours[at_right][neighbours[at_right] == t] = r
    return True


def _with_images(
    generators: Floats, box: Floats, periodic: tuple[bool, bool], reach: float
) -> tuple[Floats, Ints, Ints, Ints]:
    """Generators and images: points, generator of each, shift in periods, outer side (2 axis + end) or -1."""
    n = len(generators)
    parts = [(generators, np.arange(n), np.zeros((n, 2), dtype=np.int64), np.full(n, -1))]
    for axis in (0, 1):
        xy, base, shift, outer = (np.concatenate(p) for p in zip(*parts, strict=True))
        for side in (0, 1):
            wall = side * box[axis]
            near = np.abs(xy[:, axis] - (box[axis] - wall if periodic[axis] else wall)) < reach
            image, moved, mark = xy[near].copy(), shift[near].copy(), outer[near].copy()
            if periodic[axis]:
                image[:, axis] += (2 * side - 1) * box[axis]
                moved[:, axis] += 2 * side - 1
            else:
                image[:, axis] = 2.0 * wall - image[:, axis]
                mark[:] = 2 * axis + side
            parts.append((image, base[near], moved, mark))
    xy, base, shift, outer = (np.concatenate(p) for p in zip(*parts, strict=True))
    return xy, base, shift, outer


def _renumber(outer: Ints, periodic: tuple[bool, bool]) -> Ints:
    return outer - (2 if periodic[0] else 0)


def _cross(u: Floats, v: Floats) -> Floats:
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def _circumcentres(points: Floats, tri: Ints) -> Floats:
    """Circumcentres (t, 2), computed relative to a corner: thin triangles lose no digits to the origin."""
    a = points[tri[:, 0]]
    u, v = points[tri[:, 1]] - a, points[tri[:, 2]] - a
    uu, vv = (u**2).sum(axis=1), (v**2).sum(axis=1)
    # Flat triangles exist only on the hull of the images, far from every real cell.
    twice = 2.0 * _cross(u, v)
    twice[twice == 0] = np.finfo(float).tiny
    with np.errstate(over="ignore", invalid="ignore"):
        offset = np.stack([v[:, 1] * uu - u[:, 1] * vv, u[:, 0] * vv - v[:, 0] * uu], axis=1) / twice[:, None]
    return a + offset


def _polygons(points: Floats, tri: Ints, centres: Floats, n: int) -> tuple[Floats, tuple[Ints, ...]]:
    """Corners of the first n cells, counter-clockwise."""
    cell = tri.ravel()
    corner = np.repeat(np.arange(len(tri)), 3)
    real = cell < n
    cell, corner = cell[real], corner[real]
    spoke = centres[corner] - points[cell]
    order = np.lexsort((np.arctan2(spoke[:, 1], spoke[:, 0]), cell))
    cell, corner = cell[order], corner[order]
    used, corner = np.unique(corner, return_inverse=True)
    bounds = np.searchsorted(cell, np.arange(1, n))
    return centres[used], tuple(np.split(corner.astype(np.int64), bounds))
