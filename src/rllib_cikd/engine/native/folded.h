// Normalisation of a linear layer's inputs as part of its weights and biases. Part of kernels.h.
//
//   ((x - mean) / deviation * gain + offset) W + b  =  x (scale W) + (b + shift W)
//   with scale = gain / deviation and shift = offset - mean * scale

struct Scaling {
  T deviation, scale, shift;
};

// Of LANES inputs, of which `n` count, the first one number `place` of all networks' inputs.
inline Scaling scaling_of(const Folded& f, int64_t place, int64_t n) {
  const T deviation =
      V::root(V::add(V::load_part(f.variances + place, n), V::all(f.epsilon)));
  const T scale = V::divide(V::load_part(f.gains + place, n), deviation);
  const T shifted = V::multiply(V::load_part(f.means + place, n), scale);
  return {deviation, scale, V::subtract(V::load_part(f.offsets + place, n), shifted)};
}

// N vectors of outputs of one network, from `first` on; of a single one, only `n` may count.
template <int N, bool WHOLE>
inline void fold_columns(const Folded& f, int64_t network, int64_t first, int64_t n) {
  auto read = [=](const float* p) { return WHOLE ? V::load(p) : V::load_part(p, n); };
  auto write = [=](float* p, T x) { WHOLE ? V::store(p, x) : V::store_part(p, x, n); };
  T bias[N];
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) bias[j] = read(f.biases + network * f.out + first + j * LANES);
  for (int64_t i = 0; i < f.in; i += LANES) {
    const int64_t left = smaller(LANES, f.in - i);
    const Scaling s = scaling_of(f, network * f.in + i, left);
    float scales[LANES], shifts[LANES];
    V::store(scales, s.scale);
    V::store(shifts, s.shift);
    for (int64_t k = 0; k < left; k++) {
      const int64_t place = (network * f.in + i + k) * f.out + first;
      const T scale = V::all(scales[k]), shift = V::all(shifts[k]);
      ENGINE_UNROLL
      for (int j = 0; j < N; j++) {
        const T weight = read(f.weights + place + j * LANES);
        write(f.folded_weights + place + j * LANES, V::multiply(weight, scale));
        bias[j] = V::multiply_add(weight, shift, bias[j]);
      }
    }
  }
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) {
    write(f.folded_biases + network * f.out + first + j * LANES, bias[j]);
  }
}

void fold(const Folded& f, int64_t network, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + COLUMNS <= end; i += COLUMNS) fold_columns<BESIDE, true>(f, network, i, 0);
  for (; i + LANES <= end; i += LANES) fold_columns<1, true>(f, network, i, 0);
  if (i < end) fold_columns<1, false>(f, network, i, end - i);
}

// Of the inputs from `begin` to `end`, in one pass over their weights.
void fold_gradient(const Folded& f, int64_t network, int64_t begin, int64_t end) {
  const float* grad_biases = f.grad_folded_biases + network * f.out;
  for (int64_t i = begin; i < end; i += LANES) {
    const int64_t left = smaller(LANES, end - i), place = network * f.in + i;
    const Scaling s = scaling_of(f, place, left);
    float scales[LANES], shifts[LANES];
    V::store(scales, s.scale);
    V::store(shifts, s.shift);
    T of_scale[GROUPS][LANES], of_shift[GROUPS][LANES];
    for (int k = 0; k < LANES; k++) {
      for (int g = 0; g < GROUPS; g++) of_scale[g][k] = of_shift[g][k] = V::all(0.0f);
      if (k >= left) continue;
      const T scale = V::all(scales[k]), shift = V::all(shifts[k]);
      T along[GROUPS], biases[GROUPS];
      for (int g = 0; g < GROUPS; g++) along[g] = biases[g] = V::all(0.0f);
      const int64_t row = (place + k) * f.out;
      for (int64_t j = 0; j < f.out; j += 16) {
        for (int g = 0; g < GROUPS; g++) {
          const int64_t at = j + g * LANES, n = f.out - at;
          if (n <= 0) break;
          const bool whole = n >= LANES;
          auto read = [=](const float* p) { return whole ? V::load(p) : V::load_part(p, n); };
          const T weight = read(f.weights + row + at), bias = read(grad_biases + at);
          const T grad = read(f.grad_folded_weights + row + at);
          along[g] = V::multiply_add(grad, weight, along[g]);
          biases[g] = V::multiply_add(bias, weight, biases[g]);
          const T result = V::multiply_add(grad, scale, V::multiply(shift, bias));
          float* to = f.grad_weights + row + at;
          whole ? V::store(to, result) : V::store_part(to, result, n);
        }
      }
      for (int g = 0; g < GROUPS; g++) {
        of_scale[g][k] = along[g];
        of_shift[g][k] = biases[g];
      }
    }
    const T grad_shift = sum_of_16(of_shift), mean = V::load_part(f.means + place, left);
    const T grad_scale = V::subtract(sum_of_16(of_scale), V::multiply(mean, grad_shift));
    const T grad_gain = V::divide(grad_scale, s.deviation);
    V::store_part(f.grad_gains + place, grad_gain, left);
    V::store_part(f.grad_offsets + place, grad_shift, left);
    if (!f.grad_means) continue;
    V::store_part(f.grad_means + place, V::multiply(V::multiply(s.scale, V::all(-1.0f)), grad_shift),
                  left);
    V::store_part(f.grad_variances + place,
                  V::divide(V::multiply(V::multiply(grad_gain, s.scale), V::all(-0.5f)),
                            s.deviation),
                  left);
  }
}
