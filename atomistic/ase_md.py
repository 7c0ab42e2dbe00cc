"""Molecular dynamics with ASE's integrators, for potentials that exist as ASE calculators only."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atomistic.dynamics import MDResult, MDSettings, StepBar
from atomistic.errors import GeometryError, InputError

if TYPE_CHECKING:
    from ase import Atoms

COLUMNS = (
    "step",
    "temperature_K",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "pressure_bar",
    "volume_A3",
)


def run_ase(atoms: Atoms, calculator: Any, folder: Path, md: MDSettings, progress: bool | None) -> MDResult:
    """The same run as in LAMMPS: minimise, Langevin ramp, then nve (Verlet), nvt (Langevin) or npt (Nose-Hoover chains
    after Martyna, Tobias and Klein, isotropic). Continues a killed run from its last complete segment.

    calculator: any ASE calculator. Raises InputError, GeometryError, and what the calculator raises.
    """
    return _AseRun(atoms, calculator, folder, md).go(progress)


class _AseRun:
    def __init__(self, atoms: Atoms, calculator: Any, folder: Path, md: MDSettings) -> None:
        if not all(hasattr(calculator, name) for name in ("get_property", "calculate")):
            raise InputError("potential", type(calculator).__name__, "an ASE calculator is expected")
        if md.processes > 1:
            raise InputError("processes", md.processes, "ASE integrates in one process")
        if md.ensemble == "npt" and (md.barostat != "iso" or not np.all(atoms.pbc)):
            raise InputError(
                "barostat", md.barostat, "with ASE 'iso' and three periodic directions are allowed"
            )
        if not np.all(np.isfinite(atoms.positions)):
            raise GeometryError("positions hold values that are not finite numbers")
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self.folder, self.md = folder, md
        digest = hashlib.sha256((md.model_dump_json() + type(calculator).__name__).encode())
        digest.update(np.ascontiguousarray(atoms.positions).tobytes() + atoms.numbers.tobytes())
        self.identity = digest.hexdigest()
        self.reference: Any = None

    def go(self, progress: bool | None) -> MDResult:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self._load()
        with StepBar(self.md.steps, state["steps"], f"MD {self.md.temperature:g} K", progress) as bar:
            if state["segments"] == 0:
                self._ramp(state)
            while state["stopped"] is None and (state["steps"] < self.md.steps or state["segments"] == 1):
                self._segment(state, bar)
        return MDResult(
            folder=self.folder,
            trajectory=self.folder / "trajectory.xyz",
            thermo=pd.read_csv(self.folder / "thermo.csv"),
            final=self._final(),
            settings=self.md,
            engine=f"ase:{type(self.atoms.calc).__name__}",
            steps=state["steps"],
            seconds=state["seconds"],
            stopped=state["stopped"],
            stage=state.get("stage", "run"),
        )

    def _final(self) -> Atoms:
        from ase import Atoms

        return Atoms(self.atoms)

    def _load(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        if not path.exists():
            for name in ("trajectory.xyz", "thermo.csv"):
                (self.folder / name).unlink(missing_ok=True)
            return {"identity": self.identity, "segments": 0, "steps": 0, "seconds": 0.0, "stopped": None}
        try:
            state: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                "directory", str(self.folder), f"remove its damaged state.json ({error})"
            ) from None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            raise InputError(
                "directory", str(self.folder), "another run (structure or settings) is there; use a new one"
            )
        self.atoms.set_cell(np.array(state["cell"]))
        self.atoms.positions[:] = np.array(state["positions"])
        self.atoms.set_momenta(np.array(state["momenta"]))
        self.reference = np.array(state["reference"])
        return state

    def _save(self, state: dict[str, Any]) -> None:
        state["positions"] = self.atoms.positions.tolist()
        state["momenta"] = self.atoms.get_momenta().tolist()
        state["cell"] = self.atoms.cell.array.tolist()
        state["reference"] = self.reference.tolist()
        temporary = self.folder / ".state.json.new"
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.folder / "state.json")

    def _rng(self, segment: int) -> Any:
        """The same random numbers for a segment, whether or not the run was killed before it."""
        return np.random.RandomState(np.random.SeedSequence([self.md.seed, segment]).generate_state(4))

    def _ramp(self, state: dict[str, Any]) -> None:
        from ase import units
        from ase.md.langevin import Langevin
        from ase.optimize import FIRE

        md = self.md
        if md.minimise:
            FIRE(self.atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=500)
        if not md.keep_velocities:
            first = md.start_temperature or (min(100.0, md.temperature) if md.ramp_steps else md.temperature)
            masses = self.atoms.get_masses()[:, None]
            momenta = self._rng(0).standard_normal((len(self.atoms), 3)) * np.sqrt(masses * units.kB * first)
            self.atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
            if md.ramp_steps:
                langevin = Langevin(
                    self.atoms,
                    0.5 * md.timestep_fs * units.fs,
                    temperature_K=first,
                    friction=0.02 / units.fs,
                    fixcm=False,
                    rng=self._rng(1),
                )
                for step in range(0, md.ramp_steps, 10):
                    langevin.set_temperature(
                        temperature_K=first + (md.temperature - first) * step / md.ramp_steps
                    )
                    langevin.run(min(10, md.ramp_steps - step))
                    if self._hot():
                        state["stopped"], state["stage"] = "temperature", "ramp"
                        break
        self.reference = self.atoms.positions.copy()
        state["segments"] = 1
        if state["stopped"] is not None:
            self._append(state, [self._row(0)], [self._frame(0)])
        self._save(state)

    def _hot(self) -> bool:
        temperature = self.atoms.get_temperature()
        return not temperature <= self.md.highest_temperature

    def _integrator(self, segment: int) -> Any:
        from ase import units

        md, step = self.md, self.md.timestep_fs * units.fs
        if md.ensemble == "nve":
            from ase.md.verlet import VelocityVerlet

            return VelocityVerlet(self.atoms, step)
        if md.ensemble == "nvt":
            from ase.md.langevin import Langevin

            friction = 1.0 / (md.damping_fs * units.fs)
            return Langevin(
                self.atoms,
                step,
                temperature_K=md.temperature,
                friction=friction,
                fixcm=False,
                rng=self._rng(segment + 1),
            )
        from ase.md.nose_hoover_chain import IsotropicMTKNPT

        return IsotropicMTKNPT(
            self.atoms,
            step,
            temperature_K=md.temperature,
            pressure_au=md.pressure_bar * 1e5 * units.Pascal,
            tdamp=md.damping_fs * units.fs,
            pdamp=md.barostat_damping_fs * units.fs,
        )

    def _row(self, step: int) -> list[float]:
        from ase import units

        potential = float(self.atoms.get_potential_energy())
        kinetic = float(self.atoms.get_kinetic_energy())
        volume = float(self.atoms.get_volume()) if self.atoms.cell.rank == 3 else float("nan")
        pressure = float("nan")
        if "stress" in getattr(self.atoms.calc, "implemented_properties", ()) and np.all(self.atoms.pbc):
            stress = self.atoms.get_stress(voigt=True, include_ideal_gas=True)
            pressure = float(-stress[:3].mean() / units.Pascal / 1e5)
        temperature = float(self.atoms.get_temperature())
        return [step, temperature, potential, kinetic, potential + kinetic, pressure, volume]

    def _frame(self, step: int) -> str:
        cell = " ".join(repr(float(v)) for v in self.atoms.cell.array.ravel())
        periodic = " ".join("T" if p else "F" for p in self.atoms.pbc)
        time_ps = step * self.md.timestep_fs * 1e-3
        head = f'Lattice="{cell}" Properties=species:S:1:pos:R:3 step={step} time_ps={time_ps!r} pbc="{periodic}"'
        lines = [
            f"{symbol} {x:.10g} {y:.10g} {z:.10g}"
            for symbol, (x, y, z) in zip(self.atoms.get_chemical_symbols(), self.atoms.positions, strict=True)
        ]
        return "\n".join([str(len(lines)), head, *lines, ""])

    def _segment(self, state: dict[str, Any], bar: StepBar) -> None:
        md = self.md
        begin = state["steps"]
        end = min(md.steps, begin + md.segment_steps)
        integrator = self._integrator(state["segments"])
        rows, frames = ([self._row(0)], [self._frame(0)]) if begin == 0 else ([], [])
        started = time.perf_counter()
        step = begin
        while step < end and state["stopped"] is None:
            # The next step at which anything is recorded or checked.
            count = min(every - step % every for every in (md.dump_every, md.thermo_every, 10))
            count = min(count, end - step)
            integrator.run(count)
            step += count
            if step % md.thermo_every == 0:
                rows.append(self._row(step))
            if step % md.dump_every == 0:
                frames.append(self._frame(step))
            if self._hot():
                state["stopped"] = "temperature"
            elif self._loose():
                state["stopped"] = "framework"
            bar.update(step)
        state["seconds"] += time.perf_counter() - started
        self._append(state, rows, frames)
        state["steps"], state["segments"] = step, state["segments"] + 1
        self._save(state)

    def _loose(self) -> bool:
        if self.md.framework_limit is None:
            return False
        chosen = np.isin(self.atoms.get_chemical_symbols(), self.md.framework)
        moved = (self.atoms.positions - self.reference)[chosen]
        moved = moved - moved.mean(axis=0) if len(moved) else moved
        return bool(len(moved) and (moved**2).sum(axis=1).mean() > self.md.framework_limit)

    def _append(self, state: dict[str, Any], rows: list[list[float]], frames: list[str]) -> None:
        table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype({"step": int})
        new = state["steps"] == 0
        texts = {"trajectory.xyz": "".join(frames), "thermo.csv": table.to_csv(index=False, header=new)}
        for name, text in texts.items():
            path = self.folder / name
            if path.exists():
                os.truncate(path, int(state.get(name, 0)))
            with path.open("ab") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
                state[name] = stream.tell()
