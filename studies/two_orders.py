"""Does the Monte Carlo stage forget where it started? LSTZ0.75 from full and from no A-site order, at one temperature.

    python studies/two_orders.py --potential lstz.mtp --out runs/two_orders --cycles 200

Two campaigns, alike but for the starting order, swap Sr with Li and with vacancies; OUT/orders.csv has S by cycle for
both. The last line says the means of S and of the energy over the second half of either run, with their errors by
blocking, and their difference in units of its error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from atomistic.averages import block_average
from atomistic.boundary_analysis import a_site_order
from atomistic.campaign import run_campaign
from atomistic.sampling import Campaign, validated


def main(
    potential: Path,
    out: Path,
    *,
    temperature: float = 1573.0,
    cycles: int = 200,
    attempts: int = 1000,
    burst_ps: float = 0.2,
    orders: tuple[float, float] = (0.7778, 0.0),
    seed: int = 1,
    moves: str = "exchange",
) -> dict[str, float]:
    """Means of the second halves and their differences over their errors."""
    tables, numbers = [], {}
    for name, order in zip(("ordered", "disordered"), orders, strict=True):
        values = {
            "potential": str(potential.resolve()),
            "seeds": [seed],
            "cell": {"kind": "lstz", "contents": {"order": order}, "repeat": [4, 4, 4]},
            "equilibration": {"npt_ps": 4.0, "ramp_ps": 1.0, "barostat": "iso"},
            "mcmd": {
                "pairs": [["Sr", "Li"], ["Sr", "vacancy"]],
                "temperature": temperature,
                "cycles": cycles,
                "attempts": attempts,
                "burst_ps": burst_ps,
                "sites": ["Sr"],
                "moves": moves,
            },
        }
        records = run_campaign(validated(values, name), out / name, until="mcmd", say=print)
        trajectory = Campaign.load(out / name).mcmd_trajectory(seed)
        assert trajectory is not None
        found = a_site_order(trajectory).series
        table = pd.read_csv(out / name / "mcmd" / f"seed{seed}" / "cycles.csv")
        table.insert(0, "start", name)
        table.insert(2, "a_site_order", found[1:])
        tables.append(table)
        later = table[table["cycle"] > cycles / 2]
        for label, column in (("S", "a_site_order"), ("energy_eV", "energy_after_burst_eV")):
            average = block_average(later[column].to_numpy())
            numbers[f"{label}_{name}"] = float(average.mean)
            numbers[f"{label}_{name}_error"] = float(average.standard_error)
        numbers[f"S_start_{name}"] = float(found[0])
        for pair, share in records[-1]["acceptance"].items():
            numbers[f"acceptance_{pair}_{name}"] = share
    pd.concat(tables).to_csv(out / "orders.csv", index=False)
    for label in ("S", "energy_eV"):
        difference = numbers[f"{label}_ordered"] - numbers[f"{label}_disordered"]
        error = np.hypot(numbers[f"{label}_ordered_error"], numbers[f"{label}_disordered_error"])
        numbers[f"{label}_difference_over_error"] = float(difference / error)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--potential", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/two_orders"))
    parser.add_argument("--temperature", type=float, default=1573.0)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--attempts", type=int, default=1000)
    parser.add_argument("--moves", default="exchange", choices=("exchange", "translate"))
    given = parser.parse_args()
    found = main(
        given.potential, given.out, temperature=given.temperature, cycles=given.cycles,
        attempts=given.attempts, moves=given.moves,
    )  # fmt: skip
    for key, value in found.items():
        print(f"{key} {value:.4g}")
