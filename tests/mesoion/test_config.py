"""TOML inputs: every fault is one message with the key's path, the value and what is allowed."""

from __future__ import annotations

import random
import re
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from toy_study import Gap, Layer, Study

from mesoion.config import InputProblems, check, key_path, load, nearest, read_toml
from mesoion.errors import InputError
from mesoion.study import load_study

STUDIES = Path(__file__).parents[2] / "studies"

VALID = """\
kind = "toy"
title = "Two layers"
seed = 7
points = 6
spread = [0.5, 2]

[[layers]]
type = "layer"
width = "1.6 nm"
temperature = "25 C"

[[layers]]
type = "layer"
width = 2e-9

[[layers]]
type = "gap"
height = 0.25
"""


def write(folder, text, name="study.toml"):
    path = folder / name
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return path


def test_a_valid_file_is_read_in_si(tmp_path):
    study = load(Study, write(tmp_path, VALID))
    assert isinstance(study.layers[0], Layer)
    assert isinstance(study.layers[2], Gap)
    assert_allclose(
        [study.layers[0].width, study.layers[1].width, study.layers[0].temperature],
        [1.6e-9, 2e-9, 298.15],
        rtol=1e-12,
        atol=0,
    )
    assert study.spread == (0.5, 2.0)
    assert study.seed == 7


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (('title = "Two layers"', 'tilte = "x"'), ["tilte: 'x'", "unknown key", "did you mean 'title'?"]),
        (("width = 2e-9", "widht = 2e-9"), ["layers[1].widht: 2e-09", "did you mean 'width'?"]),
        (("width = 2e-9", 'width = "-1 nm"'), ["layers[1].width: '-1 nm'", "greater than 0"]),
        (("width = 2e-9", 'width = "2 V"'), ["layers[1].width: '2 V'", "another dimension than m"]),
        (("width = 2e-9", 'width = "2"'), ["layers[1].width: '2'", "has no unit"]),
        (("width = 2e-9", "width = nan"), ["layers[1].width: nan", "not finite"]),
        (("width = 2e-9", "width = true"), ["layers[1].width: True", "not a quantity"]),
        (("width = 2e-9", "width = 1979-05-27"), ["layers[1].width", "write a number or a string"]),
        (("height = 0.25", "height = inf"), ["layers[2].height: inf", "finite"]),
        (("height = 0.25", 'height = "tall"'), ["layers[2].height: 'tall'", "valid number"]),
        (('type = "gap"', 'type = "gop"'), ["layers[2].type: 'gop'", "'layer', 'gap'"]),
        (("width = 2e-9", ""), ["layers[1].width: this key is missing"]),
        (("points = 6", "points = 6.5"), ["points: 6.5", "integer"]),
        (("points = 6", "points = true"), ["points: True", "integer"]),
        (("points = 6", "points = 1"), ["points: 1", "greater than or equal to 2"]),
        (("points = 6", f"points = {10**30}"), ["points: 1000", "less than or equal to 50"]),
        (("spread = [0.5, 2]", "spread = [0.5]"), ["spread[1]: this key is missing"]),
        (("seed = 7", "seed = -1"), ["seed: -1", "greater than or equal to 0"]),
        (("points = 6", 'notes = "none.txt"'), ["notes: 'none.txt'", "no such file"]),
        (("points = 6", 'notes = "a\\u0000b"'), ["notes", "is not allowed"]),
    ],
)
def test_a_fault_is_named_with_path_value_and_remedy(tmp_path, change, fragments):
    assert change[0] in VALID
    path = write(tmp_path, VALID.replace(*change))
    with pytest.raises(InputError) as caught:
        load(Study, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for fragment in fragments:
        assert fragment in message
    assert len(message.splitlines()) == 1


def test_all_faults_come_in_one_message(tmp_path):
    layers = '[[layers]]\ntype = "layer"\nwidth = "3 V"\n[[layers]]\ntype = "gap"\nx = 1\n'
    text = 'kind = "toy"\nponits = 3\nseed = -1\n' + layers
    with pytest.raises(InputProblems) as caught:
        load(Study, write(tmp_path, text))
    message = str(caught.value)
    assert "4 values are not allowed" in message
    assert {path for path, _, _ in caught.value.problems} == {
        "ponits",
        "layers[1].x",
        "seed",
        "layers[0].width",
    }
    for fragment in ("did you mean 'points'?", "allowed: height, type", "seed: -1", "'3 V'"):
        assert fragment in message


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("kind = \n", "study.toml:1"),
        ("a = 1\na = 2\n", "study.toml"),
        (b"kind = '\xff'\n", "UTF-8"),
        ("x = " + "[" * 3000, "nest too deeply"),
        ("x = " + "9" * 5000, "cannot be read"),
        ("", "layers: this key is missing"),
    ],
)
def test_unreadable_toml_names_file_and_place(tmp_path, content, fragment):
    with pytest.raises(InputError, match=r"study\.toml") as caught:
        load(Study, write(tmp_path, content))
    assert fragment in str(caught.value)


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="no such file"):
        read_toml(tmp_path)
    with pytest.raises(InputError, match="at most"):
        read_toml(write(tmp_path, "#" * 4_000_001))


def test_a_long_value_is_shown_short(tmp_path):
    with pytest.raises(InputError) as caught:
        load(Study, write(tmp_path, VALID.replace('"1.6 nm"', '"' + "n" * 10000 + '"')))
    assert len(str(caught.value)) < 800


def test_input_files_are_found_beside_the_study(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    study = check(
        Study, {"layers": [{"type": "gap"}], "notes": "notes.txt"}, where="here", directory=tmp_path
    )
    assert study.notes == tmp_path / "notes.txt"


def test_key_paths_and_nearest_names():
    assert key_path(("pellets", 0, "width")) == "pellets[0].width"
    assert key_path(("grid", "a b", 1)) == 'grid."a b"[1]'
    assert nearest("WIDHT", ["width", "height"]) == "width"
    assert nearest("zzz", ["width"]) is None


def load_or_refuse(path):
    """True where the file is accepted; any exception but an InputError goes through."""
    with suppress(InputError):
        load(Study, path)
        return True
    return False


def test_random_mutations_are_read_or_refused(tmp_path):
    rng = random.Random(20)
    alphabet = [*"[]{}=\".,'#\n\\ -+_0123456789eEinfatru", "é", "\x00", "\ud7ff", '"""', "[[layers]]", "nan"]
    path = tmp_path / "mutated.toml"
    accepted = 0
    for _ in range(1500):
        text = list(VALID)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            action = rng.randrange(4)
            if action == 0:
                text[place] = rng.choice(alphabet)
            elif action == 1:
                del text[place : place + rng.randint(1, 8)]
            elif action == 2:
                text.insert(place, rng.choice(alphabet) * rng.choice([1, 1, 1, 50]))
            else:
                other = rng.randrange(len(text))
                text[place:place] = text[other : other + 20]
        path.write_text("".join(text), encoding="utf-8")
        accepted += load_or_refuse(path)
    assert accepted > 20


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda p: p.name)
def test_mutated_shipped_studies_are_read_or_refused(path, tmp_path):
    rng = random.Random(22)
    source = path.read_text(encoding="utf-8")
    numbers = list(re.finditer(r"(?<![\w.])\d[\d.]*", source))
    words = list(re.finditer(r"[a-z_]{4,}", source))
    accepted = 0
    for _ in range(100):
        place = rng.choice(rng.choice([numbers, words]))
        new = rng.choice(
            ["-1", "0", "1e-30", "1e30", "nan", "true", "[]", '""', "x", place[0][:-1] + "x", "7 V"]
        )
        (tmp_path / "m.toml").write_text(
            source[: place.start()] + new + source[place.end() :], encoding="utf-8"
        )
        with suppress(InputError):
            load_study(tmp_path / "m.toml")
            accepted += 1
    assert accepted < 80


def test_random_bytes_are_read_or_refused(tmp_path):
    rng = random.Random(21)
    path = tmp_path / "mutated.toml"
    for _ in range(300):
        raw = bytearray(VALID.encode())
        for _ in range(rng.randint(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(bytes(raw))
        load_or_refuse(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["kind", "title", "seed", "layers", "points", "spread", "notes", "fail"]),
    values,
    st.booleans(),
)
def test_any_value_anywhere_is_accepted_or_refused(key, value, inside):
    data = tomllib.loads(VALID)
    if inside:
        data["layers"][0] = value
    else:
        data[key] = value
    with suppress(InputError):
        assert check(Study, data).kind == "toy"
