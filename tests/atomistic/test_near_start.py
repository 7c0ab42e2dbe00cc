"""`near_start`: few labels move a potential only where they say so."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from atomistic.cells import lstz
from atomistic.errors import InputError
from atomistic.labels import attach
from atomistic.mtp.accuracy import accuracy, predict
from atomistic.mtp.model_card import load_potential
from atomistic.mtp.potential import MTPotential
from atomistic.mtp.training import TrainingSettings, train

SETTINGS = TrainingSettings(
    species=("Li", "Sr", "Ta", "Zr", "O"), level=12, energy_weight=10.0, stress_weight=0.0, held_out=0.0,
    ridges=(1e-3,), iterations=2, near_start=True,
)  # fmt: skip
OFFSET = {"Li": 190.0, "Sr": -30.0, "Ta": 5.0, "Zr": 2.0, "O": -7.0}
"""eV per atom between two codes."""


def shifted_labels(potential: MTPotential, ta: float, scale: float = 1.0) -> list[Atoms]:
    """Small cells with the potential's own forces, times `scale`, and its energies on another code's zero."""
    frames = []
    for seed in range(3):
        atoms = lstz(ta=ta, repeat=(1, 1, 2), rng=np.random.default_rng(seed))
        atoms.rattle(0.05, seed=seed)
        empty = attach(atoms, 0.0, np.zeros((len(atoms), 3)), None)
        found = predict(potential, [empty])[0]
        energy = found.energy[0] * len(atoms) + sum(OFFSET[s] for s in atoms.get_chemical_symbols())
        frames.append(attach(atoms, energy, scale * found.forces[0], None))
    return frames


def test_labels_on_another_zero_of_energy_change_only_the_species_energies() -> None:
    """Without `near_start`, pairs that the cells lack lose their coefficients."""
    start = load_potential("lstz-level12")
    frames = shifted_labels(start, ta=1.0)
    assert "Zr" not in frames[0].get_chemical_symbols()
    near = train(frames, SETTINGS, start=start)
    np.testing.assert_allclose(near.potential.radial_coefficients, start.radial_coefficients, atol=1e-4)
    np.testing.assert_allclose(near.potential.moment_coefficients, start.moment_coefficients, atol=1e-4)
    found = accuracy(predict(near.potential, frames))
    assert found.energy_mae < 0.1  # meV per atom; the offset is 14 eV per atom
    assert not near.excluded
    away = train(frames, SETTINGS.model_copy(update={"near_start": False}), start=start)
    assert "Zr-O" in away.excluded


def test_labels_still_count() -> None:
    """Forces a fifth larger are followed the better, the weaker the ridge."""
    start = load_potential("lstz-level12")
    frames = shifted_labels(start, ta=0.5, scale=1.2)
    error = [accuracy(predict(start, frames)).force_rmse]
    for ridge in (1e-1, 1e-5):
        settings = SETTINGS.model_copy(update={"ridges": (ridge,)})
        error.append(accuracy(predict(train(frames, settings, start=start).potential, frames)).force_rmse)
    assert error[2] < 0.5 * error[1] < 0.5 * error[0]


def test_a_start_is_needed() -> None:
    frames = shifted_labels(load_potential("lstz-level12"), ta=1.0)
    with pytest.raises(InputError, match="near_start"):
        train(frames, SETTINGS)
