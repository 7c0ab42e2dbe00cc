"""Figures of the field. Every function draws on the axes it is given and returns them; SI in, labelled units out.

matplotlib is imported where it is used. Colours are those of Okabe and Ito, told apart also without colour vision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from mesoion.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from mesoion.mesh import CellMesh
    from mesoion.runfolder import Comparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SEQUENTIAL = "viridis"
_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "svg.fonttype": "none",
}

P = ParamSpec("P")
R = TypeVar("R")
Spectra = Mapping[str, tuple["ArrayLike", "ArrayLike"]]


@contextmanager
def style() -> Iterator[None]:
    """Draw in this package's style inside a `with` block; global settings stay as they were."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with mpl.rc_context(settings):
        yield


def _styled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` drawing in this package's style."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return function(*args, **kwargs)

    return wrapped


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 4.2, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure that needs no display, and its axes as `matplotlib.pyplot.subplots` gives them, in `style`.

    width, height: of each panel, inches. options: of `subplots`, such as `sharex`.
    """
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    import matplotlib.pyplot as plt

    with style():
        size = (width * columns, height * rows)
        return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def _scale(values: ArrayLike) -> tuple[float, str]:
    """Power of 1000 and SI prefix that bring the largest of `values` between 1 and 1000."""
    magnitude = float(np.max(np.abs(np.asarray(values)), initial=0.0))
    if not np.isfinite(magnitude) or magnitude == 0:
        return 1.0, ""
    prefixes = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
    power = int(np.clip(3 * np.floor(np.log10(magnitude) / 3), -15, 12))
    return 10.0**power, prefixes[power]


def _frequency_label(frequency: float) -> str:
    factor, prefix = _scale(frequency)
    return f"{frequency / factor:.3g} {prefix}Hz"


@_styled
def nyquist(
    ax: Axes,
    spectra: Spectra,
    *,
    measured: Spectra | None = None,
    unit: str = "Ω",
    decades: bool = True,
) -> Axes:
    """−Z'' against Z' on equal axes, every decade of frequency marked and labelled; long tails are cut.

    spectra: label -> (frequency (m,) [Hz], impedance (m,) complex, in `unit`); lines. measured: the same; symbols.
    """
    measured = measured or {}
    everything = [np.asarray(z, dtype=complex) for _, z in (*spectra.values(), *measured.values())]
    if not everything:
        raise InputError("nyquist", "no spectra", "give at least one (frequency, impedance)")
    factor, prefix = _scale(np.concatenate([z.real for z in everything]))
    for index, (label, (_, z)) in enumerate(measured.items()):
        z = np.asarray(z, dtype=complex) / factor
        marker, colour = MARKERS[index % len(MARKERS)], COLOURS[(index + len(spectra)) % len(COLOURS)]
        ax.plot(z.real, -z.imag, marker, mfc="none", color=colour, label=label)
    for index, (label, (f, z)) in enumerate(spectra.items()):
        f, z = np.asarray(f, dtype=float), np.asarray(z, dtype=complex) / factor
        colour = COLOURS[index % len(COLOURS)]
        ax.plot(z.real, -z.imag, color=colour, label=label)
        if decades:
            _mark_decades(ax, f, z, colour, labelled=index == 0)
    # Inductive and blocking tails leave the arcs' range by far and would squeeze them on equal axes.
    right = max(float(np.max(z.real)) for z in everything) / factor
    top = min(max(float(np.max(-z.imag)) for z in everything) / factor, 0.8 * right)
    extent = max(right, top) * 1.1
    ax.set_xlim(min(0.0, -0.02 * extent), extent)
    ax.set_ylim(-0.04 * extent, max(1.15 * top, 0.4 * extent))
    ax.set_aspect("equal", adjustable="box")
    ax.set_xlabel(f"Z' / {prefix}{unit}")
    ax.set_ylabel(f"−Z'' / {prefix}{unit}")
    if len(spectra) + len(measured) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return ax


def _mark_decades(ax: Axes, f: NDArray[Any], z: NDArray[Any], colour: str, *, labelled: bool) -> None:
    """A dot at each whole decade, interpolated in log f; labels only where they do not overlap."""
    from matplotlib.patheffects import withStroke

    order = np.argsort(f)
    log_f, z = np.log10(f[order]), z[order]
    extent = max(float(np.ptp(z.real)), 1e-300)
    taken: list[complex] = []
    for decade in range(int(np.ceil(log_f[0] - 1e-9)), int(np.floor(log_f[-1] + 1e-9)) + 1):
        point = complex(np.interp(decade, log_f, z.real), np.interp(decade, log_f, z.imag))
        ax.plot(point.real, -point.imag, "o", color=colour, ms=4.5, mec="white", mew=0.6, zorder=3)
        if labelled and all(abs(point - other) > 0.12 * extent for other in taken):
            ax.annotate(
                _frequency_label(10.0**decade),
                (point.real, -point.imag),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color="#333333",
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
            taken.append(point)


@_styled
def bode(
    ax: Axes,
    spectra: Spectra,
    *,
    measured: Spectra | None = None,
    unit: str = "Ω",
    phase_ax: Axes | None = None,
) -> Axes:
    """|Z| (solid, left) and −phase (dashed, on a second axis) against frequency, logarithmic.

    spectra, measured: as in `nyquist`. phase_ax: axes for the phase instead of a twin of `ax`.
    """
    phase = ax.twinx() if phase_ax is None else phase_ax
    groups: list[tuple[Spectra, bool]] = [(spectra, False), (measured or {}, True)]
    index = 0
    for group, symbols in groups:
        for label, (f, z) in group.items():
            f, z = np.asarray(f, dtype=float), np.asarray(z, dtype=complex)
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            magnitude_style = {"ls": "", "marker": marker, "mfc": "none"} if symbols else {"ls": "-"}
            phase_style = {"ls": "", "marker": marker, "mfc": colour} if symbols else {"ls": "--"}
            ax.loglog(f, np.abs(z), color=colour, label=label, **magnitude_style)
            phase.semilogx(f, -np.degrees(np.angle(z)), color=colour, lw=1.0, ms=3, **phase_style)
            index += 1
    ax.set_xlabel("f / Hz")
    ax.set_ylabel(f"|Z| / {unit} (solid)" if phase_ax is None else f"|Z| / {unit}")
    plain_log_ticks(ax.yaxis, *ax.get_ylim())
    phase.set_ylabel("−phase / ° (dashed)" if phase_ax is None else "−phase / °")
    phase.set_ylim(-5 if _phase_floor(groups) > -5 else -95, 95)
    phase.set_yticks([0, 30, 60, 90] if phase.get_ylim()[0] > -50 else [-90, -45, 0, 45, 90])
    phase.grid(False)
    if phase_ax is None:
        phase.spines["right"].set_visible(True)
    if index > 1:
        ax.legend()
    return ax


def _phase_floor(groups: Sequence[tuple[Spectra, bool]]) -> float:
    """Smallest −phase of all spectra [degrees]."""
    values = [np.asarray(z, dtype=complex) for group, _ in groups for _, z in group.values()]
    return min((float(-np.degrees(np.angle(z)).max()) for z in values), default=0.0)


@_styled
def arrhenius(
    ax: Axes,
    series: Mapping[str, Mapping[str, ArrayLike]],
    *,
    measured: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    beside: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    times_temperature: bool = False,
    quantity: str = "σ",
    unit: str = "S/cm",
    factor: float = 0.01,
) -> Axes:
    """Conductivity or diffusivity, logarithmic, against 1000/T, with the temperature on top.

    series: label -> {"temperature" (m,) [K], "value" (m,) [SI], optional "low", "high" (m,): 95 % band}; lines.
    measured: the same; symbols, with bars where low and high are given. beside: some of the labels of `series` again,
    from another source; dashed, in the same colours. times_temperature: draw value·T. factor: from SI to `unit` (0.01:
    S/m to S/cm).
    """
    temperatures: list[float] = []
    index = 0
    labels = list(series)
    for label, data in (beside or {}).items():
        if label not in labels:
            raise InputError(f"arrhenius, beside {label}", label, f"one of the series: {', '.join(labels)}")
        t = np.atleast_1d(np.asarray(data["temperature"], dtype=float))
        order = np.argsort(t)
        value = np.atleast_1d(np.asarray(data["value"], dtype=float))[order]
        value = value * factor * (t[order] if times_temperature else 1.0)
        ax.plot(1000.0 / t[order], value, color=COLOURS[labels.index(label) % len(COLOURS)], ls="--", lw=1.1)
        temperatures.extend(t)
    for group, symbols in ((series, False), (measured or {}, True)):
        for label, data in group.items():
            t = np.atleast_1d(np.asarray(data["temperature"], dtype=float))
            if t.size == 0 or not np.all(t > 0):
                raise InputError(f"arrhenius {label}", t.tolist(), "give temperatures above 0 K")
            order = np.argsort(t)
            t = t[order]
            weight = factor * (t if times_temperature else 1.0)
            drawn = {
                k: np.atleast_1d(np.asarray(data[k], dtype=float))[order] * weight
                for k in ("value", "low", "high")
                if k in data
            }
            colour, marker, x = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], 1000.0 / t
            bounded = "low" in drawn and "high" in drawn
            if symbols or len(t) == 1:
                bars = [drawn["value"] - drawn["low"], drawn["high"] - drawn["value"]] if bounded else None
                look: dict[str, Any] = {"fmt": marker, "mfc": "white", "mec": colour, "capsize": 2, "ms": 5}
                ax.errorbar(x, drawn["value"], yerr=bars, color=colour, label=label, zorder=4, **look)
            else:
                ax.plot(x, drawn["value"], color=colour, label=label)
                if bounded:
                    ax.fill_between(x, drawn["low"], drawn["high"], color=colour, alpha=0.18, lw=0)
            temperatures.extend(t)
            index += 1
    if not temperatures:
        raise InputError("arrhenius", "no series", "give at least one")
    ax.set_yscale("log")
    ax.set_xlabel("1000 K / T")
    ax.set_ylabel(f"{quantity}T / {unit} K" if times_temperature else f"{quantity} / {unit}")
    _temperature_axis(ax, np.asarray(temperatures))
    ax.legend()
    return ax


def _temperature_axis(ax: Axes, temperatures: NDArray[Any]) -> None:
    """°C on top of a 1000/T axis, at round temperatures that do not crowd."""
    x_low, x_high = 1000 / temperatures.max(), 1000 / temperatures.min()
    margin = 0.05 * (x_high - x_low) or 0.02 * x_high
    ax.set_xlim(x_low - margin, x_high + margin)
    top = ax.secondary_xaxis("top", functions=(lambda x: x, lambda x: x))
    left, right = ax.get_xlim()
    round_ones = [*range(-150, 0, 25), *range(0, 100, 25), *range(100, 400, 50), *range(400, 2001, 100)]
    chosen: list[int] = []
    for celsius in round_ones:
        x = 1000 / (celsius + 273.15)
        far = all(abs(x - 1000 / (c + 273.15)) > 0.11 * (right - left) for c in chosen)
        if left <= x <= right and far:
            chosen.append(celsius)
    top.set_xticks([1000 / (c + 273.15) for c in chosen], [str(c) for c in chosen])
    top.set_xlabel("T / °C")
    top.tick_params(labelsize=8)


@_styled
def parity(ax: Axes, comparisons: Sequence[Comparison]) -> Axes:
    """Predicted against measured, one line a quantity: predictions with their 95 % intervals, the measurement.

    Predictions of one material, quantity and measurement from several records share a line, a colour for each kind of
    records. Rows are labelled "material: quantity"; the ratios predicted/measured stand at the right. Logarithmic where
    all values are positive. The unit of all comparisons must be one.
    """
    if not comparisons:
        raise InputError("parity", "no comparisons", "give at least one")
    units = {c.unit for c in comparisons}
    if len(units) > 1:
        raise InputError("parity", sorted(units), "compare one unit a figure")
    lines: list[list[Comparison]] = []
    for c in comparisons:
        same = [
            line
            for line in lines
            if c.records not in {o.records for o in line}
            and (c.material, c.quantity, c.measured) == (line[0].material, line[0].quantity, line[0].measured)
        ]
        if same:
            same[0].append(c)
        else:
            lines.append([c])
    kinds = list(dict.fromkeys(c.records for c in comparisons))
    colours = {kind: (COLOURS[0], *COLOURS[2:])[k % (len(COLOURS) - 1)] for k, kind in enumerate(kinds)}
    rows = np.arange(len(lines))[::-1]
    positive = all(min(c.low, c.predicted, c.measured) > 0 for c in comparisons)
    named: set[str] = set()
    for row, line in zip(rows, lines, strict=True):
        ratios = []
        for k, c in enumerate(line):
            y = row + 0.28 * (0.5 * (len(line) - 1) - k)
            colour = colours[c.records]
            said = f"predicted{f' from {c.records}' if c.records else ''}, 95 %"
            ax.plot([c.predicted, c.measured], [y, row], color="#bbbbbb", lw=0.8, ls=":", zorder=1)
            ax.plot([c.low, c.high], [y, y], color=colour, lw=3.0, alpha=0.45, solid_capstyle="butt")
            ax.plot(c.predicted, y, "o", color=colour, ms=5.5, label=None if said in named else said)
            named.add(said)
            if c.measured:
                ratios.append(f"{ratio_text(c.ratio)}×")
        c = line[0]
        ax.plot(
            c.measured, row, "D", color=COLOURS[1], ms=5, mfc="white", label="measured" if row == 0 else None
        )
        ax.annotate(
            ", ".join(ratios),
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    if positive:
        ax.set_xscale("log")
    ax.set_yticks(rows, [f"{line[0].material}: {line[0].quantity}" for line in lines])
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(units.pop())
    ax.annotate(
        "predicted /\nmeasured", (1.01, 1.01), xycoords="axes fraction", fontsize=8, annotation_clip=False
    )
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=1 if len(kinds) > 1 else 2)
    return ax


def ratio_text(ratio: float) -> str:
    """A ratio to two digits: 0.89, 13, 420; powers of ten only beyond 1e-3 and 1e5."""
    if not 1e-3 <= abs(ratio) < 1e5:
        return f"{ratio:.1e}"
    digits = int(np.floor(np.log10(abs(ratio))))
    return f"{round(ratio, 1 - digits):.{max(0, 1 - digits)}f}"


def plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 as plain numbers where a logarithmic axis (`ax.xaxis`) spans few decades, low to high."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_minor_formatter(NullFormatter())
    decades = np.log10(high / low)
    if decades > 4:
        return
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    if low >= 1e-3 and high <= 1e4:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    else:
        axis.set_major_formatter(FuncFormatter(lambda v, _: _power_text(v)))


def _power_text(value: float) -> str:
    mantissa, exponent = f"{value:.0e}".split("e")
    lead = "" if mantissa == "1" else f"{mantissa}\\cdot"
    return f"${lead}10^{{{int(exponent)}}}$"


@_styled
def field_map(
    ax: Axes,
    mesh: CellMesh,
    values: ArrayLike,
    *,
    label: str = "",
    log: bool = False,
    colour_map: str = SEQUENTIAL,
    limits: tuple[float, float] | None = None,
    zoom: tuple[float, float, float] | None = None,
    outlines: bool = False,
    bar: bool = True,
) -> Axes:
    """Cells of a 2D mesh coloured by `values` (n,), with a colour bar; axes in µm or nm.

    label: of the colour bar, which `bar=False` leaves out. log: logarithmic colours. limits: of the colours. zoom:
    (x, y, width) [m] of an inset that shows a boundary layer. outlines: draw the cells' edges. Raises InputError for a
    mesh without polygons.
    """
    from matplotlib.colors import LogNorm, Normalize

    values = np.asarray(values, dtype=float)
    if mesh.polygons is None or mesh.vertices is None:
        raise InputError("field_map", f"a {mesh.dimension}D mesh", "give a 2D mesh with polygons")
    if values.shape != (mesh.n_cells,):
        raise InputError("field_map", values.shape, f"give one value for each of {mesh.n_cells} cells")
    low, high = limits or (float(values.min()), float(values.max()))
    if log and low <= 0:
        raise InputError("field_map", low, "logarithmic colours need positive values")
    norm = LogNorm(low, high) if log else Normalize(low, high)
    low_corner, high_corner = _window(mesh)
    extent = high_corner - low_corner
    unit, factor = ("µm", 1e-6) if extent.max() > 2e-7 else ("nm", 1e-9)
    images = list(_images(mesh, low_corner, high_corner))
    polygons = [polygon / factor for _, polygon in images]
    values = values[[cell for cell, _ in images]]
    options = {"norm": norm, "cmap": colour_map}
    drawn = _draw_cells(ax, polygons, values, outlines=outlines, **options)
    ax.set_xlim(low_corner[0] / factor, high_corner[0] / factor)
    ax.set_ylim(low_corner[1] / factor, high_corner[1] / factor)
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.set_xlabel(f"x / {unit}")
    ax.set_ylabel(f"y / {unit}")
    if zoom is not None:
        _zoom(ax, polygons, values, np.asarray(zoom, dtype=float) / factor, options)
    if bar:
        ax.figure.colorbar(drawn, ax=ax, shrink=0.85).set_label(label)
    return ax


def _window(mesh: CellMesh) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lower and upper corner of the box to draw: one period along periodic axes, all cells along the others."""
    assert mesh.vertices is not None
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    periodic = mesh.period > 0
    start = np.floor(mesh.centers.min(axis=0) / np.where(periodic, mesh.period, 1.0) + 1e-9) * mesh.period
    return np.where(periodic, start, low), np.where(periodic, start + mesh.period, high)


def _images(mesh: CellMesh, low: NDArray[Any], high: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Number and outline of each cell in the window, with the periodic images that reach into it."""
    assert mesh.vertices is not None
    assert mesh.polygons is not None
    outlines = [mesh.vertices[polygon] for polygon in mesh.polygons]
    lowest = np.array([outline.min(axis=0) for outline in outlines])
    highest = np.array([outline.max(axis=0) for outline in outlines])
    steps = [(-1, 0, 1) if period > 0 else (0,) for period in mesh.period]
    for step in itertools.product(*steps):
        shift = np.array(step) * mesh.period
        inside = np.all((highest + shift > low) & (lowest + shift < high), axis=1)
        for cell in np.flatnonzero(inside):
            yield int(cell), outlines[cell] + shift


def _draw_cells(
    ax: Axes, polygons: Sequence[NDArray[Any]], values: NDArray[Any], *, outlines: bool, **options: Any
) -> Any:
    from matplotlib.collections import PolyCollection

    # Edges in the face's own colour close the hairlines that antialiasing leaves between cells.
    edges: dict[str, Any] = (
        {"edgecolor": "#00000055", "lw": 0.3} if outlines else {"edgecolor": "face", "lw": 0.2}
    )
    cells = PolyCollection(polygons, array=values, rasterized=True, **edges, **options)
    ax.add_collection(cells)
    return cells


def _zoom(
    ax: Axes,
    polygons: Sequence[NDArray[Any]],
    values: NDArray[Any],
    window: NDArray[Any],
    options: Mapping[str, Any],
) -> None:
    x, y, width = window
    half = 0.5 * width
    inset = ax.inset_axes((0.6, 0.6, 0.38, 0.38))
    inside = [
        i
        for i, p in enumerate(polygons)
        if np.all(p.max(axis=0) >= (x - half, y - half)) and np.all(p.min(axis=0) <= (x + half, y + half))
    ]
    _draw_cells(inset, [polygons[i] for i in inside], values[inside], outlines=True, **options)
    inset.set_xlim(x - half, x + half)
    inset.set_ylim(y - half, y + half)
    inset.set_aspect("equal")
    inset.grid(visible=False)
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set(visible=True, color="white", linewidth=1.2)
    ax.indicate_inset_zoom(inset, edgecolor="white", alpha=0.9)


@_styled
def boundary_profile(
    ax: Axes,
    x: ArrayLike,
    *,
    potential: ArrayLike | None = None,
    occupancy: ArrayLike | None = None,
    conductivity: Mapping[str, ArrayLike] | ArrayLike | None = None,
    width: float | None = None,
) -> Axes:
    """φ, θ and σ across a grain boundary against x, each on an axis of its own; the layer is shaded.

    x (n,): m, 0 in the middle of the layer. potential (n,): V. occupancy (n,): θ. conductivity: S/m, one array or
    label -> array ("across", "along"); logarithmic, in S/cm. width: of the layer, m.
    """
    nm = np.asarray(x, dtype=float) / 1e-9
    if width is not None:
        half = 0.5 * width / 1e-9
        ax.axvspan(-half, half, color="#999999", alpha=0.2, lw=0)
    drawn: list[Any] = []
    free: list[Axes] = [ax]

    def next_axes() -> Axes:
        if free:
            return free.pop()
        twin = ax.twinx()
        twin.grid(visible=False)
        twins = len(drawn) - 1
        twin.spines["right"].set(visible=True, position=("axes", 1.0 + 0.2 * max(0, twins)))
        return twin

    if potential is not None:
        a = next_axes()
        # Below a microvolt there is only rounding to see.
        scale, prefix = _scale(np.append(np.asarray(potential, dtype=float), 1e-6))
        drawn += a.plot(nm, np.asarray(potential, dtype=float) / scale, color=COLOURS[0], label="φ")
        if np.max(np.abs(np.asarray(potential))) < 1e-6:
            a.set_ylim(-1.0, 1.0)
        a.set_ylabel(f"φ / {prefix}V", color=COLOURS[0])
    if occupancy is not None:
        a = next_axes()
        drawn += a.plot(nm, np.asarray(occupancy, dtype=float), color=COLOURS[1], ls="--", label="θ")
        a.set_ylabel("θ", color=COLOURS[1])
        a.set_ylim(0, 1)
    if conductivity is not None:
        a = next_axes()
        named = conductivity if isinstance(conductivity, Mapping) else {"": conductivity}
        for (name, values), line in zip(named.items(), ("-", "-.", ":", "--"), strict=False):
            label = f"σ {name}".strip()
            colour = COLOURS[2]
            drawn += a.semilogy(
                nm, 0.01 * np.asarray(values, dtype=float), color=colour, ls=line, label=label
            )
        a.set_ylabel("σ / S cm⁻¹", color=COLOURS[2])
    if not drawn:
        raise InputError("boundary_profile", "nothing to draw", "give potential, occupancy or conductivity")
    ax.set_xlabel("x / nm")
    ax.set_xlim(float(nm.min()), float(nm.max()))
    ax.legend(handles=drawn, loc="upper left", bbox_to_anchor=(0.0, 1.16), ncols=len(drawn))
    return ax


@_styled
def sweep_map(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    *,
    x_label: str,
    y_label: str,
    label: str,
    log: bool = True,
    colour_map: str = SEQUENTIAL,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """A quantity over two logarithmic parameters: colours with labelled contours.

    x (p,), y (q,): grids, in the units of their labels. values (q, p): NaN where a point failed (grey).
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator, MaxNLocator

    x, y, values = (np.asarray(a, dtype=float) for a in (x, y, values))
    if not (np.all(x > 0) and np.all(y > 0)):
        raise InputError("sweep_map", (x.tolist(), y.tolist()), "both parameters must be positive")
    if values.shape != (len(y), len(x)):
        raise InputError("sweep_map", values.shape, f"give {len(y)} rows (y) of {len(x)} values (x)")
    good = np.isfinite(values)
    if not good.any() or (log and values[good].min() <= 0):
        raise InputError("sweep_map", label, "give finite values, positive where colours are logarithmic")
    low, high = limits or (float(values[good].min()), float(values[good].max()))
    norm = LogNorm(low, high) if log else Normalize(low, high)
    ax.set_facecolor("#cccccc")
    drawn = ax.pcolormesh(
        _edges(x), _edges(y), np.ma.masked_invalid(values), norm=norm, cmap=colour_map, rasterized=True
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(visible=False)
    if min(values.shape) > 1 and high > low:
        wide = log and high / low > 30
        locator = LogLocator(subs=(1.0,)) if wide else MaxNLocator(6)
        levels = [v for v in locator.tick_values(low, high) if low < v < high]
        if levels:
            lines = ax.contour(
                x, y, np.ma.masked_invalid(values), levels=levels, colors="white", linewidths=0.8
            )
            ax.clabel(lines, fmt=_number, fontsize=7)
    bar = ax.figure.colorbar(drawn, ax=ax)
    bar.set_label(label)
    if log and high > low:
        plain_log_ticks(bar.ax.yaxis, low, high)
    plain_log_ticks(ax.xaxis, float(x.min()), float(x.max()))
    plain_log_ticks(ax.yaxis, float(y.min()), float(y.max()))
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    return ax


def _edges(centres: NDArray[Any]) -> NDArray[Any]:
    """Edges of cells about logarithmic `centres`."""
    logs = np.log(centres)
    if len(logs) == 1:
        logs = np.array([logs[0] - 0.5, logs[0] + 0.5])
    else:
        middle = 0.5 * (logs[1:] + logs[:-1])
        logs = np.r_[2 * logs[0] - middle[0], middle, 2 * logs[-1] - middle[-1]]
    edges: NDArray[Any] = np.exp(logs)
    return edges


def _number(value: float) -> str:
    return f"{value:.2g}"
