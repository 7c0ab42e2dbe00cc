"""Whether a run's framework stayed what it was: one that melts or comes apart is another material.

Model potentials melt too early at boundaries (premelting, soft teachers), and what a molten layer diffuses is no
boundary diffusivity, however well it follows Arrhenius.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from atomistic.errors import TrajectoryError
from atomistic.trajectory import TrajectorySource

ANIONS = frozenset({"N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I", "H"})
_AVERAGED = 16


def framework_species(species: tuple[str, ...], mobile: str) -> tuple[str, ...]:
    """The cations that do not diffuse, all but `mobile` where there are none; sorted, may be empty."""
    others = set(species) - {mobile}
    return tuple(sorted(others - ANIONS or others))


def framework_displacement(source: TrajectorySource, species: tuple[str, ...], discard: float = 0.0) -> float:
    """Mean-square displacement of these species over a run [Å²], its drift taken off.

    Between the mean positions of the first and of the last 16 frames (a quarter of a short run), so that vibrations do
    not count; `discard` ps at the start are left out. Raises TrajectoryError without such atoms or
    frames.
    """
    head: list[NDArray[np.float64]] = []
    tail: deque[NDArray[np.float64]] = deque(maxlen=_AVERAGED)
    begin, frames, cell = None, 0, np.eye(3)
    for chunk in source.chunks(256):
        chosen = chunk.indices(*species)
        begin = float(chunk.times[0]) if begin is None else begin
        scaled = chunk.positions[:, chosen] @ np.linalg.inv(chunk.cells)
        for place, time in zip(scaled, chunk.times, strict=True):
            if time < begin + discard - 1e-9:
                continue
            frames += 1
            place = place - place.mean(axis=0)
            if len(head) < _AVERAGED:
                head.append(place)
            tail.append(place)
        cell = chunk.cells[-1]
    count = min(_AVERAGED, frames // 4)
    if count < 1:
        raise TrajectoryError(f"{frames} frames are left after {discard:g} ps; at least 4 are needed")
    moved = (np.mean(list(tail)[-count:], axis=0) - np.mean(head[:count], axis=0)) @ cell
    return float(np.mean(np.sum(moved**2, axis=1)))
