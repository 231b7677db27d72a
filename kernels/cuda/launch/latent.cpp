#include "../kernels/latent.h"
#include "attention.h"

namespace fastmqa::gpu {
namespace {

template <class Type, int rank, int ropeDim>
AttentionKernel instance() {
  using Shape = LatentShape<Type, rank, ropeDim>;
  return {latentKernel<Shape>, Shape::threads, Shape::sharedBytes + 64, Shape::rows};
}

template <class Type>
AttentionKernel ofType(int keyDim, int valueDim) {
  if (keyDim == 576 && valueDim == 512) return instance<Type, 512, 64>();
  if (keyDim == 512 && valueDim == 512) return instance<Type, 512, 0>();
  if (keyDim == 256 && valueDim == 256) return instance<Type, 256, 0>();
  if (keyDim == 128 && valueDim == 128) return instance<Type, 128, 0>();
  return {};
}

}  // namespace

AttentionKernel latentKernelFor(Dtype type, int keyDim, int valueDim) {
  return type == Dtype::f16 ? ofType<F16>(keyDim, valueDim) : type == Dtype::bf16 ? ofType<Bf16>(keyDim, valueDim) : AttentionKernel{};
}

}  // namespace fastmqa::gpu
