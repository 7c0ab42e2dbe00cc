"""Radial distributions by region, coordination numbers, and the density of ions on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from atomistic.averages import Series, ratio_average
from atomistic.boundary_planes import BoundaryPlanes, frames
from atomistic.errors import InputError, TrajectoryError
from atomistic.mtp.neighbours import build_list, complete_cell
from atomistic.trajectory import TrajectorySource

Floats = NDArray[np.float64]

_PERIODIC = np.ones(3, dtype=np.bool_)
_LARGEST_GRID = 200_000_000


def _pairs(
    positions: Floats, cell: Floats, reach: float, first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Floats]:
    """Atom index and distance [Å] of all pairs from `first` to `second` atoms within `reach`, images included."""
    box = complete_cell(cell, _PERIODIC, positions)
    kinds = np.zeros(len(positions), dtype=np.int64)
    found = build_list(np.ascontiguousarray(positions), box, _PERIODIC, kinds, 1, reach)
    places = found.reference_positions[found.owner] + found.shift @ box
    centre = np.repeat(np.arange(len(positions)), np.diff(found.start))
    partner = found.neighbours[: len(centre)]
    keep = first[centre] & second[found.owner[partner]]
    centre, partner = centre[keep], partner[keep]
    distance = np.linalg.norm(places[partner] - found.reference_positions[centre], axis=1)
    inside = distance < reach
    return centre[inside], distance[inside]


def coordination_numbers(
    atoms: Atoms, centre: str, partners: str | Sequence[str], cutoff: float
) -> NDArray[np.int64]:
    """Neighbours of the elements `partners` within `cutoff` Å of every atom of `centre`, in their order."""
    if not (0 < cutoff < 100):
        raise InputError("cutoff", cutoff, "give Å above zero")
    symbols = np.array(atoms.get_chemical_symbols())
    wanted = [partners] if isinstance(partners, str) else list(partners)
    first, second = symbols == centre, np.isin(symbols, wanted)
    if not np.any(first):
        raise TrajectoryError(f"no {centre} in the structure")
    index, _ = _pairs(atoms.positions, atoms.cell.array, cutoff, first, second)
    return np.asarray(np.bincount(index, minlength=len(atoms))[first], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class RadialDistribution:
    """g(r) of a pair of elements.

    distance: (bins,) Å, centres of the shells. g, g_error: (bins,) with standard errors by blocking over frames.
    neighbours: (bins,) mean number of partners of a centre up to the outer edge of each shell.
    """

    pair: tuple[str, str]
    distance: Floats
    g: Floats
    g_error: Floats
    neighbours: Floats
    centres: float

    @property
    def first_minimum(self) -> float:
        """Distance [Å] of the lowest g between the first and the second peak. Raises TrajectoryError without one."""
        from scipy.ndimage import gaussian_filter1d

        step = float(self.distance[1] - self.distance[0])
        g = gaussian_filter1d(self.g, 0.08 / step, mode="nearest")
        peak = int(np.argmax(g > max(0.5 * float(g.max()), 1.0)))
        while peak + 1 < len(g) and g[peak + 1] >= g[peak]:
            peak += 1
        lowest = np.minimum.accumulate(g[peak:])
        # The shell ends where g has risen clearly above what lies between.
        risen = (lowest < 0.5 * g[peak]) & (g[peak:] > lowest + 0.1 * g[peak])
        if not np.any(risen) or float(g.max()) < 1.0:
            raise TrajectoryError(f"g of {'-'.join(self.pair)} has no second shell; take a larger distance")
        end = int(np.argmax(risen))
        valley = np.flatnonzero(g[peak : peak + end] <= lowest[end] + 0.01 * g[peak])
        return float(self.distance[peak + int(valley.mean())])

    def coordination(self, cutoff: float) -> float:
        """Mean number of partners within `cutoff` Å of a centre."""
        edge = self.distance + 0.5 * (self.distance[1] - self.distance[0])
        if not 0 < cutoff <= edge[-1] + 1e-9:
            raise InputError("cutoff", cutoff, f"give Å up to {edge[-1]:g}")
        return float(
            np.interp(cutoff, np.concatenate([[0.0], edge]), np.concatenate([[0.0], self.neighbours]))
        )


def radial_distribution(
    source: TrajectorySource,
    centre: str,
    partner: str,
    *,
    r_max: float = 6.0,
    bin_width: float = 0.05,
    planes: BoundaryPlanes | None = None,
    within: tuple[float, float] = (0.0, math.inf),
    stride: int = 1,
) -> RadialDistribution:
    """g(r) of `partner` about `centre`, optionally of the centres whose distance to the planes lies `within` Å.

    g = pairs in a shell / (centres × shell volume × partner density). Over the whole cell the partner density is the
    mean one; with `planes` it is that of the slab of ±r about each centre, so that g tends to 1 also where the
    density varies across the cell. Cells may be smaller than r. Raises InputError or TrajectoryError.
    """
    if not (0 < bin_width < r_max < 100):
        raise InputError("r_max", (r_max, bin_width), "give 0 < bin_width < r_max < 100 Å")
    bins = max(1, round(r_max / bin_width))
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    middle = 0.5 * (edges[1:] + edges[:-1])
    z_centre, z_partner = chemical_symbols.index(centre), chemical_symbols.index(partner)
    counts, expected, numbers_seen = Series(), Series(), Series()
    for chunk in source.chunks(64, stride):
        for k in range(chunk.n_frames):
            cell, positions, numbers = chunk.cells[k], chunk.positions[k], chunk.numbers(k)
            first, second = numbers == z_centre, numbers == z_partner
            if not np.any(first) or not np.any(second):
                raise TrajectoryError(f"no pair {centre}-{partner} in the trajectory")
            if planes is not None:
                away = np.abs(planes.distance(positions, cell)[0])
                first = first & (away >= within[0]) & (away <= within[1])
            _, distance = _pairs(positions, cell, r_max, first, second)
            counts.append(np.histogram(distance, bins=edges)[0])
            others = int(second.sum()) - (1 if centre == partner else 0)
            volume = abs(float(np.linalg.det(cell)))
            if planes is None:
                density = np.full(bins, int(first.sum()) * others / volume)
            else:
                density = _slab_density(positions, cell, planes.axis, first, second, middle)
            expected.append(density * shells)
            numbers_seen.append(float(first.sum()))
    centres = float(numbers_seen.blocks().mean())
    if centres == 0:
        raise TrajectoryError(f"no {centre} within {within[0]:g} to {within[1]:g} Å of the planes")
    found = ratio_average(counts.blocks(), expected.blocks())
    return RadialDistribution(
        (centre, partner),
        middle,
        np.nan_to_num(found.mean),
        found.standard_error,
        np.cumsum(counts.blocks().mean(axis=0)) / centres,
        centres,
    )


def _slab_density(
    positions: Floats,
    cell: Floats,
    axis: int,
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    radii: Floats,
) -> Floats:
    """Σ over centres of the density [1/Å³] of partners, other than the centre, in the slab of ±r about it, (radii,)."""
    volume = abs(float(np.linalg.det(cell)))
    others = [cell[k] for k in range(3) if k != axis]
    area = float(np.linalg.norm(np.cross(*others)))
    height = volume / area
    z = np.mod((positions @ np.linalg.inv(cell))[:, axis], 1.0) * height
    partners = np.sort(z[second])
    itself = (first & second)[first].astype(float)
    total = np.empty(len(radii))
    for k, r in enumerate(radii):
        reach = float(r)
        turns = math.floor(2 * reach / height)
        rest = reach - 0.5 * turns * height
        low, high = z[first] - rest, z[first] + rest
        number = _below(partners, high, height) - _below(partners, low, height) + turns * len(partners)
        total[k] = float(np.sum(number - itself)) / (area * 2 * reach)
    # A slab of r -> 0 about an atom of the same kind holds itself only.
    return np.maximum(total, 0.0)


def _below(sorted_heights: Floats, edge: Floats, height: float) -> Floats:
    """Number of periodic heights below each edge, counted from height 0."""
    turn = np.floor(edge / height)
    inside = np.searchsorted(sorted_heights, edge - turn * height)
    return np.asarray(turn * len(sorted_heights) + inside, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class DensityGrid:
    """Probability density of a species on a grid of the cell.

    density: (n1, n2, n3) 1/Å³ at fractions k/n of the cell vectors; its integral is the number of atoms. cell: mean
    cell, Å. structure: the first frame, for drawing.
    """

    species: str
    density: Floats
    cell: Floats
    structure: Atoms

    def isovalue(self, fraction: float) -> float:
        """Density [1/Å³] whose isosurface encloses `fraction` of the atoms."""
        if not 0 < fraction < 1:
            raise InputError("fraction", fraction, "give a number between 0 and 1")
        ordered = np.sort(self.density.ravel())[::-1]
        share = np.cumsum(ordered) / ordered.sum()
        return float(ordered[int(np.searchsorted(share, fraction))])

    def occupied_fraction(self, isovalue: float) -> float:
        """Share of the cell's volume where the density exceeds `isovalue` [1/Å³]."""
        return float(np.mean(self.density > isovalue))

    def write_cube(self, path: str | Path) -> Path:
        """Write a Gaussian cube file: lengths in bohr, density in 1/Å³, for any viewer's isosurfaces."""
        from ase.io.cube import write_cube

        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        with open(part, "w", encoding="utf-8") as stream:
            write_cube(
                stream, self.structure, data=self.density, comment=f"{self.species} per cubic angstrom"
            )
        part.replace(target)
        return target


def probability_density(
    source: TrajectorySource,
    species: str = "Li",
    *,
    spacing: float = 0.25,
    smoothing: float = 0.0,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> DensityGrid:
    """Density of a species over a run on a grid of about `spacing` Å, the framework's drift removed.

    Each atom counts at the nearest grid point; `smoothing` Å is the standard deviation of a Gaussian along each cell
    vector, 0 for none. Raises TrajectoryError where the species is missing, InputError for a grid of absurd size.
    """
    from scipy.ndimage import gaussian_filter1d

    if not (spacing > 0 and 0 <= smoothing < 100):
        raise InputError("spacing", (spacing, smoothing), "give Å above zero")
    z = chemical_symbols.index(species) if species in chemical_symbols else -1
    counts: NDArray[np.int64] | None = None
    shape = np.zeros(3, dtype=np.int64)
    total = np.zeros((3, 3))
    seen = 0
    for cell, positions, numbers in frames(source, mobile, stride):
        if counts is None:
            shape = np.maximum(np.rint(np.linalg.norm(cell, axis=1) / spacing), 1).astype(np.int64)
            if np.prod(shape.astype(float)) > _LARGEST_GRID:
                raise InputError(
                    "spacing", spacing, f"it gives a grid of {shape.tolist()}; take a larger one"
                )
            counts = np.zeros(int(np.prod(shape)), dtype=np.int64)
        if not np.any(numbers == z):
            raise TrajectoryError(f"no {species} in the trajectory")
        scaled = positions[numbers == z] @ np.linalg.inv(cell)
        index = np.mod(np.rint(scaled * shape).astype(np.int64), shape)
        np.add.at(counts, (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2], 1)
        total += cell
        seen += 1
    if counts is None:
        raise TrajectoryError("the trajectory holds no frame")
    cell = total / seen
    volume = abs(float(np.linalg.det(cell))) / len(counts)
    density = counts.reshape(shape).astype(np.float64) / (seen * volume)
    if smoothing > 0:
        for axis in range(3):
            step = float(np.linalg.norm(cell[axis])) / shape[axis]
            density = np.asarray(gaussian_filter1d(density, smoothing / step, axis=axis, mode="wrap"))
    first = next(source.chunks(1))
    structure = first.atoms(0, wrap=True)
    structure.set_cell(cell, scale_atoms=True)
    return DensityGrid(species, density, cell, structure)
