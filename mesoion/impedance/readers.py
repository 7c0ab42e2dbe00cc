"""Measured spectra from instrument files, by the labels of their columns, with everything that was matched said.

EC-Lab text (.mpt) and binary (.mpr, with galvani), Gamry (.DTA), ZView (.z), WinDETA text, CSV and plain text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mesoion.config import check
from mesoion.errors import InputError
from mesoion.impedance.columns import Column
from mesoion.impedance.formats import MPR_MARK, Block, find_blocks, read_mpr, without_rest
from mesoion.impedance.kramers_kronig import FEWEST_POINTS as KK_POINTS
from mesoion.impedance.kramers_kronig import fit_kramers_kronig
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.metadata import Metadata, Sign, Stated, read_sidecar, temperatures_in_name
from mesoion.impedance.tables import decode, read_bytes
from mesoion.progress import track

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

FEWEST_POINTS = 5
"""A sweep with fewer points is called truncated."""
SUFFIXES = frozenset({".mpt", ".mpr", ".dta", ".z", ".csv", ".txt", ".dat", ".tsv", ".asc", ".p00", ".i2b"})
"""Suffixes `read_batch` takes from a folder (any case)."""

# A sweep that returns to within this of the first one's start is a repetition.
_SAME_FREQUENCY = 0.02
# Shares of capacitive points above and below which the sign of an unsigned column is clear.
_CLEARLY_CAPACITIVE, _CLEARLY_INDUCTIVE = 0.6, 0.4


def read_measurements(
    path: str | Path,
    *,
    thickness: str | float | None = None,
    diameter: str | float | None = None,
    area: str | float | None = None,
    mass: str | float | None = None,
    temperature: str | float | None = None,
    amplitude: str | float | None = None,
    columns: Sequence[str] | None = None,
    sign: Sign | None = None,
    name: str | None = None,
) -> list[Measurement]:
    """The spectra of one measured file, one for each sweep in it.

    The format is told from the file's content and the columns from their labels; what was matched, changed or doubted
    is said in each Measurement's `source` and `notes`. Quantities are strings with units or plain SI numbers; what is
    not given here is taken from `NAME.toml` beside the file (`metadata.Metadata`), then from the file's own header,
    then, for the temperature, from the file's name. columns: labels for a table that has none, from left to right,
    such as ["f / kHz", "|Z| / ohm", "phase / deg"]. sign: what the imaginary (or phase) column holds, where the file
    does not say it truly.

    Raises MeasuredFileError naming file and line: missing, empty, binary or truncated file, missing columns, numbers
    that are none, wrong sign, duplicate or unordered frequencies; InputError for metadata no sample can have.
    """
    options = _options(
        thickness=thickness,
        diameter=diameter,
        area=area,
        mass=mass,
        temperature=temperature,
        amplitude=amplitude,
        columns=columns,
        sign=sign,
        name=name,
    )
    return _read(Path(path), options)


def _options(**given: object) -> Metadata:
    said = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items() if v is not None}
    return check(Metadata, said, where="options").checked("options")


def _read(path: Path, options: Metadata) -> list[Measurement]:
    raw = read_bytes(path)
    sidecar, said = read_sidecar(path)
    known = options.over(sidecar).checked(str(path))
    if raw.startswith(MPR_MARK):
        blocks, encoding = [read_mpr(path)], "binary"
    else:
        file = decode(path, raw)
        blocks, encoding = find_blocks(file, known.columns), file.encoding
    measurements: list[Measurement] = []
    for block in blocks:
        measurements += _sweeps(without_rest(block), known, [said] if said else [], encoding)
    base = known.name or path.stem
    if len(measurements) == 1:
        return [replace(measurements[0], name=base)]
    parts = [m.name or f"sweep {k}" for k, m in enumerate(measurements, 1)]
    if len(set(parts)) < len(parts):
        parts = [f"sweep {k}" for k in range(1, len(parts) + 1)]
    note = f"{len(parts)} sweeps in the file, kept apart"
    return [
        replace(m, name=f"{base} {part}", notes=(*m.notes, note))
        for m, part in zip(measurements, parts, strict=True)
    ]


def _numbers(block: Block, quantity: str) -> tuple[Column, Floats] | None:
    found = block.rows.column(quantity)
    if found is None:
        return None
    column, values = found
    return column, np.asarray(values, float) * abs(column.factor) + column.offset


def _sweeps(block: Block, known: Metadata, said: list[str], encoding: str) -> list[Measurement]:
    file = block.file
    frequency = _numbers(block, "frequency")
    assert frequency is not None
    f = frequency[1]
    if len(f) == 0:
        raise file.error(block.rows.layout.header, "the table has no rows", "export the spectrum again")
    bad = np.flatnonzero(~(np.isfinite(f) & (f > 0.0)))
    if bad.size:
        remedy = "frequencies are above zero: delete the row"
        raise file.error(block.line(int(bad[0])), f"frequency {f[bad[0]]:g} Hz", remedy)
    z, notes = _impedance(block, known.sign)
    zero = np.flatnonzero(~np.isfinite(z) | (z == 0.0))
    if zero.size:
        raise file.error(
            block.line(int(zero[0])), "an impedance of zero or beyond all numbers", "delete the row"
        )
    cycles = block.rows.column("cycle")
    pieces = _pieces(block, f, None if cycles is None else cycles[1])
    for piece in pieces if block.format == "text without labels" else ():
        _surely_cartesian(block, f[piece], z[piece], piece)
    layout = block.rows.layout
    place = "" if layout.header is None else f", labels on line {layout.header + 1}"
    comma = ", decimal commas" if block.rows.decimal_comma else ""
    source = f"{file.path}: {block.format}{place}: {layout.describe()}{comma}; {encoding}"
    notes = [*said, *block.notes, *_unit_notes(layout.columns.values(), block.format), *notes]
    measurements = []
    for piece in pieces:
        order = slice(None) if f[piece][0] > f[piece][-1] else slice(None, None, -1)
        own = [*notes, "rising frequencies, turned round"] if order.step == -1 else list(notes)
        geometry, temperature, amplitude, more = _known(block, known, piece)
        measurements.append(
            Measurement(
                f[piece][order],
                z[piece][order],
                _cycle_name(cycles, piece, len(pieces)),
                geometry,
                temperature,
                amplitude,
                source
                if len(pieces) == 1
                else f"{source}; lines {block.line(piece.start) + 1} to {block.line(piece.stop - 1) + 1}",
                tuple(own + more),
            )
        )
    return measurements


def _surely_cartesian(block: Block, f: Floats, z: Complexes, piece: slice) -> None:
    """MeasuredFileError where columns without labels obey Kramers-Kronig as |Z| and phase, and not as Z' and Z''."""
    second, third = (np.asarray(block.rows.values[i], float)[piece] for i in (1, 2))
    if len(f) < KK_POINTS or np.abs(third).max() > 95.0 or second.min() <= 0.0:
        return
    polar = second * np.exp(-1j * np.deg2rad(np.abs(third)))
    as_told, as_polar = (fit_kramers_kronig(f, x).noise for x in (z, polar))
    if as_told > 0.02 and as_polar < 0.2 * as_told:
        fault = "three columns without labels that fit |Z| and a phase in degrees better than Z' and Z''"
        remedy = 'label them, or name them with columns = ["f / Hz", "|Z| / ohm", "phase / deg"]'
        raise block.file.error(block.line(piece.start), fault, remedy)


def _cycle_name(cycles: tuple[Column, list[float]] | None, piece: slice, count: int) -> str:
    if cycles is None or count == 1:
        return ""
    values = set(cycles[1][piece])
    value = values.pop() if len(values) == 1 else math.nan
    return f"cycle {value:g}" if math.isfinite(value) else ""


def _unit_notes(columns: Iterable[Column], kind: str) -> list[str]:
    words = {"frequency": "Hz", "real": "ohm", "imaginary": "ohm", "modulus": "ohm", "phase": "degrees"}
    if "ZView" in kind or kind == "text without labels":
        return []
    silent = [c for c in columns if c.quantity in words and not c.unit]
    return [f"{c.label!r} states no unit: taken as {words[c.quantity]}" for c in silent]


def _impedance(block: Block, sign: Sign | None) -> tuple[Complexes, list[str]]:
    """Z of all rows with Im Z < 0 where capacitive, and what was decided about the sign."""
    real, imaginary = _numbers(block, "real"), _numbers(block, "imaginary")
    if real is not None and imaginary is not None:
        column, values = imaginary
        turn = _turn(block, column, values, sign)
        notes = [turn[1]]
        re_z = real[1] if real[0].factor > 0 else -real[1]
        z = re_z + 1j * (turn[0] * values)
    else:
        modulus, phase = _numbers(block, "modulus"), _numbers(block, "phase")
        assert modulus is not None
        assert phase is not None
        column, angle = phase
        notes = []
        if not column.unit:
            if np.abs(angle).max() <= 1.7:
                fault = f"{column.label!r} states no unit, and its values could be degrees or radians"
                remedy = 'write the unit into the label, such as "phase / deg"'
                raise block.file.error(block.rows.layout.header, fault, remedy)
            angle = np.deg2rad(angle)
        if np.abs(angle).max() > 2.0 * math.pi:
            row = int(np.argmax(np.abs(angle)))
            fault = f"a phase of {angle[row]:g} rad"
            raise block.file.error(block.line(row), fault, "check the unit of the phase: degrees or radians")
        if (modulus[1] <= 0.0).any():
            row = int(np.argmin(modulus[1]))
            raise block.file.error(
                block.line(row), f"a modulus of {modulus[1][row]:g} ohm", "moduli are above zero"
            )
        turn = _turn(block, column, angle, sign)
        notes.append(turn[1])
        z = modulus[1] * np.exp(1j * turn[0] * angle)
    negative = np.flatnonzero(z.real <= 0.0)
    if negative.size > 0.5 * z.size:
        fault = f"{negative.size} of {z.size} real parts are not above zero"
        remedy = "a passive sample has a positive real part: check the columns and their order"
        raise block.file.error(block.line(int(negative[0])), fault, remedy)
    if negative.size:
        first = f"first on line {block.line(int(negative[0])) + 1}"
        notes.append(f"{negative.size} real parts are not above zero ({first})")
    return np.asarray(z, complex), notes


def _turn(block: Block, column: Column, values: Floats, sign: Sign | None) -> tuple[float, str]:
    """(factor that makes `values` the imaginary part or phase of Z, how it was decided)."""
    header = block.rows.layout.header
    what = "phase" if column.quantity == "phase" else "Z''"
    negative = float(np.mean(values < 0.0))
    if sign is not None:
        return (1.0 if sign == "Z''" else -1.0), f"sign: {column.label!r} holds {sign}, as told"
    share = f"{{:.0%}} of {values.size} points capacitive"
    if column.signed or block.defined_sign:
        capacitive = float(np.mean(values > 0.0)) if column.signed else negative
        holds = f"-{what}" if column.signed else what
        if capacitive < 0.5:
            fault = f"{column.label!r} holds {holds}, but only {share.format(capacitive)}: the sign is wrong"
            as_labelled, other = ("-Z''", "Z''") if column.signed else ("Z''", "-Z''")
            remedy = f'give sign = "{other}", or sign = "{as_labelled}" where the sample is truly inductive'
            raise block.file.error(header, fault, remedy)
        by = "by its label" if column.signed else f"as {block.format} defines it"
        return (
            -1.0 if column.signed else 1.0
        ), f"sign: {column.label!r} holds {holds} {by}; {share.format(capacitive)}"
    if negative >= _CLEARLY_CAPACITIVE:
        return 1.0, f"sign: {column.label!r} holds {what}, as the data say: {share.format(negative)}"
    if negative <= _CLEARLY_INDUCTIVE:
        said = f"sign: {column.label!r} holds -{what}, as the data say: {share.format(1.0 - negative)} so, turned round"
        return -1.0, said
    fault = f"the sign of {column.label!r} cannot be told: {negative:.0%} of its {values.size} values are negative"
    raise block.file.error(header, fault, "say what the column holds with sign = \"Z''\" or sign = \"-Z''\"")


def _pieces(block: Block, f: Floats, cycles: list[float] | None) -> list[slice]:
    """Rows of each sweep: cut where the cycle number changes and where the frequency returns to a sweep's start."""
    bounds = [0]
    if cycles is not None:
        bounds += [k for k in range(1, len(f)) if cycles[k] != cycles[k - 1] and math.isfinite(cycles[k])]
    pieces: list[slice] = []
    for start, stop in zip(bounds, [*bounds[1:], len(f)], strict=True):
        pieces += _monotonic(block, f, start, stop)
    for piece in pieces:
        count = piece.stop - piece.start
        if count < FEWEST_POINTS:
            fault = f"a sweep of {count} points" if len(pieces) > 1 else f"a table of {count} points"
            remedy = f"the file may be truncated: a spectrum has at least {FEWEST_POINTS} points"
            raise block.file.error(block.line(piece.stop - 1), fault, remedy)
    return pieces


def _monotonic(block: Block, f: Floats, start: int, stop: int) -> list[slice]:
    """Cuts a run of rows into sweeps; MeasuredFileError for frequencies that are double or out of order."""
    pieces: list[slice] = []
    begin, direction = start, 0.0
    for k in range(start + 1, stop):
        step = math.copysign(1.0, f[k] - f[k - 1]) if f[k] != f[k - 1] else 0.0
        if step == 0.0:
            fault = f"frequency {f[k]:g} Hz stands on this line and on line {block.line(k - 1) + 1}"
            remedy = "delete one of the rows, or put each measurement into a file of its own"
            raise block.file.error(block.line(k), fault, remedy)
        if direction == 0.0:
            direction = step
        elif step != direction:
            again = abs(f[k] / f[start] - 1.0) <= _SAME_FREQUENCY
            back = _turns_back(f, begin, k, stop, direction)
            if not (again or back) or k - begin < FEWEST_POINTS:
                fault = f"frequency {f[k]:g} Hz follows {f[k - 1]:g} Hz: rising and falling in one table"
                remedy = "sort the rows, or put each measurement into a file of its own"
                raise block.file.error(block.line(k), fault, remedy)
            pieces.append(slice(begin, k))
            begin, direction = k, -direction if back else 0.0
    pieces.append(slice(begin, stop))
    return pieces


def _turns_back(f: Floats, begin: int, k: int, stop: int, direction: float) -> bool:
    """Whether from row k the sweep that began at `begin` is run backwards to where it started."""
    end = k
    while end < stop and (f[end] - f[end - 1]) * direction < 0.0:
        end += 1
    return end - k >= FEWEST_POINTS and abs(f[end - 1] / f[begin] - 1.0) <= _SAME_FREQUENCY


def _known(
    block: Block, known: Metadata, piece: slice
) -> tuple[Geometry | None, float | None, float | None, list[str]]:
    """Geometry, temperature and amplitude of a sweep, and where each is from or why it is missing."""
    notes: list[str] = []
    stated = {s.fact: s for s in block.stated}
    filled = known
    for fact in ("thickness", "diameter", "area"):
        here = stated.get(fact)
        if here is None:
            continue
        if here.default:
            notes.append(f"the file's {here.words!r} is the program's default, not used")
            continue
        if fact != "thickness" and (known.diameter is not None or known.area is not None):
            continue
        if getattr(known, fact) is None:
            filled = filled.model_copy(update={fact: here.value})
            notes.append(f"{fact} from the file: {here.words}")
    geometry = filled.checked(str(block.file.path)).geometry()
    if geometry is None:
        absent = [] if filled.thickness is not None else ["thickness"]
        absent += [] if filled.diameter is not None or filled.area is not None else ["diameter or area"]
        notes.append(f"no geometry: {' and '.join(absent)} not known")
    temperature, more = _temperature(block, known, stated.get("temperature"), piece)
    amplitude = known.amplitude
    if amplitude is None and "amplitude" in stated:
        amplitude = stated["amplitude"].value
        more.append(f"amplitude {amplitude * 1e3:.4g} mV rms from the file: {stated['amplitude'].words}")
    return geometry, temperature, amplitude, notes + more


def _temperature(
    block: Block, known: Metadata, header: Stated | None, piece: slice
) -> tuple[float | None, list[str]]:
    """From the options, the column of the sweep, the file's header, its name: the first that says one."""
    sources: list[tuple[str, float]] = []
    notes: list[str] = []
    column = _numbers(block, "temperature")
    if column is not None:
        values = column[1][piece]
        # Gamry writes -327.67 °C where no sensor is connected.
        values = values[np.isfinite(values) & (values > 0.0)]
        if values.size:
            spread = float(np.ptp(values))
            sources.append(
                (f"column {column[0].label!r}, which varies by {spread:.2g} K", float(values.mean()))
            )
    if header is not None:
        sources.append((f"the file: {header.words}", header.value))
    named = temperatures_in_name(block.file.path.stem)
    if len({round(t, 6) for t, _ in named}) > 1:
        notes.append(f"the name states several temperatures ({', '.join(w for _, w in named)}), none used")
    elif named:
        sources.append((f"the file's name: {named[0][1]}", named[0][0]))
    if known.temperature is not None:
        sources.insert(0, ("what was given", known.temperature))
    if not sources:
        return None, [*notes, "no temperature known"]
    words, value = sources[0]
    notes.append(f"temperature {value:.2f} K from {words}")
    notes += [f"{other} says {t:.2f} K" for other, t in sources[1:] if abs(t - value) > 2.0]
    return value, notes


@dataclass(frozen=True)
class Problem:
    """A file of a batch that could not be used, and why."""

    path: Path
    error: InputError


@dataclass(frozen=True)
class Batch:
    """What was read of a batch: spectra in the order of the files, files with problems, files left alone."""

    measurements: tuple[Measurement, ...]
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Path, ...] = ()


def batch_files(paths: str | Path | Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """(files to read, files of the folders that are left alone), folders opened and sorted by name.

    Folders inside folders are not opened; a sidecar of a file that is read is neither.
    Raises InputError for a path that does not exist, or where there is nothing to read.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    files: list[Path] = []
    ignored: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        for inside in sorted(path.iterdir(), key=lambda p: _natural(p.name)):
            if inside.is_file() and not inside.name.startswith("."):
                (files if inside.suffix.lower() in SUFFIXES else ignored).append(inside)
    files = list(dict.fromkeys(files))
    sidecars = {file.with_suffix(".toml") for file in files}
    ignored = [path for path in ignored if path not in sidecars]
    if not files:
        where = ", ".join(str(p) for p in given) or "batch"
        raise InputError(where, "no measured files", f"files end in {', '.join(sorted(SUFFIXES))}")
    return files, ignored


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """Sort key that puts 40C before 140C."""
    return [
        (t.isdigit(), float(t) if t.isdigit() else 0.0, t)
        for t in re.split(r"([0-9]{1,15})", name.casefold())
    ]


def read_batch(
    paths: str | Path | Iterable[str | Path],
    *,
    thickness: str | float | None = None,
    diameter: str | float | None = None,
    area: str | float | None = None,
    mass: str | float | None = None,
    temperature: str | float | None = None,
    amplitude: str | float | None = None,
    columns: Sequence[str] | None = None,
    sign: Sign | None = None,
    show_progress: bool | None = None,
) -> Batch:
    """The spectra of many files, or of the folders among `paths`; the options hold for all of them.

    A file that cannot be used becomes a Problem, the others go on. Names are made unique by folder or suffix.
    Raises InputError for the options and where there is no file at all.
    """
    options = _options(
        thickness=thickness,
        diameter=diameter,
        area=area,
        mass=mass,
        temperature=temperature,
        amplitude=amplitude,
        columns=columns,
        sign=sign,
    )
    files, ignored = batch_files(paths)
    read: list[tuple[Path, Measurement]] = []
    problems: list[Problem] = []
    for path in track(files, "reading spectra", show=show_progress):
        try:
            read += [(path, m) for m in _read(path, options)]
        except InputError as error:
            problems.append(Problem(path, error))
    return Batch(_unique(read), tuple(problems), tuple(ignored))


def _unique(read: list[tuple[Path, Measurement]]) -> tuple[Measurement, ...]:
    """Equal names told apart by suffix, then by folder, then by a number."""
    names = [m.name for _, m in read]
    for form in ("{name}{suffix}", "{folder}/{name}{suffix}"):
        double = {n for n, k in Counter(names).items() if k > 1}
        for i, (path, m) in enumerate(read):
            if names[i] in double:
                names[i] = form.format(name=m.name, suffix=path.suffix, folder=path.parent.name)
    seen: Counter[str] = Counter()
    for i, n in enumerate(names):
        seen[n] += 1
        names[i] = n if seen[n] == 1 else f"{n} ({seen[n]})"
    return tuple(m if m.name == n else replace(m, name=n) for n, (_, m) in zip(names, read, strict=True))
