// The kernels for every processor that the compiler knows: vectors of four floats by the compiler's
// own vector types, which are NEON's on ARM (with fused multiply-add) and SSE2's on x86 (without).
#include "engine.h"

#define ENGINE_UNROLL _Pragma("GCC unroll 16")

namespace engine {
namespace {

struct V {
  typedef float T __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  static constexpr int LANES = 4;
#ifdef __aarch64__
  static constexpr const char* NAME = "NEON";
  static constexpr int VECTORS = 4, MAX_ROWS = 6;  // of 32 registers
#else
  static constexpr const char* NAME = "baseline";
  static constexpr int VECTORS = 2, MAX_ROWS = 4;  // of 16 registers
#endif

  static T all(float x) { return T{x, x, x, x}; }
  static T load(const float* p) {
    T x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static T load_part(const float* p, int64_t n) {
    float x[LANES] = {};
    for (int64_t i = 0; i < n && i < LANES; i++) x[i] = p[i];
    return load(x);
  }
  static void store(float* p, T x) { __builtin_memcpy(p, &x, sizeof x); }
  static void store_part(float* p, T x, int64_t n) {
    for (int64_t i = 0; i < n && i < LANES; i++) p[i] = x[i];
  }
  static T add(T x, T y) { return x + y; }
  static T subtract(T x, T y) { return x - y; }
  static T multiply(T x, T y) { return x * y; }
  static T divide(T x, T y) { return x / y; }
  static T root(T x) {
    return T{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]),
             __builtin_sqrtf(x[3])};
  }
  static T multiply_add(T x, T y, T z) { return x * y + z; }
  static T choose(I where, T yes, T no) { return (T)(((I)yes & where) | ((I)no & ~where)); }
  // Comparisons with NaN are false: in these, NaN stays NaN.
  static T relu(T x) { return choose(x <= all(0.0f), all(0.0f), x); }
  static T at_least(T x, float y) { return choose(x < all(y), all(y), x); }
  static T at_most(T x, float y) { return choose(x > all(y), all(y), x); }
  // A bit a lane: whether it is positive or NaN.
  static uint32_t signs(T x) {
    const I bits = ~(x <= all(0.0f)) & I{1, 2, 4, 8};
    return static_cast<uint32_t>(bits[0] | bits[1] | bits[2] | bits[3]);
  }
  static T keep(T x, uint32_t signs) {
    const int32_t s = static_cast<int32_t>(signs);
    return (T)((I)x & ((I{s, s, s, s} & I{1, 2, 4, 8}) != I{}));
  }
  static T if_positive(T x, T yes, T no) { return choose(x > all(0.0f), yes, no); }
  static T unless_vanished(T x, float limit) {
    const T size = (T)((I)x & I{INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX});
    return choose(size < all(limit), all(0.0f), x);
  }
  static T shift_to_exponent(T x) { return (T)((I)x << 23); }
  static uint32_t extract(uint32_t bits, uint32_t chosen) {
    uint32_t result = 0;
    for (int i = 0; chosen; i++, chosen &= chosen - 1) {
      result |= (bits >> __builtin_ctz(chosen) & 1u) << i;
    }
    return result;
  }
  static void transpose(T (&x)[4]) {
    const T a = x[0], b = x[1], c = x[2], d = x[3];
    x[0] = T{a[0], b[0], c[0], d[0]};
    x[1] = T{a[1], b[1], c[1], d[1]};
    x[2] = T{a[2], b[2], c[2], d[2]};
    x[3] = T{a[3], b[3], c[3], d[3]};
  }
};

#include "kernels.h"

}  // namespace

const Kernels* baseline_kernels() { return &KERNELS; }

}  // namespace engine
