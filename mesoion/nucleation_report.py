"""Figures and words of the nucleation study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mesoion import plots
from mesoion.material import Material
from mesoion.nucleation import Site, elastic_overpotential, nucleation_barrier, shape_factor
from mesoion.nucleation_map import HazardMap, LithiumProfile, hazard_map, lithium_profile
from mesoion.nucleation_order import write_order
from mesoion.nucleation_sampling import CRITERIA, Criterion, Sensitivity, interval
from mesoion.nucleation_study import (
    CRITERION_WORDS,
    MA_PER_CM2,
    QUANTITIES,
    ROOM,
    CaseResult,
    Study,
    compared_case,
    finite,
)
from mesoion.nucleation_trends import write_trends
from mesoion.pellet_figures import file_name
from mesoion.runfolder import RunFolder
from mesoion.transport import MeasuredCriticalCurrent, load_record
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

CASE_LINES = ("-", "--", "-.")
LINES: dict[Criterion, str] = {"stable": "-", "barrier": "--"}
LEAST_INDEX = 0.01
"""Parameters whose total Sobol index stays below this under both criteria are left out of the figure."""
JUST_BELOW = 0.95
"""A map without a current of its own is drawn at this multiple of the one that median boundaries stand."""


def write(
    study: Study,
    folder: RunFolder,
    results: Sequence[CaseResult],
    sensitivity: Mapping[Criterion, Sensitivity],
    measured: Sequence[MeasuredCriticalCurrent],
    profiles: Sequence[LithiumProfile],
) -> None:
    """Every figure, then the words, most important first."""
    write_trends(study, folder, results, measured)
    maps = _maps(study, folder, results)
    _grain_size_figure(study, folder, results, measured)
    _panels(study, folder, results)
    _sensitivity_figure(folder, results[0].case.name, sensitivity)
    _profile_figure(study, folder, profiles)
    room = [m for m in measured if ROOM[0] <= m.temperature_K <= ROOM[1]]
    if room:
        words = _measured_words(study, results, room) + _warm_words(folder)
        folder.paragraph("Beside the measured values", words)
    folder.paragraph("Order of the cases", _order_words(folder))
    write_order(study, folder, results)
    folder.paragraph("What decides", _decides_words(sensitivity))
    if maps:
        folder.paragraph("Boundaries and junctions", _map_words(maps))
    folder.paragraph("What is assumed", ASSUMED)
    for r in results:
        said = [r.given.note, "; ".join(r.case.material.assumptions(study.temperature))]
        if r.case.core_charge > 0:
            said.append(
                f"On top of the records, 0 to {r.case.core_charge * 1e-18:.2g} charges per nm² in every boundary are "
                "sampled."
            )
        folder.paragraph(r.case.name, "\n\n".join(s for s in said if s))


ASSUMED = (
    "No rate of nucleation is given, as none can be without its attempt frequency: a site counts as reached when metal "
    "is stable there, or when the barrier of classical nucleation has come down to an assumed one. The first is also "
    "what metal needs that grows in from the electrode, the second what metal needs that starts inside.\n\n"
    "Both lithium electrodes exchange ions and electrons; electrons follow lithium's activity (mass action) and are "
    "dilute. Where they would carry more than the ions, the cell is short without any metal and the model ends: "
    "such samples count as an electronic short. Cracks and voids enter only as the pore diameter, the elastic energy "
    "and the share of the interface in contact. Grains are columnar (two dimensions) for the constriction."
)


# Critical currents -------------------------------------------------------------------------------------------------


def _band(
    ax: Axes,
    x: Floats,
    values: Sequence[Floats],
    colour: str,
    line: str,
    label: str | None,
    *,
    width: float = 1.5,
    shaded: bool = True,
) -> None:
    rows = np.array([interval(v * MA_PER_CM2) for v in values])
    # A wide line lies under the narrow ones of cases that may coincide with it.
    ax.plot(x, rows[:, 0], line, color=colour, label=label, lw=width, alpha=0.45 if width > 2 else 1.0)
    if shaded:
        ax.fill_between(x, rows[:, 1], rows[:, 2], color=colour, alpha=0.12, lw=0)
    else:
        ax.plot(x, rows[:, 1], ":", color=colour, lw=0.8)
        ax.plot(x, rows[:, 2], ":", color=colour, lw=0.8)


def _grain_size_figure(
    study: Study,
    folder: RunFolder,
    results: Sequence[CaseResult],
    measured: Sequence[MeasuredCriticalCurrent],
) -> None:
    import pandas as pd

    sizes = study.grain_sizes.values()
    figure, axes = plots.new_figure(1, 2, width=4.4, height=4.4, sharey=True, width_ratios=[3.2, 1.0])
    ax, side = axes
    rows: list[dict[str, Any]] = []
    with plots.style():
        for j, r in enumerate(results):
            values = r.values()
            found = [r.case.critical_currents(values, study.temperature, float(d)) for d in sizes]
            for criterion in CRITERIA:
                _band(
                    ax,
                    sizes * 1e6,
                    [f[criterion, "first"] for f in found],
                    plots.COLOURS[CRITERIA.index(criterion)],
                    CASE_LINES[j % len(CASE_LINES)],
                    f"{r.case.name}: {CRITERION_WORDS[criterion]}",
                    width=4.0 if j == 0 else 1.5,
                    shaded=j == 0,
                )
                for d, f in zip(sizes, found, strict=True):
                    middle, low, high = interval(f[criterion, "first"] * MA_PER_CM2)
                    rows.append(
                        {
                            "case": r.case.name,
                            "criterion": CRITERION_WORDS[criterion],
                            "grain size / um": d * 1e6,
                            "median / mA cm^-2": middle,
                            "low / mA cm^-2": low,
                            "high / mA cm^-2": high,
                        }
                    )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("grain size / µm")
        ax.set_ylabel("critical current density / mA cm⁻²")
        plots.plain_log_ticks(ax.xaxis, float(sizes[0] * 1e6), float(sizes[-1] * 1e6))
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=1)
        if measured:
            _measured_strip(side, measured)
        else:
            side.set_visible(False)
    folder.figure(
        "critical_current_and_grain_size",
        figure,
        f"Critical current density at {study.temperature - 273.15:.0f} °C against grain size: median and 95 % band "
        "over all assumed ranges (dotted: its ends in further cases). Blue: metal is stable at the first site, a "
        "pore, boundary or junction; red: it also crosses the assumed barrier, or electrons short the cell. Right: "
        "measured values; grain sizes are not published with them.",
    )
    folder.table("critical_current_and_grain_size", pd.DataFrame(rows))


def _measured_strip(ax: Axes, measured: Sequence[MeasuredCriticalCurrent]) -> None:
    temperatures = np.array([m.temperature_K - 273.15 for m in measured])
    values = np.array([m.critical_current_density_A_per_m2 for m in measured]) * MA_PER_CM2
    shift = np.random.default_rng(0).uniform(-2.5, 2.5, len(measured))
    crystal = np.array(["single crystal" in m.composition for m in measured])
    ax.plot(
        temperatures[~crystal] + shift[~crystal], values[~crystal], "o", color="#444444", mfc="none", ms=4
    )
    if crystal.any():
        ax.plot(
            temperatures[crystal] + 6.0, values[crystal], "D", color="#444444", ms=4, label="single crystal"
        )
        ax.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.0))
    ax.set_xlim(temperatures.min() - 10, temperatures.max() + 10)
    ax.set_xlabel("T / °C")
    ax.set_title("measured", loc="right")
    ax.tick_params(axis="y", labelleft=False)


def _panels(study: Study, folder: RunFolder, results: Sequence[CaseResult]) -> None:
    """One influence a panel, everything else sampled."""
    r = compared_case(study, results)
    values, t = r.values(), study.temperature
    grain = r.case.material.grain(t)
    nominal = np.mean(
        [
            math.log(r.case.material.boundary(t, name).conductivity_across / grain.conductivity_across)
            for name in r.case.fractions
        ]
    )

    def at(**changes: Any) -> dict[str, Floats]:
        n = np.ones_like(values["surface energy"])
        return {**values, **{k.replace("_", " "): v * n for k, v in changes.items()}}

    def ratio(x: float) -> Any:
        shift = math.log(x) - nominal + values["grain conductivity"]
        return r.case.critical_currents(at(boundary_conductivity=shift), t)

    def electronic(x: float) -> Any:
        shift = math.log(x * 100 / grain.electronic_conductivity)
        return r.case.critical_currents(at(electronic_conductivity=shift), t)

    lowest = study.assumptions
    panels: list[tuple[str, Floats, Callable[[float], Any]]] = [
        ("boundary's own / grain's conductivity", np.geomspace(1e-6, 10, 13), ratio),
        ("electronic conductivity / S cm⁻¹", np.geomspace(1e-10, 1e-6, 9), electronic),
        (
            "interfacial resistance / Ω cm²",
            np.geomspace(1, 1000, 9),
            lambda x: r.case.critical_currents(at(interfacial_resistance=x * 1e-4), t),
        ),
        (
            "pore diameter / µm",
            np.geomspace(lowest.pore_diameter.low, lowest.pore_diameter.high, 9) * 1e6,
            lambda x: r.case.critical_currents(at(pore_diameter=x * 1e-6), t),
        ),
        (
            "assumed barrier / eV",
            np.array(sorted(study.barriers)),
            lambda x: r.case.critical_currents(at(barrier=x * ELEMENTARY_CHARGE), t),
        ),
    ]
    if len(study.temperatures) > 1:
        panels.append(
            (
                "T / °C",
                np.array(sorted(study.temperatures)) - 273.15,
                lambda x: r.case.critical_currents(values, x + 273.15),
            )
        )
    figure, axes = plots.new_figure(2, 3, width=3.2, height=2.7, sharey=True, squeeze=False)
    table: dict[str, Any] = {}
    with plots.style():
        for ax, (label, x, model) in zip(axes.flat, panels, strict=False):
            found = [model(float(v)) for v in x]
            for j, criterion in enumerate(CRITERIA):
                currents = [f[criterion, "first"] for f in found]
                _band(ax, x, currents, plots.COLOURS[j], LINES[criterion], CRITERION_WORDS[criterion])
                table[f"{label}, {criterion}"] = [
                    [float(v), *interval(c * MA_PER_CM2)] for v, c in zip(x, currents, strict=True)
                ]
            ax.set_yscale("log")
            if "T /" not in label:
                ax.set_xscale("log")
                plots.plain_log_ticks(ax.xaxis, float(x[0]), float(x[-1]))
            ax.set_xlabel(label)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("critical current / mA cm⁻²")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False
        )
    folder.figure(
        "critical_current_and_its_causes",
        figure,
        f"{r.case.name}: critical current density (first site, or electronic short) against one quantity at a time, "
        "median and 95 % band over the ranges of all others.",
    )
    folder.result("critical_current_by_cause_mA_per_cm2", table)


def _sensitivity_figure(folder: RunFolder, name: str, sensitivity: Mapping[Criterion, Sensitivity]) -> None:
    first = sensitivity[CRITERIA[0]]
    largest = np.max([s.total for s in sensitivity.values()], axis=0)
    shown = np.array([j for j in np.argsort(largest) if largest[j] >= LEAST_INDEX], dtype=int)
    if not len(shown):
        shown = np.argsort(largest)[-1:]
    height = 1.1 + 0.3 * len(shown)
    figure, axes = plots.new_figure(1, len(CRITERIA), width=4.0, height=height, sharey=True)
    with plots.style():
        for ax, criterion in zip(axes, CRITERIA, strict=True):
            s = sensitivity[criterion]
            rows = np.arange(len(shown))
            bars = {"ecolor": "#333333", "capsize": 2, "error_kw": {"lw": 0.8}}
            ax.barh(
                rows + 0.19,
                s.total[shown],
                0.36,
                xerr=s.total_error[shown],
                color=plots.COLOURS[0],
                label="with all others",
                **bars,
            )
            ax.barh(
                rows - 0.19,
                s.first[shown],
                0.36,
                xerr=s.first_error[shown],
                color=plots.COLOURS[5],
                label="alone",
                **bars,
            )
            ax.set_yticks(rows, [first.names[j] for j in shown])
            ax.set_xlim(left=-0.05)
            ax.grid(visible=False, axis="y")
            ax.set_title(CRITERION_WORDS[criterion])
            ax.set_xlabel("share of the variance of ln(critical current)")
        axes[0].legend(loc="lower right")
    folder.figure(
        "sensitivity",
        figure,
        f"{name}: Sobol indices of the critical current density, with 95 % intervals: which assumption its spread "
        f"comes from. Parameters below {LEAST_INDEX:g} are not drawn.",
    )


# The resolved polycrystal ------------------------------------------------------------------------------------------


def _maps(study: Study, folder: RunFolder, results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    if study.map.grains == 0:
        return []
    drawn: list[tuple[CaseResult, HazardMap, Floats, float]] = []
    for r in folder.progress(results, "hazard maps"):
        drawn.append(_map(study, r))
    figure, axes = plots.new_figure(len(drawn), 2, width=5.2, height=4.2, squeeze=False)
    margins = np.concatenate(
        [v[np.isfinite(v)] - need for _, m, th, j in drawn for v, need in ((m.facet, th), (m.junction, j))]
    )
    rows: list[dict[str, Any]] = []
    with plots.style():
        for (r, made, threshold, junction), (left, right) in zip(drawn, axes, strict=True):
            _draw_map(left, r, made, threshold, junction, margins)
            _draw_depth(right, r, made, threshold, junction)
            rows += _map_rows(r, made, threshold, junction)
    folder.figure(
        "hazard_map",
        figure,
        "Left: a resolved polycrystal under current; every boundary and junction coloured by its overpotential less "
        "the one at which metal is stable there (median assumptions, no pores). Red: metal is stable; blue: it is "
        "not; star: first site. Right: the same overpotentials against the distance from the stripping electrode, "
        "with what boundaries and junctions need.",
    )
    for r, made, _, _ in drawn:
        folder.field(
            f"hazard_{file_name(r.case.name)}",
            made.mesh,
            {
                "overpotential_V": made.overpotential,
                "occupancy": made.occupancy,
                "region": made.mesh.region.astype(float),
            },
        )
    import pandas as pd

    folder.table("boundaries_and_junctions", pd.DataFrame(rows))
    folder.result("hazard", [{k: _plain(v) for k, v in row.items()} for row in rows])
    return rows


def _plain(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value


def _map(study: Study, r: CaseResult) -> tuple[CaseResult, HazardMap, Floats, float]:
    """The case's map with what its boundaries (scalar array) and its junctions need [V]."""
    nominal, t = r.nominal, study.temperature
    width = r.case.boundary_numbers(nominal, t, r.case.grain_size)[2]
    threshold = r.case.required(nominal, "boundary", "stable", width)
    junction = float(r.case.required(nominal, "junction", "stable", width)[0])
    current = study.map.current_density
    if current is None:
        current = JUST_BELOW * float(r.case.ionic_critical_current(nominal, t, "boundary", "stable")[0])
    material = r.case.material
    made = hazard_map(
        material.grain(t),
        {name: material.boundary(t, name) for name in r.case.fractions},
        r.case.fractions,
        grains=study.map.grains,
        grain_size=r.case.grain_size,
        size_spread=study.grain_size_spread,
        interfacial_resistance=float(nominal["interfacial resistance"][0] / nominal["contact fraction"][0]),
        current_density=current,
        kinetics=study.kinetics,
        seed=study.seed,
    )
    return r, made, threshold, junction


def _draw_map(
    ax: Axes, r: CaseResult, made: HazardMap, threshold: Floats, junction: float, margins: Floats
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import TwoSlopeNorm

    s = made.structure
    # Each colour spans its own side: what has just crossed must stand out.
    norm = TwoSlopeNorm(0.0, min(1e3 * float(margins.min()), -1e-3), max(1e3 * float(margins.max()), 1e-3))
    shift = np.array([0.0, s.box[1]])
    segments, colours = [], []
    for f in np.flatnonzero(np.isfinite(made.facet)):
        for k in (-1, 0, 1):
            segments.append(np.array([s.facet_start[f], s.facet_end[f]]) * 1e6 + k * shift * 1e6)
            colours.append(1e3 * float((made.facet[f] - threshold).item()))
    lines = LineCollection(
        segments, array=np.array(colours), cmap="RdBu_r", norm=norm, linewidths=3.0, zorder=2
    )
    ax.add_collection(lines)
    known = np.flatnonzero(np.isfinite(made.junction))
    points = s.vertices[known] * 1e6
    margin = 1e3 * (made.junction[known] - junction)
    ax.scatter(
        points[:, 0],
        points[:, 1],
        c=margin,
        cmap="RdBu_r",
        norm=norm,
        s=42,
        edgecolor="#333333",
        lw=0.6,
        zorder=3,
    )
    if len(known):
        worst = int(np.argmax(margin))
        ax.plot(*points[worst], "*", color="#000000", ms=15, mfc="#ffdd33", zorder=4)
    width, height = s.box * 1e6
    ax.set_facecolor("#e8e8e8")
    bar = 0.035 * width
    for x, text in ((-bar, "Li dissolves"), (width, "Li plates")):
        ax.axvspan(x, x + bar, color="#8a8a8a", lw=0, zorder=1)
        ax.text(
            x + bar / 2, height / 2, text, rotation=90, ha="center", va="center", fontsize=8, color="white"
        )
    ax.set_xlim(-bar, width + bar)
    ax.set_ylim(0, height)
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.set_xlabel("x / µm")
    ax.set_ylabel("y / µm")
    ax.set_title(f"{r.case.name}, ions carry {made.current_density * MA_PER_CM2:.3g} mA cm⁻²")
    colourbar = ax.figure.colorbar(lines, ax=ax, shrink=0.85)
    colourbar.set_label("η − threshold / mV  (red: metal stable)")


def _draw_depth(ax: Axes, r: CaseResult, made: HazardMap, threshold: Floats, junction: float) -> None:
    s = made.structure
    middle = 0.5e6 * (s.facet_start + s.facet_end)[:, 0]
    for t, name in enumerate(s.boundary_names):
        here = (s.facet_type == t) & np.isfinite(made.facet)
        colour = plots.COLOURS[t % len(plots.COLOURS)]
        ax.plot(middle[here], 1e3 * made.facet[here], plots.MARKERS[t], color=colour, ms=4, label=name)
    known = np.isfinite(made.junction)
    ax.plot(
        s.vertices[known, 0] * 1e6, 1e3 * made.junction[known], "*", color="#444444", ms=5, label="junctions"
    )
    ax.axhline(1e3 * float(threshold.item()), color="#D55E00", lw=1.0)
    ax.axhline(1e3 * junction, color="#D55E00", lw=1.0, ls="--")
    ax.text(0.0, 1e3 * float(threshold.item()), " boundaries need", va="bottom", fontsize=8, color="#D55E00")
    ax.text(0.0, 1e3 * junction, " junctions need", va="top", fontsize=8, color="#D55E00")
    ax.set_xlim(0, s.box[0] * 1e6)
    ax.set_xlabel("distance from the stripping electrode / µm")
    ax.set_ylabel("largest overpotential / mV")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(s.boundary_names) + 1)


def _map_rows(r: CaseResult, made: HazardMap, threshold: Floats, junction: float) -> list[dict[str, Any]]:
    """By type: largest overpotential, margin, nominal barrier, and propensity relative to the first type's planes."""
    nominal = r.nominal
    gamma, elastic = float(nominal["surface energy"][0]), float(nominal["elastic energy"][0])
    angle = math.acos(min(float(nominal["boundary energy"][0]) / (2 * gamma), 1.0))
    thermal = BOLTZMANN * r.case.reference_temperature
    largest = made.largest()
    rows: list[dict[str, Any]] = []
    reference: float | None = None
    grain = float(made.overpotential[made.mesh.region == 0].max())
    for name, eta in (*largest.items(), ("inside a grain", grain)):
        sites: dict[str, Site] = {"junction": "junction", "inside a grain": "grain"}
        site = sites.get(name, "boundary")
        needed = {"junction": junction, "grain": math.inf}.get(site, float(threshold.item()))
        lost = float(elastic_overpotential(elastic))
        barrier = math.inf
        if eta > lost:
            barrier = float(nucleation_barrier(eta, gamma, shape_factor(site, angle), elastic))
        if reference is None:
            reference = barrier
        ratio = (reference - barrier) / thermal if math.isfinite(reference) else math.nan
        rows.append(
            {
                "case": r.case.name,
                "site": name,
                "largest overpotential / mV": 1e3 * eta,
                "less what it needs / mV": 1e3 * (eta - needed) if math.isfinite(needed) else math.nan,
                "barrier / eV": barrier / ELEMENTARY_CHARGE,
                "log10 of propensity over the first": ratio / math.log(10),
                "assuming": f"gamma {gamma:.2g} J/m2, contact angle {math.degrees(angle):.0f} deg, "
                f"elastic energy {elastic * 1e-6:.2g} MPa, the same attempt rate at every site",
            }
        )
    return rows


# Lithium beside a boundary -----------------------------------------------------------------------------------------


def lithium_profiles(study: Study) -> list[LithiumProfile]:
    """Lithium across the study's profile boundary; empty without [profile]. Raises what `lithium_profile` raises."""
    if study.profile is None:
        return []
    given = study.profile
    record = load_record(given.record)
    made: list[LithiumProfile] = []
    for permittivity in given.relative_permittivity:
        material = Material.from_records(
            study.cases[0].grain, {"layer": record}, relative_permittivity=permittivity
        )
        grain, layer = material.grain(study.temperature), material.boundary(study.temperature, "layer")
        for energy in given.segregation_energy:
            made.append(lithium_profile(grain, layer, energy * ELEMENTARY_CHARGE, given.current_density))
    return made


def _profile_figure(study: Study, folder: RunFolder, made: Sequence[LithiumProfile]) -> None:
    if study.profile is None:
        return
    import pandas as pd

    given = study.profile
    figure, axes = plots.new_figure(1, 2, width=4.6, height=3.4)
    with plots.style():
        for j, p in enumerate(made):
            colour = plots.COLOURS[j % len(plots.COLOURS)]
            label = f"ε = {p.relative_permittivity:g}, Δμ = {p.segregation_energy:+.2g} eV".replace("-", "−")
            axes[0].plot(p.x * 1e9, p.at_rest, color=colour, label=label)
            change = p.under_current - p.at_rest
            axes[1].plot(p.x * 1e9, 1e6 * change, color=colour)
        half = 0.5e9 * made[0].width
        for ax in axes:
            ax.axvspan(-half, half, color="#999999", alpha=0.2, lw=0)
            ax.set_xlim(-6 * half, 6 * half)
            ax.set_xlabel("x / nm")
        axes[0].set_ylabel("Li / Li in the grain, at rest")
        axes[1].set_ylabel("change / 10⁻⁶ of Li in the grain")
        axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=1)
        axes[1].set_title(f"{given.current_density * MA_PER_CM2:.3g} mA cm⁻², Li⁺ flows to the right")
    folder.figure(
        "lithium_beside_a_boundary",
        figure,
        f"Lithium across one resolved boundary ({given.record}; the layer is shaded) at several permittivities and "
        "segregation energies Δμ of Li in the layer: enrichment and depletion at rest, and what a current adds. "
        "Δμ is an assumption: the source draws it without printing numbers.",
    )
    folder.table("lithium_beside_a_boundary", pd.DataFrame([p.summary() for p in made]))


# Words -------------------------------------------------------------------------------------------------------------


def _say(value: float) -> str:
    return f"{value:.2g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def _measured_words(
    study: Study, results: Sequence[CaseResult], room: Sequence[MeasuredCriticalCurrent]
) -> str:
    r = compared_case(study, results)
    pellets = np.array(
        [m.critical_current_density_A_per_m2 for m in room if "single crystal" not in m.composition]
    )
    values = pellets * MA_PER_CM2
    parts = []
    for criterion in CRITERIA:
        middle, low, high = interval(r.currents[criterion, "first"] * MA_PER_CM2)
        inside = int(np.sum((values >= low) & (values <= high)))
        parts.append(
            f"until {CRITERION_WORDS[criterion]}: {_say(middle)} mA/cm² ({_say(low)} to {_say(high)}), which holds "
            f"{inside} of the {len(values)} measured values"
        )
    return (
        f"Measured at room temperature on {len(values)} pellets: {_say(float(values.min()))} to "
        f"{_say(float(values.max()))} mA/cm², median {_say(float(np.median(values)))}. Computed for {r.case.name}, "
        f"nothing tuned, {'; '.join(parts)}. The intervals span the assumptions, not a scatter between pellets.\n\n"
        "The measured values carry no grain size, interfacial resistance or boundary transport, so no trend with them "
        "can be drawn from this table. The model's own: the critical current goes as 1/(R/c + G) with the interfacial "
        "resistance R, the share c in contact and what a boundary adds, G. G is half to all of the resistance of one "
        "boundary, so grain size hardly matters by itself. That agrees with critical currents of single crystals, "
        "which fall with their interfacial resistance (Flatscher et al. 2020, doi 10.1039/c9ta14177d), and leaves the "
        "better cycling of smaller-grained surfaces to their lower resistance (37 ohm cm², Cheng et al. 2015, "
        "doi 10.1021/am508111r). That crystals without any boundary fail, too, at 0.28 mA/cm² or "
        "less, says that boundaries are not needed for it."
    )


def _warm_words(folder: RunFolder) -> str:
    """Measured values above room temperature beside the computed ones."""
    rows = [c for c in folder.comparisons if c.quantity == QUANTITIES["stable"]]
    warm = [c for c in rows if float(c.material.rsplit(", ", 1)[1].split()[0]) + 273.15 > ROOM[1]]
    if not warm:
        return ""
    said = "; ".join(
        f"{_say(c.measured)} mA/cm² at {c.material.rsplit(', ', 1)[1].replace(' C', ' °C')}, computed "
        f"{_say(c.predicted)} ({_say(c.low)} to {_say(c.high)}) until metal is stable"
        for c in warm
    )
    return f"\n\nAbove room temperature: {said}."


def _order_words(folder: RunFolder) -> str:
    rows = [o for o in folder.results.get("ordering", []) if o["site"] == "first of all"]
    if not rows:
        return "There is one case only, so there is no order."
    parts = []
    for o in rows:
        flips = o["order flips in"]
        if flips <= 0.025:
            said = "the order is stable under the stated assumptions"
        elif flips >= 0.25:
            said = "these assumptions do not order the two"
        else:
            said = "the order is likely, not certain"
        parts.append(
            f"{o['first case']} against {o['second case']} ({o['criterion']}): the first is lower in "
            f"{100 * o['first is lower in']:.0f} % of the samples, the order flips in {100 * flips:.0f} %, the two lie "
            f"within 5 % of each other in {100 * o['within 5 % in']:.0f} %; ratio {_say(o['ratio, median'])} "
            f"({_say(o['ratio, low'])} to {_say(o['ratio, high'])}): {said}."
        )
    return (
        " ".join(parts)
        + "\n\nThe cases share every draw of what they have in common; only the transport of their boundaries, their "
        "core charge and their grain size differ. Where that leaves no order, what the literature holds against "
        "segregated boundaries does not follow from their published ion transport: it would have to come through what "
        "both share here, the surface and boundary energies, the interface, pores, or electrons in the boundary."
    )


def _decides_words(sensitivity: Mapping[Criterion, Sensitivity]) -> str:
    parts = []
    for criterion, s in sensitivity.items():
        order = np.argsort(s.total)[::-1][:3]
        named = ", ".join(f"{s.names[j]} ({s.total[j]:.2f})" for j in order)
        parts.append(f"Where {CRITERION_WORDS[criterion]}, the spread comes from {named}")
    return ". ".join(parts) + " (total Sobol index)."


def _map_words(rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case and math.isfinite(row["less what it needs / mV"])]
        order = sorted(own, key=lambda row: -row["less what it needs / mV"])
        first = ", then ".join(f"{row['site']} ({row['less what it needs / mV']:+.1f} mV)" for row in order)
        parts.append(f"{case}: {first}".replace("(-", "(−"))
    return (
        "Largest overpotential less what metal needs to be stable there, first to go first. "
        + ". ".join(parts)
        + f". Assumed: {rows[0]['assuming']}; relative propensities are in the table."
    )
