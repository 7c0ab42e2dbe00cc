"""Pellets from own records, from published ones, or from both: what comes first, what is said, what is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from mesoion.cli import app
from mesoion.config import check
from mesoion.errors import InputError
from mesoion.pellet_sources import choose
from mesoion.pellet_study import PelletInput, choices
from mesoion.runfolder import read_results
from mesoion.study import kind_of, run_study
from mesoion.transport import load_record, save_record

STUDY = Path(__file__).parents[2] / "studies" / "perovskite_and_garnet_pellets.toml"
FACTOR = 3.0


def own(folder: Path, name: str, factor: float = 1.0) -> str:
    """A published record as if our own runs had given it, conducting `factor` times as well; its path."""
    record = load_record(name)
    law = record.transport_parallel
    anchor = "D0_m2_per_s" if law.law == "diffusivity" else "conductivity_S_per_m"
    value = getattr(law, anchor)
    changed = law.model_copy(update={anchor: value.model_copy(update={"value": factor * value.value})})
    ours = record.model_copy(
        update={
            "name": f"{name}-own",
            "origin": "own",
            "potential_sha256": "0" * 64,
            "transport_parallel": changed,
        }
    )
    return str(save_record(ours, folder / f"{name}-own.json"))


def pellet(**changes: Any) -> dict[str, Any]:
    given = {
        "name": "LLTO",
        "grain": "llto-bulk",
        "boundaries": {"general": {"record": "llto-boundary"}},
        "mean_grain_size": "5 um",
        "measured_material": "LLTO",
        "picture": False,
        "electrode": {"kind": "blocking", "compact_capacitance": "10 uF/cm^2"},
    }
    return {**given, **changes}


def both(folder: Path, factor: float = FACTOR) -> dict[str, Any]:
    boundary = own(folder, "llto-boundary", factor)
    return pellet(
        own_grain=own(folder, "llto-bulk", factor),
        boundaries={"general": {"record": "llto-boundary", "own_record": boundary}},
    )


def study(pellets: list[Mapping[str, Any]], **changes: Any) -> Any:
    data = {
        "kind": "pellets",
        "title": "both",
        "temperatures": ["25 C", "100 C"],
        "samples": 20,
        "representative_volume": {"grains": 12, "realisations": 1},
        "picture_grains": 0,
        "pellets": pellets,
        **changes,
    }
    return check(kind_of("pellets").model, data, where="study")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """LLTO from own and published records, LSTZ from published ones alone, LLZO named with own ones that are absent."""
    folder = tmp_path_factory.mktemp("both")
    lstz = pellet(
        name="LSTZ0.75",
        grain="lstz075-bulk",
        boundaries={"general": {"record": "lstz075-boundary", "own_record": "lstz-unheard-of-own"}},
        own_grain="lstz-bulk-unheard-of-own",
        measured_material="LSTZ0.75",
    )
    absent = pellet(
        name="LLZO", grain=None, own_grain="llzo-unheard-of-own", boundaries={"general": {"own_record": "llzo-s-own"}}
    )  # fmt: skip
    changes = study([both(folder), lstz, absent]).model_dump(exclude={"kind", "seed", "title"})
    run_study(STUDY, folder / "out", overrides=changes)
    return {"folder": folder / "out", **read_results(folder / "out")}


def test_both_predictions_stand_beside_the_measurement(ran: dict[str, Any]) -> None:
    """Everything three times as conductive: three times the conductivity, of bulk, boundary and pellet."""
    found = {(c["material"], c["records"], c["quantity"]): c for c in ran["comparisons"]}
    for quantity in ("bulk", "apparent grain boundary", "total"):
        ours = found["LLTO", "own records", f"{quantity} conductivity"]
        theirs = found["LLTO", "published records", f"{quantity} conductivity"]
        assert_allclose(ours["predicted"], FACTOR * theirs["predicted"], rtol=1e-6, atol=0)
        assert ours["measured"] == theirs["measured"]
    assert ("LSTZ0.75", "own records", "bulk conductivity") not in found
    assert ("LSTZ0.75", "published records", "bulk conductivity") in found
    rows = pd.DataFrame(ran["conductivities"])
    assert set(rows[rows["pellet"] == "LLTO"]["records"]) == {"own records", "published records"}
    assert ran["predicted_from"] == {"LLTO": "own records", "LSTZ0.75": "published records"}
    assert {r["records"] for r in ran["readings"] if r["pellet"] == "LLTO"} == set(rows["records"])
    assert {p.stem for p in (ran["folder"] / "spectra").glob("*.csv")} == {
        "LLTO",
        "LLTO_published_records",
        "LSTZ0.75",
    }


def test_what_was_not_there_is_said(ran: dict[str, Any]) -> None:
    report = (ran["folder"] / "report.html").read_text()
    fallback = "no own record lstz-bulk-unheard-of-own, lstz-unheard-of-own is shipped"
    assert f"Predicted from published records: {fallback}." in report
    assert "LLZO: left out: no own record llzo-unheard-of-own, llzo-s-own is shipped." in report
    assert "From own records, with published records beside: LLTO." in report
    assert "From published records instead of own records: bulk 0.001 " in report


def test_the_switch_decides_what_comes_first(tmp_path: Path) -> None:
    given = PelletInput.model_validate(study([both(tmp_path)]).pellets[0].model_dump())
    first = choose(given.named(), "own", None)
    second = choose(given.named(), "literature", None)
    assert first.first is not None
    assert second.first is not None
    assert (first.first.label, second.first.label) == ("own records", "published records")
    assert first.beside == second.first
    assert second.beside == first.first
    assert first.said == second.said == ""


def test_the_users_own_records_in_the_plain_keys_are_called_own(tmp_path: Path) -> None:
    given = pellet(
        grain=own(tmp_path, "llto-bulk"), boundaries={"general": {"record": own(tmp_path, "llto-boundary")}}
    )
    (choice,) = choices(study([given])).values()
    assert choice.first is not None
    assert choice.first.label == "own records"
    assert choice.said == ""


def test_literature_asked_of_a_pellet_that_has_own_records_alone(tmp_path: Path) -> None:
    given = pellet(
        grain=None,
        own_grain=own(tmp_path, "llto-bulk"),
        boundaries={"general": {"own_record": own(tmp_path, "llto-boundary")}},
    )
    (choice,) = choices(study([given], source="literature")).values()
    assert choice.first is not None
    assert choice.said == "Predicted from own records: the study names no published records for it."


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        ({"own_grain": "llto-bulk-own"}, "pellets", "belong together"),
        ({"grain": None}, "pellets", "belong together"),
        ({"grain": None, "boundaries": {"general": {}}}, "pellets", "give grain and the record"),
        (
            {
                "own_grain": "llto-bulk",
                "boundaries": {"general": {"record": "llto-boundary", "own_record": "llto-boundary"}},
            },
            r"pellets\.LLTO\.own_grain",
            "give a record of an own run",
        ),
        (
            {"grain": None, "own_grain": "a-own", "boundaries": {"general": {"own_record": "b-own"}}},
            "source",
            "no own record a-own, b-own is shipped",
        ),
        (
            {
                "own_grain": "no.json",
                "boundaries": {"general": {"record": "llto-boundary", "own_record": "no.json"}},
            },
            r"no\.json",
            "",
        ),
    ],
)  # fmt: skip
def test_records_that_cannot_be_are_refused(changes: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(InputError, match=where) as caught:
        choices(study([pellet(**changes)]))
    assert said in str(caught.value)


def test_a_published_boundary_under_an_own_key_is_named(tmp_path: Path) -> None:
    given = pellet(
        own_grain=own(tmp_path, "llto-bulk"),
        boundaries={"general": {"record": "llto-boundary", "own_record": "llto-boundary"}},
    )
    with pytest.raises(InputError, match=r"pellets\.LLTO\.boundaries\.general\.own_record"):
        choices(study([given]))


def test_an_unknown_source_is_one_message_and_exit_code_two(tmp_path: Path) -> None:
    text = STUDY.read_text().replace('source = "own" ', 'source = "ours" ')
    assert 'source = "ours"' in text
    (tmp_path / "study.toml").write_text(text)
    result = CliRunner().invoke(app, ["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 or isinstance(result.exception, InputError)
    said = result.output + str(result.exception)
    assert "source" in said
    assert "own" in said
    assert "literature" in said
    assert not (tmp_path / "out" / "results.json").exists()


def test_the_shipped_study_names_records_of_both_kinds_and_leaves_none_of_the_published_pellets_out() -> None:
    data = tomllib.loads(STUDY.read_text())
    assert data["source"] == "own"
    shipped = check(kind_of("pellets").model, data, where=STUDY)
    chosen = choices(shipped)
    for given in shipped.pellets:
        if given.grain is not None:
            assert chosen[given.name].first is not None
        for prediction in (chosen[given.name].first, chosen[given.name].beside):
            if prediction is not None:
                assert np.isfinite(prediction.material.grain(298.15).conductivity_across)
    assert any(given.own_grain for given in shipped.pellets)
