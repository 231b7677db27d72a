// What a memory limit really holds: caches of whole models are allocated and filled until the allocator refuses.
#pragma once
#include <vector>

#include "fastmqa/problem.h"
#include "fastmqa/status.h"

namespace fastmqa {

struct Accelerator;

/// Layers of a model that cache alike.
struct LayerKind {
  PointSpec spec;
  int64_t layers = 1;
};

/// How far to go.
struct ReachLimits {
  int64_t tokens = 0;          ///< of a sequence
  int64_t bytes = INT64_MAX;   ///< of all caches; on a device at most what it has
  int64_t mostSequences = 0;
  int64_t reservedBytes = 0;   ///< taken beside the caches on a device, for the weights of the model
};

struct Reached {
  int64_t sequences = 0;       ///< complete ones, of `tokens` tokens in every layer
  int64_t tokensOfLast = 0;    ///< of the one that was refused
  int64_t allocatedBytes = 0;  ///< of the complete ones, page tables included
  int64_t limitBytes = 0;      ///< what caches could have: the limit, or what the device had free where that was less
};

/// Where the specs say: on the CPU, or on a CUDA device. @throws Failure cancelled, refused; outOfMemory where not even the weights fit
Reached reach(const std::vector<LayerKind>& kinds, const ReachLimits& limits, const CancelFlag* cancel);

/// @param accelerator  stands for the CUDA library, in tests
Reached reachOn(const Accelerator& accelerator, const std::vector<LayerKind>& kinds, const ReachLimits& limits, const CancelFlag* cancel);

}  // namespace fastmqa
