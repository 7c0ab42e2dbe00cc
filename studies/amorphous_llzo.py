"""Amorphous LLZO: the crystal, expanded to the glass's density, is melted and cooled in steps at constant pressure.

    python studies/amorphous_llzo.py --out runs/amorphous --seeds 1 2

Every seed is a melt of its own. The last line of each says how far the framework's atoms went in the melt.
OUT/llzo-amorphous-SEED.extxyz is what `studies/campaigns/llzo-amorphous.toml` starts from (copied into
`studies/campaigns/cells`); OUT/SEED/ holds the runs, and the same command continues a study that was killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses

from atomistic.cells import llzo
from atomistic.labels import frame_text, write_bytes
from atomistic.lammps import run_md
from atomistic.mtp.model_card import load_potential


def quench(
    potential_name: str,
    seed: int,
    folder: Path,
    *,
    density: float = 4700.0,
    melt_K: float = 2600.0,
    melt_ps: float = 20.0,
    stages_K: tuple[float, ...] = (2200.0, 1900.0, 1600.0, 1300.0, 1000.0, 800.0, 600.0),
    stage_ps: float = 10.0,
    say: Callable[[str], None] = print,
) -> Atoms:
    """The structure after the last stage. density: of the melt, kg/m³; each stage ramps down and stays for stage_ps.

    Raises RuntimeError where a stage was stopped.
    """
    potential = load_potential(potential_name)
    atoms = llzo(rng=np.random.default_rng([seed, 3]))
    units = atoms.info["formula_units"]
    volume = float(atomic_masses[atoms.numbers].sum()) * 1.66053907e3 / density
    atoms.set_cell(atoms.cell.array * (volume / float(atoms.get_volume())) ** (1 / 3), scale_atoms=True)
    crystal: Atoms = atoms.copy()
    before = melt_K
    for kelvin in (melt_K, *stages_K):
        molten = kelvin == melt_K
        ps = melt_ps if molten else stage_ps
        run = run_md(
            atoms,
            potential,
            directory=folder / f"{kelvin:g}K",
            temperature=kelvin,
            start_temperature=before,
            ramp_steps=2000,
            minimise=molten,
            steps=round(ps * 500),
            dump_every=round(ps * 500),
            # A melt at no pressure may boil; it keeps its volume.
            ensemble="nvt" if molten else "npt",
            barostat="iso",
            seed=seed,
        )
        if run.stopped is not None:
            raise RuntimeError(f"seed {seed}, {kelvin:g} K: stopped by {run.stopped}")
        atoms, before = run.final, kelvin
        if molten:
            moved = framework_displacement(crystal, atoms)
        volume = float(atoms.get_volume()) / len(atoms)
        say(f"seed {seed}, {kelvin:g} K: {volume:.2f} cubic angstrom per atom")
    say(f"seed {seed}: root mean square displacement of La, Zr and O in the melt {moved:.2f} angstrom")
    atoms.info = {"material": "LLZO, amorphous", "formula_units": units, "melt_displacement_A": moved}
    return atoms


def framework_displacement(before: Atoms, after: Atoms) -> float:
    """Root mean square displacement (Å) of all but Li, by the nearest image: a lower bound."""
    chosen = np.array(before.get_chemical_symbols()) != "Li"
    step = (after.get_scaled_positions(wrap=False) - before.get_scaled_positions(wrap=False))[chosen]
    step -= np.rint(step - np.median(step, axis=0))
    moved = (step - step.mean(axis=0)) @ after.cell.array
    return float(np.sqrt(np.mean(np.sum(moved**2, axis=1))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/amorphous"))
    parser.add_argument("--potential", default="llzo-ta-al-level12")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    for number in given.seeds:
        final = quench(given.potential, number, given.out / str(number))
        write_bytes(given.out / f"llzo-amorphous-{number}.extxyz", frame_text(final).encode())
