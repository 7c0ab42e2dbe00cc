"""Arcs read off synthetic spectra whose every element is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.reading import read_spectrum

FREQUENCY = np.logspace(-1, 8, 91)
OMEGA = 2 * np.pi * FREQUENCY
TAIL = 1 / (1e-6 * (1j * OMEGA) ** 0.95)
THICKNESS, AREA = 1e-3, 1e-4


def arc(resistance: float, capacitance: float, n: float = 1.0) -> np.ndarray:
    return resistance / (1 + (1j * OMEGA * resistance * capacitance) ** n)


@pytest.mark.parametrize("bulk_capacitance", [5e-11, 5e-12])
def test_two_arcs_are_recovered_with_their_capacitances(bulk_capacitance: float) -> None:
    z = 1.0 + 1e-7j * OMEGA + arc(100.0, bulk_capacitance) + arc(1000.0, 5e-9, 0.9) + TAIL
    reading = read_spectrum(
        FREQUENCY, z, thickness=THICKNESS, area=AREA, lead_resistance=1.0, lead_inductance=1e-7
    )
    assert reading.grain_boundary is not None
    assert_allclose(reading.bulk.resistance, 100.0, rtol=1e-4, atol=0)
    assert_allclose(reading.bulk.capacitance, bulk_capacitance, rtol=1e-3, atol=0)
    assert_allclose(reading.grain_boundary.resistance, 1000.0, rtol=1e-4, atol=0)
    assert_allclose(reading.grain_boundary.capacitance, 5e-9, rtol=1e-3, atol=0)
    # L/(A R), and the brick layer's δ/d = C_b/C_gb and σ_gb/σ_b = R_b C_b/(R_gb C_gb).
    assert_allclose(reading.total_conductivity, 1e-3 / (1e-4 * 1100.0), rtol=1e-4, atol=0)
    assert_allclose(reading.width_over_grain_size, bulk_capacitance / 5e-9, rtol=2e-3, atol=0)
    assert_allclose(
        reading.specific_gb_conductivity, 0.1 * 100.0 * bulk_capacitance / (1000.0 * 5e-9), rtol=2e-3, atol=0
    )


def test_an_arc_below_the_instruments_accuracy_is_not_claimed() -> None:
    z = arc(100.0, 5e-11) + arc(0.1, 5e-9, 0.9) + TAIL
    reading = read_spectrum(FREQUENCY, z, thickness=THICKNESS, area=AREA)
    assert reading.grain_boundary is None
    assert reading.apparent_gb_conductivity is None
    assert reading.largest_residual < 0.005
    assert_allclose(reading.total_conductivity, 0.1, rtol=2e-3, atol=0)


def test_order_of_frequencies_does_not_matter_and_reversible_cells_have_no_tail() -> None:
    z = arc(300.0, 5e-11) + arc(100.0, 5e-9)
    a = read_spectrum(FREQUENCY, z, thickness=THICKNESS, area=AREA, blocking=False)
    b = read_spectrum(FREQUENCY[::-1], z[::-1], thickness=THICKNESS, area=AREA, blocking=False)
    assert_allclose(a.total_conductivity, b.total_conductivity, rtol=1e-12, atol=0)
    assert_allclose(a.apparent_gb_conductivity, 0.1, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("frequency", "impedance"),
    [
        (FREQUENCY[:5], np.ones(5, complex)),
        (FREQUENCY, np.ones(90, complex)),
        (FREQUENCY, np.full(91, np.nan + 0j)),
        (-FREQUENCY, np.ones(91, complex)),
    ],
)
def test_unusable_spectra_are_refused(frequency: np.ndarray, impedance: np.ndarray) -> None:
    with pytest.raises(InputError):
        read_spectrum(frequency, impedance, thickness=THICKNESS, area=AREA)
