// The kernels for processors with AVX2 and fused multiply-add.
#include "engine.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__)
#include <immintrin.h>

#define ENGINE_UNROLL _Pragma("GCC unroll 16")

namespace engine {
namespace {

// A window of 8 into it has as many leading ones as wanted.
alignas(64) const int32_t WINDOW[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

struct V {
  using T = __m256;
  static constexpr const char* NAME = "AVX2";
  static constexpr int LANES = 8, VECTORS = 2, MAX_ROWS = 6;

  static __m256i first(int64_t n) {
    const int64_t skip = n >= LANES ? 0 : n <= 0 ? LANES : LANES - n;
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(WINDOW + skip));
  }
  static T all(float x) { return _mm256_set1_ps(x); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static T load_part(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
  static void store(float* p, T x) { _mm256_storeu_ps(p, x); }
  static void store_part(float* p, T x, int64_t n) { _mm256_maskstore_ps(p, first(n), x); }
  static T add(T x, T y) { return _mm256_add_ps(x, y); }
  static T subtract(T x, T y) { return _mm256_sub_ps(x, y); }
  static T multiply(T x, T y) { return _mm256_mul_ps(x, y); }
  static T divide(T x, T y) { return _mm256_div_ps(x, y); }
  static T root(T x) { return _mm256_sqrt_ps(x); }
  static T multiply_add(T x, T y, T z) { return _mm256_fmadd_ps(x, y, z); }
  // Of these three, NaN stays NaN: the processor returns the second operand then.
  static T relu(T x) { return _mm256_max_ps(all(0.0f), x); }
  static T at_least(T x, float y) { return _mm256_max_ps(all(y), x); }
  static T at_most(T x, float y) { return _mm256_min_ps(all(y), x); }
  // A bit a lane: whether it is positive or NaN.
  static uint32_t signs(T x) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, all(0.0f), _CMP_NLE_UQ)));
  }
  static T keep(T x, uint32_t signs) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(signs)), bit);
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bit)));
  }
  static T if_positive(T x, T yes, T no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, all(0.0f), _CMP_GT_OQ));
  }
  static T unless_vanished(T x, float limit) {
    const T size = _mm256_andnot_ps(all(-0.0f), x);
    return _mm256_and_ps(x, _mm256_cmp_ps(size, all(limit), _CMP_NLT_UQ));
  }
  static T shift_to_exponent(T x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23));
  }
  static uint32_t extract(uint32_t bits, uint32_t chosen) { return _pext_u32(bits, chosen); }

  static void transpose(T (&x)[8]) {
    T y[8];
    ENGINE_UNROLL
    for (int i = 0; i < 8; i += 4) {  // 4 x 4 blocks, in each 128 bits
      const T a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
      const T c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
      const T d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
      y[i] = _mm256_shuffle_ps(a, c, 0x44);
      y[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
      y[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
      y[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    ENGINE_UNROLL
    for (int i = 0; i < 4; i++) {
      x[i] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x20);
      x[i + 4] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x31);
    }
  }
};

#include "kernels.h"

}  // namespace

const Kernels* avx2_kernels() { return &KERNELS; }

}  // namespace engine

#else

namespace engine {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace engine

#endif
