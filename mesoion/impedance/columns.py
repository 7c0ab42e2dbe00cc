"""What a column of an impedance table holds, told from its label: quantity, unit, sign."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Quantity = Literal["frequency", "real", "imaginary", "modulus", "phase", "temperature", "cycle"]


@dataclass(frozen=True)
class Column:
    """One column: value in SI (Hz, ohm, rad, K) = factor × number + offset, the factor carrying a leading minus.

    `signed`: the label itself has the minus. `unit`: as written, "" where the label states none.
    """

    quantity: Quantity
    label: str
    unit: str = ""
    factor: float = 1.0
    offset: float = 0.0
    signed: bool = False


class LabelError(ValueError):
    """A label names a quantity of an impedance table, but its unit cannot be used."""


_NAMES: dict[Quantity, str] = {
    "frequency": "f freq frequency frequencies frequenz fréquence frecuencia ν",
    "real": "re(z) re rez z' zs' zre zreal rezreal realz real real(z) z'(a) zr realpart zrealpart realimpedance "
    "impedancereal realzs z1",
    "imaginary": 'im(z) im imz z" zs" zim zimag zimg imagz imag imag(z) z"(b) zi imaginary imaginarypart imagpart '
    "zimaginary imaginaryimpedance imaginary(z) imagimpedance impedanceimag impedanceimaginary z2",
    "modulus": "|z| |zs| zmod mod(z) modz zmag mag(z) magnitude mag modulus abs(z) absz zmagnitude impedance "
    "|impedance| impedancemagnitude z",
    "phase": "phase phase(z) phasez zphz zphase theta θ phi φ phaseangle arg(z) argz angle zangle phase(zs) thetaz "
    "impedancephase",
    "temperature": "t temp temperature mtemp temp(sample) sampletemp sampletemperature",
    "cycle": "cyclenumber cycle zcycle loop loopnumber sweep sweepnumber scan scannumber cycleindex",
}
_BY_NAME: Mapping[str, Quantity] = MappingProxyType(
    {n: q for q, names in _NAMES.items() for n in names.split()}
)

_PREFIX = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "m": 1e-3,
    "u": 1e-6,
    "µ": 1e-6,
    "μ": 1e-6,
}
_HERTZ = re.compile(r"([kKMGTm]?)(?:Hz|hz|HZ)")
_OHM = re.compile(r"([kKMGTmuµμ]?)(?:[Oo]hms?|OHMS?|Ω|Ω)")
_PER_AREA = re.compile(r"(?:[Oo]hms?|OHMS?|Ω|Ω)\s*[*·.×]?\s*[cm]?m", re.ASCII)
_CELSIUS = {"°c", "c", "degc", "deg c", "celsius", "ºc"}
_ANY_UNIT = re.compile(
    r"(?:[kKMGTm]?(?:Hz|hz|HZ)|rad[ /·*.]*s(?:-1|\^-1|⁻¹)?|"
    r"[kKMGTmuµμ]?(?:[Oo]hms?|OHMS?|Ω|Ω)(?:\W*[cm]?m\W?[²2]?)?|"
    r"°|deg(?:rees?)?\.?|[Dd]egrees?|m?rad(?:ians?)?|°\s*C|ºC|deg\s?C|K|C|[Kk]elvin|[Cc]elsius|#)"
)


def plain(label: str) -> str:
    """`label` with one kind of prime, double prime and minus, and without quotes around it."""
    text = label.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    text = re.sub(r"[′’‘´`]", "'", text)
    text = re.sub(r"''|[″“”]", '"', text)
    return re.sub(r"[−–—]", "-", text).strip(" ,:;")


def _split_unit(text: str) -> tuple[str, str]:
    """(name, unit) of "Z' [ohm]", "Z'(ohm)", "Z'/ohm", "Z' in ohm", "z_real_ohm", "f Hz"."""
    bracket = re.fullmatch(r"(.*\S)\s*[\[(]\s*([^\[\]()]{1,20})\s*[\])]", text)
    if bracket and _ANY_UNIT.fullmatch(bracket[2].strip()):
        return bracket[1], bracket[2].strip()
    name, slash, unit = text.partition("/")
    if slash and _ANY_UNIT.fullmatch(unit.strip()):
        return name, unit.strip()
    tail = re.fullmatch(r"(.*\S)(?:\s+in\s+|[\s_,]+)(\S{1,12})", text)
    if tail and tail[2] not in ("C", "K") and _ANY_UNIT.fullmatch(tail[2]):
        return tail[1], tail[2]
    return text, ""


def _scale(quantity: Quantity, unit: str, label: str) -> tuple[float, float]:
    """(factor, offset) to SI; raises LabelError for a unit that is none of the quantity's."""
    if quantity == "cycle" or unit in ("", "#"):
        return 1.0, 0.0
    if quantity == "frequency":
        if unit == "mhz":
            raise LabelError(f"{label!r}: mHz or MHz? write the unit's letters in their proper case")
        if found := _HERTZ.fullmatch(unit):
            return _PREFIX[found[1]], 0.0
        if unit.startswith("rad"):
            return 0.5 / math.pi, 0.0
        raise LabelError(f"{label!r}: frequencies are in Hz, kHz, MHz or rad/s")
    if quantity == "temperature":
        if unit.casefold() in _CELSIUS:
            return 1.0, 273.15
        if unit in ("K", "Kelvin", "kelvin"):
            return 1.0, 0.0
        raise LabelError(f"{label!r}: temperatures are in K or °C")
    if quantity == "phase":
        lowered = unit.casefold()
        if lowered.startswith("mrad"):
            return 1e-3, 0.0
        if lowered.startswith("rad"):
            return 1.0, 0.0
        if lowered.startswith(("deg", "°")):
            return math.pi / 180.0, 0.0
        raise LabelError(f"{label!r}: phases are in degrees or radians")
    if found := _OHM.fullmatch(unit):
        return _PREFIX[found[1]], 0.0
    if _PER_AREA.match(re.sub(r"^[kKMGTmuµμ](?=[OoΩΩ])", "", unit)):
        raise LabelError(
            f"{label!r}: this is an impedance times an area or a length; give the impedance in ohm"
        )
    raise LabelError(f"{label!r}: impedances are in ohm, mohm, kohm or Mohm")


def match_label(label: str, unit: str = "") -> Column | None:
    """The column a label names, or None; `unit` from a row of units below the labels, where there is one.

    Raises LabelError where the quantity is known and its unit is not.
    """
    text = plain(label)
    if not text or len(text) > 60:
        return None
    # Solartron's SMaRT writes "Impedance Phase Degrees (')".
    name, own_unit = _split_unit(re.sub(r"\s*\('\)$", "", text))
    key = re.sub(r"[\s_.]+", "", name).casefold()
    signed = key.startswith("-")
    quantity = _BY_NAME.get(key.lstrip("-+"))
    if quantity is None:
        return None
    stated = own_unit or plain(unit)
    if quantity == "temperature" and not stated:
        return None
    if key == "z" and not stated:
        return None
    factor, offset = _scale(quantity, stated, text)
    return Column(
        quantity,
        label.strip(' \t"') if label.count('"') == 2 else label.strip(),
        stated,
        -factor if signed else factor,
        offset,
        signed,
    )


def match_labels(
    labels: Sequence[str], units: Sequence[str] = ()
) -> tuple[dict[int, Column], LabelError | None]:
    """Index → column for those labels that name a quantity of an impedance table, and the first unusable unit."""
    padded = [*units, *[""] * (len(labels) - len(units))]
    found: dict[int, Column] = {}
    refused: LabelError | None = None
    for i, (label, unit) in enumerate(zip(labels, padded, strict=False)):
        try:
            column = match_label(label, unit)
        except LabelError as error:
            refused = refused or error
            continue
        if column is not None:
            found[i] = column
    return found, refused


def is_unit_row(tokens: Sequence[str]) -> bool:
    """Whether a row under the labels holds units only, one of them at least a frequency's or an impedance's."""
    texts = [plain(t).strip("[]() ") for t in tokens]
    known = [t for t in texts if _HERTZ.fullmatch(t) or _OHM.fullmatch(t)]
    return bool(known) and not any(re.search(r"\d", t) for t in texts)
