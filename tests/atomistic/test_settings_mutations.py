"""Random mutations of valid settings files of `md`, `train` and `analyse`: read, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atomistic.active_learning import load_settings
from atomistic.analysis_settings import read_analysis_settings
from atomistic.errors import AtomisticError
from atomistic.sampling import read_settings

ROOT = Path(__file__).parents[2]
VALUES = (b"nan", b"-1", b"1e400", b'""', b"[]", b"{}", b"\n", b"\x00", b"\xff", b"9" * 30, b"[[cell]]")
ANALYSIS = b"""
mobile = "Li"
extrapolate_K = [300.0, 400.0]
rdf = [["Li", "O"]]
sites = { La = 3.0 }

[boundary]
planes = [0.0, 0.5]
width_rule = "composition"
name = "Sigma5(120)[001]"

[[segregation]]
solute = "Ta"
sites = { Zr = 1.0, Ta = 1.0 }

[rest]
swaps = [["Ta", "Zr"]]
max_sites = 12

[order]
heavy = "Sr"
"""


def mutated(text: bytes, dice: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(dice.randint(1, 4)):
        begin = dice.randrange(len(data))
        end = min(len(data), begin + dice.choice([1, 1, 1, 3, 10]))
        match dice.randrange(4):
            case 0:
                del data[begin:end]
            case 1:
                data[begin:end] = bytes(dice.randrange(256) for _ in range(end - begin))
            case 2:
                data[begin:begin] = data[begin:end] * dice.choice([1, 1, 100])
            case _:
                data[begin:end] = dice.choice(VALUES)
    return bytes(data)


@pytest.mark.parametrize(
    ("reader", "originals"),
    [
        (read_settings, [path.read_bytes() for path in sorted((ROOT / "studies/campaigns").glob("*.toml"))]),
        (load_settings, [path.read_bytes() for path in sorted((ROOT / "atomistic").rglob("*level*.toml"))]),
        (read_analysis_settings, [ANALYSIS]),
    ],
    ids=["md", "train", "analyse"],
)
def test_mutated_settings_are_read_or_refused(
    reader: Callable[[Path], Any], originals: list[bytes], tmp_path: Path
) -> None:
    dice, path = random.Random(5), tmp_path / "mutated.toml"
    refused: list[str] = []
    for original in originals[:3] + originals[-3:]:
        path.write_bytes(original)
        reader(path)
    for _ in range(600):
        path.write_bytes(mutated(dice.choice(originals), dice))
        try:
            reader(path)
        except AtomisticError as error:
            refused.append(str(error))
    assert all("mutated.toml" in message for message in refused)
    assert 300 < len(refused) < 595
