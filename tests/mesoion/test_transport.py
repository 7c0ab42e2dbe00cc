"""Transport records: laws and their intervals, files in and out."""

import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError

from mesoion import transport
from mesoion.errors import InputError, MesoionError
from mesoion.transport import (
    BoundaryCharacter,
    ConductivityArrhenius,
    DiffusivityArrhenius,
    EnergyBarrier,
    PositiveQuantity,
    Quantity,
    Source,
    TemperatureRange,
    TransportRecord,
    crossover_temperatures,
    dump_record,
    list_records,
    load_record,
    nernst_einstein,
    parse_record,
    save_record,
)
from mesoion.units import BOLTZMANN, BOLTZMANN_EV, ELEMENTARY_CHARGE

SOURCE = Source(kind="assumption", text="made up for a test")


def positive(value, factor=1.2):
    return PositiveQuantity(value=value, uncertainty_factor=factor, source=SOURCE)


def barrier(value, uncertainty=0.02):
    return EnergyBarrier(value=value, standard_uncertainty=uncertainty, source=SOURCE)


def diffusivity_law(d0=3.72e-8, energy=0.28, **more):
    return DiffusivityArrhenius(
        law="diffusivity", D0_m2_per_s=positive(d0, 1.5), activation_energy_eV=barrier(energy), **more
    )


def conductivity_law(sigma=0.035, energy=0.33, form="sigma T", reference=298.15, **more):
    return ConductivityArrhenius(
        law="conductivity",
        form=form,
        conductivity_S_per_m=positive(sigma),
        reference_temperature_K=reference,
        activation_energy_eV=barrier(energy),
        **more,
    )


def two_regimes():
    return {
        "break_temperature_K": positive(600.0, 1.1),
        "high_temperature_activation_energy_eV": barrier(0.2),
    }


def bulk_record(law=None, **changes):
    fields = {
        "schema_version": 1,
        "name": "test-bulk",
        "material": "X",
        "formula": "LiX",
        "region": "bulk",
        "origin": "literature",
        "source": SOURCE,
        "temperature_range_K": TemperatureRange(low=300.0, high=1000.0),
        "transport_parallel": law or diffusivity_law(),
        "haven_ratio": positive(0.5),
        "carrier_density_per_m3": positive(2.4e28),
        "site_density_per_m3": positive(4.8e28, 1.05),
        "relative_permittivity": positive(50.0),
    }
    return TransportRecord(**(fields | changes))


def boundary_record(**changes):
    fields = {
        "name": "test-boundary",
        "region": "boundary",
        "relative_permittivity": None,
        "boundary": BoundaryCharacter(kind="tilt", label="Sigma5", sigma=5, axis=(1, 0, 0), plane=(0, 1, -2)),
        "boundary_width_m": positive(1e-9),
    }
    return bulk_record(**(fields | changes))


# --- laws ------------------------------------------------------------------------------------------------------


def test_diffusivity_is_d0_times_the_boltzmann_factor():
    expected = 3.72e-8 * math.exp(-0.28 / (BOLTZMANN_EV * 450.0))
    assert_allclose(diffusivity_law().value(450.0), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("form", "power"), [("sigma", 0), ("sigma T", 1)])
def test_anchored_conductivity_passes_its_anchor_with_its_slope(form, power):
    law = conductivity_law(form=form)
    assert_allclose(law.value(298.15), 0.035, rtol=1e-14, atol=0)
    temperatures = np.array([350.0, 351.0])
    slope = np.diff(np.log(law.value(temperatures) * temperatures**power)) / np.diff(1 / temperatures)
    assert_allclose(slope, -0.33 / BOLTZMANN_EV, rtol=1e-9, atol=0)


@pytest.mark.parametrize("law", [diffusivity_law(**two_regimes()), conductivity_law(**two_regimes())])
def test_two_regimes_are_continuous_and_change_slope_at_the_break(law):
    below, above = law.log_value(np.array([600 * (1 - 1e-12), 600 * (1 + 1e-12)]))
    assert_allclose(above - below, 0, atol=1e-9)
    power = 1 if law.law == "conductivity" else 0
    for pair, energy in (((590.0, 595.0), law.activation_energy_eV.value), ((605.0, 610.0), 0.2)):
        t = np.array(pair)
        slope = np.diff(law.log_value(t) + power * np.log(t)) / np.diff(1 / t)
        assert_allclose(slope, -energy / BOLTZMANN_EV, rtol=1e-9, atol=0)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.95])
@pytest.mark.parametrize("temperature", [300.0, 900.0])
@pytest.mark.parametrize("make", [diffusivity_law, conductivity_law])
def test_linear_propagation_agrees_with_sampling(make, temperature, correlation):
    law = make(correlation=correlation, **two_regimes())
    rng = np.random.default_rng(7)
    draws = np.array([float(law.sample(rng).log_value(temperature)) for _ in range(8000)])
    spread = float(law.log_standard_uncertainty(temperature))
    # 8000 draws give the spread to 0.8 %; the break adds a little curvature
    assert_allclose(draws.std(), spread, rtol=0.04, atol=0)
    assert_allclose(draws.mean(), law.log_value(temperature), rtol=0, atol=0.05 * spread)


def test_record_interval_agrees_with_sampling_and_holds_95_percent():
    record = bulk_record()
    prediction = record.conductivity(500.0)
    draws = record.sample_conductivity(500.0, np.random.default_rng(3), 6000)
    inside = np.mean((draws > prediction.low) & (draws < prediction.high))
    assert 0.94 < inside < 0.96
    assert_allclose(np.log(draws).std(), prediction.log_standard_uncertainty, rtol=0.04, atol=0)


def test_nernst_einstein_and_its_inverse():
    record = bulk_record()
    diffusivity = record.diffusivity(400.0).value
    expected = ELEMENTARY_CHARGE**2 * 2.4e28 * diffusivity / (0.5 * BOLTZMANN * 400.0)
    assert_allclose(record.conductivity(400.0).value, expected, rtol=1e-12, atol=0)
    assert_allclose(nernst_einstein(diffusivity, 2.4e28, 400.0, 0.5), expected, rtol=1e-12, atol=0)
    doubly = nernst_einstein(1.0, 1.0, 300.0, charge_number=2) / nernst_einstein(1.0, 1.0, 300.0)
    assert_allclose(doubly, 4, rtol=1e-14, atol=0)
    anchored = bulk_record(conductivity_law())
    back = nernst_einstein(anchored.diffusivity(400.0).value, 2.4e28, 400.0, 0.5)
    assert_allclose(back, anchored.conductivity(400.0).value, rtol=1e-12, atol=0)


def test_uncertainty_of_carriers_and_haven_ratio_enters_only_where_they_are_used():
    record = bulk_record()
    law = float(record.transport_parallel.log_standard_uncertainty(400.0))
    assert_allclose(record.diffusivity(400.0).log_standard_uncertainty, law, rtol=1e-12, atol=0)
    expected = math.hypot(law, math.log(1.2), math.log(1.2))
    assert_allclose(record.conductivity(400.0).log_standard_uncertainty, expected, rtol=1e-12, atol=0)


def test_crossover_of_the_mesoscale_study_is_273_kelvin():
    bulk, boundary = (load_record(f"llzo-mesoscale-{r}").law() for r in ("bulk", "boundary"))
    (crossing,) = crossover_temperatures(boundary, bulk)
    exact = (0.52 - 0.28) / (BOLTZMANN_EV * math.log(1.00e1 / 3.72e-4))
    assert_allclose(crossing, exact, rtol=1e-12, atol=0)
    assert round(crossing) == 273
    assert_allclose(boundary.value(crossing), bulk.value(crossing), rtol=1e-12, atol=0)
    assert boundary.value(crossing - 10) < bulk.value(crossing - 10)


@given(
    st.floats(1e-10, 1e-2), st.floats(0.05, 1.0), st.floats(1e-10, 1e-2), st.floats(0.05, 1.0), st.booleans()
)
def test_laws_are_equal_at_every_crossover(d1, e1, d2, e2, broken):
    first = diffusivity_law(d1, e1, **(two_regimes() if broken else {}))
    second = diffusivity_law(d2, e2)
    for crossing in crossover_temperatures(first, second):
        if 1 < crossing < 1e5:
            assert_allclose(first.log_value(crossing), second.log_value(crossing), rtol=1e-9, atol=1e-9)


def test_crossovers_of_anchored_laws_with_different_anchors():
    first, second = conductivity_law(0.035, 0.33), conductivity_law(0.2, 0.2, reference=400.0)
    (crossing,) = crossover_temperatures(first, second)
    assert_allclose(first.value(crossing), second.value(crossing), rtol=1e-12, atol=0)


def test_two_regimes_can_cross_twice_and_other_kinds_not_at_all():
    bent, straight = diffusivity_law(1e-7, 0.4, **two_regimes()), diffusivity_law(5e-9, 0.28)
    assert len(crossover_temperatures(bent, straight)) == 2
    assert crossover_temperatures(straight, straight) == ()
    with pytest.raises(InputError, match="same kind and form"):
        crossover_temperatures(straight, conductivity_law())


@pytest.mark.parametrize("temperature", [0.0, -5.0, math.nan, math.inf, "warm"])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(InputError, match="temperature"):
        diffusivity_law().value(temperature)


# --- records ---------------------------------------------------------------------------------------------------


def test_extrapolation_is_carried_and_not_printed(recwarn):
    record = bulk_record()
    assert not record.conductivity(300.0).extrapolated
    assert record.conductivity(300.0).warnings == ()
    prediction = record.conductivity(250.0)
    assert prediction.extrapolated
    assert prediction.warnings == ("test-bulk is extrapolated to 250 K from 300 to 1000 K",)
    assert len(recwarn) == 0


def test_directions():
    record = boundary_record(transport_perpendicular=diffusivity_law(1e-9))
    ratio = record.diffusivity(500.0, "along").value / record.diffusivity(500.0, "across").value
    assert_allclose(ratio, 37.2, rtol=1e-12, atol=0)
    isotropic = boundary_record()
    assert isotropic.law("along") is isotropic.law("across")


def test_sampling_draws_every_number_and_keeps_the_correlation():
    record = bulk_record(diffusivity_law(correlation=0.95))
    rng = np.random.default_rng(1)
    draws = [record.sample(rng) for _ in range(4000)]
    log_d0 = np.log([d.transport_parallel.D0_m2_per_s.value for d in draws])
    energy = np.array([d.transport_parallel.activation_energy_eV.value for d in draws])
    assert_allclose(np.corrcoef(log_d0, energy)[0, 1], 0.95, rtol=0, atol=0.01)
    assert_allclose(log_d0.std(), math.log(1.5), rtol=0.04, atol=0)
    assert_allclose(energy.std(), 0.02, rtol=0.04, atol=0)
    for name in ("haven_ratio", "carrier_density_per_m3", "relative_permittivity"):
        values = np.array([getattr(d, name).value for d in draws])
        assert_allclose(np.log(values).std(), math.log(1.2), rtol=0.04, atol=0)
        assert_allclose(np.log(values).mean(), math.log(getattr(record, name).value), rtol=0, atol=0.01)
    assert all(0 < d.occupancy < 1 for d in draws)


def test_occupancy_of_every_draw_stays_below_one():
    crowded = bulk_record(carrier_density_per_m3=positive(4.7e28, 1.3))
    rng = np.random.default_rng(2)
    assert all(crowded.sample(rng).occupancy < 1 for _ in range(500))


def test_same_seed_same_draw():
    record = load_record("lstz075-boundary")
    assert record.sample(np.random.default_rng(5)) == record.sample(np.random.default_rng(5))
    assert record.sample(np.random.default_rng(5)) != record.sample(np.random.default_rng(6))


@pytest.mark.parametrize(
    ("make", "changes", "reason"),
    [
        (bulk_record, {"carrier_density_per_m3": positive(5e28)}, "smaller than site_density_per_m3"),
        (bulk_record, {"relative_permittivity": None}, "decides the space charge"),
        (bulk_record, {"boundary_width_m": positive(1e-9)}, "a bulk record has no boundary_width_m"),
        (boundary_record, {"boundary_width_m": None}, "needs boundary and boundary_width_m"),
        (bulk_record, {"origin": "own"}, "potential_sha256"),
        (bulk_record, {"origin": "own", "potential_sha256": "abc"}, "pattern"),
        (bulk_record, {"name": "../x"}, "pattern"),
        (bulk_record, {"schema_version": 2}, "Input should be 1"),
        (bulk_record, {"colour": "red"}, "Extra inputs"),
        (bulk_record, {"haven_ratio": 0.5}, "valid dictionary|instance"),
        (
            bulk_record,
            {
                "composition_atomic_percent": {
                    "Li": Quantity(value=101, standard_uncertainty=1, source=SOURCE)
                }
            },
            "between 0 and 100 atomic percent",
        ),
    ],
)
def test_inconsistent_records_are_refused(make, changes, reason):
    with pytest.raises(ValidationError, match=reason):
        make(**changes)


@pytest.mark.parametrize(
    ("spread", "reason"),
    [
        ({}, "either"),
        ({"standard_uncertainty": 0.1, "uncertainty_factor": 2.0}, "either"),
        ({"standard_uncertainty": 3.0}, "give an uncertainty_factor"),
        ({"uncertainty_factor": 0.5}, "greater than or equal to 1"),
        ({"standard_uncertainty": math.nan}, "finite|greater"),
        ({"standard_uncertainty": "0.1"}, "valid number"),
    ],
)
def test_one_spread_of_a_positive_quantity(spread, reason):
    with pytest.raises(ValidationError, match=reason):
        PositiveQuantity(value=1.0, source=SOURCE, **spread)


def test_half_a_second_regime_and_a_break_below_the_anchor_are_refused():
    with pytest.raises(ValidationError, match="needs both"):
        diffusivity_law(break_temperature_K=positive(600.0))
    with pytest.raises(ValidationError, match="above reference_temperature_K"):
        conductivity_law(reference=700.0, **two_regimes())


def test_records_are_locked():
    with pytest.raises(ValidationError, match="frozen"):
        bulk_record().name = "other"


# --- files -----------------------------------------------------------------------------------------------------

finite = st.floats(1e-50, 1e50)
text = st.text(min_size=1, max_size=30)
sources = st.builds(
    Source,
    kind=st.sampled_from(["measured", "computed", "literature", "assumption"]),
    text=text,
    doi=st.one_of(st.none(), st.just("10.1038/s41467-023-37115-6")),
)
positives = st.one_of(
    st.builds(PositiveQuantity, value=finite, uncertainty_factor=st.floats(1, 1e6), source=sources),
    st.builds(
        lambda value, relative, source: PositiveQuantity(
            value=value, standard_uncertainty=relative * value, source=source
        ),
        finite,
        st.floats(0, 1),
        sources,
    ),
)
barriers = st.builds(
    EnergyBarrier, value=st.floats(0, 10), standard_uncertainty=st.floats(0, 5), source=sources
)
quantities = st.builds(
    Quantity, value=st.floats(-1e40, 1e40), standard_uncertainty=st.floats(0, 1e40), source=sources
)
regimes = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "break_temperature_K": st.builds(
                PositiveQuantity,
                value=st.floats(2001, 5000),
                uncertainty_factor=st.floats(1, 2),
                source=sources,
            ),
            "high_temperature_activation_energy_eV": barriers,
        }
    ),
)
laws = st.one_of(
    st.builds(
        lambda second, **fields: DiffusivityArrhenius(law="diffusivity", **fields, **second),
        regimes,
        D0_m2_per_s=positives,
        activation_energy_eV=barriers,
        correlation=st.floats(-1, 1),
    ),
    st.builds(
        lambda second, **fields: ConductivityArrhenius(law="conductivity", **fields, **second),
        regimes,
        form=st.sampled_from(["sigma", "sigma T"]),
        conductivity_S_per_m=positives,
        reference_temperature_K=st.floats(1, 2000),
        activation_energy_eV=barriers,
        correlation=st.floats(-1, 1),
    ),
)
any_records = st.builds(
    boundary_record,
    material=text,
    formula=text,
    source=sources,
    transport_parallel=laws,
    transport_perpendicular=st.one_of(st.none(), laws),
    haven_ratio=positives,
    segregation_energy_eV=st.one_of(st.none(), quantities),
    core_charge_e_per_m2=st.one_of(st.none(), quantities),
    boundary_width_m=positives,
    notes=st.lists(text, max_size=3).map(tuple),
)


@given(any_records)
@settings(max_examples=150, deadline=None)
def test_json_round_trip_is_exact(record):
    assert parse_record(dump_record(record)) == record


@pytest.mark.parametrize("name", list_records())
def test_shipped_records_round_trip(name, tmp_path):
    record = load_record(name)
    assert record.name == name
    path = save_record(record, tmp_path)
    assert path == tmp_path / f"{name}.json"
    assert load_record(path) == load_record(str(path)) == record
    assert path.read_text(encoding="utf-8") == (transport.RECORDS_FOLDER / path.name).read_text(
        encoding="utf-8"
    )
    assert list(tmp_path.iterdir()) == [path]


def changed(record, path, value):
    data = json.loads(dump_record(record))
    *parents, last = path
    node = data
    for key in parents:
        node = node[key]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "where", "reason"),
    [
        (("schema_version",), 2, "schema_version: 2", "reads up to 1; update mesoion"),
        (("schema_version",), KeyError, "schema_version: None", "an integer from 1 to 1"),
        (("schema_version",), True, "schema_version: True", "an integer from 1"),
        (("haven_ratio", "value"), "1", "haven_ratio.value: '1'", "valid number"),
        (("haven_ratio", "value"), -1.0, "haven_ratio.value: -1.0", "greater than or equal"),
        (
            ("haven_ratio", "spread"),
            1.0,
            "haven_ratio.spread: 1.0",
            "allowed are source, standard_uncertainty",
        ),
        (("collor",), "red", "collor: 'red'", "the key is unknown; allowed are boundary, "),
        (
            ("transport_parallel", "D0_m2_per_s", "value"),
            None,
            "transport_parallel.D0_m2_per_s.value: None",
            "valid number",
        ),
        (
            ("transport_parallel", "D0"),
            1.0,
            "transport_parallel.D0: 1.0",
            "allowed are D0_m2_per_s, activation",
        ),
        (
            ("transport_parallel", "law"),
            "hopping",
            "transport_parallel: 'this entry'",
            "'diffusivity', 'conductivity'",
        ),
        (("boundary_width_m",), KeyError, "x.json: 'this entry'", "needs boundary and boundary_width_m"),
        (("boundary", "plane"), [1, 0], "boundary.plane[2]", "Field required"),
    ],
)
def test_messages_name_file_key_value_and_remedy(path, value, where, reason):
    with pytest.raises(InputError) as caught:
        parse_record(changed(boundary_record(), path, value), "x.json")
    message = str(caught.value)
    assert message.startswith("x.json")
    assert where in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "as JSON"),
        ("{", "as JSON"),
        ("[1]", "as a JSON object"),
        ('{"schema_version": 1, "schema_version": 1}', "stands there twice"),
        ("[" * 100_000, "nested this deep"),
        ('{"schema_version": ' + "1" * 5000 + "}", "as JSON"),
    ],
)
def test_texts_that_are_no_record(text, reason):
    with pytest.raises(InputError, match=reason):
        parse_record(text)


def test_nan_is_refused():
    with pytest.raises(InputError, match="haven_ratio"):
        parse_record(changed(bulk_record(), ("haven_ratio", "value"), math.nan))


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(InputError, match="llzo-bulk"):
        load_record("llzo-bulc")
    with pytest.raises(InputError, match="no-such"):
        load_record(tmp_path / "no-such.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_record(tmp_path / "binary.json")
    with pytest.raises(InputError, match="readable file"):
        load_record(tmp_path)
    with pytest.raises(InputError, match="readable file"):
        load_record("nul\0byte.json")
    (tmp_path / "large.json").write_bytes(b" " * 10_000_001)
    with pytest.raises(InputError, match="far smaller"):
        load_record(tmp_path / "large.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_record(bulk_record(), tmp_path)
    before = path.read_text()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MesoionError, match=r"No space left.*intact"):
        save_record(bulk_record(material="other"), path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(MesoionError, match="writable folder"):
        save_record(bulk_record(), tmp_path / "absent" / "x.json")


def test_a_save_replaces_the_whole_file_at_once(tmp_path, monkeypatch):
    path = save_record(bulk_record(), tmp_path)
    before, replace, seen = path.read_text(), os.replace, []

    def watched(scratch, target):
        seen.append((path.read_text(), Path(scratch).read_text()))
        replace(scratch, target)

    monkeypatch.setattr(os, "replace", watched)
    other = bulk_record(material="other")
    save_record(other, path)
    assert seen == [(before, dump_record(other))]
    assert load_record(path) == other


def paths_in(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from paths_in(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield (*path, index)
            yield from paths_in(value, (*path, index))


ODD_VALUES = [
    None, True, False, 0, -1, 1e308, -1e308, 1e-320, 10**30, math.nan, math.inf, "", "x", "1e-9", "\u0000", "𝜎",
    [], [1], [[]], {}, {"value": 1}, {"": None}, "diffusivity", "conductivity", "boundary", "bulk", "own",
]  # fmt: skip


def mutated(text, dice):
    if dice.random() < 0.5:
        data = json.loads(text)
        for _ in range(dice.randint(1, 3)):
            *parents, last = dice.choice(list(paths_in(data)))
            node = data
            for key in parents:
                node = node[key]
            action = dice.randrange(3)
            if action == 0:
                node[last] = dice.choice(ODD_VALUES)
            elif action == 1:
                del node[last]
            elif isinstance(node, dict):
                node[f"{last}{dice.choice(['s', '_K', ''])}"] = node.pop(last)
            else:
                node.append(dice.choice(ODD_VALUES))
            if not data:
                break
        return json.dumps(data).encode()
    raw = bytearray(text.encode())
    for _ in range(dice.randint(1, 4)):
        place, action = dice.randrange(len(raw)), dice.randrange(4)
        if action == 0:
            del raw[place : place + dice.randint(1, 40)]
        elif action == 1:
            raw[place] = dice.randrange(256)
        elif action == 2:
            raw[place:place] = dice.choice([b"{", b"]", b'"', b"-", b"e999", b"\\ud800", b"9" * 400, b"\x00"])
        else:
            raw[place:place] = raw[place : place + 60]
        if not raw:
            break
    return bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_refused_by_name_or_are_valid_records(seed, tmp_path):
    dice, path = random.Random(seed), tmp_path / "mutated.json"
    originals = [dump_record(load_record(name)) for name in list_records()] + [dump_record(boundary_record())]
    messages, valid = [], 0
    for _ in range(500):
        path.write_bytes(mutated(dice.choice(originals), dice))
        try:
            record = load_record(path)
        except InputError as error:
            messages.append(str(error))
        else:
            valid += 1
            assert parse_record(dump_record(record)) == record
            assert record.conductivity(300.0).low >= 0
            record.sample(np.random.default_rng(seed))
    assert len(messages) > 200
    assert valid > 10
    for message in messages:
        assert message.startswith(str(path))
        assert "; " in message
        assert len(message) < 1000
