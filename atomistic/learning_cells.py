"""Structures for learning a potential: systems as settings, and the ways they are disturbed.

Every structure follows from the settings and a random generator alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic.errors import InputError
from atomistic.labels import normalised, read_frames, structure_hash, write_frames
from atomistic.mtp.jacobian import shortest_distance
from atomistic.mtp.potential import MTPotential

if TYPE_CHECKING:
    from ase import Atoms

BOLTZMANN_EV = 8.617333262e-5
HOSTS = ("llzo", "lstz", "llto")


class SystemSettings(BaseModel):
    """One [[systems]] table: a kind of cell, how it is varied, and the temperatures it is sampled at.

    kind: "llzo", "lstz", "llto" (bulk cells of `atomistic.cells`), "boundary" (of `host`, named as in
    `atomistic.boundaries`), "amorphous" (`formula`, `units`, `density` in kg/m^3) or "file" (`path`, all its frames).
    contents: arguments of the cell's builder such as {ta = [0, 0.25, 1]}; of a list one is drawn. scale: range of a
    factor on all lengths. strain: standard deviation of random strains. rattle: largest standard deviation of the
    displacements (angstrom) of the initial frames. remove: what may be taken out, such as ["Li2O", "La2O3"]; up to
    `remove_up_to` times one of these. exchange: species of random antisites in initial frames and of Monte Carlo swaps
    ([["Zr", "Ta"]]), `swap_attempts` per run. squeeze: share of short-distance frames among the candidates.
    initial_frames: before there is a potential. temperatures (K), runs: MD runs per temperature and round.
    on_policy: frames of each run labelled at random, where not as in [sampling].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)]
    kind: Literal["llzo", "lstz", "llto", "boundary", "amorphous", "file"]
    contents: dict[str, float | tuple[float, ...]] = {}
    host: Literal["llzo", "lstz", "llto"] = "llzo"
    boundary: str | None = None
    min_separation: Annotated[float, Field(ge=3.0, le=500.0)] = 9.0
    min_width: Annotated[float, Field(gt=0.0, le=100.0)] = 8.0
    primitive: bool = False
    repeat: tuple[int, int, int] = (1, 1, 1)
    formula: str | None = None
    units: Annotated[int, Field(ge=1, le=1000)] = 8
    density: Annotated[float, Field(gt=100.0, lt=30000.0)] = 4300.0
    path: str | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    strain: Annotated[float, Field(ge=0.0, le=0.2)] = 0.01
    rattle: Annotated[float, Field(ge=0.0, le=1.0)] = 0.12
    remove: tuple[str, ...] = ()
    remove_up_to: Annotated[int, Field(ge=1, le=100)] = 1
    exchange: tuple[tuple[str, str], ...] = ()
    swap_attempts: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    squeeze: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    initial_frames: Annotated[int, Field(ge=0, le=100_000)] = 0
    temperatures: tuple[Annotated[float, Field(gt=0.0, le=20000.0)], ...] = ()
    runs: Annotated[int, Field(ge=1, le=1000)] = 1
    on_policy: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SystemSettings:
        needed = {"boundary": "boundary", "amorphous": "formula", "file": "path"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"a system of kind {self.kind!r} needs {needed}")
        if not 0.5 <= self.scale[0] <= self.scale[1] <= 2.0:
            raise ValueError(f"scale {self.scale}: two factors between 0.5 and 2, the smaller first")
        return self

    def _drawn(self, rng: np.random.Generator) -> dict[str, float]:
        return {
            key: float(value) if isinstance(value, (int, float)) else float(rng.choice(np.array(value)))
            for key, value in self.contents.items()
        }

    def build(self, rng: np.random.Generator, cache: Path) -> Atoms:
        """A cell as it is before any disturbance; boundaries are searched once per content and kept in `cache`.

        Raises InputError for contents the builder does not know.
        """
        from atomistic import cells

        contents = self._drawn(rng)
        if self.kind == "file":
            frames = read_frames(Path(str(self.path)))
            return normalised(frames[int(rng.integers(len(frames)))])
        if self.kind == "amorphous":
            return cells.amorphous(str(self.formula), self.units, density=self.density, rng=rng)
        if self.kind == "boundary":
            return self._boundary(contents, rng, cache)
        extra: dict[str, Any] = {"repeat": self.repeat}
        if self.kind == "llzo":
            extra["primitive"] = self.primitive
        builder: Callable[..., Atoms] = getattr(cells, self.kind)
        try:
            return builder(**contents, **extra, rng=rng)
        except TypeError as error:
            raise InputError(f"systems.{self.name}.contents", contents, f"{error}") from None

    def _boundary(self, contents: dict[str, float], rng: np.random.Generator, cache: Path) -> Atoms:
        from atomistic.boundaries import build
        from atomistic.crystals import Garnet, Perovskite

        makers: dict[str, Callable[..., Any]] = {
            "llzo": Garnet.llzo,
            "lstz": Perovskite.lstz,
            "llto": Perovskite.llto,
        }
        label = "_".join([self.name, *(f"{k}{v:g}" for k, v in sorted(contents.items()))])
        path = cache / f"{label}.xyz"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            found = build(
                makers[self.host](**contents),
                str(self.boundary),
                rng=np.random.default_rng(int(rng.integers(2**31))),
                min_separation=self.min_separation,
                min_width=self.min_width,
            )
            write_frames(path, [normalised(found)])
        return read_frames(path)[0]


def formula_counts(formula: str) -> dict[str, int]:
    """Atoms of a formula such as "Li2O". Raises InputError for what is not one."""
    from ase.formula import Formula

    try:
        counts = Formula(formula).count()
    except ValueError:
        counts = {}
    if not counts:
        raise InputError("remove", formula, "a formula such as Li2O is expected")
    return {str(s): int(n) for s, n in counts.items()}


def without(atoms: Atoms, formula: str, times: int, rng: np.random.Generator) -> Atoms:
    """A copy lacking `times` formula units, atoms drawn at random; as many units as the cell holds."""
    counts = formula_counts(formula)
    symbols = np.array(atoms.get_chemical_symbols())
    times = min([times, *(int((symbols == s).sum()) // n for s, n in counts.items())])
    chosen: list[int] = []
    for symbol, n in counts.items():
        here = np.flatnonzero(symbols == symbol)
        chosen += rng.choice(here, n * times, replace=False).tolist()
    kept = np.setdiff1d(np.arange(len(atoms)), chosen)
    rest: Atoms = atoms[kept]
    return rest


def exchanged(atoms: Atoms, first: str, second: str, count: int, rng: np.random.Generator) -> Atoms:
    """A copy where `count` pairs of atoms of two species have changed places."""
    copy: Atoms = atoms.copy()
    symbols = np.array(copy.get_chemical_symbols())
    one, two = np.flatnonzero(symbols == first), np.flatnonzero(symbols == second)
    count = min(count, len(one), len(two))
    symbols[rng.choice(one, count, replace=False)] = second
    symbols[rng.choice(two, count, replace=False)] = first
    copy.set_chemical_symbols(symbols.tolist())
    return copy


def disturbed(atoms: Atoms, system: SystemSettings, rng: np.random.Generator, *, rattle: bool) -> Atoms:
    """Off-stoichiometry, antisites (initial frames only), scale, strain and, for initial frames, displacements."""
    copy = atoms.copy()
    if system.remove and rng.random() < 0.5:
        formula = system.remove[int(rng.integers(len(system.remove)))]
        copy = without(copy, formula, int(rng.integers(1, system.remove_up_to + 1)), rng)
    if rattle and system.exchange and rng.random() < 0.5:
        first, second = system.exchange[int(rng.integers(len(system.exchange)))]
        copy = exchanged(copy, first, second, int(rng.integers(1, 4)), rng)
    deformation = rng.uniform(*system.scale) * np.eye(3)
    random = rng.normal(0.0, system.strain, (3, 3))
    copy.set_cell(copy.cell.array @ (deformation + (random + random.T) / 2), scale_atoms=True)
    if rattle:
        copy.positions += rng.normal(0.0, system.rattle * rng.random(), copy.positions.shape)
    return normalised(copy, group=system.name)


def squeezed(atoms: Atoms, rng: np.random.Generator, shortest: float) -> Atoms | None:
    """A copy where one close pair is pushed together to 0.7-0.95 of its distance; None if that is below `shortest`."""
    from ase.neighborlist import primitive_neighbor_list

    i, j, d, vector = primitive_neighbor_list(
        "ijdD", atoms.pbc, atoms.cell.complete().array, atoms.get_positions(), 3.2
    )
    if len(i) == 0:
        return None
    # Each pair of species alike, or Li-O and O-O would be all there is.
    numbers = atoms.get_atomic_numbers()
    kinds = np.sort(np.column_stack([numbers[i], numbers[j]]), axis=1)
    drawn = np.unique(kinds, axis=0)
    kind = drawn[int(rng.integers(len(drawn)))]
    pair = int(rng.choice(np.flatnonzero((kinds == kind).all(axis=1))))
    factor = float(rng.uniform(0.7, 0.95))
    copy: Atoms = atoms.copy()
    copy.positions[i[pair]] += 0.5 * (1.0 - factor) * vector[pair]
    copy.positions[j[pair]] -= 0.5 * (1.0 - factor) * vector[pair]
    group = atoms.info.get("group", "all")
    if d[pair] * factor < shortest or shortest_distance(copy, 4.0) < shortest:
        return None
    return normalised(copy, group=group)


def swap_monte_carlo(
    atoms: Atoms,
    potential: MTPotential,
    pairs: tuple[tuple[str, str], ...],
    temperature: float,
    attempts: int,
    rng: np.random.Generator,
) -> tuple[Atoms, int]:
    """Metropolis exchanges of atoms of the given pairs of species at fixed positions; the structure and how many held.

    temperature: K. Pairs whose species the structure lacks are left out.
    """
    from atomistic.mtp.kernel import Evaluator

    copy: Atoms = atoms.copy()
    present = set(copy.get_chemical_symbols())
    usable = [p for p in pairs if p[0] in present and p[1] in present]
    if not usable or attempts == 0:
        return copy, 0
    evaluator = Evaluator(potential)
    types = np.array(potential.types_of(copy.get_chemical_symbols()))
    names = np.array(potential.species)

    def energy(t: Any) -> float:
        return float(evaluator.evaluate(copy.positions, t, copy.cell.array, copy.pbc).energy)

    current, accepted = energy(types), 0
    for _ in range(attempts):
        pair = usable[int(rng.integers(len(usable)))]
        one, two = (np.flatnonzero(names[types] == s) for s in pair)
        a, b = int(rng.choice(one)), int(rng.choice(two))
        trial = types.copy()
        trial[a], trial[b] = types[b], types[a]
        proposed = energy(trial)
        if proposed <= current or rng.random() < np.exp(-(proposed - current) / (BOLTZMANN_EV * temperature)):
            types, current, accepted = trial, proposed, accepted + 1
    copy.set_chemical_symbols(names[types].tolist())
    return copy, accepted


def unique_frames(frames: list[Atoms]) -> list[Atoms]:
    """The frames without repetitions, in order."""
    seen: dict[str, Atoms] = {}
    for frame in frames:
        seen.setdefault(structure_hash(frame), frame)
    return list(seen.values())
