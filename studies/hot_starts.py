"""Twenty harsh starts of the LLZO potential: 100 ps each, velocities drawn at 1.8 times the temperature of the run.

    python studies/hot_starts.py --out runs/hot_starts

Ta-rich and Al-doped bulk, two boundaries with Ta, and glass, four seeds of each, started unrelaxed (the glass was
quenched by `studies/amorphous_llzo.py`). OUT/starts.json holds the outcomes, and the same command continues a killed
study; `studies/tables/hot_starts.csv` is its table.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
from ase import Atoms

from atomistic.boundaries import build
from atomistic.building import crystal_of
from atomistic.campaign import SHIPPED
from atomistic.cells import llzo
from atomistic.labels import read_frames
from atomistic.mtp.potential import read_mtp
from atomistic.sampling import CellSettings
from atomistic.stability import HotStart, hot_starts

HERE = Path(__file__).parent


def bulk(seed: int, **contents: float) -> Atoms:
    return llzo(**contents, rng=np.random.default_rng(seed))


def boundary(seed: int, name: str, **contents: float) -> Atoms:
    settings = CellSettings(
        kind="boundary", host="llzo", boundary=name, contents={"lattice_constant": 12.94, **contents}
    )
    return build(crystal_of(settings), name, rng=np.random.default_rng(seed))


def glass(seed: int) -> Atoms:
    cell = read_frames(HERE / "campaigns" / "cells" / f"llzo-amorphous-{1 + seed % 2}.extxyz")[-1]
    cell.set_momenta(np.zeros((len(cell), 3)))
    return cell


SYSTEMS = {
    "bulk, 1.0 Ta": lambda seed: bulk(seed, ta=1.0),
    "bulk, 0.5 Al": lambda seed: bulk(seed, al=0.5),
    "Sigma3(1-21)[111], 0.5 Ta": lambda seed: boundary(seed, "Sigma3(1-21)[111]", ta=0.5),
    "Sigma5(013)[100], 0.5 Ta": lambda seed: boundary(seed, "Sigma5[100](013)", ta=0.5),
    "glass": glass,
}


def main(
    out: Path, potential: str, *, temperature: float, starts: int, time_ps: float, table: Path | None
) -> list[HotStart]:
    """Run what is left, and write the table."""
    found = hot_starts(
        read_mtp(SHIPPED / f"{potential}.mtp"),
        SYSTEMS,
        out,
        temperature=temperature,
        starts=starts,
        time_ps=time_ps,
        say=print,
    )
    rows = [{"potential": potential, **asdict(start)} for start in found]
    if table is not None:
        with table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(dict(Counter(start.ended for start in found)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/hot_starts"))
    parser.add_argument("--potential", default="llzo-ta-al-level12")
    parser.add_argument("--temperature", type=float, default=1500.0, help="K, of the run")
    parser.add_argument("--starts", type=int, default=4, help="of each system")
    parser.add_argument("--time-ps", type=float, default=100.0)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    main(
        given.out,
        given.potential,
        temperature=given.temperature,
        starts=given.starts,
        time_ps=given.time_ps,
        table=given.table,
    )
