#include "../kernels/decode-few.h"
#include "../kernels/decode-many.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Storage, int columnTiles>
AttentionKernel many(const Device& device) {
  return kernelOf<DecodeManyShape<Storage, columnTiles>>(decodeManyKernel<Storage, columnTiles>, device);
}

template <class Storage>
AttentionKernel few(const Device& device) {
  return kernelOf<DecodeFewShape<Storage>>(decodeFewKernel<Storage>, device);
}

template <Dtype type, Sharing sharing, int D>
AttentionKernel ofShape(const AttentionProblem& p, int rows, const Device& device) {
  using Storage = CodedStorage<type, sharing, D>;
  if constexpr (sharing != Sharing::tensor)  // whose many rows are all the wide kernel's
    if (rows > 8) return rows <= 16 ? many<Storage, 2>(device) : many<Storage, 4>(device);
  if constexpr (sharing == Sharing::token)
    if (p.keyScales.group >= 64 && p.valueScales.group >= 64) return few<CodedStorage<type, sharing, D, true>>(device);
  return few<Storage>(device);
}

template <Dtype type, Sharing sharing>
AttentionKernel ofType(const AttentionProblem& p, int rows, const Device& device) {
  if (p.keyDim == 32) return few<CodedStorage<type, sharing, 32>>(device);
  return p.keyDim == 64 ? ofShape<type, sharing, 64>(p, rows, device) : p.keyDim == 128 ? ofShape<type, sharing, 128>(p, rows, device) : AttentionKernel{};
}

}  // namespace

AttentionKernel codedDecodeKernel(const AttentionProblem& p, int rows, const Device& device) {
  if (rows > 8)
    if (const AttentionKernel wide = wideDecodeKernel(p, rows, device); wide.run) return wide;
  const bool perToken = p.keyScales.sharing == Sharing::token;
  switch (p.cacheType) {
    case Dtype::e4m3: return ofType<Dtype::e4m3, Sharing::tensor>(p, rows, device);
    case Dtype::e5m2: return ofType<Dtype::e5m2, Sharing::tensor>(p, rows, device);
    case Dtype::int8: return perToken ? ofType<Dtype::int8, Sharing::token>(p, rows, device) : ofType<Dtype::int8, Sharing::channel>(p, rows, device);
    case Dtype::int4: return perToken ? ofType<Dtype::int4, Sharing::token>(p, rows, device) : ofType<Dtype::int4, Sharing::channel>(p, rows, device);
    default: return {};
  }
}

}  // namespace fastmqa::gpu
