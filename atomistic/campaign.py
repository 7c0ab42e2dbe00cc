"""Runs a sampling campaign: cells, gentle starts, Monte Carlo swaps, production; resumable at any moment.

The folder is that of `atomistic.sampling`. Every unit of work (a seed's equilibration, its swaps, one production run)
writes `run.json` last and is never repeated; within a unit MD continues from its restart file and swaps from their
last cycle, with the bytes of a campaign that was not killed. All random numbers follow from seed, stage, temperature
and cycle. LAMMPS runs through `atomistic.lammps` only. Units of different seeds and temperatures are independent and
run in processes of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED as FIRST
from concurrent.futures import Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from atomistic.building import build_campaign
from atomistic.dynamics import LammpsPotential, MDResult
from atomistic.errors import AtomisticError, FileFormatError, InputError
from atomistic.labels import frame_text, read_frames, write_bytes
from atomistic.lammps import run_burst, run_md
from atomistic.lammps_files import to_lammps_cell
from atomistic.monte_carlo import SwapSampler, lattice_sites
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.potential import MTPotential, read_mtp, write_mtp
from atomistic.sampling import (
    VACANCY,
    Campaign,
    CampaignSettings,
    McmdSettings,
    PairStyle,
    ProductionSettings,
    read_run,
    temperature_name,
)

if TYPE_CHECKING:
    from ase import Atoms

    from atomistic.trajectory_store import TrajectoryWriter

Floats = npt.NDArray[np.float64]
Stage = Literal["build", "mcmd", "md"]

SHIPPED = Path(__file__).parent / "potentials"
_MARKS = ("settings.json", "potential.mtp", "pair_style.json")
_EQUILIBRATION, _SWAPS, _PRESSURE, _RUN = 1, 2, 3, 4


def shipped_potentials() -> list[str]:
    """Names of the potentials that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.mtp"))


def open_campaign(settings: CampaignSettings, folder: Path, base: Path) -> None:
    """Make the folder with settings and potential, or check that it is this campaign's.

    base: folder that paths in the settings start from. Raises InputError where another campaign is there, or for a
    potential that is neither shipped nor a file, FileFormatError for a core that cannot be read.
    """
    path = folder / "settings.json"
    if path.exists():
        if Campaign.load(folder).settings.checksum != settings.checksum:
            raise InputError(
                "--out", str(folder), "a campaign with other settings is there; use a new folder"
            )
        return
    source = None
    if isinstance(settings.potential, str):
        source = SHIPPED / f"{settings.potential}.mtp"
        if not source.exists():
            source = base / settings.potential
        if not source.is_file():
            shipped = ", ".join(shipped_potentials())
            raise InputError("potential", settings.potential, f"a path of a .mtp file, or one of {shipped}")
    elif settings.mcmd is not None:
        raise InputError("mcmd", "a LAMMPS pair style", "swaps need a moment tensor potential")
    if settings.core is not None and source is None:
        raise InputError("core", settings.core, "cores belong to moment tensor potentials")
    grade = _grade_source(settings, base)
    potential = read_mtp(source) if source is not None else None
    core = _core_of(settings, source, potential, base)
    folder.mkdir(parents=True, exist_ok=True)
    if potential is not None:
        write_mtp(potential, folder / "potential.mtp")
        if core is not None:
            core.save(folder / "potential.core")
        if settings.grade_limit is not None:
            _write_grade(grade, potential, folder / "potential.grade")
    elif isinstance(settings.potential, PairStyle):
        files = [base / name for name in settings.potential.files]
        LammpsPotential(settings.potential.commands, settings.potential.species, files)
        for file in files:
            shutil.copyfile(file, folder / file.name)
        write_bytes(folder / "pair_style.json", settings.potential.model_dump_json(indent=1).encode())
    write_bytes(path, (settings.model_dump_json(indent=1) + "\n").encode())


def _core_of(
    settings: CampaignSettings, source: Path | None, potential: MTPotential | None, base: Path
) -> RepulsiveCore | None:
    """The core named in the settings, else the one beside the potential, else None."""
    if source is None or potential is None:
        return None
    if settings.core is None:
        return RepulsiveCore.beside(source, potential.species)
    return RepulsiveCore.load(base / settings.core, potential.species)


def _grade_source(settings: CampaignSettings, base: Path) -> Path | None:
    """The active set's file, or the labels of a shipped potential; None without a limit."""
    if settings.grade_limit is None:
        return None
    if not isinstance(settings.potential, str):
        raise InputError("grade_limit", settings.grade_limit, "grades belong to moment tensor potentials")
    if settings.grade is not None:
        return base / settings.grade
    labels = SHIPPED / "data" / f"{settings.potential.rsplit('-level', 1)[0]}.labels.xyz.gz"
    if not labels.exists():
        raise InputError(
            "grade",
            None,
            "the file of `atomistic active-set` is needed for a grade_limit with this potential",
        )
    return labels


def _write_grade(source: Path | None, potential: MTPotential, path: Path) -> None:
    from atomistic.mtp.grade import ActiveSet, select_active_set

    assert source is not None
    if source.name.endswith(".xyz.gz"):
        select_active_set(potential, read_frames(source)).save(path)
    else:
        ActiveSet.load(source, potential)
        shutil.copyfile(source, path)


class _Unit:
    """What every unit of work needs, read from the campaign's folder."""

    def __init__(self, folder: Path, seed: int, stage: str, temperature: float) -> None:
        self.campaign = Campaign.load(folder)
        self.settings, self.seed, self.stage, self.temperature = (
            self.campaign.settings,
            seed,
            stage,
            temperature,
        )
        parts = [stage, temperature_name(temperature)] if stage == "production" else [stage]
        self.folder = folder.joinpath(*parts, f"seed{seed}")
        self.work = self.folder / "work"
        self.potential: MTPotential | LammpsPotential
        if self.campaign.potential.suffix == ".mtp":
            self.potential = read_mtp(self.campaign.potential)
        else:
            style = self.settings.potential
            if isinstance(style, str):
                raise FileFormatError(folder / "potential.mtp", None, "is missing", "run in a new folder")
            files = [folder / Path(name).name for name in style.files]
            self.potential = LammpsPotential(style.commands, style.species, files)
        self.core = self.campaign.core
        grade = folder / "potential.grade"
        self.grade = grade if grade.exists() else None

    def random_seed(self, code: int, *more: int) -> int:
        """A seed of its own for each stage, temperature and cycle."""
        words = [self.seed, code, round(1000 * self.temperature), *more]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) % 899_999_999 + 1

    def steps(self, time_ps: float) -> int:
        return round(time_ps * 1e3 / self.settings.timestep_fs)

    def options(self, frame_ps: float) -> dict[str, Any]:
        """Settings of MD common to all stages."""
        settings = self.settings
        every = max(1, self.steps(frame_ps))
        segment = max(1, round(self.steps(settings.segment_ps) / every)) * every
        options: dict[str, Any] = {
            "temperature": self.temperature,
            "timestep_fs": settings.timestep_fs,
            "pressure_bar": settings.pressure_bar,
            "processes": settings.processes,
            "dump_every": every,
            "thermo_every": every,
            "segment_steps": segment,
        }
        if settings.framework_limit is not None:
            options |= {"framework": settings.framework, "framework_limit": settings.framework_limit}
        if self.grade is not None:
            options |= {"grade_every": settings.grade_every, "grade_limit": settings.grade_limit}
        return options

    def run(self, atoms: Atoms, name: str, **options: Any) -> MDResult:
        return run_md(
            atoms,
            self.potential,
            directory=self.work / name,
            engine=self.settings.engine,
            core=self.core,
            grade_file=self.grade,
            **options,
        )

    def finish(self, final: Atoms, record: dict[str, Any]) -> dict[str, Any]:
        """Write final.extxyz and run.json, and remove the work folder."""
        symbols = final.get_chemical_symbols()
        full = {
            "stage": self.stage,
            "temperature_K": self.temperature,
            "seed": self.seed,
            "atoms": len(final),
            "species": {s: symbols.count(s) for s in sorted(set(symbols))},
            "timestep_fs": self.settings.timestep_fs,
            **record,
            **self.campaign.checksums(),
            "settings_sha256": self.settings.checksum,
            "versions": {name: version(name) for name in ("mesoion", "lammps", "numpy")},
        }
        write_bytes(self.folder / "final.extxyz", frame_text(final).encode())
        write_bytes(self.folder / "run.json", (json.dumps(full, indent=1) + "\n").encode())
        shutil.rmtree(self.work, ignore_errors=True)
        return full

    def copy(self, name: str, source: Path) -> None:
        """Put a file into the unit's folder in one step."""
        part = self.folder / f".{name}.part"
        shutil.copyfile(source, part)
        part.replace(self.folder / name)


def _how(result: MDResult, wanted_steps: int) -> dict[str, Any]:
    """Entries of run.json that come from an MD run; means over its second half."""
    md, thermo = result.settings, result.thermo
    later = thermo[thermo["step"] >= 0.5 * thermo["step"].max()] if len(thermo) else thermo

    def mean(column: str) -> float | None:
        value = float(later[column].mean()) if len(later) else np.nan
        return value if np.isfinite(value) else None

    return {
        "ensemble": md.ensemble,
        "time_ps": result.steps * md.timestep_fs * 1e-3,
        "wanted_ps": wanted_steps * md.timestep_fs * 1e-3,
        "frame_interval_ps": md.dump_every * md.timestep_fs * 1e-3,
        "stopped": result.stopped,
        "stopped_in": result.stage if result.stopped else None,
        "grade": result.grade,
        "mean_temperature_K": mean("temperature_K"),
        "mean_volume_A3": mean("volume_A3"),
        "mean_potential_energy_eV": mean("potential_energy_eV"),
        "engine": result.engine,
    }


def _second_half(result: MDResult) -> tuple[Floats, Atoms]:
    """Mean cell (3, 3) Å and mean structure of the second half of a run's frames."""
    from atomistic.trajectory import read_trajectory

    frames = read_trajectory(result.trajectory, format="own")
    half = frames.part(slice(frames.n_frames // 2, None, None))
    cell = half.cells.mean(axis=0)
    mean = half.atoms(0)
    fractions = np.einsum("fai,fij->faj", half.positions, np.linalg.inv(half.cells)).mean(axis=0)
    mean.set_cell(cell)
    mean.set_scaled_positions(fractions)
    return cell, mean


def _in_cell(atoms: Atoms, cell: Floats) -> Atoms:
    """A copy strained to another cell."""
    copy: Atoms = atoms.copy()
    copy.set_cell(cell, scale_atoms=True)
    return copy


def equilibrate(folder: Path, seed: int) -> dict[str, Any]:
    """Minimise, heat, and find the volume of a seed's cell. Returns its run.json."""
    settings = Campaign.load(folder).settings
    temperature = settings.equilibration_temperature
    if temperature is None:
        raise InputError("equilibration.temperature", None, "give one, or [mcmd] or [production]")
    unit = _Unit(folder, seed, "equilibration", temperature)
    if done := read_run(unit.folder):
        return done
    stage, steps = settings.equilibration, unit.steps(settings.equilibration.npt_ps)
    result = unit.run(
        unit.campaign.cell(seed),
        "md",
        **unit.options(0.1),
        steps=steps,
        ensemble="npt" if steps else "nvt",
        barostat=stage.barostat,
        minimise=stage.minimise,
        ramp_steps=2 * unit.steps(stage.ramp_ps),
        seed=unit.random_seed(_EQUILIBRATION),
        store="own",
    )
    final, mean = result.final, result.final.copy()
    if steps and result.stopped is None:
        cell, mean = _second_half(result)
        final = _in_cell(final, cell)
    write_bytes(unit.folder / "mean.extxyz", frame_text(mean).encode())
    unit.copy("thermo.csv", result.folder / "thermo.csv")
    return unit.finish(final, _how(result, steps))


def swap(folder: Path, seed: int, progress: bool | None = None) -> dict[str, Any]:
    """The Monte Carlo stage of a seed, from its last finished cycle on. Returns its run.json."""
    settings = Campaign.load(folder).settings
    assert settings.mcmd is not None
    unit = _Unit(folder, seed, "mcmd", settings.mcmd.temperature)
    if done := read_run(unit.folder):
        return done
    return _SwapStage(unit, settings.mcmd).run(progress)


def _on_sites(mcmd: McmdSettings) -> list[str]:
    """Species that stand on lattice sites: those named, those swapped with vacancies, and partners of both."""
    found = {*mcmd.sites, *(pair[0] for pair in mcmd.pairs if VACANCY in pair)}
    if mcmd.moves == "translate":
        for pair in [*mcmd.pairs, *reversed(mcmd.pairs)]:
            if not found or found & set(pair):
                found |= set(pair) - {VACANCY}
    return sorted(found) if mcmd.moves == "translate" or any(VACANCY in pair for pair in mcmd.pairs) else []


class _SwapStage:
    """Cycles of swaps and bursts, with the state of the last one on disk."""

    def __init__(self, unit: _Unit, mcmd: McmdSettings) -> None:
        assert isinstance(unit.potential, MTPotential)
        self.unit, self.mcmd, self.potential = unit, mcmd, unit.potential
        before = unit.campaign.folder / "equilibration" / f"seed{unit.seed}"
        self.start = to_lammps_cell(read_frames(before / "final.extxyz")[-1])
        self.symbols = self.start.get_chemical_symbols()
        on_sites, sites = _on_sites(mcmd), None
        self.anchor: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        if on_sites:
            mean = to_lammps_cell(read_frames(before / "mean.extxyz")[-1])
            own, mobile = list(mcmd.sites) or on_sites, sorted({"Li", *on_sites})
            sites = lattice_sites(mean, own, mobile=mobile)
            self.anchor = np.flatnonzero(~np.isin(self.symbols, [*own, *mobile]))
            self.mean = mean.get_scaled_positions(wrap=False)
        self.sampler = SwapSampler(
            self.potential,
            self.symbols,
            mcmd.pairs,
            mcmd.temperature,
            moves=mcmd.moves,
            sites=sites,
            on_sites=on_sites,
            core=unit.core,
        )
        self.state_file = unit.work / "state.npz"

    def _offset(self, fractions: Floats) -> Floats:
        """Mean drift of the host lattice from the structure its sites were found in, as a fraction."""
        if not len(self.anchor):
            return np.zeros(3)
        step = fractions[self.anchor] - self.mean[self.anchor]
        drift: Floats = (step - np.rint(step)).mean(axis=0)
        return drift

    def run(self, progress: bool | None) -> dict[str, Any]:
        from atomistic.progress import track

        unit, mcmd = self.unit, self.mcmd
        unit.work.mkdir(parents=True, exist_ok=True)
        cycle, fractions = self._resume()
        cell = self.start.cell.array
        stopped: str | None = None
        grade: float | None = None
        with self._writer(cycle) as writer:
            if cycle == 0:
                writer.append(0.0, cell, fractions @ cell)
                writer.flush()
                self._save(0, fractions)
            label = f"swaps at {mcmd.temperature:g} K"
            for number in track(
                range(cycle + 1, mcmd.cycles + 1), label, mcmd.cycles, done=cycle, show=progress
            ):
                swaps = self.sampler.run(
                    fractions,
                    cell,
                    mcmd.attempts,
                    np.random.default_rng([unit.seed, _SWAPS, number]),
                    offset=self._offset(fractions),
                )
                # The unwrapped place nearest to where the atom was.
                fractions = swaps.fractions + np.rint(fractions - swaps.fractions)
                burst, fractions = self._burst(fractions, number)
                if burst.stopped is not None:
                    stopped, grade = burst.stopped, burst.grade
                    break
                last = burst.thermo.iloc[-1]
                row = [number, swaps.energy, float(last["potential_energy_eV"]), float(last["temperature_K"])]
                for attempts, accepted in zip(swaps.attempts, swaps.accepted, strict=True):
                    row += [int(attempts), int(accepted)]
                with (unit.folder / "cycles.csv").open("a", encoding="utf-8") as stream:
                    stream.write(",".join(repr(value) for value in row) + "\n")
                writer.append(number * mcmd.burst_ps, cell, fractions @ cell)
                writer.flush()
                cycle = number
                self._save(cycle, fractions)
        final: Atoms = self.start.copy()
        final.set_scaled_positions(fractions)
        return unit.finish(final, self._summary(cycle, stopped, grade))

    def _burst(self, fractions: Floats, number: int) -> tuple[MDResult, Floats]:
        """MD at constant energy from velocities drawn at the temperature; the unwrapped fractions after it."""
        from ase.units import kB

        unit = self.unit
        atoms: Atoms = self.start.copy()
        atoms.set_scaled_positions(fractions)
        rng = np.random.default_rng([unit.seed, _SWAPS, number, 1])
        masses = atoms.get_masses()[:, None]
        momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * kB * self.mcmd.temperature)
        atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
        steps = max(1, unit.steps(self.mcmd.burst_ps))
        options = unit.options(self.mcmd.burst_ps) | {"dump_every": steps, "thermo_every": steps}
        result = run_burst(
            atoms,
            self.potential,
            directory=unit.work / "burst",
            engine=unit.settings.engine,
            core=unit.core,
            grade_file=unit.grade,
            **options,
            steps=steps,
            ensemble="nve",
            keep_velocities=True,
        )
        after = result.final.positions @ np.linalg.inv(result.final.cell.array)
        # LAMMPS began with the atoms inside the cell and then followed them.
        return result, after + np.floor(fractions) if result.stopped is None else fractions

    def _save(self, cycle: int, fractions: Floats) -> None:
        import io

        folder, buffer = self.unit.folder, io.BytesIO()
        table = folder / "cycles.csv"
        lengths = [(folder / "trajectory.bin").stat().st_size, table.stat().st_size]
        np.savez(buffer, cycle=cycle, fractions=fractions, lengths=np.array(lengths))
        write_bytes(self.state_file, buffer.getvalue())

    def _resume(self) -> tuple[int, Floats]:
        """Cycle and fractions to go on from; files are cut to what belongs to that cycle."""
        folder = self.unit.folder
        table = folder / "cycles.csv"
        if not self.state_file.exists():
            names = [
                f"{kind}_{'_'.join(pair)}" for pair in self.mcmd.pairs for kind in ("attempts", "accepted")
            ]
            head = ["cycle", "energy_after_swaps_eV", "energy_after_burst_eV", "temperature_K", *names]
            table.write_text(",".join(head) + "\n", encoding="utf-8")
            (folder / "trajectory.bin").unlink(missing_ok=True)
            return 0, self.start.get_scaled_positions(wrap=False)
        try:
            with np.load(self.state_file, allow_pickle=False) as held:
                cycle, fractions, lengths = int(held["cycle"]), held["fractions"], held["lengths"]
        except (OSError, ValueError, KeyError) as error:
            raise FileFormatError(
                self.state_file, None, f"is damaged ({error})", f"remove {folder} and run again"
            ) from None
        for name, length in zip(("trajectory.bin", "cycles.csv"), lengths.tolist(), strict=True):
            with (folder / name).open("r+b") as stream:
                stream.truncate(length)
        return cycle, np.asarray(fractions, dtype=np.float64)

    def _writer(self, cycle: int) -> TrajectoryWriter:
        from atomistic.trajectory_store import TrajectoryWriter

        provenance = {
            "potential_checksum": self.potential.checksum,
            "settings_sha256": self.unit.settings.checksum,
            "seed": self.unit.seed,
            "exchanges": "atoms change places in swaps; between frames they may jump",
        }
        return TrajectoryWriter(
            self.unit.folder / "trajectory.bin",
            self.symbols,
            provenance=provenance,
            frames_per_block=1,
            append=cycle > 0,
        )

    def _summary(self, cycle: int, stopped: str | None, grade: float | None) -> dict[str, Any]:
        import pandas as pd

        table = pd.read_csv(self.unit.folder / "cycles.csv")
        later = table[table["cycle"] > 0.5 * self.mcmd.cycles]
        acceptance = {}
        for pair in self.mcmd.pairs:
            name = "_".join(pair)
            tried = float(table[f"attempts_{name}"].sum())
            acceptance[name] = float(table[f"accepted_{name}"].sum()) / tried if tried else None
        return {
            "ensemble": "nve",
            "time_ps": cycle * self.mcmd.burst_ps,
            "wanted_ps": self.mcmd.cycles * self.mcmd.burst_ps,
            "frame_interval_ps": self.mcmd.burst_ps,
            "cycles": cycle,
            "attempts_per_cycle": self.mcmd.attempts,
            "lattice_sites": len(self.sampler.sites),
            "acceptance": acceptance,
            "stopped": stopped,
            "stopped_in": None if stopped is None else "run",
            "grade": grade,
            "mean_temperature_K": float(later["temperature_K"].mean()) if len(later) else None,
            "mean_potential_energy_eV": float(later["energy_after_burst_eV"].mean()) if len(later) else None,
            "mean_volume_A3": float(self.start.get_volume()),
        }


def produce(folder: Path, temperature: float, seed: int) -> dict[str, Any]:
    """One production run. Returns its run.json."""
    unit = _Unit(folder, seed, "production", temperature)
    if done := read_run(unit.folder):
        return done
    production = unit.settings.production
    assert production is not None
    start = unit.campaign.equilibrated(seed)
    if start is None:
        stage = "equilibration" if unit.settings.mcmd is None else "mcmd"
        place = folder / stage / f"seed{seed}"
        raise FileFormatError(place, None, "holds no final.extxyz", "remove that folder and run again")
    result = _pressure_then_run(unit, production, start)
    for name in ("trajectory.bin", "thermo.csv"):
        unit.copy(name, result.folder / name)
    return unit.finish(result.final, _how(result, unit.steps(production.time_ps)))


def _pressure_then_run(unit: _Unit, production: ProductionSettings, start: Atoms) -> MDResult:
    """NPT for the volume of this temperature, then the run; the first of them that is stopped is returned."""
    ramp = 2 * unit.steps(production.ramp_ps)
    begin: dict[str, Any] = {"minimise": False, "ramp_steps": ramp, "start_temperature": unit.temperature}
    if production.npt_ps > 0:
        npt_run = unit.run(
            start,
            "npt",
            **unit.options(0.1),
            **begin,
            steps=unit.steps(production.npt_ps),
            ensemble="npt",
            barostat=production.barostat,
            seed=unit.random_seed(_PRESSURE),
            store="own",
        )
        if npt_run.stopped is not None:
            return npt_run
        start = npt_run.final
        if production.ensemble != "npt":
            start = _in_cell(start, _second_half(npt_run)[0])
        begin = {"minimise": False, "ramp_steps": 0, "keep_velocities": True}
    return unit.run(
        start,
        "run",
        **unit.options(production.frame_interval_ps),
        **begin,
        steps=unit.steps(production.time_ps),
        ensemble=production.ensemble,
        barostat=production.barostat,
        seed=unit.random_seed(_RUN),
        store="own",
    )


def _chain(folder: Path, seed: int, with_swaps: bool, progress: bool | None) -> dict[str, Any]:
    """Equilibration and swaps of one seed; the run.json of the last of them."""
    done = equilibrate(folder, seed)
    if with_swaps and done["stopped"] is None:
        done = swap(folder, seed, progress)
    return done


def run_campaign(
    settings: CampaignSettings,
    folder: str | Path,
    *,
    base: str | Path = ".",
    until: Stage = "md",
    workers: int = 1,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Run a campaign, or what is left of it; the run.json of all units, also in folder/results.json.

    base: folder that paths in the settings start from. until: "build" ends with the cells, "mcmd" before production.
    workers: units at a time, each in a process of its own. A seed whose equilibration or swaps were stopped (grade,
    temperature, lost atoms) has no production; its record says why.
    Raises InputError for what cannot be run, and whatever building or LAMMPS raise.
    """
    folder, base = Path(folder), Path(base)
    if workers < 1:
        raise InputError("workers", workers, "at least 1")
    if until == "md" and settings.production is None:
        raise InputError("production", None, "a table [production] with temperatures is needed for MD")
    if until == "mcmd" and settings.equilibration_temperature is None:
        raise InputError("mcmd", None, "a table [mcmd], or a temperature in [equilibration], is needed")
    fresh = not (folder.is_dir() and any(folder.iterdir()))
    there = folder.is_dir()
    if not fresh and not any((folder / name).exists() for name in _MARKS):
        raise InputError("--out", str(folder), "it holds something else than a campaign; use a new folder")
    try:
        open_campaign(settings, folder, base)
        mtp = folder / "potential.mtp"
        campaign = Campaign.load(folder)
        potential = read_mtp(mtp) if mtp.exists() else None
        build_campaign(settings, folder, base, potential, campaign.core, show=progress)
        _check_species(settings, campaign, potential)
    except AtomisticError:
        # Settings that cannot be built leave no folder in the way of the mended ones.
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
            if there:
                folder.mkdir()
        raise
    if until == "build":
        return []
    tell = say or (lambda text: None)
    temperatures = settings.production.temperatures if until == "md" and settings.production else ()
    records: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        records.append(record)
        end = record["stopped"] or "complete"
        tell(f"{record['stage']} {record['temperature_K']:g} K seed {record['seed']}: {end}")

    with_swaps = settings.mcmd is not None
    if workers == 1:
        for seed in settings.seeds:
            done = _chain(folder, seed, with_swaps, progress)
            note(done)
            for temperature in temperatures if done["stopped"] is None else ():
                note(produce(folder, temperature, seed))
    else:
        _in_processes(settings, folder, temperatures, workers, note)
    records.sort(key=lambda r: (r["stage"], r["temperature_K"], r["seed"]))
    write_bytes(folder / "results.json", (json.dumps(records, indent=1) + "\n").encode())
    return records


def _in_processes(
    settings: CampaignSettings,
    folder: Path,
    temperatures: tuple[float, ...],
    workers: int,
    note: Callable[[dict[str, Any]], None],
) -> None:
    """Chains of the seeds, each followed by its production runs, over processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: set[Future[dict[str, Any]]] = {
            pool.submit(_chain, folder, seed, settings.mcmd is not None, False) for seed in settings.seeds
        }
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST)
                for future in finished:
                    done = future.result()
                    note(done)
                    if done["stage"] != "production" and done["stopped"] is None:
                        pending |= {pool.submit(produce, folder, t, done["seed"]) for t in temperatures}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_species(settings: CampaignSettings, campaign: Campaign, potential: MTPotential | None) -> None:
    """Raises InputError for a species that is not there, before anything runs.

    Those of `framework` are the potential's, those of [mcmd] are in every seed's cell.
    """
    style = settings.potential
    known = sorted(potential.species if potential is not None else getattr(style, "species", ()))
    if missing := sorted(set(settings.framework) - set(known)):
        raise InputError("framework", missing, f"species of the potential: {', '.join(known)}")
    if settings.mcmd is None:
        return
    groups = [("mcmd.pairs", pair) for pair in settings.mcmd.pairs] + [("mcmd.sites", settings.mcmd.sites)]
    for seed in settings.seeds:
        present = sorted(set(campaign.cell(seed).get_chemical_symbols()))
        for where, group in groups:
            if any(s != VACANCY and s not in present for s in group):
                raise InputError(where, list(group), f"the cell of seed {seed} holds {', '.join(present)}")
