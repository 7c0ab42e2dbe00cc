"""A moment tensor potential as plain data, and the `.mtp` files of MLIP-2 that hold it.

Site energy of atom i of species z (Shapeev, Multiscale Model. Simul. 14, 1153 (2016); Novikov et al.,
Mach. Learn.: Sci. Technol. 2, 025002 (2021)):

    E_i = e_z + sum_b xi_b B_b,       M_{mu,nu} = sum_j f_mu(r_ij, z_i, z_j) (r_ij/|r_ij|)^{(x) nu}
    f_mu(r) = scaling (cutoff - r)^2 sum_n c[z_i, z_j, mu, n] T_n((2r - r_min - cutoff)/(cutoff - r_min))

The basic moments are the Cartesian components of M; every further moment, and at last the scalars B, is a sum
of products of earlier ones (`alpha_index_times`: out += factor * left * right, in order).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomistic.errors import FileFormatError, InputError, PotentialError, SpeciesError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_SPECIES: Final = 118
MAX_MOMENTS: Final = 1_000_000
MAX_POWER: Final = 30
MAX_FILE_BYTES: Final = 200_000_000
_TAG_PREFIX: Final = "species:"


def _array(value: Any, dtype: Any) -> Any:
    array = np.array(value, dtype=dtype, order="C")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class MTPotential:
    """One moment tensor potential. All arrays are read-only; `replace` and the `with_` methods make changed copies.

    species: chemical symbols in the order of the coefficients; empty where a file names none.
    cutoff, min_distance: angstrom; the Chebyshev polynomials are defined on [min_distance, cutoff].
    scaling: factor of every radial function.
    radial_coefficients: (species, species, radial functions, radial basis size), centre species first.
    alpha_index_basic: (basic moments, 4): mu and the powers of x, y, z.
    alpha_index_times: (products, 4): left, right, integer factor, out.
    alpha_moment_mapping: (scalars,): which moments are the scalars B.
    moment_coefficients: (scalars,) eV; species_coefficients: (species,) eV.
    Raises PotentialError where these contradict each other.
    """

    species: tuple[str, ...]
    cutoff: float
    min_distance: float
    radial_coefficients: FloatArray
    alpha_index_basic: IntArray
    alpha_index_times: IntArray
    alpha_moment_mapping: IntArray
    moment_coefficients: FloatArray
    species_coefficients: FloatArray
    scaling: float = 1.0
    name: str = field(default="MTP")

    def __post_init__(self) -> None:
        for key in ("radial_coefficients", "moment_coefficients", "species_coefficients"):
            object.__setattr__(self, key, _array(getattr(self, key), np.float64))
        for key in ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping"):
            object.__setattr__(self, key, _array(getattr(self, key), np.int64))
        if self.alpha_index_times.size == 0:
            object.__setattr__(self, "alpha_index_times", _array(np.zeros((0, 4)), np.int64))
        object.__setattr__(self, "species", tuple(self.species))
        for key in ("cutoff", "min_distance", "scaling"):
            object.__setattr__(self, key, float(getattr(self, key)))
        self._check()

    def _check(self) -> None:
        if not (0.0 <= self.min_distance < self.cutoff < 100.0):
            raise PotentialError(
                f"distances are not 0 <= min_dist ({self.min_distance}) < max_dist ({self.cutoff}) < 100 angstrom"
            )
        if not np.isfinite(self.scaling) or self.scaling == 0.0:
            raise PotentialError(f"scaling is {self.scaling}, not a finite number other than zero")
        shape = self.radial_coefficients.shape
        if len(shape) != 4 or shape[0] != shape[1] or 0 in shape or shape[0] > MAX_SPECIES:
            raise PotentialError(
                f"radial coefficients have the shape {shape}, not (species, species, functions, size)"
            )
        if shape[3] < 2:
            raise PotentialError(f"radial_basis_size is {shape[3]}; at least 2 is needed")
        if self.species_coefficients.shape != (shape[0],):
            raise PotentialError(
                f"{self.species_coefficients.size} species coefficients for {shape[0]} species"
            )
        if (
            self.moment_coefficients.shape != self.alpha_moment_mapping.shape
            or self.alpha_moment_mapping.ndim != 1
        ):
            raise PotentialError(
                f"{self.moment_coefficients.size} moment coefficients for"
                f" {self.alpha_moment_mapping.size} scalar moments"
            )
        for key in ("radial_coefficients", "moment_coefficients", "species_coefficients"):
            if not np.all(np.isfinite(getattr(self, key))):
                raise PotentialError(f"{key} hold values that are not finite numbers")
        if self.species:
            check_symbols(self.species)
            if len(self.species) != shape[0]:
                raise PotentialError(
                    f"{len(self.species)} species named {self.species} for {shape[0]} sets of coefficients"
                )
        self._check_tables(shape[2])

    def _check_tables(self, n_radial: int) -> None:
        basic, times, mapping = self.alpha_index_basic, self.alpha_index_times, self.alpha_moment_mapping
        if basic.ndim != 2 or basic.shape[1] != 4 or len(basic) == 0:
            raise PotentialError(f"alpha_index_basic has the shape {basic.shape}, not (n, 4)")
        if times.ndim != 2 or times.shape[1] != 4:
            raise PotentialError(f"alpha_index_times has the shape {times.shape}, not (n, 4)")
        if basic[:, 0].min() < 0 or basic[:, 0].max() != n_radial - 1:
            raise PotentialError(
                f"alpha_index_basic uses radial functions {basic[:, 0].min()}..{basic[:, 0].max()},"
                f" the file has 0..{n_radial - 1}"
            )
        if basic[:, 1:].min() < 0 or basic[:, 1:].sum(axis=1).max() > MAX_POWER:
            raise PotentialError(f"alpha_index_basic holds powers outside 0..{MAX_POWER}")
        if len(np.unique(basic, axis=0)) != len(basic):
            raise PotentialError("alpha_index_basic holds the same moment twice")
        count = self.moment_count
        if count > MAX_MOMENTS:
            raise PotentialError(f"{count} moments are more than {MAX_MOMENTS}")
        if len(times):
            if (
                times[:, (0, 1, 3)].min() < 0
                or times[:, 3].min() < len(basic)
                or np.abs(times[:, 2]).max() > 10**9
            ):
                raise PotentialError("alpha_index_times points outside the moments")
            first_use = np.full(count, len(times), np.int64)
            last_set = np.full(count, -1, np.int64)
            for row in range(len(times) - 1, -1, -1):
                first_use[times[row, :2]] = row
            for row in range(len(times)):
                last_set[times[row, 3]] = row
            if np.any(last_set[len(basic) :] < 0):
                raise PotentialError("alpha_index_times leaves a moment without a value")
            if np.any(first_use <= last_set):
                raise PotentialError("alpha_index_times uses a moment before it is complete")
        if len(mapping) == 0 or mapping.min() < 0 or mapping.max() >= count:
            raise PotentialError(f"alpha_moment_mapping points outside the {count} moments")
        if len(np.unique(mapping)) != len(mapping):
            raise PotentialError("alpha_moment_mapping names the same moment twice")

    @property
    def species_count(self) -> int:
        """Number of species."""
        return int(self.radial_coefficients.shape[0])

    @property
    def radial_function_count(self) -> int:
        """Number of radial functions mu per pair of species."""
        return int(self.radial_coefficients.shape[2])

    @property
    def radial_basis_size(self) -> int:
        """Number of Chebyshev polynomials in every radial function."""
        return int(self.radial_coefficients.shape[3])

    @property
    def moment_count(self) -> int:
        """Number of moments, basic ones and products."""
        times = self.alpha_index_times
        largest = int(times[:, (0, 1, 3)].max()) + 1 if len(times) else 0
        return max(len(self.alpha_index_basic), largest)

    @property
    def parameters(self) -> FloatArray:
        """All fitted numbers in one vector: moment, species, radial coefficients (the order of motep)."""
        return np.concatenate(
            [self.moment_coefficients, self.species_coefficients, self.radial_coefficients.ravel()]
        )

    @property
    def checksum(self) -> str:
        """SHA-256 over species, ranges, tables and coefficients; the name does not enter."""
        digest = hashlib.sha256(" ".join(self.species).encode())
        digest.update(np.array([self.cutoff, self.min_distance, self.scaling]).tobytes())
        for array in (
            self.radial_coefficients,
            self.alpha_index_basic,
            self.alpha_index_times,
            self.alpha_moment_mapping,
            self.moment_coefficients,
            self.species_coefficients,
        ):
            digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MTPotential) and self.checksum == other.checksum

    def __hash__(self) -> int:
        return hash(self.checksum)

    def with_parameters(self, parameters: npt.ArrayLike) -> MTPotential:
        """A copy with another parameter vector (same order and length as `parameters`)."""
        vector = np.asarray(parameters, dtype=np.float64)
        n_moment, n_species = self.moment_coefficients.size, self.species_count
        if vector.shape != (n_moment + n_species + self.radial_coefficients.size,):
            raise InputError(
                "parameters", vector.shape, f"a vector of length {self.parameters.size} is expected"
            )
        return replace(
            self,
            moment_coefficients=vector[:n_moment],
            species_coefficients=vector[n_moment : n_moment + n_species],
            radial_coefficients=vector[n_moment + n_species :].reshape(self.radial_coefficients.shape),
        )

    def with_species(self, species: Sequence[str]) -> MTPotential:
        """A copy whose coefficients belong to these symbols, in this order."""
        return replace(self, species=tuple(species))

    def types_of(self, symbols: Iterable[str]) -> IntArray:
        """Index of each symbol in `species`. Raises SpeciesError for an element the potential does not know."""
        if not self.species:
            raise SpeciesError(
                f"potential {self.name!r} names no species; read it with species=[...] in the order of its coefficients"
            )
        index = {symbol: i for i, symbol in enumerate(self.species)}
        symbols = list(symbols)
        unknown = sorted(set(symbols) - set(index))
        if unknown:
            raise SpeciesError(
                f"potential {self.name!r} does not know {', '.join(unknown)}; it is for {', '.join(self.species)}"
            )
        return np.array([index[symbol] for symbol in symbols], dtype=np.int64)

    @classmethod
    def load(cls, path: str | Path, species: Sequence[str] | None = None) -> MTPotential:
        """Same as `read_mtp`."""
        return read_mtp(path, species)

    def save(self, path: str | Path) -> None:
        """Same as `write_mtp`."""
        write_mtp(self, path)


def check_symbols(symbols: Sequence[str]) -> None:
    """Raise InputError unless these are different chemical symbols."""
    from ase.data import chemical_symbols

    known = set(chemical_symbols[1:])
    for symbol in symbols:
        if symbol not in known:
            raise InputError("species", symbol, "chemical symbols such as Li or O are expected")
    if len(set(symbols)) != len(symbols):
        raise InputError("species", tuple(symbols), "every element may be named once")


class _Lines:
    """The text lines of one file, with the errors that name the current one."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise FileFormatError(path, None, "larger than 200 MB", "a .mtp file is expected")
            raw = path.read_bytes()
        except OSError as error:
            raise FileFormatError(
                path, None, f"cannot be read ({error.strerror})", "check the path"
            ) from None
        # MLIP-2 appends its active set in binary form after this mark.
        raw = raw.split(b"#MVS", 1)[0]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise FileFormatError(
                path, line, "not a text file", "a .mtp file of MLIP-2 is expected"
            ) from None
        self.lines = text.replace("\r\n", "\n").split("\n")

    def next(self) -> str | None:
        if self.number >= len(self.lines):
            return None
        self.number += 1
        return self.lines[self.number - 1].strip()

    def peek(self) -> str:
        return self.lines[self.number].strip() if self.number < len(self.lines) else ""

    def error(self, what: str, remedy: str = "the file is damaged or of another format") -> FileFormatError:
        return FileFormatError(self.path, self.number, what, remedy)

    def integer(self, key: str, text: str, low: int, high: int) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
            raise self.error(f"{key} = {text[:40]!r}", f"a whole number from {low} to {high} is expected")
        return int(text)

    def number_of(self, key: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value) or "_" in text:
            raise self.error(f"{key} = {text[:40]!r}", "a finite number is expected")
        return value

    def flat(self, key: str, text: str) -> list[str]:
        if len(text) < 2 or text[0] != "{" or text[-1] != "}":
            raise self.error(f"{key} is not a list in braces")
        inner = text[1:-1].strip()
        if "{" in inner or "}" in inner:
            raise self.error(f"{key} has braces where numbers belong")
        return [item.strip() for item in inner.split(",")] if inner else []

    def floats(self, key: str, text: str) -> FloatArray:
        return np.array([self.number_of(key, item) for item in self.flat(key, text)], dtype=np.float64)

    def integers(self, key: str, items: list[str]) -> list[int]:
        for item in items:
            digits = item.removeprefix("-")
            if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
                raise self.error(f"{key} holds {item[:40]!r}", "whole numbers are expected")
        return [int(item) for item in items]

    def quadruples(self, key: str, text: str) -> IntArray:
        if len(text) < 2 or text[0] != "{" or text[-1] != "}":
            raise self.error(f"{key} is not a list in braces")
        rows: list[list[int]] = []
        rest = text[1:-1].strip()
        while rest:
            end = rest.find("}")
            if not rest.startswith("{") or end < 0:
                raise self.error(f"{key}: braces do not match after {len(rows)} entries")
            row = self.integers(key, self.flat(key, rest[: end + 1]))
            if len(row) != 4:
                raise self.error(f"{key}: entry {len(rows)} has {len(row)} numbers, not 4")
            rows.append(row)
            rest = rest[end + 1 :].lstrip()
            if rest:
                if not rest.startswith(",") or not rest[1:].strip():
                    raise self.error(f"{key}: entries are not separated by commas after {len(rows)} entries")
                rest = rest[1:].lstrip()
        return np.array(rows, dtype=np.int64).reshape(-1, 4)


_SAME_KEY: Final = {
    "min": "min_dist",
    "min_val": "min_dist",
    "max": "max_dist",
    "max_val": "max_dist",
    "size": "radial_basis_size",
    "basis_size": "radial_basis_size",
}
_COUNTS: Final = {
    "species_count": (1, MAX_SPECIES),
    "radial_basis_size": (2, 1000),
    "radial_funcs_count": (1, 1000),
    "alpha_moments_count": (1, MAX_MOMENTS),
    "alpha_index_basic_count": (1, MAX_MOMENTS),
    "alpha_index_times_count": (0, 10 * MAX_MOMENTS),
    "alpha_scalar_moments": (1, MAX_MOMENTS),
}
_NEEDED: Final = (
    "species_count",
    "min_dist",
    "max_dist",
    "radial_basis_size",
    "radial_funcs_count",
    "radial_coeffs",
    "alpha_moments_count",
    "alpha_index_basic_count",
    "alpha_index_basic",
    "alpha_index_times_count",
    "alpha_index_times",
    "alpha_scalar_moments",
    "alpha_moment_mapping",
    "species_coeffs",
    "moment_coeffs",
)


def _read_radial_coefficients(lines: _Lines, data: dict[str, Any]) -> FloatArray:
    for key in ("species_count", "radial_basis_size"):
        if key not in data:
            raise lines.error(f"radial_coeffs come before {key}")
    count, size = data["species_count"], data["radial_basis_size"]
    rows: list[FloatArray] = []
    for pair in range(count * count):
        head = f"{pair // count}-{pair % count}"
        if lines.next() != head:
            raise lines.error(f"the pair {head} is missing in radial_coeffs")
        while lines.peek().startswith("{"):
            rows.append(lines.floats("radial_coeffs", lines.next() or ""))
            if len(rows[-1]) != size:
                raise lines.error(f"{len(rows[-1])} radial coefficients, not {size}")
        # motep's own format names the number of functions only afterwards.
        functions = data.get("radial_funcs_count", len(rows) // (pair + 1))
        if functions == 0 or len(rows) != functions * (pair + 1):
            raise lines.error(f"the pair {head} has not as many radial functions as expected ({functions})")
    return np.array(rows, dtype=np.float64).reshape(count, count, functions, size)


def _read_value(lines: _Lines, data: dict[str, Any], key: str, text: str) -> Any:
    if key in _COUNTS:
        return lines.integer(key, text, *_COUNTS[key])
    if key in ("min_dist", "max_dist", "scaling"):
        return lines.number_of(key, text)
    if key in ("alpha_index_basic", "alpha_index_times"):
        return lines.quadruples(key, text)
    if key == "alpha_moment_mapping":
        return np.array(lines.integers(key, lines.flat(key, text)), dtype=np.int64)
    if key in ("species_coeffs", "moment_coeffs"):
        return lines.floats(key, text)
    if key == "radial_basis_type":
        if text != "RBChebyshev":
            raise lines.error(f"radial basis {text[:40]!r}", "only RBChebyshev is supported")
        return text
    if key == "version":
        if text not in ("1.1.0", ""):
            raise lines.error(f"version {text[:40]!r}", "version 1.1.0 of MLIP-2 is expected")
        return text
    if key in ("potential_name", "potential_tag"):
        return text
    raise lines.error(f"unknown key {key[:40]!r}", "magnetic and MLIP-3 potentials are not supported")


def _read_keys(lines: _Lines) -> tuple[dict[str, Any], dict[str, int]]:
    if lines.next() != "MTP":
        raise lines.error("does not begin with the line 'MTP'", "a .mtp file of MLIP-2 is expected")
    data: dict[str, Any] = {}
    where: dict[str, int] = {}
    while (line := lines.next()) is not None:
        if not line:
            continue
        if line == "radial_coeffs":
            key = line
            value: Any = _read_radial_coefficients(lines, data) if key not in data else None
        else:
            key, equals, text = (part.strip() for part in line.partition("="))
            if not equals:
                raise lines.error(f"{line[:40]!r} is neither 'key = value' nor 'radial_coeffs'")
            key = _SAME_KEY.get(key, key)
            value = _read_value(lines, data, key, text)
            if key == "scaling" and key in data and where[key] < where.get("radial_basis_type", -1):
                # MLIP-2 multiplies the potential's scaling with the radial basis's own.
                value *= data.pop(key)
        if key in data:
            raise lines.error(f"{key} stands twice")
        data[key], where[key] = value, lines.number
    return data, where


def _counts_agree(path: Path, data: dict[str, Any], where: dict[str, int]) -> None:
    pairs = (
        ("alpha_index_basic_count", "alpha_index_basic"),
        ("alpha_index_times_count", "alpha_index_times"),
        ("alpha_scalar_moments", "alpha_moment_mapping"),
        ("alpha_scalar_moments", "moment_coeffs"),
        ("species_count", "species_coeffs"),
    )
    lengths = [(count, key, len(data[key])) for count, key in pairs]
    lengths.append(("radial_funcs_count", "radial_coeffs", data["radial_coeffs"].shape[2]))
    for count, key, length in lengths:
        if data[count] != length:
            raise FileFormatError(
                path,
                where[key],
                f"{key} has {length} entries, {count} says {data[count]}",
                "the file is damaged",
            )


def _species_of_tag(path: Path, data: dict[str, Any], where: dict[str, int]) -> tuple[str, ...]:
    tag = str(data.get("potential_tag", ""))
    if not tag.startswith(_TAG_PREFIX):
        return ()
    symbols = tuple(tag.removeprefix(_TAG_PREFIX).split())
    try:
        check_symbols(symbols)
        if len(symbols) != data["species_count"]:
            raise InputError("species", symbols, f"species_count is {data['species_count']}")
    except InputError as error:
        raise FileFormatError(
            path, where["potential_tag"], str(error), "correct the list of species"
        ) from None
    return symbols


def read_mtp(path: str | Path, species: Sequence[str] | None = None) -> MTPotential:
    """Read a trained `.mtp` file of MLIP-2 (legacy keys, also those motep and MLIP-2 1.x wrote).

    species: chemical symbols in the order of the file's coefficients. Files written by `write_mtp` name them in
    `potential_tag` ("species: Li La O"), which MLIP-2 and motep carry along without reading it; given symbols
    must then agree. Without either the potential has `species == ()` and must be given some before it is used.
    Raises FileFormatError with the line for damaged or foreign files.
    """
    path = Path(path)
    lines = _Lines(path)
    data, where = _read_keys(lines)
    for key in _NEEDED:
        if key not in data:
            untrained = key in ("radial_coeffs", "species_coeffs", "moment_coeffs")
            remedy = (
                "it is an untrained template: train it first"
                if untrained
                else "the file is cut off or foreign"
            )
            raise FileFormatError(path, None, f"{key} is missing", remedy)
    _counts_agree(path, data, where)
    named = _species_of_tag(path, data, where)
    if species is not None and named and tuple(species) != named:
        raise FileFormatError(
            path,
            where["potential_tag"],
            f"is for {' '.join(named)}, not {' '.join(species)}",
            "drop species=...",
        )
    try:
        potential = MTPotential(
            species=tuple(species) if species is not None else named,
            cutoff=data["max_dist"],
            min_distance=data["min_dist"],
            scaling=data.get("scaling", 1.0),
            radial_coefficients=data["radial_coeffs"],
            alpha_index_basic=data["alpha_index_basic"],
            alpha_index_times=data["alpha_index_times"],
            alpha_moment_mapping=data["alpha_moment_mapping"],
            moment_coefficients=data["moment_coeffs"],
            species_coefficients=data["species_coeffs"],
            name=str(data.get("potential_name", "")) or path.stem,
        )
    except PotentialError as error:
        raise FileFormatError(path, None, str(error), "the file is damaged or of another format") from None
    if data["alpha_moments_count"] != potential.moment_count:
        raise FileFormatError(
            path,
            where["alpha_moments_count"],
            f"alpha_moments_count is {data['alpha_moments_count']}, the tables need {potential.moment_count}",
            "the file is damaged",
        )
    return potential


def _braces(values: Iterable[float | int]) -> str:
    return "{" + ", ".join(repr(value) for value in values) + "}"


def _table(rows: IntArray) -> str:
    return "{" + ", ".join(_braces(row) for row in rows.tolist()) + "}"


def format_mtp(potential: MTPotential) -> str:
    """The text of a `.mtp` file with MLIP-2's legacy keys; numbers are written so that they read back exactly."""
    name = "".join(potential.name.split()).replace("=", "") or "MTP"
    tag = f"{_TAG_PREFIX} {' '.join(potential.species)}" if potential.species else ""
    text = [
        "MTP",
        "version = 1.1.0",
        f"potential_name = {name}",
        f"scaling = {potential.scaling!r}",
        f"species_count = {potential.species_count}",
        f"potential_tag = {tag}",
        "radial_basis_type = RBChebyshev",
        f"\tmin_dist = {potential.min_distance!r}",
        f"\tmax_dist = {potential.cutoff!r}",
        f"\tradial_basis_size = {potential.radial_basis_size}",
        f"\tradial_funcs_count = {potential.radial_function_count}",
        "\tradial_coeffs",
    ]
    for first in range(potential.species_count):
        for second in range(potential.species_count):
            text.append(f"\t\t{first}-{second}")
            rows = potential.radial_coefficients[first, second].tolist()
            text.extend("\t\t\t" + _braces(row) for row in rows)
    text += [
        f"alpha_moments_count = {potential.moment_count}",
        f"alpha_index_basic_count = {len(potential.alpha_index_basic)}",
        f"alpha_index_basic = {_table(potential.alpha_index_basic)}",
        f"alpha_index_times_count = {len(potential.alpha_index_times)}",
        f"alpha_index_times = {_table(potential.alpha_index_times)}",
        f"alpha_scalar_moments = {len(potential.alpha_moment_mapping)}",
        f"alpha_moment_mapping = {_braces(potential.alpha_moment_mapping.tolist())}",
        f"species_coeffs = {_braces(potential.species_coefficients.tolist())}",
        f"moment_coeffs = {_braces(potential.moment_coefficients.tolist())}",
        "",
    ]
    return "\n".join(text)


def write_mtp(potential: MTPotential, path: str | Path) -> None:
    """Write `format_mtp(potential)` to a file, which appears complete or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(format_mtp(potential))
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
