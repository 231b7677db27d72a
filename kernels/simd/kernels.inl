// Included by one translation unit per instruction set, with FASTMQA_VECTOR_BYTES and FASTMQA_SIMD_NAME set and
// everything in an anonymous namespace, so that no two instruction sets share a symbol.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../include/fastmqa/dtype.h"
#include "simd.h"
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace fastmqa {
namespace {

constexpr int vectorBytes = FASTMQA_VECTOR_BYTES;
constexpr int lanesF32 = vectorBytes / 4;
constexpr bool manyRegisters = vectorBytes == 64;

typedef float VF __attribute__((vector_size(vectorBytes)));
typedef int32_t VI __attribute__((vector_size(vectorBytes)));
typedef double VD __attribute__((vector_size(vectorBytes)));
typedef float VFu __attribute__((vector_size(vectorBytes), aligned(4), may_alias));
typedef double VDu __attribute__((vector_size(vectorBytes), aligned(8), may_alias));
typedef float VFhalf __attribute__((vector_size(vectorBytes / 2)));
typedef float VFhalfu __attribute__((vector_size(vectorBytes / 2), aligned(4), may_alias));

template <class T>
struct Vec;
template <>
struct Vec<float> {
  using Type = VF;
  using Loose = VFu;
};
template <>
struct Vec<double> {
  using Type = VD;
  using Loose = VDu;
};

template <class T>
inline typename Vec<T>::Type load(const T* p) {
  return *reinterpret_cast<const typename Vec<T>::Loose*>(p);
}
template <class T>
inline void store(T* p, typename Vec<T>::Type v) {
  *reinterpret_cast<typename Vec<T>::Loose*>(p) = v;
}
template <class T>
inline typename Vec<T>::Type splat(T x) {
  return x - typename Vec<T>::Type{};
}

// Register tile: MR rows by NV vectors. Sums of one call start at zero and meet C once, which bounds rounding growth.
template <class T, int MR, int NV>
inline void micro(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, const T* beta) {
  using V = typename Vec<T>::Type;
  constexpr int lanes = vectorBytes / sizeof(T);
  V sum[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[i][j] = V{};
  for (int64_t p = 0; p < k; p++) {
    V column[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) column[j] = load(b + p * ldb + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const V row = splat(a[i * lda + p]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) sum[i][j] += row * column[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) {
      T* out = c + i * ldc + j * lanes;
      store(out, beta ? sum[i][j] + load(out) * splat(beta[i]) : sum[i][j]);
    }
}

template <class T, int NV, int MR>
inline void rowsOf(int64_t m, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                   const T* beta) {
  for (; m >= MR; m -= MR) {
    micro<T, MR, NV>(k, a, lda, b, ldb, c, ldc, beta);
    a += MR * lda, c += MR * ldc, beta += beta ? MR : 0;
  }
  if constexpr (MR > 1) {
    if (m > 0) rowsOf<T, NV, MR / 2>(m, k, a, lda, b, ldb, c, ldc, beta);
  }
}

template <class T>
void gemmTile(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
              const T* beta) {
  constexpr int lanes = vectorBytes / sizeof(T);
  constexpr int tall = manyRegisters ? 12 : 6;
  int64_t j = 0;
  // Few rows: wide tiles hide the latency of the multiply-add chain.
  if (m <= 2)
    for (; j + 4 * lanes <= n; j += 4 * lanes) rowsOf<T, 4, 2>(m, k, a, lda, b + j, ldb, c + j, ldc, beta);
  for (; j + 2 * lanes <= n; j += 2 * lanes) rowsOf<T, 2, tall>(m, k, a, lda, b + j, ldb, c + j, ldc, beta);
  for (; j + lanes <= n; j += lanes) rowsOf<T, 1, tall>(m, k, a, lda, b + j, ldb, c + j, ldc, beta);
}

void gemmWide(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, double* c,
              int64_t ldc) {
  constexpr int lanes = vectorBytes / 8;
  for (int64_t j = 0; j + lanes <= n; j += lanes)
    for (int64_t i = 0; i < m; i++) {
      VD sum = VD{};
      for (int64_t p = 0; p < k; p++) {
        const VFhalf half = *reinterpret_cast<const VFhalfu*>(b + p * ldb + j);
        sum += __builtin_convertvector(half, VD) * splat(static_cast<double>(a[i * lda + p]));
      }
      store(c + i * ldc + j, sum);
    }
}

inline VF select(VI mask, VF yes, VF no) { return (VF)((mask & (VI)yes) | (~mask & (VI)no)); }

// exp on [-87.3, 88]: 2^n times a degree-6 polynomial on [-ln2/2, ln2/2]; below the range the result is 0.
inline VF expVector(VF x) {
  const VI tooSmall = x < splat(-87.33f);
  const VF bounded = select(tooSmall, splat(-87.33f), select(x > splat(88.0f), splat(88.0f), x));
  const VF magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VF shifted = bounded * splat(1.44269504088896341f) + magic;
  const VF n = shifted - magic;
  VF r = bounded - n * splat(0.693359375f);
  r = r + n * splat(2.12194440e-4f);
  VF p = splat(1.0f / 720);
  p = p * r + splat(1.0f / 120);
  p = p * r + splat(1.0f / 24);
  p = p * r + splat(1.0f / 6);
  p = p * r + splat(0.5f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  const VF scale = (VF)(((VI)shifted << 23) + (127 << 23));
  return select(tooSmall, VF{}, p * scale);
}

inline float sumLanes(VF v) {
  float total = 0;
  for (int i = 0; i < lanesF32; i++) total += v[i];
  return total;
}

float softmaxRow(float* scores, int64_t n, float oldMax, float* newMax) {
  VF top = splat(oldMax);
  for (int64_t i = 0; i < n; i += lanesF32) {
    const VF s = load(scores + i);
    top = select(s > top, s, top);
  }
  float highest = oldMax;
  for (int i = 0; i < lanesF32; i++) highest = top[i] > highest ? top[i] : highest;
  *newMax = highest;
  if (highest == -INFINITY) {
    for (int64_t i = 0; i < n; i += lanesF32) store(scores + i, VF{});
    return 0;
  }
  const VF base = splat(highest);
  VF total = VF{};
  for (int64_t i = 0; i < n; i += lanesF32) {
    const VF p = expVector(load(scores + i) - base);
    store(scores + i, p);
    total += p;
  }
  return sumLanes(total);
}

void softcapRow(float* x, int64_t n, float cap) {
  for (int64_t i = 0; i < n; i++) x[i] = cap * std::tanh(x[i] / cap);
}

typedef uint8_t B8 __attribute__((vector_size(8)));
typedef uint8_t B16 __attribute__((vector_size(16)));
typedef uint16_t H8 __attribute__((vector_size(16)));
typedef uint32_t W8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef float F8 __attribute__((vector_size(32)));

template <class V>
inline V loadBytes(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void storeFloats(float* out, F8 v) { std::memcpy(out, &v, sizeof v); }
inline F8 codesToFloat(B8 b) { return __builtin_convertvector(__builtin_convertvector(b, I8), F8); }

// Small floats: exponent and mantissa moved to where f32 has them, then re-biased by an exact power of two.
inline F8 smallFloat(W8 bits, uint32_t magnitude, int shift, int signShift, float rebias) {
  const F8 value = (F8)((bits & magnitude) << shift) * rebias;
  return (F8)((W8)value | ((bits & (magnitude + 1)) << signShift));
}

inline F8 decode8(int dtype, const uint8_t* codes, int64_t i) {
  switch (static_cast<Dtype>(dtype)) {
    case Dtype::f32: return loadBytes<F8>(codes + 4 * i);
    case Dtype::f16: {
#if defined(__F16C__)
      return (F8)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 2 * i)));
#else
      return smallFloat(__builtin_convertvector(loadBytes<H8>(codes + 2 * i), W8), 0x7fff, 13, 16, 0x1p112f);
#endif
    }
    case Dtype::bf16: return (F8)(__builtin_convertvector(loadBytes<H8>(codes + 2 * i), W8) << 16);
    case Dtype::e4m3:
      return smallFloat(__builtin_convertvector(loadBytes<B8>(codes + i), W8), 0x7f, 20, 24, 0x1p120f);
    case Dtype::e5m2:
      return smallFloat(__builtin_convertvector(loadBytes<B8>(codes + i), W8), 0x7f, 21, 24, 0x1p112f);
    case Dtype::int8: return codesToFloat(loadBytes<B8>(codes + i));
    case Dtype::int4: {
      uint32_t four;
      std::memcpy(&four, codes + i / 2, 4);
      const W8 spread = ((W8{} + four) >> W8{0, 4, 8, 12, 16, 20, 24, 28}) & 15u;
      return __builtin_convertvector((I8)spread, F8);
    }
    case Dtype::int3: {
      uint32_t three = codes[3 * i / 8] | codes[3 * i / 8 + 1] << 8 | codes[3 * i / 8 + 2] << 16;
      const W8 spread = ((W8{} + three) >> W8{0, 3, 6, 9, 12, 15, 18, 21}) & 7u;
      return __builtin_convertvector((I8)spread, F8);
    }
    case Dtype::int2: {
      uint16_t two;
      std::memcpy(&two, codes + i / 4, 2);
      const W8 spread = ((W8{} + two) >> W8{0, 2, 4, 6, 8, 10, 12, 14}) & 3u;
      return __builtin_convertvector((I8)spread, F8);
    }
  }
  __builtin_trap();
}

template <int dtype>
void decodeAll(const uint8_t* codes, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 8) storeFloats(out + i, decode8(dtype, codes, i));
}

void decode(int dtype, const uint8_t* codes, int64_t n, float* out) {
  switch (dtype) {
    case 0: return decodeAll<0>(codes, n, out);
    case 1: return decodeAll<1>(codes, n, out);
    case 2: return decodeAll<2>(codes, n, out);
    case 3: return decodeAll<3>(codes, n, out);
    case 4: return decodeAll<4>(codes, n, out);
    case 5: return decodeAll<5>(codes, n, out);
    case 6: return decodeAll<6>(codes, n, out);
    case 7: return decodeAll<7>(codes, n, out);
    case 8: return decodeAll<8>(codes, n, out);
    default: __builtin_trap();
  }
}

void scaleByVector(float* out, int64_t n, const float* scale, const float* shift) {
  for (int64_t i = 0; i < n; i++) out[i] = out[i] * scale[i] + shift[i];
}

void scaleByNumber(float* out, int64_t n, float scale, float shift) {
  for (int64_t i = 0; i < n; i++) out[i] = out[i] * scale + shift;
}

void rotateRows(float* a, float* b, int64_t n, const float* cosine, const float* sine) {
  for (int64_t i = 0; i < n; i++) {
    const float x = a[i], y = b[i];
    a[i] = x * cosine[i] - y * sine[i];
    b[i] = x * sine[i] + y * cosine[i];
  }
}

double burnFma(int64_t iterations, float* sink) {
  constexpr int chains = manyRegisters ? 24 : 12;
  VF acc[chains];
  for (int i = 0; i < chains; i++) acc[i] = splat(0.001f * i);
  const VF x = splat(0.9999f + sink[0]), y = splat(1e-6f + sink[1]);
  for (int64_t i = 0; i < iterations; i++)
#pragma GCC unroll 24
    for (int j = 0; j < chains; j++) acc[j] = acc[j] * x + y;
  VF total = VF{};
  for (int j = 0; j < chains; j++) total += acc[j];
  sink[2] += sumLanes(total);
  return 2.0 * chains * lanesF32 * static_cast<double>(iterations);
}

float readAll(const float* data, int64_t n) {
  VF acc[8] = {};
  int64_t i = 0;
  for (; i + 8 * lanesF32 <= n; i += 8 * lanesF32)
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) acc[j] += load(data + i + j * lanesF32);
  VF total = VF{};
  for (int j = 0; j < 8; j++) total += acc[j];
  return sumLanes(total);
}

const Simd table = {FASTMQA_SIMD_NAME, gemmTile<float>, gemmTile<double>, gemmWide,     2 * lanesF32, lanesF32,
                    softmaxRow,        softcapRow,      decode,           scaleByVector, scaleByNumber, rotateRows,
                    burnFma,           readAll};

}  // namespace
}  // namespace fastmqa
