"""Noise, outliers, drift and causality of spectra whose truth is known; leads, fixtures and geometry."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.impedance.audit import audit_geometry
from mesoion.impedance.checks import check_spectrum, estimate_noise, plot_residuals
from mesoion.impedance.corrections import compensate_fixture, subtract_leads
from mesoion.impedance.kramers_kronig import elements, fit_kramers_kronig, kramers_kronig_residual
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.readers import read_batch

F = np.logspace(6, -1, 57)
OMEGA = 2 * np.pi * F
REFERENCE = Path(os.environ.get("MESOION_REFERENCE", "")) / "eis"


def pellet(f: np.ndarray = F) -> np.ndarray:
    """A depressed bulk arc, a depressed boundary arc, a blocking tail, leads."""
    s = 2j * np.pi * f
    arcs = 1e5 / (1 + (s * 1e5 * 3e-11) ** 0.95) + 3e5 / (1 + (s * 3e5 * 2e-9) ** 0.9)
    return arcs + 1 / (1e-6 * s**0.85) + 30.0 + 1e-6 * s


def noisy(z: np.ndarray, sigma: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return z + np.abs(z) * sigma * (rng.standard_normal(len(z)) + 1j * rng.standard_normal(len(z)))


def measured(z: np.ndarray, f: np.ndarray = F, **more) -> Measurement:
    return Measurement(f, z, "pellet", **more)


def test_the_elements_are_what_the_formula_says() -> None:
    columns = elements([1.0, 10.0], [0.5])
    s = 2j * np.pi * np.array([1.0, 10.0])
    assert_allclose(columns, np.array([np.ones(2), s, 1 / s, 1 / (1 + 0.5 * s)]).T, rtol=1e-15, atol=0)


def test_a_spectrum_of_the_elements_themselves_is_fitted_to_rounding() -> None:
    s = 2j * np.pi * F
    z = 50.0 + 2e-7 * s + 1 / (1e-6 * s) + 1e4 / (1 + s * 1e-5)
    fit = fit_kramers_kronig(F, z)
    assert np.abs(fit.residual).max() < 1e-6
    # What of 1/C and L is taken up by relaxations just beyond the range cannot be told apart.
    assert_allclose(fit.inductance[0], 2e-7, rtol=0.05, atol=0)
    assert_allclose(fit.at(F), fit.fitted, rtol=1e-9, atol=0)
    assert np.abs(kramers_kronig_residual(F, z)).max() < 1e-5


@pytest.mark.parametrize(("f", "sigma"), [(F, 5e-4), (F, 5e-3), (np.logspace(6, -1.5, 42), 2e-3)])
def test_the_noise_level_is_recovered_within_its_interval(f: np.ndarray, sigma: float) -> None:
    rng = np.random.default_rng(7)
    z = pellet(f)
    noises = [estimate_noise(measured(noisy(z, sigma, rng), f)) for _ in range(30)]
    levels = np.array([n.level for n in noises]) / sigma
    assert abs(levels.mean() - 1.0) < 0.05
    assert levels.std() < 0.15
    inside = np.mean([(n.low < sigma) & (sigma < n.high) for n in noises])
    assert 0.90 < inside < 0.985


def test_noise_that_rises_a_hundredfold_is_followed_over_frequency() -> None:
    rng = np.random.default_rng(3)
    sigma = 1e-4 * (1.0 + (F / 1e4) ** 1.0)
    ratios = np.array(
        [estimate_noise(measured(noisy(pellet(), sigma, rng))).sigma / sigma for _ in range(20)]
    )
    typical = np.exp(np.log(ratios).mean(axis=0))
    assert typical.max() < 1.6
    assert typical.min() > 1 / 1.6


def test_good_spectra_pass_and_few_of_their_points_are_called_outliers() -> None:
    rng = np.random.default_rng(11)
    checks = [check_spectrum(measured(noisy(pellet(), 1e-3, rng))) for _ in range(30)]
    assert all(c.valid for c in checks)
    assert not any(c.drift.significant for c in checks)
    # One good spectrum in a hundred may lose a point.
    assert sum(c.outliers.any() for c in checks) <= 3
    assert min(c.chance for c in checks) > 1e-3
    assert np.mean([c.chance < 0.5 for c in checks]) == pytest.approx(0.5, abs=0.25)
    assert "Kramers-Kronig: obeyed to within the noise" in checks[0].words


def test_outliers_are_found_one_by_one_and_do_not_count_as_noise() -> None:
    z = noisy(pellet(), 1e-3, np.random.default_rng(5))
    z[20] *= 1.02
    z[40] *= 1 - 0.015j
    check = check_spectrum(measured(z))
    assert list(np.flatnonzero(check.outliers)) == [20, 40]
    assert_allclose(abs(check.residual[20]), 0.02, rtol=0.2, atol=0)
    assert check.noise.level < 1.4e-3
    assert check.valid
    assert any(w.startswith("outliers: ") for w in check.words)
    kept = check.kept()
    assert len(kept.frequency) == len(F) - 2
    assert kept.notes[-1] == "2 outliers left out"


def test_a_point_that_drags_fit_and_neighbours_is_found() -> None:
    found, others = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(120 + seed)
        z = noisy(pellet(), 1e-3, rng)
        # Near the ends a point has the fit to itself, and the noise of its few neighbours with it.
        at = (4, 54, 52, 53)[seed % 4]
        z[at] += 0.02 * abs(z[at]) * np.exp(2j * np.pi * rng.random())
        out = set(np.flatnonzero(check_spectrum(measured(z)).outliers).tolist())
        found += at in out
        others += len(out - {at})
    assert found >= 10
    assert others <= 1


def test_residuals_are_drawn_in_per_cent_with_the_noise_and_the_outliers() -> None:
    from matplotlib import pyplot as plt

    z = noisy(pellet(), 1e-3, np.random.default_rng(5))
    z[20] *= 1.02
    check = check_spectrum(measured(z))
    figure, ax = plt.subplots()
    assert plot_residuals(ax, check) is ax
    real, imaginary, out = ax.get_lines()
    assert_allclose(real.get_ydata(), 100 * check.residual.real, rtol=1e-12, atol=0)
    assert_allclose(imaginary.get_ydata(), 100 * check.residual.imag, rtol=1e-12, atol=0)
    assert list(out.get_xdata()) == [F[20]]
    assert ax.get_ylabel() == "residual / % of |Z|"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["±2σ noise", "Z′", "Z″", "outlier"]
    plt.close(figure)


@pytest.mark.parametrize("change", [0.05, -0.08])
def test_a_sample_that_drifts_during_the_sweep_is_found_with_the_size_of_its_drift(change: float) -> None:
    # Every resistance changes in proportion to the time passed: Z(ω, t) = Z(ω)(1 + change t/t_end).
    time = np.cumsum(1.0 / F)
    z = noisy(pellet() * (1.0 + change * time / time[-1]), 5e-4, np.random.default_rng(2))
    check = check_spectrum(measured(z))
    assert check.drift.significant
    assert abs(check.drift.change - change) < 4.0 * check.drift.standard_error + 0.1 * abs(change)
    assert any(w.startswith("drift: ") for w in check.words)


def conjugate_arc(f: np.ndarray) -> np.ndarray:
    """A relaxation that answers before it is asked."""
    return 2e5 / (1 - 2j * np.pi * f * 6e-4)


NOT_CAUSAL = {
    "an arc run backwards in time": pellet() + conjugate_arc(F),
    "imaginary part of the wrong sign": np.conj(pellet()),
    "imaginary part 10 % too large": pellet().real + 1.1j * pellet().imag,
    "real part of another sample": np.roll(pellet().real, 6) + 1j * pellet().imag,
    "a step in the gain": np.where(F > 1e3, 1.0, 1.1) * pellet(),
}


@pytest.mark.parametrize("case", NOT_CAUSAL)
def test_what_no_causal_sample_can_show_is_refused(case: str) -> None:
    check = check_spectrum(measured(noisy(NOT_CAUSAL[case], 5e-4, np.random.default_rng(1))))
    assert not check.valid
    assert check.systematic > 0.01
    assert any(w.startswith("Kramers-Kronig: violated") for w in check.words)


def test_a_spectrum_that_is_mostly_noise_is_not_called_valid() -> None:
    check = check_spectrum(measured(noisy(pellet(), 0.3, np.random.default_rng(1))))
    assert not check.valid
    assert any("cannot be judged" in w for w in check.words)


def test_a_series_inductance_is_seen_and_taken_off() -> None:
    s = 2j * np.pi * F
    bare = 20.0 + 5.0 / (1 + s * 1e-4) + 1 / (1e-5 * s**0.9)
    check = check_spectrum(measured(noisy(bare + 3e-6 * s + 2.0, 1e-3, np.random.default_rng(4))))
    inductance, error = check.fit.inductance
    assert_allclose(inductance, 3e-6, rtol=0.02, atol=0)
    assert error < 1e-7
    assert any(w.startswith("leads: a series inductance") for w in check.words)
    clean = subtract_leads(measured(bare + 3e-6 * s + 2.0), resistance=2.0, inductance=3e-6)
    assert_allclose(clean.impedance, bare, rtol=1e-12, atol=0)
    assert "subtracted" in clean.notes[-1]


@pytest.mark.parametrize(
    ("leads", "words"),
    [
        ({"resistance": -1.0}, "not negative"),
        ({"inductance": np.inf}, "finite"),
        ({"resistance": 1e7}, "least real"),
    ],
)
def test_impossible_leads_are_refused(leads: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        subtract_leads(measured(pellet()), **leads)


def test_a_fixture_is_taken_off_by_its_open_and_short_circuit() -> None:
    s = 2j * np.pi * F
    series, stray = 1.5 + 2e-7 * s, 1e-8 + 4e-12 * s
    inside = pellet()
    seen = series + 1.0 / (1.0 / inside + stray)
    coarse = np.logspace(7, -2, 28)
    t = 2j * np.pi * coarse
    shorted = Measurement(coarse, 1.5 + 2e-7 * t, "short")
    opened = Measurement(coarse, 1.5 + 2e-7 * t + 1.0 / (1e-8 + 4e-12 * t), "open")
    exact = compensate_fixture(measured(seen), opened=measured(series + 1 / stray), shorted=measured(series))
    assert_allclose(exact.impedance, inside, rtol=1e-9, atol=0)
    coarsely = compensate_fixture(measured(seen), opened=opened, shorted=shorted)
    assert_allclose(coarsely.impedance, inside, rtol=0.03, atol=0)
    with pytest.raises(InputError, match="measure it from"):
        compensate_fixture(measured(seen), shorted=Measurement(F[5:], series[5:], "short"))
    with pytest.raises(InputError, match="check which is which"):
        compensate_fixture(measured(seen), opened=measured(inside / 2.0))


def test_too_few_points_and_bad_values_are_refused() -> None:
    with pytest.raises(InputError, match="at least 8"):
        check_spectrum(measured(pellet()[:7], F[:7]))
    with pytest.raises(InputError, match="at least 8"):
        fit_kramers_kronig(F, pellet()[:-1])
    with pytest.raises(InputError, match="other than zero"):
        fit_kramers_kronig(F, np.where(F > 10, pellet(), 0.0))
    with pytest.raises(InputError, match="sigma above zero"):
        fit_kramers_kronig(F, pellet(), sigma=np.zeros(len(F)))


GEOMETRY = Geometry.disc(1e-3, 10e-3, mass=0.4e-3)


def llzo_like(geometry: Geometry = GEOMETRY, **more) -> Measurement:
    """A pellet of 0.03 S/m and ε_r 60 between blocking electrodes."""
    s = 2j * np.pi * np.logspace(8, 0, 65)
    resistance = GEOMETRY.cell_constant / 0.03
    capacitance = 60 * 8.8541878128e-12 / GEOMETRY.cell_constant
    z = resistance / (1 + s * resistance * capacitance) + 1 / (1e-6 * s**0.95)
    return Measurement(np.logspace(8, 0, 65), z, "pellet", geometry, 298.15, **more)


def test_a_sound_geometry_passes_with_its_density_permittivity_and_conductivity() -> None:
    audit = audit_geometry(llzo_like(), theoretical_density=5107.0, material="LLZO")
    assert audit.plausible
    assert_allclose(audit.relative_density, 0.4e-3 / (1e-3 * np.pi / 4 * 1e-4) / 5107.0, rtol=1e-12, atol=0)
    assert_allclose(audit.conductivity, 0.03, rtol=0.02, atol=0)
    assert_allclose(audit.permittivity, 60.0, rtol=0.02, atol=0)
    assert audit.fastest is not None
    assert any("permittivity" in w for w in audit.words)


@pytest.mark.parametrize(
    ("geometry", "options", "words"),
    [
        (Geometry.disc(1e-3, 10e-3, mass=0.8e-3), {"theoretical_density": 5107.0}, "impossible"),
        (Geometry.disc(1e-3, 10e-3, mass=0.1e-3), {"theoretical_density": 5107.0}, "hardly sintered"),
        (Geometry.disc(1e-3, 10e-1), {}, "below the vacuum's"),
        (Geometry.disc(1e-1, 10e-3), {}, "times as thick as wide"),
        (Geometry.disc(1e-3, 0.2e-3), {}, "times that of"),
        (Geometry.disc(1e-3, 10e-3 * 300.0), {"material": "LLZO"}, "below measured LLZO"),
        (Geometry.disc(1e-3, 10e-3 / 30.0), {"material": "llzo-bulk"}, "above llzo-bulk"),
    ],
)
def test_a_wrong_geometry_is_told_by_what_it_implies(geometry: Geometry, options: dict, words: str) -> None:
    audit = audit_geometry(llzo_like(geometry), **options)
    assert not audit.plausible
    assert any(words in finding for finding in audit.findings)


def test_an_audit_without_what_it_needs_is_refused() -> None:
    with pytest.raises(InputError, match="give thickness"):
        audit_geometry(measured(pellet()))
    with pytest.raises(InputError, match="mass"):
        audit_geometry(replace(llzo_like(), geometry=Geometry(1e-3, 1e-4)), theoretical_density=5000.0)
    with pytest.raises(InputError, match="density above zero"):
        audit_geometry(llzo_like(), theoretical_density=-1.0)
    with pytest.raises(InputError, match="give one of"):
        audit_geometry(llzo_like(), material="unobtainium")


@pytest.mark.skipif(not (REFERENCE / "README.md").is_file(), reason="needs MESOION_REFERENCE")
def test_the_measured_spectra_obey_kramers_kronig_to_a_few_parts_in_a_thousand() -> None:
    batch = read_batch(REFERENCE, thickness="2.1 mm", diameter="8 mm")
    checks = {m.name: check_spectrum(m) for m in batch.measurements}
    assert len(checks) == 7
    assert all(c.valid for c in checks.values())
    assert checks["lagp_two_arcs"].noise.level < 1e-3
    for name, check in checks.items():
        assert 1e-4 < check.noise.level < 4e-3, name
        assert check.systematic < 3e-3, name
        # All are noisiest at the highest frequencies.
        assert check.noise.sigma[:5].mean() > check.noise.sigma[15:25].mean(), name
    audits = [audit_geometry(m) for m in batch.measurements if m.temperature is not None]
    assert all(a.plausible for a in audits)
    # The owners' total conductivities at 140 and 200 °C, S/cm.
    assert_allclose(audits[0].conductivity, 1.94e-5, rtol=0.1, atol=0)
    assert_allclose(audits[-1].conductivity, 3.56e-4, rtol=0.1, atol=0)
