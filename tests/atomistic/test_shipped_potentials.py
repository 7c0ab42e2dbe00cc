"""Shipped potentials: cards belong to them, and what the cards say about errors is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomistic.errors import FileFormatError
from atomistic.labels import read_frames
from atomistic.mtp.accuracy import accuracy_by_group, predict
from atomistic.mtp.model_card import list_potentials, load_card, load_potential, shipped_folder
from atomistic.mtp.training import largest_coefficients

NAMES = list_potentials()


@pytest.mark.parametrize("name", NAMES)
def test_card_and_numbers_belong_together(name: str) -> None:
    potential, card = load_potential(name), load_card(shipped_folder() / f"{name}.mtp")
    assert card.checksum == potential.checksum
    assert card.species == potential.species
    largest = largest_coefficients(potential)
    np.testing.assert_allclose(card.largest_radial_coefficient, max(largest.values()), rtol=1e-12, atol=0)
    assert max(largest.values()) < 20.0
    for pair in card.validity.excluded_pairs:
        assert largest[pair] == 0.0
    assert (shipped_folder() / f"{name}.md").read_text(encoding="utf-8") == card.text()


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_the_card_are_found_again(name: str) -> None:
    """From the labels in the repository, all groups of both sets together."""
    labels = shipped_folder() / "data" / f"{name.rpartition('-level')[0]}.labels.xyz.gz"
    if not labels.exists():
        pytest.skip("the labels are in the repository only")
    card = load_card(shipped_folder() / f"{name}.mtp")
    frames = read_frames(labels, labelled=True)[: card.frames]
    assert len(frames) == card.frames
    found = accuracy_by_group(predict(load_potential(name), frames))
    for group in found:
        parts = [card.errors[k][group] for k in ("training", "held out") if group in card.errors.get(k, {})]
        count = sum(part.frames for part in parts)
        assert count == found[group].frames
        mean = sum(part.frames * part.energy_mae_meV_per_atom for part in parts) / count
        np.testing.assert_allclose(found[group].energy_mae, mean, rtol=1e-6, atol=0)


def test_unknown_names_are_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="shipped are"):
        load_potential("no-such-potential")
    with pytest.raises(FileFormatError, match="shipped are"):
        load_potential(tmp_path / "absent.mtp")
