"""Formation energies of Al, Ta and a La vacancy in cubic and amorphous LLZO, against the elements' metals.

    python studies/formation_energies.py --out runs/formation      # CHGNet r2scan (extra `train`), some minutes

Reactions, all cells neutral without a charge of their own, as in table 1 of the supplement on segregation in LLZO:

    Al:  Al on a Li site, two further Li removed       E = E(doped) − E(host) − μ(Al) + 3 μ(Li)
    Ta:  Ta on a Zr site, one Li removed               E = E(doped) − E(host) − μ(Ta) + μ(Zr) + μ(Li)
    La:  a La atom taken out                           E = E(vacancy) − E(host) + μ(La)

μ: energy per atom of the metal at rest (Al and La fcc, Ta and Li bcc, Zr hcp), its lattice relaxed by the teacher.
Hosts are annealed (`anneal_ps` at 800 K; glasses of `studies/campaigns/cells` at 400 K) and relaxed at constant volume
with the potential, the substituted ones relaxed from there; energies are the teacher's at the potential's geometries,
or the potential's own with `--energies potential`, where only differences between hosts mean anything. Which sites, and
which Li goes (of the four nearest), is drawn for each structure. Mean and 95 % interval over them (Student).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.optimize import FIRE
from scipy.stats import t as student

from atomistic.cells import llzo
from atomistic.labels import read_frames, write_bytes
from atomistic.lammps import run_md
from atomistic.mtp.calculator import MTPCalculator
from atomistic.mtp.model_card import load_potential
from atomistic.mtp.potential import MTPotential
from atomistic.progress import track

HERE = Path(__file__).parent
METALS: dict[str, dict[str, object]] = {
    "Li": {"crystalstructure": "bcc", "a": 3.44},
    "Al": {"crystalstructure": "fcc", "a": 4.05},
    "La": {"crystalstructure": "fcc", "a": 5.3},
    "Zr": {"crystalstructure": "hcp", "a": 3.23, "c": 5.15},
    "Ta": {"crystalstructure": "bcc", "a": 3.31},
}
# What goes in, what goes out: numbers of atoms beside the host.
EXCHANGED = {"Al": {"Al": 1, "Li": -3}, "Ta": {"Ta": 1, "Zr": -1, "Li": -1}, "La": {"La": -1}}
Energy = Callable[[Atoms], float]


def metal_energies(calculator: Calculator) -> dict[str, float]:
    """eV per atom of each metal, its cell relaxed."""
    from ase.filters import FrechetCellFilter

    found = {}
    for symbol, lattice in METALS.items():
        metal = bulk(symbol, **lattice)
        metal.calc = calculator
        FIRE(FrechetCellFilter(metal), logfile=None).run(fmax=0.02, steps=200)
        found[symbol] = float(metal.get_potential_energy()) / len(metal)
    return found


def relaxed(atoms: Atoms, potential: MTPotential, fmax: float = 0.05, steps: int = 500) -> Atoms:
    """At rest with the potential, cell fixed."""
    moved = atoms.copy()
    moved.calc = MTPCalculator(potential)
    FIRE(moved, logfile=None).run(fmax=fmax, steps=steps)
    moved.calc = None
    return moved


def host(name: str, seed: int, potential: MTPotential, folder: Path, anneal_ps: float) -> Atoms:
    """An annealed and relaxed cell: one Li arrangement of the crystal, or one glass."""
    if name == "cubic":
        atoms, kelvin = llzo(rng=np.random.default_rng([seed, 5])), 800.0
    else:
        atoms = read_frames(HERE / "campaigns" / "cells" / f"llzo-amorphous-{1 + seed % 2}.extxyz")[-1]
        kelvin = 400.0
    run = run_md(
        atoms,
        potential,
        directory=folder / f"{name}-{seed}",
        temperature=kelvin,
        steps=round(anneal_ps * 500),
        dump_every=round(anneal_ps * 500),
        ensemble="npt",
        seed=seed + 1,
        ramp_steps=500,
    )
    if run.stopped is not None:
        raise RuntimeError(f"{name} {seed}: stopped by {run.stopped}")
    return relaxed(run.final, potential)


def substituted(cell: Atoms, dopant: str, rng: np.random.Generator) -> Atoms:
    """The host with one defect on a drawn site, and the Li that it costs taken from the four nearest."""
    numbers = cell.get_chemical_symbols()
    site_of = {"Al": "Li", "Ta": "Zr", "La": "La"}[dopant]
    site = int(rng.choice([i for i, s in enumerate(numbers) if s == site_of]))
    lithium = [i for i, s in enumerate(numbers) if s == "Li" and i != site]
    away = cell.get_distances(site, lithium, mic=True)
    count = -EXCHANGED[dopant].get("Li", 0) - (1 if dopant == "Al" else 0)
    nearest = [lithium[k] for k in np.argsort(away)[: max(4, count)]]
    gone = [int(i) for i in rng.choice(nearest, count, replace=False)] if count else []
    changed: Atoms = cell.copy()
    if dopant == "La":
        gone.append(site)
    else:
        changed.symbols[site] = dopant
    del changed[gone]
    return changed


def formation_energy(dopant: str, doped: float, pristine: float, metals: dict[str, float]) -> float:
    """eV a defect; `metals` in eV per atom."""
    return doped - pristine - sum(n * metals[s] for s, n in EXCHANGED[dopant].items())


def main(
    out: Path,
    potential_name: str = "llzo-ta-al-level12",
    *,
    structures: dict[str, int],
    anneal_ps: float = 5.0,
    energies: str = "chgnet",
    hosts: int = 2,
    show: bool | None = None,
) -> list[dict[str, object]]:
    """Table of every defect and host; OUT/energies.json holds each structure's, and the same command continues."""
    potential = load_potential(potential_name)
    energy, metals = teacher(potential, energies)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "energies.json"
    done: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    cells = {
        (name, k): host(name, k, potential, out / "hosts", anneal_ps)
        for name in ("cubic", "amorphous")
        for k in range(hosts)
    }
    jobs = [
        (n, d, k) for n in ("cubic", "amorphous") for d, count in structures.items() for k in range(count)
    ]
    pristine: dict[tuple[str, int], float] = {}
    for name, dopant, k in track(jobs, "structures", len(jobs), show=show):
        key = f"{name} {dopant} {k}"
        if key in done:
            continue
        cell = cells[name, k % hosts]
        if (name, k % hosts) not in pristine:
            pristine[name, k % hosts] = energy(cell)
        rng = np.random.default_rng([k, len(name), ord(dopant[0])])
        doped = relaxed(substituted(cell, dopant, rng), potential)
        done[key] = formation_energy(dopant, energy(doped), pristine[name, k % hosts], metals)
        write_bytes(path, json.dumps(done, indent=1).encode())
    rows = []
    for dopant, count in structures.items():
        for name in ("cubic", "amorphous"):
            values = np.array([done[f"{name} {dopant} {k}"] for k in range(count)])
            error = float(values.std(ddof=1)) / math.sqrt(count)
            half = float(student.ppf(0.975, count - 1)) * error
            mean = float(values.mean())
            rows.append(
                {
                    "dopant": dopant,
                    "host": name,
                    "structures": count,
                    "energy_eV": f"{mean:.3f}",
                    "low_eV": f"{mean - half:.3f}",
                    "high_eV": f"{mean + half:.3f}",
                    "energies": energies,
                    "potential": potential_name,
                }
            )
    return rows


def teacher(potential: MTPotential, energies: str) -> tuple[Energy, dict[str, float]]:
    """What gives the energies, and its metals; those of a potential for oxides mean nothing and are zero."""
    if energies == "potential":
        return _energy_of(MTPCalculator(potential)), dict.fromkeys(METALS, 0.0)
    from atomistic.teachers import chgnet_teacher

    calculator = chgnet_teacher("r2scan").factory()
    return _energy_of(calculator), metal_energies(calculator)


def _energy_of(calculator: Calculator) -> Energy:
    def energy(atoms: Atoms) -> float:
        copied = atoms.copy()
        copied.calc = calculator
        return float(copied.get_potential_energy())

    return energy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/formation_energies"))
    parser.add_argument("--energies", choices=["chgnet", "potential"], default="chgnet")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    table = main(given.out, structures={"Al": 10, "Ta": 10, "La": 24}, energies=given.energies)
    for row in table:
        print("  ".join(str(v) for v in row.values()))
    if given.table is not None:
        with given.table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
