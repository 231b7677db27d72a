// Speculative decoding, real: the draft is the same model with a compressed cache, the target verifies several tokens in one
// pass (attention-spec B.7). What comes out is distributed exactly as the target alone would have it.
#pragma once
#include <vector>

#include "evaluate.h"

namespace fastmqa {

struct SpeculationSpec {
  Technique target, draft;
  int64_t draftTokens = 4;  ///< gamma: proposed in a round
  int64_t tokens = 64;      ///< made after each prompt
  double temperature = 0;   ///< 0: greedy
  uint64_t seed = 1;
  bool plain = true;        ///< also without a draft, for comparison
};

struct Speculation {
  std::vector<Tokens> output, plainOutput;   ///< per prompt; the second by the target alone
  std::vector<int64_t> offered, accepted;    ///< by place in the round: proposals checked there, and kept
  int64_t rounds = 0, tokens = 0;
  double seconds = 0, plainSeconds = 0;      ///< prompts not counted
  double draftSeconds = 0, verifySeconds = 0;  ///< parts of `seconds`
  int64_t targetCacheBytes = 0, draftCacheBytes = 0;  ///< allocated, of the longest sequence
};

/// Generates from every prompt in turn. @throws Failure
Speculation speculate(const EvaluatedModel& model, const std::vector<Tokens>& prompts, const SpeculationSpec& spec, const CancelFlag* cancel);

}  // namespace fastmqa
