"""Batches: the program of a potential against the numba kernel, its ensembles, and the way out and back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from atomistic.batch import (
    RESOLUTION,
    SOURCE,
    BatchOutput,
    compile_batch,
    export_batch,
    import_batch,
    job_text,
    read_output,
    run_batch,
)
from atomistic.campaign import run_campaign
from atomistic.cli import app
from atomistic.errors import CompilerError, FileFormatError, InputError
from atomistic.mtp.batch_source import model_header
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.sampling import Campaign, read_settings

BOLTZMANN = 8.617333262e-5
DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"
LEVEL12 = Path(__file__).parents[2] / "atomistic" / "potentials" / "llzo-ta-al-level12.mtp"
COMPILER = any(shutil.which(name) for name in ("g++", "c++", "clang++"))

pytestmark = pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")


def alloy(seed: int, *, repeat: int = 2, rattle: float = 0.1) -> Atoms:
    """A rattled, sheared alloy with atoms in other images than the first."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Al", a=4.0, cubic=True).repeat(repeat)
    atoms.numbers[rng.choice(len(atoms), len(atoms) // 3, replace=False)] = 29
    atoms.positions += rattle * rng.standard_normal(atoms.positions.shape)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.standard_normal((3, 3))), scale_atoms=True)
    atoms.positions += rng.integers(-2, 3, atoms.positions.shape) @ atoms.cell.array
    return atoms


def program(potential: MTPotential, folder: Path, core: RepulsiveCore | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch_model.h").write_text(model_header(potential, core), encoding="utf-8")
    shutil.copyfile(SOURCE, folder / SOURCE.name)
    return compile_batch(folder, gpu=False)


def run(binary: Path, folder: Path, text: str, seconds: float = 1e9) -> Path:
    (folder / "job.txt").write_text(text, encoding="utf-8")
    subprocess.run(
        [binary, folder / "job.txt", folder / "out.bin", str(seconds)], check=True, capture_output=True
    )
    return folder / "out.bin"


def dynamics(
    binary: Path, folder: Path, potential: MTPotential, atoms: list[Atoms], **key: Any
) -> BatchOutput:
    replicas = [(a, key["temperature"], 0.0, key.get("barostat", 1), 7 + k) for k, a in enumerate(atoms)]
    options = {name: key[name] for name in ("timestep_fs", "npt_steps", "steps", "frame_steps")}
    more = {name: key[name] for name in ("thermostat_ps", "skin", "resolution") if name in key}
    return read_output(run(binary, folder, job_text(potential, replicas, **options, **more)))


@pytest.mark.parametrize("with_core", [False, True])
def test_energy_forces_and_stress_are_those_of_the_kernel(tmp_path: Path, with_core: bool) -> None:
    potential = read_mtp(DATA)
    core = (
        RepulsiveCore.of_pairs(potential.species, {("Al", "Cu"): (2.0, 3.2), ("Cu", "Cu"): (1.0, 2.9)})
        if with_core
        else None
    )
    # Cells below the cutoff's reach, so that several images of an atom are its neighbours.
    cells = [alloy(1), alloy(2, repeat=1), alloy(3, rattle=0.3)]
    text = job_text(
        potential,
        [(atoms, 300.0, 0.0, 0, 1) for atoms in cells],
        timestep_fs=1.0,
        npt_steps=0,
        steps=0,
        frame_steps=1,
    )
    lines = run(program(potential, tmp_path, core), tmp_path, text, 0.0).read_text().split("\n")
    for atoms in cells:
        values = [[float(word) for word in line.split()] for line in lines[: 1 + len(atoms)]]
        lines = lines[1 + len(atoms) :]
        atoms.calc = MTPCalculator(potential, core=core)
        forces = atoms.get_forces()
        np.testing.assert_allclose(values[0][1], atoms.get_potential_energy(), rtol=1e-12)
        np.testing.assert_allclose(values[1:], forces, rtol=0, atol=1e-10 * np.abs(forces).max())
        stress = atoms.get_stress()[:3]
        np.testing.assert_allclose(values[0][2:], stress, rtol=0, atol=1e-11 * np.abs(stress).max())


@pytest.mark.slow
def test_a_level_12_potential_of_six_species_agrees_too(tmp_path: Path) -> None:
    from atomistic.cells import llzo

    potential = read_mtp(LEVEL12)
    rng = np.random.default_rng(3)
    atoms = llzo(ta=0.5, al=0.25, rng=rng)
    atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
    text = job_text(
        potential, [(atoms, 300.0, 0.0, 0, 1)], timestep_fs=1.0, npt_steps=0, steps=0, frame_steps=1
    )
    out = run(program(potential, tmp_path), tmp_path, text, 0.0).read_text().split("\n")
    atoms.calc = MTPCalculator(potential)
    forces = np.array([[float(word) for word in line.split()] for line in out[1 : 1 + len(atoms)]])
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(float(out[0].split()[1]), atoms.get_potential_energy(), rtol=1e-12)


def test_energy_is_kept_to_second_order_of_the_time_step(tmp_path: Path) -> None:
    potential, atoms = read_mtp(DATA), [alloy(5, rattle=0.02)]
    binary, spread = program(potential, tmp_path), []
    for timestep in (2.0, 4.0):
        steps = round(400 / timestep)
        out = dynamics(
            binary, tmp_path, potential, atoms, temperature=300.0, timestep_fs=timestep, npt_steps=0,
            steps=steps, frame_steps=steps // 20, thermostat_ps=0.0, barostat=0,
        )  # fmt: skip
        kinetic = 0.5 * (3 * len(atoms[0]) - 3) * BOLTZMANN * out.reports[:, 0, 0]
        total = out.reports[:, 0, 1] + kinetic
        assert np.ptp(kinetic) > 20 * np.ptp(total)
        spread.append(np.std(total[1:]))
    assert 3.0 < spread[1] / spread[0] < 5.5


def test_runs_repeat_and_neighbour_lists_do_not_matter(tmp_path: Path) -> None:
    potential, atoms = read_mtp(DATA), [alloy(6, rattle=0.02), alloy(7, rattle=0.02)]
    binary = program(potential, tmp_path)
    key: dict[str, Any] = {"temperature": 900.0, "timestep_fs": 2.0, "npt_steps": 40, "steps": 60}
    key |= {"frame_steps": 20, "resolution": 2.0**-12}
    dynamics(binary, tmp_path, potential, atoms, **key)
    first = (tmp_path / "out.bin").read_bytes()
    out = dynamics(binary, tmp_path, potential, atoms, **key)
    assert (tmp_path / "out.bin").read_bytes() == first
    final = np.array(out.final)
    wide = dynamics(binary, tmp_path, potential, atoms, **key, skin=2.0)
    np.testing.assert_allclose(wide.final, final, rtol=0, atol=1e-6)
    # Alone, a replica does what it did in company.
    alone = dynamics(binary, tmp_path, potential, atoms[:1], **key)
    np.testing.assert_array_equal(alone.final, final[: len(atoms[0])])


def test_temperature_and_its_fluctuation_are_canonical(tmp_path: Path) -> None:
    potential = read_mtp(DATA)
    atoms = [alloy(k, repeat=1, rattle=0.02) for k in range(40)]
    out = dynamics(
        program(potential, tmp_path), tmp_path, potential, atoms, temperature=500.0, timestep_fs=3.0,
        npt_steps=0, steps=1500, frame_steps=50, barostat=0,
    )  # fmt: skip
    temperatures = out.reports[10:, :, 0]
    freedom = 3 * len(atoms[0]) - 3
    assert out.reports[:, :, 6].max() == 0
    np.testing.assert_allclose(temperatures.mean(), 500.0, rtol=0.02)
    np.testing.assert_allclose(temperatures.var(), 2 * 500.0**2 / freedom, rtol=0.2)


def test_displacements_cross_the_boundaries_of_the_cell(tmp_path: Path) -> None:
    potential, atoms = read_mtp(DATA), [alloy(8, rattle=0.02)]
    close = dict.fromkeys((("Al", "Al"), ("Al", "Cu"), ("Cu", "Cu")), (1.6, 2.4))
    core = RepulsiveCore.of_pairs(potential.species, close)
    out = dynamics(
        program(potential, tmp_path, core), tmp_path, potential, atoms, temperature=8000.0, timestep_fs=1.0,
        npt_steps=0, steps=1500, frame_steps=5, barostat=0,
    )  # fmt: skip
    assert out.reports[:, :, 6].max() == 0
    positions = out.origin + out.moves * out.resolution
    assert np.abs(out.moves[-1]).max() * out.resolution > 1.5
    # No jumps: an ion moves less than an atomic distance between frames of 5 fs.
    assert np.abs(np.diff(positions, axis=0)).max() < 0.5
    np.testing.assert_allclose(positions[-1], out.final, rtol=0, atol=0.5 * RESOLUTION + 1e-9)


SETTINGS = """
potential = "al_cu.mtp"
seeds = [1, 2]

[cell]
kind = "file"
path = "alloy.xyz"

[equilibration]
temperature = 400
ramp_ps = 0.1
npt_ps = 0.4

[production]
temperatures = [500, 350]
ramp_ps = 0.1
npt_ps = 0.4
time_ps = 0.8
frame_interval_ps = 0.1
"""


@pytest.fixture
def campaign(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    shutil.copyfile(DATA, inputs / "al_cu.mtp")
    atoms = bulk("Al", a=3.9, cubic=True).repeat((2, 2, 2))
    atoms.numbers[::3] = 29
    write(inputs / "alloy.xyz", atoms)
    (inputs / "alloy.toml").write_text(SETTINGS, encoding="utf-8")
    if core := getattr(request, "param", ""):
        (inputs / "al_cu.core").write_text(core, encoding="utf-8")
    run_campaign(read_settings(inputs / "alloy.toml"), tmp_path / "runs" / "alloy", base=inputs, until="mcmd")
    return tmp_path / "runs" / "alloy"


CORE = "Al Al 2.2 3.2\nAl Cu 2.2 3.2\nCu Cu 2.2 3.2\n"


@pytest.mark.parametrize("campaign", ["", CORE], ids=["no core", "core"], indirect=True)
def test_a_batch_goes_out_and_comes_back(campaign: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    index = export_batch([campaign], batch)
    assert [(row["temperature_K"], row["seed"]) for row in index["replicas"]] == [
        (350.0, 1), (350.0, 2), (500.0, 1), (500.0, 2),
    ]  # fmt: skip
    with pytest.raises(FileFormatError, match="run the batch first"):
        import_batch(batch)
    assert "4 replicas" in run_batch(batch, gpu=False)
    records = import_batch(batch)
    assert [record["stopped"] for record in records] == [None] * 4
    runs = Campaign.load(campaign).by_temperature()
    assert sorted(runs) == [350.0, 500.0]
    potential = read_mtp(DATA)
    for run_ in [*runs[350.0], *runs[500.0]]:
        frames = run_.open().read()
        np.testing.assert_allclose(frames.times, 0.1 * np.arange(9), rtol=0, atol=1e-9)
        assert run_.record["time_ps"] == pytest.approx(run_.record["wanted_ps"]) == pytest.approx(0.8)
        assert abs(run_.record["mean_temperature_K"] / run_.temperature - 1) < 0.4
        np.testing.assert_allclose(
            abs(np.linalg.det(frames.cells[0])), run_.record["mean_volume_A3"], rtol=1e-9
        )
        # The stored energy is that of the stored frame, to the rounding of its positions.
        from ase.io import read

        final = read(run_.folder / "final.extxyz")
        final.calc = MTPCalculator(potential, core=Campaign.load(campaign).core)
        import pandas as pd

        table = pd.read_csv(run_.folder / "thermo.csv")
        np.testing.assert_allclose(
            final.get_potential_energy(), table["potential_energy_eV"].iloc[-1], rtol=1e-7
        )
        np.testing.assert_allclose(
            final.get_temperature() * len(final) / (len(final) - 1),
            table["temperature_K"].iloc[-1],
            rtol=1e-6,
        )
    # Nothing is open any more; what is there is not touched.
    with pytest.raises(InputError, match="none has an open run"):
        export_batch([campaign], tmp_path / "second")
    before = (runs[350.0][0].folder / "run.json").read_bytes()
    assert import_batch(batch) == []
    assert (runs[350.0][0].folder / "run.json").read_bytes() == before


def test_a_runaway_run_ends_with_its_last_sound_frame(campaign: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    export_batch([campaign], batch)
    text = (batch / "job.txt").read_text()
    # Two atoms of the first replica on top of each other.
    lines = text.split("\n")
    first = next(k for k, line in enumerate(lines) if line.startswith("replica")) + 2
    x = lines[first].split()
    lines[first + 1] = " ".join([lines[first + 1].split()[0], x[1], x[2], repr(float(x[3]) + 0.3)])
    (batch / "job.txt").write_text("\n".join(lines))
    run_batch(batch, gpu=False)
    records = import_batch(batch)
    assert [record["stopped"] for record in records] == ["temperature", None, None, None]
    assert records[0]["stopped_in"] == "npt"
    assert records[0]["time_ps"] == 0.0
    assert records[0]["mean_temperature_K"] is None
    assert len(Campaign.load(campaign).by_temperature()[350.0]) == 1


def test_what_cannot_be_exported_or_run_is_refused(campaign: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    runner = CliRunner()
    assert runner.invoke(app, ["batch-export", str(campaign), "--out", str(batch)]).exit_code == 0
    with pytest.raises(InputError, match="a batch is there"):
        export_batch([campaign], batch)
    with pytest.raises(InputError, match="positive time"):
        run_batch(batch, seconds=0.0)
    (tmp_path / "broken").mkdir()
    shutil.copyfile(SOURCE, tmp_path / "broken" / SOURCE.name)
    (tmp_path / "broken" / "batch_model.h").write_text("this is no C++")
    with pytest.raises(CompilerError, match="did not compile"):
        compile_batch(tmp_path / "broken", gpu=False)
    text = (batch / "job.txt").read_text()
    for old, new, message in (
        ("mtp-batch-2", "mtp-batch-0", "no job of this program"),
        ("potential ", "potential x", "compiled for"),
        ("skin 0.6", "shin 0.6", "unknown key shin"),
        ("timestep_ps 0.002", "timestep_ps -1", "must be positive"),
    ):
        (batch / "job.txt").write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=message):
            run_batch(batch, gpu=False)
    (batch / "job.txt").write_text(text[:-40])
    with pytest.raises(InputError, match="ends or is damaged"):
        run_batch(batch, gpu=False)
    (batch / "job.txt").write_text(text)
    run_batch(batch, gpu=False)
    whole = (batch / "out.bin").read_bytes()
    for damaged in (whole[:-7], whole[:40], b"nonsense" + whole[8:]):
        (batch / "out.bin").write_bytes(damaged)
        with pytest.raises(FileFormatError, match="run the batch again"):
            import_batch(batch)
    (batch / "out.bin").write_bytes(whole)
    index = json.loads((batch / "index.json").read_text())
    (batch / "index.json").write_text(json.dumps(index | {"potential": "0" * 64}))
    with pytest.raises(InputError, match="the potential of the batch"):
        import_batch(batch)
    (batch / "index.json").write_text(json.dumps(index))
    result = runner.invoke(app, ["batch-import", str(batch)])
    assert result.exit_code == 0, result.output
    assert "4 runs, 4 complete" in result.output
