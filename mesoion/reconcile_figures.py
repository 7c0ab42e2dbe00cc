"""Figures of the reconcile study: needed parameters, evidence, curves that tell mechanisms apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mesoion import plots
from mesoion.distinguish import Prediction
from mesoion.mechanisms import Case, ParameterPrior
from mesoion.pellet_figures import file_name
from mesoion.reconcile import Outcome, bayes_factors
from mesoion.runfolder import RunFolder

PER_CM = 0.01
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))


def spoken(prior: ParameterPrior, value: float, low: float, high: float) -> str:
    """A parameter's value with its 95 % interval, as one says it."""
    if prior.unit == "":
        if prior.name.endswith(("fraction", "share")):
            return f"{100 * value:.2g} % ({100 * low:.2g} to {100 * high:.2g} %)"
        return f"{value:.3g} ({low:.3g} to {high:.3g})"
    return f"{value:.2g} {prior.unit} ({low:.2g} to {high:.2g})"


def draw_needed(folder: RunFolder, results: Mapping[str, Sequence[Outcome]]) -> None:
    """One row a parameter, one column a material: prior, plausible interval, posterior."""
    units = {
        (o.mechanism.name, p.name): p.unit
        for outcomes in results.values()
        for o in outcomes
        for p in o.mechanism.parameters
    }
    labels = list(units)
    figure, axes = plots.new_figure(len(labels), len(results), width=2.9, height=0.72, squeeze=False)
    for column, (name, outcomes) in enumerate(results.items()):
        for row, (mechanism, parameter) in enumerate(labels):
            ax = axes[row, column]
            found = next((o for o in outcomes if o.mechanism.name == mechanism), None)
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.grid(False)
            if row == 0:
                ax.set_title(name)
            if column == 0:
                unit = units[mechanism, parameter]
                ax.set_ylabel(
                    mechanism.replace(", ", ",\n") + f":\n{parameter}" + (f" / {unit}" if unit else ""),
                    rotation=0,
                    ha="right",
                    va="center",
                    fontsize=7,
                )
            if found is None:
                ax.set_xticks([])
                ax.spines["bottom"].set_visible(False)
                ax.text(
                    0.5,
                    0.5,
                    "not in the records",
                    ha="center",
                    va="center",
                    transform=ax.transAxes,
                    fontsize=7,
                )
                continue
            j = [p.name for p in found.mechanism.parameters].index(parameter)
            prior = found.mechanism.parameters[j]
            value, low, high = found.interval(j)
            if prior.shape == "log":
                ax.set_xscale("log")
            pad = 0.0 if prior.shape != "normal" else prior.high - prior.low
            ax.set_xlim(prior.low - pad, prior.high + pad)
            ax.axvspan(*prior.plausible, color=plots.COLOURS[2], alpha=0.18, lw=0)
            ax.plot([low, high], [0, 0], color=plots.COLOURS[0], lw=2.5, solid_capstyle="butt")
            ax.plot([value], [0], "o", color=plots.COLOURS[0], ms=4)
            ax.set_ylim(-1, 1)
            ax.tick_params(labelsize=6.5, pad=1)
            ax.minorticks_off()
    folder.figure(
        "needed_parameters",
        figure,
        "What each mechanism would need to give the measured arc: median and 95 % interval (blue) over the range of "
        "its prior; green: what the literature makes plausible (assumption, see below).",
    )


def draw_evidence(folder: RunFolder, results: Mapping[str, Sequence[Outcome]]) -> None:
    """ln Bayes factors, a panel a material."""
    figure, axes = plots.new_figure(1, len(results), width=3.4, height=2.6, squeeze=False, sharey=True)
    names: list[str] = []
    for outcomes in results.values():
        names += [o.mechanism.name for o in outcomes if o.mechanism.name not in names]
    for ax, (name, outcomes) in zip(axes[0], results.items(), strict=True):
        factors = bayes_factors(outcomes)
        for y, mechanism in enumerate(names):
            if mechanism not in factors:
                ax.text(-0.3, y, "not in the records", fontsize=7, va="center", ha="right")
                continue
            value = max(factors[mechanism], -12.0)
            ax.barh(y, value, color=plots.COLOURS[0], height=0.6)
            if factors[mechanism] < -12:
                ax.text(-11.8, y, f"{factors[mechanism]:.0f}", fontsize=7, va="center", color="white")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis() if ax is axes[0, 0] else None
        ax.set_xlim(-12.2, 0.4)
        ax.set_xlabel("ln Bayes factor against the best")
        ax.set_title(name)
    folder.figure(
        "evidence",
        figure,
        "Evidence of every mechanism for the measured boundary conductivity, against the best; bars end at -12.",
    )


def draw_distinguishing(folder: RunFolder, case: Case, predictions: Sequence[Prediction]) -> None:
    """Curves that pass through the measured point and part from there."""
    if not predictions:
        return
    figure, axes = plots.new_figure(2, 2, width=4.4, height=3.2)
    temperature, size, spectrum, bias = axes.flat
    for number, p in enumerate(predictions):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        style = {"color": colour, "ls": LINES[number % len(LINES)], "label": p.name}
        x = 1000 / p.temperatures
        low, middle, high = np.nanpercentile(p.over_temperature * PER_CM, [2.5, 50, 97.5], axis=0)
        temperature.plot(x, middle, **style)
        temperature.fill_between(x, low, high, color=colour, alpha=0.1, lw=0)
        size.plot(p.sizes * 1e6, np.nanmedian(p.over_size, axis=0) * PER_CM, **style)
        loss = -p.excess.imag
        spectrum.plot(p.frequency, loss / loss.max(), **style)
        bias.plot(p.biases * 1e3, np.nanmedian(p.over_bias, axis=0), **style)
    temperature.plot(
        [1000 / case.temperature], [case.measured_apparent * PER_CM], "k*", ms=8, label="measured", zorder=5
    )
    temperature.set_yscale("log")
    temperature.set_xlabel("1000 K / T")
    temperature.set_ylabel("apparent GB conductivity / S cm⁻¹")
    size.plot([case.grain_size * 1e6], [case.measured_apparent * PER_CM], "k*", ms=8, zorder=5)
    size.set_xscale("log")
    size.set_yscale("log")
    size.set_xlabel("mean grain size / µm")
    size.set_ylabel("apparent GB conductivity / S cm⁻¹")
    spectrum.set_xscale("log")
    spectrum.set_xlabel("f / Hz")
    spectrum.set_ylabel("−Z'' of the boundaries / its peak")
    bias.set_xlabel("bias per boundary / mV")
    bias.set_ylabel("ρ_app / ρ_app at rest")
    bias.set_ylim(bottom=0)
    figure.legend(
        *temperature.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    figure.suptitle(case.name)
    folder.figure(
        f"distinguishing_{file_name(case.name)}",
        figure,
        f"{case.name}: mechanisms that all give the measured value (star) and part from it with temperature (bands: "
        "95 %), grain size, in the frequency of the boundary arc (one draw each), and under bias.",
    )
