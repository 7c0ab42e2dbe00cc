"""A run as one HTML file: words, comparisons, figures, numbers, tables and provenance; it loads nothing else."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from mesoion.plots import ratio_text

if TYPE_CHECKING:
    import pandas as pd

    from mesoion.runfolder import Comparison, RunFolder

MAX_ROWS = 200
"""Rows of a table that the report shows; the CSV has them all."""
_MAX_VALUE = 160


def number(value: Any, digits: int = 4) -> str:
    """A number to `digits` significant digits, in powers of ten where that is shorter to read."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) and abs(value) < 10**6:
        return str(value).replace("-", "−")
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "−∞" if value < 0 else "∞"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def report_html(folder: RunFolder, provenance: Mapping[str, Any]) -> str:
    """The report of a run that is about to be published; figures are embedded.

    folder: a run whose figures lie in its staging folder. provenance: of `mesoion.provenance.stamp`.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("mesoion").joinpath("templates/report.html").read_text(encoding="utf-8")
    )
    figures = [
        {
            "name": name,
            "caption": caption,
            "data": base64.b64encode((folder.staging / "figures" / f"{name}.png").read_bytes()).decode(),
        }
        for name, caption in folder.captions.items()
    ]
    sources: list[str] = []
    return template.render(
        study=folder.study,
        provenance=provenance,
        paragraphs=[(h, [b for b in re.split(r"\n\s*\n", t.strip()) if b]) for h, t in folder.paragraphs],
        comparisons=[_comparison(c, sources) for c in folder.comparisons],
        by_records=any(c.records for c in folder.comparisons),
        sources=sources,
        figures=figures,
        results=[(k, _value(v)) for k, v in folder.results.items()],
        leading=[_table(name, folder.tables[name]) for name in folder.leading],
        tables=[_table(name, frame) for name, frame in folder.tables.items() if name not in folder.leading],
    )


def _comparison(comparison: Comparison, sources: list[str]) -> dict[str, Any]:
    c = comparison
    if c.source not in sources:
        sources.append(c.source)
    return {
        "material": c.material,
        "quantity": c.quantity,
        "records": c.records,
        "unit": c.unit,
        "source": sources.index(c.source) + 1,
        "predicted": number(c.predicted, 3),
        "low": number(c.low, 3),
        "high": number(c.high, 3),
        "measured": number(c.measured, 3),
        "ratio": ratio_text(c.ratio) if c.measured else "–",
        "outside": not c.low <= c.measured <= c.high,
    }


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        return f"{number(value['value'])} ({number(value['low'])} to {number(value['high'])})"
    if isinstance(value, (int, float, str)):
        return number(value)
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _MAX_VALUE:
        return text
    kind = "table" if isinstance(value, Mapping) else "list"
    return f"a {kind} of {len(value)}, in results.json"


def _table(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    shown = frame.head(MAX_ROWS)
    rows = [
        [{"value": _cell(value), "text": isinstance(value, str)} for value in row]
        for row in shown.itertuples(index=False, name=None)
    ]
    title = name.replace("_", " ")
    return {
        "name": name,
        "title": title[0].upper() + title[1:],
        "columns": list(frame.columns),
        "rows": rows,
        "left_out": len(frame) - len(shown),
    }


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return number(value.item() if hasattr(value, "item") else value)
