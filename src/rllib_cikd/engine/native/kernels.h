// The computation, for vectors V. Included once for each kind of processor, within an unnamed
// namespace; includes nothing itself, since a function of the standard library that is compiled
// here might be the one that the linker keeps for all.
//
// V: T, LANES, MAX_ROWS (of a tile), VECTORS (columns of a tile, in vectors), and the operations.

using T = V::T;
constexpr int LANES = V::LANES;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
// Rows of a panel in whole groups of 16, of which only the last may be missing.
inline int64_t lanes_of(int64_t rows) { return rows > PANEL / 2 ? PANEL : PANEL / 2; }

inline void clear(float* to, int64_t size) {
  for (int64_t i = 0; i < size; i++) to[i] = 0.0f;
}

// ---------------------------------------------------------------- products

// The four products of a perceptron: C(i, j) = start + the sum over t of A(i, t) B(t, j).
enum Kind {
  FORWARD,   // units x rows = weights x inputs; starts with the bias, ends with ReLU and its signs
  BACKWARD,  // inputs x rows = weights x delta; keeps what the signs let through
  WEIGHTS,   // inputs x outputs = inputs x delta; of B whole vectors are there, of C only columns
  SMALL,     // rows x units = inputs x weights; starts with the bias, ends with ReLU
};

struct Product {
  const float* a;  // A(i, t) at a + i * a_row + t / block * a_block + t % block * a_term
  int64_t a_row, a_term, block, a_block;
  const float* b;  // B(t, j) at b + t * b_term + j
  int64_t b_term;
  float* c;  // C(i, j) at c + i * c_row + j
  int64_t c_row;
  int64_t rows, terms, columns;  // of C, at most 32 columns
  const float* bias;             // FORWARD: of each row; SMALL: of each column
  bool relu;                     // FORWARD, SMALL
  bool go_on;                    // WEIGHTS: whether to start with what is in C, not with 0
  uint32_t* signs;               // FORWARD, BACKWARD: a word a row, or null
};

inline unsigned char* signs_at(const Product& q, int64_t row, int64_t column) {
  return reinterpret_cast<unsigned char*>(q.signs + row) + column / 8;
}

// PART: whether fewer columns are there than the vectors have lanes.
template <Kind KIND, int ROWS, int VECTORS, bool PART>
void tile(const Product& q, int64_t row, int64_t column) {
  const int64_t a_row = KIND == FORWARD ? 1 : KIND == WEIGHTS ? PANEL : q.a_row;
  const int64_t valid = q.columns - column;
  const float* a = q.a + row * a_row;
  const float* b = q.b + column;
  float* c = q.c + row * q.c_row + column;
  auto read = [=](const float* from, int j) {
    return PART ? V::load_part(from + j * LANES, valid - j * LANES) : V::load(from + j * LANES);
  };

  T sum[ROWS][VECTORS];
  ENGINE_UNROLL
  for (int i = 0; i < ROWS; i++) {
    ENGINE_UNROLL
    for (int j = 0; j < VECTORS; j++) {
      if constexpr (KIND == FORWARD) {
        sum[i][j] = V::all(q.bias[row + i]);
      } else if constexpr (KIND == SMALL) {
        sum[i][j] = read(q.bias + column, j);
      } else {
        sum[i][j] = KIND == WEIGHTS && q.go_on ? read(c + i * q.c_row, j) : V::all(0.0f);
      }
    }
  }

  for (int64_t left = q.terms; left > 0; left -= q.block) {
    const float* at = a;
    for (int64_t t = smaller(left, q.block); t > 0; t--) {
      T x[VECTORS];
      ENGINE_UNROLL
      for (int j = 0; j < VECTORS; j++) x[j] = KIND == SMALL ? read(b, j) : V::load(b + j * LANES);
      ENGINE_UNROLL
      for (int i = 0; i < ROWS; i++) {
        const T y = V::all(at[i * a_row]);
        ENGINE_UNROLL
        for (int j = 0; j < VECTORS; j++) sum[i][j] = V::multiply_add(y, x[j], sum[i][j]);
      }
      at += q.a_term;
      b += q.b_term;
    }
    a += q.a_block;
  }

  constexpr int BYTES = VECTORS * LANES / 8;  // of a row's signs
  ENGINE_UNROLL
  for (int i = 0; i < ROWS; i++) {
    uint32_t signs = 0;
    if constexpr (KIND == FORWARD) {
      if (q.signs) {
        ENGINE_UNROLL
        for (int j = 0; j < VECTORS; j++) signs |= V::signs(sum[i][j]) << (j * LANES);
        __builtin_memcpy(signs_at(q, row + i, column), &signs, BYTES);
      }
    }
    if constexpr (KIND == FORWARD || KIND == SMALL) {
      if (q.relu) {
        ENGINE_UNROLL
        for (int j = 0; j < VECTORS; j++) sum[i][j] = V::relu(sum[i][j]);
      }
    }
    if constexpr (KIND == BACKWARD) {
      if (q.signs) {
        __builtin_memcpy(&signs, signs_at(q, row + i, column), BYTES);
        ENGINE_UNROLL
        for (int j = 0; j < VECTORS; j++) sum[i][j] = V::keep(sum[i][j], signs >> (j * LANES));
      }
    }
    ENGINE_UNROLL
    for (int j = 0; j < VECTORS; j++) {
      float* to = c + i * q.c_row + j * LANES;
      if constexpr (PART) {
        V::store_part(to, sum[i][j], valid - j * LANES);
      } else {
        V::store(to, sum[i][j]);
      }
    }
  }
}

// The largest tile of at most so many rows. The rare kinds have few sizes, for the compiler's sake.
template <Kind KIND, int VECTORS, bool PART, int ROWS = V::MAX_ROWS>
int64_t one_tile(const Product& q, int64_t row, int64_t rows, int64_t column) {
  constexpr bool frequent = VECTORS == V::VECTORS && !PART && KIND != SMALL;
  if constexpr (ROWS > 1) {
    constexpr int FEWER = frequent ? ROWS - 1 : (ROWS + 1) / 2;
    if (rows < ROWS) return one_tile<KIND, VECTORS, PART, FEWER>(q, row, rows, column);
  }
  tile<KIND, ROWS, VECTORS, PART>(q, row, column);
  return ROWS;
}

// Rows are divided evenly among tiles: a tile of few rows leaves the processor waiting.
template <Kind KIND, int VECTORS, bool PART>
void column_of_tiles(const Product& q, int64_t column) {
  int64_t tiles = (q.rows + V::MAX_ROWS - 1) / V::MAX_ROWS;
  for (int64_t row = 0; row < q.rows; tiles--) {
    const int64_t left = q.rows - row;
    row += one_tile<KIND, VECTORS, PART>(
        q, row, tiles > 1 ? (left + tiles - 1) / tiles : left, column);
  }
}

template <Kind KIND>
void multiply(const Product& q) {
  constexpr int64_t COLUMNS = V::VECTORS * LANES;
  for (int64_t column = 0; column < q.columns; column += COLUMNS) {
    const int64_t left = q.columns - column;
    if (left >= COLUMNS) {
      column_of_tiles<KIND, V::VECTORS, false>(q, column);
    } else if (left == LANES) {
      column_of_tiles<KIND, 1, false>(q, column);
    } else if constexpr (KIND == WEIGHTS || KIND == SMALL) {
      if (left > LANES) {
        column_of_tiles<KIND, V::VECTORS, true>(q, column);
      } else {
        column_of_tiles<KIND, 1, true>(q, column);
      }
    }
  }
}

// ---------------------------------------------------------------- layouts

// to(j, i) = from(i, j) for `rows` rows of `columns` columns; the rest of to's rows, up to `pad`
// columns, becomes 0.
void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to,
               int64_t to_row, int64_t pad) {
  if (columns == 1 && from_row == 1) {
    for (int64_t i = 0; i < rows; i++) to[i] = from[i];
    for (int64_t i = rows; i < pad; i++) to[i] = 0.0f;
    return;
  }
  if (rows == 1 && to_row == 1 && pad <= 1) {
    for (int64_t j = 0; j < columns; j++) to[j] = from[j];
    return;
  }
  const int64_t wide = pad > rows ? pad : rows;
  for (int64_t i = 0; i < wide; i += LANES) {
    for (int64_t j = 0; j < columns; j += LANES) {
      T block[LANES];
      const float* at = from + i * from_row + j;
      float* there = to + j * to_row + i;
      const int64_t left = columns - j;
      if (left >= LANES && rows - i >= LANES) {
        ENGINE_UNROLL
        for (int k = 0; k < LANES; k++) block[k] = V::load(at + k * from_row);
        V::transpose(block);
        ENGINE_UNROLL
        for (int k = 0; k < LANES; k++) V::store(there + k * to_row, block[k]);
        continue;
      }
      for (int k = 0; k < LANES; k++) {
        block[k] = i + k < rows ? V::load_part(at + k * from_row, left) : V::all(0.0f);
      }
      V::transpose(block);
      for (int k = 0; k < LANES && k < left; k++) {
        V::store_part(there + k * to_row, block[k], wide - i);
      }
    }
  }
}

// ---------------------------------------------------------------- activations

// exp(x) = scale (1 + p) for |x| <= 40, by multiplications and additions alone, so that it is the
// same everywhere; relative error below 3e-7.
inline void split_exponential(T x, T& scale, T& p) {
  const T shift = V::all(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
  const T power = V::subtract(V::multiply_add(x, V::all(1.44269504f), shift), shift);
  T r = V::multiply_add(power, V::all(-0.693359375f), x);  // log 2 in two parts
  r = V::multiply_add(power, V::all(2.12194440e-4f), r);
  p = V::all(1.0f / 5040);
  p = V::multiply_add(p, r, V::all(1.0f / 720));
  p = V::multiply_add(p, r, V::all(1.0f / 120));
  p = V::multiply_add(p, r, V::all(1.0f / 24));
  p = V::multiply_add(p, r, V::all(1.0f / 6));
  p = V::multiply_add(p, r, V::all(0.5f));
  p = V::multiply_add(V::multiply(p, r), r, r);
  // 2^power, from the lowest bits of a sum in which they stand for 1.
  scale = V::shift_to_exponent(V::add(power, V::all(12582912.0f + 127.0f)));
}

inline T exp_minus_1(T x) {
  T scale, p;
  split_exponential(x, scale, p);
  return V::multiply_add(scale, p, V::subtract(scale, V::all(1.0f)));
}

void activate(int activation, float* y, int64_t size) {
  for (int64_t i = 0; i < size; i += LANES) {
    const int64_t n = size - i;
    const T x = n >= LANES ? V::load(y + i) : V::load_part(y + i, n);
    T result;
    if (activation == TANH) {
      const T e = exp_minus_1(V::at_most(V::at_least(V::add(x, x), -20.0f), 20.0f));
      result = V::divide(e, V::add(e, V::all(2.0f)));
    } else {
      result = V::if_positive(x, x, exp_minus_1(V::at_most(V::at_least(x, -20.0f), 0.0f)));
    }
    if (n >= LANES) {
      V::store(y + i, result);
    } else {
      V::store_part(y + i, result, n);
    }
  }
}

// delta *= the activation's derivative, from its output y; whole vectors.
void derive(int activation, float* delta, const float* y, int64_t size) {
  const T one = V::all(1.0f);
  for (int64_t i = 0; i < size; i += LANES) {
    const T out = V::load(y + i);
    const T slope = activation == TANH
                        ? V::subtract(one, V::multiply(out, out))
                        : V::if_positive(out, one, V::add(out, one));
    V::store(delta + i, V::multiply(V::load(delta + i), slope));
  }
}

// ---------------------------------------------------------------- layer normalisation

// Each of `lanes` rows of z [units][32] less its mean over the units, times the reciprocal of its
// deviation, in place (Ba et al. 2016, without parameters). The reciprocals go to scales [32].
void normalize(float* z, int64_t units, int64_t lanes, float* scales) {
  const T one = V::all(1.0f), share = V::divide(one, V::all(static_cast<float>(units)));
  for (int64_t j = 0; j < lanes; j += LANES) {
    T total = V::all(0.0f), squares = V::all(0.0f);
    for (int64_t i = 0; i < units; i++) total = V::add(total, V::load(z + i * PANEL + j));
    const T mean = V::multiply(total, share);
    for (int64_t i = 0; i < units; i++) {
      const T apart = V::subtract(V::load(z + i * PANEL + j), mean);
      squares = V::multiply_add(apart, apart, squares);
      V::store(z + i * PANEL + j, apart);
    }
    const T scale = V::divide(one, V::root(V::multiply_add(squares, share, V::all(1e-5f))));
    for (int64_t i = 0; i < units; i++) {
      V::store(z + i * PANEL + j, V::multiply(V::load(z + i * PANEL + j), scale));
    }
    V::store(scales + j, scale);
  }
}

// The gradient of what `normalize` was given, from that of what it returned, in place: less its
// mean over the units and its part along the normalised values, times the scale.
void normalize_gradient(float* delta, const float* normals, const float* scales, int64_t units,
                        int64_t lanes) {
  const T share = V::divide(V::all(1.0f), V::all(static_cast<float>(units)));
  for (int64_t j = 0; j < lanes; j += LANES) {
    T total = V::all(0.0f), along = V::all(0.0f);
    for (int64_t i = 0; i < units; i++) {
      const T d = V::load(delta + i * PANEL + j);
      total = V::add(total, d);
      along = V::multiply_add(d, V::load(normals + i * PANEL + j), along);
    }
    const T mean = V::multiply(total, share), scale = V::load(scales + j);
    along = V::multiply(along, share);
    for (int64_t i = 0; i < units; i++) {
      const T part = V::multiply_add(along, V::load(normals + i * PANEL + j), mean);
      const T apart = V::subtract(V::load(delta + i * PANEL + j), part);
      V::store(delta + i * PANEL + j, V::multiply(apart, scale));
    }
  }
}

// y = ReLU of z [units][32], and its signs, if wanted.
void rectify(const float* z, float* y, int64_t units, int64_t lanes, uint32_t* signs) {
  for (int64_t i = 0; i < units; i++) {
    uint32_t word = 0;
    for (int64_t j = 0; j < lanes; j += LANES) {
      const T x = V::load(z + i * PANEL + j);
      word |= V::signs(x) << j;
      V::store(y + i * PANEL + j, V::relu(x));
    }
    if (signs) signs[i] = word;
  }
}

// ---------------------------------------------------------------- forward

// From a layer's outputs before normalisation, which lie in z, to its activations y.
void normalize_and_activate(const Pass& pass, int64_t l, int64_t place, int64_t lanes, float* z,
                            float* y) {
  const int64_t units = pass.widths[l];
  alignas(64) float unused[PANEL];
  normalize(z, units, lanes, pass.scales[l] ? pass.scales[l] + place * PANEL : unused);
  if (pass.activation == RELU) {
    rectify(z, y, units, lanes, pass.signs[l] ? pass.signs[l] + place * units : nullptr);
    return;
  }
  for (int64_t i = 0; y != z && i < units * PANEL; i++) y[i] = z[i];
  activate(pass.activation, y, units * PANEL);
}

void forward_rows(const Pass& pass, int64_t network, int64_t panel, int64_t end, float* scratch) {
  float* spare[2] = {scratch, scratch + PANEL * pass.widest};
  const bool relu = pass.activation == RELU;
  for (; panel < end; panel++) {
    const int64_t rows = smaller(PANEL, pass.rows - panel * PANEL), lanes = lanes_of(rows);
    // Of layer l, what is kept for this panel lies at the panel's place.
    const int64_t place = network * pass.panels + panel;
    const int64_t in = pass.widths[0];
    float* x = pass.inputs[0] ? pass.inputs[0] + place * in * PANEL : spare[0];
    transpose(pass.x + network % pass.x_inputs * pass.x_input + panel * PANEL * pass.x_row,
              pass.x_row, rows, in, x, PANEL, lanes);
    for (int64_t l = 0; l < pass.layers; l++) {
      const int64_t in = pass.widths[l], out = pass.widths[l + 1];
      const bool last = l == pass.layers - 1;
      float* y = spare[(l + 1) % 2];
      if (!last && pass.inputs[l + 1]) y = pass.inputs[l + 1] + place * out * PANEL;
      const bool normalizes = !last && pass.normalizes;
      float* z = normalizes && pass.normals[l + 1] ? pass.normals[l + 1] + place * out * PANEL : y;
      Product q{};
      q.a = pass.weights[l] + network * in * out;
      q.a_row = 1;
      q.a_term = out;
      q.block = q.terms = in;
      q.b = x;
      q.b_term = q.c_row = PANEL;
      q.c = z;
      q.rows = out;
      q.columns = lanes;
      q.bias = pass.biases[l] + network * out;
      q.relu = !last && relu && !normalizes;
      if (q.relu && pass.keep) q.signs = pass.signs[l + 1] + place * out;
      multiply<FORWARD>(q);
      if (normalizes) {
        normalize_and_activate(pass, l + 1, place, lanes, z, y);
      } else if (!last && !relu) {
        activate(pass.activation, y, out * PANEL);
      }
      x = y;
    }
    const int64_t out = pass.widths[pass.layers];
    transpose(x, PANEL, out, rows, pass.y + (network * pass.rows + panel * PANEL) * out, out, 0);
  }
}

// A few rows: vectors along the units, weights read once and as they lie.
void forward_small(const Pass& pass, int64_t network, float* scratch) {
  const float* x = pass.x + network % pass.x_inputs * pass.x_input;
  int64_t x_row = pass.x_row;
  for (int64_t l = 0; l < pass.layers; l++) {
    const int64_t in = pass.widths[l], out = pass.widths[l + 1];
    const bool last = l == pass.layers - 1;
    float* y = last ? pass.y + network * pass.rows * out : scratch + (l % 2) * PANEL * pass.widest;
    for (int64_t column = 0; column < out; column += PANEL) {
      Product q{};
      q.a = x;
      q.a_row = x_row;
      q.a_term = 1;
      q.block = q.terms = in;
      q.b = pass.weights[l] + network * in * out + column;
      q.b_term = q.c_row = out;
      q.c = y + column;
      q.rows = pass.rows;
      q.columns = smaller(PANEL, out - column);
      q.bias = pass.biases[l] + network * out + column;
      q.relu = !last && pass.activation == RELU;
      multiply<SMALL>(q);
    }
    if (!last && pass.activation != RELU) activate(pass.activation, y, pass.rows * out);
    x = y;
    x_row = out;
  }
}

// ---------------------------------------------------------------- backward

// The rows from `first` to `end` that have a gradient; NaN is one.
int64_t rows_with_gradient(const float* grad, int64_t out, int64_t first, int64_t end,
                           int32_t* rows) {
  int64_t count = 0;
  for (int64_t i = first; i < end; i++) {
    bool any = false;
    for (int64_t j = 0; j < out; j++) any |= grad[i * out + j] != 0.0f;
    rows[count] = static_cast<int32_t>(i);
    count += any;
  }
  return count;
}

// Keeps the delta of a layer's outputs, [out][32 rows], for weight_gradient.
void keep_delta(const Pass& pass, int64_t network, int64_t layer, int64_t panel, int64_t rows,
                const float* delta) {
  const int64_t out = pass.widths[layer + 1];
  float* to = pass.deltas[layer] + (network - pass.first) * pass.delta_sizes[layer];
  if (out <= NARROW) {
    for (int64_t j = 0; j < out; j++) {
      for (int64_t i = 0; i < rows; i++) {
        to[(j * pass.panels + panel) * PANEL + i] = delta[j * PANEL + i];
      }
    }
    return;
  }
  for (int64_t j = 0; j < out; j += PANEL) {
    transpose(delta + j * PANEL, PANEL, smaller(PANEL, out - j), rows,
              to + j * pass.rows + panel * PANEL * PANEL, PANEL, lanes_of(out - j));
  }
}

// From one layer's outputs to its inputs before their activation: next = W delta and so on, for
// `lanes` rows of a panel, of which this is kept.
void input_gradient(const Pass& pass, int64_t network, int64_t l, const float* delta, float* next,
                    int64_t lanes, const uint32_t* signs, const float* outputs,
                    const float* normals, const float* scales) {
  const int64_t in = pass.widths[l], out = pass.widths[l + 1];
  Product q{};
  q.a = pass.weights[l] + network * in * out;
  q.a_row = out;
  q.a_term = 1;
  q.block = q.terms = out;
  q.b = delta;
  q.b_term = q.c_row = PANEL;
  q.c = next;
  q.rows = in;
  q.columns = lanes;
  if (l > 0 && pass.activation == RELU) q.signs = const_cast<uint32_t*>(signs);
  multiply<BACKWARD>(q);
  if (l > 0 && pass.activation != RELU) derive(pass.activation, next, outputs, in * PANEL);
  if (l > 0 && pass.normalizes) normalize_gradient(next, normals, scales, in, lanes);
}

// The gradients of layers' outputs, kept for weight_gradient, and of the inputs.
void backward_all(const Pass& pass, int64_t network, int64_t panel, int64_t end, float* scratch) {
  const int64_t in = pass.widths[0], out = pass.widths[pass.layers];
  for (; panel < end; panel++) {
    const int64_t rows = smaller(PANEL, pass.rows - panel * PANEL), lanes = lanes_of(rows);
    const int64_t place = network * pass.panels + panel;
    const int64_t first = network * pass.rows + panel * PANEL;
    float *delta = scratch, *next = scratch + PANEL * pass.widest;
    transpose(pass.grad_y + first * out, out, rows, out, delta, PANEL, lanes);
    for (int64_t l = pass.layers - 1; l >= 0; l--) {
      keep_delta(pass, network, l, panel, rows, delta);
      if (l == 0 && !pass.grad_x) break;
      const int64_t kept = place * pass.widths[l];
      input_gradient(pass, network, l, delta, next, lanes,
                     pass.signs[l] ? pass.signs[l] + kept : nullptr,
                     pass.inputs[l] + kept * PANEL,
                     pass.normals[l] ? pass.normals[l] + kept * PANEL : nullptr,
                     pass.scales[l] ? pass.scales[l] + place * PANEL : nullptr);
      float* other = delta;
      delta = next;
      next = other;
    }
    if (pass.grad_x) transpose(delta, PANEL, in, rows, pass.grad_x + first * in, in, 0);
  }
}

// Of `width` values of each row of a network's panels, those of `count` <= 32 rows: [width][32].
void gather(const Pass& pass, int64_t network, const float* values, int64_t width,
            const int32_t* rows, int64_t count, float* to) {
  clear(to, width * PANEL);
  for (int64_t j = 0; j < count; j++) {
    const int64_t place = network * pass.panels + rows[j] / PANEL;
    const float* from = values + place * width * PANEL + rows[j] % PANEL;
    for (int64_t i = 0; i < width; i++) to[i * PANEL + j] = from[i * PANEL];
  }
}

// What is kept of `count` <= 32 rows, at most 32 in a panel of their own: signs or outputs.
void gather_kept(const Pass& pass, int64_t network, int64_t l, const int32_t* rows, int64_t count,
                 float* to) {
  const int64_t width = pass.widths[l];
  if (pass.activation != RELU) return gather(pass, network, pass.inputs[l], width, rows, count, to);
  uint32_t* words = reinterpret_cast<uint32_t*>(to);
  for (int64_t i = 0; i < width; i++) words[i] = 0;
  for (int64_t j = 0; j < count;) {
    const int64_t panel = rows[j] / PANEL, shift = j;
    uint32_t chosen = 0;
    for (; j < count && rows[j] / PANEL == panel; j++) chosen |= 1u << (rows[j] % PANEL);
    const uint32_t* from = pass.signs[l] + (network * pass.panels + panel) * width;
    for (int64_t i = 0; i < width; i++) words[i] |= V::extract(from[i], chosen) << shift;
  }
}

// The gradient of the inputs alone, leaving out rows without one.
void backward_inputs(const Pass& pass, int64_t network, int64_t panel, int64_t end,
                     float* scratch) {
  const int64_t in = pass.widths[0], out = pass.widths[pass.layers];
  const float* grad_y = pass.grad_y + network * pass.rows * out;
  float* grad_x = pass.grad_x + network * pass.rows * in;
  const int64_t first = panel * PANEL, last = smaller(end * PANEL, pass.rows);
  float* buffers[2] = {scratch, scratch + PANEL * pass.widest};
  float* kept = scratch + 2 * PANEL * pass.widest;
  float* scales = kept + PANEL * pass.widest;
  float* normals = scales + PANEL;
  int32_t* rows =
      reinterpret_cast<int32_t*>(normals + (pass.normalizes ? PANEL * pass.widest : 0));
  const int64_t count = rows_with_gradient(grad_y, out, first, last, rows);
  if (count < last - first) clear(grad_x + first * in, (last - first) * in);
  for (int64_t done = 0; done < count; done += PANEL, rows += PANEL) {
    const int64_t now = smaller(PANEL, count - done), lanes = lanes_of(now);
    float *delta = buffers[0], *next = buffers[1];
    clear(delta, out * PANEL);
    for (int64_t i = 0; i < now; i++) {
      for (int64_t j = 0; j < out; j++) delta[j * PANEL + i] = grad_y[rows[i] * out + j];
    }
    for (int64_t l = pass.layers - 1; l >= 0; l--) {
      if (l > 0) gather_kept(pass, network, l, rows, now, kept);
      if (l > 0 && pass.normalizes) {
        gather(pass, network, pass.normals[l], pass.widths[l], rows, now, normals);
        gather(pass, network, pass.scales[l], 1, rows, now, scales);
      }
      input_gradient(pass, network, l, delta, next, lanes, reinterpret_cast<uint32_t*>(kept), kept,
                     normals, scales);
      float* other = delta;
      delta = next;
      next = other;
    }
    for (int64_t i = 0; i < now; i++) {
      float* to = grad_x + rows[i] * in;
      for (int64_t j = 0; j < in; j++) to[j] = delta[j * PANEL + i];
    }
  }
}

void backward_rows(const Pass& pass, int64_t network, int64_t panel, int64_t end, float* scratch) {
  if (pass.grad_weights[0]) {
    backward_all(pass, network, panel, end, scratch);
  } else {
    backward_inputs(pass, network, panel, end, scratch);
  }
}

// ---------------------------------------------------------------- gradients of the parameters

constexpr int GROUPS = 16 / LANES;  // vectors that hold 16 partial sums

// The sum of 16 partial sums, always in the same order: of each of LANES rows.
inline T sum_of_16(T (&partial)[GROUPS][LANES]) {
  T parts[16];
  for (int g = 0; g < GROUPS; g++) {
    V::transpose(partial[g]);
    for (int k = 0; k < LANES; k++) parts[g * LANES + k] = partial[g][k];
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int k = 0; k < half; k++) parts[k] = V::add(parts[k], parts[k + half]);
  }
  return parts[0];
}

// Few outputs: vectors along the rows, in which the terms of a sum lie.
void narrow_weight_gradient(const Pass& pass, int64_t network, int64_t l) {
  const int64_t in = pass.widths[l], out = pass.widths[l + 1];
  const float* inputs = pass.inputs[l] + network * pass.panels * in * PANEL;
  const float* deltas = pass.deltas[l] + (network - pass.first) * pass.delta_sizes[l];
  for (int64_t o = 0; o < out; o++) {
    const float* delta = deltas + o * pass.panels * PANEL;
    for (int64_t i = 0; i < in; i += LANES) {
      T sums[GROUPS][LANES];
      for (int g = 0; g < GROUPS; g++) {
        for (int k = 0; k < LANES; k++) sums[g][k] = V::all(0.0f);
      }
      const int64_t n = smaller(LANES, in - i);
      for (int64_t row = 0; row < pass.rows; row += 16) {
        const float* at = inputs + (row / PANEL * in + i) * PANEL + row % PANEL;
        for (int g = 0; g < GROUPS; g++) {
          const int64_t left = pass.rows - row - g * LANES;
          if (left <= 0) break;
          if (n == LANES && left >= LANES) {
            const T d = V::load(delta + row + g * LANES);
            ENGINE_UNROLL
            for (int k = 0; k < LANES; k++) {
              sums[g][k] = V::multiply_add(V::load(at + k * PANEL + g * LANES), d, sums[g][k]);
            }
          } else {
            const T d = V::load_part(delta + row + g * LANES, left);
            for (int64_t k = 0; k < n; k++) {
              const T x = V::load_part(at + k * PANEL + g * LANES, left);
              sums[g][k] = V::multiply_add(x, d, sums[g][k]);
            }
          }
        }
      }
      float result[LANES];
      V::store(result, sum_of_16(sums));
      float* to = pass.grad_weights[l] + (network * in + i) * out + o;
      for (int64_t k = 0; k < n; k++) to[k * out] = result[k];
    }
    float sum = 0.0f;
    for (int64_t row = 0; row < pass.rows; row++) sum += delta[row];
    pass.grad_biases[l][network * out + o] = sum;
  }
}

// Of 32 outputs' weights and biases, or of all if the layer is narrow.
void weight_gradient(const Pass& pass, int64_t network, int64_t l, int64_t block) {
  const int64_t in = pass.widths[l], out = pass.widths[l + 1];
  if (out <= NARROW) return narrow_weight_gradient(pass, network, l);
  const int64_t column = block * PANEL, columns = smaller(PANEL, out - column);
  const float* delta = pass.deltas[l] + (network - pass.first) * pass.delta_sizes[l] +
                       column * pass.rows;
  constexpr int64_t ROWS_AT_A_TIME = 16 * PANEL;  // so that 32 columns of delta stay in the cache
  for (int64_t row = 0; row < pass.rows; row += ROWS_AT_A_TIME) {
    Product q{};
    q.a = pass.inputs[l] + (network * pass.panels + row / PANEL) * in * PANEL;
    q.a_row = PANEL;
    q.a_term = 1;
    q.block = PANEL;
    q.a_block = in * PANEL;
    q.b = delta + row * PANEL;
    q.b_term = PANEL;
    q.c = pass.grad_weights[l] + network * in * out + column;
    q.c_row = out;
    q.rows = in;
    q.terms = smaller(ROWS_AT_A_TIME, pass.rows - row);
    q.columns = columns;
    q.go_on = row > 0;
    multiply<WEIGHTS>(q);
  }
  float* bias = pass.grad_biases[l] + network * out + column;
  const int64_t vectors = (columns + LANES - 1) / LANES;
  T sum[PANEL / LANES];
  for (int64_t j = 0; j < vectors; j++) sum[j] = V::all(0.0f);
  for (int64_t row = 0; row < pass.rows; row++) {
    for (int64_t j = 0; j < vectors; j++) {
      sum[j] = V::add(sum[j], V::load(delta + row * PANEL + j * LANES));
    }
  }
  for (int64_t j = 0; j < vectors; j++) {
    V::store_part(bias + j * LANES, sum[j], columns - j * LANES);
  }
}

// ---------------------------------------------------------------- optimiser, target networks

// Adam (Kingma and Ba 2015), as PyTorch computes it. Moments that vanish become 0: a unit that has
// died leaves them behind, they have no effect, and processors are slow with the smallest numbers.
inline void adam_vector(const AdamStep& s, int64_t i, int64_t n) {
  const bool part = n < LANES;
  auto read = [=](const float* p) { return part ? V::load_part(p + i, n) : V::load(p + i); };
  auto write = [=](float* p, T x) { part ? V::store_part(p + i, x, n) : V::store(p + i, x); };
  const T g = read(s.gradient), m0 = read(s.first_moments), v0 = read(s.second_moments);
  T m = V::multiply_add(V::subtract(g, m0), V::all(s.one_minus_beta1), m0);
  T v = V::multiply_add(V::multiply(g, g), V::all(s.one_minus_beta2),
                        V::multiply(v0, V::all(s.beta2)));
  m = V::unless_vanished(m, 1e-30f);
  v = V::unless_vanished(v, 1e-32f);
  const T root = V::multiply_add(V::root(v), V::all(s.root_correction), V::all(s.epsilon));
  write(s.first_moments, m);
  write(s.second_moments, v);
  write(s.parameters,
        V::multiply_add(V::divide(m, root), V::all(-s.step_size), read(s.parameters)));
}

void adam(const AdamStep& step, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + LANES <= end; i += LANES) adam_vector(step, i, LANES);
  if (i < end) adam_vector(step, i, end - i);
}

// target += tau (source - target)
void follow(float* target, const float* source, float tau, int64_t begin, int64_t end) {
  const T rate = V::all(tau);
  int64_t i = begin;
  for (; i + LANES <= end; i += LANES) {
    const T old = V::load(target + i);
    V::store(target + i, V::multiply_add(V::subtract(V::load(source + i), old), rate, old));
  }
  if (i < end) {
    const T old = V::load_part(target + i, end - i);
    const T by = V::subtract(V::load_part(source + i, end - i), old);
    V::store_part(target + i, V::multiply_add(by, rate, old), end - i);
  }
}

void sum(float* to, const float* from, int64_t terms, int64_t distance, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += LANES) {
    const int64_t left = end - i;
    T total = V::load_part(from + i, left);
    for (int64_t j = 1; j < terms; j++) {
      total = V::add(total, V::load_part(from + j * distance + i, left));
    }
    V::store_part(to + i, total, left);
  }
}

#include "rectified.h"

#include "folded.h"

#include "gaussian.h"

const Kernels KERNELS = {V::NAME,         forward_rows, forward_small, backward_rows,
                         weight_gradient, adam,         follow,        sum,
                         rectify,         rectify_gradient, fold, fold_gradient, sample, sample_gradient};
