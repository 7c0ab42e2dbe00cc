"""Growth of lithium in the boundaries of every case of a nucleation study, from electrode to electrode.

A straight boundary layer between two half grains, and a small polycrystal whose boundaries meet in junctions, both
resolved and therefore nanometres in size: how long a path of metal takes at a given current density, whether metal
first appears at the cathode or inside, which way it goes, what both balances lose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mesoion.config import Model
from mesoion.errors import ConvergenceError, InputError, LimitingCurrentError, MeshError
from mesoion.growth import Deposit, Growth, grow
from mesoion.layered_mesh import layered_mesh, merged_for_widths
from mesoion.lithium_figures import growth_sequence
from mesoion.material import Material, Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import Microstructure, polycrystal
from mesoion.pellet_figures import file_name
from mesoion.runfolder import RunFolder
from mesoion.units import (
    ELEMENTARY_CHARGE,
    AreaResistance,
    CurrentDensity,
    Length,
    PureNumber,
    Time,
    Voltage,
)

Floats = NDArray[np.float64]
Positive = Field(gt=0)
_FINE = (1.0, 2.2, 4.7)
"""Cell faces beside the layer, in quarters of its width from its face."""
_GRAIN_GROWTH, _LARGEST_CELL = 2.5, 0.3
"""Of successive cells into a grain, and of the largest cell by the grain size."""
_PICTURES = 5


class NetworkInput(Model):
    """[growth.polycrystal]: a resolved polycrystal between the electrodes, periodic along them.

    Its boundaries are of the case's types and fractions. cases: of the study, all unless given. cells_across: of a
    layer. largest_filling: of a cell in one step. The defaults are coarse (a minute a case); see docs/nucleation.md for
    what finer ones change.
    """

    grains: Annotated[int, Field(ge=2, le=60)] = 4
    grain_size: Annotated[Length, Positive] = 20e-9
    size_spread: Annotated[PureNumber, Field(ge=0, le=1)] = 0.2
    cells_across: Literal[2, 4, 6, 8] = 2
    largest_filling: Annotated[PureNumber, Field(gt=0, le=1)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 1
    cases: list[str] | None = None


class GrowthInput(Model):
    """[growth]: a boundary of `length` between half grains `depth` deep, at `current_density` of the whole strip.

    free_volume: share of the layer's volume that metal may fill, with its source. nucleation_overpotential: where metal
    appears without metal beside it; none: it enters from the cathode only. longest: when to stop. polycrystal: growth
    in a network of boundaries too, under the same assumptions.
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
    polycrystal: NetworkInput | None = None

    def deposit(self, layers: Sequence[str]) -> Deposit:
        """What metal may do in these layers."""
        barrier = self.nucleation_overpotential
        return Deposit(
            free_volume=dict.fromkeys(layers, self.free_volume),
            nucleation_overpotential={} if barrier is None else dict.fromkeys(layers, barrier),
            charge_transfer_resistance=self.charge_transfer_resistance,
        )


@dataclass(frozen=True, eq=False)
class CaseGrowth:
    """Growth in one case.

    where: the boundary's name, or "network". height [m]: of the cell along the electrodes. supplied [A/m²]: the current
    density. junctions (j, 2) [m]: where three boundaries meet. seconds: of computing.
    """

    case: str
    where: str
    growth: Growth
    height: float
    supplied: float
    junctions: Floats
    seconds: float

    @property
    def metal_share(self) -> float:
        """Share of the charge that has passed by the end which is metal inside; the rest plated on the cathode."""
        g = self.growth
        passed = self.supplied * self.height * float(g.time[-1]) / ELEMENTARY_CHARGE
        return float(g.deposited[-1]) / passed if passed > 0 else 0.0

    @property
    def filled(self) -> float:
        """Share of the layers' length that metal fills above the percolation threshold at the end."""
        g = self.growth
        layers = g.mesh.region > 0
        volumes = g.mesh.volumes[layers]
        return float(volumes @ np.isfinite(g.full_at[layers]) / volumes.sum())

    def junction_times(self) -> Floats:
        """When metal first filled a cell within a layer's width of each junction (j,) [s], inf where it did not."""
        g = self.growth
        mesh = g.mesh
        found = np.full(len(self.junctions), np.inf)
        layers = np.flatnonzero(mesh.region > 0)
        for j, place in enumerate(self.junctions):
            step = mesh.centers[layers] - place
            step[:, 1] -= self.height * np.round(step[:, 1] / self.height)
            nearest = layers[int(np.argmin(np.hypot(*step.T)))]
            if np.isfinite(g.full_at[nearest]):
                found[j] = g.full_at[nearest]
        return found

    def row(self) -> dict[str, Any]:
        """As the report's table shows it."""
        g = self.growth
        x = g.mesh.centers[:, 0]
        first = x[g.first_metal] if len(g.first_metal) else np.array([np.nan])
        reached = self.junction_times()
        return {
            "case": self.case,
            "boundary": self.where,
            "cells": g.mesh.n_cells,
            "end": g.note,
            "connected after / s": g.connected_at,
            "first metal, from the anode / nm": float(1e9 * np.max(first)),
            "junctions": len(reached),
            "junctions with metal": int(np.isfinite(reached).sum()),
            "first junction after / s": float(reached.min()) if np.isfinite(reached).any() else None,
            "layers filled": self.filled,
            "charge that is metal inside": self.metal_share,
            "electronic share of the current": g.electronic_share,
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


def network(
    given: NetworkInput, widths: Mapping[str, float], fractions: Mapping[str, float]
) -> tuple[CellMesh, Microstructure]:
    """A polycrystal's layers `widths` [m] by type, resolved, and the structure that was meshed.

    Raises InputError where the layers leave no grain, MeshError where no mesh can be made.
    """
    if given.grain_size < 4 * max(widths.values()):
        remedy = f"at least four times the widest layer, {4 * max(widths.values()):.3g} m"
        raise InputError("growth.polycrystal.grain_size", given.grain_size, remedy)
    structure = polycrystal(
        given.grains,
        given.grain_size,
        given.size_spread,
        given.seed,
        boundary_types=dict(fractions),
        periodic=(False, True),
    )
    structure = merged_for_widths(structure, widths)
    mesh = layered_mesh(
        structure,
        widths,
        cells_across=given.cells_across,
        growth=_GRAIN_GROWTH,
        tangential_growth=1.0,
        max_cell=_LARGEST_CELL * given.grain_size,
    )
    return mesh, structure


def grow_case(given: GrowthInput, case: str, material: Material, boundary: str, kelvin: float) -> CaseGrowth:
    """Growth along one boundary type of a material at a temperature [K]. Raises what `grow` raises."""
    layer = material.boundary(kelvin, boundary)
    phases: Mapping[str, Phase] = {"grain": material.grain(kelvin), boundary: layer}
    assert layer.width is not None
    width = float(layer.width)
    mesh = strip(given.length, given.depth, width, given.cells, boundary)
    return _grown(given, case, boundary, mesh, phases, 2 * given.depth + width, np.empty((0, 2)))


def grow_network(
    given: GrowthInput, case: str, material: Material, fractions: Mapping[str, float], kelvin: float
) -> CaseGrowth:
    """Growth in a polycrystal whose boundaries are of the material's types by `fractions` of their length.

    Raises InputError without `given.polycrystal`, and what `network` and `grow` raise.
    """
    if given.polycrystal is None:
        raise InputError("growth.polycrystal", None, "give a polycrystal to grow metal in")
    layers = {name: material.boundary(kelvin, name) for name in fractions}
    widths = {name: float(phase.width or 0.0) for name, phase in layers.items()}
    mesh, structure = network(given.polycrystal, widths, fractions)
    phases = {"grain": material.grain(kelvin), **layers}
    junctions = structure.vertices[structure.junction_degrees >= 3]
    height = float(structure.box[1])
    return _grown(given, case, "network", mesh, phases, height, junctions, given.polycrystal.largest_filling)


def _grown(
    given: GrowthInput,
    case: str,
    where: str,
    mesh: CellMesh,
    phases: Mapping[str, Phase],
    height: float,
    junctions: Floats,
    largest_filling: float = 0.25,
) -> CaseGrowth:
    begun = time.perf_counter()
    deposit = given.deposit([name for name in phases if name != "grain"])
    try:
        growth = grow(
            mesh,
            phases,
            deposit,
            given.current_density * height,
            given.longest,
            largest_filling=largest_filling,
        )
    except LimitingCurrentError as error:
        raise per_area(error, height, f"growth, {case}") from error
    seconds = time.perf_counter() - begun
    return CaseGrowth(case, where, growth, height, given.current_density, junctions, seconds)


def per_area(error: LimitingCurrentError, height: float, where: str) -> LimitingCurrentError:
    """The same error with its currents [A/m] over the height [m] of a planar cell, in A/m²."""
    return LimitingCurrentError(
        error.asked / height, error.limiting_current / height, "A/m^2", f"{where}: {error.at}"
    )


@dataclass(frozen=True, eq=False)
class Grown:
    """Growth of all cases along straight boundaries and in networks, and why some could not be computed."""

    lines: list[CaseGrowth]
    networks: list[CaseGrowth]
    failed: list[str]


def grow_cases(
    folder: RunFolder,
    given: GrowthInput,
    cases: Mapping[str, tuple[Material, Mapping[str, float]]],
    kelvin: float,
) -> Grown:
    """Growth in every case (its material, the fractions of its boundary types), first along straight boundaries.

    A case that does not converge or cannot be meshed is left out and said; LimitingCurrentError, the input's fault, is
    raised.
    """
    found = Grown([], [], [])
    for name, (material, _) in folder.progress(list(cases.items()), "growth"):
        try:
            found.lines.append(grow_case(given, name, material, material.boundary_names[0], kelvin))
        except (ConvergenceError, MeshError) as error:
            found.failed.append(f"{name}: {error}")
    if given.polycrystal is not None:
        wanted = list(cases) if given.polycrystal.cases is None else given.polycrystal.cases
        for name in folder.progress(wanted, "growth in polycrystals"):
            material, fractions = cases[name]
            try:
                found.networks.append(grow_network(given, name, material, fractions, kelvin))
            except (ConvergenceError, MeshError) as error:
                found.failed.append(f"{name}, polycrystal: {error}")
    return found


def write_growth(folder: RunFolder, given: GrowthInput, grown: Grown) -> None:
    """Table, pictures and words of the growth in every case."""
    import pandas as pd

    all_of_it = [*grown.lines, *grown.networks]
    if all_of_it:
        rows = [g.row() for g in all_of_it]
        folder.table("growth", pd.DataFrame(rows))
        folder.result("growth", rows)
    current = f"{given.current_density / 10:.3g} mA/cm²"
    for g in grown.lines:
        folder.figure(
            f"growth_{file_name(g.case)}",
            growth_sequence(g.growth),
            f"{g.case}: metal along {g.where} at {current}, and voltage and deposit over time.",
        )
    for g in grown.networks:
        folder.figure(
            f"growth_in_a_polycrystal_{file_name(g.case)}",
            growth_sequence(g.growth, _PICTURES),
            f"{g.case}: metal in the boundaries of a polycrystal at {current}, from the cathode on the right to the "
            "anode on the left, and voltage and deposit over time.",
        )
    folder.paragraph("Growth", _words(given, grown))


def _words(given: GrowthInput, grown: Grown) -> str:
    current = f"{given.current_density / 10:.3g} mA/cm²"
    said = [
        f"Metal along a straight boundary {given.length * 1e9:.3g} nm long between half grains, at {current} through "
        f"the strip. It may fill {100 * given.free_volume:.3g} % of the layer ({given.source})."
    ]
    for g in grown.lines:
        said.append(f"{g.case}: {_end(g)}.")
    if _alike(grown.lines):
        said.append(
            "The cases take the same time: at a given current the free volume decides it, not the boundary's transport."
        )
    if grown.networks:
        made = given.polycrystal
        assert made is not None
        said.append(
            f"Metal in a polycrystal of {made.grains} grains of {made.grain_size * 1e9:.3g} nm with the boundary types "
            f"of each case, {len(grown.networks[0].junctions)} junctions, at {current} and under the same assumptions."
        )
        for g in grown.networks:
            times = g.junction_times()
            reached = times[np.isfinite(times)]
            first = f", the first after {reached.min():.3g} s" if len(reached) else ""
            said.append(
                f"{g.case}: {_end(g)}. Metal is in {len(reached)} of {len(times)} junctions{first}, and in "
                f"{100 * g.filled:.0f} % of the layers; {100 * g.metal_share:.0f} % of the charge is metal inside, the "
                "rest plated on the cathode or went through as electrons (at the start "
                f"{100 * g.growth.electronic_share:.0f} % of the current: a cell so thin leaks more than a pellet)."
            )
        if _alike(grown.networks):
            said.append("The cases take the same time in the polycrystal, too.")
    said += [f"Not computed: {reason}." for reason in grown.failed]
    return "\n\n".join(said)


def _end(g: CaseGrowth) -> str:
    after = g.growth.connected_at
    end = g.growth.note if after is None else f"joins the electrodes after {after:.3g} s"
    return f"{end}; lithium is lost to {g.growth.lithium_error:.0e}, charge to {g.growth.charge_error:.0e}"


def _alike(grown: Sequence[CaseGrowth]) -> bool:
    times = [g.growth.connected_at for g in grown if g.growth.connected_at is not None]
    return len(times) == len(grown) > 1 and max(times) < 1.05 * min(times)
