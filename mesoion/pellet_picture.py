"""A few grains of a pellet between two electrodes, boundary layers resolved: potential and Li⁺ in every cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesoion.layered_mesh import layered_mesh
from mesoion.mesh import CellMesh
from mesoion.microstructure import polycrystal
from mesoion.pellet import Pellet
from mesoion.physics import CellFields, Electrode
from mesoion.solve import PNPSystem


@dataclass(frozen=True, eq=False)
class PelletPicture:
    """Cell fields of a resolved polycrystal under a voltage [V]; zoom is (x, y, width) [m] around a junction."""

    mesh: CellMesh
    fields: dict[str, NDArray[np.float64]]
    voltage: float
    current: float
    n_grains: int
    zoom: tuple[float, float, float]


def picture(
    pellet: Pellet, temperature: float, n_grains: int, seed: int, voltage: float = 0.05
) -> PelletPicture | None:
    """The steady state of `n_grains` grains of the pellet's own size between reversible electrodes at a voltage [V].

    Fields: potential_V, li_concentration_per_m3, occupancy, region. Returns None for no grains.
    Raises MeshError and ConvergenceError.
    """
    if n_grains == 0:
        return None
    structure = polycrystal(
        n_grains,
        pellet.mean_grain_size,
        0.3,
        np.random.default_rng([seed, n_grains]),
        boundary_types=pellet.volume.boundary_fractions,
        periodic=(False, True),
    )
    grain = pellet.material.grain(temperature)
    phases = {name: pellet.layer(temperature, name) for name in pellet.boundary_types}
    widths = {name: float(phase.width or 0.0) for name, phase in phases.items()}
    mesh = layered_mesh(structure, widths, first_cell=min(*widths.values(), grain.debye_length) / 4)
    system = PNPSystem(
        mesh,
        CellFields.from_phases(mesh, {"grain": grain, **phases}),
        temperature,
        {"left": Electrode("reversible"), "right": Electrode("reversible")},
    )
    rest = system.equilibrium()
    state = system.steady_state({"right": voltage}, start=rest)
    interior = np.argmin(np.abs(structure.vertices - structure.box / 2).sum(axis=1))
    x, y = structure.vertices[interior]
    return PelletPicture(
        mesh=mesh,
        fields={
            "potential_V": state.potential,
            "li_concentration_per_m3": state.concentration,
            "occupancy": state.occupancy,
            "region": mesh.region.astype(float),
        },
        voltage=voltage,
        current=state.current("right"),
        n_grains=n_grains,
        zoom=(float(x), float(y), 20 * max(widths.values())),
    )
