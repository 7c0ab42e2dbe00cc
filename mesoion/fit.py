"""Fit of a pellet to measured spectra: grains, boundaries, space charge, blocking ones, electrodes, leads, one series.

The pellet itself is the model. With layer width w and grain size d, at temperature T,

    k_j = σ_j [1 + (iω ε_j/σ_j)^n_j],  σ_j T ∝ exp(−E_j/kT),   j = grain, boundary
    blocking boundaries: the same layer without conduction,
    Z = (L/A)/σ_eff(k_b, r, s, p) + 1/[Q (iω)^n] + R + iωL₀,   r = w(1/k_gb − 1/k_b), s = w(k_gb − k_b),

σ_eff of a polycrystal with a share p of blocking boundaries (`mesoion.mixed_boundaries`). With a `Lattice` of sites the
layers carry a core charge, and r and s are those of its space charge too (`mesoion.charged_boundary`); blocking layers
stay without. Electrodes that exchange Li have R_ct beside Q, R_ct/T ∝ exp(E_ct/kT). n_j = 1 is a layer with one
relaxation time; measured arcs are depressed, n_j < 1. Parameters are fitted in coordinates in which their priors are
normal: logarithms of positive ones, logits of shares and exponents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import logit

from mesoion.charged_boundary import ChargedBoundary, Lattice, charged_boundary
from mesoion.errors import ConvergenceError, InputError
from mesoion.fit_parameters import Parameter, default_parameters
from mesoion.impedance.measurement import Measurement
from mesoion.mixed_boundaries import BLOCKING, OPEN, PolycrystalModel
from mesoion.units import BOLTZMANN_EV, VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

BLOCKED = 1e-9
"""Conductivity of a blocking layer over that of the grain: none, to any instrument."""
NEAR_THE_WIDEST = 2 / 3
"""Of the model's widest layers, where some starts of a fit lie."""
SLOWEST_SHARE = 0.05
"""Of all resistance, where the starts of a fit put a charge transfer."""
NEAR_THE_BEST, FAR = 10.0, 3.0
"""A lower maximum counts within so much of the log posterior, and so many deviations a parameter away."""
DATA_BELOW, PRIOR_ABOVE = 1 / 3, 0.8
"""Posterior over prior width: below the first the data decide a parameter, above the second only the prior does."""

AT_REST = -150.0
"""ln ω at which displacement currents are below rounding, and squares of them still numbers."""
OF_THE_PELLET = (
    "bulk_conductivity", "bulk_activation_energy", "boundary_conductivity", "boundary_activation_energy",
    "width_over_grain_size", "blocking_fraction", "permittivity", "permittivity_ratio", "bulk_exponent",
    "boundary_exponent", "core_charge",
)  # fmt: skip
"""The parameters without electrodes, leads and noise."""

Electrode = Literal["blocking", "charge transfer", "none"]
PER_NM2 = 1e18

_charged = lru_cache(maxsize=32)(charged_boundary)
"""Equilibria of one evaluation are needed twice: for the spectrum and for the sampler's coordinates."""


class PelletFit:
    """A series of spectra of one pellet and the posterior of its parameters.

    measurements: with temperature and geometry, one for each temperature. polycrystal: the effective admittivity.
    parameters: from `default_parameters`, changed as known. electrode: "blocking" (constant-phase tail), "charge
    transfer" (a resistance beside it) or "none". grain_size [m]: where known the width is reported in metres too.
    space_charge: sites of grain and layer; the core charge is then fitted, and the grain size needed.
    Raises InputError for spectra without temperature or geometry, for different pellets, and for a space charge without
    a grain size.
    """

    def __init__(
        self,
        measurements: Sequence[Measurement],
        polycrystal: PolycrystalModel,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        electrode: Electrode = "blocking",
        grain_size: float | None = None,
        space_charge: Lattice | None = None,
    ) -> None:
        if space_charge is not None and grain_size is None:
            raise InputError(
                "grain_size", None, "a space charge needs it: its length does not scale with the grains"
            )
        if not measurements:
            raise InputError("measurements", 0, "give at least one spectrum")
        for m in measurements:
            if m.temperature is None or m.geometry is None:
                missing = "temperature" if m.temperature is None else "geometry"
                raise InputError(
                    m.name, f"no {missing}", "a physics fit needs temperature and geometry of every spectrum"
                )
            if m.geometry != measurements[0].geometry:
                raise InputError(
                    m.name, m.geometry, "all spectra of a series are of one pellet: one geometry"
                )
        self.measurements = tuple(sorted(measurements, key=lambda m: m.temperature or 0.0))
        self.polycrystal, self.electrode, self.grain_size = polycrystal, electrode, grain_size
        self.space_charge = space_charge
        self.temperatures = np.array([m.temperature for m in self.measurements], dtype=float)
        self.reference_temperature = float(1 / np.mean(1 / self.temperatures))
        first = self.measurements[0].geometry
        assert first is not None
        self.geometry = first
        self.frequency = np.concatenate([m.frequency for m in self.measurements])
        self.impedance = np.concatenate([m.impedance for m in self.measurements])
        self._which = np.repeat(
            np.arange(len(self.measurements)), [len(m.frequency) for m in self.measurements]
        )
        self._log_omega = np.log(2 * np.pi * self.frequency)
        self._omega = 2 * np.pi * self.frequency
        self._weight = 1 / np.abs(self.impedance)
        self._inverse = (1 / self.temperatures - 1 / self.reference_temperature) / BOLTZMANN_EV
        self.parameters = self._with_scale(dict(default_parameters()))
        unknown = sorted(set(parameters or {}) - set(self.parameters))
        if unknown:
            raise InputError("parameters", unknown, f"parameters are: {', '.join(self.parameters)}")
        modelled = {
            "charge_transfer_resistance": electrode == "charge transfer",
            "charge_transfer_activation_energy": electrode == "charge transfer",
            "core_charge": space_charge is not None,
        }
        for name, there in modelled.items():
            self.parameters[name] = replace(self.parameters[name], free=there)
            if name in (parameters or {}) and not there:
                needed = "space_charge" if name == "core_charge" else 'electrode = "charge transfer"'
                raise InputError(name, "a prior", f"the model has none; give {needed}")
        self.parameters |= dict(parameters or {})
        if electrode == "none":
            for name in ("electrode_capacitance", "electrode_exponent", "electrode_activation_energy"):
                self.parameters[name] = replace(self.parameters[name], free=False)
        if len(set(self.temperatures.tolist())) == 1:
            for name in (
                "bulk_activation_energy",
                "boundary_activation_energy",
                "electrode_activation_energy",
                "charge_transfer_activation_energy",
            ):
                self.parameters[name] = replace(self.parameters[name], free=False)
        width = self.parameters["width_over_grain_size"]
        low, high = np.log(polycrystal.width_range)
        self.parameters["width_over_grain_size"] = replace(
            width, bounds=(max(width.bounds[0], float(low)), min(width.bounds[1], float(high)))
        )
        self.free = tuple(p for p in self.parameters.values() if p.free)
        self._held = {p.name: float(p.value(p.mean)) for p in self.parameters.values() if not p.free}
        self._mean = np.array([p.mean for p in self.free])
        self._deviation = np.array([p.deviation for p in self.free])
        self._last_pellet: tuple[tuple[float, ...], Complexes, float] | None = None
        self._low = np.array([p.bounds[0] for p in self.free])
        self._high = np.array([p.bounds[1] for p in self.free])

    def _with_scale(self, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
        """Conductivities and electrode centred on the data's order of magnitude, with priors that stay wide."""
        total, _ = self._total_resistance()
        sigma = self.geometry.cell_constant / np.exp(np.mean(np.log(total)))
        parameters["bulk_conductivity"] = replace(
            parameters["bulk_conductivity"], mean=float(np.log(2 * sigma))
        )
        width = np.exp(parameters["width_over_grain_size"].mean)
        parameters["boundary_conductivity"] = replace(
            parameters["boundary_conductivity"], mean=float(np.log(2 * sigma * width))
        )
        return parameters

    def _total_resistance(self) -> tuple[Floats, Floats]:
        """Resistance [ohm] (t,) where each spectrum comes closest to the real axis, and the tail's |Z''| there on."""
        total, tail = [], []
        for m in self.measurements:
            z = m.impedance
            # Below the fastest tenth, where the bulk arc itself may start on the axis.
            slow = m.frequency < m.frequency[0] / 10
            ratio = np.where(slow, -z.imag / z.real, np.inf)
            k = int(np.argmin(ratio))
            total.append(float(z.real[k]))
            tail.append(float(max(-z.imag[-1], 1e-3 * z.real[k])))
        return np.array(total), np.array(tail)

    # ---- the model ------------------------------------------------------------------------------------------------
    def values(self, coordinates: Floats) -> dict[str, float]:
        """Every parameter's value, free and held, from the free ones' fit coordinates (n,)."""
        known = dict(self._held)
        for p, u in zip(self.free, np.asarray(coordinates, dtype=float).tolist(), strict=True):
            known[p.name] = float(p.value(u))
        return known

    def conductivities(
        self, values: Mapping[str, float], inverse: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """σ_b and σ_gb [S/m] at the temperatures of the series (t,), or at `inverse` = (1/T − 1/T_ref)/k [1/eV]."""
        x = self._inverse if inverse is None else inverse
        ratio = self.reference_temperature * x * BOLTZMANN_EV + 1.0
        return (
            values["bulk_conductivity"] * ratio * np.exp(-values["bulk_activation_energy"] * x),
            values["boundary_conductivity"] * ratio * np.exp(-values["boundary_activation_energy"] * x),
        )

    def total_conductivity(self, values: Mapping[str, float], inverse: Floats | None = None) -> Floats:
        """σ_t [S/m] of the polycrystal at zero frequency; temperatures (t,) as for `conductivities`."""
        x = self._inverse if inverse is None else inverse
        bulk, boundary = self.conductivities(values, x)
        width, blocked = values["width_over_grain_size"], BLOCKED * bulk
        # Any frequency serves where no displacement current flows.
        still = np.zeros(len(bulk))
        across, along = self._excess(values, bulk, boundary, still, still, still, x)
        effective = self.polycrystal.effective_admittivity(
            bulk,
            {OPEN: across, BLOCKING: width * (1 / blocked - 1 / bulk)},
            {OPEN: along, BLOCKING: width * (blocked - bulk)},
            1.0,
            values["blocking_fraction"],
        )
        return np.asarray(effective.real)

    def model(self, values: Mapping[str, float]) -> Complexes:
        """Impedance [ohm] at every measured frequency of every temperature (m,)."""
        effective, _ = self._pellet(values)
        return self._with_electrodes(values, effective, self._log_omega, self._inverse[self._which])

    def _pellet(self, values: Mapping[str, float]) -> tuple[Complexes, float]:
        """σ_eff [S/m] at every measured frequency (m,), and L/σ_t [ohm m²] at rest at the reference temperature.

        The second with a charge transfer only (else nan): the sampler asks for it before the electrodes are known, and
        for the first at once afterwards.
        """
        key = tuple(values.get(name, 0.0) for name in OF_THE_PELLET)
        if self._last_pellet is None or self._last_pellet[0] != key:
            inverse, log_omega, resistance = self._inverse[self._which], self._log_omega, np.nan
            if self.electrode == "charge transfer":
                inverse, log_omega = np.append(inverse, 0.0), np.append(log_omega, AT_REST)
            bulk, boundary = self.conductivities(values, inverse)
            effective = self._admittivity(values, bulk, boundary, log_omega, inverse)
            if self.electrode == "charge transfer":
                resistance = self.geometry.thickness / float(effective[-1].real)
            self._last_pellet = (key, effective[: len(self.frequency)], resistance)
        return self._last_pellet[1:]

    def spectrum(self, values: Mapping[str, float], temperature: float, frequency: Floats) -> Complexes:
        """Impedance [ohm] at one temperature [K] and any frequencies [Hz] (m,)."""
        x = np.array([(1 / temperature - 1 / self.reference_temperature) / BOLTZMANN_EV])
        bulk, boundary = self.conductivities(values, x)
        return self._spectrum(
            values, bulk, boundary, np.log(2 * np.pi * np.asarray(frequency, dtype=float)), x
        )

    def _spectrum(
        self, values: Mapping[str, float], bulk: Floats, boundary: Floats, log_omega: Floats, inverse: Floats
    ) -> Complexes:
        effective = self._admittivity(values, bulk, boundary, log_omega, inverse)
        return self._with_electrodes(values, effective, log_omega, inverse)

    def _admittivity(
        self, values: Mapping[str, float], bulk: Floats, boundary: Floats, log_omega: Floats, inverse: Floats
    ) -> Complexes:
        """Effective admittivity [S/m] of the polycrystal; ln ω = `AT_REST` at rest."""
        phase = 0.5j * np.pi
        permittivity = VACUUM_PERMITTIVITY * values["permittivity"]
        of_boundary = permittivity * values["permittivity_ratio"]
        n, m = values["bulk_exponent"], values["boundary_exponent"]
        grain = bulk * (1 + np.exp(n * (phase + log_omega + np.log(permittivity / bulk))))
        displaced = boundary * np.exp(m * (phase + log_omega + np.log(of_boundary / boundary)))
        blocked = BLOCKED * bulk + displaced
        width = values["width_over_grain_size"]
        across, along = self._excess(values, bulk, boundary, grain - bulk, displaced, log_omega, inverse)
        effective = self.polycrystal.effective_admittivity(
            grain,
            {OPEN: across, BLOCKING: width * (1 / blocked - 1 / grain)},
            {OPEN: along, BLOCKING: width * (blocked - grain)},
            1.0,
            values["blocking_fraction"],
        )
        return np.asarray(effective)

    def _with_electrodes(
        self, values: Mapping[str, float], effective: Complexes, log_omega: Floats, inverse: Floats
    ) -> Complexes:
        phase = 0.5j * np.pi
        z = self.geometry.cell_constant / effective
        if self.electrode != "none":
            admittance = values["electrode_capacitance"] * np.exp(
                values["electrode_exponent"] * (phase + log_omega)
                - values["electrode_activation_energy"] * inverse
            )
            if self.electrode == "charge transfer":
                ratio = self.reference_temperature * inverse * BOLTZMANN_EV + 1.0
                admittance = admittance + ratio / values["charge_transfer_resistance"] * np.exp(
                    -values["charge_transfer_activation_energy"] * inverse
                )
            z = z + 1 / (admittance * self.geometry.area)
        z = z + values["lead_resistance"] + 1j * values["lead_inductance"] * np.exp(log_omega)
        return np.asarray(z)

    def _excess(
        self,
        values: Mapping[str, float],
        bulk: Floats,
        boundary: Floats,
        of_bulk: Complexes | Floats,
        of_boundary: Complexes | Floats,
        log_omega: Floats,
        inverse: Floats,
    ) -> tuple[Complexes, Complexes]:
        """Excess r/d [ohm m] and s/d [S/m] of open boundaries (m,), with their space charge; inverse (m,) or (1,)."""
        width = values["width_over_grain_size"]
        if self.space_charge is None:
            grain, layer = bulk + of_bulk, boundary + of_boundary
            return (
                np.asarray(width * (1 / layer - 1 / grain), dtype=np.complex128),
                np.asarray(width * (layer - grain), dtype=np.complex128),
            )
        assert self.grain_size is not None
        across: Complexes = np.empty(len(log_omega), dtype=np.complex128)
        along: Complexes = np.empty_like(across)
        for x in np.unique(inverse):
            at = np.broadcast_to(inverse == x, log_omega.shape)
            charged = self._equilibrium(values, float(x))
            across[at], along[at] = charged.excess(
                float(np.broadcast_to(bulk, at.shape)[at][0]), float(np.broadcast_to(boundary, at.shape)[at][0]),
                np.asarray(of_bulk)[at], np.asarray(of_boundary)[at], np.exp(log_omega[at]),
            )  # fmt: skip
        return np.asarray(across / self.grain_size), np.asarray(along / self.grain_size)

    def _equilibrium(self, values: Mapping[str, float], inverse: float) -> ChargedBoundary:
        assert self.space_charge is not None
        assert self.grain_size is not None
        return _charged(
            self.space_charge,
            width=values["width_over_grain_size"] * self.grain_size,
            core_charge=values["core_charge"] * PER_NM2,
            temperature=1 / (1 / self.reference_temperature + inverse * BOLTZMANN_EV),
            permittivity=values["permittivity"],
            permittivity_ratio=values["permittivity_ratio"],
        )

    # ---- coordinates to sample in -----------------------------------------------------------------------------------
    def straightened(self, coordinates: Floats) -> Floats:
        """Coordinates (n,) in which what the arcs fix together is one of them, and no curved valley is left.

        All at the reference temperature. With a core charge and its factors A and G (`ChargedBoundary.at_rest`)
        ln σ, w/σ = A/σ_gb + G/σ_b, in place of ln σ_gb; with a charge transfer ln(R_pellet + R_ct) in place of ln R_ct,
        and ln(Q R_ct) in place of ln Q. Unchanged otherwise.
        """
        v = np.array(coordinates, dtype=float)
        layer, transfer, capacitance = self._bent_coordinates
        values = self.values(v)
        if layer is not None:
            width, own, grain = self._at_rest(values)
            whole = own / values["boundary_conductivity"] + grain / values["bulk_conductivity"]
            v[layer] = np.log(width / whole) if whole > 0 else np.nan
        if transfer is not None:
            if capacitance is not None:
                v[capacitance] += v[transfer]
            v[transfer] = np.log(self._pellet_resistance(values) + np.exp(v[transfer]))
        return v

    def bent(self, straight: Floats) -> tuple[Floats, float]:
        """The inverse of `straightened` and ln of its Jacobian; −inf where a resistance would be negative."""
        u = np.array(straight, dtype=float)
        layer, transfer, capacitance = self._bent_coordinates
        moved = [j for j in (layer, transfer, capacitance) if j is not None]
        if not moved:
            return u, 0.0
        outside = (u < self._low) | (u > self._high)
        outside[moved] = False
        if np.any(outside):
            return u, -np.inf
        log_jacobian, values = 0.0, self.values(u)
        try:
            if layer is not None:
                width, of_layer, grain = self._at_rest(values)
                whole = width * np.exp(-u[layer])
                own = whole - grain / values["bulk_conductivity"]
                if not own > 0:
                    return u, -np.inf
                u[layer] = np.log(of_layer / own)
                # As `values` has it from the coordinate, to the last digit: `_pellet` knows it again.
                values["boundary_conductivity"] = float(np.exp(u[layer]))
                if not self._low[layer] <= u[layer] <= self._high[layer]:
                    return u, -np.inf
                log_jacobian += float(np.log(whole / own))
            if transfer is not None:
                total = np.exp(u[transfer])
                own = total - self._pellet_resistance(values)
                if not own > 0:
                    return u, -np.inf
                u[transfer] = np.log(own)
                log_jacobian += float(np.log(total / own))
                if capacitance is not None:
                    u[capacitance] -= u[transfer]
        except (ConvergenceError, InputError):
            return u, -np.inf
        return u, log_jacobian

    def straightening(self, coordinates: Floats, step: float = 1e-4) -> Floats:
        """d straightened/d coordinates (n, n) by central differences of what it changes."""
        u, slope = np.asarray(coordinates, dtype=float), np.eye(len(self.free))
        moved = [j for j in self._bent_coordinates if j is not None]
        for i, p in enumerate(self.free if moved else ()):
            h = np.zeros(len(u))
            h[i] = step * p.deviation
            change = (self.straightened(u + h) - self.straightened(u - h)) / (2 * h[i])
            slope[moved, i] = change[moved]
        return slope

    @property
    def _bent_coordinates(self) -> tuple[int | None, int | None, int | None]:
        """Of layer conductivity, charge-transfer resistance and electrode capacitance, where they are moved."""
        at = {p.name: j for j, p in enumerate(self.free)}
        layer = at.get("boundary_conductivity") if "core_charge" in at else None
        transfer = at.get("charge_transfer_resistance")
        return layer, transfer, None if transfer is None else at.get("electrode_capacitance")

    def _at_rest(self, values: Mapping[str, float]) -> tuple[float, float, float]:
        assert self.grain_size is not None
        layer, grain = self._equilibrium(values, 0.0).at_rest
        return values["width_over_grain_size"] * self.grain_size, layer, grain

    def _pellet_resistance(self, values: Mapping[str, float]) -> float:
        """Times the electrode's area [ohm m²], at zero frequency and the reference temperature."""
        return self._pellet(values)[1]

    # ---- likelihood -----------------------------------------------------------------------------------------------
    def misfit(self, values: Mapping[str, float]) -> Floats:
        """(model − measured)/|measured|, real and imaginary parts (2 m,)."""
        difference = (self.model(values) - self.impedance) * self._weight
        return np.concatenate([difference.real, difference.imag])

    def log_likelihood(self, coordinates: Floats) -> float:
        """Gaussian, relative error `noise` of |Z| in each part; −inf for parameters no pellet can have."""
        values = self.values(coordinates)
        try:
            with np.errstate(all="ignore"):
                r = self.misfit(values)
        except (InputError, ConvergenceError):
            return -np.inf
        cost = float(r @ r) / values["noise"] ** 2
        total = -0.5 * cost - len(r) * np.log(values["noise"]) - 0.5 * len(r) * np.log(2 * np.pi)
        return float(total + 2 * np.log(self._weight).sum()) if np.isfinite(total) else -np.inf

    def within_bounds(self, coordinates: Floats) -> Floats:
        """Points (k, n) reflected at the hard bounds, and clipped where that does not bring them inside."""
        u = np.where(coordinates < self._low, 2 * self._low - coordinates, coordinates)
        u = np.where(u > self._high, 2 * self._high - u, u)
        return np.asarray(np.clip(u, self._low, self._high))

    def log_prior(self, coordinates: Floats) -> float:
        """Normal priors within hard bounds."""
        u = np.asarray(coordinates, dtype=float)
        if np.any(u < self._low) or np.any(u > self._high):
            return -np.inf
        z = (u - self._mean) / self._deviation
        return float(-0.5 * z @ z - np.log(self._deviation).sum() - 0.5 * len(u) * np.log(2 * np.pi))

    def log_posterior(self, coordinates: Floats) -> float:
        """Not normalised."""
        prior = self.log_prior(coordinates)
        return prior + self.log_likelihood(coordinates) if np.isfinite(prior) else -np.inf

    # ---- most probable parameters -----------------------------------------------------------------------------------
    def most_probable(self, starts: int = 8, seed: int = 0) -> MostProbable:
        """Maximum of the posterior by least squares from several starts; ConvergenceError where none converges."""
        rng = np.random.default_rng(seed)
        maxima: list[tuple[float, Floats]] = []
        for start in self._starts(starts, rng):
            found = self._descend(start)
            if found is not None:
                maxima.append(found)
        if not maxima:
            raise ConvergenceError(
                "no start of the fit converged; check geometry and units, or give priors nearer to the data",
                at=f"{starts} starts",
            )
        value, u = self._stepped_over(maxima)
        best = self._described(u)
        others: list[MostProbable] = []
        for lower, point in sorted(maxima, key=lambda one: -one[0]):
            if value - lower > NEAR_THE_BEST:
                break
            if all(other.far_from(point) for other in (best, *others)):
                others.append(self._described(point))
        return replace(best, others=tuple(others))

    def _stepped_over(self, maxima: list[tuple[float, Floats]], rounds: int = 6) -> tuple[float, Floats]:
        """The best point found from the middles of the neighbouring smooth pieces of the blocking fraction.

        Least squares cannot cross a kink: each side may slope towards it. What is found joins the `maxima`.
        """
        best = max(maxima, key=lambda one: one[0])
        j = next((k for k, p in enumerate(self.free) if p.name == "blocking_fraction"), None)
        if j is None:
            return best
        edges = np.r_[0.0, self.polycrystal.kinks, 1.0]
        middles = 0.5 * (edges[1:] + edges[:-1])
        tried: set[int] = set()
        for _ in range(rounds):
            share = float(self.free[j].value(best[1][j]))
            # On a kink both sides are neighbours.
            near = np.abs(middles - share).argsort()[:3]
            fresh = [k for k in near.tolist() if k not in tried]
            tried.update(fresh)
            better = None
            for k in fresh:
                start = best[1].copy()
                start[j] = self.free[j].coordinate(float(middles[k]))
                found = self._descend(start)
                if found is not None:
                    maxima.append(found)
                    if found[0] > best[0] + 1e-6:
                        best = better = found
            if better is None:
                return best
        return best

    def _starts(self, count: int, rng: np.random.Generator) -> list[Floats]:
        total, tail = self._total_resistance()
        sigma = self.geometry.cell_constant / total
        slope = 0.4
        if len(set(self.temperatures.tolist())) > 1:
            slope = float(-np.polyfit(self._inverse, np.log(sigma * self.temperatures), 1)[0])
        middle = int(np.argmin(np.abs(self._inverse)))
        m = self.measurements[middle]
        omega = 2 * np.pi * m.frequency
        # C of the fastest points: −Z'' → 1/(ωC).
        fast = (
            self.geometry.cell_constant
            * np.median((1 / m.impedance).imag[:4] / omega[:4])
            / VACUUM_PERMITTIVITY
        )
        starts = []
        for k in range(count):
            share = (0.5, 0.15, 0.85, 0.05)[k % 4]
            width = self._mean_of("width_over_grain_size") + rng.normal(0.0, 1.0) * (k >= 4)
            guess = {
                "bulk_conductivity": np.log(sigma[middle] / share),
                "bulk_activation_energy": slope,
                "boundary_conductivity": np.log(sigma[middle] / (1 - share)) + width,
                "boundary_activation_energy": slope,
                "width_over_grain_size": width,
                "permittivity": np.log(max(fast, 2.0)),
                "electrode_capacitance": -np.log(tail[middle] * self.geometry.area * omega[-1] ** 0.8),
                "noise": np.log(0.03),
            }
            if self.space_charge is not None:
                # The slope may vanish at no charge; either sign.
                guess["core_charge"] = (-1) ** k * 0.5 * self.parameters["core_charge"].deviation
            if self.electrode == "charge transfer":
                # The slowest arc, in the lower third of the window.
                transfer = SLOWEST_SHARE * total[middle] * self.geometry.area
                slow = omega[-1] ** (2 / 3) * omega[0] ** (1 / 3)
                guess["charge_transfer_resistance"] = np.log(transfer)
                guess["electrode_capacitance"] = -np.log(transfer * slow**0.8)
            # From the prior's mean of the blocking fraction, the first four from far apart shares as well, the first
            # two also from layers near the widest, whatever the seed: there may be another maximum.
            guesses = [guess]
            if k < 4 and any(p.name == "blocking_fraction" for p in self.free):
                guesses.append(guess | {"blocking_fraction": logit((0.05, 0.15, 0.3, 0.5)[k])})
            widest = self.parameters["width_over_grain_size"].bounds[1] + np.log(NEAR_THE_WIDEST)
            if k < 2 and self.parameters["width_over_grain_size"].free:
                wider = guess["boundary_conductivity"] + widest - width
                guesses.append(guess | {"width_over_grain_size": widest, "boundary_conductivity": wider})
            for one in guesses:
                start = np.array([one.get(p.name, p.mean) for p in self.free], dtype=float)
                starts.append(np.clip(start, self._low + 1e-6, self._high - 1e-6))
        return starts

    def _mean_of(self, name: str) -> float:
        return self.parameters[name].mean

    def _descend(self, start: Floats, rounds: int = 4) -> tuple[float, Floats] | None:
        """Least squares in all but the noise, which follows from the misfit, in turn."""
        at = next((j for j, p in enumerate(self.free) if p.name == "noise"), None)
        moving = np.array([j for j in range(len(self.free)) if j != at])
        u = start.copy()

        def residual(x: Floats) -> Floats:
            full = u.copy()
            full[moving] = x
            values = self.values(full)
            try:
                with np.errstate(all="ignore"):
                    r = self.misfit(values) / values["noise"]
            except ConvergenceError:
                # A trial step to a charge no boundary holds: far off, so that the search turns back.
                r = np.full(2 * len(self.frequency), np.inf)
            prior = (x - self._mean[moving]) / self._deviation[moving]
            joined = np.concatenate([r, prior])
            return np.asarray(np.nan_to_num(joined, nan=1e6, posinf=1e6, neginf=-1e6), dtype=float)

        for turn in range(rounds):
            try:
                found = least_squares(
                    residual,
                    u[moving],
                    bounds=(self._low[moving], self._high[moving]),
                    x_scale=self._deviation[moving],
                    max_nfev=60 if turn < rounds - 1 else 200,
                )
            except InputError:
                return None
            u[moving] = found.x
            if at is None:
                break
            r = self.misfit(self.values(u))
            before = u[at]
            u[at] = self._noise_for(float(r @ r), len(r), at)
            if abs(u[at] - before) < 1e-3:
                break
        value = self.log_posterior(u)
        return (value, u) if np.isfinite(value) else None

    def _noise_for(self, square: float, count: int, at: int) -> float:
        """Most probable ln(noise) for a sum of squared misfits under its prior: a scalar Newton iteration."""
        s = 0.5 * np.log(max(square, 1e-300) / count)
        for _ in range(50):
            pull = (s - self._mean[at]) / self._deviation[at] ** 2
            weight = square * np.exp(-2 * s)
            step = (weight - count - pull) / (2 * weight + 1 / self._deviation[at] ** 2)
            s += float(np.clip(step, -1.0, 1.0))
            if abs(step) < 1e-10:
                break
        return float(np.clip(s, self._low[at] + 1e-9, self._high[at] - 1e-9))

    def _described(self, u: Floats) -> MostProbable:
        jacobian = self.jacobian(u)
        noise = self.values(u)["noise"]
        information = jacobian.T @ jacobian / noise**2
        at = [j for j, p in enumerate(self.free) if p.name == "noise"]
        for j in at:
            information[j, :] = information[:, j] = 0.0
            information[j, j] = 2.0 * len(jacobian)
        covariance = np.asarray(np.linalg.inv(information + np.diag(1 / self._deviation**2)), dtype=float)
        return MostProbable(self, u, self.log_posterior(u), information, covariance)

    def jacobian(self, coordinates: Floats, step: float = 1e-4) -> Floats:
        """d misfit/d coordinates (2 m, n) by central differences; the noise's column is zero."""
        u = np.asarray(coordinates, dtype=float)
        columns = []
        for j, p in enumerate(self.free):
            if p.name == "noise":
                columns.append(np.zeros(2 * len(self.frequency)))
                continue
            h = step * p.deviation
            up, down = u.copy(), u.copy()
            up[j], down[j] = min(u[j] + h, self._high[j]), max(u[j] - h, self._low[j])
            columns.append(
                (self.misfit(self.values(up)) - self.misfit(self.values(down))) / (up[j] - down[j])
            )
        return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Combination:
    """A combination of parameters and how much the data narrow it.

    weights: by parameter, of the coordinates over their prior deviations, unit length. narrowing: posterior over prior
    deviation along it; verdict: "data", "both" or "prior".
    """

    weights: dict[str, float]
    narrowing: float

    @property
    def verdict(self) -> Literal["data", "both", "prior"]:
        """Who decides this combination."""
        return verdict(self.narrowing)

    def in_words(self, least: float = 0.25) -> str:
        """The larger weights, such as "0.71 ln(boundary_conductivity) − 0.70 ln(width_over_grain_size)"."""
        big = sorted(self.weights.items(), key=lambda w: -abs(w[1]))
        parts = [(n, w) for n, w in big if abs(w) >= least] or big[:1]
        text = " ".join(f"{'−' if w < 0 else '+'} {abs(w):.2f} {n}" for n, w in parts)
        return text.removeprefix("+ ")


def verdict(narrowing: float) -> Literal["data", "both", "prior"]:
    """ "data" below a third of the prior's width, "prior" above 0.8 of it."""
    return "data" if narrowing < DATA_BELOW else "prior" if narrowing > PRIOR_ABOVE else "both"


@dataclass(frozen=True, eq=False)
class MostProbable:
    """The most probable parameters and the local shape of the posterior.

    coordinates (n,); information (n, n): Fisher information of the data; covariance (n, n): of the normal
    approximation to the posterior, prior included. others: lower maxima that a sampling starts from too.
    """

    fit: PelletFit
    coordinates: Floats
    log_posterior: float
    information: Floats
    covariance: Floats
    others: tuple[MostProbable, ...] = ()

    @property
    def log_evidence(self) -> float:
        """ln of the posterior's integral around this maximum in the normal approximation, but for a constant."""
        return self.log_posterior + 0.5 * float(np.linalg.slogdet(self.covariance)[1])

    def far_from(self, coordinates: Floats) -> bool:
        """Whether a point (n,) is another maximum by the normal approximation around this one."""
        apart = coordinates - self.coordinates
        return float(apart @ np.linalg.solve(self.covariance, apart)) > FAR**2 * len(apart)

    @property
    def values(self) -> dict[str, float]:
        """Every parameter's value."""
        return self.fit.values(self.coordinates)

    @property
    def deviations(self) -> dict[str, float]:
        """Standard deviation of every free parameter in its fit coordinate."""
        return dict(
            zip((p.name for p in self.fit.free), np.sqrt(np.diag(self.covariance)).tolist(), strict=True)
        )

    def interval(self, name: str, level: float = 1.959964) -> tuple[float, float]:
        """95 % interval of a parameter from the normal approximation, in its own unit."""
        j = [p.name for p in self.fit.free].index(name)
        p, half = self.fit.free[j], level * np.sqrt(self.covariance[j, j])
        low, high = self.coordinates[j] - half, self.coordinates[j] + half
        return float(p.value(max(low, p.bounds[0]))), float(p.value(min(high, p.bounds[1])))

    def combinations(self) -> list[Combination]:
        """Eigenvectors of the Fisher information in units of the priors, best determined first.

        With eigenvalue q of the information (in prior deviations) the posterior is 1/√(1 + q) of the prior's width.
        """
        scale = np.array([p.deviation for p in self.fit.free])
        values, vectors = np.linalg.eigh(scale[:, None] * self.information * scale)
        names = [p.name for p in self.fit.free]
        found = []
        for q, v in zip(values[::-1], vectors.T[::-1], strict=True):
            sign = 1.0 if v[np.abs(v).argmax()] > 0 else -1.0
            weights = dict(zip(names, (sign * v).tolist(), strict=True))
            found.append(Combination(weights, float(1 / np.sqrt(1 + max(q, 0.0)))))
        return found
