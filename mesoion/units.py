"""Constants, and conversion at the edge: inside the code every number is SI.

A quantity in an input is either a string with its unit ("1.6 nm", "25 C", "3.5e-4 S/cm") or a plain number
already in the unit the field asks for. Pint does the conversion and is loaded on first use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator
from scipy import constants

from mesoion.errors import InputError

ELEMENTARY_CHARGE: float = constants.e
"""e [C]."""
BOLTZMANN: float = constants.k
"""k_B [J/K]."""
BOLTZMANN_EV: float = constants.k / constants.e
"""k_B [eV/K]."""
VACUUM_PERMITTIVITY: float = constants.epsilon_0
"""ε₀ [F/m]."""
AVOGADRO: float = constants.N_A
"""N_A [1/mol]."""
FARADAY: float = constants.e * constants.N_A
"""F [C/mol]."""
GAS_CONSTANT: float = constants.R
"""R [J/(mol K)]."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*(.*?)\s*")
_FACTOR = re.compile(r"([A-Za-zµμΩΩÅÅ°%]+)(?:(?:\^|\*\*)?([+-]?\d))?")
_SUPERSCRIPTS = str.maketrans({"⁻": "-", **{s: str(i) for i, s in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}})
_CELSIUS = frozenset({"C", "°C", "degC", "celsius", "Celsius"})
_EXAMPLES = {
    "m": '"1.6 nm"',
    "m^2": '"0.5 cm^2"',
    "kg": '"0.35 g"',
    "K": '"25 C" or "298.15 K"',
    "Hz": '"1 MHz"',
    "s": '"5 ms"',
    "V": '"10 mV"',
    "A/m^2": '"0.3 mA/cm^2"',
    "ohm": '"2 ohm"',
    "H": '"1 uH"',
    "F": '"12 pF"',
    "ohm m^2": '"10 ohm cm^2"',
    "F/m^2": '"5 uF/cm^2"',
    "S/m": '"3.5e-4 S/cm"',
    "S": '"1 uS"',
    "m^2/s": '"2e-9 cm^2/s"',
    "1/m^3": '"2.4e22 cm^-3"',
    "1/m^2": '"1e14 cm^-2"',
    "eV": '"0.33 eV" or "32 kJ/mol"',
    "J/m^2": '"0.7 J/m^2"',
    "Pa": '"3 MPa"',
    "": '"12 %"',
}


@cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry(cache_folder=None)


@cache
def _target(unit: str) -> Any:
    return _registry().Unit(_pint_expression(unit))


def _pint_expression(text: str) -> str:
    """`text` as a product of units for pint; only names, one-digit exponents, `*`, `/` and spaces pass.

    Own grammar, because pint evaluates arithmetic in the text: "m**9**9**9" would not return.
    """
    text = text.translate(_SUPERSCRIPTS).replace("·", "*").strip()
    parts: list[str] = []
    position, divide = 0, False
    if text.startswith("1/"):
        position, divide = 2, True
    while position < len(text):
        match = _FACTOR.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a unit")
        exponent = int(match[2] or 1) * (-1 if divide else 1)
        parts.append(f"{match[1].replace('%', 'percent').replace('°', 'deg')}**{exponent}")
        position = match.end()
        if position == len(text):
            break
        joint = re.compile(r"\s*([*/ ])\s*(?=[A-Za-zµμΩΩÅÅ°%])").match(text, position)
        if joint is None:
            raise ValueError(f"{text!r} is not a unit")
        divide, position = joint[1] == "/", joint.end()
    return " * ".join(parts) or "dimensionless"


def allowed_form(unit: str) -> str:
    """What an input may say for a quantity in `unit`: the tail of every message about one."""
    number = f"a plain number in {unit}" if unit else "a plain number"
    example = _EXAMPLES.get(unit, f'"1 {unit}"')
    return f"give a finite quantity such as {example}, or {number}"


def _convert(value: object, unit: str) -> float:
    """`value` in `unit`; ValueError with the reason where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"a {type(value).__name__} is not a quantity")
    if isinstance(value, str):
        number = _from_text(value, unit)
    else:
        try:
            number = float(value)
        except OverflowError:
            raise ValueError("the number is too large") from None
    if not math.isfinite(number):
        raise ValueError("the number is not finite")
    if unit == "K" and number < 0:
        raise ValueError("the temperature is below absolute zero")
    return number


def _from_text(text: str, unit: str) -> float:
    import pint

    match = _QUANTITY.fullmatch(text) if len(text) <= 80 else None
    if match is None:
        raise ValueError("it is not a number followed by a unit")
    magnitude, unit_text = float(match[1]), str(match[2])
    if unit == "K" and unit_text in _CELSIUS:
        return magnitude + float(constants.zero_Celsius)
    if not unit_text:
        if unit:
            raise ValueError("it has no unit")
        return magnitude
    ureg: Any = _registry()
    target = _target(unit)
    try:
        source = ureg.Unit(_pint_expression(unit_text))
        if source.dimensionality == target.dimensionality:
            return float(ureg.Quantity(magnitude, source).to(target).magnitude)
        if source.dimensionality == (target / ureg.mol).dimensionality and unit in ("eV", "J"):
            return float(ureg.Quantity(magnitude / AVOGADRO, source * ureg.mol).to(target).magnitude)
    except (pint.PintError, ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{unit_text!r} is not a known unit ({error})") from None
    raise ValueError(f"{unit_text!r} has another dimension than {unit or 'a pure number'}")


def parse_quantity(value: object, unit: str, where: str = "quantity") -> float:
    """`value` as a finite float in `unit`.

    value: a number with its unit ("1.6 nm", "25 C", "10 Ω cm²"), or a plain number already in `unit`.
    unit: the unit of the result, such as "m", "S/m", "ohm m^2", "" for a pure number.
    where: the key's path, for the message.
    Temperatures are absolute ("25 C", "25 degC", "298.15 K"); an energy may be per mole.

    Raises InputError for a bad unit, a wrong dimension, a missing unit, a number that is not finite, a
    temperature below 0 K.
    """
    try:
        return _convert(value, unit)
    except ValueError as error:
        raise InputError(where, value, f"{error}; {allowed_form(unit)}") from None


def quantity_validator(unit: str) -> Callable[[object], float]:
    """Validator for a field in `unit` [pydantic BeforeValidator]; raises ValueError with the allowed form."""

    def validate(value: object) -> float:
        try:
            return _convert(value, unit)
        except ValueError as error:
            raise ValueError(f"{error}; {allowed_form(unit)}") from None

    return validate


# Combine with bounds as in Annotated[Length, Field(gt=0)]: the bound is checked after the conversion.
Length = Annotated[float, BeforeValidator(quantity_validator("m"))]
Mass = Annotated[float, BeforeValidator(quantity_validator("kg"))]
Area = Annotated[float, BeforeValidator(quantity_validator("m^2"))]
Temperature = Annotated[float, BeforeValidator(quantity_validator("K"))]
Time = Annotated[float, BeforeValidator(quantity_validator("s"))]
Frequency = Annotated[float, BeforeValidator(quantity_validator("Hz"))]
Voltage = Annotated[float, BeforeValidator(quantity_validator("V"))]
CurrentDensity = Annotated[float, BeforeValidator(quantity_validator("A/m^2"))]
Resistance = Annotated[float, BeforeValidator(quantity_validator("ohm"))]
Inductance = Annotated[float, BeforeValidator(quantity_validator("H"))]
Capacitance = Annotated[float, BeforeValidator(quantity_validator("F"))]
AreaResistance = Annotated[float, BeforeValidator(quantity_validator("ohm m^2"))]
AreaCapacitance = Annotated[float, BeforeValidator(quantity_validator("F/m^2"))]
Conductivity = Annotated[float, BeforeValidator(quantity_validator("S/m"))]
SheetConductance = Annotated[float, BeforeValidator(quantity_validator("S"))]
Diffusivity = Annotated[float, BeforeValidator(quantity_validator("m^2/s"))]
NumberDensity = Annotated[float, BeforeValidator(quantity_validator("1/m^3"))]
SurfaceDensity = Annotated[float, BeforeValidator(quantity_validator("1/m^2"))]
Energy_eV = Annotated[float, BeforeValidator(quantity_validator("eV"))]
SurfaceEnergy = Annotated[float, BeforeValidator(quantity_validator("J/m^2"))]
Pressure = Annotated[float, BeforeValidator(quantity_validator("Pa"))]
PureNumber = Annotated[float, BeforeValidator(quantity_validator(""))]
