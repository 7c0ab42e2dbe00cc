"""Transport records: the contract between the atomistic and the continuum scale.

A record says how Li⁺ moves in one region (a grain's bulk or one kind of grain boundary). Every number carries its
unit in the field's name, an uncertainty and a source; records are locked and travel as JSON. The package `atomistic`
writes them, `mesoion.material` reads them; shipped records lie in `mesoion/records`.

Temperatures are absolute, energies in eV, all else SI. Intervals are 95 %.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from mesoion.arrhenius import (
    Arrhenius,
    ConductivityArrhenius,
    DiffusivityArrhenius,
    EnergyBarrier,
    Floats,
    Locked,
    PositiveQuantity,
    Quantity,
    Source,
    TransportLaw,
    checked_temperature,
    crossover_temperatures,
    nernst_einstein,
    number_density,
)
from mesoion.errors import InputError, MesoionError
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

SCHEMA_VERSION = 1
"""Version of the record's JSON; a file of a newer one is refused."""

RECORDS_FOLDER = Path(__file__).parent / "records"
MEASURED_FILE = "measured_conductivities.json"
MEASURED_CURRENTS_FILE = "measured_critical_currents.json"
NORMAL_95 = 1.959963984540054
"""Half width of the 95 % interval of a normal distribution in standard uncertainties."""

_LARGEST_FILE = 10_000_000
_MAX_REDRAWS = 10_000
_LONGEST_SHOWN = 60

Direction = Literal["across", "along"]

__all__ = [
    "SCHEMA_VERSION",
    "BoundaryCharacter",
    "ConductivityArrhenius",
    "DiffusivityArrhenius",
    "EnergyBarrier",
    "MeasuredConductivity",
    "MeasuredCriticalCurrent",
    "PositiveQuantity",
    "Prediction",
    "Quantity",
    "Source",
    "TemperatureRange",
    "TransportLaw",
    "TransportRecord",
    "assumed_fields",
    "crossover_temperatures",
    "dump_record",
    "list_records",
    "load_record",
    "measured_conductivities",
    "measured_critical_currents",
    "nernst_einstein",
    "number_density",
    "parse_record",
    "records_table",
    "save_record",
]


class TemperatureRange(Locked):
    """The temperatures at which the transport law was determined; beyond them it is extrapolated."""

    low: float = Field(ge=1, le=5000)
    high: float = Field(ge=1, le=5000)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


class BoundaryCharacter(Locked):
    """Which grain boundary: Σ, rotation axis, plane (two where asymmetric), or "general"."""

    kind: Literal["tilt", "twist", "mixed", "general"]
    label: str = Field(min_length=1)
    sigma: int | None = Field(default=None, ge=1, le=100_000)
    axis: tuple[int, int, int] | None = None
    plane: tuple[int, int, int] | None = None
    second_plane: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Prediction:
    """A property of a record at one temperature.

    value, low, high: in `unit`; low and high bound the 95 % interval of linear propagation in the logarithm.
    warnings: what a reader must know, extrapolation first; empty where nothing is to be said.
    """

    temperature_K: float
    value: float
    low: float
    high: float
    unit: str
    log_standard_uncertainty: float
    extrapolated: bool
    warnings: tuple[str, ...]


_BOUNDARY_ONLY = (
    "boundary",
    "segregation_energy_eV",
    "boundary_width_m",
    "boundary_energy_J_per_m2",
    "core_charge_e_per_m2",
    "electronic_band_offset_eV",
)


class TransportRecord(Locked):
    """Li⁺ transport in one region of one material.

    transport_parallel, transport_perpendicular: along and across the boundary plane; without a perpendicular law
    the region is isotropic. carrier_density_per_m3: Li⁺ per volume at which the transport holds;
    site_density_per_m3: sites open to Li⁺ (occupied and empty). segregation_energy_eV: standard energy of Li⁺ in
    the boundary less that in the bulk; where it is absent the boundary is taken to be in equilibrium with the grain
    at its own carrier density. core_charge_e_per_m2: number of elementary charges per boundary area on top of a
    boundary that is neutral at its own carrier density. composition_atomic_percent: of all atoms of the region.
    electronic_transport, hole_transport: conductivity of electrons and holes in equilibrium with lithium metal;
    electronic_mobility_m2_per_V_s: of either. electronic_band_offset_eV: conduction band of the boundary less that of
    the bulk; where a boundary has no electronic_transport of its own, the bulk's times exp(−offset/k_BT) holds.
    """

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")
    material: str = Field(min_length=1)
    formula: str = Field(min_length=1)
    region: Literal["bulk", "boundary"]
    origin: Literal["own", "literature"]
    source: Source
    temperature_range_K: TemperatureRange
    transport_parallel: TransportLaw
    transport_perpendicular: TransportLaw | None = None
    haven_ratio: PositiveQuantity
    carrier_density_per_m3: PositiveQuantity
    site_density_per_m3: PositiveQuantity
    relative_permittivity: PositiveQuantity | None = None
    lattice_parameter_m: PositiveQuantity | None = None
    boundary: BoundaryCharacter | None = None
    boundary_width_m: PositiveQuantity | None = None
    boundary_energy_J_per_m2: Quantity | None = None
    segregation_energy_eV: Quantity | None = None
    core_charge_e_per_m2: Quantity | None = None
    composition_atomic_percent: dict[str, Quantity] | None = None
    electronic_transport: ConductivityArrhenius | None = None
    hole_transport: ConductivityArrhenius | None = None
    electronic_mobility_m2_per_V_s: PositiveQuantity | None = None
    electronic_band_offset_eV: Quantity | None = None
    potential_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    notes: tuple[str, ...] = ()

    @field_validator("composition_atomic_percent")
    @classmethod
    def _percentages(cls, composition: dict[str, Quantity] | None) -> dict[str, Quantity] | None:
        for element, content in (composition or {}).items():
            if not 0 <= content.value <= 100:
                raise ValueError(
                    f"{element} must lie between 0 and 100 atomic percent, not {content.value:g}"
                )
        return composition

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.carrier_density_per_m3.value >= self.site_density_per_m3.value:
            raise ValueError("carrier_density_per_m3 must be smaller than site_density_per_m3")
        if self.region == "bulk":
            given = [name for name in _BOUNDARY_ONLY if getattr(self, name) is not None]
            if given:
                raise ValueError(f"a bulk record has no {', '.join(given)}")
            if self.relative_permittivity is None:
                raise ValueError("a bulk record needs relative_permittivity: it decides the space charge")
            electronic = self.electronic_transport is not None or self.hole_transport is not None
            if electronic and self.electronic_mobility_m2_per_V_s is None:
                raise ValueError(
                    "electronic_transport needs electronic_mobility_m2_per_V_s, for the number of carriers"
                )
        elif self.boundary is None or self.boundary_width_m is None:
            raise ValueError("a boundary record needs boundary and boundary_width_m")
        if self.origin == "own" and self.potential_sha256 is None:
            raise ValueError("a record of an own run needs potential_sha256, the checksum of its potential")
        return self

    @property
    def occupancy(self) -> float:
        """θ = carrier density over site density."""
        return self.carrier_density_per_m3.value / self.site_density_per_m3.value

    def law(self, direction: Direction = "across") -> DiffusivityArrhenius | ConductivityArrhenius:
        """The transport law "across" or "along" the boundary plane (the same where the region is isotropic)."""
        if direction == "across" and self.transport_perpendicular is not None:
            return self.transport_perpendicular
        return self.transport_parallel

    def conductivity(self, temperature: float, direction: Direction = "across") -> Prediction:
        """σ = z²e²cD*/(H_R k_BT) [S/m] at `temperature` [K], or the anchored law itself, with its interval."""
        return self._predict(temperature, direction, "conductivity", "S/m")

    def diffusivity(self, temperature: float, direction: Direction = "across") -> Prediction:
        """Tracer diffusivity D* [m²/s] at `temperature` [K]; D* = H_R σ k_BT/(z²e²c) from an anchored law."""
        return self._predict(temperature, direction, "diffusivity", "m^2/s")

    def sample_conductivity(
        self, temperature: float, rng: np.random.Generator, size: int, direction: Direction = "across"
    ) -> Floats:
        """`size` draws of σ [S/m] at `temperature` [K] from the record's distributions."""
        kelvin = float(checked_temperature(temperature))
        drawn = (self.sample(rng) for _ in range(size))
        return np.array([math.exp(r._log_property(kelvin, direction, "conductivity")[0]) for r in drawn])

    def sample(self, rng: np.random.Generator) -> Self:
        """The same record with every value drawn from its distribution.

        Prefactor and activation energy are drawn together with their correlation. Draws with more carriers than
        sites are drawn again; raises InputError where that does not end.
        """
        update: dict[str, Any] = {}
        for name in type(self).model_fields:
            field = getattr(self, name)
            if isinstance(field, (Quantity, PositiveQuantity, Arrhenius)):
                update[name] = field.sample(rng)
        if self.composition_atomic_percent is not None:
            update["composition_atomic_percent"] = {
                element: content.sample(rng) for element, content in self.composition_atomic_percent.items()
            }
        for _ in range(_MAX_REDRAWS):
            if update["carrier_density_per_m3"].value < update["site_density_per_m3"].value:
                return self.model_copy(update=update)
            update["carrier_density_per_m3"] = self.carrier_density_per_m3.sample(rng)
            update["site_density_per_m3"] = self.site_density_per_m3.sample(rng)
        raise InputError(
            f"{self.name}: carrier_density_per_m3",
            self.carrier_density_per_m3.value,
            "its draws exceed the sites almost always; narrow its uncertainty",
        )

    def _predict(self, temperature: float, direction: Direction, prop: str, unit: str) -> Prediction:
        kelvin = float(checked_temperature(temperature))
        log, spread = self._log_property(kelvin, direction, prop)
        half = NORMAL_95 * spread
        warnings = self._extrapolation(kelvin)
        return Prediction(
            temperature_K=kelvin,
            value=_exp(log),
            low=_exp(log - half),
            high=_exp(log + half),
            unit=unit,
            log_standard_uncertainty=spread,
            extrapolated=bool(warnings),
            warnings=warnings,
        )

    def _log_property(self, kelvin: float, direction: Direction, prop: str) -> tuple[float, float]:
        law = self.law(direction)
        log, spread = float(law.log_value(kelvin)), float(law.log_standard_uncertainty(kelvin))
        if law.law == prop:
            return log, spread
        to_conductivity = 2.0 * math.log(ELEMENTARY_CHARGE) - math.log(BOLTZMANN * kelvin)
        to_conductivity += math.log(self.carrier_density_per_m3.value) - math.log(self.haven_ratio.value)
        others = (self.carrier_density_per_m3, self.haven_ratio)
        spread = math.hypot(spread, *(quantity.log_standard_uncertainty for quantity in others))
        return log + (to_conductivity if prop == "conductivity" else -to_conductivity), spread

    def _extrapolation(self, kelvin: float) -> tuple[str, ...]:
        known = self.temperature_range_K
        if known.low - 0.5 <= kelvin <= known.high + 0.5:
            return ()
        return (f"{self.name} is extrapolated to {kelvin:g} K from {known.low:g} to {known.high:g} K",)


class MeasuredConductivity(Locked):
    """A conductivity measured on a real pellet: what a prediction is compared with, never its input."""

    material: str = Field(min_length=1)
    formula: str = Field(min_length=1)
    quantity: Literal["bulk", "apparent grain boundary", "total"]
    conductivity_S_per_m: float = Field(gt=0, le=1e6)
    standard_uncertainty_S_per_m: float | None = Field(default=None, ge=0)
    temperature_K: float = Field(ge=1, le=5000)
    relative_density_percent: float | None = Field(default=None, gt=0, le=100)
    source: Source
    note: str | None = None


class _MeasuredFile(Locked):
    schema_version: Literal[1]
    conductivities: tuple[MeasuredConductivity, ...]


class MeasuredCriticalCurrent(Locked):
    """A critical current density measured on pellets between lithium: what a prediction is compared with.

    half_cycle_time_s: how long each current was held; relative_density_percent: of the pellet; where they are known.
    """

    material: str = Field(min_length=1)
    composition: str = Field(min_length=1)
    critical_current_density_A_per_m2: float = Field(gt=0, le=1e6)
    half_cycle_time_s: float | None = Field(default=None, gt=0)
    relative_density_percent: float | None = Field(default=None, gt=0, le=100)
    temperature_K: float = Field(ge=1, le=5000)
    source: Source
    note: str | None = None


class _MeasuredCurrentsFile(Locked):
    schema_version: Literal[1]
    critical_currents: tuple[MeasuredCriticalCurrent, ...]


_Model = TypeVar("_Model", bound=BaseModel)


def _exp(log: float) -> float:
    return math.exp(min(max(log, -700.0), 700.0))


def _key_path(location: tuple[int | str, ...]) -> str:
    path = ""
    for key in location:
        if isinstance(key, int):
            path += f"[{key}]"
        elif key not in ("diffusivity", "conductivity"):
            path += f".{key}" if path else key
    return path


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands there twice")
    return dict(pairs)


def _parse(model: type[_Model], text: str, where: str, what: str) -> _Model:
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise InputError(
            where, text[:_LONGEST_SHOWN], f"give {what} as JSON that is not nested this deep"
        ) from None
    except ValueError as error:
        raise InputError(where, text[:_LONGEST_SHOWN], f"give {what} as JSON: {error}") from None
    if not isinstance(data, dict):
        raise InputError(where, text[:_LONGEST_SHOWN], f"give {what} as a JSON object")
    version = data.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(
            f"{where}: schema_version", version, f"it must be an integer from 1 to {SCHEMA_VERSION}"
        )
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{where}: schema_version",
            version,
            f"this version reads up to {SCHEMA_VERSION}; update mesoion to read this file",
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        value = first["input"]
        shown = value if not isinstance(value, (dict, list, BaseModel)) else "this entry"
        if isinstance(shown, str) and len(shown) > _LONGEST_SHOWN:
            shown = shown[:_LONGEST_SHOWN] + "..."
        remedy = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            remedy = f"the key is unknown; allowed are {', '.join(_siblings(model, first['loc']))}"
        remedy += f" (and {more} more)" if more else ""
        path = _key_path(first["loc"])
        raise InputError(f"{where}: {path}" if path else where, shown, remedy) from None


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names allowed where the unknown key at the end of `location` stands."""
    schema = model.model_json_schema()
    here: dict[str, Any] = schema
    for key in location[:-1]:
        if isinstance(key, int):
            here = here.get("items", here)
        elif key in here.get("properties", {}):
            here = here["properties"][key]
        elif "additionalProperties" in here and isinstance(here["additionalProperties"], dict):
            here = here["additionalProperties"]
        here = _resolve(here, schema, str(key))
    return sorted(here.get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any], tag: str) -> dict[str, Any]:
    for choice in node.get("anyOf", ()):
        if choice.get("type") != "null":
            node = choice
            break
    mapping = node.get("discriminator", {}).get("mapping", {})
    if tag in mapping:
        node = {"$ref": mapping[tag]}
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def parse_record(text: str, where: str = "record") -> TransportRecord:
    """The record in a JSON text; raises InputError that names `where`, the key's path, the value and the remedy."""
    return _parse(TransportRecord, text, where, "a transport record")


def dump_record(record: TransportRecord) -> str:
    """The record as JSON, without the fields it does not have; `parse_record` returns it exactly."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(str(path), f"{path.stat().st_size} bytes", "a record is far smaller than 10 MB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(str(path), "not UTF-8 text", "give a transport record as JSON") from None
    except (OSError, ValueError) as error:
        raise InputError(str(path), "unreadable", f"give a readable file ({error})") from None


def load_record(name_or_path: str | Path) -> TransportRecord:
    """A shipped record by its name (see `list_records`), or a record file by its path (a Path, or ending in .json).

    Raises InputError that names the file, the key's path, the value and what is allowed.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".json") or os.sep in text:
        path = Path(name_or_path)
    else:
        if text not in list_records():
            close = difflib.get_close_matches(text, list_records(), n=3, cutoff=0.3) or list_records()
            raise InputError("record", text, f"give a path or one of the shipped records: {', '.join(close)}")
        path = RECORDS_FOLDER / f"{text}.json"
    return parse_record(_read(path), str(path))


def save_record(record: TransportRecord, path: str | Path) -> Path:
    """Write the record as JSON to the file `path`, or to `<name>.json` in the folder `path`; returns the file.

    The write is atomic: the file is whole or, on any failure, as it was. Raises MesoionError where it fails.
    """
    target = Path(path)
    if target.is_dir():
        target = target / f"{record.name}.json"
    try:
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise MesoionError(f"{target}: cannot be written ({error}); choose a writable folder") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(dump_record(record))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, target)
    except OSError as error:
        raise MesoionError(f"{target}: could not be written ({error}); what stood there is intact") from None
    finally:
        Path(scratch).unlink(missing_ok=True)
    return target


def list_records(folder: str | Path | None = None) -> tuple[str, ...]:
    """Names of the shipped records, or of those in `folder`, sorted."""
    place = RECORDS_FOLDER if folder is None else Path(folder)
    return tuple(
        sorted(
            path.stem
            for path in place.glob("*.json")
            if path.name not in (MEASURED_FILE, MEASURED_CURRENTS_FILE)
        )
    )


def measured_conductivities(material: str | None = None) -> tuple[MeasuredConductivity, ...]:
    """Published measurements that predictions are compared with; of one material, or all."""
    path = RECORDS_FOLDER / MEASURED_FILE
    entries = _parse(_MeasuredFile, _read(path), str(path), "measured conductivities").conductivities
    return tuple(entry for entry in entries if material in (None, entry.material))


def measured_critical_currents(material: str | None = None) -> tuple[MeasuredCriticalCurrent, ...]:
    """Published critical current densities between lithium electrodes; of one material, or all."""
    path = RECORDS_FOLDER / MEASURED_CURRENTS_FILE
    entries = _parse(_MeasuredCurrentsFile, _read(path), str(path), "critical currents").critical_currents
    return tuple(entry for entry in entries if material in (None, entry.material))


def assumed_fields(record: TransportRecord) -> tuple[str, ...]:
    """Paths of the record's numbers whose source is an assumption, in the order of the fields."""

    def walk(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, (Quantity, PositiveQuantity)):
            if node.source.kind == "assumption":
                yield path
        elif isinstance(node, Arrhenius):
            for name in type(node).model_fields:
                yield from walk(getattr(node, name), f"{path}.{name}")
        elif isinstance(node, dict):
            for name, value in node.items():
                yield from walk(value, f"{path}.{name}")

    return tuple(found for name in type(record).model_fields for found in walk(getattr(record, name), name))


def records_table(temperature: float = 298.15) -> str:
    """The shipped records as a Markdown table: σ at `temperature` [K] with its 95 % interval, and what is assumed."""
    rows = [
        f"| record | origin | region | σ across at {temperature:g} K / S/cm (95 %) | E_a / eV "
        "| extrapolated | assumed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in list_records():
        record = load_record(name)
        sigma = record.conductivity(temperature)
        energy = record.law().activation_energy_eV
        assumed = ", ".join(f"`{path}`" for path in assumed_fields(record)) or "nothing"
        rows.append(
            f"| `{name}` | {record.origin} ({record.source.kind}) | {record.region} "
            f"| {sigma.value / 100:.2g} ({sigma.low / 100:.2g} to {sigma.high / 100:.2g}) "
            f"| {energy.value:.2f} ± {energy.standard_uncertainty:.2f} "
            f"| {'yes' if sigma.extrapolated else 'no'} | {assumed} |"
        )
    return "\n".join(rows) + "\n"
