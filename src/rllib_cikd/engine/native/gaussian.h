// Samples of a tanh-squashed Gaussian: forward and backward. Part of kernels.h.

// log(1 + x) for x from 0 to 1, by the series of 2 artanh(x / (2 + x)); relative error below 3e-7.
inline T log_1_plus(T x) {
  const T s = V::divide(x, V::add(x, V::all(2.0f)));
  const T square = V::multiply(s, s);
  T p = V::all(2.0f / 15);
  p = V::multiply_add(p, square, V::all(2.0f / 13));
  p = V::multiply_add(p, square, V::all(2.0f / 11));
  p = V::multiply_add(p, square, V::all(2.0f / 9));
  p = V::multiply_add(p, square, V::all(2.0f / 7));
  p = V::multiply_add(p, square, V::all(2.0f / 5));
  p = V::multiply_add(p, square, V::all(2.0f / 3));
  return V::multiply_add(V::multiply(p, square), s, V::add(s, s));
}

// exp(x) for |x| <= 40; relative error below 3e-7.
inline T exponential(T x) {
  T scale, p;
  split_exponential(x, scale, p);
  return V::multiply_add(scale, p, scale);
}

constexpr int64_t PIECE = 1024;  // elements at a time, in whole vectors

// Elements from `at` on, row by row, into one piece; the rest of the last vector becomes 0.
inline void gather(const float* from, int64_t rows, int64_t width, int64_t batch_distance,
                   int64_t row_distance, int64_t at, int64_t n, float* to) {
  int64_t row = at / width, i = at % width;
  for (int64_t k = 0; k < n; row++, i = 0) {
    const float* x = from + row / rows * batch_distance + row % rows * row_distance;
    for (; i < width && k < n; i++) to[k++] = x[i];
  }
  for (int64_t k = n; k % LANES; k++) to[k] = 0.0f;
}

// actions = tanh(u) with u = mean + deviation, deviation = exp(log_std) noise; log_std is what the
// output says, within its bounds. And the sum over a row of log N(u) - log(1 - tanh(u)^2), term by term from the first to the last.
void sample(const Sample& s) {
  const T zero = V::all(0.0f), one = V::all(1.0f);
  float mean[PIECE], log_std[PIECE], noise[PIECE];
  const int64_t size = s.batches * s.rows * s.width;
  for (int64_t at = 0; at < size; at += PIECE) {
    const int64_t n = smaller(PIECE, size - at);
    gather(s.output, s.rows, s.width, s.rows * 2 * s.width, 2 * s.width, at, n, mean);
    gather(s.output + s.width, s.rows, s.width, s.rows * 2 * s.width, 2 * s.width, at, n, log_std);
    gather(s.noise, s.rows, s.width, s.noise_batch, s.noise_row, at, n, noise);
    for (int64_t k = 0; k < n; k += LANES) {
      const T ls = V::at_most(V::at_least(V::load(log_std + k), s.low), s.high);
      const T z = V::load(noise + k);
      const T std = exponential(V::at_most(V::at_least(ls, -40.0f), 40.0f));
      const T u = V::multiply_add(std, z, V::load(mean + k));
      const T distance = V::if_positive(u, u, V::subtract(zero, u));
      // e = exp(-2 |u|) - 1
      const T e = exp_minus_1(V::at_least(V::multiply(distance, V::all(-2.0f)), -20.0f));
      const T tanh = V::divide(V::subtract(zero, e), V::add(e, V::all(2.0f)));
      const T log_slope =
          V::subtract(V::subtract(V::all(0.69314718f), distance), log_1_plus(V::add(e, one)));
      T density = V::multiply_add(V::multiply(z, z), V::all(-0.5f), V::all(-0.91893853f));
      density = V::multiply_add(log_slope, V::all(-2.0f), V::subtract(density, ls));
      V::store(mean + k, V::if_positive(u, tanh, V::subtract(zero, tanh)));
      V::store(noise + k, V::multiply(std, z));
      V::store(log_std + k, density);
    }
    for (int64_t k = 0; k < n; k++) {
      s.actions[at + k] = mean[k];
      s.deviations[at + k] = noise[k];
    }
    int64_t row = at / s.width, i = at % s.width;
    for (int64_t k = 0; k < n; row++, i = 0) {
      float sum = i == 0 ? 0.0f : s.log_densities[row];
      for (; i < s.width && k < n; i++) sum += log_std[k++];
      s.log_densities[row] = sum;
    }
  }
}

// One piece back into rows, as `gather` took it from them.
inline void scatter(const float* from, int64_t width, int64_t row_distance, int64_t at, int64_t n,
                    float* to) {
  int64_t row = at / width, i = at % width;
  for (int64_t k = 0; k < n; row++, i = 0) {
    float* x = to + row * row_distance;
    for (; i < width && k < n; i++) x[i] = from[k++];
  }
}

// With du = d actions (1 - actions^2) + d density 2 actions: d mean = du, and
// d log_std = du deviation - d density, or 0 where the output is beyond the bounds.
void sample_gradient(const Sample& s) {
  const T zero = V::all(0.0f), low = V::all(s.low), high = V::all(s.high);
  float densities[PIECE], log_std[PIECE];
  const int64_t size = s.batches * s.rows * s.width;
  for (int64_t at = 0; at < size; at += PIECE) {
    const int64_t n = smaller(PIECE, size - at);
    int64_t row = at / s.width, i = at % s.width;
    for (int64_t k = 0; k < n; row++, i = 0) {
      for (; i < s.width && k < n; i++) densities[k++] = s.grad_log_densities[row];
    }
    for (int64_t k = n; k % LANES; k++) densities[k] = 0.0f;
    gather(s.output + s.width, s.rows, s.width, s.rows * 2 * s.width, 2 * s.width, at, n, log_std);
    for (int64_t k = 0; k < n; k += LANES) {
      const int64_t left = n - k, place = at + k;
      auto read = [=](const float* p) {
        return left < LANES ? V::load_part(p, left) : V::load(p);
      };
      const T a = read(s.actions + place), grad_density = V::load(densities + k);
      const T slope = V::multiply_add(V::subtract(zero, a), a, V::all(1.0f));
      const T twice = V::add(grad_density, grad_density);
      const T du = V::multiply_add(read(s.grad_actions + place), slope, V::multiply(twice, a));
      const T by_log_std =
          V::multiply_add(du, read(s.deviations + place), V::subtract(zero, grad_density));
      const T ls = V::load(log_std + k);
      const T within = V::if_positive(V::subtract(ls, high), zero, by_log_std);
      V::store(densities + k, du);
      V::store(log_std + k, V::if_positive(V::subtract(low, ls), zero, within));
    }
    scatter(densities, s.width, 2 * s.width, at, n, s.grad_output);
    scatter(log_std, s.width, 2 * s.width, at, n, s.grad_output + s.width);
  }
}
