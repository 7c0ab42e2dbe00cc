"""Training: exact recovery of a known potential, derivatives, resuming after kills, and runaway coefficients."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pydantic import ValidationError

from atomistic.errors import (
    FileFormatError,
    FramesError,
    GeometryError,
    InputError,
    PotentialError,
    SpeciesError,
)
from atomistic.labels import attach, labels_of, read_frames, write_frames
from atomistic.mtp.accuracy import accuracy, accuracy_by_group, predict, without_core
from atomistic.mtp.basis import untrained
from atomistic.mtp.jacobian import Workspace, lattice_images, neighbours, shortest_distance
from atomistic.mtp.objective import Problem, pair_weights
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.mtp.training import (
    Training,
    TrainingSettings,
    grown,
    largest_coefficients,
    least_squares_energies,
    split_frames,
    train,
)

SPECIES = ("Cu", "Au")
SETTINGS = TrainingSettings(
    species=SPECIES, level=6, cutoff=4.5, min_distance=1.8, radial_basis_size=5, seeds=(0,), ridges=(1e-9,)
)


def alloy(seed: int, gold: int | None = None) -> Atoms:
    """Eight atoms of a strained, rattled copper-gold crystal."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", a=3.85, cubic=True) * (2, 1, 1)
    count = int(rng.integers(0, 9)) if gold is None else gold
    atoms.symbols[rng.choice(8, count, replace=False)] = "Au"
    strain = np.eye(3) + rng.normal(0, 0.03, (3, 3))
    atoms.set_cell(atoms.cell.array @ (strain + strain.T) / 2, scale_atoms=True)
    atoms.rattle(0.15, rng=rng)
    atoms.info["group"] = "odd" if seed % 2 else "even"
    return atoms


def emt_frames(count: int, gold: int | None = None) -> list[Atoms]:
    frames = []
    for seed in range(count):
        atoms = alloy(seed, gold)
        atoms.calc = EMT()
        frames.append(attach(atoms, atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    return frames


def known_potential(level: int = 6) -> MTPotential:
    rng = np.random.default_rng(7)
    start = untrained(SPECIES, level, cutoff=4.5, min_distance=1.8, rng=rng, radial_basis_size=5)
    moved = start.parameters + rng.normal(0.0, 0.1, start.parameters.size)
    moved[start.moment_coefficients.size : start.moment_coefficients.size + 2] = (-3.0, -4.0)
    return start.with_parameters(moved)


def taught(potential: MTPotential, frames: list[Atoms]) -> list[Atoms]:
    """The frames with the potential's own numbers as labels."""
    labelled = []
    for frame in frames:
        pairs = neighbours(frame, potential)
        energy, forces, virial, *_ = Workspace.of(potential).evaluate(
            pairs, np.array(potential.parameters), False
        )
        labelled.append(attach(frame, energy, forces, virial / pairs.volume))
    return labelled


@pytest.mark.parametrize("level", [2, 6, 10, 14])
def test_energies_forces_virials_agree_with_motep(level: int, tmp_path: Path) -> None:
    from ase.data import atomic_numbers
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as motep_read

    potential = known_potential(level)
    potential.save(tmp_path / "x.mtp")
    data = motep_read(tmp_path / "x.mtp")
    data.species = [atomic_numbers[s] for s in SPECIES]
    frame = alloy(3, 4)
    energy, forces, virial, *_ = Workspace.of(potential).evaluate(
        neighbours(frame, potential), np.array(potential.parameters), False
    )
    frame.calc = MTP(data)
    scale = np.abs(frame.get_forces()).max()
    np.testing.assert_allclose(energy, frame.get_potential_energy(), rtol=1e-12, atol=0)
    np.testing.assert_allclose(forces, frame.get_forces(), rtol=0, atol=1e-12 * scale)
    expected = frame.get_stress(voigt=False) * frame.get_volume()
    np.testing.assert_allclose(virial, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("level", [2, 6, 10, 14])
def test_derivatives_with_respect_to_every_parameter(level: int) -> None:
    potential = known_potential(level)
    workspace, pairs = Workspace.of(potential), neighbours(alloy(3, 4), potential)
    parameters = np.array(potential.parameters)
    *_, j_energy, j_forces, j_virial = workspace.evaluate(pairs, parameters, True)
    step = 1e-4
    for k in range(parameters.size):
        sides = []
        for sign in (1, -1):
            moved = parameters.copy()
            moved[k] += sign * step
            sides.append(workspace.evaluate(pairs, moved, False))
        for exact, column in ((j_energy[None, :], 0), (j_forces, 1), (j_virial, 2)):
            slope = (np.ravel(sides[0][column]) - np.ravel(sides[1][column])) / (2 * step)
            scale = np.abs(exact).max()
            np.testing.assert_allclose(exact[:, k], slope, rtol=0, atol=2e-7 * scale)


def test_pairs_are_those_of_ase_also_in_cells_smaller_than_the_cutoff() -> None:
    from ase.neighborlist import primitive_neighbor_list

    potential = untrained(("Cu",), 4, cutoff=5.0, min_distance=1.5, rng=np.random.default_rng(0))
    tiny = bulk("Cu", a=3.6)
    slab = alloy(1, 0)
    slab.pbc = (True, False, True)
    slab.positions[3] += 3 * slab.cell[0] - 2 * slab.cell[2]
    for atoms in (tiny, slab, Atoms("Cu3", positions=[[0, 0, 0], [2.2, 0, 0], [0, 9, 0]])):
        pairs = neighbours(atoms, potential)
        i, j, vectors = primitive_neighbor_list(
            "ijD", atoms.pbc, atoms.cell.complete().array, atoms.positions, 5.0
        )
        mine = np.column_stack(
            [np.repeat(np.arange(len(atoms)), np.diff(pairs.first)), pairs.second, pairs.vectors]
        )
        reference = np.column_stack([i, j, vectors])
        assert mine.shape == reference.shape
        key = [np.lexsort(np.round(table, 6).T) for table in (mine, reference)]
        np.testing.assert_allclose(mine[key[0]], reference[key[1]], rtol=0, atol=1e-10)
    np.testing.assert_allclose(shortest_distance(tiny, 5.0), 3.6 / np.sqrt(2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", [2, 6])
def test_a_known_potential_is_recovered(level: int) -> None:
    """Labels made by a potential of the same form are fitted to rounding, on frames never seen as well.

    From nothing, the best of six starts.
    """
    known = known_potential(level)
    frames = taught(known, [alloy(k) for k in range(40)])
    settings = SETTINGS.model_copy(
        update={
            "level": level,
            "ridges": (1e-9, 1e-12, 0.0),
            "seeds": tuple(range(6)) if level > 2 else (0,),
            "race_iterations": 40,
            "iterations": 100,
            "tolerance": 0.0,
            "species_prior_weight": 1e-14,
            "force_scale": None,
            "held_out": 0.0,
            "minimum_pairs": 0.0,
        }
    )
    result = train(frames, settings)
    unseen = taught(known, [alloy(k) for k in range(100, 110)])
    errors = accuracy(predict(result.potential, unseen))
    scale = np.sqrt(np.mean([np.mean(labels_of(f)[1] ** 2) for f in unseen]))
    assert errors.energy_rmse < 1e-2
    assert errors.force_rmse < 1e-4 * scale
    assert errors.stress_rmse is not None
    assert errors.stress_rmse < 1e-2


def test_emt_is_learned_and_the_report_written(tmp_path: Path) -> None:
    frames = emt_frames(60)
    settings = SETTINGS.model_copy(
        update={"level": 8, "seeds": (0, 1), "ridges": (1e-6, 1e-8), "held_out": 0.2, "race_iterations": 3}
    )
    lines: list[str] = []
    result = train(frames, settings, tmp_path, progress=lines.append)
    errors = accuracy(predict(result.potential, [frames[i] for i in result.held_out]))
    spread = np.std([labels_of(f)[0] / 8 for f in frames]) * 1e3
    assert errors.energy_rmse < 0.1 * spread
    assert set(result.training).isdisjoint(result.held_out)
    assert len(result.training) + len(result.held_out) == 60
    assert read_mtp(tmp_path / "potential.mtp") == result.potential
    report = json.loads((tmp_path / "training.json").read_text())
    held = report["errors"]["held out"]["all"]
    np.testing.assert_allclose(held["energy_mae_meV_per_atom"], errors.energy_mae, rtol=1e-12, atol=0)
    assert report["largest_radial_coefficient"] == largest_coefficients(result.potential)
    rows = (tmp_path / "loss.csv").read_text().splitlines()
    assert rows[0] == "seed,ridge,iteration,loss,held_out_loss"
    assert len(rows) == len(result.losses) + 1
    for figure in ("loss.png", "parity.png"):
        assert (tmp_path / figure).read_bytes()[:4] == b"\x89PNG"
    assert any("ridge 1e-08" in line for line in lines)
    assert "Cu-Au" in result.summary()


def test_losses_never_rise_within_a_ridge() -> None:
    result = train(emt_frames(20), SETTINGS.model_copy(update={"iterations": 15}))
    losses = [row[3] for row in result.losses]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.1 * losses[0]


def test_threads_give_the_same_numbers() -> None:
    frames = emt_frames(40)
    problems = [
        Problem(known_potential(), frames, SETTINGS.model_copy(update={"threads": threads}))
        for threads in (1, 3)
    ]
    parameters = np.array(known_potential().parameters)
    one, many = (problem(parameters) for problem in problems)
    assert one[0] == many[0]
    assert np.array_equal(one[1], many[1])
    assert np.array_equal(one[2], many[2])


def test_weights_enter_as_stated() -> None:
    """The loss of one frame, written out."""
    frame = emt_frames(1)[0]
    potential = known_potential()
    settings = SETTINGS.model_copy(
        update={"energy_weight": 2.0, "force_weight": 0.03, "stress_weight": 0.004, "force_scale": 1.5}
    )
    prediction = predict(potential, [frame])[0]
    n, volume = len(frame), frame.get_volume()
    energy, forces, stress = labels_of(frame)
    assert prediction.stress is not None
    assert stress is not None
    soft = 1 / (1 + np.linalg.norm(forces, axis=1) / 1.5)
    expected = 2.0 * (prediction.energy[0] - energy / n) ** 2
    expected += 0.03 / n * np.sum((soft[:, None] * (prediction.forces[0] - forces)) ** 2)
    expected += 0.004 * np.sum((volume * (prediction.stress[0] - stress) / n) ** 2)
    loss, *_ = Problem(potential, [frame], settings)(np.array(potential.parameters), "loss")
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=0)
    even, odd = emt_frames(2)
    weighted = settings.model_copy(update={"group_weights": {"odd": 3.0}})
    loss = Problem(potential, [even, odd], weighted)(np.array(potential.parameters), "loss")[0]
    parts = [
        Problem(potential, [f], settings)(np.array(potential.parameters), "loss")[0] for f in (even, odd)
    ]
    np.testing.assert_allclose(loss, (parts[0] + 3 * parts[1]) / 4, rtol=1e-12, atol=0)


def test_training_around_a_core() -> None:
    """Potential plus core give the labels; the core's part is exactly what was taken off."""
    from atomistic.mtp.calculator import MTPCalculator

    frames = emt_frames(30)
    settings = SETTINGS.model_copy(
        update={"core": {"Cu-Cu": (1.8, 2.6), "Cu-Au": (1.9, 2.7)}, "iterations": 30}
    )
    core = settings.repulsive_core()
    assert core is not None
    bare = without_core(frames, core)
    taken = [labels_of(a)[0] - labels_of(b)[0] for a, b in zip(frames, bare, strict=True)]
    assert max(taken) > 0.1
    result = train(frames, settings)
    errors = []
    for index in range(6):
        both = frames[index].copy()
        both.calc = MTPCalculator(result.potential, core=core)
        alone = predict(result.potential, [bare[index]])[0]
        energy, forces, stress = labels_of(frames[index])
        scale = np.abs(forces).max()
        np.testing.assert_allclose(
            both.get_potential_energy() - energy, 8 * (alone.energy[0] - alone.energy[1]), rtol=0, atol=1e-8
        )
        np.testing.assert_allclose(
            both.get_forces() - forces, alone.forces[0] - alone.forces[1], rtol=0, atol=1e-9 * scale
        )
        assert stress is not None
        assert alone.stress is not None
        np.testing.assert_allclose(
            both.get_stress(voigt=False) - stress, alone.stress[0] - alone.stress[1], rtol=0, atol=1e-10
        )
        errors.append(np.abs(both.get_forces() - forces).mean())
    assert np.mean(errors) < 0.4 * np.mean([np.abs(labels_of(f)[1]).mean() for f in frames[:6]])
    with pytest.raises((ValidationError, InputError), match="Xe"):
        TrainingSettings.model_validate({"species": SPECIES, "core": {"Cu-Xe": (1.0, 2.0)}})


def test_pairs_hardly_held_are_excluded_and_reported() -> None:
    frames = emt_frames(30, gold=0)
    lone = emt_frames(1, gold=1)
    result = train(frames + lone, SETTINGS.model_copy(update={"minimum_pairs": 5.0, "held_out": 0.0}))
    assert "Au-Au" in result.excluded
    assert result.largest["Au-Au"] == 0.0
    assert "Au-Au" in result.summary()
    assert result.largest["Cu-Cu"] > 0.0
    problem = Problem(result.potential, frames + lone, SETTINGS)
    counts = pair_weights(result.potential, problem)
    assert counts[0, 1] == counts[1, 0]


def test_runaway_coefficients_refuse_the_potential() -> None:
    with pytest.raises(
        PotentialError, match=r"ran away beyond 0\.05 \(ridge 1e-09: Cu-Cu|ran away beyond 0\.05"
    ):
        train(emt_frames(10), SETTINGS.model_copy(update={"coefficient_limit": 0.05, "iterations": 3}))


def test_ridge_keeps_coefficients_small() -> None:
    frames = emt_frames(12)
    largest = []
    for ridge in (1e-3, 1e-10):
        settings = SETTINGS.model_copy(
            update={"ridges": (ridge,), "iterations": 40, "coefficient_limit": 1e9}
        )
        largest.append(max(train(frames, settings).largest.values()))
    assert largest[0] < largest[1]


def test_species_energies_of_one_composition_stay_at_the_prior() -> None:
    """With one composition in all frames only one combination is determined; the rest must not drift off."""
    frames = emt_frames(12, gold=4)
    prior = {"Cu": -1.0, "Au": 2.0}
    settings = SETTINGS.model_copy(update={"species_energies": prior, "iterations": 10})
    copper, gold = train(frames, settings).potential.species_coefficients
    np.testing.assert_allclose(gold - copper, 3.0, rtol=0, atol=0.05)


def test_species_energies_of_off_stoichiometric_frames() -> None:
    frames = taught(known_potential(), [alloy(k) for k in range(30)])
    found = least_squares_energies(frames, SPECIES)
    counts = np.array([[list(f.symbols).count(s) for s in SPECIES] for f in frames])
    energies = np.array([labels_of(f)[0] for f in frames])
    exact, *_ = np.linalg.lstsq(counts / 8, energies / 8, rcond=None)
    np.testing.assert_allclose([found[s] for s in SPECIES], exact, rtol=1e-8, atol=0)
    single = least_squares_energies(emt_frames(6, gold=0), SPECIES)
    assert np.isfinite(single["Au"])


def test_split_does_not_depend_on_what_is_added() -> None:
    frames = [alloy(k) for k in range(60)]
    _, held = split_frames(frames, 0.25)
    assert 5 <= len(held) <= 25
    more = split_frames([*frames, *[alloy(k) for k in range(60, 80)]], 0.25)
    assert [i for i in more[1] if i < 60] == held
    assert split_frames(frames[:1], 0.89)[0] == [0]


def test_start_from_a_potential() -> None:
    frames = emt_frames(25)
    first = train(frames, SETTINGS.model_copy(update={"iterations": 25}))
    settings = SETTINGS.model_copy(update={"iterations": 2})
    warm = train(frames, settings, start=first.potential)
    cold = train(frames, settings)
    assert warm.losses[-1][3] < cold.losses[-1][3]
    with pytest.raises(InputError, match="level 8"):
        train(frames, settings.model_copy(update={"level": 8}), start=first.potential)


def test_a_higher_level_begins_where_the_lower_ended() -> None:
    frames = emt_frames(25)
    settings = SETTINGS.model_copy(update={"iterations": 25, "ridges": (1e-12,)})
    low = train(frames, settings)
    higher = settings.model_copy(update={"level": 8, "iterations": 1, "minimum_pairs": 0.0})
    start = grown(low.potential, 8, np.random.default_rng(2))
    training = Training(frames, higher, start=start)
    training.step()
    loss = training.problem(training.fit.parameters, "loss")[0]
    assert loss <= low.losses[-1][3] * 1.001
    with pytest.raises(InputError, match="above that of the potential"):
        grown(low.potential, 6, np.random.default_rng(2))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_training import SETTINGS, emt_frames
from atomistic.mtp.training import train
change = {{"seeds": (0, 1), "ridges": (1e-6, 1e-8), "iterations": 30, "race_iterations": 4}}
settings = SETTINGS.model_copy(update=change)
print("ready", flush=True)
train(emt_frames(40), settings, {folder!r})
"""


def start_training(folder: Path) -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder)))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None
    with run.stdout as stream:
        assert stream.readline() == "ready\n"
    return run


def test_training_killed_at_random_moments_ends_with_the_same_potential(tmp_path: Path) -> None:
    whole = start_training(tmp_path / "whole")
    assert whole.wait(300) == 0
    rng = np.random.default_rng(5)
    killed = 0
    for _ in range(5):
        run = start_training(tmp_path / "killed")
        try:
            run.wait(float(rng.uniform(0.2, 1.2)))
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
    assert killed >= 2
    last = start_training(tmp_path / "killed")
    assert last.wait(300) == 0
    one, two = (read_mtp(tmp_path / name / "potential.mtp") for name in ("whole", "killed"))
    np.testing.assert_allclose(two.parameters, one.parameters, rtol=1e-12, atol=1e-14)
    losses = [(tmp_path / name / "loss.csv").read_text() for name in ("whole", "killed")]
    assert losses[0].count("\n") == losses[1].count("\n")


def test_resuming_in_one_process_is_exact(tmp_path: Path) -> None:
    frames, settings = emt_frames(20), SETTINGS.model_copy(update={"iterations": 12})
    straight = train(frames, settings)
    while True:
        training = Training(frames, settings, tmp_path)
        if training.done:
            break
        training.step()
    assert np.array_equal(training.result().potential.parameters, straight.potential.parameters)


def test_state_of_another_training_is_refused(tmp_path: Path) -> None:
    frames = emt_frames(8)
    Training(frames, SETTINGS, tmp_path).step()
    with pytest.raises(InputError, match="other frames or settings"):
        Training(frames[:-1], SETTINGS, tmp_path)
    with pytest.raises(InputError, match="other frames or settings"):
        Training(frames, SETTINGS.model_copy(update={"energy_weight": 2.0}), tmp_path)
    Training(frames, SETTINGS.model_copy(update={"threads": 2}), tmp_path)
    data = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match="delete it to start"):
        Training(frames, SETTINGS, tmp_path)


def test_bad_frames_are_named(tmp_path: Path) -> None:
    frames = emt_frames(3)
    with pytest.raises(FramesError, match="no frame to train on"):
        train([], SETTINGS)
    with pytest.raises(FramesError, match="frame 3 carries no energy"):
        train([*frames, alloy(9)], SETTINGS)
    other = frames[0].copy()
    other.symbols[0] = "Ag"
    with pytest.raises(SpeciesError, match="does not know Ag"):
        train([*frames, attach(other, 0.0, np.zeros((8, 3)), None)], SETTINGS)
    clash = frames[0].copy()
    clash.positions[1] = clash.positions[0]
    with pytest.raises(GeometryError, match="frame 3: atoms 0 and 1 coincide"):
        train([*frames, attach(clash, 0.0, np.zeros((8, 3)), None)], SETTINGS)
    flat = bulk("Cu")
    flat.cell[2] = 0.01 * flat.cell[0]
    with pytest.raises(GeometryError, match=r"no volume|high"):
        lattice_images(flat, 5.0)
    write_frames(tmp_path / "x.xyz", frames)
    assert accuracy_by_group(predict(known_potential(), frames))["all"].frames == 3


def test_damaged_label_files_end_in_named_errors(tmp_path: Path) -> None:
    """Bytes changed, lost and repeated at random: an error of ours, or frames that can be used."""
    from atomistic.errors import AtomisticError

    write_frames(tmp_path / "good.xyz", emt_frames(2))
    good = (tmp_path / "good.xyz").read_bytes()
    rng, outcomes = np.random.default_rng(1), {"error": 0, "frames": 0}
    for _ in range(400):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(data)))
            match int(rng.integers(4)):
                case 0:
                    data[at] = int(rng.integers(256))
                case 1:
                    del data[at : at + int(rng.integers(1, 60))]
                case 2:
                    data[at:at] = data[at : at + int(rng.integers(1, 60))]
                case 3:
                    data[at:at] = rng.choice([b"-", b"nan", b"1e999", b"Xx", b" ", b'"'])
        (tmp_path / "bad.xyz").write_bytes(bytes(data))
        try:
            frames = read_frames(tmp_path / "bad.xyz", labelled=True)
            accuracy_by_group(predict(known_potential(), frames))
            outcomes["frames"] += 1
        except AtomisticError:
            outcomes["error"] += 1
    assert outcomes["error"] > 50
    assert outcomes["frames"] > 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": ()}, "at least one element"),
        ({"species": ("Li", "Xx")}, "Xx"),
        ({"ridges": (1e-8, 1e-6)}, "fall from strong to weak"),
        ({"energy_weight": 0.0, "force_weight": 0.0, "stress_weight": 0.0}, "one must be above zero"),
        ({"levle": 8}, "levle"),
        ({"held_out": 1.5}, "held_out"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises((ValidationError, InputError), match=message):
        TrainingSettings.model_validate({"species": SPECIES, **change})


def test_training_takes_seconds_not_minutes() -> None:
    """A guard against an accidental loss of the compiled path: 8 atoms, level 10, 100 frames."""
    frames = emt_frames(100)
    training = Training(frames, SETTINGS.model_copy(update={"level": 10}))
    parameters = np.array(training.template.parameters)
    training.problem(parameters)
    started = time.perf_counter()
    training.problem(parameters)
    assert time.perf_counter() - started < 5.0
