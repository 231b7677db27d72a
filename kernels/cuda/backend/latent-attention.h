// The projections of a layer with multi-head latent attention on a device (attention-spec B.3): to what it caches, from queries
// to coordinates of the latent ("absorbed") and back to its output, and to keys and values of every head. The twin of
// layer/latent-attention.h.
#pragma once
#include "../launch/cache.h"
#include "lane.h"

namespace fastmqa::gpu {

/// Where rows stand, for the rotary embedding: row r at firstPosition + r % perSequence.
struct Angles {
  Global<const float> cosine, sine;  ///< [positions][ropeDim / 2]
  bool interleaved = false;
  int64_t perSequence = 1, firstPosition = 0;
};

/// Copies share the memory.
class LatentAttention {
 public:
  LatentAttention() = default;  ///< none
  /// @throws Failure refused for sizes that the kernels do not take
  LatentAttention(Lane& lane, const AcceleratorLayer& from);

  explicit operator bool() const { return rank_ > 0; }
  int64_t rank() const { return rank_; }
  int64_t ropeDim() const { return ropeDim_; }
  /// Of a row of latent and rotated key.
  int64_t width() const { return rank_ + ropeDim_; }

  /// Rows [m][width]: `latents` has the latent after its norm, `keys` the key, not rotated, from channel `rank` on.
  struct Cached {
    DeviceBlock keys, latents;
  };
  Cached cached(const DeviceBlock& x, int64_t m) const;
  /// [m][heads][headDim], not rotated.
  DeviceBlock queries(const DeviceBlock& x, int64_t m) const;
  /// Queries as the cache meets them, [m][heads][width], rotated.
  DeviceBlock absorbed(const DeviceBlock& queries, int64_t m, const Angles& angles) const;
  /// Values [m][heads][valueDim] out of mixtures of latents [m][heads][rank].
  DeviceBlock valuesOfMixtures(const DeviceBlock& mixed, int64_t m) const;

  // Heads of headDim channels, values filled up with zeros, as the kernels for whole prompts take them.
  void rotate(const DeviceBlock& queries, int64_t m, const Angles& angles) const;
  /// Keys and values [m][heads][headDim] of what is cached.
  void expand(const Cached& cached, int64_t m, const Angles& angles, DeviceBlock& keys, DeviceBlock& values) const;
  /// [m][heads][valueDim] of [m][heads][headDim].
  DeviceBlock unfilled(const DeviceBlock& mixed, int64_t m) const;

 private:
  DeviceBlock block(int64_t numbers) const { return DeviceBlock(lane_->pool, lane_->bytes(numbers)); }
  void normalise(const DeviceBlock& from, const DeviceBlock& to, int64_t m, const std::shared_ptr<const DeviceBlock>& weight, int64_t width, int64_t stride) const;
  MoveProblem between(const DeviceBlock& from, int64_t fromChannel, const DeviceBlock& to, int64_t toChannel, int64_t m) const;

  Lane* lane_ = nullptr;
  int64_t heads_ = 0, headDim_ = 0, rank_ = 0, ropeDim_ = 0, nopeDim_ = 0, valueDim_ = 0, queryRank_ = 0;
  float normEpsilon_ = 0;
  Weights queryDown_, query_, down_, up_;
  Weights toLatent_;  ///< [heads][rank][nopeDim], the keys' part of `up`, turned
  std::shared_ptr<const DeviceBlock> queryNorm_, norm_;
};

}  // namespace fastmqa::gpu
