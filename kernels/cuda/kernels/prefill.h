// Attention of many query rows: a block keeps a tile of queries and runs over the keys, whose tiles alternate with
// those of the values so that one is on its way while the other is used (FlashAttention-2's schedule). Rows are query
// tokens of one head or, packed, (token, head) pairs of one KV head: then a cached tile is read once for all of them.
#pragma once
#include "softmax.h"
#include "storage.h"

namespace fastmqa::gpu {

/// The keys that a block sees (as of VisibleTiles), and whose. It lies in shared memory: registers have better things to keep.
struct alignas(16) PrefillKeys {
  int sinkTiles, windowTile, allSeeFrom, allSeeTo;
  int64_t keyStart, valueStart;  ///< as of TokenRows
  int keyStride, valueStride, length, b;
  int unused[4];  // a power of two together

  FASTMQA_DEVICE int tile(int i) const { return i < sinkTiles ? i : windowTile + i - sinkTiles; }
  FASTMQA_DEVICE bool needsMask(int firstToken, int tokens) const { return firstToken < allSeeFrom || firstToken + tokens > allSeeTo; }
};

template <class Type_, int D_>
struct PrefillShape {
  using Type = Type_;
  static constexpr int D = D_;
  static constexpr int warps = 4, threads = warps * warpSize_;
  static constexpr int rowTiles = D <= 128 ? 2 : 1;  // of 16 rows a warp: operands of keys and values serve all of them
  static constexpr int rows = warps * rowTiles * 16;
  static constexpr int tokens(bool asynchronous) { return D == 64 && asynchronous ? 128 : 64; }  ///< of a tile
  /// Products take nearly all registers: what the softmax keeps of a row waits in shared memory meanwhile.
  static constexpr bool parks = rowTiles == 2 && D > 64;
  static constexpr int parkedBytes = parks ? 2 * threads * rowTiles * 2 * 4 : 0;
  /// Where copies are not asynchronous, values follow keys into the same tile.
  static constexpr int tiles(bool asynchronous) { return asynchronous ? 2 : 1; }
  static constexpr int sharedBytes(bool asynchronous) { return (rows + tiles(asynchronous) * tokens(asynchronous)) * D * 2 + parkedBytes + static_cast<int>(sizeof(PrefillKeys)); }
};

/// A number of each of a lane's rows.
template <int rowTiles>
struct alignas(8 * rowTiles) RowNumbers {
  float of[rowTiles][2];
};

/// What a block works on. Cheap to compute, so it is computed again where it is needed, and no register keeps it.
template <class Shape>
struct PrefillBlock {
  int perToken, firstRow, rowsHere, split, firstHead, g, b, length, position;

  FASTMQA_DEVICE explicit PrefillBlock(const AttentionProblem& p) {
    const int x = keepInLoop(blockIndex().x);
    // Heads in a group share keys: `packed` rows are (token, head) pairs; else a head has blocks of its own.
    perToken = p.packed ? p.groupSize() : 1;
    const int allRows = perToken * p.queryTokens, rowBlocks = (allRows + Shape::rows - 1) / Shape::rows;
    firstRow = (rowBlocks - 1 - x / p.splits) * Shape::rows;  // the longest rows first, so that no long block starts last
    split = x % p.splits;
    firstHead = blockIndex().y * perToken;
    g = firstHead / p.groupSize();
    b = blockIndex().z;
    rowsHere = allRows - firstRow < Shape::rows ? allRows - firstRow : Shape::rows;
    length = p.tokensOf(b);
    position = p.positionOf(b);
  }
  /// Query token and head of row `row` of the block.
  FASTMQA_DEVICE int token(int row) const { return perToken == 1 ? firstRow + row : (firstRow + row) / perToken; }
  FASTMQA_DEVICE int head(int row) const { return perToken == 1 ? firstHead : firstHead + (firstRow + row) % perToken; }
};

/// Where four numbers of one of eight rows lie while results change hands: rows that are written at once in different banks.
template <int D>
FASTMQA_DEVICE int resultByte(int row, int four) { return row * D * 4 + (four ^ (row & 3) << 1) * 16; }

template <class Shape>
FASTMQA_KERNEL(Shape::threads, 1)
prefillKernel(const AttentionProblem p) {
  using Type = typename Shape::Type;
  constexpr int D = Shape::D, rowTiles = Shape::rowTiles, tokens = Shape::tokens(hasAsyncCopies), threads = Shape::threads;
  constexpr int steps = D / 16, fragments = D / 8, keyFragments = tokens / 8, chunks = D / 8;
  const PrefillBlock<Shape> block(p);

  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(Shape::rows * D * 2);
  const auto keyTile = carver.take<uint8_t>(tokens * D * 2);
  const auto valueTile = hasAsyncCopies ? carver.take<uint8_t>(tokens * D * 2) : keyTile;
  const auto parked = carver.take<RowNumbers<rowTiles>>(Shape::parks ? 2 * threads : 0);
  const auto keys = carver.take<PrefillKeys>(1);  // last: rows start where a copy's sectors do
  const auto park = [&](const RowNumbers<rowTiles>& tops, const RowNumbers<rowTiles>& totals) {
    if constexpr (Shape::parks) parked.store(threadIndex(), tops), parked.store(threads + threadIndex(), totals);
  };
  const auto unpark = [&](RowNumbers<rowTiles>& tops, RowNumbers<rowTiles>& totals) {
    if constexpr (Shape::parks) tops = parked.load(threadIndex()), totals = parked.load(threads + threadIndex());
  };

  const VisibleTiles tiles(p, block.length, block.position + block.token(0), block.position + block.token(block.rowsHere - 1), tokens);
  if (threadIndex() == 0) keys.store(0, {tiles.sinkTiles, tiles.windowTile, tiles.allSeeFrom, tiles.allSeeTo, p.keys.start(block.b, block.g), p.values.start(block.b, block.g), p.keys.pageStride(),
                                         p.values.pageStride(), block.length, block.b, {}});
  const TileRange share = tiles.shareOf(block.split, p.splits);
  blockBarrier();

  // Threads stand so that each keeps its place in every row it copies: all other places are constants away.
  constexpr int threadsPerRow = D % 64 == 0 ? 8 : 4, rowsAtOnce = threads / threadsPerRow;
  const auto copyRows = [&](Shared<uint8_t> to, const TokenRows& rows, bool ofKeys, int i) {
    const int thread = keepInLoop(threadIndex()), copyRow = thread / threadsPerRow, copyChunk = thread % threadsPerRow;
    const int copyPlace = chunkByte<D>(copyRow, copyChunk);
    const PrefillKeys seen = keys.load(0);
    FASTMQA_UNROLL
    for (int page = 0; page < tokens / pageTokens; page++) {
      const int first = seen.tile(i) * tokens + page * pageTokens;
      int64_t from = (copyRow * static_cast<int>(rows.tokenBytes) + copyChunk * 16) +
                     (first < seen.length ? rows.pageOffset(ofKeys ? seen.keyStart : seen.valueStart, ofKeys ? seen.keyStride : seen.valueStride, seen.b, first / pageTokens) : 0);
      FASTMQA_UNROLL
      for (int r = 0; r < pageTokens; r += rowsAtOnce, from += rowsAtOnce * rows.tokenBytes)
        FASTMQA_UNROLL
        for (int c = 0; c < chunks; c += threadsPerRow)
          copyAsync<16>(to, copyPlace + ((page * pageTokens + r) * D * 2 + c * 16), rows.data, from + c * 16, first + r + copyRow < seen.length);
    }
  };
  // Queries travel as they are: their type is the kernel's.
  FASTMQA_ROLLED
  for (int j = 0; j < Shape::rows * chunks / threads; j++) {
    const int at = j * threads + threadIndex(), row = at / chunks, chunk = at % chunks;
    const int64_t from = block.b * p.queryBatch + block.token(row) * p.queryToken + block.head(row) * p.queryHead + chunk * 8;
    copyAsync<16>(queries, chunkByte<D>(row, chunk), p.queries, from * 2, row < block.rowsHere);
  }
  if (hasAsyncCopies && share.begin < share.end) copyRows(keyTile, p.keys, true, share.begin);
  commitCopies();

  const int warpRow = warpIndex() * rowTiles * 16;
  constexpr int tileRowBytes = 16 * D * 2;
  RowNumbers<rowTiles> tops, totals;  // shift (as of weighScores), and sum of the weights of this lane's columns
  FragmentC sums[rowTiles][fragments];
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++) {
    FASTMQA_UNROLL
    for (int i = 0; i < 2; i++) {
      tops.of[m][i] = minusInfinity;
      totals.of[m][i] = 0;
    }
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++) sums[m][f] = {};
  }
  park(tops, totals);
  const float scale = p.scale * log2OfE;

  for (int i = share.begin; i < share.end; i++) {
    waitCopies<0>();
    blockBarrier();  // this tile's keys are here; the values before them are used up
    copyRows(hasAsyncCopies ? valueTile : keyTile, hasAsyncCopies ? p.values : p.keys, !hasAsyncCopies, i);
    if (hasAsyncCopies)
      commitCopies();
    else
      blockBarrier();

    // Where this lane reads queries, keys and values; every other place is a few bits away.
    const int lane = keepInLoop(laneIndex());
    const int queryAt = chunkByte<D>(warpRow + (lane & 15), lane >> 4);
    const int keyAt = chunkByte<D>((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    const int valueAt = chunkByte<D>((lane & 7) + (lane >> 3 & 1) * 8, lane >> 4);
    FragmentC scores[rowTiles][keyFragments];
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++)
      FASTMQA_UNROLL
      for (int f = 0; f < keyFragments; f++) scores[m][f] = {};
    FASTMQA_UNROLL
    for (int s = 0; s < steps; s++) {
      FragmentA a[rowTiles];
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++) loadMatrices(a[m].r, queries, chunksOn<D>(queryAt, 2 * s) + m * tileRowBytes);
      FASTMQA_UNROLL
      for (int pair = 0; pair < keyFragments / 2; pair++) {
        uint32_t k[4];
        loadMatrices(k, keyTile, chunksOn<D>(keyAt, 2 * s) + pair * tileRowBytes);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++) {
          multiply(Type(), scores[m][2 * pair], a[m], k[0], k[1]);
          multiply(Type(), scores[m][2 * pair + 1], a[m], k[2], k[3]);
        }
      }
    }
    waitCopies<0>();
    blockBarrier();  // the values are here; the keys are used up
    if (!hasAsyncCopies)
      copyRows(valueTile, p.values, false, i), blockBarrier();
    else if (i + 1 < share.end)
      copyRows(keyTile, p.keys, true, i + 1);
    commitCopies();

    const PrefillKeys seen = keys.load(0);
    const int token = seen.tile(i) * tokens;
    // Each on its own, so that tiles which need neither jump once and find what follows in the instruction cache.
    if (p.softcap != 0) {
      const float unscale = reciprocal(scale);
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4 * keyFragments; j++) scores[m][j / 4].r[j % 4] = finishLogit(p, scores[m][j / 4].r[j % 4], scale) * unscale;
    }
    if (seen.needsMask(token, tokens)) {
      const PrefillBlock<Shape> here(p);
      const int lane = keepInLoop(laneIndex()), q = lane / 4, t = lane % 4;
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++)
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const RowMask mask(p, seen.length, here.position + here.token(warpRow + 16 * m + 8 * half + q));
          FASTMQA_UNROLL
          for (int j = 0; j < 2 * keyFragments; j++) {
            float& x = scores[m][j / 2].r[2 * half + j % 2];
            x = mask.sees(token + j / 2 * 8 + 2 * t + j % 2) ? x : minusInfinity;
          }
        }
    }
    unpark(tops, totals);
    FragmentA weights[rowTiles][tokens / 16];
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++) {
      float fade[2];
      const bool rescale = weighScores<4 * keyFragments>([&](int j) -> float& { return scores[m][j / 4].r[j % 4]; }, scale, tops.of[m], totals.of[m], fade);
      if (rescale) {
        FASTMQA_UNROLL
        for (int f = 0; f < fragments; f++)
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) sums[m][f].r[j] *= fade[j / 2];
      }
      FASTMQA_UNROLL
      for (int s = 0; s < tokens / 16; s++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) {
          const FragmentC& x = scores[m][2 * s + j / 2];
          weights[m][s].r[j] = packWeights(Type(), x.r[j % 2 * 2], x.r[j % 2 * 2 + 1]);
        }
    }
    park(tops, totals);
    FASTMQA_UNROLL
    for (int s = 0; s < tokens / 16; s++) {
      FASTMQA_UNROLL
      for (int pair = 0; pair < fragments / 2; pair++) {
        uint32_t v[4];
        loadMatricesTransposed(v, valueTile, chunksOn<D>(valueAt, 2 * pair) + s * tileRowBytes);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++) {
          multiply(Type(), sums[m][2 * pair], weights[m][s], v[0], v[1]);
          multiply(Type(), sums[m][2 * pair + 1], weights[m][s], v[2], v[3]);
        }
      }
    }
  }
  waitCopies<0>();
  blockBarrier();  // queries are used up, or, without a tile, here
  unpark(tops, totals);

  // Eight rows at a time, results go through the shared memory of the warp's own queries: whole lines are written, and the
  // many ways to write stand in the code once, not once a register.
  const PrefillBlock<Shape> here(p);
  const int lane = keepInLoop(laneIndex()), q = lane / 4, t = lane % 4, slot = p.firstSlot + here.split;
  const bool direct = p.slots == 1 && p.outType != Dtype::f32 && p.alignedOut;
  const int base = warpRow * D * 2;
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++)
    FASTMQA_UNROLL
    for (int half = 0; half < 2; half++) {
      float sum = totals.of[m][half];
      sum += shuffleXor(sum, 1);
      sum += shuffleXor(sum, 2);
      const float inverse = sum > 0 ? 1 / sum : 0;
      const int first = warpRow + 16 * m + 8 * half;
      if (t == 0 && first + q < here.rowsHere)
        storeLogSum(p, slot, here.b, here.token(first + q), here.head(first + q), log2OfSum(tops.of[m][half], sum));
      if (m + half > 0) warpBarrier();  // the eight rows before are used up
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++)
        queries.template store<Word2>(base + resultByte<D>(q, 2 * f + t / 2) + t % 2 * 8,
                                      Word2{bitsOfFloat(sums[m][f].r[2 * half] * inverse), bitsOfFloat(sums[m][f].r[2 * half + 1] * inverse)});
      warpBarrier();
      if (direct) {
        FASTMQA_ROLLED
        for (int at = lane; at < 8 * chunks; at += warpSize_) {
          const int row = at / chunks, chunk = at % chunks;
          if (first + row >= here.rowsHere) continue;
          const Word4 low = queries.template load<Word4>(base + resultByte<D>(row, 2 * chunk)), high = queries.template load<Word4>(base + resultByte<D>(row, 2 * chunk + 1));
          const auto pack = [&](uint32_t x, uint32_t y) {
            return p.outType == Dtype::f16 ? packHalves(F16(), floatOf(x), floatOf(y)) : packHalves(Bf16(), floatOf(x), floatOf(y));
          };
          p.out.store((here.b * p.outBatch + here.token(first + row) * p.outToken + here.head(first + row) * p.outHead + chunk * 8) * 2,
                      Word4{pack(low.x, low.y), pack(low.z, low.w), pack(high.x, high.y), pack(high.z, high.w)});
        }
      } else {
        FASTMQA_ROLLED
        for (int at = lane; at < 8 * D; at += warpSize_) {
          const int row = at / D, channel = at % D;
          if (first + row < here.rowsHere)
            storeResult(p, slot, here.b, here.token(first + row), here.head(first + row), channel,
                        queries.template load<float>(base + resultByte<D>(row, channel / 4) + channel % 4 * 4));
        }
      }
    }
}

}  // namespace fastmqa::gpu
