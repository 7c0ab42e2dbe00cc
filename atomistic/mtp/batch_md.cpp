// Molecular dynamics of many independent cells at once with one moment tensor potential, on a GPU or on the host.
//
// `batch_model.h` is written for the potential (atomistic/mtp/batch_source.py) and compiled in. One thread per atom;
// forces are summed as whole numbers, so that the order of the sums does not matter and a run repeats to the bit.
// Usage: batch_md JOB OUT SECONDS. SECONDS 0 writes energies, stresses and forces of the start as text instead.
// Units: angstrom, ps, eV, K; pressures in bar.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#ifdef __CUDACC__
#define BOTH __host__ __device__ inline
#else
#define BOTH inline
#endif

#include "batch_model.h"

namespace {

constexpr double BOLTZMANN = 8.617333262e-5;          // eV/K
constexpr double AMU = 1.0364269574711572e-4;         // eV ps^2/angstrom^2
constexpr double BAR = 6.241509074460763e-7;          // eV/angstrom^3
constexpr double FORCE_UNIT = 274877906944.0;         // 2^38 per eV/angstrom
constexpr double LARGEST_GRADIENT = 1e6;              // keeps whole numbers in range; such a cell is lost anyway
constexpr double COMPRESSIBILITY = 1.6021766;         // angstrom^3/eV, that of 100 GPa; sets only the rate
constexpr double BAROSTAT_TIME = 0.5;                 // ps
constexpr int THERMOSTAT_EVERY = 10, BAROSTAT_EVERY = 10, CAPACITY = 160, THREADS = 128;
constexpr unsigned ATOM_BITS = 20, ATOM_MASK = (1u << ATOM_BITS) - 1;
constexpr int STRIDE = FUNCTIONS * RADIAL + 1;        // odd, so that pairs lie in different banks of shared memory
constexpr int RUNNING = 0, HOT = 1, CROWDED = 2;

struct alignas(32) Site {
  double x, y, z;
  long long species;
};

// Everything the kernels touch; plain pointers, passed by value.
struct State {
  int replicas, atoms;
  double dt, skin, thermostat;
  const int *replica_of, *begin, *barostat;
  const double *mass, *target, *pressure;
  const std::uint64_t *seed;
  Site *site;
  double *v, *reference, *cell, *energy, *virial, *strain, *mean_cell, *report, *snapshot, *speeds;
  long long *force;
  unsigned *list;
  int *count, *image, *rebuild, *status;
};

BOTH void add(long long *where, double value)
{
  value = value > LARGEST_GRADIENT ? LARGEST_GRADIENT : value < -LARGEST_GRADIENT ? -LARGEST_GRADIENT : value;
  const long long whole = llrint(value == value ? value * FORCE_UNIT : 0.0);
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long *>(where), static_cast<unsigned long long>(whole));
#else
  *where += whole;
#endif
}

// Radial functions of one pair of species at distance r, and with DERIVATIVE their derivatives.
template <bool DERIVATIVE>
BOTH void radial(const double *c, double r, double (&f)[FUNCTIONS], double (&df)[FUNCTIONS])
{
  constexpr double slope = 2.0 / (CUTOFF - LOW);
  const double away = CUTOFF - r, xi = slope * (r - LOW) - 1.0;
  double t0 = SCALING * away * away, d0 = -2.0 * SCALING * away;
  double t1 = xi * t0, d1 = slope * t0 + xi * d0;
  for (int mu = 0; mu < FUNCTIONS; mu++) {
    f[mu] = c[mu * RADIAL] * t0 + c[mu * RADIAL + 1] * t1;
    if (DERIVATIVE) df[mu] = c[mu * RADIAL] * d0 + c[mu * RADIAL + 1] * d1;
  }
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int n = 2; n < RADIAL; n++) {
    const double t2 = 2.0 * xi * t1 - t0;
    const double d2 = DERIVATIVE ? 2.0 * (slope * t1 + xi * d1) - d0 : 0.0;
    for (int mu = 0; mu < FUNCTIONS; mu++) {
      f[mu] += c[mu * RADIAL + n] * t2;
      if (DERIVATIVE) df[mu] += c[mu * RADIAL + n] * d2;
    }
    t0 = t1;
    t1 = t2;
    d0 = d1;
    d1 = d2;
  }
}

BOTH int shift_of(unsigned word, int axis) { return (int) (word >> (ATOM_BITS + 4 * axis) & 15u) - 8; }

// Vector to the k-th listed neighbour of atom i; its squared length is returned.
BOTH double vector_to(const State &s, const double *h, const Site &here, unsigned word, Site &other, double (&d)[3])
{
  other = s.site[word & ATOM_MASK];
  const double a = shift_of(word, 0), b = shift_of(word, 1), c = shift_of(word, 2);
  d[0] = other.x - here.x + a * h[0] + b * h[3] + c * h[6];
  d[1] = other.y - here.y + a * h[1] + b * h[4] + c * h[7];
  d[2] = other.z - here.z + a * h[2] + b * h[5] + c * h[8];
  return d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
}

// Site energy of atom i, and what it adds to forces and stress. `table` holds the radial coefficients.
ON_DEVICE inline void site_energy(const State &s, const double *table, int i)
{
  const int replica = s.replica_of[i];
  if (s.status[replica] != RUNNING) return;
  const double *const h = s.cell + 9 * replica;
  const Site here = s.site[i];
  const int n = s.count[i];
  double m[BASICS], f[FUNCTIONS], df[FUNCTIONS], d[3], energy = SPECIES_ENERGY[here.species];
  Site other;
  for (int b = 0; b < BASICS; b++) m[b] = 0.0;
  for (int k = 0; k < n; k++) {
    const double square = vector_to(s, h, here, s.list[(std::size_t) k * s.atoms + i], other, d);
    if (square >= CUTOFF * CUTOFF) continue;
    const double r = sqrt(square), inverse = 1.0 / r;
    radial<false>(table + (here.species * SPECIES + other.species) * STRIDE, r, f, df);
    gather(f, d[0] * inverse, d[1] * inverse, d[2] * inverse, m);
  }
  // From here on m holds the derivatives of the energy with respect to the basic moments.
  energy += contract(m);
  double own[3] = {0.0, 0.0, 0.0}, virial[3] = {0.0, 0.0, 0.0};
  for (int k = 0; k < n; k++) {
    const unsigned word = s.list[(std::size_t) k * s.atoms + i];
    const double square = vector_to(s, h, here, word, other, d);
    if (square >= CUTOFF * CUTOFF) continue;
    const double r = sqrt(square), inverse = 1.0 / r;
    radial<true>(table + (here.species * SPECIES + other.species) * STRIDE, r, f, df);
    const double u[3] = {d[0] * inverse, d[1] * inverse, d[2] * inverse};
    double along = 0.0, g[3] = {0.0, 0.0, 0.0};
    scatter(m, f, df, u[0], u[1], u[2], along, g);
    along -= (u[0] * g[0] + u[1] * g[1] + u[2] * g[2]) * inverse;
    if (HAS_CORE) {
      const double *const core = CORE[here.species * SPECIES + other.species];
      if (r < core[1]) {
        double slope;
        energy += 0.5 * core_energy(core, r, slope);
        along += 0.5 * slope;
      }
    }
    for (int a = 0; a < 3; a++) {
      g[a] = g[a] * inverse + along * u[a];
      own[a] += g[a];
      virial[a] += g[a] * d[a];
      add(s.force + 3 * (word & ATOM_MASK) + a, -g[a]);
    }
  }
  for (int a = 0; a < 3; a++) {
    add(s.force + 3 * i + a, own[a]);
    s.virial[3 * i + a] = virial[a];
  }
  s.energy[i] = energy;
}

BOTH void inverse_of(const double *h, double (&g)[9])
{
  const double det = h[0] * (h[4] * h[8] - h[5] * h[7]) - h[1] * (h[3] * h[8] - h[5] * h[6]) +
      h[2] * (h[3] * h[7] - h[4] * h[6]);
  g[0] = (h[4] * h[8] - h[5] * h[7]) / det;
  g[1] = (h[2] * h[7] - h[1] * h[8]) / det;
  g[2] = (h[1] * h[5] - h[2] * h[4]) / det;
  g[3] = (h[5] * h[6] - h[3] * h[8]) / det;
  g[4] = (h[0] * h[8] - h[2] * h[6]) / det;
  g[5] = (h[2] * h[3] - h[0] * h[5]) / det;
  g[6] = (h[3] * h[7] - h[4] * h[6]) / det;
  g[7] = (h[1] * h[6] - h[0] * h[7]) / det;
  g[8] = (h[0] * h[4] - h[1] * h[3]) / det;
}

// Volume of a cell from its inverse.
BOTH double volume_of(const double *h)
{
  return fabs(h[0] * (h[4] * h[8] - h[5] * h[7]) - h[1] * (h[3] * h[8] - h[5] * h[6]) +
              h[2] * (h[3] * h[7] - h[4] * h[6]));
}

// New list of atom i where its cell asks for one: every image within cutoff and skin.
BOTH void find_neighbours(const State &s, int i)
{
  const int replica = s.replica_of[i];
  if (!s.rebuild[replica] || s.status[replica] != RUNNING) return;
  const double *const h = s.cell + 9 * replica;
  const double range = CUTOFF + s.skin;
  double g[9], reach[3];
  inverse_of(h, g);
  // Columns of the inverse: their lengths are one over the heights of the cell.
  for (int a = 0; a < 3; a++) reach[a] = range * sqrt(g[a] * g[a] + g[3 + a] * g[3 + a] + g[6 + a] * g[6 + a]);
  const Site here = s.site[i];
  int n = 0;
  for (int j = s.begin[replica]; j < s.begin[replica + 1]; j++) {
    const double x = s.site[j].x - here.x, y = s.site[j].y - here.y, z = s.site[j].z - here.z;
    double f[3];
    int low[3], high[3];
    bool near = true;
    for (int a = 0; a < 3; a++) {
      f[a] = x * g[a] + y * g[3 + a] + z * g[6 + a];
      low[a] = (int) ceil(-reach[a] - f[a]);
      high[a] = (int) floor(reach[a] - f[a]);
      near = near && low[a] <= high[a];
    }
    if (!near) continue;
    for (int a = low[0]; a <= high[0]; a++)
      for (int b = low[1]; b <= high[1]; b++)
        for (int c = low[2]; c <= high[2]; c++) {
          if (i == j && a == 0 && b == 0 && c == 0) continue;
          const double dx = x + a * h[0] + b * h[3] + c * h[6];
          const double dy = y + a * h[1] + b * h[4] + c * h[7];
          const double dz = z + a * h[2] + b * h[5] + c * h[8];
          if (dx * dx + dy * dy + dz * dz >= range * range) continue;
          if (n < CAPACITY)
            s.list[(std::size_t) n * s.atoms + i] = (unsigned) j | (unsigned) (a + 8) << ATOM_BITS |
                (unsigned) (b + 8) << (ATOM_BITS + 4) | (unsigned) (c + 8) << (ATOM_BITS + 8);
          n++;
        }
  }
  s.count[i] = n < CAPACITY ? n : CAPACITY;
  if (n > CAPACITY) s.status[replica] = CROWDED;
}

// Random numbers by counting: the same for the same seed, step and place, whoever asks.
struct Random {
  std::uint64_t state;

  BOTH std::uint64_t next()
  {
    std::uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  BOTH double uniform() { return ((double) (next() >> 11) + 0.5) / 9007199254740992.0; }
  BOTH double normal()
  {
    const double radius = sqrt(-2.0 * log(uniform()));
    return radius * cos(6.283185307179586 * uniform());
  }
  // Gamma of shape a >= 1 (Marsaglia and Tsang 2000).
  BOTH double gamma(double a)
  {
    const double d = a - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (int tries = 0; tries < 1000; tries++) {
      const double x = normal(), t = 1.0 + c * x, v = t * t * t;
      if (v > 0.0 && log(uniform()) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
    return a;
  }
};

BOTH Random random_at(std::uint64_t seed, long long step, int what)
{
  Random r{seed * 0xd1342543de82ef95ull + (std::uint64_t) step * 8 + (std::uint64_t) what};
  r.next();
  return Random{r.next()};
}

// Factor of the velocities; c = exp(-time / relaxation time) (Bussi, Donadio, Parrinello 2007).
BOTH double rescaling(Random r, double kinetic, double temperature, int freedom, double c)
{
  const double ratio = 0.5 * BOLTZMANN * temperature / kinetic;
  const double first = r.normal(), rest = 2.0 * r.gamma(0.5 * (freedom - 1));
  const double square = c + (1.0 - c) * ratio * (first * first + rest) + 2.0 * first * sqrt(c * (1.0 - c) * ratio);
  return sqrt(square > 0.0 ? square : 0.0);
}

// The threads that share one cell; on the host there is one.
struct Team {
  int lane, lanes;
  double *scratch;

#ifdef __CUDA_ARCH__
  __device__ void sync() const { __syncthreads(); }
#else
  BOTH void sync() const {}
#endif
  BOTH double sum(double value) const { return all(value, false); }
  BOTH double largest(double value) const { return all(value, true); }
  BOTH double all(double value, bool largest) const
  {
    sync();
    scratch[lane] = value;
    sync();
    for (int half = lanes / 2; half > 0; half /= 2) {
      if (lane < half) {
        const double other = scratch[lane + half];
        scratch[lane] = largest ? (scratch[lane] > other ? scratch[lane] : other) : scratch[lane] + other;
      }
      sync();
    }
    return scratch[0];
  }
};

struct Phase {
  long long step;                     // steps done when this is called
  bool kick;                          // velocities are half a step behind
  bool constant_pressure, average, record;
};

// One cell between two force calls: ends the step, thermostat, barostat, measures, and moves on to the next positions.
BOTH void advance(const State &s, const Team &team, int replica, const Phase &phase)
{
  if (s.status[replica] != RUNNING) return;
  const int first = s.begin[replica], last = s.begin[replica + 1], freedom = 3 * (last - first) - 3;
  double *const h = s.cell + 9 * replica;
  const double temperature = s.target[replica];
  const int barostat = phase.constant_pressure ? s.barostat[replica] : 0;
  const bool press = barostat && phase.step % BAROSTAT_EVERY == 0 && phase.step > 0;
  double kinetic[3] = {0.0, 0.0, 0.0};
  for (int i = first + team.lane; i < last; i += team.lanes)
    for (int a = 0; a < 3; a++) {
      double &v = s.v[3 * i + a];
      if (phase.kick) v += 0.5 * s.dt / s.mass[i] * ((double) s.force[3 * i + a] / FORCE_UNIT);
      kinetic[a] += s.mass[i] * v * v;
    }
  for (int a = 0; a < 3; a++) kinetic[a] = team.sum(kinetic[a]);
  double total = 0.5 * (kinetic[0] + kinetic[1] + kinetic[2]);
  double factor = 1.0;
  if (s.thermostat > 0.0 && phase.step % THERMOSTAT_EVERY == 0 && phase.step > 0) {
    factor = rescaling(random_at(s.seed[replica], phase.step, 0), total, temperature, freedom,
                       exp(-THERMOSTAT_EVERY * s.dt / s.thermostat));
    total *= factor * factor;
    for (int a = 0; a < 3; a++) kinetic[a] *= factor * factor;
  }
  const double now = 2.0 * total / (freedom * BOLTZMANN);
  // Not a number fails this comparison too.
  const bool lost = !(now < 3.0 * temperature + 500.0);
  double stretch[3] = {1.0, 1.0, 1.0};
  if (press || phase.record) {
    double virial[3] = {0.0, 0.0, 0.0}, energy = 0.0;
    for (int i = first + team.lane; i < last; i += team.lanes) {
      for (int a = 0; a < 3; a++) virial[a] += s.virial[3 * i + a];
      energy += s.energy[i];
    }
    for (int a = 0; a < 3; a++) virial[a] = team.sum(virial[a]);
    energy = team.sum(energy);
    const double volume = volume_of(h);
    if (phase.record && team.lane == 0) {
      double *const report = s.report + 7 * replica;
      report[0] = now;
      report[1] = energy;
      for (int a = 0; a < 3; a++) report[2 + a] = (virial[a] - kinetic[a]) / volume / BAR;
      report[5] = volume;
      report[6] = total;
    }
    if (press) {
      // Stochastic cell rescaling (Bernetti and Bussi 2020; axes of their own: Del Tatto et al. 2022).
      Random r = random_at(s.seed[replica], phase.step, 1);
      const double t = BAROSTAT_EVERY * s.dt, rate = COMPRESSIBILITY * t / BAROSTAT_TIME;
      const double wanted = s.pressure[replica] * BAR, noise = sqrt(2.0 * BOLTZMANN * temperature * rate / volume);
      double change[3];
      if (barostat == 1) {
        const double mean = (kinetic[0] + kinetic[1] + kinetic[2] - virial[0] - virial[1] - virial[2]) / (3.0 * volume);
        change[0] = change[1] = change[2] = (rate * (mean - wanted) + noise * r.normal()) / 3.0;
      } else {
        for (int a = 0; a < 3; a++)
          change[a] = rate / 3.0 * ((kinetic[a] - virial[a]) / volume - wanted) + noise * sqrt(1.0 / 3.0) * r.normal();
      }
      for (int a = 0; a < 3; a++) {
        const double bounded = change[a] > 0.01 ? 0.01 : change[a] < -0.01 ? -0.01 : change[a];
        stretch[a] = exp(bounded);
      }
    }
  }
  team.sync();
  if (press && team.lane == 0)
    for (int a = 0; a < 3; a++) {
      for (int b = 0; b < 3; b++) h[3 * b + a] *= stretch[a];
      s.strain[3 * replica + a] += fabs(log(stretch[a]));
    }
  team.sync();
  if (phase.average && team.lane == 0)
    for (int a = 0; a < 9; a++) s.mean_cell[9 * replica + a] += h[a];
  double slack = 0.0, farthest = 0.0;
  for (int a = 0; a < 3; a++) slack = s.strain[3 * replica + a] > slack ? s.strain[3 * replica + a] : slack;
  for (int i = first + team.lane; i < last; i += team.lanes) {
    double *const x[3] = {&s.site[i].x, &s.site[i].y, &s.site[i].z};
    double away = 0.0;
    for (int a = 0; a < 3; a++) {
      double &v = s.v[3 * i + a], &old = s.reference[3 * i + a];
      v *= factor / stretch[a];
      *x[a] *= stretch[a];
      old *= stretch[a];
      if (phase.record) {
        const int *const image = s.image + 3 * i;
        s.snapshot[3 * i + a] = *x[a] + image[0] * h[a] + image[1] * h[3 + a] + image[2] * h[6 + a];
        s.speeds[3 * i + a] = v;
      }
      v += 0.5 * s.dt / s.mass[i] * ((double) s.force[3 * i + a] / FORCE_UNIT);
      *x[a] += s.dt * v;
      s.force[3 * i + a] = 0;
      away += (*x[a] - old) * (*x[a] - old);
    }
    farthest = away > farthest ? away : farthest;
  }
  farthest = team.largest(farthest);
  const bool rebuild = 2.0 * sqrt(farthest) + (CUTOFF + s.skin) * slack > s.skin;
  if (rebuild) {
    double g[9];
    inverse_of(h, g);
    for (int i = first + team.lane; i < last; i += team.lanes) {
      Site &site = s.site[i];
      const double x[3] = {site.x, site.y, site.z};
      double moved[3] = {x[0], x[1], x[2]};
      for (int a = 0; a < 3; a++) {
        const int cells = (int) floor(x[0] * g[a] + x[1] * g[3 + a] + x[2] * g[6 + a]);
        s.image[3 * i + a] += cells;
        for (int b = 0; b < 3; b++) moved[b] -= cells * h[3 * a + b];
      }
      site.x = moved[0];
      site.y = moved[1];
      site.z = moved[2];
      for (int a = 0; a < 3; a++) s.reference[3 * i + a] = moved[a];
    }
  }
  team.sync();
  if (team.lane == 0) {
    s.rebuild[replica] = rebuild;
    if (rebuild)
      for (int a = 0; a < 3; a++) s.strain[3 * replica + a] = 0.0;
    if (lost) s.status[replica] = HOT;
  }
}

#ifdef __CUDACC__

void check(cudaError_t code, const char *what)
{
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "batch_md: %s: %s\n", what, cudaGetErrorString(code));
  std::exit(3);
}

__global__ void __launch_bounds__(THREADS, 3) site_kernel(State s, const double *table)
{
  __shared__ double held[SPECIES * SPECIES * STRIDE];
  for (int k = threadIdx.x; k < SPECIES * SPECIES * STRIDE; k += THREADS) held[k] = table[k];
  __syncthreads();
  const int i = blockIdx.x * THREADS + threadIdx.x;
  if (i < s.atoms) site_energy(s, held, i);
}

__global__ void __launch_bounds__(THREADS) list_kernel(State s)
{
  const int i = blockIdx.x * THREADS + threadIdx.x;
  if (i < s.atoms) find_neighbours(s, i);
}

__global__ void __launch_bounds__(2 * THREADS) replica_kernel(State s, Phase phase)
{
  __shared__ double scratch[2 * THREADS];
  advance(s, Team{(int) threadIdx.x, 2 * THREADS, scratch}, blockIdx.x, phase);
}

void forces(const State &s, const double *table)
{
  const int blocks = (s.atoms + THREADS - 1) / THREADS;
  list_kernel<<<blocks, THREADS>>>(s);
  site_kernel<<<blocks, THREADS>>>(s, table);
}

void move(const State &s, const Phase &phase) { replica_kernel<<<s.replicas, 2 * THREADS>>>(s, phase); }

#else

void forces(const State &s, const double *table)
{
  for (int i = 0; i < s.atoms; i++) find_neighbours(s, i);
  for (int i = 0; i < s.atoms; i++) site_energy(s, table, i);
}

void move(const State &s, const Phase &phase)
{
  double scratch[1];
  for (int r = 0; r < s.replicas; r++) advance(s, Team{0, 1, scratch}, r, phase);
}

#endif

// An array here and, with a GPU, its twin there.
template <class T>
struct Twin {
  std::vector<T> here;
  T *there = nullptr;

  void start(std::size_t n, T value = T()) { start(std::vector<T>(n, value)); }
  void start(const std::vector<T> &values)
  {
    here = values;
#ifdef __CUDACC__
    check(cudaMalloc(&there, here.size() * sizeof(T) + 1), "memory");
    push();
#else
    there = here.data();
#endif
  }
  void push()
  {
#ifdef __CUDACC__
    check(cudaMemcpy(there, here.data(), here.size() * sizeof(T), cudaMemcpyHostToDevice), "copy to the GPU");
#endif
  }
  void pull()
  {
#ifdef __CUDACC__
    check(cudaMemcpy(here.data(), there, here.size() * sizeof(T), cudaMemcpyDeviceToHost), "copy from the GPU");
#endif
  }
};

struct Job {
  double dt = 0.0, skin = 0.7, thermostat = 0.1, resolution = 0.03125;
  long long npt_steps = 0, steps = 0, frame_steps = 1;
  std::vector<int> begin{0}, barostat, species;
  std::vector<double> target, pressure, cell, x, mass;
  std::vector<std::uint64_t> seed;
};

[[noreturn]] void refuse(const std::string &what)
{
  std::fprintf(stderr, "batch_md: %s\n", what.c_str());
  std::exit(2);
}

template <class T>
T value(std::istream &in, const std::string &what)
{
  T out;
  if (!(in >> out)) refuse("the job ends or is damaged at " + what);
  return out;
}

Job read_job(const char *path)
{
  std::ifstream in(path);
  if (!in) refuse(std::string(path) + " cannot be read");
  std::string key;
  if (!(in >> key) || key != "mtp-batch-2") refuse(std::string(path) + " is no job of this program");
  Job job;
  std::vector<double> masses(SPECIES, 0.0);
  while (in >> key) {
    if (key == "potential") {
      const std::string name = value<std::string>(in, key);
      if (name != CHECKSUM) refuse("the job is for potential " + name + ", this program was compiled for " CHECKSUM);
    } else if (key == "timestep_ps") job.dt = value<double>(in, key);
    else if (key == "thermostat_ps") job.thermostat = value<double>(in, key);
    else if (key == "skin") job.skin = value<double>(in, key);
    else if (key == "resolution") job.resolution = value<double>(in, key);
    else if (key == "npt_steps") job.npt_steps = value<long long>(in, key);
    else if (key == "steps") job.steps = value<long long>(in, key);
    else if (key == "frame_steps") job.frame_steps = value<long long>(in, key);
    else if (key == "masses") for (double &mass : masses) mass = value<double>(in, key);
    else if (key == "replica") {
      const int n = value<int>(in, key);
      if (n < 2) refuse("a replica holds fewer than two atoms");
      job.target.push_back(value<double>(in, key));
      if (!(job.target.back() > 0.0)) refuse("a temperature is not positive");
      job.pressure.push_back(value<double>(in, key));
      job.barostat.push_back(value<int>(in, key));
      job.seed.push_back(value<std::uint64_t>(in, key));
      for (int k = 0; k < 9; k++) job.cell.push_back(value<double>(in, "a cell"));
      for (int i = 0; i < n; i++) {
        const int z = value<int>(in, "an atom");
        if (z < 0 || z >= SPECIES) refuse("a species is out of range");
        job.species.push_back(z);
        job.mass.push_back(masses[z] * AMU);
        for (int a = 0; a < 3; a++) job.x.push_back(value<double>(in, "an atom"));
      }
      job.begin.push_back(job.begin.back() + n);
    } else refuse("unknown key " + key);
  }
  if (job.target.empty()) refuse("the job holds no replica");
  if (job.begin.back() > (int) ATOM_MASK) refuse("too many atoms for one job");
  if (!(job.dt > 0.0) || job.frame_steps < 1) refuse("timestep_ps and frame_steps must be positive");
  return job;
}

// Wrapped positions, image counts, and velocities at each replica's temperature without a drift.
class Batch {
 public:
  explicit Batch(const Job &job) : job_(job)
  {
    const int replicas = (int) job.target.size(), atoms = job.begin.back();
    std::vector<Site> sites(atoms);
    std::vector<int> of(atoms), images(3 * (std::size_t) atoms, 0);
    std::vector<double> v(3 * (std::size_t) atoms, 0.0);
    for (int r = 0; r < replicas; r++) {
      double g[9];
      const double *const h = &job.cell[9 * (std::size_t) r];
      inverse_of(h, g);
      Random random{job.seed[r] ^ 0x5851f42d4c957f2dull};
      double momentum[3] = {0.0, 0.0, 0.0}, mass = 0.0, kinetic = 0.0;
      const int n = job.begin[r + 1] - job.begin[r];
      for (int i = job.begin[r]; i < job.begin[r + 1]; i++) {
        of[i] = r;
        double x[3] = {job.x[3 * i], job.x[3 * i + 1], job.x[3 * i + 2]}, moved[3] = {x[0], x[1], x[2]};
        for (int a = 0; a < 3; a++) {
          const int cells = (int) floor(x[0] * g[a] + x[1] * g[3 + a] + x[2] * g[6 + a]);
          images[3 * (std::size_t) i + a] = cells;
          for (int b = 0; b < 3; b++) moved[b] -= cells * h[3 * a + b];
          v[3 * (std::size_t) i + a] = sqrt(BOLTZMANN * job.target[r] / job.mass[i]) * random.normal();
          momentum[a] += job.mass[i] * v[3 * (std::size_t) i + a];
        }
        mass += job.mass[i];
        sites[i] = {moved[0], moved[1], moved[2], job.species[i]};
      }
      for (int i = job.begin[r]; i < job.begin[r + 1]; i++)
        for (int a = 0; a < 3; a++) {
          double &u = v[3 * (std::size_t) i + a];
          u -= momentum[a] / mass;
          kinetic += job.mass[i] * u * u;
        }
      const double wanted = (3 * n - 3) * BOLTZMANN * job.target[r];
      if (kinetic > 0.0)
        for (int i = 3 * job.begin[r]; i < 3 * job.begin[r + 1]; i++) v[i] *= sqrt(wanted / kinetic);
    }
    std::vector<double> table(SPECIES * SPECIES * STRIDE, 0.0);
    for (int p = 0; p < SPECIES * SPECIES; p++)
      for (int k = 0; k < FUNCTIONS * RADIAL; k++) table[p * STRIDE + k] = RADIAL_COEFFICIENTS[p][k];
    const std::size_t three = 3 * (std::size_t) atoms;
    of_.start(of); begin_.start(job.begin); barostat_.start(job.barostat); mass_.start(job.mass);
    target_.start(job.target); pressure_.start(job.pressure); seed_.start(job.seed); site_.start(sites);
    v_.start(v); reference_.start(three, 1e30); cell_.start(job.cell); energy_.start(atoms); virial_.start(three);
    strain_.start(3 * (std::size_t) replicas); mean_.start(9 * (std::size_t) replicas);
    report_.start(7 * (std::size_t) replicas); snapshot_.start(three); speeds_.start(three); force_.start(three, 0);
    list_.start((std::size_t) CAPACITY * atoms, 0); count_.start(atoms, 0); image_.start(images);
    rebuild_.start(replicas, 1); status_.start(replicas, RUNNING); table_.start(table);
    state_ = {replicas, atoms, job.dt, job.skin, job.thermostat, of_.there, begin_.there, barostat_.there, mass_.there,
              target_.there, pressure_.there, seed_.there, site_.there, v_.there, reference_.there, cell_.there, energy_.there,
              virial_.there, strain_.there, mean_.there, report_.there, snapshot_.there, speeds_.there, force_.there,
              list_.there, count_.there, image_.there, rebuild_.there, status_.there};
    for (int i = 0; i < atoms; i++) {
      reference_.here[3 * (std::size_t) i] = sites[i].x;
      reference_.here[3 * (std::size_t) i + 1] = sites[i].y;
      reference_.here[3 * (std::size_t) i + 2] = sites[i].z;
    }
    reference_.push();
  }

  void write_forces(const char *path)
  {
    forces(state_, table_.there);
    energy_.pull(); virial_.pull(); force_.pull(); status_.pull();
    std::FILE *const out = std::fopen(path, "w");
    if (!out) refuse(std::string(path) + " cannot be written");
    for (int r = 0; r < state_.replicas; r++) {
      double energy = 0.0, virial[3] = {0.0, 0.0, 0.0};
      for (int i = job_.begin[r]; i < job_.begin[r + 1]; i++) {
        energy += energy_.here[i];
        for (int a = 0; a < 3; a++) virial[a] += virial_.here[3 * (std::size_t) i + a];
      }
      const double volume = volume_of(&job_.cell[9 * (std::size_t) r]);
      std::fprintf(out, "%d %.17g %.17g %.17g %.17g\n", status_.here[r], energy, virial[0] / volume,
                   virial[1] / volume, virial[2] / volume);
      for (int i = 3 * job_.begin[r]; i < 3 * job_.begin[r + 1]; i += 3)
        std::fprintf(out, "%.17g %.17g %.17g\n", force_.here[i] / FORCE_UNIT, force_.here[i + 1] / FORCE_UNIT,
                     force_.here[i + 2] / FORCE_UNIT);
    }
    std::fclose(out);
  }

  void run(const char *path, double seconds)
  {
    const auto begin = std::chrono::steady_clock::now();
    auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
    out_ = std::fopen(path, "wb");
    if (!out_) refuse(std::string(path) + " cannot be written");
    std::fprintf(out_, "mtp-batch-2 %d %d %.17g %.17g %lld\n", state_.replicas, state_.atoms, job_.dt, job_.resolution,
                 job_.frame_steps);
    forces(state_, table_.there);
    const long long half = job_.npt_steps / 2;
    long long averaged = 0;
    for (long long n = 0; n < job_.npt_steps; n++) {
      const bool average = n >= half;
      averaged += average;
      step({n, n > 0, true, average, false});
      // A wait now and then, so that the queue of kernels stays short.
      if (n % 1000 == 999) status_.pull();
    }
    if (averaged) take_mean_cell(averaged);
    long long n = 0;
    bool late = false;
    for (; n <= job_.steps && !late; n++) {
      const bool record = n % job_.frame_steps == 0;
      // Numbers go on from those of the constant-pressure part, for other random numbers.
      const long long number = n + job_.npt_steps;
      const Phase phase{number, number > 0, false, false, record};
      move(state_, phase);
      if (record) {
        write_frame(n);
        late = elapsed() > seconds;
        if (late || n == job_.steps) break;
      }
      forces(state_, table_.there);
    }
    write_end(n);
    if (std::fclose(out_)) refuse(std::string(path) + " cannot be written");
    std::printf("%d replicas, %d atoms, %lld + %lld steps, %.2f s, %.4f us per atom and step\n", state_.replicas,
                state_.atoms, job_.npt_steps, n, elapsed(),
                1e6 * elapsed() / (double) (job_.npt_steps + n) / state_.atoms);
  }

 private:
  void step(const Phase &phase)
  {
    move(state_, phase);
    forces(state_, table_.there);
  }

  // Every cell strained to its mean over the second half of the constant-pressure part.
  void take_mean_cell(long long count)
  {
    mean_.pull(); cell_.pull(); site_.pull(); status_.pull();
    for (int r = 0; r < state_.replicas; r++) {
      if (status_.here[r] != RUNNING) continue;
      double g[9];
      double *const h = &cell_.here[9 * (std::size_t) r];
      inverse_of(h, g);
      double mean[9];
      for (int k = 0; k < 9; k++) mean[k] = mean_.here[9 * (std::size_t) r + k] / (double) count;
      for (int i = job_.begin[r]; i < job_.begin[r + 1]; i++) {
        Site &site = site_.here[i];
        const double x[3] = {site.x, site.y, site.z};
        double f[3];
        for (int a = 0; a < 3; a++) f[a] = x[0] * g[a] + x[1] * g[3 + a] + x[2] * g[6 + a];
        site.x = f[0] * mean[0] + f[1] * mean[3] + f[2] * mean[6];
        site.y = f[0] * mean[1] + f[1] * mean[4] + f[2] * mean[7];
        site.z = f[0] * mean[2] + f[1] * mean[5] + f[2] * mean[8];
        for (int a = 0; a < 3; a++)
          reference_.here[3 * (std::size_t) i + a] = a == 0 ? site.x : a == 1 ? site.y : site.z;
      }
      std::copy(mean, mean + 9, h);
    }
    std::fill(rebuild_.here.begin(), rebuild_.here.end(), 1);
    std::fill(force_.here.begin(), force_.here.end(), 0);
    cell_.push(); site_.push(); reference_.push(); rebuild_.push(); force_.push();
    forces(state_, table_.there);
  }

  void put(const void *data, std::size_t bytes)
  {
    if (std::fwrite(data, 1, bytes, out_) != bytes) refuse("the disk is full");
  }

  void write_frame(long long n)
  {
    snapshot_.pull(); report_.pull(); status_.pull();
    if (n == 0) {
      cell_.pull();
      origin_ = snapshot_.here;
      put("O", 1);
      put(origin_.data(), origin_.size() * 8);
      put(cell_.here.data(), cell_.here.size() * 8);
    }
    const std::int64_t number = n;
    for (int r = 0; r < state_.replicas; r++) report_.here[7 * (std::size_t) r + 6] = status_.here[r];
    std::vector<std::int16_t> moves(origin_.size());
    for (std::size_t k = 0; k < moves.size(); k++) {
      const double move = std::rint((snapshot_.here[k] - origin_[k]) / job_.resolution);
      moves[k] = (std::int16_t) (move > 32767.0 ? 32767.0 : move > -32767.0 ? move : -32767.0);
    }
    put("F", 1);
    put(&number, 8);
    put(report_.here.data(), report_.here.size() * 8);
    put(moves.data(), moves.size() * 2);
  }

  // Positions and velocities of the last frame, in full.
  void write_end(long long n)
  {
    snapshot_.pull(); speeds_.pull();
    const std::int64_t number = n;
    put("E", 1);
    put(&number, 8);
    put(snapshot_.here.data(), snapshot_.here.size() * 8);
    put(speeds_.here.data(), speeds_.here.size() * 8);
  }

  Job job_;
  State state_;
  std::FILE *out_ = nullptr;
  std::vector<double> origin_;
  Twin<int> of_, begin_, barostat_, count_, image_, rebuild_, status_;
  Twin<double> mass_, target_, pressure_, v_, reference_, cell_, energy_, virial_, strain_, mean_, report_, snapshot_,
      speeds_, table_;
  Twin<std::uint64_t> seed_;
  Twin<long long> force_;
  Twin<unsigned> list_;
  Twin<Site> site_;
};

}    // namespace

int main(int argc, char **argv)
{
  if (argc != 4) refuse("usage: batch_md JOB OUT SECONDS");
  Batch batch(read_job(argv[1]));
  const double seconds = std::atof(argv[3]);
  if (seconds > 0.0) batch.run(argv[2], seconds);
  else batch.write_forces(argv[2]);
#ifdef __CUDACC__
  check(cudaDeviceSynchronize(), "the GPU");
#endif
  return 0;
}
