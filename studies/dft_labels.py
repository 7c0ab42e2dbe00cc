"""A user's own density functional in the teacher's place: snapshots, labels by GPAW, and what a fit makes of them.

    python studies/dft_labels.py snapshots lstz.xyz            # small cells of LSTZ's elements from MD, unlabelled
    python studies/dft_labels.py label lstz.xyz labels.xyz     # any Python with ASE and GPAW; goes on where killed
    python studies/dft_labels.py pack labels.xyz               # energies and forces, compressed, to LABELS
    atomistic train atomistic/potentials/data/lstz-pbe.toml \\
        --frames atomistic/potentials/data/lstz-pbe.labels.xyz.gz --out runs/lstz-pbe
    python studies/dft_labels.py compare runs/lstz-pbe/potential.mtp

PBE (doi 10.1103/PhysRevLett.77.3865) in plane waves with GPAW's own data sets. The cells hold two formula units of a
perovskite (LiSrTaZrO6, and SrTa2O6 with an empty A site), few enough atoms for a laptop: an example of the route, not
a training set. `compare` writes studies/tables/dft_labels.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
DATA = HERE.parent / "atomistic" / "potentials" / "data"
POTENTIAL = "lstz-level12"
SETTINGS, LABELS = DATA / "lstz-pbe.toml", DATA / "lstz-pbe.labels.xyz.gz"
TABLE = HERE / "tables" / "dft_labels.csv"
SIDE = 4.0
CUTOFF_EV, K_POINTS, SMEARING_EV = 400.0, (3, 3, 2), 0.05
COMPOSITIONS = ((("Sr", "Li"), ("Ta", "Zr")), (("Sr", None), ("Ta", "Ta")))


def cell_of(a_sites: tuple[str | None, ...], b_sites: tuple[str, ...]) -> Any:
    """Two perovskite cubes on top of each other; None is an empty A site."""
    from ase import Atoms

    symbols, places = [], []
    for k, (a, b) in enumerate(zip(a_sites, b_sites, strict=True)):
        site = [(a, (0, 0, 0)), (b, (0.5, 0.5, 0.5))]
        site += [("O", (0.5, 0.5, 0)), ("O", (0.5, 0, 0.5)), ("O", (0, 0.5, 0.5))]
        for symbol, place in site:
            if symbol is not None:
                symbols.append(symbol)
                places.append(SIDE * np.add(place, (0, 0, k)))
    return Atoms(symbols, positions=places, cell=[SIDE, SIDE, 2 * SIDE], pbc=True)


def snapshots(path: Path, seed: int = 1) -> int:
    """Langevin dynamics of both cells with the shipped potential at three temperatures, each run at its own strain."""
    from ase import units
    from ase.io import write
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    from atomistic.mtp.calculator import MTPCalculator
    from atomistic.mtp.model_card import load_potential

    rng = np.random.default_rng(seed)
    frames = []
    for composition in COMPOSITIONS:
        for kelvin in (500.0, 1000.0, 1500.0):
            for _ in range(2):
                atoms = cell_of(*composition)
                strain = np.eye(3) + np.triu(rng.normal(0.0, 0.015, (3, 3)))
                atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                atoms.calc = MTPCalculator(load_potential(POTENTIAL))
                MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
                motion = Langevin(
                    atoms, 1.0 * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng
                )
                for _ in range(3):
                    motion.run(150)
                    frame = atoms.copy()
                    frame.calc = None
                    frame.wrap()
                    frame.arrays.pop("momenta", None)
                    frame.info["group"] = f"md{kelvin:.0f}"
                    frames.append(frame)
    order = rng.permutation(len(frames))
    write(path, [frames[k] for k in order], format="extxyz")
    return len(frames)


def label(source: Path, target: Path) -> int:
    """Append the GPAW numbers of every frame that `target` does not hold yet; frames in order."""
    from ase.io import read, write
    from gpaw import GPAW

    frames: Any = read(source, ":")
    done = len(read(target, ":")) if target.exists() else 0
    for k, atoms in enumerate(frames[done:], start=done):
        atoms.calc = GPAW(
            mode={"name": "pw", "ecut": CUTOFF_EV},
            xc="PBE",
            kpts={"size": K_POINTS, "gamma": True},
            occupations={"name": "fermi-dirac", "width": SMEARING_EV},
            txt=None,
        )
        atoms.get_potential_energy()
        atoms.get_forces()
        write(target, atoms, format="extxyz", append=True)
        print(f"{k + 1} of {len(frames)}", file=sys.stderr, flush=True)
    return len(frames)


def pack(source: Path, target: Path = LABELS, version: str = "22.8.0") -> int:
    """Keep structure, energy, forces and who made them. version: GPAW's.

    No stress: at a fixed plane-wave cutoff it is off by the Pulay stress.
    """
    from atomistic.labels import attach, normalised, read_frames, structure_hash, write_frames

    made = f"{version} PBE, plane waves {CUTOFF_EV:.0f} eV, {'x'.join(map(str, K_POINTS))} k points"
    kept = []
    for frame in read_frames(source, labelled=True):
        plain = normalised(frame, group=frame.info["group"])
        plain.info |= {"teacher": "gpaw", "teacher_version": made, "structure": structure_hash(plain)}
        kept.append(attach(plain, frame.get_potential_energy(), frame.get_forces(), None))
    write_frames(target, kept)
    return len(kept)


def shifted(frames: list[Any], energies: list[float], known: list[int]) -> np.ndarray:
    """Errors of energies (eV) in meV per atom, after the species offsets that fit the frames `known` best."""
    from atomistic.labels import attach
    from atomistic.mtp.training import least_squares_energies

    rest = [
        attach(f, f.get_potential_energy() - e, f.get_forces(), None)
        for f, e in zip(frames, energies, strict=True)
    ]
    species = sorted({s for f in frames for s in f.get_chemical_symbols()})
    offset = least_squares_energies([rest[i] for i in known], species)
    return np.array(
        [
            1e3 * (sum(offset[s] for s in f.get_chemical_symbols()) - f.get_potential_energy()) / len(f)
            for f in rest
        ]
    )


def compare(refitted: Path, labels: Path = LABELS, table: Path = TABLE) -> int:
    """Errors against the labels on the frames that the fit did not see; CHGNet where it is installed."""
    import tomllib

    from atomistic.labels import read_frames
    from atomistic.mtp.calculator import MTPCalculator
    from atomistic.mtp.model_card import load_potential
    from atomistic.mtp.training import split_frames
    from atomistic.teachers import TeacherError, chgnet_teacher

    frames = read_frames(labels, labelled=True)
    fraction = tomllib.loads(SETTINGS.read_text())["training"]["held_out"]
    seen, held = split_frames(frames, fraction)
    models: dict[str, Any] = {}
    try:
        for weights in ("r2scan", "0.3.0"):
            models[f"CHGNet {weights}"] = chgnet_teacher(weights).factory()
    except TeacherError as error:
        print(error, file=sys.stderr)
    models[POTENTIAL] = MTPCalculator(load_potential(POTENTIAL))
    models["refitted"] = MTPCalculator(load_potential(refitted))
    rows = []
    for name, calculator in models.items():
        energies, errors = [], []
        for frame in frames:
            atoms = frame.copy()
            atoms.calc = calculator
            energies.append(float(atoms.get_potential_energy()))
            errors.append((atoms.get_forces() - frame.get_forces()).ravel())
        energy = shifted(frames, energies, seen)
        force = np.concatenate([errors[i] for i in held])
        rows.append([name, f"{np.abs(energy[held]).mean():.1f}", f"{np.sqrt((force**2).mean()):.3f}"])
        print(*rows[-1])
    size = np.concatenate([frames[i].get_forces().ravel() for i in held])
    print(
        f"{len(seen)} fitted, {len(held)} held out, labels' forces {np.sqrt((size**2).mean()):.2f} eV/angstrom"
    )
    with open(table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["model", "energy_mae_meV_per_atom", "force_rmse_eV_per_angstrom"])
        writer.writerows(rows)
    return len(held)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = {"snapshots": snapshots, "label": label, "pack": pack, "compare": compare}
    parser.add_argument("stage", choices=list(stages))
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    done = stages[given.stage](*given.files)  # type: ignore[operator]
    print(f"{given.stage}: {done} frames")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
