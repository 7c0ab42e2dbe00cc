"""Run folders: whole or absent, resumed after a kill, served from the cache, intact when the disk is full."""

from __future__ import annotations

import errno
import json
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_study
from numpy.testing import assert_allclose

from mesoion import runfolder, study
from mesoion.errors import ConvergenceError, InputError, MesoionError
from mesoion.mesh import tensor_mesh
from mesoion.physics import Electrode
from mesoion.provenance import canonical, content_hash, plain
from mesoion.runfolder import Comparison, RunFolder, read_results, write_atomically
from mesoion.solve import PNPSystem
from mesoion.validation_cases import grain_fields

TOY = 'kind = "toy"\nseed = 3\n[[layers]]\ntype = "layer"\nwidth = "2 nm"\n'


@pytest.fixture(autouse=True)
def _toy_kind(monkeypatch):
    monkeypatch.setitem(study.KINDS, "toy", "toy_study")


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


def comparison(**changes):
    values = {
        "material": "LLTO",
        "quantity": "total",
        "unit": "S/cm",
        "predicted": 1e-4,
        "low": 5e-5,
        "high": 2e-4,
        "measured": 7e-5,
        "source": "doi",
    }
    return Comparison(**(values | changes))


def test_a_run_writes_everything_and_results_agree(toml, tmp_path):
    outcome = study.run_study(toml, tmp_path / "out")
    assert not outcome.from_cache
    results = read_results(outcome.path)
    assert_allclose(results["thickness"]["value"], 2e-9, rtol=1e-12, atol=0)
    assert results["comparisons"][0]["source"] == "a ruler"
    assert results["study"] == {"kind": "toy", "title": "toy", "file": "toy.toml"}
    spectrum = pd.read_csv(outcome.path / "spectra" / "toy.csv")
    assert list(spectrum.columns) == ["f / Hz", "Z' / ohm", "-Z'' / ohm"]
    assert (spectrum["-Z'' / ohm"] > 0).all()
    resolved = json.loads((outcome.path / "input_resolved.json").read_text())
    assert_allclose(resolved["layers"][0]["width"], 2e-9, rtol=1e-12, atol=0)
    assert (outcome.path / "input.toml").read_text() == TOY
    provenance = json.loads((outcome.path / "provenance.json").read_text())
    assert provenance["seed"] == 3
    assert provenance["versions"]["numpy"] == np.__version__
    assert len(provenance["inputs"]["toy.toml"]) == 64
    assert not (outcome.path / ".partial").exists()


def test_the_same_input_gives_the_same_bytes_and_another_seed_does_not(toml, tmp_path):
    first = study.run_study(toml, tmp_path / "a").path / "results.json"
    second = study.run_study(toml, tmp_path / "b").path / "results.json"
    assert first.read_bytes() == second.read_bytes()
    toml.write_text(TOY.replace("seed = 3", "seed = 4"))
    third = study.run_study(toml, tmp_path / "c").path / "results.json"
    assert read_results(third.parent)["noise"] != read_results(first.parent)["noise"]


def test_an_identical_run_is_served_from_the_cache_and_force_computes_again(toml, tmp_path):
    log = tmp_path / "log"
    toml.write_text(TOY.replace("[[layers]]", f'log = "{log}"\n[[layers]]', 1))
    assert not study.run_study(toml, tmp_path / "out").from_cache
    assert study.run_study(toml, tmp_path / "out").from_cache
    assert log.read_text() == "ran\n"
    assert not study.run_study(toml, tmp_path / "out", force=True).from_cache
    assert log.read_text() == "ran\nran\n"


@pytest.mark.parametrize("what", ["input", "code", "records", "damage"])
def test_whatever_decides_a_number_ends_the_cache(toml, tmp_path, monkeypatch, what):
    out = study.run_study(toml, tmp_path / "out").path
    if what == "input":
        toml.write_text(TOY.replace("2 nm", "3 nm"))
    elif what == "code":
        monkeypatch.setattr(study, "code_hash", lambda: "other")
    elif what == "records":
        monkeypatch.setattr(study, "record_hashes", lambda: {"x.json": "other"})
    else:
        (out / "spectra" / "toy.csv").write_text("damaged")
    assert not study.run_study(toml, out).from_cache
    assert study.run_study(toml, out).from_cache


def test_a_file_the_study_names_is_part_of_its_content(toml, tmp_path):
    (tmp_path / "notes.txt").write_text("one")
    toml.write_text(TOY.replace("seed = 3", 'seed = 3\nnotes = "notes.txt"'))
    study.run_study(toml, tmp_path / "out")
    assert study.run_study(toml, tmp_path / "out").from_cache
    (tmp_path / "notes.txt").write_text("two")
    assert not study.run_study(toml, tmp_path / "out").from_cache
    assert "notes.txt" in json.loads((tmp_path / "out" / "provenance.json").read_text())["inputs"]


def test_a_record_given_by_its_path_is_part_of_its_content(toml, tmp_path):
    record = tmp_path / "mine.json"
    record.write_text("{}")
    toml.write_text(TOY.replace("seed = 3", f'seed = 3\ntitle = "{record}"'))
    study.run_study(toml, tmp_path / "out")
    assert study.run_study(toml, tmp_path / "out").from_cache
    record.write_text("[]")
    assert not study.run_study(toml, tmp_path / "out").from_cache


def test_files_of_an_earlier_run_do_not_stay(tmp_path):
    for name in ("old", "new"):
        folder = RunFolder(tmp_path)
        folder.table(name, pd.DataFrame({"x": [1.0]}))
        folder.finish()
        folder.close()
    assert [p.name for p in (tmp_path / "tables").iterdir()] == ["new.csv"]


def test_a_failing_study_leaves_the_earlier_results(toml, tmp_path):
    out = study.run_study(toml, tmp_path / "out").path
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    toml.write_text(TOY.replace("seed = 3", 'fail = "value"'))
    with pytest.raises(InputError, match=r"toy\.toml: result bad"):
        study.run_study(toml, out)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_last_converged_state_is_saved(toml, tmp_path):
    toml.write_text(TOY.replace("seed = 3", 'fail = "newton"'))
    with pytest.raises(MesoionError, match=r"at 0.2 V.*last_good_state.npz") as caught:
        study.run_study(toml, tmp_path / "out")
    saved = Path(str(caught.value).rsplit(" in ", 1)[1])
    assert_allclose(np.load(saved)["state"], np.linspace(0, 0.1, 4), rtol=1e-15, atol=0)


def test_a_state_of_the_solver_is_saved_as_fields(toml, tmp_path, monkeypatch):
    mesh = tensor_mesh([np.linspace(0, 1e-8, 11)])
    fields = grain_fields(mesh, 1e27, 0.5, 500.0, 1e-2)
    electrodes = {"left": Electrode(), "right": Electrode()}
    state = PNPSystem(mesh, fields, 300.0, electrodes).steady_state({"right": 0.1})

    def fail(*_):
        raise ConvergenceError("no convergence", at="0.2 V", last_good=state)

    monkeypatch.setattr(toy_study, "run", fail)
    with pytest.raises(MesoionError, match="last_good_state"):
        study.run_study(toml, tmp_path / "out")
    saved = np.load(tmp_path / "out" / "last_good_state.npz")
    assert_allclose(saved["potential"], state.potential, rtol=0, atol=0)
    assert_allclose(saved["centers"], mesh.centers, rtol=0, atol=0)
    assert saved["voltage_right"] == 0.1


def test_a_full_disk_is_a_clear_error_and_earlier_results_are_intact(toml, tmp_path, monkeypatch):
    out = study.run_study(toml, tmp_path / "out").path
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    toml.write_text(TOY.replace("2 nm", "3 nm"))
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > full.after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for full.after in range(6):
        calls.clear()
        with pytest.raises(InputError, match=r"disk is full; earlier results are intact"):
            study.run_study(toml, out)
        assert {p: p.read_bytes() for p in before} == before
        assert not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    monkeypatch.setitem(study.KINDS, "toy", "toy_study")
    assert not study.run_study(toml, out).from_cache


def run_and_die(toml, out, at):
    """The exit status of a run that is killed just before its `at`-th replace, unlink or sync of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def wrapped(*args, **kwargs):
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return wrapped

        for name in ("replace", "unlink", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            study.run_study(toml, out)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_kill_at_any_step_leaves_a_whole_folder_or_none_and_resumes(toml, tmp_path):
    expected = (study.run_study(toml, tmp_path / "reference").path / "results.json").read_bytes()
    out = tmp_path / "out"
    whole, none = 0, 0
    for at in range(1, 100):
        toml.write_text(TOY.replace("seed = 3", "seed = 5"))
        study.run_study(toml, out)
        toml.write_text(TOY)
        status = run_and_die(toml, out, at)
        if (out / "results.json").exists():
            whole += 1
            for name, digest in read_results(out)["files"].items():
                assert runfolder.file_hash(out / name) == digest
        else:
            none += 1
        study.run_study(toml, out)
        assert (out / "results.json").read_bytes() == expected
        if status == 0:
            break
    assert status == 0
    assert whole > 10
    assert none > 3


def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="another process is writing"):
        RunFolder(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def test_a_file_in_the_place_of_the_folder_is_refused(toml, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="choose a folder you can write to"):
        study.run_study(toml, tmp_path / "file")


@pytest.mark.parametrize(
    "changes",
    [
        {"source": " "},
        {"low": float("nan")},
        {"high": None},
        {"low": 2e-4},
        {"measured": float("inf")},
        {"material": ""},
    ],
)
def test_a_comparison_needs_an_interval_and_a_source(changes):
    with pytest.raises(InputError, match="comparison"):
        comparison(**changes)


def test_a_comparison_keeps_what_it_is_given():
    made = comparison()
    assert_allclose(made.ratio, 10 / 7, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a" * 200, "nul\0"])
def test_names_stay_inside_the_folder(tmp_path, name):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="file name"):
        folder.table(name, pd.DataFrame({"x": [1]}))
    folder.close()


@pytest.mark.parametrize("key", ["comparisons", "files", "", "schema_version"])
def test_reserved_results_are_refused(tmp_path, key):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="result"):
        folder.result(key, 1.0)
    folder.close()


def test_complex_columns_become_two(tmp_path):
    folder = RunFolder(tmp_path)
    path = folder.table("z", pd.DataFrame({"f": [1.0, 2.0], "Z": [1 + 2j, 3 - 4j]}))
    assert path.read_text().splitlines() == ["f,Z real,Z imag", "1.0,1.0,2.0", "2.0,3.0,-4.0"]
    folder.close()


def test_a_spectrum_with_wrong_shapes_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    for f, z in (([1.0, 2.0], [1j]), ([0.0], [1j]), ([1.0], [complex("nan")])):
        with pytest.raises(InputError, match="spectrum s"):
            folder.spectrum("s", f, z)
    folder.close()


def test_plain_data_is_exact_and_canonical():
    assert plain({"a": np.float64(0.1), "z": 1 - 2j, "v": np.arange(3)}) == {
        "a": 0.1,
        "z": {"real": 1.0, "imag": -2.0},
        "v": [0, 1, 2],
    }
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert content_hash({"x": 0.1}) != content_hash({"x": np.nextafter(0.1, 1)})
    with pytest.raises(ValueError, match="finite"):
        plain([float("inf")])
    with pytest.raises(TypeError, match="no form in JSON"):
        plain(object())


def test_an_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    write_atomically(path, "old")

    def broken(_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InputError, match="broken"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_foreign_results_file_is_refused(tmp_path):
    for content in ("[]", "{}", "not json", '{"files": 3}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(MesoionError):
            read_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"files": {"../../x": "0"}}))
    assert runfolder.published_files(tmp_path) == []


def test_once_returns_the_same_from_the_cache(tmp_path):
    folder = RunFolder(tmp_path)
    log = str(tmp_path / "log")
    first = folder.once(toy_study.thickness, widths=[1e-9, 2e-9], log=log)
    assert folder.once(toy_study.thickness, widths=[1e-9, 2e-9], log=log) == first
    assert folder.once(toy_study.thickness, widths=[1e-9, 3e-9], log=log) != first
    assert Path(log).read_text().count("ran") == 2
    folder.close()
