"""How much lithium a boundary holds and what current does to it, against segregation energy and permittivity.

At rest a segregation energy moves Li⁺ into or out of the layer until the space charge beside it holds the rest; mu_Li
stays the same everywhere. Current then lifts mu_Li on the side of the anode and lowers it on that of the cathode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mesoion.bicrystal import solve_bicrystal
from mesoion.lithium_potential import (
    boundary_resistances,
    boundary_sides,
    galvanostatic,
    mixed_bicrystal,
    overpotential_at_boundaries,
)
from mesoion.material import Phase
from mesoion.physics import ELEMENTARY_CHARGE
from mesoion.progress import track
from mesoion.solve import State

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BoundaryLithium:
    """One boundary at rest and under a current from left (anode) to right.

    segregation_energy [eV]: μ° of Li⁺ in the layer less that in the grain. space_charge_potential [V]: of the layer's
    faces at rest. layer_excess, side_excess [1/m²]: Li of the layer beyond that of its neutral framework, and of the
    grain on one side beyond its interior, at rest. layer_change, anode_side_change, cathode_side_change [1/m²]: what
    the current adds to each. overpotential_anode_side, overpotential_cathode_side, largest_overpotential [V].
    ionic_resistance, electronic_resistance [Ω m²]: of the boundary, as `lithium_potential.boundary_resistances`.
    voltage [V].
    """

    segregation_energy: float
    relative_permittivity: float
    space_charge_potential: float
    layer_excess: float
    side_excess: float
    layer_change: float
    anode_side_change: float
    cathode_side_change: float
    overpotential_anode_side: float
    overpotential_cathode_side: float
    largest_overpotential: float
    ionic_resistance: float
    electronic_resistance: float
    voltage: float


def boundary_lithium(
    grain: Phase,
    boundary: Phase,
    current_density: float,
    *,
    segregation_energies: Sequence[float],
    relative_permittivities: Sequence[float] = (50.0, 12085.0),
    half_length: float = 1e-6,
    core_charge: float = 0.0,
) -> list[BoundaryLithium]:
    """The boundary at every segregation energy [eV] and permittivity, under `current_density` [A/m²].

    half_length [m]: of grain on each side; Li and the potentials beside a boundary depend on it, as electrons have to
    come that far. core_charge: as for `solve_bicrystal`. Raises NoElectronsError and what the solvers raise.
    """
    rows = []
    cases = [(x, e) for x in relative_permittivities for e in segregation_energies]
    for permittivity, energy in track(cases, "boundaries"):
        inner = replace(grain, relative_permittivity=permittivity)
        layer = replace(
            boundary, relative_permittivity=permittivity, standard_energy=energy * ELEMENTARY_CHARGE
        )
        line = solve_bicrystal(inner, layer, core_charge=core_charge)
        ionic, electronic = boundary_resistances(line)
        system = mixed_bicrystal(inner, layer, half_length=half_length, core_charge=core_charge)
        rest = system.equilibrium()
        driven = galvanostatic(system, "left", current_density)
        before, after = _excess(rest, inner, layer), _excess(driven, inner, layer)
        sides = boundary_sides(driven)
        rows.append(
            BoundaryLithium(
                segregation_energy=energy,
                relative_permittivity=permittivity,
                space_charge_potential=line.space_charge_potential,
                layer_excess=before[1],
                side_excess=before[0],
                layer_change=after[1] - before[1],
                anode_side_change=after[0] - before[0],
                cathode_side_change=after[2] - before[2],
                overpotential_anode_side=float(sides.overpotential[0]),
                overpotential_cathode_side=float(sides.overpotential[1]),
                largest_overpotential=overpotential_at_boundaries(driven)["boundary"].largest,
                ionic_resistance=ionic,
                electronic_resistance=electronic,
                voltage=driven.voltages["left"],
            )
        )
    return rows


def _excess(state: State, grain: Phase, layer: Phase) -> tuple[float, float, float]:
    """Li per area [1/m²] beyond the neutral framework: left grain, layer, right grain."""
    mesh = state.system.mesh
    inside = mesh.region > 0
    neutral = np.where(inside, layer.carrier_density, grain.carrier_density)
    excess = (state.concentration - neutral) * mesh.volumes
    x = mesh.centers[:, 0]
    left, right = ~inside & (x < 0.0), ~inside & (x > 0.0)
    return float(excess[left].sum()), float(excess[inside].sum()), float(excess[right].sum())
