"""Labels: what is stored, that nothing is labelled twice, resuming, and inputs and outputs of external programs."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from atomistic.dft import EspressoTeacher, VaspTeacher
from atomistic.errors import FileFormatError, FramesError, InputError
from atomistic.labels import (
    LabelStore,
    import_labels,
    labels_of,
    normalised,
    read_frames,
    structure_hash,
    whole_frames,
    write_frames,
)
from atomistic.teachers import (
    LabelsPendingError,
    Teacher,
    TeacherError,
    ase_teacher,
    chgnet_teacher,
    label_frames,
    mace_teacher,
    make_teacher,
    mlip_teacher,
)


def copper(count: int, seed: int = 0) -> list[Atoms]:
    frames = []
    for k in range(count):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.rattle(0.1, seed=seed + k)
        atoms.info["group"] = f"set{k % 2}"
        frames.append(atoms)
    return frames


EMT_TEACHER = ase_teacher("emt")


class Counting(Calculator):
    """EMT that writes a line for every structure it is asked for, and fails where told to."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, log: str, bad: float = np.inf, pause: float = 0.0) -> None:
        super().__init__()
        self.log, self.bad, self.pause = log, bad, pause

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        time.sleep(self.pause)
        with open(self.log, "a") as stream:
            stream.write(structure_hash(atoms) + "\n")
        other = atoms.copy()
        other.calc = EMT()
        forces = other.get_forces()
        if atoms.positions[0, 0] > self.bad:
            forces = forces * np.nan
        self.results = {
            "energy": other.get_potential_energy(),
            "forces": forces,
            "stress": other.get_stress(),
        }


def counting(log: str, bad: float = np.inf, pause: float = 0.0) -> Counting:
    return Counting(log, bad, pause)


def test_labels_are_the_teachers_and_survive_the_file(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.xyz", EMT_TEACHER.name, EMT_TEACHER.version)
    frames = copper(3)
    report = label_frames(frames, EMT_TEACHER, store)
    assert (report.new, report.reused, report.refused) == (3, 0, [])
    for kept, stored in zip(store.frames, read_frames(tmp_path / "labels.xyz"), strict=True):
        # to the last digit: a resumed run must see the same numbers as the one that labelled
        assert labels_of(kept)[0] == labels_of(stored)[0]
        assert np.array_equal(labels_of(kept)[1], labels_of(stored)[1])
        assert np.array_equal(kept.positions, stored.positions)
    for given, stored in zip(frames, read_frames(tmp_path / "labels.xyz"), strict=True):
        reference = normalised(given)
        reference.calc = EMT()
        energy, forces, stress = labels_of(stored)
        np.testing.assert_allclose(energy, reference.get_potential_energy(), rtol=1e-12, atol=0)
        np.testing.assert_allclose(forces, reference.get_forces(), rtol=0, atol=1e-8)
        assert stress is not None
        np.testing.assert_allclose(stress, reference.get_stress(voigt=False), rtol=0, atol=1e-8)
        assert stored.info["teacher"] == "emt"
        assert stored.info["teacher_version"].startswith("ase ")
        assert stored.info["structure"] == structure_hash(given) == structure_hash(stored)
        assert stored.info["group"] == given.info["group"]


def test_nothing_is_labelled_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    teacher = Teacher("counting", "1", partial(counting, str(log)))
    frames = copper(4)
    store = LabelStore(tmp_path / "labels.xyz", "counting", "1")
    label_frames([*frames[:2], frames[0]], teacher, store)
    assert label_frames(frames, teacher, store).new == 2
    reopened = LabelStore(tmp_path / "labels.xyz", "counting", "1")
    report = label_frames(frames, teacher, reopened, processes=2)
    assert (report.new, report.reused) == (0, 4)
    calls = log.read_text().split()
    assert len(calls) == len(set(calls)) == 4


def test_processes_give_the_same_labels_in_the_same_order(tmp_path: Path) -> None:
    """Sums over arrays differ in their last digit with where the arrays lie in memory, so not to the byte."""
    frames = copper(5)
    labelled = []
    for processes in (1, 2):
        path = tmp_path / f"{processes}.xyz"
        label_frames(frames, EMT_TEACHER, LabelStore(path, "emt", EMT_TEACHER.version), processes=processes)
        labelled.append(read(path, ":"))
    for one, two, frame in zip(*labelled, frames, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_allclose(one.positions, frame.positions, rtol=0, atol=1e-7)
        np.testing.assert_allclose(one.get_potential_energy(), two.get_potential_energy(), rtol=1e-12, atol=0)
        np.testing.assert_allclose(one.get_forces(), two.get_forces(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.get_stress(), two.get_stress(), rtol=0, atol=1e-13)


def test_bad_labels_are_refused_and_remembered(tmp_path: Path) -> None:
    log = tmp_path / "log"
    frames = copper(3)
    for frame in frames:
        frame.positions[0, 0] = 0.0
    frames[1].positions[0, 0] = 0.5
    teacher = Teacher("counting", "1", partial(counting, str(log), 0.4))
    store = LabelStore(tmp_path / "labels.xyz", "counting", "1")
    report = label_frames(frames, teacher, store)
    assert report.new == 2
    assert [index for index, _ in report.refused] == [1]
    assert "not a finite number" in report.refused[0][1]
    again = label_frames(frames, teacher, LabelStore(tmp_path / "labels.xyz", "counting", "1"))
    assert (again.new, len(again.refused)) == (0, 1)
    assert len(log.read_text().split()) == 3
    hot = label_frames(copper(2, seed=50), teacher, store, max_force=1e-3)
    assert len(hot.refused) == 2
    assert "eV/angstrom" in hot.refused[0][1]


def test_killed_labelling_resumes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from functools import partial
        from test_teachers import copper, counting
        from atomistic.labels import LabelStore
        from atomistic.teachers import Teacher, label_frames
        teacher = Teacher("counting", "1", partial(counting, {str(tmp_path / "log")!r}, pause=0.05))
        label_frames(copper(12), teacher, LabelStore({str(tmp_path / "labels.xyz")!r}, "counting", "1"))
        """
    )
    run = subprocess.Popen([sys.executable, "-c", script])
    log = tmp_path / "log"
    for _ in range(600):
        if log.exists() and len(log.read_text().split()) >= 4:
            break
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    with open(tmp_path / "labels.xyz", "a") as stream:
        stream.write("8\nLattice=")  # what a kill within a write leaves
    assert subprocess.run([sys.executable, "-c", script], timeout=100).returncode == 0
    calls = log.read_text().split()
    assert len(set(calls)) == 12
    assert len(calls) <= 13  # the one under way may be repeated
    found = read_frames(tmp_path / "labels.xyz", labelled=True)
    assert [structure_hash(f) for f in found] == [structure_hash(f) for f in copper(12)]


def test_store_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.xyz"
    label_frames(copper(2), EMT_TEACHER, LabelStore(path, "emt", EMT_TEACHER.version))
    with pytest.raises(InputError, match="this run's teacher is chgnet"):
        LabelStore(path, "chgnet", "0.3.0")
    with pytest.raises(InputError, match="teacher is emt"):
        label_frames(copper(1), EMT_TEACHER, LabelStore(tmp_path / "new.xyz", "chgnet", "0.3.0"))
    text = path.read_text()
    path.write_text(text.replace("\nCu ", "\nAu ", 1))
    with pytest.raises(FileFormatError, match="hash differs"):
        LabelStore(path, "emt", EMT_TEACHER.version)
    path.write_text("noise\n" + text)
    with pytest.raises(FileFormatError, match="line 1 is 'noise'"):
        LabelStore(path, "emt", EMT_TEACHER.version)


@pytest.mark.parametrize("cut", [1, 40, 200, 700])
def test_only_whole_frames_are_kept(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "labels.xyz"
    label_frames(copper(3), EMT_TEACHER, LabelStore(path, "emt", EMT_TEACHER.version))
    text = path.read_text()
    two = text.index("\n8\n", text.index("\n8\n") + 1) + 1
    assert whole_frames(text[: two + cut]) == text[:two]
    assert whole_frames(text) == text


def test_frames_without_labels_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "plain.xyz", copper(2))
    with pytest.raises(FramesError, match=r"plain\.xyz: frame 0 carries no energy and no forces"):
        read_frames(tmp_path / "plain.xyz", labelled=True)
    frame = copper(1)[0]
    frame.calc = SinglePointCalculator(frame, energy=np.nan, forces=np.zeros((8, 3)))
    with pytest.raises(FramesError, match="energy that is not a finite number"):
        labels_of(frame)
    with pytest.raises(FramesError, match="not finite"):
        normalised(Atoms("Cu", positions=[[np.nan, 0, 0]]))
    with pytest.raises(FileFormatError, match="no such file"):
        read_frames(tmp_path / "absent.xyz")
    (tmp_path / "damaged.xyz").write_text("3\nLattice\nH 0\n")
    with pytest.raises(FileFormatError, match="repair the file"):
        read_frames(tmp_path / "damaged.xyz")


def test_import_of_labels_made_elsewhere(tmp_path: Path) -> None:
    frames = copper(2)
    for frame in frames:
        frame.calc = EMT()
        frame.get_stress()
    store = LabelStore(tmp_path / "labels.xyz", "emt", EMT_TEACHER.version)
    assert import_labels(store, frames) == 2
    assert import_labels(store, frames) == 0
    with pytest.raises(InputError, match="two teachers must not be mixed"):
        import_labels(LabelStore(tmp_path / "other.xyz", "chgnet", "0.3.0"), store.frames)
    text = (tmp_path / "labels.xyz").read_text()
    store.add(store.frames[0])
    assert (tmp_path / "labels.xyz").read_text() == text
    np.testing.assert_allclose(
        labels_of(store.frames[0])[0], frames[0].get_potential_energy(), rtol=1e-12, atol=0
    )


def test_unknown_and_missing_teachers() -> None:
    with pytest.raises(InputError, match="ASE knows"):
        ase_teacher("no_such_calculator")
    with pytest.raises(InputError, match=r"0\.3\.0, r2scan"):
        chgnet_teacher("0.1")
    with pytest.raises(InputError, match="saved by the mlip library"):
        mlip_teacher("absent.zip")


@pytest.mark.skipif(importlib.util.find_spec("mace") is not None, reason="MACE is installed")
def test_missing_package_names_the_remedy(tmp_path: Path) -> None:
    teacher = mace_teacher("small")
    with pytest.raises(TeacherError, match="pip install mace-torch"):
        label_frames(copper(1), teacher, LabelStore(tmp_path / "x.xyz", teacher.name, teacher.version))


def test_failing_calculator_is_named(tmp_path: Path) -> None:
    frame = Atoms("Xe2", positions=[[0, 0, 0], [0, 0, 4.0]])
    report = label_frames([frame], EMT_TEACHER, LabelStore(tmp_path / "x.xyz", "emt", EMT_TEACHER.version))
    assert "emt failed on Xe2" in report.refused[0][1]


def finished_vasp_run() -> Atoms:

    with resources.as_file(resources.files("ase") / "test/testdata/vasp/vasprun_pstress.xml") as path:
        if not path.exists():
            pytest.skip("this ASE installation has no test data")
        return read(path)


def test_vasp_inputs_and_outputs(tmp_path: Path) -> None:
    done = finished_vasp_run()
    teacher = VaspTeacher(tmp_path / "vasp", incar={"encut": 400}, k_spacing=0.5)
    store = LabelStore(tmp_path / "labels.xyz", teacher.name, teacher.version)
    other = copper(1)[0]
    other.symbols[:] = "Zr"
    other.symbols[3] = "O"
    with pytest.raises(LabelsPendingError, match="2 VASP calculations wait"):
        label_frames([done, other], teacher, store)
    folder = teacher.folder_of(other)
    poscar = (folder / "POSCAR").read_text().splitlines()
    assert poscar[5].split() == ["O", "Zr"]
    assert poscar[6].split() == ["1", "7"]
    assert (folder / "POTCAR.spec").read_text().split() == ["O", "Zr"]
    assert "ENCUT = 400" in (folder / "INCAR").read_text()
    assert "NSW = 0" in (folder / "INCAR").read_text()
    # 2 pi / 7.22 angstrom and 2 pi / 3.61 angstrom in steps of 0.5 / angstrom
    assert (folder / "KPOINTS").read_text().splitlines()[3] == "2 4 4"
    source = resources.files("ase") / "test/testdata/vasp/vasprun_pstress.xml"
    (teacher.folder_of(done) / "vasprun.xml").write_bytes(source.read_bytes())
    with pytest.raises(LabelsPendingError, match="1 VASP calculations wait"):
        label_frames([done, other], teacher, store)
    energy, forces, stress = labels_of(store.frames[0])
    np.testing.assert_allclose(energy, done.get_potential_energy(), rtol=1e-12, atol=0)
    np.testing.assert_allclose(forces, done.get_forces(), rtol=0, atol=1e-8)
    assert stress is not None
    np.testing.assert_allclose(stress, done.get_stress(voigt=False), rtol=1e-7, atol=1e-10)
    # the same output beside another structure, and a cut-off one
    (folder / "vasprun.xml").write_bytes(source.read_bytes())
    report = label_frames([other], teacher, store)
    assert "output of another structure" in report.refused[0][1]
    # as many electronic steps as NELM allows: not converged
    limit = (folder / "vasprun.xml").read_text().replace('name="NELM">    60<', 'name="NELM">    9<')
    unconverged = done.copy()
    unconverged.positions += 1e-5
    unconverged.calc = None
    with pytest.raises(LabelsPendingError):
        label_frames([unconverged], teacher, store)
    (teacher.folder_of(unconverged) / "vasprun.xml").write_text(limit)
    assert "did not converge" in label_frames([unconverged], teacher, store).refused[0][1]
    third = copper(1, seed=9)[0]
    with pytest.raises(LabelsPendingError):
        label_frames([third], teacher, store)
    (teacher.folder_of(third) / "vasprun.xml").write_bytes(source.read_bytes()[:3000])
    assert "cannot be read" in label_frames([third], teacher, store).refused[0][1]


def test_vasp_settings_of_a_single_point(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="single point"):
        VaspTeacher(tmp_path, incar={"NSW": 100})
    teacher = VaspTeacher(tmp_path / "run", potcar_folder=tmp_path / "potcars", setups={"Cu": "Cu_pv"})
    store = LabelStore(tmp_path / "labels.xyz", teacher.name, teacher.version)
    with pytest.raises(InputError, match="Cu_pv"):
        label_frames(copper(1), teacher, store)
    (tmp_path / "potcars/Cu_pv").mkdir(parents=True)
    (tmp_path / "potcars/Cu_pv/POTCAR").write_text("PAW_PBE Cu_pv\n")
    with pytest.raises(LabelsPendingError):
        label_frames(copper(1), teacher, store)
    assert (teacher.folder_of(copper(1)[0]) / "POTCAR").read_text() == "PAW_PBE Cu_pv\n"


ESPRESSO_OUTPUT = """
     Program PWSCF v.7.3.1 starts on  1Oct2024 at 10:00:00
     bravais-lattice index     =            0
     lattice parameter (alat)  =       7.0000  a.u.
     unit-cell volume          =     343.0000 (a.u.)^3
     number of atoms/cell      =            2
     number of atomic types    =            2
     celldm(1)=   7.000000  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           Li  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           F   tau(   2) = (   0.5000000   0.5000000   0.4500000  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (   609 PWs)   bands (ev):

   -41.2000 -21.0000  -3.0000  -3.0000  -3.0000

     highest occupied level (ev):    -3.0000

!    total energy              =     -63.50000000 Ry

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.00000000    0.00000000    0.02000000
     atom    2 type  2   force =     0.00000000    0.00000000   -0.02000000

     Total force =     0.028284     Total SCF correction =     0.000001

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       10.00
   0.00006798   0.00000000   0.00000000           10.00        0.00        0.00
   0.00000000   0.00006798   0.00000000            0.00       10.00        0.00
   0.00000000   0.00000000   0.00006798            0.00        0.00       10.00

   JOB DONE.
"""


def test_espresso_inputs_and_outputs(tmp_path: Path) -> None:
    from ase.units import create_units

    units = create_units("2006")  # ASE reads the outputs of pw.x with these
    a = 7.0 * units["Bohr"]
    # fluorine first: the file has the species sorted, the label must come back in this order
    frame = Atoms("FLi", scaled_positions=[[0.5, 0.5, 0.45], [0, 0, 0]], cell=[a, a, a], pbc=True)
    teacher = EspressoTeacher(
        tmp_path / "qe",
        pseudopotentials={"Li": "Li.upf", "F": "F.upf"},
        input_data={"system": {"ecutwfc": 60}},
    )
    store = LabelStore(tmp_path / "labels.xyz", teacher.name, teacher.version)
    with pytest.raises(LabelsPendingError, match=r"pw\.x -in espresso\.pwi"):
        label_frames([frame], teacher, store)
    folder = teacher.folder_of(frame)
    text = (folder / "espresso.pwi").read_text()
    for part in ("tprnfor", "tstress", "ecutwfc", "Li.upf", "F.upf", "'scf'"):
        assert part in text
    (folder / "espresso.pwo").write_text(ESPRESSO_OUTPUT.replace("JOB DONE", ""))
    with pytest.raises(LabelsPendingError):
        label_frames([frame], teacher, store)
    (folder / "espresso.pwo").write_text(ESPRESSO_OUTPUT)
    assert label_frames([frame], teacher, store).new == 1
    energy, forces, stress = labels_of(store.frames[0])
    np.testing.assert_allclose(energy, -63.5 * units["Ry"], rtol=1e-9, atol=0)
    np.testing.assert_allclose(forces[0, 2], -0.02 * units["Ry"] / units["Bohr"], rtol=1e-6, atol=0)
    assert stress is not None
    # pw.x prints the pressure, ASE's stress has the opposite sign
    np.testing.assert_allclose(
        stress[0, 0], -0.00006798 * units["Ry"] / units["Bohr"] ** 3, rtol=1e-6, atol=0
    )
    with pytest.raises(InputError, match="ecutwfc"):
        EspressoTeacher(tmp_path, pseudopotentials={})
    lacking = EspressoTeacher(tmp_path / "b", pseudopotentials={}, input_data={"system": {"ecutwfc": 60}})
    with pytest.raises(InputError, match="name a file for each"):
        label_frames([frame], lacking, LabelStore(tmp_path / "b.xyz", lacking.name, lacking.version))


def test_settings_choose_the_teacher(tmp_path: Path) -> None:
    from pydantic import TypeAdapter, ValidationError

    from atomistic.teachers import TeacherSettings

    adapter: TypeAdapter[Any] = TypeAdapter(TeacherSettings)
    assert (
        make_teacher(adapter.validate_python({"kind": "chgnet", "weights": "r2scan"}), tmp_path).version
        == "r2scan"
    )
    made = make_teacher(adapter.validate_python({"kind": "ase", "calculator": "emt"}), tmp_path)
    assert (made.name, made.version) == (EMT_TEACHER.name, EMT_TEACHER.version)
    with pytest.raises(ValidationError, match="weight"):
        adapter.validate_python({"kind": "chgnet", "weight": "0.3.0"})


@pytest.mark.skipif(importlib.util.find_spec("chgnet") is None, reason='needs pip install "mesoion[train]"')
@pytest.mark.parametrize("weights", ["0.3.0", "r2scan"])
def test_chgnet_forces_are_slopes_of_its_energy(weights: str, tmp_path: Path) -> None:
    atoms = bulk("MgO", "rocksalt", a=4.3, cubic=True)
    atoms.rattle(0.05, seed=3)
    teacher = chgnet_teacher(weights)
    frames = [atoms]
    step = 0.01
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * step
        frames.append(moved)
    found = label_frames(frames, teacher, LabelStore(tmp_path / "l.xyz", "chgnet", weights)).frames
    energies = [labels_of(frame)[0] for frame in found]
    slope = -(energies[1] - energies[2]) / (2 * step)
    np.testing.assert_allclose(labels_of(found[0])[1][2, 1], slope, rtol=0.02, atol=0.01)
