"""The pellet fitted to a series: command, numbers, report, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from mesoion.cli import app
from mesoion.errors import InputError
from mesoion.fit import MostProbable, PelletFit
from mesoion.fit_parameters import default_parameters
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.readers import read_batch
from mesoion.mixed_boundaries import shipped
from mesoion.pellet_fit_study import (
    PriorInput,
    SpaceChargeInput,
    Study,
    cut_to,
    on_their_limits,
    problem,
    warning_of,
)
from mesoion.runfolder import read_results
from mesoion.study import run_study

FREQUENCY = np.geomspace(1e7, 1.0, 30)
KELVINS = (290.0, 320.0)
TRUTH = {
    "bulk_conductivity": 0.05,
    "bulk_activation_energy": 0.33,
    "boundary_conductivity": 1e-4,
    "boundary_activation_energy": 0.45,
    "width_over_grain_size": 1e-3,
    "blocking_fraction": 0.2,
    "permittivity": 80.0,
    "permittivity_ratio": 1.0,
    "bulk_exponent": 0.97,
    "boundary_exponent": 0.95,
    "electrode_capacitance": 1.0,
    "electrode_exponent": 0.9,
    "electrode_activation_energy": 0.0,
    "noise": 0.005,
    "lead_resistance": 1e-9,
    "lead_inductance": 1e-15,
}


def model() -> PelletFit:
    geometry = Geometry.disc(2e-3, 1e-2)
    blank = np.full(len(FREQUENCY), 1e3 - 1e3j)
    return PelletFit([Measurement(FREQUENCY, blank, f"{t:g}", geometry, t) for t in KELVINS], shipped())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("series"), np.random.default_rng(4)
    paths = []
    for t, z in zip(KELVINS, model().model(TRUTH).reshape(len(KELVINS), -1), strict=True):
        noisy = z + TRUTH["noise"] * np.abs(z) * (
            rng.standard_normal(z.size) + 1j * rng.standard_normal(z.size)
        )
        path = folder / f"pellet_{t - 273.15:.2f}C.csv"
        table = np.c_[FREQUENCY, noisy.real, noisy.imag].tolist()
        rows = [",".join(map(repr, row)) for row in table]
        path.write_text("frequency / Hz,Z' / ohm,Z'' / ohm\n" + "\n".join(rows) + "\n")
        paths.append(path)
    return paths


def held() -> str:
    """Most parameters held at the truth, so that the ensemble is small and quick."""
    kept = ("permittivity_ratio", "electrode_activation_energy", "electrode_exponent", "electrode_capacitance",
            "boundary_exponent", "bulk_exponent", "width_over_grain_size", "blocking_fraction")  # fmt: skip
    return "\n".join(f"[priors.{name}]\nvalue = {TRUTH[name]!r}" for name in kept)


@pytest.fixture(scope="module")
def done(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("study")
    study = folder / "fit.toml"
    study.write_text(
        'kind = "pellet_fit"\ntitle = "synthetic"\nthickness = "2 mm"\ndiameter = "10 mm"\ngrain_size = "2 um"\n'
        f"files = {[str(f) for f in files]!r}\nsteps = 100\nmost_steps = 200\nstarts = 1\naccuracy = 0.005\n{held()}\n"
    )
    run_study(study, folder / "out")
    return {"folder": folder / "out", **read_results(folder / "out")}


@pytest.mark.slow
def test_the_truth_lies_in_the_intervals(done: dict[str, Any]) -> None:
    assert done["failed"] == []
    inside = {row["name"]: row["low"] <= TRUTH[row["name"]] <= row["high"] for row in done["parameters"]}
    assert set(inside) == {
        "bulk_conductivity",
        "bulk_activation_energy",
        "boundary_conductivity",
        "boundary_activation_energy",
        "permittivity",
        "noise",
    }
    energies = [name for name in inside if name.endswith("energy") or name in ("permittivity", "noise")]
    # Conductivities hold at the reference temperature of the series, near the truth's.
    assert sum(inside[name] for name in energies) >= len(energies) - 1
    true_bulk = model().conductivities(TRUTH)[0]
    for row, sigma in zip(done["conductivities"], true_bulk, strict=True):
        assert row["bulk, 95 % low / S/cm"] * 0.98 < sigma * 1e-2 < row["bulk, 95 % high / S/cm"] * 1.02
    assert done["coverage_of_points"] > 0.9


@pytest.mark.slow
def test_the_report_begins_with_the_pellet(done: dict[str, Any]) -> None:
    rows = {row["quantity"]: row for row in done["the_pellet"]}
    assert rows["E_a bulk"]["unit"] == "eV"
    assert rows["bulk conductivity at 17 °C"]["95 % low"] < rows["bulk conductivity at 17 °C"]["95 % high"]
    page = (done["folder"] / "report.html").read_text()
    assert page.index("E_a grain boundary") < page.index("The fit in words")
    assert {p.stem for p in (done["folder"] / "figures").glob("*.png")} == {
        "nyquist", "posterior_predictive", "arrhenius", "narrowing",
    }  # fmt: skip
    assert done["sampling"]["steps"] >= 60
    assert done["combinations"][0]["decided by"] == "data"


def test_the_command_refuses_what_does_not_belong(files: list[Path], tmp_path: Path) -> None:
    runner = CliRunner()
    for options, said in (
        (["--pellet", "--circuit", "R-(RQ)-Q"], "leave it out with --pellet"),
        (["--grain-size", "2um"], "it belongs to --pellet"),
        (["--pellet", "--electrode", "sticky"], "electrode"),
    ):
        result = runner.invoke(app, ["fit", str(files[0]), *options, "--out", str(tmp_path / "x")])
        assert result.exit_code != 0
        assert said in str(result.exception) or said in result.output
        assert not (tmp_path / "x").exists()


def test_priors_and_ranges_are_checked() -> None:
    known = default_parameters()
    assert not PriorInput(value=60.0).applied(known["permittivity"], "p").free
    around = PriorInput(value=60.0, factor=2.0).applied(known["permittivity"], "p")
    assert_allclose([around.mean, around.deviation], np.log([60.0, 2.0]), rtol=1e-14)
    with pytest.raises(InputError, match="give factor alone"):
        PriorInput(value=60.0, deviation=2.0).applied(known["permittivity"], "p")
    with pytest.raises(InputError, match="give deviation alone"):
        PriorInput(value=0.3, factor=2.0).applied(known["bulk_activation_energy"], "p")
    geometry = Geometry.disc(2e-3, 1e-2)
    spectrum = Measurement(FREQUENCY, np.full(30, 1e3 - 1e3j), "s", geometry, 300.0)
    cut = cut_to(spectrum, 1e2, 1e6)
    assert cut.frequency.min() >= 1e2
    assert cut.frequency.max() <= 1e6
    with pytest.raises(InputError, match="fewer than ten"):
        cut_to(spectrum, 1e6, None)


def test_a_parameter_on_its_limit_is_named() -> None:
    fit = model()
    middle = np.array([p.mean for p in fit.free])
    n = len(middle)
    assert on_their_limits(MostProbable(fit, middle, 0.0, np.eye(n), np.eye(n))) == []
    at = [p.name for p in fit.free].index("width_over_grain_size")
    middle[at] = fit.free[at].bounds[1] - 1e-6
    best = MostProbable(fit, middle, 0.0, np.eye(n), np.eye(n))
    assert on_their_limits(best) == ["width over grain size"]
    assert "fit the arcs by circuits" in warning_of(on_their_limits(best))


def test_a_study_names_the_sites_of_a_space_charge(files: list[Path]) -> None:
    asked: dict[str, Any] = {
        "title": "charged", "files": files, "thickness": "2 mm", "diameter": "10 mm",
        "space_charge": {"grain": "llzo-bulk", "boundary": "llzo-sigma17"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="space_charge needs grain_size"):
        Study.model_validate(asked)
    study = Study.model_validate(asked | {"grain_size": "2 um", "electrode": "charge transfer"})
    read = read_batch(study.files, thickness=2e-3, diameter=1e-2, show_progress=False)
    fit = problem(study, list(read.measurements))
    free = {p.name for p in fit.free}
    assert {"core_charge", "charge_transfer_resistance"} <= free
    assert np.isfinite(fit.log_posterior(np.array([p.mean for p in fit.free])))
    wrong = study.model_copy(
        update={"space_charge": SpaceChargeInput(grain="llzo-sigma17", boundary="llzo-bulk")}
    )
    with pytest.raises(InputError):
        problem(wrong, list(read.measurements))
