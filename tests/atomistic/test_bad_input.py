"""Campaigns that cannot be built, through the command line: one message, exit code 2, no folder left."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomistic.cli import main
from atomistic.lammps_files import failure

CELL = 'potential = "llzo-ta-level8"\n[cell]\n'
ATOM = "Properties=species:S:1:pos:R:3\n{} 0 0 0\n"
LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4" '


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('kind = "cif"\npath = "none.cif"\n', "none.cif: cannot be read"),
        ('kind = "cif"\npath = "text.cif"\n', "text.cif: is not a crystal structure"),
        ('kind = "cif"\npath = "."\n', "is a folder"),
        ('kind = "cif"\npath = "empty.cif"\n', "empty.cif: is not a crystal structure (no structure in it)"),
        ('kind = "llzo"\nrepeat = [9, 9, 9]\n', "exceed max_atoms = 10000"),
        ('kind = "lstz"\nrepeat = [20, 20, 20]\n', "exceed max_atoms = 10000"),
        ('kind = "file"\npath = "lithium.xyz"\nrepeat = [30, 30, 30]\n', "27000 atoms"),
        ('kind = "file"\npath = "none.xyz"\n', "none.xyz: no such file"),
        ('kind = "file"\npath = "open.xyz"\n', "open.xyz: has no cell of three vectors"),
        ('kind = "file"\npath = "gold.xyz"\n', "does not know Au"),
        ('kind = "llzo"\ncontents = { al = 2.0, ta = 2.0 }\n', "leaves -1 Li"),
        ('kind = "llzo"\ncontents = { ta = -0.5 }\n', "ta: -0.5 is not allowed"),
        ('kind = "llzo"\ncontents = { tb = 0.5 }\n', "cell.contents"),
        ('kind = "boundary"\nboundary = "Sigma17(530)[001]"\nsearch = { max_area = 50.0 }\n', "Sigma17"),
        ('kind = "llzo"\nbondary = "x"\n', "cell.bondary"),
        ('kind = "llzo"\n[mcmd]\ntemperature = 900.0\npairs = [["Zr", "Ta"]]\n', "mcmd.pairs"),
        ('kind = "llzo"\n[production]\ntemperatures = [-300.0]\n', "production.temperatures"),
    ],
)
def test_a_campaign_that_cannot_be_built_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, word: str
) -> None:
    (tmp_path / "text.cif").write_text("no crystal\n", encoding="utf-8")
    (tmp_path / "empty.cif").touch()
    (tmp_path / "lithium.xyz").write_text("1\n" + LATTICE + ATOM.format("Li"), encoding="utf-8")
    (tmp_path / "open.xyz").write_text("1\n" + ATOM.format("Li"), encoding="utf-8")
    (tmp_path / "gold.xyz").write_text("1\n" + LATTICE + ATOM.format("Au"), encoding="utf-8")
    (tmp_path / "cell.toml").write_text(CELL + text, encoding="utf-8")
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as left:
        main(["build", str(tmp_path / "cell.toml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert word in said
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "words", ["Did not assign all restart atoms correctly", "Out of range atoms - cannot compute"]
)
def test_a_cell_that_flew_apart_is_said_to_have(words: str) -> None:
    error = failure("", f"ERROR: {words} (src/read_restart.cpp:550)\n", 1, Path("log.lammps"))
    assert "flew apart: relax the structure first" in str(error)
    assert words in str(error)
