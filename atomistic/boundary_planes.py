"""The boundary planes of a periodic cell, and frames without the drift of their framework. Lengths in Å."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomistic.errors import InputError
from atomistic.trajectory import TrajectorySource

Floats = NDArray[np.float64]


def cell_height(cell: Floats, axis: int) -> float:
    """Height of the cell perpendicular to the plane of its two other vectors, Å."""
    first, second = (cell[k] for k in range(3) if k != axis)
    return abs(float(np.linalg.det(cell))) / float(np.linalg.norm(np.cross(first, second)))


@dataclass(frozen=True)
class BoundaryPlanes:
    """Boundary planes of a cell: at `fractions` of the cell vector `axis`, spanned by the two other vectors.

    height: of the cell across the planes, Å. resolution: how well the planes were located, Å (0: given).
    """

    axis: int
    fractions: tuple[float, ...]
    height: float
    resolution: float = 0.0

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise InputError("axis", self.axis, "0, 1 or 2")
        if not self.fractions or not all(math.isfinite(f) for f in self.fractions):
            raise InputError("fractions", self.fractions, "give at least one fraction of the cell")
        if not (math.isfinite(self.height) and self.height > 0):
            raise InputError("height", self.height, "give Å above zero")
        object.__setattr__(self, "fractions", tuple(sorted(float(f) % 1.0 for f in self.fractions)))

    @classmethod
    def from_cell(cls, atoms: Atoms) -> BoundaryPlanes:
        """The planes that `atomistic.boundaries.build` noted in `atoms.info`. Raises InputError without them."""
        if "boundary_heights" not in atoms.info:
            raise InputError(
                "atoms", atoms.get_chemical_formula(), "a cell made by atomistic.boundaries.build"
            )
        axis = int(atoms.info["normal_axis"])
        height = cell_height(atoms.cell.array, axis)
        return cls(axis, tuple(h / height for h in atoms.info["boundary_heights"]), height)

    @property
    def separation(self) -> float:
        """Smallest distance between neighbouring planes, Å."""
        steps = np.diff([*self.fractions, self.fractions[0] + 1.0])
        return float(steps.min()) * self.height

    def distance(self, positions: Floats, cell: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Signed distance [Å] of positions (n, 3) to the nearest plane, and which plane that is, both (n,)."""
        scaled = (positions @ np.linalg.inv(cell))[:, self.axis]
        apart = scaled[:, None] - np.array(self.fractions)
        apart -= np.rint(apart)
        nearest = np.argmin(np.abs(apart), axis=1)
        chosen = np.take_along_axis(apart, nearest[:, None], axis=1)[:, 0]
        return chosen * cell_height(cell, self.axis), nearest.astype(np.int64)

    def regions(
        self, positions: Floats, cell: Floats, width: float, bulk_beyond: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks (n,) of atoms within width/2 of a plane, and farther than `bulk_beyond` [Å] from all planes."""
        away = np.abs(self.distance(positions, cell)[0])
        return away <= 0.5 * width, away > bulk_beyond

    def layers(self, width: float, separate: bool = True) -> dict[str, list[tuple[float, float]]]:
        """Layers (low, high) [Å] of the height for `regional_diffusivity`: the boundaries and what lies between.

        Keys "bulk" and "boundary 1", "boundary 2", ... by height, or one "boundary" for all where not `separate`.
        Raises InputError where the layers would touch.
        """
        self.default_bulk(width)
        heights = [f * self.height for f in self.fractions]
        ends = [*heights[1:], heights[0] + self.height]
        found: dict[str, list[tuple[float, float]]] = {"bulk": []}
        for number, (here, following) in enumerate(zip(heights, ends, strict=True), start=1):
            name = f"boundary {number}" if separate else "boundary"
            found.setdefault(name, []).append((here - 0.5 * width, here + 0.5 * width))
            found["bulk"].append((here + 0.5 * width, following - 0.5 * width))
        return found

    def default_bulk(self, width: float) -> float:
        """Distance beyond which the grain counts as bulk: half way from the layer's edge to the mid-plane.

        Raises InputError where the layer leaves no bulk.
        """
        middle = 0.5 * self.separation
        if not 0 < width < self.separation:
            raise InputError("width", width, f"the planes are {self.separation:.1f} Å apart: no bulk is left")
        return 0.5 * (0.5 * width + middle)


def frames(
    source: TrajectorySource, mobile: Sequence[str] = ("Li",), stride: int = 1
) -> Iterator[tuple[Floats, Floats, NDArray[np.uint8]]]:
    """Cell, positions and atomic numbers of every frame, the drift of all but the mobile atoms removed.

    The drift is the mean change of their fractional coordinates since the first frame; without such atoms, none.
    """
    start: Floats | None = None
    for chunk in source.chunks(64, stride):
        steady = np.flatnonzero(~np.isin(np.array(chunk.species), mobile))
        for k in range(chunk.n_frames):
            cell, positions = chunk.cells[k], chunk.positions[k]
            if len(steady):
                mean = positions[steady].mean(axis=0) @ np.linalg.inv(cell)
                start = mean if start is None else start
                positions = positions - (mean - start) @ cell
            yield cell, positions, chunk.numbers(k)
