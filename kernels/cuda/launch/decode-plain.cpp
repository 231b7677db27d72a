#include "../kernels/decode.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Type, int D, int rowTiles>
AttentionKernel instance(const Device& device) {
  using Shape = DecodeShape<PlainStorage<Type, D>, rowTiles>;
  return {decodeKernel<PlainStorage<Type, D>, rowTiles>, Shape::threads, Shape::sharedBytes(device.capability >= 80)};
}

template <class Type>
AttentionKernel ofType(int headDim, int rowTiles, const Device& device) {
  const bool one = rowTiles == 1;
  switch (headDim) {
    case 64: return one ? instance<Type, 64, 1>(device) : instance<Type, 64, 2>(device);
    case 96: return one ? instance<Type, 96, 1>(device) : instance<Type, 96, 2>(device);
    case 128: return one ? instance<Type, 128, 1>(device) : instance<Type, 128, 2>(device);
    case 192: return one ? instance<Type, 192, 1>(device) : AttentionKernel{};
    case 256: return one ? instance<Type, 256, 1>(device) : AttentionKernel{};
    default: return {};
  }
}

}  // namespace

AttentionKernel plainDecodeKernel(Dtype type, int headDim, int rowTiles, const Device& device) {
  if (type == Dtype::f16) return ofType<F16>(headDim, rowTiles, device);
  if (type == Dtype::bf16 && device.capability >= 80) return ofType<Bf16>(headDim, rowTiles, device);
  return {};
}

}  // namespace fastmqa::gpu
