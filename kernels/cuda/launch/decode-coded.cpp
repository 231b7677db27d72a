#include "../kernels/decode.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Storage, int rowTiles>
AttentionKernel instance(const Device& device) {
  using Shape = DecodeShape<Storage, rowTiles>;
  return {decodeKernel<Storage, rowTiles>, Shape::threads, Shape::sharedBytes(device.capability >= 80)};
}

template <Dtype type, Sharing sharing>
AttentionKernel ofType(int headDim, int rowTiles, const Device& device) {
  const bool one = rowTiles == 1;
  if (headDim == 64) return one ? instance<CodedStorage<type, sharing, 64>, 1>(device) : instance<CodedStorage<type, sharing, 64>, 2>(device);
  if (headDim == 128) return one ? instance<CodedStorage<type, sharing, 128>, 1>(device) : instance<CodedStorage<type, sharing, 128>, 2>(device);
  return {};
}

}  // namespace

AttentionKernel codedDecodeKernel(Dtype type, Sharing sharing, int headDim, int rowTiles, const Device& device) {
  const bool perToken = sharing == Sharing::token;
  switch (type) {
    case Dtype::e4m3: return ofType<Dtype::e4m3, Sharing::tensor>(headDim, rowTiles, device);
    case Dtype::e5m2: return ofType<Dtype::e5m2, Sharing::tensor>(headDim, rowTiles, device);
    case Dtype::int8:
      return perToken ? ofType<Dtype::int8, Sharing::token>(headDim, rowTiles, device) : ofType<Dtype::int8, Sharing::channel>(headDim, rowTiles, device);
    case Dtype::int4:
      return perToken ? ofType<Dtype::int4, Sharing::token>(headDim, rowTiles, device) : ofType<Dtype::int4, Sharing::channel>(headDim, rowTiles, device);
    default: return {};
  }
}

}  // namespace fastmqa::gpu
