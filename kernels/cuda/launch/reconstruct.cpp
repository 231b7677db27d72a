#include "../kernels/reconstruct.h"

#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Storage, int rowTiles>
int start(const AttentionProblem& p, GridSize grid, Stream stream) {
  using Shape = DecodeShape<Storage, rowTiles>;
  ReconstructProblem all;
  static_cast<AttentionProblem&>(all) = p;
  static_cast<Reconstruction&>(all) = *p.made;
  return launchAfter(decodeKernel<Storage, rowTiles>, grid, Shape::threads, Shape::sharedBytes(hasAsyncCopies), stream, all);
}

template <class Storage, int rowTiles>
AttentionKernel instance() {
  using Shape = DecodeShape<Storage, rowTiles>;
  return {nullptr, Shape::threads, Shape::sharedBytes(true), Shape::rows, start<Storage, rowTiles>};
}

template <class Type>
AttentionKernel ofType(int headDim, int rows) {
  if (headDim == 64) return rows <= 16 ? instance<ReconstructedStorage<Type, 64>, 1>() : instance<ReconstructedStorage<Type, 64>, 2>();
  if (headDim == 128) return instance<ReconstructedStorage<Type, 128>, 1>();  // more rows would not fit registers
  return {};
}

}  // namespace

AttentionKernel reconstructKernel(const AttentionProblem& p, const Device& device) {
  const Reconstruction& made = *p.made;
  const int rows = p.groupSize() * p.queryTokens;
  if (p.keyDim != p.valueDim || p.scale <= 0 || p.queryBatch % 2 || p.queryToken % 2 || p.queryHead % 2) return {};
  if (made.keyRank > Reconstruction::mostRank || made.valueRank > Reconstruction::mostRank) return {};
  AttentionKernel kernel;
  if (p.queryType == Dtype::f16) kernel = ofType<F16>(p.keyDim, rows);
  if (p.queryType == Dtype::bf16 && device.capability >= 80) kernel = ofType<Bf16>(p.keyDim, rows);
  return kernel.sharedBytes <= device.sharedBytesPerBlock ? kernel : AttentionKernel{};
}

}  // namespace fastmqa::gpu
