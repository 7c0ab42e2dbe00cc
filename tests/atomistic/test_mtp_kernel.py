"""The numba kernel against motep, finite differences, supercells; neighbour lists; what it refuses."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from atomistic.errors import FileFormatError, GeometryError, InputError, SpeciesError
from atomistic.mtp.basis import untrained
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import Evaluator, evaluate
from atomistic.mtp.neighbours import build_list
from atomistic.mtp.potential import MTPotential, read_mtp

SPECIES = ("Li", "Zr", "O")
NUMBERS = [3, 40, 8]
DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"
CELLS = {
    "cubic": (np.eye(3) * 9.5, 40),
    "triclinic": (np.array([[9.0, 0.0, 0.0], [3.0, 8.0, 0.0], [-2.0, 4.0, 10.0]]), 30),
    "sheared": (np.array([[6.0, 1.0, 0.5], [-2.0, 6.0, 1.0], [5.0, -1.0, 7.0]]), 12),
    "smaller than the cutoff": (np.array([[3.4, 0.0, 0.0], [1.0, 3.1, 0.0], [0.4, 0.6, 3.9]]), 2),
}


def random_potential(level: int, seed: int = 0, size: int = 8) -> MTPotential:
    rng = np.random.default_rng(seed)
    potential = untrained(SPECIES, level, cutoff=5.0, min_distance=1.4, rng=rng, radial_basis_size=size)
    parameters = potential.parameters.copy()
    linear = potential.alpha_moment_mapping.size + len(SPECIES)
    parameters[:linear] = rng.normal(size=linear)
    return potential.with_parameters(parameters)


def random_structure(cell: npt.NDArray[np.float64], n: int, seed: int, pbc: object = True) -> Atoms:
    """Atoms at least 1.5 angstrom apart, some of them outside the cell."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=cell, pbc=pbc)
    while len(atoms) < n:
        trial = atoms + Atoms("H", positions=[rng.uniform(size=3) @ cell])
        if len(trial) == 1 or trial.get_distances(-1, range(len(trial) - 1), mic=True).min() > 1.5:
            atoms = trial
    atoms.set_chemical_symbols(rng.choice(SPECIES, n))
    atoms.positions += (rng.integers(-2, 3, (n, 3)) * np.asarray(atoms.pbc)) @ cell
    return atoms


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("pbc", [True, (True, True, False)])
@pytest.mark.parametrize(("level", "size"), [(2, 8), (8, 8), (8, 5), (12, 10), (16, 8)])
def test_energy_forces_and_stress_agree_with_motep(
    tmp_path: Path, cell: str, pbc: object, level: int, size: int
) -> None:
    calculator = pytest.importorskip("motep.calculator")
    logging.getLogger("motep").setLevel(logging.ERROR)
    potential = random_potential(level, size=size)
    potential.save(tmp_path / "p.mtp")
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    data = read_with_motep(tmp_path / "p.mtp")
    data.species = NUMBERS
    atoms = random_structure(*CELLS[cell], seed=level, pbc=pbc)
    found = evaluate(potential, atoms)
    atoms.calc = calculator.MTP(data)
    # Sums of large terms of either sign are exact to the size of the terms.
    size_of_terms = np.abs(found.energies).sum()
    assert abs(found.energy - atoms.get_potential_energy()) < 1e-12 * size_of_terms
    forces = atoms.get_forces()
    np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-12 * np.abs(forces).max())
    if pbc is True:
        stress = atoms.get_stress(voigt=False)
        got = -found.virial / atoms.get_volume()
        np.testing.assert_allclose(got, stress, rtol=0, atol=1e-12 * np.abs(stress).max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("with_core", [False, True])
def test_forces_and_virial_are_derivatives_of_the_energy(cell: str, with_core: bool) -> None:
    potential = random_potential(10, seed=3)
    core = (
        RepulsiveCore.of_pairs(SPECIES, {(a, b): (1.2, 2.6) for a in SPECIES for b in SPECIES})
        if with_core
        else None
    )
    atoms = random_structure(*CELLS[cell], seed=5)
    found = evaluate(potential, atoms, core)
    np.testing.assert_allclose(found.energies.sum(), found.energy, rtol=1e-12, atol=0)
    step = 1e-5

    def energy(move: npt.NDArray[np.float64], strain: npt.NDArray[np.float64]) -> float:
        changed = atoms.copy()
        changed.positions = (atoms.positions + move) @ (np.eye(3) + strain)
        changed.set_cell(atoms.cell.array @ (np.eye(3) + strain))
        return evaluate(potential, changed, core).energy

    def slope(move: npt.NDArray[np.float64], strain: npt.NDArray[np.float64]) -> float:
        return (energy(step * move, step * strain) - energy(-step * move, -step * strain)) / (2 * step)

    none = np.zeros((3, 3))
    rng = np.random.default_rng(1)
    for _ in range(6):
        move = rng.normal(size=atoms.positions.shape)
        expected = -float((found.forces * move).sum())
        assert slope(move, none) == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(found.forces).max())
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = 1.0
            scale = np.abs(found.virial).max()
            got = slope(np.zeros_like(atoms.positions), strain)
            assert got == pytest.approx(-found.virial[a, b], rel=1e-6, abs=1e-6 * scale)


def test_a_supercell_has_the_energies_of_its_cells() -> None:
    potential = random_potential(8)
    cell, n = CELLS["smaller than the cutoff"]
    small = random_structure(cell, n, seed=2)
    large = small.repeat((3, 2, 4))
    one, many = evaluate(potential, small), evaluate(potential, large)
    np.testing.assert_allclose(many.energies, np.tile(one.energies, 24), rtol=1e-11, atol=0)
    np.testing.assert_allclose(many.virial, 24 * one.virial, rtol=0, atol=1e-10 * np.abs(many.virial).max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("pbc", [True, (False, True, True), (False, False, True), False])
def test_neighbour_lists_agree_with_ase(cell: str, pbc: object) -> None:
    atoms = random_structure(*CELLS[cell], seed=8, pbc=pbc)
    potential = random_potential(2)
    evaluator = Evaluator(potential, skin=0.0)
    types = potential.types_of(atoms.get_chemical_symbols())
    neighbours, x = evaluator._neighbours(atoms.positions, types, atoms.cell.array, atoms.pbc)
    i = np.repeat(np.arange(len(atoms)), np.diff(neighbours.start))
    distances = np.linalg.norm(x[neighbours.neighbours] - x[i], axis=1)
    first, expected = neighbor_list("id", atoms, 5.0)
    for atom in range(len(atoms)):
        np.testing.assert_allclose(
            np.sort(distances[i == atom]), np.sort(expected[first == atom]), rtol=0, atol=1e-12
        )


def test_the_kept_list_gives_the_same_as_a_new_one() -> None:
    """Moves, lattice translations and changes of the cell, with rebuilds only where they are needed."""
    potential = random_potential(8)
    atoms = random_structure(*CELLS["triclinic"], seed=4)
    types = potential.types_of(atoms.get_chemical_symbols())
    kept = Evaluator(potential, skin=1.0)
    rng = np.random.default_rng(0)
    for step in range(40):
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        if step % 4 == 0:
            atoms.positions += rng.integers(-1, 2, atoms.positions.shape) @ atoms.cell.array
        if step % 5 == 0:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 2e-3, (3, 3))), scale_atoms=True)
        found = kept.evaluate(atoms.positions, types, atoms.cell.array)
        fresh = evaluate(potential, atoms)
        np.testing.assert_allclose(
            found.forces, fresh.forces, rtol=0, atol=1e-11 * np.abs(fresh.forces).max()
        )
    assert 1 < kept.builds < 20


def test_a_strain_of_the_cell_alone_makes_the_list_invalid() -> None:
    potential = random_potential(2)
    atoms = random_structure(*CELLS["cubic"], seed=4)
    types = potential.types_of(atoms.get_chemical_symbols())
    kept = Evaluator(potential, skin=0.5)
    kept.evaluate(atoms.positions, types, atoms.cell.array)
    atoms.set_cell(0.85 * atoms.cell.array, scale_atoms=True)
    found = kept.evaluate(atoms.positions, types, atoms.cell.array)
    assert kept.builds == 2
    np.testing.assert_allclose(found.energies, evaluate(potential, atoms).energies, rtol=1e-12, atol=1e-12)


def test_types_may_change_between_calls() -> None:
    potential = random_potential(8)
    atoms = random_structure(*CELLS["cubic"], seed=4)
    kept = Evaluator(potential)
    types = potential.types_of(atoms.get_chemical_symbols())
    kept.evaluate(atoms.positions, types, atoms.cell.array)
    swapped = np.roll(types, 1)
    found = kept.evaluate(atoms.positions, swapped, atoms.cell.array)
    again = Evaluator(potential).evaluate(atoms.positions, swapped, atoms.cell.array)
    assert found.energy == pytest.approx(again.energy, rel=1e-13)


def test_site_derivatives_are_derivatives_of_the_site_energies() -> None:
    potential = random_potential(8)
    atoms = random_structure(*CELLS["triclinic"], seed=6)
    types = potential.types_of(atoms.get_chemical_symbols())
    derivatives = Evaluator(potential).site_derivatives(atoms.positions, types, atoms.cell.array)
    base = potential.parameters
    n_scalars, n_species = potential.alpha_moment_mapping.size, potential.species_count
    per_centre = potential.radial_coefficients[0].size
    rng = np.random.default_rng(2)
    for q in rng.choice(base.size, 25, replace=False):
        step = 1e-4
        up, down = base.copy(), base.copy()
        up[q] += step
        down[q] -= step
        energies = [evaluate(potential.with_parameters(p), atoms).energies for p in (up, down)]
        slope = (energies[0] - energies[1]) / (2 * step)
        if q < n_scalars:
            expected = derivatives[:, q]
        elif q < n_scalars + n_species:
            expected = (types == q - n_scalars).astype(float)
        else:
            centre, column = divmod(q - n_scalars - n_species, per_centre)
            expected = np.where(types == centre, derivatives[:, n_scalars + column], 0.0)
        np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


def test_two_atoms_at_one_place_are_named() -> None:
    atoms = random_structure(*CELLS["cubic"], seed=1)
    atoms.positions[7] = atoms.positions[21] + atoms.cell.array[0]
    with pytest.raises(GeometryError, match=r"atoms 7 and 21 .* angstrom apart"):
        evaluate(random_potential(8), atoms)


def test_what_cannot_be_evaluated_is_refused() -> None:
    potential = random_potential(2)
    with pytest.raises(SpeciesError, match="does not know Au"):
        evaluate(potential, bulk("Au"))
    with pytest.raises(GeometryError, match="no atoms"):
        evaluate(potential, Atoms(cell=np.eye(3), pbc=True))
    with pytest.raises(GeometryError, match="not finite"):
        evaluate(potential, Atoms("O", positions=[[np.nan, 0, 0]], cell=np.eye(3) * 9, pbc=True))
    with pytest.raises(GeometryError, match="no length"):
        evaluate(potential, Atoms("O", pbc=True))
    with pytest.raises(GeometryError, match="flat"):
        evaluate(potential, Atoms("O", cell=[[5, 0, 0], [5, 1e-9, 0], [0, 0, 5]], pbc=True))
    with pytest.raises(GeometryError, match="too thin"):
        evaluate(potential, Atoms("O", cell=[1e-3, 1e-3, 1e-3], pbc=True))
    with pytest.raises(SpeciesError, match="types from 0"):
        Evaluator(potential).evaluate(np.zeros((1, 3)), [3], np.eye(3) * 9)
    with pytest.raises(InputError, match="skin"):
        Evaluator(potential, skin=-1.0)


def test_isolated_atoms_have_the_species_energies() -> None:
    potential = random_potential(8)
    atoms = Atoms("LiZrO", positions=[[0, 0, 0], [20, 0, 0], [0, 20, 0]])
    np.testing.assert_allclose(
        evaluate(potential, atoms).energies, potential.species_coefficients, rtol=1e-14, atol=0
    )


def test_no_distance_is_clamped() -> None:
    """Below min_distance the polynomials go on as they are: the force of a pair stays its energy's slope."""
    potential = random_potential(2)
    energies = []
    for r in (0.4, 0.4 - 1e-5, 0.4 + 1e-5):
        energies.append(evaluate(potential, Atoms("LiO", positions=[[0, 0, 0], [r, 0, 0]])))
    slope = (energies[2].energy - energies[1].energy) / 2e-5
    assert energies[0].forces[0, 0] == pytest.approx(slope, rel=1e-6)
    assert abs(slope) > 0.01


def test_core_is_the_screened_coulomb_law_inside_and_nothing_outside() -> None:
    potential = random_potential(2)
    core = RepulsiveCore.of_pairs(SPECIES, {("Zr", "O"): (0.8, 1.3)})

    def added(first: str, second: str, r: float) -> float:
        pair = Atoms([first, second], positions=[[0, 0, 0], [r, 0, 0]])
        return evaluate(potential, pair, core).energy - evaluate(potential, pair).energy

    a = 0.46850 / (40**0.23 + 8**0.23)
    x = 0.6 / a
    screen = 0.18175 * np.exp(-3.1998 * x) + 0.50986 * np.exp(-0.94229 * x)
    screen += 0.28022 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.20162 * x)
    assert added("Zr", "O", 0.6) == pytest.approx(40 * 8 * 14.39964548 / 0.6 * screen, rel=1e-10)
    assert added("O", "Zr", 0.6) == pytest.approx(added("Zr", "O", 0.6), rel=1e-12)
    assert added("Zr", "O", 1.3) == pytest.approx(0.0, abs=1e-12)
    assert added("Zr", "Zr", 0.6) == pytest.approx(0.0, abs=1e-12)


def test_core_files_read_back_and_damage_is_named(tmp_path: Path) -> None:
    core = RepulsiveCore.of_pairs(SPECIES, {("Li", "O"): (0.9, 1.4), ("Zr", "Zr"): (1.5, 2.2)})
    core.save(tmp_path / "c.core")
    again = RepulsiveCore.load(tmp_path / "c.core", SPECIES)
    np.testing.assert_array_equal(again.outer, core.outer)
    np.testing.assert_array_equal(again.inner, core.inner)
    for line in ("Li O 1.4 0.9", "Li Xe 0.9 1.4", "Li O 0.9", "Li O a b", "Li O nan 1"):
        (tmp_path / "bad.core").write_text(f"# pairs\n{line}\n")
        with pytest.raises(FileFormatError, match=r"bad\.core:2"):
            RepulsiveCore.load(tmp_path / "bad.core", SPECIES)


def test_calculator_in_ase(tmp_path: Path) -> None:
    from ase.md.verlet import VelocityVerlet
    from ase.units import fs

    atoms = bulk("Al", cubic=True).repeat((2, 2, 2))
    atoms.rattle(0.1, seed=3)
    atoms.calc = MTPCalculator(DATA)
    found = evaluate(read_mtp(DATA), atoms)
    assert atoms.get_potential_energy() == pytest.approx(found.energy, rel=1e-13)
    assert atoms.get_potential_energies().sum() == pytest.approx(found.energy, rel=1e-12)
    np.testing.assert_allclose(
        atoms.get_stress(voigt=False), -found.virial / atoms.get_volume(), rtol=1e-10, atol=1e-15
    )
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, 2 * fs).run(200)
    assert atoms.get_total_energy() == pytest.approx(before, abs=2e-4 * len(atoms))


def test_list_reach_is_exact_in_a_dense_cell() -> None:
    atoms = bulk("Al").repeat((3, 3, 3))
    types = np.zeros(len(atoms), np.int64)
    found = build_list(atoms.positions, atoms.cell.array, np.ones(3, np.bool_), types, 1, 6.2)
    assert set(np.diff(found.start)) == {len(neighbor_list("i", bulk("Al"), 6.2))}
