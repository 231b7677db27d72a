// A whole decoder: embedding, norms, rotary attention over real compressed caches, MLP, head. One set of weights serves
// every level; a Decoder is the weights under one stack of techniques.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "checkpoint.h"
#include "layer/layer.h"

namespace fastmqa {

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
    std::shared_ptr<const ReferenceModel> attention;  ///< without calibration streams
  };
  DecoderShape shape;
  Arena arena;  ///< outlives what it counts: declared before
  std::vector<float> embedding, positions;  ///< [vocabSize][d], [maxPositions][d] or empty
  NormWeights finalNorm;
  PackedWeights head;
  std::vector<Layer> layers;
  int64_t bytes() const { return arena.currentBytes() + static_cast<int64_t>((embedding.size() + positions.size()) * sizeof(float)); }
};

/// The cache of one sequence in every layer.
struct SequenceState {
  std::vector<std::unique_ptr<SequenceCache>> caches;
  int64_t length() const { return caches.front()->length(); }
  void settle() {
    for (auto& cache : caches) cache->settle();
  }
  void rollback(int64_t length) {
    for (auto& cache : caches) cache->rollback(length);
  }
  CacheBytes bytes() const {
    CacheBytes sum;
    for (const auto& cache : caches) sum += cache->bytes();
    return sum;
  }
};

class Decoder {
 public:
  /// @param techniques  per layer; where there are fewer than layers, the others are left out
  /// @param calibrated  per layer, its attention with calibration streams; empty where no level needs any
  /// @param positions  most tokens of a sequence
  Decoder(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const std::vector<Technique>& techniques,
          const AttentionModels& calibrated, int64_t positions, int64_t calibrationTokens, const CancelFlag* cancel);

  SequenceState newSequence(Arena& arena) const;
  /// The whole prompt of an empty sequence; attention on exact keys and values, caches filled beside it.
  /// @param hidden [tokens][d], what leaves the last layer; null where nobody asks
  void prefill(SequenceState& sequence, const int32_t* tokens, int64_t count, float* hidden) const;
  /// `count` more tokens of every sequence (equal lengths), which read the caches. tokens: [sequences][count], hidden alike.
  void step(const std::vector<SequenceState*>& sequences, const int32_t* tokens, int64_t count, float* hidden) const;
  /// Logits [rows][vocabSize] from what left the last layer.
  void logits(const float* hidden, int64_t rows, float* out) const;

  /// Called with the input of a layer's attention, and with the stream after the layer: rows [count][d].
  std::function<void(int64_t layer, const float* input, int64_t rows)> onAttentionInput;
  std::function<void(int64_t layer, const float* stream, int64_t rows)> onLayerOutput;

  const DecoderWeights& weights() const { return *weights_; }
  const AttentionLayer& attention(int64_t layer) const { return *attention_[static_cast<size_t>(layer)]; }
  int64_t attentionBytes() const;
  Work stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes) const;
  Work prefillWork(int64_t batch, int64_t tokens) const;

 private:
  using Attend = std::function<void(int64_t layer, const float* x, float* y)>;
  void run(const int32_t* tokens, int64_t rows, int64_t firstPosition, int64_t perSequence, const Attend& attend, float* hidden) const;
  void mlp(const DecoderWeights::Layer& layer, const float* x, int64_t rows, float* y) const;
  void normalise(const NormWeights& norm, const float* x, int64_t rows, float* y) const;
  double mlpFlops() const;

  std::shared_ptr<const DecoderWeights> weights_;
  std::vector<std::unique_ptr<AttentionLayer>> attention_;
  int64_t positions_;
  const CancelFlag* cancel_;
};

}  // namespace fastmqa
