"""A sampling campaign: its settings, the layout of its folder, and the reader of both.

A campaign is one settings record (a TOML file) and one folder. Every seed is an independent chain: its own cell
(dopants, Li), gentle start, pressure equilibration, Monte Carlo swaps, and from there one production run at each
temperature. `atomistic.campaign` runs it, `atomistic build | mcmd | md` are its commands, `atomistic analyse` reads it.

    FOLDER/
      settings.json                 every setting with its default, as JSON; its checksum names the campaign
      potential.mtp                 the potential that ran (or pair_style.json for a LAMMPS pair style)
      potential.core                its repulsive core, where it has one
      build/
        results.json                composition, charge, stoichiometry, boundary search (candidates, energies)
        structure.png               the cell of the first seed
      cells/seed1.extxyz            the cell as built; `atoms.info` as `atomistic.boundaries.build` sets it
      equilibration/seed1/          minimised, heated by Langevin, relaxed at constant pressure
        final.extxyz  thermo.csv  run.json
      mcmd/seed1/                   only with [mcmd]: swaps between bursts of MD
        trajectory.bin              one frame per cycle; swapped atoms have changed places, species stay
        cycles.csv                  per cycle: energy, temperature, attempts and acceptances of each pair
        final.extxyz  run.json
      production/T1000/seed1/       T and the temperature in K, as in "T1000" or "T723.5"
        trajectory.bin              own format (`atomistic.trajectory.open_trajectory`), unwrapped, constant cell in NVT
        thermo.csv                  a row per frame: step, temperature_K, potential_energy_eV, pressure_bar, volume_A3
        final.extxyz  run.json
      results.json                  one entry per run, how each ended; written last

`run.json` is written last in its folder and holds: stage, temperature_K, seed, ensemble, atoms, species (counts),
timestep_fs, frame_interval_ps, time_ps, wanted_ps, stopped (None, "grade", "temperature", "framework", "lost"), grade,
mean_temperature_K, mean_volume_A3, potential_sha256, core_sha256 (with a core), settings_sha256, engine, versions. A
folder `work/` beside it is a run in progress. A run that was stopped keeps its frames: use `Run.complete` to leave it
out.

Lengths in Å, times in ps unless a name says fs, temperatures in K, pressure in bar, energies in eV.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic import settings_files
from atomistic.errors import FileFormatError

if TYPE_CHECKING:
    from ase import Atoms

    from atomistic.mtp.core import RepulsiveCore
    from atomistic.trajectory import TrajectoryFile

VACANCY = "vacancy"
"""The partner of a species in a swap with empty sites."""

Temperature = Annotated[float, Field(gt=0.0, le=20000.0)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchSettings(_Settings):
    """Search for a boundary's termination and rigid shift, as in `atomistic.boundaries.search`.

    keep: candidates of the cheap search; relax: how many of them are relaxed with the potential to rank them, each
    decorated `arrangements` times, to forces below `fmax` (eV/Å).
    """

    terminations: Annotated[int, Field(ge=1, le=20)] = 2
    max_shifts: Annotated[int, Field(ge=1, le=400)] = 36
    gaps: tuple[Annotated[float, Field(ge=-1.0, le=5.0)], ...] = (0.0, 0.5)
    keep: Annotated[int, Field(ge=1, le=100)] = 5
    relax: Annotated[int, Field(ge=0, le=100)] = 3
    arrangements: Annotated[int, Field(ge=1, le=100)] = 1
    fmax: Annotated[float, Field(gt=0.0, le=5.0)] = 0.1
    max_area: Annotated[float, Field(gt=0.0)] = 2500.0
    max_strain: Annotated[float, Field(ge=0.0, le=0.2)] = 0.02


_USED = {
    "boundary": ("boundary", "host", "contents", "min_separation", "min_width", "search"),
    "cif": ("path", "repeat"),
    "file": ("path", "repeat"),
}
"""Keys of [cell] that mean something for a kind; the bulk crystals have contents and repeat."""


class CellSettings(_Settings):
    """[cell]: what is built.

    kind: "llzo", "lstz", "llto" (bulk, `atomistic.cells`), "boundary" (of `host`, named as in
    `atomistic.boundaries`), "cif" (a CIF with partial occupancies) or "file" (any structure ASE reads, last frame).
    contents: the builder's arguments, such as {ta = 0.25} or {order = 0.5}. repeat: copies of the unit cell.
    min_separation, min_width: of the two boundaries and of the cell, Å. path: of "cif", "file"; from the TOML; in that
    of a "file" {seed} stands for the seed.
    per_seed: every seed draws dopants and Li anew; false: all seeds start from the first seed's cell.
    """

    kind: Literal["llzo", "lstz", "llto", "boundary", "cif", "file"]
    contents: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    repeat: tuple[int, int, int] | None = None
    host: Literal["llzo", "lstz", "llto"] = "llzo"
    boundary: str | None = None
    min_separation: Annotated[float, Field(ge=3.0, le=500.0)] = 12.0
    min_width: Annotated[float, Field(gt=0.0, le=200.0)] = 8.0
    max_atoms: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    search: SearchSettings = SearchSettings()
    path: str | None = None
    per_seed: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> CellSettings:
        needed = {"boundary": "boundary", "cif": "path", "file": "path"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"a cell of kind {self.kind!r} needs {needed}")
        if self.repeat is not None and not all(1 <= n <= 100 for n in self.repeat):
            raise ValueError("repeat holds three whole numbers from 1 to 100")
        used = _USED.get(self.kind, ("contents", "repeat"))
        for key in sorted({key for keys in _USED.values() for key in keys} | {"contents"}):
            # Compared with defaults, since the folder's own settings.json states them all.
            if key not in used and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"a cell of kind {self.kind!r} has no {key}; it knows {', '.join(used)}")
        return self


class EquilibrationSettings(_Settings):
    """[equilibration]: minimise, Langevin ramp, then constant pressure until the cell has its size.

    temperature: K; without it that of [mcmd], else the highest of [production]. minimise: before anything moves.
    """

    temperature: Temperature | None = None
    minimise: bool = True
    ramp_ps: Annotated[float, Field(ge=0.0, le=1e4)] = 2.0
    npt_ps: Annotated[float, Field(ge=0.0, le=1e6)] = 10.0
    barostat: Literal["iso", "aniso", "tri"] = "aniso"


class McmdSettings(_Settings):
    """[mcmd]: Monte Carlo swaps at fixed positions between bursts of molecular dynamics, all at one temperature.

    pairs: of species, or of a species and "vacancy": [["Sr", "Li"], ["Li", "vacancy"]]. cycles: bursts; attempts:
    swaps tried before each burst; burst_ps: its length. Each burst starts with velocities drawn at `temperature` and
    runs at constant energy, so that positions sample the canonical distribution. moves: "exchange" gives each atom the
    other's position, "translate" carries each by the vector between their lattice sites, so that it keeps its
    displacement from the site (pairs that stand on other sites exchange). sites: species whose places, with the voids
    like them, are the lattice sites of "vacancy" and "translate"; default: all that are swapped with them.
    """

    pairs: Annotated[tuple[tuple[Symbol, str], ...], Field(min_length=1)]
    temperature: Temperature
    cycles: Annotated[int, Field(ge=1, le=10_000_000)] = 100
    attempts: Annotated[int, Field(ge=1, le=100_000_000)] = 1000
    burst_ps: Annotated[float, Field(gt=0.0, le=1e4)] = 1.0
    moves: Literal["exchange", "translate"] = "exchange"
    sites: tuple[Symbol, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> McmdSettings:
        for first, second in self.pairs:
            if first == second:
                raise ValueError(f"pairs: a swap of {first} with {second} changes nothing")
            if first == VACANCY:
                raise ValueError("pairs: name the species first and 'vacancy' second")
            if second != VACANCY and not (1 <= len(second) <= 2 and second[0].isupper()):
                raise ValueError(f"pairs: {second!r} is neither an element's symbol nor {VACANCY!r}")
        return self


class ProductionSettings(_Settings):
    """[production]: one run per temperature and seed.

    temperatures: K. npt_ps: constant pressure at each temperature first, whose mean cell (second half) the run takes
    in NVT; 0 keeps the cell. ensemble: of the run itself. frame_interval_ps: between stored frames.
    """

    temperatures: tuple[Temperature, ...]
    time_ps: Annotated[float, Field(gt=0.0, le=1e8)] = 200.0
    ramp_ps: Annotated[float, Field(ge=0.0, le=1e4)] = 2.0
    npt_ps: Annotated[float, Field(ge=0.0, le=1e6)] = 10.0
    ensemble: Literal["nvt", "npt", "nve"] = "nvt"
    barostat: Literal["iso", "aniso", "tri"] = "aniso"
    frame_interval_ps: Annotated[float, Field(gt=0.0, le=1e4)] = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> ProductionSettings:
        if not self.temperatures:
            raise ValueError("temperatures: the list is empty; give at least one temperature in K")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures: one stands there twice; use seeds for repeated runs")
        return self


class PairStyle(_Settings):
    """Instead of a moment tensor potential: lines of LAMMPS, `{species}` stands for the symbols; files they read."""

    commands: Annotated[tuple[str, ...], Field(min_length=1)]
    species: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    files: tuple[str, ...] = ()


class CampaignSettings(_Settings):
    """The whole settings record of a campaign.

    potential: name of a shipped one ("llzo-ta-level10"), path of a `.mtp` relative to the TOML, or a PairStyle table.
    core: file of a repulsive core (lines 'Li O inner outer', Å), relative to the TOML; without the key, the `.core`
    beside the potential's `.mtp` where there is one.
    seeds: independent chains. timestep_fs: of all MD; pressure_bar: of all constant pressure.
    grade_limit: end a run above this extrapolation grade, looked at every `grade_every` steps, against the active set
    in `grade` (a file of `atomistic active-set`; shipped potentials bring their labels and need none).
    framework_limit: end a run when the species of `framework` have a mean square displacement above it, Å².
    processes: MPI processes of LAMMPS in every run. segment_ps: time between restart files.
    """

    title: str = ""
    potential: str | PairStyle
    core: str | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=1, le=800_000_000)], ...], Field(min_length=1)] = (1,)
    cell: CellSettings
    equilibration: EquilibrationSettings = EquilibrationSettings()
    mcmd: McmdSettings | None = None
    production: ProductionSettings | None = None
    timestep_fs: Annotated[float, Field(gt=0.0, le=20.0)] = 2.0
    pressure_bar: Annotated[float, Field(ge=-1e7, le=1e7)] = 0.0
    engine: Literal["auto", "plugin", "numba"] = "auto"
    grade: str | None = None
    grade_limit: Annotated[float, Field(gt=0.0)] | None = None
    grade_every: Annotated[int, Field(ge=1)] = 20
    framework: tuple[Symbol, ...] = ()
    framework_limit: Annotated[float, Field(gt=0.0)] | None = None
    processes: Annotated[int, Field(ge=1, le=4096)] = 1
    segment_ps: Annotated[float, Field(gt=0.0)] = 20.0

    @model_validator(mode="after")
    def _consistent(self) -> CampaignSettings:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands there twice")
        if self.grade is not None and self.grade_limit is None:
            raise ValueError("grade: give the grade_limit at which a run ends")
        if bool(self.framework) != (self.framework_limit is not None):
            raise ValueError("framework and framework_limit belong together")
        if self.production is not None:
            if self.production.frame_interval_ps * 1e3 < 0.999 * self.timestep_fs:
                raise ValueError("production.frame_interval_ps: at least one time step")
            if self.production.time_ps < self.production.frame_interval_ps:
                raise ValueError("production.time_ps: at least one frame_interval_ps")
        return self

    @property
    def checksum(self) -> str:
        """SHA-256 of all settings as canonical JSON."""
        values = self.model_dump(mode="json")
        # A key that came later: folders written before it keep their checksum.
        if self.core is None:
            del values["core"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def equilibration_temperature(self) -> float | None:
        """Of [equilibration], else of [mcmd], else the highest of [production]; None without any."""
        if self.equilibration.temperature is not None:
            return self.equilibration.temperature
        if self.mcmd is not None:
            return self.mcmd.temperature
        return None if self.production is None else max(self.production.temperatures)


def validated(values: dict[str, Any], where: str) -> CampaignSettings:
    """Settings from plain values. Raises InputError naming the key of the first value refused, after `where`."""
    return settings_files.validated(CampaignSettings, values, where)


def read_settings(path: str | Path) -> CampaignSettings:
    """Settings of a TOML file. Raises FileFormatError where it is no TOML, InputError for what is not allowed."""
    return validated(settings_files.read_toml(path, "docs/sampling.md"), str(path))


def temperature_name(temperature: float) -> str:
    """Folder of a temperature: "T1000", "T723.5"."""
    return f"T{temperature:.10g}"


@dataclass(frozen=True)
class Run:
    """One production run of a campaign: temperature (K), seed, folder, and its `run.json` (empty while unfinished)."""

    temperature: float
    seed: int
    folder: Path
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run has ended, by itself or stopped."""
        return bool(self.record)

    @property
    def complete(self) -> bool:
        """Whether it ran for all of the time asked for."""
        return self.finished and self.record.get("stopped") is None

    @property
    def trajectory(self) -> Path:
        """File of its frames."""
        return self.folder / "trajectory.bin"

    def open(self) -> TrajectoryFile:
        """Its frames, to be read in chunks or as a whole. Raises FileFormatError where there are none."""
        from atomistic.trajectory import open_trajectory

        return open_trajectory(self.trajectory, format="own")


def read_run(folder: Path) -> dict[str, Any]:
    """The `run.json` of a folder, {} where it has none. Raises FileFormatError where it is damaged."""
    path = folder / "run.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not a table")
    except (OSError, ValueError) as error:
        raise FileFormatError(path, None, f"is damaged ({error})", "remove it and run again") from None
    return record


@dataclass(frozen=True)
class Campaign:
    """A campaign's folder: its settings and what has been run.

    runs: all production runs of the settings, by temperature and then seed, finished or not.
    """

    folder: Path
    settings: CampaignSettings
    runs: tuple[Run, ...]

    @classmethod
    def load(cls, folder: str | Path) -> Campaign:
        """Read a folder. Raises FileFormatError where it is no campaign, InputError for settings not allowed."""
        folder = Path(folder)
        path = folder / "settings.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("not a table")
        except OSError:
            raise FileFormatError(
                folder, None, "holds no settings.json", "give a folder written by atomistic build, mcmd or md"
            ) from None
        except ValueError as error:
            raise FileFormatError(path, None, f"is damaged ({error})", "run the campaign again") from None
        settings = validated(values, str(path))
        temperatures: Sequence[float] = (
            () if settings.production is None else settings.production.temperatures
        )
        runs = []
        for temperature in sorted(temperatures):
            for seed in settings.seeds:
                place = folder / "production" / temperature_name(temperature) / f"seed{seed}"
                runs.append(Run(temperature, seed, place, read_run(place)))
        return cls(folder, settings, tuple(runs))

    def by_temperature(self) -> dict[float, list[Run]]:
        """Complete runs by temperature (K), rising; temperatures without one are left out."""
        found: dict[float, list[Run]] = {}
        for run in self.runs:
            if run.complete:
                found.setdefault(run.temperature, []).append(run)
        return found

    @property
    def potential(self) -> Path:
        """File of the potential that ran."""
        mtp = self.folder / "potential.mtp"
        return mtp if mtp.exists() else self.folder / "pair_style.json"

    @property
    def core(self) -> RepulsiveCore | None:
        """The repulsive core that the potential ran with, or None."""
        from atomistic.mtp.core import RepulsiveCore
        from atomistic.mtp.potential import read_mtp

        if self.potential.suffix != ".mtp":
            return None
        return RepulsiveCore.beside(self.potential, read_mtp(self.potential).species)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the potential's file, and of its core's where it has one."""
        from atomistic.record import file_sha256

        core = self.folder / "potential.core"
        found = {"potential_sha256": file_sha256(self.potential)}
        return found | ({"core_sha256": file_sha256(core)} if core.exists() else {})

    def cell(self, seed: int) -> Atoms:
        """The cell as built for a seed, with `atoms.info`. Raises FileFormatError where it is missing."""
        from atomistic.labels import read_frames

        return read_frames(self.folder / "cells" / f"seed{seed}.extxyz")[-1]

    def equilibrated(self, seed: int) -> Atoms | None:
        """The structure production starts from: after [mcmd], else after [equilibration]; None while unfinished."""
        from atomistic.labels import read_frames

        stage = "equilibration" if self.settings.mcmd is None else "mcmd"
        path = self.folder / stage / f"seed{seed}" / "final.extxyz"
        return read_frames(path)[-1] if path.exists() else None

    def mcmd_trajectory(self, seed: int) -> TrajectoryFile | None:
        """Frames of the Monte Carlo stage, one per cycle; None without it."""
        from atomistic.trajectory import open_trajectory

        path = self.folder / "mcmd" / f"seed{seed}" / "trajectory.bin"
        return open_trajectory(path, format="own", truncated="drop") if path.exists() else None
