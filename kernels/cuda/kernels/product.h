// Projections: y[m][n] = sum over k of x[m][k] * w[n][k], weights as models store them ([out, in]). A tile of 128 x 128
// results a block, 64 x 64 a warp, three stages of 64 columns of x and w under way. f32 inputs take the second kernel. Products of
// many heads with matrices of their own are one launch, blockIndex().z counts them.
#pragma once
#include "storage.h"

namespace fastmqa::gpu {

constexpr int mostProducts = 3;  ///< of the same rows, in one launch

struct ProductProblem {
  int m = 0, n = 0, k = 0;
  Dtype type = Dtype::f16, outType = Dtype::f16;
  Global<const uint8_t> x, w;  ///< [m][k], [n][k]
  Global<uint8_t> y;           ///< [m][n]
  Global<const float> bias{};  ///< [n], added to each row, or nothing
  /// Rows further apart than they are long, in elements; 0: one after the other.
  int xStride = 0, yStride = 0;
  /// So many products, each with operands of its own that begin this many elements further.
  int heads = 1;
  int64_t xHead = 0, wHead = 0, yHead = 0;

  FASTMQA_BOTH int64_t xAt(int64_t head, int64_t row) const { return head * xHead + row * (xStride > 0 ? xStride : k); }
  FASTMQA_BOTH int64_t wAt(int64_t head, int64_t row) const { return head * wHead + row * k; }
  FASTMQA_BOTH int64_t yAt(int64_t head, int64_t row) const { return head * yHead + row * (yStride > 0 ? yStride : n); }
};

struct ProductShape {
  static constexpr int rows = 128, columns = 128, depth = 64, stages = 3, threads = 128;
  static constexpr int tileBytes = rows * depth * 2, sharedBytes = stages * 2 * tileBytes;
};

template <class Type>
FASTMQA_KERNEL(ProductShape::threads, 1)
productKernel(const ProductProblem p) {
  using Shape = ProductShape;
  constexpr int depth = Shape::depth, chunks = depth / 8;
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const int firstRow = blockIndex().y * Shape::rows, firstColumn = blockIndex().x * Shape::columns, head = blockIndex().z;
  SharedCarver carver;
  const auto ring = carver.take<uint8_t>(Shape::sharedBytes);
  const int depths = (p.k + depth - 1) / depth;
  const auto copyTile = [&](int i) {
    if (i < depths) {
      const int base = i % Shape::stages * 2 * Shape::tileBytes, thread = keepInLoop(threadIndex());
      FASTMQA_UNROLL
      for (int j = 0; j < Shape::rows * chunks / Shape::threads; j++) {
        const int at = j * Shape::threads + thread, row = at / chunks, chunk = at % chunks, column = i * depth + chunk * 8;
        copyAsync<16>(ring, base + chunkByte<depth>(row, chunk), p.x, (p.xAt(head, firstRow + row) + column) * 2, firstRow + row < p.m && column < p.k);
        copyAsync<16>(ring, base + Shape::tileBytes + chunkByte<depth>(row, chunk), p.w, (p.wAt(head, firstColumn + row) + column) * 2,
                      firstColumn + row < p.n && column < p.k);
      }
    }
    commitCopies();
  };
  for (int i = 0; i < Shape::stages - 1; i++) copyTile(i);
  const int warpRow = warp / 2 * 64, warpColumn = warp % 2 * 64;
  const int rowLane = chunkByte<depth>(warpRow + (lane & 15), lane >> 4);
  const int columnLane = Shape::tileBytes + chunkByte<depth>(warpColumn + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  FragmentC sums[4][8];
  FASTMQA_UNROLL
  for (int m = 0; m < 4; m++)
    FASTMQA_UNROLL
    for (int f = 0; f < 8; f++) sums[m][f] = {};
  for (int i = 0; i < depths; i++) {
    waitCopies<Shape::stages - 2>();
    blockBarrier();
    copyTile(i + Shape::stages - 1);
    const int base = i % Shape::stages * 2 * Shape::tileBytes, rowAt = keepInLoop(rowLane) + base, columnAt = keepInLoop(columnLane) + base;
    FASTMQA_UNROLL
    for (int s = 0; s < depth / 16; s++) {
      FragmentA a[4];
      FASTMQA_UNROLL
      for (int m = 0; m < 4; m++) loadMatrices(a[m].r, ring, chunksOn<depth>(rowAt, 2 * s) + m * 16 * depth * 2);
      FASTMQA_UNROLL
      for (int pair = 0; pair < 4; pair++) {
        uint32_t b[4];
        loadMatrices(b, ring, chunksOn<depth>(columnAt, 2 * s) + pair * 16 * depth * 2);
        FASTMQA_UNROLL
        for (int m = 0; m < 4; m++) {
          multiply(Type(), sums[m][2 * pair], a[m], b[0], b[1]);
          multiply(Type(), sums[m][2 * pair + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  waitCopies<0>();
  FASTMQA_UNROLL
  for (int m = 0; m < 4; m++)
    FASTMQA_UNROLL
    for (int f = 0; f < 8; f++)
      FASTMQA_UNROLL
      for (int h = 0; h < 2; h++) {
        const int row = firstRow + warpRow + 16 * m + q + 8 * h, column = firstColumn + warpColumn + 8 * f + 2 * t;
        float x = sums[m][f].r[2 * h], y = sums[m][f].r[2 * h + 1];
        const int64_t at = p.yAt(head, row) + column;
        if (row >= p.m || column >= p.n) continue;
        if (p.bias) x += p.bias[column], y += column + 1 < p.n ? p.bias[column + 1] : 0;
        if (p.outType != Dtype::f32 && p.n % 2 == 0 && p.yStride % 2 == 0) {
          p.y.store<uint32_t>(at * 2, p.outType == Dtype::f16 ? packHalves(F16(), x, y) : packHalves(Bf16(), x, y));
        } else {
          storeNumber(p.outType, p.y, at, x);
          if (column + 1 < p.n) storeNumber(p.outType, p.y, at + 1, y);
        }
      }
}

/// Any type and size, in f32: 32 x 32 results a block, four a thread.
constexpr int plainProductThreads = 256;

FASTMQA_KERNEL(plainProductThreads, 1) plainProductKernel(const ProductProblem p) {
  constexpr int side = 32;
  SharedCarver carver;
  const auto rows = carver.take<float>(side * (side + 1));
  const auto columns = carver.take<float>(side * (side + 1));
  const int firstRow = blockIndex().y * side, firstColumn = blockIndex().x * side, head = blockIndex().z, x = threadIndex() % side, y = threadIndex() / side;
  float sums[4] = {};
  for (int first = 0; first < p.k; first += side) {
    blockBarrier();
    for (int i = y; i < side; i += plainProductThreads / side) {
      const bool inside = first + x < p.k;
      rows.store(i * (side + 1) + x, inside && firstRow + i < p.m ? loadNumber(p.type, p.x, p.xAt(head, firstRow + i) + first + x) : 0.0f);
      columns.store(i * (side + 1) + x, inside && firstColumn + i < p.n ? loadNumber(p.type, p.w, p.wAt(head, firstColumn + i) + first + x) : 0.0f);
    }
    blockBarrier();
    for (int k = 0; k < side; k++) {
      const float w = columns.load(x * (side + 1) + k);
      FASTMQA_UNROLL
      for (int i = 0; i < 4; i++) sums[i] += rows.load((y + 8 * i) * (side + 1) + k) * w;
    }
  }
  FASTMQA_UNROLL
  for (int i = 0; i < 4; i++) {
    const int row = firstRow + y + 8 * i, column = firstColumn + x;
    if (row < p.m && column < p.n) storeNumber(p.outType, p.y, p.yAt(head, row) + column, sums[i] + (p.bias ? p.bias[column] : 0));
  }
}

}  // namespace fastmqa::gpu
