"""Figures of an analysis: each draws on the axes given and returns them. Lengths in Å, times in ps, D in cm²/s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from atomistic.analysis_results import AnalysisResults, DiffusivityRow
from atomistic.arrhenius_fit import ArrheniusFit
from atomistic.boundary_figures import SPECIES_COLOURS
from atomistic.boundary_planes import BoundaryPlanes
from atomistic.displacements import MeanSquareDisplacement
from atomistic.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CM2_PER_M2 = 1e4
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b")
_MARKS = "osD^v<>P"
_A2_PER_PS = 1e-8
_CURVE_POINTS = 300


def msd_figure(
    ax: Axes, msd: Mapping[tuple[float, int], MeanSquareDisplacement], means: Sequence[DiffusivityRow]
) -> Axes:
    """Mean-square displacement of the ions by temperature, runs as thin lines, with the band of 6 D t + c.

    msd: by temperature (K) and seed. means: tracer D of the whole cell at each temperature; the band is its 95 %
    interval and begins where the straight part does.
    """
    kelvins = sorted({kelvin for kelvin, _ in msd})
    colours = _heat(len(kelvins))
    by_kelvin = {row.temperature_K: row for row in means}
    for kelvin, colour in zip(kelvins, colours, strict=True):
        runs = [m for (t, _), m in sorted(msd.items()) if t == kelvin]
        for run in runs:
            # Lag 0 has no logarithm; beyond a few hundred points a curve looks the same.
            shown = np.unique(np.geomspace(1, len(run.time) - 1, _CURVE_POINTS).astype(int))
            ax.plot(run.time[shown], run.tracer[shown].sum(axis=1), color=colour, lw=0.8)
        row = by_kelvin.get(kelvin)
        label = f"{kelvin:g} K"
        if row is None:
            ax.plot([], [], color=colour, label=f"{label}, no diffusion")
            continue
        time = np.geomspace(row.start_time_ps, runs[0].time[-1], 60)
        low, middle, high = (
            6 * value / _A2_PER_PS * time + row.intercept_A2
            for value in (row.low_m2_per_s, row.value_m2_per_s, row.high_m2_per_s)
        )
        ax.fill_between(time, np.maximum(low, 1e-3), high, color=colour, alpha=0.25, lw=0)
        ax.plot(time, middle, color=colour, lw=1.8, ls="--", label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("time / ps")
    ax.set_ylabel("mean-square displacement / Å$^2$")
    ax.legend(frameon=False, fontsize="small")
    return ax


def arrhenius_figure(
    ax: Axes,
    results: AnalysisResults,
    fits: Mapping[tuple[str, str, str], ArrheniusFit],
    names: Sequence[tuple[str, str, str]],
    lowest: float = 300.0,
) -> Axes:
    """Diffusivities with their 95 % intervals over 1000/T, the laws and their bands down to `lowest` K.

    names: (region, direction, kind) to draw. A dotted line: extrapolated.
    """
    middle: list[float] = []
    for k, name in enumerate(names):
        colour, mark = _PALETTE[k % len(_PALETTE)], _MARKS[k % len(_MARKS)]
        rows = [m for m in results.means if (m.region, m.direction, m.kind) == name]
        # Points of several directions at one temperature would hide each other.
        x = np.array([1000 / row.temperature_K for row in rows]) + 0.008 * (k - 0.5 * (len(names) - 1))
        y = CM2_PER_M2 * np.array([row.value_m2_per_s for row in rows])
        error = [
            y - CM2_PER_M2 * np.array([row.low_m2_per_s for row in rows]),
            CM2_PER_M2 * np.array([row.high_m2_per_s for row in rows]) - y,
        ]
        region, direction, kind = name
        label = region if direction == "all" else f"{region}, {direction}"
        if kind == "collective":
            label += ", collective"
        fit = fits.get(name)
        if fit is not None:
            energy = fit.activation_energy_interval
            label += f": {energy.value:.2f} eV ({energy.low:.2f} to {energy.high:.2f})"
        middle += y.tolist()
        ax.errorbar(x, y, yerr=error, fmt=mark, color=colour, ms=5, capsize=2, lw=1, label=label)
        if fit is None:
            continue
        for hottest, coldest, style in (
            (fit.temperatures.max(), fit.temperatures.min(), "-"),
            (fit.temperatures.min(), lowest, ":"),
        ):
            if coldest >= hottest:
                continue
            kelvin = 1 / np.linspace(1 / hottest, 1 / coldest, 16)
            band = [fit.at(float(t)) for t in kelvin]
            middle += [CM2_PER_M2 * b.value for b in band]
            ax.plot(1000 / kelvin, [CM2_PER_M2 * b.value for b in band], style, color=colour, lw=1.3)
            ax.fill_between(
                1000 / kelvin,
                [CM2_PER_M2 * b.low for b in band],
                [CM2_PER_M2 * b.high for b in band],
                color=colour,
                alpha=0.15,
                lw=0,
            )
    ax.set_yscale("log")
    ax.set_xlabel("1000 K / T")
    ax.set_ylabel("D / cm$^2$ s$^{-1}$")
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    # A band over twenty decades would hide the rest; it goes on beyond the frame.
    ax.set_ylim(max(ax.get_ylim()[0], 1e-3 * min(middle)), min(ax.get_ylim()[1], 30 * max(middle)))
    top = ax.secondary_xaxis("top")
    ticks = sorted({row.temperature_K for row in results.means} | {lowest})
    top.set_xticks([1000 / t for t in ticks], [f"{t:g}" for t in ticks], fontsize="small")
    top.set_xlabel("T / K")
    return ax


def distance_figure(ax: Axes, results: AnalysisResults, slabs: Sequence[str], direction: str) -> Axes:
    """D by distance from the plane at each temperature, with 95 % intervals."""
    kelvins = sorted({row.temperature_K for row in results.means})
    middle = [0.5 * sum(float(edge) for edge in name.removesuffix(" A").split(" to ")) for name in slabs]
    for kelvin, colour in zip(kelvins, _heat(len(kelvins)), strict=True):
        rows = {m.region: m for m in results.means if m.direction == direction and m.temperature_K == kelvin}
        shown = [(x, rows[name]) for x, name in zip(middle, slabs, strict=True) if name in rows]
        if not shown:
            continue
        y = CM2_PER_M2 * np.array([row.value_m2_per_s for _, row in shown])
        error = [
            y - CM2_PER_M2 * np.array([row.low_m2_per_s for _, row in shown]),
            CM2_PER_M2 * np.array([row.high_m2_per_s for _, row in shown]) - y,
        ]
        ax.errorbar(
            [x for x, _ in shown],
            y,
            yerr=error,
            fmt="o-",
            color=colour,
            ms=4,
            capsize=2,
            lw=1,
            label=f"{kelvin:g} K",
        )
    ax.set_yscale("log")
    ax.set_xlim(left=0)
    ax.set_xlabel("distance from the plane / Å")
    ax.set_ylabel(f"D {direction} / cm$^2$ s$^{{-1}}$")
    ax.legend(frameon=False, fontsize="small")
    return ax


def structure_figure(ax: Axes, atoms: Atoms, planes: BoundaryPlanes | None = None, along: int = 0) -> Axes:
    """The atoms seen along a cell vector, upright and to scale, with their boundary planes dashed."""
    if along not in (0, 1, 2):
        raise InputError("along", along, "0, 1 or 2")
    axis = 2 if planes is None else planes.axis
    across = next(k for k in (2, 1, 0) if k not in (along, axis)) if along != axis else (axis + 1) % 3
    up = axis if along != axis else (axis + 2) % 3
    cell = atoms.cell.array
    right = cell[across] / np.linalg.norm(cell[across])
    towards = np.cross(right, cell[up])
    towards = towards / np.linalg.norm(towards)
    rise = np.cross(towards, right)
    depth = atoms.positions @ towards
    order = np.argsort(depth, kind="stable")
    symbols = np.array(atoms.get_chemical_symbols())
    points = np.column_stack([atoms.positions @ right, atoms.positions @ rise])
    from matplotlib.collections import EllipseCollection

    size = 2 * 0.4 * covalent_radii[atoms.numbers[order]]
    ax.add_collection(
        EllipseCollection(
            size, size, np.zeros(len(size)), units="xy", offsets=points[order], transOffset=ax.transData,
            facecolors=[SPECIES_COLOURS.get(s, "0.5") for s in symbols[order]], edgecolors="0.2", linewidths=0.3,
        )
    )  # fmt: skip
    for symbol in sorted(set(symbols)):
        ax.plot([], [], "o", color=SPECIES_COLOURS.get(symbol, "0.5"), mec="0.2", mew=0.3, label=symbol)
    low, high = points.min(axis=0) - 1, points.max(axis=0) + 1
    if planes is not None and along != axis:
        for fraction in planes.fractions:
            height = float(fraction * cell[axis] @ rise)
            ax.plot([low[0], high[0]], [height, height], "--", color="k", lw=1)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal")
    names = "abc"
    ax.set_xlabel(f"along {names[across]} / Å")
    ax.set_ylabel(f"across, {names[up]} / Å" if planes is not None else f"along {names[up]} / Å")
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _heat(number: int) -> list[tuple[float, float, float, float]]:
    """Colours from cold to hot."""
    from matplotlib import colormaps

    return [colormaps["plasma"](0.85 * k / max(number - 1, 1)) for k in range(number)]
