"""Whether a pellet's geometry can be right: density, shape, permittivity and conductivity it implies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mesoion.errors import InputError
from mesoion.impedance.measurement import Measurement
from mesoion.transport import list_records, load_record, measured_conductivities
from mesoion.units import VACUUM_PERMITTIVITY

# Sintered ceramics; a relative density above 1 by more than calipers and balance allow is impossible.
_DENSE, _POROUS = 1.03, 0.5
# Permittivity is read where the current is a capacitor's to this tangent.
_CAPACITIVE = math.tan(math.radians(30.0))


@dataclass(frozen=True)
class GeometryAudit:
    """What a spectrum and a pellet's dimensions imply together, and whether that can be.

    relative_density: mass over volume and theoretical density. permittivity: Im Y t/(ω ε₀ A) at the highest
    frequency, an upper bound of the sample's, which no geometry may bring below 1. conductivity [S/m]: thickness over
    area and the real part where the phase is least, the total conductivity of an electrolyte between blocking
    electrodes. fastest [S/m]: the largest bulk conductivity of the shipped records at this temperature, with its name.
    None where something needed is not known or cannot be read. findings: what is doubtful; words: everything.
    """

    relative_density: float | None
    permittivity: float | None
    conductivity: float | None
    fastest: tuple[str, float] | None
    findings: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def plausible(self) -> bool:
        """Whether nothing is doubtful."""
        return not self.findings


def audit_geometry(
    measurement: Measurement, *, theoretical_density: float | None = None, material: str | None = None
) -> GeometryAudit:
    """Check a measurement's geometry against density, permittivity and the conductivities of shipped records.

    theoretical_density [kg/m³]: of the crystal; needs the geometry's mass. material: name of a shipped record
    ("llzo-bulk") or of a measured material ("LLZO") that the pellet is said to be.

    Raises InputError where the measurement has no geometry, for a density not above zero, or an unknown material.
    """
    geometry = measurement.geometry
    if geometry is None:
        raise InputError(measurement.name, "no geometry", "give thickness and diameter or area")
    findings: list[str] = []
    words: list[str] = []
    density = None
    if theoretical_density is not None:
        if not (math.isfinite(theoretical_density) and theoretical_density > 0.0):
            raise InputError("theoretical_density", theoretical_density, "a density above zero, in kg/m^3")
        if geometry.mass is None:
            raise InputError(measurement.name, "no mass", "give the pellet's mass for a density")
        density = geometry.mass / (geometry.thickness * geometry.area) / theoretical_density
        words.append(f"density: {density:.1%} of the theoretical one")
        if density > _DENSE:
            findings.append(
                f"a density of {density:.0%} of the theoretical one is impossible: check mass, thickness and area"
            )
        elif density < _POROUS:
            findings.append(
                f"a density of {density:.0%} of the theoretical one: hardly sintered, or mass or dimensions are wrong"
            )
    width = 2.0 * math.sqrt(geometry.area / math.pi)
    if geometry.thickness > 3.0 * width:
        findings.append(
            f"the sample is {geometry.thickness / width:.1f} times as thick as wide: was the area given for the length?"
        )
    permittivity = _permittivity(measurement)
    if permittivity is not None:
        words.append(f"permittivity: at most {permittivity:.3g} at {measurement.frequency[0]:.3g} Hz")
        if permittivity < 1.0:
            findings.append(
                f"a relative permittivity of {permittivity:.2g} lies below the vacuum's: the area is smaller, or the "
                "thickness larger, than given (or their units are wrong)"
            )
    conductivity = _conductivity(measurement)
    fastest = None
    if conductivity is not None:
        words.append(f"conductivity: {conductivity:.3g} S/m where the phase is least")
        if measurement.temperature is not None:
            fastest = _fastest(measurement.temperature)
            ratio = conductivity / fastest[1]
            words.append(
                f"that is {ratio:.2g} times the fastest shipped bulk at this temperature ({fastest[0]})"
            )
            if ratio > 30.0:
                findings.append(
                    f"a conductivity {ratio:.0f} times that of {fastest[0]} is not believed: check thickness and area"
                )
        if material is not None:
            findings += _against(material, conductivity, measurement.temperature)
    return GeometryAudit(
        density, permittivity, conductivity, fastest, tuple(findings), tuple(words + findings)
    )


def _permittivity(measurement: Measurement) -> float | None:
    assert measurement.geometry is not None
    admittance = 1.0 / measurement.impedance[0]
    if admittance.imag <= _CAPACITIVE * abs(admittance.real):
        return None
    capacitance = admittance.imag / (2.0 * math.pi * measurement.frequency[0])
    return float(capacitance * measurement.geometry.cell_constant / VACUUM_PERMITTIVITY)


def _conductivity(measurement: Measurement) -> float | None:
    """From the real part at the last minimum of -phase before low frequencies, where it is below 45 degrees."""
    assert measurement.geometry is not None
    z = measurement.impedance
    loss = np.abs(np.angle(z))
    inside = [k for k in range(1, len(z) - 1) if loss[k] <= loss[k - 1] and loss[k] <= loss[k + 1]]
    candidates = [k for k in [*inside, len(z) - 1] if loss[k] < math.pi / 4 and z[k].real > 0.0]
    if not candidates:
        return None
    best = min(candidates, key=lambda k: float(loss[k]))
    return float(measurement.geometry.cell_constant / z[best].real)


def _fastest(temperature: float) -> tuple[str, float]:
    records = [load_record(name) for name in list_records() if name.endswith("-bulk")]
    values = [(record.name, record.conductivity(temperature).value) for record in records]
    return max(values, key=lambda pair: pair[1])


def _against(material: str, conductivity: float, temperature: float | None) -> list[str]:
    """Findings against what is known of a material; a total conductivity lies below its bulk's."""
    measured = [m for m in measured_conductivities() if m.material == material]
    if material in list_records():
        if temperature is None:
            return []
        known = load_record(material).conductivity(temperature)
        low, high, words = known.low, known.high, f"{material} at {temperature:.0f} K"
    elif measured:
        values = [m.conductivity_S_per_m for m in measured]
        low, high, words = min(values), max(values), f"measured {material} near room temperature"
        if temperature is not None and abs(temperature - 298.15) > 30.0:
            return []
    else:
        names = ", ".join([*list_records(), *sorted({m.material for m in measured_conductivities()})])
        raise InputError("material", material, f"give one of {names}")
    if low / 1e3 <= conductivity <= 10.0 * high:
        return []
    place = "above" if conductivity > high else "below"
    return [
        f"a conductivity of {conductivity:.2g} S/m lies far {place} {words} ({low:.2g} to {high:.2g} S/m): check "
        "thickness, area and their units"
    ]
