"""The study of kind "microstructure": build one polycrystal with resolved boundary layers, and look at it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mesoion.config import Model, StudyModel
from mesoion.errors import InputError
from mesoion.layered_mesh import layered_mesh
from mesoion.mesh import CellMesh
from mesoion.microstructure import Microstructure, polycrystal
from mesoion.runfolder import RunFolder
from mesoion.units import Length, PureNumber

Positive = Field(gt=0)


class LayerInput(Model):
    """A boundary type: width of its layer and share of the boundary length."""

    width: Annotated[Length, Positive]
    fraction: Annotated[PureNumber, Field(gt=0, le=1)] = 1.0


class Study(StudyModel):
    """A planar polycrystal: grains, sizes, boundary types."""

    kind: Literal["microstructure"] = "microstructure"
    grains: Annotated[int, Field(ge=1, le=2000)] = 50
    mean_grain_size: Annotated[Length, Positive]
    grain_size_spread: Annotated[PureNumber, Field(ge=0, le=1)] = 0.35
    electrodes: bool = False
    """Walls without boundary layers at the left and right instead of a box periodic in both directions."""
    boundaries: Annotated[dict[str, LayerInput], Field(min_length=1)]

    @model_validator(mode="after")
    def _fractions(self) -> Study:
        total = sum(b.fraction for b in self.boundaries.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the fractions of the boundary types sum to 1, not to {total:g}")
        return self


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Tessellate, mesh, and write sizes, cells, figure and VTU."""
    import pandas as pd

    widths = {name: b.width for name, b in study.boundaries.items()}
    widest = max(widths, key=lambda n: widths[n])
    if widths[widest] >= study.mean_grain_size:
        raise InputError(
            f"boundaries.{widest}.width",
            widths[widest],
            f"a layer narrower than the grains of {study.mean_grain_size:g} m",
        )
    structure = polycrystal(
        study.grains,
        study.mean_grain_size,
        study.grain_size_spread,
        rng,
        boundary_types={name: b.fraction for name, b in study.boundaries.items()},
        periodic=(not study.electrodes, True),
    )
    mesh = layered_mesh(structure, widths)
    for key, value in _numbers(structure, mesh).items():
        folder.result(key, value)
    folder.table(
        "grains",
        pd.DataFrame(
            {"equivalent diameter / m": structure.grain_diameters, "area / m2": structure.grain_areas}
        ),
    )
    folder.field("cells", mesh, {"region": mesh.region.astype(float), "grain": mesh.grain.astype(float)})
    _draw(folder, structure, mesh, max(widths.values()))


def _numbers(structure: Microstructure, mesh: CellMesh) -> dict[str, Any]:
    area = np.bincount(mesh.region, mesh.volumes, len(mesh.region_names))
    return {
        "grains": structure.n_grains,
        "facets": structure.n_facets,
        "mean_grain_size_m": structure.mean_grain_size,
        "grain_size_spread": structure.size_spread,
        "mean_linear_intercept_m": structure.mean_linear_intercept,
        "boundary_fractions": structure.boundary_fractions,
        "cells": mesh.n_cells,
        "area_share": dict(zip(mesh.region_names, (area / area.sum()).tolist(), strict=True)),
    }


def _draw(folder: RunFolder, structure: Microstructure, mesh: CellMesh, width: float) -> None:
    from mesoion import plots

    figure, axes = plots.new_figure(1, 2, width=5.0, height=4.2)
    middle = int(np.argmin(np.abs(structure.vertices - structure.box / 2).sum(axis=1)))
    x, y = structure.vertices[middle]
    plots.field_map(
        axes[0],
        mesh,
        np.where(mesh.region > 0, -1.0, mesh.grain % 7).astype(float),
        label="grain (colour only), boundary layers darkest",
        zoom=(float(x), float(y), 12 * width),
        outlines=False,
    )
    sizes = np.sort(structure.grain_diameters) * 1e6
    axes[1].plot(sizes, (np.arange(len(sizes)) + 0.5) / len(sizes), drawstyle="steps-mid", label="grains")
    from scipy.stats import norm

    spread = structure.size_spread
    mode = np.log(sizes).mean()
    grid = np.geomspace(0.7 * sizes[0], 1.4 * sizes[-1], 200)
    if spread > 0:
        axes[1].plot(grid, norm.cdf((np.log(grid) - mode) / spread), "--", label="log-normal")
    axes[1].set_xscale("log")
    plots.plain_log_ticks(axes[1].xaxis, float(grid[0]), float(grid[-1]))
    axes[1].set_xlabel("equivalent diameter / µm")
    axes[1].set_ylabel("cumulative share of grains")
    axes[1].legend()
    folder.figure(
        "microstructure",
        figure,
        f"{structure.n_grains} grains, mean equivalent diameter {structure.mean_grain_size * 1e6:.3g} µm, spread of "
        f"ln d {spread:.2g}; {mesh.n_cells} cells. Inset: a junction of boundary layers.",
    )
