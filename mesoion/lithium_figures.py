"""Figures of lithium inside a solid: overpotential along a line, what segregation does to it, and growing metal.

Every function draws on the axes it is given and returns them; SI in, labelled units out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mesoion.errors import InputError
from mesoion.plots import COLOURS, MARKERS, field_map, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mesoion.boundary_lithium import BoundaryLithium
    from mesoion.growth import Growth
    from mesoion.solve import State

_METAL = "viridis_r"


def overpotential_profile(ax: Axes, state: State, *, label: str | None = None) -> Axes:
    """eta along a line [mV or µV] over x, boundary layers shaded. Raises InputError for a state that is no line."""
    from mesoion.lithium_potential import overpotential

    mesh = state.system.mesh
    if mesh.dimension != 1:
        raise InputError("state", f"{mesh.dimension} dimensions", "give a state along a line")
    x = mesh.centers[:, 0]
    unit, factor = ("µm", 1e-6) if np.ptp(x) > 2e-7 else ("nm", 1e-9)
    eta = overpotential(state)
    volt, scale = ("mV", 1e3) if np.abs(eta).max() > 1e-4 else ("µV", 1e6)
    with style():
        ax.plot(x / factor, eta * scale, label=label)
        ax.axhline(0.0, color="#444444", lw=0.6)
        for cell in np.flatnonzero(mesh.region > 0):
            half = 0.5 * mesh.volumes[cell]
            ax.axvspan((x[cell] - half) / factor, (x[cell] + half) / factor, color="#dddddd", lw=0, zorder=0)
        ax.set_xlabel(f"x / {unit}")
        ax.set_ylabel(f"overpotential / {volt}")
        ax.annotate(
            "metal favoured", (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=8, color="#444444"
        )
        if label is not None:
            ax.legend()
    return ax


def segregation_overpotential(ax: Axes, rows: Sequence[BoundaryLithium], *, label: str = "") -> Axes:
    """Overpotential on the side of the anode [mV] against the segregation energy, a line for each permittivity."""
    with style():
        start = len(ax.get_lines())
        for number, permittivity in enumerate(sorted({r.relative_permittivity for r in rows})):
            here = sorted(
                (r for r in rows if r.relative_permittivity == permittivity),
                key=lambda r: r.segregation_energy,
            )
            which = start + number
            name = (
                rf"{label}, $\epsilon_r$ = {permittivity:g}" if label else rf"$\epsilon_r$ = {permittivity:g}"
            )
            ax.plot(
                [r.segregation_energy for r in here],
                [r.largest_overpotential * 1e3 for r in here],
                marker=MARKERS[which % len(MARKERS)],
                color=COLOURS[which % len(COLOURS)],
                label=name,
            )
        ax.set_yscale("log")
        ax.set_xlabel("Li segregation energy / eV")
        ax.set_ylabel("largest overpotential / mV")
        ax.legend()
    return ax


def _between_electrodes(ax: Axes) -> None:
    """Grey grains, and both electrodes at the sides; metal grows from the cathode."""
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    bar = 0.08 * (high - low)
    ax.set_facecolor("#e8e8e8")
    for x, text in ((low - bar, "Li dissolves"), (high, "Li plates")):
        ax.axvspan(x, x + bar, color="#8a8a8a", lw=0, zorder=3)
        ax.text(
            x + bar / 2,
            (bottom + top) / 2,
            text,
            rotation=90,
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            zorder=4,
        )
    ax.set_xlim(low - bar, high + bar)


def growth_sequence(growth: Growth, pictures: int = 4) -> Figure:
    """Filling of the free volume at `pictures` times, and voltage and deposit over time below.

    Raises InputError for a growth that is not planar.
    """
    mesh = growth.mesh
    if mesh.polygons is None:
        raise InputError("growth", f"a {mesh.dimension}D mesh", "give growth in two dimensions")
    last = len(growth.time) - 1
    chosen = np.unique(np.linspace(0, last, pictures).round().astype(int))
    box = np.ptp(mesh.centers, axis=0)
    height = 3.0 * float(np.clip(box[1] / box[0], 0.45, 1.5)) + 0.5
    figure, all_axes = new_figure(2, len(chosen), width=3.1, height=height)
    axes: Any = np.atleast_2d(all_axes)
    for ax, index in zip(axes[0], chosen, strict=True):
        field_map(
            ax,
            mesh,
            np.where(mesh.region > 0, growth.filling[index], np.nan),
            limits=(0.0, 1.0),
            colour_map=_METAL,
            bar=False,
        )
        _between_electrodes(ax)
        ax.set_title(f"t = {growth.time[index]:.3g} s")
    shown = axes[0, -1].collections[0]
    figure.colorbar(shown, ax=list(axes[0]), aspect=12).set_label("filled share\nof the free volume")
    spec = axes[1, 0].get_gridspec()
    for ax in axes[1]:
        ax.remove()
    with style():
        half = max(1, len(chosen) // 2)
        left, right = figure.add_subplot(spec[1, :half]), figure.add_subplot(spec[1, half:])
        left.plot(growth.time, growth.voltage * 1e3, marker="o", label="voltage")
        left.plot(growth.time, growth.overpotential * 1e3, marker="s", label="largest overpotential")
        left.set_xlabel("time / s")
        left.set_ylabel("mV")
        left.legend()
        unit = {2: ("1/nm", 1e-9), 3: ("atoms", 1.0)}[mesh.dimension]
        right.plot(growth.time, growth.deposited * unit[1], marker="o", color=COLOURS[2])
        right.set_xlabel("time / s")
        right.set_ylabel(f"Li in metal / ({unit[0]})" if mesh.dimension == 2 else "Li in metal")
        if growth.connected_at is not None:
            for ax in (left, right):
                ax.axvline(growth.connected_at, color="#444444", ls=":", lw=1.0)
            right.annotate(
                "joins the electrodes ",
                (growth.connected_at, 0.05),
                xycoords=("data", "axes fraction"),
                ha="right",
                fontsize=8,
            )
    return figure
