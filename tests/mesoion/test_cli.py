"""The command line: exit codes, one message for an error, help with an example."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_runfolder import TOY

from mesoion import cli, study
from mesoion.errors import MesoionError


@pytest.fixture
def toml(tmp_path, monkeypatch):
    monkeypatch.setitem(study.KINDS, "toy", "toy_study")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


def call(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    out = capsys.readouterr()
    return end.value.code or 0, out.out, out.err


def commands():
    return [info.name or info.callback.__name__ for info in cli.app.registered_commands]


def test_run_writes_and_then_serves_from_the_cache(toml, tmp_path, capsys):
    code, out, err = call(capsys, "run", toml)
    assert (code, err) == (0, "")
    assert "runs/toy/results.json" in out
    assert json.loads((tmp_path / "runs" / "toy" / "results.json").read_text())["key"]
    code, out, _ = call(capsys, "run", toml)
    assert code == 0
    assert "unchanged: served from runs/toy" in out
    code, out, _ = call(capsys, "run", toml, "--force", "--out", tmp_path / "elsewhere")
    assert "done" in out
    assert (tmp_path / "elsewhere" / "report.html").exists()


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("width", "widht", ["layers[0].widht", "did you mean 'width'"]),
        ('"2 nm"', '"-2 nm"', ["layers[0].width", "'-2 nm'", "greater than 0"]),
        ('"toy"', '"tyo"', ["kind", "'tyo'", "did you mean 'toy'"]),
        ('kind = "toy"', "", ["kind", "one of: "]),
        ("seed = 3", "seed = 3 4", ["toy.toml:2", "TOML says"]),
        ("seed = 3", 'fail = "newton"', ["no convergence (at 0.2 V)", "last_good_state.npz"]),
    ],
)
def test_an_error_is_one_message_and_exit_code_2(toml, capsys, old, new, fragments):
    toml.write_text(TOY.replace(old, new, 1))
    code, out, err = call(capsys, "run", toml)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    for fragment in fragments:
        assert fragment in err


def test_mutated_studies_never_show_a_traceback(toml, capsys):
    rng = random.Random(8)
    codes = []
    for number in range(60):
        text = list(TOY)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice('[]{}="x1.-\n#')
        toml.write_text("".join(text))
        code, _, err = call(capsys, "run", toml, "--out", toml.parent / f"out{number}")
        assert code in (0, 2)
        assert (code == 0) == (err == "")
        codes.append(code)
    assert set(codes) == {0, 2}


def test_wrong_options_end_with_2_and_name_what_there_is(toml, capsys):
    code, _, err = call(capsys, "run", toml, "--ouf", "x")
    assert code == 2
    assert "--ouf" in err
    code, _, err = call(capsys, "rnu", toml)
    assert code == 2
    assert "rnu" in err
    code, _, err = call(capsys, "run", toml.parent / "absent.toml")
    assert code == 2
    assert "no such file" in err


def test_sweep_needs_a_study_with_points(toml, capsys):
    code, _, err = call(capsys, "sweep", toml)
    assert code == 2
    assert "kind 'toy' has no points to sweep" in err


def test_sweep_runs_and_resumes(toml, capsys):
    sweep_toml = toml.with_name("grid.toml")
    sweep_toml.write_text('kind = "sweep"\nbase = "toy.toml"\n[grid]\n"layers[0].width" = ["1 nm", "2 nm"]\n')
    code, out, err = call(capsys, "sweep", sweep_toml, "--workers", "1")
    assert (code, err) == (0, "")
    assert "runs/grid/results.json" in out
    assert "unchanged" in call(capsys, "sweep", sweep_toml, "--workers", "2")[1]


@pytest.mark.parametrize("name", commands())
def test_help_of_each_command_shows_one_example_that_parses(name, capsys):
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    example = [line.strip(" │") for line in out.splitlines() if "Example: " in line]
    assert len(example) == 1
    words = example[0].removeprefix("Example: ").split()
    assert words[:2] == ["mesoion", name]


def test_every_command_of_the_help_is_listed(capsys):
    _, out, _ = call(capsys, "--help")
    for name in commands():
        assert name in out


def test_out_of_memory_and_interruption_are_one_message(capsys, monkeypatch):
    for raised, code, word in ((MemoryError(), 2, "not enough memory"), (KeyboardInterrupt(), 130, "resume")):

        def fail(*_, error=raised, **__):
            raise error

        monkeypatch.setattr(cli, "app", fail)
        got, _, err = call(capsys)
        assert got == code
        assert word in err


def test_an_error_of_the_program_itself_leaves_its_details_in_a_file(capsys, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    code, _, err = call(capsys)
    assert code == cli.INTERNAL_ERROR
    assert len(err.splitlines()) == 1
    details = Path(err.split("details for a report: ")[1].strip())
    assert "KeyError: 'a bug'" in details.read_text()
    details.unlink()


def test_an_error_in_a_fresh_process_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from mesoion.cli import main; main()", "run", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_errors_are_one_line_each():
    assert "\n" not in str(MesoionError("one"))
