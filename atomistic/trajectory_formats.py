"""Text trajectories read frame by frame: LAMMPS dump, extended xyz, XDATCAR; plain or gzipped.

Each reader yields `RawFrame`s as the file has them; `atomistic.trajectory` checks, orders and unwraps. Lengths in Å,
times in ps. A file is data: nothing in it is evaluated.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from atomistic.errors import FileFormatError, InputError

Floats = NDArray[np.float64]

LARGEST_SYSTEM = 20_000_000
_LONGEST_LINE = 1_000_000
_LARGEST_LENGTH = 1e7
_TIME_UNITS = {"metal": 1.0, "real": 1e-3}
"""ps per unit of time of LAMMPS' `units` styles that have Å as length."""


class TruncatedError(Exception):
    """The file ends within a frame; caught where the last complete frame is known."""

    def __init__(self, line: int, what: str) -> None:
        self.line, self.what = line, what
        super().__init__(what)


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One frame as a file has it.

    line: where it begins. step: MD step or configuration number; time: ps; both None where the file has none.
    numbers: (n,) atomic numbers. positions: (n, 3) Å from the cell's origin; unwrapped: whether they are continuous.
    ids: (n,) labels of the atoms, or None where their order is all there is.
    """

    line: int
    step: int | None
    time: float | None
    cell: Floats
    periodic: tuple[bool, bool, bool]
    numbers: NDArray[np.uint8]
    positions: Floats
    unwrapped: bool
    ids: NDArray[np.int64] | None = field(default=None)


class Lines:
    """Lines of a plain or gzipped file with their numbers; raises FileFormatError for damage."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self.number, self._stream = path, 0, stream

    def next(self) -> bytes | None:
        """The next line without its end, None at the end of the file."""
        block = self.block(1)
        return block[0] if block else None

    def block(self, count: int) -> list[bytes]:
        """The next `count` lines, fewer at the end of the file."""
        try:
            lines = list(islice(iter(lambda: self._stream.readline(_LONGEST_LINE), b""), count))
        except EOFError:
            raise TruncatedError(self.number + 1, "the gzip stream is cut off") from None
        except (OSError, zlib.error) as error:
            raise self.bad(f"cannot be read ({error})", "give a readable plain or gzipped file") from None
        if lines and not lines[-1].endswith(b"\n"):
            self.number += len(lines)
            if len(lines[-1]) >= _LONGEST_LINE:
                raise self.bad("a line of a megabyte", "give a text trajectory")
            raise TruncatedError(self.number, "the last line has no end, its last number may be cut")
        self.number += len(lines)
        return [line.rstrip(b"\r\n") for line in lines]

    def need(self, what: str) -> bytes:
        """The next line; TruncatedError at the end of the file."""
        line = self.next()
        if line is None:
            raise TruncatedError(self.number, f"the file ends where {what} should stand")
        return line

    def bad(self, what: str, remedy: str, line: int | None = None) -> FileFormatError:
        """The error for the line read last, or `line`."""
        return FileFormatError(self.path, self.number if line is None else line, what, remedy)


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """The file's bytes as a stream. Raises FileFormatError where it cannot be opened."""
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise FileFormatError(
            path,
            None,
            f"cannot be opened ({getattr(error, 'strerror', None) or error})",
            "give a readable file",
        ) from None
    with stream:
        yield stream


@contextmanager
def opened(path: Path) -> Iterator[Lines]:
    """`path` as Lines; gzip is told by its first bytes. Raises FileFormatError where it cannot be opened."""
    with reading(path) as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if packed:
            with gzip.open(plain, "rb") as stream:
                yield Lines(path, stream)
        else:
            yield Lines(path, plain)


def _integer(lines: Lines, text: bytes, what: str, low: int, high: int) -> int:
    if not re.fullmatch(rb"\s*[+-]?\d{1,18}\s*", text):
        raise lines.bad(f"{what} is {text[:40]!r}", "a whole number stands there")
    value = int(text)
    if not low <= value <= high:
        raise lines.bad(f"{what} is {value}", f"it lies between {low} and {high}")
    return value


def _numbers(lines: Lines, text: bytes, count: int, what: str) -> Floats:
    parts = text.split()
    if len(parts) != count:
        raise lines.bad(f"{what} has {len(parts)} numbers", f"{count} numbers stand there")
    return _to_floats(lines, np.array(parts), what, lines.number)


def _to_floats(lines: Lines, words: NDArray[Any], what: str, line: int) -> Floats:
    try:
        values = words.astype(np.float64)
    except ValueError as error:
        raise lines.bad(f"{what}: {error}", "numbers stand there", line) from None
    if not np.all(np.abs(values) < _LARGEST_LENGTH):
        raise lines.bad(f"{what} holds {_worst(values):g}", "finite numbers below 1e7 stand there", line)
    if np.any(np.char.find(words, b"_") >= 0):
        raise lines.bad(f"{what} holds an underscore", "numbers stand there", line)
    return np.asarray(values, dtype=np.float64)


def _worst(values: Floats) -> float:
    return float(values.ravel()[np.argmax(~(np.abs(values.ravel()) < _LARGEST_LENGTH))])


def _table(lines: Lines, count: int, columns: int, what: str) -> NDArray[Any]:
    """`count` lines of `columns` words each, as bytes (count, columns)."""
    first = lines.number + 1
    rows = lines.block(count)
    if len(rows) < count:
        raise TruncatedError(lines.number, f"{len(rows)} of {count} atoms of a frame are there")
    words = b" ".join(rows).split()
    if len(words) != count * columns:
        for offset, row in enumerate(rows):
            if len(row.split()) != columns:
                raise lines.bad(
                    f"{what}: {len(row.split())} words", f"{columns} words stand there", first + offset
                )
    return np.array(words).reshape(count, columns)


def _cell_checked(lines: Lines, cell: Floats, line: int) -> Floats:
    lengths = np.linalg.norm(cell, axis=1)
    volume = abs(float(np.linalg.det(cell)))
    if not np.all(lengths > 0) or volume < 1e-6 * float(np.prod(lengths)):
        raise lines.bad("the cell has no volume", "give three independent cell vectors", line)
    return cell


def element_number(symbol: str, where: Callable[[str, str], Exception]) -> int:
    """Atomic number of a symbol such as "Li" or "Zr_sv"; raises what `where(what, remedy)` makes."""
    number = atomic_numbers.get(re.split(r"[_/]", symbol)[0], 0)
    if number < 1:
        raise where(f"{symbol[:20]!r} is not an element", "give symbols such as Li")
    return int(number)


def _elements(lines: Lines, words: NDArray[Any], line: int) -> NDArray[np.uint8]:
    symbols, codes = np.unique(words, return_inverse=True)
    known = [
        element_number(s.decode("latin-1"), lambda what, remedy: lines.bad(what, remedy, line))
        for s in symbols.tolist()
    ]
    return np.array(known, dtype=np.uint8)[codes.reshape(-1)]


def species_table(species: Mapping[int, str] | list[str] | tuple[str, ...] | None) -> dict[int, int] | None:
    """Atomic numbers by LAMMPS type, from {1: "Li"} or ["Li", ...]. Raises InputError for unknown symbols."""
    if species is None:
        return None
    items = species.items() if isinstance(species, Mapping) else enumerate(species, start=1)
    return {
        int(kind): element_number(str(symbol), lambda what, remedy: InputError("species", what, remedy))
        for kind, symbol in items
    }


def symbols_to_numbers(species: tuple[str, ...]) -> NDArray[np.uint8]:
    """(atoms,) atomic numbers of symbols. Raises InputError for an unknown one."""
    table = {
        s: element_number(s, lambda what, remedy: InputError("species", what, remedy)) for s in set(species)
    }
    return np.array([table[s] for s in species], dtype=np.uint8)


def positive(name: str, value: int) -> int:
    """`value` if it is a whole number above zero. Raises InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(name, value, "give a whole number above zero")
    return int(value)


_COORDINATES = (
    (("xu", "yu", "zu"), False, True),
    (("xsu", "ysu", "zsu"), True, True),
    (("x", "y", "z"), False, False),
    (("xs", "ys", "zs"), True, False),
)


def read_dump(lines: Lines, species: dict[int, int] | None) -> Iterator[RawFrame]:
    """Frames of a LAMMPS text dump: xu yu zu, xsu ysu zsu, or x y z / xs ys zs with or without ix iy iz."""
    while True:
        frame: dict[str, Any] = {}
        line = lines.next()
        while line is not None and not line.strip():
            line = lines.next()
        if line is None:
            return
        start = lines.number
        while True:
            if line.startswith(b"ITEM: ATOMS"):
                break
            if line.startswith(b"ITEM: TIMESTEP"):
                frame["step"] = _integer(lines, lines.need("a timestep"), "the timestep", 0, 10**17)
            elif line.startswith(b"ITEM: UNITS"):
                units = lines.need("units").strip().decode("latin-1")
                if units not in _TIME_UNITS:
                    raise lines.bad(f"units {units[:20]!r}", f"convert to {' or '.join(_TIME_UNITS)}")
                frame["units"] = units
            elif line.startswith(b"ITEM: TIME"):
                frame["time"] = float(_numbers(lines, lines.need("a time"), 1, "the time")[0])
            elif line.startswith(b"ITEM: NUMBER OF ATOMS"):
                text = lines.need("the number of atoms")
                frame["count"] = _integer(lines, text, "the number of atoms", 1, LARGEST_SYSTEM)
            elif line.startswith(b"ITEM: BOX BOUNDS"):
                frame["cell"], frame["origin"], frame["periodic"] = _dump_box(lines, line)
            else:
                raise lines.bad(f"{line[:40]!r}", "an ITEM: line of a LAMMPS dump stands there")
            line = lines.need("ITEM: ATOMS")
        missing = [key for key in ("step", "count", "cell") if key not in frame]
        if missing:
            raise lines.bad(
                f"a frame without its {', '.join(missing)}", "each frame of a dump has its header"
            )
        yield _dump_atoms(lines, line, frame, species, start)


def _dump_box(lines: Lines, header: bytes) -> tuple[Floats, Floats, tuple[bool, bool, bool]]:
    words = header.split()[3:]
    start = lines.number
    general = words[:2] == [b"abc", b"origin"]
    tilted = words[:3] == [b"xy", b"xz", b"yz"]
    flags = words[2:] if general else words[3:] if tilted else words
    if len(flags) not in (0, 3):
        raise lines.bad(f"{header[:60]!r}", "the boundaries are given as pp, ff, ss, ...")
    periodic = tuple(flag.startswith(b"p") for flag in flags) if flags else (True, True, True)
    columns = 4 if general else 3 if tilted else 2
    rows = np.array([_numbers(lines, lines.need("the box"), columns, "the box") for _ in range(3)])
    if general:
        cell, origin = rows[:, :3].copy(), rows[:, 3].copy()
    else:
        low, high = rows[:, 0].copy(), rows[:, 1].copy()
        xy, xz, yz = rows[:, 2] if tilted else (0.0, 0.0, 0.0)
        low -= [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
        high -= [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
        edge = high - low
        if np.any(edge <= 0):
            raise lines.bad("a box of no extent", "each lower bound lies below its upper one", start)
        cell = np.array([[edge[0], 0, 0], [xy, edge[1], 0], [xz, yz, edge[2]]], dtype=np.float64)
        origin = low
    return _cell_checked(lines, cell, start), origin, (periodic[0], periodic[1], periodic[2])


def _dump_atoms(
    lines: Lines, header: bytes, frame: dict[str, Any], species: dict[int, int] | None, start: int
) -> RawFrame:
    names = [name.decode("latin-1") for name in header.split()[2:]]
    at = lines.number
    if len(set(names)) != len(names):
        raise lines.bad("a column stands there twice", "give each column once")
    found = [choice for choice in _COORDINATES if all(name in names for name in choice[0])]
    if not found:
        raise lines.bad(f"columns {' '.join(names)[:80]}", "dump xu yu zu, or x y z with ix iy iz")
    columns, scaled, unwrapped = found[0]
    count, cell = int(frame["count"]), frame["cell"]
    words = _table(lines, count, len(names), "an atom")

    def values(keys: tuple[str, ...]) -> Floats:
        return _to_floats(lines, words[:, [names.index(key) for key in keys]], "an atom's " + keys[0], at)

    def integers(key: str) -> NDArray[np.int64]:
        column = values((key,))[:, 0]
        if np.any(column != np.rint(column)):
            raise lines.bad(f"a broken {key}", "a whole number stands there", at)
        return column.astype(np.int64)

    positions = values(columns)
    positions = positions @ cell if scaled else positions - frame["origin"]
    if not unwrapped and all(name in names for name in ("ix", "iy", "iz")):
        images = np.stack([integers(name) for name in ("ix", "iy", "iz")], axis=1)
        positions = positions + images @ cell
        unwrapped = True
    if "element" in names:
        numbers = _elements(lines, words[:, names.index("element")], at)
    elif "type" in names:
        if species is None:
            raise InputError(
                "species",
                ...,
                f"{lines.path} has types only: give species, the elements of types 1, 2, ... in that order",
            )
        types, codes = np.unique(integers("type"), return_inverse=True)
        unknown = [int(t) for t in types if int(t) not in species]
        if unknown:
            raise lines.bad(
                f"type {unknown[0]} has no element", "name the element of each type in species", at
            )
        numbers = np.array([species[int(t)] for t in types], dtype=np.uint8)[codes.reshape(-1)]
    else:
        raise lines.bad("neither element nor type among the columns", "dump id element xu yu zu", at)
    units = frame.get("units", "metal")
    time = frame.get("time")
    return RawFrame(
        line=start,
        step=frame["step"],
        time=None if time is None else time * _TIME_UNITS[units],
        cell=cell,
        periodic=frame["periodic"],
        numbers=numbers,
        positions=positions,
        unwrapped=unwrapped,
        ids=integers("id") if "id" in names else None,
    )


_PAIR = re.compile(r"([A-Za-z_][\w-]*)\s*=\s*(\"[^\"]*\"|'[^']*'|\{[^}]*\}|\S+)")
_TYPE_WIDTH = re.compile(r"([A-Za-z_]\w*):([SRIL]):([1-9]\d{0,2})")


def read_extxyz(lines: Lines, species: dict[int, int] | None) -> Iterator[RawFrame]:
    """Frames of an extended xyz file with Lattice and Properties; `time_ps`, `step` and a column `id` are used."""
    while True:
        line = lines.next()
        if line is None:
            return
        if not line.strip():
            continue
        start = lines.number
        count = _integer(lines, line, "the number of atoms", 1, LARGEST_SYSTEM)
        comment = lines.need("the comment line").decode("utf-8", "replace")
        values = {key.lower(): value.strip("\"'{}") for key, value in _PAIR.findall(comment)}
        if "lattice" not in values:
            raise lines.bad("no Lattice", 'the second line of a frame has Lattice="ax ay az bx ..."')
        cell = _numbers(lines, values["lattice"].encode(), 9, "Lattice").reshape(3, 3)
        cell = _cell_checked(lines, cell, lines.number)
        flags = values.get("pbc", "T T T").split()
        if len(flags) != 3 or any(
            flag.lower() not in ("t", "f", "1", "0", "true", "false") for flag in flags
        ):
            raise lines.bad(f"pbc {values['pbc'][:20]!r}", 'write pbc="T T T"')
        periodic = [flag.lower() in ("t", "1", "true") for flag in flags]
        layout = values.get("properties", "species:S:1:pos:R:3")
        columns: dict[str, tuple[int, int]] = {}
        width = 0
        entries = _TYPE_WIDTH.findall(layout)
        if ":".join(":".join(entry) for entry in entries) != layout:
            raise lines.bad(f"Properties {layout[:60]!r}", "write name:S|R|I|L:columns for each property")
        for name, _, size in entries:
            columns[name.lower()] = (width, int(size))
            width += int(size)
        if columns.get("species", (0, 0))[1] != 1 or columns.get("pos", (0, 0))[1] != 3:
            raise lines.bad("no species or no positions", "Properties has species:S:1 and pos:R:3")
        step = time = None
        if "step" in values:
            step = _integer(lines, values["step"].encode(), "step", 0, 10**17)
        if "time_ps" in values:
            time = float(_numbers(lines, values["time_ps"].encode(), 1, "time_ps")[0])
        at = lines.number + 1
        words = _table(lines, count, width, "an atom")
        first = columns["pos"][0]
        positions = _to_floats(lines, words[:, first : first + 3], "a position", at)
        numbers = _elements(lines, words[:, columns["species"][0]], at)
        ids = None
        if columns.get("id", (0, 0))[1] == 1:
            column = _to_floats(lines, words[:, columns["id"][0]], "an id", at)
            if np.any(column != np.rint(column)):
                raise lines.bad("a broken id", "a whole number stands there", at)
            ids = column.astype(np.int64)
        yield RawFrame(
            line=start,
            step=step,
            time=time,
            cell=cell,
            periodic=(periodic[0], periodic[1], periodic[2]),
            numbers=numbers,
            positions=positions,
            unwrapped=False,
            ids=ids,
        )


def read_xdatcar(lines: Lines, species: dict[int, int] | None) -> Iterator[RawFrame]:
    """Frames of a VASP XDATCAR, with the cell once or before every frame."""
    cell: Floats | None = None
    title = b""
    numbers = np.zeros(0, dtype=np.uint8)
    while True:
        line = lines.next()
        if line is None:
            return
        start = lines.number
        if not re.match(rb"\s*Direct configuration=", line):
            if cell is not None and title and not line.strip():
                continue
            title = line.strip()
            cell, numbers = _xdatcar_header(lines)
            line = lines.need("a configuration")
        match = re.fullmatch(rb"\s*Direct configuration=\s*(\d{1,17})\s*", line)
        if match is None or cell is None:
            raise lines.bad(f"{line[:40]!r}", "'Direct configuration=' and a number stand there")
        at = lines.number + 1
        scaled = _to_floats(lines, _table(lines, len(numbers), 3, "an atom"), "a position", at)
        yield RawFrame(
            line=start,
            step=int(match[1]),
            time=None,
            cell=cell,
            periodic=(True, True, True),
            numbers=numbers,
            positions=scaled @ cell,
            unwrapped=False,
        )


def _xdatcar_header(lines: Lines) -> tuple[Floats, NDArray[np.uint8]]:
    at = lines.number
    scale = float(_numbers(lines, lines.need("a scale"), 1, "the scale")[0])
    rows = np.array([_numbers(lines, lines.need("a cell vector"), 3, "a cell vector") for _ in range(3)])
    if scale == 0.0:
        raise lines.bad("a scale of zero", "give a scale above zero, or minus the volume", at)
    if scale < 0.0:
        scale = (-scale / max(abs(float(np.linalg.det(rows))), 1e-300)) ** (1 / 3)
    cell = _cell_checked(lines, rows * scale, at)
    names = lines.need("the elements").decode("latin-1").split()
    counts = lines.need("the numbers of atoms").split()
    if not names or len(names) != len(counts):
        raise lines.bad(f"{len(names)} elements and {len(counts)} numbers", "one number for each element")
    total = [_integer(lines, count, "the number of atoms", 0, LARGEST_SYSTEM) for count in counts]
    if not 1 <= sum(total) <= LARGEST_SYSTEM:
        raise lines.bad(f"{sum(total)} atoms", f"between 1 and {LARGEST_SYSTEM} atoms")
    known = [element_number(name, lambda w, r: lines.bad(w, r)) for name in names]
    return cell, np.repeat(np.array(known, dtype=np.uint8), total)


READERS: dict[str, Callable[[Lines, dict[int, int] | None], Iterator[RawFrame]]] = {
    "dump": read_dump,
    "extxyz": read_extxyz,
    "xdatcar": read_xdatcar,
}


def guess_format(path: Path) -> str:
    """ "dump", "extxyz" or "xdatcar", by the first lines. Raises FileFormatError where they fit none."""
    try:
        with opened(path) as lines:
            head = lines.block(3)
    except TruncatedError:
        head = []
    first = head[0].strip() if head else b""
    if first.startswith(b"ITEM:"):
        return "dump"
    if re.fullmatch(rb"\d{1,9}", first) and len(head) > 1 and re.search(rb"lattice\s*=", head[1], re.I):
        return "extxyz"
    if len(head) == 3 and re.fullmatch(rb"-?\d+(\.\d*)?", head[1].strip()) and len(head[2].split()) == 3:
        return "xdatcar"
    raise FileFormatError(
        path,
        1,
        "neither a LAMMPS dump, an extended xyz file nor an XDATCAR",
        f"name it: {', '.join(READERS)}",
    )
