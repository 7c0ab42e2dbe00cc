"""Temperature series: arcs keep their names where single spectra cannot tell them, activation energies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.impedance.arcs import choose_circuit, read_pellet
from mesoion.impedance.circuit_fit import CircuitFit, fit_circuit
from mesoion.impedance.circuits import CPE, ZARC, Circuit
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.readers import read_batch
from mesoion.impedance.temperature_series import (
    TemperatureSeries,
    arrhenius_line,
    common_circuit,
    fit_series,
    series_of,
)
from mesoion.units import BOLTZMANN_EV

FREQUENCY = np.logspace(6, -1, 50)
GEOMETRY = Geometry.disc(2.1e-3, 8e-3)
CELSIUS = (140, 155, 170, 185, 200, 215)
BULK, BOUNDARY = (0.55, 8e4, 5e-12, 0.93), (0.95, 1.2e6, 1.5e-11, 0.9)


def arc(law: tuple[float, float, float, float], kelvin: float) -> ZARC:
    """R/T = (R₁₄₀/413.15) exp[E (β − β₁₄₀)], C and n constant."""
    energy, at_140, capacitance, n = law
    change = energy / BOLTZMANN_EV * (1 / kelvin - 1 / 413.15)
    r = at_140 * kelvin / 413.15 * np.exp(change)
    return ZARC(r, r * capacitance, n)


def spectra(noise: float, seed: int = 0) -> list[Measurement]:
    rng, found = np.random.default_rng(seed), []
    for celsius in CELSIUS:
        kelvin = celsius + 273.15
        z = (arc(BULK, kelvin) + arc(BOUNDARY, kelvin) + CPE(1e-6, 0.7)).impedance(FREQUENCY)
        z = z + noise * np.abs(z) * (rng.normal(size=z.size) + 1j * rng.normal(size=z.size))
        found.append(Measurement(FREQUENCY, z, f"pellet_{celsius}C", GEOMETRY, kelvin))
    return found


def single_fits(measurements: list[Measurement], circuit: Circuit) -> list[CircuitFit]:
    return [fit_circuit(m.frequency, m.impedance, circuit, starts=4, seed=2) for m in measurements]


@pytest.fixture(scope="module")
def noisy() -> tuple[list[Measurement], list[CircuitFit]]:
    measurements = spectra(0.005)
    return measurements, single_fits(measurements, ZARC() + ZARC() + CPE())


@pytest.fixture(scope="module")
def joint(noisy: tuple[list[Measurement], list[CircuitFit]]) -> TemperatureSeries:
    return fit_series(*noisy)


def test_arcs_that_change_order_by_time_keep_their_names(joint: TemperatureSeries) -> None:
    """The boundary's arc is the slower one at 140 °C and the faster one at 215 °C."""
    times = [[arc(law, c + 273.15).values[1] for law in (BULK, BOUNDARY)] for c in CELSIUS]
    assert times[0][0] < times[0][1] / 20
    for reading, celsius in zip(joint.readings, CELSIUS, strict=True):
        for name, law in (("bulk", BULK), ("grain boundary", BOUNDARY)):
            found, truth = reading.arc(name), arc(law, celsius + 273.15).values
            assert found is not None
            assert found.resistance.low / 1.3 < truth[0] < found.resistance.high * 1.3
            assert found.capacitance is not None
            assert_allclose(found.capacitance.value, law[2], rtol=0.3, atol=0)


def test_activation_energies_are_recovered(joint: TemperatureSeries) -> None:
    energies = joint.activation_energies
    for name, energy in (("bulk", BULK[0]), ("apparent_gb", BOUNDARY[0])):
        assert energies[name].low < energy < energies[name].high
        assert energies[name].high - energies[name].low < 0.15
    assert BULK[0] < energies["total"].value < BOUNDARY[0]


def test_exchanged_starts_come_to_the_same_series(
    noisy: tuple[list[Measurement], list[CircuitFit]], joint: TemperatureSeries
) -> None:
    measurements, fits = noisy
    exchanged = []
    for k, (m, fit) in enumerate(zip(measurements, fits, strict=True)):
        v = fit.circuit.values
        start = fit.circuit.with_values(np.r_[v[3:6], v[:3], v[6:]]) if k % 2 else fit.circuit
        exchanged.append(fit_circuit(m.frequency, m.impedance, start, starts=1))
    again = fit_series(measurements, exchanged)
    for one, other in zip(joint.readings, again.readings, strict=True):
        for name in ("bulk", "grain boundary"):
            a, b = one.arc(name), other.arc(name)
            assert a is not None
            assert b is not None
            assert_allclose(b.resistance.value, a.resistance.value, rtol=1e-3, atol=0)


def test_exact_spectra_give_exact_energies() -> None:
    measurements = spectra(0.0)
    starts = [
        (arc(BULK, m.temperature or 0) + arc(BOUNDARY, m.temperature or 0) + CPE(1e-6, 0.7))
        for m in measurements
    ]
    fits = [
        fit_circuit(m.frequency, m.impedance, start, deviation=1e-6 * np.abs(m.impedance), starts=1)
        for m, start in zip(measurements, starts, strict=True)
    ]
    energies = fit_series(measurements, fits).activation_energies
    assert_allclose(energies["bulk"].value, BULK[0], rtol=1e-6, atol=0)
    assert_allclose(energies["apparent_gb"].value, BOUNDARY[0], rtol=1e-6, atol=0)
    # σ_gb,spec = σ_b R_b C_b/(R_gb C_gb) goes with 1/R_gb where the capacitances do not change.
    assert_allclose(energies["specific_gb"].value, BOUNDARY[0], rtol=1e-6, atol=0)


def test_line_through_exact_points() -> None:
    t = np.array([300.0, 350.0, 400.0])
    log = 3.0 - 0.4 / (BOLTZMANN_EV * t) - np.log(t)
    line = arrhenius_line(t, log, np.eye(3) * 1e-4)
    assert_allclose([line.value, line.intercept], [0.4, 3.0], rtol=1e-9, atol=0)
    x = 1 / (BOLTZMANN_EV * t)
    exact = 1.959964 * 1e-2 / np.sqrt(np.sum((x - x.mean()) ** 2))
    assert_allclose(line.high - line.value, exact, rtol=1e-5, atol=0)
    assert_allclose(line.conductivity(t), np.exp(log), rtol=1e-9, atol=0)


def test_scatter_about_the_line_counts() -> None:
    rng = np.random.default_rng(5)
    t = np.linspace(300, 400, 8)
    inside = 0
    for _ in range(400):
        log = 3.0 - 0.4 / (BOLTZMANN_EV * t) - np.log(t) + 0.1 * rng.normal(size=8)
        line = arrhenius_line(t, log, np.zeros((8, 8)))
        inside += line.low <= 0.4 <= line.high
    assert 0.92 < inside / 400 < 0.98


def test_what_belongs_together() -> None:
    measurements = spectra(0.0)
    other = Measurement(FREQUENCY, measurements[0].impedance, "other_140C", GEOMETRY, 413.15)
    cold = Measurement(FREQUENCY, measurements[0].impedance, "pellet", GEOMETRY, None)
    assert series_of([other, *measurements[::-1], cold]) == [[6, 5, 4, 3, 2, 1]]
    assert series_of(measurements[:2]) == []
    with pytest.raises(InputError, match="three"):
        fit_series(measurements[:2], single_fits(measurements[:2], ZARC() + CPE()))


def test_one_circuit_for_all(noisy: tuple[list[Measurement], list[CircuitFit]]) -> None:
    measurements, fits = noisy
    odd = fit_circuit(measurements[3].frequency, measurements[3].impedance, ZARC() + CPE(), starts=2)
    row = common_circuit(measurements, [*fits[:3], odd, *fits[4:]])
    assert {f.circuit.description() for f in row} == {"Z-Z-Q"}


# ---- measured, owners' values ---------------------------------------------------------------------------------------
REFERENCE = Path(os.environ.get("MESOION_REFERENCE", "")) / "eis"


@pytest.mark.skipif(
    not (os.environ.get("MESOION_REFERENCE") and REFERENCE.is_dir()), reason="MESOION_REFERENCE is not set"
)
def test_owners_activation_energies() -> None:
    files = [REFERENCE / f"s04147_{c}C.txt" for c in (140, 150, 160, 170, 180, 200)]
    measurements = read_batch(files, thickness="2.1 mm", diameter="8 mm").measurements
    fits = single_fits(list(measurements), ZARC() + ZARC() + CPE())
    series = fit_series(measurements, common_circuit(measurements, fits))
    for name, owners in (("bulk", 0.587), ("apparent_gb", 0.892), ("total", 0.856)):
        energy = series.activation_energies[name]
        assert energy.low < owners < energy.high, name
        assert_allclose(energy.value, owners, atol=0, rtol=0.03)
    capacitances = np.array([[a.capacitance.value for a in r.arcs if a.capacitance] for r in series.readings])
    assert [[a.name for a in r.arcs] for r in series.readings] == [["bulk", "grain boundary"]] * 6
    ratio = capacitances[:, 0] / capacitances[:, 1]
    assert np.all((ratio > 0.3) & (ratio < 0.4))
    # The single best fit names them as the series does.
    alone = read_pellet(measurements[4], choose_circuit(measurements[4])[0])
    assert [a.name for a in alone.arcs] == ["bulk", "grain boundary"]
