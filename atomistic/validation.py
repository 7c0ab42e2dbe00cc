"""Errors of a potential on labelled frames, by system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atomistic.errors import FramesError
from atomistic.labels import labels_of
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import MTPotential
from atomistic.progress import track

if TYPE_CHECKING:
    from ase import Atoms

GIGAPASCAL = 160.21766208
SYSTEM_KEYS = ("system", "group", "config_type")
Evaluate = Callable[["Atoms"], tuple[float, Any, Any]]


def system_of(atoms: Atoms) -> str:
    """What a frame's `info` calls it (system, group or config_type), else its elements."""
    for key in SYSTEM_KEYS:
        if atoms.info.get(key):
            return str(atoms.info[key])
    return "-".join(sorted(set(atoms.get_chemical_symbols())))


def mtp_evaluation(potential: MTPotential, core: RepulsiveCore | None = None) -> Evaluate:
    """Energy (eV), forces (eV/angstrom), stress (eV/angstrom^3, 3 x 3) of a moment tensor potential and its core."""

    def found(atoms: Atoms) -> tuple[float, Any, Any]:
        result = evaluate(potential, atoms, core)
        stress = -result.virial / atoms.get_volume() if atoms.cell.rank == 3 else None
        return result.energy, result.forces, stress

    return found


def frame_errors(evaluation: Evaluate, frames: Sequence[Atoms], *, show: bool | None = None) -> pd.DataFrame:
    """One row per frame: system, atoms, energy error (meV/atom), squared force errors, stress error (GPa).

    Raises FramesError for frames without labels, and what the evaluation raises.
    """
    if not frames:
        raise FramesError("no frames to validate on")
    rows = []
    for index, atoms in enumerate(track(frames, "validate", show=show)):
        energy, forces, stress = labels_of(atoms, f"frame {index}")
        got_energy, got_forces, got_stress = evaluation(atoms)
        squared = (np.asarray(got_forces) - forces) ** 2
        has_stress = stress is not None and got_stress is not None
        rows.append(
            {
                "system": system_of(atoms),
                "atoms": len(atoms),
                "energy_error_meV_per_atom": 1e3 * (got_energy - energy) / len(atoms),
                "squared_force_errors": float(squared.sum()),
                "largest_force_error_eV_per_A": float(np.sqrt(squared.sum(axis=1).max(initial=0.0))),
                "squared_stress_error": float(((got_stress - stress) ** 2).mean()) if has_stress else np.nan,
            }
        )
    return pd.DataFrame(rows)


def summarise(errors: pd.DataFrame) -> pd.DataFrame:
    """Rows by system and "all": mean absolute energy error, root mean square force and stress error."""

    def row(name: str, part: pd.DataFrame) -> Mapping[str, Any]:
        return {
            "system": name,
            "frames": len(part),
            "atoms": int(part["atoms"].sum()),
            "energy_MAE_meV_per_atom": float(part["energy_error_meV_per_atom"].abs().mean()),
            "energy_bias_meV_per_atom": float(part["energy_error_meV_per_atom"].mean()),
            "force_RMSE_eV_per_A": float(
                np.sqrt(part["squared_force_errors"].sum() / (3 * part["atoms"].sum()))
            ),
            "largest_force_error_eV_per_A": float(part["largest_force_error_eV_per_A"].max()),
            "stress_RMSE_GPa": float(GIGAPASCAL * np.sqrt(part["squared_stress_error"].mean())),
        }

    rows = [row(str(name), part) for name, part in errors.groupby("system", sort=True)]
    return pd.DataFrame([*rows, row("all", errors)])
