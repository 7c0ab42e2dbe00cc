"""The study of kind "pellet_fit": the pellet itself fitted to a series of measured spectra, all temperatures together.

Grains, boundaries, a share of blocking ones, electrodes and leads (`mesoion.fit`); the posterior by an ensemble that
runs until it is fifty autocorrelation times long or its steps are used up; what the data fix and what only the prior
does; the spectra a repeated measurement would show.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mesoion.charged_boundary import Lattice
from mesoion.config import Model, StudyModel
from mesoion.errors import ConvergenceError, InputError
from mesoion.fit import Electrode, MostProbable, PelletFit
from mesoion.fit_parameters import Parameter, default_parameters
from mesoion.impedance.measured_files import MeasuredFiles
from mesoion.impedance.measurement import Measurement
from mesoion.material import Material
from mesoion.mixed_boundaries import shipped
from mesoion.pellet import Interval
from mesoion.posterior import Posterior, sample
from mesoion.provenance import finite
from mesoion.runfolder import RunFolder
from mesoion.units import Frequency, Length, PureNumber

Positive = Field(gt=0)
PER_CM = 1e-2
UNBOUNDED = 1e6
"""Multiple of a value at which an unbounded band is cut in the figure."""

NAMES = {
    "bulk": "bulk",
    "total": "total",
    "apparent_gb": "grain boundary, apparent",
    "specific_gb": "grain boundary, specific",
}


class PriorInput(Model):
    """What is known of a parameter: held at `value`, or around it.

    factor: one standard deviation of its logarithm as a factor; deviation: an increment, for activation energies (eV)
    and, in the logit, for shares and exponents.
    """

    value: float
    factor: Annotated[float, Field(gt=1.0)] | None = None
    deviation: Annotated[float, Field(gt=0.0)] | None = None

    def applied(self, parameter: Parameter, where: str) -> Parameter:
        """The parameter with this prior; InputError where the scale asks for the other width."""
        if self.factor is None and self.deviation is None:
            return parameter.fixed(self.value)
        wanted, given = ("factor", self.factor) if parameter.scale == "log" else ("deviation", self.deviation)
        if given is None or (self.factor is not None and self.deviation is not None):
            raise InputError(where, self.value, f"give {wanted} alone, or neither to hold it")
        return parameter.with_prior(self.value, given)


class SpaceChargeInput(Model):
    """Sites of grain and boundary layer by transport records: names or paths; the core charge is fitted."""

    grain: str
    boundary: str

    def lattice(self) -> Lattice:
        """Site densities and occupancies. Raises InputError for records of the wrong region."""
        material = Material.from_records(self.grain, {"boundary": self.boundary}, relative_permittivity=1.0)
        return Lattice.of(material, "boundary", 298.15)


class Study(MeasuredFiles, StudyModel):
    """Spectra of one pellet at one or more temperatures."""

    kind: Literal["pellet_fit"] = "pellet_fit"
    grain_size: Annotated[Length, Positive] | None = None
    electrode: Electrode = "blocking"
    space_charge: SpaceChargeInput | None = None
    lowest_frequency: Annotated[Frequency, Positive] | None = None
    highest_frequency: Annotated[Frequency, Positive] | None = None
    priors: dict[str, PriorInput] = Field(default_factory=dict)
    starts: Annotated[int, Field(ge=1, le=100)] = 8
    steps: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    most_steps: Annotated[int, Field(ge=100, le=1_000_000)] = 30000
    accuracy: Annotated[PureNumber, Field(gt=0, le=0.5)] | None = None
    """Relative error of |Z| expected of instrument and model; a prior for the fitted noise, a factor of 2 wide."""

    @model_validator(mode="after")
    def _known(self) -> Study:
        known = default_parameters()
        for name in self.priors:
            if name not in known:
                raise ValueError(f"priors.{name}: parameters are {', '.join(known)}")
        low, high = self.lowest_frequency, self.highest_frequency
        if low is not None and high is not None and low >= high:
            raise ValueError("lowest_frequency is not below highest_frequency")
        if self.space_charge is not None and self.grain_size is None:
            raise ValueError("space_charge needs grain_size: a space charge does not scale with the grains")
        return self


def cut_to(measurement: Measurement, low: float | None, high: float | None) -> Measurement:
    """The spectrum between two frequencies [Hz]; InputError where fewer than ten points are left."""
    f = measurement.frequency
    kept = (f >= (0.0 if low is None else low)) & (f <= (np.inf if high is None else high))
    if np.count_nonzero(kept) < 10:
        raise InputError(
            measurement.name,
            f"{np.count_nonzero(kept)} points",
            "fewer than ten between lowest_frequency and highest_frequency",
        )
    return measurement if np.all(kept) else measurement.selected(kept)


def problem(study: Study, measurements: list[Measurement]) -> PelletFit:
    """The fit a study asks for. Raises InputError for spectra and priors that do not serve."""
    parameters = default_parameters()
    changed = {
        name: prior.applied(parameters[name], f"priors.{name}") for name, prior in study.priors.items()
    }
    if study.accuracy is not None and "noise" not in changed:
        changed["noise"] = parameters["noise"].with_prior(study.accuracy, 2.0)
    chosen = [cut_to(m, study.lowest_frequency, study.highest_frequency) for m in measurements]
    lattice = None if study.space_charge is None else study.space_charge.lattice()
    return PelletFit(
        chosen, shipped(), changed,
        electrode=study.electrode, grain_size=study.grain_size, space_charge=lattice,
    )  # fmt: skip


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Read, fit, sample, and write numbers, tables, figures and words."""
    batch = study.read(folder.show_progress)
    if not batch.measurements:
        raise batch.problems[0].error
    failed = [{"file": str(p.path), "error": str(p.error)} for p in batch.problems]
    fit = problem(study, list(batch.measurements))
    best = fit.most_probable(study.starts, seed=study.seed)
    posterior = sample(
        best,
        seed=int(rng.integers(2**31)),
        steps=study.steps,
        most_steps=max(study.steps, study.most_steps),
        progress=folder.progress,
    )
    write(study, folder, posterior, failed)
    draw(folder, posterior, study.seed)
    describe(study, folder, posterior, failed)


def _row(name: str, unit: str, found: Interval, decided: str) -> dict[str, Any]:
    return {
        "quantity": name,
        "unit": unit,
        "value": found.value,
        "95 % low": found.low,
        "95 % high": found.high,
        "decided by": decided,
    }


def headline(posterior: Posterior) -> list[dict[str, Any]]:
    """What an experimenter asks first: conductivities at the lowest temperature, energies, width, share, permittivity.

    Activation energies are those of σT; the width in metres where the grain size is known.
    """
    fit, rows = posterior.fit, []
    decided = {e.name: e.decided_by for e in posterior.estimates()}
    coldest = posterior.conductivities()[0]
    kelvin = float(np.asarray(coldest["temperature"]))
    for key, name in NAMES.items():
        found = coldest[key]
        assert isinstance(found, Interval)
        scaled = Interval(found.value * PER_CM, found.low * PER_CM, found.high * PER_CM)
        rows.append(_row(f"{name} conductivity at {kelvin - 273.15:.0f} °C", "S/cm", scaled, "data"))
    for e in posterior.estimates():
        if e.name in ("bulk_activation_energy", "boundary_activation_energy"):
            name = "E_a bulk" if e.name.startswith("bulk") else "E_a grain boundary"
        elif e.name in ("width_over_grain_size", "blocking_fraction", "permittivity", "core_charge"):
            name = e.name.replace("_", " ")
        else:
            continue
        rows.append(_row(name, e.unit, Interval(e.most_probable, e.low, e.high), e.decided_by))
        if e.name == "width_over_grain_size" and fit.grain_size is not None:
            size = fit.grain_size * 1e9
            width = Interval(size * e.most_probable, size * e.low, size * e.high)
            rows.append(_row("boundary width", "nm", width, decided[e.name]))
    return rows


def write(study: Study, folder: RunFolder, posterior: Posterior, failed: list[dict[str, str]]) -> None:
    """Results and tables."""
    import pandas as pd

    estimates = [asdict(e) for e in posterior.estimates()]
    rows = headline(posterior)
    conductivities = [
        {"temperature / K": found["temperature"]}
        | {
            f"{name}{part} / S/cm": getattr(found[key], field) * PER_CM
            for key, name in NAMES.items()
            for part, field in (("", "value"), (", 95 % low", "low"), (", 95 % high", "high"))
        }
        for found in posterior.conductivities()
    ]
    combinations = [
        {"combination": c.in_words(), "posterior over prior width": c.narrowing, "decided by": c.verdict}
        for c in posterior.start.combinations()
    ]
    folder.table("the_pellet", pd.DataFrame(rows), lead=True)
    folder.table("conductivities", pd.DataFrame(conductivities))
    folder.table("parameters", pd.DataFrame(estimates))
    folder.table("what_the_data_fix", pd.DataFrame(combinations))
    folder.result("the_pellet", [finite(row) for row in rows])
    folder.result("conductivities", [finite(row) for row in conductivities])
    folder.result("parameters", estimates)
    folder.result("combinations", combinations)
    folder.result(
        "sampling",
        {
            "steps": posterior.steps,
            "autocorrelation_time": posterior.autocorrelation,
            "converged": posterior.converged,
            "effective_samples": posterior.effective_samples,
            "acceptance": posterior.acceptance,
            "in_words": posterior.in_words(),
        },
    )
    folder.result("coverage_of_points", posterior.coverage(study.seed))
    folder.result("model_error", posterior.fit.polycrystal.relative_error)
    folder.result("failed", failed)
    for m, kelvin in zip(posterior.fit.measurements, posterior.fit.temperatures.tolist(), strict=True):
        z = posterior.fit.spectrum(posterior.start.values, kelvin, m.frequency)
        folder.spectrum(f"fitted_{kelvin:.0f}K", m.frequency, z)


def draw(folder: RunFolder, posterior: Posterior, seed: int) -> None:
    """Nyquist, posterior predictive, Arrhenius, and how far each parameter was narrowed."""
    from mesoion import plots
    from mesoion.fit_figures import narrowing, posterior_predictive

    fit = posterior.fit
    chosen = sorted({0, len(fit.measurements) // 2, len(fit.measurements) - 1})
    figure, axes = plots.new_figure(1, len(chosen), squeeze=False)
    for ax, k in zip(axes[0], chosen, strict=True):
        m, kelvin = fit.measurements[k], float(fit.temperatures[k])
        f = np.geomspace(m.frequency.min(), m.frequency.max(), 300)
        z = fit.spectrum(posterior.start.values, kelvin, f)
        plots.nyquist(ax, {"fit": (f, z)}, measured={f"{kelvin - 273.15:.0f} °C": (m.frequency, m.impedance)})
    folder.figure(
        "nyquist", figure, "Measured spectra and the most probable pellet; decades of frequency marked."
    )
    figure, axes = plots.new_figure(1, len(chosen), squeeze=False)
    for ax, k in zip(axes[0], chosen, strict=True):
        posterior_predictive(ax, posterior, k, seed)
    folder.figure(
        "posterior_predictive", figure, "95 % of what a repeated measurement would show, and the points."
    )
    if len(fit.temperatures) > 1:
        found = posterior.conductivities()
        kelvins = [c["temperature"] for c in found]
        figure, ax = plots.new_figure()
        series: dict[str, dict[str, Any]] = {}
        for key, name in NAMES.items():
            parts = {p: np.array([getattr(c[key], p) for c in found]) for p in ("value", "low", "high")}
            if np.all(np.isfinite(parts["value"])):
                # An unbounded upper end runs out of the picture.
                top = np.minimum(parts["high"], UNBOUNDED * parts["value"])
                series[name] = {"temperature": np.array(kelvins), **parts, "high": top}
        plots.arrhenius(ax, series)
        drawn = np.concatenate([np.r_[one["low"], one["value"]] for one in series.values()])
        ax.set_ylim(PER_CM * drawn.min() / 2, PER_CM * drawn.max() * 4)
        folder.figure("arrhenius", figure, "Conductivities of the series with 95 % bands.")
    figure, ax = plots.new_figure(height=4.2)
    narrowing(ax, posterior)
    folder.figure("narrowing", figure, "How far the data narrowed each parameter's prior.")


def on_their_limits(best: MostProbable) -> list[str]:
    """Parameters whose most probable value sits on a hard bound, within a thousandth of the prior's deviation."""
    return [
        p.name.replace("_", " ")
        for p, u in zip(best.fit.free, best.coordinates.tolist(), strict=True)
        if min(u - p.bounds[0], p.bounds[1] - u) < 1e-3 * p.deviation
    ]


def warning_of(limits: list[str]) -> str:
    """What parameters on their limits mean and what to do."""
    remedy = (
        "the layers would have to be wider than the model's collapsed ones can be: fit the arcs by circuits "
        "(leave out --pellet), or hold width_over_grain_size in [priors] if it is known"
        if "width over grain size" in limits
        else "hold the parameter in [priors] if it is known, or fit the arcs by circuits (leave out --pellet)"
    )
    return (
        f"On the limit of what the model covers: {', '.join(limits)}. The pellet may lie outside it, so take no "
        f"number of this fit as measured; {remedy}."
    )


def describe(study: Study, folder: RunFolder, posterior: Posterior, failed: list[dict[str, str]]) -> None:
    """Words: convergence, what only the prior decides, points outside, files left out."""
    prior = [e.name.replace("_", " ") for e in posterior.estimates() if e.decided_by == "prior"]
    said = [posterior.in_words()]
    if prior:
        said.append(f"Only the prior decides: {', '.join(prior)}.")
    limits = on_their_limits(posterior.start)
    if limits:
        said.append(warning_of(limits))
        folder.result("warnings", [warning_of(limits)])
    noise = next((e for e in posterior.estimates() if e.name == "noise"), None)
    if noise is not None:
        said.append(
            f"Left unexplained: {100 * noise.most_probable:.2g} % of |Z| in each part"
            + (
                f", far above the {100 * study.accuracy:.2g} % expected: the model misses something."
                if study.accuracy is not None and noise.most_probable > 3 * study.accuracy
                else "."
            )
        )
    if failed:
        said.append("Left out: " + "; ".join(row["error"] for row in failed) + ".")
    folder.paragraph("The fit in words", "\n\n".join(said))
    if not posterior.converged and posterior.steps < 5 * posterior.autocorrelation:
        raise ConvergenceError(
            "the posterior was hardly explored; raise most_steps, or hold parameters in [priors]",
            at=f"{posterior.steps} steps",
        )
