"""Active learning with cheap teachers: it reaches its quality, resumes after kills, and its parts do what they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from atomistic.active_learning import ActiveLearning, LearningSettings, fit_only, learn, load_settings
from atomistic.errors import AtomisticError, FileFormatError, FramesError, InputError, PotentialError
from atomistic.labels import labels_of, read_frames, structure_hash, write_frames
from atomistic.learning_cells import (
    BOLTZMANN_EV,
    SystemSettings,
    disturbed,
    exchanged,
    formula_counts,
    squeezed,
    swap_monte_carlo,
    without,
)
from atomistic.mtp.basis import untrained
from atomistic.mtp.jacobian import shortest_distance
from atomistic.mtp.model_card import ModelCard, load_card, save_with_card
from atomistic.mtp.potential import read_mtp, write_mtp

SETTINGS = """
name = "CuAu-test"
seed = 3
rounds = 6
round_iterations = 15

[teacher]
kind = "ase"
calculator = "emt"

[training]
species = ["Cu", "Au"]
level = 6
cutoff = 4.8
min_distance = 1.7
radial_basis_size = 5
seeds = [0]
ridges = [1e-7]
iterations = 40

[[systems]]
name = "alloy"
kind = "file"
path = "alloy.xyz"
strain = 0.02
initial_frames = 12
exchange = [["Cu", "Au"]]
swap_attempts = 20
squeeze = 0.2
temperatures = [300, 900]

[sampling]
steps = 400
ramp_steps = 100
frames = 10
on_policy = 3
label_limit = 15
stop_grade = 50

[quality]
energy = 3.0
force = 0.08

[passing]
runs = 1
time_ps = 2
grade = 50
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    atoms = bulk("Cu", a=3.9, cubic=True) * (3, 3, 3)
    atoms.symbols[::3] = "Au"
    write_frames(tmp_path / "alloy.xyz", [atoms])
    (tmp_path / "settings.toml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished learning, looked at by several tests."""
    path = tmp_path_factory.mktemp("learned")
    atoms = bulk("Cu", a=3.9, cubic=True) * (3, 3, 3)
    atoms.symbols[::3] = "Au"
    write_frames(path / "alloy.xyz", [atoms])
    (path / "settings.toml").write_text(SETTINGS)
    learn(path / "settings.toml", path / "run")
    return path


def test_it_ends_when_the_potential_is_good(learned: Path) -> None:
    results = json.loads((learned / "run/results.json").read_text())
    assert results["quality_met"]
    last = results["rounds"][-1]["on_policy"]["alloy"]
    assert last["energy_mae_meV_per_atom"] <= 3.0
    assert last["force_rmse_eV_per_angstrom"] <= 0.08
    assert [row["ended"] for row in results["rounds"][-1]["passing"]] == ["complete"]
    # measured again, against the teacher itself, on structures of a run it was never shown
    from atomistic.lammps import run_md

    potential = read_mtp(learned / "run/potential.mtp")
    start = read_frames(learned / "alloy.xyz")[0]
    run = run_md(
        start, potential, directory=learned / "check", temperature=600, steps=400, dump_every=100, seed=77
    )
    errors = []
    from atomistic.mtp.calculator import MTPCalculator

    for frame in run.frames()[1:]:
        forces = []
        for calculator in (EMT(), MTPCalculator(potential)):
            copy = frame.copy()
            copy.calc = calculator
            forces.append(copy.get_forces())
        errors.append(np.sqrt(np.mean((forces[0] - forces[1]) ** 2)))
    assert np.mean(errors) < 0.1


def test_every_label_is_the_teachers_and_none_is_made_twice(learned: Path) -> None:
    frames = read_frames(learned / "run/labels.xyz", labelled=True)
    assert len({structure_hash(f) for f in frames}) == len(frames)
    for frame in frames[:: max(1, len(frames) // 8)]:
        copy = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True)
        copy.calc = EMT()
        np.testing.assert_allclose(labels_of(frame)[0], copy.get_potential_energy(), rtol=1e-9, atol=0)
        np.testing.assert_allclose(labels_of(frame)[1], copy.get_forces(), rtol=0, atol=1e-7)


def test_the_card_tells_the_truth(learned: Path) -> None:
    card = load_card(learned / "run/potential.mtp")
    frames = read_frames(learned / "run/labels.xyz")
    report = json.loads((learned / "run/results.json").read_text())["rounds"][-1]
    assert card.teacher == "emt"
    assert card.frames == report["labels_before"]
    assert card.errors["on policy"]["alloy"].frames == report["on_policy"]["alloy"]["frames"]
    used = frames[: card.frames]
    np.testing.assert_allclose(
        card.validity.shortest_distance_angstrom,
        min(shortest_distance(f, 4.8) for f in used),
        rtol=1e-12,
        atol=0,
    )
    shares = [f.get_chemical_symbols().count("Au") / len(f) for f in used]
    assert card.validity.contents["Au"] == (min(shares), max(shares))
    assert card.validity.temperatures_K == (300.0, 900.0)
    text = (learned / "run/potential.md").read_text()
    assert card.checksum in text
    assert "| on policy | alloy |" in text


def test_a_card_of_another_potential_is_refused(learned: Path, tmp_path: Path) -> None:
    card = load_card(learned / "run/potential.mtp")
    potential = read_mtp(learned / "run/potential.mtp")
    changed = potential.with_parameters(potential.parameters * 1.001)
    with pytest.raises(PotentialError, match="checksum differs"):
        save_with_card(changed, card, tmp_path / "x.mtp")
    save_with_card(potential, card, tmp_path / "x.mtp")
    changed.save(tmp_path / "x.mtp")
    with pytest.raises(PotentialError, match="checksums differ"):
        load_card(tmp_path / "x.mtp")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(FileFormatError, match="not a model card"):
        load_card(tmp_path / "x.mtp")
    (tmp_path / "x.json").unlink()
    with pytest.raises(FileFormatError, match="no model card"):
        load_card(tmp_path / "x.mtp")
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


def test_running_again_changes_nothing(learned: Path) -> None:
    before = {p: p.read_bytes() for p in sorted((learned / "run").glob("*.xyz"))}
    mtp = (learned / "run/potential.mtp").read_bytes()
    assert learn(learned / "settings.toml", learned / "run")["quality_met"]
    assert {p: p.read_bytes() for p in sorted((learned / "run").glob("*.xyz"))} == before
    assert (learned / "run/potential.mtp").read_bytes() == mtp


SCRIPT = "import sys; from atomistic.active_learning import learn; learn(sys.argv[1], sys.argv[2])"


def test_killed_anywhere_it_ends_with_the_same_potential(learned: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    command = [sys.executable, "-c", SCRIPT, str(learned / "settings.toml"), str(tmp_path / "killed")]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    killed = 0
    for _ in range(4):
        run = subprocess.Popen(command, env=environment)
        try:
            run.wait(float(rng.uniform(2.0, 6.0)))
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
    assert killed >= 1
    assert subprocess.run(command, env=environment, timeout=500).returncode == 0
    one, two = (read_mtp(f / "potential.mtp") for f in (learned / "run", tmp_path / "killed"))
    np.testing.assert_allclose(two.parameters, one.parameters, rtol=1e-9, atol=1e-12)
    labels = [(f / "labels.xyz").read_bytes() for f in (learned / "run", tmp_path / "killed")]
    assert labels[0] == labels[1]


def test_command_tells_when_the_quality_is_missed(folder: Path) -> None:
    from typer.testing import CliRunner

    from atomistic.cli import app

    def run(text: str, *options: str) -> Any:
        (folder / "settings.toml").write_text(text)
        arguments = ["train", str(folder / "settings.toml"), "--out", str(folder / "run"), *options]
        return CliRunner().invoke(app, arguments)

    text = SETTINGS.replace("rounds = 6", "rounds = 1").replace("force = 0.08", "force = 1e-6")
    text = text.replace("runs = 1", "runs = 0")
    missed = run(text)
    assert missed.exit_code == 1
    assert "quality not met in: alloy" in missed.output
    assert (folder / "run/rounds/00/training/parity.png").exists()
    # other qualities may be asked of the same folder, another teacher may not
    easy = text.replace("force = 1e-6", "force = 100.0").replace("energy = 3.0", "energy = 1e3")
    met = run(easy, "--json")
    assert met.exit_code == 0
    assert json.loads(met.stdout)["quality_met"]
    other = run(text.replace('calculator = "emt"', 'calculator = "lj"'))
    assert isinstance(other.exception, InputError)
    assert "other teacher" in str(other.exception)


def test_a_fit_of_given_frames_starts_from_a_potential(learned: Path, tmp_path: Path) -> None:
    labels, table = learned / "run/labels.xyz", (learned / "settings.toml").read_text()
    training = re.search(r"\[training\].*?(?=\n\[|\Z)", table, re.DOTALL)
    assert training is not None
    short = re.sub(r"iterations = \d+", "iterations = 1", training.group())
    write_mtp(read_mtp(learned / "run/potential.mtp"), tmp_path / "before.mtp")
    errors = {}
    for name, head in (("start", "start = 'before.mtp'\n"), ("none", "")):
        (tmp_path / f"{name}.toml").write_text(head + short)
        report = fit_only(tmp_path / f"{name}.toml", [labels], tmp_path / name)
        errors[name] = report["errors"]["training"]["all"]["force_rmse_eV_per_angstrom"]
    assert errors["start"] < 0.8 * errors["none"]
    (tmp_path / "shipped.toml").write_text("start = 'lstz-level12'\n" + table)
    assert Path(load_settings(tmp_path / "shipped.toml").start or "").exists()
    (tmp_path / "bad.toml").write_text("start = 'absent.mtp'\n" + short)
    with pytest.raises(FileFormatError, match=r"absent\.mtp"):
        fit_only(tmp_path / "bad.toml", [labels], tmp_path / "x")


def test_fit_of_given_frames(learned: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from atomistic.cli import app

    labels, settings = str(learned / "run/labels.xyz"), str(learned / "settings.toml")
    found = CliRunner().invoke(
        app, ["train", settings, "--frames", labels, "--out", str(tmp_path / "fit"), "--json"]
    )
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert report["potential_checksum"] == read_mtp(tmp_path / "fit/potential.mtp").checksum
    count = sum(report["errors"][kind]["all"]["frames"] for kind in report["errors"])
    assert count == len(read_frames(labels))
    (tmp_path / "bare.toml").write_text("[training]\nlevel = 8\n")
    with pytest.raises(InputError, match=r"bare\.toml: training\.species"):
        fit_only(tmp_path / "bare.toml", [labels], tmp_path / "x")
    (tmp_path / "bare.toml").write_text("name = 'x'\n")
    with pytest.raises(InputError, match="training"):
        fit_only(tmp_path / "bare.toml", [labels], tmp_path / "x")


def test_no_usable_initial_frame_is_an_error(folder: Path) -> None:
    (folder / "settings.toml").write_text(
        SETTINGS.replace("stop_grade = 50", "stop_grade = 50\nmax_force = 1e-9")
    )
    with pytest.raises(FramesError, match="no initial frame could be labelled"):
        learn(folder / "settings.toml", folder / "run")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", "sed"),
        ("level = 6", "level = 99", r"training\.level: 99"),
        ('kind = "file"', 'kind = "crystal"', r"systems\.0\.kind"),
        ('path = "alloy.xyz"', "", "needs path"),
        ("[passing]", '[passing]\nsystems = ["bulk"]', "passing.systems: there is no system 'bulk'"),
        ("[quality]", "[quality_by_system.bulk]", "there is no system 'bulk'"),
        ("temperatures = [300, 900]", "temperatures = []", "at least one needs temperatures"),
        ('kind = "ase"', 'kind = "oracle"', "teacher"),
        ("seed = 3", "seed = = 3", "is not TOML"),
        ("ridges = [1e-7]", "ridges = [1e-8, 1e-6]", "fall from strong to weak"),
    ],
)
def test_wrong_settings_are_named(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SETTINGS
    (folder / "settings.toml").write_text(SETTINGS.replace(old, new))
    with pytest.raises(AtomisticError, match=message):
        load_settings(folder / "settings.toml")


def test_settings_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml")


def test_removing_keeps_the_formula() -> None:
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True) * (2, 2, 2)
    fewer = without(atoms, "MgO", 3, np.random.default_rng(0))
    assert fewer.symbols.formula.count() == {"Mg": 29, "O": 29}
    assert len(without(atoms, "Mg2O", 100, np.random.default_rng(0))) == 64 - 48
    assert formula_counts("Li2O") == {"Li": 2, "O": 1}
    with pytest.raises(InputError, match="Li2O is expected"):
        formula_counts("not a formula")


def test_exchange_keeps_the_composition() -> None:
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    swapped = exchanged(atoms, "Mg", "O", 2, np.random.default_rng(1))
    assert swapped.symbols.formula.count() == atoms.symbols.formula.count()
    assert (np.array(swapped.numbers) != atoms.numbers).sum() == 4


def test_disturbances_stay_within_the_settings() -> None:
    system = SystemSettings(name="x", kind="file", path="x", scale=(0.98, 1.02), strain=0.0, rattle=0.1)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    lengths = []
    for seed in range(20):
        frame = disturbed(atoms, system, np.random.default_rng(seed), rattle=False)
        lengths.append(frame.cell.lengths()[0] / atoms.cell.lengths()[0])
        np.testing.assert_allclose(
            frame.get_scaled_positions(), atoms.get_scaled_positions(), rtol=0, atol=1e-7
        )
    assert 0.98 <= min(lengths) < 0.99
    assert 1.01 < max(lengths) <= 1.02
    moved = disturbed(atoms, system, np.random.default_rng(0), rattle=True)
    assert np.abs(moved.get_scaled_positions() - atoms.get_scaled_positions()).max() > 0.0


def test_squeezed_frames_hold_one_shorter_pair() -> None:
    atoms = bulk("Cu", a=3.7, cubic=True) * (2, 2, 2)
    before = shortest_distance(atoms, 4.0)
    found = [squeezed(atoms, np.random.default_rng(k), 2.2) for k in range(20)]
    kept = [f for f in found if f is not None]
    assert len(kept) > 0
    assert any(f is None for f in found)
    for frame in kept:
        assert 2.2 <= shortest_distance(frame, 4.0) < before


def test_swaps_are_drawn_from_boltzmann() -> None:
    """One atom exchanging with its neighbours of another kind visits states with the Boltzmann weights."""
    species = ("Cu", "Au")
    rng = np.random.default_rng(4)
    potential = untrained(species, 4, cutoff=3.5, min_distance=1.5, rng=rng, radial_basis_size=4)
    potential = potential.with_parameters(
        potential.parameters + rng.normal(0, 0.05, potential.parameters.size)
    )
    atoms = Atoms(
        "AuCu3", positions=[[0, 0, 0], [2.2, 0, 0], [4.8, 0, 0], [7.9, 0, 0]], cell=[30, 30, 30], pbc=True
    )
    from atomistic.mtp.calculator import MTPCalculator

    energies = []
    for k in range(4):
        state = atoms.copy()
        symbols = ["Cu"] * 4
        symbols[k] = "Au"
        state.set_chemical_symbols(symbols)
        state.calc = MTPCalculator(potential)
        energies.append(state.get_potential_energy())
    spread = np.ptp(energies)
    assert spread > 0
    temperature = spread / (2.0 * BOLTZMANN_EV)
    weights = np.exp(-np.array(energies) / (BOLTZMANN_EV * temperature))
    weights /= weights.sum()
    counts, walker = np.zeros(4), atoms
    for _ in range(3000):
        walker, _ = swap_monte_carlo(walker, potential, (("Cu", "Au"),), temperature, 2, rng)
        counts[walker.get_chemical_symbols().index("Au")] += 1
    np.testing.assert_allclose(counts / counts.sum(), weights, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("system", "elements"),
    [
        ({"kind": "llzo", "contents": {"ta": [0.25, 0.5]}, "primitive": True}, {"Li", "La", "Zr", "Ta", "O"}),
        ({"kind": "llto", "repeat": [3, 3, 2]}, {"Li", "La", "Ti", "O"}),
        ({"kind": "amorphous", "formula": "Li7La3Zr2O12", "units": 2}, {"Li", "La", "Zr", "O"}),
    ],
)
def test_systems_build_their_cells(system: dict[str, Any], elements: set[str], tmp_path: Path) -> None:
    settings = SystemSettings.model_validate({"name": "x", **system})
    cell = settings.build(np.random.default_rng(0), tmp_path)
    assert set(cell.get_chemical_symbols()) == elements
    again = settings.build(np.random.default_rng(0), tmp_path)
    np.testing.assert_array_equal(cell.positions, again.positions)


def test_unknown_contents_are_named(tmp_path: Path) -> None:
    system = SystemSettings(name="x", kind="llzo", contents={"mg": 0.1})
    with pytest.raises(InputError, match=r"systems\.x\.contents"):
        system.build(np.random.default_rng(0), tmp_path)


def test_learning_settings_have_a_default_teacher() -> None:
    settings = LearningSettings.model_validate(
        {
            "name": "x",
            "training": {"species": ["Li", "O"]},
            "systems": [{"name": "a", "kind": "file", "path": "a.xyz", "temperatures": [300]}],
        }
    )
    assert settings.teacher.kind == "chgnet"
    assert ActiveLearning.FREE


def test_start_from_a_potential_and_its_labels(learned: Path, folder: Path) -> None:
    """With the labels and the potential of an earlier learning, one short round is enough."""
    head = f'start = "{learned}/run/potential.mtp"\ninitial_labels = ["{learned}/run/labels.xyz"]\n'
    text = SETTINGS.replace("rounds = 6", "rounds = 1").replace("initial_frames = 12", "initial_frames = 0")
    text = text.replace("iterations = 40", "iterations = 2").replace("runs = 1", "runs = 0")
    (folder / "settings.toml").write_text(head + text)
    assert learn(folder / "settings.toml", folder / "run")["quality_met"]


def test_the_documented_settings_are_accepted(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/training.md"
    block = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    (tmp_path / "llzo.toml").write_text(block)
    settings = load_settings(tmp_path / "llzo.toml")
    assert settings.quality_of("boundary").energy == 3.0
    assert settings.systems[1].boundary == "Sigma5[100](012)"


def test_hot_starts_tell_a_sound_potential_from_a_broken_one(learned: Path, tmp_path: Path) -> None:
    from atomistic.stability import hot_starts

    potential = read_mtp(learned / "run/potential.mtp")
    start = read_frames(learned / "alloy.xyz")[0]

    def build(seed: int) -> Atoms:
        frame = start.copy()
        frame.rattle(0.05, seed=seed)
        return frame

    sound = hot_starts(
        potential, {"alloy": build}, tmp_path / "sound", temperature=400, starts=2, time_ps=1.0
    )
    assert [(o.ended, o.time_ps) for o in sound] == [("complete", 1.0)] * 2
    assert len(json.loads((tmp_path / "sound/starts.json").read_text())) == 2
    broken = potential.with_parameters(-potential.parameters)  # neighbours that repelled attract
    found = hot_starts(broken, {"alloy": build}, tmp_path / "broken", temperature=400, starts=1, time_ps=5.0)
    assert found[0].ended != "complete"
    with pytest.raises(InputError, match="systems are alloy"):
        hot_starts(potential, {"alloy": build}, tmp_path, temperature=400, minimise=["glass"])
