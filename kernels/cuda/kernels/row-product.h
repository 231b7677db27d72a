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

/// Eight numbers as they are stored.
template <Dtype type>
struct EightNumbers {
  static constexpr int words = type == Dtype::f32 ? 2 : 1, bytes = type == Dtype::f32 ? 4 : 2;
  Word4 w[words];

  /// From element i on, a multiple of eight.
  FASTMQA_DEVICE void load(Global<const uint8_t> from, int64_t i) {
    FASTMQA_UNROLL
    for (int j = 0; j < words; j++) w[j] = from.load<Word4>(i * bytes + 16 * j);
  }
  FASTMQA_DEVICE void loadConstant(Global<const uint8_t> from, int64_t i) {
    FASTMQA_UNROLL
    for (int j = 0; j < words; j++) w[j] = from.loadConstant<Word4>(i * bytes + 16 * j);
  }
  FASTMQA_DEVICE void unpack(float (&to)[8]) const {
    if (type == Dtype::f32) {
      FASTMQA_UNROLL
      for (int j = 0; j < words; j++) {
        to[4 * j] = floatOf(w[j].x), to[4 * j + 1] = floatOf(w[j].y);
        to[4 * j + 2] = floatOf(w[j].z), to[4 * j + 3] = floatOf(w[j].w);
      }
      return;
    }
    const uint32_t pairs[4] = {w[0].x, w[0].y, w[0].z, w[0].w};
    FASTMQA_UNROLL
    for (int j = 0; j < 4; j++) {
      to[2 * j] = type == Dtype::f16 ? lowHalf(F16(), pairs[j]) : lowHalf(Bf16(), pairs[j]);
      to[2 * j + 1] = type == Dtype::f16 ? highHalf(F16(), pairs[j]) : highHalf(Bf16(), pairs[j]);
    }
  }
};

template <int rows, Dtype type>
FASTMQA_KERNEL(RowProductShape::threads, (type == Dtype::f32 ? 4 : 6))
rowProductKernel(const ProductProblem p) {
  constexpr int lanes = RowProductShape::lanes, stride = warpSize_ * lanes, ahead = type == Dtype::f32 ? 2 : 4;
  const int n = blockIndex().x * RowProductShape::warps + warpIndex(), lane = laneIndex(), head = blockIndex().z;
  const int64_t row = p.wAt(head, n);
  releaseFollower();
  // Weights are on their way before anything waits, for what the kernel before makes too: one row alone would leave the memory
  // idle most of the time.
  EightNumbers<type> coming[ahead] = {};
  const auto fetch = [&](int first) {
    FASTMQA_UNROLL
    for (int i = 0; i < ahead; i++)
      if (n < p.n && first + i * stride < p.k) coming[i].loadConstant(p.w, row + first + i * stride);
  };
  fetch(lane * lanes);
  awaitPredecessor();
  SharedCarver carver;
  const auto x = carver.take<float>(p.m * p.k);
  for (int i = threadIndex() * lanes; i < p.m * p.k; i += RowProductShape::threads * lanes) {
    EightNumbers<type> stored;
    stored.load(p.x, p.xAt(head, i / p.k) + i % p.k);
    float v[lanes];
    stored.unpack(v);
    x.store(i, Word4{bitsOfFloat(v[0]), bitsOfFloat(v[1]), bitsOfFloat(v[2]), bitsOfFloat(v[3])});
    x.store(i + 4, Word4{bitsOfFloat(v[4]), bitsOfFloat(v[5]), bitsOfFloat(v[6]), bitsOfFloat(v[7])});
  }
  blockBarrier();
  if (n >= p.n) return;
  float sums[rows] = {};
  for (int k = lane * lanes; k < p.k; k += ahead * stride) {
    EightNumbers<type> now[ahead];
    FASTMQA_UNROLL
    for (int i = 0; i < ahead; i++) now[i] = coming[i];
    fetch(k + ahead * stride);
    FASTMQA_UNROLL
    for (int i = 0; i < ahead; i++) {
      const int at = k + i * stride;
      if (at >= p.k) continue;
      float w[lanes];
      now[i].unpack(w);
      FASTMQA_UNROLL
      for (int m = 0; m < rows; m++) {
        if (m >= p.m) continue;
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const Word4 v = x.template load<Word4>(m * p.k + at + 4 * half);
          sums[m] += floatOf(v.x) * w[4 * half] + floatOf(v.y) * w[4 * half + 1] + floatOf(v.z) * w[4 * half + 2] + floatOf(v.w) * w[4 * half + 3];
        }
      }
    }
  }
  FASTMQA_UNROLL
  for (int m = 0; m < rows; m++) {
    float sum = sums[m];
    FASTMQA_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
    if (lane == 0 && m < p.m) storeNumber(p.outType, p.y, p.yAt(head, m) + n, sum + (p.bias ? p.bias[n] : 0));
  }
}

}  // namespace fastmqa::gpu
