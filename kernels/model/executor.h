// Where a decoder's numbers are and who computes with them. The decoder says what is done, in order; an executor does it.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "layer/running-layer.h"

namespace fastmqa {

class DecoderWeights;
struct NormWeights;

/// Sequences of equal length with their caches in every layer, as an executor keeps them.
class Sequences {
 public:
  virtual ~Sequences() = default;
  virtual int64_t count() const = 0;
  virtual int64_t length() const = 0;
  virtual void settle() = 0;
  /// Forgets tokens from `length` on; only tokens appended since settle().
  virtual void rollback(int64_t length) = 0;
  virtual CacheBytes bytes() const = 0;
};

class Executor {
 public:
  /// Rows of hiddenDim numbers: what flows through the layers, what a norm made of it, and what attention and the MLP add to it.
  enum class Place { stream, normed, attended, fed };
  virtual ~Executor() = default;

  virtual std::unique_ptr<Sequences> newSequences(int64_t count) = 0;
  /// How many of `count` prompts are read at once.
  virtual int64_t promptsAtOnce(int64_t count) const = 0;

  /// The stream becomes the embeddings of tokens [sequences][count], which stand at firstPosition + 0 .. count - 1.
  virtual void embed(const int32_t* tokens, int64_t sequences, int64_t count, int64_t firstPosition) = 0;
  virtual void normalise(const NormWeights& norm, Place from, Place to) = 0;
  /// The rows are whole prompts of sequences `first` and following, `count` of them, whose caches are emptied first; attention
  /// on exact keys and values, caches filled beside it.
  virtual void prefill(int64_t layer, Sequences& sequences, int64_t first, int64_t count, Place from, Place to) = 0;
  /// The rows are appended to all sequences and read the caches.
  virtual void step(int64_t layer, Sequences& sequences, Place from, Place to) = 0;
  virtual void feedForward(int64_t layer, Place from, Place to) = 0;
  /// Adds rows to the stream.
  virtual void add(Place from) = 0;
  virtual void read(Place from, float* to) = 0;
  /// Logits [rows][vocabSize] of normalised rows; null: computed, and left where they are.
  virtual void logits(Place from, float* to) = 0;

  /// Seconds per step on the clock of the place, until `seconds` have passed or `most` are taken, at least one.
  virtual std::vector<double> sample(const std::function<void()>& step, double seconds, int64_t most) = 0;
  virtual SampleConditions conditions() const { return {}; }
  virtual int64_t numberBytes() const = 0;     ///< of a weight
  virtual int64_t activationBytes() const { return numberBytes(); }
  virtual int64_t attentionBytes() const = 0;  ///< weights of all layers' attention
  /// Caches, attention weights and workspace at the worst; the model's other weights are shared.
  virtual int64_t peakBytes() const = 0;
  virtual void resetPeak() = 0;
  virtual int64_t sharedBytes() const = 0;
};

}  // namespace fastmqa
