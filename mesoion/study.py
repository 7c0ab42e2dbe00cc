"""Studies: a TOML file of a known kind, run into a folder.

A kind is a module with `Study`, a `mesoion.config.StudyModel`, and `run(study, folder, rng)`. Modules load when a
study of their kind is read.
"""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesoion.config import InputProblems, StudyModel, check, read_toml, unknown
from mesoion.errors import ConvergenceError, InputError, MesoionError
from mesoion.provenance import code_hash, content_hash, file_hash, record_hashes, stamp, timestamp, versions
from mesoion.runfolder import RunFolder, disk_errors, is_complete, write_atomically

KINDS: dict[str, str] = {
    "pellets": "mesoion.pellet_study",
    "sweep": "mesoion.sweep_study",
    "size_and_width": "mesoion.size_width_study",
    "microstructure": "mesoion.microstructure_study",
    "reconcile": "mesoion.reconcile_study",
    "spectra": "mesoion.impedance.fit_study",
    "pellet_fit": "mesoion.pellet_fit_study",
    "nucleation": "mesoion.nucleation_study",
}
"""Kind of study -> module; add an entry to add a kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of study: its name, the model of its input, and what runs it."""

    name: str
    model: type[StudyModel]
    run: Callable[[Any, RunFolder, np.random.Generator], None]


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, and whether it had been there already."""

    path: Path
    from_cache: bool


def kind_of(name: object) -> Kind:
    """The kind called `name`; InputError for an unknown one."""
    if not isinstance(name, str) or name not in KINDS:
        raise InputError("kind", name, unknown(str(name), list(KINDS), "kind of study"))
    module = importlib.import_module(KINDS[name])
    return Kind(name, module.Study, module.run)


def load_study(path: Path | str, overrides: Mapping[str, Any] | None = None) -> tuple[Kind, StudyModel]:
    """The kind and the checked input of a TOML study; `overrides` replace top-level keys.

    Raises InputError with every fault of the file.
    """
    path = Path(path)
    return study_from(read_toml(path), path, overrides)


def study_from(
    data: Mapping[str, Any], path: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Kind, StudyModel]:
    """As `load_study`, from data already read; `path` names it in messages and anchors its relative paths."""
    if "kind" not in data:
        remedy = f"a study says its kind at the top, one of: {', '.join(sorted(KINDS))}"
        raise InputError(f"{path}: kind", "nothing", remedy)
    try:
        kind = kind_of(data["kind"])
    except InputError as error:
        raise InputProblems(str(path), [("kind", error.value, error.remedy)]) from None
    study = check(kind.model, {**data, **(overrides or {})}, where=path, directory=path.parent)
    return kind, study


def input_files(value: Any) -> list[Path]:
    """Every file a checked input names, in order: those its model says are files, and records given by their path."""
    if isinstance(value, Path) or _is_record_file(value):
        return [Path(value)]
    if hasattr(type(value), "model_fields"):
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [path for item in value for path in input_files(item)]
    return []


def _is_record_file(value: Any) -> bool:
    # isfile is False, not an error, where the text cannot be a path.
    return isinstance(value, str) and value.endswith(".json") and os.path.isfile(value)


def _by_content(value: Any) -> Any:
    """A checked input with the content of its files in place of their paths."""
    if isinstance(value, Path) or _is_record_file(value):
        return {"file": file_hash(value)}
    if hasattr(type(value), "model_fields"):
        return {name: _by_content(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {k: _by_content(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(v) for v in value]
    return value


def run_key(study: StudyModel) -> str:
    """Content hash of all that decides a run's numbers: input, the files it names, records, code and versions."""
    neutral = {name: getattr(study, name) for name in type(study).model_fields if name not in NEUTRAL_KEYS}
    further = [file_hash(path) for path in study.further_files()]
    return content_hash([_by_content(neutral), further, record_hashes(), code_hash(), versions()])


NEUTRAL_KEYS = frozenset({"workers", "scheduler"})
"""Keys of a study that say how it is computed and cannot change a number."""


def default_folder(path: Path | str) -> Path:
    """runs/NAME under the working directory, for the study NAME.toml."""
    return Path("runs") / Path(path).stem


def run_study(
    path: Path | str,
    out: Path | str | None = None,
    *,
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
    show_progress: bool | None = None,
) -> Outcome:
    """Run the study at `path` into the folder `out` (runs/NAME unless given).

    A finished run of the same content is returned as it is; a killed one resumes; `force` computes all again.
    overrides: top-level keys that replace the file's. Raises InputError for a fault in the input or the folder, and
    what the study raises; after a ConvergenceError the last converged state is in the folder.
    """
    started = timestamp()
    path = Path(path)
    kind, study = load_study(path, overrides)
    target = Path(out) if out is not None else default_folder(path)
    key = run_key(study)
    if not force and is_complete(target, key):
        return Outcome(target, from_cache=True)
    described = {"kind": kind.name, "title": study.title or path.stem, "file": path.name}
    folder = RunFolder(target, key=key, show_progress=show_progress, study=described)
    try:
        if force:
            with disk_errors(folder.cache):
                for unit in folder.cache.iterdir():
                    unit.unlink()
        _run(kind, study, folder, path)
        hashes = {path.name: file_hash(path)}
        for file in [*input_files(study), *study.further_files()]:
            hashes[_relative(file, path.parent)] = file_hash(file)
        provenance = stamp(seed=study.seed, inputs=hashes, key=key, started=started)
        _finish(folder, study, path, provenance)
    except ConvergenceError as error:
        saved = _save_state(folder, error.last_good)
        if saved is None:
            raise
        raise MesoionError(f"{error}; the last converged state is in {saved}") from error
    finally:
        folder.close()
    return Outcome(target, from_cache=False)


def _run(kind: Kind, study: StudyModel, folder: RunFolder, path: Path) -> None:
    """Run the study; a fault it finds in its input names the file, as one that the model finds does."""
    try:
        kind.run(study, folder, np.random.default_rng(study.seed))
    except InputError as error:
        if type(error) is not InputError or str(folder.path) in error.where or str(path) in error.where:
            raise
        raise InputError(f"{path}: {error.where}", error.value, error.remedy) from error


def _finish(folder: RunFolder, study: StudyModel, path: Path, provenance: Mapping[str, Any]) -> None:
    from mesoion.report import report_html

    folder.finish(
        {
            "input.toml": path.read_bytes(),
            "input_resolved.json": json.dumps(study.model_dump(mode="json"), indent=1, ensure_ascii=False)
            + "\n",
            "provenance.json": json.dumps(provenance, indent=1) + "\n",
            "report.html": report_html(folder, provenance),
        }
    )


def _relative(file: Path, base: Path) -> str:
    try:
        return file.relative_to(base).as_posix()
    except ValueError:
        return file.name


def _save_state(folder: RunFolder, state: Any) -> Path | None:
    """The arrays of the last converged state as last_good_state.npz in the run's folder."""
    if state is None:
        return None
    named = (
        {f.name: getattr(state, f.name) for f in fields(state)} if is_dataclass(state) else {"state": state}
    )
    # A PNP state: what a reader wants of it is derived from the solver's unknowns.
    for name in ("potential", "occupancy"):
        if hasattr(state, name):
            named[name] = getattr(state, name)
    if hasattr(state, "system"):
        named["centers"] = state.system.mesh.centers
        named |= {f"voltage_{name}": float(v) for name, v in state.voltages.items()}
    arrays: dict[str, Any] = {
        name: np.asarray(v) for name, v in named.items() if isinstance(v, (np.ndarray, float, int))
    }
    if not arrays:
        return None
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    target = folder.path / "last_good_state.npz"
    write_atomically(target, stream.getvalue())
    return target
