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
  const auto kernel = hopper::latentKernel<Shape>;
  const cudaError_t raised = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::sharedBytes);
  if (raised != cudaSuccess) return raised;
  kernel<<<dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)), Shape::threads, Shape::sharedBytes, stream>>>(all);
  return cudaGetLastError();
}

template <class Shape>
AttentionKernel instance() {
  AttentionKernel kernel;
  kernel.threads = Shape::threads, kernel.sharedBytes = Shape::sharedBytes, kernel.rows = Shape::rows, kernel.start = start<Shape>;
  return kernel;
}

template <class Type>
AttentionKernel ofType(int ropeDim) {
  return ropeDim == 64 ? instance<hopper::LatentShape<Type, 512, 64>>() : ropeDim == 0 ? instance<hopper::LatentShape<Type, 512, 0>>() : AttentionKernel{};
}

}  // namespace

AttentionKernel hopperLatentKernel(const AttentionProblem& p, const Device& device) {
  if (device.capability != 90 || p.valueDim != 512 || !canDescribeTensors()) return {};
  return p.cacheType == Dtype::f16 ? ofType<F16>(p.keyDim - p.valueDim) : ofType<Bf16>(p.keyDim - p.valueDim);
}

}  // namespace fastmqa::gpu
