// The device as the kernels see it. One surface, two implementations: `cuda.h` for the GPU, and `host.h`, which runs the
// very same kernel source on the CPU, block by block, and reports accesses out of bounds, reads of shared memory that
// nothing wrote, and accesses that no barrier orders.
//
//   threads     threadIndex laneIndex warpIndex blockIndex gridSize keepInLoop
//   barriers    blockBarrier anyThread warpBarrier releaseFollower awaitPredecessor
//   warps       shuffleXor anyLane
//   memory      Global<T> Shared<T> SharedCarver load loadConstant store atomicAdd
//   copies      copyAsync commitCopies waitCopies
//   matrices    loadMatrices loadMatricesTransposed transposeMatrix multiply multiplyFirst (16x8x16, f32 sums)
//   numbers     packHalves unpackHalves halfAdd halfMultiply halfFma permuteBytes maskedOr maskedXor wideProduct exp2Fast reciprocal
#pragma once
#include <cstdint>

namespace fastmqa::gpu {

constexpr int warpSize_ = 32;

/// 16, 8 and 4 bytes that move as one.
struct alignas(16) Word4 {
  uint32_t x, y, z, w;
};
struct alignas(8) Word2 {
  uint32_t x, y;
};

/// The two 16-bit types of the matrix units.
struct F16 {};
struct Bf16 {};

/// Fragments of a 16x8x16 product: of lane l, q = l / 4, t = l % 4. Each register of A and B holds two 16-bit values.
///   a[0]: row q, columns 2t, 2t+1    a[1]: row q+8    a[2]: row q, columns 2t+8, 2t+9    a[3]: row q+8
///   b[0]: rows 2t, 2t+1 of column q  b[1]: rows 2t+8, 2t+9
///   sums[0], [1]: row q, columns 2t, 2t+1   sums[2], [3]: row q+8
struct FragmentA {
  uint32_t r[4];
};
struct FragmentC {
  float r[4];
};

struct GridSize {
  int x = 1, y = 1, z = 1;
};

}  // namespace fastmqa::gpu

#ifdef __CUDACC__
#include "cuda.h"
#else
#include "host.h"
#endif
