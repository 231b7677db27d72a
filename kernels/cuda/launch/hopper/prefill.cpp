#include "../../kernels/prefill-hopper.h"

#include <algorithm>
#include <atomic>

#include "../prefill-hopper.h"

namespace fastmqa::gpu {
namespace {

/// The driver's function, so that the library needs no driver to load.
auto encodeTiled() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(result == cudaDriverEntryPointSuccess ? function : nullptr);
  }();
  return found;
}

/// Rows of 16-bit channels in three further dimensions, strides in bytes, fetched in boxes of 64 channels of box1 x box2 rows.
bool describe(CUtensorMap& map, Dtype type, const uint8_t* data, int channels, const uint64_t (&counts)[3], const int64_t (&strides)[3], int box1, int box2) {
  cuuint64_t sizes[4] = {static_cast<cuuint64_t>(channels)}, bytes[3];
  for (int i = 0; i < 3; i++) {
    sizes[i + 1] = counts[i];
    bytes[i] = counts[i] == 1 ? 16 : static_cast<cuuint64_t>(strides[i]);
  }
  const cuuint32_t box[4] = {hopper::lineHalves, static_cast<cuuint32_t>(box1), static_cast<cuuint32_t>(box2), 1}, steps[4] = {1, 1, 1, 1};
  return encodeTiled()(&map, type == Dtype::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
                       const_cast<uint8_t*>(data), sizes, bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

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
  bool good = describe(all.queries, p.queryType, p.queries.data(), p.keyDim,
                       {static_cast<uint64_t>(p.heads), static_cast<uint64_t>(p.queryTokens), static_cast<uint64_t>(p.batch)},
                       {p.queryHead * 2, p.queryToken * 2, p.queryBatch * 2}, all.perToken, Shape::rows / all.perToken);
  const auto cached = [&](CUtensorMap& map, const TokenRows& rows) {
    constexpr uint64_t anyPage = 1 << 24;  // the table says which exist
    const bool paged = rows.pagesPerSequence > 0;
    good = good && describe(map, p.cacheType, rows.data.data(), p.keyDim,
                            {static_cast<uint64_t>(paged ? pageTokens : p.length), static_cast<uint64_t>(p.kvHeads), paged ? anyPage : static_cast<uint64_t>(p.batch)},
                            {rows.tokenBytes, rows.headBytes, rows.batchBytes}, Shape::boxTokens, 1);
  };
  cached(all.keys, p.keys);
  cached(all.values, p.values);
  if (!good) return cudaErrorInvalidValue;
  const auto kernel = hopper::prefillKernel<Shape>;
  const cudaError_t raised = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::sharedBytes);
  if (raised != cudaSuccess) return raised;
  kernel<<<static_cast<unsigned>(std::min(grid.x, all.work)), Shape::threads, Shape::sharedBytes, stream>>>(all);
  return cudaGetLastError();
}

template <class Type, int D, int warpgroups, int tokens>
AttentionKernel instance() {
  using Shape = hopper::PrefillShape<Type, D, warpgroups, tokens>;
  AttentionKernel kernel;
  kernel.threads = Shape::threads, kernel.sharedBytes = Shape::sharedBytes, kernel.rows = Shape::rows, kernel.start = start<Shape>;
  return kernel;
}

/// As many warpgroups of 64 rows as there are rows for, up to what was fastest: three for heads of 64, two for 128.
template <class Type>
AttentionKernel ofType(int headDim, int rows) {
  if (headDim == 64) return rows <= 64 ? instance<Type, 64, 1, 128>() : rows <= 128 ? instance<Type, 64, 2, 128>() : instance<Type, 64, 3, 128>();
  if (headDim == 128) return rows <= 64 ? instance<Type, 128, 1, 128>() : rows > 128 && rows <= 192 ? instance<Type, 128, 3, 64>() : instance<Type, 128, 2, 128>();
  return {};
}

}  // namespace

AttentionKernel hopperPrefillKernel(const AttentionProblem& p, const Device& device) {
  if (device.capability != 90 || !encodeTiled()) return {};
  const int rows = p.queryTokens * (p.packed ? p.groupSize() : 1);
  return p.cacheType == Dtype::f16 ? ofType<F16>(p.keyDim, rows) : ofType<Bf16>(p.keyDim, rows);
}

}  // namespace fastmqa::gpu
