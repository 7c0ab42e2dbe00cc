"""Where the boundaries of a campaign's cells are, how wide and of what: profiles, widths, g(r), density, segregation.

At most `structure_frames` frames of a run are looked at, and of the runs only those at one temperature but for
segregation energies, compositions and densities, which all runs tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atomistic.analysis_results import (
    BoundaryRow,
    CompositionRow,
    DensityRow,
    IsosurfaceRow,
    OrderRow,
    PeakRow,
    RestRow,
    SegregationRow,
    WidthRow,
)
from atomistic.analysis_settings import (
    OrderSettings,
    SegregationSettings,
    SourceRun,
    Sources,
    moved_planes,
    noted_planes,
    swapped_species,
)
from atomistic.boundary_analysis import (
    Profile,
    a_site_order,
    locate_planes,
    profile,
    region_composition,
    segregation_energy,
)
from atomistic.boundary_planes import BoundaryPlanes
from atomistic.boundary_width import (
    Width,
    composition_width,
    coordination_width,
    density_width,
    interplanar_spacing,
    spacings_width,
)
from atomistic.defect_energies import SiteEnergies, swap_energies, vacancy_formation_energies
from atomistic.errors import AtomisticError, InputError, TrajectoryError
from atomistic.local_structure import (
    DensityGrid,
    RadialDistribution,
    probability_density,
    radial_distribution,
)
from atomistic.record import region_densities
from atomistic.sampling import VACANCY
from atomistic.trajectory import TrajectorySource

Floats = NDArray[np.float64]

ISOSURFACE_SHARE = 0.9
CUBE_NAME = "density.cube"
_MOST_GRID_POINTS = 400_000
_DENSITY_SMOOTHING = 0.25
_BOND = 3.0
"""Å within which an anion counts as a cation's neighbour."""


class Structure:
    """Planes of every run, and of the structure's runs the profile, widths, g(r) and density.

    Raises TrajectoryError where no boundary is found, or no width by the rule asked for.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.settings = sources.settings
        self.warnings: list[str] = []
        self.planes: dict[tuple[float, int], BoundaryPlanes] = {}
        self.width: Width | None = None
        self.boundary: BoundaryRow | None = None
        self.profile: Profile | None = None
        kelvin = self.settings.structure_temperature_K
        known = sorted({run.temperature for run in sources.runs})
        if kelvin is not None and kelvin not in known:
            raise InputError(
                "structure_temperature_K",
                kelvin,
                f"one of the runs' temperatures: {', '.join(f'{t:g}' for t in known)}",
            )
        self.temperature = known[0] if kelvin is None else kelvin
        self.chosen = [run for run in sources.runs if run.temperature == self.temperature]
        self.strides = {(run.temperature, run.seed): self._stride(run) for run in sources.runs}
        if self.settings.boundary is not None:
            for run in sources.runs:
                self.planes[run.temperature, run.seed] = self._planes(run)
            self._find_width()

    def _stride(self, run: SourceRun) -> int:
        frames = sum(chunk.n_frames for chunk in run.source.chunks(512))
        return max(1, math.ceil(frames / self.settings.structure_frames))

    def stride(self, run: SourceRun) -> int:
        """So that at most `structure_frames` frames are taken."""
        return self.strides[run.temperature, run.seed]

    def _planes(self, run: SourceRun) -> BoundaryPlanes:
        if run.planes is not None:
            return run.planes
        boundary = self.settings.boundary
        assert boundary is not None
        try:
            return locate_planes(
                run.source, axis=boundary.axis, n_planes=boundary.n_planes, mobile=(self.settings.mobile,),
                stride=self.stride(run),
            )  # fmt: skip
        except TrajectoryError as error:
            raise TrajectoryError(f"{run.file} ({run.name}): {error}") from None

    def here(self, run: SourceRun) -> BoundaryPlanes:
        """The planes of a run."""
        return self.planes[run.temperature, run.seed]

    def layers(self, run: SourceRun) -> dict[str, list[tuple[float, float]]]:
        """Boundary layers and bulk of a run, Å of height, for `regional_diffusivity`."""
        boundary = self.settings.boundary
        if boundary is None or self.width is None:
            raise InputError("boundary", None, "a cell with boundaries is needed")
        return self.here(run).layers(self.width.value, separate=boundary.separate)

    def slabs(self, run: SourceRun) -> dict[str, list[tuple[float, float]]]:
        """Slabs of a run by distance from its planes."""
        if self.settings.boundary is None:
            raise InputError("boundary", None, "a cell with boundaries is needed")
        return distance_slabs(self.here(run), self.settings.boundary.slab_A)

    def _find_width(self) -> None:
        boundary = self.settings.boundary
        assert boundary is not None
        mobile = (self.settings.mobile,)
        profiles = [
            profile(
                run.source, planes=self.planes[run.temperature, run.seed], bin_width=self.settings.bin_width_A,
                mobile=mobile, stride=self.stride(run),
            )
            for run in self.chosen
        ]  # fmt: skip
        self.profile = mean_profile(profiles)
        widths: list[WidthRow] = []
        missing: list[str] = []
        first = self.chosen[0]
        planes = self.planes[first.temperature, first.seed]
        for name, rule in self._rules(planes, self.profile).items():
            try:
                width = rule()
                if not 0 < width.value < planes.separation:
                    raise TrajectoryError(
                        f"{width.value:.1f} A leave no bulk between planes {planes.separation:.1f} A apart"
                    )
                widths.append(
                    WidthRow(
                        name=name,
                        value_A=width.value,
                        standard_uncertainty_A=width.standard_uncertainty,
                        rule=width.rule,
                    )
                )
            except (TrajectoryError, InputError) as error:
                missing.append(f"{name}: {error}")
        wanted = [w for w in widths if boundary.width_rule in ("auto", w.name) or w.name == "given"]
        if not wanted:
            raise TrajectoryError(
                f"no boundary width by the rule {boundary.width_rule!r} ({'; '.join(missing)}); give width_A"
            )
        used = wanted[0]
        self.width = Width(used.value_A, used.standard_uncertainty_A, used.rule)
        spec = self.sources.boundary
        self.boundary = BoundaryRow(
            name=None if spec is None else spec.name,
            separation_A=planes.separation,
            width=used,
            widths=tuple(widths),
            no_width=tuple(missing),
        )

    def _rules(self, planes: BoundaryPlanes, cross: Profile) -> dict[str, Callable[[], Width]]:
        """Rules for the width, the preferred first."""
        boundary, run = self.settings.boundary, self.chosen[0]
        assert boundary is not None
        rules: dict[str, Callable[[], Width]] = {}
        given, spacing = boundary.width_A, self._spacing()
        if given is not None:
            rules["given"] = lambda: Width(given, 0.0, f"given: {given:g} A")
        if spacing is not None:
            rules["spacings"] = lambda: spacings_width(spacing)
        framework = [s for s in cross.density if s != self.settings.mobile]
        rules["density"] = lambda: density_width(cross, *framework).full_width
        rules["composition"] = lambda: composition_width(cross, species=framework or None, smoothing=1.0)
        cations = [s for s in framework if s != "O"]
        if "O" in framework and cations:
            rules["coordination"] = lambda: coordination_width(
                run.source, planes, centre=cations[0], cutoff=_BOND, mobile=(self.settings.mobile,),
                stride=self.stride(run),
            )  # fmt: skip
        return rules

    def _spacing(self) -> float | None:
        """Of the boundary's lattice planes, Å: from name and lattice constant, or as the campaign's cell notes it."""
        boundary, spec, campaign = self.settings.boundary, self.sources.boundary, self.sources.campaign
        if boundary is not None and spec is not None and boundary.lattice_constant_A is not None:
            return interplanar_spacing(spec.plane, boundary.lattice_constant_A)
        if campaign is None:
            return None
        noted = campaign.cell(self.chosen[0].seed).info.get("plane_spacing")
        return None if noted is None else float(noted)

    def radial(self) -> tuple[list[tuple[str, RadialDistribution]], list[PeakRow]]:
        """g(r) of the pairs asked for in the first of the structure's runs, by region where there are boundaries."""
        run, settings = self.chosen[0], self.settings
        kinds = set(run.source.species)
        others = sorted(kinds - {settings.mobile}, key=lambda s: (s != "O", -run.source.species.count(s)))
        pairs = settings.rdf or (
            (settings.mobile, settings.mobile),
            *((settings.mobile, o) for o in others[:1]),
        )
        found: list[tuple[str, RadialDistribution]] = []
        rows: list[PeakRow] = []
        for pair in pairs:
            for region, within in self._shells(run).items():
                try:
                    g = radial_distribution(
                        run.source, *pair, r_max=settings.rdf_range_A, within=within, stride=self.stride(run),
                        planes=None if region == "bulk" and self.width is None else self.here(run),
                    )  # fmt: skip
                except TrajectoryError as error:
                    self.warnings.append(f"g(r) of {'-'.join(pair)}, {region}: {error}")
                    continue
                found.append((f"{'-'.join(pair)}, {region}", g))
                try:
                    minimum: float | None = g.first_minimum
                except TrajectoryError:
                    minimum = None
                rows.append(
                    PeakRow(
                        pair="-".join(pair),
                        region=region,
                        first_minimum_A=minimum,
                        coordination=None if minimum is None else g.coordination(minimum),
                    )
                )
        return found, rows

    def _shells(self, run: SourceRun) -> dict[str, tuple[float, float]]:
        if self.width is None:
            return {"bulk": (0.0, math.inf)}
        beyond = self.here(run).default_bulk(self.width.value)
        return {"bulk": (beyond, math.inf), "boundary": (0.0, 0.5 * self.width.value)}

    def density(self) -> tuple[DensityGrid, IsosurfaceRow]:
        """Density of the mobile ions in the first of the structure's runs, on at most 400 000 points."""
        run = self.chosen[0]
        cell = next(run.source.chunks(1)).cells[0]
        spacing = max(0.2, (abs(float(np.linalg.det(cell))) / _MOST_GRID_POINTS) ** (1 / 3))
        grid = probability_density(
            run.source, self.settings.mobile, spacing=spacing, smoothing=_DENSITY_SMOOTHING,
            mobile=(self.settings.mobile,), stride=self.stride(run),
        )  # fmt: skip
        level = grid.isovalue(ISOSURFACE_SHARE)
        row = IsosurfaceRow(
            enclosed_share=ISOSURFACE_SHARE,
            level_per_A3=level,
            share_of_volume=grid.occupied_fraction(level),
            file=CUBE_NAME,
        )
        return grid, row

    def densities(self) -> list[DensityRow]:
        """Carriers and sites per volume by region: means over the runs; [] without `sites`.

        Uncertainty: the larger of blocking within the runs and of the scatter between them.
        """
        if not self.settings.sites:
            return []
        rows = []
        for region in ("bulk",) if self.width is None else ("bulk", "boundary"):
            parts = []
            for run in self.sources.runs:
                where: dict[str, float] = {}
                if self.width is not None:
                    beyond = self.here(run).default_bulk(self.width.value)
                    where = {"bulk_beyond": beyond} if region == "bulk" else {"width": self.width.value}
                parts.append(
                    region_densities(
                        run.source, sites=self.settings.sites, carrier=self.settings.mobile,
                        planes=None if self.width is None else self.here(run), mobile=(self.settings.mobile,),
                        stride=self.stride(run), **where,
                    )
                )  # fmt: skip
            carriers = _mean([(p.carrier_density, p.carrier_density_uncertainty) for p in parts])
            places = _mean([(p.site_density, p.site_density_uncertainty) for p in parts])
            if not places[0] > 0:
                raise InputError("sites", dict(self.settings.sites), "more sites than none in every region")
            rows.append(
                DensityRow(
                    region=region,
                    carrier_density_per_m3=carriers[0],
                    carrier_density_uncertainty_per_m3=carriers[1],
                    site_density_per_m3=places[0],
                    site_density_uncertainty_per_m3=places[1],
                )
            )
        return rows

    def composition(self) -> list[CompositionRow]:
        """Atomic percent of each species by region at the structure's temperature."""
        rows = []
        if self.width is None:
            first = self.chosen[0].source.species
            return [
                CompositionRow(
                    region="bulk",
                    species=s,
                    atomic_percent=100 * first.count(s) / len(first),
                    standard_error=0.0,
                )
                for s in sorted(set(first))
            ]
        parts = [
            region_composition(
                run.source,
                self.here(run),
                self.width.value,
                mobile=(self.settings.mobile,),
                stride=self.stride(run),
            )
            for run in self.chosen
        ]
        for k, symbol in enumerate(parts[0].species):
            for region in ("bulk", "boundary"):
                found = [getattr(p, region) for p in parts]
                value, error = _mean([(float(f.mean[k]), float(f.standard_error[k])) for f in found])
                rows.append(
                    CompositionRow(
                        region=region,
                        species=symbol,
                        atomic_percent=value,
                        standard_error=error if math.isfinite(error) else None,
                    )
                )
        return rows

    def segregation(self) -> list[SegregationRow]:
        """Segregation energies asked for; by default of the mobile ion and of what Monte Carlo exchanged."""
        if self.width is None:
            return []
        rows: list[SegregationRow] = []
        for asked in self.settings.segregation or self._usual_segregation():
            for kelvin, sources, planes, mobile in self._segregation_runs(asked):
                try:
                    energy = segregation_energy(
                        sources, planes, self.width.value, solute=asked.solute, sites=asked.sites,
                        temperature=kelvin, discard=asked.discard, mobile=mobile,
                        stride=max(self.stride(run) for run in self.chosen) if asked.runs == "production" else 1,
                    )  # fmt: skip
                except AtomisticError as error:
                    self.warnings.append(f"segregation energy of {asked.solute} at {kelvin:g} K: {error}")
                    continue
                if not math.isfinite(energy.standard_uncertainty):
                    self.warnings.append(
                        f"segregation energy of {asked.solute} at {kelvin:g} K: too few frames for its uncertainty"
                    )
                    continue
                rows.append(
                    SegregationRow(
                        solute=asked.solute,
                        runs=asked.runs,
                        temperature_K=kelvin,
                        energy_eV=energy.energy,
                        standard_uncertainty_eV=energy.standard_uncertainty,
                        boundary_occupancy=energy.boundary_occupancy,
                        bulk_occupancy=energy.bulk_occupancy,
                        converged=energy.converged,
                    )
                )
        return rows

    def _usual_segregation(self) -> list[SegregationSettings]:
        asked = []
        if self.settings.sites:
            asked.append(SegregationSettings(solute=self.settings.mobile, sites=self.settings.sites))
        campaign = self.sources.campaign
        if campaign is not None and campaign.settings.mcmd is not None:
            for one, other in campaign.settings.mcmd.pairs:
                if other != VACANCY and self.settings.mobile not in (one, other):
                    asked.append(SegregationSettings(solute=one, sites={one: 1.0, other: 1.0}, runs="mcmd"))
        return asked

    def _segregation_runs(
        self, asked: SegregationSettings
    ) -> list[tuple[float, list[TrajectorySource], list[BoundaryPlanes], tuple[str, ...]]]:
        """Temperature, runs, their planes, and the species that do not belong to the resting framework."""
        mobile = (self.settings.mobile,)
        if asked.runs == "production":
            by_kelvin: dict[float, list[SourceRun]] = {}
            for run in self.sources.runs:
                by_kelvin.setdefault(run.temperature, []).append(run)
            return [
                (kelvin, [r.source for r in runs], [self.here(r) for r in runs], mobile)
                for kelvin, runs in by_kelvin.items()
            ]
        campaign = self.sources.campaign
        if campaign is None or campaign.settings.mcmd is None:
            raise InputError("segregation.runs", "mcmd", "these runs have no Monte Carlo stage: 'production'")
        # Atoms that were swapped have moved across the cell: they tell no drift.
        swapped = {s for pair in campaign.settings.mcmd.pairs for s in pair if s != VACANCY}
        sources, planes = [], []
        for seed in campaign.settings.seeds:
            source = campaign.mcmd_trajectory(seed)
            if source is not None:
                sources.append(source)
                planes.append(noted_planes(campaign, seed, source, (*mobile, *swapped)))
        if not sources:
            raise TrajectoryError("the Monte Carlo stage has no frames")
        return [(campaign.settings.mcmd.temperature, list(sources), planes, (*mobile, *sorted(swapped)))]

    def rest(self) -> tuple[list[tuple[str, SiteEnergies]], list[RestRow]]:
        """Swap and vacancy energies on single sites of the equilibrated cell, less the bulk's mean, and their rows."""
        asked, campaign = self.settings.rest, self.sources.campaign
        if asked is None:
            return [], []
        if self.width is None or campaign is None or campaign.settings.cell.kind != "boundary":
            raise InputError("rest", None, "energies by distance need a campaign's boundary cell")
        from ase.optimize import FIRE

        from atomistic.mtp.calculator import MTPCalculator

        seed = campaign.settings.seeds[0] if asked.seed is None else asked.seed
        if seed not in campaign.settings.seeds:
            raise InputError("rest.seed", seed, f"one of {', '.join(map(str, campaign.settings.seeds))}")
        atoms = campaign.equilibrated(seed)
        if atoms is None or campaign.potential.suffix != ".mtp":
            raise InputError("rest", seed, "an equilibrated cell and a moment tensor potential are needed")
        calculator = MTPCalculator(campaign.potential, core=campaign.core)
        fmax = asked.fmax or None
        if fmax is not None:
            atoms.calc = calculator
            FIRE(atoms, logfile=None).run(fmax=fmax, steps=asked.steps)
            atoms.calc = None
        planes = moved_planes(campaign, seed, atoms, (self.settings.mobile, *swapped_species(campaign)))
        options = {"max_sites": asked.max_sites, "fmax": fmax, "steps": asked.steps}
        found: list[tuple[str, SiteEnergies]] = [
            (
                f"swap {solute}-{host}",
                swap_energies(atoms, calculator, planes, solute=solute, host=host, **options),  # type: ignore[arg-type]
            )
            for solute, host in asked.swaps
        ]
        if asked.vacancies:
            # Only differences between sites are reported, in which the chemical potential drops out.
            energies = vacancy_formation_energies(
                atoms,
                calculator,
                planes,
                chemical_potential=0.0,
                species=self.settings.mobile,
                **options,  # type: ignore[arg-type]
            )
            found.append((f"vacancy {self.settings.mobile}", energies))
        beyond = planes.default_bulk(self.width.value)
        rows, shown = [], []
        for name, energies in found:
            region = energies.by_region(self.width.value, beyond)
            shown.append((name, replace(energies, energy=energies.energy - region.bulk)))
            finite = math.isfinite(region.standard_uncertainty)
            rows.append(
                RestRow(
                    defect=name,
                    difference_eV=region.difference,
                    standard_uncertainty_eV=region.standard_uncertainty if finite else None,
                    lowest_eV=region.lowest,
                    boundary_sites=region.boundary_sites,
                    bulk_sites=region.bulk_sites,
                    relaxed=energies.relaxed,
                    all_converged=bool(np.all(energies.converged)),
                )
            )
        return shown, rows

    def order(self) -> list[OrderRow]:
        """A-site order of every run, where asked for or the campaign's cell is a perovskite's bulk."""
        asked = self.settings.order
        campaign = self.sources.campaign
        if asked is None and campaign is not None:
            asked = {
                "lstz": OrderSettings(), "llto": OrderSettings(heavy="La", b_sites=("Ti",)),
            }.get(campaign.settings.cell.kind)  # fmt: skip
        if asked is None:
            return []
        rows = []
        for run in self.sources.runs:
            found = a_site_order(
                run.source, heavy=asked.heavy, b_sites=asked.b_sites, axis=asked.axis, mobile=(self.settings.mobile,),
                stride=self.stride(run),
            )  # fmt: skip
            rows.append(
                OrderRow(
                    temperature_K=run.temperature,
                    seed=run.seed,
                    order=found.mean,
                    standard_error=found.standard_error,
                )
            )
        return rows


def _mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard uncertainty of runs' values: the larger of the runs' own and of their scatter."""
    middle = [v for v, _ in values]
    within = math.sqrt(sum(e**2 for _, e in values)) / len(values)
    if len(values) == 1:
        return middle[0], within
    return float(np.mean(middle)), max(within, float(np.std(middle, ddof=1)) / math.sqrt(len(values)))


def distance_slabs(planes: BoundaryPlanes, thickness: float) -> dict[str, list[tuple[float, float]]]:
    """Layers for `regional_diffusivity` by distance from the nearest plane, at least about `thickness` Å thick each."""
    half = 0.5 * planes.separation
    number = max(2, math.floor(half / thickness + 1e-9))
    edges = np.linspace(0.0, half, number + 1)
    heights = [f * planes.height for f in planes.fractions]
    ends = [*heights[1:], heights[0] + planes.height]
    found: dict[str, list[tuple[float, float]]] = {}
    for k in range(number):
        low, high = float(edges[k]), float(edges[k + 1])
        name = f"{low:.1f} to {high:.1f} A"
        layers = found.setdefault(name, [])
        for here, following in zip(heights, ends, strict=True):
            if k == number - 1:
                layers.append((here + low, following - low))
            else:
                layers += [(here + low, here + high), (following - high, following - low)]
    return found


def mean_profile(profiles: Sequence[Profile]) -> Profile:
    """Mean of profiles about the planes of several runs on the grid of the first.

    Errors are the larger of those within the runs and of the scatter between them.
    """
    first = profiles[0]
    if len(profiles) == 1:
        return first
    place = first.position / abs(first.position[0])

    def mean(values: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        heights, errors = np.array([v[0] for v in values]), np.array([v[1] for v in values])
        within = np.sqrt(np.mean(errors**2, axis=0))
        between = heights.std(axis=0, ddof=1)
        return heights.mean(axis=0), np.fmax(within, between) / math.sqrt(len(values))

    def along(p: Profile, values: Floats) -> Floats:
        return np.asarray(np.interp(place, p.position / abs(p.position[0]), values), dtype=np.float64)

    def means(name: str) -> tuple[dict[str, Floats], dict[str, Floats]]:
        kinds = [s for s in first.density if all(s in p.density for p in profiles)]
        parts = {
            s: mean(
                [(along(p, getattr(p, name)[s]), along(p, getattr(p, f"{name}_error")[s])) for p in profiles]
            )
            for s in kinds
        }
        return {s: part[0] for s, part in parts.items()}, {s: part[1] for s, part in parts.items()}

    density, density_error = means("density")
    percent, percent_error = means("atomic_percent")
    total, total_error = mean([(along(p, p.total), along(p, p.total_error)) for p in profiles])
    return Profile(
        first.position, density, density_error, percent, percent_error, total, total_error, first.height,
        sum(p.frames for p in profiles), first.about_plane,
    )  # fmt: skip
