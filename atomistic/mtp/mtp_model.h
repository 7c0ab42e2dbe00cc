// A moment tensor potential without LAMMPS: reading .mtp files, site energy and gradient, grade, repulsive core.

#ifndef MTP_MODEL_H
#define MTP_MODEL_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

// Several machine versions of the inner functions; the right one is chosen when the plugin is loaded. Compilers older
// than GCC 12 know the second list only, others none.
#if MTP_CLONES == 2
#define MTP_VERSIONS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif MTP_CLONES == 1
#define MTP_VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MTP_VERSIONS
#endif

using std::string;
using std::vector;

namespace {

const double ZBL_AMPLITUDE[4] = {0.18175, 0.50986, 0.28022, 0.02817};
const double ZBL_DECAY[4] = {3.19980, 0.94229, 0.40290, 0.20162};
const double COULOMB = 14.39964548;
const double SMALLEST = 1e-2;

struct Basic {
  int mu, monomial;
};
struct Product {
  int left, right, out;
  double factor;
};

struct Model {
  string file;
  vector<string> species;
  int n_species = 0, n_functions = 0, size = 0, n_moments = 0, n_monomials = 0;
  double cutoff = 0.0, low = 0.0, scaling = 1.0;
  vector<double> coefficients, species_energy, xi;
  vector<int> mapping, parent, axis, group, position;
  // Rows of `basics` ordered by mu; monomials ordered by parent and by axis; where each group of them begins.
  vector<int> basic_table, times_table;
  vector<int> by_mu, mu_group, children, child_group, by_axis, axis_group;
  vector<Basic> basics;
  vector<Product> products;
};

// Scratch rows of one atom's neighbours, all of the same stride.
struct Work {
  int stride = 0;
  vector<double> storage, m, d;
  double *unit, *r, *inverse, *t, *dt, *f, *df, *mono, *back, *along, *g, *h;

  void resize(const Model &model, int count)
  {
    count = (count + 7) / 8 * 8 + 8;
    if (count <= stride) return;
    stride = count;
    const int rows = 3 + 1 + 1 + 2 * model.size + 3 * model.n_functions + 2 * model.n_monomials + 1 + 3;
    storage.assign((size_t) rows * stride + 8, 0.0);
    m.assign(model.n_moments, 0.0);
    d.assign(model.n_moments, 0.0);
    double *next = storage.data() + ((64 - (reinterpret_cast<std::uintptr_t>(storage.data()) & 63)) & 63) / 8;
    auto take = [&](int n) { double *at = next; next += (size_t) n * stride; return at; };
    unit = take(3);
    r = take(1);
    inverse = take(1);
    t = take(model.size);
    dt = take(model.size);
    f = take(model.n_functions);
    df = take(model.n_functions);
    h = take(model.n_functions);
    mono = take(model.n_monomials);
    back = take(model.n_monomials);
    along = take(1);
    g = take(3);
  }
};

#define EACH_NEIGHBOUR _Pragma("GCC ivdep") for (int k = 0; k < count; k++)

// Site energy; w.g becomes its gradient with respect to every neighbour. On entry unit holds vectors, r their squares;
// bound says where each species begins. count is a multiple of 8; the rest lies on the cutoff with zero vectors.
MTP_VERSIONS
double site_energy(const Model &model, int zi, int count, const int *bound, Work &w)
{
  const int s = w.stride, size = model.size, n_functions = model.n_functions;
  const double cutoff = model.cutoff, low = model.low, scaling = model.scaling;
  const double slope = 2.0 / (cutoff - low);
  double *const r = w.r, *const inverse = w.inverse, *const along = w.along;
  double *const m = w.m.data(), *const d = w.d.data();
  EACH_NEIGHBOUR
  {
    r[k] = sqrt(r[k]);
    inverse[k] = 1.0 / r[k];
  }
  double *const ux = w.unit, *const uy = w.unit + s, *const uz = w.unit + 2 * s;
  double *const t0 = w.t, *const t1 = w.t + s, *const dt0 = w.dt, *const dt1 = w.dt + s;
  EACH_NEIGHBOUR
  {
    ux[k] *= inverse[k];
    uy[k] *= inverse[k];
    uz[k] *= inverse[k];
    const double away = cutoff - r[k], xi = slope * (r[k] - low) - 1.0;
    t0[k] = scaling * away * away;
    dt0[k] = -2.0 * scaling * away;
    t1[k] = xi * t0[k];
    dt1[k] = slope * t0[k] + xi * dt0[k];
  }
  for (int n = 2; n < size; n++) {
    double *const t = w.t + n * s, *const dt = w.dt + n * s;
    EACH_NEIGHBOUR
    {
      const double xi = slope * (r[k] - low) - 1.0;
      t[k] = 2.0 * xi * t[k - s] - t[k - 2 * s];
      dt[k] = 2.0 * (slope * t[k - s] + xi * dt[k - s]) - dt[k - 2 * s];
    }
  }
  for (int zj = 0; zj < model.n_species; zj++) {
    const int first = bound[zj], last = bound[zj + 1];
    if (first == last) continue;
    for (int mu = 0; mu < n_functions; mu++) {
      const double *const c = &model.coefficients[((size_t) (zi * model.n_species + zj) * n_functions + mu) * size];
      double *const f = w.f + mu * s, *const df = w.df + mu * s;
      int n = size & 1;
      const double head = n ? c[0] : 0.0;
#pragma GCC ivdep
      for (int k = first; k < last; k++) {
        f[k] = head * t0[k];
        df[k] = head * dt0[k];
      }
      for (; n < size; n += 2) {
        const double *const ta = w.t + n * s, *const tb = ta + s, *const da = w.dt + n * s, *const db = da + s;
        const double ca = c[n], cb = c[n + 1];
#pragma GCC ivdep
        for (int k = first; k < last; k++) {
          f[k] += ca * ta[k] + cb * tb[k];
          df[k] += ca * da[k] + cb * db[k];
        }
      }
    }
  }
  EACH_NEIGHBOUR w.mono[k] = 1.0;
  for (int p = 1; p < model.n_monomials; p++) {
    const double *const up = w.mono + model.parent[p] * s, *const u = w.unit + model.axis[p] * s;
    double *const mono = w.mono + p * s;
    EACH_NEIGHBOUR mono[k] = up[k] * u[k];
  }
  const int n_basic = (int) model.basics.size();
  const int *const by_mu = model.by_mu.data(), *const position = model.position.data();
  const Basic *const basics = model.basics.data();
  for (int mu = 0; mu < n_functions; mu++) {
    const double *const f = w.f + mu * s;
    int q = model.mu_group[mu];
    const int end = model.mu_group[mu + 1];
    for (; q + 3 < end; q += 4) {
      const double *const a = w.mono + basics[by_mu[q]].monomial * s;
      const double *const b = w.mono + basics[by_mu[q + 1]].monomial * s;
      const double *const c = w.mono + basics[by_mu[q + 2]].monomial * s;
      const double *const e = w.mono + basics[by_mu[q + 3]].monomial * s;
      double sa = 0.0, sb = 0.0, sc = 0.0, se = 0.0;
      EACH_NEIGHBOUR
      {
        sa += f[k] * a[k];
        sb += f[k] * b[k];
        sc += f[k] * c[k];
        se += f[k] * e[k];
      }
      m[position[by_mu[q]]] = sa;
      m[position[by_mu[q + 1]]] = sb;
      m[position[by_mu[q + 2]]] = sc;
      m[position[by_mu[q + 3]]] = se;
    }
    for (; q < end; q++) {
      const double *const a = w.mono + basics[by_mu[q]].monomial * s;
      double sa = 0.0;
      EACH_NEIGHBOUR sa += f[k] * a[k];
      m[position[by_mu[q]]] = sa;
    }
  }
  for (int b = n_basic; b < model.n_moments; b++) m[b] = 0.0;
  const int n_products = (int) model.products.size(), n_scalars = (int) model.mapping.size();
  const Product *const products = model.products.data();
  for (int q = 0; q < n_products; q++)
    m[products[q].out] += products[q].factor * m[products[q].left] * m[products[q].right];
  double energy = model.species_energy[zi];
  for (int b = 0; b < model.n_moments; b++) d[b] = 0.0;
  for (int q = 0; q < n_scalars; q++) {
    energy += model.xi[q] * m[model.mapping[q]];
    d[model.mapping[q]] = model.xi[q];
  }
  for (int q = n_products - 1; q >= 0; q--) {
    const double g = d[products[q].out] * products[q].factor;
    d[products[q].left] += g * m[products[q].right];
    d[products[q].right] += g * m[products[q].left];
  }
  double *const gx = w.g, *const gy = w.g + s, *const gz = w.g + 2 * s;
  // Derivatives with respect to the monomials, from the highest degree down to the coordinates.
  for (int p = model.n_monomials - 1; p >= 0; p--) {
    double *const back = w.back + p * s;
    int b = model.group[p];
    const int end = model.group[p + 1];
    if (b == end) {
      EACH_NEIGHBOUR back[k] = 0.0;
    } else if (b + 1 == end) {
      const double da = d[position[b]];
      const double *const fa = w.f + basics[b].mu * s;
      EACH_NEIGHBOUR back[k] = da * fa[k];
    } else {
      const double da = d[position[b]], db = d[position[b + 1]];
      const double *const fa = w.f + basics[b].mu * s, *const fb = w.f + basics[b + 1].mu * s;
      EACH_NEIGHBOUR back[k] = da * fa[k] + db * fb[k];
      for (b += 2; b < end; b++) {
        const double dc = d[position[b]];
        const double *const fc = w.f + basics[b].mu * s;
        EACH_NEIGHBOUR back[k] += dc * fc[k];
      }
    }
    int c = model.child_group[p];
    const int last = model.child_group[p + 1];
    if (c + 3 == last) {
      const int pa = model.children[c], pb = model.children[c + 1], pc = model.children[c + 2];
      const double *const ba = w.back + pa * s, *const bb = w.back + pb * s, *const bc = w.back + pc * s;
      const double *const ua = w.unit + model.axis[pa] * s, *const ub = w.unit + model.axis[pb] * s,
                   *const uc = w.unit + model.axis[pc] * s;
      EACH_NEIGHBOUR back[k] += ba[k] * ua[k] + bb[k] * ub[k] + bc[k] * uc[k];
    } else {
      for (; c < last; c++) {
        const double *const ba = w.back + model.children[c] * s, *const ua = w.unit + model.axis[model.children[c]] * s;
        EACH_NEIGHBOUR back[k] += ba[k] * ua[k];
      }
    }
  }
  for (int a = 0; a < 3; a++) {
    double *const g = w.g + a * s;
    EACH_NEIGHBOUR g[k] = 0.0;
    int q = model.axis_group[a];
    const int end = model.axis_group[a + 1], *const by_axis = model.by_axis.data();
    for (; q + 1 < end; q += 2) {
      const double *const ba = w.back + by_axis[q] * s, *const bb = w.back + by_axis[q + 1] * s;
      const double *const ma = w.mono + model.parent[by_axis[q]] * s;
      const double *const mb = w.mono + model.parent[by_axis[q + 1]] * s;
      EACH_NEIGHBOUR g[k] += ba[k] * ma[k] + bb[k] * mb[k];
    }
    if (q < end) {
      const double *const ba = w.back + by_axis[q] * s, *const ma = w.mono + model.parent[by_axis[q]] * s;
      EACH_NEIGHBOUR g[k] += ba[k] * ma[k];
    }
  }
  EACH_NEIGHBOUR along[k] = 0.0;
  for (int mu = 0; mu < n_functions; mu++) {
    const double *const df = w.df + mu * s;
    int q = model.mu_group[mu];
    const int end = model.mu_group[mu + 1];
    for (; q + 3 < end; q += 4) {
      const double *const a = w.mono + basics[by_mu[q]].monomial * s;
      const double *const b = w.mono + basics[by_mu[q + 1]].monomial * s;
      const double *const c = w.mono + basics[by_mu[q + 2]].monomial * s;
      const double *const e = w.mono + basics[by_mu[q + 3]].monomial * s;
      const double da = d[position[by_mu[q]]], db = d[position[by_mu[q + 1]]];
      const double dc = d[position[by_mu[q + 2]]], de = d[position[by_mu[q + 3]]];
      EACH_NEIGHBOUR along[k] += df[k] * (da * a[k] + db * b[k] + dc * c[k] + de * e[k]);
    }
    for (; q < end; q++) {
      const double *const a = w.mono + basics[by_mu[q]].monomial * s;
      const double da = d[position[by_mu[q]]];
      EACH_NEIGHBOUR along[k] += df[k] * da * a[k];
    }
  }
  EACH_NEIGHBOUR
  {
    const double shift = along[k] - (ux[k] * gx[k] + uy[k] * gy[k] + uz[k] * gz[k]) * inverse[k];
    gx[k] = gx[k] * inverse[k] + shift * ux[k];
    gy[k] = gy[k] * inverse[k] + shift * uy[k];
    gz[k] = gz[k] * inverse[k] + shift * uz[k];
  }
  return energy;
}

// After site_energy: B, 1, and the derivatives of the site energy with respect to its radial coefficients.
MTP_VERSIONS
void site_vector(const Model &model, int count, const int *bound, Work &w, double *out)
{
  const int s = w.stride;
  for (int q : model.mapping) *out++ = w.m[q];
  *out++ = 1.0;
  for (int mu = 0; mu < model.n_functions; mu++) {
    double *const h = w.h + mu * s;
    EACH_NEIGHBOUR h[k] = 0.0;
  }
  for (size_t b = 0; b < model.basics.size(); b++) {
    double *const h = w.h + model.basics[b].mu * s;
    const double *const mono = w.mono + model.basics[b].monomial * s;
    const double d = w.d[model.position[b]];
    EACH_NEIGHBOUR h[k] += d * mono[k];
  }
  for (int zj = 0; zj < model.n_species; zj++)
    for (int mu = 0; mu < model.n_functions; mu++)
      for (int n = 0; n < model.size; n++) {
        const double *const h = w.h + mu * s, *const t = w.t + n * s;
        double sum = 0.0;
#pragma GCC ivdep
        for (int k = bound[zj]; k < bound[zj + 1]; k++) sum += h[k] * t[k];
        *out++ = sum;
      }
}

// Largest absolute coefficient of v in terms of the active set, whose inverse is given by rows.
MTP_VERSIONS
double site_grade(int n, const double *v, const double *inverse, double *c)
{
  for (int i = 0; i < n; i++) c[i] = 0.0;
  for (int j = 0; j < n; j++) {
    const double weight = v[j];
    const double *const row = inverse + (size_t) j * n;
#pragma GCC ivdep
    for (int i = 0; i < n; i++) c[i] += weight * row[i];
  }
  double largest = 0.0;
  for (int i = 0; i < n; i++) largest = std::max(largest, std::fabs(c[i]));
  return largest;
}

string trim(const string &text)
{
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

struct Damaged {
  string what;
};

double number(const string &word)
{
  char *end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (word.empty() || *end != '\0' || !std::isfinite(value)) throw Damaged{"'" + word.substr(0, 40) + "' is not a number"};
  return value;
}

int whole(const string &word, int low, int high)
{
  const double value = number(word);
  if (value != std::floor(value) || value < low || value > high)
    throw Damaged{"'" + word.substr(0, 40) + "' is not a whole number in the allowed range"};
  return (int) value;
}

vector<double> numbers(string text)
{
  if (text.empty() || text[0] != '{' || text[text.size() - 1] != '}') throw Damaged{"a list in braces is missing"};
  for (char &c : text)
    if (c == '{' || c == '}' || c == ',') c = ' ';
  std::istringstream words(text);
  vector<double> values;
  string word;
  while (words >> word) values.push_back(number(word));
  return values;
}

vector<int> indices(const string &text, int low, int high)
{
  vector<int> out;
  for (double value : numbers(text)) {
    if (value != std::floor(value) || value < low || value > high) throw Damaged{"an index is out of range"};
    out.push_back((int) value);
  }
  return out;
}

void expect(bool condition, const string &what)
{
  if (!condition) throw Damaged{what};
}

// Items ordered by key[item], and where each of the n keys begins.
void group_by(vector<int> items, const vector<int> &key, int n, vector<int> &ordered, vector<int> &begin)
{
  std::stable_sort(items.begin(), items.end(), [&](int a, int b) { return key[a] < key[b]; });
  begin.assign(n + 1, 0);
  for (int item : items) begin[key[item] + 1]++;
  for (int i = 0; i < n; i++) begin[i + 1] += begin[i];
  ordered = items;
}

void build_monomials(Model &model, const vector<int> &basic)
{
  typedef std::vector<int> Powers;
  auto parent_of = [](Powers p) {
    for (int a = 0; a < 3; a++)
      if (p[a] > 0) {
        p[a]--;
        break;
      }
    return p;
  };
  // Keys sort by degree first, so that every parent comes before its children.
  std::map<Powers, int> index;
  auto key = [](const Powers &p) { return Powers{p[0] + p[1] + p[2], p[0], p[1], p[2]}; };
  index[key({0, 0, 0})] = 0;
  const size_t n = basic.size() / 4;
  for (size_t b = 0; b < n; b++) {
    Powers p{basic[4 * b + 1], basic[4 * b + 2], basic[4 * b + 3]};
    while (!index.count(key(p))) {
      index[key(p)] = 0;
      p = parent_of(p);
    }
  }
  int next = 0;
  for (auto &entry : index) entry.second = next++;
  model.n_monomials = next;
  model.parent.assign(next, 0);
  model.axis.assign(next, 0);
  for (auto &entry : index) {
    const Powers p{entry.first[1], entry.first[2], entry.first[3]};
    if (entry.second == 0) continue;
    model.parent[entry.second] = index[key(parent_of(p))];
    model.axis[entry.second] = p[0] > 0 ? 0 : (p[1] > 0 ? 1 : 2);
  }
  vector<std::pair<int, int>> order;
  for (size_t b = 0; b < n; b++)
    order.push_back({index[key({basic[4 * b + 1], basic[4 * b + 2], basic[4 * b + 3]})], (int) b});
  std::sort(order.begin(), order.end());
  model.group.assign(next + 1, 0);
  for (auto &entry : order) {
    model.basics.push_back({basic[4 * entry.second], entry.first});
    model.position.push_back(entry.second);
    model.group[entry.first + 1]++;
  }
  for (int p = 0; p < next; p++) model.group[p + 1] += model.group[p];
  vector<int> mu_of(n), monomials(next - 1);
  for (size_t b = 0; b < n; b++) mu_of[b] = model.basics[b].mu;
  vector<int> rows(n);
  for (size_t b = 0; b < n; b++) rows[b] = (int) b;
  for (int p = 1; p < next; p++) monomials[p - 1] = p;
  group_by(rows, mu_of, model.n_functions, model.by_mu, model.mu_group);
  group_by(monomials, model.parent, next, model.children, model.child_group);
  group_by(monomials, model.axis, 3, model.by_axis, model.axis_group);
}

Model read_model(const string &name)
{
  std::ifstream file(name);
  if (!file) throw Damaged{"cannot be opened"};
  Model model;
  model.file = name;
  string line;
  int at = 0;
  auto next = [&]() {
    if (!std::getline(file, line)) throw Damaged{"ends too early"};
    at++;
    line = trim(line);
  };
  std::map<string, int> counts;
  vector<int> basic, times;
  std::map<string, int> seen;
  try {
    next();
    expect(line == "MTP", "the first line is not 'MTP'");
    while (std::getline(file, line)) {
      at++;
      line = trim(line);
      if (line.empty()) continue;
      if (line.compare(0, 4, "#MVS") == 0) break;
      const auto equals = line.find('=');
      string key = trim(line.substr(0, equals));
      const string value = equals == string::npos ? "" : trim(line.substr(equals + 1));
      if (key == "min" || key == "min_val") key = "min_dist";
      if (key == "max" || key == "max_val") key = "max_dist";
      if (key == "size" || key == "basis_size") key = "radial_basis_size";
      expect(seen[key]++ == 0, key + " stands twice");
      if (key == "scaling") {
        model.scaling = number(value);
      } else if (key == "min_dist") {
        model.low = number(value);
      } else if (key == "max_dist") {
        model.cutoff = number(value);
      } else if (key == "radial_basis_type") {
        expect(value == "RBChebyshev", "only the radial basis RBChebyshev is supported");
      } else if (key == "potential_tag") {
        std::istringstream words(value);
        string word;
        words >> word;
        if (word == "species:")
          while (words >> word) model.species.push_back(word);
      } else if (key == "version" || key == "potential_name") {
        continue;
      } else if (key == "species_count" || key == "radial_basis_size" || key == "radial_funcs_count" ||
                 key == "alpha_moments_count" || key == "alpha_index_basic_count" || key == "alpha_index_times_count" ||
                 key == "alpha_scalar_moments") {
        counts[key] = whole(value, 0, 10000000);
      } else if (key == "radial_coeffs") {
        model.n_species = counts["species_count"];
        model.size = counts["radial_basis_size"];
        expect(model.n_species > 0 && model.n_species <= 118 && model.size >= 2, "radial_coeffs come before their counts");
        int functions = counts["radial_funcs_count"];
        for (int pair = 0; pair < model.n_species * model.n_species; pair++) {
          next();
          expect(line == std::to_string(pair / model.n_species) + "-" + std::to_string(pair % model.n_species),
                 "a pair is missing in radial_coeffs");
          int rows = 0;
          while (file.peek() == '\t' || file.peek() == ' ' || file.peek() == '{') {
            const auto mark = file.tellg();
            next();
            if (line.empty() || line[0] != '{') {
              file.seekg(mark);
              at--;
              break;
            }
            const auto row = numbers(line);
            expect((int) row.size() == model.size, "a row of radial_coeffs has the wrong length");
            model.coefficients.insert(model.coefficients.end(), row.begin(), row.end());
            rows++;
          }
          if (functions == 0) functions = rows;
          expect(rows == functions, "a pair has the wrong number of radial functions");
        }
        model.n_functions = functions;
      } else if (key == "alpha_index_basic") {
        basic = indices(value, 0, 1000);
      } else if (key == "alpha_index_times") {
        times = indices(value, -1000000000, 1000000000);
      } else if (key == "alpha_moment_mapping") {
        model.mapping = indices(value, 0, 10000000);
      } else if (key == "species_coeffs") {
        model.species_energy = numbers(value);
      } else if (key == "moment_coeffs") {
        model.xi = numbers(value);
      } else {
        throw Damaged{"unknown key '" + key.substr(0, 40) + "'"};
      }
    }
    expect(model.n_functions > 0 && model.n_functions == counts["radial_funcs_count"], "radial_coeffs are missing");
    expect(model.low >= 0.0 && model.low < model.cutoff && model.cutoff < 100.0, "min_dist and max_dist are not sensible");
    expect(!basic.empty() && (int) basic.size() == 4 * counts["alpha_index_basic_count"], "alpha_index_basic is incomplete");
    expect((int) times.size() == 4 * counts["alpha_index_times_count"], "alpha_index_times is incomplete");
    expect(!model.mapping.empty() && (int) model.mapping.size() == counts["alpha_scalar_moments"],
           "alpha_moment_mapping is incomplete");
    expect(model.xi.size() == model.mapping.size(), "moment_coeffs are missing or incomplete");
    expect((int) model.species_energy.size() == model.n_species, "species_coeffs are missing or incomplete");
    expect(model.species.empty() || (int) model.species.size() == model.n_species, "potential_tag names too few species");
    model.n_moments = counts["alpha_moments_count"];
    const int n_basic = (int) basic.size() / 4;
    expect(model.n_moments >= n_basic, "alpha_moments_count is too small");
    for (int b = 0; b < n_basic; b++) {
      expect(basic[4 * b] < model.n_functions, "alpha_index_basic uses a radial function that is missing");
      expect(basic[4 * b + 1] + basic[4 * b + 2] + basic[4 * b + 3] <= 30, "alpha_index_basic holds too high powers");
    }
    for (size_t q = 0; q < times.size(); q += 4) {
      const bool inside = times[q] >= 0 && times[q + 1] >= 0 && times[q] < model.n_moments &&
          times[q + 1] < model.n_moments && times[q + 3] >= n_basic && times[q + 3] < model.n_moments;
      expect(inside, "alpha_index_times points outside the moments");
      model.products.push_back({times[q], times[q + 1], times[q + 3], (double) times[q + 2]});
    }
    for (int q : model.mapping) expect(q < model.n_moments, "alpha_moment_mapping points outside the moments");
    // The gradient runs backwards through the products, so that a moment must be complete before it is used.
    vector<int> last_set(model.n_moments, -1);
    const int n_products = (int) model.products.size();
    for (int q = 0; q < n_products; q++) last_set[model.products[q].out] = q;
    for (int q = 0; q < n_products; q++)
      expect(last_set[model.products[q].left] < q && last_set[model.products[q].right] < q,
             "alpha_index_times uses a moment before it is complete");
  } catch (Damaged &error) {
    throw Damaged{name + ":" + std::to_string(at) + ": " + error.what};
  }
  model.basic_table = basic;
  model.times_table = times;
  build_monomials(model, basic);
  return model;
}

const char *const ELEMENTS[] = {
    "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",  "Ca",
    "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr",
    "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd",
    "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au", "Hg",
    "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm",
    "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

int atomic_number(const string &symbol)
{
  for (int z = 0; z < 118; z++)
    if (symbol == ELEMENTS[z]) return z + 1;
  throw Damaged{"'" + symbol + "' is not a chemical symbol"};
}

struct CorePair {
  double inner = 0.0, outer = 0.0, charge = 0.0, length = 1.0;
};

double core_energy(const CorePair &pair, double r, double &derivative)
{
  double screen = 0.0, slope = 0.0;
  for (int k = 0; k < 4; k++) {
    const double term = ZBL_AMPLITUDE[k] * std::exp(-ZBL_DECAY[k] * r / pair.length);
    screen += term;
    slope -= ZBL_DECAY[k] / pair.length * term;
  }
  double energy = pair.charge / r * screen;
  derivative = pair.charge / r * (slope - screen / r);
  if (r > pair.inner) {
    const double t = (r - pair.inner) / (pair.outer - pair.inner);
    const double change = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t));
    const double steep = -30.0 * t * t * (1.0 - t) * (1.0 - t) / (pair.outer - pair.inner);
    derivative = derivative * change + energy * steep;
    energy *= change;
  }
  return energy;
}

}    // namespace

#endif
