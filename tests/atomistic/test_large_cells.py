"""Boundary cells up to ten thousand atoms are built and run, on both engines alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomistic.boundaries import build
from atomistic.building import crystal_of
from atomistic.campaign import SHIPPED
from atomistic.lammps import run_md
from atomistic.sampling import CellSettings


@pytest.mark.slow
def test_a_boundary_cell_of_ten_thousand_atoms_runs_alike_on_both_engines(tmp_path: Path) -> None:
    wanted = CellSettings(
        kind="boundary",
        host="llzo",
        boundary="Sigma5(120)[001]",
        contents={"lattice_constant": 12.94, "ta": 0.25},
    )
    assert wanted.boundary is not None
    cell = build(
        crystal_of(wanted),
        wanted.boundary,
        rng=np.random.default_rng(1),
        min_separation=75.0,
        min_width=24.0,
    )
    assert 9800 < len(cell) <= 10_000
    runs = [
        run_md(
            cell,
            SHIPPED / "llzo-ta-al-level12.mtp",
            directory=tmp_path / engine,
            engine=engine,
            temperature=300.0,
            steps=10,
            timestep_fs=1.0,
            dump_every=10,
            seed=1,
        )
        for engine in ("plugin", "numba")
    ]
    assert [run.engine for run in runs] == ["plugin", "numba"]
    np.testing.assert_allclose(runs[0].final.positions, runs[1].final.positions, rtol=0, atol=1e-7)
