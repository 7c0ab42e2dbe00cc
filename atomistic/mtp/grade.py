"""Extrapolation grade of every atom: how far its neighbourhood lies outside those a potential was trained on.

The neighbourhood of an atom of species z is the vector v of derivatives of its site energy with respect to all
parameters that enter it: the scalars B, 1 for the species energy, and the radial coefficients of centre z. The
active set of a species is the square matrix A of neighbourhoods from the training frames with (nearly) the largest
|det A| (MaxVol; Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017); Gubaev et al., J. Chem. Phys. 148,
241727 (2018), here per species of the central atom). The grade of v is max |v A^-1|: at most about 1 on the frames
of the active set, above 1 the potential extrapolates. Directions that no frame holds are kept short (`FLOOR`), so
that a pair never seen gives a large grade at once.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atomistic.errors import FileFormatError, FramesError, InputError
from atomistic.mtp.kernel import Evaluator
from atomistic.mtp.neighbours import FloatArray, IntArray
from atomistic.mtp.potential import MTPotential

if TYPE_CHECKING:
    from ase import Atoms

MAGIC = b"MTPGRADE1\n"
FLOOR = 1e-3
SWAP = 1.01
MAX_SWAPS_PER_ROW = 200


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """Active neighbourhoods of one potential.

    rows: (species, dimension, dimension), the matrices A; inverses: their inverses; origin: (species, dimension, 2)
    frame and atom each row came from, -1 where no frame holds the direction.
    """

    potential: MTPotential
    rows: FloatArray
    inverses: FloatArray
    origin: IntArray

    @property
    def dimension(self) -> int:
        """Length of a neighbourhood's vector."""
        return int(self.rows.shape[1])

    def grades(self, atoms: Atoms) -> FloatArray:
        """(n,) grades of a structure's atoms. Raises SpeciesError and GeometryError."""
        types = self.potential.types_of(atoms.get_chemical_symbols())
        return self.grades_of(Evaluator(self.potential), atoms.positions, types, atoms.cell.array, atoms.pbc)

    def grades_of(
        self,
        evaluator: Evaluator,
        positions: npt.ArrayLike,
        types: npt.ArrayLike,
        cell: npt.ArrayLike,
        periodic: npt.ArrayLike = True,
    ) -> FloatArray:
        """The same with an evaluator of the same potential, whose neighbour list is used again."""
        vectors = _vectors(evaluator, positions, types, cell, periodic)
        return self._grades(vectors, np.asarray(types))

    def _grades(self, vectors: FloatArray, types: npt.NDArray[np.integer]) -> FloatArray:
        grades = np.empty(len(vectors))
        for z in range(len(self.inverses)):
            chosen = types == z
            grades[chosen] = np.abs(vectors[chosen] @ self.inverses[z]).max(axis=1, initial=0.0)
        return grades

    def extended(self, frames: Sequence[Atoms], threshold: float = SWAP) -> tuple[ActiveSet, list[int]]:
        """The active set with neighbourhoods of further frames taken in, and which of these frames gave any.

        Only neighbourhoods whose grade exceeds `threshold` are considered. Frames in `origin` of the result count
        from the number of frames already there.
        """
        offset = int(self.origin[..., 0].max(initial=-1)) + 1
        found = _collect(self.potential, frames)
        rows, origin = self.rows.copy(), self.origin.copy()
        for z, (vectors, where) in enumerate(found):
            for _ in range(MAX_SWAPS_PER_ROW if len(vectors) else 0):
                inverse = _inverse(rows[z])
                chosen = np.abs(vectors @ inverse).max(axis=1) > max(threshold, SWAP)
                if not chosen.any():
                    break
                shifted = where[chosen] + (offset, 0)
                rows[z], origin[z] = maxvol(rows[z], origin[z], vectors[chosen], shifted, self._scale(z))
        taken = sorted({int(f) - offset for f in origin[..., 0].ravel() if f >= offset})
        return _finished(self.potential, rows, origin), taken

    def _scale(self, z: int) -> FloatArray:
        scale = np.sqrt((self.rows[z] ** 2).mean(axis=0))
        return np.where(scale > 0, scale, 1.0)

    def save(self, path: str | Path) -> None:
        """Write a file that `load` and the LAMMPS pair style read."""
        path = Path(path)
        n, dimension = len(self.rows), self.dimension
        blocks = [
            MAGIC,
            struct.pack("<qq", n, dimension),
            self.inverses.astype("<f8").tobytes(),
            bytes.fromhex(self.potential.checksum),
            self.rows.astype("<f8").tobytes(),
            self.origin.astype("<i8").tobytes(),
        ]
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(b"".join(blocks))
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path, potential: MTPotential) -> ActiveSet:
        """Read a file of `save`. Raises FileFormatError where it is damaged or belongs to another potential."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise FileFormatError(
                path, None, f"cannot be read ({error.strerror})", "check the path"
            ) from None
        head = len(MAGIC) + 16
        if data[: len(MAGIC)] != MAGIC or len(data) < head:
            raise FileFormatError(path, None, "not a grade file", "write one with ActiveSet.save")
        n, dimension = struct.unpack_from("<qq", data, len(MAGIC))
        if (n, dimension) != (potential.species_count, vector_length(potential)):
            raise FileFormatError(path, None, "belongs to another potential", "select the active set again")
        cells = n * dimension * dimension
        if len(data) != head + 16 * cells + 32 + 16 * n * dimension:
            raise FileFormatError(path, None, "is cut off", "write it again with ActiveSet.save")
        inverses = np.frombuffer(data, "<f8", cells, head).reshape(n, dimension, dimension)
        at = head + 8 * cells
        if data[at : at + 32] != bytes.fromhex(potential.checksum):
            raise FileFormatError(path, None, "belongs to another potential", "select the active set again")
        rows = np.frombuffer(data, "<f8", cells, at + 32).reshape(n, dimension, dimension)
        origin = np.frombuffer(data, "<i8", 2 * n * dimension, at + 32 + 8 * cells).reshape(n, dimension, 2)
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(inverses))):
            raise FileFormatError(
                path, None, "holds values that are not finite", "select the active set again"
            )
        return cls(potential, rows.copy(), inverses.copy(), origin.astype(np.int64))


def vector_length(potential: MTPotential) -> int:
    """Number of parameters that enter one site energy."""
    return int(potential.alpha_moment_mapping.size + 1 + potential.radial_coefficients[0].size)


def _vectors(
    evaluator: Evaluator,
    positions: npt.ArrayLike,
    types: npt.ArrayLike,
    cell: npt.ArrayLike,
    periodic: npt.ArrayLike,
) -> FloatArray:
    derivatives = evaluator.site_derivatives(positions, types, cell, periodic)
    scalars = evaluator.potential.alpha_moment_mapping.size
    return np.insert(derivatives, scalars, 1.0, axis=1)


def _collect(potential: MTPotential, frames: Sequence[Atoms]) -> list[tuple[FloatArray, IntArray]]:
    """Per species: vectors (m, dimension) of all its atoms in the frames, and where they stand (m, 2)."""
    evaluator = Evaluator(potential, skin=0.0)
    n = potential.species_count
    vectors: list[list[FloatArray]] = [[] for _ in range(n)]
    where: list[list[IntArray]] = [[] for _ in range(n)]
    for index, atoms in enumerate(frames):
        types = potential.types_of(atoms.get_chemical_symbols())
        found = _vectors(evaluator, atoms.positions, types, atoms.cell.array, atoms.pbc)
        for z in range(n):
            chosen = np.flatnonzero(types == z)
            if len(chosen):
                vectors[z].append(found[chosen])
                where[z].append(np.stack([np.full_like(chosen, index), chosen], axis=1))
    width = vector_length(potential)
    return [
        (np.concatenate(v), np.concatenate(w)) if v else (np.empty((0, width)), np.empty((0, 2), np.int64))
        for v, w in zip(vectors, where, strict=True)
    ]


def maxvol(
    rows: FloatArray, origin: IntArray, candidates: FloatArray, candidate_origin: IntArray, scale: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Swap candidates (m, d) into the square matrix rows (d, d) while |det| grows by more than 1 %.

    scale: (d,) typical size of every column, for the conditioning only. Returns the new rows and their origins.
    """
    rows, origin = rows / scale, origin.copy()
    left = candidates / scale
    coefficients = np.linalg.solve(rows.T, left.T).T
    for swap in range(MAX_SWAPS_PER_ROW * len(rows)):
        if len(coefficients) == 0:
            break
        i, j = np.unravel_index(np.abs(coefficients).argmax(), coefficients.shape)
        pivot = coefficients[i, j]
        if abs(pivot) <= SWAP:
            break
        rows[j], origin[j] = left[i], candidate_origin[i]
        if swap % 50 == 49:
            # Rank-one updates lose digits; begin again from the rows.
            coefficients = np.linalg.solve(rows.T, left.T).T
            continue
        change = coefficients[i].copy()
        change[j] -= 1.0
        coefficients -= np.outer(coefficients[:, j] / pivot, change)
    return rows * scale, origin


def _finished(potential: MTPotential, rows: FloatArray, origin: IntArray) -> ActiveSet:
    return ActiveSet(potential, rows, np.stack([_inverse(matrix) for matrix in rows]), origin)


def _inverse(matrix: FloatArray) -> FloatArray:
    scale = np.abs(matrix).max(axis=0)
    return np.asarray(np.linalg.inv(matrix / scale) / scale[:, None], dtype=np.float64)


def _independent(vectors: FloatArray, count: int) -> IntArray:
    """Indices of at most `count` rows, each the farthest from the span of those before (pivoted QR)."""
    from scipy.linalg import qr

    if len(vectors) == 0:
        return np.empty(0, np.int64)
    return np.asarray(qr(vectors.T, mode="r", pivoting=True)[1][:count], dtype=np.int64)


def select_active_set(potential: MTPotential, frames: Sequence[Atoms]) -> ActiveSet:
    """The active set of a potential from its training frames (labels are not needed).

    Raises FramesError without frames; SpeciesError, GeometryError for frames that cannot be evaluated.
    """
    if len(frames) == 0:
        raise FramesError("an active set needs the training frames; none were given")
    found = _collect(potential, frames)
    n, width = potential.species_count, vector_length(potential)
    rows, origin = np.empty((n, width, width)), np.full((n, width, 2), -1, np.int64)
    columns = [np.sqrt((v**2).mean(axis=0)) if len(v) else np.zeros(width) for v, _ in found]
    scalars = potential.alpha_moment_mapping.size
    largest = np.max([c[:scalars].max(initial=0.0) for c in columns])
    largest_radial = np.max([c[scalars + 1 :].max(initial=0.0) for c in columns])
    if not (np.isfinite(largest) and np.isfinite(largest_radial)) or max(largest, largest_radial) == 0.0:
        raise InputError(
            "potential", potential.name, "a trained potential with finite coefficients is expected"
        )
    for z, (vectors, where) in enumerate(found):
        scale = columns[z].copy()
        # Columns that no frame fills get the size of those of other pairs.
        scale[:scalars] = np.maximum(scale[:scalars], FLOOR * largest)
        scale[scalars] = 1.0
        scale[scalars + 1 :] = np.maximum(scale[scalars + 1 :], FLOOR * (largest_radial or largest))
        rows[z] = np.diag(FLOOR * scale)
        # First among the few that a pivoted factorisation takes for independent; few swaps are left for all.
        for chosen in (_independent(vectors / scale, 2 * width), slice(None)):
            rows[z], origin[z] = maxvol(rows[z], origin[z], vectors[chosen], where[chosen], scale)
    return _finished(potential, rows, origin)
