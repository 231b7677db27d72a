// Decoding from a latent cache with absorbed projections on compute capability 9.0; what latent.h does, with products of
// warpgroups. A block takes 64 rows (query heads) and a share of the tokens; the copy engine fetches tiles of 64 tokens
// into a ring, once for keys and values. One warpgroup keeps the queries in its registers, takes the scores and their
// softmax, and leaves the weights where the tile's channels without values were; two others multiply them with the values,
// each half of the columns, and have their part of the ring filled again. Scores run ahead, so that the matrix unit has
// values to work on during a softmax.
#pragma once
#include "../primitives/hopper.h"
#include "softmax.h"

namespace fastmqa::gpu::hopper {

template <class Type_, int rank_, int ropeDim_>
struct LatentShape {
  using Type = Type_;
  static constexpr int rank = rank_, D = rank_ + ropeDim_;
  static constexpr int rows = 64, tokens = pageTokens, threads = 3 * warpgroupThreads;
  static constexpr int lines = rank / lineHalves, ropeLines = ropeDim_ / lineHalves;  ///< 128-byte pieces of a row
  static constexpr int columns = rank / 2, halfLines = lines / 2;                     ///< of the values, for a warpgroup
  static constexpr int lineTile = tokens * lineBytes;                                 ///< one piece of a tile's rows
  /// A place of the ring: the pieces with values, then the one without, which the weights replace.
  static constexpr int stages = 3, valueBytes = lines * lineTile, halfBytes = valueBytes / 2, stageBytes = valueBytes + lineTile;
  /// Of the queries, `kept` steps of 16 channels fit in registers; the last one with values stays in shared memory, and so do
  /// those without values.
  static constexpr int steps = rank / 16, kept = steps - 1, stepBytes = 32;
  static constexpr int queryRopeAt = stages * stageBytes, queryStepAt = queryRopeAt + ropeLines * lineTile, fadesAt = queryStepAt + rows * stepBytes;
  static constexpr int barriersAt = fadesAt + stages * rows * 4, barrierCount = 2 + 6 * stages, workAt = barriersAt + 8 * barrierCount;
  static constexpr int sharedBytes = workAt + 64;
  /// Queries wait in the last place of the ring until they are in registers. Totals lie where the last step was.
  static constexpr int queriesAt = (stages - 1) * stageBytes, totalsAt = queryStepAt;
  static constexpr int scoreRegisters = 184, valueRegisters = 160;
  static_assert(rank % (2 * lineHalves) == 0 && rows == tokens && ropeLines <= 1);
};

struct LatentProblem {
  AttentionProblem p;
  CUtensorMap latents;
  float scale = 1;  ///< of scores in units of log2
};

/// Places of barriers in shared memory, 8 bytes each.
template <class Shape>
struct LatentBarriers {
  uint32_t base;
  FASTMQA_DEVICE uint32_t queriesTaken() const { return base; }
  FASTMQA_DEVICE uint32_t totals() const { return base + 8; }  ///< they are there, and all tiles are used up
  FASTMQA_DEVICE uint32_t full(int half, int i) const { return base + 16 + 8 * (half * Shape::stages + i); }
  FASTMQA_DEVICE uint32_t empty(int half, int i) const { return base + 16 + 8 * ((2 + half) * Shape::stages + i); }
  FASTMQA_DEVICE uint32_t weightsFull(int i) const { return base + 16 + 8 * (4 * Shape::stages + i); }
  FASTMQA_DEVICE uint32_t scored(int i) const { return base + 16 + 8 * (5 * Shape::stages + i); }
};

/// What a block works on: tiles [end - count, end) of the visible ones, last first. It lies in shared memory, where it costs
/// no registers.
struct LatentWork {
  int firstRow, rowsHere, b, slot, length, position;
  int sinkTiles, windowTile, allSeeFrom, allSeeTo;  ///< as of VisibleTiles
  int end, count;

  FASTMQA_DEVICE int firstToken(int i) const {
    const int tile = end - 1 - i;
    return (tile < sinkTiles ? tile : windowTile + tile - sinkTiles) * pageTokens;
  }
  FASTMQA_DEVICE bool needsMask(int firstToken) const { return firstToken < allSeeFrom || firstToken + pageTokens > allSeeTo; }
};

template <class Shape>
FASTMQA_DEVICE LatentWork latentWork(const AttentionProblem& p) {
  LatentWork work;
  work.firstRow = blockIndex().y * Shape::rows, work.b = blockIndex().z, work.slot = p.firstSlot + blockIndex().x;
  work.length = p.tokensOf(work.b), work.position = p.positionOf(work.b);
  const int allRows = p.heads * p.queryTokens;
  work.rowsHere = allRows - work.firstRow < Shape::rows ? allRows - work.firstRow : Shape::rows;
  const VisibleTiles tiles(p, work.length, work.position + work.firstRow / p.heads, work.position + (work.firstRow + work.rowsHere - 1) / p.heads, Shape::tokens);
  work.sinkTiles = tiles.sinkTiles, work.windowTile = tiles.windowTile, work.allSeeFrom = tiles.allSeeFrom, work.allSeeTo = tiles.allSeeTo;
  const TileRange share = tiles.shareOf(blockIndex().x, p.splits);
  work.end = share.end, work.count = share.countOf(0, 1);
  return work;
}

/// Has a half of tile i's values fetched, which is at `stage` of the ring, and with the first one what has no values.
/// Waits for the place to be free.
template <class Shape>
FASTMQA_DEVICE void fetchHalf(const LatentProblem& all, const LatentWork& work, uint32_t memory, int half, int i) {
  const LatentBarriers<Shape> barriers{memory + Shape::barriersAt};
  const TokenRows& rows = all.p.keys;
  const int token = work.firstToken(i), round = i / Shape::stages, stage = i % Shape::stages;
  const bool paged = rows.pagesPerSequence > 0;
  const int inBatch = paged ? token % pageTokens : token, batch = paged ? static_cast<int>(rows.page(work.b, token)) : work.b;
  const uint32_t full = barriers.full(half, stage), to = memory + stage * Shape::stageBytes;
  const bool hasRope = half == 0 && Shape::ropeLines > 0;
  if (i == Shape::stages - 1) waitPhase(barriers.queriesTaken(), 0);
  if (round > 0) waitPhase(barriers.empty(half, stage), (round - 1) & 1);
  arriveExpecting(full, Shape::halfBytes + (hasRope ? Shape::lineTile : 0));
  for (int line = half * Shape::halfLines; line < (half + 1) * Shape::halfLines; line++)
    copyBox(to + line * Shape::lineTile, all.latents, line * lineHalves, inBatch, 0, batch, full);
  if (hasRope) {
    if (round > 0) waitPhase(barriers.empty(1, stage), (round - 1) & 1);  // both halves have used the weights
    copyBox(to + Shape::valueBytes, all.latents, Shape::lines * lineHalves, inBatch, 0, batch, full);
  }
}

/// Where 16-byte piece `chunk` of row `row` lies in a piece of a tile.
FASTMQA_DEVICE uint32_t lineByte(int row, int chunk) { return static_cast<uint32_t>(row * lineBytes + (chunk ^ (row & 7)) * 16); }

/// And of one step of 16 channels by itself: blocks of 8 rows of 16 bytes, two for each 8 rows, as stepOperandAt has it.
FASTMQA_DEVICE uint32_t stepByte(int row, int chunk) { return static_cast<uint32_t>(row / 8 * 256 + chunk * 128 + row % 8 * 16); }

/// All warpgroups meet when the queries are there and when the totals are; the last two numbers are of one warpgroup each.
constexpr int latentQueriesBarrier = 1, latentGroupBarrier = 2;

template <class Shape>
FASTMQA_DEVICE void scoreLatent(const LatentProblem& all, const LatentWork& work, uint32_t memory) {
  using Type = typename Shape::Type;
  constexpr int stepBytes = Shape::stepBytes, stepsInLine = lineBytes / stepBytes, tokens = Shape::tokens, kept = Shape::kept;
  const AttentionProblem& p = all.p;
  const LatentBarriers<Shape> barriers{memory + Shape::barriersAt};
  const int count = sameInWarp(work.count);
  const int lane = laneIndex(), warpRow = warpIndex() % 4 * 16;

  waitCopies<0>();
  fenceForMatrices();
  joinBarrier(latentQueriesBarrier, Shape::threads);
  uint32_t queries[4 * kept];
  FASTMQA_UNROLL
  for (int s = 0; s < kept; s++)
    loadMatrices(queries[4 * s], queries[4 * s + 1], queries[4 * s + 2], queries[4 * s + 3],
                 memory + Shape::queriesAt + s / stepsInLine * Shape::lineTile + lineByte(warpRow + (lane & 15), s % stepsInLine * 2 + (lane >> 4)));
  fenceForMatrices();
  warpBarrier();
  if (electedLane()) arrive(barriers.queriesTaken());

  const uint64_t latentOperand = operandAt(memory), queryRopeOperand = operandAt(memory + Shape::queryRopeAt), queryStepOperand = stepOperandAt(memory + Shape::queryStepAt);
  RingPlace<Shape::stages> place;
  float top[2] = {minusInfinity, minusInfinity}, total[2] = {0, 0}, scores[tokens / 2];
  for (int i = 0; i < count; i++) {
    const uint64_t stageOperand = latentOperand + static_cast<uint64_t>(place.index * (Shape::stageBytes >> 4));
    waitPhase(barriers.full(0, place.index), place.parity);
    waitPhase(barriers.full(1, place.index), place.parity);
    beginProducts();
    FASTMQA_UNROLL
    for (int s = 0; s < kept; s++) {
      Product<Type, tokens>::registersAlong(scores, queries[4 * s], queries[4 * s + 1], queries[4 * s + 2], queries[4 * s + 3],
                                            stageOperand + (s / stepsInLine * Shape::lineTile + s % stepsInLine * stepBytes >> 4), s == 0);
      if (s == kept - 2) commitProducts();
    }
    Product<Type, tokens>::shared(scores, queryStepOperand, stageOperand + (kept / stepsInLine * Shape::lineTile + kept % stepsInLine * stepBytes >> 4), false);
    FASTMQA_UNROLL
    for (int s = 0; s < Shape::ropeLines * stepsInLine; s++)
      Product<Type, tokens>::shared(scores, queryRopeOperand + (s * stepBytes >> 4), stageOperand + (Shape::valueBytes + s * stepBytes >> 4), false);
    commitProducts();
    const int token = work.firstToken(i);
    const bool masked = work.needsMask(token);
    waitProducts<1>();
    if (electedLane()) arrive(barriers.scored(place.index));  // a little early: those who wait for it need time to begin
    waitProducts<0>();
    settled(scores);

    if (masked) {
      const int lane = keepInLoop(laneIndex()), t = lane % 4, row = work.firstRow + keepInLoop(threadIndex()) / 32 * 16 + lane / 4;
      const RowMask masks[2] = {RowMask(p, work.length, work.position + row / p.heads), RowMask(p, work.length, work.position + (row + 8) / p.heads)};
      FASTMQA_UNROLL
      for (int j = 0; j < tokens / 2; j++) scores[j] = masks[j % 4 / 2].sees(token + j / 4 * 8 + 2 * t + j % 2) ? scores[j] : minusInfinity;
      // What lies past the end may be anything, and nothing times NaN is NaN.
      const int first = work.length - token, missing = (tokens - first) * (lineBytes / 16);
      const uint32_t tile = memory + place.index * Shape::stageBytes;
      for (int line = 0; line < Shape::lines && first < tokens; line++)
        for (int j = threadIndex() % warpgroupThreads; j < missing; j += warpgroupThreads)
          asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(tile + line * Shape::lineTile + first * lineBytes + j * 16), "r"(0) : "memory");
    }
    float fade[2];
    weighScores<tokens / 2>([&](int j) -> float& { return scores[j]; }, all.scale, top, total, fade);

    if (Shape::ropeLines > 0) joinBarrier(latentGroupBarrier, warpgroupThreads);  // weights go where all warps have read
    // Addresses are computed anew, for want of registers.
    const int thread = keepInLoop(threadIndex()), storeRow = thread / 32 * 16 + (thread & 15);
    const uint32_t weights = memory + place.index * Shape::stageBytes + Shape::valueBytes + lineByte(storeRow, thread >> 4 & 1);
    FASTMQA_UNROLL
    for (int f = 0; f < tokens / 8; f += 2)
      storeMatrices(weights ^ static_cast<uint32_t>(f * 16), packWeights(Type(), scores[4 * f], scores[4 * f + 1]),
                    packWeights(Type(), scores[4 * f + 2], scores[4 * f + 3]), packWeights(Type(), scores[4 * f + 4], scores[4 * f + 5]),
                    packWeights(Type(), scores[4 * f + 6], scores[4 * f + 7]));
    const bool leavesFade = (thread & 3) < 2;
    if (leavesFade)
      asm volatile("st.shared.f32 [%0], %1;" ::"r"(memory + Shape::fadesAt + (place.index * Shape::rows + thread / 32 * 16 + thread % 32 / 4 + 8 * (thread & 3)) * 4),
                   "f"((thread & 3) == 0 ? fade[0] : fade[1])
                   : "memory");
    fenceForMatrices();
    warpBarrier();
    if (leavesFade) arrive(barriers.weightsFull(place.index));  // each lane for its own: what one did for all, racecheck could not follow
    place.advance();
  }

  joinBarrier(latentGroupBarrier, warpgroupThreads);  // totals go where queries were
  FASTMQA_UNROLL
  for (int half = 0; half < 2; half++) {
    float sum = total[half];
    sum += shuffleXor(sum, 1);
    sum += shuffleXor(sum, 2);
    const int here = warpRow + lane / 4 + 8 * half, r = work.firstRow + here;
    if (lane % 4 != 0) continue;
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(memory + Shape::totalsAt + here * 4), "f"(sum > 0 ? 1 / sum : 0.0f) : "memory");
    if (here < work.rowsHere) storeLogSum(p, work.slot, work.b, r / p.heads, r % p.heads, log2OfSum(top[half], sum));
  }
}

template <class Shape>
FASTMQA_DEVICE void sumLatent(const LatentProblem& all, const LatentWork& work, uint32_t memory, int half) {
  using Type = typename Shape::Type;
  constexpr int columns = Shape::columns, tokens = Shape::tokens, ahead = Shape::stages - 1;
  const AttentionProblem& p = all.p;
  const LatentBarriers<Shape> barriers{memory + Shape::barriersAt};
  const int count = sameInWarp(work.count);
  const int lane = laneIndex(), q = lane / 4, t = lane % 4, warpRow = warpIndex() % 4 * 16;
  const uint64_t weightOperand = operandAt(memory + Shape::valueBytes);
  const uint64_t valueOperand = operandAt(memory + half * Shape::halfBytes, Shape::lineTile);
  const bool fetches = threadIndex() % warpgroupThreads == 0;
  if (fetches)
    for (int i = 0; i < ahead && i < count; i++) fetchHalf<Shape>(all, work, memory, half, i);
  warpBarrier();
  waitCopies<0>();
  fenceForMatrices();
  signalBarrier(latentQueriesBarrier, Shape::threads);
  RingPlace<Shape::stages> place, next;
  next.advance();
  float sums[columns / 2];
  FASTMQA_UNROLL
  for (int j = 0; j < columns / 2; j++) sums[j] = 0;
  for (int i = 0; i < count; i++) {
    if (fetches && i + ahead < count) fetchHalf<Shape>(all, work, memory, half, i + ahead);  // to where the last tile was
    warpBarrier();
    const uint64_t stage = static_cast<uint64_t>(place.index * (Shape::stageBytes >> 4));
    waitPhase(barriers.full(half, place.index), place.parity);
    waitPhase(barriers.weightsFull(place.index), place.parity);
    waitPhase(barriers.scored(place.index), place.parity);  // over long since; but a phase that nobody waits for is one that synccheck misses
    const uint32_t fades = memory + Shape::fadesAt + (place.index * Shape::rows + warpRow + q) * 4;
    const float fade[2] = {loadFloat(fades), loadFloat(fades + 32)};
    if (anyLane(fade[0] != 1 || fade[1] != 1)) {  // rare once a large score has been met
      FASTMQA_UNROLL
      for (int j = 0; j < columns / 2; j++) sums[j] *= fade[j % 4 / 2];
    }
    // Scores of the next tile first, if it is there: then these products run beside its softmax, else the matrix unit would
    // have both to do now and nothing then.
    if (i + 1 < count && phaseEnded(barriers.full(half, next.index), next.parity)) waitPhase(barriers.scored(next.index), next.parity);
    settled(sums);
    beginProducts();
    FASTMQA_UNROLL
    for (int s = 0; s < tokens / 16; s++)
      Product<Type, columns>::sharedDown(sums, weightOperand + stage + (s * 32 >> 4), valueOperand + stage + (s * 16 * lineBytes >> 4));
    commitProducts();
    waitProducts<0>();
    settled(sums);
    if (electedLane()) arrive(barriers.empty(half, place.index));
    place.advance(), next.advance();
  }

  arrive(barriers.totals());
  waitPhase(barriers.totals(), 0);
  // Through the ring, so that whole rows are written.
  constexpr int rowBytes = columns * 4 + 32, runs = columns / 4;  // rows begin in other banks
  const uint32_t rows = memory + half * Shape::rows * rowBytes;
  FASTMQA_UNROLL
  for (int j = 0; j < columns / 2; j += 2)
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(rows + (warpRow + q + j % 4 / 2 * 8) * rowBytes + (j / 4 * 8 + 2 * t) * 4), "f"(sums[j]), "f"(sums[j + 1]) : "memory");
  if (half == 0)
    joinBarrier(latentGroupBarrier, warpgroupThreads);
  else
    joinBarrier(latentGroupBarrier + 1, warpgroupThreads);
  const bool isHalf = p.outType != Dtype::f32 && p.alignedOut;
  for (int i = threadIndex() % warpgroupThreads; i < work.rowsHere * runs; i += warpgroupThreads) {
    const int row = i / runs, channel = half * columns + i % runs * 4, r = work.firstRow + row, token = r / p.heads, head = r % p.heads;
    const float inverse = loadFloat(memory + Shape::totalsAt + row * 4);
    float x[4];
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3]) : "r"(rows + row * rowBytes + i % runs * 16) : "memory");
    FASTMQA_UNROLL
    for (int j = 0; j < 4; j++) x[j] *= inverse;
    const int64_t slotRow = ((static_cast<int64_t>(work.slot) * p.batch + work.b) * p.queryTokens + token) * p.heads + head;
    const int64_t out = work.b * p.outBatch + token * p.outToken + head * p.outHead + channel;
    if (p.slots > 1)
      p.partialSums.store(slotRow * p.valueDim + channel, Word4{bitsOfFloat(x[0]), bitsOfFloat(x[1]), bitsOfFloat(x[2]), bitsOfFloat(x[3])});
    else if (isHalf)
      p.out.store(out * 2, p.outType == Dtype::f16 ? Word2{packHalves(F16(), x[0], x[1]), packHalves(F16(), x[2], x[3])}
                                                   : Word2{packHalves(Bf16(), x[0], x[1]), packHalves(Bf16(), x[2], x[3])});
    else
      for (int j = 0; j < 4; j++) storeNumber(p.outType, p.out, out + j, x[j]);
  }
}

template <class Shape>
static __global__ void __launch_bounds__(Shape::threads, 1) latentKernel(const __grid_constant__ LatentProblem all) {
  extern __shared__ __align__(1024) unsigned char hopperMemory[];
  const AttentionProblem& p = all.p;
  LatentWork& work = *reinterpret_cast<LatentWork*>(hopperMemory + Shape::workAt);
  const uint32_t memory = sharedAddress(hopperMemory);  // a multiple of 1024, as there is no other shared memory
  const LatentBarriers<Shape> barriers{memory + Shape::barriersAt};
  const int firstRow = blockIndex().y * Shape::rows, rowsLeft = p.heads * p.queryTokens - firstRow;
  if (threadIndex() == 0) {
    work = latentWork<Shape>(p);
    constexpr int warps = 4;
    releaseFollower();
    prefetchMap(all.latents);
    if (memory % 1024) asm volatile("trap;");
    initBarrier(barriers.queriesTaken(), warps), initBarrier(barriers.totals(), Shape::threads);
    for (int i = 0; i < Shape::stages; i++) {
      for (int half = 0; half < 2; half++) initBarrier(barriers.full(half, i), 1), initBarrier(barriers.empty(half, i), warps);
      initBarrier(barriers.weightsFull(i), warps * warpSize_ / 2), initBarrier(barriers.scored(i), warps);
    }
    publishBarriers();
  }
  constexpr int chunks = Shape::D / 8;
  for (int i = threadIndex(); i < Shape::rows * chunks; i += Shape::threads) {
    const int row = i / chunks, chunk = i % chunks, line = chunk / 8, r = firstRow + row;
    const uint32_t to = chunk / 2 == Shape::kept    ? Shape::queryStepAt + stepByte(row, chunk % 2)
                        : line < Shape::lines ? Shape::queriesAt + line * Shape::lineTile + lineByte(row, chunk % 8)
                                              : Shape::queryRopeAt + lineByte(row, chunk % 8);
    const int64_t from = blockIndex().z * p.queryBatch + r / p.heads * p.queryToken + r % p.heads * p.queryHead + chunk * 8;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(memory + to), "l"(row < rowsLeft ? p.queries.data() + from * 2 : p.queries.data()),
                 "r"(row < rowsLeft ? 16 : 0)
                 : "memory");
  }
  commitCopies();
  blockBarrier();
  const int warpgroup = threadIndex() / warpgroupThreads;
  if (warpgroup == 0) {
    takeRegisters<Shape::scoreRegisters>();
    scoreLatent<Shape>(all, work, memory);
    arrive(barriers.totals());
  } else {
    giveRegisters<Shape::valueRegisters>();
    sumLatent<Shape>(all, work, memory, warpgroup - 1);
  }
}

}  // namespace fastmqa::gpu::hopper
