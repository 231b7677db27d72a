// The projections of a layer with multi-head latent attention (DeepSeek-V2, attention-spec B.3): to what it caches, from
// queries to coordinates of the latent ("absorbed") and back to its output, and to keys and values of every head.
#pragma once
#include <vector>

#include "math/gemm.h"
#include "reference/layer.h"

namespace fastmqa {

/// Row-major; empty where a layer has none.
struct LayerMatrix {
  std::vector<float> numbers;
  int64_t rows = 0, columns = 0;
};

/// The weights as LatentWeights has them, for a backend with kernels of its own; rank 0: none.
struct LatentNumbers {
  int64_t rank = 0, ropeDim = 0, valueDim = 0;
  LayerMatrix queryDown, down, up;
  std::vector<float> queryNorm, norm;
};

class LatentAttention {
 public:
  LatentAttention(Arena& arena, const LayerWeights& weights);

  int64_t rank() const { return rank_; }
  int64_t ropeDim() const { return ropeDim_; }
  int64_t valueDim() const { return valueDim_; }
  /// What is cached of tokens: latents [rows][rank] after their norm, keys [rows][ropeDim] before their rotation. x [rows][d].
  void cached(const float* x, int64_t rows, float* latents, float* keys) const;
  /// [rows][heads][nopeDim + ropeDim], not rotated.
  Buffer<float> queries(const float* x, int64_t rows) const;
  /// Queries as the cache meets them, [rows][heads][rank + ropeDim].
  Buffer<float> absorbed(const float* queries, int64_t rows) const;
  /// Values [rows][heads][valueDim] out of mixtures of latents [rows][heads][rank].
  Buffer<float> valuesOfMixtures(const float* mixed, int64_t rows) const;
  /// Keys [rows][heads][nopeDim + ropeDim] and values [rows][heads][valueDim] of tokens; keys beside the latents are rotated.
  void expand(const float* latents, const float* rotatedKeys, int64_t rows, float* keys, float* values) const;

  /// [heads * headDim][hidden size, or the rank of the queries' own latent]
  const PackedWeights& queryWeights() const { return query_; }
  LatentNumbers numbers() const;

  /// Multiplications of a token: of its query and of what is cached; on the way to the latent and back; of expanding it.
  double projectionWeights() const;
  double absorbedWeights() const { return static_cast<double>(heads_ * rank_ * (nopeDim_ + valueDim_)); }
  double expandedWeights() const { return absorbedWeights(); }

 private:
  Arena* arena_;
  int64_t d_, heads_, rank_, ropeDim_, nopeDim_, valueDim_;
  std::vector<float> latentNorm_, queryNorm_;
  PackedWeights down_, queryDown_, query_;
  // Of every head: nope channels to the latent [rank][nopeDim], the latent to key [nopeDim][rank] and to value [valueDim][rank].
  std::vector<PackedWeights> toLatent_, toKey_, toValue_;
};

}  // namespace fastmqa
