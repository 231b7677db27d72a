// Choosing and starting attention kernels. Raw pointers and sizes in, a status out; what cannot be met is refused here.
#pragma once
#include "../kernels/attention-problem.h"
#include "launch.h"

namespace fastmqa::gpu {

/// general: f32 arithmetic, any size and format. decode: few rows per KV head. prefill: many. latent: values are the
/// first channels of the keys (p.values is p.keys), and all heads share them. hopperPrefill, hopperDecode, hopperLatent: on
/// compute capability 9.0, heads of 64 or 128 (decode: over a coded cache), and latents of 512 channels. reconstruct:
/// latents as p.made describes them.
enum class Path { general, decode, prefill, latent, hopperPrefill, hopperLatent, reconstruct, hopperDecode };

struct AttentionKernel {
  void (*run)(AttentionProblem) = nullptr;
  int threads = 0, sharedBytes = 0;
  int rows = 0;  ///< query rows of a block
  /// Starts a kernel that needs more than the problem; `run` is null then.
  int (*start)(const AttentionProblem&, GridSize, Stream) = nullptr;
};

/// A kernel whose blocks take what Shape says, and how it is run or started.
template <class Shape>
AttentionKernel kernelOf(void (*run)(AttentionProblem), const Device& device) {
  return {run, Shape::threads, Shape::sharedBytes(device.capability >= 80), Shape::rows};
}
template <class Shape>
AttentionKernel kernelOf(int (*start)(const AttentionProblem&, GridSize, Stream)) {
  return {nullptr, Shape::threads, Shape::sharedBytes, Shape::rows, start};
}

struct AttentionPlan {
  Path path = Path::general;
  AttentionKernel kernel;
  GridSize grid;
  int splits = 1;
  int blockRows = 0;  ///< of decode
  bool packed = false;
};

/// The fastest path that the problem's types and sizes allow on this device; `wanted` narrows it to one path.
/// @throws Failure refused
AttentionPlan planAttention(const AttentionProblem& problem, const Device& device, const Path* wanted = nullptr);

/// Floats of workspace for `slots` parts of the keys; 0 for one.
int64_t workspaceFloats(const AttentionProblem& problem, int slots);

/// Attends over the parts of a cache (sinks, body, exact tail; most often one), merging them if there are several.
/// The parts differ in keys, values, lengths and firstKey; plans[i] is of parts[i]. Returns a CUDA status.
int attend(const AttentionProblem* parts, const AttentionPlan* plans, int count, Global<float> workspace, Stream stream);

// One file each, so that they compile side by side. Nothing is returned (run is null) for what has no instance. `rows`: query
// rows of a KV head; a block of the kernel may take fewer.
AttentionKernel plainDecodeKernel(Dtype type, int headDim, int rows, const Device& device);
AttentionKernel codedDecodeKernel(const AttentionProblem& p, int rows, const Device& device);
/// Of more than eight rows, where keys and values share scales alike by 64 channels or all; none elsewhere.
AttentionKernel wideDecodeKernel(const AttentionProblem& p, int rows, const Device& device);
AttentionKernel prefillKernelFor(Dtype type, int headDim, const Device& device);
AttentionKernel latentKernelFor(Dtype type, int keyDim, int valueDim);
/// Of p.made: 16-bit queries, heads of 64 or 128, latents of at most 128 channels.
AttentionKernel reconstructKernel(const AttentionProblem& p, const Device& device);

}  // namespace fastmqa::gpu
