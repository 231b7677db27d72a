#include "../kernels/decode.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Type, int D, int rowTiles>
AttentionKernel instance(const Device& device) {
  using Storage = PlainStorage<Type, D>;
  return kernelOf<DecodeShape<Storage, rowTiles>>(decodeKernel<Storage, rowTiles>, device);
}

template <class Type>
AttentionKernel ofType(int headDim, int rows, const Device& device) {
  const bool one = rows <= 16;
  switch (headDim) {
    case 32: return one ? instance<Type, 32, 1>(device) : instance<Type, 32, 2>(device);
    case 64: return one ? instance<Type, 64, 1>(device) : instance<Type, 64, 2>(device);
    case 96: return one ? instance<Type, 96, 1>(device) : instance<Type, 96, 2>(device);
    case 128: return one ? instance<Type, 128, 1>(device) : instance<Type, 128, 2>(device);
    case 192: return instance<Type, 192, 1>(device);
    case 256: return instance<Type, 256, 1>(device);
    default: return {};
  }
}

}  // namespace

AttentionKernel plainDecodeKernel(Dtype type, int headDim, int rows, const Device& device) {
  if (type == Dtype::f16) return ofType<F16>(headDim, rows, device);
  if (type == Dtype::bf16 && device.capability >= 80) return ofType<Bf16>(headDim, rows, device);
  return {};
}

}  // namespace fastmqa::gpu
