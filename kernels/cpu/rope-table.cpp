#include "rope-table.h"

#include <algorithm>

#include "../simd/simd.h"

namespace fastmqa {

RopeTable::RopeTable(Arena& arena, int64_t positions, int64_t pairs, const float* cosine, const float* sine,
                     bool interleaved)
    : positions_(positions), pairs_(pairs), interleaved_(interleaved) {
  const int64_t pages = (positions + 63) / 64;
  cosine_ = Buffer<float>(arena, positions * pairs);
  sine_ = Buffer<float>(arena, positions * pairs);
  std::copy_n(cosine, positions * pairs, cosine_.data());
  std::copy_n(sine, positions * pairs, sine_.data());
  cosineTiles_ = Buffer<float>(arena, pages * pairs * 64);
  sineTiles_ = Buffer<float>(arena, pages * pairs * 64);
  for (int64_t p = 0; p < positions; p++)
    for (int64_t j = 0; j < pairs; j++) {
      const int64_t at = (p / 64 * pairs + j) * 64 + p % 64;
      cosineTiles_[at] = cosine_[p * pairs + j];
      sineTiles_[at] = sine_[p * pairs + j];
    }
}

void RopeTable::rotate(float* x, int64_t position) const {
  const float* c = cosine_.data() + position * pairs_;
  const float* s = sine_.data() + position * pairs_;
  for (int64_t j = 0; j < pairs_; j++) {
    const float a = x[first(j)], b = x[second(j)];
    x[first(j)] = a * c[j] - b * s[j];
    x[second(j)] = a * s[j] + b * c[j];
  }
}

void RopeTable::rotateTile(float* tile, int64_t stride, int64_t token, int64_t tokens) const {
  for (int64_t j = 0; j < pairs_; j++) {
    const int64_t at = (token / 64 * pairs_ + j) * 64 + token % 64;
    simd().rotateRows(tile + first(j) * stride, tile + second(j) * stride, tokens, cosineTiles_.data() + at,
                      sineTiles_.data() + at);
  }
}

}  // namespace fastmqa
