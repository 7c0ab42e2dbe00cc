"""Cost of one atom and step: numba kernel, LAMMPS plugin, motep, and a POD of LAMMPS, in one run.

    python benchmarks/mtp_speed.py [--level 8] [--repeats 5] [--json]

All evaluate the same structure, a garnet-like cell of five species at 0.085 atoms/angstrom^3 with a cutoff of 5
angstrom, on one thread. Times are processor times; the four take turns, and the medians of the ratios are given, so
that load on the machine falls on all alike. The POD (2-body 6, 3-body 5 x 4 functions: the size whose errors match
those of the potential) is fitted here to a few frames; its coefficients do not matter for the time. The last table
is the growth with the number of atoms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from ase import Atoms

from atomistic.lammps_files import write_data_file
from atomistic.mtp.basis import untrained
from atomistic.mtp.kernel import Evaluator, evaluate
from atomistic.mtp.plugin import build_plugin, find_lammps
from atomistic.mtp.potential import MTPotential

SPECIES = ("Li", "La", "Zr", "Ta", "O")
SHARES = (0.29, 0.125, 0.065, 0.02, 0.5)
POD = """species Li La Zr Ta O
pbc 1 1 1
rin 0.9
rcut 5.0
bessel_polynomial_degree 3
inverse_polynomial_degree 6
onebody 1
twobody_number_radial_basis_functions 6
threebody_number_radial_basis_functions 5
threebody_angular_degree 4
fourbody_number_radial_basis_functions 0
fourbody_angular_degree 0
fivebody_number_radial_basis_functions 0
fivebody_angular_degree 0
sixbody_number_radial_basis_functions 0
sixbody_angular_degree 0
sevenbody_number_radial_basis_functions 0
sevenbody_angular_degree 0
"""
POD_FIT = """file_format extxyz
file_extension xyz
path_to_training_data_set "frames"
path_to_test_data_set "frames"
percentage_training_data_set 1.0
percentage_test_data_set 1.0
error_analysis_for_training_data_set 0
error_analysis_for_test_data_set 0
basename_for_output_files bench
precision_for_pod_coefficients 10
fitting_weight_energy 100
fitting_weight_force 1
fitting_weight_stress 0.0
fitting_regularization_parameter 1e-8
energy_force_calculation_for_training_data_set 0
energy_force_calculation_for_test_data_set 0
"""


def structure(rng: np.random.Generator, repeat: int = 1) -> Atoms:
    """192 atoms per cell of 13.1 angstrom on a simple cubic grid with displacements, no two closer than 1.6."""
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = rng.choice(len(grid), 192, replace=False)
    positions = (grid[chosen] + 0.5) * 13.1 / 6 + rng.uniform(-0.25, 0.25, (192, 3))
    counts = np.rint(np.array(SHARES) * 192).astype(int)
    counts[-1] = 192 - counts[:-1].sum()
    symbols = rng.permutation(np.repeat(SPECIES, counts))
    return Atoms(symbols, positions=positions, cell=np.eye(3) * 13.1, pbc=True).repeat(repeat)


def some_potential(level: int, rng: np.random.Generator) -> MTPotential:
    """Random coefficients: the time does not depend on them."""
    potential = untrained(SPECIES, level, cutoff=5.0, min_distance=1.5, rng=rng)
    parameters = potential.parameters.copy()
    parameters[: potential.alpha_moment_mapping.size] = rng.normal(
        0.0, 0.01, potential.alpha_moment_mapping.size
    )
    return potential.with_parameters(parameters)


def lammps_seconds(folder: Path, pair: list[str], steps: int, straight: MTPotential | None = None) -> float:
    """Processor time of the program for a run of `steps` steps, without moving the atoms noticeably."""
    found = find_lammps()
    script = ["units metal", "atom_modify map yes", "read_data bench.data", *pair, "neighbor 1.0 bin"]
    script += ["timestep 1e-9", "fix move all nve", "thermo 1000000", f"run {steps}"]
    (folder / "bench.lammps").write_text("\n".join(script) + "\n")
    environment = found.environment()
    environment["LAMMPS_PLUGIN_PATH"] = str(build_plugin(straight).parent)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(found.program), "-in", "bench.lammps", "-log", "none", "-screen", "none", "-nocite"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lammps_cost(
    folder: Path, pair: list[str], steps: int, atoms: int, straight: MTPotential | None = None
) -> float:
    """Microseconds per atom and step; the start of the program is measured and taken off."""
    seconds = lammps_seconds(folder, pair, steps, straight) - lammps_seconds(folder, pair, 0, straight)
    return 1e6 * seconds / steps / atoms


def python_cost(
    call: Callable[[np.ndarray], object], atoms: Atoms, steps: int, rng: np.random.Generator
) -> float:
    """Microseconds per atom and evaluation while the atoms jitter by 0.002 angstrom."""
    moves = [atoms.positions + rng.normal(0.0, 0.002, atoms.positions.shape) for _ in range(steps)]
    started = time.process_time()
    for positions in moves:
        call(positions)
    return 1e6 * (time.process_time() - started) / steps / len(atoms)


def fit_pod(folder: Path, potential: MTPotential, rng: np.random.Generator) -> list[str]:
    """Pair lines of a POD fitted to three frames that the potential labels."""
    (folder / "frames").mkdir()
    with (folder / "frames" / "frames.xyz").open("w") as stream:
        for _ in range(3):
            atoms = structure(rng)
            found = evaluate(potential, atoms)
            cell = " ".join(f"{value:.10f}" for value in atoms.cell.array.ravel())
            stress = " ".join(f"{value:.8e}" for value in (-found.virial / atoms.get_volume()).ravel())
            head = f'Lattice="{cell}" Properties=species:S:1:pos:R:3:forces:R:3'
            stream.write(f'{len(atoms)}\n{head} energy={found.energy:.8f} stress="{stress}" pbc="T T T"\n')
            for symbol, x, f in zip(atoms.get_chemical_symbols(), atoms.positions, found.forces, strict=True):
                stream.write(f"{symbol} " + " ".join(f"{value:.10f}" for value in (*x, *f)) + "\n")
    (folder / "bench_param.pod").write_text(POD)
    (folder / "bench_fit.pod").write_text(POD_FIT)
    (folder / "fit.lammps").write_text("units metal\nfitpod bench_param.pod bench_fit.pod\n")
    found_lammps = find_lammps()
    command = [str(found_lammps.program), "-in", "fit.lammps", "-log", "none", "-nocite"]
    subprocess.run(command, cwd=folder, env=found_lammps.environment(), check=True, stdout=subprocess.DEVNULL)
    return ["pair_style pod", f"pair_coeff * * bench_param.pod bench_coefficients.pod {' '.join(SPECIES)}"]


def compare(level: int, repeats: int, folder: Path) -> dict[str, float]:
    """Medians of microseconds per atom and step, and of the ratios, over `repeats` turns."""
    import logging

    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    logging.disable(logging.WARNING)
    rng = np.random.default_rng(0)
    potential, atoms = some_potential(level, rng), structure(rng)
    potential.save(folder / "bench.mtp")
    write_data_file(folder / "bench.data", atoms, SPECIES, False)
    plugin = ["pair_style mtp", f"pair_coeff * * bench.mtp {' '.join(SPECIES)}"]
    pod = fit_pod(folder, potential, rng)
    data = read_with_motep(folder / "bench.mtp")
    data.species = [3, 57, 40, 73, 8]
    theirs = atoms.copy()
    theirs.calc = MTP(data)
    evaluator = Evaluator(potential, skin=1.0)
    types = potential.types_of(atoms.get_chemical_symbols())
    cell = atoms.cell.array

    def with_motep(positions: np.ndarray) -> object:
        theirs.positions = positions
        return theirs.get_forces()

    def with_numba(positions: np.ndarray) -> object:
        return evaluator.evaluate(positions, types, cell)

    with_numba(atoms.positions)
    with_motep(atoms.positions)
    few = max(1, 16 // level)
    turns = []
    for _ in range(repeats):
        turns.append(
            [
                python_cost(with_numba, atoms, 60 * few, rng),
                lammps_cost(folder, plugin, 500 * few, len(atoms), potential),
                python_cost(with_motep, atoms, 12 * few, rng),
                lammps_cost(folder, pod, 60, len(atoms)),
                lammps_cost(folder, plugin, 500 * few, len(atoms)),
            ]
        )
    times = np.array(turns)
    numba, in_lammps, motep, pod_time, general = np.median(times, axis=0)
    return {
        "level": level,
        "numba": numba,
        "plugin": in_lammps,
        "general_plugin": general,
        "motep": motep,
        "pod": pod_time,
        "motep_over_numba": float(np.median(times[:, 2] / times[:, 0])),
        "motep_over_plugin": float(np.median(times[:, 2] / times[:, 1])),
        "pod_over_numba": float(np.median(times[:, 3] / times[:, 0])),
        "pod_over_plugin": float(np.median(times[:, 3] / times[:, 1])),
        "general_over_plugin": float(np.median(times[:, 4] / times[:, 1])),
    }


def growth(level: int, folder: Path) -> tuple[list[dict[str, float]], float, float]:
    """Cost by number of atoms, and the exponents of time against atoms (numba, plugin)."""
    rng = np.random.default_rng(1)
    potential = some_potential(level, rng)
    potential.save(folder / "bench.mtp")
    plugin = ["pair_style mtp", f"pair_coeff * * bench.mtp {' '.join(SPECIES)}"]
    rows = []
    for shape in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (4, 4, 3), (4, 4, 4)):
        atoms = structure(np.random.default_rng(2)).repeat(shape)
        write_data_file(folder / "bench.data", atoms, SPECIES, False)
        evaluator = Evaluator(potential, skin=1.0)
        types = potential.types_of(atoms.get_chemical_symbols())
        cell = atoms.cell.array
        evaluator.evaluate(atoms.positions, types, cell)

        def call(
            positions: np.ndarray,
            evaluator: Evaluator = evaluator,
            types: np.ndarray = types,
            cell: np.ndarray = cell,
        ) -> object:
            return evaluator.evaluate(positions, types, cell)

        steps = max(3, 20000 // len(atoms))
        numba = min(python_cost(call, atoms, steps, rng) for _ in range(3))
        in_lammps = min(lammps_cost(folder, plugin, 5 * steps, len(atoms), potential) for _ in range(3))
        rows.append({"atoms": len(atoms), "numba": numba, "plugin": in_lammps})
    logs = np.log([[row["atoms"], row["numba"] * row["atoms"], row["plugin"] * row["atoms"]] for row in rows])
    return (
        rows,
        float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]),
        float(np.polyfit(logs[:, 0], logs[:, 2], 1)[0]),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--level", type=int, nargs="+", default=[8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = []
        for level in options.level:
            folder = Path(name) / str(level)
            folder.mkdir()
            results.append(compare(level, options.repeats, folder))
        rows, numba, plugin = growth(options.level[0], Path(name))
    if options.json:
        print(
            json.dumps({"compare": results, "growth": rows, "exponents": {"numba": numba, "plugin": plugin}})
        )
        return
    print("microseconds per atom and step (processor time, one thread)")
    print(
        "level  numba  plugin  motep    POD  motep/numba  motep/plugin  POD/numba  POD/plugin  general/plugin"
    )
    for row in results:
        print(
            f"{row['level']:>5} {row['numba']:>6.2f} {row['plugin']:>7.2f} {row['motep']:>6.1f} {row['pod']:>6.1f}"
            f" {row['motep_over_numba']:>12.1f} {row['motep_over_plugin']:>13.1f}"
            f" {row['pod_over_numba']:>10.1f} {row['pod_over_plugin']:>11.1f} {row['general_over_plugin']:>15.1f}"
        )
    print("\n atoms  numba  plugin")
    for row in rows:
        print(f"{row['atoms']:>6} {row['numba']:>6.2f} {row['plugin']:>7.2f}")
    print(f"time grows as atoms^{numba:.3f} (numba), atoms^{plugin:.3f} (plugin)")


if __name__ == "__main__":
    main()
