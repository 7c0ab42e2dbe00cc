"""Where the boundaries of a periodic cell are, how wide, and what they are made of.

Planes are found in profiles of density, composition and coordination; widths follow rules that are named in the
result; compositions, segregation energies and the A-site order carry block-averaged errors. A boundary's plane is
spanned by two of the cell's vectors; heights are measured perpendicular to it. Lengths in Å, energies in eV.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from atomistic.averages import BlockAverage, Series, block_average, ratio_average
from atomistic.boundary_planes import BoundaryPlanes, cell_height, frames
from atomistic.errors import InputError, TrajectoryError
from atomistic.local_structure import coordination_numbers
from atomistic.trajectory import Trajectory, TrajectorySource

Floats = NDArray[np.float64]

BOLTZMANN_EV = 8.617333262e-5
"""k_B [eV/K], exact in the SI to these digits."""

_FOUND = 5.0
_FLOORS = {"density": 0.005, "composition": 0.0025, "coordination": 0.1}
"""Smallest scatter of the bulk assumed for each signal: relative, atomic fraction, neighbours."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Densities and contents in slices parallel to the boundary.

    position: (bins,) Å, centre of each slice, of the cell or from the plane. density, density_error: per species,
    1/Å³. atomic_percent, atomic_percent_error: of all atoms in the slice. total: 1/Å³. Errors are standard errors by
    blocking over frames, nan for fewer than four frames. height: of the cell, Å.
    """

    position: Floats
    density: dict[str, Floats]
    density_error: dict[str, Floats]
    atomic_percent: dict[str, Floats]
    atomic_percent_error: dict[str, Floats]
    total: Floats
    total_error: Floats
    height: float
    frames: int
    about_plane: bool

    @property
    def bin_width(self) -> float:
        """Thickness of a slice, Å."""
        return float(self.position[1] - self.position[0])

    def number_density(self, *species: str) -> tuple[Floats, Floats]:
        """Summed density of the species named (all if none) with its error taken as independent, 1/Å³."""
        if not species:
            return self.total, self.total_error
        for symbol in species:
            if symbol not in self.density:
                raise TrajectoryError(f"no {symbol} in the profile; it holds {', '.join(self.density)}")
        value = np.sum([self.density[s] for s in species], axis=0)
        return value, np.sqrt(np.sum([self.density_error[s] ** 2 for s in species], axis=0))


def profile(
    source: TrajectorySource,
    *,
    axis: int = 2,
    bin_width: float = 0.5,
    planes: BoundaryPlanes | None = None,
    which: int | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> Profile:
    """Number densities and atomic percents in slices of about `bin_width` Å across the cell, or about the planes.

    With `planes`, position is the signed distance from plane `which` (None: from each plane, averaged), out to half
    the smallest distance between planes; else the height from the cell's origin along `axis`. Slices are fixed
    fractions of the cell, so that it may breathe. Raises InputError where fewer than four slices result.
    """
    if planes is not None:
        axis = planes.axis
    if which is not None and (planes is None or not 0 <= which < len(planes.fractions)):
        raise InputError("which", which, "the number of one of the planes, from 0")
    if not (math.isfinite(bin_width) and bin_width > 0):
        raise InputError("bin_width", bin_width, "give Å above zero")
    counts, heights, bins, reach, centres = Series(), Series(), 0, 0.5, np.zeros(1)
    volumes = Series()
    kinds: list[int] = []
    for cell, positions, numbers in frames(source, mobile, stride):
        height = cell_height(cell, axis)
        if not bins:
            kinds = sorted({int(z) for z in numbers})
            if planes is not None:
                reach = 0.5 * planes.separation / planes.height
                centres = np.array(planes.fractions if which is None else [planes.fractions[which]])
            bins = round(2 * reach * height / bin_width)
            if bins < 4 or bins > 100_000:
                raise InputError("bin_width", bin_width, f"it gives {bins} slices; 4 to 100000 are sensible")
        scaled = (positions @ np.linalg.inv(cell))[:, axis]
        table = np.zeros((len(kinds), bins))
        for centre in centres if planes is not None else (0.5,):
            offset = scaled - centre
            offset -= np.rint(offset)
            index = np.floor((offset + reach) / (2 * reach) * bins).astype(np.int64)
            inside = (index >= 0) & (index < bins)
            for row, z in enumerate(kinds):
                table[row] += np.bincount(index[inside & (numbers == z)], minlength=bins)
        slice_volume = abs(float(np.linalg.det(cell))) * 2 * reach / bins
        counts.append(table)
        volumes.append(slice_volume * len(centres))
        heights.append(height)
    table, volume = counts.blocks(), volumes.blocks()[:, None]
    whole = table.sum(axis=1)
    densities = [
        ratio_average(table[:, row], np.broadcast_to(volume, whole.shape)) for row in range(len(kinds))
    ]
    percents = [ratio_average(100 * table[:, row], whole) for row in range(len(kinds))]
    total = ratio_average(whole, np.broadcast_to(volume, whole.shape))
    height = float(heights.blocks().mean())
    position = (np.arange(bins) + 0.5) / bins * 2 * reach * height
    names = [chemical_symbols[z] for z in kinds]
    return Profile(
        position=position - reach * height if planes is not None else position,
        density={s: d.mean for s, d in zip(names, densities, strict=True)},
        density_error={s: d.standard_error for s, d in zip(names, densities, strict=True)},
        atomic_percent={s: p.mean for s, p in zip(names, percents, strict=True)},
        atomic_percent_error={s: p.standard_error for s, p in zip(names, percents, strict=True)},
        total=total.mean,
        total_error=total.standard_error,
        height=height,
        frames=counts.entries,
        about_plane=planes is not None,
    )


def mean_structure(source: TrajectorySource, mobile: Sequence[str] = ("Li",), stride: int = 1) -> Atoms:
    """Mean positions in the mean cell of the atoms that stay (all but the mobile ones), as ASE Atoms.

    Thermal motion averages out, so coordination shells are sharp. Raises TrajectoryError where no atom stays.
    """
    cells, scaled = Series(), Series()
    numbers = np.zeros(0, dtype=np.uint8)
    for cell, positions, found in frames(source, mobile, stride):
        keep = ~np.isin(found, [chemical_symbols.index(s) for s in mobile])
        if not len(numbers):
            stay, numbers = keep, found[keep]
            if not len(numbers):
                raise TrajectoryError(f"all atoms are {', '.join(mobile)}: there is no framework")
        cells.append(cell)
        scaled.append(positions[stay] @ np.linalg.inv(cell))
    cell = cells.blocks().mean(axis=0)
    return Atoms(numbers=numbers, positions=scaled.blocks().mean(axis=0) @ cell, cell=cell, pbc=True)


def locate_planes(
    source: TrajectorySource,
    *,
    axis: int = 2,
    n_planes: int = 2,
    smoothing: float = 2.0,
    bin_width: float = 0.25,
    anions: Sequence[str] = ("O",),
    bond: float = 3.0,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> BoundaryPlanes:
    """The planes about which density, composition and coordination deviate most from the rest of the cell.

    Signals, smoothed with a Gaussian of standard deviation `smoothing` Å: density of the framework, atomic fractions
    of its species, and, with half that smoothing, missing or extra anions within `bond` Å of its cations (of the mean
    structure). Each is taken
    from its median in units of its scatter (1.4826 × median absolute deviation; for the coordination, which deviates to
    one side, both by the shortest interval that holds half the cell); squares are summed, the peaks at least half of
    height/n_planes apart with the largest sum are the planes, refined to their centroid.

    Raises TrajectoryError where no signal of some plane deviates by five such units: no boundary is to be seen.
    """
    if not 1 <= n_planes <= 4:
        raise InputError("n_planes", n_planes, "1 to 4 planes")
    cross = profile(source, axis=axis, bin_width=bin_width, mobile=mobile, stride=stride)
    step = cross.height / len(cross.position)
    wide = smoothing / step

    def smooth(values: Floats) -> Floats:
        return np.asarray(gaussian_filter1d(values, wide, mode="wrap"), dtype=np.float64)

    framework = [s for s in cross.density if s not in mobile] or list(cross.density)
    smoothed = {s: smooth(cross.density[s]) for s in framework}
    total = np.sum(list(smoothed.values()), axis=0)
    strength = [_strength(total / float(np.median(total)), "density")]
    if len(framework) > 1:
        strength += [_strength(smoothed[s] / total, "composition") for s in framework]
    change = _coordination_change(source, axis, anions, bond, mobile, stride, len(cross.position))
    if change is not None:
        deviation, weight = (gaussian_filter1d(values, 0.5 * wide, mode="wrap") for values in change)
        strength.append(_strength(deviation / np.maximum(weight, 1e-3 * weight.max()), "coordination"))
    score = np.sum(np.square(strength), axis=0)
    strongest = np.max(np.abs(strength), axis=0)
    chosen = _separated_peaks(score, n_planes, len(score) / (2 * n_planes))
    fractions: list[float] = []
    span = max(2, round(2.5 * wide))
    for peak in chosen:
        window = (peak + np.arange(-span, span + 1)) % len(score)
        if float(strongest[window].max()) < _FOUND:
            raise TrajectoryError(
                f"no {len(fractions) + 1}. boundary along axis {axis}: density, composition and coordination stay "
                f"within {float(strongest[window].max()):.1f} of their scatter; give the planes, or another axis"
            )
        weight = np.maximum(score[window] - 0.1 * score[window].max(), 0.0)
        offset = float(np.sum(weight * np.arange(-span, span + 1)) / np.sum(weight))
        fractions.append((peak + 0.5 + offset) / len(score))
    return BoundaryPlanes(axis, tuple(fractions), cross.height, step)


def _strength(values: Floats, signal: str) -> Floats:
    """Deviation of a signal from most of the cell in units of its scatter there."""
    if signal == "coordination":
        ordered = np.sort(values)
        half = (len(ordered) + 1) // 2
        spans = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
        first = int(np.argmin(spans))
        centre, scatter = ordered[first] + 0.5 * spans[first], 0.5 * spans[first] / 0.6745
    else:
        centre = np.median(values)
        scatter = 1.4826 * np.median(np.abs(values - centre))
    return np.asarray((values - centre) / max(float(scatter), _FLOORS[signal]), dtype=np.float64)


def _coordination_change(
    source: TrajectorySource,
    axis: int,
    anions: Sequence[str],
    bond: float,
    mobile: Sequence[str],
    stride: int,
    bins: int,
) -> tuple[Floats, Floats] | None:
    """Sum over the cations of a slice of |neighbours - usual number|, and how many cations; None without anions."""
    structure = mean_structure(source, mobile, stride)
    symbols = np.array(structure.get_chemical_symbols())
    cations = [s for s in sorted(set(symbols.tolist())) if s not in anions]
    if not cations or not np.any(np.isin(symbols, anions)):
        return None
    change, weight = np.zeros(bins), np.zeros(bins)
    scaled = structure.get_scaled_positions(wrap=True)[:, axis]
    for cation in cations:
        near = coordination_numbers(structure, cation, anions, bond)
        usual = int(np.bincount(near).argmax())
        slot = np.minimum((scaled[symbols == cation] * bins).astype(np.int64), bins - 1)
        np.add.at(change, slot, np.abs(near - usual))
        np.add.at(weight, slot, 1.0)
    return change, weight


def _separated_peaks(score: Floats, number: int, apart: float) -> list[int]:
    """Indices of `number` peaks of a periodic score, at least `apart` bins from each other, largest first."""
    left = score.copy()
    found: list[int] = []
    for _ in range(number):
        peak = int(np.argmax(left))
        found.append(peak)
        away = np.abs((np.arange(len(score)) - peak + len(score) / 2) % len(score) - len(score) / 2)
        left[away < apart] = -np.inf
    return found


@dataclass(frozen=True, eq=False)
class RegionComposition:
    """Contents of the boundary layers and of the bulk, over a run.

    boundary, bulk: atomic percent of the species counted, with standard errors (`BlockAverage`, one entry per name in
    `species`). series: (blocks, 2, species) atomic percents of consecutive parts of the run, boundary first, and
    frames_per_block frames in each.
    """

    species: tuple[str, ...]
    boundary: BlockAverage
    bulk: BlockAverage
    series: Floats
    frames_per_block: int


def _region_counts(
    source: TrajectorySource,
    planes: BoundaryPlanes,
    width: float,
    bulk_beyond: float | None,
    mobile: Sequence[str],
    stride: int,
) -> tuple[list[str], Series]:
    """Species and the series of counts (2, species): in the boundary layers and in the bulk."""
    beyond = planes.default_bulk(width) if bulk_beyond is None else bulk_beyond
    if not 0.5 * width <= beyond < 0.5 * planes.height:
        raise InputError("bulk_beyond", beyond, f"give Å between {0.5 * width:g} and {0.5 * planes.height:g}")
    counts = Series()
    kinds: list[int] = []
    for cell, positions, numbers in frames(source, mobile, stride):
        kinds = kinds or sorted({int(z) for z in numbers})
        masks = planes.regions(positions, cell, width, beyond)
        counts.append([[np.sum(mask & (numbers == z)) for z in kinds] for mask in masks])
    return [chemical_symbols[z] for z in kinds], counts


def region_composition(
    source: TrajectorySource,
    planes: BoundaryPlanes,
    width: float,
    *,
    species: Sequence[str] | None = None,
    bulk_beyond: float | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> RegionComposition:
    """Atomic percent of each species within width/2 of the planes and in the bulk beyond `bulk_beyond` Å.

    `species`: those counted as 100 % (None: all atoms; cations only: name them).
    """
    names, counts = _region_counts(source, planes, width, bulk_beyond, mobile, stride)
    wanted = tuple(names if species is None else species)
    for symbol in wanted:
        if symbol not in names:
            raise TrajectoryError(f"no {symbol} in the trajectory; it holds {', '.join(names)}")
    table = 100 * counts.blocks()[:, :, [names.index(s) for s in wanted]]
    total = np.broadcast_to(table.sum(axis=2, keepdims=True) / 100, table.shape)
    for region, name in enumerate(("boundary layers", "bulk")):
        if total[:, region].sum() == 0:
            raise TrajectoryError(f"no atom of {', '.join(wanted)} was ever in the {name}")
    found = ratio_average(table, total)

    def part(region: int) -> BlockAverage:
        return BlockAverage(
            found.mean[region],
            found.standard_error[region],
            found.block_length[region],
            found.converged[region],
        )

    series = table / np.where(total == 0, np.nan, total)
    return RegionComposition(wanted, part(0), part(1), series, counts.per_block)


@dataclass(frozen=True)
class SegregationEnergy:
    """Segregation energy from occupancies, negative where the solute prefers the boundary.

    energy, standard_uncertainty: eV. boundary_occupancy, bulk_occupancy: solute per site. drift: difference of the
    two halves of the runs in their standard uncertainties. between_runs: scatter of the runs' energies, eV (nan: one
    run). converged: blocks of each run independent, |drift| < 3, and runs within 3 uncertainties of each other.
    """

    energy: float
    standard_uncertainty: float
    boundary_occupancy: float
    bulk_occupancy: float
    drift: float
    between_runs: float
    converged: bool


def occupancy_segregation_energy(
    boundary_occupancy: float, bulk_occupancy: float, temperature: float
) -> float:
    """ΔE = −k_BT ln{[x_b/(1 − x_b)]/[x/(1 − x)]} [eV] of occupancies x_b and x at T [K].

    The Langmuir-McLean isotherm; configurational entropy is that of ideal mixing. D. McLean, Grain Boundaries in
    Metals (1957). Raises InputError for occupancies outside (0, 1).
    """
    for name, x in (("boundary_occupancy", boundary_occupancy), ("bulk_occupancy", bulk_occupancy)):
        if not 0 < x < 1:
            raise InputError(name, x, "an occupancy lies between 0 and 1, both excluded")
    if not 0 < temperature < 1e5:
        raise InputError("temperature", temperature, "give K above zero")
    odds = math.log(boundary_occupancy / (1 - boundary_occupancy)) - math.log(
        bulk_occupancy / (1 - bulk_occupancy)
    )
    return -BOLTZMANN_EV * temperature * odds


def segregation_energy(
    runs: TrajectorySource | Sequence[TrajectorySource],
    planes: BoundaryPlanes | Sequence[BoundaryPlanes],
    width: float,
    *,
    solute: str,
    sites: Mapping[str, float],
    temperature: float,
    discard: float = 0.0,
    bulk_beyond: float | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> SegregationEnergy:
    """Segregation energy of `solute` from its occupancies in one or several Monte Carlo or MD runs at T [K].

    sites: how many sites each counted atom stands for, so that their number in a region is Σ weight × atoms: for Ta on
    the Zr sublattice {"Ta": 1, "Zr": 1}; for Sr on the A sites of a perovskite {"Ta": 1, "Zr": 1}, one A site per B
    cation. planes: one for all runs or one each. discard: the first part of each run that is left out. ΔE is that of
    `occupancy_segregation_energy`; its uncertainty is the larger of blocking within and of the scatter between runs.

    Raises TrajectoryError where a region never, or always, holds the solute: then occupancies give a bound only.
    """
    sources = [runs] if not isinstance(runs, Sequence) else list(runs)
    places = [planes] * len(sources) if isinstance(planes, BoundaryPlanes) else list(planes)
    if not sources or len(places) != len(sources):
        raise InputError("planes", len(places), "one for all runs, or one for each")
    if not 0 <= discard < 1:
        raise InputError("discard", discard, "a part of the run from 0 to below 1")
    if not sites or any(not weight > 0 for weight in sites.values()):
        raise InputError("sites", dict(sites), "positive numbers of sites per atom")
    solutes: list[Floats] = []
    open_sites: list[Floats] = []
    for source, place in zip(sources, places, strict=True):
        names, counts = _region_counts(source, place, width, bulk_beyond, mobile, stride)
        for symbol in (solute, *sites):
            if symbol not in names:
                raise TrajectoryError(f"no {symbol} in the trajectory; it holds {', '.join(names)}")
        table = counts.blocks()
        table = table[int(discard * len(table)) :]
        solutes.append(table[:, :, names.index(solute)])
        open_sites.append(np.sum([w * table[:, :, names.index(s)] for s, w in sites.items()], axis=0))
    whole = _occupancy_energy(np.concatenate(solutes), np.concatenate(open_sites), temperature, solute)
    halves = [
        _occupancy_energy(
            np.concatenate([s[part * len(s) // 2 : (part + 1) * len(s) // 2] for s in solutes]),
            np.concatenate([n[part * len(n) // 2 : (part + 1) * len(n) // 2] for n in open_sites]),
            temperature,
            solute,
        )
        for part in (0, 1)
    ]
    drift = (halves[1][0] - halves[0][0]) / max(math.hypot(halves[0][1], halves[1][1]), 1e-300)
    energy, within, occupancies, independent = whole
    between, agree = math.nan, True
    if len(sources) > 1:
        single = [
            _occupancy_energy(s, n, temperature, solute) for s, n in zip(solutes, open_sites, strict=True)
        ]
        values = np.array([one[0] for one in single])
        between = float(values.std(ddof=1))
        expected = math.sqrt(float(np.mean([one[1] ** 2 for one in single])))
        agree = between < 3 * max(expected, 1e-300)
        independent = all(one[3] for one in single)
        within = max(within, between / math.sqrt(len(values)))
    return SegregationEnergy(
        energy=energy,
        standard_uncertainty=within,
        boundary_occupancy=float(occupancies[0]),
        bulk_occupancy=float(occupancies[1]),
        drift=drift,
        between_runs=between,
        converged=bool(independent and abs(drift) < 3 and agree and math.isfinite(within)),
    )


def _occupancy_energy(
    solutes: Floats, sites: Floats, temperature: float, solute: str
) -> tuple[float, float, Floats, bool]:
    """Energy, standard error, occupancies (2,) and whether blocking converged, from counts (frames, 2)."""
    if not np.all(sites.mean(axis=0) > 0):
        raise TrajectoryError("a region holds none of the sites; take a wider boundary or another cell")
    x = solutes.mean(axis=0) / sites.mean(axis=0)
    for region, name in enumerate(("boundary", "bulk")):
        if not 0 < x[region] < 1:
            what = "never" if x[region] <= 0 else "always, on all its sites,"
            raise TrajectoryError(
                f"{solute} was {what} in the {name} region: run longer or hotter, or take energies of swaps at rest"
            )
    energy = occupancy_segregation_energy(float(x[0]), float(x[1]), temperature)
    log_odds = (solutes - x * sites) / (sites.mean(axis=0) * x * (1 - x))
    error = block_average(log_odds[:, 0] - log_odds[:, 1])
    spread = BOLTZMANN_EV * temperature * float(error.standard_error)
    return energy, spread, x, bool(error.converged)


@dataclass(frozen=True, eq=False)
class SiteOrder:
    """A-site order over a run: series (frames,) of S, its mean and standard error, and the number of layers."""

    series: Floats
    mean: float
    standard_error: float
    layers: int


def a_site_order(
    source: TrajectorySource,
    *,
    heavy: str = "Sr",
    b_sites: Sequence[str] = ("Ta", "Zr"),
    axis: int = 2,
    layers: int | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> SiteOrder:
    """S = (R_rich − R_all)/(1 − R_all) of a perovskite in every frame, R the share of A sites that hold `heavy`.

    A layers lie midway between the layers of the B cations along `axis`, one A site per B cation; every second layer
    is rich, whichever set holds more, so that a random cell has a small positive S (caption of Fig. 2 of Nat. Commun.
    14, 1632 (2023), doi 10.1038/s41467-023-37115-6). layers: number of A layers, by default the cell's height over the
    cube root of the volume per B cation. Raises TrajectoryError without B cations, InputError for odd `layers`.
    """
    values = []
    number = layers
    for cell, positions, numbers in frames(source, mobile, stride):
        b_mask = np.isin(numbers, [chemical_symbols.index(s) for s in b_sites])
        sites = int(b_mask.sum())
        if sites == 0:
            raise TrajectoryError(f"no {' or '.join(b_sites)} in the trajectory: name the B cations")
        if number is None:
            number = round(cell_height(cell, axis) / (abs(float(np.linalg.det(cell))) / sites) ** (1 / 3))
        if number < 2 or number % 2:
            raise InputError("layers", number, "alternate layers need an even number of them across the cell")
        scaled = (positions @ np.linalg.inv(cell))[:, axis] * number
        phase = float(np.angle(np.mean(np.exp(2j * np.pi * scaled[b_mask])))) / (2 * np.pi)
        layer = np.floor(scaled[numbers == chemical_symbols.index(heavy)] - phase).astype(np.int64)
        overall = len(layer) / sites
        if not 0 < overall < 1:
            raise TrajectoryError(f"{len(layer)} {heavy} on {sites} A sites: no order can be told")
        rich = max(np.sum(layer % 2 == 0), np.sum(layer % 2 == 1)) / (sites / 2)
        values.append((rich - overall) / (1 - overall))
    found = block_average(values)
    return SiteOrder(np.array(values), float(found.mean), float(found.standard_error), int(number or 0))


def as_trajectory(structures: Atoms | Sequence[Atoms], interval: float = 1.0) -> Trajectory:
    """Structures of the same atoms as a trajectory, `interval` ps apart, positions as they are.

    Their species may differ where atoms were exchanged. Raises TrajectoryError where their numbers differ.
    """
    listed = [structures] if isinstance(structures, Atoms) else list(structures)
    if not listed or any(len(atoms) != len(listed[0]) for atoms in listed):
        raise TrajectoryError("give structures with the same number of atoms")
    numbers = np.array([atoms.numbers for atoms in listed], dtype=np.uint8)
    return Trajectory(
        tuple(listed[0].get_chemical_symbols()),
        interval * np.arange(len(listed), dtype=np.float64),
        np.array([atoms.cell.array for atoms in listed]),
        np.array([atoms.positions for atoms in listed]),
        exchanged=numbers if np.any(numbers != numbers[0]) else None,
    )
