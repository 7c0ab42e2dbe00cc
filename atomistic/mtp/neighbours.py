"""Neighbour lists in linear time for any cell: triclinic, smaller than the cutoff, periodic in any directions.

Periodic images within reach are made explicit as further atoms behind the real ones, so that a neighbour is one
index and the cell may change as long as the list stays valid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from atomistic.errors import GeometryError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

MAX_IMAGES = 50_000_000


def compiled(function: Function) -> Function:
    """numba's `njit` with reassociated sums; not-a-numbers keep their meaning."""
    flags = {"reassoc", "contract", "arcp", "nsz"}
    return cast(Function, numba.njit(cache=True, fastmath=flags, error_model="numpy")(function))


def inlined(function: Function) -> Function:
    """`compiled`, but dissolved in its caller: passing many arrays per atom would cost more than the work."""
    flags = {"reassoc", "contract", "arcp", "nsz"}
    return cast(Function, numba.njit(fastmath=flags, error_model="numpy", inline="always")(function))


@dataclass(frozen=True)
class NeighbourList:
    """Full list: neighbours of atom i are `neighbours[start[i]:start[i+1]]`, ordered by type.

    owner, shift: real atom and lattice translation (integers) of every atom and image; the real atoms come first.
    reference_positions, reference_cell: where the list was built, atoms inside the cell; reach: its radius, angstrom.
    """

    start: IntArray
    neighbours: npt.NDArray[np.int32]
    owner: npt.NDArray[np.int32]
    shift: FloatArray
    types: IntArray
    reference_positions: FloatArray
    reference_cell: FloatArray
    inverse_cell: FloatArray
    periodic: npt.NDArray[np.bool_]
    reach: float

    def follow(self, positions: FloatArray, cell: FloatArray, cutoff: float) -> FloatArray | None:
        """Positions of atoms and images, (atoms + images, 3), or None where the list may miss a pair by now.

        Every atom is taken in the periodic image nearest to where it was when the list was built. With the cell
        deformed by F since then, pairs outside the list are at least sigma_min(F) reach - 2 max|u| apart.
        """
        deformation: FloatArray = np.eye(3)
        inverse, smallest = self.inverse_cell, 1.0
        if not np.array_equal(cell, self.reference_cell):
            deformation = np.asarray(self.inverse_cell @ cell, dtype=np.float64)
            inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
            smallest = float(np.linalg.svd(deformation)[1].min())
        out = np.empty((len(self.owner), 3))
        largest = _follow(
            positions,
            self.reference_positions,
            deformation,
            inverse,
            cell,
            self.periodic,
            self.owner,
            self.shift,
            out,
        )
        return out if smallest * self.reach - 2.0 * largest >= cutoff else None


def complete_cell(cell: FloatArray, periodic: npt.NDArray[np.bool_], positions: FloatArray) -> FloatArray:
    """A regular cell: vectors of directions that are not periodic become perpendicular to the others.

    Raises GeometryError where a periodic direction has no length or the periodic vectors are parallel.
    """
    if not np.all(np.isfinite(cell)) or not np.all(np.isfinite(positions)):
        raise GeometryError("cell or positions hold values that are not finite numbers")
    rows = np.flatnonzero(periodic)
    vectors = cell[rows]
    lengths = np.linalg.norm(vectors, axis=1)
    if np.any(lengths < 1e-6):
        raise GeometryError("a periodic direction of the cell has no length")
    volume = np.linalg.svd(vectors / lengths[:, None])[1].min(initial=1.0)
    if volume < 1e-4:
        raise GeometryError("the cell is flat: its periodic vectors are almost parallel")
    if len(rows) == 3:
        return cell
    full = np.array(cell, dtype=np.float64)
    basis = np.linalg.svd(vectors)[2][len(rows) :] if len(rows) else np.eye(3)
    for vector, row in zip(basis, np.flatnonzero(~periodic), strict=True):
        extent = np.ptp(positions @ vector) if len(positions) else 0.0
        full[row] = vector * (extent + 1.0)
    return full


@compiled
def _follow(
    positions: Any,
    reference: Any,
    deformation: Any,
    inverse: Any,
    cell: Any,
    periodic: Any,
    owner: Any,
    shift: Any,
    out: Any,
) -> Any:
    """Fills `out` with followed positions; returns the largest displacement."""
    largest = 0.0
    n = positions.shape[0]
    for i in range(n):
        for a in range(3):
            out[i, a] = 0.0
            for b in range(3):
                out[i, a] += reference[i, b] * deformation[b, a]
        x, y, z = positions[i, 0] - out[i, 0], positions[i, 1] - out[i, 1], positions[i, 2] - out[i, 2]
        for a in range(3):
            if periodic[a]:
                step = np.rint(x * inverse[0, a] + y * inverse[1, a] + z * inverse[2, a])
                if step != 0.0:
                    x -= step * cell[a, 0]
                    y -= step * cell[a, 1]
                    z -= step * cell[a, 2]
        squared = x * x + y * y + z * z
        out[i, 0] += x
        out[i, 1] += y
        out[i, 2] += z
        largest = max(largest, squared)
    for j in range(n, owner.size):
        for a in range(3):
            out[j, a] = (
                out[owner[j], a]
                + shift[j, 0] * cell[0, a]
                + shift[j, 1] * cell[1, a]
                + shift[j, 2] * cell[2, a]
            )
    return np.sqrt(largest)


@compiled
def _images(scaled: Any, periodic: Any, reach: Any, counts: Any) -> Any:
    """Owner and shift of all atoms and images within `reach` (fractions of the cell) of the cell's box."""
    n = scaled.shape[0]
    total = 0
    owner = np.empty(0, np.int32)
    shift = np.empty((0, 3))
    for fill in range(2):
        if fill == 1:
            owner = np.empty(n + total, np.int32)
            shift = np.zeros((n + total, 3))
            for i in range(n):
                owner[i] = i
        total = 0
        for a in range(-counts[0], counts[0] + 1):
            for b in range(-counts[1], counts[1] + 1):
                for c in range(-counts[2], counts[2] + 1):
                    if a == 0 and b == 0 and c == 0:
                        continue
                    for i in range(n):
                        inside = True
                        for d in range(3):
                            s = scaled[i, d] + (a, b, c)[d]
                            if periodic[d] and (s < -reach[d] or s > 1.0 + reach[d]):
                                inside = False
                        if inside:
                            if fill == 1:
                                owner[n + total] = i
                                shift[n + total, 0] = a
                                shift[n + total, 1] = b
                                shift[n + total, 2] = c
                            total += 1
    return owner, shift


@compiled
def _linked(
    positions: Any, scaled: Any, types: Any, n: Any, n_types: Any, low: Any, bins: Any, width: Any, reach: Any
) -> Any:
    """Neighbours of the first n atoms among all, through linked bins; per atom ordered by type."""
    total = positions.shape[0]
    head = np.full(bins[0] * bins[1] * bins[2], -1, np.int32)
    link = np.empty(total, np.int32)
    where = np.empty((total, 3), np.int64)
    for i in range(total - 1, -1, -1):
        for d in range(3):
            where[i, d] = min(max(int((scaled[i, d] - low[d]) / width[d]), 0), bins[d] - 1)
        cell = (where[i, 0] * bins[1] + where[i, 1]) * bins[2] + where[i, 2]
        link[i] = head[cell]
        head[cell] = i
    start = np.zeros(n + 1, np.int64)
    neighbours = np.empty(max(64 * n, 64), np.int32)
    found = np.empty(total, np.int32)
    slots = np.empty(n_types + 1, np.int64)
    limit = reach * reach
    for i in range(n):
        count = 0
        slots[:] = 0
        for a in range(max(where[i, 0] - 1, 0), min(where[i, 0] + 2, bins[0])):
            for b in range(max(where[i, 1] - 1, 0), min(where[i, 1] + 2, bins[1])):
                for c in range(max(where[i, 2] - 1, 0), min(where[i, 2] + 2, bins[2])):
                    j = head[(a * bins[1] + b) * bins[2] + c]
                    while j >= 0:
                        x = positions[j, 0] - positions[i, 0]
                        y = positions[j, 1] - positions[i, 1]
                        z = positions[j, 2] - positions[i, 2]
                        if x * x + y * y + z * z < limit and j != i:
                            found[count] = j
                            slots[types[j] + 1] += 1
                            count += 1
                        j = link[j]
        for t in range(n_types):
            slots[t + 1] += slots[t]
        if start[i] + count > neighbours.size:
            larger = np.empty(2 * neighbours.size + count, np.int32)
            larger[: start[i]] = neighbours[: start[i]]
            neighbours = larger
        for k in range(count):
            t = types[found[k]]
            neighbours[start[i] + slots[t]] = found[k]
            slots[t] += 1
        start[i + 1] = start[i] + count
    return start, neighbours[: start[n]].copy()


def build_list(
    positions: FloatArray,
    cell: FloatArray,
    periodic: npt.NDArray[np.bool_],
    types: IntArray,
    n_types: int,
    reach: float,
) -> NeighbourList:
    """All neighbours within `reach` (angstrom). `cell` is complete (see `complete_cell`).

    positions: (n, 3) angstrom, anywhere; types: (n,) from 0 to n_types - 1.
    Raises GeometryError where the cell would need absurdly many images.
    """
    n = len(positions)
    inverse: FloatArray = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    fraction = reach * np.linalg.norm(inverse, axis=0)
    scaled = positions @ inverse
    home = np.floor(scaled) * periodic
    scaled -= home
    positions = positions - home @ cell
    counts = np.where(periodic, np.ceil(fraction), 0).astype(np.int64)
    if n * np.prod(1.0 + 2.0 * np.where(periodic, fraction, 0.0)) > MAX_IMAGES:
        raise GeometryError("the cell is too thin: more than 5e7 periodic images lie within the cutoff")
    owner, shift = _images(scaled, periodic, fraction, counts)
    extended = positions[owner] + shift @ cell
    scaled = extended @ inverse
    low = scaled.min(axis=0) - 1e-9
    extent = scaled.max(axis=0) - low + 1e-9
    bins = np.maximum(np.floor(extent / fraction), 1).astype(np.int64)
    while np.prod(bins, dtype=float) > 8 * len(owner) + 27:
        bins = np.maximum(bins // 2, 1)
    all_types = types[owner]
    start, neighbours = _linked(extended, scaled, all_types, n, n_types, low, bins, extent / bins, reach)
    return NeighbourList(
        start,
        neighbours,
        owner,
        shift,
        all_types,
        positions.copy(),
        cell.copy(),
        inverse,
        periodic.copy(),
        float(reach),
    )
