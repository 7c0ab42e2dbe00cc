"""From trajectories of known ions to a folder, a record, and a pellet made of it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomistic.analysis import Analysis, analyse, ion_paths, judged, plane_directions
from atomistic.analysis_record import record_of, record_settings
from atomistic.analysis_report import figures, write_analysis
from atomistic.analysis_results import AnalysisResults, load_results
from atomistic.analysis_settings import open_sources, read_analysis_settings
from atomistic.analysis_structure import Structure, distance_slabs
from atomistic.boundary_planes import BoundaryPlanes
from atomistic.cells import lstz
from atomistic.cli import main
from atomistic.errors import AtomisticError, FileFormatError, InputError, TrajectoryError
from atomistic.labels import read_frames
from atomistic.mtp.basis import untrained
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.potential import write_mtp
from atomistic.sampling import CampaignSettings, temperature_name
from atomistic.trajectory import Trajectory, open_trajectory, save_trajectory
from mesoion.material import Material
from mesoion.pellet import Pellet, RepresentativeVolume
from mesoion.physics import Electrode
from mesoion.transport import load_record

BOLTZMANN = 8.617333262e-5
LOG_D0, ENERGY = math.log(4e-8), 0.20
"""ln(m²/s) and eV of the walks."""
KELVINS = (700.0, 900.0, 1200.0)
SITES = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(8)])
LATTICE = 3.0 * SITES + np.array([0.0, 0.0, 1.5])
CELL = np.diag([12.0, 12.0, 24.0])


def exact(kelvin: float) -> float:
    """D of the walks, m²/s."""
    return math.exp(LOG_D0 - ENERGY / (BOLTZMANN * kelvin))


def walk(
    kelvin: float,
    seed: int,
    *,
    frames: int = 400,
    slow: float = 1.0,
    across: float = 1.0,
    interval: float = 0.5,
) -> Trajectory:
    """Zr and O at rest, drifting together, and 40 Brownian Li.

    Within 3 Å of z = 6 and 18 Å D is `slow` times as large, along z everywhere `across` times.
    """
    rng = np.random.default_rng([seed, round(kelvin)])
    d = exact(kelvin) * 1e20 / 1e12
    parts = 8
    li = rng.random((40, 3)) * np.diag(CELL)
    # Steps by the D where they start fill a layer in inverse proportion to it.
    inside = rng.random(40) < 1 / (1 + slow)
    li[:, 2] = np.where(inside, 3.0, 9.0) + 6 * rng.random(40) + 12 * rng.integers(2, size=40)
    paths = np.empty((frames, 40, 3))
    for t in range(frames):
        paths[t] = li
        for _ in range(parts):
            inside = np.abs(np.mod(li[:, 2], 12.0) - 6.0) < 3.0
            scale = np.sqrt(2 * d * np.where(inside, slow, 1.0) * interval / parts)
            li = li + rng.normal(size=li.shape) * scale[:, None] * [1.0, 1.0, math.sqrt(across)]
    thermal = 0.05 * rng.normal(size=(frames, len(LATTICE), 3))
    symbols = ["Zr" if (i + j) % 2 else "O" for i, j, _ in SITES]
    frame = np.concatenate([LATTICE + thermal, paths], axis=1)
    frame += (1e-3 * np.arange(frames))[:, None, None]
    return Trajectory(
        (*symbols, *["Li"] * 40), interval * np.arange(frames), np.tile(CELL, (frames, 1, 1)), frame
    )


def write_dump(run: Trajectory, path: Path, *, step: float = 0.001) -> None:
    """As LAMMPS writes it: unwrapped positions, elements, no times."""
    lines = []
    for k in range(run.n_frames):
        lines += [
            "ITEM: TIMESTEP",
            f"{round(run.times[k] / step)}",
            "ITEM: NUMBER OF ATOMS",
            f"{run.n_atoms}",
        ]
        lines += [
            "ITEM: BOX BOUNDS pp pp pp",
            *[f"0 {CELL[d, d]}" for d in range(3)],
            "ITEM: ATOMS id element xu yu zu",
        ]
        lines += [
            f"{a + 1} {s} {x:.5f} {y:.5f} {z:.5f}"
            for a, (s, (x, y, z)) in enumerate(zip(run.species, run.positions[k], strict=True))
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


HEAD = """
title = "Walks of known D"
structure_frames = 40
rdf_range_A = 4.0
[sites]
Zr = 2.0
[record]
name = "walks-bulk"
material = "toy"
method = "Brownian ions, no potential"
potential = "forces.txt"
relative_permittivity = {value = 50.0, uncertainty_factor = 1.5, kind = "assumption", source = "a lattice's"}
"""
LAYERS = """
[boundary]
planes = [0.25, 0.75]
width_A = 6.0
name = "Sigma5[100](01-2)"
slab_A = 3.0
"""


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three temperatures and two seeds in the own format, and the TOML that names them."""
    folder = tmp_path_factory.mktemp("bulk")
    text = HEAD
    for kelvin in KELVINS:
        for seed in (1, 2):
            save_trajectory(walk(kelvin, seed), folder / f"{kelvin:g}-{seed}.bin")
            text += f'[[runs]]\nfile = "{kelvin:g}-{seed}.bin"\ntemperature_K = {kelvin}\nseed = {seed}\n'
    (folder / "forces.txt").write_text("none\n", encoding="utf-8")
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def analysed(bulk: Path) -> Analysis:
    return analyse(open_sources(bulk / "runs.toml"))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with layers a third as fast about two planes."""
    folder = tmp_path_factory.mktemp("layered")
    text = HEAD.replace("walks-bulk", "walks-layer") + LAYERS
    for kelvin in KELVINS:
        save_trajectory(walk(kelvin, 1, slow=0.3, across=0.5, frames=600), folder / f"{kelvin:g}.bin")
        text += f'[[runs]]\nfile = "{kelvin:g}.bin"\ntemperature_K = {kelvin}\n'
    (folder / "forces.txt").write_text("none\n", encoding="utf-8")
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    return folder


def test_known_diffusivities_are_inside_their_intervals(analysed: Analysis) -> None:
    means = {r.temperature_K: r for r in analysed.results.means if (r.direction, r.kind) == ("all", "tracer")}
    for kelvin in KELVINS:
        assert abs(math.log(means[kelvin].value_m2_per_s / exact(kelvin))) < 0.1
        assert means[kelvin].high_m2_per_s / means[kelvin].low_m2_per_s < 1.6
    law = next(a for a in analysed.results.arrhenius if (a.direction, a.kind) == ("all", "tracer"))
    assert law.activation_energy_eV.low < ENERGY < law.activation_energy_eV.high
    at_300 = law.extrapolated_m2_per_s["300"]
    assert at_300.low < exact(300.0) < at_300.high
    haven = analysed.results.haven_ratio
    assert haven is not None
    assert haven.low < 1.0 < haven.high
    ratios = [abs(math.log(row.value)) for row in analysed.results.anisotropy]
    assert len(ratios) == 6
    assert max(ratios) < 0.25


def test_the_folder_holds_numbers_tables_figures_and_one_page(analysed: Analysis, tmp_path: Path) -> None:
    folder = write_analysis(analysed, tmp_path / "out")
    assert load_results(folder) == analysed.results
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Arrhenius laws" in page
    assert page.count("data:image/png;base64") == len(figures(analysed)) == 5
    assert "http" not in page.replace("http-equiv", "")
    names = {path.stem for path in (folder / "tables").iterdir()}
    assert {"runs", "diffusivities", "means", "arrhenius", "anisotropy", "densities"} <= names
    assert (folder / "density.cube").stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    write_analysis(analysed, folder)
    with pytest.raises(FileFormatError, match="is no analysis"):
        write_analysis(analysed, tmp_path)


def test_the_same_runs_give_the_same_bytes(bulk: Path, analysed: Analysis) -> None:
    again = analyse(open_sources(bulk / "runs.toml")).results
    assert again.dump() == analysed.results.dump()


def test_a_pellet_is_made_of_the_records(
    bulk: Path, analysed: Analysis, layered: Path, tmp_path: Path
) -> None:
    """Through the command line, bulk and boundary; mesoion predicts what the walks were given."""
    write_analysis(analysed, tmp_path / "bulk")
    main_quietly(["analyse", str(layered / "runs.toml"), "--out", str(tmp_path / "layer")])
    for folder, name in ((bulk, "bulk"), (layered, "layer")):
        for k in range(2):
            arguments = ["record", str(tmp_path / name), "--settings", str(folder / "runs.toml")]
            main_quietly([*arguments, "--out", str(tmp_path / f"records{k}")])
    first, second = tmp_path / "records0", tmp_path / "records1"
    for name in ("walks-bulk", "walks-layer"):
        assert (first / f"{name}.json").read_bytes() == (second / f"{name}.json").read_bytes()
    record = load_record(first / "walks-bulk.json")
    for kelvin in KELVINS:
        got = record.diffusivity(kelvin)
        assert abs(math.log(got.value / exact(kelvin))) < 3.3 * got.log_standard_uncertainty < 0.1
    np.testing.assert_allclose(record.carrier_density_per_m3.value, 40 / 3456e-30, rtol=1e-9, atol=0)
    np.testing.assert_allclose(record.site_density_per_m3.value, 128 / 3456e-30, rtol=1e-9, atol=0)
    layer = load_record(first / "walks-layer.json")
    for kelvin in KELVINS:
        for direction, factor in (("along", 1.0), ("across", 0.5)):
            got = layer.diffusivity(kelvin, direction)  # type: ignore[arg-type]
            assert 0.3 * factor * exact(kelvin) / got.value == pytest.approx(1.0, abs=0.35)
    assert layer.boundary is not None
    assert layer.boundary.sigma == 5
    material = Material.from_records(first / "walks-bulk.json", {"sigma5": first / "walks-layer.json"})
    assert conductivity_of_a_pellet(material) < material.grain(900.0).conductivity_across


def conductivity_of_a_pellet(material: Material) -> float:
    """S/m at 900 K of a pellet of 100 nm grains, all boundaries alike."""
    volume = RepresentativeVolume.build(n_grains=8, boundary_fractions={"sigma5": 1.0}, realisations=1)
    pellet = Pellet(material, volume, 1e-7, 1e-3, 1e-4, Electrode("blocking", 0.1))
    return pellet.conductivities([900.0], samples=4)[0].total.value


def main_quietly(arguments: list[str]) -> None:
    """The command line, which must not end with an error."""
    main_code = run(arguments)
    assert main_code == 0


def run(arguments: list[str]) -> int:
    """Exit code of the command line."""
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# --- bad input ----------------------------------------------------------------------------------------------------

RUNS = '[[runs]]\nfile = "a.dump"\ntemperature_K = 900\ntime_step_fs = 1.0\n'


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


def test_ions_that_do_not_move_a_site_distance_count_nowhere(tmp_path: Path, bulk: Path) -> None:
    """A cold run of vibrating Li among three: reported, with its warning, and in no law."""
    cold = walk(700.0, 9, frames=200)
    frozen = cold.positions[:1, 128:] + 0.1 * np.random.default_rng(1).normal(size=(200, 40, 3))
    places = np.concatenate([cold.positions[:, :128], frozen], axis=1)
    save_trajectory(Trajectory(cold.species, cold.times, cold.cells, places), tmp_path / "cold.bin")
    text = '[[runs]]\nfile = "cold.bin"\ntemperature_K = 400\n'
    for kelvin in (900, 1200):
        text += f'[[runs]]\nfile = "{bulk}/{kelvin}-1.bin"\ntemperature_K = {kelvin}\n'
    (tmp_path / "runs.toml").write_text("structure_frames = 20\n" + text, encoding="utf-8")
    results = analyse(open_sources(tmp_path / "runs.toml")).results
    assert any("less than a site distance" in warning and "400 K" in warning for warning in results.warnings)
    assert {row.temperature_K for row in results.diffusivities if not row.used} == {400.0}
    assert {law.temperatures_K for law in results.arrhenius} == {(900.0, 1200.0)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"relative_permittivity": None}, "relative_permittivity"),
        ({"potential": None}, "record.potential"),
        ({"potential": "none.mtp"}, "cannot be read"),
        ({"name": "a b"}, "record: name"),
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


def test_slabs_cover_every_height_once_and_directions_are_orthonormal() -> None:
    planes = BoundaryPlanes(2, (0.1, 0.55), 30.0)
    slabs = distance_slabs(planes, 3.0)
    edges = sorted((low % 30.0, (high - low)) for layers in slabs.values() for low, high in layers)
    np.testing.assert_allclose(sum(width for _, width in edges), 30.0, rtol=1e-12, atol=0)
    assert len(slabs) == 2
    assert len(distance_slabs(planes, 2.2)) == 3
    cell = np.array([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, 0.7, 6.0]])
    for axis in range(3):
        turn = plane_directions(cell, axis)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), rtol=0, atol=1e-12)
        for k in range(3):
            if k != axis:
                assert abs(float(turn[2] @ cell[k])) < 1e-12


def test_a_settings_file_is_read_as_written(bulk: Path) -> None:
    found = read_analysis_settings(bulk / "runs.toml")
    assert found.sites == {"Zr": 2.0}
    assert [run.temperature_K for run in found.runs] == [700.0, 700.0, 900.0, 900.0, 1200.0, 1200.0]


def test_all_runs_of_a_temperature_count_or_none(analysed: Analysis) -> None:
    """One idle run of three stays in the mean; one of two, or one without a positive D, take the temperature out."""
    row = next(r for r in analysed.results.diffusivities if (r.direction, r.kind) == ("all", "tracer"))
    idle = row.model_copy(update={"warnings": (("no_jumps", "x"),)})
    backwards = row.model_copy(update={"value_m2_per_s": -1e-12, "used": False})
    for runs, counts in (
        ((row, row, idle), True),
        ((row, idle), False),
        ((row, row, backwards), False),
    ):
        assert {r.used for r in judged(runs)} == {counts}


# --- a campaign's folder ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `atomistic md` leaves it: a cell that notes its planes, from which the framework has since moved."""
    folder = tmp_path_factory.mktemp("campaign") / "c"
    cell = {"kind": "boundary", "boundary": "Sigma5[100](01-2)", "host": "lstz"}
    production = {"temperatures": [900.0, 1200.0], "time_ps": 200.0, "frame_interval_ps": 0.5}
    values = {
        "potential": "x.mtp",
        "seeds": [1, 2],
        "cell": cell,
        "production": production,
        "title": "Layers",
    }
    made = CampaignSettings(**values)  # type: ignore[arg-type]
    (folder / "cells").mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(made.model_dump(mode="json")), encoding="utf-8")
    (folder / "potential.mtp").write_bytes(b"MTP\n")
    for seed in (1, 2):
        for kelvin in production["temperatures"]:
            if (kelvin, seed) == (1200.0, 2):
                continue
            place = folder / "production" / temperature_name(kelvin) / f"seed{seed}"
            place.mkdir(parents=True)
            moved = walk(kelvin, seed, slow=0.3, across=0.5)
            shifted = moved.positions + np.array([0.0, 0.0, 1.7])
            save_trajectory(
                Trajectory(moved.species, moved.times, moved.cells, shifted), place / "trajectory.bin"
            )
            record = {"temperature_K": kelvin, "seed": seed, "stopped": None}
            (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
        atoms = moved.atoms(0)
        atoms.positions[:128] = LATTICE
        atoms.info |= {"normal_axis": 2, "boundary_heights": np.array([6.0, 18.0])}
        atoms.write(folder / "cells" / f"seed{seed}.extxyz")
    return folder


def test_a_campaign_is_read_with_its_planes_its_width_and_its_potential(
    campaign: Path, tmp_path: Path
) -> None:
    text = "structure_frames = 40\nrdf_range_A = 3.0\n[sites]\nZr = 2.0\n[boundary]\nlattice_constant_A = 6.7082\n"
    text += '[record]\nname = "layers"\nmaterial = "toy"\nmethod = "walks"\n'
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    sources = open_sources(campaign, read_analysis_settings(tmp_path / "s.toml"))
    for source in sources.runs:
        assert source.planes is not None
        np.testing.assert_allclose(np.array(source.planes.fractions) * 24.0, [7.7, 19.7], rtol=0, atol=0.1)
    analysis = analyse(sources)
    results = analysis.results
    assert results.title == "Layers"
    assert results.potential == "potential.mtp"
    assert any("1200 K, seed 2: not finished" in warning for warning in results.warnings)
    assert results.boundary is not None
    # The papers' rule: 2 spacings of (0 1 -2), 6.7082/sqrt(5) = 3.0 A each, are above 5 A.
    np.testing.assert_allclose(results.boundary.width.value_A, 6.0, rtol=1e-4, atol=0)
    assert "interplanar spacings" in results.boundary.width.rule
    for kelvin in (900.0, 1200.0):
        for region, slow in (("bulk", 1.0), ("boundary", 0.3)):
            for direction, factor in (("along", 1.0), ("across", 0.5)):
                got = results.used(region, direction)[kelvin][0].value
                assert factor * slow * exact(kelvin) / got == pytest.approx(1.0, abs=0.3)
    # Li fill the slow layers in inverse proportion to D: ratio of odds at theta of 0.15 and 0.48.
    energies = [row for row in results.segregation if row.solute == "Li"]
    assert [row.temperature_K for row in energies] == [900.0, 1200.0]
    assert all(row.energy_eV < -3 * row.standard_uncertainty_eV for row in energies)
    record = record_of(results, record_settings(results, None, "s.toml"))
    assert record.boundary is not None
    assert (record.boundary.sigma, record.region) == (5, "boundary")
    assert record.segregation_energy_eV is not None
    bulk_part = record_of(
        results,
        record_settings(results, {**results.settings["record"], "relative_permittivity": PERMITTIVITY}, "x"),
        region="bulk",
    )
    assert bulk_part.region == "bulk"
    assert write_analysis(analysis, tmp_path / "out").joinpath("figures", "profile.png").exists()


PERMITTIVITY = {"value": 50.0, "uncertainty_factor": 1.5, "kind": "assumption", "source": "a lattice's"}


def test_monte_carlo_tells_segregation_with_its_swapped_atoms_out_of_the_drift(
    campaign: Path, tmp_path: Path
) -> None:
    """Two kinds of cation exchange places, one enriched near the planes: its energy is the one put in."""
    folder = tmp_path / "c"
    shutil.copytree(campaign, folder)
    values = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    values["mcmd"] = {"pairs": [["Ta", "Zr"]], "temperature": 1500.0}
    (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
    near = np.abs(np.mod(LATTICE[:, 2], 12.0) - 6.0) < 3.0
    cations = np.flatnonzero([(i + j) % 2 for i, j, _ in SITES])
    energy = -0.1
    odds = math.exp(-energy / (BOLTZMANN * 1500.0))
    for seed in (1, 2):
        atoms = walk(900.0, seed, frames=8).atoms(0)
        atoms.positions[:128] = LATTICE
        numbers = atoms.numbers.copy()
        solute = cations[: len(cations) // 4]
        numbers[solute] = 73
        atoms.numbers = numbers
        atoms.info |= {"normal_axis": 2, "boundary_heights": np.array([6.0, 18.0])}
        atoms.write(folder / "cells" / f"seed{seed}.extxyz")
        rng = np.random.default_rng(seed)
        frames = []
        for _ in range(400):
            # Independent draws of which sites the 16 Ta hold, weighted by the odds, as swaps sample them.
            weight = np.where(near[cations], odds, 1.0)
            places = metropolis(rng, weight, len(solute))
            order = cations.copy()
            rest = [k for k in range(len(cations)) if k not in set(places)]
            frame = atoms.positions.copy()
            frame[cations] = LATTICE[order[[*places, *rest]]]
            frames.append(frame)
        run = Trajectory(
            tuple(atoms.get_chemical_symbols()),
            np.arange(400.0),
            np.tile(CELL, (400, 1, 1)),
            np.array(frames),
        )
        (folder / "mcmd" / f"seed{seed}").mkdir(parents=True)
        save_trajectory(run, folder / "mcmd" / f"seed{seed}" / "trajectory.bin")
    for place in (folder / "production").rglob("trajectory.bin"):
        made = next(open_trajectory(place).chunks(10_000))
        save_trajectory(replace(made, species=tuple(atoms.get_chemical_symbols())), place)
    text = "structure_frames = 20\n[boundary]\nwidth_A = 6.0\n"
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    structure = Structure(open_sources(folder, read_analysis_settings(tmp_path / "s.toml")))
    (found,) = structure.segregation()
    assert (found.solute, found.runs, found.temperature_K) == ("Ta", "mcmd", 1500.0)
    assert abs(found.energy_eV - energy) < 3.5 * found.standard_uncertainty_eV < 0.03


def metropolis(rng: np.random.Generator, weight: np.ndarray, number: int) -> list[int]:
    """`number` of the sites in a draw with probability proportional to the product of their weights."""
    held = list(rng.choice(len(weight), number, replace=False))
    free = [k for k in range(len(weight)) if k not in set(held)]
    for _ in range(300):
        a, b = rng.integers(len(held)), rng.integers(len(free))
        if rng.random() < weight[free[b]] / weight[held[a]]:
            held[a], free[b] = free[b], held[a]
    return [int(k) for k in held]


def test_a_site_order_of_a_perovskite(tmp_path: Path) -> None:
    atoms = lstz(order=0.5, rng=np.random.default_rng(1))
    frames = np.tile(atoms.positions, (12, 1, 1))
    frames += 0.05 * np.random.default_rng(0).normal(size=frames.shape)
    run = Trajectory(
        tuple(atoms.get_chemical_symbols()),
        0.1 * np.arange(12),
        np.tile(atoms.cell.array, (12, 1, 1)),
        frames,
    )
    save_trajectory(run, tmp_path / "a.bin")
    text = '[order]\n[[runs]]\nfile = "a.bin"\ntemperature_K = 900\n'
    (tmp_path / "runs.toml").write_text(text, encoding="utf-8")
    (row,) = Structure(open_sources(tmp_path / "runs.toml")).order()
    np.testing.assert_allclose(row.order, atoms.info["a_site_order"], rtol=1e-9, atol=0)


def test_a_campaign_that_cannot_be_analysed_is_refused(campaign: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no settings\.json"):
        open_sources(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "settings.json").write_bytes((campaign / "settings.json").read_bytes())
    with pytest.raises(TrajectoryError, match="no complete production run"):
        open_sources(empty)
    (tmp_path / "runs.toml").write_text(RUNS, encoding="utf-8")
    with pytest.raises(InputError, match="leave \\[\\[runs\\]\\] out"):
        open_sources(campaign, read_analysis_settings(tmp_path / "runs.toml"))


def test_vacancies_and_swaps_at_rest_are_differences_of_the_potentials_energies(
    campaign: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(campaign, folder)
    rng = np.random.default_rng(0)
    potential = untrained(("Li", "O", "Zr"), 2, cutoff=4.0, min_distance=0.5, rng=rng)
    potential = potential.with_parameters(0.1 * rng.normal(size=potential.parameters.size))
    write_mtp(potential, folder / "potential.mtp")
    atoms = read_frames(folder / "cells" / "seed1.extxyz")[-1]
    atoms.info.clear()
    # Li on a lattice of their own, so that no two atoms coincide.
    atoms.positions[128:] = LATTICE[:40] + 1.5
    (folder / "equilibration" / "seed1").mkdir(parents=True)
    atoms.write(folder / "equilibration" / "seed1" / "final.extxyz")
    text = "structure_frames = 20\n[boundary]\nwidth_A = 6.0\n"
    text += '[rest]\nvacancies = true\nswaps = [["Zr", "O"]]\nmax_sites = 6\nfmax = 0.0\n'
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    shown, rows = Structure(open_sources(folder, read_analysis_settings(tmp_path / "s.toml"))).rest()
    assert [row.defect for row in rows] == ["swap Zr-O", "vacancy Li"]
    assert all(row.all_converged and not row.relaxed for row in rows)
    calculator = MTPCalculator(potential)

    def energy(structure: Atoms) -> float:
        structure.calc = calculator
        return float(structure.get_potential_energy())

    vacancies = shown[1][1]
    direct = []
    for site in vacancies.index:
        vacant = atoms.copy()
        del vacant[int(site)]
        direct.append(energy(vacant))
    got = vacancies.energy
    assert np.ptp(got) > 1e-3
    np.testing.assert_allclose(got - got[0], np.array(direct) - direct[0], rtol=1e-6, atol=1e-9)
    near = np.abs(vacancies.distance) <= 3.0
    np.testing.assert_allclose(rows[1].difference_eV, got[near].mean(), rtol=1e-9, atol=0)
    (tmp_path / "s.toml").write_text("[rest]\nvacancies = true\n" + RUNS, encoding="utf-8")
    with pytest.raises(InputError, match="boundary cell"):
        read_analysis_settings(tmp_path / "s.toml")
