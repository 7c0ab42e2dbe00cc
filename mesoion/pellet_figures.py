"""Figures of the pellet study: spectra, Arrhenius, predicted against measured, boundary profiles, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mesoion import plots
from mesoion.bicrystal import Bicrystal
from mesoion.pellet import Conductivities
from mesoion.pellet_picture import PelletPicture
from mesoion.runfolder import RunFolder

COLUMNS = 3


@dataclass(frozen=True)
class Measured:
    """A measured conductivity [S/m]: "bulk", "apparent grain boundary" or "total"."""

    quantity: str
    conductivity: float
    source: str


@dataclass(frozen=True)
class Shown:
    """What the figures need of one pellet; impedance is Z·A/L [ohm m].

    results, impedance: by what the records are called, the first of them first. boundaries, picture: of the first.
    """

    name: str
    results: Mapping[str, list[Conductivities]]
    measured: Sequence[Measured]
    report_temperature: float
    frequency: NDArray[np.float64]
    impedance: Mapping[str, NDArray[np.complex128]]
    boundaries: Mapping[str, Bicrystal]
    picture: PelletPicture | None


def file_name(text: str) -> str:
    """`text` as a file name: letters, digits, '_' and '.'."""
    kept = "".join(c if (c.isalnum() and c.isascii()) or c == "." else "_" for c in text)
    return "_".join(part for part in kept.split("_") if part)[:80] or "pellet"


def draw(folder: RunFolder, shown: Sequence[Shown]) -> None:
    """Write every figure of the study into its folder."""
    celsius = f"{shown[0].report_temperature - 273.15:.0f} °C"
    _panels(
        folder,
        "nyquist",
        shown,
        lambda ax, s: plots.nyquist(ax, _spectra(s), unit="Ω cm"),
        f"Impedance at {celsius} times area over thickness, equal axes, a mark a decade.",
    )
    _panels(
        folder,
        "bode",
        shown,
        lambda ax, s: plots.bode(ax, _spectra(s), unit="Ω cm"),
        f"The same spectra at {celsius}: modulus (solid) and phase (dashed) against frequency.",
    )
    _panels(
        folder,
        "arrhenius",
        shown,
        _arrhenius,
        "Bulk, apparent grain-boundary and total conductivity against temperature with 95 % bands from the records' "
        "uncertainties; symbols: measured; dashed: from the other records, where there are both.",
    )
    comparable = [c for c in folder.comparisons if c.unit == "S/cm"]
    if comparable:
        lines = len({(c.material, c.quantity, c.source) for c in comparable})
        figure, ax = plots.new_figure(width=8.0, height=0.9 + 0.34 * lines)
        plots.parity(ax, comparable)
        folder.figure(
            "predicted_and_measured", figure, "Predicted (95 % interval) beside measured conductivities."
        )
    for s in shown:
        for boundary, resolved in s.boundaries.items():
            draw_profile(
                folder,
                f"profile_{file_name(s.name)}_{file_name(boundary)}",
                resolved,
                f"{s.name}, boundary {boundary!r}: potential, Li occupancy and conductivity across the layer (grey).",
            )
        if s.picture is not None:
            _picture(folder, s, s.picture)


def _panels(folder: RunFolder, name: str, shown: Sequence[Shown], one: Any, caption: str) -> None:
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = plots.new_figure(rows, columns, squeeze=False)
    for number, (ax, s) in enumerate(zip(axes.flat, shown, strict=False)):
        one(ax, s)
        several = len(s.results) > 1
        # A panel of two spectra has its legend where the second line would be.
        ax.set_title(
            f"{s.name}\n({' / '.join(s.results)})" if not several or name == "arrhenius" else f"{s.name}\n"
        )
        legend = ax.get_legend()
        if legend is not None and number and (name == "arrhenius" or not several):
            legend.remove()
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    folder.figure(name, figure, caption)


def _spectra(s: Shown) -> dict[str, tuple[NDArray[np.float64], NDArray[np.complex128]]]:
    """Z·A/L [ohm cm] by the records' name."""
    return {label: (s.frequency, 100 * z) for label, z in s.impedance.items()}


def _series(results: Sequence[Conductivities]) -> dict[str, dict[str, Any]]:
    temperature = np.array([c.temperature for c in results])
    series: dict[str, dict[str, Any]] = {}
    for label in ("bulk", "apparent_gb", "total"):
        values = {
            p: np.array([getattr(getattr(c, label), p) for c in results]) for p in ("value", "low", "high")
        }
        if not np.all(np.isfinite(values["value"])):
            continue
        # An unbounded upper end runs out of the picture.
        values["high"] = np.minimum(values["high"], 1e6 * values["value"])
        series[label.replace("_gb", " GB")] = {"temperature": temperature, **values}
    return series


def _arrhenius(ax: Any, s: Shown) -> Any:
    series, *others = (_series(results) for results in s.results.values())
    measured = {
        f"{q}, measured": {
            "temperature": [s.report_temperature for m in s.measured if m.quantity == q],
            "value": [m.conductivity for m in s.measured if m.quantity == q],
        }
        for q in dict.fromkeys(m.quantity for m in s.measured)
    }
    beside = {label: one for other in others for label, one in other.items() if label in series}
    plots.arrhenius(ax, series, measured=measured, beside=beside)
    drawn = [v for one in series.values() for v in (*one["low"], *one["value"])]
    drawn += [v for one in beside.values() for v in one["value"]]
    drawn += [m.conductivity for m in s.measured]
    ax.set_ylim(0.005 * min(drawn), 0.1 * max(drawn))
    return ax


def draw_profile(folder: RunFolder, name: str, resolved: Bicrystal, caption: str) -> None:
    """Potential, occupancy and conductivity across a resolved boundary, as figure `name`."""
    figure, ax = plots.new_figure(width=5.2)
    width = resolved.boundary.width or 0.0
    plots.boundary_profile(
        ax,
        resolved.x,
        potential=resolved.potential,
        occupancy=resolved.occupancy,
        conductivity={"across": resolved.conductivity_across, "along": resolved.conductivity_along},
        width=width,
    )
    reach = 0.5e9 * width + 8e9 * max(resolved.debye_length, 0.05 * width)
    ax.set_xlim(-reach, reach)
    folder.figure(name, figure, caption)


def _picture(folder: RunFolder, s: Shown, seen: PelletPicture) -> None:
    figure, axes = plots.new_figure(1, 2, width=5.0, height=4.2)
    plots.field_map(
        axes[0], seen.mesh, 1e3 * seen.fields["potential_V"], label="potential / mV", zoom=seen.zoom
    )
    plots.field_map(
        axes[1],
        seen.mesh,
        seen.fields["li_concentration_per_m3"] * 1e-27,
        label="Li⁺ / nm⁻³",
        zoom=seen.zoom,
    )
    folder.figure(
        f"picture_{file_name(s.name)}",
        figure,
        f"{s.name}: potential and Li⁺ concentration of {seen.n_grains} grains between two electrodes under "
        f"{seen.voltage * 1e3:.3g} mV, boundary layers resolved ({seen.mesh.n_cells} cells); inset: a junction.",
    )
