// Projections of a few rows, as in decoding: y[m][n] = sum over k of x[m][k] * w[n][k]. The weights are read once, and
// nothing else takes time: a warp takes one row of w, its lanes 16 bytes each at a time, and all rows of x from shared memory.
#pragma once
#include "product.h"

namespace fastmqa::gpu {

struct RowProductShape {
  static constexpr int mostRows = 8, warps = 4, threads = warps * warpSize_, lanes = 8;  ///< lanes: numbers a lane takes at a time
  static int sharedBytes(int m, int k) { return m * k * 4 + 16; }
  static constexpr int mostShared = 128 << 10;
};

/// Eight numbers from element i on, a multiple of eight.
FASTMQA_DEVICE void loadEight(Dtype type, Global<const uint8_t> from, int64_t i, float (&to)[8]) {
  if (type == Dtype::f32) {
    const Word4 a = from.load<Word4>(i * 4), b = from.load<Word4>(i * 4 + 16);
    to[0] = floatOf(a.x), to[1] = floatOf(a.y), to[2] = floatOf(a.z), to[3] = floatOf(a.w);
    to[4] = floatOf(b.x), to[5] = floatOf(b.y), to[6] = floatOf(b.z), to[7] = floatOf(b.w);
    return;
  }
  const Word4 a = from.load<Word4>(i * 2);
  const uint32_t pairs[4] = {a.x, a.y, a.z, a.w};
  FASTMQA_UNROLL
  for (int j = 0; j < 4; j++) {
    to[2 * j] = type == Dtype::f16 ? lowHalf(F16(), pairs[j]) : lowHalf(Bf16(), pairs[j]);
    to[2 * j + 1] = type == Dtype::f16 ? highHalf(F16(), pairs[j]) : highHalf(Bf16(), pairs[j]);
  }
}

template <int rows>
FASTMQA_KERNEL(RowProductShape::threads, 1)
rowProductKernel(const ProductProblem p) {
  constexpr int lanes = RowProductShape::lanes;
  SharedCarver carver;
  const auto x = carver.take<float>(p.m * p.k);
  for (int i = threadIndex() * lanes; i < p.m * p.k; i += RowProductShape::threads * lanes) {
    float v[lanes];
    loadEight(p.type, p.x, i, v);
    x.store(i, Word4{bitsOfFloat(v[0]), bitsOfFloat(v[1]), bitsOfFloat(v[2]), bitsOfFloat(v[3])});
    x.store(i + 4, Word4{bitsOfFloat(v[4]), bitsOfFloat(v[5]), bitsOfFloat(v[6]), bitsOfFloat(v[7])});
  }
  blockBarrier();
  const int n = blockIndex().x * RowProductShape::warps + warpIndex(), lane = laneIndex();
  if (n >= p.n) return;
  float sums[rows] = {};
  const int64_t row = static_cast<int64_t>(n) * p.k;
  for (int k = lane * lanes; k < p.k; k += warpSize_ * lanes) {
    float w[lanes];
    loadEight(p.type, p.w, row + k, w);
    FASTMQA_UNROLL
    for (int m = 0; m < rows; m++) {
      if (m >= p.m) continue;
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        const Word4 v = x.template load<Word4>(m * p.k + k + 4 * half);
        sums[m] += floatOf(v.x) * w[4 * half] + floatOf(v.y) * w[4 * half + 1] + floatOf(v.z) * w[4 * half + 2] + floatOf(v.w) * w[4 * half + 3];
      }
    }
  }
  FASTMQA_UNROLL
  for (int m = 0; m < rows; m++) {
    float sum = sums[m];
    FASTMQA_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
    if (lane == 0 && m < p.m) storeNumber(p.outType, p.y, static_cast<int64_t>(m) * p.n + n, sum + (p.bias ? p.bias[n] : 0));
  }
}

}  // namespace fastmqa::gpu
