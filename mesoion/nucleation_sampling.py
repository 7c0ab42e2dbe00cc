"""Critical current densities of a pellet over the assumed ranges: intervals, sensitivity, ordering of materials.

A `PelletCase` turns parameter values into critical currents, thousands of samples at once:

    eta at a site = i_ion (R/c + g d/sigma_b)          `mesoion.critical_current`, g of the collapsed polycrystal
    eta required  = the site's threshold, or what the assumed barrier takes          `mesoion.nucleation`
    i             = i_ion (1 + lambda)                  lambda: share that electrons carry on top, Wagner's pellet

"electrons" is no site of metal: there electrons carry as much current as ions and the cell is short without any.
Every parameter is a `Parameter` with its distribution and source; a sample is a row of the unit cube.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from mesoion.bicrystal import solve_bicrystal
from mesoion.critical_current import (
    Constriction,
    Kinetics,
    critical_current_density,
    interfacial_overpotential,
)
from mesoion.errors import InputError, NoElectronsError
from mesoion.material import Material
from mesoion.nucleation import (
    Site,
    overpotential_for_barrier,
    room,
    shape_factor,
    threshold_overpotential,
)
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

Floats = NDArray[np.float64]
Criterion = Literal["stable", "barrier"]
CRITERIA: tuple[Criterion, ...] = ("stable", "barrier")
METAL_SITES: tuple[Site, ...] = ("boundary", "junction", "wall")
SITE_WORDS = {"boundary": "boundary", "junction": "junction", "wall": "pore", "electrons": "electronic short"}
_CORE_POINTS = 5
_EDGE = 1e-12


@dataclass(frozen=True)
class Parameter:
    """An uncertain input: `quantile` maps a share of (0, 1) to its value [unit, SI].

    source says where it comes from; assumed, that no source gives it.
    """

    name: str
    unit: str
    quantile: Callable[[Floats], Floats]
    source: str
    assumed: bool

    @property
    def nominal(self) -> float:
        """Its median."""
        return float(self.quantile(np.array(0.5)))

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        low, high = self.quantile(np.array([0.025, 0.975]))
        return float(low), float(high)


def between(
    name: str, unit: str, low: float, high: float, source: str, *, log: bool, assumed: bool
) -> Parameter:
    """A parameter uniform in its value, or in its logarithm, from low to high."""
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (log and low <= 0):
        raise InputError(name, (low, high), "low must not exceed high, and both be positive in logarithms")

    def quantile(u: Floats) -> Floats:
        if log:
            return np.asarray(low * (high / low) ** np.asarray(u))
        return np.asarray(low + (high - low) * np.asarray(u))

    return Parameter(name, unit, quantile, source, assumed)


def normal(name: str, unit: str, spread: float, source: str, *, assumed: bool) -> Parameter:
    """A shift, normal about zero with the standard deviation `spread`."""

    def quantile(u: Floats) -> Floats:
        return np.asarray(spread * ndtri(np.clip(u, _EDGE, 1 - _EDGE)))

    return Parameter(name, unit, quantile, source, assumed)


def draws(parameters: Sequence[Parameter], unit_cube: Floats) -> dict[str, Floats]:
    """Values of every parameter at points (n, p) of the unit cube, each (n,)."""
    return {p.name: p.quantile(unit_cube[:, j]) for j, p in enumerate(parameters)}


@dataclass(frozen=True)
class PelletCase:
    """A pellet of one material between lithium electrodes.

    material: records of the grain and the boundary types, with electrons. fractions: of the boundary length by type.
    grain_size, thickness [m]. core_charge: most charges per area [1/m²] that the boundaries may carry beyond their
    records' (0 to that is sampled). reference_temperature [K]: of the interfacial resistance.
    """

    name: str
    material: Material
    fractions: Mapping[str, float]
    grain_size: float
    thickness: float
    constriction: Constriction
    core_charge: float = 0.0
    kinetics: Kinetics = "linear"
    reference_temperature: float = 298.15
    _space_charge: dict[float, tuple[Floats, Floats, Floats]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def parameters(self) -> list[Parameter]:
        """What the records leave open: of this case's boundaries alone."""
        records = self.material.boundaries.values()
        spread = max(r.conductivity(self.reference_temperature).log_standard_uncertainty for r in records)
        offsets = [r.electronic_band_offset_eV for r in records]
        offset = max((o.standard_uncertainty for o in offsets if o is not None), default=0.0)
        names = ", ".join(r.name for r in records)
        found = [
            normal("boundary conductivity", "ln", spread, f"records {names}", assumed=False),
            normal(
                "band offset",
                "J",
                offset * ELEMENTARY_CHARGE,
                f"records {names}: electronic_band_offset_eV",
                assumed=True,
            ),
        ]
        if self.core_charge > 0:
            found.append(
                between(
                    "core charge",
                    "1/m^2",
                    0.0,
                    self.core_charge,
                    f"study, case {self.name}",
                    log=False,
                    assumed=True,
                )
            )
        return found

    def boundary_numbers(
        self, values: Mapping[str, Floats], temperature: float, grain_size: ArrayLike
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """rho, beta, width [m], grain conductivity [S/m]: averages over the boundary types, at every sample.

        Resistances and sheet conductances are averaged over the length, as many boundaries share a field.
        Raises NoElectronsError where the grain's record has no electrons.
        """
        grain = self.material.grain(temperature)
        if not grain.electronic_conductivity > 0:
            raise NoElectronsError(f"record {self.material.bulk.name!r}")
        thermal = BOLTZMANN * temperature
        sigma = grain.conductivity_across * np.exp(values["grain conductivity"])
        total = sum(self.fractions.values())
        zero = np.zeros_like(sigma)
        resistance, sheet, width = zero, zero, zero
        for name, fraction in self.fractions.items():
            layer = self.material.boundary(temperature, name)
            assert layer.width is not None
            share = fraction / total
            own = layer.conductivity_across * np.exp(values["boundary conductivity"])
            resistance = resistance + share * layer.width * (1.0 / own - 1.0 / sigma)
            ratio = layer.electronic_conductivity / grain.electronic_conductivity
            sheet = sheet + share * layer.width * (ratio * np.exp(-values["band offset"] / thermal) - 1.0)
            width = width + share * layer.width
        if "core charge" in values:
            charge, more_r, more_s = self._charged(temperature)
            resistance = resistance + np.interp(values["core charge"], charge, more_r)
            sheet = sheet + np.interp(values["core charge"], charge, more_s)
        d = np.asarray(grain_size, dtype=float)
        return resistance * sigma / d, sheet / d, width, sigma

    def _charged(self, temperature: float) -> tuple[Floats, Floats, Floats]:
        """What the space charge of a core charge adds to r [ohm m²] and to s_e/sigma_e [m], by resolved boundaries."""
        if temperature not in self._space_charge:
            grain = self.material.grain(temperature)
            charge = np.linspace(0.0, self.core_charge, _CORE_POINTS)
            r, s = np.zeros(_CORE_POINTS), np.zeros(_CORE_POINTS)
            total = sum(self.fractions.values())
            thermal = BOLTZMANN * temperature / ELEMENTARY_CHARGE
            for name, fraction in self.fractions.items():
                layer = self.material.boundary(temperature, name)
                for j, q in enumerate(charge):
                    line = solve_bicrystal(grain, layer, core_charge=float(q))
                    inside = layer.electronic_conductivity / grain.electronic_conductivity
                    electrons = np.where(line.in_layer, inside, 1.0) * np.exp(line.potential / thermal)
                    r[j] += fraction / total * line.excess_resistance
                    s[j] += fraction / total * float((electrons - 1.0) @ line.mesh.volumes)
            self._space_charge[temperature] = (charge, r - r[0], s - s[0])
        return self._space_charge[temperature]

    def required(
        self, values: Mapping[str, Floats], site: Site, criterion: Criterion, width: Floats
    ) -> Floats:
        """Overpotential [V] at which metal is stable at the site, or also crosses the assumed barrier.

        In boundaries and junctions cos psi = gamma_gb/(2 gamma), at most 1; on a pore's wall the contact angle counts.
        """
        gamma, elastic = values["surface energy"], values["elastic energy"]
        size = values["pore diameter"] if site == "wall" else width
        fits = threshold_overpotential(gamma, room(site, size), elastic)
        if criterion == "stable":
            return fits
        if site == "wall":
            angle = values["contact angle"]
        else:
            angle = np.arccos(np.clip(values["boundary energy"] / (2.0 * gamma), -1.0, 1.0))
        crosses = overpotential_for_barrier(values["barrier"], gamma, shape_factor(site, angle), elastic)
        return np.asarray(np.maximum(fits, crosses))

    def critical_currents(
        self,
        values: Mapping[str, Floats],
        temperature: float,
        grain_size: ArrayLike | None = None,
        sites: Sequence[Site] = METAL_SITES,
    ) -> dict[tuple[Criterion, str], Floats]:
        """i [A/m²], electrons included, by (criterion, site), with "electrons" and "first", the least of all of them.

        inf where electrons short the cell before the site is reached: the dilute law of electrons ends there.
        values: of `draws`, each (n,). grain_size: instead of the case's own times the parameter "grain size".
        Raises NoElectronsError.
        """
        line = self._line(values, temperature, grain_size)
        half = line.ionic(np.maximum(line.thermal * np.log(line.conductivity / line.electronic), 1e-6), 0.0)
        short = line.total(half)
        found: dict[tuple[Criterion, str], Floats] = {}
        for criterion in CRITERIA:
            for site in sites:
                ionic = line.ionic(
                    self.required(values, site, criterion, line.width), self._local(line, site)
                )
                found[criterion, site] = np.where(ionic < half, line.total(np.minimum(ionic, half)), np.inf)
            found[criterion, "electrons"] = short
            found[criterion, "first"] = np.min([found[criterion, s] for s in (*sites, "electrons")], axis=0)
        return found

    def ionic_critical_current(
        self, values: Mapping[str, Floats], temperature: float, site: Site, criterion: Criterion
    ) -> Floats:
        """What ions alone carry [A/m²] at the critical current of a site, however much electrons carry beside them."""
        line = self._line(values, temperature, None)
        return line.ionic(self.required(values, site, criterion, line.width), self._local(line, site))

    def _local(self, line: _Line, site: Site) -> Floats:
        """G = g d/sigma of the site [ohm m²]."""
        g = self.constriction("junction" if site == "junction" else "boundary", line.rho, line.beta)
        return np.asarray(g * line.grain_size / line.grain_conductivity)

    def _line(self, values: Mapping[str, Floats], temperature: float, grain_size: ArrayLike | None) -> _Line:
        d = np.asarray(
            self.grain_size * values["grain size"] if grain_size is None else grain_size, dtype=float
        )
        rho, beta, width, sigma = self.boundary_numbers(values, temperature, d)
        t0 = self.reference_temperature
        contact = values["interfacial resistance"] * np.exp(
            values["interfacial activation energy"] / BOLTZMANN * (1.0 / temperature - 1.0 / t0)
        )
        electronic = self.material.grain(temperature).electronic_conductivity * np.exp(
            values["electronic conductivity"]
        )
        return _Line(
            grain_size=d,
            grain_conductivity=sigma,
            rho=rho,
            beta=beta,
            width=width,
            # The mean field is i/sigma_eff: grains and boundaries in series for ions, side by side for electrons.
            conductivity=np.asarray(sigma / (1.0 + np.maximum(rho, 0.0))),
            electronic=np.asarray(electronic * (1.0 + np.maximum(beta, 0.0))),
            contact=np.asarray(contact),
            contact_fraction=values["contact fraction"],
            thickness=self.thickness,
            temperature=temperature,
            kinetics=self.kinetics,
        )

    def with_grain_size(self, grain_size: float) -> PelletCase:
        """The same case with other grains [m]."""
        return replace(self, grain_size=grain_size)


@dataclass(frozen=True)
class _Line:
    """A pellet's numbers at every sample, and its current as a function of the overpotential somewhere inside."""

    grain_size: Floats
    grain_conductivity: Floats
    rho: Floats
    beta: Floats
    width: Floats
    conductivity: Floats
    electronic: Floats
    contact: Floats
    contact_fraction: Floats
    thickness: float
    temperature: float
    kinetics: Kinetics

    @property
    def thermal(self) -> float:
        return BOLTZMANN * self.temperature / ELEMENTARY_CHARGE

    def ionic(self, required: Floats, local_resistance: ArrayLike) -> Floats:
        return critical_current_density(
            required,
            interfacial_resistance=self.contact,
            local_resistance=local_resistance,
            temperature=self.temperature,
            contact_fraction=self.contact_fraction,
            kinetics=self.kinetics,
        )

    def total(self, ionic: Floats) -> Floats:
        surface = interfacial_overpotential(
            ionic,
            self.contact,
            self.temperature,
            contact_fraction=self.contact_fraction,
            kinetics=self.kinetics,
        )
        share = electron_share(
            ionic, surface, self.thickness, self.conductivity, self.electronic, self.temperature
        )
        return np.asarray(ionic * (1.0 + share))


def electron_share(
    ionic_current_density: ArrayLike,
    surface_overpotential: ArrayLike,
    thickness: ArrayLike,
    ionic_conductivity: ArrayLike,
    electronic_conductivity: ArrayLike,
    temperature: ArrayLike,
) -> Floats:
    """i_e/i_ion of a uniform mixed conductor between two lithium electrodes, electrons following exp(e eta/kT).

    surface_overpotential u [V]: eta at the plating face, -eta at the stripping one (both interfaces alike).
    With v = e i_ion L/(sigma kT): i_e/i_ion = (sigma_e/sigma) (exp(eu/kT) - exp(-eu/kT - v))/(1 - exp(-v)), the
    uniform case of `mesoion.wagner.mixed_conduction` (exact). sigma_e against lithium metal.
    """
    thermal = BOLTZMANN * np.asarray(temperature, dtype=float) / ELEMENTARY_CHARGE
    u = np.minimum(np.asarray(surface_overpotential, dtype=float) / thermal, 600.0)
    v = (
        np.asarray(ionic_current_density, dtype=float)
        * np.asarray(thickness)
        / np.asarray(ionic_conductivity)
        / thermal
    )
    # Without any current there is no field: the diffusion of electrons is then all there is, exp(u) - exp(-u) over v.
    v = np.maximum(v, 1e-12)
    ratio = np.asarray(electronic_conductivity, dtype=float) / np.asarray(ionic_conductivity, dtype=float)
    return np.asarray(ratio * (np.exp(u) - np.exp(-u - v)) / -np.expm1(-v))


@dataclass(frozen=True)
class Sensitivity:
    """Sobol indices of ln i: share of its variance by one parameter alone (first) and with all others (total).

    first_error, total_error: half widths of their 95 % intervals.
    """

    names: tuple[str, ...]
    first: Floats
    first_error: Floats
    total: Floats
    total_error: Floats


def sobol_indices(
    parameters: Sequence[Parameter], model: Callable[[dict[str, Floats]], Floats], samples: int, seed: int
) -> Sensitivity:
    """Sobol indices (Saltelli's design, SALib) of a model over independent parameters.

    model: values of `draws` to (n,). samples: base samples, a power of 2; samples (p + 2) evaluations.
    Raises InputError for another number of samples.
    """
    from SALib.analyze import sobol as analysis
    from SALib.sample import sobol as design

    if samples < 8 or samples & (samples - 1):
        raise InputError("samples", samples, "Sobol sequences need a power of 2, 8 or more")
    problem = {
        "num_vars": len(parameters),
        "names": [p.name for p in parameters],
        "bounds": [[0.0, 1.0]] * len(parameters),
    }
    points = design.sample(problem, samples, calc_second_order=False, seed=seed)
    output = np.asarray(model(draws(parameters, np.clip(points, _EDGE, 1 - _EDGE))))
    # Centred: the estimator squares the values, and a common offset only costs digits.
    found = analysis.analyze(problem, output - output.mean(), calc_second_order=False, seed=seed)
    return Sensitivity(
        tuple(p.name for p in parameters),
        *(np.asarray(found[key], dtype=float) for key in ("S1", "S1_conf", "ST", "ST_conf")),
    )


def interval(values: Floats) -> tuple[float, float, float]:
    """Median and the bounds of the central 95 % of samples, which may be infinite."""
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], method="inverted_cdf")
    return float(middle), float(low), float(high)
