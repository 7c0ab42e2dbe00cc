"""Files of every format written here from one known spectrum, read back; and every way in which a file can be bad."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

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
            lines.append("\t".join(["0.0000000E+000"] * 7 + [f"{cycle}.0E+000", "41", ""]))
        lines += rows(
            "{f:.7E}\t{re:.7E}\t{nim:.7E}\t{mod:.7E}\t{deg:.7E}\t1.5E+000\t2.0E-003\t"
            + f"{cycle}.0E+000\t41\t",
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


def read(folder: Path, text: str | bytes, name: str = "pellet.txt", **options) -> list[Measurement]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_measurements(path, **options)


def one(folder: Path, text: str | bytes, name: str = "pellet.txt", **options) -> Measurement:
    measurements = read(folder, text, name, **options)
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
