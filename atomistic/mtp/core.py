"""A short-range repulsive core for pairs that come closer than any training frame holds.

    phi(r) = S(r) Z_i Z_j e^2/(4 pi eps0 r) sum_k c_k exp(-d_k r/a),   a = 0.46850 / (Z_i^0.23 + Z_j^0.23) angstrom

(Ziegler, Biersack, Littmark 1985). S falls from 1 at `inner` to 0 at `outer` with two continuous derivatives, so
distances above `outer`, which belongs below the nearest-neighbour distance, are untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atomistic.errors import FileFormatError, InputError
from atomistic.mtp.neighbours import FloatArray, compiled

COULOMB = 14.39964548  # e^2/(4 pi eps0), eV angstrom
ZBL = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


@dataclass(frozen=True)
class RepulsiveCore:
    """Radii per pair of species.

    species: symbols; inner, outer: symmetric (species, species), angstrom; outer 0 means no core for that pair.
    """

    species: tuple[str, ...]
    inner: FloatArray
    outer: FloatArray

    def __post_init__(self) -> None:
        shape = (len(self.species), len(self.species))
        for key in ("inner", "outer"):
            array = np.array(getattr(self, key), dtype=np.float64)
            if array.shape != shape or not np.allclose(array, array.T, rtol=0, atol=0):
                raise InputError(f"core.{key}", array.shape, f"a symmetric {shape} array is expected")
            array.setflags(write=False)
            object.__setattr__(self, key, array)
        used = self.outer > 0
        if np.any(~np.isfinite(self.inner)) or np.any(~np.isfinite(self.outer)) or np.any(self.outer < 0):
            raise InputError("core", self.outer.tolist(), "radii are finite and not negative")
        if np.any(used & ~((self.inner > 0) & (self.inner < self.outer))):
            raise InputError("core", self.inner.tolist(), "0 < inner < outer is needed for every pair")

    @classmethod
    def of_pairs(
        cls, species: Sequence[str], radii: Mapping[tuple[str, str], tuple[float, float]]
    ) -> RepulsiveCore:
        """From {("Li", "O"): (inner, outer), ...} in angstrom; pairs not named have no core."""
        index = {symbol: i for i, symbol in enumerate(species)}
        inner, outer = np.zeros((2, len(species), len(species)))
        for (first, second), (low, high) in radii.items():
            if first not in index or second not in index:
                raise InputError("core", (first, second), f"pairs of {', '.join(species)} are expected")
            i, j = index[first], index[second]
            inner[i, j] = inner[j, i] = low
            outer[i, j] = outer[j, i] = high
        return cls(tuple(species), inner, outer)

    @classmethod
    def load(cls, path: str | Path, species: Sequence[str]) -> RepulsiveCore:
        """Read lines `Li O inner outer` (angstrom; # starts a comment)."""
        radii: dict[tuple[str, str], tuple[float, float]] = {}
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(
                path, None, f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the path"
            ) from None
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                first, second, low, high = words[0], words[1], float(words[2]), float(words[3])
                cls.of_pairs(species, {(first, second): (low, high)})
            except (IndexError, ValueError, InputError):
                raise FileFormatError(
                    path, number, f"{line[:60]!r} is not allowed", "'symbol symbol inner outer' in angstrom"
                ) from None
            radii[first, second] = (low, high)
        return cls.of_pairs(species, radii)

    @classmethod
    def beside(cls, potential: str | Path, species: Sequence[str]) -> RepulsiveCore | None:
        """The `.core` file beside a `.mtp` file, without which that potential is wrong; None without one."""
        path = Path(potential).with_suffix(".core")
        return cls.load(path, species) if path.exists() else None

    def save(self, path: str | Path) -> None:
        """Write what `load` reads; the LAMMPS pair style reads the same file."""
        lines = ["# repulsive core: pair, inner and outer radius / angstrom"]
        for i, first in enumerate(self.species):
            for j in range(i, len(self.species)):
                if self.outer[i, j] > 0:
                    radii = f"{float(self.inner[i, j])!r} {float(self.outer[i, j])!r}"
                    lines.append(f"{first} {self.species[j]} {radii}")
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def table(self, species: Sequence[str]) -> FloatArray:
        """(species, species, 4): inner, outer, Z_i Z_j e^2 / eV angstrom, screening length, in the given order."""
        from ase.data import atomic_numbers

        index = {symbol: i for i, symbol in enumerate(self.species)}
        table = np.zeros((len(species), len(species), 4))
        for i, first in enumerate(species):
            for j, second in enumerate(species):
                z = np.array([atomic_numbers[first], atomic_numbers[second]], dtype=np.float64)
                table[i, j, 2] = COULOMB * z.prod()
                table[i, j, 3] = 0.46850 / (z**0.23).sum()
                if first in index and second in index:
                    table[i, j, 0] = self.inner[index[first], index[second]]
                    table[i, j, 1] = self.outer[index[first], index[second]]
        return table


_AMPLITUDE = np.array([pair[0] for pair in ZBL])
_DECAY = np.array([pair[1] for pair in ZBL])


@compiled
def core_energy(r: Any, inner: Any, outer: Any, charge: Any, length: Any) -> Any:
    """(phi, dphi/dr) of one pair in eV and eV/angstrom."""
    if r >= outer:
        return 0.0, 0.0
    screen = 0.0
    slope = 0.0
    for k in range(4):
        term = _AMPLITUDE[k] * np.exp(-_DECAY[k] * r / length)
        screen += term
        slope -= _DECAY[k] / length * term
    energy = charge / r * screen
    derivative = charge / r * (slope - screen / r)
    if r > inner:
        t = (r - inner) / (outer - inner)
        switch = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t))
        steep = -30.0 * t * t * (1.0 - t) * (1.0 - t) / (outer - inner)
        derivative = derivative * switch + energy * steep
        energy *= switch
    return energy, derivative
