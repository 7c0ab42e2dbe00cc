"""Trajectories: one type for all sources, checked, unwrapped, in memory or streamed in chunks.

`open_trajectory` reads LAMMPS dump, extended xyz, XDATCAR and the project's own compressed `.traj.bin`, chunk by
chunk, so that memory stays far below the trajectory's. Whatever would falsify a diffusivity is refused with the
frame's number: missing frames, a changing number, order or species of atoms, jumps that cannot be unwrapped.

Lengths in Å and times in ps, as in ASE and LAMMPS' metal units. Frames are counted from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from atomistic.errors import FileFormatError, InputError, TrajectoryError
from atomistic.trajectory_formats import (
    READERS,
    Lines,
    RawFrame,
    TruncatedError,
    element_number,
    guess_format,
    opened,
    positive,
    species_table,
    symbols_to_numbers,
)
from atomistic.trajectory_store import RESOLUTION, TrajectoryWriter, is_own, own_frames

Floats = NDArray[np.float64]

_AMBIGUOUS = 0.45
"""Largest step between frames, in cells, that still has one nearest image beyond doubt."""
_EXCHANGE_MOVE, _EXCHANGE_FIT = 1.5, 0.7
"""Å: an atom took another's place if it moved more than the first and sits nearer the place than the second."""
_EVEN = 1e-6


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A run of frames with continuous (unwrapped) positions, or a chunk of one.

    species: (atoms,) symbols, of the first frame where they are exchanged. times: (frames,) ps, increasing.
    cells: (frames, 3, 3) Å, rows are the vectors. positions: (frames, atoms, 3) Å. provenance: where it comes from.
    first_frame: number of the first frame in the source. exchanged: (frames, atoms) atomic numbers where a Monte
    Carlo run exchanges species, else None.

    Raises TrajectoryError where the shapes disagree, a number is not finite, or the times do not increase.
    """

    species: tuple[str, ...]
    times: Floats
    cells: Floats
    positions: Floats
    provenance: Mapping[str, Any] = field(default_factory=dict)
    first_frame: int = 0
    exchanged: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        for name in ("times", "cells", "positions"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "species", tuple(self.species))
        frames, atoms = len(self.times), len(self.species)
        wanted = {"times": (frames,), "cells": (frames, 3, 3), "positions": (frames, atoms, 3)}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise TrajectoryError(f"{name} has the shape {value.shape}, {shape} is needed")
            if not np.all(np.isfinite(value)):
                frame = int(np.argmin(np.isfinite(value.reshape(frames, -1)).all(axis=1)))
                raise TrajectoryError(f"frame {self.first_frame + frame}: {name} are not finite")
        if self.exchanged is not None and self.exchanged.shape != (frames, atoms):
            raise TrajectoryError(
                f"exchanged has the shape {self.exchanged.shape}, {(frames, atoms)} is needed"
            )
        steps = np.diff(self.times)
        if np.any(steps <= 0):
            frame = self.first_frame + int(np.argmax(steps <= 0)) + 1
            raise TrajectoryError(
                f"frame {frame}: its time does not lie after the frame before; sort or merge the runs"
            )
        for symbol in sorted(set(self.species)):
            element_number(symbol, lambda what, remedy: InputError("species", what, remedy))

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.times)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)

    @property
    def frame_interval(self) -> float:
        """Time between frames, ps. Raises TrajectoryError for fewer than two frames or uneven times."""
        if self.n_frames < 2:
            raise TrajectoryError("a trajectory of one frame has no interval; give at least two frames")
        steps = np.diff(self.times)
        interval = float(self.times[-1] - self.times[0]) / len(steps)
        uneven = np.abs(steps - interval) > 10 * _EVEN * interval
        if np.any(uneven):
            frame = self.first_frame + int(np.argmax(uneven)) + 1
            raise TrajectoryError(
                f"frame {frame}: {steps[np.argmax(uneven)]:g} ps after the frame before instead of {interval:g} ps"
            )
        return interval

    def indices(self, *symbols: str) -> NDArray[np.int64]:
        """Indices of the atoms of the elements named. Raises TrajectoryError where there are none."""
        found = np.flatnonzero(np.isin(np.array(self.species), symbols))
        if not len(found):
            known = ", ".join(sorted(set(self.species)))
            raise TrajectoryError(f"no {' or '.join(symbols)} in the trajectory; it holds {known}")
        return found.astype(np.int64)

    def numbers(self, frame: int) -> NDArray[np.uint8]:
        """(atoms,) atomic numbers in a frame."""
        if self.exchanged is not None:
            return np.asarray(self.exchanged[frame], dtype=np.uint8)
        return symbols_to_numbers(self.species)

    def atoms(self, frame: int, wrap: bool = False) -> Atoms:
        """A frame as ASE Atoms, periodic in all directions; wrapped into the cell if asked."""
        atoms = Atoms(
            numbers=self.numbers(frame), positions=self.positions[frame], cell=self.cells[frame], pbc=True
        )
        if wrap:
            atoms.wrap(eps=0)
        return atoms

    def part(self, frames: slice) -> Trajectory:
        """The frames of a slice with a positive step."""
        chosen = range(self.n_frames)[frames]
        if frames.step is not None and frames.step < 1:
            raise InputError("frames", frames, "take frames in their order")
        return replace(
            self,
            times=self.times[frames],
            cells=self.cells[frames],
            positions=self.positions[frames],
            first_frame=self.first_frame + (chosen.start if len(chosen) else 0),
            exchanged=None if self.exchanged is None else self.exchanged[frames],
        )

    def chunks(self, size: int = 256, stride: int = 1) -> Iterator[Trajectory]:
        """Every `stride`-th frame in chunks of `size`, as `TrajectoryFile.chunks` gives them."""
        size, stride = positive("size", size), positive("stride", stride)
        for start in range(0, self.n_frames, size * stride):
            yield self.part(slice(start, min(start + size * stride, self.n_frames), stride))

    def without_drift(self, *symbols: str) -> Trajectory:
        """The same with the mean displacement of the atoms of `symbols` (all atoms if none) since frame 0 removed."""
        chosen = self.indices(*symbols) if symbols else np.arange(self.n_atoms)
        mean = self.positions[:, chosen].mean(axis=1, keepdims=True)
        return replace(self, positions=self.positions - (mean - mean[:1]))

    def at_mean_cell(self, cell: Floats | None = None) -> Trajectory:
        """The same in one constant cell, the mean one or `cell` (3, 3): fractional coordinates times that cell.

        At constant pressure, unwrapped positions swing with the cell, the more the further an atom has walked, which
        falsifies mean-square displacements (S. von Bülow, J. T. Bullerjahn and G. Hummer, J. Chem. Phys. 153, 021101
        (2020), doi 10.1063/5.0008316); in a constant cell they do not. Chunks of one run need the same `cell`.
        """
        box = self.cells.mean(axis=0) if cell is None else np.asarray(cell, dtype=np.float64)
        positions = self.positions @ np.linalg.inv(self.cells) @ box
        return replace(self, positions=positions, cells=np.tile(box, (self.n_frames, 1, 1)))


class TrajectoryFile:
    """A trajectory in a file, read in chunks as often as asked; made by `open_trajectory`.

    species: (atoms,) symbols; provenance: what is known of the source. `last_complete_frame` is the last frame of
    the latest reading, and `truncated` says whether that reading met the end of a cut file (None: not read yet).
    """

    def __init__(self, path: Path, kind: str, options: dict[str, Any]) -> None:
        self.path, self.kind, self._options = path, kind, options
        self.truncated: bool | None = None
        self.last_complete_frame: int | None = None
        first = next(self.chunks(1), None)
        if first is None:
            raise FileFormatError(
                path, None, "it holds no frame", "give a trajectory with at least one frame"
            )
        self.species, self.provenance = first.species, dict(first.provenance)
        self.truncated = None

    def chunks(self, size: int = 256, stride: int = 1) -> Iterator[Trajectory]:
        """Every `stride`-th frame in chunks of at most `size` frames; one chunk is in memory at a time.

        Every frame is read and checked, also those left out. Raises FileFormatError for damage and TrajectoryError
        for missing frames or changing atoms, with the frame's number.
        """
        size, stride = positive("size", size), positive("stride", stride)
        self.truncated = False
        self.last_complete_frame = None
        held: list[tuple[float, Floats, Floats, NDArray[np.uint8] | None]] = []
        first = 0
        species: tuple[str, ...] = ()
        provenance: dict[str, Any] = {}

        def chunk() -> Trajectory:
            exchanged = [numbers for *_, numbers in held if numbers is not None]
            return Trajectory(
                species=species,
                times=np.array([time for time, *_ in held]),
                cells=np.array([cell for _, cell, *_ in held]),
                positions=np.array([positions for _, _, positions, _ in held]),
                provenance=provenance,
                first_frame=first,
                exchanged=np.array(exchanged) if len(exchanged) == len(held) else None,
            )

        source = own_frames(self.path, self.cut) if self.kind == "own" else _text_frames(self)
        for number, (names, origin, frame) in enumerate(source):
            species, provenance = names, origin
            self.last_complete_frame = number
            if number % stride:
                continue
            if not held:
                first = number
            held.append(frame)
            if len(held) == size:
                yield chunk()
                held = []
        if held:
            yield chunk()

    def read(self, stride: int = 1) -> Trajectory:
        """All frames (every `stride`-th) in memory."""
        parts = list(self.chunks(256, stride))
        exchanged = [part.exchanged for part in parts if part.exchanged is not None]
        return Trajectory(
            species=self.species,
            times=np.concatenate([part.times for part in parts]),
            cells=np.concatenate([part.cells for part in parts]),
            positions=np.concatenate([part.positions for part in parts]),
            provenance=self.provenance,
            exchanged=np.concatenate(exchanged) if len(exchanged) == len(parts) else None,
        )

    def cut(self, frame: int, what: str) -> None:
        """Note that the file ends within frame `frame`; raises FileFormatError unless that is to be dropped."""
        self.truncated = True
        if self._options["truncated"] == "error":
            last = f"the last complete frame is {frame - 1}" if frame else "no frame is complete"
            raise FileFormatError(
                self.path,
                None,
                f"it ends within frame {frame} ({what}); {last}",
                "pass truncated='drop' to go without the rest",
            )


TrajectorySource = Trajectory | TrajectoryFile


def open_trajectory(
    path: str | Path,
    *,
    format: Literal["auto", "dump", "extxyz", "xdatcar", "own"] = "auto",
    time_step: float | None = None,
    frame_interval: float | None = None,
    species: Mapping[int, str] | list[str] | None = None,
    unwrapped: bool | None = None,
    exchanges: bool = False,
    mobile: tuple[str, ...] = ("Li",),
    truncated: Literal["error", "drop"] = "error",
) -> TrajectoryFile:
    """A trajectory file, to be read in chunks (`.chunks()`) or as a whole (`.read()`).

    time_step: ps per MD step, for files that number their steps. frame_interval: ps between frames, for files that
    do not (extended xyz, XDATCAR); where configurations are numbered it is the time per number. species: elements
    of LAMMPS types. unwrapped: True trusts positions to be continuous, False unwraps by nearest images whatever the
    file says, None follows the file. exchanges: the species of an atom may change, as in Monte Carlo. mobile: the
    ions that may take each other's places; other atoms that do show that the order of the atoms changed.
    truncated: what to do where the file ends within a frame.

    Wrapped positions follow the atoms' nearest images in fractional coordinates; where the cell fluctuates take
    displacements from `Trajectory.at_mean_cell`. Raises FileFormatError, TrajectoryError or InputError.
    """
    place = Path(path)
    for name, value in (("time_step", time_step), ("frame_interval", frame_interval)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < 1e9):
            raise InputError(name, value, "give ps above zero")
    if truncated not in ("error", "drop"):
        raise InputError("truncated", truncated, "'error' or 'drop'")
    kind: str = format
    if kind == "auto":
        kind = "own" if is_own(place) else guess_format(place)
    if kind != "own" and kind not in READERS:
        raise InputError("format", kind, f"one of auto, own, {', '.join(READERS)}")
    options = {
        "time_step": time_step,
        "frame_interval": frame_interval,
        "species": species_table(species),
        "unwrapped": unwrapped,
        "exchanges": exchanges,
        "mobile": mobile,
        "truncated": truncated,
    }
    return TrajectoryFile(place, kind, options)


def read_trajectory(path: str | Path, *, stride: int = 1, **options: Any) -> Trajectory:
    """All frames of a trajectory file in memory; options as for `open_trajectory`."""
    return open_trajectory(path, **options).read(stride)


_Frame = tuple[tuple[str, ...], dict[str, Any], tuple[float, Floats, Floats, "NDArray[np.uint8] | None"]]


def _text_frames(file: TrajectoryFile) -> Iterator[_Frame]:
    options = file._options
    provenance = {"file": file.path.name, "format": file.kind}
    with opened(file.path) as lines:
        follow = _Follower(lines, options)
        raw = READERS[file.kind](lines, options["species"])
        while True:
            try:
                frame = next(raw, None)
            except TruncatedError as cut:
                file.cut(follow.number, cut.what)
                return
            if frame is None:
                return
            time, positions, numbers = follow(frame)
            exchanged = numbers if options["exchanges"] else None
            yield follow.species, provenance, (time, frame.cell, positions, exchanged)


class _Follower:
    """Orders, checks and unwraps the frames of one text trajectory."""

    def __init__(self, lines: Lines, options: dict[str, Any]) -> None:
        self.lines, self.options = lines, options
        self.number = 0
        self.species: tuple[str, ...] = ()
        self._numbers = np.zeros(0, dtype=np.uint8)
        self._ids: NDArray[np.int64] | None = None
        self._wrapped = self._scaled = np.zeros((0, 3))
        self._images: Floats | float = np.zeros(1)
        self._last_time: float | None = None
        self._interval: float | None = None
        self._clock: tuple[int, float] | None = None

    def __call__(self, frame: RawFrame) -> tuple[float, Floats, NDArray[np.uint8]]:
        numbers, raw = self._ordered(frame)
        time = self._time(frame)
        trusted = frame.unwrapped if self.options["unwrapped"] is None else self.options["unwrapped"]
        if self.number == 0 or trusted:
            positions = raw.copy()
            if self.number:
                self._check_order(frame, raw - self._wrapped, raw)
        else:
            step = raw @ np.linalg.inv(frame.cell) - self._scaled
            image = np.rint(step) * frame.periodic
            step -= image
            self._check_order(frame, step @ frame.cell, raw)
            far = np.abs(step) * frame.periodic > _AMBIGUOUS
            if np.any(far):
                atom = int(np.argmax(far.any(axis=1)))
                raise self._error(
                    f"atom {atom} ({self.species[atom]}) moved by nearly half the cell since the frame before; "
                    "write frames more often, or unwrapped positions (xu yu zu, or x y z ix iy iz)"
                )
            self._images = self._images - image
            positions = raw + self._images @ frame.cell
        self._wrapped, self._scaled = raw, raw @ np.linalg.inv(frame.cell)
        self.number += 1
        return time, positions, numbers

    def _error(self, what: str) -> TrajectoryError:
        return TrajectoryError(f"{self.lines.path}: frame {self.number}: {what}")

    def _ordered(self, frame: RawFrame) -> tuple[NDArray[np.uint8], Floats]:
        numbers, positions = frame.numbers, frame.positions
        if self.number and len(numbers) != len(self._numbers):
            raise self._error(
                f"{len(numbers)} atoms instead of {len(self._numbers)}; atoms were lost or added"
            )
        if frame.ids is not None:
            order = np.argsort(frame.ids, kind="stable")
            ids = frame.ids[order]
            if np.any(ids[1:] == ids[:-1]):
                raise self._error(f"atom {ids[1:][ids[1:] == ids[:-1]][0]} stands there twice")
            if self._ids is not None and not np.array_equal(ids, self._ids):
                raise self._error(
                    "its atoms have other ids than those of frame 0; dump the same group always"
                )
            self._ids, numbers, positions = ids, numbers[order], positions[order]
        if self.number == 0:
            self._numbers = numbers
            self.species = tuple(chemical_symbols[z] for z in numbers)
        elif not self.options["exchanges"] and not np.array_equal(numbers, self._numbers):
            atom = int(np.argmax(numbers != self._numbers))
            same = np.array_equal(np.sort(numbers), np.sort(self._numbers))
            why = (
                "the order of the atoms changed, or species were exchanged" if same else "the species changed"
            )
            raise self._error(
                f"atom {atom} is {chemical_symbols[numbers[atom]]} instead of {self.species[atom]}: {why}; "
                "sort by id, or pass exchanges=True for Monte Carlo"
            )
        return numbers, positions

    def _time(self, frame: RawFrame) -> float:
        if frame.time is not None:
            time, name = frame.time, "time"
            self._check_clock(frame)
        else:
            count = self.number if frame.step is None else frame.step
            by_step = self.options["time_step"] if frame.step is not None else None
            per = by_step if by_step is not None else self.options["frame_interval"]
            if per is None:
                what = "time_step" if frame.step is not None else "frame_interval"
                raise InputError(what, None, f"{self.lines.path} gives no times: pass {what} in ps")
            time, name = count * per, "step"
        before, last = self._last_time, time
        self._last_time = time
        if before is None:
            return time
        interval = self._interval = self._interval or last - before
        shown = f"{name} {frame.step if frame.step is not None else f'{time:g} ps'}"
        if last <= before:
            raise self._error(f"{shown} repeats or goes back; cut the overlap of restarted runs")
        if abs(last - before - interval) > _EVEN * interval + 1e-12 * abs(last):
            missing = (last - before) / interval - 1
            raise self._error(
                f"{shown} comes {last - before:g} ps after the frame before instead of {interval:g} ps: "
                f"{f'{round(missing)} frames are' if missing > 0.5 else 'frames are'} missing or uneven"
            )
        return time

    def _check_clock(self, frame: RawFrame) -> None:
        """Refuse a time_step that contradicts the times in the file: one of the two is in another unit."""
        step = self.options["time_step"]
        if frame.time is None or frame.step is None or step is None:
            return
        if self._clock is None:
            self._clock = frame.step, frame.time
            return
        said, passed = (frame.step - self._clock[0]) * step, frame.time - self._clock[1]
        if abs(said - passed) > 1e-3 * max(abs(said), abs(passed)):
            raise InputError(
                "time_step",
                step,
                f"{self.lines.path} gives {passed:g} ps for {frame.step - self._clock[0]} steps, not {said:g} ps: "
                "leave it out, or give ps per step as the run had",
            )

    def _check_order(self, frame: RawFrame, move: Floats, raw: Floats) -> None:
        """Refuse atoms of one element that stand in each other's places: an order that changed."""
        if frame.ids is not None or self.options["exchanges"]:
            return
        moved = np.linalg.norm(move, axis=1) > _EXCHANGE_MOVE
        if moved.sum() < 2:
            return
        inverse = np.linalg.inv(frame.cell)
        for z in np.unique(self._numbers[moved]):
            chosen = np.flatnonzero(moved & (self._numbers == z))
            if len(chosen) < 2:
                continue
            target = np.full(len(chosen), -1)
            for row, atom in enumerate(chosen):
                apart = (raw[atom] - self._wrapped[chosen]) @ inverse
                distance = np.linalg.norm((apart - np.rint(apart) * frame.periodic) @ frame.cell, axis=1)
                nearest = int(np.argmin(distance))
                if nearest != row and distance[nearest] < _EXCHANGE_FIT:
                    target[row] = nearest
            closed = _in_cycles(target)
            enough = max(3, int(np.sum(self._numbers == z)) // 2)
            mobile = chemical_symbols[z] in self.options["mobile"]
            if closed >= (enough if mobile else 2):
                raise self._error(
                    f"{closed} {chemical_symbols[z]} atoms stand in each other's places: the order of the atoms "
                    "changed; write atom ids or sort the frames"
                )


def _in_cycles(target: NDArray[np.int64]) -> int:
    """Number of indices on closed cycles of the map i -> target[i] (-1: none)."""
    on_cycle = np.zeros(len(target), dtype=bool)
    seen = np.zeros(len(target), dtype=np.int64)
    for start in range(len(target)):
        walk, here = start + 1, start
        while here >= 0 and not seen[here]:
            seen[here] = walk
            here = int(target[here])
        if here >= 0 and seen[here] == walk:
            while not on_cycle[here]:
                on_cycle[here] = True
                here = int(target[here])
    return int(on_cycle.sum())


def save_trajectory(
    source: TrajectorySource, path: str | Path, *, stride: int = 1, resolution: float | None = RESOLUTION
) -> Path:
    """Convert a trajectory (or file) to the own format, chunk by chunk; the file appears when it is whole."""
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    writer: TrajectoryWriter | None = None
    try:
        for chunk in source.chunks(64, stride):
            if writer is None:
                writer = TrajectoryWriter(
                    part,
                    chunk.species,
                    provenance=chunk.provenance,
                    resolution=resolution,
                    exchanges=chunk.exchanged is not None,
                )
            for k in range(chunk.n_frames):
                numbers = None if chunk.exchanged is None else chunk.exchanged[k]
                writer.append(chunk.times[k], chunk.cells[k], chunk.positions[k], numbers)
        if writer is None:
            raise TrajectoryError("there is no frame to save")
        writer.close()
        os.replace(part, target)
    finally:
        if writer is not None:
            writer._stream.close()
        part.unlink(missing_ok=True)
    return target
