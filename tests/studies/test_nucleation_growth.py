"""Growth of lithium in a nucleation study: conservation, the time to a path, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.nucleation_growth import GrowthInput, grow_case, strip, write_growth
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


@pytest.mark.slow
def test_a_study_shows_growth_for_each_case(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    small = given(free_volume=0.05)
    grown = write_growth(folder, small, [("S", material()), ("SF", material())], 298.15)
    table = pd.read_csv(folder.staging / "tables" / "growth.csv")
    assert list(table["case"]) == ["S", "SF"]
    assert len(grown) == 2
    assert len(folder.captions) == 2
    words = dict(folder.paragraphs)["Growth"]
    assert "S: joins the electrodes after" in words
    assert "The cases take the same time" in words
    folder.close()


def test_a_case_that_cannot_grow_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_growth(folder, given(current_density=1e15), [("S", material())], 298.15)
    assert "Not computed: S" in dict(folder.paragraphs)["Growth"]
    assert "growth" not in folder.tables
    folder.close()
