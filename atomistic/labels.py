"""Labelled structures: one extxyz file per teacher, appended to safely, no structure labelled twice.

A frame is labelled when it carries an energy (eV) and forces (eV/angstrom), both finite; a stress (eV/angstrom^3)
is kept where the teacher gives one. Positions and cell are rounded to the file's eight decimals *before* they are
labelled, so that what is read back is exactly the structure the numbers belong to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from atomistic.errors import FileFormatError, FramesError, InputError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = npt.NDArray[np.float64]

DECIMALS: Final = 8
MAX_ATOMS: Final = 1_000_000


def normalised(atoms: Atoms, **info: Any) -> Atoms:
    """A copy holding only species, cell, boundary conditions and positions, rounded to 1e-8 angstrom.

    info: kept beside the structure, such as group="md1000". Raises FramesError for an empty structure or for
    numbers that are not finite.
    """
    from ase import Atoms

    positions, cell = np.asarray(atoms.get_positions(), float), np.asarray(atoms.cell.array, float)
    if len(atoms) == 0:
        raise FramesError("a structure without atoms cannot be labelled")
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise FramesError("a structure has positions or a cell that are not finite numbers")
    # Adding zero turns -0.0 into 0.0, which the file would otherwise keep apart.
    frame = Atoms(
        numbers=atoms.get_atomic_numbers(),
        positions=np.round(positions, DECIMALS) + 0.0,
        cell=np.round(cell, DECIMALS) + 0.0,
        pbc=atoms.get_pbc(),
    )
    frame.info.update(info)
    return frame


def structure_hash(atoms: Atoms) -> str:
    """SHA-256 over species, boundary conditions, cell and positions to 1e-8 angstrom; the order of atoms counts."""
    digest = hashlib.sha256(np.asarray(atoms.get_atomic_numbers(), "<i8").tobytes())
    digest.update(np.asarray(atoms.get_pbc(), "u1").tobytes())
    for array in (atoms.cell.array, atoms.get_positions()):
        digest.update(np.rint(np.asarray(array, float) * 10**DECIMALS).astype("<i8").tobytes())
    return digest.hexdigest()


def labels_of(atoms: Atoms, where: str = "frame") -> tuple[float, FloatArray, FloatArray | None]:
    """Energy (eV), forces (atoms, 3) in eV/angstrom and stress (3, 3) in eV/angstrom^3 or None.

    Raises FramesError, naming `where`, for frames that carry none or whose labels are not finite numbers.
    """
    results = getattr(atoms.calc, "results", None) or {}
    missing = [key for key in ("energy", "forces") if results.get(key) is None]
    if missing:
        raise FramesError(
            f"{where} carries no {' and no '.join(missing)}; label it with a teacher first "
            "(atomistic.teachers.label_frames), or write energy and forces into its extxyz file"
        )
    stress: FloatArray | None = None
    try:
        energy, forces = float(results["energy"]), np.asarray(results["forces"], float)
        if results.get("stress") is not None and atoms.cell.rank == 3:
            from ase.stress import voigt_6_to_full_3x3_stress

            stress = np.asarray(results["stress"], float)
            stress = voigt_6_to_full_3x3_stress(stress) if stress.size == 6 else stress.reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise FramesError(f"{where} has labels that are not numbers ({error}); repair its file") from None
    if forces.shape != (len(atoms), 3):
        raise FramesError(f"{where} has forces of shape {forces.shape} for {len(atoms)} atoms")
    for name, value in (("energy", energy), ("forces", forces), ("stress", stress)):
        if value is not None and not np.isfinite(value).all():
            raise FramesError(f"{where} has a {name} that is not a finite number; remove the frame")
    return energy, forces, stress


def read_frames(path: str | Path, *, labelled: bool = False) -> list[Atoms]:
    """All structures of a file ASE can read (extxyz by default).

    labelled: also require labels. Raises FileFormatError for damaged files, FramesError for frames without labels.
    """
    from ase.io import read

    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise FileFormatError(path, None, what, "give the path of a file of structures")
    try:
        extended = path.name.endswith((".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz", ".xyz.xz"))
        found = read(path, index=":", format="extxyz" if extended else None)
    except Exception as error:
        # ASE's readers raise anything from IndexError to AssertionError on damaged files.
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):
            what = f"{error} is neither an element nor a key it knows"
        raise FileFormatError(
            path, None, f"cannot be read as structures ({what})", "repair the file"
        ) from None
    frames: list[Atoms] = found if isinstance(found, list) else [found]
    if not frames:
        raise FramesError(f"{path} holds no structure")
    if labelled:
        for index, frame in enumerate(frames):
            labels_of(frame, f"{path}: frame {index}")
    return frames


def write_frames(path: str | Path, frames: Sequence[Atoms]) -> None:
    """Write frames as extxyz, atomically (gzip where the name ends in .gz)."""
    import gzip

    path = Path(path)
    text = "".join(frame_text(frame) for frame in frames).encode()
    data = gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step: a reader, or a kill, sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def frame_text(frame: Atoms) -> str:
    """One frame as extxyz text, labels included."""
    from ase.io.extxyz import write_extxyz

    stream = io.StringIO()
    write_extxyz(stream, [frame], write_results=frame.calc is not None)
    return stream.getvalue()


def _parsed(text: str) -> Atoms:
    from ase.io import read

    frame: Any = read(io.StringIO(text), format="extxyz")
    return frame  # type: ignore[no-any-return]


def attach(frame: Atoms, energy: float, forces: npt.ArrayLike, stress: npt.ArrayLike | None) -> Atoms:
    """A copy of `frame` that carries these labels. Raises FramesError where they are not finite."""
    from ase.calculators.singlepoint import SinglePointCalculator

    copy: Atoms = frame.copy()
    results: dict[str, Any] = {"energy": float(energy), "forces": np.array(forces, float)}
    if stress is not None:
        results["stress"] = np.array(stress, float)
    copy.calc = SinglePointCalculator(copy, **results)
    labels_of(copy)
    return copy


class LabelStore:
    """The labels of one teacher in one extxyz file, and the structures it refused in a .refused.jsonl beside it.

    Opening drops a last frame that a kill cut short. Frames keep the order in which they were added.
    path: the file, made on the first `add`. teacher, version: who labels; a file of another teacher is refused
    with InputError, because two teachers' energies must not be mixed in one fit.
    """

    def __init__(self, path: str | Path, teacher: str, version: str) -> None:
        self.path, self.teacher, self.version = Path(path), teacher, version
        self._frames: dict[str, Atoms] = {}
        self._refused: dict[str, str] = {}
        self._refused_path = self.path.with_name(self.path.name + ".refused.jsonl")
        self._load()

    def _load(self) -> None:
        if self.path.exists():
            text = self.path.read_text()
            try:
                kept = whole_frames(text)
            except ValueError as error:
                raise FileFormatError(
                    self.path, None, str(error), "the file was damaged: restore it"
                ) from None
            if len(kept) < len(text):
                write_bytes(self.path, kept.encode())
            for index, frame in enumerate(read_frames(self.path, labelled=True) if kept else []):
                where = f"{self.path}: frame {index}"
                found = (str(frame.info.get("teacher")), str(frame.info.get("teacher_version")))
                if found != (self.teacher, self.version):
                    raise InputError(
                        where,
                        " ".join(found),
                        f"this run's teacher is {self.teacher} {self.version}; use another folder or file",
                    )
                key = structure_hash(frame)
                if frame.info.get("structure") != key:
                    raise FileFormatError(
                        self.path,
                        None,
                        f"frame {index} is not the structure that was labelled (its hash differs)",
                        "the file was changed: restore it, or delete that frame",
                    )
                self._frames[key] = frame
        if self._refused_path.exists():
            for line in self._refused_path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self._refused[str(entry["structure"])] = str(entry["reason"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill: that structure is tried again

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, atoms: object) -> bool:
        return structure_hash(atoms) in self._frames  # type: ignore[arg-type]

    @property
    def frames(self) -> list[Atoms]:
        """All labelled frames in the order they were added."""
        return list(self._frames.values())

    @property
    def refused(self) -> dict[str, str]:
        """Why the teacher's answer was not taken, by structure hash."""
        return dict(self._refused)

    def get(self, atoms: Atoms) -> Atoms | None:
        """The labelled frame of this structure, or None."""
        return self._frames.get(structure_hash(atoms))

    def is_refused(self, atoms: Atoms) -> bool:
        """Whether the teacher was asked for this structure before and its answer not taken."""
        return structure_hash(atoms) in self._refused

    def add(self, frame: Atoms) -> Atoms:
        """Append one labelled frame (durable on return); a structure already held is not written again."""
        labels_of(frame)
        key = structure_hash(frame)
        if key in self._frames:
            return self._frames[key]
        stored: Atoms = frame.copy()
        stored.calc = frame.calc
        stored.info = {
            **frame.info,
            "teacher": self.teacher,
            "teacher_version": self.version,
            "structure": key,
        }
        text = frame_text(stored)
        self._append(self.path, text)
        # What is in memory is what the file says, digit by digit; a resumed run reads the file.
        self._frames[key] = _parsed(text)
        return self._frames[key]

    def refuse(self, frame: Atoms, reason: str) -> None:
        """Remember that this structure has no usable label, so that it is not tried again."""
        key = structure_hash(frame)
        self._append(self._refused_path, json.dumps({"structure": key, "reason": reason}) + "\n")
        self._refused[key] = reason

    @staticmethod
    def _append(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for writing; a second process gets InputError instead of a mixed file."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(f".{self.path.name}.lock"), "w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    "labels", str(self.path), "another process is labelling into it; wait for it to end"
                ) from None
            yield


def whole_frames(text: str) -> str:
    """The leading part of an extxyz text that consists of complete frames; what an interrupted append left is cut.

    Raises ValueError where a frame does not begin with its number of atoms: no interruption does that.
    """
    end, start = 0, 0
    while start < len(text):
        line_end = text.find("\n", start)
        if line_end < 0:
            break
        head = text[start:line_end].strip()
        if not head.isdigit() or not 0 < int(head[:9]) <= MAX_ATOMS:
            line = text.count("\n", 0, start) + 1
            raise ValueError(f"line {line} is {head[:40]!r}, not a number of atoms")
        for _ in range(int(head) + 2):
            line_end = text.find("\n", start)
            if line_end < 0:
                return text[:end]
            start = line_end + 1
        end = start
    return text[:end]


def import_labels(store: LabelStore, frames: Iterable[Atoms]) -> int:
    """Take labels made elsewhere with the store's own teacher; returns how many were new.

    Raises FramesError for frames without labels, InputError for frames that name another teacher. The positions must
    have at most eight decimals, as in extxyz.
    """
    new = 0
    for index, frame in enumerate(frames):
        energy, forces, stress = labels_of(frame, f"frame {index}")
        said = (frame.info.get("teacher"), frame.info.get("teacher_version"))
        if said[0] is not None and tuple(map(str, said)) != (store.teacher, store.version):
            raise InputError(
                f"labels, frame {index}",
                " ".join(map(str, said)),
                f"labels by {store.teacher} {store.version} are expected; two teachers must not be mixed",
            )
        if frame not in store:
            plain = normalised(frame, **{k: v for k, v in frame.info.items() if k == "group"})
            store.add(attach(plain, energy, forces, stress))
            new += 1
    return new
