"""A resolved polycrystal between lithium electrodes under current: how far each boundary and junction is from metal.

Ions and electrons with space charge (`mesoion.lithium_potential`); the hazard of a site is its largest overpotential
less the one at which metal is stable there. Also lithium beside a single resolved boundary, at rest and under current.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mesoion.errors import LimitingCurrentError
from mesoion.layered_mesh import layered_mesh, merged_for_widths
from mesoion.lithium_potential import (
    boundary_sides,
    galvanostatic,
    lithium_electrode,
    mixed_bicrystal,
    mixed_conductor,
    overpotential,
    partial_currents,
)
from mesoion.material import Phase
from mesoion.mesh import CellMesh
from mesoion.microstructure import Microstructure, polycrystal
from mesoion.solve import PNPSystem, State
from mesoion.units import ELEMENTARY_CHARGE

Floats = NDArray[np.float64]

LARGEST_VOLTAGE = 10.0
"""No cell is driven beyond this [V]."""
_CORRECTIONS, _CLOSE = 4, 0.01


@dataclass(frozen=True, eq=False)
class HazardMap:
    """Overpotentials of a resolved polycrystal; lithium dissolves at the left wall and plates at the right one.

    overpotential (n,) [V]: of the mesh's cells. facet (m,), junction (v,) [V]: the largest in each boundary and within
    two widths of each junction of `structure`; NaN where a facet was too short to keep a cell of its own, and for
    places where fewer than three boundaries meet. current_density [A/m²] of ions, total_current_density with the
    electrons, voltage [V] of the cell.
    """

    structure: Microstructure
    mesh: CellMesh
    overpotential: Floats
    occupancy: Floats
    facet: Floats
    junction: Floats
    current_density: float
    total_current_density: float
    voltage: float

    def largest(self) -> dict[str, float]:
        """Largest overpotential [V] by boundary type, and at the junctions."""
        kind = self.structure.facet_type
        found = {
            name: float(np.nanmax(self.facet[kind == t]))
            for t, name in enumerate(self.structure.boundary_names)
            if np.any(np.isfinite(self.facet[kind == t]))
        }
        if np.any(np.isfinite(self.junction)):
            found["junction"] = float(np.nanmax(self.junction))
        return found


def hazard_map(
    grain: Phase,
    layers: Mapping[str, Phase],
    fractions: Mapping[str, float],
    *,
    grains: int,
    grain_size: float,
    size_spread: float,
    interfacial_resistance: float,
    current_density: float,
    kinetics: str = "linear",
    seed: int = 0,
) -> HazardMap:
    """Steady state of a resolved polycrystal whose ions carry `current_density` [A/m²].

    grain, layers: phases with electrons. fractions: of the boundary length by type. grain_size [m];
    interfacial_resistance [Ω m²] of either electrode. Raises MeshError, ConvergenceError, NoElectronsError, and
    LimitingCurrentError, with the largest current, where more than 10 V would be needed.
    """
    structure = polycrystal(
        grains, grain_size, size_spread, seed, boundary_types=dict(fractions), periodic=(False, True)
    )
    _drivable(_first_voltage(structure, grain, interfacial_resistance, current_density), current_density)
    widths = {name: float(phase.width or 0.0) for name, phase in layers.items()}
    structure = merged_for_widths(structure, widths)
    mesh = layered_mesh(structure, widths, first_cell=min(*widths.values(), grain.debye_length) / 4)
    electrode = lithium_electrode(interfacial_resistance, kinetics)  # type: ignore[arg-type]
    system = mixed_conductor(
        mesh, {"grain": grain, **layers}, {"left": electrode, "right": electrode}, resolution="ignore"
    )
    state = _carrying(system, structure, grain, interfacial_resistance, current_density)
    eta = overpotential(state)
    facet = np.full(structure.n_facets, -np.inf)
    inside = np.flatnonzero(mesh.region > 0)
    known = inside[mesh.facet[inside] >= 0]
    np.maximum.at(facet, mesh.facet[known], eta[known])
    sides = boundary_sides(state)
    on_facet = sides.facet >= 0
    np.maximum.at(facet, sides.facet[on_facet], sides.overpotential[on_facet])
    return HazardMap(
        structure=structure,
        mesh=mesh,
        overpotential=eta,
        occupancy=state.occupancy,
        facet=np.where(np.isfinite(facet), facet, np.nan),
        junction=_at_junctions(structure, mesh, inside, eta, 2.0 * max(widths.values())),
        current_density=partial_currents(state, "left")["Li"] / float(structure.box[1]),
        total_current_density=state.current("left") / float(structure.box[1]),
        voltage=float(state.voltages["left"]),
    )


def _first_voltage(
    structure: Microstructure, grain: Phase, resistance: float, current_density: float
) -> float:
    """Without boundaries: what grains and both interfaces take [V]."""
    return current_density * (float(structure.box[0]) / grain.conductivity_across + 2.0 * resistance)


def _drivable(voltage: float, current_density: float) -> None:
    if voltage > LARGEST_VOLTAGE:
        limit = current_density * LARGEST_VOLTAGE / voltage
        raise LimitingCurrentError(current_density, limit, "A/m^2", f"{LARGEST_VOLTAGE:g} V on left")


def _carrying(
    system: PNPSystem, structure: Microstructure, grain: Phase, resistance: float, current_density: float
) -> State:
    """Steady state in which ions carry `current_density` [A/m²] to within a per cent, by corrected voltages."""
    height = structure.box[1]
    voltage = _first_voltage(structure, grain, resistance, current_density)
    state = system.equilibrium()
    for _ in range(_CORRECTIONS):
        _drivable(voltage, current_density)
        state = system.steady_state({"left": voltage}, state)
        found = partial_currents(state, "left")["Li"] / float(height)
        if abs(found - current_density) <= _CLOSE * current_density:
            break
        voltage *= current_density / found
    return state


def _at_junctions(
    structure: Microstructure, mesh: CellMesh, inside: NDArray[np.int64], eta: Floats, reach: float
) -> Floats:
    height = structure.box[1]

    def folded(points: Floats) -> Floats:
        return np.column_stack([points[:, 0], np.mod(points[:, 1], height)])

    # Only y is periodic: a box far longer than the structure has no images along x.
    tree = cKDTree(folded(mesh.centers[inside]), boxsize=[1e3 * structure.box[0], height])
    found = np.full(len(structure.vertices), np.nan)
    for j in np.flatnonzero(structure.junction_degrees >= 3):
        near = tree.query_ball_point(folded(structure.vertices[j : j + 1])[0], reach)
        if near:
            found[j] = eta[inside[near]].max()
    return found


@dataclass(frozen=True, eq=False)
class LithiumProfile:
    """Li beside one boundary: occupancy over the grain's (n,) at rest, and the change that current makes (n,).

    x (n,) [m] from the middle of the layer; width [m]; overpotential (n,) [V] under current.
    """

    relative_permittivity: float
    segregation_energy: float
    x: Floats
    width: float
    at_rest: Floats
    under_current: Floats
    overpotential: Floats
    current_density: float
    space_charge_potential: float

    @property
    def in_layer(self) -> NDArray[np.bool_]:
        """Cells inside the layer (n,)."""
        return np.asarray(np.abs(self.x) < 0.5 * self.width)

    def summary(self) -> dict[str, float]:
        """Enrichment in the layer and depletion or enrichment beside it, and the asymmetry under current."""
        beside = ~self.in_layer
        left, right = beside & (self.x < 0), beside & (self.x > 0)
        grain = self.at_rest[beside]
        extreme = grain[np.argmax(np.abs(grain - 1.0))]
        change = self.under_current - self.at_rest
        return {
            "relative permittivity": self.relative_permittivity,
            "segregation energy / eV": self.segregation_energy,
            "Li in the layer / Li in the grain": float(self.at_rest[self.in_layer].mean()),
            "Li beside it / Li in the grain": float(extreme),
            "potential at the faces / mV": 1e3 * self.space_charge_potential,
            "current makes, stripping side": float(change[left][np.argmax(np.abs(change[left]))]),
            "current makes, plating side": float(change[right][np.argmax(np.abs(change[right]))]),
            "largest overpotential / mV": 1e3 * float(self.overpotential.max()),
        }


def lithium_profile(
    grain: Phase, layer: Phase, segregation_energy: float, current_density: float
) -> LithiumProfile:
    """Li across one boundary at rest and at `current_density` [A/m²] between lithium electrodes without resistance.

    segregation_energy [J]: of Li in the layer beyond the layer's own. Raises what `solve_bicrystal` and the solver do.
    """
    shifted = replace(layer, standard_energy=layer.standard_energy + segregation_energy)
    system = mixed_bicrystal(grain, shifted)
    rest = system.equilibrium()
    state = galvanostatic(system, "left", current_density, rest)
    x = system.mesh.centers[:, 0]
    face = np.flatnonzero(np.abs(x) > 0.5 * float(layer.width or 0.0))
    nearest = face[np.argmin(np.abs(x[face]))]
    reference = grain.reference_occupancy
    return LithiumProfile(
        relative_permittivity=grain.relative_permittivity,
        segregation_energy=segregation_energy / ELEMENTARY_CHARGE,
        x=x,
        width=float(layer.width or math.nan),
        at_rest=rest.occupancy / reference,
        under_current=state.occupancy / reference,
        overpotential=overpotential(state),
        current_density=current_density,
        space_charge_potential=float(rest.potential[nearest]),
    )
