"""Every boundary family of both papers: built, relaxed, its energy, and 100 ps at 1000 K.

    python studies/ten_boundaries.py --out runs/boundaries --llzo llzo-ta-level8 --labels-llzo labels.xyz
        [--lstz lstz.mtp --labels-lstz labels.xyz] [--llto llto.mtp --labels-llto labels.xyz]

One campaign folder per boundary, so a killed study goes on where it was; OUT/boundaries.csv gets a row when a boundary
is finished. The crystal has the potential's own lattice constant. The boundary energy is that of the relaxed cell
against relaxed bulk cells. The extrapolation grade of the frames of the run, against the active set of the labels,
says how far outside its training the potential was: below 1 inside, above about 10 not to be trusted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from atomistic.boundaries import FAMILIES, relaxed_energy
from atomistic.building import bulk_cell
from atomistic.campaign import SHIPPED, run_campaign
from atomistic.labels import read_frames
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.grade import ActiveSet, select_active_set
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.sampling import Campaign, temperature_name, validated

COLUMNS = (
    "material", "boundary", "atoms", "formula", "charge_e", "separation_A", "area_A2", "lattice_constant_A",
    "boundary_energy_J_per_m2", "standard_uncertainty_J_per_m2", "time_ps", "stopped", "mean_temperature_K",
    "framework_rms_A", "median_grade", "largest_grade", "grade_of_species", "potential",
)  # fmt: skip
START = {"llzo": 12.97, "lstz": 4.00, "llto": 3.87}
FRAMEWORK = {"llzo": ("La", "Zr", "O"), "lstz": ("Zr", "Ta", "O"), "llto": ("Ti", "O")}


def lattice_constant(host: str, potential: MTPotential) -> float:
    """The lattice constant (Å) of least energy of one arrangement, relaxed at each of five volumes: a parabola's."""
    rng = np.random.default_rng(7)
    repeat = (1, 1, 1) if host == "llzo" else (3, 3, 3)
    cell = bulk_cell(host, {}, repeat, rng)
    scales = np.array([0.98, 0.99, 1.0, 1.01, 1.02])
    energies = []
    for scale in scales:
        strained: Atoms = cell.copy()
        strained.set_cell(cell.cell.array * scale, scale_atoms=True)
        energies.append(relaxed_energy(strained, MTPCalculator(potential), fmax=0.1, steps=200)[0])
    a, b, _ = np.polyfit(scales, energies, 2)
    return float(START[host] * np.clip(-b / (2 * a), 0.97, 1.03))


def grades_of_run(
    campaign: Campaign, temperature: float, active_set: ActiveSet, frames: int
) -> tuple[float, float, str]:
    """Median over frames of the largest grade of each, the largest of all, and the species of that atom."""
    run = next(r for r in campaign.runs if r.temperature == temperature)
    trajectory = run.open().read()
    chosen = np.unique(np.linspace(0, trajectory.n_frames - 1, frames).astype(int))
    worst = []
    for k in chosen:
        atoms = trajectory.atoms(int(k), wrap=True)
        grades = active_set.grades(atoms)
        at = int(np.argmax(grades))
        worst.append((float(grades[at]), trajectory.species[at]))
    largest = max(worst)
    return float(np.median([g for g, _ in worst])), largest[0], largest[1]


def framework_rms(campaign: Campaign, temperature: float, host: str) -> float:
    """Root mean square displacement (Å) of the framework's atoms between the first and the last frame."""
    run = next(r for r in campaign.runs if r.temperature == temperature)
    trajectory = run.open().read()
    atoms = trajectory.indices(*FRAMEWORK[host])
    moved = trajectory.positions[-1][atoms] - trajectory.positions[0][atoms]
    return float(np.sqrt(np.mean(np.sum((moved - moved.mean(axis=0)) ** 2, axis=1))))


def main(
    out: Path,
    potentials: dict[str, str],
    labels: dict[str, Path],
    *,
    only: str = "",
    temperature: float = 1000.0,
    time_ps: float = 100.0,
    separation: float = 10.0,
    max_shifts: int = 12,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Rows of the table, one per material and boundary. potentials: by host, shipped names or paths."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for host, name in potentials.items():
        shipped = SHIPPED / f"{name}.mtp"
        path = shipped if shipped.exists() else Path(name).resolve()
        potential = read_mtp(path)
        grade = out / f"{host}.grade"
        if host in labels and not grade.exists():
            select_active_set(potential, read_frames(labels[host])).save(grade)
        constants = out / f"{host}.lattice.json"
        if not constants.exists():
            constants.write_text(json.dumps(lattice_constant(host, potential)), encoding="utf-8")
        constant = float(json.loads(constants.read_text(encoding="utf-8")))
        for family, (materials, _) in FAMILIES.items():
            if host.upper() not in materials or only not in family:
                continue
            rows.append(
                one_boundary(
                    out, host, family, path, constant, grade if grade.exists() else None,
                    temperature, time_ps, separation, max_shifts,
                )
            )  # fmt: skip
            say(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
            _note(out / "boundaries.csv", rows[-1])
    return rows


def _note(path: Path, row: dict[str, Any]) -> None:
    """Put a row into the table, in the place of an earlier one of the same boundary."""
    held: list[dict[str, Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as stream:
            held = list(csv.DictReader(stream))
    kept = [r for r in held if (r["material"], r["boundary"]) != (row["material"], row["boundary"])]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, row])


def one_boundary(
    out: Path, host: str, family: str, path: Path, constant: float, grade: Path | None,
    temperature: float, time_ps: float, separation: float, max_shifts: int,
) -> dict[str, Any]:  # fmt: skip
    """Build, relax and run one boundary; its row."""
    values = {
        "title": f"{host} {family}",
        "potential": str(path),
        "cell": {
            "kind": "boundary",
            "host": host,
            "boundary": family,
            "contents": {"lattice_constant": round(constant, 4)},
            "min_separation": separation,
            "search": {"terminations": 1, "max_shifts": max_shifts, "keep": 1, "relax": 1},
        },
        "equilibration": {"npt_ps": 0.0, "ramp_ps": 1.0},
        "production": {
            "temperatures": [temperature],
            "npt_ps": 4.0,
            "ramp_ps": 1.0,
            "time_ps": time_ps,
            "frame_interval_ps": 0.5,
        },
    }
    place = out / f"{host}-{family.replace('[', '_').replace(']', '_').replace('(', '_').replace(')', '')}"
    records = run_campaign(validated(values, family), place)
    campaign = Campaign.load(place)
    report = json.loads((place / "build" / "results.json").read_text(encoding="utf-8"))
    cell, best = report["cells"]["1"], report["search"][0]["energies"]
    noted, end = cell["noted"], records[-1]
    row: dict[str, Any] = {
        "material": host.upper(),
        "boundary": family,
        "atoms": cell["atoms"],
        "formula": cell["formula"],
        "charge_e": cell["charge_e"],
        "separation_A": round(noted["boundary_separation"], 2),
        "area_A2": round(noted["boundary_area"], 1),
        "lattice_constant_A": round(constant, 3),
        "boundary_energy_J_per_m2": round(best["boundary_energy_J_per_m2"], 3),
        "standard_uncertainty_J_per_m2": round(best["standard_uncertainty_J_per_m2"], 3),
        "time_ps": end["time_ps"] if end["stage"] == "production" else 0.0,
        "stopped": end["stopped"] or "",
        "mean_temperature_K": round(end["mean_temperature_K"] or 0.0, 1),
        "potential": path.stem if path.parent == SHIPPED else f"{host} {campaign_checksum(campaign)}",
    }
    finished = campaign.folder / "production" / temperature_name(temperature) / "seed1" / "trajectory.bin"
    if finished.exists():
        row["framework_rms_A"] = round(framework_rms(campaign, temperature, host), 2)
    if grade is not None and finished.exists():
        active_set = ActiveSet.load(grade, read_mtp(campaign.potential))
        median, largest, species = grades_of_run(campaign, temperature, active_set, 20)
        row |= {
            "median_grade": round(median, 2),
            "largest_grade": round(largest, 2),
            "grade_of_species": species,
        }
    return row


def campaign_checksum(campaign: Campaign) -> str:
    """First digits of the potential's checksum."""
    return read_mtp(campaign.potential).checksum[:12]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/boundaries"))
    parser.add_argument("--only", default="", help="part of a family's name")
    parser.add_argument("--separation", type=float, default=10.0)
    for host in START:
        parser.add_argument(f"--{host}", help="a shipped potential's name or a .mtp file")
        parser.add_argument(f"--labels-{host}", type=Path, help="its labelled frames, for the grade")
    given = vars(parser.parse_args())
    main(
        given["out"],
        {host: given[host] for host in START if given[host]},
        {host: given[f"labels_{host}"] for host in START if given[f"labels_{host}"]},
        only=given["only"],
        separation=given["separation"],
    )
