"""Boundary analysis against structures whose planes, widths, contents and energies are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.io.cube import read_cube

from atomistic.averages import Series, block_average, ratio_average
from atomistic.boundaries import Candidate, build
from atomistic.boundary_analysis import (
    BOLTZMANN_EV,
    Profile,
    a_site_order,
    as_trajectory,
    locate_planes,
    occupancy_segregation_energy,
    profile,
    region_composition,
    segregation_energy,
)
from atomistic.boundary_planes import BoundaryPlanes, cell_height
from atomistic.boundary_width import (
    boundary_shape,
    composition_width,
    coordination_width,
    density_width,
    interplanar_spacing,
    spacings_width,
    threshold_width,
)
from atomistic.cells import lstz
from atomistic.crystals import Perovskite
from atomistic.defect_energies import swap_energies, vacancy_formation_energies
from atomistic.errors import GeometryError, InputError, RunError, TrajectoryError
from atomistic.local_structure import coordination_numbers, probability_density, radial_distribution
from atomistic.trajectory import Trajectory

Array = np.ndarray[Any, np.dtype[np.float64]]

TILTED = np.array([[20.0, 0.0, 0.0], [2.0, 21.0, 0.0], [3.0, -4.0, 40.0]])


def gas(counts: dict[str, int], n_frames: int, cell: Array, rng: np.random.Generator) -> Trajectory:
    species = tuple(s for s, n in counts.items() for _ in range(n))
    positions = rng.random((n_frames, len(species), 3)) @ cell
    return Trajectory(species, np.arange(float(n_frames)), np.tile(cell, (n_frames, 1, 1)), positions)


# Means of correlated series


def test_block_average_of_a_correlated_series_has_the_exact_error() -> None:
    rng = np.random.default_rng(1)
    phi, entries, trials = 0.9, 8192, 60
    noise = rng.normal(size=(entries, trials))
    series = np.zeros((entries, trials))
    for t in range(1, entries):
        series[t] = phi * series[t - 1] + noise[t]
    exact = 1 / ((1 - phi) * math.sqrt(entries))
    found = block_average(series)
    np.testing.assert_allclose(np.sqrt(np.mean(found.standard_error**2)), exact, rtol=0.1, atol=0)
    assert np.all(found.converged)
    assert np.mean(np.abs(found.mean) < 2 * found.standard_error) > 0.85
    naive = series.std(axis=0) / math.sqrt(entries)
    assert np.all(naive < 0.4 * exact)


def test_block_average_says_when_a_series_is_too_short() -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=64))
    assert not block_average(walk).converged
    assert np.isnan(block_average([1.0, 2.0]).standard_error)
    steady = block_average(np.full(64, 3.0))
    assert (float(steady.mean), float(steady.standard_error), bool(steady.converged)) == (3.0, 0.0, True)
    with pytest.raises(TrajectoryError, match="at least one"):
        block_average([])


def test_a_streamed_series_keeps_mean_and_error_in_bounded_memory() -> None:
    values = np.random.default_rng(2).normal(size=20_000)
    series = Series()
    for value in values:
        series.append(value)
    assert len(series.blocks()) <= 2048
    whole = series.per_block * len(series.blocks())
    np.testing.assert_allclose(series.average().mean, values[:whole].mean(), rtol=1e-10, atol=0)
    np.testing.assert_allclose(series.average().standard_error, 1 / math.sqrt(20_000), rtol=0.1, atol=0)


def test_ratio_error_counts_the_correlation_of_its_parts() -> None:
    rng = np.random.default_rng(3)
    bottom = 100 + 10 * rng.normal(size=4000)
    found = ratio_average(0.3 * bottom, bottom)
    np.testing.assert_allclose(found.mean, 0.3, rtol=1e-12, atol=0)
    assert float(found.standard_error) < 1e-12


# Planes and profiles


def crystal(
    cell_axis: int = 2,
    missing: float = 0.6,
    planes: tuple[float, float] = (0.2, 0.7),
    seed: int = 0,
    solute: float = 0.0,
    frames: int = 6,
) -> Trajectory:
    """Rock salt ZrO, 4x4x16 conventional cells, with oxygen missing or Ta within 3 Å of two planes."""
    rng = np.random.default_rng(seed)
    a = 4.6
    repeat = [3, 3, 3]
    repeat[cell_axis] = 14
    ideal = bulk("ZrO", "rocksalt", a=a, cubic=True).repeat(repeat)
    height = repeat[cell_axis] * a
    scaled = ideal.positions[:, cell_axis] / height
    apart = np.min([np.abs(scaled - p - np.rint(scaled - p)) for p in planes], axis=0) * height
    symbols = np.array(ideal.get_chemical_symbols())
    symbols[(symbols == "Zr") & (apart < 3) & (rng.random(len(ideal)) < solute)] = "Ta"
    gone = (symbols == "O") & (apart < 3) & (rng.random(len(ideal)) < missing)
    chosen = Atoms(symbols[~gone], ideal.positions[~gone], cell=ideal.cell.array, pbc=True)
    shaken = []
    for _ in range(frames):
        one = chosen.copy()
        one.positions += 0.08 * rng.normal(size=one.positions.shape)
        shaken.append(one)
    return as_trajectory(shaken)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("planes", [(0.2, 0.7), (0.02, 0.47)])
def test_planes_are_found_where_oxygen_is_missing(axis: int, planes: tuple[float, float]) -> None:
    found = locate_planes(crystal(axis, planes=planes), axis=axis)
    offset = np.array(found.fractions) - planes
    np.testing.assert_allclose((offset - np.rint(offset)) * found.height, 0, rtol=0, atol=1.0)


def test_planes_are_found_where_only_the_composition_changes() -> None:
    found = locate_planes(crystal(missing=0.0, solute=0.5))
    np.testing.assert_allclose((np.array(found.fractions) - (0.2, 0.7)) * found.height, 0, rtol=0, atol=1.0)


def test_no_plane_is_found_in_a_crystal_nor_a_second_one_beside_one() -> None:
    with pytest.raises(TrajectoryError, match=r"no 1\. boundary"):
        locate_planes(crystal(missing=0.0))
    with pytest.raises(TrajectoryError, match=r"no 2\. boundary"):
        locate_planes(crystal(planes=(0.3, 0.3)))


def shaken(atoms: Atoms, seed: int, frames: int = 8) -> Trajectory:
    rng = np.random.default_rng(seed)
    moved = []
    for _ in range(frames):
        one = atoms.copy()
        one.positions += 0.12 * rng.normal(size=one.positions.shape)
        moved.append(one)
    return as_trajectory(moved)


@pytest.mark.parametrize("name", ["Sigma5[100](01-2)", "Sigma3[110](110)"])
def test_planes_of_built_boundaries_are_found_and_none_in_their_bulk(name: str) -> None:
    plain = Candidate(0.0, 0.0, (0.0, 0.0), (0.0, 0.0), gap=0.3, removed=(0, 0), energy=0.0)
    atoms = build(
        Perovskite.lstz(),
        name,
        rng=np.random.default_rng(3),
        candidate=plain,
        min_separation=14.0,
        min_width=12.0,
    )
    known, found = BoundaryPlanes.from_cell(atoms), locate_planes(shaken(atoms, 0))
    offset = np.array(found.fractions) - known.fractions
    np.testing.assert_allclose((offset - np.rint(offset)) * found.height, 0, rtol=0, atol=1.0)
    for seed in range(3):
        with pytest.raises(TrajectoryError, match="boundary along axis 2"):
            locate_planes(shaken(lstz(repeat=(3, 3, 8), rng=np.random.default_rng(seed)), seed))


def test_layers_cover_every_height_once() -> None:
    planes = BoundaryPlanes(2, (0.05, 0.55), 40.0)
    layers = planes.layers(6.0)
    assert {name: [(round(a, 9), round(b, 9)) for a, b in parts] for name, parts in layers.items()} == {
        "bulk": [(5, 19), (25, 39)],
        "boundary 1": [(-1, 5)],
        "boundary 2": [(19, 25)],
    }
    assert sum(b - a for parts in layers.values() for a, b in parts) == pytest.approx(40.0, rel=1e-12)
    assert set(planes.layers(6.0, separate=False)) == {"bulk", "boundary"}


def test_distance_from_the_planes_in_a_tilted_cell() -> None:
    planes = BoundaryPlanes(2, (0.25, 0.75), cell_height(TILTED, 2))
    np.testing.assert_allclose(planes.height, 40.0, rtol=1e-12, atol=0)
    away, which = planes.distance(
        np.array([[0.1, 0.2, 0.30], [0.5, 0.5, 0.99], [0.3, 1.7, -0.2]]) @ TILTED, TILTED
    )
    np.testing.assert_allclose(away, [2.0, 9.6, 2.0], rtol=1e-9, atol=0)
    assert which.tolist() == [0, 1, 1]
    np.testing.assert_allclose(planes.separation, 20.0, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match="no bulk is left"):
        planes.default_bulk(20.1)


def test_profile_of_atoms_in_known_slices_is_exact() -> None:
    rng = np.random.default_rng(4)
    counts = np.array([5, 0, 12, 7, 1, 9, 3, 8])
    scaled = np.concatenate([(k + 0.05 + 0.9 * rng.random(n)) / 8 for k, n in enumerate(counts)])
    inside = np.column_stack([rng.random((len(scaled), 2)), scaled])
    species = tuple("Zr" if k % 3 else "O" for k in range(len(scaled)))
    frames = 5
    run = Trajectory(
        species, np.arange(5.0), np.tile(TILTED, (frames, 1, 1)), np.tile(inside @ TILTED, (frames, 1, 1))
    )
    got = profile(run, bin_width=5.0)
    slice_volume = abs(np.linalg.det(TILTED)) / 8
    np.testing.assert_allclose(got.total, counts / slice_volume, rtol=1e-12, atol=0)
    np.testing.assert_allclose(got.position, 5.0 * np.arange(8) + 2.5, rtol=1e-12, atol=0)
    oxygen = np.bincount((scaled[np.array(species) == "O"] * 8).astype(int), minlength=8)
    full = counts > 0
    np.testing.assert_allclose(
        got.atomic_percent["O"][full], 100 * oxygen[full] / counts[full], rtol=1e-12, atol=0
    )
    assert np.isnan(got.atomic_percent["O"][1])
    np.testing.assert_allclose(got.total_error, 0, rtol=0, atol=1e-15)


def test_profile_errors_of_a_gas_are_binomial() -> None:
    rng = np.random.default_rng(5)
    run = gas({"Zr": 100, "O": 100}, 2000, TILTED, rng)
    got = profile(run, bin_width=2.0, mobile=("Zr", "O"))
    p, slices = 1 / 20, 20
    volume = abs(np.linalg.det(TILTED)) / slices
    exact = math.sqrt(200 * p * (1 - p) / 2000) / volume
    np.testing.assert_allclose(np.sqrt(np.mean(got.total_error**2)), exact, rtol=0.1, atol=0)
    np.testing.assert_allclose(got.total, 200 / slices / volume, rtol=0.03, atol=0)
    pulls = (got.atomic_percent["O"] - 50) / got.atomic_percent_error["O"]
    assert 0.4 < np.std(pulls) < 1.8


def test_profile_about_the_planes_averages_both() -> None:
    planes = BoundaryPlanes(2, (0.25, 0.75), 40.0)
    x = (
        np.array([[0.5, 0.5, 0.25 + 1.1 / 40], [0.1, 0.1, 0.75 + 1.1 / 40], [0.1, 0.1, 0.75 - 6.2 / 40]])
        @ TILTED
    )
    run = Trajectory(("Zr", "Zr", "O"), [0.0], TILTED[None], x[None])  # type: ignore[arg-type]
    both = profile(run, planes=planes, bin_width=1.0)
    volume = np.linalg.det(TILTED) / 40
    assert abs(both.position[0] + 9.5) < 1e-9
    np.testing.assert_allclose(
        both.density["Zr"][np.isclose(both.position, 1.5)], 2 / (2 * volume), rtol=1e-9, atol=0
    )
    np.testing.assert_allclose(
        both.density["O"][np.isclose(both.position, -6.5)], 1 / (2 * volume), rtol=1e-9, atol=0
    )
    first = profile(run, planes=planes, which=0, bin_width=1.0)
    np.testing.assert_allclose(first.density["Zr"].sum(), 1 / volume, rtol=1e-9, atol=0)
    assert first.density["O"].sum() == 0


def test_the_frameworks_drift_does_not_smear_a_profile() -> None:
    run = crystal(frames=20)
    moved = Trajectory(
        run.species,
        run.times,
        run.cells,
        run.positions + np.linspace(0, 30, 20)[:, None, None] * np.array([0, 0, 1]),
    )
    one, two = (profile(r, bin_width=0.5, mobile=("Li",)) for r in (run, moved))
    start = run.positions.mean(axis=1)
    assert np.ptp(start[:, 2]) < 0.1
    np.testing.assert_allclose(two.total, one.total, rtol=0, atol=0.05 * one.total.max())


# Widths


def shaped(
    width: float,
    edge: float,
    excess: float,
    noise: float = 0.0,
    lattice: float = 0.0,
    seed: int = 0,
    half: float = 20.0,
) -> Profile:
    rng = np.random.default_rng(seed)
    x = np.arange(-half + 0.125, half, 0.25)
    density = 0.08 + excess * boundary_shape(x, 0.3, width, edge)
    density = density * (1 + lattice * np.cos(2 * np.pi * x / 2.0)) + noise * rng.normal(size=len(x))
    error = np.full(len(x), max(noise, 1e-12))
    return Profile(
        x,
        {"O": density},
        {"O": error},
        {"O": np.full(len(x), 100.0)},
        {"O": 0 * x},
        density,
        error,
        80.0,
        100,
        True,
    )


@pytest.mark.parametrize("excess", [-0.03, 0.02])
@pytest.mark.parametrize(("width", "edge"), [(8.0, 1.0), (6.0, 0.6), (12.0, 2.0)])
def test_density_width_of_an_exact_layer(width: float, edge: float, excess: float) -> None:
    found = density_width(shaped(width, edge, excess))
    np.testing.assert_allclose(found.full_width.value, width, rtol=2e-3, atol=0)
    np.testing.assert_allclose(found.extent.value, width + edge * math.log(9), rtol=5e-3, atol=0)
    np.testing.assert_allclose(found.excess_density, excess, rtol=5e-3, atol=0)
    np.testing.assert_allclose(found.bulk_density, 0.08, rtol=1e-4, atol=0)


def test_lattice_planes_do_not_disturb_the_density_width() -> None:
    found = density_width(shaped(8.0, 1.0, -0.03, lattice=0.8))
    np.testing.assert_allclose(found.full_width.value, 8.0, rtol=0.03, atol=0)


def test_density_width_stays_within_its_stated_uncertainty() -> None:
    pulls = []
    for seed in range(60):
        found = density_width(shaped(8.0, 1.0, -0.03, noise=0.004, seed=seed))
        pulls.append((found.full_width.value - 8.0) / found.full_width.standard_uncertainty)
    assert 0.5 < np.std(pulls) < 1.6
    assert np.mean(np.abs(pulls) < 2) > 0.85


def test_a_profile_without_a_layer_has_no_width() -> None:
    with pytest.raises(TrajectoryError, match="no layer of a definite width"):
        density_width(shaped(8.0, 1.0, 1e-5, noise=0.004))
    with pytest.raises(InputError, match="about the planes"):
        density_width(profile(crystal(), bin_width=0.5))


def test_threshold_width_is_that_of_the_range_that_deviates() -> None:
    rng = np.random.default_rng(6)
    x = np.arange(-19.75, 20, 0.5)
    value = 10 + 0.05 * rng.normal(size=len(x)) + 2.0 * (np.abs(x) < 4.1)
    found = threshold_width(x, value, np.full(len(x), 0.05), n_sigma=4, bulk_beyond=12, what="Ta")
    np.testing.assert_allclose(found.value, 8.0, rtol=1e-9, atol=0)
    assert "4 sigma" in found.rule
    with pytest.raises(TrajectoryError, match="stays within"):
        threshold_width(x, 10 + 0.05 * rng.normal(size=len(x)), 0 * x, n_sigma=5, bulk_beyond=12, what="Ta")


def test_composition_and_coordination_width_of_a_crystal() -> None:
    run = crystal(frames=12)
    planes = locate_planes(run)
    about = profile(run, planes=planes, bin_width=2.3)
    assert abs(composition_width(about, species=["O"]).value - 6.0) <= 2 * 2.3
    found = coordination_width(run, planes, centre="Zr", cutoff=3.0, bin_width=2.3)
    assert abs(found.value - 8.0) <= 2 * 2.3
    with pytest.raises(TrajectoryError, match="fewer than three slices"):
        coordination_width(run, planes, centre="Zr", cutoff=3.0, bin_width=2.3, bulk_beyond=16.0)


def test_the_papers_rule() -> None:
    spacing = {
        plane: interplanar_spacing(plane, 4.0) for plane in ((0, 1, -2), (1, 0, 0), (1, 1, -1), (1, 1, 0))
    }
    widths = [spacings_width(d).value / d for d in spacing.values()]
    np.testing.assert_allclose(widths, [4, 2, 4, 2], rtol=1e-12, atol=0)
    assert not any("beyond" in spacings_width(d).rule for d in spacing.values())
    steep = spacings_width(interplanar_spacing((3, -3, 10), 4.0))
    assert steep.value > 5
    assert "beyond the published" in steep.rule
    np.testing.assert_allclose(spacings_width(2.5).value, 10.0, rtol=1e-12, atol=0)


# Composition and segregation


def exchanging(
    energy: float, temperature: float, rng: np.random.Generator, n_frames: int = 400, memory: float = 0.0
) -> tuple[Trajectory, BoundaryPlanes]:
    """Ta and Zr on 40 boundary and 120 bulk sites, drawn from the exact distribution for `energy` [eV]."""
    cell = np.diag([10.0, 10.0, 40.0])
    height = np.concatenate(
        [np.linspace(8.5, 11.5, 20), np.linspace(28.5, 31.5, 20), np.linspace(16, 24, 120)]
    )
    positions = np.column_stack([rng.random((160, 2)) * 10, height])
    base = 0.25
    odds = base / (1 - base) * np.exp(-energy / (BOLTZMANN_EV * temperature))
    probability = np.where(np.arange(160) < 40, odds / (1 + odds), base)
    numbers = np.empty((n_frames, 160), dtype=np.uint8)
    state = rng.random(160) < probability
    for k in range(n_frames):
        renew = rng.random(160) >= memory
        state = np.where(renew, rng.random(160) < probability, state)
        numbers[k] = np.where(state, 73, 40)
    run = Trajectory(
        ("Zr",) * 160,
        np.arange(float(n_frames)),
        np.tile(cell, (n_frames, 1, 1)),
        np.tile(positions, (n_frames, 1, 1)),
        exchanged=numbers,
    )
    return run, BoundaryPlanes(2, (0.25, 0.75), 40.0)


@pytest.mark.parametrize(("memory", "n_frames"), [(0.0, 400), (0.8, 1200)])
def test_segregation_energy_of_an_exact_lattice_gas(memory: float, n_frames: int) -> None:
    pulls = []
    for seed in range(16):
        run, planes = exchanging(-0.12, 1573.0, np.random.default_rng(seed), n_frames, memory)
        found = segregation_energy(
            run, planes, 4.0, solute="Ta", sites={"Ta": 1, "Zr": 1}, temperature=1573.0
        )
        pulls.append((found.energy + 0.12) / found.standard_uncertainty)
    assert 0.6 < np.std(pulls) < 1.5
    assert abs(np.mean(pulls)) < 0.6
    assert found.converged


def drift_of(seed: int, first: float, second: float) -> Trajectory:
    """A run whose segregation energy changes half way."""
    one, _ = exchanging(first, 1573.0, np.random.default_rng(seed), 200)
    two, _ = exchanging(second, 1573.0, np.random.default_rng(seed + 1), 200)
    assert one.exchanged is not None
    assert two.exchanged is not None
    return Trajectory(
        one.species,
        np.arange(400.0),
        np.tile(one.cells[0], (400, 1, 1)),
        np.tile(one.positions[0], (400, 1, 1)),
        exchanged=np.concatenate([one.exchanged, two.exchanged]),
    )


def test_segregation_energy_says_when_it_has_not_converged() -> None:
    options: dict[str, Any] = {"solute": "Ta", "sites": {"Ta": 1, "Zr": 1}, "temperature": 1573.0}
    early, planes = exchanging(-0.02, 1573.0, np.random.default_rng(0), 200)
    late, _ = exchanging(-0.20, 1573.0, np.random.default_rng(1), 200)
    joined = drift_of(0, -0.02, -0.20)
    drifting = segregation_energy(joined, planes, 4.0, **options)
    assert not drifting.converged
    assert drifting.drift < -3
    creeping = segregation_energy([drift_of(seed, -0.1, -0.13) for seed in (0, 2)], planes, 4.0, **options)
    assert not creeping.converged
    assert creeping.drift < -3
    slow = segregation_energy(
        exchanging(-0.12, 1573.0, np.random.default_rng(3), 160, 0.97)[0], planes, 4.0, **options
    )
    assert abs(slow.drift) < 3
    assert not slow.converged
    apart = segregation_energy([early, late], planes, 4.0, **options)
    assert not apart.converged
    assert apart.standard_uncertainty > 0.05
    agreeing = segregation_energy(
        [exchanging(-0.1, 1573.0, np.random.default_rng(seed), 200)[0] for seed in (4, 5, 6)],
        planes,
        4.0,
        **options,
    )
    assert agreeing.converged
    np.testing.assert_allclose(agreeing.energy, -0.1, rtol=0.1, atol=0)


def test_occupancies_without_an_energy_are_refused() -> None:
    np.testing.assert_allclose(
        occupancy_segregation_energy(0.5, 0.1, 1000.0), -BOLTZMANN_EV * 1000 * math.log(9), rtol=1e-12, atol=0
    )
    run, planes = exchanging(3.0, 300.0, np.random.default_rng(0), 20)
    with pytest.raises(TrajectoryError, match="never in the boundary"):
        segregation_energy(run, planes, 4.0, solute="Ta", sites={"Ta": 1, "Zr": 1}, temperature=300.0)
    with pytest.raises(TrajectoryError, match="no Na in the trajectory"):
        segregation_energy(run, planes, 4.0, solute="Na", sites={"Zr": 1}, temperature=300.0)


def test_region_composition_counts_layers_and_bulk() -> None:
    run, planes = exchanging(-0.12, 1573.0, np.random.default_rng(2))
    found = region_composition(run, planes, 4.0)
    assert found.species == ("Zr", "Ta")
    odds = 1 / 3 * np.exp(0.12 / (BOLTZMANN_EV * 1573))
    for part, exact in ((found.boundary, odds / (1 + odds)), (found.bulk, 0.25)):
        assert abs(part.mean[1] - 100 * exact) < 3.5 * part.standard_error[1]
        np.testing.assert_allclose(part.mean.sum(), 100, rtol=1e-12, atol=0)
    assert found.series.shape == (400, 2, 2)
    with pytest.raises(InputError, match="bulk_beyond"):
        region_composition(run, planes, 4.0, bulk_beyond=1.0)


@pytest.mark.parametrize("order", [0.0, 0.4, 0.7778])
def test_a_site_order_of_built_cells(order: float) -> None:
    rng = np.random.default_rng(7)
    atoms = lstz(order=order, repeat=(4, 4, 4), rng=rng)
    frames = []
    for k in range(8):
        shaken = atoms.copy()
        shaken.positions += 0.15 * rng.normal(size=(len(atoms), 3)) + [0.0, 0.0, 0.7 * k]
        frames.append(shaken)
    found = a_site_order(as_trajectory(frames))
    np.testing.assert_allclose(found.series, atoms.info["a_site_order"], rtol=1e-12, atol=1e-12)
    assert found.layers == 4
    with pytest.raises(InputError, match="even number"):
        a_site_order(as_trajectory(atoms), layers=3)


# Local structure


def test_rdf_of_an_ideal_gas_is_one_also_where_its_density_varies() -> None:
    rng = np.random.default_rng(8)
    run = gas({"Li": 150, "O": 200}, 60, TILTED, rng)
    even = radial_distribution(run, "Li", "O", r_max=8, bin_width=1.0)
    pulls = (even.g - 1) / even.g_error
    assert np.all(np.abs(pulls) < 4)
    scaled = rng.random((60, 300, 3))
    scaled[:, :, 2] = 0.5 + 0.1 * rng.normal(size=(60, 300))
    steep = Trajectory(("Li",) * 300, np.arange(60.0), np.tile(TILTED, (60, 1, 1)), scaled @ TILTED)
    planes = BoundaryPlanes(2, (0.5,), 40.0)
    for within in ((0.0, 3.0), (6.0, 12.0)):
        found = radial_distribution(steep, "Li", "Li", r_max=6, bin_width=1.0, planes=planes, within=within)
        np.testing.assert_allclose(found.g[1:], 1.0, rtol=0, atol=0.08)
    plain = radial_distribution(steep, "Li", "Li", r_max=6, bin_width=1.0)
    assert np.all(plain.g[1:] > 1.5)


@pytest.mark.parametrize("repeat", [1, 3])
def test_rdf_and_coordination_of_crystal_shells(repeat: int) -> None:
    run = as_trajectory(bulk("Cu", "fcc", a=4.0, cubic=True).repeat(repeat))
    found = radial_distribution(run, "Cu", "Cu", r_max=5.2, bin_width=0.1)
    for cutoff, neighbours in ((2.95, 12), (4.2, 18), (5.1, 42)):
        np.testing.assert_allclose(found.coordination(cutoff), neighbours, rtol=1e-9, atol=0)
    assert np.all(coordination_numbers(run.atoms(0), "Cu", "Cu", 3.0) == 12)
    shell = 4 / 3 * np.pi * (2.9**3 - 2.8**3)
    others = 4 * repeat**3 - 1
    density = others / (64.0 * repeat**3)
    np.testing.assert_allclose(found.g[28], 12 / (shell * density), rtol=1e-9, atol=0)


def test_first_minimum_parts_the_shells() -> None:
    rng = np.random.default_rng(9)
    base = bulk("ZrO", "rocksalt", a=4.6, cubic=True).repeat(3)
    frames = []
    for _ in range(10):
        one = base.copy()
        one.positions += 0.12 * rng.normal(size=one.positions.shape)
        frames.append(one)
    found = radial_distribution(as_trajectory(frames), "Zr", "O", r_max=5.5, bin_width=0.05)
    assert 2.7 < found.first_minimum < 3.7
    np.testing.assert_allclose(found.coordination(found.first_minimum), 6.0, rtol=1e-3, atol=0)


def test_density_grid_holds_every_ion_and_travels_as_a_cube(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    cell = np.array([[8.0, 0, 0], [1.0, 9.0, 0], [0.5, -1.0, 10.0]])
    sites = np.array([[0.01, 0.5, 0.5], [0.4, 0.2, 0.9]]) @ cell
    positions = sites + 0.5 * rng.normal(size=(4000, 2, 3))
    frame = np.array([[4.0, 4, 4]])
    x = np.concatenate([positions, np.tile(frame, (4000, 1, 1))], axis=1)
    run = Trajectory(("Li", "Li", "O"), np.arange(4000.0), np.tile(cell, (4000, 1, 1)), x)
    for smoothing in (0.0, 0.3):
        grid = probability_density(run, "Li", spacing=0.4, smoothing=smoothing)
        volume = abs(np.linalg.det(cell)) / grid.density.size
        np.testing.assert_allclose(grid.density.sum() * volume, 2.0, rtol=1e-9, atol=0)
    peak = np.unravel_index(np.argmax(grid.density), grid.density.shape)
    nearest = np.array(peak) / grid.density.shape @ cell
    assert min(np.linalg.norm(nearest - site) for site in sites) < 0.7
    # A Gaussian holds 73.9 % within two standard deviations; smoothing adds its variance.
    wide = math.hypot(0.5, 0.3)
    exact = math.exp(-2) / (2 * math.pi * wide**2) ** 1.5
    np.testing.assert_allclose(grid.isovalue(0.7385), exact, rtol=0.1, atol=0)
    with open(grid.write_cube(tmp_path / "li.cube")) as stream:
        back = read_cube(stream)
    np.testing.assert_allclose(back["data"], grid.density, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(back["atoms"].cell.array, cell, rtol=0, atol=1e-4)


# Energies of defects


class SiteModel(Calculator):  # type: ignore[misc]
    """E = Σ over atoms of depth(species) exp(-(z - plane)²/8) + springs to sites 0.1 Å off in x."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, depth: dict[str, float], spring: float = 0.0) -> None:
        super().__init__()
        self.depth, self.spring = depth, spring

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        z = np.rint(atoms.positions[:, 2])
        depth = np.array([self.depth.get(s, 0.0) for s in atoms.get_chemical_symbols()])
        moved = atoms.positions[:, 0] - np.rint(atoms.positions[:, 0]) - 0.1
        self.results["energy"] = float(np.sum(depth * well(z)) + np.sum(0.5 * self.spring * moved**2))
        self.results["forces"] = np.column_stack([-self.spring * moved, 0 * moved, 0 * moved])


def well(z: Array) -> Array:
    return np.asarray(np.exp(-((z - 10.0) ** 2) / 8))


def chain() -> tuple[Atoms, BoundaryPlanes]:
    z = np.arange(0.0, 40.0, 2.0)
    symbols = ["Zr"] * 19 + ["Ta"]
    positions = np.vstack([np.column_stack([0 * z, 0 * z, z]), np.column_stack([0 * z + 3, 0 * z, z])])
    return (
        Atoms([*symbols, *["Li"] * 20], positions, cell=[6, 6, 40], pbc=True),
        BoundaryPlanes(2, (0.25,), 40.0),
    )


def test_swap_energies_are_those_of_the_sites() -> None:
    atoms, planes = chain()
    found = swap_energies(atoms, SiteModel({"Ta": -0.4, "Zr": 0.1}), planes, solute="Ta", host="Zr")
    z = atoms.positions[found.index, 2]
    np.testing.assert_allclose(found.energy, -0.5 * (well(z) - well(np.array(38.0))), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        np.abs(found.distance), np.minimum(np.abs(z - 10), 40 - np.abs(z - 10)), rtol=1e-9, atol=1e-9
    )
    regions = found.by_region(1.0, 8.0)
    np.testing.assert_allclose(regions.difference, -0.5, rtol=1e-3, atol=0)
    assert found.index[0] == 19
    assert len(swap_energies(atoms, SiteModel({}), planes, solute="Ta", host="Zr", max_sites=5).index) == 6


def test_vacancy_energies_at_rest_and_relaxed() -> None:
    atoms, planes = chain()
    model = SiteModel({"Li": -1.2}, spring=2.0)
    at_rest = vacancy_formation_energies(atoms, model, planes, chemical_potential=-1.9)
    z = atoms.positions[at_rest.index, 2]
    strain = 0.5 * 2.0 * 0.01
    np.testing.assert_allclose(at_rest.energy, -1.9 + 1.2 * well(z) - strain, rtol=1e-9, atol=0)
    relaxed = vacancy_formation_energies(atoms, model, planes, chemical_potential=-1.9, fmax=1e-4)
    np.testing.assert_allclose(relaxed.energy, -1.9 + 1.2 * well(z), rtol=1e-6, atol=0)
    assert np.all(relaxed.converged)
    hurried = vacancy_formation_energies(atoms, model, planes, chemical_potential=0.0, fmax=1e-4, steps=1)
    assert not np.any(hurried.converged)


def test_defect_energies_refuse_what_cannot_be() -> None:
    atoms, planes = chain()
    with pytest.raises(InputError, match="holds none"):
        swap_energies(atoms, SiteModel({}), planes, solute="Al", host="Zr")
    with pytest.raises(InputError, match="indices of atoms of Li"):
        vacancy_formation_energies(atoms, SiteModel({}), planes, chemical_potential=0.0, sites=[0])
    with pytest.raises(GeometryError, match="not finite"):
        vacancy_formation_energies(atoms, SiteModel({"Li": math.inf}), planes, chemical_potential=0.0)
    with pytest.raises(InputError, match="0 sites are in the boundary"):
        swap_energies(atoms, SiteModel({}), planes, solute="Ta", host="Zr", sites=[0]).by_region(1.0, 5.0)

    class Broken(SiteModel):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            raise KeyError("no parameters")

    with pytest.raises(RunError, match="the calculator failed"):
        swap_energies(atoms, Broken({}), planes, solute="Ta", host="Zr")


def test_figures_show_the_numbers_they_are_given() -> None:
    from matplotlib.figure import Figure

    from atomistic.boundary_figures import density_slice, profile_figure, rdf_figure, site_energy_figure

    run = crystal(frames=6)
    planes = BoundaryPlanes(2, (0.2, 0.7), run.cells[0][2, 2])
    about = profile(run, planes=planes, bin_width=1.0)
    axes = Figure().subplots(2, 2).ravel()
    drawn = profile_figure(axes[0], about, width=spacings_width(2.3))
    np.testing.assert_array_equal(drawn.lines[0].get_ydata(), about.atomic_percent["O"])
    found = radial_distribution(run, "Zr", "O", r_max=4)
    assert rdf_figure(axes[1], [found]).lines[0].get_ydata() is not None
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), found.g)
    grid = probability_density(run, "O", spacing=0.5, mobile=())
    values = density_slice(axes[2], grid, along=0).collections[0].get_array()
    np.testing.assert_allclose(np.max(values), grid.density.mean(axis=0).max(), rtol=1e-12, atol=0)
    atoms, place = chain()
    energies = swap_energies(atoms, SiteModel({"Ta": -0.4}), place, solute="Ta", host="Zr")
    shown = site_energy_figure(axes[3], energies, "swap energy").lines[0]
    np.testing.assert_array_equal(shown.get_ydata(), energies.energy)
