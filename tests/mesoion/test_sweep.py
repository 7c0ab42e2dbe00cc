"""Sweeps: every point once, whatever happens to the process; failures recorded; numbers the same."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_study
from numpy.testing import assert_allclose
from toy_points import square, wrong_kind

from mesoion import study, sweep
from mesoion.errors import InputError
from mesoion.sweep import SweepCache, grid, run_sweep
from mesoion.sweep_study import parse_key_path, with_value

HERE = str(Path(__file__).parent)


def test_a_grid_is_all_combinations():
    assert grid(a=[1, 2], b=["x"]) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_come_in_order_with_failures_recorded(tmp_path, workers):
    points = [{"x": float(x)} for x in (3, 13, 2, 14)]
    frame = run_sweep(square, points, tmp_path / "cache.jsonl", workers=workers)
    assert frame["x"].tolist() == [3.0, 13.0, 2.0, 14.0]
    assert_allclose(frame["y"].to_numpy()[[0, 2]], [3.0, 4 / 3], rtol=1e-15, atol=0)
    assert frame["error"].tolist()[1] == "thirteen is not allowed"
    assert frame["error"].tolist()[3] == "ZeroDivisionError: fourteen"
    assert frame["error"].isna().tolist() == [True, False, True, False]


def test_finished_and_failed_points_are_not_computed_again(tmp_path):
    log = str(tmp_path / "log")
    points = [{"x": 1.0}, {"x": 13.0}]
    first = run_sweep(square, points, tmp_path / "c", workers=1, common={"log": log})
    again = run_sweep(square, [*points, {"x": 2.0}], tmp_path / "c", workers=1, common={"log": log})
    assert Path(log).read_text().split() == ["1.0", "13.0", "2.0"]
    assert again.iloc[:2].equals(first)
    run_sweep(square, points, tmp_path / "c", workers=1, common={"log": log}, retry_failed=True)
    assert Path(log).read_text().split()[3:] == ["13.0"]


def test_a_point_given_twice_is_computed_once(tmp_path):
    log = str(tmp_path / "log")
    frame = run_sweep(square, [{"x": 1.0}] * 3, tmp_path / "c", workers=1, common={"log": log})
    assert len(frame) == 3
    assert Path(log).read_text().split() == ["1.0"]


def test_another_code_or_constant_is_another_point(tmp_path, monkeypatch):
    run_sweep(square, [{"x": 1.0}], tmp_path / "c", workers=1)
    run_sweep(square, [{"x": 1.0}], tmp_path / "c", workers=1, common={"pause": 0.0})
    monkeypatch.setattr(sweep, "code_hash", lambda: "other")
    run_sweep(square, [{"x": 1.0}], tmp_path / "c", workers=1)
    assert len((tmp_path / "c").read_text().splitlines()) == 3


def test_a_worker_that_dies_fails_its_own_point_only(tmp_path):
    points = [{"x": float(x)} for x in (1, 15, 2, 3, 4, 5)]
    frame = run_sweep(square, points, tmp_path / "c", workers=2)
    errors = frame["error"].tolist()
    assert "worker process died" in errors[1]
    assert frame["error"].isna().sum() == 5
    assert_allclose(frame["y"].to_numpy()[5], 25 / 3, rtol=1e-15, atol=0)


SWEEP = """
import sys
sys.path.insert(0, {here!r})
from toy_points import square
from mesoion import sweep
sweep.code_hash = lambda: "the same in every process, also while somebody edits the code"
run_sweep = sweep.run_sweep
if __name__ == "__main__":
    points = [{{"x": float(x)}} for x in range(100, 130)]
    frame = run_sweep(square, points, {cache!r}, workers={workers}, common={{"log": {log!r}, "pause": 0.02}})
    frame.to_csv({out!r})
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_sweep_resumes_repeats_nothing_and_ends_with_the_same_numbers(tmp_path, workers):
    def script(name, log):
        path = tmp_path / f"{name}.py"
        names = {"cache": str(tmp_path / f"{name}.jsonl"), "out": str(tmp_path / f"{name}.csv"), "log": log}
        path.write_text(SWEEP.format(here=HERE, workers=workers, **names))
        return path

    log = tmp_path / "log"
    whole = script("whole", str(log))
    subprocess.run([sys.executable, whole], check=True)
    log.unlink()
    killed = script("killed", str(log))
    rng = random.Random(5)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, killed], start_new_session=True)
        while not log.exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.12) + (1.2 if kills else 0.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, killed], check=True)
    assert kills > 0
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    starts = log.read_text().split()
    assert len(set(starts)) == 30
    # Only what was under way (or handed to a worker) at a kill may run again.
    assert len(starts) <= 30 + kills * 2 * workers
    lines = [json.loads(line)["point"]["x"] for line in (tmp_path / "killed.jsonl").read_text().splitlines()]
    assert sorted(lines) == [float(x) for x in range(100, 130)]


def test_workers_end_with_a_killed_sweep(tmp_path):
    log = tmp_path / "log"
    code = SWEEP.format(
        here=HERE, workers=2, cache=str(tmp_path / "c"), out=str(tmp_path / "o"), log=str(log)
    )
    path = tmp_path / "sweep.py"
    path.write_text(code.replace("0.02", "0.4"))
    process = subprocess.Popen([sys.executable, path], start_new_session=True)
    while not log.exists():
        time.sleep(0.02)
    group = process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        os.killpg(group, signal.SIGKILL)
        pytest.fail("workers outlived the sweep")


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "c"
    run_sweep(square, [{"x": 1.0}, {"x": 2.0}], path, workers=1)
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole), 7):
        path.write_bytes(whole[:cut])
        frame = run_sweep(square, [{"x": 1.0}, {"x": 2.0}], path, workers=1)
        assert frame["error"].isna().all()
        keys = {json.loads(line)["key"] for line in path.read_text().splitlines()}
        assert len(keys) == 2


def test_a_full_disk_is_a_clear_error_and_earlier_points_stay(tmp_path, monkeypatch):
    path = tmp_path / "c"
    run_sweep(square, [{"x": 1.0}], path, workers=1)
    before = path.read_bytes()

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def write(self, data):
            self.stream.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    real = SweepCache.add

    def add(self, *args):
        self._stream = Full(self._stream)
        return real(self, *args)

    monkeypatch.setattr(SweepCache, "add", add)
    with pytest.raises(InputError, match="disk is full"):
        run_sweep(square, [{"x": 1.0}, {"x": 2.0}], path, workers=1)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert len(run_sweep(square, [{"x": 1.0}, {"x": 2.0}], path, workers=1)) == 2


def test_refusals(tmp_path):
    cache = tmp_path / "c"
    with pytest.raises(InputError, match="top of a module"):
        run_sweep(lambda x: {"y": x}, [{"x": 1}], cache)
    with pytest.raises(InputError, match="finite"):
        run_sweep(square, [{"x": float("nan")}], cache)
    with pytest.raises(InputError, match="at least one"):
        run_sweep(square, [{"x": 1.0}], cache, workers=0)
    with pytest.raises(InputError, match="give a plain function"):
        run_sweep(3, [{"x": 1.0}], cache)
    frame = run_sweep(wrong_kind, [{"x": 1.0}], cache, workers=1)
    assert "returns named values" in frame["error"].iloc[0]
    store = SweepCache(cache)
    with pytest.raises(InputError, match="in use"):
        run_sweep(square, [{"x": 1.0}], cache)
    store.close()
    cache.write_text("not a sweep\n")
    with pytest.raises(InputError, match="c:1"):
        run_sweep(square, [{"x": 1.0}], cache)


def test_an_empty_sweep_is_an_empty_table(tmp_path):
    assert len(run_sweep(square, [], tmp_path / "c")) == 0


def test_a_dask_scheduler_computes_the_same(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the [cluster] extra")
    points = [{"x": float(x)} for x in (3, 13, 2)]
    here = run_sweep(square, points, tmp_path / "here", workers=1)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        there = run_sweep(square, points, tmp_path / "there", scheduler=cluster.scheduler_address)
    assert there.equals(here)


# ---- the study of kind "sweep" ---------------------------------------------------------------------------------
BASE = 'kind = "toy"\nseed = 3\n' + 2 * '[[layers]]\ntype = "layer"\nwidth = "2 nm"\n'
GRID = """\
kind = "sweep"
base = "base.toml"
workers = 1
show = ["thickness"]
[grid]
"layers[0].width" = ["1 nm", "-1 nm", "3 nm"]
"layers[1].width" = ["1 nm", "10 nm"]
"""


@pytest.fixture
def sweep_toml(tmp_path, monkeypatch):
    monkeypatch.setitem(study.KINDS, "toy", "toy_study")
    (tmp_path / "base.toml").write_text(BASE)
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_a_sweep_study_varies_keys_of_its_base(sweep_toml, tmp_path):
    import pandas as pd

    outcome = study.run_study(sweep_toml, tmp_path / "out")
    table = pd.read_csv(outcome.path / "tables" / "points.csv")
    good = table["error"].isna()
    assert good.tolist() == [True, True, False, False, True, True]
    assert_allclose(table["thickness"][good], [2e-9, 11e-9, 4e-9, 13e-9], rtol=1e-12, atol=0)
    assert "greater than 0" in table["error"][2]
    results = json.loads((outcome.path / "results.json").read_text())
    assert (results["points"], results["failed_points"]) == (6, 2)
    assert (outcome.path / "figures" / "sweep_1.png").exists()
    assert study.run_study(sweep_toml, tmp_path / "out").from_cache
    (tmp_path / "base.toml").write_text(BASE.replace("seed = 3", "seed = 4"))
    assert not study.run_study(sweep_toml, tmp_path / "out").from_cache


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"layers[0].width"', '"layers[0].widht"'), "did you mean 'width'"),
        (('"layers[0].width"', '"layers[7].width"'), "nothing at"),
        (('"layers[0].width"', '"layers..width"'), "name a key"),
        (('["1 nm", "10 nm"]', '["-1 nm"]'), "greater than 0"),
        (('["1 nm", "10 nm"]', "[]"), "at least 1 item"),
        (("base.toml", "absent.toml"), "no such file"),
        (('show = ["thickness"]', 'show = ["thikness"]'), "did you mean 'thickness'"),
    ],
)
def test_a_sweep_study_refuses_a_grid_that_cannot_be(sweep_toml, tmp_path, change, message):
    text = GRID.replace('"-1 nm", ', "") if "-1" not in change[1] else GRID
    sweep_toml.write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        study.run_study(sweep_toml, tmp_path / "out")


def test_key_paths_are_set_in_a_copy():
    data = {"a": [{"b": 1}], "c": {}}
    assert with_value(data, "a[0].b", 2)["a"][0]["b"] == 2
    assert with_value(data, "c.new", 3)["c"] == {"new": 3}
    assert data == {"a": [{"b": 1}], "c": {}}
    assert parse_key_path("a[0][1].b-c") == ["a", 0, 1, "b-c"]


def test_the_toy_study_is_importable_by_workers():
    assert study.kind_of("sweep").run.__module__ == "mesoion.sweep_study"
    assert toy_study.Study.model_fields["kind"].default == "toy"
