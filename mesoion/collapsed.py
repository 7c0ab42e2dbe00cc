"""Polycrystals whose boundaries are interfaces of no thickness with an excess resistance and sheet conductance.

A boundary of type t carries, in excess of the grain that fills its place,

    r = int (1/sigma_across - 1/sigma_grain) dx  [ohm m^2]   across,
    s = int (sigma_along - sigma_grain) dx       [S]         along.

Grains are Voronoi cells with generators mirrored across the facets; between the two cells of a pair lies a node of
the sheet, r/2 on either side of it. A positive excess sheet joins these nodes and meets in the junctions; a deficit
(s < 0) is taken from the cells next to the facet. Both may be complex. Everything is affine in
(1/(f + r sigma_grain), s/sigma_grain), f the distance between the generators of a pair, which is what
`mesoion.reduced` rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import splu

from mesoion.errors import InputError, MeshError
from mesoion.layered_mesh import GeneratorCloud, Ladder, fold, merged_geometry
from mesoion.microstructure import Microstructure
from mesoion.network import nested_dissection
from mesoion.voronoi import CellLabels, voronoi_mesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[Any]

# Where every sheet is a deficit nothing holds a junction's potential: one link of this conductance to the end of one
# facet does, and as it leads nowhere it carries no current.
_JUNCTION_LINK = 1e-2


@dataclass(frozen=True)
class _Links:
    """Conducting links between nodes: ends, conductance for a unit coefficient, displacement from start to end."""

    start: Ints
    end: Ints
    weight: Floats
    step: Floats

    def matrices(self, n: int) -> tuple[csr_array, Floats, Floats]:
        """Laplacian (n, n), source of the unit fields (n, 2) and their own conductance (2, 2)."""
        k, m, w = self.start, self.end, self.weight
        laplacian = coo_array(
            (np.r_[w, w, -w, -w], (np.r_[k, m, k, m], np.r_[k, m, m, k])), shape=(n, n)
        ).tocsr()
        flow = w[:, None] * self.step
        source = np.stack(
            [np.bincount(k, flow[:, j], n) - np.bincount(m, flow[:, j], n) for j in (0, 1)], axis=1
        )
        return laplacian, source, self.step.T @ flow


class CollapsedPolycrystal:
    """Effective conductivity of a periodic microstructure with collapsed boundaries, by full solves.

    microstructure: periodic along both axes. pair_distance: distance f of the two generators next to a facet in mean
    grain sizes; it bounds the negative excess resistance of conductive boundaries, r sigma_grain > -0.9 f d, that is
    widths up to 0.9 f d. junction_cell, max_cell, tangential_growth, growth: sizes of cells as in `layered_mesh`, in
    mean grain sizes. Facets too short for their first columns are merged; merged_facets counts them.
    Raises InputError for a microstructure with walls, MeshError where the mesh cannot be built.
    """

    def __init__(
        self,
        microstructure: Microstructure,
        *,
        pair_distance: float = 0.015,
        junction_cell: float = 0.006,
        max_cell: float = 0.1,
        growth: float = 1.6,
        tangential_growth: float = 0.3,
    ) -> None:
        if not all(microstructure.periodic):
            raise InputError(
                "microstructure.periodic", microstructure.periodic, "homogenisation needs (True, True)"
            )
        if not 0 < pair_distance <= 0.2:
            raise InputError(
                "pair_distance", pair_distance, "give a fraction of the mean grain size up to 0.2"
            )
        self.microstructure = microstructure
        self.boundary_names = microstructure.boundary_names
        self.grain_size = microstructure.mean_grain_size
        self.pair_distance = pair_distance
        self.full_solves = 0
        scaled = microstructure.scaled(1.0 / self.grain_size)
        rows = Ladder.rows_only(pair_distance, growth, max_cell)
        count = len(self.boundary_names)
        geometry = merged_geometry(scaled, [rows] * count, np.full(count, junction_cell))
        self.box_area = float(np.prod(scaled.box))
        self.merged_facets = scaled.n_facets - geometry.microstructure.n_facets
        self._build(GeneratorCloud(geometry, [rows] * count, tangential_growth, max_cell), max_cell)

    def _build(self, cloud: GeneratorCloud, max_cell: float) -> None:
        micro, edges = cloud.micro, cloud.edges
        points, grain, paired = cloud.grain_points()
        points = fold(points, micro)
        column_edge, column = cloud.pair_labels(paired)
        keep = cloud.without_intruders(points, paired)
        points, grain = points[keep], grain[keep]
        column_edge, column = column_edge[keep], column[keep]
        blank = np.full(len(points), -1, dtype=np.int64)
        labels = CellLabels(
            np.zeros(len(points), dtype=np.int64), ("grain",), grain, blank, np.zeros((len(points), 2))
        )
        mesh = voronoi_mesh(points, labels, micro.box, micro.periodic, 3.0 * max_cell)
        self.mesh = mesh.scaled(self.grain_size)
        k, m = mesh.face_cells.T
        a, b = column_edge[k], column_edge[m]
        facet_a, facet_b = np.where(a >= 0, edges.facet[a], -1), np.where(b >= 0, edges.facet[b], -2)
        across = (facet_a == facet_b) & (a != b)
        leak = (grain[k] != grain[m]) & ~across
        if mesh.face_areas[leak].sum() > 1e-9 * mesh.face_areas[across].sum():
            raise MeshError("grains touch beside their facets; use a smaller pair_distance")

        # Interior of the grains.
        inside = ~across & ~leak
        step = mesh.face_normals * mesh.face_lengths[:, None]
        interior = _Links(k[inside], m[inside], (mesh.face_areas / mesh.face_lengths)[inside], step[inside])

        # Sheet nodes: one for every column of a facet, numbered along its first edge.
        first_edge = np.full(micro.n_facets, -1, dtype=np.int64)
        for edge in np.flatnonzero(edges.facet >= 0)[::-1].tolist():
            first_edge[edges.facet[edge]] = edge
        counts = np.array([len(cloud.stations[e]) for e in first_edge.tolist()])
        offset = np.cumsum(counts) - counts
        n_cells, n_sheet = len(points), int(counts.sum())
        first = a[across] == first_edge[facet_a[across]]
        lead = np.where(first, k[across], m[across])
        facet = facet_a[across]
        node = n_cells + offset[facet] + column[lead]
        half = 0.5 * step[across]
        kind = micro.facet_type[facet]
        area = mesh.face_areas[across]
        n = n_cells + n_sheet + len(micro.vertices)
        sheets, deficits = self._sheets(cloud, first_edge, offset, n_cells, n_sheet)
        junction = np.maximum(sheets[0], sheets[1])
        ends = np.unique(junction, return_index=True)[1]
        ends = ends[junction[ends] >= n_cells + n_sheet]
        groups = [
            _Links(
                np.r_[interior.start, sheets[0][ends]],
                np.r_[interior.end, sheets[1][ends]],
                np.r_[interior.weight, np.full(len(ends), _JUNCTION_LINK)],
                np.concatenate([interior.step, sheets[3][ends]]),
            )
        ]
        cell_of = self._cells_of(cloud, column_edge, column)
        for t in range(len(self.boundary_names)):
            on = kind == t
            groups.append(
                _Links(
                    np.r_[k[across][on], node[on]],
                    np.r_[node[on], m[across][on]],
                    np.r_[area[on], area[on]] * 2.0,
                    np.concatenate([half[on], half[on]]),
                )
            )
            groups.append(_select(sheets, micro.facet_type[sheets[4]] == t))
            start, end = cell_of[deficits[0]], cell_of[deficits[1]]
            chosen = (micro.facet_type[deficits[4]] == t) & (start >= 0) & (end >= 0)
            groups.append(_Links(start[chosen], end[chosen], 0.5 * deficits[2][chosen], deficits[3][chosen]))
        parts = [g.matrices(n) for g in groups]
        self.deficit_limit = _largest_ratio(groups, parts[0][0])
        self.laplacians = [p[0] for p in parts]
        self.sources = [p[1] for p in parts]
        self.own = [p[2] for p in parts]
        pattern = sum((abs(x) for x in self.laplacians), start=csr_array((n, n))).tocoo()
        upper = pattern.row < pattern.col
        self._order = nested_dissection(n, pattern.row[upper], pattern.col[upper])
        self.n_unknowns = n

    def _sheets(
        self, cloud: GeneratorCloud, first_edge: Ints, offset: Ints, n_cells: int, n_sheet: int
    ) -> tuple[tuple[Ints, Ints, Floats, Floats, Ints], tuple[Ints, Ints, Floats, Floats, Ints]]:
        """Links along the facets: of sheet nodes and junctions, and of the columns of both sides (as column keys)."""
        start, end, weight, step, facets = [], [], [], [], []
        c_start, c_end, c_weight, c_step, c_facets = [], [], [], [], []
        edges = cloud.edges
        ids = np.concatenate(cloud.micro.outline_vertices)
        for f, edge in enumerate(first_edge.tolist()):
            t = cloud.stations[edge]
            nodes = n_cells + offset[f] + np.arange(len(t))
            tail, head = ids[edge], ids[edges.after[edge]]
            chain = np.r_[n_cells + n_sheet + tail, nodes, n_cells + n_sheet + head]
            gaps = np.diff(np.r_[0.0, t, cloud.span[edge]])
            start.append(chain[:-1])
            end.append(chain[1:])
            weight.append(1.0 / gaps)
            step.append(gaps[:, None] * cloud.along[edge])
            facets.append(np.full(len(gaps), f))
        for edge in np.flatnonzero(edges.facet >= 0).tolist():
            t = cloud.stations[edge]
            key = cloud.column_offset[edge] + np.arange(len(t))
            gaps = np.diff(t)
            c_start.append(key[:-1])
            c_end.append(key[1:])
            c_weight.append(1.0 / gaps)
            c_step.append(gaps[:, None] * cloud.along[edge])
            c_facets.append(np.full(len(gaps), edges.facet[edge]))
        join = np.concatenate
        return (
            (join(start), join(end), join(weight), join(step), join(facets)),
            (join(c_start), join(c_end), join(c_weight), join(c_step), join(c_facets)),
        )

    def _cells_of(self, cloud: GeneratorCloud, column_edge: Ints, column: Ints) -> Ints:
        """Cell next to the interface for every column key, -1 where there is none."""
        cell = np.full(cloud.n_columns, -1, dtype=np.int64)
        paired = np.flatnonzero(column_edge >= 0)
        cell[cloud.column_offset[column_edge[paired]] + column[paired]] = paired
        return cell

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> CollapsedPolycrystal:
        """A view of the same mesh in which the boundary types of each group act as one type of the group's name.

        Every type must be in exactly one group; InputError otherwise.
        """
        listed = [name for group in groups.values() for name in group]
        if sorted(listed) != sorted(self.boundary_names) or not all(groups.values()):
            raise InputError("groups", groups, f"put each of {', '.join(self.boundary_names)} into one group")
        place = {name: 1 + 3 * j for j, name in enumerate(self.boundary_names)}

        def summed(parts: list[Any]) -> list[Any]:
            merged = [
                sum((parts[place[name] + kind] for name in group[1:]), start=parts[place[group[0]] + kind])
                for group in groups.values()
                for kind in range(3)
            ]
            return [parts[0], *merged]

        view = copy(self)
        view.boundary_names = tuple(groups)
        view.laplacians, view.sources, view.own = (
            summed(self.laplacians),
            summed(self.sources),
            summed(self.own),
        )
        view.full_solves = 0
        return view

    def coefficients(self, resistance: Mapping[str, complex], sheet: Mapping[str, complex]) -> Numbers:
        """`affine_coefficients` for this mesh."""
        return affine_coefficients(self.boundary_names, self.pair_distance, resistance, sheet)

    def solve(self, coefficients: Numbers) -> tuple[Numbers, Numbers]:
        """Tensor (2, 2) for a unit grain conductivity and the two potentials (n, 2), by one factorisation."""
        right = self.affine(self.sources, coefficients)
        u = self.factorised(coefficients)(right)
        return (self.affine(self.own, coefficients) - right.T @ u) / self.box_area, u

    def factorised(self, coefficients: Numbers) -> Callable[[Numbers], Numbers]:
        """Factorise once; the function returned solves for right-hand sides (n, k), node 0 grounded."""
        matrix = self.affine(self.laplacians, coefficients)
        kept = self._order[self._order != 0]
        inner = matrix[kept][:, kept].tocsc()
        factor = splu(inner, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self.full_solves += 1

        def apply(right: Numbers) -> Numbers:
            b = np.asarray(right[kept], dtype=inner.dtype)
            x = factor.solve(b)
            u = np.zeros(right.shape, dtype=inner.dtype)
            u[kept] = x + factor.solve(b - inner @ x)
            return u

        return apply

    @staticmethod
    def affine(parts: list[Any], coefficients: Numbers) -> Any:
        """Sum of the affine parts times their coefficients."""
        total = parts[0] * coefficients[0]
        for part, c in zip(parts[1:], coefficients[1:], strict=True):
            total = total + part * c
        return total

    def effective(
        self, sigma_grain: complex, resistance: Mapping[str, complex], sheet: Mapping[str, complex]
    ) -> Numbers:
        """Effective conductivity tensor (2, 2) [S/m], complex where an argument is.

        sigma_grain [S/m]; resistance and sheet: excess r [ohm m^2] and s [S] of every boundary type.
        """
        scaled = self.scaled_parameters(sigma_grain, resistance, sheet)
        tensor, _ = self.solve(self.coefficients(*scaled))
        return np.asarray(sigma_grain * tensor)

    def scaled_parameters(
        self, sigma_grain: complex, resistance: Mapping[str, complex], sheet: Mapping[str, complex]
    ) -> tuple[dict[str, complex], dict[str, complex]]:
        """r sigma_grain/d and s/(sigma_grain d) of every type, dimensionless."""
        if not (np.isfinite(sigma_grain) and abs(sigma_grain) > 0):
            raise InputError(
                "sigma_grain", sigma_grain, "the grain's conductivity must be finite and not zero"
            )
        d = self.grain_size
        return (
            {name: r * sigma_grain / d for name, r in resistance.items()},
            {name: s / (sigma_grain * d) for name, s in sheet.items()},
        )


def _largest_ratio(groups: list[_Links], interior: csr_array) -> float:
    """Largest conductance of a unit deficit link over the grain's own link between the same cells."""
    largest = 0.0
    for deficit in groups[3::3]:
        if len(deficit.start):
            own = -np.asarray(interior[deficit.start, deficit.end]).ravel()
            largest = max(largest, float((deficit.weight / np.maximum(own, 1e-300)).max()))
    return largest


def affine_coefficients(
    names: tuple[str, ...],
    pair_distance: float,
    resistance: Mapping[str, complex],
    sheet: Mapping[str, complex],
) -> Numbers:
    """Coefficients (1 + 3 types,): 1, then 1/(f + rho), the positive sheet and the deficit of every type.

    resistance: rho = r sigma_grain/d, sheet: s/(sigma_grain d), dimensionless. Raises InputError for a missing type or
    a resistance more negative than the pair distance f allows.
    """
    r, s = in_order(names, "resistance", resistance), in_order(names, "sheet", sheet)
    rows = affine_coefficients_many(
        names, pair_distance, [np.atleast_1d(x) for x in r], [np.atleast_1d(x) for x in s]
    )
    return np.asarray(rows[0])


def in_order(names: tuple[str, ...], label: str, given: Mapping[str, Any]) -> list[Any]:
    """The values of every boundary type in the order of `names`; raises InputError where one is missing."""
    for name in names:
        if name not in given:
            raise InputError(label, sorted(given), f"the boundary type {name!r} needs a value")
    return [given[name] for name in names]


def affine_coefficients_many(
    names: tuple[str, ...], pair_distance: float, resistance: Sequence[Numbers], sheet: Sequence[Numbers]
) -> Numbers:
    """`affine_coefficients` (m, 1 + 3 types) for arrays (m,) of every type, in the order of `names`."""
    columns: list[Numbers] = [np.ones(len(resistance[0]))]
    for name, r, s in zip(names, resistance, sheet, strict=True):
        for label, value in (("resistance", r), ("sheet", s)):
            if not np.all(np.isfinite(value)):
                bad = value[~np.isfinite(value)][0]
                raise InputError(f"{label}[{name!r}]", bad, "give a finite value")
        if np.any(r.real < -0.9 * pair_distance):
            raise InputError(
                f"resistance[{name!r}]",
                r[r.real < -0.9 * pair_distance][0],
                f"the excess may not be below -{0.9 * pair_distance:.3g} mean grain sizes of grain; use a thinner"
                " boundary, larger grains or a larger pair_distance",
            )
        imaginary = 1j * s.imag if np.iscomplexobj(s) else 0.0
        columns += [1.0 / (pair_distance + r), np.maximum(s.real, 0.0) + imaginary, np.minimum(s.real, 0.0)]
    return np.stack(columns, axis=1)


def _select(links: tuple[Ints, Ints, Floats, Floats, Ints], chosen: NDArray[np.bool_]) -> _Links:
    return _Links(links[0][chosen], links[1][chosen], links[2][chosen], links[3][chosen])
