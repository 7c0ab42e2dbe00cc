"""Exact rows of ions and electrons together: Hebb and Wagner's cells, overpotentials at a boundary, growth of metal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from mesoion.bicrystal import solve_bicrystal
from mesoion.growth import Deposit, Growth, grow
from mesoion.lithium_potential import (
    boundary_resistances,
    galvanostatic,
    ion_blocking_electrode,
    lithium_electrode,
    mixed_bicrystal,
    mixed_conductor,
    overpotential,
    overpotential_at_boundaries,
)
from mesoion.material import Phase
from mesoion.mesh import tensor_mesh
from mesoion.physics import BOLTZMANN, ELEMENTARY_CHARGE
from mesoion.validation import case
from mesoion.wagner import hebb_wagner_current, mixed_conduction

TEMPERATURE = 298.15
_SITES, _WIDTH = 3.3e28, 1.6e-9
_IONS, _ELECTRONS = 0.073, 1e-6


def _grain() -> Phase:
    return Phase(
        "grain",
        TEMPERATURE,
        _SITES,
        0.7,
        -0.7 * _SITES,
        12085.0,
        _IONS,
        _IONS,
        0.0,
        electronic_conductivity=_ELECTRONS,
        electron_density=6e18,
    )


def _layer(energy: float = 0.0) -> Phase:
    """A boundary that conducts ions worse and electrons better; Li segregation energy in kT."""
    return replace(
        _grain(),
        name="boundary",
        conductivity_across=1e-4,
        conductivity_along=1e-4,
        standard_energy=energy * BOLTZMANN * TEMPERATURE,
        width=_WIDTH,
        electronic_conductivity=1e-5,
        electron_density=6e20,
    )


def hebb_wagner_ratio(voltage: float) -> float:
    """Current of Li | solid | blocking metal over the closed form, extrapolated from 100 and 200 cells."""
    length, found = 1e-6, []
    for cells in (100, 200):
        mesh = tensor_mesh([np.linspace(0.0, length, cells + 1)])
        contacts = {"left": lithium_electrode(), "right": ion_blocking_electrode(1e-3)}
        state = mixed_conductor(mesh, {"grain": _grain()}, contacts).steady_state({"right": voltage})
        found.append(state.current("right"))
    return (2.0 * found[1] - found[0]) / float(hebb_wagner_current(voltage, length, _ELECTRONS, TEMPERATURE))


def boundary_ratio(energy: float) -> float:
    """Largest overpotential at a resolved boundary over Wagner's with its two resistances."""
    half, current = 10e-6, 10.0
    state = galvanostatic(mixed_bicrystal(_grain(), _layer(energy), half_length=half), "left", current)
    ions, electrons = boundary_resistances(solve_bicrystal(_grain(), _layer(energy)))
    grain = half - 0.5 * _WIDTH
    line = mixed_conduction(
        [grain / _IONS, ions, grain / _IONS],
        [grain / _ELECTRONS, electrons, grain / _ELECTRONS],
        current,
        TEMPERATURE,
    )
    return overpotential_at_boundaries(state)["boundary"].largest / float(line.largest_overpotential)


def boundary_order() -> float:
    """Order of the overpotential at a boundary with space charge, from 4 to 8 cells a Debye length against 32."""
    found = []
    for cells in (4.0, 8.0, 32.0):
        system = mixed_bicrystal(_grain(), _layer(3.0), half_length=2e-7, cells_per_debye_length=cells)
        state = galvanostatic(system, "left", 1e4, tolerance=1e-11)
        found.append(overpotential_at_boundaries(state)["boundary"].largest)
    return float(np.log2(abs(found[0] - found[2]) / abs(found[1] - found[2])))


def rest_overpotential() -> float:
    """Largest |eta| at rest beside a space charge [kT/e]."""
    rest = mixed_bicrystal(_grain(), _layer(6.0), half_length=6e-8, core_charge=2e18).equilibrium()
    thermal = BOLTZMANN * TEMPERATURE / ELEMENTARY_CHARGE
    return float(np.abs(overpotential(rest)).max() / thermal)


@cache
def _growth() -> Growth:
    mesh = tensor_mesh([np.linspace(0.0, 2e-8, 5), np.array([0.0, 4.0, 7.2, 8.0, 8.8, 12.0, 16.0]) * 1e-9])
    inside = np.abs(mesh.centers[:, 1] - 8e-9) < 0.5 * _WIDTH
    mesh = mesh.with_regions(inside.astype(np.int64), ("grain", "boundary"))
    mesh = replace(mesh, layer_normals=np.where(inside[:, None], [0.0, 1.0], 0.0))
    phases = {"grain": _grain(), "boundary": _layer()}
    return grow(mesh, phases, Deposit({"boundary": 0.2}), 100.0 * 16e-9, 5.0)


for _voltage in (-0.02, 0.1):
    case(
        f"Hebb-Wagner cell: current at {_voltage:g} V over the closed form",
        lambda v=_voltage: hebb_wagner_ratio(v),  # type: ignore[misc]
        expected=1.0,
        tolerance=5e-5,
        about="Hebb 1952, Wagner 1957",
    )
for _energy in (-3.0, 3.0):
    case(
        f"overpotential at a boundary, {_energy:+g} kT, over Wagner's",
        lambda e=_energy: boundary_ratio(e),  # type: ignore[misc]
        expected=1.0,
        tolerance=5e-3,
        about="Wagner 1957",
    )
case(
    "overpotential at a boundary: order in the mesh",
    boundary_order,
    expected=1.8,
    relation="at least",
)
case(
    "overpotential at rest with space charge / (kT/e)",
    rest_overpotential,
    expected=0.0,
    tolerance=1e-10,
    relation="absolute",
)
case(
    "growth of metal: lithium balance",
    lambda: _growth().lithium_error,
    expected=0.0,
    tolerance=1e-10,
    relation="absolute",
)
case(
    "growth of metal: charge balance",
    lambda: _growth().charge_error,
    expected=0.0,
    tolerance=1e-10,
    relation="absolute",
)
