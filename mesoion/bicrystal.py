"""One grain boundary resolved in one dimension: space charge, and the excess quantities a pellet needs of it.

    r = integral (1/sigma_across - 1/sigma_grain) dx   [ohm m^2]
    s = integral (sigma_along - sigma_grain) dx        [S]

and at frequency their complex counterparts from the small-signal solution. A layer between two half grains; what
is reported is in excess of grain that fills the whole space, so it may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import ConvergenceError, InputError, MeshError
from mesoion.material import Phase, flat_band_energy
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.physics import VACUUM_PERMITTIVITY, CellFields, Electrode, debye_length
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem, State
from mesoion.units import BOLTZMANN

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Bools = NDArray[np.bool_]

# First cell at the layer's faces over the others' size, and growth of the cells from there, at 8 cells per length.
_FACE, _GROWTH = 0.1, 1.06
# Debye lengths of grain kept at a fine step beside the layer, and in all.
_FINE, _TOTAL = 12.0, 30.0
# Potential left at the outer ends [kT/e] that counts as none, and what counts as space charge.
_ENDS, _BENT = 1e-6, 1e-3
_TRIALS = 10
# A layer this near to flat bands [kT, and share of its carriers] is flat: what rounding leaves.
_FLAT = 1e-12


@dataclass(frozen=True, eq=False)
class Bicrystal:
    """Equilibrium of a boundary layer between two half grains, and its excess transport; x = 0 is its middle.

    grain, boundary: the phases solved for (core charge included). state: the solution. mesh_note says how the
    mesh was laid out.
    """

    grain: Phase
    boundary: Phase
    state: State
    mesh_note: str

    @property
    def mesh(self) -> CellMesh:
        """The line of cells."""
        return self.state.system.mesh

    @property
    def x(self) -> Floats:
        """Positions of the cells (n,) [m]."""
        return self.mesh.centers[:, 0]

    @property
    def in_layer(self) -> Bools:
        """Cells inside the boundary layer (n,)."""
        return np.asarray(self.mesh.region == 1)

    @property
    def potential(self) -> Floats:
        """phi (n,) [V] against the grain's interior."""
        return self.state.potential

    @property
    def occupancy(self) -> Floats:
        """theta (n,)."""
        return self.state.occupancy

    @property
    def conductivity_across(self) -> Floats:
        """Across the boundary (n,) [S/m]."""
        return self.state.conductivity_across

    @property
    def conductivity_along(self) -> Floats:
        """Along the boundary (n,) [S/m]."""
        return self.state.conductivity_along

    @property
    def debye_length(self) -> float:
        """Of the grain's interior [m]."""
        return _debye(self.grain, self.grain.reference_occupancy)

    @property
    def space_charge_potential(self) -> float:
        """phi at the layer's faces against the grain [V]: the height of the barrier (if positive) in the grains."""
        d = self.state.system.discretisation
        return (
            float(self.state.profile.phi[d.n_cells] * d.thermal_voltage) if d.n_split else self._face_mean()
        )

    def _face_mean(self) -> float:
        first = int(np.flatnonzero(self.in_layer)[0])
        outside, inside = self.potential[first - 1], self.potential[first]
        eps_o, eps_i = self.grain.relative_permittivity, self.boundary.relative_permittivity
        h_o, h_i = self.mesh.volumes[first - 1], self.mesh.volumes[first]
        return float((outside * eps_o / h_o + inside * eps_i / h_i) / (eps_o / h_o + eps_i / h_i))

    @property
    def core_potential(self) -> float:
        """phi in the middle of the layer against the grain [V]."""
        return float(np.interp(0.0, self.x, self.potential))

    @property
    def core_charge(self) -> float:
        """Net charge of the layer, Li included [C/m^2]; the space charge on both sides balances it."""
        return float((self.state.charge_density * self.mesh.volumes)[self.in_layer].sum())

    @cached_property
    def excess_resistance(self) -> float:
        """r [ohm m^2]: resistance across beyond that of grain of the same length; inf where double range ends."""
        d = self.state.system.discretisation
        with np.errstate(divide="ignore", over="ignore"):
            resistance = d.thermal_voltage / (d.ampere() * d.conductance(self.state.profile))
        return float(resistance.sum() - self.mesh.volumes.sum() / self.grain.conductivity_across)

    @cached_property
    def excess_sheet_conductance(self) -> float:
        """s [S]: conductance along the boundary beyond that of grain in its place."""
        excess = self.conductivity_along - self.grain.conductivity_across
        return float(excess @ self.mesh.volumes)

    def excess_impedance(self, frequencies: ArrayLike) -> Complexes:
        """Z of the bicrystal less that of grain of the same length, at frequencies (n,) [Hz] -> (n,) [ohm m^2].

        Ionic and displacement current through the resolved space charge, by complex small-signal solutions.
        """
        spectrum = impedance(self.state.system, self.state, frequencies, method="direct")
        length = self.mesh.volumes.sum()
        return np.asarray(spectrum.impedance - length / self._grain_admittivity(spectrum.frequency))

    def excess_sheet_admittance(self, frequencies: ArrayLike) -> Complexes:
        """Integral of (sigma_along + i omega eps) less that of the grain, at (n,) [Hz] -> (n,) [S].

        A field along the boundary moves no Li between its cells, so each conducts for itself.
        """
        iw = 2j * np.pi * np.atleast_1d(np.asarray(frequencies, dtype=float))
        eps = VACUUM_PERMITTIVITY * (self.boundary.relative_permittivity - self.grain.relative_permittivity)
        return np.asarray(self.excess_sheet_conductance + iw * eps * self.mesh.volumes[self.in_layer].sum())

    def _grain_admittivity(self, frequency: Floats) -> Complexes:
        eps = VACUUM_PERMITTIVITY * self.grain.relative_permittivity
        return np.asarray(self.grain.conductivity_across + 2j * np.pi * frequency * eps)


def solve_bicrystal(
    grain: Phase,
    boundary: Phase,
    *,
    core_charge: float = 0.0,
    half_length: float | None = None,
    cells_per_debye_length: float = 12.0,
) -> Bicrystal:
    """Equilibrium of a `boundary` layer of its own width between two half grains, on a mesh that resolves it.

    core_charge: further charge of the layer's framework [elementary charges per m^2], positive or negative.
    half_length: from the middle of the layer to each end [m]; by default 30 Debye lengths of the grain beside the
    layer, doubled until the potential has died away. cells_per_debye_length: where the space charge varies, a
    tenth of that size at the layer's faces; the default keeps r and s within 1e-3.
    Raises InputError for a layer without a width or of another temperature, MeshError for a half length that cuts
    the space charge, ConvergenceError as the solver does.
    """
    width = boundary.width
    if width is None:
        raise InputError(f"phase {boundary.name}: width", None, "a boundary layer needs its width in metres")
    if boundary.temperature != grain.temperature:
        raise InputError(
            f"phase {boundary.name}: temperature",
            boundary.temperature,
            f"the grain is at {grain.temperature} K",
        )
    if not (np.isfinite(core_charge) and cells_per_debye_length >= 1.0):
        raise InputError(
            "core_charge, cells_per_debye_length",
            (core_charge, cells_per_debye_length),
            "give a finite charge and at least one cell per Debye length",
        )
    if half_length is not None and not half_length > 0.5 * width:
        raise InputError("half_length", half_length, f"give more than half the layer, {0.5 * width:.3g} m")
    layer = replace(boundary, fixed_charge=boundary.fixed_charge + core_charge / width)
    decay = _debye(grain, grain.reference_occupancy)
    fine, beside = _FINE * decay, _TOTAL * decay
    if half_length is not None:
        beside = half_length - 0.5 * width
    for _ in range(_TRIALS):
        edges, note = _edges(grain, layer, width, min(fine, beside), beside, decay, cells_per_debye_length)
        state = _equilibrium(grain, layer, edges, width)
        psi = np.abs(state.potential) / state.system.discretisation.thermal_voltage
        bent = np.abs(state.system.mesh.centers[:, 0]) * (psi > _BENT)
        reach = float(bent.max()) - 0.5 * width
        if half_length is not None and psi[0] > _BENT:
            raise MeshError(
                f"half_length {half_length:.3g} m cuts the space charge: {psi[0]:.2g} kT/e are left at its end; "
                f"give a longer one (the grain's Debye length is {decay:.3g} m)"
            )
        if psi[0] >= _ENDS and half_length is None:
            beside *= 2.0
        elif reach > fine - 0.5 * _FINE * decay and fine < beside:
            # A wide depletion layer: keep its outer edge on fine cells too.
            fine = reach + _FINE * decay
            beside = beside if half_length is not None else max(beside, reach + _TOTAL * decay)
        else:
            return Bicrystal(grain, layer, state.system.checked(state, refuse=True), note)
    raise ConvergenceError(
        "the space charge does not die away into the grain; check the boundary's charge and energy",
        at=f"half length {beside:.3g} m",
    )


def excess(grain: Phase, boundary: Phase) -> tuple[float, float]:
    """Excess resistance r [ohm m²] and excess sheet conductance s [S] of a boundary layer at equilibrium.

    A neutral layer in equilibrium with the grain as it is makes no space charge: r = w(1/σ⊥ − 1/σ_grain) and
    s = w(σ∥ − σ_grain), in closed form. Any other is resolved (`solve_bicrystal`, which says what is raised).
    """
    if boundary.width is None or boundary.temperature != grain.temperature or not _is_flat(grain, boundary):
        resolved = solve_bicrystal(grain, boundary)
        return resolved.excess_resistance, resolved.excess_sheet_conductance
    bulk = grain.conductivity_across
    return (
        boundary.width * (1.0 / boundary.conductivity_across - 1.0 / bulk),
        boundary.width * (boundary.conductivity_along - bulk),
    )


def _is_flat(grain: Phase, boundary: Phase) -> bool:
    """Whether the layer is neutral and in equilibrium at its reference occupancy without any potential."""
    energy = flat_band_energy(grain.temperature, grain.reference_occupancy, boundary.reference_occupancy)
    charge = boundary.fixed_charge + boundary.carrier_density
    return (
        abs(boundary.standard_energy - grain.standard_energy - energy)
        <= _FLAT * BOLTZMANN * grain.temperature
        and abs(charge) <= _FLAT * boundary.carrier_density
    )


def _debye(phase: Phase, theta: float) -> float:
    return float(
        debye_length(
            np.array(phase.relative_permittivity),
            phase.temperature,
            np.array(phase.site_density),
            np.array(theta),
        )
    )


def _edges(
    grain: Phase, layer: Phase, width: float, fine: float, beside: float, decay: float, per_length: float
) -> tuple[Floats, str]:
    """Cell edges: fine at the layer's faces, growing inwards and outwards."""
    shortest = min(_debye(grain, 0.5), _debye(layer, 0.5))
    step = _FACE * shortest / per_length
    growth = 1.0 + (_GROWTH - 1.0) * 8.0 / per_length
    core = _growing(0.5 * width, min(step, width / 8.0), growth, width / 8.0)
    near = _growing(fine, min(step, fine / 4.0), growth, decay / per_length * 1.5)
    widths = near
    if beside > fine:
        widths = np.r_[near, _growing(beside - fine, near[-1], 1.0 + 2.0 * (growth - 1.0), np.inf)]
    half = np.cumsum(np.r_[core[::-1], widths])
    edges = np.r_[-half[::-1], 0.0, half]
    note = (
        f"{len(edges) - 1} cells; the smallest, {min(core.min(), widths.min()):.3g} m, lie at the faces of the layer "
        f"(shortest Debye length {shortest:.3g} m); {half[-1]:.3g} m from the middle to each end "
        f"({beside / decay:.0f} Debye lengths of the grain beside the layer)"
    )
    return edges, note


def _growing(length: float, first: float, ratio: float, largest: float) -> Floats:
    """Cell widths that fill `length`, from about `first` on growing by `ratio` up to `largest`."""
    widths = [first]
    total = first
    while total < length:
        widths.append(min(widths[-1] * ratio, max(largest, first)))
        total += widths[-1]
    return np.array(widths) * (length / total)


def _equilibrium(grain: Phase, layer: Phase, edges: Floats, width: float) -> State:
    mesh = tensor_mesh([edges])
    inside = np.abs(mesh.centers[:, 0]) < 0.5 * width
    mesh = mesh.with_regions(inside.astype(np.int64), ("grain", "boundary"))
    mesh = replace(mesh, layer_normals=inside[:, np.newaxis].astype(float))
    fields = CellFields.from_phases(mesh, {"grain": grain, "boundary": layer})
    contacts = {"left": Electrode("reversible"), "right": Electrode("reversible")}
    return PNPSystem(mesh, fields, grain.temperature, contacts, resolution="ignore").equilibrium()
