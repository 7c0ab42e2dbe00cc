"""The tables of instrument files, found by their own marks: EC-Lab, Gamry, ZView, WinDETA and plain text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mesoion.errors import InputError, MeasuredFileError
from mesoion.impedance.columns import Column, match_labels
from mesoion.impedance.metadata import Fact, Stated
from mesoion.impedance.tables import (
    Layout,
    Rows,
    TextFile,
    check_columns,
    find_table,
    is_row,
    label_cells,
    match_table,
    next_table,
    parse_number,
    read_rows,
    row_splits,
    split,
    table_below,
)
from mesoion.units import parse_quantity

_TRUNCATED = (
    "the file is truncated: export it again, or correct the number where rows were deleted on purpose"
)
MPR_MARK = b"BIO-LOGIC MODULAR FILE"


@dataclass(frozen=True)
class Block:
    """One table of a file with what the file says of it.

    `defined_sign`: the format itself defines its imaginary column as Z''.
    """

    file: TextFile
    format: str
    rows: Rows
    defined_sign: bool = False
    stated: tuple[Stated, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def line(self, row: int) -> int:
        """Index of the line of a row."""
        return self.rows.lines[row]


def find_blocks(file: TextFile, labels: Sequence[str] | None = None) -> list[Block]:
    """Every impedance table of a text file; `labels` replace the file's own labels in a plain table.

    Raises MeasuredFileError where there is none, where a column is missing, or where the file is truncated.
    """
    top = "\n".join(file.lines[:12])
    if re.match(r"\s*(?:EC|BT)-Lab ASCII FILE", file.lines[0], re.IGNORECASE):
        return [_ec_lab(file)]
    if re.match(r"\s*EXPLAIN\s*$", file.lines[0]) or any(re.match(r"\s*ZCURVE\d*\b", x) for x in file.lines):
        return _gamry(file)
    if re.match(r'\s*"?(?:ZPLOT2? ASCII|ZPlotW? Data|Z60W Data)', file.lines[0], re.IGNORECASE):
        return [_zview(file)]
    if any(re.fullmatch(r"\s*End Comments\s*", x) for x in file.lines):
        return [_zview(file)]
    windeta = "Fixed value(s)" in top or re.search(r"Freq\.\s*\[Hz\]", top) is not None
    if labels is not None:
        return [_labelled(file, labels)]
    return _plain(file, "WinDETA text (Novocontrol)" if windeta else "text", defined_sign=windeta)


def _first_row(file: TextFile, start: int, stop: int | None = None) -> int | None:
    end = len(file.lines) if stop is None else stop
    return next((i for i in range(start, end) if is_row(file.lines[i])), None)


def _value(text: str) -> float | None:
    number = parse_number(text)
    return number if number is not None and math.isfinite(number) else None


def _ec_lab(file: TextFile) -> Block:
    stated: list[Stated] = []
    header: int | None = None
    for index, text in enumerate(file.lines[:20]):
        if found := re.match(r"\s*Nb header lines\s*:\s*(\d{1,6})\s*$", text):
            header = int(found[1]) - 1
            if header >= len(file.lines):
                fault = f"{header + 1} header lines are announced, the file has {len(file.lines)}"
                raise file.error(index, fault, "the file is truncated: export it again")
            break
    if header is None or "freq" not in file.lines[header].lower():
        is_header = (
            i for i, x in enumerate(file.lines) if re.search(r"freq\s*/\s*Hz", x) and len(x.split("\t")) > 2
        )
        header = next(is_header, header)
    if header is None:
        fault = "no table with freq/Hz, Re(Z)/Ohm and -Im(Z)/Ohm"
        raise file.error(None, fault, "export the impedance technique (PEIS or GEIS) with these columns")
    for text in file.lines[:header]:
        if found := re.match(r"\s*Va \(mV\)\s+(\S.*)", text):
            peaks = {_value(x) for x in found[1].split()}
            value = peaks.pop() if len(peaks) == 1 else None
            if value is not None and value > 0.0:
                words = f"{text.strip()} (peak)"
                stated.append(Stated("amplitude", 1e-3 * value / math.sqrt(2.0), " ".join(words.split())))
        if found := re.match(r"\s*Electrode surface area\s*:\s*(\S+)\s*cm", text):
            area = _value(found[1])
            if area is not None and area > 0.0:
                default = math.isclose(area, 1e-3, rel_tol=1e-9)
                stated.append(Stated("area", 1e-4 * area, " ".join(text.split()), default))
    first = _first_row(file, header + 1)
    if first is None:
        raise file.error(header, "no row follows the labels", "the file is truncated: export it again")
    layout = match_table(file, header, first)
    if layout is None:
        layout = Layout(header, first, "\t", 0, _labels_of(file, header))
        check_columns(file, layout)
        fault = "the first row does not fit the labels"
        raise file.error(first, fault, "the file is damaged: export it again")
    check_columns(file, layout)
    return Block(file, "EC-Lab text (BioLogic)", read_rows(file, layout), stated=tuple(stated))


def _labels_of(file: TextFile, header: int) -> dict[int, Column]:
    for labels in label_cells(file.lines[header]):
        columns, refused = match_labels(labels)
        if refused is not None:
            raise file.error(header, f"a unit that cannot be used: {refused}", "correct the label")
        if columns:
            return columns
    return {}


def _gamry(file: TextFile) -> list[Block]:
    stated: list[Stated] = []
    notes: list[str] = []
    for text in file.lines:
        cells = [c.strip() for c in text.split("\t")]
        if len(cells) >= 3 and cells[0] in ("VAC", "AREA"):
            value = _value(cells[2])
            if value is None or value <= 0.0:
                continue
            words = " ".join(text.split()).replace("&", "")
            if cells[0] == "VAC" and "mV rms" in text:
                stated.append(Stated("amplitude", 1e-3 * value, words))
            if cells[0] == "AREA" and "cm" in text:
                stated.append(Stated("area", 1e-4 * value, words, default=math.isclose(value, 1.0)))
        if cells[0] == "EXPERIMENTABORTED":
            notes.append("the experiment was aborted")
    blocks = []
    starts = [i for i, x in enumerate(file.lines) if re.match(r"\s*ZCURVE\d*\b", x)]
    if not starts:
        raise file.error(
            None, "no ZCURVE table", "give the file of an impedance experiment (EISPOT, EISGALV)"
        )
    for start in starts:
        if start + 3 > len(file.lines) - 1:
            raise file.error(start, "no row follows ZCURVE", "the file is truncated: export it again")
        stop = next(
            (i for i in range(start + 1, len(file.lines)) if not re.match(r"\s", file.lines[i] or " ")), None
        )
        units = split(file.lines[start + 2], "\t")
        first = _first_row(file, start + 2, stop)
        if first is None:
            raise file.error(start, "no row follows ZCURVE", "the file is truncated: export it again")
        layout = match_table(file, start + 1, first, units)
        if layout is None:
            layout = Layout(start + 1, first, "\t", 0, _labels_of(file, start + 1))
            check_columns(file, layout)
            raise file.error(
                first, "the first row does not fit the labels", "the file is damaged: export it again"
            )
        check_columns(file, layout)
        rows = read_rows(file, layout, stop)
        more = list(notes)
        announced = re.match(r"\s*ZCURVE\d*\s+TABLE\s+(\d{1,7})\s*$", file.lines[start])
        if announced and len(rows.lines) < int(announced[1]):
            fault = f"{announced[1]} rows are announced, {len(rows.lines)} are there"
            raise file.error(start, fault, _TRUNCATED)
        if "DrCor" in file.lines[start + 1]:
            more.append("drift-corrected columns are present and not used")
        blocks.append(Block(file, "Gamry text", rows, True, stated=tuple(stated), notes=tuple(more)))
    return blocks


def _zview(file: TextFile) -> Block:
    end = next((i for i, x in enumerate(file.lines) if re.fullmatch(r"\s*End Comments\s*", x)), None)
    layout: Layout | None = None
    announced: tuple[int, int] | None = None
    for index, text in enumerate(file.lines[: end if end is not None else 400]):
        if found := re.match(r"\s*Data Points:\s*(\d{1,7})\s*$", text):
            announced = (index, int(found[1]))
        if re.search(r"Freq\s*\(Hz\)", text) and not is_row(text):
            if re.fullmatch(r"\s*\d{1,7}\s*", file.lines[index - 1]):
                announced = (index - 1, int(file.lines[index - 1]))
            first = _first_row(file, (index if end is None else end) + 1)
            if first is None:
                raise file.error(index, "no row follows the labels", "the file is truncated: export it again")
            layout = match_table(file, index, first)
            if layout is None:
                layout = Layout(index, first, "\t", 0, _labels_of(file, index))
                check_columns(file, layout)
                fault = "the first row does not fit the labels"
                raise file.error(first, fault, "the file is damaged: export it again")
    if layout is None:
        fault = "no line of labels such as Freq(Hz) Ampl Bias Time(Sec) Z'(a) Z''(b)"
        raise file.error(end, fault, "export the file again, or name the columns with `columns`")
    check_columns(file, layout)
    rows = read_rows(file, layout)
    if announced and len(rows.lines) < announced[1]:
        fault = f"{announced[1]} rows are announced, {len(rows.lines)} are there"
        raise file.error(announced[0], fault, _TRUNCATED)
    return Block(file, "ZView text (Scribner)", rows, True)


# Of a header, as much is searched for facts.
_MOST_HEADER, _LONGEST_FACT = 2_000, 500
_HEADER_FACT = re.compile(
    r"(?:^|[\s,;:#])(?P<key>thickness|diameter|(?:electrode )?area|temperature|temp\.?|amplitude|AC Volt|AC level)"
    r"\s*(?:[\[(](?P<unit>[^\[\]()]{1,12})[\])])?\s*[:=]\s*(?P<number>[+-]?\d[\d.,]*(?:[eE][+-]?\d{1,3})?)"
    r"[ \t]*(?P<after>[A-Za-zµμ°²^][A-Za-zµμ°²^0-9]{0,8})?",
    re.IGNORECASE,
)
_FACTS: dict[str, tuple[Fact, str]] = {
    "thickness": ("thickness", "m"),
    "diameter": ("diameter", "m"),
    "area": ("area", "m^2"),
    "electrode area": ("area", "m^2"),
    "temperature": ("temperature", "K"),
    "temp": ("temperature", "K"),
    "amplitude": ("amplitude", "V"),
    "ac volt": ("amplitude", "V"),
    "ac level": ("amplitude", "V"),
}


def header_facts(lines: Sequence[str]) -> tuple[list[Stated], list[str]]:
    """What "thickness: 2.1 mm", "Temp. [°C]=20.0" or "AC Volt [Vrms]=7.1e-3" above a table state, and notes.

    A value without a unit is not used, which a note says. An amplitude counts where it is said to be rms.
    """
    facts: list[Stated] = []
    notes: list[str] = []
    for text in lines[:_MOST_HEADER]:
        if len(text) > _LONGEST_FACT or is_row(text):
            continue
        for found in _HEADER_FACT.finditer(text):
            fact, unit = _FACTS[found["key"].casefold().rstrip(".")]
            words = found[0].strip(" \t,;:#")
            given = (found["unit"] or found["after"] or "").strip()
            number = parse_number(found["number"].rstrip(".,"))
            rms = given.casefold().endswith("rms")
            given = re.sub(r"[_ ]?rms$", "", given, flags=re.IGNORECASE)
            if number is None or not given or (fact == "amplitude" and not rms and fact == "amplitude"):
                reason = "peak or rms is not said" if given else "no unit"
                notes.append(f"the header's {words!r} is not used: {reason}")
                continue
            try:
                value = parse_quantity(f"{number!r} {given}", unit)
            except InputError:
                notes.append(f"the header's {words!r} is not used: {given!r} is no unit of it")
                continue
            if value > 0.0:
                facts.append(Stated(fact, value, words))
    return facts, notes


def _plain(file: TextFile, kind: str, *, defined_sign: bool) -> list[Block]:
    layout = find_table(file)
    if layout is None:
        return [_unlabelled(file)]
    check_columns(file, layout)
    blocks: list[Block] = []
    above = 0
    while True:
        facts, notes = header_facts(file.lines[above : layout.header])
        rows = read_rows(file, layout)
        blocks.append(Block(file, kind, rows, defined_sign, stated=tuple(facts), notes=tuple(notes)))
        header = None if rows.end >= len(file.lines) else next_table(file, rows.end)
        following = None if header is None else table_below(file, header)
        if following is None:
            return blocks
        check_columns(file, following)
        above, layout = rows.end, following


def _labelled(file: TextFile, labels: Sequence[str]) -> Block:
    """A table whose columns the user names; everything above the first row with that many columns is a header."""
    columns, refused = match_labels(labels)
    if refused is not None:
        raise InputError("columns", list(labels), str(refused))
    for first in range(len(file.lines)):
        if not is_row(file.lines[first]):
            continue
        for separator, cells in row_splits(file.lines[first]):
            if len(cells) < len(labels) or any(parse_number(cells[i]) is None for i in columns):
                continue
            layout = Layout(None, first, separator, len(cells), columns)
            if not layout.complete:
                remedy = 'name a frequency and an impedance, such as ["f / Hz", "Z\' / ohm", "-Z\'\' / ohm"]'
                raise InputError("columns", list(labels), remedy)
            facts, notes = header_facts(file.lines[:first])
            rows = read_rows(file, layout)
            return Block(file, "text", rows, stated=tuple(facts), notes=("columns as named", *notes))
    fault = f"no row of {len(labels)} numbers"
    raise file.error(None, fault, "name as many columns as the table has, from left to right")


def _unlabelled(file: TextFile) -> Block:
    """Three columns of numbers without labels: frequency, real and imaginary part, which a note says."""
    first = _first_row(file, 0)
    if first is None:
        fault = "no table of numbers"
        raise file.error(
            None, fault, "give a text file with frequency, real and imaginary part of the impedance"
        )
    above = next((i for i in range(first - 1, -1, -1) if file.lines[i].strip()), None)
    widths = {len(cells) for _, cells in row_splits(file.lines[first])}
    for labels in label_cells(file.lines[above]) if above is not None else ():
        named, refused = match_labels(labels)
        if refused is not None:
            raise file.error(above, f"a unit that cannot be used: {refused}", "correct the label")
        if len(labels) in widths and len(labels) >= 3:
            check_columns(file, Layout(above, first, "\t", 0, named))
        elif len(named) >= 2:
            fault = f"{len(labels)} labels stand above rows of {min(widths, default=1)} columns"
            raise file.error(
                above, fault, "complete the labels or the rows, and separate both in the same way"
            )
    columns = {
        0: Column("frequency", "column 1"),
        1: Column("real", "column 2"),
        2: Column("imaginary", "column 3"),
    }
    for separator, cells in row_splits(file.lines[first]):
        if len(cells) == 3 and all(parse_number(c) is not None for c in cells):
            layout = Layout(None, first, separator, 3, columns)
            facts, notes = header_facts(file.lines[:first])
            rows = read_rows(file, layout)
            said = "no labels: three columns taken as f / Hz, Z' / ohm and Z'' / ohm"
            return Block(file, "text without labels", rows, stated=tuple(facts), notes=(said, *notes))
    fault = "the columns have no labels, and there are not three of them"
    raise file.error(first, fault, "label them above the numbers, or name them with `columns`")


def read_mpr(path: Path) -> Block:
    """The impedance table of a binary EC-Lab file, read by the optional package galvani.

    Raises MeasuredFileError where galvani is missing or cannot read the file, or a column is missing.
    """
    try:
        from galvani import BioLogic
    except ImportError:
        remedy = "pip install 'mesoion[biologic]', or export the file as text (.mpt) from EC-Lab"
        raise MeasuredFileError(path, None, "binary EC-Lab files need the package galvani", remedy) from None
    remedy = "export the file as text (.mpt) from EC-Lab"
    try:
        with path.open("rb") as opened:
            data: Any = BioLogic.MPRfile(opened).data
        names = list(data.dtype.names)
        columns, _ = match_labels(names)
        values = {i: [float(x) for x in data[names[i]]] for i in columns}
    # Whatever a foreign parser of an undocumented format throws at a damaged file is this file's fault.
    except Exception as error:
        raise MeasuredFileError(path, None, f"galvani cannot read it ({error})", remedy) from None
    file = TextFile(path, (), "binary")
    layout = Layout(None, 0, "\t", len(names), columns)
    check_columns(file, layout)
    count = len(data)
    needed = [i for i, c in columns.items() if c.quantity not in ("temperature", "cycle")]
    for row in range(count):
        if not all(math.isfinite(values[i][row]) for i in needed):
            raise file.error(row, "a value that is not finite", remedy)
    rows = Rows(layout, list(range(count)), values, False, count)
    return Block(file, "EC-Lab binary (BioLogic)", rows, notes=("lines are counted in data rows",))


def without_rest(block: Block) -> Block:
    """The block without the rows of a rest before a sweep, whose frequency and impedance are 0."""
    frequency = block.rows.column("frequency")
    assert frequency is not None
    parts = [p[1] for q in ("real", "imaginary", "modulus") if (p := block.rows.column(q)) is not None]
    rest = [f == 0.0 and not any(p[k] for p in parts) for k, f in enumerate(frequency[1])]
    if not any(rest):
        return block
    keep = [k for k, r in enumerate(rest) if not r]
    values = {i: [v[k] for k in keep] for i, v in block.rows.values.items()}
    rows = replace(block.rows, lines=[block.rows.lines[k] for k in keep], values=values)
    said = f"{sum(rest)} rows at frequency 0 (rest before a sweep) left out"
    return replace(block, rows=rows, notes=(*block.notes, said))
