// An attention layer under one stack of techniques: projections, rotary embedding, cache, attention, output
// projection. All of it derives from the reference weights and a calibration stream.
#pragma once
#include <memory>
#include <vector>

#include "cpu/attention.h"
#include "cpu/cache.h"
#include "cpu/rope-table.h"
#include "fastmqa/memory.h"
#include "fastmqa/problem.h"
#include "fastmqa/status.h"
#include "latent-attention.h"
#include "math/gemm.h"
#include "model.h"

namespace fastmqa {

/// Operations and bytes that a step cannot avoid, for the roofline.
struct Work {
  double flops = 0, bytes = 0;
  int64_t tokens = 0;
};

/// A finished layer as numbers, for a backend that runs it with kernels of its own.
struct LayerNumbers {
  AttentionShape shape;
  CacheSpec cache;
  LayerMatrix query, key, value, output;
  std::vector<float> queryBias, keyBias, valueBias, outputBias, queryNorm, keyNorm;  ///< empty where there are none
  double normEpsilon = 0;
  /// Latents: stored = down x + bias, key or value = up stored + mean. A joint latent is all in the keys.
  LayerMatrix downKeys, downValues, upKeys, upValues;
  std::vector<float> biasKeys, biasValues, meanKeys, meanValues;
  LatentNumbers own;
  bool isLatent = false, cachesInput = false, latentsOfRotatedKeys = false, rotatesOnRead = false, turnsNeighbours = false;
  int64_t rotaryPairs = 0, positions = 0;
  std::vector<float> cosine, sine;   ///< [positions][rotaryPairs]
  std::vector<int64_t> inputOrder;   ///< input cache: channel stored at each place
};

class AttentionLayer {
 public:
  /// @param positions  rotary tables cover positions [0, positions)
  AttentionLayer(Arena& arena, const ReferenceModel& model, const Technique& technique, int64_t positions,
                 int64_t calibrationTokens, uint64_t inputSeed, const CancelFlag* cancel);

  std::unique_ptr<SequenceCache> newCache(Arena& arena) const { return std::make_unique<SequenceCache>(arena, cacheSpec_); }
  /// Appends tokens to a cache without attending, settling as it goes if asked to.
  void fill(SequenceCache& cache, const float* x, int64_t tokens, bool settle) const;
  /// Appends `tokens` rows of x to every cache and attends from them, causally. x, y: [caches][tokens][d].
  void step(const std::vector<SequenceCache*>& caches, const float* x, int64_t tokens, float* y) const;
  /// Attends from tokens that are in the caches already, at positions firstPosition + 0 .. tokens - 1 of each, causally.
  /// x, y as in step.
  void attendAt(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition, int64_t tokens, float* y) const;
  /// The whole prompt at once: attention on full-precision keys and values (rebuilt ones for latents), and the cache
  /// filled beside it. x, y: [tokens][d]. The cache must be empty.
  void prefill(SequenceCache& cache, const float* x, int64_t tokens, float* y) const;

  const CacheSpec& cacheSpec() const { return cacheSpec_; }
  int64_t hiddenDim() const { return d_; }
  /// numberBytes: of an activation where the layer runs; of a weight in stepWork.
  Work prefillWork(int64_t batch, int64_t tokens, int64_t numberBytes, int64_t weightBytes) const;
  /// `cached`: tokens in the cache that a query can see; cacheBytes: of all sequences.
  Work stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes, int64_t numberBytes) const;
  LayerNumbers numbers() const;
  int64_t weightBytes() const { return weightBytes_; }
  /// Of one weight, as this layer keeps most of them.
  int64_t numberBytes() const { return o_.numberBytes(); }
  /// Ranks that calibration chose or the level asked for; 0 where there is no latent.
  int64_t rankKey() const { return maps_.own ? 0 : maps_.keyRank; }
  int64_t rankValue() const { return maps_.own ? 0 : maps_.valueRank; }

 private:
  /// Projections of some tokens: what the cache stores, and full-precision keys and values where asked for.
  struct Rows {
    Buffer<float> queries;                   // [tokens][queryWidth], not rotated
    Buffer<float> keys, values;              // [tokens][keyWidth], keys as direct caches store them
    Buffer<float> latentKeys, latentValues;  // [tokens][rank]
    Buffer<float> sinkKeys, sinkValues;      // exact rows of the first tokens, rotated
  };
  /// Row t is at position firstPosition + t % perSequence: one sequence, or several of equal length in a row.
  /// @param withQueries  those of a direct cache too: one job makes all three
  Rows rowsFor(const float* x, int64_t tokens, int64_t firstPosition, int64_t perSequence, bool withQueries = false) const;
  void appendRows(SequenceCache& cache, const Rows& rows, int64_t offset, int64_t tokens) const;
  void rotateRows(float* rows, int64_t count, int64_t heads, int64_t firstPosition, int64_t perSequence) const;
  void rotateOwnKeys(float* keys, int64_t count, int64_t firstPosition, int64_t perSequence) const;
  /// attendAt from projected queries, which it rotates in place.
  void attendFrom(const std::vector<SequenceCache*>& caches, Buffer<float>& q, int64_t firstPosition, int64_t tokens, float* y) const;
  void attendOwn(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition, int64_t tokens, float* y) const;
  void hadamardRows(float* rows, int64_t count, int64_t heads) const;
  /// Projections as the cache meets them: biased, normalised, not rotated. Null: not wanted.
  void project(const float* x, int64_t rows, Buffer<float>* queries, Buffer<float>* keys, Buffer<float>* values) const;
  Buffer<float> productOf(const PackedWeights& w, const float* x, int64_t rows, int64_t ldx) const;
  void projectOutput(const float* mixed, int64_t rows, float* y) const;
  AttentionShape shape() const;
  bool rotatesOnRead() const;
  /// A layer that caches a latent of its own: its shape as the cache meets it.
  AttentionShape ownShape() const;
  void buildOwn(Arena& arena);
  void buildDirect(Arena& arena, const ReferenceModel& model, int64_t calibrationTokens, uint64_t inputSeed);
  void buildLatent(Arena& arena, const ReferenceModel& model, int64_t calibrationTokens, uint64_t inputSeed,
                   const CancelFlag* cancel);
  void setLatent(Arena& arena, const struct LatentBasis& basis);

  Arena* arena_;
  Technique technique_;
  LayerWeights weights_;  ///< after head conversion
  int64_t positions_;     ///< in use: some rotary embeddings depend on it
  int64_t d_, queryWidth_, keyWidth_;
  PackedWeights q_, k_, v_, o_;
  PackedWeights downKeys_, downValues_, upKeysPacked_, upValuesPacked_;
  Buffer<float> biasKeys_, biasValues_, upKeys_, upValues_, meanKeys_, meanValues_;
  std::vector<int64_t> channelOrder_;  ///< input cache: channel stored at each place
  bool latent_ = false;
  std::unique_ptr<LatentAttention> own_;  ///< of a model with multi-head latent attention, which caches a latent by itself
  LatentMaps maps_;
  CacheSpec cacheSpec_;
  RopeTable rope_;
  int64_t weightBytes_ = 0;
  const CancelFlag* cancel_;
};

}  // namespace fastmqa
