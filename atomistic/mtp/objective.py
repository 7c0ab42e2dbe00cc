"""What a training minimises: the weighted squares of the differences from the labels, and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from atomistic.errors import InputError
from atomistic.labels import labels_of
from atomistic.mtp.jacobian import Neighbours, Workspace, neighbours
from atomistic.mtp.potential import FloatArray, MTPotential

if TYPE_CHECKING:
    from ase import Atoms

    from atomistic.mtp.training import TrainingSettings

Mode = Literal["full", "linear", "loss"]
BLOCK: Final = 16  # frames summed together; fixed, so that threads do not change the order of sums


@dataclass(frozen=True)
class _Target:
    pairs: Neighbours
    energy: float
    forces: FloatArray
    stress: FloatArray | None
    weight: float
    row_weights: FloatArray  # of energy, forces and stress residuals, square roots


class Problem:
    """The sum of squares of a set of frames as a function of the parameters.

    Raises FramesError for frames without usable labels and SpeciesError for elements that are not trained.
    """

    def __init__(
        self,
        potential: MTPotential,
        frames: Sequence[Atoms],
        settings: TrainingSettings,
        names: Sequence[str] | None = None,
    ) -> None:
        self.workspace = Workspace.of(potential)
        self.threads = settings.threads
        self.targets: list[_Target] = []
        total = 0.0
        for index, frame in enumerate(frames):
            where = names[index] if names is not None else f"frame {index}"
            energy, forces, stress = labels_of(frame, where)
            pairs = neighbours(frame, potential, where)
            n = len(frame)
            soft = np.ones(n)
            if settings.force_scale is not None:
                soft = 1.0 / (1.0 + np.linalg.norm(forces, axis=1) / settings.force_scale)
            weights = [np.sqrt([settings.energy_weight]) / n]
            weights.append(np.repeat(np.sqrt(settings.force_weight / n) * soft, 3))
            held = stress is not None and pairs.volume > 0.0
            weights.append(np.full(9, np.sqrt(settings.stress_weight) / n if held else 0.0))
            weight = settings.group_weights.get(str(frame.info.get("group", "")), 1.0)
            total += weight
            self.targets.append(
                _Target(pairs, energy, forces, stress if held else None, weight, np.concatenate(weights))
            )
        if self.targets and total == 0.0:
            raise InputError(
                "training.group_weights", 0.0, "the weight of at least one group must be above 0"
            )
        self._scale = 1.0 / total if total else 0.0

    def _frame(
        self, target: _Target, parameters: FloatArray, mode: Mode
    ) -> tuple[float, FloatArray, FloatArray]:
        energy, forces, virial, j_energy, j_forces, j_virial = self.workspace.evaluate(
            target.pairs, parameters, mode != "loss", mode == "linear"
        )
        wanted = np.zeros((3, 3)) if target.stress is None else target.stress * target.pairs.volume
        residual = np.concatenate(
            [[energy - target.energy], (forces - target.forces).ravel(), (virial - wanted).ravel()]
        )
        root = target.row_weights * np.sqrt(target.weight * self._scale)
        residual *= root
        if mode == "loss":
            return float(residual @ residual), residual[:0], residual[:0]
        rows = np.concatenate([j_energy[None, :], j_forces, j_virial]) * root[:, None]
        return float(residual @ residual), rows.T @ rows, rows.T @ residual

    def _size(self, mode: Mode) -> int:
        if mode == "loss":
            return 0
        count = len(self.workspace.mapping) + self.workspace.shape[0]
        return count if mode == "linear" else count + int(np.prod(self.workspace.shape))

    def _block(self, number: int, parameters: FloatArray, mode: Mode) -> tuple[float, FloatArray, FloatArray]:
        loss, n = 0.0, self._size(mode)
        normal, gradient = np.zeros((n, n)), np.zeros(n)
        for target in self.targets[number * BLOCK : (number + 1) * BLOCK]:
            f, a, g = self._frame(target, parameters, mode)
            loss += f
            if n:
                normal += a
                gradient += g
        return loss, normal, gradient

    def __call__(self, parameters: FloatArray, mode: Mode = "full") -> tuple[float, FloatArray, FloatArray]:
        """Loss, Gauss-Newton matrix J^T J (n, n) and half gradient J^T r (n,).

        mode: derivatives with respect to all parameters ("full"), the moment and species coefficients ("linear"), or
        none ("loss").
        """
        numbers = range((len(self.targets) + BLOCK - 1) // BLOCK)
        loss, n = 0.0, self._size(mode)
        normal, gradient = np.zeros((n, n)), np.zeros(n)

        def run(number: int) -> tuple[float, FloatArray, FloatArray]:
            return self._block(number, parameters, mode)

        if self.threads == 1:
            for number in numbers:
                f, a, g = run(number)
                loss, normal, gradient = loss + f, normal + a, gradient + g
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                for f, a, g in pool.map(run, numbers):
                    loss, normal, gradient = loss + f, normal + a, gradient + g
        return loss, normal, gradient


def pair_weights(potential: MTPotential, problem: Problem) -> FloatArray:
    """Neighbour pairs by species (centre, neighbour), each counted as ((cutoff - r)/(cutoff - r_min))^2 <= 1."""
    n = potential.species_count
    counts = np.zeros((n, n))
    width = potential.cutoff - potential.min_distance
    for target in problem.targets:
        pairs = target.pairs
        centre = np.repeat(pairs.types, np.diff(pairs.first))
        distance = np.linalg.norm(pairs.vectors, axis=1)
        weight = np.minimum(((potential.cutoff - distance) / width) ** 2, 1.0)
        np.add.at(counts, (centre, pairs.types[pairs.second]), weight)
    return counts
