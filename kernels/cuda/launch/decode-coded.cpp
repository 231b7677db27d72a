#include "../kernels/decode-few.h"
#include "../kernels/decode-many.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Storage, int columnTiles>
AttentionKernel many(const Device& device) {
  using Shape = DecodeManyShape<Storage, columnTiles>;
  return {decodeManyKernel<Storage, columnTiles>, Shape::threads, Shape::sharedBytes(device.capability >= 80), Shape::rows};
}

template <class Storage>
AttentionKernel few(const Device& device) {
  using Shape = DecodeFewShape<Storage>;
  return {decodeFewKernel<Storage>, Shape::threads, Shape::sharedBytes(device.capability >= 80), Shape::rows};
}

/// `Folded`: the storage for groups of 64 channels or more.
template <class Storage, class Folded = Storage>
AttentionKernel ofStorage(int rows, bool wideGroups, const Device& device) {
  if (rows <= 8) return wideGroups ? few<Folded>(device) : few<Storage>(device);
  return rows <= 16 ? many<Storage, 2>(device) : many<Storage, 4>(device);
}

template <Dtype type, Sharing sharing>
AttentionKernel ofType(int headDim, int rows, bool wideGroups, const Device& device) {
  constexpr bool folds = sharing == Sharing::token;
  if (headDim == 32) return few<CodedStorage<type, sharing, 32>>(device);
  if (headDim == 64) return ofStorage<CodedStorage<type, sharing, 64>, CodedStorage<type, sharing, 64, folds>>(rows, wideGroups, device);
  if (headDim == 128) return ofStorage<CodedStorage<type, sharing, 128>, CodedStorage<type, sharing, 128, folds>>(rows, wideGroups, device);
  return {};
}

}  // namespace

AttentionKernel codedDecodeKernel(const AttentionProblem& p, int rows, const Device& device) {
  const bool perToken = p.keyScales.sharing == Sharing::token, wide = perToken && p.keyScales.group >= 64 && p.valueScales.group >= 64;
  const int headDim = p.keyDim;
  switch (p.cacheType) {
    case Dtype::e4m3: return ofType<Dtype::e4m3, Sharing::tensor>(headDim, rows, false, device);
    case Dtype::e5m2: return ofType<Dtype::e5m2, Sharing::tensor>(headDim, rows, false, device);
    case Dtype::int8:
      return perToken ? ofType<Dtype::int8, Sharing::token>(headDim, rows, wide, device) : ofType<Dtype::int8, Sharing::channel>(headDim, rows, false, device);
    case Dtype::int4:
      return perToken ? ofType<Dtype::int4, Sharing::token>(headDim, rows, wide, device) : ofType<Dtype::int4, Sharing::channel>(headDim, rows, false, device);
    default: return {};
  }
}

}  // namespace fastmqa::gpu
