"""Parameter sweeps: a function over a list of points, cached by content, resumable after a kill at any moment.

Every finished point is one line of an append-only JSON-lines file, written by this process alone; a line that a kill
cut short is dropped on the next start. Failed points are recorded with their error and do not stop the others.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from pickle import PicklingError
from typing import IO, TYPE_CHECKING, Any

from mesoion.config import nearest
from mesoion.errors import InputError, MesoionError
from mesoion.progress import track
from mesoion.provenance import canonical, code_hash, content_hash, file_hash, plain
from mesoion.runfolder import disk_errors

if TYPE_CHECKING:
    import pandas as pd

Point = Mapping[str, Any]
PointFunction = Callable[..., Mapping[str, Any]]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations of the named values as points; the last name varies fastest."""
    return [
        dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())
    ]


@dataclass(frozen=True)
class _Record:
    result: dict[str, Any] | None
    error: str | None


class SweepCache:
    """Finished points by content hash, in one JSON-lines file that survives a kill.

    Raises InputError where the file is not a sweep's, cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.records: dict[str, _Record] = {}
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        try:
            self._lock()
            self._read()
        except BaseException:
            self._stream.close()
            raise

    def _lock(self) -> None:
        try:
            import fcntl

            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no locks on this platform
            return
        except OSError:
            remedy = "another sweep is writing it; wait for it or choose another folder"
            raise InputError(str(self.path), "the file is in use", remedy) from None

    def _read(self) -> None:
        self._stream.seek(0)
        content = self._stream.read()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.records[entry["key"]] = _Record(entry.get("result"), entry.get("error"))
            except (ValueError, TypeError, KeyError, RecursionError):
                remedy = "this is no line of a sweep; delete the file to compute all points again"
                raise InputError(f"{self.path}:{number}", line[:60], remedy) from None
        with disk_errors(self.path):
            self._stream.truncate(whole)
        self._end = whole

    def add(self, key: str, point: Point, record: _Record, seconds: float) -> None:
        """Append one finished point; the file keeps its earlier lines whatever happens."""
        entry = {"key": key, "point": plain(point), "seconds": round(seconds, 6)}
        entry |= {"result": record.result} if record.error is None else {"error": record.error}
        line = (canonical(entry) + "\n").encode()
        with disk_errors(self.path):
            try:
                written = 0
                while written < len(line):
                    written += self._stream.write(line[written:]) or 0
            except OSError:
                os.ftruncate(self._stream.fileno(), self._end)
                raise
        self._end += len(line)
        self.records[key] = record

    def close(self) -> None:
        """Flush to the disk and unlock."""
        with disk_errors(self.path):
            os.fsync(self._stream.fileno())
        self._stream.close()


def run_sweep(
    function: PointFunction,
    points: Sequence[Point],
    cache: Path | str,
    workers: int | None = None,
    label: str = "points",
    *,
    common: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    scheduler: str | None = None,
    show_progress: bool | None = None,
) -> pd.DataFrame:
    """`function(**point, **common)` at every point, from the cache where it is there already.

    function: importable by name (not a lambda, not nested), returns named plain values. points: named plain values.
    cache: JSON-lines file of finished points. workers: local processes, one a core unless given; 1 computes here.
    common: further arguments, the same at every point; part of the content. retry_failed: compute points again whose
    record is an error. scheduler: address of a Dask scheduler that computes instead of local processes.
    label, show_progress: of the progress bar.

    Returns one row a point in the order given: the point's values, the result's, and `error` (None where it worked).
    Raises InputError for a function that is not importable, a name that is both a point's and a result's, a point
    that is no plain data, or a cache that cannot be written.
    """
    import pandas as pd

    common = dict(common or {})
    name = _importable_name(function)
    source = _source_hash(function)
    try:
        keys = [content_hash([name, source, plain({**p, **common})]) for p in points]
    except (TypeError, ValueError) as error:
        raise InputError("points", "their values", f"give plain finite values: {error}") from None
    if workers is not None and workers < 1:
        raise InputError("workers", workers, "give at least one")
    store = SweepCache(Path(cache))
    try:
        waiting: dict[str, Point] = {}
        for key, point in zip(keys, points, strict=True):
            known = store.records.get(key)
            if known is None or (retry_failed and known.error is not None):
                waiting.setdefault(key, point)
        done = len(set(keys)) - len(waiting)
        tasks = [(key, {**point, **common}) for key, point in waiting.items()]
        finished = _computed(function, tasks, workers, scheduler)
        for key, record, seconds in track(
            finished, label, total=len(tasks) + done, done=done, show=show_progress
        ):
            store.add(key, waiting[key], record, seconds)
        rows = [_row(point, store.records[key]) for key, point in zip(keys, points, strict=True)]
    finally:
        store.close()
    return pd.DataFrame(rows)


def _row(point: Point, record: _Record) -> dict[str, Any]:
    result = record.result or {}
    shared = set(point) & set(result)
    if shared:
        raise InputError("result of a point", sorted(shared), "name results other than the point's values")
    return {**point, **result, "error": record.error}


def _importable_name(function: PointFunction) -> str:
    if isinstance(function, partial) or not hasattr(function, "__qualname__"):
        raise InputError("function", repr(function), "give a plain function; put fixed arguments in `common`")
    name = f"{function.__module__}.{function.__qualname__}"
    if "<" in function.__qualname__:
        raise InputError("function", name, "define it at the top of a module, so that a worker can import it")
    return name


def _source_hash(function: PointFunction) -> str:
    """Hash of the code a point's result depends on: this package, and the function's own file."""
    file = inspect.getsourcefile(function)
    return content_hash([code_hash(), file_hash(file) if file and Path(file).is_file() else None])


Finished = tuple[str, _Record, float]


def _evaluate(function: PointFunction, key: str, arguments: Mapping[str, Any]) -> Finished:
    """One point, in a worker: an error becomes its text, so that nothing but data crosses between processes."""
    start = time.perf_counter()
    try:
        result = function(**arguments)
        if not isinstance(result, Mapping):
            raise MesoionError(f"a point's function returns named values, not a {type(result).__name__}")
        record = _Record(json.loads(canonical(result)), None)
    except MesoionError as error:
        record = _Record(None, str(error))
    except Exception as error:
        record = _Record(None, f"{type(error).__name__}: {error}")
    return key, record, time.perf_counter() - start


Task = tuple[str, Mapping[str, Any]]


def _computed(
    function: PointFunction, tasks: Sequence[Task], workers: int | None, scheduler: str | None
) -> Iterator[Finished]:
    if scheduler is not None:
        yield from _on_dask(function, tasks, scheduler)
        return
    count = min(workers or _available_cores(), max(len(tasks), 1))
    if count == 1:
        for key, arguments in tasks:
            yield _evaluate(function, key, arguments)
        return
    remaining = dict(tasks)
    while remaining:
        suspects: list[str] = []
        for finished in _in_processes(function, remaining, count, suspects):
            del remaining[finished[0]]
            yield finished
        # A worker died: each point that was under way runs in a process of its own, so that only the culprit fails.
        for key in suspects or list(remaining)[:1]:
            alone = list(_in_processes(function, {key: remaining.pop(key)}, 1, []))
            dead = _Record(None, "the worker process died (killed, or out of memory)")
            yield alone[0] if alone else (key, dead, 0.0)


def _in_processes(
    function: PointFunction, tasks: Mapping[str, Any], workers: int, suspects: list[str]
) -> Iterator[Finished]:
    """Finished points of a pool; if a worker dies it ends early and puts the points under way into `suspects`."""
    with _one_thread_each():
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
        try:
            queue = iter(list(tasks.items()))
            running: dict[Future[Finished], str] = {}
            while not suspects:
                for key, arguments in itertools.islice(queue, 2 * workers - len(running)):
                    running[pool.submit(_evaluate, function, key, arguments)] = key
                if not running:
                    break
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    key = running.pop(future)
                    try:
                        finished = future.result()
                    except BrokenProcessPool:
                        suspects.append(key)
                        continue
                    yield finished
            suspects.extend(running.values())
        except BrokenProcessPool:
            suspects.extend(running.values())
        except (PicklingError, AttributeError) as error:
            remedy = f"a worker cannot import it ({error}); define it at the top of a module"
            raise InputError("function", repr(function), remedy) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Make a worker end quietly with Ctrl-C, and with its parent: a killed sweep leaves no workers behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Start workers with one thread each: the sweep itself fills the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_dask(function: PointFunction, tasks: Sequence[Task], scheduler: str) -> Iterator[Finished]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        remedy = "install the [cluster] extra, or leave the scheduler out to use local processes"
        raise InputError("scheduler", scheduler, remedy) from None
    try:
        client = distributed.Client(scheduler, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        remedy = f"give the address of a running Dask scheduler, tcp://HOST:PORT ({error})"
        raise InputError("scheduler", scheduler, remedy) from None
    with client:
        futures = {client.submit(_evaluate, function, k, a, pure=False): k for k, a in tasks}
        for future in distributed.as_completed(futures):
            failure = future.exception()
            if failure is not None:
                yield futures[future], _Record(None, f"{type(failure).__name__}: {failure}"), 0.0
            else:
                yield future.result()


def column_or_error(frame: pd.DataFrame, name: str) -> Any:
    """Column `name` of a sweep's result; MesoionError where no point has it, with the first point's error."""
    if name in frame.columns:
        return frame[name]
    failed = frame["error"].dropna()
    if len(failed):
        raise MesoionError(f"no point of the sweep has {name!r}; the first error is: {failed.iloc[0]}")
    guess = nearest(name, [str(c) for c in frame.columns])
    raise InputError(
        "column", name, f"did you mean {guess!r}?" if guess else f"there are {list(frame.columns)}"
    )
