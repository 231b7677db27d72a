// Sizes of buffers, multiplied with overflow checked. Shapes come from files and from callers: each is checked once, before
// anything is allocated or indexed by it; what the engine derives from checked sizes stays below 2^63 by the margin kept here.
#pragma once
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "problem.h"
#include "status.h"

namespace fastmqa {

/// Of one buffer. Its bytes (8 an element) and bits (64) still count in 63 bits.
constexpr int64_t mostElements = int64_t{1} << 56;

/// Product of sizes. @throws Failure refused for a size below 0 and for more than `mostElements`
template <class Sizes>
int64_t elements(const Sizes& sizes) {
  int64_t product = 1;
  bool isEmpty = false;
  for (const int64_t size : sizes) {
    if (size < 0) refuse("expected a size of at least 0 but received " + std::to_string(size));
    if (size == 0) isEmpty = true;
    if (size > 0 && (__builtin_mul_overflow(product, size, &product) || product > mostElements))
      refuse("expected a shape of at most " + std::to_string(mostElements) + " elements but received one of more");
  }
  return isEmpty ? 0 : product;
}
inline int64_t elements(std::initializer_list<int64_t> sizes) { return elements<std::initializer_list<int64_t>>(sizes); }

/// @throws Failure refused for a point whose sizes are below 1, or whose largest buffers could not be counted
inline void checkSizes(const PointSpec& spec) {
  const ModelSpec& m = spec.model;
  const Technique& t = spec.technique;
  for (const int64_t size : {m.hiddenDim, m.heads, m.headDim, m.kvHeads, t.kvHeads, spec.batch, spec.seqLen})
    if (size < 1) refuse("expected a size of at least 1 but received " + std::to_string(size));
  const int64_t width = std::max({m.hiddenDim, elements({m.heads, m.headDim}), elements({t.kvHeads, m.headDim})});
  elements({m.hiddenDim, width});
  elements({spec.batch, spec.seqLen, width});
  for (const int64_t rows : {m.latentRank, m.ropeDim, m.valueDim, spec.verifyTokens, spec.calibrationTokens, t.residual, t.sinks, t.window, t.rank, t.rankKey, t.rankValue})
    elements({rows, width});
  for (const Technique::LatentBand& band : t.bands) elements({band.channels, width});
}

}  // namespace fastmqa
