"""Walks of known diffusivity, as trajectories, dumps and settings, for the tests of analyses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from atomistic.cli import main
from atomistic.trajectory import Trajectory

BOLTZMANN = 8.617333262e-5
LOG_D0, ENERGY = math.log(4e-8), 0.20
"""ln(m²/s) and eV of the walks."""
KELVINS = (700.0, 900.0, 1200.0)
SITES = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(8)])
LATTICE = 3.0 * SITES + np.array([0.0, 0.0, 1.5])
CELL = np.diag([12.0, 12.0, 24.0])


def exact(kelvin: float) -> float:
    """D of the walks, m²/s."""
    return math.exp(LOG_D0 - ENERGY / (BOLTZMANN * kelvin))


def walk(
    kelvin: float,
    seed: int,
    *,
    frames: int = 400,
    slow: float = 1.0,
    across: float = 1.0,
    interval: float = 0.5,
) -> Trajectory:
    """Zr and O at rest, drifting together, and 40 Brownian Li.

    Within 3 Å of z = 6 and 18 Å D is `slow` times as large, along z everywhere `across` times.
    """
    rng = np.random.default_rng([seed, round(kelvin)])
    d = exact(kelvin) * 1e20 / 1e12
    parts = 8
    li = rng.random((40, 3)) * np.diag(CELL)
    # Steps by the D where they start fill a layer in inverse proportion to it.
    inside = rng.random(40) < 1 / (1 + slow)
    li[:, 2] = np.where(inside, 3.0, 9.0) + 6 * rng.random(40) + 12 * rng.integers(2, size=40)
    paths = np.empty((frames, 40, 3))
    for t in range(frames):
        paths[t] = li
        for _ in range(parts):
            inside = np.abs(np.mod(li[:, 2], 12.0) - 6.0) < 3.0
            scale = np.sqrt(2 * d * np.where(inside, slow, 1.0) * interval / parts)
            li = li + rng.normal(size=li.shape) * scale[:, None] * [1.0, 1.0, math.sqrt(across)]
    thermal = 0.05 * rng.normal(size=(frames, len(LATTICE), 3))
    symbols = ["Zr" if (i + j) % 2 else "O" for i, j, _ in SITES]
    frame = np.concatenate([LATTICE + thermal, paths], axis=1)
    frame += (1e-3 * np.arange(frames))[:, None, None]
    return Trajectory(
        (*symbols, *["Li"] * 40), interval * np.arange(frames), np.tile(CELL, (frames, 1, 1)), frame
    )


def write_dump(run: Trajectory, path: Path, *, step: float = 0.001) -> None:
    """As LAMMPS writes it: unwrapped positions, elements, no times."""
    lines = []
    for k in range(run.n_frames):
        lines += [
            "ITEM: TIMESTEP",
            f"{round(run.times[k] / step)}",
            "ITEM: NUMBER OF ATOMS",
            f"{run.n_atoms}",
        ]
        lines += [
            "ITEM: BOX BOUNDS pp pp pp",
            *[f"0 {CELL[d, d]}" for d in range(3)],
            "ITEM: ATOMS id element xu yu zu",
        ]
        lines += [
            f"{a + 1} {s} {x:.5f} {y:.5f} {z:.5f}"
            for a, (s, (x, y, z)) in enumerate(zip(run.species, run.positions[k], strict=True))
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


HEAD = """
title = "Walks of known D"
structure_frames = 40
rdf_range_A = 4.0
[sites]
Zr = 2.0
[record]
name = "walks-bulk"
material = "toy"
method = "Brownian ions, no potential"
potential = "forces.txt"
relative_permittivity = {value = 50.0, uncertainty_factor = 1.5, kind = "assumption", source = "a lattice's"}
"""
LAYERS = """
[boundary]
planes = [0.25, 0.75]
width_A = 6.0
name = "Sigma5[100](01-2)"
slab_A = 3.0
"""


def main_quietly(arguments: list[str]) -> None:
    """The command line, which must not end with an error."""
    main_code = run(arguments)
    assert main_code == 0


def run(arguments: list[str]) -> int:
    """Exit code of the command line."""
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


RUNS = '[[runs]]\nfile = "a.dump"\ntemperature_K = 900\ntime_step_fs = 1.0\n'
