"""Grain-boundary cells: two boundaries per periodic cell, exact charge and framework stoichiometry.

The framework comes first: two slabs, each a whole number of lattice-plane spacings and so of formula units, are put
together at a rigid shift; atoms of one kind that overlap are merged, and further crowded ones removed until whole
formula units are missing. Then the mixed sites are decorated and Li is placed at minimal repulsion; its number makes
the cell neutral. Terminations, shifts, gaps and the number of formula units removed are searched with the cheap
energy of `rigid_ion`, and ranked again by any ASE calculator. Lengths in Å, energies in eV unless a name says else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomistic import rigid_ion
from atomistic.coincidence import BoundarySpec, Coincidence, find_coincidence
from atomistic.crystals import Crystal
from atomistic.errors import CoincidenceError, CompositionError, GeometryError, InputError
from atomistic.lattice_gas import neighbours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ELEMENTARY_CHARGE = 1.602176634e-19
"""C; eV/Å² to J/m² by ·1e20."""

FAMILIES: dict[str, tuple[tuple[str, ...], BoundarySpec]] = {
    "Sigma5[100](01-2)": (("LSTZ", "LLTO"), BoundarySpec((1, 0, 0), 5, (0, -1, 2))),
    "Sigma5[100](100)": (("LSTZ", "LLTO"), BoundarySpec((1, 0, 0), 5, (1, 0, 0))),
    "Sigma3[110](11-1)": (("LSTZ", "LLTO"), BoundarySpec((1, 1, 0), 3, (1, -1, 1))),
    "Sigma3[110](110)": (("LSTZ", "LLTO"), BoundarySpec((1, 1, 0), 3, (1, 1, 0))),
    "Sigma51[110](001)(33-10)": (("LSTZ", "LLTO"), BoundarySpec((1, 1, 0), 51, (0, 0, 1), (3, -3, 10))),
    "Sigma17(530)[001]": (("LLZO",), BoundarySpec((0, 0, 1), 17, (5, 3, 0))),
    "Sigma33(52-2)[011]": (("LLZO",), BoundarySpec((0, 1, 1), 33, (5, 2, -2))),
    "Sigma19(32-5)[111]": (("LLZO",), BoundarySpec((1, 1, 1), 19, (3, 2, -5))),
    "Sigma5(120)[001]": (("LLZO",), BoundarySpec((0, 0, 1), 5, (1, 2, 0))),
    "Sigma3(1-21)[111]": (("LLZO",), BoundarySpec((1, 1, 1), 3, (1, -2, 1))),
    "Sigma3(1-11)[011]": (("LLZO",), BoundarySpec((0, 1, 1), 3, (1, -1, 1))),
}
"""The published families: materials and macroscopic degrees of freedom, under their papers' names.

LSTZ: doi 10.1038/s41467-023-37115-6, Fig. 4 (a bar stands over the digit before the sign there); LLZO: the supplement
on elemental segregation at LLZO grain boundaries, its figures 5 and 7.
"""

_MOST_EXTRA_LAYERS = 40
_ZONE = 4.0
"""Half width of the zone about a boundary in which atoms are merged, removed or pushed, Å."""


@dataclass(frozen=True)
class Candidate:
    """Microscopic degrees of freedom of a cell and its rank.

    cut_1, cut_2: heights of the grains' terminations within a plane spacing, Å; shift: in-plane shift of grain 2 at the
    first boundary, closing: that of grain 1 at the second, (2,) Å; gap: extra spacing at each boundary, Å; removed:
    formula units taken out at each boundary; energy: model excess energy of the two boundaries, J/m² (for ranking);
    orthogonal: the cell is closed by a vector along the normal, by adding layers where needed.
    """

    cut_1: float
    cut_2: float
    shift: tuple[float, float]
    closing: tuple[float, float]
    gap: float
    removed: tuple[int, int]
    energy: float
    orthogonal: bool = False


@dataclass(frozen=True)
class _Framework:
    labels: NDArray[np.object_]
    positions: Floats
    cell: Floats
    mobile: Floats
    mobile_kind: Ints
    planes: tuple[float, float]
    removed: tuple[int, int]


def resolve(boundary: str | BoundarySpec) -> BoundarySpec:
    """The degrees of freedom of a family's name, any name `BoundarySpec.parse` reads, or a spec itself."""
    if isinstance(boundary, BoundarySpec):
        return boundary
    known = FAMILIES.get(boundary.replace("Σ", "Sigma").replace("∑", "Sigma").replace(" ", ""))
    return known[1] if known else BoundarySpec.parse(boundary)


def _slab(
    crystal: Crystal,
    frame: Floats,
    deformation: Floats,
    cell: Floats,
    spacing: float,
    layers: int,
    cut: float,
) -> tuple[Floats, Ints]:
    """Points of a crystal in a slab: positions with 0 <= z < layers·spacing and index into the crystal's basis."""
    turn = frame.T.copy()
    turn[:, :2] = turn[:, :2] @ deformation
    lattice, basis = crystal.lattice @ turn, crystal.points @ turn
    thickness = layers * spacing
    corners = np.array(
        [[*(a * cell[0] + b * cell[1]), c] for a in (0, 1) for b in (0, 1) for c in (cut, cut + thickness)]
    )
    inverse = np.linalg.inv(lattice)
    ends = corners @ inverse
    spread = basis @ inverse
    low = np.floor(ends.min(0) - spread.max(0) - 0.01).astype(int)
    high = np.ceil(ends.max(0) - spread.min(0) + 0.01).astype(int)
    grid = np.array(
        np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(low, high, strict=True)], indexing="ij")
    )
    origins = grid.reshape(3, -1).T @ lattice
    positions = (origins[:, None] + basis[None]).reshape(-1, 3)
    index = np.tile(np.arange(len(basis)), len(origins))
    fraction = positions[:, :2] @ np.linalg.inv(cell)
    height = positions[:, 2] - cut
    edge = 1e-5
    inside = np.all((fraction >= -edge) & (fraction < 1 - edge), axis=1)
    inside &= (height >= -1e-6) & (height < thickness - 1e-6)
    positions = positions[inside] - [0, 0, cut]
    counts = np.bincount(index[inside], minlength=len(basis))
    if np.any(counts != counts[0]):
        raise GeometryError(
            "a slab does not hold whole unit cells; the in-plane cell is not a lattice of the crystal"
        )
    return positions, index[inside]


def _cuts(crystal: Crystal, frame: Floats, spacing: float, number: int) -> list[float]:
    """Heights between atomic layers, widest spaces first, of at most `number` distinct terminations."""
    z = np.sort(np.mod(crystal.points[: len(crystal.labels)] @ frame[2], spacing))
    layers = [z[0]]
    for value in z[1:]:
        if value - layers[-1] > 0.02:
            layers.append(value)
    if len(layers) > 1 and layers[0] + spacing - layers[-1] < 0.02:
        layers.pop()
    gaps = np.diff([*layers, layers[0] + spacing])
    order = np.argsort(-np.round(gaps, 4), kind="stable")[:number]
    return [float(np.mod(layers[k] + gaps[k] / 2, spacing)) for k in order]


def _displacements(coincidence: Coincidence, step: float, limit: int) -> Floats:
    """A grid of in-plane shifts (m, 2) over the cell of non-identical displacements, about `step` Å apart."""
    basis = coincidence.displacements
    lengths = np.linalg.norm(basis, axis=1)
    numbers = [max(1, math.ceil(length / step)) for length in lengths]
    while numbers[0] * numbers[1] > limit:
        numbers[int(np.argmax(numbers))] -= 1
    grid = [(a / numbers[0], b / numbers[1]) for a in range(numbers[0]) for b in range(numbers[1])]
    return np.array(grid) @ basis


def _join(
    crystal: Crystal, coincidence: Coincidence, layers: tuple[int, int], candidate: Candidate
) -> tuple[Floats, Ints, Floats, tuple[float, float]]:
    """Both slabs in their periodic cell: positions, index into the crystal's points, cell, boundary heights."""
    grains = []
    for which, cut in ((1, candidate.cut_1), (2, candidate.cut_2)):
        frame = coincidence.frame_1 if which == 1 else coincidence.frame_2
        deformation = coincidence.deformation_1 if which == 1 else coincidence.deformation_2
        spacing = coincidence.spacing_1 if which == 1 else coincidence.spacing_2
        grains.append(_slab(crystal, frame, deformation, coincidence.cell, spacing, layers[which - 1], cut))
    first, second = grains
    top = layers[0] * coincidence.spacing_1
    thickness = layers[1] * coincidence.spacing_2
    height = top + thickness + 2 * candidate.gap
    # A slab one layer thicker ends at a plane of the lattice that is displaced by the stacking vector.
    offset = np.array(candidate.shift) + layers[0] * coincidence.stacking_1
    moved = second[0] + [offset[0], offset[1], top + candidate.gap]
    tilt = _tilt(coincidence, layers, candidate)
    cell = np.zeros((3, 3))
    cell[:2, :2] = coincidence.cell
    cell[2] = [*tilt, height]
    planes = (top + candidate.gap / 2, height - candidate.gap / 2)
    return np.vstack([first[0], moved]), np.concatenate([first[1], second[1]]), cell, planes


def _tilt(coincidence: Coincidence, layers: tuple[int, int], candidate: Candidate) -> Floats:
    """In-plane part (2,) of the cell vector that closes the cell with the second boundary's shift."""
    total = np.array(candidate.shift) + np.array(candidate.closing)
    total += layers[0] * coincidence.stacking_1 + layers[1] * coincidence.stacking_2
    fraction = total @ np.linalg.inv(coincidence.cell)
    tilt: Floats = (fraction - np.rint(fraction)) @ coincidence.cell
    return tilt


def _orthogonal_layers(
    coincidence: Coincidence, layers: tuple[int, int], candidate: Candidate
) -> tuple[int, int]:
    """The least numbers of layers, not below those given, with which the cell closes along the normal."""
    extra = sorted(
        itertools.product(range(_MOST_EXTRA_LAYERS), repeat=2), key=lambda e: (e[0] + e[1], abs(e[0] - e[1]))
    )
    for a, b in extra:
        trial = (layers[0] + a, layers[1] + b)
        if np.linalg.norm(_tilt(coincidence, trial, candidate)) < 1e-4:
            return trial
    raise CoincidenceError(
        "no cell with a vector along the normal within 40 extra layers; take a tilted cell"
    )


def _from_plane(positions: Floats, height: float, plane: float) -> Floats:
    offset = positions[:, 2] - plane
    return np.abs(offset - height * np.rint(offset / height))


def _merge(
    crystal: Crystal, positions: Floats, labels: NDArray[np.object_], cell: Floats, plane: float,
    fewer: int, removed: int | None,
) -> tuple[Floats, NDArray[np.object_], int]:  # fmt: skip
    """Merge overlapping atoms of one kind at a boundary and remove whole formula units.

    As many as the overlaps call for less `fewer`, or `removed` where given. Returns positions, labels and their number.
    """
    x, names = positions.copy(), labels.copy()
    height = float(cell[2, 2])
    alive = np.ones(len(x), dtype=bool)
    reach = max(crystal.merge_distance.values())
    near = np.flatnonzero(_from_plane(x, height, plane) < _ZONE)
    pairs = []
    i, j, d = neighbours(x[near], cell, reach)
    for a, b, r in zip(near[i], near[j], d, strict=True):
        if a < b and names[a] == names[b] and r < crystal.merge_distance[names[a]]:
            pairs.append((float(r), int(a), int(b)))
    pairs.sort()
    inverse = np.linalg.inv(cell)
    merged: dict[str, list[tuple[int, int]]] = {label: [] for label in crystal.formula}
    taken: set[int] = set()
    for _, a, b in pairs:
        if a not in taken and b not in taken:
            merged[names[a]].append((a, b))
            taken.update((a, b))
    units = max((math.ceil(len(m) / crystal.formula[s]) for s, m in merged.items()), default=0)
    units = max(0, units - fewer) if removed is None else removed
    deficit: dict[str, int] = {}
    for label, couples in merged.items():
        quota = units * crystal.formula[label]
        for a, b in couples[:quota]:
            step = (x[b] - x[a]) @ inverse
            x[a] += 0.5 * (step - np.rint(step)) @ cell
            alive[b] = False
        deficit[label] = max(0, quota - len(couples))
    if any(deficit.values()):
        inside = np.flatnonzero(alive & (_from_plane(x, height, plane) < _ZONE))
        alive[inside[_most_crowded(crystal, x[inside], names[inside], cell, deficit)]] = False
    return x[alive], names[alive], units


def _most_crowded(
    crystal: Crystal, x: Floats, names: NDArray[np.object_], cell: Floats, numbers: dict[str, int]
) -> list[int]:
    """The given numbers of points by label with the largest Σ (bond/distance)^8, each removed before the next."""
    labels = list(crystal.formula)
    bonds = np.array([[crystal.bond(a, b) for b in labels] for a in labels])
    kind = np.array([labels.index(s) for s in names], dtype=np.int64)
    i, j, d = neighbours(x, cell, 3.5)
    terms = (bonds[kind[i], kind[j]] / np.maximum(d, 0.3)) ** 8
    crowd = np.bincount(i, terms, minlength=len(x)).astype(float)
    gone: list[int] = []
    for label, number in numbers.items():
        for _ in range(number):
            choices = np.setdiff1d(np.flatnonzero(names == label), gone)
            if not len(choices):
                raise GeometryError("the boundary zone holds too few atoms to keep the stoichiometry")
            victim = int(choices[np.argmax(crowd[choices])])
            gone.append(victim)
            touched = j == victim
            crowd -= np.bincount(i[touched], terms[touched], minlength=len(x))
    return gone


def _assemble(
    crystal: Crystal, coincidence: Coincidence, layers: tuple[int, int], candidate: Candidate,
    fewer: int | None = None,
) -> _Framework:  # fmt: skip
    positions, index, cell, planes = _join(crystal, coincidence, layers, candidate)
    framework = index < len(crystal.labels)
    labels = np.array(crystal.labels, dtype=object)[index[framework]]
    x = positions[framework]
    wanted: tuple[int | None, int | None] = candidate.removed if fewer is None else (None, None)
    x, labels, first = _merge(crystal, x, labels, cell, planes[0], fewer or 0, wanted[0])
    x, labels, second = _merge(crystal, x, labels, cell, planes[1], fewer or 0, wanted[1])
    mobile = positions[~framework]
    kinds = np.array(crystal.mobile_kind, dtype=np.int64)[index[~framework] - len(crystal.labels)]
    return _Framework(labels, x, cell, mobile, kinds, planes, (first, second))


@dataclass(frozen=True)
class _Model:
    """The rigid-ion model of one crystal: charges by label, cores at zero pressure, relaxed bulk energy (eV)."""

    names: list[str]
    charges: Floats
    strengths: Floats
    bulk_per_atom: float

    @classmethod
    def of(cls, crystal: Crystal, relax_steps: int) -> _Model:
        names = list(crystal.formula)
        charges = np.array([crystal.model_charge[s] for s in names])
        charges = charges * rigid_ion.CHARGE_SCALE * math.sqrt(rigid_ion.COULOMB)
        bonds = np.array([[crystal.model_bond(a, b) for b in names] for a in names])
        kind = np.array([names.index(s) for s in crystal.labels], dtype=np.int64)
        points = crystal.points[: len(crystal.labels)]
        strengths = rigid_ion.core_strengths(charges, bonds)
        strengths *= rigid_ion.zero_pressure_factor(points, crystal.lattice, charges[kind], kind, strengths)
        _, energy = rigid_ion.relax(
            points, crystal.lattice, charges[kind], kind, strengths, steps=relax_steps
        )
        return cls(names, charges, strengths, float(energy.mean()))

    def terms(self, labels: NDArray[np.object_]) -> tuple[Floats, Ints, Floats]:
        """Charge and kind of every atom and the core strengths."""
        kind = np.array([self.names.index(s) for s in labels], dtype=np.int64)
        return self.charges[kind], kind, self.strengths


def _excess(framework: _Framework, energies: Floats, area: float, bulk: float) -> Floats:
    """Model excess energy of each of the two boundaries, J/m²: atoms counted to the nearer one."""
    first = _from_plane(framework.positions, framework.cell[2, 2], framework.planes[0])
    second = _from_plane(framework.positions, framework.cell[2, 2], framework.planes[1])
    nearer = first <= second
    parts = [float(np.sum(energies[side]) - bulk * np.sum(side)) / area for side in (nearer, ~nearer)]
    return np.array(parts) * ELEMENTARY_CHARGE * 1e20


def search(
    crystal: Crystal,
    boundary: str | BoundarySpec,
    *,
    terminations: int = 2,
    shift_step: float = 1.5,
    max_shifts: int = 36,
    gaps: Sequence[float] = (0.0, 0.5),
    keep: int = 5,
    relax_steps: int = 40,
    orthogonal: bool = False,
    max_area: float = 2500.0,
    max_strain: float = 0.02,
    progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:
    """Terminations, rigid shifts, gaps and missing formula units of a boundary, best first by the model energy.

    Every combination of `terminations` cuts of each grain, at most `max_shifts` shifts about `shift_step` Å apart and
    the `gaps` (Å) is assembled and its energy computed; the 4·`keep` best are relaxed for `relax_steps` steps and
    ranked again. The two boundaries of a cell choose their shifts independently, which tilts the cell, unless
    `orthogonal` asks for a cell vector along the normal.

    Raises CoincidenceError when no common cell lies within `max_area` (Å²) and `max_strain`.
    """
    spec = resolve(boundary)
    coincidence = find_coincidence(spec, crystal.lattice, max_area=max_area, max_strain=max_strain)
    layers = (math.ceil(8.0 / coincidence.spacing_1), math.ceil(8.0 / coincidence.spacing_2))
    model = _Model.of(crystal, relax_steps)
    rigid = _Model.of(crystal, 0)
    shifts = _displacements(coincidence, shift_step, max_shifts)
    cuts = [
        _cuts(crystal, frame, spacing, terminations)
        for frame, spacing in (
            (coincidence.frame_1, coincidence.spacing_1),
            (coincidence.frame_2, coincidence.spacing_2),
        )
    ]
    combinations = list(itertools.product(cuts[0], cuts[1], gaps, (0, 1)))
    found: list[Candidate] = []
    for number, (cut_1, cut_2, gap, fewer) in enumerate(combinations):
        table, removed = [], []
        for shift in shifts:
            trial = Candidate(cut_1, cut_2, _pair(shift), _pair(shift), gap, (0, 0), 0.0)
            framework = _assemble(crystal, coincidence, layers, trial, fewer)
            energy, _ = rigid_ion.atom_energies(
                framework.positions, framework.cell, *rigid.terms(framework.labels)
            )
            table.append(_excess(framework, energy, coincidence.area, rigid.bulk_per_atom))
            removed.append(framework.removed)
        found += _best_pairs(table, removed, shifts, coincidence, (cut_1, cut_2, gap), layers, orthogonal)
        if progress:
            progress(number + 1, len(combinations))
    found.sort(key=lambda c: c.energy)
    found = _distinct(found)[: 4 * keep]
    ranked = [_relaxed(crystal, coincidence, layers, c, model, relax_steps) for c in found]
    ranked.sort(key=lambda c: c.energy)
    return ranked[:keep]


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _best_pairs(
    table: list[Floats], removed: list[tuple[int, int]], shifts: Floats, coincidence: Coincidence,
    cuts: tuple[float, float, float], layers: tuple[int, int], orthogonal: bool,
) -> list[Candidate]:  # fmt: skip
    """Shifts of both boundaries: the best of each, or, for an orthogonal cell, opposite ones."""
    energies = np.array(table)
    pairs: list[tuple[int, int]] = []
    if orthogonal:
        # Closed along the normal, the second shift undoes the first and the stacking of both slabs.
        inverse = np.linalg.inv(coincidence.displacements)
        stacked = layers[0] * coincidence.stacking_1 + layers[1] * coincidence.stacking_2
        for k, shift in enumerate(shifts):
            offset = (shifts + shift + stacked) @ inverse
            distance = np.linalg.norm(offset - np.rint(offset), axis=1)
            pairs.append((k, int(np.argmin(distance))))
    else:
        first, second = np.argsort(energies[:, 0])[:4], np.argsort(energies[:, 1])[:4]
        pairs = [(int(a), int(b)) for a, b in itertools.product(first, second)]
    found = []
    for a, b in pairs:
        closing = -shifts[a] - stacked if orthogonal else shifts[b]
        found.append(
            Candidate(
                cuts[0], cuts[1], _pair(shifts[a]), _pair(closing), cuts[2], (removed[a][0], removed[b][1]),
                float(energies[a, 0] + energies[b, 1]), orthogonal,
            )
        )  # fmt: skip
    return found


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One of each set of candidates whose model energies agree: symmetry makes many shifts the same."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if all(abs(candidate.energy - other.energy) > 1e-4 for other in kept):
            kept.append(candidate)
    return kept


def _relaxed(
    crystal: Crystal,
    coincidence: Coincidence,
    layers: tuple[int, int],
    candidate: Candidate,
    model: _Model,
    steps: int,
) -> Candidate:
    framework = _assemble(crystal, coincidence, layers, candidate)
    terms = model.terms(framework.labels)
    _, energy = rigid_ion.relax(framework.positions, framework.cell, *terms, steps=steps)
    return replace(
        candidate, energy=float(_excess(framework, energy, coincidence.area, model.bulk_per_atom).sum())
    )


def build(
    crystal: Crystal,
    boundary: str | BoundarySpec,
    *,
    rng: np.random.Generator,
    candidate: Candidate | None = None,
    min_separation: float = 10.0,
    min_width: float = 8.0,
    max_atoms: int = 10_000,
    max_area: float = 2500.0,
    max_strain: float = 0.02,
) -> Atoms:
    """A periodic cell with two boundaries, framework stoichiometric and charge neutral, Li at minimal repulsion.

    The in-plane cell is repeated until both its heights reach `min_width` (Å); each grain is at least `min_separation`
    (Å) thick. `candidate` sets the microscopic degrees of freedom (default: the best of a `search`). `atoms.info` holds
    the boundary's name, area (Å²), plane heights (Å) and fractions of the third cell vector, their separation, strain
    and the contents reached.

    Raises CoincidenceError when no common cell exists or the atoms would exceed `max_atoms`, CompositionError when the
    contents cannot be neutral.
    """
    spec = resolve(boundary)
    if not (3.0 <= min_separation <= 500.0):
        raise InputError("min_separation", min_separation, "give 3 to 500 Å")
    coincidence = find_coincidence(spec, crystal.lattice, max_area=max_area, max_strain=max_strain)
    layers = (
        math.ceil(min_separation / coincidence.spacing_1 - 1e-9),
        math.ceil(min_separation / coincidence.spacing_2 - 1e-9),
    )
    heights = coincidence.area / np.linalg.norm(coincidence.cell, axis=1)[::-1]
    repeat = [max(1, math.ceil(min_width / h - 1e-9)) for h in heights]
    units = coincidence.area * (layers[0] * coincidence.spacing_1 + layers[1] * coincidence.spacing_2)
    units *= repeat[0] * repeat[1] * crystal.formula_units / abs(float(np.linalg.det(crystal.lattice)))
    atoms_per_unit = sum(crystal.formula.values()) + (7 if crystal.mobile_kind else 0)
    if units * atoms_per_unit > max_atoms:
        raise CoincidenceError(
            f"{spec.name} in {crystal.name}: about {units * atoms_per_unit:.0f} atoms for grains of "
            f"{min_separation:g} Å; allow more atoms, thinner grains or a narrower cell"
        )
    if candidate is None:
        candidate = search(crystal, spec, max_area=max_area, max_strain=max_strain, keep=1)[0]
    if candidate.orthogonal:
        layers = _orthogonal_layers(coincidence, layers, candidate)
    framework = _assemble(crystal, coincidence, layers, candidate)
    framework = _tile(framework, repeat[0], repeat[1])
    atoms = crystal.decorate(
        framework.labels, framework.positions, framework.cell, framework.mobile, framework.mobile_kind,
        framework.planes, rng,
    )  # fmt: skip
    height = float(framework.cell[2, 2])
    separation = min(
        framework.planes[1] - framework.planes[0], height - framework.planes[1] + framework.planes[0]
    )
    atoms.info.update(
        material=crystal.name,
        boundary=spec.name,
        kind="twist" if spec.is_twist else "tilt" if spec.is_tilt else "mixed",
        symmetric=spec.is_symmetric_tilt or spec.is_twist,
        normal_axis=2,
        boundary_heights=[float(p) for p in framework.planes],
        boundary_fractions=[float(p) / height for p in framework.planes],
        boundary_separation=separation,
        boundary_area=coincidence.area * repeat[0] * repeat[1],
        plane_spacing=max(coincidence.spacing_1, coincidence.spacing_2),
        coincidence_strain=coincidence.strain,
        misorientation_degrees=math.degrees(coincidence.angle),
        removed_formula_units=list(framework.removed),
    )
    return atoms


def _tile(framework: _Framework, first: int, second: int) -> _Framework:
    shifts = np.array(
        [a * framework.cell[0] + b * framework.cell[1] for a in range(first) for b in range(second)]
    )
    cell = framework.cell.copy()
    cell[0] *= first
    cell[1] *= second

    def spread(points: Floats) -> Floats:
        tiled: Floats = (points[None] + shifts[:, None]).reshape(-1, 3)
        return tiled

    copies = len(shifts)
    return replace(
        framework,
        labels=np.tile(framework.labels, copies),
        positions=spread(framework.positions),
        cell=cell,
        mobile=spread(framework.mobile),
        mobile_kind=np.tile(framework.mobile_kind, copies),
        removed=(framework.removed[0] * copies, framework.removed[1] * copies),
    )


@dataclass(frozen=True)
class BoundaryEnergy:
    """γ = (E_cell - N e_bulk)/(2A), the mean of a cell's two boundaries, J/m².

    standard_uncertainty: from the scatter of the bulk cells' energies per atom; nan where only one was given.
    """

    value: float
    standard_uncertainty: float
    area: float
    atoms: int


def relaxed_energy(
    atoms: Atoms, calculator: Any, *, fmax: float | None = None, steps: int = 300
) -> tuple[float, Atoms]:
    """Potential energy (eV) and structure after moving the atoms downhill (FIRE, fixed cell) until fmax (eV/Å).

    Without `fmax` the energy of the structure as it is. At most `steps` steps; the structure reached is returned.
    """
    from ase.optimize import FIRE

    moved = atoms.copy()
    moved.calc = calculator
    if fmax is not None:
        FIRE(moved, logfile=None).run(fmax=fmax, steps=steps)
    energy = float(moved.get_potential_energy())
    if not math.isfinite(energy):
        raise GeometryError("the calculator's energy is not finite; the structure has fallen apart")
    moved.calc = None
    return energy, moved


def boundary_energy(
    boundary: Atoms, bulk: Sequence[Atoms], calculator: Any, *, fmax: float | None = None, steps: int = 300
) -> BoundaryEnergy:
    """Energy per area of the boundaries of a cell made by `build`, against bulk cells of the same composition.

    All structures are relaxed at fixed cell to `fmax` (eV/Å) where given. Give several bulk arrangements of a
    disordered crystal: their mean is the reference, their scatter the uncertainty.

    Raises CompositionError when a bulk cell's composition differs, InputError without bulk cells or area.
    """
    if not bulk:
        raise InputError("bulk", len(bulk), "give at least one bulk cell of the same composition")
    if "boundary_area" not in boundary.info:
        raise InputError(
            "boundary", boundary.get_chemical_formula(), "a cell made by atomistic.boundaries.build"
        )
    shares = _shares(boundary)
    for cell in bulk:
        other = _shares(cell)
        if shares.keys() != other.keys() or any(abs(shares[s] - other[s]) > 1e-9 for s in shares):
            raise CompositionError(
                f"bulk {cell.get_chemical_formula()} and boundary {boundary.get_chemical_formula()} differ in "
                "composition; choose bulk contents or a boundary cell that agree to the atom"
            )
    energies = [relaxed_energy(b, calculator, fmax=fmax, steps=steps)[0] / len(b) for b in bulk]
    total, _ = relaxed_energy(boundary, calculator, fmax=fmax, steps=steps)
    area = float(boundary.info["boundary_area"])
    to_si = ELEMENTARY_CHARGE * 1e20 / (2 * area)
    spread = float(np.std(energies, ddof=1)) / math.sqrt(len(energies)) if len(energies) > 1 else math.nan
    value = (total - len(boundary) * float(np.mean(energies))) * to_si
    return BoundaryEnergy(value, spread * len(boundary) * to_si, area, len(boundary))


def _shares(atoms: Atoms) -> dict[str, float]:
    symbols = atoms.get_chemical_symbols()
    return {s: symbols.count(s) / len(symbols) for s in sorted(set(symbols))}


def rank(
    crystal: Crystal,
    boundary: str | BoundarySpec,
    candidates: Sequence[Candidate],
    bulk: Sequence[Atoms],
    calculator: Any,
    *,
    rng: np.random.Generator,
    arrangements: int = 1,
    fmax: float | None = 0.1,
    steps: int = 200,
    **build_options: Any,
) -> list[tuple[BoundaryEnergy, Candidate, Atoms]]:
    """Candidates built, relaxed with an ASE calculator and sorted by boundary energy, lowest first.

    Each candidate is decorated `arrangements` times and its best kept. `build_options` go to `build`.
    """
    found = []
    for candidate in candidates:
        trials = []
        for _ in range(arrangements):
            atoms = build(crystal, boundary, rng=rng, candidate=candidate, **build_options)
            _, relaxed = relaxed_energy(atoms, calculator, fmax=fmax, steps=steps)
            trials.append((boundary_energy(relaxed, bulk, calculator), candidate, relaxed))
        found.append(min(trials, key=lambda t: t[0].value))
    return sorted(found, key=lambda t: t[0].value)
