"""Figures of a pellet fit: what the posterior predicts beside what was measured, and who decides each parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mesoion import plots
from mesoion.fit import DATA_BELOW, PRIOR_ABOVE
from mesoion.posterior import Posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 120


def posterior_predictive(ax: Axes, posterior: Posterior, number: int, seed: int) -> Axes:
    """Z' and −Z'' [ohm] against frequency of the spectrum `number` of the series, lowest temperature first.

    Bands: 95 % of what a repeated measurement would show (parameters and noise); points: measured.
    """
    m = posterior.fit.measurements[number]
    kelvin = float(posterior.fit.temperatures[number])
    f = np.geomspace(m.frequency.min(), m.frequency.max(), POINTS)
    drawn = posterior.predictive(kelvin, f, seed)
    parts = (("Z'", drawn.real, m.impedance.real), ("−Z''", -drawn.imag, -m.impedance.imag))
    with plots.style():
        for colour, marker, (label, values, measured) in zip(
            plots.COLOURS, plots.MARKERS, parts, strict=False
        ):
            low, middle, high = np.percentile(values, [2.5, 50.0, 97.5], axis=0)
            ax.fill_between(f, np.maximum(low, 1e-3 * middle.max()), high, color=colour, alpha=0.25, lw=0)
            ax.plot(f, middle, color=colour, lw=1)
            ax.plot(m.frequency, measured, marker, color=colour, ms=3, mfc="none", label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("f / Hz")
        ax.set_ylabel("Z', −Z'' / Ω")
        ax.set_title(f"{kelvin - 273.15:.0f} °C")
        ax.legend(loc="best")
    return ax


def narrowing(ax: Axes, posterior: Posterior) -> Axes:
    """Posterior over prior width of every parameter, in its fit coordinate, on a logarithmic axis."""
    found = sorted(posterior.estimates(), key=lambda e: e.narrowing)
    colours = {"data": plots.COLOURS[0], "both": plots.COLOURS[4], "prior": plots.COLOURS[1]}
    with plots.style():
        for y, e in enumerate(found):
            ax.plot([1.0, e.narrowing], [y, y], color=colours[e.decided_by], lw=1.5)
            ax.plot([e.narrowing], [y], "o", color=colours[e.decided_by])
        for limit in (DATA_BELOW, PRIOR_ABOVE):
            ax.axvline(limit, color="#888888", lw=0.8, ls="--")
        ax.set_xscale("log")
        ax.set_yticks(range(len(found)), [e.name.replace("_", " ") for e in found])
        ax.set_xlabel("posterior width / prior width")
        ax.set_title("left of the dashes the data decide, right of them the prior", fontsize=8)
    return ax
