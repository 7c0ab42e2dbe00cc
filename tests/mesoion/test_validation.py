"""The list of exact rows: every row has a name, a tolerance and a verdict; one failure is exit code 1."""

from __future__ import annotations

import json
import math

import pytest

from mesoion import cli, validation
from mesoion.errors import ConvergenceError, InputError
from mesoion.validation import Case, compute


def made(measure, expected=2.0, tolerance=0.1, relation="relative"):
    return Case("made", measure, expected, tolerance, relation, "")


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "relation", "error", "passed"),
    [
        (2.1, 2.0, 0.1, "relative", 0.05, True),
        (2.3, 2.0, 0.1, "relative", 0.15, False),
        (-2.0, 2.0, 0.1, "relative", 2.0, False),
        (1e-3, 0.0, 1e-2, "absolute", 1e-3, True),
        (-1e-1, 0.0, 1e-2, "absolute", 1e-1, False),
        (2.0, 1.95, 0.0, "at least", 0.0, True),
        (1.9, 1.95, 0.0, "at least", 0.05, False),
        (8.0, 12.0, 0.0, "at most", 0.0, True),
        (13.0, 12.0, 0.0, "at most", 1.0, False),
    ],
)
def test_error_and_verdict(got, expected, tolerance, relation, error, passed):
    row = compute(made(lambda: got, expected, tolerance, relation))
    assert row.passed is passed
    assert math.isclose(row.error, error, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_fails(value):
    row = compute(made(lambda: value, 0.0, 1.0, "absolute"))
    assert (row.passed, row.got, row.error) == (False, None, None)


def test_a_computation_that_fails_is_a_failed_row_that_says_why():
    def fail():
        raise ConvergenceError("no convergence", at="0.2 V")

    row = compute(made(fail))
    assert not row.passed
    assert "0.2 V" in row.plain()["note"]


def test_every_row_is_declared_once_with_a_tolerance_or_a_bound():
    cases = validation.all_cases()
    assert len(cases) > 50
    for name, declared in cases.items():
        assert name == declared.name
        assert declared.tolerance > 0 or declared.relation in ("at least", "at most")
    with pytest.raises(ValueError, match="twice"):
        validation.case(next(iter(cases)), float, expected=0.0)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", *arguments])
    return end.value.code or 0, capsys.readouterr()


def test_json_rows_and_exit_codes(capsys, monkeypatch):
    code, printed = run(capsys, "--only", "crossover", "--json")
    rows = json.loads(printed.out)["rows"]
    assert code == 0
    assert {row["name"] for row in rows} == {"crossover_temperature", "crossover_temperature_published"}
    assert set(rows[0]) == {"name", "expected", "got", "error", "tolerance", "passed"}
    assert all(row["passed"] for row in rows)
    monkeypatch.setitem(validation.CASES, "crossover_wrong", made(lambda: 9.0))
    code, printed = run(capsys, "--only", "crossover")
    assert code == 1
    assert "FAIL made" in printed.out
    assert "2 of 3 rows passed" in printed.out


def test_an_unknown_row_is_refused_with_the_nearest(capsys):
    with pytest.raises(InputError, match="did you mean"):
        validation.validation_rows("crossover_temperatura")
    code, printed = run(capsys, "--only", "bernouli")
    assert code == 2
    assert "did you mean 'bernoulli'" in printed.err


@pytest.mark.slow
def test_every_row_passes():
    failed = [row for row in validation.validation_rows() if not row.passed]
    assert not failed, validation.as_text(failed)
