#include "../kernels/decode-wide.h"

#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <Dtype type, int D, int runs>
AttentionKernel ofShape(int rows, const Device& device) {
  constexpr bool isInt = type == Dtype::int8 || type == Dtype::int4;
  using Storage = CodedStorage<type, isInt ? Sharing::token : Sharing::tensor, D, isInt, true>;
  if (rows <= 16) return kernelOf<DecodeWideShape<Storage, 1, runs>>(decodeWideKernel<Storage, 1, runs>, device);
  return kernelOf<DecodeWideShape<Storage, 2, runs>>(decodeWideKernel<Storage, 2, runs>, device);
}

template <Dtype type>
AttentionKernel ofType(const AttentionProblem& p, int rows, const Device& device) {
  const bool isInt = p.keyScales.sharing != Sharing::tensor;
  const int shared = isInt ? p.keyScales.group : p.keyDim;
  if (isInt && (p.keyScales.sharing != Sharing::token || p.valueScales.group != shared)) return {};
  if (p.keyDim == 64 && shared == 64) return ofShape<type, 64, 1>(rows, device);
  if (p.keyDim == 128 && shared == 128) return ofShape<type, 128, 1>(rows, device);
  if constexpr (type == Dtype::int8 || type == Dtype::int4)
    if (p.keyDim == 128 && shared == 64) return ofShape<type, 128, 2>(rows, device);
  return {};
}

}  // namespace

AttentionKernel wideDecodeKernel(const AttentionProblem& p, int rows, const Device& device) {
  switch (p.cacheType) {
    case Dtype::e4m3: return ofType<Dtype::e4m3>(p, rows, device);
    case Dtype::e5m2: return ofType<Dtype::e5m2>(p, rows, device);
    case Dtype::int8: return ofType<Dtype::int8>(p, rows, device);
    case Dtype::int4: return ofType<Dtype::int4>(p, rows, device);
    default: return {};
  }
}

}  // namespace fastmqa::gpu
