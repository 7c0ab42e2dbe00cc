"""Formation energies: the reactions balance, and the study on a coarse setting with the potential's own energies."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose

from atomistic.cells import llzo


@pytest.fixture(scope="module")
def study() -> ModuleType:
    path = Path(__file__).parents[2] / "studies" / "formation_energies.py"
    spec = importlib.util.spec_from_file_location("formation_energies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["formation_energies"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dopant", ["Al", "Ta", "La"])
def test_a_defect_changes_the_cell_by_what_its_reaction_says(study: ModuleType, dopant: str) -> None:
    host = llzo(rng=np.random.default_rng(1))
    changed = study.substituted(host, dopant, np.random.default_rng(2))
    before, after = Counter(host.get_chemical_symbols()), Counter(changed.get_chemical_symbols())
    assert {s: after[s] - before[s] for s in before | after if after[s] != before[s]} == study.EXCHANGED[
        dopant
    ]


@pytest.mark.parametrize("dopant", ["Al", "Ta", "La"])
def test_atoms_that_cost_what_their_metals_cost_form_defects_for_nothing(
    study: ModuleType, dopant: str
) -> None:
    """With E = Σ μ_s n_s, and with any energy added to the doped cell, which must come back."""
    metals = {"Li": -1.9, "Al": -3.7, "La": -4.9, "Zr": -8.5, "Ta": -11.8}
    host = Counter(Li=56, La=24, Zr=16)
    doped = host.copy()
    doped.update(study.EXCHANGED[dopant])
    sums = [sum(metals[s] * n for s, n in cell.items()) for cell in (host, doped)]
    assert_allclose(study.formation_energy(dopant, sums[1] + 2.28, sums[0], metals), 2.28, rtol=1e-12)


@pytest.mark.slow
def test_the_coarse_study_gives_intervals_for_every_defect_and_host(
    study: ModuleType, tmp_path: Path
) -> None:
    asked = {
        "structures": {"Al": 2, "La": 2},
        "anneal_ps": 0.2,
        "energies": "potential",
        "hosts": 1,
        "show": False,
    }
    rows = study.main(tmp_path, **asked)
    assert [(r["dopant"], r["host"]) for r in rows] == [
        (d, h) for d in ("Al", "La") for h in ("cubic", "amorphous")
    ]
    for row in rows:
        assert float(row["low_eV"]) < float(row["energy_eV"]) < float(row["high_eV"])
    # Taking an atom out of an oxide costs tens of eV where the metal counts nothing.
    assert all(float(row["energy_eV"]) > 10.0 for row in rows if row["dopant"] == "La")
    assert study.main(tmp_path, **asked) == rows
