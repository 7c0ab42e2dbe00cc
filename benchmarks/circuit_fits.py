"""Circuit fits: this project beside impedance.py and pyimpspec on the same spectra, from the same start.

    python benchmarks/circuit_fits.py [--draws 5] [--out FILE]

Synthetic spectra, 10 MHz to 1 Hz, 71 points, 100 ohm + 1 kohm‖C + 5 kohm‖CPE: noise-free and with 0.5 % noise, every
start a factor 2 below the truth (n at 0.8). Measured spectra of ../shared/reference/eis (or MESOION_REFERENCE) where
they are: (RQ)(RQ)Q, every start the same rough guess; there the error is the root mean square of the relative residual.
Times are processor times of the fit call alone; one thread. impedance.py is run as it comes and with weight_by_modulus;
pyimpspec with its default (its own choice of method and weight, "auto") and with least squares and modulus weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np

from mesoion.impedance.circuit_fit import fit_circuit
from mesoion.impedance.circuits import CPE, C, R
from mesoion.impedance.readers import read_measurements

Fitter = Callable[[np.ndarray, np.ndarray, str, list[float]], np.ndarray]
KINDS = {"(RC)(RQ)": "R-(RC)-(RQ)", "(RQ)(RQ)Q": "(RQ)-(RQ)-Q"}


def ours(f: np.ndarray, z: np.ndarray, kind: str, start: list[float]) -> np.ndarray:
    """One start."""
    from mesoion.impedance.circuit_notation import parse_circuit

    return fit_circuit(f, z, parse_circuit(KINDS[kind]).with_values(start), starts=1).circuit.values


def impedance_py(modulus: bool) -> Fitter:
    """impedance.py, as it comes or weighted by the modulus."""
    from impedance.models.circuits import CustomCircuit

    strings = {"(RC)(RQ)": "R0-p(R1,C1)-p(R2,CPE1)", "(RQ)(RQ)Q": "p(R1,CPE1)-p(R2,CPE2)-CPE3"}

    def fit(f: np.ndarray, z: np.ndarray, kind: str, start: list[float]) -> np.ndarray:
        circuit = CustomCircuit(strings[kind], initial_guess=start)
        circuit.fit(f, z, weight_by_modulus=modulus)
        return np.asarray(circuit.parameters_)

    return fit


def pyimpspec_fit(**options: Any) -> Fitter:
    """pyimpspec, its free choice of methods and weights or the ones given."""
    import pyimpspec

    def fit(f: np.ndarray, z: np.ndarray, kind: str, start: list[float]) -> np.ndarray:
        if kind == "(RC)(RQ)":
            r0, r1, c, r2, q, n = start
            cdc = f"R{{R={r0}}}(R{{R={r1}}}C{{C={c}}})(R{{R={r2}}}Q{{Y={q},n={n}}})"
        else:
            pairs = [f"Q{{Y={q},n={n}}}" for q, n in ((start[1], start[2]), (start[4], start[5]), start[6:])]
            cdc = f"(R{{R={start[0]}}}{pairs[0]})(R{{R={start[3]}}}{pairs[1]}){pairs[2]}"
        circuit = pyimpspec.parse_cdc(cdc)
        data = pyimpspec.DataSet(f, z)
        result = pyimpspec.fit_circuit(circuit, data, num_procs=1, **options)
        return np.array([v for e in result.circuit.get_elements() for v in e.get_values().values()])

    return fit


def fitters() -> dict[str, Fitter]:
    """Every program, by name."""
    return {
        "mesoion": ours,
        "impedance.py": impedance_py(False),
        "impedance.py, modulus": impedance_py(True),
        "pyimpspec, auto": pyimpspec_fit(),
        "pyimpspec, least squares, modulus": pyimpspec_fit(method="least_squares", weight="modulus"),
    }


def synthetic(draws: int) -> list[dict[str, Any]]:
    """Error of C on synthetic spectra."""
    f, rows = np.logspace(7, 0, 71), []
    for capacitance in (5e-11, 5e-12):
        truth = R(100.0) + (R(1e3) | C(capacitance)) + (R(5e3) | CPE(1e-8, 0.9))
        start = [*(truth.values[:-1] / 2).tolist(), 0.8]
        for noise, count in ((0.0, 1), (0.005, draws)):
            rng = np.random.default_rng(1)
            spectra = []
            for _ in range(count):
                z = truth.impedance(f)
                spectra.append(z + noise * np.abs(z) * (rng.normal(size=71) + 1j * rng.normal(size=71)))
            for name, fit in fitters().items():
                errors, times = [], []
                for z in spectra:
                    begun = time.process_time()
                    found = fit(f, z, "(RC)(RQ)", start)
                    times.append(time.process_time() - begun)
                    errors.append(abs(float(found[2]) / capacitance - 1))
                rows.append(
                    {
                        "spectrum": f"C = {capacitance:g} F, noise {100 * noise:g} %",
                        "program": name,
                        "error": float(np.median(errors)),
                        "largest": float(np.max(errors)),
                        "seconds": float(np.median(times)),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def measured(folder: Path) -> list[dict[str, Any]]:
    """Misfit on measured spectra, from one rough guess each."""
    rows = []
    guesses = {
        "lagp_two_arcs.txt": [3e4, 1e-10, 0.9, 3e4, 1e-8, 0.9, 1e-6, 0.9],
        "s04147_180C.txt": [1e5, 1e-10, 0.9, 1e5, 1e-9, 0.9, 1e-6, 0.6],
    }
    from mesoion.impedance.circuit_notation import parse_circuit

    model = parse_circuit(KINDS["(RQ)(RQ)Q"])
    for file, start in guesses.items():
        (m,) = read_measurements(folder / file)
        for name, fit in fitters().items():
            begun = time.process_time()
            found = fit(m.frequency, m.impedance, "(RQ)(RQ)Q", start)
            seconds = time.process_time() - begun
            residual = (model.impedance(m.frequency, found) - m.impedance) / np.abs(m.impedance)
            error = float(np.sqrt(np.mean(np.abs(residual) ** 2) / 2))
            rows.append(
                {"spectrum": file, "program": name, "error": error, "largest": error, "seconds": seconds}
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run, print as a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = synthetic(given.draws)
    folder = Path(os.environ.get("MESOION_REFERENCE", "../shared/reference")) / "eis"
    if folder.is_dir():
        rows += measured(folder)
    versions = {name: version(name) for name in ("impedance", "pyimpspec", "lmfit", "scipy", "numpy")}
    print("\n| spectrum | program | error, median | error, largest | seconds |\n|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['spectrum']} | {r['program']} | {r['error']:.2g} | {r['largest']:.2g} | {r['seconds']:.2g} |"
        )
    print(versions)
    if given.out:
        given.out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
