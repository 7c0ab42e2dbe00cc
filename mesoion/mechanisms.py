"""A pellet to reconcile, and the mechanisms that may close the gap between its records and what was measured of it.

Each mechanism adds one or two parameters q and gives the apparent boundary resistivity of pellets with a layer
conductivity σ_gb = σ_record e^a and a grain size d, 1/σ_app = 1/σ_t − 1/σ_b. σ_t comes from the polycrystal of
`mesoion.mixed_boundaries`, space charge from `mesoion.bicrystal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator, RegularGridInterpolator

from mesoion.bicrystal import Bicrystal, solve_bicrystal
from mesoion.errors import InputError
from mesoion.material import Material, Phase
from mesoion.mixed_boundaries import BLOCKING, OPEN, PolycrystalModel
from mesoion.units import BOLTZMANN_EV, VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

NANO = 1e-9
BLOCKED = 1e-9
"""Conductivity of a blocking layer over that of the grain."""
MOST_CONDUCTIVE = 10.0
"""Layers above this multiple of the grain's conductivity add no resistance; they are taken at it."""
LEAST_EXCESS, LARGEST_EXCESS = -0.01, 1e6
"""r σ_b/d below which there is certainly no arc, and above which a facet blocks for good."""
SMALL_RESISTANCE, MOST_RESISTANCE = 1e-12, 1e9
"""Resistances of a facet [ohm m²] that no pellet shows, and above which none lets a current through."""
SPREAD = 5.0
"""Prior deviations that the grids reach to either side."""
BULK_POINTS = 3
"""Gauss-Hermite points over a measured bulk conductivity, known to some per cent."""
CHARGED_POINTS = (33, 15)
"""Core charges and permittivities solved for; between them the resistances are splines in the logarithms."""


@dataclass(frozen=True)
class ParameterPrior:
    """Prior of one parameter of a mechanism, in its own `unit` of speech.

    shape: "log" flat in the logarithm and "flat" flat in the value, from low to high; "normal": low and high are its
    95 % limits. plausible: interval that the literature makes plausible; plausible_source: on what ground.
    """

    name: str
    unit: str
    shape: Literal["log", "flat", "normal"]
    low: float
    high: float
    plausible: tuple[float, float]
    plausible_source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"{self.name}.prior", (self.low, self.high), "two finite numbers, low below high"
            )
        if self.shape == "log" and self.low <= 0:
            raise InputError(f"{self.name}.prior", self.low, "above zero for a prior flat in the logarithm")

    def grid(self, points: int) -> tuple[Floats, Floats]:
        """Values (points,) and their prior weights, which sum to 1 (trapezoidal rule)."""
        if self.shape == "log":
            values = np.geomspace(self.low, self.high, points)
            density = np.ones(points)
        elif self.shape == "flat":
            values = np.linspace(self.low, self.high, points)
            density = np.ones(points)
        else:
            middle, deviation = 0.5 * (self.low + self.high), (self.high - self.low) / (2 * 1.959964)
            values = middle + deviation * np.linspace(-SPREAD, SPREAD, points)
            density = np.exp(-0.5 * np.linspace(-SPREAD, SPREAD, points) ** 2)
        density[[0, -1]] *= 0.5
        return values, density / density.sum()

    def within_cell(self, value: float, points: int, share: float) -> float:
        """The value moved by `share` of the spacing of `grid(points)`; reflected at the ends of flat priors."""
        if self.shape == "normal":
            return value + share * 2 * SPREAD / (points - 1) * (self.high - self.low) / (2 * 1.959964)
        if self.shape == "log":
            low, high, x = math.log(self.low), math.log(self.high), math.log(value)
        else:
            low, high, x = self.low, self.high, value
        x += share * (high - low) / (points - 1)
        x = 2 * low - x if x < low else 2 * high - x if x > high else x
        return math.exp(x) if self.shape == "log" else x


@dataclass(frozen=True)
class MeasuredBulk:
    """Bulk conductivity [S/m] from the same spectrum as the boundary's, in place of the record's.

    covariance: ((C_bb, C_ba), (C_ba, C_aa)) of ln σ_b and ln σ_gb,app, geometry included.
    """

    conductivity: float
    covariance: tuple[tuple[float, float], tuple[float, float]]

    def __post_init__(self) -> None:
        (bulk, both), (_, apparent) = self.covariance
        if not (self.conductivity > 0 and bulk > 0 and apparent * bulk > both**2):
            raise InputError(
                "measured_bulk", self, "a conductivity above zero and a positive definite covariance"
            )

    def nodes(self) -> list[tuple[float, float, float]]:
        """(deviation of ln σ_b, that of the datum ln σ_gb,app given it, weight): Gauss-Hermite."""
        (bulk, both), _ = self.covariance
        x, weight = np.polynomial.hermite_e.hermegauss(BULK_POINTS)
        root = math.sqrt(bulk)
        return [
            (root * z, both / root * z, w)
            for z, w in zip(x.tolist(), (weight / weight.sum()).tolist(), strict=True)
        ]

    @property
    def remaining_factor(self) -> float:
        """e^s of ln σ_gb,app once ln σ_b is known."""
        (bulk, both), (_, apparent) = self.covariance
        return math.exp(math.sqrt(apparent - both**2 / bulk))


@dataclass(frozen=True)
class Case:
    """A pellet to reconcile at one temperature [K]: records, boundary type, grain size [m], measured resistivity.

    measured_apparent [S/m] with measured_factor (one standard deviation of its logarithm, e^s) and its source.
    grain_size_factor: likewise. bulk_factor: on the record's bulk conductivity; measured_bulk: from the same spectrum.
    """

    name: str
    material: Material
    boundary: str
    polycrystal: PolycrystalModel
    temperature: float
    grain_size: float
    grain_size_factor: float
    measured_apparent: float
    measured_factor: float
    source: str
    bulk_factor: float = 1.0
    measured_bulk: MeasuredBulk | None = None

    def __post_init__(self) -> None:
        for key in ("grain_size_factor", "measured_factor"):
            if not 1 < getattr(self, key) <= 100:
                raise InputError(f"{self.name}.{key}", getattr(self, key), "a factor above 1, up to 100")

    @cached_property
    def grain(self) -> Phase:
        """The grain at the case's temperature."""
        grain = self.material.grain(self.temperature)
        return replace(
            grain,
            conductivity_across=grain.conductivity_across * self.bulk_factor,
            conductivity_along=grain.conductivity_along * self.bulk_factor,
        )

    @cached_property
    def layer(self) -> Phase:
        """The boundary layer as the record has it."""
        return self.material.boundary(self.temperature, self.boundary)

    @property
    def width(self) -> float:
        """Of the layer [m]."""
        assert self.layer.width is not None
        return self.layer.width

    @cached_property
    def record_spread(self) -> float:
        """Standard deviation of ln(w/σ_gb) that the record leaves."""
        record = self.material.boundaries[self.boundary]
        assert record.boundary_width_m is not None
        of_conductivity = record.conductivity(self.temperature).log_standard_uncertainty
        return math.hypot(of_conductivity, record.boundary_width_m.log_standard_uncertainty)

    def energies(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(E_a, its standard uncertainty) [eV] of grain and boundary."""
        found = []
        for record in (self.material.bulk, self.material.boundaries[self.boundary]):
            energy = record.law("across").activation_energy_eV
            found.append((energy.value, energy.standard_uncertainty))
        return found[0], found[1]

    def at(self, temperature: float) -> Case:
        """The same pellet at another temperature [K]."""
        return replace(self, temperature=temperature)

    def nuisance(self, points: tuple[int, int], spread: float) -> tuple[Floats, Floats, Floats]:
        """a = ln(σ_gb/record) and ln(d/given) on their grid (k,), with prior weights (k,)."""
        x, y = (np.linspace(-spread, spread, n) for n in points)
        weight = np.exp(-0.5 * (x[:, None] ** 2 + y[None] ** 2))
        a, d = np.meshgrid(x * self.record_spread, y * math.log(self.grain_size_factor), indexing="ij")
        return a.ravel(), d.ravel(), (weight / weight.sum()).ravel()

    def own_resistance(self, a: Floats) -> Floats:
        """Excess resistance of the layer itself [ohm m²], w/σ_gb − w/σ_b."""
        sigma = np.minimum(self.layer.conductivity_across * np.exp(a), MOST_CONDUCTIVE * self._bulk)
        return np.asarray(self.width * (1 / sigma - 1 / self._bulk))

    def own_sheet(self, a: Floats) -> Floats:
        """Excess sheet conductance of the layer [S]."""
        sigma = np.minimum(self.layer.conductivity_along * np.exp(a), MOST_CONDUCTIVE * self._bulk)
        return np.asarray(self.width * (sigma - self._bulk))

    @property
    def _bulk(self) -> float:
        return self.grain.conductivity_across

    def apparent_resistivity(
        self, resistance: Floats, sheet: Floats, grain_size: Floats, blocking_fraction: float = 0.0
    ) -> Floats:
        """1/σ_app [ohm m] of pellets with facets of excess `resistance` [ohm m²] and `sheet` [S]; arrays broadcast."""
        r, s, d = np.broadcast_arrays(resistance, sheet, grain_size)
        excess = np.clip(r.ravel() * self._bulk / d.ravel(), LEAST_EXCESS, LARGEST_EXCESS)
        sheets = s.ravel() / (self._bulk * d.ravel())
        blocked = np.minimum(self.width / (BLOCKED * d.ravel()), LARGEST_EXCESS)
        total = self.polycrystal.effective_admittivity(
            np.ones(excess.size),
            {OPEN: excess, BLOCKING: blocked},
            {OPEN: sheets, BLOCKING: -self.width / d.ravel()},
            1.0,
            blocking_fraction,
        ).real
        return np.asarray(((1 / total - 1) / self._bulk).reshape(r.shape))


@dataclass(frozen=True)
class Facets:
    """Excess of open facets at frequencies (m,): resistance [ohm m²], sheet [S]; and the share that blocks."""

    resistance: Complexes
    sheet: Complexes
    blocking_fraction: float = 0.0


Resistivity = Callable[[Case, Floats, Floats, Sequence[Floats]], Floats]
FacetsOf = Callable[["Draw", Sequence[float], Floats], Facets]


@dataclass(frozen=True)
class Draw:
    """One pellet of the posterior at a temperature: its phases, grain size [m] and what its film's law would be.

    film_factor: conductivity of a second phase over that at the case's own temperature.
    """

    grain: Phase
    layer: Phase
    grain_size: float
    film_factor: float = 1.0

    def admittivity(self, omega: Floats) -> Complexes:
        """σ + iωε of the grain (m,) [S/m]."""
        return _admittivity(self.grain, omega)

    def own(self, omega: Floats, scale: float = 1.0) -> Facets:
        """Of the layer itself, its conductivity times `scale`."""
        assert self.layer.width is not None
        layer = replace(
            self.layer,
            conductivity_across=self.layer.conductivity_across * scale,
            conductivity_along=self.layer.conductivity_along * scale,
        )
        k, grain = _admittivity(layer, omega), self.admittivity(omega)
        along = k + (layer.conductivity_along - layer.conductivity_across)
        return Facets(self.layer.width * (1 / k - 1 / grain), self.layer.width * (along - grain))


def _admittivity(phase: Phase, omega: Floats) -> Complexes:
    displaced = 1j * omega * VACUUM_PERMITTIVITY * phase.relative_permittivity
    return np.asarray(phase.conductivity_across + displaced)


@dataclass(frozen=True)
class Mechanism:
    """One way to close the gap: its parameters and the apparent resistivity they give.

    resistivity(case, a, ln(d/given), values): [ohm m] for flat arrays (k,) of nuisances and parameter values (j,)
    each -> (k, j). facets(draw, values, ω): of one pellet of the posterior at angular frequencies (m,).
    says: sentence with {0}, {1} for the parameters' values with units.
    """

    name: str
    parameters: tuple[ParameterPrior, ...]
    resistivity: Resistivity = field(repr=False)
    facets: FacetsOf = field(repr=False)
    says: str = ""


def nothing_added() -> Mechanism:
    """The records alone."""

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        size = case.grain_size * np.exp(d)
        return case.apparent_resistivity(case.own_resistance(a), case.own_sheet(a), size)[:, None]

    return Mechanism(
        "records alone",
        (),
        resistivity,
        lambda draw, values, omega: draw.own(omega),
        "nothing but the records",
    )


def blocking_boundaries(prior: ParameterPrior) -> Mechanism:
    """A share of the boundaries does not conduct at all."""

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        size, own, sheet = case.grain_size * np.exp(d), case.own_resistance(a), case.own_sheet(a)
        columns = [case.apparent_resistivity(own, sheet, size, float(p)) for p in values[0]]
        return np.stack(columns, axis=1)

    def facets(draw: Draw, values: Sequence[float], omega: Floats) -> Facets:
        return replace(draw.own(omega), blocking_fraction=values[0])

    return Mechanism(
        "blocking boundaries", (prior,), resistivity, facets, "{0} of the boundary length blocking"
    )


def second_phase(width: ParameterPrior, conductivity: ParameterPrior) -> Mechanism:
    """A film of its own width [nm] and conductivity [S/cm] on every boundary, in series with the layer."""

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        film = values[0] * NANO * (1 / (100.0 * values[1]) - 1 / case.grain.conductivity_across)
        own = case.own_resistance(a)[:, None] + film[None]
        size = (case.grain_size * np.exp(d))[:, None]
        return case.apparent_resistivity(own, case.own_sheet(a)[:, None], size)

    def facets(draw: Draw, values: Sequence[float], omega: Floats) -> Facets:
        own = draw.own(omega)
        permittivity = VACUUM_PERMITTIVITY * draw.layer.relative_permittivity
        film = 100.0 * values[1] * draw.film_factor + 1j * omega * permittivity
        across = values[0] * NANO * (1 / film - 1 / draw.admittivity(omega))
        return replace(own, resistance=own.resistance + across)

    return Mechanism(
        "second-phase film",
        (width, conductivity),
        resistivity,
        facets,
        "a film of {0} that conducts {1} on every boundary",
    )


def holm_resistance(contact: Floats, radius: Floats, conductivity: float) -> Floats:
    """Constriction of circular contacts of radius a [m] that cover the share α of a facet [ohm m²].

    r = πa(1 − √α)^{3/2}/(2ασ_b): two half spaces per contact, Holm's 1/(2aσ) with the factor of neighbouring contacts
    (Cooper, Mikic, Yovanovich, Int. J. Heat Mass Transfer 12, 279 (1969)).
    """
    return np.asarray(math.pi * radius * (1 - np.sqrt(contact)) ** 1.5 / (2 * contact * conductivity))


def partial_contact(contact: ParameterPrior, radius: ParameterPrior) -> Mechanism:
    """Grains touch on a share α of their facets only, in contacts of radius a [nm]; the rest is pore."""

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        share, spot = values[0][None], values[1][None] * NANO
        bulk = case.grain.conductivity_across
        own = case.own_resistance(a)[:, None] / share + holm_resistance(share, spot, bulk)
        size = (case.grain_size * np.exp(d))[:, None]
        return case.apparent_resistivity(own, -case.width * bulk * np.ones_like(own), size)

    def facets(draw: Draw, values: Sequence[float], omega: Floats) -> Facets:
        share, spot = values[0], values[1] * NANO
        own, grain = draw.own(omega), draw.admittivity(omega)
        assert draw.layer.width is not None
        through = own.resistance / share + holm_resistance(np.array(share), np.array(spot), 1.0) / grain
        # Beside the contacts an empty gap as wide as the layer.
        gap = 1j * omega * VACUUM_PERMITTIVITY * (1 - share) / draw.layer.width
        return Facets(np.asarray(1 / (1 / through + gap), dtype=complex), -draw.layer.width * grain)

    return Mechanism(
        "partial contact",
        (contact, radius),
        resistivity,
        facets,
        "contact over {0} of the facets in spots of {1}",
    )


def segregation(barrier: ParameterPrior) -> Mechanism:
    """Segregated dopants raise the layer's activation energy by ΔE [eV]: σ_gb e^{−ΔE/kT}."""

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        shifted = a[:, None] - values[0][None] / (BOLTZMANN_EV * case.temperature)
        size = (case.grain_size * np.exp(d))[:, None]
        return case.apparent_resistivity(case.own_resistance(shifted), case.own_sheet(shifted), size)

    def facets(draw: Draw, values: Sequence[float], omega: Floats) -> Facets:
        return draw.own(omega, math.exp(-values[0] / (BOLTZMANN_EV * draw.grain.temperature)))

    return Mechanism(
        "dopant segregation", (barrier,), resistivity, facets, "a barrier higher by {0} in the layer"
    )


@dataclass(frozen=True)
class ChargedParts:
    """Resistance across a charged boundary [ohm m²]: of its layer, and of the grain on both sides in excess of grain.

    Mild depletion of a lattice more than half full helps hopping: the sides' share may be negative.
    """

    layer: float
    sides: float

    @classmethod
    def of(cls, case: Case, charge: float, permittivity: float | None = None) -> ChargedParts:
        """Of `case` with a core charge [e/nm²], from boundaries whose layer conducts once and twice as well.

        The equilibrium is the same, so the resistance is affine in the layer's resistivity: its two parts follow.
        """
        once = charged(case, charge, permittivity).excess_resistance
        twice = charged(case, charge, permittivity, scale=2.0).excess_resistance
        if not (math.isfinite(once) and math.isfinite(twice)):
            return cls(math.inf, math.inf)
        layer = 2.0 * (once - twice)
        return cls(layer, once - layer + case.width / case.grain.conductivity_across)


def charged(case: Case, charge: float, permittivity: float | None = None, scale: float = 1.0) -> Bicrystal:
    """The boundary of `case` with a core charge [e/nm²] on top of its record's, at ε_r or the records' own.

    scale: factor on the layer's conductivity.
    """
    grain, layer = case.grain, case.layer
    layer = replace(layer, conductivity_across=layer.conductivity_across * scale)
    if permittivity is not None:
        grain, layer = (replace(p, relative_permittivity=permittivity) for p in (grain, layer))
    return solve_bicrystal(grain, layer, core_charge=charge * 1e18)


def charged_draw(draw: Draw, values: Sequence[float]) -> Bicrystal:
    """The charged boundary of one pellet of the posterior: core charge [e/nm²] and, where given, ε_r."""
    grain, layer = draw.grain, draw.layer
    if len(values) > 1:
        grain, layer = (replace(p, relative_permittivity=values[1]) for p in (grain, layer))
    return solve_bicrystal(grain, layer, core_charge=values[0] * 1e18)


def _charged_parts(case: Case, values: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Resistances of layer and sides [ohm m²] at charges (and permittivities) (j,), splines through solved nodes."""
    if len(values[0]) < 8:
        parts = [ChargedParts.of(case, *(float(v[j]) for v in values)) for j in range(len(values[0]))]
        capped = np.minimum([(p.layer, p.sides) for p in parts], MOST_RESISTANCE)
        return capped[:, 0], capped[:, 1]
    nodes = [
        np.geomspace(v.min(), v.max(), min(n, len(np.unique(v))))
        for v, n in zip(values, CHARGED_POINTS, strict=False)
    ]
    constants = [None] if len(values) == 1 else nodes[1].tolist()
    solved = [[ChargedParts.of(case, q, e) for e in constants] for q in nodes[0].tolist()]
    found = []
    for part in ("layer", "sides"):
        rows = [[getattr(p, part) for p in row] for row in solved]
        # Like a logarithm, and signed.
        table = np.arcsinh(np.minimum(rows, MOST_RESISTANCE) / SMALL_RESISTANCE)
        if len(values) == 1:
            found.append(PchipInterpolator(np.log(nodes[0]), table[:, 0])(np.log(values[0])))
        else:
            grid = (np.log(nodes[0]), np.log(nodes[1]))
            at = np.stack([np.log(v) for v in values], axis=1)
            found.append(RegularGridInterpolator(grid, table, method="pchip")(at))
    layer, sides = (SMALL_RESISTANCE * np.sinh(u) for u in found)
    return np.asarray(layer), np.asarray(sides)


def space_charge(charge: ParameterPrior, permittivity: ParameterPrior | None = None) -> Mechanism:
    """A positive core charge [e/nm²] depletes layer and grain; ε_r as recorded, or with a prior of its own."""
    priors = (charge,) if permittivity is None else (charge, permittivity)
    memory: dict[tuple[object, ...], tuple[Case, Floats, Floats]] = {}

    def parts(case: Case, values: Sequence[Floats]) -> tuple[Floats, Floats]:
        key = (id(case.material), case.boundary, case.temperature, *(v.tobytes() for v in values))
        if key not in memory:
            plain = replace(case, bulk_factor=1.0)
            memory[key] = (plain, *_charged_parts(plain, values))
        _, layer, sides = memory[key]
        # The equilibrium knows no mobility: the grain's share goes with its resistivity.
        return layer, sides / case.bulk_factor

    def resistivity(case: Case, a: Floats, d: Floats, values: Sequence[Floats]) -> Floats:
        layer, sides = parts(case, values)
        scaled = layer[None] * np.exp(-a)[:, None] + sides[None]
        own = scaled - case.width / case.grain.conductivity_across
        size = (case.grain_size * np.exp(d))[:, None]
        return case.apparent_resistivity(own, case.own_sheet(a)[:, None], size)

    def facets(draw: Draw, values: Sequence[float], omega: Floats) -> Facets:
        solved = charged_draw(draw, values)
        z = np.full(len(omega), solved.excess_resistance, dtype=complex)
        if np.any(omega > 0):
            z[omega > 0] = solved.excess_impedance(omega[omega > 0] / (2 * math.pi))
        return Facets(z, draw.own(omega).sheet)

    says = "a core charge of {0}" + ("" if permittivity is None else " at a relative permittivity of {1}")
    name = "space charge" if permittivity is None else "space charge, permittivity free"
    return Mechanism(name, priors, resistivity, facets, says)
