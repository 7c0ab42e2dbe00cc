"""`mesoion nucleation` on bad input: one message that says what and where, exit code 2, nothing half written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mesoion import cli

RANGES = {
    "surface_energy": ("0.3 J/m^2", "0.9 J/m^2"),
    "boundary_energy": ("0.4 J/m^2", "1.2 J/m^2"),
    "contact_angle": ("95 deg", "146 deg"),
    "elastic_energy": ("1 MPa", "300 MPa"),
    "pore_diameter": ("50 nm", "2 um"),
    "barrier": ("0.5 eV", "2 eV"),
    "interfacial_resistance": ("2 ohm cm^2", "130 ohm cm^2"),
    "interfacial_activation_energy": ("0.3 eV", "0.5 eV"),
    "contact_fraction": ("0.1", "1.0"),
}
HEAD = """
kind = "nucleation"
samples = 64
sobol_samples = 8
polycrystal_grains = 4
barriers = ["0.5 eV"]
grain_sizes = { lowest = "1 um", highest = "10 um", points = 2 }
map = { grains = 0 }
"""
CASE = """
[[cases]]
name = "S-LLZO"
grain = "llzo-bulk"
mean_grain_size = "5 um"
boundaries.sigma17 = { record = "llzo-sigma17", fraction = 1.0 }
"""
GROWTH = '[growth]\nlength = "12 nm"\ndepth = "5 nm"\ncells = 3\nsource = "test"\n'
PROFILE = (
    '[profile]\nrecord = "llzo-sigma17"\nrelative_permittivity = [12085]\nsegregation_energy = ["0.1 eV"]\n'
)
STUDY = (
    HEAD
    + "".join(
        f'[assumptions.{name}]\nlow = "{low}"\nhigh = "{high}"\nsource = "test"\n'
        for name, (low, high) in RANGES.items()
    )
    + CASE
)


def call(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["nucleation", str(path), *more])
    out = capsys.readouterr()
    return int(end.value.code or 0), out.out, out.err


def refused(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message, after the checks that hold for every bad input."""
    path, out = folder / "study.toml", folder / "out"
    path.write_text(text)
    code, printed, err = call(capsys, path, "--out", str(out))
    assert (code, printed) == (2, "")
    # Progress bars, if any, stand on lines of their own before the message.
    message = err.split("error: ")[1]
    assert err.count("error: ") == 1
    assert len(message.splitlines()) == 1
    assert "Traceback" not in err
    left = [p.name for p in out.rglob("*") if p.is_file() and p.name != ".lock"] if out.exists() else []
    assert left == []
    return message


def changed(old: str, new: str) -> str:
    assert old in STUDY
    return STUDY.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (changed('"llzo-bulk"', '"llto-bulk"'), "cases.S-LLZO: record 'llto-bulk' has no electrons"),
        (changed('"llzo-bulk"', '"llto-bulk"') + GROWTH, "cases.S-LLZO: record 'llto-bulk' has no electrons"),
        (
            changed('"llzo-bulk"', '"llto-bulk"') + PROFILE,
            "cases.S-LLZO: record 'llto-bulk' has no electrons",
        ),
    ],
    ids=["pellet", "growth", "profile"],
)
def test_metal_without_electrons(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(text, tmp_path, capsys)
    assert named in message
    assert "give electronic_transport in the bulk record" in message


@pytest.mark.parametrize(
    "text",
    [
        changed("map = { grains = 0 }", 'map = { grains = 3, current_density = "1e7 mA/cm^2" }'),
        STUDY + GROWTH + 'current_density = "1e14 mA/cm^2"\n',
        STUDY + PROFILE + 'current_density = "1e12 mA/cm^2"\n',
    ],
    ids=["map", "growth", "profile"],
)
def test_currents_beyond_the_limiting_one(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(text, tmp_path, capsys)
    found = re.search(r"a current of (\S+) A/m\^2 is beyond the limiting current of (\S+) A/m\^2", message)
    assert found, message
    asked, limit = (float(x) for x in found.groups())
    assert 0 < limit < asked
    assert "ask for less" in message


BARRIER = '[assumptions.barrier]\nlow = "0.5 eV"'


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        (
            changed(BARRIER, BARRIER.replace("0.5", "-0.5")),
            "assumptions.barrier.low: '-0.5 eV'",
            "greater than 0",
        ),
        (changed('["0.5 eV"]', '["0.5 eV", "-1 eV"]'), "barriers[1]: '-1 eV'", "greater than 0"),
        (
            STUDY + GROWTH + 'nucleation_overpotential = "-0.1 V"\n',
            "growth.nucleation_overpotential: '-0.1 V'",
            "greater than 0",
        ),
    ],
    ids=["range", "list", "growth"],
)
def test_negative_barriers(
    text: str, named: str, allowed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(text, tmp_path, capsys)
    assert named in message
    assert allowed in message


def test_the_study_itself_runs_and_a_bad_one_leaves_its_results_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cases above fail by what they change; and a run that fails in a folder of results does not touch them."""
    path, out = tmp_path / "study.toml", tmp_path / "out"
    path.write_text(STUDY)
    code, _, _ = call(capsys, path, "--out", str(out))
    assert code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert out / "results.json" in before
    path.write_text(STUDY + GROWTH + 'current_density = "1e14 mA/cm^2"\n')
    code, _, _ = call(capsys, path, "--out", str(out))
    assert code == 2
    after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
