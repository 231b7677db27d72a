// Rows of heads put together from parts: what latent attention (attention-spec B.3) has in two places stands side by side for
// the kernels that attend, and its rotary part is rotated on the way.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

struct MoveProblem {
  Global<const uint8_t> from;  ///< strides in elements; fromHead 0: all heads take the same
  Global<uint8_t> to;          ///< may be the same numbers as `from`, in the same places
  int64_t fromRow = 0, fromHead = 0, toRow = 0, toHead = 0;
  Dtype type = Dtype::f16;
  int64_t rows = 0;
  int heads = 1;
  int channels = 0, width = 0;  ///< moved of a head, and written: what is more becomes zeros
  int pairs = 0;                ///< rotated among the first 2 * pairs channels; 0: none
  bool interleaved = false;     ///< pairs of neighbours, else (c, c + pairs)
  int64_t perSequence = 1, firstPosition = 0;  ///< row r is at position firstPosition + r % perSequence
  Global<const float> cosine, sine;            ///< [positions][pairs]
};
constexpr int moveThreads = 128;

/// Two channels a thread: those that turn together, then neighbours.
FASTMQA_KERNEL(moveThreads, 1) moveKernel(const MoveProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int each = (p.width + 1) / 2;
  const int64_t unit = static_cast<int64_t>(blockIndex().x) * moveThreads + threadIndex();
  const int64_t row = unit / each / p.heads;
  if (row >= p.rows) return;
  const int pair = static_cast<int>(unit % each), head = static_cast<int>(unit / each % p.heads);
  const bool turns = pair < p.pairs;
  const int first = turns && !p.interleaved ? pair : 2 * pair, second = turns && !p.interleaved ? pair + p.pairs : 2 * pair + 1;
  const int64_t from = row * p.fromRow + head * p.fromHead, to = row * p.toRow + head * p.toHead;
  float x = first < p.channels ? loadNumber(p.type, p.from, from + first) : 0, y = second < p.channels ? loadNumber(p.type, p.from, from + second) : 0;
  if (turns) {
    const int64_t angle = (p.firstPosition + row % p.perSequence) * p.pairs + pair;
    const float cosine = p.cosine[angle], sine = p.sine[angle], before = x;
    x = before * cosine - y * sine;
    y = y * cosine + before * sine;
  }
  storeNumber(p.type, p.to, to + first, x);
  if (second < p.width) storeNumber(p.type, p.to, to + second, y);
}

}  // namespace fastmqa::gpu
