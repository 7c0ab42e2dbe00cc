"""Progress: silent unless asked or on a terminal, nested, and never in the way of the items."""

from __future__ import annotations

import pytest

from mesoion import progress
from mesoion.progress import track


def test_items_pass_unchanged_and_nothing_is_printed_off_a_terminal(capsys):
    assert list(track(range(4), "work")) == [0, 1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_bars_nest_and_end(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    seen = [(a, b) for a in track("xy", "outer", show=True) for b in track(range(2), "inner", show=True)]
    assert seen == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "outer" in printed.err
    assert progress._shared is None


def test_an_error_in_the_loop_ends_the_bar(capsys):
    def work():
        for item in track(iter([1, 2]), "work", total=2, show=True):
            raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        work()
    assert progress._shared is None
    assert list(track([3], "again", show=True)) == [3]


def test_done_items_count_towards_the_total(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    list(track(range(3), "resumed", total=10, done=7, show=True))
    assert "10" in capsys.readouterr().err
