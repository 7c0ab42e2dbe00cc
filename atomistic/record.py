"""Transport records from results of our own runs: the atomistic side of the contract with `mesoion`.

Å, ps and eV go in, a `mesoion.transport.TransportRecord` in SI comes out. The same inputs give the same bytes: a record
holds no date and no path, the potential and the settings enter by their checksums.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pydantic import ValidationError

from atomistic.arrhenius_fit import ArrheniusFit, Estimate, fit_arrhenius
from atomistic.averages import Series, ratio_average
from atomistic.boundaries import BoundaryEnergy
from atomistic.boundary_analysis import RegionComposition, SegregationEnergy
from atomistic.boundary_planes import BoundaryPlanes, cell_height, frames
from atomistic.boundary_width import Width
from atomistic.coincidence import BoundarySpec
from atomistic.defect_energies import RegionEnergies
from atomistic.diffusivity import Diffusivity, TransportResult, combine
from atomistic.errors import FileFormatError, InputError, TrajectoryError
from atomistic.trajectory import TrajectorySource
from mesoion.transport import (
    BoundaryCharacter,
    PositiveQuantity,
    Quantity,
    Source,
    TemperatureRange,
    TransportRecord,
    dump_record,
)

Floats = NDArray[np.float64]

ANGSTROM = 1e-10
"""m."""
NORMAL_95 = 1.959963984540054
_LARGE_SPREAD = 0.25


@dataclass(frozen=True)
class RegionDensities:
    """Carriers and sites per volume of a region [1/m³] with standard uncertainties, and its volume [m³]."""

    carrier_density: float
    carrier_density_uncertainty: float
    site_density: float
    site_density_uncertainty: float
    volume: float


def region_densities(
    source: TrajectorySource,
    *,
    sites: Mapping[str, float],
    carrier: str = "Li",
    planes: BoundaryPlanes | None = None,
    width: float | None = None,
    bulk_beyond: float | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> RegionDensities:
    """Mean carrier and site densities of a whole cell, of the boundary layers (`width`, Å), or of the bulk beyond.

    sites: sites open to the carrier that each counted atom stands for, added up; negative where an atom blocks them:
    for LSTZ {"Ta": 1, "Zr": 1, "Sr": -1}, for LLZO {"Zr": 4.5, "Ta": 4.5} (24d and 96h, without blocked pairs 7.5 to 9
    per formula unit). Give `width` for the boundary or `bulk_beyond` for the bulk, both with `planes`; neither for a
    bulk cell. Errors by blocking over frames. Raises TrajectoryError or InputError.
    """
    if planes is None and (width is not None or bulk_beyond is not None):
        raise InputError("planes", None, "a region needs the boundary planes")
    if planes is not None and (width is None) == (bulk_beyond is None):
        raise InputError("width", width, "give either width (boundary) or bulk_beyond (bulk)")
    counts, volumes = Series(), Series()
    kinds: list[int] = []
    for cell, positions, numbers in frames(source, mobile, stride):
        kinds = kinds or sorted({int(z) for z in numbers})
        inside = np.ones(len(numbers), dtype=bool)
        volume = abs(float(np.linalg.det(cell)))
        if planes is not None:
            height = cell_height(cell, planes.axis)
            away = np.abs(planes.distance(positions, cell)[0])
            if width is not None:
                inside = away <= 0.5 * width
                volume *= len(planes.fractions) * width / height
            elif bulk_beyond is not None:
                inside = away > bulk_beyond
                volume *= 1 - 2 * len(planes.fractions) * bulk_beyond / height
            if not 0 < volume < abs(float(np.linalg.det(cell))):
                raise InputError("width", width or bulk_beyond, "it leaves no volume to the region")
        counts.append([np.sum(inside & (numbers == z)) for z in kinds])
        volumes.append(volume)
    names = [chemical_symbols[z] for z in kinds]
    for symbol in (carrier, *sites):
        if symbol not in names:
            raise TrajectoryError(f"no {symbol} in the trajectory; it holds {', '.join(names)}")
    table, volume_series = counts.blocks(), volumes.blocks()
    found = [
        ratio_average(numbers, volume_series)
        for numbers in (
            table[:, names.index(carrier)],
            np.sum([weight * table[:, names.index(s)] for s, weight in sites.items()], axis=0),
        )
    ]
    carriers, open_sites = (float(part.mean) / ANGSTROM**3 for part in found)
    if not 0 < carriers < open_sites:
        raise TrajectoryError(
            f"{carriers:.3g} {carrier} on {open_sites:.3g} sites per m³: the sites counted do not hold the carriers"
        )
    return RegionDensities(
        carriers,
        float(np.nan_to_num(found[0].standard_error)) / ANGSTROM**3,
        open_sites,
        float(np.nan_to_num(found[1].standard_error)) / ANGSTROM**3,
        float(volume_series.mean()) * ANGSTROM**3,
    )


def haven_ratio(results: Sequence[TransportResult]) -> Estimate:
    """One Haven ratio for several temperatures and runs, with its 95 % interval.

    Mean of ln H_R weighted by the inverse squares of the intervals, widened by the scatter where that is larger. Runs
    without a ratio are left out; raises TrajectoryError where none is left.
    """
    usable = [
        r for r in results if math.isfinite(r.haven_ratio) and 0 < r.haven_low < r.haven_high < math.inf
    ]
    if not usable:
        raise TrajectoryError("no run gives a Haven ratio: run longer, or state an assumed one")
    logs = np.log([r.haven_ratio for r in usable])
    spread = np.array([math.log(r.haven_high / r.haven_low) / (2 * NORMAL_95) for r in usable])
    weight = 1 / spread**2
    mean = float(np.sum(weight * logs) / weight.sum())
    scatter = float(np.sum(weight * (logs - mean) ** 2)) / max(len(logs) - 1, 1)
    half = NORMAL_95 * math.sqrt(max(1.0, scatter) / float(weight.sum()))
    return Estimate(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def arrhenius_of_runs(
    runs: Mapping[float, Sequence[Diffusivity]], rng: np.random.Generator | None = None
) -> ArrheniusFit:
    """Arrhenius law of independent runs by temperature [K]: runs combined at each, then `fit_arrhenius`."""
    ordered = sorted(runs)
    return fit_arrhenius(ordered, [combine(list(runs[t])) for t in ordered], rng)


def file_sha256(path: str | Path) -> str:
    """Checksum of a file's bytes. Raises FileFormatError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise FileFormatError(path, None, f"cannot be read ({why})", "give the potential's file") from None


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Checksum of settings, whatever the order of their keys. Raises InputError for values JSON cannot hold."""
    try:
        text = json.dumps(
            settings, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            "settings", ..., f"only numbers, words, lists and tables can be kept ({error})"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()


def boundary_character(spec: BoundarySpec) -> BoundaryCharacter:
    """The record's description of a boundary's macroscopic degrees of freedom."""
    kind: Literal["tilt", "twist", "mixed"] = (
        "twist" if spec.is_twist else "tilt" if spec.is_tilt else "mixed"
    )
    return BoundaryCharacter(
        kind=kind,
        label=spec.name,
        sigma=spec.sigma,
        axis=spec.axis,
        plane=spec.plane,
        second_plane=spec.plane_2,
    )


def positive_quantity(value: float, standard_uncertainty: float, source: Source) -> PositiveQuantity:
    """A positive number with its uncertainty, as a factor where that exceeds a quarter of the value."""
    relative = standard_uncertainty / value if value > 0 else math.inf
    if relative > _LARGE_SPREAD:
        factor = math.exp(min(relative, math.log(1e6)))
        return PositiveQuantity(value=value, uncertainty_factor=factor, source=source)
    return PositiveQuantity(value=value, standard_uncertainty=standard_uncertainty, source=source)


def build_record(
    *,
    name: str,
    material: str,
    formula: str,
    along: ArrheniusFit,
    across: ArrheniusFit | None = None,
    haven: Estimate | PositiveQuantity,
    densities: RegionDensities,
    potential: str | Path | None = None,
    potential_sha256: str | None = None,
    method: str,
    settings: Mapping[str, Any],
    boundary: BoundarySpec | None = None,
    width: Width | None = None,
    composition: RegionComposition | None = None,
    boundary_energy: BoundaryEnergy | None = None,
    segregation: SegregationEnergy | RegionEnergies | None = None,
    core_charge: Quantity | None = None,
    relative_permittivity: PositiveQuantity | None = None,
    lattice_parameter: PositiveQuantity | None = None,
    notes: Sequence[str] = (),
) -> TransportRecord:
    """A record of our own runs: of a bulk, or of a boundary where `boundary` is given (then `width` is needed too).

    along, across: Arrhenius laws of the tracer diffusivity in the plane and perpendicular to it (None: isotropic).
    haven: of these runs, or stated with its own source. densities: of the region. potential: its file, which enters by
    its SHA-256, or potential_sha256 itself. method: what was done and with which teacher, for the source of every
    computed number. settings: of the runs; their checksum is among the notes. width [Å], composition [at.%],
    boundary_energy [J/m²], segregation energy of Li [eV]: results of the analysis. relative_permittivity: needed for a
    bulk, with its own source. A second regime of an Arrhenius law enters without its correlation with the first, which
    the record cannot hold.

    Raises InputError that names the field for anything the record's model refuses.
    """
    source = Source(kind="computed", text=method)
    if (potential is None) == (potential_sha256 is None):
        raise InputError("potential", potential, "give its file, or its SHA-256, and not both")
    said = [f"settings sha256 {settings_sha256(settings)}"]
    if isinstance(haven, Estimate):
        if not 0 < haven.low <= haven.value <= haven.high < math.inf:
            raise InputError("haven", haven, "give a positive value within its interval")
        spread = math.log(haven.high / haven.low) / (2 * NORMAL_95)
        haven = PositiveQuantity(
            value=haven.value, uncertainty_factor=min(math.exp(spread), 1e6), source=source
        )
    fits = [fit for fit in (along, across) if fit is not None]
    if any(fit.regimes == 2 for fit in fits):
        said.append(
            "two regimes: the break and the second energy are drawn independently of the first regime"
        )
    if width is not None:
        said.append(f"boundary width: {width.rule}")
        if boundary is None:
            raise InputError("width", width.value, "a width belongs to a boundary record: give boundary")
    fields: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "material": material,
        "formula": formula,
        "region": "bulk" if boundary is None else "boundary",
        "origin": "own",
        "source": source,
        "potential_sha256": potential_sha256 if potential is None else file_sha256(potential),
        "notes": (*notes, *said),
        "haven_ratio": haven,
        "relative_permittivity": relative_permittivity,
        "lattice_parameter_m": lattice_parameter,
        "core_charge_e_per_m2": core_charge,
    }
    try:
        fields["temperature_range_K"] = TemperatureRange(
            low=float(min(fit.temperatures.min() for fit in fits)),
            high=float(max(fit.temperatures.max() for fit in fits)),
        )
        fields["transport_parallel"] = along.law(source)
        if across is not None:
            fields["transport_perpendicular"] = across.law(source)
        fields["carrier_density_per_m3"] = positive_quantity(
            densities.carrier_density, densities.carrier_density_uncertainty, source
        )
        fields["site_density_per_m3"] = positive_quantity(
            densities.site_density, densities.site_density_uncertainty, source
        )
        if boundary is not None:
            fields["boundary"] = boundary_character(boundary)
        if width is not None:
            fields["boundary_width_m"] = positive_quantity(
                width.value * ANGSTROM, width.standard_uncertainty * ANGSTROM, source
            )
        if boundary_energy is not None:
            fields["boundary_energy_J_per_m2"] = _quantity(
                boundary_energy.value, boundary_energy.standard_uncertainty, source
            )
        if segregation is not None:
            energy = (
                segregation.energy if isinstance(segregation, SegregationEnergy) else segregation.difference
            )
            fields["segregation_energy_eV"] = _quantity(energy, segregation.standard_uncertainty, source)
            if isinstance(segregation, SegregationEnergy) and not segregation.converged:
                fields["notes"] += ("segregation energy: the runs have not converged",)
        if composition is not None:
            part = composition.bulk if boundary is None else composition.boundary
            fields["composition_atomic_percent"] = {
                symbol: _quantity(float(part.mean[k]), float(np.nan_to_num(part.standard_error[k])), source)
                for k, symbol in enumerate(composition.species)
            }
        return TransportRecord(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(key) for key in first["loc"]) or "record"
        raise InputError(
            f"record {name!r}, {path}",
            _shown(first["input"]) if first["loc"] else ...,
            first["msg"].removeprefix("Value error, "),
        ) from None


def _quantity(value: float, standard_uncertainty: float, source: Source) -> Quantity:
    if not math.isfinite(standard_uncertainty):
        raise InputError(
            "standard_uncertainty",
            standard_uncertainty,
            "give more frames, sites or bulk cells: it is unknown",
        )
    return Quantity(value=value, standard_uncertainty=standard_uncertainty, source=source)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 60 else str(value)[:60]


def _is_record(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "schema_version" in values and "material" in values


def save(record: TransportRecord, path: str | Path) -> Path:
    """Write a record as JSON to the file `path`, or to `<name>.json` in the folder `path`; whole or not at all.

    Raises FileFormatError where it cannot be written, or would replace anything but a record.
    """
    target = Path(path)
    if target.is_dir():
        target = target / f"{record.name}.json"
    if target.exists() and not _is_record(target):
        raise FileFormatError(target, None, "exists and is no transport record", "choose another --out")
    part: Path | None = None
    try:
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        part = Path(scratch)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(dump_record(record))
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    except OSError as error:
        raise FileFormatError(
            target, None, f"cannot be written ({error.strerror})", "choose a writable folder with free space"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target
