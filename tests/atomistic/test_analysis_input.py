"""What an analysis or a record refuses, the formats it reads, and files damaged at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from walks import (
    CELL,
    LAYERS,
    RUNS,
    run,
    walk,
    write_dump,
)

from atomistic.analysis import Analysis, analyse, ion_paths
from atomistic.analysis_record import record_of, record_settings
from atomistic.analysis_results import AnalysisResults, load_results
from atomistic.analysis_settings import open_sources, read_analysis_settings
from atomistic.errors import AtomisticError, FileFormatError, InputError, TrajectoryError
from atomistic.trajectory import Trajectory, save_trajectory


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run as a dump, and its TOML."""
    folder = tmp_path_factory.mktemp("dumped")
    write_dump(walk(900.0, 3, frames=40), folder / "a.dump")
    (folder / "runs.toml").write_text(RUNS, encoding="utf-8")
    return folder


def other_frames(text: str, change: str) -> str:
    """A dump without its 20th frame, or with two Zr of it in each other's places, without ids."""
    frames = ["ITEM: TIMESTEP" + part for part in text.split("ITEM: TIMESTEP")[1:]]
    if change == "missing":
        return "".join(frames[:20] + frames[21:])
    kept = []
    for k, frame in enumerate(frames):
        lines = frame.replace("ATOMS id element", "ATOMS element").splitlines()
        atoms = [line.split(" ", 1)[1] for line in lines[9:]]
        if k == 20:
            zr = [n for n, line in enumerate(atoms) if line.startswith("Zr")]
            atoms[zr[0]], atoms[zr[9]] = atoms[zr[9]], atoms[zr[0]]
        kept += [*lines[:9], *atoms]
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize(
    ("change", "word"), [("missing", "1 frames are missing"), ("order", "order of the atoms changed")]
)
def test_missing_frames_and_changed_order_are_named(
    dumped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, word: str
) -> None:
    text = (dumped / "a.dump").read_text(encoding="utf-8")
    (tmp_path / "a.dump").write_text(other_frames(text, change), encoding="utf-8")
    (tmp_path / "runs.toml").write_text(RUNS, encoding="utf-8")
    assert run(["analyse", str(tmp_path / "runs.toml"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert "a.dump" in said
    assert {path.name for path in tmp_path.iterdir()} == {"a.dump", "runs.toml"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "runs"),
        ("runs = 3", "runs"),
        (RUNS + "time_step = 1.0\n", "time_step_fs"),
        ("temperature = 900\n" + RUNS, "temperature"),
        (RUNS.replace("900", '"600 C"'), "temperature_K"),
        (RUNS.replace("temperature_K", "temperature"), "temperature_K"),
        (RUNS.replace("time_step_fs = 1.0\n", ""), "time_step"),
        (RUNS.replace("a.dump", "none.dump"), "cannot be opened"),
        (RUNS + RUNS, "each its own seed"),
        ("extrapolate_K = [300.0]\n" + RUNS, "at least two temperatures"),
        ('mobile = "Na"\n' + RUNS, "no Na"),
        ("structure_temperature_K = 800.0\n" + RUNS, "structure_temperature_K"),
        ("discard_ps = 19.0\n" + RUNS, "frames are left"),
        (RUNS + "[boundary]\nplanes = [0.25, 0.75]\nwidth_A = 13.0\n", "no bulk"),
        (RUNS + "[boundary]\nplanes = [0.25, 1.75]\n", "planes"),
        (RUNS + '[boundary]\nname = "Sigma"\n', "boundary"),
        (RUNS + '[boundary]\nwidth_rule = "spacings"\nplanes = [0.25, 0.75]\n', "spacings"),
        (RUNS + "[boundary]\n", "boundary along axis 2"),
        ("a = [", "is not TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    dumped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, word: str
) -> None:
    path = dumped / "changed.toml"
    path.write_text(text, encoding="utf-8")
    assert run(["analyse", str(path), "--out", str(tmp_path / "out")]) == 2
    assert word in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_lengths_of_another_unit_and_times_that_disagree_are_refused(tmp_path: Path) -> None:
    short = walk(900.0, 3, frames=12)
    nm = Trajectory(short.species, short.times, short.cells / 10, short.positions / 10)
    save_trajectory(nm, tmp_path / "nm.bin")
    text = '[[runs]]\nfile = "nm.bin"\ntemperature_K = 900\n'
    (tmp_path / "runs.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="atoms per cubic angstrom"):
        open_sources(tmp_path / "runs.toml")
    (tmp_path / "runs.toml").write_text('lengths = "angstrom"\n' + text, encoding="utf-8")
    assert len(open_sources(tmp_path / "runs.toml").runs[0].source.species) == 168
    write_dump(short, tmp_path / "a.dump")
    timed = (tmp_path / "a.dump").read_text(encoding="utf-8")
    pieces = timed.split("ITEM: TIMESTEP\n")[1:]
    timed = "".join(f"ITEM: TIME\n{0.5 * k}\nITEM: TIMESTEP\n{piece}" for k, piece in enumerate(pieces))
    (tmp_path / "a.dump").write_text(timed, encoding="utf-8")
    for step, word in (("1.0", ""), ("2.0", "time_step")):
        (tmp_path / "runs.toml").write_text(RUNS.replace("1.0", step), encoding="utf-8")
        if not word:
            analyse(open_sources(tmp_path / "runs.toml"))
            continue
        with pytest.raises(InputError, match=word):
            analyse(open_sources(tmp_path / "runs.toml"))


def test_a_region_without_ions_is_named(tmp_path: Path) -> None:
    whole = walk(900.0, 3, frames=200)
    still = whole.positions.copy()
    rng = np.random.default_rng(0)
    # All Li stay between the layers; only there can they move.
    still[:, 128:, 2] = 12.0 + 2.0 * (rng.random((200, 40)) - 0.5)
    bulk_only = Trajectory(whole.species, whole.times, whole.cells, still)
    save_trajectory(bulk_only, tmp_path / "a.bin")
    text = '[boundary]\nplanes = [0.25, 0.75]\nwidth_A = 6.0\n[[runs]]\nfile = "a.bin"\ntemperature_K = 900\n'
    (tmp_path / "runs.toml").write_text(text, encoding="utf-8")
    with pytest.raises(TrajectoryError, match="'boundary' was hardly ever visited"):
        analyse(open_sources(tmp_path / "runs.toml"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"relative_permittivity": None}, "relative_permittivity"),
        ({"potential": None}, "record.potential"),
        ({"potential": "none.mtp"}, "cannot be read"),
        ({"name": "a b"}, "record.name"),
        ({"names": "a"}, "did you mean name"),
        ({"region": "boundary"}, "have no boundaries"),
        ({"haven_ratio": {"value": 1.0, "kind": "assumption", "source": "a guess"}}, "uncertainty"),
        (
            {"haven_ratio": {"value": -1.0, "uncertainty_factor": 1.5, "kind": "assumption", "source": "x"}},
            "value",
        ),
    ],
)
def test_what_a_record_lacks_is_named(
    analysed: Analysis, bulk: Path, change: dict[str, Any], word: str
) -> None:
    table = {**analysed.results.settings["record"], **change}
    table = {key: value for key, value in table.items() if value is not None}
    with pytest.raises((InputError, FileFormatError), match=word):
        record_of(analysed.results, record_settings(analysed.results, table, "x"), folder=bulk)


def test_an_activation_energy_needs_two_temperatures_and_sites(analysed: Analysis, bulk: Path) -> None:
    def changed(**values: Any) -> AnalysisResults:
        return analysed.results.model_copy(update=values)

    wanted = record_settings(analysed.results, None, "x")
    only = tuple(row for row in analysed.results.diffusivities if row.temperature_K == 900.0)
    with pytest.raises(InputError, match="two or more temperatures"):
        record_of(changed(diffusivities=only), wanted, folder=bulk)
    with pytest.raises(InputError, match="sites"):
        record_of(changed(densities=()), wanted, folder=bulk)
    with pytest.raises(InputError, match="no run gives one"):
        record_of(changed(haven_ratio=None), wanted, folder=bulk)
    with pytest.raises(InputError, match="give a \\[record\\] table"):
        record_settings(changed(settings={}), None, "x")


def test_damaged_results_are_refused(analysed: Analysis, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_results(tmp_path / "results.json")
    good = json.loads(analysed.results.dump())
    for damage, word in (("{", "is not JSON"), ("{}", "holds no analysis"), (good | {"means": 3}, "means")):
        (tmp_path / "results.json").write_text(damage if isinstance(damage, str) else json.dumps(damage))
        with pytest.raises(FileFormatError, match=word):
            load_results(tmp_path)


def texts(run: Trajectory, folder: Path) -> dict[str, tuple[bytes, str]]:
    """The three external formats of a short run, and the keys their TOML needs."""
    write_dump(run, folder / "t.dump")
    xyz, xdat = [], ["toy", "1.0", *[" ".join(f"{x}" for x in row) for row in CELL]]
    kinds = list(dict.fromkeys(sorted(run.species)))
    order = np.argsort(np.array(run.species), kind="stable")
    xdat += [" ".join(kinds), " ".join(str(run.species.count(s)) for s in kinds)]
    lattice = " ".join(f"{x}" for x in CELL.ravel())
    for k in range(run.n_frames):
        xyz += [
            f"{run.n_atoms}",
            f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 time_ps={run.times[k]}',
        ]
        xyz += [
            f"{s} {x:.4f} {y:.4f} {z:.4f}" for s, (x, y, z) in zip(run.species, run.positions[k], strict=True)
        ]
        scaled = np.mod(run.positions[k][order] / np.diag(CELL), 1.0)
        xdat += [f"Direct configuration= {k + 1}", *[f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in scaled]]
    return {
        "dump": ((folder / "t.dump").read_bytes(), "time_step_fs = 1.0"),
        "extxyz": (("\n".join(xyz) + "\n").encode(), ""),
        "xdatcar": (("\n".join(xdat) + "\n").encode(), "frame_interval_ps = 0.5"),
    }


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[bytes, str]]]:
    folder = tmp_path_factory.mktemp("formats")
    whole = walk(900.0, 4, frames=12)
    few = [*range(0, 128, 16), *range(128, 134)]
    small = Trajectory(
        tuple(whole.species[a] for a in few), whole.times, whole.cells, whole.positions[:, few]
    )
    return folder, texts(small, folder)


def opened(folder: Path, content: bytes, keys: str) -> np.ndarray:
    """What the analysis gets to see: all ions' paths of a file, or a named error."""
    (folder / "file").write_bytes(content)
    text = f'lengths = "angstrom"\n[[runs]]\nfile = "file"\ntemperature_K = 900\n{keys}\n'
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    sources = open_sources(folder / "runs.toml")
    return ion_paths(sources.runs[0].source, "Li").positions


def test_the_three_formats_hold_the_same_paths(formats: tuple[Path, dict[str, tuple[bytes, str]]]) -> None:
    folder, files = formats
    paths = [opened(folder, content, keys) for content, keys in files.values()]
    for other in paths[1:]:
        moved, expected = (p - p[:1] for p in (other, paths[0]))
        np.testing.assert_allclose(moved, expected, rtol=0, atol=2e-3)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_damage_to_a_file_ends_in_anything_but_paths_or_a_named_error(
    formats: tuple[Path, dict[str, tuple[bytes, str]]], data: st.DataObject
) -> None:
    folder, files = formats
    content, keys = files[data.draw(st.sampled_from(sorted(files)))]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        how = data.draw(st.sampled_from(["cut", "drop", "repeat", "replace", "line"]))
        if how == "cut":
            del damaged[max(at, 1) :]
        elif how == "drop":
            del damaged[at : at + data.draw(st.integers(1, 400))]
        elif how == "repeat":
            damaged[at:at] = damaged[at : at + data.draw(st.integers(1, 2000))]
        elif how == "replace":
            damaged[at : at + 1] = data.draw(st.binary(min_size=0, max_size=4))
        else:
            damaged[at:at] = data.draw(
                st.sampled_from([b"\n", b" nan ", b" 1e400 ", b"-", b"ITEM: TIMESTEP\n", b"\x00"])
            )
        if not damaged:
            break
    try:
        found = opened(folder, bytes(damaged), keys)
    except AtomisticError:
        return
    assert np.all(np.isfinite(found))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_damage_to_settings_ends_in_anything_but_settings_or_a_named_error(
    bulk: Path, data: st.DataObject
) -> None:
    damaged = bytearray(((bulk / "runs.toml").read_text(encoding="utf-8") + LAYERS).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.sampled_from(
                [b"", b"-", b"nan", b"1e400", b"[", b'"', b"\x00", b"\xff", b"true", b"[[runs]]\n"]
            )
        )
    path = bulk / "damaged.toml"
    path.write_bytes(bytes(damaged))
    try:
        found = read_analysis_settings(path)
    except (InputError, FileFormatError):
        return
    assert all(run.temperature_K > 0 for run in found.runs)
