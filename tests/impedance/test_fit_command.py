"""`mesoion fit`: from files to results.json, batches with bad files, a user's circuit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.cli import main
from mesoion.impedance.circuits import CPE, ZARC, R
from mesoion.impedance.measurement import Geometry

FREQUENCY = np.logspace(7, 0, 50)
CELL_PER_CM = Geometry.disc(2.1e-3, 8e-3).cell_constant / 100


def write(path: Path, scale: float = 1.0, seed: int = 1) -> Path:
    circuit = ZARC(1e3 * scale, 2e-8 * scale, 0.97) + ZARC(5e3 * scale, 1e-5 * scale, 0.9) + CPE(1e-6, 0.9)
    rng, z = np.random.default_rng(seed), circuit.impedance(FREQUENCY)
    z = z + 0.002 * np.abs(z) * (rng.normal(size=z.size) + 1j * rng.normal(size=z.size))
    rows = [f"{f:.8e},{w.real:.8e},{w.imag:.8e}" for f, w in zip(FREQUENCY, z, strict=True)]
    path.write_text("\n".join(["Frequency (Hz),Z' (Ohm),Z'' (Ohm)", *rows]) + "\n")
    return path


def fit(*arguments: object) -> int:
    try:
        main(["fit", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


GEOMETRY = ("--thickness", "2.1mm", "--diameter", "8mm")


def test_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert fit(write(tmp_path / "pellet_25C.csv"), *GEOMETRY, "--out", out) == 0
    found = results(out)
    for name, resistance in (("bulk", 1e3), ("apparent_gb", 5e3), ("total", 6e3)):
        value = found[f"{name}_conductivity_S_per_cm"]
        assert value["low"] < CELL_PER_CM / resistance < value["high"]
        assert_allclose(value["value"], CELL_PER_CM / resistance, rtol=0.01, atol=0)
    spectrum = found["spectra"][0]
    assert spectrum["temperature_K"] == pytest.approx(298.15)
    assert spectrum["bulk_conductivity_S_per_cm"] == found["bulk_conductivity_S_per_cm"]
    assert [a["name"] for a in spectrum["arcs"]] == ["bulk", "grain boundary"]
    assert found["failed"] == []
    assert spectrum["kramers_kronig_valid"] is True
    assert spectrum["noise"] == pytest.approx(0.002, rel=0.3)
    assert spectrum["relaxation_times"]
    assert (out / "figures" / "spectrum_pellet_25C.png").stat().st_size > 20_000
    rows = (out / "tables" / "pellet_25C_relaxation_times.csv").read_text().splitlines()
    assert rows[0] == "tau / s,gamma / ohm,low / ohm,high / ohm"
    assert len(rows) > 50
    report = (out / "report.html").read_text()
    assert "Kramers-Kronig: obeyed" in report
    assert (out / "report.html").is_file()
    assert (out / "tables" / "quantities.csv").is_file()
    assert fit(tmp_path / "pellet_25C.csv", *GEOMETRY, "--out", out) == 0
    assert "unchanged" in capsys.readouterr().out
    write(tmp_path / "pellet_25C.csv", seed=2)
    assert fit(tmp_path / "pellet_25C.csv", *GEOMETRY, "--out", out) == 0
    assert "unchanged" not in capsys.readouterr().out


def test_a_bad_file_does_not_stop_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [write(tmp_path / f"p_{t}C.csv", scale) for t, scale in ((25, 2.0), (50, 1.0))]
    bad = tmp_path / "bad.csv"
    bad.write_text("Frequency (Hz),Z' (Ohm),Z'' (Ohm)\n1e5,nan,-3\n")
    out = tmp_path / "out"
    assert fit(good[0], bad, tmp_path / "absent.csv", good[1], *GEOMETRY, "--out", out) == 2
    error = capsys.readouterr().err
    assert "bad.csv" in error
    assert "absent.csv" in error
    assert "Traceback" not in error
    found = results(out)
    assert len(found["failed"]) == 2
    totals = [s["total_conductivity_S_per_cm"]["value"] for s in found["spectra"]]
    assert_allclose(totals, [CELL_PER_CM / 12e3, CELL_PER_CM / 6e3], rtol=0.01, atol=0)
    assert "bulk_conductivity_S_per_cm" not in found
    # Served from the cache, the bad files are still said.
    assert fit(good[0], bad, tmp_path / "absent.csv", good[1], *GEOMETRY, "--out", out) == 2


def test_only_bad_files_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"\x00\x01\x02" * 100)
    assert fit(bad, *GEOMETRY, "--out", tmp_path / "out") == 2
    assert "bad.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_geometry_there_are_resistances_only(tmp_path: Path) -> None:
    assert fit(write(tmp_path / "pellet.csv"), "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    assert "bulk_conductivity_S_per_cm" not in found
    assert_allclose(found["bulk_resistance_ohm"]["value"], 1e3, rtol=0.01, atol=0)


def test_a_circuit_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "pellet.csv")
    assert fit(path, *GEOMETRY, "--circuit", "(RQ_b)-(RQ)-Q{?,0.9f}", "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")["spectra"][0]
    assert found["circuit"] == "(RQ_b)-(RQ)-Q"
    assert found["parameters"]["n2"] == {"value": 0.9, "low": 0.9, "high": 0.9, "unit": "", "fixed": True}
    assert_allclose(found["total_resistance_ohm"]["value"], 6e3, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--circuit", "R-(X)"], "position 4"),
        (["--circuit", "R", "--arcs", "2"], "not both"),
        (["--thickness", "2.1 kg"], "thickness"),
        (["--diameter", "8mm", "--area", "1 cm^2"], "not both"),
    ],
)
def test_bad_options(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(write(tmp_path / "pellet.csv"), *options, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_temperature_series_is_fitted_together(tmp_path: Path) -> None:
    scales = {100: 8.0, 120: 4.0, 140: 2.2}
    for celsius, scale in scales.items():
        write(tmp_path / f"s_{celsius}C.csv", scale)
    assert fit(tmp_path, *GEOMETRY, "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    kelvin = np.array([c + 273.15 for c in scales])
    log = np.log(kelvin / np.array(list(scales.values())))
    slope = -np.polyfit(1 / kelvin, log, 1)[0] * 8.617333e-5
    for name in ("bulk", "apparent_gb", "total"):
        energy = found["activation_energies_eV"][name]
        assert energy["low"] < slope < energy["high"]
        assert_allclose(energy["value"], slope, rtol=0.05, atol=0)
    assert (tmp_path / "out" / "figures" / "series.png").is_file()


def test_weights_from_the_estimated_noise(tmp_path: Path) -> None:
    path = write(tmp_path / "pellet.csv")
    assert fit(path, *GEOMETRY, "--weighting", "noise", "--out", tmp_path / "out") == 0
    assert_allclose(results(tmp_path / "out")["total_resistance_ohm"]["value"], 6e3, rtol=0.01, atol=0)


def test_series_resistance_is_the_bulk_above_the_window(tmp_path: Path) -> None:
    z = (R(200.0) + ZARC(5e3, 1e-4, 0.9) + CPE(1e-5, 0.9)).impedance(FREQUENCY)
    rows = [f"{f:.8e} {w.real:.8e} {w.imag:.8e}" for f, w in zip(FREQUENCY, z, strict=True)]
    (tmp_path / "llzo.txt").write_text("\n".join(["f/Hz Z'/ohm Z''/ohm", *rows]))
    assert fit(tmp_path / "llzo.txt", *GEOMETRY, "--out", tmp_path / "out") == 0
    found = results(tmp_path / "out")
    assert_allclose(found["bulk_conductivity_S_per_cm"]["value"], CELL_PER_CM / 200, rtol=1e-3, atol=0)
