"""From the runs of a campaign, or external trajectories, to everything a transport record is made of.

Each run is streamed once for its ions and, at most `structure_frames` of its frames, for profiles, g(r) and density;
only the ions' paths of one run are held in memory. Diffusivities come run by run and region by region; what cannot be
had from a run (too short, no jumps) is left out and said, and is an error only where no run is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from importlib import metadata
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomistic.analysis_results import (
    WHOLE,
    AnalysisResults,
    AnisotropyRow,
    ArrheniusRow,
    DiffusivityRow,
    EstimateRow,
    HavenRow,
    Kind,
    RunRow,
)
from atomistic.analysis_settings import AnalysisSettings, SourceRun, Sources
from atomistic.analysis_structure import Structure
from atomistic.arrhenius_fit import ArrheniusFit
from atomistic.boundary_analysis import Profile
from atomistic.boundary_planes import BoundaryPlanes, cell_height
from atomistic.boundary_width import Width
from atomistic.defect_energies import SiteEnergies
from atomistic.diffusivity import Diffusivity, TransportResult, combine, diffusivity
from atomistic.displacements import MeanSquareDisplacement
from atomistic.errors import AtomisticError, InputError, TrajectoryError
from atomistic.framework import framework_displacement, framework_species
from atomistic.local_structure import DensityGrid, RadialDistribution
from atomistic.progress import track
from atomistic.record import arrhenius_of_runs, file_sha256, haven_ratio, settings_sha256
from atomistic.regional_diffusivity import Layers, regional_diffusivity
from atomistic.trajectory import TrajectorySource

Floats = NDArray[np.float64]

EXTRAPOLATED_K = (300.0,)


@dataclass(frozen=True, eq=False)
class IonPaths:
    """Unwrapped paths of the mobile ions of one run in its mean cell.

    positions: (frames, ions, 3) Å. drift: (frames, 3) Å of the other atoms, None without any. interval: ps.
    cell: (3, 3) Å, mean. atoms: of the whole cell.
    """

    positions: Floats
    drift: Floats | None
    interval: float
    cell: Floats
    atoms: int


def ion_paths(source: TrajectorySource, mobile: str, discard: float = 0.0) -> IonPaths:
    """Stream a run and keep the paths of its mobile ions, `discard` ps at the start left out.

    Raises TrajectoryError without such ions, where species are exchanged, for uneven frames, or too few of them.
    """
    pieces, steady_path, cells, times = [], [], [], []
    species: tuple[str, ...] = ()
    for chunk in source.chunks(256):
        if chunk.exchanged is not None:
            raise TrajectoryError("species are exchanged in this run: Monte Carlo moves are no diffusion")
        species = chunk.species
        moving = chunk.indices(mobile)
        steady = np.setdiff1d(np.arange(chunk.n_atoms), moving)
        inverse = np.linalg.inv(chunk.cells)
        pieces.append(chunk.positions[:, moving] @ inverse)
        if len(steady):
            steady_path.append((chunk.positions[:, steady].mean(axis=1, keepdims=True) @ inverse)[:, 0])
        cells.append(chunk.cells)
        times.append(chunk.times)
    time = np.concatenate(times)
    first = int(np.searchsorted(time, time[0] + discard - 1e-9)) if discard > 0 else 0
    if len(time) - first < 8:
        raise TrajectoryError(
            f"{len(time) - first} frames are left after {discard:g} ps; a diffusivity needs at least 8"
        )
    steps = np.diff(time[first:])
    interval = float(time[-1] - time[first]) / len(steps)
    if np.any(np.abs(steps - interval) > 1e-5 * interval):
        frame = first + 1 + int(np.argmax(np.abs(steps - interval) > 1e-5 * interval))
        raise TrajectoryError(
            f"frame {frame} does not follow after {interval:g} ps: frames are missing or uneven"
        )
    cell = np.concatenate(cells)[first:].mean(axis=0)
    drift = None
    if steady_path:
        path = np.concatenate(steady_path)[first:]
        drift = (path - path[0]) @ cell
    return IonPaths(np.concatenate(pieces)[first:] @ cell, drift, interval, cell, len(species))


def plane_directions(cell: Floats, axis: int) -> Floats:
    """Orthonormal rows: two in the plane of the cell's two other vectors, and its normal."""
    first, second = (cell[k] for k in ((axis + 1) % 3, (axis + 2) % 3))
    normal = np.cross(first, second)
    along = first / np.linalg.norm(first)
    normal = normal / np.linalg.norm(normal)
    return np.array([along, np.cross(normal, along), normal])


@dataclass(eq=False)
class Analysis:
    """Results and what the figures are drawn from: by temperature and seed, or of the structure's runs."""

    results: AnalysisResults
    msd: dict[tuple[float, int], MeanSquareDisplacement] = field(default_factory=dict)
    fits: dict[tuple[str, str, str], ArrheniusFit] = field(default_factory=dict)
    profile: Profile | None = None
    width: Width | None = None
    radial: list[tuple[str, RadialDistribution]] = field(default_factory=list)
    density: DensityGrid | None = None
    structure: Atoms | None = None
    planes: BoundaryPlanes | None = None
    site_energies: list[tuple[str, SiteEnergies]] = field(default_factory=list)


class _Collector:
    """What the runs gave, and what they did not."""

    def __init__(self) -> None:
        self.rows: list[DiffusivityRow] = []
        self.haven: list[HavenRow] = []
        self.transport: list[TransportResult] = []
        self.runs: list[RunRow] = []
        self.warnings: list[str] = []
        self.failures: dict[str, list[AtomisticError]] = {}

    def attempt(self, what: str, run: SourceRun, action: Callable[[], None]) -> None:
        """Do it, or note why not."""
        try:
            action()
        except TrajectoryError as error:
            self.failures.setdefault(what, []).append(TrajectoryError(f"{run.name} ({run.file}): {error}"))
            self.warnings.append(f"{run.name}: no {what}: {error}")

    def demand(self, what: str, number: int) -> None:
        """Raise the first reason where none of `number` runs gave it."""
        failed = self.failures.get(what, [])
        if failed and len(failed) >= number:
            raise failed[0]


def analyse(sources: Sources, *, show: bool | None = None) -> Analysis:
    """Everything the runs tell about transport, boundary and structure.

    show: a progress bar (None: on a terminal). The same runs and settings give the same results. Raises TrajectoryError
    where no run gives a diffusivity or a region is without ions, InputError where an activation energy is asked for
    (`extrapolate_K` given) and there is one temperature.
    """
    sources = _with_whole_framework(sources)
    settings = sources.settings
    temperatures = sorted({run.temperature for run in sources.runs})
    if settings.extrapolate_K and len(temperatures) < 2:
        raise InputError(
            "extrapolate_K",
            list(settings.extrapolate_K),
            f"all runs are at {temperatures[0]:g} K: an activation energy needs at least two temperatures",
        )
    found = _Collector()
    found.warnings += [f"left out: {reason}" for reason in sources.left_out]
    found.warnings += [
        f"{run.file}: it ends within a frame; those before are used" for run in sources.runs if run.cut
    ]
    structure = Structure(sources)
    msd: dict[tuple[float, int], MeanSquareDisplacement] = {}
    for run in track(sources.runs, "runs", show=show):
        paths = _paths(run, settings)
        _note_run(found, run, paths)
        found.attempt("diffusivity", run, partial(_whole, found, msd, run, paths, structure))
        if structure.width is not None:
            for what, layers in (
                ("diffusivity by region", structure.layers(run)),
                ("diffusivity by distance", structure.slabs(run)),
            ):
                found.attempt(what, run, partial(_by_layers, found, run, paths, structure, layers))
    found.demand("diffusivity", len(sources.runs))
    found.demand("diffusivity by region", len(sources.runs))
    return _assembled(sources, found, structure, msd)


def _with_whole_framework(sources: Sources) -> Sources:
    """Without the runs whose framework melted or came apart. Raises TrajectoryError where none is left."""
    settings = sources.settings
    limit = settings.framework_limit_A2
    kept, lost = [], []
    swapped = _moved_in_swaps(sources) if limit > 0 else {}
    for run in sources.runs if limit > 0 else ():
        if swapped.get(run.seed, 0.0) > limit:
            lost.append(
                f"{run.name}: the framework of its cell moved by a mean square of {swapped[run.seed]:.3g} Å² "
                f"during the Monte Carlo swaps, beyond {limit:g} Å²: swap at a lower temperature"
            )
            continue
        species = settings.framework or framework_species(run.source.species, settings.mobile)
        if not species or settings.mobile not in run.source.species:
            kept.append(run)
            continue
        try:
            moved = framework_displacement(run.source, species, settings.discard_ps)
        except TrajectoryError as error:
            if run.file in str(error):
                raise
            raise TrajectoryError(f"{run.file} ({run.name}): {error}") from None
        if moved <= limit:
            kept.append(run)
        else:
            lost.append(
                f"{run.name}: its framework ({', '.join(species)}) moved by a mean square of {moved:.3g} Å², beyond "
                f"{limit:g} Å²: it melted or came apart"
            )
    if limit <= 0:
        return sources
    if not kept:
        raise TrajectoryError(
            f"no run is left: {'; '.join(lost)}. Run at lower temperatures, or raise framework_limit_A2"
        )
    return replace(sources, runs=tuple(kept), left_out=(*sources.left_out, *lost))


def _moved_in_swaps(sources: Sources) -> dict[int, float]:
    """Mean-square displacement [Å²] of the framework in the Monte Carlo stage of each seed that has one."""
    campaign = sources.campaign
    if campaign is None or campaign.settings.mcmd is None:
        return {}
    mobile = sources.settings.mobile
    # Species that trade places with ions or vacancies wander; those that trade labels on their sites do not.
    wander = {s for pair in campaign.settings.mcmd.pairs if {mobile, "vacancy"} & set(pair) for s in pair}
    found = {}
    for seed in sorted({run.seed for run in sources.runs}):
        source = campaign.mcmd_trajectory(seed)
        if source is None:
            continue
        species = tuple(s for s in framework_species(source.species, mobile) if s not in wander)
        if species:
            with suppress(TrajectoryError):
                found[seed] = framework_displacement(source, species)
    return found


def _paths(run: SourceRun, settings: AnalysisSettings) -> IonPaths:
    try:
        return ion_paths(run.source, settings.mobile, settings.discard_ps)
    except TrajectoryError as error:
        if run.file in str(error):
            raise
        raise TrajectoryError(f"{run.file} ({run.name}): {error}") from None


def _note_run(found: _Collector, run: SourceRun, paths: IonPaths) -> None:
    frames = len(paths.positions)
    found.runs.append(
        RunRow(
            temperature_K=run.temperature,
            seed=run.seed,
            file=run.file,
            frames=frames,
            frame_interval_ps=paths.interval,
            time_ps=paths.interval * (frames - 1),
            atoms=paths.atoms,
            ions=paths.positions.shape[1],
            volume_A3=abs(float(np.linalg.det(paths.cell))),
        )
    )
    if paths.drift is None:
        found.warnings.append(
            f"{run.name}: nothing but {run.source.species[0]}: no framework to take the drift from"
        )


def _options(paths: IonPaths, structure: Structure) -> dict[str, Any]:
    settings = structure.sources.settings
    return {
        "drift": paths.drift,
        "start_time": settings.start_time_ps,
        "site_distance": settings.site_distance_A,
    }


def _whole(
    found: _Collector,
    msd: dict[tuple[float, int], MeanSquareDisplacement],
    run: SourceRun,
    paths: IonPaths,
    structure: Structure,
) -> None:
    result = diffusivity(paths.positions, paths.interval, **_options(paths, structure))
    region = "bulk" if structure.width is None else WHOLE
    msd[run.temperature, run.seed] = result.msd
    named: list[tuple[str, Kind, Diffusivity]] = [
        ("all", "tracer", result.tracer),
        ("all", "collective", result.collective),
        *((name, "tracer", d) for name, d in zip("xyz", result.by_direction, strict=True)),
    ]
    for direction, kind, d in named:
        found.rows.append(DiffusivityRow.of(d, region, direction, kind, run.temperature, run.seed))
    found.transport.append(result)
    finite = math.isfinite(result.haven_ratio)
    found.haven.append(
        HavenRow(
            temperature_K=run.temperature,
            seed=run.seed,
            value=result.haven_ratio if finite else None,
            low=result.haven_low,
            high=result.haven_high if math.isfinite(result.haven_high) else None,
        )
    )
    found.warnings += [f"{run.name}: {warning.message}" for warning in result.warnings]


def _by_layers(
    found: _Collector, run: SourceRun, paths: IonPaths, structure: Structure, layers: Layers
) -> None:
    planes = structure.here(run)
    height = cell_height(paths.cell, planes.axis)
    scale = height / planes.height
    result = regional_diffusivity(
        paths.positions,
        paths.interval,
        {name: [(scale * low, scale * high) for low, high in pairs] for name, pairs in layers.items()},
        height,
        directions=plane_directions(paths.cell, planes.axis).tolist(),
        **_options(paths, structure),
    )
    for name, part in result.items():
        for direction, d in (("along", part.along), ("across", part.across)):
            found.rows.append(DiffusivityRow.of(d, name, direction, "tracer", run.temperature, run.seed))


def _assembled(
    sources: Sources,
    found: _Collector,
    structure: Structure,
    msd: dict[tuple[float, int], MeanSquareDisplacement],
) -> Analysis:
    settings = sources.settings
    rows = judged(found.rows)
    radial, peaks = structure.radial()
    density, isosurface = structure.density()
    site_energies, rest = structure.rest()
    names = list(dict.fromkeys((row.region, row.direction, row.kind) for row in rows))
    means: list[DiffusivityRow] = []
    laws: list[ArrheniusRow] = []
    fits: dict[tuple[str, str, str], ArrheniusFit] = {}
    wanted = settings.extrapolate_K or EXTRAPOLATED_K
    for region, direction, kind in names:
        used = _used(rows, region, direction, kind)
        means += [
            DiffusivityRow.of(combine(runs), region, direction, kind, kelvin, -1)
            for kelvin, runs in used.items()
        ]
        if len(used) >= 2:
            fit = arrhenius_of_runs(used, np.random.default_rng(settings.seed))
            fits[region, direction, kind] = fit
            laws.append(ArrheniusRow.of(fit, region, direction, kind, wanted))
    first = sources.runs[0].source.species
    counts = {symbol: first.count(symbol) for symbol in sorted(set(first))}
    usable = [
        r
        for r in found.transport
        if math.isfinite(r.haven_ratio) and 0 < r.haven_low < r.haven_high < math.inf
    ]
    campaign = sources.campaign
    settings_record = settings.model_dump(mode="json", exclude={"record"})
    campaign_record = None if campaign is None else campaign.settings.model_dump(mode="json")
    results = AnalysisResults(
        title=settings.title or _title(sources, counts),
        mobile=settings.mobile,
        formula=_formula(counts),
        species=counts,
        potential=None if sources.potential is None else sources.potential.name,
        potential_sha256=None if sources.potential is None else file_sha256(sources.potential),
        settings_sha256=settings_sha256({"analysis": settings_record, "campaign": campaign_record}),
        settings=settings.model_dump(mode="json"),
        campaign_settings=campaign_record,
        runs=tuple(found.runs),
        diffusivities=tuple(rows),
        means=tuple(means),
        haven=tuple(found.haven),
        haven_ratio=EstimateRow.of(haven_ratio(usable)) if usable else None,
        arrhenius=tuple(laws),
        anisotropy=tuple(_anisotropy(means)),
        boundary=structure.boundary,
        densities=tuple(structure.densities()),
        composition=tuple(structure.composition()),
        segregation=tuple(structure.segregation()),
        rest=tuple(rest),
        order=tuple(structure.order()),
        radial=tuple(peaks),
        isosurface=isosurface,
        warnings=tuple(dict.fromkeys([*found.warnings, *structure.warnings, *_doubts(found, rows, fits)])),
        versions={name: metadata.version(name) for name in ("mesoion", "numpy", "scipy", "ase")},
    )
    shown = structure.chosen[0]
    return Analysis(
        results,
        msd,
        fits,
        structure.profile,
        structure.width,
        radial,
        density,
        next(shown.source.chunks(1)).atoms(0, wrap=True),
        structure.planes.get((shown.temperature, shown.seed)),
        site_energies,
    )


def judged(rows: Sequence[DiffusivityRow]) -> list[DiffusivityRow]:
    """The rows with `used` as decided for all runs of a temperature together."""

    def group(row: DiffusivityRow) -> tuple[str, str, str, float]:
        return row.region, row.direction, row.kind, row.temperature_K

    groups: dict[tuple[str, str, str, float], list[DiffusivityRow]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    good = set()
    for name, runs in groups.items():
        idle = sum(any(code == "no_jumps" for code, _ in row.warnings) for row in runs)
        if all(row.used for row in runs) and 2 * idle < len(runs):
            good.add(name)
    return [row.model_copy(update={"used": group(row) in good}) for row in rows]


def _used(
    rows: Iterable[DiffusivityRow], region: str, direction: str, kind: Kind
) -> dict[float, list[Diffusivity]]:
    found: dict[float, list[Diffusivity]] = {}
    for row in rows:
        if (row.region, row.direction, row.kind) == (region, direction, kind) and row.used:
            found.setdefault(row.temperature_K, []).append(row.diffusivity())
    return dict(sorted(found.items()))


def _anisotropy(means: Sequence[DiffusivityRow]) -> list[AnisotropyRow]:
    """Ratios of directions by region and temperature, ln D of the two taken as independent."""
    table = {(m.region, m.temperature_K, m.direction): m.diffusivity() for m in means if m.kind == "tracer"}
    rows = []
    for region, kelvin in dict.fromkeys((m.region, m.temperature_K) for m in means):
        for upper, lower in (("across", "along"), ("y", "x"), ("z", "x")):
            one, other = (table.get((region, kelvin, d)) for d in (upper, lower))
            if one is None or other is None:
                continue
            ratio = one.value / other.value
            up = math.hypot(math.log(one.high / one.value), math.log(other.value / max(other.low, 1e-300)))
            down = math.hypot(math.log(one.value / max(one.low, 1e-300)), math.log(other.high / other.value))
            rows.append(
                AnisotropyRow(
                    region=region,
                    temperature_K=kelvin,
                    ratio=f"{upper}/{lower}",
                    value=ratio,
                    low=ratio * math.exp(-min(down, 700.0)),
                    high=ratio * math.exp(min(up, 500.0)),
                )
            )
    return rows


def _doubts(
    found: _Collector, rows: Sequence[DiffusivityRow], fits: Mapping[tuple[str, str, str], ArrheniusFit]
) -> list[str]:
    """What a reader of the numbers should know."""
    doubts = []
    idle: dict[float, list[str]] = {}
    for row in rows:
        if not row.used and row.kind == "tracer":
            idle.setdefault(row.temperature_K, []).append(f"{row.region} {row.direction}")
    for kelvin, names in idle.items():
        parts = ", ".join(dict.fromkeys(names))
        doubts.append(f"{kelvin:g} K: no diffusion to speak of, left out of means and laws: {parts}")
    if not fits:
        doubts.append("fewer than two temperatures with diffusion: no activation energy")
    elif all(len(np.unique(fit.temperatures)) < 5 for fit in fits.values()):
        doubts.append("fewer than five temperatures: whether there are two regimes cannot be told")
    if len({run.seed for run in found.runs}) < 2:
        doubts.append("one run at each temperature: the scatter between runs is not in the intervals")
    return doubts


def _formula(counts: Mapping[str, int]) -> str:
    """Counts over their common divisor, cations before O."""
    divisor = reduce(math.gcd, counts.values())
    order = sorted(counts, key=lambda s: (s != "Li", s == "O", s))
    return "".join(f"{s}{counts[s] // divisor if counts[s] > divisor else ''}" for s in order)


def _title(sources: Sources, counts: Mapping[str, int]) -> str:
    if sources.campaign is not None and sources.campaign.settings.title:
        return sources.campaign.settings.title
    name = "" if sources.boundary is None else f", {sources.boundary.name}"
    return f"{_formula(counts)}{name}"
