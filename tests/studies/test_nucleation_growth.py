"""Growth of lithium in a nucleation study: conservation, the time to a path, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError, LimitingCurrentError
from mesoion.material import Material
from mesoion.nucleation_growth import (
    GrowthInput,
    NetworkInput,
    grow_case,
    grow_cases,
    grow_network,
    network,
    strip,
    write_growth,
)
from mesoion.runfolder import RunFolder

NM = 1e-9


def material() -> Material:
    return Material.from_records("llzo-bulk", {"gb": "llzo-sigma17"})


def given(**changes: object) -> GrowthInput:
    values = {"length": 12 * NM, "depth": 5 * NM, "cells": 3, "current_density": 100.0, "source": "test"}
    return GrowthInput(**(values | changes))


def test_the_strip_holds_one_layer_in_its_middle() -> None:
    mesh = strip(12 * NM, 5 * NM, 1.6 * NM, 3, "gb")
    layer = mesh.region == 1
    assert_allclose(mesh.volumes[layer].sum(), 12 * NM * 1.6 * NM, rtol=1e-12, atol=0)
    assert_allclose(mesh.volumes.sum(), 12 * NM * 11.6 * NM, rtol=1e-12, atol=0)
    assert_allclose(np.abs(mesh.layer_normals[layer]), [[0.0, 1.0]] * int(layer.sum()), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"growth\.depth"):
        strip(12 * NM, 2 * NM, 1.6 * NM, 3, "gb")


def test_the_time_to_a_path_goes_with_the_room_and_nothing_is_lost() -> None:
    times = []
    for share in (0.1, 0.2):
        grown = grow_case(given(free_volume=share), "case", material(), "gb", 298.15)
        row = grown.row()
        assert row["end"] == "metal joins both electrodes"
        assert row["Li lost"] < 1e-10
        assert row["charge lost"] < 1e-10
        times.append(row["connected after / s"])
    # The first metal takes time of its own, which the room does not change.
    assert 1.6 < times[1] / times[0] < 2.05


def run(folder: RunFolder, settings: GrowthInput, *names: str) -> None:
    grown = grow_cases(folder, settings, {name: (material(), {"gb": 1.0}) for name in names}, 298.15)
    write_growth(folder, settings, grown)


@pytest.mark.slow
def test_a_study_shows_growth_for_each_case(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run(folder, given(free_volume=0.05), "S", "SF")
    table = pd.read_csv(folder.staging / "tables" / "growth.csv")
    assert list(table["case"]) == ["S", "SF"]
    assert len(folder.captions) == 2
    words = dict(folder.paragraphs)["Growth"]
    assert "S: joins the electrodes after" in words
    assert "The cases take the same time" in words
    folder.close()


def test_a_case_that_cannot_grow_is_said_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesoion.growth._ITERATIONS", 1)
    folder = RunFolder(tmp_path / "run")
    run(folder, given(), "S")
    assert "Not computed: S" in dict(folder.paragraphs)["Growth"]
    assert "growth" not in folder.tables
    folder.close()


def test_a_current_beyond_the_limiting_one_is_a_typed_error_that_gives_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(LimitingCurrentError, match="growth, S: 10 V on left") as caught:
        run(folder, given(current_density=1e15), "S")
    folder.close()
    assert caught.value.unit == "A/m^2"
    assert caught.value.asked == 1e15
    # The limit is one of the strip: what it names can be asked for, a little more cannot.
    limit = caught.value.limiting_current
    assert 0 < limit < 1e15
    with pytest.raises(LimitingCurrentError) as again:
        grow_case(given(current_density=1.01 * limit), "S", material(), "gb", 298.15)
    assert_allclose(again.value.limiting_current, limit, rtol=1e-6, atol=0)


# A polycrystal -----------------------------------------------------------------------------------------------------


def test_the_network_is_the_polycrystal_s_boundaries() -> None:
    mesh, structure = network(NetworkInput(grains=3), {"a": 1.6 * NM, "b": 1.0 * NM}, {"a": 0.5, "b": 0.5})
    assert set(mesh.region_names) == {"grain", "a", "b"}
    assert (structure.junction_degrees >= 3).sum() >= 2
    assert_allclose(mesh.volumes.sum(), np.prod(structure.box), rtol=1e-9, atol=0)
    # Layers of their widths, but for the corners where they meet.
    length = structure.facet_lengths
    for number, width in ((1, 1.6 * NM), (2, 1.0 * NM)):
        own = mesh.volumes[mesh.region == number].sum()
        kind = structure.boundary_names.index(mesh.region_names[number])
        assert_allclose(own, width * length[structure.facet_type == kind].sum(), rtol=0.2, atol=0)
    # Some of them lie on each electrode, or metal had no way in.
    for side in ("left", "right"):
        cells = mesh.outer_cells[mesh.outer_faces(side)]
        assert (mesh.region[cells] > 0).any()
    with pytest.raises(InputError, match=r"growth\.polycrystal\.grain_size"):
        network(NetworkInput(grain_size=6 * NM), {"a": 1.6 * NM}, {"a": 1.0})
    with pytest.raises(InputError, match=r"growth\.polycrystal"):
        grow_network(given(), "S", material(), {"gb": 1.0}, 298.15)


def test_growth_in_a_polycrystal_conserves_lithium_and_charge() -> None:
    """Coarse and stopped early: metal leaves the cathode along the boundaries that end there, and nothing is lost."""
    settings = given(free_volume=0.02, longest=2e-3, polycrystal=NetworkInput(grains=2, grain_size=16 * NM))
    grown = grow_network(settings, "S", material(), {"gb": 1.0}, 298.15)
    g = grown.growth
    assert g.lithium_error < 1e-10
    assert g.charge_error < 1e-10
    assert g.deposited[-1] > 0
    assert 0 < grown.metal_share < 1
    x = g.mesh.centers[:, 0]
    front = x[np.isfinite(g.full_at)]
    assert front.max() > 0.95 * x.max()
    assert np.all(g.mesh.region[np.isfinite(g.full_at)] > 0)
    assert g.time[-1] == pytest.approx(2e-3, rel=1e-9)


@pytest.mark.slow
def test_metal_passes_the_junctions_and_joins_the_electrodes(tmp_path: Path) -> None:
    settings = given(current_density=100.0, polycrystal=NetworkInput())
    folder = RunFolder(tmp_path / "run")
    grown = grow_cases(folder, settings, {"S": (material(), {"gb": 1.0})}, 298.15)
    write_growth(folder, settings, grown)
    (case,) = grown.networks
    row = case.row()
    assert row["end"] == "metal joins both electrodes"
    assert row["Li lost"] < 1e-10
    assert row["charge lost"] < 1e-10
    assert row["junctions"] == row["junctions with metal"] == 4
    times = case.junction_times()
    assert 0 < times.min() < times.max() < row["connected after / s"]
    # Nearer the cathode, sooner: arrival times fall along x but for parallel ways.
    order = np.argsort(-case.junctions[:, 0])
    assert times[order[0]] == times.min() or times[order[1]] == times.min()
    assert {"growth_S", "growth_in_a_polycrystal_S"} <= set(folder.captions)
    assert "Metal is in 4 of 4 junctions" in dict(folder.paragraphs)["Growth"]
    folder.close()


@pytest.mark.slow
def test_time_to_a_path_through_a_polycrystal_does_not_depend_on_the_mesh() -> None:
    fine = NetworkInput(cells_across=4, largest_filling=0.25)
    times = [
        grow_network(given(current_density=100.0, polycrystal=p), "S", material(), {"gb": 1.0}, 298.15)
        for p in (NetworkInput(), fine)
    ]
    coarse, better = (float(t.growth.connected_at or np.nan) for t in times)
    assert_allclose(coarse, better, rtol=0.05, atol=0)
