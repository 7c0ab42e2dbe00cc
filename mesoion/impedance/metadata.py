"""What is known of a measured spectrum beside its numbers: options, a sidecar TOML, the file's header, its name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mesoion.config import Model, check, read_toml
from mesoion.errors import InputError
from mesoion.impedance.measurement import Geometry
from mesoion.units import Area, Length, Mass, Temperature, Voltage

Sign = Literal["Z''", "-Z''"]
Fact = Literal["thickness", "diameter", "area", "temperature", "amplitude"]

# Pellets, tapes and films between electrodes; outside these a unit has been confused.
THICKNESS_RANGE = (1e-8, 5e-2)
"""Thickness of a sample [m] that is believed."""
DIAMETER_RANGE = (1e-6, 0.2)
"""Diameter of an electrode [m] that is believed."""
AREA_RANGE = (1e-12, 4e-2)
"""Area of an electrode [m²] that is believed."""


class Metadata(Model):
    """What a user says of a measurement: options of a call, or the tables of `spectrum.toml` beside `spectrum.mpt`.

    thickness, diameter [m], or area [m²] instead of the diameter; mass [kg]; temperature [K]; amplitude [V rms];
    quantities are strings with units or plain SI numbers. columns: labels of the columns from left to right, "" for
    those to be left alone, where the file's own labels are missing or wrong. sign: what the imaginary column holds.
    name: of the spectrum, instead of the file's.
    """

    thickness: Annotated[Length, Field(gt=0)] | None = None
    diameter: Annotated[Length, Field(gt=0)] | None = None
    area: Annotated[Area, Field(gt=0)] | None = None
    mass: Annotated[Mass, Field(gt=0)] | None = None
    temperature: Annotated[Temperature, Field(gt=0)] | None = None
    amplitude: Annotated[Voltage, Field(gt=0)] | None = None
    columns: list[str] | None = None
    sign: Sign | None = None
    name: Annotated[str, Field(min_length=1, max_length=120)] | None = None

    def over(self, other: Metadata) -> Metadata:
        """These values, and those of `other` where nothing is said here; diameter and area replace each other."""
        own = {k: v for k, v in self.model_dump().items() if v is not None}
        below = {k: v for k, v in other.model_dump().items() if v is not None}
        if "diameter" in own or "area" in own:
            below.pop("diameter", None)
            below.pop("area", None)
        return Metadata(**{**below, **own})

    def checked(self, where: str) -> Metadata:
        """Itself; InputError naming `where` for lengths no sample has, or both a diameter and an area."""
        if self.diameter is not None and self.area is not None:
            raise InputError(
                f"{where}: area", self.area, "give the electrode's diameter or its area, not both"
            )
        for key, (low, high), unit, example in (
            ("thickness", THICKNESS_RANGE, "m", "2.1 mm"),
            ("diameter", DIAMETER_RANGE, "m", "8 mm"),
            ("area", AREA_RANGE, "m^2", "0.5 cm^2"),
        ):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                remedy = (
                    f"a sample's {key} lies between {low:g} and {high:g} {unit}; plain numbers are in {unit}, "
                    f'write the unit, such as "{example}"'
                )
                raise InputError(f"{where}: {key}", f"{value:g} {unit}", remedy)
        return self

    def geometry(self) -> Geometry | None:
        """Thickness and area, where both are known."""
        area = self.area
        if area is None and self.diameter is not None:
            area = math.pi / 4.0 * self.diameter**2
        if self.thickness is None or area is None:
            return None
        return Geometry(self.thickness, area, self.mass)


def read_sidecar(path: Path) -> tuple[Metadata, str]:
    """(what `NAME.toml` beside the file says, a note); a TOML file that is a study (`kind`) is left alone."""
    sidecar = path.with_suffix(".toml")
    if sidecar == path or not sidecar.is_file():
        return Metadata(), ""
    tables = read_toml(sidecar)
    if "kind" in tables:
        return Metadata(), f"{sidecar.name} is a study, not read as what is known of the spectrum"
    known = check(Metadata, tables, where=sidecar).checked(str(sidecar))
    said = ", ".join(k for k, v in known.model_dump().items() if v is not None)
    return known, f"{said or 'nothing'} from {sidecar.name}"


@dataclass(frozen=True)
class Stated:
    """A value a file's own header states: SI, the words it was read from, and whether it is a program's default."""

    fact: Fact
    value: float
    words: str
    default: bool = False


_IN_NAME = re.compile(
    r"(?:^|[^A-Za-z0-9.])(?:T[=_ ]?)?(?P<sign>-|minus[ _]?|m(?=\d))?(?P<number>\d{1,4}(?:[.,]\d{1,3}|p\d{1,2})?)"
    r"[ _]?(?P<unit>°[ _]?C|º[ _]?C|deg[ _]?C|degrees?C|degK|[CK]|deg|°)(?![A-Za-z0-9])"
)


def temperatures_in_name(name: str) -> list[tuple[float, str]]:
    """(temperature [K], words) for every temperature a file's name states: 140C, 25degC, 298K, -20C, m20C, 22p5C.

    A minus counts only after a separator; kelvin only from 50 to 2000, degrees Celsius from -200 to 1500.
    """
    found = []
    for match in _IN_NAME.finditer(name):
        number = float(match["number"].replace(",", ".").replace("p", "."))
        negative = bool(match["sign"])
        kelvin = match["unit"].replace("deg", "") == "K"
        value = number if kelvin else (-number if negative else number) + 273.15
        if kelvin and (negative or not 50.0 <= value <= 2000.0):
            continue
        if not kelvin and not 73.15 <= value <= 1773.15:
            continue
        found.append((value, match[0].lstrip("_ ()[].,+-") if not negative else match[0].strip("_ ()[].,+")))
    return found
