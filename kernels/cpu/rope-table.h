// Rotary angles of all positions, laid out as the kernels read them.
#pragma once
#include <vector>

#include "fastmqa/memory.h"

namespace fastmqa {

/// cos/sin for positions [0, positions), `pairs` rotary pairs. Rotates the first 2*pairs channels of a head:
/// pair (c, c + pairs), or (2c, 2c + 1) when interleaved.
class RopeTable {
 public:
  RopeTable() = default;
  /// Tables given as [positions][pairs].
  RopeTable(Arena& arena, int64_t positions, int64_t pairs, const float* cosine, const float* sine, bool interleaved);

  explicit operator bool() const { return pairs_ > 0; }
  int64_t pairs() const { return pairs_; }
  int64_t positions() const { return positions_; }
  /// [positions][pairs]
  const Buffer<float>& cosine() const { return cosine_; }
  const Buffer<float>& sine() const { return sine_; }
  /// Rotates x[headDim] of one head at one position in place.
  void rotate(float* x, int64_t position) const;
  /// Rotates a tile [channels][stride] of consecutive tokens that starts at `token` (no tile crosses a page of 64).
  void rotateTile(float* tile, int64_t stride, int64_t token, int64_t tokens) const;

 private:
  int64_t first(int64_t j) const { return interleaved_ ? 2 * j : j; }
  int64_t second(int64_t j) const { return interleaved_ ? 2 * j + 1 : j + pairs_; }
  int64_t positions_ = 0, pairs_ = 0;
  bool interleaved_ = false;
  Buffer<float> cosine_, sine_;            // [positions][pairs]
  Buffer<float> cosineTiles_, sineTiles_;  // [position / 64][pairs][64]
};

}  // namespace fastmqa
