// A whole decoder: embedding, norms, rotary attention over real compressed caches, MLP, head. One set of weights serves
// every level; a Decoder is the weights under one stack of techniques.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "decoder-weights.h"
#include "executor.h"

namespace fastmqa {

struct Accelerator;

/// Where a decoder runs.
struct DecoderPlace {
  int device = -1;                          ///< -1: the CPU; else of the accelerator
  const Accelerator* accelerator = nullptr; ///< null: the CUDA library
  std::optional<Dtype> numbers = {};        ///< type of weights and activations on a device; absent: as the first level's cache suggests
};

class Decoder {
 public:
  /// @param techniques  per layer; where there are fewer than layers, the others are left out
  /// @param calibrated  per layer, its attention with calibration streams; empty where no level needs any
  /// @param positions  most tokens of a sequence
  /// @param place  where it runs
  Decoder(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const std::vector<Technique>& techniques,
          const AttentionModels& calibrated, int64_t positions, int64_t calibrationTokens, const CancelFlag* cancel,
          const DecoderPlace& place = {});

  std::unique_ptr<Sequences> newSequences(int64_t count) { return executor_->newSequences(count); }
  /// Whole prompts [sequences][count], in the place of whatever is cached; attention on exact keys and values, caches filled
  /// beside it.
  /// @param logits [sequences][count][vocabSize]; null: not computed
  void prefill(Sequences& sequences, const int32_t* tokens, int64_t count, float* logits);
  /// `count` more tokens of every sequence, which read the caches. Their logits are always computed; null: left where they are.
  void step(Sequences& sequences, const int32_t* tokens, int64_t count, float* logits);

  /// Called with the input of a layer's attention, and with the stream after the layer: rows [count][d].
  /// @returns whether the pass is to go on; without, it ends there
  std::function<bool(int64_t layer, const float* input, int64_t rows)> onAttentionInput;
  std::function<void(int64_t layer, const float* stream, int64_t rows)> onLayerOutput;

  const DecoderWeights& weights() const { return *weights_; }
  const AttentionLayer& attention(int64_t layer) const { return *attention_[static_cast<size_t>(layer)]; }
  Executor& executor() { return *executor_; }
  const Executor& executor() const { return *executor_; }
  Work stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes) const;
  Work prefillWork(int64_t batch, int64_t tokens) const;

 private:
  using Attend = std::function<void(int64_t layer)>;
  void run(const int32_t* tokens, int64_t sequences, int64_t count, int64_t firstPosition, const Attend& attend);
  const float* shown(Executor::Place from, int64_t rows);
  void finish(float* logits);
  Work sharedWork(int64_t rows, bool hasLogits) const;

  std::shared_ptr<const DecoderWeights> weights_;
  std::vector<std::unique_ptr<AttentionLayer>> attention_;
  int64_t positions_;
  const CancelFlag* cancel_;
  std::unique_ptr<Executor> executor_;
  std::vector<float> shown_;
};

}  // namespace fastmqa
