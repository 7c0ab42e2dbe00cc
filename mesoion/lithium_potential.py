"""Chemical potential of lithium in a solid that conducts ions and electrons, and what it means for metal inside it.

    mu_Li = mu~_Li + mu~_e,      eta = (mu_Li − mu_Li,metal)/e

eta is the overpotential for plating inside the solid, positive when metal is favoured. Ions and electrons are species
of the resolved Poisson-Nernst-Planck system; both electrodes are lithium, so mu_Li,metal is the sum of the two
reservoirs. At rest eta is zero everywhere, in every boundary and whatever its space charge: current makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mesoion.bicrystal import Bicrystal, solve_bicrystal
from mesoion.errors import ConvergenceError, InputError, LimitingCurrentError, NoElectronsError
from mesoion.material import Phase
from mesoion.mesh import CellMesh
from mesoion.microstructure import Microstructure
from mesoion.physics import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    CellFields,
    DiluteSpecies,
    Electrode,
)
from mesoion.solve import PNPSystem, State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ELECTRON, HOLE = "electron", "hole"
_LARGEST_VOLTAGE = 10.0
_CURRENT_TOLERANCE = 1e-9
_ITERATIONS = 80


def lithium_electrode(
    charge_transfer_resistance: float = 0.0,
    kinetics: Literal["linear", "butler-volmer"] = "linear",
    *,
    passes_electrons: bool = True,
) -> Electrode:
    """Lithium on the solid: Li⁺ through `charge_transfer_resistance` [Ω m²], electrons in equilibrium or blocked."""
    return Electrode(
        "reversible",
        charge_transfer_resistance=charge_transfer_resistance,
        kinetics=kinetics,
        passes=(ELECTRON, HOLE) if passes_electrons else (),
    )


def ion_blocking_electrode(compact_capacitance: float | None = 0.1) -> Electrode:
    """A metal that takes no lithium and passes electrons, as in a polarisation cell after Hebb and Wagner.

    compact_capacitance [F/m²]: takes the voltage that lithium leaves at the contact; without it the solid's own space
    charge does, and wants a mesh for it.
    """
    return Electrode("blocking", compact_capacitance, passes=(ELECTRON, HOLE))


def electronic_species(mesh: CellMesh, phases: Mapping[str, Phase]) -> list[DiluteSpecies]:
    """Electrons, and holes where a phase has them, on a mesh whose regions are called as in `phases`.

    Each region keeps its own density and mobility against lithium metal: the band offset is in the density.
    Raises NoElectronsError where a phase has no electrons (or, with holes in the grain, no holes), InputError for more
    carriers than Li sites.
    """
    rows = [phases[name] for name in mesh.region_names]
    species = []
    for name, charge in ((ELECTRON, -1), (HOLE, 1)):
        sigma_name = "electronic_conductivity" if name == ELECTRON else "hole_conductivity"
        sigma = np.array([getattr(p, sigma_name) for p in rows])
        density = np.array([getattr(p, f"{name}_density") for p in rows])
        if name == HOLE and not sigma.any():
            continue
        if not np.all(sigma > 0.0):
            raise NoElectronsError(f"phase {rows[int(np.argmin(sigma))].name!r}")
        for phase, n in zip(rows, density.tolist(), strict=True):
            # Here and not in the phase: ions alone are solved also for draws with senseless electrons.
            if n > phase.site_density:
                raise InputError(
                    f"{phase.name}.{name}_density",
                    n,
                    f"more carriers than Li sites ({phase.site_density:.3g} per m^3): the dilute law does not "
                    "hold; check the band offset and the mobility",
                )
        thermal = BOLTZMANN * rows[0].temperature
        diffusivity = (sigma * thermal / (ELEMENTARY_CHARGE**2 * density))[mesh.region]
        species.append(DiluteSpecies(name, charge, density[mesh.region], diffusivity, diffusivity))
    return species


def mixed_conductor(
    mesh: CellMesh,
    phases: Mapping[str, Phase],
    electrodes: Mapping[str, Electrode] | None = None,
    *,
    resolution: Literal["refuse", "warn", "ignore"] = "refuse",
) -> PNPSystem:
    """Li⁺, electrons and holes on a mesh whose regions are called as in `phases`; the first one is the grain.

    electrodes: by outer face; by default lithium without charge-transfer resistance on "left" and "right". The
    framework's charge balances the electrons that lithium metal puts into each phase, so that grains stay neutral.
    resolution: as for `PNPSystem`. Raises NoElectronsError and what `PNPSystem` raises.
    """
    species = electronic_species(mesh, phases)
    fields = CellFields.from_phases(mesh, phases)
    carriers = sum(
        (-s.charge * np.asarray(s.reference_concentration) for s in species), np.zeros(mesh.n_cells)
    )
    fields = replace(fields, fixed_charge=fields.fixed_charge + carriers)
    if electrodes is None:
        electrodes = {"left": lithium_electrode(), "right": lithium_electrode()}
    known = {s.name for s in species}
    fitting = {
        name: replace(e, passes=tuple(p for p in e.passes if p in known or p not in (ELECTRON, HOLE)))
        for name, e in electrodes.items()
    }
    temperature = phases[mesh.region_names[0]].temperature
    return PNPSystem(mesh, fields, temperature, fitting, species=species, resolution=resolution)


def mixed_bicrystal(
    grain: Phase,
    boundary: Phase,
    electrodes: Mapping[str, Electrode] | None = None,
    *,
    half_length: float | None = None,
    core_charge: float = 0.0,
    cells_per_debye_length: float = 12.0,
) -> PNPSystem:
    """One resolved boundary between two half grains that conduct ions and electrons, between electrodes.

    The line and its arguments are those of `mesoion.bicrystal.solve_bicrystal`; the left half is grain 0, the right
    one grain 1, the boundary facet 0. Raises NoElectronsError and what `solve_bicrystal` raises.
    """
    for phase in (grain, boundary):
        if not phase.electronic_conductivity > 0.0:
            raise NoElectronsError(f"phase {phase.name!r}")
    line = solve_bicrystal(
        grain,
        boundary,
        core_charge=core_charge,
        half_length=half_length,
        cells_per_debye_length=cells_per_debye_length,
    )
    mesh = line.mesh
    mesh = replace(
        mesh,
        grain=np.where(line.in_layer, -1, (line.x > 0.0).astype(np.int64)),
        facet=np.where(line.in_layer, 0, -1).astype(np.int64),
    )
    return mixed_conductor(mesh, {"grain": line.grain, "boundary": line.boundary}, electrodes)


def boundary_resistances(boundary: Bicrystal) -> tuple[float, float]:
    """Resistance [Ω m²] of a resolved boundary to ions and to electrons at rest, beyond that of grain in its place
    and of its own width: what `mesoion.wagner.pellet_overpotential` takes.

    The ionic one is r + w/σ_b; the electronic one follows the space charge, ∫(1/σ_e(x) − 1/σ_e,b) dx + w/σ_e,b
    with σ_e(x) = σ_e exp(eφ/kT). Raises NoElectronsError.
    """
    grain, layer = boundary.grain, boundary.boundary
    for phase in (grain, layer):
        if not phase.electronic_conductivity > 0.0:
            raise NoElectronsError(f"phase {phase.name!r}")
    width = float(boundary.mesh.volumes[boundary.in_layer].sum())
    thermal = BOLTZMANN * grain.temperature / ELEMENTARY_CHARGE
    bent = np.exp(boundary.potential / thermal)
    sigma = np.where(boundary.in_layer, layer.electronic_conductivity, grain.electronic_conductivity)
    excess = (1.0 / (sigma * bent) - 1.0 / grain.electronic_conductivity) @ boundary.mesh.volumes
    return (
        boundary.excess_resistance + width / grain.conductivity_across,
        float(excess) + width / grain.electronic_conductivity,
    )


# Fields of a state -------------------------------------------------------------------------------------------------


def _require_electrons(state: State) -> int:
    names = state.system.discretisation.species_names
    if ELECTRON not in names:
        raise NoElectronsError("this state")
    return names.index(ELECTRON)


def overpotential(state: State) -> Floats:
    """eta (n,) [V] = (mu~_Li + mu~_e − mu_Li,metal)/e, positive where metal is favoured.

    mu_Li,metal is that of electrodes which exchange Li⁺ and electrons. Raises NoElectronsError.
    """
    electron = _require_electrons(state)
    d = state.system.discretisation
    profile = state.profile
    return np.asarray((profile.eta[0] + profile.eta[electron])[: d.n_cells] * d.thermal_voltage)


def lithium_chemical_potential(state: State) -> Floats:
    """mu_Li − mu_Li,metal (n,) [J]. Raises NoElectronsError."""
    return overpotential(state) * ELEMENTARY_CHARGE


def electronic_conductivity(state: State) -> Floats:
    """Conductivity of electrons and holes (n,) [S/m] at the state's concentrations. Raises NoElectronsError."""
    _require_electrons(state)
    d = state.system.discretisation
    total = np.zeros(d.n_cells)
    for index in range(1, len(d.species_names)):
        total += d.dilute_conductivity(index) * state.profile.filling[index][: d.n_cells]
    return total


def partial_currents(state: State, electrode: str) -> dict[str, float]:
    """Current from the electrode into the solid by species [A, A/m, A/m² in 3D, 2D, 1D] in a steady state."""
    d = state.system.discretisation
    if electrode not in d.names:
        raise InputError("electrode", electrode, f"the electrodes are {', '.join(d.names)}")
    here = d.electrode_of_wall == d.names.index(electrode)
    wall = d.wall_fluxes(state.profile)
    return {
        name: -float(charge * flux[here].sum()) * d.ampere()
        for name, charge, flux in zip(d.species_names, d.charges, wall, strict=True)
    }


def galvanostatic(
    system: PNPSystem,
    electrode: str,
    current: float,
    start: State | None = None,
    *,
    largest_voltage: float = _LARGEST_VOLTAGE,
    tolerance: float = _CURRENT_TOLERANCE,
) -> State:
    """Steady state in which `electrode` feeds `current` [A, A/m, A/m² in 3D, 2D, 1D] into the solid, the others at 0 V.

    The voltage is found by bracketed secants to a relative `tolerance` of the current. Raises LimitingCurrentError,
    with the largest current, where `largest_voltage` [V] does not drive the current asked for, ConvergenceError where
    the secants do not end, and what `PNPSystem.steady_state` raises.
    """
    if electrode not in system.electrodes:
        raise InputError("electrode", electrode, f"the electrodes are {', '.join(system.electrodes)}")
    if not np.isfinite(current):
        raise InputError("current", current, "give a finite current")
    state = start if start is not None else system.equilibrium()
    if current == 0.0:
        return system.steady_state({electrode: 0.0}, state)
    sign = float(np.sign(current))
    wanted = abs(current)
    low, i_low, low_state = 0.0, 0.0, system.equilibrium()
    if state.voltages.get(electrode, 0.0) * sign > 0.0:
        found = sign * state.current(electrode)
        if 0.0 < found < wanted:
            low, i_low, low_state = abs(state.voltages[electrode]), found, state
    high: float | None = None
    i_high = np.inf
    side = 0
    trial = low + 0.1 * system.discretisation.thermal_voltage if low == 0.0 else low * wanted / i_low
    state = low_state
    for _ in range(_ITERATIONS):
        trial = min(trial, largest_voltage)
        state = system.steady_state({electrode: float(sign * trial)}, state)
        found = sign * state.current(electrode)
        if abs(found - wanted) <= tolerance * wanted:
            return state
        if found < wanted:
            if trial >= largest_voltage:
                unit = ("A/m^2", "A/m", "A")[system.mesh.dimension - 1]
                raise LimitingCurrentError(
                    current, sign * found, unit, f"{largest_voltage:g} V on {electrode}"
                )
            step = (trial - low) / max(found - i_low, 1e-300)
            low, i_low = trial, found
            i_high = 0.5 * (i_high - wanted) + wanted if side < 0 and high is not None else i_high
            side = -1
            if high is None:
                trial = low + min((wanted - found) * step * 1.02, max(4.0 * low, 0.1))
                continue
        else:
            high, i_high = trial, found
            i_low = 0.5 * (i_low - wanted) + wanted if side > 0 else i_low
            side = 1
        trial = low + (wanted - i_low) * (high - low) / (i_high - i_low)
    raise ConvergenceError(
        f"no voltage was found for a current of {current:.6g}; loosen the tolerance",
        at=f"{trial:.6g} V on {electrode}",
        last_good=state,
    )


# Boundaries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BoundarySides:
    """Both sides of every boundary facet, one row a side: means over the facet's faces, weighted by their areas.

    facet, grain (k,): facet number and the grain on this side; region (k,): index into the mesh's region names.
    overpotential (k,) [V]: at the layer's face; occupancy (k,): theta of Li in the grain beside it; area (k,).
    """

    facet: Ints
    grain: Ints
    region: Ints
    overpotential: Floats
    occupancy: Floats
    area: Floats


@dataclass(frozen=True)
class BoundaryOverpotential:
    """Where metal is most and least favoured at the boundaries of one type, or at the junctions.

    largest, smallest [V]: of eta in the layers and on their faces; mean [V]: in the layers. position: of the largest
    [m]. cells: how many were looked at.
    """

    name: str
    largest: float
    smallest: float
    mean: float
    position: tuple[float, ...]
    cells: int


def _interface_faces(mesh: CellMesh) -> tuple[Ints, Ints, Ints]:
    """Faces between a layer and a grain, and the layer's and the grain's cell of each."""
    k, m = mesh.face_cells.T
    in_k = mesh.region[k] > 0
    faces = np.flatnonzero(in_k != (mesh.region[m] > 0))
    return faces, np.where(in_k, k, m)[faces], np.where(in_k, m, k)[faces]


def _face_overpotential(state: State, faces: Ints) -> Floats:
    """eta [V] on interior faces: each species' flux is the same in both half cells."""
    mesh = state.system.mesh
    d = state.system.discretisation
    k, m = mesh.face_cells[faces].T
    half_k, half_m = mesh.face_distances[faces].T
    total = np.zeros(len(faces))
    for index, sigma in (
        (0, state.conductivity_across),
        (_require_electrons(state), electronic_conductivity(state)),
    ):
        eta = state.profile.eta[index]
        g_k, g_m = sigma[k] / half_k, sigma[m] / half_m
        total += (g_k * eta[k] + g_m * eta[m]) / (g_k + g_m)
    return np.asarray(total * d.thermal_voltage)


def boundary_sides(state: State) -> BoundarySides:
    """Overpotential and Li occupancy on both sides of every boundary facet; occupancy only without electrons.

    Compare a state under current with the one at rest for the enrichment and depletion that current makes.
    """
    mesh = state.system.mesh
    faces, layer, grain = _interface_faces(mesh)
    names = state.system.discretisation.species_names
    eta = _face_overpotential(state, faces) if ELECTRON in names else np.full(len(faces), np.nan)
    key = np.stack([mesh.facet[layer], mesh.grain[grain], mesh.region[layer]], axis=1)
    rows, index = np.unique(key, axis=0, return_inverse=True)
    index = index.ravel()
    area = np.asarray(np.bincount(index, mesh.face_areas[faces], len(rows)), dtype=float)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(index, mesh.face_areas[faces] * values, len(rows)) / area)

    return BoundarySides(rows[:, 0], rows[:, 1], rows[:, 2], mean(eta), mean(state.occupancy[grain]), area)


def overpotential_at_boundaries(
    state: State, microstructure: Microstructure | None = None, *, junction_radius: float | None = None
) -> dict[str, BoundaryOverpotential]:
    """Extremes of eta at each boundary type and, with the microstructure, at "junction".

    state: of a mixed conductor, under current. microstructure: the one that was meshed (after
    `layered_mesh.merged_for_widths`); places within `junction_radius` [m] of a junction count as such, by
    default two widths, the layers' volume over the length of the facets. Raises NoElectronsError.
    """
    mesh = state.system.mesh
    layers = np.flatnonzero(mesh.region > 0)
    faces, at, _ = _interface_faces(mesh)
    values = np.r_[overpotential(state)[layers], _face_overpotential(state, faces)]
    k = mesh.face_cells[faces, 0]
    places = np.concatenate(
        [
            mesh.centers[layers],
            mesh.centers[k] + mesh.face_normals[faces] * mesh.face_distances[faces, :1],
        ]
    )
    region = np.r_[mesh.region[layers], mesh.region[at]]
    groups = {
        name: region == number for number, name in enumerate(mesh.region_names) if number and number in region
    }
    if microstructure is not None:
        if junction_radius is None:
            junction_radius = 2.0 * float(mesh.volumes[layers].sum() / microstructure.facet_lengths.sum())
        groups["junction"] = _distance_to(places, microstructure.vertices, mesh.period) < junction_radius
    out = {}
    weights = np.r_[mesh.volumes[layers], np.zeros(len(faces))]
    for name, here in groups.items():
        if not here.any():
            continue
        worst = int(np.flatnonzero(here)[int(np.argmax(values[here]))])
        out[name] = BoundaryOverpotential(
            name,
            float(values[here].max()),
            float(values[here].min()),
            float(values[here] @ weights[here] / weights[here].sum()),
            tuple(float(x) for x in places[worst]),
            int(here[: len(layers)].sum()),
        )
    return out


def _distance_to(points: Floats, targets: Floats, period: Floats) -> Floats:
    nearest = np.full(len(points), np.inf)
    for target in targets:
        step = points - target
        step -= np.where(period > 0.0, np.round(step / np.where(period > 0.0, period, 1.0)) * period, 0.0)
        nearest = np.minimum(nearest, np.hypot(*step.T))
    return nearest
