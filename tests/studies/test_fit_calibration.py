"""The study of calibrated intervals: coarse, and what its table of fifty pellets says."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("fit_calibration", STUDIES / "fit_calibration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pellets_come_from_the_fit_s_own_priors(study: Any) -> None:
    drawn = np.array([study.drawn(seed)[0] for seed in range(60)])
    free = study.fit_of(np.full(60, 1e3 - 1e3j)).free
    assert len(free) == 13
    for column, p in zip(drawn.T, free, strict=True):
        # Five standard errors; bounds cut the width's and the noise's prior a little.
        assert abs(column.mean() - p.mean) < 5 * p.deviation / np.sqrt(60)
        assert 0.65 < column.std() / p.deviation < 1.4
    again = study.drawn(3)
    assert np.array_equal(again[0], drawn[3])
    assert np.array_equal(again[1], study.drawn(3)[1])


def test_a_short_chain_finds_what_the_data_fix(study: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "table.csv"
    arguments = ["--spectra", "1", "--steps", "100", "--walkers", "28", "--out", str(out)]
    assert study.main(arguments) == 0
    before = out.read_text()
    rows = study.table(out)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["parameter"] == 13
    assert kinds["combination"] >= 5
    narrowing = {row["name"]: float(row["narrowing"]) for row in rows}
    assert narrowing["bulk_conductivity"] < 0.02
    assert narrowing["permittivity_ratio"] > 0.3
    assert np.mean([int(row["inside"]) for row in rows]) > 0.6
    # What is there is not computed again.
    assert study.main(arguments) == 0
    assert out.read_text() == before


def test_intervals_of_charged_pellets_hold_most_truths(study: Any) -> None:
    """The shipped table, of chains of 10 to 30 autocorrelation times: what docs/reconcile.md says of it."""
    rows = study.table(STUDIES / "tables" / "fit_calibration.csv")
    assert len({row["spectrum"] for row in rows}) == 50
    for kind, share in (("parameter", 0.897), ("combination", 0.884)):
        inside = [int(row["inside"]) for row in rows if row["kind"] == kind]
        np.testing.assert_allclose(np.mean(inside), share, rtol=1e-3, atol=0)
    below = np.array([float(row["below"]) for row in rows if row["kind"] == "parameter"])
    assert abs(below.mean() - 0.5) < 0.06
    assert len(study.summary(rows)) == 16
