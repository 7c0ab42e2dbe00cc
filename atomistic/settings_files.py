"""How all settings files are read: TOML into a model, and one message for the first thing that is refused."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from atomistic.errors import FileFormatError, InputError

LARGEST_FILE = 1_000_000
M = TypeVar("M", bound=BaseModel)


def read_toml(path: str | Path, see: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises FileFormatError where it cannot be read, which points to the page `see`."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FileFormatError(path, None, "is larger than a megabyte", "give a settings file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(
            path, None, f"cannot be read ({error.strerror})", "give a settings file"
        ) from None
    except ValueError as error:
        raise FileFormatError(path, None, f"is not TOML ({error})", f"see {see}") from None


def validated(model: type[M], values: Mapping[str, Any], where: str, table: str = "") -> M:
    """`values` as a model. Raises InputError naming, after `where`, the key, the value and what is allowed.

    table: key of the table that the values are, where they are not the whole file.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = _told(error)
        kind, value = first["type"], first["input"]
        key = _key(first["loc"], values, kind)
        remedy = _plain(first["msg"])
        if kind == "extra_forbidden":
            remedy = _known(model, first["loc"])
        elif kind == "missing":
            value, remedy = ..., "is needed"
        if isinstance(value, Mapping) or not first["loc"]:
            value = ...
    except InputError as error:
        key, value, remedy = error.where, error.value, error.remedy
    raise InputError(": ".join(filter(None, (where, ".".join(filter(None, (table, key)))))), value, remedy)


def _told(error: ValidationError) -> ErrorDetails:
    """The first error; of a key that may be a word or a table and is a table, that of the table."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "string_type" and isinstance(first["input"], Mapping):
        inside = [e for e in errors if e["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
        return max(inside, key=lambda e: len(e["loc"]))
    return first


def _plain(message: str) -> str:
    """What pydantic says, in the words of TOML."""
    text = message.removeprefix("Value error, ")
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


_WORDS = (
    ("^Input should be a valid tuple$", "a list in square brackets is expected"),
    ("^Input should be a valid dictionary.*", "a table is expected"),
    (r"^Tuple should have at (\w+) (\d+) items?.*", r"a list of at \1 \2 is expected"),
    (r"^String should match pattern '\^\[A-Z\]\[a-z\]\?\$'$", "an element's symbol such as 'Li' is expected"),
)


def _key(place: tuple[int | str, ...], values: Any, kind: str) -> str:
    """The user's own keys on the way to a place; names of alternatives, which pydantic puts between, are left out."""
    parts, here = [], values
    for number, part in enumerate(place):
        inside = part in here if isinstance(here, Mapping) else _holds(here, part)
        if inside:
            here = here[part]
        if inside or (kind == "missing" and number == len(place) - 1):
            parts.append(str(part))
    return ".".join(parts)


def _holds(here: Any, part: int | str) -> bool:
    return isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """What to say of an unknown key: those it may have meant, else those the table knows."""
    tables: list[type[BaseModel]] = [model]
    for part in place[:-1]:
        named = [table for table in tables if table.__name__ == part]
        inside = [
            found
            for table in tables
            if part in table.model_fields
            for found in _models(table.model_fields[str(part)].annotation)
        ]
        tables = inside or named or tables
    known = sorted({key for table in tables for key in table.model_fields})
    name = str(place[-1])
    close = [key for key in known if key.startswith(f"{name}_")] or difflib.get_close_matches(name, known)
    if close:
        return f"there is no such key; did you mean {' or '.join(close)}?"
    return f"there is no such key; known are {', '.join(known)}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `tuple[RunSettings, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
