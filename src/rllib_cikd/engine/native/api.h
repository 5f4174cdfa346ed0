// The engine's interface, in C. Memory must be as said here: nothing is checked but what is.
//
// Perceptrons are given by their number, their linear layers, the `layers + 1` widths from inputs
// to outputs, the activation (0 ReLU, 1 tanh, 2 ELU; 16 more where hidden layers are normalised
// before it) and their parameters: for each layer the weights [networks, in, out], then the biases
// [networks, out].
#pragma once

#include <stdint.h>

#define ENGINE_API extern "C" __attribute__((visibility("default")))

// Of this interface: to be raised whenever it changes, here and where it is called, so that a library
// that was built before is not called in another way than it was made for.
ENGINE_API int engine_interface();

// Chooses kernels by their place, from the widest vectors on: 0 AVX-512, 1 AVX2, 2 baseline.
// Returns their name, or null, changing nothing, where this processor or this library lacks them.
// To be called before all else.
ENGINE_API const char* engine_choose(int place);

// Floats that a forward pass keeps for the backward pass: `keep` 0 nothing, 1 what gradients of the
// inputs need, 2 what those of the parameters need as well.
ENGINE_API int64_t engine_kept(int64_t networks, int64_t layers, const int64_t* widths,
                               int activation, int64_t rows, int keep);

// y [networks, rows, out] from x [inputs, rows, in], of which network k gets number k % inputs, and
// whose inputs and rows are so many floats apart. Returns 0, or 1 if there is no memory.
ENGINE_API int engine_forward(int64_t networks, int64_t layers, const int64_t* widths,
                              int activation, int64_t rows, int keep, const float* parameters,
                              const float* x, int64_t inputs, int64_t x_input, int64_t x_row,
                              float* y, float* kept, int64_t threads);

// Gradients, of the parameters unless null and of x unless null, from that of y and from what the
// forward pass kept. Returns 0, or 1 if there is no memory.
ENGINE_API int engine_backward(int64_t networks, int64_t layers, const int64_t* widths,
                               int activation, int64_t rows, int keep, const float* parameters,
                               const float* grad_y, const float* kept, float* grad_parameters,
                               float* grad_x, int64_t inputs, int64_t threads);

// One step of Adam, the t-th, on `size` floats each: step_size is lr / (1 - beta1^t),
// root_correction is 1 / sqrt(1 - beta2^t).
ENGINE_API void engine_adam(float* parameters, const float* gradient, float* first_moments,
                            float* second_moments, int64_t size, float step_size, float beta2,
                            float one_minus_beta1, float one_minus_beta2, float root_correction,
                            float epsilon, int64_t threads);

// target += tau (source - target)
ENGINE_API void engine_follow(float* target, const float* source, float tau, int64_t size,
                              int64_t threads);

// x = max(z, 0), [networks, rows, width], with each column's mean over the rows and its variance,
// [networks, width].
ENGINE_API void engine_rectify(int64_t networks, int64_t rows, int64_t width, const float* z,
                               float* x, float* mean, float* variance, int64_t threads);

// The gradient of z, grad_x + x scale + shift where x is positive, else 0: scale and shift, [networks,
// width], are what the gradients of mean and variance add to that of x.
ENGINE_API void engine_rectify_gradient(int64_t networks, int64_t rows, int64_t width,
                                        const float* x, const float* grad_x, const float* scale,
                                        const float* shift, float* grad_z, int64_t threads);

// A linear layer that normalises its inputs, as a linear layer alone: `folded`, its weights [networks,
// in, out] and then its biases [networks, out]. `layer`: the addresses of weights, biases, gains,
// offsets, means and variances.
ENGINE_API void engine_fold(int64_t networks, int64_t in, int64_t out, const float* const* layer,
                            float epsilon, float* folded, int64_t threads);

// The gradients of all that is in `layer`, but biases, whose gradient is that of the folded ones;
// of means and variances unless null.
ENGINE_API void engine_fold_gradient(int64_t networks, int64_t in, int64_t out,
                                     const float* const* layer, float epsilon,
                                     const float* grad_folded, float* const* gradients,
                                     int64_t threads);

// Samples of tanh-squashed Gaussians: actions [batches, rows, width] and log-densities [batches,
// rows] from output [batches, rows, 2 width], means and then logarithms of deviations, which are kept
// from low to high, and standard normal noise, whose batches and rows are so many floats apart.
// `deviations` is what the backward pass needs beside the actions.
ENGINE_API void engine_sample(int64_t batches, int64_t rows, int64_t width, const float* output,
                              float low, float high, const float* noise, int64_t noise_batch,
                              int64_t noise_row, float* actions, float* deviations,
                              float* log_densities);

// The gradient of output, [rows, 2 width], from those of actions and log-densities. Logarithms beyond
// their bounds have none.
ENGINE_API void engine_sample_gradient(int64_t rows, int64_t width, const float* output, float low,
                                       float high, const float* actions, const float* deviations,
                                       const float* grad_actions, const float* grad_log_densities,
                                       float* grad_output);

// r + discount (min of both q - alpha log-density), [n, rows], in its order of arguments; q [2, n,
// rows], alpha [n]. Rewards and discounts, their batches and rows, are so many floats apart.
ENGINE_API void engine_td_target(int64_t n, int64_t rows, const float* rewards,
                                 int64_t reward_batch, int64_t reward_row, const float* discounts,
                                 int64_t discount_batch, int64_t discount_row, const float* q,
                                 const float* log_densities, const float* alpha, float* target);

// The value of each network's loss, [n]: half the mean of (q - target)^2, summed over both q [2, n,
// rows]; and its gradient by q.
ENGINE_API void engine_critic_loss(int64_t n, int64_t rows, const float* q, const float* target,
                                   float* value, float* grad_q);

// The value, [n]: the mean of alpha log-density - min of both q; and its gradient by q [2, n, rows].
// The one by a log-density is alpha / rows.
ENGINE_API void engine_actor_loss(int64_t n, int64_t rows, const float* log_densities,
                                  const float* q, const float* alpha, float* value, float* grad_q);
