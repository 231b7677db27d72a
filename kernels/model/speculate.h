// Speculative decoding, real: the draft is the same model with a compressed cache, the target verifies several tokens in one
// pass (attention-spec B.7). What comes out is distributed exactly as the target alone would have it.
#pragma once
#include <vector>

#include "evaluate.h"

namespace fastmqa {

struct SpeculationSpec {
  Technique target, draft;
  DecoderPlace place;       ///< of both; numbers of the target's type unless said
  int64_t draftTokens = 4;  ///< gamma: proposed in a round
  int64_t tokens = 64;      ///< made after each prompt
  double temperature = 0;   ///< 0: greedy
  uint64_t seed = 1;
};

struct Speculation {
  std::vector<Tokens> output, plainOutput;   ///< per prompt; the second by the target alone
  std::vector<int64_t> offered, accepted;    ///< by place in the round: proposals checked there, and kept
  int64_t rounds = 0, tokens = 0;
  double seconds = 0, plainSeconds = 0;      ///< prompts not counted
  double draftSeconds = 0, verifySeconds = 0;  ///< parts of `seconds`
  int64_t targetCacheBytes = 0, draftCacheBytes = 0;  ///< allocated, of the longest sequence
};

/// Target and draft, built once.
class Speculator {
 public:
  /// @param longestPrompt  tokens. @throws Failure
  Speculator(std::shared_ptr<const EvaluatedModel> model, const SpeculationSpec& spec, int64_t longestPrompt, const CancelFlag* cancel);
  ~Speculator();
  /// Generates from every prompt in turn. @param plain also without a draft, for comparison
  Speculation run(const std::vector<Tokens>& prompts, bool plain);
  /// What both caches of the last prompt take now.
  CacheBytes cacheBytes() const;
  int64_t peakBytes() const;
  /// Of a draft step and of a verification, at a context.
  Work draftWork(int64_t context) const;
  Work verifyWork(int64_t context) const;

 private:
  class Side;
  std::shared_ptr<const EvaluatedModel> model_;
  SpeculationSpec spec_;
  int64_t longestPrompt_;
  const CancelFlag* cancel_;
  std::unique_ptr<Side> target_, draft_;
};

/// A model that speculates at a context, with a level as its draft: measured against itself without one, then timed.
class SpeculationPoint : public TimedPoint {
 public:
  /// The prompts are the documents of the text.
  SpeculationPoint(std::shared_ptr<const EvaluatedModel> model, const PointSpec& spec, const CancelFlag* cancel);
  const Speculation& comparison() const { return comparison_; }
  /// Seconds for as many tokens as work() says, prompts not counted.
  std::vector<double> sample(double seconds, int64_t most) override;

 private:
  std::shared_ptr<const EvaluatedModel> model_;
  std::unique_ptr<Speculator> speculator_;
  Speculation comparison_;
  size_t next_ = 0;
};

}  // namespace fastmqa
