// Site energy and gradient of moment tensor potentials of one shape, a few neighbours at a time in registers.
// Beside this file lies `mtp_shape.h`, written for the shape (atomistic/mtp/batch_source.py).

#ifndef MTP_STRAIGHT_H
#define MTP_STRAIGHT_H

#include "mtp_model.h"

#define BOTH static inline __attribute__((always_inline))

namespace {

constexpr int LANES = 4;
typedef double Lanes __attribute__((vector_size(8 * LANES)));

#include "mtp_shape.h"

bool has_this_shape(const Model &model)
{
  return model.n_functions == FUNCTIONS && model.size == RADIAL && model.basic_table == SHAPE_BASIC &&
      model.times_table == SHAPE_TIMES && model.mapping == SHAPE_MAPPING;
}

// As `site_energy`; every species begins at a multiple of LANES.
MTP_VERSIONS
double site_straight(const Model &model, int zi, const int *bound, Work &w)
{
  const int s = w.stride;
  const double cutoff = model.cutoff, low = model.low, scaling = model.scaling;
  const double slope = 2.0 / (cutoff - low);
  auto lanes = [](double *row) { return reinterpret_cast<Lanes *>(row); };
  Lanes sums[BASICS];
  for (int b = 0; b < BASICS; b++) sums[b] = Lanes{};
  for (int zj = 0; zj < model.n_species; zj++) {
    const double *const c = &model.coefficients[(size_t) (zi * model.n_species + zj) * FUNCTIONS * RADIAL];
    for (int k = bound[zj]; k < bound[zj + 1]; k += LANES) {
      Lanes r = *lanes(w.r + k);
      for (int a = 0; a < LANES; a++) r[a] = sqrt(r[a]);
      const Lanes inverse = 1.0 / r;
      const Lanes x = *lanes(w.unit + k) * inverse;
      const Lanes y = *lanes(w.unit + s + k) * inverse;
      const Lanes z = *lanes(w.unit + 2 * s + k) * inverse;
      *lanes(w.r + k) = r;
      *lanes(w.inverse + k) = inverse;
      *lanes(w.unit + k) = x;
      *lanes(w.unit + s + k) = y;
      *lanes(w.unit + 2 * s + k) = z;
      const Lanes away = cutoff - r, xi = slope * (r - low) - 1.0;
      Lanes t0 = scaling * away * away, d0 = -2.0 * scaling * away;
      Lanes t1 = xi * t0, d1 = slope * t0 + xi * d0;
      Lanes f[FUNCTIONS], df[FUNCTIONS];
      for (int mu = 0; mu < FUNCTIONS; mu++) {
        f[mu] = c[mu * RADIAL] * t0 + c[mu * RADIAL + 1] * t1;
        df[mu] = c[mu * RADIAL] * d0 + c[mu * RADIAL + 1] * d1;
      }
#pragma GCC unroll 16
      for (int n = 2; n < RADIAL; n++) {
        const Lanes t2 = 2.0 * xi * t1 - t0, d2 = 2.0 * (slope * t1 + xi * d1) - d0;
        for (int mu = 0; mu < FUNCTIONS; mu++) {
          f[mu] += c[mu * RADIAL + n] * t2;
          df[mu] += c[mu * RADIAL + n] * d2;
        }
        t0 = t1;
        t1 = t2;
        d0 = d1;
        d1 = d2;
      }
      for (int mu = 0; mu < FUNCTIONS; mu++) {
        *lanes(w.f + mu * s + k) = f[mu];
        *lanes(w.df + mu * s + k) = df[mu];
      }
      gather(f, x, y, z, sums);
    }
  }
  double m[BASICS];
  for (int b = 0; b < BASICS; b++) {
    m[b] = 0.0;
    for (int a = 0; a < LANES; a++) m[b] += sums[b][a];
  }
  // From here on m holds the derivatives of the energy with respect to the basic moments.
  const double energy = model.species_energy[zi] + contract(model.xi.data(), m);
  for (int k = 0; k < bound[model.n_species]; k += LANES) {
    Lanes f[FUNCTIONS], df[FUNCTIONS];
    for (int mu = 0; mu < FUNCTIONS; mu++) {
      f[mu] = *lanes(w.f + mu * s + k);
      df[mu] = *lanes(w.df + mu * s + k);
    }
    const Lanes x = *lanes(w.unit + k), y = *lanes(w.unit + s + k), z = *lanes(w.unit + 2 * s + k);
    const Lanes inverse = *lanes(w.inverse + k);
    Lanes along = {}, g[3] = {};
    scatter(m, f, df, x, y, z, along, g);
    along -= (x * g[0] + y * g[1] + z * g[2]) * inverse;
    *lanes(w.g + k) = g[0] * inverse + along * x;
    *lanes(w.g + s + k) = g[1] * inverse + along * y;
    *lanes(w.g + 2 * s + k) = g[2] * inverse + along * z;
  }
  return energy;
}

}    // namespace

#endif
