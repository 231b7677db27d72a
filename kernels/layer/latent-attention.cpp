#include "latent-attention.h"

#include <algorithm>
#include <cmath>

#include "math/threads.h"

namespace fastmqa {
namespace {

/// RMSNorm of rows [count][weight.size()] that stand `stride` apart.
void normaliseRows(float* rows, int64_t count, int64_t stride, const std::vector<float>& weight) {
  const auto n = static_cast<int64_t>(weight.size());
  parallelFor(count, [&](int64_t r) {
    float* row = rows + r * stride;
    double squares = 0;
    for (int64_t c = 0; c < n; c++) squares += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + LatentWeights::normEpsilon));
    for (int64_t c = 0; c < n; c++) row[c] *= scale * weight[static_cast<size_t>(c)];
  });
}

}  // namespace

LatentAttention::LatentAttention(Arena& arena, const LayerWeights& w)
    : arena_(&arena), d_(w.d), heads_(w.heads), rank_(w.latent.rank), ropeDim_(w.latent.ropeDim), nopeDim_(w.headDim - w.latent.ropeDim),
      valueDim_(w.latent.valueDim), latentNorm_(w.latent.norm), queryNorm_(w.latent.queryNorm) {
  const int64_t queryWidth = heads_ * w.headDim, each = nopeDim_ + valueDim_;
  const auto queryRank = static_cast<int64_t>(queryNorm_.size());
  down_ = PackedWeights(arena, rank_ + ropeDim_, d_, w.latent.down);
  if (queryRank > 0) queryDown_ = PackedWeights(arena, queryRank, d_, w.latent.queryDown);
  query_ = PackedWeights(arena, queryWidth, queryRank > 0 ? queryRank : d_, w.wq);
  for (int64_t h = 0; h < heads_; h++) {
    const int64_t up = h * each * rank_;
    toLatent_.emplace_back(arena, rank_, nopeDim_, w.latent.up, up, 1, rank_);
    toKey_.emplace_back(arena, nopeDim_, rank_, w.latent.up, up, rank_, 1);
    toValue_.emplace_back(arena, valueDim_, rank_, w.latent.up, up + nopeDim_ * rank_, rank_, 1);
  }
}

void LatentAttention::cached(const float* x, int64_t rows, float* latents, float* keys) const {
  const int64_t width = rank_ + ropeDim_;
  Buffer<float> both(*arena_, rows * width);
  down_.multiply(rows, x, d_, both.data(), width);
  normaliseRows(both.data(), rows, width, latentNorm_);
  for (int64_t r = 0; r < rows; r++) {
    std::copy_n(both.data() + r * width, rank_, latents + r * rank_);
    std::copy_n(both.data() + r * width + rank_, ropeDim_, keys + r * ropeDim_);
  }
}

Buffer<float> LatentAttention::queries(const float* x, int64_t rows) const {
  Buffer<float> out(*arena_, rows * query_.rows());
  if (queryNorm_.empty()) {
    query_.multiply(rows, x, d_, out.data(), query_.rows());
    return out;
  }
  Buffer<float> low(*arena_, rows * queryDown_.rows());
  queryDown_.multiply(rows, x, d_, low.data(), queryDown_.rows());
  normaliseRows(low.data(), rows, queryDown_.rows(), queryNorm_);
  query_.multiply(rows, low.data(), queryDown_.rows(), out.data(), query_.rows());
  return out;
}

Buffer<float> LatentAttention::absorbed(const float* queries, int64_t rows) const {
  const int64_t from = nopeDim_ + ropeDim_, to = rank_ + ropeDim_;
  Buffer<float> out(*arena_, rows * heads_ * to);
  parallelFor(heads_, [&](int64_t h) {
    toLatent_[static_cast<size_t>(h)].multiply(rows, queries + h * from, heads_ * from, out.data() + h * to, heads_ * to);
    for (int64_t r = 0; r < rows; r++)
      std::copy_n(queries + (r * heads_ + h) * from + nopeDim_, ropeDim_, out.data() + (r * heads_ + h) * to + rank_);
  });
  return out;
}

Buffer<float> LatentAttention::valuesOfMixtures(const float* mixed, int64_t rows) const {
  Buffer<float> out(*arena_, rows * heads_ * valueDim_);
  parallelFor(heads_, [&](int64_t h) {
    toValue_[static_cast<size_t>(h)].multiply(rows, mixed + h * rank_, heads_ * rank_, out.data() + h * valueDim_, heads_ * valueDim_);
  });
  return out;
}

void LatentAttention::expand(const float* latents, const float* rotatedKeys, int64_t rows, float* keys, float* values) const {
  const int64_t keyDim = nopeDim_ + ropeDim_;
  parallelFor(heads_, [&](int64_t h) {
    toKey_[static_cast<size_t>(h)].multiply(rows, latents, rank_, keys + h * keyDim, heads_ * keyDim);
    toValue_[static_cast<size_t>(h)].multiply(rows, latents, rank_, values + h * valueDim_, heads_ * valueDim_);
    for (int64_t r = 0; r < rows; r++) std::copy_n(rotatedKeys + r * ropeDim_, ropeDim_, keys + (r * heads_ + h) * keyDim + nopeDim_);
  });
}

LatentNumbers LatentAttention::numbers() const {
  const auto matrix = [](const PackedWeights& from) { return LayerMatrix{from.unpacked(), from.rows(), from.columns()}; };
  LatentNumbers n;
  n.rank = rank_, n.ropeDim = ropeDim_, n.valueDim = valueDim_;
  n.down = matrix(down_);
  if (!queryNorm_.empty()) n.queryDown = matrix(queryDown_);
  n.norm = latentNorm_, n.queryNorm = queryNorm_;
  n.up.rows = heads_ * (nopeDim_ + valueDim_), n.up.columns = rank_;
  for (size_t h = 0; h < toKey_.size(); h++)
    for (const PackedWeights* part : {&toKey_[h], &toValue_[h]}) {
      const std::vector<float> numbers = part->unpacked();
      n.up.numbers.insert(n.up.numbers.end(), numbers.begin(), numbers.end());
    }
  return n;
}

double LatentAttention::projectionWeights() const {
  return static_cast<double>(down_.rows() * down_.columns() + queryDown_.rows() * queryDown_.columns() + query_.rows() * query_.columns());
}

}  // namespace fastmqa
