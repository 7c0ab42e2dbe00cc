"""Numbers with uncertainty and source, and Arrhenius laws of one or two regimes made of them.

The building blocks of `mesoion.transport`, which hands them on. Temperatures are absolute, energies in eV, all else SI.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mesoion.errors import InputError
from mesoion.units import BOLTZMANN, BOLTZMANN_EV, ELEMENTARY_CHARGE

Floats = NDArray[np.float64]


class Locked(BaseModel):
    """A record that cannot change, knows all its keys and holds finite numbers of the stated types only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_max_length=4000
    )


class Source(Locked):
    """Where a number comes from, told at a glance by its kind."""

    kind: Literal["measured", "computed", "literature", "assumption"]
    text: str = Field(min_length=1)
    doi: str | None = Field(default=None, pattern=r"^10\.[0-9]{4,9}/[^\s]+$")


class Quantity(Locked):
    """A number of either sign, normally distributed about `value`."""

    value: float = Field(ge=-1e40, le=1e40)
    standard_uncertainty: float = Field(ge=0, le=1e40)
    source: Source

    def sample(self, rng: np.random.Generator) -> Self:
        """The same quantity with its value drawn from its distribution."""
        return self.model_copy(update={"value": self.value + self.standard_uncertainty * rng.normal()})


class EnergyBarrier(Quantity):
    """An activation energy, zero or positive; draws below zero become zero."""

    value: float = Field(ge=0, le=10)
    standard_uncertainty: float = Field(ge=0, le=5)

    def sample(self, rng: np.random.Generator) -> Self:
        """The same barrier with its value drawn from its distribution."""
        return self.with_draw(rng.normal())

    def with_draw(self, normal: float) -> Self:
        """The same barrier `normal` standard uncertainties away from its value, not below zero."""
        return self.model_copy(update={"value": max(0.0, self.value + self.standard_uncertainty * normal)})


class PositiveQuantity(Locked):
    """A positive number, log-normally distributed with median `value`.

    Its spread is given either as a standard uncertainty u (the relative one, u/value, is then that of ln value)
    or as a factor f ≥ 1, one standard uncertainty up or down: value·f and value/f.
    """

    value: float = Field(ge=1e-60, le=1e60)
    standard_uncertainty: float | None = Field(default=None, ge=0)
    uncertainty_factor: float | None = Field(default=None, ge=1, le=1e6)
    source: Source

    @model_validator(mode="after")
    def _one_spread(self) -> Self:
        if (self.standard_uncertainty is None) == (self.uncertainty_factor is None):
            raise ValueError("give either standard_uncertainty or uncertainty_factor")
        if self.standard_uncertainty is not None and self.standard_uncertainty > self.value:
            raise ValueError("standard_uncertainty exceeds the value; give an uncertainty_factor instead")
        return self

    @property
    def log_standard_uncertainty(self) -> float:
        """Standard uncertainty of ln value."""
        if self.uncertainty_factor is not None:
            return math.log(self.uncertainty_factor)
        assert self.standard_uncertainty is not None
        return self.standard_uncertainty / self.value

    def sample(self, rng: np.random.Generator) -> Self:
        """The same quantity with its value drawn from its distribution."""
        return self.with_draw(rng.normal())

    def with_draw(self, normal: float) -> Self:
        """The same quantity `normal` standard uncertainties (of its logarithm) away from its value."""
        value = self.value * math.exp(self.log_standard_uncertainty * normal)
        update: dict[str, float] = {"value": value}
        if self.standard_uncertainty is not None:
            update["standard_uncertainty"] = self.standard_uncertainty * value / self.value
        return self.model_copy(update=update)


class Arrhenius(Locked):
    """ln X = ln X_ref − E_a (β − β_ref), β = 1/k_BT; above a break temperature the slope changes, X does not."""

    activation_energy_eV: EnergyBarrier
    break_temperature_K: PositiveQuantity | None = None
    high_temperature_activation_energy_eV: EnergyBarrier | None = None
    correlation: float = Field(default=0.0, ge=-1, le=1)
    """Correlation of the logarithm of the prefactor (or anchor) with the activation energy."""

    @model_validator(mode="after")
    def _whole_second_regime(self) -> Self:
        if (self.break_temperature_K is None) != (self.high_temperature_activation_energy_eV is None):
            raise ValueError(
                "a second regime needs both break_temperature_K and high_temperature_activation_energy_eV"
            )
        return self

    @property
    def _prefactor_name(self) -> str:
        raise AssertionError("an Arrhenius law names its prefactor")

    @property
    def _prefactor(self) -> PositiveQuantity:
        quantity = getattr(self, self._prefactor_name)
        assert isinstance(quantity, PositiveQuantity)
        return quantity

    @property
    def _reference_beta(self) -> float:
        return 0.0

    def _log_power(self, temperature: Floats) -> Floats:
        return np.zeros_like(temperature)

    def _gradient(self, temperature: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """d ln X / d (ln prefactor, E_a, E_a above the break, ln T_break)."""
        beta = 1.0 / (BOLTZMANN_EV * temperature)
        low, high, at_break = beta - self._reference_beta, np.zeros_like(beta), np.zeros_like(beta)
        if self.break_temperature_K is not None and self.high_temperature_activation_energy_eV is not None:
            beta_break = 1.0 / (BOLTZMANN_EV * self.break_temperature_K.value)
            above = np.minimum(beta - beta_break, 0.0)
            high, low = -above, low - above
            change = self.high_temperature_activation_energy_eV.value - self.activation_energy_eV.value
            at_break = np.where(above < 0, -change * beta_break, 0.0)
            return np.ones_like(beta), -low, high, at_break
        return np.ones_like(beta), -low, high, at_break

    def log_value(self, temperature: ArrayLike) -> Floats:
        """ln of the law's value (SI) at `temperature` [K], any shape. Raises InputError for T outside (0, 1e5]."""
        kelvin = checked_temperature(temperature)
        _, low, high, _ = self._gradient(kelvin)
        energy_above = self.high_temperature_activation_energy_eV
        log = (
            math.log(self._prefactor.value) + self._log_power(kelvin) + self.activation_energy_eV.value * low
        )
        return log if energy_above is None else log + energy_above.value * high

    def value(self, temperature: ArrayLike) -> Floats:
        """The law's value (SI) at `temperature` [K], any shape."""
        return np.exp(self.log_value(temperature))

    def log_standard_uncertainty(self, temperature: ArrayLike) -> Floats:
        """Standard uncertainty of `log_value`, by linear propagation with the stated correlation."""
        kelvin = checked_temperature(temperature)
        g_prefactor, g_low, g_high, g_break = self._gradient(kelvin)
        prefactor = g_prefactor * self._prefactor.log_standard_uncertainty
        low = g_low * self.activation_energy_eV.standard_uncertainty
        variance = prefactor**2 + low**2 + 2.0 * self.correlation * prefactor * low
        if self.break_temperature_K is not None and self.high_temperature_activation_energy_eV is not None:
            variance = (
                variance + (g_high * self.high_temperature_activation_energy_eV.standard_uncertainty) ** 2
            )
            variance = variance + (g_break * self.break_temperature_K.log_standard_uncertainty) ** 2
        return np.sqrt(np.maximum(variance, 0.0))

    def sample(self, rng: np.random.Generator) -> Self:
        """The same law with its parameters drawn: prefactor log-normal, energies normal, correlated."""
        first, second = rng.normal(size=2)
        second = self.correlation * first + math.sqrt(1.0 - self.correlation**2) * second
        update: dict[str, Any] = {
            self._prefactor_name: self._prefactor.with_draw(first),
            "activation_energy_eV": self.activation_energy_eV.with_draw(second),
        }
        if self.break_temperature_K is not None and self.high_temperature_activation_energy_eV is not None:
            update["break_temperature_K"] = self.break_temperature_K.sample(rng)
            update["high_temperature_activation_energy_eV"] = (
                self.high_temperature_activation_energy_eV.sample(rng)
            )
        return self.model_copy(update=update)

    def segments(self) -> Iterator[tuple[float, float, float, float]]:
        """(T_low, T_high, intercept, E_a) of each straight piece: ln X + power of T = intercept − E_a/k_BT."""
        energy = self.activation_energy_eV.value
        intercept = math.log(self._prefactor.value) + energy * self._reference_beta
        intercept += float(self._log_power(np.ones(())))
        above = self.high_temperature_activation_energy_eV
        if self.break_temperature_K is None or above is None:
            yield 0.0, math.inf, intercept, energy
            return
        t_break = self.break_temperature_K.value
        yield 0.0, t_break, intercept, energy
        yield t_break, math.inf, intercept - (energy - above.value) / (BOLTZMANN_EV * t_break), above.value


class DiffusivityArrhenius(Arrhenius):
    """Tracer diffusivity D* = D₀ exp(−E_a/k_BT); D₀ and E_a are those of the regime below the break."""

    law: Literal["diffusivity"]
    D0_m2_per_s: PositiveQuantity

    @property
    def _prefactor_name(self) -> str:
        return "D0_m2_per_s"


class ConductivityArrhenius(Arrhenius):
    """Conductivity anchored at a reference temperature T_r (below the break).

    form "sigma": σ = σ_r exp[−E_a (1/k_BT − 1/k_BT_r)]; form "sigma T": the same for the product σT.
    """

    law: Literal["conductivity"]
    form: Literal["sigma", "sigma T"]
    conductivity_S_per_m: PositiveQuantity
    reference_temperature_K: float = Field(ge=1, le=5000)

    @model_validator(mode="after")
    def _anchored_below_the_break(self) -> Self:
        if self.break_temperature_K is not None and (
            self.break_temperature_K.value <= self.reference_temperature_K
        ):
            raise ValueError("break_temperature_K must lie above reference_temperature_K")
        return self

    @property
    def _prefactor_name(self) -> str:
        return "conductivity_S_per_m"

    @property
    def _reference_beta(self) -> float:
        return 1.0 / (BOLTZMANN_EV * self.reference_temperature_K)

    def _log_power(self, temperature: Floats) -> Floats:
        if self.form == "sigma":
            return np.zeros_like(temperature)
        return np.log(self.reference_temperature_K / temperature)


TransportLaw = Annotated[DiffusivityArrhenius | ConductivityArrhenius, Field(discriminator="law")]


def checked_temperature(temperature: ArrayLike) -> Floats:
    """`temperature` [K] as an array; raises InputError outside (0, 1e5]."""
    try:
        kelvin = np.asarray(temperature, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("temperature", temperature, "give numbers in kelvin") from None
    if not (np.all(np.isfinite(kelvin)) and np.all((kelvin > 0) & (kelvin <= 1e5))):
        raise InputError("temperature", temperature, "give absolute temperatures above 0 and up to 1e5 K")
    return kelvin


def nernst_einstein(
    diffusivity: ArrayLike,
    carrier_density: ArrayLike,
    temperature: ArrayLike,
    haven_ratio: ArrayLike = 1.0,
    charge_number: int = 1,
) -> Floats:
    """σ = z²e²cD*/(H_R k_BT) [S/m] from tracer diffusivity [m²/s], carriers [1/m³] and temperature [K]."""
    kelvin = checked_temperature(temperature)
    charge = charge_number * ELEMENTARY_CHARGE
    conductivity = charge**2 * np.asarray(carrier_density) * np.asarray(diffusivity)
    return np.asarray(conductivity / (np.asarray(haven_ratio) * BOLTZMANN * kelvin), dtype=np.float64)


def number_density(per_formula_unit: float, formula_units_per_cell: int, lattice_parameter: float) -> float:
    """Atoms (or sites) per volume [1/m³] of a cubic cell of edge `lattice_parameter` [m]."""
    return per_formula_unit * formula_units_per_cell / lattice_parameter**3


def crossover_temperatures(
    first: DiffusivityArrhenius | ConductivityArrhenius, second: DiffusivityArrhenius | ConductivityArrhenius
) -> tuple[float, ...]:
    """Temperatures [K] at which two laws of the same kind are equal, ascending; exact.

    For one regime each: T = (E_a1 − E_a2)/(k_B ln(X₀1/X₀2)). Two regimes can cross more than once; laws that
    never cross, or are equal everywhere, give none. Raises InputError for laws of different kinds.
    """
    kinds = [(law.law, getattr(law, "form", None)) for law in (first, second)]
    if kinds[0] != kinds[1]:
        raise InputError("crossover_temperatures", kinds, "give two laws of the same kind and form")
    found: set[float] = set()
    for low_a, high_a, intercept_a, energy_a in first.segments():
        for low_b, high_b, intercept_b, energy_b in second.segments():
            if energy_a == energy_b or intercept_a == intercept_b:
                continue
            crossing = (energy_a - energy_b) / (BOLTZMANN_EV * (intercept_a - intercept_b))
            if max(low_a, low_b) < crossing <= min(high_a, high_b):
                found.add(crossing)
    return tuple(sorted(found))
