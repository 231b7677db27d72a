// The running softmax of rows whose scores come tile by tile and lie as products leave them: number i of a lane is of row
// lane / 4 + i % 4 / 2 * 8, and four lanes share a row.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

constexpr float softmaxTolerance = 8;

/// Scores of a tile become weights 2^(score * scale - shift), scale > 0. A row's shift is its largest logit when it was last
/// moved, and that is only when a larger one exceeds it by more than `softmaxTolerance`: sums are rarely rescaled (conditional
/// rescaling, FlashAttention-4, Zadouri et al. 2026). Weights are therefore at most 2^8, and a row's largest is at least 1. f16 and
/// bf16 hold those with the relative error that they have up to 1, and of small ones f16 loses no more than where the shift is the
/// largest logit; an f32 sum has room for 2^119 of them. The result's error grows a little all the same, on random bf16 from 0.0021
/// to about 0.0024 (relative L2): shifted by the largest logit, the row's largest weight would be 1, which is exact.
/// `scoreAt(i)`: a reference to number i of `count`; minus infinity where unseen. `top`: the rows' shifts, minus infinity while
/// nothing is seen: weights are 0 then. `total`: sums of this lane's weights. `fade`: what sums so far must be multiplied by.
/// Returns whether any row of the warp must.
template <int count, class Scores>
FASTMQA_DEVICE bool weighScores(const Scores& scoreAt, float scale, float (&top)[2], float (&total)[2], float (&fade)[2]) {
  float most[2];
  FASTMQA_UNROLL
  for (int half = 0; half < 2; half++) {
    fade[half] = 1;
    most[half] = scoreAt(2 * half);
    FASTMQA_UNROLL
    for (int j = 1; j < count / 2; j++) most[half] = fmaxf(most[half], scoreAt(j / 2 * 4 + 2 * half + j % 2));
    most[half] *= scale;
  }
  const bool grown = anyLane(most[0] > top[0] + softmaxTolerance || most[1] > top[1] + softmaxTolerance);
  if (grown) {  // rare once a large score has been met
    FASTMQA_UNROLL
    for (int half = 0; half < 2; half++) {
      most[half] = fmaxf(most[half], shuffleXor(most[half], 1));
      most[half] = fmaxf(most[half], shuffleXor(most[half], 2));
      if (most[half] > top[half] + softmaxTolerance) {
        fade[half] = exp2Fast(top[half] - most[half]);
        top[half] = most[half];
        total[half] *= fade[half];
      }
    }
  }
  FASTMQA_UNROLL
  for (int half = 0; half < 2; half++) {
    const float shift = top[half] == minusInfinity ? 0 : top[half];
    FASTMQA_UNROLL
    for (int j = 0; j < count / 2; j++) {
      float& x = scoreAt(j / 2 * 4 + 2 * half + j % 2);
      x = exp2Fast(x * scale - shift);
      total[half] += x;
    }
  }
  return grown;
}

}  // namespace fastmqa::gpu
