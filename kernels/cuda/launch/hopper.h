// The Hopper tier. Compiled for compute capability 9.0a alone, so in a library of its own.
#pragma once
#include "attention.h"

namespace fastmqa::gpu {

/// Attention with p.keyDim == p.valueDim of 64 or 128, rows packed or not as p says (a group must divide 64 to be packed);
/// nothing if this build or device has no such kernel. Rows of queries, keys and values must be aligned to 16 bytes.
AttentionKernel hopperPrefillKernel(const AttentionProblem& p, const Device& device);

/// Latent decode of 512 channels of values, with or without 64 more of keys; nothing if this build or device has no such
/// kernel. Rows of queries and latents must be aligned to 16 bytes.
AttentionKernel hopperLatentKernel(const AttentionProblem& p, const Device& device);

/// Decode from a paged cache of e4m3 codes, or of symmetric int8 or int4 codes with a scale for each token and 64 channels or
/// more, with heads of 64 or 128; nothing if this build or device has no such kernel. What the decode path asks of strides
/// holds. `rows`: query rows of a KV head; a block may take fewer.
AttentionKernel hopperDecodeKernel(const AttentionProblem& p, int rows, const Device& device);

}  // namespace fastmqa::gpu
