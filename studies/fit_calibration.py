"""Are the intervals of a pellet's fit right where layers carry a charge and electrodes exchange lithium?

    python studies/fit_calibration.py --spectra 50 --steps 1500 --out studies/tables/fit_calibration.csv

Pellets are drawn from the fit's own priors (`priors`), measured once (60 frequencies, noise as drawn), fitted and
sampled. An interval of 95 % then holds the truth in 95 % of the pellets, whatever the spectra show, if the sampler
draws from the posterior: simulation-based calibration (Talts et al., arXiv:1804.06788). A row is one parameter, or one
combination of parameters that the data fix, of one pellet: `below` is the share of samples below the truth, which is
uniform between 0 and 1 if all is right. Pellets that OUT already has are kept, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from mesoion.charged_boundary import Lattice
from mesoion.errors import MesoionError
from mesoion.fit import PelletFit
from mesoion.fit_parameters import Parameter, default_parameters
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.mixed_boundaries import shipped
from mesoion.posterior import sample

TEMPERATURE = 300.0
FREQUENCY = np.geomspace(1e7, 1.0, 60)
GEOMETRY = Geometry.disc(2e-3, 1e-2)
LATTICE = Lattice(2e27, 0.5, 2e27, 0.5)
GRAIN_SIZE = 2e-6
COLUMNS = ("spectrum", "name", "kind", "below", "inside", "narrowing", "lengths")
KNOWN = {
    "bulk_conductivity": (0.05, 2.0),
    "boundary_conductivity": (1e-4, 3.0),
    "width_over_grain_size": (5e-4, 1.6),
    "permittivity": (80.0, 1.5),
    "electrode_capacitance": (1.0, 3.0),
    "charge_transfer_resistance": (2e-3, 3.0),
    "noise": (0.005, 1.5),
}
"""Value and factor of what a laboratory knows of such a pellet; the other priors are the fit's defaults."""


def priors() -> dict[str, Parameter]:
    """By parameter, those of `KNOWN`."""
    defaults = default_parameters()
    return {name: defaults[name].with_prior(value, factor) for name, (value, factor) in KNOWN.items()}


def fit_of(impedance: np.ndarray) -> PelletFit:
    """The fit of one spectrum (60,) [ohm] with charged layers and charge transfer under these priors."""
    measured = Measurement(FREQUENCY, impedance, "drawn", GEOMETRY, TEMPERATURE)
    return PelletFit(
        [measured],
        shipped(),
        priors(),
        electrode="charge transfer",
        grain_size=GRAIN_SIZE,
        space_charge=LATTICE,
    )


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n,) of a pellet from the priors, and its noisy spectrum (60,)."""
    rng = np.random.default_rng([23, seed])
    blank = fit_of(np.full(60, 1e3 - 1e3j))
    while True:
        u = np.array([rng.normal(p.mean, p.deviation) for p in blank.free])
        try:
            z = blank.model(blank.values(u)) if np.isfinite(blank.log_prior(u)) else None
        except MesoionError:
            # A charge that no boundary holds: outside the prior, as the sampler takes it.
            z = None
        if z is not None:
            noise = rng.standard_normal(60) + 1j * rng.standard_normal(60)
            return u, z + blank.values(u)["noise"] * np.abs(z) * noise


def calibrated(seed: int, steps: int, walkers: int | None = None) -> list[dict[str, object]]:
    """Rows of one pellet."""
    truth, spectrum = drawn(seed)
    fit = fit_of(spectrum)
    best = fit.most_probable(starts=4, seed=seed)
    posterior = sample(best, seed=seed, steps=steps, walkers=walkers)
    scale = np.array([p.deviation for p in fit.free])
    names = [p.name for p in fit.free]
    directions = [(name, "parameter", one) for name, one in zip(names, np.eye(len(names)), strict=True)]
    for j, c in enumerate(c for c in best.combinations() if c.verdict == "data"):
        weights = np.array([c.weights[name] for name in names])
        directions.append((f"combination {j}", "combination", weights))
    rows: list[dict[str, object]] = []
    for name, kind, weights in directions:
        along = posterior.samples / scale @ weights
        below = float(np.mean(along < truth / scale @ weights))
        rows.append({
            "spectrum": seed, "name": name, "kind": kind, "below": f"{below:.4f}",
            "inside": int(0.025 < below < 0.975), "narrowing": f"{along.std():.3g}",
            "lengths": f"{posterior.steps / posterior.autocorrelation:.1f}",
        })  # fmt: skip
    return rows


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a table of this study."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> list[str]:
    """Lines: what share of truths the 95 % intervals hold, by kind and by parameter."""
    lines = []
    for kind in ("parameter", "combination"):
        of = [r for r in rows if r["kind"] == kind]
        inside = np.array([int(r["inside"]) for r in of])
        lines.append(f"{kind}s: {inside.sum()} of {len(inside)}, {100 * inside.mean():.1f} %")
        if kind == "parameter":
            for name in dict.fromkeys(r["name"] for r in of):
                own = [r for r in of if r["name"] == name]
                narrow = np.median([float(r["narrowing"]) for r in own])
                lines.append(
                    f"  {name}: {sum(int(r['inside']) for r in own)} of {len(own)}, narrowed to {narrow:.2f}"
                )
    lengths = [float(r["lengths"]) for r in rows]
    lines.append(f"autocorrelation times a chain: {min(lengths):.0f} to {max(lengths):.0f}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--spectra", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--walkers", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if not options.out.exists():
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    have = {int(r["spectrum"]) for r in table(options.out)}
    for seed in range(options.spectra):
        if seed not in have:
            rows = calibrated(seed, options.steps, options.walkers)
            with options.out.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(rows)
            print(f"{seed + 1} of {options.spectra}", file=sys.stderr)
    print("\n".join(summary(table(options.out))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
