"""Active learning of a moment tensor potential: one command, one folder, resumable anywhere.

Each round the present potential runs molecular dynamics on every system at every temperature; frames whose
extrapolation grade is high are chosen by MaxVol, a few others of each run at random; the teacher labels both; the
random ones measure the error *on the policy*, that is on structures the potential itself visits; then it is trained
again on all labels. It ends when that error meets the stated quality in every system and the stated number of long
runs at the hottest temperature pass without a grade above the limit.

Every stage of a round leaves a file that is written in one step, and a stage whose file is there is not repeated:

    labels.xyz                   all labels, in order            cells/            boundary cells, built once
    initial.xyz                  frames before any potential     rounds/00/training/...
    rounds/NN/md/...             runs, each resumable            rounds/NN/candidates.xyz
    rounds/NN/selected.xyz       chosen, with the reason         rounds/NN/report.json
    potential.mtp, .json, .md    the newest potential and its model card
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic.errors import FramesError, InputError, RunError
from atomistic.labels import LabelStore, import_labels, read_frames, structure_hash, write_bytes, write_frames
from atomistic.learning_cells import (
    SystemSettings,
    disturbed,
    squeezed,
    swap_monte_carlo,
    unique_frames,
)
from atomistic.mtp.accuracy import accuracy, accuracy_by_group, predict, without_core
from atomistic.mtp.grade import ActiveSet, select_active_set
from atomistic.mtp.jacobian import shortest_distance
from atomistic.mtp.model_card import make_card, save_with_card, shipped_folder
from atomistic.mtp.potential import MTPotential, read_mtp
from atomistic.mtp.training import Training, TrainingResult, TrainingSettings
from atomistic.settings_files import read_toml, validated
from atomistic.teachers import ChgnetSettings, TeacherSettings, label_frames, make_teacher

if TYPE_CHECKING:
    from ase import Atoms

MAX_ROUNDS: Final = 1000
FINER: Final = 10  # frames recorded for each one kept


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quality(_Model):
    """When to stop: errors on the policy (energy MAE in meV/atom, force RMSE in eV/angstrom) per system."""

    energy: Annotated[float, Field(gt=0.0)] = 2.0
    force: Annotated[float, Field(gt=0.0)] = 0.13


class Sampling(_Model):
    """Runs of one round and what is taken from them.

    steps, timestep_fs, frames: per run, frames recorded. on_policy: of these, labelled at random to measure the error.
    select_grade: frames above are offered to MaxVol; stop_grade: a run ends above. label_limit: selected per round.
    max_force (eV/angstrom) and shortest_distance (angstrom): beyond these, frames are not labelled.
    """

    steps: Annotated[int, Field(ge=10)] = 5000
    timestep_fs: Annotated[float, Field(gt=0.0, le=10.0)] = 2.0
    ramp_steps: Annotated[int, Field(ge=0)] = 1000
    frames: Annotated[int, Field(ge=1, le=10000)] = 25
    on_policy: Annotated[int, Field(ge=1)] = 2
    select_grade: Annotated[float, Field(ge=1.0)] = 2.0
    stop_grade: Annotated[float, Field(gt=1.0)] = 20.0
    label_limit: Annotated[int, Field(ge=1)] = 60
    max_force: Annotated[float, Field(gt=0.0)] = 40.0
    shortest_distance: Annotated[float, Field(gt=0.0)] = 1.0
    engine: str = "auto"


class Passing(_Model):
    """The long runs at the end: `runs` per system, `time_ps` at its hottest temperature, no grade above `grade`.

    systems: by name; all unless given.
    """

    runs: Annotated[int, Field(ge=0, le=1000)] = 3
    time_ps: Annotated[float, Field(gt=0.0)] = 100.0
    grade: Annotated[float, Field(gt=1.0)] = 20.0
    systems: tuple[str, ...] | None = None


class LearningSettings(_Model):
    """A SETTINGS.toml of `atomistic train`.

    name: of the potential. seed: of everything random. initial_labels: files of frames the same teacher labelled
    before. start: a shipped potential's name, or a `.mtp`, of the same species and tables, that the first training
    starts from. rounds: at most.
    round_iterations: of the training in each round, which starts from the potential of the one before; every
    `fresh_every`-th starts anew from random numbers (0: never). processes: teachers in parallel. quality: for all
    systems, quality_by_system for one. statement: what the model card says about validity.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=80)]
    seed: Annotated[int, Field(ge=0)] = 1
    teacher: TeacherSettings = ChgnetSettings()
    training: TrainingSettings
    systems: Annotated[tuple[SystemSettings, ...], Field(min_length=1)]
    sampling: Sampling = Sampling()
    quality: Quality = Quality()
    quality_by_system: dict[str, Quality] = {}
    passing: Passing = Passing()
    initial_labels: tuple[str, ...] = ()
    start: str | None = None
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = 8
    round_iterations: Annotated[int, Field(ge=1)] = 40
    fresh_every: Annotated[int, Field(ge=0)] = 0
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    statement: str = "Valid for the compositions, temperatures and kinds of structure listed below."

    @model_validator(mode="after")
    def _consistent(self) -> LearningSettings:
        names = [system.name for system in self.systems]
        if len(set(names)) != len(names):
            raise ValueError(f"systems: names must differ, got {names}")
        for key, given in (
            ("quality_by_system", self.quality_by_system),
            ("passing.systems", self.passing.systems or ()),
        ):
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"{key}: there is no system {unknown[0]!r}")
        if not any(system.temperatures for system in self.systems):
            raise ValueError("systems: at least one needs temperatures")
        return self

    def quality_of(self, system: str) -> Quality:
        """The quality asked of one system."""
        return self.quality_by_system.get(system, self.quality)


def load_settings(path: str | Path) -> LearningSettings:
    """Read a TOML file; InputError names the key, the value and what is allowed. Paths in it count from its folder."""
    path = Path(path)
    settings = validated(LearningSettings, read_toml(path, "docs/training.md"), path.name)

    def beside(text: str) -> str:
        return text if Path(text).is_absolute() else str(path.parent / text)

    change: dict[str, Any] = {
        "initial_labels": tuple(beside(f) for f in settings.initial_labels),
        "start": None if settings.start is None else str(_start(settings.start, path)),
        "systems": tuple(
            s if s.path is None else s.model_copy(update={"path": beside(s.path)}) for s in settings.systems
        ),
    }
    return settings.model_copy(update=change)


def _start(name: str, settings: Path) -> Path:
    """File of the potential to start from: a shipped one's name, or a path from the settings file's folder."""
    shipped = shipped_folder() / f"{name}.mtp"
    return shipped if shipped.exists() else settings.parent / name


class ActiveLearning:
    """One active learning in one folder; `run` does what is left of it.

    Raises InputError where the folder belongs to other settings (the number of rounds, qualities, passing, processes
    and the statement may change).
    """

    FREE: Final = (
        "rounds",
        "quality",
        "quality_by_system",
        "passing",
        "processes",
        "statement",
        "round_iterations",
    )

    def __init__(
        self,
        settings: LearningSettings,
        folder: str | Path,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.settings, self.folder = settings, Path(folder)
        self.say = say or (lambda text: None)
        self.folder.mkdir(parents=True, exist_ok=True)
        fixed = settings.model_dump(mode="json", exclude=set(self.FREE))
        fixed["training"] = settings.training.identity()
        fixed["training"].pop("iterations")
        # By name only: a folder may move together with its settings.
        fixed["initial_labels"] = [Path(name).name for name in settings.initial_labels]
        fixed["start"] = settings.start and Path(settings.start).name
        for system in fixed["systems"]:
            system["path"] = system["path"] and Path(system["path"]).name
        text = json.dumps(fixed, indent=1, sort_keys=True)
        path = self.folder / "settings.json"
        if path.exists() and path.read_text() != text:
            was, now = json.loads(path.read_text()), json.loads(text)
            changed = sorted(k for k in {*was, *now} if was.get(k) != now.get(k))
            raise InputError(
                "out",
                str(self.folder),
                f"it holds a learning with other {', '.join(changed)}; use a new folder",
            )
        write_bytes(path, text.encode())
        self.core = settings.training.repulsive_core()
        self.teacher = make_teacher(settings.teacher, self.folder / "calculations")
        self.store = LabelStore(self.folder / "labels.xyz", self.teacher.name, self.teacher.version)

    def _rng(self, *parts: object) -> np.random.Generator:
        digest = hashlib.sha256(repr((self.settings.seed, *parts)).encode()).digest()
        return np.random.default_rng(list(digest[:16]))

    def _label(self, frames: Sequence[Atoms]) -> list[Atoms]:
        report = label_frames(
            frames,
            self.teacher,
            self.store,
            processes=self.settings.processes,
            max_force=self.settings.sampling.max_force,
        )
        if report.refused:
            self.say(f"  {len(report.refused)} frames not labelled, the first: {report.refused[0][1]}")
        return report.frames

    def _allowed(self, frame: Atoms) -> bool:
        limit = self.settings.sampling.shortest_distance
        return shortest_distance(frame, max(limit, 1.0) + 1.0) >= limit

    def initial(self) -> None:
        """Labels before there is a potential: given ones, and disturbed cells of every system."""
        path = self.folder / "initial.xyz"
        if not path.exists():
            for name in self.settings.initial_labels:
                with self.store.locked():
                    new = import_labels(self.store, read_frames(name, labelled=True))
                self.say(f"{new} labels taken from {Path(name).name}")
            frames: list[Atoms] = []
            for system in self.settings.systems:
                for k in range(system.initial_frames):
                    rng = self._rng("initial", system.name, k)
                    cell = system.build(rng, self.folder / "cells")
                    frames.append(disturbed(cell, system, rng, rattle=True))
            write_frames(path, [f for f in frames if self._allowed(f)])
        if path.stat().st_size:
            self._label(read_frames(path))
        if not len(self.store):
            raise FramesError(
                "no initial frame could be labelled; raise initial_frames, lower rattle, or give initial_labels"
            )

    def _round(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:02d}"

    def train(self, number: int) -> tuple[MTPotential, TrainingResult | None]:
        """The potential of a round, trained on the labels there were at its start."""
        folder = self._round(number) / "training"
        done, count_path = folder / "potential.mtp", self._round(number) / "labels.json"
        if done.exists() and (folder / "training.json").exists() and (folder / "parity.png").exists():
            return read_mtp(done), None
        self._round(number).mkdir(parents=True, exist_ok=True)
        if not count_path.exists():
            write_bytes(count_path, json.dumps({"labels": len(self.store)}).encode())
        frames = self.store.frames[: json.loads(count_path.read_text())["labels"]]
        settings = self.settings.training
        start = None
        fresh = self.settings.fresh_every and number % self.settings.fresh_every == 0
        if number == 0 and self.settings.start is not None:
            start = read_mtp(self.settings.start, settings.species)
        elif number > 0 and not fresh:
            start = read_mtp(self._round(number - 1) / "training" / "potential.mtp")
            ridge = json.loads((self._round(number - 1) / "training" / "training.json").read_text())["ridge"]
            change = {"ridges": (ridge,), "iterations": self.settings.round_iterations}
            settings = settings.model_copy(update=change)
        training = Training(frames, settings, folder, start=start)
        self.say(
            f"round {number}: training on {len(training.training)} frames, {len(training.held_out)} held out"
        )
        result = training.run()
        self.say(result.summary())
        return result.potential, result

    def _active_set(self, number: int, potential: MTPotential) -> ActiveSet:
        path = self._round(number) / "active_set.grade"
        if not path.exists():
            count = json.loads((self._round(number) / "labels.json").read_text())["labels"]
            select_active_set(potential, self.store.frames[:count]).save(path)
        return ActiveSet.load(path, potential)

    def _md(
        self,
        folder: Path,
        start: Atoms,
        potential: MTPotential,
        grade_file: Path,
        *,
        temperature: float,
        steps: int,
        frames: int,
        seed: int,
        grade: float,
    ) -> tuple[str | None, float, list[Atoms]]:
        """Run, or continue; how it ended, its length in ps, its frames."""
        from atomistic.lammps import run_md

        sampling = self.settings.sampling
        try:
            result = run_md(
                start,
                potential,
                directory=folder,
                grade_file=grade_file,
                core=self.core,
                engine=sampling.engine,  # type: ignore[arg-type]
                temperature=temperature,
                steps=steps,
                timestep_fs=sampling.timestep_fs,
                ramp_steps=sampling.ramp_steps,
                dump_every=max(1, steps // (FINER * frames)),
                grade_every=10,
                grade_limit=grade,
                seed=seed,
                segment_steps=max(steps, 1) if steps <= 20000 else 10000,
            )
        except RunError as error:
            return str(error), 0.0, []
        group = start.info.get("group", "all")
        # A run that ends early still gives about as many frames, from shortly before.
        every = result.frames()
        chosen = np.unique(np.linspace(0, len(every) - 1, min(frames, len(every))).round().astype(int))
        found = [every[int(i)] for i in chosen]
        for frame in found:
            frame.info = {"group": group}
        if result.stopped is not None:
            found.append(result.final)
            result.final.info = {"group": group}
            result.final.calc = None
        return result.stopped, result.steps * sampling.timestep_fs * 1e-3, found

    def sample(self, number: int, potential: MTPotential) -> list[dict[str, Any]]:
        """Molecular dynamics of a round; writes candidates.xyz, whose frames say which run and grade they are from."""
        folder = self._round(number)
        path = folder / "candidates.xyz"
        if path.exists():
            return list(json.loads((folder / "runs.json").read_text()))
        active = self._active_set(number, potential)
        sampling = self.settings.sampling
        kept: list[Atoms] = []
        runs: list[dict[str, Any]] = []
        for system in self.settings.systems:
            for temperature in system.temperatures:
                for k in range(system.runs):
                    name = f"{system.name}-{temperature:g}K-{k}"
                    rng = self._rng("md", number, name)
                    start = disturbed(system.build(rng, self.folder / "cells"), system, rng, rattle=False)
                    seed = int(rng.integers(1, 900_000_000))
                    if system.exchange and system.swap_attempts:
                        swapped, _ = swap_monte_carlo(
                            start, potential, system.exchange, temperature, system.swap_attempts, rng
                        )
                        swapped.info, start = start.info, swapped
                    ended, length, frames = self._md(
                        folder / "md" / name,
                        start,
                        potential,
                        folder / "active_set.grade",
                        temperature=temperature,
                        steps=sampling.steps,
                        frames=sampling.frames,
                        seed=seed,
                        grade=sampling.stop_grade,
                    )
                    frames = [f for f in frames if self._allowed(f)]
                    extra = [
                        squeezed(f, rng, sampling.shortest_distance)
                        for f in frames
                        if rng.random() < system.squeeze
                    ]
                    grades = [float(active.grades(f).max()) for f in frames]
                    for frame, grade in zip(frames, grades, strict=True):
                        frame.info.update(run=name, grade=grade, policy=True)
                    for pushed in extra:
                        if pushed is not None:
                            grade = float(active.grades(pushed).max())
                            pushed.info.update(run=name, grade=grade, policy=False)
                            kept.append(pushed)
                    kept += frames
                    runs.append(
                        {
                            "run": name,
                            "system": system.name,
                            "temperature_K": temperature,
                            "ended": ended or "complete",
                            "time_ps": length,
                            "frames": len(frames),
                            "median_grade": float(np.median(grades)) if grades else None,
                            "max_grade": float(np.max(grades)) if grades else None,
                        }
                    )
                    self.say(f"  {name}: {ended or 'complete'}, {length:.1f} ps, {len(frames)} frames")
        write_bytes(folder / "runs.json", json.dumps(runs, indent=1).encode())
        write_frames(path, kept)
        return runs

    def select(self, number: int, potential: MTPotential) -> list[Atoms]:
        """Frames to label: a random few of each run (policy), and by MaxVol those that extend the active set."""
        folder = self._round(number)
        path = folder / "selected.xyz"
        if path.exists():
            return read_frames(path)
        candidates_path = folder / "candidates.xyz"
        candidates = read_frames(candidates_path) if candidates_path.stat().st_size else []
        if not candidates:
            raise RunError(
                f"round {number}: every run broke up before its first frame; add initial frames, lower the "
                "temperatures, or raise ramp_steps"
            )
        sampling, rng = self.settings.sampling, self._rng("select", number)
        on_policy: list[Atoms] = []
        on_policy_of = {system.name: system.on_policy for system in self.settings.systems}
        for run in dict.fromkeys(str(f.info["run"]) for f in candidates):
            visited = [
                f
                for f in candidates
                if f.info["run"] == run and f.info["policy"] and f.info["grade"] <= sampling.stop_grade
            ]
            if visited:
                wanted = on_policy_of[str(visited[0].info["group"])] or sampling.on_policy
                chosen = rng.choice(len(visited), min(wanted, len(visited)), replace=False)
                on_policy += [visited[int(i)] for i in sorted(chosen)]
        for frame in on_policy:
            frame.info["reason"] = "policy"
        taken = {structure_hash(f) for f in on_policy}
        offered = [
            f
            for f in candidates
            if f.info["grade"] > sampling.select_grade and structure_hash(f) not in taken
        ]
        if offered:
            _, extending = self._active_set(number, potential).extended(offered, sampling.select_grade)
            chosen_frames = sorted((offered[i] for i in extending), key=lambda f: -float(f.info["grade"]))
            for frame in chosen_frames[: sampling.label_limit]:
                frame.info["reason"] = "grade"
                on_policy.append(frame)
        selected = unique_frames(on_policy)
        write_frames(path, selected)
        return selected

    def measure(self, number: int, potential: MTPotential, selected: Sequence[Atoms]) -> dict[str, Any]:
        """Label the selected frames and measure the error on those of the policy."""
        folder = self._round(number)
        path = folder / "report.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        started = time.perf_counter()
        self._label(selected)
        policy = [self.store.get(f) for f in selected if f.info.get("reason") == "policy"]
        labelled = [f for f in policy if f is not None]
        predictions = predict(potential, without_core(labelled, self.core)) if labelled else []
        errors = {g: a.plain() for g, a in accuracy_by_group(predictions).items()} if predictions else {}
        by_run: dict[str, Any] = {}
        names = {structure_hash(f): str(f.info["run"]).rsplit("-", 1)[0] for f in selected}
        for name in sorted({names[structure_hash(f)] for f in labelled}):
            chosen = [
                p for p, f in zip(predictions, labelled, strict=True) if names[structure_hash(f)] == name
            ]
            by_run[name] = accuracy(chosen).plain()
        report = {
            "round": number,
            "potential_checksum": potential.checksum,
            "labels_before": json.loads((folder / "labels.json").read_text())["labels"],
            "labels_after": len(self.store),
            "selected": len(selected),
            "on_policy": errors,
            "on_policy_by_run": by_run,
            "labelling_time_s": time.perf_counter() - started,
        }
        write_bytes(path, json.dumps(report, indent=1).encode())
        return report

    def _met(self, errors: dict[str, Any]) -> dict[str, bool]:
        met = {}
        for system in self.settings.systems:
            if not system.temperatures:
                continue
            wanted, found = self.settings.quality_of(system.name), errors.get(system.name)
            met[system.name] = found is not None and (
                found["energy_mae_meV_per_atom"] <= wanted.energy
                and found["force_rmse_eV_per_angstrom"] <= wanted.force
            )
        return met

    def passing(self, number: int, potential: MTPotential) -> list[dict[str, Any]]:
        """The long runs at each system's hottest temperature; stops at the first that does not pass."""
        folder, wanted = self._round(number), self.settings.passing
        path = folder / "passing.json"
        outcomes: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        done = {row["run"] for row in outcomes}
        for k in range(wanted.runs):
            for system in self.settings.systems:
                if not system.temperatures or system.name not in (wanted.systems or [system.name]):
                    continue
                if outcomes and outcomes[-1]["ended"] != "complete":
                    return outcomes
                hottest = max(system.temperatures)
                name = f"{system.name}-{hottest:g}K-pass{k}"
                if name in done:
                    continue
                rng = self._rng("pass", number, name)
                start = disturbed(system.build(rng, self.folder / "cells"), system, rng, rattle=False)
                self._active_set(number, potential)
                steps = round(wanted.time_ps * 1e3 / self.settings.sampling.timestep_fs)
                ended, length, frames = self._md(
                    folder / "passing" / name,
                    start,
                    potential,
                    folder / "active_set.grade",
                    temperature=hottest,
                    steps=steps,
                    frames=200,
                    seed=int(rng.integers(1, 900_000_000)),
                    grade=wanted.grade,
                )
                if ended is not None:
                    last = [f for f in frames[-5:] if self._allowed(f)]
                    for frame in last:
                        frame.info.update(run=name, grade=0.0, policy=False, reason="grade")
                    write_frames(folder / "failed.xyz", last)
                outcomes.append(
                    {"run": name, "system": system.name, "ended": ended or "complete", "time_ps": length}
                )
                write_bytes(path, json.dumps(outcomes, indent=1).encode())
                self.say(f"  {name}: {ended or 'complete'}, {length:.1f} ps")
        return outcomes

    def run(self) -> dict[str, Any]:
        """All rounds; returns results.json: whether the quality is met, errors by round, the potential's file."""
        self.initial()
        started = time.perf_counter()
        history: list[dict[str, Any]] = []
        finished = False
        for number in range(self.settings.rounds):
            potential, _ = self.train(number)
            self.sample(number, potential)
            report = self.measure(number, potential, self.select(number, potential))
            report["met"] = self._met(report["on_policy"])
            self._say_errors(number, report)
            passes: list[dict[str, Any]] = []
            if all(report["met"].values()):
                passes = self.passing(number, potential)
                if all(row["ended"] == "complete" for row in passes):
                    finished = True
                else:
                    failed = self._round(number) / "failed.xyz"
                    if failed.exists() and failed.stat().st_size:
                        self._label(read_frames(failed))
            history.append({**report, "passing": passes})
            self._publish(number, potential, history, finished, time.perf_counter() - started)
            if finished:
                break
        results = self._results(history, finished)
        write_bytes(self.folder / "results.json", json.dumps(results, indent=1).encode())
        return results

    def _say_errors(self, number: int, report: dict[str, Any]) -> None:
        for group, row in report["on_policy"].items():
            self.say(
                f"round {number} on policy, {group}: {row['energy_mae_meV_per_atom']:.2f} meV/atom, "
                f"{row['force_rmse_eV_per_angstrom']:.3f} eV/angstrom ({row['frames']} frames)"
            )

    def _results(self, history: list[dict[str, Any]], finished: bool) -> dict[str, Any]:
        return {
            "name": self.settings.name,
            "quality_met": finished,
            "rounds": history,
            "labels": len(self.store),
            "potential": "potential.mtp",
        }

    def _publish(
        self,
        number: int,
        potential: MTPotential,
        history: list[dict[str, Any]],
        finished: bool,
        seconds: float,
    ) -> None:
        """The newest potential with its card in the folder itself."""
        training = json.loads((self._round(number) / "training" / "training.json").read_text())
        last = history[-1]
        temperatures = [t for s in self.settings.systems for t in s.temperatures]
        stability = [f"{row['run']}: {row['ended']}, {row['time_ps']:.1f} ps" for row in last["passing"]]
        for row in json.loads((self._round(number) / "runs.json").read_text()):
            stability.append(f"{row['run']}: {row['ended']}, {row['time_ps']:.1f} ps")
        notes = (
            [] if self.core is None else ["Use it together with potential.core, around which it was trained."]
        )
        notes += [] if finished else ["The stated quality was not (yet) met when this card was written."]
        count = json.loads((self._round(number) / "labels.json").read_text())["labels"]
        card = make_card(
            potential,
            name=self.settings.name,
            frames=self.store.frames[:count],
            teacher=self.teacher.name,
            teacher_version=self.teacher.version,
            errors={**training["errors"], "on policy": last["on_policy"]},
            excluded_pairs=training["excluded_pairs"],
            temperatures=(min(temperatures), max(temperatures)),
            statement=self.settings.statement,
            level=self.settings.training.level,
            stability=stability,
            notes=notes,
            wall_time_s=None,
        )
        if self.core is not None:
            self.core.save(self.folder / "potential.core")
        save_with_card(potential, card, self.folder / "potential.mtp")


def learn(
    settings: LearningSettings | str | Path, folder: str | Path, *, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run or continue an active learning; `say` gets a line per event. Returns the content of results.json."""
    if not isinstance(settings, LearningSettings):
        settings = load_settings(settings)
    return ActiveLearning(settings, folder, say=say).run()


def fit_only(
    settings: str | Path,
    frames: Sequence[str | Path],
    folder: str | Path,
    *,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Fit labelled frames by the [training] table and `start` of a settings file (the rest may be absent); resumable.

    Returns the content of training.json. Raises InputError for wrong settings, FramesError for frames without labels.
    """
    values = read_toml(settings, "docs/training.md")
    table, start = values.get("training"), values.get("start")
    if table is None:
        raise InputError("settings", str(settings), "a [training] table is expected")
    training = validated(TrainingSettings, table, Path(settings).name, "training")
    if not isinstance(start, str | None):
        raise InputError(f"{Path(settings).name}: start", start, "a shipped potential's name or a .mtp file")
    given = None if start is None else read_mtp(_start(start, Path(settings)), training.species)
    labelled = [frame for path in frames for frame in read_frames(path, labelled=True)]
    result = Training(labelled, training, folder, start=given).run()
    (say or (lambda text: None))(result.summary())
    return dict(json.loads((Path(folder) / "training.json").read_text()))
