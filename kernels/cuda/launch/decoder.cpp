#include "decoder.h"

namespace fastmqa::gpu {
namespace {

GridSize blocksOf(int64_t units) { return {static_cast<int>((units + elementThreads - 1) / elementThreads), 1, 1}; }

}  // namespace

int embed(const EmbedProblem& p, Stream stream) {
  return launch(embedKernel, blocksOf(static_cast<int64_t>(p.rows) * p.stride), elementThreads, 0, stream, p);
}

int normalise(const NormProblem& p, int64_t rows, Stream stream) {
  constexpr int wide = 512, mostWarps = 8;
  const bool isWide = p.width >= wide;
  return launch(isWide ? normKernel<mostWarps> : normKernel<1>, GridSize{static_cast<int>(rows), 1, 1}, (isWide ? mostWarps : 1) * warpSize_, 64, stream, p);
}

int eachElement(const ElementProblem& p, Stream stream) { return launch(elementKernel, blocksOf(p.count), elementThreads, 0, stream, p); }

}  // namespace fastmqa::gpu
