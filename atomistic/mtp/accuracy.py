"""How far a potential is from the labels: energies, forces and stresses, by group of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atomistic.errors import FramesError
from atomistic.labels import attach, labels_of
from atomistic.mtp.basis import untrained
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.jacobian import Workspace, neighbours
from atomistic.mtp.kernel import evaluate
from atomistic.mtp.potential import FloatArray, MTPotential

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Accuracy:
    """Errors of a potential on one set of frames.

    energy_mae, energy_rmse: meV/atom; force_rmse, force_max: eV/angstrom (per component); stress_rmse: GPa,
    None where no frame has a stress.
    """

    frames: int
    energy_mae: float
    energy_rmse: float
    force_rmse: float
    force_max: float
    stress_rmse: float | None

    def plain(self) -> dict[str, float | int | None]:
        """As a dictionary with units in the keys."""
        return {
            "frames": self.frames,
            "energy_mae_meV_per_atom": self.energy_mae,
            "energy_rmse_meV_per_atom": self.energy_rmse,
            "force_rmse_eV_per_angstrom": self.force_rmse,
            "force_max_eV_per_angstrom": self.force_max,
            "stress_rmse_GPa": self.stress_rmse,
        }


@dataclass(frozen=True)
class Prediction:
    """Predicted and labelled numbers of one frame: eV/atom, eV/angstrom, eV/angstrom^3."""

    group: str
    energy: tuple[float, float]
    forces: tuple[FloatArray, FloatArray]
    stress: tuple[FloatArray, FloatArray] | None


def predict(potential: MTPotential, frames: Sequence[Atoms]) -> list[Prediction]:
    """The potential's numbers beside the labels. Raises FramesError for frames without labels."""
    workspace, found = Workspace.of(potential), []
    parameters = np.array(potential.parameters)
    for index, frame in enumerate(frames):
        energy, forces, stress = labels_of(frame, f"frame {index}")
        pairs = neighbours(frame, potential, f"frame {index}")
        e, f, v, *_ = workspace.evaluate(pairs, parameters, False)
        n, group = len(frame), str(frame.info.get("group", "all"))
        both = None if stress is None or pairs.volume == 0.0 else (v / pairs.volume, stress)
        found.append(Prediction(group, (e / n, energy / n), (f, forces), both))
    return found


def accuracy(predictions: Sequence[Prediction]) -> Accuracy:
    """Errors over all of these frames; forces are weighted by atom."""
    if not predictions:
        raise FramesError("there is no frame to measure an error on")
    energy = 1e3 * np.array([p.energy[0] - p.energy[1] for p in predictions])
    force = np.concatenate([(p.forces[0] - p.forces[1]).ravel() for p in predictions])
    stress = [p.stress[0] - p.stress[1] for p in predictions if p.stress is not None]
    gpa = 160.21766208
    return Accuracy(
        frames=len(predictions),
        energy_mae=float(np.abs(energy).mean()),
        energy_rmse=float(np.sqrt((energy**2).mean())),
        force_rmse=float(np.sqrt((force**2).mean())),
        force_max=float(np.abs(force).max()),
        stress_rmse=float(np.sqrt((np.array(stress) ** 2).mean()) * gpa) if stress else None,
    )


def accuracy_by_group(predictions: Sequence[Prediction]) -> dict[str, Accuracy]:
    """`accuracy` of every group of frames (`info["group"]`), and of "all"."""
    groups = sorted({p.group for p in predictions})
    table = {g: accuracy([p for p in predictions if p.group == g]) for g in groups}
    return {**table, "all": accuracy(predictions)}


def without_core(frames: Sequence[Atoms], core: RepulsiveCore | None) -> list[Atoms]:
    """The frames with a repulsive core's energy, forces and stress taken off the labels.

    A potential trained on these and run with the core gives the labels' sum. Without a core the frames themselves.
    """
    if core is None:
        return list(frames)
    reach = float(core.outer.max(initial=0.0))
    silent = untrained(
        core.species, 2, cutoff=max(reach, 1.0) + 0.1, min_distance=0.0, rng=np.random.default_rng(0)
    )
    silent = silent.with_parameters(np.zeros(silent.parameters.size))
    found = []
    for index, frame in enumerate(frames):
        energy, forces, stress = labels_of(frame, f"frame {index}")
        part = evaluate(silent, frame, core)
        # The evaluator's virial is -dE/dstrain.
        rest = None if stress is None else stress + part.virial / frame.get_volume()
        found.append(attach(frame, energy - part.energy, forces - part.forces, rest))
    return found
