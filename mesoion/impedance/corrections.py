"""What is not the sample taken off a measured spectrum: leads, and the fixture by its open and short circuit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import InputError
from mesoion.impedance.measurement import Measurement

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


def subtract_leads(
    measurement: Measurement, *, resistance: float = 0.0, inductance: float = 0.0
) -> Measurement:
    """Z - R - iωL: the spectrum without leads of known resistance [ohm] and inductance [H] in series.

    Raises InputError for negative or infinite values, and where R exceeds the real part of a point.
    """
    for key, value in (("resistance", resistance), ("inductance", inductance)):
        if not (math.isfinite(value) and value >= 0.0):
            raise InputError(key, value, "the leads' resistance and inductance are finite and not negative")
    if resistance >= measurement.impedance.real.min() > 0.0:
        least = float(measurement.impedance.real.min())
        remedy = f"{measurement.name}: the least real part is {least:.4g} ohm, the leads have less than that"
        raise InputError("resistance", resistance, remedy)
    z = measurement.impedance - resistance - 2j * math.pi * measurement.frequency * inductance
    said = f"leads of {resistance:.4g} ohm and {inductance:.4g} H subtracted"
    return replace(measurement, impedance=z, notes=(*measurement.notes, said))


def compensate_fixture(
    measurement: Measurement, *, opened: Measurement | None = None, shorted: Measurement | None = None
) -> Measurement:
    """The sample inside a fixture measured open and shorted.

        Z = (Z_m - Z_s) / (1 - (Z_m - Z_s)/(Z_o - Z_s))

    with the fixture's series impedance Z_s from the short circuit and its stray admittance from the open one; 0 for
    the one that was not measured. Both are interpolated in log f. Source: open/short compensation of impedance
    analysers, Keysight Impedance Measurement Handbook, section 4.

    Raises InputError where a fixture's spectrum does not cover the sample's frequencies, or the open fixture is no
    larger than the sample.
    """
    f = measurement.frequency
    series: Complexes = np.zeros(len(f), complex) if shorted is None else _at(shorted, f, "shorted", False)
    z = measurement.impedance - series
    if opened is not None:
        stray = 1.0 / (_at(opened, f, "opened", True) - series)
        if (np.abs(z * stray) >= 1.0).any():
            worst = f[int(np.argmax(np.abs(z * stray)))]
            remedy = f"at {worst:.4g} Hz the open fixture has no more impedance than the sample: check which is which"
            raise InputError("opened", opened.name, remedy)
        z = z / (1.0 - z * stray)
    used = " and ".join(m.name for m in (opened, shorted) if m is not None) or "nothing"
    return replace(measurement, impedance=z, notes=(*measurement.notes, f"fixture compensated with {used}"))


def _at(fixture: Measurement, f: Floats, what: str, admittance: bool) -> Complexes:
    """The fixture's impedance at f, linear in log f; of an open fixture its admittance is interpolated."""
    slack = 1.0 + 1e-6
    if f.max() > fixture.frequency.max() * slack or f.min() < fixture.frequency.min() / slack:
        have = f"{fixture.frequency.min():.4g} to {fixture.frequency.max():.4g} Hz"
        raise InputError(
            what, f"{fixture.name}, {have}", f"measure it from {f.min():.4g} to {f.max():.4g} Hz"
        )
    x, known = np.log(f), np.log(fixture.frequency[::-1])
    values = fixture.impedance[::-1]
    # A stray capacitance and a lead's inductance are proportional to f: what is smooth is their ratio to it.
    values = 1.0 / values / fixture.frequency[::-1] if admittance else values
    found = np.interp(x, known, values.real) + 1j * np.interp(x, known, values.imag)
    return np.asarray(1.0 / (found * f) if admittance else found)
