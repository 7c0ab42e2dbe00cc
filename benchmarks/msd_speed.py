"""Mean-square displacements: this project beside kinisi and GEMDAT on the same walk, each in its own process.

    python benchmarks/msd_speed.py [--frames 100000] [--ions 500] [--kinisi-lags 20] [--out FILE]
        [--kinisi-ions 500] [--gemdat-ions 50]

Reported: CPU seconds of the calculation alone and the peak memory of the process less what it held before, beside the
size of the trajectory (float64, ions only). Ours computes all lags to half the run, by direction, tracer and
collective; kinisi the number of lags asked for (its time is linear in them; by default it takes all); GEMDAT all lags,
with arrays that grow with the ions and would fill the memory for many, hence --gemdat-ions. Single thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np

STEP = 0.1
"""Å, standard deviation of each frame's step in a direction."""


def walk(frames: int, ions: int) -> np.ndarray:
    """(frames, ions, 3) Å, the same for all."""
    rng = np.random.default_rng(0)
    path = np.empty((frames, ions, 3))
    rng.standard_normal(out=path)
    path *= STEP
    return np.cumsum(path, axis=0, out=path)


def peak() -> float:
    """Bytes the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def ours(frames: int, ions: int, _: int) -> dict[str, Any]:
    """All lags to half the run."""
    from atomistic.displacements import mean_square_displacement

    path = walk(frames, ions)
    before, start = peak(), time.process_time()
    msd = mean_square_displacement(path, 1.0)
    return measured(start, before, float(msd.tracer[10].sum()), lags=len(msd.time) - 1)


def kinisi(frames: int, ions: int, lags: int) -> dict[str, Any]:
    """kinisi's own function on `lags` lags to half the run."""
    import scipp
    from kinisi.displacement import calculate_msd

    path = walk(frames, ions)
    path -= path[0].copy()
    given = SimpleNamespace(
        time_step=scipp.scalar(1.0, unit="ps"), step_skip=scipp.scalar(1), dimensionality=scipp.scalar(3.0)
    )
    wanted = np.unique(np.append(np.geomspace(1, frames // 2, lags - 1).astype(int), 10))
    given.displacements = scipp.array(dims=["obs", "particle", "dimension"], values=path[1:], unit="angstrom")
    del path
    given.dt_index = scipp.array(dims=["time interval"], values=wanted)
    given.dt = given.dt_index.to(dtype="float64") * given.time_step
    before, start = peak(), time.process_time()
    msd = calculate_msd(given, progress=False)["da"]
    return measured(start, before, float(msd.values[list(wanted).index(10)]), lags=len(wanted))


def gemdat(frames: int, ions: int, _: int) -> dict[str, Any]:
    """GEMDAT's FFT over all lags, from fractional coordinates, its input."""
    from gemdat import Trajectory
    from pymatgen.core import Lattice

    edge = 30.0
    path = walk(frames, ions)
    path /= edge
    np.mod(path, 1.0, out=path)
    run = Trajectory(
        species=["Li"] * ions,
        coords=path,
        lattice=Lattice.cubic(edge),
        time_step=1e-12,
        metadata={"temperature": 300},
    )
    del path
    before, start = peak(), time.process_time()
    msd = run.mean_squared_displacement()
    return measured(start, before, float(msd[:, 10].mean()), lags=frames - 1)


def measured(start: float, before: float, value: float, lags: int) -> dict[str, Any]:
    """Seconds and bytes since, and the MSD at lag 10 for comparison."""
    return {
        "cpu_seconds": time.process_time() - start,
        "extra_memory_MB": (peak() - before) / 1e6,
        "msd_at_lag_10_A2": value,
        "lags": lags,
    }


def main() -> None:
    """Run all three one after the other and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--ions", type=int, default=500)
    parser.add_argument("--kinisi-ions", type=int, default=None, help="fewer, where the memory asks for it")
    parser.add_argument("--gemdat-ions", type=int, default=50)
    parser.add_argument("--kinisi-lags", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    few, some = given.gemdat_ions, given.kinisi_ions or given.ions
    sizes = dict.fromkeys((given.ions, some, few))
    for function, ions in (*((ours, size) for size in sizes), (kinisi, some), (gemdat, few)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                row = pool.apply(function, (given.frames, ions, given.kinisi_lags))
            except ImportError as error:
                print(f"{function.__name__}: {error}")
                continue
        row |= {"program": function.__name__, "frames": given.frames, "ions": ions}
        row["trajectory_MB"] = given.frames * ions * 24 / 1e6
        rows.append(row)
        print(
            f"{row['program']:<8} {row['frames']} x {row['ions']:<5} {row['lags']:>6} lags "
            f"{row['cpu_seconds']:9.2f} s CPU {row['extra_memory_MB']:9.0f} MB above a trajectory of "
            f"{row['trajectory_MB']:.0f} MB, MSD(10) {row['msd_at_lag_10_A2']:.6f}",
            flush=True,
        )
    if given.out is not None:
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
