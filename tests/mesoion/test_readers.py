"""Files of every format written here from one known spectrum, read back; and every way in which a file can be bad."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError, MeasuredFileError
from mesoion.impedance.measurement import Measurement
from mesoion.impedance.readers import read_batch, read_measurements

F = np.logspace(6, 0, 25)
Z = 150.0 + 4.0e4 / (1 + 2j * np.pi * F * 4.0e4 * 3e-11) + 1 / (1e-6 * (2j * np.pi * F) ** 0.9)


def rows(form: str, f=F, z=Z, comma: bool = False) -> list[str]:
    """One line for each point; `form` names f, re, im, mod, deg, k (the row's number)."""
    lines = [
        form.format(f=a, re=b.real, im=b.imag, nim=-b.imag, mod=abs(b), deg=np.angle(b, deg=True), k=k)
        for k, (a, b) in enumerate(zip(f, z, strict=True))
    ]
    return [line.replace(".", ",") for line in lines] if comma else lines


def mpt(f=F, z=Z, cycles: int = 1, comma: bool = False, new: bool = True, rest: int = 0) -> str:
    labels = "freq/Hz\tRe(Z)/Ohm\t-Im(Z)/Ohm\t|Z|/Ohm\tPhase(Z)/deg\ttime/s\t<Ewe>/V\tcycle number\tI Range\t"
    head = ["Potentio Electrochemical Impedance Spectroscopy", "", "Electrode surface area : 0.001 cm²"]
    head += ["Cycle Definition : Charge/Discharge alternance", "Va (mV)             10,000              "]
    head += ["nr cycles           0                   ", ""] if new else []
    lines = [
        "EC-Lab ASCII FILE",
        f"Nb header lines : {len(head) + 3}                          ",
        *head,
        labels,
    ]
    for cycle in range(1, cycles + 1):
        for _ in range(rest):
            lines.append("\t".join(["0.0000000E+00"] * 7 + [f"{cycle}.0E+00", "41", ""]))
        lines += rows(
            "{f:.7E}\t{re:.7E}\t{nim:.7E}\t{mod:.7E}\t{deg:.7E}\t1.5E+00\t2.0E-03\t" + f"{cycle}.0E+00\t41\t",
            f,
            z,
        )
    text = "\n".join(lines) + "\n"
    return text.replace("E+0", "E+00").replace("E-0", "E-00") if not comma else text.replace(".", ",")


def gamry(f=F, z=Z, comma: bool = False, temperature: float | None = None, announced: str = "") -> str:
    sensor = "" if temperature is None else f"\t{temperature}"
    head = [
        "EXPLAIN",
        "TAG\tEISPOT",
        "TITLE\tLABEL\tPotentiostatic EIS\tTest &Identifier",
        "NOTES\tNOTES\t1\t&Notes...",
        "\tpellet 7",
        "VDC\tPOTEN\t0.00000E+000\tT\tDC &Voltage (V)",
        "VAC\tQUANT\t1.00000E+001\tAC &Voltage (mV rms)",
        "AREA\tQUANT\t5.02655E-001\t&Area (cm^2)",
        "OCVCURVE\tTABLE\t2",
        "\tPt\tT\tVf\tVm\tAch\tOver\tTemp",
        "\t#\ts\tV vs. Ref.\tV\tV\tbits\tdeg C",
        "\t0\t0.258\t-3.46E-001\t-3.46E-001\t-5.59E-004\t..........a\t-327.67",
        "\t1\t0.516\t-3.46E-001\t-3.46E-001\t-5.72E-004\t..........a\t-327.67",
        f"ZCURVE\tTABLE{announced}",
        "\tPt\tTime\tFreq\tZreal\tZimag\tZsig\tZmod\tZphz\tIdc\tVdc\tIERange" + ("\tTemp" if sensor else ""),
        "\t#\ts\tHz\tohm\tohm\tV\tohm\t°\tA\tV\t#" + ("\tdeg C" if sensor else ""),
    ]
    form = "\t{k}\t{k}\t{f:.7g}\t{re:.7g}\t{im:.7g}\t1\t{mod:.7g}\t{deg:.7g}\t1E-009\t0.001\t9"
    text = "\r\n".join([*head, *rows(form + sensor, f, z)]) + "\r\n"
    return text.replace(".", ",") if comma else text


def zview(f=F, z=Z, old: bool = False) -> str:
    if old:
        head = ['"ZPlotW Data File: Version 3.2c"', '"Raw Data"', "Date: 12-17-2019    Time: 16:24:35"]
        head += ["0,3,0,1,300000,0.005", str(len(f))]
        head += ["\"  Freq(Hz)    Ampl     Bias   Time(Sec)   Z'(a)    Z''(b)    GD   Err   Range\""]
        form = "{f:.6E}, 1.0000E-02, 0.0000E+00, 2.58E+00, {re:.6E}, {im:.6E}, 0.0E+00, 0, 5"
    else:
        head = ["ZPLOT2 ASCII", "  Measured Data, ZPlot:       3.2c", "  Begin Experiment:           0"]
        head += ["    vs Freq-Initial:          300000", f"  Data Points:                {len(f)}"]
        head += ["  Freq(Hz)\tAmpl\tBias\tTime(Sec)\tZ'(a)\tZ''(b)\tGD\tErr\tRange", "End Comments"]
        form = "{f:.6E}\t1.0E-02\t0.0E+00\t2.67E+00\t{re:.6E}\t{im:.6E}\t0.0E+00\t0\t3"
    return "\n".join([*head, *rows(form, f, z)]) + "\n"


def windeta(f=F, z=Z, fixed: str = "AC Volt  [Vrms]=7.1000e-03  ") -> str:
    head = [
        "LAGP dynamicVT, 1.12.2020, 14:42",
        f"Fixed value(s) :  {fixed}",
        " Freq. [Hz]\t Zs' [Ohms]\t Zs'' [Ohms]",
    ]
    return "\n".join([*head, *rows("{f:.5e}\t{re:.6e}\t{im:.6e}", f, z)])


def csv(
    head: str = "f / Hz,Z' / ohm,-Z'' / ohm", form: str = "{f:.10g},{re:.10g},{nim:.10g}", f=F, z=Z
) -> str:
    return "\n".join([head, *rows(form, f, z)]) + "\n"


def read(folder: Path, text: str | bytes, file: str = "pellet.txt", **options) -> list[Measurement]:
    path = folder / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_measurements(path, **options)


def one(folder: Path, text: str | bytes, file: str = "pellet.txt", **options) -> Measurement:
    measurements = read(folder, text, file, **options)
    assert len(measurements) == 1
    return measurements[0]


FORMS = {
    "mpt new": ("a.mpt", mpt()),
    "mpt old, latin-1": ("a.mpt", mpt(new=False).encode("latin-1")),
    "mpt, decimal commas": ("a.mpt", mpt(comma=True)),
    "Gamry": ("a.DTA", gamry()),
    "Gamry, decimal commas, latin-1": ("a.DTA", gamry(comma=True).encode("latin-1")),
    "ZView": ("a.z", zview()),
    "ZView, old": ("a.z", zview(old=True)),
    "WinDETA": ("a.txt", windeta()),
    "own CSV": ("a.csv", csv()),
    "utf-16": ("a.csv", csv().encode("utf-16")),
    "utf-16, big-endian": ("a.csv", b"\xfe\xff" + csv().encode("utf-16-be")),
    "utf-8 with mark": ("a.csv", csv().encode("utf-8-sig")),
    "latin-1 comment": ("a.csv", ("# Temperaturfühler\n" + csv()).encode("latin-1")),
    "semicolons": ("a.csv", csv("f;Z';Z''", "{f:.9g};{re:.9g};{im:.9g}")),
    "tabs and decimal commas": ("a.txt", csv("f\tZ'\tZ''", "{f:.9g}\t{re:.9g}\t{im:.9g}").replace(".", ",")),
    "semicolons and decimal commas": (
        "a.csv",
        csv("f;Z';Z''", "{f:.9g};{re:.9g};{im:.9g}").replace(".", ","),
    ),
    "spaces and decimal commas": ("a.dat", csv("f Z' Z''", "{f:.8f} {re:.8f} {im:.8f}").replace(".", ",")),
    "single spaces, units in brackets": (
        "a.dat",
        csv("f [Hz] Z' [ohm] Z'' [ohm]", "{f:.9g} {re:.9g} {im:.9g}"),
    ),
    "numpy.savetxt": ("a.dat", csv("# freq Zre -Zim", "{f:.18e} {re:.18e} {nim:.18e}")),
    "no labels": ("a.txt", "\n".join(rows("{f:.9g} {re:.9g} {im:.9g}"))),
    "no labels, a title": ("a.txt", "pellet 7\n" + "\n".join(rows("{f:.9g}\t{re:.9g}\t{im:.9g}"))),
    "modulus and phase": (
        "a.csv",
        csv("frequency,|Z|,-phase / deg", "{f:.9g},{mod:.9g},0").replace(",0\n", ",X\n"),
    ),
    "CH Instruments": (
        "a.txt",
        "Imp SF\nAmplitude (V) = 0.005\nInit E (V) = 0\n\n"
        + csv(
            "Freq/Hz, Z'/ohm, Z\"/ohm, Z/ohm, Phase/deg\n",
            "{f:.9g}, {re:.9g}, {im:.9g}, {mod:.9g}, {deg:.3g}",
        ),
    ),
    "Solartron SMaRT": (
        "a.csv",
        "pellet 7\nExperiment start time : 01/02/2024 10:00:00\n"
        + csv(
            "Index,Sweep Number,Frequency (Hz),Impedance Magnitude (Ohms),Impedance Phase Degrees (')",
            "{k},1,{f:.9g},{mod:.9g},{deg:.9g},",
        ),
    ),
    "Solartron SMaRT, real and imaginary": (
        "a.csv",
        csv("Frequency (Hz),Impedance Real (Ohms),Impedance Imaginary (Ohms)", "{f:.9g},{re:.9g},{im:.9g},"),
    ),
    "Ivium-like count": (
        "a.P00",
        csv(" f/Hz\t Z'/Ohm\t -Z''/Ohm\t time/s\n 25 ", " {f:.9g}\t {re:.9g}\t {nim:.9g}\t 1"),
    ),
    "units below": (
        "a.csv",
        csv("Frequency,Zreal,Zimag\nkHz,kohm,kohm", "{f:.9g},{re:.9g},{im:.9g}", F / 1e3, Z / 1e3),
    ),
    "kHz and Mohm": (
        "a.csv",
        csv("Frequency (kHz),Z' (MΩ),Z'' (MΩ)", "{f:.9g},{re:.9g},{im:.9g}", F / 1e3, Z / 1e6),
    ),
    "angular frequency": (
        "a.csv",
        csv("f / rad/s,Z' / ohm,-Z'' / ohm", "{f:.10g},{re:.10g},{nim:.10g}", 2 * np.pi * F),
    ),
    "other columns between": ("a.csv", csv("t/s,Zim,note,Zre,f", "3,{im:.9g},ok,{re:.9g},{f:.9g}")),
    "rising": ("a.csv", csv("f,Zre,Zim", "{f:.9g},{re:.9g},{im:.9g}", F[::-1], Z[::-1])),
    "positive Z''": ("a.csv", csv("f,Z',Z''", "{f:.9g},{re:.9g},{nim:.9g}")),
    "both parts negated": ("a.csv", csv("f,-Z',-Z''", "{f:.9g},-{re:.9g},{nim:.9g}")),
    "quoted": ("a.csv", csv('"f / Hz","Z\' / ohm","Z\'\' / ohm"', '"{f:.9g}","{re:.9g}","{im:.9g}"')),
}
FORMS["modulus and phase"] = (
    "a.csv",
    "frequency,|Z|,-phase / deg\n"
    + "\n".join(f"{f:.9g},{abs(z):.9g},{-np.angle(z, deg=True):.9g}" for f, z in zip(F, Z, strict=True)),
)

REFERENCE = Path(os.environ.get("MESOION_REFERENCE", "")) / "eis"


@pytest.mark.parametrize("case", FORMS)
def test_every_form_gives_the_spectrum_it_was_written_from(tmp_path: Path, case: str) -> None:
    name, text = FORMS[case]
    m = one(tmp_path, text, name)
    assert m.name == "a"
    assert_allclose(m.frequency, F, rtol=2e-5, atol=0)
    assert_allclose(m.impedance, Z, rtol=2e-6, atol=0)
    assert name in m.source
    assert any(note.startswith("sign: ") for note in m.notes)


@pytest.mark.skipif(not (REFERENCE / "README.md").is_file(), reason="needs MESOION_REFERENCE")
def test_the_measured_batch_is_read_whole_with_temperatures_and_amplitudes() -> None:
    batch = read_batch(REFERENCE, thickness="2.1 mm", diameter="8 mm")
    temperatures = {m.name: m.temperature for m in batch.measurements}
    assert temperatures.pop("lagp_two_arcs") is None
    celsius = (140, 150, 160, 170, 180, 200)
    assert temperatures == {f"s04147_{t}C": pytest.approx(t + 273.15) for t in celsius}
    assert [len(m.frequency) for m in batch.measurements] == [50, 42, 42, 42, 41, 41, 40]
    assert [m.amplitude for m in batch.measurements] == pytest.approx([7.1e-3] + 6 * [35e-3])
    assert_allclose(batch.measurements[1].impedance[0], 2.21423e4 - 5.43115e4j, rtol=1e-12, atol=0)
    assert_allclose(
        batch.measurements[1].geometry.cell_constant, 2.1e-3 / (np.pi / 4 * 64e-6), rtol=1e-12, atol=0
    )
    assert [p.path.name for p in batch.problems] == ["LICENSE.EISFitpython.txt"]
    assert [p.name for p in batch.ignored] == ["README.md"]


def test_what_was_matched_and_assumed_is_said(tmp_path: Path) -> None:
    m = one(tmp_path, csv("f,Z',Z''", "{f:.9g},{re:.9g},{nim:.9g}"), "a.csv")
    assert m.source.endswith(
        """a.csv: text, labels on line 1: 'f' as f, "Z'" as Z', "Z''" as Z''; comma separated; utf-8"""
    )
    assert "'f' states no unit: taken as Hz" in m.notes
    assert (
        """sign: "Z''" holds -Z'', as the data say: 100% of 25 points capacitive so, turned round"""
        in m.notes
    )
    assert "no temperature known" in m.notes
    assert "no geometry: thickness and diameter or area not known" in m.notes
    m = one(tmp_path, mpt(comma=True), "a.mpt")
    assert ": EC-Lab text (BioLogic), labels on line 10: " in m.source
    assert "decimal commas" in m.source
    assert "sign: '-Im(Z)/Ohm' holds -Z'' by its label; 100% of 25 points capacitive" in m.notes
    m = one(tmp_path, "\n".join(rows("{f:.9g} {re:.9g} {im:.9g}")))
    assert "no labels: three columns taken as f / Hz, Z' / ohm and Z'' / ohm" in m.notes
    assert "rising frequencies, turned round" in one(tmp_path, FORMS["rising"][1]).notes


def test_ec_lab_loops_are_kept_apart_and_rests_left_out(tmp_path: Path) -> None:
    loops = read(tmp_path, mpt(cycles=3, rest=2), "loops.mpt")
    assert [m.name for m in loops] == ["loops cycle 1", "loops cycle 2", "loops cycle 3"]
    for m in loops:
        assert_allclose(m.impedance, Z, rtol=2e-6, atol=0)
        assert "6 rows at frequency 0 (rest before a sweep) left out" in m.notes
        assert "3 sweeps in the file, kept apart" in m.notes
    assert loops[1].source.endswith("; lines 40 to 64")


def test_rests_and_unusable_units_of_columns_that_are_not_needed_do_no_harm(tmp_path: Path) -> None:
    resting = csv(
        "Potential (V),Frequency (Hz),Zre (ohms),Zim (ohms)\n3.4,0,0,0\n3.4,0,0,0", "3.4,{f},{re},{im}"
    )
    assert_allclose(one(tmp_path, resting).impedance, Z, rtol=1e-5, atol=0)
    assert_allclose(one(tmp_path, gamry().replace("°", "\ufffd"), "a.DTA").impedance, Z, rtol=1e-6, atol=0)


def test_the_amplitude_of_ec_lab_is_a_peak_and_that_of_gamry_rms(tmp_path: Path) -> None:
    assert_allclose(one(tmp_path, mpt(), "a.mpt").amplitude, 10e-3 / np.sqrt(2), rtol=1e-12, atol=0)
    assert_allclose(one(tmp_path, gamry(), "a.DTA").amplitude, 10e-3, rtol=1e-12, atol=0)


def test_repeated_and_returning_sweeps_are_kept_apart(tmp_path: Path) -> None:
    again = csv(f=np.r_[F, F, F[:9]], z=np.r_[Z, 1.01 * Z, 1.02 * Z[:9]])
    first, second, third = read(tmp_path, again, "a.csv")
    assert [first.name, second.name, third.name] == ["a sweep 1", "a sweep 2", "a sweep 3"]
    assert_allclose(second.impedance, 1.01 * Z, rtol=1e-8, atol=0)
    assert_allclose(third.frequency, F[:9], rtol=1e-8, atol=0)
    down, up = read(tmp_path, csv(f=np.r_[F, F[-2::-1]], z=np.r_[Z, 1.1 * Z[-2::-1]]), "a.csv")
    assert_allclose(up.impedance, 1.1 * Z[:-1], rtol=1e-8, atol=0)
    assert "rising frequencies, turned round" in up.notes
    assert "rising frequencies, turned round" not in down.notes


def test_a_cycle_column_keeps_sweeps_of_different_ranges_apart(tmp_path: Path) -> None:
    f, z, cycle = np.r_[F, F[5:]], np.r_[Z, 2 * Z[5:]], np.r_[np.full(25, 3), np.full(20, 4)]
    lines = [f"{a:.10g},{b.real:.10g},{-b.imag:.10g},{c}" for a, b, c in zip(f, z, cycle, strict=True)]
    first, second = read(tmp_path, "\n".join(["f / Hz,Z' / ohm,-Z'' / ohm,cycle", *lines]), "a.csv")
    assert [first.name, second.name] == ["a cycle 3", "a cycle 4"]
    assert_allclose(second.impedance, 2 * Z[5:], rtol=1e-8, atol=0)
    with pytest.raises(MeasuredFileError, match="rising and falling"):
        read(tmp_path, "\n".join(["f / Hz,Z' / ohm,-Z'' / ohm,x", *lines]), "a.csv")


def test_two_tables_with_labels_of_their_own_are_two_measurements(tmp_path: Path) -> None:
    text = "temperature: 30 °C\n" + csv() + "\ntemperature: 40 °C\n" + csv(z=0.5 * Z)
    first, second = read(tmp_path, text, "a.csv")
    assert (first.temperature, second.temperature) == (pytest.approx(303.15), pytest.approx(313.15))
    assert_allclose(second.impedance, 0.5 * Z, rtol=1e-8, atol=0)
    curves = gamry() + gamry(z=2 * Z)[gamry().index("ZCURVE") :].replace("ZCURVE", "ZCURVE2")
    assert len(read(tmp_path, curves, "a.DTA")) == 2


def test_temperature_columns_give_each_sweep_its_temperature(tmp_path: Path) -> None:
    head, form = (
        " Freq. [Hz]\t Temp. [°C]\t Zs' [Ohms]\t Zs'' [Ohms]",
        "{{f:.5e}}\t{t}\t{{re:.6e}}\t{{im:.6e}}",
    )
    parts = [rows(form.format(t=t), F, Z / k) for k, t in enumerate((25.0, 50.0), 1)]
    first, second = read(tmp_path, "\n".join([head, *parts[0], *parts[1]]))
    assert (first.temperature, second.temperature) == (pytest.approx(298.15), pytest.approx(323.15))
    assert one(tmp_path, gamry(temperature=31.5), "a.DTA").temperature == pytest.approx(304.65)
    # No sensor is connected.
    assert one(tmp_path, gamry(temperature=-327.67), "a.DTA").temperature is None


def test_phases_in_degrees_radians_and_neither(tmp_path: Path) -> None:
    pairs = [(f, abs(z), np.angle(z)) for f, z in zip(F, Z, strict=True)]
    radians = "\n".join(f"{f},{m!r},{p}" for f, m, p in ((f, float(m), p) for f, m, p in pairs))
    degrees = "\n".join(f"{f},{float(m)!r},{np.rad2deg(p)}" for f, m, p in pairs)
    for text in ("f/Hz,|Z|/ohm,phase/rad\n" + radians, "f/Hz,|Z|/ohm,phase\n" + degrees):
        assert_allclose(one(tmp_path, text).impedance, Z, rtol=1e-9, atol=0)
    with pytest.raises(MeasuredFileError, match="degrees or radians"):
        read(tmp_path, "f/Hz,|Z|/ohm,phase\n" + radians)
    with pytest.raises(MeasuredFileError, match="check the unit of the phase"):
        read(tmp_path, "f/Hz,|Z|/ohm,phase/rad\n" + degrees)


def test_columns_without_labels_that_are_modulus_and_phase_are_not_taken_for_real_and_imaginary(
    tmp_path: Path,
) -> None:
    f = np.logspace(6, 0, 43)
    z = 150.0 + 4.0e4 / (1 + 2j * np.pi * f * 4.0e4 * 3e-11) + 1 / (1e-6 * (2j * np.pi * f) ** 0.9)
    with pytest.raises(MeasuredFileError, match="label them, or name them"):
        read(tmp_path, "\n".join(rows("{f:.9g} {mod:.9g} {deg:.9g}", f, z)))
    # Small impedances look like phases, and are none.
    assert_allclose(
        one(tmp_path, "\n".join(rows("{f:.9g} {re:.9g} {im:.9g}", f, z / 1e4))).impedance, z / 1e4, rtol=1e-8
    )


def test_columns_and_sign_can_be_told(tmp_path: Path) -> None:
    table = "pellet 7\n" + "\n".join(rows("{k}\t{f:.9g}\t{re:.9g}\t{nim:.9g}\t-1", F / 1e3, Z))
    with pytest.raises(MeasuredFileError, match="no labels"):
        read(tmp_path, table)
    m = one(tmp_path, table, columns=["", "f / kHz", "Z' / ohm", "-Z'' / ohm"])
    assert_allclose(m.impedance, Z, rtol=1e-8, atol=0)
    assert_allclose(m.frequency, F, rtol=1e-8, atol=0)
    assert "columns as named" in m.notes
    with pytest.raises(InputError, match="name a frequency and an impedance"):
        read(tmp_path, table, columns=["", "f / kHz", "Z' / ohm"])
    with pytest.raises(InputError, match="Hz, kHz, MHz"):
        read(tmp_path, table, columns=["", "f / ohm", "Z' / ohm", "-Z'' / ohm"])
    inductor = 5.0 + 2j * np.pi * F * 1e-6
    with pytest.raises(MeasuredFileError, match="the sign is wrong"):
        read(tmp_path, csv(z=inductor), "a.csv")
    assert_allclose(
        one(tmp_path, csv(z=inductor), "a.csv", sign="-Z''").impedance, inductor, rtol=1e-8, atol=0
    )
    mislabelled = csv(form="{f:.9g},{re:.9g},{im:.9g}")
    with pytest.raises(MeasuredFileError, match=r"""a\.csv:1: .*the sign is wrong; give sign = "Z''","""):
        read(tmp_path, mislabelled, "a.csv")
    assert_allclose(one(tmp_path, mislabelled, "a.csv", sign="Z''").impedance, Z, rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("name", "celsius"),
    [
        ("s04147_140C", 140.0),
        ("LLZO_25degC", 25.0),
        ("pellet 60 °C", 60.0),
        ("LLZO-25C", 25.0),
        ("LLZO_-20C", -20.0),
        ("a_m20C", -20.0),
        ("T=22.5C", 22.5),
        ("22p5C_run2", 22.5),
        ("298K", 24.85),
        ("x_298.15K_y", 25.0),
        ("s04147-140deg", 140.0),
        ("EIS_PEIS_C01", None),
        ("10kHz", None),
        ("cell10C3", None),
        ("10K_resistor", None),
        ("LLZO_1100C_25C", None),
    ],
)
def test_a_temperature_in_a_name(tmp_path: Path, name: str, celsius: float | None) -> None:
    m = one(tmp_path, csv(), f"{name}.csv")
    if celsius is None:
        assert m.temperature is None
        return
    assert m.temperature == pytest.approx(celsius + 273.15)
    assert any("from the file's name" in note for note in m.notes)


def test_options_come_before_the_sidecar_and_that_before_the_header_and_the_name(tmp_path: Path) -> None:
    (tmp_path / "a_50C.toml").write_text(
        'thickness = "2 mm"\ndiameter = "10 mm"\nmass = "0.5 g"\namplitude = "20 mV"\n'
    )
    text = "Temperature: 40 °C, thickness: 1 mm\n" + csv()
    m = one(tmp_path, text, "a_50C.csv", area="0.5 cm^2")
    assert m.geometry is not None
    assert (m.geometry.thickness, m.geometry.area) == (pytest.approx(2e-3), pytest.approx(5e-5))
    assert m.geometry.mass == pytest.approx(5e-4)
    assert m.amplitude == pytest.approx(0.02)
    assert m.temperature == pytest.approx(313.15)
    assert "thickness, diameter, mass, amplitude from a_50C.toml" in m.notes
    assert any("says 323.15 K" in note for note in m.notes)
    m = one(tmp_path, text, "a_50C.csv", temperature="35 C", thickness=1.5e-3)
    assert (m.temperature, m.geometry.thickness) == (pytest.approx(308.15), 1.5e-3)
    assert one(tmp_path, text, "b.csv").geometry is None
    m = one(tmp_path, text, "b.csv", diameter="10 mm", name="pellet 7")
    assert m.name == "pellet 7"
    assert m.geometry.thickness == pytest.approx(1e-3)
    assert "thickness from the file: thickness: 1 mm" in m.notes


def test_an_area_of_the_file_is_used_unless_it_is_the_programs_default(tmp_path: Path) -> None:
    m = one(tmp_path, gamry(), "a.DTA", thickness="1 mm")
    assert m.geometry.area == pytest.approx(5.02655e-5)
    m = one(tmp_path, gamry().replace("5.02655E-001", "1.00000E+000"), "a.DTA", thickness="1 mm")
    assert m.geometry is None
    assert any("the program's default, not used" in note for note in m.notes)
    m = one(tmp_path, mpt(), "a.mpt", thickness="1 mm")
    assert m.geometry is None


def test_a_study_beside_the_file_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('kind = "pellet"\ntitle = "x"\n')
    assert any("is a study" in note for note in one(tmp_path, csv(), "a.csv").notes)


def test_a_batch_goes_on_past_its_bad_files_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name, text in {
        "llzo_140C.csv": csv(),
        "llzo_40C.csv": csv(z=3 * Z),
        "llzo_40C.txt": windeta(z=3 * Z),
        "broken.csv": "f,Z',Z''\n1,2\n",
        "empty.mpt": "",
        "notes.docx": "x",
        "llzo_140C.toml": 'amplitude = "5 mV"',
        "x/llzo_40C.csv": csv(z=4 * Z),
    }.items():
        (tmp_path / name).write_text(text)
    batch = read_batch([tmp_path, tmp_path / "x", tmp_path / "gone.csv"], thickness="1 mm", diameter="1 cm")
    names = [m.name for m in batch.measurements]
    assert names == [f"{tmp_path.name}/llzo_40C.csv", "llzo_40C.txt", "llzo_140C", "x/llzo_40C.csv"]
    assert {p.path.name for p in batch.problems} == {"broken.csv", "empty.mpt", "gone.csv"}
    assert all(str(p.path) in str(p.error) for p in batch.problems)
    assert [p.name for p in batch.ignored] == ["notes.docx"]
    assert all(m.geometry is not None for m in batch.measurements)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no measured files"):
        read_batch(tmp_path / "none")
