"""TOML inputs: read, checked against a pydantic model, refused with one message that names every fault.

A quantity is a string with its unit or a plain SI number (`mesoion.units`); nothing unknown is ignored and nothing
impossible is replaced by a default.
"""

from __future__ import annotations

import difflib
import json
import re
import reprlib
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo

from mesoion.errors import InputError, MesoionError

MAX_FILE_BYTES = 4_000_000
"""Largest TOML file that is read [bytes]; a study is a few kilobytes."""


class Model(BaseModel):
    """Base of every table in an input: unknown keys, NaN, infinities and wrong types are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


class StudyModel(Model):
    """What every study has; a kind of study adds its own keys."""

    kind: str
    title: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def further_files(self) -> list[Path]:
        """Files that decide the result beside those the keys name."""
        return []


def _input_file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("give the path of a file, relative to the study")
    base = (info.context or {}).get("directory", Path())
    path = Path(base) / value
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise ValueError(f"the path cannot be read ({error})") from None
    if not found:
        raise ValueError(f"there is no such file; paths are relative to the study's folder, {base}")
    return path


InputFile = Annotated[Path, PlainValidator(_input_file)]
"""A file an input names, relative to the input's own folder; its content is part of a run's hash."""


class InputProblems(InputError):
    """All faults of one input in one message; `problems` holds (key path, value, what is allowed)."""

    def __init__(self, where: str, problems: Sequence[tuple[str, Any, str]]) -> None:
        self.problems = tuple(problems)
        lines = [_problem_line(*problem) for problem in problems]
        path, value, remedy = self.problems[0]
        super().__init__(f"{where}: {path}", value, remedy)
        if len(lines) == 1:
            message = f"{where}: {lines[0]}"
        else:
            message = f"{where}: {len(lines)} values are not allowed\n" + "\n".join(f"  {x}" for x in lines)
        self.args = (message,)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60


_MISSING = object()


def _problem_line(path: str, value: Any, remedy: str) -> str:
    if value is _MISSING:
        return f"{path}: {remedy}"
    return f"{path}: {_Short().repr(value)} is not allowed; {remedy}"


M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file as plain data; InputError names the file and the line of a fault."""
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else None
        raw = path.read_bytes() if size is not None and size <= MAX_FILE_BYTES else b""
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", str(error)), "give a readable file") from None
    if size is None:
        raise InputError(str(path), "no such file", "give the path of a TOML file")
    if size > MAX_FILE_BYTES:
        raise InputError(str(path), f"{size} bytes", f"an input has at most {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}", raw[error.start : error.end], "TOML files are UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        located = re.search(r"\(at line (\d+), column \d+\)", str(error))
        lines = raw.decode("utf-8").splitlines() or [""]
        number = min(int(located[1]), len(lines)) if located else len(lines)
        raise InputError(f"{path}:{number}", lines[number - 1].strip(), f"TOML says: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = "tables or arrays nest too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(str(path), "the file", f"it cannot be read as TOML: {reason}") from None


def check(
    model: type[M], data: Mapping[str, Any], where: str | Path = "input", directory: Path | str = "."
) -> M:
    """`data` (as read from TOML) as a `model`.

    where: the file's name, for the message. directory: base of the relative paths in `data`.
    Raises InputError with every fault: key path, value, what is allowed.
    """
    dated = [(path, value, "write a number or a string") for path, value in _leaves(data) if _is_date(value)]
    if dated:
        raise InputProblems(str(where), dated)
    try:
        text = json.dumps(data)
        return model.model_validate_json(text, context={"directory": Path(directory)})
    except ValidationError as error:
        raise InputProblems(str(where), _problems(model, data, error)) from None
    except MesoionError as error:
        raise InputError(str(where), "a combination of its values", str(error)) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise InputError(str(where), "the input", f"it cannot be checked: {error}") from None


def load(model: type[M], path: Path | str) -> M:
    """The TOML file at `path` as a `model`; InputError as in `read_toml` and `check`."""
    return check(model, read_toml(path), where=path, directory=Path(path).parent)


def key_path(location: Sequence[str | int]) -> str:
    """`("pellets", 0, "width")` as `pellets[0].width`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part) else json.dumps(part[:60])
            text += f".{name}" if text else name
    return text or "the input"


def nearest(word: str, allowed: Sequence[str]) -> str | None:
    """The one of `allowed` that `word` most likely misspells, or None."""
    lowered = {a.lower(): a for a in allowed}
    found = difflib.get_close_matches(word.lower()[:80], list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def unknown(word: str, allowed: Sequence[str], what: str = "name") -> str:
    """Remedy for an unknown `word`: the nearest allowed one, and all of them."""
    guess = nearest(word, allowed)
    hint = f"did you mean {guess!r}? " if guess else ""
    return f"unknown {what}; {hint}allowed: {', '.join(sorted(allowed)) or 'none'}"


def _is_date(value: Any) -> bool:
    return isinstance(value, (date, datetime, time))


def _leaves(data: Any, location: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _leaves(value, (*location, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _leaves(value, (*location, index))
    else:
        yield key_path(location), data


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model an annotation can hold, through Annotated, unions and containers."""
    if (
        isinstance(annotation, type)
        and not typing.get_origin(annotation)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
    elif typing.get_origin(annotation) is Annotated:
        yield from _models(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _models(argument)


def _real_location(location: Sequence[str | int], data: Any) -> tuple[tuple[str | int, ...], Any]:
    """A pydantic location without its union tags, and the value there (or `_MISSING`)."""
    real: list[str | int] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        present = (
            (isinstance(data, Mapping) and part in data)
            or (isinstance(data, list) and isinstance(part, int) and -1 < part < len(data))
        )  # fmt: skip
        if present:
            real.append(part)
            data = data[part]
        elif last:
            real.append(part)
            data = _MISSING
    return tuple(real), data


def _known_keys(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Keys allowed in the table at `location` (pydantic's, with union tags)."""
    candidates = [model]
    for part in location:
        if not isinstance(part, str):
            continue
        inner = [
            m for c in candidates if part in c.model_fields for m in _models(c.model_fields[part].annotation)
        ]
        tagged = [c for c in candidates if _tag(c) == part]
        candidates = inner or tagged or candidates
    return sorted({name for c in candidates for name in c.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    for field in model.model_fields.values():
        choices = typing.get_args(field.annotation)
        if typing.get_origin(field.annotation) is typing.Literal and len(choices) == 1:
            return str(choices[0])
    return None


def _problems(
    model: type[BaseModel], data: Mapping[str, Any], error: ValidationError
) -> list[tuple[str, Any, str]]:
    problems: list[tuple[str, Any, str]] = []
    guessed: set[tuple[str | int, ...]] = set()
    details = error.errors(include_url=False)
    for item in sorted(details, key=lambda e: e["type"] != "extra_forbidden"):
        location, value = _real_location(item["loc"], data)
        kind = item["type"]
        if kind == "extra_forbidden":
            allowed = _known_keys(model, item["loc"][:-1])
            guess = nearest(str(location[-1]), allowed)
            if guess:
                guessed.add((*location[:-1], guess))
            remedy = unknown(str(location[-1]), allowed, "key")
        elif kind == "missing":
            if location in guessed:
                continue
            value, remedy = _MISSING, "this key is missing and has no default"
        elif kind == "value_error":
            remedy = item["msg"].removeprefix("Value error, ")
            value = _MISSING if isinstance(value, (Mapping, list)) else value
        elif kind in ("union_tag_invalid", "literal_error", "enum"):
            context = item.get("ctx", {})
            remedy = f"use {context.get('expected_tags') or context.get('expected')}"
            if kind == "union_tag_invalid":
                tag = str(context["discriminator"]).strip("'")
                location, value = (*location, tag), context["tag"]
        else:
            remedy = item["msg"].replace("Input should be", "it must be", 1)
            remedy = remedy[0].lower() + remedy[1:]
        problems.append((key_path(location), value, remedy))
    return problems
