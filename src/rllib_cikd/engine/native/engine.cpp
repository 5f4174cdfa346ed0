// How the engine's work is divided among threads.
#include "engine.h"

#include "api.h"
#include "threads.h"

using namespace engine;

namespace {

const Kernels* kernels = nullptr;

// Below so many multiplications a thread more costs more than it saves.
constexpr int64_t WORTH_A_THREAD = 1 << 20;
constexpr int64_t ELEMENTS_WORTH_A_THREAD = 1 << 15;

int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t ratio_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Pass describe(int64_t networks, int64_t layers, const int64_t* widths, int activation,
              int64_t rows, int keep, const float* parameters) {
  Pass pass{};
  pass.networks = networks;
  pass.layers = layers;
  pass.rows = rows;
  pass.panels = ratio_up(rows, PANEL);
  pass.activation = activation & ~NORMALIZED;
  pass.normalizes = (activation & NORMALIZED) != 0;
  pass.keep = keep;
  for (int64_t l = 0; l <= layers; l++) {
    pass.widths[l] = widths[l];
    pass.widest = at_least(pass.widest, widths[l]);
  }
  for (int64_t l = 0; parameters && l < layers; l++) {
    pass.weights[l] = parameters;
    parameters += networks * widths[l] * widths[l + 1];
    pass.biases[l] = parameters;
    parameters += networks * widths[l + 1];
  }
  return pass;
}

// Where in its memory a pass keeps what; returns the floats needed. `memory` may be null.
int64_t divide_kept(Pass& pass, float* memory) {
  int64_t size = 0;
  auto take = [&](int64_t width, int64_t floats_per_unit) {
    float* start = memory ? memory + size : nullptr;
    // In whole cache lines.
    size += ratio_up(pass.networks * pass.panels * width * floats_per_unit, 16) * 16;
    return start;
  };
  if (pass.keep == NOTHING) return 0;
  for (int64_t l = 0; l < pass.layers; l++) {
    const bool relu = pass.activation == RELU;
    if (pass.keep == FOR_PARAMETERS || (l > 0 && !relu)) {
      pass.inputs[l] = take(pass.widths[l], PANEL);
    }
    if (l > 0 && relu) pass.signs[l] = reinterpret_cast<uint32_t*>(take(pass.widths[l], 1));
    if (l > 0 && pass.normalizes) {
      pass.normals[l] = take(pass.widths[l], PANEL);
      pass.scales[l] = take(1, PANEL);
    }
  }
  return size;
}

int64_t threads_for(const Pass& pass, int64_t threads) {
  int64_t weights = 0;
  for (int64_t l = 0; l < pass.layers; l++) weights += pass.widths[l] * pass.widths[l + 1];
  const int64_t products = pass.networks * pass.rows * weights;
  return at_least(1, at_most(threads, products / WORTH_A_THREAD));
}

// What tasks need beside their number.
struct Division {
  const Pass* pass;
  int64_t first, networks;  // those that are worked on
  int64_t chunks;           // of a network's panels
  int64_t tasks;            // of a network's weights
};

// Pieces of a network's panels such that all threads have the same number of them, or many.
int64_t chunks_of(const Pass& pass, int64_t networks, int64_t threads) {
  if (networks % threads == 0) return at_most(pass.panels, 2);
  return at_most(pass.panels, ratio_up(4 * threads, networks));
}

void chunk_of(const Division& d, int64_t task, int64_t& network, int64_t& begin, int64_t& end) {
  network = d.first + task / d.chunks;
  const int64_t chunk = task % d.chunks;
  begin = d.pass->panels * chunk / d.chunks;
  end = d.pass->panels * (chunk + 1) / d.chunks;
}

void forward_task(const void* context, int64_t task, float* scratch) {
  const auto& d = *static_cast<const Division*>(context);
  int64_t network, begin, end;
  chunk_of(d, task, network, begin, end);
  kernels->forward_rows(*d.pass, network, begin, end, scratch);
}

void forward_small_task(const void* context, int64_t task, float* scratch) {
  kernels->forward_small(*static_cast<const Pass*>(context), task, scratch);
}

void backward_task(const void* context, int64_t task, float* scratch) {
  const auto& d = *static_cast<const Division*>(context);
  int64_t network, begin, end;
  chunk_of(d, task, network, begin, end);
  kernels->backward_rows(*d.pass, network, begin, end, scratch);
}

int64_t blocks_of(const Pass& pass, int64_t layer) {
  const int64_t out = pass.widths[layer + 1];
  return out <= NARROW ? 1 : ratio_up(out, PANEL);
}

void weights_task(const void* context, int64_t task, float*) {
  const auto& d = *static_cast<const Division*>(context);
  const int64_t network = d.first + task / d.tasks;
  int64_t block = task % d.tasks;
  int64_t layer = d.pass->layers - 1;  // the last one's delta was kept last
  for (; block >= blocks_of(*d.pass, layer); layer--) block -= blocks_of(*d.pass, layer);
  kernels->weight_gradient(*d.pass, network, layer, block);
}

struct Range {
  const AdamStep* adam;
  float* target;
  const float* source;
  float tau;
  int64_t size, tasks;
  int64_t terms;
};

// Whole cache lines, so that no two threads write to the same one.
void range_of(const Range& r, int64_t task, int64_t& begin, int64_t& end) {
  const int64_t lines = ratio_up(r.size, 16);
  begin = lines * task / r.tasks * 16;
  end = at_most(r.size, lines * (task + 1) / r.tasks * 16);
}

void adam_task(const void* context, int64_t task, float*) {
  const auto& r = *static_cast<const Range*>(context);
  int64_t begin, end;
  range_of(r, task, begin, end);
  kernels->adam(*r.adam, begin, end);
}

void follow_task(const void* context, int64_t task, float*) {
  const auto& r = *static_cast<const Range*>(context);
  int64_t begin, end;
  range_of(r, task, begin, end);
  kernels->follow(r.target, r.source, r.tau, begin, end);
}

void sum_task(const void* context, int64_t task, float*) {
  const auto& r = *static_cast<const Range*>(context);
  int64_t begin, end;
  range_of(r, task, begin, end);
  kernels->sum(r.target, r.source, r.terms, r.size, begin, end);
}

// Work on pieces of each network's columns, or of its rows.
template <class Work>
struct Pieces {
  const Work* work;
  void (*kernel)(const Work&, int64_t network, int64_t begin, int64_t end);
  int64_t size, piece, pieces;  // of each network

  static void task(const void* context, int64_t task, float*) {
    const auto& p = *static_cast<const Pieces*>(context);
    const int64_t begin = task % p.pieces * p.piece;
    p.kernel(*p.work, task / p.pieces, begin, at_most(begin + p.piece, p.size));
  }
};

template <class Work>
void run_pieces(const Work& work,
                void (*kernel)(const Work&, int64_t network, int64_t begin, int64_t end),
                int64_t size, int64_t elements, int64_t threads) {
  const Pieces<Work> pieces{&work, kernel, size, COLUMNS, ratio_up(size, COLUMNS)};
  Team team(at_most(threads, at_least(1, elements / ELEMENTS_WORTH_A_THREAD)), 0, 0);
  team.run({Pieces<Work>::task, &pieces, work.networks * pieces.pieces});
}

Rectified rectified(int64_t networks, int64_t rows, int64_t width, const float* x) {
  Rectified r{};
  r.networks = networks;
  r.rows = rows;
  r.width = width;
  r.x = const_cast<float*>(x);
  return r;
}

Folded folded(int64_t networks, int64_t in, int64_t out, const float* const* layer, float epsilon) {
  Folded f{};
  f.networks = networks;
  f.in = in;
  f.out = out;
  f.epsilon = epsilon;
  f.weights = layer[0];
  f.biases = layer[1];
  f.gains = layer[2];
  f.offsets = layer[3];
  f.means = layer[4];
  f.variances = layer[5];
  return f;
}

void run_range(Range& range, void (*run)(const void*, int64_t, float*), int64_t threads) {
  range.tasks = at_least(1, range.size / ELEMENTS_WORTH_A_THREAD);
  Team team(at_most(threads, range.tasks), 0, 0);
  team.run({run, &range, range.tasks});
}

}  // namespace

const char* engine_choose(int place) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  const bool has[] = {avx2 && __builtin_cpu_supports("avx512f"), avx2, true};
#else
  const bool has[] = {false, false, true};
#endif
  const Kernels* all[] = {avx512_kernels(), avx2_kernels(), baseline_kernels()};
  if (place < 0 || place > 2 || !has[place] || !all[place]) return nullptr;
  kernels = all[place];
  return kernels->name;
}

int64_t engine_kept(int64_t networks, int64_t layers, const int64_t* widths, int activation,
                    int64_t rows, int keep) {
  Pass pass = describe(networks, layers, widths, activation, rows, keep, nullptr);
  return divide_kept(pass, nullptr);
}

int engine_forward(int64_t networks, int64_t layers, const int64_t* widths, int activation,
                   int64_t rows, int keep, const float* parameters, const float* x, int64_t inputs,
                   int64_t x_input, int64_t x_row, float* y, float* kept, int64_t threads) {
  Pass pass = describe(networks, layers, widths, activation, rows, keep, parameters);
  divide_kept(pass, kept);
  pass.x = x;
  pass.x_inputs = inputs;
  pass.x_input = x_input;
  pass.x_row = x_row;
  pass.y = y;
  Team team(threads_for(pass, threads), scratch_size(pass), 0);
  if (!team.has_memory()) return 1;
  if (rows <= SMALL && keep == NOTHING && !pass.normalizes) {
    team.run({forward_small_task, &pass, networks});
    return 0;
  }
  const Division d{&pass, 0, networks, chunks_of(pass, networks, team.threads()), 0};
  team.run({forward_task, &d, networks * d.chunks});
  return 0;
}

int engine_backward(int64_t networks, int64_t layers, const int64_t* widths, int activation,
                    int64_t rows, int keep, const float* parameters, const float* grad_y,
                    const float* kept, float* grad_parameters, float* grad_x, int64_t inputs,
                    int64_t threads) {
  Pass pass = describe(networks, layers, widths, activation, rows, keep, parameters);
  divide_kept(pass, const_cast<float*>(kept));
  pass.grad_y = grad_y;
  pass.grad_x = grad_x;
  threads = threads_for(pass, threads);
  // Where networks share inputs, each one's gradient of them comes first.
  const bool shares = grad_x && inputs < networks;
  const int64_t each = inputs * rows * widths[0];
  const int64_t all = shares ? ratio_up(networks / inputs * each, 16) * 16 : 0;
  auto add_shares = [&](Team& team) {
    if (!shares) return;
    Range range{nullptr, grad_x, pass.grad_x, 0.0f, each, 1, networks / inputs};
    range.tasks = at_least(1, at_most(team.threads(), each / ELEMENTS_WORTH_A_THREAD));
    team.run({sum_task, &range, range.tasks});
  };
  if (!grad_parameters) {
    Team team(threads, scratch_size(pass), all);
    if (!team.has_memory()) return 1;
    if (shares) pass.grad_x = team.shared();
    const Division d{&pass, 0, networks, chunks_of(pass, networks, team.threads()), 0};
    team.run({backward_task, &d, networks * d.chunks});
    add_shares(team);
    return 0;
  }
  int64_t size = 0, tasks = 0;
  for (int64_t l = 0; l < layers; l++) {
    const int64_t out = widths[l + 1];
    pass.grad_weights[l] = grad_parameters;
    grad_parameters += networks * widths[l] * out;
    pass.grad_biases[l] = grad_parameters;
    grad_parameters += networks * out;
    pass.delta_sizes[l] = out <= NARROW ? out * pass.panels * PANEL
                                        : ratio_up(out, PANEL) * PANEL * pass.rows;
    size += pass.delta_sizes[l];
    tasks += blocks_of(pass, l);
  }
  // As many networks at a time as there are threads: what is kept between the two steps, the
  // gradients of the layers' outputs, then stays in the cache.
  const int64_t at_a_time = at_most(threads, networks);
  Team team(threads, scratch_size(pass), all + size * at_a_time);
  if (!team.has_memory()) return 1;
  if (shares) pass.grad_x = team.shared();
  float* deltas = team.shared() + all;
  for (int64_t l = 0; l < layers; l++) {
    pass.deltas[l] = deltas;
    deltas += pass.delta_sizes[l] * at_a_time;
  }
  for (int64_t first = 0; first < networks; first += at_a_time) {
    const int64_t now = at_most(at_a_time, networks - first);
    pass.first = first;
    const Division d{&pass, first, now, chunks_of(pass, now, team.threads()), tasks};
    team.run({backward_task, &d, now * d.chunks});
    team.run({weights_task, &d, now * tasks});
  }
  add_shares(team);
  return 0;
}

void engine_adam(float* parameters, const float* gradient, float* first_moments,
                 float* second_moments, int64_t size, float step_size, float beta2,
                 float one_minus_beta1, float one_minus_beta2, float root_correction, float epsilon,
                 int64_t threads) {
  const AdamStep step{parameters,      gradient,        first_moments,   second_moments, step_size,
                      beta2,           one_minus_beta1, one_minus_beta2, root_correction,
                      epsilon};
  Range range{&step, nullptr, nullptr, 0.0f, size, 1, 0};
  run_range(range, adam_task, threads);
}

void engine_follow(float* target, const float* source, float tau, int64_t size, int64_t threads) {
  Range range{nullptr, target, source, tau, size, 1, 0};
  run_range(range, follow_task, threads);
}

void engine_rectify(int64_t networks, int64_t rows, int64_t width, const float* z, float* x,
                    float* mean, float* variance, int64_t threads) {
  Rectified r = rectified(networks, rows, width, x);
  r.z = z;
  r.mean = mean;
  r.variance = variance;
  run_pieces(r, kernels->rectify, width, networks * rows * width, threads);
}

void engine_rectify_gradient(int64_t networks, int64_t rows, int64_t width, const float* x,
                             const float* grad_x, const float* scale, const float* shift,
                             float* grad_z, int64_t threads) {
  Rectified r = rectified(networks, rows, width, x);
  r.grad_x = grad_x;
  r.scale = scale;
  r.shift = shift;
  r.grad_z = grad_z;
  run_pieces(r, kernels->rectify_gradient, width, networks * rows * width, threads);
}

void engine_fold(int64_t networks, int64_t in, int64_t out, const float* const* layer,
                 float epsilon, float* folded_layer, int64_t threads) {
  Folded f = folded(networks, in, out, layer, epsilon);
  f.folded_weights = folded_layer;
  f.folded_biases = folded_layer + networks * in * out;
  run_pieces(f, kernels->fold, out, networks * in * out, threads);
}

void engine_fold_gradient(int64_t networks, int64_t in, int64_t out, const float* const* layer,
                          float epsilon, const float* grad_folded, float* const* gradients,
                          int64_t threads) {
  Folded f = folded(networks, in, out, layer, epsilon);
  f.grad_folded_weights = grad_folded;
  f.grad_folded_biases = grad_folded + networks * in * out;
  f.grad_weights = gradients[0];
  f.grad_gains = gradients[1];
  f.grad_offsets = gradients[2];
  f.grad_means = gradients[3];
  f.grad_variances = gradients[4];
  run_pieces(f, kernels->fold_gradient, in, networks * in * out, threads);
}

int engine_interface() { return 4; }

void engine_sample(int64_t batches, int64_t rows, int64_t width, const float* output, float low,
                   float high, const float* noise, int64_t noise_batch, int64_t noise_row,
                   float* actions, float* deviations, float* log_densities) {
  Sample sample{};
  sample.batches = batches;
  sample.rows = rows;
  sample.width = width;
  sample.output = output;
  sample.low = low;
  sample.high = high;
  sample.noise = noise;
  sample.noise_batch = noise_batch;
  sample.noise_row = noise_row;
  sample.actions = actions;
  sample.deviations = deviations;
  sample.log_densities = log_densities;
  kernels->sample(sample);
}

void engine_sample_gradient(int64_t rows, int64_t width, const float* output, float low, float high,
                            const float* actions, const float* deviations,
                            const float* grad_actions, const float* grad_log_densities,
                            float* grad_output) {
  Sample sample{};
  sample.batches = 1;
  sample.rows = rows;
  sample.width = width;
  sample.output = output;
  sample.low = low;
  sample.high = high;
  sample.actions = const_cast<float*>(actions);
  sample.deviations = const_cast<float*>(deviations);
  sample.grad_actions = grad_actions;
  sample.grad_log_densities = grad_log_densities;
  sample.grad_output = grad_output;
  kernels->sample_gradient(sample);
}
