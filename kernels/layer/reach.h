// What a memory limit really holds: caches of whole models are allocated and filled until the allocator refuses.
#pragma once
#include <vector>

#include "fastmqa/problem.h"
#include "fastmqa/status.h"

namespace fastmqa {

/// Layers of a model that cache alike.
struct LayerKind {
  PointSpec spec;
  int64_t layers = 1;
};

struct Reached {
  int64_t sequences = 0;       ///< complete ones, of `tokens` tokens in every layer
  int64_t tokensOfLast = 0;    ///< of the one that was refused
  int64_t allocatedBytes = 0;  ///< of the complete ones, page tables included
};

/// Stops at `mostSequences` too. @throws Failure cancelled, refused
Reached reach(const std::vector<LayerKind>& kinds, int64_t tokens, int64_t limitBytes, int64_t mostSequences, const CancelFlag* cancel);

}  // namespace fastmqa
