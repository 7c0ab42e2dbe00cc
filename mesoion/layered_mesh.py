"""Resolved grain-boundary layers in two dimensions: generators mirrored across every interface, graded columns.

Each facet becomes a layer of its type's width; a grain is its outline moved inwards by half the widths around it.
Rows of generators run along each interface: the two next to it are mirror images, so that a cell face lies on the
interface and every cell holds one material. Normal to an interface the rows are graded geometrically, along it the
columns are graded towards the junctions, and what is left of a grain is filled with a quadtree of points. Cells grow
only with the logarithm of 1/width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mesoion.errors import InputError, MeshError
from mesoion.mesh import CellMesh
from mesoion.microstructure import Microstructure
from mesoion.voronoi import CellLabels, voronoi_mesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MERGE_LIMIT = 40
_CORNER_MARGIN = 0.3


def layered_mesh(
    microstructure: Microstructure,
    widths: Mapping[str, float],
    *,
    cells_across: int = 4,
    first_cell: float | None = None,
    growth: float = 1.6,
    junction_cell: float | None = None,
    tangential_growth: float = 0.5,
    max_cell: float | None = None,
) -> CellMesh:
    """Cells of a polycrystal whose boundary layers are resolved.

    widths: width of the layer of every boundary type [m]. cells_across: cells across a layer at least (even).
    first_cell [m]: size of the cells on both sides of an interface, by default half of width/cells_across; give a
    fraction of the Debye length to resolve space charge. growth: ratio of successive cells away from an interface.
    junction_cell [m]: size along the boundary at junctions, by default and at most width/4: at the junction accuracy
    is decided. tangential_growth: increase of that size per distance from the junction. max_cell [m]: by default
    0.15 mean grain sizes.
    Facets too short for their layer are merged into one junction first (`merged_for_widths`).
    Regions of the result are "grain" and the boundary types. Raises InputError for impossible values, MeshError where
    a layer is wider than a grain.
    """
    _check_widths(microstructure, widths)
    if cells_across < 2 or cells_across % 2:
        raise InputError("cells_across", cells_across, "give an even number of cells, at least 2")
    for name, value, low, high in (
        ("growth", growth, 1.0, 3.0),
        ("tangential_growth", tangential_growth, 0.0, 1.0),
    ):
        if not low < value <= high:
            raise InputError(name, value, f"it must lie above {low} and at most at {high}")
    unit = microstructure.mean_grain_size
    for name, length in (
        ("first_cell", first_cell),
        ("junction_cell", junction_cell),
        ("max_cell", max_cell),
    ):
        if length is not None and not (np.isfinite(length) and length > 0):
            raise InputError(name, length, "give a positive length in metres")
    largest = 0.15 if max_cell is None else max_cell / unit
    scaled = microstructure.scaled(1.0 / unit)
    width = np.array([widths[name] for name in microstructure.boundary_names]) / unit
    ladders = [
        Ladder.build(
            w,
            cells_across,
            0.5 * w / cells_across if first_cell is None else first_cell / unit,
            growth,
            largest,
        )
        for w in width
    ]
    along = np.minimum(0.25 * width, np.inf if junction_cell is None else junction_cell / unit)
    geometry = merged_geometry(scaled, ladders, along)
    cloud = GeneratorCloud(geometry, ladders, tangential_growth, largest)
    points, labels = cloud.build()
    return voronoi_mesh(points, labels, scaled.box, scaled.periodic, 3.0 * largest, unit)


def merged_for_widths(microstructure: Microstructure, widths: Mapping[str, float]) -> Microstructure:
    """The microstructure that `layered_mesh` meshes: facets shorter than their layers' corners made one junction.

    Between the corners of its two grains a facet needs a straight interface on both sides; for 120 degrees that is
    a length of about one width. Raises MeshError where a layer is wider than a grain.
    """
    _check_widths(microstructure, widths)
    unit = microstructure.mean_grain_size
    width = np.array([widths[name] for name in microstructure.boundary_names]) / unit
    ladders = [Ladder.build(w, 4, w / 8.0, 1.6, 0.15) for w in width]
    merged = merged_geometry(microstructure.scaled(1.0 / unit), ladders, 0.25 * width).microstructure
    return merged.scaled(unit)


def _check_widths(microstructure: Microstructure, widths: Mapping[str, float]) -> None:
    for name in microstructure.boundary_names:
        if name not in widths:
            raise InputError("widths", sorted(widths), f"the boundary type {name!r} needs a width in metres")
        w = widths[name]
        if not (np.isfinite(w) and w > 0):
            raise InputError(f"widths[{name!r}]", w, "give a positive width in metres")
        if w >= 0.5 * microstructure.mean_grain_size:
            raise InputError(
                f"widths[{name!r}]",
                w,
                "a grain boundary must be thinner than half the mean grain size"
                f" {microstructure.mean_grain_size:.3g} m",
            )


@dataclass(frozen=True)
class Ladder:
    """Distances of generator rows from an interface: `inner` into the layer, `outer` into the grain.

    inner[0] == outer[0] is the mirrored pair. `heights` (rows + 1,): distance to the upper edge of each outer row.
    """

    width: float
    inner: Floats
    outer: Floats
    spacing: Floats
    heights: Floats

    @classmethod
    def build(cls, width: float, across: int, first: float, growth: float, largest: float) -> Ladder:
        """Rows for a layer of `width` with at least `across` cells; the first cells measure at most `first`."""
        uniform = width / across
        start = min(first, uniform)
        sizes = [start]
        while sum(sizes) < 0.5 * width * (1 - 1e-9):
            sizes.append(min(sizes[-1] * growth, uniform))
        inside = np.array(sizes) * (0.5 * width / sum(sizes))
        start = inside[0]
        count = 1 + max(0, int(np.floor(np.log(largest / start) / np.log(growth))))
        spacing = start * growth ** np.arange(count)
        edges_in = np.r_[0.0, np.cumsum(inside)]
        edges_out = np.r_[0.0, np.cumsum(spacing)]
        return cls(
            width=width,
            inner=0.5 * (edges_in[1:] + edges_in[:-1]),
            outer=0.5 * (edges_out[1:] + edges_out[:-1]),
            spacing=spacing,
            heights=edges_out,
        )

    @classmethod
    def rows_only(cls, pair: float, growth: float, largest: float) -> Ladder:
        """Rows beside an interface without a layer, the mirrored pair `pair` apart."""
        count = 1 + max(0, int(np.log(largest / pair) / np.log(growth)))
        spacing = np.asarray(pair * growth ** np.arange(count), dtype=float)
        edges = np.r_[0.0, np.cumsum(spacing)]
        return cls(0.0, np.empty(0), 0.5 * (edges[1:] + edges[:-1]), spacing, edges)

    @property
    def offset(self) -> float:
        """Distance of the mirrored pair from the interface."""
        return float(self.outer[0])

    def rows(self, tangential: Floats) -> Ints:
        """Number of outer rows where the columns stand `tangential` apart: cells up to square."""
        limit = np.maximum(tangential, 1.01 * self.spacing[0])
        return np.asarray(np.searchsorted(self.spacing, limit, side="right"), dtype=np.int64)


@dataclass(frozen=True)
class InterfaceEdges:
    """All edges of all grain outlines, one after the other, with the interface that belongs to each.

    start, end: corners of the outline; facet -1 on walls; after, before: neighbours in the outline;
    corner_start, corner_end: ends of the interface (the outline moved inwards); first_start, first_end: distance
    along the interface from its ends to its first column; arm_start, arm_end: radius of the circle round each end on
    which the four generators next to it lie.
    """

    grain: Ints
    facet: Ints
    start: Floats
    end: Floats
    before: Ints
    after: Ints
    corner_start: Floats
    corner_end: Floats
    first_start: Floats
    first_end: Floats
    arm_start: Floats
    arm_end: Floats
    cell_start: Floats
    cell_end: Floats


@dataclass(frozen=True)
class LayerGeometry:
    microstructure: Microstructure
    edges: InterfaceEdges


def merged_geometry(micro: Microstructure, ladders: list[Ladder], along: Floats) -> LayerGeometry:
    """Merge facets until every interface is long enough for its first columns."""
    for _ in range(_MERGE_LIMIT):
        edges = _interfaces(micro, ladders, along)
        on = edges.facet >= 0
        direction = edges.end - edges.start
        length = np.hypot(*direction.T)
        span = ((edges.corner_end - edges.corner_start) * direction).sum(axis=1) / length
        room = span - edges.first_start - edges.first_end
        tight = on & (room < 0.25 * np.minimum(edges.cell_start, edges.cell_end))
        if not tight.any():
            return LayerGeometry(micro, edges)
        # One layer of short facets at a time: merging changes the corner angles of its neighbours.
        deficit = np.full(micro.n_facets, np.inf)
        np.minimum.at(deficit, edges.facet[tight], (length / np.maximum(length - room, 1e-12))[tight])
        flagged = np.flatnonzero(np.isfinite(deficit))
        worst = flagged[deficit[flagged] <= max(0.5, float(deficit[flagged].min()) * 1.2)]
        short = np.zeros(micro.n_facets, dtype=bool)
        short[worst] = True
        longest = float(micro.facet_lengths[short].max())
        if longest > 12.0 * max(max(lad.width, lad.spacing[0]) for lad in ladders):
            f = int(np.flatnonzero(short)[np.argmax(micro.facet_lengths[short])])
            raise MeshError(
                f"facet {f} meets its neighbours at too sharp an angle for its layer; use a smaller grain-boundary"
                " width, another seed or a smaller spread of grain sizes"
            )
        micro = micro.with_merged_facets(short)
    raise MeshError("facets shorter than their layers keep appearing; use a smaller grain-boundary width")


def _left(u: Floats) -> Floats:
    return np.stack([-u[..., 1], u[..., 0]], axis=-1)


def _interfaces(micro: Microstructure, ladders: list[Ladder], along: Floats) -> InterfaceEdges:
    """Interfaces of every outline edge and the place of their first columns."""
    sizes = np.array([len(o) for o in micro.outlines])
    grain = np.repeat(np.arange(len(sizes)), sizes)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(sizes.sum()) - first
    after = first + (place + 1) % sizes[grain]
    before = first + (place - 1) % sizes[grain]
    start = np.concatenate(micro.outlines)
    end = start[after]
    facet = np.concatenate(micro.outline_facets)
    on = facet >= 0
    kind = np.r_[micro.facet_type, 0][facet]
    half = np.where(on, np.array([0.5 * lad.width for lad in ladders])[kind], 0.0)
    offset = np.where(on, np.array([lad.offset for lad in ladders])[kind], 0.0)
    cell = np.where(on, along[kind], np.inf)
    length = np.hypot(*(end - start).T)
    u = (end - start) / length[:, None]
    n = _left(u)
    # Corner between the edge before (p) and this one (q): x.n_p = half_p, x.n_q = half_q.
    n_p, half_p = n[before], half[before]
    sine = n_p[:, 0] * n[:, 1] - n_p[:, 1] * n[:, 0]
    cosine = (n_p * n).sum(axis=1)
    limit = 0.25 * np.minimum(length, length[before])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (
            np.stack([half_p * n[:, 1] - half * n_p[:, 1], half * n_p[:, 0] - half_p * n[:, 0]], axis=1)
            / sine[:, None]
        )
    # Layers of different width meeting almost straight have no near corner: let the wider one taper there.
    far = (cosine > 0.9) & (np.hypot(*x.T) > np.hypot(limit, half) + half_p)
    flat = (np.abs(sine) < 1e-9) | (far & on & on[before])
    mean = n_p + n
    mean /= np.maximum(np.hypot(*mean.T), 1e-12)[:, None]
    x[flat] = (0.5 * (half + half_p))[flat, None] * mean[flat]
    corner = start + x
    corner_end = corner[after] + (end - start[after])
    span = corner_end - corner
    span_length = np.maximum(np.hypot(*span.T), 1e-300)
    e = span / span_length[:, None]
    e_p = e[before]
    # A layer that ends at a wall meets its own mirror image there.
    turn = np.arctan2(e_p[:, 0] * e[:, 1] - e_p[:, 1] * e[:, 0], (e_p * e).sum(axis=1))
    angle = np.pi - turn
    at_wall = on ^ on[before]
    half_angle = np.where(at_wall, angle, 0.5 * angle)
    size = np.minimum(cell, cell[before])
    size[~np.isfinite(size)] = 1.0
    s, c = np.maximum(np.sin(half_angle), 1e-6), np.abs(np.cos(half_angle))
    wanted = (_CORNER_MARGIN * size + offset * c) / s
    wanted_p = (_CORNER_MARGIN * size + offset[before] * c) / s
    arm = np.maximum(
        np.where(on, np.hypot(wanted, offset), 0.0),
        np.where(on[before], np.hypot(wanted_p, offset[before]), 0.0),
    )
    if not half.any():
        # Without layers the pair lies in two grains: all corners of a junction share one circle.
        junction = np.concatenate(micro.outline_vertices)
        widest = np.zeros(len(micro.vertices))
        np.maximum.at(widest, junction, arm)
        arm = widest[junction]
    return InterfaceEdges(
        grain=grain,
        facet=facet,
        start=start,
        end=end,
        before=before,
        after=after,
        corner_start=corner,
        corner_end=corner_end,
        first_start=np.sqrt(np.maximum(arm**2 - offset**2, 0.0)),
        first_end=np.sqrt(np.maximum(arm[after] ** 2 - offset**2, 0.0)),
        arm_start=arm,
        arm_end=arm[after],
        cell_start=size,
        cell_end=size[after],
    )


def graded_nodes(length: float, first: float, last: float, growth: float, largest: float) -> Floats:
    """Nodes from 0 to `length` with spacing min(first + growth x, last + growth (length - x), largest)."""
    if length <= 0:
        return np.zeros(1)
    middle = float(np.clip(0.5 * (length + (last - first) / growth), 0.0, length))

    def count(x: float, h: float) -> float:
        graded = max(0.0, (largest - h) / growth)
        if x <= graded:
            return float(np.log1p(growth * x / h) / growth)
        return float(np.log1p(growth * graded / h) / growth + (x - graded) / max(largest, h))

    def place(q: Floats, h: float) -> Floats:
        graded = max(0.0, (largest - h) / growth)
        top = float(np.log1p(growth * graded / h) / growth)
        return np.where(
            q <= top, np.expm1(growth * np.minimum(q, top)) * h / growth, graded + (q - top) * max(largest, h)
        )

    a, b = count(middle, first), count(length - middle, last)
    total = a + b
    q = np.linspace(0.0, total, max(1, int(np.ceil(total - 1e-9))) + 1)
    nodes = np.where(q <= a, place(np.minimum(q, a), first), length - place(np.minimum(total - q, b), last))
    nodes[0], nodes[-1] = 0.0, length
    return np.asarray(nodes)


class GeneratorCloud:
    """Generators of a layered mesh with their labels."""

    def __init__(
        self, geometry: LayerGeometry, ladders: list[Ladder], tangential: float, largest: float
    ) -> None:
        self.micro, self.edges = geometry.microstructure, geometry.edges
        self.ladders, self.tangential, self.largest = ladders, tangential, largest
        e = self.edges
        self.span = np.hypot(*(e.corner_end - e.corner_start).T)
        self.along = (e.corner_end - e.corner_start) / np.maximum(self.span, 1e-300)[:, None]
        self.inward = _left(self.along)
        self.stations: list[Floats] = [np.empty(0)] * len(e.facet)
        self.local: list[Floats] = [np.empty(0)] * len(e.facet)
        self._columns()
        counts = np.array([len(t) for t in self.stations], dtype=np.int64)
        self.column_offset, self.n_columns = np.cumsum(counts) - counts, int(counts.sum())

    def _ladder(self, edge: int) -> Ladder:
        kind = int(self.micro.facet_type[self.edges.facet[edge]])
        return self.ladders[kind]

    def _columns(self) -> None:
        """Columns of both interfaces of every facet: common to both sides away from the junctions."""
        e = self.edges
        sides: list[list[int]] = [[] for _ in range(self.micro.n_facets)]
        for edge, f in enumerate(e.facet.tolist()):
            if f >= 0:
                sides[f].append(edge)
        for a, b in sides:
            # Distances are measured along edge a; edge b runs the other way.
            length = float(np.hypot(*(e.end[a] - e.start[a])))
            u = (e.end[a] - e.start[a]) / length
            lead = {}
            for edge, near, far in ((a, "start", "end"), (b, "end", "start")):
                origin = e.start[edge] if edge == a else e.end[edge]
                near_corner = e.corner_start[edge] if edge == a else e.corner_end[edge]
                far_corner = e.corner_end[edge] if edge == a else e.corner_start[edge]
                c0 = float((near_corner - origin) @ u)
                c1 = float((far_corner - origin) @ u)
                lead[edge] = (
                    c0,
                    c1,
                    c0 + float(getattr(e, f"first_{near}")[edge]),
                    c1 - float(getattr(e, f"first_{far}")[edge]),
                )
            h0 = float(min(e.cell_start[a], e.cell_end[b]))
            h1 = float(min(e.cell_end[a], e.cell_start[b]))
            low = max(lead[a][2], lead[b][2]) + h0
            high = min(lead[a][3], lead[b][3]) - h1
            common = high - low > 0.5 * (h0 + h1)
            middle = low + graded_nodes(high - low, h0, h1, self.tangential, self.largest) if common else None
            for edge in (a, b):
                c0, c1, s0, s1 = lead[edge]
                if middle is None:
                    s = np.linspace(s0, s1, 1 + max(1, int(np.ceil((s1 - s0) / min(h0, h1)))))
                else:
                    before = np.linspace(s0, low, 1 + max(1, round((low - s0) / h0)))[:-1]
                    beyond = np.linspace(high, s1, 1 + max(1, round((s1 - high) / h1)))[1:]
                    s = np.r_[before, middle, beyond]
                t = (s - c0) / (c1 - c0) * self.span[edge]
                if edge == b:
                    t = self.span[edge] - t[::-1]
                self.stations[edge] = t
                gaps = np.diff(t)
                self.local[edge] = 0.5 * (np.r_[gaps[0], gaps] + np.r_[gaps, gaps[-1]])

    def pair_labels(self, paired: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Edge and station of each paired generator of `grain_points`, -1 for the others."""
        edges = np.flatnonzero(self.edges.facet >= 0)
        counts = np.array([len(self.stations[e]) for e in edges.tolist()], dtype=np.int64)
        edge, station = np.full(len(paired), -1, dtype=np.int64), np.full(len(paired), -1, dtype=np.int64)
        edge[paired] = np.repeat(edges, counts)
        station[paired] = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return edge, station

    def build(self) -> tuple[Floats, CellLabels]:
        """Generators folded into the box, and their labels."""
        rows, row_edge, pair = self._layer_points()
        core, core_edge = self._junction_points(rows)
        inner, grain, grain_pair = self.grain_points()
        points = np.concatenate([rows, core, inner])
        edge = np.r_[row_edge, core_edge, np.full(len(inner), -1)]
        paired = np.r_[pair, np.zeros(len(core), dtype=bool), grain_pair]
        owner = np.r_[np.full(len(rows) + len(core), -1), grain]
        points = fold(points, self.micro)
        keep = self.without_intruders(points, paired)
        points, edge, owner = points[keep], edge[keep], owner[keep]
        e = self.edges
        inside = edge >= 0
        facet = np.where(inside, e.facet[edge], -1)
        kind = np.r_[self.micro.facet_type, -1][facet]
        direction = e.end - e.start
        normal = _left(direction / np.hypot(*direction.T)[:, None])
        return points, CellLabels(
            region=np.where(inside, 1 + kind, 0).astype(np.int64),
            region_names=("grain", *self.micro.boundary_names),
            grain=owner.astype(np.int64),
            facet=facet.astype(np.int64),
            layer_normals=np.where(inside[:, None], normal[edge], 0.0),
        )

    def _layer_points(self) -> tuple[Floats, Ints, NDArray[np.bool_]]:
        """Rows inside the layers: points, edge they belong to, whether they are half of a mirrored pair."""
        e = self.edges
        points, owner, paired = [], [], []
        for edge in np.flatnonzero(e.facet >= 0).tolist():
            ladder, t = self._ladder(edge), self.stations[edge]
            rows = len(ladder.inner)
            h0, h1 = float(e.cell_start[edge]), float(e.cell_end[edge])
            reach = 2.5 * ladder.width
            extra = np.r_[
                t[0] - h0 * np.arange(1, 2 + int(reach / h0)), t[-1] + h1 * np.arange(1, 2 + int(reach / h1))
            ]
            column = np.r_[t, extra]
            d = np.tile(ladder.inner, len(column))
            s = np.repeat(column, rows)
            xy = e.corner_start[edge] + s[:, None] * self.along[edge] - d[:, None] * self.inward[edge]
            pair = np.tile(np.arange(rows) == 0, len(column)) & np.repeat(
                np.arange(len(column)) < len(t), rows
            )
            margin = min(0.95 * _CORNER_MARGIN * min(h0, h1), 0.5 * ladder.width)
            room = np.ones(len(xy), dtype=bool)
            for origin, corner, sign, arm in (
                (e.start[edge], e.corner_start[edge], -1.0, e.arm_start[edge]),
                (e.end[edge], e.corner_end[edge], 1.0, e.arm_end[edge]),
            ):
                ray = corner - origin
                rel = xy - origin
                distance = (
                    sign * (ray[0] * rel[:, 1] - ray[1] * rel[:, 0]) / max(float(np.hypot(*ray)), 1e-300)
                )
                room &= (distance > margin) & (np.hypot(*(xy - corner).T) > 1.05 * arm)
            keep = pair | room
            points.append(xy[keep])
            owner.append(np.full(int(keep.sum()), edge))
            paired.append(pair[keep])
        if not points:
            return np.empty((0, 2)), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool)
        return np.concatenate(points), np.concatenate(owner), np.concatenate(paired)

    def _junction_points(self, rows: Floats) -> tuple[Floats, Ints]:
        """What the rows leave empty between the corners round a junction, filled: points, edge they belong to."""
        e = self.edges
        points, owner, sizes = [np.empty((0, 2))], [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for edge in np.flatnonzero(e.facet >= 0).tolist():
            half = 0.5 * self._ladder(edge).width
            if half == 0:
                continue
            for origin, corner, sign, h in (
                (e.start[edge], e.corner_start[edge], -1.0, float(e.cell_start[edge])),
                (e.end[edge], e.corner_end[edge], 1.0, float(e.cell_end[edge])),
            ):
                ray = corner - origin
                reach = float(np.hypot(*ray)) + h
                count_across = max(1, round(half / h))
                count = 1 + int(2 * reach / h)
                s, o = np.meshgrid(
                    (np.arange(count) + 0.5) * h - reach,
                    (np.arange(count_across) + 0.5) * half / count_across,
                )
                xy = (
                    origin - sign * s.reshape(-1, 1) * self.along[edge] + o.reshape(-1, 1) * self.inward[edge]
                )
                rel = xy - origin
                distance = sign * (ray[0] * rel[:, 1] - ray[1] * rel[:, 0]) / np.hypot(*ray)
                t = (xy - e.corner_start[edge]) @ self.along[edge]
                within = t < self.stations[edge][0] if sign < 0 else t > self.stations[edge][-1]
                xy = xy[within & (distance > _CORNER_MARGIN * h)]
                points.append(xy)
                owner.append(np.full(len(xy), edge))
                sizes.append(np.full(len(xy), h))
        xy, edges, size = np.concatenate(points), np.concatenate(owner), np.concatenate(sizes)
        if len(xy):
            distance, _ = cKDTree(rows).query(xy)
            far = distance > 0.62 * size
            xy, edges, size = xy[far], edges[far], size[far]
        if len(xy):
            pairs = cKDTree(xy).query_pairs(float(size.max()) * 0.55, output_type="ndarray")
            apart = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
            dropped = np.zeros(len(xy), dtype=bool)
            for a, b in pairs[apart < 0.55 * size[pairs].min(axis=1)].tolist():
                if not dropped[a]:
                    dropped[b] = True
            xy, edges = xy[~dropped], edges[~dropped]
        return xy, edges

    def grain_points(self) -> tuple[Floats, Ints, NDArray[np.bool_]]:
        """Columns and filling of every grain: points, grain, whether they are half of a mirrored pair.

        The pairs of an edge come in the order of its stations.
        """
        e = self.edges
        bounds = np.searchsorted(e.grain, np.arange(self.micro.n_grains + 1))
        points, owner, paired = [], [], []
        for g in range(self.micro.n_grains):
            edges = np.arange(bounds[g], bounds[g + 1])
            facets = edges[e.facet[edges] >= 0]
            columns, pair = self._grain_columns(edges, facets)
            fill = self._fill(edges, facets, columns)
            points += [columns, fill]
            paired += [pair, np.zeros(len(fill), dtype=bool)]
            owner.append(np.full(len(columns) + len(fill), g))
        return np.concatenate(points), np.concatenate(owner), np.concatenate(paired)

    def _grain_columns(self, edges: Ints, facets: Ints) -> tuple[Floats, NDArray[np.bool_]]:
        e = self.edges
        points, pairs = [np.empty((0, 2))], [np.empty(0, dtype=bool)]
        for edge in facets.tolist():
            ladder, t, h = self._ladder(edge), self.stations[edge], self.local[edge]
            rows = ladder.rows(h)
            column = np.repeat(np.arange(len(t)), rows)
            row = np.arange(len(column)) - np.repeat(np.cumsum(rows) - rows, rows)
            d = ladder.outer[row]
            xy = e.corner_start[edge] + t[column][:, None] * self.along[edge] + d[:, None] * self.inward[edge]
            pair = row == 0
            margin = 0.25 * np.minimum(np.maximum(h[column], ladder.spacing[0]), ladder.spacing[row])
            keep = _inside(xy, e.corner_start[edges])
            for other in edges.tolist():
                if other == edge:
                    continue
                distance = self._distance(xy, other)[0]
                keep &= distance > (d + margin if e.facet[other] >= 0 else margin)
            keep |= pair
            points.append(xy[keep])
            pairs.append(pair[keep])
        return np.concatenate(points), np.concatenate(pairs)

    def _distance(self, xy: Floats, edge: int) -> tuple[Floats, Floats]:
        """Distance to an interface (or wall) and the clipped position along it."""
        rel = xy - self.edges.corner_start[edge]
        t = rel @ self.along[edge]
        clipped = np.clip(t, 0.0, self.span[edge])
        return np.hypot(t - clipped, rel @ self.inward[edge]), clipped

    def _fill(self, edges: Ints, facets: Ints, columns: Floats) -> Floats:
        """Quadtree points where the columns end, no larger than the size that grows away from them."""
        e = self.edges
        corners = e.corner_start[edges]
        low, high = corners.min(axis=0), corners.max(axis=0)
        size = self.largest
        count = np.maximum(1, np.ceil((high - low) / size)).astype(int)
        grid = np.stack(
            [g.ravel() for g in np.meshgrid(*(np.arange(c) + 0.5 for c in count), indexing="ij")], 1
        )
        xy = 0.5 * (low + high) + (grid - 0.5 * count) * size
        parts = []
        while len(xy):
            near, wanted = np.full(len(xy), np.inf), np.full(len(xy), self.largest)
            height = np.zeros(len(xy))
            wall = np.full(len(xy), np.inf)
            for edge in edges.tolist():
                distance, t = self._distance(xy, edge)
                if e.facet[edge] < 0:
                    wall = np.minimum(wall, distance)
                    continue
                ladder = self._ladder(edge)
                h = np.interp(t, self.stations[edge], self.local[edge])
                top = ladder.heights[ladder.rows(h)]
                closest = distance - top < near - height
                near, height = np.where(closest, distance, near), np.where(closest, top, height)
                wanted = np.minimum(wanted, h + 0.35 * np.maximum(distance - top, 0.0))
            inside = _inside(xy, corners)
            fine = size <= 1.2 * wanted
            good = fine & inside & (near > height + 0.35 * size) & (wall > 0.35 * size)
            parts.append((xy[good], np.full(int(good.sum()), size)))
            beyond = ~inside & (np.minimum(near, wall) > size)
            coarse = xy[~fine & ~beyond & (near > height - size)]
            size *= 0.5
            xy = (coarse[:, None] + 0.5 * size * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])).reshape(
                -1, 2
            )
            if size < 1e-9:
                raise MeshError("the filling of a grain does not end; use a larger grain-boundary width")
        points, sizes = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        if len(points) and len(columns):
            distance, _ = cKDTree(columns).query(points)
            points = points[distance > 0.55 * sizes]
        if len(points) + len(columns) == 0:
            points = corners.mean(axis=0, keepdims=True)
        return points

    def without_intruders(self, points: Floats, paired: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Drop unpaired generators nearer to an interface than its own mirrored pair: they would bend the face.

        The distance to a pair is compared where its face ends (midway to the next column, and at the corners); as the
        comparison is linear along the face, that is enough.
        """
        e = self.edges
        keep = np.ones(len(points), dtype=bool)
        free = np.flatnonzero(~paired)
        probes, radii = [], []
        for edge in np.flatnonzero(e.facet >= 0).tolist():
            t = self.stations[edge]
            r = np.hypot(0.5 * np.diff(t), self._ladder(edge).offset)
            s = np.r_[0.0, 0.5 * (t[1:] + t[:-1]), self.span[edge]]
            probes.append(e.corner_start[edge] + s[:, None] * self.along[edge])
            radii.append(np.r_[e.arm_start[edge], r, e.arm_end[edge]])
        if not probes or not len(free):
            return keep
        where, radius = fold(np.concatenate(probes), self.micro), np.concatenate(radii)
        box, periodic = self.micro.box, self.micro.periodic
        tree = cKDTree(points[free], boxsize=[b if p else 0.0 for b, p in zip(box, periodic, strict=True)])
        distance, _ = tree.query(where)
        hit = np.flatnonzero(distance < radius * (1 - 1e-9))
        for intruders in tree.query_ball_point(where[hit], radius[hit] * (1 - 1e-9)):
            keep[free[intruders]] = False
        return keep


def fold(xy: Floats, micro: Microstructure) -> Floats:
    """Points moved into the box along its periodic axes."""
    folded = xy.copy()
    for axis in (0, 1):
        if micro.periodic[axis]:
            folded[:, axis] %= micro.box[axis]
            folded[folded[:, axis] >= micro.box[axis], axis] = 0.0
    return folded


def _inside(xy: Floats, corners: Floats) -> NDArray[np.bool_]:
    """Whether points lie inside a polygon (even-odd rule)."""
    a, b = corners, np.roll(corners, -1, axis=0)
    inside = np.zeros(len(xy), dtype=bool)
    for (x0, y0), (x1, y1) in zip(a, b, strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > xy[:, 1]) != (y1 > xy[:, 1])
        inside ^= crosses & (xy[:, 0] < x0 + (xy[:, 1] - y0) * (x1 - x0) / (y1 - y0))
    return inside
