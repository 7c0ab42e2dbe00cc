"""Figures of a boundary: each draws on the axes given and returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atomistic.boundary_analysis import Profile
from atomistic.boundary_width import Width
from atomistic.defect_energies import SiteEnergies
from atomistic.errors import InputError
from atomistic.local_structure import DensityGrid, RadialDistribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPECIES_COLOURS = {
    "Li": "#0072b2", "O": "#d55e00", "La": "#e69f00", "Sr": "#009e73", "Zr": "#7f7f7f", "Ta": "#cc79a7",
    "Ti": "#56b4e9", "Nb": "#8c564b", "Al": "#bcbd22", "Ga": "#9467bd",
}  # fmt: skip


def profile_figure(
    ax: Axes,
    profile: Profile,
    *,
    species: Sequence[str] | None = None,
    quantity: Literal["density", "atomic_percent"] = "atomic_percent",
    width: Width | None = None,
) -> Axes:
    """Contents or densities across the boundary with bands of one standard error; the width is shaded."""
    values = getattr(profile, quantity)
    errors = getattr(profile, f"{quantity}_error")
    scale = 1e3 if quantity == "density" else 1.0
    for name in species or list(values):
        (line,) = ax.plot(
            profile.position, scale * values[name], label=name, color=SPECIES_COLOURS.get(name), lw=1.5
        )
        spread = np.nan_to_num(errors[name])
        ax.fill_between(
            profile.position,
            scale * (values[name] - spread),
            scale * (values[name] + spread),
            color=line.get_color(),
            alpha=0.3,
            lw=0,
        )
    if width is not None:
        ax.axvspan(
            -width.value / 2, width.value / 2, color="0.85", zorder=0, label=f"width {width.value:.1f} Å"
        )
    ax.set_xlabel("distance from the plane / Å" if profile.about_plane else "height across the cell / Å")
    ax.set_ylabel("density / nm$^{-3}$" if quantity == "density" else "atomic percent")
    ax.margins(x=0)
    # Room for the legend above the curves.
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    ax.legend(frameon=False, ncols=3, fontsize="small", loc="upper center")
    return ax


def rdf_figure(
    ax: Axes, distributions: Sequence[RadialDistribution], labels: Sequence[str] | None = None
) -> Axes:
    """g(r) of several pairs or regions with bands of one standard error."""
    names = labels or ["-".join(d.pair) for d in distributions]
    if len(names) != len(distributions):
        raise InputError("labels", tuple(names), f"{len(distributions)} labels")
    for found, name in zip(distributions, names, strict=True):
        (line,) = ax.plot(found.distance, found.g, label=name, lw=1.5)
        spread = np.nan_to_num(found.g_error)
        ax.fill_between(
            found.distance, found.g - spread, found.g + spread, color=line.get_color(), alpha=0.3, lw=0
        )
    ax.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    ax.set_xlabel("distance / Å")
    ax.set_ylabel("g(r)")
    ax.set_xlim(0, float(distributions[0].distance[-1]))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ax


def density_slice(ax: Axes, grid: DensityGrid, *, along: int = 0, logarithmic: bool = True) -> Axes:
    """The density averaged along one cell vector, drawn in the plane of the two others (upright, to scale)."""
    if along not in (0, 1, 2):
        raise InputError("along", along, "0, 1 or 2")
    across, up = (k for k in range(3) if k != along)
    flat = grid.density.mean(axis=along)
    first, second = grid.cell[across], grid.cell[up]
    length = float(np.linalg.norm(first))
    shift = float(second @ first) / length
    rise = float(np.sqrt(max(float(second @ second) - shift**2, 0.0)))
    # Grid points stand at fractions k/n: the slice is drawn as cells about them.
    one, two = ((np.arange(n + 1) - 0.5) / n for n in flat.shape)
    a, b = np.meshgrid(one, two, indexing="ij")
    values = flat
    norm: Any = None
    if logarithmic:
        from matplotlib.colors import LogNorm

        top = float(flat.max())
        norm = LogNorm(vmin=1e-3 * top, vmax=top)
        values = np.maximum(flat, 1e-3 * top)
    drawn = ax.pcolormesh(
        a * length + b * shift, b * rise, values, norm=norm, cmap="viridis", rasterized=True
    )
    names = "abc"
    ax.set_xlabel(f"along {names[across]} / Å")
    ax.set_ylabel(f"along {names[up]} / Å")
    ax.set_aspect("equal")
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
    bar.set_label(f"{grid.species} density / Å$^{{-3}}$, mean along {names[along]}")
    return ax


def site_energy_figure(ax: Axes, energies: SiteEnergies, label: str, width: Width | None = None) -> Axes:
    """Energies of a defect against the distance from the plane; open marks: the relaxation did not converge."""
    away = np.abs(energies.distance)
    done = energies.converged
    ax.plot(away[done], energies.energy[done], "o", ms=4, color="#0072b2")
    if not np.all(done):
        ax.plot(
            away[~done], energies.energy[~done], "o", ms=4, mfc="none", color="#0072b2", label="not converged"
        )
        ax.legend(frameon=False)
    if width is not None:
        ax.axvspan(0, width.value / 2, color="0.85", zorder=0)
    ax.set_xlabel("distance from the plane / Å")
    ax.set_ylabel(f"{label} / eV")
    ax.set_xlim(left=0)
    return ax
