"""The nucleation study on a coarse setting: its numbers, its words, its refusals."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mesoion.config import check
from mesoion.errors import InputError, LimitingCurrentError, NoElectronsError
from mesoion.nucleation_map import hazard_map
from mesoion.nucleation_sampling import interval
from mesoion.nucleation_study import Study, build_cases, constriction_of, ordering
from mesoion.runfolder import read_results
from mesoion.study import run_study
from mesoion.transport import MEASURED_CURRENTS_FILE, list_records, measured_critical_currents
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

STUDY = Path(__file__).parents[2] / "studies" / "lithium_nucleation_llzo.toml"
SHIPPED = tomllib.loads(STUDY.read_text())
COARSE: dict[str, Any] = {
    "samples": 256,
    "sobol_samples": 16,
    "polycrystal_grains": 5,
    "temperatures": ["25 C", "50 C"],
    "grain_sizes": {"lowest": "1 um", "highest": "10 um", "points": 2},
    "barriers": ["1 eV"],
    "map": {"grains": 4},
    "profile": {
        "record": "llzo-sigma33-ta",
        "relative_permittivity": [12085],
        "segregation_energy": ["-0.05 eV"],
    },
    "growth": {
        "length": "12 nm",
        "depth": "5 nm",
        "cells": 3,
        "free_volume": 0.05,
        "current_density": "10 mA/cm^2",
        "source": "coarse",
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("nucleation") / "run"
    run_study(STUDY, folder, overrides=COARSE)
    return {"folder": folder, **read_results(folder)}


def refused(tmp_path: Path, **changes: Any) -> Any:
    return run_study(STUDY, tmp_path / "run", overrides={**COARSE, **changes})


def test_every_comparison_carries_its_interval_and_source(done: dict[str, Any]) -> None:
    measured = [m for m in measured_critical_currents() if m.material == "LLZO"]
    assert len(done["comparisons"]) == 2 * len(measured)
    for c in done["comparisons"]:
        assert c["low"] <= c["predicted"] <= c["high"]
        assert "table 5, its reference" in c["source"]
        assert c["unit"] == "mA/cm^2"


def test_criteria_and_sites_are_ordered(done: dict[str, Any]) -> None:
    """A pore needs the least, a junction less than a boundary; crossing a barrier never needs less than stability."""

    def median(criterion: str, site: str) -> float:
        value = done[f"critical_current_density_mA_per_cm2 S-LLZO {criterion} {site}"]["value"]
        return math.inf if value is None else float(value)

    assert median("stable", "wall") < median("stable", "junction") < median("stable", "boundary")
    for site in ("wall", "junction", "boundary", "first"):
        assert median("barrier", site) >= median("stable", site)
    assert median("barrier", "first") <= median("barrier", "electrons")


def test_the_order_is_counted_and_said(done: dict[str, Any]) -> None:
    rows = done["ordering"]
    assert {(o["first case"], o["second case"]) for o in rows} == {
        ("S-LLZO", "SF-LLZO"),
        ("S-LLZO, Al", "SF-LLZO"),
        ("S-LLZO", "S-LLZO, Al"),
    }
    for o in rows:
        assert_allclose(
            o["order flips in"],
            min(o["first is lower in"], 1 - o["first is lower in"]),
            rtol=1e-12,
            atol=0,
        )
        assert o["ratio, low"] <= o["ratio, median"] <= o["ratio, high"]
    # Boundaries that differ in their ion transport only: neither is the more dangerous one.
    first = [o for o in rows if o["site"] == "first of all"]
    assert all(o["order flips in"] > 0.25 for o in first)
    report = (done["folder"] / "report.html").read_text()
    assert "these assumptions do not order the two" in report
    assert "nothing tuned" in report


def test_indices_are_shares(done: dict[str, Any]) -> None:
    frame = pd.DataFrame(done["sobol_indices"])
    assert {"interfacial resistance", "elastic energy", "boundary conductivity"} <= set(frame["parameter"])
    stable = frame[frame["criterion"] == "metal is stable there"].set_index("parameter")
    assert stable.loc["interfacial resistance", "total"] > 0.1
    # The barrier has no say where only stability counts.
    assert abs(stable.loc["barrier", "total"]) < 1e-12


def test_every_assumption_is_in_the_table_with_its_source(done: dict[str, Any]) -> None:
    table = pd.read_csv(done["folder"] / "tables" / "parameters_and_their_ranges.csv")
    assert (table["source"].str.len() > 5).all()
    assumed = set(table.loc[table["assumption"] == "yes", "parameter"])
    assert {"surface energy", "boundary energy", "barrier", "core charge"} <= assumed
    assert "contact angle" not in assumed


def test_the_map_says_what_the_fast_model_says(done: dict[str, Any]) -> None:
    """Resolved ions and electrons: at the plating face eta is i R, and boundaries add microvolts to it."""
    rows = pd.DataFrame(done["hazard"])
    here = rows[rows["case"] == "SF-LLZO"].set_index("site")
    boundaries = here.drop(index=["junction", "inside a grain"])
    # Drawn 5 % below the current at which a median boundary is reached; eta falls off from the plating face.
    margin = boundaries["less what it needs / mV"].max()
    needs = boundaries["largest overpotential / mV"].max() - margin
    assert -0.12 * needs < margin < -0.045 * needs
    assert here.loc["junction", "log10 of propensity over the first"] > 1
    assert here.loc["inside a grain", "log10 of propensity over the first"] < -5
    assert here["assuming"].str.contains("gamma").all()
    assert (done["folder"] / "fields" / "hazard_SF_LLZO.vtu").exists()


def test_figures_and_tables_are_there(done: dict[str, Any]) -> None:
    figures = {p.stem for p in (done["folder"] / "figures").glob("*.png")}
    assert figures == {
        "hazard_map",
        "critical_current_and_grain_size",
        "critical_current_and_its_causes",
        "sensitivity",
        "trends_of_the_critical_current",
        "lithium_beside_a_boundary",
        "growth_S_LLZO",
        "growth_S_LLZO_Al",
        "growth_SF_LLZO",
    }
    growth = pd.read_csv(done["folder"] / "tables" / "growth.csv")
    assert growth["connected after / s"].gt(0).all()
    assert growth[["Li lost", "charge lost"]].to_numpy().max() < 1e-10
    profile = pd.read_csv(done["folder"] / "tables" / "lithium_beside_a_boundary.csv").iloc[0]
    # Li prefers the layer: enriched there, depleted beside it; current adds on the stripping side and takes beyond.
    assert profile["Li in the layer / Li in the grain"] > 1 > profile["Li beside it / Li in the grain"]
    assert profile["current makes, stripping side"] > 0 > profile["current makes, plating side"]


def test_trends_stand_beside_the_measured_ones_in_plain_words(done: dict[str, Any]) -> None:
    rows = pd.DataFrame(done["trends"]).set_index(["trend", "of"])
    size = rows.loc["grain size, d ln i/d ln d"]
    assert size["value"].isna().tolist() == [False] * 6 + [True]
    # The interface decides; no boundary of the records is resistive enough to let grain size in.
    assert size.loc["computed, S-LLZO, metal is stable there", ["value", "low", "high"]].abs().max() < 0.05
    warm = rows.loc["temperature, activation energy / eV"]
    assert warm.loc["measured", "low"] > 0
    computed = warm.loc["computed, S-LLZO, metal is stable there"]
    assert 0.3 < computed["value"] < 0.5
    assert rows.loc[("Al over Ta, ratio", "measured"), "from"] == 17
    report = (done["folder"] / "report.html").read_text()
    assert "Grain size by itself hardly moves the computed critical current" in report
    assert "The measured table prints no grain sizes" in report


def test_where_the_ordering_holds_and_where_not_is_said(done: dict[str, Any]) -> None:
    """Sites share the interface, so that their order is one of thresholds; types differ in their ion transport only."""
    sites = pd.DataFrame(done["order_of_the_sites"])
    metal = sites[
        (sites["case"] == "S-LLZO") & ~(sites[["first", "second"]] == "electronic short").any(axis=1)
    ]
    stable = metal[metal["criterion"] == "metal is stable there"]
    assert set(zip(stable["first"], stable["second"], strict=True)) == {
        ("pore", "junction"),
        ("pore", "boundary"),
        ("junction", "boundary"),
    }
    assert (stable["order flips in"] == 0).all()
    types = pd.DataFrame(done["order_of_the_boundary_types"])
    assert len(types) == 3 * 2 * 3
    assert (types["order"] == "no order").all()
    report = (done["folder"] / "report.html").read_text()
    assert "pore before junction before boundary: the order holds" in report
    assert "The two criteria order the sites differently" in report


def test_the_same_seed_gives_the_same_numbers_whatever_other_cases_there_are(done: dict[str, Any]) -> None:
    data = {**SHIPPED, **COARSE, "cases": SHIPPED["cases"][:1]}
    study = check(Study, data, where="study", directory=STUDY.parent)
    (alone,) = build_cases(study, constriction_of(study))
    expected = done["critical_current_density_mA_per_cm2 S-LLZO stable first"]["value"]
    assert_allclose(interval(alone.currents["stable", "first"] * 0.1)[0], expected, rtol=1e-12, atol=0)
    assert ordering([alone]) == []


@pytest.mark.parametrize(
    ("changes", "error", "where"),
    [
        ({"compare": "T-LLZO"}, InputError, "compare names one of the cases"),
        ({"sobol_samples": 100}, InputError, "power of 2"),
        (
            {"growth": {**COARSE["growth"], "polycrystal": {"cases": ["T-LLZO"]}}},
            InputError,
            "growth.polycrystal.cases: 'T-LLZO' is none of the cases",
        ),
        ({"measured_material": "LLTO"}, InputError, "measured_material"),
        ({"barriers": ["-1 eV"]}, InputError, "barriers"),
        ({"temperatures": ["-300 C"]}, InputError, "temperatures"),
        (
            {
                "assumptions": {
                    **SHIPPED["assumptions"],
                    "barrier": {"low": "-1 eV", "high": "1 eV", "source": "x"},
                }
            },
            InputError,
            "barrier.low",
        ),
        (
            {
                "assumptions": {
                    **SHIPPED["assumptions"],
                    "contact_angle": {"low": "95 deg", "high": "190 deg", "source": "x"},
                }
            },
            InputError,
            "contact_angle.high",
        ),
        (
            {
                "assumptions": {
                    **SHIPPED["assumptions"],
                    "surface_energy": {"low": "2 J/m^2", "high": "1 J/m^2", "source": "x"},
                }
            },
            InputError,
            "surface energy",
        ),
        (
            {"cases": [{**SHIPPED["cases"][0], "grain": "llto-bulk"}], "compare": "S-LLZO"},
            NoElectronsError,
            "llto-bulk",
        ),
        (
            {"map": {"grains": 3, "current_density": "1e7 mA/cm^2"}, "cases": SHIPPED["cases"][:1]},
            LimitingCurrentError,
            "limiting current",
        ),
    ],
)
def test_bad_studies_are_refused_and_nothing_is_left(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], where: str
) -> None:
    with pytest.raises(error, match=where):
        refused(tmp_path, **changes)
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_study_of_another_kind_is_sent_to_run(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mesoion.cli import app

    result = CliRunner().invoke(app, ["nucleation", str(STUDY.parent / "microstructure.toml")])
    assert isinstance(result.exception, InputError)
    assert "mesoion run" in str(result.exception)


def test_the_limiting_error_gives_the_largest_current() -> None:
    from mesoion.material import Material

    material = Material.from_records("llzo-bulk", {"gb": "llzo-sigma17"})
    grain, layer = material.grain(298.15), material.boundary(298.15, "gb")
    with pytest.raises(LimitingCurrentError) as caught:
        hazard_map(
            grain,
            {"gb": layer},
            {"gb": 1.0},
            grains=3,
            grain_size=5e-6,
            size_spread=0.2,
            interfacial_resistance=1e-3,
            current_density=1e5,
        )
    # 10 V over two interfaces and a few grains.
    assert 0.9 * 5000 < caught.value.limiting_current < 5000


def test_measured_values_are_those_of_the_table() -> None:
    """Every row of the published table with a critical current, once, in its units."""
    measured = [m for m in measured_critical_currents() if m.material == "LLZO"]
    folder = os.environ.get("MESOION_REFERENCE")
    if folder is None:
        pytest.skip("MESOION_REFERENCE is not set")
    table = pd.read_csv(Path(folder) / "llzo_critical_current_density.csv")
    table = table[table["critical_current_density_mA_per_cm2"].notna()]
    assert len(measured) == len(table) == 25
    expected = table["critical_current_density_mA_per_cm2"].to_numpy() * 10
    assert_allclose([m.critical_current_density_A_per_m2 for m in measured], expected, rtol=1e-9, atol=0)
    hours = table["half_cycle_time_h"].to_numpy()
    assert_allclose([m.half_cycle_time_s or np.nan for m in measured], hours * 3600, rtol=1e-6, atol=0)


def test_measured_files_are_no_transport_records() -> None:
    assert MEASURED_CURRENTS_FILE.removesuffix(".json") not in list_records()
    crystal = measured_critical_currents("LLZO single crystal")
    assert len(crystal) == 1
    assert crystal[0].source.doi == "10.1039/c9ta14177d"


def test_units_of_the_assumptions() -> None:
    study = check(Study, SHIPPED, where="study", directory=STUDY.parent)
    values = {p.name: p for p in study.assumptions.parameters()}
    assert_allclose(values["contact angle"].quantile(np.array([0.0])), math.radians(95), rtol=1e-12, atol=0)
    assert_allclose(values["barrier"].quantile(np.array([1.0])), 2 * ELEMENTARY_CHARGE, rtol=1e-12, atol=0)
    assert_allclose(values["interfacial resistance"].quantile(np.array([0.0])), 2e-4, rtol=1e-12, atol=0)
    assert values["barrier"].nominal / (BOLTZMANN * 298.15) == pytest.approx(38.9, rel=0.01)
