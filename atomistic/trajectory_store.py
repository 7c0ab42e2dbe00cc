"""The project's own trajectory file: compressed, written block by block, safe against a kill.

MAGIC, then blocks: kind, frames, bytes and CRC-32, then the body. The first block holds JSON (species, provenance) and
the first frame in full; each further one, packed with zlib, holds times, cells and the displacements from that first
frame as float32, rounded, with equal bytes together. A block is whole or is ignored: a killed run loses at most one.
Little-endian throughout. Lengths in Å, times in ps.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atomistic.errors import AtomisticError, FileFormatError, InputError, TrajectoryError
from atomistic.trajectory_formats import LARGEST_SYSTEM, TruncatedError, positive, reading, symbols_to_numbers

Floats = NDArray[np.float64]

MAGIC = b"ATRAJ\x001\n"
RESOLUTION = 2.0**-13
"""Å; rounding of stored displacements, far below thermal motion: an error of at most half of it."""

_EVEN = 1e-6
_BLOCK = struct.Struct("<4sIQI")
_LARGEST_BLOCK = 1 << 34


def is_own(path: Path) -> bool:
    """Whether the file begins as this format does. Raises FileFormatError where it cannot be read."""
    with reading(path) as stream:
        return bool(stream.read(len(MAGIC)) == MAGIC)


def _packed(array: NDArray[Any]) -> bytes:
    """Bytes of an array with equal bytes of all its numbers together, which packs far better."""
    return array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()


def _unpacked(body: bytes, dtype: str) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(body, dtype=np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


class _Blocks:
    """Blocks of an own file with their ends; `TruncatedError` where the last one is cut or broken."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self._stream = path, stream
        self.end = 0
        if stream.read(len(MAGIC)) != MAGIC:
            raise FileFormatError(path, None, "not a trajectory of this format", "give a file it wrote")
        self.end = len(MAGIC)

    def __iter__(self) -> Iterator[tuple[bytes, int, bytes]]:
        size = os.fstat(self._stream.fileno()).st_size
        while self.end < size:
            head = self._stream.read(_BLOCK.size)
            if len(head) < _BLOCK.size:
                raise TruncatedError(0, "a block's head is cut")
            kind, frames, length, check = _BLOCK.unpack(head)
            if length > min(_LARGEST_BLOCK, size - self.end - _BLOCK.size):
                raise TruncatedError(0, "a block is cut")
            body = self._stream.read(length)
            if zlib.crc32(body, zlib.crc32(head[:-4])) != check:
                raise self.damaged("a block's checksum is wrong")
            self.end += _BLOCK.size + length
            yield kind, frames, body

    def damaged(self, what: str) -> FileFormatError:
        return FileFormatError(self.path, None, f"{what} at byte {self.end}", "take a copy that is whole")

    def inflate(self, body: bytes, size: int) -> bytes:
        """`body` unpacked to exactly `size` bytes."""
        try:
            stream = zlib.decompressobj()
            data = stream.decompress(body, size + 1)
        except zlib.error:
            raise self.damaged("a block cannot be unpacked") from None
        if len(data) != size:
            raise self.damaged("a block has the wrong size")
        return data


@dataclass(frozen=True)
class _Header:
    species: tuple[str, ...]
    exchanges: bool
    resolution: float
    provenance: dict[str, Any]
    reference: Floats


def _read_header(blocks: _Blocks, kind: bytes, body: bytes) -> _Header:
    try:
        length = struct.unpack_from("<I", body)[0]
        head = json.loads(body[4 : 4 + length].decode())
        species, exchanges = tuple(head["species"]), bool(head["exchanges"])
        resolution, provenance = float(head["resolution"]), dict(head["provenance"])
        reference = np.frombuffer(body[4 + length :], dtype="<f8").reshape(len(species), 3)
        if kind != b"HEAD" or not 0 < len(species) <= LARGEST_SYSTEM:
            raise ValueError
        symbols_to_numbers(species)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, AtomisticError, RecursionError):
        raise blocks.damaged("its header is broken") from None
    return _Header(species, exchanges, resolution, provenance, reference.astype(np.float64))


StoredFrame = tuple[float, Floats, Floats, NDArray[np.uint8] | None]
"""Time [ps], cell [Å], unwrapped positions [Å], atomic numbers where species are exchanged."""


def own_frames(
    path: Path, cut: Callable[[int, str], None]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], StoredFrame]]:
    """Species, provenance and frame, for every frame of a file.

    cut: called with the frame's number and the reason where the file ends within a block. Raises FileFormatError for
    damage, TrajectoryError for frames that are missing or uneven in time.
    """
    number, last, interval = 0, -np.inf, None
    with reading(path) as stream:
        blocks = _Blocks(path, stream)
        header: _Header | None = None
        try:
            for kind, frames, body in blocks:
                if header is None:
                    header = _read_header(blocks, kind, body)
                    provenance = {**header.provenance, "resolution_A": header.resolution}
                    continue
                for frame in _own_block(blocks, header, kind, frames, body):
                    step = frame[0] - last
                    if number == 1:
                        interval = step
                    if step <= 0 or (
                        interval and abs(step - interval) > _EVEN * interval + 1e-12 * abs(frame[0])
                    ):
                        raise TrajectoryError(
                            f"{path}: frame {number}: {step:g} ps after the frame before instead of "
                            f"{interval or 0:g} ps: frames are missing or uneven"
                        )
                    yield header.species, provenance, frame
                    number, last = number + 1, frame[0]
        except TruncatedError as end:
            cut(number, end.what)


def _own_block(
    blocks: _Blocks, header: _Header, kind: bytes, frames: int, body: bytes
) -> Iterator[StoredFrame]:
    atoms = len(header.species)
    sizes = [8 * frames, 72 * frames, 12 * frames * atoms, frames * atoms if header.exchanges else 0]
    if kind != b"DATA" or not 0 < frames <= 10_000_000 or sum(sizes) > _LARGEST_BLOCK:
        raise blocks.damaged("a block is of no known kind")
    data = blocks.inflate(body, sum(sizes))
    ends = np.cumsum(sizes)
    times = np.frombuffer(data[: ends[0]], dtype="<f8")
    cells = np.frombuffer(data[ends[0] : ends[1]], dtype="<f8").reshape(frames, 3, 3)
    moves = _unpacked(data[ends[1] : ends[2]], "<f4").reshape(frames, atoms, 3)
    numbers = np.frombuffer(data[ends[2] :], dtype=np.uint8).reshape(frames, -1)
    for k in range(frames):
        positions = header.reference + moves[k]
        yield (
            float(times[k]),
            cells[k].astype(np.float64),
            positions,
            numbers[k] if header.exchanges else None,
        )


class TrajectoryWriter:
    """Writes the own format block by block; a killed run can be continued.

    resolution: Å, a power of two; displacements from the first frame are rounded to it and stored as float32, so
    that a position is off by at most resolution/2 (up to 2^24 resolutions away, 2048 Å by default); None keeps all
    of float32's 24 bits. append=True continues a file: an incomplete last block is cut off, `last_time` is the time
    of its last frame. Raises FileFormatError or InputError.
    """

    def __init__(
        self,
        path: str | Path,
        species: tuple[str, ...] | list[str],
        *,
        provenance: Mapping[str, Any] | None = None,
        resolution: float | None = RESOLUTION,
        frames_per_block: int = 64,
        exchanges: bool = False,
        append: bool = False,
    ) -> None:
        self.path, self.species = Path(path), tuple(species)
        symbols_to_numbers(self.species)
        if resolution is not None and not (1e-9 < resolution < 1 and np.frexp(resolution)[0] == 0.5):
            raise InputError("resolution", resolution, "a power of two below 1 Å, such as 2**-13")
        self.resolution, self.exchanges = resolution or 0.0, exchanges
        self.provenance = dict(provenance or {})
        self.per_block = positive("frames_per_block", frames_per_block)
        self.last_time: float | None = None
        self._reference: Floats | None = None
        self._held: list[StoredFrame] = []
        try:
            if append and self.path.exists():
                self._continue()
            else:
                self._stream: IO[bytes] = open(self.path, "wb")  # noqa: SIM115
                self._stream.write(MAGIC)
        except OSError as error:
            raise FileFormatError(
                self.path, None, f"cannot be written ({error})", "choose a writable file"
            ) from None

    def _continue(self) -> None:
        with open(self.path, "rb") as stream:
            blocks = _Blocks(self.path, stream)
            header: _Header | None = None
            try:
                for kind, frames, body in blocks:
                    if header is None:
                        header = _read_header(blocks, kind, body)
                        continue
                    for time, *_ in _own_block(blocks, header, kind, frames, body):
                        self.last_time = time
            except TruncatedError:
                pass
            end = blocks.end
        if header is not None:
            if header.species != self.species or header.exchanges != self.exchanges:
                raise InputError("species", f"{len(self.species)} atoms", f"{self.path} holds other atoms")
            self.resolution, self._reference = header.resolution, header.reference
            self.provenance = header.provenance
        self._stream = open(self.path, "r+b")  # noqa: SIM115
        self._stream.truncate(end)
        self._stream.seek(end)

    def append(
        self, time: float, cell: ArrayLike, positions: ArrayLike, numbers: ArrayLike | None = None
    ) -> None:
        """Add a frame: time [ps], cell (3, 3) [Å], unwrapped positions (atoms, 3) [Å], atomic numbers if exchanged."""
        box, x = np.asarray(cell, dtype=np.float64), np.array(positions, dtype=np.float64)
        if box.shape != (3, 3) or x.shape != (len(self.species), 3):
            raise TrajectoryError(
                f"{self.path}: a frame of {len(self.species)} atoms is needed, got {x.shape}"
            )
        if not (np.isfinite(time) and np.all(np.isfinite(box)) and np.all(np.isfinite(x))):
            raise TrajectoryError(f"{self.path}: the frame at {time} ps is not finite")
        if self.last_time is not None and time <= self.last_time:
            raise TrajectoryError(
                f"{self.path}: time {time:g} ps is not after the last frame at {self.last_time:g} ps"
            )
        kinds = None
        if self.exchanges:
            if numbers is None:
                raise TrajectoryError(
                    f"{self.path}: a frame of a run with exchanges needs its atomic numbers"
                )
            kinds = np.array(numbers, dtype=np.uint8)
            if kinds.shape != (len(self.species),):
                raise TrajectoryError(f"{self.path}: {len(self.species)} atomic numbers are needed")
        if self._reference is None:
            self._reference = x.copy()
            head = {
                "species": list(self.species),
                "exchanges": self.exchanges,
                "resolution": self.resolution,
                "provenance": self.provenance,
            }
            text = json.dumps(head, sort_keys=True).encode()
            body = struct.pack("<I", len(text)) + text + self._reference.astype("<f8").tobytes()
            self._write(b"HEAD", 0, body)
        self._held.append((float(time), box, x, kinds))
        self.last_time = float(time)
        if len(self._held) >= self.per_block:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a block and hand it to the disk."""
        if not self._held or self._reference is None:
            return
        times, cells, positions, kinds = zip(*self._held, strict=True)
        moves = np.array(positions) - self._reference
        if self.resolution:
            moves = np.rint(moves / self.resolution) * self.resolution
        body = np.array(times, dtype="<f8").tobytes() + np.array(cells, dtype="<f8").tobytes()
        body += _packed(moves.astype("<f4"))
        if self.exchanges:
            body += np.array(kinds, dtype=np.uint8).tobytes()
        self._write(b"DATA", len(times), zlib.compress(body, 3))
        self._held = []
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _write(self, kind: bytes, frames: int, body: bytes) -> None:
        head = _BLOCK.pack(kind, frames, len(body), 0)[:-4]
        check = zlib.crc32(body, zlib.crc32(head))
        try:
            self._stream.write(head + struct.pack("<I", check) + body)
        except OSError as error:
            raise FileFormatError(
                self.path,
                None,
                f"could not be written ({error})",
                "free some space; earlier frames are intact",
            ) from None

    def close(self) -> None:
        """Write what is held and close the file."""
        if not self._stream.closed:
            self.flush()
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
