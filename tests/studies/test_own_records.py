"""Own records and the comparison with the papers, on runs whose answer is known."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from atomistic.analysis import analyse
from atomistic.analysis_results import AnalysisResults
from atomistic.analysis_settings import open_sources
from atomistic.sampling import CampaignSettings, temperature_name
from atomistic.trajectory import Trajectory, save_trajectory

STUDIES = Path(__file__).parents[2] / "studies"
BOLTZMANN_EV = 8.617333262e-5


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> AnalysisResults:
    """Random walks whose D follows exp(-0.3 eV/kT)."""
    folder = tmp_path_factory.mktemp("walks")
    rng = np.random.default_rng(0)
    cell = np.diag([12.0, 12.0, 12.0])
    framework = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) * 3.0
    text = '[sites]\nZr = 1.0\n[record]\nname = "lstz-bulk-own"\nmaterial = "LSTZ0.75"\nmethod = "walks"\n'
    text += 'potential = "forces.txt"\nrelative_permittivity = {value = 50.0, uncertainty_factor = 1.5, '
    text += 'kind = "assumption", source = "a guess"}\n'
    for kelvin in (700, 900, 1200):
        d = 50.0 * math.exp(-0.3 / (BOLTZMANN_EV * kelvin))  # Å²/ps
        steps = rng.normal(scale=(2 * d * 0.5) ** 0.5, size=(400, 20, 3))
        ions = np.cumsum(steps, axis=0) + 12 * rng.random((20, 3))
        frames = np.concatenate([np.tile(framework, (400, 1, 1)), ions], axis=1)
        run = Trajectory(
            ("Zr",) * 64 + ("Li",) * 20, 0.5 * np.arange(400), np.tile(cell, (400, 1, 1)), frames
        )
        save_trajectory(run, folder / f"{kelvin}.bin")
        text += f'[[runs]]\nfile = "{kelvin}.bin"\ntemperature_K = {kelvin}\n'
    (folder / "runs.toml").write_text(text)
    (folder / "forces.txt").write_text("none")
    return analyse(open_sources(folder / "runs.toml"), show=False).results


def test_the_comparison_finds_what_is_there_and_says_what_is_not(
    walks: AnalysisResults, tmp_path: Path
) -> None:
    study = script("atoms_next_to_papers")
    own = tmp_path / "own"
    own.mkdir()
    (own / "lstz-bulk-1573.json").write_text(walks.dump(), encoding="utf-8")
    (own / "orders.csv").write_text(
        "campaign,seed,temperature_K,cycles,started_from,order,standard_error\n"
        "lstz-bulk-1573,seed1,1573.0,100,0.7778,0.10,0.01\nlstz-bulk-1573,seed2,1573.0,100,0.7778,0.16,0.01\n"
    )
    (own / "formation_energies.csv").write_text(
        "dopant,host,energy_eV,low_eV,high_eV\nAl,cubic,2.0,1.8,2.2\n", encoding="utf-8"
    )
    (own / "boundary_energies.csv").write_text(
        "campaign,boundary,relaxed,energy_J_per_m2,standard_uncertainty_J_per_m2\n"
        "lstz-sigma5-tilt,x,2,0.80,0.02\nlstz-sigma5-tilt-mcmd,x,2,0.75,0.02\n"
    )
    lines = study.main(tmp_path / "out", own, tmp_path)
    found = {(line[0], line[1]): line for line in lines}
    measured = found["LSTZ0.75", "bulk E_a, measured, hot-pressed"]
    value, low, high = (float(cell) for cell in measured[3:6])
    assert low < 0.3 < high
    assert abs(value - 0.3) < 0.05
    assert_allclose(float(measured[7]), value / 0.33, rtol=5e-3)
    order = found["LSTZ0.75", "order S, 1573 K"]
    # The scatter between two seeds, 0.03 of the mean, is wider than either's own error.
    assert_allclose([float(cell) for cell in order[3:6]], [0.13, 0.0712, 0.1888], rtol=0.01)
    assert order[6] == "below 0.2"
    energy = found["LSTZ0.75", "energy of Sigma5 tilt"]
    assert_allclose([float(cell) for cell in energy[3:6]], [0.75, 0.711, 0.789], rtol=2e-3)
    assert_allclose(float(energy[7]), 0.75 / math.sqrt(0.67 * 0.74), rtol=5e-3)
    assert found["LLZO", "formation energy of Al, cubic"][3:8] == ("2", "1.8", "2.2", "2.12", "0.943")
    missing = [line for line in lines if line[3] == "not computed"]
    assert found["LLZO", "bulk E_a of Li"] in missing
    assert found["LLZO", "formation energy of Al, amorphous"] in missing
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{len(lines) - len(missing)} of {len(lines)} numbers" in page
    assert page.index("<table>") < page.index("<img")


def test_ratios_of_diffusivities_come_from_both_laws(walks: AnalysisResults, tmp_path: Path) -> None:
    study = script("atoms_next_to_papers")
    tables = study.Tables(tmp_path)
    (tmp_path / "a.json").write_text(walks.dump(), encoding="utf-8")
    same = study.diffusivity_ratio(("a", "bulk", "all"), ("a", "bulk", "all"), 300.0)(tables)
    assert_allclose(same.value, 1.0, rtol=1e-12)
    assert same.low < 1.0 < same.high
    assert study.diffusivity_ratio(("a", "bulk", "all"), ("b", "bulk", "all"), 300.0)(tables) is None


def test_what_is_to_be_run_again_is_neither_compared_nor_a_record(
    walks: AnalysisResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, study = script("own_records"), script("atoms_next_to_papers")
    laws = [law.model_copy(update={"direction": "across"}) for law in walks.arrhenius]
    layered = walks.model_copy(update={"arrhenius": (*walks.arrhenius, *laws)})
    (tmp_path / "a.json").write_text(layered.dump(), encoding="utf-8")
    (tmp_path / "early_across.txt").write_text("# why\na\nb\n", encoding="utf-8")
    assert "across" not in {law.direction for law in study.Tables(tmp_path).laws("a")}
    monkeypatch.setattr(names, "TABLES", tmp_path)
    assert names.record_texts() == {}
    names._analysed_anew("a")
    assert names.early_across(tmp_path) == ["b"]
    assert "across" in {law.direction for law in study.Tables(tmp_path).laws("a")}


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Every number and text of a JSON value, by its place."""
    if not isinstance(value, dict | list):
        return {at: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, part in items for k, v in leaves(part, f"{at}/{key}").items()}


def test_shipped_own_records_follow_from_their_tables() -> None:
    study = script("own_records")
    made = {name: leaves(json.loads(text)) for name, text in study.record_texts().items()}
    assert made.keys() == {path.name for path in study.RECORDS.glob("*-own.json")}
    for name, found in made.items():
        shipped = leaves(json.loads((study.RECORDS / name).read_text(encoding="utf-8")))
        assert found.keys() == shipped.keys()
        for key, value in found.items():
            # Processors differ in the last digits of a matrix product.
            if isinstance(value, float):
                assert_allclose(value, shipped[key], rtol=1e-12, atol=0, err_msg=f"{name}: {key}")
            else:
                assert value == shipped[key], f"{name}: {key}"


def test_tables_keep_the_campaigns_that_are_not_at_hand(tmp_path: Path) -> None:
    module, path = script("own_records"), tmp_path / "table.csv"
    module._put(path, ["campaign", "x"], [["b", "1"], ["a", "2"]])
    module._put(path, ["campaign", "x"], [["b", "3"], ["b", "4"]])
    assert path.read_text(encoding="utf-8") == "campaign,x\na,2\nb,3\nb,4\n"


def test_a_nanosecond_at_the_highest_temperature_loses_no_atom() -> None:
    with (STUDIES / "tables" / "own" / "nanosecond.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["campaign"].split("-")[0] for row in rows} == {"llzo", "lstz", "llto"}
    for row in rows:
        assert float(row["time_ps"]) == 1000.0
        assert row["stopped"] == ""
        assert abs(float(row["mean_temperature_K"]) / float(row["temperature_K"]) - 1) < 0.02
        file = STUDIES.parent / "atomistic" / "potentials" / f"{row['potential']}.mtp"
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(row["potential_sha256"])


def test_every_campaign_has_settings_of_its_host() -> None:
    study = script("own_records")
    from atomistic.analysis_settings import settings_from

    for path in sorted((STUDIES / "campaigns").glob("*.toml")):
        settings = settings_from(study.settings_of(path.stem), path.stem)
        assert settings.sites
        assert settings.record["name"].endswith("-own")
        assert ("relative_permittivity" in settings.record) == ("sigma" not in path.stem)


def test_migration_gives_what_moves_a_limit_for_what_stays_and_a_reason_where_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Al of known D among La and Zr at rest at 1500 K, none that moves at 900 K, and a folder without a run."""
    study = script("own_records")
    monkeypatch.setattr(study, "TABLES", tmp_path)
    monkeypatch.setattr(study, "MIGRATION", {"llzo-al": ("Al",), "llzo-none": ("Al",)})
    values = {
        "potential": "x.mtp",
        "seeds": [1],
        "cell": {"kind": "llzo"},
        "production": {"temperatures": [900.0, 1500.0], "time_ps": 200.0, "frame_interval_ps": 0.5},
    }
    text = json.dumps(CampaignSettings(**values).model_dump(mode="json"))
    for name in ("llzo-al", "llzo-none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(text, encoding="utf-8")
        (tmp_path / name / "potential.mtp").write_bytes(b"MTP\n")
    rng = np.random.default_rng(3)
    grid = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) * 3.0
    known = 2e-9
    for kelvin, d in ((900.0, 0.0), (1500.0, known * 1e8)):
        ions = 12 * rng.random((24, 3)) + np.cumsum(
            rng.normal(scale=(2 * d * 0.5) ** 0.5 + 1e-3, size=(400, 24, 3)), axis=0
        )
        frames = np.concatenate([np.tile(grid, (400, 1, 1)), ions], axis=1)
        frames[:, :64] += 0.05 * rng.normal(size=(400, 64, 3))
        run = Trajectory(
            ("La",) * 32 + ("Zr",) * 20 + ("O",) * 12 + ("Al",) * 24,
            0.5 * np.arange(400),
            np.tile(12.0 * np.eye(3), (400, 1, 1)),
            frames,
        )
        place = tmp_path / "llzo-al" / "production" / temperature_name(kelvin) / "seed1"
        place.mkdir(parents=True)
        save_trajectory(run, place / "trajectory.bin")
        (place / "run.json").write_text(json.dumps({"temperature_K": kelvin, "seed": 1, "stopped": None}))
    study.run_migration(tmp_path)
    with (tmp_path / "migration.csv").open(encoding="utf-8", newline="") as stream:
        cold, hot, none = csv.DictReader(stream)
    assert (cold["D_cm2_per_s"], cold["note"][:26]) == ("", "moved less than a site dis")
    assert float(hot["low_cm2_per_s"]) < 1e4 * known < float(hot["high_cm2_per_s"])
    assert none["note"] == "every run stopped, or its framework came loose"
