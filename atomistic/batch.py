"""Production runs of many campaigns at once on one GPU (or one host core), with the same potential.

A batch is a folder that needs nothing but a compiler, so that it can go to a machine with a GPU and come back:

    BATCH/
      job.txt         start structures, temperatures and seeds of all runs ("replicas")
      batch_md.cpp    molecular dynamics of all replicas at once; nvcc or g++ compiles it
      batch_model.h   the potential as straight C++
      index.json      which campaign, temperature and seed each replica is
      out.bin         written by the program

`export_batch` writes it from campaigns whose chains have ended, `run_batch` compiles and runs it, `import_batch` puts
the runs into the campaigns as if `atomistic md` had made them, with "batch" as their engine. Each run: velocities drawn
at its temperature, constant pressure (stochastic cell rescaling), then constant volume in the mean cell of the second
half, both under stochastic velocity rescaling with 0.1 ps (Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101,
2007; Bernetti, Bussi, J. Chem. Phys. 153, 114107, 2020). Lengths in Å, times in ps, energies in eV, pressures in bar.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomistic.errors import CompilerError, FileFormatError, InputError
from atomistic.labels import frame_text, write_bytes
from atomistic.lammps_files import to_lammps_cell
from atomistic.mtp.batch_source import model_header
from atomistic.mtp.plugin import cache_directory, find_compiler
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.record import file_sha256
from atomistic.sampling import Campaign, ProductionSettings, Run

if TYPE_CHECKING:
    from ase import Atoms

Floats = npt.NDArray[np.float64]

SOURCE = Path(__file__).parent / "mtp" / "batch_md.cpp"
RESOLUTION = 2.0**-5
"""Å; rounding of stored displacements: an error of 0.009 Å (root mean square), far below thermal motion."""

_HEAD = b"mtp-batch-2"
_BAROSTATS = {"iso": 1, "aniso": 3}
_STATES = {0: None, 1: "temperature", 2: "lost"}
_FLAGS = {
    "nvcc": ("-std=c++17", "-O3", "-arch=native", "-x", "cu"),
    "host": ("-std=c++17", "-O3", "-march=native"),
}


@dataclass(frozen=True)
class _Replica:
    campaign: Campaign
    run: Run
    start: Atoms


def _open_runs(folders: Sequence[Path]) -> list[_Replica]:
    """Runs that are neither finished nor begun elsewhere, of chains that have ended well."""
    replicas = []
    for folder in folders:
        campaign = Campaign.load(folder)
        production = campaign.settings.production
        if production is None:
            raise InputError(str(folder), "no [production]", "a campaign with temperatures is needed")
        if production.ensemble != "nvt" or production.barostat not in _BAROSTATS:
            raise InputError(
                f"{folder}: production",
                f"{production.ensemble}, {production.barostat}",
                "a batch runs ensemble nvt with barostat iso or aniso",
            )
        for run in campaign.runs:
            stage = "equilibration" if campaign.settings.mcmd is None else "mcmd"
            chain = campaign.folder / stage / f"seed{run.seed}" / "run.json"
            start = campaign.equilibrated(run.seed)
            if run.finished or start is None or not chain.exists():
                continue
            if json.loads(chain.read_text(encoding="utf-8"))["stopped"] is None:
                replicas.append(_Replica(campaign, run, to_lammps_cell(start)))
    return replicas


def _common(replicas: list[_Replica], given: set[str]) -> tuple[MTPotential, ProductionSettings, float]:
    """Potential, production settings and time step (fs) that all share, but for settings that are `given`.

    Raises InputError where they differ.
    """
    first = replicas[0].campaign
    if first.potential.suffix != ".mtp":
        raise InputError(str(first.folder), first.potential.name, "a batch runs moment tensor potentials")
    potential, settings = read_mtp(first.potential), first.settings
    assert settings.production is not None
    for campaign in {id(replica.campaign): replica.campaign for replica in replicas}.values():
        production = campaign.settings.production
        assert production is not None
        checks = {
            "potential": (campaign.checksums(), first.checksums()),
            "timestep_fs": (campaign.settings.timestep_fs, settings.timestep_fs),
            "production.npt_ps": (production.npt_ps, settings.production.npt_ps),
            "production.ramp_ps": (production.ramp_ps, settings.production.ramp_ps),
            "production.time_ps": (production.time_ps, settings.production.time_ps),
            "production.frame_interval_ps": (
                production.frame_interval_ps,
                settings.production.frame_interval_ps,
            ),
        }
        for key, (mine, other) in checks.items():
            if mine != other and key.rpartition(".")[2] not in given:
                raise InputError(
                    f"{campaign.folder}: {key}", mine, f"{other} as in {first.folder}; export them apart"
                )
    return potential, settings.production, settings.timestep_fs


def seed_of(temperature: float, seed: int, atoms: int) -> int:
    """The replica's random seed: its own for each temperature (K), seed and size."""
    words = [seed, 5, round(1000 * temperature), atoms]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def job_text(
    potential: MTPotential,
    replicas: Sequence[tuple[Atoms, float, float, int, int]],
    *,
    timestep_fs: float,
    npt_steps: int,
    steps: int,
    frame_steps: int,
    thermostat_ps: float = 0.1,
    skin: float = 0.6,
    resolution: float = RESOLUTION,
) -> str:
    """The job file. replicas: structure, temperature (K), pressure (bar), barostat (0, 1 iso, 3 axes), seed.

    thermostat_ps 0 keeps the energy. Raises SpeciesError for symbols the potential does not know.
    """
    from ase.data import atomic_masses, atomic_numbers

    lines = [
        f"mtp-batch-2\npotential {potential.checksum}",
        f"timestep_ps {timestep_fs * 1e-3!r}\nskin {skin!r}\nthermostat_ps {thermostat_ps!r}",
        f"resolution {resolution!r}\nnpt_steps {npt_steps}\nsteps {steps}\nframe_steps {frame_steps}",
        "masses " + " ".join(repr(float(atomic_masses[atomic_numbers[s]])) for s in potential.species),
    ]
    for atoms, temperature, pressure, barostat, seed in replicas:
        lines.append(f"replica {len(atoms)} {temperature!r} {pressure!r} {barostat} {seed}")
        lines.append(" ".join(repr(float(x)) for x in atoms.cell.array.ravel()))
        kinds = potential.types_of(atoms.get_chemical_symbols())
        for kind, (x, y, z) in zip(kinds.tolist(), atoms.positions.tolist(), strict=True):
            lines.append(f"{kind} {x!r} {y!r} {z!r}")
    return "\n".join(lines) + "\n"


def export_batch(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    time_ps: float | None = None,
    npt_ps: float | None = None,
    frame_interval_ps: float | None = None,
) -> dict[str, Any]:
    """Write the batch of all runs that are open in these campaigns. Returns index.json.

    time_ps, npt_ps, frame_interval_ps: instead of those of the campaigns. All campaigns share potential and time step.
    Raises InputError where nothing is open, campaigns differ, or `out` holds another batch.
    """
    out = Path(out)
    if (out / "index.json").exists():
        raise InputError("--out", str(out), "a batch is there; import it or use a new folder")
    replicas = _open_runs([Path(folder) for folder in folders])
    if not replicas:
        raise InputError(
            "campaigns", len(folders), "none has an open run whose equilibration and swaps ended well"
        )
    given = {"time_ps": time_ps, "npt_ps": npt_ps, "frame_interval_ps": frame_interval_ps}
    chosen = {key for key, value in given.items() if value is not None}
    potential, production, timestep = _common(
        replicas, chosen | ({"ramp_ps"} if "npt_ps" in chosen else set())
    )

    def steps(time: float) -> int:
        return max(1, round(time * 1e3 / timestep))

    length = steps(production.time_ps if time_ps is None else time_ps)
    every = steps(production.frame_interval_ps if frame_interval_ps is None else frame_interval_ps)
    # Whole frames only, so that every stored run ends with one.
    length = max(1, length // every) * every
    rows: list[dict[str, Any]] = []
    jobs = []
    for replica in replicas:
        settings, run, start = replica.campaign.settings, replica.run, replica.start
        assert settings.production is not None
        barostat = _BAROSTATS[settings.production.barostat]
        seed = seed_of(run.temperature, run.seed, len(start))
        jobs.append((start, run.temperature, settings.pressure_bar, barostat, seed))
        where = os.path.relpath(replica.campaign.folder.resolve(), out.resolve())
        rows.append(
            {"campaign": where, "temperature_K": run.temperature, "seed": run.seed, "atoms": len(start)}
        )
    pressure = production.npt_ps + production.ramp_ps if npt_ps is None else npt_ps
    npt_steps = steps(pressure) if pressure > 0 else 0
    index = {
        "format": "mesoion batch 1",
        "potential": potential.checksum,
        "timestep_fs": timestep,
        "npt_steps": npt_steps,
        "steps": length,
        "frame_steps": every,
        "atoms": sum(row["atoms"] for row in rows),
        "replicas": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "batch_model.h", model_header(potential, replicas[0].campaign.core).encode())
    shutil.copyfile(SOURCE, out / SOURCE.name)
    job = job_text(
        potential, jobs, timestep_fs=timestep, npt_steps=npt_steps, steps=length, frame_steps=every
    )
    write_bytes(out / "job.txt", job.encode())
    write_bytes(out / "index.json", (json.dumps(index, indent=1) + "\n").encode())
    return index


def compile_batch(folder: str | Path, *, gpu: bool | None = None) -> Path:
    """The batch's program, compiled by nvcc (gpu; None: where it is found) or the C++ compiler, or from the cache.

    Raises CompilerError, with the remedy.
    """
    folder = Path(folder)
    nvcc = shutil.which("nvcc")
    if gpu and nvcc is None:
        raise CompilerError("nvcc was not found; install the CUDA toolkit or run on the host (--host)")
    use_gpu = nvcc is not None if gpu is None else gpu
    compiler = Path(nvcc) if use_gpu and nvcc else find_compiler()
    flags = _FLAGS["nvcc" if use_gpu else "host"]
    digest = hashlib.sha256("\0".join([str(compiler), *flags]).encode())
    for name in (SOURCE.name, "batch_model.h"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise FileFormatError(
                folder / name, None, f"cannot be read ({error.strerror})", "give a folder of batch-export"
            ) from None
    target = cache_directory() / "batches" / digest.hexdigest()[:24]
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        [str(compiler), *flags, f"-I{folder}", str(folder / SOURCE.name), "-o", str(part)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        part.unlink(missing_ok=True)
        raise CompilerError(f"the batch did not compile with {compiler}: {done.stderr[-2000:]}")
    os.replace(part, target)
    return target


def run_batch(folder: str | Path, *, seconds: float = 1e9, gpu: bool | None = None) -> str:
    """Compile and run a batch; out.bin appears when it has ended. Returns the program's line on its speed.

    seconds: stop at the first frame after this time; all runs then have the same, shorter length.
    Raises CompilerError, and InputError where the program refuses the job or finds no GPU.
    """
    folder = Path(folder)
    if not seconds > 0:
        raise InputError("seconds", seconds, "a positive time")
    program, part = compile_batch(folder, gpu=gpu), folder / "out.bin.part"
    done = subprocess.run(
        [str(program), str(folder / "job.txt"), str(part), repr(float(seconds))],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        part.unlink(missing_ok=True)
        raise InputError(
            "batch", str(folder), done.stderr.strip() or f"its program ended with {done.returncode}"
        )
    part.replace(folder / "out.bin")
    return done.stdout.strip()


@dataclass(frozen=True)
class BatchOutput:
    """What a batch has written, frames still on disk.

    dt: ps; resolution: Å; origin (atoms, 3) Å, unwrapped; cells (replicas, 3, 3) Å; steps (frames,); reports (frames,
    replicas, 7): temperature K, potential energy eV, stresses xx yy zz bar, volume Å³, state; moves (frames, atoms, 3):
    displacements from the origin in units of the resolution; final (atoms, 3) Å and velocities (atoms, 3) Å/ps.
    """

    dt: float
    resolution: float
    origin: Floats
    cells: Floats
    steps: npt.NDArray[np.int64]
    reports: Floats
    moves: npt.NDArray[np.int16]
    final: Floats
    velocities: Floats


def read_output(path: str | Path) -> BatchOutput:
    """Read out.bin. Raises FileFormatError where it is damaged or unfinished."""
    path = Path(path)

    def damaged(what: str) -> FileFormatError:
        return FileFormatError(path, None, what, "run the batch again")

    try:
        with open(path, "rb") as stream:
            words = stream.readline(200).split()
            begin = stream.tell()
        size = path.stat().st_size
    except OSError as error:
        raise FileFormatError(
            path, None, f"cannot be read ({error.strerror})", "run the batch first"
        ) from None
    try:
        if words[0] != _HEAD:
            raise ValueError
        replicas, atoms, dt, resolution = int(words[1]), int(words[2]), float(words[3]), float(words[4])
    except (ValueError, IndexError):
        raise damaged("is no output of a batch") from None
    start = np.dtype([("mark", "S1"), ("x", "<f8", (atoms, 3)), ("cells", "<f8", (replicas, 3, 3))])
    frame = np.dtype(
        [("mark", "S1"), ("step", "<i8"), ("report", "<f8", (replicas, 7)), ("moves", "<i2", (atoms, 3))]
    )
    end = np.dtype([("mark", "S1"), ("step", "<i8"), ("x", "<f8", (atoms, 3)), ("v", "<f8", (atoms, 3))])
    room = size - begin - start.itemsize - end.itemsize
    if room < frame.itemsize or room % frame.itemsize:
        raise damaged("is cut or was not finished")
    first = np.memmap(path, start, "r", begin, (1,))[0]
    frames = np.memmap(path, frame, "r", begin + start.itemsize, (room // frame.itemsize,))
    last = np.memmap(path, end, "r", size - end.itemsize, (1,))[0]
    if first["mark"] != b"O" or last["mark"] != b"E" or np.any(frames["mark"] != b"F"):
        raise damaged("has blocks of no known kind")
    return BatchOutput(
        dt=dt,
        resolution=resolution,
        origin=first["x"],
        cells=first["cells"],
        steps=np.array(frames["step"]),
        reports=np.array(frames["report"]),
        moves=frames["moves"],
        final=last["x"],
        velocities=last["v"],
    )


def read_index(folder: str | Path) -> dict[str, Any]:
    """index.json of a batch. Raises FileFormatError."""
    path = Path(folder) / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != "mesoion batch 1":
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            path, None, f"cannot be used ({error})", "give a folder of batch-export"
        ) from None
    return dict(index)


def import_batch(folder: str | Path) -> list[dict[str, Any]]:
    """Put the runs of a batch that has ended into their campaigns. Returns their run.json; finished runs stay.

    A run whose temperature ran away or whose atoms came too close ends with its last sound frame, as stopped.
    Raises FileFormatError for a damaged output or campaign, InputError where a campaign's potential or cell changed.
    """
    folder = Path(folder)
    index = read_index(folder)
    output = read_output(folder / "out.bin")
    rows = index["replicas"]
    if len(rows) != len(output.cells) or index["atoms"] != len(output.origin):
        raise FileFormatError(folder / "out.bin", None, "belongs to another batch", "run this batch")
    records, begin = [], 0
    for number, row in enumerate(rows):
        part = slice(begin, begin + row["atoms"])
        begin += row["atoms"]
        campaign = Campaign.load(folder / row["campaign"])
        found = [
            run for run in campaign.runs if (run.temperature, run.seed) == (row["temperature_K"], row["seed"])
        ]
        start = campaign.equilibrated(row["seed"])
        same = file_sha256(campaign.potential) if campaign.potential.exists() else ""
        if not found or start is None or len(start) != row["atoms"] or not same:
            raise InputError(str(campaign.folder), f"{row['temperature_K']:g} K", "its settings have changed")
        if read_mtp(campaign.potential).checksum != index["potential"]:
            raise InputError(str(campaign.potential), index["potential"][:12], "the potential of the batch")
        if not found[0].finished:
            records.append(_store(campaign, found[0], start, output, index, number, part))
    return records


def _store(
    campaign: Campaign,
    run: Run,
    start: Atoms,
    output: BatchOutput,
    index: dict[str, Any],
    number: int,
    part: slice,
) -> dict[str, Any]:
    """Write one run's folder; run.json last."""
    import pandas as pd

    from atomistic.trajectory_store import TrajectoryWriter

    report = output.reports[:, number]
    sound = np.flatnonzero(report[:, 6] != 0)
    frames = int(sound[0]) if len(sound) else len(report)
    stopped = _STATES[int(report[-1, 6])]
    times = (output.steps - output.steps[0]) * output.dt
    cell, symbols = output.cells[number], start.get_chemical_symbols()
    run.folder.mkdir(parents=True, exist_ok=True)
    provenance = {
        "potential_checksum": index["potential"],
        "settings_sha256": campaign.settings.checksum,
        "seed": run.seed,
        "engine": "batch",
    }
    trajectory = run.folder / ".trajectory.bin.part"
    trajectory.unlink(missing_ok=True)
    with TrajectoryWriter(trajectory, symbols, provenance=provenance, resolution=output.resolution) as writer:
        for k in range(frames):
            moves = np.asarray(output.moves[k, part], dtype=np.float64)
            writer.append(float(times[k]), cell, output.origin[part] + moves * output.resolution)
    trajectory.replace(run.folder / "trajectory.bin")
    table = pd.DataFrame(
        {
            "step": output.steps[:frames],
            "temperature_K": report[:frames, 0],
            "potential_energy_eV": report[:frames, 1],
            "pressure_bar": -report[:frames, 2:5].mean(axis=1),
            "volume_A3": report[:frames, 5],
        }
    )
    write_bytes(run.folder / "thermo.csv", table.to_csv(index=False).encode())
    later = table[table["step"] >= 0.5 * table["step"].max()] if frames else table

    def mean(column: str) -> float | None:
        return float(later[column].mean()) if len(later) else None

    final: Atoms = start.copy()
    final.set_cell(cell)
    if stopped is None:
        final.positions = output.final[part]
        # ASE's unit of time is Å sqrt(amu/eV).
        final.set_velocities(output.velocities[part] * _ASE_PER_PS)
    elif frames:
        final.positions = output.origin[part] + output.moves[frames - 1, part] * output.resolution
    record = {
        "stage": "production",
        "temperature_K": run.temperature,
        "seed": run.seed,
        "atoms": len(start),
        "species": {s: symbols.count(s) for s in sorted(set(symbols))},
        "timestep_fs": index["timestep_fs"],
        "ensemble": "nvt",
        "time_ps": float(times[frames - 1]) if frames else 0.0,
        "wanted_ps": float(times[-1]),
        "frame_interval_ps": index["frame_steps"] * output.dt,
        "stopped": stopped,
        "stopped_in": None if stopped is None else "run" if frames else "npt",
        "grade": None,
        "mean_temperature_K": mean("temperature_K"),
        "mean_volume_A3": mean("volume_A3"),
        "mean_potential_energy_eV": mean("potential_energy_eV"),
        "engine": "batch",
        **campaign.checksums(),
        "settings_sha256": campaign.settings.checksum,
        "versions": {name: version(name) for name in ("mesoion", "numpy")},
    }
    write_bytes(run.folder / "final.extxyz", frame_text(final).encode())
    write_bytes(run.folder / "run.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


_ASE_PER_PS = (1.0364269574711572e-4) ** 0.5
"""Velocities in Å/ps to those in Å/(Å sqrt(amu/eV))."""
