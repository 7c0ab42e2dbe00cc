"""Coincidence of two crystals at a boundary: misorientation (axis, Σ), boundary plane and common in-plane cell.

Directions and planes are integers in the conventional cubic cell. A rotation R takes crystal 2 into the frame of
crystal 1. About [uvw], quaternions (m, n·uvw) with whole m, n give Σ = odd part of m² + n²(u²+v²+w²) and
tan(θ/2) = (n/m)|uvw| (H. Grimmer, W. Bollmann and D. H. Warrington, Acta Cryst. A 30, 197 (1974),
doi 10.1107/S056773947400043X). Lengths are in the unit of the lattice given.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atomistic.errors import CoincidenceError, InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Index = tuple[int, int, int]

_EXACT = 1e-7


def primitive_index(values: Sequence[int]) -> Index:
    """A direction or plane without common factor. Raises InputError for (0, 0, 0) or a wrong count."""
    if len(values) != 3 or not any(values) or any(abs(int(v)) > 10_000 for v in values):
        raise InputError("index", tuple(values), "give three whole numbers, not all zero, at most 10000")
    divisor = math.gcd(*[int(v) for v in values])
    h, k, l = (int(v) // divisor for v in values)  # noqa: E741  (Miller's letters)
    return h, k, l


def _odd_part(number: int) -> int:
    while number % 2 == 0:
        number //= 2
    return number


def _readings(text: str, what: str) -> list[Index]:
    """All ways to read Miller indices such as 01-2, where the bar may stand before or after its digit."""
    if re.search(r"[,\s]", text.strip()):
        numbers = re.split(r"[,\s]+", text.strip())
        if len(numbers) == 3 and all(re.fullmatch(r"[-+]?\d+", n) for n in numbers):
            return [primitive_index([int(n) for n in numbers])]
        raise InputError(what, text, "write three whole numbers")
    before = r"(-?\d{w})(-?\d{x})(-?\d{y})"
    after = r"(\d{w}-?)(\d{x}-?)(\d{y}-?)"
    found: list[Index] = []
    # One-digit readings come first; then the last index with two digits, as in (3 -3 10).
    for widths in ("111", "112", "121", "211"):
        for pattern in (before, after):
            regex = pattern.replace("{w}", "{%s}").replace("{x}", "{%s}").replace("{y}", "{%s}") % tuple(
                widths
            )
            match = re.fullmatch(regex, text)
            if match:
                values = [int(f"-{g[:-1]}") if g.endswith("-") else int(g) for g in match.groups()]
                if any(values) and (reading := primitive_index(values)) not in found:
                    found.append(reading)
    if not found:
        raise InputError(what, text, "write indices such as 100, 01-2 or '3 -3 10'")
    return found


@dataclass(frozen=True)
class BoundarySpec:
    """A boundary's five macroscopic degrees of freedom: axis [uvw], Σ, plane (hkl) of grain 1 and, if not implied, 2.

    With `plane` perpendicular to the axis it is a tilt boundary, symmetric if the twin about the plane has this Σ;
    with `plane` along the axis a twist boundary; else a mixed one. `plane_2` names the plane of grain 2 of an
    asymmetric boundary whose planes are given by (possibly rounded) indices.
    """

    axis: Index
    sigma: int
    plane: Index
    plane_2: Index | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", primitive_index(self.axis))
        object.__setattr__(self, "plane", primitive_index(self.plane))
        if self.plane_2 is not None:
            object.__setattr__(self, "plane_2", primitive_index(self.plane_2))
        if not (isinstance(self.sigma, int) and 1 < self.sigma < 10_000 and self.sigma % 2):
            raise InputError("sigma", self.sigma, "an odd whole number above 1 and below 10000")

    @classmethod
    def parse(cls, name: str) -> BoundarySpec:
        """Read "Sigma5[100](01-2)", "Σ17 (530)[001]" or "Sigma51[110](001)(33-10)".

        Written without separators, a bar may stand before or after its digit; the reading is taken that puts the plane
        across or along the axis. Raises InputError where no reading is possible.
        """
        match = re.fullmatch(
            r"\s*(?:[ΣS∑]|[Ss]igma)\s*(\d{1,4})\s*((?:[\[(][-\d,\s]{3,40}[\])]\s*){2,3})", name
        )
        remedy = "write it as Sigma5[100](012), axis in square brackets, one or two planes in round ones"
        if not match:
            raise InputError("boundary", name, remedy)
        axes = re.findall(r"\[([-\d,\s]+)\]", match[2])
        planes = re.findall(r"\(([-\d,\s]+)\)", match[2])
        if len(axes) != 1 or len(planes) not in (1, 2):
            raise InputError("boundary", name, remedy)
        axis = _readings(axes[0], "axis")[0]

        def best(text: str) -> Index:
            readings = _readings(text, "plane")
            for plane in readings:
                if int(np.dot(plane, axis)) == 0 or not np.cross(plane, axis).any():
                    return plane
            return readings[0]

        chosen = [best(p) for p in planes]
        return cls(axis, int(match[1]), chosen[0], chosen[1] if len(chosen) == 2 else None)

    @property
    def name(self) -> str:
        """Such as "Sigma5[100](0,-1,2)"."""

        def text(index: Index) -> str:
            plain = all(0 <= i < 10 for i in index)
            return "".join(map(str, index)) if plain else ",".join(map(str, index))

        second = f"({text(self.plane_2)})" if self.plane_2 else ""
        return f"Sigma{self.sigma}[{text(self.axis)}]({text(self.plane)}){second}"

    @property
    def is_tilt(self) -> bool:
        """Whether the plane contains the axis."""
        return int(np.dot(self.axis, self.plane)) == 0

    @property
    def is_twist(self) -> bool:
        """Whether the plane is perpendicular to the axis."""
        return not np.cross(self.axis, self.plane).any()

    @property
    def is_symmetric_tilt(self) -> bool:
        """Whether grain 2 is grain 1 turned by half a turn about the plane's normal (a mirror twin)."""
        twin = _odd_part(int(np.dot(self.plane, self.plane)))
        return self.is_tilt and self.plane_2 is None and twin == self.sigma


def rotation(axis: ArrayLike, angle: float) -> Floats:
    """Rotation matrix (3, 3) about `axis` by `angle` (rad), right-handed."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(np.asarray(axis, dtype=float))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix: Floats = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return matrix


def coincidence_angles(axis: Sequence[int], sigma: int) -> list[float]:
    """All rotation angles (rad, ascending, 0 < θ <= π) about [uvw] that give the coincidence index Σ.

    Raises CoincidenceError when there is none about this axis.
    """
    square = int(np.dot(axis, axis))
    angles = set()
    for n in range(1, math.isqrt(4 * sigma) + 1):
        for m in range(math.isqrt(4 * sigma) + 1):
            if math.gcd(m, n) == 1 and _odd_part(m * m + n * n * square) == sigma:
                angles.add(round(2 * math.atan2(n * math.sqrt(square), m), 12))
    if not angles:
        raise CoincidenceError(
            f"no rotation about {tuple(axis)} gives Sigma {sigma}; take another axis or Sigma"
        )
    return sorted(angles)


def cubic_rotations() -> list[Floats]:
    """The 24 proper rotations of the cube."""
    found = []
    for p in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), p] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return found


def plane_lattice(lattice: Floats, normal: Floats) -> tuple[Floats, float, Floats]:
    """The two-dimensional lattice of a lattice plane, the spacing of such planes and a lattice vector between two.

    `lattice` (3, 3) rows are primitive vectors, `normal` (3,) any vector along a reciprocal lattice vector. Returns
    rows (2, 3), reduced, the spacing and a vector (3,) from one plane to the next along the normal.

    Raises CoincidenceError when the plane is not rational within 2000.
    """
    k = lattice @ normal
    integer = _integers(k / np.linalg.norm(k))
    if integer is None:
        raise CoincidenceError(f"plane with normal {np.round(normal, 4)} is not rational in this crystal")
    null, step = _null_basis(integer)
    basis = reduce_2d(null @ lattice)
    area = float(np.linalg.norm(np.cross(basis[0], basis[1])))
    between = step @ lattice
    if between @ normal < 0:
        between = -between
    return basis, abs(float(np.linalg.det(lattice))) / area, between


def _integers(vector: Floats, limit: int = 2000) -> Ints | None:
    scale = np.max(np.abs(vector))
    unit = vector / scale
    for factor in range(1, limit + 1):
        trial = unit * factor
        if np.all(np.abs(trial - np.rint(trial)) < 1e-7 * factor + 1e-9):
            whole = np.rint(trial).astype(np.int64)
            result: Ints = whole // max(math.gcd(*[int(v) for v in whole]), 1)
            return result
    return None


def _null_basis(k: Ints) -> tuple[Ints, Ints]:
    """A basis (2, 3) of the whole-number vectors z with k·z = 0 and one (3,) with k·z = ±1; k has no common factor."""
    work, vectors = [int(v) for v in k], np.eye(3, dtype=np.int64)
    # Euclid's algorithm on the entries of k; the unimodular record of it holds the null vectors.
    while sum(1 for v in work if v) > 1:
        order = sorted((i for i in range(3) if work[i]), key=lambda i: abs(work[i]))
        small, large = order[0], order[-1]
        q = work[large] // work[small]
        work[large] -= q * work[small]
        vectors[large] -= q * vectors[small]
    zero = [i for i in range(3) if work[i] == 0]
    return vectors[zero], vectors[next(i for i in range(3) if work[i])]


def reduce_2d(basis: Floats) -> Floats:
    """Gauss-reduced basis (2, n) of a two-dimensional lattice: shortest vectors, angle from 60° to 120°."""
    a, b = np.array(basis[0], dtype=float), np.array(basis[1], dtype=float)
    for _ in range(1000):
        if a @ a > b @ b * (1 + 1e-12):
            a, b = b, a
        q = round(float(a @ b / (a @ a)))
        if q == 0:
            break
        b = b - q * a
    return np.array([a, b])


def _hermite_2d(index: int) -> Iterator[Ints]:
    for p in range(1, index + 1):
        if index % p == 0:
            for r in range(index // p):
                yield np.array([[p, r], [0, index // p]], dtype=np.int64)


@dataclass(frozen=True)
class Coincidence:
    """Two crystals with a common in-plane cell.

    frame_1, frame_2: (3, 3) rotations of each crystal's axes into the boundary frame, z along the boundary normal;
    cell: (2, 2) rows, the common in-plane cell in the boundary frame; deformation_1, _2: (2, 2) stretch that makes
    each grain fit (identity where exact); strain: the larger principal strain of either; spacing_1, spacing_2: of the
    lattice planes; stacking_1, stacking_2: (2,) in-plane part of a lattice vector one spacing high; displacements:
    (2, 2) basis of the cell of non-identical in-plane shifts; angle: misorientation about the axis, rad.
    """

    frame_1: Floats
    frame_2: Floats
    cell: Floats
    deformation_1: Floats
    deformation_2: Floats
    strain: float
    spacing_1: float
    spacing_2: float
    stacking_1: Floats
    stacking_2: Floats
    displacements: Floats
    angle: float

    @property
    def area(self) -> float:
        """Of the in-plane cell, in the unit of the lattice squared."""
        return abs(float(np.linalg.det(self.cell)))


def _boundary_frame(normal: Floats, along: Floats) -> Floats:
    z = normal / np.linalg.norm(normal)
    x = along - (along @ z) * z
    x = x / np.linalg.norm(x)
    return np.array([x, np.cross(z, x), z])


def _match(
    first: Floats, second: Floats, max_area: float, max_strain: float
) -> tuple[Floats, Floats, Floats] | None:
    """Smallest common superlattice of two plane lattices (2, 2): cell, deformations; None if none within bounds."""
    area = abs(float(np.linalg.det(first)))
    inverse = np.linalg.inv(second)
    for index in range(1, int(max_area / area + 1e-9) + 1):
        best: tuple[float, Floats, Floats] | None = None
        for hermite in _hermite_2d(index):
            own = reduce_2d(hermite @ first)
            whole = np.rint(own @ inverse)
            other = whole @ second
            if abs(np.linalg.det(whole)) < 0.5:
                continue
            strain = float(np.linalg.norm(np.linalg.solve(own, other) - np.eye(2), 2))
            if strain <= max_strain + _EXACT and (best is None or strain < best[0] - 1e-12):
                best = (strain, own, other)
        if best is not None:
            return 0.5 * (best[1] + best[2]), best[1], best[2]
    return None


def _sum_lattice(first: Floats, second: Floats) -> Floats:
    """Basis (2, 2) of the lattice generated by two commensurate plane lattices."""
    ratio = np.linalg.inv(first)
    relative = second @ ratio
    for denominator in range(1, 5001):
        scaled = relative * denominator
        if np.all(np.abs(scaled - np.rint(scaled)) < 1e-5 * denominator):
            break
    else:
        return first
    rows = np.vstack([np.eye(2) * denominator, np.rint(scaled)]).astype(np.int64)
    # Column by column, Euclid's algorithm leaves the basis in the first two rows.
    for column in range(2):
        while True:
            live = [r for r in range(column, len(rows)) if rows[r, column]]
            if len(live) <= 1:
                break
            small = min(live, key=lambda r: abs(rows[r, column]))
            for r in live:
                if r != small:
                    rows[r] -= rows[r, column] // rows[small, column] * rows[small]
        pivot = next(r for r in range(column, len(rows)) if rows[r, column])
        rows[[column, pivot]] = rows[[pivot, column]]
    return reduce_2d(rows[:2] / denominator @ first)


def find_coincidence(
    spec: BoundarySpec,
    lattice: Floats,
    *,
    max_area: float,
    max_strain: float = 0.02,
    angle_tolerance: float = 1.0,
) -> Coincidence:
    """The common cell of a boundary in a cubic crystal.

    `lattice` (3, 3) rows: primitive vectors of the cubic Bravais lattice. Exact coincidence is taken where it exists;
    where `plane_2` is given and the two planes do not coincide exactly at Σ, they are made parallel about the axis
    (within `angle_tolerance` degrees of the Σ angle) and the grains are stretched by at most `max_strain`. `max_area`
    bounds the in-plane cell (unit of the lattice squared).

    Raises CoincidenceError when no cell exists within these bounds.
    """
    axis, normal = np.array(spec.axis, dtype=float), np.array(spec.plane, dtype=float)
    along = axis if spec.is_tilt else _any_in_plane(normal)
    trials: list[tuple[Floats, float, Floats, bool]] = []
    if spec.is_symmetric_tilt:
        turn = rotation(normal, math.pi)
        trials.append((turn, _tilt_angle(spec, turn), normal, True))
    else:
        angles = coincidence_angles(spec.axis, spec.sigma)
        for angle, sense in itertools.product(angles, (1, -1)):
            turn = rotation(axis, sense * angle)
            other = turn.T @ normal
            if spec.plane_2 is None:
                trials.append((turn, angle, other, True))
                continue
            for symmetry in cubic_rotations():
                second = symmetry @ np.array(spec.plane_2, dtype=float)
                cosine = second @ other / np.linalg.norm(second) / np.linalg.norm(other)
                if cosine > math.cos(math.radians(angle_tolerance)):
                    exact = cosine > 1 - 1e-12
                    trials.append((turn if exact else _align(turn, second, normal), angle, second, exact))
        trials.sort(key=lambda t: not t[3])
    best: Coincidence | None = None
    for turn, angle, second, exact in trials:
        found = _common_cell(
            lattice, normal, second, turn, along, angle, max_area, 0.0 if exact else max_strain
        )
        if found is not None and (
            best is None or (found.strain, found.area) < (best.strain - 1e-9, best.area - 1e-9)
        ):
            best = found
        if best is not None and exact and spec.plane_2 is not None:
            break
    if best is None:
        strain = f" with at most {100 * max_strain:g} % strain" if spec.plane_2 else ""
        raise CoincidenceError(
            f"{spec.name}: no common cell within an area of {max_area:.0f} Å²{strain}; allow a larger area"
            + (" or strain" if spec.plane_2 else " or name the second plane")
        )
    return best


def _align(turn: Floats, second: Floats, normal: Floats) -> Floats:
    """The rotation nearest `turn` that takes the plane normal `second` exactly onto `normal`."""
    image = turn @ second / np.linalg.norm(second)
    target = normal / np.linalg.norm(normal)
    cross = np.cross(image, target)
    sine = float(np.linalg.norm(cross))
    if sine < 1e-14:
        return turn
    return rotation(cross, math.atan2(sine, float(image @ target))) @ turn


def _any_in_plane(normal: Floats) -> Floats:
    first: Floats = plane_lattice(np.eye(3), normal)[0][0]
    return first


def _tilt_angle(spec: BoundarySpec, turn: Floats) -> float:
    """Smallest angle about the axis (up to cubic symmetry) that describes the misorientation `turn`, rad."""
    axis = np.array(spec.axis, dtype=float) / np.linalg.norm(spec.axis)
    found = []
    for symmetry in cubic_rotations():
        matrix = turn @ symmetry
        if np.allclose(matrix @ axis, axis, atol=1e-9):
            found.append(math.acos(min(1.0, max(-1.0, (float(np.trace(matrix)) - 1) / 2))))
    return min(found, default=math.nan)


def _common_cell(
    lattice: Floats, normal: Floats, second: Floats, turn: Floats, along: Floats, angle: float,
    max_area: float, max_strain: float,
) -> Coincidence | None:  # fmt: skip
    frame_1 = _boundary_frame(normal, along)
    frame_2 = frame_1 @ turn
    try:
        plane_1, spacing_1, between_1 = plane_lattice(lattice, normal)
        plane_2, spacing_2, between_2 = plane_lattice(lattice, second)
    except CoincidenceError:
        return None
    flat_1, flat_2 = (plane_1 @ frame_1.T)[:, :2], (plane_2 @ frame_2.T)[:, :2]
    match = _match(flat_1, flat_2, max_area, max_strain)
    if match is None:
        return None
    cell, own, other = match
    if np.linalg.det(cell) < 0:
        cell, own, other = cell[::-1], own[::-1], other[::-1]
    deformation_1: Floats = np.linalg.solve(own, cell).astype(float)
    deformation_2: Floats = np.linalg.solve(other, cell).astype(float)
    stretch = [float(np.linalg.norm(d - np.eye(2), 2)) for d in (deformation_1, deformation_2)]
    return Coincidence(
        frame_1, frame_2, cell, deformation_1, deformation_2, max(stretch), spacing_1, spacing_2,
        (frame_1 @ between_1)[:2] @ deformation_1, (frame_2 @ between_2)[:2] @ deformation_2,
        _sum_lattice(flat_1 @ deformation_1, flat_2 @ deformation_2), angle,
    )  # fmt: skip
