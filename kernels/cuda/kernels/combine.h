// Merging parts of the keys that were attended separately (attention-spec B.8): sinks, body, exact tail, shares of them.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

/// Merges the slots: one block a query row, one thread for every few channels.
constexpr int combineThreads = 128;

FASTMQA_KERNEL(combineThreads, 1) combineKernel(const AttentionProblem p) {
  const int64_t row = blockIndex().x, rowCount = static_cast<int64_t>(p.batch) * p.queryTokens * p.heads;
  const int head = static_cast<int>(row % p.heads), token = static_cast<int>(row / p.heads % p.queryTokens), b = static_cast<int>(row / p.heads / p.queryTokens);
  releaseFollower();
  SharedCarver carver;
  const auto logs = carver.take<float>(p.slots);
  awaitPredecessor();
  for (int s = threadIndex(); s < p.slots; s += combineThreads) logs.store(s, p.partialLogs[s * rowCount + row]);
  blockBarrier();
  float most = minusInfinity, weight = 0;
  for (int s = 0; s < p.slots; s++) most = fmaxf(most, logs.load(s));
  if (most != minusInfinity)
    for (int s = 0; s < p.slots; s++) weight += exp2Fast(logs.load(s) - most);
  for (int channel = threadIndex(); channel < p.valueDim; channel += combineThreads) {
    float sum = 0;
    if (weight > 0)  // all loads at once: an empty part left zeros
      FASTMQA_UNROLL_BY(8)
      for (int s = 0; s < p.slots; s++) sum += exp2Fast(logs.load(s) - most) * p.partialSums[(s * rowCount + row) * p.valueDim + channel];
    storeNumber(p.outType, p.out, b * p.outBatch + token * p.outToken + head * p.outHead + channel, weight > 0 ? sum / weight : 0);
  }
  if (p.logSums && threadIndex() == 0) p.logSums[row] = weight > 0 ? (most + log2f(weight)) * naturalLogOf2 : minusInfinity;
}

}  // namespace fastmqa::gpu
