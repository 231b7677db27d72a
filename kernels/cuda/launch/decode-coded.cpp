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
AttentionKernel ofStorage(int rows, const Device& device) {
  using Few = DecodeFewShape<Storage>;
  if (rows <= Few::rows) return {decodeFewKernel<Storage>, Few::threads, Few::sharedBytes(device.capability >= 80), Few::rows};
  return rows <= 16 ? many<Storage, 2>(device) : many<Storage, 4>(device);
}

template <Dtype type, Sharing sharing>
AttentionKernel ofType(int headDim, int rows, const Device& device) {
  if (headDim == 64) return ofStorage<CodedStorage<type, sharing, 64>>(rows, device);
  if (headDim == 128) return ofStorage<CodedStorage<type, sharing, 128>>(rows, device);
  return {};
}

}  // namespace

AttentionKernel codedDecodeKernel(Dtype type, Sharing sharing, int headDim, int rows, const Device& device) {
  const bool perToken = sharing == Sharing::token;
  switch (type) {
    case Dtype::e4m3: return ofType<Dtype::e4m3, Sharing::tensor>(headDim, rows, device);
    case Dtype::e5m2: return ofType<Dtype::e5m2, Sharing::tensor>(headDim, rows, device);
    case Dtype::int8:
      return perToken ? ofType<Dtype::int8, Sharing::token>(headDim, rows, device) : ofType<Dtype::int8, Sharing::channel>(headDim, rows, device);
    case Dtype::int4:
      return perToken ? ofType<Dtype::int4, Sharing::token>(headDim, rows, device) : ofType<Dtype::int4, Sharing::channel>(headDim, rows, device);
    default: return {};
  }
}

}  // namespace fastmqa::gpu
