"""A material at a temperature: its grain and its boundary layers as the continuum model needs them, from records.

Everything in `Phase` is SI. A boundary whose record gives no segregation energy is in equilibrium with the grain at
its own carrier density: then no space charge forms unless the record states a core charge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np

from mesoion.errors import InputError
from mesoion.transport import TransportRecord, load_record
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY

_NEUTRAL = 1e-9


@dataclass(frozen=True)
class Phase:
    """A grain or a boundary layer at one temperature, SI.

    temperature: T [K]. site_density: N [1/m³], sites open to Li⁺. reference_occupancy: θ_ref = c/N at which the
    conductivities hold. fixed_charge: n_fix [1/m³], signed number density of the framework's charges; a neutral
    grain has −N θ_ref. relative_permittivity: ε_r. conductivity_across, conductivity_along: σ⊥ and σ∥ [S/m] at
    θ_ref. standard_energy: μ° of Li⁺ [J] relative to the grain. width: of a boundary layer [m], None for a grain.
    mobility_law: how the mobility follows the occupancy; "vacancy" scales it with (1 − θ)/(1 − θ_ref), "dilute"
    keeps it. electronic_conductivity [S/m] and electron_density [1/m³]: of electrons in equilibrium with lithium
    metal where there is no space charge, hole_conductivity and hole_density likewise; zero where there are none.

    Raises InputError for values that are not finite or out of range, and for a grain that is not neutral.
    """

    name: str
    temperature: float
    site_density: float
    reference_occupancy: float
    fixed_charge: float
    relative_permittivity: float
    conductivity_across: float
    conductivity_along: float
    standard_energy: float
    width: float | None = None
    mobility_law: Literal["vacancy", "dilute"] = "vacancy"
    electronic_conductivity: float = 0.0
    electron_density: float = 0.0
    hole_conductivity: float = 0.0
    hole_density: float = 0.0

    def __post_init__(self) -> None:
        for key in (
            "temperature",
            "site_density",
            "relative_permittivity",
            "conductivity_across",
            "conductivity_along",
            "width",
        ):
            value = getattr(self, key)
            if not (value is None and key == "width") and not (_is_finite(value) and value > 0):
                raise InputError(f"{self.name}.{key}", value, "it must be positive and finite")
        for key in ("fixed_charge", "standard_energy"):
            if not _is_finite(getattr(self, key)):
                raise InputError(f"{self.name}.{key}", getattr(self, key), "it must be finite")
        for carrier in ("electron", "hole"):
            conductivity = "electronic_conductivity" if carrier == "electron" else "hole_conductivity"
            sigma, density = getattr(self, conductivity), getattr(self, f"{carrier}_density")
            if not (
                _is_finite(sigma) and sigma >= 0 and _is_finite(density) and (density > 0) == (sigma > 0)
            ):
                raise InputError(
                    f"{self.name}.{conductivity}, {carrier}_density",
                    (sigma, density),
                    "give both, positive and finite, or neither",
                )
        theta = self.reference_occupancy
        if not (_is_finite(theta) and 0 < theta < 1):
            raise InputError(
                f"{self.name}.reference_occupancy", theta, "an occupancy lies between 0 and 1, both excluded"
            )
        if self.mobility_law not in ("vacancy", "dilute"):
            raise InputError(f"{self.name}.mobility_law", self.mobility_law, 'give "vacancy" or "dilute"')
        carriers = self.carrier_density
        if self.width is None and abs(self.fixed_charge + carriers) > _NEUTRAL * carriers:
            raise InputError(
                f"{self.name}.fixed_charge",
                self.fixed_charge,
                f"a grain is neutral in its interior: give -site_density * reference_occupancy = {-carriers:g}",
            )

    @property
    def carrier_density(self) -> float:
        """c_ref = N θ_ref [1/m³]."""
        return self.site_density * self.reference_occupancy

    @property
    def charge_diffusivity_across(self) -> float:
        """D_σ⊥ = σ⊥ kT/(e²c_ref) [m²/s]."""
        return self.conductivity_across * self._diffusivity_per_conductivity

    @property
    def charge_diffusivity_along(self) -> float:
        """D_σ∥ = σ∥ kT/(e²c_ref) [m²/s]."""
        return self.conductivity_along * self._diffusivity_per_conductivity

    @property
    def debye_length(self) -> float:
        """λ = √(ε kT/(e² N θ(1 − θ))) [m], with site exclusion."""
        free = self.carrier_density * (1.0 - self.reference_occupancy)
        permittivity = VACUUM_PERMITTIVITY * self.relative_permittivity
        return math.sqrt(permittivity * BOLTZMANN * self.temperature / (ELEMENTARY_CHARGE**2 * free))

    @property
    def core_charge(self) -> float:
        """Charges per area of the layer [1/m²] on top of a layer that is neutral at θ_ref; zero in a grain."""
        return 0.0 if self.width is None else (self.fixed_charge + self.carrier_density) * self.width

    @property
    def _diffusivity_per_conductivity(self) -> float:
        return BOLTZMANN * self.temperature / (ELEMENTARY_CHARGE**2 * self.carrier_density)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def flat_band_energy(temperature: float, grain_occupancy: float, occupancy: float) -> float:
    """Standard energy [J] that keeps a region of `occupancy` in equilibrium with the grain without any potential.

    μ° = kT {ln[θ_b/(1 − θ_b)] − ln[θ/(1 − θ)]}, T in K.
    """
    odds = math.log(grain_occupancy / (1 - grain_occupancy)) - math.log(occupancy / (1 - occupancy))
    return BOLTZMANN * temperature * odds


def _record(what: TransportRecord | str | Path, where: str, region: str) -> TransportRecord:
    record = what if isinstance(what, TransportRecord) else load_record(what)
    if record.region != region:
        raise InputError(where, record.name, f"this is a {record.region} record; give a {region} record")
    return record


@dataclass(frozen=True)
class Material:
    """A bulk record and named boundary records.

    relative_permittivity replaces the records' value everywhere when given: ε_r decides whether a space charge
    exists at all, so studies scan it. mobility_law holds for every phase.
    """

    bulk: TransportRecord
    boundaries: Mapping[str, TransportRecord] = field(default_factory=dict)
    relative_permittivity: float | None = None
    mobility_law: Literal["vacancy", "dilute"] = "vacancy"

    @classmethod
    def from_records(
        cls,
        bulk: TransportRecord | str | Path,
        boundaries: Mapping[str, TransportRecord | str | Path] | None = None,
        *,
        relative_permittivity: float | None = None,
        mobility_law: Literal["vacancy", "dilute"] = "vacancy",
    ) -> Self:
        """A material from records or their names or paths; `boundaries` maps boundary types to boundary records.

        Raises InputError for a record of the wrong region, and whatever `load_record` raises.
        """
        loaded = {
            name: _record(what, f"boundaries.{name}", "boundary") for name, what in (boundaries or {}).items()
        }
        return cls(_record(bulk, "bulk", "bulk"), loaded, relative_permittivity, mobility_law)

    @property
    def name(self) -> str:
        """The material's name in its bulk record."""
        return self.bulk.material

    @property
    def boundary_names(self) -> tuple[str, ...]:
        """The boundary types, in the order given."""
        return tuple(self.boundaries)

    def grain(self, temperature: float) -> Phase:
        """The neutral grain interior at `temperature` [K]."""
        record = self.bulk
        return Phase(
            name="grain",
            temperature=temperature,
            site_density=record.site_density_per_m3.value,
            reference_occupancy=record.occupancy,
            fixed_charge=-record.site_density_per_m3.value * record.occupancy,
            relative_permittivity=self._permittivity(record),
            conductivity_across=record.conductivity(temperature, "across").value,
            conductivity_along=record.conductivity(temperature, "along").value,
            standard_energy=0.0,
            mobility_law=self.mobility_law,
            **self._electronic(temperature),
        )

    def boundary(self, temperature: float, name: str) -> Phase:
        """The boundary layer `name` at `temperature` [K].

        Its framework is neutral at the record's own carrier density plus the record's core charge over the width.
        Raises InputError for an unknown name.
        """
        if name not in self.boundaries:
            known = ", ".join(self.boundary_names) or "none"
            raise InputError("boundary", name, f"the boundaries of {self.name} are: {known}")
        record = self.boundaries[name]
        assert record.boundary_width_m is not None
        width = record.boundary_width_m.value
        core = record.core_charge_e_per_m2.value if record.core_charge_e_per_m2 is not None else 0.0
        if record.segregation_energy_eV is not None:
            energy = record.segregation_energy_eV.value * ELEMENTARY_CHARGE
        else:
            energy = flat_band_energy(temperature, self.bulk.occupancy, record.occupancy)
        return Phase(
            name=name,
            temperature=temperature,
            site_density=record.site_density_per_m3.value,
            reference_occupancy=record.occupancy,
            fixed_charge=-record.carrier_density_per_m3.value + core / width,
            relative_permittivity=self._permittivity(record),
            conductivity_across=record.conductivity(temperature, "across").value,
            conductivity_along=record.conductivity(temperature, "along").value,
            standard_energy=energy,
            width=width,
            mobility_law=self.mobility_law,
            **self._electronic(temperature, record),
        )

    def _electronic(self, temperature: float, boundary: TransportRecord | None = None) -> dict[str, float]:
        """Conductivity [S/m] and density [1/m³] of electrons and holes against lithium metal; {} without any.

        A boundary has the bulk's density times exp(−offset/kT) for electrons; its own conductivity, where given, then
        says what its mobility is. Holes of a boundary without a law of its own are those of the bulk.
        """
        values: dict[str, float] = {}
        mobility = self.bulk.electronic_mobility_m2_per_V_s
        for carrier, name in (("electronic", "electron"), ("hole", "hole")):
            law = getattr(self.bulk, f"{carrier}_transport")
            if law is None or mobility is None:
                continue
            sigma = math.exp(float(law.log_value(temperature)))
            density = sigma / (ELEMENTARY_CHARGE * mobility.value)
            if boundary is not None:
                offset = boundary.electronic_band_offset_eV
                if carrier == "electronic" and offset is not None:
                    factor = math.exp(-offset.value * ELEMENTARY_CHARGE / (BOLTZMANN * temperature))
                    sigma, density = sigma * factor, density * factor
                own = getattr(boundary, f"{carrier}_transport")
                sigma = sigma if own is None else math.exp(float(own.log_value(temperature)))
            values[f"{carrier}_conductivity"], values[f"{name}_density"] = sigma, density
        return values

    def sample(self, rng: np.random.Generator) -> Self:
        """The same material with every record's values drawn within their uncertainties."""
        drawn = {name: record.sample(rng) for name, record in self.boundaries.items()}
        return type(self)(self.bulk.sample(rng), drawn, self.relative_permittivity, self.mobility_law)

    def extrapolated(self, temperature: float) -> tuple[str, ...]:
        """Names of the records whose temperature range does not hold `temperature` [K]."""
        records = (self.bulk, *self.boundaries.values())
        return tuple(r.name for r in records if r.conductivity(temperature).extrapolated)

    def assumptions(self, temperature: float) -> tuple[str, ...]:
        """What a reader of a result at `temperature` [K] must know: extrapolations, and what the records leave open."""
        said: list[str] = []
        for record in (self.bulk, *self.boundaries.values()):
            said.extend(record.conductivity(temperature).warnings)
            if record.region == "bulk":
                continue
            if record.segregation_energy_eV is None:
                said.append(
                    f"{record.name} gives no segregation energy: in equilibrium with the grain as it is"
                )
            if record.core_charge_e_per_m2 is None:
                said.append(f"{record.name} gives no core charge: taken as zero")
            if record.relative_permittivity is None and self.relative_permittivity is None:
                said.append(f"{record.name} gives no relative permittivity: taken as the grain's")
        return tuple(dict.fromkeys(said))

    def _permittivity(self, record: TransportRecord) -> float:
        if self.relative_permittivity is not None:
            return self.relative_permittivity
        quantity = record.relative_permittivity or self.bulk.relative_permittivity
        assert quantity is not None
        return quantity.value
