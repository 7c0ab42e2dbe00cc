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
    model = SHIPPED / "llzo-ta-al-level12.mtp"
    start = run_md(
        cell,
        model,
        directory=tmp_path / "start",
        engine="plugin",
        temperature=600.0,
        ramp_steps=300,
        steps=100,
    ).final
    assert 300.0 < start.get_temperature() < 900.0
    # Few steps from the same velocities: longer ones differ by chaos, however equal the forces.
    runs = [
        run_md(
            start,
            model,
            directory=tmp_path / engine,
            engine=engine,
            temperature=600.0,
            steps=10,
            ensemble="nve",
            minimise=False,
            ramp_steps=0,
            keep_velocities=True,
            dump_every=10,
        )
        for engine in ("plugin", "numba")
    ]
    assert [run.engine for run in runs] == ["plugin", "numba"]
    np.testing.assert_allclose(runs[0].final.positions, runs[1].final.positions, rtol=0, atol=1e-7)
    moved = runs[0].final.positions - start.positions
    assert 0.01 < np.abs(moved - np.rint(moved)).max() < 0.5
