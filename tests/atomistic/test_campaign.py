"""Campaigns: from settings to a folder, killed and resumed, over processes, and what stops one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from typer.testing import CliRunner

from atomistic.campaign import run_campaign, shipped_potentials
from atomistic.cli import app, main
from atomistic.errors import CoincidenceError, CompositionError, FileFormatError, InputError
from atomistic.lammps import run_md
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import read_mtp
from atomistic.record import file_sha256
from atomistic.sampling import Campaign, read_settings, validated
from atomistic.trajectory import Trajectory, read_trajectory

DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"
COMPILER = any(shutil.which(name) for name in ("g++", "c++", "clang++"))


def alloy(copper: int = 10) -> Atoms:
    atoms = bulk("Al", a=3.9, cubic=True).repeat((2, 2, 2))
    atoms.numbers[np.random.default_rng(0).choice(len(atoms), copper, replace=False)] = 29
    return atoms


SETTINGS = """
potential = "al_cu.mtp"
seeds = [1, 2]
segment_ps = 0.2

[cell]
kind = "file"
path = "alloy.xyz"

[equilibration]
ramp_ps = 0.1
npt_ps = 0.6

[mcmd]
pairs = [["Al", "Cu"]]
temperature = 700
cycles = 6
attempts = 40
burst_ps = 0.1

[production]
temperatures = [500, 350.5]
ramp_ps = 0.1
npt_ps = 0.6
time_ps = 0.8
frame_interval_ps = 0.1
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    shutil.copyfile(DATA, folder / "al_cu.mtp")
    write(folder / "alloy.xyz", alloy())
    (folder / "alloy.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_seed_may_have_a_file_of_its_own(inputs: Path, tmp_path: Path) -> None:
    for seed, copper in ((1, 4), (2, 12)):
        write(inputs / f"alloy-{seed}.xyz", alloy(copper))
    text = SETTINGS.replace("alloy.xyz", "alloy-{seed}.xyz")
    (inputs / "alloy.toml").write_text(text, encoding="utf-8")
    run_campaign(read_settings(inputs / "alloy.toml"), tmp_path / "run", base=inputs, until="build")
    campaign = Campaign.load(tmp_path / "run")
    assert [campaign.cell(seed).get_chemical_symbols().count("Cu") for seed in (1, 2)] == [4, 12]


def test_a_campaign_gives_runs_by_temperature_and_seed(inputs: Path, tmp_path: Path) -> None:
    settings = read_settings(inputs / "alloy.toml")
    records = run_campaign(settings, tmp_path / "run", base=inputs)
    assert [(r["stage"], r["temperature_K"], r["seed"], r["stopped"]) for r in records] == [
        ("mcmd", 700.0, 1, None), ("mcmd", 700.0, 2, None),
        ("production", 350.5, 1, None), ("production", 350.5, 2, None),
        ("production", 500.0, 1, None), ("production", 500.0, 2, None),
    ]  # fmt: skip
    campaign = Campaign.load(tmp_path / "run")
    assert sorted(campaign.by_temperature()) == [350.5, 500.0]
    for run in campaign.runs:
        frames = run.open().read()
        assert frames.n_frames == 9
        np.testing.assert_allclose(frames.times, np.arange(9) * 0.1, rtol=0, atol=1e-9)
        assert np.ptp(frames.cells, axis=0).max() < 1e-9
        assert sorted(frames.species) == sorted(alloy().get_chemical_symbols())
        # The cell is the mean of the constant-pressure run before, not the built one.
        assert (
            abs(np.linalg.det(frames.cells[0]) - run.record["mean_volume_A3"])
            < 1e-6 * run.record["mean_volume_A3"]
        )
        assert frames.provenance["potential_checksum"] == read_mtp(DATA).checksum
        assert not (run.folder / "work").exists()
    first, second = (run.open().read().positions for run in campaign.by_temperature()[500.0])
    assert np.abs(first - second).max() > 0.1
    # What the swaps say the energy is, is the energy of the frame stored with it, to the file's rounding.
    swaps = campaign.mcmd_trajectory(1)
    assert swaps is not None
    frames = swaps.read()
    assert frames.n_frames == 7
    table = pd.read_csv(tmp_path / "run" / "mcmd" / "seed1" / "cycles.csv")
    potential = read_mtp(DATA)
    for k in range(1, 7):
        energy = evaluate(potential, frames.atoms(k)).energy
        assert abs(energy - table["energy_after_burst_eV"][k - 1]) < 2e-3
    assert table["accepted_Al_Cu"].sum() > 0
    # A second call repeats nothing.
    before = contents(tmp_path / "run")
    started = time.monotonic()
    run_campaign(settings, tmp_path / "run", base=inputs)
    assert time.monotonic() - started < 5.0
    assert contents(tmp_path / "run") == before


CORE = "Al Al 2.2 3.2\nAl Cu 2.2 3.2\nCu Cu 2.2 3.2\n"


@pytest.mark.parametrize("key", ["", 'core = "al_cu.core"'], ids=["beside the potential", "named"])
def test_a_core_acts_in_every_stage(inputs: Path, tmp_path: Path, key: str) -> None:
    (inputs / "al_cu.core").write_text(CORE, encoding="utf-8")
    if key:
        (inputs / "al_cu.mtp").rename(inputs / "other.mtp")
    text = key + SETTINGS.replace("al_cu.mtp", "other.mtp" if key else "al_cu.mtp").replace("[1, 2]", "[1]")
    (inputs / "alloy.toml").write_text(text, encoding="utf-8")
    run_campaign(read_settings(inputs / "alloy.toml"), tmp_path / "run", base=inputs)
    campaign = Campaign.load(tmp_path / "run")
    potential, core = read_mtp(DATA), RepulsiveCore.load(inputs / "al_cu.core", ("Al", "Cu"))

    def energies(frames: Trajectory) -> list[float]:
        each = [evaluate(potential, frames.atoms(k), core).energy for k in range(frames.n_frames)]
        # The core is felt: without it the energies differ by far more than what is asserted.
        assert abs(each[-1] - evaluate(potential, frames.atoms(frames.n_frames - 1)).energy) > 0.5
        return each

    table = pd.read_csv(tmp_path / "run" / "mcmd" / "seed1" / "cycles.csv")
    swaps = campaign.mcmd_trajectory(1)
    assert swaps is not None
    np.testing.assert_allclose(table["energy_after_burst_eV"], energies(swaps.read())[1:], rtol=0, atol=2e-3)
    for run in campaign.runs:
        thermo = pd.read_csv(run.folder / "thermo.csv")
        found = energies(run.open().read())
        np.testing.assert_allclose(thermo["potential_energy_eV"], found, rtol=0, atol=2e-3)
        assert run.record["core_sha256"] == file_sha256(tmp_path / "run" / "potential.core")


def test_a_core_without_pairs_of_the_potential_leaves_no_folder(inputs: Path, tmp_path: Path) -> None:
    (inputs / "al_cu.core").write_text("Al Zr 1.0 2.0\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"al_cu.core:1: .*not allowed"):
        run_campaign(read_settings(inputs / "alloy.toml"), tmp_path / "run", base=inputs)
    assert not (tmp_path / "run").exists()


def test_validate_takes_the_core_beside_a_potential(inputs: Path) -> None:
    (inputs / "al_cu.core").write_text(CORE, encoding="utf-8")
    potential, frame = read_mtp(DATA), alloy()
    frame.rattle(0.05, seed=1)
    found = evaluate(potential, frame, RepulsiveCore.load(inputs / "al_cu.core", potential.species))
    frame.calc = SinglePointCalculator(frame, energy=found.energy, forces=found.forces)
    write(inputs / "frame.xyz", frame)
    command = ["validate", str(inputs / "al_cu.mtp"), str(inputs / "frame.xyz"), "--energy-limit", "1e-3"]
    assert CliRunner().invoke(app, command).exit_code == 0
    (inputs / "al_cu.core").unlink()
    assert CliRunner().invoke(app, command).exit_code == 1


def kill_at(command: list[str], folder: Path, moment: str, after: float) -> None:
    """Start a command and kill it with all its children `after` seconds after `moment` (a path) exists."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while not (folder / moment).exists():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_campaign_ends_with_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    settings = inputs / "alloy.toml"
    text = settings.read_text(encoding="utf-8").replace("seeds = [1, 2]", "seeds = [3]")
    settings.write_text(text.replace("[500, 350.5]", "[500]"), encoding="utf-8")
    run_campaign(read_settings(settings), tmp_path / "whole", base=inputs)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "atomistic.cli", "md", str(settings), "--out", str(killed)]
    kill_at(command, killed, "equilibration/seed3/work/md/restart.bin", 0.05)
    kill_at(command, killed, "mcmd/seed3/work/state.npz", 0.3)
    kill_at(command, killed, "mcmd/seed3/work/burst/segment.log", 0.1)
    kill_at(command, killed, "production/T500/seed3/work/run/trajectory.bin", 0.02)
    assert not (killed / "results.json").exists()
    run_campaign(read_settings(settings), killed, base=inputs)
    assert contents(killed) == contents(tmp_path / "whole")


def test_processes_give_what_one_gives(inputs: Path, tmp_path: Path) -> None:
    settings = validated(
        read_settings(inputs / "alloy.toml").model_dump()
        | {"production": {"temperatures": [500.0], "npt_ps": 0.0, "ramp_ps": 0.0, "time_ps": 0.2}},
        "x",
    )
    said: list[str] = []
    run_campaign(settings, tmp_path / "two", base=inputs, workers=2, say=said.append)
    assert len(said) == 4
    run_campaign(settings, tmp_path / "one", base=inputs)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="MPI runs need the compiled plugin")
def test_ranks_of_mpi_give_the_same_run_to_rounding(inputs: Path, tmp_path: Path) -> None:
    values = read_settings(inputs / "alloy.toml").model_dump(mode="json")
    values |= {
        "seeds": [1], "mcmd": None, "equilibration": {"npt_ps": 0.0, "ramp_ps": 0.0, "minimise": False},
        "production": {"temperatures": [400.0], "npt_ps": 0.0, "ramp_ps": 0.0, "time_ps": 0.02,
                       "frame_interval_ps": 0.01},
    }  # fmt: skip
    positions = []
    for ranks in (1, 2):
        run_campaign(validated({**values, "processes": ranks}, "x"), tmp_path / str(ranks), base=inputs)
        positions.append(Campaign.load(tmp_path / str(ranks)).runs[0].open().read().positions)
    step = positions[0] - positions[1]
    box = alloy().cell.lengths()
    np.testing.assert_allclose(step - box * np.rint(step / box), 0.0, rtol=0, atol=2e-4)
    assert np.abs(positions[0][-1] - positions[0][0]).max() > 0.01


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="MPI runs need the compiled plugin")
def test_a_campaign_by_command_on_two_ranks_is_that_on_one_killed_or_not(
    inputs: Path, tmp_path: Path
) -> None:
    """Temperatures, energies, pressures and volumes of every stage, to the rounding of forces summed in parts."""
    text = (inputs / "alloy.toml").read_text(encoding="utf-8")
    # Langevin noise is drawn by each rank for itself: with a ramp, two ranks follow another path of the same ensemble.
    changes = {
        "seeds = [1, 2]": "seeds = [1]", "segment_ps = 0.2": "segment_ps = 0.02", "ramp_ps = 0.1": "ramp_ps = 0.0",
        "npt_ps = 0.6": "npt_ps = 0.04", "cycles = 6": "cycles = 1", "burst_ps = 0.1": "burst_ps = 0.01",
        "[500, 350.5]": "[500]", "time_ps = 0.8": "time_ps = 0.06", "interval_ps = 0.1": "interval_ps = 0.01",
    }  # fmt: skip
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)

    def command(ranks: int, folder: str) -> list[str]:
        settings = inputs / f"{ranks}.toml"
        settings.write_text(f"processes = {ranks}\n{text}", encoding="utf-8")
        return [sys.executable, "-m", "atomistic.cli", "md", str(settings), "--out", str(tmp_path / folder)]

    def thermo(folder: str, stage: str) -> pd.DataFrame:
        return pd.read_csv(tmp_path / folder / stage / "seed1" / "thermo.csv")

    for ranks in (1, 2):
        subprocess.run(command(ranks, f"{ranks}"), check=True, capture_output=True)
        killed = tmp_path / f"killed{ranks}"
        kill_at(command(ranks, killed.name), killed, "production/T500/seed1/work/run/restart.bin", 0.02)
        assert not (killed / "results.json").exists()
        subprocess.run(command(ranks, killed.name), check=True, capture_output=True)
    for stage in ("equilibration", "production/T500"):
        one = thermo("1", stage)
        assert len(one) > 1
        for folder in ("2", "killed1", "killed2"):
            other = thermo(folder, stage)
            for column, rtol, atol in (
                ("temperature_K", 1e-6, 0), ("potential_energy_eV", 0, 1e-6), ("pressure_bar", 0, 1e-3),
                ("volume_A3", 1e-9, 0),
            ):  # fmt: skip
                np.testing.assert_allclose(
                    other[column], one[column], rtol=rtol, atol=atol, err_msg=f"{folder} {stage} {column}"
                )
    assert contents(tmp_path / "killed1") == contents(tmp_path / "1")


def test_compressed_frames_are_those_of_the_dump(inputs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"temperature": 500.0, "steps": 60, "ramp_steps": 20, "dump_every": 10}
    options |= {"segment_steps": 20, "thermo_every": 10}
    text = run_md(alloy(), inputs / "al_cu.mtp", directory=tmp_path / "text", **options)
    packed = run_md(alloy(), inputs / "al_cu.mtp", directory=tmp_path / "own", **options, store="own")
    first, second = read_trajectory(text.trajectory), read_trajectory(packed.trajectory)
    assert first.n_frames == second.n_frames == 7
    np.testing.assert_allclose(second.times, first.times, rtol=0, atol=1e-9)
    # Half the resolution of the file, and the ten digits of the dump.
    np.testing.assert_allclose(second.positions, first.positions, rtol=0, atol=6.2e-5)
    assert len(packed.frames(2)) == 4
    assert (text.final.positions == packed.final.positions).all()


def test_the_documented_settings_are_allowed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text(encoding="utf-8")
    shown = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
    settings = read_settings(tmp_path / "shown.toml")
    assert settings.mcmd is not None
    assert settings.mcmd.temperature == 1573.0


def test_stopped_runs_are_kept_and_said(inputs: Path, tmp_path: Path) -> None:
    values = read_settings(inputs / "alloy.toml").model_dump(mode="json")
    values |= {"framework": ["Al", "Cu"], "framework_limit": 1e-6, "seeds": [1], "mcmd": None}
    records = run_campaign(validated(values, "x"), tmp_path / "run", base=inputs)
    assert [(r["stage"], r["stopped"]) for r in records] == [("equilibration", "framework")]
    assert Campaign.load(tmp_path / "run").by_temperature() == {}


def test_bad_input_is_named_before_anything_runs(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values: dict[str, Any] = read_settings(inputs / "alloy.toml").model_dump(mode="json")

    def attempt(**change: Any) -> None:
        run_campaign(validated({**values, **change}, "x"), tmp_path / "bad", base=inputs)

    with pytest.raises(InputError, match=f"potential: 'no.mtp'.*{shipped_potentials()[0]}"):
        attempt(potential="no.mtp")
    with pytest.raises(InputError, match=r"mcmd.pairs: \['Al', 'Zn'\].*holds Al, Cu"):
        attempt(mcmd={**values["mcmd"], "pairs": [["Al", "Zn"]]})
    assert not (tmp_path / "bad").exists()
    with pytest.raises(FileFormatError, match="no such file"):
        attempt(cell={**values["cell"], "path": "absent.xyz"})
    with pytest.raises(InputError, match=r"grade: the file.*active-set"):
        attempt(grade_limit=5.0)
    with pytest.raises(InputError, match="workers"):
        run_campaign(validated(values, "x"), tmp_path / "bad", base=inputs, workers=0)
    with pytest.raises(CompositionError, match="leaves -1 Li"):
        attempt(
            potential="llzo-ta-level8", mcmd=None, cell={"kind": "llzo", "contents": {"al": 2.0, "ta": 2.0}}
        )
    with pytest.raises(CoincidenceError, match=r"Sigma17.*max_area|within|common"):
        attempt(
            potential="llzo-ta-level8", mcmd=None,
            cell={"kind": "boundary", "boundary": "Sigma17(530)[001]", "search": {"max_area": 50.0}},
        )  # fmt: skip
    with pytest.raises(InputError, match=r"cell\.contents"):
        attempt(potential="llzo-ta-level8", mcmd=None, cell={"kind": "llzo", "contents": {"tb": 2.0}})
    # One folder, one campaign.
    run_campaign(validated(values, "x"), tmp_path / "good", base=inputs, until="build")
    with pytest.raises(InputError, match="other settings"):
        run_campaign(validated({**values, "timestep_fs": 1.0}, "x"), tmp_path / "good", base=inputs)
    # The command line: one message, exit code 2.
    empty = (inputs / "alloy.toml").read_text(encoding="utf-8").replace("[500, 350.5]", "[]")
    (inputs / "empty.toml").write_text(empty, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["md", str(inputs / "empty.toml"), "--out", str(tmp_path / "never")])
    assert left.value.code == 2
    assert "the list is empty" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("potential.mtp", "potential.mtp: is missing; run in a new folder"),
        ("equilibration/seed1/final.extxyz", "seed1: holds no final.extxyz; remove that folder"),
    ],
)
def test_a_folder_that_lost_a_file_is_named(inputs: Path, tmp_path: Path, name: str, word: str) -> None:
    values = read_settings(inputs / "alloy.toml").model_dump(mode="json")
    values |= {"seeds": [1], "mcmd": None, "production": {**values["production"], "temperatures": [500.0]}}
    settings = validated(values, "x")
    run_campaign(settings, tmp_path / "run", base=inputs, until="build")
    # An equilibration that has ended, as far as its record says.
    place = tmp_path / "run" / "equilibration" / "seed1"
    place.mkdir(parents=True)
    record = {"stage": "equilibration", "temperature_K": 500.0, "seed": 1, "stopped": None}
    (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.copyfile(tmp_path / "run" / "cells" / "seed1.extxyz", place / "final.extxyz")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(FileFormatError, match=re.escape(word)):
        run_campaign(settings, tmp_path / "run", base=inputs)


def test_build_command_reports_charge_and_draws(inputs: Path, tmp_path: Path) -> None:
    (inputs / "cell.toml").write_text(
        'potential = "llzo-ta-level8"\n[cell]\nkind = "llzo"\ncontents = { ta = 0.5 }\n', encoding="utf-8"
    )
    done = CliRunner().invoke(app, ["build", str(inputs / "cell.toml"), "--out", str(tmp_path / "cell")])
    assert done.exit_code == 0, done.output
    assert "188 atoms, charge +0 e" in done.output
    report = json.loads((tmp_path / "cell" / "build" / "results.json").read_text(encoding="utf-8"))
    assert report["cells"]["1"]["stoichiometry"] == {"La": 3.0, "Li": 6.5, "O": 12.0, "Ta": 0.5, "Zr": 1.5}
    assert (tmp_path / "cell" / "build" / "structure.png").stat().st_size > 10_000
    atoms = read(tmp_path / "cell" / "cells" / "seed1.extxyz")
    assert isinstance(atoms, Atoms)
    assert len(atoms) == 188
