"""Arcs named and turned into conductivities, the choice of a circuit, owners' values of measured spectra."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.impedance.arc_places import arc_places
from mesoion.impedance.arcs import arc_names, choose_circuit, read_pellet
from mesoion.impedance.circuit_fit import correlation_widening, fit_circuit
from mesoion.impedance.circuits import CPE, ZARC, Circuit, L, R
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.readers import read_measurements
from mesoion.units import VACUUM_PERMITTIVITY

FREQUENCY = np.logspace(7, 0, 71)
GEOMETRY = Geometry.disc(2e-3, 8e-3)
CELL = GEOMETRY.cell_constant
PELLET = ZARC(1e3, 2e-8, 0.97) + ZARC(5e3, 1e-5, 0.9) + CPE(1e-6, 0.9)


def measured(circuit: Circuit, noise: float = 0.0, seed: int = 0) -> Measurement:
    rng, z = np.random.default_rng(seed), circuit.impedance(FREQUENCY)
    z = z + noise * np.abs(z) * (rng.normal(size=z.size) + 1j * rng.normal(size=z.size))
    return Measurement(FREQUENCY, z, "synthetic", GEOMETRY, 300.0)


def test_quantities_are_the_brick_layers() -> None:
    m = measured(PELLET)
    found = read_pellet(m, fit_circuit(m.frequency, m.impedance, PELLET, starts=1)).quantities
    exact = {
        "bulk_conductivity": CELL / 1e3,
        "apparent_gb_conductivity": CELL / 5e3,
        "total_conductivity": CELL / 6e3,
        "relative_permittivity": 2e-8 / 1e3 * CELL / VACUUM_PERMITTIVITY,
        "width_over_grain_size": (2e-8 / 1e3) / (1e-5 / 5e3),
        "specific_gb_conductivity": CELL / 1e3 * 2e-8 / 1e-5,
        "total_resistance": 6e3,
    }
    for name, value in exact.items():
        assert_allclose(found[name].value, value, rtol=1e-7, atol=0, err_msg=name)
    thin_layer = found["apparent_gb_conductivity"].value * found["width_over_grain_size"].value
    assert_allclose(found["specific_gb_conductivity"].value, thin_layer, rtol=1e-7, atol=0)


def test_the_form_of_an_arc_changes_neither_values_nor_intervals() -> None:
    m = measured(PELLET, 0.005)
    with_cpe = (R() | CPE()) + (CPE() | R()) + CPE()
    one = read_pellet(m, fit_circuit(m.frequency, m.impedance, PELLET, starts=1))
    other = read_pellet(m, fit_circuit(m.frequency, m.impedance, with_cpe, starts=8, seed=1))
    for name, value in one.quantities.items():
        assert_allclose(other.quantities[name].value, value.value, rtol=1e-5, atol=0, err_msg=name)
        assert_allclose(other.quantities[name].high, value.high, rtol=1e-4, atol=0, err_msg=name)


def test_gradients_of_all_quantities_against_differences() -> None:
    m = measured(PELLET, 0.005)
    fit = fit_circuit(m.frequency, m.impedance, (R() | CPE()) + ZARC() + CPE(), starts=8, seed=1)
    found, step = read_pellet(m, fit).quantities, 1e-5
    for k in range(len(fit.free)):
        ends = []
        for sign in (1, -1):
            values = fit.circuit.values
            values[k] *= math.exp(sign * step)
            ends.append(read_pellet(m, replace(fit, circuit=fit.circuit.with_values(values))).quantities)
        for name, quantity in found.items():
            numeric = math.log(ends[0][name].value / ends[1][name].value) / (2 * step)
            assert_allclose(quantity.log_gradient[k], numeric, rtol=1e-6, atol=1e-7, err_msg=name)


def test_total_is_known_better_than_its_parts_where_they_are_confused() -> None:
    close = ZARC(1e3, 1e-6, 0.9) + ZARC(1e3, 4e-6, 0.9) + CPE(1e-6, 0.9)
    m = measured(close, 0.003)
    found = read_pellet(m, fit_circuit(m.frequency, m.impedance, close, starts=1)).quantities
    assert found["total_resistance"].log_uncertainty < 0.1 * found["bulk_resistance"].log_uncertainty


@pytest.mark.parametrize(
    ("capacitances", "times", "names"),
    [
        ([2e-9, 2e-7], [1e-8, 1e-5], ["bulk", "grain boundary"]),
        ([2e-7, 2e-9], [1e-5, 1e-8], ["grain boundary", "bulk"]),
        ([2e-7], [1e-5], ["grain boundary"]),
        ([2e-9], [1e-5], ["bulk"]),
        ([2e-4, 2e-9], [1e-2, 1e-6], ["electrode", "bulk"]),
        (
            [2e-9, 6e-9, 1e-7, 1e-3, 2e-3],
            [1e-8, 1e-7, 1e-5, 1.0, 0.1],
            ["bulk", "grain boundary", "grain boundary 2", "electrode 2", "electrode"],
        ),
    ],
)
def test_names(capacitances: list[float], times: list[float], names: list[str]) -> None:
    assert arc_names(capacitances, times)[0] == names


def test_fast_arc_of_high_permittivity_is_the_bulk_where_nothing_else_can_be() -> None:
    assert arc_names([4e-8, 4e-7], [1e-6, 1e-5], series=False)[0] == ["bulk", "grain boundary"]
    assert arc_names([4e-8, 4e-7], [1e-6, 1e-5], series=True)[0] == ["grain boundary", "grain boundary 2"]


def test_bulk_above_the_window_is_the_series_resistance() -> None:
    circuit = R(200.0) + ZARC(5e3, 1e-5, 0.9) + CPE(1e-6, 0.9)
    m = measured(circuit)
    reading = read_pellet(m, fit_circuit(m.frequency, m.impedance, circuit, starts=1))
    assert_allclose(reading.quantities["bulk_conductivity"].value, CELL / 200, rtol=1e-7, atol=0)
    assert_allclose(reading.quantities["total_conductivity"].value, CELL / 5200, rtol=1e-7, atol=0)
    assert "relative_permittivity" not in reading.quantities
    assert any("above the window" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("circuit", "arcs", "lead"),
    [
        (PELLET, 2, False),
        (ZARC(1e3, 2e-8, 0.97) + CPE(1e-6, 0.9), 1, False),
        (ZARC(1e2, 2e-9, 0.97) + ZARC(1e5, 5e-4, 0.9) + CPE(1e-6, 0.9), 2, False),
        (R(300.0) + L(2e-6) + ZARC(5e3, 1e-5, 0.9) + CPE(1e-6, 0.9), 1, True),
        (ZARC(1e3, 2e-8, 0.97) + ZARC(5e3, 1e-5, 0.9) + ZARC(8e3, 1e-2, 0.9), 3, False),
    ],
)
def test_the_circuit_is_found(circuit: Circuit, arcs: int, lead: bool) -> None:
    m = measured(circuit, 0.002, seed=4)
    fit, tried = choose_circuit(m)
    assert len(arc_places(fit.circuit)) == arcs
    assert any(isinstance(e, R) for e in fit.circuit.elements()) == lead
    assert fit.scale == pytest.approx(0.002, rel=0.2)
    assert len(tried) >= 3


def test_correlated_residuals_widen_intervals_as_an_autoregressive_mean() -> None:
    rng, rho = np.random.default_rng(1), 0.8
    series = np.zeros((2, 20000))
    kicks = rng.normal(size=series.shape)
    for k in range(1, series.shape[1]):
        series[:, k] = rho * series[:, k - 1] + kicks[:, k]
    assert_allclose(correlation_widening(series.ravel()), math.sqrt(1.8 / 0.2), rtol=0.05, atol=0)
    assert correlation_widening(kicks.ravel()) == 1.0
    assert correlation_widening(np.zeros(40)) == 1.0


# ---- measured spectra, owners' values -----------------------------------------------------------------------------
REFERENCE = Path(os.environ.get("MESOION_REFERENCE", "")) / "eis"
needs_reference = pytest.mark.skipif(
    not (os.environ.get("MESOION_REFERENCE") and REFERENCE.is_dir()), reason="MESOION_REFERENCE is not set"
)


@needs_reference
def test_lagp_resistances_are_its_owners() -> None:
    (m,) = read_measurements(REFERENCE / "lagp_two_arcs.txt")
    found = read_pellet(m, choose_circuit(m)[0]).quantities
    for name, owners in (("bulk_resistance", 4.471e4), ("apparent_gb_resistance", 4.712e4)):
        assert_allclose(found[name].value, owners, rtol=0.015, atol=0)
        assert found[name].low < owners < found[name].high


@needs_reference
@pytest.mark.parametrize(("celsius", "total"), [(140, 1.94e-5), (200, 3.56e-4)])
def test_total_conductivities_are_the_owners(celsius: int, total: float) -> None:
    (m,) = read_measurements(REFERENCE / f"s04147_{celsius}C.txt", thickness="2.1 mm", diameter="8 mm")
    found = read_pellet(m, choose_circuit(m)[0]).quantities["total_conductivity"]
    assert_allclose(found.value, total, rtol=0.005, atol=0)
    assert found.low < total < found.high
