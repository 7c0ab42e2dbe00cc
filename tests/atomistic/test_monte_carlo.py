"""Swaps: energies against the whole structure's, equilibrium against enumeration, sites of known lattices."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from atomistic.averages import block_average
from atomistic.cells import llto, lstz
from atomistic.errors import GeometryError, InputError
from atomistic.learning_cells import BOLTZMANN_EV
from atomistic.monte_carlo import SwapSampler, lattice_sites
from atomistic.mtp.basis import untrained
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.local import LocalEnergies
from atomistic.mtp.potential import MTPotential, read_mtp

SPECIES = ("Li", "Zr", "O")
Floats = npt.NDArray[np.float64]


def random_potential(scale: float = 1.0) -> MTPotential:
    rng = np.random.default_rng(8)
    potential = untrained(SPECIES, 8, cutoff=5.0, min_distance=1.0, rng=rng)
    parameters = potential.parameters.copy()
    linear = potential.alpha_moment_mapping.size + len(SPECIES)
    parameters[:linear] = scale * rng.normal(size=linear)
    return potential.with_parameters(parameters)


CELLS = {
    "cubic": np.eye(3) * 11.0,
    "triclinic": np.array([[9.0, 0.0, 0.0], [3.0, 8.0, 0.0], [-2.0, 4.0, 10.0]]),
    "thinner than the cutoff": np.array([[4.1, 0.0, 0.0], [1.0, 3.9, 0.0], [0.4, 0.6, 13.0]]),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("with_core", [False, True])
def test_changes_are_those_of_the_whole_structure(cell: str, with_core: bool) -> None:
    potential, box = random_potential(), CELLS[cell]
    rng = np.random.default_rng(3)
    n = int(0.02 * np.linalg.det(box)) + 3
    fractions = rng.random((n, 3))
    core = RepulsiveCore(SPECIES, np.full((3, 3), 0.5), np.full((3, 3), 1.5)) if with_core else None
    atoms = Atoms(rng.choice(SPECIES, n), scaled_positions=fractions, cell=box, pbc=True)
    types = potential.types_of(atoms.get_chemical_symbols())
    state = LocalEnergies(potential, fractions, types, box, core)
    before = evaluate(potential, atoms, core)
    np.testing.assert_allclose(state.energies, before.energies, rtol=1e-10, atol=0)
    for step in range(30):
        moved = rng.choice(n, 2, replace=False)
        new = state.fractions[moved[::-1]] if step % 2 else rng.random((2, 3))
        kept = state.fractions.copy()
        kept[moved] = new
        whole = Atoms(atoms, scaled_positions=None)
        whole.set_scaled_positions(kept)
        after = evaluate(potential, whole, core)
        change = state.change(moved, new, keep=step % 3 != 0)
        scale = np.abs(after.energies).max()
        assert abs(change - (after.energy - before.energy)) < 1e-10 * n * scale
        if step % 3 != 0:
            before = after
            np.testing.assert_allclose(state.energies, after.energies, rtol=1e-8, atol=1e-11 * scale)


def frequencies(seen: list[tuple[int, ...]], energies: dict[tuple[int, ...], float], kt: float) -> float:
    """Chance of so large a deviation of the visits from the Boltzmann distribution."""
    states = sorted(energies)
    u = np.array([energies[s] for s in states])
    expected = np.exp(-(u - u.min()) / kt)
    expected *= len(seen) / expected.sum()
    assert expected.min() > 5, "the temperature leaves a state too rare for the test"
    found = np.array([seen.count(s) for s in states])
    assert found.sum() == len(seen), "a state outside the enumeration was visited"
    return float(chi2.sf(np.sum((found - expected) ** 2 / expected), len(states) - 1))


SITES = np.array([[0.1, 0.1, 0.1], [0.6, 0.1, 0.15], [0.1, 0.55, 0.2], [0.6, 0.65, 0.1], [0.3, 0.3, 0.7]])
HOST = np.array([[0.35, 0.8, 0.5], [0.8, 0.4, 0.65]])
BOX = np.array([[6.0, 0.0, 0.0], [0.4, 6.2, 0.0], [-0.5, 0.3, 6.4]])


def at_sites(where: tuple[int, ...], shifts: Floats) -> Floats:
    return np.vstack([SITES[list(where)] + shifts, HOST])


@pytest.mark.parametrize(
    ("pairs", "moves", "displaced"),
    [
        ([("Li", "Zr")], "exchange", False),
        ([("Li", "vacancy"), ("Zr", "vacancy")], "exchange", True),
        ([("Li", "Zr"), ("Li", "vacancy")], "translate", True),
    ],
)
def test_visits_follow_the_boltzmann_distribution_of_all_states(
    pairs: list[tuple[str, str]], moves: str, displaced: bool
) -> None:
    potential = random_potential()
    symbols = ["Li", "Li", "Zr", "O", "O"]
    rng = np.random.default_rng(11)
    shifts = 0.04 * rng.normal(size=(3, 3)) if displaced else np.zeros((3, 3))
    only_exchange = pairs == [("Li", "Zr")]
    places = (0, 1, 2) if only_exchange else range(5)
    energies: dict[tuple[int, ...], float] = {}
    for where in itertools.permutations(places, 3):
        atoms = Atoms(symbols, scaled_positions=at_sites(where, shifts), cell=BOX, pbc=True)
        energies[where] = evaluate(potential, atoms).energy
    # About the spread of energies, so that every state matters and none is rare.
    kt = 1.3 * float(np.std(list(energies.values())))
    sampler = SwapSampler(
        potential, symbols, pairs, kt / BOLTZMANN_EV, moves=moves, sites=SITES, contact=0.0,  # type: ignore[arg-type]
    )  # fmt: skip
    fractions, seen = at_sites((0, 1, 2), shifts), []
    for _ in range(3000):
        done = sampler.run(fractions, BOX, 15, rng)
        fractions = done.fractions
        inside = fractions[:3] - shifts
        step = inside[:, None] - SITES[None]
        seen.append(tuple(int(k) for k in np.argmin(np.linalg.norm(step - np.rint(step), axis=2), axis=1)))
        assert abs(done.energy - energies[seen[-1]]) < 1e-9 * abs(done.energy)
    assert frequencies(seen, energies, kt) > 1e-3
    # The same visits must not pass for another temperature.
    assert frequencies(seen, energies, 1.3 * kt) < 1e-3


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_composition_sites_and_energy_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    potential = random_potential(0.05)
    fractions = at_sites(tuple(rng.permutation(5)[:3].tolist()), 0.02 * rng.normal(size=(3, 3)))
    sampler = SwapSampler(
        potential, ["Li", "Li", "Zr", "O", "O"], [("Li", "vacancy"), ("Li", "Zr")], 3000.0, sites=SITES
    )
    before = LocalEnergies(potential, fractions, sampler.types, BOX).energies.sum()
    done = sampler.run(fractions, BOX, 40, rng)
    np.testing.assert_allclose(done.energy - before, done.change, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(done.fractions[3:], HOST)
    step = done.fractions[:3, None] - SITES[None]
    nearest = np.argmin(np.linalg.norm((step - np.rint(step)) @ BOX, axis=2), axis=1)
    assert len(set(nearest.tolist())) == 3
    assert int(done.attempts.sum()) == 40
    assert np.all(done.accepted <= done.attempts)


def test_two_starts_of_an_alloy_meet() -> None:
    potential = read_mtp(Path(__file__).parent / "data" / "al_cu_level6.mtp")
    lattice = bulk("Al", a=3.9, cubic=True).repeat((2, 2, 2))
    fractions, rng = lattice.get_scaled_positions(), np.random.default_rng(4)
    layered = np.where(fractions[:, 2] < 0.5, "Al", "Cu").tolist()
    symbols = {"layered": layered, "random": rng.permutation(layered).tolist()}
    found = {}
    for name, start in symbols.items():
        sampler = SwapSampler(potential, start, [("Al", "Cu")], 900.0)
        places, energies = fractions, []
        for _ in range(320):
            done = sampler.run(places, lattice.cell.array, 32, rng)
            places = done.fractions
            energies.append(done.energy)
        found[name] = block_average(energies[20:])
    error = np.hypot(*(average.standard_error for average in found.values()))
    means = [float(average.mean) for average in found.values()]
    assert abs(means[0] - means[1]) < 3.5 * error
    # The starts are far apart, or meeting would show nothing.
    begin = [
        LocalEnergies(potential, fractions, potential.types_of(start), lattice.cell.array).energies.sum()
        for start in symbols.values()
    ]
    assert abs(begin[0] - begin[1]) > 20 * error


def test_only_pairs_on_the_sites_need_them() -> None:
    potential = random_potential(0.01)
    symbols = ["Li", "Li", "Zr", "O", "O"]
    fractions = at_sites((0, 1, 2), np.zeros((3, 3)))
    sampler = SwapSampler(
        potential, symbols, [("Li", "vacancy"), ("Zr", "O")], 5000.0, moves="translate", sites=SITES,
        on_sites=["Li"], contact=0.0,
    )  # fmt: skip
    done = sampler.run(fractions, BOX, 300, np.random.default_rng(1))
    assert np.all(done.accepted > 20)
    # Zr has left the sites to the two Li; exchanged, it stands where Zr and O stood.
    places = np.vstack([fractions[2:], HOST])
    step = done.fractions[2, None] - places
    assert np.abs(step - np.rint(step)).sum(axis=1).min() < 1e-9


def test_no_swap_brings_atoms_into_contact() -> None:
    potential = random_potential(0.0)
    symbols, rng = ["Li", "Zr", "O", "O"], np.random.default_rng(0)
    fractions = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.1, 0.0, 0.0], [0.5, 0.5, 0.7]])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.05, 0.5, 0.5]])
    # Without energies every move is taken, but for those that bring Zr within 1.52 Å of an O.
    near = SwapSampler(potential, symbols, [("Zr", "vacancy")], 300.0, sites=sites, on_sites=["Li", "Zr"])
    done = near.run(fractions, np.eye(3) * 8.0, 200, rng)
    assert done.accepted[0] == done.attempts[0] == 200
    blocked = np.vstack([fractions, [[0.05, 0.5, 0.685]]])
    far = SwapSampler(
        potential, [*symbols, "O"], [("Zr", "vacancy")], 300.0, sites=sites, on_sites=["Li", "Zr"]
    )
    assert far.run(blocked, np.eye(3) * 8.0, 200, rng).accepted[0] == 0
    blocked[-1] = [0.05, 0.5, 0.695]
    assert far.run(blocked, np.eye(3) * 8.0, 200, rng).accepted[0] == 200


def test_sites_of_perovskites_with_and_without_noise() -> None:
    rng = np.random.default_rng(5)
    for atoms, heavy, constant in ((lstz(order=0.5, rng=rng), "Sr", 4.0), (llto(rng=rng), "La", 3.87)):
        for noise in (0.0, 0.08):
            shaken = atoms.copy()
            shaken.positions += noise * rng.normal(size=shaken.positions.shape)
            sites = lattice_sites(shaken, [heavy])
            assert sites.shape == (64, 3)
            off = 4 * sites - np.rint(4 * sites)
            assert np.linalg.norm(off * constant, axis=1).max() < 0.6
            # Every cation stands on a site of its own.
            own = shaken.get_scaled_positions()[np.array(shaken.get_chemical_symbols()) == heavy]
            step = own[:, None] - sites[None]
            nearest = np.argmin(np.linalg.norm(step - np.rint(step), axis=2), axis=1)
            assert len(set(nearest.tolist())) == len(own)


def test_named_errors() -> None:
    potential = random_potential()
    symbols = ["Li", "Zr", "O"]
    with pytest.raises(InputError, match=r"pairs: \['Li', 'Ta'\].*the cell holds Li, O, Zr"):
        SwapSampler(potential, symbols, [("Li", "Ta")], 300.0)
    with pytest.raises(InputError, match="need lattice sites"):
        SwapSampler(potential, symbols, [("Li", "vacancy")], 300.0)
    with pytest.raises(InputError, match="temperature"):
        SwapSampler(potential, symbols, [("Li", "Zr")], -5.0)
    with pytest.raises(InputError, match="Zr are swapped"):
        SwapSampler(potential, symbols, [("Zr", "vacancy")], 300.0, sites=SITES, on_sites=["Li"])
    atoms = Atoms("LiO4", positions=np.random.default_rng(0).random((5, 3)) * 6, cell=[6, 6, 6], pbc=True)
    with pytest.raises(InputError, match="species of the cell: Li, O"):
        lattice_sites(atoms, ["Sr"])
    with pytest.raises(GeometryError, match="flat"):
        LocalEnergies(potential, np.zeros((1, 3)), [0], np.zeros((3, 3)))
