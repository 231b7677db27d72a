// Device memory with random contents, for programs that time kernels.
#pragma once
#include "../test-cuda/memory.h"
#include "fastmqa/dtype.h"

namespace fastmqa::gpu {

/// Bytes of every format that are neither NaN nor huge: 16-bit values of magnitude 0.25 to 2, codes of any kind.
static __global__ void fillRandom(uint32_t* to, int64_t words, bool halves, uint32_t exponent, uint32_t seed) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < words; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + seed * 0x9e3779b9u;
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
    to[i] = halves ? (x & 0x83ff83ffu) | exponent : x & 0xbfbfbfbfu;
  }
}

struct Buffer {
  uint8_t* data = nullptr;
  int64_t bytes = 0;
  Buffer(int64_t n, Dtype fill, uint32_t exponent = 0x38003800u) : bytes(n) {
    require(cudaMalloc(&data, static_cast<size_t>(n)), "cudaMalloc");
    const bool halves = fill == Dtype::f16 || fill == Dtype::bf16;
    static uint32_t seed = 0;
    fillRandom<<<1024, 256>>>(reinterpret_cast<uint32_t*>(data), n / 4, halves, fill == Dtype::bf16 ? 0x3f003f00u : exponent, ++seed);
    require(cudaGetLastError(), "fill");
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
};

}  // namespace fastmqa::gpu
