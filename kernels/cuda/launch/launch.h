// Starting kernels: on a GPU through the CUDA runtime, without one on the fibres of primitives/host.h.
#pragma once
#include "../primitives/device.h"

namespace fastmqa::gpu {

/// What a plan needs to know of a device.
struct Device {
  int capability = 90;  ///< compute capability, major * 10 + minor
  int multiprocessors = 1;
  int sharedBytesPerBlock = 227 << 10;
};

#ifdef __CUDACC__
using Stream = cudaStream_t;

template <class Params>
int launch(void (*kernel)(Params), GridSize grid, int threads, int sharedBytes, Stream stream, const Params& params) {
  if (sharedBytes > 48 << 10) {
    const cudaError_t raised = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes);
    if (raised != cudaSuccess) return raised;
  }
  kernel<<<dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)),
           static_cast<unsigned>(threads), static_cast<size_t>(sharedBytes), stream>>>(params);
  return cudaGetLastError();
}

/// Starts a kernel that gets ready while the one before it runs, and calls awaitPredecessor in every thread; from 9.0 on.
template <class Params>
int launchAfter(void (*kernel)(Params), GridSize grid, int threads, int sharedBytes, Stream stream, const Params& params) {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (major < 9) return launch(kernel, grid, threads, sharedBytes, stream, params);
  if (sharedBytes > 48 << 10) {
    const cudaError_t raised = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes);
    if (raised != cudaSuccess) return raised;
  }
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(sharedBytes);
  config.stream = stream, config.attrs = &early, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

template <class Params>
int residentBlocks(void (*kernel)(Params), int threads, int sharedBytes) {
  int blocks = 0;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes);
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, static_cast<size_t>(sharedBytes)) != cudaSuccess) return 1;
  return blocks > 0 ? blocks : 1;
}
#else
using Stream = void*;

template <bool beginsEarly, class Params>
int submit(void (*kernel)(Params), GridSize grid, int threads, int sharedBytes, const Params& params) {
  host::counts().launches++;
  host::submit([=] { host::runGrid(grid, threads, sharedBytes, [&] { kernel(params); }, beginsEarly); });
  return 0;
}
template <class Params>
int launch(void (*kernel)(Params), GridSize grid, int threads, int sharedBytes, Stream, const Params& params) {
  return submit<false>(kernel, grid, threads, sharedBytes, params);
}
template <class Params>
int launchAfter(void (*kernel)(Params), GridSize grid, int threads, int sharedBytes, Stream, const Params& params) {
  return submit<true>(kernel, grid, threads, sharedBytes, params);
}
template <class Params>
int residentBlocks(void (*)(Params), int, int) {
  return 2;
}
#endif

}  // namespace fastmqa::gpu
