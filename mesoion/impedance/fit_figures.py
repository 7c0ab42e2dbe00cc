"""Figures of fitted spectra: residuals, relaxation times, courses over temperature. Axes in, axes out; SI in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mesoion import plots
from mesoion.impedance.arcs import PelletReading
from mesoion.impedance.checks import SpectrumCheck
from mesoion.impedance.fit_study import CONDUCTIVITY_LABELS
from mesoion.impedance.relaxation_times import RelaxationTimes
from mesoion.impedance.temperature_series import TemperatureSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


def spectrum_figure(
    reading: PelletReading, check: SpectrumCheck | None, times: RelaxationTimes | None
) -> Figure:
    """Nyquist, Bode, residuals and relaxation times of one spectrum, on one page."""
    figure, axes = plots.new_figure(2, 2, width=5.2, height=3.9)
    m, fit = reading.measurement, reading.fit
    dense = np.geomspace(m.frequency.max(), m.frequency.min(), 400)
    measured = {"measured": (m.frequency, m.impedance)}
    fitted = {"circuit": (dense, fit.circuit.impedance(dense))}
    arcs_end = reading.quantities.get("total_resistance")
    plots.nyquist(axes[0, 0], fitted, measured=measured)
    if arcs_end is not None:
        _cut_tail(axes[0, 0], m.impedance, arcs_end.value)
    plots.bode(axes[0, 1], fitted, measured=measured)
    residuals(axes[1, 0], reading, check)
    if times is None:
        axes[1, 1].set_axis_off()
    else:
        relaxation_distribution(axes[1, 1], times, reading)
    figure.suptitle(title(reading), fontsize=10.5)
    return figure


def title(reading: PelletReading) -> str:
    """Name and temperature of a spectrum."""
    kelvin = reading.measurement.temperature
    return reading.measurement.name + ("" if kelvin is None else f", {kelvin - 273.15:.4g} °C")


def _cut_tail(ax: Axes, z: np.ndarray, arcs_end: float) -> None:
    """Show the arcs: a blocking tail beyond 1.5 times their resistance would squeeze them on equal axes."""
    largest = float(z.real.max())
    if largest <= 1.5 * arcs_end:
        return
    right = ax.get_xlim()[1] * 1.5 * arcs_end / (1.1 * largest)
    ax.set_xlim(-0.02 * right, right)
    ax.set_ylim(-0.04 * right, 0.75 * right)


def residuals(ax: Axes, reading: PelletReading, check: SpectrumCheck | None = None) -> Axes:
    """(Z_model − Z)/|Z| of the circuit in per cent, and the Kramers-Kronig fit's, against frequency."""
    with plots.style():
        f, r = reading.measurement.frequency, 100 * reading.fit.relative_residuals
        ax.semilogx(f, r.real, "o-", lw=0.8, color=plots.COLOURS[0], label="circuit, Z'")
        ax.semilogx(f, r.imag, "s-", lw=0.8, color=plots.COLOURS[1], mfc="white", label="circuit, Z''")
        if check is not None:
            kk = -100 * check.residual
            ax.semilogx(f, kk.real, "-", lw=1.0, color="#777777", label="Kramers-Kronig, Z'")
            ax.semilogx(f, kk.imag, "--", lw=1.0, color="#777777", label="Kramers-Kronig, Z''")
            if check.outliers.any():
                ax.plot(f[check.outliers], kk.real[check.outliers], "x", color="black", ms=7, label="outlier")
        ax.axhline(0.0, color="#333333", lw=0.6)
        ax.set_xlabel("f / Hz")
        ax.set_ylabel("residual / % of |Z|")
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.35 * (top - bottom))
        ax.legend(ncols=2, loc="upper center")
    return ax


def relaxation_distribution(ax: Axes, times: RelaxationTimes, reading: PelletReading | None = None) -> Axes:
    """γ(ln τ) with its band against τ, the frequency 1/(2πτ) on top; peaks and the circuit's arcs marked."""
    with plots.style():
        window = (times.tau >= 1 / (2 * np.pi * times.frequency.max())) & (
            times.tau <= 1 / (2 * np.pi * times.frequency.min())
        )
        tops = times.peaks
        inside = times.distribution[window]
        highest = max(
            (float(np.interp(p.relaxation_time, times.tau, times.distribution)) for p in tops),
            default=float(inside.max(initial=0.0)),
        )
        factor, prefix = plots._scale([highest])
        tau, gamma = times.tau[window], times.distribution[window] / factor
        ax.fill_between(
            tau,
            times.low[window] / factor,
            times.high[window] / factor,
            color=plots.COLOURS[0],
            alpha=0.22,
            lw=0,
            label="95 % band",
        )
        ax.semilogx(tau, gamma, color=plots.COLOURS[0], label="γ")
        top = 1.45 * highest / factor or 1.0
        for arc in reading.arcs if reading is not None else ():
            if arc.relaxation_time is not None and tau[0] <= arc.relaxation_time.value <= tau[-1]:
                ax.axvline(arc.relaxation_time.value, color=plots.COLOURS[1], lw=0.9, ls=":")
                ax.annotate(
                    arc.name,
                    (arc.relaxation_time.value, 0.98 * top),
                    rotation=90,
                    fontsize=7.5,
                    va="top",
                    ha="right",
                    color=plots.COLOURS[1],
                )
        ax.set_ylim(0.0, top)
        ax.set_xlim(tau[0], tau[-1])
        ax.set_xlabel("τ / s")
        ax.set_ylabel(f"γ / {prefix}Ω")
        upper = ax.secondary_xaxis("top", functions=(_to_frequency, _to_frequency))
        upper.set_xlabel("f = 1/(2πτ) / Hz")
        upper.tick_params(labelsize=8)
        ax.legend(loc="upper right")
    return ax


def _to_frequency(value: ArrayLike) -> ArrayLike:
    return np.asarray(1.0 / (2 * np.pi * np.maximum(np.asarray(value, float), 1e-300)))


def series_figure(series: TemperatureSeries) -> Figure:
    """Conductivities times T against 1/T with their lines, and the arcs' capacitances and exponents over T."""
    figure, axes = plots.new_figure(1, 3, width=4.6, height=4.2)
    conductivities(axes[0], series)
    courses(axes[1], axes[2], series)
    return figure


def conductivities(ax: Axes, series: TemperatureSeries) -> Axes:
    """σT of every conductivity of the series: symbols with 95 % bars, lines with their activation energies."""
    lines, symbols = {}, {}
    sized = series.readings[0].measurement.geometry is not None
    t = np.array([r.measurement.temperature or 0.0 for r in series.readings])
    for name, energy in series.activation_energies.items():
        key = f"{name}_conductivity" if sized else f"{name}_resistance"
        found = [r.quantities[key] for r in series.readings]
        value, low, high = (np.array([getattr(q, end) for q in found]) for end in ("value", "low", "high"))
        if not sized:
            value, low, high = 1 / value, 1 / high, 1 / low
        half = 0.5 * (energy.high - energy.low)
        label = f"{CONDUCTIVITY_LABELS[name]}, {energy.value:.3f} ± {half:.3f} eV"
        grid = np.linspace(t.min(), t.max(), 60)
        lines[label] = {"temperature": grid, "value": energy.conductivity(grid)}
        symbols[label] = {"temperature": t, "value": value, "low": low, "high": high}
    plots.arrhenius(
        ax,
        lines,
        times_temperature=True,
        quantity="σ" if sized else "1/R · ",
        unit="S/cm" if sized else "S",
        factor=0.01 if sized else 1.0,
    )
    with plots.style():
        for index, data in enumerate(symbols.values()):
            weight = t * (0.01 if sized else 1.0)
            bars = [(data["value"] - data["low"]) * weight, (data["high"] - data["value"]) * weight]
            ax.errorbar(
                1000 / t,
                data["value"] * weight,
                yerr=bars,
                fmt=plots.MARKERS[index],
                mfc="white",
                color=plots.COLOURS[index],
                capsize=2,
                ms=5,
                lw=1.0,
                zorder=4,
            )
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.17), fontsize=7.5)
    return ax


def courses(capacitance_ax: Axes, exponent_ax: Axes, series: TemperatureSeries) -> None:
    """Effective capacitance and exponent of every arc over temperature: arcs that kept their names run smoothly."""
    with plots.style():
        for index, name in enumerate(series.scatters):
            arcs = [(r.measurement.temperature or 0.0, r.arc(name)) for r in series.readings]
            points = [(t - 273.15, a) for t, a in arcs if a is not None and a.capacitance is not None]
            if not points:
                continue
            x = [t for t, _ in points]
            c = [a.capacitance for _, a in points if a.capacitance is not None]
            value = np.array([q.value for q in c]) * 1e12
            bars = [value - [q.low * 1e12 for q in c], np.array([q.high * 1e12 for q in c]) - value]
            look: dict[str, Any] = {
                "fmt": f"{plots.MARKERS[index]}-",
                "mfc": "white",
                "capsize": 2,
                "lw": 1.0,
                "ms": 5,
            }
            capacitance_ax.errorbar(x, value, yerr=bars, color=plots.COLOURS[index], label=name, **look)
            exponent_ax.plot(
                x,
                [a.exponent for _, a in points],
                f"{plots.MARKERS[index]}-",
                mfc="white",
                color=plots.COLOURS[index],
                label=name,
                lw=1.0,
                ms=5,
            )
        capacitance_ax.set_yscale("log")
        plots.plain_log_ticks(capacitance_ax.yaxis, *capacitance_ax.get_ylim())
        capacitance_ax.set_ylabel("C = τ/R / pF")
        exponent_ax.set_ylabel("exponent n")
        for ax in (capacitance_ax, exponent_ax):
            ax.set_xlabel("T / °C")
            ax.legend()
