"""The study of kind "sweep": any other study over a grid of its own keys.

kind = "sweep"
base = "one_pellet.toml"
[grid]
"pellets[0].grain_size" = ["50 nm", "1 um"]
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from mesoion.config import InputFile, StudyModel, read_toml
from mesoion.errors import InputError, MesoionError
from mesoion.provenance import content_hash, file_hash, record_hashes
from mesoion.runfolder import RunFolder
from mesoion.study import input_files, study_from
from mesoion.sweep import grid, run_sweep

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 100_000
"""Most points a grid may have."""
GridValue = float | int | str | bool


class Study(StudyModel):
    """A base study and the grid of its keys: `grid` maps key paths to lists of values.

    show: names of results to draw over one or two numeric keys.
    """

    kind: Literal["sweep"] = "sweep"
    base: InputFile
    grid: dict[str, Annotated[list[GridValue], Field(min_length=1)]]
    show: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=1)] | None = None
    scheduler: str | None = None
    retry_failed: bool = False

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, value: dict[str, list[GridValue]]) -> dict[str, list[GridValue]]:
        count = 1
        for values in value.values():
            count *= len(values)
        if not value or count > MAX_POINTS:
            raise ValueError(f"give one to {MAX_POINTS} points; these are {count if value else 0}")
        return value

    def further_files(self) -> list[Path]:
        """The files that the base study names."""
        return input_files(study_from(read_toml(self.base), self.base)[1])


_PART = re.compile(r'([A-Za-z0-9_-]+)|"([^"]+)"')


def parse_key_path(text: str) -> list[str | int]:
    """`pellets[0].width` as ["pellets", 0, "width"]; InputError for another form."""
    parts: list[str | int] = []
    for piece in text.split("."):
        match = re.fullmatch(r"([A-Za-z0-9_-]+)((?:\[\d{1,6}\])*)", piece)
        if match is None:
            raise InputError("grid", text, 'name a key of the base study, such as "pellets[0].grain_size"')
        parts.append(match[1])
        parts.extend(int(index) for index in re.findall(r"\d+", match[2]))
    return parts


def with_value(data: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `data` with `value` at the key path; InputError where a table on the way is missing."""
    parts = parse_key_path(path)
    changed: Any = copy.deepcopy(dict(data))
    inner = changed
    for depth, part in enumerate(parts):
        fits = isinstance(inner, list) if isinstance(part, int) else isinstance(inner, dict)
        last = depth == len(parts) - 1
        inside = fits and (part in inner if isinstance(part, str) else part < len(inner))
        if not fits or (not inside and (isinstance(part, int) or not last)):
            raise InputError("grid", path, f"the base study has nothing at {path!r}; check the key's path")
        if last:
            inner[part] = value
        else:
            inner = inner[part]
    result: dict[str, Any] = changed
    return result


def value_at(data: Any, path: str) -> Any:
    """The value at a key path, or None where there is none."""
    try:
        for part in parse_key_path(path):
            data = data[part]
    except (KeyError, IndexError, TypeError):
        return None
    return data


def flat_numbers(results: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Numbers and words of a run's results as columns; {value, low, high} becomes three."""
    columns: dict[str, float | int | str] = {}
    for key, value in results.items():
        if isinstance(value, (int, float, str)):
            columns[key] = value
        elif isinstance(value, Mapping):
            inner = flat_numbers(value)
            columns |= {key if name == "value" else f"{key}_{name}": v for name, v in inner.items()}
    return columns


def run_point(
    base_data: Mapping[str, Any],
    base_path: str,
    points_folder: str,
    depends_on: Mapping[str, str],
    **values: Any,
) -> dict[str, Any]:
    """One point: the base study with `values` at their key paths, run in a folder of its own.

    base_data: the base study's TOML, read from base_path. points_folder: folder of the points' folders. depends_on:
    hashes of the files and records the result depends on, which are part of the point's content.
    """
    changed = dict(base_data)
    for path, value in values.items():
        changed = with_value(changed, path, value)
    kind, study = study_from(changed, Path(base_path))
    inner = RunFolder(Path(points_folder) / content_hash([values, depends_on])[:16], show_progress=False)
    try:
        kind.run(study, inner, np.random.default_rng(study.seed))
        inner.finish()
    finally:
        inner.close()
    columns: dict[str, Any] = flat_numbers(inner.results)
    for c in inner.comparisons:
        columns[f"{c.material}: {c.quantity} / {c.unit}"] = c.predicted
    return columns


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Run every point and put the table of results, failures and figures into `folder`."""
    data = read_toml(study.base)
    points = grid(**study.grid)
    resolved = _resolved_points(study, data, points)
    files = {p.as_posix(): file_hash(p) for p in [study.base, *study.further_files()]}
    common = {
        "base_data": data,
        "base_path": str(study.base),
        "points_folder": str(folder.path / "points"),
        "depends_on": files | record_hashes(),
    }
    frame = run_sweep(
        run_point,
        points,
        folder.cache / "sweep.jsonl",
        workers=study.workers,
        scheduler=study.scheduler,
        retry_failed=study.retry_failed,
        common=common,
        show_progress=folder.show_progress,
    )
    folder.table("points", frame)
    failed = int(frame["error"].notna().sum())
    folder.result("points", len(frame))
    folder.result("failed_points", failed)
    if failed:
        first = frame.loc[frame["error"].notna(), "error"].iloc[0]
        words = f"{failed} of {len(frame)} points failed; the column `error` of the table says why. The first: {first}"
        folder.paragraph("Failed points", words)
    if failed == len(frame):
        raise MesoionError(f"every point of the sweep failed; the first error is: {frame['error'].iloc[0]}")
    _figures(study, folder, frame, resolved)


def _resolved_points(
    study: Study, data: Mapping[str, Any], points: list[dict[str, Any]]
) -> list[dict[str, Any] | None]:
    """Each point's values as the base study understands them (SI), None where it refuses them.

    A key that the base study does not know, or a grid that it refuses at every point, is an error of the sweep's.
    """
    resolved: list[dict[str, Any] | None] = []
    refusal: MesoionError | None = None
    for point in points:
        changed = dict(data)
        for path, value in point.items():
            changed = with_value(changed, path, value)
        try:
            checked = study_from(changed, study.base)[1].model_dump(mode="json")
            resolved.append({path: value_at(checked, path) for path in point})
        except InputError as error:
            refusal = refusal or error
            resolved.append(None)
    if refusal is not None and not any(resolved):
        raise refusal
    return resolved


def _figures(
    study: Study, folder: RunFolder, frame: pd.DataFrame, resolved: list[dict[str, Any] | None]
) -> None:
    from mesoion import plots
    from mesoion.sweep import column_or_error

    names = list(study.grid)
    axes: list[np.ndarray] = []
    for name in names:
        column = [np.nan if point is None else point[name] for point in resolved]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column):
            return
        axes.append(np.array(column, dtype=float))
    for number, name in enumerate(study.show):
        values = np.asarray(column_or_error(frame, name), dtype=float)
        figure, ax = plots.new_figure()
        if len(names) == 1:
            good = np.isfinite(axes[0])
            ax.plot(axes[0][good], values[good], "o-")
            ax.set_xlabel(f"{names[0]} (SI)")
            ax.set_ylabel(name)
        elif len(names) == 2:
            x, y = (np.unique(a[np.isfinite(a)]) for a in axes)
            table = np.full((len(y), len(x)), np.nan)
            for a, b, v in zip(*axes, values, strict=True):
                if np.isfinite(a) and np.isfinite(b):
                    table[np.searchsorted(y, b), np.searchsorted(x, a)] = v
            x_label, y_label = (f"{key} (SI)" for key in names)
            log = bool(np.nanmin(table) > 0)
            plots.sweep_map(ax, x, y, table, x_label=x_label, y_label=y_label, label=name, log=log)
        else:
            return
        folder.figure(f"sweep_{number + 1}", figure, f"{name} over {' and '.join(names)}.")
