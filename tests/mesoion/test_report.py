"""The report: one HTML file that loads nothing, with every word, number and figure of the run."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mesoion import plots
from mesoion.provenance import stamp, timestamp
from mesoion.report import MAX_ROWS, number, report_html
from mesoion.runfolder import Comparison, RunFolder


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path, study={"kind": "toy", "title": "A <title>", "file": "toy.toml"})
    yield made
    made.close()


def html_of(folder):
    return report_html(folder, stamp(seed=5, inputs={"toy.toml": "ab"}, key="cd", started=timestamp()))


class Parsed(HTMLParser):
    """Tags opened and closed, links, and text."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.links, self.images, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.links).append(value)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_everything_of_the_run_is_in_it(folder):
    figure, ax = plots.new_figure()
    ax.plot([0, 1], [1, 2])
    folder.figure("line", figure, "A line & <more>")
    png = (folder.staging / "figures" / "line.png").read_bytes()
    folder.paragraph("The gap", "First <b>words</b>.\n\nSecond.")
    folder.compare(Comparison("LLTO", "total", "S/cm", 9e-4, 6e-4, 1.2e-3, 7e-5, "doi:10.1/x"))
    folder.compare(Comparison("LLTO", "bulk", "S/cm", 9e-4, 6e-4, 1.2e-3, 1e-3, "doi:10.1/y"))
    folder.compare(Comparison("LLTO", "grain boundary", "S/cm", 9e-4, 6e-4, 1.2e-3, 9e-4, "doi:10.1/z"))
    folder.table("small", pd.DataFrame({"name": ["a"], "value": [np.nan]}))
    folder.result("gap", {"value": 400.0, "low": 300.0, "high": 500.0})
    html = html_of(folder)
    parsed = Parsed(html)
    assert parsed.stack == []
    assert parsed.links == []
    assert [base64.b64decode(src.split(",", 1)[1]) for src in parsed.images] == [png]
    text = " ".join(" ".join(parsed.text).split())
    for words in (
        "A <title>",
        "A line & <more>",
        "First <b>words</b>.",
        "Second.",
        "doi:10.1/x",
        "9.00·10⁻⁴",
        "400 (300 to 500)",
        "tables/small.csv",
    ):
        assert words in text
    assert html.count('class="off"') == 1
    assert html.count("<li>") == 3
    assert "[3]" in text
    assert ">13<" in html


def test_a_comparison_says_which_records_it_is_predicted_from(folder):
    first = Comparison("LLTO", "total", "S/cm", 9e-4, 6e-4, 1.2e-3, 7e-5, "doi", "own records")
    folder.paragraph("Summary", "in short")
    folder.paragraph("LLTO", "at length")
    folder.compare(first)
    html = html_of(folder)
    assert "predicted from</th>" in html
    assert '<td class="text">own records</td>' in html
    assert html.index("in short") < html.index("own records") < html.index("at length")
    folder.comparisons[:] = [replace(first, records="")]
    assert "predicted from" not in html_of(folder)


def test_nothing_is_loaded_from_elsewhere(folder):
    folder.paragraph("x", "see https://example.org")
    html = html_of(folder)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|file:)|@import|url\(""", html)
    assert "<script" not in html


def test_a_long_table_is_cut_and_says_so(folder):
    folder.table("long", pd.DataFrame({"x": np.arange(MAX_ROWS + 5)}))
    text = html_of(folder)
    assert f"first {MAX_ROWS} of {MAX_ROWS + 5} rows" in text
    assert text.count("<tr><td>") == MAX_ROWS


def test_a_comparison_with_nothing_measured_as_zero_has_no_ratio(folder):
    folder.compare(Comparison("a", "b", "eV", 1.0, 0.5, 1.5, 0.0, "s"))
    assert "–" in html_of(folder)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.456789e-7, "3.457·10⁻⁷"),
        (-2.5e-12, "−2.500·10⁻¹²"),
        (0.01234567, "0.01235"),
        (0.0, "0"),
        (123456.0, "1.235·10⁵"),
        (42, "42"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (True, "True"),
        ("word", "word"),
        (-0.5, "−0.5"),
        (-7, "−7"),
    ],
)
def test_numbers_read_well(value, text):
    assert number(value) == text
