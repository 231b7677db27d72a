#include "../kernels/prefill.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Type, int D>
AttentionKernel instance(const Device& device) {
  using Shape = PrefillShape<Type, D>;
  return kernelOf<Shape>(prefillKernel<Shape>, device);
}

template <class Type>
AttentionKernel ofType(int headDim, const Device& device) {
  switch (headDim) {
    case 32: return instance<Type, 32>(device);
    case 64: return instance<Type, 64>(device);
    case 96: return instance<Type, 96>(device);
    case 128: return instance<Type, 128>(device);
    case 192: return instance<Type, 192>(device);
    case 256: return instance<Type, 256>(device);
    default: return {};
  }
}

}  // namespace

AttentionKernel prefillKernelFor(Dtype type, int headDim, const Device& device) {
  return type == Dtype::f16 ? ofType<F16>(headDim, device) : type == Dtype::bf16 ? ofType<Bf16>(headDim, device) : AttentionKernel{};
}

}  // namespace fastmqa::gpu
