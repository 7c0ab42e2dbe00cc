"""Analyses of a campaign's folder: planes, widths, segregation, order, energies at rest."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from walks import (
    BOLTZMANN,
    CELL,
    LATTICE,
    RUNS,
    SITES,
    exact,
    walk,
)

from atomistic.analysis import analyse
from atomistic.analysis_record import record_of, record_settings
from atomistic.analysis_report import write_analysis
from atomistic.analysis_settings import open_sources, read_analysis_settings
from atomistic.analysis_structure import Structure
from atomistic.cells import lstz
from atomistic.errors import FileFormatError, InputError, TrajectoryError
from atomistic.labels import read_frames
from atomistic.mtp.basis import untrained
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.potential import write_mtp
from atomistic.sampling import CampaignSettings, temperature_name
from atomistic.trajectory import Trajectory, open_trajectory, save_trajectory


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `atomistic md` leaves it: a cell that notes its planes, from which the framework has since moved."""
    folder = tmp_path_factory.mktemp("campaign") / "c"
    cell = {"kind": "boundary", "boundary": "Sigma5[100](01-2)", "host": "lstz"}
    production = {"temperatures": [900.0, 1200.0], "time_ps": 200.0, "frame_interval_ps": 0.5}
    values = {
        "potential": "x.mtp",
        "seeds": [1, 2],
        "cell": cell,
        "production": production,
        "title": "Layers",
    }
    made = CampaignSettings(**values)  # type: ignore[arg-type]
    (folder / "cells").mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(made.model_dump(mode="json")), encoding="utf-8")
    (folder / "potential.mtp").write_bytes(b"MTP\n")
    for seed in (1, 2):
        for kelvin in production["temperatures"]:
            if (kelvin, seed) == (1200.0, 2):
                continue
            place = folder / "production" / temperature_name(kelvin) / f"seed{seed}"
            place.mkdir(parents=True)
            moved = walk(kelvin, seed, slow=0.3, across=0.5)
            shifted = moved.positions + np.array([0.0, 0.0, 1.7])
            save_trajectory(
                Trajectory(moved.species, moved.times, moved.cells, shifted), place / "trajectory.bin"
            )
            record = {"temperature_K": kelvin, "seed": seed, "stopped": None}
            (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
        atoms = moved.atoms(0)
        atoms.positions[:128] = LATTICE
        atoms.info |= {"normal_axis": 2, "boundary_heights": np.array([6.0, 18.0])}
        atoms.write(folder / "cells" / f"seed{seed}.extxyz")
    return folder


def test_a_campaign_is_read_with_its_planes_its_width_and_its_potential(
    campaign: Path, tmp_path: Path
) -> None:
    text = "structure_frames = 40\nrdf_range_A = 3.0\n[sites]\nZr = 2.0\n[boundary]\nlattice_constant_A = 6.7082\n"
    text += '[record]\nname = "layers"\nmaterial = "toy"\nmethod = "walks"\n'
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    sources = open_sources(campaign, read_analysis_settings(tmp_path / "s.toml"))
    for source in sources.runs:
        assert source.planes is not None
        np.testing.assert_allclose(np.array(source.planes.fractions) * 24.0, [7.7, 19.7], rtol=0, atol=0.1)
    analysis = analyse(sources)
    results = analysis.results
    assert results.title == "Layers"
    assert results.potential == "potential.mtp"
    assert any("1200 K, seed 2: not finished" in warning for warning in results.warnings)
    assert results.boundary is not None
    # The papers' rule: 2 spacings of (0 1 -2), 6.7082/sqrt(5) = 3.0 A each, are above 5 A.
    np.testing.assert_allclose(results.boundary.width.value_A, 6.0, rtol=1e-4, atol=0)
    assert "interplanar spacings" in results.boundary.width.rule
    for kelvin in (900.0, 1200.0):
        for region, slow in (("bulk", 1.0), ("boundary", 0.3)):
            for direction, factor in (("along", 1.0), ("across", 0.5)):
                got = results.used(region, direction)[kelvin][0].value
                assert factor * slow * exact(kelvin) / got == pytest.approx(1.0, abs=0.3)
    # Li fill the slow layers in inverse proportion to D: ratio of odds at theta of 0.15 and 0.48.
    energies = [row for row in results.segregation if row.solute == "Li"]
    assert [row.temperature_K for row in energies] == [900.0, 1200.0]
    assert all(row.energy_eV < -3 * row.standard_uncertainty_eV for row in energies)
    record = record_of(results, record_settings(results, None, "s.toml"))
    assert record.boundary is not None
    assert (record.boundary.sigma, record.region) == (5, "boundary")
    assert record.segregation_energy_eV is not None
    bulk_part = record_of(
        results,
        record_settings(results, {**results.settings["record"], "relative_permittivity": PERMITTIVITY}, "x"),
        region="bulk",
    )
    assert bulk_part.region == "bulk"
    assert write_analysis(analysis, tmp_path / "out").joinpath("figures", "profile.png").exists()


PERMITTIVITY = {"value": 50.0, "uncertainty_factor": 1.5, "kind": "assumption", "source": "a lattice's"}


def test_monte_carlo_tells_segregation_with_its_swapped_atoms_out_of_the_drift(
    campaign: Path, tmp_path: Path
) -> None:
    """Two kinds of cation exchange places, one enriched near the planes: its energy is the one put in."""
    folder = tmp_path / "c"
    shutil.copytree(campaign, folder)
    values = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    values["mcmd"] = {"pairs": [["Ta", "Zr"]], "temperature": 1500.0}
    (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
    near = np.abs(np.mod(LATTICE[:, 2], 12.0) - 6.0) < 3.0
    cations = np.flatnonzero([(i + j) % 2 for i, j, _ in SITES])
    energy = -0.1
    odds = math.exp(-energy / (BOLTZMANN * 1500.0))
    for seed in (1, 2):
        atoms = walk(900.0, seed, frames=8).atoms(0)
        atoms.positions[:128] = LATTICE
        numbers = atoms.numbers.copy()
        solute = cations[: len(cations) // 4]
        numbers[solute] = 73
        atoms.numbers = numbers
        atoms.info |= {"normal_axis": 2, "boundary_heights": np.array([6.0, 18.0])}
        atoms.write(folder / "cells" / f"seed{seed}.extxyz")
        rng = np.random.default_rng(seed)
        frames = []
        for _ in range(400):
            # Independent draws of which sites the 16 Ta hold, weighted by the odds, as swaps sample them.
            weight = np.where(near[cations], odds, 1.0)
            places = metropolis(rng, weight, len(solute))
            order = cations.copy()
            rest = [k for k in range(len(cations)) if k not in set(places)]
            frame = atoms.positions.copy()
            frame[cations] = LATTICE[order[[*places, *rest]]]
            frames.append(frame)
        run = Trajectory(
            tuple(atoms.get_chemical_symbols()),
            np.arange(400.0),
            np.tile(CELL, (400, 1, 1)),
            np.array(frames),
        )
        (folder / "mcmd" / f"seed{seed}").mkdir(parents=True)
        save_trajectory(run, folder / "mcmd" / f"seed{seed}" / "trajectory.bin")
    for place in (folder / "production").rglob("trajectory.bin"):
        made = next(open_trajectory(place).chunks(10_000))
        save_trajectory(replace(made, species=tuple(atoms.get_chemical_symbols())), place)
    text = "structure_frames = 20\n[boundary]\nwidth_A = 6.0\n"
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    structure = Structure(open_sources(folder, read_analysis_settings(tmp_path / "s.toml")))
    (found,) = structure.segregation()
    assert (found.solute, found.runs, found.temperature_K) == ("Ta", "mcmd", 1500.0)
    assert abs(found.energy_eV - energy) < 3.5 * found.standard_uncertainty_eV < 0.03


def metropolis(rng: np.random.Generator, weight: np.ndarray, number: int) -> list[int]:
    """`number` of the sites in a draw with probability proportional to the product of their weights."""
    held = list(rng.choice(len(weight), number, replace=False))
    free = [k for k in range(len(weight)) if k not in set(held)]
    for _ in range(300):
        a, b = rng.integers(len(held)), rng.integers(len(free))
        if rng.random() < weight[free[b]] / weight[held[a]]:
            held[a], free[b] = free[b], held[a]
    return [int(k) for k in held]


def test_a_site_order_of_a_perovskite(tmp_path: Path) -> None:
    atoms = lstz(order=0.5, rng=np.random.default_rng(1))
    frames = np.tile(atoms.positions, (12, 1, 1))
    frames += 0.05 * np.random.default_rng(0).normal(size=frames.shape)
    run = Trajectory(
        tuple(atoms.get_chemical_symbols()),
        0.1 * np.arange(12),
        np.tile(atoms.cell.array, (12, 1, 1)),
        frames,
    )
    save_trajectory(run, tmp_path / "a.bin")
    text = '[order]\n[[runs]]\nfile = "a.bin"\ntemperature_K = 900\n'
    (tmp_path / "runs.toml").write_text(text, encoding="utf-8")
    (row,) = Structure(open_sources(tmp_path / "runs.toml")).order()
    np.testing.assert_allclose(row.order, atoms.info["a_site_order"], rtol=1e-9, atol=0)


def test_a_campaign_that_cannot_be_analysed_is_refused(campaign: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no settings\.json"):
        open_sources(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "settings.json").write_bytes((campaign / "settings.json").read_bytes())
    with pytest.raises(TrajectoryError, match="no complete production run"):
        open_sources(empty)
    (tmp_path / "runs.toml").write_text(RUNS, encoding="utf-8")
    with pytest.raises(InputError, match="leave \\[\\[runs\\]\\] out"):
        open_sources(campaign, read_analysis_settings(tmp_path / "runs.toml"))


def test_vacancies_and_swaps_at_rest_are_differences_of_the_potentials_energies(
    campaign: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(campaign, folder)
    rng = np.random.default_rng(0)
    potential = untrained(("Li", "O", "Zr"), 2, cutoff=4.0, min_distance=0.5, rng=rng)
    potential = potential.with_parameters(0.1 * rng.normal(size=potential.parameters.size))
    write_mtp(potential, folder / "potential.mtp")
    atoms = read_frames(folder / "cells" / "seed1.extxyz")[-1]
    atoms.info.clear()
    # Li on a lattice of their own, so that no two atoms coincide.
    atoms.positions[128:] = LATTICE[:40] + 1.5
    (folder / "equilibration" / "seed1").mkdir(parents=True)
    atoms.write(folder / "equilibration" / "seed1" / "final.extxyz")
    text = "structure_frames = 20\n[boundary]\nwidth_A = 6.0\n"
    text += '[rest]\nvacancies = true\nswaps = [["Zr", "O"]]\nmax_sites = 6\nfmax = 0.0\n'
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    shown, rows = Structure(open_sources(folder, read_analysis_settings(tmp_path / "s.toml"))).rest()
    assert [row.defect for row in rows] == ["swap Zr-O", "vacancy Li"]
    assert all(row.all_converged and not row.relaxed for row in rows)
    calculator = MTPCalculator(potential)

    def energy(structure: Atoms) -> float:
        structure.calc = calculator
        return float(structure.get_potential_energy())

    vacancies = shown[1][1]
    direct = []
    for site in vacancies.index:
        vacant = atoms.copy()
        del vacant[int(site)]
        direct.append(energy(vacant))
    got = vacancies.energy
    assert np.ptp(got) > 1e-3
    np.testing.assert_allclose(got - got[0], np.array(direct) - direct[0], rtol=1e-6, atol=1e-9)
    near = np.abs(vacancies.distance) <= 3.0
    np.testing.assert_allclose(rows[1].difference_eV, got[near].mean(), rtol=1e-9, atol=0)
    (tmp_path / "s.toml").write_text("[rest]\nvacancies = true\n" + RUNS, encoding="utf-8")
    with pytest.raises(InputError, match="boundary cell"):
        read_analysis_settings(tmp_path / "s.toml")
