#include "decoder.h"

#include <string>

#include "fastmqa/status.h"

namespace fastmqa::gpu {
namespace {

GridSize blocksOf(int64_t units) { return {static_cast<int>((units + elementThreads - 1) / elementThreads), 1, 1}; }

}  // namespace

int embed(const EmbedProblem& p, Stream stream) {
  return launchAfter(embedKernel, blocksOf(static_cast<int64_t>(p.rows) * p.stride), elementThreads, 0, stream, p);
}

int normalise(const NormProblem& p, int64_t rows, Stream stream) {
  const auto start = [&](auto kernel, int warps) { return launchAfter(kernel, GridSize{static_cast<int>(rows), 1, 1}, warps * warpSize_, 4 * warps + 16, stream, p); };
  if (p.width <= 256) return start(normKernel<1, 8>, 1);
  if (p.width <= 2048) return start(normKernel<8, 8>, 8);
  if (p.width <= 8192) return start(normKernel<32, 8>, 32);
  if (p.width <= 16384) return start(normKernel<16, 32>, 16);
  refuse("expected rows of at most 16384 numbers for a norm on a GPU but received " + std::to_string(p.width));
}

int eachElement(const ElementProblem& p, Stream stream) { return launchAfter(elementKernel, blocksOf(p.count), elementThreads, 0, stream, p); }

}  // namespace fastmqa::gpu
