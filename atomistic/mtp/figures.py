"""Figures of a training: loss curve and parity plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from atomistic.mtp.accuracy import Prediction


def _save(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.part.png")
    figure.savefig(temporary, dpi=130)
    temporary.replace(path)


def loss_figure(path: Path, losses: Sequence[tuple[int, float, int, float, float]]) -> None:
    """Loss over all iterations in the order they ran, one line per seed and ridge; held-out losses as points.

    losses: rows (seed, ridge, iteration, loss, held-out loss or nan).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    keys = list(dict.fromkeys((row[0], row[1]) for row in losses))
    numbered = list(enumerate(losses, 1))
    for key in keys:
        rows = [(n, row) for n, row in numbered if (row[0], row[1]) == key]
        label = f"ridge {key[1]:.0e}" + (f", seed {key[0]}" if key[0] >= 0 else "")
        (line,) = axes.semilogy([n for n, _ in rows], [row[3] for _, row in rows], label=label)
        held = [(n, row[4]) for n, row in rows if not np.isnan(row[4])]
        if held:
            axes.plot(*zip(*held, strict=True), "o", color=line.get_color(), mfc="none")
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss (circles: held-out frames)")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def parity_figure(path: Path, sets: Mapping[str, Sequence[Prediction]]) -> None:
    """Predicted against labelled energies (relative to each other, per atom), forces and stresses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    filled = {name: rows for name, rows in sets.items() if rows}
    zero = min(p.energy[1] for rows in filled.values() for p in rows)
    for name, rows in filled.items():
        style = {"s": 6, "alpha": 0.5, "linewidths": 0, "label": name}
        panels[0].scatter([p.energy[1] - zero for p in rows], [p.energy[0] - zero for p in rows], **style)
        force = [np.concatenate([p.forces[k].ravel() for p in rows]) for k in (1, 0)]
        panels[1].scatter(force[0], force[1], **{**style, "s": 2, "rasterized": True})
        stressed = [p.stress for p in rows if p.stress is not None]
        if stressed:
            stress = [160.21766208 * np.concatenate([s[k].ravel() for s in stressed]) for k in (1, 0)]
            panels[2].scatter(stress[0], stress[1], **style)
    for axes, what in zip(panels, ("energy / eV per atom", "force / eV/Å", "stress / GPa"), strict=True):
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], "k-", lw=0.6, zorder=0)
        axes.set_xlim(low, high)
        axes.set_xlabel(f"teacher: {what}")
        axes.set_ylabel("potential")
    panels[0].legend(fontsize=8, frameon=False)
    _save(figure, path)
