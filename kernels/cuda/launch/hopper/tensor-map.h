// Tensors as the copy engine is told of them.
#pragma once
#include "../../kernels/attention-problem.h"
#include "../../primitives/hopper.h"

namespace fastmqa::gpu {

/// The driver's function, so that the library needs no driver to load.
inline auto encodeTiled() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(result == cudaDriverEntryPointSuccess ? function : nullptr);
  }();
  return found;
}

/// Rows of 16-bit channels in three further dimensions, strides in bytes, fetched in boxes of 64 channels of box1 x box2 rows.
inline bool describe(CUtensorMap& map, Dtype type, const uint8_t* data, int channels, const uint64_t (&counts)[3], const int64_t (&strides)[3], int box1, int box2) {
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

inline bool canDescribeTensors() { return encodeTiled() != nullptr; }

constexpr uint64_t anyPage = 1 << 24;  ///< pages that a tensor says it has; the table says which exist

/// Cached rows of p.keyDim channels, fetched in boxes of `boxTokens` tokens of one head.
inline bool describeCached(CUtensorMap& map, const AttentionProblem& p, const TokenRows& rows, int boxTokens) {
  const bool paged = rows.pagesPerSequence > 0;
  return describe(map, p.cacheType, rows.data.data(), p.keyDim,
                  {static_cast<uint64_t>(paged ? pageTokens : p.length), static_cast<uint64_t>(p.kvHeads), paged ? anyPage : static_cast<uint64_t>(p.batch)},
                  {rows.tokenBytes, rows.headBytes, rows.batchBytes}, boxTokens, 1);
}

/// Pages of coded rows, `rowBytes` (32, 64 or 128) long, fetched a page of one head at a time; shuffled as such rows are.
inline bool describeCodes(CUtensorMap& map, const TokenRows& rows, int rowBytes, int kvHeads) {
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(rowBytes), pageTokens, static_cast<cuuint64_t>(kvHeads), anyPage};
  const cuuint64_t bytes[3] = {static_cast<cuuint64_t>(rows.tokenBytes), static_cast<cuuint64_t>(kvHeads == 1 ? pageTokens * rows.tokenBytes : rows.headBytes), static_cast<cuuint64_t>(rows.batchBytes)};
  const cuuint32_t box[4] = {static_cast<cuuint32_t>(rowBytes), pageTokens, 1, 1}, steps[4] = {1, 1, 1, 1};
  const CUtensorMapSwizzle shuffle = rowBytes == 32 ? CU_TENSOR_MAP_SWIZZLE_32B : rowBytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B;
  return encodeTiled()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, const_cast<uint8_t*>(rows.data.data()), sizes, bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, shuffle,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace fastmqa::gpu
