// What the parts of the engine share. Plain C++17: no headers of Python's or PyTorch's.
//
// Memory. A batch of rows is cut into panels of 32 rows. Inside the engine activations and their
// gradients lie as [panel][unit][32 rows], so that a vector register holds one unit's values for
// several rows: weights, which PyTorch holds as [in, out], then serve both the forward and the
// backward product as they are, without a transposed copy.
//
// Determinism. An element of a result is one sum, from its first to its last term, by fused
// multiply-adds: whatever the width of the vectors, the number of threads or who computes what.
// Where terms lie along a vector (narrow_weight_gradient), there are always 16 partial sums.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace engine {

constexpr int64_t PANEL = 32;       // rows in a panel; the bits of a word of signs
constexpr int64_t MAX_LAYERS = 64;  // linear layers of one perceptron
constexpr int64_t NARROW = 4;       // layers with at most so many outputs: narrow_weight_gradient
constexpr int64_t SMALL = 12;       // batches of at most so many rows: forward_small

enum Activation { RELU = 0, TANH = 1, ELU = 2 };
constexpr int NORMALIZED = 16;  // added to an activation: hidden layers are normalised before it

// What a forward pass keeps for the backward pass.
enum Keep {
  NOTHING = 0,
  FOR_INPUTS = 1,      // what gradients of the inputs need
  FOR_PARAMETERS = 2,  // what gradients of the parameters need, too
};

// One forward or backward pass of n perceptrons of equal shape.
struct Pass {
  int64_t networks, layers, rows, panels;
  int64_t widths[MAX_LAYERS + 1];  // inputs, hidden units, outputs
  int64_t widest;
  int activation, keep;
  bool normalizes;
  // Of layer l, of all networks: [n, in, out] and [n, out].
  const float* weights[MAX_LAYERS];
  const float* biases[MAX_LAYERS];
  // The inputs of layer l, [n, panels, in, 32]; null where they are not kept.
  float* inputs[MAX_LAYERS];
  // For l > 0 and ReLU, whether these inputs are positive or NaN, a bit a row: [n, panels, in].
  uint32_t* signs[MAX_LAYERS];
  // For l > 0 and with normalisation, these inputs before the activation, [n, panels, in, 32], and
  // the reciprocals of the deviations that they were divided by, [n, panels, 32].
  float* normals[MAX_LAYERS];
  float* scales[MAX_LAYERS];
  // Forward: [x_inputs, rows, in] with distances, of which network k gets number k % x_inputs, and
  // [n, rows, out].
  const float* x;
  int64_t x_inputs, x_input, x_row;
  float* y;
  // Backward: [n, rows, out] and, each null where it is not wanted, the gradients.
  const float* grad_y;
  float* grad_x;  // [n, rows, in]
  float* grad_weights[MAX_LAYERS];
  float* grad_biases[MAX_LAYERS];
  // The gradients of layer l's outputs, between the two steps of a backward pass, for the networks
  // from `first` on: [out / 32, rows, 32]; or [out, panels * 32] for narrow layers.
  float* deltas[MAX_LAYERS];
  int64_t delta_sizes[MAX_LAYERS];
  int64_t first;
};

struct AdamStep {
  float* parameters;
  const float* gradient;
  float* first_moments;
  float* second_moments;
  float step_size, beta2;                   // lr / (1 - beta1^t)
  float one_minus_beta1, one_minus_beta2;
  float root_correction, epsilon;           // 1 / sqrt(1 - beta2^t)
};

// Rectified activations [networks, rows, width] with statistics of each column, and their gradients.
struct Rectified {
  int64_t networks, rows, width;
  const float* z;
  float* x;
  float* mean;  // [networks, width], as all that follow
  float* variance;
  // Backward only.
  const float* grad_x;
  const float* scale;
  const float* shift;
  float* grad_z;
};

// A linear layer and the normalisation of its inputs, and the linear layer that does both.
struct Folded {
  int64_t networks, in, out;
  float epsilon;         // added to variances
  const float* weights;  // [networks, in, out]
  const float* biases;   // [networks, out]
  const float* gains;    // [networks, in], as offsets, means and variances
  const float* offsets;
  const float* means;
  const float* variances;
  float* folded_weights;
  float* folded_biases;
  // Backward only; of means and variances, null where they are not wanted.
  const float* grad_folded_weights;
  const float* grad_folded_biases;
  float* grad_weights;
  float* grad_gains;
  float* grad_offsets;
  float* grad_means;
  float* grad_variances;
};

constexpr int64_t COLUMNS = 128;  // of a task: whole cache lines, and as many vectors as hide latency

// Samples of a tanh-squashed Gaussian, and their gradients. [batches x rows, width] all, in one
// piece where no distances are named.
struct Sample {
  int64_t batches, rows, width;
  const float* output;  // [batches x rows, 2 width]: means, then logarithms of deviations ...
  float low, high;      // ... which are kept within these bounds
  const float* noise;
  int64_t noise_batch, noise_row;
  float* actions;
  float* deviations;
  float* log_densities;  // [batches x rows]
  // Backward only.
  const float* grad_actions;
  const float* grad_log_densities;
  float* grad_output;  // as output
};

// Floats of scratch memory that forward_rows, forward_small and backward_rows need: two activations,
// what is kept of the rows with a gradient, twice with normalisation, and their numbers.
inline int64_t scratch_size(const Pass& pass) {
  return (3 + pass.normalizes) * PANEL * pass.widest + PANEL + PANEL * pass.panels;
}

// The same functions, compiled for one kind of processor.
struct Kernels {
  const char* name;
  void (*forward_rows)(const Pass&, int64_t network, int64_t panel, int64_t end, float* scratch);
  void (*forward_small)(const Pass&, int64_t network, float* scratch);
  void (*backward_rows)(const Pass&, int64_t network, int64_t panel, int64_t end, float* scratch);
  void (*weight_gradient)(const Pass&, int64_t network, int64_t layer, int64_t block);
  void (*adam)(const AdamStep&, int64_t begin, int64_t end);
  void (*follow)(float* target, const float* source, float tau, int64_t begin, int64_t end);
  // to[i] = the sum of from[i], from[i + distance], ..., of `terms` of them.
  void (*sum)(float* to, const float* from, int64_t terms, int64_t distance, int64_t begin,
              int64_t end);
  void (*rectify)(const Rectified&, int64_t network, int64_t begin, int64_t end);
  void (*rectify_gradient)(const Rectified&, int64_t network, int64_t begin, int64_t end);
  void (*fold)(const Folded&, int64_t network, int64_t begin, int64_t end);  // of the outputs
  void (*fold_gradient)(const Folded&, int64_t network, int64_t begin, int64_t end);  // inputs
  void (*sample)(const Sample&);
  void (*sample_gradient)(const Sample&);
};

// Null where the compiler could not make them.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* baseline_kernels();

}  // namespace engine
