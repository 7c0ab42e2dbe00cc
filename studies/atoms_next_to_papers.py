"""What our atoms say, next to the papers: every number of theirs that our runs give, with interval and ratio.

    python studies/atoms_next_to_papers.py --out runs/atoms_next_to_papers

Reads `studies/tables/own` (written by `studies/own_records.py`), the shipped records and the potentials' cards; what is
not there is listed as not computed. Writes `comparison.csv`, `comparison.png` and one page, `report.html`.

Theirs: "perovskites" is the study of LSTZ0.75 grain boundaries, "garnets" that of segregation at LLZO grain boundaries
with its supplement, both by moment tensor potentials taught by density functional theory; measured values are theirs or
cited by them.
"""

from __future__ import annotations

import argparse
import csv
import html
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atomistic.analysis_results import AnalysisResults, ArrheniusRow, load_results
from atomistic.errors import FileFormatError
from mesoion.transport import TransportRecord, list_records, load_record

HERE = Path(__file__).parent
POTENTIALS = HERE.parent / "atomistic" / "potentials"


@dataclass(frozen=True)
class Estimate:
    """A number of ours with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One comparison. theirs: value, or bounds where they print a range or a limit."""

    system: str
    quantity: str
    unit: str
    theirs: tuple[float, float]
    source: str
    ours: Callable[[Tables], Estimate | None]
    remark: str = ""

    @property
    def theirs_text(self) -> str:
        low, high = self.theirs
        if low == high:
            return f"{low:.4g}"
        if low == 0.0:
            return f"below {high:.4g}"
        return f"{low:.4g} to {high:.4g}"


class Tables:
    """Own tables, records and cards of a folder, read when asked for."""

    def __init__(self, own: Path, records: Path | None = None) -> None:
        self.own, self.records = own, records
        self._held: dict[str, AnalysisResults | None] = {}

    def results(self, name: str) -> AnalysisResults | None:
        """Of a campaign; None where it has no table."""
        if name not in self._held:
            try:
                self._held[name] = load_results(self.own / f"{name}.json")
            except FileFormatError:
                if (self.own / f"{name}.json").exists():
                    raise
                self._held[name] = None
        return self._held[name]

    def laws(self, name: str) -> list[ArrheniusRow]:
        """Tracer laws of a campaign; those across are left out where they are to be run again."""
        results, path = self.results(name), self.own / "early_across.txt"
        early = path.exists() and name in path.read_text(encoding="utf-8").splitlines()
        laws = [] if results is None else [law for law in results.arrhenius if law.kind == "tracer"]
        return [law for law in laws if not (early and law.direction == "across")]

    def record(self, name: str) -> TransportRecord | None:
        """An own record; None where it is not shipped."""
        if self.records is not None:
            path = self.records / f"{name}.json"
            return load_record(path) if path.exists() else None
        return load_record(name) if name in list_records() else None

    def rows(self, name: str) -> list[dict[str, str]]:
        """Of one of the CSV tables; empty where it is not there."""
        path = self.own / f"{name}.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def energy(campaign: str, region: str, direction: str) -> Callable[[Tables], Estimate | None]:
    """E_a in eV of a region and direction."""

    def find(tables: Tables) -> Estimate | None:
        for law in tables.laws(campaign):
            if (law.region, law.direction) == (region, direction):
                e = law.activation_energy_eV
                return Estimate(e.value, e.low, e.high)
        return None

    return find


def conductivity(record: str, temperature: float) -> Callable[[Tables], Estimate | None]:
    """sigma in S/cm of an own record."""

    def find(tables: Tables) -> Estimate | None:
        found = tables.record(record)
        if found is None:
            return None
        p = found.conductivity(temperature)
        return Estimate(1e-2 * p.value, 1e-2 * p.low, 1e-2 * p.high)

    return find


def diffusivity_ratio(
    above: tuple[str, str, str], below: tuple[str, str, str], temperature: float
) -> Callable[[Tables], Estimate | None]:
    """D of one campaign, region and direction over that of another at a temperature, from the laws."""

    def find(tables: Tables) -> Estimate | None:
        found = []
        for campaign, region, direction in (above, below):
            for law in tables.laws(campaign):
                at = law.extrapolated_m2_per_s.get(f"{temperature:g}")
                if (law.region, law.direction) == (region, direction) and at is not None:
                    found.append(at)
        if len(found) != 2 or not (found[0].low > 0 and found[1].low > 0):
            return None
        value = found[0].value / found[1].value
        spread = math.hypot(*(math.log(e.high / e.low) / 2 for e in found))
        return Estimate(value, value * math.exp(-spread), value * math.exp(spread))

    return find


def order(*campaigns: str) -> Callable[[Tables], Estimate | None]:
    """S of Monte Carlo stages, means over their second halves; the scatter between them counts."""

    def find(tables: Tables) -> Estimate | None:
        rows = [row for row in tables.rows("orders") if row["campaign"] in campaigns]
        if not rows:
            return None
        values = [float(row["order"]) for row in rows]
        mean = sum(values) / len(values)
        own = math.sqrt(sum(float(row["standard_error"]) ** 2 for row in rows)) / len(rows)
        between = (
            math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
            if len(values) > 1
            else 0.0
        )
        spread = 1.96 * max(own, between)
        return Estimate(mean, max(mean - spread, 0.0), mean + spread)

    return find


def boundary_energy(*campaigns: str) -> Callable[[Tables], Estimate | None]:
    """Lowest energy in J/m² over the campaigns of one boundary."""

    def find(tables: Tables) -> Estimate | None:
        rows = [row for row in tables.rows("boundary_energies") if row["campaign"] in campaigns]
        if not rows:
            return None
        best = min(rows, key=lambda row: float(row["energy_J_per_m2"]))
        value, spread = float(best["energy_J_per_m2"]), float(best["standard_uncertainty_J_per_m2"])
        return Estimate(value, value - 1.96 * spread, value + 1.96 * spread)

    return find


def share(campaign: str, species: str, region: str = "boundary") -> Callable[[Tables], Estimate | None]:
    """Atomic percent of a species in a region."""

    def find(tables: Tables) -> Estimate | None:
        results = tables.results(campaign)
        for row in () if results is None else results.composition:
            if (row.region, row.species) == (region, species):
                spread = 1.96 * (row.standard_error or 0.0)
                return Estimate(row.atomic_percent, row.atomic_percent - spread, row.atomic_percent + spread)
        return None

    return find


def error_of(potential: str, group: str, key: str) -> Callable[[Tables], Estimate | None]:
    """An on-policy error of a potential's card; a card gives no interval."""

    def find(tables: Tables) -> Estimate | None:
        path = POTENTIALS / f"{potential}.json"
        if not path.exists():
            return None
        errors = json.loads(path.read_text(encoding="utf-8"))["errors"]["on policy"].get(group)
        return None if errors is None else Estimate(errors[key], errors[key], errors[key])

    return find


def formation(dopant: str, host: str) -> Callable[[Tables], Estimate | None]:
    """Formation energy in eV of a defect."""

    def find(tables: Tables) -> Estimate | None:
        for row in tables.rows("formation_energies"):
            if (row["dopant"], row["host"]) == (dopant, host):
                return Estimate(float(row["energy_eV"]), float(row["low_eV"]), float(row["high_eV"]))
        return None

    return find


PEROVSKITES = "perovskites"
LSTZ = ("lstz-bulk-1573", "bulk", "all")
LLTO = ("llto-bulk-disordered", "bulk", "all")
LLZO = ("llzo-bulk", "bulk", "all")
GARNETS = "garnets"


def rows() -> list[Row]:
    """Every comparison."""
    both = "whole cell of both"
    found = [
        Row("LSTZ0.75", "order S, 298 K", "", (0.78, 0.78), f"{PEROVSKITES}, 2.1", order("lstz-bulk-298"),
            "at 298 K few swaps are accepted: S is that of the ordered start"),
        Row("LSTZ0.75", "order S, 723 K", "", (0.78, 0.78), f"{PEROVSKITES}, 2.1", order("lstz-bulk-723")),
        Row("LSTZ0.75", "order S, 1148 K", "", (0.0, 0.2), f"{PEROVSKITES}, 2.1", order("lstz-bulk-1148")),
        Row("LSTZ0.75", "order S, 1573 K", "", (0.0, 0.2), f"{PEROVSKITES}, 2.1",
            order("lstz-bulk-1573", "lstz-bulk-1573-from-disorder")),
        Row("LSTZ0.75", "sigma at 300 K, ordered (723 K)", "S/cm", (3.5e-4, 3.5e-4), f"{PEROVSKITES}, 2.1",
            conductivity("lstz-bulk-723-own", 300.0), "they: equal to the measured bulk"),
        Row("LSTZ0.75", "sigma at 300 K, disordered (1573 K)", "S/cm", (7e-4, 10.5e-4), f"{PEROVSKITES}, 2.1",
            conductivity("lstz-bulk-own", 300.0), '"promoted by 1-2 times" over the ordered one'),
        Row("LSTZ0.75", "bulk E_a, measured, hot-pressed", "eV", (0.33, 0.33), f"{PEROVSKITES}, 2.1, cited",
            energy(*LSTZ), "measured from 25 to 140 C; ours from MD above 400 K"),
        Row("LSTZ0.75", "D at 300 K, bulk / Sigma5 tilt after MC/MD", "", (2.0, 3.0), f"{PEROVSKITES}, 2.3",
            diffusivity_ratio(LSTZ, ("lstz-sigma5-tilt-mcmd", "boundary", "across"), 300.0)),
        Row("LSTZ0.75", "D at 300 K, bulk / Sigma51 after MC/MD", "", (2.0, 3.0), f"{PEROVSKITES}, 2.3",
            diffusivity_ratio(LSTZ, ("lstz-sigma51-mcmd", "boundary", "across"), 300.0)),
    ]  # fmt: skip
    for name, campaign in (
        ("Sigma5 tilt", "lstz-sigma5-tilt"), ("Sigma5 twist", "lstz-sigma5-twist"),
        ("Sigma3 tilt", "lstz-sigma3-tilt"), ("Sigma3 twist", "lstz-sigma3-twist"),
    ):  # fmt: skip
        found.append(
            Row("LSTZ0.75", f"energy of {name}", "J/m2", (0.67, 0.74), f"{PEROVSKITES}, 2.3, range of four",
                boundary_energy(campaign, f"{campaign}-mcmd"))
        )  # fmt: skip
    for name, campaign in (
        ("Sigma5 twist", "lstz-sigma5-twist"), ("Sigma3 twist", "lstz-sigma3-twist"), ("Sigma51", "lstz-sigma51"),
    ):  # fmt: skip
        found += [
            Row("LSTZ0.75", f"Li at {name}, as built", "at%", (8.0, 8.0), f"{PEROVSKITES}, 2.3, 'around'",
                share(campaign, "Li")),
            Row("LSTZ0.75", f"Li at {name}, after MC/MD at 1573 K", "at%", (11.0, 11.0),
                f"{PEROVSKITES}, 2.3, 'over 11'", share(f"{campaign}-mcmd", "Li")),
        ]  # fmt: skip
    found.append(
        Row("LLTO", "energy of Sigma3 tilt", "J/m2", (0.30, 0.30), f"{PEROVSKITES}, 2.3, cited",
            boundary_energy("llto-sigma3-tilt"), "the cited boundary is not named")
    )  # fmt: skip
    found.append(
        Row("LLTO", "D at 300 K, bulk / Sigma5 tilt", "", (10.0, 100.0), f"{PEROVSKITES}, 2.3, cited",
            diffusivity_ratio(LLTO, ("llto-sigma5-tilt", "boundary", "across"), 300.0),
            "they: conductivity of boundaries 1 to 2 orders below the bulk")
    )  # fmt: skip
    found.append(
        Row("LLZO", "bulk E_a of Li", "eV", (0.23, 0.23), f"{GARNETS}, Li transport", energy(*LLZO))
    )  # fmt: skip
    for sigma, plain, segregated in (("17", 0.32, 0.33), ("33", 0.37, 0.35), ("19", 0.32, 0.35)):
        for campaign, value, how in (
            (f"llzo-sigma{sigma}", plain, "no segregation"),
            (f"llzo-sigma{sigma}-ta", segregated, "Ta segregated"),
        ):
            for direction in ("along", "across"):
                found.append(
                    Row("LLZO", f"E_a of Li at Sigma{sigma}, {how}, {direction}", "eV", (value, value),
                        f"{GARNETS}, Li transport", energy(campaign, "boundary", direction),
                        "they do not say along or across")
                )  # fmt: skip
    found.append(
        Row("LLZO", "bulk sigma at 300 K, 0.5 Ta", "S/cm", (7.3e-4, 7.3e-4), f"{GARNETS}, table 7 (0.4 Ta)",
            conductivity("llzo-ta0.5-bulk-own", 300.0))
    )  # fmt: skip
    for dopant, host, value in (
        ("Al", "cubic", 2.12), ("Al", "amorphous", 1.17), ("Ta", "cubic", 2.28), ("Ta", "amorphous", 2.41),
        ("La", "cubic", 12.34), ("La", "amorphous", 9.83),
    ):  # fmt: skip
        found.append(
            Row("LLZO", f"formation energy of {dopant}{' vacancy' if dopant == 'La' else ''}, {host}", "eV",
                (value, value), f"{GARNETS}, table 1", formation(dopant, host),
                "metals as reference; theirs does not state the charge compensation")
        )  # fmt: skip
    for group, what in (("bulk", "cubic, Ta"), ("bulk-al", "cubic, Al"), ("melt", "amorphous")):
        for key, unit, theirs in (
            ("energy_mae_meV_per_atom", "meV/atom", {"bulk": (5.4, 6.0), "bulk-al": (1.5, 6.1), "melt": (2.5, 3.3)}),
            ("force_rmse_eV_per_angstrom", "eV/A", {"bulk": (0.11, 0.12), "bulk-al": (0.11, 0.15),
                "melt": (0.15, 0.18)}),
        ):  # fmt: skip
            found.append(
                Row("LLZO", f"potential's error, {what}: {'energy' if 'meV' in key else 'force'}", unit, theirs[group],
                    f"{GARNETS}, validation", error_of("llzo-ta-al-level12", group, key),
                    f"ours on policy against CHGNet, theirs against DFT; {both}")
            )  # fmt: skip
    return found


HEAD = ("system", "quantity", "unit", "ours", "low", "high", "theirs", "ratio", "their source", "remark")


def compared(tables: Tables) -> list[tuple[str, ...]]:
    """The table as text, in the order of `rows`; ratio is ours over the middle (geometric) of theirs."""
    lines = []
    for row in rows():
        ours = row.ours(tables)
        if ours is None:
            numbers: tuple[str, ...] = ("not computed", "", "")
            ratio = ""
        else:
            numbers = (f"{ours.value:.3g}", f"{ours.low:.3g}", f"{ours.high:.3g}")
            low, high = row.theirs
            middle = math.sqrt(low * high) if low > 0 else math.nan
            ratio = f"{ours.value / middle:.3g}" if math.isfinite(middle) else ""
        lines.append(
            (row.system, row.quantity, row.unit, *numbers, row.theirs_text, ratio, row.source, row.remark)
        )
    return lines


def draw(tables: Tables, path: Path) -> bool:
    """Ours over theirs for all that is computed, with intervals. False where nothing is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [
        (row, ours)
        for row in rows()
        if (ours := row.ours(tables)) is not None and row.theirs[0] > 0 and ours.value > 0
    ]
    if not shown:
        return False
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(shown) + 1.2), layout="constrained")
    for k, (row, ours) in enumerate(shown):
        middle = math.sqrt(row.theirs[0] * row.theirs[1])
        axes.plot([row.theirs[0] / middle, row.theirs[1] / middle], [k, k], color="0.75", linewidth=7)
        axes.plot([max(ours.low, 1e-3 * ours.value) / middle, ours.high / middle], [k, k], color="C0")
        axes.plot([ours.value / middle], [k], "o", color="C0", markersize=4)
    axes.set_yticks(range(len(shown)), [f"{row.system}: {row.quantity}" for row, _ in shown], fontsize=7)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.axvline(1.0, color="0.3", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("ours / theirs (grey: range printed by them)")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def page(lines: list[tuple[str, ...]], picture: bytes | None) -> str:
    """One self-contained page: table first, then the figure."""
    import base64

    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
    figure = (
        ""
        if picture is None
        else f'<img alt="ours over theirs" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )
    computed = sum(line[3] != "not computed" for line in lines)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>What our atoms say, next to the papers</title>
<style>body{{font:14px/1.4 sans-serif;margin:2em auto;max-width:1200px}}table{{border-collapse:collapse}}
td,th{{padding:.2em .6em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}}img{{max-width:100%}}</style>
<h1>What our atoms say, next to the papers</h1>
<p>{computed} of {len(lines)} numbers of the papers are computed. Intervals are 95 %. Ratio: ours over theirs.</p>
<table><tr>{head}</tr>{body}</table>{figure}</html>
"""


def main(
    out: Path, own: Path = HERE / "tables" / "own", records: Path | None = None
) -> list[tuple[str, ...]]:
    """Write table, figure and page; returns the table."""
    tables = Tables(own, records)
    out.mkdir(parents=True, exist_ok=True)
    lines = compared(tables)
    with (out / "comparison.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows(lines)
    drawn = draw(tables, out / "comparison.png")
    picture = (out / "comparison.png").read_bytes() if drawn else None
    (out / "report.html").write_text(page(lines, picture), encoding="utf-8")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/atoms_next_to_papers"))
    given = parser.parse_args()
    for line in main(given.out):
        print("  ".join(cell for cell in line[:8] if cell))
    print(f"report: {given.out / 'report.html'}")
