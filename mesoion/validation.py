"""Every exact test and published number in one list: expected, got, error, tolerance.

A row is a function that computes one number, what it is compared with, and how. Rows are declared in
`mesoion.validation_cases`, `validation_lithium` and `validation_pellets`, which load when they are asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mesoion.config import unknown
from mesoion.errors import InputError, MesoionError
from mesoion.progress import track

Relation = Literal["relative", "absolute", "at least", "at most"]


@dataclass(frozen=True)
class Case:
    """One row to be computed.

    measure: returns the number. expected: what it should be; for "at least" and "at most" the bound itself.
    tolerance: allowed error, |got/expected − 1| for "relative", |got − expected| for "absolute"; 0 for bounds.
    """

    name: str
    measure: Callable[[], float]
    expected: float
    tolerance: float
    relation: Relation
    about: str


@dataclass(frozen=True)
class Row:
    """One computed row; `got` and `error` are None where the computation itself failed, and `note` says why."""

    name: str
    expected: float
    got: float | None
    error: float | None
    tolerance: float
    passed: bool
    seconds: float
    about: str = ""
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        row = {
            "name": self.name,
            "expected": self.expected,
            "got": self.got,
            "error": self.error,
            "tolerance": self.tolerance,
            "passed": self.passed,
        }
        return row | ({"note": self.note} if self.note else {})


CASES: dict[str, Case] = {}


def case(
    name: str,
    measure: Callable[[], float],
    *,
    expected: float,
    tolerance: float = 0.0,
    relation: Relation = "relative",
    about: str = "",
) -> None:
    """Declare a row; a name can be declared once."""
    if name in CASES:
        raise ValueError(f"{name} is declared twice")
    CASES[name] = Case(name, measure, expected, tolerance, relation, about)


def all_cases() -> dict[str, Case]:
    """Every declared row by name."""
    import mesoion.validation_cases
    import mesoion.validation_lithium
    import mesoion.validation_nucleation
    import mesoion.validation_pellets  # noqa: F401

    return CASES


def compute(case: Case) -> Row:
    """The row of a case; a failed computation is a failed row, with the error's text."""
    start = time.perf_counter()
    note = ""
    try:
        got: float | None = float(case.measure())
    except MesoionError as error:
        got, note = None, str(error)
    except Exception as error:  # one broken row must not hide the others
        got, note = None, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    error_size = None if got is None or not math.isfinite(got) else _error(case, got)
    got = got if error_size is not None else None
    passed = error_size is not None and error_size <= case.tolerance
    return Row(case.name, case.expected, got, error_size, case.tolerance, passed, seconds, case.about, note)


def _error(case: Case, got: float) -> float:
    if case.relation == "relative":
        return abs(got / case.expected - 1.0)
    if case.relation == "absolute":
        return abs(got - case.expected)
    return max(0.0, (case.expected - got) * (1.0 if case.relation == "at least" else -1.0))


def validation_rows(only: str | None = None) -> list[Row]:
    """Compute the rows whose name contains `only` (all of them unless given).

    Raises InputError where no row has such a name.
    """
    cases = all_cases()
    chosen = [c for name, c in cases.items() if only is None or only.lower() in name.lower()]
    if not chosen:
        raise InputError("--only", only, unknown(str(only), list(cases), "row"))
    return [compute(c) for c in track(chosen, "validate")]


def as_text(rows: Sequence[Row]) -> str:
    """Rows as a table for a terminal, and the sum of it."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':4} {'row':<{width}} {'expected':>12} {'got':>12} {'error':>9} {'tolerance':>9} {'s':>6}"]
    for row in rows:
        got = "-" if row.got is None else f"{row.got:.6g}"
        size = "-" if row.error is None else f"{row.error:.1e}"
        mark = "ok" if row.passed else "FAIL"
        lines.append(
            f"{mark:4} {row.name:<{width}} {row.expected:>12.6g} {got:>12} {size:>9} {row.tolerance:>9.1e}"
            f" {row.seconds:>6.1f}"
        )
        if row.note:
            lines.append(f"     {row.note}")
    failed = sum(not row.passed for row in rows)
    seconds = sum(row.seconds for row in rows)
    lines.append(f"{len(rows) - failed} of {len(rows)} rows passed in {seconds:.0f} s")
    return "\n".join(lines)
