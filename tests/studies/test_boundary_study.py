"""The study of the boundary families, coarse: one small boundary, a short run."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


def study(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_small_boundary_is_built_relaxed_and_run(tmp_path: Path) -> None:
    rows = study("ten_boundaries").main(
        tmp_path,
        {"llzo": "llzo-ta-level8"},
        {},
        only="Sigma3(1-21)",
        time_ps=1.0,
        separation=5.0,
        max_shifts=2,
    )
    assert len(rows) == 1
    row = rows[0]
    assert row["charge_e"] == 0
    assert row["stopped"] == ""
    assert row["time_ps"] == pytest.approx(1.0)
    assert 0.2 < row["boundary_energy_J_per_m2"] < 2.0
    assert 12.9 < row["lattice_constant_A"] < 13.2


def test_the_committed_table_is_of_whole_runs() -> None:
    with (STUDIES / "tables" / "ten_boundaries.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({(row["material"], row["boundary"]) for row in rows}) == len(rows) >= 1
    for row in rows:
        assert row["charge_e"] == "0"
        assert float(row["boundary_energy_J_per_m2"]) > 0
        assert (row["stopped"], float(row["time_ps"])) == ("", 100.0), row["boundary"]
