// Projections of a few rows, as in decoding: y[m][n] = sum over k of x[m][k] * w[n][k]. The weights are read once, and
// nothing else takes time: a warp takes one row of w after the other, its lanes 16 bytes each at a time, and all rows of x from
// shared memory.
#pragma once
#include "activation.h"
#include "product.h"

namespace fastmqa::gpu {

struct RowProductShape {
  static constexpr int mostRows = 8, warps = 4, threads = warps * warpSize_, lanes = 8;  ///< lanes: numbers a lane takes at a time
  static constexpr int blocks = 6;  ///< resident on a multiprocessor
  static FASTMQA_BOTH int tiles(int n) { return (n + warps - 1) / warps; }  ///< of rows of a matrix, one a warp
  static int sharedBytes(int m, int k) { return m * k * 4 + 16; }
  static constexpr int mostShared = 128 << 10;
};

/// Products of the same rows with up to three matrices, one launch: queries, keys and values wait for nothing else than a start.
struct RowProducts {
  struct Other {
    Global<const uint8_t> w;
    Global<uint8_t> y;
    Global<const float> bias{};
    int n = 0;
  };
  ProductProblem first;
  Other others[mostProducts - 1] = {};  ///< tiles follow those of the product before
  int tiles = 0;                        ///< of all; a block takes one after the other
  /// Rows are activation(first k numbers) * the next k: every block does it again, which for few numbers is sooner done than a
  /// kernel of its own started.
  bool gated = false;
  ActivationKind activation = ActivationKind::silu;
  static constexpr int mostGated = 16384;
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

/// Of which product, and of which row of its matrix, a warp has the next sums to take.
struct RowPlace {
  Global<const uint8_t> w;
  Global<uint8_t> y;
  Global<const float> bias;
  int64_t from;  ///< of the row, in elements
  int n, count;  ///< row, of so many

  FASTMQA_DEVICE RowPlace(const RowProducts& all, int tile, int head) {
    const ProductProblem& p = all.first;
    w = p.w, y = p.y, bias = p.bias, count = p.n;
    FASTMQA_UNROLL
    for (int i = 0; i < mostProducts - 1; i++) {
      const int before = RowProductShape::tiles(count);
      if (tile < before) break;
      tile -= before;
      const RowProducts::Other& other = all.others[i];
      w = other.w, y = other.y, bias = other.bias, count = other.n;
    }
    n = tile * RowProductShape::warps + warpIndex();
    from = p.wAt(head, n);
  }
  FASTMQA_DEVICE bool exists() const { return n < count; }
};

template <int rows, Dtype type>
FASTMQA_KERNEL(RowProductShape::threads, (type == Dtype::f32 ? 4 : RowProductShape::blocks))
rowProductKernel(const RowProducts all) {
  constexpr int lanes = RowProductShape::lanes, stride = warpSize_ * lanes, ahead = type == Dtype::f32 ? 2 : 4;
  const ProductProblem& p = all.first;
  const int lane = laneIndex(), head = blockIndex().z, step = gridSize().x;
  releaseFollower();
  // Weights are on their way before anything waits, for what the kernel before makes too, and those of the next row before the sums
  // of this one are taken together: one row alone would leave the memory idle most of the time.
  EightNumbers<type> coming[ahead] = {};
  const auto fetch = [&](const RowPlace& place, int first) {
    FASTMQA_UNROLL
    for (int i = 0; i < ahead; i++)
      if (place.exists() && first + i * stride < p.k) coming[i].loadConstant(place.w, place.from + first + i * stride);
  };
  RowPlace place(all, blockIndex().x, head);
  fetch(place, lane * lanes);
  awaitPredecessor();
  SharedCarver carver;
  const auto x = carver.take<float>(p.m * p.k);
  for (int i = threadIndex() * lanes; i < p.m * p.k; i += RowProductShape::threads * lanes) {
    EightNumbers<type> stored;
    stored.load(p.x, p.xAt(head, i / p.k) + i % p.k);
    float v[lanes];
    stored.unpack(v);
    if (all.gated) {
      float up[lanes];
      stored.load(p.x, p.xAt(head, i / p.k) + p.k + i % p.k);
      stored.unpack(up);
      FASTMQA_UNROLL
      for (int j = 0; j < lanes; j++) v[j] = activated(all.activation, v[j]) * up[j];
    }
    x.store(i, Word4{bitsOfFloat(v[0]), bitsOfFloat(v[1]), bitsOfFloat(v[2]), bitsOfFloat(v[3])});
    x.store(i + 4, Word4{bitsOfFloat(v[4]), bitsOfFloat(v[5]), bitsOfFloat(v[6]), bitsOfFloat(v[7])});
  }
  blockBarrier();
  for (int tile = blockIndex().x; tile < all.tiles; tile += step) {
    const RowPlace next(all, tile + step < all.tiles ? tile + step : tile, head);
    float sums[rows] = {};
    for (int k = lane * lanes, first = 0; first < p.k; k += ahead * stride, first += ahead * stride) {
      EightNumbers<type> now[ahead];
      FASTMQA_UNROLL
      for (int i = 0; i < ahead; i++) now[i] = coming[i];
      if (first + ahead * stride < p.k)
        fetch(place, k + ahead * stride);
      else if (tile + step < all.tiles)
        fetch(next, lane * lanes);
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
      if (lane == 0 && m < p.m && place.exists())
        storeNumber(p.outType, place.y, head * p.yHead + m * static_cast<int64_t>(p.yStride > 0 ? p.yStride : place.count) + place.n, sum + (place.bias ? place.bias[place.n] : 0));
    }
    place = next;
  }
}

}  // namespace fastmqa::gpu
