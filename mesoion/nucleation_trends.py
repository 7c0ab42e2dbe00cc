"""Trends and scatter in the nucleation study's report: computed ones beside those of the measured pellets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mesoion import plots
from mesoion.critical_current_trends import (
    Trend,
    by_dopant,
    grain_size_trend,
    inverse_temperature,
    log_trend,
    ratio,
    scatter,
    scatter_at_one_composition,
    scatter_interval,
    temperature_trend,
)
from mesoion.nucleation_sampling import CRITERIA, Criterion, interval
from mesoion.nucleation_study import CRITERION_WORDS, MA_PER_CM2, ROOM, CaseResult, Study, compared_case
from mesoion.runfolder import RunFolder
from mesoion.transport import MeasuredCriticalCurrent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

FEWEST = 3
"""Measured values that a slope needs."""
_MEASURED = "#222222"


@dataclass(frozen=True)
class Measured:
    """The measured pellets by what is known of them; a single crystal is no pellet."""

    pellets: Sequence[MeasuredCriticalCurrent]
    crystals: Sequence[MeasuredCriticalCurrent]

    @property
    def room(self) -> list[MeasuredCriticalCurrent]:
        """Pellets at room temperature."""
        return [m for m in self.pellets if ROOM[0] <= m.temperature_K <= ROOM[1]]

    @property
    def timed(self) -> list[MeasuredCriticalCurrent]:
        """Pellets at room temperature whose half cycle is known."""
        return [m for m in self.room if m.half_cycle_time_s is not None]

    @property
    def dense(self) -> list[MeasuredCriticalCurrent]:
        """Pellets at room temperature whose density is known."""
        return [m for m in self.room if m.relative_density_percent is not None]


def currents(measured: Sequence[MeasuredCriticalCurrent]) -> Floats:
    """[A/m²]."""
    return np.array([m.critical_current_density_A_per_m2 for m in measured])


def write_trends(
    study: Study,
    folder: RunFolder,
    results: Sequence[CaseResult],
    measured: Sequence[MeasuredCriticalCurrent],
) -> None:
    """Table, figure and words. Without measured values only the computed trend with grain size."""
    import pandas as pd

    crystals = [m for m in measured if "single crystal" in m.composition]
    given = Measured([m for m in measured if m not in crystals], crystals)
    sizes = study.grain_sizes.values()
    by_size: dict[tuple[str, Criterion], Trend] = {
        (r.case.name, c): grain_size_trend(r.case, r.values(), study.temperature, sizes, c)
        for r in results
        for c in CRITERIA
    }
    rows = [
        _row("grain size, d ln i/d ln d", f"computed, {name}, {CRITERION_WORDS[c]}", t, t.count)
        for (name, c), t in by_size.items()
    ]
    rows.append(_row("grain size, d ln i/d ln d", "measured: no grain sizes published", None, 0))
    chosen = compared_case(study, results)
    said = [_size_words(study, chosen, by_size, given)]
    if len(given.pellets) >= FEWEST:
        more, words = _measured_trends(chosen, results, given)
        rows += more
        said += words
        _figure(folder, study, chosen, given, by_size)
    frame = pd.DataFrame(rows)
    folder.table("trends_of_the_critical_current", frame, lead=True)
    folder.result("trends", rows)
    folder.paragraph("Trend with grain size, and scatter", "\n\n".join(said))


def _row(quantity: str, of: str, trend: Trend | None, count: int) -> dict[str, Any]:
    return {
        "trend": quantity,
        "of": of,
        "value": None if trend is None else trend.slope,
        "low": None if trend is None else trend.low,
        "high": None if trend is None else trend.high,
        "from": count,
    }


def _plain(quantity: str, of: str, values: tuple[float, float, float], count: int) -> dict[str, Any]:
    return _row(quantity, of, Trend(*values, count), count)


def _measured_trends(
    chosen: CaseResult, results: Sequence[CaseResult], given: Measured
) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    kelvin = np.array([m.temperature_K for m in given.pellets])
    if len(np.unique(kelvin)) > 1:
        found = log_trend(-inverse_temperature(kelvin), currents(given.pellets))
        rows.append(_row("temperature, activation energy / eV", "measured", found, found.count))
        computed = {
            c: temperature_trend(chosen.case, chosen.values(), np.unique(kelvin), c) for c in CRITERIA
        }
        for c, t in computed.items():
            name = f"computed, {chosen.case.name}, {CRITERION_WORDS[c]}"
            rows.append(_row("temperature, activation energy / eV", name, t, t.count))
        warm = int(np.sum(kelvin > ROOM[1]))
        said.append(
            f"Temperature: measured {_span(found)} eV from {found.count} pellets, {warm} of them warm; computed "
            + "; ".join(f"{_span(t)} eV until {CRITERION_WORDS[c]}" for c, t in computed.items())
            + f". {_agree(found, computed[CRITERIA[0]])}"
        )
    groups = {k: v for k, v in by_dopant(given.room).items() if len(v) > 1}
    if {"Al", "Ta"} <= set(groups):
        values = ratio(groups["Al"], groups["Ta"])
        rows.append(_plain("Al over Ta, ratio", "measured", values, len(groups["Al"]) + len(groups["Ta"])))
        reach = "holds 1, so the table does not order them" if values[1] < 1 < values[2] else "leaves out 1"
        said.append(
            "Dopant: pellets with Al, which prefers disordered LLZO by 0.95 eV, over pellets with Ta, which avoids "
            "it by 0.12 eV (formation energies, supplement of the LLZO segregation study): "
            f"{_figures(values)} (from {len(groups['Al'])} and {len(groups['Ta'])} pellets); the interval {reach}. "
            "Whether a pellet's boundaries were segregated is not published; its dopant is all that is. "
            + _computed_ratio(results)
        )
    if len({m.half_cycle_time_s for m in given.timed}) > 1 and len(given.timed) >= FEWEST:
        hours = np.log([float(m.half_cycle_time_s or 1.0) for m in given.timed])
        found = log_trend(hours, currents(given.timed))
        rows.append(_row("half cycle, d ln i/d ln t", "measured", found, found.count))
        rows.append(_row("half cycle, d ln i/d ln t", "computed: the model has no time", None, 0))
        verdict = "a trend" if found.certain else "no trend beyond the scatter"
        said.append(
            f"Half cycle: measured i ∝ t to the power {_span(found)}: {verdict}. The model has no time."
        )
    if given.dense:
        pairs = ", ".join(
            f"{m.relative_density_percent:g} %: {MA_PER_CM2 * m.critical_current_density_A_per_m2:.2g}"
            for m in sorted(given.dense, key=lambda m: m.relative_density_percent or 0.0)
        )
        said.append(
            f"Density: known of {len(given.dense)} pellets only ({pairs} mA/cm²), which is too few for a trend."
        )
    room = currents(given.room)
    own = {c: scatter(chosen.currents[c, "first"]) for c in CRITERIA}
    if len(room) > 1:
        name = "scatter, s.d. of ln i"
        rows.append(
            _plain(
                name,
                "measured at room temperature",
                scatter_interval(scatter(room), len(room) - 1),
                len(room),
            )
        )
    words = f"Scatter: the measured pellets at room temperature differ by a factor of {np.exp(scatter(room)):.2g} (one "
    words += "standard deviation)"
    if max(np.unique([m.composition for m in given.room], return_counts=True)[1]) > 1:
        same, freedom, count = scatter_at_one_composition(given.room)
        rows.append(
            _plain(
                "scatter, s.d. of ln i",
                "measured, at one composition",
                scatter_interval(same, freedom),
                count,
            )
        )
        words += f", pellets of one and the same composition by {np.exp(same):.2g} ({count} pellets)"
    for c, value in own.items():
        n = len(chosen.currents[c, "first"])
        name = f"computed, {chosen.case.name}, {CRITERION_WORDS[c]}"
        rows.append({**_row("scatter, s.d. of ln i", name, None, n), "value": value})
    said.append(
        words
        + "; computed, "
        + ", ".join(f"{np.exp(v):.2g} until {CRITERION_WORDS[c]}" for c, v in own.items())
        + ", which is the width of the assumptions. What differs between pellets is therefore not their composition; "
        "the model lays it to the interface, its contact and the counter pressure (see what decides)."
    )
    return rows, said


def _computed_ratio(results: Sequence[CaseResult]) -> str:
    named = {r.case.name: r for r in results}
    pairs = [(a, b) for a in named for b in named if a != b and a.endswith(", Al") and not b.endswith(", Al")]
    parts = []
    for a, b in pairs:
        both = {c: named[a].currents[c, "first"] / named[b].currents[c, "first"] for c in CRITERIA}
        said = ", ".join(f"{_figures(interval(v))} until {CRITERION_WORDS[c]}" for c, v in both.items())
        parts.append(f"{a} over {b}: {said}")
    return "Computed: " + "; ".join(parts) + "." if parts else ""


def _size_words(
    study: Study, chosen: CaseResult, by_size: dict[tuple[str, Criterion], Trend], given: Measured
) -> str:
    low, high = study.grain_sizes.lowest, study.grain_sizes.highest
    parts = []
    for c in CRITERIA:
        t = by_size[chosen.case.name, c]
        parts.append(
            f"until {CRITERION_WORDS[c]}, grains ten times as large change it by {_figures(_tenfold(t))} % (i ∝ d to "
            f"the power {_span(t)})"
        )
    text = (
        "Grain size by itself hardly moves the computed critical current. "
        f"{chosen.case.name}, {_length(low)} to {_length(high)}, all else equal: {'; '.join(parts)}. "
        "The measured table prints no grain sizes, so there is no measured slope to hold against this one."
    )
    if given.crystals and given.room:
        value = float(np.median(currents(given.crystals)))
        room = currents(given.room)
        below = int(np.sum(room < value))
        text += (
            f" Its only end point is a single crystal, a grain without boundaries: {MA_PER_CM2 * value:.2g} mA/cm², "
            f"above {below} and below {len(room) - below} of the {len(room)} pellets at room temperature. To have no "
            "boundary at all changes less than pellets differ among each other: that agrees with the computed slope "
            "and is all these measurements can say about it."
        )
    return text


def _agree(measured: Trend, computed: Trend) -> str:
    if measured.high < computed.low or measured.low > computed.high:
        return "The intervals do not meet."
    return "The intervals meet."


def _tenfold(t: Trend) -> tuple[float, float, float]:
    """What ten times the grain size changes [%]."""
    return 100 * (10**t.slope - 1), 100 * (10**t.low - 1), 100 * (10**t.high - 1)


def _span(t: Trend) -> str:
    return _figures((t.slope, t.low, t.high))


def _figures(values: tuple[float, float, float]) -> str:
    # What is far below the interval's width is zero.
    least = 1e-3 * max(abs(v) for v in values)
    middle, low, high = (f"{v if abs(v) > least else 0:.2g}".replace("-", "−") for v in values)
    return f"{middle} ({low} to {high})"


def _length(metres: float) -> str:
    return f"{metres * 1e6:g} µm" if metres >= 1e-6 else f"{metres * 1e9:g} nm"


# The figure --------------------------------------------------------------------------------------------------------


def _figure(
    folder: RunFolder,
    study: Study,
    chosen: CaseResult,
    given: Measured,
    by_size: dict[tuple[str, Criterion], Trend],
) -> None:
    figure, axes = plots.new_figure(
        1, 4, width=3.1, height=3.6, sharey=True, width_ratios=[1.5, 1.2, 0.9, 0.9]
    )
    with plots.style():
        _size_panel(axes[0], study, chosen, given, by_size)
        _temperature_panel(axes[1], study, chosen, given)
        _dopant_panel(axes[2], given)
        _time_panel(axes[3], given)
        axes[0].set_yscale("log")
        axes[0].set_ylabel("critical current density / mA cm⁻²")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    folder.figure(
        "trends_of_the_critical_current",
        figure,
        f"Trend and scatter, {chosen.case.name}, nothing tuned. Bands: computed, median and 95 % over all assumptions; "
        "black: measured pellets. Grain size: the computed lines are flat; measured pellets have no published size and "
        "are drawn as the grey range they span at room temperature, the single crystal at the right end. Then what is "
        "known of the pellets: temperature, dopant and half cycle (both at room temperature, bars: geometric mean and "
        "its 95 % interval).",
    )


def _bands(ax: Axes, x: Floats, found: Sequence[dict[tuple[Criterion, str], Floats]]) -> None:
    for j, c in enumerate(CRITERIA):
        rows = np.array([interval(f[c, "first"] * MA_PER_CM2) for f in found])
        label = f"computed, {CRITERION_WORDS[c]}"
        ax.plot(x, rows[:, 0], color=plots.COLOURS[j], label=label)
        ax.fill_between(x, rows[:, 1], rows[:, 2], color=plots.COLOURS[j], alpha=0.15, lw=0)


def _size_panel(
    ax: Axes, study: Study, chosen: CaseResult, given: Measured, by_size: dict[tuple[str, Criterion], Trend]
) -> None:
    sizes = study.grain_sizes.values()
    values = chosen.values()
    _bands(
        ax, sizes * 1e6, [chosen.case.critical_currents(values, study.temperature, float(d)) for d in sizes]
    )
    room = currents(given.room) * MA_PER_CM2
    if len(room):
        ax.axhspan(
            room.min(), room.max(), color="#777777", alpha=0.25, lw=0, label="measured, no grain size known"
        )
    right = float(sizes[-1] * 1e6)
    if given.crystals:
        at = currents(given.crystals) * MA_PER_CM2
        ax.plot(
            np.full(len(at), right), at, "D", color=_MEASURED, ms=5, clip_on=False, label="single crystal"
        )
    slopes = "\n".join(
        f"{w}, grains × 10: {_figures(_tenfold(by_size[chosen.case.name, c]))} %"
        for w, c in zip(("blue", "red"), CRITERIA, strict=True)
    )
    ax.set_title(slopes, fontsize=8, loc="left")
    ax.set_xscale("log")
    ax.set_xlabel("grain size / µm")
    plots.plain_log_ticks(ax.xaxis, float(sizes[0] * 1e6), right)


def _temperature_panel(ax: Axes, study: Study, chosen: CaseResult, given: Measured) -> None:
    known = np.array([m.temperature_K for m in given.pellets])
    at = np.linspace(min(known.min(), study.temperature), known.max(), 6) if np.ptp(known) else known[:1]
    values = chosen.values()
    if len(at) > 1:
        _bands(ax, at - 273.15, [chosen.case.critical_currents(values, float(t)) for t in at])
    ax.plot(known - 273.15, currents(given.pellets) * MA_PER_CM2, "o", color=_MEASURED, mfc="none", ms=4)
    ax.set_xlabel("T / °C")
    ax.set_title("temperature", fontsize=8, loc="left")


def _dopant_panel(ax: Axes, given: Measured) -> None:
    from scipy.stats import t as student

    groups = by_dopant(given.room)
    for j, values in enumerate(groups.values()):
        shown = values * MA_PER_CM2
        ax.plot(np.linspace(j - 0.18, j + 0.18, len(shown)), shown, "o", color=_MEASURED, mfc="none", ms=4)
        if len(shown) > 1:
            logs = np.log(shown)
            half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
            middle = float(np.exp(logs.mean()))
            bounds = [[middle - np.exp(logs.mean() - half)], [np.exp(logs.mean() + half) - middle]]
            ax.errorbar(j + 0.32, middle, bounds, fmt="_", color=plots.COLOURS[2], ms=10, capsize=3)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_xlim(-0.6, len(groups) - 0.3)
    ax.set_xlabel("dopant")
    ax.set_title("measured, by dopant", fontsize=8, loc="left")


def _time_panel(ax: Axes, given: Measured) -> None:
    hours = np.array([(m.half_cycle_time_s or 0.0) / 3600 for m in given.timed])
    ax.plot(hours, currents(given.timed) * MA_PER_CM2, "o", color=_MEASURED, mfc="none", ms=4)
    ax.set_xscale("log")
    if len(hours):
        plots.plain_log_ticks(ax.xaxis, float(hours.min()), float(hours.max()))
    ax.set_xlabel("half cycle / h")
    ax.set_title("measured, by half cycle", fontsize=8, loc="left")
