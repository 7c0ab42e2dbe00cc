"""Text of a measured file: decoded, split into lines, and a table of numbers read from it row by row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesoion.errors import MeasuredFileError
from mesoion.impedance.columns import Column, LabelError, is_unit_row, match_labels

MAX_BYTES = 64_000_000
"""Largest measured file that is read [bytes]."""
LONGEST_LINE = 20_000
"""Longest line of a measured file [characters]."""

# Labels stand below at most so many lines of text.
_MOST_TEXT = 2_000

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eEdD][+-]?[0-9]{1,3})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space"}


@dataclass(frozen=True)
class TextFile:
    """A decoded file: its lines without line ends, and how it was decoded."""

    path: Path
    lines: tuple[str, ...]
    encoding: str

    def error(self, index: int | None, fault: str, remedy: str) -> MeasuredFileError:
        """The error that names this file and the line at `index` (from 0)."""
        return MeasuredFileError(self.path, None if index is None else index + 1, fault, remedy)


def read_bytes(path: Path) -> bytes:
    """The file's content; MeasuredFileError where it is missing, empty, unreadable or too large."""
    try:
        if not path.is_file():
            raise MeasuredFileError(
                path, None, "there is no such file", "give the path of a measured spectrum"
            )
        size = path.stat().st_size
        if size > MAX_BYTES:
            remedy = f"a measured file has at most {MAX_BYTES} bytes"
            raise MeasuredFileError(path, None, f"the file has {size} bytes", remedy)
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, MeasuredFileError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise MeasuredFileError(
            path, None, f"the file cannot be read ({reason})", "give a readable file"
        ) from None
    if not raw.strip():
        raise MeasuredFileError(path, None, "the file is empty", "export the spectrum again")
    return raw


def decode(path: Path, raw: bytes) -> TextFile:
    """UTF-8, UTF-16 with its mark, or latin-1; MeasuredFileError where the file is not text."""
    if raw.startswith(b"PK\x03\x04") or raw.startswith(b"\xd0\xcf\x11\xe0"):
        remedy = "export the sheet as CSV or text"
        raise MeasuredFileError(path, None, "this is a spreadsheet or archive, not text", remedy)
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    encodings = ("utf-16",) if wide else ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            if wide:
                line = raw[: error.start].count(b"\n") + 1
                remedy = "export it again as UTF-8 text"
                raise MeasuredFileError(path, line, "damaged UTF-16 text", remedy) from None
            continue
        break
    text = text.rstrip("\x1a\x00") if not wide else text
    if found := _CONTROL.search(text):
        line = len(_NEWLINE.findall(text, 0, found.start())) + 1
        fault = f"binary data (byte {ord(found[0]):#04x})"
        raise MeasuredFileError(path, line, fault, "export the spectrum as text (ASCII or UTF-8)")
    lines = tuple(_NEWLINE.split(text))
    for index, line_text in enumerate(lines):
        if len(line_text) > LONGEST_LINE:
            fault = f"a line of {len(line_text)} characters"
            remedy = f"lines of a table have at most {LONGEST_LINE}: export the spectrum as text, a point on each line"
            raise MeasuredFileError(path, index + 1, fault, remedy)
    return TextFile(path, lines, "utf-8" if encoding == "utf-8-sig" else encoding)


def parse_number(token: str) -> float | None:
    """The number in a cell, with a point or a comma; None where it is none, nan and inf as such."""
    text = token.strip().strip('"').strip().replace("−", "-")
    if _NUMBER.fullmatch(text):
        return float(text.replace(",", ".").replace("D", "e").replace("d", "e"))
    if re.fullmatch(r"[+-]?(?:nan|inf|infinity)", text, re.IGNORECASE):
        return float(text)
    return None


def split(text: str, separator: str) -> list[str]:
    """The cells of one line."""
    return text.split() if separator == " " else [c.strip() for c in text.split(separator)]


def _trimmed(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def label_cells(text: str) -> list[list[str]]:
    """Every way in which a line of labels may be split, the likeliest first."""
    text = text.strip(" \r")
    if text.startswith('"') and text.endswith('"') and text.count('"') == 2:
        text = text.strip('"').strip()
    text = re.sub(r"^(?:#|%|//|!)+\s*", "", text)
    ways = [_trimmed([c.strip() for c in text.split(s)]) for s in ("\t", ";", ",") if s in text]
    tight = re.sub(r"\s*/\s*", "/", re.sub(r"[ \t]+(?=[\[(])", "", text.replace("\t", "  ")))
    ways.append(re.split(r"\s{2,}", text.replace("\t", "  ").strip()))
    ways.append(re.split(r"\s{2,}", tight.strip()))
    ways.append(tight.split())
    return [w for w in ways if len(w) >= 2]


@dataclass(frozen=True)
class Layout:
    """Where a table's labels are (None: no labels), where its rows begin, how they are split, and what they hold."""

    header: int | None
    first: int
    separator: str
    width: int
    columns: dict[int, Column]

    def has(self, *quantities: str) -> bool:
        present = {c.quantity for c in self.columns.values()}
        return all(q in present for q in quantities)

    @property
    def complete(self) -> bool:
        """Whether a frequency and an impedance can be read."""
        return self.has("frequency") and (self.has("real", "imaginary") or self.has("modulus", "phase"))

    def describe(self) -> str:
        """The matched labels in words."""
        words = {"frequency": "f", "real": "Z'", "imaginary": "Z''", "modulus": "|Z|", "phase": "phase"}
        parts = [f"{c.label!r} as {words.get(c.quantity, c.quantity)}" for c in self.columns.values()]
        return f"{', '.join(parts)}; {_NAMES[self.separator]} separated"


def row_splits(text: str) -> list[tuple[str, list[str]]]:
    """(separator, cells) for every way to split a row of numbers."""
    ways = []
    for separator in ("\t", ";", ",", " "):
        if separator == " " or separator in text:
            cells = split(text.strip(" \r"), separator)
            cells = cells if separator == " " else _trimmed(cells)
            if len(cells) >= 2:
                ways.append((separator, cells))
    return ways


def is_row(text: str) -> bool:
    """Whether a line looks like a row of numbers: the first filled cell one, at least two, and half of all."""
    for _, cells in row_splits(text):
        filled = [parse_number(c) is not None for c in cells if c]
        if len(filled) >= 2 and filled[0] and sum(filled) >= max(2.0, 0.5 * len(filled)):
            return True
    return False


def match_table(file: TextFile, header: int, first: int, units: Sequence[str] = ()) -> Layout | None:
    """The layout of a table with labels on line `header` and its first row on line `first` (indices from 0).

    None where no splitting of both lines gives equally many cells with numbers under the labels that matter.
    Raises MeasuredFileError for a unit that cannot be used.
    """
    best: Layout | None = None
    refused: LabelError | None = None
    for separator, cells in row_splits(file.lines[first]):
        for labels in label_cells(file.lines[header]):
            if len(labels) != len(cells) and not (separator == "\t" and len(labels) > len(cells)):
                continue
            below = [u for u in (units, [u for u in units if u]) if len(u) == len(labels)]
            columns, unusable = match_labels(labels, below[0] if below else ())
            refused = refused or unusable
            inside = {i: c for i, c in columns.items() if i < len(cells)}
            needed = [cells[i] for i, c in inside.items() if c.quantity not in ("temperature", "cycle")]
            if not needed or any(parse_number(c) is None for c in needed if c):
                continue
            layout = Layout(header, first, separator, len(cells), inside)
            if best is None or len(layout.columns) > len(best.columns):
                best = layout
    if refused is not None and (best is None or not best.complete):
        raise file.error(header, f"a unit that cannot be used: {refused}", "correct the label")
    return best


def find_table(file: TextFile, start: int = 0) -> Layout | None:
    """The first table with labels at or after line `start`: labels, possibly units or a count, then numbers.

    None where there is no line of numbers below labels that name a frequency or an impedance.
    """
    partial: Layout | None = None
    texts = 0
    for index in range(start, len(file.lines)):
        if not file.lines[index].strip() or is_row(file.lines[index]):
            continue
        texts += 1
        if texts > _MOST_TEXT:
            break
        layout = table_below(file, index)
        if layout is None:
            continue
        if layout.complete:
            return layout
        if partial is None or len(layout.columns) > len(partial.columns):
            partial = layout
    return partial


def table_below(file: TextFile, header: int) -> Layout | None:
    """The table whose labels are on line `header`, or None; up to four lines may stand between labels and numbers."""
    units: list[str] = []
    for first in range(header + 1, min(header + 6, len(file.lines))):
        text = file.lines[first]
        if is_row(text):
            return match_table(file, header, first, units)
        if not text.strip() or re.fullmatch(r'\s*"?\s*\d+\s*"?\s*', text):
            continue
        below = [w for w in label_cells(text) if is_unit_row(w)]
        if below and not units:
            ways = [len(w) for w in label_cells(file.lines[header])]
            units = next((w for w in below if len(w) in ways), below[0])
            continue
        if re.fullmatch(r"\s*End Comments\s*", text):
            continue
        return None
    return None


@dataclass(frozen=True)
class Rows:
    """Numbers of the matched columns, one list per column index, with the line index of each row."""

    layout: Layout
    lines: list[int]
    values: dict[int, list[float]]
    decimal_comma: bool
    end: int

    def column(self, quantity: str) -> tuple[Column, list[float]] | None:
        found = [(c, self.values[i]) for i, c in self.layout.columns.items() if c.quantity == quantity]
        return found[0] if found else None


def check_columns(file: TextFile, layout: Layout) -> None:
    """MeasuredFileError where a quantity is missing or stands twice."""
    seen: dict[str, Column] = {}
    for column in layout.columns.values():
        before = seen.setdefault(column.quantity, column)
        if before is not column and column.quantity not in ("temperature", "cycle"):
            fault = f"two columns hold the {column.quantity} ({before.label!r} and {column.label!r})"
            remedy = "keep one measurement per table, or remove the column that is not meant"
            raise file.error(layout.header, fault, remedy)
    if layout.complete:
        return
    found = ", ".join(repr(c.label) for c in layout.columns.values()) or "none"
    missing = []
    if not layout.has("frequency"):
        missing.append("the frequency")
    if not (layout.has("real", "imaginary") or layout.has("modulus", "phase")):
        missing.append("the impedance (real and imaginary part, or modulus and phase)")
    fault = f"no column for {' and '.join(missing)} (understood: {found})"
    remedy = "label the columns such as \"f / Hz, Z' / ohm, -Z'' / ohm\", or name them with `columns`"
    raise file.error(layout.header, fault, remedy)


def read_rows(file: TextFile, layout: Layout, stop: int | None = None) -> Rows:
    """All rows of a table, to line `stop` (index, excluded) or to the first line that begins something else.

    Only blank lines and comments may stand in a table.
    Raises MeasuredFileError for a short row, a cell that is no number, nan, and mixed decimal signs.
    """
    end = len(file.lines) if stop is None else stop
    needed = {i: c for i, c in layout.columns.items() if c.quantity not in ("temperature", "cycle")}
    values: dict[int, list[float]] = {i: [] for i in layout.columns}
    lines: list[int] = []
    comma: bool | None = None
    index = layout.first
    for index in range(layout.first, end):
        text = file.lines[index]
        if not text.strip() or text.lstrip().startswith(("#", "%", "//")):
            continue
        raw = split(text.strip(" \r"), layout.separator)
        if next_table(file, index) is not None:
            break
        cells = raw if layout.separator == " " else [*_trimmed(raw)]
        if len(cells) < layout.width and (len(raw) < layout.width or max(needed) >= len(cells)):
            fault = f"the row has {len(cells)} of {layout.width} columns"
            raise file.error(index, fault, "the file may be truncated: complete or delete the row")
        if len(cells) > layout.width and len(cells) > max(layout.width, _label_count(file, layout)):
            fault = f"the row has {len(cells)} columns, the first one has {layout.width}"
            remedy = "separate columns by tabs or semicolons where numbers have decimal commas"
            raise file.error(index, fault, remedy)
        for i in layout.columns:
            cell = cells[i] if i < len(cells) else ""
            number = parse_number(cell)
            if i not in needed:
                values[i].append(math.nan if number is None else number)
                continue
            label = layout.columns[i].label
            if number is None:
                fault = (
                    f"{cell[:40]!r} in column {label!r} is no number"
                    if cell
                    else f"column {label!r} is empty"
                )
                raise file.error(index, fault, "complete or delete the row")
            if not math.isfinite(number):
                fault = f"{cell[:40]!r} in column {label!r} is not finite"
                raise file.error(index, fault, "delete the row, or measure the point again")
            if "," in cell or "." in cell:
                if comma is None:
                    comma = "," in cell
                elif comma != ("," in cell):
                    fault = (
                        f"{cell[:40]!r} in column {label!r}: decimal points and decimal commas in one table"
                    )
                    raise file.error(index, fault, "write all numbers alike, without thousands separators")
            values[i].append(number)
        lines.append(index)
    else:
        index = end
    return Rows(layout, lines, values, bool(comma), index)


def _label_count(file: TextFile, layout: Layout) -> int:
    if layout.header is None:
        return 0
    return max((len(w) for w in label_cells(file.lines[layout.header])), default=0)


def next_table(file: TextFile, index: int) -> int | None:
    """Index of the labels of the complete table that line `index` announces: its labels, or text above them."""
    for header in range(index, min(index + 60, len(file.lines))):
        text = file.lines[header]
        if not text.strip():
            continue
        if is_row(text):
            return None
        if not re.search(r"[A-Za-z]{2}|[fzZ]['\"]?", text):
            return None
        below = table_below(file, header)
        if below is not None and below.complete:
            return header
    return None
