"""Growth of lithium along one boundary of every case of a nucleation study, from electrode to electrode.

A straight boundary layer between two half grains, nanometres long so that it is resolved: how long a path of metal
takes at a given current density, whether metal first appears at the cathode or inside, what both balances lose.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mesoion.config import Model
from mesoion.errors import ConvergenceError, InputError, LimitingCurrentError, MeshError
from mesoion.growth import Deposit, Growth, grow
from mesoion.lithium_figures import growth_sequence
from mesoion.material import Material, Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.runfolder import RunFolder
from mesoion.units import (
    AreaResistance,
    CurrentDensity,
    Length,
    PureNumber,
    Time,
    Voltage,
)

Positive = Field(gt=0)
_FINE = (1.0, 2.2, 4.7)
"""Cell faces beside the layer, in quarters of its width from its face."""


class GrowthInput(Model):
    """[growth]: a boundary of `length` between half grains `depth` deep, at `current_density` of the whole strip.

    free_volume: share of the layer's volume that metal may fill, with its source. nucleation_overpotential: where metal
    appears without metal beside it; none: it enters from the cathode only. longest: when to stop.
    """

    length: Annotated[Length, Positive] = 40e-9
    depth: Annotated[Length, Positive] = 10e-9
    cells: Annotated[int, Field(ge=3, le=400)] = 8
    current_density: Annotated[CurrentDensity, Positive] = 10.0
    free_volume: Annotated[PureNumber, Field(gt=0, le=1)] = 0.2
    nucleation_overpotential: Annotated[Voltage, Positive] | None = None
    charge_transfer_resistance: Annotated[AreaResistance, Positive] = 1e-3
    longest: Annotated[Time, Positive] = 3600.0
    source: Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, eq=False)
class CaseGrowth:
    """Growth in one case: its name, the boundary's, the growth, seconds of computing."""

    case: str
    boundary: str
    growth: Growth
    seconds: float

    def row(self) -> dict[str, Any]:
        """As the report's table shows it."""
        g = self.growth
        x = g.mesh.centers[:, 0]
        first = x[g.first_metal] if len(g.first_metal) else np.array([np.nan])
        return {
            "case": self.case,
            "boundary": self.boundary,
            "end": g.note,
            "connected after / s": g.connected_at,
            "first metal, from the anode / nm": float(1e9 * np.max(first)),
            "largest overpotential / mV": float(1e3 * g.overpotential.max()),
            "Li lost": g.lithium_error,
            "charge lost": g.charge_error,
            "steps": g.steps,
            "computed in / s": self.seconds,
        }


def strip(length: float, depth: float, width: float, cells: int, name: str) -> CellMesh:
    """A layer `width` [m] wide along x in the middle of a strip; cells along it are equal, beside it they grow.

    Raises InputError for grains thinner than the layer.
    """
    if depth < 2 * width:
        raise InputError("growth.depth", depth, f"at least twice the layer's width, {2 * width:.3g} m")
    beside = [k * width / 4 for k in _FINE if k * width / 4 < 0.8 * depth]
    up = np.array([0.0, width / 2, *(width / 2 + np.array(beside)), width / 2 + depth])
    across = np.unique(np.r_[-up, up]) + width / 2 + depth
    mesh = tensor_mesh([np.linspace(0.0, length, cells + 1), across])
    inside = np.abs(mesh.centers[:, 1] - (width / 2 + depth)) < width / 2
    mesh = mesh.with_regions(inside.astype(int), ("grain", name))
    return replace(mesh, layer_normals=np.where(inside[:, None], [0.0, 1.0], 0.0))


def grow_case(given: GrowthInput, case: str, material: Material, boundary: str, kelvin: float) -> CaseGrowth:
    """Growth along one boundary type of a material at a temperature [K]. Raises what `grow` raises."""
    layer = material.boundary(kelvin, boundary)
    phases: Mapping[str, Phase] = {"grain": material.grain(kelvin), boundary: layer}
    assert layer.width is not None
    width = float(layer.width)
    mesh = strip(given.length, given.depth, width, given.cells, boundary)
    barrier = given.nucleation_overpotential
    deposit = Deposit(
        free_volume={boundary: given.free_volume},
        nucleation_overpotential={} if barrier is None else {boundary: barrier},
        charge_transfer_resistance=given.charge_transfer_resistance,
    )
    begun = time.perf_counter()
    growth = grow(mesh, phases, deposit, given.current_density * (2 * given.depth + width), given.longest)
    return CaseGrowth(case, boundary, growth, time.perf_counter() - begun)


def write_growth(
    folder: RunFolder, given: GrowthInput, cases: Sequence[tuple[str, Material]], kelvin: float
) -> list[CaseGrowth]:
    """Table, pictures and words of the growth in every case, along the first of its boundaries."""
    import pandas as pd

    grown: list[CaseGrowth] = []
    failed: list[str] = []
    for name, material in folder.progress(cases, "growth"):
        boundary = material.boundary_names[0]
        try:
            grown.append(grow_case(given, name, material, boundary, kelvin))
        except (ConvergenceError, LimitingCurrentError, MeshError) as error:
            failed.append(f"{name}: {error}")
    if grown:
        folder.table("growth", pd.DataFrame([g.row() for g in grown]))
        folder.result("growth", [g.row() for g in grown])
        for g in grown:
            folder.figure(
                "growth_" + re.sub(r"[^A-Za-z0-9]+", "_", g.case),
                growth_sequence(g.growth),
                f"{g.case}: metal along {g.boundary} at {given.current_density / 10:.3g} mA/cm², and voltage and "
                "deposit over time.",
            )
    folder.paragraph("Growth", _words(given, grown, failed))
    return grown


def _words(given: GrowthInput, grown: Sequence[CaseGrowth], failed: Sequence[str]) -> str:
    said = [
        f"Metal along a straight boundary {given.length * 1e9:.3g} nm long between half grains, at "
        f"{given.current_density / 10:.3g} mA/cm² through the strip. It may fill "
        f"{100 * given.free_volume:.3g} % of the layer ({given.source})."
    ]
    for g in grown:
        end = (
            f"joins the electrodes after {g.growth.connected_at:.3g} s"
            if g.growth.connected_at is not None
            else g.growth.note
        )
        said.append(
            f"{g.case}: {end}; lithium is lost to {g.growth.lithium_error:.0e}, charge to {g.growth.charge_error:.0e}."
        )
    times = [g.growth.connected_at for g in grown if g.growth.connected_at is not None]
    if len(times) == len(grown) > 1 and max(times) < 1.05 * min(times):
        said.append(
            "The cases take the same time: at a given current the free volume decides it, not the boundary's transport."
        )
    said += [f"Not computed: {reason}." for reason in failed]
    return "\n\n".join(said)
