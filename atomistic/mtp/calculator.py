"""A moment tensor potential as an ASE calculator, on the numba kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import Evaluator
from atomistic.mtp.potential import MTPotential, read_mtp


class MTPCalculator(Calculator):
    """`atoms.calc = MTPCalculator("llzo.mtp")`.

    potential: an MTPotential or the path of a `.mtp` file; species: needed for a file that names none;
    core: optional repulsive core; skin: angstrom added to the neighbour list's radius.
    Results: energy and free_energy (eV), energies (eV per atom), forces (eV/angstrom), and for three periodic
    directions stress (eV/angstrom^3, Voigt order xx yy zz yz xz xy). Raises the kernel's SpeciesError, GeometryError.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        potential: MTPotential | str | Path,
        *,
        species: Sequence[str] | None = None,
        core: RepulsiveCore | None = None,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if isinstance(potential, MTPotential):
            self.potential = potential if species is None else potential.with_species(species)
        else:
            self.potential = read_mtp(potential, species)
        self.evaluator = Evaluator(self.potential, skin=skin, core=core)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`; one evaluation gives every property."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        structure: Any = self.atoms
        types = self.potential.types_of(structure.get_chemical_symbols())
        found = self.evaluator.evaluate(structure.positions, types, structure.cell.array, structure.pbc)
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "energies": found.energies,
            "forces": found.forces,
        }
        if np.all(structure.pbc):
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virial / structure.get_volume())
