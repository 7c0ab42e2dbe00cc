"""The folder a run writes: tables, spectra, fields, figures, words, comparisons, and `results.json` last.

A run works in `.partial` inside its folder and is published file by file when it is complete, so a folder that has a
`results.json` is whole. Finished units of work are kept in `cache`; a killed run takes them up again.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from mesoion.errors import InputError, MesoionError
from mesoion.progress import track
from mesoion.provenance import canonical, code_hash, content_hash, file_hash, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from mesoion.mesh import CellMesh

SCHEMA_VERSION = 1
RESERVED = frozenset({"schema_version", "study", "key", "comparisons", "files"})
"""Keys of results.json that a study cannot set."""

SPECTRUM_COLUMNS = ("f / Hz", "Z' / ohm", "-Z'' / ohm")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """One prediction beside its measurement, in `unit`; low and high bound the prediction's 95 % interval.

    records: what the prediction rests on, where a quantity may be predicted from several sets of transport records, as
    "own records". Raises InputError for a prediction without an interval, a comparison without a source, or a value
    that is not finite.
    """

    material: str
    quantity: str
    unit: str
    predicted: float
    low: float
    high: float
    measured: float
    source: str
    records: str = ""

    def __post_init__(self) -> None:
        where = f"comparison {self.material!r} {self.quantity!r}"
        for name in ("material", "quantity", "source"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"{where}, {name}", text, "a comparison names its material, quantity and source"
                )
        for name in ("predicted", "low", "high", "measured"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
                raise InputError(
                    f"{where}, {name}", value, "give a finite number; a prediction has an interval"
                )
            object.__setattr__(self, name, float(value))
        if not self.low <= self.predicted <= self.high:
            interval = (self.low, self.high)
            raise InputError(
                f"{where}, interval", interval, f"it must hold the prediction, {self.predicted!r}"
            )

    @property
    def ratio(self) -> float:
        """predicted/measured."""
        return self.predicted / self.measured


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about writing `path` into one message; what was there before stays."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full; earlier results are intact; free some space and run again to resume"
        else:
            remedy = "earlier results are intact; choose a folder you can write to with --out"
        raise InputError(str(path), error.strerror or str(error), remedy) from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that at any moment it is the old one or the new one.

    Raises InputError (disk full, no permission) with the old file intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _locked(path: Path) -> IO[bytes]:
    """An open, locked file at `path`; the lock ends with the process, however it ends."""
    stream = open(path, "ab")  # noqa: SIM115
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # no locks on this platform
        return stream
    except OSError:
        stream.close()
        remedy = "another process is writing there; wait for it or choose another folder with --out"
        raise InputError(str(path.parent), "the folder is in use", remedy) from None
    return stream


@dataclass
class RunFolder:
    """What a run hands its results to.

    path: the folder. Names of tables, spectra, figures and fields are file names without suffix. `show_progress`:
    None shows bars when stderr is a terminal.
    """

    path: Path
    key: str = ""
    show_progress: bool | None = None
    study: Mapping[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict, init=False)
    comparisons: list[Comparison] = field(default_factory=list, init=False)
    paragraphs: list[tuple[str, str]] = field(default_factory=list, init=False)
    captions: dict[str, str] = field(default_factory=dict, init=False)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict, init=False)
    leading: list[str] = field(default_factory=list, init=False)
    _lock: IO[bytes] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self.staging = self.path / ".partial"
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path / ".lock")
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()

    # ---- results -----------------------------------------------------------------------------------------------
    def result(self, key: str, value: Any) -> None:
        """Put `value` (numbers, text, lists, tables of them; arrays and complex numbers too) under `key`."""
        if not isinstance(key, str) or not key or key in RESERVED:
            raise InputError("result", key, f"give a name other than {', '.join(sorted(RESERVED))}")
        try:
            self.results[key] = plain(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"result {key}", type(value).__name__, str(error)) from None

    def compare(self, comparison: Comparison) -> None:
        """Add a prediction beside its measurement."""
        self.comparisons.append(comparison)

    def paragraph(self, heading: str, text: str) -> None:
        """Add words to the report; blank lines part paragraphs."""
        self.paragraphs.append((heading, text))

    def table(self, name: str, frame: pd.DataFrame, *, lead: bool = False) -> Path:
        """Write `frame` as tables/NAME.csv and show it in the report; complex columns become two.

        lead: at the top of the report, before words and figures.
        """
        if lead:
            self.leading.append(name)
        columns: dict[str, Any] = {}
        for column in frame.columns:
            values = frame[column]
            if np.iscomplexobj(values.to_numpy()):
                columns[f"{column} real"] = values.to_numpy().real
                columns[f"{column} imag"] = values.to_numpy().imag
            else:
                columns[str(column)] = values.to_numpy()
        import pandas as pd

        flat = pd.DataFrame(columns)
        self.tables[self._checked(name)] = flat
        return self._write("tables", f"{name}.csv", flat.to_csv(index=False))

    def spectrum(self, name: str, frequency: ArrayLike, impedance: ArrayLike) -> Path:
        """Write spectra/NAME.csv: f / Hz, Z' / ohm, -Z'' / ohm.

        frequency (m,): Hz. impedance (m,): complex, ohm. Raises InputError for lengths that differ or a frequency
        that is not positive.
        """
        f, z = np.asarray(frequency, dtype=float), np.asarray(impedance, dtype=complex)
        if f.ndim != 1 or f.shape != z.shape or not (np.all(f > 0) and np.all(np.isfinite(z))):
            remedy = "give as many finite impedances as positive frequencies"
            raise InputError(f"spectrum {name}", (f.shape, z.shape), remedy)
        import pandas as pd

        frame = pd.DataFrame(dict(zip(SPECTRUM_COLUMNS, (f, z.real, -z.imag), strict=True)))
        return self._write("spectra", f"{name}.csv", frame.to_csv(index=False))

    def attach(self, folder: str, name: str, content: bytes | str) -> Path:
        """Write tables/NAME or spectra/NAME without showing it in the report."""
        if folder not in ("tables", "spectra"):
            raise InputError("folder", folder, "'tables' or 'spectra'")
        return self._write(folder, name, content)

    def figure(self, name: str, figure: Figure, caption: str) -> Path:
        """Write figures/NAME.png and .svg, close the figure; the report shows it with its caption."""
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        self._checked(name)
        png, svg = io.BytesIO(), io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        self.captions[name] = caption
        self._write("figures", f"{name}.svg", svg.getvalue())
        return self._write("figures", f"{name}.png", png.getvalue())

    def field(self, name: str, mesh: CellMesh, fields: Mapping[str, ArrayLike]) -> Path:
        """Write fields/NAME.vtu: one array (n,) or (n, k) a cell field."""
        from mesoion.vtu import write_vtu

        target = self._place("fields", f"{self._checked(name)}.vtu")
        with disk_errors(target):
            write_vtu(target, mesh, {k: np.asarray(v) for k, v in fields.items()})
        return target

    # ---- work --------------------------------------------------------------------------------------------------
    @property
    def cache(self) -> Path:
        """Folder of finished units of work; it outlives a killed run."""
        folder = self.path / "cache"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def progress(self, iterable: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items of `iterable`, with a progress bar and the remaining time on a terminal."""
        return track(iterable, label, total, show=self.show_progress)

    def once(self, function: Callable[..., Any], /, **arguments: Any) -> Any:
        """`function(**arguments)` as plain data, computed once for one content of code and arguments.

        The result is what JSON holds (`mesoion.provenance.plain`), the same from the cache and from the function.
        """
        unit = [f"{function.__module__}.{function.__qualname__}", code_hash(), plain(arguments)]
        path = self.cache / f"{content_hash(unit)}.json"
        with suppress(OSError, ValueError):
            return json.loads(path.read_text())
        text = canonical(function(**arguments))
        write_atomically(path, text)
        return json.loads(text)

    # ---- ending ------------------------------------------------------------------------------------------------
    def finish(self, extra: Mapping[str, bytes | str] | None = None) -> Path:
        """Publish everything; `extra` are further files by name. Returns the path of results.json."""
        files = {
            path.relative_to(self.staging).as_posix(): file_hash(path)
            for path in sorted(self.staging.rglob("*"))
            if path.is_file()
        }
        results = {
            "schema_version": SCHEMA_VERSION,
            "study": dict(self.study),
            "key": self.key,
            "comparisons": [asdict(c) for c in self.comparisons],
            "files": files,
            **self.results,
        }
        for name, content in (extra or {}).items():
            write_atomically(self.staging / self._checked(name), content)
        text = json.dumps(plain(results), indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.staging / "results.json", text)
        self._publish()
        return self.path / "results.json"

    def close(self) -> None:
        """Drop what is not published and unlock the folder; finished units of work stay."""
        shutil.rmtree(self.staging, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _publish(self) -> None:
        final = self.path / "results.json"
        with disk_errors(self.path):
            stale = set(published_files(self.path))
            new = [p for p in sorted(self.staging.rglob("*")) if p.is_file() and p.name != "results.json"]
            for path in new:
                (self.path / path.relative_to(self.staging)).parent.mkdir(parents=True, exist_ok=True)
            # From here to the last line the folder has no results.json: a kill in between means "run again".
            final.unlink(missing_ok=True)
            for path in new:
                name = path.relative_to(self.staging)
                os.replace(path, self.path / name)
                stale.discard(name.as_posix())
            for left in stale:
                (self.path / left).unlink(missing_ok=True)
            os.replace(self.staging / "results.json", final)

    def _checked(self, name: str) -> str:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            remedy = "use letters, digits, '_', '-' and '.', beginning with a letter or digit"
            raise InputError("file name", name, remedy)
        return name

    def _place(self, folder: str, name: str) -> Path:
        target = self.staging / folder / self._checked(name)
        with disk_errors(target):
            target.parent.mkdir(exist_ok=True)
        return target

    def _write(self, folder: str, name: str, content: bytes | str) -> Path:
        target = self._place(folder, name)
        write_atomically(target, content)
        return target


def read_results(path: Path | str) -> dict[str, Any]:
    """The results.json of a finished run folder; MesoionError where there is none or it is damaged."""
    file = Path(path) / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MesoionError(f"{path} holds no finished run: there is no results.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise MesoionError(f"{file} cannot be read ({error}); run the study again") from None
    if not isinstance(results, dict) or not isinstance(results.get("files"), dict):
        raise MesoionError(f"{file} was not written by this program; choose another folder")
    return results


def published_files(path: Path) -> list[str]:
    """Files, relative to `path`, that its results.json lists; empty where there is none."""
    try:
        files = read_results(path)["files"]
    except MesoionError:
        return []
    inside = re.compile(r"(tables|spectra|figures|fields)/[A-Za-z0-9][A-Za-z0-9_.-]*")
    return [name for name in files if inside.fullmatch(name)]


def is_complete(path: Path, key: str) -> bool:
    """Whether `path` holds the finished run of content `key`, every file unchanged."""
    try:
        results = read_results(path)
        return results.get("key") == key and all(
            file_hash(path / name) == digest for name, digest in results["files"].items()
        )
    except (MesoionError, OSError):
        return False
