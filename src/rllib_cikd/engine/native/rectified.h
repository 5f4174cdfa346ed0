// Rectified activations with statistics of each column: forward and backward. Part of kernels.h.
//
// Each column is summed from the first row to the last, whatever the vectors' width. Several vectors
// of columns are worked on side by side: memory is read in longer pieces then.

constexpr int BESIDE = COLUMNS / LANES;

// N vectors of columns of one network, from `first` on; of a single one, only `n` columns may count.
template <int N, bool WHOLE>
inline void rectify_columns(const Rectified& r, int64_t network, int64_t first, int64_t n) {
  auto read = [=](const float* p) { return WHOLE ? V::load(p) : V::load_part(p, n); };
  auto write = [=](float* p, T x) { WHOLE ? V::store(p, x) : V::store_part(p, x, n); };
  const int64_t place = network * r.rows * r.width + first, column = network * r.width + first;
  const T rows = V::all(static_cast<float>(r.rows));
  T sum[N], mean[N], squares[N];
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) sum[j] = squares[j] = V::all(0.0f);
  for (int64_t i = place, end = place + r.rows * r.width; i < end; i += r.width) {
    ENGINE_UNROLL
    for (int j = 0; j < N; j++) {
      const T x = V::relu(read(r.z + i + j * LANES));
      write(r.x + i + j * LANES, x);
      sum[j] = V::add(sum[j], x);
    }
  }
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) mean[j] = V::divide(sum[j], rows);
  for (int64_t i = place, end = place + r.rows * r.width; i < end; i += r.width) {
    ENGINE_UNROLL
    for (int j = 0; j < N; j++) {
      const T distance = V::subtract(read(r.x + i + j * LANES), mean[j]);
      squares[j] = V::multiply_add(distance, distance, squares[j]);
    }
  }
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) {
    write(r.mean + column + j * LANES, mean[j]);
    write(r.variance + column + j * LANES, V::divide(squares[j], rows));
  }
}

template <int N, bool WHOLE>
inline void rectify_gradient_columns(const Rectified& r, int64_t network, int64_t first, int64_t n) {
  auto read = [=](const float* p) { return WHOLE ? V::load(p) : V::load_part(p, n); };
  auto write = [=](float* p, T x) { WHOLE ? V::store(p, x) : V::store_part(p, x, n); };
  const int64_t place = network * r.rows * r.width + first, column = network * r.width + first;
  T scale[N], shift[N];
  ENGINE_UNROLL
  for (int j = 0; j < N; j++) {
    scale[j] = read(r.scale + column + j * LANES);
    shift[j] = read(r.shift + column + j * LANES);
  }
  for (int64_t i = place, end = place + r.rows * r.width; i < end; i += r.width) {
    ENGINE_UNROLL
    for (int j = 0; j < N; j++) {
      const T x = read(r.x + i + j * LANES);
      const T grad_x = V::add(read(r.grad_x + i + j * LANES), shift[j]);
      const T grad_z = V::multiply_add(x, scale[j], grad_x);
      write(r.grad_z + i + j * LANES, V::if_positive(x, grad_z, V::all(0.0f)));
    }
  }
}

void rectify(const Rectified& r, int64_t network, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + COLUMNS <= end; i += COLUMNS) rectify_columns<BESIDE, true>(r, network, i, 0);
  for (; i + LANES <= end; i += LANES) rectify_columns<1, true>(r, network, i, 0);
  if (i < end) rectify_columns<1, false>(r, network, i, end - i);
}

void rectify_gradient(const Rectified& r, int64_t network, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + COLUMNS <= end; i += COLUMNS) rectify_gradient_columns<BESIDE, true>(r, network, i, 0);
  for (; i + LANES <= end; i += LANES) rectify_gradient_columns<1, true>(r, network, i, 0);
  if (i < end) rectify_gradient_columns<1, false>(r, network, i, end - i);
}
