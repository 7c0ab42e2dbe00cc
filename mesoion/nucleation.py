"""When lithium metal can nucleate inside an oxide electrolyte: thermodynamic criterion, classical barrier, propensity.

eta = (mu_Li - mu_Li,metal)/e [V] is positive where metal is favoured. A nucleus of radius r in a matrix that stores
the elastic energy w per volume of metal grows only where

    eta > (2 gamma/r + w) V_m/F                               r limited by the room there is: boundary width, pore

and to get there it crosses the barrier of classical nucleation, the elastic energy taken off the driving force:

    r* = 2 gamma V_m/(F (eta - eta_el)),   dG* = 16 pi gamma^3 V_m^2/(3 F^2 (eta - eta_el)^2) f,   eta_el = w V_m/F

f is the nucleus' share of the full sphere's volume at its site: a cap on a wall (Volmer 1939), a lens in a boundary
plane, a three-sided nucleus along a junction of three boundaries (Clemm, Fisher, Acta Metall. 3 (1955) 70). All
functions take numbers or arrays that broadcast; angles are in radians, energies in joule.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import InputError
from mesoion.units import BOLTZMANN, FARADAY

Floats: TypeAlias = NDArray[np.float64]
Site = Literal["grain", "wall", "boundary", "junction"]
SITES: tuple[Site, ...] = ("grain", "wall", "boundary", "junction")

LITHIUM_MOLAR_VOLUME = 13.0e-6
"""V_m of lithium metal at 25 C [m³/mol]."""


class NucleationError(InputError):
    """A value with which no nucleation can be computed."""


class ContactAngleError(NucleationError):
    """A contact angle that no nucleus can have at its site."""


class BarrierError(NucleationError):
    """A nucleation barrier that is negative or not finite."""


class NoDrivingForceError(NucleationError):
    """Lithium metal is not favoured: the overpotential does not exceed what the elastic energy takes."""


def _positive(where: str, value: ArrayLike, remedy: str) -> Floats:
    number = np.asarray(value, dtype=float)
    bad = ~(np.isfinite(number) & (number > 0))
    if np.any(bad):
        raise NucleationError(where, float(number[bad].flat[0]), remedy)
    return number


def _elastic(elastic_energy: ArrayLike) -> Floats:
    number = np.asarray(elastic_energy, dtype=float)
    bad = ~(np.isfinite(number) & (number >= 0))
    if np.any(bad):
        raise NucleationError(
            "elastic_energy",
            float(number[bad].flat[0]),
            "give the energy per volume of metal, zero or positive, J/m³",
        )
    return number


def shape_factor(site: Site, contact_angle: ArrayLike) -> Floats:
    """f: volume of the critical nucleus at `site` over that of the sphere of the same curvature, 0 to 1.

    contact_angle: psi [rad], 0 to pi. On a "wall" (free surface of a pore) the angle of Young's equation; in a
    "boundary" or along a "junction" cos psi = gamma_boundary/(2 gamma), so below pi/2; where it is pi/2 or more the
    sphere inside the "grain" (f = 1) costs less and is returned. A junction is wetted, f = 0, from
    cos psi = sqrt(3)/2 on. With k = cos psi:

        wall      (2 + k)(1 - k)²/4
        boundary  (2 + k)(1 - k)²/2
        junction  3 [pi - 2 alpha + k² sqrt(3 - 4k²)/3 - beta k (3 - k²)]/(2 pi),
                  alpha = asin(1/(2 sqrt(1 - k²))), beta = acos(k/sqrt(3 (1 - k²)))

    Raises ContactAngleError outside 0 to pi, NucleationError for an unknown site.
    """
    if site not in SITES:
        raise NucleationError("site", site, f"one of: {', '.join(SITES)}")
    angle = np.asarray(contact_angle, dtype=float)
    bad = ~(np.isfinite(angle) & (angle >= 0) & (angle <= math.pi))
    if np.any(bad):
        remedy = "a contact angle lies between 0 (complete wetting) and pi rad (180 deg, none)"
        raise ContactAngleError("contact_angle", float(angle[bad].flat[0]), remedy)
    k = np.cos(angle)
    cap = (2.0 + k) * (1.0 - k) ** 2 / 4.0
    if site == "grain":
        return np.ones_like(angle)
    if site == "wall":
        return np.asarray(cap)
    if site == "boundary":
        return np.asarray(np.minimum(2.0 * cap, 1.0))
    wetted = k >= math.sqrt(3.0) / 2.0
    q = np.clip(np.where(wetted, 0.0, k), 0.0, None)
    alpha = np.arcsin(0.5 / np.sqrt(1.0 - q**2))
    beta = np.arccos(q / np.sqrt(3.0 * (1.0 - q**2)))
    edge = math.pi - 2.0 * alpha + q**2 / 3.0 * np.sqrt(3.0 - 4.0 * q**2) - beta * q * (3.0 - q**2)
    return np.asarray(np.where(wetted, 0.0, 3.0 / (2.0 * math.pi) * edge))


def elastic_overpotential(elastic_energy: ArrayLike, molar_volume: float = LITHIUM_MOLAR_VOLUME) -> Floats:
    """eta_el = w V_m/F [V]: what the elastic energy w [J/m³] (or a counter pressure [Pa]) takes; 0.135 mV a MPa."""
    return np.asarray(_elastic(elastic_energy) * molar_volume / FARADAY)


def room(site: Site, size: ArrayLike) -> Floats:
    """Radius [m] of the largest sphere that fits a site of `size` [m].

    "wall": a pore of that diameter, size/2. "boundary": a layer of that width, size/2. "junction": three layers of
    that width that meet at 120 degrees, size/sqrt(3). "grain": no limit. Raises NucleationError for a size that is
    not positive.
    """
    length = _positive("size", size, "give a width or diameter in metres, positive")
    if site == "grain":
        return np.full_like(length, np.inf)
    return np.asarray(length / (math.sqrt(3.0) if site == "junction" else 2.0))


def threshold_overpotential(
    surface_energy: ArrayLike,
    radius: ArrayLike,
    elastic_energy: ArrayLike = 0.0,
    molar_volume: float = LITHIUM_MOLAR_VOLUME,
) -> Floats:
    """(2 gamma/r + w) V_m/F [V]: below it no metal of radius r is stable.

    surface_energy: gamma [J/m²]. radius: r [m], inf for no limit. elastic_energy: w [J/m³].
    Raises NucleationError for values that are not positive.
    """
    gamma = _positive("surface_energy", surface_energy, "give a positive energy in J/m²")
    r = np.asarray(radius, dtype=float)
    if np.any(np.isnan(r) | (r <= 0)):
        raise NucleationError("radius", float(r[np.isnan(r) | (r <= 0)].flat[0]), "give a positive length")
    return np.asarray(
        2.0 * gamma * molar_volume / (FARADAY * r) + elastic_overpotential(elastic_energy, molar_volume)
    )


def _driving(overpotential: ArrayLike, elastic_energy: ArrayLike, molar_volume: float) -> Floats:
    eta = np.asarray(overpotential, dtype=float)
    net = np.asarray(eta - elastic_overpotential(elastic_energy, molar_volume))
    bad = ~(net > 0)
    if np.any(bad):
        lost = eta - net
        raise NoDrivingForceError(
            "overpotential",
            float(np.broadcast_to(eta, net.shape)[bad].flat[0]),
            f"metal is favoured above {float(np.broadcast_to(lost, net.shape)[bad].flat[0]):.3g} V only",
        )
    return net


def critical_radius(
    overpotential: ArrayLike,
    surface_energy: ArrayLike,
    elastic_energy: ArrayLike = 0.0,
    molar_volume: float = LITHIUM_MOLAR_VOLUME,
) -> Floats:
    """r* = 2 gamma V_m/(F (eta - eta_el)) [m] at the overpotential eta [V].

    Raises NoDrivingForceError where eta does not exceed the elastic term.
    """
    gamma = _positive("surface_energy", surface_energy, "give a positive energy in J/m²")
    net = _driving(overpotential, elastic_energy, molar_volume)
    return np.asarray(2.0 * gamma * molar_volume / (FARADAY * net))


def nucleation_barrier(
    overpotential: ArrayLike,
    surface_energy: ArrayLike,
    shape: ArrayLike = 1.0,
    elastic_energy: ArrayLike = 0.0,
    molar_volume: float = LITHIUM_MOLAR_VOLUME,
) -> Floats:
    """dG* = 16 pi gamma³ V_m² f/(3 F² (eta - eta_el)²) [J] at the overpotential eta [V].

    shape: f of `shape_factor`. Raises NoDrivingForceError where eta does not exceed the elastic term, BarrierError
    for a negative shape factor.
    """
    gamma = _positive("surface_energy", surface_energy, "give a positive energy in J/m²")
    f = _shape(shape)
    net = _driving(overpotential, elastic_energy, molar_volume)
    return np.asarray(16.0 * math.pi * gamma**3 * molar_volume**2 * f / (3.0 * (FARADAY * net) ** 2))


def _shape(shape: ArrayLike) -> Floats:
    f = np.asarray(shape, dtype=float)
    bad = ~((f >= 0) & (f <= 1))
    if np.any(bad):
        raise BarrierError("shape", float(f[bad].flat[0]), "a shape factor lies between 0 and 1")
    return f


def overpotential_for_barrier(
    barrier: ArrayLike,
    surface_energy: ArrayLike,
    shape: ArrayLike = 1.0,
    elastic_energy: ArrayLike = 0.0,
    molar_volume: float = LITHIUM_MOLAR_VOLUME,
) -> Floats:
    """eta [V] at which the barrier has come down to `barrier` [J]; the inverse of `nucleation_barrier`.

    eta = eta_el + sqrt(16 pi gamma³ V_m² f/(3 F² dG*)). Raises BarrierError for a barrier that is not positive.
    """
    gamma = _positive("surface_energy", surface_energy, "give a positive energy in J/m²")
    energy = np.asarray(barrier, dtype=float)
    bad = ~(np.isfinite(energy) & (energy > 0))
    if np.any(bad):
        raise BarrierError(
            "barrier", float(energy[bad].flat[0]), "a nucleation barrier is a positive energy in joule"
        )
    root = np.sqrt(16.0 * math.pi * gamma**3 * molar_volume**2 * _shape(shape) / (3.0 * energy)) / FARADAY
    return np.asarray(root + elastic_overpotential(elastic_energy, molar_volume))


def required_overpotential(
    site: Site,
    size: ArrayLike,
    surface_energy: ArrayLike,
    contact_angle: ArrayLike,
    barrier: ArrayLike,
    elastic_energy: ArrayLike = 0.0,
    molar_volume: float = LITHIUM_MOLAR_VOLUME,
) -> Floats:
    """eta [V] from which metal both fits the site and crosses no more than the assumed `barrier` [J].

    The larger of `threshold_overpotential` with the site's `room` and `overpotential_for_barrier`. It says nothing
    without its assumptions: gamma, contact angle, elastic energy, size of the site and the barrier.
    Raises the errors of those functions.
    """
    fits = threshold_overpotential(surface_energy, room(site, size), elastic_energy, molar_volume)
    crosses = overpotential_for_barrier(
        barrier, surface_energy, shape_factor(site, contact_angle), elastic_energy, molar_volume
    )
    return np.asarray(np.maximum(fits, crosses))


def log_propensity(
    barrier: ArrayLike, reference_barrier: ArrayLike, temperature: float, log_sites: ArrayLike = 0.0
) -> Floats:
    """ln of how much more often nuclei form than at the reference: (dG*_ref - dG*)/kT + ln(sites/sites_ref).

    barrier, reference_barrier: [J], zero or positive, inf where metal is not favoured. temperature [K]. log_sites:
    ln of the ratio of the numbers of sites. A ratio only: the attempt rate, assumed the same at both, drops out.
    Raises BarrierError for a negative barrier.
    """
    _positive("temperature", temperature, "give an absolute temperature in kelvin")
    values: list[Any] = []
    for name, value in (("barrier", barrier), ("reference_barrier", reference_barrier)):
        energy = np.asarray(value, dtype=float)
        bad = ~(energy >= 0)
        if np.any(bad):
            raise BarrierError(
                name, float(energy[bad].flat[0]), "a nucleation barrier is zero or a positive energy in joule"
            )
        values.append(energy)
    if np.any(np.isinf(values[1])):
        raise BarrierError(
            "reference_barrier", math.inf, "compare with a site at which metal is favoured at all"
        )
    return np.asarray((values[1] - values[0]) / (BOLTZMANN * temperature) + np.asarray(log_sites))
