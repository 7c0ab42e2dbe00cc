"""Figures: every function returns its axes, draws the numbers it is given, and labels them."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion import plots
from mesoion.errors import InputError
from mesoion.mesh import tensor_mesh
from mesoion.runfolder import Comparison

mpl.use("Agg")
FREQUENCY = np.logspace(6, 0, 61)
IMPEDANCE = 100 + 2000 / (1 + 2j * np.pi * FREQUENCY * 2000 * 1e-7)


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    figure, ax = plots.new_figure()
    yield ax
    figure.canvas.draw()
    plt.close(figure)


def test_nyquist_has_equal_axes_and_labelled_decades(ax):
    assert (
        plots.nyquist(ax, {"model": (FREQUENCY, IMPEDANCE)}, measured={"data": (FREQUENCY, IMPEDANCE)}) is ax
    )
    assert ax.get_aspect() == 1.0
    assert ax.get_xlabel() == "Z' / kΩ"
    line = next(x for x in ax.lines if x.get_label() == "model")
    assert_allclose(line.get_xdata(), IMPEDANCE.real / 1e3, rtol=1e-14, atol=0)
    assert_allclose(line.get_ydata(), -IMPEDANCE.imag / 1e3, rtol=1e-14, atol=0)
    labels = {text.get_text() for text in ax.texts}
    assert "1 kHz" in labels
    assert labels <= {f"{v} {p}Hz" for v in (1, 10, 100) for p in ("", "k", "M")}


def test_nyquist_shows_all_of_an_arc_and_cuts_an_inductive_tail(ax):
    z = IMPEDANCE + 2j * np.pi * FREQUENCY * 1e-3
    plots.nyquist(ax, {"model": (FREQUENCY, z)})
    low, high = ax.get_ylim()
    assert high >= (-z.imag).max() / 1e3
    assert -z.imag.max() / 1e3 < -6 < -0.2 < low
    assert ax.get_xlim()[1] >= z.real.max() / 1e3


def test_nyquist_cuts_a_blocking_tail(ax):
    z = IMPEDANCE + 1 / (2j * np.pi * FREQUENCY * 1e-7)
    plots.nyquist(ax, {"model": (FREQUENCY, z)})
    assert -z.imag.min() > 1e6
    assert 1.0 < ax.get_ylim()[1] < 1.1 * z.real.max() / 1e3


def test_nyquist_without_spectra_is_refused(ax):
    with pytest.raises(InputError, match="at least one"):
        plots.nyquist(ax, {})


def test_bode_draws_magnitude_and_phase(ax):
    plots.bode(ax, {"a": (FREQUENCY, IMPEDANCE)})
    phase = ax.figure.axes[1]
    assert_allclose(ax.lines[0].get_ydata(), np.abs(IMPEDANCE), rtol=1e-14, atol=0)
    assert_allclose(phase.lines[0].get_ydata(), -np.degrees(np.angle(IMPEDANCE)), rtol=1e-12, atol=0)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert phase.get_ylim()[0] > -10


def test_bode_makes_room_for_a_negative_phase(ax):
    plots.bode(ax, {"a": (FREQUENCY, np.conj(IMPEDANCE))})
    assert ax.figure.axes[1].get_ylim()[0] == -95


def test_arrhenius_axes_bands_and_temperatures(ax):
    t = np.array([250.0, 300.0, 500.0])
    value = 1e3 * np.exp(-4000 / t)
    series = {"bulk": {"temperature": t, "value": value, "low": 0.5 * value, "high": 2 * value}}
    measured = {"data": {"temperature": [298.15], "value": [0.1], "low": [0.05], "high": [0.2]}}
    plots.arrhenius(ax, series, measured=measured, times_temperature=True)
    assert_allclose(ax.lines[0].get_xdata(), 1000 / t, rtol=1e-14, atol=0)
    assert_allclose(ax.lines[0].get_ydata(), 0.01 * value * t, rtol=1e-14, atol=0)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert_allclose(
        [band.min(), band.max()], [0.005 * value[0] * 250, 0.02 * value[-1] * 500], rtol=1e-12, atol=0
    )
    ax.figure.canvas.draw()
    top = ax.child_axes[0]
    labels = [tick.get_text() for tick in top.get_xticklabels()]
    assert "25" in labels
    ticks = dict(zip(labels, top.get_xticks(), strict=True))
    assert_allclose(ticks["25"], 1000 / 298.15, rtol=1e-14, atol=0)


def test_one_temperature_is_a_point(ax):
    plots.arrhenius(ax, {"a": {"temperature": [300.0], "value": [2.0], "low": [1.0], "high": [3.0]}})
    (points,) = ax.containers
    assert points.lines[0].get_marker() == "o"
    assert_allclose(points.lines[0].get_ydata(), [0.02], rtol=1e-14, atol=0)


def test_arrhenius_refuses_what_has_no_reciprocal(ax):
    with pytest.raises(InputError, match="above 0 K"):
        plots.arrhenius(ax, {"a": {"temperature": [0.0], "value": [1.0]}})
    with pytest.raises(InputError, match="at least one"):
        plots.arrhenius(ax, {})


def comparison(predicted, measured, unit="S/cm", low=None):
    low = predicted / 2 if low is None else low
    return Comparison("LLTO", "total", unit, predicted, low, predicted * 2, measured, "doi")


def test_parity_draws_each_interval_and_its_ratio(ax):
    plots.parity(ax, [comparison(8e-4, 1e-3), comparison(0.42, 1e-3)])
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["LLTO: total"] * 2
    texts = {text.get_text() for text in ax.texts}
    assert {"0.80×", "420×"} <= texts
    bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 3.0]
    assert_allclose(bars, [[4e-4, 1.6e-3], [0.21, 0.84]], rtol=1e-14, atol=0)


def test_parity_puts_predictions_from_several_records_on_one_line(ax):
    own, published = (
        Comparison("LLTO", "total", "S/cm", value, value / 2, value * 2, 1e-3, "doi", label)
        for value, label in ((8e-4, "own records"), (0.42, "published records"))
    )
    plots.parity(ax, [own, published, replace(own, material="LSTZ")])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["LLTO: total", "LSTZ: total"]
    assert {"0.80×, 420×", "0.80×"} <= {text.get_text() for text in ax.texts}
    bars = {tuple(line.get_xdata()): line for line in ax.lines if line.get_linewidth() == 3.0}
    ours, theirs = bars[4e-4, 1.6e-3], bars[0.21, 0.84]
    assert ours.get_color() != theirs.get_color()
    assert theirs.get_ydata()[0] < 1.0
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "predicted from own records, 95 %",
        "predicted from published records, 95 %",
        "measured",
    ]


def test_arrhenius_draws_the_other_records_dashed_in_the_same_colour(ax):
    line = {"temperature": [400.0, 300.0], "value": [2.0, 1.0]}
    other = {"temperature": [300.0, 400.0], "value": [3.0, 6.0]}
    plots.arrhenius(ax, {"bulk": line, "total": line}, beside={"total": other})
    dashed, _, total = ax.lines
    assert dashed.get_linestyle() == "--"
    assert dashed.get_color() == total.get_color()
    assert_allclose(dashed.get_ydata(), [0.03, 0.06], rtol=1e-14, atol=0)
    with pytest.raises(InputError, match="one of the series: bulk"):
        plots.arrhenius(ax, {"bulk": line}, beside={"totals": other})


def test_parity_is_linear_where_an_interval_crosses_zero_and_refuses_two_units(ax):
    plots.parity(ax, [comparison(1.0, 2.0, low=-1.0)])
    assert ax.get_xscale() == "linear"
    with pytest.raises(InputError, match="one unit"):
        plots.parity(ax, [comparison(1.0, 2.0), comparison(1.0, 2.0, unit="eV")])
    with pytest.raises(InputError, match="at least one"):
        plots.parity(ax, [])


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.886, "0.89"), (13.2, "13"), (417.0, "420"), (1.0, "1.0"), (1e-5, "1.0e-05")]
)
def test_ratios_read_well(ratio, text):
    assert plots.ratio_text(ratio) == text


def test_field_map_colours_each_cell_and_zooms(ax):
    mesh = tensor_mesh([np.linspace(0, 1e-6, 5), np.linspace(0, 1e-6, 4)])
    values = np.arange(mesh.n_cells, dtype=float)
    plots.field_map(ax, mesh, values, label="φ / V", zoom=(1e-7, 1e-7, 2e-7))
    cells = ax.collections[0]
    assert_allclose(cells.get_array(), values, rtol=0, atol=0)
    assert len(cells.get_paths()) == mesh.n_cells
    assert_allclose(ax.get_xlim(), [0, 1], rtol=1e-12, atol=1e-15)
    assert ax.get_xlabel() == "x / µm"
    inset = ax.child_axes[0]
    assert len(inset.collections[0].get_paths()) == 1
    assert inset.collections[0].norm.vmax == values.max()


def test_a_periodic_mesh_fills_its_box_with_images_of_its_cells(ax):
    edges = np.linspace(0, 1e-6, 5)
    mesh = tensor_mesh([edges, edges], periodic=(True, True))
    moved = replace(mesh, vertices=mesh.vertices - 0.1e-6, centers=mesh.centers - 0.1e-6)
    plots.field_map(ax, moved, moved.centers[:, 0])
    cells = ax.collections[0]
    corners = np.concatenate([path.vertices for path in cells.get_paths()])
    assert corners.min() < 0
    assert corners.max() > 1.0
    areas = [np.prod(np.ptp(np.clip(path.vertices, 0, 1), axis=0)) for path in cells.get_paths()]
    assert_allclose(sum(areas), 1.0, rtol=1e-12, atol=0)
    assert_allclose(ax.get_xlim(), [0, 1], rtol=1e-12, atol=1e-15)


def test_field_map_refuses_what_it_cannot_draw(ax):
    line = tensor_mesh([np.linspace(0, 1, 3)])
    with pytest.raises(InputError, match="2D mesh"):
        plots.field_map(ax, line, [1.0, 2.0])
    square = tensor_mesh([np.linspace(0, 1, 3)] * 2)
    with pytest.raises(InputError, match="one value for each of 4 cells"):
        plots.field_map(ax, square, [1.0])
    with pytest.raises(InputError, match="positive"):
        plots.field_map(ax, square, np.zeros(4), log=True)


def test_boundary_profile_has_one_axis_a_quantity(ax):
    x = np.linspace(-3e-9, 3e-9, 7)
    plots.boundary_profile(
        ax,
        x,
        potential=0.1 * np.ones(7),
        occupancy=0.4 * np.ones(7),
        conductivity={"across": np.ones(7), "along": 2 * np.ones(7)},
        width=1e-9,
    )
    potential, occupancy, conductivity = ax.figure.axes
    assert potential.get_ylabel() == "φ / mV"
    assert_allclose(potential.lines[0].get_ydata(), 100.0, rtol=1e-13, atol=0)
    assert occupancy.get_ylim() == (0, 1)
    assert_allclose([line.get_ydata()[0] for line in conductivity.lines], [0.01, 0.02], rtol=1e-14, atol=0)
    assert_allclose(potential.get_xlim(), [-3, 3], rtol=1e-12, atol=0)
    with pytest.raises(InputError, match="nothing to draw"):
        plots.boundary_profile(ax, x)


def test_a_potential_of_rounding_is_drawn_as_zero(ax):
    x = np.linspace(-3e-9, 3e-9, 7)
    plots.boundary_profile(ax, x, potential=1e-17 * np.sin(1e9 * x))
    assert ax.get_ylabel() == "φ / µV"
    assert ax.get_ylim() == (-1.0, 1.0)


def test_sweep_map_places_each_value_and_leaves_failures_out(ax):
    x, y = np.logspace(-1, 1, 5), np.logspace(0, 1, 4)
    values = np.outer(y, x) * 1e-4
    values[1, 2] = np.nan
    plots.sweep_map(ax, x, y, values, x_label="d / µm", y_label="w / nm", label="σ")
    drawn = ax.collections[0].get_array()
    assert drawn.mask.sum() == 1
    assert_allclose(drawn.compressed(), values[np.isfinite(values)], rtol=1e-14, atol=0)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    with pytest.raises(InputError, match="4 rows"):
        plots.sweep_map(ax, x, y, values.T, x_label="", y_label="", label="")
    with pytest.raises(InputError, match="finite values"):
        plots.sweep_map(ax, x, y, -values, x_label="", y_label="", label="")
    with pytest.raises(InputError, match="must be positive"):
        plots.sweep_map(ax, -x, y, values, x_label="", y_label="", label="")


def test_a_map_of_one_value_or_one_row_is_drawn(ax):
    plots.sweep_map(ax, [1.0], [1.0, 2.0], [[3.0], [3.0]], x_label="", y_label="", label="")


def test_style_does_not_leak():
    before = mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]
    with plots.style():
        assert mpl.rcParams["axes.grid"]
    assert (mpl.rcParams["axes.grid"], mpl.rcParams["font.size"]) == before
