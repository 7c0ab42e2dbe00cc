"""The study of kind "size_and_width": conductivities over grain size × boundary width, beside the brick-layer forms.

One reduced polycrystal answers every point: grain size enters only through width over grain size and scaling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mesoion.bicrystal import solve_bicrystal
from mesoion.collapsed import CollapsedPolycrystal
from mesoion.config import Model, StudyModel
from mesoion.effective_medium import brick_layer, maxwell_wagner, series_brick_layer
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.microstructure import polycrystal
from mesoion.pellet import LARGEST_WIDTH_OVER_GRAIN_SIZE
from mesoion.pellet_figures import file_name
from mesoion.provenance import file_hash
from mesoion.reduced import BoundaryRange, ReducedPolycrystal
from mesoion.runfolder import RunFolder
from mesoion.sweep import grid, run_sweep
from mesoion.units import Length, PureNumber, Temperature

PER_CM = 0.01
TOLERANCE = 1e-4
"""Error bound asked of the reduced model."""
THIN = 0.015
"""Width over grain size up to which the collapsed polycrystal's default mesh serves."""
COLLAPSING_ERROR = 0.35
"""Relative error of collapsing over width/grain size, measured against resolved layers (docs/meshes.md)."""
Positive = Field(gt=0)


class LengthRange(Model):
    """Logarithmically spaced lengths."""

    lowest: Annotated[Length, Positive]
    highest: Annotated[Length, Positive]
    points: Annotated[int, Field(ge=2, le=500)] = 25

    @model_validator(mode="after")
    def _ordered(self) -> LengthRange:
        if self.highest <= self.lowest:
            raise ValueError("the highest value must exceed the lowest")
        return self

    def values(self) -> NDArray[np.float64]:
        """The lengths [m]."""
        return np.geomspace(self.lowest, self.highest, self.points)


class SweptMaterial(Model):
    """A material: bulk record and the record of its one boundary type."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    grain: str
    boundary: str
    relative_permittivity: Annotated[PureNumber, Positive] | None = None


class Study(StudyModel):
    """Grain size × boundary width for several materials at one temperature."""

    kind: Literal["size_and_width"] = "size_and_width"
    temperature: Annotated[Temperature, Positive] = 298.15
    mean_grain_size: LengthRange
    boundary_width: LengthRange
    grains: Annotated[int, Field(ge=4, le=2000)] = 80
    grain_size_spread: Annotated[PureNumber, Field(ge=0, le=1)] = 0.35
    materials: Annotated[list[SweptMaterial], Field(min_length=1)]
    workers: Annotated[int, Field(ge=1)] | None = None
    scheduler: str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [m.name for m in self.materials]
        if len(set(names)) < len(names):
            raise ValueError("every material needs a name of its own")
        return self


@lru_cache(maxsize=2)
def _model(path: str, digest: str) -> ReducedPolycrystal:
    return ReducedPolycrystal.load(Path(path))


@lru_cache(maxsize=64)
def _material(grain: str, boundary: str, permittivity: float | None) -> Material:
    return Material.from_records(grain, {"general": boundary}, relative_permittivity=permittivity)


def point(
    *,
    material: Mapping[str, Any],
    mean_grain_size: float,
    boundary_width: float,
    temperature: float,
    models: Sequence[tuple[float, str, str]],
) -> dict[str, float]:
    """Conductivities [S/cm] of one pellet and of the closed forms with the same layer.

    Raises InputError where the layer is too wide for the grains.
    """
    fraction = boundary_width / mean_grain_size
    if fraction > LARGEST_WIDTH_OVER_GRAIN_SIZE:
        raise InputError(
            "boundary_width/mean_grain_size", fraction, f"at most {LARGEST_WIDTH_OVER_GRAIN_SIZE}"
        )
    made = _material(material["grain"], material["boundary"], material.get("relative_permittivity"))
    grain = made.grain(temperature)
    layer = replace(made.boundary(temperature, "general"), width=boundary_width)
    resolved = solve_bicrystal(grain, layer)
    bulk, specific = grain.conductivity_across, layer.conductivity_across
    path, digest = next((p, h) for limit, p, h in models if fraction <= limit)
    tensor, bound = _model(path, digest).effective(
        bulk,
        {"general": resolved.excess_resistance},
        {"general": resolved.excess_sheet_conductance},
        mean_grain_size,
    )
    total = float(np.trace(tensor).real) / 2
    excess = 1 / total - 1 / bulk
    return {
        "bulk": bulk * PER_CM,
        "specific_gb": specific * PER_CM,
        "total": total * PER_CM,
        "error_bound": bound,
        "collapsing_error": COLLAPSING_ERROR * fraction,
        # Signed: negative where the boundaries carry more than the grain.
        "apparent_gb": PER_CM / excess,
        "series_brick_layer": series_brick_layer(bulk, specific, fraction) * PER_CM,
        "brick_layer": brick_layer(bulk, specific, fraction) * PER_CM,
        "maxwell_wagner": maxwell_wagner(bulk, specific, fraction) * PER_CM,
    }


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Sweep every material and write the table, the maps and the distance to the brick layer."""
    sizes, widths = study.mean_grain_size.values(), study.boundary_width.values()
    models = _reduced(study, sizes, widths)
    files = [m.save(folder.cache / f"reduced_polycrystal_{j}.npz") for j, (_, m) in enumerate(models)]
    by_name = {m.name: m for m in study.materials}
    points = grid(
        name=list(by_name),
        boundary_width=[float(w) for w in widths],
        mean_grain_size=[float(d) for d in sizes],
    )
    frame = run_sweep(
        named_point,
        points,
        folder.cache / "points.jsonl",
        workers=study.workers,
        scheduler=study.scheduler,
        label="pellets",
        common={
            "materials": {name: m.model_dump() for name, m in by_name.items()},
            "temperature": study.temperature,
            "models": [
                (limit, str(path), file_hash(path)) for (limit, _), path in zip(models, files, strict=True)
            ],
        },
        show_progress=folder.show_progress,
    )
    folder.table("grain_size_and_width", frame)
    failed = int(frame["error"].notna().sum())
    folder.result("points", len(frame))
    folder.result("failed_points", failed)
    folder.result("full_solves", sum(m.full_solves for _, m in models))
    if failed < len(frame):
        folder.result("largest_error_bound", float(frame["error_bound"].max()))
    for name in by_name:
        rows = frame[frame["name"] == name]
        if rows["error"].notna().all():
            folder.paragraph(name, f"No point could be computed: {rows['error'].iloc[0]}")
            continue
        _maps(folder, name, rows, sizes, widths)
        good = rows[rows["error"].isna()]
        distance = (good["series_brick_layer"] / good["total"]).astype(float)
        folder.result(f"brick_layer_over_model {name}", [float(distance.min()), float(distance.max())])
        folder.paragraph(
            name,
            f"Total conductivity runs from {good['total'].min():.3g} to {good['total'].max():.3g} S/cm (bulk "
            f"{good['bulk'].iloc[0]:.3g}, boundary's own {good['specific_gb'].iloc[0]:.3g} S/cm). The series brick "
            f"layer gives {distance.min():.3g} to {distance.max():.3g} times the polycrystal's value over the map.",
        )


def _reduced(
    study: Study, sizes: NDArray[np.float64], widths: NDArray[np.float64]
) -> list[tuple[float, ReducedPolycrystal]]:
    """(largest width/grain size, reduced polycrystal), reduced over just the ratios and widths of this sweep.

    Thin layers get the fine mesh along the facets; the deficit of wide ones needs wider cells there to come from.
    """
    ratios = []
    for m in study.materials:
        made = _material(m.grain, m.boundary, m.relative_permittivity)
        layer = made.boundary(study.temperature, "general")
        ratios.append(layer.conductivity_across / made.grain(study.temperature).conductivity_across)
    ratio = (min(ratios) / 2, max(ratios) * 2)
    structure = polycrystal(
        study.grains, 1.0, study.grain_size_spread, study.seed, boundary_types={"general": 1.0}
    )
    narrowest = float(widths[0] / sizes[-1])
    widest = min(float(widths[-1] / sizes[0]), LARGEST_WIDTH_OVER_GRAIN_SIZE)
    bands = [(min(narrowest, THIN), min(widest, THIN), 0.025)]
    if widest > THIN:
        bands.append((max(narrowest, THIN), widest, 1.25 * widest))
    models = []
    for low, high, pair_distance in bands:
        span = BoundaryRange(ratio=ratio, width=(low / 1.1, high * 1.1), phase=0.0)
        collapsed = CollapsedPolycrystal(structure, pair_distance=min(pair_distance, 0.2))
        models.append((high, ReducedPolycrystal.build(collapsed, {"general": span}, tolerance=TOLERANCE)))
    # Rounding must not push the widest point past the last band.
    models[-1] = (1.0, models[-1][1])
    return models


def named_point(
    *,
    name: str,
    materials: Mapping[str, Mapping[str, Any]],
    mean_grain_size: float,
    boundary_width: float,
    **common: Any,
) -> dict[str, float]:
    """`point` for the material called `name`."""
    return point(
        material=materials[name], mean_grain_size=mean_grain_size, boundary_width=boundary_width, **common
    )


def _maps(
    folder: RunFolder, name: str, rows: Any, sizes: NDArray[np.float64], widths: NDArray[np.float64]
) -> None:
    from mesoion import plots

    def table(column: str) -> NDArray[np.float64]:
        return np.asarray(rows[column].to_numpy(dtype=float).reshape(len(widths), len(sizes)))

    figure, axes = plots.new_figure(2, 2, width=4.6, height=3.4)
    apparent = table("apparent_gb")
    apparent = np.where(apparent > 0, apparent, np.nan)
    total = table("total")
    panels = [
        (total, "total conductivity / S cm⁻¹", True),
        (apparent, "apparent GB conductivity / S cm⁻¹", True),
        (
            apparent * widths[:, None] / sizes[None, :] / table("specific_gb"),
            "specific GB read by δ/d / the layer's own",
            False,
        ),
        (table("series_brick_layer") / total, "series brick layer / model", False),
    ]
    for ax, (values, label, log) in zip(axes.flat, panels, strict=True):
        if not np.isfinite(values).any():
            ax.set_visible(False)
            continue
        plots.sweep_map(
            ax,
            sizes * 1e6,
            widths * 1e9,
            values,
            x_label="grain size / µm",
            y_label="boundary width / nm",
            label=label,
            log=log,
        )
    figure.suptitle(name)
    folder.figure(
        f"maps_{file_name(name)}",
        figure,
        f"{name}: total and apparent boundary conductivity over grain size and boundary width, the specific one that "
        "the brick layer reads from it over the true one, and the series brick layer over the polycrystal. Hatched: "
        "no boundary resistance (the boundary conducts better than the grain) or a failed point.",
    )
