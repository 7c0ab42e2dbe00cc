"""From trajectories of known ions to a folder, a record, and a pellet made of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from walks import (
    ENERGY,
    KELVINS,
    exact,
    main_quietly,
    walk,
)

from atomistic.analysis import Analysis, analyse, judged, plane_directions
from atomistic.analysis_report import figures, write_analysis
from atomistic.analysis_results import load_results
from atomistic.analysis_settings import open_sources, read_analysis_settings
from atomistic.analysis_structure import distance_slabs
from atomistic.boundary_planes import BoundaryPlanes
from atomistic.errors import FileFormatError
from atomistic.trajectory import Trajectory, save_trajectory
from mesoion.material import Material
from mesoion.pellet import Pellet, RepresentativeVolume
from mesoion.physics import Electrode
from mesoion.transport import load_record


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
