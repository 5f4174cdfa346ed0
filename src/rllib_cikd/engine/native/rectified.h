// Rectified activations with statistics of each column: forward and backward. Part of kernels.h.
//
// Each column is summed from the first row to the last, whatever the vectors' width.

// One vector of columns of one network, of which `n` count, from `first` on.
template <bool WHOLE>
inline void rectify_columns(const Rectified& r, int64_t network, int64_t first, int64_t n) {
  auto read = [=](const float* p) { return WHOLE ? V::load(p) : V::load_part(p, n); };
  auto write = [=](float* p, T x) { WHOLE ? V::store(p, x) : V::store_part(p, x, n); };
  const int64_t place = network * r.rows * r.width + first;
  const T rows = V::all(static_cast<float>(r.rows));
  T sum = V::all(0.0f);
  for (int64_t i = 0; i < r.rows; i++) {
    const T x = V::relu(read(r.z + place + i * r.width));
    write(r.x + place + i * r.width, x);
    sum = V::add(sum, x);
  }
  const T mean = V::divide(sum, rows);
  T squares = V::all(0.0f);
  for (int64_t i = 0; i < r.rows; i++) {
    const T distance = V::subtract(read(r.x + place + i * r.width), mean);
    squares = V::multiply_add(distance, distance, squares);
  }
  write(r.mean + network * r.width + first, mean);
  write(r.variance + network * r.width + first, V::divide(squares, rows));
}

void rectify(const Rectified& r, int64_t network, int64_t begin, int64_t end) {
  int64_t first = begin;
  for (; first + LANES <= end; first += LANES) rectify_columns<true>(r, network, first, LANES);
  if (first < end) rectify_columns<false>(r, network, first, end - first);
}

template <bool WHOLE>
inline void rectify_gradient_columns(const Rectified& r, int64_t network, int64_t first, int64_t n) {
  auto read = [=](const float* p) { return WHOLE ? V::load(p) : V::load_part(p, n); };
  auto write = [=](float* p, T x) { WHOLE ? V::store(p, x) : V::store_part(p, x, n); };
  const int64_t place = network * r.rows * r.width + first;
  const T scale = read(r.scale + network * r.width + first);
  const T shift = read(r.shift + network * r.width + first);
  for (int64_t i = 0; i < r.rows; i++) {
    const T x = read(r.x + place + i * r.width);
    const T grad = V::multiply_add(x, scale, V::add(read(r.grad_x + place + i * r.width), shift));
    write(r.grad_z + place + i * r.width, V::if_positive(x, grad, V::all(0.0f)));
  }
}

void rectify_gradient(const Rectified& r, int64_t network, int64_t begin, int64_t end) {
  int64_t first = begin;
  for (; first + LANES <= end; first += LANES) {
    rectify_gradient_columns<true>(r, network, first, LANES);
  }
  if (first < end) rectify_gradient_columns<false>(r, network, first, end - first);
}
