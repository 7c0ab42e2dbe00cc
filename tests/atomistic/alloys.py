"""Structures and a potential that tests of molecular dynamics run, and what they need of a machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk

DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"
SPECIES = ("Li", "Zr", "O")
COMPILER = any(shutil.which(name) for name in ("g++", "c++", "clang++"))
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler on this machine")
ENGINES = [pytest.param("plugin", marks=needs_compiler), "numba"]


def alloy(repeat: int = 2, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("Al", a=3.9, cubic=True).repeat((repeat, repeat, repeat))
    atoms.numbers[rng.choice(len(atoms), len(atoms) // 3, replace=False)] = 29
    atoms.rattle(0.05, seed=seed)
    return atoms


def random_structure(cell: npt.NDArray[np.float64], n: int, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=cell, pbc=True)
    while len(atoms) < n:
        trial = atoms + Atoms("H", positions=[rng.uniform(size=3) @ cell])
        if len(trial) == 1 or trial.get_distances(-1, range(len(trial) - 1), mic=True).min() > 1.5:
            atoms = trial
    atoms.set_chemical_symbols(rng.choice(SPECIES, n))
    return atoms


CELLS = {
    "cubic": (np.eye(3) * 10.5, 50),
    "triclinic": (np.array([[9.0, 0.0, 0.0], [3.0, 8.0, 0.0], [-2.0, 4.0, 10.0]]), 30),
    "turned": (np.array([[6.0, 1.0, 0.5], [-2.0, 6.0, 1.0], [5.0, -1.0, 7.0]]), 12),
    "smaller than the cutoff": (np.array([[3.4, 0.0, 0.0], [1.0, 3.1, 0.0], [0.4, 0.6, 3.9]]), 2),
}
