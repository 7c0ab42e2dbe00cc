"""Two-dimensional polycrystals: Laguerre (power) tessellations with a prescribed grain-size distribution.

A grain's cell is the set of points whose power distance |x - p|^2 - w to its seed p is the smallest. The weights w
are solved for so that every grain has exactly the area asked for (semi-discrete optimal transport, damped Newton:
Kitagawa, Merigot, Thibert, J. Eur. Math. Soc. 21 (2019) 2603), so no grain vanishes and the distribution is hit, not
approached. Periodic axes use shifted images of the seeds, walls use mirrored ones. Lengths are in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial import ConvexHull, cKDTree
from scipy.special import ndtri

from mesoion.errors import InputError, MeshError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AREA_TOLERANCE = 1e-9
_NEWTON_LIMIT = 60


@dataclass(frozen=True, eq=False)
class Microstructure:
    """A planar polycrystal of n grains, m facets and v junctions in a rectangular box.

    box (2,): edge lengths [m]. periodic: along x and y; an axis that is not ends at walls without boundary layers.
    seeds (n, 2) [m] and weights (n,) [m^2] of the power diagram (NaN weights where a grain is not a power cell).
    vertices (v, 2): junctions, points where facets meet each other or a wall [m].
    facet_vertices (m, 2), facet_start (m, 2), facet_end (m, 2): end points; the end is not folded into the box.
    facet_grains (m, 2): the grain on the left and on the right of start -> end.
    facet_type (m,): index into `boundary_names`.
    outlines: per grain its corners (k, 2), counter-clockwise and not folded; outline_vertices: their junctions;
    outline_facets: the facet of the edge from corner j to j + 1, -1 for a stretch of wall.
    """

    box: Floats
    periodic: tuple[bool, bool]
    seeds: Floats
    weights: Floats
    vertices: Floats
    facet_vertices: Ints
    facet_start: Floats
    facet_end: Floats
    facet_grains: Ints
    facet_type: Ints
    boundary_names: tuple[str, ...]
    outlines: tuple[Floats, ...]
    outline_vertices: tuple[Ints, ...]
    outline_facets: tuple[Ints, ...]

    @property
    def n_grains(self) -> int:
        """Number of grains."""
        return len(self.outlines)

    @property
    def n_facets(self) -> int:
        """Number of facets."""
        return len(self.facet_start)

    @cached_property
    def facet_lengths(self) -> Floats:
        """Length of each facet (m,) [m]."""
        return np.asarray(np.hypot(*(self.facet_end - self.facet_start).T))

    @cached_property
    def grain_areas(self) -> Floats:
        """Area of each grain (n,) [m^2]."""
        return np.array([_polygon_area(p) for p in self.outlines])

    @property
    def grain_diameters(self) -> Floats:
        """Diameter of the circle of the same area, sqrt(4 A/pi) (n,) [m]."""
        return np.sqrt(4.0 * self.grain_areas / np.pi)

    @property
    def mean_grain_size(self) -> float:
        """Number mean of the equivalent diameters [m], as achieved."""
        return float(self.grain_diameters.mean())

    @property
    def size_spread(self) -> float:
        """Standard deviation of ln(equivalent diameter), as achieved."""
        return float(np.log(self.grain_diameters).std())

    @property
    def mean_linear_intercept(self) -> float:
        """Mean chord between boundaries, pi A/(2 L) with L the total facet length [m] (inf without any).

        ASTM E112's quantity in plane stereology (Underwood, Quantitative Stereology, 1970: P_L = (2/pi) L_A).
        """
        total = float(self.facet_lengths.sum())
        return float(0.5 * np.pi * np.prod(self.box)) / total if total > 0 else np.inf

    @property
    def boundary_fractions(self) -> dict[str, float]:
        """Fraction of the total facet length of each boundary type, as achieved."""
        lengths = np.bincount(self.facet_type, self.facet_lengths, len(self.boundary_names))
        total = max(float(lengths.sum()), 1e-300)
        return dict(zip(self.boundary_names, (lengths / total).tolist(), strict=True))

    @cached_property
    def junction_degrees(self) -> Ints:
        """Number of facet ends that meet at each junction (v,)."""
        return np.bincount(self.facet_vertices.ravel(), minlength=len(self.vertices)).astype(np.int64)

    def scaled(self, factor: float) -> Microstructure:
        """A copy with every length multiplied by `factor`."""
        return replace(
            self,
            box=self.box * factor,
            seeds=self.seeds * factor,
            weights=self.weights * factor**2,
            vertices=self.vertices * factor,
            facet_start=self.facet_start * factor,
            facet_end=self.facet_end * factor,
            outlines=tuple(p * factor for p in self.outlines),
        )

    def with_boundary_types(
        self, fractions: Mapping[str, float], rng: np.random.Generator | int
    ) -> Microstructure:
        """A copy whose facets carry types drawn at random so that each type has its fraction of the length.

        Facets are shuffled and laid end to end; each type takes its share of that line. Fractions must be positive
        and are normalised to 1. The achieved ones differ by at most about one facet (`boundary_fractions`).
        """
        names, share = _checked_fractions(fractions)
        order = np.random.default_rng(rng).permutation(self.n_facets)
        middle = np.cumsum(self.facet_lengths[order]) - 0.5 * self.facet_lengths[order]
        kind = np.empty(self.n_facets, dtype=np.int64)
        kind[order] = np.searchsorted(np.cumsum(share)[:-1] * self.facet_lengths.sum(), middle)
        return replace(self, facet_type=kind, boundary_names=names)

    def without_short_facets(self, length: float) -> Microstructure:
        """A copy in which no facet is shorter than `length` [m]: shorter ones have become junctions.

        A short facet is a contact: between blocking boundaries a conducting one of length a carries current in
        proportion to 1/ln(d/a), not to a, so whether it is there matters. Models to be compared need the same ones.
        """
        micro = self
        for _ in range(self.n_facets):
            short = micro.facet_lengths < length
            if not short.any():
                break
            # The shortest first: merging it lengthens or shortens its neighbours.
            micro = micro.with_merged_facets(short & (micro.facet_lengths <= 2.0 * micro.facet_lengths.min()))
        return micro

    def with_merged_facets(self, short: NDArray[np.bool_]) -> Microstructure:
        """A copy in which the facets flagged in `short` (m,) have shrunk to a point: their junctions become one.

        The new junction lies at the mean of those it replaces, on the wall if one of them does. Grain areas change by
        about facet length times grain size. Raises MeshError where a grain would vanish.
        """
        moved, label = self._merged_positions(np.asarray(short, dtype=bool))
        outlines, corners, edges = [], [], []
        for g, (points, ids, facets) in enumerate(
            zip(self.outlines, self.outline_vertices, self.outline_facets, strict=True)
        ):
            new = points + moved[ids]
            gone = np.hypot(*(np.roll(new, -1, axis=0) - new).T) <= 1e-9 * self.box.max()
            keep = ~gone
            if keep.sum() < 3 or _polygon_area(new[keep]) <= 0.01 * self.grain_areas[g]:
                raise MeshError(
                    f"grain {g} (equivalent diameter {self.grain_diameters[g]:.3g} m) is not larger than the boundary"
                    " layers around it; use a smaller grain-boundary width, a larger grain size or a smaller spread"
                )
            outlines.append(new[keep])
            corners.append(label[ids[keep]])
            edges.append(facets[keep])
        return _assemble(self, outlines, corners, edges, vertices=self.vertices + moved, label=label)

    def _merged_positions(self, short: NDArray[np.bool_]) -> tuple[Floats, Ints]:
        """Displacement of every junction and the junction that now stands for it."""
        v = len(self.vertices)
        a, b = self.facet_vertices[short].T
        step = (self.facet_end - self.facet_start)[short]
        graph = csr_array((np.ones(len(a)), (a, b)), shape=(v, v))
        n_parts, part = connected_components(graph, directed=False)
        moved, label = np.zeros((v, 2)), np.arange(v)
        links: dict[tuple[int, int], Floats] = {}
        for p, q, d in zip(a.tolist(), b.tolist(), step, strict=True):
            links[p, q], links[q, p] = d, -d
        for c in np.flatnonzero(np.bincount(part, minlength=n_parts) > 1):
            order, before = breadth_first_order(graph, np.flatnonzero(part == c)[0], directed=False)
            place = {int(order[0]): self.vertices[order[0]]}
            for q in order[1:].tolist():
                p = int(before[q])
                place[q] = place[p] + links[p, q]
            xy = np.array(list(place.values()))
            centre = xy.mean(axis=0)
            for axis in (0, 1):
                wall = self._on_wall(xy, axis)
                if wall.any():
                    centre[axis] = xy[wall, axis][0]
            members = np.array(list(place))
            moved[members] = centre - xy
            label[members] = members[0]
        return moved, label

    def _on_wall(self, xy: Floats, axis: int) -> NDArray[np.bool_]:
        if self.periodic[axis]:
            return np.zeros(len(xy), dtype=bool)
        tolerance = 1e-9 * self.box[axis]
        return np.asarray((xy[:, axis] < tolerance) | (xy[:, axis] > self.box[axis] - tolerance))


def polycrystal(
    n_grains: int,
    mean_grain_size: float,
    size_spread: float = 0.35,
    rng: np.random.Generator | int = 0,
    boundary_types: Mapping[str, float] | None = None,
    periodic: tuple[bool, bool] = (True, True),
    aspect: float = 1.0,
) -> Microstructure:
    """A random polycrystal whose equivalent diameters follow a log-normal distribution.

    The diameters are the n quantiles of the log-normal with number mean `mean_grain_size` [m] and standard deviation
    of ln d `size_spread`, shuffled over random seed points, so that mean and spread are met for any number of grains;
    the box has the area of all grains and the ratio `aspect` of its x to its y length. `boundary_types` gives the
    fraction of the boundary length of each type. `rng` (generator or integer) decides everything random.
    Raises InputError for values that make no polycrystal.
    """
    if n_grains < 1:
        raise InputError("n_grains", n_grains, "give at least one grain")
    if not (np.isfinite(mean_grain_size) and mean_grain_size > 0):
        raise InputError("mean_grain_size", mean_grain_size, "give a positive length in metres")
    if not 0 <= size_spread <= 1.0:
        raise InputError(
            "size_spread", size_spread, "the standard deviation of ln d must lie between 0 and 1"
        )
    normal = ndtri((np.arange(n_grains) + 0.5) / n_grains)
    if n_grains > 1:
        normal /= normal.std()
    diameters = np.exp(size_spread * normal)
    diameters *= mean_grain_size / diameters.mean()
    return polycrystal_from_sizes(diameters, rng, boundary_types, periodic, aspect)


def polycrystal_from_sizes(
    diameters: ArrayLike,
    rng: np.random.Generator | int = 0,
    boundary_types: Mapping[str, float] | None = None,
    periodic: tuple[bool, bool] = (True, True),
    aspect: float = 1.0,
) -> Microstructure:
    """A random polycrystal with one grain for each equivalent diameter given (n,) [m], measured ones for example.

    Raises InputError for an empty list or values that are not positive, MeshError if the areas cannot be met.
    """
    sizes = np.asarray(diameters, dtype=float)
    if sizes.ndim != 1 or len(sizes) == 0:
        raise InputError("diameters", "an empty distribution", "give at least one equivalent diameter")
    if not np.all(np.isfinite(sizes) & (sizes > 0)):
        bad = float(sizes[~(np.isfinite(sizes) & (sizes > 0))][0])
        raise InputError("diameters", bad, "equivalent diameters must be positive lengths in metres")
    if not (np.isfinite(aspect) and 0.1 <= aspect <= 10.0):
        raise InputError("aspect", aspect, "the box's x length over its y length must lie between 0.1 and 10")
    types = boundary_types if boundary_types is not None else {"general": 1.0}
    _checked_fractions(types)
    generator = np.random.default_rng(rng)
    target = generator.permutation(0.25 * np.pi * sizes**2)
    # Qhull's tolerances are absolute: work in units of the mean grain.
    unit = float(np.sqrt(target.mean()))
    target = target / unit**2
    area = target.sum()
    box = np.array([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    seeds = generator.random((len(sizes), 2)) * box
    weights = np.zeros(len(sizes))
    for sweep in range(8):
        if sweep > 2 or len(sizes) == 1:
            weights = _fit_weights(
                seeds, weights, target, box, periodic, 1e-2 if sweep < 7 else AREA_TOLERANCE
            )
        if sweep < 7:
            seeds = _fold(_PowerDiagram(seeds, weights, box, periodic).centroids(), box, periodic)
    raw = _outlines(_PowerDiagram(seeds, weights, box, periodic))
    return raw.scaled(unit).with_boundary_types(types, generator)


def bricks(
    n: int, edge: float, boundary_types: Mapping[str, float] | None = None, rng: int = 0
) -> Microstructure:
    """n x n square grains of the given edge [m], periodic: the brick-layer model with four-fold junctions."""
    if n < 1:
        raise InputError("n", n, "give at least one brick along each axis")
    return _grid(n, n, edge, edge, (True, True)).with_boundary_types(boundary_types or {"general": 1.0}, rng)


def lamellae(
    n: int, thickness: float, height: float, periodic: tuple[bool, bool] = (True, True)
) -> Microstructure:
    """n grains stacked along x with straight boundaries normal to x: the exact series and parallel limits.

    thickness of each grain along x and height of the box along y [m]. Periodic along x there are n boundaries,
    between walls n - 1; n = 2 with periodic=(False, True) is a bicrystal.
    """
    if n < 1:
        raise InputError("n", n, "give at least one lamella")
    return _grid(n, 1, thickness, height, periodic, rows_bounded=False)


def _checked_fractions(fractions: Mapping[str, float]) -> tuple[tuple[str, ...], Floats]:
    if not fractions:
        raise InputError(
            "boundary_types", dict(fractions), "name at least one boundary type with its fraction"
        )
    share = np.array([float(f) for f in fractions.values()])
    if not (np.all(np.isfinite(share)) and np.all(share >= 0) and share.sum() > 0):
        raise InputError(
            "boundary_types", dict(fractions), "fractions of length must be non-negative, not all zero"
        )
    if "grain" in fractions:
        raise InputError("boundary_types", "grain", "that name is taken by the grains; choose another one")
    return tuple(fractions), share / share.sum()


def _polygon_area(xy: Floats) -> float:
    p = xy - xy[0]
    q = np.roll(p, -1, axis=0)
    return float(0.5 * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum())


def _fold(xy: Floats, box: Floats, periodic: tuple[bool, bool]) -> Floats:
    folded = xy.copy()
    for axis in (0, 1):
        if periodic[axis]:
            folded[:, axis] %= box[axis]
            folded[folded[:, axis] >= box[axis], axis] = 0.0
    return folded


class _PowerDiagram:
    """Power diagram of seeds in a box as the lower hull of the lifted seeds and their images."""

    def __init__(self, seeds: Floats, weights: Floats, box: Floats, periodic: tuple[bool, bool]) -> None:
        self.seeds, self.weights, self.box, self.periodic = seeds, weights, box, periodic
        n = self.n = len(seeds)
        pad = np.inf if n < 40 else 5.0 * np.sqrt(box.prod() / n)
        xy, base, shift = seeds, np.arange(n), np.zeros((n, 2), dtype=np.int64)
        mirrored = np.zeros(n, dtype=bool)
        reach = 2 if n < 10 else 1
        for axis in (0, 1):
            parts = [(xy, base, shift, mirrored)]
            if periodic[axis]:
                for k in range(-reach, reach + 1):
                    if k == 0:
                        continue
                    image = xy.copy()
                    image[:, axis] += k * box[axis]
                    near = (image[:, axis] > -pad) & (image[:, axis] < box[axis] + pad)
                    moved = shift.copy()
                    moved[:, axis] += k
                    parts.append((image[near], base[near], moved[near], mirrored[near]))
            else:
                for wall in (0.0, box[axis]):
                    image = xy.copy()
                    image[:, axis] = 2.0 * wall - image[:, axis]
                    near = (image[:, axis] > -pad) & (image[:, axis] < box[axis] + pad)
                    parts.append((image[near], base[near], shift[near], np.ones(near.sum(), dtype=bool)))
            xy, base, shift, mirrored = (np.concatenate(p) for p in zip(*parts, strict=True))
        self.xy, self.base, self.shift, self.mirrored = xy, base, shift, mirrored
        lifted = np.column_stack([xy, (xy**2).sum(axis=1) - weights[base]])
        hull = ConvexHull(lifted - lifted.mean(axis=0))
        lower = hull.equations[:, 2] < -1e-12
        normal = hull.equations[lower]
        self.corners = -0.5 * normal[:, :2] / normal[:, 2:3]
        tri = hull.simplices[lower].astype(np.int64)
        a, b, c = (xy[tri[:, k]] for k in range(3))
        flip = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        tri[flip] = tri[flip][:, [0, 2, 1]]
        self._pair_edges(tri)

    def _pair_edges(self, tri: Ints) -> None:
        """Facets seen from each real grain: grain, neighbour image, start and end corner, counter-clockwise."""
        tail, head = tri.ravel(), np.roll(tri, -1, axis=1).ravel()
        left = np.repeat(np.arange(len(tri)), 3)
        size = len(self.xy)
        order = np.argsort(tail * size + head)
        key = (tail * size + head)[order]
        back = head * size + tail
        spot = np.minimum(np.searchsorted(key, back), len(key) - 1)
        inside = (tail < self.n) & (key[spot] == back)
        self.grain, self.neighbour = tail[inside], head[inside]
        self.start, self.end = left[order][spot[inside]], left[inside]

    def areas(self) -> Floats:
        """Area of each cell (n,)."""
        origin = self.seeds[self.grain]
        p, q = self.corners[self.start] - origin, self.corners[self.end] - origin
        cross = 0.5 * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])
        return np.asarray(np.bincount(self.grain, cross, self.n), dtype=float)

    def centroids(self) -> Floats:
        """Centroid of each cell (n, 2), not folded."""
        origin = self.seeds[self.grain]
        p, q = self.corners[self.start] - origin, self.corners[self.end] - origin
        cross = 0.5 * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])
        area = np.bincount(self.grain, cross, self.n)
        moment = np.stack(
            [np.bincount(self.grain, cross * (p[:, k] + q[:, k]) / 3.0, self.n) for k in (0, 1)], axis=1
        )
        return self.seeds + np.divide(
            moment, area[:, None], out=np.zeros_like(moment), where=area[:, None] > 0
        )

    def area_derivative(self) -> csr_array:
        """d(area)/d(weight) (n, n): -length/(2 distance) for neighbours, rows sum to zero."""
        length = np.hypot(*(self.corners[self.end] - self.corners[self.start]).T)
        distance = np.hypot(*(self.xy[self.neighbour] - self.seeds[self.grain]).T)
        i, j = self.grain, self.base[self.neighbour]
        real = ~self.mirrored[self.neighbour] & (i != j)
        value = 0.5 * length[real] / distance[real]
        i, j = i[real], j[real]
        return csr_array(
            coo_array((np.r_[-value, value], (np.r_[i, i], np.r_[j, i])), shape=(self.n, self.n))
        )


def _fit_weights(
    seeds: Floats, weights: Floats, target: Floats, box: Floats, periodic: tuple[bool, bool], tolerance: float
) -> Floats:
    """Weights for which every cell has its target area, by damped Newton from `weights` (or from zero)."""
    n = len(seeds)
    if n == 1:
        return np.zeros(1)
    areas = _PowerDiagram(seeds, weights, box, periodic).areas()
    if areas.min() <= 0:
        weights = np.zeros(n)
    diagram = _PowerDiagram(seeds, weights, box, periodic)
    areas = diagram.areas()
    floor = 0.5 * min(areas.min(), target.min())
    for _ in range(_NEWTON_LIMIT):
        miss = target - areas
        error = np.abs(miss / target).max()
        if error <= tolerance:
            return weights
        step = np.zeros(n)
        step[1:] = spsolve(diagram.area_derivative()[1:, 1:].tocsc(), miss[1:])
        norm, factor = np.abs(miss).max(), 1.0
        while factor > 1e-4:
            trial = weights + factor * step
            diagram = _PowerDiagram(seeds, trial, box, periodic)
            areas = diagram.areas()
            if areas.min() >= floor and np.abs(target - areas).max() <= (1.0 - 0.5 * factor) * norm:
                break
            factor *= 0.5
        else:
            break
        weights = trial
    if tolerance > AREA_TOLERANCE:
        return weights
    raise MeshError(
        f"the areas of the {n} grains could not be met (largest relative error {error:.1e});"
        " use another seed or a smaller spread of grain sizes"
    )


def _outlines(diagram: _PowerDiagram) -> Microstructure:
    """Outlines and facets of a power diagram, with coincident corners made one junction."""
    box, periodic = diagram.box, diagram.periodic
    corners = diagram.corners
    used = np.unique(np.r_[diagram.start, diagram.end])
    snapped = corners.copy()
    for axis in (0, 1):
        if not periodic[axis]:
            for wall in (0.0, box[axis]):
                snapped[np.abs(corners[:, axis] - wall) < 1e-9, axis] = wall
    place = _fold(snapped[used], box, periodic)
    n_vertices, label = _coincident(place, box, periodic)
    vertex_of = np.full(len(corners), -1, dtype=np.int64)
    vertex_of[used] = label
    vertices = np.empty((n_vertices, 2))
    vertices[label] = place

    facet_key: dict[tuple[int, ...], int] = {}
    outlines: list[Floats] = []
    outline_vertices: list[Ints] = []
    outline_facets: list[Ints] = []
    by_grain = np.argsort(diagram.grain, kind="stable")
    bounds = np.searchsorted(diagram.grain[by_grain], np.arange(diagram.n + 1))
    for g in range(diagram.n):
        edges = by_grain[bounds[g] : bounds[g + 1]]
        following = {int(diagram.start[e]): int(e) for e in edges}
        e = int(edges[0])
        points, ids, facets = [], [], []
        for _ in range(len(edges)):
            a, b = int(diagram.start[e]), int(diagram.end[e])
            if np.hypot(*(snapped[b] - snapped[a])) > 1e-8:
                image = int(diagram.neighbour[e])
                if diagram.mirrored[image]:
                    facets.append(-1)
                else:
                    other, s = int(diagram.base[image]), diagram.shift[image].tolist()
                    key = min((g, other, *s), (other, g, -s[0], -s[1]))
                    facets.append(facet_key.setdefault(key, len(facet_key)))
                points.append(snapped[a])
                ids.append(int(vertex_of[a]))
            e = following[b]
        outlines.append(np.array(points))
        outline_vertices.append(np.array(ids, dtype=np.int64))
        outline_facets.append(np.array(facets, dtype=np.int64))
    blank = Microstructure(
        box=box,
        periodic=periodic,
        seeds=diagram.seeds,
        weights=diagram.weights,
        vertices=vertices,
        facet_vertices=np.empty((0, 2), dtype=np.int64),
        facet_start=np.empty((0, 2)),
        facet_end=np.empty((0, 2)),
        facet_grains=np.empty((0, 2), dtype=np.int64),
        facet_type=np.zeros(len(facet_key), dtype=np.int64),
        boundary_names=("general",),
        outlines=(),
        outline_vertices=(),
        outline_facets=(),
    )
    return _assemble(blank, outlines, outline_vertices, outline_facets, vertices, np.arange(n_vertices))


def _coincident(place: Floats, box: Floats, periodic: tuple[bool, bool]) -> tuple[int, Ints]:
    """Number of distinct points and the label of each, points within 1e-8 (mod the period) being one."""
    tree = cKDTree(place, boxsize=[L if p else 0.0 for L, p in zip(box, periodic, strict=True)])
    pairs = tree.query_pairs(1e-8, output_type="ndarray")
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(place),) * 2)
    count, label = connected_components(graph, directed=False)
    return int(count), label.astype(np.int64)


def _assemble(
    old: Microstructure,
    outlines: list[Floats],
    corners: list[Ints],
    edges: list[Ints],
    vertices: Floats,
    label: Ints,
) -> Microstructure:
    """A microstructure from outlines; facets and junctions renumbered without gaps, types kept."""
    left_of = np.full(len(old.facet_type), -1, dtype=np.int64)
    right_of = left_of.copy()
    start, end = np.zeros((len(left_of), 2)), np.zeros((len(left_of), 2))
    ends = np.zeros((len(left_of), 2), dtype=np.int64)
    for g, (points, ids, facets) in enumerate(zip(outlines, corners, edges, strict=True)):
        after, ids_after = np.roll(points, -1, axis=0), np.roll(ids, -1)
        for j, f in enumerate(facets.tolist()):
            if f < 0:
                continue
            if left_of[f] < 0:
                left_of[f], start[f], end[f] = g, points[j], after[j]
                ends[f] = label[ids[j]], label[ids_after[j]]
            else:
                right_of[f] = g
    kept = np.flatnonzero(left_of >= 0)
    if np.any(right_of[kept] < 0):
        raise MeshError("a facet has lost one of its two grains; merge fewer facets")
    new_facet = np.full(len(left_of), -1, dtype=np.int64)
    new_facet[kept] = np.arange(len(kept))
    present = np.unique(np.concatenate([label[c] for c in corners]))
    new_vertex = np.full(len(label), -1, dtype=np.int64)
    new_vertex[present] = np.arange(len(present))
    return replace(
        old,
        vertices=_fold(vertices[present], old.box, old.periodic),
        facet_vertices=new_vertex[ends[kept]],
        facet_start=start[kept],
        facet_end=end[kept],
        facet_grains=np.stack([left_of, right_of], axis=1)[kept],
        facet_type=old.facet_type[kept],
        outlines=tuple(outlines),
        outline_vertices=tuple(new_vertex[label[c]] for c in corners),
        outline_facets=tuple(np.where(f >= 0, np.r_[new_facet, -1][f], -1) for f in edges),
    )


def _grid(
    nx: int, ny: int, dx: float, dy: float, periodic: tuple[bool, bool], rows_bounded: bool = True
) -> Microstructure:
    """Rectangular grains; `rows_bounded` says whether the edges parallel to x are facets (else one row, no facet)."""
    box = np.array([nx * dx, ny * dy])
    mx, my = (nx if periodic[0] else nx + 1), (ny if periodic[1] else ny + 1)
    vertices = np.stack(
        [g.ravel() for g in np.meshgrid(np.arange(mx) * dx, np.arange(my) * dy, indexing="ij")], 1
    )

    def vertex(i: int, j: int) -> int:
        return (i % nx if periodic[0] else i) * my + (j % ny if periodic[1] else j)

    keys: dict[tuple[str, int, int], int] = {}

    def facet(axis: str, i: int, j: int) -> int:
        along_x = axis == "x"
        position, count, wrapped = (j, ny, periodic[1]) if along_x else (i, nx, periodic[0])
        if (along_x and not rows_bounded) or (not wrapped and position in (0, count)):
            return -1
        key = ("x", i % nx, j % ny) if along_x else ("y", i % nx, j % ny)
        return keys.setdefault(key, len(keys))

    outlines, corners, edges = [], [], []
    for i in range(nx):
        for j in range(ny):
            square = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
            outlines.append(np.array([(a * dx, b * dy) for a, b in square]))
            corners.append(np.array([vertex(a, b) for a, b in square]))
            edges.append(
                np.array([facet("x", i, j), facet("y", i + 1, j), facet("x", i, j + 1), facet("y", i, j)])
            )
    n = nx * ny
    blank = Microstructure(
        box=box,
        periodic=periodic,
        seeds=np.array([o.mean(axis=0) for o in outlines]),
        weights=np.zeros(n),
        vertices=vertices,
        facet_vertices=np.empty((0, 2), dtype=np.int64),
        facet_start=np.empty((0, 2)),
        facet_end=np.empty((0, 2)),
        facet_grains=np.empty((0, 2), dtype=np.int64),
        facet_type=np.zeros(len(keys), dtype=np.int64),
        boundary_names=("general",),
        outlines=(),
        outline_vertices=(),
        outline_facets=(),
    )
    return _assemble(blank, outlines, corners, edges, vertices, np.arange(len(vertices)))
