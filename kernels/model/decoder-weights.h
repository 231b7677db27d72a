// Weights of a decoder. A layer is read from its files when it is first asked for: of a model too large for this machine, or of
// which one layer is measured, only what comes before that layer is.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "activation.h"
#include "checkpoint.h"
#include "experts.h"
#include "layer/running-layer.h"

namespace fastmqa {

enum class Norm { rms, layer };
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

/// Thread-safe. What was read stays at its address.
class DecoderWeights {
 public:
  /// Reads the embedding. @throws Failure
  DecoderWeights(const DecoderShape& shape, Checkpoint checkpoint, const CancelFlag* cancel = nullptr);

  struct Attention {
    NormWeights norm;                             ///< of its input
    std::shared_ptr<const ReferenceModel> model;  ///< without calibration streams
  };
  struct FeedForward {
    NormWeights norm, afterAttention, after;
    PackedWeights gate, up, down;
    std::vector<float> upBias, downBias;
    std::unique_ptr<const Experts> experts;  ///< in place of the MLP
  };
  struct Head {
    NormWeights norm;
    PackedWeights weights;
    bool isTied = false;  ///< it is the embedding
  };
  const DecoderShape shape;
  const Numbers& embedding() const { return embedding_; }  ///< [vocabSize][d]
  const Numbers& positions() const { return positions_; }  ///< [maxPositions][d] or empty

  /// Read at the first call. @throws Failure
  const Attention& attention(int64_t layer, const CancelFlag* cancel = nullptr) const;
  const FeedForward& feedForward(int64_t layer, const CancelFlag* cancel = nullptr) const;
  const Head& head(const CancelFlag* cancel = nullptr) const;
  void readAll(const CancelFlag* cancel) const;

  /// Of what has been read.
  int64_t bytes() const;
  /// Of one weight, as most of them are kept.
  int64_t numberBytes() const { return attention(0).model->weights().wq.isHalf() ? 2 : 4; }

 private:
  Attention readAttention(int64_t layer, const CancelFlag* cancel) const;
  FeedForward readFeedForward(int64_t layer, const CancelFlag* cancel) const;
  Head readHead(const CancelFlag* cancel) const;

  const Checkpoint checkpoint_;
  Numbers embedding_, positions_;
  mutable std::mutex mutex_;
  mutable Arena arena_;  ///< outlives what it counts: declared before
  mutable std::vector<std::optional<Attention>> attention_;
  mutable std::vector<std::optional<FeedForward>> feedForward_;
  mutable std::optional<Head> head_;
};

}  // namespace fastmqa
