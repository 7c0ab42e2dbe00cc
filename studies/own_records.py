"""Transport records of our own molecular dynamics, from the campaigns in `studies/campaigns`.

    python studies/own_records.py analyse RUNS [NAME...]   # trajectories in RUNS/NAME to studies/tables/own/NAME.json
    python studies/own_records.py migration RUNS           # D of Ta, Al and La to studies/tables/own/migration.csv
    python studies/own_records.py nanosecond RUNS          # the runs of 1 ns to studies/tables/own/nanosecond.csv
    python studies/own_records.py records                  # those tables to mesoion/records/*-own.json

The tables hold every diffusivity, composition, width and occupancy of a campaign with its uncertainty, and the
checksums of potential and settings; the records follow from them alone. `analyse` also writes `orders.csv`, the A-site
order of every perovskite's Monte Carlo stage, and `boundary_energies.csv` of the boundary cells at rest, both with what
they held of campaigns that are not in RUNS; without names it takes every campaign of RUNS. `diffusivities.csv` is for
readers.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from atomistic.analysis import analyse
from atomistic.analysis_record import record_of, record_settings
from atomistic.analysis_results import AnalysisResults, load_results
from atomistic.analysis_settings import open_sources, settings_from
from atomistic.averages import block_average
from atomistic.boundary_analysis import a_site_order
from atomistic.errors import AtomisticError, InputError
from atomistic.framework import framework_displacement, framework_species
from atomistic.labels import read_frames
from atomistic.progress import track
from atomistic.sampling import Campaign
from atomistic.trajectory import open_trajectory
from mesoion.transport import dump_record

HERE = Path(__file__).parent
TABLES = HERE / "tables" / "own"
RECORDS = HERE.parent / "mesoion" / "records"

RECORD_NAMES = {"lstz-bulk-1573": "lstz-bulk-own", "llto-bulk-disordered": "llto-bulk-own"}
"""Of the bulk that a sintered pellet has; every other record is called as its campaign, with -own."""

LEAST_TEMPERATURES = 3
"""In one direction at least: nothing checks a law of two points, and one run each says little of its scatter."""

EARLY = "early_across.txt"
"""Names the tables whose D across is from the likelihood search before its mending: they make no record."""

HOSTS: dict[str, dict[str, Any]] = {
    "llzo": {
        "material": "LLZO",
        # 3 tetrahedral and 6 octahedral places a formula unit of 12 O: boundaries may lack Zr, but hardly O.
        "sites": {"O": 0.75},
        "permittivity": (50.0, 1.5),
    },
    "lstz": {
        "material": "LSTZ0.75",
        # A sites that Sr leaves open.
        "sites": {"Ta": 1.0, "Zr": 1.0, "Sr": -1.0},
        "permittivity": (60.0, 2.0),
        "order": {"heavy": "Sr", "b_sites": ["Ta", "Zr"]},
    },
    "llto": {
        "material": "LLTO",
        "sites": {"Ti": 1.0, "La": -1.0},
        "permittivity": (100.0, 2.0),
        "order": {"heavy": "La", "b_sites": ["Ti"]},
    },
}


def settings_of(name: str, mobile: str = "Li") -> dict[str, Any]:
    """Analysis settings of a campaign by its name."""
    host = HOSTS[name.split("-")[0]]
    value, factor = host["permittivity"]
    settings: dict[str, Any] = {
        "title": name,
        "mobile": mobile,
        "discard_ps": 10.0,
        "sites": host["sites"],
        "record": {
            "name": RECORD_NAMES.get(name, f"{name}-own"),
            "material": host["material"],
            "method": "moment tensor potential taught by CHGNet r2scan (its softness: docs/training.md)",
            "relative_permittivity": {
                "value": value,
                "uncertainty_factor": factor,
                "kind": "assumption",
                "source": "high-frequency lattice value, as in the published records; no run gives it",
            },
        },
    }
    if "sigma" in name:
        del settings["record"]["relative_permittivity"]
    elif "order" in host:
        settings["order"] = host["order"]
    return settings


def analyse_campaign(folder: Path, name: str) -> AnalysisResults:
    """Everything its complete runs tell; sites of species that the cells do not hold are left out."""
    settings = settings_of(name)
    cell = next((folder / "cells").glob("*.extxyz"))
    present = set(read_frames(cell)[-1].get_chemical_symbols())
    settings["sites"] = {s: n for s, n in settings["sites"].items() if s in present}
    boundary = Campaign.load(folder).settings.cell.boundary
    if boundary is not None:
        # Thin slabs by distance cost most of the time and enter no record.
        settings["boundary"] = {"name": boundary, "slab_A": 30.0}
    sources = open_sources(folder, settings_from(settings, name))
    return analyse(sources, show=False).results


def table_rows(name: str, results: AnalysisResults) -> list[list[Any]]:
    """D of each region, direction and kind at each temperature, in cm²/s, with its 95 % interval."""
    return [
        [name, row.region, row.direction, row.kind, row.temperature_K]
        + [f"{1e4 * value:.4g}" for value in (row.value_m2_per_s, row.low_m2_per_s, row.high_m2_per_s)]
        for row in results.means
    ]


def run_analyses(runs: Path, names: list[str]) -> int:
    """Tables of these campaigns; those that cannot be analysed are said, the others go on."""
    TABLES.mkdir(parents=True, exist_ok=True)
    found = names or sorted(path.parent.name for path in runs.glob("*/settings.json"))
    failed = 0
    for name in track(found, "campaigns", len(found)):
        try:
            results = analyse_campaign(runs / name, name)
        except AtomisticError as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
            continue
        (TABLES / f"{name}.json").write_text(results.dump(), encoding="utf-8")
        _analysed_anew(name)
    write_readers_table()
    write_orders(runs)
    write_energies(runs)
    return failed


def write_orders(runs: Path) -> None:
    """S over the second half of every Monte Carlo stage of a bulk perovskite, with its blocking error."""
    rows = []
    for path in sorted(runs.glob("lstz-bulk*/mcmd/seed*/run.json")):
        campaign = Campaign.load(path.parents[2])
        trajectory = campaign.mcmd_trajectory(int(path.parent.name.removeprefix("seed")))
        assert trajectory is not None
        assert campaign.settings.mcmd is not None
        series = a_site_order(trajectory).series
        half = block_average(series[len(series) // 2 :])
        begin = float(campaign.settings.cell.contents["order"])
        rows.append(
            [
                path.parents[2].name,
                path.parent.name,
                campaign.settings.mcmd.temperature,
                len(series) - 1,
                begin,
            ]
            + [f"{value:.4g}" for value in (float(half.mean), float(half.standard_error))]
        )
    header = ["campaign", "seed", "temperature_K", "cycles", "started_from", "order", "standard_error"]
    _put(TABLES / "orders.csv", header, rows)


def _put(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write a table by campaign; those that are not among the rows keep what the file says of them."""
    new = {row[0] for row in rows}
    held: list[list[Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as stream:
            held = [row for row in csv.reader(stream) if row and row != header and row[0] not in new]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(sorted([*held, *rows], key=lambda row: str(row[0])))


def write_energies(runs: Path) -> None:
    """Energy of the boundary that each cell was built with, the lowest of those relaxed."""
    rows = []
    for path in sorted(runs.glob("*/build/search.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        energies = [
            row["energies"] for row in found if "boundary_energy_J_per_m2" in (row.get("energies") or {})
        ]
        if energies:
            best = min(energies, key=lambda row: float(row["boundary_energy_J_per_m2"]))
            campaign = Campaign.load(path.parents[1])
            rows.append(
                [path.parents[1].name, campaign.settings.cell.boundary, len(energies)]
                + [
                    f"{best[key]:.4g}"
                    for key in ("boundary_energy_J_per_m2", "standard_uncertainty_J_per_m2")
                ]
            )
    header = ["campaign", "boundary", "relaxed", "energy_J_per_m2", "standard_uncertainty_J_per_m2"]
    _put(TABLES / "boundary_energies.csv", header, rows)


MIGRATION = {
    "llzo-al0.25-bulk": ("Al",),
    "llzo-al0.25-migration": ("Al", "La"),
    "llzo-ta0.25-migration": ("Ta", "La"),
    "llzo-sigma3-al-migration": ("Al", "La"),
    "llzo-sigma3-ta-migration": ("Ta", "La"),
}
"""Campaigns in which species of the framework were followed."""


def run_migration(runs: Path) -> None:
    """D of cations in runs whose framework stays (Zr where La is followed): means, or why there is none."""
    rows = []
    for name, species in track(MIGRATION.items(), "campaigns", len(MIGRATION)):
        for mobile in species:
            settings = settings_of(name, mobile)
            del settings["sites"]
            settings |= {"framework": ["Zr"] if mobile == "La" else ["La", "Zr"], "structure_frames": 10}
            try:
                results = analyse(
                    open_sources(runs / name, settings_from(settings, name)), show=False
                ).results
            except AtomisticError as error:
                print(f"{name}, {mobile}: {error}", file=sys.stderr)
                rows.append([name, mobile, *[""] * 5, "every run stopped, or its framework came loose"])
                continue
            laws = [law for law in results.arrhenius if (law.direction, law.kind) == ("all", "tracer")]
            energy = laws[0].activation_energy_eV if laws else None
            said = (
                "" if energy is None else f"E_a {energy.value:.2f} ({energy.low:.2f} to {energy.high:.2f}) eV"
            )
            for row in results.diffusivities:
                if (row.direction, row.kind) != ("all", "tracer"):
                    continue
                numbers = [
                    f"{1e4 * v:.3g}" for v in (row.value_m2_per_s, row.low_m2_per_s, row.high_m2_per_s)
                ]
                if not row.used:
                    numbers = ["", "", numbers[2]]
                note = said if row.used else "moved less than a site distance: an upper limit"
                rows.append([name, mobile, f"{row.temperature_K:g}", row.seed, *numbers, note])
    with (TABLES / "migration.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        head = ["campaign", "species", "temperature_K", "seed"]
        writer.writerow([*head, "D_cm2_per_s", "low_cm2_per_s", "high_cm2_per_s", "note"])
        writer.writerows(rows)


def run_nanoseconds(runs: Path) -> None:
    """Of every run of RUNS/*-nanosecond: how long it went, what ended it, how far its framework moved."""
    rows = []
    for path in sorted(runs.glob("*-nanosecond/production/*/seed*/run.json")):
        campaign = Campaign.load(path.parents[3])
        run = json.loads(path.read_text(encoding="utf-8"))
        trajectory = open_trajectory(path.parent / "trajectory.bin")
        moved = framework_displacement(trajectory, framework_species(tuple(run["species"]), "Li"))
        rows.append(
            [campaign.folder.name, campaign.settings.potential, run["potential_sha256"][:12], run["atoms"]]
            + [f"{run[key]:g}" for key in ("temperature_K", "time_ps", "mean_temperature_K")]
            + [run["stopped"] or "", f"{moved:.3g}"]
        )
    header = ["campaign", "potential", "potential_sha256", "atoms", "temperature_K", "time_ps"]
    _put(TABLES / "nanosecond.csv", [*header, "mean_temperature_K", "stopped", "framework_A2"], rows)


def write_readers_table() -> None:
    """`diffusivities.csv` from all tables."""
    with (TABLES / "diffusivities.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        head = ["campaign", "region", "direction", "kind", "temperature_K"]
        writer.writerow([*head, "D_cm2_per_s", "low_cm2_per_s", "high_cm2_per_s"])
        for path in sorted(TABLES.glob("*.json")):
            writer.writerows(table_rows(path.stem, load_results(path)))


def early_across(tables: Path) -> list[str]:
    """Campaigns named in EARLY; none without the file."""
    path = tables / EARLY
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def _analysed_anew(name: str) -> None:
    path = TABLES / EARLY
    if name in early_across(TABLES):
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if line != name]
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")


def record_texts() -> dict[str, str]:
    """File name and text of every record the tables give; where diffusion was seen at one temperature only, none."""
    texts = {}
    for path in sorted(TABLES.glob("*.json")):
        results = load_results(path)
        if "migration" in path.stem:
            continue
        if path.stem in early_across(TABLES):
            print(f"{path.stem}: no record: to be run again", file=sys.stderr)
            continue
        region = "boundary" if results.boundary is not None else "bulk"
        seen = [len(law.temperatures_K) for law in results.arrhenius if law.region == region]
        if max(seen, default=0) < LEAST_TEMPERATURES:
            print(f"{path.stem}: no record: {max(seen, default=0)} temperatures", file=sys.stderr)
            continue
        try:
            record = record_of(results, record_settings(results, None, path.name))
        except InputError as error:
            print(f"{path.stem}: no record: {error}", file=sys.stderr)
            continue
        texts[f"{record.name}.json"] = dump_record(record)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["analyse", "migration", "nanosecond", "records"])
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if given.stage == "records":
        for name, text in record_texts().items():
            (RECORDS / name).write_text(text, encoding="utf-8")
            print(name)
        return
    if given.runs is None:
        parser.error(f"{given.stage} needs the folder of the campaigns")
    if given.stage in ("migration", "nanosecond"):
        (run_migration if given.stage == "migration" else run_nanoseconds)(given.runs)
        return
    sys.exit(1 if run_analyses(given.runs, given.names) else 0)


if __name__ == "__main__":
    main()
