// Calls the engine as Python does, with memory of exactly the size it may touch, so that a sanitizer
// sees whatever is wrong: see `sanitize` beside this file.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "api.h"

namespace {

using Floats = std::vector<float>;

struct Perceptrons {
  int64_t networks, rows;
  std::vector<int64_t> widths;
  int activation;

  int64_t layers() const { return static_cast<int64_t>(widths.size()) - 1; }
  int64_t size() const {
    int64_t size = 0;
    for (int64_t l = 0; l < layers(); l++) size += networks * (widths[l] + 1) * widths[l + 1];
    return size;
  }
};

Floats random_floats(std::mt19937& rng, int64_t size, bool with_zero_rows = false, int64_t row = 1) {
  std::normal_distribution<float> normal;
  Floats result(static_cast<size_t>(size));
  for (float& x : result) x = normal(rng);
  for (int64_t i = 0; with_zero_rows && i + row <= size; i += 2 * row) {
    for (int64_t j = 0; j < row; j++) result[static_cast<size_t>(i + j)] = 0.0f;
  }
  return result;
}

// All results of a forward and a backward pass, one after the other.
Floats work(const Perceptrons& p, unsigned seed, int keep, int64_t threads) {
  std::mt19937 rng(seed);
  const int64_t in = p.widths.front(), out = p.widths.back(), row = in + seed % 3;
  // Networks with inputs of their own, or all with the same.
  const int64_t inputs = seed % 4 ? p.networks : 1;
  const Floats parameters = random_floats(rng, p.size());
  // Rows that are farther apart than they are wide: the last one ends with the memory.
  const Floats x = random_floats(rng, (inputs * p.rows - 1) * row + in);
  const Floats grad = random_floats(rng, p.networks * p.rows * out, seed % 2, out);
  Floats y(static_cast<size_t>(p.networks * p.rows * out));
  Floats kept(static_cast<size_t>(
      engine_kept(p.networks, p.layers(), p.widths.data(), p.activation, p.rows, keep)));
  if (engine_forward(p.networks, p.layers(), p.widths.data(), p.activation, p.rows, keep,
                     parameters.data(), x.data(), inputs, p.rows * row, row, y.data(),
                     kept.data(), threads)) {
    abort();
  }
  Floats grad_x(static_cast<size_t>(inputs * p.rows * in));
  Floats grad_parameters(keep == 2 ? parameters.size() : 0);
  if (keep > 0 &&
      engine_backward(p.networks, p.layers(), p.widths.data(), p.activation, p.rows, keep,
                      parameters.data(), grad.data(), kept.data(),
                      keep == 2 ? grad_parameters.data() : nullptr,
                      keep == 2 && seed % 5 == 0 ? nullptr : grad_x.data(), inputs, threads)) {
    abort();
  }
  y.insert(y.end(), grad_x.begin(), grad_x.end());
  y.insert(y.end(), grad_parameters.begin(), grad_parameters.end());
  return y;
}

void expect(bool right, const char* what) {
  if (!right) {
    fprintf(stderr, "wrong: %s\n", what);
    exit(1);
  }
}

bool same(const Floats& a, const Floats& b) {
  bool equal = a.size() == b.size();
  for (size_t i = 0; equal && i < a.size(); i++) equal = a[i] == b[i] || (a[i] != a[i] && b[i] != b[i]);
  return equal;
}

void optimise(int64_t size, int64_t threads) {
  std::mt19937 rng(1);
  Floats p = random_floats(rng, size), m(p.size()), v(p.size()), target(p.size());
  for (int step = 1; step < 4; step++) {
    const Floats g = random_floats(rng, size);
    engine_adam(p.data(), g.data(), m.data(), v.data(), size,
                1e-3f / static_cast<float>(1 - std::pow(0.9, step)), 0.999f, 0.1f, 0.001f,
                static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, step))), 1e-8f, threads);
    engine_follow(target.data(), p.data(), 0.5f, size, threads);
  }
}

// Samples of a Gaussian, whose means and deviations are halves of the same rows.
void sample(int64_t batches, int64_t rows, int64_t width) {
  std::mt19937 rng(2);
  const auto size = static_cast<size_t>(batches * rows * width);
  const Floats output = random_floats(rng, 2 * batches * rows * width);
  // Every other batch of noise; the last one ends with the memory.
  const Floats noise = random_floats(rng, (2 * batches - 1) * rows * width);
  Floats actions(size), deviations(size), densities(static_cast<size_t>(batches * rows));
  engine_sample(batches, rows, width, output.data(), -1.0f, 1.0f, noise.data(), 2 * rows * width,
                width, actions.data(), deviations.data(), densities.data());
  Floats grad_output(2 * size);
  engine_sample_gradient(batches * rows, width, output.data(), -1.0f, 1.0f, actions.data(),
                         deviations.data(), actions.data(), densities.data(), grad_output.data());
}

// Rectified activations with statistics, whose last column ends with the memory.
void rectify(int64_t networks, int64_t rows, int64_t width, int64_t threads) {
  std::mt19937 rng(3);
  const auto size = static_cast<size_t>(networks * rows * width);
  const auto columns = static_cast<size_t>(networks * width);
  const Floats z = random_floats(rng, networks * rows * width);
  Floats x(size), mean(columns), variance(columns), grad_z(size);
  engine_rectify(networks, rows, width, z.data(), x.data(), mean.data(), variance.data(), threads);
  engine_rectify_gradient(networks, rows, width, x.data(), z.data(), variance.data(), mean.data(),
                          grad_z.data(), threads);
}

// Layers that normalise their inputs, as ones that do not, whose last weight ends with the memory.
void fold(int64_t networks, int64_t in, int64_t out, int64_t threads) {
  std::mt19937 rng(4);
  const int64_t sizes[] = {networks * in * out, networks * out, networks * in,
                           networks * in,       networks * in,  networks * in};
  std::vector<Floats> layer, gradients;
  const float* addresses[6];
  for (int i = 0; i < 6; i++) {
    layer.push_back(random_floats(rng, sizes[i]));
    for (float& x : layer[i]) x = x * x;  // variances are not negative
    gradients.emplace_back(static_cast<size_t>(sizes[i]));
  }
  for (int i = 0; i < 6; i++) addresses[i] = layer[i].data();
  Floats folded(static_cast<size_t>(networks * (in + 1) * out));
  engine_fold(networks, in, out, addresses, 1e-5f, folded.data(), threads);
  float* wanted[5] = {gradients[0].data(), gradients[2].data(), gradients[3].data(), nullptr, nullptr};
  engine_fold_gradient(networks, in, out, addresses, 1e-5f, folded.data(), wanted, threads);
  wanted[3] = gradients[4].data();
  wanted[4] = gradients[5].data();
  engine_fold_gradient(networks, in, out, addresses, 1e-5f, folded.data(), wanted, threads);
}

// SAC's losses, whose last numbers end with the memory.
void losses(int64_t n, int64_t rows) {
  std::mt19937 rng(5);
  const Floats apart = random_floats(rng, 3 * n * rows - 2), q = random_floats(rng, 2 * n * rows);
  const Floats some = random_floats(rng, n * rows), alpha = random_floats(rng, n);
  Floats target(some.size()), value(alpha.size()), grad_q(q.size());
  engine_td_target(n, rows, apart.data(), 3 * rows, 3, some.data(), rows, 1, q.data(), some.data(),
                   alpha.data(), target.data());
  engine_critic_loss(n, rows, q.data(), target.data(), value.data(), grad_q.data());
  engine_actor_loss(n, rows, target.data(), q.data(), alpha.data(), value.data(), grad_q.data());
}

}  // namespace

int main(int, char** arguments) {
  const int cases = atoi(arguments[1]);
  const bool forks = atoi(arguments[2]) != 0;
  for (int place = 0; place < 3; place++) {
    const char* name = engine_choose(place);
    if (!name) continue;
    std::mt19937 rng(0);
    auto up_to = [&](int64_t n) { return 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(n)); };
    for (int i = 0; i < cases; i++) {
      Perceptrons p{up_to(4), up_to(i % 20 ? 80 : 700), {}, static_cast<int>(rng() % 3)};
      if (i % 4 == 3) p.activation += 16;  // with normalisation
      for (int64_t l = up_to(4) + 1; l > 0; l--) p.widths.push_back(up_to(i % 3 ? 20 : 90));
      const auto seed = static_cast<unsigned>(i);
      const int keep = i % 3;
      expect(same(work(p, seed, keep, 1), work(p, seed, keep, up_to(4))), "threads differ");
    }
    for (int64_t size : {1, 15, 16, 17, 100, 200001}) optimise(size, 3);
    for (int i = 0; i < cases; i++) rectify(up_to(4), up_to(300), up_to(300), up_to(4));
    for (int i = 0; i < cases; i++) losses(up_to(4), up_to(300));
    for (int i = 0; i < cases; i++) fold(up_to(4), up_to(300), up_to(300), up_to(4));
    for (int i = 0; i < cases; i++) sample(up_to(4), up_to(300), up_to(i % 3 ? 20 : 1500));

    // Several callers at a time, each with work for more threads than there are.
    const Perceptrons p{3, 200, {17, 64, 64, 5}, 0};
    const Floats expected = work(p, 7, 2, 1);
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; i++) {
      callers.emplace_back([&] {
        for (int j = 0; j < 20; j++) expect(same(work(p, 7, 2, 3), expected), "callers disturb");
      });
    }
    for (std::thread& caller : callers) caller.join();
    // Threads that have fallen asleep.
    usleep(20000);
    expect(same(work(p, 7, 2, 3), expected), "after sleep");
    for (int i = 0; forks && i < 3; i++) {
      const pid_t child = fork();
      if (child == 0) _exit(same(work(p, 7, 2, 3), expected) ? 0 : 1);
      int status = 1;
      waitpid(child, &status, 0);
      expect(status == 0, "a forked process");
    }
    printf("%s: right\n", name);
  }
  return 0;
}
