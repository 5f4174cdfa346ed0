// The kernels for processors with AVX-512.
#include "engine.h"

#if defined(__AVX512F__) && defined(__BMI2__)
#include <immintrin.h>

#define ENGINE_UNROLL _Pragma("GCC unroll 16")

namespace engine {
namespace {

struct V {
  using T = __m512;
  static constexpr const char* NAME = "AVX-512";
  static constexpr int LANES = 16, VECTORS = 2, MAX_ROWS = 8;

  static __mmask16 first(int64_t n) {
    return n >= LANES ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
  }
  static T all(float x) { return _mm512_set1_ps(x); }
  static T load(const float* p) { return _mm512_loadu_ps(p); }
  static T load_part(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, T x) { _mm512_storeu_ps(p, x); }
  static void store_part(float* p, T x, int64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static T add(T x, T y) { return _mm512_add_ps(x, y); }
  static T subtract(T x, T y) { return _mm512_sub_ps(x, y); }
  static T multiply(T x, T y) { return _mm512_mul_ps(x, y); }
  static T divide(T x, T y) { return _mm512_div_ps(x, y); }
  static T root(T x) { return _mm512_sqrt_ps(x); }
  static T multiply_add(T x, T y, T z) { return _mm512_fmadd_ps(x, y, z); }
  // Of these three, NaN stays NaN: the processor returns the second operand then.
  static T relu(T x) { return _mm512_max_ps(all(0.0f), x); }
  static T at_least(T x, float y) { return _mm512_max_ps(all(y), x); }
  static T at_most(T x, float y) { return _mm512_min_ps(all(y), x); }
  // A bit a lane: whether it is positive or NaN.
  static uint32_t signs(T x) { return _mm512_cmp_ps_mask(x, all(0.0f), _CMP_NLE_UQ); }
  static T keep(T x, uint32_t signs) {
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(signs), x);
  }
  static T if_positive(T x, T yes, T no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, all(0.0f), _CMP_GT_OQ), yes);
  }
  static T unless_vanished(T x, float limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(x), all(limit), _CMP_NLT_UQ), x);
  }
  static T shift_to_exponent(T x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23));
  }
  static uint32_t extract(uint32_t bits, uint32_t chosen) { return _pext_u32(bits, chosen); }

  static void transpose(T (&x)[16]) {
    T y[16];
    ENGINE_UNROLL
    for (int i = 0; i < 16; i += 4) {  // 4 x 4 blocks, in each 128 bits
      const T a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
      const T c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
      const T d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
      y[i] = _mm512_shuffle_ps(a, c, 0x44);
      y[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
      y[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
      y[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    ENGINE_UNROLL
    for (int i = 0; i < 4; i++) {  // blocks of 128 bits
      const T a = _mm512_shuffle_f32x4(y[i], y[i + 4], 0x88);
      const T b = _mm512_shuffle_f32x4(y[i], y[i + 4], 0xdd);
      const T c = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0x88);
      const T d = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0xdd);
      x[i] = _mm512_shuffle_f32x4(a, c, 0x88);
      x[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
      x[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
      x[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
  }
};

#include "kernels.h"

}  // namespace

const Kernels* avx512_kernels() { return &KERNELS; }

}  // namespace engine

#else

namespace engine {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace engine

#endif
