// Attention of many query rows: a block keeps a tile of queries and runs over the keys, whose tiles alternate with
// those of the values so that one is on its way while the other is used (FlashAttention-2's schedule). Rows are query
// tokens of one head or, packed, (token, head) pairs of one KV head: then a cached tile is read once for all of them.
#pragma once
#include "storage.h"

namespace fastmqa::gpu {

template <class Type_, int D_>
struct PrefillShape {
  using Type = Type_;
  static constexpr int D = D_;
  static constexpr int warps = 4, threads = warps * warpSize_;
  static constexpr int rowTiles = D <= 128 ? 2 : 1;  // of 16 rows a warp: operands of keys and values serve all of them
  static constexpr int rows = warps * rowTiles * 16;
  static constexpr int tokens = 64;
  static constexpr int sharedBytes = (rows + 2 * tokens) * D * 2;
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
};

template <class Shape>
FASTMQA_KERNEL(Shape::threads, 1)
prefillKernel(const AttentionProblem p) {
  using Type = typename Shape::Type;
  constexpr int D = Shape::D, rowTiles = Shape::rowTiles, tokens = Shape::tokens, threads = Shape::threads;
  constexpr int steps = D / 16, fragments = D / 8, keyFragments = tokens / 8, chunks = D / 8;
  const PrefillBlock<Shape> block(p);
  const int b = block.b, g = block.g, length = block.length;

  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(Shape::rows * D * 2);
  const auto keyTile = carver.take<uint8_t>(tokens * D * 2);
  const auto valueTile = carver.take<uint8_t>(tokens * D * 2);

  const VisibleTiles tiles(p, length, block.position + block.firstRow / block.perToken,
                           block.position + (block.firstRow + block.rowsHere - 1) / block.perToken, tokens);
  const int share = (tiles.count + p.splits - 1) / p.splits;
  const int begin = block.split * share, end = begin + share < tiles.count ? begin + share : tiles.count;

  // Threads stand so that each keeps its place in every row it copies: all other places are constants away.
  constexpr int threadsPerRow = D % 64 == 0 ? 8 : 4, rowsAtOnce = threads / threadsPerRow;
  const auto copyRows = [&](Shared<uint8_t> to, const TokenRows& rows, int i) {
    const int thread = keepInLoop(threadIndex()), copyRow = thread / threadsPerRow, copyChunk = thread % threadsPerRow;
    const int copyPlace = chunkByte<D>(copyRow, copyChunk);
    FASTMQA_UNROLL
    for (int page = 0; page < tokens / pageTokens; page++) {
      const int first = tiles.tile(i) * tokens + page * pageTokens;
      int64_t from = (first < length ? rows.offset(b, g, first) : 0) + copyRow * rows.tokenBytes + copyChunk * 16;
      FASTMQA_UNROLL
      for (int r = 0; r < pageTokens; r += rowsAtOnce, from += rowsAtOnce * rows.tokenBytes)
        FASTMQA_UNROLL
        for (int c = 0; c < chunks; c += threadsPerRow)
          copyAsync<16>(to, copyPlace + ((page * pageTokens + r) * D * 2 + c * 16), rows.data, from + c * 16, first + r + copyRow < length);
    }
  };
  // Queries travel as they are: their type is the kernel's.
  FASTMQA_UNROLL
  for (int j = 0; j < Shape::rows * chunks / threads; j++) {
    const int at = j * threads + threadIndex(), row = at / chunks, chunk = at % chunks, r = block.firstRow + row;
    const int64_t from = b * p.queryBatch + r / block.perToken * p.queryToken + (block.firstHead + r % block.perToken) * p.queryHead + chunk * 8;
    copyAsync<16>(queries, chunkByte<D>(row, chunk), p.queries, from * 2, row < block.rowsHere);
  }
  if (begin < end) copyRows(keyTile, p.keys, begin);
  commitCopies();

  const int warpRow = warpIndex() * rowTiles * 16;
  constexpr int tileRowBytes = 16 * D * 2;
  float top[rowTiles][2], total[rowTiles][2];
  FragmentC sums[rowTiles][fragments];
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++) {
    FASTMQA_UNROLL
    for (int i = 0; i < 2; i++) {
      top[m][i] = minusInfinity;
      total[m][i] = 0;
    }
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++) sums[m][f] = {};
  }
  const float scale = p.scale * log2OfE;

  for (int i = begin; i < end; i++) {
    waitCopies<0>();
    blockBarrier();  // this tile's keys are here; the values before them are used up
    copyRows(valueTile, p.values, i);
    commitCopies();

    // Where this lane reads queries, keys and values; every other place is a few bits away.
    const int lane = keepInLoop(laneIndex()), q = lane / 4, t = lane % 4;
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
    if (i + 1 < end) copyRows(keyTile, p.keys, i + 1);
    commitCopies();

    const int token = tiles.tile(i) * tokens;
    const bool masked = tiles.needsMask(token, tokens), capped = p.softcap != 0;
    const float factor = capped ? 1 : scale;
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++) {
      float most[2] = {minusInfinity, minusInfinity};
      if (masked || capped) {
        const PrefillBlock<Shape> here(p);
        const int row = here.firstRow + warpRow + 16 * m + q;
        const RowMask masks[2] = {RowMask(p, length, here.position + row / here.perToken), RowMask(p, length, here.position + (row + 8) / here.perToken)};
        FASTMQA_UNROLL
        for (int f = 0; f < keyFragments; f++)
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) {
            float& x = scores[m][f].r[j];
            if (capped) x = finishLogit(p, x, scale);
            x = masks[j / 2].sees(token + f * 8 + 2 * t + j % 2) ? x : minusInfinity;
          }
      }
      FASTMQA_UNROLL
      for (int f = 0; f < keyFragments; f++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) most[j / 2] = fmaxf(most[j / 2], scores[m][f].r[j]);
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        most[half] = fmaxf(most[half], shuffleXor(most[half], 1));
        most[half] = fmaxf(most[half], shuffleXor(most[half], 2));
        const float before = top[m][half], now = fmaxf(before, most[half] * factor);
        top[m][half] = now;
        const float shift = now == minusInfinity ? 0 : now, fade = exp2Fast(before - shift);
        FASTMQA_UNROLL
        for (int f = 0; f < fragments; f++) sums[m][f].r[2 * half] *= fade, sums[m][f].r[2 * half + 1] *= fade;
        float sum = 0;
        FASTMQA_UNROLL
        for (int f = 0; f < keyFragments; f++)
          FASTMQA_UNROLL
          for (int c = 0; c < 2; c++) {
            float& x = scores[m][f].r[2 * half + c];
            x = exp2Fast(x * factor - shift);
            sum += x;
          }
        total[m][half] = total[m][half] * fade + sum;
      }
    }
    FASTMQA_UNROLL
    for (int s = 0; s < tokens / 16; s++) {
      FragmentA weights[rowTiles];
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) {
          const FragmentC& x = scores[m][2 * s + j / 2];
          weights[m].r[j] = packWeights(Type(), x.r[j % 2 * 2], x.r[j % 2 * 2 + 1]);
        }
      FASTMQA_UNROLL
      for (int pair = 0; pair < fragments / 2; pair++) {
        uint32_t v[4];
        loadMatricesTransposed(v, valueTile, chunksOn<D>(valueAt, 2 * pair) + s * tileRowBytes);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++) {
          multiply(Type(), sums[m][2 * pair], weights[m], v[0], v[1]);
          multiply(Type(), sums[m][2 * pair + 1], weights[m], v[2], v[3]);
        }
      }
    }
  }
  waitCopies<0>();

  // 16-bit results go through the shared memory of the warp's own queries, so that whole lines are written.
  const PrefillBlock<Shape> here(p);
  const int lane = keepInLoop(laneIndex()), q = lane / 4, t = lane % 4;
  const int perToken = here.perToken, firstRow = here.firstRow, firstHead = here.firstHead, rowsHere = here.rowsHere;
  const bool direct = p.slots == 1 && p.outType != Dtype::f32 && p.alignedOut;
  warpBarrier();
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++)
    FASTMQA_UNROLL
    for (int half = 0; half < 2; half++) {
      float sum = total[m][half];
      sum += shuffleXor(sum, 1);
      sum += shuffleXor(sum, 2);
      const int row = warpRow + 16 * m + q + 8 * half, r = firstRow + row;
      const int token = r / perToken, head = firstHead + r % perToken, slot = p.firstSlot + here.split;
      const float inverse = sum > 0 ? 1 / sum : 0;
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++) {
        const float x = sums[m][f].r[2 * half] * inverse, y = sums[m][f].r[2 * half + 1] * inverse;
        const int channel = f * 8 + 2 * t;
        if (direct)
          queries.template store<uint32_t>(chunkByte<D>(row, f) + 4 * t, p.outType == Dtype::f16 ? packHalves(F16(), x, y) : packHalves(Bf16(), x, y));
        else if (row < rowsHere)
          storeResult(p, slot, here.b, token, head, channel, x), storeResult(p, slot, here.b, token, head, channel + 1, y);
      }
      if (t == 0 && row < rowsHere) storeLogSum(p, slot, here.b, token, head, sum > 0 ? top[m][half] + log2f(sum) : minusInfinity);
    }
  if (!direct) return;
  warpBarrier();
  FASTMQA_UNROLL
  for (int j = 0; j < rowTiles * 16 * chunks / warpSize_; j++) {
    const int at = j * warpSize_ + lane, row = warpRow + at / chunks, chunk = at % chunks, r = firstRow + row;
    if (row < rowsHere)
      p.out.store((here.b * p.outBatch + r / perToken * p.outToken + (firstHead + r % perToken) * p.outHead + chunk * 8) * 2,
                  queries.template load<Word4>(chunkByte<D>(row, chunk)));
  }
}

}  // namespace fastmqa::gpu
