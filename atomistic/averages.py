"""Means of correlated series with honest errors: blocking, streamed with bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atomistic.errors import TrajectoryError

Floats = NDArray[np.float64]

MOST_BLOCKS = 2048
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class BlockAverage:
    """A mean with its standard error by blocking.

    mean, standard_error: in the series' unit and shape; the error is nan for fewer than four entries.
    block_length: entries per block at which the error was taken. converged: False where the series is too short for
    its correlation, so that the error is a lower bound.
    """

    mean: Floats
    standard_error: Floats
    block_length: NDArray[np.int64]
    converged: NDArray[np.bool_]


def block_average(series: ArrayLike) -> BlockAverage:
    """Mean over the first axis of `series` (entries, ...) and its standard error, correlations included.

    Neighbouring blocks are joined until they are independent (H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461
    (1989), doi 10.1063/1.457480), taken at the first block length B with B³ > 2 N (s_B/s_1)⁴ (R. M. Lee et al., Phys.
    Rev. E 83, 066706 (2011), doi 10.1103/PhysRevE.83.066706). Raises TrajectoryError for an empty series.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim < 1 or not len(values):
        raise TrajectoryError("a mean needs at least one frame")
    entries, shape = len(values), values.shape[1:]
    mean = values.mean(axis=0)
    error = np.full(shape, np.nan)
    length = np.ones(shape, dtype=np.int64)
    done = np.zeros(shape, dtype=bool)
    if entries < _FEWEST:
        return BlockAverage(mean, error, length, done)
    blocks, size = values, 1
    first = np.zeros(shape)
    while len(blocks) >= _FEWEST:
        here = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
        if size == 1:
            first = np.maximum(here, 1e-300)
        # Too short a series: the largest error seen is the best bound.
        error = np.where(done, error, np.fmax(error, here))
        length = np.where(done, length, size)
        enough = float(size) ** 3 > 2 * entries * (here / first) ** 4
        error = np.where(enough & ~done, here, error)
        done |= enough
        if np.all(done):
            break
        half = len(blocks) // 2
        blocks = 0.5 * (blocks[0 : 2 * half : 2] + blocks[1 : 2 * half : 2])
        size *= 2
    # A constant has no error whatever its length.
    done |= first <= 1e-300
    return BlockAverage(mean, error, length, done)


class Series:
    """A series of arrays held as at most `MOST_BLOCKS` means of equally many entries."""

    def __init__(self) -> None:
        self._blocks: list[Floats] = []
        self._partial: Floats | None = None
        self._filled, self.per_block, self.entries = 0, 1, 0

    def append(self, values: ArrayLike) -> None:
        """Add one entry."""
        entry = np.asarray(values, dtype=np.float64)
        self._partial = entry.copy() if self._partial is None else self._partial + entry
        self._filled += 1
        self.entries += 1
        if self._filled < self.per_block:
            return
        self._blocks.append(self._partial / self.per_block)
        self._partial, self._filled = None, 0
        if len(self._blocks) == MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [0.5 * (one + two) for one, two in pairs]
            self.per_block *= 2

    def blocks(self) -> Floats:
        """(blocks, ...) means of `per_block` entries each; entries of an unfinished block are left out."""
        if not self._blocks:
            raise TrajectoryError("a mean needs at least one frame")
        return np.array(self._blocks)

    def average(self) -> BlockAverage:
        """Mean and standard error over all entries of whole blocks."""
        return block_average(self.blocks())


def ratio_average(numerator: Floats, denominator: Floats) -> BlockAverage:
    """Ratio of the means of two series (entries, ...) with the error of its linearisation; nan where 0/0."""
    bottom = denominator.mean(axis=0)
    safe = np.where(bottom == 0, 1.0, bottom)
    ratio = numerator.mean(axis=0) / safe
    errors = block_average((numerator - ratio * denominator) / safe)
    empty = bottom == 0
    return BlockAverage(
        np.where(empty, np.nan, ratio),
        np.where(empty, np.nan, errors.standard_error),
        errors.block_length,
        errors.converged,
    )
