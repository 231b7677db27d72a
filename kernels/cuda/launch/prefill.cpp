#include "../kernels/prefill.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Type, int D>
AttentionKernel instance() {
  using Shape = PrefillShape<Type, D>;
  return {prefillKernel<Shape>, Shape::threads, Shape::sharedBytes, Shape::rows};
}

template <class Type>
AttentionKernel ofType(int headDim) {
  switch (headDim) {
    case 64: return instance<Type, 64>();
    case 96: return instance<Type, 96>();
    case 128: return instance<Type, 128>();
    case 192: return instance<Type, 192>();
    case 256: return instance<Type, 256>();
    default: return {};
  }
}

}  // namespace

AttentionKernel prefillKernelFor(Dtype type, int headDim) {
  return type == Dtype::f16 ? ofType<F16>(headDim) : type == Dtype::bf16 ? ofType<Bf16>(headDim) : AttentionKernel{};
}

}  // namespace fastmqa::gpu
