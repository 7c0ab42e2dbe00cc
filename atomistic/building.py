"""The cell of a campaign: built or read, boundaries searched, composition and charge reported, drawn."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atomistic.errors import CompositionError, FileFormatError, GeometryError, InputError
from atomistic.labels import read_frames, write_bytes
from atomistic.sampling import CampaignSettings, CellSettings

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

    from atomistic.boundaries import Candidate
    from atomistic.crystals import Crystal
    from atomistic.mtp.core import RepulsiveCore
    from atomistic.mtp.potential import MTPotential


def crystal_of(cell: CellSettings) -> Crystal:
    """The crystal a boundary cell is made of. Raises InputError for contents its maker does not know."""
    from atomistic.crystals import Garnet, Perovskite

    makers: dict[str, Callable[..., Crystal]] = {
        "llzo": Garnet.llzo,
        "lstz": Perovskite.lstz,
        "llto": Perovskite.llto,
    }
    maker = makers[cell.host]
    check_contents(maker, cell.contents)
    return maker(**cell.contents)


def check_contents(builder: Callable[..., Any], contents: dict[str, float]) -> None:
    """Raises InputError naming the first key of `contents` that is no number the builder takes."""
    known = [name for name, p in signature(builder).parameters.items() if isinstance(p.default, float)]
    for key, value in contents.items():
        if key not in known:
            raise InputError(
                f"cell.contents.{key}", value, f"there is no such key; known are {', '.join(known)}"
            )


def bulk_cell(
    kind: str, contents: dict[str, float], repeat: tuple[int, int, int] | None, rng: np.random.Generator
) -> Atoms:
    """A bulk cell of `atomistic.cells`. Raises InputError for contents its builder does not know."""
    from atomistic import cells

    extra: dict[str, Any] = {} if repeat is None else {"repeat": repeat}
    builder: Callable[..., Atoms] = getattr(cells, kind)
    check_contents(builder, contents)
    return builder(**contents, **extra, rng=rng)


def build_cell(cell: CellSettings, seed: int, base: Path, candidate: Candidate | None = None) -> Atoms:
    """The cell of one seed. base: folder that paths in the settings start from; candidate: of a boundary.

    Raises InputError, FileFormatError, CompositionError or CoincidenceError.
    """
    rng = np.random.default_rng([seed, 1])
    if cell.kind == "file":
        path = base / str(cell.path).replace("{seed}", str(seed))
        atoms = read_frames(path)[-1]
        if atoms.cell.rank < 3:
            raise FileFormatError(path, None, "has no cell of three vectors", "give a periodic structure")
        atoms.calc = None
        _check_size(cell, len(atoms))
        return atoms.repeat(cell.repeat) if cell.repeat else atoms
    if cell.kind == "cif":
        from atomistic.disorder import cell_from_cif, read_cif

        path = base / str(cell.path)
        _check_size(cell, math.floor(sum(read_cif(path).formula.values())))
        return cell_from_cif(path, rng=rng, repeat=cell.repeat or (1, 1, 1))
    if cell.kind == "boundary":
        from atomistic.boundaries import build

        return build(
            crystal_of(cell),
            str(cell.boundary),
            rng=rng,
            candidate=candidate,
            min_separation=cell.min_separation,
            min_width=cell.min_width,
            max_atoms=cell.max_atoms,
            max_area=cell.search.max_area,
            max_strain=cell.search.max_strain,
        )
    _check_size(cell, _LEAST_ATOMS[cell.kind])
    atoms = bulk_cell(cell.kind, cell.contents, cell.repeat, rng)
    _check_size(cell, len(atoms), repeated=True)
    return atoms


_LEAST_ATOMS = {"llzo": 56, "lstz": 4, "llto": 4}
"""Of the framework in the smallest cell that `repeat` multiplies (LLZO: the primitive one), without Li, La and Sr."""


def _check_size(cell: CellSettings, atoms: int, *, repeated: bool = False) -> None:
    """Raises InputError before the work is done where so many atoms, times the repeats, exceed `max_atoms`."""
    total = atoms if repeated else atoms * math.prod(cell.repeat or (1, 1, 1))
    if total > cell.max_atoms:
        raise InputError(
            "cell.repeat", cell.repeat, f"{total} atoms or more exceed max_atoms = {cell.max_atoms}"
        )


def search_boundary(
    cell: CellSettings,
    folder: Path,
    potential: MTPotential | None,
    core: RepulsiveCore | None = None,
    *,
    seed: int,
    show: bool | None = None,
) -> list[tuple[Candidate, dict[str, float | None]]]:
    """Candidates of a boundary, best first, with their energies; kept in folder/search.json.

    The cheap search keeps `search.keep`; with a potential the best `search.relax` of them are built, relaxed and
    ranked by the energy of the boundary (J/m²). Candidates all of whose arrangements fall apart are left out; raises
    GeometryError where none is left.
    """
    from atomistic.boundaries import search
    from atomistic.progress import track

    path = folder / "search.json"
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [(_candidate(row["candidate"]), row["energies"]) for row in rows]
    crystal, options = crystal_of(cell), cell.search
    found = search(
        crystal,
        str(cell.boundary),
        terminations=options.terminations,
        max_shifts=options.max_shifts,
        gaps=options.gaps,
        keep=max(options.keep, options.relax),
        max_area=options.max_area,
        max_strain=options.max_strain,
    )
    ranked: list[tuple[Candidate, dict[str, float | None]]] = []
    relaxed = found[: options.relax] if potential is not None else []
    if relaxed and potential is not None:
        reference = BulkReference(cell, potential, core, seed=seed, fmax=options.fmax)
        fallen: GeometryError | None = None
        for candidate in track(relaxed, "boundary energies", show=show):
            energies = []
            for trial in range(options.arrangements):
                # Random arrangements may collapse downhill where the potential has no core; others stand in.
                try:
                    energies.append(
                        reference.boundary_energy(build_cell(cell, seed + trial, Path(), candidate))
                    )
                except GeometryError as error:
                    fallen = error
            if not energies:
                continue
            best = min(energies, key=lambda e: e[0])
            ranked.append(
                (
                    candidate,
                    {
                        "boundary_energy_J_per_m2": best[0],
                        "standard_uncertainty_J_per_m2": best[1],
                        "model_energy_J_per_m2": candidate.energy,
                    },
                )
            )
        if not ranked and fallen is not None:
            raise fallen
        ranked.sort(key=lambda pair: pair[1]["boundary_energy_J_per_m2"] or 0.0)
    for candidate in found[len(relaxed) :]:
        ranked.append((candidate, {"model_energy_J_per_m2": candidate.energy}))
    rows = [{"candidate": asdict(c), "energies": e} for c, e in ranked]
    write_bytes(path, json.dumps(rows, indent=1).encode())
    return ranked


def _candidate(values: dict[str, Any]) -> Candidate:
    from atomistic.boundaries import Candidate

    for name in ("shift", "closing", "removed"):
        values[name] = tuple(values[name])
    return Candidate(**values)


_VARIED: dict[str, tuple[dict[str, float], tuple[int, ...]]] = {
    "lstz": ({"ta": 0.75}, (-3, -2, -1, 1, 2, 3)),
    "llto": ({"x": 0.11}, (-3, -2, -1, 1, 2, 3)),
}
"""Content that sets the A sites of a host, at its default, and the steps of bulk cells, in atoms."""


class BulkReference:
    """Energy of the bulk at any composition near that of a boundary cell, from relaxed bulk cells.

    A boundary cell rarely has the composition of a bulk cell to the atom. Bulk cells are built at the contents wanted
    and at some dopant atoms more and fewer; the energy is taken linear in the numbers of atoms between them, which a
    least-squares fit gives, and its scatter is the uncertainty. In a perovskite the content sets the A sites as well,
    and only the rounding of several steps parts the two: three atoms more and fewer.
    """

    def __init__(
        self,
        cell: CellSettings,
        potential: MTPotential,
        core: RepulsiveCore | None = None,
        *,
        seed: int = 1,
        arrangements: int = 3,
        fmax: float = 0.1,
    ) -> None:
        self.potential, self.core, self.fmax = potential, core, fmax
        rng = np.random.default_rng([seed, 2])
        repeat = (1, 1, 1) if cell.host == "llzo" else (4, 4, 4)
        units = 8 if cell.host == "llzo" else 64
        contents = [cell.contents] * arrangements
        varied, steps = _VARIED.get(cell.host, ({}, (-1, 1)))
        middle = varied | cell.contents
        for name in sorted(set(middle) - {"lattice_constant", "off_centre", "order"}):
            for step in steps:
                changed = middle[name] + step / units
                if changed >= 0:
                    contents.append({**cell.contents, name: changed})
        rows, energies = [], []
        self.species = list(potential.species)
        for wanted in contents:
            try:
                atoms = bulk_cell(cell.host, wanted, repeat, rng)
            except (InputError, CompositionError):
                # One dopant more may be beyond what the crystal takes.
                continue
            rows.append(self._counts(atoms))
            energies.append(self._relaxed(atoms)[0])
        self.rows, self.energies = np.array(rows), np.array(energies)
        self.fit, _, self.rank, _ = np.linalg.lstsq(self.rows, self.energies, rcond=1e-9)
        residual = self.energies - self.rows @ self.fit
        free = max(len(rows) - int(self.rank), 1)
        self.scatter_per_atom = float(np.sqrt(np.sum(residual**2) / free)) / float(self.rows[0].sum())

    def _counts(self, atoms: Atoms) -> list[float]:
        counts = Counter(atoms.get_chemical_symbols())
        return [float(counts.get(s, 0)) for s in self.species]

    def _relaxed(self, atoms: Atoms) -> tuple[float, Atoms]:
        from atomistic.boundaries import relaxed_energy
        from atomistic.mtp.calculator import MTPCalculator

        calculator = MTPCalculator(self.potential, core=self.core)
        return relaxed_energy(atoms, calculator, fmax=self.fmax, steps=400)

    def boundary_energy(self, atoms: Atoms) -> tuple[float, float]:
        """Energy per area (J/m²) of a boundary cell's two boundaries after relaxation, and its standard uncertainty.

        Raises CompositionError where the bulk cells do not span its composition.
        """
        counts = np.array(self._counts(atoms))
        outside = counts - np.linalg.pinv(self.rows) @ (self.rows @ counts)
        if np.abs(outside).max() > 0.51:
            raise CompositionError(
                f"{atoms.get_chemical_formula()}: bulk cells of this host do not reach the composition; "
                "state its contents in cell.contents"
            )
        energy, _ = self._relaxed(atoms)
        to_si = 1.602176634e-19 * 1e20 / (2 * float(atoms.info["boundary_area"]))
        scatter = self.scatter_per_atom * np.sqrt(float(self.rows[0].sum()) * len(atoms))
        return float((energy - counts @ self.fit) * to_si), float(scatter * to_si)


def cell_report(atoms: Atoms) -> dict[str, Any]:
    """Composition, formal charge, density (kg/m³), shortest distance (Å) and what the builder noted of a cell."""
    from ase.data import atomic_masses
    from scipy.spatial import cKDTree

    from atomistic.cells import total_charge

    try:
        charge: int | None = total_charge(atoms)
    except CompositionError:
        charge = None
    counts = Counter(atoms.get_chemical_symbols())
    mass = float(atomic_masses[atoms.get_atomic_numbers()].sum()) * 1.66053907e-27
    images = atoms.repeat((3, 3, 3))
    centre = images.positions[13 * len(atoms) : 14 * len(atoms)]
    distance = cKDTree(images.positions).query(centre, k=2)[0][:, 1]
    noted = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in atoms.info.items()
        if isinstance(value, (str, bool, int, float, list, tuple, dict, np.ndarray))
    }
    return {
        "atoms": len(atoms),
        "species": dict(sorted(counts.items())),
        "formula": atoms.get_chemical_formula(),
        "charge_e": charge,
        "lengths_A": [float(x) for x in atoms.cell.lengths()],
        "angles_degrees": [float(x) for x in atoms.cell.angles()],
        "density_kg_per_m3": mass / (float(atoms.get_volume()) * 1e-30),
        "shortest_distance_A": float(distance.min()),
        "stoichiometry": _stoichiometry(atoms),
        "noted": noted,
    }


def _stoichiometry(atoms: Atoms) -> dict[str, float] | None:
    """Atoms per formula unit, where the builder noted their number."""
    units = atoms.info.get("formula_units")
    if not units:
        return None
    counts = Counter(atoms.get_chemical_symbols())
    return {s: n / float(units) for s, n in sorted(counts.items())}


def draw_cell(atoms: Atoms, axes: Sequence[Axes]) -> None:
    """Two side views of a cell on two axes, looking along its second and first vector; boundary planes dashed."""
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors

    wrapped = atoms.copy()
    wrapped.wrap()
    cell = wrapped.cell.array
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    height = float(cell[2] @ normal)
    fractions = atoms.info.get("boundary_fractions", [])
    symbols = np.array(wrapped.get_chemical_symbols())
    for ax, across, along in ((axes[0], 0, 1), (axes[1], 1, 0)):
        side = cell[across] / np.linalg.norm(cell[across])
        depth = np.cross(side, normal)
        # Far atoms first, so that near ones lie on top.
        order = np.argsort(wrapped.positions @ depth)[::-1]
        for symbol in sorted(set(symbols), key=lambda s: -covalent_radii[atomic_numbers[s]]):
            chosen = order[symbols[order] == symbol]
            colour = jmol_colors[atomic_numbers[symbol]]
            ax.scatter(
                wrapped.positions[chosen] @ normal,
                wrapped.positions[chosen] @ side,
                s=26 * covalent_radii[atomic_numbers[symbol]] ** 2,
                color=colour,
                edgecolors="0.25",
                linewidths=0.3,
                label=symbol,
            )
        for fraction in np.atleast_1d(fractions):
            ax.axvline(float(fraction) * height, color="tab:red", linestyle="--", linewidth=1.0)
        ax.set_aspect("equal")
        ax.set_xlabel("height / Å")
        ax.set_ylabel(f"along vector {across + 1} / Å")
        ax.set_title(f"seen along vector {along + 1}", fontsize=9)


def save_picture(atoms: Atoms, path: Path, title: str) -> None:
    """Draw a cell into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = atoms.cell.lengths()
    wide = 8.0
    tall = max(wide * float(lengths[k]) / float(lengths[2]) for k in (0, 1))
    figure = Figure(figsize=(wide + 1.2, min(2 * tall + 2.0, 14.0)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1)
    draw_cell(atoms, list(axes))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, markerscale=1.5)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)


def build_campaign(
    settings: CampaignSettings,
    folder: Path,
    base: Path,
    potential: MTPotential | None,
    core: RepulsiveCore | None = None,
    *,
    show: bool | None = None,
) -> dict[str, Any]:
    """Cells of all seeds in folder/cells, report and picture in folder/build; what is there already is kept.

    Returns the report, which build/results.json holds.
    """
    from atomistic.labels import frame_text

    build, places = folder / "build", folder / "cells"
    build.mkdir(parents=True, exist_ok=True)
    places.mkdir(exist_ok=True)
    if (build / "results.json").exists():
        held: dict[str, Any] = json.loads((build / "results.json").read_text(encoding="utf-8"))
        return held
    candidate, ranked = None, []
    if settings.cell.kind == "boundary":
        ranked = search_boundary(settings.cell, build, potential, core, seed=settings.seeds[0], show=show)
        candidate = ranked[0][0]
    report: dict[str, Any] = {"cells": {}}
    for seed in settings.seeds:
        used = seed if settings.cell.per_seed else settings.seeds[0]
        atoms = build_cell(settings.cell, used, base, candidate)
        if potential is not None:
            potential.types_of(atoms.get_chemical_symbols())
        write_bytes(places / f"seed{seed}.extxyz", frame_text(atoms).encode())
        report["cells"][str(seed)] = cell_report(atoms)
        if seed == settings.seeds[0]:
            name = str(atoms.info.get("boundary") or atoms.info.get("material") or settings.cell.kind)
            save_picture(atoms, build / "structure.png", f"{name}: {len(atoms)} atoms")
    if ranked:
        report["search"] = [{"candidate": asdict(c), "energies": e} for c, e in ranked]
    write_bytes(build / "results.json", (json.dumps(report, indent=1) + "\n").encode())
    return report
