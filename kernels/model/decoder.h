// A whole decoder: embedding, norms, rotary attention over real compressed caches, MLP, head. One set of weights serves
// every level; a Decoder is the weights under one stack of techniques.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "checkpoint.h"
#include "executor.h"
#include "experts.h"

namespace fastmqa {

struct Accelerator;

enum class Norm { rms, layer };
enum class Activation { silu, gelu, geluTanh };
enum class Residual { sequential, sandwich, parallel };

struct DecoderShape {
  int64_t hiddenDim = 0, heads = 0, kvHeads = 0, headDim = 0, layers = 0, mlpDim = 0, vocabSize = 0, maxPositions = 0;
  Norm norm = Norm::rms;
  bool normPlusOne = false;  ///< stored RMSNorm weights are less by one (Gemma)
  double normEpsilon = 1e-6;
  Residual residual = Residual::sequential;
  double attentionScale = 0, attentionSoftcap = 0, logitSoftcap = 0, embeddingScale = 1;
  Activation activation = Activation::silu;
  bool gatedMlp = true;
  /// Multi-head latent attention: the sizes of LatentWeights; rank 0 without it. queryRank 0: queries come straight from x.
  int64_t latentRank = 0, ropeDim = 0, valueDim = 0, queryRank = 0;
  ExpertShape experts;
  std::vector<int64_t> windows;        ///< per layer, 0 = all keys
  std::vector<RopeParameters> ropes;   ///< per layer
};

/// A norm's weights; empty = the norm does not exist.
struct NormWeights {
  std::vector<float> weight, bias;
  explicit operator bool() const { return !weight.empty(); }
};

/// The attention of every layer: weights, and the inputs it meets on calibration text.
using AttentionModels = std::vector<std::shared_ptr<const ReferenceModel>>;

class DecoderWeights {
 public:
  /// Reads all weights. @throws Failure
  DecoderWeights(const DecoderShape& shape, const Checkpoint& checkpoint, const CancelFlag* cancel);

  struct Layer {
    NormWeights attentionNorm, mlpNorm, afterAttention, afterMlp;
    PackedWeights gate, up, down;
    std::vector<float> upBias, downBias;
    std::unique_ptr<const Experts> experts;  ///< in place of the MLP
    std::shared_ptr<const ReferenceModel> attention;  ///< without calibration streams
  };
  DecoderShape shape;
  Arena arena;  ///< outlives what it counts: declared before
  Numbers embedding, positions;  ///< [vocabSize][d], [maxPositions][d] or empty
  NormWeights finalNorm;
  PackedWeights head;
  bool tiedHead = false;  ///< the head is the embedding
  std::vector<Layer> layers;
  int64_t bytes() const;
  /// Of one weight, as most of them are kept.
  int64_t numberBytes() const { return layers.front().attention->weights().wq.isHalf() ? 2 : 4; }
};

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
  std::function<void(int64_t layer, const float* input, int64_t rows)> onAttentionInput;
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
  void show(const std::function<void(int64_t, const float*, int64_t)>& to, int64_t layer, Executor::Place from, int64_t rows);
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
