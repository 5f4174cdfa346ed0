// SAC's losses and their gradients. For no particular processor: they are a thousand numbers, whose
// sums are taken in double precision, one after the other.
#include "api.h"

namespace {

// As PyTorch's minimum: NaN stays NaN.
float smaller(float a, float b) { return a < b || a != a ? a : b; }

}  // namespace

void engine_td_target(int64_t n, int64_t rows, const float* rewards, int64_t reward_batch,
                      int64_t reward_row, const float* discounts, int64_t discount_batch,
                      int64_t discount_row, const float* q, const float* log_densities,
                      const float* alpha, float* target) {
  for (int64_t k = 0; k < n; k++) {
    for (int64_t i = 0; i < rows; i++) {
      const int64_t place = k * rows + i;
      const float value =
          smaller(q[place], q[n * rows + place]) - alpha[k] * log_densities[place];
      target[place] = rewards[k * reward_batch + i * reward_row] +
                      discounts[k * discount_batch + i * discount_row] * value;
    }
  }
}

void engine_critic_loss(int64_t n, int64_t rows, const float* q, const float* target, float* value,
                        float* grad_q) {
  const float share = 1.0f / static_cast<float>(rows);
  for (int64_t k = 0; k < n; k++) {
    double sum = 0.0;
    for (int64_t twin = 0; twin < 2; twin++) {
      const int64_t first = (twin * n + k) * rows;
      for (int64_t i = 0; i < rows; i++) {
        const float error = q[first + i] - target[k * rows + i];
        sum += static_cast<double>(error) * error;
        grad_q[first + i] = error * share;
      }
    }
    value[k] = static_cast<float>(0.5 * sum / static_cast<double>(rows));
  }
}

void engine_actor_loss(int64_t n, int64_t rows, const float* log_densities, const float* q,
                       const float* alpha, float* value, float* grad_q) {
  const float share = -1.0f / static_cast<float>(rows);
  for (int64_t k = 0; k < n; k++) {
    double sum = 0.0;
    for (int64_t i = 0; i < rows; i++) {
      const int64_t first = k * rows + i, second = n * rows + first;
      const bool is_first = q[first] <= q[second];
      grad_q[first] = is_first ? share : 0.0f;
      grad_q[second] = is_first ? 0.0f : share;
      sum += static_cast<double>(alpha[k]) * log_densities[first] - smaller(q[first], q[second]);
    }
    value[k] = static_cast<float>(sum / static_cast<double>(rows));
  }
}
