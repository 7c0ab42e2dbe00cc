"""Teachers: whatever computes energies, forces and stresses to train on, behind one interface.

`Teacher` wraps any ASE calculator (CHGNet, MACE, the `mlip` library, GPAW, another moment tensor potential, ...).
Programs run elsewhere (VASP and Quantum ESPRESSO in `atomistic.dft`) are `FileTeacher`s: inputs are written, one
folder per structure, and outputs read back once they are there. Either way the labels go to a `LabelStore`.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from atomistic.errors import AtomisticError, FramesError, InputError
from atomistic.labels import LabelStore, attach, labels_of, normalised, structure_hash

if TYPE_CHECKING:
    from ase import Atoms

CHGNET_WEIGHTS: Final = ("0.3.0", "r2scan")


class TeacherError(AtomisticError):
    """A teacher is not installed, did not start, or failed on a structure."""


class LabelsPendingError(AtomisticError):
    """Inputs for an external program are written and wait to be run; `folders` are those without an output."""

    def __init__(self, program: str, folders: Sequence[Path], command: str) -> None:
        self.folders = list(folders)
        super().__init__(
            f"{len(self.folders)} {program} calculations wait to be run, the first in {self.folders[0]}; "
            f"run {command} in each folder, then give the same command again"
        )


@dataclass(frozen=True)
class Teacher:
    """Any ASE calculator as a teacher.

    name, version: stored with every label; a change of either starts a new label file.
    factory: makes the calculator; it must be picklable (a module's function or a `functools.partial` of one) for
    labelling in several processes.
    """

    name: str
    version: str
    factory: Callable[[], Any]

    def label(self, atoms: Atoms, calculator: Any = None) -> Atoms:
        """The normalised structure with energy, forces and, where the calculator gives one, stress.

        calculator: one made earlier by `factory`. Raises TeacherError where the calculator fails, FramesError
        where its numbers are not finite.
        """
        frame = atoms.copy()
        frame.calc = self.factory() if calculator is None else calculator
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the teacher's own packages
                energy, forces = frame.get_potential_energy(), frame.get_forces()
                stress = None
                if frame.cell.rank == 3 and "stress" in getattr(frame.calc, "implemented_properties", ()):
                    stress = frame.get_stress(voigt=True)
        except AtomisticError:
            raise
        except Exception as error:
            # Calculators raise their own kinds of exception; the user needs the structure and the message.
            raise TeacherError(
                f"{self.name} failed on {atoms.get_chemical_formula()}: {type(error).__name__}: {error}"
            ) from error
        plain = atoms.copy()
        plain.calc = None
        return attach(plain, energy, forces, stress)


@dataclass
class LabelReport:
    """What `label_frames` did: new labels, labels found in the store, and refused structures with the reason."""

    new: int = 0
    reused: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    frames: list[Atoms] = field(default_factory=list)


_worker: tuple[Teacher, Any] | None = None


def _start_worker(teacher: Teacher) -> None:
    global _worker
    _single_thread()
    _worker = (teacher, teacher.factory())


def _label_one(job: tuple[int, Atoms]) -> tuple[int, Atoms | None, str]:
    assert _worker is not None
    teacher, calculator = _worker
    try:
        return job[0], teacher.label(job[1], calculator), ""
    except (TeacherError, FramesError) as error:
        return job[0], None, str(error)


def _single_thread() -> None:
    # Two torch threads on a loaded machine cost tenfold.
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _label_stream(
    teacher: Teacher, jobs: list[tuple[int, Atoms]], processes: int
) -> Iterator[tuple[int, Atoms | None, str]]:
    if processes == 1 or len(jobs) == 1:
        calculator = teacher.factory()
        for index, frame in jobs:
            try:
                labelled, reason = teacher.label(frame, calculator), ""
            except (TeacherError, FramesError) as error:
                yield index, None, str(error)
            else:
                yield index, labelled, reason
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(jobs)), _start_worker, (teacher,)) as pool:
        yield from pool.imap(_label_one, jobs)


def label_frames(
    frames: Sequence[Atoms],
    teacher: Teacher | FileTeacher,
    store: LabelStore,
    *,
    processes: int = 1,
    max_force: float | None = None,
    show: bool | None = None,
) -> LabelReport:
    """Label what the store does not hold yet; every label is on disk before the next is begun.

    frames: structures; `info["group"]` is kept. store: of the same teacher. processes: in parallel, one thread
    each. max_force: eV/angstrom; structures with a larger force are refused, remembered, and not labelled again.
    Returns the labelled frames in the order given (refused ones left out). Raises TeacherError where the teacher
    cannot be started, LabelsPendingError where an external program has to be run first.
    """
    from atomistic.progress import track

    if processes < 1:
        raise InputError("processes", processes, "at least 1 is needed")
    if (store.teacher, store.version) != (teacher.name, teacher.version):
        raise InputError(
            "store", f"{store.teacher} {store.version}", f"the teacher is {teacher.name} {teacher.version}"
        )
    plain = [normalised(f, **{k: v for k, v in f.info.items() if k == "group"}) for f in frames]
    report = LabelReport()
    with store.locked():
        seen: set[str] = set()
        jobs: list[tuple[int, Atoms]] = []
        for index, frame in enumerate(plain):
            key = structure_hash(frame)
            if frame in store:
                report.reused += 1
            elif key not in seen and not store.is_refused(frame):
                jobs.append((index, frame))
            seen.add(key)
        if jobs:
            if isinstance(teacher, FileTeacher):
                stream = teacher.stream(jobs)
            else:
                stream = _label_stream(teacher, jobs, processes)
            for index, labelled, reason in track(stream, f"labels by {teacher.name}", len(jobs), show=show):
                if labelled is not None and max_force is not None:
                    largest = float(np.abs(labels_of(labelled)[1]).max())
                    if largest > max_force:
                        labelled, reason = None, f"a force of {largest:.1f} eV/angstrom"
                if labelled is None:
                    store.refuse(plain[index], reason)
                else:
                    store.add(labelled)
                    report.new += 1
    for index, frame in enumerate(plain):
        found = store.get(frame)
        if found is not None:
            report.frames.append(found)
        else:
            report.refused.append((index, store.refused.get(structure_hash(frame), "no label")))
    return report


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _missing(what: str, remedy: str, error: ImportError) -> TeacherError:
    return TeacherError(f"{what} is not installed ({error}); install it with: {remedy}")


def _chgnet_calculator(weights: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from chgnet.model.dynamics import CHGNetCalculator
            from chgnet.model.model import CHGNet
    except ImportError as error:
        raise _missing("CHGNet", 'pip install "mesoion[train]"', error) from None
    torch.set_num_threads(1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = CHGNet.load(model_name=weights, use_device="cpu", verbose=False)
        return CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="ignore")


def chgnet_teacher(weights: str = "0.3.0") -> Teacher:
    """CHGNet with the weights in its wheel: "0.3.0" (PBE+U, MPtrj) or "r2scan"; on the CPU, one thread.

    Source: Deng et al., Nat. Mach. Intell. 5, 1031 (2023). Its migration barriers are known to be too low
    against the functional it was trained on.
    """
    if weights not in CHGNET_WEIGHTS:
        raise InputError("teacher.weights", weights, f"one of {', '.join(CHGNET_WEIGHTS)} is expected")
    return Teacher("chgnet", f"{weights}", partial(_chgnet_calculator, weights))


def _mace_calculator(model: str, head: str | None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mace.calculators import MACECalculator, mace_mp  # type: ignore[import-not-found]
    except ImportError as error:
        raise _missing("MACE", "pip install mace-torch", error) from None
    _single_thread()
    extra = {} if head is None else {"head": head}
    if Path(model).exists():
        return MACECalculator(model_paths=[model], device="cpu", default_dtype="float64", **extra)
    return mace_mp(model=model, device="cpu", default_dtype="float64", **extra)


def mace_teacher(model: str, head: str | None = None) -> Teacher:
    """MACE: a model file, or the name of a foundation model that `mace_mp` knows ("small", "medium-mpa-0", ...)."""
    path = Path(model)
    identity = f"{path.name} {_file_hash(path)[:12]}" if path.exists() else model
    return Teacher(
        "mace", f"{identity} (mace-torch {_version('mace-torch')})", partial(_mace_calculator, model, head)
    )


MLIP_ARCHITECTURES: Final = ("Mace", "Nequip", "Visnet")


def _mlip_calculator(model: str, architecture: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlip.models
            from mlip.models.model_io import load_model_from_zip
            from mlip.simulation.ase.mlip_ase_calculator import MLIPForceFieldASECalculator
    except ImportError as error:
        raise _missing("The mlip library", 'pip install "mesoion[mlip]"', error) from None
    force_field = load_model_from_zip(getattr(mlip.models, architecture), model)
    return _PerStructure(
        lambda atoms: MLIPForceFieldASECalculator(
            atoms=atoms, edge_capacity_multiplier=1.25, force_field=force_field, allow_nodes_to_change=True
        )
    )


class _PerStructure:
    """A calculator made anew for every structure, where a library fixes the number of atoms at the start."""

    implemented_properties = ("energy", "forces")

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def get_potential_energy(self, atoms: Any, force_consistent: bool = False) -> float:
        self._inner = self._make(atoms)
        return float(np.asarray(self._inner.get_potential_energy(atoms)))

    def get_forces(self, atoms: Any) -> Any:
        return np.asarray(self._inner.get_forces(atoms), float)


def mlip_teacher(model: str, architecture: str = "Mace") -> Teacher:
    """A model of the `mlip` library (JAX): the .zip it saved, and its architecture. Gives no stress."""
    path = Path(model)
    if architecture not in MLIP_ARCHITECTURES:
        raise InputError(
            "teacher.architecture", architecture, f"one of {', '.join(MLIP_ARCHITECTURES)} is expected"
        )
    if not path.is_file():
        raise InputError("teacher.model", model, "the path of a model saved by the mlip library is expected")
    version = f"{path.name} {_file_hash(path)[:12]} (mlip {_version('mlip')})"
    return Teacher("mlip", version, partial(_mlip_calculator, model, architecture))


def _mtp_calculator(path: str) -> Any:
    from atomistic.mtp.calculator import MTPCalculator
    from atomistic.mtp.potential import read_mtp

    return MTPCalculator(read_mtp(path))


def mtp_teacher(path: str | Path) -> Teacher:
    """A moment tensor potential as the teacher of another one (distillation, and tests of the training)."""
    return Teacher("mtp", _file_hash(Path(path))[:16], partial(_mtp_calculator, str(path)))


def _ase_calculator(name: str, parameters: Mapping[str, Any]) -> Any:
    from ase.calculators.calculator import get_calculator_class

    try:
        return get_calculator_class(name)(**parameters)
    except ImportError as error:
        raise _missing(f"ASE's calculator {name!r}", "the package it belongs to", error) from None
    except Exception as error:
        raise TeacherError(f"ASE's calculator {name!r} did not start: {error}") from error


def ase_teacher(
    name: str, parameters: Mapping[str, Any] | None = None, version: str | None = None
) -> Teacher:
    """One of ASE's calculators by its name ("emt", "lj", "gpaw", "aims", ...), with its parameters.

    version: free text stored with the labels; the parameters and ASE's version unless given.
    """
    from ase.calculators.names import names

    given = dict(parameters or {})
    if name not in names:
        raise InputError("teacher.calculator", name, f"ASE knows {', '.join(sorted(names))}")
    text = ", ".join(f"{key}={given[key]}" for key in sorted(given))
    identity = version or f"ase {_version('ase')}" + (f" ({text})" if text else "")
    return Teacher(name, identity, partial(_ase_calculator, name, given))


def _file_hash(path: Path) -> str:
    import hashlib

    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            "teacher.model", str(path), f"a readable file is expected ({error.strerror})"
        ) from None


class FileTeacher(ABC):
    """A program that is run outside: one folder per structure, named by its hash, below `folder`.

    Subclasses write the inputs (`write_inputs`) and read the finished output (`read_output`).
    """

    program = "external"
    command = "the program"

    def __init__(self, name: str, version: str, folder: str | Path) -> None:
        self.name, self.version, self.folder = name, version, Path(folder)

    def folder_of(self, atoms: Atoms) -> Path:
        """Where the inputs and outputs of this structure are."""
        return self.folder / structure_hash(normalised(atoms))[:20]

    @abstractmethod
    def write_inputs(self, atoms: Atoms, folder: Path) -> None:
        """Write the program's inputs for one structure."""

    @abstractmethod
    def read_output(self, atoms: Atoms, folder: Path) -> Atoms | None:
        """The labelled structure, or None while the output is not there. Raises TeacherError for failed runs."""

    def stream(self, jobs: Sequence[tuple[int, Atoms]]) -> Iterator[tuple[int, Atoms | None, str]]:
        """Labels of the finished structures; then inputs of the others and LabelsPendingError."""
        waiting: list[Path] = []
        for index, frame in jobs:
            folder = self.folder_of(frame)
            try:
                labelled = self.read_output(frame, folder) if folder.is_dir() else None
            except (TeacherError, FramesError) as error:
                yield index, None, str(error)
                continue
            if labelled is not None:
                yield index, labelled, ""
                continue
            if not (folder / "structure.extxyz").exists():
                from atomistic.labels import write_frames

                folder.mkdir(parents=True, exist_ok=True)
                self.write_inputs(frame, folder)
                write_frames(folder / "structure.extxyz", [frame])  # last: it marks complete inputs
            waiting.append(folder)
        if waiting:
            raise LabelsPendingError(self.program, waiting, self.command)

    def match(self, atoms: Atoms, found: Atoms, path: Path) -> Atoms:
        """Labels of `found`, in the order of `atoms`; the structure must be the same to 1e-4 angstrom."""
        energy, forces, stress = labels_of(found, str(path))
        order = np.argsort(atoms.get_atomic_numbers(), kind="stable")
        same = len(found) == len(atoms) and np.array_equal(
            found.get_atomic_numbers(), atoms.get_atomic_numbers()[order]
        )
        if same:
            shift = found.get_positions() - atoms.get_positions()[order]
            fractional = np.linalg.solve(atoms.cell.array.T, shift.T).T
            residue = (fractional - np.rint(fractional)) @ atoms.cell.array
            same = np.abs(residue).max() < 1e-4 and np.allclose(found.cell.array, atoms.cell.array, atol=1e-4)
        if not same:
            raise TeacherError(
                f"{path} is the output of another structure than {path.parent / 'structure.extxyz'}; "
                "the atoms must not be moved (a single point is expected)"
            )
        reordered = np.empty_like(forces)
        reordered[order] = forces
        return attach(atoms, energy, reordered, stress)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChgnetSettings(_Settings):
    """teacher = {kind = "chgnet", weights = "0.3.0"}"""

    kind: Literal["chgnet"] = "chgnet"
    weights: Literal["0.3.0", "r2scan"] = "0.3.0"


class MaceSettings(_Settings):
    """teacher = {kind = "mace", model = "medium-mpa-0"}"""

    kind: Literal["mace"]
    model: str
    head: str | None = None


class MlipSettings(_Settings):
    """teacher = {kind = "mlip", model = "mace_organics.zip", architecture = "Mace"}"""

    kind: Literal["mlip"]
    model: str
    architecture: Literal["Mace", "Nequip", "Visnet"] = "Mace"


class MtpSettings(_Settings):
    """teacher = {kind = "mtp", path = "other.mtp"}"""

    kind: Literal["mtp"]
    path: str


class AseSettings(_Settings):
    """teacher = {kind = "ase", calculator = "gpaw", parameters = {xc = "PBE"}}"""

    kind: Literal["ase"]
    calculator: str
    parameters: dict[str, Any] = {}
    version: str | None = None


class VaspSettings(_Settings):
    """teacher = {kind = "vasp", incar = {ENCUT = 520}, k_spacing = 0.3}"""

    kind: Literal["vasp"]
    incar: dict[str, Any] = {}
    k_spacing: Annotated[float, Field(gt=0)] = 0.3
    setups: dict[str, str] = {}
    potcar_folder: str | None = None


class EspressoSettings(_Settings):
    """teacher = {kind = "espresso", pseudopotentials = {O = "O.upf"}, input_data = {system = {ecutwfc = 60}}}"""

    kind: Literal["espresso"]
    pseudopotentials: dict[str, str]
    input_data: dict[str, dict[str, Any]] = {}
    k_spacing: Annotated[float, Field(gt=0)] = 0.3


TeacherSettings = Annotated[
    ChgnetSettings
    | MaceSettings
    | MlipSettings
    | MtpSettings
    | AseSettings
    | VaspSettings
    | EspressoSettings,
    Field(discriminator="kind"),
]


def make_teacher(settings: TeacherSettings, folder: str | Path) -> Teacher | FileTeacher:
    """The teacher of a run's settings; programs run elsewhere get their structures below `folder`."""
    match settings:
        case ChgnetSettings():
            return chgnet_teacher(settings.weights)
        case MaceSettings():
            return mace_teacher(settings.model, settings.head)
        case MlipSettings():
            return mlip_teacher(settings.model, settings.architecture)
        case MtpSettings():
            return mtp_teacher(settings.path)
        case AseSettings():
            return ase_teacher(settings.calculator, settings.parameters, settings.version)
        case VaspSettings():
            from atomistic.dft import VaspTeacher

            return VaspTeacher(
                folder,
                incar=settings.incar,
                k_spacing=settings.k_spacing,
                setups=settings.setups,
                potcar_folder=settings.potcar_folder,
            )
        case EspressoSettings():
            from atomistic.dft import EspressoTeacher

            return EspressoTeacher(
                folder,
                pseudopotentials=settings.pseudopotentials,
                input_data=settings.input_data,
                k_spacing=settings.k_spacing,
            )
