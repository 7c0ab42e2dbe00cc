"""Crystals as a boundary builder sees them: a framework with mixed sites, sites for Li, and how both are filled.

A framework's labels are elements or mixed sites ("A", "B"); after two grains are joined, `decorate` draws the elements
on mixed sites from the generator given and places Li at minimal repulsion, as many as make the cell neutral. Lengths
in Å, charges in e.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomistic import cells
from atomistic.cells import CONTACT, SPECIES_ORDER, VALENCE
from atomistic.errors import CompositionError, InputError
from atomistic.lattice_gas import cross_neighbours, framework_energy, place_apart, push_apart, sorted_atoms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TETRAHEDRAL, OCTAHEDRAL, VOID = 0, 1, 2
"""Kinds of Li sites in the garnet: 24d, 96h, and voids found between grains."""

_PUSH = 0.97


@dataclass(frozen=True)
class Crystal(ABC):
    """A cubic crystal's primitive cell.

    lattice: (3, 3) rows, Å; labels: of the framework points; points: (n, 3) Å, framework first, then Li sites;
    mobile_kind: of the Li sites; formula: framework labels per formula unit; model_charge: by label, e, neutral in sum;
    merge_distance: by label, Å, below which two points of a kind are one.
    """

    name: str
    lattice: Floats
    labels: tuple[str, ...]
    points: Floats
    mobile_kind: tuple[int, ...]
    formula: dict[str, int]
    model_charge: dict[str, float]
    merge_distance: dict[str, float]
    elements: dict[str, str] = field(default_factory=dict)

    @property
    def formula_units(self) -> int:
        """In the primitive cell."""
        return len(self.labels) // sum(self.formula.values())

    def bond(self, first: str, second: str) -> float:
        """Minimal distance of two labels, Å, from the elements that stand for them."""
        return cells.minimal_distance(self.elements.get(first, first), self.elements.get(second, second))

    def model_bond(self, first: str, second: str) -> float:
        """Bond length of a cation and an anion in the rigid-ion model, Å; 0 between like charges."""
        if self.model_charge[first] * self.model_charge[second] >= 0:
            return 0.0
        return self.bond(first, second) * 1.12

    @abstractmethod
    def decorate(
        self,
        labels: NDArray[np.object_],
        positions: Floats,
        cell: Floats,
        mobile: Floats,
        mobile_kind: Ints,
        planes: tuple[float, float],
        rng: np.random.Generator,
    ) -> Atoms:
        """Elements on the framework and Li beside it; exact neutrality. Raises CompositionError if impossible."""

    def settle(
        self, symbols: list[str], positions: Floats, cell: Floats, movable: NDArray[np.bool_]
    ) -> Floats:
        """Push atoms apart that are closer than their minimal distances; raises CompositionError if they stay so."""
        kinds = sorted(set(symbols))
        kind = np.array([kinds.index(s) for s in symbols], dtype=np.int64)
        table = np.array([[cells.minimal_distance(a, b) for b in kinds] for a in kinds]) * _PUSH
        moved, overlap = push_apart(positions, cell, kind, table, movable=movable, max_iterations=600)
        if overlap > 0.25:
            raise CompositionError(f"atoms at the boundary stay {overlap:.2f} Å too close; take a larger gap")
        return moved


def _counts(name: str, contents: dict[str, float], units: int, limit: float) -> dict[str, int]:
    for element, content in contents.items():
        if not (np.isfinite(content) and 0 <= content <= limit):
            raise InputError(f"{name}.{element.lower()}", content, f"0 to {limit:g} per formula unit")
    return {element: round(content * units) for element, content in contents.items()}


def _draw(
    labels: NDArray[np.object_], site: str, host: str, counts: dict[str, int], rng: np.random.Generator
) -> None:
    chosen = rng.permutation(np.flatnonzero(labels == site))
    if sum(counts.values()) > len(chosen):
        raise CompositionError(f"{counts} do not fit {len(chosen)} sites {site}")
    start = 0
    for element, number in counts.items():
        labels[chosen[start : start + number]] = element
        start += number
    labels[chosen[start:]] = host


@dataclass(frozen=True)
class Garnet(Crystal):
    """Cubic LLZO, doped; contents per formula unit."""

    dopants: dict[str, float] = field(default_factory=dict)

    @classmethod
    def llzo(
        cls, *, ta: float = 0.0, nb: float = 0.0, al: float = 0.0, ga: float = 0.0,
        lattice_constant: float = cells.LLZO_LATTICE_CONSTANT,
    ) -> Garnet:  # fmt: skip
        """Li(7-ta-nb-3al-3ga) Al Ga La3 Zr(2-ta-nb) Ta Nb O12 as in `cells.llzo`."""
        framework, tetrahedral, octahedral = cells.garnet_sites(lattice_constant, primitive=True)
        labels = tuple("B" if s == "Zr" else s for s in framework.get_chemical_symbols())
        return cls(
            name="LLZO",
            lattice=framework.cell.array,
            labels=labels,
            points=np.vstack([framework.positions, tetrahedral, octahedral]),
            mobile_kind=(TETRAHEDRAL,) * len(tetrahedral) + (OCTAHEDRAL,) * len(octahedral),
            formula={"La": 3, "B": 2, "O": 12},
            # Oxygen takes up the charge of the Li not yet there.
            model_charge={"La": 3.0, "B": 4.0, "O": -17 / 12},
            merge_distance={"La": 2.6, "B": 2.6, "O": 1.75},
            elements={"B": "Zr"},
            dopants={"Ta": ta, "Nb": nb, "Al": al, "Ga": ga},
        )

    def decorate(
        self, labels: NDArray[np.object_], positions: Floats, cell: Floats, mobile: Floats, mobile_kind: Ints,
        planes: tuple[float, float], rng: np.random.Generator,
    ) -> Atoms:  # fmt: skip
        """Dopants on random sites of their kind, Li on 24d, 96h and voids at minimal repulsion."""
        symbols = labels.copy()
        units = int(np.sum(symbols == "B")) // self.formula["B"]
        on_zr = _counts(self.name, {s: self.dopants.get(s, 0.0) for s in ("Ta", "Nb")}, units, 2)
        on_li = _counts(self.name, {s: self.dopants.get(s, 0.0) for s in ("Al", "Ga")}, units, 3)
        _draw(symbols, "B", "Zr", on_zr, rng)
        trivalent = sum(on_li.values())
        charge = sum(VALENCE[s] for s in symbols) + 3 * trivalent
        lithium = -charge
        if lithium < 0:
            raise CompositionError(
                f"LLZO with {self.dopants}: charge balance leaves {lithium / units:.3g} Li per formula unit; "
                "lower the contents so that ta + nb + 3 al + 3 ga <= 7"
            )
        names = [str(s) for s in symbols]
        positions = self.settle(names, positions, cell, np.ones(len(names), dtype=bool))
        sites, kinds = _li_sites(names, positions, cell, mobile, mobile_kind, planes)
        framework = Atoms(names, positions=positions, cell=cell, pbc=True)
        potential, repulsion = framework_energy(framework, sites, {"Ta": 1.0, "Nb": 1.0}, CONTACT)
        repulsion = np.minimum(repulsion, 8.0)
        charges = {"Li": 1.0, "Al": 3.0, "Ga": 3.0}
        favour = cells.TETRAHEDRAL_PREFERENCE * (kinds == TETRAHEDRAL)
        filled = place_apart(
            sites, cell, {"Li": lithium, **on_li}, charges, rng,
            allowed={"Al": kinds == TETRAHEDRAL, "Ga": kinds == TETRAHEDRAL},
            site_energy={s: charges[s] * potential + repulsion - favour for s in charges},
            coldest=cells.DISORDER, distance=1.9, attempts=3 if len(sites) < 2000 else 1,
        )  # fmt: skip
        taken = [k for k, s in enumerate(filled.species) if s]
        names += [filled.species[k] for k in taken]
        positions = np.vstack([positions, sites[taken]])
        positions = self.settle(names, positions, cell, np.ones(len(names), dtype=bool))
        atoms = sorted_atoms(names, positions, cell, SPECIES_ORDER)
        contents = {f"{s.lower()}_per_formula_unit": n / units for s, n in {**on_zr, **on_li}.items()}
        atoms.info.update(formula_units=units, li_per_formula_unit=lithium / units, **contents)
        return atoms


def _li_sites(
    symbols: list[str],
    positions: Floats,
    cell: Floats,
    mobile: Floats,
    kinds: Ints,
    planes: tuple[float, float],
) -> tuple[Floats, Ints]:
    """Crystal sites that the framework leaves free, and voids near the boundaries with at least 3 O around them."""
    names = np.array(symbols, dtype=object)
    oxygen, cations = positions[names == "O"], positions[names != "O"]

    def clear(points: Floats) -> tuple[NDArray[np.bool_], Ints]:
        closest, coordination = _around(points, oxygen, cell, 2.6)
        to_cation, _ = _around(points, cations, cell, 3.0)
        return (closest > 1.6) & (to_cation > 2.25), coordination

    free, _ = clear(mobile)
    sites, kinds = mobile[free], kinds[free]
    height = float(cell[2, 2])
    numbers = np.maximum(1, np.ceil(np.linalg.norm(cell, axis=1) / 0.7)).astype(int)
    grid = np.array(np.meshgrid(*[np.arange(n) / n for n in numbers], indexing="ij")).reshape(3, -1).T
    offset = np.min(
        [np.abs((h := grid[:, 2] * height - p) - height * np.rint(h / height)) for p in planes], axis=0
    )
    voids = grid[offset < 3.0] @ cell
    free, coordination = clear(voids)
    closest, _ = _around(voids, sites, cell, 3.0)
    voids = voids[free & (coordination >= 3) & (closest > 0.9)]
    return np.vstack([sites, voids]), np.concatenate([kinds, np.full(len(voids), VOID)])


def _around(points: Floats, others: Floats, cell: Floats, reach: float) -> tuple[Floats, Ints]:
    """Distance of the nearest of `others` (inf beyond reach) and their number within reach, periodic."""
    i, _, d = cross_neighbours(points, others, cell, reach)
    closest = np.full(len(points), np.inf)
    np.minimum.at(closest, i, d)
    return closest, np.bincount(i, minlength=len(points)).astype(np.int64)


@dataclass(frozen=True)
class Perovskite(Crystal):
    """LSTZ or LLTO: A sites with a large cation, Li and vacancies, B sites, O; A-site order zero."""

    heavy: str = "Sr"
    heavy_content: float = 0.4375
    b_site: dict[str, float] = field(default_factory=dict)
    off_centre: float = 0.5

    @classmethod
    def _make(
        cls,
        name: str,
        lattice_constant: float,
        heavy: str,
        content: float,
        b_site: dict[str, float],
        off_centre: float,
    ) -> Perovskite:
        a, b, oxygen, cell = cells.perovskite_sites(lattice_constant, (1, 1, 1))
        b_charge = sum(VALENCE[s] * x for s, x in b_site.items())
        common = max(b_site, key=lambda s: b_site[s])
        return cls(
            name=name,
            lattice=cell,
            labels=("A", "B", "O", "O", "O"),
            points=np.vstack([a, b, oxygen]),
            mobile_kind=(),
            formula={"A": 1, "B": 1, "O": 3},
            model_charge={"A": 6.0 - b_charge, "B": b_charge, "O": -2.0},
            merge_distance={"A": 2.6, "B": 2.6, "O": 1.75},
            elements={"A": heavy, "B": common},
            heavy=heavy,
            heavy_content=content,
            b_site=b_site,
            off_centre=off_centre,
        )

    @classmethod
    def lstz(
        cls, *, ta: float = 0.75, lattice_constant: float = cells.PEROVSKITE_LATTICE_CONSTANT["LSTZ"],
        off_centre: float = 0.5,
    ) -> Perovskite:  # fmt: skip
        """Li(0.5y) Sr(1-0.75y) Ta(y) Zr(1-y) O3, y = `ta`."""
        if not (0 < ta <= 1):
            raise InputError("ta", ta, "above 0, at most 1")
        return cls._make("LSTZ", lattice_constant, "Sr", 1 - 0.75 * ta, {"Ta": ta, "Zr": 1 - ta}, off_centre)

    @classmethod
    def llto(
        cls, *, x: float = 0.11, lattice_constant: float = cells.PEROVSKITE_LATTICE_CONSTANT["LLTO"],
        off_centre: float = 0.5,
    ) -> Perovskite:  # fmt: skip
        """Li(3x) La(2/3-x) TiO3."""
        if not (0 <= x <= 2 / 3):
            raise InputError("x", x, "0 to 2/3; phases are known for 0 < x < 0.16")
        return cls._make("LLTO", lattice_constant, "La", 2 / 3 - x, {"Ti": 1.0}, off_centre)

    def decorate(
        self, labels: NDArray[np.object_], positions: Floats, cell: Floats, mobile: Floats, mobile_kind: Ints,
        planes: tuple[float, float], rng: np.random.Generator,
    ) -> Atoms:  # fmt: skip
        """The large cation on random A sites, B cations at random, Li on free A sites at minimal repulsion."""
        symbols = labels.copy()
        units = int(np.sum(symbols == "B"))
        names = [self.elements.get(str(s), str(s)) for s in symbols]
        positions = self.settle(names, positions, cell, np.ones(len(names), dtype=bool))
        host, *minor = sorted(self.b_site, key=lambda s: -self.b_site[s])
        _draw(symbols, "B", host, {s: round(self.b_site[s] * units) for s in minor}, rng)
        heavy = round(self.heavy_content * units)
        a_sites = np.flatnonzero(symbols == "A")
        chosen = rng.choice(a_sites, heavy, replace=False)
        symbols[chosen] = self.heavy
        free = np.flatnonzero(symbols == "A")
        lithium = -sum(VALENCE[str(s)] for s in symbols if s != "A")
        if lithium < 0 or lithium > len(free):
            raise CompositionError(
                f"{self.name}: {lithium} Li for {len(free)} free A sites in {units} formula units"
            )
        keep = symbols != "A"
        framework = Atoms([str(s) for s in symbols[keep]], positions=positions[keep], cell=cell, pbc=True)
        excess = {self.heavy: float(VALENCE[self.heavy]), "Ta": 1.0, "Nb": 1.0}
        potential, _ = framework_energy(framework, positions[free], excess, {})
        filled = place_apart(
            positions[free], cell, {"Li": lithium}, {"Li": 1.0}, rng,
            site_energy={"Li": potential}, attempts=1,
        )  # fmt: skip
        taken = np.array([k for k, s in enumerate(filled.species) if s], dtype=int)
        direction = rng.normal(size=(len(taken), 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        li_positions = positions[free[taken]] + self.off_centre * direction
        names = ["Li"] * len(taken) + [str(s) for s in symbols[keep]]
        everything = np.vstack([li_positions, positions[keep]])
        everything = self.settle(names, everything, cell, np.ones(len(names), dtype=bool))
        atoms = sorted_atoms(names, everything, cell, SPECIES_ORDER)
        atoms.info.update(
            formula_units=units,
            li_per_formula_unit=lithium / units,
            **{f"{self.heavy.lower()}_per_formula_unit": heavy / units},
            **{f"{s.lower()}_per_formula_unit": int(np.sum(symbols == s)) / units for s in self.b_site},
        )
        return atoms


CRYSTALS = {"LLZO": Garnet.llzo, "LSTZ": Perovskite.lstz, "LLTO": Perovskite.llto}
"""Crystals by material, each a function of its contents and lattice constant."""
