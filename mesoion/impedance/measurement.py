"""A measured spectrum as everything in this package takes it: SI numbers, and where they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import InputError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


@dataclass(frozen=True)
class Geometry:
    """A pellet between two electrodes: thickness [m], electrode area [m²], and mass [kg] where it was weighed."""

    thickness: float
    area: float
    mass: float | None = None

    def __post_init__(self) -> None:
        for name in ("thickness", "area", "mass"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise InputError(name, value, "a finite length, area or mass above zero is expected")

    @classmethod
    def disc(cls, thickness: float, diameter: float, mass: float | None = None) -> Geometry:
        """A round pellet covered by its electrodes; both lengths in m, mass in kg."""
        if not (math.isfinite(diameter) and diameter > 0.0):
            raise InputError("diameter", diameter, "a finite length above zero is expected")
        return cls(thickness, math.pi / 4.0 * diameter**2, mass)

    @property
    def cell_constant(self) -> float:
        """Thickness over area [1/m]: conductivity = cell constant / resistance."""
        return self.thickness / self.area


@dataclass(frozen=True)
class Measurement:
    """One impedance spectrum, frequencies falling.

    frequency [Hz], impedance [ohm] (complex, capacitive arcs have a negative imaginary part), both of shape (n,).
    name: short, unique within a batch. geometry, temperature [K], amplitude [V rms]: None where not known.
    source: the file and what in it was matched. notes: what was changed or doubted while reading, in words.
    """

    frequency: Floats
    impedance: Complexes
    name: str
    geometry: Geometry | None = None
    temperature: float | None = None
    amplitude: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        frequency = np.array(self.frequency, float)
        impedance = np.array(self.impedance, complex)
        if frequency.ndim != 1 or frequency.shape != impedance.shape or frequency.size == 0:
            shapes = f"{frequency.shape} and {impedance.shape}"
            raise InputError(
                self.name, shapes, "frequency and impedance must be equally long, one point at least"
            )
        if not (np.isfinite(frequency).all() and (frequency > 0.0).all() and np.isfinite(impedance).all()):
            raise InputError(
                self.name, "a point", "frequencies above zero and finite impedances are expected"
            )
        if (np.diff(frequency) >= 0.0).any():
            raise InputError(self.name, "the order of frequencies", "they must fall, each one once")
        for array in (frequency, impedance):
            array.setflags(write=False)
        object.__setattr__(self, "frequency", frequency)
        object.__setattr__(self, "impedance", impedance)

    def selected(self, keep: ArrayLike) -> Measurement:
        """The points where the mask (or index array) `keep` says so."""
        chosen = np.asarray(keep)
        return replace(self, frequency=self.frequency[chosen], impedance=self.impedance[chosen])
