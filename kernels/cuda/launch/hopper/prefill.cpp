#include "../../kernels/prefill-hopper.h"

#include <algorithm>
#include <atomic>

#include "../hopper.h"
#include "tensor-map.h"

namespace fastmqa::gpu {
namespace {

template <class Shape>
int start(const AttentionProblem& p, GridSize grid, Stream stream) {
  static std::atomic<int> launches{0};
  hopper::PrefillProblem all;
  all.p = p;
  all.perToken = p.packed ? p.groupSize() : 1;
  all.rowBlocks = (p.queryTokens * all.perToken + Shape::rows - 1) / Shape::rows;
  all.units = p.heads / all.perToken * p.batch;
  all.work = all.rowBlocks * all.units * p.splits;
  all.counter = launches++ % hopper::workCounterCount;
  // Units whose keys and values together stay in the L2 cache.
  const int64_t unitBytes = int64_t{2} * std::max(1, p.length) * p.keyDim * 2;
  all.unitsTogether = static_cast<int>(std::clamp<int64_t>((int64_t{24} << 20) / unitBytes, 1, 1 << 20)) * (p.packed ? 1 : p.groupSize());
  const bool good = describe(all.queries, p.queryType, p.queries.data(), p.keyDim,
                             {static_cast<uint64_t>(p.heads), static_cast<uint64_t>(p.queryTokens), static_cast<uint64_t>(p.batch)},
                             {p.queryHead * 2, p.queryToken * 2, p.queryBatch * 2}, all.perToken, Shape::rows / all.perToken);
  if (!good || !describeCached(all.keys, p, p.keys, Shape::boxTokens) || !describeCached(all.values, p, p.values, Shape::boxTokens)) return cudaErrorInvalidValue;
  return launch(hopper::prefillKernel<Shape>, {std::min(grid.x, all.work)}, Shape::threads, Shape::sharedBytes, stream, all);
}

template <class Type, int D, int warpgroups, int tokens>
AttentionKernel instance() {
  using Shape = hopper::PrefillShape<Type, D, warpgroups, tokens>;
  return kernelOf<Shape>(start<Shape>);
}

/// Warpgroups of 64 rows each: `usual` of two and three, which is the faster by the row, or the other if that leaves more than a sixth
/// fewer rows to compute (three warpgroups take about 5/6 of the time that two take for a row, at heads of 64).
int warpgroupsFor(int rows, int usual) {
  const auto computed = [&](int warpgroups) { return int64_t{64} * warpgroups * ((rows - 1) / (64 * warpgroups) + 1); };
  const int other = 5 - usual;
  return rows <= 64 ? 1 : 6 * computed(other) < 5 * computed(usual) ? other : usual;
}

template <class Type>
AttentionKernel ofType(int headDim, int rows) {
  if (headDim == 64) {
    const int warpgroups = warpgroupsFor(rows, 3);
    return warpgroups == 1 ? instance<Type, 64, 1, 128>() : warpgroups == 2 ? instance<Type, 64, 2, 128>() : instance<Type, 64, 3, 128>();
  }
  if (headDim == 128) {
    const int warpgroups = warpgroupsFor(rows, 2);
    return warpgroups == 1 ? instance<Type, 128, 1, 128>() : warpgroups == 2 ? instance<Type, 128, 2, 128>() : instance<Type, 128, 3, 64>();
  }
  return {};
}

}  // namespace

AttentionKernel hopperPrefillKernel(const AttentionProblem& p, const Device& device) {
  if (device.capability != 90 || !canDescribeTensors()) return {};
  const int rows = p.queryTokens * (p.packed ? p.groupSize() : 1);
  return p.cacheType == Dtype::f16 ? ofType<F16>(p.keyDim, rows) : ofType<Bf16>(p.keyDim, rows);
}

}  // namespace fastmqa::gpu
