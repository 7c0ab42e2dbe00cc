"""How wide a grain boundary is, by rules that the result names. Lengths in Å.

Rules: interplanar spacings (2 or 4, above 5 Å, as in Nat. Commun. 14, 1632 (2023), doi 10.1038/s41467-023-37115-6,
caption of Fig. 4), a tanh fit to the density, and the range over which composition or coordination leaves the bulk's
scatter.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import toeplitz
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import OptimizeWarning, brentq, curve_fit

from atomistic.averages import Series, ratio_average
from atomistic.boundary_analysis import Profile
from atomistic.boundary_planes import BoundaryPlanes, cell_height, frames
from atomistic.errors import InputError, TrajectoryError
from atomistic.local_structure import coordination_numbers
from atomistic.trajectory import TrajectorySource

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Width:
    """A boundary's width and its standard uncertainty, Å, and the rule it follows."""

    value: float
    standard_uncertainty: float
    rule: str


def interplanar_spacing(plane: Sequence[int], lattice_constant: float) -> float:
    """d = a/√(h² + k² + l²) [Å] of the planes (hkl) of a primitive cubic lattice of constant a [Å]."""
    if len(plane) != 3 or not any(plane):
        raise InputError("plane", tuple(plane), "three whole numbers, not all zero")
    if not 0 < lattice_constant < 1e3:
        raise InputError("lattice_constant", lattice_constant, "give Å above zero")
    return lattice_constant / math.sqrt(sum(int(h) ** 2 for h in plane))


def spacings_width(spacing: float, minimum: float = 5.0) -> Width:
    """2 d, or 4 d where 2 d is not above `minimum` Å; beyond the papers' rule the least even multiple that is."""
    if not 1e-3 < spacing < 1e3:
        raise InputError("spacing", spacing, "give Å above zero")
    multiple = 2 * (math.floor(minimum / (2 * spacing) + 1e-12) + 1)
    note = "" if multiple in (2, 4) else ", beyond the published 2 or 4"
    return Width(
        multiple * spacing,
        0.0,
        f"{multiple} interplanar spacings of {spacing:.3f} A, above {minimum:g} A{note}",
    )


def boundary_shape(position: Floats, centre: float, width: float, edge: float) -> Floats:
    """[tanh((x − x₀ + w/2)/ξ) − tanh((x − x₀ − w/2)/ξ)]/2: a layer of width w with edges of length ξ, all Å."""
    x = position - centre
    return np.asarray(0.5 * (np.tanh((x + 0.5 * width) / edge) - np.tanh((x - 0.5 * width) / edge)))


@dataclass(frozen=True)
class DensityWidth:
    """A layer fitted to a density profile.

    full_width: at half of the deviation. extent: between the outer points where a tenth of it is left (10-90 rule).
    bulk_density, excess_density: n_b and the layer's deviation A, 1/Å³, with standard uncertainties. edge: ξ, Å.
    """

    full_width: Width
    extent: Width
    bulk_density: float
    bulk_density_uncertainty: float
    excess_density: float
    excess_density_uncertainty: float
    edge: float


def density_width(profile: Profile, *species: str, smoothing: float = 1.0) -> DensityWidth:
    """Fit n(x) = n_b + A·`boundary_shape` to the density of `species` (all atoms if none) about the planes.

    Data and model are smoothed alike (Gaussian, standard deviation `smoothing` Å, about half the spacing of lattice
    planes), which removes the planes and does not widen the result. Uncertainties count the residuals'
    correlation. Raises TrajectoryError where no layer stands out by five of them, InputError for a profile of the whole
    cell.
    """
    if not profile.about_plane:
        raise InputError("profile", "of the whole cell", "take a profile about the planes")
    x, step = profile.position, profile.bin_width
    if not step <= smoothing < float(x[-1]):
        raise InputError("smoothing", smoothing, f"give Å between {step:g} and {float(x[-1]):g}")
    raw, _ = profile.number_density(*species)

    def smooth(values: Floats) -> Floats:
        return np.asarray(gaussian_filter1d(values, smoothing / step, mode="nearest"), dtype=np.float64)

    def model(x: Floats, bulk: float, excess: float, centre: float, width: float, edge: float) -> Floats:
        return bulk + excess * smooth(boundary_shape(x, centre, width, edge))

    data = smooth(raw)
    half = float(x[-1]) + 0.5 * step
    outer = np.abs(x) > 0.6 * half
    bulk = float(data[outer].mean())
    core = float((data - bulk)[int(np.argmax(np.where(outer, 0.0, np.abs(data - bulk))))])
    if core == 0.0:
        raise TrajectoryError("the density is the same everywhere: no boundary is to be seen in it")
    most = 4 * abs(core)
    low = [0.0, -most, -0.5 * half, 0.0, 0.05 * step]
    high = [np.inf, most, 0.5 * half, 1.6 * half, 0.5 * half]
    best: tuple[float, Floats] | None = None
    for width in (3.0, 6.0, 12.0, 20.0):
        start = [bulk, core, 0.0, min(width, 1.5 * half), min(1.0, 0.4 * half)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)
                found, _ = curve_fit(model, x, data, p0=start, bounds=(low, high), max_nfev=2000)
        except RuntimeError:
            continue
        misfit = float(np.sum((model(x, *found) - data) ** 2))
        if best is None or misfit < best[0]:
            best = misfit, found
    if best is None:
        raise TrajectoryError("the density profile does not fit a layer; give another smoothing or rule")
    found = best[1]
    covariance = _fit_covariance(model, x, data, found, smoothing / step)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    bulk, excess, _, width, edge = (float(v) for v in found)

    def spread(level: float) -> float:
        change = 1e-4 * max(width + edge, step)
        slopes = np.array(
            [
                _reach(width + change, edge, level) - _reach(max(width - change, 0.0), edge, level),
                _reach(width, edge + change, level) - _reach(width, max(edge - change, 1e-3 * edge), level),
            ]
        ) / np.array([change + min(change, width), change + min(change, 0.999 * edge)])
        return math.sqrt(max(float(slopes @ covariance[3:, 3:] @ slopes), 0.0))

    full, uncertainty = _reach(width, edge, 0.5), spread(0.5)
    if not abs(excess) > 5 * errors[1] or not full > 2 * uncertainty:
        raise TrajectoryError(
            f"the density deviates by {excess / bulk:.1%} ± {errors[1] / bulk:.1%} in {full:.1f} ± "
            f"{uncertainty:.1f} Å: no layer of a definite width stands out; take the rule of composition or of "
            "interplanar spacings"
        )
    text = "of a tanh layer fitted to the density of " + (", ".join(species) or "all atoms")
    return DensityWidth(
        full_width=Width(full, uncertainty, "full width at half height " + text),
        extent=Width(_reach(width, edge, 0.1), spread(0.1), "10-90 extent " + text),
        bulk_density=bulk,
        bulk_density_uncertainty=float(errors[0]),
        excess_density=excess,
        excess_density_uncertainty=float(errors[1]),
        edge=edge,
    )


def _reach(width: float, edge: float, level: float) -> float:
    """Distance between the points where the layer has fallen to `level` of its height, Å."""
    top = float(boundary_shape(np.zeros(1), 0.0, width, edge)[0])

    def above(at: float) -> float:
        return float(boundary_shape(np.array([at]), 0.0, width, edge)[0]) - level * top

    return 2 * float(brentq(above, 0.0, 0.5 * width + 40 * edge))


def _fit_covariance(
    model: Callable[..., Floats], x: Floats, data: Floats, found: Floats, smoothing: float
) -> Floats:
    """Covariance of least-squares parameters, residuals correlated at least as white noise smoothed (in points)."""
    steps = 1e-5 * np.maximum(np.abs(found), 1e-2 * np.abs(found).max())
    jacobian = np.empty((len(x), len(found)))
    for k, step in enumerate(steps):
        up, down = found.copy(), found.copy()
        up[k] += step
        down[k] -= step
        jacobian[:, k] = (model(x, *up) - model(x, *down)) / (2 * step)
    # Columns of very different size: scaled before inversion.
    size = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    residual = data - model(x, *found)
    freedom = max(len(x) - len(found), 1)
    alike = np.zeros(len(x))
    lags = min(round(8 * smoothing), len(x) - 1)
    for lag in range(lags + 1):
        alike[lag] = float(residual[lag:] @ residual[: len(x) - lag]) / freedom * (1 - lag / (lags + 1))
    alike = np.maximum(alike, alike[0] * np.exp(-((np.arange(len(x)) / smoothing) ** 2) / 4))
    scaled = jacobian / size
    middle = scaled.T @ toeplitz(alike) @ scaled
    inverse = np.linalg.pinv(jacobian.T @ jacobian / np.outer(size, size), rcond=1e-12)
    return np.asarray((inverse @ middle @ inverse) / np.outer(size, size), dtype=np.float64)


def threshold_width(
    position: Floats, value: Floats, error: Floats, *, n_sigma: float, bulk_beyond: float, what: str
) -> Width:
    """Range about the plane in which `value` differs from its bulk mean by more than n_sigma standard deviations.

    position: (bins,) Å, evenly spaced, of the distance from the plane. The bulk is |position| > bulk_beyond; σ joins
    the scatter of its bins with each bin's standard error. A single bin counts only beyond 2 n_sigma. The uncertainty
    is that of two edges known to a bin. Raises TrajectoryError where nothing deviates or no bulk is left.
    """
    step = float(position[1] - position[0])
    bulk = (np.abs(position) > bulk_beyond) & np.isfinite(value)
    if bulk.sum() < 3:
        raise TrajectoryError(
            f"{what}: fewer than three slices lie beyond {bulk_beyond:g} Å; take thicker grains"
        )
    mean, scatter = float(value[bulk].mean()), float(value[bulk].std(ddof=1))
    sigma = np.hypot(scatter, np.nan_to_num(error))
    strength = np.abs(np.nan_to_num(value - mean)) / np.where(sigma > 0, sigma, 1e-12 * max(abs(mean), 1e-12))
    strength[bulk] = 0.0
    out = strength > n_sigma
    beside = np.zeros_like(out)
    beside[:-1] |= out[1:]
    beside[1:] |= out[:-1]
    out &= beside | (strength > 2 * n_sigma)
    if not np.any(out):
        raise TrajectoryError(
            f"{what} stays within {n_sigma:g} sigma of the bulk: no width can be told from it"
        )
    where = position[out]
    rule = f"{what} differs from the bulk by more than {n_sigma:g} sigma"
    return Width(float(where.max() - where.min()) + step, step / math.sqrt(6.0), rule)


def composition_width(
    profile: Profile,
    *,
    species: Sequence[str] | None = None,
    n_sigma: float = 3.0,
    bulk_beyond: float | None = None,
    smoothing: float = 0.0,
) -> Width:
    """The widest range in which the atomic percent of one of `species` (all if None) leaves the bulk's scatter.

    Slices thinner than the lattice's planes need `smoothing` (Å, a Gaussian's standard deviation); it blurs each edge
    by about as much, which the uncertainty counts. bulk_beyond: Å, by default 60 % of the profile's half.
    """
    if not profile.about_plane:
        raise InputError("profile", "of the whole cell", "take a profile about the planes")
    half = float(profile.position[-1]) + 0.5 * profile.bin_width
    beyond = 0.6 * half if bulk_beyond is None else bulk_beyond
    names = list(profile.density) if species is None else list(species)

    def smooth(values: Floats) -> Floats:
        if smoothing <= 0:
            return values
        return np.asarray(gaussian_filter1d(values, smoothing / profile.bin_width, mode="nearest"))

    total = smooth(profile.total)
    found: list[Width] = []
    for name in names:
        density, _ = profile.number_density(name)
        value = 100 * smooth(density) / np.where(total > 0, total, np.nan)
        error = profile.atomic_percent_error[name]
        # Averaging over the kernel leaves 1/(2√π σ) of a bin's variance.
        independent = max(1.0, 2 * math.sqrt(math.pi) * smoothing / profile.bin_width)
        try:
            width = threshold_width(
                profile.position,
                value,
                np.asarray(smooth(error) / math.sqrt(independent)),
                n_sigma=n_sigma,
                bulk_beyond=beyond,
                what=f"atomic percent of {name}",
            )
        except TrajectoryError:
            if len(names) == 1:
                raise
            continue
        found.append(Width(width.value, math.hypot(width.standard_uncertainty, smoothing), width.rule))
    if not found:
        raise TrajectoryError(
            f"no content of {', '.join(names)} leaves the bulk by more than {n_sigma:g} sigma: no width can be told"
        )
    return max(found, key=lambda width: width.value)


def coordination_profile(
    source: TrajectorySource,
    planes: BoundaryPlanes,
    *,
    centre: str,
    partners: Sequence[str] = ("O",),
    cutoff: float,
    bin_width: float = 1.0,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> tuple[Floats, Floats, Floats]:
    """Mean number of `partners` within `cutoff` Å of `centre` atoms against the distance from the nearest plane.

    Returns position (bins,) Å, mean and standard error (bins,); nan where no centre was.
    """
    from ase import Atoms

    half = 0.5 * planes.separation
    bins = max(4, 2 * round(half / bin_width))
    if not bin_width > 0 or bins > 10_000:
        raise InputError("bin_width", bin_width, "give Å above zero, not below a thousandth of the cell")
    neighbours, centres = Series(), Series()
    for cell, positions, numbers in frames(source, mobile, stride):
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=True)
        near = coordination_numbers(atoms, centre, partners, cutoff)
        chosen = np.array(atoms.get_chemical_symbols()) == centre
        away = planes.distance(positions[chosen], cell)[0] * planes.height / cell_height(cell, planes.axis)
        slot = np.floor((away + half) / (2 * half) * bins).astype(np.int64)
        inside = (slot >= 0) & (slot < bins)
        neighbours.append(np.bincount(slot[inside], near[inside], minlength=bins))
        centres.append(np.bincount(slot[inside], minlength=bins))
    found = ratio_average(neighbours.blocks(), centres.blocks())
    position = ((np.arange(bins) + 0.5) / bins * 2 - 1) * half
    return position, found.mean, found.standard_error


def coordination_width(
    source: TrajectorySource,
    planes: BoundaryPlanes,
    *,
    centre: str,
    partners: Sequence[str] = ("O",),
    cutoff: float,
    n_sigma: float = 3.0,
    bin_width: float = 1.0,
    bulk_beyond: float | None = None,
    mobile: Sequence[str] = ("Li",),
    stride: int = 1,
) -> Width:
    """The range about the planes in which the mean coordination of `centre` leaves the bulk's scatter."""
    position, value, error = coordination_profile(
        source,
        planes,
        centre=centre,
        partners=partners,
        cutoff=cutoff,
        bin_width=bin_width,
        mobile=mobile,
        stride=stride,
    )
    beyond = 0.3 * planes.separation if bulk_beyond is None else bulk_beyond
    return threshold_width(
        position,
        value,
        error,
        n_sigma=n_sigma,
        bulk_beyond=beyond,
        what=f"coordination of {centre} by {', '.join(partners)} within {cutoff:g} A",
    )
