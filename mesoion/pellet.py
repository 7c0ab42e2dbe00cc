"""The model a user builds: material + microstructure + electrodes → conductivities and spectrum of a pellet.

A millimetre pellet of micrometre grains is scaled up in three steps, each with its own error (docs/pellet.md):
one resolved boundary gives its excess resistance and excess sheet conductance (bicrystal), a periodic
representative volume of many grains gives the effective admittivity (homogenise), and thickness, area, electrodes
and leads make an impedance of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from mesoion.bicrystal import Bicrystal, excess, solve_bicrystal
from mesoion.collapsed import CollapsedPolycrystal
from mesoion.errors import ConvergenceError, InputError
from mesoion.material import Material, Phase
from mesoion.microstructure import polycrystal
from mesoion.physics import Electrode
from mesoion.reduced import BoundaryRange, ReducedPolycrystal
from mesoion.units import VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Ints = NDArray[np.int64]

LARGEST_CORE_CHARGE = 1.5e19
"""Elementary charges per area [1/m²] tried for a boundary; about two a unit cell of a perovskite."""

BOUND_SLACK = 3.0
"""The reduced model is trusted up to this multiple of its tolerance."""

LARGEST_RESISTANCE = 1e6
"""Resistance of a boundary over that of a grain: beyond, all of the pellet's is in the boundaries (to 1e-6)."""

LARGEST_WIDTH_OVER_GRAIN_SIZE = 0.12
"""Above this a zero-thickness boundary is no description of the layer any more (docs/meshes.md)."""


@dataclass(frozen=True)
class Leads:
    """Series resistance [ohm] and inductance [H] of the leads."""

    resistance: float = 0.0
    inductance: float = 0.0

    def impedance(self, frequency: Floats) -> Complexes:
        """R + iωL [ohm]."""
        return np.asarray(self.resistance + 2j * np.pi * frequency * self.inductance)


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; `inf` where no resistance can be told from zero."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """All three multiplied by `factor` > 0."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Conductivities:
    """What an experimenter reports at one temperature [K]; all conductivities in S/m.

    apparent_gb: 1/σ_gb,app = 1/σ_total − 1/σ_bulk (inf where the boundaries add no resistance);
    specific_gb: the layer's own conductivity across, by boundary type; brick_layer_total: the series brick layer with
    the same layers, for comparison; assumptions: what the records left open, and extrapolations.
    """

    temperature: float
    bulk: Interval
    total: Interval
    apparent_gb: Interval
    specific_gb: dict[str, Interval]
    brick_layer_total: Interval
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RepresentativeVolume:
    """Periodic polycrystals of unit mean grain size with collapsed boundaries, in several realisations.

    With one boundary type a reduced model answers in microseconds wherever its error bound allows; where it does not,
    and with several types, the full problem is solved. The scatter between the realisations is the statistical error
    of the volume.
    """

    collapsed: tuple[CollapsedPolycrystal, ...]
    reduced: tuple[ReducedPolycrystal | None, ...]
    n_grains: int
    boundary_fractions: dict[str, float]
    tolerance: float

    @classmethod
    def build(
        cls,
        *,
        n_grains: int = 80,
        grain_size_spread: float = 0.35,
        boundary_fractions: Mapping[str, float] | None = None,
        boundary_range: BoundaryRange | None = None,
        realisations: int = 3,
        seed: int = 0,
        tolerance: float = 1e-3,
        progress: Callable[[Sequence[int], str], Any] | None = None,
    ) -> RepresentativeVolume:
        """Tessellate, mesh and reduce `realisations` polycrystals of `n_grains` grains.

        grain_size_spread: standard deviation of ln(grain size). boundary_fractions: share of the boundary length by
        type. boundary_range: where the reduced model of a single boundary type is to hold; its default without one.
        tolerance: relative error bound of the reduced model. Raises MeshError, InputError.
        """
        fractions = dict(boundary_fractions or {"general": 1.0})
        numbers: Any = range(realisations)
        if progress is not None:
            numbers = progress(numbers, "representative volumes")
        collapsed, reduced = [], []
        for k in numbers:
            rng = np.random.default_rng([seed, k])
            structure = polycrystal(n_grains, 1.0, grain_size_spread, rng, boundary_types=fractions)
            polycrystals = CollapsedPolycrystal(structure)
            collapsed.append(polycrystals)
            reduced.append(_reduced(polycrystals, boundary_range, tolerance) if len(fractions) == 1 else None)
        return cls(tuple(collapsed), tuple(reduced), n_grains, fractions, tolerance)

    @classmethod
    def unmeshed(cls, boundary_fractions: Mapping[str, float]) -> RepresentativeVolume:
        """No polycrystal yet: enough to ask a pellet for the range its volume must cover (`boundary_range`)."""
        return cls((), (), 0, dict(boundary_fractions), 1.0)

    @property
    def full_solves(self) -> int:
        """Full solves so far, those of the reduced models included."""
        return sum(c.full_solves for c in self.collapsed)

    def effective(
        self,
        grain: ArrayLike,
        resistance: Mapping[str, ArrayLike],
        sheet: Mapping[str, ArrayLike],
        grain_size: ArrayLike,
        realisation: int | None = None,
    ) -> Complexes:
        """Mean of the two principal effective admittivities [S/m] for m values of the arguments (m,).

        grain: admittivity of the grains [S/m]; resistance [ohm m²] and sheet [S]: signed excess of each boundary type;
        grain_size [m]: mean of the volume, one or (m,). realisation: one of them, or None for the mean over all.
        """
        chosen = range(len(self.collapsed)) if realisation is None else (realisation,)
        return np.asarray(
            np.mean([self._one(k, grain, resistance, sheet, grain_size) for k in chosen], axis=0)
        )

    def _one(
        self,
        k: int,
        grain: ArrayLike,
        resistance: Mapping[str, ArrayLike],
        sheet: Mapping[str, ArrayLike],
        grain_size: ArrayLike,
    ) -> Complexes:
        size = np.asarray(grain_size, dtype=float) / self.collapsed[k].grain_size
        names = tuple(self.boundary_fractions)
        across = {t: np.atleast_1d(resistance[t]) / size for t in names}
        along = {t: np.atleast_1d(sheet[t]) / size for t in names}
        sigma, *rest = np.broadcast_arrays(np.atleast_1d(grain), *across.values(), *along.values())
        count = len(names)
        values = np.empty(len(sigma), dtype=complex)
        shrunk = np.ones(len(sigma))
        if count == 1:
            # Beyond, rounding would decide; where no sheet carries current past the boundaries, σ_eff goes as 1/r.
            strength = np.abs(rest[0] * sigma)
            far = (strength > LARGEST_RESISTANCE) & (np.real(rest[1]) <= 0)
            shrunk = np.where(far, LARGEST_RESISTANCE / np.where(far, strength, 1.0), 1.0)
            rest[0] = rest[0] * shrunk
        unsure = np.ones(len(sigma), dtype=bool)
        model = self.reduced[k]
        if model is not None:
            tensors, bounds = model.effective_many(
                sigma,
                dict(zip(names, rest[:count], strict=True)),
                dict(zip(names, rest[count:], strict=True)),
            )
            values[:] = np.trace(tensors, axis1=1, axis2=2) / 2
            unsure = bounds > BOUND_SLACK * self.tolerance
        for j in np.flatnonzero(unsure):
            tensor = self.collapsed[k].effective(
                sigma[j],
                {t: r[j] for t, r in zip(names, rest[:count], strict=True)},
                {t: s[j] for t, s in zip(names, rest[count:], strict=True)},
            )
            values[j] = np.trace(tensor) / 2
        return np.asarray(values * shrunk)


def _reduced(
    polycrystals: CollapsedPolycrystal, boundary_range: BoundaryRange | None, tolerance: float
) -> ReducedPolycrystal | None:
    (name,) = polycrystals.boundary_names
    ranges = {name: boundary_range or BoundaryRange()}
    try:
        return ReducedPolycrystal.build(polycrystals, ranges, tolerance=tolerance, max_solves=25)
    except ConvergenceError:
        # Too wide a range for a small basis: every answer then comes from a full solve.
        return None


def electrode_impedance(electrode: Electrode, grain: Phase, frequency: Floats) -> Complexes:
    """Impedance of one electrode against a grain [ohm m²].

    Blocking: λ/(iωε s³) + 1/(iωC_S), s = √(1 + iωε/σ), λ the Debye length with site exclusion: the half space of the
    exact blocking cell, in series with the compact layer. Reversible: charge transfer R_ct, the compact layer in
    parallel where one is given.
    """
    omega = 2 * np.pi * np.asarray(frequency, dtype=float)
    if electrode.kind == "blocking":
        permittivity = VACUUM_PERMITTIVITY * grain.relative_permittivity
        s = np.sqrt(1 + 1j * omega * permittivity / grain.conductivity_across)
        z = grain.debye_length / (1j * omega * permittivity * s**3)
        if electrode.compact_capacitance is not None:
            z = z + 1 / (1j * omega * electrode.compact_capacitance)
        return np.asarray(z)
    resistance = electrode.charge_transfer_resistance
    return np.asarray(resistance / (1 + 1j * omega * resistance * (electrode.compact_capacitance or 0.0)))


@dataclass(frozen=True)
class Draw:
    """A material and a mean grain size [m] within their uncertainties."""

    material: Material
    grain_size: float


@dataclass(frozen=True, eq=False)
class _DirectCurrent:
    """Conductivities [S/m] of m draws: bulk, total, brick_layer (m,), specific of every boundary type (m,)."""

    bulk: Floats
    total: Floats
    brick_layer: Floats
    specific: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Pellet:
    """A pellet: material, representative volume, mean grain size [m], thickness [m], area [m²], electrodes, leads.

    core_charge [e/m²], by boundary type, is added to the charge that the boundary's composition gives.
    grain_size_factor: the grain size is known to within this factor (one standard deviation of its logarithm).
    Raises InputError where the boundary types of material and volume differ or a layer is too wide for the grains.
    """

    material: Material
    volume: RepresentativeVolume
    mean_grain_size: float
    thickness: float
    area: float
    electrode: Electrode
    leads: Leads = Leads()
    core_charge: Mapping[str, float] = field(default_factory=dict)
    grain_size_factor: float = 1.0

    def __post_init__(self) -> None:
        types, known = set(self.volume.boundary_fractions), set(self.material.boundary_names)
        if not types <= known:
            raise InputError(
                "boundaries", sorted(types - known), f"boundary types of this material: {sorted(known)}"
            )
        for name, value in (
            ("mean_grain_size", self.mean_grain_size),
            ("thickness", self.thickness),
            ("area", self.area),
        ):
            if not (np.isfinite(value) and value > 0):
                raise InputError(name, value, "a positive size")
        if not 1 <= self.grain_size_factor <= 100:
            raise InputError(
                "grain_size_factor", self.grain_size_factor, "a factor from 1 (known exactly) to 100"
            )
        for name in types:
            width = self.material.boundary(300.0, name).width or 0.0
            if width > LARGEST_WIDTH_OVER_GRAIN_SIZE * self.mean_grain_size:
                raise InputError(
                    f"boundaries.{name}.width",
                    width,
                    f"at most {LARGEST_WIDTH_OVER_GRAIN_SIZE} of the grain size {self.mean_grain_size:g} m",
                )

    @property
    def boundary_types(self) -> tuple[str, ...]:
        """Names of the boundary types of this pellet."""
        return tuple(self.volume.boundary_fractions)

    def boundaries(self, temperature: float) -> dict[str, Bicrystal]:
        """The resolved boundary of each type at a temperature [K]."""
        grain = self.material.grain(temperature)
        return {name: solve_bicrystal(grain, self.layer(temperature, name)) for name in self.boundary_types}

    def layer(self, temperature: float, name: str, material: Material | None = None) -> Phase:
        """The boundary layer `name` at a temperature [K] with this pellet's extra core charge."""
        phase = (material or self.material).boundary(temperature, name)
        assert phase.width is not None
        extra = self.core_charge.get(name, 0.0) / phase.width
        return replace(phase, fixed_charge=phase.fixed_charge + extra)

    def charged_boundary(self, temperature: float, name: str, excess_resistance: float) -> Bicrystal | None:
        """The boundary with the least positive extra core charge that gives it an excess resistance [ohm m²].

        Positive charge depletes the layer of Li⁺. None where up to `LARGEST_CORE_CHARGE` does not suffice, or where
        no charge is needed.
        """
        grain, layer = self.material.grain(temperature), self.layer(temperature, name)

        def solved(charge: float) -> Bicrystal:
            return solve_bicrystal(grain, layer, core_charge=charge)

        charges = np.linspace(0.0, LARGEST_CORE_CHARGE, 31)
        missing = [excess_resistance - solved(charges[0]).excess_resistance]
        if missing[0] <= 0:
            return None
        for low, high in pairwise(charges.tolist()):
            missing.append(excess_resistance - solved(high).excess_resistance)
            if missing[-1] <= 0:
                charge = brentq(
                    lambda c: float(np.log(solved(c).excess_resistance / excess_resistance)),
                    low,
                    high,
                    xtol=1e14,
                )
                return solved(charge)
        return None

    def _direct_current(
        self, temperature: float, drawn: Sequence[Draw], realisations: Ints | None
    ) -> _DirectCurrent:
        """Bulk, total and brick-layer conductivity (m,) and each layer's own, of m draws in their realisations."""
        types, shares = self.boundary_types, self.volume.boundary_fractions
        size = np.array([d.grain_size for d in drawn])
        bulk = np.empty(len(drawn))
        resistance, sheet, specific = ({t: np.empty(len(drawn)) for t in types} for _ in range(3))
        for j, draw in enumerate(drawn):
            grain = draw.material.grain(temperature)
            bulk[j] = grain.conductivity_across
            for t in types:
                layer = self.layer(temperature, t, draw.material)
                resistance[t][j], sheet[t][j] = excess(grain, layer)
                specific[t][j] = layer.conductivity_across
        if realisations is None:
            total = self.volume.effective(bulk, resistance, sheet, size).real
        else:
            total = np.empty(len(drawn))
            for k in np.unique(realisations):
                here = realisations == k
                total[here] = self.volume.effective(
                    bulk[here],
                    {t: r[here] for t, r in resistance.items()},
                    {t: s[here] for t, s in sheet.items()},
                    size[here],
                    int(k),
                ).real
        mean_resistance = sum(shares[t] * resistance[t] for t in types) / sum(shares.values())
        return _DirectCurrent(bulk, total, 1 / (1 / bulk + mean_resistance / size), specific)

    def conductivities(
        self,
        temperatures: Sequence[float],
        *,
        samples: int = 200,
        seed: int = 0,
        progress: Callable[[Sequence[Any], str], Any] | None = None,
    ) -> list[Conductivities]:
        """Bulk, total, apparent and specific boundary conductivity at each temperature [K] with 95 % intervals.

        The intervals are percentiles over `samples` materials drawn within the uncertainties of the records, each with
        a grain size and a realisation of the representative volume drawn too; one draw serves all temperatures.
        """
        rng = np.random.default_rng(seed)
        n_real, spread = len(self.volume.reduced), np.log(self.grain_size_factor)
        drawn, realisations = [], np.empty(samples, dtype=np.int64)
        for j in range(samples):
            material, realisations[j] = self.material.sample(rng), rng.integers(n_real)
            drawn.append(Draw(material, self.mean_grain_size * float(np.exp(spread * rng.standard_normal()))))
        central = [Draw(self.material, self.mean_grain_size)]
        results = []
        for temperature in temperatures if progress is None else progress(temperatures, "temperatures"):
            cloud = self._direct_current(temperature, drawn, realisations)
            middle = self._direct_current(temperature, central, None)
            bulk, total = float(middle.bulk[0]), float(middle.total[0])
            results.append(
                Conductivities(
                    temperature=temperature,
                    bulk=_interval(bulk, cloud.bulk),
                    total=_interval(total, cloud.total),
                    apparent_gb=inverse_interval(1 / total - 1 / bulk, 1 / cloud.total - 1 / cloud.bulk),
                    specific_gb={
                        t: _interval(float(v[0]), cloud.specific[t]) for t, v in middle.specific.items()
                    },
                    brick_layer_total=_interval(float(middle.brick_layer[0]), cloud.brick_layer),
                    assumptions=self.material.assumptions(temperature),
                )
            )
        return results

    def admittivity(self, temperature: float, frequency: Floats) -> Complexes:
        """Effective complex admittivity σ + iωε of the polycrystal [S/m] at each frequency [Hz]."""
        f = np.asarray(frequency, dtype=float)
        grain = self.material.grain(temperature)
        resolved = self.boundaries(temperature)
        across = {t: b.excess_impedance(f) for t, b in resolved.items()}
        along = {t: b.excess_sheet_admittance(f) for t, b in resolved.items()}
        bulk = grain.conductivity_across + 2j * np.pi * f * VACUUM_PERMITTIVITY * grain.relative_permittivity
        return self.volume.effective(bulk, across, along, self.mean_grain_size)

    def boundary_range(
        self, temperatures: Sequence[float], *, samples: int = 40, seed: int = 0
    ) -> tuple[float, float, float, float]:
        """Smallest and largest layer/grain conductivity and width/grain size met when drawing this pellet.

        Of the layer of equal width and the same excess resistance; every boundary type together.
        """
        rng = np.random.default_rng(seed)
        ratios, widths = [], []
        drawn = [self.material, *(self.material.sample(rng) for _ in range(samples))]
        for material in drawn:
            for temperature in (min(temperatures), max(temperatures)):
                grain = material.grain(temperature)
                for name in self.boundary_types:
                    layer = self.layer(temperature, name, material)
                    width = float(layer.width or 0.0)
                    resistance, _ = excess(grain, layer)
                    ratios.append(1 / max(1 + resistance * grain.conductivity_across / width, 1e-3))
                    widths.append(width / self.mean_grain_size)
        spread = self.grain_size_factor**3
        return min(ratios), max(ratios), min(widths) / spread, max(widths) * spread

    def impedance(self, temperature: float, frequency: Floats) -> Complexes:
        """Impedance of pellet, two electrodes and leads [ohm] at each frequency [Hz]."""
        f = np.asarray(frequency, dtype=float)
        pellet = self.thickness / (self.area * self.admittivity(temperature, f))
        grain = self.material.grain(temperature)
        electrodes = 2 * electrode_impedance(self.electrode, grain, f) / self.area
        return np.asarray(pellet + electrodes + self.leads.impedance(f))

    def with_grain_size(self, mean_grain_size: float) -> Pellet:
        """A copy with another mean grain size [m]; the representative volume is shared."""
        return replace(self, mean_grain_size=mean_grain_size)


def _interval(value: float, samples: Floats) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def inverse_interval(resistivity: float, samples: Floats) -> Interval:
    """Conductivity with its 95 % interval from a resistivity and its samples; inf where none can be told from zero."""
    low, high = np.percentile(samples, [2.5, 97.5])

    def conductivity(rho: float) -> float:
        return float(1 / rho) if rho > 0 else float("inf")

    return Interval(
        conductivity(resistivity), conductivity(max(high, resistivity)), conductivity(min(low, resistivity))
    )
