"""Energies of defects at rest against their distance from a boundary, with any ASE calculator. Å and eV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomistic.boundary_planes import BoundaryPlanes
from atomistic.errors import AtomisticError, GeometryError, InputError, RunError
from atomistic.progress import track

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RegionEnergies:
    """Means over the sites near the boundary and in the bulk, eV.

    difference: boundary less bulk with its standard uncertainty from the scatter over sites (nan: one site in a
    region). lowest: the most favourable boundary site less the bulk mean.
    """

    boundary: float
    bulk: float
    difference: float
    standard_uncertainty: float
    lowest: float
    boundary_sites: int
    bulk_sites: int


@dataclass(frozen=True, eq=False)
class SiteEnergies:
    """Energy of a defect on every site tried.

    index: (sites,) atom whose place it takes. distance: (sites,) Å, signed, from the nearest plane. energy: (sites,)
    eV. converged: (sites,) whether the relaxation reached its force (True at rest). relaxed: whether atoms moved.
    """

    index: NDArray[np.int64]
    distance: Floats
    energy: Floats
    converged: NDArray[np.bool_]
    relaxed: bool

    def by_region(self, width: float, bulk_beyond: float) -> RegionEnergies:
        """Means within width/2 of the planes and beyond `bulk_beyond` Å. Raises InputError where a region is empty."""
        away = np.abs(self.distance)
        near, far = self.energy[away <= 0.5 * width], self.energy[away > bulk_beyond]
        if not len(near) or not len(far):
            raise InputError(
                "width",
                (width, bulk_beyond),
                f"{len(near)} sites are in the boundary, {len(far)} in the bulk",
            )
        variance = sum(float(e.var(ddof=1)) / len(e) if len(e) > 1 else math.nan for e in (near, far))
        bulk = float(far.mean())
        return RegionEnergies(
            float(near.mean()),
            bulk,
            float(near.mean()) - bulk,
            math.sqrt(variance),
            float(near.min()) - bulk,
            len(near),
            len(far),
        )


def _energy(atoms: Atoms, calculator: Any, fmax: float | None, steps: int) -> tuple[float, bool]:
    from ase.optimize import FIRE

    moved = atoms.copy()
    moved.calc = calculator
    try:
        done = True if fmax is None else bool(FIRE(moved, logfile=None).run(fmax=fmax, steps=steps))
        energy = float(moved.get_potential_energy())
    except AtomisticError:
        raise
    except Exception as error:
        raise RunError(f"the calculator failed on {atoms.get_chemical_formula()}: {error}") from error
    if not math.isfinite(energy):
        raise GeometryError("the calculator's energy is not finite; the structure has fallen apart")
    return energy, done


def _spread(distance: Floats, candidates: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """At most `limit` of the candidates, evenly over their order of distance from the planes."""
    order = candidates[np.argsort(np.abs(distance[candidates]), kind="stable")]
    if limit is None or len(order) <= limit:
        return order
    if limit < 2:
        raise InputError("max_sites", limit, "give at least 2 sites")
    return order[np.rint(np.linspace(0, len(order) - 1, limit)).astype(np.int64)]


def _checked(atoms: Atoms, fmax: float | None, steps: int, *symbols: str) -> None:
    for symbol in symbols:
        if symbol not in atoms.get_chemical_symbols():
            raise InputError("species", symbol, f"{atoms.get_chemical_formula()} holds none")
    if fmax is not None and not 0 < fmax < 100:
        raise InputError("fmax", fmax, "give eV/Å above zero, or None for atoms at rest")
    if steps < 1:
        raise InputError("steps", steps, "give at least one step")


def swap_energies(
    atoms: Atoms,
    calculator: Any,
    planes: BoundaryPlanes,
    *,
    solute: str,
    host: str,
    start: int | None = None,
    sites: Sequence[int] | None = None,
    max_sites: int | None = None,
    fmax: float | None = None,
    steps: int = 300,
) -> SiteEnergies:
    """Energy of a solute atom on the sites of `host` atoms, each reached by one swap, less that where it starts.

    start: index of the solute atom that is swapped (default: the one farthest from the planes); its own site is among
    the results with 0 eV. sites: indices of the hosts to try (default: all, or `max_sites` spread evenly over the
    distance). fmax: force [eV/Å] to which every structure is relaxed at fixed cell, None at rest. The segregation
    energy is `by_region(...).difference`. Raises InputError, GeometryError or RunError.
    """
    _checked(atoms, fmax, steps, solute, host)
    symbols = np.array(atoms.get_chemical_symbols())
    distance, _ = planes.distance(atoms.positions, atoms.cell.array)
    if start is None:
        solutes = np.flatnonzero(symbols == solute)
        start = int(solutes[np.argmax(np.abs(distance[solutes]))])
    if not 0 <= start < len(atoms) or symbols[start] != solute:
        raise InputError("start", start, f"the index of an atom of {solute}")
    chosen = _spread(distance, np.flatnonzero(symbols == host).astype(np.int64), max_sites)
    if sites is not None:
        chosen = np.array(list(sites), dtype=np.int64)
        if (
            not len(chosen)
            or np.any((chosen < 0) | (chosen >= len(atoms)))
            or np.any(symbols[chosen] != host)
        ):
            raise InputError("sites", tuple(sites), f"indices of atoms of {host}")
    reference, first = _energy(atoms, calculator, fmax, steps)
    energies, converged = [0.0], [first]
    for site in track(chosen, f"{solute}-{host} swaps"):
        swapped = atoms.copy()
        swapped.numbers[[start, int(site)]] = swapped.numbers[[int(site), start]]
        energy, done = _energy(swapped, calculator, fmax, steps)
        energies.append(energy - reference)
        converged.append(done)
    index = np.concatenate([[start], chosen]).astype(np.int64)
    return SiteEnergies(index, distance[index], np.array(energies), np.array(converged), fmax is not None)


def vacancy_formation_energies(
    atoms: Atoms,
    calculator: Any,
    planes: BoundaryPlanes,
    *,
    chemical_potential: float,
    species: str = "Li",
    sites: Sequence[int] | None = None,
    max_sites: int | None = None,
    fmax: float | None = None,
    steps: int = 300,
) -> SiteEnergies:
    """E_f = E(without the atom) + μ − E(with all atoms) [eV] for atoms of `species`, neutral cells.

    chemical_potential: μ [eV] of the atom removed, for Li the energy per atom of its metal by the same calculator; it
    drops out of differences between sites. sites, max_sites, fmax, steps: as for `swap_energies`.
    """
    _checked(atoms, fmax, steps, species)
    if not math.isfinite(chemical_potential):
        raise InputError("chemical_potential", chemical_potential, "give eV")
    symbols = np.array(atoms.get_chemical_symbols())
    distance, _ = planes.distance(atoms.positions, atoms.cell.array)
    chosen = _spread(distance, np.flatnonzero(symbols == species).astype(np.int64), max_sites)
    if sites is not None:
        chosen = np.array(list(sites), dtype=np.int64)
        if (
            not len(chosen)
            or np.any((chosen < 0) | (chosen >= len(atoms)))
            or np.any(symbols[chosen] != species)
        ):
            raise InputError("sites", tuple(sites), f"indices of atoms of {species}")
    complete = atoms.copy()
    reference, first = _energy(complete, calculator, fmax, steps)
    energies, converged = [], []
    for site in track(chosen, f"{species} vacancies"):
        vacant = atoms.copy()
        del vacant[int(site)]
        energy, done = _energy(vacant, calculator, fmax, steps)
        energies.append(energy + chemical_potential - reference)
        converged.append(done and first)
    return SiteEnergies(chosen, distance[chosen], np.array(energies), np.array(converged), fmax is not None)
