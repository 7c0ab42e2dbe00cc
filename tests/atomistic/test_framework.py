"""A framework that melts or comes apart is seen, and its run enters no law."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from atomistic.analysis import analyse
from atomistic.analysis_settings import AnalysisSettings, open_sources
from atomistic.errors import TrajectoryError
from atomistic.framework import framework_displacement, framework_species
from atomistic.sampling import CampaignSettings, temperature_name
from atomistic.trajectory import Trajectory, save_trajectory

EDGE = 12.0


def run(seed: int, *, apart: float = 0.0, diffusion: float = 0.02, frames: int = 300) -> Trajectory:
    """32 Zr and 32 O vibrate and drift, 20 Li walk; at half time 16 Zr each move by `apart` up and down along x."""
    rng = np.random.default_rng(seed)
    grid = 3.0 * np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)])
    rest = np.repeat(grid[None], frames, axis=0) + 0.1 * rng.normal(size=(frames, 64, 3))
    rest[frames // 2 :, :16, 0] += apart
    rest[frames // 2 :, 16:32, 0] -= apart
    walks = rng.random((20, 3)) * EDGE + np.cumsum(
        np.sqrt(2 * diffusion) * rng.normal(size=(frames, 20, 3)), axis=0
    )
    places = np.concatenate([rest, walks], axis=1) + 0.01 * np.arange(frames)[:, None, None]
    cells = np.tile(EDGE * np.eye(3), (frames, 1, 1))
    return Trajectory(("Zr",) * 32 + ("O",) * 32 + ("Li",) * 20, np.arange(frames) * 1.0, cells, places)


@pytest.mark.parametrize("apart", [0.0, 1.0, 4.0])
def test_displacement_is_what_the_cations_moved(apart: float) -> None:
    """apart², vibrations averaged out: they leave 2 · 3 · 0.1²/16 Å²."""
    moved = framework_displacement(run(1, apart=apart), ("Zr",))
    assert_allclose(moved, apart**2 + 6 * 0.1**2 / 16, rtol=0.03, atol=0.002)


def test_oxygen_at_rest_dilutes_it_and_the_discarded_start_does_not_count() -> None:
    assert_allclose(framework_displacement(run(2, apart=3.0), ("O", "Zr")), 4.5, rtol=0.02, atol=0)
    assert framework_displacement(run(2, apart=3.0), ("Zr",), discard=200.0) < 0.01


def test_species_are_the_other_cations() -> None:
    assert framework_species(("Li", "La", "O", "Zr"), "Li") == ("La", "Zr")
    assert framework_species(("Li", "O"), "Li") == ("O",)
    assert framework_species(("Li",), "Li") == ()
    with pytest.raises(TrajectoryError, match="no Ta in the trajectory"):
        framework_displacement(run(3), ("Ta",))


def settings_file(folder: Path, head: str = "") -> Path:
    text = 'structure_frames = 20\nrdf_range_A = 4.0\nlengths = "angstrom"\n' + head
    for kelvin, d, apart in ((700, 0.01, 0.0), (900, 0.02, 0.0), (1200, 0.04, 2.0)):
        save_trajectory(run(kelvin, apart=apart, diffusion=d), folder / f"{kelvin}.bin")
        text += f'[[runs]]\nfile = "{kelvin}.bin"\ntemperature_K = {kelvin}\n'
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    return folder / "runs.toml"


def test_a_molten_run_enters_no_law_and_is_named(tmp_path: Path) -> None:
    results = analyse(open_sources(settings_file(tmp_path))).results
    assert {law.temperatures_K for law in results.arrhenius} == {(700.0, 900.0)}
    assert [row.temperature_K for row in results.runs] == [700.0, 900.0]
    (said,) = [w for w in results.warnings if "framework" in w]
    assert "1200 K" in said
    assert "(Zr) moved by a mean square of 3.98 " in said
    assert "beyond 2 Å²" in said


def test_the_limit_may_be_raised_or_lifted(tmp_path: Path) -> None:
    for head in ("framework_limit_A2 = 5.0\n", "framework_limit_A2 = 0\n", 'framework = ["O"]\n'):
        results = analyse(open_sources(settings_file(tmp_path, head))).results
        assert {law.temperatures_K for law in results.arrhenius} == {(700.0, 900.0, 1200.0)}


def test_no_run_left_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match=r"no run is left: 700 K.*lower temperatures, or raise"):
        analyse(open_sources(settings_file(tmp_path, "framework_limit_A2 = 1e-6\n")))


@pytest.mark.parametrize(
    ("pairs", "left"), [([["Zr", "Ta"]], False), ([["Zr", "Li"]], True), ([["Zr", "vacancy"]], True)]
)
def test_swaps_that_melt_the_cell_leave_no_run(tmp_path: Path, pairs: list[list[str]], left: bool) -> None:
    """A swap stage tears the Zr apart: refused, unless Zr itself trades places with Li or vacancies."""
    values = {
        "potential": "x.mtp",
        "seeds": [1],
        "cell": {"kind": "llzo"},
        "mcmd": {"temperature": 1500.0, "pairs": pairs, "cycles": 10, "attempts": 10, "burst_ps": 0.1},
        "production": {"temperatures": [700.0, 900.0], "time_ps": 200.0, "frame_interval_ps": 1.0},
    }
    made = CampaignSettings(**values)  # type: ignore[arg-type]
    (tmp_path / "settings.json").write_text(json.dumps(made.model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "potential.mtp").write_bytes(b"MTP\n")
    for kelvin, d in ((700.0, 0.01), (900.0, 0.02)):
        place = tmp_path / "production" / temperature_name(kelvin) / "seed1"
        place.mkdir(parents=True)
        save_trajectory(run(round(kelvin), diffusion=d), place / "trajectory.bin")
        record = {"temperature_K": kelvin, "seed": 1, "stopped": None}
        (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "mcmd" / "seed1").mkdir(parents=True)
    save_trajectory(run(5, apart=2.0, frames=80), tmp_path / "mcmd" / "seed1" / "trajectory.bin")
    sources = open_sources(tmp_path, AnalysisSettings(structure_frames=20, rdf_range_A=4.0))
    if left:
        assert len(analyse(sources).results.runs) == 2
    else:
        with pytest.raises(TrajectoryError, match=r"700 K.*moved by a mean square of 3.98.*swap at a lower"):
            analyse(sources)
