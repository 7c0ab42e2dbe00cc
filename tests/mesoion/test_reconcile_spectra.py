"""Measured spectra as the data of a reconciliation: a synthetic pellet's truth comes back, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, norm
from test_reconcile import case as slabs
from test_reconcile import gap, prior, spreads
from typer.testing import CliRunner

from mesoion.cli import app
from mesoion.distinguish import (
    FREQUENCIES,
    ArcDraws,
    Law,
    arc_draws,
    draw_of,
    excess_resistivity,
    relaxation_time,
)
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.mechanisms import (
    Case,
    ChargedParts,
    MeasuredBulk,
    Mechanism,
    blocking_boundaries,
    charged,
    nothing_added,
    second_phase,
    segregation,
    space_charge,
)
from mesoion.mixed_boundaries import shipped
from mesoion.reconcile import infer
from mesoion.reconcile_spectra import ArcReading, SpectraInput, further, read_arcs
from mesoion.reconcile_study import CaseInput, case_of_spectra
from mesoion.runfolder import read_results
from mesoion.units import BOLTZMANN_EV, VACUUM_PERMITTIVITY

T = 298.15
CELSIUS = (10.0, 25.0, 40.0)
FREQUENCY = np.geomspace(3e8, 1.0, 60)
FILM = (2.0, 4e-8)
"""Truth: a film of 2 nm that conducts 4e-8 S/cm with 0.6 eV on every boundary."""
BULK = 0.7
"""The pellet's bulk conductivity over the record's."""
NOISE = 0.003
CIRCUIT = "(RQ)-(RQ)-(RQ)-Q"


def pellet(**changes: Any) -> Case:
    made = Case(
        "LLTO",
        Material.from_records("llto-bulk", {"general": "llto-boundary"}),
        "general",
        shipped(),
        T,
        5e-6,
        1.3,
        0.01,
        1.1,
        "a test",
        bulk_factor=BULK,
    )
    return replace(made, **changes)


def mechanisms() -> tuple[Mechanism, Mechanism]:
    return (
        second_phase(prior("width", "log", 0.5, 20.0), prior("conductivity", "log", 1e-12, 1e-3)),
        blocking_boundaries(prior("blocking fraction", "flat", 0.0, 1.0)),
    )


def true_excess(temperature: float, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """σ + iωε of the grain and 1/σ_eff − 1/k_b of the pellet with the film."""
    of = pellet()
    outcome: Any = type("O", (), {"mechanism": mechanisms()[0], "case": of})
    (grain, _), (layer, _) = of.energies()
    drawn = draw_of(of, 0.0, 0.0, Law(grain, layer, 0.6), temperature)
    omega = 2 * np.pi * frequency
    return drawn.admittivity(omega), excess_resistivity(outcome, drawn, FILM, omega)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng, paths = tmp_path_factory.mktemp("spectra"), np.random.default_rng(7), []
    area = math.pi / 4 * 8e-3**2
    for celsius in CELSIUS:
        grain, excess = true_excess(celsius + 273.15, FREQUENCY)
        z = 2e-3 / area * (1 / grain + excess) + 1 / (1e-2 * area * (2j * np.pi * FREQUENCY) ** 0.9)
        noise = rng.standard_normal(len(z)) + 1j * rng.standard_normal(len(z))
        z = z + NOISE * np.abs(z) * noise
        rows = [",".join(map(repr, row)) for row in np.c_[FREQUENCY, z.real, z.imag].tolist()]
        path = folder / f"pellet_{celsius:g}C.csv"
        path.write_text("frequency / Hz,Z' / ohm,Z'' / ohm\n" + "\n".join(rows) + "\n")
        paths.append(path)
    return paths


def given(files: list[Path], **changes: Any) -> SpectraInput:
    return SpectraInput(files=[str(f) for f in files], thickness="2 mm", diameter="8 mm", **changes)


@pytest.fixture(scope="module")
def reading(files: list[Path]) -> ArcReading:
    return read_arcs(given(files, circuit=CIRCUIT), T, 3.0, "cases.LLTO")


def test_the_spectra_give_back_the_pellet_they_were_made_of(reading: ArcReading) -> None:
    grain, excess = true_excess(T, np.array([1e-3]))
    truth = np.log([grain[0].real, 1 / excess[0].real])
    miss = np.log([reading.bulk, reading.apparent]) - truth
    # The polycrystal is no sum of two arcs: 2 % beside the noise.
    assert_allclose(miss, 0.0, rtol=0, atol=0.02)
    assert_allclose(np.sqrt(np.diag(reading.covariance)), NOISE, rtol=1.5, atol=0)
    energies = [math.log(true_excess(t, np.array([1e-3]))[1][0].real / t) for t in (T - 15, T + 15)]
    slope = (energies[0] - energies[1]) / (1 / (T - 15) - 1 / (T + 15)) * 8.617333e-5
    assert reading.energy is not None
    assert_allclose(reading.energy[0], slope, rtol=0, atol=0.01)
    assert reading.log_width is not None
    # Layer and film are two arcs to the circuit; what counts is the larger one's time and the resistance of both.
    assert len(reading.spectra[1].arcs) == 3
    _, all_of_it = true_excess(T, FREQUENCIES)
    time = relaxation_time(FREQUENCIES, all_of_it)
    width = VACUUM_PERMITTIVITY * pellet().grain.relative_permittivity * all_of_it[0].real / time
    assert_allclose(math.exp(reading.log_width[0]), width, rtol=0.05, atol=0)
    assert len(reading.spectra) == 3


def test_geometry_moves_both_conductivities_and_the_circuit_one(reading: ArcReading) -> None:
    joint = reading.joint(1.05, 1.2) - reading.covariance
    g, s = math.log(1.05) ** 2, math.log(1.2) ** 2
    assert_allclose(joint, [[g, g], [g, g + s]], rtol=1e-9, atol=0)


@pytest.mark.slow
def test_the_film_comes_back_with_what_the_whole_spectrum_says(reading: ArcReading) -> None:
    c = reading.joint(1.02, 1.1)
    of = pellet(
        measured_apparent=reading.apparent,
        measured_factor=math.exp(math.sqrt(c[1, 1])),
        measured_bulk=MeasuredBulk(reading.bulk, ((c[0, 0], c[0, 1]), (c[1, 0], c[1, 1]))),
    )
    found = [infer(of, m) for m in mechanisms()]
    film, blocking = found
    # Of the film the arc fixes w/σ.
    ratio = np.log(film.values[0] / film.values[1])
    weight = film.weights.sum(axis=0)
    mean = float(ratio @ weight)
    sd = math.sqrt(float((ratio - mean) ** 2 @ weight))
    assert abs(math.log(FILM[0] / FILM[1]) - mean) < 2 * sd < 1.2
    # Blocking facets give the same arc without the film: one conductivity cannot tell them apart.
    assert abs(film.log_evidence - blocking.log_evidence) < 3
    rng = np.random.default_rng(2)
    both = [further(arc_draws(o, rng, draws=150, film_energy=(0.6, 0.15)), reading) for o in found]
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].effective_draws > 1
    # Its activation energy and capacitance do.
    assert both[0].log_factor - both[1].log_factor > 3
    energy, width = both[0].agreements
    assert energy.low < energy.measured < energy.high
    assert width.low < width.measured < width.high
    assert both[1].agreements[0].deviations > 3


def test_further_data_weigh_draws_as_the_closed_form_does() -> None:
    draws = np.random.default_rng(5).normal(0.5, 0.04, 20_000)
    prediction = ArcDraws("m", draws, np.full(len(draws), np.nan), np.zeros(len(draws)))
    read = ArcReading(T, 1.0, 1.0, np.eye(2), (0.55, 0.03), None, (), "")
    found = further(prediction, read)
    assert found is not None
    # Fit and model together, 0.03 and 0.02 eV; the draws' own spread is integrated out.
    spread = math.hypot(0.03, 0.02, 0.04)
    assert_allclose(found.log_factor, norm.logpdf(0.55, 0.5, spread), rtol=0, atol=0.02)
    assert_allclose(found.agreements[0].deviations, 0.05 / spread, rtol=0.03, atol=0)
    assert further(prediction, replace(read, energy=None)) is None
    nothing = further(prediction, replace(read, log_width=(0.0, 0.1)))
    assert nothing is not None
    assert nothing.log_factor == -math.inf


def test_draws_between_the_points_of_a_grid_have_the_posteriors_moments() -> None:
    """In slabs the barrier that closes a gap is normal; the grid is coarser than it is wide."""
    of = slabs(measured_apparent=2e-4, measured_factor=1.5)
    outcome = infer(of, segregation(prior("barrier", "flat", 0.0, 12.0)))
    assert outcome.values[0][1] > 2 * spreads(of) * BOLTZMANN_EV * T
    taken = outcome.smooth_draw(800, np.random.default_rng(8))
    barrier, weight = np.array([t[2][0] for t in taken]), np.exp([t[3] for t in taken])
    mean = float(np.average(barrier, weights=weight))
    sd = math.sqrt(float(np.average((barrier - mean) ** 2, weights=weight)))
    kt = BOLTZMANN_EV * T
    assert len(np.unique(barrier)) > 700
    assert_allclose(mean, -gap(of) * kt, rtol=0, atol=0.1 * spreads(of) * kt)
    assert_allclose(sd, spreads(of) * kt, rtol=0.1, atol=0)


def test_evidence_over_the_bulk_is_the_joint_normal() -> None:
    """In slabs ρ_app of a thin layer knows nothing of the bulk: the evidence is that of y_a given y_b, b flat."""
    c = np.array([[0.02**2, 0.5 * 0.02 * 0.2], [0.5 * 0.02 * 0.2, 0.2**2]])
    bulk = MeasuredBulk(1.0, ((c[0, 0], c[0, 1]), (c[1, 0], c[1, 1])))
    of = slabs(measured_bulk=bulk)
    found = infer(of, nothing_added())
    variance = spreads(of) ** 2 - math.log(of.measured_factor) ** 2 + c[1, 1]
    assert_allclose(found.log_evidence, norm.logpdf(gap(of), 0.0, math.sqrt(variance)), rtol=0.01, atol=0.01)
    assert_allclose(found.weights.sum(), 1.0, rtol=1e-12, atol=0)
    # And the quadrature has the moments of the normal law it stands for.
    z = np.array(bulk.nodes())
    assert_allclose(z[:, 2] @ z[:, 0] ** 2, c[0, 0], rtol=1e-12, atol=0)
    joint = multivariate_normal([0.0, 0.0], c)
    conditional = norm(c[0, 1] / c[0, 0] * 0.01, math.log(bulk.remaining_factor))
    assert_allclose(
        joint.logpdf([0.01, 0.1]), norm.logpdf(0.01, 0, 0.02) + conditional.logpdf(0.1), rtol=1e-9, atol=0
    )


def test_a_boundary_that_goes_with_the_bulk_keeps_their_correlation() -> None:
    """σ_app = σ_b: the evidence is that of y_a − y_b, whose variance is C_aa + C_bb − 2 C_ab."""
    c = ((0.05**2, 0.6 * 0.05 * 0.2), (0.6 * 0.05 * 0.2, 0.2**2))
    follows = Mechanism(
        "follows",
        (),
        lambda case, a, d, values: np.full((len(a), 1), 1 / case.grain.conductivity_across),
        lambda draw, values, omega: draw.own(omega),
    )
    of = slabs(bulk_factor=2.0)
    of = replace(of, measured_apparent=1.4 * of.grain.conductivity_across)
    of = replace(of, measured_bulk=MeasuredBulk(of.grain.conductivity_across, c))
    sd = math.sqrt(c[1][1] + c[0][0] - 2 * c[0][1])
    assert_allclose(infer(of, follows).log_evidence, norm.logpdf(math.log(1.4), 0.0, sd), rtol=0, atol=0.005)


def test_a_charged_boundary_beside_a_grain_that_conducts_otherwise() -> None:
    of = slabs(bulk_factor=3.0)
    mechanism = space_charge(prior("charge", "log", 0.05, 8.0))
    charge = np.array([2.0])
    still = np.zeros(1)
    before = mechanism.resistivity(slabs(), still, still, [charge])
    after = mechanism.resistivity(of, still, still, [charge])
    assert_allclose(after[0, 0] * of.grain_size, charged(of, 2.0).excess_resistance, rtol=1e-6, atol=0)
    assert after[0, 0] != before[0, 0]
    assert_allclose(
        ChargedParts.of(of, 2.0).sides * 3.0, ChargedParts.of(slabs(), 2.0).sides, rtol=1e-5, atol=0
    )


def test_spectra_that_do_not_serve_are_refused(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of the spectra \(10.0 C, 25.0 C, 40.0 C\), within 3 K"):
        read_arcs(given(files), 400.0, 3.0, "cases.x")
    with pytest.raises(InputError, match="thickness and diameter"):
        read_arcs(SpectraInput(files=[str(files[1])]), T, 3.0, "cases.x")
    with pytest.raises(InputError, match=r"no boundary arc"):
        read_arcs(given(files[1:2], arcs=1), T, 3.0, "cases.x")
    with pytest.raises(InputError, match="no such file"):
        read_arcs(given([tmp_path / "none.csv"]), T, 3.0, "cases.x")
    with pytest.raises(ValueError, match="either measured_material or"):
        CaseInput(
            name="x", grain="llto-bulk", boundary="llto-boundary", mean_grain_size="5 um", grain_size_factor=2
        )
    with pytest.raises(InputError, match="positive definite"):
        MeasuredBulk(1.0, ((0.1, 0.2), (0.2, 0.1)))


def test_a_damaged_file_leaves_the_others(files: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "broken_30C.csv"
    bad.write_text("f / Hz,Z' / ohm,-Z'' / ohm\n1e6,120,30\n1e5,nan,40\n")
    found = read_arcs(given([files[1], bad], circuit=CIRCUIT), T, 3.0, "cases.x")
    assert found.energy is None
    (problem,) = found.failed
    assert "broken_30C.csv:3" in problem["error"]


def test_the_case_takes_bulk_and_covariance_from_the_spectra(files: list[Path]) -> None:
    one = CaseInput(
        name="x", grain="llto-bulk", boundary="llto-boundary", mean_grain_size="5 um", grain_size_factor=2,
        spectra=given(files[1:2], circuit=CIRCUIT), measured_factor=1.1,
    )  # fmt: skip
    made, read = case_of_spectra(one, T, 0)
    assert_allclose(made.grain.conductivity_across, read.bulk, rtol=1e-12, atol=0)
    assert_allclose(made.bulk_factor, BULK, rtol=0.02, atol=0)
    assert made.measured_bulk is not None
    assert_allclose(
        made.measured_factor, math.exp(math.sqrt(read.joint(1.02, 1.1)[1, 1])), rtol=1e-12, atol=0
    )
    barrier = infer(made, segregation(prior("barrier", "normal", -0.2, 0.2)), 0.3)
    assert barrier.weights.min() >= 0


@pytest.mark.slow
def test_the_command_takes_spectra(files: list[Path], tmp_path: Path) -> None:
    import tomllib

    shipped_study = Path(__file__).parents[2] / "studies" / "reconcile_perovskites_and_garnet.toml"
    text = shipped_study.read_text().split("[[cases]]")[0]
    assert tomllib.loads(text)["draws"] == 24
    bad = tmp_path / "broken_50C.csv"
    bad.write_text("")
    listed = [str(f) for f in [*files, bad]]
    study = tmp_path / "r.toml"
    study.write_text(
        text.replace("resolution = 0.6", "resolution = 0.3")
        + '[[cases]]\nname = "LLTO"\ngrain = "llto-bulk"\nboundary = "llto-boundary"\nmean_grain_size = "5 um"\n'
        + "grain_size_factor = 1.3\nmeasured_factor = 1.1\n[cases.spectra]\n"
        + f'files = {listed!r}\nthickness = "2 mm"\ndiameter = "8 mm"\n'
    )
    result = CliRunner().invoke(app, ["reconcile", str(study), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "broken_50C.csv" in result.output
    done = read_results(tmp_path / "out")
    rows = {(r["mechanism"], r["measurement"]): r for r in done["whole_spectrum"]}
    film = rows["second-phase film", "activation energy of the arc"]
    assert (
        film["ln Bayes factor, whole spectrum"]
        > rows["blocking boundaries", "activation energy of the arc"]["ln Bayes factor, whole spectrum"]
    )
    assert len(done["failed"]) == 1
    assert_allclose(done["spectra"]["LLTO"]["bulk_S_per_cm"], BULK * 1e-3, rtol=0.03, atol=0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "LLTO: the spectra" in page
