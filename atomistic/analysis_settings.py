"""Settings of an analysis, and where its trajectories come from: a campaign's folder or files of any other program.

A settings file is TOML. Quantities carry their unit in the key (`time_step_fs`, `temperature_K`, `width_A`), so that no
number can be misread; a key without its unit is refused with the right one named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic.boundary_planes import BoundaryPlanes, cell_height
from atomistic.coincidence import BoundarySpec
from atomistic.errors import InputError, TrajectoryError
from atomistic.sampling import Campaign
from atomistic.settings_files import read_toml, validated
from atomistic.trajectory import TrajectoryFile, open_trajectory, save_trajectory

Kelvin = Annotated[float, Field(gt=0.0, le=20000.0)]
Symbol = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]
WidthRule = Literal["auto", "spacings", "density", "composition", "coordination"]

LEAST_DENSITY, MOST_DENSITY = 0.003, 1.0
"""Atoms per Å³ between which a file's lengths are believed to be Å; solids have 0.02 to 0.2."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSettings(_Settings):
    """[[runs]]: one external trajectory.

    file: relative to the TOML. temperature_K: of the run. seed: tells runs of one temperature apart. time_step_fs:
    per MD step, for files that number their steps; frame_interval_ps: between frames, for files that do not. species:
    elements of the LAMMPS types, in their order. format: "auto", "dump", "extxyz", "xdatcar" or "own". truncated:
    "drop" reads the whole frames of a file that was cut.
    """

    file: str
    temperature_K: Kelvin
    seed: Annotated[int, Field(ge=0)] = 1
    time_step_fs: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    frame_interval_ps: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    species: tuple[Symbol, ...] = ()
    format: Literal["auto", "dump", "extxyz", "xdatcar", "own"] = "auto"
    truncated: Literal["error", "drop"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> RunSettings:
        if self.time_step_fs is not None and self.frame_interval_ps is not None:
            raise ValueError(
                "give time_step_fs for files that number their steps, else frame_interval_ps, not both"
            )
        return self


class BoundarySettings(_Settings):
    """[boundary]: where the boundaries are and how their layers are cut.

    axis: cell vector across them (0, 1, 2). planes: fractions of it; without them those noted in the campaign's cells,
    else `n_planes` are looked for in the trajectories. width_A: of the layers; without it by `width_rule` ("auto": the
    papers' plane spacings where `name` and `lattice_constant_A` are known, else density, composition, coordination, the
    first that finds one). slab_A: thickness of the slabs in which D is given by distance. separate: each boundary for
    itself. name: as in "Sigma5[100](01-2)".
    """

    axis: Literal[0, 1, 2] = 2
    planes: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = ()
    n_planes: Annotated[int, Field(ge=1, le=4)] = 2
    width_A: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    width_rule: WidthRule = "auto"
    slab_A: Annotated[float, Field(ge=1.0, le=1000.0)] = 4.0
    separate: bool = False
    name: str | None = None
    lattice_constant_A: Annotated[float, Field(gt=1.0, le=100.0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> BoundarySettings:
        if len({fraction % 1.0 for fraction in self.planes}) < len(self.planes):
            raise ValueError("planes: one stands there twice")
        return self


class SegregationSettings(_Settings):
    """[[segregation]]: energy of `solute` from its occupancies. sites: how many sites each counted atom stands for.

    runs: "mcmd", those of the campaign's Monte Carlo stage, or "production", at each temperature. discard: the first
    part of each that is left out.
    """

    solute: Symbol
    sites: Annotated[dict[Symbol, float], Field(min_length=1)]
    runs: Literal["mcmd", "production"] = "production"
    discard: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2


class RestSettings(_Settings):
    """[rest]: energies of defects on single sites, of a campaign's boundary cell with its potential.

    swaps: pairs [solute, host]; vacancies: of the mobile ion. max_sites: tried, spread over the distance from the
    planes. fmax: force (eV/Å) to which the cell is relaxed before and each defect after; 0: nothing moves. steps: at
    most. seed: of the chain whose equilibrated cell is taken.
    """

    swaps: tuple[tuple[Symbol, Symbol], ...] = ()
    vacancies: bool = False
    max_sites: Annotated[int, Field(ge=2, le=100_000)] = 24
    fmax: Annotated[float, Field(ge=0.0, le=5.0)] = 0.1
    steps: Annotated[int, Field(ge=1, le=100_000)] = 300
    seed: Annotated[int, Field(ge=1)] | None = None


class OrderSettings(_Settings):
    """[order]: A-site order of a perovskite, S of `heavy` on alternate layers along `axis`."""

    heavy: Symbol = "Sr"
    b_sites: Annotated[tuple[Symbol, ...], Field(min_length=1)] = ("Ta", "Zr")
    axis: Literal[0, 1, 2] = 2


class AnalysisSettings(_Settings):
    """Everything an analysis depends on but the trajectories.

    mobile: the diffusing species. framework: those that must stay (default: the other cations); a run whose framework
    moved by a mean square of more than framework_limit_A2 is left out (2 Å²: one cation in seven on another's place; 0:
    none is). site_distance_A: ions that move less do not diffuse. discard_ps: left out at each
    run's start. start_time_ps: where the linear part of the MSD begins (default: found). extrapolate_K: temperatures at
    which D is wanted, 300 K unless given; giving them asks for an activation energy, hence for two temperatures.
    structure_frames: at most so many frames per run for profiles, g(r) and density. structure_temperature_K: of those
    runs (default: the lowest). rdf: pairs (default: mobile with itself and with O or the commonest other species).
    sites: sites open to the mobile ion that each counted atom stands for, negative for atoms that stand on such sites
    themselves (La = -1 beside Ti = 1 on the A sites of LLTO); needed for a record. lengths: "angstrom"
    confirms an unusual number density. seed: of the Arrhenius test. record: carried for `atomistic record`.
    """

    title: str = ""
    mobile: Symbol = "Li"
    framework: tuple[Symbol, ...] = ()
    framework_limit_A2: Annotated[float, Field(ge=0.0)] = 2.0
    site_distance_A: Annotated[float, Field(gt=0.0, lt=100.0)] = 2.0
    discard_ps: Annotated[float, Field(ge=0.0)] = 0.0
    start_time_ps: Annotated[float, Field(gt=0.0)] | None = None
    extrapolate_K: tuple[Kelvin, ...] | None = None
    structure_frames: Annotated[int, Field(ge=10, le=100_000)] = 200
    structure_temperature_K: Kelvin | None = None
    bin_width_A: Annotated[float, Field(gt=0.0, le=50.0)] = 0.5
    rdf: tuple[tuple[Symbol, Symbol], ...] = ()
    rdf_range_A: Annotated[float, Field(gt=0.5, lt=50.0)] = 6.0
    sites: dict[Symbol, Annotated[float, Field(ge=-1000.0, le=1000.0, allow_inf_nan=False)]] = {}
    lengths: Literal["angstrom"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    boundary: BoundarySettings | None = None
    segregation: tuple[SegregationSettings, ...] = ()
    order: OrderSettings | None = None
    rest: RestSettings | None = None
    runs: tuple[RunSettings, ...] = ()
    record: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> AnalysisSettings:
        names = [(run.temperature_K, run.seed) for run in self.runs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two runs have {twice[0]:g} K and seed {twice[1]}; give each its own seed")
        if self.sites and max(self.sites.values()) <= 0:
            raise ValueError(f"sites: {self.sites} makes no site; one number at least is above zero")
        if self.segregation and self.boundary is None and self.runs:
            raise ValueError("segregation needs a [boundary]")
        if self.rest is not None and self.runs:
            raise ValueError("rest needs a campaign's boundary cell and its potential")
        return self


def read_analysis_settings(path: str | Path) -> AnalysisSettings:
    """Settings of a TOML file.

    Raises FileFormatError where it is no TOML, InputError naming the key, the value and what is allowed.
    """
    path = Path(path)
    return settings_from(read_toml(path, "docs/chain.md"), path.name)


def settings_from(values: Mapping[str, Any], where: str) -> AnalysisSettings:
    """Settings from plain values. Raises InputError for the first that is refused."""
    return validated(AnalysisSettings, values, where)


@dataclass(frozen=True)
class SourceRun:
    """One run to analyse: K, seed, its frames, the name of its file, the planes noted for it (None: none).

    cut: the file ended within a frame, and the whole frames before are used.
    """

    temperature: float
    seed: int
    source: TrajectoryFile
    file: str
    planes: BoundaryPlanes | None = None
    cut: bool = False

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return f"{self.temperature:g} K, seed {self.seed}"


@dataclass(frozen=True)
class Sources:
    """All runs of an analysis and what is known of their origin.

    campaign: None for external trajectories. boundary: of a boundary cell, where it is named. potential: file.
    """

    runs: tuple[SourceRun, ...]
    settings: AnalysisSettings
    campaign: Campaign | None = None
    boundary: BoundarySpec | None = None
    potential: Path | None = None
    left_out: tuple[str, ...] = ()


def open_sources(
    place: str | Path, settings: AnalysisSettings | None = None, *, scratch: Path | None = None
) -> Sources:
    """The runs of a campaign's folder (with `settings`), or of a TOML file with [[runs]].

    scratch: a folder for copies of external text files in the own format, which is read 25 times as fast, and several
    times; without it the first frame of each is read. Raises InputError, FileFormatError or TrajectoryError.
    """
    place = Path(place)
    if place.is_dir():
        return _campaign_sources(place, AnalysisSettings() if settings is None else settings)
    if settings is not None:
        raise InputError("settings", str(place), "a settings file beside a campaign's folder only")
    settings = read_analysis_settings(place)
    if not settings.runs:
        raise InputError(
            f"{place.name}: runs", [], "give [[runs]] with file and temperature_K, or a campaign's folder"
        )
    runs = tuple(
        _external(
            run,
            place.parent,
            settings,
            f"{place.name}: runs.{k}",
            None if scratch is None else scratch / f"{k}.bin",
        )
        for k, run in enumerate(settings.runs)
    )
    species = {tuple(sorted(set(run.source.species))) for run in runs}
    if len(species) > 1:
        raise TrajectoryError(
            f"the runs hold different species: {' and '.join('-'.join(s) for s in sorted(species))}; analyse each apart"
        )
    name = settings.boundary.name if settings.boundary is not None else None
    ordered = tuple(sorted(runs, key=lambda run: (run.temperature, run.seed)))
    return Sources(ordered, settings, boundary=None if name is None else BoundarySpec.parse(name))


def _external(
    run: RunSettings, folder: Path, settings: AnalysisSettings, where: str, copy: Path | None
) -> SourceRun:
    path = Path(run.file) if Path(run.file).is_absolute() else folder / run.file
    source = open_trajectory(
        path,
        format=run.format,
        time_step=None if run.time_step_fs is None else run.time_step_fs * 1e-3,
        frame_interval=run.frame_interval_ps,
        species=list(run.species) or None,
        mobile=(settings.mobile,),
        truncated=run.truncated,
    )
    first = next(source.chunks(1))
    density = first.n_atoms / abs(float(np.linalg.det(first.cells[0])))
    if not LEAST_DENSITY < density < MOST_DENSITY and settings.lengths is None:
        raise InputError(
            f"{where}.file",
            run.file,
            f"it holds {density:.2g} atoms per cubic angstrom: convert its lengths to angstrom (metal or real units of "
            'LAMMPS), or confirm them with lengths = "angstrom"',
        )
    planes = None
    if settings.boundary is not None and settings.boundary.planes:
        planes = _given_planes(settings.boundary, first.cells[0])
    cut = False
    if copy is not None and source.kind != "own":
        save_trajectory(source, copy)
        cut = bool(source.truncated)
        source = open_trajectory(copy, format="own")
    return SourceRun(run.temperature_K, run.seed, source, run.file, planes, cut)


def _given_planes(boundary: BoundarySettings, cell: np.ndarray) -> BoundaryPlanes:
    return BoundaryPlanes(boundary.axis, boundary.planes, cell_height(cell, boundary.axis))


def _campaign_sources(folder: Path, settings: AnalysisSettings) -> Sources:
    if settings.runs:
        raise InputError(
            "runs", len(settings.runs), "a campaign's folder has its own runs: leave [[runs]] out"
        )
    campaign = Campaign.load(folder)
    cell = campaign.settings.cell
    spec = None
    if cell.kind == "boundary":
        spec = BoundarySpec.parse(cell.boundary or "")
        if settings.boundary is None:
            settings = settings.model_copy(update={"boundary": BoundarySettings(name=cell.boundary)})
    runs = []
    for run in campaign.runs:
        if not run.complete:
            continue
        source = run.open()
        planes = None
        if settings.boundary is not None:
            first = next(source.chunks(1))
            if settings.boundary.planes:
                planes = _given_planes(settings.boundary, first.cells[0])
            elif cell.kind == "boundary":
                planes = noted_planes(
                    campaign, run.seed, source, (settings.mobile, *swapped_species(campaign))
                )
        runs.append(
            SourceRun(run.temperature, run.seed, source, str(run.trajectory.relative_to(folder)), planes)
        )
    left_out = tuple(
        f"{run.temperature:g} K, seed {run.seed}: "
        + (f"stopped by {run.record['stopped']}" if run.finished else "not finished")
        for run in campaign.runs
        if not run.complete
    )
    if not runs:
        raise TrajectoryError(
            f"{folder} holds no complete production run ({'; '.join(left_out) or 'none was asked for'})"
        )
    return Sources(tuple(runs), settings, campaign, spec, campaign.potential, left_out)


def swapped_species(campaign: Campaign) -> tuple[str, ...]:
    """Species that Monte Carlo moved: they do not tell how the framework drifted."""
    stage = campaign.settings.mcmd
    return () if stage is None else tuple({s for pair in stage.pairs for s in pair})


def noted_planes(
    campaign: Campaign, seed: int, source: TrajectoryFile, mobile: tuple[str, ...] = ("Li",)
) -> BoundaryPlanes:
    """The planes of the built cell, moved with the mean shift of its framework until the run's first frame."""
    first = next(source.chunks(1))
    return moved_planes(campaign, seed, first.atoms(0), mobile)


def moved_planes(campaign: Campaign, seed: int, atoms: Atoms, mobile: tuple[str, ...]) -> BoundaryPlanes:
    """The planes of the built cell in a later structure of the same chain, moved with the mean of its framework."""
    built = campaign.cell(seed)
    planes = BoundaryPlanes.from_cell(built)
    if built.get_chemical_symbols() != atoms.get_chemical_symbols():
        raise TrajectoryError(f"the atoms of seed {seed} are not in the order of its built cell")
    steady = np.array([symbol not in mobile for symbol in built.get_chemical_symbols()])
    now = atoms.get_scaled_positions(wrap=False)[steady, planes.axis]
    then = built.get_scaled_positions(wrap=False)[steady, planes.axis]
    moved = now - then
    moved -= np.rint(moved)
    shift = float(np.mean(moved))
    height = cell_height(atoms.cell.array, planes.axis)
    return BoundaryPlanes(planes.axis, tuple(f + shift for f in planes.fractions), height)
