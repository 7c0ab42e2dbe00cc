"""The moment tensor potential as straight C++: `batch_model.h` of `batch_md.cpp`, `mtp_shape.h` of the LAMMPS plugin.

Every table of the potential becomes arithmetic in a row: basic moments gathered neighbour by neighbour, their
contractions forwards and backwards, and the polynomials of each radial function with their gradients by Horner's rule.
Nothing is looked up at run time, so that the moments stay in registers. `gather` and `scatter` take a number or a
vector of them, one lane a neighbour.
"""

from __future__ import annotations

from collections import defaultdict

from atomistic.mtp.core import COULOMB, ZBL, RepulsiveCore
from atomistic.mtp.potential import MTPotential

_CORE = f"""
BOTH double core_energy(const double *pair, double r, double &derivative)
{{
  const double amplitude[4] = {{{", ".join(repr(a) for a, _ in ZBL)}}};
  const double decay[4] = {{{", ".join(repr(d) for _, d in ZBL)}}};
  double screen = 0.0, slope = 0.0;
  for (int k = 0; k < 4; k++) {{
    const double term = amplitude[k] * exp(-decay[k] * r / pair[3]);
    screen += term;
    slope -= decay[k] / pair[3] * term;
  }}
  double energy = pair[2] / r * screen;
  derivative = pair[2] / r * (slope - screen / r);
  if (r > pair[0]) {{
    const double width = pair[1] - pair[0], t = (r - pair[0]) / width;
    const double change = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t));
    derivative = derivative * change - 30.0 * t * t * (1.0 - t) * (1.0 - t) / width * energy;
    energy *= change;
  }}
  return energy;
}}
"""


def _numbers(values: list[float]) -> str:
    return "{" + ", ".join(repr(float(value)) for value in values) + "}"


def _monomials(potential: MTPotential) -> tuple[list[str], dict[tuple[int, int, int], str]]:
    """Lines that form every product of the coordinates x, y, z, and the name of each."""
    needed = {tuple(int(p) for p in row[1:]) for row in potential.alpha_index_basic}
    names: dict[tuple[int, int, int], str] = {(0, 0, 0): "", (1, 0, 0): "x", (0, 1, 0): "y", (0, 0, 1): "z"}
    lines: list[str] = []

    def name_of(power: tuple[int, int, int]) -> str:
        if power not in names:
            axis = max(a for a in range(3) if power[a])
            lower = (power[0] - (axis == 0), power[1] - (axis == 1), power[2] - (axis == 2))
            below = name_of(lower)
            names[power] = f"p{power[0]}_{power[1]}_{power[2]}"
            lines.append(f"const V {names[power]} = {below} * {'xyz'[axis]};")
        return names[power]

    for power in sorted(needed, key=lambda p: (sum(p), p)):
        name_of((power[0], power[1], power[2]))
    return lines, names


def _gather(potential: MTPotential) -> list[str]:
    lines, names = _monomials(potential)
    for b, (mu, *power) in enumerate(potential.alpha_index_basic.tolist()):
        product = names[power[0], power[1], power[2]]
        lines.append(f"m[{b}] += f[{mu}]{' * ' + product if product else ''};")
    return lines


def _contract(potential: MTPotential, coefficients: list[str]) -> list[str]:
    """Moments from the basic ones, the energy, and back to the derivatives, which take the place of m.

    coefficients: of the scalar moments, as C++.
    """
    basics, count = len(potential.alpha_index_basic), potential.moment_count
    products = potential.alpha_index_times.tolist()
    lines = [f"const double m{b} = m[{b}];" for b in range(basics)]
    terms: dict[int, list[str]] = defaultdict(list)
    open_out: list[int] = []

    def write(out: int) -> None:
        if out in terms:
            lines.append(f"const double m{out} = {' + '.join(terms.pop(out))};")
            open_out.remove(out)

    for left, right, factor, out in products:
        write(left)
        write(right)
        if out not in terms:
            open_out.append(out)
        terms[out].append(f"{float(factor)!r} * m{left} * m{right}")
    for out in list(open_out):
        write(out)
    energy, derivative = ["0.0"], dict.fromkeys(range(count), "0.0")
    for scalar, coefficient in zip(potential.alpha_moment_mapping.tolist(), coefficients, strict=True):
        energy.append(f"{coefficient} * m{scalar}")
        derivative[scalar] = coefficient
    lines.append(f"const double energy = {' + '.join(energy)};")
    lines += [f"double d{k} = {derivative[k]};" for k in range(count)]
    for left, right, factor, out in reversed(products):
        lines.append(f"d{left} += {float(factor)!r} * d{out} * m{right};")
        lines.append(f"d{right} += {float(factor)!r} * d{out} * m{left};")
    lines += [f"m[{b}] = d{b};" for b in range(basics)]
    return [*lines, "return energy;"]


def _scatter(potential: MTPotential) -> list[str]:
    """Each radial function's polynomial in x, y, z and its gradient, summed with df and f."""
    by_function: dict[int, dict[tuple[int, int, int], int]] = defaultdict(dict)
    for b, (mu, *power) in enumerate(potential.alpha_index_basic.tolist()):
        by_function[mu][power[0], power[1], power[2]] = b
    lines: list[str] = []
    for mu, table in sorted(by_function.items()):
        degrees = [max(power[axis] for power in table) for axis in range(3)]
        if degrees == [0, 0, 0]:
            lines.append(f"along += df[{mu}] * m[{table[0, 0, 0]}];")
            continue
        lines.append("{ V p = {}, px = {}, py = {}, pz = {};")
        for c in range(degrees[2], -1, -1):
            lines.append("{ V q = {}, qx = {}, qy = {};")
            for b in range(degrees[1], -1, -1):
                row = [table.get((a, b, c)) for a in range(degrees[0] + 1)]
                if all(k is None for k in row):
                    lines.append("qy = qy * y + q; q *= y; qx *= y;")
                    continue
                lines.append("{ V s = {}, sx = {};")
                top = max(a for a, k in enumerate(row) if k is not None)
                for a in range(top, -1, -1):
                    place = row[a]
                    lines.append(f"sx = sx * x + s; s = s * x{'' if place is None else f' + m[{place}]'};")
                lines.append("qy = qy * y + q; q = q * y + s; qx = qx * y + sx; }")
            lines.append("pz = pz * z + p; p = p * z + q; px = px * z + qx; py = py * z + qy; }")
        lines.append(
            f"along += df[{mu}] * p; g[0] += f[{mu}] * px; g[1] += f[{mu}] * py; g[2] += f[{mu}] * pz; }}"
        )
    return lines


def _body(lines: list[str]) -> str:
    return "{\n  " + "\n  ".join(lines) + "\n}\n"


def _each_neighbour(potential: MTPotential) -> list[str]:
    """`gather` and `scatter`, on numbers or vectors V."""
    return [
        "template <class V>",
        "BOTH void gather(const V (&f)[FUNCTIONS], V x, V y, V z, V (&m)[BASICS])",
        _body(_gather(potential)),
        "template <class V>",
        "BOTH void scatter(const double (&m)[BASICS], const V (&f)[FUNCTIONS], const V (&df)[FUNCTIONS],",
        "                  V x, V y, V z, V &along, V (&g)[3])",
        _body(_scatter(potential)),
    ]


def _whole(values: list[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def shape_header(potential: MTPotential) -> str:
    """The text of `mtp_shape.h`: as `model_header`, for every potential with the same moments, whatever their weights.

    `contract` takes the coefficients of the scalar moments; SHAPE_* are the tables of the `.mtp` file it is for.
    """
    scalars = len(potential.alpha_moment_mapping)
    parts = [
        f"constexpr int FUNCTIONS = {potential.radial_function_count}, RADIAL = {potential.radial_basis_size};",
        f"constexpr int BASICS = {len(potential.alpha_index_basic)};",
        f"const std::vector<int> SHAPE_BASIC = {_whole(potential.alpha_index_basic.ravel().tolist())};",
        f"const std::vector<int> SHAPE_TIMES = {_whole(potential.alpha_index_times.ravel().tolist())};",
        f"const std::vector<int> SHAPE_MAPPING = {_whole(potential.alpha_moment_mapping.tolist())};",
        "BOTH double contract(const double *xi, double (&m)[BASICS])",
        _body(_contract(potential, [f"xi[{q}]" for q in range(scalars)])),
        *_each_neighbour(potential),
    ]
    return "\n".join(parts)


def model_header(potential: MTPotential, core: RepulsiveCore | None = None) -> str:
    """The text of `batch_model.h` for a potential with species, and its core.

    It defines sizes, coefficients, and `gather` (one neighbour's share of the basic moments), `contract` (energy of an
    atom in eV, moments replaced by their derivatives), `scatter` (sums of df_mu P_mu and f_mu grad P_mu of one
    neighbour, P_mu the polynomial of radial function mu). Numbers are written with all their digits.
    """
    n, functions, size = (
        potential.species_count,
        potential.radial_function_count,
        potential.radial_basis_size,
    )
    rows = potential.radial_coefficients.reshape(n * n, functions * size).tolist()
    table = None if core is None else core.table(potential.species).reshape(n * n, 4).tolist()
    pairs = table or [[0.0, 0.0, 0.0, 1.0]] * (n * n)

    parts = [
        f'#define CHECKSUM "{potential.checksum}"',
        "#ifdef __CUDACC__",
        "#define ON_DEVICE __device__",
        "#else",
        "#define ON_DEVICE",
        "#endif",
        f"constexpr int SPECIES = {n}, FUNCTIONS = {functions}, RADIAL = {size};",
        f"constexpr int BASICS = {len(potential.alpha_index_basic)};",
        f"constexpr double CUTOFF = {potential.cutoff!r}, LOW = {potential.min_distance!r};",
        f"constexpr double SCALING = {potential.scaling!r};",
        f"constexpr bool HAS_CORE = {'true' if table else 'false'};  // e^2/(4 pi eps0) {COULOMB!r} eV angstrom",
        f"static const double RADIAL_COEFFICIENTS[{n * n}][{functions * size}] = {{"
        + ",\n".join(_numbers(row) for row in rows)
        + "};",
        f"ON_DEVICE static const double SPECIES_ENERGY[{n}] = {_numbers(potential.species_coefficients.tolist())};",
        f"ON_DEVICE static const double CORE[{n * n}][4] = {{{', '.join(_numbers(pair) for pair in pairs)}}};",
        _CORE,
        "BOTH double contract(double (&m)[BASICS])",
        _body(_contract(potential, [repr(value) for value in potential.moment_coefficients.tolist()])),
        *_each_neighbour(potential),
    ]
    return "\n".join(parts)
