#include "../../kernels/latent-hopper.h"

#include "../hopper.h"
#include "tensor-map.h"

namespace fastmqa::gpu {
namespace {

template <class Shape>
int start(const AttentionProblem& p, GridSize grid, Stream stream) {
  hopper::LatentProblem all;
  all.p = p;
  all.scale = p.scale * log2OfE;
  if (!describeCached(all.latents, p, p.keys, Shape::tokens)) return cudaErrorInvalidValue;
  return launch(hopper::latentKernel<Shape>, grid, Shape::threads, Shape::sharedBytes, stream, all);
}

template <class Type, int ropeDim>
AttentionKernel instance() {
  using Shape = hopper::LatentShape<Type, 512, ropeDim>;
  return kernelOf<Shape>(start<Shape>);
}

template <class Type>
AttentionKernel ofType(int ropeDim) {
  return ropeDim == 64 ? instance<Type, 64>() : ropeDim == 0 ? instance<Type, 0>() : AttentionKernel{};
}

}  // namespace

AttentionKernel hopperLatentKernel(const AttentionProblem& p, const Device& device) {
  if (device.capability != 90 || p.valueDim != 512 || !canDescribeTensors()) return {};
  return p.cacheType == Dtype::f16 ? ofType<F16>(p.keyDim - p.valueDim) : ofType<Bf16>(p.keyDim - p.valueDim);
}

}  // namespace fastmqa::gpu
