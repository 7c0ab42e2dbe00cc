"""The benchmark's bookkeeping: verdicts, stopped tasks, tables; a real comparison in miniature."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mesoion import bench
from mesoion.bench_tasks import bicrystal_mesh, row, timed
from mesoion.errors import InputError


def comparison(**changes: float) -> bench.Row:
    given = {"agreement": 1e-4, "target": 3.0, "unknowns": 512, **changes}
    agreement = given.pop("agreement")
    return row("work", [1.0, 2.0, 4.0], "peer", [8.0, 8.0, 8.0], agreement, **given)


def test_a_ratio_is_the_median_of_ratios_and_counts_only_for_the_same_answer() -> None:
    assert comparison()["ratio"] == 4.0
    assert comparison()["met"] is True
    assert comparison(target=4.1)["met"] is False
    assert comparison(agreement=0.02)["met"] is False
    assert comparison(agreement=float("nan"))["met"] is False
    assert "answers differ" in bench.as_text([comparison(agreement=0.02)])
    assert comparison(target=None)["met"] is None


def test_timed_counts_the_work_alone() -> None:
    done = []
    seconds, result = timed(lambda: sum(range(2_000_000)), lambda total: done.append(total) or len(done), 0.0)
    assert result == 1
    assert seconds < 1e-3


def test_growth_is_the_exponent() -> None:
    sizes = [2e4, 7e4, 2e5, 4.5e5]
    rows = [
        {"unknowns": n, "set_up_seconds": 0.0, "equilibrium_seconds": 0.0, "dc_seconds": 3e-6 * n**1.1}
        for n in sizes
    ]
    grown = bench._growth(rows)
    np.testing.assert_allclose(grown["value"], 1.1, rtol=1e-12, atol=0)
    assert grown["met"] is True
    assert bench._growth([{**r, "dc_seconds": 1e-9 * r["unknowns"] ** 1.3} for r in rows])["met"] is False
    assert "skipped" in bench._growth(rows[:1])


def test_a_task_that_fails_or_hangs_leaves_a_row_and_keeps_the_others() -> None:
    failed = bench._run_task("grains", {"no_such_option": 1}, 60.0)
    assert len(failed) == 1
    assert "no_such_option" in failed[0]["skipped"]
    stopped = bench._run_task("bicrystal", {"repeats": 1, "fipy_frequencies": 1, "fipy_repeats": 1}, 0.2)
    assert "stopped after" in stopped[-1]["skipped"]
    assert "not run" in bench.as_text(stopped)


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(InputError, match="the groups are 1d, 2d, growth, grains, sweep, import"):
        bench.run_bench("4d")


def test_import_row_and_page() -> None:
    lines: list[str] = []
    rows = bench.run_bench("import", 1, quick=True, progress=lines.append)
    assert [r["group"] for r in rows] == ["import", "import"]
    assert rows[0]["met"] is True
    assert lines
    page = bench.as_markdown(
        [*rows, comparison(), {"name": "x", "peer": "y", "skipped": "missing"}], "a machine"
    )
    assert "| work | 512 |" in page
    assert "x y: missing" in page
    assert json.loads(json.dumps(rows)) == rows


def test_the_mesh_of_the_bicrystal_is_what_it_says() -> None:
    mesh = bicrystal_mesh(256, 500e-9, 0.01e-9)
    assert mesh.n_cells == 256
    np.testing.assert_allclose(mesh.volumes.sum(), 1002e-9, rtol=1e-12, atol=0)
    layer = mesh.region == 1
    np.testing.assert_allclose(mesh.volumes[layer].sum(), 2e-9, rtol=1e-12, atol=0)
    at_interface = np.flatnonzero(np.diff(mesh.region))
    np.testing.assert_allclose(mesh.volumes[at_interface], 0.01e-9, rtol=1e-6, atol=0)


def test_the_script_writes_the_page_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import peers

    monkeypatch.setattr(sys, "argv", ["peers.py"])
    source = tmp_path / "r.json"
    source.write_text(json.dumps({"machine": "m", "mode": "quick", "rows": [comparison(target=5.0)]}))
    assert peers.main(["--from", str(source), "--page", str(tmp_path / "p.md")]) == 1
    assert (tmp_path / "p.md").read_text().startswith("# Benchmarks")


def test_groups_that_did_not_run_again_stay_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import peers

    file, page = tmp_path / "r.json", tmp_path / "p.md"
    earlier = [{"group": "2d", **comparison()}, {"group": "import", **comparison()}]
    file.write_text(json.dumps({"machine": "m", "rows": earlier}))
    monkeypatch.setattr(peers, "run_bench", lambda *a, **k: [{"group": "import", **comparison(unknowns=99)}])
    assert peers.main(["--only", "import", "--json", str(file), "--page", str(page)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(r["group"], r["unknowns"]) for r in rows] == [("2d", 512), ("import", 99)]
