"""Files that cannot be used: each fault named with file, line and remedy; and no byte that brings anything else."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_readers import FORMS, F, Z, csv, gamry, mpt, rows, windeta, zview

from mesoion.errors import InputError, MeasuredFileError
from mesoion.impedance.measurement import Measurement
from mesoion.impedance.readers import read_batch, read_measurements


def edited(text: str, line: int, new: str | None) -> str:
    """`text` with line `line` (from 1) replaced, or removed."""
    lines = text.split("\n")
    lines[line - 1 : line] = [] if new is None else [new]
    return "\n".join(lines)


def cut(text: str, line: int, characters: int) -> str:
    """`text` that ends on line `line` after so many characters."""
    lines = text.split("\n")[:line]
    return "\n".join([*lines[:-1], lines[-1][:characters]])


SWAPPED = np.r_[F[:7], F[8], F[7], F[9:]]
BAD: dict[str, tuple[str, str | bytes, int | None, str, str]] = {
    # name: file, content, line, fault, remedy
    "empty": ("a.csv", "", None, "empty", "export the spectrum again"),
    "blank": ("a.csv", " \n\n\t\n", None, "empty", "export"),
    "binary": ("a.txt", b"12 13 14\n1 2\x00\x01\x02 3\n", 2, "binary data", "text"),
    "an image": ("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 2, "binary data", "text"),
    "a workbook": ("a.csv", b"PK\x03\x04" + bytes(40), None, "spreadsheet", "CSV"),
    "half a UTF-16 character": ("a.csv", csv().encode("utf-16") + b"\x20", 27, "UTF-16", "UTF-8"),
    "one endless line": ("a.csv", "1," * 20_000, 1, "a line of 40000 characters", "a point on each line"),
    "words only": ("a.txt", "this is\na licence of 1998\n", None, "no table of numbers", "frequency"),
    "labels only": ("a.csv", "f / Hz,Z' / ohm,-Z'' / ohm\n", None, "no table of numbers", "frequency"),
    "row cut short": ("a.csv", cut(csv(), 20, 9), 20, "1 of 3 columns", "truncated"),
    "EC-Lab cut in its header": ("a.mpt", cut(mpt(), 5, 9), 2, "10 header lines are announced", "truncated"),
    "EC-Lab cut after its header": ("a.mpt", cut(mpt(), 10, 999), 10, "no row follows", "truncated"),
    "EC-Lab row cut short": ("a.mpt", cut(mpt(), 30, 30), 30, "columns", "truncated"),
    "Gamry cut before its table": (
        "a.DTA",
        cut(gamry(), 13, 99),
        None,
        "no ZCURVE table",
        "impedance experiment",
    ),
    "Gamry cut in its labels": ("a.DTA", cut(gamry(), 15, 99), 14, "no row follows", "truncated"),
    "Gamry cut in its rows": (
        "a.DTA",
        cut(gamry(announced="\t25"), 30, 999),
        14,
        "25 rows are announced, 14",
        "truncated",
    ),
    "ZView cut in its rows": ("a.z", cut(zview(), 20, 999), 5, "25 rows are announced, 13", "truncated"),
    "old ZView cut in its rows": (
        "a.z",
        cut(zview(old=True), 20, 999),
        5,
        "25 rows are announced, 14",
        "truncated",
    ),
    "three points": ("a.csv", cut(csv(), 4, 999), 4, "a table of 3 points", "truncated"),
    "no impedance in EC-Lab": (
        "a.mpt",
        mpt().replace("Re(Z)/Ohm", "<I>/mA").replace("|Z|/Ohm", "x"),
        10,
        "no column for the impedance",
        "label the columns",
    ),
    "no frequency": (
        "a.csv",
        csv("time / s,Z' / ohm,Z'' / ohm"),
        1,
        "no column for the frequency",
        "label the columns",
    ),
    "no imaginary part": ("a.csv", csv("f,Z',x"), 1, "no column for the impedance", "`columns`"),
    "unknown labels": ("a.csv", csv("a,b,c"), 1, "no column for the frequency and the impedance", "label"),
    "four columns without labels": (
        "a.txt",
        "\n".join(rows("{k} {f} {re} {im}")),
        1,
        "no labels",
        "`columns`",
    ),
    "two real parts": ("a.csv", csv("f,Z',Zre", "{f},{re},{im}"), 1, "two columns hold the real", "keep one"),
    "two measurements side by side": (
        "a.csv",
        csv("f,Z',-Z'',f,Z',-Z''", "{f},{re},{nim},{f},{re},{nim}"),
        1,
        "two columns hold the frequency",
        "keep one measurement per table",
    ),
    "impedance per area": (
        "a.csv",
        csv("f / Hz,Z' / ohm cm²,-Z'' / ohm cm²"),
        1,
        "times an area",
        "correct the label",
    ),
    "mHz or MHz": ("a.csv", csv("f / mhz,Z' / ohm,-Z'' / ohm"), 1, "mHz or MHz", "correct the label"),
    "a word in the table": (
        "a.csv",
        edited(csv(), 9, "100,overload,3"),
        9,
        "'overload' in column",
        "delete the row",
    ),
    "an empty cell": ("a.csv", edited(csv(), 9, "100,,3"), 9, "is empty", "complete or delete the row"),
    "nan": ("a.csv", edited(csv(), 9, "100,nan,3"), 9, "not finite", "delete the row"),
    "infinite": ("a.csv", edited(csv(), 9, "100,1e999,3"), 9, "not finite", "delete the row"),
    "zero frequency": ("a.csv", edited(csv(), 26, "0,10,3"), 26, "frequency 0 Hz", "above zero"),
    "negative frequency": ("a.csv", edited(csv(), 26, "-1,10,3"), 26, "frequency -1 Hz", "above zero"),
    "zero impedance": ("a.csv", edited(csv(), 26, "1,0,0"), 26, "impedance of zero", "delete the row"),
    "double frequency": (
        "a.csv",
        edited(csv(), 9, csv().split("\n")[7]),
        9,
        "on line 8",
        "delete one of the rows",
    ),
    "frequencies out of order": ("a.csv", csv(f=SWAPPED), 10, "rising and falling", "sort the rows"),
    "two ranges in one table": (
        "a.csv",
        csv(f=np.r_[F[:15], F[9:]], z=np.r_[Z[:15], Z[9:]]),
        17,
        "rising and falling",
        "a file of its own",
    ),
    "wrong sign": ("a.csv", csv(form="{f},{re},{im}"), 1, "the sign is wrong", "sign = "),
    "wrong sign in Gamry": ("a.DTA", gamry(z=Z.conj()), 15, "the sign is wrong", 'sign = "-Z'),
    "sign that cannot be told": (
        "a.csv",
        csv("f,Z',Z''", "{f},{re},{im}", F, Z.real + 1j * np.where(np.arange(25) % 2, 1.0, -1.0)),
        1,
        "cannot be told: 52%",
        "sign = ",
    ),
    "negative real parts": (
        "a.csv",
        csv(z=-Z.conj()),
        2,
        "real parts are not above zero",
        "passive",
    ),
    "decimal and comma mixed": (
        "a.csv",
        csv("f;Z';Z''", "{f:.9e};{re:.9e};{im:.9e}").replace(".", ",", 30),
        12,
        "decimal points and decimal commas",
        "alike",
    ),
    "decimal commas between commas": (
        "a.csv",
        csv("f,Z',Z''", "{f:.3f},{re:.3f},{im:.3f}").replace(".", ","),
        None,
        "",
        "",
    ),
    "thousands separators": (
        "a.csv",
        edited(csv("f;Z';Z''", "{f};{re};{im}"), 3, "1.000,5;3;-4"),
        3,
        "'1.000,5'",
        "row",
    ),
    "text between rows": (
        "a.csv",
        edited(csv(), 9, "measurement paused"),
        9,
        "columns",
        "complete or delete",
    ),
    "too many columns": ("a.csv", edited(csv(), 9, "1e3,2,3,4"), 9, "the row has 4 columns", "semicolons"),
    "labels and rows of other widths": (
        "a.csv",
        csv("f / Hz,Z' / ohm,-Z'' / ohm,T / K"),
        1,
        "4 labels stand above rows of 3 columns",
        "complete",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_file_line_and_remedy(tmp_path: Path, case: str) -> None:
    name, content, line, fault, remedy = BAD[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MeasuredFileError) as caught:
        read_measurements(path)
    error = caught.value
    assert error.path == str(path)
    assert str(error).startswith(f"{path}: " if error.line is None else f"{path}:{error.line}: ")
    if fault:
        assert error.line == line, str(error)
        assert fault in error.fault
    assert remedy in error.remedy
    assert len(error.remedy) > 10


def test_of_a_folder_of_bad_files_the_good_ones_go_on(tmp_path: Path) -> None:
    """Every fault of `BAD` and lengths in a wrong unit beside two good spectra: each named with its line, none lost."""
    (tmp_path / "good_25C.csv").write_text(csv())
    (tmp_path / "good_50C.mpt").write_text(mpt())
    expected: dict[str, int | None] = {}
    for k, (name, content, line, fault, _) in enumerate(BAD.values()):
        path = tmp_path / f"bad{k}{Path(name).suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if fault:
            expected[path.name] = line
    (tmp_path / "units.csv").write_text(csv())
    (tmp_path / "units.toml").write_text('diameter = "8 mm"\nthickness = 2.1\n')
    batch = read_batch([tmp_path], thickness="2.1 mm", diameter="8 mm", show_progress=False)
    assert [m.name for m in batch.measurements] == ["good_25C", "good_50C"]
    said = {p.path.name: str(p.error) for p in batch.problems}
    assert len(said) == len(BAD) + 1
    for name, line in expected.items():
        assert f"{name}: " in said[name] if line is None else f"{name}:{line}: " in said[name]
    assert re.search(r"units\.toml.*thickness.*such as \"2\.1 mm\"", said["units.csv"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thickness": 2.1}, r"options: thickness.*2\.1 m.*write the unit, such as \"2\.1 mm\""),
        ({"thickness": "2.1 m"}, "between 1e-08 and 0.05 m"),
        ({"diameter": 8}, "diameter"),
        ({"area": 0.5}, "area"),
        ({"area": "0.5 cm^2", "diameter": "8 mm"}, "not both"),
        ({"thickness": "2.1"}, "no unit"),
        ({"thickness": "-1 mm"}, "greater than 0"),
        ({"temperature": "-300 C"}, "absolute zero"),
        ({"amplitude": "5 mA"}, "another dimension"),
        ({"sign": "+"}, "sign"),
    ],
)
def test_geometry_no_sample_has_is_refused(tmp_path: Path, options: dict, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv())
    with pytest.raises(InputError, match=words):
        read_measurements(path, **options)


def test_a_bad_sidecar_is_named_with_its_key_or_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv())
    sidecar = tmp_path / "a.toml"
    for text, words in {
        'thickness = "2.1 m"': r"a\.toml: thickness: .*write the unit",
        'thicknes = "2.1 mm"': r"a\.toml.*thicknes.*thickness",
        "thickness = ": r"a\.toml:1",
        'diameter = "8 mm"\narea = "1 cm^2"': r"a\.toml: area.*not both",
    }.items():
        sidecar.write_text(text)
        with pytest.raises(InputError, match=words):
            read_measurements(tmp_path / "a.csv")


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.mpt", tmp_path):
        with pytest.raises(MeasuredFileError, match="there is no such file"):
            read_measurements(path)


def test_a_binary_ec_lab_file_without_galvani_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mpr"
    path.write_bytes(b"BIO-LOGIC MODULAR FILE\x1a" + bytes(60))
    true_import = builtins.__import__

    def without(name: str, *args, **more):
        if name.split(".")[0] == "galvani":
            raise ImportError(name)
        return true_import(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MeasuredFileError, match=r"need the package galvani; pip install 'mesoion\[biologic\]'"
    ):
        read_measurements(path)


def mpr(f: np.ndarray = F, z: np.ndarray = Z) -> bytes:
    """A binary EC-Lab file with a settings and a data module, as galvani documents their layout."""

    def module(name: bytes, version: int, data: bytes) -> bytes:
        head = (
            name.ljust(10) + name.ljust(25) + len(data).to_bytes(4, "little") + version.to_bytes(4, "little")
        )
        return b"MODULE" + head + b"01/02/24" + data

    kinds = [("f", "<f4"), ("re", "<f4"), ("im", "<f4"), ("cycle", "<f8")]
    table = np.array([(a, b.real, -b.imag, 1.0) for a, b in zip(f, z, strict=True)], dtype=kinds)
    columns = b"".join(number.to_bytes(2, "little") for number in (32, 37, 38, 24))
    data = (len(f).to_bytes(4, "little") + bytes([4]) + columns).ljust(405, b"\x00") + table.tobytes()
    magic = b"BIO-LOGIC MODULAR FILE\x1a".ljust(48) + bytes(4)
    return magic + module(b"VMP Set   ", 0, bytes(40)) + module(b"VMP data  ", 2, data)


def test_a_binary_ec_lab_file_is_read_with_galvani(tmp_path: Path) -> None:
    pytest.importorskip("galvani")
    path = tmp_path / "a_25C.mpr"
    path.write_bytes(mpr(np.r_[0.0, F], np.r_[0.0, Z]))
    (m,) = read_measurements(path, thickness="1 mm", diameter="1 cm")
    np.testing.assert_allclose(m.frequency, F, rtol=1e-6, atol=0)
    np.testing.assert_allclose(m.impedance, Z, rtol=1e-6, atol=0)
    assert m.temperature == pytest.approx(298.15)
    assert "EC-Lab binary (BioLogic)" in m.source
    assert "1 rows at frequency 0 (rest before a sweep) left out" in m.notes
    for damaged, words in {
        mpr()[:-9]: "galvani cannot read it",
        mpr()[:70]: "galvani cannot read it",
        mpr(z=Z.conj()): "the sign is wrong",
        mpr(f=F[::-1] ** 0): "on line 1",
        mpr(z=np.where(F > 9, Z, np.nan)): "not finite",
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(MeasuredFileError, match=words):
            read_measurements(path)


CONTENTS = sorted(
    {(name, text if isinstance(text, bytes) else text.encode()) for name, text in FORMS.values()}
    | {("a.mpt", mpt(cycles=2, rest=1).encode("latin-1")), ("a.txt", windeta().encode())}
)


def mutated(content: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    """Bytes replaced, removed, doubled, inserted, cut off or swapped at places of the file."""
    raw = bytearray(content)
    for kind, place, value in edits:
        if not raw:
            break
        at = place % len(raw)
        match kind:
            case 0:
                raw[at] = value
            case 1:
                del raw[at : at + 1 + value % 40]
            case 2:
                raw[at:at] = raw[at : at + 1 + value]
            case 3:
                raw[at:at] = bytes([value])
            case 4:
                del raw[at:]
            case 5:
                raw[at] = b"0123456789.,;\t\n -+eE#'\"/nai"[value % 27]
            case _:
                other = value * 37 % len(raw)
                raw[at], raw[other] = raw[other], raw[at]
    return bytes(raw)


EDITS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=6
)


def outcome(path: Path, content: bytes) -> list[Measurement] | MeasuredFileError:
    """What reading gives: spectra with all points falling and finite, or an error that names the file."""
    path.write_bytes(content)
    error: MeasuredFileError | None = None
    measurements: list[Measurement] = []
    try:
        measurements = read_measurements(path)
    except MeasuredFileError as caught:
        error = caught
    if error is not None:
        assert re.match(re.escape(str(path)) + r"(:\d+)?: ", str(error))
        assert error.line is None or 1 <= error.line <= len(re.findall(rb"\r\n|\n|\r", content)) + 1
        assert error.remedy
        return error
    assert measurements
    for m in measurements:
        assert len(m.frequency) >= 5
        assert (np.diff(m.frequency) < 0).all()
        assert np.isfinite(m.impedance).all()
    return measurements


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(CONTENTS), edits=EDITS)
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path: Path, file: tuple[str, bytes], edits: list[tuple[int, int, int]]
) -> None:
    outcome(tmp_path / file[0], mutated(file[1], edits))


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=120).map(str.encode)))
def test_any_bytes_are_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    outcome(tmp_path / "a.txt", content)


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(20)
    read = 0
    for k in range(10_000):
        name, content = CONTENTS[k % len(CONTENTS)]
        edits = [tuple(int(x) for x in rng.integers(0, (7, 2**31, 256))) for _ in range(rng.integers(1, 7))]
        read += isinstance(outcome(tmp_path / name, mutated(content, edits)), list)
    # Most damages hit a number that no reader can doubt, or are refused.
    assert 500 < read < 9_500
