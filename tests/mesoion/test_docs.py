"""The documentation is true: its marked examples run, and the names of its notation table exist.

A fenced block whose info string ends with "test" is run: python blocks of a file one after another, the `$` lines of
console blocks as commands whose output must match (a line "..." or the word "..." stands for anything), toml blocks as
studies that must be accepted.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mesoion.study import load_study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+) test\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)#:]+\.[a-z]+)(?:#[^)]*)?\)")


def blocks(page, language):
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def pages_with(language):
    return [pytest.param(page, id=page.name) for page in PAGES if blocks(page, language)]


def environment():
    threads = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "MPLBACKEND": "Agg"}
    return os.environ | threads | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page, tmp_path):
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    command = [sys.executable, "-W", "error", script.name]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def matches(expected, got):
    """Whether the printed text is the expected one, where "..." stands for anything."""
    pattern = ".*".join(re.escape(piece) for piece in expected.split("..."))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


@pytest.mark.parametrize("page", pages_with("console"))
def test_console_examples_print_what_they_say(page, tmp_path):
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            done = subprocess.run(
                shlex.split(line), cwd=tmp_path, env=environment(), capture_output=True, text=True
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert matches(expected.strip(), done.stdout.strip()), f"{line}:\n{done.stdout}"


@pytest.mark.parametrize("page", pages_with("toml"))
def test_toml_examples_are_studies(page, tmp_path):
    for block in blocks(page, "toml"):
        path = tmp_path / "example.toml"
        path.write_text(block, encoding="utf-8")
        load_study(path)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_studies_are_accepted(path):
    load_study(path)


def test_the_marked_examples_are_found():
    assert pages_with("python")
    assert pages_with("console")
    assert pages_with("toml")
    assert matches("a ... c\n...", "a b c\nd\ne")
    assert not matches("a ... c", "a b d")


def notation_names():
    text = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    rows = [row for row in rows if not row.startswith("| symbol")]
    return [(row, re.findall(r"`([^`]+)`", row.rstrip(" |").rpartition("|")[2])) for row in rows]


def resolve(name):
    """The object of a dotted name below mesoion or in atomistic; fields without a default count as there."""
    package = "atomistic" if name.startswith("atomistic.") else "mesoion"
    module, _, rest = name.removeprefix("atomistic.").partition(".")
    found = importlib.import_module(f"{package}.{module}")
    parts = rest.split(".")
    while hasattr(found, "__path__"):
        found = importlib.import_module(f"{found.__name__}.{parts.pop(0)}")
    for part in parts:
        fields = getattr(found, "__dataclass_fields__", {}) | getattr(found, "model_fields", {})
        annotations = getattr(found, "__annotations__", {})
        found = getattr(found, part) if hasattr(found, part) else (fields | annotations)[part]
    return found


def test_every_name_of_the_notation_table_exists():
    rows = notation_names()
    assert len(rows) > 50
    for row, names in rows:
        assert len(names) == 1, row
        resolve(names[0])
    with pytest.raises(KeyError):
        resolve("material.Phase.no_such_field")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def test_the_commands_of_the_documentation_exist():
    from mesoion import cli

    names = {info.name or info.callback.__name__ for info in cli.app.registered_commands}
    for page in PAGES:
        for name in re.findall(
            r"(?:^\$ |`|bin/)mesoion ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert name in names, f"{page.name}: mesoion {name}"
