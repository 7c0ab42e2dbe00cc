"""Extrapolation grade: bounded on the training frames, large beyond them, exact in files and in LAMMPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from atomistic.errors import FileFormatError, FramesError
from atomistic.mtp.grade import ActiveSet, maxvol, select_active_set, vector_length
from atomistic.mtp.potential import MTPotential, read_mtp

DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"


def frames(count: int, rattle: float, seed: int, copper: int = 8) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        atoms = bulk("Al", a=3.9, cubic=True).repeat((2, 2, 2))
        atoms.numbers[rng.choice(len(atoms), copper, replace=False)] = 29
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, rattle, atoms.positions.shape)
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def potential() -> MTPotential:
    return read_mtp(DATA)


@pytest.fixture(scope="module")
def active_set(potential: MTPotential) -> ActiveSet:
    return select_active_set(potential, frames(40, 0.12, 0))


def test_training_frames_have_grades_of_at_most_one(active_set: ActiveSet) -> None:
    largest = max(active_set.grades(atoms).max() for atoms in frames(40, 0.12, 0))
    assert 0.9 < largest <= 1.011


def test_held_out_frames_of_the_same_kind_are_near_and_hotter_ones_far(active_set: ActiveSet) -> None:
    same = [active_set.grades(atoms).max() for atoms in frames(10, 0.12, 99)]
    hotter = [active_set.grades(atoms).max() for atoms in frames(10, 0.45, 99)]
    assert np.median(same) < 3.0
    assert np.median(hotter) > 10.0 * np.median(same)


def test_a_short_distance_and_an_unseen_pair_stand_out(potential: MTPotential, active_set: ActiveSet) -> None:
    atoms = frames(1, 0.12, 5)[0]
    near = int(np.argsort(atoms.get_distances(0, range(len(atoms)), mic=True))[1])
    atoms.set_distance(0, near, 1.6, fix=0, mic=True)
    grades = active_set.grades(atoms)
    assert grades[near] > 20.0
    assert {int(g) for g in np.argsort(grades)[-2:]} == {0, near}
    only_aluminium = select_active_set(potential, frames(20, 0.12, 0, copper=0))
    with_copper = only_aluminium.grades(frames(1, 0.12, 1, copper=1)[0])
    assert with_copper.max() > 10.0


def test_the_determinant_cannot_be_enlarged_by_any_single_swap(potential: MTPotential) -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(200, 6))
    origin = np.full((6, 2), -1, np.int64)
    where = np.stack([np.arange(200), np.zeros(200, np.int64)], axis=1)
    rows, chosen = maxvol(1e-3 * np.eye(6), origin, candidates, where, np.ones(6))
    np.testing.assert_array_equal(rows, candidates[chosen[:, 0]])
    volume = abs(np.linalg.det(rows))
    for candidate in candidates:
        for j in range(6):
            other = rows.copy()
            other[j] = candidate
            assert abs(np.linalg.det(other)) <= 1.0101 * volume


def test_extension_takes_the_frames_that_are_new(active_set: ActiveSet) -> None:
    known, new = frames(40, 0.12, 0)[:5], frames(3, 0.3, 7)
    larger, taken = active_set.extended([*known, *new])
    assert {5, 6, 7} <= set(taken)
    assert max(larger.grades(atoms).max() for atoms in new) <= 1.011
    assert active_set.extended(known)[1] == []


def test_files_read_back_and_damage_is_named(
    tmp_path: Path, potential: MTPotential, active_set: ActiveSet
) -> None:
    path = tmp_path / "a.grade"
    active_set.save(path)
    again = ActiveSet.load(path, potential)
    atoms = frames(1, 0.2, 3)[0]
    np.testing.assert_array_equal(again.grades(atoms), active_set.grades(atoms))
    data = path.read_bytes()
    other = potential.with_parameters(potential.parameters * 1.01)
    with pytest.raises(FileFormatError, match="another potential"):
        ActiveSet.load(path, other)
    for damaged, words in (
        (data[:-8], "cut off"),
        (b"x" + data[1:], "not a grade file"),
        (b"", "not a grade file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=words):
            ActiveSet.load(path, potential)
    with pytest.raises(FileFormatError, match="cannot be read"):
        ActiveSet.load(tmp_path / "none", potential)


def test_no_frames_is_an_error(potential: MTPotential) -> None:
    with pytest.raises(FramesError):
        select_active_set(potential, [])
    assert vector_length(potential) == 5 + 1 + 2 * 2 * 6
