"""Settings of a campaign and the reader of its folder: what is refused, what is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atomistic.errors import FileFormatError, InputError
from atomistic.sampling import Campaign, CampaignSettings, read_settings, temperature_name, validated

PLAIN: dict[str, Any] = {
    "potential": "llzo-ta-level8",
    "seeds": [1, 2],
    "cell": {"kind": "llzo", "contents": {"ta": 0.25}},
    "production": {"temperatures": [1000.0, 723.5], "time_ps": 10.0},
}


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"production": {"temperatures": []}}, "production", "empty"),
        ({"production": {"temperatures": [900.0, 900.0]}}, "production", "twice"),
        ({"production": {"temperatures": [-1.0]}}, "production.temperatures.0", "greater than 0"),
        (
            {"production": {"temperatures": [900.0], "time_ps": 0.05}},
            "production.time_ps",
            "at least one frame",
        ),
        ({"seeds": []}, "seeds", "at least 1"),
        ({"seeds": [1, 1]}, "seeds", "twice"),
        ({"cell": {"kind": "boundary"}}, "cell", "needs boundary"),
        ({"cell": {"kind": "cif"}}, "cell", "needs path"),
        ({"cell": {"kind": "nasicon"}}, "cell.kind", "'llzo'"),
        ({"mcmd": {"pairs": [], "temperature": 1573.0}}, "mcmd.pairs", "at least 1"),
        ({"mcmd": {"pairs": [["Sr", "Sr"]], "temperature": 1573.0}}, "mcmd", "changes nothing"),
        ({"mcmd": {"pairs": [["Sr", "hole"]], "temperature": 1573.0}}, "mcmd", "'vacancy'"),
        ({"framework": ["O"]}, "framework", "belong together"),
        ({"potential": {"commands": [], "species": ["Li"]}}, "potential", ""),
        ({"steps": 5}, "steps", "no such key"),
        ({"cell": {"kind": "llzo", "repeet": [1, 1, 1]}}, "cell.repeet", "did you mean repeat"),
        ({"cell": {}}, "cell.kind", "is needed"),
        ({"cell": {"kind": "file", "path": "x", "contents": {"ta": 0.5}}}, "cell", "has no contents"),
        ({"cell": {"kind": "boundary", "boundary": "x", "repeat": [2, 2, 2]}}, "cell", "has no repeat"),
        ({"cell": {"kind": "llzo", "min_separation": 20.0}}, "cell", "has no min_separation"),
    ],
)
def test_refused_settings_name_their_key(change: dict[str, Any], where: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        validated({**PLAIN, **change}, "x.toml")
    assert str(caught.value).startswith(f"x.toml: {where}")
    assert says in str(caught.value)


def test_no_toml_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("cell = [", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"broken\.toml: is not TOML"):
        read_settings(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_settings(tmp_path / "absent.toml")


def test_checksum_follows_every_setting_and_no_order() -> None:
    plain = validated(PLAIN, "x")
    assert validated(dict(reversed(PLAIN.items())), "x").checksum == plain.checksum
    assert validated({**PLAIN, "timestep_fs": 1.0}, "x").checksum != plain.checksum
    again = CampaignSettings(**json.loads(plain.model_dump_json()))
    assert again == plain
    assert again.checksum == plain.checksum


def test_temperature_of_the_equilibration() -> None:
    mcmd = {"pairs": [["Zr", "Ta"]], "temperature": 1573.0}
    assert validated(PLAIN, "x").equilibration_temperature == 1000.0
    assert validated({**PLAIN, "mcmd": mcmd}, "x").equilibration_temperature == 1573.0
    given = {**PLAIN, "mcmd": mcmd, "equilibration": {"temperature": 900.0}}
    assert validated(given, "x").equilibration_temperature == 900.0
    assert [temperature_name(t) for t in (1000.0, 723.5)] == ["T1000", "T723.5"]


def test_reader_tells_complete_from_stopped_and_missing(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"no settings\.json"):
        Campaign.load(tmp_path)
    settings = validated(PLAIN, "x")
    (tmp_path / "settings.json").write_text(settings.model_dump_json(), encoding="utf-8")
    for name, seed, stopped in (("T1000", 1, None), ("T1000", 2, "lost"), ("T723.5", 1, None)):
        folder = tmp_path / "production" / name / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"stopped": stopped}), encoding="utf-8")
    campaign = Campaign.load(tmp_path)
    assert [(run.temperature, run.seed) for run in campaign.runs] == [
        (723.5, 1), (723.5, 2), (1000.0, 1), (1000.0, 2),
    ]  # fmt: skip
    assert [run.finished for run in campaign.runs] == [True, False, True, True]
    assert {t: [r.seed for r in runs] for t, runs in campaign.by_temperature().items()} == {
        723.5: [1],
        1000.0: [1],
    }
    assert campaign.equilibrated(1) is None
    assert campaign.mcmd_trajectory(1) is None
    (tmp_path / "production" / "T1000" / "seed1" / "run.json").write_text("[", encoding="utf-8")
    with pytest.raises(FileFormatError, match="is damaged"):
        Campaign.load(tmp_path)
