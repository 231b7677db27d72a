// Included by one translation unit per instruction set, with FASTMQA_VECTOR_BYTES and FASTMQA_SIMD_NAME set and
// everything in an anonymous namespace, so that no two instruction sets share a symbol.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../include/fastmqa/dtype.h"
#include "simd.h"
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fastmqa {
namespace {

constexpr int vectorBytes = FASTMQA_VECTOR_BYTES;
constexpr int lanesF32 = vectorBytes / 4;
#if defined(__aarch64__)
constexpr bool neon = true;
#else
constexpr bool neon = false;
#endif
constexpr bool manyRegisters = vectorBytes == 64 || neon;  // 32, not 16

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

constexpr int64_t lineBytes = 64;  // of a cache

// Register tile: MR rows by NV vectors. Sums of one call start at zero and meet C once, which bounds rounding growth.
template <class T, int MR, int NV>
inline void micro(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, const T* beta,
                  const char* fetch) {
  using V = typename Vec<T>::Type;
  constexpr int lanes = vectorBytes / sizeof(T);
  V sum[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[i][j] = V{};
  for (int64_t p = 0; p < k; p++) {
    V column[NV];
    if constexpr (MR <= 6) __builtin_prefetch(fetch + p * lineBytes, 0, 2);  // taller tiles have no general register left
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
inline void rowsOf(int64_t rows, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                   const T* beta, const char* fetch) {
  if (rows == MR) return micro<T, MR, NV>(k, a, lda, b, ldb, c, ldc, beta, fetch);
  if constexpr (MR > 1) rowsOf<T, NV, MR - 1>(rows, k, a, lda, b, ldb, c, ldc, beta, fetch);
}

// m rows in register tiles of at most `tall` rows, as even as can be: 32 rows are 11 + 11 + 10, not 12 + 12 + 8.
template <class T, int NV, int tall>
inline void allRows(int64_t m, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                    const T* beta, Ahead& ahead) {
  for (int64_t tiles = (m + tall - 1) / tall, done = 0; tiles > 0; tiles--) {
    const int64_t rows = (m - done + tiles - 1) / tiles;
    // A line for each step of k; with nothing left to ask for, what is in the cache anyway.
    const bool asks = rows <= 6 && ahead.bytes >= k * lineBytes;
    rowsOf<T, NV, tall>(rows, k, a + done * lda, lda, b, ldb, c + done * ldc, ldc, beta ? beta + done : nullptr,
                        asks ? static_cast<const char*>(ahead.from) : reinterpret_cast<const char*>(b));
    if (asks) ahead = {static_cast<const char*>(ahead.from) + k * lineBytes, ahead.bytes - k * lineBytes};
    done += rows;
  }
}

template <class T>
void gemmTile(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
              const T* beta, Ahead ahead) {
  constexpr int lanes = vectorBytes / sizeof(T);
  constexpr int tall = manyRegisters ? 12 : 6;
  int64_t j = 0;
  // Wide tiles where registers allow: fewer loads for a multiply-add, and few rows hide the latency of its chain.
  if constexpr (vectorBytes == 64)
    for (; j + 4 * lanes <= n; j += 4 * lanes) allRows<T, 4, 6>(m, k, a, lda, b + j, ldb, c + j, ldc, beta, ahead);
  else if (m <= 2)
    for (; j + 4 * lanes <= n; j += 4 * lanes) allRows<T, 4, 2>(m, k, a, lda, b + j, ldb, c + j, ldc, beta, ahead);
  for (; j + 2 * lanes <= n; j += 2 * lanes) allRows<T, 2, tall>(m, k, a, lda, b + j, ldb, c + j, ldc, beta, ahead);
  for (; j + lanes <= n; j += lanes) allRows<T, 1, tall>(m, k, a, lda, b + j, ldb, c + j, ldc, beta, ahead);
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

/// The larger of each pair; b where one is NaN.
inline VF larger(VF a, VF b) {
#if defined(__AVX512F__)
  return (VF)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (VF)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return select(a > b, a, b);
#endif
}

/// 2^r, |r| <= 1/2, by a minimax polynomial of degree 5: relative error below 1.6e-7 in f32, exact at 0.
inline VF halfPower(VF r) {
  VF p = splat(0.001326472731307149f);
  p = p * r + splat(0.009671512991189957f);
  p = p * r + splat(0.05550733581185341f);
  p = p * r + splat(0.24022242426872253f);
  p = p * r + splat(0.6931470036506653f);
  return p * r + splat(1.0f);
}

// exp of x <= 0 as 2^n 2^r; below -87.7 the result is 0, a masked score's -inf included. NaN stays.
inline VF expVector(VF x) {
  const VF log2e = splat(1.44269504088896341f);
#if defined(__AVX512F__)
  const VF n = (VF)_mm512_roundscale_ps((__m512)(x * log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const VF p = halfPower((VF)_mm512_fmsub_ps((__m512)x, (__m512)log2e, (__m512)n));
  return (VF)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)n, _mm512_set1_ps(-127), _CMP_NLE_UQ), (__m512)p, (__m512)n);
#else
  const VF magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const VF bounded = larger(splat(-104.0f), x);
  const VF shifted = bounded * log2e + magic;
  const VF r = bounded * log2e - (shifted - magic);
  VI exponent = (VI)shifted - ((VI)magic - 127);
  exponent = exponent > 0 ? exponent : VI{};
  return halfPower(r) * (VF)(exponent << 23);
#endif
}

template <int n>
struct Wide {
  typedef uint8_t B __attribute__((vector_size(n)));
  typedef uint16_t H __attribute__((vector_size(2 * n)));
  typedef uint32_t W __attribute__((vector_size(4 * n)));
  typedef int32_t I __attribute__((vector_size(4 * n)));
  typedef float F __attribute__((vector_size(4 * n)));
};

// Combines all lanes in a tree, halves first: the same order on every machine with this vector width.
template <class V, class Combine>
inline float foldLanes(V v, const Combine& combine) {
  constexpr int n = sizeof(V) / 4;
  typedef typename Wide<n>::I Indices;
  const Indices lane = [] {
    Indices l;
    for (int i = 0; i < n; i++) l[i] = i;
    return l;
  }();
#pragma GCC unroll 4
  for (int half = n / 2; half > 0; half /= 2) v = combine(v, __builtin_shuffle(v, lane ^ half));
  return v[0];
}
template <class V>
inline float sumLanes(V v) {
  return foldLanes(v, [](V a, V b) { return a + b; });
}

// (a0 a1 ..), (b0 b1 ..) become (a0 b0 a1 ..) and the rest.
template <class V>
inline void interleave(V& a, V& b) {
  constexpr int n = sizeof(V) / 4;
  typedef typename Wide<n>::I Indices;
  const Indices first = [] {
    Indices l;
    for (int i = 0; i < n; i++) l[i] = i / 2 + i % 2 * n;
    return l;
  }();
  const V low = __builtin_shuffle(a, b, first);
  b = __builtin_shuffle(a, b, first + n / 2);
  a = low;
}

// Passes over all rows, not one row after the other: the folds of a row wait for nothing that the next row needs.
void softmaxRows(int64_t rows, float* scores, int64_t stride, int64_t n, float* top, float* keep, float* sums) {
  for (int64_t i = 0; i < rows; i++) {
    VF highest = splat(keep[i] = top[i]);
    for (int64_t c = 0; c < n; c += lanesF32) highest = larger(load(scores + i * stride + c), highest);
    top[i] = foldLanes(highest, larger);
  }
  for (int64_t i = 0; i < rows; i += lanesF32) {
    const VF now = load(top + i);
    store(keep + i, select(now == splat(-INFINITY), splat(1.0f), expVector(load(keep + i) - now)));
  }
  for (int64_t i = 0; i < rows; i++) {
    const VF base = splat(top[i] == -INFINITY ? 0 : top[i]);
    VF total = VF{};
    for (int64_t c = 0; c < n; c += lanesF32) {
      const VF p = expVector(load(scores + i * stride + c) - base);
      store(scores + i * stride + c, p);
      total += p;
    }
    sums[i] = sumLanes(total);
  }
}

void softcapRow(float* x, int64_t n, float cap) {
  for (int64_t i = 0; i < n; i++) x[i] = cap * std::tanh(x[i] / cap);
}

void silu(float* x, int64_t n) {
  const auto step = [](VF v) {  // exp of what is not positive: it cannot overflow
    const VF e = expVector(select(v < VF{}, v, -v));
    return v * select(v < VF{}, e, splat(1.0f)) / (e + splat(1.0f));
  };
  int64_t i = 0;
  for (; i + lanesF32 <= n; i += lanesF32) store(x + i, step(load(x + i)));
  if (i == n) return;
  float rest[lanesF32] = {};
  std::memcpy(rest, x + i, static_cast<size_t>(n - i) * 4);
  store(rest, step(load(rest)));
  std::memcpy(x + i, rest, static_cast<size_t>(n - i) * 4);
}

// Stored numbers come eight at a time, or a whole vector where that is wider.
constexpr int lanesDecode = lanesF32 > 8 ? lanesF32 : 8;
template <class V>
inline V loadBytes(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Small floats: exponent and mantissa moved to where f32 has them, then re-biased by an exact power of two.
template <int n>
inline typename Wide<n>::F smallFloat(typename Wide<n>::W bits, uint32_t magnitude, int shift, int signShift, float rebias) {
  using F = typename Wide<n>::F;
  using W = typename Wide<n>::W;
  const F value = (F)((bits & magnitude) << shift) * rebias;
  return (F)((W)value | ((bits & (magnitude + 1)) << signShift));
}

// Bytes to 32-bit lanes. Compilers take the general conversion apart lane by lane, hence the intrinsics.
template <int n>
inline typename Wide<n>::I widen(typename Wide<n>::B bytes) {
#if defined(__AVX512F__)
  if constexpr (n == 16) return (typename Wide<n>::I)_mm512_cvtepu8_epi32((__m128i)bytes);
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) return (typename Wide<n>::I)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(loadBytes<int64_t>(&bytes)));
#endif
#if defined(__aarch64__)
  if constexpr (n == 8) {
    const uint16x8_t half = vmovl_u8((uint8x8_t)bytes);
    const uint32x4_t both[2] = {vmovl_u16(vget_low_u16(half)), vmovl_u16(vget_high_u16(half))};
    return loadBytes<typename Wide<n>::I>(both);
  }
#endif
  return __builtin_convertvector(bytes, typename Wide<n>::I);
}

// The same of signed bytes.
template <int n>
inline typename Wide<n>::I widenSigned(typename Wide<n>::B bytes) {
#if defined(__AVX512F__)
  if constexpr (n == 16) return (typename Wide<n>::I)_mm512_cvtepi8_epi32((__m128i)bytes);
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) return (typename Wide<n>::I)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(loadBytes<int64_t>(&bytes)));
#endif
  return (typename Wide<n>::I)(widen<n>(bytes) << 24) >> 24;
}

template <int n>
inline typename Wide<n>::W widenHalves(typename Wide<n>::H halves) {
#if defined(__AVX512F__)
  if constexpr (n == 16) return (typename Wide<n>::W)_mm512_cvtepu16_epi32((__m256i)halves);
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) return (typename Wide<n>::W)_mm256_cvtepu16_epi32((__m128i)halves);
#endif
  return __builtin_convertvector(halves, typename Wide<n>::W);
}

// Codes of less than a byte, one to a byte: eight of them are `bits` bytes.
template <int bits>
inline uint64_t unpackEight(const uint8_t* codes) {
  uint32_t word = codes[0] | codes[1] << 8;
  if constexpr (bits == 3) word |= static_cast<uint32_t>(codes[2]) << 16;
  if constexpr (bits == 4) std::memcpy(&word, codes, 4);
#if defined(__BMI2__)
  return _pdep_u64(word, 0x0101010101010101ull * ((1u << bits) - 1));
#else
  uint64_t eight = 0;
  for (int j = 0; j < 8; j++) eight |= static_cast<uint64_t>((word >> (j * bits)) & ((1u << bits) - 1)) << (8 * j);
  return eight;
#endif
}

template <int bits, int n>
inline typename Wide<n>::B unpack(const uint8_t* codes) {
  typedef uint64_t E __attribute__((vector_size(n)));  // in registers: a round trip through memory would stall
  if constexpr (n == 16) return (typename Wide<n>::B)E{unpackEight<bits>(codes), unpackEight<bits>(codes + bits)};
  if constexpr (n == 8) return (typename Wide<n>::B)E{unpackEight<bits>(codes)};
}

template <int n>
inline typename Wide<n>::F toFloat(typename Wide<n>::B bytes) {
  return __builtin_convertvector(widen<n>(bytes), typename Wide<n>::F);
}

template <Dtype dtype, int n>
inline typename Wide<n>::F decodeLanes(const uint8_t* codes, int64_t i) {
  using F = typename Wide<n>::F;
  using W = typename Wide<n>::W;
  using B = typename Wide<n>::B;
  if constexpr (dtype == Dtype::f32) return loadBytes<F>(codes + 4 * i);
  if constexpr (dtype == Dtype::f16) {
#if defined(__AVX512F__)
    if constexpr (n == 16) return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 2 * i)));
#endif
#if defined(__F16C__)
    if constexpr (n == 8) return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 2 * i)));
#endif
    return smallFloat<n>(__builtin_convertvector(loadBytes<typename Wide<n>::H>(codes + 2 * i), W), 0x7fff, 13, 16, 0x1p112f);
  }
  if constexpr (dtype == Dtype::bf16) return (F)(widenHalves<n>(loadBytes<typename Wide<n>::H>(codes + 2 * i)) << 16);
  if constexpr (dtype == Dtype::e4m3) return smallFloat<n>((W)widen<n>(loadBytes<B>(codes + i)), 0x7f, 20, 24, 0x1p120f);
  if constexpr (dtype == Dtype::e5m2) return smallFloat<n>((W)widen<n>(loadBytes<B>(codes + i)), 0x7f, 21, 24, 0x1p112f);
  if constexpr (dtype == Dtype::int8) return toFloat<n>(loadBytes<B>(codes + i));
  if constexpr (dtype == Dtype::int4) return toFloat<n>(unpack<4, n>(codes + i / 2));
  if constexpr (dtype == Dtype::int3) return toFloat<n>(unpack<3, n>(codes + 3 * i / 8));
  if constexpr (dtype == Dtype::int2) return toFloat<n>(unpack<2, n>(codes + i / 4));
}

template <int n>
inline typename Wide<n>::F splatLanes(float x) {
  return x - typename Wide<n>::F{};
}

using Scales = PackedBlock::Scales;

/// What is subtracted from the unsigned codes of symmetric integers.
template <Dtype dtype>
constexpr float centre() {
  return dtype == Dtype::int8 ? 128 : dtype == Dtype::int4 ? 8 : dtype == Dtype::int3 ? 4 : dtype == Dtype::int2 ? 2 : 0;
}

/// at: place of the first number (alongRow), or of the only one.
template <Dtype dtype, Scales scales, int n>
inline void decodeStep(const uint8_t* row, int64_t c, const float* scale, const float* shift, int64_t at, float* out) {
  using F = typename Wide<n>::F;
  F x = decodeLanes<dtype, n>(row, c);
  if constexpr (scales == Scales::alongRow) {
    const F by = loadBytes<F>(scale + at + c);
    x = x * by + (shift ? loadBytes<F>(shift + at + c) : by * -centre<dtype>());
  } else if constexpr (scales != Scales::none) {
    x = x * splatLanes<n>(scale[at]) + splatLanes<n>(shift ? shift[at] : -centre<dtype>() * scale[at]);
  }
  std::memcpy(out + c, &x, sizeof x);
}

// By value: behind a reference, every store to `out` might change the block.
template <Dtype dtype, Scales scales>
void decodeRows(const PackedBlock b, float* out, int64_t ldo) {
  const int64_t run = scales == Scales::perRun && b.span < b.columns ? b.span : b.columns;
  for (int64_t r = 0; r < b.rows; r++) {
    const uint8_t* row = b.codes + r * b.rowBytes;
    int64_t at = scales == Scales::alongRow ? r / b.span * b.stride : scales == Scales::perRun ? r : 0;
    float* to = out + r * ldo;
    // Wide steps never straddle a run: a run is a multiple of 8, and taken whole.
    for (int64_t c0 = 0; c0 < b.columns; c0 += run, at += b.stride) {
      const int64_t end = c0 + run < b.columns ? c0 + run : b.columns;
      int64_t c = c0;
      for (; c + lanesDecode <= end; c += lanesDecode)
        decodeStep<dtype, scales, lanesDecode>(row, c, b.scale, b.shift, at, to);
      for (; c < end; c += 8) decodeStep<dtype, scales, 8>(row, c, b.scale, b.shift, at, to);
    }
  }
}

template <Dtype dtype>
void decodeAny(const PackedBlock& b, float* out, int64_t ldo) {
  switch (b.scales) {
    case Scales::none: return decodeRows<dtype, Scales::none>(b, out, ldo);
    case Scales::uniform: return decodeRows<dtype, Scales::uniform>(b, out, ldo);
    case Scales::alongRow: return decodeRows<dtype, Scales::alongRow>(b, out, ldo);
    case Scales::perRun: return decodeRows<dtype, Scales::perRun>(b, out, ldo);
  }
}

void decodeBlock(const PackedBlock& b, float* out, int64_t ldo) {
  switch (static_cast<Dtype>(b.dtype)) {
    case Dtype::f32: return decodeAny<Dtype::f32>(b, out, ldo);
    case Dtype::f16: return decodeAny<Dtype::f16>(b, out, ldo);
    case Dtype::bf16: return decodeAny<Dtype::bf16>(b, out, ldo);
    case Dtype::e4m3: return decodeAny<Dtype::e4m3>(b, out, ldo);
    case Dtype::e5m2: return decodeAny<Dtype::e5m2>(b, out, ldo);
    case Dtype::int8: return decodeAny<Dtype::int8>(b, out, ldo);
    case Dtype::int4: return decodeAny<Dtype::int4>(b, out, ldo);
    case Dtype::int3: return decodeAny<Dtype::int3>(b, out, ldo);
    case Dtype::int2: return decodeAny<Dtype::int2>(b, out, ldo);
  }
  __builtin_trap();
}

void decode(int dtype, const uint8_t* codes, int64_t n, float* out) {
  decodeBlock({dtype, codes, 0, 1, n, PackedBlock::Scales::none, 1, 0, nullptr, nullptr}, out, 0);
}

// Products with packed rows. Integers come centred, so that symmetric formats need no shift.
using Packed = Wide<lanesDecode>;

#if defined(__AVX512F__)
inline Packed::F nibble(Packed::W w) {  // a table look-up reads the low four bits of each lane
  return (Packed::F)_mm512_permutexvar_ps((__m512i)w, _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
}
#else
inline Packed::F nibble(Packed::W w) {
  return __builtin_convertvector((Packed::I)((w ^ 8u) << 28) >> 28, Packed::F);
}
#endif

// NV vectors of a row from column c on. int4 by pairs: even columns in one vector, odd ones in the next.
template <Dtype dtype, int NV>
inline void decodeColumns(const uint8_t* row, int64_t c, Packed::F* out) {
  if constexpr (dtype == Dtype::int4 && NV % 2 == 0) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; j += 2) {
      const Packed::W w = (Packed::W)widen<lanesDecode>(loadBytes<Packed::B>(row + c / 2 + j * (lanesDecode / 2)));
      out[j] = nibble(w);
      out[j + 1] = nibble(w >> 4);
    }
  } else if constexpr (dtype == Dtype::int8) {  // centred before they are widened: a quarter of the work
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++)
      out[j] = __builtin_convertvector(widenSigned<lanesDecode>(loadBytes<Packed::B>(row + c + j * lanesDecode) ^ 0x80), Packed::F);
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) out[j] = decodeLanes<dtype, lanesDecode>(row, c + j * lanesDecode) - centre<dtype>();
  }
}

// Sums of MR rows by NV vectors, written to out[MR][NV * lanesDecode] in the order of the columns.
template <Dtype dtype, int MR, int NV>
void packedMicro(int64_t rows, const uint8_t* codes, int64_t rowBytes, int64_t c, const float* a, int64_t lda, float* out) {
  using F = Packed::F;
  // The first columns of a row ask for all of a later one, except where nothing but reading is to be done: one row of f32
  // follows the hardware's own prefetching, which asks further ahead (0.90 of the read ceiling against 0.68).
  const int64_t fetched = c == 0 && !(dtype == Dtype::f32 && MR == 1) ? rowBytes : 0;
  F sum[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[i][j] = F{};
  for (int64_t p = 0; p < rows; p++, codes += rowBytes) {
    F column[NV];
    for (int64_t i = 0; i < fetched; i += 64) __builtin_prefetch(codes + fetchAhead + i, 0, 2);
    decodeColumns<dtype, NV>(codes, c, column);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      const F row = splatLanes<lanesDecode>(a[i * lda + p]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) sum[i][j] += row * column[j];
    }
  }
  for (int i = 0; i < MR; i++) {
    if constexpr (dtype == Dtype::int4 && NV % 2 == 0)
      for (int j = 0; j < NV; j += 2) interleave(sum[i][j], sum[i][j + 1]);
    std::memcpy(out + i * NV * lanesDecode, sum[i], sizeof sum[i]);
  }
}

constexpr bool avx512 = vectorBytes == 64, avx2 = vectorBytes == 32;
constexpr int packedTall = avx512 ? 6 : avx2 ? 5 : 4;

template <int MR>
constexpr int packedWide = avx512 ? (MR <= 2 ? 8 : 4) : avx2 ? (MR == 1 ? 8 : MR == 2 ? 4 : 2) : neon ? (MR == 1 ? 4 : 2) : MR == 1 ? 2 : 1;

template <Dtype dtype, int MR>
int64_t packedColumns(int64_t rows, const uint8_t* codes, int64_t rowBytes, int64_t c, int64_t end, const float* a, int64_t lda,
                      float* out) {
  constexpr int NV = packedWide<MR>;
  const int64_t left = (end - c) / lanesDecode;
  if (left >= NV) return packedMicro<dtype, MR, NV>(rows, codes, rowBytes, c, a, lda, out), NV;
  if constexpr (NV > 4)
    if (left >= 4) return packedMicro<dtype, MR, 4>(rows, codes, rowBytes, c, a, lda, out), 4;
  if constexpr (NV > 2)
    if (left >= 2) return packedMicro<dtype, MR, 2>(rows, codes, rowBytes, c, a, lda, out), 2;
  return packedMicro<dtype, MR, 1>(rows, codes, rowBytes, c, a, lda, out), 1;
}

template <Dtype dtype, int MR>
int64_t packedRows(int64_t m, int64_t rows, const uint8_t* codes, int64_t rowBytes, int64_t c, int64_t end, const float* a,
                   int64_t lda, float* out) {
  if constexpr (MR > 1)
    if (m < MR) return packedRows<dtype, MR - 1>(m, rows, codes, rowBytes, c, end, a, lda, out);
  return packedColumns<dtype, MR>(rows, codes, rowBytes, c, end, a, lda, out);
}

inline float dot(const float* x, const float* y, int64_t n) {
  Packed::F sum{};
  int64_t i = 0;
  for (; i + lanesDecode <= n; i += lanesDecode) sum += loadBytes<Packed::F>(x + i) * loadBytes<Packed::F>(y + i);
  float total = sumLanes(sum);
  for (; i < n; i++) total += x[i] * y[i];
  return total;
}

template <Dtype dtype>
void packedProduct(int64_t m, const float* a, int64_t lda, const PackedBlock b, float* c, int64_t ldc, const float* beta) {
  using F = Packed::F;
  constexpr float middle = centre<dtype>();
  const bool perRun = b.scales == Scales::perRun, alongRow = b.scales == Scales::alongRow;
  const int64_t depth = b.scales == Scales::none ? b.rows : alongRow && b.span < packedDepth ? b.span : packedDepth;
  const int64_t run = perRun && b.span < b.columns ? b.span : b.columns;
  float ones[packedDepth], scaled[packedTall * packedDepth], start[packedTall], sums[packedTall * 8 * lanesDecode];
  if (b.shift)
    for (float& x : ones) x = 1;
  for (int64_t r0 = 0; r0 < b.rows; r0 += depth) {
    const int64_t rows = b.rows - r0 < depth ? b.rows - r0 : depth;
    const uint8_t* codes = b.codes + r0 * b.rowBytes;
    const int64_t along = alongRow ? r0 / b.span * b.stride : 0;
    for (int64_t c0 = 0, at = r0; c0 < b.columns; c0 += run, at += b.stride) {
      const float* left = a + r0;
      int64_t leftStride = lda;
      for (int64_t i = 0; i < m; i++) {
        start[i] = 0;
        if (perRun) {
          for (int64_t p = 0; p < rows; p++) scaled[i * packedDepth + p] = left[i * lda + p] * b.scale[at + p];
          if (b.shift) start[i] = dot(left + i * lda, b.shift + at, rows) + middle * dot(scaled + i * packedDepth, ones, rows);
        } else if (alongRow && b.shift) {
          start[i] = dot(left + i * lda, ones, rows);
        }
      }
      if (perRun) left = scaled, leftStride = packedDepth;
      const int64_t end = c0 + run < b.columns ? c0 + run : b.columns;
      for (int64_t j = c0; j < end;) {
        const int64_t vectors = packedRows<dtype, packedTall>(m, rows, codes, b.rowBytes, j, end, left, leftStride, sums);
        for (int64_t i = 0; i < m; i++)
          for (int64_t k = 0; k < vectors; k++) {
            F x = loadBytes<F>(sums + (i * vectors + k) * lanesDecode);
            const int64_t column = j + k * lanesDecode;
            if (perRun) x = x + splatLanes<lanesDecode>(start[i]);
            if (b.scales == Scales::uniform) x = x * splatLanes<lanesDecode>(*b.scale);
            if (alongRow) {
              const F by = loadBytes<F>(b.scale + along + column);
              x = x * by;
              if (b.shift) x = x + (loadBytes<F>(b.shift + along + column) + by * middle) * splatLanes<lanesDecode>(start[i]);
            }
            float* out = c + i * ldc + column;
            if (r0 > 0)
              x = x + loadBytes<F>(out);
            else if (beta)
              x = x + loadBytes<F>(out) * splatLanes<lanesDecode>(beta[i]);
            std::memcpy(out, &x, sizeof x);
          }
        j += vectors * lanesDecode;
      }
    }
  }
}

template <Dtype dtype>
void packedTiles(int64_t m, const float* a, int64_t lda, const PackedBlock& b, float* c, int64_t ldc, const float* beta) {
  for (int64_t tiles = (m + packedTall - 1) / packedTall, done = 0; tiles > 0; tiles--) {
    const int64_t rows = (m - done + tiles - 1) / tiles;
    packedProduct<dtype>(rows, a + done * lda, lda, b, c + done * ldc, ldc, beta ? beta + done : nullptr);
    done += rows;
  }
}

void gemmPacked(int64_t m, const float* a, int64_t lda, const PackedBlock& b, float* c, int64_t ldc, const float* beta) {
  switch (static_cast<Dtype>(b.dtype)) {
    case Dtype::f32: return packedTiles<Dtype::f32>(m, a, lda, b, c, ldc, beta);
    case Dtype::f16: return packedTiles<Dtype::f16>(m, a, lda, b, c, ldc, beta);
    case Dtype::bf16: return packedTiles<Dtype::bf16>(m, a, lda, b, c, ldc, beta);
    case Dtype::e4m3: return packedTiles<Dtype::e4m3>(m, a, lda, b, c, ldc, beta);
    case Dtype::e5m2: return packedTiles<Dtype::e5m2>(m, a, lda, b, c, ldc, beta);
    case Dtype::int8: return packedTiles<Dtype::int8>(m, a, lda, b, c, ldc, beta);
    case Dtype::int4: return packedTiles<Dtype::int4>(m, a, lda, b, c, ldc, beta);
    case Dtype::int3: return packedTiles<Dtype::int3>(m, a, lda, b, c, ldc, beta);
    case Dtype::int2: return packedTiles<Dtype::int2>(m, a, lda, b, c, ldc, beta);
  }
  __builtin_trap();
}

void scaleByNumber(float* out, int64_t n, float scale, float shift) {
  for (int64_t i = 0; i < n; i++) out[i] = out[i] * scale + shift;
}

// Squares of vectors: a row of interleavings turns them.
void transpose(int64_t rows, int64_t columns, const float* in, int64_t ldi, float* out, int64_t ldo) {
  constexpr int n = lanesDecode;
  int64_t r = 0;
  for (; r + n <= rows; r += n)
    for (int64_t c = 0; c < columns; c += n) {
      Packed::F v[n], w[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; i++) v[i] = loadBytes<Packed::F>(in + (r + i) * ldi + c);
#pragma GCC unroll 4
      for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; i++) {
          w[2 * i] = v[i], w[2 * i + 1] = v[i + n / 2];
          interleave(w[2 * i], w[2 * i + 1]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) v[i] = w[i];
      }
#pragma GCC unroll 16
      for (int i = 0; i < n; i++) std::memcpy(out + (c + i) * ldo + r, &v[i], sizeof v[i]);
    }
  for (; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) out[c * ldo + r] = in[r * ldi + c];
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
                    softmaxRows,       softcapRow,      silu,             decode,        decodeBlock,   gemmPacked,
                    transpose,         scaleByNumber,   rotateRows,       burnFma,       readAll};

}  // namespace
}  // namespace fastmqa
