// Attention of many query rows on compute capability 9.0. Rows are query tokens of one head or, packed, (token, head) pairs
// of one KV head. A block stays on its multiprocessor and takes tiles of rows as it gets done. One thread feeds it: it has the
// copy engine fetch queries, and keys and values into rings of shared memory, also those of the next tile while the last one
// is being finished. Warpgroups of 64 rows each multiply: while a warpgroup takes the softmax of one tile of keys, the matrix
// unit has the next tile's scores and the last one's values to work on, and another warpgroup's. (FlashAttention-3's schedule,
// Shah et al. 2024.) Sums are rescaled only where weighScores says so: 4 to 10 % off the time.
#pragma once
#include "../primitives/hopper.h"
#include "softmax.h"

namespace fastmqa::gpu::hopper {

template <class Type_, int D_, int warpgroups_, int tokens_>
struct PrefillShape {
  using Type = Type_;
  static constexpr int D = D_, warpgroups = warpgroups_, tokens = tokens_, rows = 64 * warpgroups;
  static constexpr bool turns = warpgroups > 1;  ///< warpgroups take turns at the matrix unit
  static constexpr int threads = (warpgroups + 1) * warpgroupThreads, blocks = warpgroups == 1 ? 2 : 1;
  static constexpr int boxTokens = pageTokens;  ///< of one copy: none crosses a page
  static constexpr int lines = D / lineHalves;  ///< 128-byte pieces of a row
  static constexpr int queryBytes = rows * D * 2, tileBytes = tokens * D * 2;
  /// Tiles of keys, and of values, under way: what the shared memory of `blocks` has room for.
  static constexpr int room = ((220 << 10) / blocks - queryBytes) / (2 * tileBytes);
  static constexpr int stages = room > 4 ? 4 : room < 2 ? 2 : room;
  static constexpr int sharedBytes = 1024 + queryBytes + 2 * stages * tileBytes;
  static constexpr int feederRegisters = warpgroups == 3 ? 32 : 40, registers = warpgroups == 1 ? 216 : warpgroups == 2 ? 232 : 160;
  static_assert(D % lineHalves == 0 && tokens % boxTokens == 0);
};

struct PrefillProblem {
  AttentionProblem p;
  CUtensorMap queries, keys, values;
  int perToken = 1;  ///< rows of a query token: 1, or the query heads of a KV head
  int rowBlocks = 1, units = 1, unitsTogether = 1, work = 1;  ///< a unit: one head (or KV head) of one sequence
  int counter = 0;  ///< which of `workCounters`
};

/// The next work of a launch, and how many of its blocks are done. Launches take turns at them; the last block of one
/// leaves zeros.
constexpr int workCounterCount = 256;
static __device__ int workCounters[workCounterCount][2];

/// Work of a block, as its feeder describes it to the warpgroups.
template <class Shape>
struct alignas(16) PrefillWork {
  int exists;
  int firstRow, rowsHere, firstHead, g, b, slot, length, position;
  int sinkTiles, windowTile, allSeeFrom, allSeeTo;  ///< as of VisibleTiles
  int end, count;                                   ///< tiles [end - count, end) of the visible ones, last first
  int unused;

  FASTMQA_DEVICE int firstToken(int i) const {
    const int tile = end - 1 - i;
    return (tile < sinkTiles ? tile : windowTile + tile - sinkTiles) * Shape::tokens;
  }
  FASTMQA_DEVICE bool needsMask(int firstToken) const { return firstToken < allSeeFrom || firstToken + Shape::tokens > allSeeTo; }
};

/// Work number `index` in the order in which blocks take it: the longest rows of some units first, so that nothing long
/// starts last; then the next units, so that the keys and values in use fit the L2 cache.
template <class Shape>
FASTMQA_DEVICE PrefillWork<Shape> prefillWork(const PrefillProblem& all, int index) {
  const AttentionProblem& p = all.p;
  PrefillWork<Shape> work{};
  work.exists = index < all.work;
  if (!work.exists) return work;
  const int split = index % p.splits;
  index /= p.splits;
  const int perSection = all.unitsTogether * all.rowBlocks, section = index / perSection, inSection = index % perSection;
  const int firstUnit = section * all.unitsTogether, left = all.units - firstUnit;
  const int units = left < all.unitsTogether ? left : all.unitsTogether;
  const int unit = firstUnit + inSection % units, unitsEach = p.heads / all.perToken, allRows = p.queryTokens * all.perToken;
  // Blocks are full but for the first, which sees the fewest keys where attention is causal.
  const int firstRow = allRows - (inSection / units + 1) * Shape::rows;
  work.firstRow = firstRow < 0 ? 0 : firstRow;
  work.rowsHere = firstRow < 0 ? firstRow + Shape::rows : Shape::rows;
  work.firstHead = unit % unitsEach * all.perToken;
  work.b = unit / unitsEach;
  work.g = work.firstHead / p.groupSize();
  work.slot = p.firstSlot + split;
  work.length = p.tokensOf(work.b);
  work.position = p.positionOf(work.b);
  const VisibleTiles tiles(p, work.length, work.position + work.firstRow / all.perToken,
                           work.position + (work.firstRow + work.rowsHere - 1) / all.perToken, Shape::tokens);
  work.sinkTiles = tiles.sinkTiles, work.windowTile = tiles.windowTile, work.allSeeFrom = tiles.allSeeFrom, work.allSeeTo = tiles.allSeeTo;
  const TileRange share = tiles.shareOf(split, p.splits);
  work.end = share.end, work.count = share.countOf(0, 1);
  return work;
}

/// Places of barriers in shared memory, 8 bytes each.
template <int stages>
struct PrefillBarriers {
  uint32_t base;
  FASTMQA_DEVICE uint32_t queriesFull() const { return base; }
  FASTMQA_DEVICE uint32_t queriesEmpty() const { return base + 8; }
  FASTMQA_DEVICE uint32_t keysFull(int i) const { return base + 16 + 8 * i; }
  FASTMQA_DEVICE uint32_t keysEmpty(int i) const { return base + 16 + 8 * (stages + i); }
  FASTMQA_DEVICE uint32_t valuesFull(int i) const { return base + 16 + 8 * (2 * stages + i); }
  FASTMQA_DEVICE uint32_t valuesEmpty(int i) const { return base + 16 + 8 * (3 * stages + i); }
  FASTMQA_DEVICE uint32_t workFull(int i) const { return base + 16 + 8 * (4 * stages + i); }
  FASTMQA_DEVICE uint32_t workEmpty(int i) const { return base + 16 + 8 * (5 * stages + i); }
};

template <class Shape>
FASTMQA_DEVICE void feedPrefill(const PrefillProblem& all, uint32_t memory, PrefillBarriers<Shape::stages> barriers, PrefillWork<Shape>* works) {
  constexpr int stages = Shape::stages, tokens = Shape::tokens;
  const AttentionProblem& p = all.p;
  releaseFollower();
  prefetchMap(all.queries), prefetchMap(all.keys), prefetchMap(all.values);
  RingPlace<stages> keyPlace, valuePlace, workPlace;
  RingPlace<1> queryPlace;
  int* const counter = workCounters[all.counter];
  for (int index = blockIndex().x, next;; index = next) {
    const PrefillWork<Shape> work = prefillWork<Shape>(all, index);
    waitPhase(barriers.workEmpty(workPlace.index), workPlace.parity ^ 1);
    works[workPlace.index] = work;
    arrive(barriers.workFull(workPlace.index));
    workPlace.advance();
    if (!work.exists) break;
    next = gridSize().x + atomicAdd(counter, 1);
    const auto copyTile = [&](const CUtensorMap& map, const TokenRows& rows, int i, uint32_t to, uint32_t full, uint32_t empty, int parity) {
      waitPhase(empty, parity ^ 1);
      arriveExpecting(full, Shape::tileBytes);
      const int first = work.firstToken(i);
      for (int t = 0; t < tokens; t += Shape::boxTokens) {
        const bool paged = rows.pagesPerSequence > 0;
        const int token = first + t, inside = token < work.length ? token : 0;  // of rows past the end, nothing is used
        const int inBatch = paged ? inside % pageTokens : token, batch = paged ? static_cast<int>(rows.page(work.b, inside)) : work.b;
        FASTMQA_UNROLL
        for (int line = 0; line < Shape::lines; line++)
          copyBox(to + (line * tokens + t) * lineBytes, map, line * lineHalves, inBatch, work.g, batch, full);
      }
    };
    const auto copyKeys = [&](int i) {
      copyTile(all.keys, p.keys, i, memory + Shape::queryBytes + keyPlace.index * Shape::tileBytes, barriers.keysFull(keyPlace.index),
               barriers.keysEmpty(keyPlace.index), keyPlace.parity);
      keyPlace.advance();
    };
    const auto copyValues = [&](int i) {
      copyTile(all.values, p.values, i, memory + Shape::queryBytes + (stages + valuePlace.index) * Shape::tileBytes,
               barriers.valuesFull(valuePlace.index), barriers.valuesEmpty(valuePlace.index), valuePlace.parity);
      valuePlace.advance();
    };
    for (int i = 0; i <= work.count; i++) {  // values one tile behind keys, as they are used
      if (i < work.count) copyKeys(i);
      if (i == 0 && work.count > 0) {
        waitPhase(barriers.queriesEmpty(), queryPlace.parity ^ 1);
        queryPlace.advance();
        arriveExpecting(barriers.queriesFull(), Shape::queryBytes);
        FASTMQA_UNROLL
        for (int line = 0; line < Shape::lines; line++)
          copyBox(memory + line * Shape::rows * lineBytes, all.queries, line * lineHalves, work.firstHead, work.firstRow / all.perToken, work.b, barriers.queriesFull());
      }
      if (i > 0) copyValues(i - 1);
    }
  }
  if (atomicAdd(counter + 1, 1) == gridSize().x - 1) counter[0] = counter[1] = 0;
}

template <class Shape>
FASTMQA_DEVICE void multiplyPrefill(const PrefillProblem& all, uint32_t memory, PrefillBarriers<Shape::stages> barriers, const PrefillWork<Shape>* works, int warpgroup) {
  using Type = typename Shape::Type;
  constexpr int D = Shape::D, tokens = Shape::tokens, stages = Shape::stages, stepsInLine = lineBytes / 32;
  constexpr int turnBarrier = 1, ownBarrier = 1 + Shape::warpgroups;
  const AttentionProblem& p = all.p;
  const int lane = laneIndex(), q = lane / 4, t = lane % 4;
  const int warpRow = 64 * warpgroup + warpIndex() % 4 * 16;
  const float scale = p.scale * log2OfE;
  const uint64_t queryOperand = operandAt(memory + warpgroup * 64 * lineBytes);
  const uint64_t keyOperand = operandAt(memory + Shape::queryBytes);
  const uint64_t valueOperand = operandAt(memory + Shape::queryBytes + stages * Shape::tileBytes, tokens * lineBytes);
  RingPlace<stages> keyPlace, valuePlace, workPlace;
  RingPlace<1> queryPlace;
  if (Shape::turns && warpgroup == Shape::warpgroups - 1) signalBarrier(turnBarrier, 2 * warpgroupThreads);

  for (;;) {
    waitPhase(barriers.workFull(workPlace.index), workPlace.parity);
    const PrefillWork<Shape>& work = works[workPlace.index];  // it stays in shared memory: registers are for products
    const int count = sameInWarp(work.count);
    if (!sameInWarp(work.exists)) break;
    const int rowInBlock = warpRow + q;
    float top[2] = {minusInfinity, minusInfinity}, total[2] = {0, 0}, fade[2];
    float sums[D / 2], scores[tokens / 2];
    uint32_t weights[tokens / 4];
    FASTMQA_UNROLL
    for (int i = 0; i < D / 2; i++) sums[i] = 0;

    const auto multiplyKeys = [&] {
      FASTMQA_UNROLL
      for (int s = 0; s < D / 16; s++)
        Product<Type, tokens>::shared(scores, queryOperand + (s / stepsInLine * Shape::rows * lineBytes + s % stepsInLine * 32 >> 4),
                                      keyOperand + static_cast<uint64_t>(keyPlace.index * (Shape::tileBytes >> 4) + (s / stepsInLine * tokens * lineBytes + s % stepsInLine * 32 >> 4)), s == 0);
      commitProducts();
    };
    const auto multiplyValues = [&] {
      FASTMQA_UNROLL
      for (int s = 0; s < tokens / 16; s++)
        Product<Type, D>::registers(sums, weights[4 * s], weights[4 * s + 1], weights[4 * s + 2], weights[4 * s + 3],
                                    valueOperand + static_cast<uint64_t>(valuePlace.index * (Shape::tileBytes >> 4) + (s * 16 * lineBytes >> 4)));
      commitProducts();
    };
    const auto release = [&](uint32_t barrier) {
      if (electedLane()) arrive(barrier);
    };
    /// Scores of tile i become weights; returns whether sums so far must be multiplied by `fade`.
    const auto soften = [&](int i) {
      const int token = work.firstToken(i);
      if (work.needsMask(token)) {
        const int row = work.firstRow + rowInBlock;
        const RowMask masks[2] = {RowMask(p, work.length, work.position + row / all.perToken), RowMask(p, work.length, work.position + (row + 8) / all.perToken)};
        FASTMQA_UNROLL
        for (int j = 0; j < tokens / 2; j++) scores[j] = masks[j % 4 / 2].sees(token + j / 4 * 8 + 2 * t + j % 2) ? scores[j] : minusInfinity;
      }
      return weighScores<tokens / 2>([&](int j) -> float& { return scores[j]; }, scale, top, total, fade);
    };
    const auto pack = [&] {
      FASTMQA_UNROLL
      for (int j = 0; j < tokens / 4; j++) weights[j] = packWeights(Type(), scores[2 * j], scores[2 * j + 1]);
    };

    if (count > 0) {
      waitPhase(barriers.queriesFull(), queryPlace.parity);
      queryPlace.advance();
      waitPhase(barriers.keysFull(keyPlace.index), keyPlace.parity);
      beginProducts();
      multiplyKeys();
      waitProducts<0>();
      settled(scores);
      release(barriers.keysEmpty(keyPlace.index));
      keyPlace.advance();
      soften(0);
      pack();
      const int lastToken = work.firstToken(0);
      if (lastToken + tokens > work.length) {  // what lies past the end may be anything, and nothing times NaN is NaN
        waitPhase(barriers.valuesFull(valuePlace.index), valuePlace.parity);
        const uint32_t tile = memory + Shape::queryBytes + (stages + valuePlace.index) * Shape::tileBytes;
        const int first = work.length - lastToken, chunks = (tokens - first) * (lineBytes / 16);
        for (int line = 0; line < Shape::lines; line++)
          for (int i = threadIndex() % warpgroupThreads; i < chunks; i += warpgroupThreads)
            asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(tile + (line * tokens + first) * lineBytes + i * 16), "r"(0) : "memory");
        fenceForMatrices();
        joinBarrier(ownBarrier + warpgroup, warpgroupThreads);
      }
      for (int i = 1; i < count; i++) {
        waitPhase(barriers.keysFull(keyPlace.index), keyPlace.parity);
        if (Shape::turns) joinBarrier(turnBarrier + warpgroup, 2 * warpgroupThreads);
        settled(weights);
        settled(sums);
        beginProducts();
        multiplyKeys();
        waitPhase(barriers.valuesFull(valuePlace.index), valuePlace.parity);
        multiplyValues();
        if (Shape::turns) signalBarrier(turnBarrier + (warpgroup + 1) % Shape::warpgroups, 2 * warpgroupThreads);
        waitProducts<1>();
        settled(scores);
        release(barriers.keysEmpty(keyPlace.index));
        keyPlace.advance();
        const bool rescale = soften(i);
        if (anyLane(total[0] + total[1] < 0)) warpBarrier();  // never; without a branch the assembler would wait before the softmax
        waitProducts<0>();
        settled(sums);
        settled(weights);
        release(barriers.valuesEmpty(valuePlace.index));
        valuePlace.advance();
        if (rescale) {
          FASTMQA_UNROLL
          for (int j = 0; j < D / 2; j++) sums[j] *= fade[j % 4 / 2];
        }
        pack();
      }
      release(barriers.queriesEmpty());
      waitPhase(barriers.valuesFull(valuePlace.index), valuePlace.parity);
      settled(weights);
      settled(sums);
      beginProducts();
      multiplyValues();
      waitProducts<0>();
      settled(sums);
      release(barriers.valuesEmpty(valuePlace.index));
      valuePlace.advance();
    }

    const bool direct = p.slots == 1 && p.outType != Dtype::f32 && p.alignedOut;
    const auto store = [&](const int half) {
      float sum = total[half];
      sum += shuffleXor(sum, 1);
      sum += shuffleXor(sum, 2);
      const float inverse = sum > 0 ? 1 / sum : 0;
      const int r = work.firstRow + rowInBlock + 8 * half;
      const bool here = r < work.firstRow + work.rowsHere;
      const int token = r / all.perToken, head = work.firstHead + r % all.perToken;
      const auto at = [&](int f, int c) { return sums[4 * f + 2 * half + c] * inverse; };
      // Four lanes exchange fragments, so that each has eight channels side by side. Two loops: what one way of storing needs
      // must not lie between the instructions of the other.
      if (direct) {
        FASTMQA_UNROLL
        for (int f = 0; f < D / 8; f += 4) {
          uint32_t four[4];
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) four[j] = p.outType == Dtype::f16 ? packHalves(F16(), at(f + j, 0), at(f + j, 1)) : packHalves(Bf16(), at(f + j, 0), at(f + j, 1));
          transposeQuad(four);
          if (here) p.out.store((work.b * p.outBatch + token * p.outToken + head * p.outHead + 8 * (f + t)) * 2, Word4{four[0], four[1], four[2], four[3]});
        }
      } else {
        FASTMQA_UNROLL
        for (int f = 0; f < D / 8; f += 4) {
          uint32_t even[4], odd[4];
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) even[j] = bitsOfFloat(at(f + j, 0)), odd[j] = bitsOfFloat(at(f + j, 1));
          transposeQuad(even);
          transposeQuad(odd);
          if (here) storeEightResults(p, work.slot, work.b, token, head, 8 * (f + t), {even[0], odd[0], even[1], odd[1]}, {even[2], odd[2], even[3], odd[3]});
        }
      }
      if (t == 0 && here) storeLogSum(p, work.slot, work.b, token, head, log2OfSum(top[half], sum));
    };
    store(0);
    store(1);
    warpBarrier();
    if (electedLane()) arrive(barriers.workEmpty(workPlace.index));
    workPlace.advance();
  }
  if (Shape::turns && warpgroup == 0) joinBarrier(turnBarrier, 2 * warpgroupThreads);  // the last turn passed on
}

template <class Shape>
static __global__ void __launch_bounds__(Shape::threads, Shape::blocks) prefillKernel(const __grid_constant__ PrefillProblem all) {
  constexpr int stages = Shape::stages;
  extern __shared__ __align__(1024) unsigned char hopperMemory[];
  __shared__ uint64_t barrierWords[2 + 6 * stages];
  __shared__ PrefillWork<Shape> works[stages];
  const uint32_t memory = (sharedAddress(hopperMemory) + 1023) & ~1023u;
  const PrefillBarriers<stages> barriers{sharedAddress(barrierWords)};
  if (threadIndex() == 0) {
    constexpr int warps = 4 * Shape::warpgroups;
    initBarrier(barriers.queriesFull(), 1);
    initBarrier(barriers.queriesEmpty(), warps);
    for (int i = 0; i < stages; i++) {
      initBarrier(barriers.keysFull(i), 1), initBarrier(barriers.keysEmpty(i), warps);
      initBarrier(barriers.valuesFull(i), 1), initBarrier(barriers.valuesEmpty(i), warps);
      initBarrier(barriers.workFull(i), 1), initBarrier(barriers.workEmpty(i), warps);
    }
    publishBarriers();
  }
  blockBarrier();
  const int warpgroup = threadIndex() / warpgroupThreads;
  if (warpgroup == 0) {
    giveRegisters<Shape::feederRegisters>();
    if (threadIndex() == 0) feedPrefill<Shape>(all, memory, barriers, works);
  } else {
    takeRegisters<Shape::registers>();
    multiplyPrefill<Shape>(all, memory, barriers, works, warpgroup - 1);
  }
}

}  // namespace fastmqa::gpu::hopper
