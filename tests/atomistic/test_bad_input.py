"""What cannot be built, run, analysed or recorded, by command: one message, exit code 2, nothing left or lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk as crystal
from walks import RUNS, walk, write_dump

from atomistic.analysis import Analysis
from atomistic.analysis_report import write_analysis
from atomistic.campaign import run_campaign
from atomistic.cli import main
from atomistic.lammps_files import failure
from atomistic.mtp.potential import read_mtp, write_mtp
from atomistic.sampling import read_settings

CELL = 'potential = "llzo-ta-level8"\n[cell]\n'
ATOM = "Properties=species:S:1:pos:R:3\n{} 0 0 0\n"
LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4" '
DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"


def refused(folder: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with exit code 2 and one line holding `word`, and every file of the folder is as before."""

    def contents() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}

    before = contents()
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert word in said
    assert contents() == before


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
        (
            'kind = "llzo"\ncontents = { tb = 0.5 }\n',
            "cell.contents.tb: 0.5 is not allowed; there is no such key",
        ),
        ('kind = "llzo"\ncontents = { rng = 1.0 }\n', "known are ta, nb, al, ga, lattice_constant"),
        ('kind = "lstz"\ncontents = { order = nan }\n', "cell.toml: cell.contents.order: nan"),
        ('kind = "lstz"\nrepeat = [2, 2]\n', "cell.toml: cell.repeat"),
        ('kind = "lstz"\nrepeat = 2\n', "cell.repeat: 2 is not allowed; a list in square brackets"),
        ('kind = "file"\n', "a cell of kind 'file' needs path"),
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
    refused(tmp_path, ["build", str(tmp_path / "cell.toml"), "--out", str(tmp_path / "out")], word, capsys)


CAMPAIGN = """
potential = "p.mtp"
[cell]
kind = "file"
path = "alloy.xyz"
[mcmd]
temperature = 500.0
pairs = [["Al", "Cu"]]
[production]
temperatures = [400.0]
"""


@pytest.fixture(scope="module")
def alloy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A structure, its potential and a campaign of them; folders of another campaign and of something else."""
    folder = tmp_path_factory.mktemp("alloy")
    write_mtp(read_mtp(DATA, ("Al", "Cu")), folder / "p.mtp")
    atoms = crystal("Al", a=4.05, cubic=True).repeat(2)
    atoms.symbols[:10] = "Cu"
    atoms.write(folder / "alloy.xyz", format="extxyz")
    whole = (folder / "alloy.xyz").read_text(encoding="utf-8")
    (folder / "cut.xyz").write_text(whole[:300], encoding="utf-8")
    (folder / "odd.xyz").write_text(whole.replace("Cu ", "Xx "), encoding="utf-8")
    (folder / "gold.xyz").write_text(whole.replace("Cu ", "Au "), encoding="utf-8")
    (folder / "other.toml").write_text("title = 'other'\n" + CAMPAIGN, encoding="utf-8")
    run_campaign(read_settings(folder / "other.toml"), folder / "other", base=folder, until="build")
    (folder / "else").mkdir()
    (folder / "else" / "results.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"": "none.xyz"}, "none.xyz: no such file"),
        ({"": "else"}, "else: is a folder"),
        ({"": "cut.xyz"}, "cut.xyz: cannot be read as structures"),
        ({"": "odd.xyz"}, "'Xx' is neither an element"),
        ({"": "gold.xyz"}, "does not know Au; it is for Al, Cu"),
        ({"--temperature": None}, "--temperature: it is needed with a structure"),
        ({"--temperature": "inf"}, "temperature: inf is not allowed"),
        ({"--engine": "gpu"}, "engine: 'gpu' is not allowed; one of auto, plugin, numba, ase"),
        ({"--ensemble": "nph"}, "ensemble: 'nph'"),
        ({"--repeat": "2 2"}, "three whole numbers"),
        ({"--repeat": "400 400 400"}, "atoms are more than"),
        ({"--potential": "none.mtp"}, "none.mtp: cannot be read"),
        ({"--potential": "alloy.xyz"}, "alloy.xyz:1: does not begin"),
        ({"--potential": None}, "--potential: give either"),
        ({"--core": "none.core"}, "none.core: cannot be read (No such file or directory)"),
        ({"--grade": "none.grade"}, "none.grade: cannot be read"),
        ({"--grade": "alloy.xyz"}, "alloy.xyz: not a grade file"),
        ({"--out": "else"}, "it holds something else than a run"),
        ({"--out": "other"}, "it holds something else than a run"),
        ({"--out": "alloy.xyz"}, "alloy.xyz: File exists"),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(
    alloy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    change: dict[str, str | None], word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(alloy)
    options: dict[str, str | None] = {"": "alloy.xyz", "--potential": "p.mtp", "--temperature": "300"}
    options |= {"--steps": "4", "--out": "out", **change}
    arguments = [part for option, value in options.items() if value is not None for part in (option, value)]
    refused(alloy, ["md", *filter(None, arguments)], word, capsys)


@pytest.mark.parametrize("command", ["md", "mcmd"])
@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("p.mtp", "llzo-ta-lvel8", "a path of a .mtp file, or one of"),
        ('"p.mtp"', '{ commands = ["pair_style zero 5"] }', "potential.species: is needed"),
        ('"p.mtp"', '"p.mtp"\nframework = ["Zr"]\nframework_limit = 1.0', "framework: ['Zr'] is not allowed"),
        ('"p.mtp"', '"p.mtp"\ngrade = "none"', "grade: give the grade_limit"),
        ('"p.mtp"', '"p.mtp"\nseeds = []', "seeds: [] is not allowed; a list of at least 1"),
        (
            "pairs =",
            'sites = ["Li"]\nmoves = "translate"\npairs =',
            "mcmd.sites: ['Li'] is not allowed; the cell",
        ),
        ('["Al", "Cu"]', '"Al", "Cu"', "mcmd.pairs.0: 'Al' is not allowed; a list in square brackets"),
        (
            '"Al", "Cu"',
            '"Al", "Cu", "Al"',
            "mcmd.pairs.0: ['Al', 'Cu', 'Al'] is not allowed; a list of at most 2",
        ),
        ('"Al"', '"aluminium"', "an element's symbol such as 'Li'"),
        ("[400.0]", '["400 C"]', "production.temperatures.0: '400 C'"),
        ("[400.0]", "400.0", "production.temperatures: 400.0 is not allowed; a list in square brackets"),
        ('kind = "file"', "kind = 3", "cell.kind: 3 is not allowed"),
        (
            '[cell]\nkind = "file"\npath = "alloy.xyz"',
            "cell = 3",
            "cell: 3 is not allowed; a table is expected",
        ),
        ('path = "alloy.xyz"', 'path = "alloy.xyz"\nrepeat = [2, 2]', "cell.repeat"),
    ],
)
def test_a_campaign_that_cannot_run_leaves_nothing(
    alloy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, old: str, new: str, word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(alloy)
    assert old in CAMPAIGN
    (alloy / "c.toml").write_text(CAMPAIGN.replace(old, new, 1), encoding="utf-8")
    (alloy / "empty").mkdir(exist_ok=True)
    for out in ("out", "empty"):
        refused(alloy, [command, "c.toml", "--out", out], word, capsys)


@pytest.mark.parametrize("command", ["md", "mcmd", "build"])
@pytest.mark.parametrize(
    ("out", "word"),
    [("other", "a campaign with other settings is there"), ("else", "something else than a campaign")],
)
def test_a_folder_of_something_else_is_left_alone(
    alloy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, out: str, word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(alloy)
    (alloy / "c.toml").write_text(CAMPAIGN, encoding="utf-8")
    refused(alloy, [command, "c.toml", "--out", out], word, capsys)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run as a dump, with elements and with types only; folders that are no analysis."""
    folder = tmp_path_factory.mktemp("short")
    write_dump(walk(900.0, 3, frames=12), folder / "a.dump")
    whole = (folder / "a.dump").read_text(encoding="utf-8")
    (folder / "cut.dump").write_text(whole[: len(whole) // 2 + 7], encoding="utf-8")
    (folder / "one.dump").write_text(whole[: whole.index("ITEM: TIMESTEP", 9)], encoding="utf-8")
    typed = whole.replace("id element", "id type")
    for number, symbol in enumerate(("Zr", "O", "Li"), 1):
        typed = typed.replace(f" {symbol} ", f" {number} ")
    (folder / "typed.dump").write_text(typed, encoding="utf-8")
    (folder / "empty.dump").touch()
    # As a campaign and `atomistic md` leave theirs.
    (folder / "campaign").mkdir()
    (folder / "campaign" / "results.json").write_text("[]", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("head", "name", "out", "word"),
    [
        ("", "a.dump", "campaign", "campaign: exists and is no analysis"),
        ("", "a.dump", "a.dump", "a.dump: exists and is no analysis"),
        ("", "cut.dump", "out", "cut.dump: it ends within frame 6"),
        ("", "one.dump", "out", "1 frames are left after 0 ps; at least"),
        ("", "typed.dump", "out", "typed.dump has types only: give species, the elements of types 1, 2"),
        ("", "empty.dump", "out", "empty.dump:1: neither a LAMMPS dump"),
        ("", "campaign", "out", "campaign: cannot be opened (Is a directory)"),
        ('rdf = [["Li"]]\n', "a.dump", "out", "r.toml: rdf.0.1: is needed"),
        (
            'mobile = "lithium"\n',
            "a.dump",
            "out",
            "r.toml: mobile: 'lithium' is not allowed; an element's symbol",
        ),
        ("[sites]\nZr = -1.0\n", "a.dump", "out", "r.toml: sites: {'Zr': -1.0} makes no site"),
        (
            "extrapolate_K = [300.0]\n",
            "a.dump",
            "out",
            "an activation energy needs at least two temperatures",
        ),
        ("[boundary]\nplanes = [0.5, 0.5]\n", "a.dump", "out", "boundary: planes: one stands there twice"),
    ],
)
def test_an_analysis_that_cannot_be_made_leaves_nothing(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    head: str, name: str, out: str, word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(short)
    (short / "r.toml").write_text(head + RUNS.replace("a.dump", name), encoding="utf-8")
    refused(short, ["analyse", "r.toml", "--out", out], word, capsys)


@pytest.fixture(scope="module")
def recorded(bulk: Path, analysed: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis's folder with the settings it came from."""
    folder = tmp_path_factory.mktemp("recorded")
    write_analysis(analysed, folder / "analysis")
    for name in ("forces.txt", "runs.toml"):
        (folder / name).write_bytes((bulk / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("old", "new", "more", "word"),
    [
        ("", "", ["--out", "analysis/results.json"], "results.json: exists and is no transport record"),
        ("", "", ["--out", "forces.txt"], "forces.txt: File exists"),
        ("", "", ["--out", "no/a.json"], "no/a.json: cannot be written (No such file or directory); choose"),
        ("", "", ["--region", "grain"], "--region: 'grain' is not allowed; bulk or boundary"),
        ("", "", ["--region", "boundary"], "these cells have no boundaries"),
        ('name = "walks-bulk"\n', "", [], "runs.toml: record.name: is needed"),
        ('"walks-bulk"', '"../up"', [], "record.name: '../up' is not allowed"),
        (
            "material =",
            "licence = 3\nmaterial =",
            [],
            "record.licence: 3 is not allowed; there is no such key",
        ),
        ('potential = "forces.txt"\n', "", [], "record.potential: name the file"),
        ('"forces.txt"', '"none.mtp"', [], "none.mtp: cannot be read (No such file or directory); give"),
        ("relative_permittivity", "#", [], "record: a bulk record needs relative_permittivity"),
        ("value = 50.0", "value = -50.0", [], "record.relative_permittivity.value: -50.0"),
    ],
)
def test_a_record_that_cannot_be_written_leaves_nothing(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    old: str, new: str, more: list[str], word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(recorded)
    text = (recorded / "runs.toml").read_text(encoding="utf-8")
    assert old in text
    (recorded / "runs.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        refused(
            recorded,
            ["record", "analysis", "--settings", "runs.toml", "--out", "a.json", *more],
            word,
            capsys,
        )
    finally:
        (recorded / "runs.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "words", ["Did not assign all restart atoms correctly", "Out of range atoms - cannot compute"]
)
def test_a_cell_that_flew_apart_is_said_to_have(words: str) -> None:
    error = failure("", f"ERROR: {words} (src/read_restart.cpp:550)\n", 1, Path("log.lammps"))
    assert "flew apart: relax the structure first" in str(error)
    assert words in str(error)
