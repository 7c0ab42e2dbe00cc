"""VASP and Quantum ESPRESSO as teachers: inputs of single points written, their outputs read back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atomistic.errors import InputError
from atomistic.teachers import FileTeacher, TeacherError

if TYPE_CHECKING:
    from ase import Atoms


def _sorted(atoms: Atoms) -> Atoms:
    return atoms[np.argsort(atoms.get_atomic_numbers(), kind="stable")]


def _kpoints(atoms: Atoms, spacing: float) -> tuple[int, int, int]:
    """Divisions whose spacing is at most `spacing` 1/angstrom (2 pi included)."""
    lengths = 2 * np.pi * np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    counts = np.maximum(1, np.ceil(lengths / spacing - 1e-9)).astype(int)
    return int(counts[0]), int(counts[1]), int(counts[2])


def _read(path: Path, **options: Any) -> Atoms:
    from ase.io import read

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms: Any = read(path, **options)
            return atoms  # type: ignore[no-any-return]
    except Exception as error:
        # Cut-off outputs make ASE's readers raise anything, from ParseError to IndexError.
        raise TeacherError(
            f"{path} cannot be read ({type(error).__name__}: {error}); the run failed or was cut short: repeat it"
        ) from error


class VaspTeacher(FileTeacher):
    """VASP single points: POSCAR, INCAR, KPOINTS (and POTCAR where `potcar_folder` has the parts) written.

    incar: tags of the INCAR; NSW = 0, ISIF = 2 and ICHARG-free defaults of a single point are added and may not be
    contradicted. k_spacing: 1/angstrom. setups: POTCAR folder by element ("Zr_sv"); the element itself unless given.
    Outputs are read from vasprun.xml; a run whose electronic steps did not converge is refused.
    """

    program, command = "VASP", "vasp_std"
    DEFAULTS: Final[dict[str, Any]] = {
        "ENCUT": 520,
        "EDIFF": 1e-6,
        "PREC": "Accurate",
        "ISMEAR": 0,
        "SIGMA": 0.05,
        "LREAL": "Auto",
        "LWAVE": False,
        "LCHARG": False,
    }

    def __init__(
        self,
        folder: str | Path,
        *,
        incar: Mapping[str, Any] | None = None,
        k_spacing: float = 0.3,
        setups: Mapping[str, str] | None = None,
        potcar_folder: str | Path | None = None,
    ) -> None:
        tags = {**self.DEFAULTS, **{key.upper(): value for key, value in (incar or {}).items()}}
        for key, value in (("NSW", 0), ("IBRION", -1), ("ISIF", 2)):
            if tags.setdefault(key, value) != value:
                raise InputError(f"teacher.incar.{key}", tags[key], f"a single point needs {value}")
        self.incar, self.k_spacing, self.setups = tags, k_spacing, dict(setups or {})
        self.potcar_folder = None if potcar_folder is None else Path(potcar_folder)
        text = " ".join(f"{k}={tags[k]}" for k in sorted(tags)) + f" k_spacing={k_spacing}"
        text += "".join(f" {k}:{v}" for k, v in sorted(self.setups.items()))
        super().__init__("vasp", text, folder)

    def write_inputs(self, atoms: Atoms, folder: Path) -> None:
        """POSCAR (species sorted by atomic number), INCAR, KPOINTS, POTCAR or the list POTCAR.spec."""
        from ase.io import write

        ordered = _sorted(atoms)
        write(folder / "POSCAR", ordered, format="vasp", direct=True, vasp5=True)
        lines = []
        for key, value in self.incar.items():
            text = {True: ".TRUE.", False: ".FALSE."}[value] if isinstance(value, bool) else value
            lines.append(f"{key} = {' '.join(map(str, text)) if isinstance(text, (list, tuple)) else text}\n")
        (folder / "INCAR").write_text("".join(lines))
        divisions = " ".join(map(str, _kpoints(atoms, self.k_spacing)))
        (folder / "KPOINTS").write_text(
            f"spacing {self.k_spacing} 1/angstrom\n0\nGamma\n{divisions}\n0 0 0\n"
        )
        species = list(dict.fromkeys(ordered.get_chemical_symbols()))
        names = [self.setups.get(symbol, symbol) for symbol in species]
        if self.potcar_folder is None:
            (folder / "POTCAR.spec").write_text("\n".join(names) + "\n")
            return
        parts = [self.potcar_folder / name / "POTCAR" for name in names]
        for part in parts:
            if not part.is_file():
                raise InputError("teacher.potcar_folder", str(part), "no such file; name it in setups")
        (folder / "POTCAR").write_bytes(b"".join(part.read_bytes() for part in parts))

    def read_output(self, atoms: Atoms, folder: Path) -> Atoms | None:
        """Read vasprun.xml (energy without entropy, extrapolated to zero smearing, as ASE takes it)."""
        path = folder / "vasprun.xml"
        if not path.exists():
            return None
        found = _read(path, format="vasp-xml", index=-1)
        steps, limit = _electronic_steps(path)
        if limit is not None and steps >= limit:
            raise TeacherError(f"{path}: the electronic steps did not converge within NELM = {limit}")
        return self.match(atoms, found, path)


def _electronic_steps(path: Path) -> tuple[int, int | None]:
    import xml.etree.ElementTree as ElementTree

    steps, limit = 0, None
    for _, element in ElementTree.iterparse(path):
        if element.tag == "i" and element.get("name") == "NELM" and element.text:
            limit = int(element.text)
        elif element.tag == "calculation":
            steps = len(element.findall("scstep"))
    return steps, limit


class EspressoTeacher(FileTeacher):
    """Quantum ESPRESSO single points: espresso.pwi written, espresso.pwo read.

    pseudopotentials: file name by element. input_data: sections of pw.x ({"system": {"ecutwfc": 60}, ...});
    calculation = scf, tprnfor and tstress are set. k_spacing: 1/angstrom (2 pi included).
    """

    program, command = "Quantum ESPRESSO", "pw.x -in espresso.pwi > espresso.pwo"

    def __init__(
        self,
        folder: str | Path,
        *,
        pseudopotentials: Mapping[str, str],
        input_data: Mapping[str, Mapping[str, Any]] | None = None,
        k_spacing: float = 0.3,
    ) -> None:
        data = {section.lower(): dict(values) for section, values in (input_data or {}).items()}
        control = data.setdefault("control", {})
        if control.setdefault("calculation", "scf") != "scf":
            raise InputError(
                "teacher.input_data.control.calculation", control["calculation"], "'scf' is needed"
            )
        control.update(tprnfor=True, tstress=True)
        if "ecutwfc" not in data.get("system", {}):
            raise InputError("teacher.input_data.system", data.get("system"), "ecutwfc (Ry) is needed")
        self.input_data, self.k_spacing = data, k_spacing
        self.pseudopotentials = dict(pseudopotentials)
        flat = [f"{k}={v}" for section in sorted(data) for k, v in sorted(data[section].items())]
        flat += [f"{k}:{v}" for k, v in sorted(self.pseudopotentials.items())]
        super().__init__("espresso", " ".join([*flat, f"k_spacing={k_spacing}"]), folder)

    def write_inputs(self, atoms: Atoms, folder: Path) -> None:
        """Write espresso.pwi; raises InputError for elements without a pseudopotential."""
        from ase.io import write

        lacking = sorted(set(atoms.get_chemical_symbols()) - set(self.pseudopotentials))
        if lacking:
            raise InputError("teacher.pseudopotentials", lacking, "name a file for each of these elements")
        write(
            folder / "espresso.pwi",
            _sorted(atoms),
            format="espresso-in",
            input_data=self.input_data,
            pseudopotentials=self.pseudopotentials,
            kpts=_kpoints(atoms, self.k_spacing),
        )

    def read_output(self, atoms: Atoms, folder: Path) -> Atoms | None:
        """Read espresso.pwo (None until it says JOB DONE); refuses runs that did not converge."""
        path = folder / "espresso.pwo"
        if not path.exists():
            return None
        text = path.read_text(errors="replace")
        if "convergence NOT achieved" in text:
            raise TeacherError(f"{path}: the electronic steps did not converge")
        if "JOB DONE" not in text:
            return None
        return self.match(atoms, _read(path, format="espresso-out", index=-1), path)
