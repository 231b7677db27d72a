#include "latent-attention.h"

#include <string>
#include <vector>

#include "../launch/decoder.h"

namespace fastmqa::gpu {
namespace {

constexpr int64_t mostRank = 512;  // channels of values that kernels of any head size take

Global<const uint8_t> read(const DeviceBlock& block, int64_t skippedBytes) {
  return Global<const uint8_t>(static_cast<const uint8_t*>(block.data()) + skippedBytes, block.bytes() - skippedBytes);
}
Global<uint8_t> written(const DeviceBlock& block, int64_t skippedBytes) {
  return Global<uint8_t>(static_cast<uint8_t*>(block.data()) + skippedBytes, block.bytes() - skippedBytes);
}

}  // namespace

LatentAttention::LatentAttention(Lane& lane, const AcceleratorLayer& from)
    : lane_(&lane), heads_(from.heads), headDim_(from.headDim), rank_(from.latent.rank), ropeDim_(from.latent.ropeDim),
      nopeDim_(from.headDim - from.latent.ropeDim), valueDim_(from.latent.valueDim), queryRank_(from.latent.queryDown.rows),
      normEpsilon_(from.latent.normEpsilon) {
  for (const int64_t size : {rank_, ropeDim_, nopeDim_, valueDim_})  // rows of the next product, and 16-byte copies
    if (size % 8) refuse("expected sizes of multi-head latent attention that are multiples of 8 on a GPU but received " + std::to_string(size));
  if (rank_ > mostRank) refuse("expected a latent of at most " + std::to_string(mostRank) + " channels on a GPU but received " + std::to_string(rank_));
  if (valueDim_ > headDim_) refuse("expected values of at most the " + std::to_string(headDim_) + " channels of a key on a GPU but received " + std::to_string(valueDim_));
  const AcceleratorLatent& own = from.latent;
  query_ = lane.weightsOf(from.query, nullptr);
  down_ = lane.weightsOf(own.down, nullptr);
  up_ = lane.weightsOf(own.up, nullptr);
  norm_ = lane.listOf(own.norm, rank_);
  if (queryRank_ > 0) {
    queryDown_ = lane.weightsOf(own.queryDown, nullptr);
    queryNorm_ = lane.listOf(own.queryNorm, queryRank_);
  }
  std::vector<float> turned(static_cast<size_t>(heads_ * rank_ * nopeDim_));
  for (int64_t h = 0; h < heads_; h++)
    for (int64_t c = 0; c < nopeDim_; c++)
      for (int64_t r = 0; r < rank_; r++)
        turned[static_cast<size_t>((h * rank_ + r) * nopeDim_ + c)] = own.up.data[(h * (nopeDim_ + valueDim_) + c) * rank_ + r];
  toLatent_ = lane.weightsOf({turned.data(), heads_ * rank_, nopeDim_}, nullptr);
}

void LatentAttention::normalise(const DeviceBlock& from, const DeviceBlock& to, int64_t m, const std::shared_ptr<const DeviceBlock>& weight, int64_t width,
                                int64_t stride) const {
  NormProblem p;
  p.x = from.view<const uint8_t>();
  p.y = to.view<uint8_t>();
  p.fromType = p.toType = lane_->dtype;
  p.weight = weight->view<const float>();
  p.width = static_cast<int>(width), p.stride = static_cast<int>(stride);
  p.epsilon = normEpsilon_;
  runtime::check(gpu::normalise(p, m, lane_->stream), "starting the norm of a latent");
}

LatentAttention::Cached LatentAttention::cached(const DeviceBlock& x, int64_t m) const {
  Cached c;
  c.keys = lane_->product(x, m, down_);
  c.latents = block(m * width());
  normalise(c.keys, c.latents, m, norm_, rank_, width());
  return c;
}

DeviceBlock LatentAttention::queries(const DeviceBlock& x, int64_t m) const {
  if (queryRank_ == 0) return lane_->product(x, m, query_);
  const DeviceBlock low = lane_->product(x, m, queryDown_);
  normalise(low, low, m, queryNorm_, queryRank_, queryDown_.n);
  return lane_->product(low, m, query_);
}

/// Of all heads; strides and channels are the caller's.
MoveProblem LatentAttention::between(const DeviceBlock& from, int64_t fromChannel, const DeviceBlock& to, int64_t toChannel, int64_t m) const {
  MoveProblem p;
  p.from = read(from, lane_->bytes(fromChannel));
  p.to = written(to, lane_->bytes(toChannel));
  p.type = lane_->dtype;
  p.rows = m, p.heads = static_cast<int>(heads_);
  return p;
}

namespace {

/// Rows of heads without gaps, `from` and `to` of so many channels each.
void setHeads(MoveProblem& p, int64_t from, int64_t to) {
  p.fromHead = from, p.fromRow = p.heads * from;
  p.toHead = to, p.toRow = p.heads * to;
}

void setAngles(MoveProblem& p, const Angles& angles) {
  if (!angles.cosine) return;  // a model without rotary embedding
  p.pairs = p.channels / 2;
  p.interleaved = angles.interleaved;
  p.perSequence = angles.perSequence, p.firstPosition = angles.firstPosition;
  p.cosine = angles.cosine, p.sine = angles.sine;
}

}  // namespace

DeviceBlock LatentAttention::absorbed(const DeviceBlock& queries, int64_t m, const Angles& angles) const {
  DeviceBlock out = block(m * heads_ * width());
  ProductProblem p;
  p.m = static_cast<int>(m), p.n = static_cast<int>(rank_), p.k = static_cast<int>(nopeDim_);
  p.type = p.outType = lane_->dtype;
  p.x = queries.view<const uint8_t>(), p.w = toLatent_.data->view<const uint8_t>(), p.y = out.view<uint8_t>();
  p.heads = static_cast<int>(heads_);
  p.xHead = headDim_, p.xStride = static_cast<int>(heads_ * headDim_);
  p.wHead = rank_ * nopeDim_;
  p.yHead = width(), p.yStride = static_cast<int>(heads_ * width());
  runtime::check(multiplyMatrices(p, lane_->limits, lane_->stream), "starting to absorb a projection");
  MoveProblem rotary = between(queries, nopeDim_, out, rank_, m);
  setHeads(rotary, headDim_, width());
  rotary.channels = rotary.width = static_cast<int>(ropeDim_);
  setAngles(rotary, angles);
  runtime::check(move(rotary, lane_->stream), "starting the rotary embedding");
  return out;
}

DeviceBlock LatentAttention::valuesOfMixtures(const DeviceBlock& mixed, int64_t m) const {
  DeviceBlock out = block(m * heads_ * valueDim_);
  ProductProblem p;
  p.m = static_cast<int>(m), p.n = static_cast<int>(valueDim_), p.k = static_cast<int>(rank_);
  p.type = p.outType = lane_->dtype;
  p.x = mixed.view<const uint8_t>(), p.w = read(*up_.data, lane_->bytes(nopeDim_ * rank_)), p.y = out.view<uint8_t>();
  p.heads = static_cast<int>(heads_);
  p.xHead = rank_, p.xStride = static_cast<int>(heads_ * rank_);
  p.wHead = (nopeDim_ + valueDim_) * rank_;
  p.yHead = valueDim_, p.yStride = static_cast<int>(heads_ * valueDim_);
  runtime::check(multiplyMatrices(p, lane_->limits, lane_->stream), "starting to make values of latents");
  return out;
}

void LatentAttention::rotate(const DeviceBlock& queries, int64_t m, const Angles& angles) const {
  MoveProblem p = between(queries, nopeDim_, queries, nopeDim_, m);
  setHeads(p, headDim_, headDim_);
  p.channels = p.width = static_cast<int>(ropeDim_);
  setAngles(p, angles);
  if (p.pairs > 0) runtime::check(move(p, lane_->stream), "starting the rotary embedding");
}

void LatentAttention::expand(const Cached& cached, int64_t m, const Angles& angles, DeviceBlock& keys, DeviceBlock& values) const {
  const int64_t each = nopeDim_ + valueDim_;
  const DeviceBlock both = lane_->product(cached.latents, m, up_, width());
  keys = block(m * heads_ * headDim_), values = block(m * heads_ * headDim_);
  const auto take = [&](int64_t first, int64_t channels, const DeviceBlock& to, int64_t filled) {
    MoveProblem p = between(both, first, to, 0, m);
    setHeads(p, each, headDim_);
    p.channels = static_cast<int>(channels), p.width = static_cast<int>(filled);
    runtime::check(move(p, lane_->stream), "starting to put keys and values together");
  };
  take(0, nopeDim_, keys, nopeDim_);
  take(nopeDim_, valueDim_, values, headDim_);
  MoveProblem shared = between(cached.keys, rank_, keys, nopeDim_, m);
  setHeads(shared, 0, headDim_);
  shared.fromRow = width();
  shared.channels = shared.width = static_cast<int>(ropeDim_);
  setAngles(shared, angles);
  runtime::check(move(shared, lane_->stream), "starting the rotary embedding");
}

DeviceBlock LatentAttention::unfilled(const DeviceBlock& mixed, int64_t m) const {
  DeviceBlock out = block(m * heads_ * valueDim_);
  MoveProblem p = between(mixed, 0, out, 0, m);
  setHeads(p, headDim_, valueDim_);
  p.channels = p.width = static_cast<int>(valueDim_);
  runtime::check(move(p, lane_->stream), "starting to take values together");
  return out;
}

}  // namespace fastmqa::gpu
