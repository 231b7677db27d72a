// One attention problem with random contents, and its definition in fp64.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cuda/launch/attention.h"
#include "memory.h"

namespace fastmqa::gpu {

struct CaseSpec {
  std::string name;
  int batch = 1, heads = 1, kvHeads = 1, keyDim = 64, valueDim = 64, queryTokens = 1;
  std::vector<int> lengths{64};  ///< one for all, or one a sequence
  Dtype cacheType = Dtype::f16, queryType = Dtype::f16, outType = Dtype::f32;
  bool paged = false;
  Sharing keySharing = Sharing::tensor, valueSharing = Sharing::tensor;
  int keyGroup = 32, valueGroup = 32;
  bool symmetric = false;
  int left = unlimitedTokens, right = 0, sinks = 0;
  float softcap = 0, magnitude = 1;
  float slope = 0;  ///< not 0: logits of 16-bit keys grow by about this a token, up to 0 at the last, or fall from 0 at the first
  Path path = Path::decode;
  int splits = 0;         ///< 0: as planned
  std::vector<int> cuts;  ///< cached tokens where a part ends and the next begins (multiples of 64)
};

struct CaseResult {
  bool finite = false;
  double error = 0, allowed = 0;  ///< largest difference from fp64
  double logError = 0;            ///< of the log-sum-exp
  bool good() const { return finite && error <= allowed && logError <= 2e-3 + 1e-2 * allowed; }
};

/// Builds the case, runs it, compares. Seeded by the name. @throws Fault (emulation), Failure (refused)
CaseResult runCase(const CaseSpec& spec, const Device& device);

}  // namespace fastmqa::gpu
