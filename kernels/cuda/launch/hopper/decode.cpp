#include "../../kernels/decode-hopper.h"

#include "../hopper.h"
#include "tensor-map.h"

namespace fastmqa::gpu {
namespace {

template <class Shape>
int start(const AttentionProblem& p, GridSize grid, Stream stream) {
  hopper::CodedDecodeProblem all;
  all.p = p;
  if (!describeCodes(all.keys, p.keys, Shape::rowBytes, p.kvHeads) || !describeCodes(all.values, p.values, Shape::rowBytes, p.kvHeads)) return cudaErrorInvalidValue;
  return launchAfter(hopper::codedDecodeKernel<Shape>, grid, Shape::threads, Shape::sharedBytes, stream, all);
}

template <Dtype type, int D, int rows, int runs>
AttentionKernel instance() {
  using Shape = hopper::CodedDecodeShape<type, D, rows, runs>;
  return kernelOf<Shape>(start<Shape>);
}

template <Dtype type, int D, int runs>
AttentionKernel ofRows(int rows) {
  if constexpr (runs == 1)  // otherwise registers do not suffice
    if (rows > 32) return instance<type, D, 64, runs>();
  return rows <= 16 ? instance<type, D, 16, runs>() : instance<type, D, 32, runs>();
}

template <Dtype type>
AttentionKernel ofType(int headDim, int leastGroup, int rows) {
  if (headDim == 64) return ofRows<type, 64, 1>(rows);
  if (headDim != 128) return {};
  if constexpr (type != Dtype::e4m3)
    if (leastGroup == 64) return ofRows<type, 128, 2>(rows);
  return ofRows<type, 128, 1>(rows);
}

bool hasWideGroups(const CodeScales& s) { return s.sharing == Sharing::token && s.group >= 64 && s.shiftBytes == 0; }

}  // namespace

AttentionKernel hopperDecodeKernel(const AttentionProblem& p, int rows, const Device& device) {
  if (device.capability != 90 || !canDescribeTensors()) return {};
  const int leastGroup = p.keyScales.group < p.valueScales.group ? p.keyScales.group : p.valueScales.group;
  if (p.cacheType == Dtype::e4m3) return ofType<Dtype::e4m3>(p.keyDim, leastGroup, rows);
  if (!hasWideGroups(p.keyScales) || !hasWideGroups(p.valueScales)) return {};
  if (p.cacheType == Dtype::int8) return ofType<Dtype::int8>(p.keyDim, leastGroup, rows);
  if (p.cacheType == Dtype::int4) return ofType<Dtype::int4>(p.keyDim, leastGroup, rows);
  return {};
}

}  // namespace fastmqa::gpu
